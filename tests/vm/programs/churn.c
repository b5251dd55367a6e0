/* churn COUNT AT-ONCE UID PATH UID PATH: COUNT short processes, of the two users in turn. Each ends when its v2 cgroup
 * ends in PATH, fails when it ends in the PATH of the other user, or is late after 30 s. Prints how many were wrong or
 * late, and the highest PID. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RIGHT, WRONG, LATE, FAILED };

static int ends(const char *line, const char *end)
{
    return strlen(line) >= strlen(end) && !strcmp(line + strlen(line) - strlen(end), end);
}

static int wait_for(const char *path, const char *other)
{
    char line[512];

    for (int n = 0; n < 300; n++) {
        FILE *file = fopen("/proc/self/cgroup", "re");
        while (file && fgets(line, sizeof line, file)) {
            line[strcspn(line, "\n")] = 0;
            if (!strncmp(line, "0::", 3) && ends(line, path))
                return RIGHT;
            if (!strncmp(line, "0::", 3) && ends(line, other))
                return WRONG;
        }
        if (file)
            fclose(file);
        usleep(100000);
    }
    return LATE;
}

int main(int argc, char **argv)
{
    int count = argc == 7 ? atoi(argv[1]) : 0, at_once = argc == 7 ? atoi(argv[2]) : 0, running = 0;
    int ended[FAILED + 1] = {0}, status;
    pid_t pid, highest = 0;

    for (int n = 0; n < count || running > 0;) {
        if (n < count && running < at_once) {
            char **user = argv + 3 + 2 * (n % 2), **other = argv + 3 + 2 * !(n % 2);
            pid = fork();
            if (!pid) {
                uid_t uid = atoi(user[0]);
                _exit(setresuid(uid, uid, uid) ? FAILED : wait_for(user[1], other[1]));
            }
            n++;
            running += pid > 0;
            ended[FAILED] += pid < 0;
            highest = pid > highest ? pid : highest;
        } else if (wait(&status) > 0) {
            running--;
            ended[WIFEXITED(status) ? WEXITSTATUS(status) : FAILED]++;
        }
    }
    printf("%d right, %d wrong, %d late, %d failed, highest PID %d\n", ended[RIGHT], ended[WRONG],
           ended[LATE], ended[FAILED], highest);
    return count == 0 || ended[RIGHT] != count;
}
