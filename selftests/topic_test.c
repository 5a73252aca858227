// SPDX-License-Identifier: GPL-2.0-only
/*
 * topic_test.c - one writes, many read.
 *
 * Attachments of one process are as many peers; where somebody has to die it is
 * a child. SHMK_TEST_BACKEND=local|module, SHMK_TEST_LOOPS.
 */
#include <pthread.h>

#include "lib_test.h"
#include "../lib/topic.h"
#include "kselftest_harness.h"

#define POOL	(8 * MIB)

static uint32_t loops(uint32_t most)
{
	const char *s = getenv("SHMK_TEST_LOOPS");

	return s ? (uint32_t)strtoul(s, NULL, 0) : most;
}

static struct shmk *peer_flags(const char *uri, uint32_t flags)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 512, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .flags = flags };
	struct shmk *s = NULL;

	if (!(flags & SHMK_ATTACH_RDONLY))
		opts.create = &pool;
	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk *peer(const char *uri)
{
	return peer_flags(uri, 0);
}

static struct shmk_topic *topic(struct shmk *s, const char *name, struct shmk_topic_opts opts)
{
	struct shmk_topic *t = NULL;

	opts.flags = SHMK_TOPIC_CREATE;
	return shmk_topic_open(s, name, &opts, SHMK_TRY, &t) ? NULL : t;
}

static struct shmk_sub *sub(struct shmk_topic *t, struct shmk_sub_opts opts)
{
	struct shmk_sub *r = NULL;

	return shmk_topic_subscribe(t, &opts, &r) ? NULL : r;
}

/* A message that can be told from any other, and from half of it. */
#define LEN(no)	(16 + (no) * 7 % 480)

static void fill(void *data, uint32_t no)
{
	memset(data, (int)no * 31, LEN(no));
	memcpy(data, &no, sizeof(no));
}

static int64_t whole(const void *data, size_t len)
{
	const unsigned char *byte = data;
	uint32_t no;
	size_t i;

	memcpy(&no, data, sizeof(no));
	if (len != LEN(no))
		return -EBADMSG;
	for (i = sizeof(no); i < len; i++)
		if (byte[i] != (unsigned char)(no * 31))
			return -EBADMSG;
	return no;
}

static int put_until(struct shmk_topic *t, uint32_t no, int64_t deadline)
{
	struct shmk_loan loan;
	int ret = shmk_topic_loan(t, &loan);

	if (ret)
		return ret;
	fill(loan.data, no);
	ret = shmk_topic_publish(t, &loan, LEN(no), deadline);
	if (ret)
		shmk_topic_unloan(&loan);
	return ret;
}

static int put(struct shmk_topic *t, uint32_t no)
{
	return put_until(t, no, SHMK_TRY);
}

/* Takes and releases: the number of the message, or -errno. */
static int64_t got(struct shmk_sub *r, int64_t deadline)
{
	struct shmk_held held;
	int64_t no = shmk_topic_take(r, &held, deadline);

	if (no)
		return no;
	no = whole(held.data, held.len);
	shmk_topic_release(&held);
	return no;
}

static int64_t last(struct shmk_topic *t, struct shmk_held *held)
{
	unsigned char buf[512];
	int64_t ret = shmk_topic_read_last(t, buf, sizeof(buf), held);

	return ret < 0 ? ret : whole(buf, (size_t)ret);
}

#define EXPECT_CLEAN(s) do {						\
	char report_[256] = "";						\
	EXPECT_EQ(0, shmk_pool_check(s, report_, sizeof(report_)))	\
		TH_LOG("%s", report_);					\
} while (0)

FIXTURE(topic) {
	char uri[64];
	struct shmk *s, *o;
	struct shmk_topic *t, *u;	/* "t", as s and as o have it; s writes */
};

#define READERS	4

FIXTURE_SETUP(topic)
{
	struct shmk_topic_opts opts = { .nr_readers = READERS, .nr_holds = 2, .depth = 3,
					.msg_bytes = 512 };

	test_uri(self->uri, "topic");
	self->s = peer(self->uri);
	ASSERT_NE(NULL, self->s);
	self->o = peer(self->uri);
	ASSERT_NE(NULL, self->o);
	self->t = topic(self->s, "t", opts);
	ASSERT_NE(NULL, self->t);
	self->u = topic(self->o, "t", opts);
	ASSERT_NE(NULL, self->u);
	ASSERT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
}

/* Whatever happened, nothing is left of it when the topic goes. */
FIXTURE_TEARDOWN(topic)
{
	struct shmk_pool_stat stat;
	struct shmk_msg m;

	EXPECT_CLEAN(self->s);
	shmk_detach(self->o);
	settled(self->s);
	EXPECT_EQ(-EBUSY, shmk_queue_remove(self->s, "t"));
	shmk_topic_close(self->t);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "t"));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_EQ(0, shmk_alloc(self->s, POOL, 0, &m));
	EXPECT_CLEAN(self->s);
	shmk_detach(self->s);
	shmk_pool_destroy(self->uri);
	EXPECT_EQ(0, pool_mappings());
}

/* --------------------------------------------------------------- basics -- */

TEST_F(topic, every_reader_gets_every_message_in_order)
{
	struct shmk_sub *r[READERS];
	uint32_t i, no;

	for (i = 0; i < READERS; i++) {
		r[i] = sub(i & 1 ? self->t : self->u, (struct shmk_sub_opts) { 0 });
		ASSERT_NE(NULL, r[i]);
		EXPECT_EQ(-EAGAIN, got(r[i], SHMK_TRY));
	}
	for (no = 1; no <= 1000; no++) {
		ASSERT_EQ(0, put(self->t, no));
		for (i = 0; i < READERS; i++)
			ASSERT_EQ(no, got(r[i], SHMK_TRY));
	}
	for (i = 0; i < READERS; i++)
		EXPECT_EQ(-EAGAIN, got(r[i], SHMK_TRY));
}

TEST_F(topic, message_tells_sequence_time_and_writer)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_held held;
	int64_t before = now_ns();
	uint64_t no;

	for (no = 1; no < 20; no++) {
		ASSERT_EQ(0, put(self->t, (uint32_t)no));
		ASSERT_EQ(0, shmk_topic_take(r, &held, SHMK_TRY));
		EXPECT_EQ(no, held.seq);
		EXPECT_LE(before, held.time_ns);
		EXPECT_GE(now_ns(), held.time_ns);
		EXPECT_EQ(shmk_self(self->s), held.writer);
		EXPECT_EQ(shmk_self_gen(self->s), held.writer_gen);
		EXPECT_TRUE(held.writer_alive);
		EXPECT_EQ(0, held.dropped);
		EXPECT_TRUE(shmk_contains(self->o, held.data, held.len));
		EXPECT_EQ(0, shmk_topic_release(&held));
	}
}

