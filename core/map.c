/* map.c - the quantization maps: their values by name, and what kernels need besides. */
#include "core/map.h"

#include <math.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/octet.h"

/* ---- values ---------------------------------------------------------------------------------- */

/* Positive values, ascending; those of a map are these, 0, and in a signed one their negatives but
 * for the largest. */
typedef struct side { double value[OCT_CODES]; int count; } side;

static int positives(int levels, int is_signed) { return is_signed ? levels / 2 : levels - 1; }

static void append(side *s, double value) { s->value[s->count++] = value; }

/* Bin k of the n equal bins of [0.1, 1], its midpoint times 10^-down: (2 n + 18 k + 9) / (20 n
 * 10^down). Both are whole numbers, so that one division is all the rounding there is. */
static double decade_value(int n, int k, int down)
{
    double power = 1;
    for (int i = 0; i < down; i++) power *= 10;
    return (2 * n + 18 * k + 9) / (20 * n * power);
}

/* Decades with 1, 2, 4 ... bins (twice as many without a sign), the finest at the top, and 1.0.
 * inverse: the finest at the bottom. */
static void fill_dynamic(side *s, int levels, int is_signed, int inverse)
{
    int decades = levels == OCT_CODES ? 7 : 3;
    for (int i = 0; i < decades; i++) {
        int doublings = inverse ? decades - 1 - i : i, n = (is_signed ? 1 : 2) << doublings;
        for (int k = 0; k < n; k++) append(s, decade_value(n, k, decades - 1 - i));
    }
    append(s, 1);
}

/* What bitsandbytes 0.36.0 to 0.41.0 held in its unsigned map: each decade had two bins twice as
 * many as meant and two coarse ones besides, 524 values with 0 and 1, of which the 256 smallest
 * were read. The largest of those is 0.0933, so v shrinks at every step. */
static void fill_bnb_036(side *s)
{
    for (int i = 0; i < 6; i++) {
        int n = 4 << i, coarse = 0;
        for (int k = 0; k < n; k++) {
            double fine = decade_value(n, k, 6 - i);
            while (coarse < 2 && decade_value(2, coarse, 6 - i) < fine && s->count < 255)
                append(s, decade_value(2, coarse++, 6 - i));
            if (s->count == 255) return;
            append(s, fine);
        }
        while (coarse < 2) append(s, decade_value(2, coarse++, 6 - i));
    }
}

/* nonzero: in an unsigned map, from a step above 0 on. */
static void fill_linear(side *s, int levels, int is_signed, int nonzero)
{
    int n = positives(levels, is_signed) + (nonzero && !is_signed);
    for (int k = 1; k <= n; k++) append(s, (double)k / n);
}

/* Squares of whole numbers. */
static void fill_quadratic(side *s, int levels, int is_signed)
{
    int n = positives(levels, is_signed);
    for (int k = 1; k <= n; k++) append(s, (double)(k * k) / (n * n));
}

/* Each value so many times the one below. With 256 levels over the seven decades of the dynamic
 * map, with 16 over one; an unsigned map of 16 has no 0: where v is kept, or its root, an element
 * that is small beside its block's largest makes shorter steps, not longer ones. */
static void fill_geometric(side *s, int levels, int is_signed)
{
    int few = levels != OCT_CODES, n = positives(levels, is_signed) + (few && !is_signed);
    for (int k = 1; k < n; k++)
        append(s, exp(log(10) * (few ? 1 : 7) * (double)(k - n) / (n - 1)));
    append(s, 1);
}

/* x of which a share p of the standard normal distribution is below, 0.5 <= p < 1. */
static double normal_quantile(double p)
{
    double low = 0, high = 16;
    for (int i = 0; i < 80; i++) {
        double middle = (low + high) / 2;
        if (erfc(middle / sqrt(2)) / 2 > 1 - p) low = middle;
        else high = middle;
    }
    return (low + high) / 2;
}

/* Each value stands for an equal share of a normal distribution (Dettmers et al. 2022, equation 5:
 * the midpoint of the share's two quantiles), scaled so that the largest is 1. */
static void fill_quantile(side *s, int levels, int is_signed)
{
    int n = positives(levels, is_signed);
    for (int k = 1; k <= n; k++) {
        double low = normal_quantile(0.5 + (k - 0.5) / (n + 1) / 2);
        append(s, (low + normal_quantile(0.5 + (k + 0.5) / (n + 1) / 2)) / 2);
    }
    for (int k = 0; k < n; k++) s->value[k] /= s->value[n - 1];
}

/* The finite values of a float of 8 bits (OCP 8-bit Floating Point Specification, 2023), the
 * largest scaled to 1. A format has fewer values than a map: the last one stands several times. */
static void fill_fp8(side *s, int levels, int is_signed, int fraction_bits, double largest)
{
    int steps = 1 << fraction_bits, n = positives(levels, is_signed);
    double least = fraction_bits == 3 ? 0x1p-9 : 0x1p-16;
    for (int e = 0; s->count < n; e++)
        for (int k = e == 0 ? 1 : 0; k < steps && s->count < n; k++) {
            double x = e == 0 ? k * least : ldexp(steps + k, e - 1) * least;
            append(s, x < largest ? x / largest : 1);
        }
}

/* 0, unless the side fills the map, and the side, and in a signed map its mirror image but for the
 * largest. */
static void fill_values(float *value, const side *s, int levels, int is_signed)
{
    int zero = is_signed ? s->count - 1 : levels - 1 - s->count;
    if (zero >= 0) value[zero] = 0;
    for (int k = 1; k <= s->count; k++) {
        value[zero + k] = (float)s->value[k - 1];
        if (is_signed && k <= zero) value[zero - k] = -(float)s->value[k - 1];
    }
}

