/* bf16_gradient.c - for bench/optimizer_large.lua: a gradient in bf16. No op gives one, so it is
 * hung on the parameter by hand, which takes the core's own view of a tensor. */
#include "core/tensor.h"

#pragma GCC visibility push(default)
/* Another reference to `gradient`, of the parameter's size, is held by the parameter. */
void bf16_gradient_set(oct_tensor *parameter, oct_tensor *gradient);
#pragma GCC visibility pop

void bf16_gradient_set(oct_tensor *parameter, oct_tensor *gradient)
{
    atomic_fetch_add(&gradient->refs, 1);
    parameter->grad = gradient;
    parameter->grad_is_empty = 0;
}
