/* runtime.hpp - CUDA's runtime, or its emulation, and the few words in which the two differ.
 *
 * LAUNCH(kernel, blocks, threads, stream, arguments...): the arguments are copied.
 * SHARED(type, name): a variable of the block of threads, within a kernel; of undefined content.
 * UNROLL: before a loop whose arrays are to lie in registers; ONE_BY_ONE: before one whose body is
 * to be there once. */
#ifndef OCT_CUDA_RUNTIME_HPP
#define OCT_CUDA_RUNTIME_HPP

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define LAUNCH(kernel, blocks, threads, stream, ...)                                               \
    kernel<<<(blocks), (threads), 0, (stream)>>>(__VA_ARGS__)
#define SHARED(type, name) __shared__ type name
#define UNROLL _Pragma("unroll")
#define ONE_BY_ONE _Pragma("unroll 1")
#else
#include "kernels/cuda/emulation.hpp"
#define UNROLL
#define ONE_BY_ONE
#endif

#define INLINE static __device__ __forceinline__

#endif
