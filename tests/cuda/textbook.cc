// Attention the textbook way, and how far results are from what they should be.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "cuda/paged_oracle.h"

namespace bough::test {
namespace {

std::vector<double> turned(const PagedShape& shape, std::span<const float> x, int64_t position) {
  std::vector<double> y(x.begin(), x.end());
  if (shape.keys_rotated) return y;
  const size_t pairs = shape.rope.frequencies.size();
  const bool halves = shape.rope.pairs == RopePairs::halves;
  for (size_t i = 0; i < pairs; ++i) {
    const double angle = static_cast<double>(position) * shape.rope.frequencies[i];
    const double cosine = shape.rope.magnitude * std::cos(angle), sine = shape.rope.magnitude * std::sin(angle);
    const size_t a = halves ? i : 2 * i, b = halves ? i + pairs : 2 * i + 1;
    y[a] = x[a] * cosine - x[b] * sine;
    y[b] = x[a] * sine + x[b] * cosine;
  }
  return y;
}

// One query head over tokens [from, from + keys.size()).
void attend_row(const PagedCase& c, const std::vector<double>& q, std::span<const std::vector<double>> keys,
                std::span<const std::vector<float>> values, float* o, float* lse) {
  std::vector<double> scores;
  for (const std::vector<double>& key : keys) {
    const double s = c.scale() * std::inner_product(key.begin(), key.end(), q.begin(), 0.0);
    scores.push_back(c.shape().softcap > 0 ? c.shape().softcap * std::tanh(s / c.shape().softcap) : s);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  std::vector<double> sum(q.size());
  double total = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double p = std::exp(scores[i] - top);
    total += p;
    for (size_t e = 0; e < sum.size(); ++e) sum[e] += p * values[i][e];
  }
  for (size_t e = 0; e < sum.size(); ++e) o[e] = static_cast<float>(sum[e] / total);
  *lse = static_cast<float>(top + std::log(total));
}

}  // namespace

Output textbook(const PagedCase& c, const Part& part) {
  const PagedShape& shape = c.shape();
  const auto d = static_cast<size_t>(shape.head_dim), heads = static_cast<size_t>(shape.heads);
  const int group = shape.heads / shape.kv_heads;
  Output out;
  out.o.resize(static_cast<size_t>(part.rows) * heads * d);
  out.lse.resize(static_cast<size_t>(part.rows) * heads);
#pragma omp parallel for schedule(dynamic)
  for (int kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    std::vector<std::vector<double>> keys;
    std::vector<std::vector<float>> values;
    for (int64_t token = 0; token < part.length; ++token) {
      keys.push_back(turned(shape, c.row(true, part.text, token, kv_head), token));
      values.push_back(c.row(false, part.text, token, kv_head));
    }
    for (int64_t row = 0; row < part.rows; ++row) {
      const int64_t p = part.length - part.rows + row;
      const auto from = static_cast<size_t>(c.window() > 0 ? std::max<int64_t>(0, p + 1 - c.window()) : 0);
      const size_t count = static_cast<size_t>(p) + 1 - from;
      const std::vector<float> q = c.query(part.text, p);
      for (int g = 0; g < group; ++g) {
        const auto head = static_cast<size_t>(kv_head) * static_cast<size_t>(group) + static_cast<size_t>(g);
        const size_t at = static_cast<size_t>(row) * heads + head;
        attend_row(c, turned(shape, std::span(q).subspan(head * d, d), p), std::span(keys).subspan(from, count),
                   std::span(values).subspan(from, count), &out.o[at * d], &out.lse[at]);
      }
    }
  }
  return out;
}

namespace {

struct Worst {
  double distance = 0;
  size_t row = 0;  // of [rows, heads]
  bool lse = false;
};

Worst worst_of(const PagedCase& c, const Output& got, const Output& want) {
  const auto d = static_cast<size_t>(c.shape().head_dim);
  Worst worst;
  for (size_t row = 0; row < want.lse.size(); ++row) {
    const double o = relative_distance(std::span(got.o).subspan(row * d, d), std::span(want.o).subspan(row * d, d));
    const double difference = std::abs(double{got.lse[row]} - want.lse[row]);
    const double lse = std::isnan(difference) ? INFINITY : difference;
    if (o > worst.distance) worst = {o, row, false};
    if (lse > worst.distance) worst = {lse, row, true};
  }
  return worst;
}

}  // namespace

double worst_distance(const PagedCase& c, const Output& got, const Output& want) { return worst_of(c, got, want).distance; }

void expect_near(const PagedCase& c, const Output& got, const Output& want, double tolerance, const std::string& what) {
  ASSERT_EQ(got.o.size(), want.o.size()) << what;
  ASSERT_EQ(got.lse.size(), want.lse.size()) << what;
  const Worst worst = worst_of(c, got, want);
  const auto heads = static_cast<size_t>(c.shape().heads);
  testing::Test::RecordProperty("distance", std::to_string(worst.distance));
  EXPECT_LE(worst.distance, tolerance) << what << ": " << (worst.lse ? "lse" : "o") << " of row " << worst.row / heads << ", head "
                                       << worst.row % heads;
}

}  // namespace bough::test
