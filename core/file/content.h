/* content.h - a file's content, whole, in memory. */
#ifndef OCT_FILE_CONTENT_H
#define OCT_FILE_CONTENT_H
#include <stdint.h>

/* Read the file at `path` into memory that the caller gives back by oct_free; `content` has a 0
 * behind its last byte. Read, not mapped: a file that is cut short meanwhile must not be a crash.
 * Errors name the path and the system's reason; a folder or a device is refused. */
int oct_content_read(char **content, int64_t *bytes, const char *path);

#endif
