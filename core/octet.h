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

/* ---- errors, version, machine ---------------------------------------------------------------- */

/* The text of this thread's last failure; "" where there was none. Valid until the next failure. */
const char *oct_last_error(void);
/* "MAJOR.MINOR.PATCH". */
const char *oct_version(void);
/* Number of threads for all that follows, 1 to 1024; results do not depend on it, but where oneDNN
 * divides a product's long sums among them. */
int oct_set_threads(int threads);
int oct_threads(int *threads);
/* Instruction set of the kernels: "avx512", "avx2", or "auto" for the best that this processor has.
 * An error where the processor lacks it. */
int oct_set_isa(const char *name);
int oct_isa(const char **name);
/* 1 where the processor multiplies bf16 (AVX-512 BF16 or AMX), else 0. */
int oct_has_bf16(int *has);
/* Devices by name: "cpu", the processor; "cuda", the first GPU; "cuda-emu", CUDA's kernels run on
 * the processor, for specs. Whatever takes a name opens its device where it is not open yet. This
 * call opens it anew: its library, liboctet-NAME.so, is looked for beside this one; errors say what
 * is missing (the library, a driver, a GPU). description: what was opened, until the next call. */
int oct_device_open(const char **description, const char *name);
/* Monotonic clock in seconds. */
int oct_clock(double *seconds);

/* ---- memory ---------------------------------------------------------------------------------- */

/* What a tensor's memory is for; each is accounted apart, exact to the byte. */
enum {
    OCT_PARAMETERS, OCT_GRADIENTS, OCT_OPTIMIZER_STATE, OCT_ACTIVATIONS, OCT_WORKSPACE, OCT_DATA,
    OCT_PURPOSES
};
/* Bytes in use now on a device, and the most since the last oct_memory_reset_peak. purpose -1: all
 * together. */
int oct_memory(int64_t *now_bytes, int64_t *peak_bytes, const char *device, int purpose);
int oct_memory_reset_peak(void);
/* Give blocks that are cached but not in use back to the system; held_bytes: what they came to. */
int oct_memory_trim(int64_t *held_bytes);
/* *pressure points to an int that turns 1 when more than the soft limit is in use: time for Lua to
 * collect its garbage, of which it sees the handles alone. */
int oct_memory_pressure(const int **pressure);
/* Garbage has been collected, or the limit is new: *pressure is 0 again, and the limit is what is
 * in use now and half as much, and least_bytes at the least. */
int oct_memory_relieved(int64_t least_bytes);
/* Handles alive (tensors), for leak tests. */
int oct_live_tensors(int64_t *count);
/* Tests only: let the nth allocation from now (1 = the next) fail, and with on_and_on those after
 * it too. nth 0 switches it off. `made`: allocations since the last call. */
int oct_fail_allocation(int64_t *made, int64_t nth, int on_and_on);

/* ---- random numbers: Philox 4x32-10, counter-based ------------------------------------------- */

/* Seed of every stream; offsets go back to 0. */
int oct_seed(int64_t seed);
/* Streams keep apart what must not disturb each other. */
enum { OCT_STREAM_INIT, OCT_STREAM_DROPOUT, OCT_STREAM_OPTIMIZER, OCT_STREAM_DATA, OCT_STREAMS };
int oct_seed_now(int64_t *seed);
/* Where a stream stands, in blocks of four 32-bit numbers; saved and set for a resumed run. */
int oct_random_offset(int64_t *offset, int stream);
int oct_set_random_offset(int stream, int64_t offset);
/* The order of n rows in an epoch: a permutation of 0 .. n-1, of seed and epoch alone. */
int oct_permutation(int32_t *order, int64_t n, int64_t seed, int64_t epoch);

/* ---- tensors --------------------------------------------------------------------------------- */

typedef struct oct_tensor oct_tensor;
enum { OCT_F32, OCT_F16, OCT_BF16, OCT_I32, OCT_U8, OCT_DTYPES };
enum { OCT_MAX_DIMS = 6 };

/* A tensor of undefined content. shape[ndim], each 1 or more; ndim 0 is a scalar of one element. */
int oct_tensor_new(oct_tensor **out, int dtype, int ndim, const int64_t *shape, int purpose);
/* Give a handle back. NULL is fine. Never fails; the value is there for the convention's sake. */
int oct_tensor_free(oct_tensor *tensor);
/* shape has room for OCT_MAX_DIMS; size: elements; flags: 1 requires grad, 2 parameter, 4
 * released. */
