/* machine.c - the processor, its threads, its clock, and which table of kernels is in use. */
#include <immintrin.h>
#include <omp.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/octet.h"
#include "kernels/kernels.h"

static const oct_kernels *table;

const char *oct_version(void)
{
    return OCT_VERSION;
}

/* ---- instruction set ------------------------------------------------------------------------- */

static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

/* Runs when the library is loaded. Numbers below 2^-126 count as 0 from here on, in this thread
 * and, since a thread inherits the setting, in every worker: they would slow training tenfold. */
__attribute__((constructor)) static void begin(void)
{
    __builtin_cpu_init();
    table = has_avx512() ? &oct_kernels_avx512 : has_avx2() ? &oct_kernels_avx2 : NULL;
    _MM_SET_FLUSH_ZERO_MODE(_MM_FLUSH_ZERO_ON);
    _mm_setcsr(_mm_getcsr() | 0x40);
}

const oct_kernels *oct_kernels_now(void)
{
    return table;
}

int oct_set_isa(const char *name)
{
    if (strcmp(name, "auto") == 0)
        table = has_avx512() ? &oct_kernels_avx512 : has_avx2() ? &oct_kernels_avx2 : NULL;
    else if (strcmp(name, "avx512") == 0 && has_avx512()) table = &oct_kernels_avx512;
    else if (strcmp(name, "avx2") == 0 && has_avx2()) table = &oct_kernels_avx2;
    else return oct_fail("isa: this processor has no \"%s\"; expected avx512, avx2 or auto", name);
    return table ? 0
                 : oct_fail("isa: this processor has no AVX2, which is the least that Octet needs");
}

int oct_isa(const char **name)
{
    if (!table)
        return oct_fail("isa: this processor has no AVX2, which is the least that Octet needs");
    *name = table->isa;
    return 0;
}

int oct_has_bf16(int *has)
{
    unsigned a = 7, b = 0, c = 1, d = 0;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    *has = has_avx512() && (a >> 5 & 1);
    return 0;
}

/* ---- threads --------------------------------------------------------------------------------- */

int oct_set_threads(int threads)
{
    if (threads < 1 || threads > 1024)
        return oct_fail("threads: %d, expected 1 to 1024", threads);
    omp_set_num_threads(threads);
    return 0;
}

int oct_threads(int *threads)
{
    *threads = omp_get_max_threads();
    return 0;
}

int oct_clock(double *seconds)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return oct_fail("clock: no monotonic clock");
    *seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    return 0;
}
