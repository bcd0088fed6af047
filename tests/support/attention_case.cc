#include "support/attention_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "steps/kv_row.h"

namespace bough::test {
namespace {

enum What : int64_t { kPages, kQueries, kNewKeys, kNewValues, kOrder };

void add_block(Input& input, int32_t local, int64_t r0, int64_t end, int64_t first_row) {
  const auto row = static_cast<int32_t>(input.batch.rows() + (r0 - first_row));
  input.batch.blocks.push_back({local, row, static_cast<int32_t>(end - r0), r0});
}

void append(std::vector<float>& to, const std::vector<float>& from) { to.insert(to.end(), from.begin(), from.end()); }

}  // namespace

HeadShape CaseShape::head_shape() const { return {heads, kv_heads, d, 1.0F / std::sqrt(static_cast<float>(d)), softcap}; }

std::string CaseShape::name() const {
  return std::string(name_of(type)) + " heads " + std::to_string(heads) + "/" + std::to_string(kv_heads) + " d " + std::to_string(d) +
         (layout == RopeLayout::halves ? " halves" : " interleaved") + (rotated == 0 ? "" : " rotated " + std::to_string(rotated)) +
         (softcap == 0 ? "" : " softcap " + std::to_string(softcap));
}

std::mt19937_64 random_of(uint64_t seed, int64_t sequence, int64_t what) {
  std::seed_seq words{static_cast<uint32_t>(seed), static_cast<uint32_t>(sequence), static_cast<uint32_t>(what)};
  return std::mt19937_64(words);
}

std::vector<float> normal_floats(std::mt19937_64& random, int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& y : x) y = normal(random);
  return x;
}

AttentionCase::AttentionCase(const CaseShape& shape, std::vector<SequenceSpec> sequences, uint64_t seed)
    : shape_(shape), specs_(std::move(sequences)), seed_(seed) {
  const size_t page_bytes = shape_.kv().page_bytes();
  size_t pages = 0;
  for (const SequenceSpec& s : specs_) pages += static_cast<size_t>((s.length + kPageTokens - 1) / kPageTokens);
  std::vector<size_t> order(pages);
  std::iota(order.begin(), order.end(), size_t{0});
  auto random = random_of(seed_, -1, kOrder);
  std::shuffle(order.begin(), order.end(), random);
  pool_.resize(pages * page_bytes);
  clear_pages();
  for (size_t i = 0, next = 0; i < specs_.size(); ++i) {
    std::vector<std::byte*> table;
    for (int64_t t = 0; t < specs_[i].length; t += kPageTokens) table.push_back(pool_.data() + order[next++] * page_bytes);
    tables_.push_back(std::move(table));
    fill(static_cast<int>(i));
  }
}

void AttentionCase::clear_pages() { std::fill(pool_.begin(), pool_.end(), std::byte{0xa5}); }

void AttentionCase::fill(int sequence) {
  const KvShape kv = shape_.kv();
  auto random = random_of(seed_, sequence, kPages);
  PageTable table = pages(sequence);
  for (int64_t token = 0; token < table.length; ++token) {
    for (int head = 0; head < shape_.kv_heads; ++head) {
      const std::vector<float> x = normal_floats(random, int64_t{2} * shape_.d);
      store_token(kv, table, kv.k_offset(shape_.layer, head), token, x.data());
      store_token(kv, table, kv.v_offset(shape_.layer, head), token, x.data() + shape_.d);
    }
  }
}

PageTable AttentionCase::pages(int sequence) const {
  const auto i = static_cast<size_t>(sequence);
  return {tables_[i].data(), specs_[i].length};
}

std::vector<float> AttentionCase::stored(int sequence, int64_t token, int kv_head, bool key) const {
  const KvShape kv = shape_.kv();
  const size_t plane = key ? kv.k_offset(shape_.layer, kv_head) : kv.v_offset(shape_.layer, kv_head);
  const PageTable table = pages(sequence);
  std::vector<float> x(static_cast<size_t>(shape_.d));
  load_row(table.row(token, plane, kv.row_bytes()), shape_.type, shape_.d, x.data());
  return x;
}

