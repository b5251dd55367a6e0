/*
 * Executions of a gated program, each of which tells where it was when it began.
 *
 *   gate storm UID COUNT PARALLEL PROGRAM CGROUP   PARALLEL processes of UID execute PROGRAM, COUNT times in all
 *   gate fill UID COUNT PROGRAM CGROUP MIB         as storm, one by one; each touches MIB MiB first
 *   gate fail UID PROGRAM                          an execution that fails (its arguments are too long), then children
 *
 * PROGRAM is a copy of this program. Executed as "inside", it first reads its cgroup. Results are `name value` lines.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* What one execution tells. */
struct told {
	int64_t waited_ns;
	int32_t is_inside;
	int32_t is_error;
};

static void die(const char *what)
{
	dprintf(2, "gate: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static int64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Checks whether /proc/self/cgroup has the v2 cgroup `group`. */
static int is_inside(const char *group)
{
	char text[4096], line[4200];
	int fd = open("/proc/self/cgroup", O_RDONLY);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (length < 0)
		return 0;
	text[length] = 0;
	snprintf(line, sizeof line, "0::%s\n", group);
	return strstr(text, line) != NULL;
}

/* The gated program: inside FD BEGAN CGROUP MIB */
static int inside(char **argv)
{
	struct told told = { .is_inside = is_inside(argv[3]) };
	told.waited_ns = now_ns() - atoll(argv[2]);
	size_t bytes = (size_t)atol(argv[4]) << 20;
	if (bytes) {
		char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (memory == MAP_FAILED)
			die("mmap");
		for (size_t at = 0; at < bytes; at += 4096)
			memory[at] = 1;
	}
	if (write(atoi(argv[1]), &told, sizeof told) != sizeof told)
		die("write");
	return 0;
}

static void become(const char *uid)
{
	int id = atoi(uid);
	if (setgid(id) || setuid(id))
		die("setuid");
}

static void begin(int fd, const char *program, const char *group, const char *mib)
{
	char number[16], began[32];
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child)
		return;
	snprintf(number, sizeof number, "%d", fd);
	snprintf(began, sizeof began, "%lld", (long long)now_ns());
	execl(program, "inside", number, began, group, mib, (char *)NULL);
	struct told told = { .is_error = errno };
	if (write(fd, &told, sizeof told) != sizeof told)
		die("write");
	_exit(1);
}

static int compare(const void *a, const void *b)
{
	int64_t first = *(const int64_t *)a, second = *(const int64_t *)b;
	return (first > second) - (first < second);
}

static int storm(long count, long parallel, const char *program, const char *group, const char *mib)
{
	int ends[2];
	if (pipe(ends))
		die("pipe");
	long begun = 0, done = 0, within = 0, errors = 0;
	int64_t *waited = calloc(count, sizeof *waited);
	while (done < count) {
		while (begun < count && begun - done < parallel) {
			begin(ends[1], program, group, mib);
			begun++;
		}
		struct told told;
		if (read(ends[0], &told, sizeof told) != sizeof told)
			die("read");
		waited[done++] = told.waited_ns;
		within += told.is_inside;
		errors += told.is_error != 0;
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	while (waitpid(-1, NULL, 0) > 0)
		;
	qsort(waited, count, sizeof *waited, compare);
	printf("inside %ld\noutside %ld\nerrors %ld\n", within, count - within - errors, errors);
	printf("median_us %lld\np99_us %lld\nslowest_us %lld\n", (long long)waited[count / 2] / 1000,
	       (long long)waited[count * 99 / 100] / 1000, (long long)waited[count - 1] / 1000);
	return 0;
}

/* Two arguments of more than the limit of 128 KiB for one. */
static void fail(const char *program)
{
	size_t length = 256 << 10;
	char *argument = malloc(length);
	memset(argument, 'x', length - 1);
	argument[length - 1] = 0;
	execl(program, "inside", argument, (char *)NULL);
	if (errno != E2BIG)
		die("exec");
}

/* Waits until the test ends, which closes standard input. */
static void wait_for_end(void)
{
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	_exit(0);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 5 && !strcmp(argv[0], "inside"))
		return inside(argv);
	if (argc == 7 && !strcmp(argv[1], "storm")) {
		become(argv[2]);
		return storm(atol(argv[3]), atol(argv[4]), argv[5], argv[6], "0");
	}
	if (argc == 7 && !strcmp(argv[1], "fill")) {
		become(argv[2]);
		return storm(atol(argv[3]), 1, argv[4], argv[5], argv[6]);
	}
	if (argc == 4 && !strcmp(argv[1], "fail")) {
		become(argv[2]);
		/* Until then it has the cgroup of its user. */
		sleep(1);
		fail(argv[3]);
		printf("pid %d\n", getpid());
		pid_t child = fork();
		if (!child) {
			pid_t grandchild = fork();
			if (!grandchild)
				printf("pid %d\n", getpid());
			wait_for_end();
		}
		printf("pid %d\n", child);
		wait_for_end();
	}
	errno = EINVAL;
	die("arguments");
}
