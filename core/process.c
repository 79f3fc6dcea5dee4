/* process.c - other programs, run beside this one. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/octet.h"

/* What a shell says of a program that it cannot run. */
enum { CANNOT_RUN = 127 };

/* The new process becomes the program, or ends. Between fork and exec only functions that are safe
 * in a signal handler may be called. */
static _Noreturn void become(const char *const *arguments, int output, int parent)
{
    int input = open("/dev/null", O_RDONLY);
    /* It gets no signal of the terminal's: who started it passes on what it is to know. Nor does it
     * outlive that one, even if that one is killed. */
    if (input >= 0 && setpgid(0, 0) == 0 && prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 &&
        getppid() == parent && dup2(input, STDIN_FILENO) >= 0 &&
        dup2(output, STDOUT_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0) {
        signal(SIGINT, SIG_DFL);
        signal(SIGTERM, SIG_DFL);
        execvp(arguments[0], (char *const *)arguments);
    }
    _exit(CANNOT_RUN);
}

int oct_process_start(int64_t *process, const char *const *arguments, const char *output_path)
{
    int output = open(output_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (output < 0) return oct_fail("%s: %s", output_path, strerror(errno));
    pid_t parent = getpid(), child = fork();
    if (child == 0) become(arguments, output, parent);
    int error = errno;
    close(output);
    if (child < 0) return oct_fail("%s cannot be started: %s", arguments[0], strerror(error));
    *process = child;
    return 0;
}

int oct_process_ended(int *ended, int *status, int64_t process)
{
    int how = 0;
    pid_t found;
    do {
        found = waitpid((pid_t)process, &how, WNOHANG);
    } while (found < 0 && errno == EINTR);
    if (found < 0) return oct_fail("process %lld: %s", (long long)process, strerror(errno));
    *ended = found > 0;
    if (found > 0) *status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
    return 0;
}

int oct_process_signal(int64_t process, int number)
{
    if (kill((pid_t)process, number) != 0)
        return oct_fail("process %lld: %s", (long long)process, strerror(errno));
    return 0;
}

int oct_sleep(double seconds)
{
    if (!(seconds >= 0 && seconds <= 1e9))
        return oct_fail("sleep: %g seconds, expected 0 to 1e9", seconds);
    struct timespec time = {.tv_sec = (time_t)seconds};
    time.tv_nsec = (long)((seconds - (double)time.tv_sec) * 1e9);
    nanosleep(&time, NULL);
    return 0;
}
