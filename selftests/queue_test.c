// SPDX-License-Identifier: GPL-2.0-only
/*
 * queue_test.c - sending, receiving, roles, hints, handles.
 *
 * Attachments of one process are as many peers. Where somebody has to have
 * stopped at a certain point of queue.c, the words are written by hand.
 * SHMK_TEST_BACKEND=local|module, SHMK_TEST_LOOPS.
 */
#include <pthread.h>

#include "lib_test.h"
#include "../lib/topic.h"
#include "kselftest_harness.h"

#define POOL	(4 * MIB)

static uint32_t loops(uint32_t most)
{
	const char *s = getenv("SHMK_TEST_LOOPS");

	return s ? (uint32_t)strtoul(s, NULL, 0) : most;
}

static struct shmk *peer(const char *uri)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 32, .nr_queues = 8,
				       .rings_bytes = 6 * MIB };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags, uint32_t capacity)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | flags, .capacity = capacity };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

static int send_no(struct shmk_queue *q, uint32_t no, size_t len, int64_t deadline)
{
	unsigned char buf[2000];

	memset(buf, (int)no, len);
	memcpy(buf, &no, sizeof(no));
	return shmk_send_copy(q, buf, len, deadline);
}

static int64_t recv_no(struct shmk_queue *q, int64_t deadline)
{
	unsigned char buf[2000];
	uint32_t no;
	int64_t ret = shmk_recv_copy(q, buf, sizeof(buf), deadline);

	if (ret < 0)
		return ret;
	memcpy(&no, buf, sizeof(no));
	for (int64_t i = 4; i < ret; i++)
		if (buf[i] != (unsigned char)no)
			return -EBADMSG;
	return no;
}

/* Positions as if @pos messages had passed; all laps are what they then are. */
static void wind(struct shmk_queue *q, uint64_t pos)
{
	uint32_t c = 1U << q->rv.capacity_shift, i;

	for (i = 0; i < c; i++) {
		struct shmk_slot *slot = shmk_slot_at(&q->rv, i);
		uint32_t lap = shmk_lap(&q->rv, pos) + (i < (pos & (c - 1)));

		slot->p = SHMK_P(lap, SHMK_KIND_EMPTY, 0);
		slot->t = SHMK_T(lap - 1, 1);
	}
	q->rv.ring->head = q->rv.ring->tail = pos;
}

#define EXPECT_CLEAN(s) do {						\
	char report_[256] = "";						\
	EXPECT_EQ(0, shmk_pool_check(s, report_, sizeof(report_)))	\
		TH_LOG("%s", report_);					\
} while (0)

FIXTURE(queue) {
	char uri[64];
	struct shmk *s, *o;
	struct shmk_queue *q, *p;	/* one queue, as s and as o have it */
};

FIXTURE_SETUP(queue)
{
	test_uri(self->uri, "queue");
	self->s = peer(self->uri);
	ASSERT_NE(NULL, self->s);
	self->o = peer(self->uri);
	ASSERT_NE(NULL, self->o);
	self->q = queue(self->s, "q", 0, 8);
	ASSERT_NE(NULL, self->q);
	self->p = queue(self->o, "q", 0, 8);
	ASSERT_NE(NULL, self->p);
}

FIXTURE_TEARDOWN(queue)
{
	struct shmk_pool_stat stat;
	struct shmk_msg m;

	EXPECT_CLEAN(self->s);
	while (!shmk_recv(self->q, &m, SHMK_TRY))
		shmk_free(&m);
	shmk_detach(self->o);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_EQ(0, shmk_alloc(self->s, POOL, 0, &m));
	EXPECT_CLEAN(self->s);
	shmk_detach(self->s);
	shmk_pool_destroy(self->uri);
	EXPECT_EQ(0, pool_mappings());
}

/* --------------------------------------------------------------- basics -- */

TEST_F(queue, fifo_at_every_capacity_inline_and_blocks_mixed)
{
	static const uint32_t caps[] = { 1, 2, 4, 64, 65536 };
	static const uint32_t kinds[] = { 0, SHMK_QUEUE_SP, SHMK_QUEUE_SC,
					  SHMK_QUEUE_SP | SHMK_QUEUE_SC };
	uint32_t i, k, n, lap;
	char name[16];

	for (i = 0; i < ARRAY_SIZE(caps); i++)
		for (k = 0; k < 4; k++) {
			uint32_t fill = caps[i] < 2000 ? caps[i] : 2000;
			struct shmk_queue *a, *b;

			if (caps[i] > 64 && k)
				continue;
			sprintf(name, "f%u.%u", caps[i], k);
			a = queue(self->s, name, kinds[k], caps[i]);
			ASSERT_NE(NULL, a);
			b = queue(self->o, name, 0, 0);
			ASSERT_NE(NULL, b);
			for (lap = 0; lap < 3; lap++) {
				for (n = 0; n < fill; n++)
					ASSERT_EQ(0, send_no(a, n, n % 3 ? 20 : 300, SHMK_TRY));
				if (fill == caps[i])
					EXPECT_EQ(-EAGAIN, send_no(a, n, 20, SHMK_TRY));
				for (n = 0; n < fill; n++)
					ASSERT_EQ(n, recv_no(b, SHMK_TRY));
				EXPECT_EQ(-EAGAIN, recv_no(b, SHMK_TRY));
			}
			EXPECT_CLEAN(self->s);
			shmk_queue_close(a);
			shmk_queue_close(b);
			EXPECT_EQ(0, shmk_queue_remove(self->s, name));
		}
}

