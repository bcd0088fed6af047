#include "steps/activation.h"

#include <algorithm>

#include "cpu/model_bodies.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/activation.cc"
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
HWY_INLINE void silu(Tag tag, const float* gate, const float* up, float* y) {
  const auto g = hn::LoadU(tag, gate);
  const auto e = hn::Exp(tag, hn::Neg(hn::Max(g, hn::Set(tag, -80.0F))));
  hn::StoreU(hn::Mul(hn::Div(g, hn::Add(hn::Set(tag, 1.0F), e)), hn::LoadU(tag, up)), tag, y);
}

void silu_range(const float* gate, const float* up, int64_t count, float* y) {
  const hn::ScalableTag<float> tag;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) silu(tag, gate + i, up + i, y + i);
  for (; i < count; ++i) silu(one, gate + i, up + i, y + i);
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(silu_range);

void activation(const ActivationArgs& a) {
  constexpr int64_t range_size = 4096;
  const auto range = HWY_DYNAMIC_DISPATCH(silu_range);
#pragma omp parallel for schedule(static) if (a.count > range_size)
  for (int64_t i = 0; i < a.count; i += range_size) range(a.gate + i, a.up + i, std::min(range_size, a.count - i), a.y + i);
}

}  // namespace bough::cpu
#endif
