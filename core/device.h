/* device.h - the device that is open, besides the processor. */
#ifndef OCT_CORE_DEVICE_H
#define OCT_CORE_DEVICE_H
#include "kernels/device.h"

/* Its table; NULL where none is open. */
const oct_device_kernels *oct_device_now(void);
/* Set the error text to the device's own, and return -1. */
int oct_device_fail(const oct_device_kernels *device);

/* As in kernels/kernels.h, on that device (core/optim_device.c), for work that is not empty. A step
 * that failed before it was copied back has changed nothing. */
int oct_device_step(int64_t *left_out, const oct_optim_work *work);
int oct_device_measure(oct_optim_measure *measures, const oct_optim_work *work);
int oct_device_squares(double *sums, int64_t *not_finite, const oct_optim_work *work,
                       int of_params);

#endif
