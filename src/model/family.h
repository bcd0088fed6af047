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
  bool long_factors = false;   // so may rope_factors_short.weight and rope_factors_long.weight
};

struct Family {
  std::string_view architecture;  // as `general.architecture` names it
  RopeLayout rope_layout = RopeLayout::halves;
  FamilyTensors tensors;
  bool partial_rotation = false;  // fewer elements than a head has may turn
  bool sliding_window = false;    // `read` takes care of the file's sliding window
  // Reads what only this family has, after everything that all families share.
  Status (*read)(const ConfigReader& reader, ModelConfig& config) = nullptr;
};

inline constexpr const char* kRopeFreqs = "rope_freqs.weight";
inline constexpr const char* kShortFactors = "rope_factors_short.weight";
inline constexpr const char* kLongFactors = "rope_factors_long.weight";

// For Family::read. A window of `window` tokens slides in the layers that the file's pattern tells: an array of booleans, or a period of
// which the last layer sees all keys; without one the period is `period`, where 0 means that the window slides in every layer.
Status read_sliding_pattern(const ConfigReader& reader, int64_t window, int period, ModelConfig& config);
// The key `attention.sliding_window`; 0 where the file has none, or one that holds all of the trained context.
Status read_window(const ConfigReader& reader, uint64_t fallback, int64_t trained_context, int64_t& window);
// What Gemma 2 and 3 share: the embedding's scale, GELU, the query's scale (`widest` is the number of layers of the largest model,
// which has one of its own).
void set_gemma(ModelConfig& config, int widest);

Family llama_family();
Family qwen2_family();
Family qwen3_family();
Family gemma2_family();
Family gemma3_family();
Family phi3_family();

// In the order in which messages name them.
std::span<const Family> families();

// Null when there is none of that name.
const Family* find_family(std::string_view architecture);

// "'llama', 'qwen2' and 'qwen3'".
std::string family_names();

}  // namespace bough
