/* powercut: what would be on the disk if the power failed now. A library for LD_PRELOAD, Linux only.
 *
 *   cc -O2 -Wall -Wextra -shared -fPIC -o powercut.so powercut.c
 *   LD_PRELOAD=powercut.so POWERCUT_ROOT=/abs/data POWERCUT_SHADOW=/abs/shadow program
 *
 * While the program works below POWERCUT_ROOT, POWERCUT_SHADOW/tree holds what is durable. Kill the program at any
 * moment: the tree is then what a power cut may have left.
 *
 * 1. What is there when the program starts is durable.
 * 2. Written bytes become durable when an fsync or fdatasync that began after the write has returned success.
 *    sync_file_range, close and time do nothing.
 * 3. A new name becomes durable with the first sync of its file, as on ext4; every other change of a directory
 *    (rename, unlink) with a sync of that directory.
 * 4. While a file POWERCUT_BROKEN exists, each sync fails with EIO, and what it should have covered is lost for ever,
 *    as on Linux, where a later sync says success although the pages are gone.
 * 5. While a file POWERCUT_LYING exists, each sync says success and makes nothing durable, as cheap disks do. Whoever
 *    tests with this library has to find out, or the test is worth nothing.
 *
 * Not modelled: reordering within what was not synced (all of it is lost), mmap, O_SYNC, holes, copy_file_range, system
 * calls that do not go through libc. POWERCUT_SHADOW may be left out if only syncs shall fail.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define LONG_PATH (3 * PATH_MAX)
#define BUCKETS 1024

struct range {
    off_t from, to;
};

/* One file below the root, whatever its name. Inode numbers are used again, so the time of birth belongs to the key. */
struct file {
    struct file *next;
    ino_t inode;
    int64_t born_s;
    uint32_t born_ns;
    unsigned number; /* its durable bytes are in SHADOW/files/<number> */
    struct range *dirty;
    size_t count, capacity;
    uint64_t cleaned; /* how many ranges came before dirty[0] */
    uint64_t sealed;  /* a sync has seen the ranges before this one: they do not grow any more */
    uint64_t begun;   /* how many syncs have begun */
    uint64_t sized;   /* which of them has set the durable size */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file *files[BUCKETS];
static unsigned files_made;
static char root[PATH_MAX], shadow[PATH_MAX], broken[PATH_MAX], lying[PATH_MAX];
static size_t root_length;
static int on, mirroring;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void give_up(const char *what)
{
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    abort();
}

/* The part of a path below the root, with its leading slash, or NULL. */
static const char *below_root(const char *path)
{
    if (strncmp(path, root, root_length) != 0 || (path[root_length] != '/' && path[root_length] != 0))
        return NULL;
    return path + root_length;
}

/* Where an open file is now, below the root; 0 if it is elsewhere or has no name any more. */
static int name_of(int fd, char *relative)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return 0;
    path[length] = 0;
    const char *below = below_root(path);
    if (!below || strstr(below, " (deleted)"))
        return 0;
    strcpy(relative, below);
    return 1;
}

static int is_below_root(int fd)
{
    char relative[PATH_MAX];
    return name_of(fd, relative);
}

static void content_path(const struct file *file, char *path)
{
    snprintf(path, LONG_PATH, "%s/files/%u", shadow, file->number);
}

static void make_parents(char *path)
{
    for (char *slash = path + strlen(shadow) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        if (mkdir(path, 0755) != 0 && errno != EEXIST)
            give_up(path);
        *slash = '/';
    }
}

