// SPDX-License-Identifier: GPL-2.0-only
/*
 * multi_test.c - messages of several parts.
 *
 * Attachments of one process are as many peers. SHMK_TEST_BACKEND=local|module,
 * SHMK_TEST_LOOPS: of the storm.
 */
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define POOL	(4 * MIB)
#define MOST	64

static struct shmk *peer(const char *uri, uint32_t nr_entries)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 32, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .nr_entries = nr_entries };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, uint32_t capacity)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = capacity };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, "q", &opts, SHMK_TRY, &q) ? NULL : q;
}

static struct shmk_pool_stat pool_stat(struct shmk *s)
{
	struct shmk_pool_stat st = { 0 };

	if (shmk_pool_stat(s, &st))
		st.blocks_used = UINT64_MAX;
	return st;
}

FIXTURE(multi)
{
	char		uri[64];
	struct shmk	*a, *b;
	struct shmk_queue *qa, *qb;
	struct shmk_msg	m[MOST + 2], got[MOST + 2], whole;
};

FIXTURE_SETUP(multi)
{
	test_uri(self->uri, "multi");
	self->a = peer(self->uri, 0);
	self->b = peer(self->uri, 0);
	ASSERT_NE(self->a, NULL);
	ASSERT_NE(self->b, NULL);
	self->qa = queue(self->a, 8);
	self->qb = queue(self->b, 8);
	ASSERT_NE(self->qa, NULL);
	ASSERT_NE(self->qb, NULL);
}

FIXTURE_TEARDOWN(multi)
{
	char report[256] = "";

	EXPECT_EQ(shmk_pool_check(self->a, report, sizeof(report)), 0) TH_LOG("%s", report);
	EXPECT_EQ(pool_stat(self->a).blocks_used, 0);
	shmk_detach(self->a);
	shmk_detach(self->b);
}

#define CHECK() do {							\
	char report_[256] = "";						\
	ASSERT_EQ(shmk_pool_check(self->a, report_, sizeof(report_)), 0)	\
		TH_LOG("%s", report_);					\
} while (0)

/* Part i is 100 * i + 1 bytes i, every third one inline. */
static size_t part_len(unsigned int i)
{
	return i % 3 == 2 ? i : 100 * (size_t)i + 1;
}

static bool make(struct shmk *s, struct shmk_msg *m, unsigned int n)
{
	unsigned char small[SHMK_INLINE_MAX];
	unsigned int i;

	for (i = 0; i < n; i++) {
		memset(small, (int)i, sizeof(small));
		if (i % 3 == 2) {
			if (shmk_msg_inline(s, small, part_len(i), &m[i]))
				return false;
			continue;
		}
		if (shmk_alloc(s, part_len(i), 0, &m[i]))
			return false;
		memset(m[i].data, (int)i, m[i].len);
	}
	return true;
}

static bool bytes_are(const void *data, size_t len, unsigned int i)
{
	const unsigned char *p = data;
	size_t at;

	for (at = 0; at < len; at++)
		if (p[at] != (unsigned char)i)
			return false;
	return len == part_len(i);
}

static bool sound(const struct shmk_msg *m, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!m[i].data || !bytes_are(m[i].data, m[i].len, i))
			return false;
	return true;
}

static void drop(struct shmk_msg *m, unsigned int n)
{
	while (n--)
		shmk_free(&m[n]);
}

TEST_F(multi, parts_come_over_as_one_in_their_order)
{
	static const unsigned int sizes[] = { 1, 2, 3, 7, MOST };
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_TRUE(make(self->a, self->m, sizes[i]));
		void *first = self->m[0].data;

		ASSERT_EQ(shmk_send_multi(self->qa, self->m, sizes[i], SHMK_TRY), 0);
		for (j = 0; j < sizes[i]; j++)
			EXPECT_EQ(self->m[j].data, NULL);
		CHECK();
		ASSERT_EQ(shmk_recv_multi(self->qb, self->got, MOST, SHMK_TRY), (int)sizes[i]);
		EXPECT_TRUE(sound(self->got, sizes[i]));
		/* no copy */
		EXPECT_EQ((unsigned char *)self->got[0].data - self->b->data,
			  (unsigned char *)first - self->a->data);
		CHECK();
		drop(self->got, sizes[i]);
		EXPECT_EQ(pool_stat(self->a).blocks_used, 0);
	}
}

