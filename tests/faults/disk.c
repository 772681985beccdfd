/* Stands between a process and the C library, to see and to break what it does to the files below DISK_ROOT.

   DISK_LOG gets a line for each write, sync, rename and HTTP answer, in the order in which they ended (write ones: began).
   DISK_KEPT gets what a power cut would leave: the bytes of each file at its last sync, and the names in each folder at
   its last sync. DISK_FAULT is a file that holds "OPERATION SUFFIX HOW N" while the N-th such operation
   from then on is to go wrong: HOW is torn (half of it is written, then the process dies), EIO or ENOSPC. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *root, *kept, *fault;
static int said = -1;
static int matched;

__attribute__((constructor)) static void begin(void)
{
    root = getenv("DISK_ROOT");
    kept = getenv("DISK_KEPT");
    fault = getenv("DISK_FAULT");
    if (root)
        said = open(getenv("DISK_LOG"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The part of a path below the root, or NULL. */
static const char *below(const char *path)
{
    size_t length = root ? strlen(root) : 0;
    if (!length || strncmp(path, root, length) || (path[length] && path[length] != '/'))
        return NULL;
    return path[length] ? path + length + 1 : ".";
}

static const char *name_of(int fd, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = root ? readlink(link, path, PATH_MAX - 1) : -1;
    if (length < 0)
        return NULL;
    path[length] = 0;
    return below(path);
}

static void say(const char *what, const char *name)
{
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", what, name);
    syscall(SYS_write, said, line, length);
}

static int breaks(const char *what, const char *name)
{
    char text[256], operation[32], suffix[128], how[32];
    int before = errno, number, fd = fault ? open(fault, O_RDONLY | O_CLOEXEC) : -1;
    errno = before;
    if (fd < 0)
        return 0;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length < 0 ? 0 : length] = 0;
    if (sscanf(text, "%31s %127s %31s %d", operation, suffix, how, &number) != 4 || strcmp(operation, what))
        return 0;
    size_t all = strlen(name), end = strlen(suffix);
    if (all < end || strcmp(name + all - end, suffix) || __sync_add_and_fetch(&matched, 1) != number)
        return 0;
    say("broken", name);
    return !strcmp(how, "torn") ? -1 : !strcmp(how, "EIO") ? EIO : ENOSPC;
}

/* Read by the caller's own handle: closing another one would drop the locks that SQLite holds on the file. */
static void keep_bytes(int fd, int to)
{
    char block[1 << 16];
    off_t at = 0;
    ssize_t got;
    int other = -1;
    if (pread(fd, block, 1, 0) < 0) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        fd = other = open(link, O_RDONLY | O_CLOEXEC);
    }
    while ((got = pread(fd, block, sizeof block, at)) > 0) {
        syscall(SYS_write, to, block, got);
        at += got;
    }
    if (other >= 0)
        close(other);
}

/* What a file is kept as. Its number alone would not do: a new file may have that of a deleted one. */
static int key_of(int fd, const char *path, char *key)
{
    struct statx found;
    if (statx(fd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &found))
        return -1;
    sprintf(key, "%llu-%lld.%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec,
            found.stx_btime.tv_nsec);
    return S_ISDIR(found.stx_mode);
}

static void keep_names(const char *path, int to)
{
    DIR *folder = opendir(path);
    struct dirent *one;
    char key[64];
    while (folder && (one = readdir(folder))) {
        int is_folder = strcmp(one->d_name, ".") && strcmp(one->d_name, "..") ? key_of(dirfd(folder), one->d_name, key) : -1;
        if (is_folder >= 0)
            dprintf(to, "%s %s %s\n", is_folder ? "folder" : "file", key, one->d_name);
    }
    if (folder)
        closedir(folder);
}

static void keep(int fd, const char *path, const char *name)
{
    char draft[PATH_MAX], final[PATH_MAX], key[64];
    int is_folder = kept ? key_of(fd, "", key) : -1;
    if (is_folder < 0)
        return;
    snprintf(draft, sizeof draft, "%s/%s.%ld", kept, key, syscall(SYS_gettid));
    snprintf(final, sizeof final, "%s/%s", kept, strcmp(name, ".") ? key : "root");
    int to = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    is_folder ? keep_names(path, to) : keep_bytes(fd, to);
    close(to);
    syscall(SYS_renameat2, AT_FDCWD, draft, AT_FDCWD, final, 0);
}

static int synced(int fd, long number)
{
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    int broken = name ? breaks("sync", name) : 0;
    if (broken) {
        errno = broken;
        return -1;
    }
    int result = syscall(number, fd);
    if (!result && name) {
        keep(fd, path, name);
        say("sync", name);
    }
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* How many bytes to write, or -1 when the write fails. */
static ssize_t before_write(int fd, size_t count, int *torn)
{
    char path[PATH_MAX];
    const char *name = name_of(fd, path);
    if (!name)
        return count;
    say("write", name);
    int broken = breaks("write", name);
    *torn = broken < 0;
    if (broken > 0)
        errno = broken;
    return broken > 0 ? -1 : *torn ? (ssize_t)count / 2 : (ssize_t)count;
}

static ssize_t after_write(ssize_t written, int torn)
{
    if (torn)
        for (kill(getpid(), SIGKILL);;)
            pause();
    return written;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    int torn = 0;
    ssize_t some = before_write(fd, count, &torn);
    return some < 0 ? -1 : after_write(syscall(SYS_write, fd, bytes, some), torn);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    int torn = 0;
    ssize_t some = before_write(fd, count, &torn);
    return some < 0 ? -1 : after_write(syscall(SYS_pwrite64, fd, bytes, some, at), torn);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

int rename(const char *from, const char *to)
{
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    const char *name = result ? NULL : below(to);
    if (name)
        say("rename", name);
    return result;
}

ssize_t send(int fd, const void *bytes, size_t count, int flags)
{
    char status[4] = "";
    if (root && count > 12 && !memcmp(bytes, "HTTP/1.1 ", 9))
        say("answer", memcpy(status, (const char *)bytes + 9, 3));
    return syscall(SYS_sendto, fd, bytes, count, flags, NULL, 0);
}
