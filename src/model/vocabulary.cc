#include "model/vocabulary.h"

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/check.h"
#include "model/gguf_values.h"

namespace bough {
namespace {

constexpr uint64_t kMaxTokens = 1u << 24;

Status corrupt(std::string message) { return Status(Code::corrupt, std::move(message)); }

// An optional array with one value a token.
Status check_per_token(const GgufFile& file, std::string_view key, uint64_t tokens, bool floats_too) {
  const MetaEntry* entry = file.find(key);
  if (entry == nullptr) return {};
  const bool type_fits = entry->type == MetaType::i32 || (floats_too && entry->type == MetaType::f32);
  if (!entry->is_array || !type_fits) {
    return corrupt("the key " + in_quotes(key) + " is " + describe_type(*entry) + ", it must be an array of i32" +
                   (floats_too ? " or f32" : ""));
  }
  if (entry->count != tokens) {
    return corrupt("the key " + in_quotes(key) + " has " + std::to_string(entry->count) + " values for " + std::to_string(tokens) +
                   " tokens");
  }
  return {};
}

Status check_special_id(const GgufFile& file, std::string_view key, uint64_t tokens) {
  if (file.find(key) == nullptr) return {};
  BOUGH_ASSIGN_OR_RETURN(const uint64_t id, file.get_u64(key));
  if (id >= tokens) {
    return corrupt("the key " + in_quotes(key) + " is " + std::to_string(id) + ", it must be below the " + std::to_string(tokens) +
                   " tokens");
  }
  return {};
}

Status check_tokens(const std::vector<std::string_view>& tokens) {
  std::unordered_set<std::string_view> seen;
  seen.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].find('\0') != std::string_view::npos)
      return corrupt("token " + std::to_string(i) + ", " + in_quotes(tokens[i]) + ", holds a NUL byte");
    // The tokenizer gives each empty token a name of its own.
    if (!tokens[i].empty() && !seen.insert(tokens[i]).second) {
      return corrupt("token " + std::to_string(i) + ", " + in_quotes(tokens[i]) + ", occurs twice in the vocabulary");
    }
  }
  return {};
}

}  // namespace

Result<int64_t> check_vocabulary(const GgufFile& file) {
  BOUGH_ASSIGN_OR_RETURN(const std::string_view model, file.get_string("tokenizer.ggml.model"));
  if (model == "none" || model == "no_vocab") return Status(Code::unsupported, "the file has no vocabulary");
  BOUGH_ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, file.get_strings("tokenizer.ggml.tokens"));
  const uint64_t count = tokens.size();
  if (count == 0 || count > kMaxTokens) {
    return corrupt("the vocabulary has " + std::to_string(count) + " tokens, 1 to " + std::to_string(kMaxTokens) + " are possible");
  }
  BOUGH_RETURN_IF_ERROR(check_tokens(tokens));
  BOUGH_RETURN_IF_ERROR(check_per_token(file, "tokenizer.ggml.token_type", count, false));
  BOUGH_RETURN_IF_ERROR(check_per_token(file, "tokenizer.ggml.scores", count, true));
  if (file.find("tokenizer.ggml.merges") != nullptr) {
    if (Result<std::vector<std::string_view>> merges = file.get_strings("tokenizer.ggml.merges"); !merges.ok()) return merges.status();
  }
  for (const char* name : {"bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask"}) {
    BOUGH_RETURN_IF_ERROR(check_special_id(file, "tokenizer.ggml." + std::string(name) + "_token_id", count));
  }
  return static_cast<int64_t>(count);
}

}  // namespace bough
