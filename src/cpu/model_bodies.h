// CPU bodies of the model's other steps.
#pragma once

#include "steps/model_bodies.h"

namespace bough::cpu {

void embed(const EmbedArgs& args);
void norm(const NormArgs& args);
void linear(std::span<const LinearArgs> products);
void activation(const ActivationArgs& args);
void softcap(const SoftcapArgs& args);
void top(const TopArgs& args);
Result<TokenId> sample(const SampleArgs& args);

}  // namespace bough::cpu
