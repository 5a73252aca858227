// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * redeliver.c - a worker dies with a job in its hands; another one gets that job.
 *
 *	cc redeliver.c $(pkg-config --cflags --libs shmk) -o redeliver && ./redeliver
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmk.h>

static int check(int ret, const char *what)
{
	if (ret < 0) {
		fprintf(stderr, "%s: error %d\n", what, ret);
		exit(1);
	}
	return ret;
}

/* Does @nr jobs and, if it is to die, dies with the next one in its hands. */
static void worker(struct shmk_queue *q, int nr, int dies)
{
	struct shmk_msg job = { .data = NULL };

	while (nr--) {
		check(shmk_recv(q, &job, shmk_deadline_ms(5000)), "receive");
		printf("%s%s\n", (char *)job.data, job.redelivered ? ", again" : "");
		shmk_free(&job);		/* acknowledges it */
	}
	fflush(stdout);
	if (dies && !shmk_recv(q, &job, shmk_deadline_ms(5000)))
		raise(SIGKILL);
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER };
	pid_t child = fork();
	struct shmk_queue *q;
	struct shmk *s;

	check(shmk_attach(argc > 1 ? argv[1] : "redeliver", &opts, &s), "attach");
	check(shmk_queue_open(s, "jobs", &queue, SHMK_TRY, &q), "open queue");
	for (int i = 0; child && i < 4; i++) {
		char job[] = { 'j', 'o', 'b', ' ', (char)('0' + i), 0 };

		check(shmk_send_copy(q, job, sizeof(job), SHMK_TRY), "send");
	}
	if (child)
		waitpid(child, NULL, 0);
	worker(q, child ? 3 : 1, !child);	/* the child does one, and dies with the next */
	shmk_detach(s);
	return 0;
}
