// Makes a process of the same user fork without an exec, by ptrace: forge PID COUNT. The children
// sleep. A user can do this to the own service manager. x86-64 only.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(long result, const char *what) {
    if (result >= 0)
        return;
    perror(what);
    exit(1);
}

// Makes the stopped process execute its present system call again, as another one.
static void call(pid_t pid, struct user_regs_struct regs, long number) {
    regs.rip -= 2; // back to its `syscall` instruction
    regs.rax = number;
    regs.orig_rax = -1;
    check(ptrace(PTRACE_SETREGS, pid, NULL, &regs), "PTRACE_SETREGS");
}

static pid_t fork_once(pid_t pid, const struct user_regs_struct *regs) {
    unsigned long child = 0;
    int status = 0;
    call(pid, *regs, SYS_fork);
    check(ptrace(PTRACE_CONT, pid, NULL, NULL), "PTRACE_CONT");
    check(waitpid(pid, &status, 0), "waitpid");
    check(status >> 8 == (SIGTRAP | PTRACE_EVENT_FORK << 8) ? 0 : -1, "no fork");
    check(ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child), "PTRACE_GETEVENTMSG");
    check(waitpid((pid_t)child, &status, __WALL), "waitpid child");
    call((pid_t)child, *regs, SYS_pause);
    check(ptrace(PTRACE_DETACH, (pid_t)child, NULL, NULL), "PTRACE_DETACH child");
    // To the end of the fork, where registers can be set again.
    check(ptrace(PTRACE_SYSCALL, pid, NULL, NULL), "PTRACE_SYSCALL");
    check(waitpid(pid, &status, 0), "waitpid");
    return (pid_t)child;
}

int main(int count, char **words) {
    struct user_regs_struct regs;
    int status;
    if (count != 3)
        return 2;
    pid_t pid = atoi(words[1]);
    check(ptrace(PTRACE_SEIZE, pid, NULL, (void *)PTRACE_O_TRACEFORK), "PTRACE_SEIZE");
    check(ptrace(PTRACE_INTERRUPT, pid, NULL, NULL), "PTRACE_INTERRUPT");
    check(waitpid(pid, &status, 0), "waitpid");
    check(ptrace(PTRACE_GETREGS, pid, NULL, &regs), "PTRACE_GETREGS");
    for (int i = atoi(words[2]); i > 0; i--)
        printf("%d\n", fork_once(pid, &regs));
    // Restores the registers: the kernel restarts the interrupted system call.
    check(ptrace(PTRACE_SETREGS, pid, NULL, &regs), "PTRACE_SETREGS");
    check(ptrace(PTRACE_DETACH, pid, NULL, NULL), "PTRACE_DETACH");
    return 0;
}
