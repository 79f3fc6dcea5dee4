/* map_lines.c - the lines by which a code of a map is found without a search (kernels/map.h). */
#include <math.h>
#include <string.h>

#include "core/map.h"

/* The smallest float that is not below x. */
static float float_from(double x)
{
    float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}

/* A run of entries that stand evenly. */
typedef struct run {
    int from, to;
} run;

/* Returns how many runs; -1 where they are too many. */
static int find_runs(run runs[OCT_SEGMENTS], const float *entry, int top)
{
    int count = 0;
    for (int from = 0, to; from < top; from = to) {
        double gap = (double)entry[from + 1] - (double)entry[from];
        for (to = from + 1; to < top; to++) {
            double next = (double)entry[to + 1] - (double)entry[to];
            if (fabs(next - gap) > 1e-4 * gap) break;
        }
        if (count == OCT_SEGMENTS - 1) return -1;
        runs[count++] = (run){from, to};
    }
    return count;
}

static void clear_lines(oct_lines *lines, double scale, float lift)
{
    memset(lines, 0, sizeof *lines);
    lines->scale = (float)scale;
    lines->lift = lift;
    for (int s = 0; s < OCT_SEGMENTS; s++) lines->start[s] = lines->end[s] = INFINITY;
}

static void add_line(oct_lines *lines, double start, double slope, double offset)
{
    int s = lines->segments++;
    lines->start[s] = s > 0 ? (float)(start * (double)lines->scale + (double)lines->lift) : 0;
    if (s > 0) lines->end[s - 1] = lines->start[s];
    lines->slope[s] = (float)slope;
    lines->offset[s] = (float)offset;
}

/* The line through two points, `low` and `high` being magnitudes. Exact at the middle: what
 * rounding the slope costs is halved. */
static void add_line_through(oct_lines *lines, double start, double low, double at_low, double high,
                             double at_high)
{
    double scale = (double)lines->scale;
    float slope = (float)((at_high - at_low) / (high - low) / scale);
    double middle = (low + high) / 2 * scale + (double)lines->lift;
    add_line(lines, start, (double)slope, (at_low + at_high) / 2 - middle * (double)slope);
}

/* The line through a run: k + shift at entry k. */
static void add_run(oct_lines *lines, const float *entry, run r, double shift)
{
    double low = (double)entry[r.from], high = (double)entry[r.to];
    add_line_through(lines, low, low, r.from + shift, high, r.to + shift);
}

/* The tables by which a line is found; 0 where there are too many starts in an octave. */
static int fill_octaves(oct_lines *lines)
{
    for (int exponent = OCT_OCTAVE_FIRST; exponent < OCT_OCTAVE_FIRST + OCT_OCTAVES; exponent++) {
        float low = ldexpf(1, exponent - 127), high = 2 * low;
        int s = 0, o = exponent % OCT_OCTAVES;
        while (lines->end[s] <= low) s++;
        if (exponent == OCT_OCTAVE_FIRST && s > 0) return 0;
        lines->octave_segment[o] = s;
        lines->octave_byte[o] = (uint8_t)s;
        lines->octave_first[o] = lines->end[s] < high ? lines->end[s] : INFINITY;
        lines->octave_second[o] = INFINITY;
        if (!(lines->end[s] < high) || !(lines->end[s + 1] < high)) continue;
        lines->octave_second[o] = lines->end[s + 1];
        if (lines->end[s + 2] < high) return 0;
    }
    return 1;
}

/* The same for cells. */
static int fill_cells(oct_lines *lines)
{
    for (int place = 0; place < OCT_CELLS; place++) {
        int exponent = OCT_OCTAVE_FIRST + place / 4;
        double octave = ldexp(1, exponent - 127), quarter = octave / 4;
        double low = octave + place % 4 * quarter, high = low + quarter;
        int s = 0;
        while ((double)lines->end[s] <= low) s++;
        lines->cell_segment[exponent % OCT_OCTAVES * 4 + place % 4] = (uint8_t)s;
        if ((double)lines->end[s] < high && (double)lines->end[s + 1] < high) return 0;
    }
    return 1;
}

/* The float that stands for an entry's place: kernels/map.h. `upper`: as one of 128 or more. */
static double place_of(const oct_map *map, int entry, int upper)
{
    int place = entry + !map->is_signed;
    return upper ? 2 * place : 128 + place;
}

/* The last line, raised until it is nowhere below `least` from `magnitude` on. */
static void raise(oct_lines *lines, float magnitude, double least)
{
    int s = lines->segments - 1;
    while ((double)fmaf(magnitude, lines->slope[s], lines->offset[s]) < least)
        lines->offset[s] = nextafterf(lines->offset[s], INFINITY);
}

/* The largest magnitude of a block has entry `top`, always, though division and products may leave
 * a little less than 1 of it. So the last line gets there a little before: FULL. */
static const double FULL = 1 - 0x1p-21, LEFT = 1 - 0x1p-22;

