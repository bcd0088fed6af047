#include "bough/session_store.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <new>
#include <optional>

#include "base/check.h"
#include "base/checksum.h"
#include "engine/impl.h"
#include "kv/text_file.h"

namespace bough {
namespace {

constexpr std::string_view kSession = ".session", kText = ".text", kUnfinishedText = ".text.part";
constexpr int64_t kSpareBytes = int64_t{1} << 28;  // of the device, left to others

bool is(std::string_view extension, const FileStatus& file) {
  return file.name.size() > extension.size() && file.name.ends_with(extension);
}
std::string id_of(const FileStatus& file, std::string_view extension = kSession) {
  return file.name.substr(0, file.name.size() - extension.size());
}

// Eight hexadecimal digits that no other session is likely to have.
std::string new_id() {
  static uint64_t count = 0;
  const uint64_t parts[] = {static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()),
                            static_cast<uint64_t>(getpid()), ++count};
  char id[16];
  std::snprintf(id, sizeof id, "%08x", static_cast<unsigned>(checksum(std::as_bytes(std::span(parts)))));
  return id;
}

// The files with this extension, last used first. A folder that is not there holds none.
Result<std::vector<FileStatus>> files_of(FileSystem& files, const std::string& folder, std::string_view extension) {
  Result<std::vector<FileStatus>> all = files.list(folder);
  if (!all.ok() && all.status().code() == Code::not_found) return std::vector<FileStatus>();
  if (!all.ok()) return all.status();
  all->erase(std::remove_if(all->begin(), all->end(), [&](const FileStatus& file) { return !is(extension, file); }), all->end());
  std::sort(all->begin(), all->end(), [](const FileStatus& a, const FileStatus& b) { return a.modified > b.modified; });
  return all;
}

// Of each session the bytes of all its files.
Result<std::vector<FileStatus>> session_files(FileSystem& files, const std::string& folder) {
  BOUGH_ASSIGN_OR_RETURN(std::vector<FileStatus> sessions, files_of(files, folder, kSession));
  BOUGH_ASSIGN_OR_RETURN(const std::vector<FileStatus> texts, files_of(files, folder, kText));
  for (const FileStatus& text : texts) {
    const auto own = std::find_if(sessions.begin(), sessions.end(), [&](const FileStatus& s) { return id_of(s) == id_of(text, kText); });
    if (own != sessions.end()) own->bytes += text.bytes;
  }
  return sessions;
}

// Texts first: none is left behind without its session.
Status remove_session(FileSystem& files, const std::string& folder, const std::string& id) {
  const std::string path = folder + "/" + id;
  for (const std::string_view extension : {kText, kUnfinishedText}) {
    Status removed = files.remove(path + std::string(extension));
    if (!removed.ok() && removed.code() != Code::not_found) return removed;
  }
  return files.remove(path + std::string(kSession));
}

// Removes a session unless a process writes to it.
bool remove_if_idle(FileSystem& files, const std::string& folder, const std::string& id) {
  const Result<std::unique_ptr<File>> file = files.open(folder + "/" + id + std::string(kSession), OpenMode::update);
  if (!file.ok()) return false;
  const Result<bool> locked = (*file)->try_lock();
  return locked.ok() && *locked && remove_session(files, folder, id).ok();
}

int64_t whole_pages(int64_t tokens) { return tokens / kPageTokens * kPageTokens; }

}  // namespace

// The file with most of a text in common; an empty id when none has a page.
struct SessionStore::Match {
  std::string id;
  std::optional<SessionReader> reader;
  int64_t common = 0;  // tokens, whole pages
};

SessionStore::SessionStore(StoreOptions options) : options_(std::move(options)) {
  if (options_.files == nullptr) options_.files = &machine_files();
}

std::string SessionStore::path_of(const std::string& id) const { return options_.folder + "/" + id + std::string(kSession); }

