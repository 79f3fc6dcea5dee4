/* device.h - the table through which the core reaches a device that is no processor: what a
 * plug-in, liboctet-NAME.so, exports as its one function.
 *
 * Calls return 0, or -1 with one line of text in last_error(). Pointers called `device` are the
 * device's own: nobody but the plug-in may look behind them. The calls are made from one thread at
 * a time.
 *
 * Work goes to a lane. In lane 0, where all begin, each call comes after all that was called
 * before, and what is copied has arrived when the call returns. In the others a call may only have
 * begun its work: it comes after what was called before in its own lane and in lane 0, and what it
 * copies from or to pinned memory must stay until wait() or a call in lane 0 has returned. A
 * failure may be said by a later call. */
#ifndef OCT_DEVICE_H
#define OCT_DEVICE_H
#include <stdint.h>

#include "kernels/optim.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { OCT_LANES = 4 };            /* 1 .. OCT_LANES, besides lane 0 */

/* A block of threads takes so many tiles of so many usual elements of a slot, or a tile of others.
 */
enum { OCT_USUAL_TILE = 2048, OCT_USUAL_TILES = 4, OCT_OTHER_TILE = OCT_BLOCK_MAX };

/* Some work, all of it in the device's memory: slots with their maps, and, but in a step, the
 * pieces of all of them.
 *
 * In a step, usual_starts[k] and other_starts[k] blocks of threads come before slot k, k <= slots.
 * Where a slot has usual elements, they are its first ones, as many as whole OCT_USUAL_TILEs hold.
 * Usual is: f32 parameters and gradients, state in 8 bits, rounded by chance in maps of lines, with
 * scales for blocks that are not above a tile; of the rule's states all are there, or it has
 * OCT_STATES of them; numbers lie on whole multiples of 16 bytes, and codes on those of 4. */
typedef struct oct_device_work {
    const oct_optim_slot *slots;
    const oct_optim_piece *pieces;
    const int64_t *usual_starts, *other_starts;
    int64_t piece_count, slot_count, usual_blocks, other_blocks;
    int32_t arithmetic;            /* of every slot */
} oct_device_work;

typedef struct oct_device_kernels {
    /* What both sides must agree upon, since they are two files. */
    const char *version;
    int64_t table_bytes, work_bytes, slot_bytes, map_bytes;
    int32_t arithmetics;

    /* Until the next failure. */
    const char *(*last_error)(void);
    /* Devices that can be used, at least one. */
    int (*count)(int *devices);
    /* Work on device number `device` from now on. name: what it is, cut at `bytes`. */
    int (*use)(char *name, int64_t bytes, int device);
    int (*choose_lane)(int lane);
    /* Until all lanes have done their work. */
    int (*wait)(void);
    /* `bytes` of its memory, above 0, and 256-byte aligned. */
    int (*allocate)(void **device, int64_t bytes);
    int (*release)(void *device);
    /* Memory of the processor that the device may copy from and to while its lanes work. */
    int (*pin)(void *host, int64_t bytes);
    int (*unpin)(void *host);
    int (*upload)(void *device, const void *host, int64_t bytes);
    int (*download)(void *host, const void *device, int64_t bytes);
    /* Within its memory; the two do not overlap. */
    int (*copy)(void *to, const void *from, int64_t bytes);
    /* Every byte becomes `value`. */
    int (*fill)(void *device, int value, int64_t bytes);

    /* As in kernels/kernels.h, and with the same bits. The results lie in the device's memory too,
     * by piece; left_out is added to. `errors` of a slot are not noted, as by the scalar twins. */
    int (*optim_step)(uint64_t *left_out, const oct_device_work *work);
    int (*optim_measure)(oct_optim_measure *measures, const oct_device_work *work);
    int (*optim_squares)(double *sums, uint64_t *left_out, const oct_device_work *work,
                         int of_params);
} oct_device_kernels;

/* The one function that a plug-in exports. */
#define OCT_DEVICE_FUNCTION "oct_device_kernels_of_plugin"
__attribute__((visibility("default"))) const oct_device_kernels *oct_device_kernels_of_plugin(void);

#ifdef __cplusplus
}
#endif
#endif
