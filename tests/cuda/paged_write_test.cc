// PagedAttention::write: every element where its token is kept, keys in their summary too, as the host would round it, and nothing else.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cuda/device.h"
#include "cuda/elements.h"
#include "cuda/paged_case.h"

namespace bough::test {
namespace {

constexpr int kHeads = 3;
constexpr int kPageTokens = 16;
constexpr int64_t kPages = 12;
constexpr int64_t kTableStride = 4;

enum class Quantum : uint8_t { none, tensor, token };

struct WriteSpec {
  ElementType q = ElementType::bf16;
  ElementType kv = ElementType::bf16;
  int head_dim = 64;
  Quantum quantum = Quantum::none;
  bool head_major = false;
  int summary_step = 0;
};

class PagedWrite : public testing::TestWithParam<WriteSpec> {
 protected:
  static constexpr int64_t kPad = 16;  // elements between neighbours

  int64_t d() const { return GetParam().head_dim; }
  // Of a plane that has every `step`-th token.
  Strides strides(int step) const {
    const int64_t row = d() + kPad, rows = kPageTokens / step;
    if (GetParam().head_major) return {row * rows * kHeads, row, row * rows};
    return {row * rows * kHeads, row * kHeads, row};
  }
  Strides scale_strides(int step) const {
    return GetParam().quantum == Quantum::token ? Strides{kPageTokens / step * kHeads, kHeads, 1} : Strides{};
  }
  size_t elements(int step) const { return static_cast<size_t>(strides(step).page * kPages); }
  size_t scales(int step) const { return GetParam().quantum == Quantum::token ? kPages * kPageTokens / step * kHeads : 1; }

