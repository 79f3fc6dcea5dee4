/* tape.c - recording, and the walk back.
 *
 * Note on gradients: what a step writes first into a gradient overwrites (the slot says so), what
 * comes later adds. So no gradient is ever cleared, which for the parameters saves one pass over
 * memory each step. */
#include "core/tape.h"

#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/scope.h"
#include "kernels/kernels.h"

static oct_node **nodes;
static int64_t used, room, next;
static int enabled = 1;

int oct_set_grad_enabled(int *before, int on)
{
    if (before) *before = enabled;
    enabled = on != 0;
    return 0;
}

int oct_grad_enabled(int *on)
{
    *on = enabled;
    return 0;
}

int oct_records(oct_tensor *const *inputs, int64_t count)
{
    if (!enabled) return 0;
    for (int64_t i = 0; i < count; i++)
        if (inputs[i] && inputs[i]->requires_grad) return 1;
    return 0;
}

static void forget_output(oct_tensor *output)
{
    if (!output) return;
    if (!output->is_parameter) output->requires_grad = 0;
    output->on_tape = 0;
    oct_tensor_release(output);
}

static void node_free(oct_node *node)
{
    forget_output(node->output);
    for (int i = 0; i < OCT_ALSO; i++) forget_output(node->also[i]);
    for (int i = 0; i < OCT_SAVED; i++) oct_tensor_release(node->saved[i]);
    for (int64_t i = 0; i < node->count; i++) oct_tensor_release(node->inputs[i]);
    oct_free(node);
}

/* What a node has taken in or saved, in turn; NULL behind the last one. */
static const oct_tensor *next_held(const oct_node *node, int64_t *at)
{
    while (*at < node->count + OCT_SAVED) {
        int64_t i = (*at)++;
        const oct_tensor *x = i < node->count ? node->inputs[i] : node->saved[i - node->count];
        if (x) return x;
    }
    return NULL;
}

/* How many inputs are results of ops that can still be gone back through. */
static int64_t results_of(const oct_node *node)
{
    int64_t results = 0;
    for (int64_t i = 0; i < node->count; i++) {
        const oct_tensor *x = node->inputs[i];
        results += x && x->requires_grad && !x->is_parameter;
    }
    return results;
}

/* How often a tensor's memory has been written to; and that of all that a node took and gave. */
static uint64_t writes_to(const oct_tensor *x) { return x && x->storage ? x->storage->writes : 0; }
static uint64_t writes_of(const oct_node *node)
{
    uint64_t writes = writes_to(node->output);
    for (int i = 0; i < OCT_ALSO; i++) writes += writes_to(node->also[i]);
    for (int64_t i = 0; i < node->count; i++) writes += writes_to(node->inputs[i]);
    return writes;
}

/* 1 where an earlier walk back has used what this node's step needs. */
static int is_spent(const oct_node *node)
{
    const oct_tensor *x;
    if (!node->output->storage || results_of(node) != node->results) return 1;
    for (int64_t at = 0; (x = next_held(node, &at));)
        if (!x->storage) return 1;
    return 0;
}

/* 1 where somebody besides this node has one of its outputs: a loss may still go back through it.
 */
static int is_wanted(const oct_node *node)
{
    if (atomic_load(&node->output->refs) > 1) return 1;
    for (int i = 0; i < OCT_ALSO; i++)
        if (node->also[i] && atomic_load(&node->also[i]->refs) > 1) return 1;
    return 0;
}

/* The last first: so goes what it was computed from. */
int oct_forget_unreached(void)
{
    int64_t kept = used;
    if (used == 0) return 0;
    for (int64_t i = used; i > 0; i--) {
        if (is_wanted(nodes[i - 1]))
            nodes[--kept] = nodes[i - 1];
        else
            node_free(nodes[i - 1]);
    }
    memmove(nodes, nodes + kept, (size_t)(used - kept) * sizeof *nodes);
    used -= kept;
    return 0;
}

/* Room for one node more. */
static int make_room(void)
{
    if (used < room) return 0;
    (void)oct_forget_unreached();
    if (used < room / 2) return 0;
    int64_t wanted = room ? 2 * room : 256;
    oct_node **grown = oct_realloc(nodes, (size_t)wanted * sizeof *grown);
    if (!grown) return -1;
    nodes = grown;
    room = wanted;
    return 0;
}