/* The record of the file behind `fd` (or of `path` if fd is AT_FDCWD). With an empty durable content if it is new. */
static struct file *record_of(int fd, const char *path)
{
    struct statx info;
    int flags = path[0] ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH;
    if (statx(fd, path, flags, STATX_INO | STATX_BTIME, &info) != 0)
        return NULL;
    struct file **bucket = &files[info.stx_ino % BUCKETS];
    for (struct file *file = *bucket; file; file = file->next)
        if (file->inode == info.stx_ino && file->born_s == info.stx_btime.tv_sec
            && file->born_ns == info.stx_btime.tv_nsec)
            return file;
    struct file *file = calloc(1, sizeof *file);
    if (!file)
        give_up("calloc");
    file->inode = info.stx_ino;
    file->born_s = info.stx_btime.tv_sec;
    file->born_ns = info.stx_btime.tv_nsec;
    file->number = files_made++;
    file->next = *bucket;
    *bucket = file;
    char content[LONG_PATH];
    content_path(file, content);
    int made = open(content, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (made < 0)
        give_up(content);
    close(made);
    return file;
}

static void add_range(struct file *file, off_t from, off_t to)
{
    int grows = file->cleaned + file->count > file->sealed;
    struct range *last = grows ? &file->dirty[file->count - 1] : NULL;
    if (last && last->from <= from && from <= last->to) {
        last->to = last->to > to ? last->to : to;
        return;
    }
    if (file->count == file->capacity) {
        file->capacity = file->capacity ? 2 * file->capacity : 16;
        file->dirty = realloc(file->dirty, file->capacity * sizeof *file->dirty);
        if (!file->dirty)
            give_up("realloc");
    }
    file->dirty[file->count++] = (struct range){from, to};
}

/* What a sync that begins now has to make durable. Another sync of the same file may be on its way with the same ranges:
 * whoever returns first has to have made them durable. */
static struct range *ranges_of(struct file *file, size_t *count)
{
    struct range *ranges = malloc((file->count + 1) * sizeof *ranges);
    if (!ranges)
        give_up("malloc");
    if (file->count)
        memcpy(ranges, file->dirty, file->count * sizeof *ranges);
    *count = file->count;
    file->sealed = file->cleaned + file->count;
    return ranges;
}

/* Forgets the ranges before this one: a sync has dealt with them. */
static void clean(struct file *file, uint64_t end)
{
    if (end <= file->cleaned)
        return;
    size_t gone = end - file->cleaned;
    file->count -= gone;
    memmove(file->dirty, file->dirty + gone, file->count * sizeof *file->dirty);
    file->cleaned = end;
}

/* Notes that bytes were written. */
static void note(int fd, off_t from, off_t to)
{
    struct stat info;
    int saved = errno;
    if (mirroring && from < to && fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && is_below_root(fd)) {
        pthread_mutex_lock(&lock);
        struct file *file = record_of(fd, "");
        if (file)
            add_range(file, from, to);
        pthread_mutex_unlock(&lock);
    }
    errno = saved;
}

static void note_at_position(int fd, ssize_t written)
{
    int saved = errno;
    if (mirroring && written > 0) {
        off_t end = lseek(fd, 0, SEEK_CUR);
        if (end >= written)
            note(fd, end - written, end);
    }
    errno = saved;
}

static void copy_range(int from, int to, struct range range)
{
    static char buffer[1 << 16]; /* under the lock */
    for (off_t at = range.from; at < range.to;) {
        size_t want = sizeof buffer;
        if ((off_t)want > range.to - at)
            want = range.to - at;
        ssize_t got = pread(from, buffer, want, at);
        if (got <= 0)
            return; /* the file has become shorter */
        if (real_pwrite(to, buffer, got, at) != got)
            give_up("write to the shadow");
        at += got;
    }
}

/* Makes `relative` a durable name of the file, in the place of whatever had this name. */
static void set_name(const struct file *file, const char *relative)
{
    char content[LONG_PATH], name[LONG_PATH], fresh[LONG_PATH];
    struct stat have, want;
    content_path(file, content);
    snprintf(name, sizeof name, "%s/tree%s", shadow, relative);
    if (stat(content, &want) != 0)
        give_up(content);
    if (stat(name, &have) == 0 && have.st_ino == want.st_ino)
        return;
    make_parents(name);
    snprintf(fresh, sizeof fresh, "%s/fresh", shadow);
    if (link(content, fresh) != 0 || rename(fresh, name) != 0)
        give_up(name);
}

static int has_name(const struct file *file)
{
    char content[LONG_PATH];
    struct stat info;
    content_path(file, content);
    return stat(content, &info) == 0 && info.st_nlink > 1;
}

/* Makes these ranges and this size durable, as sync number `sync` of the file found them. */
static void commit(int fd, struct file *file, uint64_t sync, const struct range *ranges, size_t count, off_t size)
{
    char content[LONG_PATH], self[64], relative[PATH_MAX];
    content_path(file, content);
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd); /* fd itself may be open for writing only */
    int from = open(self, O_RDONLY | O_CLOEXEC), to = open(content, O_WRONLY | O_CLOEXEC);
    if (from < 0 || to < 0)
        give_up(content);
    for (size_t at = 0; at < count; at++)
        copy_range(from, to, ranges[at]);
    if (sync >= file->sized) { /* one that began later may have returned earlier */
        if (real_ftruncate(to, size) != 0)
            give_up("truncate the shadow");
        file->sized = sync;
    }
    close(from);
    close(to);
    if (!has_name(file) && name_of(fd, relative))
        set_name(file, relative);
}

