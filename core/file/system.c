/* system.c - see system.h. */
#include "core/file/system.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/octet.h"

/* ---- failure on request ---------------------------------------------------------------------- */

static atomic_llong calls;    /* made since the last oct_fail_file */
static atomic_llong fail_at;  /* 0: never */
static atomic_int fail_error; /* 0: the call transfers half of what it was asked for */
static atomic_int fail_on_and_on;

int oct_fail_file(int64_t *made, int64_t nth, int error, int on_and_on)
{
    if (nth < 0) return oct_fail("fail_file: nth is %lld, expected 0 or more", (long long)nth);
    if (made) *made = atomic_load(&calls);
    atomic_store(&fail_at, nth);
    atomic_store(&fail_error, error);
    atomic_store(&fail_on_and_on, on_and_on);
    atomic_store(&calls, 0);
    return 0;
}

/* 1: fail with errno as set; 2: transfer half; 0: go on. */
static int told_to_fail(void)
{
    long long count = atomic_fetch_add(&calls, 1) + 1;
    long long at = atomic_load(&fail_at);
    if (at == 0 || count < at || (count > at && !atomic_load(&fail_on_and_on))) return 0;
    errno = atomic_load(&fail_error);
    return errno ? 1 : 2;
}

/* ---- a limit on the size of files ------------------------------------------------------------ */

/* A write past the limit fails with EFBIG, and SIGXFSZ comes with it, which would end the process.
 * It comes to the thread that wrote: so that thread blocks it and takes it out again, where
 * ignoring it would hold for the whole process and for all that it starts. */
static _Thread_local int held; /* how often */
static _Thread_local int was_blocked;

static sigset_t size_signal(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGXFSZ);
    return set;
}

static void hold(void)
{
    if (held++ > 0) return;
    sigset_t set = size_signal(), before;
    pthread_sigmask(SIG_BLOCK, &set, &before);
    was_blocked = sigismember(&before, SIGXFSZ);
}

static void release(void)
{
    if (--held > 0 || was_blocked) return;
    sigset_t set = size_signal();
    const struct timespec none = {0, 0};
    int error = errno;
    while (sigtimedwait(&set, NULL, &none) < 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    errno = error;
}

int oct_hold_size_signal(int on)
{
    if (on)
        hold();
    else if (held == 0)
        return oct_fail("hold_size_signal: it is not held");
    else
        release();
    return 0;
}

/* ---- calls ----------------------------------------------------------------------------------- */

#define REPEAT(result, call)                                                                       \
    do {                                                                                           \
        result = told_to_fail() == 1 ? -1 : (call);                                                \
    } while (result < 0 && errno == EINTR)

int oct_sys_open(const char *path, int flags)
{
    int fd;
    REPEAT(fd, open(path, flags | O_CLOEXEC, 0666));
    return fd;
}

static size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

ssize_t oct_sys_write(int fd, const void *data, size_t bytes)
{
    ssize_t done;
    hold();
    do {
        int told = told_to_fail();
        done = told == 1 ? -1 : write(fd, data, told == 2 ? half(bytes) : bytes);
    } while (done < 0 && errno == EINTR);
    release();
    return done;
}

ssize_t oct_sys_pread(int fd, void *data, size_t bytes, int64_t offset)
{
    ssize_t done;
    do {
        int told = told_to_fail();
        done = told == 1 ? -1 : pread(fd, data, told == 2 ? half(bytes) : bytes, offset);
    } while (done < 0 && errno == EINTR);
    return done;
}

int oct_sys_truncate(int fd, int64_t bytes)
{
    int status;
    REPEAT(status, ftruncate(fd, bytes));
    return status;
}

int oct_sys_fsync(int fd)
{
    int status;
    REPEAT(status, fsync(fd));
    return status;
}

int oct_sys_rename(const char *from, const char *to)
{
    int status;
    REPEAT(status, rename(from, to));
    return status;
}

int oct_sys_unlink(const char *path) { return unlink(path); }

void oct_sys_close(int fd) { close(fd); }

/* ---- errors, folders, reading ---------------------------------------------------------------- */

int oct_file_error(const char *what, const char *path, int error)
{
    char text[128];
    const char *reason = error == ENOSPC  ? "disk full"
                         : error == EFBIG ? "file too large (see ulimit -f)"
                                          : strerror_r(error, text, sizeof text);
    return oct_fail("%s: %.700s: %s", what, path, reason);
}

int oct_sync_folder_of(const char *path)
{
    /* On the stack: it is called when a file has been published, where nothing should fail any
     * more. */
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    size_t bytes = slash == path ? 1 : slash ? (size_t)(slash - path) : 0;
    if (bytes >= sizeof folder) return oct_file_error("sync folder", path, ENAMETOOLONG);
    if (slash) {
        memcpy(folder, path, bytes);
        folder[bytes] = 0;
    }
    int fd = oct_sys_open(folder, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return oct_file_error("sync folder", folder, errno);
    /* Some file systems cannot sync a folder and say EINVAL; there is nothing more to be done. */
    int status = oct_sys_fsync(fd) != 0 && errno != EINVAL
                     ? oct_file_error("sync folder", folder, errno)
                     : 0;
    oct_sys_close(fd);
    return status;
}

int oct_open_regular(int *fd, int64_t *bytes, const char *what, const char *path)
{
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    int opened = oct_sys_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (opened < 0) return oct_file_error(what, path, errno);
    struct stat st;
    int status = 0;
    if (fstat(opened, &st) != 0)
        status = oct_file_error(what, path, errno);
    else if (S_ISDIR(st.st_mode))
        status = oct_fail("%s: %.700s is a folder, expected a file", what, path);
    else if (!S_ISREG(st.st_mode))
        status = oct_fail("%s: %.700s is not a regular file", what, path);
    if (status != 0) {
        oct_sys_close(opened);
        return -1;
    }
    *fd = opened;
    *bytes = st.st_size;
    return 0;
}

int oct_read_exactly(int fd, void *data, size_t bytes, int64_t offset, const char *what,
                     const char *path)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t got = oct_sys_pread(fd, (char *)data + done, bytes - done, offset + (int64_t)done);
        if (got < 0) return oct_file_error(what, path, errno);
        if (got == 0) return oct_fail("%s: %.700s became shorter while it was read", what, path);
        done += (size_t)got;
    }
    return 0;
}
