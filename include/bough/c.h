/* The C ABI: engine, sessions, answers and attention plans for C and for languages that call C. docs/api.md shows its use.
 *
 * A call that can fail returns a bough_status*: NULL is success, anything else holds a code and one sentence and is freed by the caller
 * with bough_status_free. What a call hands out through a pointer is set only on success. Texts are UTF-8 with their length in bytes
 * where they may hold NUL; handed out texts also end with NUL. Nothing here prints, aborts or throws.
 *
 * Structs begin with `size`, the size that the caller was compiled with: their init function sets it and the defaults, so that a
 * program works with later libraries of the same BOUGH_ABI_VERSION, which only add fields at the end. An engine and its sessions are
 * used by one thread at a time; sessions are freed before their engine. */
#ifndef BOUGH_C_H
#define BOUGH_C_H

/* NOLINTBEGIN: C */

#include <stddef.h>
#include <stdint.h>

#include "bough/export.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BOUGH_ABI_VERSION 1u

/* Of the library that is loaded; to be compared with BOUGH_ABI_VERSION. */
BOUGH_API uint32_t bough_abi_version(void);
BOUGH_API const char* bough_version(void); /* "0.1.0" */

typedef enum bough_code {
  BOUGH_OK = 0,
  BOUGH_INVALID_ARGUMENT = 1,
  BOUGH_NOT_FOUND = 2,
  BOUGH_UNSUPPORTED = 3,
  BOUGH_CORRUPT = 4,
  BOUGH_OUT_OF_MEMORY = 5,
  BOUGH_IO_ERROR = 6,
  BOUGH_CANCELLED = 7,
  BOUGH_INTERNAL = 8
} bough_code;

typedef struct bough_status bough_status;
BOUGH_API bough_code bough_status_code(const bough_status* status);     /* BOUGH_OK for NULL */
BOUGH_API const char* bough_status_message(const bough_status* status); /* "" for NULL; lives as long as the status */
BOUGH_API void bough_status_free(bough_status* status);                 /* NULL is allowed */

/* Frees what a call handed out as char* or int32_t*; NULL is allowed. */
BOUGH_API void bough_free(void* memory);

/* ---- attention plans ---- */

/* A preset's name, a JSON object or a file that holds one, checked; one line of JSON with every field. */
BOUGH_API bough_status* bough_plan_parse(const char* spec, char** json);
/* The name of preset `index`, 0, 1, 2, ...; NULL after the last. */
BOUGH_API const char* bough_plan_preset(size_t index);

/* ---- engine ---- */

typedef struct bough_model_info {
  size_t size;
  char architecture[64]; /* names are cut to fit */
  char name[128];
  char weight_types[128];
  int64_t layers, d_model, heads, kv_heads, head_dim, ffn;
  int64_t vocab;
  int64_t trained_context; /* tokens */
  int64_t parameters;
  int64_t file_bytes;
  int64_t weight_bytes; /* read by one decode step */
} bough_model_info;

/* info->size is set by the caller to sizeof(bough_model_info). */
BOUGH_API bough_status* bough_inspect_model(const char* path, bough_model_info* info);

typedef struct bough_engine_options {
  size_t size;
  const char* model; /* path of a GGUF file */
  const char* plan;  /* as for bough_plan_parse; "default" */
  const char* kv;    /* element type of the KV cache by name; "bf16" */
  int32_t threads;   /* 0: as many as the process may use */
} bough_engine_options;
BOUGH_API void bough_engine_options_init(bough_engine_options* options, size_t size);

typedef struct bough_engine bough_engine;
BOUGH_API bough_status* bough_engine_open(const bough_engine_options* options, bough_engine** engine);
BOUGH_API void bough_engine_free(bough_engine* engine); /* NULL is allowed */
BOUGH_API bough_status* bough_engine_info(const bough_engine* engine, bough_model_info* info);
BOUGH_API bough_status* bough_engine_plan(const bough_engine* engine, char** json); /* after fitting to the model */
BOUGH_API int64_t bough_engine_cache_bytes(const bough_engine* engine);

#define BOUGH_ADD_BOS 1u /* tokenize: put the start token first where the model wants one */
#define BOUGH_SPECIAL 2u /* control tokens are recognised in a text, or appear as text; never for a user's text */
BOUGH_API bough_status* bough_tokenize(const bough_engine* engine, const char* text, size_t bytes, uint32_t flags, int32_t** tokens,
                                       size_t* count);
BOUGH_API bough_status* bough_detokenize(const bough_engine* engine, const int32_t* tokens, size_t count, uint32_t flags, char** text,
                                         size_t* bytes);
