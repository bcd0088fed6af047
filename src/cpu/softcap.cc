#include "steps/softcap.h"

#include <algorithm>

#include "cpu/model_bodies.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/softcap.cc"
// foreach_target.h must come before the others.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename Tag>
HWY_INLINE void cap_lanes(Tag tag, float cap, float* x) {
  const auto caps = hn::Set(tag, cap);
  hn::StoreU(hn::Mul(caps, hn::Tanh(tag, hn::Div(hn::LoadU(tag, x), caps))), tag, x);
}

void softcap_range(float* x, int64_t count, float cap) {
  const hn::ScalableTag<float> tag;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) cap_lanes(tag, cap, x + i);
  for (; i < count; ++i) cap_lanes(one, cap, x + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(softcap_range);

void softcap(const SoftcapArgs& a) {
  constexpr int64_t range_size = 4096;
  const auto range = HWY_DYNAMIC_DISPATCH(softcap_range);
#pragma omp parallel for schedule(static) if (a.count > range_size)
  for (int64_t i = 0; i < a.count; i += range_size) range(a.x + i, std::min(range_size, a.count - i), a.cap);
}

}  // namespace bough::cpu
#endif
