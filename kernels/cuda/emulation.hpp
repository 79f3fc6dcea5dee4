/* emulation.hpp - as much of CUDA as the plug-in uses, on the processor: its source, host side
 * included, is compiled by a C++ compiler and runs where there is neither a GPU nor CUDA.
 *
 * The blocks of a launch run one after the other. Each thread of a block is a fiber: it runs until
 * it waits for its warp (a shuffle) or for its block (__syncthreads), and then the next one does.
 * So a barrier that is missing shows as a wrong result, if not in the order of the threads then in
 * the reverse one, and one that not all threads reach is an error of the launch instead of a
 * deadlock. Shared memory holds NaNs when a block begins; a copy must lie within what was
 * allocated.
 *
 * What is called on a stream waits until somebody asks for it, and then one stream does all its
 * work after the other, so that work which leans on another stream's shows as a wrong result too.
 */
#ifndef OCT_CUDA_EMULATION_HPP
#define OCT_CUDA_EMULATION_HPP
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>

#define __device__
#define __global__ static
#define __forceinline__ inline
#define __launch_bounds__(...)

#define LAUNCH(kernel, blocks, threads, stream, ...)                                               \
    emulation::launch((stream), (blocks), (threads), [=] { kernel(__VA_ARGS__); })
#define SHARED(type, name) type &name = *static_cast<type *>(emulation::shared(sizeof(type)))

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

/* Stream 0 is the default one. */
typedef int cudaStream_t;

namespace emulation
{

enum { WARP = 32, THREADS_MOST = 1024, SHARED_BYTES = 48 << 10 };
enum class waiting { no, warp, block, done };

/* Give way to the other threads until those that are waited for have come as far. */
void wait(waiting what);
/* The block's memory, which is the same for all its threads; one variable a kernel. */
void *shared(size_t bytes);
/* What the lane of the own warp that `pick` gives for the own one has handed in. */
uint64_t exchange(uint64_t value, unsigned lane);
unsigned own_lane();
void launch(cudaStream_t stream, dim3 blocks, dim3 threads, const std::function<void()> &kernel);

} // namespace emulation

static inline void __syncthreads() { emulation::wait(emulation::waiting::block); }

template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle of at most 8 bytes");
    uint64_t given = 0;
    memcpy(&given, &value, sizeof value);
    given = emulation::exchange(given, emulation::own_lane() ^ (unsigned)mask);
    memcpy(&value, &given, sizeof value);
    return value;
}

static inline unsigned __reduce_max_sync(unsigned lanes, unsigned value)
{
    for (int mask = emulation::WARP / 2; mask > 0; mask /= 2) {
        unsigned other = __shfl_xor_sync(lanes, value, mask);
        if (other > value) value = other;
    }
    return value;
}

/* A thread is never interrupted, so every operation is atomic. */
template <class T> static inline T atomicAdd(T *place, T value)
{
    T old = *place;
    *place = old + value;
    return old;
}
template <class T> static inline T atomicMax(T *place, T value)
{
    T old = *place;
    if (value > old) *place = value;
    return old;
}
static inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift)
{
    return (unsigned)(((uint64_t)high << 32 | low) >> shift % 32);
}
static inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- host side; numbers and names as CUDA has them ------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
};
struct cudaDeviceProp {
    char name[256];
    int major, minor;
};
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreate(cudaStream_t *stream);
enum { cudaHostRegisterDefault };
cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *memory);

/* Specs only. reversed: threads of a block, and streams, run in the reverse order from now on.
 * fail: the nth call of the runtime from now on fails (1: the next one); 0: none. calls: those
 * since the last time; allocations: that are not freed yet; pins: memory that is pinned. Each may
 * be NULL. */
extern "C" __attribute__((visibility("default"))) void
oct_emulation(int64_t *calls, int64_t *allocations, int64_t *pins, int reversed, int64_t fail);

#endif
