/*
 * The processes under test in the live tests. The arguments are steps, executed in order:
 *
 *   uid R E          set the real and the effective user ID (-1: keep)
 *   gid R E          set the group IDs likewise
 *   exec PATH ARGV0  execute PATH, which continues with the remaining steps
 *   login U          set the login user ID
 *   groups G         set the only supplementary group to G (-1: none)
 *   thread-uid U     a thread sets its own IDs and stays; the others keep theirs
 *   comm NAME        set the thread's name
 *   comm-of PATH     set it to the base name of PATH
 *   chdir PATH       change the working directory
 *   path DIRECTORY   find programs in DIRECTORY first
 *   fifo             use real-time scheduling
 *   normal           use normal scheduling
 *   unlink-me        remove the own executable file
 *   threads N        start N threads that stay
 *   fork             a child does the remaining steps, the parent waits for it
 *   double           a child's child does the remaining steps, the child exits at once
 *   spawn N          N children do the remaining steps, the parent waits for them
 *   vfork PATH ARGV0 a vforked child executes PATH with the remaining steps
 *   thread           a thread forks, its child does the remaining steps
 *   thread-exec PATH ARGV0  a thread executes PATH with the remaining steps
 *   tree DEPTH WIDTH become the root of a fork tree, say "tree N" when all N live, hold
 *   orphans N U      N times: a child becomes U, forks and exits; say "orphans N" when the
 *                    grandchildren live, hold
 *   orphan U         a child becomes U, forks and exits; the grandchild does the remaining steps
 *   daemonize        a child does the remaining steps, the parent exits at once
 *   subreaper        adopt orphaned descendants
 *   siblings N       clone N children with CLONE_PARENT, say "siblings N" when all live, hold
 *   thread-as U L    a thread sets its own IDs to U and does the remaining steps; the leader sets its
 *                    own IDs to L and holds
 *   exit-leader      the thread-group leader exits, another thread then does the remaining steps
 *   uid-exit U       all threads become U, the thread-group leader exits within 0.5 ms, another thread
 *                    then does the remaining steps
 *   breed US MS      every US microseconds: fork a child that exits after MS milliseconds. After a
 *                    byte on standard input: say "bred N" for the N children that live, hold with them
 *   relay LOW HIGH   a chain of processes that fork and exit at once, with PIDs from LOW and from
 *                    HIGH in turn (0: any). After a byte on standard input: say "relay 1", hold with
 *                    the last one
 *   reuse N U MS     N times, every MS milliseconds: a child becomes U and exits after 0 to 240 us,
 *                    another child gets its PID and holds; say "reused N" for the N of them, hold
 *   brood N          N children do the remaining steps; the parent says "brood N" and holds
 *   child            a child says "pid N" and stays, the parent does the remaining steps at once
 *   keep-caps        keep the capabilities when the user changes
 *   storm N PATH     N times: fork, execute PATH with `quit`, wait
 *   forks N          N times: fork, exit, wait
 *   toggle N A B     N times: effective user A, then B
 *   toggle-group N A B   N times: effective group A, then B
 *   gate             wait for one byte on standard input
 *   ask PID FLAGS    send PID and FLAGS to /run/cgred.socket, say "answer N" for a reply of N bytes
 *   connect N PATH   open N connections to the socket at PATH, say "connected N", keep them
 *   stamp U          set all user IDs to U, then say "stamp T": the microseconds of CLOCK_MONOTONIC before
 *                    that call, modulo 2^31
 *   verify TEXT      say "verified 1" if /proc/self/cgroup contains TEXT, else "verified 0"
 *   setsid           create a session
 *   sleep MS         wait for MS milliseconds
 *   eat MIB          use MIB mebibytes of memory
 *   busy             keep the first processor that it may use busy, say "busy N" before
 *   mntns            create a mount namespace
 *   bind FROM TO     bind mount FROM over TO
 *   netns, userns    create a network or user namespace
 *   say WORD         print one line to standard output
 *   quit             exit
 *   hold             say "pid N" and stay
 *
 *   retitle WORDS    overwrite the arguments with WORDS, separated by commas
 *   exec-empty PATH  execute PATH without any argument: it holds and says nothing
 *   exec-long PATH MIB LAST ARGV0  execute PATH, which continues with the remaining steps; MIB MiB of
 *                    other arguments and LAST follow them
 *
 * and those of clones.h.
 *
 * Every process exits when standard input is closed, that is when the test ends for any reason,
 * and after LIFETIME seconds at the latest.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <linux/securebits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIFETIME 120

static void die(const char *what)
{
	dprintf(2, "actors: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void check(int result, const char *what)
{
	if (result < 0)
		die(what);
}

static void set_login(const char *user)
{
	int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);

	check(fd, "loginuid");
	check(write(fd, user, strlen(user)), "loginuid");
	close(fd);
}

/* One write per line, so that lines of several processes do not mix. */
static void say(const char *word, long number)
{
	char line[64];
	int length = snprintf(line, sizeof line, "%s %ld\n", word, number);
	if (write(1, line, length) != length)
		_exit(0);
}

