/* actors: the processes that are measured. Every actor is bounded in count and in time, prints
 * "done COUNT" on stdout when its processes exist, waits for the end of its stdin, then kills and
 * reaps them. The first argument names the actor; the functions at the end document the arguments
 * of each. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Seconds until a sleeper exits by itself, in case that both the harness and the actor were killed. */
enum { LIFE = 150, MOST = 60000 };

struct record { int64_t pid, ns; };

/* Shared by all processes of one actor: the sleepers, and for each the time from which it could be
 * placed. */
static struct { atomic_int seats, sleeping, forks; struct record at[MOST]; } *roll;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void nap(int64_t us)
{
	struct timespec t = {us / 1000000, us % 1000000 * 1000};
	while (nanosleep(&t, &t) && errno == EINTR)
		;
}

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void become(uid_t uid)
{
	if (uid && setresuid(uid, uid, uid))
		die("setresuid");
}

static pid_t spawn(void)
{
	pid_t pid = fork();
	if (pid < 0)
		die("fork");
	atomic_fetch_add_explicit(&roll->forks, pid > 0, memory_order_relaxed);
	return pid;
}

static void enrol(int64_t ns)
{
	int seat = atomic_fetch_add(&roll->seats, 1);
	if (seat >= MOST)
		_exit(1);
	roll->at[seat] = (struct record){getpid(), ns};
	atomic_fetch_add(&roll->sleeping, 1);
}

static void sleep_for_good(int64_t ns)
{
	enrol(ns);
	alarm(LIFE);
	for (;;)
		pause();
}

static void pin(int cpu)
{
	cpu_set_t set;
	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof set, &set);
}

/* Writes the records, prints their number, waits for the harness, then kills every sleeper by its
 * PID. */
static int settle(const char *path, int expected, int64_t wait_ms)
{
	char byte;
	int count, seats, fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	for (int64_t end = now() + wait_ms * 1000000; atomic_load(&roll->sleeping) < expected && now() < end;)
		nap(1000);
	count = atomic_load(&roll->sleeping);
	seats = atomic_load(&roll->seats) < MOST ? atomic_load(&roll->seats) : MOST;
	if (fd < 0 || write(fd, roll->at, seats * sizeof *roll->at) < 0)
		die(path);
	printf("done %d forks %d\n", count, atomic_load(&roll->forks));
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	/* A seat that is taken and not yet filled is 0, and kill(0) would kill our own process group. */
	for (int i = 0; i < seats; i++)
		if (roll->at[i].pid > 0)
			kill(roll->at[i].pid, SIGKILL);
	while (wait(NULL) > 0 || errno == EINTR)
		;
	return 0;
}

/* leash PROGRAM ARG...: the program is killed with the process that started it. */
static int leash(char **arg)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(arg[0], arg);
	return perror(arg[0]), 1;
}

/* pulse UID COUNT GAP_US CPU RECORDS: one process after another changes to the UID and sleeps. The
 * time is taken directly before the system call. */
static int pulse(char **arg)
{
	uid_t uid = atoi(arg[0]);
	int count = atoi(arg[1]);

	pin(atoi(arg[3]));
	for (int i = 0; i < count; i++) {
		if (!spawn()) {
			int64_t ns = now();
			become(uid);
			sleep_for_good(ns);
		}
		nap(atoll(arg[2]));
	}
	return settle(arg[4], count, 5000);
}

/* pulse-exec UID COUNT GAP_US CPU PROGRAM RECORDS: one process after another has the UID, and
 * executes PROGRAM with the argument `sleep` 2 ms later. The time is taken directly before the
 * system call. */
static int pulse_exec(char **arg)
{
	uid_t uid = atoi(arg[0]);
	int count = atoi(arg[1]);

	pin(atoi(arg[3]));
	for (int i = 0; i < count; i++) {
		if (!spawn()) {
			become(uid);
			nap(2000);
			alarm(LIFE);
			enrol(now());
			execl(arg[4], arg[4], "sleep", NULL);
			die(arg[4]);
		}
		nap(atoll(arg[2]));
	}
	return settle(arg[5], count, 5000);
}

