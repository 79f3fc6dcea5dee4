/* device.c - plug-ins: the library of a device is looked for, beside this one, when it is asked for
 * by name, and not before. */
#include "core/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "core/octet.h"
#include "rules_list.h"

static const oct_device_kernels *open_device;
static char description[256];

const oct_device_kernels *oct_device_now(void) { return open_device; }

int oct_device_fail(const oct_device_kernels *device)
{
    return oct_fail("device: %s", device->last_error());
}

static const char *const names[][2] = {
    {"cuda", "OCTET_CUDA"}, {"cuda-emu", "OCTET_CUDA_EMU"},
};

/* The option of the build that makes the plug-in; NULL where there is no such device. */
static const char *option_of(const char *name)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i][0]) == 0) return names[i][1];
    return NULL;
}

/* The folder that this library was loaded from, with a slash at its end. */
static int own_folder(char *folder, size_t bytes)
{
    Dl_info info;
    if (dladdr((void *)oct_device_open, &info) == 0 || !info.dli_fname)
        return oct_fail("device: the folder of liboctet.so is not known");
    const char *slash = strrchr(info.dli_fname, '/');
    int length = slash ? (int)(slash - info.dli_fname) + 1 : 0;
    snprintf(folder, bytes, "%.*s", length, info.dli_fname);
    return 0;
}

/* Both were built from the same source, with the same rules. */
static int fits(const oct_device_kernels *device)
{
    return strcmp(device->version, OCT_VERSION) == 0 &&
           device->slot_bytes == (int64_t)sizeof(oct_optim_slot) &&
           device->map_bytes == (int64_t)sizeof(oct_map) && device->arithmetics == OCT_ARITHMETICS;
}

static int load(const oct_device_kernels **device, const char *name, const char *option)
{
    char folder[PATH_MAX - 64], path[PATH_MAX];
    OCT_TRY(own_folder(folder, sizeof folder));
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

int oct_device_open(const char **what, const char *name)
{
    const char *option = option_of(name);
    const oct_device_kernels *device;
    int count;
    if (!option) return oct_fail("device: no \"%s\"; expected cuda or cuda-emu", name);
    OCT_TRY(load(&device, name, option));
    if (device->count(&count) != 0 || device->use(description, sizeof description, 0) != 0)
        return oct_device_fail(device);
    open_device = device;
    *what = description;
    return 0;
}