int oct_tensor_info(int *dtype, int *ndim, int64_t *shape, int64_t *size, int *flags,
                    oct_tensor *tensor);
/* The first element; valid while the tensor is alive and does not move. Counts as a write, since it
 * may be one. An error where it lies on a device. */
int oct_tensor_data(void **data, oct_tensor *tensor);
/* The device that a tensor lies on. Ops take tensors of the processor alone; on any device there
 * are views, copies, gradients from elsewhere (oct_set_grad) and the optimizers. */
int oct_tensor_device(const char **name, oct_tensor *tensor);
/* A copy on a device; never recorded. */
int oct_to_device(oct_tensor **out, oct_tensor *x, const char *device);
/* Move x itself there, with its gradient. It has its storage for itself: no view has a part, and
 * nothing that is recorded. A gradient moves with its parameter, an optimizer's state not at all.
 */
int oct_move(oct_tensor *x, const char *device);
/* Views on the same storage: another shape of the same size; rows first .. first + count - 1. */
int oct_reshape(oct_tensor **out, oct_tensor *x, int ndim, const int64_t *shape);
int oct_rows(oct_tensor **out, oct_tensor *x, int64_t first, int64_t count);
/* A view outside of the record: no gradient passes, and backward leaves it alone. */
int oct_detach(oct_tensor **out, oct_tensor *x);
/* Copies: part of one dimension; two dimensions exchanged; tensors joined along one dimension. */
int oct_narrow(oct_tensor **out, oct_tensor *x, int dim, int64_t first, int64_t count);
int oct_transpose(oct_tensor **out, oct_tensor *x, int dim_a, int dim_b);
int oct_concat(oct_tensor **out, oct_tensor **xs, int64_t count, int dim);
/* Another type: f32, f16 and bf16 among each other (nearest even), i32 and u8 to and from f32. A
 * gradient passes from f32 to a bf16 parameter, and no other way. */
int oct_cast(oct_tensor **out, oct_tensor *x, int dtype);
/* In place, never recorded: dst = src (same size and type, each on any device); the contents of a
 * and b exchanged (same size and type, no memory shared); dst moved towards src, (1 - weight) dst +
 * weight src with weight from 0 to 1 (same size, f32); every element = value (f32, i32, u8);
 * uniform in [low, high) and normal, from OCT_STREAM_INIT (f32). */
int oct_copy(oct_tensor *dst, oct_tensor *src);
int oct_swap(oct_tensor *a, oct_tensor *b);
int oct_lerp(oct_tensor *dst, oct_tensor *src, float weight);
int oct_fill(oct_tensor *x, double value);
int oct_uniform(oct_tensor *x, float low, float high);
int oct_normal(oct_tensor *x, float mean, float deviation);

/* ---- gradients ------------------------------------------------------------------------------- */

/* Make a leaf, f32 or bf16, a parameter: accounted as OCT_PARAMETERS, collects a gradient, never
 * released by backward or a scope. on 0: it keeps its storage but collects no gradient (frozen). */
int oct_parameter(oct_tensor *x, int on);
/* A new handle on x's gradient (f32, x's shape); *out NULL where it has none. */
int oct_grad(oct_tensor **out, oct_tensor *x);
/* The gradient of a parameter becomes a copy of g (f32, of as many elements, on any device). */
int oct_set_grad(oct_tensor *x, oct_tensor *g);
/* The gradient counts as zero from here; its memory is kept for the next one. */
int oct_zero_grad(oct_tensor *x);
/* Record what follows (1) or not (0); `before` (may be NULL) receives the setting until now. */
int oct_set_grad_enabled(int *before, int on);
int oct_grad_enabled(int *on);
/* d loss / d parameter, added to the gradient of every parameter behind a scalar loss. Each
 * intermediate result is released as soon as it has been used, except the loss and what was kept.
 * What was recorded for another loss stays; two losses that share a part are to be added up. On
 * failure all that was recorded is dropped, and gradients may hold a part. */