/* sleep: until the alarm that was set before the exec. */
static int sleeper(char **arg)
{
	(void)arg;
	while (pause() < 0 && errno == EINTR)
		;
	return 1;
}

static void grow(int width, int depth)
{
	for (int i = 0; depth && i < width; i++)
		if (!spawn()) {
			depth--;
			i = -1;
		}
	sleep_for_good(0);
}

/* tree UID WIDTH DEPTH RECORDS: the root of the tree changes to the UID and forks at once. */
static int tree(char **arg)
{
	int width = atoi(arg[1]), depth = atoi(arg[2]), level = 1, expected = 1;

	for (int i = 0; i < depth; i++)
		expected += level *= width;
	if (!spawn()) {
		become(atoi(arg[0]));
		grow(width, depth);
	}
	return settle(arg[3], expected, 60000);
}

/* crowd FIRST USERS EACH RECORDS: this number of processes of each of these users, whose UIDs begin with FIRST. */
static int crowd(char **arg)
{
	int users = atoi(arg[1]), each = atoi(arg[2]);

	for (int user = 0; user < users; user++)
		if (!spawn()) {
			become(atoi(arg[0]) + user);
			grow(each - 1, 1);
		}
	return settle(arg[3], users * each, 60000);
}

/* orphans UID COUNT SPAWNERS RECORDS: each parent changes to the UID, forks and exits. */
static int orphans(char **arg)
{
	int spawners = atoi(arg[2]), each = atoi(arg[1]) / spawners;

	for (int s = 0; s < spawners; s++)
		if (!spawn()) {
			signal(SIGCHLD, SIG_DFL);
			for (int i = 0; i < each; i++) {
				pid_t parent = spawn();
				if (!parent) {
					become(atoi(arg[0]));
					if (!spawn())
						sleep_for_good(0);
					_exit(0);
				}
				waitpid(parent, NULL, 0);
			}
			_exit(0);
		}
	return settle(arg[3], each * spawners, 60000);
}

static void leave_sleeper(int turn)
{
	if (turn % 100 == 0 && !spawn())
		sleep_for_good(0);
}

/* Forks and waits, like a common service. */
static void steady(int turns)
{
	signal(SIGCHLD, SIG_DFL);
	for (int i = 1; i <= turns; i++) {
		pid_t child = spawn();
		if (!child)
			_exit(0);
		waitpid(child, NULL, 0);
		leave_sleeper(i);
	}
	_exit(0);
}

/* Each process forks its successor and exits, which is the hardest case to track. */
static void relay(int turns)
{
	for (int i = 1; i <= turns; i++) {
		if (spawn())
			_exit(0);
		leave_sleeper(i);
	}
	_exit(0);
}

/* churn UID FORKS WORKERS RECORDS: workers, half of them steady and half relays; every 100th fork
 * leaves a sleeper. */
static int churn(char **arg)
{
	int workers = atoi(arg[2]), each = atoi(arg[1]) / workers;

	if (!spawn()) {
		become(atoi(arg[0]));
		for (int w = 0; w < workers; w++)
			if (!spawn())
				w % 2 ? relay(each) : steady(each);
		_exit(0);
	}
	return settle(arg[3], each / 100 * workers, 120000);
}

static int report(long count)
{
	printf("done %ld\n", count);
	return 0;
}

static void *nothing(void *unused) { return unused; }

/* forks|threads|comms MILLISECONDS UID CPU: as many as possible. */
static int storm(const char *what, char **arg)
{
	int64_t end = now() + atoll(arg[0]) * 1000000;
	long count = 0;
	pthread_t thread;

	pin(atoi(arg[2]));
	become(atoi(arg[1]));
	for (; now() < end; count++) {
		if (!strcmp(what, "threads")) {
			if (!pthread_create(&thread, NULL, nothing, NULL))
				pthread_join(thread, NULL);
		} else if (!strcmp(what, "comms")) {
			prctl(PR_SET_NAME, count & 1 ? "odd" : "even");
		} else {
			pid_t child = fork();
			if (!child)
				_exit(0);
			waitpid(child, NULL, 0);
		}
	}
	return report(count);
}

