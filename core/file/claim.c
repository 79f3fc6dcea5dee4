/* claim.c - names that only one process gets: a folder made if and only if it was not there; and a
 * second name for a file, which replaces what had it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file/system.h"
#include "core/memory.h"
#include "core/octet.h"

/* The folder that holds `path`, made where it is missing. */
static int make_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash || slash == path) return 0;
    char *parent = oct_strdup(path);
    if (!parent) return -1;
    parent[slash - path] = 0;
    int status = oct_folder_make(parent);
    oct_free(parent);
    return status;
}

int oct_folder_claim(int *made, const char *path)
{
    char *name = oct_strdup(path);
    if (!name) return -1;
    size_t bytes = strlen(name);
    while (bytes > 1 && name[bytes - 1] == '/') name[--bytes] = 0;
    int status = make_parent(name), error = 0;
    if (status == 0 && mkdir(name, 0777) != 0) error = errno;
    if (status == 0 && error == 0) {
        status = oct_sync_folder_of(name);
    } else if (status == 0 && error != EEXIST) {
        struct stat st;
        /* As for folders above: a name that is there is reported as such, whatever mkdir says. */
        if (stat(name, &st) != 0) status = oct_file_error("make folder", path, error);
    }
    oct_free(name);
    if (status == 0) *made = error == 0;
    return status;
}

int oct_file_link(const char *from, const char *to)
{
    size_t bytes = strlen(to) + sizeof ".partial";
    char *partial = oct_malloc(bytes);
    if (!partial) return -1;
    snprintf(partial, bytes, "%s.partial", to);
    unlink(partial);
    int status = 0;
    /* By way of a name that is then renamed: link alone does not replace. */
    if (link(from, partial) != 0) {
        status = oct_file_error("link", to, errno);
    } else if (oct_sys_rename(partial, to) != 0) {
        status = oct_file_error("link", to, errno);
        unlink(partial);
    } else {
        /* Where both names were the same file already, rename leaves both: the partial goes. */
        unlink(partial);
        status = oct_sync_folder_of(to);
    }
    oct_free(partial);
    return status;
}
