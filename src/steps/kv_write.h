// kv_write: k and v of the batch's rows go to their pages, rounded once to the cache's type; keys are stored un-rotated.
// REQUIRES: a sequence's rows follow one another in the batch and in its text, and the rows before them are stored.
#pragma once

#include "steps/batch.h"

namespace bough {

struct KvWriteArgs {
  const Batch* batch = nullptr;
  KvShape shape;
  int layer = 0;
  const float* k = nullptr;  // [t, hkv, d]
  const float* v = nullptr;  // [t, hkv, d]
};

}  // namespace bough
