#include "model/fingerprint.h"

#include <cstddef>
#include <new>
#include <span>
#include <string_view>
#include <vector>

#include "base/checksum.h"

namespace bough {
namespace {

constexpr size_t kPieceBytes = size_t{4} << 20;

uint64_t mix(uint64_t hash, std::span<const std::byte> bytes) { return checksum(bytes, hash + bytes.size()); }
uint64_t mix(uint64_t hash, std::string_view text) { return mix(hash, std::as_bytes(std::span(text))); }
template <typename T>
uint64_t mix_values(uint64_t hash, std::span<const T> values) {
  return mix(hash, std::as_bytes(values));
}

bool describes_only(std::string_view key) {
  return (key.starts_with("general.") && key != "general.architecture") || key == "tokenizer.chat_template";
}

uint64_t mix(uint64_t hash, const MetaEntry& entry) {
  hash = mix(hash, entry.key);
  const uint64_t kind[] = {static_cast<uint64_t>(entry.type), entry.is_array ? 1U : 0U, entry.count};
  return mix(mix_values(hash, std::span<const uint64_t>(kind)), entry.bytes);
}

// Checksums of the pieces that the tensors' bytes are cut into.
std::vector<uint64_t> piece_sums(const GgufFile& file) {
  std::vector<std::span<const std::byte>> pieces;
  for (const TensorInfo& tensor : file.tensors()) {
    std::span<const std::byte> data = file.data(tensor);
    while (data.size() > kPieceBytes) {
      pieces.push_back(data.first(kPieceBytes));
      data = data.subspan(kPieceBytes);
    }
    pieces.push_back(data);
  }
  std::vector<uint64_t> sums(pieces.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (size_t i = 0; i < pieces.size(); ++i) sums[i] = checksum(pieces[i], i);
  return sums;
}

}  // namespace

Result<Fingerprint> fingerprint(const GgufFile& file) try {
  const std::vector<uint64_t> sums = piece_sums(file);
  Fingerprint print;
  for (const MetaEntry& entry : file.metadata()) {
    if (describes_only(entry.key)) continue;
    uint64_t& hash = entry.key.starts_with("tokenizer.") ? print.tokenizer : print.model[0];
    hash = mix(hash, entry);
  }
  for (const TensorInfo& tensor : file.tensors()) {
    print.model[0] = mix(print.model[0], tensor.name);
    print.model[0] = mix_values(print.model[0], std::span<const int64_t>(tensor.dims));
    print.model[0] = mix_values(print.model[0], std::span<const int>(&tensor.type, 1));
  }
  // Two words of what was mixed: chance alone does not make two models one.
  print.model[1] = mix_values(print.model[0] + 1, std::span<const uint64_t>(sums));
  print.model[0] = mix_values(print.model[0] + 2, std::span<const uint64_t>(sums));
  return print;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "no memory to check which model this is");
}

}  // namespace bough
