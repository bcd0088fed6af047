// Attention plans: prints the presets, or one plan with another number of selected tokens.
//   example_plan [PRESET|JSON|FILE K]
#include <bough/attention.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  if (argc < 3) {
    for (const std::string& name : bough::preset_names()) {
      const auto plan = bough::parse_plan(name);
      if (!plan.ok()) return 1;
      std::cout << name << ": a query sees " << plan->context_tokens() << " keys at most\n";
    }
    return 0;
  }
  auto plan = bough::parse_plan(argv[1]);
  if (!plan.ok()) {
    std::cerr << plan.status().message() << "\n";
    return 1;
  }
  plan->k = std::atoll(argv[2]);
  if (const bough::Status checked = bough::validate_plan(*plan); !checked.ok()) {
    std::cerr << checked.message() << "\n";
    return 1;
  }
  std::cout << bough::plan_json(*plan) << "\n";
  return 0;
}
