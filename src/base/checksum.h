// Checksums of bytes that were written and are read again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bough {

// XXH3, 64 bits: for damage and chance, not against an adversary.
uint64_t checksum(std::span<const std::byte> bytes, uint64_t seed = 0);

}  // namespace bough