oct_node *oct_tape_add(oct_backward_step step, oct_tensor *output, oct_tensor *const *inputs,
                       int64_t count)
{
    if (make_room() != 0) return NULL;
    oct_node *node = oct_calloc(1, sizeof *node + (size_t)count * sizeof node->inputs[0]);
    if (!node) return NULL;
    node->step = step;
    node->output = oct_tensor_retain(output);
    node->count = count;
    for (int64_t i = 0; i < count; i++) node->inputs[i] = oct_tensor_retain(inputs[i]);
    output->requires_grad = output->on_tape = 1;
    node->number = next++;
    node->results = results_of(node);
    node->writes = writes_of(node);
    nodes[used++] = node;
    return node;
}

void oct_tape_also(oct_node *node, oct_tensor *output)
{
    int place = 0;
    while (node->also[place]) place++;
    node->also[place] = oct_tensor_retain(output);
    node->writes += writes_to(output);
    output->requires_grad = output->on_tape = 1;
}

static int node_holds(const oct_node *node, const oct_storage *storage)
{
    const oct_tensor *x;
    for (int64_t at = 0; (x = next_held(node, &at));)
        if (x->storage == storage) return 1;
    return 0;
}

int oct_tape_holds(const oct_tensor *x)
{
    for (int64_t i = 0; i < used; i++)
        if (node_holds(nodes[i], x->storage)) return 1;
    return 0;
}

int64_t oct_tape_next(void) { return next; }
int oct_tape_has_since(int64_t number) { return used > 0 && nodes[used - 1]->number >= number; }

void oct_tape_cut(int64_t number)
{
    while (oct_tape_has_since(number)) node_free(nodes[--used]);
}

/* ---- gradients ------------------------------------------------------------------------------- */

const float *oct_grad_of(const oct_tensor *output)
{
    return output && output->grad && !output->grad_is_empty ? oct_f32(output->grad) : NULL;
}

int oct_grad_slot(float **grad, int *accumulate, oct_tensor *x)
{
    *grad = NULL;
    *accumulate = 0;
    if (!x || !x->requires_grad) return 0;
    OCT_TRY(oct_grad_make(x));
    *grad = oct_f32(x->grad);
    *accumulate = !x->grad_is_empty;
    x->grad_is_empty = 0;
    return 0;
}

int oct_grad_pass(oct_tensor *x, oct_tensor *output)
{
    if (!x || !x->requires_grad) return 0;
    /* One taker at most: a second one would add into the first one's memory. */
    int free_to_take = !output->kept && atomic_load(&output->grad->storage->refs) == 1;
    if (!x->grad && !x->is_parameter && free_to_take) {
        oct_tensor *view = oct_tensor_view(output->grad, 0, x->ndim, x->shape);
        if (!view) return -1;
        oct_scope_leave(view);
        x->grad = view;
        x->grad_is_empty = 0;
        return 0;
    }
    float *grad;
    int accumulate;
    OCT_TRY(oct_grad_slot(&grad, &accumulate, x));
    oct_kernels_now()->add_scaled(grad, oct_f32(output->grad), x->size, 1.0f, accumulate);
    return 0;
}

/* ---- the walk back --------------------------------------------------------------------------- */

/* Who wants to know when a parameter's gradient is complete. */
typedef struct watch {
    oct_gradient_complete complete; /* NULL: nobody */
    void *context;
} watch;

/* What a node reads or adds gradients to, in turn; NULL behind the last one. Memory and not
 * tensors: a view that was taken unrecorded reads a parameter, too. */
static oct_storage *used_by(const oct_node *node, int64_t *at)
{
    const oct_tensor *x;
    while ((x = next_held(node, at)))
        if (x->storage && x->storage->purpose == OCT_PARAMETERS) return x->storage;
    return NULL;
}

/* Mark the nodes that a loss depends on. */
static void reach(oct_tensor *loss)
{
    loss->reached = 1;
    for (int64_t i = used; i > 0; i--) {
        oct_node *node = nodes[i - 1];
        node->reached = node->output->reached;
        for (int k = 0; k < OCT_ALSO; k++) node->reached |= node->also[k] && node->also[k]->reached;
        for (int64_t k = 0; node->reached && k < node->count; k++)
            if (node->inputs[k]) node->inputs[k]->reached = 1;
    }
    loss->reached = 0;
    for (int64_t i = 0; i < used; i++)
        for (int64_t k = 0; k < nodes[i]->count; k++)
            if (nodes[i]->inputs[k]) nodes[i]->inputs[k]->reached = 0;
}

