/* system.h - the system calls of file work: repeated where a signal cut them off, able to fail on
 * request so that every failure path can be tested, and with one way of saying what went wrong. */
#ifndef OCT_FILE_SYSTEM_H
#define OCT_FILE_SYSTEM_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* As the calls of the same name: -1 and errno on failure, never EINTR; and a write past the limit
 * on the size of files (ulimit -f) is EFBIG and no signal. */
int oct_sys_open(const char *path, int flags);
ssize_t oct_sys_write(int fd, const void *data, size_t bytes);
ssize_t oct_sys_pread(int fd, void *data, size_t bytes, int64_t offset);
int oct_sys_truncate(int fd, int64_t bytes);
int oct_sys_fsync(int fd);
int oct_sys_rename(const char *from, const char *to);
int oct_sys_unlink(const char *path);
/* Closes without a retry: Linux has let go of the descriptor even where it reports EINTR. */
void oct_sys_close(int fd);

/* Fails with "WHAT: PATH: REASON" for an errno; "disk full" for ENOSPC. */
int oct_file_error(const char *what, const char *path, int error);
/* Makes the names in a file's folder durable. */
int oct_sync_folder_of(const char *path);

/* Opens a regular file for reading and gives its size; a folder, pipe or device is an error. */
int oct_open_regular(int *fd, int64_t *bytes, const char *what, const char *path);
/* Reads exactly `bytes` from `offset`; a file that has become shorter is an error. */
int oct_read_exactly(int fd, void *data, size_t bytes, int64_t offset, const char *what,
                     const char *path);

#endif
