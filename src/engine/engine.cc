#include "bough/engine.h"

#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <thread>

#include "base/check.h"
#include "base/memory.h"
#include "engine/impl.h"
#include "text/offsets.h"

namespace bough {
namespace {

constexpr int kMaxThreads = 1024;
constexpr std::string_view kTextMarker = "<bough long text>";

// Memory for weights as prefill multiplies them, and as much again for decode's: an eighth of the machine's, at most 2 GiB.
size_t packed_weights_budget() {
  const auto bytes = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return std::min(bytes / 8, size_t{2} << 30);
}

Result<int> thread_count(int wanted) {
  if (wanted < 0 || wanted > kMaxThreads) {
    return Status(Code::invalid_argument,
                  "threads is " + std::to_string(wanted) + ", it must be between 0 (all) and " + std::to_string(kMaxThreads));
  }
  return wanted == 0 ? std::max(1, omp_get_num_procs()) : wanted;
}

// Bytes for pages: what was asked for, or half of what is free. The other half is for all else, files' pages among it.
Result<int64_t> page_memory(int64_t wanted) {
  if (wanted < 0) return Status(Code::invalid_argument, "kv_memory is " + std::to_string(wanted) + ", it must not be negative");
  if (wanted > 0) return wanted;
  const int64_t free = available_memory();
  return free > 0 ? free / 2 : INT64_MAX;
}

bool is_explicit(std::string_view plan) {
  const std::vector<std::string> names = preset_names();
  return std::find(names.begin(), names.end(), plan) == names.end();
}

Result<AttentionSetup> make_setup(const EngineOptions& options, const ModelConfig& config, std::string* note) {
  BOUGH_ASSIGN_OR_RETURN(const AttentionPlan plan, parse_plan(options.plan));
  BOUGH_ASSIGN_OR_RETURN(FittedPlan fitted, fit_plan(plan, config.trained_context, is_explicit(options.plan)));
  *note = fitted.note;
  return attention_setup(config, std::move(fitted.plan), options.kv);
}

}  // namespace

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::open(const EngineOptions& options) {
  try {
    auto impl = std::make_unique<Impl>();
    BOUGH_ASSIGN_OR_RETURN(impl->threads, thread_count(options.threads));
    if (options.prefix_bytes < 0) {
      return Status(Code::invalid_argument, "prefix_bytes is " + std::to_string(options.prefix_bytes) + ", it must not be negative");
    }
    omp_set_num_threads(impl->threads);
    BOUGH_ASSIGN_OR_RETURN(impl->file, open_gguf(options.model));
    BOUGH_ASSIGN_OR_RETURN(impl->config, read_config(*impl->file));
    BOUGH_ASSIGN_OR_RETURN(impl->weights, bind_weights(*impl->file, impl->config));
    BOUGH_RETURN_IF_ERROR(check_finite(impl->weights));
    impl->info = describe(*impl->file, impl->config, impl->weights);
    impl->kv = options.kv;
    BOUGH_ASSIGN_OR_RETURN(impl->kv_memory, page_memory(options.kv_memory));
    if (options.files != nullptr) impl->files = options.files;
    BOUGH_ASSIGN_OR_RETURN(AttentionSetup setup, make_setup(options, impl->config, &impl->plan_note));
    BOUGH_ASSIGN_OR_RETURN(impl->tokenizer, Tokenizer::open(options.model));
    impl->pool = std::make_unique<PagePool>(setup.kv);
    impl->prefixes = std::make_unique<PrefixTree>(impl->pool.get(), options.prefix_bytes);
    impl->forward = std::make_unique<Forward>(&impl->config, &impl->weights, std::move(setup), packed_weights_budget());
    return std::unique_ptr<Engine>(new Engine(std::move(impl)));
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "no memory to load " + options.model);
  } catch (const std::exception& e) {
    return Status(Code::internal, std::string("loading ") + options.model + " failed: " + e.what());
  }
}

const ModelInfo& Engine::info() const { return impl_->info; }
const AttentionPlan& Engine::plan() const { return impl_->plan(); }
const std::string& Engine::plan_note() const { return impl_->plan_note; }
DType Engine::kv_type() const { return impl_->kv; }
int Engine::threads() const { return impl_->threads; }
std::string Engine::cpu_body() const { return std::string(impl_->forward->setup().bodies->name); }
int64_t Engine::cache_bytes() const { return impl_->pool->bytes_in_use(); }
int64_t Engine::cache_memory() const { return impl_->pool->pages_in_memory() * static_cast<int64_t>(impl_->pool->shape().page_bytes()); }
bool Engine::is_end_of_text(TokenId token) const { return impl_->tokenizer->is_eog(token); }

