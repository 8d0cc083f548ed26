/* Kills a process, as `kill -9` does, right before or after one of its system calls that make something last
 * or move it: fsync, fdatasync, and what renames, links and unlinks. SQLite's and the plugins' are among them.
 *
 *   LD_PRELOAD=kill.so REUNION_KILL_STEP=17 REUNION_KILL_LOG=/elsewhere/steps program
 *
 * Each call is two steps, before and after; steps are counted from 1. The log gets a line for each. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long steps;

/* Counts a step of the call `name`; ends the process if it is the one. */
static void step(const char *name, const char *when) {
    const char *wanted = getenv("REUNION_KILL_STEP");
    const char *log = getenv("REUNION_KILL_LOG");
    long number = atomic_fetch_add(&steps, 1) + 1;
    if (log != NULL) {
        char line[64];
        int length = snprintf(line, sizeof line, "%s %s\n", when, name);
        int file = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        if (file < 0 || syscall(SYS_write, file, line, (size_t)length) != length) abort();
        syscall(SYS_close, file);
    }
    if (wanted != NULL && number == strtol(wanted, NULL, 10)) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
        abort();
    }
}

#define BETWEEN(name, ...)                     \
    do {                                       \
        step(name, "before");                  \
        int done = (int)syscall(__VA_ARGS__);  \
        if (done == 0) step(name, "after");    \
        return done;                           \
    } while (0)

int fsync(int file) { BETWEEN("fsync", SYS_fsync, file); }
int fdatasync(int file) { BETWEEN("fdatasync", SYS_fdatasync, file); }
int rename(const char *from, const char *to) { BETWEEN("rename", SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    BETWEEN("rename", SYS_renameat2, from_folder, from, to_folder, to, 0);
}
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    BETWEEN("rename", SYS_renameat2, from_folder, from, to_folder, to, flags);
}
int link(const char *from, const char *to) { BETWEEN("link", SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    BETWEEN("link", SYS_linkat, from_folder, from, to_folder, to, flags);
}
int unlink(const char *path) { BETWEEN("unlink", SYS_unlinkat, AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { BETWEEN("unlink", SYS_unlinkat, folder, path, flags); }
