// Status and Result: how every Bough call reports failure. The library never throws across its API, never aborts and never prints.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace bough {

enum class Code : uint8_t {
  ok,
  invalid_argument,  // a value from the caller is outside its documented range
  not_found,         // a file, preset or name does not exist
  unsupported,       // well-formed, but not implemented by this build or body
  corrupt,           // a file's contents contradict themselves or its format
  out_of_memory,
  io_error,
  cancelled,
  internal,
};

std::string_view code_name(Code code);

// Success, or a code with one sentence that names the offending value and the limit. Cheap to return on success.
class [[nodiscard]] Status {
 public:
  Status() = default;  // ok
  Status(Code code, std::string message);

  bool ok() const { return state_ == nullptr; }
  Code code() const { return state_ ? state_->code : Code::ok; }
  const std::string& message() const;

 private:
  struct State {
    Code code;
    std::string message;
  };
  std::shared_ptr<const State> state_;
};

// A T, or the Status that explains why there is none. REQUIRES: value(), * and -> only when ok().
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<1>, std::move(value)) {}
  Result(Status status) : state_(std::in_place_index<0>, std::move(status)) {}

  bool ok() const { return state_.index() == 1; }
  Status status() const { return ok() ? Status() : std::get<0>(state_); }
  T& value() { return std::get<1>(state_); }
  const T& value() const { return std::get<1>(state_); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<Status, T> state_;
};

}  // namespace bough