TEST_F(topic, errors_of_reading)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_held a = { 0 }, b = { 0 }, c = { 0 };
	unsigned char buf[512];

	EXPECT_EQ(-EAGAIN, shmk_topic_take_last(r, &a));
	EXPECT_EQ(-EAGAIN, shmk_topic_take(r, &a, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_topic_read(r, buf, sizeof(buf), NULL, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_topic_read_last(self->u, buf, sizeof(buf), NULL));
	EXPECT_EQ(-ETIMEDOUT, shmk_topic_take(r, &a, shmk_deadline_ms(2)));
	EXPECT_EQ(-ETIMEDOUT, shmk_topic_read(r, buf, sizeof(buf), NULL, shmk_deadline_ms(2)));
	EXPECT_EQ(-EINVAL, shmk_topic_release(&a));
	ASSERT_EQ(0, put(self->t, 1));
	EXPECT_EQ(-EMSGSIZE, shmk_topic_read(r, buf, 4, &a, SHMK_TRY));
	EXPECT_EQ(LEN(1), a.len);
	EXPECT_EQ(-EMSGSIZE, shmk_topic_read_last(self->u, buf, 4, NULL));
	ASSERT_EQ(0, shmk_topic_take(r, &a, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_take_last(r, &b));
	EXPECT_EQ(a.data, b.data);
	EXPECT_EQ(-EBUSY, shmk_topic_take_last(r, &c));
	EXPECT_EQ(-EBUSY, shmk_topic_take(r, &c, SHMK_TRY));
	EXPECT_EQ(LEN(1), shmk_topic_read_last(self->u, buf, sizeof(buf), NULL));
	EXPECT_EQ(0, shmk_topic_release(&b));
	EXPECT_EQ(-EINVAL, shmk_topic_release(&b));
	EXPECT_EQ(-EAGAIN, shmk_topic_take(r, &c, SHMK_TRY));
	EXPECT_EQ(0, shmk_topic_release(&a));
	EXPECT_EQ(-EINVAL, shmk_topic_release(&a));
}

TEST_F(topic, errors_of_writing)
{
	struct shmk_loan loan = { 0 }, more;
	char big[600];

	EXPECT_EQ(-EPERM, shmk_topic_loan(self->u, &loan));
	EXPECT_EQ(-EPERM, shmk_topic_publish_copy(self->u, big, 4, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_topic_publish(self->t, &loan, 4, SHMK_TRY));
	EXPECT_EQ(-EMSGSIZE, shmk_topic_publish_copy(self->t, big, 513, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_loan(self->t, &loan));
	EXPECT_EQ(512, loan.room);
	EXPECT_EQ(-EMSGSIZE, shmk_topic_publish(self->t, &loan, 513, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_topic_publish(self->u, &loan, 5, SHMK_TRY));
	EXPECT_NE(NULL, loan.data);
	more = loan;
	shmk_topic_writer_release(self->t);
	EXPECT_EQ(-EPERM, shmk_topic_publish(self->t, &loan, 5, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_topic_publish(self->t, &loan, 5, SHMK_TRY));
	shmk_topic_unloan(&loan);
	EXPECT_EQ(NULL, loan.data);
	shmk_topic_unloan(&more);
	EXPECT_EQ(-EAGAIN, last(self->t, NULL));
}

TEST_F(topic, arguments_are_checked)
{
	struct shmk_topic_opts bad[] = {
		{ .flags = 4 }, { .flags = SHMK_TOPIC_EXCL }, { .nr_readers = 4097 },
		{ .nr_holds = 257 }, { .depth = 65537 }, { .msg_bytes = (1U << 30) + 1 },
		{ .spare = UINT32_MAX },
	};
	struct shmk_sub_opts worse[] = {
		{ .start = 3 }, { .wait_ns = 1 }, { .wait = true, .wait_ns = -1 },
	};
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE | SHMK_TOPIC_EXCL };
	struct shmk_topic *t = (void *)1;
	struct shmk_sub *r = (void *)1;
	uint32_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EINVAL, shmk_topic_open(self->s, "bad", &bad[i], SHMK_TRY, &t));
		EXPECT_EQ(NULL, t);
	}
	for (i = 0; i < ARRAY_SIZE(worse); i++) {
		EXPECT_EQ(-EINVAL, shmk_topic_subscribe(self->t, &worse[i], &r));
		EXPECT_EQ(NULL, r);
	}
	EXPECT_EQ(-EEXIST, shmk_topic_open(self->s, "t", &opts, SHMK_TRY, &t));
	EXPECT_EQ(-ENOENT, shmk_topic_open(self->s, "u", NULL, SHMK_TRY, &t));
	EXPECT_EQ(-EINVAL, shmk_topic_open(self->s, "-u", &opts, SHMK_TRY, &t));
	EXPECT_EQ(-ETIMEDOUT, shmk_topic_open(self->s, "u", NULL, shmk_deadline_ms(2), &t));
}

/* What is refused leaves nothing in use. */
TEST_F(topic, creation_that_fails_gives_its_block_back)
{
	struct shmk_topic_opts rows = { .flags = SHMK_TOPIC_CREATE, .nr_readers = 4000 };
	struct shmk_topic_opts large = { .flags = SHMK_TOPIC_CREATE, .msg_bytes = 2 * MIB };
	struct shmk_topic_opts excl = { .flags = SHMK_TOPIC_CREATE | SHMK_TOPIC_EXCL };
	struct shmk_pool_stat before, after;
	struct shmk_topic *t;

	rows.msg_bytes = 64;
	ASSERT_EQ(0, shmk_pool_stat(self->s, &before));
	EXPECT_EQ(-ENOSPC, shmk_topic_open(self->s, "rows", &rows, SHMK_TRY, &t));
	EXPECT_EQ(-E2BIG, shmk_topic_open(self->s, "large", &large, SHMK_TRY, &t));
	EXPECT_EQ(-EEXIST, shmk_topic_open(self->s, "t", &excl, SHMK_TRY, &t));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &after));
	EXPECT_EQ(before.blocks_used, after.blocks_used);
	EXPECT_EQ(before.queues_now, after.queues_now);
}

TEST_F(topic, queues_and_topics_do_not_mix)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_queue_stats stats;
	struct shmk_queue *q = (void *)1;
	struct shmk_topic *t = (void *)1;

	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "t", NULL, SHMK_TRY, &q));
	EXPECT_EQ(NULL, q);
	EXPECT_EQ(-EINVAL, shmk_queue_open(self->s, "t", &opts, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &opts, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_send_copy(q, "x", 1, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_topic_open(self->s, "q", NULL, SHMK_TRY, &t));
	EXPECT_EQ(NULL, t);
	ASSERT_EQ(0, shmk_queue_stats(q, &stats));
	EXPECT_EQ(1, stats.depth);
	EXPECT_EQ(1, stats.nr_open);
	shmk_queue_close(q);
	ASSERT_EQ(0, shmk_queue_next(self->s, 0, &stats));
	EXPECT_STREQ("t", stats.name);
	EXPECT_EQ(SHMK_QUEUE_TOPIC, stats.flags);
	EXPECT_EQ(2, stats.nr_open);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "q"));
}

