// SPDX-License-Identifier: GPL-2.0-only
/*
 * trace_test.c - the module's tracepoints tell what happened, in its order.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/shmk.h>
#include <shmk.h>

#include "kselftest_harness.h"

#define TRACEFS	"/sys/kernel/tracing/"

static bool put(const char *file, const char *text)
{
	int fd = open(file, O_WRONLY | O_TRUNC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

/* The trace from @from on: the line that has @event and all of @what; NULL: none. */
static const char *line(const char *from, const char *event, const char *what)
{
	static char text[512];
	const char *end;

	for (; from && *from; from = end ? end + 1 : NULL) {
		end = strchr(from, '\n');
		snprintf(text, sizeof(text), "%.*s", (int)(end ? end - from : 400), from);
		if (strstr(text, event) && strstr(text, what))
			return from;
	}
	return NULL;
}

FIXTURE(trace)
{
	char uri[64], pool[80];
	struct shmk *s;
	char *text;
};

FIXTURE_SETUP(trace)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };

	snprintf(self->uri, sizeof(self->uri), "shmk:trace-%d", (int)getpid());
	snprintf(self->pool, sizeof(self->pool), "pool=%s ", self->uri + 5);
	self->text = calloc(1, 1 << 20);
	ASSERT_NE(NULL, self->text);
	if (access(TRACEFS "trace", R_OK))
		SKIP(return, "no tracefs");
	if (access(TRACEFS "events/sched", R_OK))
		SKIP(return, "this kernel has no tracepoints");
	ASSERT_EQ(0, access(TRACEFS "events/shmk", R_OK));
	ASSERT_TRUE(put(TRACEFS "trace", "\n"));
	ASSERT_TRUE(put(TRACEFS "events/shmk/enable", "1"));
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &self->s));
}

FIXTURE_TEARDOWN(trace)
{
	shmk_detach(self->s);
	put(TRACEFS "events/shmk/enable", "0");
	free(self->text);
}

static char state_of(pid_t pid)
{
	char path[32], text[512] = "";
	const char *end;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		return '?';
	close(fd);
	end = strrchr(text, ')');
	return end ? end[2] : '?';
}

/* In its poll, and not only on its way there, however busy the machine is. */
static void until_asleep(pid_t pid)
{
	for (int looks = 0; looks < 30; looks++) {
		usleep(10000);
		if (state_of(pid) != 'S')
			looks = 0;
	}
}

/* A child that holds three blocks, sends a short message to who sleeps, and is killed. */
static void child(const char *uri)
{
	struct shmk_queue *q;
	struct shmk_msg msg[3];
	struct shmk *s;
	int i;

	if (shmk_attach(uri, NULL, &s) || shmk_queue_open(s, "q", NULL, SHMK_TRY, &q))
		_exit(1);
	for (i = 0; i < 3; i++)
		if (shmk_alloc(s, 1000, 0, &msg[i]))
			_exit(2);
	until_asleep(getppid());
	if (shmk_send_copy(q, "hello", 5, SHMK_TRY))
		_exit(3);
	raise(SIGKILL);
}

static bool read_trace(char *text, size_t room)
{
	int fd = open(TRACEFS "trace", O_RDONLY);
	size_t done = 0;
	ssize_t n;

	while ((n = read(fd, text + done, room - 1 - done)) > 0)
		done += (size_t)n;
	text[done] = '\0';
	close(fd);
	return done;
}

TEST_F(trace, a_life_is_told)
{
	struct shmk_queue_opts q_opts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_event event = { .type = 0 };
	const char *at, *settled;
	struct shmk_queue *q;
	char own[32];
	pid_t pid;
	int status;

	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &q_opts, SHMK_TRY, &q));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		child(self->uri);
	ASSERT_EQ(5, shmk_recv_copy(q, own, sizeof(own), shmk_deadline_ms(20000)));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	while (event.type != SHMK_EV_DIED)
		if (shmk_event_next(self->s, &event))
			usleep(1000);
	ASSERT_TRUE(read_trace(self->text, 1 << 20));

	at = line(self->text, "shmk_attach:", self->pool);
	ASSERT_NE(NULL, at);
	at = line(strchr(at, '\n'), "shmk_attach:", self->pool);
	ASSERT_NE(NULL, at) TH_LOG("the second peer is missing");
	/* We slept: armed, then the bell, then ready. */
	EXPECT_NE(NULL, line(self->text, "shmk_armed:", "side=recv"));
	at = line(at, "shmk_bell:", "side=recv");
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_wake:", "side=recv");
	ASSERT_NE(NULL, at);
	EXPECT_NE(NULL, line(at, "shmk_ready:", "side=recv"));
	at = line(at, "shmk_end:", "reason=killed code=9");
	ASSERT_NE(NULL, at);
	settled = line(at, "shmk_settled:", "blocks=3 bytes=");
	ASSERT_NE(NULL, settled);
	EXPECT_EQ(settled, line(self->text, "shmk_settled:", self->pool));
	EXPECT_EQ(NULL, line(settled, "shmk_settled:", "took_ns=0"));
}

