// SPDX-License-Identifier: GPL-2.0-only
/*
 * monitor_test.c - shmk_monitor_*(): what happens in pools is told to who is in none.
 */
#include <sys/socket.h>

#include "lib_test.h"
#include "kselftest_harness.h"

FIXTURE(monitor)
{
	char uri[64];
	char name[64];
	struct shmk_pool_opts opts;
	struct shmk_attach_opts create;
};

FIXTURE_SETUP(monitor)
{
	test_uri(self->uri, "monitored");
	strcpy(self->name, strchr(self->uri, ':') + 1);
	self->opts = (struct shmk_pool_opts) { .bytes = MIB };
	self->create = (struct shmk_attach_opts) { .create = &self->opts };
}

FIXTURE_TEARDOWN(monitor)
{
	struct shmk *s;

	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
}

/* The next event, waited for by its fd; -ETIMEDOUT after @ms. */
static int next(struct shmk_monitor *m, struct shmk_monitor_event *event, int ms)
{
	struct pollfd p = { .fd = shmk_monitor_fd(m), .events = POLLIN };
	int64_t end = shmk_deadline_ms(ms);
	int ret;

	memset(event, 0xa5, sizeof(*event));
	for (;;) {
		ret = shmk_monitor_next(m, event);
		if (ret != -EAGAIN)
			return ret;
		if (now_ns() >= end)
			return -ETIMEDOUT;
		poll(&p, 1, 100);
	}
}

static int next_of(struct shmk_monitor *m, uint32_t type, struct shmk_monitor_event *event)
{
	int ret;

	do
		ret = next(m, event, WATCHDOG_MS);
	while (!ret && event->type != type);
	return ret;
}

static void dies_with_a_block(struct child_end *end, void *arg)
{
	struct shmk_msg msg;
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s) || shmk_alloc(s, 100, 0, &msg))
		_exit(1);
	tell(end, (int)shmk_self(s));
	hear(end->from);
}

TEST_F(monitor, a_life_is_told_to_who_is_not_there)
{
	struct shmk_monitor_event e;
	struct shmk_monitor *m;
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_queue *q;
	struct child c;
	struct shmk *s;
	int peer, fds = open_fds();

	ASSERT_EQ(0, shmk_monitor_open(self->uri, 0, &m));
	EXPECT_EQ(-ETIMEDOUT, next(m, &e, 0));
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, next_of(m, SHMK_EV_CREATED, &e));
	EXPECT_STREQ(self->name, e.pool);
	/* A local pool's events begin when it has been seen. */
	ASSERT_EQ(0, shmk_queue_open(s, "q", &queue, SHMK_TRY, &q));
	ASSERT_EQ(0, next_of(m, SHMK_EV_QUEUE_CREATED, &e));
	EXPECT_EQ(shmk_self(s), e.peer);
	child_start(&c, dies_with_a_block, self->uri);
	peer = child_hear(&c);
	ASSERT_EQ(0, next_of(m, SHMK_EV_ATTACHED, &e));
	EXPECT_EQ((uint32_t)peer, e.peer);
	child_kill(&c);
	ASSERT_EQ(0, next_of(m, SHMK_EV_DIED, &e));
	EXPECT_EQ((uint32_t)peer, e.peer);
	EXPECT_STREQ(self->name, e.pool);
	ASSERT_TRUE(e.has_detail);
	EXPECT_EQ(c.pid, e.pid);
	EXPECT_EQ(geteuid(), e.uid);
	EXPECT_EQ(1, e.blocks);
	EXPECT_EQ(on_module() ? SHMK_REASON_KILLED : SHMK_REASON_UNKNOWN, e.reason);
	shmk_detach(s);
	ASSERT_EQ(0, next_of(m, SHMK_EV_DESTROYED, &e));
	EXPECT_STREQ(self->name, e.pool);
	/* The next one of that name. */
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, next_of(m, SHMK_EV_CREATED, &e));
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	ASSERT_EQ(0, next_of(m, SHMK_EV_CREATED, &e));
	shmk_detach(s);
	shmk_pool_cleanup(self->uri);
	ASSERT_EQ(0, next_of(m, SHMK_EV_DESTROYED, &e));
	shmk_monitor_close(m);
	EXPECT_EQ(fds, open_fds());
}

