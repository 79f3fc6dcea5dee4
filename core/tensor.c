/* tensor.c - handles, storages and views; what is in place and what is copied. */
#include "core/tensor.h"

#include <stdio.h>
#include <string.h>

#include "core/device.h"
#include "core/error.h"
#include "core/memory.h"
#include "core/scope.h"
#include "core/tape.h"

static atomic_llong live;

size_t oct_dtype_bytes(int dtype)
{
    static const size_t bytes[OCT_DTYPES] = {4, 2, 2, 4, 1};
    return bytes[dtype];
}

const char *oct_dtype_name(int dtype)
{
    static const char *const names[OCT_DTYPES] = {"f32", "f16", "bf16", "i32", "u8"};
    return dtype >= 0 && dtype < OCT_DTYPES ? names[dtype] : "no type";
}

const char *oct_shape_text(const oct_tensor *t)
{
    enum { TEXTS = 4 };
    static _Thread_local char texts[TEXTS][160];
    static _Thread_local int next;
    char *text = texts[next++ % TEXTS];
    int used = snprintf(text, sizeof texts[0], "[");
    for (int i = 0; i < t->ndim; i++)
        used += snprintf(text + used, sizeof texts[0] - (size_t)used, "%s%lld", i ? " x " : "",
                         (long long)t->shape[i]);
    snprintf(text + used, sizeof texts[0] - (size_t)used, "]");
    return text;
}

/* ---- storage --------------------------------------------------------------------------------- */

static void storage_release(oct_storage *s)
{
    if (!s || atomic_fetch_sub(&s->refs, 1) != 1) return;
    if (s->pinned_for) oct_device_unpin(s->data, s->pinned_for);
    oct_block_free_on(s->device, s->data, s->bytes, s->purpose);
    oct_free(s);
}

static oct_storage *storage_new(int device, size_t bytes, int purpose)
{
    oct_storage *s = oct_malloc(sizeof *s);
    if (!s) return NULL;
    *s = (oct_storage){.device = device,
                       .purpose = purpose,
                       .bytes = bytes,
                       .data = oct_block_new_on(device, bytes, purpose)};
    atomic_init(&s->refs, 1);
    if (!s->data) {
        oct_free(s);
        return NULL;
    }
    return s;
}

/* ---- handles --------------------------------------------------------------------------------- */

static oct_tensor *handle_new(int dtype, int ndim, const int64_t *shape, oct_storage *storage)
{
    oct_tensor *t = oct_calloc(1, sizeof *t);
    if (!t) return NULL;
    atomic_init(&t->refs, 1);
    t->dtype = (uint8_t)dtype;
    t->ndim = (uint8_t)ndim;
    t->size = 1;
    for (int i = 0; i < ndim; i++) t->size *= t->shape[i] = shape[i];
    t->storage = storage;
    atomic_fetch_add(&live, 1);
    oct_scope_enter(t);
    return t;
}

/* Elements of a shape; -1 with the error set where it is no shape or its bytes overflow. */
static int64_t shape_size(const char *op, int dtype, int ndim, const int64_t *shape)
{
    if (ndim < 0 || ndim > OCT_MAX_DIMS)
        return oct_fail("%s: %d dimensions, expected 0 to %d", op, ndim, OCT_MAX_DIMS);
    int64_t size = 1;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 1)
            return oct_fail("%s: size %lld of dimension %d, expected 1 or more", op,
                            (long long)shape[i], i + 1);
        if (__builtin_mul_overflow(size, shape[i], &size) ||
            size > INT64_MAX / 16 / (int64_t)oct_dtype_bytes(dtype))
            return oct_fail("%s: the sizes multiply to more than any memory holds", op);
    }
    return size;
}

oct_tensor *oct_tensor_make(int dtype, int ndim, const int64_t *shape, int purpose)
{
    return oct_tensor_make_on(OCT_CPU, dtype, ndim, shape, purpose);
}

