#include "text/tokenizer.h"

#include <llama.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "text/big_stack.h"
#include "text/text_cuts.h"
#include "text/utf8.h"

namespace bough {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;
// libllama's word splitting may recurse once a character (200 to 400 bytes of stack each, measured) through std::regex, so a piece
// of kMaxPieceBytes fits kStackBytes ten times over.
constexpr size_t kMinPieceBytes = size_t{1} << 10;
constexpr size_t kMaxPieceBytes = size_t{64} << 10;
constexpr size_t kStackBytes = size_t{256} << 20;
constexpr unsigned kMaxThreads = 8;
constexpr size_t kSmallText = kMinPieceBytes;  // that any thread's own stack has room for

struct FreeModel {
  void operator()(llama_model* model) const { llama_model_free(model); }
};

std::string meta(const llama_model* model, const char* key) {
  char text[128] = {};
  return llama_model_meta_val_str(model, key, text, sizeof text) < 0 ? std::string() : std::string(text);
}

// Words of some pre-tokenizers hold blanks or are whole lines; superbpe's end at numbers only, so that its long texts are cut by force.
CutRules rules_of(const std::string& model, const std::string& pre) {
  if (model != "gpt2" && model != "gemma4") return {};
  if (pre == "whitespace" || pre == "superbpe") return {};
  const bool long_words = model == "gemma4" || pre == "gemma4" || pre == "sarvam-moe" || pre == "exaone-moe";
  return {.at_blank = !long_words, .at_line = true};
}

}  // namespace

struct Tokenizer::Impl {
  std::unique_ptr<llama_model, FreeModel> model;
  const llama_vocab* vocab = nullptr;
  TokenId size = 0;
  TokenId bos = LLAMA_TOKEN_NULL;
  TokenId eos = LLAMA_TOKEN_NULL;
  bool adds_bos = false;
  bool in_pieces = false;  // a byte-pair vocabulary: long texts are cut
  CutRules plain_cuts;     // for texts in which only user-defined tokens are recognised
  CutRules special_cuts;   // and control tokens too
  std::string chat_template;
  std::vector<SpecialText> specials;

  bool holds(TokenId token) const { return token >= 0 && token < size; }
  Status check(TokenId token) const {
    if (holds(token)) return {};
    return {Code::invalid_argument,
            "Token " + std::to_string(token) + " is outside the vocabulary of " + std::to_string(size) + " tokens."};
  }
  llama_token_attr attributes(TokenId token) const { return llama_vocab_get_attr(vocab, token); }
  // What a text may never turn into: a token that steers the model.
  bool steers(TokenId token) const { return (attributes(token) & LLAMA_TOKEN_ATTR_CONTROL) != 0 || llama_vocab_is_eog(vocab, token); }

  void append_piece(TokenId token, bool special, std::string& out) const;
  void find_specials();
  Status append_tokens(std::string_view text, bool parse_special, std::vector<TokenId>& out) const;
  Status append_in_pieces(std::string_view text, const TokenizeOptions& options, std::vector<TokenId>& out) const;
  Result<std::vector<TokenId>> spell_out(std::span<const TokenId> tokens) const;
};

// REQUIRES: holds(token).
void Tokenizer::Impl::append_piece(TokenId token, bool special, std::string& out) const {
  char small[64];
  int32_t n = llama_token_to_piece(vocab, token, small, sizeof small, 0, special);
  if (n >= 0) {
    out.append(small, static_cast<size_t>(n));
    return;
  }
  const size_t start = out.size();
  out.resize(start + static_cast<size_t>(-n));
  n = llama_token_to_piece(vocab, token, out.data() + start, -n, 0, special);
  out.resize(start + static_cast<size_t>(std::max(n, 0)));
}

void Tokenizer::Impl::find_specials() {
  constexpr int not_text = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN;
  for (TokenId token = 0; token < size; ++token) {
    const int attr = attributes(token);
    if ((attr & (not_text | LLAMA_TOKEN_ATTR_USER_DEFINED)) == 0) continue;
    const std::string text = llama_vocab_get_text(vocab, token);
    const bool left = (attr & LLAMA_TOKEN_ATTR_LSTRIP) != 0;
    const bool right = (attr & LLAMA_TOKEN_ATTR_RSTRIP) != 0;
    exclude_special(special_cuts, text, left || right);
    if ((attr & not_text) == 0) {
      exclude_special(plain_cuts, text, left || right);
    } else if (!text.empty()) {
      specials.push_back({text, left, right});
    }
  }
}

