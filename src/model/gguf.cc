#include "model/gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "ggml.h"
#include "model/gguf_values.h"

namespace bough {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read in place");

constexpr uint64_t kMaxKeys = 65'536;
constexpr uint64_t kMaxTensors = 65'536;
constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxTensorNameBytes = GGML_MAX_NAME - 1;
constexpr uint64_t kMaxStringBytes = 16u << 20;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMinAlignment = 8;
constexpr uint64_t kMaxAlignment = 1u << 20;
constexpr uint64_t kMinKeyBytes = 8 + 1 + 4 + 1;                 // length, one character, type, smallest value
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;  // length, one character, dimension count, one dimension, type, offset

Status corrupt(std::string message) { return Status(Code::corrupt, std::move(message)); }
std::string text_of(uint64_t n) { return std::to_string(n); }

bool multiply(uint64_t a, uint64_t b, uint64_t& product) { return !__builtin_mul_overflow(a, b, &product); }
bool add(uint64_t a, uint64_t b, uint64_t& sum) { return !__builtin_add_overflow(a, b, &sum); }

}  // namespace

// One pass over the bytes. INVARIANT: at_ <= bytes_.size().
class GgufParser {
 public:
  explicit GgufParser(std::span<const std::byte> bytes) : bytes_(bytes) { file_.bytes_ = bytes; }

  Result<GgufFile> parse() {
    uint64_t tensors = 0, keys = 0;
    BOUGH_RETURN_IF_ERROR(read_header(tensors, keys));
    BOUGH_RETURN_IF_ERROR(read_metadata(keys));
    BOUGH_RETURN_IF_ERROR(read_alignment());
    BOUGH_RETURN_IF_ERROR(read_tensor_infos(tensors));
    BOUGH_RETURN_IF_ERROR(place_tensors());
    BOUGH_RETURN_IF_ERROR(check_overlap());
    return std::move(file_);
  }

 private:
  uint64_t left() const { return bytes_.size() - at_; }

  Status ends_inside(const std::string& what, uint64_t needed) const {
    return corrupt("the file ends inside " + what + ": " + text_of(needed) + " bytes are needed at offset " + text_of(at_) + ", " +
                   text_of(left()) + " are left");
  }

  template <typename T>
  Status read(T& value, const std::string& what) {
    if (left() < sizeof(T)) return ends_inside(what, sizeof(T));
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return {};
  }

  Status read_string(std::string_view& text, uint64_t limit, const std::string& what) {
    uint64_t length = 0;
    BOUGH_RETURN_IF_ERROR(read(length, what));
    if (length > limit) return corrupt(what + " is " + text_of(length) + " bytes long, the limit is " + text_of(limit));
    if (length > left()) return ends_inside(what, length);
    text = std::string_view(reinterpret_cast<const char*>(bytes_.data() + at_), length);
    at_ += length;
    return {};
  }

  Status check_name(std::string_view name, const std::string& what) const {
    if (name.empty()) return corrupt(what + " is empty");
    if (name.find('\0') != std::string_view::npos) return corrupt(what + ", " + in_quotes(name) + ", holds a NUL byte");
    return {};
  }

  Status read_header(uint64_t& tensors, uint64_t& keys);
  Status read_metadata(uint64_t keys);
  Status read_entry(MetaEntry& entry);
  Status read_value_bytes(MetaEntry& entry);
  Status read_alignment();
  Status read_tensor_infos(uint64_t count);
  Status read_tensor_info(TensorInfo& tensor, const std::string& what);
  Status measure(TensorInfo& tensor) const;
  Status place_tensors();
  Status check_overlap() const;

  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;
  uint64_t alignment_ = kDefaultAlignment;
  GgufFile file_;
};

