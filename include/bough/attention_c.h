/* The C ABI of the attention library: PagedAttention (bough/paged_attention.h) on a CUDA device and the same attention on the CPU, for
 * languages that call C. libbough_attention.so has it; libbough.so, the engine, has bough/c.h.
 *
 * A call that can fail returns a bough_attention_code. Anything but 0 comes with one sentence in `message` [room], cut to fit and always
 * ending in NUL; NULL with room 0 is allowed. What a call hands out through a pointer is set only on success. Nothing here prints, aborts
 * or throws. Structs are as this header says: compare bough_attention_abi_version with BOUGH_ATTENTION_ABI_VERSION. */
#ifndef BOUGH_ATTENTION_C_H
#define BOUGH_ATTENTION_C_H

/* NOLINTBEGIN: C */

#include <stddef.h>
#include <stdint.h>

#include "bough/export.h"

#ifdef __cplusplus
extern "C" {
#endif

#define BOUGH_ATTENTION_ABI_VERSION 2u

/* Of the library that is loaded. */
BOUGH_API uint32_t bough_attention_abi_version(void);
/* 1 where the build has CUDA kernels, otherwise 0. */
BOUGH_API int32_t bough_attention_has_cuda(void);
/* A value for the plan's dense_below on a CUDA device of this compute capability, as bough::break_even_tokens. */
BOUGH_API int64_t bough_attention_break_even_tokens(int32_t major, int32_t minor);

typedef enum bough_attention_code {
  BOUGH_ATTENTION_OK = 0,
  BOUGH_ATTENTION_INVALID_ARGUMENT = 1,
  BOUGH_ATTENTION_NOT_FOUND = 2,
  BOUGH_ATTENTION_UNSUPPORTED = 3,
  BOUGH_ATTENTION_CORRUPT = 4,
  BOUGH_ATTENTION_OUT_OF_MEMORY = 5,
  BOUGH_ATTENTION_IO_ERROR = 6,
  BOUGH_ATTENTION_CANCELLED = 7,
  BOUGH_ATTENTION_INTERNAL = 8
} bough_attention_code;

/* Element types: 0 f16, 1 bf16, 2 e4m3, 3 int8. rope_pairs: 0 (2i, 2i+1), 1 (i, i + dims/2). */
typedef struct bough_attention_shape {
  int32_t heads;        /* query heads hq, a multiple of kv_heads, at most 16 times as many */
  int32_t kv_heads;     /* hkv, at most 32 */
  int32_t head_dim;     /* d: 64, 96, 128 or 256 */
  int32_t q_type;       /* of q and o: f16 or bf16; the CPU reads f32 and ignores both types */
  int32_t kv_type;      /* q_type, e4m3 or int8 */
  int32_t page_tokens;  /* a power of two from 8 to 1024; ignored on the CPU */
  float scale;          /* of q.k before the softmax; 0: 1 / sqrt(d) */
  float softcap;        /* c > 0: a scaled score s becomes c tanh(s / c) */
  int32_t keys_rotated; /* not 0: keys and queries come turned, texts are at most trained_context long */
  int32_t rope_pairs;
  int64_t sliding_window;    /* n > 0: a row sees its own key and the n - 1 before it; nothing is pruned */
  int64_t trained_context;   /* tokens, at least 1; the plan is fitted to it */
  const double* frequencies; /* [frequency_count] radians a position; 2 frequency_count a multiple of 16, at most d */
  int64_t frequency_count;   /* 0: nothing turns */
  double rope_magnitude;     /* YaRN's attention factor, otherwise 1 */
} bough_attention_shape;

/* ---- CUDA: fields and contracts as in bough/paged_attention.h ---- */

typedef struct bough_paged_limits {
  int64_t rows;
  int64_t length;
  int32_t sequences;
  int32_t portable; /* not 0: kernels that every device from compute capability 8.0 on runs */
} bough_paged_limits;

typedef struct bough_paged_plane {
  const void* data;
  int64_t sequence_stride; /* all strides in elements */
  int64_t page_stride, token_stride, head_stride;
  const float* scale; /* NULL: 1 */
  int64_t scale_sequence_stride;
  int64_t scale_page_stride, scale_token_stride, scale_head_stride;
} bough_paged_plane;

typedef struct bough_paged_cache {
  bough_paged_plane k, v;
  const int32_t* page_table; /* [sequences, table_stride] or NULL */
  int64_t table_stride;
  bough_paged_plane summary; /* every summary_step-th key once more, or the means of as many; data NULL: none */
  int64_t summary_step;      /* a power of two from 4 to 64, at most page_tokens and a quarter of the first chunk; of means
                                bough_paged_mean_keys; 0 where there is none */
} bough_paged_cache;

typedef struct bough_paged_batch {
  const int32_t* query_start; /* [sequences + 1], on the device */
  const int32_t* lengths;     /* [sequences], on the device */
  int64_t rows;
  int64_t longest;
  int64_t sequences;
} bough_paged_batch;

typedef struct bough_paged_rows {
  void* data;
  int64_t row, head; /* strides in elements */
} bough_paged_rows;

typedef struct bough_paged_selection {
  const int32_t* blocks; /* [nb, 8], on the device */
  const int32_t* counts; /* [nb, 4], on the device */
  const int32_t* starts; /* [nb, list_heads, capacity], on the device */
  int64_t nb, list_heads, capacity, chunk;
} bough_paged_selection;

typedef struct bough_paged bough_paged;

/* plan: a preset's name, a JSON object or a file that holds one; of it the given layer. On the current device. */
BOUGH_API int32_t bough_paged_create(const char* plan, int32_t layer, const bough_attention_shape* shape, const bough_paged_limits* limits,
                                     bough_paged** out, char* message, size_t room);
BOUGH_API void bough_paged_destroy(bough_paged* paged);           /* NULL is allowed */
BOUGH_API const char* bough_paged_plan(const bough_paged* paged); /* JSON, after fitting; lives as long as `paged` */
BOUGH_API int64_t bough_paged_workspace_bytes(const bough_paged* paged);
BOUGH_API int64_t bough_paged_state_bytes(const bough_paged* paged, int32_t slots);
BOUGH_API int32_t bough_paged_due_stage(const bough_paged* paged, int64_t counter, int64_t length);
BOUGH_API int32_t bough_paged_stages(const bough_paged* paged);
BOUGH_API int32_t bough_paged_mean_keys(const bough_paged* paged); /* keys of each mean that the summary has to hold; 0: none */

/* stream: a cudaStream_t, here and below.
   k, v: [rows, kv_heads, head_dim] of q's type; of the cache data and scale are written, and the summary with the keys. */
BOUGH_API int32_t bough_paged_write(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* k,
                                    const bough_paged_rows* v, const bough_paged_cache* cache, void* stream, char* message, size_t room);
/* Puts the means of keys that the caller has written into the summary; batch->query_start NULL: of all tokens. Of the cache k is read. */
BOUGH_API int32_t bough_paged_summarise(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_cache* cache,
                                        void* stream, char* message, size_t room);
BOUGH_API int32_t bough_paged_prune(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* q,
                                    const bough_paged_cache* cache, void* workspace, void* stream, char* message, size_t room);
BOUGH_API int32_t bough_paged_attend(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* q,
                                     const bough_paged_cache* cache, const bough_paged_rows* o, float* lse, const float* sink_logits,
                                     void* workspace, void* stream, char* message, size_t room);
BOUGH_API void bough_paged_selected(const bough_paged* paged, void* workspace, bough_paged_selection* out);

typedef struct bough_paged_states {
  void* states;         /* bough_paged_state_bytes(slots) */
  const int32_t* slot;  /* [sequences], on the device */
  const int32_t* stage; /* [sequences], on the device */
  int32_t slots;
  int32_t least_stage;
} bough_paged_states;

BOUGH_API int32_t bough_paged_decode(const bough_paged* paged, const bough_paged_batch* batch, const bough_paged_rows* q,
                                     const bough_paged_cache* cache, const bough_paged_states* states, const bough_paged_rows* o,
                                     float* lse, const float* sink_logits, void* workspace, void* stream, char* message, size_t room);

/* ---- CPU ---- */

/* Element (sequence b, head h, token t, e) of an f32 array is data[b * batch + h * head + t * token + e]. */
typedef struct bough_cpu_array {
  float* data;
  int64_t batch, head, token;
} bough_cpu_array;

typedef struct bough_cpu_call {
  int64_t sequences;
  int64_t rows;             /* of q and o, for each sequence: its last ones */
  int64_t tokens;           /* that k and v have room for, for each sequence */
  const int32_t* lengths;   /* [sequences] tokens of each, from rows to tokens; NULL: `tokens` */
  bough_cpu_array q;        /* [sequences, hq, rows, d] */
  bough_cpu_array k;        /* [sequences, hkv, tokens, d], with the keys of q's rows */
  bough_cpu_array v;        /* as k */
  bough_cpu_array o;        /* as q; written */
  float* lse;               /* [sequences, rows, hq] contiguous, or NULL; natural log of the sum of exponentials */
  const float* sink_logits; /* [hq] or NULL: of each head, a logit that takes part in the softmax and has no value */
} bough_cpu_call;

/* prune and attend of all rows. Query blocks of the plan's rows (64 unless it says otherwise) in absolute positions; the plan's last
 * `tail` rows of a sequence choose for themselves. Takes every plan, also those that have no CUDA kernels. Uses OpenMP's threads. */
BOUGH_API int32_t bough_cpu_attention(const char* plan, int32_t layer, const bough_attention_shape* shape, const bough_cpu_call* call,
                                      char* message, size_t room);

#ifdef __cplusplus
}
#endif

/* NOLINTEND */

#endif