TEST_F(queue, every_size_arrives_as_it_was)
{
	size_t inl = 64 - offsetof(struct shmk_slot, inl), len;
	static const size_t more[] = { 255, 256, 257, 4096, 65536, 65537, 200000, POOL };
	unsigned char *buf = malloc(POOL), *back = malloc(POOL);
	struct shmk_msg m;
	unsigned int i;

	for (i = 0; i < POOL; i++)
		buf[i] = (unsigned char)(i * 31 + i / 251);
	for (i = 0; i < inl + 10 + ARRAY_SIZE(more); i++) {
		len = i < inl + 10 ? i : more[i - inl - 10];
		ASSERT_EQ(0, shmk_send_copy(self->q, buf, len, SHMK_TRY));
		memset(back, 0xee, len);
		ASSERT_EQ((int64_t)len, shmk_recv_copy(self->p, back, POOL, SHMK_TRY));
		EXPECT_EQ(0, memcmp(buf, back, len));
	}
	EXPECT_EQ(-E2BIG, shmk_send_copy(self->q, buf, POOL + 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(self->s, 100, 0, &m));
	m.len = 0;
	ASSERT_EQ(0, shmk_send(self->q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->p, &m, SHMK_TRY));
	EXPECT_EQ(0, m.len);
	EXPECT_NE(NULL, m.data);
	shmk_free(&m);
	free(buf);
	free(back);
}

TEST_F(queue, forwarding_moves_no_byte)
{
	struct shmk_queue *next = queue(self->o, "next", 0, 4), *last = queue(self->s, "next", 0, 4);
	size_t off, was = 0;
	struct shmk_msg m;
	int i;

	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 64, &m));
	memset(m.data, 0x5a, 1000);
	was = (size_t)((unsigned char *)m.data - self->s->data);
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, shmk_send(self->q, &m, SHMK_TRY));
		EXPECT_EQ(NULL, m.data);
		ASSERT_EQ(0, shmk_recv(self->p, &m, SHMK_TRY));
		off = (size_t)((unsigned char *)m.data - self->o->data);
		EXPECT_EQ(was, off);
		ASSERT_EQ(0, shmk_send(next, &m, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(last, &m, SHMK_TRY));
		EXPECT_EQ(was, (size_t)((unsigned char *)m.data - self->s->data));
		EXPECT_EQ(1000, m.len);
	}
	/* with a pointer alone, of what was received, too */
	ASSERT_EQ(0, shmk_send_ptr(self->q, m.data, 1000, SHMK_TRY));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, m.data, 1000, SHMK_TRY));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, &m, 1, SHMK_TRY));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, NULL, 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 64, &m));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, (char *)m.data + 1, 1, SHMK_TRY));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, (char *)m.data + 256, 1, SHMK_TRY));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, m.data, 1025, SHMK_TRY));
	shmk_free(&m);
	shmk_queue_close(next);
	shmk_queue_close(last);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "next"));
}

