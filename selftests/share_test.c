// SPDX-License-Identifier: GPL-2.0-only
/*
 * share_test.c - one payload in several hands and queues.
 *
 * Attachments of one process are as many peers. SHMK_TEST_BACKEND=local|module,
 * SHMK_TEST_LOOPS: of the storms.
 */
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define POOL	(4 * MIB)

static struct shmk *peer(const char *uri, uint32_t nr_entries)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 32, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .nr_entries = nr_entries };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t capacity)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = capacity };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

static uint64_t used(struct shmk *s)
{
	struct shmk_pool_stat st = { 0 };

	return shmk_pool_stat(s, &st) ? UINT64_MAX : st.blocks_used;
}

static uint64_t lost(struct shmk *s)
{
	struct shmk_pool_stat st = { 0 };

	return shmk_pool_stat(s, &st) ? UINT64_MAX : st.lost_messages;
}

FIXTURE(share)
{
	char		uri[64];
	struct shmk	*a, *b;
	struct shmk_queue *qa, *qb;	/* one queue, two ends */
	struct shmk_msg	m[80];
};

FIXTURE_SETUP(share)
{
	test_uri(self->uri, "share");
	self->a = peer(self->uri, 0);
	self->b = peer(self->uri, 0);
	ASSERT_NE(self->a, NULL);
	ASSERT_NE(self->b, NULL);
	self->qa = queue(self->a, "q", 128);
	self->qb = queue(self->b, "q", 128);
	ASSERT_NE(self->qa, NULL);
	ASSERT_NE(self->qb, NULL);
}

/* What a test leaves is a leak, or its own mistake. */
FIXTURE_TEARDOWN(share)
{
	char report[256] = "";

	EXPECT_EQ(shmk_pool_check(self->a, report, sizeof(report)), 0) TH_LOG("%s", report);
	EXPECT_EQ(used(self->a), 0);
	shmk_detach(self->a);
	shmk_detach(self->b);
}

#define CHECK() do {							\
	char report_[256] = "";						\
	ASSERT_EQ(shmk_pool_check(self->a, report_, sizeof(report_)), 0)	\
		TH_LOG("%s", report_);					\
} while (0)

static int make(struct shmk *s, struct shmk_msg *msg, size_t len)
{
	int ret = shmk_alloc(s, len, 0, msg);

	if (!ret)
		memset(msg->data, 0x5a, len);
	return ret;
}

TEST_F(share, both_show_the_same_bytes_and_either_goes_first)
{
	struct shmk_msg *m = self->m;
	unsigned int first;

	for (first = 0; first < 2; first++) {
		ASSERT_EQ(make(self->a, &m[0], 1000), 0);
		EXPECT_FALSE(shmk_msg_shared(&m[0]));
		EXPECT_EQ(shmk_msg_refs(&m[0]), 1);
		void *data = m[0].data;

		ASSERT_EQ(shmk_msg_share(&m[0], &m[1]), 0);
		EXPECT_EQ(m[0].data, data);
		EXPECT_EQ(m[1].data, data);
		EXPECT_EQ(m[0].len, 1000);
		EXPECT_EQ(m[1].len, 1000);
		EXPECT_EQ(m[1].room, 1000);
		EXPECT_TRUE(shmk_msg_shared(&m[0]));
		EXPECT_TRUE(shmk_msg_shared(&m[1]));
		EXPECT_EQ(shmk_msg_refs(&m[0]), 2);
		CHECK();
		EXPECT_EQ(used(self->a), 3);
		shmk_free(&m[first]);
		EXPECT_EQ(m[first].data, NULL);
		EXPECT_FALSE(shmk_msg_shared(&m[!first]));
		EXPECT_EQ(shmk_msg_refs(&m[!first]), 1);
		EXPECT_EQ(*(unsigned char *)m[!first].data, 0x5a);
		CHECK();
		shmk_free(&m[!first]);
		EXPECT_EQ(used(self->a), 0);
	}
}

