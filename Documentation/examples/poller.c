// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/* poller.c - one wait for two queues, a timer, and the death of who sends. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <shmk.h>
#include <linux/shmk.h>

static int sender(struct shmk_queue **q)
{
	for (int i = 0; i < 6; i++)
		shmk_send_copy(q[i % 2], &i, sizeof(i), SHMK_FOREVER);
	usleep(20000);		/* the timer's turn */
	return raise(SIGKILL);
}

int main(int argc, char **argv)
{
	struct itimerspec soon = { .it_value.tv_nsec = 10000000 }, off = { .it_value.tv_nsec = 0 };
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_attach_opts attach = { .create = &(struct shmk_pool_opts){ .bytes = 1 << 20 } };
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), left = 8, value;
	pid_t child = fork();
	struct shmk_ready ready[4];
	struct shmk_event ev;
	struct shmk_queue *q[2];
	struct shmk_poller *p;
	struct shmk *s;

	if (shmk_attach(argc > 1 ? argv[1] : "poller", &attach, &s) < 0 ||
	    shmk_queue_open(s, "a", &opts, SHMK_TRY, &q[0]) < 0 ||
	    shmk_queue_open(s, "b", &opts, SHMK_TRY, &q[1]) < 0 ||
	    shmk_wait_peers(s, 2, shmk_deadline_ms(5000)) < 0)
		return 1;
	if (child == 0)
		return sender(q);
	shmk_poller_open(s, &p);
	shmk_poller_add(p, q[0], SHMK_RECV, "a");
	shmk_poller_add(p, q[1], SHMK_RECV, "b");
	timerfd_settime(timer, 0, &soon, NULL);
	shmk_poller_add_fd(p, timer, POLLIN, "tick");
	shmk_poller_add_events(p, NULL);
	for (int n; left && (n = shmk_poller_wait(p, ready, 4, shmk_deadline_ms(5000))) > 0;) {
		for (struct shmk_ready *r = ready; r < ready + n; r++) {
			if (r->kind == SHMK_READY_QUEUE &&
			    shmk_recv_copy(r->queue, &value, sizeof(value), SHMK_TRY) > 0)
				left -= printf("message %d from %s\n", value, (char *)r->tag) > 0;
			if (r->kind == SHMK_READY_FD && timerfd_settime(timer, 0, &off, NULL) == 0)
				left -= printf("%s\n", (char *)r->tag) > 0;
			while (r->kind == SHMK_READY_EVENTS && shmk_event_next(s, &ev) == 0)
				left -= ev.type == SHMK_EV_DIED && printf("pid %d died\n", ev.pid) > 0;
		}
	}
	shmk_detach(s);
	return left;
}
