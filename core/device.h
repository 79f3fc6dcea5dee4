/* device.h - where memory lies: the processor's, or that of a device with a plug-in. */
#ifndef OCT_CORE_DEVICE_H
#define OCT_CORE_DEVICE_H
#include "kernels/device.h"

enum oct_device { OCT_CPU, OCT_CUDA, OCT_CUDA_EMU, OCT_DEVICES };

/* The device of a name, which is opened where it is not open yet. */
int oct_device_named(int *device, const char *name);
const char *oct_device_name(int device);
/* The table of one that is open; NULL for the processor. */
const oct_device_kernels *oct_device_kernels_of(int device);
/* The one that was opened last; OCT_CPU where none was. */
int oct_device_newest(void);
/* Set the error text to the device's own, and return -1. */
int oct_device_fail(const oct_device_kernels *kernels);

/* From the memory of one device to that of another, or within one. On a device the two must not
 * overlap. */
int oct_device_copy(void *to, int to_device, const void *from, int from_device, int64_t bytes);
/* Every byte becomes `value`. */
int oct_device_fill(void *memory, int device, int value, int64_t bytes);

/* Pin memory of the processor, so that a device copies from and to it beside its work; 0, without
 * an error's text, where that cannot be. What was pinned is released before it is freed. */
int oct_device_pin(void *memory, int device, int64_t bytes);
void oct_device_unpin(void *memory, int device);

#endif
