// SPDX-License-Identifier: GPL-2.0-only
/*
 * deadline_test.c - alive but stuck: who has set itself a deadline and does not move is told of,
 * and keeps what it has.
 *
 * Deadlines that must be missed are short; those that must not are far longer than a busy
 * machine stalls for.
 */
#include <shmk.h>

#include "shmk_test.h"
#include "kselftest_harness.h"

#define POOL		"deadline-test"
#define SHORT_MS	40
#define LONG_MS		600000

FIXTURE(deadline)
{
	int device, pool, events;
	struct test_child c;
	uint32_t peer, gen;
};

/* A peer that does as it is told: 'd' MS sets its deadline, 'b' beats, 'l' loops. */
static int obeys(int sock, void *arg)
{
	struct shmk_msg msg;
	struct test_msg m;
	struct shmk *s;

	CHILD_CHECK(!shmk_attach((const char *)arg, NULL, &s));
	CHILD_CHECK(!shmk_alloc(s, 100, 0, &msg));
	CHILD_CHECK(!test_say(sock, shmk_self(s), shmk_self_gen(s), 0));
	while (!test_hear(sock, &m)) {
		if (m.v[0] == 'd')
			CHILD_CHECK(!shmk_stuck_after(s, (uint32_t)m.v[1]));
		else if (m.v[0] == 'b')
			shmk_not_stuck(s);
		else
			for (;;)
				;
		CHILD_CHECK(!test_say(sock, 0, 0, 0));
	}
	return 0;
}

static int tell(struct test_child *c, uint64_t what, uint64_t arg)
{
	struct test_msg m;

	return test_say(c->sock, what, arg, 0) ?: test_hear(c->sock, &m);
}

FIXTURE_SETUP(deadline)
{
	struct test_msg m;

	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->pool = raw_pool_create(self->device, POOL, 1 << 20, 12);
	ASSERT_LE(0, self->pool);
	ASSERT_EQ(0, test_child_start(&self->c, obeys, "shmk:" POOL));
	ASSERT_EQ(0, test_hear(self->c.sock, &m));
	self->peer = m.v[0];
	self->gen = m.v[1];
	self->events = test_events(self->pool);
	ASSERT_LE(0, self->events);
}

