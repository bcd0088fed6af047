// Session files: the KV pages of a text that was read, for another process to go on from. docs/sessions.md describes the format.
//
// A file only grows, chunk by chunk; a chunk counts once its mark is written, which happens after its pages. So a process that is
// killed at any point loses at most one unfinished chunk, and readers need no lock. One open file writes at a time. Nothing ever cuts a
// whole chunk, so that pages may be used where they lie, by writers too.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "bough/types.h"
#include "steps/shape.h"

namespace bough {

// What pages depend on, and what people want to know of them.
struct SessionHeader {
  std::string kv;  // name of the KV type
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint64_t page_bytes = 0;
  std::array<uint64_t, 2> model_hash{};
  uint64_t tokenizer_hash = 0;
  std::string plan;   // JSON of all that reading depends on
  std::string model;  // the model's name; not compared
  std::string label;  // how the text begins; not compared
};

// Whether pages of `file` serve where `own` is needed. Errors: invalid_argument, naming `path` and the first difference.
Status check_session_header(const SessionHeader& own, const SessionHeader& file, const std::string& path);

struct SessionPage {
  uint64_t offset = 0;  // in the file
  uint64_t sum = 0;
};

// INVARIANT: tokens.size() == 64 * pages.size().
struct SessionIndex {
  SessionHeader header;
  std::vector<TokenId> tokens;
  std::vector<SessionPage> pages;
  uint64_t end = 0;  // where the next chunk goes; what lies behind is an unfinished chunk
  Status damage;     // not ok: why the chunks behind `end` cannot be used
};

// Pages in a view of their file, in its order. They live as long as `view`.
struct MappedPages {
  std::shared_ptr<std::byte> view;
  std::vector<std::byte*> pages;
};

class SessionReader {
 public:
  // Reads and checks header and index; a damaged or truncated index gives the chunks before and damage(). Errors: those of
  // FileSystem::open, io_error; corrupt (no session file, a damaged header); unsupported (a newer format, another byte order);
  // out_of_memory.
  static Result<SessionReader> open(FileSystem& files, const std::string& path);

  const std::string& path() const { return path_; }
  const SessionHeader& header() const { return index_.header; }
  std::span<const TokenId> tokens() const { return index_.tokens; }
  const Status& damage() const { return index_.damage; }
  // `count` pages from `first` on, used where they lie in the file: File::map says for how long and what must not happen to the file.
  // REQUIRES: first + count <= pages of the index. Errors: those of File::map.
  Result<MappedPages> map_pages(size_t first, size_t count) const;
  // Reads the first pages, which one call of map_pages gave, and checks that they are what was written, with OpenMP's threads. `whole`,
  // unless null, gets the number of pages before the first one that fails. Errors: io_error; corrupt, naming the first page that is
  // another.
  Status check_pages(std::span<std::byte* const> pages, size_t* whole = nullptr) const;
  Status touch() { return file_->touch(); }

 private:
  SessionReader(std::string path, std::unique_ptr<File> file, SessionIndex index)
      : path_(std::move(path)), file_(std::move(file)), index_(std::move(index)) {}

  Status check_page(size_t page, const std::byte* bytes) const;

  std::string path_;
  std::unique_ptr<File> file_;
  SessionIndex index_;
};

class SessionWriter {
 public:
  // Opens the file, or makes it, to add pages after those that it holds; an unfinished chunk is cut off. The header of a file that is
  // there must agree with `header` (check_session_header). Errors: those of SessionReader::open and check_session_header; corrupt (the
  // index's damage); io_error when another open file writes to it.
  static Result<SessionWriter> open(FileSystem& files, const std::string& path, const SessionHeader& header);
  // Writes a whole file beside `path` and puts it in its place when it is complete: whatever happens, `path` is what it was or the new
  // file. Errors: io_error; arguments as for add.
  static Status write_whole(FileSystem& files, const std::string& path, const SessionHeader& header, std::span<const TokenId> tokens,
                            std::span<std::byte* const> pages);

  const std::string& path() const { return path_; }
  std::span<const TokenId> tokens() const { return index_.tokens; }
  size_t pages() const { return index_.pages.size(); }
  // Adds pages and their tokens. On error the whole chunks that were written before it stay, and nothing else.
  // REQUIRES: tokens.size() == 64 * pages.size(). Errors: io_error.
  Status add(std::span<const TokenId> tokens, std::span<std::byte* const> pages);
  // As SessionReader's, but pages that were there when the file was opened are checked. Errors besides: io_error when the device did not
  // take what was written; corrupt, naming the page that is another. Only where there is none may copies in memory go.
  Result<MappedPages> map_pages(size_t first, size_t count) const;
  Status sync() { return file_->sync(); }
  Status touch() { return file_->touch(); }

 private:
  explicit SessionWriter(std::string path) : path_(std::move(path)) {}
  Status start(const SessionHeader& header);
  Status add_chunk(std::span<const TokenId> tokens, std::span<std::byte* const> pages);

  std::string path_;
  std::unique_ptr<File> file_;
  SessionIndex index_;
  size_t found_ = 0;  // pages that an earlier writer left
};

}  // namespace bough
