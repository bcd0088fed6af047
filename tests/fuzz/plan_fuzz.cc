// Any JSON text as an attention plan: a valid plan survives printing, fits or is refused; everything else is one sentence.
#include <cstddef>
#include <cstdint>
#include <string>

#include "bough/attention.h"
#include "fuzz/property.h"

using namespace bough;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = "{" + std::string(reinterpret_cast<const char*>(data), size);  // anything else would be a file's name
  const Result<AttentionPlan> plan = parse_plan(text);
  fuzz::require_sentence(plan.status());
  if (!plan.ok()) return 0;
  fuzz::require(validate_plan(*plan).ok(), "a parsed plan is valid");
  const Result<AttentionPlan> again = parse_plan(plan_json(*plan));
  fuzz::require(again.ok() && *again == *plan, "a printed plan parses to itself");
  for (const bool is_explicit : {false, true}) {
    const Result<FittedPlan> fitted = fit_plan(*plan, 8192, is_explicit);
    fuzz::require_sentence(fitted.status());
    if (fitted.ok()) fuzz::require(fitted->plan.context_tokens() <= 8192, "a fitted plan fits");
  }
  return 0;
}