  // What a plane holds after rows [r, heads, d] of q's type went to `places`; a row without a token goes to -1.
  void expect_plane(const std::vector<std::byte>& rows, const std::vector<int64_t>& places, int step, const DeviceBuffer& data,
                    const DeviceBuffer& scale) const {
    const auto [q, kv, head_dim, quantum, head_major, summary_step] = GetParam();
    const size_t bytes = element_bytes(kv);
    std::vector<std::byte> want(elements(step) * bytes, kPoison);
    std::vector<float> want_scale(scales(step));
    std::memset(want_scale.data(), 0xff, want_scale.size() * sizeof(float));
    if (quantum == Quantum::tensor) want_scale[0] = 0.01F;
    for (size_t r = 0; r < places.size(); ++r) {
      if (places[r] % step != 0) continue;
      for (int head = 0; head < kHeads && places[r] >= 0; ++head) {
        const size_t from = (r * kHeads + static_cast<size_t>(head)) * static_cast<size_t>(d());
        const int64_t page = places[r] / kPageTokens, within = places[r] % kPageTokens / step;
        const Strides by = strides(step);
        const auto to = static_cast<size_t>(page * by.page + within * by.token + head * by.head);
        float most = 0, divisor = 1;
        for (size_t e = 0; e < static_cast<size_t>(d()); ++e) most = std::max(most, std::abs(load(q, rows.data(), from + e)));
        if (quantum == Quantum::tensor) divisor = 0.01F;
        if (quantum == Quantum::token) {
          divisor = most > 0 ? most / (kv == ElementType::e4m3 ? 448.0F : 127.0F) : 1.0F;
          want_scale[static_cast<size_t>(places[r] / step * kHeads + head)] = divisor;
        }
        for (size_t e = 0; e < static_cast<size_t>(d()); ++e) store(kv, want.data(), to + e, load(q, rows.data(), from + e) / divisor);
      }
    }
    EXPECT_EQ(data.download(), want);
    EXPECT_TRUE(data.intact());
    if (quantum == Quantum::none) return;
    std::vector<std::byte> scale_bytes(want_scale.size() * sizeof(float));
    std::memcpy(scale_bytes.data(), want_scale.data(), scale_bytes.size());
    EXPECT_EQ(scale.download(), scale_bytes);
  }
};

TEST_P(PagedWrite, RowsGoWhereTheirTokensAre) {
  const WriteSpec& spec = GetParam();
  PagedShape shape = shape_of(kHeads, kHeads, spec.head_dim, spec.q, spec.kv);
  shape.page_tokens = kPageTokens;
  auto attention = PagedAttention::create(small_plan(), 0, shape, {64, 5, 64});
  if (!attention.ok() && attention.status().code() == Code::unsupported) GTEST_SKIP() << attention.status().message();
  ASSERT_TRUE(attention.ok()) << attention.status().message();
  // Texts of 5, 0, 40 and 17 tokens; pages in no order.
  const std::vector<int32_t> table = {7, -1, -1, -1, -1, -1, -1, -1, 2, 11, 0, -1, 5, 3, -1, -1};
  const std::vector<int32_t> lengths = {5, 0, 40, 17}, query_start = {0, 5, 5, 8, 10};
  const std::vector<int64_t> prefill = {112, 113, 114, 115, 116, 5, 6, 7, 5 * 16 + 15, 3 * 16}, decode = {116, -1, 7, 3 * 16};
  const std::vector<int> steps = {1, 1, spec.summary_step};  // of keys, values and summary
  const Stream stream;
  for (const bool one_each : {false, true}) {
    const std::vector<int64_t>& all = one_each ? decode : prefill;
    std::vector<std::byte> k(all.size() * kHeads * static_cast<size_t>(d()) * 2), v(k.size());
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < k.size() / 2; ++i) {
      store(spec.q, k.data(), i, i < static_cast<size_t>(d()) ? 0.0F : normal(random));  // a row of zeros
      store(spec.q, v.data(), i, 3 * normal(random));
    }
    DeviceBuffer k_rows(k.size()), v_rows(v.size()), tables(table.size() * 4), device_lengths(16), starts(20);
    k_rows.upload(k);
    v_rows.upload(v);
    tables.upload(table);
    device_lengths.upload(lengths);
    starts.upload(query_start);
    DeviceBuffer data[3], scale[3];
    PagedCache cache;
    cache.summary_step = spec.summary_step;
    for (size_t i = 0; i < 3 && steps[i] > 0; ++i) {
      data[i] = DeviceBuffer(elements(steps[i]) * element_bytes(spec.kv));
      scale[i] = DeviceBuffer(scales(steps[i]) * sizeof(float));
      if (spec.quantum == Quantum::tensor) scale[i].upload(std::vector<float>{0.01F});
      PagedPlane& plane = i == 0 ? cache.k : i == 1 ? cache.v : cache.summary;
      plane.data = data[i].data();
      plane.strides = strides(steps[i]);
      if (spec.quantum == Quantum::none || (i == 2 && spec.quantum == Quantum::tensor)) continue;
      plane.scale = scale[i].as<float>();
      plane.scale_strides = scale_strides(steps[i]);
    }
    cache.page_table = tables.as<int32_t>();
    cache.table_stride = kTableStride;
    const PagedBatch batch{4, static_cast<int64_t>(all.size()), one_each ? nullptr : starts.as<int32_t>(), device_lengths.as<int32_t>(),
                           40};
    const PagedRows rows_k{k_rows.data(), kHeads * d(), d()}, rows_v{v_rows.data(), kHeads * d(), d()};
    const Status written = attention->write(batch, rows_k, rows_v, cache, stream.get());
    ASSERT_TRUE(written.ok()) << written.message();
    stream.wait();
    for (size_t i = 0; i < 3 && steps[i] > 0; ++i) expect_plane(i == 1 ? v : k, all, steps[i], data[i], scale[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(SmallTypes, PagedWrite,
                         testing::Values(WriteSpec{}, WriteSpec{ElementType::bf16, ElementType::bf16, 128, Quantum::none, true},
                                         WriteSpec{ElementType::f16, ElementType::f16, 96},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 64, Quantum::token},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 128, Quantum::tensor, true},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 64},
                                         WriteSpec{ElementType::bf16, ElementType::i8, 256, Quantum::token, true},
                                         WriteSpec{ElementType::f16, ElementType::i8, 128, Quantum::tensor},
                                         WriteSpec{ElementType::f16, ElementType::e4m3, 256, Quantum::token}));
INSTANTIATE_TEST_SUITE_P(Summaries, PagedWrite,
                         testing::Values(WriteSpec{ElementType::bf16, ElementType::bf16, 64, Quantum::none, false, 4},
                                         WriteSpec{ElementType::bf16, ElementType::bf16, 128, Quantum::none, true, 16},
                                         WriteSpec{ElementType::bf16, ElementType::bf16, 128, Quantum::none, true, 8},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 64, Quantum::token, false, 4},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 128, Quantum::tensor, true, 8},
                                         WriteSpec{ElementType::bf16, ElementType::i8, 256, Quantum::token, true, 16},
                                         WriteSpec{ElementType::f16, ElementType::i8, 128, Quantum::tensor, false, 4}));

