#include "model/family.h"

#include <algorithm>
#include <array>

namespace bough {

std::span<const Family> families() {
  static const std::array all = {llama_family(), qwen2_family(), qwen3_family()};
  return all;
}

const Family* find_family(std::string_view architecture) {
  const auto found = std::find_if(families().begin(), families().end(), [&](const Family& f) { return f.architecture == architecture; });
  return found == families().end() ? nullptr : &*found;
}

std::string family_names() {
  std::string names;
  for (const Family& family : families()) {
    if (!names.empty()) names += &family == &families().back() ? " and " : ", ";
    names += "'" + std::string(family.architecture) + "'";
  }
  return names;
}

}  // namespace bough