void AttentionCase::set_key(int sequence, int64_t token, int kv_head, std::span<const float> key) {
  const KvShape kv = shape_.kv();
  const size_t plane = kv.k_offset(shape_.layer, kv_head), mean = kv_mean_bytes(shape_.type, shape_.d);
  PageTable table = pages(sequence);
  std::fill_n(table.row(token / kPageTokens * kPageTokens, plane, kv.row_bytes()) - mean, mean, std::byte{0});
  std::byte* row = table.row(token, plane, kv.row_bytes());
  store_row(key.data(), shape_.type, shape_.d, static_cast<int>(token % kPageTokens), row);
}

Input AttentionCase::input(std::span<const int> which) const {
  Input input;
  for (const int sequence : which) add_sequence(sequence, input);
  return input;
}

Input AttentionCase::input() const {
  std::vector<int> all(specs_.size());
  std::iota(all.begin(), all.end(), 0);
  return input(all);
}

Input AttentionCase::alone(int sequence) const { return input(std::span(&sequence, 1)); }

void AttentionCase::add_sequence(int sequence, Input& input) const {
  const SequenceSpec& s = specs_[static_cast<size_t>(sequence)];
  Batch& batch = input.batch;
  const auto local = static_cast<int32_t>(batch.sequences.size());
  batch.sequences.push_back(pages(sequence));
  const int64_t tail = s.length - s.tail;
  for (int64_t r0 = s.first_row; r0 < s.length;) {
    const int64_t end = r0 >= tail ? r0 + 1 : std::min(tail, (r0 / s.block + 1) * s.block);
    add_block(input, local, r0, end, s.first_row);
    r0 = end;
  }
  batch.decode_rows += s.decode ? 1 : 0;
  for (int64_t position = s.first_row; position < s.length; ++position) {
    batch.ids.push_back(0);
    batch.positions.push_back(position);
    batch.row_seq.push_back(local);
  }
  const int64_t rows = s.length - s.first_row;
  auto queries = random_of(seed_, sequence, kQueries);
  auto keys = random_of(seed_, sequence, kNewKeys);
  auto values = random_of(seed_, sequence, kNewValues);
  append(input.q, normal_floats(queries, rows * shape_.heads * shape_.d));
  append(input.k, normal_floats(keys, rows * shape_.kv_heads * shape_.d));
  append(input.v, normal_floats(values, rows * shape_.kv_heads * shape_.d));
}

RopeTable AttentionCase::rope(int64_t positions, double base) const {
  const int dims = shape_.rotated_dims();
  RopeParams params{shape_.layout, dims, {}, shape_.magnitude};
  for (int i = 0; i < dims / 2; ++i) params.frequencies.push_back(base == 0 ? 0 : std::pow(base, -2.0 * i / dims));
  RopeTable table(std::move(params));
  table.reserve(positions);
  return table;
}

BlockList Lists::view() const { return {w0.data(), start.data(), count.data(), spec.list_heads, capacity, spec.chunk, spec.sinks}; }

Lists random_lists(const Batch& batch, const ListSpec& spec, uint64_t seed) {
  Lists lists;
  lists.spec = spec;
  lists.capacity = spec.most + 3;
  for (const QueryBlock& block : batch.blocks) {
    const int64_t w0 = spec.sliding > 0 ? std::max<int64_t>(0, block.r0 + 1 - spec.sliding)
                       : spec.dense     ? 0
                                        : window_start(block.r0, block.r1(), spec.sinks, spec.window, spec.chunk);
    const int64_t chunks = spec.dense || spec.sliding > 0 ? 0 : std::max<int64_t>(0, (w0 - spec.sinks) / spec.chunk);
    const int64_t count = std::min(chunks, spec.most);
    lists.w0.push_back(w0);
    lists.count.push_back(static_cast<int32_t>(count));
    for (int head = 0; head < spec.list_heads; ++head) {
      std::vector<int32_t> all(static_cast<size_t>(chunks));
      for (size_t j = 0; j < all.size(); ++j) all[j] = static_cast<int32_t>(spec.sinks + static_cast<int64_t>(j) * spec.chunk);
      auto random = random_of(seed, block.r0, head);
      std::shuffle(all.begin(), all.end(), random);
      all.resize(static_cast<size_t>(count));
      std::sort(all.begin(), all.end());
      all.resize(static_cast<size_t>(lists.capacity), -1);
      lists.start.insert(lists.start.end(), all.begin(), all.end());
    }
  }
  return lists;
}

