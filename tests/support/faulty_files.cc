#include "support/faulty_files.h"

#include "base/check.h"

namespace bough::test {
namespace {

class FaultyFile final : public File {
 public:
  FaultyFile(FaultyFiles* owner, std::unique_ptr<File> file) : owner_(owner), file_(std::move(file)) {}

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    Status fault;
#pragma omp critical(faulty_files)
    fault = owner_->next(false);
    BOUGH_RETURN_IF_ERROR(fault);
    return file_->read(offset, out);
  }
  Result<std::shared_ptr<std::byte>> map(uint64_t offset, uint64_t bytes) const override {
    BOUGH_RETURN_IF_ERROR(owner_->next(false));
    return file_->map(offset, bytes);
  }
  Status write(uint64_t offset, std::span<const std::byte> bytes) override {
    const Status fault = owner_->next(true);
    if (fault.ok()) return file_->write(offset, bytes);
    static_cast<void>(file_->write(offset, bytes.first(bytes.size() / 16 * 8)));
    return fault;
  }
  Status truncate(uint64_t bytes) override {
    BOUGH_RETURN_IF_ERROR(owner_->next(true));
    return file_->truncate(bytes);
  }
  Status sync() override {
    BOUGH_RETURN_IF_ERROR(owner_->next(true));
    return file_->sync();
  }
  void start_sync(uint64_t offset, uint64_t bytes) override { file_->start_sync(offset, bytes); }
  Result<uint64_t> size() const override {
    BOUGH_RETURN_IF_ERROR(owner_->next(false));
    return file_->size();
  }
  Result<bool> try_lock() override {
    BOUGH_RETURN_IF_ERROR(owner_->next(false));
    return file_->try_lock();
  }
  Result<bool> is_at(const std::string& path) const override {
    BOUGH_RETURN_IF_ERROR(owner_->next(false));
    return file_->is_at(path);
  }
  Status touch() override {
    BOUGH_RETURN_IF_ERROR(owner_->next(true));
    return file_->touch();
  }

 private:
  FaultyFiles* owner_;
  std::unique_ptr<File> file_;
};

}  // namespace

Status FaultyFiles::next(bool writes) {
  const int64_t number = operations++;
  const bool fails = fail_at >= 0 && (fail_on ? number >= fail_at : number == fail_at) && (writes || !writes_only);
  return fails ? Status(Code::io_error, "operation " + std::to_string(number) + " fails on purpose") : Status();
}

Result<std::unique_ptr<File>> FaultyFiles::open(const std::string& path, OpenMode mode) {
  BOUGH_RETURN_IF_ERROR(next(mode == OpenMode::create));
  BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<File> file, machine_files().open(path, mode));
  return std::unique_ptr<File>(std::make_unique<FaultyFile>(this, std::move(file)));
}

Status FaultyFiles::rename(const std::string& from, const std::string& to) {
  BOUGH_RETURN_IF_ERROR(next(true));
  return machine_files().rename(from, to);
}

Status FaultyFiles::remove(const std::string& path) {
  BOUGH_RETURN_IF_ERROR(next(true));
  return machine_files().remove(path);
}

Status FaultyFiles::make_folder(const std::string& path) {
  BOUGH_RETURN_IF_ERROR(next(true));
  return machine_files().make_folder(path);
}

Result<std::vector<FileStatus>> FaultyFiles::list(const std::string& folder) {
  BOUGH_RETURN_IF_ERROR(next(false));
  return machine_files().list(folder);
}

Result<uint64_t> FaultyFiles::free_bytes(const std::string& path) {
  BOUGH_RETURN_IF_ERROR(next(false));
  return machine_files().free_bytes(path);
}

}  // namespace bough::test
