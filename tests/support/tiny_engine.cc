#include "support/tiny_engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <random>
#include <stdexcept>

namespace bough::test {
namespace {

constexpr TokenId kOrdinary = 3;  // the tokens before it are control tokens

template <typename T>
T taken(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().message());
  return std::move(*result);
}

std::vector<std::byte> model_bytes(const TinyModel& spec, uint64_t seed) { return taken(build_tiny_model(spec, seed)).build(); }

KvShape kv_shape(const ModelConfig& c, DType type) { return {type, c.layers, c.kv_heads, c.head_dim}; }

}  // namespace

TinyModel peaked_model() {
  TinyModel model;
  model.trained_context = 1024;
  model.qk_gain = 2.5F;
  return model;
}

TinyFile::TinyFile(const TinyModel& spec, uint64_t seed) {
  static int next = 0;
  path_ = testing::TempDir() + "bough_tiny_" + std::to_string(getpid()) + "_" + std::to_string(next++) + ".gguf";
  const Status status = write_tiny_gguf(path_, spec, seed);
  EXPECT_TRUE(status.ok()) << status.message();
}

TinyFile::~TinyFile() {
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

std::unique_ptr<Engine> TinyFile::engine(const std::string& plan, DType kv, int threads, int64_t prefix_bytes) const {
  EngineOptions options{path_, plan, kv, threads};
  options.prefix_bytes = prefix_bytes;
  Result<std::unique_ptr<Engine>> engine = Engine::open(options);
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return engine.ok() ? std::move(*engine) : nullptr;
}

std::vector<TokenId> tiny_text(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  const auto ordinary = static_cast<uint64_t>(tiny_vocab_size() - kOrdinary);
  for (TokenId& token : tokens) token = kOrdinary + static_cast<TokenId>(random() % ordinary);
  return tokens;
}

std::vector<float> logits_of(const Session& session) { return {session.logits().begin(), session.logits().end()}; }

std::vector<float> asked(Session& session) {
  EXPECT_TRUE(session.append(tiny_text(37, 8), {.will_sample = true, .logits = 37}).ok());
  std::vector<float> all = logits_of(session);
  for (const TokenId token : tiny_text(5, 9)) {
    EXPECT_TRUE(session.decode(token).ok());
    const std::vector<float> row = logits_of(session);
    all.insert(all.end(), row.begin(), row.end());
  }
  return all;
}

std::unique_ptr<Session> session_of(Engine& engine) {
  Result<std::unique_ptr<Session>> session = engine.new_session();
  EXPECT_TRUE(session.ok()) << session.status().message();
  return session.ok() ? std::move(*session) : nullptr;
}

std::vector<float> last_row(std::span<const float> logits) {
  const std::span<const float> row = logits.last(static_cast<size_t>(tiny_vocab_size()));
  return {row.begin(), row.end()};
}

TinyForward::TinyForward(const TinyModel& spec, const AttentionPlan& plan, DType kv, uint64_t seed,
                         const std::function<void(ModelConfig&)>& change)
    : bytes_(model_bytes(spec, seed)),
      file_(taken(parse_gguf(bytes_))),
      config_(taken(read_config(file_))),
      weights_(taken(bind_weights(file_, config_))),
      pool_(kv_shape(config_, kv)) {
  if (change) change(config_);
  forward_.emplace(&config_, &weights_, attention_setup(config_, plan, kv), size_t{1} << 28);
}

std::vector<float> TinyForward::step(std::span<const Slice> slices) {
  const Batch batch = taken(make_batch(slices, setup().plan.query_block()));
  std::vector<AttentionState*> states;
  for (const Slice& slice : slices) {
    if (slice.decode) {
      states.push_back(&slice.sequence->attention);
    } else {
      slice.sequence->attention.restart(slice.sequence->length() - static_cast<int64_t>(slice.tokens.size()));
    }
  }
  std::vector<float> logits;
  const Status status = forward_->run(batch, states, logits);
  EXPECT_TRUE(status.ok()) << status.message();
  for (AttentionState* state : states) ++state->counter;
  return logits;
}

}  // namespace bough::test
