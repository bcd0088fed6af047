#include "base/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace bough {
namespace {

Status failure(const std::string& path, const char* what, int error) {
  return {error == ENOENT ? Code::not_found : Code::io_error, "'" + path + "' cannot be " + what + ": " + std::strerror(error)};
}

// Calls f until no signal interrupts it.
template <typename F>
auto uninterrupted(const F& f) {
  auto result = f();
  while (result < 0 && errno == EINTR) result = f();
  return result;
}

class MachineFile final : public File {
 public:
  MachineFile(const std::string& path, int flags) : path_(path), fd_(uninterrupted([&] { return ::open(path.c_str(), flags, 0600); })) {}
  ~MachineFile() override {
    if (fd_ < 0) return;
    if (locked_) flock(fd_, LOCK_UN);  // views of the file would hold it on
    close(fd_);
  }
  MachineFile(const MachineFile&) = delete;
  MachineFile& operator=(const MachineFile&) = delete;

  int fd() const { return fd_; }

  Status read(uint64_t offset, std::span<std::byte> out) const override {
    while (!out.empty()) {
      const ssize_t got = uninterrupted([&] { return pread(fd_, out.data(), out.size(), static_cast<off_t>(offset)); });
      if (got < 0) return failure(path_, "read", errno);
      if (got == 0) return {Code::corrupt, "'" + path_ + "' is truncated: it ends at byte " + std::to_string(offset)};
      offset += static_cast<uint64_t>(got);
      out = out.subspan(static_cast<size_t>(got));
    }
    return {};
  }

  Result<std::shared_ptr<std::byte>> map(uint64_t offset, uint64_t bytes) const override {
    BOUGH_ASSIGN_OR_RETURN(const uint64_t there, size());
    if (there < bytes || there - bytes < offset)
      return Status(Code::corrupt, "'" + path_ + "' is truncated: it ends at byte " + std::to_string(there));
    if (bytes == 0) return std::shared_ptr<std::byte>();
    const uint64_t before = offset % static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    const uint64_t mapped = before + bytes;
    void* view = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd_, static_cast<off_t>(offset - before));
    if (view == MAP_FAILED) {
      Status error = failure(path_, "mapped", errno);
      return errno == ENOMEM ? Status(Code::out_of_memory, error.message()) : error;
    }
    return std::shared_ptr<std::byte>(static_cast<std::byte*>(view) + before,
                                      [before, mapped](std::byte* p) { munmap(p - before, mapped); });
  }

  Status write(uint64_t offset, std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t put = uninterrupted([&] { return pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
      if (put <= 0) return failure(path_, "written", put < 0 ? errno : ENOSPC);
      offset += static_cast<uint64_t>(put);
      bytes = bytes.subspan(static_cast<size_t>(put));
    }
    return {};
  }

  Status truncate(uint64_t bytes) override {
    const int cut = uninterrupted([&] { return ftruncate(fd_, static_cast<off_t>(bytes)); });
    return cut == 0 ? Status() : failure(path_, "cut", errno);
  }

  Status sync() override { return fdatasync(fd_) == 0 ? Status() : failure(path_, "written to the device", errno); }

  void start_sync(uint64_t offset, uint64_t bytes) override {
    sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
  }

  Result<uint64_t> size() const override {
    struct stat info {};
    if (fstat(fd_, &info) != 0) return failure(path_, "read", errno);
    return static_cast<uint64_t>(info.st_size);
  }

  Result<bool> try_lock() override {
    if (uninterrupted([&] { return flock(fd_, LOCK_EX | LOCK_NB); }) == 0) {
      locked_ = true;
      return true;
    }
    if (errno == EWOULDBLOCK) return false;
    return failure(path_, "locked", errno);
  }

  Result<bool> is_at(const std::string& path) const override {
    struct stat mine {
    }, named{};
    if (fstat(fd_, &mine) != 0) return failure(path_, "read", errno);
    if (stat(path.c_str(), &named) != 0) {
      if (errno == ENOENT) return false;
      return failure(path, "read", errno);
    }
    return mine.st_dev == named.st_dev && mine.st_ino == named.st_ino;
  }

  Status touch() override {
    const timespec times[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
    return futimens(fd_, times) == 0 ? Status() : failure(path_, "marked as used", errno);
  }

 private:
  std::string path_;
  int fd_;
  bool locked_ = false;
};

// So that a new name survives a power failure.
void sync_folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  fsync(fd);
  close(fd);
}

class MachineFiles final : public FileSystem {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    // Without O_NONBLOCK a pipe would be waited for.
    const int flags = O_CLOEXEC | O_NONBLOCK | (mode == OpenMode::read ? O_RDONLY : O_RDWR) | (mode == OpenMode::create ? O_CREAT : 0);
    errno = 0;
    auto file = std::make_unique<MachineFile>(path, flags);
    struct stat info {};
    if (file->fd() < 0 || fstat(file->fd(), &info) != 0) return failure(path, "opened", errno);
    if (!S_ISREG(info.st_mode)) return Status(Code::invalid_argument, "'" + path + "' is not a regular file");
    return std::unique_ptr<File>(std::move(file));
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return failure(to, "put in its place", errno);
    sync_folder_of(to);
    return {};
  }

  Status remove(const std::string& path) override { return unlink(path.c_str()) == 0 ? Status() : failure(path, "removed", errno); }

  Status make_folder(const std::string& path) override {
    for (size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) mkdir(path.substr(0, at).c_str(), 0777);
    if (mkdir(path.c_str(), 0700) == 0) return {};
    const int error = errno;
    struct stat info {};
    if (error == EEXIST && stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
    return failure(path, "made a folder", error);
  }

  Result<std::vector<FileStatus>> list(const std::string& folder) override {
    const std::unique_ptr<DIR, int (*)(DIR*)> dir(opendir(folder.c_str()), closedir);
    if (!dir) return failure(folder, "listed", errno);
    std::vector<FileStatus> files;
    while (true) {
      errno = 0;
      const dirent* entry = readdir(dir.get());
      if (entry == nullptr && errno != 0) return failure(folder, "listed", errno);
      if (entry == nullptr) return files;
      struct stat info {};
      if (fstatat(dirfd(dir.get()), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(info.st_mode)) continue;
      files.push_back({entry->d_name, static_cast<uint64_t>(info.st_blocks) * 512,
                       static_cast<int64_t>(info.st_mtim.tv_sec) * 1'000'000'000 + info.st_mtim.tv_nsec});
    }
  }

  Result<uint64_t> free_bytes(const std::string& path) override {
    struct statvfs info {};
    if (statvfs(path.c_str(), &info) != 0) return failure(path, "asked for its free space", errno);
    return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  }
};

}  // namespace

namespace {

int advise(const std::byte* at, size_t bytes, int advice) {
  const size_t before = reinterpret_cast<uintptr_t>(at) % static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return uninterrupted([&] { return madvise(const_cast<std::byte*>(at) - before, before + bytes, advice); });
}

}  // namespace

void expect_sparse_use(const std::byte* at, size_t bytes) { advise(at, bytes, MADV_RANDOM); }

Status fetch(const std::byte* at, size_t bytes) {
  // A system that does not know the call says EINVAL; there the bytes are read when they are touched.
  const int done = advise(at, bytes, MADV_POPULATE_READ);
  if (done == 0 || errno == EINVAL) return {};
  return {Code::io_error, std::string("the device does not give them back: ") + std::strerror(errno)};
}

FileSystem& machine_files() {
  static MachineFiles files;
  return files;
}

}  // namespace bough
