/* table.c - chosen columns of a TSV or CSV file.
 *
 * The file is read whole and stays the cells' storage: a cell is a place in it. Where quotes or
 * another encoding must be undone, that is done before or in place, never growing a cell. */
#include "core/file/table.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/text/unicode.h"

enum { MAX_COLUMNS = 64, MAX_NAME_BYTES = 256 };

/* A line or record being read, and what it is read for. */
typedef struct reader {
    oct_table *table;
    int csv;
    char *at, *end;                /* what is still to be read */
    int64_t line;                  /* of `at`, from 1 */
    int64_t wanted[MAX_COLUMNS];   /* place in the file of each column of the table, from 0 */
    int64_t needed;                /* fields that a row must have */
} reader;

/* ---- fields ---------------------------------------------------------------------------------- */

/* Undo the quotes of the field at r->at in place, and move behind it. */
static int quoted_field(reader *r, char **field, int64_t *bytes)
{
    int64_t opened = r->line;
    char *out = ++r->at;
    *field = out;
    for (;; r->at++) {
        if (r->at == r->end)
            return oct_fail("%s line %lld: a quote is opened and never closed", r->table->path,
                            (long long)opened);
        if (*r->at == '"') {
            if (r->at + 1 == r->end || r->at[1] != '"') break;
            r->at++;
        }
        if (*r->at == '\n') r->line++;
        *out++ = *r->at;
    }
    *bytes = out - *field;
    r->at++;
    if (r->at < r->end && *r->at != ',' && *r->at != '\n' &&
        !(*r->at == '\r' && (r->at + 1 == r->end || r->at[1] == '\n')))
        return oct_fail("%s line %lld: text behind a closing quote, expected a comma or the line's "
                        "end", r->table->path, (long long)r->line);
    return 0;
}

/* The next field of the line. *last: it was the line's last one, and r->at is at the next line. */
static int next_field(reader *r, char **field, int64_t *bytes, int *last)
{
    if (r->csv && r->at < r->end && *r->at == '"') {
        OCT_TRY(quoted_field(r, field, bytes));
    } else {
        char separator = r->csv ? ',' : '\t';
        *field = r->at;
        while (r->at < r->end && *r->at != separator && *r->at != '\n') r->at++;
        *bytes = r->at - *field;
        int ends_line = r->at == r->end || *r->at == '\n';
        if (ends_line && *bytes > 0 && (*field)[*bytes - 1] == '\r') --*bytes;
    }
    if (r->at < r->end && *r->at == '\r') r->at++;
    *last = r->at == r->end || *r->at == '\n';
    if (r->at < r->end && *r->at == '\n') r->line++;
    if (r->at < r->end) r->at++;
    return 0;
}

/* Pass over lines that are empty; 0 at the file's end. */
static int another_line(reader *r)
{
    for (; r->at < r->end; r->at++) {
        if (*r->at == '\n')
            r->line++;
        else if (*r->at != '\r' || (r->at + 1 < r->end && r->at[1] != '\n'))
            return 1;
    }
    return 0;
}

/* ---- columns --------------------------------------------------------------------------------- */

/* The next of a list parted by TABs; NULL behind the last. */
static const char *next_name(const char **list, int64_t *bytes)
{
    if (!*list) return NULL;
    const char *name = *list, *tab = strchr(name, '\t');
    *bytes = tab ? tab - name : (int64_t)strlen(name);
    *list = tab ? tab + 1 : NULL;
    return name;
}

static int place_of(int64_t *place, const char *digits, int64_t bytes)
{
    int64_t value = 0;
    for (int64_t i = 0; i < bytes; i++) {
        if (digits[i] < '0' || digits[i] > '9' || value > 100000) value = -1;
        if (value < 0) break;
        value = value * 10 + (digits[i] - '0');
    }
    if (bytes == 0 || value < 1)
        return oct_fail("table: column \"%.*s\", expected a place from 1 on", (int)bytes, digits);
    *place = value - 1;
    return 0;
}

