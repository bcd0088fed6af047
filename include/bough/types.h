// Small types shared by every public header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bough {

using TokenId = int32_t;

// Element types. Matrix products are made in f32 or bf16; the KV cache may be of any type, of 32, 16, 8.5 and 4.5 bits an element.
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

// Elements that share a scale in the quantised types.
inline constexpr int kQuantGroup = 32;

// Bytes of `count` elements that follow one another; the quantised types keep a scale of two bytes for each group of 32 of them.
constexpr size_t bytes_of(DType type, size_t count) {
  const size_t scales = (count + kQuantGroup - 1) / kQuantGroup * 2;
  switch (type) {
    case DType::f32: return count * 4;
    case DType::bf16: return count * 2;
    case DType::i8: return count + scales;
    case DType::i4: return (count + 1) / 2 + scales;
  }
  return 0;
}

}  // namespace bough
