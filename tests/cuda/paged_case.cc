#include "cuda/paged_case.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "cuda/elements.h"

namespace bough::test {
namespace {

enum class What : uint64_t { keys, values, queries, key_scales, value_scales, sink_logits };

// What every generated number hangs on.
class Numbers {
 public:
  Numbers(uint64_t seed, int64_t text, What what)
      : state_(mixed(mixed(seed) ^ mixed(static_cast<uint64_t>(text) * 16 + static_cast<uint64_t>(what)))) {}

  uint64_t bits(int64_t place) const { return mixed(state_ + static_cast<uint64_t>(place) * 0x9e3779b97f4a7c15ULL); }
  // Nearly normal, of unit variance.
  float normal(int64_t place) const {
    const uint64_t x = bits(place);
    const auto sum = static_cast<float>((x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48));
    return (sum / 65536.0F - 2.0F) * 1.7320508F;
  }
  // From 0 to 1.
  float uniform(int64_t place) const { return static_cast<float>(bits(place) >> 40) * 0x1p-24F; }

 private:
  static uint64_t mixed(uint64_t x) {
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
  }

  uint64_t state_;
};

}  // namespace

std::ostream& operator<<(std::ostream& out, const PagedSpec& spec) { return out << spec.name; }

std::string spec_name(const testing::TestParamInfo<PagedSpec>& info) { return info.param.name; }

PagedShape shape_of(int heads, int kv_heads, int head_dim, ElementType q, ElementType kv) {
  PagedShape shape;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  shape.q_type = q;
  shape.kv_type = kv;
  shape.trained_context = 4096;
  set_rope(shape, head_dim, RopePairs::halves);
  return shape;
}

void set_rope(PagedShape& shape, int dims, RopePairs pairs, double magnitude) {
  shape.rope.pairs = pairs;
  shape.rope.magnitude = magnitude;
  shape.rope.frequencies.clear();
  for (int i = 0; i < dims / 2; ++i) shape.rope.frequencies.push_back(std::pow(10000.0, -2.0 * i / dims));
}

AttentionPlan stages_plan(int64_t sinks, int64_t window, std::vector<StagePlan> stages, int64_t k) {
  AttentionPlan plan;
  plan.mode = Mode::stages;
  plan.sinks = sinks;
  plan.window = window;
  plan.k = k;
  for (size_t left = stages.size(); left > 0; --left) plan.refresh.push_back(1 << left);
  plan.stages = std::move(stages);
  return plan;
}

AttentionPlan tree_plan(int64_t sinks, int64_t window, TreePlan tree) {
  AttentionPlan plan;
  plan.mode = Mode::hip;
  plan.sinks = sinks;
  plan.window = window;
  tree.refresh = 4;
  plan.tree = tree;
  return plan;
}

AttentionPlan small_plan() { return stages_plan(64, 128, {{64, 0, 64, 4}, {16, 1024, 64, 4}, {8, 512, 64, 1}}, 256); }

int64_t rows_of(std::span<const Part> parts) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  return rows;
}

PagedCase::PagedCase(PagedSpec spec, int64_t growth) : spec_(std::move(spec)), growth_(growth) {
  for (size_t i = 0; i < spec_.texts.size(); ++i) {
    keys_.push_back(stored_rows(true, static_cast<int>(i)));
    values_.push_back(stored_rows(false, static_cast<int>(i)));
  }
}

float PagedCase::scale() const { return shape().scale != 0 ? shape().scale : 1.0F / std::sqrt(static_cast<float>(shape().head_dim)); }

std::vector<Part> PagedCase::parts() const {
  std::vector<Part> parts;
  for (size_t i = 0; i < spec_.texts.size(); ++i) parts.push_back({static_cast<int>(i), spec_.texts[i].length, spec_.texts[i].rows});
  return parts;
}

PagedLimits PagedCase::limits() const {
  PagedLimits limits;
  limits.rows = std::max<int64_t>(rows_of(parts()), static_cast<int64_t>(spec_.texts.size())) + growth_;
  limits.sequences = static_cast<int>(spec_.texts.size());
  for (size_t i = 0; i < spec_.texts.size(); ++i) limits.length = std::max(limits.length, capacity(static_cast<int>(i)));
  return limits;
}

std::vector<std::byte> PagedCase::stored_rows(bool key, int text) const {
  const Numbers numbers(spec_.seed, text, key ? What::keys : What::values);
  const ElementType type = shape().kv_type;
  const auto d = static_cast<size_t>(shape().head_dim), heads = static_cast<size_t>(shape().kv_heads);
  const auto rows = static_cast<size_t>(capacity(text)) * heads;
  std::vector<std::byte> stored(rows * d * element_bytes(type));
  for (size_t r = 0; r < rows; ++r) {
    const float scale = stored_scale(key, text, static_cast<int64_t>(r / heads), static_cast<int>(r % heads));
    for (size_t i = r * d; i < (r + 1) * d; ++i) store(type, stored.data(), i, numbers.normal(static_cast<int64_t>(i)) / scale);
  }
  return stored;
}

