#include <algorithm>
#include <cstring>
#include <fstream>

#include "support/tiny_gguf.h"

namespace bough {
namespace {

constexpr size_t kAlignment = 32;

enum : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9, kU64 = 10 };

template <typename T>
std::string raw(const T& value) {
  std::string out(sizeof(T), '\0');
  std::memcpy(out.data(), &value, sizeof(T));
  return out;
}

std::string raw_string(std::string_view text) { return raw(uint64_t{text.size()}) + std::string(text); }

template <typename T>
std::string raw_array(uint32_t type, const std::vector<T>& values) {
  std::string out = raw(type) + raw(uint64_t{values.size()});
  for (const T& value : values) {
    if constexpr (std::is_same_v<T, std::string>) {
      out += raw_string(value);
    } else {
      out += raw(value);
    }
  }
  return out;
}

}  // namespace

void GgufBuilder::put(std::string_view key, uint32_t type, std::string value) {
  const auto it = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
  Entry entry{std::string(key), type, std::move(value)};
  if (it == entries_.end()) {
    entries_.push_back(std::move(entry));
  } else {
    *it = std::move(entry);
  }
}

void GgufBuilder::set(std::string_view key, uint32_t value) { put(key, kU32, raw(value)); }
void GgufBuilder::set(std::string_view key, int32_t value) { put(key, kI32, raw(value)); }
void GgufBuilder::set(std::string_view key, uint64_t value) { put(key, kU64, raw(value)); }
void GgufBuilder::set(std::string_view key, float value) { put(key, kF32, raw(value)); }
void GgufBuilder::set(std::string_view key, bool value) { put(key, kBool, raw(value)); }
void GgufBuilder::set(std::string_view key, std::string_view value) { put(key, kString, raw_string(value)); }
void GgufBuilder::set(std::string_view key, const std::vector<std::string>& values) { put(key, kArray, raw_array(kString, values)); }
void GgufBuilder::set(std::string_view key, const std::vector<int32_t>& values) { put(key, kArray, raw_array(kI32, values)); }
void GgufBuilder::set(std::string_view key, const std::vector<float>& values) { put(key, kArray, raw_array(kF32, values)); }
void GgufBuilder::set(std::string_view key, const std::vector<bool>& values) {
  put(key, kArray, raw_array(kBool, std::vector<uint8_t>(values.begin(), values.end())));
}

void GgufBuilder::erase(std::string_view key) {
  std::erase_if(entries_, [&](const Entry& entry) { return entry.key == key; });
}

void GgufBuilder::set_tensor(std::string_view name, int type, std::vector<int64_t> dims, std::vector<std::byte> data) {
  Tensor tensor{std::string(name), type, std::move(dims), std::move(data)};
  const auto it = std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensor& other) { return other.name == name; });
  if (it == tensors_.end()) {
    tensors_.push_back(std::move(tensor));
  } else {
    *it = std::move(tensor);
  }
}

void GgufBuilder::set_tensor(std::string_view name, std::vector<int64_t> dims, const std::vector<float>& values) {
  std::vector<std::byte> data(values.size() * sizeof(float));
  std::memcpy(data.data(), values.data(), data.size());
  set_tensor(name, 0, std::move(dims), std::move(data));
}

void GgufBuilder::erase_tensor(std::string_view name) {
  std::erase_if(tensors_, [&](const Tensor& tensor) { return tensor.name == name; });
}

std::vector<std::byte> GgufBuilder::build() const {
  std::string out = "GGUF" + raw(uint32_t{3}) + raw(uint64_t{tensors_.size()}) + raw(uint64_t{entries_.size()});
  for (const Entry& entry : entries_) out += raw_string(entry.key) + raw(entry.type) + entry.value;
  const auto padded = [](size_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; };
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    out += raw_string(tensor.name) + raw(static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) out += raw(dim);
    out += raw(static_cast<uint32_t>(tensor.type)) + raw(offset);
    offset += padded(tensor.data.size());
  }
  for (const Tensor& tensor : tensors_) {
    out.resize(padded(out.size()), '\0');
    out.append(reinterpret_cast<const char*>(tensor.data.data()), tensor.data.size());
  }
  if (!tensors_.empty()) out.resize(padded(out.size()), '\0');
  std::vector<std::byte> bytes(out.size());
  std::memcpy(bytes.data(), out.data(), out.size());
  return bytes;
}

Status write_bytes(const std::string& path, const std::vector<std::byte>& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  file.close();
  return file ? Status() : Status(Code::io_error, "cannot write '" + path + "'");
}

}  // namespace bough
