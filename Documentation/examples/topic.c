// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later OR MIT
/*
 * topic.c - one process publishes, another reads; then the writer is killed, and
 * its last message is still there.
 *
 *   cc topic.c $(pkg-config --cflags --libs shmk) -o topic && ./topic local:topic
 */
#include <inttypes.h>
#include <shmk.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: %s\n", what, strerror(-ret));
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_topic_opts make = { .flags = SHMK_TOPIC_CREATE, .nr_readers = 8 };
	struct shmk_sub_opts from = { .start = SHMK_START_LAST };
	struct shmk_held held;
	struct shmk_topic *t;
	struct shmk_sub *sub;
	struct shmk *s;
	pid_t writer = fork();	/* before attaching: each process is a peer of its own */

	check(shmk_attach(argc > 1 ? argv[1] : "topic", &opts, &s), "attach");
	check(shmk_topic_open(s, "temperature", &make, SHMK_TRY, &t), "open topic");
	if (writer == 0) {
		check(shmk_topic_writer(t, SHMK_FOREVER), "become the writer");
		for (int i = 0;; i++, usleep(1000)) {
			char text[32];
			int len = snprintf(text, sizeof(text), "%d.%d degrees", 20 + i / 10, i % 10);

			check(shmk_topic_publish_copy(t, text, len + 1, SHMK_FOREVER), "publish");
		}
	}
	check(shmk_topic_subscribe(t, &from, &sub), "subscribe");
	for (int i = 0; i < 5; i++) {
		check(shmk_topic_take(sub, &held, shmk_deadline_ms(5000)), "take");
		printf("%" PRIu64 ": %s\n", held.seq, (const char *)held.data);
		check(shmk_topic_release(&held), "release");
	}
	kill(writer, SIGKILL);
	waitpid(writer, NULL, 0);
	check(shmk_topic_take_last(sub, &held), "take the last one");
	printf("the last one is %s\n", (const char *)held.data);
	shmk_detach(s);
	return 0;
}