static const char *const names[] = {
    "dynamic", "linear", "linear_nonzero", "quadratic", "geometric", "quantile", "inverse_dynamic",
    "fp8_e4m3", "fp8_e5m2", "bnb-0.36", NULL,
};

int oct_map_name(const char **name, int index)
{
    if (index < 0 || index >= (int)(sizeof names / sizeof *names))
        return oct_fail("map: number %d, expected 0 to %d", index,
                        (int)(sizeof names / sizeof *names) - 1);
    *name = names[index];
    return 0;
}

int oct_map_named(oct_map **out, const char *name, int levels, int is_signed)
{
    side s = {.count = 0};
    if (levels != 16 && levels != OCT_CODES)
        return oct_fail("map: %d levels, expected 16 or 256", levels);
    if (strcmp(name, "dynamic") == 0) fill_dynamic(&s, levels, is_signed, 0);
    else if (strcmp(name, "linear") == 0) fill_linear(&s, levels, is_signed, 0);
    else if (strcmp(name, "linear_nonzero") == 0) fill_linear(&s, levels, is_signed, 1);
    else if (strcmp(name, "quadratic") == 0) fill_quadratic(&s, levels, is_signed);
    else if (strcmp(name, "geometric") == 0) fill_geometric(&s, levels, is_signed);
    else if (strcmp(name, "quantile") == 0) fill_quantile(&s, levels, is_signed);
    else if (strcmp(name, "inverse_dynamic") == 0) fill_dynamic(&s, levels, is_signed, 1);
    else if (levels != OCT_CODES)
        return oct_fail("map: \"%.40s\" has no form of 16 levels, or does not exist", name);
    else if (strcmp(name, "fp8_e4m3") == 0) fill_fp8(&s, levels, is_signed, 3, 448);
    else if (strcmp(name, "fp8_e5m2") == 0) fill_fp8(&s, levels, is_signed, 2, 57344);
    else if (strcmp(name, "bnb-0.36") == 0 && is_signed) fill_dynamic(&s, levels, is_signed, 0);
    else if (strcmp(name, "bnb-0.36") == 0) fill_bnb_036(&s);
    else return oct_fail("map: \"%.40s\" does not exist", name);
    float value[OCT_CODES];
    fill_values(value, &s, levels, is_signed);
    return oct_map_new(out, value, levels, is_signed);
}

/* ---- a map from its values ------------------------------------------------------------------- */

/* The smallest float that is nearer to `high` than to `low`, ties to the larger magnitude. */
static float bound_between(float low, float high)
{
    double middle = ((double)low + (double)high) / 2;
    float f = (float)middle;
    if ((double)f < middle || ((double)f == middle && middle < 0)) f = nextafterf(f, INFINITY);
    return f;
}

static void complete(oct_map *map)
{
    map->zero = 0;
    map->bound[0] = -INFINITY;
    for (int c = 0; c < map->levels; c++) {
        float x = map->value[c];
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        for (int b = 0; b < 4; b++) map->plane[b][c] = (uint8_t)(bits >> 8 * b);
        if (fabsf(x) < fabsf(map->value[map->zero])) map->zero = c;
        if (c == 0) continue;
        float gap = x - map->value[c - 1], inverse = 1 / gap;
        map->bound[c] = bound_between(map->value[c - 1], x);
        map->gap_inverse[c - 1] = gap > 0 && inverse < INFINITY ? inverse : 0;
    }
    map->mirrored = map->is_signed && map->levels == OCT_CODES &&
                    !signbit(map->value[OCT_SIGNED_ZERO]);
    for (int k = 0; k <= OCT_SIGNED_ZERO && map->mirrored; k++)
        map->mirrored = map->value[OCT_SIGNED_ZERO - k] == -map->value[OCT_SIGNED_ZERO + k];
    map->least = !map->is_signed && map->value[map->zero] == 0 ? map->zero + 1 : 0;
    oct_map_find_lines(map);
}

int oct_map_new(oct_map **out, const float *values, int levels, int is_signed)
{
    if (levels != 16 && levels != OCT_CODES)
        return oct_fail("map: %d values, expected 16 or 256", levels);
    for (int c = 0; c < levels; c++) {
        float x = values[c];
        if (!(fabsf(x) <= 1) || (c > 0 && x < values[c - 1]) || (x < 0 && !is_signed))
            return oct_fail("map: value %d is out of order or out of range: they ascend from %s to "
                            "1", c + 1, is_signed ? "-1" : "0");
    }
    /* Its tables lie on whole cache lines. */
    char *memory = oct_calloc(1, sizeof(oct_map) + 63);
    if (!memory) return -1;
    oct_map *map = (oct_map *)(memory + (-(uintptr_t)memory & 63));
    map->memory = memory;
    map->levels = levels;
    map->is_signed = is_signed != 0;
    map->refs = 1;
    memcpy(map->value, values, (size_t)levels * sizeof *values);
    complete(map);
    *out = map;
    return 0;
}

const oct_map *oct_map_retain(const oct_map *map)
{
    ((oct_map *)map)->refs++;
    return map;
}

int oct_map_free(oct_map *map)
{
    if (map && --map->refs == 0) oct_free(map->memory);
    return 0;
}

int oct_map_values(const float **values, int *levels, int *zero, const oct_map *map)
{
    *values = map->value;
    *levels = map->levels;
    *zero = map->zero;
    return 0;
}