TEST_F(monitor, of_all_pools_each_is_told)
{
	struct shmk_monitor_event e;
	struct shmk_monitor *m, *other;
	char all[32];
	struct shmk *s;

	sprintf(all, "%s:", on_module() ? "shmk" : "local");
	EXPECT_EQ(-EINVAL, shmk_monitor_open(NULL, 0, &m));
	EXPECT_EQ(-EINVAL, shmk_monitor_open("none:", 0, &m));
	EXPECT_EQ(-EINVAL, shmk_monitor_open(all, 2, &m));
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_monitor_open(all, SHMK_MONITOR_EXISTING, &m));
	ASSERT_EQ(0, next_of(m, SHMK_EV_CREATED, &e));
	EXPECT_STREQ(self->name, e.pool);
	strcat(all, "another");
	ASSERT_EQ(0, shmk_monitor_open(all, SHMK_MONITOR_EXISTING, &other));
	shmk_detach(s);
	ASSERT_EQ(0, next_of(m, SHMK_EV_DESTROYED, &e));
	EXPECT_EQ(-ETIMEDOUT, next(other, &e, 300));
	shmk_monitor_close(other);
	shmk_monitor_close(m);
	shmk_monitor_close(NULL);
}

#define BURST	3000

/* What is lost is said to be, and what there is then is true. */
TEST_F(monitor, who_is_overrun_is_told_what_has_become)
{
	struct shmk_monitor_event e;
	char uri[2][80], all[8];
	struct shmk_monitor *m;
	bool made[2] = { false, false };
	struct shmk *s, *at;
	int ret, small = 4096;

	sprintf(all, "%s:", on_module() ? "shmk" : "local");
	for (int i = 0; i < 2; i++)
		sprintf(uri[i], "%s.%d", self->uri, i);
	ASSERT_EQ(0, shmk_attach(uri[0], &self->create, &at));
	ASSERT_EQ(0, shmk_monitor_open(all, SHMK_MONITOR_EXISTING, &m));
	ASSERT_EQ(0, next_of(m, SHMK_EV_CREATED, &e));
	if (on_module()) {
		ASSERT_EQ(0, setsockopt(shmk_monitor_fd(m), SOL_SOCKET, SO_RCVBUF, &small,
					sizeof(small)));
	} else {
		while (next(m, &e, 200) != -ETIMEDOUT)
			;
	}
	for (int i = 0; i < (on_module() ? BURST / 10 : BURST); i++) {
		struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE };
		struct shmk_queue *q;

		ASSERT_EQ(0, shmk_queue_open(at, "q", &opts, SHMK_TRY, &q));
		shmk_queue_close(q);
		ASSERT_EQ(0, shmk_queue_remove(at, "q"));
	}
	shmk_detach(at);
	ASSERT_EQ(0, shmk_attach(uri[1], &self->create, &s));
	ASSERT_EQ(0, next_of(m, SHMK_EV_LOST, &e));
	while (!(ret = next(m, &e, 500))) {
		for (int i = 0; i < 2; i++) {
			if (strcmp(e.pool, strchr(uri[i], ':') + 1))
				continue;
			if (e.type == SHMK_EV_CREATED)
				made[i] = true;
			if (e.type == SHMK_EV_DESTROYED)
				made[i] = false;
		}
	}
	EXPECT_EQ(-ETIMEDOUT, ret);
	EXPECT_FALSE(made[0]);
	EXPECT_TRUE(made[1]);
	shmk_detach(s);
	ASSERT_EQ(0, next_of(m, SHMK_EV_DESTROYED, &e));
	shmk_monitor_close(m);
}

static void unprivileged(struct child_end *end, void *arg)
{
	struct shmk_monitor_event e;
	struct shmk_monitor *m;

	if (setgid(1002) || setuid(1002) || shmk_monitor_open("shmk:", 0, &m))
		_exit(1);
	tell(end, 0);
	if (next_of(m, SHMK_EV_CREATED, &e) || strcmp(e.pool, arg) || e.has_detail)
		_exit(2);
	if (next_of(m, SHMK_EV_ATTACHED, &e) || strcmp(e.pool, arg) || e.has_detail || !e.peer ||
	    e.pid || e.comm[0])
		_exit(3);
	tell(end, 0);
	if (next_of(m, SHMK_EV_DESTROYED, &e) || strcmp(e.pool, arg))
		_exit(4);
	shmk_monitor_close(m);
}

TEST_F(monitor, who_has_no_rights_gets_ids)
{
	struct child c;
	struct shmk *s;

	if (!on_module())
		SKIP(return, "the local backend shows what the directory shows");
	if (geteuid())
		SKIP(return, "only root can become somebody else");
	child_start(&c, unprivileged, self->name);
	ASSERT_EQ(0, child_hear(&c));
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, child_hear(&c));
	shmk_detach(s);
	EXPECT_EQ(0, child_wait(&c));
}

TEST_HARNESS_MAIN
