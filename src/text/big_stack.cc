#include "text/big_stack.h"

#include <pthread.h>

#include <exception>
#include <new>
#include <string>

namespace bough {
namespace {

struct Call {
  const std::function<Status()>* body;
  Status result;
};

void* enter(void* argument) {
  auto* call = static_cast<Call*>(argument);
  call->result = run_guarded(*call->body);
  return nullptr;
}

}  // namespace

Status run_guarded(const std::function<Status()>& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return {Code::out_of_memory, "Not enough memory to process the text."};
  } catch (const std::exception& e) {
    return {Code::internal, std::string("The text library failed: ") + e.what() + "."};
  }
}

Status run_on_big_stack(size_t stack_bytes, const std::function<Status()>& body) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return {Code::out_of_memory, "Not enough memory to start a thread."};
  Call call{&body, {}};
  pthread_t thread;
  int error = pthread_attr_setstacksize(&attributes, stack_bytes);
  if (error == 0) error = pthread_create(&thread, &attributes, enter, &call);
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    return {Code::out_of_memory,
            "Cannot start a thread with a stack of " + std::to_string(stack_bytes >> 20) + " MiB (error " + std::to_string(error) + ")."};
  }
  pthread_join(thread, nullptr);
  return call.result;
}

}  // namespace bough
