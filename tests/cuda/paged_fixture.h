// What tests of PagedAttention begin with.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "cuda/paged_oracle.h"

namespace bough::test {

// Makes `run` of a PagedCase; leaves the test where the build or the device has no kernels for it.
#define BOUGH_MAKE_RUN(run, paged_case)                                                                                         \
  auto run##_result = PagedRun::create(paged_case);                                                                             \
  if (!run##_result.ok() && run##_result.status().code() == Code::unsupported) GTEST_SKIP() << run##_result.status().message(); \
  ASSERT_TRUE(run##_result.ok()) << code_name(run##_result.status().code()) << ": " << run##_result.status().message();         \
  const PagedRun& run = **run##_result

// Blocks and windows are the oracle's, lists are ascending, within their bounds and as many as `count` says. False where reading on would
// make no sense.
bool well_formed(const Oracle& oracle, const Batch& batch, const std::vector<BlockChoice>& got, const std::vector<BlockChoice>& want);

// A prefill of all texts: blocks well formed, outputs the oracle's over the same lists.
void expect_oracles_prefill(const PagedCase& c);

}  // namespace bough::test