TEST_F(queue, what_may_not_be_sent)
{
	struct shmk_attach_opts ro = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_queue *rq;
	struct shmk_msg m, e = { 0 };
	struct shmk *r;
	char uri[64], buf[4];

	EXPECT_EQ(-EINVAL, shmk_send(self->q, &e, SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(self->o, 10, 0, &m));
	EXPECT_EQ(-EINVAL, shmk_send(self->q, &m, SHMK_TRY));	/* of another attachment */
	shmk_free(&m);
	sprintf(uri, "%s:other.%d", on_module() ? "shmk" : "local", getpid());
	r = peer(uri);
	ASSERT_NE(NULL, r);
	ASSERT_EQ(0, shmk_alloc(r, 10, 0, &m));
	EXPECT_EQ(-EINVAL, shmk_send(self->q, &m, SHMK_TRY));	/* of another pool */
	shmk_free(&m);
	shmk_detach(r);
	ASSERT_EQ(0, shmk_alloc(self->s, 10, 0, &m));
	m.len = m.room + 1;
	EXPECT_EQ(-EINVAL, shmk_send(self->q, &m, SHMK_TRY));
	m.len = 10;
	EXPECT_EQ(0, shmk_send(self->q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_attach(self->uri, &ro, &r));
	ASSERT_EQ(0, shmk_queue_open(r, "q", NULL, SHMK_TRY, &rq));
	EXPECT_EQ(-EROFS, shmk_send_copy(rq, "x", 1, SHMK_TRY));
	EXPECT_EQ(-EROFS, shmk_recv(rq, &m, SHMK_TRY));
	EXPECT_EQ(-EROFS, shmk_recv_copy(rq, buf, 4, SHMK_TRY));
	EXPECT_EQ(-EROFS, shmk_recv_batch(rq, &m, 1, SHMK_TRY));
	shmk_detach(r);
	EXPECT_EQ(10, shmk_recv(self->q, &m, SHMK_TRY) ? 0 : (int)m.len);
	shmk_free(&m);
}

TEST_F(queue, too_small_a_buffer_loses_nothing)
{
	unsigned char buf[300];
	uint32_t len;

	for (len = 10; len < 300; len += 140) {
		ASSERT_EQ(0, send_no(self->q, len, len, SHMK_TRY));
		EXPECT_EQ(-EMSGSIZE, shmk_recv_copy(self->p, buf, len - 1, SHMK_TRY));
		EXPECT_EQ(-EMSGSIZE, shmk_recv_copy(self->p, buf, 0, SHMK_TRY));
		EXPECT_EQ(len, recv_no(self->p, SHMK_TRY));
	}
}

TEST_F(queue, full_and_empty_wait_for_the_deadline)
{
	int64_t t = now_ns();
	uint32_t i;

	EXPECT_EQ(-ETIMEDOUT, recv_no(self->p, shmk_deadline_ms(30)));
	EXPECT_GE(now_ns() - t, 30 * 1000000LL);
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, send_no(self->q, i, 10, SHMK_TRY));
	t = now_ns();
	EXPECT_EQ(-ETIMEDOUT, send_no(self->q, i, 10, shmk_deadline_ms(30)));
	EXPECT_GE(now_ns() - t, 30 * 1000000LL);
	EXPECT_EQ(-ETIMEDOUT, send_no(self->q, i, 300, t));	/* in the past */
	shmk_interrupt(self->s);
	EXPECT_EQ(-EINTR, send_no(self->q, i, 10, SHMK_FOREVER));
	shmk_resume(self->s);
}

TEST_F(queue, batches_are_partial_not_lossy)
{
	struct shmk_msg m[12], r[12];
	uint32_t i, n = 0;
	int ret;

	for (i = 0; i < 12; i++) {
		ASSERT_EQ(0, shmk_alloc(self->s, 100, 0, &m[i]));
		*(uint32_t *)m[i].data = i;
	}
	ASSERT_EQ(0, shmk_msg_inline(self->s, "x", 1, &r[0]));
	r[0].len = (size_t)-EINVAL;
	EXPECT_EQ(-EINVAL, shmk_send_batch(self->q, r, 1, SHMK_TRY));
	m[5].len = 1000;	/* more than its room */
	EXPECT_EQ(5, shmk_send_batch(self->q, m, 12, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_send_batch(self->q, m + 5, 7, SHMK_TRY));
	EXPECT_NE(NULL, m[5].data);
	m[5].len = 100;
	EXPECT_EQ(3, shmk_send_batch(self->q, m + 5, 7, shmk_deadline_ms(5)));
	ret = shmk_send_batch(self->q, m + 8, 4, SHMK_TRY);
	EXPECT_EQ(-EAGAIN, ret);
	EXPECT_EQ(0, shmk_send_batch(self->q, m + 8, 0, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_recv_batch(self->p, r, 0, SHMK_TRY));
	EXPECT_EQ(5, shmk_recv_batch(self->p, r, 5, SHMK_TRY));
	EXPECT_EQ(4, shmk_send_batch(self->q, m + 8, 4, SHMK_TRY));
	EXPECT_EQ(7, shmk_recv_batch(self->p, r + 5, 7, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_recv_batch(self->p, m, 12, SHMK_TRY));
	for (i = 0; i < 12; i++) {
		n += *(uint32_t *)r[i].data == i;
		shmk_free(&r[i]);
	}
	EXPECT_EQ(12, n);
}

/* ---------------------------------------------------------------- roles -- */

TEST_F(queue, one_producer_one_receiver_at_a_time)
{
	struct shmk_queue *a = queue(self->s, "r", SHMK_QUEUE_SP | SHMK_QUEUE_SC, 4);
	struct shmk_queue *b = queue(self->o, "r", 0, 0), *a2;

	ASSERT_EQ(0, send_no(a, 1, 10, SHMK_TRY));
	EXPECT_EQ(-EBUSY, send_no(b, 1, 10, SHMK_TRY));
	EXPECT_EQ(-EBUSY, send_no(b, 1, 300, SHMK_FOREVER));
	EXPECT_EQ(1, recv_no(b, SHMK_TRY));
	EXPECT_EQ(-EBUSY, recv_no(a, SHMK_FOREVER));
	/* the same handle again: the role stays until the last close */
	a2 = queue(self->s, "r", 0, 0);
	EXPECT_EQ(a, a2);
	shmk_queue_close(a2);
	EXPECT_EQ(-EBUSY, send_no(b, 1, 10, SHMK_TRY));
	shmk_queue_close(a);
	EXPECT_EQ(0, send_no(b, 2, 10, SHMK_TRY));
	EXPECT_EQ(2, recv_no(b, SHMK_TRY));
	a = queue(self->s, "r", 0, 0);
	EXPECT_EQ(-EBUSY, send_no(a, 1, 10, SHMK_TRY));
	EXPECT_EQ(-EBUSY, shmk_queue_remove(self->s, "r"));
	shmk_queue_close(b);
	shmk_queue_close(a);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "r"));
}

static void role_holder(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg);
	struct shmk_queue *q = s ? queue(s, "r", SHMK_QUEUE_SP | SHMK_QUEUE_SC, 4) : NULL;

	if (!q || send_no(q, 7, 300, SHMK_TRY) || send_no(q, 8, 10, SHMK_TRY) ||
	    recv_no(q, SHMK_TRY) != 7)
		_exit(1);
	tell(end, 1);
	hear(end->from);
}

TEST_F(queue, roles_of_the_dead_are_free)
{
	struct shmk_event event;
	struct shmk_queue *b;
	struct child c;

	child_start(&c, role_holder, self->uri);
	ASSERT_EQ(1, child_hear(&c));
	b = queue(self->o, "r", 0, 0);
	EXPECT_EQ(-EBUSY, send_no(b, 9, 10, SHMK_TRY));
	EXPECT_EQ(-EBUSY, recv_no(b, SHMK_TRY));
	child_kill(&c);
	ASSERT_EQ(0, event_wait_type(self->s, &event, SHMK_EV_DIED));
	EXPECT_EQ(0, send_no(b, 9, 10, SHMK_TRY));
	EXPECT_EQ(8, recv_no(b, SHMK_TRY));
	EXPECT_EQ(9, recv_no(b, SHMK_TRY));
	shmk_queue_close(b);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "r"));
}