Status GgufParser::read_header(uint64_t& tensors, uint64_t& keys) {
  if (bytes_.empty()) return corrupt("the file is empty");
  char magic[4] = {};
  BOUGH_RETURN_IF_ERROR(read(magic, "the magic"));
  if (std::memcmp(magic, "GGUF", 4) != 0) {
    return corrupt("the file starts with " + in_quotes(std::string_view(magic, 4)) + ", a GGUF file starts with 'GGUF'");
  }
  uint32_t version = 0;
  BOUGH_RETURN_IF_ERROR(read(version, "the version"));
  if (version != 0 && (version & 0xffff) == 0) {
    return Status(Code::unsupported,
                  "the file is big-endian (version " + text_of(__builtin_bswap32(version)) + "), only little-endian GGUF is read");
  }
  if (version != 2 && version != 3) {
    return Status(Code::unsupported, "the file is GGUF version " + text_of(version) + ", versions 2 and 3 are read");
  }
  file_.version_ = version;
  BOUGH_RETURN_IF_ERROR(read(tensors, "the number of tensors"));
  BOUGH_RETURN_IF_ERROR(read(keys, "the number of keys"));
  if (tensors > kMaxTensors) return corrupt("the file claims " + text_of(tensors) + " tensors, the limit is " + text_of(kMaxTensors));
  if (keys > kMaxKeys) return corrupt("the file claims " + text_of(keys) + " keys, the limit is " + text_of(kMaxKeys));
  if (keys * kMinKeyBytes + tensors * kMinTensorInfoBytes > left()) {
    return corrupt("the file claims " + text_of(keys) + " keys and " + text_of(tensors) + " tensors, more than its " +
                   text_of(bytes_.size()) + " bytes can hold");
  }
  return {};
}

Status GgufParser::read_metadata(uint64_t keys) {
  file_.metadata_.reserve(keys);
  for (uint64_t i = 0; i < keys; ++i) {
    MetaEntry entry;
    const std::string what = "key " + text_of(i);
    BOUGH_RETURN_IF_ERROR(read_string(entry.key, kMaxKeyBytes, what));
    BOUGH_RETURN_IF_ERROR(check_name(entry.key, what));
    if (!file_.key_index_.emplace(entry.key, i).second) return corrupt("the key " + in_quotes(entry.key) + " occurs twice");
    BOUGH_RETURN_IF_ERROR(read_entry(entry));
    file_.metadata_.push_back(entry);
  }
  return {};
}

Status GgufParser::read_entry(MetaEntry& entry) {
  const std::string what = "the value of the key " + in_quotes(entry.key);
  uint32_t type = 0;
  BOUGH_RETURN_IF_ERROR(read(type, what));
  if (type == static_cast<uint32_t>(MetaType::array)) {
    entry.is_array = true;
    BOUGH_RETURN_IF_ERROR(read(type, what));
    BOUGH_RETURN_IF_ERROR(read(entry.count, what));
    if (type == static_cast<uint32_t>(MetaType::array)) return corrupt(what + " is an array of arrays, which are not read");
  }
  if (type > static_cast<uint32_t>(MetaType::f64)) return corrupt(what + " has the type " + text_of(type) + ", the types are 0 to 12");
  entry.type = static_cast<MetaType>(type);
  return read_value_bytes(entry);
}

Status GgufParser::read_value_bytes(MetaEntry& entry) {
  const std::string what = "the value of the key " + in_quotes(entry.key);
  const uint64_t start = at_;
  uint64_t needed = 0;
  const uint64_t least = entry.type == MetaType::string ? 8 : size_of(entry.type);
  if (!multiply(entry.count, least, needed) || needed > left()) {
    return corrupt(what + " claims " + text_of(entry.count) + " values of type " + name_of(entry.type) + ", more than the " +
                   text_of(left()) + " bytes that are left");
  }
  if (entry.type == MetaType::string) {
    std::string_view text;
    for (uint64_t i = 0; i < entry.count; ++i) BOUGH_RETURN_IF_ERROR(read_string(text, kMaxStringBytes, what));
  } else {
    at_ += needed;
  }
  entry.bytes = bytes_.subspan(start, at_ - start);
  if (entry.type == MetaType::boolean) {
    for (std::byte b : entry.bytes) {
      if (b > std::byte{1}) return corrupt(what + " holds the bool " + text_of(std::to_integer<uint64_t>(b)) + ", a bool is 0 or 1");
    }
  }
  return {};
}

