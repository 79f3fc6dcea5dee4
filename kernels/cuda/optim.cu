/* optim.cu - one step of an optimizer on a GPU: one launch for all its parameters.
 *
 * A block of threads takes a tile of a piece. With 8-bit or 4-bit state it goes over the tile
 * twice: for the new absmax of each quantization block, and then, all again, to write parameters
 * and codes; what it reads the second time lies in the cache. A thread takes RUN elements in a row,
 * so that with 4 bits each byte is one thread's.
 *
 * Nothing here is taken from a library of CUDA's: the file also runs on a processor
 * (emulation.hpp). */
#include "kernels/cuda/element.hpp"
#include "kernels/cuda/plugin.hpp"

enum { TILE = OCT_BLOCK_MAX, THREADS = 256, RUN = 4, TILES = OCT_OPTIM_PIECE / TILE };
enum { TILE_BLOCKS = TILE / OCT_BLOCK_MIN, WORDS = TILE / 4, WARP_LANES = 32, ALL_LANES = -1 };
enum { SUMS = 16 }; /* in double, side by side, as the kernels on a processor have */

/* What the threads of a tile share. */
typedef struct tile_room {
    uint32_t state_words[WORDS], param_words[WORDS]; /* drawn */
    float scale[OCT_STATES][TILE_BLOCKS];            /* absmax of the old state */
    unsigned most[OCT_STATES][TILE_BLOCKS];          /* bits of the new state's */
} tile_room;

/* Elements first .. first + count - 1 of a slot; first is a multiple of TILE. */
typedef struct tile {
    int64_t first;
    int count;
} tile;

/* ---- a tile ---------------------------------------------------------------------------------- */

INLINE void draw_words(uint32_t *words, uint64_t seed, uint64_t offset)
{
    for (int i = (int)threadIdx.x; i < WORDS / 4; i += THREADS)
        oct_philox(words + 4 * i, seed, OCT_STREAM_OPTIMIZER, offset + (uint64_t)i);
}

INLINE bool param_draws(const oct_optim_slot &s)
{
    return s.param_format == OCT_NUMBER_BF16 && s.correction_bits != 16;
}

/* Where the scale of the element that is number `at` of the tile lies. */
INLINE int64_t scale_place(const oct_optim_slot &s, tile t, int at)
{
    return s.whole ? 0 : (t.first + at) / s.block;
}

INLINE void prepare_tile(tile_room *room, const oct_optim_slot &s, tile t)
{
    /* Four words for 16 elements. */
    uint64_t block = (uint64_t)t.first / 16;
    if (s.stochastic) draw_words(room->state_words, s.seed, s.random_offset + block);
    if (param_draws(s)) draw_words(room->param_words, s.seed, s.param_random_offset + block);
    if (s.bits == 32) return;
    for (int i = (int)threadIdx.x; i * s.block < t.count; i += THREADS)
        for (int j = 0; j < OCT_STATES; j++)
            if (s.state[j].codes) {
                room->scale[j][i] = s.state[j].absmax[scale_place(s, t, (int)(i * s.block))];
                room->most[j][i] = 0;
            }
}

/* The step of one element from the state that is kept; nothing is written to memory. */
template <rule apply>
INLINE bool compute(float *p, float x[OCT_STATES], const oct_optim_slot &s, int64_t element,
                    const float scale[OCT_STATES])
{
    for (int j = 0; j < OCT_STATES; j++) {
        const oct_slot_state &state = s.state[j];
        x[j] = 0;
        if (state.values) x[j] = state.values[element];
        if (state.codes) x[j] = state.map->value[code_at(state.codes, element, s.bits)] * scale[j];
    }
    *p = param_at(s, element);
    return step_element<apply>(p, x, grad_at(s, element), s);
}

