// What every body of PagedAttention asks of a shape, on a GPU or a CPU.
#pragma once

#include <string>

#include "bough/paged_attention.h"

namespace bough {

// invalid_argument "<field> is <value>, it must be <limit>".
Status must_be(const std::string& field, int64_t value, const std::string& limit);

// Heads, head dim, windows, scales and RoPE; not the types nor the pages.
Status check_paged_shape(const PagedShape& shape);

// A length of a text whose keys come rotated: they cannot be re-assigned, so it ends with the trained context.
Status check_rotated_length(const std::string& field, int64_t length, const PagedShape& shape);

}  // namespace bough
