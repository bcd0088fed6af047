// SessionStore: a folder of session files, where a text that was read before is found again by its tokens.
//
// Several processes may use one folder: each file has one writer at a time, readers need no lock, and a file that is removed stays
// readable to those who have it open.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/engine.h"
#include "bough/status.h"
#include "bough/types.h"

namespace bough {

struct StoredSession {
  std::string id;
  int64_t bytes = 0;     // on the device
  int64_t last_use = 0;  // seconds since 1970
  std::string damage;    // empty, or why the file cannot be used (as a whole)
  int64_t tokens = 0;
  std::string model;
  std::string kv;
  std::string label;  // how the text begins
};

struct StoreOptions {
  std::string folder;                               // made when it is first needed
  int64_t budget_bytes = int64_t{20} * 1000000000;  // of all files; the ones not used for longest go
  FileSystem* files = nullptr;                      // null: the machine's own
};

// A text and what Engine::tokenize makes of it. Points to memory of the caller.
struct TokenizedText {
  std::string_view text;
  bool add_bos = false;
  std::span<const TokenId> tokens;
};

class SessionStore {
 public:
  explicit SessionStore(StoreOptions options);

  // Last used first. A folder that does not exist holds none. Errors: io_error, out_of_memory.
  Result<std::vector<StoredSession>> list() const;
  // Removes what is kept of it: the session, and the text that stands beside it. Errors: not_found, io_error.
  Status remove(const std::string& id) const;

  struct Opened {
    std::unique_ptr<Session> session;  // holds the first `reused` tokens of the text
    int64_t reused = 0;
    std::vector<std::string> notes;  // sentences on what is not as it should be: a damaged file, no room to keep what will be read
  };
  // The session of the file that has most of the text in common, or a new one; set to keep what is read of the text from now on, in
  // that file if all of it is used, else in one of its own, within the budget. No trouble with files is an error: it is a note.
  // `source`, unless null, is the text that the tokens were made of, or a part of it: it is kept beside the session, for tokenize().
  // Errors: out_of_memory, internal.
  Result<Opened> open_session(Engine& engine, std::span<const TokenId> text, const std::string& label,
                              const TokenizedText* source = nullptr) const;

  // As engine.tokenize(text, add_bos). What open_session has kept of the very same text is not computed again. Errors: those of
  // Engine::tokenize, out_of_memory. No trouble with files is an error.
  Result<std::vector<TokenId>> tokenize(Engine& engine, std::string_view text, bool add_bos) const;

 private:
  struct Match;
  std::string path_of(const std::string& id) const;
  Result<Match> best_match(Engine& engine, std::span<const TokenId> text, std::vector<std::string>& notes) const;
  // Sets *id to that of the file that holds or will hold the text.
  Status keep(Engine& engine, Session& session, const Match& match, int64_t tokens, const std::string& label, std::string* id) const;
  void keep_text(Engine& engine, const std::string& id, const TokenizedText& source) const;
  Status make_room(int64_t bytes, const std::string& but) const;

  StoreOptions options_;
};

}  // namespace bough
