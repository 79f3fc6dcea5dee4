/* ops_shape.c - views, slices, transposition, concatenation, conversion, filling: no arithmetic. */
#include <math.h>
#include <string.h>

#include "core/error.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/tape.h"
#include "kernels/bf16.h"
#include "kernels/kernels.h"

static int64_t product(const int64_t *shape, int from, int to)
{
    int64_t size = 1;
    for (int i = from; i < to; i++) size *= shape[i];
    return size;
}

static int check_dim(const char *op, const oct_tensor *x, int dim)
{
    if (dim < 0 || dim >= x->ndim)
        return oct_fail("%s: dimension %d of a tensor %s", op, dim + 1, oct_shape_text(x));
    return 0;
}

/* ---- views ----------------------------------------------------------------------------------- */

static int reshape_step(oct_node *node)
{
    return oct_grad_pass(node->inputs[0], node->output);
}

int oct_reshape(oct_tensor **out, oct_tensor *x, int ndim, const int64_t *shape)
{
    OCT_TRY(oct_check_anywhere(x, "reshape", "x", -1));
    if (ndim < 0 || ndim > OCT_MAX_DIMS)
        return oct_fail("reshape: %d dimensions, expected 0 to %d", ndim, OCT_MAX_DIMS);
    int64_t size = 1;
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 1 || __builtin_mul_overflow(size, shape[i], &size))
            return oct_fail("reshape: size %lld of dimension %d", (long long)shape[i], i + 1);
    if (size != x->size)
        return oct_fail("reshape: %s has %lld elements, the new shape %lld", oct_shape_text(x),
                        (long long)x->size, (long long)size);
    oct_tensor *y = oct_tensor_view(x, 0, ndim, shape);
    if (!y) return -1;
    if (oct_records(&x, 1) && !oct_tape_add(reshape_step, y, &x, 1))
        return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

int oct_detach(oct_tensor **out, oct_tensor *x)
{
    OCT_TRY(oct_check_anywhere(x, "detach", "x", -1));
    oct_tensor *y = oct_tensor_view(x, 0, x->ndim, x->shape);
    if (!y) return -1;
    *out = y;
    return 0;
}

/* The gradient of a part: the rest of x's gradient is zero where nothing else has written it. */
static int narrow_step(oct_node *node)
{
    oct_tensor *x = node->inputs[0], *y = node->output;
    int dim = (int)node->integers[0];
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, x));
    const oct_kernels *kernels = oct_kernels_now();
    if (!accumulate) kernels->fill(dx, x->size, 0.0f);
    int64_t outer = product(x->shape, 0, dim), inner = product(x->shape, dim + 1, x->ndim);
    int64_t piece = y->shape[dim] * inner, whole = x->shape[dim] * inner;
    for (int64_t i = 0; i < outer; i++)
        kernels->add_scaled(dx + i * whole + node->integers[1] * inner,
                            oct_f32(y->grad) + i * piece, piece, 1.0f, 1);
    return 0;
}

static int record_narrow(oct_tensor *y, oct_tensor *x, int dim, int64_t first)
{
    if (!oct_records(&x, 1)) return 0;
    oct_node *node = oct_tape_add(narrow_step, y, &x, 1);
    if (!node) return -1;
    node->integers[0] = dim;
    node->integers[1] = first;
    return 0;
}

static int check_part(const char *op, const oct_tensor *x, int dim, int64_t first, int64_t count)
{
    OCT_TRY(check_dim(op, x, dim));
    if (first < 0 || count < 1 || first > x->shape[dim] - count)
        return oct_fail("%s: places %lld to %lld of dimension %d of a tensor %s", op,
                        (long long)first + 1, (long long)(first + count), dim + 1,
                        oct_shape_text(x));
    return 0;
}

