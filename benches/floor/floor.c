/* floor: the minimum of a classifier. On a UID event whose effective UID is UID it writes the PID
 * into FILE. It has no rules, does not inspect the process and does not recover lost events. With
 * SWITCH (/sys/kernel/rcu_expedited) it expedites grace periods during each write. usage: floor UID
 * FILE [SWITCH] */
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { AT_WHAT = 36, AT_PID = 52, AT_EUID = 64, WHAT_UID = 4 };

static int say(int sock, const void *body, uint16_t len)
{
	char buf[64] = {0};
	struct nlmsghdr *nl = (void *)buf;
	struct cn_msg cn = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .len = len};

	nl->nlmsg_len = NLMSG_LENGTH(sizeof cn + len);
	nl->nlmsg_type = NLMSG_DONE;
	memcpy(NLMSG_DATA(nl), &cn, sizeof cn);
	memcpy((char *)NLMSG_DATA(nl) + sizeof cn, body, len);
	return send(sock, buf, nl->nlmsg_len, 0) < 0;
}

static uint32_t word(const char *buf, int at)
{
	uint32_t value;
	memcpy(&value, buf + at, sizeof value);
	return value;
}

int main(int argc, char **argv)
{
	struct sockaddr_nl us = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
	uint32_t mask[2] = {PROC_CN_MCAST_LISTEN, WHAT_UID};
	int size = 16 << 20, sock = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR);
	int procs = argc >= 3 ? open(argv[2], O_WRONLY | O_CLOEXEC) : -1;
	int rcu = argc >= 4 ? open(argv[3], O_WRONLY | O_CLOEXEC) : -1;
	uint32_t uid = argc >= 3 ? strtoul(argv[1], NULL, 10) : 0;
	char buf[256], text[16];

	setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	/* The plain request first: a kernel before 6.6 does not support masks and ignores the second
	 * one. */
	if (procs < 0 || (argc >= 4 && rcu < 0) || bind(sock, (void *)&us, sizeof us) || say(sock, mask, 4) || say(sock, mask, 8))
		return perror("floor"), 1;
	fputs("ready\n", stderr);
	for (;;) {
		ssize_t got = recv(sock, buf, sizeof buf, 0);
		if (got < AT_EUID + 4 || word(buf, AT_WHAT) != WHAT_UID || word(buf, AT_EUID) != uid)
			continue;
		if (rcu >= 0 && pwrite(rcu, "1", 1, 0) < 0)
			return perror(argv[3]), 1;
		/* A process that has exited causes ESRCH: nothing is left to place. */
		ssize_t moved = write(procs, text, sprintf(text, "%u", word(buf, AT_PID)));
		if (rcu >= 0 && pwrite(rcu, "0", 1, 0) < 0)
			return perror(argv[3]), 1;
		if (moved < 0)
			continue;
	}
}
