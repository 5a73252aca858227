// SPDX-License-Identifier: GPL-2.0-only
/*
 * redeliver_test.c - queues whose messages stay until they are acknowledged.
 *
 * Attachments of one process are as many peers: one that "dies" here detaches
 * without having acknowledged, which settles it in the same way; real kills are in
 * redeliver_sweep.c, and in one test here. SHMK_TEST_BACKEND=local|module.
 */
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define POOL	(4 * MIB)

static struct shmk *peer(const char *uri)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 32, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags,
				uint32_t max_tries)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | flags, .capacity = 8, .max_tries = max_tries,
	};
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

/* Odd numbers go inline, even ones in a block. */
static int send_no(struct shmk_queue *q, uint32_t no)
{
	unsigned char buf[600];
	size_t len = no & 1 ? 16 : sizeof(buf);

	memset(buf, (int)no, len);
	memcpy(buf, &no, sizeof(no));
	return shmk_send_copy(q, buf, len, SHMK_TRY);
}

static int64_t number(const struct shmk_msg *msg)
{
	const unsigned char *byte = msg->data;
	uint32_t no;

	memcpy(&no, msg->data, sizeof(no));
	for (size_t i = sizeof(no); i < msg->len; i++)
		if (byte[i] != (unsigned char)no)
			return -EBADMSG;
	return msg->len == (no & 1 ? 16 : 600) ? (int64_t)no : -EMSGSIZE;
}

/* The next message; @tries is how often it was given back. */
#define EXPECT_NEXT(q, msg, no, tries) do {				\
	ASSERT_EQ(0, shmk_recv(q, msg, SHMK_TRY));			\
	EXPECT_EQ((int64_t)(no), number(msg));				\
	EXPECT_EQ((uint32_t)(tries), (msg)->redelivered);		\
} while (0)

#define EXPECT_CLEAN(s) do {						\
	char report_[256] = "";						\
	EXPECT_EQ(0, shmk_pool_check(s, report_, sizeof(report_)))	\
		TH_LOG("%s", report_);					\
} while (0)

FIXTURE(redeliver) {
	char uri[64];
	struct shmk *s, *o;		/* survivor; the other one, which may go */
	struct shmk_queue *q, *p;	/* the same queue */
};

FIXTURE_SETUP(redeliver)
{
	test_uri(self->uri, "redeliver");
	self->s = peer(self->uri);
	ASSERT_NE(NULL, self->s);
	self->o = peer(self->uri);
	ASSERT_NE(NULL, self->o);
	self->q = queue(self->s, "q", SHMK_QUEUE_REDELIVER, 0);
	ASSERT_NE(NULL, self->q);
	self->p = queue(self->o, "q", 0, 0);
	ASSERT_NE(NULL, self->p);
}

FIXTURE_TEARDOWN(redeliver)
{
	struct shmk_pool_stat stat;
	struct shmk_msg m;

	EXPECT_CLEAN(self->s);
	shmk_detach(self->o);
	while (!shmk_recv(self->q, &m, SHMK_TRY))
		shmk_free(&m);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_CLEAN(self->s);
	for (uint32_t no = 0; no < 8; no++)	/* all of the capacity is there again */
		EXPECT_EQ(0, send_no(self->q, no));
	EXPECT_EQ(-EAGAIN, send_no(self->q, 8));
	shmk_queue_close(self->q);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "q"));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.blocks_used);
	shmk_detach(self->s);
	shmk_pool_destroy(self->uri);
	EXPECT_EQ(0, pool_mappings());
}

#define other_dies(self) do {						\
	shmk_detach((self)->o);						\
	(self)->o = NULL;						\
} while (0)

/*
 * The head is moved by who looks for the next message, not by who acknowledges: so it stands
 * behind more than a ring has, which is neither a violation nor an empty queue.
 */
