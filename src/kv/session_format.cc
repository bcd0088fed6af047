#include "kv/session_format.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"
#include "base/checksum.h"

namespace bough {
namespace {

Status corrupt(const std::string& path, const std::string& why) { return {Code::corrupt, "'" + path + "' " + why}; }

template <typename T>
void put(std::vector<std::byte>& out, const T* values, size_t count) {
  const size_t at = out.size();
  out.resize(at + count * sizeof(T));
  if (count > 0) std::memcpy(out.data() + at, values, count * sizeof(T));
}

void put_checksum(std::vector<std::byte>& out) {
  const uint64_t sum = checksum(out);
  put(out, &sum, 1);
}

bool checksum_holds(std::span<const std::byte> bytes) {
  uint64_t sum = 0;
  const size_t body = bytes.size() - sizeof sum;
  std::memcpy(&sum, bytes.data() + body, sizeof sum);
  return checksum(bytes.first(body)) == sum;
}

Result<FixedHead> read_fixed_head(const File& file, uint64_t size, const std::string& path) {
  FixedHead head{};
  if (size >= sizeof head.magic) BOUGH_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(head.magic))));
  if (std::memcmp(head.magic, kSessionMagic, sizeof head.magic) != 0) return corrupt(path, "is not a session file");
  if (size < sizeof head) return corrupt(path, "is truncated: its header ends at byte " + std::to_string(size));
  BOUGH_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(&head, 1))));
  if (head.byte_order != kByteOrder) {
    if (head.byte_order == __builtin_bswap32(kByteOrder)) {
      return Status(Code::unsupported, "'" + path + "' was written on a machine of the other byte order");
    }
    return corrupt(path, "has a damaged header");
  }
  if (head.version != kSessionVersion) {
    return Status(Code::unsupported, "'" + path + "' has format " + std::to_string(head.version) + ", this program reads format " +
                                         std::to_string(kSessionVersion));
  }
  return head;
}

Result<SessionHeader> read_header(const File& file, uint64_t size, const std::string& path, uint64_t* end) {
  BOUGH_ASSIGN_OR_RETURN(const FixedHead head, read_fixed_head(file, size, path));
  uint64_t expected = sizeof head;
  for (const uint32_t bytes : head.text_bytes) expected += bytes;
  expected = aligned(expected) + sizeof(uint64_t);
  if (head.bytes != expected || head.bytes > kMaxHeadBytes) return corrupt(path, "has a damaged header");
  if (size < head.bytes) return corrupt(path, "is truncated: its header ends at byte " + std::to_string(size));
  std::vector<std::byte> bytes(head.bytes);
  BOUGH_RETURN_IF_ERROR(file.read(0, bytes));
  if (!checksum_holds(bytes)) return corrupt(path, "has a damaged header");
  SessionHeader header;
  header.layers = head.layers;
  header.kv_heads = head.kv_heads;
  header.head_dim = head.head_dim;
  header.page_bytes = head.page_bytes;
  header.model_hash = {head.model_hash[0], head.model_hash[1]};
  header.tokenizer_hash = head.tokenizer_hash;
  if (head.page_tokens != kPageTokens || head.page_bytes == 0 || head.page_bytes > uint64_t{1} << 40) {
    return corrupt(path, "has pages of " + std::to_string(head.page_tokens) + " tokens and " + std::to_string(head.page_bytes) +
                             " bytes, which this program does not know");
  }
  const auto* at = reinterpret_cast<const char*>(bytes.data()) + sizeof head;
  std::string* texts[] = {&header.kv, &header.plan, &header.model, &header.label};
  for (size_t i = 0; i < 4; ++i) {
    texts[i]->assign(at, head.text_bytes[i]);
    at += head.text_bytes[i];
  }
  *end = head.bytes;
  return header;
}

void take_record(std::span<const std::byte> record, size_t pages, SessionIndex& index) {
  const std::byte* tokens = record.data() + sizeof(RecordHead);
  const std::byte* sums = tokens + pages * kPageTokens * sizeof(TokenId);
  const uint64_t page_bytes = index.header.page_bytes;
  const uint64_t data = pages_at(index.end, pages);
  const size_t held = index.tokens.size();
  index.tokens.resize(held + pages * kPageTokens);
  std::memcpy(index.tokens.data() + held, tokens, pages * kPageTokens * sizeof(TokenId));
  for (size_t i = 0; i < pages; ++i) {
    uint64_t sum = 0;
    std::memcpy(&sum, sums + i * sizeof sum, sizeof sum);
    index.pages.push_back({data + i * page_stride(page_bytes), sum});
  }
  index.end = chunk_end(index.end, pages, page_bytes);
}