// Means of 8 keys, of three texts that grow by prefills and single rows: in the end each is that of the keys as the cache reads.
class PagedWriteMeans : public PagedWrite {
 protected:
  static constexpr int kKeys = 8, kTexts = 3;

  static PagedShape shape() {
    PagedShape shape = shape_of(kHeads, kHeads, GetParam().head_dim, GetParam().q, GetParam().kv);
    shape.page_tokens = kPageTokens;
    return shape;
  }
  // Where token t of a text is: pages are dealt to the texts in turn.
  static int64_t place(int text, int64_t t) { return (t / kPageTokens * kTexts + text) * kPageTokens + t % kPageTokens; }

  static std::vector<int32_t> pages() {
    std::vector<int32_t> pages;
    for (int text = 0; text < kTexts; ++text) {
      for (int64_t t = 0; t < kTableStride * kPageTokens; t += kPageTokens) {
        pages.push_back(static_cast<int32_t>(place(text, t) / kPageTokens));
      }
    }
    return pages;
  }

  float scale_at(const std::vector<std::byte>& scales, int64_t at, int head) const {
    if (GetParam().quantum == Quantum::none) return 1;
    float scale = 0;
    const int64_t i = GetParam().quantum == Quantum::token ? at * kHeads + head : 0;
    std::memcpy(&scale, scales.data() + i * 4, 4);
    return scale;
  }
  // What the plane of means has to hold when the keys are these.
  std::vector<std::byte> means_of(const std::vector<std::byte>& keys, const std::vector<std::byte>& scales,
                                  const std::vector<int32_t>& lengths) const {
    std::vector<std::byte> means(elements(kKeys) * 2, kPoison);
    for (int text = 0; text < kTexts; ++text) {
      for (int64_t t = 0; t + kKeys <= lengths[static_cast<size_t>(text)]; t += kKeys) {
        const int64_t at = place(text, t), page = at / kPageTokens;
        for (int head = 0; head < kHeads; ++head) {
          const Strides by = strides(1), mean_by = strides(kKeys);
          const auto to = static_cast<size_t>(page * mean_by.page + at % kPageTokens / kKeys * mean_by.token + head * mean_by.head);
          for (int64_t e = 0; e < d(); ++e) {
            float sum = 0;
            for (int64_t i = 0; i < kKeys; ++i) {
              const auto from = static_cast<size_t>(page * by.page + (at % kPageTokens + i) * by.token + head * by.head + e);
              const float x = load(GetParam().kv, keys.data(), from) * scale_at(scales, at + i, head);
              sum += x;
            }
            store(GetParam().q, means.data(), to + static_cast<size_t>(e), sum / kKeys);
          }
        }
      }
    }
    return means;
  }
};