Result<std::vector<StoredSession>> SessionStore::list() const try {
  BOUGH_ASSIGN_OR_RETURN(const std::vector<FileStatus> files, session_files(*options_.files, options_.folder));
  std::vector<StoredSession> sessions;
  for (const FileStatus& file : files) {
    StoredSession session;
    session.id = id_of(file);
    session.bytes = static_cast<int64_t>(file.bytes);
    session.last_use = file.modified / 1'000'000'000;
    const Result<SessionReader> reader = SessionReader::open(*options_.files, path_of(session.id));
    const Status status = reader.ok() ? reader->damage() : reader.status();
    if (status.code() == Code::not_found) continue;  // removed meanwhile
    session.damage = status.message();
    if (reader.ok()) {
      session.tokens = static_cast<int64_t>(reader->tokens().size());
      session.model = reader->header().model;
      session.kv = reader->header().kv;
      session.label = reader->header().label;
    }
    sessions.push_back(std::move(session));
  }
  return sessions;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to list the sessions in '" + options_.folder + "'");
}

Status SessionStore::remove(const std::string& id) const {
  if (id.empty() || id.find('/') != std::string::npos) return {Code::not_found, "there is no session '" + id + "'"};
  Status removed = remove_session(*options_.files, options_.folder, id);
  if (removed.code() == Code::not_found) return {Code::not_found, "there is no session '" + id + "'"};
  return removed;
}

Result<SessionStore::Match> SessionStore::best_match(Engine& engine, std::span<const TokenId> text, std::vector<std::string>& notes) const {
  BOUGH_ASSIGN_OR_RETURN(const SessionHeader own, engine.impl_->session_header({}));
  Match best;
  const Result<std::vector<FileStatus>> files = session_files(*options_.files, options_.folder);
  if (!files.ok()) {
    notes.push_back(files.status().message());
    return best;
  }
  for (const FileStatus& file : *files) {
    Result<SessionReader> reader = SessionReader::open(*options_.files, path_of(id_of(file)));
    const bool useless = reader.ok() ? reader->tokens().empty() && reader->damage().ok() : reader.status().code() == Code::corrupt;
    if (useless) remove_if_idle(*options_.files, options_.folder, id_of(file));  // its process ended too early
    if (!reader.ok() || !check_session_header(own, reader->header(), {}).ok()) continue;
    const std::span<const TokenId> held = reader->tokens();
    const size_t most = std::min(held.size(), text.size());
    const auto differs = std::mismatch(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(most), text.begin()).first;
    const int64_t common = whole_pages(differs - held.begin());
    if (common <= best.common) continue;
    best = {id_of(file), std::move(*reader), common};
  }
  return best;
}

Result<SessionStore::Opened> SessionStore::open_session(Engine& engine, std::span<const TokenId> text, const std::string& label,
                                                        const TokenizedText* source) const try {
  Opened opened;
  BOUGH_ASSIGN_OR_RETURN(Match match, best_match(engine, text, opened.notes));
  if (match.reader) {
    Status damage;
    Result<std::unique_ptr<Session>> restored = engine.impl_->restore(*match.reader, match.common, &damage);
    if (!restored.ok() && restored.status().code() != Code::corrupt) return restored.status();
    if (damage.ok()) damage = restored.ok() ? match.reader->damage() : restored.status();
    if (restored.ok()) opened.session = std::move(*restored);
    if (damage.ok()) {
      static_cast<void>(match.reader->touch());  // the time of last use is a help, no more
    } else {
      opened.notes.push_back(damage.message());
      static_cast<void>(remove_session(*options_.files, options_.folder, match.id));
      match.id.clear();
    }
  }
  if (!opened.session) {
    BOUGH_ASSIGN_OR_RETURN(opened.session, engine.new_session());
  }
  opened.reused = opened.session->length();
  std::string id;
  const Status kept = keep(engine, *opened.session, match, whole_pages(static_cast<int64_t>(text.size())), label, &id);
  if (kept.ok() && source != nullptr) keep_text(engine, id, *source);
  if (!kept.ok()) opened.notes.push_back("what is read is not kept: " + kept.message());
  return opened;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to look for sessions in '" + options_.folder + "'");
}

