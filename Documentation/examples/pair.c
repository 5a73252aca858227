// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * pair.c - a producer and a consumer: messages are written once, in the memory
 * where the other process reads them.
 *
 *	cc pair.c $(pkg-config --cflags --libs shmk) -o pair && ./pair
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmk.h>

#define MESSAGES 5

static int check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: error %d\n", what, ret);
		exit(1);
	}
	return ret;
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_msg msg = { .data = NULL };
	struct shmk_queue *q;
	struct shmk *s;
	pid_t child = fork();	/* before attaching: each process is a peer of its own */

	check(shmk_attach(argc > 1 ? argv[1] : "pair", &opts, &s), "attach");
	if (child == 0)		/* a pool goes with its last peer, so do not be early */
		check(shmk_wait_peers(s, 2, shmk_deadline_ms(5000)), "wait for the consumer");
	check(shmk_queue_open(s, "numbers", &queue, SHMK_TRY, &q), "open queue");

	for (int i = 0; i < MESSAGES; i++) {
		if (child == 0) {		/* the producer */
			check(shmk_alloc(s, 1000, 0, &msg), "alloc");
			shmk_resize(&msg, snprintf(msg.data, msg.room, "number %d", i) + 1);
			check(shmk_send(q, &msg, SHMK_FOREVER), "send");
		} else {			/* the consumer */
			check(shmk_recv(q, &msg, shmk_deadline_ms(5000)), "receive");
			printf("got \"%s\", %zu bytes\n", (char *)msg.data, msg.len);
			shmk_free(&msg);
		}
	}
	if (child)
		waitpid(child, NULL, 0);
	shmk_detach(s);		/* the last one takes the pool with it */
	return 0;
}
