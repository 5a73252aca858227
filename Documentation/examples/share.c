// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * share.c - one payload for several workers: written once, never copied, gone
 * with the last one, also when that one is killed.
 *
 *	cc share.c $(pkg-config --cflags --libs shmk) -o share && ./share
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmk.h>

#define WORKERS 3

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: error %d\n", what, ret);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE };
	static struct shmk_msg msg, more[WORKERS];
	struct shmk_queue *q;
	struct shmk *s;
	int i = 0;

	while (i < WORKERS && fork())
		i++;
	check(shmk_attach(argc > 1 ? argv[1] : "share", &opts, &s), "attach");
	check(shmk_queue_open(s, "work", &queue, SHMK_TRY, &q), "open queue");
	if (i < WORKERS) {
		check(shmk_recv(q, &msg, shmk_deadline_ms(10000)), "receive");
		printf("worker got \"%s\"\n", (char *)msg.data);
		fflush(stdout);
		raise(SIGKILL);		/* with the reference in its hands */
	}
	check(shmk_wait_peers(s, WORKERS + 1, shmk_deadline_ms(10000)), "wait for workers");
	check(shmk_alloc(s, 1000, 0, &msg), "alloc");
	strcpy(msg.data, "one for all");
	check(shmk_msg_share_many(&msg, more, WORKERS), "share");
	printf("%d references\n", shmk_msg_refs(&msg));
	check(shmk_send_batch(q, more, WORKERS, SHMK_FOREVER), "send");
	while (shmk_msg_shared(&msg))
		shmk_wait_peers(s, WORKERS + 2, shmk_deadline_ms(10));
	printf("alone again\n");
	shmk_detach(s);
	return 0;
}
