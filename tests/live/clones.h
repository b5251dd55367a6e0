/*
 * Steps of actors.c by system calls that few programs use:
 *
 *   clone N FLAGS    N children by clone(2) with FLAGS (hexadecimal), each on a stack of its own, do the
 *                    remaining steps; the caller holds
 *   into PATH N      N children by clone3(2) in the cgroup directory PATH do the remaining steps; the
 *                    caller holds
 *   set-tid N PID    N children with the next free PIDs from PID on do the remaining steps; the caller
 *                    holds
 *   posix-spawn N PATH ARGV0  N children by posix_spawn(3) make their real user the effective one and
 *                    execute PATH with the remaining steps; the caller holds
 *   exec-fd PATH ARGV0        execute PATH by a descriptor
 *   exec-memfd PATH NAME ARGV0  execute a copy of PATH in a memfd of that name
 *   traced PATH ARGV0         fork a traced child and say "traced PID". After a byte on standard input: it
 *                    executes PATH with the remaining steps and is stopped at the end of the exec; say
 *                    "stopped PID". After another byte: detach, hold
 *   grant PATH       give the file PATH the capabilities CAP_SETUID and CAP_SETGID
 *   fsid U           set the filesystem user ID and group ID
 *   persona FLAGS    set the personality (hexadecimal)
 *   exe-file PATH    let /proc/self/exe name PATH, without an exec
 *   join PID TYPE    enter the namespace of PID that is TYPE in /proc/PID/ns
 *   pidns            a PID namespace of one's own for the children
 */
#include <linux/capability.h>
#include <spawn.h>
#include <sys/fsuid.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/xattr.h>

#define STACK_SIZE (256 << 10)

extern char **environ;

static int run_steps(void *rest)
{
	alarm(LIFETIME);
	steps(rest);
	return 0;
}

static void clone_many(long n, unsigned long flags, char **rest)
{
	for (long i = 0; i < n; i++) {
		char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
				   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
		if (stack == MAP_FAILED)
			die("mmap");
		check(clone(run_steps, stack + STACK_SIZE, flags | SIGCHLD, rest), "clone");
	}
	stay();
}

static void clone_into(const char *path, long n, char **rest)
{
	struct clone_args arguments = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD };
	int cgroup = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	check(cgroup, path);
	arguments.cgroup = cgroup;
	for (long i = 0; i < n; i++) {
		pid_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
		check(pid, "clone3");
		if (pid == 0)
			run_steps(rest);
	}
	stay();
}

static void clone_with_pids(long n, pid_t wanted, char **rest)
{
	for (long i = 0; i < n; i++) {
		pid_t pid = child_with_pid(wanted, 1);
		check(pid, "clone3");
		if (pid == 0)
			steps(rest);
		wanted = pid + 1;
	}
	stay();
}

static void spawn_many(long n, char *path, char **arguments)
{
	posix_spawnattr_t attributes;
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_RESETIDS);
	for (long i = 0; i < n; i++) {
		pid_t pid;
		errno = posix_spawn(&pid, path, NULL, &attributes, arguments, environ);
		if (errno != 0)
			die(path);
	}
	stay();
}

static void execute_file(int file, char **arguments)
{
	syscall(SYS_execveat, file, "", arguments, environ, AT_EMPTY_PATH);
	die("execveat");
}

static void execute_copy(const char *path, const char *name, char **arguments)
{
	char buffer[65536];
	ssize_t length;
	int from = open(path, O_RDONLY | O_CLOEXEC), to = memfd_create(name, MFD_CLOEXEC);
	check(from, path);
	check(to, "memfd_create");
	while ((length = read(from, buffer, sizeof buffer)) > 0)
		if (write(to, buffer, length) != length)
			die("write");
	execute_file(to, arguments);
}

/* The kernel stops the tracee after the change of its executable and before the EXEC event. */
static void trace(char *path, char **arguments)
{
	int status;
	pid_t pid = child();
	if (pid == 0) {
		check(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "PTRACE_TRACEME");
		raise(SIGSTOP);
		execute(path, arguments);
	}
	check(waitpid(pid, &status, 0), "waitpid");
	check(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACEEXEC), "PTRACE_SETOPTIONS");
	say("traced", pid);
	gate();
	check(ptrace(PTRACE_CONT, pid, NULL, NULL), "PTRACE_CONT");
	check(waitpid(pid, &status, 0), "waitpid");
	if (status >> 8 != (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
		errno = EPROTO;
		die("not stopped by an exec");
	}
	say("stopped", pid);
	gate();
	check(ptrace(PTRACE_DETACH, pid, NULL, NULL), "PTRACE_DETACH");
	stay();
}

static void grant(const char *path)
{
	struct vfs_cap_data data = { .magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE };
	data.data[0].permitted = 1 << CAP_SETUID | 1 << CAP_SETGID;
	check(setxattr(path, "security.capability", &data, sizeof data, 0), path);
}

/* Replaces the mappings of the executable by copies: the kernel changes /proc/self/exe only when none is
 * left. */
static void copy_own_mappings(void)
{
	static char text[65536];
	unsigned long start, end;
	char exe[4096], path[4096], *line, *rest = text;
	ssize_t count, length = readlink("/proc/self/exe", exe, sizeof exe - 1);
	check(length, "readlink");
	exe[length] = 0;
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	for (length = 0; (count = read(maps, text + length, sizeof text - 1 - length)) > 0;)
		length += count;
	while ((line = strsep(&rest, "\n")) != NULL) {
		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %4095s", &start, &end, path) != 3 ||
		    strcmp(path, exe) != 0)
			continue;
		void *copy = mmap(NULL, end - start, PROT_READ | PROT_WRITE | PROT_EXEC,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (copy == MAP_FAILED)
			die("mmap");
		memcpy(copy, (void *)start, end - start);
		if (mremap(copy, end - start, end - start, MREMAP_MAYMOVE | MREMAP_FIXED,
			   (void *)start) == MAP_FAILED)
			die("mremap");
	}
}

/* Field N of /proc/self/stat, counted from the state, which is number 3. */
static unsigned long stat_field(int n)
{
	char text[4096], *field;
	int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
	ssize_t length = read(file, text, sizeof text - 1);
	check(length, "/proc/self/stat");
	close(file);
	text[length] = 0;
	field = strrchr(text, ')') + 2;
	for (; n > 3; n--)
		field = strchr(field, ' ') + 1;
	return strtoul(field, NULL, 10);
}

/* In a user namespace of one's own this needs no privilege outside. The memory layout stays as it is. */
static void set_exe_file(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	check(file, path);
	copy_own_mappings();
	struct prctl_mm_map map = {
		.start_code = stat_field(26), .end_code = stat_field(27),
		.start_stack = stat_field(28), .start_data = stat_field(45),
		.end_data = stat_field(46), .start_brk = stat_field(47),
		.brk = (unsigned long)sbrk(0), .arg_start = stat_field(48),
		.arg_end = stat_field(49), .env_start = stat_field(50),
		.env_end = stat_field(51), .exe_fd = file,
	};
	check(prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof map, 0), "PR_SET_MM_MAP");
}

static void join_namespace(const char *pid, const char *type)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%s/ns/%s", pid, type);
	int namespace = open(path, O_RDONLY | O_CLOEXEC);
	check(namespace, path);
	check(setns(namespace, 0), path);
}
