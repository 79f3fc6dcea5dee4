/* content.c - reading a file whole. */
#include "core/file/content.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/memory.h"

static int read_all(char **content, int64_t *bytes, int file, const char *path)
{
    struct stat status;
    if (fstat(file, &status) != 0)
        return oct_fail("%s: cannot be read: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode)) return oct_fail("%s: not a file", path);
    int64_t size = status.st_size, got = 0;
    char *text = oct_malloc((size_t)size + 1);
    if (!text) return oct_fail_within("%s", path);
    while (got < size) {
        ssize_t n = read(file, text + got, (size_t)(size - got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            oct_fail("%s: cannot be read: %s", path, strerror(errno));
            oct_free(text);
            return -1;
        }
        if (n == 0) break;
        got += n;
    }
    text[got] = 0;
    *content = text;
    *bytes = got;
    return 0;
}

int oct_content_read(char **content, int64_t *bytes, const char *path)
{
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return oct_fail("%s: cannot be opened: %s", path, strerror(errno));
    int status = read_all(content, bytes, file, path);
    close(file);
    return status;
}