int oct_backward(oct_tensor *loss);
/* Forget what was recorded for losses that nobody holds any more: for when garbage has been
 * collected. */
int oct_forget_unreached(void);
/* Neither backward nor the end of the scope releases x. */
int oct_keep(oct_tensor *x);
/* A scope releases, at its end, every tensor made since its beginning that is no parameter and was
 * not kept. The end of the outermost one also drops what was recorded in it and never went
 * backward; an inner one in which something was recorded leaves all to the one around it. */
int oct_scope_begin(void);
int oct_scope_end(void);
/* Move x from the innermost scope to the one around it. */
int oct_scope_escape(oct_tensor *x);

/* ---- ops: f32, and recorded where an input requires a gradient ------------------------------- */

/* Precision of the matrix products: OCT_F32 or OCT_BF16 (products in bf16, sums in f32). */
int oct_set_precision(int dtype);
int oct_precision(int *dtype);

/* ORDER UNARY, ORDER BINARY, ORDER REDUCTION: as in kernels/kernels.h. */
enum { OCT_OP_NEG, OCT_OP_EXP, OCT_OP_LOG, OCT_OP_SQRT, OCT_OP_ABS, OCT_OP_SQUARE,
       OCT_OP_RECIPROCAL, OCT_OP_TANH, OCT_OP_SIGMOID, OCT_OP_RELU, OCT_OP_GELU, OCT_OP_SILU };
enum { OCT_OP_ADD, OCT_OP_SUB, OCT_OP_MUL, OCT_OP_DIV, OCT_OP_MAXIMUM, OCT_OP_MINIMUM,
       OCT_OP_WHERE, OCT_OP_ELSEWHERE, OCT_OP_LESS, OCT_OP_LESS_EQUAL, OCT_OP_GREATER,
       OCT_OP_GREATER_EQUAL, OCT_OP_EQUAL, OCT_OP_NOT_EQUAL };
enum { OCT_OP_SUM, OCT_OP_MEAN, OCT_OP_MAX };
/* y = f(x); GELU is x Phi(x), by the error function. */
int oct_unary(oct_tensor **out, oct_tensor *x, int op);
/* y = op(a, b), shapes broadcast from the last dimension as NumPy does it. MAXIMUM, MINIMUM: NaN
 * where either is; equal ones share the gradient. WHERE: a where b is not 0, else 0; ELSEWHERE: a
 * where b is 0, else 0; no gradient passes to b. From LESS on: 1 where it is true, else 0, of
 * f32 or of i32 alike; never recorded. */
int oct_binary(oct_tensor **out, oct_tensor *a, oct_tensor *b, int op);
/* a where condition is not 0, else b; all broadcast. No gradient passes to the condition. */
int oct_where(oct_tensor **out, oct_tensor *condition, oct_tensor *a, oct_tensor *b);
/* x within low and high, either of which may be infinite. A gradient passes where x lies within
 * them, the bounds included. NaN stays NaN. */
int oct_clamp(oct_tensor **out, oct_tensor *x, float low, float high);
/* y = x * scale + shift */
int oct_affine(oct_tensor **out, oct_tensor *x, float scale, float shift);
/* Over dimension dim (0-based; -1: over all, to a scalar); keep 1: it stays with size 1. */
int oct_reduce(oct_tensor **out, oct_tensor *x, int dim, int keep, int op);
/* i32: the place of the largest along the last dimension; the first of equals. */
int oct_argmax(oct_tensor **out, oct_tensor *x);
/* y[... x m x n] = op(a) op(b), the last two dimensions of each transposed where asked: matrix by
 * matrix where a and b have the same leading sizes; b one matrix for all where a is not transposed.
 */
int oct_matmul(oct_tensor **out, oct_tensor *a, oct_tensor *b, int transpose_a, int transpose_b);
/* y[... x out] = f(x[... x in] w[out x in]' + bias[out]); bias may be NULL; activation: an
 * OCT_OP of the unary ones, -1 for none. */
int oct_linear(oct_tensor **out, oct_tensor *x, oct_tensor *w, oct_tensor *bias, int activation);
/* y = (x - mean) / sqrt(variance + epsilon) * gain + shift over the last dimension (Ba et al.
 * 2016). */
