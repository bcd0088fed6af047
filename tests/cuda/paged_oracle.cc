#include "cuda/paged_oracle.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "attention/decode.h"
#include "attention/refresh.h"
#include "cuda/search_margins.h"
#include "steps/kv_row.h"

namespace bough::test {
namespace {

AttentionSetup setup_of(const PagedCase& c) {
  const PagedShape& s = c.shape();
  const DType type = s.q_type == ElementType::bf16 && c.is_bf16() ? DType::bf16 : DType::f32;
  const int layers = c.spec().layer + 1;
  LayerAttention attention;
  attention.sliding_window = s.sliding_window;
  return {c.spec().plan,     {type, layers, s.kv_heads, s.head_dim}, {s.heads, s.kv_heads, s.head_dim, c.scale(), s.softcap},
          s.trained_context, pick_attention_bodies(type, "ref"),     std::vector<LayerAttention>(static_cast<size_t>(layers), attention)};
}

// Keys that come turned stay as they are: nothing turns.
RopeTable rope_of(const PagedCase& c, const AttentionSetup& setup) {
  const PagedShape& s = c.shape();
  RopeParams params;
  params.layout = s.rope.pairs == RopePairs::halves ? RopeLayout::halves : RopeLayout::interleaved;
  if (!s.keys_rotated) {
    params.dims = static_cast<int>(s.rope.frequencies.size()) * 2;
    params.frequencies = s.rope.frequencies;
    params.magnitude = s.rope.magnitude;
  }
  RopeTable table(std::move(params));
  table.reserve(setup.rope_positions(0, c.limits().length + 64));
  return table;
}

void store_text(const PagedCase& c, const KvShape& kv, int text, PageTable pages) {
  for (int64_t token = 0; token < c.capacity(text); ++token) {
    for (int head = 0; head < kv.kv_heads; ++head) {
      store_token(kv, pages, kv.k_offset(c.spec().layer, head), token, c.row(true, text, token, head).data());
      store_token(kv, pages, kv.v_offset(c.spec().layer, head), token, c.row(false, text, token, head).data());
    }
  }
}

void attend_blocks(const Oracle& oracle, const Batch& batch, std::span<const float> q, const BlockList& lists, Output& out) {
  AttendArgs args;
  args.batch = &batch;
  args.kv = oracle.setup().kv;
  args.heads = oracle.setup().heads;
  args.layer = oracle.layer_index();
  args.q = q.data();
  args.lists = lists;
  args.rope = &oracle.rope();
  args.window = oracle.paged_case().window();
  args.positions = oracle.setup().positions(oracle.layer_index());
  args.o = out.o.data();
  args.lse = out.lse.data();
  oracle.setup().bodies->attend(args);
}

Output empty_output(const HeadShape& heads, int64_t rows) {
  Output out;
  out.o.assign(static_cast<size_t>(rows * heads.heads * heads.head_dim), NAN);
  out.lse.assign(static_cast<size_t>(rows * heads.heads), NAN);
  return out;
}

}  // namespace

Oracle::Oracle(const PagedCase& c) : case_(c), setup_(setup_of(c)), rope_(rope_of(c, setup_)) {
  const size_t page_bytes = setup_.kv.page_bytes();
  std::vector<size_t> pages;
  for (size_t i = 0; i < c.spec().texts.size(); ++i) {
    pages.push_back(static_cast<size_t>((c.capacity(static_cast<int>(i)) + kPageTokens - 1) / kPageTokens));
  }
  pool_.resize(std::accumulate(pages.begin(), pages.end(), size_t{0}) * page_bytes);
  std::byte* next = pool_.data();
  for (size_t i = 0; i < pages.size(); ++i) {
    std::vector<std::byte*> table;
    for (size_t p = 0; p < pages[i]; ++p, next += page_bytes) table.push_back(next);
    tables_.push_back(std::move(table));
    const int text = static_cast<int>(i);
    store_text(c, setup_.kv, text, this->pages(text, c.capacity(text)));
  }
}

Batch Oracle::batch(std::span<const Part> parts) const {
  Batch batch;
  const bool chooses = !setup_.is_sliding(layer_index()) && layer().mode != Mode::dense;
  for (const Part& part : parts) {
    const auto seq = static_cast<int32_t>(batch.sequences.size());
    batch.sequences.push_back(pages(part.text, part.length));
    const int64_t begin = part.length - part.rows, tail = chooses ? part.length - setup_.plan.tail : part.length;
    const auto row = static_cast<int32_t>(batch.rows());
    for (int64_t p = begin; p < part.length;) {
      const int64_t next = p >= tail ? p + 1 : std::min({part.length, (p / 64 + 1) * 64, tail});
      batch.blocks.push_back({seq, row + static_cast<int32_t>(p - begin), static_cast<int32_t>(next - p), p});
      p = next;
    }
    batch.ids.resize(batch.ids.size() + static_cast<size_t>(part.rows));
  }
  return batch;
}

BlockChoice Oracle::prune_block(const Batch& batch, size_t index, std::span<const float> q) const {
  Batch one;
  one.sequences = batch.sequences;
  one.blocks = {batch.blocks[index]};
  const QueryBlock& block = one.blocks.front();
  Pruner pruner(&setup_);
  const BlockList lists = pruner.run(one, layer_index(), q.data(), rope_, {});
  BlockChoice choice{block.seq, block.row, block.rows, block.r0, lists.w0[0], context_of(lists, block, 0, 0).sinks, lists.count[0], {}};
  for (int head = 0; head < lists.list_heads; ++head) {
    choice.starts.emplace_back(lists.list(0, head), lists.list(0, head) + choice.count);
  }
  return choice;
}

std::vector<BlockChoice> Oracle::prune(const Batch& batch, std::span<const float> q) const {
  std::vector<BlockChoice> choices(batch.blocks.size());
#pragma omp parallel for schedule(dynamic)
  for (size_t b = 0; b < choices.size(); ++b) choices[b] = prune_block(batch, b, q);
  return choices;
}

Output Oracle::attend(const Batch& batch, std::span<const float> q, std::span<const BlockChoice> choices) const {
  Output out = empty_output(setup_.heads, batch.rows());
#pragma omp parallel for schedule(dynamic)
  for (size_t b = 0; b < choices.size(); ++b) {
    const BlockChoice& choice = choices[b];
    Batch one;
    one.sequences = batch.sequences;
    one.blocks = {batch.blocks[b]};
    std::vector<int32_t> starts;
    for (const std::vector<int32_t>& list : choice.starts) starts.insert(starts.end(), list.begin(), list.end());
    const auto count = static_cast<int32_t>(choice.count);
    attend_blocks(
        *this, one, q,
        {&choice.w0, starts.data(), &count, static_cast<int>(choice.starts.size()), choice.count, layer().last_chunk(), choice.sinks}, out);
  }
  return out;
}

bool Oracle::sees_all(int64_t length) const { return setup_.is_sliding(layer_index()) || setup_.is_dense(layer_index(), length); }

DecodeOracle::DecodeOracle(const Oracle& oracle, int text)
    : oracle_(oracle), text_(text), doubts_(std::max<size_t>(1, oracle.layer().stages.size())) {
  state_.layers.resize(static_cast<size_t>(oracle.layer_index()) + 1);
}

Batch DecodeOracle::batch(int64_t length) const {
  Batch batch;
  batch.sequences = {oracle_.pages(text_, length)};
  batch.blocks = {{0, 0, 1, length - 1}};
  batch.ids.resize(1);
  batch.decode_rows = 1;
  return batch;
}

DecodeOracle::Step DecodeOracle::step(int64_t length) {
  const Batch batch = this->batch(length);
  const std::vector<float> q = oracle_.paged_case().query(text_, length - 1);
  AttentionState* states[] = {&state_};
  const bool searched = layer_state().searched;
  const int due = first_refreshed_stage(oracle_.layer().refresh, state_.counter);
  Pruner pruner(&oracle_.setup());
  const int layer = oracle_.layer_index();
  const BlockList lists = pruner.run(batch, layer, q.data(), oracle_.rope(), states);
  const Status renewed = renew_working_sets(oracle_.setup(), batch, layer, lists, pruner.refreshed(), oracle_.rope(), states);
  EXPECT_TRUE(renewed.ok()) << renewed.message();
  if (pruner.refreshed()[0] != 0) note_doubts(batch, q, searched ? due : 0);
  state_.counter += 1;
  const bool pruned = layer_state().holds == LayerState::Holds::pruned;
  return {attend(batch, q), pruned && doubts_.back(), layer_state().holds};
}

// What a stage chose is in doubt where its own cut is close or what entered it is in doubt.
void DecodeOracle::note_doubts(const Batch& batch, std::span<const float> q, int first) {
  const LayerState& state = layer_state();
  const SearchMargins margins(oracle_, batch, 0, q);
  for (auto stage = static_cast<size_t>(first); stage < oracle_.layer().stages.size(); ++stage) {
    bool close = stage > 0 && doubts_[stage - 1];
    for (int head = 0; head < oracle_.setup().list_heads(); ++head) {
      std::vector<Candidate> candidates;
      if (stage == 0) {
        candidates = margins.grid(state.w0);
      } else {
        const StageInput& input = state.inputs[stage - 1];
        for (int32_t i = 0; i < input.count; ++i)
          candidates.push_back({input.start[static_cast<size_t>(head) * static_cast<size_t>(input.count) + static_cast<size_t>(i)]});
      }
      for (const Candidate& c : margins.survivors(head, static_cast<int>(stage), std::move(candidates), state.w0)) close |= !c.certain;
    }
    doubts_[stage] = close;
  }
}

Output DecodeOracle::attend(const Batch& batch, std::span<const float> q) const {
  const LayerState& state = layer_state();
  std::vector<Context> contexts;
  frozen_contexts(oracle_.layer(), oracle_.setup().list_heads(), state, batch.blocks[0].r1(), contexts);
  const auto count = static_cast<int32_t>(contexts[0].selected / contexts[0].chunk);
  Output out = empty_output(oracle_.setup().heads, 1);
  attend_blocks(
      oracle_, batch, q,
      {&state.w0, state.selected.data(), &count, oracle_.setup().list_heads(), state.selected_count, contexts[0].chunk, contexts[0].sinks},
      out);
  return out;
}

}  // namespace bough::test
