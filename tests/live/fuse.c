/*
 * A file system in user space (FUSE) that stops answering on request. It implements the protocol of
 * /dev/fuse itself and contains one file, which has every name and the content of FILE.
 *
 *   fuse DEVICE DIRECTORY FILE UID serve      mount as fusermount does for UID: only UID may access
 *                                             it. Say "mounted 1" and serve it
 *   fuse DEVICE DIRECTORY FILE UID share      serve it with allow_other
 *   fuse DEVICE DIRECTORY FILE UID hang PROGRAM ARGUMENT...
 *                                             become UID, mount in own user and mount namespaces, open
 *                                             the file close-on-exec and execute PROGRAM. Its FLUSH is
 *                                             never answered: execve() hangs. Say "hangs PID"
 *   fuse DEVICE DIRECTORY FILE UID pass PROGRAM ARGUMENT...
 *                                             the same, but FLUSH is answered; say "passes PID"
 *
 * After a byte on standard input the server stops answering; say "silent 1". The server exits when
 * standard input is closed, after LIFETIME seconds at the latest; that releases all waiting processes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fuse.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define LIFETIME 40
#define READ_AHEAD (128 * 1024)
#define THE_FILE 2 /* node ID */
#define FOREVER 3600

static void die(const char *what)
{
	dprintf(2, "fuse: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static void check(int result, const char *what)
{
	if (result < 0)
		die(what);
}

static void say(const char *word, long number)
{
	char line[64];
	int length = snprintf(line, sizeof line, "%s %ld\n", word, number);
	if (write(1, line, length) != length)
		_exit(0);
}

struct server {
	int device;
	uid_t owner; /* of the file, in the user namespace of the mount */
	char *content;
	size_t size;
	pid_t client; /* the process that executes a program, or 0 */
	int answers_flush, is_silent;
};

static void map_file(struct server *server, const char *path)
{
	struct stat status;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	check(fd, path);
	check(fstat(fd, &status), path);
	server->size = status.st_size;
	server->content = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (server->content == MAP_FAILED)
		die(path);
	close(fd);
}

static void reply(struct server *server, uint64_t unique, int error, const void *data, size_t size)
{
	struct fuse_out_header header = { .len = sizeof header + size,
					  .error = -error,
					  .unique = unique };
	struct iovec parts[] = { { &header, sizeof header }, { (void *)data, size } };
	/* ENOENT: the request was interrupted before the reply. */
	if (writev(server->device, parts, size == 0 ? 1 : 2) < 0 && errno != ENOENT)
		die("reply");
}

static struct fuse_attr attributes(struct server *server, uint64_t node)
{
	struct fuse_attr attr = { .ino = node, .nlink = 1, .uid = server->owner, .gid = server->owner };
	attr.mode = node == THE_FILE ? S_IFREG | 0755 : S_IFDIR | 0755;
	attr.size = node == THE_FILE ? server->size : 0;
	return attr;
}

static void initialize(struct server *server, uint64_t unique)
{
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION,
				     .minor = 31,
				     .max_readahead = READ_AHEAD,
				     .max_background = 16,
				     .congestion_threshold = 12,
				     .max_write = 4096 };
	reply(server, unique, 0, &out, sizeof out);
}

/* Attributes expire at once, so that each stat() sends a request to the server. */
static void look_up(struct server *server, uint64_t unique)
{
	struct fuse_entry_out out = { .nodeid = THE_FILE,
				      .entry_valid = FOREVER,
				      .attr = attributes(server, THE_FILE) };
	reply(server, unique, 0, &out, sizeof out);
}

static void get_attributes(struct server *server, uint64_t unique, uint64_t node)
{
	struct fuse_attr_out out = { .attr = attributes(server, node) };
	reply(server, unique, 0, &out, sizeof out);
}

static void read_content(struct server *server, uint64_t unique, const struct fuse_read_in *in)
{
	size_t left = in->offset < server->size ? server->size - in->offset : 0;
	reply(server, unique, 0, server->content + in->offset, left < in->size ? left : in->size);
}

static void flush(struct server *server, uint64_t unique)
{
	if (server->client != 0)
		say(server->answers_flush ? "passes" : "hangs", server->client);
	if (server->client == 0 || server->answers_flush)
		reply(server, unique, 0, NULL, 0);
}

static void answer(struct server *server, const struct fuse_in_header *in)
{
	struct fuse_open_out opened = { .open_flags = FOPEN_KEEP_CACHE };
	switch (in->opcode) {
	case FUSE_INIT:
		initialize(server, in->unique);
		break;
	case FUSE_LOOKUP:
		look_up(server, in->unique);
		break;
	case FUSE_GETATTR:
		get_attributes(server, in->unique, in->nodeid);
		break;
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		reply(server, in->unique, 0, &opened, sizeof opened);
		break;
	case FUSE_READ:
		read_content(server, in->unique, (const void *)(in + 1));
		break;
	case FUSE_FLUSH:
		flush(server, in->unique);
		break;
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
		reply(server, in->unique, 0, NULL, 0);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break; /* requests without a reply */
	default:
		reply(server, in->unique, ENOSYS, NULL, 0);
	}
}

static void handle_input(struct server *server, short events)
{
	char byte;
	if (!(events & POLLIN) || read(0, &byte, 1) != 1)
		_exit(0);
	server->is_silent = 1;
	say("silent", 1);
}

static void serve(struct server *server)
{
	static char request[READ_AHEAD + 4096] __attribute__((aligned(8)));
	struct pollfd sources[] = { { .fd = server->device, .events = POLLIN },
				    { .fd = 0, .events = POLLIN } };
	alarm(LIFETIME);
	for (;;) {
		if (poll(sources, 2, -1) < 0)
			die("poll");
		if (sources[1].revents != 0)
			handle_input(server, sources[1].revents);
		if (sources[0].revents == 0)
			continue;
		if (read(server->device, request, sizeof request) > 0) {
			if (!server->is_silent)
				answer(server, (const void *)request);
		} else if (errno != ENOENT && errno != EINTR && errno != EAGAIN) {
			_exit(0); /* unmounted */
		}
	}
}

static void become(uid_t uid)
{
	check(setgroups(0, NULL), "setgroups");
	check(setresgid(uid, uid, uid), "setresgid");
	check(setresuid(uid, uid, uid), "setresuid");
}

static void mount_at(const char *directory, int device, uid_t uid, const char *more)
{
	char options[128];
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u%s", device, uid,
		 uid, more);
	check(mount("fuse", directory, "fuse", MS_NOSUID | MS_NODEV, options), "mount");
}

