/* signal.c - Ctrl-C, SIGTERM and SIGHUP (a terminal that closed) as a flag that training and
 * evaluation loops look at.
 *
 * Lua's hooks do not run in compiled traces, and a checkpoint cannot be written from a handler;
 * so the handler keeps the number, and the loop asks for it between two steps. The second Ctrl-C
 * stops at once: whoever presses twice does not want to wait for a checkpoint. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "core/error.h"
#include "core/octet.h"

static const int caught_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { CAUGHT = sizeof caught_signals / sizeof caught_signals[0] };

static atomic_int seen;
static struct sigaction before[CAUGHT];
static int catching;

static void on_signal(int number)
{
    if (atomic_exchange(&seen, number) != 0) {
        /* Async-signal-safe, both of them. The raised signal is delivered when this returns. */
        signal(number, SIG_DFL);
        raise(number);
    }
}

static void restore(int count)
{
    for (int i = 0; i < count; i++) sigaction(caught_signals[i], &before[i], NULL);
}

int oct_catch_signals(int on)
{
    if (on && !catching) {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART;
        sigemptyset(&action.sa_mask);
        atomic_store(&seen, 0);
        for (int i = 0; i < CAUGHT; i++) {
            if (sigaction(caught_signals[i], &action, &before[i]) != 0) {
                int error = errno;
                restore(i);
                return oct_fail("signals: %d cannot be caught: %s", caught_signals[i],
                                strerror(error));
            }
            /* What the caller's shell told this process to ignore stays ignored (nohup, `&`). */
            if (before[i].sa_handler == SIG_IGN) sigaction(caught_signals[i], &before[i], NULL);
        }
    } else if (!on && catching) {
        restore(CAUGHT);
    }
    catching = on != 0;
    return 0;
}

int oct_signal_seen(int *number)
{
    *number = atomic_load(&seen);
    return 0;
}
