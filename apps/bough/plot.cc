// bough plot FILE...: results of bough eval, drawn.
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

#include "base/check.h"
#include "cli.h"
#include "eval/svg_plots.h"
#include "input.h"
#include "log.h"

namespace bough::cli {
namespace {

struct PlotOptions {
  std::vector<std::string> files;
  std::string out = ".";
};

Status write_plots(const std::vector<eval::Plot>& plots, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Status(Code::io_error, "the folder '" + folder + "' cannot be made: " + error.message());
  for (const eval::Plot& plot : plots) {
    const std::string path = (std::filesystem::path(folder) / plot.name).string();
    std::ofstream file(path, std::ios::binary);
    file << plot.svg << std::flush;
    if (!file) return Status(Code::io_error, "the file '" + path + "' cannot be written");
    print_line(path);
  }
  return {};
}

int plot(const PlotOptions& options) {
  eval::ResultLines lines;
  for (const std::string& path : options.files) {
    const Result<std::string> content = read_text(path);
    if (!content.ok()) return fail(content.status());
    const std::string name = path == "-" ? "standard input" : path;
    if (const Status status = eval::add_result_lines(*content, name, lines); !status.ok()) return fail(status);
  }
  const std::vector<eval::Plot> plots = eval::draw_results(lines);
  if (plots.empty())
    return fail(
        Status(Code::invalid_argument,
               "there is nothing to draw in these files: " +
                   std::string(lines.empty() ? "they hold no results" : "no figure is a share, and no two plans have a cell in common")));
  const Status status = write_plots(plots, options.out);
  return status.ok() ? exit_ok : fail(status);
}

}  // namespace

void add_plot(CLI::App& app, Action& action) {
  auto options = std::make_shared<PlotOptions>();
  CLI::App* command = app.add_subcommand("plot", "Draw results of eval: length by depth, recall by layer, cost and quality");
  command->add_option("FILE", options->files, "Results, JSON lines that bough eval wrote; - is standard input")
      ->required()
      ->option_text("FILE...");
  command->add_option("-o,--out", options->out, "Folder for the drawings, SVG files whose names are printed")
      ->type_name("FOLDER")
      ->capture_default_str();
  command->footer(
      "Example:\n"
      "  bough eval mass --length 8192 --text book.txt --plan default --plan hip --json > mass.jsonl\n"
      "  bough plot cells.jsonl mass.jsonl --out plots");
  command->callback([options, &action] { action = [options] { return plot(*options); }; });
}

}  // namespace bough::cli
