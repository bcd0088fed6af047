#include "kv/text_file.h"

#include <cstring>
#include <memory>
#include <new>

#include "base/check.h"
#include "base/checksum.h"

namespace bough {
namespace {

// TextHead, the text, zeros to a multiple of 8, i32 tokens, zeros to a multiple of 8, checksum of all before. In the machine's byte order.
struct TextHead {
  char magic[8];
  uint32_t version;
  uint32_t byte_order;
  uint64_t tokenizer;
  uint64_t add_bos;
  uint64_t text_bytes;
  uint64_t text_sum;
  uint64_t tokens;
};
static_assert(sizeof(TextHead) == 56);

constexpr char kMagic[8] = {'B', 'o', 'u', 'g', 'h', 'T', 'x', '\n'};
constexpr uint32_t kByteOrder = 0x01020304;
constexpr uint64_t kMostTokens = uint64_t{1} << 40;

constexpr uint64_t aligned(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

TextHead head_of(std::string_view text, uint64_t tokens, const TokenizerId& tokenizer) {
  TextHead head{};
  std::memcpy(head.magic, kMagic, sizeof kMagic);
  head.version = 1;
  head.byte_order = kByteOrder;
  head.tokenizer = tokenizer.hash;
  head.add_bos = tokenizer.add_bos ? 1 : 0;
  head.text_bytes = text.size();
  head.text_sum = checksum(std::as_bytes(std::span(text)));
  head.tokens = tokens;
  return head;
}

uint64_t tokens_at(const TextHead& head) { return sizeof head + aligned(head.text_bytes); }
uint64_t sum_at(const TextHead& head) { return tokens_at(head) + aligned(head.tokens * sizeof(TokenId)); }

Result<std::optional<std::vector<TokenId>>> read_tokens(const File& file, std::string_view text, const TokenizerId& tokenizer) {
  const std::optional<std::vector<TokenId>> none;
  TextHead head{};
  BOUGH_ASSIGN_OR_RETURN(const uint64_t size, file.size());
  if (size < sizeof head) return none;
  BOUGH_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(&head, 1))));
  if (head.text_bytes != text.size() || head.tokens > kMostTokens || size != sum_at(head) + sizeof(uint64_t)) return none;
  const TextHead wanted = head_of(text, head.tokens, tokenizer);
  if (std::memcmp(&head, &wanted, sizeof head) != 0) return none;
  std::vector<std::byte> bytes(size);
  BOUGH_RETURN_IF_ERROR(file.read(0, bytes));
  uint64_t sum = 0;
  std::memcpy(&sum, bytes.data() + sum_at(head), sizeof sum);
  const bool same = std::memcmp(bytes.data() + sizeof head, text.data(), text.size()) == 0;
  if (!same || sum != checksum(std::span(bytes).first(sum_at(head)))) return none;
  std::vector<TokenId> tokens(head.tokens);
  if (!tokens.empty()) std::memcpy(tokens.data(), bytes.data() + tokens_at(head), tokens.size() * sizeof(TokenId));
  return std::optional(std::move(tokens));
}

}  // namespace

Result<std::optional<std::vector<TokenId>>> read_text_file(FileSystem& files, const std::string& path, std::string_view text,
                                                           const TokenizerId& tokenizer) try {
  const Result<std::unique_ptr<File>> file = files.open(path, OpenMode::read);
  if (!file.ok() && file.status().code() == Code::not_found) return std::optional<std::vector<TokenId>>();
  if (!file.ok()) return file.status();
  Result<std::optional<std::vector<TokenId>>> tokens = read_tokens(**file, text, tokenizer);
  if (!tokens.ok() && tokens.status().code() == Code::corrupt) return std::optional<std::vector<TokenId>>();  // cut meanwhile
  return tokens;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to read '" + path + "'");
}

Status write_text_file(FileSystem& files, const std::string& path, std::string_view text, std::span<const TokenId> tokens,
                       const TokenizerId& tokenizer) try {
  const TextHead head = head_of(text, tokens.size(), tokenizer);
  std::vector<std::byte> bytes(sum_at(head) + sizeof(uint64_t));
  std::memcpy(bytes.data(), &head, sizeof head);
  if (!text.empty()) std::memcpy(bytes.data() + sizeof head, text.data(), text.size());
  if (!tokens.empty()) std::memcpy(bytes.data() + tokens_at(head), tokens.data(), tokens.size_bytes());
  const uint64_t sum = checksum(std::span(bytes).first(sum_at(head)));
  std::memcpy(bytes.data() + sum_at(head), &sum, sizeof sum);
  const std::string part = path + ".part";
  {
    BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files.open(part, OpenMode::create));
    BOUGH_RETURN_IF_ERROR(file->truncate(0));
    BOUGH_RETURN_IF_ERROR(file->write(0, bytes));
  }
  return files.rename(part, path);
} catch (const std::bad_alloc&) {
  return {Code::out_of_memory, "no memory to write '" + path + "'"};
}

}  // namespace bough