/* --------------------------------------------------------- stopped ones -- */

/* Senders that stopped, or died, between the slot and the tail, one after another. */
TEST_F(queue, tail_that_lags_by_laps_hides_no_room)
{
	uint32_t cap, n;

	for (cap = 1; cap <= 4; cap *= 2) {
		struct shmk_queue *a = queue(self->s, "lag", 0, cap);

		for (n = 0; n < 1000; n++) {
			__u64 tail = a->rv.ring->tail;

			ASSERT_EQ(0, send_no(a, n, 10, SHMK_TRY)) TH_LOG("%u of %u", n, cap);
			ASSERT_EQ(n, recv_no(a, SHMK_TRY));
			a->rv.ring->tail = tail;
			ASSERT_TRUE(shmk_ring_ready(&a->rv, SHMK_SIDE_SEND));
			ASSERT_FALSE(shmk_ring_ready(&a->rv, SHMK_SIDE_RECV));
		}
		while (cap-- > 1)
			ASSERT_EQ(0, send_no(a, 1, 10, SHMK_TRY));
		cap = 1U << a->rv.capacity_shift;
		shmk_queue_close(a);
		EXPECT_EQ(0, shmk_queue_remove(self->s, "lag"));
	}
}

/* A receiver that was stopped after it had read the head sees an old one. */
TEST_F(queue, head_that_lags_by_laps_hides_no_message)
{
	uint32_t n;

	for (n = 0; n < 1000; n++) {
		ASSERT_EQ(0, send_no(self->q, n, 10, SHMK_TRY));
		ASSERT_EQ(n, recv_no(self->q, SHMK_TRY));
	}
	self->q->rv.ring->head = 0;
	ASSERT_EQ(0, send_no(self->q, n, 10, SHMK_TRY));
	EXPECT_EQ(n, recv_no(self->q, SHMK_TRY));
	EXPECT_EQ(1001, self->q->rv.ring->head);
}

TEST_F(queue, receivers_pass_a_claimed_slot_and_come_back)
{
	struct shmk_slot *slot = shmk_slot_at(&self->q->rv, 0);
	uint32_t n;

	slot->p = SHMK_P(0, SHMK_KIND_CLAIMED, shmk_self(self->s));
	for (n = 1; n < 8; n++)
		ASSERT_EQ(0, send_no(self->p, n, n % 2 ? 10 : 300, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, send_no(self->p, n, 10, SHMK_TRY));
	for (n = 1; n < 4; n++)
		EXPECT_EQ(n, recv_no(self->p, SHMK_TRY));
	n = 99;
	memcpy(slot->inl, &n, sizeof(n));
	slot->p = SHMK_P(0, SHMK_KIND_INLINE, 4);
	EXPECT_EQ(99, recv_no(self->p, SHMK_TRY));
	for (n = 4; n < 8; n++)
		EXPECT_EQ(n, recv_no(self->p, SHMK_TRY));
	for (n = 0; n < 20; n++) {
		EXPECT_EQ(0, send_no(self->p, n, 10, SHMK_TRY));
		EXPECT_EQ(n, recv_no(self->q, SHMK_TRY));
	}
}

TEST_F(queue, taker_that_is_stopped_delays_nobody_for_a_lap)
{
	struct shmk_slot *slot = shmk_slot_at(&self->q->rv, 0);
	uint32_t n;

	ASSERT_EQ(0, send_no(self->q, 0, 10, SHMK_TRY));
	slot->t = SHMK_T(0, shmk_self(self->o));
	for (n = 1; n < 8; n++) {
		ASSERT_EQ(0, send_no(self->q, n, 10, SHMK_TRY));
		EXPECT_EQ(n, recv_no(self->q, SHMK_TRY));
	}
	EXPECT_EQ(-EAGAIN, send_no(self->q, n, 10, SHMK_TRY));
	slot->p = SHMK_P(1, SHMK_KIND_EMPTY, 0);
	EXPECT_EQ(0, send_no(self->q, n, 10, SHMK_TRY));
	EXPECT_EQ(n, recv_no(self->q, SHMK_TRY));
}

TEST_F(queue, positions_pass_their_wrap)
{
	static const uint32_t caps[] = { 1, 2, 8, 65536 };
	uint32_t i, n;
	char name[16];

	for (i = 0; i < ARRAY_SIZE(caps); i++) {
		struct shmk_queue *a;

		sprintf(name, "w%u", caps[i]);
		a = queue(self->s, name, 0, caps[i]);
		ASSERT_NE(NULL, a);
		wind(a, ((uint64_t)caps[i] << 32) - 5 > 5 ? ((uint64_t)caps[i] << 32) - 5 : 0);
		EXPECT_CLEAN(self->s);
		for (n = 0; n < 40; n++) {
			ASSERT_TRUE(shmk_ring_ready(&a->rv, SHMK_SIDE_SEND));
			ASSERT_FALSE(shmk_ring_ready(&a->rv, SHMK_SIDE_RECV));
			ASSERT_EQ(0, send_no(a, n, n % 2 ? 10 : 300, SHMK_TRY));
			if (caps[i] > 1)
				ASSERT_EQ(0, send_no(a, ~n, 20, SHMK_TRY));
			ASSERT_TRUE(shmk_ring_ready(&a->rv, SHMK_SIDE_RECV));
			EXPECT_CLEAN(self->s);
			ASSERT_EQ(n, recv_no(a, SHMK_TRY));
			if (caps[i] > 1)
				ASSERT_EQ(~n, recv_no(a, SHMK_TRY));
			ASSERT_EQ(-EAGAIN, recv_no(a, SHMK_TRY));
		}
		shmk_queue_close(a);
		EXPECT_EQ(0, shmk_queue_remove(self->s, name));
	}
}

/* -------------------------------------------------------------- handles -- */

static void maker(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg);

	if (!s || hear(end->from) != 1 || !queue(s, "later", 0, 4))
		_exit(1);
	tell(end, 1);
	hear(end->from);
}

