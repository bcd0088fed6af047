// How every call of the attention library's C ABI is wrapped.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "bough/attention_c.h"
#include "bough/paged_attention.h"

namespace bough::c_attention {

// Copies a sentence, cut to fit.
inline void hand_out(std::string_view text, char* message, size_t room) noexcept {
  if (message == nullptr || room == 0) return;
  const size_t bytes = std::min(text.size(), room - 1);
  std::memcpy(message, text.data(), bytes);
  message[bytes] = '\0';
}

// Runs one call; its Status and its exceptions become a code and a sentence.
template <typename Body>
int32_t guarded(char* message, size_t room, const Body& body) noexcept {
  try {
    const Status status = body();
    hand_out(status.message(), message, room);
    return static_cast<int32_t>(status.code());
  } catch (const std::bad_alloc&) {
    hand_out("no memory for a call", message, room);
    return BOUGH_ATTENTION_OUT_OF_MEMORY;
  } catch (const std::exception& e) {
    hand_out(e.what(), message, room);
  } catch (...) {
    hand_out("a call failed", message, room);
  }
  return BOUGH_ATTENTION_INTERNAL;
}

// Errors: invalid_argument, when a pointer that a call needs is NULL.
Status check_given(const void* pointer, const char* name);

// Errors: invalid_argument (a type or a pair layout that is none, frequencies that are missing).
Result<PagedShape> shape_of(const bough_attention_shape& shape);

}  // namespace bough::c_attention