/* Part of a run that lies on one side of place 128. */
static int add_places(oct_lines *lines, const oct_map *map, const float *entry, run r, double start)
{
    int upper = place_of(map, r.from, 1) >= 256, is_last = r.to == map->top;
    double low = (double)entry[r.from], high = is_last ? FULL : (double)entry[r.to];
    double at_low = place_of(map, r.from, upper), at_high = place_of(map, r.to, upper);
    if (lines->segments == OCT_SEGMENTS) return 0;
    add_line_through(lines, start, low, at_low, high, at_high);
    /* Not below its first entry: nothing above 0 becomes code 0, and bits are those of 128 on. */
    raise(lines, lines->start[lines->segments - 1], at_low);
    if (is_last) raise(lines, (float)(LEFT * (double)lines->scale + (double)lines->lift), at_high);
    return 1;
}

/* 0 where the lines are too many. */
static int add_chance(oct_map *map, const float *entry, const run *runs, int count, double scale)
{
    oct_lines *lines = &map->chance;
    clear_lines(lines, scale, OCT_CHANCE_LIFT);
    /* Unsigned: all the way to entry 1, be it a run of its own or the beginning of one. */
    add_line(lines, 0, 0, place_of(map, map->is_signed ? 0 : 1, 0));
    for (int i = 0; i < count; i++) {
        run r = runs[i];
        if (!map->is_signed && r.from == 0 && ++r.from == r.to) continue;
        double start = r.from == 0 ? (double)OCT_CHANCE_LEAST : (double)entry[r.from];
        int middle = 128 - !map->is_signed;
        if (r.from < middle && middle < r.to) {
            if (!add_places(lines, map, entry, (run){r.from, middle}, start)) return 0;
            r.from = middle;
            start = (double)entry[middle];
        }
        if (!add_places(lines, map, entry, r, start)) return 0;
    }
    return 1;
}

/* 1 where the maps of both roundings could be made of lines. */
static int fill_lines(oct_map *map, const float *entry)
{
    enum { SCALES = 64 };
    run runs[OCT_SEGMENTS];
    int count = find_runs(runs, entry, map->top);
    if (count < 0) return 0;
    clear_lines(&map->nearest, 1, 0);
    for (int i = 0; i < count; i++) add_run(&map->nearest, entry, runs[i], 0.5);
    if (!fill_octaves(&map->nearest) || map->entry_bound[1] <= OCT_CHANCE_LEAST / 2) return 0;
    map->nearest.has_cells = fill_cells(&map->nearest);
    map->chance.has_cells = 0;
    for (int i = 0; i < SCALES && !map->chance.has_cells; i++) {
        map->chance.has_cells = add_chance(map, entry, runs, count, 1 + (double)i / SCALES) &&
                                fill_octaves(&map->chance) && fill_cells(&map->chance);
    }
    return map->chance.has_cells;
}

static float line_at(const oct_lines *lines, float x)
{
    int s = 0;
    while (x >= lines->end[s]) s++;
    return fmaf(x, lines->slope[s], lines->offset[s]);
}

/* How far the fast position may be from the whole number that a bound stands for. It never falls as
 * x grows, so looking at the floats on both sides of each bound is enough; twice that is safe. */
static void fill_doubt(oct_map *map)
{
    float most = 0;
    for (int k = 1; k <= map->top; k++) {
        float at = fabsf(line_at(&map->nearest, map->entry_bound[k]) - (float)k);
        float before = fabsf(line_at(&map->nearest, nextafterf(map->entry_bound[k], 0)) - (float)k);
        most = fmaxf(most, fmaxf(at, before));
    }
    map->doubt = 2 * most;
}

/* Entries by magnitude, ascending from 0 to 1, the same on both sides. */
static int is_even(const oct_map *map, const float *entry)
{
    if (map->levels != OCT_CODES || entry[0] != 0 || entry[map->top] != 1) return 0;
    for (int k = 1; k <= map->top; k++)
        if (entry[k] <= entry[k - 1]) return 0;
    for (int k = 1; map->is_signed && k <= OCT_SIGNED_ZERO; k++)
        if (entry[-k] != -entry[k]) return 0;
    return 1;
}

void oct_map_find_lines(oct_map *map)
{
    const float *entry = map->value + (map->is_signed ? OCT_SIGNED_ZERO : 0);
    map->top = map->is_signed ? OCT_CODES - 1 - OCT_SIGNED_ZERO : OCT_CODES - 1;
    map->has_lines = 0;
    if (!is_even(map, entry)) return;
    map->entry_bound[0] = 0;
    for (int k = 1; k <= map->top; k++)
        map->entry_bound[k] = float_from(((double)entry[k - 1] + (double)entry[k]) / 2);
    map->entry_bound[map->top + 1] = INFINITY;
    map->has_lines = fill_lines(map, entry);
    if (map->has_lines) fill_doubt(map);
}