TEST_F(queue, open_create_exclusive_and_wait)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_EXCL };
	struct shmk_queue_stats st;
	struct shmk_queue *a = (void *)1, *b;
	struct child c;
	uint32_t gen, id;

	EXPECT_EQ(-ENOENT, shmk_queue_open(self->s, "no", NULL, SHMK_TRY, &a));
	EXPECT_EQ(NULL, a);
	EXPECT_EQ(-ETIMEDOUT, shmk_queue_open(self->s, "no", NULL, shmk_deadline_ms(20), &a));
	EXPECT_EQ(-EEXIST, shmk_queue_open(self->s, "q", &opts, SHMK_TRY, &a));
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "", &opts, SHMK_TRY, &a));
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "a/b", &opts, SHMK_TRY, &a));
	opts.capacity = 3;
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "x", &opts, SHMK_TRY, &a));
	opts.capacity = 131072;
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "x", &opts, SHMK_TRY, &a));
	opts.capacity = 0;
	opts.slot_bytes = 65;
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "x", &opts, SHMK_TRY, &a));
	opts.slot_bytes = 256;
	ASSERT_EQ(0, shmk_queue_open(self->s, "x", &opts, SHMK_TRY, &a));
	ASSERT_EQ(0, shmk_queue_stats(a, &st));
	EXPECT_EQ(64, st.capacity);
	EXPECT_EQ(256, st.slot_bytes);
	EXPECT_EQ(1, st.nr_open);
	id = st.id;
	gen = st.gen;
	EXPECT_EQ(0, send_no(a, 3, 240, SHMK_TRY));
	EXPECT_EQ(0, send_no(a, 4, 241, SHMK_TRY));
	ASSERT_EQ(0, shmk_queue_stats(a, &st));
	EXPECT_EQ(2, st.depth);
	EXPECT_EQ(2, st.my_sent);
	EXPECT_EQ(-EBUSY, shmk_queue_remove(self->o, "x"));
	shmk_queue_close(a);
	EXPECT_EQ(0, shmk_queue_remove(self->o, "x"));	/* with its messages */
	EXPECT_EQ(-ENOENT, shmk_queue_remove(self->o, "x"));
	ASSERT_EQ(0, shmk_queue_open(self->s, "x", &opts, SHMK_TRY, &a));
	ASSERT_EQ(0, shmk_queue_stats(a, &st));
	EXPECT_EQ(id, st.id);
	EXPECT_NE(gen, st.gen);
	EXPECT_EQ(0, st.depth);
	EXPECT_EQ(-EAGAIN, recv_no(a, SHMK_TRY));
	shmk_queue_close(a);
	child_start(&c, maker, self->uri);
	child_tell(&c, 1);
	EXPECT_EQ(0, shmk_queue_open(self->s, "later", NULL, watchdog(), &b));
	shmk_queue_close(b);
	EXPECT_EQ(1, child_hear(&c));
	child_kill(&c);
}

/* ----------------------------------------------------- many to many ------ */

#define MOST 8

struct flow {
	struct shmk		*s;
	struct shmk_queue	*q;
	const char		*uri;
	uint32_t		who, nr, nr_senders;
	bool			inline_only;
	uint32_t		*seen;		/* of all receivers: [sender][nr], shared */
	int			ret;
};

