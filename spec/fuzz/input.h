/* input.h - what the fuzz programs share: bytes as a file, and an allocation that fails. */
#ifndef OCT_FUZZ_INPUT_H
#define OCT_FUZZ_INPUT_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/octet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input_file {
    int fd;
    char path[64];
} input_file;

static inline input_file input_open(void)
{
    input_file file = {.fd = memfd_create("fuzz", MFD_CLOEXEC)};
    if (file.fd < 0) abort();
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    return file;
}

static inline void input_add(const input_file *file, const void *bytes, size_t size)
{
    if (write(file->fd, bytes, size) != (ssize_t)size) abort();
}

/* From here on the nth allocation fails, and all behind it; 0: none does. */
static inline void input_fail_allocation(int64_t nth)
{
    if (oct_fail_allocation(NULL, nth, 1) != 0) abort();
}

/* The end of a run: whatever happened, nothing may be left. */
static inline void input_close(const input_file *file)
{
    int64_t live, now, peak;
    input_fail_allocation(0);
    if (oct_live_tensors(&live) != 0 || live != 0) abort();
    if (oct_memory(&now, &peak, "cpu", -1) != 0 || now != 0) abort();
    close(file->fd);
}

#endif
