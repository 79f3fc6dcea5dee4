/* save.c - see save.h. */
#include "core/file/save.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/file/system.h"
#include "core/memory.h"

struct oct_writer {
    int fd;
    int failed;                       /* a write has failed: commit must not publish */
    char *path, *partial;
};

/* 1 where the open file is still what its name leads to: another process may have renamed or
 * removed it between our open and our lock. */
static int still_named(int fd, const char *path)
{
    struct stat mine, named;
    return fstat(fd, &mine) == 0 && lstat(path, &named) == 0 && mine.st_ino == named.st_ino &&
           mine.st_dev == named.st_dev;
}

static int open_locked(int *result, const char *path, const char *partial)
{
    for (int tries = 0; tries < 100; tries++) {
        int fd = oct_sys_open(partial, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) return oct_file_error("save", path, errno);
        /* A file system without locks is no reason not to save. */
        if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            oct_sys_close(fd);
            return oct_fail("save: %.700s: another process is writing it", path);
        }
        if (!still_named(fd, partial)) {
            oct_sys_close(fd);
            continue;
        }
        struct stat st;
        if (oct_sys_truncate(fd, 0) != 0) {
            oct_file_error("save", path, errno);
            oct_sys_unlink(partial);
            oct_sys_close(fd);
            return -1;
        }
        /* What replaces a file is as private as that file was. */
        if (lstat(path, &st) == 0 && S_ISREG(st.st_mode)) fchmod(fd, st.st_mode & 0777);
        *result = fd;
        return 0;
    }
    return oct_fail("save: %.700s: other processes keep replacing it", path);
}

static void free_writer(oct_writer *writer)
{
    oct_free(writer->path);
    oct_free(writer->partial);
    oct_free(writer);
}

int oct_writer_open(oct_writer **result, const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return oct_fail("save: %.700s is a folder, expected a file's name", path);
    oct_writer *writer = oct_calloc(1, sizeof *writer);
    if (!writer) return -1;
    size_t bytes = strlen(path);
    writer->path = oct_strdup(path);
    writer->partial = oct_malloc(bytes + sizeof ".partial");
    if (!writer->path || !writer->partial) {
        free_writer(writer);
        return -1;
    }
    memcpy(writer->partial, path, bytes);
    memcpy(writer->partial + bytes, ".partial", sizeof ".partial");
    if (open_locked(&writer->fd, path, writer->partial) != 0) {
        free_writer(writer);
        return -1;
    }
    *result = writer;
    return 0;
}

int oct_writer_write(oct_writer *writer, const void *data, int64_t bytes)
{
    if (bytes < 0)
        return oct_fail("save: %.700s: %lld bytes to write", writer->path, (long long)bytes);
    for (const char *at = data, *end = at + bytes; at < end;) {
        ssize_t done = oct_sys_write(writer->fd, at, (size_t)(end - at));
        if (done <= 0) {
            writer->failed = 1;
            return oct_file_error("save", writer->path, done < 0 ? errno : EIO);
        }
        at += done;
    }
    return 0;
}

int oct_writer_descriptor(int *fd, oct_writer *writer)
{
    *fd = writer->fd;
    return 0;
}

const char *oct_writer_path(const oct_writer *writer)
{
    return writer->path;
}

int oct_writer_abandon(oct_writer *writer)
{
    if (!writer) return 0;
    /* Unlinked before it is closed: the lock still keeps others from starting on it. */
    oct_sys_unlink(writer->partial);
    oct_sys_close(writer->fd);
    free_writer(writer);
    return 0;
}

int oct_writer_commit(oct_writer *writer)
{
    int status = 0;
    if (writer->failed)
        status = oct_fail("save: %.700s: a write has failed before", writer->path);
    else if (oct_sys_fsync(writer->fd) != 0 || oct_sys_rename(writer->partial, writer->path) != 0)
        status = oct_file_error("save", writer->path, errno);
    if (status != 0) {
        oct_writer_abandon(writer);
        return -1;
    }
    status = oct_sync_folder_of(writer->path);
    oct_sys_close(writer->fd);
    free_writer(writer);
    return status;
}

int oct_file_save(const char *path, const void *data, int64_t bytes)
{
    oct_writer *writer = NULL;
    OCT_TRY(oct_writer_open(&writer, path));
    if (oct_writer_write(writer, data, bytes) != 0) {
        oct_writer_abandon(writer);
        return -1;
    }
    return oct_writer_commit(writer);
}