TEST_F(multi, whole_is_read_in_place_forwarded_and_freed)
{
	unsigned int i;
	void *data;
	size_t len;

	ASSERT_TRUE(make(self->a, self->m, 7));
	ASSERT_EQ(shmk_msg_pack(self->m, 7, &self->whole), 0);
	EXPECT_EQ(self->whole.len, 0);
	EXPECT_EQ(shmk_msg_parts(&self->whole), 7);
	EXPECT_EQ(shmk_resize(&self->whole, 0), -EBUSY);
	ASSERT_EQ(shmk_send(self->qa, &self->whole, SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv(self->qb, &self->whole, SHMK_TRY), 0);
	EXPECT_EQ(self->whole.len, 0);
	ASSERT_EQ(shmk_send(self->qb, &self->whole, SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv(self->qa, &self->whole, SHMK_TRY), 0);
	ASSERT_EQ(shmk_msg_parts(&self->whole), 7);
	for (i = 0; i < 7; i++) {
		ASSERT_EQ(shmk_msg_part(&self->whole, i, &data, &len), 0);
		EXPECT_TRUE(bytes_are(data, len, i));
	}
	EXPECT_EQ(shmk_msg_part(&self->whole, 7, &data, &len), -ENOENT);
	CHECK();
	shmk_free(&self->whole);
}

TEST_F(multi, copy_gathers_all_parts)
{
	unsigned char buf[4096];
	size_t total = 0, at = 0;
	unsigned int i;

	for (i = 0; i < 7; i++)
		total += part_len(i);
	ASSERT_TRUE(make(self->a, self->m, 7));
	ASSERT_EQ(shmk_send_multi(self->qa, self->m, 7, SHMK_TRY), 0);
	EXPECT_EQ(shmk_recv_copy(self->qb, buf, total - 1, SHMK_TRY), -EMSGSIZE);
	ASSERT_EQ(shmk_recv_copy(self->qb, buf, total, SHMK_TRY), (int64_t)total);
	for (i = 0; i < 7; at += part_len(i++))
		EXPECT_TRUE(bytes_are(buf + at, part_len(i), i));
}

TEST_F(multi, plain_message_is_one_part)
{
	ASSERT_TRUE(make(self->a, self->m, 3));
	ASSERT_EQ(shmk_send(self->qa, &self->m[1], SHMK_TRY), 0);
	ASSERT_EQ(shmk_send(self->qa, &self->m[2], SHMK_TRY), 0);
	EXPECT_EQ(shmk_msg_parts(&self->m[0]), 0);
	ASSERT_EQ(shmk_recv_multi(self->qb, self->got, 1, SHMK_TRY), 1);
	EXPECT_TRUE(bytes_are(self->got[0].data, self->got[0].len, 1));
	shmk_free(&self->got[0]);
	ASSERT_EQ(shmk_recv_multi(self->qb, self->got, 1, SHMK_TRY), 1);
	EXPECT_TRUE(bytes_are(self->got[0].data, self->got[0].len, 2));
	EXPECT_EQ(shmk_recv_multi(self->qb, self->got, 1, SHMK_TRY), -EAGAIN);
	EXPECT_EQ(self->got[0].data, NULL);
	shmk_free(&self->m[0]);
}

TEST_F(multi, parts_may_be_shared_and_so_may_the_whole)
{
	struct shmk_msg *m = self->m, other;

	ASSERT_TRUE(make(self->a, m, 2));
	ASSERT_EQ(shmk_msg_share(&m[1], &other), 0);
	ASSERT_EQ(shmk_send_multi(self->qa, m, 2, SHMK_TRY), 0);
	EXPECT_TRUE(shmk_msg_shared(&other));
	EXPECT_EQ(shmk_msg_refs(&other), 2);
	ASSERT_EQ(shmk_recv(self->qb, &self->whole, SHMK_TRY), 0);
	/* the whole, twice: neither can be taken apart before the other is gone */
	ASSERT_EQ(shmk_msg_share(&self->whole, &m[5]), 0);
	EXPECT_EQ(shmk_msg_parts(&m[5]), 2);
	CHECK();
	EXPECT_EQ(shmk_msg_unpack(&m[5], self->got, MOST), -EBUSY);
	ASSERT_EQ(shmk_send(self->qb, &m[5], SHMK_TRY), 0);
	shmk_free(&self->whole);
	EXPECT_EQ(shmk_msg_refs(&other), 2);
	ASSERT_EQ(shmk_recv_multi(self->qa, self->got, MOST, SHMK_TRY), 2);
	EXPECT_TRUE(sound(self->got, 2));
	CHECK();
	drop(self->got, 2);
	EXPECT_FALSE(shmk_msg_shared(&other));
	shmk_free(&other);
	/* and freed with the last reference */
	ASSERT_TRUE(make(self->a, m, 2));
	ASSERT_EQ(shmk_msg_pack(m, 2, &self->whole), 0);
	ASSERT_EQ(shmk_msg_share(&self->whole, &other), 0);
	shmk_free(&self->whole);
	CHECK();
	shmk_free(&other);
}

TEST_F(multi, what_cannot_be_packed_is_refused_and_changes_nothing)
{
	struct shmk *c = peer(self->uri, 12);
	struct shmk_msg *m = self->m, no = { .data = NULL };

	EXPECT_EQ(shmk_msg_pack(m, 0, &self->whole), -EINVAL);
	ASSERT_TRUE(make(self->a, m, MOST));
	ASSERT_EQ(shmk_alloc(self->b, 1, 0, &m[MOST]), 0);
	EXPECT_EQ(shmk_msg_pack(m, MOST + 1, &self->whole), -E2BIG);
	EXPECT_EQ(self->whole.data, NULL);
	EXPECT_EQ(shmk_msg_pack(&m[MOST - 1], 2, &self->whole), -EINVAL);	/* another's */
	EXPECT_EQ(shmk_send_multi(self->qb, m, 2, SHMK_TRY), -EINVAL);
	EXPECT_EQ(shmk_msg_pack(&no, 1, &self->whole), -EINVAL);
	shmk_free(&m[MOST]);
	ASSERT_EQ(shmk_msg_pack(&m[1], 2, &m[MOST]), 0);
	EXPECT_EQ(shmk_msg_pack(&m[MOST], 1, &self->whole), -EINVAL);	/* has parts */
	ASSERT_EQ(shmk_msg_unpack(&m[MOST], &m[1], 1), -EMSGSIZE);
	ASSERT_EQ(shmk_msg_unpack(&m[MOST], &m[1], 2), 2);
	EXPECT_EQ(shmk_msg_inline(self->a, uri_parse, SHMK_INLINE_MAX + 1, &no), -EMSGSIZE);
	EXPECT_TRUE(sound(m, MOST));
	CHECK();
	/* taken apart by who has no entries for that: it stays whole */
	ASSERT_EQ(shmk_send_multi(self->qa, m, MOST, SHMK_TRY), 0);
	struct shmk_queue *qc = queue(c, 8);

	ASSERT_EQ(shmk_recv_multi(qc, self->got, MOST, SHMK_TRY), -ENOBUFS);
	EXPECT_EQ(shmk_msg_parts(&self->got[0]), MOST);
	CHECK();
	ASSERT_EQ(shmk_send(qc, &self->got[0], SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv_multi(self->qb, self->got, 2, SHMK_TRY), -EMSGSIZE);
	ASSERT_EQ(shmk_msg_unpack(&self->got[0], m, MOST), MOST);
	EXPECT_TRUE(sound(m, MOST));
	drop(m, MOST);
	shmk_detach(c);
}

TEST_F(multi, full_queue_leaves_the_parts_as_they_were)
{
	unsigned int i;

	for (i = 0; i < 8; i++)
		ASSERT_EQ(shmk_send_copy(self->qa, "x", 1, SHMK_TRY), 0);
	ASSERT_TRUE(make(self->a, self->m, 7));
	EXPECT_EQ(shmk_send_multi(self->qa, self->m, 7, SHMK_TRY), -EAGAIN);
	EXPECT_EQ(shmk_send_multi(self->qa, self->m, 7, shmk_deadline_ms(5)), -ETIMEDOUT);
	EXPECT_TRUE(sound(self->m, 7));
	EXPECT_EQ(pool_stat(self->a).blocks_used, 5);
	CHECK();
	EXPECT_EQ(shmk_resize(&self->m[1], 50), 0);
	drop(self->m, 7);
}

TEST_F(multi, removed_queue_and_detached_holder_free_all_parts)
{
	struct shmk *c = peer(self->uri, 0);
	struct shmk_queue *qc = queue(c, 8);

	ASSERT_TRUE(make(c, self->m, 7));
	ASSERT_EQ(shmk_send_multi(qc, self->m, 7, SHMK_TRY), 0);
	ASSERT_TRUE(make(c, self->m, 7));
	ASSERT_EQ(shmk_msg_pack(self->m, 7, &self->whole), 0);
	shmk_detach(c);
	EXPECT_EQ(pool_stat(self->a).blocks_used, 6);
	CHECK();
	shmk_queue_close(self->qa);
	shmk_queue_close(self->qb);
	ASSERT_EQ(shmk_queue_remove(self->a, "q"), 0);
	EXPECT_EQ(pool_stat(self->a).blocks_used, 0);
	EXPECT_EQ(pool_stat(self->a).lost_messages, 0);
}

/* Receives one of two and takes it apart, packs some of its own. */
static void holder(struct child_end *end, void *arg)
{
	static struct shmk_msg got[8], own[8], whole;
	struct shmk *s = peer(arg, 0);
	struct shmk_queue *q = queue(s, 8);

	if (shmk_recv_multi(q, got, 8, watchdog()) != 7 || shmk_recv(q, &whole, watchdog()) ||
	    !make(s, own, 7) || shmk_msg_pack(own, 7, &own[7]))
		_exit(91);
	tell(end, 1);
	pause();
}

TEST_F(multi, killed_holder_loses_one_message_for_each)
{
	struct child c;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(make(self->a, self->m, 7));
		ASSERT_EQ(shmk_send_multi(self->qa, self->m, 7, SHMK_TRY), 0);
	}
	child_start(&c, holder, self->uri);
	ASSERT_EQ(child_hear(&c), 1);
	CHECK();
	child_kill(&c);
	for (i = 0; i < 5000 && pool_stat(self->a).peers_now > 2; i++) {
		self->a->backend->reap(self->a);
		usleep(1000);
	}
	EXPECT_EQ(pool_stat(self->a).lost_messages, 2);
	EXPECT_EQ(pool_stat(self->a).blocks_used, 6);
	ASSERT_EQ(shmk_recv_multi(self->qb, self->got, MOST, SHMK_TRY), 7);
	EXPECT_TRUE(sound(self->got, 7));
	drop(self->got, 7);
}

/* From a queue that redelivers: one whole message, and is killed with it. */
static void redo_holder(struct child_end *end, void *arg)
{
	static struct shmk_msg got[8];
	struct shmk *s = peer(arg, 0);
	struct shmk_queue *q;

	if (shmk_queue_open(s, "redo", NULL, SHMK_TRY, &q) ||
	    shmk_recv_multi(q, got, 8, watchdog()) != -EBUSY || shmk_msg_parts(&got[0]) != 7)
		_exit(91);
	tell(end, 1);
	pause();
}

TEST_F(multi, whole_with_shared_parts_is_delivered_again)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER };
	struct shmk_msg other;
	struct shmk_queue *q;
	struct child c;
	unsigned int i;
	void *data;
	size_t len;

	ASSERT_EQ(shmk_queue_open(self->a, "redo", &opts, SHMK_TRY, &q), 0);
	ASSERT_TRUE(make(self->a, self->m, 7));
	ASSERT_EQ(shmk_msg_share(&self->m[1], &other), 0);
	ASSERT_EQ(shmk_send_multi(q, self->m, 7, SHMK_TRY), 0);
	child_start(&c, redo_holder, self->uri);
	ASSERT_EQ(child_hear(&c), 1);
	CHECK();
	child_kill(&c);
	ASSERT_EQ(shmk_recv(q, &self->whole, watchdog()), 0);
	EXPECT_EQ(self->whole.redelivered, 1);
	ASSERT_EQ(shmk_msg_parts(&self->whole), 7);
	for (i = 0; i < 7; i++) {
		ASSERT_EQ(shmk_msg_part(&self->whole, i, &data, &len), 0);
		EXPECT_TRUE(bytes_are(data, len, i));
	}
	EXPECT_EQ(shmk_msg_unpack(&self->whole, self->got, MOST), -EBUSY);
	EXPECT_EQ(shmk_msg_share(&self->whole, &self->got[0]), -EBUSY);
	/* sent on it is acknowledged */
	ASSERT_EQ(shmk_send(self->qa, &self->whole, SHMK_TRY), 0);
	ASSERT_EQ(shmk_recv_multi(self->qb, self->got, MOST, SHMK_TRY), 7);
	EXPECT_TRUE(sound(self->got, 7));
	drop(self->got, 7);
	EXPECT_FALSE(shmk_msg_shared(&other));
	shmk_free(&other);
	EXPECT_EQ(pool_stat(self->a).lost_messages, 0);
}