static int flow_send(struct flow *f)
{
	uint32_t i, buf[80] = { 0 };
	int ret;

	for (i = 0; i < f->nr; i++) {
		buf[0] = f->who;
		buf[1] = i;
		ret = shmk_send_copy(f->q, buf, f->inline_only || i % 3 ? 16 : sizeof(buf),
				     watchdog());
		if (ret)
			return ret;
	}
	return 0;
}

static int flow_recv(struct flow *f)
{
	uint32_t next[MOST] = { 0 }, buf[80];

	for (;;) {
		int64_t ret = shmk_recv_copy(f->q, buf, sizeof(buf), watchdog());

		if (ret < 0)
			return (int)ret;
		if (buf[0] == UINT32_MAX)
			return 0;
		if (buf[0] >= f->nr_senders || buf[1] >= f->nr)
			return -EBADMSG;
		if (buf[1] < next[buf[0]])
			return -EILSEQ;		/* not as sent */
		next[buf[0]] = buf[1] + 1;
		if (__atomic_fetch_add(&f->seen[buf[0] * f->nr + buf[1]], 1, __ATOMIC_RELAXED))
			return -EALREADY;	/* twice */
	}
}

static void *sender_thread(void *arg)
{
	((struct flow *)arg)->ret = flow_send(arg);
	return NULL;
}

static void *receiver_thread(void *arg)
{
	((struct flow *)arg)->ret = flow_recv(arg);
	return NULL;
}

static void flow_main(struct child_end *end, void *arg)
{
	struct flow *f = arg;
	bool sender = f->who != UINT32_MAX;

	f->s = peer(f->uri);
	f->q = f->s ? queue(f->s, "flow", 0, 0) : NULL;
	tell(end, f->q ? sender ? flow_send(f) : flow_recv(f) : -EIO);
	shmk_detach(f->s);
}

static const struct { uint32_t np, nc, cap, flags; } shapes[] = {
	{ 1, 1, 1, 0 }, { 1, 1, 2, SHMK_QUEUE_SP | SHMK_QUEUE_SC }, { 2, 1, 1, 0 },
	{ 1, 2, 1, SHMK_QUEUE_SP }, { 4, 1, 2, SHMK_QUEUE_SC }, { 8, 8, 1, 0 }, { 8, 8, 2, 0 },
	{ 3, 5, 4, 0 }, { 8, 8, 64, 0 }, { 8, 1, 64, 0 }, { 1, 8, 8, 0 },
};

#define FLOW(threads) do {								\
	uint32_t nr = loops(4000), i, k, n;						\
	size_t bytes = MOST * nr * sizeof(uint32_t);					\
	uint32_t *seen = mmap(NULL, bytes, PROT_READ | PROT_WRITE,			\
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0), end = UINT32_MAX;	\
	for (k = 0; k < ARRAY_SIZE(shapes); k++) {					\
		uint32_t np = shapes[k].np, nc = shapes[k].nc;				\
		struct flow f[2 * MOST];						\
		struct child c[2 * MOST];						\
		pthread_t t[2 * MOST];							\
		struct shmk_queue *a = queue(self->s, "flow", shapes[k].flags, shapes[k].cap); \
		ASSERT_NE(NULL, a);							\
		memset(seen, 0, bytes);							\
		for (i = 0; i < np + nc; i++) {						\
			f[i] = (struct flow) { .s = self->s, .q = a, .uri = self->uri,	\
				.who = i < np ? i : UINT32_MAX, .nr = nr,		\
				.nr_senders = np, .inline_only = k & 1, .seen = seen };	\
			if (threads)							\
				pthread_create(&t[i], NULL, i < np ? sender_thread :	\
					       receiver_thread, &f[i]);			\
			else								\
				child_start(&c[i], flow_main, &f[i]);			\
		}									\
		for (i = 0; i < np + nc; i++) {						\
			if (threads)							\
				pthread_join(t[i], NULL);				\
			else								\
				f[i].ret = child_hear(&c[i]);				\
			EXPECT_EQ(0, f[i].ret) TH_LOG("shape %u, %u", k, i);		\
			if (!threads)							\
				child_wait(&c[i]);					\
			for (n = 0; i == np - 1 && n < nc; n++)				\
				EXPECT_EQ(0, shmk_send_copy(a, &end, 4, watchdog()));	\
		}									\
		for (i = 0; i < np * nr && seen[i] == 1; i++)				\
			;								\
		EXPECT_EQ(np * nr, i) TH_LOG("shape %u: message %u", k, i);		\
		EXPECT_EQ(-EAGAIN, threads || !(shapes[k].flags & SHMK_QUEUE_SC) ?	\
			  recv_no(a, SHMK_TRY) : -EAGAIN);				\
		EXPECT_CLEAN(self->s);							\
		shmk_queue_close(a);							\
		EXPECT_EQ(0, shmk_queue_remove(self->s, "flow")) TH_LOG("shape %u", k);	\
	}										\
	munmap(seen, bytes);								\
} while (0)

TEST_F_TIMEOUT(queue, processes_keep_each_senders_order, 120)
{
	FLOW(false);
}

static void *until_told(void *arg)
{
	char c;

	return (void *)read(*(int *)arg, &c, 1);
}

