// The CPU bodies of the attention steps, over a set of tile kernels.
#pragma once

#include "cpu/tile.h"
#include "steps/attention_bodies.h"

namespace bough::cpu {

void kv_write(const KvWriteArgs& args);
void select(const SelectArgs& args);
void split(const SplitArgs& args);
void merge(const MergeArgs& args);
void key_means(const KeyMeansArgs& args);

void scan(const TileOps& ops, const ScanArgs& args);
// scan where chunks are scored by pieces.
void scan_pieces(const TileOps& ops, const ScanArgs& args);
void tree(const TileOps& ops, const TreeArgs& args);
void attend(const TileOps& ops, const AttendArgs& args);
bool working_set_reserve(const TileOps& ops, const KvShape& shape, int64_t keys, WorkingSet& set);
void working_set_build(const TileOps& ops, const WorkingSetArgs& args);
void attend_cached(const TileOps& ops, const AttendCachedArgs& args);

// By AMX; REQUIRES tile_amx().
AttentionBodies bodies_amx();
// By AVX-512 BF16; REQUIRES tile_bf16().
AttentionBodies bodies_bf16();
AttentionBodies bodies_f32();

}  // namespace bough::cpu
