/* optim_usual.cu - the step of what is usual, near to what a GPU's memory allows: f32 parameters
 * and gradients, all of a rule's states in 8 bits, rounded by chance in maps of lines
 * (kernels/map.h), with a scale for each block (oct_device_work says what else).
 *
 * A block of threads takes some tiles, one after the other. A thread holds the new states of its
 * elements until the absmax of their quantization blocks is known, so that all memory is read once
 * and written once. Reading comes first and codes are written last, since the compiler moves no
 * load above a store. */
#include "kernels/cuda/element.hpp"
#include "kernels/cuda/plugin.hpp"
#include "kernels/cuda/run.hpp"
#include "kernels/cuda/tables.hpp"

enum { TILE = OCT_USUAL_TILE, RUNS = 2, THREADS = TILE / (RUN * RUNS) };
enum { BLOCKS = TILE / OCT_BLOCK_MIN };

typedef struct usual_map {
    float value[OCT_CODES];
    line_tables lines;
} usual_map;

/* What the threads of a block share. */
typedef struct usual_room {
    usual_map map[OCT_STATES];
    alignas(16) uint32_t words[2][TILE / 4];   /* drawn for a tile: four for 16 elements */
    unsigned most[OCT_STATES][BLOCKS];         /* bits of the new absmax */
    float factor[OCT_STATES][BLOCKS];          /* what a block's values are multiplied with */
} usual_room;

/* Where a thread's run begins within the tile. */
INLINE int place_of(int run) { return RUN * (run * THREADS + (int)threadIdx.x); }

INLINE void share_map(usual_map *to, const oct_map *map)
{
    static_assert((int)THREADS >= (int)OCT_CODES, "a thread for each");
    int i = (int)threadIdx.x;
    if (i < OCT_CODES) to->value[i] = map->value[i];
    share_lines(&to->lines, &map->chance);
}

/* ---- a tile ---------------------------------------------------------------------------------- */

/* What a thread has of a tile: parameters, gradients, the codes and scales of the old states, and
 * the new states. */
template <int STATES> struct elements {
    float p[RUNS][RUN], g[RUNS][RUN], scale[STATES][RUNS], x[STATES][RUNS][RUN];
    packed_codes codes[STATES][RUNS];
};

/* The states that are there, a bit each. Only rules of the most states do without some. */
template <int STATES> INLINE unsigned states_of(const oct_optim_slot &s)
{
    unsigned there = 0;
    for (int j = 0; j < STATES; j++)
        if (STATES < OCT_STATES || s.state[j].codes) there |= 1u << j;
    return there;
}

/* first: the tile's first element. */
template <int STATES>
INLINE void read_tile(elements<STATES> *e, const oct_optim_slot &s, unsigned there, int64_t first,
                      int shift)
{
    UNROLL for (int r = 0; r < RUNS; r++) {
        int64_t element = first + place_of(r);
        load_even(e->p[r], (const float *)s.param + element);
        load_even(e->g[r], (const float *)s.grad + element);
        UNROLL for (int j = 0; j < STATES; j++) {
            e->codes[j][r] = 0;
            e->scale[j][r] = 0;
            if (!(there >> j & 1)) continue;
            e->codes[j][r] = *(const packed_codes *)(s.state[j].codes + element);
            e->scale[j][r] = s.state[j].absmax[element >> shift];
        }
    }
}

/* The new parameters, which are written, and states. Returns how many elements take no part. */
template <class RULE, int STATES>
INLINE int step_tile(elements<STATES> *e, const usual_room *room, unsigned there,
                     const oct_numbers &n, int root, float *params)
{
    int left_out = 0;
    UNROLL for (int r = 0; r < RUNS; r++) {
        UNROLL for (int i = 0; i < RUN; i++) {
            float x[OCT_STATES] = {0};
            UNROLL for (int j = 0; j < STATES; j++)
                if (there >> j & 1)
                    x[j] = room->map[j].value[code_of(e->codes[j][r], i)] * e->scale[j][r];
            left_out += !step_element<RULE>(&e->p[r][i], x, e->g[r][i], n, root);
            UNROLL for (int j = 0; j < STATES; j++) e->x[j][r][i] = x[j];
        }
        store_even(params + place_of(r), e->p[r]);
    }
    return left_out;
}

template <int STATES>
INLINE void find_most(usual_room *room, const elements<STATES> &e, unsigned there, int shift,
                      int lanes)
{
    UNROLL for (int j = 0; j < STATES; j++)
        UNROLL for (int r = 0; r < RUNS && (there >> j & 1); r++) {
            unsigned largest = lanes_most(magnitude_of(e.x[j][r]), lanes);
            if (threadIdx.x % (unsigned)lanes == 0)
                atomicMax(&room->most[j][place_of(r) >> shift], largest);
        }
}