TEST_F(topic, stats_tell_what_there_is)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_topic_stats st;
	struct shmk_sub_stats ss;

	ASSERT_EQ(0, shmk_topic_stats(self->u, &st));
	EXPECT_EQ(0, st.published);
	EXPECT_EQ(1, st.nr_subs);
	EXPECT_EQ(READERS, st.nr_readers);
	EXPECT_EQ(2, st.nr_holds);
	EXPECT_EQ(3, st.depth);
	EXPECT_EQ(512, st.msg_bytes);
	EXPECT_EQ(4 + 2 * 8 + 1, st.nr_elements);
	EXPECT_STREQ("t", st.name);
	ASSERT_EQ(0, put(self->t, 1));
	ASSERT_EQ(0, put(self->t, 2));
	ASSERT_EQ(0, shmk_sub_stats(r, &ss));
	EXPECT_EQ(2, ss.behind);
	EXPECT_EQ(1, got(r, SHMK_TRY));
	ASSERT_EQ(0, shmk_sub_stats(r, &ss));
	EXPECT_EQ(1, ss.behind);
	EXPECT_EQ(1, ss.received);
	ASSERT_EQ(0, shmk_topic_stats(self->u, &st));
	EXPECT_EQ(2, st.published);
	EXPECT_EQ(shmk_self(self->s), st.writer);
	shmk_topic_writer_release(self->t);
	ASSERT_EQ(0, shmk_topic_stats(self->u, &st));
	EXPECT_EQ(0, st.writer);
}

/* ---------------------------------------------------- holds and history -- */

TEST_F(topic, late_reader_finds_the_history)
{
	struct shmk_sub *r[3];
	uint32_t no;

	r[0] = sub(self->u, (struct shmk_sub_opts) { .start = SHMK_START_OLDEST });
	r[1] = sub(self->u, (struct shmk_sub_opts) { .start = SHMK_START_LAST });
	EXPECT_EQ(-EAGAIN, got(r[0], SHMK_TRY));
	EXPECT_EQ(-EAGAIN, got(r[1], SHMK_TRY));
	ASSERT_EQ(0, put(self->t, 1));
	ASSERT_EQ(0, put(self->t, 2));
	EXPECT_EQ(1, got(r[0], SHMK_TRY));
	EXPECT_EQ(1, got(r[1], SHMK_TRY));
	shmk_topic_unsubscribe(r[0]);
	shmk_topic_unsubscribe(r[1]);
	r[0] = sub(self->u, (struct shmk_sub_opts) { .start = SHMK_START_OLDEST });
	EXPECT_EQ(1, got(r[0], SHMK_TRY));
	shmk_topic_unsubscribe(r[0]);
	for (no = 3; no <= 20; no++)
		ASSERT_EQ(0, put(self->t, no));
	r[0] = sub(self->u, (struct shmk_sub_opts) { .start = SHMK_START_OLDEST });
	r[1] = sub(self->u, (struct shmk_sub_opts) { .start = SHMK_START_LAST });
	r[2] = sub(self->u, (struct shmk_sub_opts) { .start = SHMK_START_NEW });
	for (no = 18; no <= 20; no++)
		EXPECT_EQ(no, got(r[0], SHMK_TRY));
	EXPECT_EQ(20, got(r[1], SHMK_TRY));
	for (no = 0; no < 3; no++)
		EXPECT_EQ(-EAGAIN, got(r[no], SHMK_TRY));
	ASSERT_EQ(0, put(self->t, 21));
	for (no = 0; no < 3; no++)
		EXPECT_EQ(21, got(r[no], SHMK_TRY));
}

TEST_F(topic, slow_reader_skips_and_knows_how_many)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_held held;
	struct shmk_sub_stats ss;
	uint32_t no;

	for (no = 1; no <= 100; no++)
		ASSERT_EQ(0, put(self->t, no));
	ASSERT_EQ(0, shmk_topic_take(r, &held, SHMK_TRY));
	EXPECT_EQ(98, whole(held.data, held.len));
	EXPECT_EQ(98, held.seq);
	EXPECT_EQ(97, held.dropped);
	EXPECT_EQ(99, got(r, SHMK_TRY));
	EXPECT_EQ(100, got(r, SHMK_TRY));
	EXPECT_EQ(98, whole(held.data, held.len));
	EXPECT_EQ(0, shmk_topic_release(&held));
	ASSERT_EQ(0, shmk_sub_stats(r, &ss));
	EXPECT_EQ(97, ss.dropped);
	EXPECT_EQ(3, ss.received);
}

TEST_F(topic, what_is_held_stays_as_it_is)
{
	struct shmk_sub *r[READERS];
	struct shmk_held held[READERS][2];
	uint32_t i, no, k = 0;

	for (i = 0; i < READERS; i++)
		r[i] = sub(i & 1 ? self->u : self->t, (struct shmk_sub_opts) { 0 });
	for (i = 0; i < READERS; i++)
		for (k = 0; k < 2; k++) {
			ASSERT_EQ(0, put(self->t, 10 * i + k));
			ASSERT_EQ(0, shmk_topic_take_last(r[i], &held[i][k]));
		}
	/* Everything that may be held is held, and the writer does not care. */
	for (no = 1000; no < 3000; no++)
		ASSERT_EQ(0, put(self->t, no));
	for (i = 0; i < READERS; i++)
		for (k = 0; k < 2; k++) {
			EXPECT_EQ(10 * i + k, whole(held[i][k].data, held[i][k].len));
			EXPECT_EQ(-EBUSY, got(r[i], SHMK_TRY));
			EXPECT_EQ(2999, last(self->u, NULL));
			if (k)
				EXPECT_EQ(0, shmk_topic_release(&held[i][0]));
			if (k)
				EXPECT_EQ(0, shmk_topic_release(&held[i][1]));
			for (no = 0; no < 50; no++)
				ASSERT_EQ(0, put(self->t, 3000 + no));
			ASSERT_EQ(0, put(self->t, 2999));
		}
}

TEST_F(topic, several_hold_the_same_message)
{
	struct shmk_sub *r[READERS];
	struct shmk_held held[READERS];
	uint32_t i, no;

	ASSERT_EQ(0, put(self->t, 5));
	for (i = 0; i < READERS; i++) {
		r[i] = sub(self->u, (struct shmk_sub_opts) { 0 });
		ASSERT_EQ(0, shmk_topic_take_last(r[i], &held[i]));
		EXPECT_EQ(held[0].data, held[i].data);
	}
	for (i = 0; i < READERS; i++) {
		for (no = 100; no < 200; no++)
			ASSERT_EQ(0, put(self->t, no));
		EXPECT_EQ(5, whole(held[i].data, held[i].len));
		EXPECT_EQ(0, shmk_topic_release(&held[i]));
	}
}

TEST_F(topic, one_more_reader_is_refused_and_room_comes_back)
{
	struct shmk_sub *r[READERS], *more = (void *)1;
	uint32_t i, round;

	for (round = 0; round < 3; round++) {
		for (i = 0; i < READERS; i++) {
			r[i] = sub(self->u, (struct shmk_sub_opts) { 0 });
			ASSERT_NE(NULL, r[i]);
		}
		EXPECT_EQ(-ENOSPC, shmk_topic_subscribe(self->t, NULL, &more));
		EXPECT_EQ(NULL, more);
		ASSERT_EQ(0, put(self->t, round));
		for (i = 0; i < READERS; i++) {
			EXPECT_EQ(round, got(r[i], SHMK_TRY));
			shmk_topic_unsubscribe(r[i]);
		}
	}
}

