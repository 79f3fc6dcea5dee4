/* save.h - a file is saved whole or not at all.
 *
 * What is written goes to PATH.partial, in the same folder; it is synced to the disk, renamed to
 * PATH, and the folder is synced: whoever opens PATH, at any moment and after any crash, finds the
 * former file or the new one, complete. The partial file is locked while it is written, so that two
 * processes saving the same path do not mix: the second gets an error. What a killed process left
 * is overwritten by the next save. A symbolic link at PATH is replaced, not followed. */
#ifndef OCT_FILE_SAVE_H
#define OCT_FILE_SAVE_H
#include "core/octet.h"

/* oct_writer_open and its fellows are declared in octet.h. */

/* The path the writer was opened for, for messages. */
const char *oct_writer_path(const oct_writer *writer);

#endif