static void count_uses(void)
{
    oct_storage *s;
    for (int64_t i = 0; i < used; i++)
        for (int64_t at = 0; (s = used_by(nodes[i], &at));) s->uses = 0;
    for (int64_t i = 0; i < used; i++)
        for (int64_t at = 0; nodes[i]->reached && (s = used_by(nodes[i], &at));) s->uses++;
}

static int tell_complete(const oct_node *node, watch w)
{
    oct_storage *s;
    for (int64_t at = 0; (s = used_by(node, &at));)
        if (--s->uses == 0) OCT_TRY(w.complete(w.context, s));
    return 0;
}

/* An output's gradient has been used up, and so has its value, by the steps behind it. */
static void finish_output(oct_tensor *output, const oct_tensor *loss)
{
    if (!output || output->kept) return;
    if (output == loss) {
        oct_tensor_release(output->grad);
        output->grad = NULL;
    } else {
        oct_scope_leave(output);
        oct_tensor_drop(output);
    }
}

/* 1 where something behind the op gave one of its outputs a gradient. */
static int has_grad(const oct_node *node)
{
    if (oct_grad_of(node->output)) return 1;
    for (int i = 0; i < OCT_ALSO; i++)
        if (oct_grad_of(node->also[i])) return 1;
    return 0;
}

/* What a step reads is there and as it was, unless an earlier walk back has used it, or somebody
 * has written to it. */
static int check_inputs(const oct_node *node)
{
    if (is_spent(node))
        return oct_fail("backward: what the loss was computed from has been used and released by "
                        "an earlier backward; add up losses that share a part, and go back once");
    if (writes_of(node) != node->writes)
        return oct_fail("backward: what the loss was computed from has been changed since, by a "
                        "step or in place; go back before");
    return 0;
}

static int step_back(oct_node *node, oct_tensor *loss, watch w)
{
    if (has_grad(node)) {
        OCT_TRY(check_inputs(node));
        OCT_TRY(node->step(node));
    }
    if (w.complete && node->reached) OCT_TRY(tell_complete(node, w));
    finish_output(node->output, loss);
    for (int i = 0; i < OCT_ALSO; i++) finish_output(node->also[i], loss);
    node_free(node);
    return 0;
}

/* From the last node to the first. Those that the loss does not depend on stay recorded, at the end
 * of the list, while somebody holds what they gave. */
static int walk(oct_tensor *loss, watch w)
{
    int64_t end = used, kept = used, i = used;
    int status = 0;
    while (i > 0 && status == 0) {
        oct_node *node = nodes[i - 1];
        if (!node->reached && is_wanted(node))
            nodes[--kept] = node;
        else
            status = step_back(node, loss, w);
        i -= status == 0;
    }
    memmove(nodes + i, nodes + kept, (size_t)(end - kept) * sizeof(oct_node *));
    used = i + end - kept;
    return status;
}

/* Forget what leans on something that has been used, the first first: so goes what leans on it. */
static void forget_spent(void)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < used; i++) {
        if (is_spent(nodes[i]))
            node_free(nodes[i]);
        else
            nodes[kept++] = nodes[i];
    }
    used = kept;
}

int oct_backward_with(oct_tensor *loss, oct_gradient_complete complete, void *context)
{
    OCT_TRY(oct_check(loss, "backward", "the loss", OCT_F32));
    if (loss->size != 1)
        return oct_fail("backward: the loss is %s, expected a scalar", oct_shape_text(loss));
    if (!loss->on_tape)
        return oct_fail(
            "backward: nothing is recorded behind the loss: no input required a gradient, "
            "it was computed without recording, or an earlier backward has used what it was "
            "computed from; losses that share a part are to be added up");
    float *grad;
    int accumulate;
    int status = oct_grad_slot(&grad, &accumulate, loss);
    if (status == 0) {
        *grad = accumulate ? *grad + 1.0f : 1.0f;
        reach(loss);
        if (complete) count_uses();
        status = walk(loss, (watch){complete, context});
    }
    if (status != 0) oct_tape_cut(0);
    forget_spent();
    return status;
}

int oct_backward(oct_tensor *loss) { return oct_backward_with(loss, NULL, NULL); }
