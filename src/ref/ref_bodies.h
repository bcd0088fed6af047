// The scalar fp32 bodies: the oracle of every attention step.
#pragma once

#include "steps/attention_bodies.h"

namespace bough::ref {

void kv_write(const KvWriteArgs& args);
void scan(const ScanArgs& args);
void select(const SelectArgs& args);
void split(const SplitArgs& args);
void tree(const TreeArgs& args);
void attend(const AttendArgs& args);
void merge(const MergeArgs& args);
bool working_set_reserve(const KvShape& shape, int64_t keys, WorkingSet& set);
void working_set_build(const WorkingSetArgs& args);
void attend_cached(const AttendCachedArgs& args);
void key_means(const KeyMeansArgs& args);

AttentionBodies bodies();

}  // namespace bough::ref