oct_tensor *oct_tensor_make_on(int device, int dtype, int ndim, const int64_t *shape, int purpose)
{
    int64_t size = shape_size("tensor", dtype, ndim, shape);
    if (size < 0) return NULL;
    oct_storage *s = storage_new(device, (size_t)size * oct_dtype_bytes(dtype), purpose);
    if (!s) return NULL;
    oct_tensor *t = handle_new(dtype, ndim, shape, s);
    if (!t) storage_release(s);
    return t;
}

oct_tensor *oct_tensor_make_kept(int device, int dtype, int ndim, const int64_t *shape, int purpose)
{
    oct_tensor *t = oct_tensor_make_on(device, dtype, ndim, shape, purpose);
    if (!t) return NULL;
    oct_scope_leave(t);
    t->kept = 1;
    return t;
}

int oct_grad_make(oct_tensor *x)
{
    if (x->grad) return 0;
    x->grad = oct_tensor_make_kept(x->storage->device, OCT_F32, x->ndim, x->shape,
                                   x->is_parameter ? OCT_GRADIENTS : OCT_ACTIVATIONS);
    x->grad_is_empty = 1;
    return x->grad ? 0 : -1;
}

oct_tensor *oct_tensor_view(oct_tensor *base, int64_t start, int ndim, const int64_t *shape)
{
    oct_tensor *t = handle_new(base->dtype, ndim, shape, base->storage);
    if (!t) return NULL;
    atomic_fetch_add(&base->storage->refs, 1);
    t->start = base->start + start;
    return t;
}

oct_tensor *oct_tensor_retain(oct_tensor *t)
{
    if (t) atomic_fetch_add(&t->refs, 1);
    return t;
}

void oct_tensor_drop(oct_tensor *t)
{
    oct_storage *s = t->storage;
    t->storage = NULL;
    storage_release(s);
    oct_tensor *grad = t->grad, *rounded = t->rounded;
    t->grad = t->rounded = NULL;
    oct_tensor_release(grad);
    oct_tensor_release(rounded);
}

void oct_tensor_release(oct_tensor *t)
{
    if (!t || atomic_fetch_sub(&t->refs, 1) != 1) return;
    oct_scope_leave(t);
    oct_tensor_drop(t);
    atomic_fetch_sub(&live, 1);
    oct_free(t);
}

int oct_check_anywhere(const oct_tensor *t, const char *op, const char *name, int dtype)
{
    if (!t) return oct_fail("%s: %s is nil, expected a tensor", op, name);
    if (!t->storage)
        return oct_fail(
            "%s: %s %s was released: backward and the end of a step's scope release what "
            "was not kept; call :keep() on it before",
            op, name, oct_shape_text(t));
    if (dtype >= 0 && t->dtype != dtype)
        return oct_fail("%s: %s is %s, expected %s", op, name, oct_dtype_name(t->dtype),
                        oct_dtype_name(dtype));
    return 0;
}

int oct_check(const oct_tensor *t, const char *op, const char *name, int dtype)
{
    OCT_TRY(oct_check_anywhere(t, op, name, dtype));
    if (t->storage->device == OCT_CPU) return 0;
    return oct_fail("%s: %s %s lies on %s, expected on cpu; :to \"cpu\" copies it there", op, name,
                    oct_shape_text(t), oct_device_name(t->storage->device));
}

static int64_t bytes_of(const oct_tensor *t)
{
    return t->size * (int64_t)oct_dtype_bytes(t->dtype);
}

/* ---- the interface's part -------------------------------------------------------------------- */

int oct_live_tensors(int64_t *count)
{
    *count = atomic_load(&live);
    return 0;
}

int oct_tensor_new(oct_tensor **out, int dtype, int ndim, const int64_t *shape, int purpose)
{
    if (dtype < 0 || dtype >= OCT_DTYPES)
        return oct_fail("tensor: type %d, expected 0 to %d", dtype, OCT_DTYPES - 1);
    if (purpose < 0 || purpose >= OCT_PURPOSES)
        return oct_fail("tensor: purpose %d, expected 0 to %d", purpose, OCT_PURPOSES - 1);
    oct_tensor *t = oct_tensor_make(dtype, ndim, shape, purpose);
    if (!t) return -1;
    *out = t;
    return 0;
}

int oct_tensor_free(oct_tensor *t)
{
    oct_tensor_release(t);
    return 0;
}

