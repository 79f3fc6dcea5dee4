/* optim.cu - one step of an optimizer on a GPU, all its parameters in one launch, or two: what is
 * usual has a kernel of its own (optim_usual.cu). And the sums that a step may need first.
 *
 * A block of threads takes a tile of a slot, and each thread runs of it (run.hpp). With 8-bit or
 * 4-bit state it goes over the tile twice: for the new absmax of each quantization block, and then,
 * all again, to write parameters and codes; what it reads the second time lies in the cache.
 *
 * Nothing here is taken from a library of CUDA's: the file also runs on a processor
 * (emulation.hpp). */
#include "kernels/cuda/element.hpp"
#include "kernels/cuda/plugin.hpp"
#include "kernels/cuda/run.hpp"
#include "kernels/cuda/tables.hpp"

enum { THREADS = 256, TILE = OCT_OTHER_TILE };
enum { STRIDE = RUN * THREADS, TILE_BLOCKS = TILE / OCT_BLOCK_MIN };
enum { SUMS = 16 }; /* in double, side by side, as the kernels on a processor have */

/* What the threads of a tile share. */
typedef struct tile_room {
    oct_optim_slot slot;
    map_tables map[OCT_STATES];
    /* Drawn, four for 16 elements. */
    alignas(16) uint32_t state_words[TILE / 4], param_words[TILE / 4];
    float scale[OCT_STATES][TILE_BLOCKS];   /* absmax of the old state */
    unsigned most[OCT_STATES][TILE_BLOCKS]; /* bits of the new state's */
} tile_room;

/* Elements first .. first + count - 1 of a slot. */
typedef struct tile {
    int64_t first;
    int count;
} tile;

/* ---- what is shared -------------------------------------------------------------------------- */

INLINE void share_slot(oct_optim_slot *to, const oct_optim_slot *from)
{
    enum { SLOT_WORDS = sizeof *to / sizeof(uint32_t) };
    for (int i = (int)threadIdx.x; i < SLOT_WORDS; i += THREADS)
        ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
}

INLINE void draw_words(uint32_t *words, uint64_t seed, uint64_t offset)
{
    for (int i = (int)threadIdx.x; i < TILE / 16; i += THREADS)
        oct_philox(words + 4 * i, seed, OCT_STREAM_OPTIMIZER, offset + (uint64_t)i);
}

INLINE bool param_draws(const oct_optim_slot &s)
{
    return s.param_format == OCT_NUMBER_BF16 && s.correction_bits != 16;
}

/* Where an element's scale lies. */
INLINE int64_t scale_place(const oct_optim_slot &s, int64_t element)
{
    return s.whole ? 0 : element >> log2_of(s.block);
}

INLINE void share_tile(tile_room *room, tile t)
{
    static_assert((int)THREADS >= (int)OCT_CODES, "a thread for each");
    const oct_optim_slot &s = room->slot;
    uint64_t block = (uint64_t)t.first / 16; /* four words for 16 elements */
    for (int j = 0; j < OCT_STATES; j++) {
        if (!s.state[j].codes) continue;
        share_tables(room->map + j, s.state[j].map, s.stochastic);
        for (int i = (int)threadIdx.x; i << log2_of(s.block) < t.count; i += THREADS) {
            int64_t element = t.first + ((int64_t)i << log2_of(s.block));
            room->scale[j][i] = s.state[j].absmax[scale_place(s, element)];
            room->most[j][i] = 0;
        }
    }
    if (s.stochastic) draw_words(room->state_words, s.seed, s.random_offset + block);
    if (param_draws(s)) draw_words(room->param_words, s.seed, s.param_random_offset + block);
}

/* ---- a tile ---------------------------------------------------------------------------------- */

/* A run as it will be, and how many of its elements take no part. */
template <int STATES> struct stepped_run {
    float p[RUN], x[STATES][RUN];
    int left_out;
};

/* The step of the run that begins at `at`; nothing is written to memory. */
template <class RULE, int STATES>
INLINE void step_run(stepped_run<STATES> *run, const tile_room *room, tile t, int at)
{
    const oct_optim_slot &s = room->slot;
    int64_t first = t.first + at;
    int count = t.count - at, root = s.bits != 32 && s.root;
    float g[RUN];
    load_params(run->p, s, first, count);
    load_grads(g, s, first, count);
    UNROLL for (int j = 0; j < STATES; j++) {
        const oct_slot_state &state = s.state[j];
        UNROLL for (int i = 0; i < RUN; i++) run->x[j][i] = 0;
        if (state.values) load_run(run->x[j], state.values, first, count);
        if (!state.codes || count <= 0) continue;
        packed_codes codes = load_codes(state.codes, s.bits, first, count);
        float scale = room->scale[j][at >> log2_of(s.block)];
        UNROLL for (int i = 0; i < RUN; i++)
            run->x[j][i] = room->map[j].value[code_of(codes, i)] * scale;
    }
    run->left_out = 0;
    UNROLL for (int i = 0; i < RUN; i++) {
        float x[OCT_STATES] = {0};
        UNROLL for (int j = 0; j < STATES; j++) x[j] = run->x[j][i];
        bool takes_part = step_element<RULE>(run->p + i, x, g[i], s.numbers, root);
        run->left_out += !takes_part && i < count;
        UNROLL for (int j = 0; j < STATES; j++) run->x[j][i] = i < count ? x[j] : 0;
    }
}

