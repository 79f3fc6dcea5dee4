/* memory.h - where every byte of the library comes from.
 *
 * Two doors. oct_malloc is for structures: plain, and able to fail on request, so that every
 * failure path can be tested. oct_block is for tensors: 64-byte aligned, cached by size, accounted
 * by purpose, exact to the byte that was asked for. */
#ifndef OCT_MEMORY_H
#define OCT_MEMORY_H
#include <stddef.h>
#include <stdint.h>

/* As the C library's; NULL with the error text set where memory ends. A size of 0 gives a pointer.
 */
void *oct_malloc(size_t bytes);
void *oct_calloc(size_t count, size_t bytes);
void *oct_realloc(void *old, size_t bytes);
char *oct_strdup(const char *text);
void oct_free(void *pointer);

/* A block of `bytes` for a purpose (OCT_PARAMETERS ...), uninitialized, 64-byte aligned, with at
 * least 64 readable bytes behind its end; NULL with the error text set where memory ends. */
void *oct_block_new(size_t bytes, int purpose);
/* Give a block back to the cache. `bytes` and `purpose` as they were asked for. */
void oct_block_free(void *block, size_t bytes, int purpose);
/* The same in the memory of a device (core/device.h), which is not cached: what lies there is made
 * once. On OCT_CPU they are the two above. */
void *oct_block_new_on(int device, size_t bytes, int purpose);
void oct_block_free_on(int device, void *block, size_t bytes, int purpose);
/* Account a block as something else, as when an activation becomes a gradient. */
void oct_block_repurpose(int device, size_t bytes, int from, int to);

#endif
