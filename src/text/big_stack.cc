#include "text/big_stack.h"

#include <pthread.h>

#include <exception>
#include <new>
#include <string>
#include <vector>

namespace bough {
namespace {

struct Call {
  const std::function<Status(int)>* body = nullptr;
  int number = 0;
  pthread_t thread = {};
  Status result;
};

void* enter(void* argument) {
  auto* call = static_cast<Call*>(argument);
  call->result = run_guarded([call] { return (*call->body)(call->number); });
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

Status run_on_big_stacks(size_t stack_bytes, int threads, const std::function<Status(int)>& body) {
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return {Code::out_of_memory, "Not enough memory to start a thread."};
  int error = pthread_attr_setstacksize(&attributes, stack_bytes);
  std::vector<Call> calls(static_cast<size_t>(threads));
  size_t started = 0;
  while (error == 0 && started < calls.size()) {
    Call& call = calls[started];
    call.body = &body;
    call.number = static_cast<int>(started);
    error = pthread_create(&call.thread, &attributes, enter, &call);
    if (error == 0) ++started;
  }
  pthread_attr_destroy(&attributes);
  for (size_t i = 0; i < started; ++i) pthread_join(calls[i].thread, nullptr);
  for (size_t i = 0; i < started; ++i) {
    if (!calls[i].result.ok()) return calls[i].result;
  }
  if (error == 0) return {};
  return {Code::out_of_memory,
          "Cannot start a thread with a stack of " + std::to_string(stack_bytes >> 20) + " MiB (error " + std::to_string(error) + ")."};
}

}  // namespace bough
