#include <gmock/gmock.h>

#include "ggml.h"
#include "model/config.h"
#include "model/weights.h"

namespace bough {
namespace {

TEST(DefaultModel, ConfigWeightsAndValues) {
  const Result<GgufFile> file = open_gguf(BOUGH_TEST_MODEL);
  ASSERT_TRUE(file.ok()) << file.status().message();
  const Result<ModelConfig> config = read_config(*file);
  ASSERT_TRUE(config.ok()) << config.status().message();
  EXPECT_EQ(config->layers, 30);
  EXPECT_EQ(config->d_model, 576);
  EXPECT_EQ(config->heads, 9);
  EXPECT_EQ(config->kv_heads, 3);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_EQ(config->ffn, 1536);
  EXPECT_EQ(config->vocab, 49152);
  EXPECT_EQ(config->trained_context, 8192);
  EXPECT_FLOAT_EQ(config->norm_eps, 1e-5f);
  EXPECT_EQ(config->rope.base, 100000.0);
  EXPECT_TRUE(config->tied_output);

  const Result<Weights> weights = bind_weights(*file, *config);
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(weights->embedding.type, GGML_TYPE_Q8_0);
  EXPECT_EQ(weights->output.weight.data, weights->embedding.data);
  ASSERT_EQ(weights->layers.size(), 30u);
  EXPECT_EQ(weights->layers[29].down.weight.type, GGML_TYPE_Q4_1);
  EXPECT_EQ(weights->layers[29].down.weight.cols, 1536);
  const Status finite = check_finite(*weights);
  EXPECT_TRUE(finite.ok()) << finite.message();
}

}  // namespace
}  // namespace bough
