/* error.h - how the library reports failure: a status, and one line of text for the thread. */
#ifndef OCT_ERROR_H
#define OCT_ERROR_H

/* Set this thread's error text (printf's format, cut at 1,023 bytes) and return -1:
 *     if (n < 0) return oct_fail("tensor: size %lld is negative", (long long)n); */
int oct_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Put "PREFIX: " before the text that stands, and return -1. */
int oct_fail_within(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The text for an allocation that failed. */
int oct_fail_memory(long long bytes);

#define OCT_TRY(call) do { if ((call) != 0) return -1; } while (0)

#endif