std::vector<double> turned(std::span<const float> x, double scale, int64_t position, const CaseShape& shape) {
  const auto dims = static_cast<size_t>(shape.rotated_dims());
  std::vector<double> y(x.begin(), x.end());
  for (double& e : y) e *= scale;
  scale *= shape.magnitude;
  for (size_t i = 0; i < dims / 2; ++i) {
    const double angle = static_cast<double>(position) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(dims));
    const size_t a = shape.layout == RopeLayout::interleaved ? 2 * i : i;
    const size_t b = shape.layout == RopeLayout::interleaved ? 2 * i + 1 : i + dims / 2;
    y[a] = scale * (x[a] * std::cos(angle) - x[b] * std::sin(angle));
    y[b] = scale * (x[a] * std::sin(angle) + x[b] * std::cos(angle));
  }
  if (shape.type != DType::f32) {
    for (double& e : y) e = rounded(static_cast<float>(e), shape.type);
  }
  return y;
}

Exact textbook(const AttentionCase& c, int sequence, std::span<const float> q, int kv_head, std::span<const int64_t> tokens,
               int64_t first) {
  const CaseShape& shape = c.shape();
  const auto query = turned(q, shape.head_shape().scale, first + static_cast<int64_t>(tokens.size()) - 1, shape);
  std::vector<double> scores;
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const auto key = turned(c.key(sequence, tokens[rank], kv_head), 1.0, first + static_cast<int64_t>(rank), shape);
    const double s = std::inner_product(key.begin(), key.end(), query.begin(), 0.0);
    scores.push_back(shape.softcap > 0 ? shape.softcap * std::tanh(s / shape.softcap) : s);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  std::vector<double> o(static_cast<size_t>(shape.d));
  Exact exact;
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const double p = std::exp(scores[rank] - top);
    const auto value = c.value(sequence, tokens[rank], kv_head);
    sum += p;
    exact.p.push_back(p);
    for (size_t i = 0; i < o.size(); ++i) o[i] += p * value[i];
  }
  for (double& p : exact.p) p /= sum;
  for (const double x : o) exact.o.push_back(static_cast<float>(x / sum));
  exact.lse = top + std::log(sum);
  return exact;
}

std::vector<float> Exact::mass(int keys, int64_t size) const {
  std::vector<float> sums(static_cast<size_t>((size + keys - 1) / keys));
  for (size_t rank = 0; rank < p.size(); ++rank) sums[rank / static_cast<size_t>(keys)] += static_cast<float>(p[rank]);
  return sums;
}

double relative_error(std::span<const float> a, std::span<const float> b) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  if (difference == 0) return 0;
  return std::sqrt(difference / norm);
}

double worst_row(std::span<const float> a, std::span<const float> b, int d) {
  double worst = 0;
  for (size_t at = 0; at < b.size(); at += static_cast<size_t>(d)) {
    const auto n = static_cast<size_t>(d);
    worst = std::max(worst, relative_error(a.subspan(at, n), b.subspan(at, n)));
  }
  return worst;
}

double absolute_error(std::span<const float> a, std::span<const float> b) {
  double worst = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    if (a[i] == b[i]) continue;
    const double e = std::abs(double{a[i]} - b[i]);
    worst = std::isnan(e) ? std::numeric_limits<double>::infinity() : std::max(worst, e);
  }
  return worst;
}

bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

std::vector<BodyCase> body_cases() {
  std::vector<BodyCase> cases;
  for (const AttentionBodies& body : attention_bodies()) {
    for (const DType type : kAllDTypes) {
      if (pick_attention_bodies(type, body.name) != nullptr) cases.push_back({std::string(body.name), type});
    }
  }
  return cases;
}

void PrintTo(const BodyCase& c, std::ostream* out) { *out << c.body << ", KV " << name_of(c.type); }

std::string body_case_name(const testing::TestParamInfo<BodyCase>& info) { return info.param.body + "_kv_" + name_of(info.param.type); }

std::vector<std::string> body_names() {
  std::vector<std::string> names;
  for (const AttentionBodies& body : attention_bodies()) names.emplace_back(body.name);
  return names;
}

const AttentionBodies& body_named(const std::string& name) { return *pick_attention_bodies(DType::bf16, name); }

double attend_tolerance(const BodyCase& c) {
  if (c.type == DType::f32) return 1e-5;
  return c.body.ends_with("_bf16") ? 1e-2 : 1e-3;  // a turned key may round the other way; weights rounded to bf16 on top
}

}  // namespace bough::test
