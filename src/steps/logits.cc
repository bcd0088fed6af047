#include <algorithm>

#include "steps/model_bodies.h"

namespace bough {

void run_logits(const ModelBodies& bodies, const LogitsArgs& a) {
  const int64_t d = a.output.cols;
  for (int64_t i = 0; i < a.count; ++i) std::copy_n(a.x + static_cast<int64_t>(a.rows[i]) * d, d, a.normed + i * d);
  bodies.norm({a.normed, a.norm_weight, a.count, d, a.eps, a.normed});
  const int64_t decoding = std::lower_bound(a.rows, a.rows + a.count, static_cast<int32_t>(a.decode_rows)) - a.rows;
  LinearArgs part{a.normed, decoding, a.output, Phase::decode, false, a.logits, a.packed, a.bias};
  if (decoding > 0) bodies.linear({&part, 1});
  part.x += decoding * d;
  part.y += decoding * a.output.rows;
  part.rows = a.count - decoding;
  part.phase = Phase::prefill;
  part.precise = true;
  if (part.rows > 0) bodies.linear({&part, 1});
  if (a.softcap > 0) bodies.softcap({a.logits, a.count * a.output.rows, a.softcap});
}

}  // namespace bough
