/* runtime.hpp - CUDA's runtime, or its emulation, and the few words in which the two differ.
 *
 * LAUNCH(kernel, blocks, threads, arguments...)
 * SHARED(type, name): a variable of the block of threads, within a kernel; of undefined content. */
#ifndef OCT_CUDA_RUNTIME_HPP
#define OCT_CUDA_RUNTIME_HPP

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define LAUNCH(kernel, blocks, threads, ...) kernel<<<(blocks), (threads)>>>(__VA_ARGS__)
#define SHARED(type, name) __shared__ type name
#else
#include "kernels/cuda/emulation.hpp"
#endif

#define INLINE static __device__ __forceinline__

#endif