/* Waits for the other end of standard input to be closed. POLLHUP needs no interest, so bytes that
 * are meant for a gate are not consumed. */
static void stay(void)
{
	struct pollfd input = { .fd = 0, .events = 0 };
	while (poll(&input, 1, LIFETIME * 1000) < 0 && errno == EINTR)
		;
	_exit(0);
}

static pid_t child(void)
{
	pid_t pid = fork();
	check(pid, "fork");
	if (pid == 0)
		alarm(LIFETIME); /* alarms are not inherited */
	return pid;
}

static void reap_all(void)
{
	while (wait(NULL) > 0 || errno == EINTR)
		;
}

/* Counts the living members of a tree or a brood across processes. */
static long *shared_counter(void)
{
	long *counter = mmap(NULL, sizeof *counter, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counter == MAP_FAILED)
		die("mmap");
	return counter;
}

static void await_count(long *counter, long wanted)
{
	while (__atomic_load_n(counter, __ATOMIC_SEQ_CST) < wanted)
		usleep(1000);
}

static void count_me(long *counter)
{
	__atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

static void grow(long *counter, int depth, int width)
{
	count_me(counter);
	if (depth == 0)
		return;
	for (int i = 0; i < width; i++) {
		if (child() == 0) {
			grow(counter, depth - 1, width);
			stay();
		}
	}
}

static void tree(int depth, int width)
{
	long *counter = shared_counter();
	long size = 1, level = 1;
	for (int i = 0; i < depth; i++)
		size += level *= width;
	grow(counter, depth, width);
	await_count(counter, size);
	say("tree", size);
	stay();
}

static void steps(char **step);

static void orphan(long *counter, uid_t uid)
{
	check(setresuid(uid, uid, uid), "setresuid");
	if (child() != 0)
		_exit(0);
	setsid();
	count_me(counter);
	stay();
}

static void orphans(long n, uid_t uid)
{
	long *counter = shared_counter();
	for (long i = 0; i < n; i++) {
		pid_t middle = child();
		if (middle == 0)
			orphan(counter, uid);
		waitpid(middle, NULL, 0);
	}
	await_count(counter, n);
	say("orphans", n);
	stay();
}

static void orphaned(uid_t uid, char **rest)
{
	pid_t middle = child();
	if (middle == 0) {
		check(setresuid(uid, uid, uid), "setresuid");
		middle = getpid();
		if (child() != 0)
			_exit(0);
		while (kill(middle, 0) == 0) /* until it is reaped */
			usleep(1000);
		steps(rest);
	}
	waitpid(middle, NULL, 0);
	stay();
}

static void storm(long n, char *path)
{
	char *arguments[] = { path, "quit", NULL };
	for (long i = 0; i < n; i++) {
		pid_t pid = child();
		if (pid == 0) {
			execv(path, arguments);
			_exit(0); /* the test has ended and removed the program */
		}
		waitpid(pid, NULL, 0);
	}
}

static void forks(long n)
{
	for (long i = 0; i < n; i++) {
		pid_t pid = fork();
		check(pid, "fork");
		if (pid == 0)
			_exit(0);
		waitpid(pid, NULL, 0);
	}
}

static void toggle(long n, uid_t a, uid_t b)
{
	for (long i = 0; i < n; i++) {
		check(setresuid(-1, a, -1), "setresuid");
		check(setresuid(-1, b, -1), "setresuid");
	}
}

static void toggle_group(long n, gid_t a, gid_t b)
{
	for (long i = 0; i < n; i++) {
		check(setresgid(-1, a, -1), "setresgid");
		check(setresgid(-1, b, -1), "setresgid");
	}
}

static void *forking_thread(void *rest)
{
	if (child() == 0)
		steps(rest);
	return NULL;
}

static void thread(char **rest)
{
	pthread_t id;
	if (pthread_create(&id, NULL, forking_thread, rest) != 0)
		die("pthread_create");
	pthread_join(id, NULL);
	reap_all();
	_exit(0);
}

static void execute(char *path, char **arguments)
{
	execv(path, arguments);
	die(path);
}

static void run_vforked(char *path, char **arguments)
{
	pid_t pid = vfork();
	if (pid == 0) {
		execv(path, arguments);
		_exit(98);
	}
	check(pid, "vfork");
	reap_all();
	_exit(0);
}

struct program {
	char *path, **arguments;
};

static void *executing_thread(void *argument)
{
	struct program *program = argument;
	execute(program->path, program->arguments);
	return NULL;
}

static void thread_exec(char *path, char **arguments)
{
	struct program program = { path, arguments };
	pthread_t id;
	if (pthread_create(&id, NULL, executing_thread, &program) != 0)
		die("pthread_create");
	pthread_join(id, NULL);
	_exit(0);
}

static void spawn(long n, char **rest)
{
	for (long i = 0; i < n; i++)
		if (child() == 0)
			steps(rest);
	reap_all();
	_exit(0);
}

static void twice(char **rest)
{
	if (child() == 0) {
		if (child() == 0)
			steps(rest);
		_exit(0);
	}
	reap_all();
	stay();
}

static void brood(long n, char **rest)
{
	for (long i = 0; i < n; i++)
		if (child() == 0)
			steps(rest);
	say("brood", n);
	stay();
}

static void daemonize(char **rest)
{
	if (child() != 0)
		_exit(0);
	steps(rest);
}

/* Clones with CLONE_PARENT: the parent of the child is the parent of the caller. */
static pid_t sibling(void)
{
	pid_t pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
	check(pid, "clone");
	if (pid == 0)
		alarm(LIFETIME);
	return pid;
}

static void siblings(long n)
{
	long *counter = shared_counter();
	for (long i = 0; i < n; i++) {
		if (sibling() == 0) {
			count_me(counter);
			stay();
		}
	}
	await_count(counter, n);
	say("siblings", n);
	stay();
}

/* The system call changes only the calling thread, the library function all threads. */
static void set_thread_uid(uid_t uid)
{
	check(syscall(SYS_setresuid, uid, uid, uid), "setresuid");
}

struct duty {
	uid_t uid;
	char **rest;
};

static void *thread_with_own_uid(void *argument)
{
	struct duty *duty = argument;
	set_thread_uid(duty->uid);
	steps(duty->rest);
	return NULL;
}

static void thread_as(uid_t uid, uid_t leader, char **rest)
{
	struct duty duty = { uid, rest };
	pthread_t id;
	if (pthread_create(&id, NULL, thread_with_own_uid, &duty) != 0)
		die("pthread_create");
	set_thread_uid(leader);
	stay();
}

static long now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Waits longer than a wake-up of the daemon takes, and shorter than a sleep. */
static void spin(long us)
{
	long end = now_us() + us;
	while (now_us() < end)
		;
}

static int is_leader_dead(void)
{
	char text[256];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(fd, text, sizeof text - 1);
	check(length, "/proc/self/status");
	close(fd);
	text[length] = 0;
	return strstr(text, "State:\tZ") != NULL;
}

static void *surviving_thread(void *rest)
{
	while (!is_leader_dead())
		sched_yield();
	steps(rest);
	return NULL;
}

/* Changes the user of all threads first, unless uid is -1. */
static void exit_leader(uid_t uid, char **rest)
{
	pthread_t id;
	if (pthread_create(&id, NULL, surviving_thread, rest) != 0)
		die("pthread_create");
	check(setresuid(uid, uid, uid), "setresuid");
	if (uid != (uid_t)-1)
		spin(getpid() % 16 * 32); /* also before the daemon wakes up */
	pthread_exit(NULL);
}

/* State that several processes share. */
struct shared {
	long living, stop;
};

static struct shared *shared_state(void)
{
	struct shared *state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (state == MAP_FAILED)
		die("mmap");
	return state;
}

static int is_stopped(struct shared *state)
{
	return __atomic_load_n(&state->stop, __ATOMIC_SEQ_CST);
}

static void short_lived(struct shared *state, long ms)
{
	usleep(1000 * ms);
	if (!is_stopped(state)) {
		__atomic_sub_fetch(&state->living, 1, __ATOMIC_SEQ_CST);
		_exit(0);
	}
	stay();
}

static int standard_input(short wanted)
{
	struct pollfd input = { .fd = 0, .events = POLLIN };
	poll(&input, 1, 0);
	return (input.revents & wanted) != 0;
}

/* Returns whether standard input has a byte. */
static int has_byte(void)
{
	return standard_input(POLLIN);
}

/* Returns whether the test has ended. */
static int is_over(void)
{
	return standard_input(POLLHUP);
}

static void breed(long us, long ms)
{
	struct timespec pause = { .tv_nsec = 1000 * us };
	struct shared *state = shared_state();
	signal(SIGCHLD, SIG_IGN); /* reaps children */
	while (!has_byte() && !is_over()) {
		count_me(&state->living);
		if (child() == 0)
			short_lived(state, ms);
		nanosleep(&pause, NULL);
	}
	state->stop = 1;
	usleep(2000 * ms); /* children that had decided to exit have exited */
	say("bred", state->living);
	stay();
}

/* Forks a child with this PID, or with the next free one; 0: any. */
static pid_t child_with_pid(pid_t wanted, int may_differ)
{
	struct clone_args arguments = { .exit_signal = SIGCHLD,
					.set_tid = wanted != 0 ? (uintptr_t)&wanted : 0,
					.set_tid_size = wanted != 0 };
	pid_t pid;
	while ((pid = syscall(SYS_clone3, &arguments, sizeof arguments)) < 0) {
		if (errno != EEXIST || !may_differ)
			return -1;
		wanted++;
	}
	if (pid == 0)
		alarm(LIFETIME);
	return pid;
}

static void relay_on(struct shared *state, pid_t low, pid_t high)
{
	for (int i = 0; !is_stopped(state) && !is_over(); i++) {
		pid_t base = i % 2 ? high : low;
		pid_t pid = child_with_pid(base == 0 ? 0 : base + i / 2 % 300, 1);
		check(pid, "clone3");
		if (pid != 0)
			_exit(0);
	}
	count_me(&state->living);
	stay();
}

static void relay(pid_t low, pid_t high)
{
	struct shared *state = shared_state();
	check(prctl(PR_SET_CHILD_SUBREAPER, 1), "subreaper");
	signal(SIGCHLD, SIG_IGN);
	if (child() == 0)
		relay_on(state, low, high);
	while (!has_byte() && !is_over())
		usleep(1000);
	state->stop = 1;
	await_count(&state->living, 1);
	say("relay", 1);
	stay();
}

static void reuse(long n, uid_t uid, long ms)
{
	long living = 0;
	for (long i = 0; i < n; i++, usleep(1000 * ms)) {
		pid_t pid = child();
		if (pid == 0) {
			check(setresuid(uid, uid, uid), "setresuid");
			spin(i % 16 * 16);
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		pid = child_with_pid(pid, 0);
		if (pid == 0)
			stay();
		living += pid > 0;
	}
	say("reused", living);
	stay();
}

static void gate(void)
{
	char byte;
	if (read(0, &byte, 1) != 1)
		_exit(0);
}

static void eat(size_t bytes)
{
	volatile char *memory = malloc(bytes);
	if (memory == NULL)
		die("malloc");
	for (size_t i = 0; i < bytes; i += 4096)
		memory[i] = 1;
}

static void pin(void)
{
	cpu_set_t allowed;
	int first = 0;
	check(sched_getaffinity(0, sizeof allowed, &allowed), "sched_getaffinity");
	while (!CPU_ISSET(first, &allowed))
		first++;
	CPU_ZERO(&allowed);
	CPU_SET(first, &allowed);
	check(sched_setaffinity(0, sizeof allowed, &allowed), "sched_setaffinity");
}

static void busy(void)
{
	struct pollfd input = { .fd = 0, .events = 0 };
	pin();
	say("busy", getpid());
	while (poll(&input, 1, 0) == 0)
		for (volatile long i = 0; i < 1000000; i++)
			;
	_exit(0);
}

static void ask(int pid, int flags)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "/run/cgred.socket" };
	int request[2] = { pid, flags };
	char answer[64];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	check(connect(fd, (struct sockaddr *)&address, sizeof address), address.sun_path);
	check(write(fd, request, sizeof request), "write");
	ssize_t length = read(fd, answer, sizeof answer);
	say("answer", length < 0 ? 0 : length);
	close(fd);
}

