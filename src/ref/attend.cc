#include "steps/attend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ref/ref_bodies.h"
#include "steps/kv_row.h"

namespace bough::ref {
namespace {

// Key of one rank, rotated and rounded once.
std::vector<float> rotated_key(const AttendArgs& a, const PageTable& pages, const ContextPositions& positions, int kv_head, int64_t token,
                               int64_t rank) {
  const int d = a.heads.head_dim;
  std::vector<float> cos(static_cast<size_t>(a.rope->pairs()));
  std::vector<float> sin(cos.size());
  positions.angles(*a.rope, rank, cos.data(), sin.data());
  const std::byte* stored = pages.row(token, a.kv.k_offset(a.layer, kv_head), a.kv.row_bytes());
  std::vector<float> key(static_cast<size_t>(d));
  load_row(stored, a.kv.type, d, key.data());
  rope_row(key.data(), cos.data(), sin.data(), a.rope->params(), d, key.data());
  for (float& x : key) x = rounded(x, a.kv.type);
  return key;
}

struct Row {
  std::vector<float> q;
  float m = -std::numeric_limits<float>::infinity();
  float l = 0;
  std::vector<float> o;
  std::vector<float> scores;  // of the keys seen
};

void see(Row& row, const std::vector<float>& key, const std::vector<float>& value, float softcap) {
  float s = 0;
  for (size_t i = 0; i < key.size(); ++i) s += row.q[i] * key[i];
  if (softcap > 0) s = softcap * std::tanh(s / softcap);
  const float m = std::max(row.m, s);
  const float alpha = std::exp(row.m - m);
  const float p = std::exp(s - m);
  row.l = row.l * alpha + p;
  for (size_t i = 0; i < key.size(); ++i) row.o[i] = row.o[i] * alpha + p * value[i];
  row.m = m;
  row.scores.push_back(s);
}

// own: the rank of the row itself, the last one that it sees.
void write_mass(const Mass& mass, const Row& row, int64_t size, int64_t own, float lse, float* out) {
  std::fill_n(out, mass.groups(size), 0.0F);
  int64_t rank = own + 1 - static_cast<int64_t>(row.scores.size());
  for (const float score : row.scores) out[rank++ / mass.keys] += std::exp(score - lse);
}

void attend_head(const AttendArgs& a, int64_t index, int head) {
  const QueryBlock& block = a.batch->blocks[static_cast<size_t>(index)];
  const PageTable& pages = a.batch->sequences[static_cast<size_t>(block.seq)];
  const int kv_head = head / a.heads.group();
  const int d = a.heads.head_dim;
  const Context context = context_of(a.lists, block, index, kv_head);
  const ContextPositions positions(a.positions, context, block.r0);
  std::vector<Row> rows(static_cast<size_t>(block.rows));
  for (int i = 0; i < block.rows; ++i) {
    Row& row = rows[static_cast<size_t>(i)];
    const float* q = a.q + (static_cast<int64_t>(block.row + i) * a.heads.heads + head) * d;
    const int64_t position = positions.query(block.r0 + i);
    row.q.assign(q, q + d);
    row.o.assign(static_cast<size_t>(d), 0.0F);
    for (float& x : row.q) x *= a.heads.scale;
    rope_row(row.q.data(), a.rope->cos_row(position), a.rope->sin_row(position), a.rope->params(), d, row.q.data());
    for (float& x : row.q) x = rounded(x, a.kv.type);
  }
  for (int64_t rank = 0; rank < context.size(); ++rank) {
    const int64_t token = context.token(rank);
    const std::vector<float> key = rotated_key(a, pages, positions, kv_head, token, rank);
    std::vector<float> value(static_cast<size_t>(d));
    load_row(pages.row(token, a.kv.v_offset(a.layer, kv_head), a.kv.row_bytes()), a.kv.type, d, value.data());
    for (int i = 0; i < block.rows; ++i) {
      const int64_t own = context.size() - block.rows + i;
      if (rank > own || (a.window > 0 && rank <= own - a.window)) continue;
      see(rows[static_cast<size_t>(i)], key, value, a.heads.softcap);
    }
  }
  for (int i = 0; i < block.rows; ++i) {
    const Row& row = rows[static_cast<size_t>(i)];
    float* o = a.o + (static_cast<int64_t>(block.row + i) * a.heads.heads + head) * d;
    for (int e = 0; e < d; ++e) o[e] = row.l > 0 ? row.o[static_cast<size_t>(e)] / row.l : 0.0F;
    const float lse = row.m + std::log(row.l);
    if (a.lse != nullptr) a.lse[static_cast<int64_t>(block.row + i) * a.heads.heads + head] = lse;
    if (a.mass == nullptr || a.mass->rows[block.row + i] == nullptr) continue;
    const int64_t own = context.size() - block.rows + i;
    write_mass(*a.mass, row, context.size(), own, lse, a.mass->rows[block.row + i] + head * a.mass->groups(context.size()));
  }
}

}  // namespace

void attend(const AttendArgs& a) {
  for (int64_t b = a.first_block; b < static_cast<int64_t>(a.batch->blocks.size()); ++b) {
    for (int head = 0; head < a.heads.heads; ++head) attend_head(a, b, head);
  }
}

}  // namespace bough::ref
