/* error.c - the last failure's text, one for each thread. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/octet.h"

static _Thread_local char last_error[1024];

const char *oct_last_error(void)
{
    return last_error;
}

int oct_fail(const char *format, ...)
{
    /* By way of a second buffer: an argument may be the text that stands. */
    char text[sizeof last_error];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* One line, whatever a name from a hostile file holds; nor may it steer the terminal. */
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    memcpy(last_error, text, sizeof text);
    return -1;
}

int oct_fail_within(const char *format, ...)
{
    char prefix[256], text[sizeof last_error];
    va_list args;
    va_start(args, format);
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    memcpy(text, last_error, sizeof text);
    return oct_fail("%s: %s", prefix, text);
}

int oct_fail_memory(long long bytes)
{
    return oct_fail("out of memory: %lld bytes could not be allocated", bytes);
}
