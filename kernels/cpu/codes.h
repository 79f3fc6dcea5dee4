/* codes.h - codes to values and values to codes, GROUP elements at a time.
 *
 * The tables are those of kernels/map.h; optim_ref.c says the same in plain words.
 *
 * Decoding is a look-up in 256 floats. Three ways, by what the processor has: AVX-512 VBMI looks up
 * 64 bytes at once, so a float is put together from its four bytes (4 cycles for 16 elements on
 * Zen 5); AVX-512 without it goes through 8 two-register look-ups (7); AVX2 gathers. */
#ifndef OCT_CODES_H
#define OCT_CODES_H
#include <string.h>

#include "core/octet.h"
#include "kernels/cpu/philox.h"
#include "kernels/map.h"

enum { GROUP = 64, VECTORS = GROUP / LANES };

#if defined(OCT_ISA_avx512)
INLINE int vm_count(vm m) { return __builtin_popcount(m); }
#else
INLINE int vm_count(vm m) { return __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)m)); }
#endif

/* ---- decoding -------------------------------------------------------------------------------- */

#if defined(OCT_ISA_avx512)

/* Word 4 i + k of 16 goes to 4 k + i. */
#define FOUR_BY_FOUR _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)

/* table[code % 128] for 64 codes. By name, since this file is compiled for processors without VBMI
 * too, and an intrinsic of VBMI can only stand in functions that are not. */
INLINE __m512i look_up_bytes(const uint8_t *table, __m512i code)
{
    __m512i bytes = _mm512_loadu_si512(table);
    __asm__("vpermt2b %2, %1, %0"
            : "+v"(bytes) : "v"(code), "m"(*(const __m512i *)(table + 64)));
    return bytes;
}

/* For each lane of 128 bits, unpacking bytes and then words takes four codes to four floats. Codes
 * are first moved so that these four floats come out in their order. */
INLINE void decode_bytes(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    __m512i code = _mm512_permutexvar_epi32(FOUR_BY_FOUR, _mm512_loadu_si512(codes)), byte[4];
    __mmask64 upper = _mm512_movepi8_mask(code);
    for (int b = 0; b < 4; b++) {
        byte[b] = _mm512_mask_mov_epi8(look_up_bytes(map->plane[b], code), upper,
                                       look_up_bytes(map->plane[b] + 128, code));
    }
    __m512i low01 = _mm512_unpacklo_epi8(byte[0], byte[1]);
    __m512i high01 = _mm512_unpackhi_epi8(byte[0], byte[1]);
    __m512i low23 = _mm512_unpacklo_epi8(byte[2], byte[3]);
    __m512i high23 = _mm512_unpackhi_epi8(byte[2], byte[3]);
    x[0] = (vf)_mm512_unpacklo_epi16(low01, low23);
    x[1] = (vf)_mm512_unpackhi_epi16(low01, low23);
    x[2] = (vf)_mm512_unpacklo_epi16(high01, high23);
    x[3] = (vf)_mm512_unpackhi_epi16(high01, high23);
}

INLINE void decode_chain(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    for (int v = 0; v < VECTORS; v++) {
        __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + v * LANES)));
        __mmask16 bit5 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(32));
        __mmask16 bit6 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(64));
        __mmask16 bit7 = _mm512_test_epi32_mask(code, _mm512_set1_epi32(128));
        __m512 part[8];
        for (int i = 0; i < 8; i++)
            part[i] = _mm512_permutex2var_ps(_mm512_loadu_ps(map->value + 32 * i), code,
                                             _mm512_loadu_ps(map->value + 32 * i + 16));
        for (int i = 0; i < 8; i += 2) part[i] = _mm512_mask_mov_ps(part[i], bit5, part[i + 1]);
        for (int i = 0; i < 8; i += 4) part[i] = _mm512_mask_mov_ps(part[i], bit6, part[i + 2]);
        x[v] = (vf)_mm512_mask_mov_ps(part[0], bit7, part[4]);
    }
}

