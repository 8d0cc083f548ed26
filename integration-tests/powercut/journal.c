/* Journals what a process does to the files under one folder, so that a test can rebuild the folder as a
 * power cut at any moment would have left it. `src/powercut.rs` reads the journal.
 *
 *   LD_PRELOAD=journal.so REUNION_POWERCUT_ROOT=/site REUNION_POWERCUT_JOURNAL=/elsewhere/journal program
 *
 * REUNION_POWERCUT_ROOT is a path without symbolic links. REUNION_POWERCUT_BYTES_MAX, where set, is how many
 * bytes may be written: a write beyond them fails with ENOSPC, as on a full disk.
 *
 * Each function that changes files or makes them durable does the system call itself and appends one record,
 * both under one lock, so that the order of records is the order of effects. What fails is not recorded.
 * Calls that bypass the C library would be missed; the test notices, because the tree that it rebuilds from
 * the whole journal must equal the real one byte by byte. sync_file_range and msync are not recorded on
 * purpose: neither promises that anything lasts. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* The kinds of records, and what their numbers and bytes are. */
enum kind {
    OPEN = 1,  /* handle, flags; path */
    WRITE,     /* handle, offset; data */
    RESIZE,    /* handle, length */
    RESIZE_AT, /* 0, length; path */
    SYNC,      /* handle */
    SYNC_ALL,
    RENAME, /* 0, flags; from, to */
    LINK,   /* from, to */
    UNLINK, /* path */
    RMDIR,  /* path */
    MKDIR,  /* path */
    MAP,    /* handle: mapped shared and writable */
};

struct record {
    uint64_t kind, handle, number, first_bytes, second_bytes;
};

