// Text from files and from stdin, checked before any of it reaches the engine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bough/status.h"

namespace bough::cli {

// Offset of the first byte that is not part of valid UTF-8 (overlong forms and surrogates are not valid); -1 when all is.
int64_t invalid_utf8(std::string_view text);

// The whole of a text file; "-" is stdin. A byte order mark is dropped. Errors: not_found, invalid_argument (a directory, an empty
// file, a NUL byte, not UTF-8), io_error.
Result<std::string> read_text(const std::string& path);

// Where a file stands in a text of several.
struct TextPart {
  std::string path;
  size_t begin = 0;  // bytes [begin, end) of the text
  size_t end = 0;
  size_t skipped = 0;  // bytes of the file before them: a byte order mark
};

struct Texts {
  std::string all;
  std::vector<TextPart> parts;
};

// One text of all files in order; with more than one, a line that names it stands before each.
Result<Texts> read_texts(const std::vector<std::string>& paths);

// Errors: invalid_argument when an argument that is meant as text is not valid UTF-8; `name` is how the sentence calls it.
Status check_text(std::string_view text, const std::string& name);

}  // namespace bough::cli
