/* fuzz_table.c - any bytes as a TSV or CSV file: read, every cell looked at, labels and numbers.
 *
 * Byte 0: which allocation fails; byte 1: format, header, encoding, and which columns. */
#include "spec/fuzz/input.h"

static void read_cells(const oct_table *table, int64_t columns)
{
    int64_t rows, bytes, line, before;
    const char *text;
    unsigned sum = 0;
    if (oct_table_rows(&rows, table) != 0 || rows < 1) abort();
    for (int64_t column = 0; column < columns; column++) {
        before = 0;
        for (int64_t row = 0; row < rows; row++) {
            if (oct_table_cell(&text, &bytes, &line, table, row, column) != 0) abort();
            if (line <= before) abort();
            before = line;
            for (int64_t i = 0; i < bytes; i++) sum += (unsigned char)text[i];
        }
    }
    volatile unsigned read = sum;
    (void)read;
    int32_t *labels = malloc((size_t)rows * sizeof *labels);
    float *values = malloc((size_t)rows * sizeof *values);
    oct_table_labels(labels, table, 0, "0\t1\tpositive");
    if (oct_table_numbers(values, table, 0, -4, 4) == 0)
        for (int64_t row = 0; row < rows; row++)
            if (!(values[row] >= -4 && values[row] <= 4)) abort();
    free(labels);
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const named[] = {"a", "sentence\tlabel"}, *const placed[] = {"1", "3\t1"};
    if (size < 2) return 0;
    int format = data[1] & 1, header = data[1] >> 1 & 1, encoding = data[1] >> 2 & 1,
        two = data[1] >> 3 & 1;
    input_file input = input_open();
    input_add(&input, data + 2, size - 2);
    input_fail_allocation(data[0]);
    oct_table *table;
    const char *columns = header ? named[two] : placed[two];
    if (oct_table_read(&table, input.path, format, header, encoding, columns) == 0) {
        read_cells(table, 1 + two);
        oct_table_free(table);
    }
    input_close(&input);
    return 0;
}