int oct_layer_norm(oct_tensor **out, oct_tensor *x, oct_tensor *gain, oct_tensor *shift,
                   float epsilon);
/* Over the last dimension. log 1: log-softmax. */
int oct_softmax(oct_tensor **out, oct_tensor *x, int log);
/* Each element is 0 with probability p, else scaled by 1 / (1 - p). */
int oct_dropout(oct_tensor **out, oct_tensor *x, float p);
/* y[... x width] = table[rows x width] at ids[...] (i32, 0-based). An id outside is an error. */
int oct_embedding(oct_tensor **out, oct_tensor *table, oct_tensor *ids);
/* The different numbers of ids (i32) as they first appear, and for each id its number's place among
 * them, from 0: ids[i] = values[places[i]]. */
int oct_distinct(oct_tensor **values, oct_tensor **places, oct_tensor *ids);
/* Mean over the rows of -log softmax(logits[rows x classes])[label]; labels i32[rows], 0-based;
 * rows labelled `ignore` do not count. */
int oct_cross_entropy(oct_tensor **out, oct_tensor *logits, oct_tensor *labels, int32_t ignore);
/* Mean over all elements of -target log sigmoid(logit) - (1 - target) log(1 - sigmoid(logit));
 * targets f32 of as many elements, each 0 to 1. No gradient passes to the targets. */
int oct_binary_cross_entropy(oct_tensor **out, oct_tensor *logits, oct_tensor *targets);
/* Attention over packed sequences (Vaswani et al. 2017; the scores are never held whole, as in Dao
 * et al. 2022): qkv[tokens x 3 width], width = heads x head size, query, key and value side by
 * side; offsets i32[sequences + 1]; y[tokens x width]. p: dropout of the probabilities. */
int oct_attention(oct_tensor **out, oct_tensor *qkv, oct_tensor *offsets, int64_t heads, float p,
                  int causal);
/* y[sequences x width] = mean of each sequence's rows of x[tokens x width]. */
int oct_segment_mean(oct_tensor **out, oct_tensor *x, oct_tensor *offsets);
/* A layer of an LSTM (Hochreiter and Schmidhuber 1997) or a GRU (Cho et al. 2014) over packed
 * sequences, in one direction or both: y[tokens x directions hidden]; h_n and c_n, the states
 * behind each sequence's last step, [directions x sequences x hidden], as are h_0 and c_0, which
 * may be NULL for zeros. c[tokens x directions hidden], the cells behind every step as y is the
 * state, is made where c is not NULL. x[tokens x inputs], dropped out with probability p; or, where
 * rows i32[tokens] is given, x[n x inputs], of which each token is a row, as words of a text are:
 * a product is made once a row, and p must be 0. weights: for each direction w_ih [gates hidden x
 * inputs], w_hh [gates hidden x hidden], b_ih and b_hh [gates hidden], which may be NULL. Gates and
 * formulas are PyTorch's: i f g o; r z n, r applied behind the product. */
int oct_lstm(oct_tensor **y, oct_tensor **h_n, oct_tensor **c_n, oct_tensor **c, oct_tensor *x,
             oct_tensor *rows, oct_tensor *offsets, oct_tensor *h_0, oct_tensor *c_0,
             oct_tensor **weights, int64_t directions, float p);
int oct_gru(oct_tensor **y, oct_tensor **h_n, oct_tensor *x, oct_tensor *rows, oct_tensor *offsets,
            oct_tensor *h_0, oct_tensor **weights, int64_t directions, float p);
/* 1 where every element is finite. */
int oct_all_finite(int *finite, oct_tensor *x);

/* ---- files ----------------------------------------------------------------------------------- */

/* Save `bytes` bytes as a file, whole or not at all, on the disk when it returns: a temporary file
 * in the same folder, synced, renamed. On failure the former file stands. */
int oct_file_save(const char *path, const void *data, int64_t bytes);
/* The same in pieces. commit and abandon both free the writer, whatever they return; after a write
 * that failed only abandon is of use. The descriptor remains the writer's. */