static void connect_many(long n, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	for (long i = 0; i < n; i++) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		check(connect(fd, (struct sockaddr *)&address, sizeof address), path);
	}
	say("connected", n);
}

static void *idle_thread(void *argument)
{
	uid_t *uid = argument;
	if (uid != NULL)
		set_thread_uid(*uid);
	stay();
	return NULL;
}

static void idle_threads(long n, uid_t *uid)
{
	pthread_t id;
	for (long i = 0; i < n; i++)
		if (pthread_create(&id, NULL, idle_thread, uid) != 0)
			die("pthread_create");
}

static void real_time(void)
{
	struct sched_param param = { .sched_priority = 1 };
	check(sched_setscheduler(0, SCHED_FIFO, &param), "sched_setscheduler");
}

static void only_group(int gid)
{
	gid_t group = gid;
	check(setgroups(gid < 0 ? 0 : 1, &group), "setgroups");
}

/* Puts DIRECTORY first in PATH. */
static void set_path(const char *directory)
{
	char path[4096];
	snprintf(path, sizeof path, "%s:/usr/bin:/bin", directory);
	check(setenv("PATH", path, 1), "setenv");
}

static void unlink_me(void)
{
	char path[4096];
	ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
	check(length, "readlink");
	path[length] = 0;
	check(unlink(path), path);
}

