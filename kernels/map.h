/* map.h - a quantization map as the kernels see it: 256 values, and ways to a value's code.
 *
 * A number x that is to be coded has been divided by its block's largest magnitude, so |x| <= 1.
 * Maps are looked at by magnitude: entry 0 is the value 0, entries 1 .. top are the positive
 * values. Unsigned: code = entry, top 255. Signed: code = 127 + entry or 127 - entry, top 128; the
 * negative side ends at entry 127.
 *
 * To the nearest: entry k is the nearest one for bound[k] <= |x| < bound[k + 1]. Exactly midway
 * between two entries, the larger magnitude is taken.
 *
 * Faster, and for rounding by chance: the position of x is k at entry k and a straight line between
 * entries. Since entries stand evenly within a decade, few lines make up the whole.
 *     position + 1/2, rounded down, is the nearest entry, unless it lies within `doubt` of a whole
 *         number: then the bound decides;
 *     position + u, rounded down, u uniform in (0, 1), is one of the two neighbours, right in the
 *         mean. */
#ifndef OCT_MAP_H
#define OCT_MAP_H
#include <stdint.h>

enum {
    OCT_CODES = 256,
    OCT_SEGMENTS = 16,
    OCT_OCTAVES = 32,              /* by the low 5 bits of the exponent */
    OCT_OCTAVE_FIRST = 104,        /* exponents as stored; 104: 2^-23. Below, all is segment 0 */
    OCT_CELLS = 128,               /* quarters of octaves: by 2 bits of the fraction, too */
    OCT_SIGNED_ZERO = 127          /* code of 0 in a signed map */
};

/* A function of y = |x| * scale made of lines: y * slope + offset. Which line holds is found by
 * comparing with the starts, or from y's octave and two comparisons, or from its cell and one; the
 * scale moves the cells so that there is only one to make. All give the same line. */
typedef struct oct_lines {
    float scale;
    int32_t segments;
    float start[OCT_SEGMENTS];     /* y from which a line holds; of those unused: infinity */
    float end[OCT_SEGMENTS];       /* start of the next one; infinity where there is none */
    float slope[OCT_SEGMENTS];
    float offset[OCT_SEGMENTS];
    int32_t octave_segment[OCT_OCTAVES];   /* segment in which an octave begins */
    float octave_first[OCT_OCTAVES];       /* where the next one begins, and the one after it; */
    float octave_second[OCT_OCTAVES];      /* infinity where that is beyond the octave */
    uint8_t cell_segment[OCT_CELLS];       /* segment in which a cell begins */
    int32_t has_cells;             /* at most one segment begins within any cell */
} oct_lines;

typedef struct oct_map {
    float value[OCT_CODES];        /* by code, ascending */
    uint8_t plane[4][OCT_CODES];   /* byte b of the float of each code */
    int32_t is_signed, top;
    float bound[OCT_CODES + 1];    /* [top + 2]; bound[0] = 0, bound[top + 1] = infinity */
    float doubt;
    oct_lines nearest;             /* position + 1/2; scale 1 */
    /* position - 1, but for magnitudes below entry 1. In an unsigned map all of them become entry
     * 1, since a v that vanished under a living m would make a step of m / epsilon; for the same
     * reason, in a signed map those below 2^-22, which could be rounded up above a v of 0, become
     * 0. */
    oct_lines chance;
} oct_map;

#endif