FIXTURE_TEARDOWN(deadline)
{
	if (self->c.pidfd >= 0)
		test_child_kill(&self->c);
	close(self->events);
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

static uint32_t flags_of(int pool, uint32_t peer)
{
	struct shmk_peer_info info = { .size = sizeof(info), .peer = peer };

	return raw(pool, SHMK_IOC_PEER_INFO, &info) || info.peer != peer ? ~0U : info.flags;
}

static int sysfs_number(uint32_t peer, const char *file)
{
	char path[128], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/shmk/pools/" POOL "/peers/%u/%s", peer, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return -1;
	close(fd);
	return atoi(text);
}

/* The next event is of this type, of our peer, and nothing else has been told. */
static void next_is(struct __test_metadata *_metadata, FIXTURE_DATA(deadline) *self, uint32_t type)
{
	struct shmk_event event;

	ASSERT_EQ(0, test_event(self->events, &event));
	EXPECT_EQ(type, event.type);
	EXPECT_EQ(self->peer, event.peer);
	EXPECT_EQ(self->gen, event.gen);
	EXPECT_EQ(self->c.pid, event.pid);
	/* Who is not may be again by now, on a busy machine. */
	if (type == SHMK_EV_STUCK) {
		EXPECT_LE(SHORT_MS * 1000000ULL, event.took_ns);
		EXPECT_EQ(SHMK_PEER_STUCK, flags_of(self->pool, self->peer));
		EXPECT_EQ(1, sysfs_number(self->peer, "stuck"));
	}
}

TEST_F(deadline, who_does_not_move_is_stuck_and_who_moves_again_is_not)
{
	struct shmk_event event;

	EXPECT_EQ(0, sysfs_number(self->peer, "deadline_ms"));
	ASSERT_EQ(0, tell(&self->c, 'd', SHORT_MS));
	EXPECT_EQ(SHORT_MS, sysfs_number(self->peer, "deadline_ms"));
	next_is(_metadata, self, SHMK_EV_STUCK);
	/* Once, however long it lasts. */
	EXPECT_EQ(-ETIMEDOUT, test_event_within(self->events, &event, 5 * SHORT_MS));
	/* It has what it had, and is alive to everybody. */
	EXPECT_EQ(1, sysfs_number(self->peer, "blocks"));
	ASSERT_EQ(0, tell(&self->c, 'b', 0));
	next_is(_metadata, self, SHMK_EV_UNSTUCK);
	next_is(_metadata, self, SHMK_EV_STUCK);
	/* To set one is to move. */
	ASSERT_EQ(0, tell(&self->c, 'd', LONG_MS));
	next_is(_metadata, self, SHMK_EV_UNSTUCK);
	EXPECT_EQ(0, flags_of(self->pool, self->peer));
	EXPECT_EQ(0, sysfs_number(self->peer, "stuck"));
	ASSERT_EQ(0, tell(&self->c, 'd', 0));
	EXPECT_EQ(0, sysfs_number(self->peer, "deadline_ms"));
	EXPECT_EQ(-ETIMEDOUT, test_event_within(self->events, &event, 5 * SHORT_MS));
	test_child_kill(&self->c);
	self->c.pidfd = -1;
	next_is(_metadata, self, SHMK_EV_DIED);
}

TEST_F(deadline, one_that_is_stopped_or_loops_is_stuck_and_alive)
{
	ASSERT_EQ(0, tell(&self->c, 'd', SHORT_MS));
	kill(self->c.pid, SIGSTOP);
	next_is(_metadata, self, SHMK_EV_STUCK);
	kill(self->c.pid, SIGCONT);
	ASSERT_EQ(0, tell(&self->c, 'b', 0));
	next_is(_metadata, self, SHMK_EV_UNSTUCK);
	ASSERT_EQ(0, test_say(self->c.sock, 'l', 0, 0));
	next_is(_metadata, self, SHMK_EV_STUCK);
	EXPECT_EQ(-ETIMEDOUT, test_poll(self->c.pidfd, POLLIN, 0));
	/* Its death is told as any other, and at once. */
	test_child_kill(&self->c);
	self->c.pidfd = -1;
	next_is(_metadata, self, SHMK_EV_DIED);
}

TEST_F(deadline, who_has_none_or_a_long_one_is_never_stuck)
{
	struct test_child other;
	struct shmk_event event;
	struct test_msg m;

	/* The looks are many: somebody else's deadline is short. */
	ASSERT_EQ(0, test_child_start(&other, obeys, "shmk:" POOL));
	ASSERT_EQ(0, test_hear(other.sock, &m));
	ASSERT_EQ(0, test_event_of(self->events, SHMK_EV_ATTACHED, m.v[0], m.v[1], &event));
	ASSERT_EQ(0, tell(&self->c, 'd', LONG_MS));
	ASSERT_EQ(0, tell(&other, 'd', SHORT_MS));
	ASSERT_EQ(0, test_event(self->events, &event));
	EXPECT_EQ(SHMK_EV_STUCK, event.type);
	EXPECT_EQ(m.v[0], event.peer);
	EXPECT_EQ(-ETIMEDOUT, test_event_within(self->events, &event, 5 * SHORT_MS));
	EXPECT_EQ(0, flags_of(self->pool, self->peer));
	test_child_kill(&other);
	ASSERT_EQ(0, test_event(self->events, &event));
	EXPECT_EQ(SHMK_EV_DIED, event.type);
	EXPECT_EQ(-ETIMEDOUT, test_event_within(self->events, &event, 2 * SHORT_MS));
}

/* The tool, beside the library's own tellers of events. */
TEST_F(deadline, the_tool_and_a_monitor_tell_it)
{
	struct shmk_monitor_event told = { .type = 0 };
	struct shmk_peer peer = { .id = 0 };
	struct shmk_monitor *monitor;
	struct shmk_event event;
	char line[256] = "";
	struct shmk *s;
	FILE *tool;

	tool = popen("shmk events shmk:" POOL " --type stuck --count 1 --timeout 60s", "r");
	ASSERT_NE(NULL, tool);
	/* It watches. */
	ASSERT_EQ(0, test_event_of(self->events, SHMK_EV_ATTACHED, 0, 0, &event));
	ASSERT_EQ(0, shmk_monitor_open("shmk:" POOL, 0, &monitor));
	ASSERT_EQ(0, tell(&self->c, 'd', SHORT_MS));
	EXPECT_NE(NULL, fgets(line, sizeof(line), tool));
	EXPECT_EQ(0, strncmp(line, "stuck ", 6)) TH_LOG("%s", line);
	EXPECT_NE(NULL, strstr(line, ": had not moved for ")) TH_LOG("%s", line);
	EXPECT_EQ(0, pclose(tool));
	while (told.type != SHMK_EV_STUCK) {
		ASSERT_LT(0, test_poll(shmk_monitor_fd(monitor), POLLIN, PATIENCE_MS));
		shmk_monitor_next(monitor, &told);
	}
	EXPECT_EQ(self->peer, told.peer);
	EXPECT_LE(SHORT_MS * 1000000ULL, told.took_ns);
	shmk_monitor_close(monitor);
	ASSERT_EQ(0, shmk_attach("shmk:" POOL, NULL, &s));
	ASSERT_EQ(0, shmk_peer_next(s, self->peer, &peer));
	EXPECT_EQ(self->peer, peer.id);
	EXPECT_TRUE(peer.stuck);
	EXPECT_FALSE(peer.dead);
	shmk_detach(s);
}

static int stranger(int sock __attribute__((unused)), void *arg)
{
	struct shmk_deadline d = { .size = sizeof(d), .ms = 1 };

	return -raw(*(int *)arg, SHMK_IOC_DEADLINE, &d);
}

TEST_F(deadline, what_is_wrong_is_refused)
{
	struct shmk_deadline d = { .size = sizeof(d), .ms = SHMK_DEADLINE_MAX + 1 };
	int att = raw_attach(self->pool, SHMK_ATTACH_F_RDONLY, 16, NULL);

	ASSERT_LE(0, att);
	EXPECT_EQ(-EINVAL, raw(att, SHMK_IOC_DEADLINE, &d));
	d.ms = SHMK_DEADLINE_MAX;
	EXPECT_EQ(0, raw(att, SHMK_IOC_DEADLINE, &d));
	EXPECT_EQ(-ENOTTY, raw(self->pool, SHMK_IOC_DEADLINE, &d));
	d.flags = 1;
	EXPECT_EQ(-EINVAL, raw(att, SHMK_IOC_DEADLINE, &d));
	d.flags = 0;
	d.reserved = 1;
	EXPECT_EQ(-EINVAL, raw(att, SHMK_IOC_DEADLINE, &d));
	d.reserved = 0;
	d.size--;
	EXPECT_EQ(-EINVAL, raw(att, SHMK_IOC_DEADLINE, &d));
	d.size++;
	EXPECT_EQ(ENXIO, test_child_run(stranger, &att));
	ASSERT_EQ(0, raw_detach(att));
	EXPECT_EQ(-ENXIO, raw(att, SHMK_IOC_DEADLINE, &d));
	close(att);
}

TEST_F(deadline, a_pool_goes_with_deadlines_running)
{
	struct shmk_deadline d = { .size = sizeof(d), .ms = 1 };
	int i, pool, att;

	for (i = 0; i < 20; i++) {
		pool = raw_pool_create(self->device, NULL, 1 << 20, 12);
		ASSERT_LE(0, pool);
		att = raw_attach(pool, 0, 16, NULL);
		ASSERT_LE(0, att);
		ASSERT_EQ(0, raw(att, SHMK_IOC_DEADLINE, &d));
		if (i % 2)
			poll(NULL, 0, 3);
		close(pool);
		close(att);
	}
}

TEST_HARNESS_MAIN