TEST_F(share, one_goes_through_a_queue_while_the_other_is_held)
{
	struct shmk_msg *m = self->m;

	ASSERT_EQ(make(self->a, &m[0], 1000), 0);
	ASSERT_EQ(shmk_msg_share(&m[0], &m[1]), 0);
	ASSERT_EQ(shmk_send(self->qa, &m[1], SHMK_TRY), 0);
	CHECK();
	EXPECT_EQ(shmk_msg_refs(&m[0]), 2);
	ASSERT_EQ(shmk_recv(self->qb, &m[2], SHMK_TRY), 0);
	EXPECT_EQ(m[2].len, 1000);
	EXPECT_EQ(m[2].room, 1000);
	EXPECT_EQ(((unsigned char *)m[2].data)[999], 0x5a);
	EXPECT_EQ((unsigned char *)m[2].data - self->b->data, (unsigned char *)m[0].data - self->a->data);
	EXPECT_TRUE(shmk_msg_shared(&m[2]));
	shmk_free(&m[0]);
	EXPECT_FALSE(shmk_msg_shared(&m[2]));
	/* shared by the receiver, and back */
	ASSERT_EQ(shmk_msg_share(&m[2], &m[3]), 0);
	ASSERT_EQ(shmk_send(self->qb, &m[3], SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv(self->qa, &m[4], SHMK_TRY), 0);
	EXPECT_EQ(((unsigned char *)m[4].data)[999], 0x5a);
	shmk_free(&m[2]);
	shmk_free(&m[4]);
}

TEST_F(share, all_forms_of_sending_and_receiving_take_references)
{
	struct shmk_msg *m = self->m;
	unsigned char buf[600];
	void *data;
	int i;

	ASSERT_EQ(make(self->a, &m[0], 600), 0);
	ASSERT_EQ(shmk_msg_share_many(&m[0], &m[1], 5), 0);
	EXPECT_EQ(shmk_msg_refs(&m[3]), 6);
	ASSERT_EQ(shmk_send_batch(self->qa, &m[1], 3, SHMK_TRY), 3);
	EXPECT_EQ(shmk_recv_copy(self->qb, buf, 599, SHMK_TRY), -EMSGSIZE);
	EXPECT_EQ(shmk_recv_copy(self->qb, buf, 600, SHMK_TRY), 600);
	EXPECT_EQ(buf[599], 0x5a);
	ASSERT_EQ(shmk_recv_batch(self->qb, &m[10], 8, SHMK_TRY), 2);
	EXPECT_EQ(m[11].len, 600);
	/* by address: any of the three that are held here will do */
	data = m[0].data;
	ASSERT_EQ(shmk_send_ptr(self->qa, data, 600, SHMK_TRY), 0);
	ASSERT_EQ(shmk_send_ptr(self->qa, data, 600, SHMK_TRY), 0);
	ASSERT_EQ(shmk_send_ptr(self->qa, data, 600, SHMK_TRY), 0);
	EXPECT_EQ(shmk_send_ptr(self->qa, data, 600, SHMK_TRY), -EFAULT);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(shmk_recv(self->qb, &m[20], SHMK_TRY), 0);
		EXPECT_EQ(m[20].len, 600);
		shmk_free(&m[20]);
	}
	EXPECT_EQ(shmk_msg_refs(&m[10]), 2);
	shmk_free(&m[10]);
	shmk_free(&m[11]);
}

