#include <string>
#include <utility>

#include "cuda/paged_grid.h"

namespace bough::test {
namespace {

// Means of 8 keys choose chunks of 32, every key chunks of 8; prunes texts from 449 tokens on.
AttentionPlan means_plan() {
  return stages_plan(64, 128,
                     {{.chunk = 32, .query_block = 64, .query_stride = 16, .piece = 8},
                      {.chunk = 8, .keep = 768, .query_block = 64, .query_stride = 4, .piece = 1}},
                     256);
}

PagedSpec named(const std::string& name, PagedShape shape) {
  PagedSpec spec;
  spec.name = "pieces_" + name;
  spec.shape = std::move(shape);
  spec.plan = means_plan();
  spec.plan.tail = 5;
  spec.texts = {{1500, 97}, {65, 2}, {449, 70}, {1021, 130}, {1301, 1}, {1, 1}};
  return spec;
}

// Stages that score pieces beside ones that descend, and alone.
std::vector<PagedSpec> plans() {
  constexpr ElementType bf16 = ElementType::bf16;
  std::vector<PagedSpec> all;
  const auto add = [&](const std::string& name, PagedShape shape) -> PagedSpec& {
    all.push_back(named(name, std::move(shape)));
    return all.back();
  };
  add("means_then_descents", shape_of(8, 2, 64, bf16, bf16)).plan =
      stages_plan(64, 256,
                  {{.chunk = 64, .query_block = 64, .query_stride = 8, .piece = 16},
                   {.chunk = 16, .keep = 1024, .query_block = 64, .query_stride = 4},
                   {.chunk = 8, .keep = 512, .query_block = 64, .query_stride = 1, .rounds = 2}},
                  256);
  add("descents_then_means", shape_of(8, 2, 128, bf16, bf16)).plan =
      stages_plan(64, 256,
                  {{.chunk = 64, .query_block = 64, .query_stride = 8},
                   {.chunk = 16, .keep = 1024, .query_block = 64, .query_stride = 4, .piece = 4},
                   {.chunk = 4, .keep = 512, .query_block = 64, .query_stride = 1, .piece = 4}},
                  256);
  add("rows_by_pieces", shape_of(8, 2, 128, bf16, bf16)).plan =
      stages_plan(64, 256,
                  {{.chunk = 64, .query_block = 64, .query_stride = 16, .piece = 8},
                   {.chunk = 16, .keep = 1024, .query_block = 64, .query_stride = 4, .rounds = 1, .row_piece = 8},
                   {.chunk = 8, .keep = 512, .query_block = 64, .query_stride = 1, .rounds = 1, .row_piece = 1}},
                  256);
  PagedSpec& longer = add("rows_of_longer_lists", shape_of(8, 2, 128, bf16, bf16));
  longer.plan =
      stages_plan(64, 256,
                  {{.chunk = 64, .query_block = 64, .query_stride = 16, .piece = 8},
                   {.chunk = 16, .keep = 512, .query_block = 64, .query_stride = 4, .rounds = 1, .row_piece = 8, .row_keep = 1024},
                   {.chunk = 8, .keep = 256, .query_block = 64, .query_stride = 1, .rounds = 1, .row_piece = 1, .row_keep = 768}},
                  256);
  longer.plan.row_k = 128;
  PagedSpec& shorter = add("rows_of_shorter_lists", shape_of(4, 2, 64, bf16, bf16));
  shorter.plan = stages_plan(64, 256,
                             {{.chunk = 64, .query_block = 64, .query_stride = 16, .piece = 8},
                              {.chunk = 16, .keep = 1024, .query_block = 64, .query_stride = 4, .rounds = 1},
                              {.chunk = 8, .keep = 768, .query_block = 64, .query_stride = 1, .rounds = 1, .row_keep = 320}},
                             256);
  shorter.plan.row_k = 64;
  add("rows_by_means_alone", shape_of(4, 2, 64, bf16, bf16)).plan =
      stages_plan(64, 256,
                  {{.chunk = 64, .query_block = 64, .query_stride = 8},
                   {.chunk = 8, .keep = 1024, .query_block = 64, .query_stride = 4, .piece = 1, .row_piece = 8}},
                  256);
  add("one_mean_a_chunk", shape_of(8, 2, 64, bf16, bf16)).plan =
      stages_plan(0, 128, {{.chunk = 16, .query_block = 64, .query_stride = 4, .piece = 16}}, 128);
  add("every_key", shape_of(4, 2, 64, bf16, bf16)).plan =
      stages_plan(0, 128, {{.chunk = 16, .query_block = 64, .query_stride = 4, .piece = 1}}, 128);
  return all;
}

}  // namespace

std::vector<PagedSpec> pieces() {
  using enum ElementType;
  std::vector<PagedSpec> all;
  const auto add = [&](const std::string& name, PagedShape shape) -> PagedSpec& {
    all.push_back(named(name, std::move(shape)));
    return all.back();
  };
  add("bf16_d64", shape_of(8, 2, 64, bf16, bf16));
  add("bf16_d64_portable", shape_of(6, 2, 64, bf16, bf16)).tier = KernelTier::portable;
  add("bf16_d128_per_head", shape_of(8, 2, 128, bf16, bf16)).plan.lists = Lists::kv_head;
  all.back().shape.page_tokens = 16;
  all.back().layout = Layout::head_major;
  all.back().pad = 1;
  add("e4m3_d128", shape_of(16, 2, 128, bf16, e4m3)).scales = Scales::token;
  all.back().shape.page_tokens = 8;
  add("e4m3_d64_exact_portable", shape_of(4, 2, 64, bf16, e4m3)).scales = Scales::exact;
  all.back().tier = KernelTier::portable;
  all.back().layout = Layout::together;
  add("i8_d96", shape_of(6, 2, 96, bf16, i8)).scales = Scales::token;
  add("f16_d256", shape_of(4, 2, 256, f16, f16)).layout = Layout::contiguous;
  add("f16_i8_d128", shape_of(16, 1, 128, f16, i8)).scales = Scales::head;
  add("indexed", shape_of(4, 2, 64, bf16, bf16)).plan.scan = Scan::chunk_indexed;
  all.back().plan.stages = stages_plan(64, 64,
                                       {{.chunk = 16, .query_block = 64, .query_stride = 16, .piece = 8},
                                        {.chunk = 4, .keep = 1024, .query_block = 64, .query_stride = 4, .piece = 1}},
                                       64)
                               .stages;
  all.back().plan.window = 64;
  all.back().plan.k = 64;
  all.back().shape.trained_context = 260;  // indices are divided
  add("indexed_e4m3_d128_g8", shape_of(8, 1, 128, bf16, e4m3)).plan.scan = Scan::chunk_indexed;
  all.back().scales = Scales::exact;
  add("dynamic_d128_g16", shape_of(16, 1, 128, bf16, bf16)).plan.scan = Scan::dynamic_extend;
  all.back().shape.trained_context = 1024;
  add("self_extend", shape_of(2, 2, 64, bf16, bf16)).plan.scan = Scan::self_extend;
  all.back().shape.trained_context = 1024;
  all.back().plan.pool = Pool::all;
  add("infllm_strided", shape_of(6, 2, 64, bf16, bf16)).plan.scan = Scan::infllm;
  all.back().plan.pool = Pool::strided;
  add("rotated", shape_of(8, 2, 128, bf16, bf16)).shape.keys_rotated = true;
  add("partial_rope", shape_of(4, 2, 128, bf16, bf16)).plan.scan = Scan::chunk_indexed;
  set_rope(all.back().shape, 32, RopePairs::interleaved, 1.2);
  for (PagedSpec& spec : plans()) all.push_back(std::move(spec));
  return all;
}

}  // namespace bough::test
