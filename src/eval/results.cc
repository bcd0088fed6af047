// Reading, checking and appending to a file of results.
#include "eval/results.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/check.h"

namespace bough::eval {
namespace {

constexpr std::string_view line_begin = R"({"task":")";

// Whether `rest`, which has no newline, is what an ended process left of a line.
bool is_cut_line(std::string_view rest) { return rest.substr(0, line_begin.size()) == line_begin.substr(0, rest.size()); }

}  // namespace

Result<Results> Results::open(FileSystem& files, const std::string& path) {
  Results results;
  results.path_ = path;
  BOUGH_ASSIGN_OR_RETURN(results.file_, files.open(path, OpenMode::create));
  BOUGH_ASSIGN_OR_RETURN(const bool alone, results.file_->try_lock());
  if (!alone) return Status(Code::invalid_argument, "another process writes to '" + path + "'");
  BOUGH_ASSIGN_OR_RETURN(const uint64_t size, results.file_->size());
  std::string text(size, '\0');
  BOUGH_RETURN_IF_ERROR(results.file_->read(0, std::as_writable_bytes(std::span(text))));
  std::string_view rest = text;
  for (int line = 1; !rest.empty(); ++line) {
    const size_t end = rest.find('\n');
    Result<Cell> cell = parse_cell(rest.substr(0, end));
    if (!cell.ok() && end == std::string_view::npos && is_cut_line(rest)) break;
    if (!cell.ok()) {
      return Status(Code::invalid_argument,
                    "'" + path + "' is no file of results: line " + std::to_string(line) + " is " + cell.status().message());
    }
    results.cells_.push_back(std::move(*cell));
    if (end == std::string_view::npos) {
      BOUGH_RETURN_IF_ERROR(results.file_->write(size, std::as_bytes(std::span("\n", 1))));
      results.end_ = size + 1;
      return results;
    }
    rest.remove_prefix(end + 1);
    results.end_ += end + 1;
  }
  if (!rest.empty()) BOUGH_RETURN_IF_ERROR(results.file_->truncate(results.end_));
  return results;
}

const Cell* Results::find(const Cell& asked) const {
  const std::string key = cell_key(asked);
  const auto found = std::find_if(cells_.begin(), cells_.end(), [&](const Cell& cell) { return cell_key(cell) == key; });
  return found == cells_.end() ? nullptr : &*found;
}

Status Results::check(const Cell& asked) const {
  if (file_ == nullptr) return {};
  for (const Cell& cell : cells_) {
    const std::string conflict = settings_conflict(cell, asked);
    if (conflict.empty()) continue;
    return {Code::invalid_argument, "'" + path_ + "' holds results of other settings: " + conflict + "; name another file"};
  }
  return {};
}

Status Results::add(const Cell& cell) {
  if (file_ != nullptr) {
    const std::string line = cell_json(cell) + "\n";
    BOUGH_RETURN_IF_ERROR(file_->write(end_, std::as_bytes(std::span(line))));
    end_ += line.size();
  }
  cells_.push_back(cell);
  return {};
}

}  // namespace bough::eval