typedef struct oct_writer oct_writer;
int oct_writer_open(oct_writer **writer, const char *path);
int oct_writer_write(oct_writer *writer, const void *data, int64_t bytes);
int oct_writer_descriptor(int *fd, oct_writer *writer);
int oct_writer_commit(oct_writer *writer);
int oct_writer_abandon(oct_writer *writer);
/* A file that grows by lines. keep_bytes: its length is cut to so many first, -1 keeps all. Lines
 * are gathered; flush writes them (sync 1: to the disk), and what a full disk refused is kept for
 * the next call. size: bytes written and gathered. close flushes, syncs and frees, and tells
 * whether all of that succeeded. */
typedef struct oct_log oct_log;
int oct_log_open(oct_log **log, const char *path, int64_t keep_bytes);
int oct_log_write(oct_log *log, const char *text, int64_t bytes);
int oct_log_flush(oct_log *log, int sync);
int oct_log_size(int64_t *bytes, oct_log *log);
int oct_log_close(oct_log *log);
/* A whole regular file of at most limit_bytes (-1: any) into memory, a 0 behind its end; to be
 * given back by oct_file_release. */
int oct_file_load(char **data, int64_t *bytes, const char *path, int64_t limit_bytes);
int oct_file_release(void *data);
/* SHA-256 as 64 hexadecimal digits and a 0: text[65]. */
int oct_sha256(char *text, const void *data, int64_t bytes);
int oct_file_sha256(char *text, const char *path);
/* What a path leads to, links followed; bytes: of a file, else 0. */
enum { OCT_NOTHING, OCT_FILE, OCT_FOLDER, OCT_OTHER };
int oct_file_kind(int *kind, int64_t *bytes, const char *path);
/* Make a folder and those above it; fine where it is there. */
int oct_folder_make(const char *path);
/* The names in a folder, sorted, each followed by a 0; given back by oct_file_release. */
int oct_folder_list(char **names, int64_t *bytes, const char *path);
int oct_file_rename(const char *from, const char *to);
/* A file or an empty folder; fine where there is none. */
int oct_file_remove(const char *path);
/* A folder and all that is in it; links are removed, not followed. */
int oct_folder_remove(const char *path);
/* on 1: a write of this thread past the limit on the size of files (ulimit -f) fails with EFBIG and
 * sends no signal, whoever writes; on 0: as before. Each 1 wants its 0. The functions above need
 * no such call. */
int oct_hold_size_signal(int on);
/* Tests only: let the nth system call on files from now (1 = the next) fail with this errno, or,
 * for error 0, transfer half of what it was asked for; on_and_on: those after it too. nth 0
 * switches it off. `made`: calls since the last call. */
int oct_fail_file(int64_t *made, int64_t nth, int error, int on_and_on);

/* ---- safetensors ----------------------------------------------------------------------------- */

/* A file of tensors, open for reading. Its header is checked whole: lengths, types, shapes, offsets
 * (no gap, no overlap), no name twice. Texts live until it is closed. Tensors and metadata are
 * numbered from 0 in the order of their names. */
typedef struct oct_safetensors oct_safetensors;
int oct_safetensors_open(oct_safetensors **file, const char *path);
int oct_safetensors_close(oct_safetensors *file);
int oct_safetensors_counts(int64_t *tensors, int64_t *metadata, oct_safetensors *file);
/* type: as the file spells it ("F32", "BF16"); shape has room for OCT_MAX_DIMS. */
int oct_safetensors_info(const char **name, const char **type, int *ndim, int64_t *shape,
                         int64_t *bytes, oct_safetensors *file, int64_t index);
int oct_safetensors_metadata(const char **key, const char **value, oct_safetensors *file,
                             int64_t index);
/* Read one tensor: into a new one of dtype (-1: the file's own), or into one of the same shape.
 * F16, BF16 and F64 are read as f32 where that is asked for, I64 as i32 where every value fits,
 * BOOL as u8. A checksum that the file carries is checked; after a failure the tensor's content is
 * undefined. */
int oct_safetensors_read(oct_tensor **tensor, oct_safetensors *file, int64_t index, int dtype,
                         int purpose);
int oct_safetensors_read_into(oct_tensor *tensor, oct_safetensors *file, int64_t index);
/* Gather tensors (a reference to each is held) and metadata, then save them durably, whole or not
 * at all. checksums 1: a SHA-256 of each tensor and of the header goes into the metadata. */
