// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * death.c - a process is killed while it holds memory; another one hears of it.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmk.h>
#include <linux/shmk.h>

static int victim(const char *uri)
{
	struct shmk_msg msg[3];
	struct shmk *s;

	if (shmk_attach(uri, NULL, &s) < 0)
		return 1;
	for (int i = 0; i < 3; i++)
		if (shmk_alloc(s, 100 << 10, 0, &msg[i]) < 0)
			return 1;
	if (shmk_wait_peers(s, 2, shmk_deadline_ms(5000)) < 0)	/* it shall hear of it */
		return 1;
	return raise(SIGKILL);
}

int main(int argc, char **argv)
{
	const char *uri = argc > 1 ? argv[1] : "death";
	struct shmk_pool_opts pool = { .bytes = 4 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_event ev = { .type = 0 };
	struct shmk_pool_stat st;
	struct pollfd p;
	struct shmk *s;

	if (shmk_attach(uri, &opts, &s) < 0)	/* events begin here */
		return 1;
	if (fork() == 0) {
		shmk_detach(s);		/* in a child this only forgets: the peer is the parent */
		return victim(uri);
	}
	p = (struct pollfd){ .fd = shmk_event_fd(s), .events = POLLIN };
	while (ev.type != SHMK_EV_DIED)
		if (shmk_event_next(s, &ev) < 0)
			poll(&p, 1, 100);
	shmk_pool_stat(s, &st);
	printf("%s, pid %d, died", ev.comm, ev.pid);
	if (ev.reason == SHMK_REASON_KILLED)	/* the local backend does not know */
		printf(" of signal %d", ev.code);
	printf(": %llu blocks came back in %llu us; in use: %llu\n", (unsigned long long)ev.blocks,
	       (unsigned long long)ev.took_ns / 1000, (unsigned long long)st.blocks_used);
	wait(NULL);
	shmk_detach(s);
	return st.blocks_used != 0;
}
