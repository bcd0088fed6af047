// PagedAttention at work: calls with their device memory, results on the host.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "bough/paged_attention.h"
#include "cuda/paged_cache.h"

namespace bough::test {

// What a query block sees besides [w0, r0 + rows) and its first `sinks` tokens.
struct BlockChoice {
  int32_t sequence = 0;
  int32_t row = 0;
  int32_t rows = 0;
  int64_t r0 = 0;
  int64_t w0 = 0;
  int64_t sinks = 0;
  int64_t count = 0;
  std::vector<std::vector<int32_t>> starts;  // [list heads][count] ascending

  bool operator==(const BlockChoice&) const = default;
};
std::ostream& operator<<(std::ostream& out, const BlockChoice& block);

struct Output {
  std::vector<float> o;    // [rows, heads, head_dim]
  std::vector<float> lse;  // [rows, heads]
};
bool same_bits(const Output& a, const Output& b);
// Rows [from, from + count) of an output.
Output rows_of(const Output& all, const PagedShape& shape, int64_t from, int64_t count);

// A call's memory on the device. Lengths may change from one use to the next, the texts and their numbers of rows may not.
class DeviceCall {
 public:
  DeviceCall(const PagedCase& c, std::vector<Part> parts, uint64_t salt = 0);

  // Uploads cache, queries and lengths; outputs become poison.
  void set(std::vector<Part> parts);
  void clear_output() const;
  // Outputs; a test failure where anything else was written.
  Output read() const;

  PagedBatch batch() const;
  int64_t longest = 0;  // of the batch, an upper bound; set() makes it exact
  PagedCache cache() const { return cache_.view(); }
  PagedRows q() const { return rows_at(q_); }
  PagedRows o() const { return rows_at(o_); }
  float* lse() const { return lse_.as<float>(); }
  const float* sink_logits() const { return sink_logits_.as<float>(); }

 private:
  PagedRows rows_at(const DeviceBuffer& buffer) const;
  size_t place(size_t row, size_t head) const { return row * static_cast<size_t>(row_stride_) + head * static_cast<size_t>(head_stride_); }

  const PagedCase& case_;
  std::vector<Part> parts_;
  DeviceCache cache_;
  int64_t rows_;
  int64_t head_stride_;
  int64_t row_stride_;
  DeviceBuffer q_;
  DeviceBuffer o_;
  DeviceBuffer lse_;
  DeviceBuffer sink_logits_;
  DeviceBuffer query_start_;
  DeviceBuffer lengths_;
};

// One row of a decode step.
struct DecodeRow {
  int text = 0;
  int64_t length = 0;   // its own token included; 0: the row is left out
  int64_t counter = 0;  // decode steps since the last append
  int slot = 0;
};

// A decode step's memory on the device.
class DecodeCall {
 public:
  DecodeCall(const PagedCase& c, const PagedAttention& attention, const std::vector<DecodeRow>& rows, uint64_t salt = 0);

  void set(const std::vector<DecodeRow>& rows);
  DeviceCall& call() { return call_; }
  const int32_t* slot() const { return slot_.as<int32_t>(); }
  const int32_t* stage() const { return stage_.as<int32_t>(); }
  int least_stage() const { return least_stage_; }

 private:
  const PagedAttention& attention_;
  DeviceCall call_;
  DeviceBuffer slot_;
  DeviceBuffer stage_;
  int least_stage_ = 0;
};

// One PagedAttention with its workspace.
class PagedRun {
 public:
  struct Prefill {
    std::vector<BlockChoice> blocks;
    Output out;
  };

  static Result<std::unique_ptr<PagedRun>> create(const PagedCase& c);

  const PagedAttention& attention() const { return attention_; }
  const Stream& stream() const { return stream_; }

  void prune(const DeviceCall& call) const;
  void attend(const DeviceCall& call, float* lse, const float* sink_logits) const;
  Prefill prefill(const std::vector<Part>& parts, uint64_t salt = 0) const;
  // Of the last prune: blocks in the order of their rows.
  std::vector<BlockChoice> selection() const;
  Output read(const DeviceCall& call) const;
  // Queues a step.
  void decode(DecodeCall& step, const DeviceBuffer& states, int slots, const float* sink_logits = nullptr) const;

 private:
  PagedRun(const PagedCase& c, PagedAttention attention);

  const PagedCase& case_;
  PagedAttention attention_;
  Stream stream_;
  DeviceBuffer workspace_;
};

// The states of `slots` sequences, and steps over them.
class DecodeRun {
 public:
  DecodeRun(const PagedCase& c, const PagedRun& run, int slots);

  Output step(const std::vector<DecodeRow>& rows, bool sink_logits = false);
  const DeviceBuffer& states() const { return states_; }
  int slots() const { return slots_; }

 private:
  const PagedCase& case_;
  const PagedRun& run_;
  int slots_;
  uint64_t salt_ = 0;
  DeviceBuffer states_;
};

}  // namespace bough::test