/* The absmax of each quantization block. All lanes of a warp take part, beyond the tile's end too.
 */
template <class RULE, int STATES> INLINE void find_most(tile_room *room, tile t)
{
    int shift = log2_of(room->slot.block), lanes = lanes_of(room->slot.block);
    for (int from = 0; from < t.count; from += STRIDE) {
        int at = from + RUN * (int)threadIdx.x;
        stepped_run<STATES> run;
        step_run<RULE, STATES>(&run, room, t, at);
        UNROLL for (int j = 0; j < STATES; j++) {
            if (!room->slot.state[j].codes) continue;
            unsigned largest = lanes_most(magnitude_of(run.x[j]), lanes);
            if (threadIdx.x % (unsigned)lanes == 0)
                atomicMax(&room->most[j][at >> shift], largest);
        }
    }
}

/* Parameters, states, and the new scales. Returns how many of the thread's elements take no part.
 */
template <class RULE, int STATES> INLINE int write_tile(const tile_room *room, tile t)
{
    const oct_optim_slot &s = room->slot;
    int left_out = 0, shift = log2_of(s.block);
    for (int at = RUN * (int)threadIdx.x; at < t.count; at += STRIDE) {
        int64_t first = t.first + at;
        int count = t.count - at;
        uint32_t half_words[RUN] = {0};
        stepped_run<STATES> run;
        step_run<RULE, STATES>(&run, room, t, at);
        left_out += run.left_out;
        if (param_draws(s)) draw_run(half_words, room->param_words, at);
        store_params(s, first, count, run.p, half_words);
        if (s.stochastic) draw_run(half_words, room->state_words, at);
        UNROLL for (int j = 0; j < STATES; j++) {
            const oct_slot_state &state = s.state[j];
            if (state.values) store_run(state.values, first, count, run.x[j]);
            if (!state.codes) continue;
            float absmax = s.whole ? s.next_absmax[j] : __uint_as_float(room->most[j][at >> shift]);
            float inverse = inverse_of(absmax);
            store_codes(state.codes, s.bits, first, count,
                        codes_in(room->map + j, run.x[j], inverse, half_words));
            if (!s.whole && at % (int)s.block == 0)
                state.absmax[first >> shift] = inverse == 0 ? 0 : absmax;
        }
    }
    return left_out;
}

/* The tile of this block of threads: behind the slot's usual elements. */
INLINE tile tile_of(int64_t size, const oct_device_work &work, int64_t slot)
{
    bool is_usual = work.usual_starts[slot + 1] > work.usual_starts[slot];
    int64_t usual = is_usual ? size / OCT_USUAL_TILE * OCT_USUAL_TILE : 0;
    int64_t first = usual + (blockIdx.x - work.other_starts[slot]) * TILE, rest = size - first;
    return {first, rest < TILE ? (int)rest : TILE};
}

template <class RULE>
__global__ void __launch_bounds__(THREADS)
    step_kernel(unsigned long long *total, oct_device_work work)
{
    enum { STATES = RULE::STATES > 0 ? RULE::STATES : 1 };
    SHARED(tile_room, room);
    int64_t slot = slot_of(work.other_starts, work.slot_count, blockIdx.x);
    share_slot(&room.slot, work.slots + slot);
    __syncthreads();
    tile t = tile_of(room.slot.size, work, slot);
    share_tile(&room, t);
    __syncthreads();
    if (room.slot.bits != 32 && !room.slot.whole) {
        find_most<RULE, STATES>(&room, t);
        __syncthreads();
    }
    int left_out = write_tile<RULE, STATES>(&room, t);
    if (left_out > 0) atomicAdd(total, (unsigned long long)left_out);
}

/* ---- sums of squares ------------------------------------------------------------------------- */