Status Tokenizer::Impl::append_tokens(std::string_view text, bool parse_special, std::vector<TokenId>& out) const {
  const size_t start = out.size();
  const auto bytes = static_cast<int32_t>(text.size());
  auto room = static_cast<int32_t>(std::min<size_t>(text.size() + 8, std::numeric_limits<int32_t>::max()));
  for (int attempt = 0; attempt < 2; ++attempt) {
    out.resize(start + static_cast<size_t>(room));
    const int32_t n = llama_tokenize(vocab, text.data(), bytes, out.data() + start, room, false, parse_special);
    if (n >= 0) {
      out.resize(start + static_cast<size_t>(n));
      return {};
    }
    if (n == std::numeric_limits<int32_t>::min()) break;
    room = -n;
  }
  out.resize(start);
  return {Code::internal, "The text of " + std::to_string(text.size()) + " bytes has more tokens than can be counted."};
}

// Several threads, each every so many pieces: what a piece becomes depends on it alone.
Status Tokenizer::Impl::append_in_pieces(std::string_view text, const TokenizeOptions& options, std::vector<TokenId>& out) const {
  const CutRules& rules = options.parse_special ? special_cuts : plain_cuts;
  const size_t limit = std::clamp(options.piece_bytes, kMinPieceBytes, kMaxPieceBytes);
  std::vector<std::string_view> pieces;
  while (!text.empty()) {
    pieces.push_back(text.substr(0, first_piece(text, limit, rules)));
    text.remove_prefix(pieces.back().size());
  }
  const size_t threads = std::min(pieces.size(), static_cast<size_t>(std::clamp(std::thread::hardware_concurrency(), 1U, kMaxThreads)));
  std::vector<std::vector<TokenId>> tokens(pieces.size());
  BOUGH_RETURN_IF_ERROR(run_on_big_stacks(kStackBytes, static_cast<int>(threads), [&](int thread) -> Status {
    for (auto i = static_cast<size_t>(thread); i < pieces.size(); i += threads) {
      BOUGH_RETURN_IF_ERROR(append_tokens(pieces[i], options.parse_special, tokens[i]));
      tokens[i].shrink_to_fit();
    }
    return {};
  }));
  for (std::vector<TokenId>& piece : tokens) {
    out.insert(out.end(), piece.begin(), piece.end());
    piece = {};
  }
  return {};
}

