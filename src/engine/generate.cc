#include <chrono>
#include <new>

#include "base/check.h"
#include "engine/impl.h"
#include "engine/sampler.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"

namespace bough {
namespace {

using Clock = std::chrono::steady_clock;

// The text of an answer on its way out: whole characters, nothing of a stop string.
class Answer {
 public:
  Answer(const Tokenizer& tokenizer, const GenerateOptions& options, Generation& out)
      : options_(options), text_(tokenizer), stop_(options.stop), out_(out) {}

  // False when the answer ends here; out.finish says why.
  Result<bool> push(TokenId token) {
    BOUGH_ASSIGN_OR_RETURN(const std::string piece, text_.push(token));
    return emit(stop_.push(piece));
  }
  // The text that still waits.
  void flush() {
    if (emit(stop_.push(text_.flush()))) emit(stop_.flush());
  }

 private:
  bool emit(const std::string& piece) {
    out_.text += piece;
    if (stop_.found()) out_.finish = Finish::stop;
    const bool wanted = piece.empty() || !options_.on_text || options_.on_text(piece);
    if (!wanted) out_.finish = Finish::cancelled;
    return wanted && !stop_.found();
  }

  const GenerateOptions& options_;
  Detokenizer text_;
  StopStrings stop_;
  Generation& out_;
};

Status run(Session& session, const Tokenizer& tokenizer, size_t vocab, const GenerateOptions& options, Generation& out) {
  BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Sampler> sampler, Sampler::open(tokenizer, options));
  Answer answer(tokenizer, options, out);
  while (static_cast<int64_t>(out.tokens.size()) < options.max_tokens) {
    const std::span<const float> logits = session.logits().last(vocab);
    BOUGH_ASSIGN_OR_RETURN(const TokenId token, sampler->next(logits, session.tokens()));
    if (tokenizer.is_eog(token)) {
      out.finish = Finish::end_of_text;
      break;
    }
    out.tokens.push_back(token);
    if (options.logprobs) {
      BOUGH_ASSIGN_OR_RETURN(TokenLogprobs logprobs, sampler->logprobs(logits, token));
      out.logprobs.push_back(std::move(logprobs));
    }
    BOUGH_ASSIGN_OR_RETURN(const bool going, answer.push(token));
    if (!going) return {};
    BOUGH_RETURN_IF_ERROR(session.decode(token));
  }
  answer.flush();
  return {};
}

}  // namespace

Status Engine::check(const GenerateOptions& options) const {
  try {
    BOUGH_RETURN_IF_ERROR(check_options(options, impl_->config.vocab));
    return Sampler::open(*impl_->tokenizer, options).status();
  } catch (const std::bad_alloc&) {
    return {Code::out_of_memory, "no memory to check the options of an answer"};
  }
}

Result<Generation> Session::generate(const GenerateOptions& options) {
  const int64_t vocab = impl_->engine->config.vocab;
  if (static_cast<int64_t>(impl_->logits.size()) < vocab) {
    return Status(Code::invalid_argument, "generate needs the logits of an append with will_sample");
  }
  BOUGH_RETURN_IF_ERROR(check_options(options, vocab));
  const Clock::time_point start = Clock::now();
  Generation out;
  try {
    BOUGH_RETURN_IF_ERROR(run(*this, *impl_->engine->tokenizer, static_cast<size_t>(vocab), options, out));
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "no memory for an answer of " + std::to_string(out.tokens.size()) + " tokens");
  }
  out.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return out;
}

}  // namespace bough
