/* terminal.c - is a stream a terminal, and how wide is it? */
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
