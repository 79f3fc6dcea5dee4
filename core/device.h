/* device.h - the device that is open, besides the processor. */
#ifndef OCT_CORE_DEVICE_H
#define OCT_CORE_DEVICE_H
#include "kernels/device.h"

/* Its table; NULL where none is open. */
const oct_device_kernels *oct_device_now(void);
/* Set the error text to the device's own, and return -1. */
int oct_device_fail(const oct_device_kernels *device);

#endif
