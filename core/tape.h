/* tape.h - the record of ops on the way forward, walked once on the way back.
 *
 * An op that has an input which requires a gradient adds a node: the function that does its
 * backward step, its inputs, its output, and what that step needs besides. The tape owns a
 * reference to each of them. */
#ifndef OCT_TAPE_H
#define OCT_TAPE_H
#include "core/tensor.h"

typedef struct oct_node oct_node;

/* Adds to the gradients of node->inputs what follows from node->output->grad, which is there; of a
 * node with further outputs, one of their gradients is there (oct_grad_of). */
typedef int (*oct_backward_step)(oct_node *node);

enum { OCT_ALSO = 3, OCT_SAVED = 4 };

struct oct_node {
    int64_t number;                /* in the order of recording, from 0 */
    oct_backward_step step;
    oct_tensor *output;
    oct_tensor *also[OCT_ALSO];    /* further outputs; may be NULL */
    oct_tensor *saved[OCT_SAVED];  /* further tensors that the step needs; owned; may be NULL */
    int64_t integers[4];
    float numbers[2];
    uint64_t random_seed, random_offset;
    int64_t results;               /* how many inputs were results of recorded ops, */
    uint64_t writes;               /* and how often inputs and outputs had been written to */
    int reached;                   /* while a walk back looks for what its loss depends on */
    int64_t count;                 /* of inputs */
    oct_tensor *inputs[];          /* entries may be NULL */
};

/* 1 where an op on these inputs is to be recorded. Entries may be NULL. */
int oct_records(oct_tensor *const *inputs, int64_t count);

/* Record an op; call it when the output is complete. Returns the node, to be filled in by the
 * caller, or NULL with the error set. Marks the output as requiring a gradient. */
oct_node *oct_tape_add(oct_backward_step step, oct_tensor *output, oct_tensor *const *inputs,
                       int64_t count);

/* One more output of a node that was just added, in a free place of `also`. */
void oct_tape_also(oct_node *node, oct_tensor *output);

/* The gradient of an output; NULL where nothing behind it gave one, which stands for zeros. */
const float *oct_grad_of(const oct_tensor *output);
/* Where to write the gradient of x: NULL in *grad where x wants none. *accumulate: 1 where a value
 * stands there already. The caller writes all of it. -1 where memory ends. */
int oct_grad_slot(float **grad, int *accumulate, oct_tensor *x);
/* x's gradient (+)= the output's, element for element (sizes equal); takes the output's memory over
 * where it can. */
int oct_grad_pass(oct_tensor *x, oct_tensor *output);

/* 1 where what is recorded and not yet walked back holds x or a view of it. */
int oct_tape_holds(const oct_tensor *x);
/* The number that the next op will have. */
int64_t oct_tape_next(void);
/* 1 where an op of this number or a later one is recorded and not yet walked back. */
int oct_tape_has_since(int64_t number);
/* Forget the ops from this number on. */
void oct_tape_cut(int64_t number);

/* oct_backward, which calls `complete` for memory of parameters as soon as nothing that is recorded
 * will add to their gradients, nor read them. A call that fails ends the walk. */
typedef int (*oct_gradient_complete)(void *context, const oct_storage *parameters);
int oct_backward_with(oct_tensor *loss, oct_gradient_complete complete, void *context);

#endif
