/*
 * Checks properties of the kernel that cgruled relies on. One argument names the property (pin); the
 * result is printed as `name value` lines. Exits with status 99 if a pin cannot be checked here.
 *
 * A socket filter passes only events whose first thread group is ours, so that other processes of
 * the machine do not disturb the counts.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

/* Older headers lack some of these. */
enum { LISTEN = 1, IGNORE = 2 };
enum { ACK = 0, FORK = 1, EXEC = 2, UID = 4, GID = 0x40 };
enum { AT_WHAT = 36, AT_PID = 52, AT_TGID = 56, AT_CHILD = 60 };
#define SO_MEMINFO_NUMBER 55
#define MEMINFO_DROPS 8
#define OTHER_UID 61701

struct event {
	uint32_t what, tgid, child;
};

static void die(const char *what)
{
	dprintf(2, "pins: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void check(long result, const char *what)
{
	if (result < 0)
		die(what);
}

static void tell(const char *name, long value)
{
	printf("%s %ld\n", name, value);
	fflush(stdout);
}

/* Sends {op} or, with a mask, {op, mask}. */
static void request(int s, uint32_t op, uint32_t mask)
{
	uint32_t message[11] = { 0 };
	uint16_t body = mask ? 8 : 4;
	message[0] = 36 + body;       /* nlmsg_len */
	message[1] = NLMSG_DONE;      /* type, flags */
	message[3] = getpid();
	message[4] = message[5] = 1;  /* idx, val */
	message[8] = body;            /* len, flags */
	message[9] = op;
	message[10] = mask;
	check(send(s, message, message[0], 0), "send");
}

/* Accepts only events whose tgid (for a fork that of the parent) is `tgid`. The filter loads
 * big-endian words. */
static void see_only(int s, uint32_t tgid)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, AT_TGID),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __builtin_bswap32(tgid), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = { .len = 4, .filter = code };
	check(setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program), "filter");
}

static int connector(void)
{
	int s = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	check(s, "socket");
	check(bind(s, (struct sockaddr *)&address, sizeof address), "bind");
	request(s, LISTEN, 0);
	return s;
}

static uint32_t word(const unsigned char *datagram, int at)
{
	uint32_t value;
	memcpy(&value, datagram + at, sizeof value);
	return value;
}

/* Returns 1 for an event, 0 if none came within `ms`, -1 if the receive failed, see errno. */
static int next(int s, int ms, struct event *event)
{
	unsigned char datagram[256];
	struct pollfd readable = { .fd = s, .events = POLLIN };
	if (poll(&readable, 1, ms) <= 0)
		return 0;
	if (recv(s, datagram, sizeof datagram, MSG_DONTWAIT) < 0)
		return errno == EAGAIN ? 0 : -1;
	event->what = word(datagram, AT_WHAT);
	event->tgid = word(datagram, AT_TGID);
	event->child = word(datagram, AT_CHILD);
	return 1;
}

static long count(int s, uint32_t what)
{
	struct event event;
	long n = 0;
	while (next(s, 300, &event) == 1)
		n += event.what == what;
	return n;
}

static uint32_t drops(int s)
{
	uint32_t info[16] = { 0 };
	socklen_t length = sizeof info;
	check(getsockopt(s, SOL_SOCKET, SO_MEMINFO_NUMBER, info, &length), "SO_MEMINFO");
	return info[MEMINFO_DROPS];
}

static pid_t fork_once(void)
{
	pid_t pid = fork();
	check(pid, "fork");
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	return pid;
}

static void fork_times(int n)
{
	for (int i = 0; i < n; i++)
		fork_once();
}

/* Checks that the connector works here at all. */
static void selftest(void)
{
	struct event event;
	int s = connector();
	see_only(s, getpid());
	pid_t pid = fork_once();
	long heard = 0;
	while (!heard && next(s, 1000, &event) == 1)
		heard = event.what == FORK && event.child == (uint32_t)pid;
	tell("heard", heard);
	request(s, IGNORE, 0);
}

/* Prints the positions of FORK, UID and EXEC among the events of the child. */
static void order(void)
{
	struct event event;
	int s = connector(), place = 0;
	pid_t pid = fork();
	check(pid, "fork");
	if (pid == 0) {
		if (setresuid(OTHER_UID, OTHER_UID, OTHER_UID) == 0)
			execl("/bin/true", "true", NULL);
		_exit(99);
	}
	waitpid(pid, NULL, 0);
	while (next(s, 300, &event) == 1) {
		if (event.what == FORK && event.child == (uint32_t)pid)
			tell("fork", place++);
		if (event.tgid != (uint32_t)pid)
			continue;
		if (event.what == UID)
			tell("uid", place++);
		if (event.what == EXEC)
			tell("exec", place++);
	}
	request(s, IGNORE, 0);
}

/* Prints what a socket with the mask EXEC receives of a fork with an exec. */
static void mask(void)
{
	struct event event;
	long execs = 0, others = 0;
	int s = connector();
	request(s, LISTEN, EXEC);
	while (next(s, 100, &event) == 1)
		; /* from before the mask */
	pid_t pid = fork();
	check(pid, "fork");
	if (pid == 0) {
		execl("/bin/true", "true", NULL);
		_exit(99);
	}
	waitpid(pid, NULL, 0);
	while (next(s, 300, &event) == 1) {
		execs += event.what == EXEC && event.tgid == (uint32_t)pid;
		others += event.what != EXEC;
	}
	tell("execs", execs);
	tell("others", others);
	request(s, IGNORE, 0);
}

