#include "kv/session_file.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "base/check.h"
#include "base/checksum.h"
#include "kv/session_format.h"

namespace bough {
namespace {

Status foreign(const std::string& path, const std::string& what) { return {Code::invalid_argument, "'" + path + "' " + what}; }

std::string shape_of(const SessionHeader& h) {
  return std::to_string(h.layers) + " layers of " + std::to_string(h.kv_heads) + " heads of " + std::to_string(h.head_dim) + " in " + h.kv +
         ", " + std::to_string(h.page_bytes) + " bytes a page";
}

// A file at `path` that only this process writes to. Errors: io_error when another one does.
Result<std::unique_ptr<File>> open_locked(FileSystem& files, const std::string& path) {
  constexpr int tries = 8;
  for (int i = 0; i < tries; ++i) {
    BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.open(path, OpenMode::create));
    BOUGH_ASSIGN_OR_RETURN(const bool locked, file->try_lock());
    if (!locked) break;
    BOUGH_ASSIGN_OR_RETURN(const bool there, file->is_at(path));  // it may have been renamed or removed before the lock
    if (there) return file;
  }
  return Status(Code::io_error, "'" + path + "' is being written by another process");
}

Result<MappedPages> map_pages(const File& file, const SessionIndex& index, size_t first, size_t count) {
  MappedPages mapped;
  if (count == 0) return mapped;
  mapped.pages.reserve(count);
  const std::span<const SessionPage> pages = std::span(index.pages).subspan(first, count);
  const uint64_t from = pages.front().offset;
  BOUGH_ASSIGN_OR_RETURN(mapped.view, file.map(from, pages.back().offset + page_stride(index.header.page_bytes) - from));
  for (const SessionPage& page : pages) mapped.pages.push_back(mapped.view.get() + (page.offset - from));
  return mapped;
}

// Is a mapped page of the file at `path` what was written?
Status check_mapped(const std::string& path, const SessionIndex& index, size_t page, const std::byte* bytes) {
  const std::span<const std::byte> all(bytes, static_cast<size_t>(index.header.page_bytes));
  const std::string name = "page " + std::to_string(page) + " of " + std::to_string(index.pages.size());
  Status fetched = fetch(all.data(), all.size());
  if (!fetched.ok()) return {fetched.code(), "'" + path + "' cannot be read at " + name + ": " + fetched.message()};
  if (checksum(all, /*seed=*/page) == index.pages[page].sum) return {};
  return {Code::corrupt, "'" + path + "' is damaged: " + name + " is not what was written"};
}

// Pages of one view that have been read in order.
void searched_from_now_on(std::span<std::byte* const> pages, uint64_t page_bytes) {
  if (!pages.empty()) expect_sparse_use(pages.front(), static_cast<size_t>(pages.back() - pages.front()) + page_bytes);
}

// An empty file at `path` as open_locked gives it. What a killed process has left there is replaced, not cut: its pages may be in use.
Result<std::unique_ptr<File>> open_empty(FileSystem& files, const std::string& path) {
  BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<File> file, open_locked(files, path));
  BOUGH_ASSIGN_OR_RETURN(const uint64_t size, file->size());
  if (size == 0) return file;
  BOUGH_RETURN_IF_ERROR(files.remove(path));
  return open_locked(files, path);
}

}  // namespace

Status check_session_header(const SessionHeader& own, const SessionHeader& file, const std::string& path) {
  if (file.model_hash != own.model_hash) {
    return foreign(path, "was read by another model, '" + file.model + "', than this one, '" + own.model + "'");
  }
  if (file.tokenizer_hash != own.tokenizer_hash) return foreign(path, "was read with another tokenizer than this model's");
  if (shape_of(own) != shape_of(file)) return foreign(path, "holds " + shape_of(file) + "; needed are " + shape_of(own));
  if (file.plan != own.plan) return foreign(path, "was read with the plan " + file.plan + "; this one is " + own.plan);
  return {};
}

Result<SessionReader> SessionReader::open(FileSystem& files, const std::string& path) {
  BOUGH_ASSIGN_OR_RETURN(std::unique_ptr<File> file, files.open(path, OpenMode::read));
  BOUGH_ASSIGN_OR_RETURN(SessionIndex index, read_session_index(*file, path));
  return SessionReader(path, std::move(file), std::move(index));
}

Result<MappedPages> SessionReader::map_pages(size_t first, size_t count) const { return bough::map_pages(*file_, index_, first, count); }

Status SessionReader::check_page(size_t page, const std::byte* bytes) const { return check_mapped(path_, index_, page, bytes); }

Status SessionReader::check_pages(std::span<std::byte* const> pages, size_t* whole) const {
  const auto count = static_cast<int64_t>(pages.size());
  std::atomic<int64_t> first_bad = count;
  Status error;
#pragma omp parallel for schedule(dynamic, 16)  // threads far apart do not wait for each other's page tables
  for (int64_t i = 0; i < count; ++i) {
    if (first_bad.load(std::memory_order_relaxed) < i) continue;
    Status status;
    bool failed = false;
    try {
      status = check_page(static_cast<size_t>(i), pages[static_cast<size_t>(i)]);
      failed = !status.ok();
    } catch (const std::bad_alloc&) {
      failed = true;  // of the sentence about a failure
    }
    if (!failed) continue;
#pragma omp critical(bough_session_pages)
    if (i < first_bad.load()) {
      first_bad = i;
      error = status;
    }
  }
  if (whole != nullptr) *whole = static_cast<size_t>(first_bad.load());
  searched_from_now_on(pages, index_.header.page_bytes);
  if (first_bad == count || !error.ok()) return error;
  return {Code::out_of_memory, "no memory to read '" + path_ + "'"};
}

