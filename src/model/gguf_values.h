// The values of GGUF metadata: sizes, names and in-place decoding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "model/gguf.h"

namespace bough {

// Bytes of one value. REQUIRES: a type of fixed size, not string or array.
size_t size_of(MetaType type);

// "u32", or "an array of 7 i32".
std::string describe_type(const MetaEntry& entry);

}  // namespace bough