TEST_F(redeliver, the_head_may_stand_behind_what_is_acknowledged)
{
	struct shmk_msg had[8];
	struct shmk_queue_stats st;
	uint32_t no, i;

	for (no = 0; no < 8; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	for (i = 0; i < 8; i++) {
		EXPECT_NEXT(self->p, &had[i], i, 0);
		ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
		EXPECT_EQ(8, st.depth);
	}
	for (i = 0; i < 8; i++) {
		shmk_free(&had[i]);
		EXPECT_CLEAN(self->s);
		ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
		EXPECT_EQ(7, st.depth) TH_LOG("%u acknowledged", i + 1);
		ASSERT_EQ(0, send_no(self->q, no++));
		EXPECT_CLEAN(self->s);
		ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
		EXPECT_EQ(8, st.depth) TH_LOG("%u acknowledged", i + 1);
	}
	for (i = 8; i < 16; i++) {
		EXPECT_NEXT(self->p, &had[0], i, 0);
		shmk_free(&had[0]);
	}
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(0, st.depth);
	EXPECT_CLEAN(self->s);
}

TEST_F(redeliver, acknowledged_is_gone)
{
	struct shmk_queue_stats st;
	struct shmk_msg m;

	for (uint32_t no = 0; no < 40; no++) {
		ASSERT_EQ(0, send_no(self->q, no));
		EXPECT_NEXT(self->p, &m, no, 0);
		shmk_free(&m);
		EXPECT_EQ(-EAGAIN, shmk_recv(self->q, &m, SHMK_TRY));
	}
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(SHMK_QUEUE_REDELIVER, st.flags);
	EXPECT_EQ(0, st.redelivered);
}

TEST_F(redeliver, what_the_dead_had_comes_again_in_its_old_place)
{
	struct shmk_msg had[3], m;
	struct shmk_pool_stat stat;
	struct shmk_queue_stats st;

	for (uint32_t no = 0; no < 6; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	for (int i = 0; i < 3; i++)
		EXPECT_NEXT(self->p, &had[i], i, 0);
	shmk_free(&had[1]);
	EXPECT_NEXT(self->q, &m, 3, 0);
	shmk_free(&m);
	other_dies(self);
	EXPECT_NEXT(self->q, &m, 0, 1);
	shmk_free(&m);
	EXPECT_NEXT(self->q, &m, 2, 1);
	shmk_free(&m);
	EXPECT_NEXT(self->q, &m, 4, 0);
	shmk_free(&m);
	EXPECT_NEXT(self->q, &m, 5, 0);
	shmk_free(&m);
	EXPECT_EQ(-EAGAIN, shmk_recv(self->q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.lost_messages);
	EXPECT_EQ(2, stat.redelivered);
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(2, st.redelivered);
}

TEST_F(redeliver, the_capacity_bounds_what_is_not_acknowledged)
{
	struct shmk_msg had[8], m;

	for (uint32_t no = 0; no < 8; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	for (int i = 0; i < 8; i++)
		EXPECT_NEXT(self->p, &had[i], i, 0);
	EXPECT_EQ(-EAGAIN, send_no(self->q, 8));
	EXPECT_EQ(-EAGAIN, shmk_recv(self->q, &m, SHMK_TRY));
	shmk_free(&had[1]);			/* not the oldest: its slot is behind that one's */
	EXPECT_EQ(-EAGAIN, send_no(self->q, 8));
	shmk_free(&had[0]);
	EXPECT_EQ(0, send_no(self->q, 8));
	EXPECT_EQ(0, send_no(self->q, 9));
	EXPECT_EQ(-EAGAIN, send_no(self->q, 10));
	EXPECT_NEXT(self->q, &m, 8, 0);
	shmk_free(&m);
	EXPECT_NEXT(self->q, &m, 9, 0);
	shmk_free(&m);
	for (int i = 2; i < 8; i++)
		shmk_free(&had[i]);
}

TEST_F(redeliver, a_sender_sleeps_until_a_message_is_acknowledged)
{
	struct shmk_msg had[8], m;

	for (uint32_t no = 0; no < 8; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	for (int i = 0; i < 8; i++)
		EXPECT_NEXT(self->p, &had[i], i, 0);
	ASSERT_EQ(0, shmk_alloc(self->s, 600, 0, &m));
	EXPECT_EQ(-ETIMEDOUT, shmk_send(self->q, &m, shmk_deadline_ms(20)));
	shmk_free(&m);
	for (int i = 0; i < 8; i++)
		shmk_free(&had[i]);
}

TEST_F(redeliver, recv_copy_acknowledges)
{
	char buf[600];

	for (uint32_t no = 0; no < 2; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	EXPECT_EQ(-EMSGSIZE, shmk_recv_copy(self->p, buf, 100, SHMK_TRY));
	EXPECT_EQ(600, shmk_recv_copy(self->p, buf, sizeof(buf), SHMK_TRY));
	EXPECT_EQ(16, shmk_recv_copy(self->p, buf, sizeof(buf), SHMK_TRY));
	other_dies(self);
	EXPECT_EQ(-EAGAIN, shmk_recv_copy(self->q, buf, sizeof(buf), SHMK_TRY));
}

TEST_F(redeliver, batches_stay_too)
{
	struct shmk_msg m[8];

	for (uint32_t no = 0; no < 6; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	ASSERT_EQ(4, shmk_recv_batch(self->p, m, 4, SHMK_TRY));
	shmk_free(&m[2]);
	other_dies(self);
	ASSERT_EQ(5, shmk_recv_batch(self->q, m, 8, SHMK_TRY));
	for (int i = 0; i < 5; i++) {
		static const int no[] = { 0, 1, 3, 4, 5 };

		EXPECT_EQ(no[i], number(&m[i]));
		EXPECT_EQ(no[i] < 4, m[i].redelivered);
		shmk_free(&m[i]);
	}
}

TEST_F(redeliver, tries_are_counted_and_bounded)
{
	struct shmk_queue *q = queue(self->s, "few", SHMK_QUEUE_REDELIVER, 3);
	struct shmk_pool_stat stat;
	struct shmk_msg m;

	ASSERT_NE(NULL, q);
	ASSERT_EQ(0, send_no(q, 0));
	ASSERT_EQ(0, send_no(q, 1));
	for (uint32_t i = 0; i < 3; i++) {
		struct shmk *o = peer(self->uri);
		struct shmk_queue *p;

		ASSERT_NE(NULL, o);
		p = queue(o, "few", 0, 0);
		ASSERT_NE(NULL, p);
		EXPECT_NEXT(p, &m, 0, i);
		EXPECT_NEXT(p, &m, 1, i);
		shmk_detach(o);
	}
	EXPECT_EQ(-EAGAIN, shmk_recv(q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(2, stat.lost_messages);
	EXPECT_EQ(4, stat.redelivered);
	EXPECT_EQ(0, stat.blocks_used);
	shmk_queue_close(q);
}

TEST_F(redeliver, arguments)
{
	struct shmk_queue_opts o = { .flags = SHMK_QUEUE_CREATE, .max_tries = 1 };
	struct shmk_queue *q;

	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "x", &o, SHMK_TRY, &q));
	o.flags |= SHMK_QUEUE_REDELIVER;
	o.max_tries = 32768;
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "x", &o, SHMK_TRY, &q));
	o.max_tries = 32767;
	EXPECT_EQ(0, shmk_queue_open(self->s, "x", &o, SHMK_TRY, &q));
	shmk_queue_close(q);
}

/* From a queue of the kind into both kinds, blocks and inline ones. */
TEST_F(redeliver, sent_on_is_acknowledged)
{
	struct shmk_queue *plain = queue(self->o, "plain", 0, 0), *r;
	struct shmk_msg m;
	uint32_t no;

	ASSERT_NE(NULL, plain);
	r = queue(self->s, "plain", 0, 0);
	ASSERT_NE(NULL, r);
	for (no = 0; no < 8; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	for (no = 0; no < 8; no++) {
		EXPECT_NEXT(self->p, &m, no, 0);
		ASSERT_EQ(0, shmk_send(no < 4 ? plain : self->p, &m, SHMK_TRY));
		EXPECT_EQ(NULL, m.data);
	}
	EXPECT_CLEAN(self->s);
	other_dies(self);
	for (no = 0; no < 4; no++) {
		EXPECT_NEXT(r, &m, no, 0);
		shmk_free(&m);
	}
	for (no = 4; no < 8; no++) {
		EXPECT_NEXT(self->q, &m, no, 0);
		shmk_free(&m);
	}
	EXPECT_EQ(-EAGAIN, shmk_recv(self->q, &m, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_recv(r, &m, SHMK_TRY));
	shmk_queue_close(r);
}

TEST_F(redeliver, not_sent_on_is_still_held)
{
	struct shmk_queue *full = queue(self->o, "full", 0, 0);
	struct shmk_msg m[2];
	uint32_t no;

	ASSERT_NE(NULL, full);
	for (no = 0; no < 8; no++)
		ASSERT_EQ(0, send_no(full, no));
	for (no = 0; no < 2; no++) {
		ASSERT_EQ(0, send_no(self->q, no));
		EXPECT_NEXT(self->p, &m[no], no, 0);
		EXPECT_EQ(-EAGAIN, shmk_send(full, &m[no], SHMK_TRY));
		EXPECT_EQ((int64_t)no, number(&m[no]));
	}
	EXPECT_CLEAN(self->s);
	other_dies(self);
	for (no = 0; no < 2; no++) {
		EXPECT_NEXT(self->q, &m[no], no, 1);
		shmk_free(&m[no]);
	}
	EXPECT_EQ(0, shmk_queue_remove(self->s, "full"));
}

TEST_F(redeliver, batches_and_pointers_send_on)
{
	struct shmk_queue *plain = queue(self->o, "plain", 0, 0);
	struct shmk_msg m[4];
	uint32_t no;

	ASSERT_NE(NULL, plain);
	for (no = 0; no < 5; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	ASSERT_EQ(4, shmk_recv_batch(self->p, m, 4, SHMK_TRY));
	EXPECT_EQ(4, shmk_send_batch(plain, m, 4, SHMK_TRY));
	EXPECT_NEXT(self->p, &m[0], 4, 0);
	EXPECT_EQ(0, shmk_send_ptr(plain, m[0].data, m[0].len, SHMK_TRY));
	for (no = 0; no < 5; no++) {
		EXPECT_NEXT(plain, &m[0], no, 0);
		shmk_free(&m[0]);
	}
}

TEST_F(redeliver, closed_while_a_message_is_held)
{
	struct shmk_queue_stats st;
	struct shmk_msg m[3];
	uint32_t no;

	for (no = 0; no < 3; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	EXPECT_NEXT(self->p, &m[0], 0, 0);
	EXPECT_NEXT(self->p, &m[1], 1, 0);
	shmk_queue_close(self->p);
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_LE(2, st.nr_open);
	self->p = queue(self->o, "q", 0, 0);	/* opened again, and closed again */
	EXPECT_NEXT(self->p, &m[2], 2, 0);
	shmk_queue_close(self->p);
	for (no = 0; no < 3; no++) {
		ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
		EXPECT_LE(2, st.nr_open);
		shmk_free(&m[no]);
	}
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(1, st.nr_open);
	EXPECT_CLEAN(self->s);
}

TEST_F(redeliver, closed_and_dead)
{
	struct shmk_msg m;

	ASSERT_EQ(0, send_no(self->q, 0));
	ASSERT_EQ(0, send_no(self->q, 1));
	EXPECT_NEXT(self->p, &m, 0, 0);
	EXPECT_NEXT(self->p, &m, 1, 0);
	shmk_queue_close(self->p);
	other_dies(self);
	EXPECT_NEXT(self->q, &m, 0, 1);
	shmk_free(&m);
	EXPECT_NEXT(self->q, &m, 1, 1);
	shmk_free(&m);
}

TEST_F(redeliver, one_receiver_at_a_time)
{
	struct shmk_queue *a = queue(self->o, "sc", SHMK_QUEUE_REDELIVER | SHMK_QUEUE_SC, 0), *b;
	struct shmk_msg m;

	ASSERT_NE(NULL, a);
	b = queue(self->s, "sc", 0, 0);
	ASSERT_NE(NULL, b);
	ASSERT_EQ(0, send_no(b, 0));
	ASSERT_EQ(0, send_no(b, 1));
	EXPECT_NEXT(a, &m, 0, 0);
	EXPECT_EQ(-EBUSY, shmk_recv(b, &m, SHMK_TRY));
	other_dies(self);
	EXPECT_NEXT(b, &m, 0, 1);
	shmk_free(&m);
	EXPECT_NEXT(b, &m, 1, 0);
	shmk_free(&m);
	shmk_queue_close(b);
}

TEST_F(redeliver, costs_an_entry_each)
{
	struct shmk_attach_opts opts = { .nr_entries = 4 };
	struct shmk *few;
	struct shmk_queue *q;
	struct shmk_msg m[5];
	uint32_t no;

	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &few));
	q = queue(few, "q", 0, 0);
	ASSERT_NE(NULL, q);
	for (no = 1; no < 10; no += 2)
		ASSERT_EQ(0, send_no(self->q, no));
	for (no = 0; no < 4; no++)
		EXPECT_NEXT(q, &m[no], 2 * no + 1, 0);
	EXPECT_EQ(-ENOBUFS, shmk_recv(q, &m[4], SHMK_TRY));
	EXPECT_EQ(-ENOBUFS, shmk_send(q, &m[3], SHMK_TRY));	/* needs one more */
	shmk_free(&m[0]);
	EXPECT_NEXT(q, &m[0], 9, 0);
	shmk_detach(few);
}

/* A sleeper in another process is woken by the death of who had the message. */
static void holder(struct child_end *end, void *arg)
{
	struct shmk *s;
	struct shmk_queue *q;
	struct shmk_msg m;

	if (shmk_attach(arg, NULL, &s) || shmk_queue_open(s, "q", NULL, SHMK_TRY, &q) ||
	    shmk_recv(q, &m, watchdog()))
		_exit(91);
	tell(end, 1);
	for (;;)
		pause();
}

struct killer {
	struct child	*c;
};

static void *kill_later(void *arg)
{
	struct timespec ts = { .tv_nsec = 50000000 };

	nanosleep(&ts, NULL);
	child_kill(((struct killer *)arg)->c);
	return NULL;
}

TEST_F(redeliver, a_sleeping_receiver_gets_what_the_killed_had)
{
	struct child c;
	struct killer k = { &c };
	struct shmk_event event;
	struct shmk_msg m;
	pthread_t thread;

	for (uint32_t no = 0; no < 2; no++) {
		ASSERT_EQ(0, send_no(self->q, no));
		child_start(&c, holder, self->uri);
		ASSERT_EQ(1, child_hear(&c));
		ASSERT_EQ(0, pthread_create(&thread, NULL, kill_later, &k));
		ASSERT_EQ(0, shmk_recv(self->q, &m, watchdog()));
		EXPECT_EQ((int64_t)no, number(&m));
		EXPECT_EQ(1, m.redelivered);
		shmk_free(&m);
		pthread_join(thread, NULL);
		ASSERT_EQ(0, event_wait_type(self->s, &event, SHMK_EV_DIED));
		EXPECT_EQ(1, event.redelivered);
		EXPECT_EQ(0, event.messages);
	}
}

/* Threads of one peer: each message is acknowledged once. */
#define THREADS	4
#define EACH	3000

struct worker {
	struct shmk_queue *q;
	unsigned int	seen[THREADS * EACH];
	int		failed;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct shmk_msg m;
	uint32_t no;

	for (int i = 0; i < EACH; i++) {
		int ret = shmk_recv(w->q, &m, watchdog());

		if (ret) {
			w->failed = ret;
			break;
		}
		memcpy(&no, m.data, sizeof(no));
		__atomic_fetch_add(&w->seen[no % (THREADS * EACH)], 1, __ATOMIC_RELAXED);
		shmk_free(&m);
	}
	return NULL;
}

TEST_F_TIMEOUT(redeliver, threads_share_a_handle, 120)
{
	static struct worker w;
	pthread_t thread[THREADS];

	memset(&w, 0, sizeof(w));
	w.q = self->p;
	for (int i = 0; i < THREADS; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, work, &w));
	for (uint32_t no = 0; no < THREADS * EACH; no++) {
		unsigned char buf[600] = { 0 };

		memcpy(buf, &no, sizeof(no));
		ASSERT_EQ(0, shmk_send_copy(self->q, buf, no & 1 ? 16 : sizeof(buf), watchdog()));
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	EXPECT_EQ(0, w.failed);
	for (uint32_t no = 0; no < THREADS * EACH; no++)
		ASSERT_EQ(1, w.seen[no]);
}

TEST_HARNESS_MAIN
