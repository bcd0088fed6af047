#include "text/grammar_child.h"

#include <json-schema-to-grammar.h>
#include <llama.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace bough {
namespace {

// What the library writes to stderr and to its log, in memory.
class Capture {
 public:
  Capture() {
    if (file_ >= 0) dup2(file_, STDERR_FILENO);
    llama_log_set([](ggml_log_level, const char* text, void*) { std::fputs(text, stderr); }, nullptr);
  }
  ~Capture() {
    if (file_ >= 0) close(file_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  std::string text() const {
    std::fflush(stderr);
    std::string all(4096, '\0');
    const ssize_t n = file_ < 0 ? 0 : pread(file_, all.data(), all.size(), 0);
    all.resize(n > 0 ? static_cast<size_t>(n) : 0);
    return all;
  }

 private:
  int file_ = memfd_create("grammar", MFD_CLOEXEC);
};

// The first line of a report, without what stands before `mark`, as a part of a sentence.
std::string one_line(std::string_view report, std::string_view mark) {
  constexpr size_t most = 200;
  if (const size_t at = report.find(mark); at != std::string_view::npos) report.remove_prefix(at + mark.size());
  while (!report.empty() && (report.front() == '\n' || report.front() == ' ')) report.remove_prefix(1);
  std::string line = replace_invalid_utf8(report.substr(0, report.find('\n')).substr(0, most));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  while (!line.empty() && (line.back() == '.' || line.back() == ' ' || line.back() == ';')) line.pop_back();
  return line;
}

Status refused(std::string_view name, const std::string& why) {
  return {Code::invalid_argument, std::string(name) + " cannot be used: " + (why.empty() ? "the library gives no reason" : why)};
}

Result<std::string> grammar_of_schema(const std::string& schema) {
  constexpr std::string_view name = "the JSON schema";
  const Capture capture;
  std::string grammar;
  try {
    grammar = json_schema_to_grammar(common_json::parse(schema));
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& e) {
    return refused(name, one_line(e.what(), "conversion failed:\n"));
  }
  const std::string warning = capture.text();
  if (!warning.empty()) return refused(name, one_line(warning, "incomplete: "));
  return grammar;
}

}  // namespace

GrammarChild::~GrammarChild() {
  if (sampler_ != nullptr) llama_sampler_free(sampler_);
}

Result<std::string> GrammarChild::open(GrammarKind kind, const std::string& text) {
  setenv("GGML_NO_BACKTRACE", "1", 1);  // the library would start a debugger when it ends the process
  std::string grammar = text;
  if (kind == GrammarKind::json_schema) {
    BOUGH_ASSIGN_OR_RETURN(grammar, grammar_of_schema(text));
  }
  const Capture capture;
  sampler_ = llama_sampler_init_grammar(tokenizer_.library_vocab(), grammar.c_str(), "root");
  if (sampler_ == nullptr) {
    return refused(kind == GrammarKind::gbnf ? "the grammar" : "the JSON schema", one_line(capture.text(), "error parsing grammar: "));
  }
  return std::string();
}

Result<std::string> GrammarChild::answer(std::string_view request) {
  uint64_t accepted = 0;
  if (request.size() < sizeof accepted) return Status(Code::internal, "a request to a grammar is cut");
  std::memcpy(&accepted, request.data(), sizeof accepted);
  request.remove_prefix(sizeof accepted);
  std::vector<TokenId> tokens(request.size() / sizeof(TokenId));
  std::memcpy(tokens.data(), request.data(), tokens.size() * sizeof(TokenId));
  if (accepted > tokens.size()) return Status(Code::internal, "a request to a grammar is cut");
  for (size_t i = 0; i < accepted; ++i) llama_sampler_accept(sampler_, tokens[i]);

  std::string out(tokens.size() - accepted, '\0');
  std::vector<llama_token_data> items;
  std::vector<size_t> places;
  for (size_t i = 0; i < out.size(); ++i) {
    const TokenId token = tokens[accepted + i];
    if (token < 0 || token >= tokenizer_.vocab_size() || (tokenizer_.is_control(token) && !tokenizer_.is_eog(token))) continue;
    items.push_back({token, 0.0F, 0.0F});
    places.push_back(i);
  }
  llama_token_data_array all{items.data(), items.size(), -1, false};
  llama_sampler_apply(sampler_, &all);
  for (size_t i = 0; i < items.size(); ++i) out[places[i]] = std::isinf(items[i].logit) ? '\0' : '\1';
  return out;
}

}  // namespace bough