static void own_mounts(void)
{
	check(unshare(CLONE_NEWNS), "unshare");
	check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount private");
}

#include "clones.h"

#define IS(name) (strcmp(word, name) == 0)
/* Returns the next argument of a step; a missing one is an error in the test. */
static char *next(char ***step)
{
	char *argument = *(*step)++;
	if (argument == NULL) {
		errno = EINVAL;
		die("missing argument");
	}
	return argument;
}

#include "arguments.h"

/* Runs the steps of clones.h. Returns whether `word` is one of them. */
static int multiply_by_rare_calls(const char *word, char **step)
{
	if (IS("clone")) {
		long n = atol(next(&step));
		unsigned long flags = strtoul(next(&step), NULL, 16);
		clone_many(n, flags, step);
	} else if (IS("into")) {
		char *path = next(&step);
		long n = atol(next(&step));
		clone_into(path, n, step);
	} else if (IS("set-tid")) {
		long n = atol(next(&step));
		pid_t pid = atoi(next(&step));
		clone_with_pids(n, pid, step);
	} else if (IS("posix-spawn")) {
		long n = atol(next(&step));
		char *path = next(&step);
		spawn_many(n, path, step);
	} else if (IS("exec-fd")) {
		char *path = next(&step);
		int file = open(path, O_RDONLY); /* the interpreter of a script reads it */
		check(file, path);
		execute_file(file, step);
	} else if (IS("exec-memfd")) {
		char *path = next(&step), *name = next(&step);
		execute_copy(path, name, step);
	} else if (IS("traced")) {
		char *path = next(&step);
		trace(path, step);
	} else {
		return 0;
	}
	return 1;
}

