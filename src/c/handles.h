// What the handles of the C ABI hold, and how every call of it is wrapped.
#pragma once

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <type_traits>

#include "bough/c.h"
#include "bough/engine.h"

struct bough_status {
  bough::Status status;
};
struct bough_engine {
  std::unique_ptr<bough::Engine> engine;
};
struct bough_session {
  std::unique_ptr<bough::Session> session;
  size_t vocab = 0;
};
struct bough_generation {
  bough::Generation generation;
};

namespace bough::c {

// NULL for success. Never throws: without memory it is a status that lives for ever.
bough_status* status_of(const Status& status) noexcept;

// Runs one call; exceptions become a status.
template <typename Body>
bough_status* guarded(const Body& body) noexcept {
  try {
    return status_of(body());
  } catch (const std::bad_alloc&) {
    return status_of(Status(Code::out_of_memory, "no memory for a call"));
  } catch (const std::exception& e) {
    try {
      return status_of(Status(Code::internal, std::string("a call failed: ") + e.what()));
    } catch (...) {
      return status_of(Status());
    }
  } catch (...) {
    return status_of(Status(Code::internal, "a call failed"));
  }
}

// Errors: invalid_argument, when a pointer that a call needs is NULL.
Status check_given(const void* pointer, const char* name);

// The caller's struct, and the defaults in the fields that it does not know. Errors: invalid_argument (size).
template <typename Options>
Result<Options> complete(const Options* given, void (*init)(Options*, size_t), const char* name) {
  static_assert(std::is_trivially_copyable_v<Options>);
  Options options;
  init(&options, sizeof options);
  if (given == nullptr) return options;
  if (given->size < sizeof(size_t) || given->size > sizeof options) {
    return Status(Code::invalid_argument, std::string(name) + ".size is " + std::to_string(given->size) + ", this library knows up to " +
                                              std::to_string(sizeof options) + "; set it with its init function");
  }
  std::memcpy(&options, given, given->size);
  return options;
}

// Sets the first `size` bytes of the caller's struct to those of `defaults`, its size field to `size`.
template <typename Options>
void set_defaults(Options* options, size_t size, Options defaults) {
  if (options == nullptr) return;
  defaults.size = size;
  std::memset(static_cast<void*>(options), 0, size);
  std::memcpy(static_cast<void*>(options), &defaults, std::min(size, sizeof defaults));
}

// Copies with malloc, so that bough_free takes all of them.
Status hand_out(const std::string& text, char** out, size_t* bytes);
Status hand_out(const std::vector<TokenId>& tokens, int32_t** out, size_t* count);

}  // namespace bough::c
