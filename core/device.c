/* device.c - devices by name, and their memory. The library of one is looked for, beside this one,
 * when it is asked for by name, and not before. */
#include "core/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/octet.h"
#include "rules_list.h"

static struct {
    const char *name, *option;     /* option: of the build that makes the plug-in */
    const oct_device_kernels *kernels;     /* once it is open */
    char description[256];
} devices[OCT_DEVICES] = {
    [OCT_CPU] = {.name = "cpu", .description = "the processor"},
    [OCT_CUDA] = {.name = "cuda", .option = "OCTET_CUDA"},
    [OCT_CUDA_EMU] = {.name = "cuda-emu", .option = "OCTET_CUDA_EMU"},
};
static int newest;

const oct_device_kernels *oct_device_kernels_of(int device) { return devices[device].kernels; }
const char *oct_device_name(int device) { return devices[device].name; }
int oct_device_newest(void) { return newest; }

int oct_device_fail(const oct_device_kernels *device)
{
    return oct_fail("device: %s", device->last_error());
}

/* ---- opening --------------------------------------------------------------------------------- */

static int number_of(int *device, const char *name)
{
    for (int i = 0; i < OCT_DEVICES; i++)
        if (strcmp(name, devices[i].name) == 0) {
            *device = i;
            return 0;
        }
    return oct_fail("device: no \"%s\"; expected cpu, cuda or cuda-emu", name);
}

/* The folder that this library was loaded from, with a slash at its end. folder[PATH_MAX] */
static int own_folder(char *folder)
{
    Dl_info info;
    if (dladdr((void *)oct_device_open, &info) == 0 || !realpath(info.dli_fname, folder))
        return oct_fail("device: the folder of liboctet.so is not known");
    strrchr(folder, '/')[1] = 0;
    return 0;
}

/* Both were built from the same source, with the same rules. */
static int fits(const oct_device_kernels *device)
{
    return strcmp(device->version, OCT_VERSION) == 0 &&
           device->table_bytes == (int64_t)sizeof *device &&
           device->work_bytes == (int64_t)sizeof(oct_device_work) &&
           device->slot_bytes == (int64_t)sizeof(oct_optim_slot) &&
           device->map_bytes == (int64_t)sizeof(oct_map) && device->arithmetics == OCT_ARITHMETICS;
}

static int load(const oct_device_kernels **device, const char *name, const char *option)
{
    char folder[PATH_MAX], path[PATH_MAX + 64];
    OCT_TRY(own_folder(folder));
    snprintf(path, sizeof path, "%sliboctet-%s.so", folder, name);
    if (access(path, F_OK) != 0)
        return oct_fail("device: \"%s\" needs liboctet-%s.so beside liboctet.so, and %s is not "
                        "there; cmake -D%s=ON builds it", name, name, path, option);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return oct_fail("device: %s", dlerror());
    const oct_device_kernels *(*of_plugin)(void);
    void *found = dlsym(library, OCT_DEVICE_FUNCTION);
    if (!found) return oct_fail("device: %s is no plug-in of Octet's", path);
    memcpy(&of_plugin, &found, sizeof of_plugin);
    if (!fits(of_plugin()))
        return oct_fail("device: %s is of another build than liboctet.so; build both anew", path);
    *device = of_plugin();
    return 0;
}

static int open_number(int device)
{
    const oct_device_kernels *k;
    char *what = devices[device].description;
    int count;
    if (device == OCT_CPU) return 0;
    OCT_TRY(load(&k, devices[device].name, devices[device].option));
    if (k->count(&count) != 0 || k->use(what, sizeof devices[device].description, 0) != 0)
        return oct_device_fail(k);
    devices[device].kernels = k;
    newest = device;
    return 0;
}

int oct_device_open(const char **description, const char *name)
{
    int device = OCT_CPU;
    OCT_TRY(number_of(&device, name));
    OCT_TRY(open_number(device));
    *description = devices[device].description;
    return 0;
}

int oct_device_named(int *device, const char *name)
{
    int number = OCT_CPU;
    OCT_TRY(number_of(&number, name));
    if (!devices[number].kernels) OCT_TRY(open_number(number));
    *device = number;
    return 0;
}

/* ---- memory ---------------------------------------------------------------------------------- */

int oct_device_copy(void *to, int to_device, const void *from, int from_device, int64_t bytes)
{
    const oct_device_kernels *k = devices[to_device ? to_device : from_device].kernels;
    int status;
    if (to_device == OCT_CPU && from_device == OCT_CPU) {
        memmove(to, from, (size_t)bytes);
        return 0;
    }
    if (to_device == OCT_CPU)
        status = k->download(to, from, bytes);
    else if (from_device == OCT_CPU)
        status = k->upload(to, from, bytes);
    else if (to_device == from_device)
        status = k->copy(to, from, bytes);
    else
        return oct_fail("device: no way from %s to %s; copy by way of cpu",
                        devices[from_device].name, devices[to_device].name);
    return status == 0 ? 0 : oct_device_fail(k);
}

int oct_device_fill(void *memory, int device, int value, int64_t bytes)
{
    const oct_device_kernels *k = devices[device].kernels;
    if (device == OCT_CPU) {
        memset(memory, value, (size_t)bytes);
        return 0;
    }
    return k->fill(memory, value, bytes) == 0 ? 0 : oct_device_fail(k);
}

int oct_device_pin(void *memory, int device, int64_t bytes)
{
    return devices[device].kernels->pin(memory, bytes) == 0;
}

void oct_device_unpin(void *memory, int device) { (void)devices[device].kernels->unpin(memory); }