/* Runs steps that continue in other threads or processes. Returns whether `word` is one of them. */
static int multiply(const char *word, char **step)
{
	if (IS("daemonize")) {
		daemonize(step);
	} else if (IS("brood")) {
		long n = atol(next(&step));
		brood(n, step);
	} else if (IS("siblings")) {
		siblings(atol(next(&step)));
	} else if (IS("thread-as")) {
		uid_t uid = atoi(next(&step)), leader = atoi(next(&step));
		thread_as(uid, leader, step);
	} else if (IS("exit-leader")) {
		exit_leader(-1, step);
	} else if (IS("uid-exit")) {
		uid_t uid = atoi(next(&step));
		exit_leader(uid, step);
	} else if (IS("breed")) {
		long us = atol(next(&step));
		breed(us, atol(next(&step)));
	} else if (IS("relay")) {
		pid_t low = atoi(next(&step));
		relay(low, atoi(next(&step)));
	} else if (IS("reuse")) {
		long n = atol(next(&step));
		uid_t uid = atoi(next(&step));
		reuse(n, uid, atol(next(&step)));
	} else {
		return 0;
	}
	return 1;
}

/* Runs steps that end or split the process. */
static void split(const char *word, char **step)
{
	char *path;
	if (multiply(word, step) || multiply_by_rare_calls(word, step) || change_arguments(word, step))
		return;
	if (IS("exec")) {
		path = next(&step);
		execute(path, step);
	} else if (IS("thread-exec")) {
		path = next(&step);
		thread_exec(path, step);
	} else if (IS("vfork")) {
		path = next(&step);
		run_vforked(path, step);
	} else if (IS("fork")) {
		spawn(1, step);
	} else if (IS("double")) {
		twice(step);
	} else if (IS("thread")) {
		thread(step);
	} else if (IS("spawn")) {
		long n = atol(next(&step));
		spawn(n, step);
	} else if (IS("tree")) {
		int depth = atoi(next(&step));
		tree(depth, atoi(next(&step)));
	} else if (IS("orphans")) {
		long n = atol(next(&step));
		orphans(n, atoi(next(&step)));
	} else if (IS("orphan")) {
		uid_t uid = atoi(next(&step));
		orphaned(uid, step);
	} else if (IS("hold")) {
		say("pid", getpid());
		stay();
	} else if (IS("busy")) {
		busy();
	} else if (IS("quit")) {
		_exit(0);
	} else {
		errno = EINVAL;
		die(word);
	}
}

