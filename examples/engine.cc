// The C++ engine: reads a text, answers a question about it, then another one without reading the text again.
//   example_engine MODEL.gguf TEXT-FILE QUESTION...
#include <bough/engine.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

namespace {

int fail(const bough::Status& status) {
  std::cerr << bough::code_name(status.code()) << ": " << status.message() << "\n";
  return 1;
}

// Reads the question after what the session holds, and prints the answer.
bough::Status ask(bough::Session& session, const std::vector<bough::TokenId>& question) {
  bough::Status read = session.append(question, {.will_sample = true});
  if (!read.ok()) return read;
  bough::GenerateOptions options;
  options.max_tokens = 64;
  options.stop = {"\n\n"};
  options.on_text = [](std::string_view text) {
    std::cout << text << std::flush;
    return true;
  };
  const bough::Result<bough::Generation> answer = session.generate(options);
  std::cout << "\n";
  return answer.status();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::cerr << "usage: example_engine MODEL.gguf TEXT-FILE QUESTION...\n";
    return 2;
  }
  std::ifstream file(argv[2]);
  const std::string text{std::istreambuf_iterator<char>(file), {}};

  const auto engine = bough::Engine::open({.model = argv[1]});
  if (!engine.ok()) return fail(engine.status());
  const auto session = (*engine)->new_session();
  if (!session.ok()) return fail(session.status());

  const auto body = (*engine)->tokenize(text, /*add_bos=*/false);
  if (!body.ok()) return fail(body.status());
  for (int i = 3; i < argc; ++i) {
    const auto prompt = (*engine)->chat_prompt_around_text(argv[i]);
    if (!prompt.ok()) return fail(prompt.status());
    const auto end_of_text = static_cast<int64_t>(prompt->before.size() + body->size());
    if (i == 3) {
      for (const auto* part : {&prompt->before, &*body}) {
        if (const bough::Status read = (*session)->append(*part); !read.ok()) return fail(read);
      }
    } else if (const bough::Status back = (*session)->rollback(end_of_text); !back.ok()) {
      return fail(back);
    }
    if (const bough::Status asked = ask(**session, prompt->after); !asked.ok()) return fail(asked);
  }
  return 0;
}
