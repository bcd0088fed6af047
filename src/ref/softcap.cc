#include "steps/softcap.h"

#include <cmath>

#include "ref/model_bodies.h"

namespace bough::ref {

void softcap(const SoftcapArgs& a) {
  for (int64_t i = 0; i < a.count; ++i) a.x[i] = a.cap * std::tanh(a.x[i] / a.cap);
}

}  // namespace bough::ref