static void leave_child(void)
{
	pid_t pid = fork();
	check(pid, "fork");
	if (pid == 0) {
		say("pid", getpid());
		stay();
	}
}

/* Runs steps that prepare the state of the process. Returns whether `word` is one of them. */
static int prepare(const char *word, char ***step)
{
	static uid_t uid;
	if (IS("groups")) {
		only_group(atoi(next(step)));
	} else if (IS("comm-of")) {
		char *path = next(step), *slash = strrchr(path, '/');
		prctl(PR_SET_NAME, slash == NULL ? path : slash + 1);
	} else if (IS("chdir")) {
		check(chdir(next(step)), "chdir");
	} else if (IS("path")) {
		set_path(next(step));
	} else if (IS("fifo")) {
		real_time();
	} else if (IS("normal")) {
		struct sched_param none = { 0 };
		check(sched_setscheduler(0, SCHED_OTHER, &none), "sched_setscheduler");
	} else if (IS("child")) {
		leave_child();
	} else if (IS("subreaper")) {
		check(prctl(PR_SET_CHILD_SUBREAPER, 1), "subreaper");
	} else if (IS("keep-caps")) {
		check(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP), "securebits");
	} else if (IS("unlink-me")) {
		unlink_me();
	} else if (IS("threads")) {
		idle_threads(atol(next(step)), NULL);
	} else if (IS("thread-uid")) {
		uid = atoi(next(step));
		idle_threads(1, &uid);
	} else {
		return 0;
	}
	return 1;
}

