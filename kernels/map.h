/* map.h - a quantization map as the kernels see it: 256 or 16 values, and ways to a value's code.
 *
 * A number x that is to be coded has been divided by its block's largest magnitude, so |x| <= 1.
 *
 * To the nearest: code c is the nearest one for bound[c] <= x < bound[c + 1]. Exactly midway
 * between two values, the larger magnitude is taken.
 * By chance, with a draw u that is uniform in (0, 1): where x lies between value[c] and
 * value[c + 1], c + 1 if x's share of the way from the one to the other plus u reaches 1, else c;
 * right in the mean. In an unsigned map nothing above 0 becomes code 0, since a v that vanished
 * under a living m would make a step of m / epsilon; for the same reason, in a signed map, what is
 * below 2^-22 in magnitude, which could be rounded up above a v of 0, becomes 0.
 *
 * Any map is searched by bisection. Most are made of few runs of values that stand evenly, and are
 * the same on both sides of 0: there a code is found from few straight lines, without a search.
 * Such a map is looked at by magnitude: entry 0 is the value 0, entries 1 .. top are the positive
 * values. Unsigned: code = entry, top 255. Signed: code = 127 + entry or 127 - entry, top 128; the
 * negative side ends at entry 127. The position of x is k at entry k and a straight line between
 * entries:
 *     position + 1/2, rounded down, is the nearest entry, unless it lies within `doubt` of a whole
 *         number: then the bound decides;
 *     position + u, rounded down, is one of the two neighbours.
 *
 * By chance, position + u is a whole number of 2^-16ths, and what the lines give is a float whose
 * bits are that number, so that the draw is added to them as an integer and the entry is a byte of
 * the sum, bits 16 to 23: 128 + place for a place below 128, twice the place from there to 256 (of
 * which the byte is 0). Place: the position, and 1 more in an unsigned map: so the dynamic map has
 * a run that begins with place 128, where lines must be parted. What comes out beyond the last
 * entry is that entry. */
#ifndef OCT_MAP_H
#define OCT_MAP_H
#include <stdint.h>

enum {
    OCT_CODES = 256,
    OCT_SEGMENTS = 16,
    OCT_OCTAVES = 32,              /* by the low 5 bits of the exponent */
    OCT_OCTAVE_FIRST = 104,        /* exponents as stored; 104: 2^-23. Below, all is segment 0 */
    OCT_CELLS = 128,               /* quarters of octaves: by 2 bits of the fraction, too */
    OCT_SIGNED_ZERO = 127          /* code of 0 in a signed map of lines */
};

/* Magnitudes below this become 0 in a signed map when they are rounded by chance. */
#define OCT_CHANCE_LEAST 0x1p-22f

/* Added to magnitudes that are rounded by chance: so all lie in the octaves that tables have. */
#define OCT_CHANCE_LIFT 0x1p-23f

/* The bits of a place in the sum of position and draw, and the byte that they are. */
#define OCT_PLACE_OF(bits) ((bits) >> 16 & 0xFF)
/* The bits of place 256, the last one of an unsigned map. */
#define OCT_PLACE_LAST 0x44000000u

/* A function of y = |x| * scale + lift made of lines: y * slope + offset. Which line holds is found
 * by comparing with the starts, or from y's octave and two comparisons, or from its cell and one;
 * the scale moves the cells so that there is only one to make. All give the same line. */
typedef struct oct_lines {
    float start[OCT_SEGMENTS];     /* y from which a line holds; of those unused: infinity */
    float end[OCT_SEGMENTS];       /* start of the next one; infinity where there is none */
    float slope[OCT_SEGMENTS];
    float offset[OCT_SEGMENTS];
    int32_t octave_segment[OCT_OCTAVES];   /* segment in which an octave begins */
    float octave_first[OCT_OCTAVES];       /* where the next one begins, and the one after it; */
    float octave_second[OCT_OCTAVES];      /* infinity where that is beyond the octave */
    uint8_t cell_segment[OCT_CELLS];       /* segment in which a cell begins */
    uint8_t octave_byte[OCT_OCTAVES];      /* octave_segment once more */
    float scale, lift;
    int32_t segments;
    int32_t has_cells;             /* at most one segment begins within any cell */
} __attribute__((aligned(64))) oct_lines;          /* each table on whole cache lines */

/* By code, ascending; [levels], and with 16 levels the rest is never read. */
typedef struct oct_map {
    float value[OCT_CODES];
    uint8_t plane[4][OCT_CODES];   /* byte b of the float of each code */
    float bound[OCT_CODES];        /* the smallest x whose nearest value this is; [0]: -infinity */
    float gap_inverse[OCT_CODES];  /* 1 / (value[c + 1] - value[c]); 0 where that is no number */
    int32_t levels, is_signed;
    int32_t zero;                  /* the code of 0: of fresh state, and of an empty block */
    int32_t least;                 /* the lowest code of what is above 0, by chance: see above */
    int32_t mirrored;              /* signed, 256 levels: code 127 is 0, 127 - k minus 127 + k */
    /* Maps of lines, with 256 levels. */
    int32_t has_lines, top;
    float entry_bound[OCT_CODES + 1];  /* [top + 2]: as `bound`, by entry; the last one infinity */
    float doubt;
    oct_lines nearest;             /* position + 1/2; scale 1, lift 0 */
    oct_lines chance;              /* of the place: see above; lift OCT_CHANCE_LIFT */
    /* The core's. */
    void *memory;
    int32_t refs;
} oct_map;

#endif