TEST_P(PagedWriteMeans, EachIsOfWhatItsKeysReadAs) {
  AttentionPlan plan = small_plan();
  plan.stages[0].piece = kKeys;
  auto attention = PagedAttention::create(plan, 0, shape(), {64, kTexts, 64});
  if (!attention.ok() && attention.status().code() == Code::unsupported) GTEST_SKIP() << attention.status().message();
  ASSERT_TRUE(attention.ok()) << attention.status().message();
  ASSERT_EQ(attention->mean_keys(), kKeys);
  DeviceBuffer data[3], scale[2], table(kTexts * kTableStride * 4), lengths(kTexts * 4), starts((kTexts + 1) * 4);
  PagedCache cache;
  cache.summary_step = kKeys;
  for (size_t i = 0; i < 3; ++i) {
    const int step = i == 2 ? kKeys : 1;
    data[i] = DeviceBuffer(elements(step) * (i == 2 ? 2 : element_bytes(GetParam().kv)));
    PagedPlane& plane = i == 0 ? cache.k : i == 1 ? cache.v : cache.summary;
    plane.data = data[i].data();
    plane.strides = strides(step);
    if (GetParam().quantum == Quantum::none || i == 2) continue;
    scale[i] = DeviceBuffer(scales(1) * sizeof(float));
    if (GetParam().quantum == Quantum::tensor) scale[i].upload(std::vector<float>{0.01F});
    plane.scale = scale[i].as<float>();
    plane.scale_strides = scale_strides(1);
  }
  table.upload(pages());
  cache.page_table = table.as<int32_t>();
  cache.table_stride = kTableStride;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<int32_t> held(kTexts, 0);
  const Stream stream;
  const auto append = [&](const std::vector<int32_t>& rows, bool one_each) {
    std::vector<int32_t> start = {0};
    for (size_t i = 0; i < kTexts; ++i) {
      held[i] += rows[i];
      start.push_back(start.back() + rows[i]);
    }
    const int32_t all = start.back();
    std::vector<std::byte> k(static_cast<size_t>(all) * kHeads * static_cast<size_t>(d()) * 2);
    for (size_t i = 0; i < k.size() / 2; ++i) store(GetParam().q, k.data(), i, normal(random));
    DeviceBuffer source(k.size());
    source.upload(k);
    lengths.upload(held);
    starts.upload(start);
    const PagedBatch batch{kTexts, all, one_each ? nullptr : starts.as<int32_t>(), lengths.as<int32_t>(), 64};
    const PagedRows from{source.data(), kHeads * d(), d()};
    const Status written = attention->write(batch, from, from, cache, stream.get());
    ASSERT_TRUE(written.ok()) << written.message();
    stream.wait();
  };
  append({21, 3, 16}, false);
  append({0, 4, 13}, false);
  for (int step = 0; step < 10; ++step) append({1, 1, 1}, true);
  append({3, 23, 1}, false);
  const std::vector<std::byte> scale_bytes = GetParam().quantum == Quantum::none ? std::vector<std::byte>{} : scale[0].download();
  EXPECT_EQ(data[2].download(), means_of(data[0].download(), scale_bytes, held));
  EXPECT_TRUE(data[2].intact());
}

INSTANTIATE_TEST_SUITE_P(Types, PagedWriteMeans,
                         testing::Values(WriteSpec{}, WriteSpec{ElementType::bf16, ElementType::bf16, 128, Quantum::none, true},
                                         WriteSpec{ElementType::f16, ElementType::f16, 96},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 64, Quantum::token},
                                         WriteSpec{ElementType::bf16, ElementType::e4m3, 128, Quantum::tensor, true},
                                         WriteSpec{ElementType::bf16, ElementType::i8, 256, Quantum::token, true},
                                         WriteSpec{ElementType::f16, ElementType::i8, 128, Quantum::tensor}));

}  // namespace
}  // namespace bough::test
