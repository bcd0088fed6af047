// Text to tokens and back, with the vocabulary of a GGUF file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"
#include "bough/types.h"

struct llama_vocab;

namespace bough {

struct TokenizeOptions {
  bool add_bos_as_model_says = true;      // put the vocabulary's BOS token first, if the vocabulary asks for one
  bool parse_special = false;             // control tokens written in the text are recognised; never for a user's text
  size_t piece_bytes = size_t{64} << 10;  // longer texts go through the library in pieces of at most this size, 1 KiB to 64 KiB
};

// A token that is recognised by its text alone and is not text itself (types control and unknown).
struct SpecialText {
  std::string text;
  bool strips_left = false;   // swallows the blanks before it
  bool strips_right = false;  // swallows the blanks after it
};

// Thread-safe: all calls after open() are const and share no state.
class Tokenizer {
 public:
  // Reads only the vocabulary. REQUIRES: the file passed this project's own checks (inspect_model), since the library behind this
  // class ends the process on some broken files. Errors: not_found, corrupt, unsupported (a file without a vocabulary).
  static Result<std::unique_ptr<Tokenizer>> open(const std::string& gguf_path);
  ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  // Bytes that are not UTF-8 (surrogates included) read as U+FFFD, one for each maximal broken part; NUL is a character like any
  // other. Without parse_special no control token and no end-of-generation token ever comes out, whatever the text spells: such text
  // is spelled with ordinary tokens. EOS is never added. Long texts go through the library in pieces (text_cuts.h), so memory beyond
  // the result stays small. Errors: invalid_argument (more than 1 GiB), unsupported (a vocabulary that cannot spell a character).
  Result<std::vector<TokenId>> tokenize(std::string_view text, const TokenizeOptions& options = {}) const;

  // The bytes of one token, perhaps not whole UTF-8 characters; control tokens are empty unless `special`. Errors: invalid_argument.
  Result<std::string> piece(TokenId token, bool special = false) const;
  // All pieces in a row, without the blank that some vocabularies put before a text and, unless `special`, without control tokens.
  // Errors: invalid_argument (a token outside the vocabulary).
  Result<std::string> detokenize(std::span<const TokenId> tokens, bool special = false) const;

  int64_t vocab_size() const;
  // False for tokens outside the vocabulary.
  bool is_eog(TokenId token) const;  // ends the generation
  bool is_control(TokenId token) const;
  std::optional<TokenId> bos() const;
  std::optional<TokenId> eos() const;
  bool adds_bos() const;                     // the vocabulary wants BOS first, and has one
  const std::string& chat_template() const;  // Jinja source; empty if the file has none
  std::span<const SpecialText> special_texts() const;
  const llama_vocab* library_vocab() const;  // for what else the library does with a vocabulary

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace bough
