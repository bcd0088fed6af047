// Any bytes as a session file: read back as whole pages with their tokens, or refused in a sentence. Checksums keep random changes from
// reaching what lies behind them, so that half of the inputs (those of an odd last byte) are signed anew first.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/checksum.h"
#include "fuzz/property.h"
#include "kv/session_format.h"

using namespace bough;

namespace {

class BytesFile final : public File {
 public:
  explicit BytesFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) return Status(Code::corrupt, "the file ends before");
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }
  Result<std::shared_ptr<std::byte>> map(uint64_t offset, uint64_t bytes) const override {
    if (bytes > bytes_.size() || offset > bytes_.size() - bytes) return Status(Code::corrupt, "the file ends before");
    std::shared_ptr<std::byte> view(new (std::align_val_t(64)) std::byte[bytes],
                                    [](std::byte* p) { operator delete[](p, std::align_val_t(64)); });
    std::memcpy(view.get(), bytes_.data() + offset, bytes);
    return view;
  }
  Status write(uint64_t, std::span<const std::byte>) override { return refused(); }
  Status truncate(uint64_t) override { return refused(); }
  Status sync() override { return refused(); }
  void start_sync(uint64_t, uint64_t) override {}
  Result<uint64_t> size() const override { return static_cast<uint64_t>(bytes_.size()); }
  Result<bool> try_lock() override { return false; }
  Result<bool> is_at(const std::string&) const override { return true; }
  Status touch() override { return refused(); }

 private:
  static Status refused() { return Status(Code::io_error, "the file is not to be written"); }
  std::vector<std::byte> bytes_;
};

class OneFile final : public FileSystem {
 public:
  explicit OneFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {}

  Result<std::unique_ptr<File>> open(const std::string&, OpenMode) override { return std::unique_ptr<File>(new BytesFile(bytes_)); }
  Status rename(const std::string&, const std::string&) override { return refused(); }
  Status remove(const std::string&) override { return refused(); }
  Status make_folder(const std::string&) override { return refused(); }
  Result<std::vector<FileStatus>> list(const std::string&) override { return std::vector<FileStatus>(); }
  Result<uint64_t> free_bytes(const std::string&) override { return uint64_t{0}; }

 private:
  static Status refused() { return Status(Code::io_error, "there is one file, to be read"); }
  std::vector<std::byte> bytes_;
};

// The checksum of bytes [from, from + size) goes into their last eight.
void sign(std::vector<std::byte>& bytes, uint64_t from, uint64_t size) {
  if (size < sizeof(uint64_t) || from > bytes.size() || size > bytes.size() - from) return;
  const uint64_t sum = checksum(std::span(bytes).subspan(from, size - sizeof(uint64_t)));
  std::memcpy(bytes.data() + from + size - sizeof sum, &sum, sizeof sum);
}

void sign_all(std::vector<std::byte>& bytes) {
  FixedHead head{};
  if (bytes.size() < sizeof head) return;
  std::memcpy(&head, bytes.data(), sizeof head);
  sign(bytes, 0, head.bytes);
  uint64_t at = head.bytes;
  RecordHead record{};
  while (at <= bytes.size() && bytes.size() - at >= sizeof record) {
    std::memcpy(&record, bytes.data() + at, sizeof record);
    if (record.pages == 0 || record.pages > kChunkPages || head.page_bytes > bytes.size()) return;
    sign(bytes, at, record_bytes(record.pages));
    at = chunk_end(at, record.pages, head.page_bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  if (size > 0 && data[size - 1] % 2 == 1) sign_all(bytes);
  OneFile files(bytes);
  const Result<SessionReader> reader = SessionReader::open(files, "fuzzed");
  fuzz::require_sentence(reader.status());
  if (!reader.ok()) return 0;
  fuzz::require_sentence(reader->damage());
  fuzz::require(reader->tokens().size() % kPageTokens == 0, "tokens fill pages");
  const size_t pages = reader->tokens().size() / kPageTokens;
  const auto page_bytes = static_cast<size_t>(reader->header().page_bytes);
  fuzz::require(pages == 0 || page_bytes <= size, "pages lie in the file");
  const Result<MappedPages> mapped = reader->map_pages(0, std::min<size_t>(pages, 4));
  fuzz::require(mapped.ok(), "pages of a whole index can be mapped");
  size_t whole = 0;
  const Status read = reader->check_pages(mapped->pages, &whole);
  fuzz::require_sentence(read);
  fuzz::require(read.ok() ? whole == mapped->pages.size() : whole < mapped->pages.size(), "whole pages are counted");
  return 0;
}
