// A user's program that tries to stay outside the cgroup of its rule. Built as an executable and as a
// library for LD_PRELOAD: everything happens before main(), so the process can have any executable.
//
//   ESCAPE=NAME        enables the program; its processes are found by this variable
//   ESCAPE_CGROUP=DIR  moves itself into this cgroup first
//   ESCAPE_COMM=COMM   changes its name
//   ESCAPE_ORPHANS=1   leaves its children to the nearest subreaper
//
// Forks 100 children, which sleep.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILDREN = 100 };

static void join(const char *cgroup) {
    char path[512];
    snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, "0", 1) != 1)
        perror(path);
    close(file);
}

static void fork_child(int is_orphan) {
    pid_t child = fork();
    if (child != 0) {
        if (is_orphan)
            waitpid(child, NULL, 0);
        return;
    }
    if (is_orphan && fork() != 0)
        _exit(0);
    for (;;)
        pause();
}

__attribute__((constructor)) static void escape(void) {
    const char *cgroup = getenv("ESCAPE_CGROUP"), *comm = getenv("ESCAPE_COMM");
    if (getenv("ESCAPE") == NULL)
        return;
    if (cgroup != NULL)
        join(cgroup);
    if (comm != NULL)
        prctl(PR_SET_NAME, comm);
    for (int i = 0; i < CHILDREN; i++)
        fork_child(getenv("ESCAPE_ORPHANS") != NULL);
    for (;;)
        pause();
}

int main(void) { return 1; }
