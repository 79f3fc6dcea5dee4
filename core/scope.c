/* scope.c - a stack of scopes, each a ring of the tensors made in it.
 *
 * A scope holds no reference: it knows what is alive, drops the storages at its end, and the
 * handles go when Lua's collector gets to them. */
#include "core/scope.h"

#include "core/error.h"
#include "core/tape.h"
#include "core/tensor.h"

enum { DEPTH = 64 };
static oct_tensor rings[DEPTH];        /* sentinels; only their links are used */
static int64_t recorded_before[DEPTH]; /* the tape's next op when each began */
static int depth;

void oct_scope_leave(oct_tensor *t)
{
    if (!t->scope_next) return;
    t->scope_prev->scope_next = t->scope_next;
    t->scope_next->scope_prev = t->scope_prev;
    t->scope_prev = t->scope_next = NULL;
}

static void join(oct_tensor *ring, oct_tensor *t)
{
    t->scope_next = ring;
    t->scope_prev = ring->scope_prev;
    ring->scope_prev->scope_next = t;
    ring->scope_prev = t;
}

void oct_scope_enter(oct_tensor *t)
{
    if (depth > 0) join(&rings[depth - 1], t);
}

int oct_scope_begin(void)
{
    if (depth == DEPTH) return oct_fail("scope: %d scopes within each other are the most", DEPTH);
    recorded_before[depth] = oct_tape_next();
    oct_tensor *ring = &rings[depth++];
    ring->scope_prev = ring->scope_next = ring;
    return 0;
}

int oct_scope_escape(oct_tensor *t)
{
    if (!t) return oct_fail("scope: the tensor is nil");
    if (depth == 0 || !t->scope_next) return 0;
    oct_scope_leave(t);
    if (depth > 1) join(&rings[depth - 2], t);
    return 0;
}

int oct_scope_end(void)
{
    if (depth == 0) return oct_fail("scope: end without a beginning");
    oct_tensor *ring = &rings[--depth];
    if (depth == 0) oct_tape_cut(recorded_before[depth]);
    /* What was recorded since may need anything made since on the way back. */
    int recorded = oct_tape_has_since(recorded_before[depth]);
    while (ring->scope_next != ring) {
        oct_tensor *t = ring->scope_next;
        oct_scope_leave(t);
        if (depth > 0 && recorded)
            join(&rings[depth - 1], t);
        else
            oct_tensor_drop(t);
    }
    return 0;
}
