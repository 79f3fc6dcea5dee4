/* row.h - sums over a run of floats, taken the same way everywhere: in f32 down 4 * LANES columns
 * of at most RUN elements, above that in double. */
#ifndef OCT_ROW_H
#define OCT_ROW_H
#include "kernels/cpu/vector.h"

enum { RUN = 4096 };

/* Declares row_NAME(x, y, n): the sum of TERM over i, where `a` and `b` stand for LANES elements of
 * x and y (y may be x), and `c` for the number given. A term of zeros has to be 0. */
#define ROW_SUM(name, term)                                                                        \
    INLINE double row_##name(const float *x, const float *y, int64_t n, vf c)                      \
    {                                                                                              \
        double sum = 0;                                                                            \
        for (int64_t from = 0; from < n; from += RUN) {                                            \
            const int64_t end = n - from < RUN ? n : from + RUN;                                   \
            vf sums[4] = {vf_all(0), vf_all(0), vf_all(0), vf_all(0)};                             \
            int64_t i = from;                                                                      \
            for (; i + 4 * LANES <= end; i += 4 * LANES)                                           \
                for (int k = 0; k < 4; k++) {                                                      \
                    vf a = vf_load(x + i + k * LANES), b = vf_load(y + i + k * LANES);             \
                    sums[k] += (term);                                                             \
                    (void)a, (void)b;                                                              \
                }                                                                                  \
            for (; i + LANES <= end; i += LANES) {                                                 \
                vf a = vf_load(x + i), b = vf_load(y + i);                                         \
                sums[0] += (term);                                                                 \
                (void)a, (void)b;                                                                  \
            }                                                                                      \
            if (i < end) {                                                                         \
                const vm inside = vm_first(end - i);                                               \
                vf a = vf_load_first(x + i, end - i), b = vf_load_first(y + i, end - i);           \
                sums[1] += vf_select(inside, (term), vf_all(0));                                   \
                (void)a, (void)b;                                                                  \
            }                                                                                      \
            sum += vf_sum_double((sums[0] + sums[1]) + (sums[2] + sums[3]));                       \
        }                                                                                          \
        (void)c;                                                                                   \
        return sum;                                                                                \
    }

ROW_SUM(sum, a)
ROW_SUM(dot, a * b)
ROW_SUM(square_distance, (a - c) * (a - c))
#undef ROW_SUM

/* The largest element; -infinity where there is none. NaNs may be lost. */
INLINE float row_greatest(const float *x, int64_t n)
{
    vf most = vf_all(-INFINITY);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) most = vf_max(vf_load(x + i), most);
    if (i < n) {
        vf rest = vf_load_first(x + i, n - i);
        most = vf_max(vf_select(vm_first(n - i), rest, vf_all(-INFINITY)), most);
    }
    return vf_greatest(most);
}

/* Runs the body for each vector of a run of n: from place i on, `count` lanes of it inside the run.
 * The full vectors get a loop of their own. */
#define FOR_VECTORS(i, n, count, ...)                                                              \
    do {                                                                                           \
        int64_t i = 0;                                                                             \
        for (; i + LANES <= (n); i += LANES) {                                                     \
            const int64_t count = LANES;                                                           \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
        if (i < (n)) {                                                                             \
            const int64_t count = (n) - i;                                                         \
            __VA_ARGS__;                                                                           \
        }                                                                                          \
    } while (0)

/* `count` is a constant LANES in the loop over full vectors, which makes these plain there. */
INLINE vf load(const float *p, int64_t count)
{
    return count == LANES ? vf_load(p) : vf_load_first(p, count);
}
INLINE void store(float *p, vf v, int64_t count)
{
    if (count == LANES) vf_store(p, v);
    else vf_store_first(p, v, count);
}

#endif
