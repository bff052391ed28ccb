/* writer: does to a file system what its arguments say, then waits to be killed. For the test of powercut.c.
 *
 *   writer write NAME TEXT | append NAME TEXT | sync NAME | datasync NAME | rename OLD NEW | unlink NAME ...
 *
 * `sync .` syncs the directory. After each step it prints a line: "ok", or the error number.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int put(const char *name, const char *text, int flags)
{
    int fd = open(name, O_CREAT | O_WRONLY | flags, 0644);
    ssize_t size = (ssize_t)strlen(text);
    int result = fd < 0 || write(fd, text, size) != size ? -1 : 0;
    close(fd);
    return result;
}

static int sync_file(const char *name, int (*sync)(int))
{
    int fd = open(name, O_RDONLY);
    int result = sync(fd), saved = errno;
    close(fd);
    errno = saved;
    return result;
}

int main(int count, char **words)
{
    for (int at = 1; at < count;) {
        const char *verb = words[at++];
        int result;
        if (!strcmp(verb, "sync"))
            result = sync_file(words[at++], fsync);
        else if (!strcmp(verb, "datasync"))
            result = sync_file(words[at++], fdatasync);
        else if (!strcmp(verb, "unlink"))
            result = unlink(words[at++]);
        else if (!strcmp(verb, "rename"))
            result = rename(words[at], words[at + 1]), at += 2;
        else
            result = put(words[at], words[at + 1], verb[0] == 'a' ? O_APPEND : O_TRUNC), at += 2;
        if (result == 0)
            puts("ok");
        else
            printf("%d\n", errno);
        fflush(stdout);
    }
    for (;;)
        pause();
}
