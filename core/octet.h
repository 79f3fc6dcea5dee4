/* octet.h - the C interface of Octet, and the only one.
 *
 * Every function returns 0 on success. On failure it returns -1, leaves its results untouched, and
 * oct_last_error() (one text per thread) says what was wrong, what was expected and what was got.
 * Results come first, through pointers. Handles are opaque; a handle that a function returns is
 * owned by the caller. Nothing in the library exits, aborts or prints.
 *
 * The text between the two marks below is compiled into the library as well (oct_cdef), and is what
 * LuaJIT's ffi.cdef reads: it holds declarations only, no preprocessor lines. */
#ifndef OCTET_H
#define OCTET_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* The text of the marked region, 0-terminated. Not in the region: Lua declares it by hand. */
const char *oct_cdef(void);

// cdef-begin

/* ---- errors, version, machine ------------------------------------------------------------- */

/* The text of this thread's last failure; "" where there was none. Valid until the next failure. */
const char *oct_last_error(void);
/* "MAJOR.MINOR.PATCH". */
const char *oct_version(void);
/* Number of threads for all that follows, 1 to 1024; results do not depend on it. */
int oct_set_threads(int threads);
int oct_threads(int *threads);
/* Instruction set of the kernels: "avx512", "avx2", or "auto" for the best that this processor has.
 * An error where the processor lacks it. */
int oct_set_isa(const char *name);
int oct_isa(const char **name);
/* 1 where the processor multiplies bf16 (AVX-512 BF16 or AMX), else 0. */
int oct_has_bf16(int *has);
/* Monotonic clock in seconds. */
int oct_clock(double *seconds);

/* ---- memory ------------------------------------------------------------------------------- */

/* What a tensor's memory is for; each is accounted apart, exact to the byte. */
enum {
    OCT_PARAMETERS, OCT_GRADIENTS, OCT_OPTIMIZER_STATE, OCT_ACTIVATIONS, OCT_WORKSPACE, OCT_DATA,
    OCT_PURPOSES
};
/* Bytes in use now, and the most since the last oct_memory_reset_peak. purpose -1: all together. */
int oct_memory(int64_t *now_bytes, int64_t *peak_bytes, int purpose);
int oct_memory_reset_peak(void);
/* Give blocks that are cached but not in use back to the system; held_bytes: what they came to. */
int oct_memory_trim(int64_t *held_bytes);
/* Handles alive (tensors), for leak tests. */
int oct_live_tensors(int64_t *count);
/* Tests only: let the nth allocation from now (1 = the next) fail, and with on_and_on those after
 * it too. nth 0 switches it off. `made`: allocations since the last call. */
int oct_fail_allocation(int64_t *made, int64_t nth, int on_and_on);

/* ---- random numbers: Philox 4x32-10, counter-based ------------------------------------------ */

/* Seed of every stream; offsets go back to 0. */
int oct_seed(int64_t seed);
/* Streams keep apart what must not disturb each other. */
enum { OCT_STREAM_INIT, OCT_STREAM_DROPOUT, OCT_STREAM_OPTIMIZER, OCT_STREAM_DATA, OCT_STREAMS };
/* Where a stream stands, in blocks of four 32-bit numbers; saved and set for a resumed run. */
int oct_random_offset(int64_t *offset, int stream);
int oct_set_random_offset(int stream, int64_t offset);
/* The order of n rows in an epoch: a permutation of 0 .. n-1 that depends on seed and epoch alone. */
int oct_permutation(int32_t *order, int64_t n, int64_t seed, int64_t epoch);

/* ---- tensors -------------------------------------------------------------------------------- */

typedef struct oct_tensor oct_tensor;
enum { OCT_F32, OCT_F16, OCT_BF16, OCT_I32, OCT_U8, OCT_DTYPES };
enum { OCT_MAX_DIMS = 6 };

/* ---- text: WordPiece -------------------------------------------------------------------------- */

/* BERT's tokenizer over a vocabulary (vocab.txt: UTF-8, one token a line, its id the line's number
 * from 0). Read-only once loaded: any number of threads may use it. */
typedef struct oct_wordpiece oct_wordpiece;
/* How text is prepared; BERT uncased has them all. SPECIAL: "[SEP]" and its like in a text are
 * those tokens, as with Hugging Face's tokenizers, instead of three words. */
enum {
    OCT_WORDPIECE_LOWER = 1, OCT_WORDPIECE_STRIP_ACCENTS = 2, OCT_WORDPIECE_CHINESE = 4,
    OCT_WORDPIECE_SPECIAL = 8
};
/* flags: a sum of the above. Errors name file and line: an empty line, a token twice, not UTF-8, no
 * [UNK], [CLS] or [SEP]. The caller frees the result. */