int oct_tensor_info(int *dtype, int *ndim, int64_t *shape, int64_t *size, int *flags, oct_tensor *t)
{
    if (!t) return oct_fail("info: the tensor is nil");
    *dtype = t->dtype;
    *ndim = t->ndim;
    memcpy(shape, t->shape, sizeof t->shape);
    *size = t->size;
    *flags = (t->requires_grad ? 1 : 0) | (t->is_parameter ? 2 : 0) | (t->storage ? 0 : 4);
    return 0;
}

int oct_tensor_data(void **data, oct_tensor *t)
{
    OCT_TRY(oct_check(t, "data", "the tensor", -1));
    t->storage->version++;
    *data = oct_data(t);
    return 0;
}

int oct_parameter(oct_tensor *t, int on)
{
    OCT_TRY(oct_check_anywhere(t, "parameter", "the tensor", -1));
    if (t->dtype != OCT_F32 && t->dtype != OCT_BF16)
        return oct_fail("parameter: the tensor is %s, expected f32 or bf16",
                        oct_dtype_name(t->dtype));
    if (t->on_tape)
        return oct_fail("parameter: the tensor is the result of an op, expected a leaf");
    if (t->storage->purpose != OCT_PARAMETERS) {
        oct_block_repurpose(t->storage->device, t->storage->bytes, t->storage->purpose,
                            OCT_PARAMETERS);
        t->storage->purpose = OCT_PARAMETERS;
    }
    t->is_parameter = t->kept = 1;
    t->requires_grad = on != 0;
    if (!on) {
        oct_tensor_release(t->grad);
        t->grad = NULL;
    }
    oct_scope_leave(t);
    return 0;
}

int oct_keep(oct_tensor *t)
{
    OCT_TRY(oct_check_anywhere(t, "keep", "the tensor", -1));
    t->kept = 1;
    oct_scope_leave(t);
    return 0;
}

int oct_grad(oct_tensor **out, oct_tensor *t)
{
    if (!t) return oct_fail("grad: the tensor is nil");
    *out = t->grad && !t->grad_is_empty ? oct_tensor_retain(t->grad) : NULL;
    return 0;
}

int oct_set_grad(oct_tensor *t, oct_tensor *g)
{
    OCT_TRY(oct_check_anywhere(t, "set_grad", "the tensor", -1));
    OCT_TRY(oct_check_anywhere(g, "set_grad", "the gradient", OCT_F32));
    if (!t->is_parameter || !t->requires_grad)
        return oct_fail("set_grad: the tensor %s is no parameter that collects a gradient",
                        oct_shape_text(t));
    if (t->size != g->size)
        return oct_fail("set_grad: the gradient is %s, expected %s", oct_shape_text(g),
                        oct_shape_text(t));
    if (t->grad && t->grad->storage == g->storage) {
        t->grad_is_empty = 0;
        return 0;
    }
    OCT_TRY(oct_grad_make(t));
    t->grad_is_empty = 1;
    OCT_TRY(oct_copy(t->grad, g));
    t->grad_is_empty = 0;
    return 0;
}

int oct_zero_grad(oct_tensor *t)
{
    if (!t) return oct_fail("zero_grad: the tensor is nil");
    t->grad_is_empty = 1;
    return 0;
}

int oct_copy(oct_tensor *dst, oct_tensor *src)
{
    OCT_TRY(oct_check_anywhere(dst, "copy", "the destination", -1));
    OCT_TRY(oct_check_anywhere(src, "copy", "the source", dst->dtype));
    if (dst->size != src->size)
        return oct_fail("copy: sizes differ: destination %s, source %s", oct_shape_text(dst),
                        oct_shape_text(src));
    if (dst->storage->device != OCT_CPU && oct_share_memory(dst, src))
        return oct_fail("copy: the two tensors share memory");
    OCT_TRY(oct_device_copy(oct_data(dst), dst->storage->device, oct_data(src),
                            src->storage->device, bytes_of(dst)));
    oct_wrote(dst->storage);
    return 0;
}