static int small_connector(int no_enobufs)
{
	int s = connector(), size = 8192, on = 1;
	see_only(s, getpid());
	request(s, LISTEN, FORK);
	check(setsockopt(s, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), "SO_RCVBUF");
	if (no_enobufs)
		check(setsockopt(s, SOL_NETLINK, NETLINK_NO_ENOBUFS, &on, sizeof on), "NO_ENOBUFS");
	count(s, FORK);
	return s;
}

/* Checks that every fork is either received or counted as dropped, on a socket that is not read. */
static void exact(void)
{
	enum { FORKS = 500 };
	int s = small_connector(1);
	uint32_t before = drops(s);
	fork_times(FORKS);
	long lost = drops(s) - before;
	tell("forks", FORKS);
	tell("lost", lost);
	tell("received", count(s, FORK));
	request(s, IGNORE, 0);
}

/* Returns how many of 3 new events are dropped after an overrun and a read that makes room. */
static long dropped_after_overrun(int no_enobufs)
{
	struct event event;
	int s = small_connector(no_enobufs);
	fork_times(100);
	for (int i = 0; i < 6; i++)
		next(s, 300, &event); /* one of them may be the error report */
	uint32_t before = drops(s);
	fork_times(3);
	long dropped = drops(s) - before;
	request(s, IGNORE, 0);
	close(s);
	return dropped;
}

static void latch(void)
{
	tell("with_option", dropped_after_overrun(1));
	tell("without_option", dropped_after_overrun(0));
}

/* Checks whether a filtered event counts as a drop. */
static void filtered(void)
{
	int s = connector();
	see_only(s, 0);
	uint32_t before = drops(s);
	fork_times(50);
	tell("lost", drops(s) - before);
	request(s, IGNORE, 0);
}

static void *nothing(void *unused)
{
	return unused;
}

/* Checks that child_pid != child_tgid distinguishes the fork of a thread from that of a process.
 * The parent of a thread is the parent of its process, so the filter by parent does not work here. */
static void threads(void)
{
	unsigned char datagram[256];
	struct pollfd readable;
	long processes = 0, others = 0;
	int s = connector();
	request(s, LISTEN, FORK);
	pthread_t id;
	if (pthread_create(&id, NULL, nothing, NULL) != 0)
		die("pthread_create");
	pthread_join(id, NULL);
	pid_t pid = fork_once();
	readable = (struct pollfd){ .fd = s, .events = POLLIN };
	while (poll(&readable, 1, 300) > 0 && recv(s, datagram, sizeof datagram, 0) > 0) {
		if (word(datagram, AT_WHAT) != FORK)
			continue;
		uint32_t child = word(datagram, AT_CHILD), group = word(datagram, AT_CHILD + 4);
		processes += group == (uint32_t)pid && child == group;
		others += group == (uint32_t)getpid() && child != group;
	}
	tell("processes", processes);
	tell("threads", others);
	request(s, IGNORE, 0);
}

/* Prints the ID of the v2 cgroup by PIDFD_GET_INFO, -1 where the kernel does not provide it. */
static void cgroup_id(pid_t pid)
{
	uint64_t info[8] = { 4 /* mask: cgroup ID */ };
	int fd = syscall(SYS_pidfd_open, pid, 0);
	check(fd, "pidfd_open");
	int result = ioctl(fd, _IOWR(0xFF, 11, uint64_t[8]), info);
	tell("cgroup_id", result == 0 && (info[0] & 4) ? (long)info[1] : -1);
}

/* As user `uid`: sends datagrams with random content, among them valid events of PID 1, to a port of the
 * proc connector and to its group. Prints how many the kernel accepted. */
static void forge(uint32_t port, long count, uid_t uid)
{
	int s = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	long sent = 0;
	check(s, "socket");
	check(setresuid(uid, uid, uid), "setresuid");
	srandom(1);
	for (long i = 0; i < count; i++) {
		unsigned char bytes[128];
		struct sockaddr_nl to = { .nl_family = AF_NETLINK, .nl_pid = i % 4 ? port : 0, .nl_groups = i % 4 ? 0 : 1 };
		size_t length = i % 2 ? sizeof bytes : (size_t)random() % sizeof bytes;
		struct nlmsghdr head = { .nlmsg_len = sizeof bytes, .nlmsg_type = NLMSG_DONE };
		/* cn_msg: index and value 1; then proc_event: what, CPU, time, PID and TGID. */
		uint32_t event[] = { 1, 1, 0, 0, 40, i % 3 ? 2 : 4, 0, 0, 0, 1, 1 };
		for (size_t at = 0; at < sizeof bytes; at++)
			bytes[at] = random();
		if (i % 2) {
			memcpy(bytes, &head, sizeof head);
			memcpy(bytes + sizeof head, event, sizeof event);
		}
		sent += sendto(s, bytes, length, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to) >= 0;
	}
	tell("sent", sent);
}

int main(int argc, char **argv)
{
	const char *pin = argc > 1 ? argv[1] : "";
	static const struct {
		const char *name;
		void (*run)(void);
	} pins[] = {
		{ "selftest", selftest }, { "order", order }, { "mask", mask },
		{ "exact", exact }, { "latch", latch }, { "filtered", filtered },
		{ "threads", threads },
	};
	for (size_t i = 0; i < sizeof pins / sizeof *pins; i++) {
		if (strcmp(pin, pins[i].name) == 0) {
			pins[i].run();
			return 0;
		}
	}
	if (strcmp(pin, "cgroup_id") == 0 && argc > 2) {
		cgroup_id(atoi(argv[2]));
		return 0;
	}
	if (strcmp(pin, "forge") == 0 && argc > 4) {
		forge(strtoul(argv[2], NULL, 10), atol(argv[3]), atoi(argv[4]));
		return 0;
	}
	dprintf(2, "pins: no pin %s\n", pin);
	return 2;
}
