// Sessions to files and back.
#include <omp.h>

#include <algorithm>
#include <new>

#include "base/check.h"
#include "engine/impl.h"
#include "steps/kv_row.h"

namespace bough {
namespace {

constexpr size_t kLabelTokens = 64;

// Of the plan what the pages depend on: not how often decode refreshes, nor how rows by themselves select.
std::string reading_plan(AttentionPlan plan) {
  plan.refresh.clear();
  plan.tail = 0;
  const auto clear_rows = [](std::vector<StagePlan>& stages) {
    for (StagePlan& stage : stages) stage.row_piece = 0, stage.row_keep = 0;
  };
  clear_rows(plan.stages);
  plan.row_k = 0;
  if (plan.tree) plan.tree->refresh = 0;
  for (LayerOverride& layer : plan.layers) {
    if (layer.tree) layer.tree->refresh = 0;
    if (layer.stages) clear_rows(*layer.stages);
    layer.row_k.reset();
  }
  return plan_json(plan);
}

// How many pages come before the first that has a row out of its place.
size_t sound_pages(const KvShape& shape, std::span<std::byte* const> pages) {
  size_t sound = pages.size();
#pragma omp parallel for schedule(static) reduction(min : sound)
  for (size_t i = 0; i < pages.size(); ++i) {
    if (!places_hold(shape, pages[i])) sound = std::min(sound, i);
  }
  return sound;
}

// How many tokens two texts have in common at their start.
size_t common_prefix(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t most = std::min(a.size(), b.size());
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin()).first - a.begin());
}

}  // namespace

Result<SessionHeader> Engine::Impl::session_header(const std::string& label) {
  if (!print) {
    omp_set_num_threads(threads);
    BOUGH_ASSIGN_OR_RETURN(print, fingerprint(*file));
  }
  const KvShape& shape = pool->shape();
  SessionHeader header;
  header.kv = name_of(kv);
  header.layers = static_cast<uint32_t>(shape.layers);
  header.kv_heads = static_cast<uint32_t>(shape.kv_heads);
  header.head_dim = static_cast<uint32_t>(shape.head_dim);
  header.page_bytes = shape.page_bytes();
  header.model_hash = print->model;
  header.tokenizer_hash = print->tokenizer;
  header.plan = reading_plan(plan());
  header.model = info.name;
  header.label = label;
  return header;
}

Result<std::unique_ptr<Session>> Engine::Impl::restore(const SessionReader& reader, int64_t tokens, Status* damage) {
  const int64_t held = std::min(tokens, static_cast<int64_t>(reader.tokens().size())) / kPageTokens * kPageTokens;
  const std::span<const TokenId> text = reader.tokens().first(static_cast<size_t>(held));
  for (const TokenId token : text) {
    if (token < 0 || token >= config.vocab) {
      return Status(Code::corrupt, "the session file holds the token " + std::to_string(token) + ", the vocabulary has ids 0 to " +
                                       std::to_string(config.vocab - 1));
    }
  }
  omp_set_num_threads(threads);
  std::unique_ptr<Session> session(new Session(std::make_unique<Session::Impl>(this)));
  Session::Impl& impl = *session->impl_;
  Result<MappedPages> mapped = reader.map_pages(0, static_cast<size_t>(held / kPageTokens));
  Status read = mapped.status();
  size_t whole = 0;
  if (read.ok()) {
    impl.sequence.pages.append_view(std::move(mapped->view), std::move(mapped->pages));
    impl.sequence.tokens.assign(text.begin(), text.end());
    impl.savable = held;
    read = reader.check_pages(impl.sequence.pages.pages(), &whole);
  }
  if (const size_t sound = sound_pages(pool->shape(), std::span(impl.sequence.pages.pages()).first(whole)); sound < whole) {
    whole = sound;
    read =
        Status(Code::corrupt, "'" + reader.path() + "' is damaged: page " + std::to_string(sound) + " has a row that is not in its place");
  }
  if (read.ok()) return session;
  if (damage == nullptr) return read;
  *damage = read;
  impl.rollback(static_cast<int64_t>(whole) * kPageTokens);
  return session;
}

Result<std::unique_ptr<Session>> Engine::restore_session(const std::string& path, const RestoreOptions& options) try {
  if (options.tokens < 0) {
    return Status(Code::invalid_argument, "tokens to restore is " + std::to_string(options.tokens) + ", it must not be negative");
  }
  BOUGH_ASSIGN_OR_RETURN(const SessionReader reader, SessionReader::open(*impl_->files, path));
  BOUGH_ASSIGN_OR_RETURN(const SessionHeader own, impl_->session_header({}));
  BOUGH_RETURN_IF_ERROR(check_session_header(own, reader.header(), path));
  BOUGH_RETURN_IF_ERROR(reader.damage());
  return impl_->restore(reader, options.tokens, nullptr);
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to restore '" + path + "'");
}

int64_t Session::savable() const { return impl_->savable; }
bool Session::is_keeping() const { return impl_->writer.has_value(); }
const Status& Session::keeping() const { return impl_->keeping; }

Status Session::save(const std::string& path) const try {
  const auto tokens = static_cast<size_t>(impl_->savable);
  if (tokens == 0) {
    return {Code::invalid_argument, "there is nothing to save: of " + std::to_string(length()) + " tokens no 64 were read as a whole page"};
  }
  Engine::Impl& engine = *impl_->engine;
  const std::span<const TokenId> text = this->tokens().first(tokens);
  BOUGH_ASSIGN_OR_RETURN(const std::string label, engine.tokenizer->detokenize(text.first(std::min(tokens, kLabelTokens))));
  BOUGH_ASSIGN_OR_RETURN(const SessionHeader header, engine.session_header(label));
  const std::span<std::byte* const> pages = impl_->sequence.pages.pages();
  return SessionWriter::write_whole(*engine.files, path, header, text, pages.first(tokens / kPageTokens));
} catch (const std::bad_alloc&) {
  return {Code::out_of_memory, "no memory to save '" + path + "'"};
}

Status Session::keep(const std::string& path, const std::string& label) try {
  Engine::Impl& engine = *impl_->engine;
  impl_->writer.reset();
  impl_->keeping = {};
  BOUGH_ASSIGN_OR_RETURN(const SessionHeader header, engine.session_header(label));
  BOUGH_ASSIGN_OR_RETURN(SessionWriter writer, SessionWriter::open(*engine.files, path, header));
  const std::span<const TokenId> kept = writer.tokens();
  const std::span<const TokenId> own = tokens().first(static_cast<size_t>(savable()));
  const size_t common = common_prefix(kept, own);
  if (common < kept.size()) {
    const std::string sizes = std::to_string(kept.size()) + " tokens, of which this session begins with " + std::to_string(common);
    return {Code::invalid_argument, "'" + path + "' holds another text: " + sizes};
  }
  impl_->writer = std::move(writer);
  impl_->keep_pages();
  return impl_->keeping;
} catch (const std::bad_alloc&) {
  return {Code::out_of_memory, "no memory to write to '" + path + "'"};
}

void Session::Impl::keep_pages() {
  engine->fit_pages();  // before anything is written: the device has had a step's time to take what was written last
  if (!writer) return;
  const size_t from = writer->pages();
  const auto to = static_cast<size_t>(savable / kPageTokens);
  if (from >= to) return;
  const std::span<const TokenId> tokens(sequence.tokens);
  const std::span<std::byte* const> pages(sequence.pages.pages());
  keeping = writer->add(tokens.subspan(from * kPageTokens, (to - from) * kPageTokens), pages.subspan(from, to - from));
  if (!keeping.ok()) writer.reset();
}

}  // namespace bough
