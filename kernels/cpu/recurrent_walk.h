/* recurrent_walk.h - one thread's part in walking the steps of a chunk.
 *
 * Threads: each direction has its share of them. Where its weights are small, they part its
 * sequences and need not meet within a chunk; where the weights are large, so that each thread had
 * better read a part of them, or the sequences few, they part the units and meet at each step.
 * Either way, a number is computed in the same order of the same terms. */
#ifndef OCT_RECURRENT_WALK_H
#define OCT_RECURRENT_WALK_H
#include <sched.h>
#include <stdatomic.h>

#include "kernels/cpu/recurrent_cell.h"

/* Rows of the steps from .. to - 1. */
INLINE int64_t rows_of(const oct_recurrent_shape *shape, int64_t from, int64_t to)
{
    return shape->first[to] - shape->first[from];
}

/* Where the threads of a direction meet: they are few, and soon there. */
typedef struct meeting {
    _Alignas(64) atomic_int waiting;
    _Alignas(64) atomic_int number;
} meeting;

static void meet(meeting *m, int parts)
{
    /* Some microseconds, which is what steps differ by; beyond, another program may have the core
     * that the last thread needs. With 20,000 turns three threads on two cores took 50 s for what
     * takes 8. */
    enum { TURNS = 300 };
    const int number = atomic_load_explicit(&m->number, memory_order_acquire);
    if (atomic_fetch_add(&m->waiting, 1) == parts - 1) {
        atomic_store(&m->waiting, 0);
        atomic_fetch_add(&m->number, 1);
        return;
    }
    for (int turn = 0; atomic_load_explicit(&m->number, memory_order_acquire) == number; turn++) {
        if (turn < TURNS)
            _mm_pause();
        else
            sched_yield();
    }
}

/* A thread's part of a chunk. */
typedef struct part {
    int64_t number, parts;
    int by_units;
    meeting *meeting;
} part;

/* Sequences are dealt in groups, which are cut evenly; a group's rows at a step are those of its
 * sequences that are still under way. */
typedef struct group {
    int64_t row, rows;
} group;
static group group_of(const walk *k, const step *s, int64_t number, int64_t groups)
{
    const int64_t all = k->shape->sequences;
    const int64_t row = all * number / groups, end = all * (number + 1) / groups;
    return (group){row, (end < s->rows ? end : s->rows) - row};
}

static int64_t groups_for(const walk *k, const part *p, int64_t most)
{
    const int64_t parts = p->by_units ? 1 : p->parts;
    return (k->shape->sequences + parts * most - 1) / (parts * most) * parts;
}

/* `order`: the number of the step in the chunk as the way goes. */
static step step_at(const walk *k, int64_t order, int descending)
{
    const int64_t t = descending ? k->to - 1 - order : k->from + order;
    return (step){t, rows_of(k->shape, t, t + 1), rows_of(k->shape, k->from, t)};
}

static void walk_forward(walk *shared, const part *p)
{
    walk k = *shared;
    const int64_t tiles = k.width / LANES, groups = groups_for(&k, p, MOST_SEQUENCES);
    const int64_t first = p->by_units ? tiles * p->number / p->parts : 0;
    const int64_t end = p->by_units ? tiles * (p->number + 1) / p->parts : tiles;
    for (int64_t i = 0; i < k.to - k.from; i++) {
        const step s = step_at(&k, i, k.reverse);
        for (int64_t u = first; u < end; u++)
            for (int64_t g = p->by_units ? 0 : p->number; g < groups;
                 g += p->by_units ? 1 : p->parts) {
                const group rows = group_of(&k, &s, g, groups);
                if (rows.rows > 0) step_forward(&k, &s, rows.row, rows.rows, u * LANES);
            }
        k.turn = !k.turn;
        if (p->by_units && p->parts > 1) meet(p->meeting, (int)p->parts);
    }
}

static void walk_back(walk *shared, const part *p)
{
    const walk k = *shared;
    const int64_t tiles = (k.width + COLUMNS - 1) / COLUMNS;
    const int64_t groups = groups_for(&k, p, MOST_BACK);
    const int64_t first = p->by_units ? tiles * p->number / p->parts : 0;
    const int64_t last = p->by_units ? tiles * (p->number + 1) / p->parts : tiles;
    const int64_t end = last * COLUMNS < k.width ? last * COLUMNS : k.width;
    for (int64_t i = 0; i < k.to - k.from; i++) {
        const step s = step_at(&k, i, !k.reverse);
        if (p->by_units) {
            cells_back(&k, &s, 0, s.rows, first * COLUMNS, end);
            if (p->parts > 1) meet(p->meeting, (int)p->parts);
        }
        for (int64_t g = p->by_units ? 0 : p->number; g < groups; g += p->by_units ? 1 : p->parts) {
            const group rows = group_of(&k, &s, g, groups);
            if (rows.rows <= 0) break;
            if (!p->by_units) cells_back(&k, &s, rows.row, rows.rows, 0, k.width);
            for (int64_t u = first; u < last; u++)
                product_back(&k, &s, rows.row, rows.rows, u * COLUMNS);
        }
    }
}

#endif