enum { DESCRIPTORS_MAX = 1 << 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int journal = -1;
static char root[PATH_MAX];
static size_t root_length;
/* The handle behind each descriptor; 0 where it is no file under the root. */
static uint64_t handles[DESCRIPTORS_MAX];
static uint64_t last_handle;
static int64_t bytes_left = INT64_MAX;

static void start(void) {
    const char *folder = getenv("REUNION_POWERCUT_ROOT");
    const char *file = getenv("REUNION_POWERCUT_JOURNAL");
    const char *bytes = getenv("REUNION_POWERCUT_BYTES_MAX");
    if (folder == NULL || file == NULL) return;
    root_length = (size_t)snprintf(root, sizeof root, "%s", folder);
    if (bytes != NULL) bytes_left = strtoll(bytes, NULL, 10);
    int opened = (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (opened < 0) abort();
    /* Out of the way of the program, which may count on small numbers. */
    journal = (int)syscall(SYS_fcntl, opened, F_DUPFD_CLOEXEC, 1000L);
    syscall(SYS_close, opened);
    if (journal < 0) abort();
}

static void append(enum kind kind, uint64_t handle, uint64_t number, const void *first, size_t first_bytes, const char *second) {
    struct record record = {kind, handle, number, first_bytes, second == NULL ? 0 : strlen(second)};
    struct iovec parts[3] = {{&record, sizeof record}, {(void *)first, first_bytes}, {(void *)second, record.second_bytes}};
    ssize_t whole = (ssize_t)(sizeof record + first_bytes + record.second_bytes);
    if (syscall(SYS_writev, journal, parts, 3) != whole) abort();
}

static void append_path(enum kind kind, uint64_t handle, uint64_t number, const char *path) {
    append(kind, handle, number, path, strlen(path), NULL);
}

/* Whether `path`, taken from the folder `at`, is under the root; `full` is then its absolute form without
 * dots, of PATH_MAX bytes. */
static int resolve(int at, const char *path, char *full) {
    pthread_once(&once, start);
    if (journal < 0 || path == NULL) return 0;
    char joined[2 * PATH_MAX] = "";
    if (path[0] != '/') {
        char link[64] = "/proc/self/cwd";
        if (at != AT_FDCWD) snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, joined, PATH_MAX);
        if (length < 0) return 0;
        joined[length] = '\0';
        strncat(joined, "/", 2);
    }
    strncat(joined, path, PATH_MAX - 1);
    size_t length = 0;
    full[0] = '\0';
    char *rest = NULL;
    for (char *part = strtok_r(joined, "/", &rest); part != NULL; part = strtok_r(NULL, "/", &rest)) {
        if (strcmp(part, ".") == 0) continue;
        if (strcmp(part, "..") == 0) {
            char *slash = strrchr(full, '/');
            if (slash != NULL) *slash = '\0';
            length = strlen(full);
            continue;
        }
        if (length + strlen(part) + 2 > PATH_MAX) return 0;
        length += (size_t)sprintf(full + length, "/%s", part);
    }
    return strncmp(full, root, root_length) == 0 && (full[root_length] == '/' || full[root_length] == '\0');
}

static uint64_t handle_of(int descriptor) {
    pthread_once(&once, start);
    if (journal < 0 || descriptor < 0 || descriptor >= DESCRIPTORS_MAX) return 0;
    return __atomic_load_n(&handles[descriptor], __ATOMIC_SEQ_CST);
}

static void set_handle(int descriptor, uint64_t handle) {
    if (descriptor >= 0 && descriptor < DESCRIPTORS_MAX) {
        __atomic_store_n(&handles[descriptor], handle, __ATOMIC_SEQ_CST);
    } else if (handle != 0) {
        abort();
    }
}

static int open_file(int at, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!resolve(at, path, full)) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int descriptor = (int)syscall(SYS_openat, at, path, flags, mode);
    if (descriptor >= 0) {
        set_handle(descriptor, ++last_handle);
        append_path(OPEN, last_handle, (uint64_t)flags, full);
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

static mode_t mode_of(int flags, va_list rest) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

#define OPEN_BODY(at)                       \
    va_list rest;                           \
    va_start(rest, flags);                  \
    mode_t mode = mode_of(flags, rest);     \
    va_end(rest);                           \
    return open_file(at, path, flags, mode)

int open(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD); }
int open64(const char *path, int flags, ...) { OPEN_BODY(AT_FDCWD); }
int openat(int at, const char *path, int flags, ...) { OPEN_BODY(at); }
int openat64(int at, const char *path, int flags, ...) { OPEN_BODY(at); }
int __open_2(const char *path, int flags) { return open_file(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_file(AT_FDCWD, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_file(at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return open_file(at, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_file(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int descriptor) {
    if (handle_of(descriptor) == 0) return (int)syscall(SYS_close, descriptor);
    pthread_mutex_lock(&lock);
    set_handle(descriptor, 0);
    int result = (int)syscall(SYS_close, descriptor);
    pthread_mutex_unlock(&lock);
    return result;
}

/* A descriptor that means the same file as another, or that has come to mean it. */
static int same(int descriptor, int copy) {
    if (copy >= 0 && copy < DESCRIPTORS_MAX) set_handle(copy, handle_of(descriptor));
    return copy;
}

int dup(int descriptor) { return same(descriptor, (int)syscall(SYS_dup, descriptor)); }
int dup3(int descriptor, int copy, int flags) { return same(descriptor, (int)syscall(SYS_dup3, descriptor, copy, flags)); }
int dup2(int descriptor, int copy) {
    return descriptor == copy ? (int)syscall(SYS_fcntl, descriptor, F_GETFD) < 0 ? -1 : copy : dup3(descriptor, copy, 0);
}

int fcntl(int descriptor, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    int result = (int)syscall(SYS_fcntl, descriptor, command, argument);
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? same(descriptor, result) : result;
}
int fcntl64(int descriptor, int command, ...) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    return fcntl(descriptor, command, argument);
}

/* Whether `bytes` more may be written. */
static int fits(uint64_t bytes) {
    if ((uint64_t)bytes_left < bytes) {
        errno = ENOSPC;
        return 0;
    }
    bytes_left -= (int64_t)bytes;
    return 1;
}

/* Writes at an offset, or where the file stands if it is negative. */
static ssize_t write_file(uint64_t handle, int descriptor, const struct iovec *parts, int count, off_t offset) {
    size_t bytes = 0;
    for (int at = 0; at < count; at++) bytes += parts[at].iov_len;
    pthread_mutex_lock(&lock);
    ssize_t written = -1;
    if (fits(bytes)) {
        written = offset < 0 ? syscall(SYS_writev, descriptor, parts, count) : syscall(SYS_pwritev, descriptor, parts, count, offset, 0L);
    }
    int error = errno;
    if (written > 0) {
        off_t from = offset < 0 ? (off_t)syscall(SYS_lseek, descriptor, 0L, SEEK_CUR) - written : offset;
        size_t left = (size_t)written;
        for (int at = 0; at < count && left > 0; at++) {
            size_t part = parts[at].iov_len < left ? parts[at].iov_len : left;
            if (part > 0) append(WRITE, handle, (uint64_t)from, parts[at].iov_base, part, NULL);
            from += (off_t)part;
            left -= part;
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t write(int descriptor, const void *data, size_t bytes) {
    uint64_t handle = handle_of(descriptor);
    struct iovec part = {(void *)data, bytes};
    return handle == 0 ? syscall(SYS_write, descriptor, data, bytes) : write_file(handle, descriptor, &part, 1, -1);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    uint64_t handle = handle_of(descriptor);
    return handle == 0 ? syscall(SYS_writev, descriptor, parts, count) : write_file(handle, descriptor, parts, count, -1);
}
ssize_t pwrite(int descriptor, const void *data, size_t bytes, off_t offset) {
    uint64_t handle = handle_of(descriptor);
    struct iovec part = {(void *)data, bytes};
    return handle == 0 ? syscall(SYS_pwrite64, descriptor, data, bytes, offset) : write_file(handle, descriptor, &part, 1, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t bytes, off_t offset) { return pwrite(descriptor, data, bytes, offset); }
ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    uint64_t handle = handle_of(descriptor);
    return handle == 0 ? syscall(SYS_pwritev, descriptor, parts, count, offset, 0L) : write_file(handle, descriptor, parts, count, offset);
}
ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off_t offset) { return pwritev(descriptor, parts, count, offset); }

/* Ways to write without showing the data are refused where it would go under the root: every caller has
 * another way. */
ssize_t copy_file_range(int from, off_t *from_offset, int to, off_t *to_offset, size_t bytes, unsigned flags) {
    if (handle_of(to) == 0) return syscall(SYS_copy_file_range, from, from_offset, to, to_offset, bytes, flags);
    errno = ENOSYS;
    return -1;
}
ssize_t sendfile(int to, int from, off_t *offset, size_t bytes) {
    if (handle_of(to) == 0) return syscall(SYS_sendfile, to, from, offset, bytes);
    errno = EINVAL;
    return -1;
}
ssize_t sendfile64(int to, int from, off_t *offset, size_t bytes) { return sendfile(to, from, offset, bytes); }
ssize_t splice(int from, off_t *from_offset, int to, off_t *to_offset, size_t bytes, unsigned flags) {
    if (handle_of(to) == 0) return syscall(SYS_splice, from, from_offset, to, to_offset, bytes, flags);
    errno = EINVAL;
    return -1;
}

int ftruncate(int descriptor, off_t length) {
    uint64_t handle = handle_of(descriptor);
    if (handle == 0) return (int)syscall(SYS_ftruncate, descriptor, length);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_ftruncate, descriptor, length);
    if (result == 0) append(RESIZE, handle, (uint64_t)length, NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate64(int descriptor, off_t length) { return ftruncate(descriptor, length); }

int truncate(const char *path, off_t length) {
    char full[PATH_MAX];
    if (!resolve(AT_FDCWD, path, full)) return (int)syscall(SYS_truncate, path, length);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_truncate, path, length);
    if (result == 0) append_path(RESIZE_AT, 0, (uint64_t)length, full);
    pthread_mutex_unlock(&lock);
    return result;
}
int truncate64(const char *path, off_t length) { return truncate(path, length); }

int fallocate(int descriptor, int mode, off_t offset, off_t bytes) {
    uint64_t handle = handle_of(descriptor);
    if (handle == 0) return (int)syscall(SYS_fallocate, descriptor, mode, offset, bytes);
    if (mode != 0) {
        errno = EOPNOTSUPP;
        return -1;
    }
    struct stat before;
    pthread_mutex_lock(&lock);
    int result = fstat(descriptor, &before);
    if (result == 0) result = (int)syscall(SYS_fallocate, descriptor, 0, offset, bytes);
    if (result == 0 && offset + bytes > before.st_size) append(RESIZE, handle, (uint64_t)(offset + bytes), NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}
int fallocate64(int descriptor, int mode, off_t offset, off_t bytes) { return fallocate(descriptor, mode, offset, bytes); }
int posix_fallocate(int descriptor, off_t offset, off_t bytes) { return fallocate(descriptor, 0, offset, bytes) == 0 ? 0 : errno; }
int posix_fallocate64(int descriptor, off_t offset, off_t bytes) { return posix_fallocate(descriptor, offset, bytes); }

static int sync_file(long call, int descriptor, enum kind kind) {
    uint64_t handle = handle_of(descriptor);
    if (handle == 0) return (int)syscall(call, descriptor);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(call, descriptor);
    if (result == 0) append(kind, handle, 0, NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int descriptor) { return sync_file(SYS_fsync, descriptor, SYNC); }
int fdatasync(int descriptor) { return sync_file(SYS_fdatasync, descriptor, SYNC); }
int syncfs(int descriptor) { return sync_file(SYS_syncfs, descriptor, SYNC_ALL); }
void sync(void) {
    pthread_once(&once, start);
    pthread_mutex_lock(&lock);
    syscall(SYS_sync);
    if (journal >= 0) append(SYNC_ALL, 0, 0, NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
}

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    int inside = resolve(from_at, from, full_from);
    if (inside != resolve(to_at, to, full_to)) abort(); /* into or out of the root: nothing here does that */
    if (!inside) return (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (result == 0) append(RENAME, 0, flags, full_from, strlen(full_from), full_to);
    pthread_mutex_unlock(&lock);
    return result;
}
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_at, const char *from, int to_at, const char *to, int flags) {
    char full_from[PATH_MAX], full_to[PATH_MAX];
    int inside = resolve(from_at, from, full_from);
    if (inside != resolve(to_at, to, full_to)) abort();
    if (!inside) return (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_linkat, from_at, from, to_at, to, flags);
    if (result == 0) append(LINK, 0, 0, full_from, strlen(full_from), full_to);
    pthread_mutex_unlock(&lock);
    return result;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    char full[PATH_MAX];
    if (!resolve(at, path, full)) return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    if (result == 0) append_path(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, full);
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
    int result = unlinkat(AT_FDCWD, path, 0);
    return result != 0 && errno == EISDIR ? rmdir(path) : result;
}

int mkdirat(int at, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!resolve(at, path, full)) return (int)syscall(SYS_mkdirat, at, path, mode);
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_mkdirat, at, path, mode);
    if (result == 0) append_path(MKDIR, 0, 0, full);
    pthread_mutex_unlock(&lock);
    return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

void *mmap(void *address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
    void *mapped = (void *)syscall(SYS_mmap, address, bytes, protection, flags, descriptor, offset);
    if (mapped == MAP_FAILED || descriptor < 0 || !(flags & MAP_SHARED) || !(protection & PROT_WRITE)) return mapped;
    uint64_t handle = handle_of(descriptor);
    if (handle != 0) {
        pthread_mutex_lock(&lock);
        append(MAP, handle, 0, NULL, 0, NULL);
        pthread_mutex_unlock(&lock);
    }
    return mapped;
}
void *mmap64(void *address, size_t bytes, int protection, int flags, int descriptor, off_t offset) {
    return mmap(address, bytes, protection, flags, descriptor, offset);
}