// The same text without a steering token: each is spelled with the vocabulary's tokens of one character or one byte.
Result<std::vector<TokenId>> Tokenizer::Impl::spell_out(std::span<const TokenId> tokens) const {
  std::unordered_map<std::string, TokenId> letters;
  for (TokenId token = 0; token < size; ++token) {
    if (steers(token) || (attributes(token) & LLAMA_TOKEN_ATTR_UNKNOWN) != 0) continue;
    std::string text;
    append_piece(token, false, text);
    const bool one = text.size() == 1 || (!text.empty() && first_char(text).bytes == text.size());
    if (!one) continue;
    const bool byte = (attributes(token) & LLAMA_TOKEN_ATTR_BYTE) != 0;
    if (byte) {
      letters.try_emplace(std::move(text), token);
    } else {
      letters.insert_or_assign(std::move(text), token);
    }
  }
  std::vector<TokenId> out;
  for (const TokenId token : tokens) {
    if (!steers(token)) {
      out.push_back(token);
      continue;
    }
    std::string text;
    append_piece(token, true, text);
    for (std::string_view rest = text; !rest.empty();) {
      size_t bytes = first_char(rest).bytes;
      auto found = letters.find(std::string(rest.substr(0, bytes)));
      if (found == letters.end()) found = letters.find(std::string(rest.substr(0, bytes = 1)));
      if (found == letters.end()) {
        return Status(Code::unsupported, "The vocabulary cannot spell the text of its control token " + std::to_string(token) + ".");
      }
      out.push_back(found->second);
      rest.remove_prefix(bytes);
    }
  }
  return out;
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<std::unique_ptr<Tokenizer>> Tokenizer::open(const std::string& gguf_path) {
  static std::once_flag silent;
  std::call_once(silent, [] { llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr); });
  std::error_code error;
  if (!std::filesystem::is_regular_file(gguf_path, error)) return Status(Code::not_found, "'" + gguf_path + "' is not a file.");

  auto impl = std::make_unique<Impl>();
  const Status loaded = run_guarded([&]() -> Status {
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    impl->model.reset(llama_model_load_from_file(gguf_path.c_str(), params));
    if (!impl->model) return {Code::corrupt, "The vocabulary of '" + gguf_path + "' cannot be read."};
    impl->vocab = llama_model_get_vocab(impl->model.get());
    impl->size = llama_vocab_n_tokens(impl->vocab);
    if (llama_vocab_type(impl->vocab) == LLAMA_VOCAB_TYPE_NONE || impl->size <= 0) {
      return {Code::unsupported, "'" + gguf_path + "' holds no vocabulary."};
    }
    impl->bos = llama_vocab_bos(impl->vocab);
    impl->eos = llama_vocab_eos(impl->vocab);
    impl->adds_bos = llama_vocab_get_add_bos(impl->vocab) && impl->holds(impl->bos);
    const std::string kind = meta(impl->model.get(), "tokenizer.ggml.model");
    impl->in_pieces = kind == "gpt2" || kind == "gemma4";
    impl->plain_cuts = impl->special_cuts = rules_of(kind, meta(impl->model.get(), "tokenizer.ggml.pre"));
    impl->find_specials();
    if (const char* source = llama_model_chat_template(impl->model.get(), nullptr)) impl->chat_template = source;
    return {};
  });
  BOUGH_RETURN_IF_ERROR(loaded);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

Result<std::vector<TokenId>> Tokenizer::tokenize(std::string_view text, const TokenizeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return Status(Code::invalid_argument, "A text of " + std::to_string(text.size()) + " bytes is more than the " +
                                              std::to_string(kMaxTextBytes) + " that can be tokenized at once.");
  }
  std::vector<TokenId> out;
  if (options.add_bos_as_model_says && impl_->adds_bos) out.push_back(impl_->bos);
  const size_t start = out.size();
  BOUGH_RETURN_IF_ERROR(run_guarded([&]() -> Status {
    std::string repaired;
    if (!is_utf8(text)) text = repaired = replace_invalid_utf8(text);
    if (text.size() <= kSmallText) return impl_->append_tokens(text, options.parse_special, out);
    if (impl_->in_pieces) return impl_->append_in_pieces(text, options, out);
    return run_on_big_stacks(kStackBytes, 1, [&](int) { return impl_->append_tokens(text, options.parse_special, out); });
  }));
  if (options.parse_special) return out;
  const std::span<const TokenId> fresh = std::span(out).subspan(start);
  if (std::none_of(fresh.begin(), fresh.end(), [&](TokenId token) { return impl_->steers(token); })) return out;
  BOUGH_ASSIGN_OR_RETURN(const std::vector<TokenId> spelled, impl_->spell_out(fresh));
  out.resize(start);
  out.insert(out.end(), spelled.begin(), spelled.end());
  return out;
}

Result<std::string> Tokenizer::piece(TokenId token, bool special) const {
  BOUGH_RETURN_IF_ERROR(impl_->check(token));
  std::string out;
  impl_->append_piece(token, special, out);
  return out;
}

Result<std::string> Tokenizer::detokenize(std::span<const TokenId> tokens, bool special) const {
  for (const TokenId token : tokens) BOUGH_RETURN_IF_ERROR(impl_->check(token));
  std::string out;
  size_t at = 0;
  if (!special && !tokens.empty() && tokens[0] == impl_->bos) at = 1;
  if (at < tokens.size()) {
    // Only libllama knows whether this vocabulary puts a blank before a text.
    std::string first;
    impl_->append_piece(tokens[at], true, first);
    first.resize(first.size() + 8);
    const int32_t n = llama_detokenize(impl_->vocab, &tokens[at], 1, first.data(), static_cast<int32_t>(first.size()), false, special);
    out.append(first, 0, static_cast<size_t>(std::max(n, 0)));
    ++at;
  }
  for (; at < tokens.size(); ++at) impl_->append_piece(tokens[at], special, out);
  return out;
}

int64_t Tokenizer::vocab_size() const { return impl_->size; }
bool Tokenizer::is_eog(TokenId token) const { return impl_->holds(token) && llama_vocab_is_eog(impl_->vocab, token); }
bool Tokenizer::is_control(TokenId token) const {
  return impl_->holds(token) && (impl_->attributes(token) & LLAMA_TOKEN_ATTR_CONTROL) != 0;
}
std::optional<TokenId> Tokenizer::bos() const { return impl_->holds(impl_->bos) ? std::optional(impl_->bos) : std::nullopt; }
std::optional<TokenId> Tokenizer::eos() const { return impl_->holds(impl_->eos) ? std::optional(impl_->eos) : std::nullopt; }
bool Tokenizer::adds_bos() const { return impl_->adds_bos; }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }
std::span<const SpecialText> Tokenizer::special_texts() const { return impl_->specials; }
const llama_vocab* Tokenizer::library_vocab() const { return impl_->vocab; }

}  // namespace bough
