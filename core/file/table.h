/* table.h - a table's cells as the core sees them. */
#ifndef OCT_FILE_TABLE_H
#define OCT_FILE_TABLE_H
#include <stdint.h>

#include "core/octet.h"

typedef struct oct_cell {
    int64_t start;                 /* in `text` */
    int64_t bytes;
} oct_cell;

struct oct_table {
    char *path;
    char *text;                    /* the file, quotes and encoding undone */
    oct_cell *cells;               /* [rows x columns] */
    int64_t *lines;                /* [rows] */
    int64_t rows, columns;
};

#endif
