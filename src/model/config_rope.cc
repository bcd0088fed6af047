#include "model/config_rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.h"
#include "ggml.h"
#include "model/errors.h"

namespace bough {
namespace {

constexpr uint64_t kMaxRopeDims = 1u << 20;
constexpr int64_t kMaxOriginalContext = int64_t{1} << 30;
constexpr double kMaxRopeScale = 1e6;
constexpr double kMaxRopeFactor = 1e6;

constexpr double kMaxBeta = 1e6;

std::optional<RopeScaling> scaling_named(std::string_view name) {
  if (name == "none") return RopeScaling::none;
  if (name == "linear") return RopeScaling::linear;
  if (name == "yarn") return RopeScaling::yarn;
  if (name == "longrope") return RopeScaling::longrope;
  return std::nullopt;
}

Status read_scale(const ConfigReader& reader, RopeConfig& rope) {
  if (rope.scaling == RopeScaling::none) return {};
  // Old files name the factor scale_linear; 0 means no scaling there.
  for (const char* name : {"rope.scale_linear", "rope.scaling.factor"}) {
    if (!reader.has(name)) continue;
    const Result<double> found = reader.file().get_f64(reader.key(name));
    if (found.ok() && *found == 0) continue;
    BOUGH_RETURN_IF_ERROR(reader.read_positive(name, kMaxRopeScale, std::nullopt, rope.scale));
  }
  if (rope.scaling == RopeScaling::linear && rope.scale == 1.0) rope.scaling = RopeScaling::none;
  return {};
}

Status read_rope_scaling(const ConfigReader& reader, int64_t trained_context, RopeConfig& rope) {
  std::string_view type;
  BOUGH_RETURN_IF_ERROR(reader.read_text("rope.scaling.type", "linear", type));
  const std::optional<RopeScaling> scaling = scaling_named(type);
  if (!scaling) {
    return unsupported("the position scaling " + in_quotes(type) + " is not supported, 'none', 'linear', 'yarn' and 'longrope' are");
  }
  rope.scaling = *scaling;
  BOUGH_RETURN_IF_ERROR(read_scale(reader, rope));
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.scaling.attn_factor", kMaxRopeScale, 1.0, rope.magnitude));
  uint64_t original = 0;
  const auto most = static_cast<uint64_t>(kMaxOriginalContext);
  BOUGH_RETURN_IF_ERROR(reader.read("rope.scaling.original_context_length", 1, most, static_cast<uint64_t>(trained_context), original));
  rope.original_context = static_cast<int64_t>(original);
  if (rope.scaling != RopeScaling::yarn) return {};
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.scaling.yarn_beta_fast", kMaxBeta, 32.0, rope.beta_fast));
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.scaling.yarn_beta_slow", kMaxBeta, 1.0, rope.beta_slow));
  if (rope.beta_fast < rope.beta_slow) {
    return corrupt("the key " + in_quotes(reader.key("rope.scaling.yarn_beta_fast")) + " is " + number_text(rope.beta_fast) +
                   ", it must be at least the slow one, " + number_text(rope.beta_slow));
  }
  if (rope.base <= 1)
    return corrupt("the key " + in_quotes(reader.key("rope.freq_base")) + " is " + number_text(rope.base) +
                   ", with YaRN it must be above 1");
  if (rope.scale > 1) rope.magnitude *= 1.0 + 0.1 * std::log(rope.scale);
  return {};
}

// Leaves `factors` empty when there is no such tensor.
Status read_factors(const GgufFile& file, const std::string& name, int pairs, std::vector<float>& factors) {
  const TensorInfo* tensor = file.find_tensor(name);
  if (tensor == nullptr) return {};
  if (tensor->type != GGML_TYPE_F32 || tensor->n_dims != 1 || tensor->dims[0] != pairs) {
    return corrupt("the tensor " + in_quotes(name) + " is " + std::string(ggml_type_name(static_cast<ggml_type>(tensor->type))) +
                   " of shape " + shape_text(*tensor) + ", it must be f32 of shape [" + std::to_string(pairs) + "]");
  }
  factors.resize(static_cast<size_t>(pairs));
  std::memcpy(factors.data(), file.data(*tensor).data(), factors.size() * sizeof(float));
  for (size_t i = 0; i < factors.size(); ++i) {
    const float factor = factors[i];
    if (!(factor > 0) || factor > kMaxRopeFactor) {
      return corrupt("value " + std::to_string(i) + " of the tensor " + in_quotes(name) + " is " + number_text(factor) +
                     ", it must be above 0 and at most " + number_text(kMaxRopeFactor));
    }
  }
  return {};
}

Status read_longrope(const ConfigReader& reader, RopeConfig& rope) {
  BOUGH_RETURN_IF_ERROR(read_factors(reader.file(), kShortFactors, rope.dims / 2, rope.factors));
  BOUGH_RETURN_IF_ERROR(read_factors(reader.file(), kLongFactors, rope.dims / 2, rope.long_factors));
  const bool wanted = rope.scaling == RopeScaling::longrope;
  for (const auto& [name, factors] : {std::pair(kShortFactors, &rope.factors), std::pair(kLongFactors, &rope.long_factors)}) {
    if (factors->empty() && (wanted || !rope.factors.empty() || !rope.long_factors.empty())) {
      return corrupt("the tensor " + in_quotes(name) + " is missing, longrope scaling needs it");
    }
  }
  if (!rope.factors.empty()) rope.scaling = RopeScaling::longrope;
  return {};
}

// By how much of `scale` pair i is not divided: 1 where it turns quickly, 0 where it turns slowly.
double yarn_kept(const RopeConfig& rope, size_t i) {
  const auto pair_of = [&rope](double turns) {
    return rope.dims * std::log(static_cast<double>(rope.original_context) / (turns * 2 * M_PI)) / (2 * std::log(rope.base));
  };
  const double first = std::max(0.0, std::floor(pair_of(rope.beta_fast)));
  const double last = std::min(rope.dims - 1.0, std::ceil(pair_of(rope.beta_slow)));
  return 1.0 - std::clamp((static_cast<double>(i) - first) / std::max(0.001, last - first), 0.0, 1.0);
}

}  // namespace

Status read_rope(const ConfigReader& reader, const Family& family, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.layout = family.rope_layout;
  uint64_t dims = 0;
  const auto head_dim = static_cast<uint64_t>(config.head_dim);
  BOUGH_RETURN_IF_ERROR(reader.read("rope.dimension_count", 1, kMaxRopeDims, head_dim, dims));
  if (dims != head_dim && !family.partial_rotation) {
    return unsupported("the model rotates " + std::to_string(dims) + " of the " + std::to_string(head_dim) +
                       " elements of a head, for the architecture " + in_quotes(config.architecture) + " only all of them are supported");
  }
  if (dims > head_dim || dims % 2 != 0) {
    return corrupt("the key " + in_quotes(reader.key("rope.dimension_count")) + " is " + std::to_string(dims) +
                   ", it must be even and at most the head dimension " + std::to_string(head_dim));
  }
  uint64_t sliding_dims = 0;
  BOUGH_RETURN_IF_ERROR(reader.read("rope.dimension_count_swa", 1, kMaxRopeDims, dims, sliding_dims));
  if (sliding_dims != dims) {
    return unsupported("sliding layers rotate " + std::to_string(sliding_dims) + " elements of a head, the others " + std::to_string(dims) +
                       ", which is not supported");
  }
  rope.dims = static_cast<int>(dims);
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.freq_base", std::numeric_limits<float>::max(), 10000.0, rope.base));
  BOUGH_RETURN_IF_ERROR(read_rope_scaling(reader, config.trained_context, rope));
  if (family.tensors.rope_freqs) BOUGH_RETURN_IF_ERROR(read_factors(reader.file(), kRopeFreqs, rope.dims / 2, rope.factors));
  if (family.tensors.long_factors && rope.factors.empty()) return read_longrope(reader, rope);
  if (rope.scaling != RopeScaling::longrope) return {};
  return unsupported("the position scaling 'longrope' is not supported for the architecture " + in_quotes(config.architecture) +
                     (rope.factors.empty() ? "" : " beside the tensor " + in_quotes(kRopeFreqs)));
}

RopeParams rope_params(const RopeConfig& rope, int64_t positions) {
  RopeParams params;
  params.layout = rope.layout;
  params.dims = rope.dims;
  params.magnitude = rope.magnitude;
  params.frequencies.resize(static_cast<size_t>(rope.dims / 2));
  const std::vector<float>& factors = !rope.long_factors.empty() && positions > rope.original_context ? rope.long_factors : rope.factors;
  for (size_t i = 0; i < params.frequencies.size(); ++i) {
    const double factor = factors.empty() ? 1.0 : static_cast<double>(factors[i]);
    const double kept = rope.scaling == RopeScaling::yarn ? yarn_kept(rope, i) : 0.0;
    params.frequencies[i] = std::pow(rope.base, -2.0 * static_cast<double>(i) / rope.dims) / factor * (kept + (1.0 - kept) / rope.scale);
  }
  return params;
}

}  // namespace bough
