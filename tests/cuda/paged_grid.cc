#include "cuda/paged_grid.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <utility>

#include "cuda/elements.h"

namespace bough::test {
namespace {

constexpr size_t kCases = 80;

// Of case i one of n values, each of which comes up as often as the others; every choice in an order of its own.
class Choices {
 public:
  explicit Choices(size_t i) : i_(i) {}

  size_t operator()(uint32_t choice, size_t n) const {
    std::vector<size_t> order(kCases);
    std::iota(order.begin(), order.end(), size_t{0});
    std::mt19937 random(choice);
    std::shuffle(order.begin(), order.end(), random);
    return order[i_] % n;
  }
  template <typename T, size_t N>
  const T& of(uint32_t choice, const std::array<T, N>& values) const {
    return values[(*this)(choice, N)];
  }

 private:
  size_t i_;
};

struct Kind {
  ElementType q, kv;
  Scales scales;
};
constexpr std::array<Kind, 10> kKinds = {{{ElementType::bf16, ElementType::bf16, Scales::none},
                                          {ElementType::bf16, ElementType::bf16, Scales::none},
                                          {ElementType::bf16, ElementType::bf16, Scales::none},
                                          {ElementType::bf16, ElementType::e4m3, Scales::exact},
                                          {ElementType::bf16, ElementType::e4m3, Scales::tensor},
                                          {ElementType::bf16, ElementType::e4m3, Scales::none},
                                          {ElementType::f16, ElementType::f16, Scales::none},
                                          {ElementType::f16, ElementType::e4m3, Scales::head},
                                          {ElementType::bf16, ElementType::i8, Scales::token},
                                          {ElementType::f16, ElementType::i8, Scales::exact}}};

constexpr std::array<const char*, 5> kScanNames = {"relative", "indexed", "infllm", "dynamic", "self"};
constexpr std::array<const char*, 3> kPoolNames = {"mean", "strided", "all"};
constexpr std::array<const char*, 4> kLayoutNames = {"token_major", "head_major", "together", "contiguous"};
constexpr std::array<const char*, 5> kPositionNames = {"rank", "streaming", "infllm", "dynamic", "true"};
constexpr std::array<const char*, 5> kScaleNames = {"", "_tensor", "_head", "_token", "_exact"};

// Chunks, keeps and strides of all kinds; what is seen whole ends at 448, 320, 512 and 256 tokens.
AttentionPlan plan_of(size_t i) {
  switch (i) {
    case 0: return small_plan();
    case 1: return stages_plan(64, 128, {{32, 0, 64, 4}, {8, 256, 64, 2}}, 128);
    case 2: return stages_plan(0, 256, {{64, 0, 64, 8}, {32, 512, 64, 4}, {16, 384, 64, 1}}, 256);
    default: return stages_plan(128, 64, {{16, 0, 64, 64}}, 64);
  }
}

AttentionPlan streaming_plan() {
  AttentionPlan plan;
  plan.mode = Mode::streaming;
  plan.sinks = 64;
  plan.window = 128;
  plan.refresh = {4};
  return plan;
}

std::vector<Text> texts_of(size_t i) {
  switch (i) {
    case 0: return {{1021, 130}, {257, 257}, {1, 1}};
    case 1: return {{1500, 97}, {64, 0}, {65, 2}, {449, 70}};
    case 2: return {{63, 63}, {2049, 66}, {448, 10}};
    default: return {{3001, 40}, {0, 0}, {321, 321}};
  }
}

void set_feature(size_t feature, size_t i, PagedSpec& spec) {
  PagedShape& shape = spec.shape;
  const int d = shape.head_dim;
  constexpr std::array<int64_t, 3> windows = {1, 100, 700};
  switch (feature) {
    case 3: shape.softcap = i % 2 == 0 ? 30.0F : 1.5F; break;
    case 4: shape.sliding_window = windows[i % 3]; break;
    case 5:
      shape.keys_rotated = true;
      shape.trained_context = 4096;
      break;
    case 6: spec.plan.positions = static_cast<Positions>(1 + i % 4); break;
    case 7: set_rope(shape, d, RopePairs::interleaved); break;
    case 8: set_rope(shape, 32, RopePairs::interleaved, 1.2); break;
    case 9: set_rope(shape, 32, RopePairs::halves, 1.1); break;
    case 10: shape.scale = 0.05F; break;
    case 11: spec.gain = 3; break;
    default: break;
  }
}
constexpr std::array<const char*, 12> kFeatureNames = {
    "", "", "", "_softcap", "_sliding", "_rotated", "_at_", "_pairs", "_partial_pairs", "_partial", "_scaled", "_peaked"};

PagedSpec case_of(size_t i) {
  const Choices choice(i);
  const Kind kind = choice.of(1, kKinds);
  const int d = choice.of(2, std::array{64, 128, 64, 128, 64, 128, 96, 256});
  const int group = choice.of(3, std::array{1, 3, 4, 8, 16});
  const bool per_head = choice(4, 2) == 1;
  const int kv_heads = group == 1 ? 4 : group >= 8 && !per_head ? 1 : 2;
  PagedSpec spec;
  spec.shape = shape_of(group * kv_heads, kv_heads, d, kind.q, kind.kv);
  spec.scales = kind.scales;
  spec.shape.page_tokens = choice.of(5, std::array{16, 64, 16, 64, 8, 32, 256});
  spec.shape.trained_context = choice.of(6, std::array{4096, 1024, 700});
  spec.layout = static_cast<Layout>(choice(7, 4));
  spec.pad = static_cast<int>(choice(8, 3));
  spec.plan = plan_of(choice(9, 4));
  spec.plan.lists = per_head ? Lists::kv_head : Lists::layer;
  spec.plan.scan = static_cast<Scan>(choice(10, 5));
  spec.plan.pool = static_cast<Pool>(choice(11, 3));
  spec.plan.tail = choice.of(12, std::array{0, 7, 64});
  spec.tier = choice(13, 4) == 3 ? KernelTier::portable : KernelTier::best;
  spec.texts = texts_of(choice(14, 4));
  const size_t feature = choice(15, kFeatureNames.size());
  set_feature(feature, i, spec);
  spec.seed = 100 + i;
  spec.name = "c" + std::to_string(i) + "_" + type_name(kind.q) + "_" + type_name(kind.kv) + kScaleNames[static_cast<size_t>(kind.scales)] +
              "_d" + std::to_string(d) + "_g" + std::to_string(group) + "_p" + std::to_string(spec.shape.page_tokens) + "_" +
              kLayoutNames[static_cast<size_t>(spec.layout)] + "_" + kScanNames[static_cast<size_t>(spec.plan.scan)] + "_" +
              kPoolNames[static_cast<size_t>(spec.plan.pool)] + (per_head ? "_per_head" : "") + kFeatureNames[feature] +
              (feature == 6 ? kPositionNames[static_cast<size_t>(spec.plan.positions)] : "") +
              (spec.tier == KernelTier::portable ? "_portable" : "");
  return spec;
}

PagedSpec named(std::string name, AttentionPlan plan, std::vector<Text> texts) {
  PagedSpec spec;
  spec.name = std::move(name);
  spec.shape = shape_of(4, 2, 64, ElementType::bf16, ElementType::bf16);
  spec.plan = std::move(plan);
  spec.texts = std::move(texts);
  return spec;
}

}  // namespace

std::vector<PagedSpec> grid() {
  std::vector<PagedSpec> specs;
  for (size_t i = 0; i < kCases; ++i) specs.push_back(case_of(i));
  return specs;
}

namespace {

bool scores_means(const LayerPlan& layer) {
  return std::any_of(layer.stages.begin(), layer.stages.end(),
                     [](const StagePlan& stage) { return stage.piece > 1 || stage.row_piece > 1; });
}

}  // namespace

std::vector<PagedSpec> with_summaries(const std::vector<PagedSpec>& specs) {
  std::vector<PagedSpec> all;
  for (const PagedSpec& spec : specs) {
    const LayerPlan layer = spec.plan.layer(spec.layer);
    if (layer.mode != Mode::stages || spec.shape.sliding_window > 0 || scores_means(layer)) continue;
    const int widest = std::min({64, spec.shape.page_tokens, layer.stages.front().chunk / 4});
    if (widest < 4) continue;
    all.push_back(spec);
    all.back().summary_step = std::max(4, widest >> all.size() % 3);
  }
  return all;
}

std::vector<PagedSpec> trees() {
  const std::vector<Text> texts = {{2100, 150}, {700, 65}, {1301, 1}, {450, 3}, {1, 1}};
  std::vector<PagedSpec> all;
  const auto add = [&](const std::string& name, int64_t window, TreePlan tree) -> PagedSpec& {
    all.push_back(named("tree_" + name, tree_plan(64, window, tree), texts));
    all.back().plan.tail = 5;
    return all.back();
  };
  add("pairs", 128, {.k = 128, .query_stride = 2, .key_block = 2});
  add("per_head", 128, {.k = 96, .query_stride = 1, .key_block = 2, .rep = Representative::last}).plan.lists = Lists::kv_head;
  add("long_blocks", 192, {.k = 256, .query_stride = 4, .key_block = 16, .key_stride = 4, .rep = Representative::first});
  add("single_keys", 64, {.k = 600, .query_stride = 64, .key_block = 1}).plan.positions = Positions::true_positions;
  add("indexed", 128, {.k = 128, .query_stride = 2, .key_block = 4, .key_stride = 2}).plan.scan = Scan::chunk_indexed;
  add("dynamic_d128", 128, {.k = 128, .query_stride = 2, .key_block = 8}).plan.scan = Scan::dynamic_extend;
  all.back().shape = shape_of(32, 2, 128, ElementType::bf16, ElementType::bf16);
  all.back().tier = KernelTier::portable;
  add("e4m3_d128", 128, {.k = 128, .query_stride = 2, .key_block = 2, .key_stride = 2});
  all.back().shape = shape_of(8, 2, 128, ElementType::bf16, ElementType::e4m3);
  all.back().scales = Scales::exact;
  add("many_branches", 64, {.k = 1200, .query_stride = 8, .key_block = 1, .rep = Representative::last});
  all.back().texts = {{2900, 40}, {1500, 70}};
  return all;
}

std::vector<PagedSpec> specials() {
  std::vector<PagedSpec> all;
  const std::vector<Text> texts = {{2100, 150}, {700, 65}};
  all.push_back(
      named("four_stages", stages_plan(64, 256, {{128, 0, 64, 4}, {32, 768, 64, 4}, {8, 256, 64, 2}, {4, 128, 64, 1}}, 64), texts));
  all.push_back(named("chunks_of_one", stages_plan(0, 64, {{4, 0, 64, 4}, {1, 128, 64, 1}}, 48), {{700, 65}, {190, 3}}));
  all.push_back(named("long_chunks", stages_plan(0, 1024, {{512, 0, 64, 4}, {256, 1024, 64, 1}}, 512), {{3000, 70}}));
  all.push_back(named("divided_indices", stages_plan(64, 64, {{4, 0, 64, 4}}, 64), texts));
  all.back().plan.scan = Scan::chunk_indexed;
  all.back().shape.trained_context = 384;
  all.push_back(named("few_rounds", stages_plan(64, 256, {{64, 0, 64, 4, 1}, {16, 1024, 64, 4, 2}, {8, 512, 64, 1, 3}}, 256), texts));
  all.push_back(named("one_round", stages_plan(64, 256, {{32, 0, 64, 1, 4}, {4, 512, 64, 16, 1}, {2, 256, 64, 4, 1}}, 128), texts));
  all.push_back(named("window_alone", stages_plan(0, 128, {{64, 0, 64, 64}, {8, 64, 64, 64}}, 8), texts));
  all.push_back(named("long_tail", small_plan(), {{1300, 200}, {900, 20}, {140, 140}}));
  all.back().plan.tail = 100;
  all.push_back(named("single_rows", small_plan(), {{1300, 1}, {1301, 1}, {65, 1}, {449, 1}, {1, 1}}));
  all.push_back(named("dense_below", small_plan(), {{1100, 700}}));
  all.back().plan.dense_below = 704;
  all.push_back(named("first_layer", small_plan(), texts));
  all.back().plan.first = FirstLayers{1, 384, Scan::chunk_indexed};
  all.push_back(all.back());
  all.back().name = "second_layer";
  all.back().layer = 1;
  all.push_back(named("streaming", streaming_plan(), texts));
  all.push_back(named("dense", AttentionPlan{}, {{700, 300}, {1, 1}, {65, 65}}));
  all.push_back(named("nothing_turns", small_plan(), texts));
  all.back().shape.rope.frequencies.clear();
  all.push_back(named("rotated_at_true_positions", small_plan(), texts));
  all.back().shape.keys_rotated = true;
  all.back().plan.positions = Positions::true_positions;
  all.back().plan.scan = Scan::dynamic_extend;
  all.push_back(named("many_texts", small_plan(), std::vector<Text>(40, {470, 3})));
  for (size_t i = 0; i < all.back().texts.size(); i += 3) all.back().texts[i] = {static_cast<int64_t>(i), i % 2 == 0 ? 0 : 1};
  return all;
}

std::vector<PagedSpec> moving_positions() {
  using enum ElementType;
  const std::vector<Text> texts = {{2100, 150}, {700, 65}, {1301, 1}, {449, 70}, {1, 1}};
  std::vector<PagedSpec> all;
  const auto add = [&](Positions positions, const std::string& name, PagedShape shape) -> PagedSpec& {
    all.push_back(named(std::string("at_") + kPositionNames[static_cast<size_t>(positions)] + "_" + name, small_plan(), texts));
    all.back().shape = std::move(shape);
    all.back().shape.trained_context = 1024;  // the longer texts are squeezed
    all.back().plan.positions = positions;
    all.back().plan.tail = 5;
    return all.back();
  };
  for (const Positions positions : {Positions::streaming, Positions::infllm, Positions::dynamic_extend}) {
    add(positions, "bf16_d64", shape_of(8, 2, 64, bf16, bf16)).gain = 2;
    add(positions, "bf16_d128", shape_of(4, 2, 128, bf16, bf16)).plan.lists = Lists::kv_head;
    add(positions, "e4m3_d64", shape_of(16, 1, 64, bf16, e4m3)).scales = Scales::exact;
    add(positions, "e4m3_d128", shape_of(32, 2, 128, bf16, e4m3)).plan.scan = Scan::chunk_indexed;
    all.back().scales = Scales::token;
    add(positions, "pairs", shape_of(4, 2, 64, bf16, bf16)).layout = Layout::head_major;
    set_rope(all.back().shape, 32, RopePairs::interleaved, 1.2);
    add(positions, "window_alone", shape_of(4, 2, 128, bf16, bf16)).plan = streaming_plan();
    all.back().plan.positions = positions;
    add(positions, "tree", shape_of(4, 2, 64, bf16, bf16)).plan = tree_plan(0, 128, {.k = 128, .query_stride = 2, .key_block = 2});
    all.back().plan.positions = positions;
  }
  add(Positions::dynamic_extend, "f16_d256", shape_of(3, 3, 256, f16, f16));
  add(Positions::infllm, "i8_d96", shape_of(6, 2, 96, bf16, i8)).scales = Scales::exact;
  add(Positions::dynamic_extend, "sliding", shape_of(4, 2, 64, bf16, bf16)).shape.sliding_window = 100;
  add(Positions::dynamic_extend, "rotated", shape_of(4, 2, 64, bf16, bf16)).shape.keys_rotated = true;
  all.back().shape.trained_context = 4096;
  return all;
}

std::vector<PagedSpec> samples() {
  std::vector<PagedSpec> all;
  for (const KernelTier tier : {KernelTier::best, KernelTier::portable}) {
    const std::string suffix = tier == KernelTier::best ? "" : "_portable";
    all.push_back(named("bf16_d64" + suffix, small_plan(), {{1500, 97}, {64, 0}, {65, 2}, {449, 70}, {1021, 130}}));
    all.back().plan.tail = 8;
    all.back().tier = tier;
    all.push_back(named("e4m3_d128" + suffix, small_plan(), {{1, 1}, {1300, 131}, {257, 257}, {900, 1}}));
    all.back().shape = shape_of(8, 2, 128, ElementType::bf16, ElementType::e4m3);
    all.back().shape.page_tokens = 16;
    all.back().scales = Scales::token;
    all.back().plan.lists = Lists::kv_head;
    all.back().plan.scan = Scan::chunk_indexed;
    all.back().layout = Layout::head_major;
    all.back().tier = tier;
  }
  all.push_back(named("contiguous_sliding", small_plan(), {{300, 90}, {701, 64}, {5, 5}}));
  all.back().layout = Layout::contiguous;
  all.back().shape.sliding_window = 100;
  all.push_back(trees().front());
  all.push_back(pieces().front());
  return all;
}

std::vector<PagedSpec> decode_grid() {
  const std::vector<Text> texts = {{1600, 1}, {443, 1}, {30, 1}, {1, 1}, {1217, 1}};
  std::vector<PagedSpec> all;
  const auto add = [&](const std::string& name, PagedShape shape) -> PagedSpec& {
    all.push_back(named(name, small_plan(), texts));
    all.back().shape = std::move(shape);
    return all.back();
  };
  using enum ElementType;
  add("bf16_d64", shape_of(8, 2, 64, bf16, bf16));
  add("bf16_d128", shape_of(8, 2, 128, bf16, bf16)).plan.scan = Scan::chunk_indexed;
  add("e4m3_d128_exact", shape_of(4, 1, 128, bf16, e4m3)).scales = Scales::exact;
  add("e4m3_d64_tensor", shape_of(16, 1, 64, bf16, e4m3)).scales = Scales::tensor;
  add("f16_d128", shape_of(6, 2, 128, f16, f16)).plan.scan = Scan::self_extend;
  add("i8_d64_exact", shape_of(8, 1, 64, bf16, i8)).scales = Scales::exact;
  add("bf16_d256", shape_of(3, 3, 256, bf16, bf16));
  add("bf16_d96", shape_of(6, 2, 96, bf16, bf16)).plan.scan = Scan::infllm;
  add("per_head", shape_of(8, 4, 64, bf16, bf16)).plan.lists = Lists::kv_head;
  add("dynamic_per_head", shape_of(6, 2, 128, bf16, e4m3)).plan.lists = Lists::kv_head;
  all.back().plan.scan = Scan::dynamic_extend;
  all.back().scales = Scales::exact;
  all.back().shape.trained_context = 1024;
  add("group_16", shape_of(32, 2, 128, bf16, bf16)).layout = Layout::head_major;
  add("contiguous_p16", shape_of(4, 2, 128, bf16, bf16)).layout = Layout::contiguous;
  all.back().shape.page_tokens = 16;
  add("softcap", shape_of(4, 2, 64, bf16, bf16)).shape.softcap = 2;
  add("sliding", shape_of(4, 2, 64, bf16, bf16)).shape.sliding_window = 100;
  add("sliding_1", shape_of(4, 2, 64, bf16, bf16)).shape.sliding_window = 1;
  add("rotated", shape_of(4, 2, 64, bf16, bf16)).shape.keys_rotated = true;
  add("true_positions", shape_of(4, 2, 64, bf16, bf16)).plan.positions = Positions::true_positions;
  add("partial_rope", shape_of(4, 2, 128, bf16, bf16));
  set_rope(all.back().shape, 64, RopePairs::halves, 1.2);
  add("peaked_padded", shape_of(4, 2, 128, bf16, bf16)).gain = 3;
  all.back().pad = 2;
  all.back().layout = Layout::together;
  add("two_stages", shape_of(4, 2, 64, bf16, bf16)).plan = stages_plan(64, 128, {{32, 0, 64, 4}, {8, 256, 64, 2}}, 128);
  add("one_stage", shape_of(4, 2, 64, bf16, bf16)).plan = stages_plan(0, 64, {{16, 0, 64, 4}}, 64);
  add("dense_below", shape_of(4, 2, 64, bf16, bf16)).plan.dense_below = 1608;
  for (const PagedSpec& special : specials()) {
    if (special.name != "streaming" && special.name != "dense" && special.name != "four_stages" && special.name != "few_rounds" &&
        special.name != "one_round")
      continue;
    add(special.name, special.shape).plan = special.plan;
  }
  for (PagedSpec& moving : moving_positions()) {
    moving.texts = texts;
    moving.plan.tail = 0;
    all.push_back(std::move(moving));
  }
  for (PagedSpec& piece : pieces()) {
    piece.texts = texts;
    all.push_back(std::move(piece));
  }
  for (const PagedSpec& tree : trees()) {
    if (tree.plan.tree->k <= 128) add(tree.name, tree.shape).plan = tree.plan;
  }
  return all;
}

PagedSpec small_spec(ElementType q, ElementType kv, int page_tokens) {
  PagedSpec spec = named(std::string(type_name(q)) + "_" + type_name(kv) + "_p" + std::to_string(page_tokens),
                         stages_plan(0, 32, {{16, 0, 64, 4}, {8, 64, 64, 1}}, 32), {{200, 70}, {1, 1}, {65, 1}});
  spec.shape = shape_of(2, 1, 64, q, kv);
  spec.shape.page_tokens = page_tokens;
  spec.scales = q == kv ? Scales::none : Scales::exact;
  spec.plan.tail = 3;
  return spec;
}

}  // namespace bough::test
