// Small types shared by every public header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bough {

using TokenId = int32_t;

// Element types of the KV cache and of matrix products.
enum class DType : uint8_t { f32, bf16 };

constexpr size_t size_of(DType type) { return type == DType::f32 ? 4 : 2; }
constexpr const char* name_of(DType type) { return type == DType::f32 ? "f32" : "bf16"; }

}  // namespace bough