/* Each block's scale and factor, and its absmax cleared for the next tile; first: its number. */
template <int STATES>
INLINE void write_scales(usual_room *room, const oct_optim_slot &s, unsigned there, int64_t first,
                         int shift)
{
    static_assert((int)THREADS >= (int)BLOCKS, "a thread for each");
    int i = (int)threadIdx.x;
    if (i >= TILE >> shift) return;
    UNROLL for (int j = 0; j < STATES; j++) {
        if (!(there >> j & 1)) continue;
        float absmax = __uint_as_float(room->most[j][i]), inverse = inverse_of(absmax);
        s.state[j].absmax[first + i] = inverse == 0 ? 0 : absmax;
        room->factor[j][i] = inverse * s.state[j].map->chance.scale;
        room->most[j][i] = 0;
    }
}

template <int STATES>
INLINE void write_codes(elements<STATES> *e, const usual_room *room, const uint32_t *words,
                        const oct_optim_slot &s, unsigned there, int64_t first, int shift)
{
    packed_codes codes[STATES][RUNS];
    uint32_t half_words[RUNS][RUN];
    UNROLL for (int r = 0; r < RUNS; r++) draw_run(half_words[r], words, place_of(r));
    UNROLL for (int j = 0; j < STATES; j++) {
        if (!(there >> j & 1)) continue;
        bool is_signed = s.state[j].map->is_signed != 0;
        UNROLL for (int r = 0; r < RUNS; r++)
            codes[j][r] = codes_by_line(e->x[j][r], room->factor[j][place_of(r) >> shift],
                                        half_words[r], &room->map[j].lines, is_signed);
    }
    UNROLL for (int j = 0; j < STATES; j++)
        UNROLL for (int r = 0; r < RUNS && (there >> j & 1); r++)
            *(packed_codes *)(s.state[j].codes + first + place_of(r)) = codes[j][r];
}

template <class RULE>
__global__ void __launch_bounds__(THREADS, 4)
    usual_kernel(unsigned long long *total, oct_device_work work)
{
    enum { STATES = RULE::STATES };
    SHARED(usual_room, room);
    int64_t slot = slot_of(work.usual_starts, work.slot_count, blockIdx.x);
    const oct_optim_slot &s = work.slots[slot];
    const oct_numbers n = s.numbers;
    unsigned there = states_of<STATES>(s);
    int shift = log2_of(s.block), lanes = lanes_of(s.block), left_out = 0;
    int64_t tile = (blockIdx.x - work.usual_starts[slot]) * OCT_USUAL_TILES;
    int64_t rest = s.size / TILE - tile;
    int tiles = rest < OCT_USUAL_TILES ? (int)rest : OCT_USUAL_TILES;
    UNROLL for (int j = 0; j < STATES; j++) {
        if (there >> j & 1) share_map(room.map + j, s.state[j].map);
        if (threadIdx.x < BLOCKS) room.most[j][threadIdx.x] = 0;
    }
    ONE_BY_ONE for (int k = 0; k < tiles; k++) {
        int64_t first = (tile + k) * TILE;
        uint32_t *words = room.words[k % 2];
        elements<STATES> e;
        read_tile<STATES>(&e, s, there, first, shift);
        if (threadIdx.x < TILE / 16)
            oct_philox(words + 4 * threadIdx.x, s.seed, OCT_STREAM_OPTIMIZER,
                       s.random_offset + (uint64_t)first / 16 + threadIdx.x);
        if (k == 0) __syncthreads();
        left_out += step_tile<RULE, STATES>(&e, &room, there, n, s.root, (float *)s.param + first);
        find_most<STATES>(&room, e, there, shift, lanes);
        __syncthreads();
        write_scales<STATES>(&room, s, there, first >> shift, shift);
        __syncthreads();
        write_codes<STATES>(&e, &room, words, s, there, first, shift);
    }
    if (left_out > 0) atomicAdd(total, (unsigned long long)left_out);
}

#define USUAL_CASE(name)                                                                           \
    case OCT_RULE_##name:                                                                          \
        LAUNCH(usual_kernel<name##_of>, (unsigned)work.usual_blocks, THREADS, cuda_stream(),       \
               total, work);                                                                       \
        break;

void cuda_step_usual(uint64_t *left_out, const oct_device_work *given)
{
    unsigned long long *total = (unsigned long long *)left_out;
    const oct_device_work work = *given;
    switch (work.arithmetic) {
        OCT_FOR_EACH_RULE(USUAL_CASE)
    }
}