static int find_in_header(reader *r, const char *columns)
{
    int64_t header_line = r->line, bytes, place = 0;
    char found[512] = "";              /* what the header has, for the message */
    int64_t found_bytes = 0;
    for (int64_t k = 0; k < r->table->columns; k++) r->wanted[k] = -1;
    for (int last = 0; !last; place++) {
        char *field;
        int64_t field_bytes, name_bytes;
        OCT_TRY(next_field(r, &field, &field_bytes, &last));
        const char *list = columns, *name;
        for (int64_t k = 0; (name = next_name(&list, &name_bytes)); k++)
            if (name_bytes == field_bytes && memcmp(name, field, (size_t)field_bytes) == 0) {
                if (r->wanted[k] >= 0)
                    return oct_fail("%s line %lld: two columns are named \"%.*s\"", r->table->path,
                                    (long long)header_line, (int)name_bytes, name);
                r->wanted[k] = place;
            }
        if (found_bytes + field_bytes + 3 < (int64_t)sizeof found) {
            if (place > 0) found_bytes = (int64_t)strlen(strcat(found, ", "));
            memcpy(found + found_bytes, field, (size_t)field_bytes);
            found_bytes += field_bytes;
            found[found_bytes] = 0;
        }
    }
    const char *list = columns, *name;
    for (int64_t k = 0; (name = next_name(&list, &bytes)); k++)
        if (r->wanted[k] < 0)
            return oct_fail("%s line %lld: no column \"%.*s\"; the header has: %s", r->table->path,
                            (long long)header_line, (int)bytes, name, found);
    return 0;
}