TEST_F(topic, unsubscribing_releases_what_was_held)
{
	struct shmk_held held;
	struct shmk_sub *r;
	uint32_t no, i;

	for (i = 0; i < 200; i++) {
		r = sub(self->u, (struct shmk_sub_opts) { 0 });
		ASSERT_NE(NULL, r);
		for (no = 0; no < 10; no++)
			ASSERT_EQ(0, put(self->t, no));
		ASSERT_EQ(0, shmk_topic_take_last(r, &held));
		shmk_topic_unsubscribe(r);
	}
	/* Entries in a row are found again, too. */
	EXPECT_GE(16, self->o->ledger->high);
}

TEST_F(topic, many_loans_at_once)
{
	struct shmk_loan loan[32];
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	uint32_t n, i;

	for (n = 0; n < 32 && !shmk_topic_loan(self->t, &loan[n]); n++)
		fill(loan[n].data, n);
	/* slots 4, holds 8, 1 + spare 8: nothing is held or published yet. */
	EXPECT_EQ(4 + 8 + 1 + 8, n);
	EXPECT_EQ(-EBUSY, shmk_topic_loan(self->t, &loan[31]));
	for (i = 0; i < n; i++) {
		if (i & 1) {
			shmk_topic_unloan(&loan[i]);
			continue;
		}
		ASSERT_EQ(0, shmk_topic_publish(self->t, &loan[i], LEN(i), SHMK_TRY));
		EXPECT_EQ(NULL, loan[i].data);
		EXPECT_EQ(i, got(r, SHMK_TRY));
	}
	EXPECT_EQ(0, put(self->t, 77));
	EXPECT_EQ(77, got(r, SHMK_TRY));
}

TEST_F(topic, at_least_1024_readers)
{
	struct shmk_topic_opts opts = { .nr_readers = 1100, .msg_bytes = 512, .spare = 1 };
	struct shmk_topic *t = topic(self->s, "many", opts), *u;
	static struct shmk_sub *r[1100];
	struct shmk_held held[2];
	uint32_t i, no;

	ASSERT_NE(NULL, t);
	u = topic(self->o, "many", opts);
	ASSERT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	for (i = 0; i < 1100; i++) {
		r[i] = sub(i & 1 ? t : u, (struct shmk_sub_opts) { 0 });
		ASSERT_NE(NULL, r[i]);
	}
	for (no = 0; no < 10; no++) {
		ASSERT_EQ(0, put(t, no));
		for (i = no; i < 1100; i += 10)
			ASSERT_EQ(0, shmk_topic_take_last(r[i], &held[i == 1099]));
	}
	for (no = 0; no < loops(3000); no++)
		ASSERT_EQ(0, put(t, 10 + no));
	EXPECT_EQ(9, whole(held[1].data, held[1].len));
	shmk_topic_close(u);
	shmk_topic_close(t);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "many"));
}

TEST_F(topic, two_handles_are_one)
{
	struct shmk_topic *t = topic(self->s, "t", (struct shmk_topic_opts) { 0 });

	EXPECT_EQ(self->t, t);
	shmk_topic_close(t);
	EXPECT_EQ(0, put(self->t, 1));
}

/* ----------------------------------------------------------------- roles -- */

TEST_F(topic, one_writer_at_a_time)
{
	EXPECT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
	EXPECT_EQ(-EBUSY, shmk_topic_writer(self->u, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_topic_writer(self->u, shmk_deadline_ms(5)));
	ASSERT_EQ(0, put(self->t, 1));
	shmk_topic_writer_release(self->t);
	shmk_topic_writer_release(self->t);
	EXPECT_EQ(-EPERM, put(self->t, 2));
	EXPECT_EQ(0, shmk_topic_writer(self->u, SHMK_TRY));
	EXPECT_EQ(-EBUSY, shmk_topic_writer(self->t, SHMK_TRY));
	EXPECT_EQ(0, put(self->u, 2));
	EXPECT_EQ(2, last(self->t, NULL));
}

/* Sequence, history and holds go on from one writer to the next. */
TEST_F(topic, writers_take_turns)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_held held, kept;
	uint32_t no;

	ASSERT_EQ(0, put(self->t, 0));
	ASSERT_EQ(0, shmk_topic_take(r, &kept, SHMK_TRY));
	for (no = 1; no < 200; no++) {
		struct shmk_topic *from = no & 1 ? self->t : self->u;
		struct shmk_topic *to = no & 1 ? self->u : self->t;

		shmk_topic_writer_release(from);
		ASSERT_EQ(0, shmk_topic_writer(to, SHMK_TRY));
		ASSERT_EQ(0, put(to, no));
		ASSERT_EQ(0, shmk_topic_take(r, &held, SHMK_TRY));
		EXPECT_EQ(no, whole(held.data, held.len));
		EXPECT_EQ(no + 1, held.seq);
		EXPECT_EQ(shmk_self(no & 1 ? self->o : self->s), held.writer);
		EXPECT_EQ(0, shmk_topic_release(&held));
	}
	EXPECT_EQ(0, whole(kept.data, kept.len));
}

/* The writer died between the slot and the hint. */
TEST_F(topic, next_writer_finds_the_tail_in_the_slots)
{
	uint32_t no;

	for (no = 1; no <= 9; no++) {
		ASSERT_EQ(0, put(self->t, no));
		self->t->q.rv.ring->tail--;
		shmk_topic_writer_release(self->t);
		ASSERT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
		EXPECT_EQ(no, last(self->u, NULL));
	}
	ASSERT_EQ(0, put(self->t, 10));
	EXPECT_EQ(10, last(self->u, NULL));
}

struct waiting {
	pthread_t		thread;
	struct shmk_topic	*t;
	struct shmk_sub		*r;
	uint32_t		no;
	int64_t			deadline;
	int64_t			ret;
};

static void *write_when_free(void *arg)
{
	struct waiting *w = arg;

	w->ret = shmk_topic_writer(w->t, w->deadline);
	return NULL;
}

