#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/check.h"
#include "engine/impl.h"
#include "engine/sources.h"

namespace bough {
namespace {

constexpr int64_t kWatchedRows = 64;  // of an append whose sources are wanted
constexpr int kMaxSources = 1000;

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Status check_tokens(std::span<const TokenId> tokens, int64_t vocab) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return Status(Code::invalid_argument, "token " + std::to_string(i) + " is " + std::to_string(tokens[i]) +
                                                ", the vocabulary has ids 0 to " + std::to_string(vocab - 1));
    }
  }
  return {};
}

}  // namespace

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::~Session() {
  Engine::Impl* engine = impl_->engine;
  impl_.reset();
  engine->trim_prefixes();
}

int64_t Session::length() const { return impl_->sequence.length(); }
std::span<const TokenId> Session::tokens() const { return impl_->sequence.tokens; }
std::span<const float> Session::logits() const { return impl_->logits; }

Status Session::Impl::append(std::span<const TokenId> tokens, const AppendOptions& options) {
  const int64_t vocab = engine->config.vocab;
  const int64_t begin = sequence.length();
  const int64_t end = begin + static_cast<int64_t>(tokens.size());
  const int64_t wanted = std::min(end - begin, std::max<int64_t>(options.logits, options.will_sample ? 1 : 0));
  const int64_t tail_from = options.will_sample ? std::max(begin, end - engine->plan().tail) : INT64_MAX;
  const Clock::time_point start = Clock::now();
  // Pages count as read only if each is one query block: a page that two appends share has other bits than one read at once.
  const bool grows_savable = savable == begin;
  logits.clear();
  tally.reset();
  if (options.sources) tally.emplace(std::max(begin, end - kWatchedRows), end);
  std::vector<float> rows;
  const int64_t reusable = std::min(end - wanted, tail_from) - begin;
  const int64_t known = take_known(tokens.first(static_cast<size_t>(reusable)));
  if (known > 0) keep_pages();
  for (int64_t at = begin + known; at < end;) {
    const int64_t next = slice_end(at, end, kSliceTokens);
    Slice slice;
    slice.sequence = &sequence;
    slice.tokens = tokens.subspan(static_cast<size_t>(at - begin), static_cast<size_t>(next - at));
    slice.tail_from = tail_from;
    slice.tally = tally ? &*tally : nullptr;
    slice.logits = std::clamp<int64_t>(next - (end - wanted), 0, next - at);
    BOUGH_RETURN_IF_ERROR(engine->step({&slice, 1}, rows));
    logits.insert(logits.end(), rows.begin(), rows.end());
    at = next;
    if (grows_savable) savable = std::min(at, std::max(begin, tail_from)) / kPageTokens * kPageTokens;
    keep_pages();
    if (options.progress && !options.progress({at - begin, end - begin, seconds_since(start)}) && at < end) {
      logits.clear();
      return Status(Code::cancelled, "cancelled after " + std::to_string(at - begin) + " of " + std::to_string(end - begin) + " tokens");
    }
  }
  if (logits.size() != static_cast<size_t>(wanted * vocab)) return Status(Code::internal, "a step lost its logits");
  return {};
}

Status Session::append(std::span<const TokenId> tokens, const AppendOptions& options) {
  if (options.logits < 0)
    return Status(Code::invalid_argument, "logits is " + std::to_string(options.logits) + ", it must not be negative");
  BOUGH_RETURN_IF_ERROR(check_tokens(tokens, impl_->engine->config.vocab));
  try {
    Status status = impl_->append(tokens, options);
    impl_->make_known();
    return status;
  } catch (const std::bad_alloc&) {
    impl_->logits.clear();
    return Status(Code::out_of_memory, "no memory for the logits of " + std::to_string(options.logits) + " rows");
  }
}

Status Session::decode(TokenId token) {
  BOUGH_RETURN_IF_ERROR(check_tokens({&token, 1}, impl_->engine->config.vocab));
  Slice slice;
  slice.sequence = &impl_->sequence;
  slice.tokens = {&token, 1};
  slice.decode = true;
  slice.logits = 1;
  slice.tally = impl_->tally ? &*impl_->tally : nullptr;
  Status status = impl_->engine->step({&slice, 1}, impl_->logits);
  if (!status.ok()) impl_->logits.clear();
  return status;
}

Status Session::rollback(int64_t length) {
  if (length < 0 || length > this->length()) {
    return Status(Code::invalid_argument,
                  "cannot roll back to " + std::to_string(length) + ", the session holds " + std::to_string(this->length()) + " tokens");
  }
  impl_->rollback(length);
  return {};
}

void Session::Impl::rollback(int64_t length) {
  sequence.rollback(length);
  logits.clear();
  tally.reset();
  savable = std::min(savable, length / kPageTokens * kPageTokens);
  if (writer && static_cast<int64_t>(writer->tokens().size()) > savable) writer.reset();
  engine->trim_prefixes();
}

Result<std::vector<Source>> Session::sources(const SourceOptions& options) const {
  if (!impl_->tally) return Status(Code::invalid_argument, "no append has asked for sources since the session was last changed");
  if (options.count < 1 || options.count > kMaxSources) {
    return Status(Code::invalid_argument,
                  "count is " + std::to_string(options.count) + ", it must be between 1 and " + std::to_string(kMaxSources));
  }
  if (options.first_token < 0 || options.end_token < options.first_token) {
    return Status(Code::invalid_argument,
                  "tokens " + std::to_string(options.first_token) + " to " + std::to_string(options.end_token) + " are no range of a text");
  }
  try {
    SourceOptions range = options;
    range.end_token = std::min(options.end_token, impl_->tally->watched_from());
    return find_sources(impl_->tally->scores(), range);
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "no memory for the sources of " + std::to_string(length()) + " tokens");
  }
}

double Session::context_tokens() const {
  double sum = 0;
  for (const LayerState& layer : impl_->sequence.attention.layers) sum += static_cast<double>(layer.set.size);
  return sum / static_cast<double>(impl_->engine->config.layers);
}

Status Session::fill_with_copies(int64_t length) {
  Sequence& s = impl_->sequence;
  const int64_t held = s.length() / kPageTokens * kPageTokens;
  if (held == 0)
    return Status(Code::invalid_argument, "a session of " + std::to_string(s.length()) + " tokens has no whole page of 64 to copy");
  if (length < s.length())
    return Status(Code::invalid_argument,
                  "the session already holds " + std::to_string(s.length()) + " tokens, more than " + std::to_string(length));
  impl_->rollback(held);
  BOUGH_RETURN_IF_ERROR(s.pages.extend(length));
  const auto source_pages = static_cast<size_t>(held / kPageTokens);
  const auto& pages = s.pages.pages();
  for (size_t i = source_pages; i < pages.size(); ++i)
    std::memcpy(pages[i], pages[i % source_pages], impl_->engine->pool->shape().page_bytes());
  s.tokens.reserve(static_cast<size_t>(length));
  for (int64_t i = held; i < length; ++i) s.tokens.push_back(s.tokens[static_cast<size_t>(i % held)]);
  impl_->logits.clear();
  return {};
}

}  // namespace bough
