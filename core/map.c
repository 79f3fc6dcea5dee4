/* map.c - the dynamic maps, and the tables by which kernels find a value's code. */
#include "core/map.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

#include "core/error.h"
#include "core/octet.h"

/* ---- values -------------------------------------------------------------------------------------- */

/* Midpoint k of the n bins of [0.1, 1], times 10^(i - 6): (2 n + 18 k + 9) / (20 n 10^(6 - i)). Both
 * are whole numbers, so that one division is all the rounding there is. */
static float dynamic_value(int i, int n, int k)
{
    static const double powers[] = {1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 1e0};
    return (float)((2 * n + 18 * k + 9) / (20 * n * powers[i]));
}

static void fill_dynamic(oct_map *map, int is_signed)
{
    int zero = is_signed ? OCT_SIGNED_ZERO : 0, entry = 1;
    map->is_signed = is_signed;
    for (int i = 0; i <= 6; i++) {
        int n = is_signed ? 1 << i : 2 << i;
        for (int k = 0; k < n; k++, entry++) {
            map->value[zero + entry] = dynamic_value(i, n, k);
            if (is_signed) map->value[zero - entry] = -map->value[zero + entry];
        }
    }
    map->value[zero] = 0;
    map->value[255] = 1;
}

/* ---- tables -------------------------------------------------------------------------------------- */

/* The smallest float that is not below x. */
static float float_from(double x)
{
    float f = (float)x;
    return (double)f < x ? nextafterf(f, INFINITY) : f;
}

static void fill_bounds(oct_map *map, const float *entry)
{
    map->bound[0] = 0;
    for (int k = 1; k <= map->top; k++)
        map->bound[k] = float_from(((double)entry[k - 1] + (double)entry[k]) / 2);
    map->bound[map->top + 1] = INFINITY;
}

/* The line through entries `from` and `to`: entry k lies at k. */
static void fill_segment(oct_map *map, const float *entry, int from, int to)
{
    int s = map->segments++;
    float slope = (float)((to - from) / ((double)entry[to] - (double)entry[from]));
    /* Exact at the middle: what rounding the slope costs is halved. */
    double middle = ((double)entry[from] + (double)entry[to]) / 2;
    double offset = (from + to) / 2.0 - middle * (double)slope;
    map->start[s] = from > 0 ? entry[from] : map->is_signed ? OCT_MAP_NOTHING : 0;
    map->slope[s] = slope;
    map->nearest[s] = (float)(offset + 0.5);
    map->stochastic[s] = (float)(offset - 1);
}

static int fill_segments(oct_map *map, const float *entry)
{
    for (int s = 0; s < OCT_SEGMENTS; s++) map->start[s] = INFINITY;
    map->segments = 0;
    /* In signed maps, what is below OCT_MAP_NOTHING is 0 whatever the draw: rounded up to entry 1, as would
     * happen now and then, it could stand above a v that is 0. */
    if (map->is_signed) {
        if (map->bound[1] <= OCT_MAP_NOTHING)
            return oct_fail("map: its values lie too close to 0");
        map->segments = 1;
        map->start[0] = map->slope[0] = 0;
        map->nearest[0] = 0.5f;
        map->stochastic[0] = -1;
    }
    for (int from = 0, to; from < map->top; from = to) {
        double gap = (double)entry[from + 1] - (double)entry[from];
        for (to = from + 1; to < map->top; to++) {
            double next = (double)entry[to + 1] - (double)entry[to];
            if (fabs(next - gap) > 1e-4 * gap) break;
        }
        if (map->segments == OCT_SEGMENTS)
            return oct_fail("map: its values stand in more than %d evenly spaced runs",
                            OCT_SEGMENTS);
        fill_segment(map, entry, from, to);
    }
    return 0;
}

static int fill_octaves(oct_map *map)
{
    for (int exponent = OCT_OCTAVE_FIRST; exponent < OCT_OCTAVE_FIRST + OCT_OCTAVES; exponent++) {
        float low = ldexpf(1, exponent - 127), high = 2 * low;
        int segment = 0, o = exponent % OCT_OCTAVES;
        while (segment + 1 < map->segments && map->start[segment + 1] <= low) segment++;
        float next[3];
        for (int i = 0; i < 3; i++) {
            int s = segment + 1 + i;
            next[i] = s < map->segments && map->start[s] < high ? map->start[s] : INFINITY;
        }
        if (next[2] < high || (exponent == OCT_OCTAVE_FIRST && segment > 0))
            return oct_fail("map: its values lie too close to 0, or change their spacing too often");
        map->octave_segment[o] = segment;
        map->octave_first[o] = next[0];
        map->octave_second[o] = next[1];
    }
    return 0;
}

static float fast_position(const oct_map *map, float x)
{
    int s = 0;
    while (s + 1 < map->segments && x >= map->start[s + 1]) s++;
    return fmaf(x, map->slope[s], map->nearest[s]);
}

/* How far the fast position may be from the whole number that a bound stands for. It never falls as
 * x grows, so looking at the floats on both sides of each bound is enough; twice that is safe. */
static void fill_doubt(oct_map *map)
{
    float most = 0;
    for (int k = 1; k <= map->top; k++) {
        float at = fabsf(fast_position(map, map->bound[k]) - (float)k);
        float before = fabsf(fast_position(map, nextafterf(map->bound[k], 0)) - (float)k);
        most = fmaxf(most, fmaxf(at, before));
    }
    map->doubt = 2 * most;
}

int oct_map_complete(oct_map *map)
{
    const float *entry = map->value + (map->is_signed ? OCT_SIGNED_ZERO : 0);
    map->top = map->is_signed ? OCT_CODES - 1 - OCT_SIGNED_ZERO : OCT_CODES - 1;
    for (int code = 0; code < OCT_CODES; code++) {
        uint32_t bits;
        memcpy(&bits, map->value + code, sizeof bits);
        for (int b = 0; b < 4; b++) map->plane[b][code] = (uint8_t)(bits >> 8 * b);
    }
    fill_bounds(map, entry);
    OCT_TRY(fill_segments(map, entry));
    OCT_TRY(fill_octaves(map));
    fill_doubt(map);
    return 0;
}

/* ---- the maps that are built in ------------------------------------------------------------------- */

static oct_map dynamic_maps[2] __attribute__((aligned(64)));
static pthread_once_t dynamic_once = PTHREAD_ONCE_INIT;

static void build_dynamic(void)
{
    for (int is_signed = 0; is_signed < 2; is_signed++) {
        fill_dynamic(dynamic_maps + is_signed, is_signed);
        oct_map_complete(dynamic_maps + is_signed);    /* these values always fit */
    }
}

const oct_map *oct_map_dynamic(int is_signed)
{
    pthread_once(&dynamic_once, build_dynamic);
    return dynamic_maps + (is_signed != 0);
}
