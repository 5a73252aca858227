// SPDX-License-Identifier: GPL-2.0-only
/*
 * capsule_test.c - what the last who died were doing is kept, and nothing of others.
 */
#include "shmk_test.h"
#include "kselftest_harness.h"

#define KEPT	8

FIXTURE(capsule)
{
	int device, pool;
};

FIXTURE_SETUP(capsule)
{
	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->pool = raw_pool_create(self->device, NULL, 1 << 20, 12);
	ASSERT_LE(0, self->pool);
}

FIXTURE_TEARDOWN(capsule)
{
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

static int capsule(int pool, uint64_t seq, struct shmk_capsule *c)
{
	memset(c, 0, sizeof(*c));
	c->size = sizeof(*c);
	c->seq = seq;
	return raw(pool, SHMK_IOC_CAPSULE, c);
}

struct life {
	int pool;
	uint32_t nr;		/* entries in use */
	uint64_t high;		/* what it says, if not 0 */
	bool clean;
};

/* Every second entry is in use, from 1 on: WAITING, which settling just clears. */
static int lives(int sock, void *arg)
{
	struct life *l = arg;
	struct test_att a;

	CHILD_CHECK(!test_attach(l->pool, 0, 4096, &a));
	for (uint32_t i = 0; i < l->nr; i++)
		test_entry(&a, 2 * i + 1, SHMK_WHAT(SHMK_OP_WAITING, i, 7), SHMK_WHERE(3, i));
	if (l->high)
		STORE(&a.ledger->high, l->high);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	if (!l->clean)
		test_park(sock);
	CHILD_CHECK(!raw_detach(a.fd));
	return 0;
}

/* The life, to its end, which has been told. */
static struct test_msg life(struct __test_metadata *_metadata, struct life *l, pid_t *pid)
{
	int events = test_events(l->pool);
	struct shmk_event event;
	struct test_child c;
	struct test_msg m;

	ASSERT_EQ(0, test_child_start(&c, lives, l));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	*pid = c.pid;
	if (l->clean) {
		ASSERT_EQ(0, test_child_end(&c));
	} else {
		test_child_kill(&c);
	}
	ASSERT_EQ(0, test_end_of(events, m.v[0], m.v[1], &event));
	close(events);
	return m;
}

TEST_F(capsule, what_the_dead_was_doing_is_kept)
{
	struct life l = { .pool = self->pool, .nr = 5 };
	struct shmk_capsule c;
	struct test_msg m;
	pid_t pid;

	EXPECT_EQ(-ENOENT, capsule(self->pool, 0, &c));
	m = life(_metadata, &l, &pid);
	ASSERT_EQ(0, capsule(self->pool, 0, &c));
	EXPECT_EQ(sizeof(c), c.size);
	EXPECT_EQ(0, c.seq);
	EXPECT_EQ(m.v[0], c.peer);
	EXPECT_EQ(m.v[1], c.gen);
	EXPECT_EQ(pid, c.pid);
	EXPECT_EQ(0, c.uid);
	EXPECT_EQ(SHMK_REASON_KILLED, c.reason);
	EXPECT_EQ(SIGKILL, c.code);
	EXPECT_STREQ("capsule_test", c.comm);
	EXPECT_LT(c.attached_ns, c.time_ns);
	EXPECT_EQ(10, c.high);
	ASSERT_EQ(5, c.nr_entries);
	for (uint32_t i = 0; i < 5; i++) {
		EXPECT_EQ(SHMK_WHAT(SHMK_OP_WAITING, i, 7), c.entry[i].what);
		EXPECT_EQ(SHMK_WHERE(3, i), c.entry[i].where);
	}
	/* It is still there, and nothing behind it. */
	ASSERT_EQ(0, capsule(self->pool, 0, &c));
	EXPECT_EQ(-ENOENT, capsule(self->pool, 1, &c));
}

TEST_F(capsule, who_leaves_in_good_order_leaves_none)
{
	struct life l = { .pool = self->pool, .nr = 5, .clean = true };
	struct shmk_capsule c;
	pid_t pid;

	life(_metadata, &l, &pid);
	EXPECT_EQ(-ENOENT, capsule(self->pool, 0, &c));
}

TEST_F_TIMEOUT(capsule, the_last_deaths_are_kept, 60)
{
	struct shmk_capsule c;
	pid_t pid;

	for (uint32_t i = 0; i < KEPT + 3; i++) {
		struct life l = { .pool = self->pool, .nr = i };

		life(_metadata, &l, &pid);
	}
	c.seq = 0;
	for (uint32_t i = 3; i < KEPT + 3; i++) {
		ASSERT_EQ(0, capsule(self->pool, i == 3 ? 0 : c.seq + 1, &c));
		EXPECT_EQ(i, c.seq);
		EXPECT_EQ(i, c.nr_entries);
	}
	EXPECT_EQ(-ENOENT, capsule(self->pool, c.seq + 1, &c));
	EXPECT_EQ(-ENOENT, capsule(self->pool, UINT64_MAX, &c));
}

TEST_F(capsule, more_than_fits_is_cut)
{
	struct life l = { .pool = self->pool, .nr = SHMK_CAPSULE_ENTRIES + 9, .high = ~0ULL };
	struct shmk_capsule c;
	pid_t pid;

	life(_metadata, &l, &pid);
	ASSERT_EQ(0, capsule(self->pool, 0, &c));
	EXPECT_EQ(SHMK_CAPSULE_ENTRIES, c.nr_entries);
	EXPECT_EQ(4096, c.high);
}

TEST_HARNESS_MAIN
