/* encoding.c - many texts into flat arrays of ids, by all threads, and rows of them into a batch.
 *
 * The rows are cut into one run for each thread; each fills a list of its own, and the lists are
 * then laid end to end, so that the result does not depend on the number of threads. */
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include "core/error.h"
#include "core/file/table.h"
#include "core/memory.h"
#include "core/text/wordpiece.h"

struct oct_encoding {
    int64_t rows, tokens, longest;
    int32_t *ids;                  /* [tokens] */
    int64_t *offsets;              /* [rows + 1] */
    int32_t *firsts;               /* [rows] */
};

/* Where rows come from: a table's columns or texts in memory. */
typedef struct source {
    const oct_table *table;
    int64_t column[2];
    const char *texts;
    const int64_t *ends;
    int parts;                     /* 1, or 2 for pairs */
} source;

/* One thread's rows, first to last - 1. */
typedef struct share {
    int64_t first, last;
    oct_id_list list;
    int failed;
    char error[512];
} share;

static const char *text_of(int64_t *bytes, const source *from, int64_t row, int part)
{
    if (from->table) {
        oct_cell cell = from->table->cells[row * from->table->columns + from->column[part]];
        *bytes = cell.bytes;
        return from->table->text + cell.start;
    }
    int64_t text = row * from->parts + part, start = text ? from->ends[text - 1] : 0;
    *bytes = from->ends[text] - start;
    return from->texts + start;
}

static int append_text(oct_id_list *list, const oct_wordpiece *wp, const source *from, int64_t row,
                       int part)
{
    int64_t bytes, bad;
    const char *text = text_of(&bytes, from, row, part);
    if (oct_wordpiece_append(list, &bad, wp, text, bytes) == 0) return 0;
    if (bad < 0) return -1;
    if (from->table)
        return oct_fail_within("%s line %lld", from->table->path,
                               (long long)from->table->lines[row]);
    if (from->parts == 2)
        return oct_fail_within("pair %lld, %s text", (long long)row + 1,
                               part == 0 ? "first" : "second");
    return oct_fail_within("text %lld", (long long)row + 1);
}

/* How many ids of a and b stay where `room` is left for both. */
static void shorten(int64_t *a, int64_t *b, int64_t room)
{
    if (*a + *b <= room) return;
    int64_t shorter = *a <= *b ? *a : *b, half = room / 2;
    if (shorter > half) {
        int a_is_longer = *a > *b;
        *a = a_is_longer ? room - half : half;
        *b = room - *a;
    } else if (*a <= *b) {
        *b = room - *a;
    } else {
        *a = room - *b;
    }
}

static int encode_row(oct_encoding *e, share *s, const oct_wordpiece *wp, const source *from,
                      int64_t row, int64_t max_length, int special)
{
    oct_id_list *list = &s->list;
    int64_t begin = list->size, around = special ? from->parts + 1 : 0, b = 0;
    OCT_TRY(oct_id_list_reserve(list, 3));
    if (special) list->ids[list->size++] = wp->start;
    int64_t a_begin = list->size;
    OCT_TRY(append_text(list, wp, from, row, 0));
    int64_t a = list->size - a_begin;
    if (from->parts == 2) {
        OCT_TRY(append_text(list, wp, from, row, 1));
        b = list->size - a_begin - a;
    }
    int64_t kept_a = a, kept_b = b;
    if (max_length > 0) shorten(&kept_a, &kept_b, max_length - around);
    OCT_TRY(oct_id_list_reserve(list, 2));
    int32_t *ids = list->ids + a_begin;
    int64_t first = (special ? 2 : 0) + kept_a;
    if (from->parts == 2)
        memmove(ids + kept_a + (special ? 1 : 0), ids + a, (size_t)kept_b * sizeof *ids);
    if (special) {
        ids[kept_a] = wp->separator;
        if (from->parts == 2) ids[kept_a + 1 + kept_b] = wp->separator;
    }
    list->size = begin + around + kept_a + kept_b;
    int64_t length = list->size - begin;
    if (length > INT32_MAX)
        return oct_fail("encode: a row of %lld ids, expected fewer than 2^31", (long long)length);
    e->firsts[row] = (int32_t)first;
    e->offsets[row + 1] = length;      /* lengths; summed up when all are there */
    return 0;
}

static void encode_share(oct_encoding *e, share *s, const oct_wordpiece *wp, const source *from,
                         int64_t max_length, int special)
{
    for (int64_t row = s->first; row < s->last; row++)
        if (encode_row(e, s, wp, from, row, max_length, special) != 0) {
            s->failed = 1;
            snprintf(s->error, sizeof s->error, "%s", oct_last_error());
            return;
        }
}

static int join(oct_encoding *e, const share *shares, int count)
{
    e->offsets[0] = 0;
    for (int64_t row = 0; row < e->rows; row++) {
        if (e->offsets[row + 1] > e->longest) e->longest = e->offsets[row + 1];
        e->offsets[row + 1] += e->offsets[row];
    }
    e->tokens = e->offsets[e->rows];
    e->ids = oct_block_new((size_t)e->tokens * sizeof *e->ids, OCT_DATA);
    if (!e->ids) return -1;
    int64_t at = 0;
    for (int i = 0; i < count; i++) {
        memcpy(e->ids + at, shares[i].list.ids, (size_t)shares[i].list.size * sizeof *e->ids);
        at += shares[i].list.size;
    }
    return 0;
}

enum { MAX_SHARES = 64, ROWS_WORTH_A_THREAD = 64 };

