// embed: rows of the embedding in every element type.
#include <ggml.h>
#include <gtest/gtest.h>

#include <vector>

#include "steps/model_bodies.h"
#include "support/attention_case.h"
#include "support/weights.h"

namespace bough {
namespace {

std::vector<float> embed(const ModelBodies& bodies, const std::vector<TokenId>& ids, const Tensor& embedding) {
  std::vector<float> x(ids.size() * static_cast<size_t>(embedding.cols), -9.0F);
  bodies.embed({ids.data(), static_cast<int64_t>(ids.size()), embedding, x.data()});
  return x;
}

TEST(Embed, BodiesAgreeBitForBit) {
  const std::vector<TokenId> ids = {49, 0, 7, 7, 23};
  for (const int type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1}) {
    const test::RandomMatrix embedding(type, 50, 96, 1);
    const std::vector<float> expected = embed(model_bodies().back(), ids, embedding.tensor());
    for (const int threads : {1, 2, 3}) {
      test::with_threads(threads, [&] {
        EXPECT_TRUE(test::same_bits(embed(model_bodies().front(), ids, embedding.tensor()), expected)) << test::type_name(type);
      });
    }
  }
}

TEST(Embed, TakesTheRowOfTheId) {
  std::vector<float> values = test::random_rows(6, 5, 2);
  const Tensor embedding{values.data(), GGML_TYPE_F32, 6, 5, 5 * sizeof(float), "values"};
  for (const ModelBodies& bodies : model_bodies()) {
    const std::vector<float> x = embed(bodies, {5, 2}, embedding);
    EXPECT_EQ(std::vector<float>(x.begin(), x.begin() + 5), std::vector<float>(values.begin() + 25, values.end())) << bodies.name;
    EXPECT_EQ(std::vector<float>(x.begin() + 5, x.end()), std::vector<float>(values.begin() + 10, values.begin() + 15)) << bodies.name;
  }
}

TEST(Embed, Scales) {
  const test::RandomMatrix embedding(GGML_TYPE_Q8_0, 50, 96, 4);
  const std::vector<TokenId> ids = {7, 49};
  for (const ModelBodies& bodies : model_bodies()) {
    const std::vector<float> plain = embed(bodies, ids, embedding.tensor());
    std::vector<float> scaled(plain.size());
    bodies.embed({ids.data(), 2, embedding.tensor(), scaled.data(), 25.3F});
    for (size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(scaled[i], plain[i] * 25.3F) << bodies.name;
  }
}

// Every type: what is read is close to what was written.
TEST(Embed, QuantisedRowsAreClose) {
  const test::RandomMatrix exact(GGML_TYPE_F32, 20, 64, 3);
  const std::vector<TokenId> ids = {3, 19};
  const std::vector<float> expected = embed(model_bodies().back(), ids, exact.tensor());
  const std::pair<int, double> types[] = {
      {GGML_TYPE_F16, 1e-3}, {GGML_TYPE_BF16, 4e-3}, {GGML_TYPE_Q8_0, 1e-2}, {GGML_TYPE_Q4_1, 0.1}, {GGML_TYPE_Q4_0, 0.12}};
  for (const auto& [type, tolerance] : types) {
    const test::RandomMatrix rounded(type, 20, 64, 3);
    EXPECT_LE(test::relative_error(embed(model_bodies().front(), ids, rounded.tensor()), expected), tolerance) << test::type_name(type);
  }
}

}  // namespace
}  // namespace bough
