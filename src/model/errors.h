// The two ways in which a model file is refused.
#pragma once

#include <string>
#include <utility>

#include "bough/status.h"

namespace bough {

inline Status corrupt(std::string message) { return Status(Code::corrupt, std::move(message)); }
inline Status unsupported(std::string message) { return Status(Code::unsupported, std::move(message)); }

}  // namespace bough
