// llama.cpp's decode at depths that it would take hours to read to: the state of 2,048 tokens that it has read is restored again and again,
// each copy moved behind the one before, which gives a cache of true size with keys turned to their own positions.
//
// A line of JSON for each depth: {"depth","tokens","ms"}, the mean of a token over 32 steps, the first left out.
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kPiece = 2048;  // tokens that are read
constexpr int kSteps = 32;
constexpr llama_seq_id kText = 0, kCopy = 1;

struct Options {
  std::string model;
  int threads = 1;
  std::vector<int> depths;
};

void check(bool good, const std::string& what) {
  if (!good) throw std::runtime_error(what);
}

Options read_options(int argc, char** argv) {
  check(argc >= 4, "usage: llama_decode MODEL THREADS DEPTH...");
  Options o{argv[1], std::atoi(argv[2]), {}};
  check(o.threads >= 1, std::string("threads is ") + argv[2] + ", it must be 1 or more");
  for (int i = 3; i < argc; ++i) {
    o.depths.push_back(std::atoi(argv[i]));
    check(o.depths.back() >= 0, std::string("a depth is ") + argv[i] + ", it must be 0 or more");
  }
  std::sort(o.depths.begin(), o.depths.end());
  return o;
}

class Engine {
 public:
  explicit Engine(const Options& o) {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_backend_init();
    model_.reset(llama_model_load_from_file(o.model.c_str(), llama_model_default_params()));
    check(model_ != nullptr, "llama.cpp does not load " + o.model);
    llama_context_params p = llama_context_default_params();
    p.n_ctx = static_cast<uint32_t>(o.depths.back() + 2 * kPiece);
    p.n_batch = p.n_ubatch = kPiece;
    p.n_seq_max = 2;
    p.kv_unified = true;
    p.n_threads = p.n_threads_batch = o.threads;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    context_.reset(llama_init_from_model(model_.get(), p));
    check(context_ != nullptr, "llama.cpp does not make a context");
  }

  void grow_to(int depth) {
    if (depth >= kPiece && piece_.empty()) read_piece();
    for (; tokens_ + kPiece <= depth; tokens_ += kPiece) append_copy();
    while (tokens_ < depth) step();
  }

  // Mean milliseconds of a step; the cache is as before afterwards.
  double measure() {
    const int depth = tokens_;
    step();
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kSteps; ++i) step();
    const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
    check(llama_memory_seq_rm(memory(), kText, depth, -1), "llama.cpp does not forget the last tokens");
    tokens_ = depth;
    return took.count() / kSteps;
  }

  int tokens() const { return tokens_; }

 private:
  llama_memory_t memory() const { return llama_get_memory(context_.get()); }

  // Tokens [0, count) of a text at position `from`.
  void decode(int count, int from) {
    std::vector<llama_token> text(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) text[static_cast<size_t>(i)] = 1000 + (from + i) * 37 % 20000;
    check(llama_decode(context_.get(), llama_batch_get_one(text.data(), count)) == 0, "llama.cpp does not decode");
  }

  void step() {
    decode(1, tokens_);
    ++tokens_;
  }

  void read_piece() {
    check(llama_memory_seq_rm(memory(), kText, 0, -1), "llama.cpp does not forget");
    decode(kPiece, 0);
    tokens_ = kPiece;
    piece_.resize(llama_state_seq_get_size(context_.get(), kText));
    check(llama_state_seq_get_data(context_.get(), piece_.data(), piece_.size(), kText) == piece_.size(), "llama.cpp does not save");
  }

  void append_copy() {
    check(llama_state_seq_set_data(context_.get(), piece_.data(), piece_.size(), kCopy) == piece_.size(), "llama.cpp does not restore");
    llama_memory_seq_add(memory(), kCopy, 0, -1, tokens_);
    llama_memory_seq_cp(memory(), kCopy, kText, -1, -1);
    check(llama_memory_seq_rm(memory(), kCopy, -1, -1), "llama.cpp does not forget a copy");
  }

  struct Free {
    void operator()(llama_model* m) const { llama_model_free(m); }
    void operator()(llama_context* c) const { llama_free(c); }
  };
  std::unique_ptr<llama_model, Free> model_;
  std::unique_ptr<llama_context, Free> context_;
  std::vector<uint8_t> piece_;
  int tokens_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = read_options(argc, argv);
    Engine engine(options);
    for (const int depth : options.depths) {
      engine.grow_to(depth);
      const double ms = engine.measure();
      std::printf("{\"depth\":%d,\"tokens\":%d,\"ms\":%.3f}\n", depth, engine.tokens(), ms);
      std::fflush(stdout);
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "llama_decode: %s\n", e.what());
    return 1;
  }
  return 0;
}