int oct_wordpiece_load(oct_wordpiece **result, const char *path, int flags);
int oct_wordpiece_free(oct_wordpiece *wordpiece);
int oct_wordpiece_size(int64_t *tokens, const oct_wordpiece *wordpiece);
/* id: -1 where the vocabulary has no such token. */
int oct_wordpiece_id(int32_t *id, const oct_wordpiece *wordpiece, const char *token, int64_t bytes);
/* token: the tokenizer's own, valid as long as it is; not ended by a 0 where it holds one. */
int oct_wordpiece_token(const char **token, int64_t *bytes, const oct_wordpiece *wordpiece,
                        int64_t id);

/* ---- files: tables -------------------------------------------------------------------------------- */

/* Chosen columns of a TSV or CSV file, whole in memory. TSV as GLUE has it: a quote is a
 * plain character. CSV: RFC 4180's quotes. A line may end in CR LF; an empty line is passed over,
 * and so is a byte order mark. */
typedef struct oct_table oct_table;
enum { OCT_TABLE_TSV, OCT_TABLE_CSV };
/* UTF8: all else is an error. WINDOWS_1252: a line that is not UTF-8 is read as Windows-1252. */
enum { OCT_ENCODING_UTF8, OCT_ENCODING_WINDOWS_1252 };
/* columns: names of the header's, or, where the file has no header (header 0), places from 1 on,
 * parted by TABs; they are columns 0, 1, ... of the result. Errors name file and line: a column that
 * the header lacks, a line with too few columns, not UTF-8, a quote left open, no rows. */
int oct_table_read(oct_table **result, const char *path, int format, int header, int encoding,
                   const char *columns);
int oct_table_free(oct_table *table);
int oct_table_rows(int64_t *rows, const oct_table *table);
/* text: the table's own, not ended by a 0. line: where the row begins in the file, from 1. */
int oct_table_cell(const char **text, int64_t *bytes, int64_t *line, const oct_table *table,
                   int64_t row, int64_t column);
/* labels[rows]: the place, from 0, of each cell's text among `names` (parted by TABs). An error
 * gives file, line, the value and what was expected. */
int oct_table_labels(int32_t *labels, const oct_table *table, int64_t column, const char *names);
/* values[rows]: decimal numbers from low to high; the same error. */
int oct_table_numbers(float *values, const oct_table *table, int64_t column, double low,
                      double high);

/* ---- text: encoded data sets ------------------------------------------------------------------------ */

/* Token ids of many texts, flat (accounted as OCT_DATA). A row is [CLS] a [SEP], or
 * [CLS] a [SEP] b [SEP] with token type 1 from b on. */
typedef struct oct_encoding oct_encoding;
/* Rows from columns a and b (-1: single texts) of a table. max_length: ids in a row at most, the
 * special ones included, at least 3; 0: no limit. Pairs lose from the longer text first; what is
 * then left is halved, and the odd token stays with the longer, or, of two equal ones, with b. */
int oct_encode_table(oct_encoding **result, const oct_wordpiece *wordpiece, const oct_table *table,
                     int64_t a, int64_t b, int64_t max_length);
/* Rows from memory: text i is bytes ends[i - 1] (0 for the first) to ends[i] - 1 of `texts`; with
 * pairs, texts 2i and 2i + 1 are a and b of row i. count: texts. special 0: without [CLS], [SEP]. */
int oct_encode_texts(oct_encoding **result, const oct_wordpiece *wordpiece, const char *texts,
                     const int64_t *ends, int64_t count, int pairs, int64_t max_length, int special);
int oct_encoding_free(oct_encoding *encoding);
/* rows, tokens in all, tokens of the longest row. */
int oct_encoding_size(int64_t *rows, int64_t *tokens, int64_t *longest,
                      const oct_encoding *encoding);
/* The encoding's own arrays: ids[tokens], offsets[rows + 1] of each row, and firsts[rows], how many
 * tokens of a row have type 0. */
int oct_encoding_arrays(const int32_t **ids, const int64_t **offsets, const int32_t **firsts,
                        const oct_encoding *encoding);
/* Tokens of n rows together. */
int oct_encoding_count(int64_t *tokens, const oct_encoding *encoding, const int32_t *rows,
                       int64_t n);
/* Write n rows one behind the other: ids, types and positions (from 0 in each row) [tokens],
 * offsets[n + 1]. */
int oct_encoding_pack(int32_t *ids, int32_t *offsets, int32_t *types, int32_t *positions,
                      const oct_encoding *encoding, const int32_t *rows, int64_t n);

// cdef-end

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