TEST_F(topic, released_role_goes_to_one_that_waits)
{
	struct shmk *s[3];
	struct waiting w[3];
	int i, round, won;

	for (i = 0; i < 3; i++) {
		s[i] = peer(self->uri);
		ASSERT_NE(NULL, s[i]);
		w[i].t = topic(s[i], "t", (struct shmk_topic_opts) { 0 });
		ASSERT_NE(NULL, w[i].t);
	}
	for (round = 0; round < 5; round++) {
		for (i = 0; i < 3; i++) {
			w[i].deadline = watchdog();
			pthread_create(&w[i].thread, NULL, write_when_free, &w[i]);
		}
		shmk_topic_writer_release(self->t);
		for (i = 0; i < 3; i++) {
			/* Each in turn, whichever comes first. */
			for (won = -1; won < 0;) {
				int k;

				for (k = 0; k < 3 && won < 0; k++)
					if (READ_ONCE(w[k].t->writes))
						won = k;
			}
			ASSERT_EQ(0, pthread_join(w[won].thread, NULL));
			EXPECT_EQ(0, w[won].ret);
			EXPECT_EQ(-EBUSY, shmk_topic_writer(self->u, SHMK_TRY));
			EXPECT_EQ(0, put(w[won].t, (uint32_t)i));
			shmk_topic_writer_release(w[won].t);
		}
		EXPECT_EQ(0, shmk_topic_writer(self->t, watchdog()));
	}
	for (i = 0; i < 3; i++)
		shmk_detach(s[i]);
}

/* -------------------------------------------------------------- policies -- */

static void *read_one(void *arg)
{
	struct waiting *w = arg;

	w->ret = got(w->r, w->deadline);
	return NULL;
}

static void *write_one(void *arg)
{
	struct waiting *w = arg;

	w->ret = put_until(w->t, w->no, w->deadline);
	return NULL;
}

static void wait_asleep(struct shmk_queue *q)
{
	uint64_t nr = READ_ONCE(q->nr_sleeps);

	while (!nr)
		nr = READ_ONCE(q->nr_sleeps);
}

TEST_F(topic, writer_waits_for_a_reader_that_wants_it)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { .wait = true });
	struct shmk_sub *other = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct waiting w = { .t = self->t, .no = 5, .deadline = watchdog() };
	uint32_t no;

	for (no = 1; no <= 3; no++)
		ASSERT_EQ(0, put(self->t, no));
	EXPECT_EQ(-EAGAIN, put(self->t, 4));
	EXPECT_EQ(-ETIMEDOUT, put_until(self->t, 4, shmk_deadline_ms(5)));
	EXPECT_EQ(1, got(other, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, put(self->t, 4));
	EXPECT_EQ(1, got(r, SHMK_TRY));
	ASSERT_EQ(0, put(self->t, 4));
	EXPECT_EQ(-EAGAIN, put(self->t, 5));
	self->t->q.nr_sleeps = 0;
	pthread_create(&w.thread, NULL, write_one, &w);
	wait_asleep(&self->t->q);
	EXPECT_EQ(2, got(r, SHMK_TRY));
	pthread_join(w.thread, NULL);
	EXPECT_EQ(0, w.ret);
	for (no = 3; no <= 5; no++)
		EXPECT_EQ(no, got(r, SHMK_TRY));
	/* Nothing was kept for the other one. */
	EXPECT_EQ(2, got(other, SHMK_TRY));
}

TEST_F(topic, writer_goes_on_when_its_reader_leaves)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { .wait = true });
	struct waiting w = { .t = self->t, .no = 4, .deadline = watchdog() };
	uint32_t no;

	for (no = 1; no <= 3; no++)
		ASSERT_EQ(0, put(self->t, no));
	self->t->q.nr_sleeps = 0;
	pthread_create(&w.thread, NULL, write_one, &w);
	wait_asleep(&self->t->q);
	shmk_topic_unsubscribe(r);
	pthread_join(w.thread, NULL);
	EXPECT_EQ(0, w.ret);
}

TEST_F(topic, slow_reader_is_waited_for_so_long_and_no_longer)
{
	const int64_t patience = 30000000;
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { .wait = true,
								   .wait_ns = patience });
	struct shmk_held held;
	int64_t begin = now_ns();
	uint32_t no;

	for (no = 1; no <= 3; no++)
		ASSERT_EQ(0, put(self->t, no));
	ASSERT_EQ(-EAGAIN, put(self->t, 4));
	ASSERT_EQ(0, put_until(self->t, 4, watchdog()));
	EXPECT_LE(patience, now_ns() - begin);
	/* It had its chance: not waited for again until it moves. */
	begin = now_ns();
	for (no = 5; no <= 2000; no++)
		ASSERT_EQ(0, put(self->t, no));
	ASSERT_EQ(0, shmk_topic_take(r, &held, SHMK_TRY));
	EXPECT_EQ(1998, held.seq);
	EXPECT_EQ(1997, held.dropped);
	shmk_topic_release(&held);
	ASSERT_EQ(0, put(self->t, 2001));
	ASSERT_EQ(-EAGAIN, put(self->t, 2002));
}

TEST_F(topic, nothing_is_dropped_for_who_is_waited_for)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { .wait = true });
	uint32_t no, n = loops(20000);
	struct shmk_sub_stats ss;

	for (no = 1; no <= n; no++) {
		struct waiting w = { .r = r, .deadline = watchdog() };

		if (no % 64) {
			ASSERT_EQ(0, put_until(self->t, no, watchdog()));
			ASSERT_EQ(no, got(r, SHMK_TRY));
			continue;
		}
		pthread_create(&w.thread, NULL, read_one, &w);
		ASSERT_EQ(0, put_until(self->t, no, watchdog()));
		pthread_join(w.thread, NULL);
		ASSERT_EQ(no, w.ret);
	}
	ASSERT_EQ(0, shmk_sub_stats(r, &ss));
	EXPECT_EQ(0, ss.dropped);
	EXPECT_EQ(n, ss.received);
}

/* --------------------------------------------------------------- waiting -- */

TEST_F(topic, all_sleepers_wake_at_one_message)
{
	struct shmk_topic *t[READERS];
	struct waiting w[READERS];
	struct shmk *s[READERS];
	uint32_t i, no;

	for (i = 0; i < READERS; i++) {
		s[i] = peer(self->uri);
		t[i] = topic(s[i], "t", (struct shmk_topic_opts) { 0 });
		w[i] = (struct waiting) { .r = sub(t[i], (struct shmk_sub_opts) { 0 }) };
		ASSERT_NE(NULL, w[i].r);
	}
	for (no = 1; no <= loops(300) / 10; no++) {
		for (i = 0; i < READERS; i++) {
			w[i].r->q.nr_sleeps = 0;
			w[i].deadline = watchdog();
			pthread_create(&w[i].thread, NULL, read_one, &w[i]);
		}
		/* Sometimes they sleep, sometimes they are about to. */
		for (i = 0; i < no % (READERS + 1); i++)
			wait_asleep(&w[i].r->q);
		ASSERT_EQ(0, put(self->t, no));
		for (i = 0; i < READERS; i++) {
			pthread_join(w[i].thread, NULL);
			ASSERT_EQ(no, w[i].ret);
		}
	}
	for (i = 0; i < READERS; i++)
		shmk_detach(s[i]);
}

