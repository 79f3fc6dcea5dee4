/* pieces.h - how a kernel's work is cut for the threads.
 *
 * The cuts depend on the size alone, so that results do not depend on the number of threads. */
#ifndef OCT_PIECES_H
#define OCT_PIECES_H
#include <stdint.h>

enum {
    PIECE = 4096,                  /* elements: 16 KiB, half of an L1 cache */
    SERIAL_BELOW = 16384           /* elements; waking the threads costs more than they save */
};

/* Run `body` for the piece of `n` elements that starts at `at` and has `count`. */
#define IN_PIECES(n, at, count, body)                                                              \
    do {                                                                                           \
        const int64_t n_ = (n), pieces_ = (n_ + PIECE - 1) / PIECE;                                \
        if (n_ < SERIAL_BELOW) {                                                                   \
            const int64_t at = 0, count = n_;                                                      \
            if (n_ > 0) body;                                                                      \
        } else {                                                                                   \
            _Pragma("omp parallel for schedule(static)")                                           \
            for (int64_t piece_ = 0; piece_ < pieces_; piece_++) {                                 \
                const int64_t at = piece_ * PIECE;                                                 \
                const int64_t count = n_ - at < PIECE ? n_ - at : PIECE;                           \
                body;                                                                              \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#endif
