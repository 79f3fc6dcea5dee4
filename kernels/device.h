/* device.h - the table through which the core reaches a device that is no processor: what a
 * plug-in, liboctet-NAME.so, exports as its one function.
 *
 * Calls return 0, or -1 with one line of text in last_error(). Pointers called `device` are the
 * device's own: nobody but the plug-in may look behind them. The calls are made from one thread at
 * a time, and each has done its work when it returns. */
#ifndef OCT_DEVICE_H
#define OCT_DEVICE_H
#include <stdint.h>

#include "kernels/optim.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Elements that a GPU takes at a time where all is usual. */
enum { OCT_USUAL_TILE = 2048 };

/* The work of a step, all of it in the device's memory: slots with their maps, and pieces. */
typedef struct oct_device_work {
    const oct_optim_slot *slots;
    const oct_optim_piece *pieces;
    int64_t piece_count;           /* above 0 */
    /* In a step the first pieces may be usual ones: of whole tiles, of slots with f32 parameters
     * and gradients, all states of the rule in 8 bits, rounded by chance in maps of lines, with
     * scales for blocks that are not above a tile; and all lies on whole multiples of 16 bytes. */
    int64_t usual_count;
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
    /* `bytes` of its memory, above 0, and 256-byte aligned. */
    int (*allocate)(void **device, int64_t bytes);
    int (*release)(void *device);
    int (*upload)(void *device, const void *host, int64_t bytes);
    int (*download)(void *host, const void *device, int64_t bytes);
    /* Within its memory; the two do not overlap. */
    int (*copy)(void *to, const void *from, int64_t bytes);
    /* Every byte becomes `value`. */
    int (*fill)(void *device, int value, int64_t bytes);

    /* As in kernels/kernels.h, and with the same bits. The results lie in the device's memory too;
     * left_out is added to. `errors` of a slot are not noted, as by the scalar twins. */
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
