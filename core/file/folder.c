/* folder.c - folders and names: what is there, make, list, rename, remove. */
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/file/system.h"
#include "core/memory.h"
#include "core/octet.h"

int oct_file_kind(int *kind, int64_t *bytes, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno != ENOENT && errno != ENOTDIR) return oct_file_error("look for", path, errno);
        *kind = OCT_NOTHING;
        *bytes = 0;
        return 0;
    }
    *kind = S_ISREG(st.st_mode) ? OCT_FILE : S_ISDIR(st.st_mode) ? OCT_FOLDER : OCT_OTHER;
    *bytes = *kind == OCT_FILE ? st.st_size : 0;
    return 0;
}

/* mkdir; a folder that is there already is fine, one that was made is synced into its parent. */
static int make_one(const char *path)
{
    struct stat st;
    if (mkdir(path, 0777) == 0) return oct_sync_folder_of(path);
    int error = errno;
    /* mkdir may say EROFS or EACCES of a folder that exists, so ask about that itself. */
    if (stat(path, &st) == 0) {
        if (S_ISDIR(st.st_mode)) return 0;
        return oct_fail("make folder: %.700s is there and is no folder", path);
    }
    return oct_file_error("make folder", path, error);
}

int oct_folder_make(const char *path)
{
    char *part = oct_strdup(path);
    if (!part) return -1;
    size_t bytes = strlen(part);
    while (bytes > 1 && part[bytes - 1] == '/') part[--bytes] = 0;
    int status = 0;
    for (size_t i = 1; i < bytes && status == 0; i++) {
        if (part[i] != '/' || part[i - 1] == '/') continue;
        part[i] = 0;
        status = make_one(part);
        part[i] = '/';
    }
    if (status == 0) status = make_one(part);
    oct_free(part);
    return status;
}

typedef struct names {
    char *text;
    size_t bytes, capacity;
    char **list;
    size_t count;
} names;

static int add_name(names *all, const char *name)
{
    size_t bytes = strlen(name) + 1;
    if (all->bytes + bytes > all->capacity) {
        size_t capacity = 2 * (all->capacity + bytes) + 1024;
        char *larger = oct_realloc(all->text, capacity);
        if (!larger) return -1;
        all->text = larger;
        all->capacity = capacity;
    }
    memcpy(all->text + all->bytes, name, bytes);
    all->bytes += bytes;
    all->count++;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names, in order, each followed by a 0, into a text of its own. */
static int sorted(char **result, names *all)
{
    char *text = oct_malloc(all->bytes);
    all->list = oct_malloc(all->count * sizeof *all->list);
    if (!text || !all->list) {
        oct_free(text);
        return -1;
    }
    char *at = all->text;
    for (size_t i = 0; i < all->count; i++) {
        all->list[i] = at;
        at += strlen(at) + 1;
    }
    qsort(all->list, all->count, sizeof *all->list, by_name);
    char *to = text;
    for (size_t i = 0; i < all->count; i++) {
        size_t bytes = strlen(all->list[i]) + 1;
        memcpy(to, all->list[i], bytes);
        to += bytes;
    }
    *result = text;
    return 0;
}

int oct_folder_list(char **result, int64_t *bytes, const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) return oct_file_error("list folder", path, errno);
    names all = {0};
    int status = 0;
    struct dirent *entry;
    errno = 0;
    while (status == 0 && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = add_name(&all, entry->d_name);
        errno = 0;
    }
    if (status == 0 && errno != 0) status = oct_file_error("list folder", path, errno);
    closedir(folder);
    if (status == 0) status = sorted(result, &all);
    if (status == 0) *bytes = (int64_t)all.bytes;
    oct_free(all.text);
    oct_free(all.list);
    return status;
}

int oct_file_rename(const char *from, const char *to)
{
    if (oct_sys_rename(from, to) != 0) return oct_file_error("rename", from, errno);
    return oct_sync_folder_of(to);
}

int oct_file_remove(const char *path)
{
    if (remove(path) != 0 && errno != ENOENT) return oct_file_error("remove", path, errno);
    return 0;
}

static int remove_each(const char *path, const struct stat *st, int kind, struct FTW *place)
{
    if (remove(path) == 0 || errno == ENOENT) return 0;
    oct_file_error("remove", path, errno);
    return 1;
}

int oct_folder_remove(const char *path)
{
    enum { OPEN_FOLDERS = 16 };
    struct stat st;
    if (lstat(path, &st) != 0 && errno == ENOENT) return 0;
    int status = nftw(path, remove_each, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS);
    /* 1: remove_each has set the text; -1: nftw itself failed. */
    return status == 0 ? 0 : status == 1 ? -1 : oct_file_error("remove", path, errno);
}
