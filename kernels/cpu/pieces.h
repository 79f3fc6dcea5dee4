/* pieces.h - how a kernel's work is cut for the threads.
 *
 * The cuts depend on the size alone, so that results do not depend on the number of threads. */
#ifndef OCT_PIECES_H
#define OCT_PIECES_H
#include <stdint.h>

enum {
    PIECE = 4096,                  /* elements: 16 KiB, a third of an L1 cache */
    SERIAL_BELOW = 16384           /* elements; waking the threads costs more than they save */
};

/* Run the body for the piece of `n` elements that starts at `at` and has `count`. The body may
 * hold commas. */
#define IN_PIECES(n, at, count, ...)                                                               \
    do {                                                                                           \
        const int64_t n_ = (n), pieces_ = (n_ + PIECE - 1) / PIECE;                                \
        if (n_ < SERIAL_BELOW) {                                                                   \
            const int64_t at = 0, count = n_;                                                      \
            if (n_ > 0) { __VA_ARGS__; }                                                           \
        } else {                                                                                   \
            _Pragma("omp parallel for schedule(static)")                                           \
            for (int64_t piece_ = 0; piece_ < pieces_; piece_++) {                                 \
                const int64_t at = piece_ * PIECE;                                                 \
                const int64_t count = n_ - at < PIECE ? n_ - at : PIECE;                           \
                __VA_ARGS__;                                                                       \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* Run the body for each `row` of `rows`, where a row costs about `width` elements. */
#define IN_ROWS(rows, width, row, ...)                                                             \
    do {                                                                                           \
        const int64_t rows_ = (rows);                                                              \
        if (rows_ < 2 || rows_ * (width) < SERIAL_BELOW) {                                         \
            for (int64_t row = 0; row < rows_; row++) { __VA_ARGS__; }                             \
        } else {                                                                                   \
            _Pragma("omp parallel for schedule(static)")                                           \
            for (int64_t row = 0; row < rows_; row++) { __VA_ARGS__; }                             \
        }                                                                                          \
    } while (0)

#endif