#else

INLINE void decode_gather(vf x[VECTORS], const uint8_t *codes, const oct_map *map)
{
    for (int v = 0; v < VECTORS; v++) {
        __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + v * LANES)));
        x[v] = (vf)_mm256_i32gather_ps(map->value, code, 4);
    }
}

#endif

/* ---- encoding -------------------------------------------------------------------------------- */

/* The line of the segment that a magnitude lies in. */
typedef struct line { vf slope, offset; } line;

/* Below this, positions are all alike: nearest to 0. */
#define OCTAVE_LEAST 0x1p-23f

#if defined(OCT_ISA_avx512)

/* max(|a|, |b|), min(|a|, |b|) */
INLINE vf greater_magnitude(vf a, vf b) { return (vf)_mm512_range_ps((__m512)a, (__m512)b, 11); }
INLINE vf lesser_magnitude(vf a, vf b) { return (vf)_mm512_range_ps((__m512)a, (__m512)b, 10); }
/* Distance to the nearest whole number, signed. */
INLINE vf from_whole(vf x) { return (vf)_mm512_reduce_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT); }
INLINE vi truncated(vf x) { return (vi)_mm512_cvttps_epi32((__m512)x); }
INLINE vf look_up(const float *table, vi at)
{
    return (vf)_mm512_i32gather_ps((__m512i)at, table, 4);
}
/* `magnitude`, not negative, with the sign that x has not. */
INLINE vf with_other_sign(vf magnitude, vf x)
{
    return (vf)_mm512_ternarylogic_epi32((__m512i)magnitude, (__m512i)x,
                                         _mm512_set1_epi32((int)0x80000000), 0xF2);
}

/* Tables by which lines are found, held in registers over a block: read from memory they would cost
 * more than all else in encoding. The empty instruction keeps the compiler from reading them again.
 */
#define IN_REGISTER(x) __asm__("" : "+v"(x))

typedef struct tables {
    __m512 first[2], second[2], end, slope, offset;
    __m512i segment[2];            /* of octaves, or of cells, as bytes */
} tables;

INLINE tables tables_of(const oct_lines *lines, int cells)
{
    tables t;
    for (int i = 0; i < 2; i++) {
        if (cells) {
            t.segment[i] = _mm512_loadu_si512(lines->cell_segment + 64 * i);
        } else {
            t.segment[i] = _mm512_loadu_si512(lines->octave_segment + 16 * i);
            t.first[i] = _mm512_loadu_ps(lines->octave_first + 16 * i);
            t.second[i] = _mm512_loadu_ps(lines->octave_second + 16 * i);
            IN_REGISTER(t.first[i]);
            IN_REGISTER(t.second[i]);
        }
        IN_REGISTER(t.segment[i]);
    }
    t.end = _mm512_loadu_ps(lines->end);
    t.slope = _mm512_loadu_ps(lines->slope);
    t.offset = _mm512_loadu_ps(lines->offset);
    if (cells) IN_REGISTER(t.end);
    IN_REGISTER(t.slope);
    IN_REGISTER(t.offset);
    return t;
}

