// linear: y = x W^T + bias, or that added to y, for one matrix or several at once. A row's result depends on the phase, N and K only and,
// in decode, on whether `packed` has room for W, which is settled when W is first asked for; never on the other rows or matrices of a call.
#pragma once

#include <cmath>

#include "steps/tensor.h"

namespace bough {

// prefill: in 8 bits (below) where W's type is a quantised one and the CPU has 8-bit dot products, unless `precise` or the CPU has AMX,
// whose bf16 products are as fast; else W is dequantised and multiplied in bf16 (f32 where W is f32 or the CPU lacks bf16). decode: dot
// products with x rounded to 8 bits in blocks of 32: of Q4_0, Q4_1 and Q8_0 over weights that are laid out anew in `packed`, where that has
// room and the CPU the instructions; else straight on the file's rows, x rounded as ggml's dot product for their type wants it.
enum class Phase : uint8_t { prefill, decode };

class PackedWeights;

struct LinearArgs {
  const float* x = nullptr;  // [t, w.cols]
  int64_t rows = 0;          // t
  Tensor w;                  // [n, k]
  Phase phase = Phase::prefill;
  bool add = false;
  float* y = nullptr;               // [t, w.rows]
  PackedWeights* packed = nullptr;  // where weights are kept in the form of each phase; outlives the call, may be null
  const float* bias = nullptr;      // [n] or null
  bool precise = false;             // prefill: not in 8 bits. All calls with the same W and `packed` say the same.
};

// The product in 8 bits. Rows of x and of the dequantised W are cut into groups of kInt8Group elements; the last may be of 32. A group is
// turned by a Hadamard matrix, which leaves products as they are and spreads over the group what is large in few elements: for h = 1, 2, 4
// ... below its size (x[i], x[i + h]) becomes (x[i] + x[i + h], x[i] - x[i + h]) for all i without bit h; then all times int8_turn_factor.
// Its codes are x * (kInt8Top / m) rounded to even, m the largest magnitude in it, or 0 where m is below kInt8Least; its scale is
// m / kInt8Top. Products of codes are summed exactly within a group, groups in f32 in their order. A NaN or an infinity makes the whole row
// NaN. REQUIRES: K a multiple of 32, as quantised types have it.
inline constexpr int64_t kInt8Group = 64;
inline constexpr float kInt8Top = 127.0F;
inline constexpr float kInt8Least = 1e-30F;
inline float int8_turn_factor(int64_t size) { return 1.0F / std::sqrt(static_cast<float>(size)); }

}  // namespace bough
