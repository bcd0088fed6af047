#include "attention/paged_shape.h"

#include <cstdio>

#include "base/check.h"

namespace bough {
namespace {

constexpr int kMostGroup = 16;
constexpr int kMostKvHeads = 32;

Status check_not_negative(const char* field, float value) {
  if (value >= 0) return {};
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
  return {Code::invalid_argument, std::string(field) + " is " + text + ", it must be 0 or more"};
}

Status check_rope(const PagedShape& s) {
  const auto dims = static_cast<int64_t>(s.rope.frequencies.size()) * 2;
  if (dims <= s.head_dim && dims % 16 == 0) return {};
  return must_be("rope.frequencies has room for elements, whose number", dims,
                 "a multiple of 16 up to the head dim, " + std::to_string(s.head_dim));
}

}  // namespace

Status must_be(const std::string& field, int64_t value, const std::string& limit) {
  return {Code::invalid_argument, field + " is " + std::to_string(value) + ", it must be " + limit};
}

Status check_paged_shape(const PagedShape& s) {
  if (s.kv_heads < 1 || s.kv_heads > kMostKvHeads) return must_be("kv_heads", s.kv_heads, "1 to " + std::to_string(kMostKvHeads));
  if (s.heads < 1 || s.heads % s.kv_heads != 0 || s.heads / s.kv_heads > kMostGroup) {
    return must_be("heads", s.heads, "a multiple of kv_heads, " + std::to_string(s.kv_heads) + ", and at most 16 times as many");
  }
  if (s.head_dim != 64 && s.head_dim != 96 && s.head_dim != 128 && s.head_dim != 256) {
    return must_be("head_dim", s.head_dim, "64, 96, 128 or 256");
  }
  if (s.sliding_window < 0) return must_be("sliding_window", s.sliding_window, "0 or more");
  if (s.trained_context < 1) return must_be("trained_context", s.trained_context, "1 or more");
  BOUGH_RETURN_IF_ERROR(check_not_negative("scale", s.scale));
  BOUGH_RETURN_IF_ERROR(check_not_negative("softcap", s.softcap));
  return s.keys_rotated ? Status() : check_rope(s);
}

Status check_rotated_length(const std::string& field, int64_t length, const PagedShape& s) {
  if (!s.keys_rotated || length <= s.trained_context) return {};
  return must_be(
      field, length,
      "at most trained_context, " + std::to_string(s.trained_context) + ", where keys come rotated: their positions cannot be re-assigned");
}

}  // namespace bough