typedef struct oct_safetensors_writer oct_safetensors_writer;
int oct_safetensors_writer_new(oct_safetensors_writer **writer);
int oct_safetensors_writer_add(oct_safetensors_writer *writer, const char *name,
                               oct_tensor *tensor);
int oct_safetensors_writer_metadata(oct_safetensors_writer *writer, const char *key,
                                    const char *value);
int oct_safetensors_writer_save(oct_safetensors_writer *writer, const char *path, int checksums);
int oct_safetensors_writer_free(oct_safetensors_writer *writer);

/* ---- a run's names --------------------------------------------------------------------------- */

/* Make a folder, those above it as needed; made 0 where something has that name already. */
int oct_folder_claim(int *made, const char *path);
/* A second name for a file, on the same file system; a file that had the name is replaced. */
int oct_file_link(const char *from, const char *to);

/* ---- signals, terminal ----------------------------------------------------------------------- */

/* on 1: from now on SIGINT, SIGTERM and SIGHUP only leave a mark, which this call clears; the
 * second one ends the process at once. on 0: what stood before holds again; the mark stays
 * readable. A signal that was being ignored stays ignored. */
int oct_catch_signals(int on);
/* The number of the signal that came since oct_catch_signals(1), else 0. */
int oct_signal_seen(int *number);
/* Width of the terminal behind a file descriptor; 0 where it is none. */
int oct_terminal_columns(int *columns, int descriptor);
/* What a descriptor has to give now, `capacity` bytes at most; waits where there is nothing yet.
 * bytes 0: the end. */
int oct_read_available(int64_t *bytes, char *buffer, int64_t capacity, int descriptor);

/* ---- other programs -------------------------------------------------------------------------- */

/* Run a program beside this one, looked for in PATH: arguments, the first its name, NULL behind the
 * last. Its input is empty; what it prints is appended to a file. It ends by SIGTERM when the
 * thread that started it ends; Ctrl-C does not reach it. *process: its number. */
int oct_process_start(int64_t *process, const char *const *arguments, const char *output_path);
/* Has it ended? Then also its exit status: 128 + the signal that ended it, 127 where it could not
 * be run. Once it has ended, the number is no longer good. */
int oct_process_ended(int *ended, int *status, int64_t process);
int oct_process_signal(int64_t process, int number);
/* Wait; less long where a signal comes. */
int oct_sleep(double seconds);

/* ---- text: WordPiece ------------------------------------------------------------------------- */

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

/* ---- files: tables --------------------------------------------------------------------------- */

/* Chosen columns of a TSV or CSV file, whole in memory. TSV as GLUE has it: a quote is a
 * plain character. CSV: RFC 4180's quotes. A line may end in CR LF; an empty line is passed over,
 * and so is a byte order mark. */
typedef struct oct_table oct_table;
enum { OCT_TABLE_TSV, OCT_TABLE_CSV };
/* UTF8: all else is an error. WINDOWS_1252: a line that is not UTF-8 is read as Windows-1252. */
enum { OCT_ENCODING_UTF8, OCT_ENCODING_WINDOWS_1252 };
/* columns: names of the header's, or, where the file has no header (header 0), places from 1 on,
 * parted by TABs; they are columns 0, 1, ... of the result. Errors name file and line: a column
 * that the header lacks, a line with too few columns, not UTF-8, a quote left open, no rows. */
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

/* ---- text: encoded data sets ----------------------------------------------------------------- */

/* Token ids of many texts, flat (accounted as OCT_DATA). A row is [CLS] a [SEP], or
 * [CLS] a [SEP] b [SEP] with token type 1 from b on. */
typedef struct oct_encoding oct_encoding;
/* Rows from columns a and b (-1: single texts) of a table. max_length: ids in a row at most, the
 * special ones included, at least 3; 0: no limit. Pairs lose from the longer text first; what is
 * then left is halved, and the odd token stays with the longer, or, of two equal ones, with b. */
int oct_encode_table(oct_encoding **result, const oct_wordpiece *wordpiece, const oct_table *table,
                     int64_t a, int64_t b, int64_t max_length);
/* Rows from memory: text i is bytes ends[i - 1] (0 for the first) to ends[i] - 1 of `texts`; with
 * pairs, texts 2i and 2i + 1 are a and b of row i. count: texts. special 0: without [CLS] and
 * [SEP]. */