BOUGH_API int bough_is_end_of_text(const bough_engine* engine, int32_t token);
/* Messages in the model's own chat template, ready for the answer. roles, contents: [messages], ending with NUL. */
BOUGH_API bough_status* bough_chat_prompt(const bough_engine* engine, const char* const* roles, const char* const* contents,
                                          size_t messages, int32_t** tokens, size_t* count);

/* ---- sessions ---- */

typedef struct bough_session bough_session;
BOUGH_API bough_status* bough_session_new(bough_engine* engine, bough_session** session);
BOUGH_API void bough_session_free(bough_session* session); /* NULL is allowed */
BOUGH_API int64_t bough_session_length(const bough_session* session);

typedef struct bough_append_options {
  size_t size;
  int32_t will_sample; /* not 0: an answer follows, the last row's logits are kept */
  int64_t logits;      /* keep those of so many last rows */
  /* After each slice; 0 cancels, and what was read stays. NULL: none. */
  int (*progress)(int64_t done, int64_t total, double seconds, void* user);
  void* user;
} bough_append_options;
BOUGH_API void bough_append_options_init(bough_append_options* options, size_t size);

/* options NULL: the defaults. */
BOUGH_API bough_status* bough_session_append(bough_session* session, const int32_t* tokens, size_t count,
                                             const bough_append_options* options);
BOUGH_API bough_status* bough_session_decode(bough_session* session, int32_t token);
BOUGH_API bough_status* bough_session_rollback(bough_session* session, int64_t length);
/* Session files (docs/sessions.md): tokens that one would take, writing it, and a session from at most `tokens` of one; below 0: all. */
BOUGH_API int64_t bough_session_savable(const bough_session* session);
BOUGH_API bough_status* bough_session_save(const bough_session* session, const char* path);
BOUGH_API bough_status* bough_session_restore(bough_engine* engine, const char* path, int64_t tokens, bough_session** session);
/* [rows, vocab] of the last append or decode, valid until the next call on this session; rows 0 if there are none. */
BOUGH_API const float* bough_session_logits(const bough_session* session, size_t* rows);

/* ---- answers: the fields, their ranges and the order of samplers as in bough/generate.h ---- */

typedef struct bough_logit_bias {
  int32_t token;
  float bias;
} bough_logit_bias;

typedef struct bough_generate_options {
  size_t size;
  int64_t max_tokens;
  float temperature;
  int64_t top_k;
  float top_p, min_p;
  float repeat_penalty, frequency_penalty, presence_penalty;
  int64_t penalty_tokens;
  const bough_logit_bias* logit_bias; /* [logit_biases] */
  size_t logit_biases;
  uint64_t seed;
  const char* const* stop; /* [stops] */
  size_t stops;
  const char* grammar;     /* NULL: none */
  const char* json_schema; /* NULL: none */
  int32_t logprobs;        /* -1: none */
  /* Complete UTF-8 as it appears; 0 stops the answer. NULL: none. */
  int (*on_text)(const char* text, size_t bytes, void* user);
  void* user;
} bough_generate_options;
BOUGH_API void bough_generate_options_init(bough_generate_options* options, size_t size);

typedef enum bough_finish { BOUGH_END_OF_TEXT = 0, BOUGH_MAX_TOKENS = 1, BOUGH_STOPPED_BY_CALLER = 2, BOUGH_STOP_STRING = 3 } bough_finish;

typedef struct bough_generation bough_generation;
BOUGH_API bough_status* bough_session_generate(bough_session* session, const bough_generate_options* options, bough_generation** answer);
BOUGH_API void bough_generation_free(bough_generation* answer);                             /* NULL is allowed */
BOUGH_API const char* bough_generation_text(const bough_generation* answer, size_t* bytes); /* bytes may be NULL */
BOUGH_API const int32_t* bough_generation_tokens(const bough_generation* answer, size_t* count);
BOUGH_API bough_finish bough_generation_finish(const bough_generation* answer);
BOUGH_API double bough_generation_seconds(const bough_generation* answer);

typedef struct bough_logprob {
  int32_t token;
  double logprob;
  const char* text; /* [bytes], perhaps a part of a character; lives as long as the answer */
  size_t bytes;
} bough_logprob;
/* Of token `index` of the answer: rank 0 is the token itself, 1 the likeliest, 2 the next, ... 0 when there is none, otherwise 1. */
BOUGH_API int bough_generation_logprob(const bough_generation* answer, size_t index, size_t rank, bough_logprob* logprob);

#ifdef __cplusplus
}
#endif

/* NOLINTEND */

#endif
