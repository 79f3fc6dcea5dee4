/* rules.h - the optimizers by name. */
#ifndef OCT_CORE_RULES_H
#define OCT_CORE_RULES_H
#include "kernels/rules.h"

/* How many there are; number `index`, its arithmetic filled in. */
int oct_rules(void);
const oct_rule *oct_rule_at(int index);

#endif