static int choose_columns(reader *r, const char *columns, int header)
{
    const char *list = columns, *name;
    int64_t bytes;
    for (; (name = next_name(&list, &bytes)); r->table->columns++) {
        if (r->table->columns == MAX_COLUMNS)
            return oct_fail("table: more than %d columns asked for", MAX_COLUMNS);
        if (bytes == 0 || bytes > MAX_NAME_BYTES)
            return oct_fail("table: a column's name of %lld bytes, expected 1 to %d",
                            (long long)bytes, MAX_NAME_BYTES);
        if (!header) OCT_TRY(place_of(r->wanted + r->table->columns, name, bytes));
    }
    if (!another_line(r))
        return oct_fail("%s: empty, expected %s", r->table->path, header ? "a header" : "rows");
    if (header) OCT_TRY(find_in_header(r, columns));
    for (int64_t k = 0; k < r->table->columns; k++)
        if (r->wanted[k] + 1 > r->needed) r->needed = r->wanted[k] + 1;
    return 0;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Lines are an upper bound of the rows, so that memory is asked for once. */
static int make_room(reader *r)
{
    oct_table *t = r->table;
    int64_t rows = 1;
    for (const char *p = r->at; (p = memchr(p, '\n', (size_t)(r->end - p))); p++) rows++;
    if (rows > INT32_MAX)
        return oct_fail("%s: %lld lines, expected fewer than 2^31", t->path, (long long)rows);
    t->cells = oct_malloc((size_t)(rows * t->columns) * sizeof *t->cells);
    t->lines = oct_malloc((size_t)rows * sizeof *t->lines);
    return t->cells && t->lines ? 0 : -1;
}

static int read_row(reader *r)
{
    oct_table *t = r->table;
    int64_t line = r->line, fields = 0;
    oct_cell *row = t->cells + t->rows * t->columns;
    for (int last = 0; !last; fields++) {
        char *field;
        int64_t bytes;
        OCT_TRY(next_field(r, &field, &bytes, &last));
        for (int64_t k = 0; k < t->columns; k++)
            if (r->wanted[k] == fields) row[k] = (oct_cell){field - t->text, bytes};
    }
    if (fields < r->needed)
        return oct_fail("%s line %lld: %lld column%s, expected at least %lld", t->path,
                        (long long)line, (long long)fields, fields == 1 ? "" : "s",
                        (long long)r->needed);
    t->lines[t->rows++] = line;
    return 0;
}

/* ---- encodings ------------------------------------------------------------------------------- */

/* Windows-1252 from 0x80 to 0x9F; 0: no character. From 0xA0 on it is Latin-1. */
static const uint16_t windows_1252[32] = {
    0x20AC, 0, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021, 0x02C6, 0x2030, 0x0160, 0x2039,
    0x0152, 0, 0x017D, 0, 0, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x02DC, 0x2122,
    0x0161, 0x203A, 0x0153, 0, 0x017E, 0x0178,
};

static int64_t line_of(const char *text, int64_t at)
{
    int64_t line = 1;
    for (int64_t i = 0; i < at; i++) line += text[i] == '\n';
    return line;
}

static int not_utf8(const char *path, const char *text, int64_t at)
{
    return oct_fail("%s line %lld: not UTF-8 (byte 0x%02x)", path, (long long)line_of(text, at),
                    (uint8_t)text[at]);
}

/* A copy of the text with each line that is not UTF-8 taken as Windows-1252. */
static int decode_lines(char **result, int64_t *result_bytes, const char *text, int64_t bytes,
                        const char *path)
{
    int64_t beyond = 0;
    for (int64_t i = 0; i < bytes; i++) beyond += (uint8_t)text[i] >= 0x80;
    uint8_t *out = oct_malloc((size_t)(bytes + 2 * beyond) + 1);
    if (!out) return -1;
    int64_t n = 0;
    for (int64_t start = 0, end; start < bytes; start = end) {
        const char *newline = memchr(text + start, '\n', (size_t)(bytes - start));
        end = newline ? newline - text + 1 : bytes;
        if (oct_utf8_check(text + start, end - start) == end - start) {
            memcpy(out + n, text + start, (size_t)(end - start));
            n += end - start;
            continue;
        }
        for (int64_t i = start; i < end; i++) {
            uint8_t c = (uint8_t)text[i];
            int32_t character = c >= 0x80 && c < 0xA0 ? windows_1252[c - 0x80] : c;
            if (character == 0 && c != 0) {
                oct_free(out);
                return oct_fail("%s line %lld: neither UTF-8 nor Windows-1252 (byte 0x%02x)", path,
                                (long long)line_of(text, i), c);
            }
            n += oct_utf8_write(out + n, character);
        }
    }
    out[n] = 0;
    *result = (char *)out;
    *result_bytes = n;
    return 0;
}

/* The file's text as UTF-8, from oct_malloc. */
static int read_text(char **text, int64_t *bytes, const char *path, int encoding)
{
    char *raw;
    int64_t raw_bytes;
    OCT_TRY(oct_file_load(&raw, &raw_bytes, path, -1));
    int64_t bad = oct_utf8_check(raw, raw_bytes);
    if (bad == raw_bytes) {
        *text = raw;
        *bytes = raw_bytes;
        return 0;
    }
    int status = encoding == OCT_ENCODING_UTF8 ? not_utf8(path, raw, bad)
                                               : decode_lines(text, bytes, raw, raw_bytes, path);
    oct_free(raw);
    return status;
}

/* ---- the table ------------------------------------------------------------------------------- */

static int fill(reader *r, int header, int encoding, const char *columns)
{
    oct_table *t = r->table;
    int64_t bytes = 0;
    OCT_TRY(read_text(&t->text, &bytes, t->path, encoding));
    r->at = t->text;
    r->end = t->text + bytes;
    r->line = 1;
    if (bytes >= 3 && memcmp(t->text, "\xEF\xBB\xBF", 3) == 0) r->at += 3;
    OCT_TRY(choose_columns(r, columns, header));
    OCT_TRY(make_room(r));
    while (another_line(r)) OCT_TRY(read_row(r));
    if (t->rows == 0) return oct_fail("%s: no rows behind the header", t->path);
    return 0;
}

int oct_table_read(oct_table **result, const char *path, int format, int header, int encoding,
                   const char *columns)
{
    if (format != OCT_TABLE_TSV && format != OCT_TABLE_CSV)
        return oct_fail("table: format %d, expected %d or %d", format, OCT_TABLE_TSV,
                        OCT_TABLE_CSV);
    oct_table *t = oct_calloc(1, sizeof *t);
    if (!t) return -1;
    reader r = {.table = t, .csv = format == OCT_TABLE_CSV};
    t->path = oct_strdup(path);
    if (!t->path || fill(&r, header, encoding, columns) != 0) {
        oct_table_free(t);
        return -1;
    }
    *result = t;
    return 0;
}

int oct_table_free(oct_table *t)
{
    if (!t) return 0;
    oct_free(t->path);
    oct_free(t->text);
    oct_free(t->cells);
    oct_free(t->lines);
    oct_free(t);
    return 0;
}

int oct_table_rows(int64_t *rows, const oct_table *t)
{
    *rows = t->rows;
    return 0;
}

static int check_column(const oct_table *t, int64_t column)
{
    if (column >= 0 && column < t->columns) return 0;
    return oct_fail("table: column %lld, expected 0 to %lld", (long long)column,
                    (long long)t->columns - 1);
}

int oct_table_cell(const char **text, int64_t *bytes, int64_t *line, const oct_table *t,
                   int64_t row, int64_t column)
{
    OCT_TRY(check_column(t, column));
    if (row < 0 || row >= t->rows)
        return oct_fail("table: row %lld, expected 0 to %lld", (long long)row,
                        (long long)t->rows - 1);
    oct_cell cell = t->cells[row * t->columns + column];
    *text = t->text + cell.start;
    *bytes = cell.bytes;
    *line = t->lines[row];
    return 0;
}

/* ---- labels ---------------------------------------------------------------------------------- */

/* "0 to 4" where the names are just the numbers from 0 on, else the names themselves. */
static const char *expected_names(char text[512], const char *names)
{
    const char *list = names, *name;
    int64_t bytes, count = 0, n = 0;
    int numbers = 1;
    text[0] = 0;
    for (; (name = next_name(&list, &bytes)); count++) {
        if (bytes != 1 || count > 9 || name[0] != '0' + count) numbers = 0;
        if (n + bytes + 3 >= 512) continue;
        n += snprintf(text + n, (size_t)(512 - n), "%s%.*s", n ? ", " : "", (int)bytes, name);
    }
    if (numbers && count > 1) snprintf(text, 512, "0 to %lld", (long long)count - 1);
    return text;
}

/* A cell for a message: cut where it is long. */
static int wrong_label(const oct_table *t, int64_t row, int64_t column, const char *expected)
{
    oct_cell cell = t->cells[row * t->columns + column];
    int shown = cell.bytes > 40 ? 40 : (int)cell.bytes;
    while (shown > 0 && shown < cell.bytes && (t->text[cell.start + shown] & 0xC0) == 0x80) shown--;
    return oct_fail("%s line %lld: label \"%.*s%s\", expected %s", t->path,
                    (long long)t->lines[row], shown, t->text + cell.start,
                    shown < cell.bytes ? "..." : "", expected);
}

int oct_table_labels(int32_t *labels, const oct_table *t, int64_t column, const char *names)
{
    OCT_TRY(check_column(t, column));
    for (int64_t row = 0; row < t->rows; row++) {
        oct_cell cell = t->cells[row * t->columns + column];
        const char *list = names, *name;
        int64_t bytes;
        int32_t found = -1;
        for (int32_t k = 0; found < 0 && (name = next_name(&list, &bytes)); k++)
            if (bytes == cell.bytes && memcmp(name, t->text + cell.start, (size_t)bytes) == 0)
                found = k;
        char expected[512];
        if (found < 0) return wrong_label(t, row, column, expected_names(expected, names));
        labels[row] = found;
    }
    return 0;
}

/* A decimal number, whatever the locale; NaN where it is none. */
static double parse_number(const char *text, int64_t bytes, locale_t plain)
{
    char copy[64], *end;
    if (bytes == 0 || bytes >= (int64_t)sizeof copy) return NAN;
    for (int64_t i = 0; i < bytes; i++) {
        if (!memchr("0123456789+-.eE", text[i], 15)) return NAN;
        copy[i] = text[i];
    }
    copy[bytes] = 0;
    double value = strtod_l(copy, &end, plain);
    return end == copy + bytes ? value : NAN;
}

int oct_table_numbers(float *values, const oct_table *t, int64_t column, double low, double high)
{
    OCT_TRY(check_column(t, column));
    locale_t plain = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!plain) return oct_fail("table: no memory for a locale");
    int status = 0;
    for (int64_t row = 0; row < t->rows && status == 0; row++) {
        oct_cell cell = t->cells[row * t->columns + column];
        double value = parse_number(t->text + cell.start, cell.bytes, plain);
        if (value >= low && value <= high) {
            values[row] = (float)value;
            continue;
        }
        /* Bounds are small whole numbers wherever they are used: no locale gets into the text. */
        char expected[64];
        snprintf(expected, sizeof expected, "a number from %lld to %lld", (long long)low,
                 (long long)high);
        status = wrong_label(t, row, column, expected);
    }
    freelocale(plain);
    return status;
}