static uint32_t loops(uint32_t most)
{
	const char *s = getenv("SHMK_TEST_LOOPS");

	return s ? (uint32_t)strtoul(s, NULL, 0) : most;
}

/* Packs, sends, receives, unpacks, shares and drops at random, for ever. */
static void worker(struct child_end *end, void *arg)
{
	static struct shmk_msg m[8], got[8], other;
	struct shmk *s = peer(arg, 0);
	struct shmk_queue *q = queue(s, 8);
	unsigned int seed = (unsigned int)getpid(), n;
	int ret;

	tell(end, 1);
	for (;;) {
		n = 1 + (unsigned int)rand_r(&seed) % 7;
		if (!make(s, m, n))
			_exit(93);
		if (rand_r(&seed) % 4 == 0 && !shmk_msg_share(&m[0], &other))
			shmk_free(&other);
		if (shmk_send_multi(q, m, n, SHMK_TRY)) {
			if (!sound(m, n))
				_exit(94);
			drop(m, n);
		}
		if (rand_r(&seed) % 2)
			continue;
		ret = shmk_recv_multi(q, got, 8, SHMK_TRY);
		if (ret == -EAGAIN)
			continue;
		if (ret < 1 || !sound(got, (unsigned int)ret))
			_exit(95);
		drop(got, (unsigned int)ret);
	}
}

TEST_F(multi, processes_that_pack_and_unpack_are_killed_at_random)
{
	unsigned int i;

	ASSERT_TRUE(children_killed(self->a, worker, self->uri, loops(60), 5, 2));
	CHECK();
	while ((int)(i = (unsigned int)shmk_recv_multi(self->qb, self->got, MOST, SHMK_TRY)) > 0) {
		EXPECT_TRUE(sound(self->got, i));
		drop(self->got, i);
	}
}

TEST_HARNESS_MAIN
