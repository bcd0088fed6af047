// Model families: what distinguishes the files and the graph of one architecture from those of the others.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "bough/status.h"
#include "model/config.h"
#include "model/config_reader.h"

namespace bough {

// Which tensors a family has beside those of all families. Fused or apart, q, k and v and their optional biases belong to all.
struct FamilyTensors {
  bool head_norms = false;     // attn_q_norm and attn_k_norm, before the rotation
  bool post_norms = false;     // post_attention_norm and post_ffw_norm, of what is added to x
  bool fused_gate_up = false;  // ffn_up holds the rows of the gate, then those of up
  bool layer_biases = false;   // attn_output, ffn_gate, ffn_up and ffn_down may have biases
  bool output_bias = false;    // so may the output projection
  bool rope_freqs = false;     // rope_freqs.weight may hold factors of the frequencies
};

struct Family {
  std::string_view architecture;  // as `general.architecture` names it
  RopeLayout rope_layout = RopeLayout::halves;
  FamilyTensors tensors;
  // Reads what only this family has, after everything that all families share.
  Status (*read)(const ConfigReader& reader, ModelConfig& config) = nullptr;
};

Family llama_family();
Family qwen2_family();
Family qwen3_family();

// In the order in which messages name them.
std::span<const Family> families();

// Null when there is none of that name.
const Family* find_family(std::string_view architecture);

// "'llama', 'qwen2' and 'qwen3'".
std::string family_names();

}  // namespace bough