/* busy MILLISECONDS COUNT: processes that compute without waiting. They die with this one. */
static int busy(char **arg)
{
	int64_t end = now() + atoll(arg[0]) * 1000000;
	int count = atoi(arg[1]);

	for (int i = 0; i < count; i++)
		if (!spawn()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (getppid() != 1 && now() < end)
				;
			_exit(0);
		}
	nap((end - now()) / 1000);
	return report(count);
}

/* reclaim MILLISECONDS PROCS FILE SIZE: reads the file again and again in the cgroup of PROCS, whose memory limit is
 * less than SIZE bytes, so that each page is reclaimed and read from the disk. */
static int reclaim(char **arg)
{
	int64_t end = now() + atoll(arg[0]) * 1000000;
	size_t size = strtoul(arg[3], NULL, 10), pages = 0;
	int procs = open(arg[1], O_WRONLY), file = open(arg[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
	static char block[1 << 20];

	if (procs < 0 || write(procs, "0", 1) != 1)
		die(arg[1]);
	memset(block, 1, sizeof block);
	for (size_t done = 0; done < size; done += sizeof block)
		if (file < 0 || write(file, block, sizeof block) != sizeof block)
			die(arg[2]);
	volatile char *at = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
	if (at == MAP_FAILED)
		die("mmap");
	unlink(arg[2]);
	while (now() < end)
		for (size_t offset = 0; offset < size && now() < end; offset += 4096)
			pages += at[offset];
	return report(pages / 1000);
}

static pid_t run(char **argv)
{
	pid_t pid = vfork();
	if (!pid) {
		execv(argv[0], argv);
		_exit(127);
	}
	return pid;
}

/* execs MILLISECONDS MOST RATE UID CPU PROGRAM EVERY CHECKER ARG...: at most MOST, paced to RATE a
 * second (0: unpaced); every EVERYth runs CHECKER ARG... instead, which is not awaited before the
 * end. */
static int execs(char **arg)
{
	int64_t start = now(), end = start + atoll(arg[0]) * 1000000;
	long most = atol(arg[1]), rate = atol(arg[2]), every = atol(arg[6]), count = 0;
	char *tiny[] = {arg[5], NULL};

	pin(atoi(arg[4]));
	become(atoi(arg[3]));
	for (; count < most && now() < end; count++) {
		if (every && count % every == 0) {
			run(arg + 7);
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
		} else {
			waitpid(run(tiny), NULL, 0);
		}
		/* The clock is read every 32nd time: pacing must not cost more than the paced operation. */
		if (rate && count % 32 == 0 && now() < start + count * 1000000000 / rate)
			nap((start + count * 1000000000 / rate - now()) / 1000);
	}
	int64_t took = now() - start;
	while (wait(NULL) > 0 || errno == EINTR)
		;
	printf("done %ld ms %ld\n", count, (long)(took / 1000000));
	return 0;
}

int main(int argc, char **argv)
{
	static const struct { const char *name; int args; int (*run)(char **); } actors[] = {
		{"leash", 1, leash}, {"pulse", 5, pulse}, {"tree", 4, tree},
		{"orphans", 4, orphans}, {"churn", 4, churn}, {"execs", 7, execs},
		{"pulse-exec", 6, pulse_exec}, {"sleep", 0, sleeper}, {"busy", 2, busy},
		{"reclaim", 4, reclaim}, {"crowd", 4, crowd},
	};
	const char *name = argc > 1 ? argv[1] : "";

	roll = mmap(NULL, sizeof *roll, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (roll == MAP_FAILED)
		die("mmap");
	for (unsigned i = 0; i < sizeof actors / sizeof *actors; i++)
		if (!strcmp(name, actors[i].name) && argc - 2 >= actors[i].args) {
			/* Orphans are reparented to the actor, and the kernel reaps them if SIGCHLD is ignored:
			 * 50,000 zombies would use up all PIDs. A leashed program must not inherit that, and an
			 * exec storm waits by itself. */
			if (actors[i].run != leash && actors[i].run != execs) {
				prctl(PR_SET_CHILD_SUBREAPER, 1);
				signal(SIGCHLD, SIG_IGN);
			}
			return actors[i].run(argv + 2);
		}
	if (argc == 5)
		return storm(name, argv + 2);
	return fprintf(stderr, "actors: no actor %s with %d arguments\n", name, argc - 2), 2;
}
