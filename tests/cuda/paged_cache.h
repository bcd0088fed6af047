// A cache on the device as other engines lay it out: shuffled pages, poison in every byte that is no valid token. Where the case has a
// summary of keys, or a plan that scores means of keys, so has the cache, in rows as far apart as those of the keys.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/device.h"
#include "cuda/paged_case.h"

namespace bough::test {

class DeviceCache {
 public:
  // The sequences of a call are these texts, in this order; `salt` changes which physical pages they get.
  DeviceCache(const PagedCase& c, std::vector<int> texts, uint64_t salt);

  // Holds the first lengths[s] tokens of each sequence and nothing behind them.
  void fill(std::span<const int64_t> lengths);
  PagedCache view() const;
  // Nothing was written, neither around the buffers nor into them.
  bool intact() const;

 private:
  enum Kind : size_t { keys, values, summary };
  struct Places {
    Strides strides;
    int64_t sequence = 0;
    int64_t elements = 0;
  };
  template <typename T>
  struct Plane {
    std::vector<T> image;
    DeviceBuffer buffer;
  };

  void draw_pages(uint64_t salt);
  Places row_places(Kind kind) const;
  Places scale_places(Kind kind) const;
  // Of a token that the kind of plane has.
  size_t at(Kind kind, const Places& places, size_t sequence, int64_t token, int head) const;
  void write(Kind kind, size_t sequence, int64_t length);
  bool is_means(Kind kind) const { return kind == summary && case_.mean_keys() > 0; }
  int64_t step(Kind kind) const {
    if (is_means(kind)) return case_.mean_keys();
    return kind == summary ? case_.spec().summary_step : 1;
  }
  bool has(Kind kind) const { return step(kind) > 0; }
  ElementType type(Kind kind) const { return is_means(kind) ? case_.shape().q_type : case_.shape().kv_type; }
  bool has_scales(Kind kind) const {
    if (is_means(kind)) return false;
    if (kind == summary) return case_.spec().scales == Scales::token || case_.spec().scales == Scales::exact;
    return case_.spec().scales != Scales::none;
  }
  bool together() const { return case_.spec().layout == Layout::together; }
  bool paged() const { return case_.spec().layout != Layout::contiguous; }
  // Where the values begin in a buffer that they share with the keys, in elements.
  int64_t values_from() const { return together() ? rows_[keys].strides.page / 2 : 0; }
  PagedPlane view(Kind kind) const;

  const PagedCase& case_;
  std::vector<int> texts_;
  int64_t page_tokens_;
  int64_t longest_ = 0;  // capacity of the longest text in whole pages
  int64_t pages_ = 0;
  int64_t table_stride_ = 0;
  std::vector<int32_t> table_;
  DeviceBuffer device_table_;
  static constexpr std::array<Kind, 3> kKinds = {keys, values, summary};
  std::array<Places, 3> rows_;
  std::array<Places, 3> scales_;
  std::array<Plane<std::byte>, 3> stored_;
  std::array<Plane<float>, 3> scale_;
};

}  // namespace bough::test
