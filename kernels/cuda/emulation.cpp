/* emulation.cpp - fibers in the place of a GPU's threads, and a heap in the place of its memory. */
#include "kernels/cuda/emulation.hpp"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

/* Keep what a call must keep on the stack, and the stack's pointer in *from; go on where `to` was
 * kept. For x86-64, as all kernels on the processor are. */
extern "C" void oct_emulation_switch(void **from, void *to);
__asm__(".text\n"
        ".p2align 4\n"
        ".type oct_emulation_switch, @function\n"
        "oct_emulation_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n    pushq %r13\n    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n    popq %r12\n    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size oct_emulation_switch, . - oct_emulation_switch\n");

namespace emulation
{

enum { STACK_BYTES = 256 << 10, SAVED_REGISTERS = 6 };

/* Fibers are made when a block first has so many threads, and then take part in block after block.
 */
struct fiber {
    char *stack;
    void *at; /* where it goes on */
    dim3 index;
    waiting state;
};

static fiber fibers[THREADS_MOST];
static void *scheduler;
static unsigned current, threads;
static uint64_t given[THREADS_MOST], seen[THREADS_MOST];
alignas(64) static unsigned char shared_memory[SHARED_BYTES];
static const std::function<void()> *kernel;
static int reversed;
static cudaError_t last_error;

/* ---- fibers ---------------------------------------------------------------------------------- */

void wait(waiting what)
{
    fiber *f = fibers + current;
    f->state = what;
    oct_emulation_switch(&f->at, scheduler);
}

static void fiber_main()
{
    for (;;) {
        (*kernel)();
        wait(waiting::done);
    }
}

static void resume(unsigned thread)
{
    current = thread;
    threadIdx = fibers[thread].index;
    oct_emulation_switch(&scheduler, fibers[thread].at);
}

/* A stack that looks as if the fiber had been switched away from at the very beginning. */
static bool make_fiber(fiber *f)
{
    void *memory =
        mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return false;
    f->stack = (char *)memory;
    void **top = (void **)(f->stack + STACK_BYTES);
    *--top = NULL; /* where a return address would lie */
    *--top = (void *)fiber_main;
    f->at = top - SAVED_REGISTERS;
    return true;
}

/* Those that will never go on. */
static void drop_fibers()
{
    for (fiber &f : fibers)
        if (f.stack) {
            munmap(f.stack, STACK_BYTES);
            f.stack = NULL;
        }
}

/* ---- a block of threads ---------------------------------------------------------------------- */

void *shared(size_t bytes) { return bytes <= SHARED_BYTES ? shared_memory : NULL; }

unsigned own_lane() { return current % WARP; }

uint64_t exchange(uint64_t value, unsigned lane)
{
    given[current] = value;
    wait(waiting::warp);
    return seen[current / WARP * WARP + lane % WARP];
}

static unsigned count(unsigned from, unsigned to, waiting state)
{
    unsigned n = 0;
    for (unsigned t = from; t < to; t++) n += fibers[t].state == state;
    return n;
}

/* Until all threads of a warp wait for the block or are done; false where some would wait for ever.
 */
static bool run_warp(unsigned from, unsigned to)
{
    for (;;) {
        for (unsigned i = from; i < to; i++) {
            unsigned t = reversed ? to - 1 - (i - from) : i;
            if (fibers[t].state == waiting::no) resume(t);
        }
        unsigned waiters = count(from, to, waiting::warp);
        if (waiters == 0) return true;
        if (waiters < to - from) return false;
        memcpy(seen + from, given + from, (to - from) * sizeof *given);
        for (unsigned t = from; t < to; t++) fibers[t].state = waiting::no;
    }
}

static bool run_block()
{
    unsigned warps = (threads + WARP - 1) / WARP;
    for (unsigned t = 0; t < threads; t++) fibers[t].state = waiting::no;
    memset(shared_memory, 0xFF, sizeof shared_memory);
    for (;;) {
        for (unsigned i = 0; i < warps; i++) {
            unsigned from = (reversed ? warps - 1 - i : i) * WARP;
            if (!run_warp(from, from + WARP < threads ? from + WARP : threads)) return false;
        }
        unsigned waiters = count(0, threads, waiting::block);
        if (waiters == 0) return true;
        if (waiters < threads) return false;
        for (unsigned t = 0; t < threads; t++) fibers[t].state = waiting::no;
    }
}

static cudaError_t run_grid(dim3 blocks)
{
    for (unsigned t = 0; t < threads; t++) {
        fiber *f = fibers + t;
        if (!f->stack && !make_fiber(f)) return cudaErrorMemoryAllocation;
        f->index = dim3(t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y));
    }
    for (unsigned z = 0; z < blocks.z; z++)
        for (unsigned y = 0; y < blocks.y; y++)
            for (unsigned x = 0; x < blocks.x; x++) {
                blockIdx = dim3(x, y, z);
                if (run_block()) continue;
                drop_fibers();
                return cudaErrorLaunchFailure;
            }
    return cudaSuccess;
}

