/* scope.h - which tensors a step has made, so that its end can release them. */
#ifndef OCT_SCOPE_H
#define OCT_SCOPE_H
#include "core/octet.h"

/* A new tensor joins the innermost scope, if there is one; a freed or kept one leaves its scope. */
void oct_scope_enter(oct_tensor *tensor);
void oct_scope_leave(oct_tensor *tensor);

#endif