int oct_encode_texts(oct_encoding **result, const oct_wordpiece *wordpiece, const char *texts,
                     const int64_t *ends, int64_t count, int pairs, int64_t max_length,
                     int special);
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

/* ---- quantization maps ----------------------------------------------------------------------- */

/* 256 or 16 values, ascending, of which the code is the place. Owned by the caller, and by every
 * optimizer that uses it. */
typedef struct oct_map oct_map;
/* Names of the maps that are built in, index from 0; *name NULL behind the last one. */
int oct_map_name(const char **name, int index);
/* levels: 256 or 16. A signed map is for state of either sign, an unsigned one for state that is
 * never negative. Not every map has a form of 16 levels. */
int oct_map_named(oct_map **out, const char *name, int levels, int is_signed);
/* values[levels]: from -1, or 0 in an unsigned map, to 1; ascending, equal ones allowed. */
int oct_map_new(oct_map **out, const float *values, int levels, int is_signed);
int oct_map_free(oct_map *map);
/* values: the map's own. zero: the code of what is nearest to 0. */
int oct_map_values(const float **values, int *levels, int *zero, const oct_map *map);
/* x[n] to codes and absmax[(n + block - 1) / block], to the nearest, and back. codes: [n], or with
 * 16 levels [(n + 1) / 2], the even elements in the low halves. block: a power of two, 32 at least.
 * reference 1: by the scalar twins. */
int oct_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n, int64_t block,
                 const oct_map *map, int reference);
int oct_dequantize(float *x, const uint8_t *codes, const float *absmax, int64_t n, int64_t block,
                   const oct_map *map, int reference);

/* ---- optimizers ------------------------------------------------------------------------------ */

/* The rules (kernels/rules.h), numbered from 0: name, title, default lr and weight decay, how
 * weight decay enters (OCT_DECAY_...), and whether a matrix is stepped in a way of its own
 * (OCT_MATRIX_...). */
enum { OCT_DECAY_COUPLED, OCT_DECAY_DECOUPLED, OCT_DECAY_OWN };
enum { OCT_MATRIX_PLAIN, OCT_MATRIX_ORTHOGONAL, OCT_MATRIX_FACTORED };
enum { OCT_STATE_NONE, OCT_STATE_SIGNED, OCT_STATE_POSITIVE, OCT_STATE_SQUARE };
int oct_rule_count(int *count);
int oct_rule_info(const char **name, const char **title, double *lr, double *weight_decay,
                  int *decay, int *matrix, int rule);
/* Option number `index`, from 0: name (NULL behind the last one), default, range. form, a sum: low
 * (ABOVE) or high (BELOW) themselves are not allowed; a whole number; true or false, as 1 or 0. */
enum { OCT_OPTION_ABOVE = 1, OCT_OPTION_BELOW = 2, OCT_OPTION_BETWEEN = 3, OCT_OPTION_WHOLE = 4,
       OCT_OPTION_SWITCH = 8 };
int oct_rule_option_info(const char **name, double *usual, double *low, double *high, int *form,
                         int rule, int index);
/* State number `index`, 0 to 2: name (NULL where there is none), kind (OCT_STATE_...), and the
 * option without which there is no such state, -1 where it is always there. */
int oct_rule_state_info(const char **name, int *kind, int *option, int rule, int index);

/* Parameters and their state. */
typedef struct oct_optim oct_optim;
int oct_optim_new(oct_optim **out);
/* Frees the state too. NULL is fine. */
int oct_optim_free(oct_optim *optim);
/* The numbers of a group of parameters, 0 .. 4095: before the first of them is added, and again
 * whenever they change. decay: OCT_DECAY_...; options: as many as the rule has. The rule stays. */
int oct_optim_group(oct_optim *optim, int group, int rule, double lr, double weight_decay,
                    int decay, const double *options);
/* What state of 8 or 4 bits is: ROOT: states of squares hold their roots. STOCHASTIC: rounded by
 * chance. WHOLE: one scale for the tensor instead of one for each block. */
