/* terminal.c - is a stream a terminal, how wide is it, and what does it have to say? */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/octet.h"

int oct_terminal_columns(int *columns, int descriptor)
{
    struct winsize size;
    if (!isatty(descriptor)) {
        *columns = 0;
    } else if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        *columns = size.ws_col;
    } else {
        *columns = 80;
    }
    return 0;
}

int oct_read_available(int64_t *bytes, char *buffer, int64_t capacity, int descriptor)
{
    ssize_t got;
    if (capacity < 1) return oct_fail("read: a buffer of %lld bytes", (long long)capacity);
    do {
        got = read(descriptor, buffer, (size_t)capacity);
    } while (got < 0 && errno == EINTR);
    if (got < 0) return oct_fail("read: descriptor %d: %s", descriptor, strerror(errno));
    *bytes = got;
    return 0;
}