static int encode(oct_encoding *e, const oct_wordpiece *wp, const source *from, int64_t max_length,
                  int special)
{
    e->offsets = oct_block_new((size_t)(e->rows + 1) * sizeof *e->offsets, OCT_DATA);
    e->firsts = oct_block_new((size_t)e->rows * sizeof *e->firsts, OCT_DATA);
    if (!e->offsets || !e->firsts) return -1;
    int64_t count = omp_get_max_threads();
    if (count > MAX_SHARES) count = MAX_SHARES;
    if (count > e->rows / ROWS_WORTH_A_THREAD) count = e->rows / ROWS_WORTH_A_THREAD;
    if (count < 1) count = 1;
    share *shares = oct_calloc((size_t)count, sizeof *shares);
    if (!shares) return -1;
    for (int64_t i = 0; i < count; i++) {
        shares[i].first = e->rows * i / count;
        shares[i].last = e->rows * (i + 1) / count;
    }
#pragma omp parallel for schedule(static, 1) num_threads((int)count) if (count > 1)
    for (int64_t i = 0; i < count; i++) encode_share(e, shares + i, wp, from, max_length, special);
    int status = 0;
    for (int64_t i = 0; i < count && status == 0; i++)
        if (shares[i].failed) status = oct_fail("%s", shares[i].error);
    if (status == 0) status = join(e, shares, (int)count);
    for (int64_t i = 0; i < count; i++) oct_free(shares[i].list.ids);
    oct_free(shares);
    return status;
}

static int make(oct_encoding **result, const oct_wordpiece *wp, const source *from, int64_t rows,
                int64_t max_length, int special)
{
    if (max_length != 0 && max_length < 3)
        return oct_fail("encode: max_length is %lld, expected at least 3, or 0 for no limit",
                        (long long)max_length);
    oct_encoding *e = oct_calloc(1, sizeof *e);
    if (!e) return -1;
    e->rows = rows;
    if (encode(e, wp, from, max_length, special) != 0) {
        oct_encoding_free(e);
        return -1;
    }
    *result = e;
    return 0;
}

int oct_encode_table(oct_encoding **result, const oct_wordpiece *wp, const oct_table *table,
                     int64_t a, int64_t b, int64_t max_length)
{
    if (a < 0 || a >= table->columns || b < -1 || b >= table->columns)
        return oct_fail("encode: columns %lld and %lld, expected 0 to %lld", (long long)a,
                        (long long)b, (long long)table->columns - 1);
    source from = {.table = table, .column = {a, b}, .parts = b < 0 ? 1 : 2};
    return make(result, wp, &from, table->rows, max_length, 1);
}

int oct_encode_texts(oct_encoding **result, const oct_wordpiece *wp, const char *texts,
                     const int64_t *ends, int64_t count, int pairs, int64_t max_length, int special)
{
    if (count < 0 || (pairs && count % 2 != 0))
        return oct_fail("encode: %lld texts, expected %s", (long long)count,
                        pairs ? "an even number, 0 or more" : "0 or more");
    for (int64_t i = 0; i < count; i++)
        if (ends[i] < (i ? ends[i - 1] : 0))
            return oct_fail("encode: text %lld ends at %lld, before it begins", (long long)i + 1,
                            (long long)ends[i]);
    source from = {.texts = texts, .ends = ends, .parts = pairs ? 2 : 1};
    return make(result, wp, &from, pairs ? count / 2 : count, max_length, special);
}

int oct_encoding_free(oct_encoding *e)
{
    if (!e) return 0;
    oct_block_free(e->ids, (size_t)e->tokens * sizeof *e->ids, OCT_DATA);
    oct_block_free(e->offsets, (size_t)(e->rows + 1) * sizeof *e->offsets, OCT_DATA);
    oct_block_free(e->firsts, (size_t)e->rows * sizeof *e->firsts, OCT_DATA);
    oct_free(e);
    return 0;
}

int oct_encoding_size(int64_t *rows, int64_t *tokens, int64_t *longest, const oct_encoding *e)
{
    *rows = e->rows;
    *tokens = e->tokens;
    *longest = e->longest;
    return 0;
}

int oct_encoding_arrays(const int32_t **ids, const int64_t **offsets, const int32_t **firsts,
                        const oct_encoding *e)
{
    *ids = e->ids;
    *offsets = e->offsets;
    *firsts = e->firsts;
    return 0;
}

/* ---- batches --------------------------------------------------------------------------------- */

int oct_encoding_count(int64_t *tokens, const oct_encoding *e, const int32_t *rows, int64_t n)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (rows[i] < 0 || rows[i] >= e->rows)
            return oct_fail("batch: row %d, expected 0 to %lld", rows[i], (long long)e->rows - 1);
        sum += e->offsets[rows[i] + 1] - e->offsets[rows[i]];
    }
    if (sum > INT32_MAX)
        return oct_fail("batch: %lld tokens, expected fewer than 2^31", (long long)sum);
    *tokens = sum;
    return 0;
}

int oct_encoding_pack(int32_t *ids, int32_t *offsets, int32_t *types, int32_t *positions,
                      const oct_encoding *e, const int32_t *rows, int64_t n)
{
    int64_t tokens;
    OCT_TRY(oct_encoding_count(&tokens, e, rows, n));
    int32_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t start = e->offsets[rows[i]];
        int32_t length = (int32_t)(e->offsets[rows[i] + 1] - start), first = e->firsts[rows[i]];
        offsets[i] = at;
        memcpy(ids + at, e->ids + start, (size_t)length * sizeof *ids);
        for (int32_t k = 0; k < length; k++) {
            types[at + k] = k >= first;
            positions[at + k] = k;
        }
        at += length;
    }
    offsets[n] = at;
    return 0;
}
