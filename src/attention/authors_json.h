// The configuration format of InfiniteHiP's authors (--hip-attention-config), read as an AttentionPlan.
#pragma once

#include "attention/json_read.h"

namespace bough::plan {

// Told by its keys: those of the whole format, or a `layers` whose first entry is the authors' and not a LayerOverride.
bool is_authors_json(const Json& object);

// What it means here:
//   - layers and prefill_layers have to be equal; two entries are [special, ordinary], otherwise entry i is layer i and the last one
//     is every further layer's. dense_layers (0, 1, 2, 3, 31 unless given) names the special layers; they are not dense.
//   - scan_extend_backend and sa_extend_backend become scan and positions. using_extend false means true positions in both.
//   - What this project decides otherwise stays its own: lists of a layer, mean pooling, the prompt's tail.
// The result is not validated. Errors: invalid_argument, unsupported; both name the field.
Result<AttentionPlan> authors_plan(const Json& object);

}  // namespace bough::plan