/* Of SUMS neighbouring lanes, folded by halves, in each of them. */
INLINE double fold(double sum)
{
    for (int half = SUMS / 2; half > 0; half /= 2)
        sum += __shfl_xor_sync(ALL_LANES, sum, half);
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

/* Sums of a thread over its part of the piece's quantization block number `block`. */
template <class RULE>
INLINE void measure_block(double *params, double *others, float most[OCT_STATES],
                          const oct_optim_slot &s, const oct_optim_piece &piece, int64_t block)
{
    int64_t from = block * s.block,
            to = from + s.block < piece.count ? from + s.block : piece.count;
    for (int64_t i = from + threadIdx.x % SUMS; i < to; i += SUMS) {
        int64_t element = piece.first + i;
        float p = param_at(s, element), x[OCT_STATES] = {0};
        UNROLL for (int j = 0; j < OCT_STATES; j++) {
            const oct_slot_state &state = s.state[j];
            if (state.values) x[j] = state.values[element];
            if (!state.codes) continue;
            unsigned code = s.bits == 4 ? state.codes[element / 2] >> element % 2 * 4 & 15u
                                        : state.codes[element];
            x[j] = state.map->value[code] * state.absmax[scale_place(s, element)];
        }
        *params += square_of(p);
        if (!step_element<RULE>(&p, x, grad_at(s, element), s.numbers, s.bits != 32 && s.root))
            p = 0;
        *others += square_of(p);
        UNROLL for (int j = 0; j < OCT_STATES; j++)
            if (s.state[j].codes && fabsf(x[j]) > most[j]) most[j] = fabsf(x[j]);
    }
}

template <class RULE>
INLINE void measure_piece(oct_optim_measure *m, measure_room *room, const oct_optim_slot &s,
                          const oct_optim_piece &piece)
{
    int own = (int)threadIdx.x / SUMS;
    int64_t blocks = (piece.count + s.block - 1) >> log2_of(s.block);
    double params = 0, others = 0;
    float most[OCT_STATES] = {0};
    if (threadIdx.x < OCT_STATES) room->most[threadIdx.x] = 0;
    for (int64_t from = 0; from < blocks; from += AT_ONCE) {
        double own_params = 0, own_others = 0;
        measure_block<RULE>(&own_params, &own_others, most, s, piece, from + own);
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
    UNROLL for (int j = 0; j < OCT_STATES; j++) atomicMax(&room->most[j], __float_as_uint(most[j]));
    __syncthreads();
    if (threadIdx.x != 0) return;
    m->param_squares = params;
    m->other_squares = others;
    UNROLL for (int j = 0; j < OCT_STATES; j++) m->absmax[j] = __uint_as_float(room->most[j]);
}

template <class RULE>
__global__ void __launch_bounds__(THREADS)
    measure_kernel(oct_optim_measure *measures, oct_device_work work)
{
    SHARED(measure_room, room);
    const oct_optim_piece piece = work.pieces[blockIdx.x];
    const oct_optim_slot s = for_directions(work.slots[piece.slot]);
    measure_piece<RULE>(measures + blockIdx.x, &room, s, piece);
}

/* ---- host side ------------------------------------------------------------------------------- */

static int launched()
{
    CUDA_TRY(cudaGetLastError(), "launching a step");
    return 0;
}

#define STEP_CASE(name)                                                                            \
    case OCT_RULE_##name:                                                                          \
        LAUNCH(step_kernel<name##_of>, (unsigned)work.other_blocks, THREADS, cuda_stream(), total, \
               work);                                                                              \
        break;

int cuda_optim_step(uint64_t *left_out, const oct_device_work *given)
{
    unsigned long long *total = (unsigned long long *)left_out;
    const oct_device_work work = *given;
    if (work.usual_blocks > 0) cuda_step_usual(left_out, given);
    if (work.other_blocks == 0) return launched();
    switch (work.arithmetic) {
        OCT_FOR_EACH_RULE(STEP_CASE)
    }
    return launched();
}

#define MEASURE_CASE(name)                                                                         \
    case OCT_RULE_##name:                                                                          \
        LAUNCH(measure_kernel<name##_of>, (unsigned)work.piece_count, THREADS, cuda_stream(),      \
               measures, work);                                                                    \
        break;

int cuda_optim_measure(oct_optim_measure *measures, const oct_device_work *given)
{
    const oct_device_work work = *given;
    switch (work.arithmetic) {
        OCT_FOR_EACH_RULE(MEASURE_CASE)
    }
    return launched();
}

int cuda_optim_squares(double *sums, uint64_t *left_out, const oct_device_work *given,
                       int of_params)
{
    unsigned long long *total = (unsigned long long *)left_out;
    const oct_device_work work = *given;
    LAUNCH(squares_kernel, (unsigned)work.piece_count, CHUNKS * SUMS, cuda_stream(), sums, total,
           work, of_params);
    return launched();
}