INLINE void scales_of(float scale[OCT_STATES], const tile_room *room, const oct_optim_slot &s,
                      int at)
{
    for (int j = 0; j < OCT_STATES; j++)
        scale[j] = s.state[j].codes ? room->scale[j][at / (int)s.block] : 0;
}

/* The largest of `lanes` neighbouring lanes, a power of two. */
INLINE unsigned lanes_most(unsigned x, int lanes)
{
    for (int other = lanes / 2; other > 0; other /= 2) {
        unsigned y = __shfl_xor_sync((unsigned)ALL_LANES, x, other);
        if (y > x) x = y;
    }
    return x;
}

/* Magnitudes are compared by their bits, which are in the same order. */
template <rule apply> INLINE void find_most(tile_room *room, const oct_optim_slot &s, tile t)
{
    int lanes = s.block / RUN < WARP_LANES ? (int)s.block / RUN : WARP_LANES;
    for (int from = 0; from < t.count; from += RUN * THREADS) {
        int at = from + RUN * (int)threadIdx.x;
        unsigned most[OCT_STATES] = {0};
        float p, x[OCT_STATES], scale[OCT_STATES];
        if (at < t.count) scales_of(scale, room, s, at);
        for (int i = at; i < at + RUN && i < t.count; i++) {
            compute<apply>(&p, x, s, t.first + i, scale);
            for (int j = 0; j < OCT_STATES; j++) {
                unsigned magnitude = __float_as_uint(fabsf(x[j]));
                if (magnitude > most[j]) most[j] = magnitude;
            }
        }
        for (int j = 0; j < OCT_STATES; j++) {
            if (!s.state[j].codes) continue;
            unsigned largest = lanes_most(most[j], lanes);
            if (threadIdx.x % lanes == 0 && at < t.count)
                atomicMax(&room->most[j][at / (int)s.block], largest);
        }
    }
}

INLINE int code_of(float x, float absmax, const oct_optim_slot &s, const oct_map *map,
                   const uint32_t *group_words, int64_t element)
{
    float inverse = inverse_of(absmax);
    if (!s.stochastic) return code_nearest(x * inverse, map);
    uint32_t draw = draw_of(group_words, element);
    return map->has_lines ? code_by_line(x, inverse * map->chance.scale, draw, map)
                          : code_by_gap(x * inverse, one_and_draw(draw), map);
}

/* Parameters, states, and the new scales. Returns how many of the thread's elements take no part.
 */
template <rule apply> INLINE int write_tile(const tile_room *room, const oct_optim_slot &s, tile t)
{
    int left_out = 0;
    for (int at = RUN * (int)threadIdx.x; at < t.count; at += RUN * THREADS)
        for (int i = at; i < at + RUN && i < t.count; i++) {
            int64_t element = t.first + i;
            float p, x[OCT_STATES], scale[OCT_STATES];
            scales_of(scale, room, s, i);
            left_out += !compute<apply>(&p, x, s, element, scale);
            const uint32_t *state_words = room->state_words + i / 64 * 16;
            const uint32_t *param_words = room->param_words + i / 64 * 16;
            set_param(s, element, p, param_draws(s) ? draw_of(param_words, element) : 0);
            for (int j = 0; j < OCT_STATES; j++) {
                const oct_slot_state &state = s.state[j];
                if (state.values) state.values[element] = x[j];
                if (!state.codes) continue;
                float absmax =
                    s.whole ? s.next_absmax[j] : __uint_as_float(room->most[j][i / (int)s.block]);
                set_code(state.codes, element,
                         code_of(x[j], absmax, s, state.map, state_words, element), s.bits);
                if (!s.whole && i % s.block == 0)
                    state.absmax[element / s.block] = inverse_of(absmax) == 0 ? 0 : absmax;
            }
        }
    return left_out;
}

template <rule apply> INLINE int step_tile(tile_room *room, const oct_optim_slot &s, tile t)
{
    prepare_tile(room, s, t);
    __syncthreads();
    if (s.bits != 32 && !s.whole) {
        find_most<apply>(room, s, t);
        __syncthreads();
    }
    return write_tile<apply>(room, s, t);
}