TEST_F(topic, fd_says_whether_there_is_something_for_this_reader)
{
	struct shmk_sub *a = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_sub *b = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };
	uint32_t no;

	p[0].fd = shmk_sub_fd(a);
	p[1].fd = shmk_sub_fd(b);
	ASSERT_LE(0, p[0].fd);
	ASSERT_LE(0, p[1].fd);
	ASSERT_NE(p[0].fd, p[1].fd);
	EXPECT_EQ(0, poll(p, 2, 0));
	for (no = 1; no < 20; no++) {
		ASSERT_EQ(0, put(self->t, no));
		EXPECT_EQ(2, poll(p, 2, WATCHDOG_MS));
		EXPECT_EQ(no, got(a, SHMK_TRY));
		EXPECT_EQ(-EAGAIN, got(a, SHMK_TRY));
		/* One has read and is armed again, which must not take the other's news away. */
		EXPECT_EQ(1, poll(p, 2, WATCHDOG_MS));
		EXPECT_EQ(0, p[0].revents);
		EXPECT_EQ(POLLIN, p[1].revents);
		EXPECT_EQ(no, got(b, SHMK_TRY));
		EXPECT_EQ(-EAGAIN, got(b, SHMK_TRY));
		EXPECT_EQ(0, poll(p, 2, 0));
	}
}

/* With all that its sleepers needed. */
TEST_F(topic, pool_goes_with_its_topics)
{
	int before = dir_entries(test_dir);
	char uri[64];
	struct shmk *s = peer(test_uri(uri, "goes"));
	struct shmk_topic *t = topic(s, "t", (struct shmk_topic_opts) { 0 });
	struct shmk_sub *r = sub(t, (struct shmk_sub_opts) { 0 });
	struct shmk *o = peer(uri);
	struct shmk_topic *u = topic(o, "t", (struct shmk_topic_opts) { 0 });

	EXPECT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_topic_writer(u, a_sleep()));
	EXPECT_EQ(-ETIMEDOUT, got(r, a_sleep()));
	EXPECT_LE(0, shmk_sub_fd(r));
	shmk_detach(s);
	shmk_detach(o);
	EXPECT_EQ(before, dir_entries(test_dir));
	EXPECT_EQ(-ENOENT, shmk_attach(uri, NULL, &s));
}

TEST_F(topic, interrupt_ends_every_wait)
{
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	unsigned char buf[512];

	shmk_interrupt(self->o);
	EXPECT_EQ(-EINTR, got(r, SHMK_FOREVER));
	EXPECT_EQ(-EINTR, shmk_topic_read(r, buf, sizeof(buf), NULL, SHMK_FOREVER));
	EXPECT_EQ(-EINTR, shmk_topic_writer(self->u, SHMK_FOREVER));
	shmk_resume(self->o);
	ASSERT_EQ(0, put(self->t, 1));
	EXPECT_EQ(1, got(r, SHMK_FOREVER));
}

/* ------------------------------------------------------ read-only members -- */

TEST_F(topic, read_only_member_reads)
{
	struct shmk *s = peer_flags(self->uri, SHMK_ATTACH_RDONLY);
	struct shmk_topic *t;
	struct shmk_sub_opts opts = { .wait = true };
	struct shmk_held held, kept;
	struct shmk_sub *r;
	struct waiting w;
	uint32_t no;

	ASSERT_NE(NULL, s);
	ASSERT_EQ(0, shmk_topic_open(s, "t", NULL, SHMK_TRY, &t));
	EXPECT_EQ(-EROFS, shmk_topic_writer(t, SHMK_TRY));
	EXPECT_EQ(-EROFS, shmk_topic_publish_copy(t, "x", 1, SHMK_TRY));
	EXPECT_EQ(-EROFS, shmk_topic_subscribe(t, &opts, &r));
	r = sub(t, (struct shmk_sub_opts) { 0 });
	ASSERT_NE(NULL, r);
	EXPECT_EQ(-EAGAIN, got(r, SHMK_TRY));
	ASSERT_EQ(0, put(self->t, 1));
	ASSERT_EQ(0, shmk_topic_take(r, &kept, SHMK_TRY));
	for (no = 2; no < 500; no++) {
		ASSERT_EQ(0, put(self->t, no));
		ASSERT_EQ(0, shmk_topic_take(r, &held, SHMK_TRY));
		EXPECT_EQ(no, whole(held.data, held.len));
		EXPECT_EQ(0, shmk_topic_release(&held));
	}
	EXPECT_EQ(1, whole(kept.data, kept.len));
	for (no = 500; no < 510; no++) {
		w = (struct waiting) { .r = r, .deadline = watchdog() };
		r->q.nr_sleeps = 0;
		pthread_create(&w.thread, NULL, read_one, &w);
		if (no & 1)
			wait_asleep(&r->q);
		ASSERT_EQ(0, put(self->t, no));
		pthread_join(w.thread, NULL);
		EXPECT_EQ(no, w.ret);
	}
	if (!on_module()) {
		EXPECT_EQ(-EOPNOTSUPP, shmk_sub_fd(r));
	} else {
		struct pollfd p = { .fd = shmk_sub_fd(r), .events = POLLIN };

		EXPECT_EQ(0, poll(&p, 1, 0));
		ASSERT_EQ(0, put(self->t, 3));
		EXPECT_EQ(1, poll(&p, 1, WATCHDOG_MS));
	}
	EXPECT_CLEAN(self->s);
	shmk_detach(s);
}

/* ----------------------------------------------------------------- death -- */

struct dier {
	const char	*uri;
	int		what;
};

enum { DIES_HOLDING, DIES_WRITING, DIES_WAITED_FOR, DIES_RDONLY };

static void die_on_request(struct child_end *end, void *arg)
{
	const struct dier *d = arg;
	struct shmk *s = peer_flags(d->uri, d->what == DIES_RDONLY ? SHMK_ATTACH_RDONLY : 0);
	struct shmk_sub_opts opts = { .wait = d->what == DIES_WAITED_FOR };
	struct shmk_topic *t = NULL;
	struct shmk_sub *r = NULL;
	struct shmk_held held;
	struct shmk_loan loan;

	if (!s || shmk_topic_open(s, "t", NULL, SHMK_TRY, &t))
		_exit(91);
	switch (d->what) {
	case DIES_WRITING:
		if (shmk_topic_writer(t, watchdog()) || put(t, 42) || shmk_topic_loan(t, &loan))
			_exit(92);
		memset(loan.data, 0xee, loan.room);
		break;
	case DIES_WAITED_FOR:
		if (shmk_topic_subscribe(t, &opts, &r))
			_exit(93);
		break;
	default:
		if (shmk_topic_subscribe(t, &opts, &r) || shmk_topic_take_last(r, &held))
			_exit(94);
	}
	tell(end, (int)shmk_self(s));
	hear(end->from);
}