Result<SessionWriter> SessionWriter::open(FileSystem& files, const std::string& path, const SessionHeader& header) {
  SessionWriter writer(path);
  BOUGH_ASSIGN_OR_RETURN(writer.file_, open_locked(files, path));
  BOUGH_ASSIGN_OR_RETURN(const uint64_t size, writer.file_->size());
  BOUGH_ASSIGN_OR_RETURN(const bool unfinished, is_unfinished_header(*writer.file_, size));
  if (unfinished) {
    BOUGH_RETURN_IF_ERROR(writer.start(header));
    return writer;
  }
  BOUGH_ASSIGN_OR_RETURN(writer.index_, read_session_index(*writer.file_, path));
  BOUGH_RETURN_IF_ERROR(check_session_header(header, writer.index_.header, path));
  BOUGH_RETURN_IF_ERROR(writer.index_.damage);
  writer.found_ = writer.index_.pages.size();
  if (size > writer.index_.end) BOUGH_RETURN_IF_ERROR(writer.file_->truncate(writer.index_.end));
  return writer;
}

Status SessionWriter::start(const SessionHeader& header) {
  const std::vector<std::byte> bytes = encode_header(header);
  constexpr size_t magic = sizeof(FixedHead::magic);
  BOUGH_RETURN_IF_ERROR(file_->truncate(0));
  BOUGH_RETURN_IF_ERROR(file_->write(magic, std::span(bytes).subspan(magic)));
  BOUGH_RETURN_IF_ERROR(file_->write(0, std::span(bytes).first(magic)));
  index_.header = header;
  index_.end = bytes.size();
  return {};
}

Status SessionWriter::add(std::span<const TokenId> tokens, std::span<std::byte* const> pages) {
  while (!pages.empty()) {
    const size_t held = index_.pages.size();
    const size_t count = std::min(pages.size(), kChunkPages);
    Status added = add_chunk(tokens.first(count * kPageTokens), pages.first(count));
    if (!added.ok()) {
      index_.pages.resize(held);
      index_.tokens.resize(held * kPageTokens);
      static_cast<void>(file_->truncate(index_.end));  // what cannot be cut off is an unfinished chunk
      return added;
    }
    tokens = tokens.subspan(count * kPageTokens);
    pages = pages.subspan(count);
  }
  return {};
}

Status SessionWriter::add_chunk(std::span<const TokenId> tokens, std::span<std::byte* const> pages) try {
  const uint64_t first = index_.pages.size();
  const uint64_t page_bytes = index_.header.page_bytes;
  const uint64_t data = pages_at(index_.end, pages.size()), stride = page_stride(page_bytes);
  std::vector<uint64_t> sums;
  for (size_t i = 0; i < pages.size(); ++i) {
    const std::span<const std::byte> page(pages[i], static_cast<size_t>(page_bytes));
    BOUGH_RETURN_IF_ERROR(file_->write(data + i * stride, page));
    sums.push_back(checksum(page, /*seed=*/first + i));  // which ties a page to its place
    index_.pages.push_back({data + i * stride, sums.back()});
  }
  index_.tokens.insert(index_.tokens.end(), tokens.begin(), tokens.end());
  const uint64_t end = chunk_end(index_.end, pages.size(), page_bytes);
  const std::vector<std::byte> record = encode_record(first, tokens, sums);
  constexpr size_t mark = sizeof(RecordHead::mark);
  BOUGH_RETURN_IF_ERROR(file_->truncate(end));
  BOUGH_RETURN_IF_ERROR(file_->write(index_.end + mark, std::span(record).subspan(mark)));
  BOUGH_RETURN_IF_ERROR(file_->write(index_.end, std::span(record).first(mark)));
  file_->start_sync(index_.end, end - index_.end);
  index_.end = end;
  return {};
} catch (const std::bad_alloc&) {
  return {Code::out_of_memory, "no memory to write to '" + path_ + "'"};
}

Result<MappedPages> SessionWriter::map_pages(size_t first, size_t count) const {
  BOUGH_RETURN_IF_ERROR(file_->sync());
  BOUGH_ASSIGN_OR_RETURN(MappedPages mapped, bough::map_pages(*file_, index_, first, count));
  for (size_t i = 0; i < count && first + i < found_; ++i) {
    BOUGH_RETURN_IF_ERROR(check_mapped(path_, index_, first + i, mapped.pages[i]));
  }
  searched_from_now_on(mapped.pages, index_.header.page_bytes);
  return mapped;
}

Status SessionWriter::write_whole(FileSystem& files, const std::string& path, const SessionHeader& header, std::span<const TokenId> tokens,
                                  std::span<std::byte* const> pages) {
  const std::string part = path + ".part";
  SessionWriter writer(part);
  BOUGH_ASSIGN_OR_RETURN(writer.file_, open_empty(files, part));
  const auto write = [&]() -> Status {
    try {
      BOUGH_RETURN_IF_ERROR(writer.start(header));
      BOUGH_RETURN_IF_ERROR(writer.add(tokens, pages));
      BOUGH_RETURN_IF_ERROR(writer.sync());
      return files.rename(part, path);
    } catch (const std::bad_alloc&) {
      return {Code::out_of_memory, "no memory to write '" + path + "'"};
    }
  };
  Status written = write();
  if (!written.ok()) static_cast<void>(files.remove(part));  // the first error is the one to tell
  return written;
}

}  // namespace bough
