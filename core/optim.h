/* optim.h - an optimizer from within: its groups, its parameters with their state, and the room for
 * a step's work. */
#ifndef OCT_CORE_OPTIM_H
#define OCT_CORE_OPTIM_H
#include "core/octet.h"
#include "core/rules.h"
#include "kernels/kernels.h"

enum { OCT_GROUPS = 4096 };

typedef struct oct_optim_group_numbers {
    const oct_rule *rule; /* NULL: nothing was said of it */
    double lr, weight_decay;
    int decay; /* OCT_DECAY_... */
    double options[OCT_RULE_OPTIONS];
} oct_optim_group_numbers;

/* A parameter and its state. What every step looks at comes first, on one cache line. */
typedef struct oct_optim_member {
    oct_tensor *parameter;
    const oct_rule *rule;
    int64_t steps;
    uint64_t random_base; /* its first block within a step's */
    int group, bits, flags, correction_bits, state_device;
    int64_t block;
    char *name;
    oct_tensor *tensors[OCT_STATE_TENSORS];
    const oct_map *maps[OCT_STATES];
    oct_optim_error *errors; /* of the last step, by state; NULL where nobody wants to know */
} oct_optim_member;

/* Pieces, bundled into units. */
typedef struct oct_optim_cut {
    oct_optim_piece *pieces;
    int64_t *units;
    int64_t unit_count;
} oct_optim_cut;

struct oct_optim {
    int kernels; /* oct_optim_kernels */
    int device;  /* of all parameters: OCT_CPU, ... of core/device.h */
    /* On the device that makes the steps: room for what lies elsewhere. */
    void *stage;
    int64_t stage_bytes;
    int stage_device;
    oct_optim_group_numbers *groups;
    int group_count;
    oct_optim_member *members;
    int64_t count, room;
    uint64_t random_blocks; /* that a step takes */
    /* The work of a step, with room for all members. What of a slot is the same in each step is
     * never written again: a step goes through many of them that have left the cache. */
    oct_optim_slot *slots;    /* by member */
    int64_t *planned;         /* the members that the step is of */
    oct_optim_cut all, first; /* all pieces; those that a first pass goes over */
    double *sums;             /* by piece, as the rest */
    oct_optim_measure *measures;
    oct_optim_error *errors; /* [pieces][OCT_STATES]; NULL unless they are watched */
    int64_t piece_room;
};

static inline int64_t oct_blocks_of(int64_t size, int64_t block)
{
    return (size + block - 1) / block;
}
static inline int64_t oct_pieces_of(int64_t size) { return oct_blocks_of(size, OCT_OPTIM_PIECE); }

/* A step's numbers that are not the rule's. */
typedef struct oct_step_scale {
    double grad_scale, grad_limit;
} oct_step_scale;

/* 1 where the parameter has a gradient to be stepped with. */
int oct_optim_has_gradient(const oct_tensor *parameter);
/* What of a member's slot stays the same. */
void oct_optim_fill_slot(oct_optim_slot *slot, const oct_optim_member *m);
/* The numbers of the member's step, of which there have been m->steps with this one. */
oct_numbers oct_optim_numbers(const oct_optim *o, const oct_optim_member *m, oct_step_scale scale,
                              double param_norm, double other_norm);
/* The slot's parameter as f32, further bits and all. y[size]. */
void oct_optim_load_param(float *y, const oct_optim_slot *slot);
/* The slot's gradient as f32: scaled, clipped, and with the weight decay that is coupled added.
 * What a rule for matrices begins with. y[size]. */
void oct_optim_load_gradient(float *y, const oct_optim *o, const oct_optim_member *m,
                             const oct_optim_slot *slot, oct_step_scale scale);
/* As in kernels/kernels.h, by the device that makes the optimizer's steps (core/optim_device.c),
 * for work that is not empty. Where memory for it ends, nothing has changed; where the
 * device itself fails, some parameters may have been stepped. */
int oct_optim_device_step(int64_t *left_out, oct_optim *o, const oct_optim_work *work);
int oct_optim_device_measure(oct_optim_measure *measures, oct_optim *o, const oct_optim_work *work);
int oct_optim_device_squares(double *sums, int64_t *not_finite, oct_optim *o,
                             const oct_optim_work *work, int of_params);
void oct_optim_free_stage(oct_optim *o);
/* A member of the processor's in the place of one on a device: with copies of what lies there, to
 * be released; and what has become of them back into the member. */
int oct_optim_member_here(oct_optim_member *here, const oct_optim_member *m);
int oct_optim_member_back(oct_optim_member *m, const oct_optim_member *here);
void oct_optim_release_member(oct_optim_member *m);
/* Run one slot by itself. left_out: how many elements were left out. */
int oct_optim_run(int64_t *left_out, oct_optim *o, const oct_optim_slot *slot);

/* One step of a member that is a matrix (core/muon.c, core/adafactor.c). `slot` is complete but for
 * its numbers. */
int oct_muon_step(int64_t *left_out, oct_optim *o, oct_optim_member *m, oct_optim_slot *slot,
                  oct_step_scale scale);
int oct_adafactor_step(int64_t *left_out, oct_optim *o, oct_optim_member *m, oct_optim_slot *slot,
                       oct_step_scale scale);
/* Rows and columns of a parameter taken as a matrix: the first dimension, and all others together;
 * 0 where it is none. */
int oct_optim_is_matrix(int64_t *rows, int64_t *columns, const oct_tensor *parameter);

#endif