static void write_file(const char *path, const char *format, ...)
{
	char text[64];
	va_list arguments;
	va_start(arguments, format);
	int length = vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	check(fd, path);
	if (write(fd, text, length) != length)
		die(path);
	close(fd);
}

/* Becomes root of an own user namespace, in which UID is 0. */
static void enter_namespaces(uid_t uid)
{
	become(uid);
	check(prctl(PR_SET_DUMPABLE, 1), "dumpable"); /* otherwise /proc/self belongs to root */
	check(unshare(CLONE_NEWUSER | CLONE_NEWNS), "unshare");
	write_file("/proc/self/setgroups", "deny");
	write_file("/proc/self/uid_map", "0 %u 1", uid);
	write_file("/proc/self/gid_map", "0 %u 1", uid);
}

static int open_device(const char *path)
{
	int device = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	check(device, path);
	return device;
}

static void serve_for(struct server *server, char **argument, const char *options)
{
	uid_t uid = atoi(argument[3]);
	server->device = open_device(argument[0]);
	server->owner = uid;
	mount_at(argument[1], server->device, uid, options);
	become(uid);
	say("mounted", 1);
	serve(server);
}

static void execute_over(struct server *server, char **argument)
{
	char path[4096];
	server->client = getpid();
	enter_namespaces(atoi(argument[3]));
	server->device = open_device(argument[0]);
	mount_at(argument[1], server->device, 0, ""); /* before the server reads */
	pid_t child = fork();
	check(child, "fork");
	if (child == 0)
		serve(server);
	close(server->device); /* only the server keeps the connection */
	snprintf(path, sizeof path, "%s/held", argument[1]);
	check(open(path, O_RDONLY | O_CLOEXEC), path);
	alarm(LIFETIME + 10);
	execv(argument[5], argument + 5);
	die(argument[5]);
}

int main(int argc, char **argv)
{
	struct server server = { 0 };
	if (argc < 6)
		return 2;
	char **argument = argv + 1, *mode = argument[4];
	map_file(&server, argument[2]);
	server.answers_flush = strcmp(mode, "pass") == 0;
	if (strcmp(mode, "serve") == 0)
		serve_for(&server, argument, "");
	else if (strcmp(mode, "share") == 0)
		serve_for(&server, argument, ",allow_other");
	else if (argc > 6)
		execute_over(&server, argument);
	return 2;
}
