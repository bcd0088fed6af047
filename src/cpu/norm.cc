#include "steps/norm.h"

#include <cmath>

#include "cpu/model_bodies.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cpu/norm.cc"
// foreach_target.h must come before the others.
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bough::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void norm_row(const float* x, const float* weight, int64_t n, float eps, bool add, float* y) {
  const hn::ScalableTag<float> tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  auto sums = hn::Zero(tag);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto v = hn::LoadU(tag, x + i);
    sums = hn::MulAdd(v, v, sums);
  }
  float sum = hn::GetLane(hn::SumOfLanes(tag, sums));
  for (; i < n; ++i) sum += x[i] * x[i];
  const float scale = 1.0F / std::sqrt(sum / static_cast<float>(n) + eps);
  const auto scales = hn::Set(tag, scale);
  for (i = 0; i + lanes <= n; i += lanes) {
    const auto normed = hn::Mul(hn::Mul(hn::LoadU(tag, x + i), scales), hn::LoadU(tag, weight + i));
    hn::StoreU(add ? hn::Add(hn::LoadU(tag, y + i), normed) : normed, tag, y + i);
  }
  for (; i < n; ++i) {
    const float normed = x[i] * scale * weight[i];
    y[i] = add ? y[i] + normed : normed;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace bough::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bough::cpu {

HWY_EXPORT(norm_row);

void norm(const NormArgs& a) {
  const auto row = HWY_DYNAMIC_DISPATCH(norm_row);
#pragma omp parallel for schedule(static) if (a.rows > 1)
  for (int64_t t = 0; t < a.rows; ++t) row(a.x + t * a.n, a.weight, a.n, a.eps, a.add, a.y + t * a.n);
}

}  // namespace bough::cpu
#endif
