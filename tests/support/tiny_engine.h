// Engines over tiny random models, for tests of the engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bough/engine.h"
#include "model/config.h"
#include "model/forward.h"
#include "model/weights.h"
#include "sched/scheduler.h"
#include "support/tiny_gguf.h"

namespace bough::test {

// Trained to 1,024 tokens, attention peaked enough that the selection matters.
TinyModel peaked_model();

// Two stages, the first layer with twice the k: pruned from 257 tokens on.
inline constexpr const char* kSmallPlan =
    R"({"mode":"stages","sinks":64,"window":128,"stages":[{"chunk":32,"query_stride":4},{"chunk":8,"keep":256}],"k":64,)"
    R"("first":{"layers":1,"k":128,"scan":"chunk-indexed"},"refresh":[4,2],"tail":64})";

// The same by means, then by every key for rows that select for themselves.
inline constexpr const char* kSmallPieces =
    R"({"mode":"stages","sinks":64,"window":128,"stages":[{"chunk":32,"query_stride":4,"piece":8},)"
    R"({"chunk":8,"keep":256,"rounds":1,"row_piece":1}],"k":64,"first":{"layers":1,"k":128,"scan":"chunk-indexed"},"refresh":[4,2],)"
    R"("tail":64})";

// The tree in both layers: pruned from 257 tokens on.
inline constexpr const char* kSmallTree =
    R"({"mode":"hip","sinks":64,"window":128,"tree":{"k":64,"key_block":4,"refresh":3},"lists":"kv_head","tail":64})";

// A model file that goes away with this object.
class TinyFile {
 public:
  explicit TinyFile(const TinyModel& spec, uint64_t seed = 11);
  ~TinyFile();
  TinyFile(const TinyFile&) = delete;
  TinyFile& operator=(const TinyFile&) = delete;

  const std::string& path() const { return path_; }
  // Fails the test and gives null when the engine does not open.
  // Without prefix_bytes every session computes all of its pages itself.
  std::unique_ptr<Engine> engine(const std::string& plan, DType kv = DType::f32, int threads = 1, int64_t prefix_bytes = 0) const;

 private:
  std::string path_;
};

// Ordinary tokens of the tiny vocabulary.
std::vector<TokenId> tiny_text(int64_t count, uint64_t seed = 5);
std::vector<float> logits_of(const Session& session);
// A question to sample from and five decoded tokens: all logits.
std::vector<float> asked(Session& session);
std::unique_ptr<Session> session_of(Engine& engine);
// The last row of `logits`.
std::vector<float> last_row(std::span<const float> logits);

// The layer loop over a model in memory, without the engine around it: steps over batches of several sequences.
class TinyForward {
 public:
  // `change` alters what was read from the file before the layer loop is made.
  TinyForward(const TinyModel& spec, const AttentionPlan& plan, DType kv, uint64_t seed = 11,
              const std::function<void(ModelConfig&)>& change = {});

  std::unique_ptr<Sequence> sequence() { return std::make_unique<Sequence>(&pool_, config_.layers); }
  const AttentionSetup& setup() const { return forward_->setup(); }
  const ModelConfig& config() const { return config_; }
  PagePool& pool() { return pool_; }
  // One step as the engine makes it: counters and restarts included. Logits [rows, vocab], decode slices first.
  std::vector<float> step(std::span<const Slice> slices);

 private:
  std::vector<std::byte> bytes_;
  GgufFile file_;
  ModelConfig config_;
  Weights weights_;
  PagePool pool_;
  std::optional<Forward> forward_;
};

}  // namespace bough::test