/* ---- host side ------------------------------------------------------------------------------- */

static int64_t calls, fail_at, allocations;

/* 1 where this call of the runtime is to fail. */
static bool fails()
{
    calls++;
    return fail_at > 0 && --fail_at == 0;
}

/* ---- streams --------------------------------------------------------------------------------- */

typedef std::function<cudaError_t()> work;

enum { STREAMS_MOST = 16 };
static std::vector<work> streams[STREAMS_MOST];
static int stream_count = 1;

/* All that waits in a stream; what went wrong is found by whoever asks next. */
static void run_stream(int stream)
{
    std::vector<work> all;
    all.swap(streams[stream]);
    for (const work &w : all) {
        cudaError_t error = w();
        if (error != cudaSuccess) last_error = error;
    }
}

static void run_streams()
{
    for (int i = 0; i < stream_count; i++) run_stream(reversed ? stream_count - 1 - i : i);
}

/* At once on the default stream, which waits for the others. */
static cudaError_t enqueue(cudaStream_t stream, const work &w)
{
    if (stream == 0) {
        run_streams();
        return w();
    }
    streams[stream].push_back(w);
    return cudaSuccess;
}

static cudaError_t run(dim3 blocks, dim3 block, const std::function<void()> &f)
{
    threads = block.x * block.y * block.z;
    kernel = &f;
    gridDim = blocks;
    blockDim = block;
    return run_grid(blocks);
}

void launch(cudaStream_t stream, dim3 blocks, dim3 block, const std::function<void()> &f)
{
    unsigned count = block.x * block.y * block.z;
    if (count == 0 || count > THREADS_MOST || blocks.x * blocks.y * blocks.z == 0)
        last_error = cudaErrorInvalidConfiguration;
    else if (fails())
        last_error = cudaErrorLaunchFailure;
    else {
        cudaError_t error = enqueue(stream, [=] { return run(blocks, block, f); });
        if (error != cudaSuccess) last_error = error;
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* What has been allocated, so that a copy to elsewhere is found. */
struct allocation {
    allocation *next;
    size_t bytes;
    alignas(256) char memory[];
};
static allocation *first;

static bool is_allocated(const void *memory, size_t bytes)
{
    for (const allocation *a = first; a; a = a->next) {
        uintptr_t from = (uintptr_t)memory, start = (uintptr_t)a->memory;
        if (from >= start && from - start <= a->bytes && bytes <= a->bytes - (from - start))
            return true;
    }
    return false;
}

/* What is pinned. */
struct range {
    char *from, *to;
};
static std::vector<range> pinned;

static bool is_pinned(const void *memory, size_t bytes)
{
    for (const range &r : pinned)
        if ((const char *)memory >= r.from && (const char *)memory + bytes <= r.to) return true;
    return false;
}

} // namespace emulation

using namespace emulation;

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorLaunchFailure:
        return "unspecified launch failure";
    }
    return "unrecognized error code";
}

