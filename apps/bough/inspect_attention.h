// bough inspect --attention TEXT: one head's attention over a text, drawn, beside what a plan kept of it.
#pragma once

#include <string>

#include "cli.h"

namespace bough::cli {

struct AttentionOptions {
  std::string text;  // a file; empty: not asked for
  int layer = 0;
  int head = 0;
  int64_t query = -1;  // position; -1: the last token
  int blocks = 5;      // of the heaviest ones that were missed, shown
  std::string out = "attention.svg";
};

void add_attention_options(CLI::App& command, AttentionOptions& options);
// The exit code.
int inspect_attention(const ModelOptions& model, const std::string& plan, const AttentionOptions& options, bool json);

}  // namespace bough::cli
