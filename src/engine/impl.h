// What Engine and Session hold.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "model/forward.h"
#include "sched/scheduler.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace bough {

struct Engine::Impl {
  std::optional<GgufFile> file;
  ModelConfig config;
  Weights weights;
  ModelInfo info;
  std::string plan_note;
  DType kv = DType::bf16;
  int threads = 1;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<PagePool> pool;
  std::unique_ptr<Forward> forward;

  const AttentionPlan& plan() const { return forward->setup().plan; }
  // Runs one step. On error the slices' sequences are as before. Turns exceptions of libraries and of the allocator into Status.
  Status step(std::span<const Slice> slices, std::vector<float>& logits);
};

struct Session::Impl {
  Impl(Engine::Impl* e) : engine(e), sequence(e->pool.get(), e->config.layers) {}

  Engine::Impl* engine;
  Sequence sequence;
  std::vector<float> logits;  // of the last rows of the last append or decode

  Status append(std::span<const TokenId> tokens, const AppendOptions& options);
};

// What a checked file says of itself.
ModelInfo describe(const GgufFile& file, const ModelConfig& config, const Weights& weights);

}  // namespace bough