Status GgufParser::read_alignment() {
  const MetaEntry* entry = file_.find("general.alignment");
  if (entry == nullptr) return {};
  if (entry->is_array || entry->type != MetaType::u32)
    return corrupt("the key 'general.alignment' is " + describe_type(*entry) + ", it must be u32");
  BOUGH_ASSIGN_OR_RETURN(alignment_, file_.get_u64("general.alignment"));
  if (!std::has_single_bit(alignment_) || alignment_ < kMinAlignment || alignment_ > kMaxAlignment) {
    return corrupt("general.alignment is " + text_of(alignment_) + ", it must be a power of two from " + text_of(kMinAlignment) + " to " +
                   text_of(kMaxAlignment));
  }
  return {};
}

Status GgufParser::read_tensor_infos(uint64_t count) {
  if (count * kMinTensorInfoBytes > left()) return ends_inside("the list of " + text_of(count) + " tensors", count * kMinTensorInfoBytes);
  file_.tensors_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    TensorInfo tensor;
    const std::string what = "the name of tensor " + text_of(i);
    BOUGH_RETURN_IF_ERROR(read_string(tensor.name, kMaxTensorNameBytes, what));
    BOUGH_RETURN_IF_ERROR(check_name(tensor.name, what));
    if (!file_.tensor_index_.emplace(tensor.name, i).second) return corrupt("the tensor " + in_quotes(tensor.name) + " occurs twice");
    BOUGH_RETURN_IF_ERROR(read_tensor_info(tensor, "the tensor " + in_quotes(tensor.name)));
    file_.tensors_.push_back(tensor);
  }
  return {};
}

Status GgufParser::read_tensor_info(TensorInfo& tensor, const std::string& what) {
  uint32_t n_dims = 0, type = 0;
  BOUGH_RETURN_IF_ERROR(read(n_dims, what));
  if (n_dims < 1 || n_dims > kMaxDims) return corrupt(what + " has " + text_of(n_dims) + " dimensions, 1 to 4 are possible");
  tensor.n_dims = static_cast<int>(n_dims);
  for (uint32_t d = 0; d < n_dims; ++d) {
    BOUGH_RETURN_IF_ERROR(read(tensor.dims[d], what));
    if (tensor.dims[d] <= 0) {
      return corrupt(what + " has " + std::to_string(tensor.dims[d]) + " as dimension " + text_of(d) + ", it must be above 0");
    }
  }
  BOUGH_RETURN_IF_ERROR(read(type, what));
  if (type >= GGML_TYPE_COUNT || ggml_blck_size(static_cast<ggml_type>(type)) == 0) {
    return Status(Code::unsupported, what + " has the element type " + text_of(type) + ", which is not known");
  }
  tensor.type = static_cast<int>(type);
  BOUGH_RETURN_IF_ERROR(read(tensor.offset, what));
  return measure(tensor);
}

Status GgufParser::measure(TensorInfo& tensor) const {
  const auto type = static_cast<ggml_type>(tensor.type);
  const int64_t block = ggml_blck_size(type);
  const std::string what = "the tensor " + in_quotes(tensor.name) + " of shape " + shape_text(tensor);
  if (tensor.dims[0] % block != 0) {
    return corrupt(what + " has rows of " + std::to_string(tensor.dims[0]) + " values, " + ggml_type_name(type) + " needs a multiple of " +
                   std::to_string(block));
  }
  uint64_t bytes = 0, values = static_cast<uint64_t>(tensor.dims[0]);
  bool fits = multiply(values / static_cast<uint64_t>(block), ggml_type_size(type), bytes);
  for (size_t d = 1; d < kMaxDims && fits; ++d) {
    const auto n = static_cast<uint64_t>(tensor.dims[d]);
    fits = multiply(bytes, n, bytes) && multiply(values, n, values) && values <= static_cast<uint64_t>(INT64_MAX);
  }
  if (!fits) return corrupt(what + " has more values than 64 bits can count");
  tensor.bytes = bytes;
  return {};
}