TEST_F(topic, killed_readers_holds_are_gone_and_its_place_is_free)
{
	struct dier d = { .uri = self->uri };
	struct shmk_sub *r[READERS - 1];
	struct shmk_topic_stats st;
	struct child c;
	uint32_t no, i;

	ASSERT_EQ(0, put(self->t, 1));
	for (i = 0; i < READERS - 1; i++)
		r[i] = sub(self->u, (struct shmk_sub_opts) { 0 });
	for (no = 0; no < 4; no++) {
		d.what = no & 1 ? DIES_RDONLY : DIES_HOLDING;
		child_start(&c, die_on_request, &d);
		ASSERT_LT(0, child_hear(&c));
		EXPECT_EQ(NULL, sub(self->u, (struct shmk_sub_opts) { 0 }));
		for (i = 0; i < 100; i++)
			ASSERT_EQ(0, put(self->t, i));
		child_kill(&c);
		settled(self->s);
		ASSERT_EQ(0, shmk_topic_stats(self->t, &st));
		EXPECT_EQ(READERS - 1, st.nr_subs);
		EXPECT_CLEAN(self->s);
		for (i = 0; i < 100; i++)
			ASSERT_EQ(0, put(self->t, i));
	}
	for (i = 0; i < READERS - 1; i++)
		EXPECT_EQ(97, got(r[i], SHMK_TRY));
}

TEST_F(topic, killed_writers_last_message_is_there_and_it_is_known_to_be_dead)
{
	struct dier d = { .uri = self->uri, .what = DIES_WRITING };
	struct shmk_sub *r = sub(self->u, (struct shmk_sub_opts) { 0 });
	struct shmk_held held;
	struct child c;
	int id, round;

	for (round = 1; round < 4; round++) {
		shmk_topic_writer_release(self->t);
		child_start(&c, die_on_request, &d);
		id = child_hear(&c);
		ASSERT_LT(0, id);
		EXPECT_EQ(42, last(self->t, &held));
		EXPECT_TRUE(held.writer_alive);
		EXPECT_EQ(-EBUSY, shmk_topic_writer(self->t, SHMK_TRY));
		child_kill(&c);
		settled(self->s);
		EXPECT_EQ(42, last(self->t, &held));
		EXPECT_FALSE(held.writer_alive);
		EXPECT_EQ((uint32_t)id, held.writer);
		EXPECT_EQ(42, got(r, SHMK_TRY));
		EXPECT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
		EXPECT_EQ(0, put(self->t, (uint32_t)round));
		ASSERT_EQ(0, shmk_topic_take(r, &held, SHMK_TRY));
		EXPECT_EQ(2 * (uint32_t)round, held.seq);
		EXPECT_EQ(round, whole(held.data, held.len));
		EXPECT_EQ(0, shmk_topic_release(&held));
	}
}

/*
 * Somebody wrote into a slot where nobody may. Both name one element then, and it is the writer's
 * to lend only when it is in neither.
 */
TEST_F(topic, an_element_in_two_slots_is_free_when_both_are_written_over)
{
	struct shmk_topic *t = self->t;
	struct shmk_slot *old, *newer;
	struct shmk_loan loan[64];
	uint32_t no, twice, i, n, lent;

	for (no = 0; no < 4; no++)
		ASSERT_EQ(0, put(t, no));
	shmk_topic_writer_release(t);
	old = shmk_slot_at(&t->q.rv, t->seq - 1);
	newer = shmk_slot_at(&t->q.rv, t->seq + 1);
	twice = SHMK_P_ARG(old->p);
	newer->p = SHMK_P(SHMK_P_LAP(newer->p), SHMK_KIND_ELEMENT, twice);
	ASSERT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	for (no = 1; no <= 3; no++) {
		ASSERT_EQ(0, put(t, no));
		for (n = 0; n < ARRAY_SIZE(loan) && !shmk_topic_loan(t, &loan[n]); n++)
			;
		for (i = 0, lent = 0; i < n; i++)
			lent += loan[i].element == twice;
		/* The first has written over one, the third over the other. */
		EXPECT_EQ(no == 3, lent) TH_LOG("publication %u", no);
		while (n)
			shmk_topic_unloan(&loan[--n]);
	}
}

