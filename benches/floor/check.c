/* check: sleeps, then reads its cgroup. Appends one byte to descriptor VERDICTS: '+' when
 * /proc/self/cgroup contains LINE, else '-'. usage: check MILLISECONDS VERDICTS LINE */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char text[4096] = "\n", line[512] = "\n";
	long ms = argc == 4 ? atol(argv[1]) : 0;
	struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
	int fd = open("/proc/self/cgroup", O_RDONLY);

	if (argc != 4 || strlen(argv[3]) > sizeof line - 3)
		return 2;
	nanosleep(&pause, 0);
	if (fd < 0 || read(fd, text + 1, sizeof text - 2) <= 0)
		return 1;
	strcat(strcat(line, argv[3]), "\n");
	return write(atoi(argv[2]), strstr(text, line) ? "+" : "-", 1) != 1;
}
