/* plugin.cu - the device's table: which devices there are, their memory, copies, and what failed.
 */
#include "kernels/cuda/plugin.hpp"

#include <stdio.h>

#include "kernels/cuda/element.hpp"

static char last_error_text[512];

int cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess) return 0;
    snprintf(last_error_text, sizeof last_error_text, "cuda: %s: %s", what,
             cudaGetErrorString(error));
    /* The runtime remembers it for whoever asks next; it has been told. */
    (void)cudaGetLastError();
    return -1;
}

static const char *last_error() { return last_error_text; }

/* The first call of the runtime: where there is no driver, or no GPU, this says so. */
static int count(int *devices)
{
    int found = 0;
    CUDA_TRY(cudaGetDeviceCount(&found), "looking for a GPU");
    if (found == 0) {
        snprintf(last_error_text, sizeof last_error_text, "cuda: looking for a GPU: there is none");
        return -1;
    }
    *devices = found;
    return 0;
}

static int use(char *name, int64_t bytes, int device)
{
    cudaDeviceProp properties;
    CUDA_TRY(cudaGetDeviceProperties(&properties, device), "asking what the GPU is");
    CUDA_TRY(cudaSetDevice(device), "choosing the GPU");
    if (properties.major > 0)
        snprintf(name, (size_t)bytes, "%s, compute capability %d.%d", properties.name,
                 properties.major, properties.minor);
    else
        snprintf(name, (size_t)bytes, "%s", properties.name);
    return 0;
}

/* ---- lanes ----------------------------------------------------------------------------------- */

/* Lane 0 is the runtime's default stream, for which the streams of the others wait, and which waits
 * for them. */
static cudaStream_t streams[1 + OCT_LANES];
static int lane;

cudaStream_t cuda_stream() { return streams[lane]; }

static int choose_lane(int number)
{
    if (number > 0 && !streams[number])
        CUDA_TRY(cudaStreamCreate(streams + number), "making a lane");
    lane = number;
    return 0;
}

static int wait()
{
    CUDA_TRY(cudaDeviceSynchronize(), "waiting for its work");
    return 0;
}

/* ---- memory ---------------------------------------------------------------------------------- */

static int allocate(void **device, int64_t bytes)
{
    char what[64];
    snprintf(what, sizeof what, "allocating %lld bytes", (long long)bytes);
    CUDA_TRY(cudaMalloc(device, (size_t)bytes), what);
    return 0;
}

static int release(void *device)
{
    CUDA_TRY(cudaFree(device), "freeing memory");
    return 0;
}

static int pin(void *host, int64_t bytes)
{
    CUDA_TRY(cudaHostRegister(host, (size_t)bytes, cudaHostRegisterDefault), "pinning memory");
    return 0;
}

static int unpin(void *host)
{
    CUDA_TRY(cudaHostUnregister(host), "releasing pinned memory");
    return 0;
}

static int transfer(void *to, const void *from, int64_t bytes, cudaMemcpyKind kind,
                    const char *what)
{
    if (lane == 0) CUDA_TRY(cudaMemcpy(to, from, (size_t)bytes, kind), what);
    else CUDA_TRY(cudaMemcpyAsync(to, from, (size_t)bytes, kind, cuda_stream()), what);
    return 0;
}

static int upload(void *device, const void *host, int64_t bytes)
{
    return transfer(device, host, bytes, cudaMemcpyHostToDevice, "copying to the GPU");
}

static int download(void *host, const void *device, int64_t bytes)
{
    return transfer(host, device, bytes, cudaMemcpyDeviceToHost, "copying from the GPU");
}

static int copy(void *to, const void *from, int64_t bytes)
{
    return transfer(to, from, bytes, cudaMemcpyDeviceToDevice, "copying on the GPU");
}

static int fill(void *device, int value, int64_t bytes)
{
    CUDA_TRY(cudaMemsetAsync(device, value, (size_t)bytes, cuda_stream()), "filling memory");
    return 0;
}

static const oct_device_kernels table = {
    OCT_VERSION,
    sizeof(oct_device_kernels),
    sizeof(oct_device_work),
    sizeof(oct_optim_slot),
    sizeof(oct_map),
    OCT_ARITHMETICS,
    last_error,
    count,
    use,
    choose_lane,
    wait,
    allocate,
    release,
    pin,
    unpin,
    upload,
    download,
    copy,
    fill,
    cuda_optim_step,
    cuda_optim_measure,
    cuda_optim_squares,
};

const oct_device_kernels *oct_device_kernels_of_plugin(void) { return &table; }