TEST_F(topic, a_copy_of_a_loan_counts_once)
{
	struct shmk_loan loan, copy;

	ASSERT_EQ(0, shmk_topic_loan(self->t, &loan));
	copy = loan;
	EXPECT_EQ(0, shmk_topic_publish(self->t, &loan, 8, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_topic_publish(self->t, &copy, 8, SHMK_TRY));
	shmk_topic_unloan(&copy);
	ASSERT_EQ(0, shmk_topic_loan(self->t, &loan));
	copy = loan;
	shmk_topic_unloan(&loan);
	EXPECT_EQ(-EINVAL, shmk_topic_publish(self->t, &copy, 8, SHMK_TRY));
	shmk_topic_unloan(&copy);
}

TEST_F(topic, killed_reader_releases_the_writer)
{
	struct dier d = { .uri = self->uri, .what = DIES_WAITED_FOR };
	struct waiting w = { .t = self->t, .no = 4 };
	struct child c;
	uint32_t no;

	child_start(&c, die_on_request, &d);
	ASSERT_LT(0, child_hear(&c));
	for (no = 1; no <= 3; no++)
		ASSERT_EQ(0, put(self->t, no));
	ASSERT_EQ(-EAGAIN, put(self->t, 4));
	self->t->q.nr_sleeps = 0;
	w.deadline = watchdog();
	pthread_create(&w.thread, NULL, write_one, &w);
	wait_asleep(&self->t->q);
	child_kill(&c);
	pthread_join(w.thread, NULL);
	EXPECT_EQ(0, w.ret);
}

TEST_F(topic, killed_writer_is_followed_by_one_that_waits)
{
	struct dier d = { .uri = self->uri, .what = DIES_WRITING };
	struct waiting w[2] = { { .t = self->t }, { .t = self->u } };
	int round, won, i;
	struct child c;

	for (round = 0; round < 3; round++) {
		shmk_topic_writer_release(self->t);
		child_start(&c, die_on_request, &d);
		ASSERT_LT(0, child_hear(&c));
		for (i = 0; i < 2; i++) {
			w[i].t->candidate.nr_sleeps = 0;
			w[i].deadline = watchdog();
			pthread_create(&w[i].thread, NULL, write_when_free, &w[i]);
			wait_asleep(&w[i].t->candidate);
		}
		child_kill(&c);
		while (!READ_ONCE(w[0].t->writes) && !READ_ONCE(w[1].t->writes))
			;
		won = READ_ONCE(w[1].t->writes);
		pthread_join(w[won].thread, NULL);
		EXPECT_EQ(0, w[won].ret);
		EXPECT_EQ(-EBUSY, shmk_topic_writer(w[!won].t, SHMK_TRY));
		EXPECT_EQ(42, last(self->t, NULL));
		EXPECT_EQ(0, put(w[won].t, 43));
		shmk_topic_writer_release(w[won].t);
		pthread_join(w[!won].thread, NULL);
		EXPECT_EQ(0, w[!won].ret);
		EXPECT_EQ(0, put(w[!won].t, 44));
		if (!won) {
			shmk_topic_writer_release(self->u);
			ASSERT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
		}
	}
}

static uint32_t candidates(const struct shmk_topic *t)
{
	uint32_t i, nr = 0;

	for (i = 0; i < SHMK_CANDIDATES; i++)
		nr += READ_ONCE(t->q.rv.ring->candidates[i]) != 0;
	return nr;
}

/* Each waits before the next one comes. */
static void queue_up(struct shmk_topic *t, struct child *c, int nr, struct dier *d)
{
	int64_t end = watchdog();
	int i;

	for (i = 0; i < nr; i++) {
		child_start(&c[i], die_on_request, d);
		while (candidates(t) < (uint32_t)i + 1 && now_ns() < end)
			usleep(1000);
	}
}

/* Has this one become the writer, and the others behind it not? */
static bool writes_alone(struct shmk_topic *t, const struct child *c, int i, int nr)
{
	int id = child_hear(&c[i]), j;

	for (j = i + 1; j < nr; j++) {
		struct pollfd p = { .fd = c[j].from, .events = POLLIN };

		if (poll(&p, 1, 0))
			return false;
	}
	return id > 0 && (READ_ONCE(t->q.rv.ring->role_send) & 0xffff) == (__u64)id;
}

TEST_F(topic, the_first_that_waits_becomes_the_writer)
{
	struct dier d = { .uri = self->uri, .what = DIES_WRITING };
	struct child c[5];

	queue_up(self->t, c, 5, &d);
	ASSERT_EQ(5, candidates(self->t));
	shmk_topic_writer_release(self->t);
	ASSERT_TRUE(writes_alone(self->t, c, 0, 5));
	EXPECT_EQ(4, candidates(self->t));
	child_kill(&c[1]);		/* the first that waits */
	child_kill(&c[0]);		/* and the writer */
	settled(self->s);
	EXPECT_TRUE(writes_alone(self->t, c, 2, 5));
	EXPECT_EQ(-EBUSY, shmk_topic_writer(self->t, SHMK_TRY));
	child_kill(&c[2]);
	settled(self->s);
	EXPECT_TRUE(writes_alone(self->t, c, 3, 5));
	child_kill(&c[3]);
	settled(self->s);
	EXPECT_TRUE(writes_alone(self->t, c, 4, 5));
	child_kill(&c[4]);
	settled(self->s);
	EXPECT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
}

/* It is alive, so it comes first; but nobody waits for it for ever. */
TEST_F(topic, a_stopped_candidate_is_passed_by)
{
	struct dier d = { .uri = self->uri, .what = DIES_WRITING };
	struct child c[2];

	queue_up(self->t, c, 2, &d);
	kill(c[0].pid, SIGSTOP);
	shmk_topic_writer_release(self->t);
	EXPECT_EQ(-EBUSY, shmk_topic_writer(self->t, SHMK_TRY));
	EXPECT_LT(0, child_hear(&c[1]));
	kill(c[0].pid, SIGCONT);
	child_kill(&c[1]);
	settled(self->s);
	EXPECT_LT(0, child_hear(&c[0]));
	child_kill(&c[0]);
	settled(self->s);
	EXPECT_EQ(0, shmk_topic_writer(self->t, SHMK_TRY));
}

/* The maker is gone, its span with it; the topic stays, and goes when it is removed. */
TEST_F(topic, outlives_its_maker)
{
	struct shmk *m = peer(self->uri);
	struct shmk_topic_opts opts = { .nr_readers = 2 };
	struct shmk_topic *t = topic(m, "v", opts), *u;
	struct shmk_pool_stat before, after;

	ASSERT_NE(NULL, t);
	ASSERT_EQ(0, shmk_topic_open(self->s, "v", NULL, SHMK_TRY, &u));
	ASSERT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	ASSERT_EQ(0, put(t, 7));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &before));
	shmk_detach(m);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &after));
	EXPECT_EQ(before.blocks_used, after.blocks_used);
	EXPECT_EQ(7, last(u, NULL));
	EXPECT_EQ(0, shmk_topic_writer(u, SHMK_TRY));
	EXPECT_EQ(0, put(u, 8));
	EXPECT_EQ(8, last(u, NULL));
	shmk_topic_close(u);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "v"));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &after));
	EXPECT_EQ(before.blocks_used - 1, after.blocks_used);
}

/* -------------------------------------------------------------- together -- */

#define STORMERS	6

struct storm {
	const char	*uri;
	uint32_t	kind;
};

/* Reads or writes until it is killed; says when it has begun. */
static void storm_child(struct child_end *end, void *arg)
{
	const struct storm *st = arg;
	struct shmk_sub_opts opts = { .wait = st->kind == 3,
				      .wait_ns = st->kind == 3 ? 200000 : 0 };
	struct shmk *s = peer(st->uri);
	struct shmk_topic *t;
	struct shmk_sub *r;
	struct shmk_held held;
	uint64_t seq = 0;
	uint32_t no = 0;
	int64_t ret;

	if (!s || shmk_topic_open(s, "t", NULL, SHMK_TRY, &t))
		_exit(91);
	if (st->kind < 2) {
		tell(end, 1);
		if (shmk_topic_writer(t, SHMK_FOREVER))
			_exit(92);
		for (;; no++) {
			ret = put_until(t, no, SHMK_FOREVER);
			if (ret)
				_exit(93);
		}
	}
	if (shmk_topic_subscribe(t, &opts, &r))
		_exit(94);
	tell(end, 1);
	for (;;) {
		ret = shmk_topic_take(r, &held, SHMK_FOREVER);
		if (ret)
			_exit(95);
		if (held.seq <= seq)
			_exit(96);
		seq = held.seq;
		if (whole(held.data, held.len) < 0)
			_exit(97);
		shmk_topic_release(&held);
	}
}

TEST_F(topic, storm_of_kills_leaves_every_message_whole)
{
	uint32_t kills = loops(200) / 4 + 10, i;
	struct storm st[STORMERS];
	struct child c[STORMERS];
	struct shmk_held held;
	uint64_t seq = 0;
	int status;

	shmk_topic_writer_release(self->t);
	for (i = 0; i < STORMERS; i++) {
		st[i] = (struct storm) { .uri = self->uri, .kind = i % 4 };
		child_start(&c[i], storm_child, &st[i]);
		ASSERT_EQ(1, child_hear(&c[i]));
	}
	srand(1);
	for (; kills; kills--) {
		int64_t ret, end = watchdog();

		/* Something comes through before the next one dies. */
		do
			ret = last(self->t, &held);
		while ((ret == -EAGAIN || held.seq < seq + 10) && now_ns() < end);
		ASSERT_LE(0, ret);
		ASSERT_GT(end, now_ns());
		seq = held.seq;
		i = (uint32_t)rand() % STORMERS;
		status = child_kill(&c[i]);
		ASSERT_TRUE(WIFSIGNALED(status)) TH_LOG("child exited with %d", WEXITSTATUS(status));
		child_start(&c[i], storm_child, &st[i]);
		ASSERT_EQ(1, child_hear(&c[i]));
	}
	for (i = 0; i < STORMERS; i++) {
		status = child_kill(&c[i]);
		ASSERT_TRUE(WIFSIGNALED(status)) TH_LOG("child exited with %d", WEXITSTATUS(status));
	}
	settled(self->s);
	EXPECT_EQ(0, shmk_topic_writer(self->t, watchdog()));
	EXPECT_EQ(0, put(self->t, 1));
}

TEST_HARNESS_MAIN
