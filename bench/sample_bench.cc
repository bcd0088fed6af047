// Choosing one token from a row of 49,152 logits (the default model's vocabulary), for every body and for the options that cost most.
// A decode step of that model takes some milliseconds; these are to be a small part of it.
//
// A line: options, body, best and median microseconds of a token, and the sum of the tokens as a checksum.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "steps/model_bodies.h"

namespace bough {
namespace {

constexpr size_t kVocab = 49152;
constexpr uint64_t kDraws = 200;

struct Case {
  const char* name;
  SampleArgs args;
};

const Case kCases[] = {
    {"greedy", {.temperature = 0}},
    {"temperature 1", {.temperature = 1}},
    {"temperature 1, top-k 40", {.temperature = 1, .top_k = 40}},
    {"temperature 1, top-p 0.95", {.temperature = 1, .top_p = 0.95F}},
    {"temperature 1, top-k 40, top-p 0.95, min-p 0.05", {.temperature = 1, .top_k = 40, .top_p = 0.95F, .min_p = 0.05F}},
};

void run(const Case& what, const ModelBodies& bodies, const std::vector<float>& logits) {
  std::vector<double> micros;
  int64_t checksum = 0;
  SampleArgs args = what.args;
  args.logits = logits.data();
  args.vocab = static_cast<int64_t>(logits.size());
  for (args.step = 0; args.step < kDraws; ++args.step) {
    const auto start = std::chrono::steady_clock::now();
    const Result<TokenId> token = bodies.sample(args);
    micros.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
    checksum += token.ok() ? *token : -1;
  }
  std::sort(micros.begin(), micros.end());
  std::printf("%-50s %-4s %8.0f %8.0f us  %lld\n", what.name, std::string(bodies.name).c_str(), micros.front(), micros[kDraws / 2],
              static_cast<long long>(checksum));
}

}  // namespace
}  // namespace bough

int main() {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> logits(bough::kVocab);
  for (float& logit : logits) logit = normal(random);
  for (size_t i = 0; i < 20; ++i) logits[i * 2000] += 10;
  for (const bough::Case& what : bough::kCases) {
    for (const bough::ModelBodies& bodies : bough::model_bodies()) run(what, bodies, logits);
  }
  return 0;
}
