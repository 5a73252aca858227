// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * call.c - a server answers requests, and is killed at the third one.
 *
 *	cc call.c $(pkg-config --cflags --libs shmk) -o call && ./call
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <shmk.h>

static void check(int ret, const char *what)
{
	if (ret < 0)
		exit(fprintf(stderr, "%s: %s\n", what, strerror(-ret)) > 0);
}

static void serve(struct shmk *s, struct shmk_queue *service)
{
	struct shmk_msg request, reply;

	for (int i = 0;; i++) {
		check(shmk_recv(service, &request, shmk_deadline_ms(5000)), "receive");
		if (i == 2)
			raise(SIGKILL);
		check(shmk_alloc(s, 64, 0, &reply), "alloc");
		reply.len = 1 + (size_t)sprintf(reply.data, "the answer to %d", *(int *)request.data);
		check(shmk_reply(&request, &reply, SHMK_FOREVER), "reply");
	}
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_queue_opts calls = { .max_tries = 1, .flags = SHMK_QUEUE_CREATE |
					 SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER };
	struct shmk_mailbox *box;
	struct shmk_queue *service;
	struct shmk_msg msg;
	struct shmk *s;
	pid_t server = fork();	/* before attaching: each process is a peer of its own */

	check(shmk_attach(argc > 1 ? argv[1] : "call", &opts, &s), "attach");
	check(shmk_queue_open(s, "service", &calls, SHMK_TRY, &service), "open queue");
	if (!server)
		serve(s, service);
	check(shmk_mailbox_open(s, NULL, &box), "open mailbox");	/* for the replies */
	for (int i = 1, ret; i < 4; i++) {
		check(shmk_alloc(s, sizeof(i), 0, &msg), "alloc");
		memcpy(msg.data, &i, sizeof(i));
		ret = shmk_call(box, service, &msg, shmk_deadline_ms(5000));
		puts(ret ? strerror(-ret) : msg.data);
		shmk_free(&msg);
	}
	return 0;	/* the end of the peer detaches as well */
}