Result<std::vector<TokenId>> Engine::tokenize(std::string_view text, bool add_bos, bool special) const {
  return impl_->tokenizer->tokenize(text, {add_bos, special});
}

Result<std::string> Engine::detokenize(std::span<const TokenId> tokens, bool special) const {
  return impl_->tokenizer->detokenize(tokens, special);
}

Result<std::vector<int64_t>> Engine::token_offsets(std::string_view text, std::span<const TokenId> tokens) const {
  return bough::token_offsets(*impl_->tokenizer, text, tokens);
}

Result<std::vector<TokenId>> Engine::chat_prompt(std::span<const ChatMessage> messages) const {
  BOUGH_ASSIGN_OR_RETURN(const ChatTemplate chat, ChatTemplate::of(*impl_->tokenizer));
  return chat_tokens(*impl_->tokenizer, chat, messages, true);
}

Result<SplitPrompt> Engine::chat_prompt_around_text(std::span<const ChatMessage> messages) const {
  BOUGH_ASSIGN_OR_RETURN(const ChatTemplate chat, ChatTemplate::of(*impl_->tokenizer));
  std::vector<ChatMessage> marked(messages.begin(), messages.end());
  const auto user = std::find_if(marked.begin(), marked.end(), [](const ChatMessage& m) { return m.role == "user"; });
  if (user == marked.end()) return Status(Code::invalid_argument, "a conversation about a text needs a message of the user");
  user->content.insert(0, std::string(kTextMarker) + "\n\n");
  return split_chat_tokens(*impl_->tokenizer, chat, marked, kTextMarker, true);
}

Result<SplitPrompt> Engine::chat_prompt_around_text(std::string_view question) const {
  const ChatMessage user{"user", std::string(question)};
  return chat_prompt_around_text({&user, 1});
}

Result<std::unique_ptr<Session>> Engine::new_session() {
  try {
    return std::unique_ptr<Session>(new Session(std::make_unique<Session::Impl>(impl_.get())));
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "no memory for a session");
  }
}

void Engine::observe(std::function<void(const LayerView&)> observer) { impl_->forward->observe(std::move(observer)); }

Status Engine::Impl::step(std::span<const Slice> slices, std::vector<float>& logits) {
  omp_set_num_threads(threads);
  std::vector<int64_t> lengths;
  for (const Slice& slice : slices) lengths.push_back(slice.sequence->length());
  const auto undo = [&] {
    for (size_t i = 0; i < slices.size(); ++i) {
      if (slices[i].sequence->length() > lengths[i]) slices[i].sequence->rollback(lengths[i]);
    }
  };
  try {
    Result<Batch> made = make_batch(slices, plan().query_block());
    if (!made.ok() && prefixes->unused_bytes() > 0) {  // memory that nobody waits for
      prefixes->drop_unused();
      made = make_batch(slices, plan().query_block());
    }
    BOUGH_ASSIGN_OR_RETURN(const Batch batch, std::move(made));
    std::vector<AttentionState*> states;  // in the batch's order: decode slices first
    std::vector<SourceTally*> tallies;
    for (const bool decode : {true, false}) {
      for (const Slice& slice : slices) {
        if (slice.decode != decode) continue;
        if (!decode) slice.sequence->attention.restart(slice.sequence->length() - static_cast<int64_t>(slice.tokens.size()));
        states.push_back(&slice.sequence->attention);
        tallies.push_back(slice.tally);
      }
    }
    Status status = forward->run(batch, states, logits, tallies);
    for (AttentionState* state : std::span(states).first(static_cast<size_t>(batch.decode_rows))) ++state->counter;
    if (!status.ok()) undo();
    return status;
  } catch (const std::bad_alloc&) {
    undo();
    return Status(Code::out_of_memory, "no memory for a step of " + std::to_string(slices.size()) + " sequences");
  } catch (const std::exception& e) {
    undo();
    return Status(Code::internal, std::string("a step failed: ") + e.what());
  }
}

}  // namespace bough
