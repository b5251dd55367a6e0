/* Steps that change the arguments of a process. */
#include <sys/resource.h>

/* The memory in which /proc/PID/cmdline finds the arguments. */
static char *arguments_begin, *arguments_end;

static void remember_arguments(int argc, char **argv)
{
	arguments_begin = argv[0];
	arguments_end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;
}

/* Overwrites the arguments with the words of `text`, which are separated by commas. The remaining steps are arguments
 * as well, so copies of them are run. */
static void retitle(const char *text, char **rest)
{
	static char *own[64];
	size_t length = strlen(text), room = arguments_end - arguments_begin;
	char *copy = strdup(text);
	if (copy == NULL || length >= room)
		die("retitle");
	for (int i = 0; rest[i] != NULL && i < 63; i++)
		own[i] = strdup(rest[i]);
	memset(arguments_begin, 0, room);
	for (size_t i = 0; i < length; i++)
		arguments_begin[i] = copy[i] == ',' ? '\0' : copy[i];
	steps(own);
}

/* Executes a program with the steps and then `mib` MiB of other arguments, of which `last` is the last one. */
static void execute_long(char *path, long mib, char *last, char **rest)
{
	enum { LENGTH = 65536 };
	struct rlimit stack;
	static char filler[LENGTH];
	static char *all[256];
	int n = 0;
	/* The kernel limits the arguments to a quarter of it. */
	check(getrlimit(RLIMIT_STACK, &stack), "getrlimit");
	stack.rlim_cur = 64L << 20;
	if (stack.rlim_max < stack.rlim_cur)
		stack.rlim_max = stack.rlim_cur;
	check(setrlimit(RLIMIT_STACK, &stack), "setrlimit");
	memset(filler, 'x', LENGTH - 1);
	while (rest[n] != NULL && n < 64) {
		all[n] = rest[n];
		n++;
	}
	for (long i = 0; i < (mib << 20) / LENGTH && n < 254; i++)
		all[n++] = filler;
	all[n] = last;
	execute(path, all);
}

/* Runs one of these steps. Returns whether `word` is one. */
static int change_arguments(const char *word, char **step)
{
	if (IS("retitle")) {
		char *text = next(&step);
		retitle(text, step);
	} else if (IS("exec-empty")) {
		char *none[] = { NULL };
		execute(next(&step), none);
	} else if (IS("exec-long")) {
		char *path = next(&step);
		long mib = atol(next(&step));
		char *last = next(&step);
		execute_long(path, mib, last, step);
	} else {
		return 0;
	}
	return 1;
}
