// Rotary positions of a model file.
#pragma once

#include "bough/status.h"
#include "model/config.h"
#include "model/config_reader.h"
#include "model/family.h"

namespace bough {

// REQUIRES: config.head_dim is read.
Status read_rope(const ConfigReader& reader, const Family& family, ModelConfig& config);

}  // namespace bough