static void all_locks(struct shmk *s, struct shmk_queue *q, unsigned int held)
{
	atomic_store(&s->lock.held, held);
	atomic_store(&q->role_lock[0].held, held);
	atomic_store(&q->role_lock[1].held, held);
}

/* As if another thread had all locks. */
static bool goes_on_without_locks(struct shmk *s, uint32_t flags)
{
	struct shmk_queue *q = queue(s, "locks", flags, 4);
	struct shmk_msg m;
	bool ok;

	all_locks(s, q, 1);
	ok = !shmk_send_copy(q, "a", 2, SHMK_TRY) && !shmk_recv(q, &m, SHMK_TRY);
	shmk_free(&m);
	ok &= !shmk_alloc(s, 500, 0, &m) && !shmk_send(q, &m, SHMK_TRY) &&
	      !shmk_recv(q, &m, SHMK_TRY);
	shmk_free(&m);
	all_locks(s, q, 0);
	shmk_queue_close(q);
	shmk_queue_remove(s, "locks");
	return ok;
}

static bool publishes_without_locks(struct shmk *s)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE };
	struct shmk_topic *t;
	bool ok;

	if (shmk_topic_open(s, "locked", &opts, SHMK_TRY, &t))
		return false;
	atomic_store(&t->lock.held, 1);
	ok = !shmk_topic_writer(t, SHMK_TRY) && !shmk_topic_publish_copy(t, "a", 2, SHMK_TRY);
	shmk_topic_close(t);
	shmk_queue_remove(s, "locked");
	return ok;
}

/* With a second thread in the process. */
TEST_F(queue, one_thread_takes_no_locks)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_ONE_THREAD };
	pthread_t thread;
	struct shmk *s;
	int idle[2];

	ASSERT_EQ(0, pipe(idle));
	ASSERT_EQ(0, pthread_create(&thread, NULL, until_told, &idle[0]));
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &s));
	EXPECT_TRUE(goes_on_without_locks(s, 0));
	EXPECT_TRUE(goes_on_without_locks(s, SHMK_QUEUE_SP | SHMK_QUEUE_SC));
	EXPECT_TRUE(goes_on_without_locks(s, SHMK_QUEUE_TAGGED | SHMK_QUEUE_SP | SHMK_QUEUE_SC));
	EXPECT_TRUE(publishes_without_locks(s));
	shmk_detach(s);
	close(idle[1]);
	pthread_join(thread, NULL);
	close(idle[0]);
}

struct hasty {
	struct shmk *s;
	int done;	/* __atomic */
};

