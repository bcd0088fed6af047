#include "cuda/paged_run.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "cuda/elements.h"

namespace bough::test {
namespace {

void check(const Status& status, const char* what) {
  if (!status.ok()) throw std::runtime_error(std::string(what) + ": " + std::string(code_name(status.code())) + ": " + status.message());
}

std::vector<int> texts_of(const std::vector<Part>& parts) {
  std::vector<int> texts;
  texts.reserve(parts.size());
  for (const Part& part : parts) texts.push_back(part.text);
  return texts;
}

std::vector<Part> parts_of(const std::vector<DecodeRow>& rows) {
  std::vector<Part> parts;
  parts.reserve(rows.size());
  for (const DecodeRow& row : rows) parts.push_back({row.text, row.length, 1});
  return parts;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const BlockChoice& b) {
  return out << "sequence " << b.sequence << " rows [" << b.row << ", " << b.row + b.rows << ") at " << b.r0 << ", w0 " << b.w0
             << ", sinks " << b.sinks << ", " << b.count << " chunks";
}

bool same_bits(const Output& a, const Output& b) {
  const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
  };
  return same(a.o, b.o) && same(a.lse, b.lse);
}

Output rows_of(const Output& all, const PagedShape& shape, int64_t from, int64_t count) {
  const auto part = [&](const std::vector<float>& x, int64_t width) {
    return std::vector<float>(x.begin() + from * width, x.begin() + (from + count) * width);
  };
  return {part(all.o, int64_t{shape.heads} * shape.head_dim), part(all.lse, shape.heads)};
}

DeviceCall::DeviceCall(const PagedCase& c, std::vector<Part> parts, uint64_t salt)
    : case_(c), parts_(std::move(parts)), cache_(c, texts_of(parts_), salt), rows_(rows_of(parts_)) {
  const PagedShape& shape = c.shape();
  head_stride_ = shape.head_dim + 8 * c.spec().pad;
  row_stride_ = shape.heads * head_stride_ + 8 * c.spec().pad;
  const auto bytes = static_cast<size_t>(rows_ * row_stride_) * element_bytes(shape.q_type);
  q_ = DeviceBuffer(bytes);
  o_ = DeviceBuffer(bytes);
  lse_ = DeviceBuffer(static_cast<size_t>(rows_ * shape.heads) * sizeof(float));
  sink_logits_ = DeviceBuffer(static_cast<size_t>(shape.heads) * sizeof(float));
  sink_logits_.upload(c.sink_logits());
  query_start_ = DeviceBuffer((parts_.size() + 1) * sizeof(int32_t));
  lengths_ = DeviceBuffer(parts_.size() * sizeof(int32_t));
  set(parts_);
}

void DeviceCall::set(std::vector<Part> parts) {
  parts_ = std::move(parts);
  if (rows_of(parts_) != rows_) throw std::runtime_error("a test changes the number of rows of a call");
  const PagedShape& shape = case_.shape();
  const auto heads = static_cast<size_t>(shape.heads), d = static_cast<size_t>(shape.head_dim);
  const std::vector<float> q = case_.queries(parts_);
  std::vector<std::byte> image(q_.bytes(), kPoison);
  for (size_t r = 0; r < static_cast<size_t>(rows_); ++r) {
    for (size_t h = 0; h < heads; ++h) {
      for (size_t i = 0; i < d; ++i) store(shape.q_type, image.data(), place(r, h) + i, q[(r * heads + h) * d + i]);
    }
  }
  q_.upload(image);
  std::vector<int64_t> held;
  std::vector<int32_t> lengths, query_start = {0};
  longest = 0;
  for (const Part& part : parts_) {
    held.push_back(part.length);
    lengths.push_back(static_cast<int32_t>(part.length));
    query_start.push_back(query_start.back() + static_cast<int32_t>(part.rows));
    longest = std::max(longest, part.length);
  }
  cache_.fill(held);
  lengths_.upload(lengths);
  query_start_.upload(query_start);
  clear_output();
}

void DeviceCall::clear_output() const {
  o_.fill(kPoison);
  lse_.fill(kPoison);
}

PagedRows DeviceCall::rows_at(const DeviceBuffer& buffer) const {
  PagedRows rows;
  rows.data = buffer.data();
  rows.row = row_stride_;
  rows.head = head_stride_;
  return rows;
}

PagedBatch DeviceCall::batch() const {
  PagedBatch batch;
  batch.sequences = static_cast<int>(parts_.size());
  batch.rows = rows_;
  batch.query_start = query_start_.as<int32_t>();
  batch.lengths = lengths_.as<int32_t>();
  batch.longest = longest;
  return batch;
}

Output DeviceCall::read() const {
  const PagedShape& shape = case_.shape();
  const auto heads = static_cast<size_t>(shape.heads), d = static_cast<size_t>(shape.head_dim);
  const size_t bytes = element_bytes(shape.q_type);
  std::vector<std::byte> image = o_.download();
  Output out;
  for (size_t r = 0; r < static_cast<size_t>(rows_); ++r) {
    for (size_t h = 0; h < heads; ++h) {
      for (size_t i = 0; i < d; ++i) out.o.push_back(load(shape.q_type, image.data(), place(r, h) + i));
      std::fill_n(image.begin() + static_cast<ptrdiff_t>(place(r, h) * bytes), d * bytes, kPoison);
    }
  }
  EXPECT_TRUE(std::all_of(image.begin(), image.end(), [](std::byte x) { return x == kPoison; })) << "written between rows of o";
  out.lse = download(lse_.as<float>(), static_cast<size_t>(rows_) * heads);
  EXPECT_TRUE(o_.intact()) << "written outside o";
  EXPECT_TRUE(lse_.intact()) << "written outside lse";
  EXPECT_TRUE(q_.intact() && lengths_.intact() && query_start_.intact() && sink_logits_.intact()) << "written outside an input";
  EXPECT_TRUE(cache_.intact()) << "written to the cache";
  return out;
}

DecodeCall::DecodeCall(const PagedCase& c, const PagedAttention& attention, const std::vector<DecodeRow>& rows, uint64_t salt)
    : attention_(attention), call_(c, parts_of(rows), salt), slot_(rows.size() * sizeof(int32_t)), stage_(rows.size() * sizeof(int32_t)) {
  set(rows);
}

void DecodeCall::set(const std::vector<DecodeRow>& rows) {
  call_.set(parts_of(rows));
  std::vector<int32_t> slots, stages;
  for (const DecodeRow& row : rows) {
    slots.push_back(row.slot);
    stages.push_back(row.length == 0 ? attention_.stages() : attention_.due_stage(row.counter, row.length));
  }
  least_stage_ = *std::min_element(stages.begin(), stages.end());
  slot_.upload(slots);
  stage_.upload(stages);
}

PagedRun::PagedRun(const PagedCase& c, PagedAttention attention)
    : case_(c), attention_(std::move(attention)), workspace_(attention_.workspace_bytes(), std::byte{0}) {}

Result<std::unique_ptr<PagedRun>> PagedRun::create(const PagedCase& c) {
  Result<PagedAttention> attention = PagedAttention::create(c.spec().plan, c.spec().layer, c.shape(), c.limits(), c.spec().tier);
  if (!attention.ok()) return attention.status();
  return std::unique_ptr<PagedRun>(new PagedRun(c, std::move(*attention)));
}

void PagedRun::prune(const DeviceCall& call) const {
  check(attention_.prune(call.batch(), call.q(), call.cache(), workspace_.data(), stream_.get()), "prune");
}

void PagedRun::attend(const DeviceCall& call, float* lse, const float* sink_logits) const {
  check(attention_.attend(call.batch(), call.q(), call.cache(), call.o(), lse, sink_logits, workspace_.data(), stream_.get()), "attend");
}

PagedRun::Prefill PagedRun::prefill(const std::vector<Part>& parts, uint64_t salt) const {
  const DeviceCall call(case_, parts, salt);
  prune(call);
  attend(call, call.lse(), nullptr);
  Prefill result;
  result.out = read(call);
  result.blocks = selection();
  return result;
}

Output PagedRun::read(const DeviceCall& call) const {
  stream_.wait();
  EXPECT_TRUE(workspace_.intact()) << "written outside the workspace";
  return call.read();
}

std::vector<BlockChoice> PagedRun::selection() const {
  stream_.wait();
  const PagedSelection s = attention_.selection(workspace_.data());
  const auto nb = static_cast<size_t>(s.nb), heads = static_cast<size_t>(s.list_heads), capacity = static_cast<size_t>(s.capacity);
  EXPECT_EQ(s.list_heads, attention_.plan().lists == Lists::layer ? 1 : case_.shape().kv_heads);
  const std::vector<int32_t> blocks = download(s.blocks, nb * 8), counts = download(s.counts, nb * 4);
  const std::vector<int32_t> starts = download(s.starts, nb * heads * capacity);
  std::vector<BlockChoice> chosen;
  for (size_t b = 0; b < nb; ++b) {
    const int32_t* at = &blocks[8 * b];
    if (at[2] == 0) continue;
    BlockChoice choice{at[0], at[1], at[2], at[3], at[4], at[5], counts[4 * b], {}};
    const size_t held = std::clamp<size_t>(static_cast<size_t>(std::max<int64_t>(0, choice.count)), 0, capacity);
    for (size_t h = 0; h < heads; ++h) {
      const auto list = starts.begin() + static_cast<ptrdiff_t>((b * heads + h) * capacity);
      choice.starts.emplace_back(list, list + static_cast<ptrdiff_t>(held));
    }
    if (choice.count > 0) {
      EXPECT_EQ(s.chunk, attention_.plan().layer(case_.spec().layer).last_chunk());
    }
    chosen.push_back(std::move(choice));
  }
  std::sort(chosen.begin(), chosen.end(), [](const BlockChoice& x, const BlockChoice& y) { return x.row < y.row; });
  return chosen;
}

void PagedRun::decode(DecodeCall& step, const DeviceBuffer& states, int slots, const float* sink_logits) const {
  const DeviceCall& call = step.call();
  PagedBatch batch = call.batch();
  batch.query_start = nullptr;  // not read
  check(attention_.decode(batch, call.q(), call.cache(), states.data(), slots, step.slot(), step.stage(), step.least_stage(), call.o(),
                          call.lse(), sink_logits, workspace_.data(), stream_.get()),
        "decode");
}

DecodeRun::DecodeRun(const PagedCase& c, const PagedRun& run, int slots)
    : case_(c), run_(run), slots_(slots), states_(run.attention().state_bytes(slots), std::byte{0}) {}

Output DecodeRun::step(const std::vector<DecodeRow>& rows, bool sink_logits) {
  DecodeCall step(case_, run_.attention(), rows, ++salt_);
  run_.decode(step, states_, slots_, sink_logits ? step.call().sink_logits() : nullptr);
  Output out = run_.read(step.call());
  EXPECT_TRUE(states_.intact()) << "written outside the states";
  return out;
}

}  // namespace bough::test
