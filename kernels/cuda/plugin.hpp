/* plugin.hpp - what the files of the plug-in share: its error text, and the device's functions. */
#ifndef OCT_CUDA_PLUGIN_HPP
#define OCT_CUDA_PLUGIN_HPP
#include "kernels/cuda/runtime.hpp"
#include "kernels/device.h"

/* 0, or -1 with the text set: "cuda: WHAT: the runtime's own words". */
int cuda_check(cudaError_t error, const char *what);

/* That of the lane in which work goes on. */
cudaStream_t cuda_stream();

#define CUDA_TRY(call, what)                                                                       \
    do {                                                                                           \
        if (cuda_check((call), (what)) != 0) return -1;                                            \
    } while (0)

/* The slot of a block of threads, where starts[k] blocks come before slot k. */
INLINE int64_t slot_of(const int64_t *starts, int64_t slots, int64_t block)
{
    int64_t low = 0, high = slots;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (starts[middle] <= block) low = middle;
        else high = middle;
    }
    return low;
}

/* optim.cu; as oct_device_kernels says. */
int cuda_optim_step(uint64_t *left_out, const oct_device_work *work);
/* optim_usual.cu; of what is usual. */
void cuda_step_usual(uint64_t *left_out, const oct_device_work *work);
int cuda_optim_measure(oct_optim_measure *measures, const oct_device_work *work);
int cuda_optim_squares(double *sums, uint64_t *left_out, const oct_device_work *work,
                       int of_params);

#endif
