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

/* ---- signals, terminal ---------------------------------------------------------------------- */

/* on 1: from now on SIGINT and SIGTERM only leave a mark, which this call clears; the second one
 * ends the process at once. on 0: what stood before holds again; the mark stays readable. A signal
 * that was being ignored stays ignored. */
int oct_catch_signals(int on);
/* The number of the signal that came since oct_catch_signals(1), else 0. */
int oct_signal_seen(int *number);
/* Width of the terminal behind a file descriptor; 0 where it is none. */
int oct_terminal_columns(int *columns, int descriptor);

// cdef-end

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
