// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * multi.c - a header and an image as one message: both come over, or none.
 *
 *	cc multi.c $(pkg-config --cflags --libs shmk) -o multi && ./multi
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmk.h>

#define IMAGE 100000

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
	static struct shmk_msg part[2];
	struct shmk_queue *q;
	struct shmk *s;
	pid_t child = fork();
	int i, n;

	check(shmk_attach(argc > 1 ? argv[1] : "multi", &opts, &s), "attach");
	check(shmk_queue_open(s, "images", &queue, SHMK_TRY, &q), "open queue");
	if (child == 0) {
		check(shmk_wait_peers(s, 2, shmk_deadline_ms(5000)), "wait for the receiver");
		check(shmk_msg_inline(s, "320x200", 8, &part[0]), "header");
		check(shmk_alloc(s, IMAGE, 0, &part[1]), "alloc");
		memset(part[1].data, 'x', IMAGE);
		check(shmk_send_multi(q, part, 2, SHMK_FOREVER), "send");
	} else {
		n = check(shmk_recv_multi(q, part, 2, shmk_deadline_ms(5000)), "receive");
		printf("%d parts: \"%s\" and %zu bytes\n", n, (char *)part[0].data, part[1].len);
		for (i = 0; i < n; i++)
			shmk_free(&part[i]);
		waitpid(child, NULL, 0);
	}
	shmk_detach(s);
	return 0;
}