int oct_swap(oct_tensor *a, oct_tensor *b)
{
    enum { PART = 4096 };
    OCT_TRY(oct_check(a, "swap", "the first tensor", -1));
    OCT_TRY(oct_check(b, "swap", "the second tensor", a->dtype));
    if (a->size != b->size)
        return oct_fail("swap: sizes differ: %s and %s", oct_shape_text(a), oct_shape_text(b));
    if (oct_share_memory(a, b)) return oct_fail("swap: the two tensors share memory");
    char part[PART], *p = oct_data(a), *q = oct_data(b);
    size_t left = (size_t)bytes_of(a);
    while (left > 0) {
        size_t bytes = left < PART ? left : PART;
        memcpy(part, p, bytes);
        memcpy(p, q, bytes);
        memcpy(q, part, bytes);
        p += bytes, q += bytes, left -= bytes;
    }
    oct_wrote(a->storage);
    oct_wrote(b->storage);
    return 0;
}

/* ---- devices --------------------------------------------------------------------------------- */

int oct_tensor_device(const char **name, oct_tensor *t)
{
    OCT_TRY(oct_check_anywhere(t, "device", "the tensor", -1));
    *name = oct_device_name(t->storage->device);
    return 0;
}

static oct_tensor *copy_on(int device, const oct_tensor *t, int purpose)
{
    oct_tensor *y = oct_tensor_make_on(device, t->dtype, t->ndim, t->shape, purpose);
    if (y &&
        oct_device_copy(oct_data(y), device, oct_data(t), t->storage->device, bytes_of(t)) != 0) {
        oct_tensor_release(y);
        return NULL;
    }
    return y;
}

int oct_tensor_here(oct_tensor **here, oct_tensor *t)
{
    if (!t || t->storage->device == OCT_CPU)
        *here = oct_tensor_retain(t);
    else
        *here = copy_on(OCT_CPU, t, OCT_WORKSPACE);
    return t && !*here ? -1 : 0;
}

int oct_to_device(oct_tensor **out, oct_tensor *x, const char *name)
{
    int device;
    OCT_TRY(oct_check_anywhere(x, "to", "x", -1));
    OCT_TRY(oct_device_named(&device, name));
    oct_tensor *y = copy_on(device, x, OCT_ACTIVATIONS);
    if (!y) return -1;
    *out = y;
    return 0;
}

static void exchange_storages(oct_tensor *a, oct_tensor *b)
{
    oct_storage *storage = a->storage;
    int64_t start = a->start;
    a->storage = b->storage;
    a->start = b->start;
    b->storage = storage;
    b->start = start;
}

/* Whoever else looks at the memory of x would look at what is no longer there. */
static int check_movable(const oct_tensor *x)
{
    if (x->on_tape || atomic_load(&x->storage->refs) > 1)
        return oct_fail("move: %s is an op's result, or has views; expected a tensor of its own",
                        oct_shape_text(x));
    if (x->storage->purpose == OCT_GRADIENTS || x->storage->purpose == OCT_OPTIMIZER_STATE)
        return oct_fail("move: %s is a gradient, which moves with its parameter, or state, which "
                        "stays where its optimizer has put it",
                        oct_shape_text(x));
    if (oct_tape_holds(x))
        return oct_fail("move: %s is part of what is recorded; it can move behind backward, or "
                        "behind the end of the step's scope",
                        oct_shape_text(x));
    return 0;
}

int oct_move(oct_tensor *x, const char *name)
{
    int device;
    OCT_TRY(oct_check_anywhere(x, "move", "x", -1));
    OCT_TRY(oct_device_named(&device, name));
    if (x->storage->device == device) return 0;
    OCT_TRY(check_movable(x));
    oct_tensor *y = copy_on(device, x, x->storage->purpose), *dy = NULL;
    if (!y) return -1;
    if (x->grad && !(dy = copy_on(device, x->grad, x->grad->storage->purpose))) {
        oct_tensor_release(y);
        return -1;
    }
    exchange_storages(x, y);
    if (dy) exchange_storages(x->grad, dy);
    oct_tensor_release(y);
    oct_tensor_release(dy);
    oct_tensor_release(x->rounded);
    x->rounded = NULL;
    return 0;
}
