/* log.c - a file that grows by lines (log.jsonl, metrics.csv).
 *
 * Lines are gathered and written by the block; a full disk is reported by the call that met it, and
 * what was not written stays in memory, so that a later call writes it after all, without a gap or
 * a repeated byte. A resumed run opens its log at the length that its checkpoint recorded: what the
 * stopped run wrote beyond is cut off. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/file/system.h"
#include "core/memory.h"
#include "core/octet.h"

enum { GATHERED_BYTES = 1 << 16 };

struct oct_log {
    int fd;
    int64_t written;                  /* bytes in the file */
    size_t held, capacity;            /* bytes gathered, and room for them */
    char *buffer, *path;
};

static void free_log(oct_log *log)
{
    if (log->fd >= 0) oct_sys_close(log->fd);
    oct_free(log->buffer);
    oct_free(log->path);
    oct_free(log);
}

static int open_at(oct_log *log, int64_t keep_bytes)
{
    struct stat st;
    log->fd = oct_sys_open(log->path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY);
    if (log->fd < 0 || fstat(log->fd, &st) != 0) return oct_file_error("log", log->path, errno);
    if (!S_ISREG(st.st_mode)) return oct_fail("log: %.700s is not a regular file", log->path);
    log->written = st.st_size;
    if (keep_bytes < 0) return 0;
    if (st.st_size < keep_bytes)
        return oct_fail("log: %.700s has %lld bytes, expected at least %lld", log->path,
                        (long long)st.st_size, (long long)keep_bytes);
    if (oct_sys_truncate(log->fd, keep_bytes) != 0)
        return oct_file_error("log", log->path, errno);
    log->written = keep_bytes;
    return 0;
}

int oct_log_open(oct_log **result, const char *path, int64_t keep_bytes)
{
    oct_log *log = oct_calloc(1, sizeof *log);
    if (!log) return -1;
    log->fd = -1;
    log->capacity = GATHERED_BYTES;
    log->path = oct_strdup(path);
    log->buffer = oct_malloc(log->capacity);
    if (!log->path || !log->buffer || open_at(log, keep_bytes) != 0) {
        free_log(log);
        return -1;
    }
    *result = log;
    return 0;
}

int oct_log_flush(oct_log *log, int sync)
{
    size_t done = 0;
    int status = 0;
    while (done < log->held && status == 0) {
        ssize_t wrote = oct_sys_write(log->fd, log->buffer + done, log->held - done);
        if (wrote <= 0) status = oct_file_error("log", log->path, wrote < 0 ? errno : EIO);
        else done += (size_t)wrote;
    }
    log->written += (int64_t)done;
    log->held -= done;
    memmove(log->buffer, log->buffer + done, log->held);
    if (status == 0 && sync && oct_sys_fsync(log->fd) != 0)
        status = oct_file_error("log", log->path, errno);
    return status;
}

int oct_log_write(oct_log *log, const char *text, int64_t bytes)
{
    if (bytes < 0 || bytes > INT32_MAX)
        return oct_fail("log: %.700s: a line of %lld bytes", log->path, (long long)bytes);
    size_t wanted = log->held + (size_t)bytes;
    if (wanted > log->capacity) {
        char *larger = oct_realloc(log->buffer, wanted + GATHERED_BYTES);
        if (!larger) return -1;
        log->buffer = larger;
        log->capacity = wanted + GATHERED_BYTES;
    }
    memcpy(log->buffer + log->held, text, (size_t)bytes);
    log->held = wanted;
    return log->held >= GATHERED_BYTES ? oct_log_flush(log, 0) : 0;
}

int oct_log_size(int64_t *bytes, oct_log *log)
{
    *bytes = log->written + (int64_t)log->held;
    return 0;
}

int oct_log_close(oct_log *log)
{
    if (!log) return 0;
    int status = oct_log_flush(log, 1);
    free_log(log);
    return status;
}
