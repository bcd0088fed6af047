// How deep a Jinja template nests, by a scan that allocates nothing and recurses nowhere.
#pragma once

#include <string_view>

namespace bough {

// The most brackets ( [ { open at once inside one tag, plus the blocks ({% if %}, {% for %}, ...) open around it. Strings, comments
// and the text between tags do not count.
int template_depth(std::string_view source);

}  // namespace bough
