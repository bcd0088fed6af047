#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "attention/plan_parts.h"
#include "bough/attention.h"

namespace bough {
namespace {

constexpr std::array<std::string_view, 9> kPresetNames = {"default", "descent", "3k",        "3k-fast", "3k-flash",
                                                          "5k",      "hip",     "streaming", "dense"};

// Three stages with the chunk sizes, keeps and query strides that every pruning preset varies.
AttentionPlan three_stages(std::array<int, 3> chunk, std::array<int64_t, 2> keep, int64_t k, std::vector<int> refresh) {
  AttentionPlan plan;
  plan.mode = Mode::stages;
  plan.sinks = 256;
  plan.window = 1024;
  plan.stages = {{.chunk = chunk[0], .keep = 0, .query_block = 64, .query_stride = 4},
                 {.chunk = chunk[1], .keep = keep[0], .query_block = 64, .query_stride = 4},
                 {.chunk = chunk[2], .keep = keep[1], .query_block = 64, .query_stride = 1}};
  plan.k = k;
  plan.refresh = std::move(refresh);
  plan.tail = 64;
  return plan;
}

AttentionPlan with_first(AttentionPlan plan) {
  plan.first = FirstLayers{.layers = 3, .k = 4096, .scan = Scan::chunk_indexed};
  return plan;
}

AttentionPlan three_k(std::vector<int> refresh) { return with_first(three_stages({256, 32, 8}, {32768, 8192}, 2048, std::move(refresh))); }

// The means of 8 keys choose chunks of 64, two keys of each half chunks of 16 and then of 8; for a row by itself, whose search is cheap,
// means choose chunks of 16 too and every key those of 8, both from more keys. More than 512 selected takes attention from what answers.
AttentionPlan by_means() {
  AttentionPlan plan = three_stages({64, 16, 8}, {32768, 8192}, 512, {16, 8, 4});
  plan.stages[0].query_stride = 16;
  plan.stages[0].piece = 8;
  plan.stages[1].rounds = 1;
  plan.stages[1].row_piece = 8;
  plan.stages[1].row_keep = 65536;
  plan.stages[2].rounds = 1;
  plan.stages[2].row_piece = 1;
  plan.stages[2].row_keep = 16384;
  plan.row_k = 512;
  return with_first(std::move(plan));
}

// HiP's own numbers; its 16 sinks are rounded up to a page.
AttentionPlan hip() {
  AttentionPlan plan;
  plan.mode = Mode::hip;
  plan.sinks = 64;
  plan.window = 256;
  plan.tree = TreePlan{};
  plan.tail = 64;
  return plan;
}

AttentionPlan streaming() {
  AttentionPlan plan;
  plan.mode = Mode::streaming;
  plan.sinks = 256;
  plan.window = 1024;
  plan.refresh = {8};
  return plan;
}

}  // namespace

std::vector<std::string> preset_names() { return {kPresetNames.begin(), kPresetNames.end()}; }

namespace plan {

std::optional<AttentionPlan> find_preset(std::string_view name) {
  if (name == "default") return by_means();
  if (name == "descent") return with_first(three_stages({64, 16, 8}, {32768, 8192}, 2048, {16, 8, 4}));
  if (name == "3k") return three_k({16, 8, 4});
  if (name == "3k-fast") return three_k({32, 16, 8});
  if (name == "3k-flash") return three_k({96, 24, 8});
  if (name == "5k") return three_stages({64, 32, 16}, {32768, 16384}, 4096, {16, 8, 4});
  if (name == "hip") return hip();
  if (name == "streaming") return streaming();
  if (name == "dense") return AttentionPlan{};
  return std::nullopt;
}

AttentionPlan base_of(Mode mode) {
  switch (mode) {
    case Mode::stages: return *find_preset("default");
    case Mode::hip: return hip();
    case Mode::streaming: return streaming();
    case Mode::dense: break;
  }
  return AttentionPlan{};
}

}  // namespace plan
}  // namespace bough