enum { OCT_FORMAT_ROOT = 1, OCT_FORMAT_STOCHASTIC = 2, OCT_FORMAT_WHOLE = 4 };
/* Tensors of a parameter's state. VALUES + j: state j, f32 of the parameter's shape, or codes: u8
 * of that shape, with 4 bits [(size + 1) / 2]. ABSMAX + j: its scales, f32. CORRECTION: further
 * bits of a bf16 parameter. ROW, COLUMN: the factored second moment of adafactor; ROW alone, of the
 * parameter's shape, where it is no matrix. */
enum { OCT_STATE_VALUES = 0, OCT_STATE_ABSMAX = 3, OCT_STATE_CORRECTION = 6, OCT_STATE_ROW,
       OCT_STATE_COLUMN, OCT_STATE_TENSORS };
/* Add a parameter (f32 or bf16; kept alive from here on) with state of zeros to a group. bits: of
 * its state: 32, 8 or 4. block: elements, a power of two of 32 to 4096; flags: OCT_FORMAT_...; maps
 * may be NULL with 32 bits. correction_bits: 16 or 8, of a bf16 parameter; 0: it is rounded by
 * chance. Errors name it by `name`; one that was added before, or overlaps one, is refused.
 * All parameters of an optimizer lie on one device, where their steps are made. state_device: where
 * the state lies: that device (or NULL), or "cpu"; then each step copies it to the device and back,
 * some 16 MiB at a time. */
int oct_optim_add(oct_optim *optim, oct_tensor *parameter, const char *name, int group, int bits,
                  int64_t block, int flags, oct_map *signed_map, oct_map *unsigned_map,
                  int correction_bits, const char *state_device);
/* Of all gradients together: their norm, in double, without the elements that are not finite, and
 * how many those are. */
int oct_optim_grad_norm(double *norm, int64_t *not_finite, oct_optim *optim);
/* One step of every parameter that has a gradient, which is multiplied with grad_scale and then
 * clipped to +- grad_limit (infinity: not at all). An element whose gradient is not finite, or
 * would bring its state to 2^126 or more, is left as it is, state and all; left_out: how many.
 * Gradients stay. */
int oct_optim_step(int64_t *left_out, oct_optim *optim, double grad_scale, double grad_limit);
/* backward and a step at once: each parameter of the optimizer is stepped as soon as its gradient
 * is complete, and the gradient is freed. Where it fails on the way, some have been stepped, the
 * others not. */
int oct_optim_step_backward(int64_t *left_out, oct_optim *optim, oct_tensor *loss,
                            double grad_scale, double grad_limit);
/* All gradients count as zero. */
int oct_optim_zero_grad(oct_optim *optim);
/* A new handle on a state tensor of the parameter added as number `index` (0-based); *out NULL
 * where it has none. */
int oct_optim_state(oct_tensor **out, oct_optim *optim, int64_t index, int which);
/* Steps that a parameter has made; set: -1 leaves them. */
int oct_optim_steps(int64_t *steps, oct_optim *optim, int64_t index, int64_t set);
/* on 1: each step notes how well it kept its new state in 8 or 4 bits. */
int oct_optim_watch(oct_optim *optim, int on);
/* sums[6] over the elements of state number `state` in the last step: |kept - meant|, the same over
 * |meant|, |meant|; how many were kept as 0 though they were not, how many were not 0, how many
 * have the largest code of a side. */
int oct_optim_error_sums(double *sums, oct_optim *optim, int64_t index, int state);
/* Of the codes of state number `state`: how many stand for 0, as all do in a block of zeros, and
 * how many are the last one of a side. */
int oct_optim_code_counts(int64_t *zeros, int64_t *saturated, oct_optim *optim, int64_t index,
                          int state);
/* Whether f32 state from outside holds what a step may leave: numbers that are finite and below
 * 2^126 in magnitude, and without negative_too none below 0. */
int oct_optim_is_sound(int *sound, const oct_tensor *state, int negative_too);
/* Specs only, for parameters of the processor: its own kernels, their scalar twins, those for a
 * processor that has AVX-512 without VBMI, or those of the device that was opened last: all that
 * they read is copied there for each step, and what they wrote is copied back. */
enum { OCT_KERNELS_USUAL, OCT_KERNELS_SCALAR, OCT_KERNELS_PLAIN, OCT_KERNELS_DEVICE };
int oct_optim_kernels(oct_optim *optim, int kind);

// cdef-end

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