#define STEP_CASE(name)                                                                            \
    case OCT_RULE_##name:                                                                          \
        left_out = step_tile<name##_rule>(&room, s, t);                                            \
        break;

__global__ void __launch_bounds__(THREADS)
    step_kernel(unsigned long long *total, oct_device_work work)
{
    SHARED(tile_room, room);
    const oct_optim_piece piece = work.pieces[blockIdx.x / TILES];
    int64_t from = (int64_t)(blockIdx.x % TILES) * TILE, rest = piece.count - from;
    if (rest <= 0) return;
    const oct_optim_slot s = work.slots[piece.slot];
    tile t = {piece.first + from, rest < TILE ? (int)rest : TILE};
    int left_out = 0;
    switch (s.arithmetic) {
        OCT_FOR_EACH_RULE(STEP_CASE)
    }
    if (left_out > 0) atomicAdd(total, (unsigned long long)left_out);
}

/* ---- sums of squares ------------------------------------------------------------------------- */

/* Of SUMS neighbouring lanes, folded by halves, in each of them. */
INLINE double fold(double sum)
{
    for (int half = SUMS / 2; half > 0; half /= 2)
        sum += __shfl_xor_sync((unsigned)ALL_LANES, sum, half);
    return sum;
}

INLINE double square_of(float x) { return fabsf(x) < INFINITY ? (double)x * (double)x : 0; }

enum { CHUNK = 4096, CHUNKS = OCT_OPTIM_PIECE / CHUNK };

typedef struct squares_room {
    double chunk[CHUNKS];
} squares_room;

/* A block of threads takes a piece, SUMS threads of it a chunk. */
__global__ void __launch_bounds__(CHUNKS *SUMS)
    squares_kernel(double *sums, unsigned long long *total, oct_device_work work, int of_params)
{
    SHARED(squares_room, room);
    const oct_optim_piece piece = work.pieces[blockIdx.x];
    const oct_optim_slot s = work.slots[piece.slot];
    int chunk = (int)threadIdx.x / SUMS, not_finite = 0;
    int64_t from = (int64_t)chunk * CHUNK,
            to = from + CHUNK < piece.count ? from + CHUNK : piece.count;
    double sum = 0;
    for (int64_t i = from + threadIdx.x % SUMS; i < to; i += SUMS) {
        float x = of_params ? param_at(s, piece.first + i) : grad_at(s, piece.first + i);
        not_finite += !(fabsf(x) < INFINITY);
        sum += square_of(x);
    }
    sum = fold(sum);
    if (threadIdx.x % SUMS == 0) room.chunk[chunk] = sum;
    if (not_finite > 0) atomicAdd(total, (unsigned long long)not_finite);
    __syncthreads();
    if (threadIdx.x != 0) return;
    double all = 0;
    for (int i = 0; (int64_t)i * CHUNK < piece.count; i++) all += room.chunk[i];
    sums[blockIdx.x] = all;
}

/* ---- a first pass ---------------------------------------------------------------------------- */

enum { AT_ONCE = THREADS / SUMS }; /* quantization blocks of which sums are made */

typedef struct measure_room {
    double params[AT_ONCE], others[AT_ONCE];
    unsigned most[OCT_STATES];
} measure_room;

/* Numbers that make a direction of the parameter's place. */
INLINE oct_optim_slot for_directions(const oct_optim_slot &given)
{
    oct_optim_slot s = given;
    s.numbers.keep = 0;
    s.numbers.step = -1;
    return s;
}

