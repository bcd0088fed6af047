#include "bough/status.h"

namespace bough {

std::string_view code_name(Code code) {
  switch (code) {
    case Code::ok: return "ok";
    case Code::invalid_argument: return "invalid argument";
    case Code::not_found: return "not found";
    case Code::unsupported: return "unsupported";
    case Code::corrupt: return "corrupt";
    case Code::out_of_memory: return "out of memory";
    case Code::io_error: return "i/o error";
    case Code::cancelled: return "cancelled";
    case Code::internal: return "internal";
  }
  return "unknown";
}

Status::Status(Code code, std::string message) : state_(std::make_shared<const State>(State{code, std::move(message)})) {}

const std::string& Status::message() const {
  static const std::string empty;
  return state_ ? state_->message : empty;
}

}  // namespace bough
