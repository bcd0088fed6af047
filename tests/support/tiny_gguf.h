// Tiny random models as GGUF files, and GGUF files with any contents, for tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bough/status.h"

namespace bough {

// A GGUF file under construction: keys and tensors in order, values as raw bytes, nothing checked.
class GgufBuilder {
 public:
  // Adds the key, or replaces its value. Type numbers are GGUF's.
  void set(std::string_view key, uint32_t value);
  void set(std::string_view key, int32_t value);
  void set(std::string_view key, uint64_t value);
  void set(std::string_view key, float value);
  void set(std::string_view key, bool value);
  void set(std::string_view key, std::string_view value);
  void set(std::string_view key, const char* value) { set(key, std::string_view(value)); }
  void set(std::string_view key, const std::vector<std::string>& values);
  void set(std::string_view key, const std::vector<int32_t>& values);
  void set(std::string_view key, const std::vector<float>& values);
  void set(std::string_view key, const std::vector<bool>& values);
  void erase(std::string_view key);

  // Adds the tensor, or replaces one of that name. dims[0] is contiguous; `type` is a ggml_type.
  void set_tensor(std::string_view name, int type, std::vector<int64_t> dims, std::vector<std::byte> data);
  void set_tensor(std::string_view name, std::vector<int64_t> dims, const std::vector<float>& values);  // f32
  void erase_tensor(std::string_view name);

  std::vector<std::byte> build() const;

 private:
  struct Entry {
    std::string key;
    uint32_t type = 0;
    std::string value;  // as in the file, after the type
  };
  struct Tensor {
    std::string name;
    int type = 0;
    std::vector<int64_t> dims;
    std::vector<std::byte> data;
  };

  void put(std::string_view key, uint32_t type, std::string value);

  std::vector<Entry> entries_;
  std::vector<Tensor> tensors_;
};

// A model with random weights: normal, standard deviation 1 / sqrt(columns), norms about 1, biases of deviation 0.3.
struct TinyModel {
  std::string arch = "llama";
  int layers = 2;
  int d_model = 64;
  int heads = 4;
  int kv_heads = 2;
  int head_dim = 0;  // 0: d_model / heads
  int ffn = 128;
  int64_t trained_context = 8192;
  double rope_base = 10000.0;
  double rope_scale = 1.0;    // linear scaling of positions; 1 writes no key
  bool rope_factors = false;  // rope_freqs.weight rising from 1 to 8, as Llama 3's does
  bool tied = true;           // no output.weight
  int type = 0;               // ggml_type of the matrices: 0 f32, 1 f16, 2 q4_0, 8 q8_0, ...
  float qk_gain = 1.0f;       // factor on q and k: above 1 attention is more peaked
  bool chat_template = true;  // ChatML
  bool biases = false;        // every bias that files of the family may have; qwen2 has those of q, k and v in any case
  bool fused_qkv = false;     // one tensor for q, k and v; phi3 has that in any case

  std::string rope_scaling = "linear";  // none, linear, yarn or longrope; none of its keys is written for linear by 1
  int64_t original_context = 0;         // before scaling; 0 writes no key
  double rope_magnitude = 1.0;          // attn_factor; 1 writes no key
  int rope_dims = 0;                    // elements of a head that turn; 0: all
  bool long_factors = false;            // rope_factors_short.weight rises from 1 to 2, rope_factors_long.weight from 1 to 8
  int sliding_window = 0;               // 0 writes no key
  int sliding_period = -1;              // -1 writes no key
  bool sliding_array = false;           // the period as one boolean a layer
  double sliding_rope_base = 0;         // 0 writes no key
  double attention_softcap = 0;         // 0 writes no key
  double logit_softcap = 0;             // 0 writes no key
};

// The vocabulary is byte-level BPE: <|endoftext|>, <|im_start|>, <|im_end|> (control tokens 0, 1, 2), the 256 bytes, a few merges.
inline constexpr int kTinyEos = 2;
int tiny_vocab_size();

// The same seed gives the same bytes. Errors: invalid_argument (a row is no multiple of the type's block).
Result<GgufBuilder> build_tiny_model(const TinyModel& spec, uint64_t seed);
Status write_tiny_gguf(const std::string& path, const TinyModel& spec, uint64_t seed);

// Errors: io_error.
Status write_bytes(const std::string& path, const std::vector<std::byte>& bytes);

}  // namespace bough