/* `magnitude` is OCTAVE_LEAST or more. cells 1: by AVX-512 VBMI. */
INLINE line line_of(vf magnitude, const tables *t, int cells)
{
    const __m512i one = _mm512_set1_epi32(1);
    __m512 y = (__m512)magnitude;
    __m512i segment;
    if (cells) {
        /* The lowest byte of each lane counts; a look-up of floats reads 4 bits of it. */
        segment = _mm512_srli_epi32((__m512i)magnitude, 21);
        __asm__("vpermi2b %2, %1, %0" : "+v"(segment) : "v"(t->segment[0]), "v"(t->segment[1]));
        __m512 end = _mm512_permutexvar_ps(segment, t->end);
        __mmask16 past = _mm512_cmp_ps_mask(y, end, _CMP_GE_OQ);
        segment = _mm512_mask_add_epi32(segment, past, segment, one);
    } else {
        __m512i octave = _mm512_srli_epi32((__m512i)magnitude, 23);
        __m512 first = _mm512_permutex2var_ps(t->first[0], octave, t->first[1]);
        __m512 second = _mm512_permutex2var_ps(t->second[0], octave, t->second[1]);
        segment = _mm512_permutex2var_epi32(t->segment[0], octave, t->segment[1]);
        __mmask16 past_first = _mm512_cmp_ps_mask(y, first, _CMP_GE_OQ);
        __mmask16 past_second = _mm512_cmp_ps_mask(y, second, _CMP_GE_OQ);
        segment = _mm512_mask_add_epi32(segment, past_first, segment, one);
        segment = _mm512_mask_add_epi32(segment, past_second, segment, one);
    }
    return (line){(vf)_mm512_permutexvar_ps(segment, t->slope),
                  (vf)_mm512_permutexvar_ps(segment, t->offset)};
}

INLINE __m512i packed_words(const vi *x)
{
    return _mm512_packs_epi32((__m512i)x[0], (__m512i)x[1]);
}
INLINE void store_signed(uint8_t *codes, const vi x[VECTORS])
{
    __m512i bytes = _mm512_packs_epi16(packed_words(x), packed_words(x + 2));
    bytes = _mm512_xor_si512(_mm512_permutexvar_epi32(FOUR_BY_FOUR, bytes), _mm512_set1_epi8(0x7F));
    _mm512_storeu_si512(codes, bytes);
}
INLINE void store_unsigned(uint8_t *codes, const vi x[VECTORS])
{
    __m512i bytes = _mm512_packus_epi16(packed_words(x), packed_words(x + 2));
    _mm512_storeu_si512(codes, _mm512_permutexvar_epi32(FOUR_BY_FOUR, bytes));
}

#else

INLINE vf greater_magnitude(vf a, vf b) { return vf_max(vf_abs(a), vf_abs(b)); }
INLINE vf lesser_magnitude(vf a, vf b) { return vf_min(vf_abs(a), vf_abs(b)); }
INLINE vf from_whole(vf x)
{
    return x - (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vi truncated(vf x) { return (vi)_mm256_cvttps_epi32((__m256)x); }
INLINE vf look_up(const float *table, vi at)
{
    return (vf)_mm256_i32gather_ps(table, (__m256i)at, 4);
}
INLINE vf with_other_sign(vf magnitude, vf x)
{
    return (vf)((vi)magnitude | (~(vi)x & (int32_t)0x80000000));
}

typedef struct tables { const float *start, *slope, *offset; } tables;

INLINE tables tables_of(const oct_lines *lines, int cells)
{
    return (tables){lines->start, lines->slope, lines->offset};
}

INLINE line line_of(vf magnitude, const tables *t, int cells)
{
    vi segment = {0};
    for (int s = 1; s < OCT_SEGMENTS; s++) segment -= (vi)(magnitude >= vf_all(t->start[s]));
    return (line){look_up(t->slope, segment), look_up(t->offset, segment)};
}

INLINE __m256i packed_words(const vi *x)
{
    return _mm256_packs_epi32((__m256i)x[0], (__m256i)x[1]);
}
INLINE void store_bytes(uint8_t *codes, __m256i bytes)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)codes, _mm256_permutevar8x32_epi32(bytes, order));
}
INLINE void store_signed(uint8_t *codes, const vi x[VECTORS])
{
    for (int v = 0; v < VECTORS; v += 4) {
        __m256i bytes = _mm256_packs_epi16(packed_words(x + v), packed_words(x + v + 2));
        store_bytes(codes + v * LANES, _mm256_xor_si256(bytes, _mm256_set1_epi8(0x7F)));
    }
}
INLINE void store_unsigned(uint8_t *codes, const vi x[VECTORS])
{
    for (int v = 0; v < VECTORS; v += 4)
        store_bytes(codes + v * LANES,
                    _mm256_packus_epi16(packed_words(x + v), packed_words(x + v + 2)));
}

