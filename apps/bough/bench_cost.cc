#include "bench_cost.h"

#include <cstdio>

#include <nlohmann/json.hpp>

#include "attention/cost.h"
#include "base/check.h"
#include "format.h"
#include "input.h"

namespace bough::cli {
namespace {

constexpr int64_t kShortest = 4'096;
constexpr int64_t kLongest = 1'048'576;
constexpr double kTera = 1e12;

void print_cost(const std::string& plan, int64_t length, const PlanCost& cost, double linear_flops, bool json) {
  if (json) {
    const nlohmann::ordered_json line = {{"what", "cost"},
                                         {"plan", plan},
                                         {"length", length},
                                         {"keys_scored", cost.keys_scored},
                                         {"keys_attended", cost.keys_attended},
                                         {"search_flops", cost.search_flops},
                                         {"attention_flops", cost.attention_flops},
                                         {"linear_flops", linear_flops}};
    print_line(line.dump());
    return;
  }
  const std::string name = plan.size() > 12 ? plan.substr(0, 10) + ".." : plan;
  std::printf("%-12s %10s %14s %14s %12s %12s %12s\n", name.c_str(), grouped(length).c_str(), fixed(cost.keys_scored, 0).c_str(),
              fixed(cost.keys_attended, 0).c_str(), fixed(cost.search_flops / kTera, 2).c_str(),
              fixed(cost.attention_flops / kTera, 2).c_str(), fixed(linear_flops / kTera, 2).c_str());
}

// Of one layer's projections.
double layer_weights(const ModelInfo& info) {
  const double heads = 2.0 * (info.heads + info.kv_heads) * info.head_dim;
  return static_cast<double>(info.d_model) * (heads + 3.0 * static_cast<double>(info.ffn));
}

}  // namespace

Status bench_cost(const ModelOptions& model, const std::vector<std::string>& plans, std::vector<int64_t> lengths, bool json) {
  if (lengths.empty()) {
    for (int64_t length = kShortest; length <= kLongest; length *= 2) lengths.push_back(length);
  }
  if (!json) {
    std::printf("%-12s %10s %14s %14s %12s %12s %12s\n", "plan", "tokens", "keys scored", "keys attended", "search TFLOP", "attend TFLOP",
                "linear TFLOP");
  }
  for (const std::string& plan : plans) {
    BOUGH_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, open_engine(model, plan));
    BOUGH_ASSIGN_OR_RETURN(const std::string label, plan_label(plan));
    const ModelInfo& info = engine->info();
    const HeadShape heads{.heads = info.heads, .kv_heads = info.kv_heads, .head_dim = info.head_dim};
    for (const int64_t length : lengths) {
      const double linear = 2.0 * layer_weights(info) * info.layers * static_cast<double>(length);
      print_cost(label, length, plan_cost(engine->plan(), heads, info.layers, length), linear, json);
    }
  }
  return Status();
}

}  // namespace bough::cli