/* `block`: of the piece; at: the thread's sums. */
template <rule apply>
INLINE void measure_block(double *params, double *others, float most[OCT_STATES],
                          const oct_optim_slot &s, const oct_optim_piece &piece, int64_t block)
{
    int64_t from = block * s.block,
            to = from + s.block < piece.count ? from + s.block : piece.count;
    for (int64_t i = from + threadIdx.x % SUMS; i < to; i += SUMS) {
        int64_t element = piece.first + i;
        float p, x[OCT_STATES], scale[OCT_STATES];
        for (int j = 0; j < OCT_STATES; j++)
            scale[j] = s.state[j].codes ? s.state[j].absmax[s.whole ? 0 : element / s.block] : 0;
        *params += square_of(param_at(s, element));
        if (!compute<apply>(&p, x, s, element, scale)) p = 0;
        *others += square_of(p);
        for (int j = 0; j < OCT_STATES; j++)
            if (s.state[j].codes && fabsf(x[j]) > most[j]) most[j] = fabsf(x[j]);
    }
}

template <rule apply>
INLINE void measure_piece(oct_optim_measure *m, measure_room *room, const oct_optim_slot &s,
                          const oct_optim_piece &piece)
{
    int own = (int)threadIdx.x / SUMS;
    int64_t blocks = (piece.count + s.block - 1) / s.block;
    double params = 0, others = 0;
    float most[OCT_STATES] = {0};
    if (threadIdx.x < OCT_STATES) room->most[threadIdx.x] = 0;
    for (int64_t from = 0; from < blocks; from += AT_ONCE) {
        double own_params = 0, own_others = 0;
        measure_block<apply>(&own_params, &own_others, most, s, piece, from + own);
        own_params = fold(own_params);
        own_others = fold(own_others);
        if (threadIdx.x % SUMS == 0) {
            room->params[own] = own_params;
            room->others[own] = own_others;
        }
        __syncthreads();
        for (int i = 0; threadIdx.x == 0 && i < AT_ONCE && from + i < blocks; i++) {
            params += room->params[i];
            others += room->others[i];
        }
        __syncthreads();
    }
    for (int j = 0; j < OCT_STATES; j++) atomicMax(&room->most[j], __float_as_uint(most[j]));
    __syncthreads();
    if (threadIdx.x != 0) return;
    m->param_squares = params;
    m->other_squares = others;
    for (int j = 0; j < OCT_STATES; j++) m->absmax[j] = __uint_as_float(room->most[j]);
}

#define MEASURE_CASE(name)                                                                         \
    case OCT_RULE_##name:                                                                          \
        measure_piece<name##_rule>(measures + blockIdx.x, &room, s, piece);                        \
        break;

__global__ void __launch_bounds__(THREADS)
    measure_kernel(oct_optim_measure *measures, oct_device_work work)
{
    SHARED(measure_room, room);
    const oct_optim_piece piece = work.pieces[blockIdx.x];
    const oct_optim_slot s = for_directions(work.slots[piece.slot]);
    switch (s.arithmetic) {
        OCT_FOR_EACH_RULE(MEASURE_CASE)
    }
}

/* ---- host side ------------------------------------------------------------------------------- */

/* After a launch: it has run, and nothing went wrong. */
static int finish()
{
    CUDA_TRY(cudaGetLastError(), "launching a step");
    CUDA_TRY(cudaDeviceSynchronize(), "a step");
    return 0;
}

int cuda_optim_step(uint64_t *left_out, const oct_device_work *work)
{
    LAUNCH(step_kernel, (unsigned)(work->piece_count * TILES), THREADS,
           (unsigned long long *)left_out, *work);
    return finish();
}

int cuda_optim_measure(oct_optim_measure *measures, const oct_device_work *work)
{
    LAUNCH(measure_kernel, (unsigned)work->piece_count, THREADS, measures, *work);
    return finish();
}

int cuda_optim_squares(double *sums, uint64_t *left_out, const oct_device_work *work, int of_params)
{
    LAUNCH(squares_kernel, (unsigned)work->piece_count, CHUNKS * SUMS, sums,
           (unsigned long long *)left_out, *work, of_params);
    return finish();
}