// Lets the session keep the `tokens` tokens of whole pages that it will have read.
Status SessionStore::keep(Engine& engine, Session& session, const Match& match, int64_t tokens, const std::string& label,
                          std::string* id) const {
  *id = match.id;
  const bool same_file = !match.id.empty() && match.common == static_cast<int64_t>(match.reader->tokens().size());
  if (tokens == session.length() && !match.id.empty()) return {};  // all of it lies in a file
  const int64_t page_bytes = static_cast<int64_t>(engine.impl_->pool->shape().page_bytes());
  const int64_t whole = tokens / kPageTokens * page_bytes;
  const int64_t added = same_file ? whole - match.common / kPageTokens * page_bytes : whole;
  if (whole > options_.budget_bytes) {
    return {Code::invalid_argument,
            "it takes " + std::to_string(whole) + " bytes, the budget of all sessions is " + std::to_string(options_.budget_bytes)};
  }
  BOUGH_RETURN_IF_ERROR(options_.files->make_folder(options_.folder));
  BOUGH_RETURN_IF_ERROR(make_room(added, same_file ? match.id : std::string()));
  if (!same_file) *id = new_id();
  return session.keep(path_of(*id), label);
}

// Where this fails, the text is tokenized anew another time.
void SessionStore::keep_text(Engine& engine, const std::string& id, const TokenizedText& source) const {
  const Result<SessionHeader> own = engine.impl_->session_header({});
  if (!own.ok()) return;
  const TokenizerId tokenizer{own->tokenizer_hash, source.add_bos};
  const std::string path = options_.folder + "/" + id + std::string(kText);
  const Result<std::optional<std::vector<TokenId>>> held = read_text_file(*options_.files, path, source.text, tokenizer);
  if (held.ok() && held->has_value()) return;
  if (!make_room(static_cast<int64_t>(source.text.size() + source.tokens.size_bytes()), id).ok()) return;
  static_cast<void>(write_text_file(*options_.files, path, source.text, source.tokens, tokenizer));
}

Result<std::vector<TokenId>> SessionStore::tokenize(Engine& engine, std::string_view text, bool add_bos) const try {
  const Result<std::vector<FileStatus>> texts = files_of(*options_.files, options_.folder, kText);
  if (!texts.ok() || texts->empty()) return engine.tokenize(text, add_bos);
  BOUGH_ASSIGN_OR_RETURN(const SessionHeader own, engine.impl_->session_header({}));
  for (const FileStatus& file : *texts) {
    Result<std::optional<std::vector<TokenId>>> tokens =
        read_text_file(*options_.files, options_.folder + "/" + file.name, text, {own.tokenizer_hash, add_bos});
    if (tokens.ok() && tokens->has_value()) return std::move(**tokens);
  }
  return engine.tokenize(text, add_bos);
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to look for texts in '" + options_.folder + "'");
}

// Removes the sessions not used for longest, but for `but` and those being written, until `bytes` more stay within the budget.
Status SessionStore::make_room(int64_t bytes, const std::string& but) const {
  BOUGH_ASSIGN_OR_RETURN(const std::vector<FileStatus> files, session_files(*options_.files, options_.folder));
  int64_t total = bytes;
  for (const FileStatus& file : files) total += static_cast<int64_t>(file.bytes);
  for (auto file = files.rbegin(); file != files.rend() && total > options_.budget_bytes; ++file) {
    if (id_of(*file) == but) continue;
    if (remove_if_idle(*options_.files, options_.folder, id_of(*file))) total -= static_cast<int64_t>(file->bytes);
  }
  if (total > options_.budget_bytes) {
    return {Code::invalid_argument,
            "sessions being written leave no room within the budget of " + std::to_string(options_.budget_bytes) + " bytes"};
  }
  BOUGH_ASSIGN_OR_RETURN(const uint64_t free, options_.files->free_bytes(options_.folder));
  if (static_cast<int64_t>(free) < bytes + kSpareBytes) {
    return {Code::io_error, "it takes " + std::to_string(bytes) + " bytes, the device has " + std::to_string(free) + " free"};
  }
  return {};
}

}  // namespace bough