int oct_rows(oct_tensor **out, oct_tensor *x, int64_t first, int64_t count)
{
    OCT_TRY(oct_check_anywhere(x, "rows", "x", -1));
    OCT_TRY(check_part("rows", x, 0, first, count));
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[0] = count;
    oct_tensor *y = oct_tensor_view(x, first * (x->size / x->shape[0]), x->ndim, shape);
    if (!y) return -1;
    if (record_narrow(y, x, 0, first) != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

/* ---- copies ---------------------------------------------------------------------------------- */

int oct_narrow(oct_tensor **out, oct_tensor *x, int dim, int64_t first, int64_t count)
{
    OCT_TRY(oct_check(x, "narrow", "x", -1));
    OCT_TRY(check_part("narrow", x, dim, first, count));
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[dim] = count;
    oct_tensor *y = oct_tensor_make(x->dtype, x->ndim, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    int64_t bytes = (int64_t)oct_dtype_bytes(x->dtype);
    int64_t outer = product(x->shape, 0, dim), inner = product(x->shape, dim + 1, x->ndim) * bytes;
    for (int64_t i = 0; i < outer; i++)
        memcpy((char *)oct_data(y) + i * count * inner,
               (char *)oct_data(x) + (i * x->shape[dim] + first) * inner, (size_t)(count * inner));
    if (record_narrow(y, x, dim, first) != 0) return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

static void transpose_tensor(float *to, const float *from, const oct_tensor *x, int i, int j,
                             int add)
{
    oct_kernels_now()->transpose(to, from, product(x->shape, 0, i), x->shape[i],
                                 product(x->shape, i + 1, j), x->shape[j],
                                 product(x->shape, j + 1, x->ndim), add);
}

static int transpose_step(oct_node *node)
{
    oct_tensor *y = node->output;
    float *dx;
    int accumulate;
    OCT_TRY(oct_grad_slot(&dx, &accumulate, node->inputs[0]));
    transpose_tensor(dx, oct_f32(y->grad), y, (int)node->integers[0], (int)node->integers[1],
                     accumulate);
    return 0;
}

int oct_transpose(oct_tensor **out, oct_tensor *x, int dim_a, int dim_b)
{
    OCT_TRY(oct_check(x, "transpose", "x", -1));
    if (oct_dtype_bytes(x->dtype) != 4)
        return oct_fail("transpose: x is %s, expected f32 or i32", oct_dtype_name(x->dtype));
    OCT_TRY(check_dim("transpose", x, dim_a));
    OCT_TRY(check_dim("transpose", x, dim_b));
    int i = dim_a < dim_b ? dim_a : dim_b, j = dim_a < dim_b ? dim_b : dim_a;
    if (i == j) return oct_reshape(out, x, x->ndim, x->shape);
    int64_t shape[OCT_MAX_DIMS];
    memcpy(shape, x->shape, sizeof shape);
    shape[i] = x->shape[j];
    shape[j] = x->shape[i];
    oct_tensor *y = oct_tensor_make(x->dtype, x->ndim, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    transpose_tensor(oct_data(y), oct_data(x), x, i, j, 0);
    if (oct_records(&x, 1)) {
        oct_node *node = oct_tape_add(transpose_step, y, &x, 1);
        if (!node) return oct_tensor_release(y), -1;
        node->integers[0] = i;
        node->integers[1] = j;
    }
    *out = y;
    return 0;
}

static int concat_step(oct_node *node)
{
    const oct_kernels *kernels = oct_kernels_now();
    oct_tensor *y = node->output;
    int dim = (int)node->integers[0];
    int64_t outer = product(y->shape, 0, dim), inner = product(y->shape, dim + 1, y->ndim);
    int64_t whole = y->shape[dim] * inner, before = 0;
    for (int64_t k = 0; k < node->count; k++) {
        oct_tensor *x = node->inputs[k];
        int64_t piece = x->shape[dim] * inner;
        float *dx;
        int accumulate;
        OCT_TRY(oct_grad_slot(&dx, &accumulate, x));
        for (int64_t i = 0; dx && i < outer; i++)
            kernels->add_scaled(dx + i * piece, oct_f32(y->grad) + i * whole + before, piece, 1.0f,
                                accumulate);
        before += piece;
    }
    return 0;
}

int oct_concat(oct_tensor **out, oct_tensor **xs, int64_t count, int dim)
{
    if (count < 1) return oct_fail("concat: no tensors");
    OCT_TRY(oct_check(xs[0], "concat", "tensor 1", -1));
    OCT_TRY(check_dim("concat", xs[0], dim));
    int64_t shape[OCT_MAX_DIMS], total = 0;
    memcpy(shape, xs[0]->shape, sizeof shape);
    for (int64_t k = 0; k < count; k++) {
        OCT_TRY(oct_check(xs[k], "concat", "a tensor", xs[0]->dtype));
        for (int i = 0; i < xs[0]->ndim || i < xs[k]->ndim; i++)
            if (xs[k]->ndim != xs[0]->ndim || (i != dim && xs[k]->shape[i] != xs[0]->shape[i]))
                return oct_fail(
                    "concat: tensor %lld is %s, tensor 1 %s; only dimension %d may differ",
                    (long long)k + 1, oct_shape_text(xs[k]), oct_shape_text(xs[0]), dim + 1);
        total += xs[k]->shape[dim];
    }
    shape[dim] = total;
    oct_tensor *y = oct_tensor_make(xs[0]->dtype, xs[0]->ndim, shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    int64_t inner = product(shape, dim + 1, y->ndim) * (int64_t)oct_dtype_bytes(y->dtype);
    int64_t outer = product(shape, 0, dim), before = 0;
    for (int64_t k = 0; k < count; k++) {
        int64_t piece = xs[k]->shape[dim] * inner;
        for (int64_t i = 0; i < outer; i++)
            memcpy((char *)oct_data(y) + i * total * inner + before,
                   (char *)oct_data(xs[k]) + i * piece, (size_t)piece);
        before += piece;
    }
    if (oct_records(xs, count)) {
        oct_node *node = oct_tape_add(concat_step, y, xs, count);
        if (!node) return oct_tensor_release(y), -1;
        node->integers[0] = dim;
    }
    *out = y;
    return 0;
}

/* ---- conversion ------------------------------------------------------------------------------ */

static float bits_to_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static uint32_t float_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    if (exponent == 31) return bits_to_float(sign | 0x7F800000u | mantissa << 13);
    if (exponent) return bits_to_float(sign | (exponent + 112) << 23 | mantissa << 13);
    float tiny = (float)mantissa * 0x1p-24f;
    return sign ? -tiny : tiny;
}

static uint16_t to_half(float f)
{
    uint32_t bits = float_to_bits(f), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
    if (rest > 0x7F800000u) return (uint16_t)(sign | 0x7E00);
    if (rest >= 0x47800000u) return (uint16_t)(sign | 0x7C00);
    if (rest < 0x38800000u) {  /* below the smallest normal half: the sum rounds for us */
        uint32_t sum = float_to_bits(bits_to_float(rest) + 0.5f);
        return (uint16_t)(sign | (sum - float_to_bits(0.5f)));
    }
    rest += ((rest >> 13) & 1) + 0xFFF;
    return (uint16_t)(sign | (rest - 0x38000000u) >> 13);
}

static int cast_step(oct_node *node)
{
    return oct_grad_pass(node->inputs[0], node->output);
}

int oct_cast(oct_tensor **out, oct_tensor *x, int dtype)
{
    OCT_TRY(oct_check(x, "cast", "x", -1));
    if (dtype < 0 || dtype >= OCT_DTYPES)
        return oct_fail("cast: type %d, expected 0 to %d", dtype, OCT_DTYPES - 1);
    oct_tensor *y = oct_tensor_make(dtype, x->ndim, x->shape, OCT_ACTIVATIONS);
    if (!y) return -1;
    const void *from = oct_data(x);
    void *to = oct_data(y);
    for (int64_t i = 0; i < x->size; i++) {
        double value = x->dtype == OCT_F32   ? ((const float *)from)[i]
                       : x->dtype == OCT_F16 ? from_half(((const uint16_t *)from)[i])
                       : x->dtype == OCT_BF16
                           ? bits_to_float((uint32_t)((const uint16_t *)from)[i] << 16)
                       : x->dtype == OCT_I32 ? ((const int32_t *)from)[i]
                                             : ((const uint8_t *)from)[i];
        double low = dtype == OCT_I32 ? INT32_MIN : 0, high = dtype == OCT_I32 ? INT32_MAX : 255;
        if (dtype == OCT_I32 || dtype == OCT_U8) {
            if (!(value >= low && value <= high)) {
                oct_tensor_release(y);
                return oct_fail("cast: element %lld is outside the range of %s", (long long)i + 1,
                                oct_dtype_name(dtype));
            }
            if (dtype == OCT_I32) ((int32_t *)to)[i] = (int32_t)value;
            else ((uint8_t *)to)[i] = (uint8_t)value;
        } else if (dtype == OCT_F32) ((float *)to)[i] = (float)value;
        else
            ((uint16_t *)to)[i] =
                dtype == OCT_F16 ? to_half((float)value) : oct_to_bf16((float)value);
    }
    /* Out of f32 would be rounding, whose gradient is nowhere: only a bf16 parameter comes here. */
    int passes = x->dtype == OCT_BF16 && dtype == OCT_F32;
    if (passes && oct_records(&x, 1) && !oct_tape_add(cast_step, y, &x, 1))
        return oct_tensor_release(y), -1;
    *out = y;
    return 0;
}

/* ---- filling --------------------------------------------------------------------------------- */

int oct_fill(oct_tensor *x, double value)
{
    OCT_TRY(oct_check(x, "fill", "x", -1));
    int whole = value == floor(value);
    if (x->dtype == OCT_F32) oct_kernels_now()->fill(oct_f32(x), x->size, (float)value);
    else if (x->dtype == OCT_I32 && whole && value >= INT32_MIN && value <= INT32_MAX)
        for (int64_t i = 0; i < x->size; i++) oct_i32(x)[i] = (int32_t)value;
    else if (x->dtype == OCT_U8 && whole && value >= 0 && value <= 255)
        memset(oct_u8(x), (int)value, (size_t)x->size);
    else if (value == 0) memset(oct_data(x), 0, (size_t)x->size * oct_dtype_bytes(x->dtype));
    else return oct_fail("fill: %g is not a value of type %s", value, oct_dtype_name(x->dtype));
    oct_wrote(x->storage);
    return 0;
}

int oct_uniform(oct_tensor *x, float low, float high)
{
    OCT_TRY(oct_check(x, "uniform", "x", OCT_F32));
    if (!(low <= high)) return oct_fail("uniform: the lower bound is above the upper one");
    oct_kernels_now()->uniform(oct_f32(x), x->size, low, high, oct_random_seed(),
                               oct_random_take(OCT_STREAM_INIT, (uint64_t)(x->size + 3) / 4));
    oct_wrote(x->storage);
    return 0;
}

int oct_normal(oct_tensor *x, float mean, float deviation)
{
    OCT_TRY(oct_check(x, "normal", "x", OCT_F32));
    if (!(deviation >= 0)) return oct_fail("normal: the deviation is negative or not a number");
    oct_kernels_now()->normal(oct_f32(x), x->size, mean, deviation, oct_random_seed(),
                              oct_random_take(OCT_STREAM_INIT, (uint64_t)(x->size + 3) / 4));
    oct_wrote(x->storage);
    return 0;
}
