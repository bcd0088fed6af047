#include "model/gguf_values.h"

#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"

namespace bough {
namespace {

// A number as the file holds it, integers apart from floating point so that none loses bits.
struct Number {
  bool is_integer = false;
  bool negative = false;
  uint64_t bits = 0;  // of an integer, two's complement
  double value = 0;
};

template <typename T>
Number load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  if constexpr (std::is_floating_point_v<T>) {
    return {false, false, 0, static_cast<double>(value)};
  } else {
    return {true, value < 0, static_cast<uint64_t>(value), static_cast<double>(value)};
  }
}

bool is_number(MetaType type) { return type != MetaType::string && type != MetaType::boolean && type != MetaType::array; }

// REQUIRES: is_number(entry.type), i < entry.count.
Number number_at(const MetaEntry& entry, uint64_t i) {
  const std::byte* at = entry.bytes.data() + i * size_of(entry.type);
  switch (entry.type) {
    case MetaType::u8: return load<uint8_t>(at);
    case MetaType::i8: return load<int8_t>(at);
    case MetaType::u16: return load<uint16_t>(at);
    case MetaType::i16: return load<int16_t>(at);
    case MetaType::u32: return load<uint32_t>(at);
    case MetaType::i32: return load<int32_t>(at);
    case MetaType::f32: return load<float>(at);
    case MetaType::u64: return load<uint64_t>(at);
    case MetaType::i64: return load<int64_t>(at);
    case MetaType::f64: return load<double>(at);
    default: return {};
  }
}

Result<const MetaEntry*> require(const GgufFile& file, std::string_view key) {
  if (const MetaEntry* entry = file.find(key)) return entry;
  return Status(Code::not_found, "the key " + in_quotes(key) + " is missing");
}

Status wrong_type(const MetaEntry& entry, const std::string& expected) {
  return Status(Code::corrupt, "the key " + in_quotes(entry.key) + " is " + describe_type(entry) + ", it must be " + expected);
}

Result<Number> get_number(const GgufFile& file, std::string_view key, const char* expected) {
  BOUGH_ASSIGN_OR_RETURN(const MetaEntry* entry, require(file, key));
  if (entry->is_array || !is_number(entry->type)) return wrong_type(*entry, expected);
  return number_at(*entry, 0);
}

}  // namespace

size_t size_of(MetaType type) {
  switch (type) {
    case MetaType::u8:
    case MetaType::i8:
    case MetaType::boolean: return 1;
    case MetaType::u16:
    case MetaType::i16: return 2;
    case MetaType::u32:
    case MetaType::i32:
    case MetaType::f32: return 4;
    case MetaType::u64:
    case MetaType::i64:
    case MetaType::f64: return 8;
    case MetaType::string:
    case MetaType::array: break;
  }
  return 0;
}

const char* name_of(MetaType type) {
  static constexpr const char* names[] = {"u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};
  return static_cast<size_t>(type) < std::size(names) ? names[static_cast<size_t>(type)] : "unknown";
}

std::string describe_type(const MetaEntry& entry) {
  if (!entry.is_array) return name_of(entry.type);
  return "an array of " + std::to_string(entry.count) + " " + name_of(entry.type);
}

const MetaEntry* GgufFile::find(std::string_view key) const {
  const auto it = key_index_.find(key);
  return it == key_index_.end() ? nullptr : &metadata_[it->second];
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const auto it = tensor_index_.find(name);
  return it == tensor_index_.end() ? nullptr : &tensors_[it->second];
}

Result<uint64_t> GgufFile::get_u64(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const Number number, get_number(*this, key, "an integer"));
  if (!number.is_integer) return wrong_type(*find(key), "an integer");
  if (number.negative) {
    return Status(Code::corrupt,
                  "the key " + in_quotes(key) + " is " + std::to_string(static_cast<int64_t>(number.bits)) + ", it must not be negative");
  }
  return number.bits;
}

Result<double> GgufFile::get_f64(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const Number number, get_number(*this, key, "a number"));
  return number.value;
}

Result<bool> GgufFile::get_bool(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const MetaEntry* entry, require(*this, key));
  if (entry->is_array || entry->type != MetaType::boolean) return wrong_type(*entry, "a bool");
  return entry->bytes[0] != std::byte{0};
}

Result<std::string_view> GgufFile::get_string(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const MetaEntry* entry, require(*this, key));
  if (entry->is_array || entry->type != MetaType::string) return wrong_type(*entry, "a string");
  return std::string_view(reinterpret_cast<const char*>(entry->bytes.data()) + sizeof(uint64_t), entry->bytes.size() - sizeof(uint64_t));
}

Result<std::vector<std::string_view>> GgufFile::get_strings(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const MetaEntry* entry, require(*this, key));
  if (!entry->is_array || entry->type != MetaType::string) return wrong_type(*entry, "an array of strings");
  std::vector<std::string_view> strings;
  strings.reserve(entry->count);
  const char* at = reinterpret_cast<const char*>(entry->bytes.data());
  for (uint64_t i = 0; i < entry->count; ++i) {
    uint64_t length = 0;
    std::memcpy(&length, at, sizeof(length));
    strings.emplace_back(at + sizeof(length), length);
    at += sizeof(length) + length;
  }
  return strings;
}

Result<std::vector<int64_t>> GgufFile::get_integers(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const MetaEntry* entry, require(*this, key));
  if (!entry->is_array || !is_number(entry->type) || entry->type == MetaType::f32 || entry->type == MetaType::f64) {
    return wrong_type(*entry, "an array of integers");
  }
  std::vector<int64_t> values(entry->count);
  for (uint64_t i = 0; i < entry->count; ++i) {
    const Number number = number_at(*entry, i);
    if (!number.negative && number.bits > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return Status(Code::corrupt, "the key " + in_quotes(key) + " holds " + std::to_string(number.bits) + ", the limit is " +
                                       std::to_string(std::numeric_limits<int64_t>::max()));
    }
    values[i] = static_cast<int64_t>(number.bits);
  }
  return values;
}

Result<std::vector<double>> GgufFile::get_numbers(std::string_view key) const {
  BOUGH_ASSIGN_OR_RETURN(const MetaEntry* entry, require(*this, key));
  if (!entry->is_array || !is_number(entry->type)) return wrong_type(*entry, "an array of numbers");
  std::vector<double> values(entry->count);
  for (uint64_t i = 0; i < entry->count; ++i) values[i] = number_at(*entry, i).value;
  return values;
}

std::string in_quotes(std::string_view text) {
  static constexpr size_t max_shown = 80;
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, max_shown)) {
    const auto u = static_cast<unsigned char>(c);
    if (u >= 0x20 && u < 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', digits[u >> 4], digits[u & 15]};
    }
  }
  out += text.size() > max_shown ? "...'" : "'";
  return out;
}

std::string shape_text(const TensorInfo& tensor) {
  std::string out = "[";
  for (int d = 0; d < tensor.n_dims; ++d) out += (d == 0 ? "" : ", ") + std::to_string(tensor.dims[static_cast<size_t>(d)]);
  return out + "]";
}

}  // namespace bough
