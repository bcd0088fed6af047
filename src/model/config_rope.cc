#include "model/config_rope.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "ggml.h"
#include "model/errors.h"

namespace bough {
namespace {

constexpr uint64_t kMaxRopeDims = 1u << 20;
constexpr double kMaxRopeScale = 1e6;
constexpr double kMaxRopeFactor = 1e6;

Status read_rope_scaling(const ConfigReader& reader, RopeConfig& rope) {
  std::string_view type;
  BOUGH_RETURN_IF_ERROR(reader.read_text("rope.scaling.type", "linear", type));
  if (type == "none") return {};
  if (type != "linear") return unsupported("the position scaling " + in_quotes(type) + " is not supported, 'none' and 'linear' are");
  double factor = 1.0, attention = 1.0;
  // Old files name the factor scale_linear; 0 means no scaling there.
  for (const char* name : {"rope.scale_linear", "rope.scaling.factor"}) {
    if (!reader.has(name)) continue;
    const Result<double> found = reader.file().get_f64(reader.key(name));
    if (found.ok() && *found == 0) continue;
    BOUGH_RETURN_IF_ERROR(reader.read_positive(name, kMaxRopeScale, std::nullopt, factor));
  }
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.scaling.attn_factor", kMaxRopeScale, 1.0, attention));
  if (attention != 1.0)
    return unsupported("the attention factor " + number_text(attention) + " of the position scaling is not supported, 1 is");
  rope.scale = factor;
  return {};
}

Status read_rope_factors(const GgufFile& file, RopeConfig& rope) {
  const TensorInfo* tensor = file.find_tensor("rope_freqs.weight");
  if (tensor == nullptr) return {};
  const int pairs = rope.dims / 2;
  if (tensor->type != GGML_TYPE_F32 || tensor->n_dims != 1 || tensor->dims[0] != pairs) {
    return corrupt("the tensor 'rope_freqs.weight' is " + std::string(ggml_type_name(static_cast<ggml_type>(tensor->type))) + " of shape " +
                   shape_text(*tensor) + ", it must be f32 of shape [" + std::to_string(pairs) + "]");
  }
  rope.factors.resize(static_cast<size_t>(pairs));
  std::memcpy(rope.factors.data(), file.data(*tensor).data(), rope.factors.size() * sizeof(float));
  for (size_t i = 0; i < rope.factors.size(); ++i) {
    const float factor = rope.factors[i];
    if (!(factor > 0) || factor > kMaxRopeFactor) {
      return corrupt("value " + std::to_string(i) + " of the tensor 'rope_freqs.weight' is " + number_text(factor) +
                     ", it must be above 0 and at most " + number_text(kMaxRopeFactor));
    }
  }
  return {};
}

}  // namespace

Status read_rope(const ConfigReader& reader, const Family& family, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.layout = family.rope_layout;
  uint64_t dims = 0;
  const auto head_dim = static_cast<uint64_t>(config.head_dim);
  BOUGH_RETURN_IF_ERROR(reader.read("rope.dimension_count", 1, kMaxRopeDims, head_dim, dims));
  if (dims != head_dim) {
    return unsupported("the model rotates " + std::to_string(dims) + " of the " + std::to_string(head_dim) +
                       " elements of a head, only rotating all of them is supported");
  }
  rope.dims = config.head_dim;
  BOUGH_RETURN_IF_ERROR(reader.read_positive("rope.freq_base", std::numeric_limits<float>::max(), 10000.0, rope.base));
  BOUGH_RETURN_IF_ERROR(read_rope_scaling(reader, rope));
  return family.tensors.rope_freqs ? read_rope_factors(reader.file(), rope) : Status();
}

RopeParams rope_params(const RopeConfig& rope) {
  RopeParams params;
  params.layout = rope.layout;
  params.dims = rope.dims;
  params.magnitude = rope.magnitude;
  params.frequencies.resize(static_cast<size_t>(rope.dims / 2));
  for (size_t i = 0; i < params.frequencies.size(); ++i) {
    const double factor = rope.factors.empty() ? 1.0 : static_cast<double>(rope.factors[i]);
    params.frequencies[i] = std::pow(rope.base, -2.0 * static_cast<double>(i) / rope.dims) / rope.scale / factor;
  }
  return params;
}

}  // namespace bough