Status GgufParser::place_tensors() {
  if (file_.tensors_.empty()) return {};
  const uint64_t data_start = (at_ + alignment_ - 1) / alignment_ * alignment_;
  for (TensorInfo& tensor : file_.tensors_) {
    const std::string what = "the tensor " + in_quotes(tensor.name);
    if (tensor.offset % alignment_ != 0) {
      return corrupt(what + " starts at " + text_of(tensor.offset) + ", which is no multiple of the alignment " + text_of(alignment_));
    }
    uint64_t end = 0;
    if (!add(data_start, tensor.offset, tensor.offset) || !add(tensor.offset, tensor.bytes, end) || end > bytes_.size()) {
      return corrupt(what + " of " + text_of(tensor.bytes) + " bytes reaches past the end of the file of " + text_of(bytes_.size()) +
                     " bytes");
    }
  }
  return {};
}

Status GgufParser::check_overlap() const {
  std::vector<const TensorInfo*> order;
  order.reserve(file_.tensors_.size());
  for (const TensorInfo& tensor : file_.tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset) {
      return corrupt("the tensors " + in_quotes(order[i - 1]->name) + " and " + in_quotes(order[i]->name) + " overlap");
    }
  }
  return {};
}

namespace {

struct Mapping {
  std::shared_ptr<const void> owner;
  std::span<const std::byte> bytes;
};

Status system_error(const std::string& doing, const std::string& path, int error) {
  const Code code = error == ENOENT || error == ENOTDIR ? Code::not_found : error == ENOMEM ? Code::out_of_memory : Code::io_error;
  return Status(code, "cannot " + doing + " " + in_quotes(path) + ": " + std::generic_category().message(error));
}

Result<Mapping> map_file(int fd, const std::string& path) {
  struct stat info = {};
  if (fstat(fd, &info) != 0) return system_error("examine", path, errno);
  if (S_ISDIR(info.st_mode)) return Status(Code::io_error, in_quotes(path) + " is a directory, a GGUF file is expected");
  if (!S_ISREG(info.st_mode)) return Status(Code::io_error, in_quotes(path) + " is not a regular file, a GGUF file is expected");
  if (info.st_size == 0) return Mapping{};
  const auto size = static_cast<size_t>(info.st_size);
  void* address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (address == MAP_FAILED) return system_error("map", path, errno);
  std::shared_ptr<const void> owner(address, [size](const void* p) { munmap(const_cast<void*>(p), size); });
  struct stat again = {};
  if (fstat(fd, &again) != 0) return system_error("examine", path, errno);
  if (again.st_size != info.st_size) {
    return Status(Code::io_error, in_quotes(path) + " changed from " + std::to_string(info.st_size) + " to " +
                                      std::to_string(again.st_size) + " bytes while it was opened");
  }
  return Mapping{std::move(owner), {static_cast<const std::byte*>(address), size}};
}

}  // namespace

Result<GgufFile> parse_gguf(std::span<const std::byte> bytes) try { return GgufParser(bytes).parse(); } catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory for the file's list of keys and tensors");
}

Result<GgufFile> open_gguf(const std::string& path) try {
  if (path.find('\0') != std::string::npos) return Status(Code::invalid_argument, "the path " + in_quotes(path) + " holds a NUL byte");
  // Without O_NONBLOCK, opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error("open", path, errno);
  Result<Mapping> mapping = map_file(fd, path);
  close(fd);
  if (!mapping.ok()) return mapping.status();
  Result<GgufFile> file = parse_gguf(mapping->bytes);
  if (!file.ok()) return Status(file.status().code(), in_quotes(path) + " cannot be used: " + file.status().message());
  file->mapping_ = std::move(mapping->owner);
  return file;
} catch (const std::bad_alloc&) {
  return Status(Code::out_of_memory, "there is no memory to open the model file");
}

}  // namespace bough