// Reads the record at index.end into the index. False where no chunk follows; why, if not because there is none, in index.damage.
Result<bool> read_record(const File& file, const std::string& path, SessionIndex& index) {
  const auto ends = [&](Status damage) {
    index.damage = std::move(damage);
    return false;
  };
  const std::string where = std::to_string(index.end);
  BOUGH_ASSIGN_OR_RETURN(uint64_t size, file.size());
  RecordHead head{};
  if (size < index.end + sizeof head.mark) return false;
  BOUGH_RETURN_IF_ERROR(file.read(index.end, std::as_writable_bytes(std::span(&head.mark, 1))));
  if (head.mark == 0 && size <= chunk_end(index.end, kChunkPages, index.header.page_bytes)) return false;
  if (head.mark != kRecordMark) return ends(corrupt(path, "is damaged: no chunk begins at byte " + where));
  BOUGH_ASSIGN_OR_RETURN(size, file.size());  // another process may be adding to it
  const auto truncated = [&] {
    return corrupt(path, "is truncated: the chunk at byte " + where + " is not whole, the file ends at byte " + std::to_string(size));
  };
  if (size < index.end + sizeof head) return ends(truncated());
  BOUGH_RETURN_IF_ERROR(file.read(index.end, std::as_writable_bytes(std::span(&head, 1))));
  if (head.first_page != index.pages.size() || head.pages == 0 || head.pages > kChunkPages) {
    return ends(corrupt(path, "is damaged: the chunk at byte " + where + " is not the next one"));
  }
  const auto pages = static_cast<size_t>(head.pages);
  if (size < chunk_end(index.end, pages, index.header.page_bytes)) return ends(truncated());
  std::vector<std::byte> bytes(record_bytes(pages));
  BOUGH_RETURN_IF_ERROR(file.read(index.end, bytes));
  if (!checksum_holds(bytes))
    return ends(corrupt(path, "is damaged: the index of the chunk at byte " + where + " is not what was written"));
  take_record(bytes, pages, index);
  return true;
}

}  // namespace

std::vector<std::byte> encode_header(const SessionHeader& header) {
  FixedHead head{};
  std::memcpy(head.magic, kSessionMagic, sizeof head.magic);
  head.version = kSessionVersion;
  head.byte_order = kByteOrder;
  head.page_tokens = kPageTokens;
  head.layers = header.layers;
  head.kv_heads = header.kv_heads;
  head.head_dim = header.head_dim;
  head.page_bytes = header.page_bytes;
  std::copy(header.model_hash.begin(), header.model_hash.end(), head.model_hash);
  head.tokenizer_hash = header.tokenizer_hash;
  uint64_t bytes = sizeof head;
  const std::string* texts[] = {&header.kv, &header.plan, &header.model, &header.label};
  constexpr size_t most = kMaxHeadBytes / 4 - sizeof head;
  for (size_t i = 0; i < 4; ++i) {
    head.text_bytes[i] = static_cast<uint32_t>(std::min(texts[i]->size(), most));
    bytes += head.text_bytes[i];
  }
  head.bytes = static_cast<uint32_t>(aligned(bytes) + sizeof(uint64_t));
  std::vector<std::byte> out;
  out.reserve(head.bytes);
  put(out, &head, 1);
  for (size_t i = 0; i < 4; ++i) put(out, texts[i]->data(), head.text_bytes[i]);
  out.resize(aligned(bytes));
  put_checksum(out);
  return out;
}

std::vector<std::byte> encode_record(uint64_t first_page, std::span<const TokenId> tokens, std::span<const uint64_t> sums) {
  const RecordHead head{kRecordMark, first_page, sums.size()};
  std::vector<std::byte> out;
  out.reserve(record_bytes(sums.size()));
  put(out, &head, 1);
  put(out, tokens.data(), tokens.size());
  put(out, sums.data(), sums.size());
  put_checksum(out);
  return out;
}

Result<bool> is_unfinished_header(const File& file, uint64_t size) {
  if (size == 0) return true;
  FixedHead head{};
  if (size > kMaxHeadBytes) return false;
  BOUGH_RETURN_IF_ERROR(file.read(0, std::as_writable_bytes(std::span(&head, 1)).first(std::min<uint64_t>(size, sizeof head))));
  const char none[sizeof head.magic] = {};
  return std::memcmp(head.magic, none, sizeof none) == 0 && (head.byte_order == kByteOrder || head.byte_order == 0);
}

Result<SessionIndex> read_session_index(const File& file, const std::string& path) try {
  SessionIndex index;
  BOUGH_ASSIGN_OR_RETURN(const uint64_t size, file.size());
  BOUGH_ASSIGN_OR_RETURN(index.header, read_header(file, size, path, &index.end));
  while (true) {
    BOUGH_ASSIGN_OR_RETURN(const bool whole, read_record(file, path, index));
    if (!whole) return index;
  }
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory for the index of '" + path + "'");
}

}  // namespace bough
