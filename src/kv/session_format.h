// The bytes of a session file: header, then chunks of a record and its pages. All numbers in the machine's byte order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kv/session_file.h"

namespace bough {

inline constexpr uint32_t kSessionVersion = 2;
inline constexpr size_t kChunkPages = 64;  // at most, of one chunk

// Everything begins at a multiple of 8: the mark of a chunk is then written as a whole or not at all.
constexpr uint64_t aligned(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

// Header: FixedHead, the four texts, zeros to a multiple of 8, checksum of all before.
struct FixedHead {
  char magic[8];  // written last, zeros until then
  uint32_t version;
  uint32_t byte_order;  // kByteOrder as the writing machine has it
  uint32_t bytes;       // of the whole header
  uint32_t page_tokens;
  uint32_t layers, kv_heads, head_dim;
  uint32_t text_bytes[4];  // kv, plan, model, label
  uint32_t zero;
  uint64_t page_bytes;
  uint64_t model_hash[2];
  uint64_t tokenizer_hash;
};
static_assert(sizeof(FixedHead) == 88);

inline constexpr char kSessionMagic[8] = {'B', 'o', 'u', 'g', 'h', 'K', 'V', '\n'};
inline constexpr uint32_t kByteOrder = 0x01020304;
inline constexpr uint32_t kMaxHeadBytes = 128 << 10;

// Record of a chunk of n pages: RecordHead, i32 tokens[64 n], u64 sums[n], checksum of all before. Its pages follow, each at a multiple of
// 64 bytes and with as many to spare behind it: they are used where they lie, and the same row of neighbours shall not always fall into
// the same sets of a cache.
struct RecordHead {
  uint64_t mark;  // kRecordMark; written last, 0 until then
  uint64_t first_page;
  uint64_t pages;
};
inline constexpr uint64_t kRecordMark = 0x6b6e7568632d766b;

constexpr size_t record_bytes(size_t pages) {
  return sizeof(RecordHead) + pages * (kPageTokens * sizeof(TokenId) + sizeof(uint64_t)) + sizeof(uint64_t);
}

constexpr uint64_t kPageAlign = 64;
constexpr uint64_t page_stride(uint64_t page_bytes) { return (page_bytes + kPageAlign - 1) / kPageAlign * kPageAlign + kPageAlign; }
// Where the pages of a chunk begin whose record is at `record`, and where it ends.
constexpr uint64_t pages_at(uint64_t record, size_t pages) {
  return (record + record_bytes(pages) + kPageAlign - 1) / kPageAlign * kPageAlign;
}
constexpr uint64_t chunk_end(uint64_t record, size_t pages, uint64_t page_bytes) {
  return pages_at(record, pages) + pages * page_stride(page_bytes);
}

// Texts are cut so that the header stays within its limit.
std::vector<std::byte> encode_header(const SessionHeader& header);
std::vector<std::byte> encode_record(uint64_t first_page, std::span<const TokenId> tokens, std::span<const uint64_t> sums);

// Whether the file is empty or a header whose writer ended before it was whole. Errors: io_error.
Result<bool> is_unfinished_header(const File& file, uint64_t size);

// Header and records of a file, all checked; errors and damage as for SessionReader::open.
Result<SessionIndex> read_session_index(const File& file, const std::string& path);

}  // namespace bough