/* The steps of clones.h that prepare. Whether `word` is one. */
static int prepare_by_rare_calls(const char *word, char ***step)
{
	if (IS("grant")) {
		grant(next(step));
	} else if (IS("fsid")) {
		int id = atoi(next(step));
		setfsgid(id);
		setfsuid(id);
	} else if (IS("login")) {
		set_login(next(step));
	} else if (IS("persona")) {
		check(personality(strtoul(next(step), NULL, 16)), "personality");
	} else if (IS("exe-file")) {
		set_exe_file(next(step));
	} else if (IS("join")) {
		char *pid = next(step);
		join_namespace(pid, next(step));
	} else if (IS("pidns")) {
		check(unshare(CLONE_NEWPID), "unshare");
	} else {
		return 0;
	}
	return 1;
}

static void stamp(uid_t uid)
{
	struct timespec before;
	clock_gettime(CLOCK_MONOTONIC, &before);
	check(setresuid(uid, uid, uid), "setresuid");
	say("stamp", (before.tv_sec * 1000000 + before.tv_nsec / 1000) & 0x7fffffff);
}

static void verify(const char *text)
{
	char own[4096] = "";
	int fd = open("/proc/self/cgroup", O_RDONLY);
	say("verified", fd >= 0 && read(fd, own, sizeof own - 1) > 0 && strstr(own, text) != NULL);
}

static void steps(char **step)
{
	char *word;
	while ((word = *step++) != NULL) {
		if (prepare(word, &step) || prepare_by_rare_calls(word, &step))
			continue;
		if (IS("uid")) {
			uid_t real = atoi(next(&step)), effective = atoi(next(&step));
			/* The saved ID stays 0 when only the effective one changes, so that it can toggle. */
			check(setresuid(real, effective, -1), "setresuid");
		} else if (IS("gid")) {
			gid_t real = atoi(next(&step)), effective = atoi(next(&step));
			check(setresgid(real, effective, -1), "setresgid");
		} else if (IS("comm")) {
			prctl(PR_SET_NAME, next(&step));
		} else if (IS("storm")) {
			long n = atol(next(&step));
			storm(n, next(&step));
		} else if (IS("forks")) {
			forks(atol(next(&step)));
		} else if (IS("toggle")) {
			long n = atol(next(&step));
			uid_t a = atoi(next(&step));
			toggle(n, a, atoi(next(&step)));
		} else if (IS("toggle-group")) {
			long n = atol(next(&step));
			gid_t a = atoi(next(&step));
			toggle_group(n, a, atoi(next(&step)));
		} else if (IS("gate")) {
			gate();
		} else if (IS("ask")) {
			int pid = atoi(next(&step));
			ask(pid, atoi(next(&step)));
		} else if (IS("connect")) {
			long n = atol(next(&step));
			connect_many(n, next(&step));
		} else if (IS("stamp")) {
			stamp(atoi(next(&step)));
		} else if (IS("verify")) {
			verify(next(&step));
		} else if (IS("setsid")) {
			setsid();
		} else if (IS("sleep")) {
			usleep(1000 * atol(next(&step)));
		} else if (IS("eat")) {
			eat((size_t)atol(next(&step)) << 20);
		} else if (IS("mntns")) {
			own_mounts();
		} else if (IS("bind")) {
			char *from = next(&step);
			check(mount(from, next(&step), NULL, MS_BIND, NULL), "bind mount");
		} else if (IS("netns")) {
			check(unshare(CLONE_NEWNET), "unshare");
		} else if (IS("userns")) {
			check(unshare(CLONE_NEWUSER), "unshare");
		} else if (IS("say")) {
			say(next(&step), getpid());
		} else {
			split(word, step);
		}
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	alarm(LIFETIME);
	remember_arguments(argc, argv);
	if (argc <= 1)
		stay();
	/* For the interpreter of a script the first argument is the path of the script. */
	int first = argc > 1 && argv[1][0] == '/' ? 2 : 1;
	steps(argv + first);
}
