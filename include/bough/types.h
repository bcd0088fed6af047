// Small types shared by every public header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bough {

using TokenId = int32_t;

// Element types. Matrix products are made in f32 or bf16; the KV cache may be of any type.
enum class DType : uint8_t { f32, bf16, i8, i4 };

inline constexpr DType kAllDTypes[] = {DType::f32, DType::bf16, DType::i8, DType::i4};

constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i8: return "int8";
    case DType::i4: return "int4";
  }
  return "unknown";
}

// Elements that share a scale in a quantised type.
constexpr int quant_group(DType type) { return type == DType::i4 ? 16 : 32; }

// Tokens of a page of the KV cache.
inline constexpr int kPageTokens = 64;

// Bytes of a row of the KV cache, a key or a value of one token and head: its elements, in the quantised types a scale of two bytes for
// each group of 32 of them, 16 in int4, and there the row's place in its page.
constexpr size_t kv_row_bytes(DType type, int head_dim) {
  const auto count = static_cast<size_t>(head_dim);
  const auto group = static_cast<size_t>(quant_group(type));
  const size_t scales = (count + group - 1) / group * 2;
  switch (type) {
    case DType::f32: return count * 4;
    case DType::bf16: return count * 2;
    case DType::i8: return count + scales;
    case DType::i4: return (count + 1) / 2 + scales + 1;
  }
  return 0;
}

// Bytes that a page keeps for all its rows of a head: in int4 the mean that they are stored relative to.
constexpr size_t kv_mean_bytes(DType type, int head_dim) { return type == DType::i4 ? static_cast<size_t>(head_dim) * 2 : 0; }

// Bytes of the keys, or of the values, of a page and head.
constexpr size_t kv_head_bytes(DType type, int head_dim) {
  return kv_mean_bytes(type, head_dim) + kv_row_bytes(type, head_dim) * kPageTokens;
}

}  // namespace bough
