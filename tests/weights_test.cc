#include "model/weights.h"

#include <gmock/gmock.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>

#include "ggml.h"
#include "llama.h"
#include "support/tiny_gguf.h"

namespace bough {
namespace {

using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// A model in memory. The bytes outlive the file, the file the weights.
struct Model {
  explicit Model(const GgufBuilder& builder) : bytes(builder.build()) {
    Result<GgufFile> opened = parse_gguf(bytes);
    EXPECT_TRUE(opened.ok()) << opened.status().message();
    file = std::move(*opened);
    Result<ModelConfig> read = read_config(file);
    EXPECT_TRUE(read.ok()) << read.status().message();
    if (read.ok()) config = *read;
  }
  explicit Model(const TinyModel& spec) : Model(*build_tiny_model(spec, 7)) {}

  Result<Weights> bind() const { return bind_weights(file, config); }

  std::vector<std::byte> bytes;
  GgufFile file;
  ModelConfig config;
};

GgufBuilder tiny(const TinyModel& spec = {}) { return *build_tiny_model(spec, 7); }

void expect_refused(const GgufBuilder& builder, Code code, const std::string& part) {
  const Model model(builder);
  const Result<Weights> weights = model.bind();
  ASSERT_FALSE(weights.ok()) << part;
  EXPECT_EQ(code_name(weights.status().code()), code_name(code));
  EXPECT_THAT(weights.status().message(), HasSubstr(part));
}

std::vector<std::byte> zeros(size_t n) { return std::vector<std::byte>(n); }

TEST(Weights, BindsEveryTensor) {
  const Model model(TinyModel{.layers = 3, .rope_factors = true, .tied = false});
  const Result<Weights> weights = model.bind();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  ASSERT_EQ(weights->layers.size(), 3u);
  const LayerWeights& layer = weights->layers[2];
  EXPECT_EQ(layer.k.weight.name, "blk.2.attn_k.weight");
  EXPECT_EQ(layer.k.weight.rows, 32);
  EXPECT_EQ(layer.k.weight.cols, 64);
  EXPECT_EQ(layer.k.weight.row_bytes, 256u);
  EXPECT_EQ(layer.down.weight.rows, 64);
  EXPECT_EQ(layer.down.weight.cols, 128);
  EXPECT_EQ(layer.ffn_norm.rows, 1);
  EXPECT_EQ(layer.ffn_norm.cols, 64);
  EXPECT_EQ(weights->output.weight.name, "output.weight");
  EXPECT_EQ(layer.o.weight.data, model.file.data(*model.file.find_tensor("blk.2.attn_output.weight")).data());
  EXPECT_TRUE(check_finite(*weights).ok());
}

TEST(Weights, TiedOutputIsTheEmbedding) {
  const Model model(TinyModel{});
  const Result<Weights> weights = model.bind();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  EXPECT_EQ(weights->output.weight.data, weights->embedding.data);
}

const std::byte* bytes_of(const Model& model, const char* name) { return model.file.data(*model.file.find_tensor(name)).data(); }

// Parts of a fused tensor point into it.
TEST(Weights, FusedTensorsAreNotCopied) {
  for (const int type : {GGML_TYPE_F32, GGML_TYPE_Q8_0}) {
    TinyModel spec{.arch = "phi3", .type = type};
    spec.biases = true;
    const Model model(spec);
    const Result<Weights> weights = model.bind();
    ASSERT_TRUE(weights.ok()) << weights.status().message();
    const LayerWeights& layer = weights->layers[1];
    const size_t row = ggml_row_size(static_cast<ggml_type>(type), 64);
    EXPECT_EQ(layer.q.weight.data, bytes_of(model, "blk.1.attn_qkv.weight"));
    EXPECT_EQ(layer.k.weight.data, bytes_of(model, "blk.1.attn_qkv.weight") + 64 * row);
    EXPECT_EQ(layer.v.weight.data, bytes_of(model, "blk.1.attn_qkv.weight") + 96 * row);
    EXPECT_EQ(layer.v.weight.rows, 32);
    EXPECT_EQ(layer.v.bias.data, bytes_of(model, "blk.1.attn_qkv.bias") + 96 * sizeof(float));
    EXPECT_EQ(layer.v.bias.cols, 32);
    EXPECT_EQ(layer.gate.weight.data, bytes_of(model, "blk.1.ffn_up.weight"));
    EXPECT_EQ(layer.up.weight.data, bytes_of(model, "blk.1.ffn_up.weight") + 128 * row);
    EXPECT_EQ(layer.up.weight.rows, 128);
    EXPECT_TRUE(check_finite(*weights).ok());
  }
}

TEST(Weights, OptionalTensorsOfTheFamilies) {
  const Model plain(TinyModel{}), qwen(TinyModel{.arch = "qwen3"}), gemma(TinyModel{.arch = "gemma3"});
  const LayerWeights without = plain.bind()->layers[0], head_norms = qwen.bind()->layers[0], all_norms = gemma.bind()->layers[0];
  for (const Tensor* tensor : {&without.q_norm, &without.post_attn_norm, &without.q.bias, &head_norms.post_ffn_norm}) {
    EXPECT_EQ(tensor->data, nullptr);
  }
  EXPECT_EQ(head_norms.k_norm.data, bytes_of(qwen, "blk.0.attn_k_norm.weight"));
  EXPECT_EQ(head_norms.k_norm.cols, 16);
  EXPECT_EQ(all_norms.post_attn_norm.data, bytes_of(gemma, "blk.0.post_attention_norm.weight"));
  EXPECT_EQ(all_norms.post_ffn_norm.data, bytes_of(gemma, "blk.0.post_ffw_norm.weight"));
}

TEST(Weights, EveryElementTypeIsFinite) {
  for (const int type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q8_0, GGML_TYPE_Q5_1}) {
    const Model model(TinyModel{.type = type});
    const Result<Weights> weights = model.bind();
    ASSERT_TRUE(weights.ok()) << weights.status().message();
    EXPECT_EQ(weights->layers[0].q.weight.type, type);
    EXPECT_TRUE(check_finite(*weights).ok()) << type;
  }
}

TEST(WeightsRefuse, MissingTensors) {
  for (const char* name :
       {"output_norm.weight", "blk.0.attn_norm.weight", "blk.1.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight",
        "blk.0.attn_output.weight", "blk.0.ffn_norm.weight", "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "blk.1.ffn_down.weight"}) {
    GgufBuilder builder = tiny();
    builder.erase_tensor(name);
    expect_refused(builder, Code::corrupt, "the tensor '" + std::string(name) + "' is missing");
  }
}

TEST(WeightsRefuse, WhatAFamilyNeeds) {
  const std::pair<const char*, const char*> missing[] = {{"qwen3", "blk.1.attn_q_norm.weight"},
                                                         {"gemma2", "blk.0.post_attention_norm.weight"},
                                                         {"gemma3", "blk.1.post_ffw_norm.weight"},
                                                         {"gemma3", "blk.0.attn_k_norm.weight"},
                                                         {"phi3", "blk.1.ffn_up.weight"}};
  for (const auto& [arch, name] : missing) {
    GgufBuilder builder = tiny({.arch = arch});
    builder.erase_tensor(name);
    expect_refused(builder, Code::corrupt, "the tensor '" + std::string(name) + "' is missing");
  }
  GgufBuilder builder = tiny({.arch = "phi3"});
  builder.set_tensor("blk.0.ffn_up.weight", {64, 128}, std::vector<float>(64 * 128, 0.1f));
  expect_refused(builder, Code::corrupt, "'blk.0.ffn_up.weight' has the shape [64, 128], it must be [64, 256]");
  builder = tiny({.arch = "phi3"});
  builder.set_tensor("blk.0.attn_qkv.weight", {64, 64}, std::vector<float>(64 * 64, 0.1f));
  expect_refused(builder, Code::corrupt, "'blk.0.attn_qkv.weight' has the shape [64, 64], it must be [64, 128]");
  builder = tiny({.arch = "qwen2"});
  builder.set_tensor("blk.0.attn_v.bias", {64}, std::vector<float>(64));
  expect_refused(builder, Code::corrupt, "'blk.0.attn_v.bias' has the shape [64], it must be [32]");
}

TEST(WeightsRefuse, TensorsOfOtherFamilies) {
  const std::tuple<const char*, const char*, int64_t> strangers[] = {{"qwen2", "rope_freqs.weight", 8},
                                                                     {"qwen3", "blk.0.attn_output.bias", 64},
                                                                     {"llama", "output.bias", tiny_vocab_size()},
                                                                     {"gemma3", "blk.0.ffn_down.bias", 64},
                                                                     {"phi3", "blk.0.attn_q.bias", 64}};
  for (const auto& [arch, name, size] : strangers) {
    GgufBuilder builder = tiny({.arch = arch});
    builder.set_tensor(name, {size}, std::vector<float>(static_cast<size_t>(size), 1.0f));
    expect_refused(builder, Code::unsupported, "'" + std::string(name) + "' is not used for the architecture '" + arch + "'");
  }
}

TEST(WeightsRefuse, ShapesThatDiffer) {
  GgufBuilder builder = tiny();
  builder.set_tensor("blk.1.attn_k.weight", {64, 64}, std::vector<float>(64 * 64, 0.1f));
  expect_refused(builder, Code::corrupt, "'blk.1.attn_k.weight' has the shape [64, 64], it must be [64, 32]");
  builder = tiny();
  builder.set_tensor("blk.0.ffn_norm.weight", {64, 1}, std::vector<float>(64, 1.0f));
  expect_refused(builder, Code::corrupt, "'blk.0.ffn_norm.weight' has the shape [64, 1], it must be [64]");
  builder = tiny();
  builder.set_tensor("blk.0.attn_q.weight", {64, 64, 2}, std::vector<float>(64 * 64 * 2, 1.0f));
  expect_refused(builder, Code::corrupt, "'blk.0.attn_q.weight' has the shape [64, 64, 2], it must be [64, 64]");
}

TEST(WeightsRefuse, TypesAndStrangers) {
  GgufBuilder builder = tiny();
  builder.set_tensor("output_norm.weight", GGML_TYPE_F16, {64}, zeros(128));
  expect_refused(builder, Code::unsupported, "'output_norm.weight' is f16, only f32 is supported for vectors");
  builder = tiny();
  builder.set_tensor("blk.0.attn_q.weight", GGML_TYPE_I32, {64, 64}, zeros(64 * 64 * 4));
  expect_refused(builder, Code::unsupported, "'blk.0.attn_q.weight' is i32, which cannot be turned into floats");
  builder = tiny();
  builder.set_tensor("blk.0.attn_q_norm.weight", {16}, std::vector<float>(16));
  expect_refused(builder, Code::unsupported, "'blk.0.attn_q_norm.weight' is not used for the architecture 'llama' with 2 layers");
}

// Puts `value` into one place of one tensor, in the tensor's own format.
void expect_found(int type, int64_t row, int64_t column, float value) {
  const TinyModel spec{.type = type};
  Model model(spec);
  const TensorInfo& tensor = *model.file.find_tensor("blk.1.ffn_up.weight");
  const size_t row_bytes = ggml_row_size(static_cast<ggml_type>(type), tensor.dims[0]);
  const auto block = ggml_blck_size(static_cast<ggml_type>(type));
  const size_t at = tensor.offset + static_cast<size_t>(row) * row_bytes +
                    static_cast<size_t>(column / block) * ggml_type_size(static_cast<ggml_type>(type));
  if (type == GGML_TYPE_F32) {
    std::memcpy(model.bytes.data() + at, &value, sizeof(value));
  } else if (type == GGML_TYPE_BF16) {
    const ggml_bf16_t converted = ggml_fp32_to_bf16(value);
    std::memcpy(model.bytes.data() + at, &converted, sizeof(converted));
  } else {  // f16 itself, or the f16 scale in front of a block
    const ggml_fp16_t converted = ggml_fp32_to_fp16(value);
    std::memcpy(model.bytes.data() + at, &converted, sizeof(converted));
  }
  const Result<Weights> weights = model.bind();
  ASSERT_TRUE(weights.ok()) << weights.status().message();
  const Status status = check_finite(*weights);
  EXPECT_EQ(status.code(), Code::corrupt) << type;
  EXPECT_THAT(status.message(), HasSubstr("'blk.1.ffn_up.weight' holds a value that is not finite, at row " + std::to_string(row) +
                                          " and column " + std::to_string(column)));
}

TEST(CheckFinite, FindsTheFirstPlace) {
  for (const float value : {kNan, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
    expect_found(GGML_TYPE_F32, 0, 0, value);
    expect_found(GGML_TYPE_F32, 127, 63, value);
    expect_found(GGML_TYPE_F16, 17, 5, value);
    expect_found(GGML_TYPE_BF16, 17, 5, value);
  }
  expect_found(GGML_TYPE_Q8_0, 3, 32, kNan);
  expect_found(GGML_TYPE_Q4_0, 126, 0, kNan);
}

TEST(CheckFinite, LooksIntoBiasesAndNorms) {
  for (const auto& [arch, name, size] :
       {std::tuple("qwen2", "blk.1.attn_k.bias", 32), std::tuple("qwen3", "blk.1.attn_k_norm.weight", 16),
        std::tuple("gemma3", "blk.0.post_ffw_norm.weight", 64), std::tuple("qwen2", "output.bias", tiny_vocab_size())}) {
    GgufBuilder builder = tiny({.arch = arch});
    std::vector<float> values(static_cast<size_t>(size), 1.0f);
    values[5] = kNan;
    builder.set_tensor(name, {size}, values);
    const Model model(builder);
    const Result<Weights> weights = model.bind();
    ASSERT_TRUE(weights.ok()) << weights.status().message();
    EXPECT_THAT(check_finite(*weights).message(),
                HasSubstr("'" + std::string(name) + "' holds a value that is not finite, at row 0 and column 5"));
  }
}

// llama.cpp itself loads the file and runs it. Returns the last token's logits.
std::vector<float> llama_logits(const std::string& path, std::vector<llama_token> tokens) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  llama_model* model = llama_model_load_from_file(path.c_str(), model_params);
  if (model == nullptr) return {};
  llama_context_params context_params = llama_context_default_params();
  context_params.n_ctx = 64;
  context_params.n_threads = 1;
  context_params.n_threads_batch = 1;
  llama_context* context = llama_init_from_model(model, context_params);
  std::vector<float> logits;
  if (context != nullptr && llama_decode(context, llama_batch_get_one(tokens.data(), static_cast<int32_t>(tokens.size()))) == 0) {
    const float* row = llama_get_logits_ith(context, -1);
    logits.assign(row, row + llama_vocab_n_tokens(llama_model_get_vocab(model)));
  }
  llama_free(context);
  llama_model_free(model);
  return logits;
}

TEST(TinyGguf, LlamaCppRunsIt) {
  const TinyModel specs[] = {{},
                             {.rope_scale = 2, .rope_factors = true, .tied = false},
                             {.head_dim = 32, .type = GGML_TYPE_F16},
                             {.type = GGML_TYPE_Q8_0},
                             {.type = GGML_TYPE_Q4_0}};
  const std::string path = testing::TempDir() + "/weights_test.gguf";
  for (const TinyModel& spec : specs) {
    ASSERT_TRUE(write_tiny_gguf(path, spec, 3).ok());
    const std::vector<float> logits = llama_logits(path, {1, 40, 50, 60});
    ASSERT_EQ(logits.size(), static_cast<size_t>(tiny_vocab_size())) << spec.type;
    double squares = 0;
    for (const float value : logits) squares += static_cast<double>(value) * value;
    EXPECT_TRUE(std::isfinite(squares));
    EXPECT_GT(squares / static_cast<double>(logits.size()), 0.05);
    EXPECT_LT(squares / static_cast<double>(logits.size()), 20.0);
  }
}

// The vocabulary: text goes in and comes out again, special tokens are single ids.
TEST(TinyGguf, VocabularyRoundTrip) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  const std::string path = testing::TempDir() + "/vocabulary_test.gguf";
  ASSERT_TRUE(write_tiny_gguf(path, {}, 3).ok());
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  llama_model* model = llama_model_load_from_file(path.c_str(), params);
  ASSERT_NE(model, nullptr);
  const llama_vocab* vocab = llama_model_get_vocab(model);
  const std::string text = "<|im_start|>the inner and the hen\n\xc3\xa9\xe2\x82\xac\x01<|im_end|>";
  llama_token tokens[64];
  const int n = llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), tokens, 64, false, true);
  ASSERT_GT(n, 0);
  EXPECT_LT(n, static_cast<int>(text.size()) - 22);
  EXPECT_EQ(tokens[0], 1);
  EXPECT_EQ(tokens[n - 1], 2);
  EXPECT_TRUE(llama_vocab_is_eog(vocab, kTinyEos));
  char back[256];
  const int length = llama_detokenize(vocab, tokens, n, back, sizeof(back), false, true);
  ASSERT_GT(length, 0);
  EXPECT_EQ(std::string(back, static_cast<size_t>(length)), text);
  EXPECT_NE(llama_model_chat_template(model, nullptr), nullptr);
  llama_model_free(model);
}

TEST(TinyGguf, SameSeedSameBytes) {
  EXPECT_EQ(build_tiny_model({}, 5)->build(), build_tiny_model({}, 5)->build());
  EXPECT_NE(build_tiny_model({}, 5)->build(), build_tiny_model({}, 6)->build());
}

TEST(TinyGguf, RefusesRowsThatDoNotFitTheBlock) {
  const Result<GgufBuilder> builder = build_tiny_model({.d_model = 40, .heads = 2, .kv_heads = 1, .type = GGML_TYPE_Q8_0}, 1);
  ASSERT_FALSE(builder.ok());
  EXPECT_EQ(builder.status().code(), Code::invalid_argument);
}

}  // namespace
}  // namespace bough