#endif

/* The draws of vector v of a group, from the group's 16 words, as floats in (1, 2): optim_ref.c. */
INLINE vf one_and_draws(const uint32_t *words, int v)
{
    int element = v * LANES, left = (7 - element / 16 * 8) & 31;
    vu w;
    memcpy(&w, words + element % 16, sizeof w);
    w = w << left | w >> (32 - left);
    return (vf)((w & 0x7FFF80u) | 0x3F800040u);
}

/* x, which is not negative and below 1,000, where y is not 0, else 0: y's bits are many more. */
INLINE vi unless_zero(vi x, vf y)
{
#if defined(OCT_ISA_avx512)
    return (vi)_mm512_min_epu32((__m512i)x, (__m512i)y);
#else
    return (vi)_mm256_min_epu32((__m256i)x, (__m256i)y);
#endif
}

/* A whole position as the code's place: signed maps run the other way here, from which 127 - x, the
 * saturated byte, is the code. So entry 128 with a minus becomes 127, which is the last there is.
 */
INLINE vi placed(vf position, vf x, int is_signed)
{
    return truncated(is_signed ? with_other_sign(position, x) : position);
}

INLINE void store_codes(uint8_t *codes, const vi places[VECTORS], int is_signed)
{
    if (is_signed) store_signed(codes, places);
    else store_unsigned(codes, places);
}

/* Positions that lie in doubt: the bound decides. */
static __attribute__((noinline, cold)) void
encode_doubtful(uint8_t *codes, const float *x, float inverse, const oct_map *map)
{
    tables t = tables_of(&map->nearest, 0);
    vi places[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        vf scaled = vf_load(x + v * LANES) * inverse;
        vf magnitude = greater_magnitude(scaled, vf_all(OCTAVE_LEAST));
        line l = line_of(magnitude, &t, 0);
        vf position = vf_fma(magnitude, l.slope, l.offset), distance = vf_abs(from_whole(position));
        vi upper = vf_to_int(position);                        /* the whole number next to it */
        vi exact = upper + (vi)(magnitude < look_up(map->bound, upper));
        position = vf_select(vf_less(vf_all(map->doubt), distance), position, vi_to_float(exact));
        places[v] = placed(position, scaled, map->is_signed);
    }
    store_codes(codes, places, map->is_signed);
}

/* x[count] times `inverse`, nearest; count is a multiple of GROUP. Doubt is a matter of one element
 * in some ten thousand. */
INLINE void encode_nearest(uint8_t *codes, const float *x, int64_t count, float inverse,
                           const oct_map *map, int is_signed)
{
    tables t = tables_of(&map->nearest, 0);
    for (int64_t i = 0; i < count; i += GROUP) {
        vf least = vf_all(1);
        vi places[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            vf scaled = vf_load(x + i + v * LANES) * inverse;
            vf magnitude = greater_magnitude(scaled, vf_all(OCTAVE_LEAST));
            line l = line_of(magnitude, &t, 0);
            vf position = vf_fma(magnitude, l.slope, l.offset);
            least = lesser_magnitude(least, from_whole(position));
            places[v] = placed(position, scaled, is_signed);
        }
        store_codes(codes + i, places, is_signed);
        if (__builtin_expect(vm_any(vf_less(least, vf_all(map->doubt))), 0))
            encode_doubtful(codes + i, x + i, inverse, map);
    }
}

/* first[count] and second[count] times their inverses, to one of the two neighbours by the draw, in
 * a signed and an unsigned map. */