TEST_F(trace, pools_queues_and_who_is_stuck_are_told)
{
	struct shmk_queue_opts q_opts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_event event = { .type = 0 };
	struct shmk_queue *q;
	const char *at;

	ASSERT_EQ(0, shmk_queue_open(self->s, "traced", &q_opts, SHMK_TRY, &q));
	shmk_queue_close(q);
	ASSERT_EQ(0, shmk_queue_remove(self->s, "traced"));
	ASSERT_EQ(0, shmk_stuck_after(self->s, 20));
	while (event.type != SHMK_EV_STUCK)
		if (shmk_event_next(self->s, &event))
			usleep(1000);
	shmk_not_stuck(self->s);
	while (event.type != SHMK_EV_UNSTUCK)
		if (shmk_event_next(self->s, &event))
			usleep(1000);
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	shmk_detach(self->s);
	self->s = NULL;
	ASSERT_TRUE(read_trace(self->text, 1 << 20));

	at = line(self->text, "shmk_pool_created:", self->pool);
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_queue_created:", "queue=0 name=traced");
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_queue_removed:", "queue=0 name=traced");
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_stuck:", "deadline_ms=20");
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_unstuck:", self->pool);
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_pool_created:", self->pool);
	ASSERT_NE(NULL, at);
	at = line(at, "shmk_pool_reset:", self->pool);
	ASSERT_NE(NULL, at);
	/* With the last who was in the old one. */
	EXPECT_NE(NULL, line(at, "shmk_pool_destroyed:", self->pool));
}

/* Whoever is last to use a large queue that goes by itself. */
static void last_user(const char *uri, struct shmk_queue_opts *opts)
{
	struct shmk_queue *q;
	struct shmk *s;
	int i;

	if (shmk_attach(uri, NULL, &s) || shmk_queue_open(s, "large", opts, SHMK_TRY, &q))
		_exit(1);
	for (i = 0; i < 5000; i++)
		if (shmk_send_copy(q, "hello", 5, SHMK_TRY))
			_exit(3);
	raise(SIGKILL);
}

TEST_F(trace, a_large_queue_is_not_removed_by_who_dies)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_TRANSIENT,
					.capacity = 8192 };
	struct shmk_pool_opts pool = { .bytes = 1 << 20, .rings_bytes = 2 << 20 };
	struct shmk_attach_opts attach = { .create = &pool, .exclusive = true };
	struct shmk_event event = { .type = 0 };
	const char *removed, *settled;
	bool gone = false;
	int status, i;
	pid_t pid;

	shmk_detach(self->s);
	self->s = NULL;
	ASSERT_EQ(0, shmk_attach(self->uri, &attach, &self->s));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		last_user(self->uri, &opts);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	while (event.type != SHMK_EV_DIED) {
		if (shmk_event_next(self->s, &event))
			usleep(1000);
		else
			gone |= event.type == SHMK_EV_QUEUE_REMOVED;
	}
	EXPECT_TRUE(gone);
	EXPECT_EQ(-ENOENT, shmk_queue_remove(self->s, "large"));
	/* The event is told a moment before that. */
	for (i = 0, settled = NULL; !settled && i < 1000; i++) {
		usleep(1000);
		ASSERT_TRUE(read_trace(self->text, 1 << 20));
		removed = line(self->text, "shmk_queue_removed:", "name=large");
		ASSERT_NE(NULL, removed);
		settled = line(removed, "shmk_settled:", self->pool);
	}
	EXPECT_EQ(removed, line(removed, "kworker", "name=large"));
	ASSERT_NE(NULL, settled);
	EXPECT_EQ(NULL, line(strchr(settled, '\n'), "shmk_settled:", self->pool));
}

TEST_HARNESS_MAIN
