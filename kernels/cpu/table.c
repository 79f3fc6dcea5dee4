/* table.c - the kernels of one instruction set. */
#include "kernels/kernels.h"

#include "kernels/cpu/isa.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

/* Declares a kernel with the type that the table wants of it. */
#define DECLARE(name) extern __typeof__(*((oct_kernels *)0)->name) KERNEL(name);
#define KERNELS(X)                                                                                 \
    X(unary)                                                                                       \
    X(unary_backward)                                                                              \
    X(binary) X(affine) X(add_scaled) X(fill) X(lerp) X(dropout) X(uniform) X(normal) X(reduce)    \
        X(sum_squares) X(all_finite) X(spread) X(transpose) X(round_bf16) X(matmul) X(linear)      \
            X(linear_backward) X(layer_norm) X(layer_norm_backward) X(softmax) X(softmax_backward) \
                X(cross_entropy) X(cross_entropy_backward) X(embedding) X(embedding_backward)      \
                    X(segment_mean) X(segment_mean_backward) X(attention) X(attention_backward)    \
                        X(recurrent) X(recurrent_backward) X(binary_cross_entropy)                 \
                            X(binary_cross_entropy_backward) X(optim_step) X(optim_measure)        \
                                X(optim_squares) X(quantize) X(dequantize)

KERNELS(DECLARE)

#define ENTRY(name) .name = KERNEL(name),
const oct_kernels KERNEL(kernels) = {.isa = TEXT(OCT_ISA), KERNELS(ENTRY)};