static void *alloc_one(void *arg)
{
	struct hasty *h = arg;
	struct shmk_msg m;

	if (!shmk_alloc(h->s, 500, 0, &m))
		shmk_free(&m);
	__atomic_store_n(&h->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* The other way round: who did not say so waits for another thread. */
TEST_F(queue, other_threads_wait_for_a_lock)
{
	struct hasty h = { .s = self->s };
	pthread_t thread;

	atomic_store(&self->s->lock.held, 1);
	ASSERT_EQ(0, pthread_create(&thread, NULL, alloc_one, &h));
	usleep(50000);
	EXPECT_EQ(0, __atomic_load_n(&h.done, __ATOMIC_ACQUIRE));
	atomic_store(&self->s->lock.held, 0);
	pthread_join(thread, NULL);
	EXPECT_EQ(1, h.done);
}

TEST_F_TIMEOUT(queue, threads_keep_each_senders_order, 120)
{
	FLOW(true);
}

/* ------------------------------------------------- the end of a queue -- */

TEST_F(queue, reset_drops_what_is_there_and_counts_it)
{
	struct shmk_queue *a = queue(self->s, "r", 0, 8), *b, *sc;
	struct shmk *other = peer(self->uri);
	struct shmk_msg msg;

	ASSERT_NE(NULL, other);
	b = queue(other, "r", 0, 8);
	EXPECT_EQ(0, shmk_queue_reset(a));
	for (uint32_t i = 0; i < 8; i++)
		ASSERT_EQ(0, send_no(b, i, i % 2 ? 20 : 1000, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(a, &msg, SHMK_TRY));	/* held: not in the queue any more */
	EXPECT_EQ(7, shmk_queue_reset(a));
	EXPECT_EQ(-EAGAIN, recv_no(b, SHMK_TRY));
	EXPECT_EQ(1000, msg.len);
	shmk_free(&msg);
	ASSERT_EQ(0, send_no(b, 9, 20, SHMK_TRY));
	EXPECT_EQ(9, recv_no(a, SHMK_TRY));
	sc = queue(self->s, "sc", SHMK_QUEUE_SC, 8);
	EXPECT_EQ(0, shmk_queue_reset(sc));
	EXPECT_EQ(-EBUSY, shmk_queue_reset(queue(other, "sc", 0, 8)));
	shmk_detach(other);
	EXPECT_CLEAN(self->s);
}

/* Messages outlive those who sent them and all who had the queue open. */
TEST_F(queue, a_queue_and_its_messages_stay_when_nobody_has_it_open)
{
	struct shmk *other = peer(self->uri);
	struct shmk_queue *q = queue(other, "stays", 0, 8);

	ASSERT_EQ(0, send_no(q, 7, 1000, SHMK_TRY));
	shmk_queue_close(q);
	shmk_detach(other);
	ASSERT_EQ(0, shmk_queue_open(self->s, "stays", NULL, SHMK_TRY, &q));
	EXPECT_EQ(7, recv_no(q, SHMK_TRY));
	shmk_queue_close(q);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "stays"));
}

struct leaver {
	const char *uri;
	int how;		/* 0: closes, 1: detaches, 2: is killed */
};

static void leave(struct child_end *end, void *arg)
{
	struct leaver *l = arg;
	struct shmk *s = peer(l->uri);
	struct shmk_queue *q = queue(s, "hup", 0, 4);

	send_no(q, 1, 1000, SHMK_TRY);
	tell(end, 1);
	hear(end->from);
	send_no(q, 2, 20, SHMK_TRY);
	if (l->how == 0)
		shmk_queue_close(q);
	else if (l->how == 1)
		shmk_detach(s);
	else
		raise(SIGKILL);
	if (l->how == 0)
		pause();
}

struct waiter_of_end {
	struct shmk_queue *q;
	atomic_int *got;
	int64_t ret;
};

static void *wait_for_end(void *arg)
{
	struct waiter_of_end *w = arg;

	do {
		w->ret = recv_no(w->q, watchdog());
		atomic_fetch_add(w->got, 1);
	} while (w->ret >= 0);
	return NULL;
}

TEST_F(queue, who_waits_alone_is_told_if_asked_for)
{
	struct shmk_queue *q = queue(self->s, "hup", SHMK_QUEUE_HANGUP, 4);
	struct leaver l = { .uri = self->uri };
	struct shmk_poller *p;
	struct shmk_ready r;
	pthread_t thread;

	EXPECT_EQ(-EPIPE, recv_no(q, SHMK_TRY));
	EXPECT_EQ(-EPIPE, recv_no(q, watchdog()));
	EXPECT_EQ(0, shmk_queue_reset(q));
	ASSERT_EQ(0, shmk_poller_open(self->s, &p));
	for (l.how = 0; l.how < 3; l.how++) {
		atomic_int got = 0;
		struct waiter_of_end w = { .q = q, .got = &got };
		struct child c;

		child_start(&c, leave, &l);
		ASSERT_EQ(1, child_hear(&c));
		ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_end, &w));
		while (atomic_load(&got) < 1)
			sched_yield();
		usleep(l.how * 5000);		/* asleep or not */
		child_tell(&c, 1);
		pthread_join(thread, NULL);
		EXPECT_EQ(-EPIPE, w.ret) TH_LOG("way %d", l.how);
		EXPECT_EQ(3, got) TH_LOG("way %d", l.how);	/* with both messages before */
		child_kill(&c);
		/* A poller tells the end as something that is ready. */
		ASSERT_EQ(0, shmk_poller_add(p, q, SHMK_RECV, NULL));
		EXPECT_EQ(1, shmk_poller_wait(p, &r, 1, watchdog()));
		EXPECT_EQ(0, shmk_poller_remove(p, q, SHMK_RECV));
	}
	for (uint32_t i = 0; i < 4; i++)
		ASSERT_EQ(0, send_no(q, i, 20, SHMK_TRY));
	EXPECT_EQ(-EPIPE, send_no(q, 4, 20, watchdog()));
	EXPECT_EQ(0, recv_no(q, SHMK_TRY));
}

static void *poll_for_end(void *arg)
{
	struct waiter_of_end *w = arg;
	struct shmk_poller *p;
	struct shmk_ready r;

	w->ret = shmk_poller_open(w->q->shmk, &p);
	if (!w->ret)
		w->ret = shmk_poller_add(p, w->q, SHMK_RECV, NULL);
	while (!w->ret || w->ret == -EAGAIN) {
		atomic_fetch_add(w->got, 1);
		w->ret = shmk_poller_wait(p, &r, 1, watchdog());
		if (w->ret == 1)
			w->ret = recv_no(w->q, SHMK_TRY) >= 0 ? 0 : recv_no(w->q, SHMK_TRY);
	}
	shmk_poller_close(p);
	return NULL;
}

TEST_F(queue, a_poller_asleep_is_told_that_it_is_alone)
{
	struct shmk_queue *q = queue(self->s, "hup", SHMK_QUEUE_HANGUP, 4);
	struct leaver l = { .uri = self->uri };
	pthread_t thread;

	for (l.how = 0; l.how < 3; l.how++) {
		atomic_int got = 0;
		struct waiter_of_end w = { .q = q, .got = &got };
		struct child c;

		child_start(&c, leave, &l);
		ASSERT_EQ(1, child_hear(&c));
		ASSERT_EQ(0, pthread_create(&thread, NULL, poll_for_end, &w));
		while (atomic_load(&got) < 2)
			sched_yield();
		usleep(10000);
		child_tell(&c, 1);
		pthread_join(thread, NULL);
		EXPECT_EQ(-EPIPE, w.ret) TH_LOG("way %d", l.how);
		EXPECT_EQ(3, got);
		child_kill(&c);
	}
}

TEST_HARNESS_MAIN
