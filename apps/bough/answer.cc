#include "answer.h"

#include <chrono>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/memory.h"
#include "format.h"
#include "interrupt.h"
#include "log.h"
#include "progress.h"

namespace bough::cli {
namespace {

using Json = nlohmann::ordered_json;

double rate(int64_t tokens, double seconds) { return seconds > 0 ? static_cast<double>(tokens) / seconds : 0; }

const char* finish_name(Finish finish) {
  switch (finish) {
    case Finish::end_of_text: return "end_of_text";
    case Finish::max_tokens: return "max_tokens";
    case Finish::cancelled: return "cancelled";
    case Finish::stop: return "stop";
  }
  return "unknown";
}

Json logprob_json(const TokenLogprob& one) { return {{"token", one.token}, {"text", one.text}, {"logprob", one.logprob}}; }

Json logprobs_json(const std::vector<TokenLogprobs>& all) {
  Json list = Json::array();
  for (const TokenLogprobs& token : all) {
    Json item = logprob_json(token.chosen);
    Json& top = item["top"] = Json::array();
    for (const TokenLogprob& one : token.top) top.push_back(logprob_json(one));
    list.push_back(std::move(item));
  }
  return list;
}

void print_json_summary(const Conversation& conversation, const Generation& answer) {
  const auto answered = static_cast<int64_t>(answer.tokens.size());
  Json summary = {{"event", "summary"},
                  {"answer", answer.text},
                  {"finish", finish_name(answer.finish)},
                  {"tokens_reused", conversation.reused_tokens},
                  {"tokens_read", conversation.read_tokens},
                  {"read_seconds", conversation.read_seconds},
                  {"read_tokens_per_second", rate(conversation.read_tokens, conversation.read_seconds)},
                  {"answer_tokens", answered},
                  {"answer_seconds", answer.seconds},
                  {"answer_tokens_per_second", rate(answered, answer.seconds)},
                  {"peak_memory_bytes", peak_memory()},
                  {"cache_bytes", conversation.engine->cache_bytes()},
                  {"cache_memory_bytes", conversation.engine->cache_memory()}};
  if (!answer.logprobs.empty()) summary["logprobs"] = logprobs_json(answer.logprobs);
  print_line(summary.dump(-1, ' ', false, Json::error_handler_t::replace));
}

// Empty where the whole KV cache lies in memory.
std::string file_share(const Engine& engine) {
  const int64_t all = engine.cache_bytes(), in_files = all - engine.cache_memory();
  if (in_files == 0) return {};
  return "; " + byte_text(static_cast<double>(in_files)) + " of " + byte_text(static_cast<double>(all)) + " KV cache used from the file";
}

void print_summary(const Conversation& conversation, const Generation& answer) {
  const auto answered = static_cast<int64_t>(answer.tokens.size());
  std::fprintf(stderr, "read %s tokens in %s (%s tokens/s); answered %s tokens in %s (%s tokens/s)%s; peak memory %s%s\n",
               grouped(conversation.read_tokens).c_str(), duration_text(conversation.read_seconds).c_str(),
               rate_text(rate(conversation.read_tokens, conversation.read_seconds)).c_str(), grouped(answered).c_str(),
               duration_text(answer.seconds).c_str(), rate_text(rate(answered, answer.seconds)).c_str(),
               answer.finish == Finish::cancelled ? ", interrupted" : "", byte_text(static_cast<double>(peak_memory())).c_str(),
               file_share(*conversation.engine).c_str());
}

// A text whose passages cannot be found still has its answer: the reason goes to the log.
void report_passages(const Conversation& conversation) {
  if (!conversation.sources) return;
  const Result<std::vector<Passage>> passages = find_passages(*conversation.engine, *conversation.session, *conversation.sources);
  if (!passages.ok()) {
    log_info("no sources: " + passages.status().message());
  } else if (conversation.json) {
    print_line(passages_json(*passages));
  } else {
    print_passages(*passages);
  }
}

// Returns false when stdout no longer takes text.
bool print_piece(std::string_view piece, bool json) {
  if (json) {
    print_line(Json({{"event", "text"}, {"text", std::string(piece)}}).dump(-1, ' ', false, Json::error_handler_t::replace));
    return true;
  }
  return std::fwrite(piece.data(), 1, piece.size(), stdout) == piece.size() && std::fflush(stdout) == 0;
}

// To be called with the tokens that are left to read.
Status check_keeping(Conversation& conversation, ProgressReporter& reporter, int64_t left) {
  const Status& keeping = conversation.session->keeping();
  if (keeping.ok() || conversation.told_of_keeping) return {};
  conversation.told_of_keeping = true;
  reporter.clear();
  std::fprintf(stderr, "bough: what is read is no longer kept: %s\n", keeping.message().c_str());
  return check_memory(conversation.engine->info(), conversation.engine->kv_type(), left);
}

}  // namespace

Result<Conversation> open_conversation(const ModelOptions& model, const std::string& plan, bool json) {
  Conversation conversation;
  BOUGH_ASSIGN_OR_RETURN(conversation.engine, open_engine(model, plan));
  BOUGH_ASSIGN_OR_RETURN(conversation.session, conversation.engine->new_session());
  conversation.json = json;
  catch_interrupt();
  return conversation;
}

Status read_tokens(Conversation& conversation, std::span<const TokenId> tokens, bool will_sample, const std::string& label) {
  ProgressReporter reporter(label, progress_style(conversation.json));
  AppendOptions append;
  append.will_sample = will_sample;
  append.sources = will_sample && conversation.sources.has_value();
  Status fits;
  append.progress = [&](const Progress& p) {
    fits = check_keeping(conversation, reporter, p.total - p.done);
    reporter.update(p.done, p.total, p.seconds);
    return fits.ok() && !interrupted();
  };
  const int64_t before = conversation.session->length();
  const auto start = std::chrono::steady_clock::now();
  Status status = conversation.session->append(tokens, append);
  reporter.clear();
  const int64_t read = conversation.session->length() - before;
  conversation.read_tokens += read;
  conversation.read_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!fits.ok()) return fits;
  if (status.ok() ? !interrupted() : status.code() != Code::cancelled) return status;
  return Status(Code::cancelled, "interrupted after reading " + grouped(read) + " of " + grouped(static_cast<int64_t>(tokens.size())) +
                                     " tokens; there is no answer");
}

Result<Generation> print_answer(Conversation& conversation, GenerateOptions options) {
  bool written = true;
  options.on_text = [&](std::string_view piece) {
    written = print_piece(piece, conversation.json);
    return written && !interrupted();
  };
  Result<Generation> answer = conversation.session->generate(options);
  if (!conversation.json) print_piece("\n", false);
  if (answer.ok() && !written) return Status(Code::io_error, "standard output no longer takes the answer");
  return answer;
}

int stream_answer(Conversation& conversation, GenerateOptions options) {
  const Result<Generation> answer = print_answer(conversation, std::move(options));
  if (!answer.ok()) return fail(answer.status());
  report_passages(conversation);
  if (conversation.json) {
    print_json_summary(conversation, *answer);
  } else {
    print_summary(conversation, *answer);
  }
  return answer->finish == Finish::cancelled ? exit_interrupted : exit_ok;
}

}  // namespace bough::cli