TEST_F(share, length_is_fixed_until_the_others_are_gone)
{
	struct shmk_msg *m = self->m;

	ASSERT_EQ(make(self->a, &m[0], 300), 0);
	ASSERT_EQ(shmk_msg_share_many(&m[0], &m[1], 2), 0);
	EXPECT_EQ(shmk_resize(&m[0], 200), -EBUSY);
	EXPECT_EQ(m[0].len, 300);
	shmk_free(&m[1]);
	EXPECT_EQ(shmk_resize(&m[0], 200), -EBUSY);
	shmk_free(&m[0]);
	EXPECT_EQ(shmk_resize(&m[2], 512), 0);
	EXPECT_EQ(m[2].len, 512);
	EXPECT_EQ(used(self->a), 1);	/* a plain block again */
	CHECK();
	memset(m[2].data, 1, 512);
	ASSERT_EQ(shmk_send(self->qa, &m[2], SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv(self->qb, &m[3], SHMK_TRY), 0);
	EXPECT_EQ(m[3].len, 512);
	shmk_free(&m[3]);
}

TEST_F(share, sharing_and_dropping_for_ever_grows_nothing)
{
	struct shmk_msg *m = self->m;
	unsigned int i;

	ASSERT_EQ(make(self->a, &m[0], 300), 0);
	for (i = 0; i < 500; i++) {
		ASSERT_EQ(shmk_msg_share(&m[0], &m[1]), 0);
		if (i & 1)
			shmk_msg_move(&m[2], &m[0]);
		else
			shmk_msg_move(&m[2], &m[1]);
		shmk_free(&m[2]);
		if (i & 1)
			shmk_msg_move(&m[0], &m[1]);
		ASSERT_LE(used(self->a), 2);
	}
	shmk_free(&m[0]);
}

TEST_F(share, depth_is_bounded_and_a_flat_tree_is_not_deep)
{
	struct shmk_msg *m = self->m;
	unsigned int i, n;

	ASSERT_EQ(make(self->a, &m[0], 300), 0);
	for (n = 1; n <= SHMK_SHARE_DEPTH; n++)
		ASSERT_EQ(shmk_msg_share(&m[0], &m[n]), 0);
	EXPECT_EQ(shmk_msg_share(&m[0], &m[n]), -EMLINK);
	EXPECT_EQ(m[n].data, NULL);
	EXPECT_EQ(shmk_msg_refs(&m[0]), SHMK_SHARE_DEPTH + 1);
	CHECK();
	/* the deepest one goes through a queue and is the last */
	ASSERT_EQ(shmk_send(self->qa, &m[0], SHMK_TRY), 0);
	for (i = 1; i < n; i++)
		shmk_free(&m[i]);
	ASSERT_EQ(shmk_recv(self->qb, &m[0], SHMK_TRY), 0);
	EXPECT_FALSE(shmk_msg_shared(&m[0]));
	/* not deep any more: all its parents have only this one */
	ASSERT_EQ(shmk_msg_share_many(&m[0], &m[1], 78), 0);
	CHECK();
	for (i = 0; i < 79; i++)
		shmk_free(&m[i]);
}

TEST_F(share, what_cannot_be_shared_is_refused_and_changes_nothing)
{
	struct shmk_msg *m = self->m, *hold = calloc(600, sizeof(*hold));
	struct shmk *c = peer(self->uri, 8);
	unsigned int i, n;

	ASSERT_NE(c, NULL);
	ASSERT_NE(hold, NULL);
	m[1].data = self;
	EXPECT_EQ(shmk_msg_share(&m[0], &m[1]), -EINVAL);
	ASSERT_EQ(make(c, &m[0], 300), 0);
	EXPECT_EQ(shmk_msg_share(&m[0], &m[0]), -EINVAL);
	m[0].len = 10000;
	EXPECT_EQ(shmk_msg_share(&m[0], &m[1]), -EINVAL);
	m[0].len = 300;
	/* no entries */
	for (n = 0; !make(c, &hold[n], 300); n++)
		;
	EXPECT_EQ(shmk_msg_share(&m[0], &m[1]), -ENOBUFS);
	EXPECT_EQ(m[1].data, NULL);
	EXPECT_EQ(shmk_msg_share_many(&m[0], &m[1], 3), -ENOBUFS);
	EXPECT_FALSE(shmk_msg_shared(&m[0]));
	for (i = 0; i < n; i++)
		shmk_free(&hold[i]);
	EXPECT_EQ(shmk_msg_share_many(&m[0], &m[1], 60), -ENOBUFS);
	EXPECT_EQ(shmk_msg_refs(&m[0]), 1);
	for (i = 1; i <= 60; i++)
		ASSERT_EQ(m[i].data, NULL);
	EXPECT_EQ(shmk_resize(&m[0], 400), 0);
	shmk_free(&m[0]);
	/* no memory */
	ASSERT_EQ(make(self->a, &m[0], 32 << 10), 0);
	for (n = 0; n < 600 && !shmk_alloc(self->a, 32 << 10, 0, &hold[n]); n++)
		;
	EXPECT_EQ(shmk_msg_share(&m[0], &m[1]), -ENOMEM);
	EXPECT_FALSE(shmk_msg_shared(&m[0]));
	for (i = 0; i < n; i++)
		shmk_free(&hold[i]);
	shmk_free(&m[0]);
	free(hold);
	shmk_detach(c);
}

TEST_F(share, short_text_is_copied)
{
	struct shmk_msg *m = self->m;

	ASSERT_EQ(shmk_send_copy(self->qa, "text", 5, SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv(self->qb, &m[0], SHMK_TRY), 0);
	ASSERT_EQ(shmk_msg_share(&m[0], &m[1]), 0);
	EXPECT_FALSE(shmk_msg_shared(&m[0]));
	EXPECT_EQ(shmk_msg_refs(&m[1]), 1);
	EXPECT_NE(m[0].data, m[1].data);
	EXPECT_STREQ(m[1].data, "text");
	ASSERT_EQ(shmk_send(self->qb, &m[1], SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv(self->qa, &m[2], SHMK_TRY), 0);
	EXPECT_STREQ(m[2].data, "text");
}

TEST_F(share, runs_are_shared_too)
{
	struct shmk_msg *m = self->m;

	ASSERT_EQ(make(self->a, &m[0], 300000), 0);
	ASSERT_EQ(shmk_msg_share(&m[0], &m[1]), 0);
	ASSERT_EQ(shmk_send(self->qa, &m[1], SHMK_TRY), 0);
	shmk_free(&m[0]);
	ASSERT_EQ(shmk_recv(self->qb, &m[2], SHMK_TRY), 0);
	EXPECT_EQ(m[2].len, 300000);
	EXPECT_EQ(((unsigned char *)m[2].data)[299999], 0x5a);
	CHECK();
	shmk_free(&m[2]);
}

TEST_F(share, references_in_a_removed_queue_are_dropped)
{
	struct shmk_queue *q = queue(self->a, "gone", 8);
	struct shmk_msg *m = self->m;

	ASSERT_NE(q, NULL);
	ASSERT_EQ(make(self->a, &m[0], 1000), 0);
	ASSERT_EQ(shmk_msg_share_many(&m[0], &m[1], 3), 0);
	ASSERT_EQ(shmk_send_batch(q, &m[1], 3, SHMK_TRY), 3);
	EXPECT_EQ(shmk_msg_refs(&m[0]), 4);
	shmk_queue_close(q);
	ASSERT_EQ(shmk_queue_remove(self->a, "gone"), 0);
	EXPECT_FALSE(shmk_msg_shared(&m[0]));
	CHECK();
	shmk_free(&m[0]);
}

TEST_F(share, references_of_a_detached_peer_are_dropped)
{
	struct shmk_msg *m = self->m, held;
	struct shmk *c = peer(self->uri, 0);
	struct shmk_queue *qc = queue(c, "q", 0);

	ASSERT_EQ(make(c, &m[0], 1000), 0);
	ASSERT_EQ(shmk_msg_share_many(&m[0], &m[1], 3), 0);
	ASSERT_EQ(shmk_send(qc, &m[2], SHMK_TRY), 0);
	shmk_detach(c);		/* with three of them, and the span of the payload */
	ASSERT_EQ(shmk_recv(self->qb, &held, SHMK_TRY), 0);
	EXPECT_FALSE(shmk_msg_shared(&held));
	EXPECT_EQ(((unsigned char *)held.data)[999], 0x5a);
	CHECK();
	EXPECT_EQ(shmk_resize(&held, 1000), 0);
	shmk_free(&held);
	EXPECT_EQ(lost(self->a), 0);
}

/* ------------------------------------------------------------- deaths -- */

/* Receives one, makes three of it, sends one on, and says so. */
static void holder(struct child_end *end, void *arg)
{
	static struct shmk_msg m[4];
	struct shmk *s = peer(arg, 0);
	struct shmk_queue *q = queue(s, "q", 0), *back = queue(s, "back", 8);

	if (shmk_recv(q, &m[0], watchdog()) || shmk_msg_share_many(&m[0], &m[1], 3) ||
	    shmk_send(back, &m[3], SHMK_TRY))
		_exit(91);
	tell(end, (int)shmk_self(s));
	pause();
}

TEST_F(share, killed_holder_takes_its_references_and_no_other)
{
	struct shmk_queue *back = queue(self->a, "back", 8);
	struct shmk_msg *m = self->m;
	struct child c[2];
	unsigned int i;

	ASSERT_EQ(make(self->a, &m[0], 1000), 0);
	ASSERT_EQ(shmk_msg_share_many(&m[0], &m[1], 2), 0);
	for (i = 0; i < 2; i++)
		child_start(&c[i], holder, self->uri);
	ASSERT_EQ(shmk_send_batch(self->qa, &m[1], 2, SHMK_TRY), 2);
	for (i = 0; i < 2; i++)
		ASSERT_GT(child_hear(&c[i]), 0);
	EXPECT_EQ(shmk_msg_refs(&m[0]), 9);
	CHECK();
	for (i = 0; i < 2; i++)
		child_kill(&c[i]);
	for (i = 0; i < 2000 && lost(self->a) < 2; i++) {
		self->a->backend->reap(self->a);
		usleep(1000);
	}
	/* each had received one; it counts once, whatever was made of it */
	EXPECT_EQ(lost(self->a), 2);
	EXPECT_EQ(shmk_msg_refs(&m[0]), 3);
	CHECK();
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(shmk_recv(back, &m[3], SHMK_TRY), 0);
		EXPECT_EQ(((unsigned char *)m[3].data)[999], 0x5a);
		shmk_free(&m[3]);
	}
	EXPECT_FALSE(shmk_msg_shared(&m[0]));
	shmk_free(&m[0]);
}

/* ------------------------------------------------------------- storms -- */

#define THREADS	4
#define LANES	4

static uint32_t loops(uint32_t most)
{
	const char *s = getenv("SHMK_TEST_LOOPS");

	return s ? (uint32_t)strtoul(s, NULL, 0) : most;
}

struct lane {
	struct shmk	*s;
	struct shmk_queue *q;
	unsigned int	seed;
	uint32_t	loops;
	int		bad;
};

/* A payload is one byte over and over, its length tells which. */
static bool sound(const struct shmk_msg *msg)
{
	const unsigned char *p = msg->data;

	return msg->len >= 300 && p[0] == (unsigned char)msg->len &&
	       p[msg->len - 1] == (unsigned char)msg->len;
}

/* Makes, shares, sends, receives and drops at random; holds up to LANES at a time. */
static void *work(void *arg)
{
	static __thread struct shmk_msg hold[LANES];
	struct lane *l = arg;
	uint32_t i, at, to;

	memset(hold, 0, sizeof(hold));
	for (i = 0; i < l->loops && !l->bad; i++) {
		at = (uint32_t)rand_r(&l->seed) % LANES;
		to = (uint32_t)rand_r(&l->seed) % LANES;
		if (!hold[at].data) {
			if (shmk_recv(l->q, &hold[at], SHMK_TRY) &&
			    !shmk_alloc(l->s, 300 + (size_t)rand_r(&l->seed) % 300, 0, &hold[at]))
				memset(hold[at].data, (int)(hold[at].len & 0xff), hold[at].len);
			if (hold[at].data && !sound(&hold[at]))
				l->bad = 1;
			continue;
		}
		if (!sound(&hold[at]))
			l->bad = 2;
		switch (rand_r(&l->seed) % 4) {
		case 0:
			shmk_free(&hold[at]);
			break;
		case 1:
			if (shmk_send(l->q, &hold[at], SHMK_TRY) == -EAGAIN)
				shmk_free(&hold[at]);
			break;
		case 2:
			if (!hold[to].data)
				shmk_msg_share(&hold[at], &hold[to]);
			break;
		default:
			/* alone, it may be written */
			if (!shmk_msg_shared(&hold[at]) && hold[at].kind == SHMK_KIND_BLOCK &&
			    !shmk_resize(&hold[at], 300 + (size_t)rand_r(&l->seed) % 200))
				memset(hold[at].data, (int)(hold[at].len & 0xff), hold[at].len);
		}
	}
	for (at = 0; at < LANES; at++)
		shmk_free(&hold[at]);
	return NULL;
}

static void empty(struct shmk_queue *q)
{
	struct shmk_msg msg;

	while (!shmk_recv(q, &msg, SHMK_TRY))
		shmk_free(&msg);
}

TEST_F(share, threads_share_and_drop_at_random)
{
	struct lane lanes[THREADS];
	pthread_t threads[THREADS];
	int i;

	for (i = 0; i < THREADS; i++) {
		lanes[i] = (struct lane){ i & 1 ? self->a : self->b, i & 1 ? self->qa : self->qb,
					  (unsigned int)i + 1, loops(60000), 0 };
		ASSERT_EQ(pthread_create(&threads[i], NULL, work, &lanes[i]), 0);
	}
	for (i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		EXPECT_EQ(lanes[i].bad, 0);
	}
	CHECK();
	empty(self->qa);
}

static void worker(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg, 0);
	struct lane lane = { s, queue(s, "q", 0), (unsigned int)getpid(), UINT32_MAX, 0 };

	tell(end, 1);
	work(&lane);
	_exit(92);
}

TEST_F(share, processes_that_share_are_killed_at_random)
{
	/* 92: it found a payload that was not what it should be */
	ASSERT_TRUE(children_killed(self->a, worker, self->uri, loops(60000) / 1000, 3, 2));
	CHECK();
	empty(self->qa);
}

TEST_HARNESS_MAIN
