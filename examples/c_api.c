/* The C ABI: continues a prompt with JSON, streaming it, and prints how likely the model found its first token.
 *   example_c MODEL.gguf PROMPT */
#include <bough/c.h>
#include <stdio.h>
#include <string.h>

static int print_piece(const char* text, size_t bytes, void* user) {
  (void)user;
  fwrite(text, 1, bytes, stdout);
  fflush(stdout);
  return 1;
}

/* Prints and frees a failure; 1 if there was one. */
static int failed(bough_status* status) {
  if (status == NULL) return 0;
  fprintf(stderr, "error %d: %s\n", (int)bough_status_code(status), bough_status_message(status));
  bough_status_free(status);
  return 1;
}

static int answer(bough_engine* engine, bough_session* session, const char* prompt) {
  int32_t* tokens = NULL;
  size_t count = 0;
  if (failed(bough_tokenize(engine, prompt, strlen(prompt), BOUGH_ADD_BOS, &tokens, &count))) return 1;
  bough_append_options append;
  bough_append_options_init(&append, sizeof append);
  append.will_sample = 1;
  int bad = failed(bough_session_append(session, tokens, count, &append));
  bough_free(tokens);
  if (bad) return 1;

  bough_generate_options options;
  bough_generate_options_init(&options, sizeof options);
  options.max_tokens = 100;
  options.json_schema = "{\"type\":\"object\",\"properties\":{\"ok\":{\"type\":\"boolean\"}},\"required\":[\"ok\"]}";
  options.logprobs = 0;
  options.on_text = print_piece;
  bough_generation* generation = NULL;
  if (failed(bough_session_generate(session, &options, &generation))) return 1;
  bough_logprob first;
  if (bough_generation_logprob(generation, 0, 0, &first)) printf("\nfirst token: %d, log-probability %.3f\n", (int)first.token, first.logprob);
  bough_generation_free(generation);
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 3) {
    fprintf(stderr, "usage: example_c MODEL.gguf PROMPT\n");
    return 2;
  }
  if (bough_abi_version() != BOUGH_ABI_VERSION) {
    fprintf(stderr, "the library has ABI %u, this program needs %u\n", (unsigned)bough_abi_version(), BOUGH_ABI_VERSION);
    return 1;
  }
  bough_engine_options options;
  bough_engine_options_init(&options, sizeof options);
  options.model = argv[1];
  bough_engine* engine = NULL;
  if (failed(bough_engine_open(&options, &engine))) return 1;
  bough_session* session = NULL;
  int bad = failed(bough_session_new(engine, &session)) || answer(engine, session, argv[2]);
  bough_session_free(session);
  bough_engine_free(engine);
  return bad;
}
