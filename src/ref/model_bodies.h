// Scalar fp32 bodies of the model's other steps.
#pragma once

#include "steps/model_bodies.h"

namespace bough::ref {

void embed(const EmbedArgs& args);
void norm(const NormArgs& args);
void linear(std::span<const LinearArgs> products);
void linear_int8(const LinearArgs& args);  // the product in 8 bits, whatever the phase
void activation(const ActivationArgs& args);
void softcap(const SoftcapArgs& args);
void top(const TopArgs& args);
Result<TokenId> sample(const SampleArgs& args);

}  // namespace bough::ref
