// What Engine and Session hold.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "bough/engine.h"
#include "kv/prefix_tree.h"
#include "kv/session_file.h"
#include "model/fingerprint.h"
#include "model/forward.h"
#include "sched/scheduler.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace bough {

inline constexpr int64_t kSliceTokens = 2048;  // of one step: enough to keep every thread busy, few enough to report and to stop

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
  std::unique_ptr<PrefixTree> prefixes;  // of the pool
  std::unique_ptr<Forward> forward;
  FileSystem* files = &machine_files();
  std::optional<Fingerprint> print;  // made when a session file first needs it
  int64_t kv_memory = INT64_MAX;     // bytes
  std::vector<Session::Impl*> sessions;

  const AttentionPlan& plan() const { return forward->setup().plan; }
  // Runs one step. On error the slices' sequences are as before. Turns exceptions of libraries and of the allocator into Status.
  Status step(std::span<const Slice> slices, std::vector<float>& logits);
  // Gives back known pages beyond the budget.
  void trim_prefixes();
  // Where pages and those of one more step would take more than kv_memory, gives memory back: files take the place of pages that they
  // hold, then known pages that no session holds go.
  void fit_pages();
  // Lets everyone who holds one of these pages, which are those of `holder` from page `first` on, hold the view's instead. Throws
  // std::bad_alloc; nothing has changed then.
  void replace_pages(const Sequence& holder, size_t first, MappedPages mapped);
  // What a session file of this engine says of itself.
  Result<SessionHeader> session_header(const std::string& label);
  // A session of at most `tokens` of the file's tokens. Where pages are damaged: an error, or, with `damage`, the pages before them and
  // why. REQUIRES: the file's header agrees with session_header().
  Result<std::unique_ptr<Session>> restore(const SessionReader& reader, int64_t tokens, Status* damage);
};

struct Session::Impl {
  explicit Impl(Engine::Impl* e) : engine(e), sequence(e->pool.get(), e->config.layers) { engine->sessions.push_back(this); }
  ~Impl() { engine->sessions.erase(std::find(engine->sessions.begin(), engine->sessions.end(), this)); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Engine::Impl* engine;
  Sequence sequence;
  std::vector<float> logits;  // of the last rows of the last append or decode
  int64_t savable = 0;        // see Session::savable
  std::optional<SessionWriter> writer;
  Status keeping;
  std::optional<SourceTally> tally;  // of the rows since the last append that asked for sources

  Status append(std::span<const TokenId> tokens, const AppendOptions& options);
  void rollback(int64_t length);
  // Holds the whole pages at the start of `tokens`, which are to be appended, that are known already; how many tokens those are.
  int64_t take_known(std::span<const TokenId> tokens);
  // Makes what is savable known to other sessions.
  void make_known();
  // Writes what has become savable; before it, makes room for the next step in what was written before.
  void keep_pages();
  // Uses the first run of pages in memory that its file holds, at most so many, where they lie there. False when there are none, or when
  // keeping has ended over it. Throws std::bad_alloc; nothing has changed then.
  bool move_to_file(int64_t most);
};

// What a checked file says of itself.
ModelInfo describe(const GgufFile& file, const ModelConfig& config, const Weights& weights);

}  // namespace bough
