/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * death.h - an observer of deaths, and victims.
 *
 * The observer is the test itself: a peer of the pool, reading its events.
 * Victims are children; each says its id and generation first.
 */
#ifndef SHMK_SELFTESTS_DEATH_H
#define SHMK_SELFTESTS_DEATH_H

#include "shmk_test.h"
#include "kselftest_harness.h"

#define QUIET_MS	250
#define POOL_BYTES	(4UL << 20)
#define CAPACITY	8

FIXTURE(death)
{
	int device, pool, events;
	uint32_t queue, queue_gen;	/* "q", open for the observer */
	struct test_att me;
};

typedef FIXTURE_DATA(death) death_t;

static void observe(struct __test_metadata *_metadata, death_t *self)
{
	struct shmk_pool_create args = raw_pool_args(NULL, POOL_BYTES, 12);

	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	args.nr_peers = 256;
	args.nr_queues = 16;
	self->pool = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, self->pool);
	ASSERT_EQ(0, test_attach(self->pool, 0, 0, &self->me));
	ASSERT_EQ(0, raw_queue_create(self->me.fd, "q", CAPACITY, &self->queue, &self->queue_gen));
	self->events = test_events(self->pool);
	ASSERT_LE(0, self->events);
}

/* Whatever happened: nobody but the observer is left, and then nothing at all. */
static void leave_nothing(struct __test_metadata *_metadata, death_t *self)
{
	struct shmk_pool_info info;

	EXPECT_EQ(0, raw_pool_info(self->pool, &info));
	EXPECT_EQ(1, info.peers_now);
	EXPECT_EQ(info.attaches, info.detaches + info.deaths + 1);
	close(self->events);
	test_close(&self->me);
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

FIXTURE_SETUP(death)
{
	observe(_metadata, self);
}

FIXTURE_TEARDOWN(death)
{
	leave_nothing(_metadata, self);
}

/* ---- victims ---- */

/* Attaches and says its id and generation. */
static inline struct test_att victim_attach(int sock, const death_t *d)
{
	struct test_att a;

	CHILD_CHECK(!test_attach(d->pool, 0, 0, &a));
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	return a;
}

static inline int victim_parks(int sock, void *arg)
{
	victim_attach(sock, arg);
	test_park(sock);
}

/* Starts a victim and hears its id; 0 or -errno. */
static inline int victim_start(struct test_child *c, int (*fn)(int sock, void *arg), void *arg,
			uint32_t *peer, uint32_t *gen)
{
	struct test_msg m;
	int err = test_child_start(c, fn, arg);

	if (!err)
		err = test_hear(c->sock, &m);
	*peer = m.v[0];
	*gen = m.v[1];
	return err;
}

/*
 * The victim's end as told by its event, which must agree with what its parent
 * hears from wait(), and with the status region: who has read the event finds
 * everything done.
 */
#define EXPECT_DIED(event, reason_, code_) do {					\
	EXPECT_EQ(SHMK_EV_DIED, (event).type);					\
	EXPECT_EQ((reason_), (event).reason);					\
	EXPECT_EQ((code_), (event).code);					\
	EXPECT_LT(0, (event).took_ns);						\
	EXPECT_EQ(SHMK_PEER_NONE, test_peer_state(&self->me, (event).peer));	\
} while (0)

#define EXPECT_NOTHING_HELD(event) do {						\
	EXPECT_EQ(0, (event).blocks);						\
	EXPECT_EQ(0, (event).bytes);						\
	EXPECT_EQ(0, (event).messages);						\
} while (0)

/* Kills victim @c and reads its death. */
#define KILL(c, peer, gen, event) do {						\
	ASSERT_EQ(0, kill((c)->pid, SIGKILL));					\
	ASSERT_EQ(0, test_end_of(self->events, (peer), (gen), (event)));	\
	EXPECT_DIED(*(event), SHMK_REASON_KILLED, SIGKILL);			\
	EXPECT_EQ(SIGKILL, test_child_end(c));					\
} while (0)

#define EXPECT_QUIET(peer) do {							\
	struct shmk_event quiet_;						\
	EXPECT_EQ(-ETIMEDOUT, test_event_within(self->events, &quiet_, QUIET_MS)); \
	EXPECT_EQ(SHMK_PEER_ALIVE, test_peer_state(&self->me, (peer)));		\
} while (0)

#endif
