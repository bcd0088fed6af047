// Engine and Session: read tokens into a KV cache with pruned attention, and continue them.
//
// Thread-compatibility: an Engine and its Sessions are used by one thread at a time; the engine runs its own parallel regions
// inside each call. Calls return Status and never throw or print; after any error a Session still holds what it had read.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/attention.h"
#include "bough/generate.h"
#include "bough/model_info.h"
#include "bough/sources.h"
#include "bough/status.h"
#include "bough/types.h"

namespace bough {

class FileSystem;

struct EngineOptions {
  std::string model;             // path of a GGUF file
  std::string plan = "default";  // as for parse_plan: preset, JSON or file
  DType kv = DType::bf16;        // type of the KV cache; f32 also makes attention compute in f32
  int threads = 0;               // 0: as many as the process may use
  FileSystem* files = nullptr;   // session files go through it; null: the machine's own
  // Sessions share the pages of texts that begin alike (docs/kv.md). So many bytes of pages that no session holds any more are kept for
  // sessions to come, the last used ones; 0: no session takes another's pages.
  int64_t prefix_bytes = int64_t{1} << 30;
  // Bytes of memory for KV pages; 0: half of what is free when the engine opens. Beyond it, pages of texts that are kept (Session::keep)
  // are used where they lie in the file; the bits are the same. Pages that no file holds stay in memory all the same.
  int64_t kv_memory = 0;
};

struct Progress {
  int64_t done = 0;   // tokens of this append already in the cache
  int64_t total = 0;  // tokens of this append
  double seconds = 0;
};

struct AppendOptions {
  bool will_sample = false;                       // the last `tail` tokens select each for itself, and the last token's logits are kept
  int64_t logits = 0;                             // keep the logits of this many last rows (at least 1 when will_sample)
  bool sources = false;                           // the last 64 tokens and all decoded after them are watched: see sources()
  std::function<bool(const Progress&)> progress;  // called after each slice; false cancels: what was read stays
};

struct ChatMessage {
  std::string role;
  std::string content;
};

// A prompt around a long text: before + tokens of the text + after.
struct SplitPrompt {
  std::vector<TokenId> before;
  std::vector<TokenId> after;
};

struct RestoreOptions {
  int64_t tokens = INT64_MAX;  // at most, rounded down to whole pages of 64
};

class Session;
struct LayerView;

class Engine {
 public:
  // Loads and checks everything. Errors: those of inspect_model and parse_plan, invalid_argument, out_of_memory.
  static Result<std::unique_ptr<Engine>> open(const EngineOptions& options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const ModelInfo& info() const;
  const AttentionPlan& plan() const;     // after fitting to the model
  const std::string& plan_note() const;  // what fitting cut; empty if nothing
  DType kv_type() const;
  int threads() const;
  std::string cpu_body() const;  // the attention body chosen for this CPU, for example "avx512_bf16"

  // `special`: control tokens written in the text are recognised; never set it for a user's text.
  Result<std::vector<TokenId>> tokenize(std::string_view text, bool add_bos = true, bool special = false) const;
  Result<std::string> detokenize(std::span<const TokenId> tokens, bool special = false) const;
  // Byte offsets of the tokens of `text` in it, [tokens + 1]. Errors: unsupported (a vocabulary that rewrites texts), invalid_argument.
  Result<std::vector<int64_t>> token_offsets(std::string_view text, std::span<const TokenId> tokens) const;
  bool is_end_of_text(TokenId token) const;

  // The model's own chat template. Errors: unsupported when the file has none or its template fails.
  Result<std::vector<TokenId>> chat_prompt(std::span<const ChatMessage> messages) const;
  // A conversation whose first user message begins with a long text, cut where the text goes. Errors: those of chat_prompt;
  // invalid_argument without a user message.
  Result<SplitPrompt> chat_prompt_around_text(std::span<const ChatMessage> messages) const;
  // One user turn that holds a long text and then `question`.
  Result<SplitPrompt> chat_prompt_around_text(std::string_view question) const;

  // Everything that Session::generate would refuse before its first token, grammars included. Errors: invalid_argument, unsupported.
  Status check(const GenerateOptions& options) const;

  Result<std::unique_ptr<Session>> new_session();
  // A session that holds what a session file holds (docs/sessions.md). The same appends then give the same bits as after reading it.
  // Errors: not_found, io_error, out_of_memory; corrupt (no session file, a damaged or truncated one), unsupported (a newer format),
  // invalid_argument (another model, tokenizer, KV type or plan, both named; of a plan only what reading depends on counts).
  Result<std::unique_ptr<Session>> restore_session(const std::string& path, const RestoreOptions& options = {});
  // For measurements: shows every layer of every step to `observer`, until observe({}). LayerView is in src/attention/observer.h.
  void observe(std::function<void(const LayerView&)> observer);
  int64_t cache_bytes() const;   // KV pages now held by sessions or kept for those to come; shared ones count once
  int64_t cache_memory() const;  // of them, those in memory; the others are used where they lie in session files

 private:
  friend class Session;
  friend class SessionStore;
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// One conversation: its tokens, KV pages and attention state. The Engine must outlive it.
class Session {
 public:
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int64_t length() const;                   // tokens in the cache
  std::span<const TokenId> tokens() const;  // [length]

  // A session that holds the same tokens and logits and shares this one's pages. It goes on as this one would after a rollback to its
  // length: its attention state starts anew. Errors: out_of_memory.
  Result<std::unique_ptr<Session>> fork() const;

  // Reads tokens after those already held; whole pages that another session has read are taken from there, the bits are the same. Errors:
  // invalid_argument (a token outside the vocabulary), cancelled, out_of_memory.
  Status append(std::span<const TokenId> tokens, const AppendOptions& options = {});
  // Feeds one token as a decode row (attention state cached between refreshes) and keeps its logits.
  Status decode(TokenId token);
  // Forgets everything from `length` on. Logits are dropped. Errors: invalid_argument (length > length()).
  Status rollback(int64_t length);

  // Tokens that a session file takes: the whole pages of 64, from the start of the text, that were read by appends and are no part of a
  // tail or of an answer.
  int64_t savable() const;
  // Writes a session file and puts it in the place of `path` once it is complete. Errors: invalid_argument (nothing savable), io_error.
  Status save(const std::string& path) const;
  // From now on writes what becomes savable to this file, as it is read; after a rollback into what was written, no more. A file that is
  // there is added to: it must hold the beginning of this session. `label` is shown by lists of sessions. Errors: those of
  // restore_session; invalid_argument (the file holds another text); io_error (another process writes to it).
  Status keep(const std::string& path, const std::string& label);
  // Whether what becomes savable is written to a file.
  bool is_keeping() const;
  // Why keeping has ended before its time (a full disk, say); ok otherwise. Reading goes on in memory, and what was kept stays.
  const Status& keeping() const;

  // Logits kept by the last append or decode, [rows, vocab], the last row last; empty if none.
  std::span<const float> logits() const;

  // Samples from logits() and decodes until the end of text, a stop string, max_tokens or a stop by on_text. The session then holds
  // the tokens of the answer; after a stop string or a stop by on_text without the last one. REQUIRES logits().
  // Errors: invalid_argument (an option and its limit, a grammar that cannot be parsed), unsupported (a grammar beyond its bounds, or
  // one that allows no token here); those of decode.
  Result<Generation> generate(const GenerateOptions& options);

  // Where the tokens watched since the last append with `sources` look in the text before them: passages of about 8 to 64 tokens, the
  // weightiest first, without overlap. Errors: invalid_argument (nothing was watched, a number out of range), out_of_memory.
  Result<std::vector<Source>> sources(const SourceOptions& options = {}) const;

  // Keys that one query of a decode step attends to, averaged over layers.
  double context_tokens() const;

  // For benchmarks: grows the cache to `length` by repeating the pages that it holds. Errors: invalid_argument (fewer than 64 tokens held).
  Status fill_with_copies(int64_t length);

 private:
  friend class Engine;
  struct Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bough
