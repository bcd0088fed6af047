// Sessions and answers of the C ABI.
#include "base/check.h"
#include "c/handles.h"

using bough::Status;
using bough::c::check_given;
using bough::c::guarded;

namespace bough::c {
namespace {

Result<GenerateOptions> generate_options(const bough_generate_options& o) {
  GenerateOptions out{.max_tokens = o.max_tokens,
                      .temperature = o.temperature,
                      .top_k = o.top_k,
                      .top_p = o.top_p,
                      .min_p = o.min_p,
                      .repeat_penalty = o.repeat_penalty,
                      .frequency_penalty = o.frequency_penalty,
                      .presence_penalty = o.presence_penalty,
                      .penalty_tokens = o.penalty_tokens,
                      .seed = o.seed,
                      .grammar = o.grammar == nullptr ? "" : o.grammar,
                      .json_schema = o.json_schema == nullptr ? "" : o.json_schema};
  if (o.logit_biases > 0) BOUGH_RETURN_IF_ERROR(check_given(o.logit_bias, "options.logit_bias"));
  for (size_t i = 0; i < o.logit_biases; ++i) out.logit_bias.push_back({o.logit_bias[i].token, o.logit_bias[i].bias});
  if (o.stops > 0) BOUGH_RETURN_IF_ERROR(check_given(o.stop, "options.stop"));
  for (size_t i = 0; i < o.stops; ++i) {
    BOUGH_RETURN_IF_ERROR(check_given(o.stop[i], "a stop string"));
    out.stop.emplace_back(o.stop[i]);
  }
  if (o.logprobs != -1) out.logprobs = o.logprobs;
  if (o.on_text != nullptr) {
    out.on_text = [o](std::string_view text) { return o.on_text(text.data(), text.size(), o.user) != 0; };
  }
  return out;
}

}  // namespace
}  // namespace bough::c

bough_status* bough_session_new(bough_engine* engine, bough_session** session) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    BOUGH_ASSIGN_OR_RETURN(auto made, engine->engine->new_session());
    *session = new bough_session{std::move(made), static_cast<size_t>(engine->engine->info().vocab)};
    return {};
  });
}

void bough_session_free(bough_session* session) { delete session; }
int64_t bough_session_length(const bough_session* session) { return session == nullptr ? 0 : session->session->length(); }

void bough_append_options_init(bough_append_options* options, size_t size) {
  bough::c::set_defaults(options, size, bough_append_options{});
}

bough_status* bough_session_append(bough_session* session, const int32_t* tokens, size_t count, const bough_append_options* options) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    if (count > 0) BOUGH_RETURN_IF_ERROR(check_given(tokens, "tokens"));
    BOUGH_ASSIGN_OR_RETURN(const bough_append_options o, bough::c::complete(options, bough_append_options_init, "options"));
    bough::AppendOptions append{.will_sample = o.will_sample != 0, .logits = o.logits, .progress = {}};
    if (o.progress != nullptr) {
      append.progress = [&](const bough::Progress& p) { return o.progress(p.done, p.total, p.seconds, o.user) != 0; };
    }
    return session->session->append({tokens, count}, append);
  });
}

bough_status* bough_session_decode(bough_session* session, int32_t token) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    return session->session->decode(token);
  });
}

bough_status* bough_session_rollback(bough_session* session, int64_t length) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    return session->session->rollback(length);
  });
}

int64_t bough_session_savable(const bough_session* session) { return session == nullptr ? 0 : session->session->savable(); }

bough_status* bough_session_save(const bough_session* session, const char* path) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    BOUGH_RETURN_IF_ERROR(check_given(path, "path"));
    return session->session->save(path);
  });
}

bough_status* bough_session_restore(bough_engine* engine, const char* path, int64_t tokens, bough_session** session) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(engine, "engine"));
    BOUGH_RETURN_IF_ERROR(check_given(path, "path"));
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    const bough::RestoreOptions options{.tokens = tokens < 0 ? INT64_MAX : tokens};
    BOUGH_ASSIGN_OR_RETURN(auto restored, engine->engine->restore_session(path, options));
    *session = new bough_session{std::move(restored), static_cast<size_t>(engine->engine->info().vocab)};
    return {};
  });
}

const float* bough_session_logits(const bough_session* session, size_t* rows) {
  if (rows != nullptr) *rows = 0;
  if (session == nullptr || session->session->logits().empty()) return nullptr;
  if (rows != nullptr) *rows = session->session->logits().size() / session->vocab;
  return session->session->logits().data();
}

void bough_generate_options_init(bough_generate_options* options, size_t size) {
  const bough::GenerateOptions d;
  bough_generate_options defaults{};
  defaults.max_tokens = d.max_tokens;
  defaults.top_p = d.top_p;
  defaults.repeat_penalty = d.repeat_penalty;
  defaults.penalty_tokens = d.penalty_tokens;
  defaults.logprobs = -1;
  bough::c::set_defaults(options, size, defaults);
}

bough_status* bough_session_generate(bough_session* session, const bough_generate_options* options, bough_generation** answer) {
  return guarded([&]() -> Status {
    BOUGH_RETURN_IF_ERROR(check_given(session, "session"));
    BOUGH_RETURN_IF_ERROR(check_given(answer, "answer"));
    BOUGH_ASSIGN_OR_RETURN(const bough_generate_options o, bough::c::complete(options, bough_generate_options_init, "options"));
    BOUGH_ASSIGN_OR_RETURN(const bough::GenerateOptions generate, bough::c::generate_options(o));
    BOUGH_ASSIGN_OR_RETURN(bough::Generation generation, session->session->generate(generate));
    *answer = new bough_generation{std::move(generation)};
    return {};
  });
}

void bough_generation_free(bough_generation* answer) { delete answer; }

const char* bough_generation_text(const bough_generation* answer, size_t* bytes) {
  if (bytes != nullptr) *bytes = answer == nullptr ? 0 : answer->generation.text.size();
  return answer == nullptr ? "" : answer->generation.text.c_str();
}

const int32_t* bough_generation_tokens(const bough_generation* answer, size_t* count) {
  if (count != nullptr) *count = answer == nullptr ? 0 : answer->generation.tokens.size();
  return answer == nullptr ? nullptr : answer->generation.tokens.data();
}

bough_finish bough_generation_finish(const bough_generation* answer) {
  return answer == nullptr ? BOUGH_STOPPED_BY_CALLER : static_cast<bough_finish>(answer->generation.finish);
}

double bough_generation_seconds(const bough_generation* answer) { return answer == nullptr ? 0 : answer->generation.seconds; }

int bough_generation_logprob(const bough_generation* answer, size_t index, size_t rank, bough_logprob* logprob) {
  if (answer == nullptr || logprob == nullptr || index >= answer->generation.logprobs.size()) return 0;
  const bough::TokenLogprobs& all = answer->generation.logprobs[index];
  if (rank > all.top.size()) return 0;
  const bough::TokenLogprob& one = rank == 0 ? all.chosen : all.top[rank - 1];
  *logprob = {one.token, one.logprob, one.text.c_str(), one.text.size()};
  return 1;
}
