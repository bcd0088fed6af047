#include "steps/attend_cached.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "ref/ref_bodies.h"
#include "steps/kv_row.h"

namespace bough::ref {
namespace {

// Tiles are plain f32, K and V alike [32][d].
float* key_row(const WorkingSet& set, int head, int64_t rank, int d) {
  return reinterpret_cast<float*>(set.k_tile(head, rank / 32)) + rank % 32 * d;
}
float* value_row(const WorkingSet& set, int head, int64_t rank, int d) {
  return reinterpret_cast<float*>(set.v_tile(head, rank / 32)) + rank % 32 * d;
}

}  // namespace

bool working_set_reserve(const KvShape& shape, int64_t keys, WorkingSet& set) {
  return grow_working_set(shape.kv_heads, static_cast<size_t>(shape.head_dim) * 32 * sizeof(float), keys, set);
}

void working_set_build(const WorkingSetArgs& a) {
  const int d = a.kv.head_dim;
  for (int head = 0; head < a.kv.kv_heads; ++head) {
    const Context& context = a.contexts[a.list_heads == 1 ? 0 : head];
    const ContextPositions positions(a.positions, context, context.r1 - 1);
    std::vector<float> cos(static_cast<size_t>(a.rope->pairs()));
    std::vector<float> sin(cos.size());
    for (int64_t rank = a.from; rank < context.size(); ++rank) {
      const int64_t token = context.token(rank);
      const std::byte* k = a.pages->row(token, a.kv.k_offset(a.layer, head), a.kv.row_bytes());
      const std::byte* v = a.pages->row(token, a.kv.v_offset(a.layer, head), a.kv.row_bytes());
      float* key = key_row(*a.set, head, rank, d);
      float* value = value_row(*a.set, head, rank, d);
      load_row(k, a.kv.type, d, key);
      load_row(v, a.kv.type, d, value);
      positions.angles(*a.rope, rank, cos.data(), sin.data());
      rope_row(key, cos.data(), sin.data(), a.rope->params(), d, key);
      for (int i = 0; i < d; ++i) key[i] = rounded(key[i], a.kv.type);
    }
    a.set->size = context.size();
    a.set->query = positions.query(context.r1 - 1);
  }
}

void attend_cached(const AttendCachedArgs& a) {
  const int d = a.heads.head_dim;
  for (int row = 0; row < a.batch->decode_rows; ++row) {
    const WorkingSet& set = *a.sets[row];
    for (int head = 0; head < a.heads.heads; ++head) {
      const int64_t offset = (static_cast<int64_t>(row) * a.heads.heads + head) * d;
      std::vector<float> q(a.q + offset, a.q + offset + d);
      for (float& x : q) x *= a.heads.scale;
      rope_row(q.data(), a.rope->cos_row(set.query), a.rope->sin_row(set.query), a.rope->params(), d, q.data());
      for (float& x : q) x = rounded(x, a.kv.type);
      const int64_t first = a.window > 0 ? std::max<int64_t>(0, set.size - a.window) : 0;
      std::vector<float> scores(static_cast<size_t>(set.size));
      float top = -std::numeric_limits<float>::infinity();
      for (int64_t rank = first; rank < set.size; ++rank) {
        const float* key = key_row(set, head / a.heads.group(), rank, d);
        float s = 0;
        for (int i = 0; i < d; ++i) s += q[static_cast<size_t>(i)] * key[i];
        if (a.heads.softcap > 0) s = a.heads.softcap * std::tanh(s / a.heads.softcap);
        scores[static_cast<size_t>(rank)] = s;
        top = std::max(top, s);
      }
      float sum = 0;
      std::vector<float> o(static_cast<size_t>(d));
      for (int64_t rank = first; rank < set.size; ++rank) {
        const float p = std::exp(scores[static_cast<size_t>(rank)] - top);
        const float* value = value_row(set, head / a.heads.group(), rank, d);
        sum += p;
        for (int i = 0; i < d; ++i) o[static_cast<size_t>(i)] += p * value[i];
      }
      for (int i = 0; i < d; ++i) a.o[offset + i] = o[static_cast<size_t>(i)] / sum;
      if (a.mass == nullptr || a.mass->rows[row] == nullptr) continue;
      float* mass = a.mass->rows[row] + head * a.mass->groups(set.size);
      std::fill_n(mass, a.mass->groups(set.size), 0.0F);
      for (int64_t rank = first; rank < set.size; ++rank)
        mass[rank / a.mass->keys] += std::exp(scores[static_cast<size_t>(rank)] - top) / sum;
    }
  }
}

}  // namespace bough::ref
