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

// What silu and gelu_tanh divide g by is 1 + e^-z; z is kept from where e^-z overflows.
template <Activation kind, typename Tag>
HWY_INLINE void activate(Tag tag, const float* gate, const float* up, float* y) {
  const auto g = hn::LoadU(tag, gate);
  auto z = g;
  if constexpr (kind == Activation::gelu_tanh) {
    const auto cubic = hn::MulAdd(hn::Mul(g, g), hn::Set(tag, static_cast<float>(2 * kGeluSlope * kGeluCubic)),
                                  hn::Set(tag, static_cast<float>(2 * kGeluSlope)));
    z = hn::Mul(g, cubic);
  }
  const auto e = hn::Exp(tag, hn::Neg(hn::Max(z, hn::Set(tag, -80.0F))));
  hn::StoreU(hn::Mul(hn::Div(g, hn::Add(hn::Set(tag, 1.0F), e)), hn::LoadU(tag, up)), tag, y);
}

template <Activation kind>
void activate_range(const float* gate, const float* up, int64_t count, float* y) {
  const hn::ScalableTag<float> tag;
  const hn::CappedTag<float, 1> one;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) activate<kind>(tag, gate + i, up + i, y + i);
  for (; i < count; ++i) activate<kind>(one, gate + i, up + i, y + i);
}

void silu_range(const float* gate, const float* up, int64_t count, float* y) { activate_range<Activation::silu>(gate, up, count, y); }

void gelu_tanh_range(const float* gate, const float* up, int64_t count, float* y) {
  activate_range<Activation::gelu_tanh>(gate, up, count, y);
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(silu_range);
HWY_EXPORT(gelu_tanh_range);

void activation(const ActivationArgs& a) {
  constexpr int64_t range_size = 4096;
  const auto range = a.kind == Activation::silu ? HWY_DYNAMIC_DISPATCH(silu_range) : HWY_DYNAMIC_DISPATCH(gelu_tanh_range);
#pragma omp parallel for schedule(static) if (a.count > range_size)
  for (int64_t i = 0; i < a.count; i += range_size) range(a.gate + i, a.up + i, std::min(range_size, a.count - i), a.y + i);
}

}  // namespace bough::cpu
#endif
