/* tensor.h - the tensor as the core sees it.
 *
 * A handle (oct_tensor) and its storage are counted apart. The handle lives as long as Lua or the
 * tape refers to it; the storage is dropped earlier where the tape or the step's scope is done with
 * it (`storage` is then NULL), and whoever uses the handle after that gets a clear error.
 * Always row-major and contiguous; a view is another handle on the same storage. A storage lies on
 * a device; most of the core knows the processor's memory alone, and oct_check keeps all else away.
 */
#ifndef OCT_TENSOR_H
#define OCT_TENSOR_H
#include <stdatomic.h>
#include <stdint.h>

#include "core/octet.h"

typedef struct oct_storage {
    atomic_int refs;
    int device;                    /* where `data` lies: OCT_CPU, ... of core/device.h */
    int purpose;                   /* OCT_PARAMETERS ... */
    size_t bytes;
    uint64_t version;              /* raised by whoever may write into it in place, */
    uint64_t writes;               /* and by who does (oct_wrote) */
    int64_t uses;                  /* by what is recorded, while a walk back counts them */
    int pinned_for;                /* the device that may copy it beside its work; 0: none */
    void *data;
} oct_storage;

struct oct_tensor {
    atomic_int refs;
    uint8_t dtype, ndim;
    uint8_t requires_grad; /* a leaf that collects a gradient, or the result of an op on one */
    uint8_t is_parameter;          /* a leaf: backward leaves it and its gradient alone */
    uint8_t kept;                  /* neither backward nor the scope's end drops its storage */
    uint8_t grad_is_empty;         /* `grad` holds no value yet: the next writer overwrites it */
    uint8_t on_tape;               /* an op's result that backward has still to visit */
    uint8_t reached;               /* while a walk back looks for what its loss depends on */
    int64_t shape[OCT_MAX_DIMS];
    int64_t size;                  /* elements */
    int64_t start;                 /* first element within the storage */
    oct_storage *storage;          /* NULL: released */
    oct_tensor *grad;              /* f32, same shape; NULL where there is none */
    oct_tensor *scope_prev, *scope_next;
    oct_tensor *rounded;           /* a parameter's copy in bf16, as of rounded_version */
    uint64_t rounded_version;
};

size_t oct_dtype_bytes(int dtype);
const char *oct_dtype_name(int dtype);

/* A new tensor of undefined content, one reference, owned by the caller; NULL with the error set.
 */
oct_tensor *oct_tensor_make(int dtype, int ndim, const int64_t *shape, int purpose);
/* The same on a device (core/device.h). */
oct_tensor *oct_tensor_make_on(int device, int dtype, int ndim, const int64_t *shape, int purpose);
/* The same outside of every scope, kept. */
oct_tensor *oct_tensor_make_kept(int device, int dtype, int ndim, const int64_t *shape,
                                 int purpose);
/* Let x have a gradient, empty where it had none, on x's device. It lives and dies with x. */
int oct_grad_make(oct_tensor *x);
/* In *here, a tensor of the processor's with the same content: itself, where it is one. NULL is
 * NULL. */
int oct_tensor_here(oct_tensor **here, oct_tensor *tensor);
/* Another handle on the same storage with another shape, from element `start` on. */
oct_tensor *oct_tensor_view(oct_tensor *base, int64_t start, int ndim, const int64_t *shape);
oct_tensor *oct_tensor_retain(oct_tensor *tensor);
void oct_tensor_release(oct_tensor *tensor);       /* NULL is fine */
void oct_tensor_drop(oct_tensor *tensor);          /* the storage only; the handle stays */

/* First element, in the memory of the tensor's device. The caller has checked that the tensor is
 * alive and of this type. */
static inline void *oct_data(const oct_tensor *t)
{
    static const uint8_t bytes[OCT_DTYPES] = {4, 2, 2, 4, 1};
    return (char *)t->storage->data + t->start * bytes[t->dtype];
}
static inline float *oct_f32(const oct_tensor *t) { return (float *)t->storage->data + t->start; }
static inline int32_t *oct_i32(const oct_tensor *t)
{
    return (int32_t *)t->storage->data + t->start;
}
static inline uint8_t *oct_u8(const oct_tensor *t)
{
    return (uint8_t *)t->storage->data + t->start;
}

/* To be called by what has changed elements in place. */
static inline void oct_wrote(oct_storage *storage)
{
    storage->version++;
    storage->writes++;
}

/* 1 where two tensors of one type that are alive have an element in common. */
static inline int oct_share_memory(const oct_tensor *a, const oct_tensor *b)
{
    return a->storage == b->storage && a->start < b->start + b->size
        && b->start < a->start + a->size;
}

/* -1 with "OP: NAME was released ..." or "OP: NAME is i32, expected f32" where it does not hold, or
 * where the tensor does not lie in the processor's memory; dtype -1: any. */
int oct_check(const oct_tensor *tensor, const char *op, const char *name, int dtype);
/* The same wherever it lies: for what looks at no element by itself. */
int oct_check_anywhere(const oct_tensor *tensor, const char *op, const char *name, int dtype);
/* offsets[sequences + 1] of packed sequences: from 0 to the number of tokens, every sequence with a
 * token or more; -1 with "OP: ..." where it is not so. *longest: tokens of the longest sequence. */
int oct_check_offsets(const char *op, const oct_tensor *offsets, int64_t tokens, int64_t *longest);
/* "[32 x 64]" into one of a few buffers of the thread. */
const char *oct_shape_text(const oct_tensor *tensor);

#endif
