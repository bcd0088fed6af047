// Any bytes as a model file: read, configured, bound and looked through without touching a byte outside them.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "fuzz/property.h"
#include "model/weights.h"

using namespace bough;

namespace {

struct AlignedDelete {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
};

void read_values(const GgufFile& file) {
  for (const MetaEntry& entry : file.metadata()) {
    fuzz::require(file.find(entry.key) != nullptr, "a listed key is found");
    fuzz::require_sentence(file.get_u64(entry.key).status());
    fuzz::require_sentence(file.get_f64(entry.key).status());
    fuzz::require_sentence(file.get_bool(entry.key).status());
    fuzz::require_sentence(file.get_string(entry.key).status());
    fuzz::require_sentence(file.get_strings(entry.key).status());
    fuzz::require_sentence(file.get_integers(entry.key).status());
    fuzz::require_sentence(file.get_numbers(entry.key).status());
  }
  for (const TensorInfo& tensor : file.tensors()) {
    fuzz::require(tensor.offset <= file.file_bytes() && tensor.bytes <= file.file_bytes() - tensor.offset, "tensors lie in the file");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // A block of exactly `size` bytes, so that a read beyond it is seen.
  const std::unique_ptr<std::byte, AlignedDelete> bytes(static_cast<std::byte*>(::operator new (size, std::align_val_t{64})));
  if (size > 0) std::memcpy(bytes.get(), data, size);
  const Result<GgufFile> file = parse_gguf({bytes.get(), size});
  fuzz::require_sentence(file.status());
  if (!file.ok()) return 0;
  read_values(*file);
  const Result<ModelConfig> config = read_config(*file);
  fuzz::require_sentence(config.status());
  if (!config.ok()) return 0;
  const Result<Weights> weights = bind_weights(*file, *config);
  fuzz::require_sentence(weights.status());
  if (weights.ok()) fuzz::require_sentence(check_finite(*weights));
  return 0;
}