INLINE void encode_by_chance(uint8_t *first_codes, uint8_t *second_codes, const float *first,
                             const float *second, int64_t count, float first_inverse,
                             float second_inverse, const uint32_t *words,
                             const oct_map *first_map, const oct_map *second_map, int cells)
{
    tables t = tables_of(&first_map->chance, cells), u = tables_of(&second_map->chance, cells);
    vf first_factor = vf_all(first_inverse * first_map->chance.scale);
    vf second_factor = vf_all(second_inverse * second_map->chance.scale);
    for (int64_t i = 0; i < count; i += GROUP) {
        vi first_places[VECTORS], second_places[VECTORS];
        #pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) {
            vf draw = one_and_draws(words + i / 4, v);
            vf x = vf_load(first + i + v * LANES) * first_factor;
            vf y = vf_load(second + i + v * LANES) * second_factor;
            vf a = greater_magnitude(x, vf_all(OCTAVE_LEAST));
            vf b = greater_magnitude(y, vf_all(OCTAVE_LEAST));
            line l = line_of(a, &t, cells), m = line_of(b, &u, cells);
            first_places[v] = placed(vf_fma(a, l.slope, l.offset) + draw, x, 1);
            second_places[v] = unless_zero(truncated(vf_fma(b, m.slope, m.offset) + draw), y);
        }
        store_signed(first_codes + i, first_places);
        store_unsigned(second_codes + i, second_places);
    }
}

/* ---- draws ----------------------------------------------------------------------------------- */

/* The keys of Philox's rounds (kernels/cpu/philox.h), in every lane. */
typedef struct round_keys { vq low[10], high[10]; } round_keys;

INLINE void prepare_keys(round_keys *keys, uint64_t seed)
{
    uint32_t low = (uint32_t)seed, high = (uint32_t)(seed >> 32);
    for (int r = 0; r < 10; r++, low += 0x9E3779B9u, high += 0xBB67AE85u) {
        keys->low[r] = vq_all(low);
        keys->high[r] = vq_all(high);
    }
}

/* Words drawn at once: two chains of products side by side, since one waits for itself. */
enum { CHAINS = 2, DRAWN = CHAINS * 4 * BLOCKS };

/* `count` words, rounded up to a multiple of DRAWN, from block `offset` of the optimizer's stream
 * on. */
INLINE void draw(uint32_t *words, int64_t count, const round_keys *keys, uint64_t offset)
{
    const vq low_half = vq_all(0xFFFFFFFFu);
    for (int64_t i = 0; i < count; i += DRAWN, offset += CHAINS * BLOCKS) {
        vq c0[CHAINS], c1[CHAINS], c2[CHAINS], c3[CHAINS];
        for (int c = 0; c < CHAINS; c++) {
            c0[c] = vq_all(offset + (uint64_t)c * BLOCKS) + BLOCK_OF_LANE;
            c1[c] = c0[c] >> 32;
            c2[c] = vq_all(OCT_STREAM_OPTIMIZER);
            c3[c] = vq_all(0);
        }
        #pragma GCC unroll 10
        for (int r = 0; r < 10; r++)
            for (int c = 0; c < CHAINS; c++) {
                vq p0 = vq_multiply(c0[c], vq_all(0xD2511F53u));
                vq p1 = vq_multiply(c2[c], vq_all(0xCD9E8D57u));
                c0[c] = (p1 >> 32) ^ c1[c] ^ keys->low[r];
                c1[c] = p1;
                c2[c] = (p0 >> 32) ^ c3[c] ^ keys->high[r];
                c3[c] = p0;
            }
        for (int c = 0; c < CHAINS; c++) {
            vq words01 = (c0[c] & low_half) | (c1[c] << 32);
            vq words23 = (c2[c] & low_half) | (c3[c] << 32);
            vu ordered[2] = {interleave_low(words01, words23), interleave_high(words01, words23)};
            memcpy(words + i + c * 4 * BLOCKS, ordered, sizeof ordered);
        }
    }
}

#endif