std::span<const std::byte> PagedCase::stored(bool key, int text, int64_t token, int head) const {
  const std::vector<std::byte>& all = (key ? keys_ : values_)[static_cast<size_t>(text)];
  const size_t bytes = static_cast<size_t>(shape().head_dim) * element_bytes(shape().kv_type);
  return std::span(all).subspan(static_cast<size_t>(token * shape().kv_heads + head) * bytes, bytes);
}

float PagedCase::stored_scale(bool key, int text, int64_t token, int head) const {
  const Numbers numbers(spec_.seed, text, key ? What::key_scales : What::value_scales);
  const int64_t place = token * shape().kv_heads + head;
  const float base = key ? 0.0173F : 0.0119F;
  switch (spec_.scales) {
    case Scales::none: break;
    case Scales::tensor: return base;
    case Scales::head: return base * static_cast<float>(1 + head);
    case Scales::token: return base * (0.6F + numbers.uniform(place));
    case Scales::exact: return std::ldexp(1.0F, -static_cast<int>(4 + numbers.bits(place) % 3));
  }
  return 1;
}

std::vector<float> PagedCase::row(bool key, int text, int64_t token, int head) const {
  const std::span<const std::byte> codes = stored(key, text, token, head);
  const float scale = stored_scale(key, text, token, head);
  std::vector<float> x(static_cast<size_t>(shape().head_dim));
  for (size_t i = 0; i < x.size(); ++i) x[i] = load(shape().kv_type, codes.data(), i) * scale;
  return x;
}

int PagedCase::mean_keys() const {
  int keys = 0;
  if (shape().sliding_window > 0) return keys;
  for (const StagePlan& stage : spec_.plan.layer(spec_.layer).stages) keys = std::max({keys, stage.piece, stage.row_piece});
  return keys > 1 ? keys : 0;
}

std::vector<std::byte> PagedCase::mean(int text, int64_t token, int head) const {
  const auto d = static_cast<size_t>(shape().head_dim);
  std::vector<float> sum(d);
  for (int64_t t = token; t < token + mean_keys(); ++t) {
    const std::vector<float> x = row(true, text, t, head);
    for (size_t i = 0; i < d; ++i) sum[i] += x[i];
  }
  const float share = 1.0F / static_cast<float>(mean_keys());
  std::vector<std::byte> stored(d * element_bytes(shape().q_type));
  for (size_t i = 0; i < d; ++i) store(shape().q_type, stored.data(), i, sum[i] * share);
  return stored;
}

bool PagedCase::is_bf16() const {
  if (shape().kv_type == ElementType::f16) return false;
  return shape().kv_type == ElementType::bf16 || spec_.scales == Scales::none || spec_.scales == Scales::exact;
}

std::vector<float> PagedCase::query(int text, int64_t position) const {
  const Numbers numbers(spec_.seed, text, What::queries);
  const int64_t count = int64_t{shape().heads} * shape().head_dim;
  std::vector<float> q(static_cast<size_t>(count));
  std::byte rounded[2];
  for (int64_t i = 0; i < count; ++i) {
    store(shape().q_type, rounded, 0, spec_.gain * numbers.normal(position * count + i));
    q[static_cast<size_t>(i)] = load(shape().q_type, rounded, 0);
  }
  return q;
}

std::vector<float> PagedCase::queries(std::span<const Part> parts) const {
  std::vector<float> all;
  for (const Part& part : parts) {
    for (int64_t p = part.length - part.rows; p < part.length; ++p) {
      const std::vector<float> q = query(part.text, p);
      all.insert(all.end(), q.begin(), q.end());
    }
  }
  return all;
}

std::vector<float> PagedCase::sink_logits() const {
  const Numbers numbers(spec_.seed, 0, What::sink_logits);
  std::vector<float> logits;
  logits.reserve(static_cast<size_t>(shape().heads));
  for (int head = 0; head < shape().heads; ++head) logits.push_back(2 + 1.5F * numbers.normal(head));
  logits.front() = -40;  // changes nothing
  logits.back() = 8;     // takes most
  return logits;
}

namespace {

bool oracle_rounds(const PagedCase& c) { return c.shape().q_type == ElementType::bf16 && c.is_bf16(); }

}  // namespace

double output_tolerance(const PagedCase& c) { return oracle_rounds(c) ? 1e-2 : textbook_tolerance(c); }

double textbook_tolerance(const PagedCase& c) {
  return (c.shape().q_type == ElementType::f16 ? 4e-3 : 1.5e-2) * std::max(1.0F, c.spec().gain);
}

double score_tolerance(const PagedCase& c) { return c.shape().q_type == ElementType::f16 || c.is_bf16() ? 1e-3 : 4e-3; }

double relative_distance(std::span<const float> a, std::span<const float> b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  if (difference == 0) return 0;
  return std::isfinite(difference) ? std::sqrt(difference / norm) : std::numeric_limits<double>::infinity();
}

}  // namespace bough::test