/* Makes the present names in a directory durable. Files whose bytes were never synced are durably empty. */
static void commit_directory(int fd)
{
    char relative[PATH_MAX], source[LONG_PATH], target[LONG_PATH], name[2 * LONG_PATH];
    if (!name_of(fd, relative))
        return;
    snprintf(source, sizeof source, "%s%s", root, relative);
    snprintf(target, sizeof target, "%s/tree%s/", shadow, relative);
    make_parents(target);
    DIR *directory = opendir(source);
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        struct stat info;
        snprintf(name, sizeof name, "%s/%s", source, entry->d_name);
        if (entry->d_name[0] == '.' && strspn(entry->d_name, ".") == strlen(entry->d_name))
            continue;
        if (lstat(name, &info) != 0)
            continue;
        if (S_ISDIR(info.st_mode)) {
            snprintf(name, sizeof name, "%s%s", target, entry->d_name);
            mkdir(name, 0755);
        } else if (S_ISREG(info.st_mode)) {
            struct file *file = record_of(AT_FDCWD, name);
            snprintf(name, sizeof name, "%s/%s", relative, entry->d_name);
            if (file)
                set_name(file, name);
        }
    }
    if (directory)
        closedir(directory);
    directory = opendir(target);
    while (directory && (entry = readdir(directory))) {
        struct stat info;
        snprintf(name, sizeof name, "%s/%s", source, entry->d_name);
        if (lstat(name, &info) == 0)
            continue;
        snprintf(name, sizeof name, "%s%s", target, entry->d_name);
        if (unlink(name) != 0)
            rmdir(name); /* one with something in it stays, as its own sync left it */
    }
    if (directory)
        closedir(directory);
}

static int sync_with(int fd, int (*real)(int))
{
    struct stat info;
    if (!on || fstat(fd, &info) != 0 || !is_below_root(fd))
        return real(fd);
    struct file *file = NULL;
    struct range *ranges = NULL;
    size_t count = 0;
    uint64_t end = 0, sync = 0;
    if (mirroring && S_ISREG(info.st_mode)) {
        pthread_mutex_lock(&lock);
        file = record_of(fd, "");
        if (file) {
            ranges = ranges_of(file, &count);
            end = file->sealed;
            sync = ++file->begun;
            fstat(fd, &info); /* the size in the order of the syncs */
        }
        pthread_mutex_unlock(&lock);
    }
    int result, durable = 0;
    if (broken[0] && access(broken, F_OK) == 0) {
        errno = EIO;
        result = -1;
    } else {
        result = real(fd);
        durable = result == 0 && !(lying[0] && access(lying, F_OK) == 0);
    }
    int saved = errno;
    pthread_mutex_lock(&lock);
    if (file && durable)
        commit(fd, file, sync, ranges, count, info.st_size);
    else if (mirroring && durable && S_ISDIR(info.st_mode))
        commit_directory(fd);
    if (file)
        clean(file, end);
    pthread_mutex_unlock(&lock);
    free(ranges);
    errno = saved;
    return result;
}

/* What is there at the start is durable. */
static int take_over(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)walk;
    const char *relative = below_root(path);
    if (!relative)
        return 0;
    if (type == FTW_D) {
        char directory[LONG_PATH];
        snprintf(directory, sizeof directory, "%s/tree%s/", shadow, relative);
        make_parents(directory);
    } else if (S_ISREG(info->st_mode)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct file *file = fd < 0 ? NULL : record_of(fd, "");
        if (!file)
            give_up(path);
        struct range all = {0, info->st_size};
        commit(fd, file, 0, &all, 1, info->st_size);
        close(fd);
    }
    return 0;
}

static int absolute(const char *name, char *path)
{
    const char *value = getenv(name);
    if (!value || value[0] != '/' || strlen(value) >= PATH_MAX)
        return 0;
    strcpy(path, value);
    return 1;
}

__attribute__((constructor)) static void start(void)
{
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    char given[PATH_MAX];
    if (!absolute("POWERCUT_ROOT", given) || !realpath(given, root))
        return;
    root_length = strlen(root);
    absolute("POWERCUT_BROKEN", broken);
    absolute("POWERCUT_LYING", lying);
    if (absolute("POWERCUT_SHADOW", shadow)) {
        char path[LONG_PATH];
        snprintf(path, sizeof path, "%s/files/", shadow);
        mkdir(shadow, 0755);
        make_parents(path);
        snprintf(path, sizeof path, "%s/tree/", shadow);
        make_parents(path);
        if (nftw(root, take_over, 16, FTW_PHYS) != 0)
            give_up("walk the root");
        mirroring = 1;
    }
    on = 1;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    ssize_t written = real_write(fd, bytes, count);
    note_at_position(fd, written);
    return written;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t written = real_writev(fd, parts, count);
    note_at_position(fd, written);
    return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at)
{
    ssize_t written = real_pwrite(fd, bytes, count, at);
    if (written > 0)
        note(fd, at, at + written);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    return pwrite64(fd, bytes, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    ssize_t written = real_pwritev(fd, parts, count, at);
    if (written > 0)
        note(fd, at, at + written);
    return written;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev64(fd, parts, count, at);
}

int ftruncate64(int fd, off_t size)
{
    struct stat before;
    int known = fstat(fd, &before) == 0;
    int result = real_ftruncate(fd, size);
    if (result == 0 && known)
        note(fd, size, before.st_size);
    return result;
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int fsync(int fd)
{
    return sync_with(fd, real_fsync);
}

int fdatasync(int fd)
{
    return sync_with(fd, real_fdatasync);
}
