/* load.c - a whole file into memory.
 *
 * Read, not mapped: a mapped file that another process cuts is a SIGBUS in the middle of training,
 * and a mapped file that one saves over is destroyed under one's feet. */
#include <fcntl.h>

#include "core/error.h"
#include "core/file/system.h"
#include "core/memory.h"
#include "core/octet.h"

int oct_file_load(char **data, int64_t *bytes, const char *path, int64_t limit_bytes)
{
    int fd;
    int64_t size;
    OCT_TRY(oct_open_regular(&fd, &size, "read", path));
    char *text = NULL;
    int status = 0;
    if (limit_bytes >= 0 && size > limit_bytes)
        status = oct_fail("read: %.700s has %lld bytes, expected at most %lld", path,
                          (long long)size, (long long)limit_bytes);
    else if (!(text = oct_malloc((size_t)size + 1))) status = oct_fail_within("read: %.200s", path);
    else status = oct_read_exactly(fd, text, (size_t)size, 0, "read", path);
    oct_sys_close(fd);
    if (status != 0) {
        oct_free(text);
        return -1;
    }
    text[size] = 0;
    *data = text;
    *bytes = size;
    return 0;
}

int oct_file_release(void *data)
{
    oct_free(data);
    return 0;
}
