/* map.h - a quantization map as the kernels see it: 256 values, and two ways to a value's code.
 *
 * A number x that is to be coded has been divided by its block's largest magnitude, so |x| <= 1.
 * Maps are looked at by magnitude: entry 0 is the value 0, entries 1 .. top are the positive values.
 * Unsigned: code = entry, top 255. Signed: code = 127 + entry or 127 - entry, top 128; the negative
 * side ends at entry 127.
 *
 * The exact way: entry k is the nearest one for bound[k] <= |x| < bound[k + 1]. Exactly midway
 * between two entries, the larger magnitude is taken.
 *
 * The fast way: between entries, "position" is the line that is k at entry k, and since entries stand
 * evenly within a decade, few lines make up the whole: at most 16 segments, at most two of which
 * begin within one octave. So the exponent of x gives the segment but for two comparisons.
 *     position + 1/2, rounded down, is the nearest entry, unless it lies within `doubt` of a whole
 *         number: then the bound decides;
 *     position + u, rounded down, u uniform in (0, 1), is one of the two neighbours, right in the mean. */
#ifndef OCT_MAP_H
#define OCT_MAP_H
#include <stdint.h>

/* In a signed map, a magnitude below this becomes 0 when it is rounded by chance. */
#define OCT_MAP_NOTHING 0x1p-22f

enum {
    OCT_CODES = 256,
    OCT_SEGMENTS = 16,
    OCT_OCTAVES = 32,              /* by the low 5 bits of the exponent */
    OCT_OCTAVE_FIRST = 104,        /* exponents as stored; 104: 2^-23. Below, all is segment 0 */
    OCT_SIGNED_ZERO = 127          /* code of 0 in a signed map */
};

typedef struct oct_map {
    float value[OCT_CODES];        /* by code, ascending */
    uint8_t plane[4][OCT_CODES];   /* byte b of the float of each code */
    int32_t is_signed, top;
    float bound[OCT_CODES + 1];    /* [top + 2]; bound[0] = 0, bound[top + 1] = infinity */

    int32_t segments;
    float start[OCT_SEGMENTS];     /* |x| from which a segment holds; unused ones: infinity */
    float slope[OCT_SEGMENTS];
    float nearest[OCT_SEGMENTS];   /* position + 1/2 = |x| * slope + nearest */
    float stochastic[OCT_SEGMENTS];/* position - 1 = |x| * slope + stochastic */
    int32_t octave_segment[OCT_OCTAVES];   /* segment in which an octave begins */
    float octave_first[OCT_OCTAVES];       /* where the next one begins, and the one after it; */
    float octave_second[OCT_OCTAVES];      /* infinity where that is beyond the octave */
    float doubt;
} oct_map;

#endif