cudaError_t cudaGetLastError()
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaDeviceSynchronize()
{
    run_streams();
    return fails() ? cudaErrorLaunchFailure : cudaGetLastError();
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    if (fails() || stream_count == STREAMS_MOST) return cudaErrorMemoryAllocation;
    *stream = stream_count++;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (fails()) return cudaErrorInvalidDevice;
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    return device != 0 || fails() ? cudaErrorInvalidDevice : cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    if (device != 0 || fails()) return cudaErrorInvalidDevice;
    snprintf(properties->name, sizeof properties->name, "CUDA, emulated on the processor");
    properties->major = properties->minor = 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    if (fails()) return cudaErrorMemoryAllocation;
    size_t whole = (sizeof(allocation) + bytes + 255) / 256 * 256;
    allocation *a = (allocation *)aligned_alloc(256, whole);
    if (!a) return cudaErrorMemoryAllocation;
    a->next = first;
    a->bytes = bytes;
    memset(a->memory, 0xFF, bytes);
    first = a;
    allocations++;
    *memory = a->memory;
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory)
{
    run_streams();
    /* It is freed even where it is told to fail: there is nobody to try again. */
    bool failing = fails();
    for (allocation **a = &first; memory && *a; a = &(*a)->next)
        if ((*a)->memory == memory) {
            allocation *gone = *a;
            *a = gone->next;
            free(gone);
            allocations--;
            return failing ? cudaErrorLaunchFailure : cudaSuccess;
        }
    return memory || failing ? cudaErrorInvalidValue : cudaSuccess;
}

static cudaError_t check_copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    if (fails() || (kind != cudaMemcpyDeviceToHost && !is_allocated(to, bytes)) ||
        (kind != cudaMemcpyHostToDevice && !is_allocated(from, bytes)))
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind)
{
    run_streams();
    cudaError_t error = check_copy(to, from, bytes, kind);
    if (error == cudaSuccess) error = cudaGetLastError();
    if (error == cudaSuccess) memcpy(to, from, bytes);
    return error;
}

/* To and from memory that is not pinned the runtime copies before it returns. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    cudaError_t error = check_copy(to, from, bytes, kind);
    const void *host = kind == cudaMemcpyHostToDevice ? from : to;
    if (error != cudaSuccess) return error;
    enqueue(stream, [=] { return memcpy(to, from, bytes), cudaSuccess; });
    if (kind != cudaMemcpyDeviceToDevice && !is_pinned(host, bytes)) run_stream(stream);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    if (fails() || !is_allocated(memory, bytes)) return cudaErrorInvalidValue;
    return enqueue(stream, [=] { return memset(memory, value, bytes), cudaSuccess; });
}

cudaError_t cudaHostRegister(void *memory, size_t bytes, unsigned)
{
    char *from = (char *)memory, *to = from + bytes;
    if (fails()) return cudaErrorMemoryAllocation;
    for (const range &r : pinned)
        if (from < r.to && r.from < to) return cudaErrorInvalidValue;
    pinned.push_back({from, to});
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *memory)
{
    run_streams();
    for (size_t i = 0; i < pinned.size(); i++)
        if (pinned[i].from == memory) {
            pinned.erase(pinned.begin() + (long)i);
            return cudaSuccess;
        }
    return cudaErrorInvalidValue;
}

void oct_emulation(int64_t *calls_made, int64_t *not_freed, int64_t *pins, int reverse,
                   int64_t fail)
{
    if (calls_made) *calls_made = calls;
    if (not_freed) *not_freed = allocations;
    if (pins) *pins = (int64_t)pinned.size();
    calls = 0;
    reversed = reverse;
    fail_at = fail;
}
