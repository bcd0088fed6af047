// GGUF model files (versions 2 and 3, little-endian): reading and checking them.
//
// Everything that a later reader relies on is checked here, before any library sees the file: sizes and offsets by checked 64-bit
// arithmetic, counts before memory is taken for them, names for duplicates, tensors for overlap. A hostile file costs one sentence.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bough/status.h"

namespace bough {

// Value types of the metadata, numbered as in the file.
enum class MetaType : uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12
};

const char* name_of(MetaType type);

// One key and its value, which stays in the file's bytes. INVARIANT: `bytes` holds exactly `count` values of `type`; strings are a
// u64 length and that many bytes each.
struct MetaEntry {
  std::string_view key;
  MetaType type = MetaType::u8;  // of the value, or of an array's elements; never MetaType::array
  bool is_array = false;
  uint64_t count = 1;
  std::span<const std::byte> bytes;
};

struct TensorInfo {
  std::string_view name;
  int type = 0;                             // ggml_type
  int n_dims = 0;                           // 1 .. 4
  std::array<int64_t, 4> dims{1, 1, 1, 1};  // dims[0] is contiguous; each > 0, 1 beyond n_dims
  uint64_t offset = 0;                      // from the start of the file
  uint64_t bytes = 0;
};

// A checked file. Owns the bytes (a private read-only mapping of the whole file); every view that it hands out, string or tensor,
// lives as long as this object and survives its being moved. The file must not be truncated by others meanwhile: reading pages that
// are gone is a SIGBUS. Const calls are thread-safe.
class GgufFile {
 public:
  uint32_t version() const { return version_; }
  uint64_t file_bytes() const { return bytes_.size(); }
  const std::vector<MetaEntry>& metadata() const { return metadata_; }  // in file order
  const std::vector<TensorInfo>& tensors() const { return tensors_; }   // in file order

  const MetaEntry* find(std::string_view key) const;           // null when there is none
  const TensorInfo* find_tensor(std::string_view name) const;  // null when there is none
  std::span<const std::byte> data(const TensorInfo& tensor) const { return bytes_.subspan(tensor.offset, tensor.bytes); }

  // Getters of one value. Errors: not_found when the key is missing, corrupt when its type or sign does not fit; both name the key.
  Result<uint64_t> get_u64(std::string_view key) const;  // any integer type, not negative
  Result<double> get_f64(std::string_view key) const;    // any number type
  Result<bool> get_bool(std::string_view key) const;
  Result<std::string_view> get_string(std::string_view key) const;
  // Getters of arrays; errors as above.
  Result<std::vector<std::string_view>> get_strings(std::string_view key) const;
  Result<std::vector<int64_t>> get_integers(std::string_view key) const;  // any integer type; u64 above INT64_MAX is an error
  Result<std::vector<double>> get_numbers(std::string_view key) const;    // any number type

 private:
  friend class GgufParser;
  friend Result<GgufFile> open_gguf(const std::string& path);

  std::shared_ptr<const void> mapping_;  // null when the bytes belong to the caller
  std::span<const std::byte> bytes_;
  uint32_t version_ = 0;
  std::vector<MetaEntry> metadata_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, size_t> key_index_;
  std::unordered_map<std::string_view, size_t> tensor_index_;
};

// Maps the file and checks all of it but the tensors' values. Errors: not_found, io_error (a directory, no permission), corrupt,
// unsupported (big-endian, version 1 or above 3), out_of_memory; each names the file.
Result<GgufFile> open_gguf(const std::string& path);

// The same for bytes in memory, which must outlive the result and start at a multiple of 16 bytes.
Result<GgufFile> parse_gguf(std::span<const std::byte> bytes);

// `text` in single quotes for an error message: printable ASCII as it is, other bytes as \xNN, cut after 80 bytes.
std::string in_quotes(std::string_view text);

// "[576, 49152]", dims[0] first.
std::string shape_text(const TensorInfo& tensor);

}  // namespace bough
