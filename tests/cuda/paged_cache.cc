#include "cuda/paged_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>

#include "cuda/elements.h"

namespace bough::test {
namespace {

// What no token has written: i8 has no NaN, its largest value has to do.
std::byte poison_of(ElementType type) { return type == ElementType::i8 ? std::byte{0x80} : kPoison; }

}  // namespace

DeviceCache::DeviceCache(const PagedCase& c, std::vector<int> texts, uint64_t salt)
    : case_(c), texts_(std::move(texts)), page_tokens_(c.shape().page_tokens) {
  draw_pages(salt);
  for (const Kind kind : kKinds) {
    if (!has(kind)) continue;
    rows_[kind] = row_places(kind);
    scales_[kind] = scale_places(kind);
    if (kind != values || !together()) {
      stored_[kind].image.resize(static_cast<size_t>(rows_[kind].elements) * element_bytes(type(kind)));
      stored_[kind].buffer = DeviceBuffer(stored_[kind].image.size());
    }
    if (!has_scales(kind)) continue;
    scale_[kind].image.resize(static_cast<size_t>(scales_[kind].elements));
    scale_[kind].buffer = DeviceBuffer(scale_[kind].image.size() * sizeof(float));
  }
}

// Entries of the table that no token needs name a page of poison.
void DeviceCache::draw_pages(uint64_t salt) {
  for (const int text : texts_) {
    const int64_t pages = (case_.capacity(text) + page_tokens_ - 1) / page_tokens_;
    longest_ = std::max(longest_, pages * page_tokens_);
    pages_ += pages;
  }
  std::vector<int32_t> order(static_cast<size_t>(pages_ + 1));
  std::iota(order.begin(), order.end(), 0);
  std::mt19937_64 random(case_.spec().seed * 1000 + salt);
  std::shuffle(order.begin(), order.end(), random);
  const int32_t spare = order.back();
  pages_ += 1;
  table_stride_ = longest_ / page_tokens_ + 3;
  size_t next = 0;
  for (const int text : texts_) {
    for (int64_t i = 0; i < table_stride_; ++i) table_.push_back(i * page_tokens_ < case_.capacity(text) ? order[next++] : spare);
  }
  if (!paged()) return;
  device_table_ = DeviceBuffer(table_.size() * sizeof(int32_t));
  device_table_.upload(table_);
}

DeviceCache::Places DeviceCache::row_places(Kind kind) const {
  const int64_t pad = case_.spec().pad * static_cast<int64_t>(16 / element_bytes(type(kind)));
  const int64_t row = case_.shape().head_dim + pad, heads = case_.shape().kv_heads, rows = page_tokens_ / step(kind);
  Places p;
  if (case_.spec().layout == Layout::contiguous) {
    p.strides.token = row;
    p.strides.head = longest_ / step(kind) * row + pad;
    p.strides.page = rows * row;
    p.sequence = heads * p.strides.head + pad;
    p.elements = static_cast<int64_t>(texts_.size()) * p.sequence;
    return p;
  }
  if (case_.spec().layout == Layout::head_major) {
    p.strides.token = row;
    p.strides.head = rows * row + pad;
    p.strides.page = heads * p.strides.head + pad;
  } else {
    p.strides.head = row;
    p.strides.token = heads * row + pad;
    p.strides.page = (together() && kind != summary ? 2 : 1) * (rows * p.strides.token + pad);
  }
  p.elements = pages_ * p.strides.page;
  return p;
}

DeviceCache::Places DeviceCache::scale_places(Kind kind) const {
  const int64_t heads = case_.shape().kv_heads, pad = case_.spec().pad, rows = page_tokens_ / step(kind);
  Places p;
  switch (case_.spec().scales) {
    case Scales::none: return p;
    case Scales::tensor: p.elements = 1; return p;
    case Scales::head:
      p.strides.head = 1 + pad;
      p.elements = heads * p.strides.head;
      return p;
    default: break;
  }
  if (paged()) {
    p.strides.head = 1;
    p.strides.token = heads + pad;
    p.strides.page = rows * p.strides.token + pad;
    p.elements = pages_ * p.strides.page;
  } else {
    p.strides.token = 1;
    p.strides.page = rows;
    p.strides.head = longest_ / step(kind) + pad;
    p.sequence = heads * p.strides.head;
    p.elements = static_cast<int64_t>(texts_.size()) * p.sequence;
  }
  return p;
}

size_t DeviceCache::at(Kind kind, const Places& places, size_t sequence, int64_t token, int head) const {
  const int64_t index = token / page_tokens_;
  const int64_t page = paged() ? table_[sequence * static_cast<size_t>(table_stride_) + static_cast<size_t>(index)] : index;
  return static_cast<size_t>(static_cast<int64_t>(sequence) * places.sequence + page * places.strides.page +
                             token % page_tokens_ / step(kind) * places.strides.token + head * places.strides.head);
}

void DeviceCache::write(Kind kind, size_t sequence, int64_t length) {
  const size_t bytes = element_bytes(type(kind));
  std::byte* image =
      stored_[kind == values && together() ? keys : kind].image.data() + (kind == values ? static_cast<size_t>(values_from()) * bytes : 0);
  const int64_t end = is_means(kind) ? length - step(kind) + 1 : length;
  for (int64_t token = 0; token < end; token += step(kind)) {
    for (int head = 0; head < case_.shape().kv_heads; ++head) {
      if (is_means(kind)) {
        const std::vector<std::byte> mean = case_.mean(texts_[sequence], token, head);
        std::copy(mean.begin(), mean.end(), image + at(kind, rows_[kind], sequence, token, head) * bytes);
        continue;
      }
      const std::span<const std::byte> row = case_.stored(kind != values, texts_[sequence], token, head);
      std::copy(row.begin(), row.end(), image + at(kind, rows_[kind], sequence, token, head) * bytes);
      if (!has_scales(kind)) continue;
      scale_[kind].image[at(kind, scales_[kind], sequence, token, head)] =
          case_.stored_scale(kind != values, texts_[sequence], token, head);
    }
  }
}

void DeviceCache::fill(std::span<const int64_t> lengths) {
  for (const Kind kind : kKinds) {
    std::fill(stored_[kind].image.begin(), stored_[kind].image.end(), poison_of(type(kind)));
    std::fill(scale_[kind].image.begin(), scale_[kind].image.end(), std::bit_cast<float>(0xffffffffU));
  }
  for (const Kind kind : kKinds) {
    for (size_t s = 0; s < texts_.size() && has(kind); ++s) write(kind, s, lengths[s]);
  }
  for (const Kind kind : kKinds) {
    if (!stored_[kind].image.empty()) stored_[kind].buffer.upload(stored_[kind].image);
    if (!scale_[kind].image.empty()) scale_[kind].buffer.upload(scale_[kind].image);
  }
}

PagedPlane DeviceCache::view(Kind kind) const {
  PagedPlane plane;
  const int64_t from = kind == values ? values_from() : 0;
  plane.data =
      stored_[kind == values && together() ? keys : kind].buffer.as<std::byte>() + static_cast<size_t>(from) * element_bytes(type(kind));
  plane.sequence_stride = rows_[kind].sequence;
  plane.strides = rows_[kind].strides;
  if (!has_scales(kind)) return plane;
  plane.scale = scale_[kind].buffer.as<float>();
  plane.scale_sequence_stride = scales_[kind].sequence;
  plane.scale_strides = scales_[kind].strides;
  return plane;
}

PagedCache DeviceCache::view() const {
  PagedCache cache;
  cache.k = view(keys);
  cache.v = view(values);
  if (has(summary)) {
    cache.summary = view(summary);
    cache.summary_step = static_cast<int>(step(summary));
  }
  if (!paged()) return cache;
  cache.page_table = device_table_.as<int32_t>();
  cache.table_stride = table_stride_;
  return cache;
}

bool DeviceCache::intact() const {
  bool whole = device_table_.intact();
  for (const Kind kind : kKinds) {
    whole = whole && stored_[kind].buffer.intact() && scale_[kind].buffer.intact();
    if (!stored_[kind].image.empty()) whole = whole && stored_[kind].buffer.download() == stored_[kind].image;
    if (scale_[kind].image.empty()) continue;
    const std::vector<std::byte> there = scale_[kind].buffer.download();
    whole = whole && std::memcmp(there.data(), scale_[kind].image.data(), there.size()) == 0;
  }
  return whole;
}

}  // namespace bough::test
