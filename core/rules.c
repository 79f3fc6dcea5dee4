/* rules.c - the list of optimizers: what kernels/rules/ describes, numbered, and told to Lua. */
#include <math.h>
#include <pthread.h>

#include "core/rules.h"

#include "core/error.h"
#include "core/octet.h"
#include "rules_list.h"

enum { RULES_MAX = 64 };
static oct_rule rules[RULES_MAX];
static int count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void append(const oct_rule *list, int arithmetic)
{
    for (; list->name && count < RULES_MAX; list++) {
        rules[count] = *list;
        rules[count++].arithmetic = arithmetic;
    }
}

#define APPEND(name) append(name##_optimizers, OCT_RULE_##name);
static void collect(void) { OCT_FOR_EACH_RULE(APPEND) }

int oct_rules(void)
{
    pthread_once(&once, collect);
    return count;
}

const oct_rule *oct_rule_at(int index) { return rules + index; }

static int check_rule(int index)
{
    if (index >= 0 && index < oct_rules()) return 0;
    return oct_fail("optim: rule %d, expected 0 to %d", index, oct_rules() - 1);
}

int oct_rule_count(int *result)
{
    *result = oct_rules();
    return 0;
}

int oct_rule_info(const char **name, const char **title, double *lr, double *weight_decay,
                  int *decay, int *matrix, int rule)
{
    OCT_TRY(check_rule(rule));
    const oct_rule *r = oct_rule_at(rule);
    *name = r->name;
    *title = r->title;
    *lr = r->lr;
    *weight_decay = r->weight_decay;
    *decay = r->decay;
    *matrix = r->matrix;
    return 0;
}

int oct_rule_option_info(const char **name, double *usual, double *low, double *high,
                         int *form, int rule, int index)
{
    OCT_TRY(check_rule(rule));
    if (index < 0 || index > OCT_RULE_OPTIONS)
        return oct_fail("optim: option %d, expected 0 to %d", index, OCT_RULE_OPTIONS);
    const struct oct_rule_option *o = oct_rule_at(rule)->option + index;
    *name = o->name;
    *usual = o->usual;
    *low = o->low;
    *high = o->high;
    *form = o->form;
    return 0;
}

int oct_rule_state_info(const char **name, int *kind, int *option, int rule, int index)
{
    OCT_TRY(check_rule(rule));
    if (index < 0 || index >= OCT_STATES)
        return oct_fail("optim: state %d, expected 0 to %d", index, OCT_STATES - 1);
    const oct_rule_state_kind *s = oct_rule_at(rule)->state + index;
    *name = s->name;
    *kind = s->kind;
    *option = s->option - 1;
    return 0;
}
