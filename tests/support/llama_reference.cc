#include "support/llama_reference.h"

#include <llama.h>

#include <algorithm>
#include <cmath>

namespace bough::test {
namespace {

constexpr int64_t kBatch = 512;

bool is_geglu(const ggml_tensor* t) {
  return t->op == GGML_OP_GLU && ggml_get_glu_op(t) == GGML_GLU_OP_GEGLU && t->type == GGML_TYPE_F32 && t->src[1] != nullptr;
}

// The library looks GELU up in a table of 16-bit floats, which alone is off by 1e-3 after a few layers: its result is computed anew.
bool exact_geglu(ggml_tensor* t, bool ask, void*) {
  if (ask) return is_geglu(t);
  if (!is_geglu(t)) return true;
  for (int64_t row = 0; row < t->ne[1]; ++row) {
    const auto at = [row](const ggml_tensor* x) { return reinterpret_cast<float*>(static_cast<char*>(x->data) + row * x->nb[1]); };
    const float* gate = at(t->src[0]);
    const float* up = at(t->src[1]);
    float* y = at(t);
    for (int64_t i = 0; i < t->ne[0]; ++i) {
      const double g = gate[i];
      y[i] = static_cast<float>(0.5 * g * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (g + 0.044715 * g * g * g))) * up[i]);
    }
  }
  return true;
}

}  // namespace

std::unique_ptr<LlamaReference> LlamaReference::open(const std::string& path, int64_t tokens) {
  llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  llama_backend_init();
  std::unique_ptr<LlamaReference> reference(new LlamaReference);
  llama_model_params model = llama_model_default_params();
  model.use_extra_bufts = false;  // weights stay as they are in the file
  reference->model_ = llama_model_load_from_file(path.c_str(), model);
  if (reference->model_ == nullptr) return nullptr;
  llama_context_params context = llama_context_default_params();
  context.n_ctx = static_cast<uint32_t>((tokens + 255) / 256 * 256);
  context.n_batch = static_cast<uint32_t>(kBatch);
  context.n_ubatch = static_cast<uint32_t>(kBatch);
  context.n_threads = 2;
  context.n_threads_batch = 2;
  context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  context.cb_eval = exact_geglu;
  context.type_k = GGML_TYPE_F32;
  context.type_v = GGML_TYPE_F32;
  reference->context_ = llama_init_from_model(reference->model_, context);
  if (reference->context_ == nullptr) return nullptr;
  return reference;
}

LlamaReference::~LlamaReference() {
  if (context_ != nullptr) llama_free(context_);
  if (model_ != nullptr) llama_model_free(model_);
}

std::vector<float> LlamaReference::logits(std::span<const TokenId> tokens, int64_t rows) {
  const auto total = static_cast<int64_t>(tokens.size());
  const int64_t vocab = llama_vocab_n_tokens(llama_model_get_vocab(model_));
  std::vector<float> result;
  llama_memory_clear(llama_get_memory(context_), true);
  llama_batch batch = llama_batch_init(static_cast<int32_t>(kBatch), 0, 1);
  for (int64_t at = 0; at < total;) {
    int64_t count = std::min(kBatch, total - at);
    if (total - at - count == 1) --count;
    batch.n_tokens = static_cast<int32_t>(count);
    for (int64_t i = 0; i < count; ++i) {
      batch.token[i] = tokens[static_cast<size_t>(at + i)];
      batch.pos[i] = static_cast<llama_pos>(at + i);
      batch.n_seq_id[i] = 1;
      batch.seq_id[i][0] = 0;
      batch.logits[i] = at + i >= total - rows ? 1 : 0;
    }
    if (llama_decode(context_, batch) != 0) {
      result.clear();
      break;
    }
    for (int64_t i = 0; i < count; ++i) {
      if (batch.logits[i] == 0) continue;
      const float* row = llama_get_logits_ith(context_, static_cast<int32_t>(i));
      result.insert(result.end(), row, row + vocab);
    }
    at += count;
  }
  llama_batch_free(batch);
  return result;
}

}  // namespace bough::test
