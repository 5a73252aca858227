// SPDX-License-Identifier: GPL-2.0-only
/*
 * store_test.c - freed blocks that a peer keeps for its next allocations: shmk_keep(), or one unasked.
 *
 * Attachments of one process are as many peers; who dies is a child. That it may die at
 * every instruction of it is in kill_sweep.c. SHMK_TEST_BACKEND=local|module,
 * SHMK_TEST_LOOPS: of the threads.
 */
#include <pthread.h>

#include <linux/shmk.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define POOL		(16 * MIB)
#define SPAN		(64UL << 10)
#define NR_SPANS	((unsigned int)(POOL / SPAN))
#define CLASS		60000		/* a block that takes a span */

static struct shmk *peer(const char *uri, uint32_t flags)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 24, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .spin_us = -1, .flags = flags };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | flags, .capacity = 64 };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

static struct shmk_pool_stat pool_stat(struct shmk *s)
{
	struct shmk_pool_stat st = { 0 };

	if (shmk_pool_stat(s, &st))
		st.blocks_used = UINT64_MAX;
	return st;
}

static uint64_t used(struct shmk *s)
{
	return pool_stat(s).blocks_used;
}

struct spares {
	uint32_t peer;
	unsigned int nr, others;	/* blocks that are kept, those that are in use otherwise */
	uint64_t room, len;
};

static int count(const struct shmk_holding *h, void *arg)
{
	struct spares *c = arg;

	if (h->state == SHMK_HOLDING_SPAN || h->state == SHMK_HOLDING_WAITING)
		return 0;
	if (h->state != SHMK_HOLDING_SPARE || h->peer != c->peer) {
		c->others++;
		return 0;
	}
	c->nr++;
	c->room += h->room;
	c->len += h->len;
	return h->block == SHMK_NO_BLOCK || h->shared || h->queue != SHMK_HOLDING_NOWHERE;
}

static struct spares spares_of(struct shmk *s, uint32_t id)
{
	struct spares c = { .peer = id };

	if (shmk_pool_dump(s, count, &c))
		c.nr = c.others = UINT32_MAX;
	return c;
}

/* How many blocks it keeps, as the pool has it. */
static unsigned int kept(struct shmk *s)
{
	return spares_of(s, shmk_self(s)).nr;
}

static __u64 word_of(struct shmk *s, uint32_t block)
{
	return s->view.blocks[block].word;
}

static unsigned int alloc_some(struct shmk *s, size_t len, struct shmk_msg *m, unsigned int most)
{
	unsigned int n;

	for (n = 0; n < most && !shmk_alloc(s, len, 0, &m[n]); n++)
		;
	return n;
}

static void free_all(struct shmk_msg *m, unsigned int n)
{
	while (n)
		shmk_free(&m[--n]);
}

/* Can another have all there is, in one piece? */
static bool all_is_there(struct shmk *s)
{
	struct shmk_msg all;
	bool is = !shmk_alloc(s, POOL, 0, &all);

	shmk_free(&all);
	return is;
}

#define EXPECT_CLEAN(s) do {						\
	char report_[256] = "";						\
	EXPECT_EQ(0, shmk_pool_check(s, report_, sizeof(report_)))	\
		TH_LOG("%s", report_);					\
} while (0)

FIXTURE(store)
{
	char		uri[64];
	struct shmk	*s, *other;		/* who keeps, and who does not */
	struct shmk_queue *q, *oq;		/* "q" of each */
	struct shmk_msg	m[NR_SPANS];
};

typedef FIXTURE_DATA(store) store_t;

FIXTURE_SETUP(store)
{
	test_uri(self->uri, "store");
	self->s = peer(self->uri, 0);
	ASSERT_NE(NULL, self->s);
	self->other = peer(self->uri, 0);
	ASSERT_NE(NULL, self->other);
	self->q = queue(self->s, "q", 0);
	ASSERT_NE(NULL, self->q);
	self->oq = queue(self->other, "q", 0);
	ASSERT_NE(NULL, self->oq);
	ASSERT_EQ(0, shmk_keep(self->s, MIB));
}

/* The module may leave the rest to a worker, or find a large block's pages still referred to. */
static uint64_t used_at_last(struct shmk *s)
{
	const int64_t until = now_ns() + WATCHDOG_MS * 1000000LL;

	while (used(s) && now_ns() < until)
		usleep(1000);
	return used(s);
}

FIXTURE_TEARDOWN(store)
{
	EXPECT_CLEAN(self->other);
	shmk_detach(self->s);
	EXPECT_EQ(0, used_at_last(self->other));
	EXPECT_TRUE(all_is_there(self->other));
	EXPECT_CLEAN(self->other);
	shmk_detach(self->other);
	shmk_pool_destroy(self->uri);
	EXPECT_EQ(0, pool_mappings());
}

/* ------------------------------------------------------- keep and take -- */

TEST_F(store, who_frees_once_keeps_nothing_unasked)
{
	ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, &self->m[0]));
	shmk_free(&self->m[0]);
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, a_freed_block_is_the_next_of_its_class)
{
	struct shmk_msg *a = &self->m[0], *b = &self->m[1];
	uint32_t block, gen;
	void *data;
	__u64 word;

	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, a));
	block = a->block;
	gen = a->gen;
	data = a->data;
	word = word_of(self->s, block);
	shmk_free(a);
	EXPECT_EQ(NULL, a->data);
	EXPECT_EQ(1, kept(self->s));
	EXPECT_EQ(word, word_of(self->s, block));
	ASSERT_EQ(0, shmk_alloc(self->s, 900, 0, b));
	EXPECT_EQ(block, b->block);
	EXPECT_EQ(gen, b->gen);
	EXPECT_EQ(data, b->data);
	EXPECT_EQ(900, b->len);
	EXPECT_EQ(1024, b->room);
	EXPECT_EQ(word, word_of(self->s, block));
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(1, used(self->s));
	shmk_free(b);
}

TEST_F(store, another_class_or_a_larger_alignment_leaves_it_alone)
{
	static const struct { size_t len, align; } others[] = {
		{ 100, 0 }, { 300, 0 }, { 1025, 0 }, { 5000, 0 }, { CLASS, 0 }, { MIB, 0 },
		{ 1000, 2048 }, { 1000, 4096 },
	};
	uint32_t block, gen;
	unsigned int i;

	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, &self->m[0]));
	block = self->m[0].block;
	gen = self->m[0].gen;
	shmk_free(&self->m[0]);
	for (i = 0; i < ARRAY_SIZE(others); i++) {
		ASSERT_EQ(0, shmk_alloc(self->s, others[i].len, others[i].align, &self->m[i]));
		EXPECT_NE(block, self->m[i].block) TH_LOG("length %zu", others[i].len);
		EXPECT_LE(others[i].len, self->m[i].room);
		EXPECT_EQ(0, (uintptr_t)self->m[i].data & (others[i].align - !!others[i].align));
	}
	EXPECT_EQ(1, kept(self->s));
	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 1024, &self->m[i]));
	EXPECT_EQ(block, self->m[i].block);
	EXPECT_EQ(gen, self->m[i].gen);
	free_all(self->m, i + 1);
}

TEST_F(store, what_was_freed_last_comes_first)
{
	uint32_t block[4];
	unsigned int i;

	ASSERT_EQ(4, alloc_some(self->s, 1000, self->m, 4));
	for (i = 0; i < 4; i++) {
		block[i] = self->m[i].block;
		shmk_free(&self->m[i]);
	}
	EXPECT_EQ(4, kept(self->s));
	for (i = 4; i--;) {
		ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, &self->m[i]));
		EXPECT_EQ(block[i], self->m[i].block);
	}
	free_all(self->m, 4);
}

TEST_F(store, runs_are_kept_and_matched_by_their_size)
{
	struct shmk_msg *a = &self->m[0], *b = &self->m[1];
	uint32_t block;

	ASSERT_EQ(0, shmk_keep(self->s, 2 * MIB));
	ASSERT_EQ(0, shmk_alloc(self->s, MIB, 0, a));
	block = a->block;
	shmk_free(a);
	EXPECT_EQ(1, kept(self->s));
	EXPECT_EQ(MIB, spares_of(self->s, shmk_self(self->s)).room);
	ASSERT_EQ(0, shmk_alloc(self->s, MIB + 1, 0, a));
	EXPECT_NE(block, a->block);
	ASSERT_EQ(0, shmk_alloc(self->s, 10 * SPAN, 0, b));
	EXPECT_NE(block, b->block);
	shmk_free(b);
	shmk_free(a);
	ASSERT_EQ(0, shmk_keep(self->s, 0));
	ASSERT_EQ(0, shmk_keep(self->s, MIB));
	ASSERT_EQ(0, shmk_alloc(self->s, MIB, 0, a));
	block = a->block;
	shmk_free(a);
	/* A quarter more than asked for is near enough, as it is for a run that was not kept. */
	ASSERT_EQ(0, shmk_alloc(self->s, 13 * SPAN, 4096, a));
	EXPECT_EQ(block, a->block);
	EXPECT_EQ(MIB, a->room);
	memset(a->data, 1, a->room);
	shmk_free(a);
	ASSERT_EQ(0, shmk_alloc(self->s, 12 * SPAN, 0, a));
	EXPECT_NE(block, a->block);
	shmk_free(a);
}

TEST_F(store, what_is_kept_is_told_and_nothing_is_wrong_with_it)
{
	struct spares c;

	ASSERT_EQ(0, shmk_alloc(self->other, 700, 0, &self->m[0]));
	ASSERT_EQ(0, shmk_send(self->oq, &self->m[0], SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->q, &self->m[0], SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(self->s, 5000, 0, &self->m[1]));
	free_all(self->m, 2);
	ASSERT_EQ(0, shmk_alloc(self->s, 10000, 0, &self->m[2]));
	EXPECT_CLEAN(self->other);
	c = spares_of(self->other, shmk_self(self->s));
	EXPECT_EQ(2, c.nr);
	EXPECT_EQ(1, c.others);
	EXPECT_LE(5700, c.room);
	EXPECT_EQ(0, c.len);
	EXPECT_EQ(3, used(self->other));
	shmk_free(&self->m[2]);
}

TEST_F(store, a_capsule_tells_it_too)
{
	struct shmk_capsule c = { .size = sizeof(c), .nr_entries = 2, .peer = 3, .gen = 7 };
	struct shmk_holding h;

	c.entry[0].what = c.entry[1].what = SHMK_WHAT(SHMK_OP_HELD, 5, 9);
	c.entry[0].where = SHMK_WHERE(SHMK_QUEUE_NOWHERE, SHMK_POS_KEPT);
	c.entry[1].where = SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0);
	ASSERT_EQ(0, shmk_capsule_holding(self->s, &c, 0, &h));
	EXPECT_EQ(SHMK_HOLDING_SPARE, h.state);
	EXPECT_EQ(5, h.block);
	EXPECT_EQ(5 << 8, h.offset);
	EXPECT_EQ(SHMK_HOLDING_NOWHERE, h.queue);
	ASSERT_EQ(0, shmk_capsule_holding(self->s, &c, 1, &h));
	EXPECT_EQ(SHMK_HOLDING_HELD, h.state);
	EXPECT_EQ(5, h.block);
}

/* ------------------------------------------------------------ messages -- */

/* The answer goes in the block that the question came in. */
TEST_F(store, a_received_block_is_kept_and_sent_on)
{
	struct shmk_queue *back = queue(self->s, "back", 0), *oback = queue(self->other, "back", 0);
	struct shmk_msg *m = &self->m[0];
	uint32_t block, i;
	__u64 word;

	ASSERT_NE(NULL, oback);
	ASSERT_EQ(0, shmk_keep(self->other, 0));
	for (i = 0; i < 300; i++) {
		ASSERT_EQ(0, shmk_alloc(self->other, 700, 0, m));
		memset(m->data, (int)i, 700);
		ASSERT_EQ(0, shmk_send(self->oq, m, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(self->q, m, SHMK_TRY));
		block = m->block;
		word = word_of(self->s, block);
		shmk_free(m);
		ASSERT_EQ(1, kept(self->s));
		ASSERT_EQ(0, shmk_alloc(self->s, 600, 0, m));
		ASSERT_EQ(block, m->block);
		ASSERT_EQ(word, word_of(self->s, block));
		EXPECT_LE(700, m->room);
		memset(m->data, (int)~i, 600);
		ASSERT_EQ(0, shmk_send(back, m, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(oback, m, SHMK_TRY));
		EXPECT_EQ(block, m->block);
		EXPECT_EQ(600, m->len);
		EXPECT_EQ((unsigned char)~i, ((unsigned char *)m->data)[599]);
		shmk_free(m);
		ASSERT_EQ(0, used(self->s));
	}
	EXPECT_EQ(0, pool_stat(self->s).lost_messages);
}

TEST_F(store, what_waits_for_its_acknowledgement_is_not_kept)
{
	struct shmk_queue *r = queue(self->s, "r", SHMK_QUEUE_REDELIVER);
	struct shmk_msg *m = &self->m[0];

	ASSERT_NE(NULL, r);
	ASSERT_EQ(0, shmk_alloc(self->s, 700, 0, m));
	ASSERT_EQ(0, shmk_send(r, m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(r, m, SHMK_TRY));
	shmk_free(m);
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, references_are_not_kept_and_what_is_whole_again_is)
{
	struct shmk_msg *a = &self->m[0], *b = &self->m[1];
	uint32_t root;

	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, a));
	root = a->block;
	ASSERT_EQ(0, shmk_msg_share(a, b));
	shmk_free(a);
	EXPECT_EQ(0, kept(self->s));
	shmk_free(b);
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(0, used(self->s));

	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, a));
	root = a->block;
	ASSERT_EQ(0, shmk_msg_share(a, b));
	shmk_free(a);
	ASSERT_EQ(0, shmk_resize(b, 900));
	EXPECT_EQ(root, b->block);
	shmk_free(b);
	EXPECT_EQ(1, kept(self->s));
	EXPECT_EQ(1, used(self->s));
	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, a));
	EXPECT_EQ(root, a->block);
	/* And once more in pieces. */
	ASSERT_EQ(0, shmk_msg_share(a, b));
	EXPECT_CLEAN(self->other);
	shmk_free(b);
	shmk_free(a);
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, envelopes_are_not_kept_and_their_parts_are)
{
	struct shmk_msg *m = self->m, whole = { };

	ASSERT_EQ(2, alloc_some(self->s, 1000, m, 2));
	ASSERT_EQ(0, shmk_msg_pack(m, 2, &whole));
	shmk_free(&whole);
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(0, used(self->s));

	/* In an envelope that was kept before, over the queue and back. */
	ASSERT_EQ(0, shmk_alloc(self->s, 3 * 256, 0, m));
	shmk_free(m);
	ASSERT_EQ(2, alloc_some(self->s, 2000, m, 2));
	ASSERT_EQ(0, shmk_msg_pack(m, 2, &whole));
	EXPECT_EQ(0, kept(self->s));
	ASSERT_EQ(0, shmk_send(self->q, &whole, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->q, &whole, SHMK_TRY));
	ASSERT_EQ(2, shmk_msg_unpack(&whole, m, 2));
	EXPECT_EQ(0, kept(self->s));
	free_all(m, 2);
	EXPECT_EQ(2, kept(self->s));
	EXPECT_EQ(2, used(self->s));
	EXPECT_EQ(0, pool_stat(self->s).lost_messages);
}

TEST_F(store, a_pointer_into_what_is_kept_is_efault)
{
	struct shmk_msg *m = &self->m[0];
	void *data;

	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, m));
	data = m->data;
	shmk_free(m);
	ASSERT_EQ(1, kept(self->s));
	EXPECT_EQ(-EFAULT, shmk_send_ptr(self->q, data, 1000, SHMK_TRY));
	EXPECT_EQ(1, kept(self->s));
	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, m));
	ASSERT_EQ(data, m->data);
	EXPECT_EQ(0, shmk_send_ptr(self->q, data, 1000, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->oq, m, SHMK_TRY));
	EXPECT_EQ(1000, m->len);
	shmk_free(m);
}

/* ------------------------------------------------------ one, unasked -- */

/* Allocates and frees in turn. */
static bool turns(struct shmk *s, size_t len, unsigned int nr)
{
	struct shmk_msg m;

	while (nr--) {
		if (shmk_alloc(s, len, 0, &m))
			return false;
		shmk_free(&m);
	}
	return true;
}

/* @s keeps one of @len bytes now. */
#define EXPECT_HABIT(s, len) do {					\
	EXPECT_TRUE(turns(s, len, STORE_TURNS + 1));			\
	EXPECT_EQ(1, kept(s));						\
} while (0)

TEST_F(store, who_frees_and_allocates_in_turn_keeps_one_unasked)
{
	struct shmk_msg *m = self->m;
	uint32_t block, gen;

	ASSERT_TRUE(turns(self->other, 1000, 16));
	EXPECT_EQ(0, kept(self->other));
	ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, m));
	block = m->block;
	gen = m->gen;
	shmk_free(m);
	EXPECT_EQ(1, kept(self->other));
	EXPECT_EQ(1, used(self->s));
	ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, m));
	EXPECT_EQ(block, m->block);
	EXPECT_EQ(gen, m->gen);
	EXPECT_EQ(0, kept(self->other));
	shmk_free(m);
	EXPECT_EQ(1, kept(self->other));
	EXPECT_CLEAN(self->s);
}

TEST_F(store, who_answers_keeps_what_it_received)
{
	struct shmk_queue *back = queue(self->s, "back", 0), *oback = queue(self->other, "back", 0);
	struct shmk_msg *m = self->m, answer;
	uint32_t block = SHMK_NO_BLOCK;
	unsigned int i;

	ASSERT_EQ(0, shmk_keep(self->s, 0));
	for (i = 0; i < STORE_TURNS + 2; i++) {
		ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, m));
		block = m->block;
		ASSERT_EQ(0, shmk_send(self->q, m, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(self->oq, m, SHMK_TRY));
		shmk_free(m);
		ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, &answer));
		ASSERT_EQ(0, shmk_send(oback, &answer, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(back, m, SHMK_TRY));
		EXPECT_EQ(i >= STORE_TURNS, block == m->block);
		shmk_free(m);
	}
	EXPECT_EQ(0, used(self->s));
	shmk_queue_close(back);
	shmk_queue_close(oback);
}

/* Who only frees, or only allocates, or many of each, has no use for it. */
TEST_F(store, two_in_a_row_end_it)
{
	EXPECT_HABIT(self->other, 1000);
	ASSERT_EQ(2, alloc_some(self->other, 1000, self->m, 2));
	EXPECT_EQ(2, used(self->s));
	free_all(self->m, 2);
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, used(self->s));
	ASSERT_TRUE(turns(self->other, 1000, STORE_TURNS - 1));
	EXPECT_EQ(0, used(self->s));
	EXPECT_HABIT(self->other, 1000);
	/* What is kept goes with the second that is freed, not only that one. */
	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, self->m));
	ASSERT_EQ(0, shmk_send(self->q, self->m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->oq, self->m, SHMK_TRY));
	shmk_free(self->m);
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, used(self->s));
}

/* Half of what it allocates goes to others. */
TEST_F(store, two_allocated_in_a_row_are_no_turn)
{
	struct shmk_msg *m = self->m;
	unsigned int i;

	ASSERT_EQ(0, shmk_keep(self->s, 0));
	for (i = 0; i < 3 * STORE_TURNS; i++) {
		ASSERT_EQ(2, alloc_some(self->other, 1000, m, 2));
		ASSERT_EQ(0, shmk_send(self->oq, &m[1], SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(self->q, &m[1], SHMK_TRY));
		free_all(m, 2);
		EXPECT_EQ(0, kept(self->other));
	}
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, another_class_ends_it)
{
	EXPECT_HABIT(self->other, 1000);
	ASSERT_EQ(0, shmk_alloc(self->other, 5000, 0, self->m));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(1, used(self->s));
	shmk_free(self->m);
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, whoever_says_how_much_gets_that)
{
	EXPECT_HABIT(self->other, 1000);
	EXPECT_EQ(0, shmk_keep(self->other, 0));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_TRUE(turns(self->other, 1000, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, used(self->s));
}

/* If all did, a quarter of the pool: 2 MiB for each of two, 170 KiB for each of 24. */
TEST_F(store, what_is_kept_unasked_is_a_part_of_the_pool)
{
	struct shmk *more[22];
	unsigned int i, nr;

	EXPECT_TRUE(turns(self->other, 40 * SPAN, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_HABIT(self->other, 32 * SPAN);
	EXPECT_EQ(POOL / 4 / 2, spares_of(self->s, shmk_self(self->other)).room);
	for (nr = 0; nr < ARRAY_SIZE(more); nr++) {
		more[nr] = peer(self->uri, 0);
		ASSERT_NE(NULL, more[nr]);
	}
	EXPECT_TRUE(turns(self->other, 32 * SPAN, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_TRUE(turns(self->other, 3 * SPAN, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_HABIT(self->other, 2 * SPAN);
	for (i = 0; i < nr; i++)
		shmk_detach(more[i]);
}

/* With a small block the whole span is lost to others: of 16 spans there may be four. */
TEST(of_small_blocks_the_spans_are_counted)
{
	struct shmk_pool_opts pool = { .bytes = MIB, .nr_peers = 8, .nr_queues = 4 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s[5];
	unsigned int i;
	char uri[64];

	test_uri(uri, "small");
	for (i = 0; i < ARRAY_SIZE(s); i++)
		ASSERT_EQ(0, shmk_attach(uri, &opts, &s[i]));
	EXPECT_TRUE(turns(s[0], 100, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(s[0]));
	shmk_detach(s[4]);
	EXPECT_HABIT(s[0], 100);
	for (i = 0; i < ARRAY_SIZE(s) - 1; i++)
		shmk_detach(s[i]);
	shmk_pool_destroy(uri);
}

/* Or a program that counts what it has not freed would find what it has. */
TEST_F(store, who_looks_at_the_pool_keeps_nothing_unasked)
{
	EXPECT_HABIT(self->other, 1000);
	EXPECT_EQ(0, used(self->other));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, pool_stat(self->s).bytes_used);
	ASSERT_TRUE(turns(self->s, 1000, 1));
	EXPECT_EQ(1, used(self->s));
}

TEST_F(store, who_sleeps_between_its_turns_keeps_nothing_unasked)
{
	unsigned int i;

	for (i = 0; i < 3 * STORE_TURNS; i++) {
		ASSERT_TRUE(turns(self->other, 1000, 1));
		EXPECT_EQ(0, kept(self->other));
		if (i % (STORE_TURNS / 2) == 0)
			EXPECT_EQ(-ETIMEDOUT, shmk_recv(self->oq, self->m, a_sleep()));
	}
	EXPECT_HABIT(self->other, 1000);
	EXPECT_EQ(-ETIMEDOUT, shmk_recv(self->oq, self->m, a_sleep()));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, used(self->s));
}

/* It sleeps where the library does not see it. */
TEST_F(store, who_waits_by_an_fd_keeps_nothing_unasked)
{
	EXPECT_HABIT(self->other, 1000);
	ASSERT_LE(0, shmk_queue_fd(self->oq, SHMK_RECV));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_TRUE(turns(self->other, 1000, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, used(self->s));
	/* Whoever asks for it can have it all the same. */
	EXPECT_EQ(0, shmk_keep(self->other, 4096));
	EXPECT_TRUE(turns(self->other, 1000, 1));
	EXPECT_EQ(1, kept(self->other));
	EXPECT_EQ(0, shmk_keep(self->other, 0));
}

TEST_F(store, who_waits_by_a_pollers_fd_keeps_nothing_unasked)
{
	struct shmk_poller *p;
	struct shmk_ready ready;

	ASSERT_EQ(0, shmk_poller_open(self->other, &p));
	ASSERT_EQ(0, shmk_poller_add(p, self->oq, SHMK_RECV, NULL));
	EXPECT_HABIT(self->other, 1000);
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(p, &ready, 1, SHMK_TRY));
	EXPECT_EQ(1, kept(self->other));
	ASSERT_LE(0, shmk_poller_fd(p));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_TRUE(turns(self->other, 1000, 3 * STORE_TURNS));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(0, shmk_keep(self->other, 4096));
	EXPECT_TRUE(turns(self->other, 1000, 1));
	EXPECT_EQ(1, kept(self->other));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(p, &ready, 1, SHMK_TRY));
	EXPECT_EQ(0, kept(self->other));
	shmk_poller_close(p);
}

/* Not while there is something to do. */
TEST_F(store, what_was_asked_for_goes_when_an_fd_is_to_be_waited_for)
{
	ASSERT_LE(0, shmk_queue_fd(self->q, SHMK_RECV));
	ASSERT_TRUE(turns(self->s, 1000, 1));
	ASSERT_EQ(0, shmk_send_copy(self->oq, "text", 4, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->q, self->m, SHMK_TRY));
	EXPECT_EQ(1, kept(self->s));
	/* It comes just when nothing was there. */
	ASSERT_EQ(0, shmk_send_copy(self->oq, "text", 4, SHMK_TRY));
	EXPECT_EQ(0, wait_arm(self->q, SHMK_SIDE_RECV));
	EXPECT_EQ(1, kept(self->s));
	ASSERT_EQ(0, shmk_recv(self->q, self->m, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_recv(self->q, self->m, SHMK_TRY));
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, what_was_kept_unasked_is_the_first_that_was_asked_for)
{
	uint32_t block;

	EXPECT_HABIT(self->other, 1000);
	EXPECT_EQ(0, shmk_keep(self->other, 4096));
	EXPECT_EQ(1, kept(self->other));
	ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, self->m));
	block = self->m->block;
	shmk_free(self->m);
	EXPECT_EQ(1, kept(self->other));
	EXPECT_EQ(0, shmk_keep(self->other, 1000));
	EXPECT_EQ(0, kept(self->other));
	EXPECT_EQ(SHMK_BLOCK_FREE, SHMK_BLOCK_STATE(word_of(self->s, block)));
}

TEST_F(store, a_reference_is_not_kept_unasked)
{
	struct shmk_msg *m = self->m;
	unsigned int i;

	for (i = 0; i < 3 * STORE_TURNS; i++) {
		ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, &m[0]));
		ASSERT_EQ(0, shmk_msg_share(&m[0], &m[1]));
		ASSERT_EQ(0, shmk_send(self->oq, &m[1], SHMK_TRY));
		shmk_free(&m[0]);
		EXPECT_EQ(0, kept(self->other));
		ASSERT_EQ(0, shmk_recv(self->q, &m[1], SHMK_TRY));
		shmk_free(&m[1]);
	}
	ASSERT_EQ(0, shmk_keep(self->s, 0));
	EXPECT_EQ(0, used(self->s));
}

TEST_F(store, others_get_all_but_the_one_kept_unasked)
{
	EXPECT_HABIT(self->other, 1000);
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->s, POOL, 0, self->m));
	ASSERT_EQ(0, shmk_alloc(self->s, POOL - SPAN, 0, self->m));
	shmk_free(self->m);
	ASSERT_EQ(0, shmk_keep(self->s, 0));
}

/* What a program has freed is not what it leaves behind. */
TEST_F(store, a_clean_end_gives_nothing_back)
{
	const uint64_t reclaimed = pool_stat(self->s).reclaimed_blocks;
	struct shmk *third = peer(self->uri, 0);
	int64_t end = watchdog();

	ASSERT_NE(NULL, third);
	EXPECT_HABIT(third, 1000);
	shmk_detach(third);
	third = peer(self->uri, 0);
	ASSERT_NE(NULL, third);
	ASSERT_EQ(0, shmk_keep(third, MIB));
	ASSERT_TRUE(turns(third, 1000, 1));
	shmk_detach(third);
	while (pool_stat(self->s).peers_now != 2 && now_ns() < end)
		usleep(1000);
	EXPECT_EQ(0, used(self->s));
	EXPECT_EQ(reclaimed, pool_stat(self->s).reclaimed_blocks);
}

/* -------------------------------------------------------------- limits -- */

TEST_F(store, no_more_than_so_many_bytes)
{
	ASSERT_EQ(0, shmk_keep(self->s, 4 * 1024 + 1000));
	ASSERT_EQ(7, alloc_some(self->s, 1000, self->m, 7));
	free_all(self->m, 7);
	EXPECT_EQ(4, kept(self->s));
	EXPECT_EQ(4, used(self->s));
	/* One that is too large alone; and what is there stays. */
	ASSERT_EQ(0, shmk_alloc(self->s, 9000, 0, &self->m[0]));
	shmk_free(&self->m[0]);
	EXPECT_EQ(4, kept(self->s));
	EXPECT_EQ(4, used(self->s));
	/* Room is what counts: a small one still fits. */
	ASSERT_EQ(0, shmk_alloc(self->s, 100, 0, &self->m[0]));
	shmk_free(&self->m[0]);
	EXPECT_EQ(5, kept(self->s));
}

TEST_F(store, what_was_taken_makes_room)
{
	unsigned int i;

	ASSERT_EQ(0, shmk_keep(self->s, 2048));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(2, alloc_some(self->s, 1000, self->m, 2));
		free_all(self->m, 2);
		ASSERT_EQ(2, kept(self->s)) TH_LOG("round %u", i);
	}
}

TEST_F(store, no_more_than_32_blocks)
{
	ASSERT_EQ(40, alloc_some(self->s, 100, self->m, 40));
	free_all(self->m, 40);
	EXPECT_EQ(NR_KEPT, kept(self->s));
	EXPECT_EQ(32, used(self->s));
	ASSERT_EQ(40, alloc_some(self->s, 100, self->m, 40));
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(40, used(self->s));
	free_all(self->m, 40);
}

TEST_F(store, to_keep_less_gives_back)
{
	ASSERT_EQ(4, alloc_some(self->s, 1000, self->m, 4));
	free_all(self->m, 4);
	ASSERT_EQ(4, kept(self->s));
	EXPECT_EQ(0, shmk_keep(self->s, 4096));
	EXPECT_EQ(4, kept(self->s));
	EXPECT_EQ(0, shmk_keep(self->s, 3000));
	EXPECT_GE(2, kept(self->s));
	EXPECT_EQ(kept(self->s), used(self->s));
	ASSERT_EQ(4, alloc_some(self->s, 1000, self->m, 4));
	free_all(self->m, 4);
	EXPECT_EQ(2, kept(self->s));
	EXPECT_EQ(0, shmk_keep(self->s, 0));
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(0, used(self->s));
	ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, &self->m[0]));
	shmk_free(&self->m[0]);
	EXPECT_EQ(0, used(self->s));
	/* More than there is, is all there is. */
	EXPECT_EQ(0, shmk_keep(self->s, SIZE_MAX));
	ASSERT_EQ(0, shmk_alloc(self->s, POOL, 0, &self->m[0]));
	shmk_free(&self->m[0]);
	EXPECT_EQ(1, kept(self->s));
}

/* Who was robbed of an empty span does not know it until it looks. */
TEST_F(store, a_block_of_a_span_that_a_thief_cut_anew_has_its_own_room)
{
	struct shmk_msg *a = &self->m[0], *b = &self->m[1];
	uint32_t span;

	ASSERT_EQ(0, shmk_keep(self->s, 0));
	ASSERT_EQ(0, shmk_alloc(self->s, 30000, 0, a));
	span = a->block / SHMK_SPAN_UNITS;
	shmk_free(a);
	ASSERT_EQ(0, shmk_alloc(self->other, POOL, 0, b));
	shmk_free(b);
	ASSERT_EQ(0, shmk_alloc(self->other, 100, 0, b));
	ASSERT_EQ(span, b->block / SHMK_SPAN_UNITS);
	ASSERT_EQ(0, shmk_send(self->oq, b, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->q, a, SHMK_TRY));
	ASSERT_EQ(0, shmk_keep(self->s, MIB));
	shmk_free(a);
	EXPECT_EQ(256, spares_of(self->s, shmk_self(self->s)).room);
	ASSERT_EQ(0, shmk_alloc(self->s, 30000, 0, a));
	EXPECT_NE(span, a->block / SHMK_SPAN_UNITS);
	shmk_free(a);
}

TEST_F(store, read_only_member_keeps_nothing)
{
	struct shmk *ro = peer(self->uri, SHMK_ATTACH_RDONLY);

	ASSERT_NE(NULL, ro);
	EXPECT_EQ(-EROFS, shmk_keep(ro, 4096));
	EXPECT_EQ(-EROFS, shmk_keep(ro, 0));
	shmk_detach(ro);
}

/* ---------------------------------------------------- what others need -- */

/* Something that sleeps a little. */
struct nap {
	const char *name;
	int (*sleep)(store_t *self, int64_t deadline);
};

static int in_recv(store_t *self, int64_t deadline)
{
	struct shmk_msg m = { };

	return shmk_recv(self->q, &m, deadline);
}

static int in_send(store_t *self, int64_t deadline)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 2 };
	struct shmk_queue *q;
	int ret = shmk_queue_open(self->s, "full", &opts, SHMK_TRY, &q);

	while (!ret)
		ret = shmk_send_copy(q, "full", 4, deadline);
	shmk_queue_close(q);
	return ret;
}

static int in_poller(store_t *self, int64_t deadline)
{
	struct shmk_ready ready;
	struct shmk_poller *p;
	int ret = shmk_poller_open(self->s, &p);

	if (!ret)
		ret = shmk_poller_add(p, self->q, SHMK_RECV, NULL);
	if (!ret)
		ret = shmk_poller_wait(p, &ready, 1, deadline);
	shmk_poller_close(p);
	return ret;
}

static int for_memory(store_t *self, int64_t deadline)
{
	struct shmk_msg m;
	int ret = shmk_alloc(self->other, 2 * SPAN, 0, &self->m[0]);

	return ret ? ret : shmk_alloc_wait(self->s, POOL - SPAN, 0, &m, deadline);
}

static int for_peers(store_t *self, int64_t deadline)
{
	return shmk_wait_peers(self->s, 20, deadline);
}

static int for_a_queue(store_t *self, int64_t deadline)
{
	struct shmk_queue *q;

	return shmk_queue_open(self->s, "none", NULL, deadline, &q);
}

/*
 * A deadline that is over before the sleep begins, as on a busy machine, gives nothing back:
 * so longer ones, until there was time to sleep.
 */
static int nap_some(store_t *self, const struct nap *nap)
{
	int64_t ms = 5;
	int ret;

	do {
		ret = nap->sleep(self, shmk_deadline_ms(ms));
		shmk_free(&self->m[0]);
		ms *= 4;
	} while (ret == -ETIMEDOUT && kept(self->s) && ms < WATCHDOG_MS);
	return ret;
}

TEST_F(store, who_sleeps_gives_all_back)
{
	static const struct nap naps[] = {
		{ "recv", in_recv }, { "send", in_send }, { "poller", in_poller },
		{ "alloc", for_memory }, { "peers", for_peers }, { "queue", for_a_queue },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(naps); i++) {
		ASSERT_EQ(20, alloc_some(self->s, 1000, self->m, 20));
		free_all(self->m, 20);
		ASSERT_EQ(20, kept(self->s));
		ASSERT_FALSE(all_is_there(self->other));
		EXPECT_EQ(-EAGAIN, in_recv(self, SHMK_TRY));
		EXPECT_EQ(20, kept(self->s));
		EXPECT_EQ(-ETIMEDOUT, nap_some(self, &naps[i])) TH_LOG("%s", naps[i].name);
		EXPECT_EQ(0, kept(self->s)) TH_LOG("%s", naps[i].name);
		EXPECT_TRUE(all_is_there(self->other)) TH_LOG("%s", naps[i].name);
	}
}

/* Others may need it for as long as the sleep lasts, and not just after it. */
static void *sleeper(void *arg)
{
	store_t *self = arg;
	struct shmk_msg m = { };

	if (!shmk_recv(self->q, &m, watchdog()))
		shmk_free(&m);
	return NULL;
}

TEST_F(store, others_have_it_while_the_keeper_sleeps)
{
	struct shmk_msg all = { };
	pthread_t thread;

	ASSERT_EQ(8, alloc_some(self->s, CLASS, self->m, 8));
	free_all(self->m, 8);
	ASSERT_EQ(8, kept(self->s));
	ASSERT_EQ(0, pthread_create(&thread, NULL, sleeper, self));
	EXPECT_EQ(0, shmk_alloc_wait(self->other, POOL, 0, &all, watchdog()));
	shmk_free(&all);
	EXPECT_EQ(0, shmk_send_copy(self->oq, "awake", 5, watchdog()));
	pthread_join(thread, NULL);
}

TEST_F(store, detach_gives_all_back)
{
	struct shmk *third = peer(self->uri, 0);

	ASSERT_NE(NULL, third);
	ASSERT_EQ(0, shmk_keep(third, MIB));
	ASSERT_EQ(5, alloc_some(third, 1000, self->m, 5));
	free_all(self->m, 5);
	EXPECT_EQ(5, used(self->s));
	shmk_detach(third);
	EXPECT_EQ(0, used_at_last(self->s));
	EXPECT_EQ(0, pool_stat(self->s).lost_messages);
}

/* ------------------------------------------------------- the own needs -- */

TEST_F(store, memory_for_another_class_is_not_wanting)
{
	static const size_t lens[] = { 100, 5000, 30000, 2 * SPAN };
	unsigned int i, n;
	struct shmk_msg m;

	ASSERT_EQ(0, shmk_keep(self->s, POOL));
	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		n = alloc_some(self->s, CLASS, self->m, NR_SPANS);
		ASSERT_EQ(NR_SPANS, n);
		free_all(self->m + n - 32, 32);
		ASSERT_EQ(32, kept(self->s));
		EXPECT_EQ(0, shmk_alloc(self->s, lens[i], 0, &m)) TH_LOG("length %zu", lens[i]);
		EXPECT_EQ(0, kept(self->s));
		shmk_free(&m);
		free_all(self->m, n - 32);
		ASSERT_EQ(0, shmk_keep(self->s, 0));
		ASSERT_EQ(0, shmk_keep(self->s, POOL));
	}
}

/* Sharing takes two small blocks, by a way of its own. */
TEST_F(store, memory_to_share_is_not_wanting)
{
	unsigned int n;
	struct shmk_msg ref = { };

	ASSERT_EQ(0, shmk_keep(self->s, POOL));
	n = alloc_some(self->s, CLASS, self->m, NR_SPANS);
	ASSERT_EQ(NR_SPANS, n);
	shmk_free(&self->m[n - 1]);
	ASSERT_EQ(1, kept(self->s));
	EXPECT_EQ(0, shmk_msg_share(&self->m[0], &ref));
	EXPECT_CLEAN(self->other);
	shmk_free(&ref);
	free_all(self->m, n - 1);
}

#define ENTRIES	16

/* @n of others' blocks in our hands: no span of our own is in our ledger for them. */
static unsigned int receive(store_t *self, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (shmk_alloc(self->other, 1000, 0, &self->m[i]) ||
		    shmk_send(self->oq, &self->m[i], SHMK_TRY))
			return 0;
	for (i = 0; i < n && !shmk_recv(self->q, &self->m[i], SHMK_TRY); i++)
		;
	return i;
}

/* A small ledger, and a block is kept for each of its entries. Returns what it was. */
static uint32_t fill_ledger(store_t *self)
{
	uint32_t was = self->s->nr_entries;

	self->s->nr_entries = ENTRIES;	/* whatever the backend made of it */
	free_all(self->m, receive(self, ENTRIES));
	return kept(self->s) == ENTRIES ? was : 0;
}

TEST_F(store, entries_to_receive_are_not_wanting)
{
	uint32_t was = fill_ledger(self);
	struct shmk_msg m;

	ASSERT_NE(0, was);
	EXPECT_EQ(ENTRIES, receive(self, ENTRIES));
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(-ENOBUFS, shmk_alloc(self->s, 1000, 0, &m));
	EXPECT_CLEAN(self->other);
	free_all(self->m, ENTRIES);
	EXPECT_EQ(0, shmk_alloc(self->s, 5000, 0, &m));
	shmk_free(&m);
	self->s->nr_entries = was;
}

TEST_F(store, entries_to_send_a_short_message_are_not_wanting)
{
	uint32_t was = fill_ledger(self);
	struct shmk_msg m;

	ASSERT_NE(0, was);
	EXPECT_EQ(0, shmk_send_copy(self->q, "short", 5, SHMK_TRY));
	EXPECT_EQ(0, shmk_recv(self->oq, &m, SHMK_TRY));
	shmk_free(&m);
	self->s->nr_entries = was;
}

/* A subscription wants several in a row. */
TEST_F(store, entries_to_subscribe_are_not_wanting)
{
	struct shmk_topic_opts opts = {
		.flags = SHMK_QUEUE_CREATE, .depth = 2, .msg_bytes = 100, .nr_readers = 2,
	};
	struct shmk_topic *t;
	struct shmk_sub *sub;
	uint32_t was;

	ASSERT_EQ(0, shmk_topic_open(self->s, "t", &opts, SHMK_TRY, &t));
	was = fill_ledger(self);
	ASSERT_NE(0, was);
	EXPECT_EQ(0, shmk_topic_subscribe(t, NULL, &sub));
	EXPECT_CLEAN(self->other);
	shmk_topic_close(t);
	self->s->nr_entries = was;
	EXPECT_EQ(0, shmk_queue_remove(self->other, "t"));
}

/* -------------------------------------------------------------- deaths -- */

/* Keeps what it got from @uri's queue, and one of its own; has another in its hands. */
static void keeper(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg, 0);
	struct shmk_queue *q = s ? queue(s, "q", 0) : NULL;
	struct shmk_msg m[4];

	if (!q || shmk_keep(s, MIB) || shmk_recv(q, &m[0], SHMK_TRY) ||
	    shmk_recv(q, &m[1], SHMK_TRY) || shmk_recv(q, &m[2], SHMK_TRY) ||
	    shmk_alloc(s, 5000, 0, &m[3]))
		_exit(1);
	shmk_free(&m[3]);
	shmk_free(&m[0]);
	shmk_free(&m[1]);
	tell(end, (int)shmk_self(s));
	hear(end->from);
	/* One of the two that came is taken once more. */
	tell(end, shmk_alloc(s, 1000, 0, &m[0]));
	hear(end->from);
}

static void habitual(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg, 0);

	if (!s || !turns(s, 1000, STORE_TURNS + 1))
		_exit(1);
	tell(end, (int)shmk_self(s));
	hear(end->from);
}

static bool settled_to(struct shmk *s, unsigned int left)
{
	int64_t end = watchdog();

	while (pool_stat(s).peers_now != left && now_ns() < end) {
		s->backend->reap(s);
		usleep(1000);
	}
	return pool_stat(s).peers_now == left;
}

TEST_F(store, what_a_dead_one_kept_unasked_is_free)
{
	struct shmk_pool_stat st = pool_stat(self->s);
	const uint64_t lost = st.lost_messages, reclaimed = st.reclaimed_blocks;
	struct child child;
	int id;

	child_start(&child, habitual, self->uri);
	id = child_hear(&child);
	ASSERT_LT(0, id);
	EXPECT_EQ(1, spares_of(self->s, (uint32_t)id).nr);
	EXPECT_CLEAN(self->other);
	child_kill(&child);
	ASSERT_TRUE(settled_to(self->s, 2));
	EXPECT_EQ(0, used_at_last(self->s));
	st = pool_stat(self->s);
	EXPECT_EQ(lost, st.lost_messages);
	EXPECT_EQ(reclaimed + 1, st.reclaimed_blocks);
}

TEST_F(store, what_a_dead_one_kept_is_free_and_no_lost_message)
{
	struct shmk_pool_stat st;
	struct spares c;
	struct child child;
	unsigned int i, again;
	int id;

	for (again = 0; again < 2; again++) {
		uint64_t lost = pool_stat(self->s).lost_messages;
		uint64_t reclaimed = pool_stat(self->s).reclaimed_blocks;

		for (i = 0; i < 3; i++) {
			ASSERT_EQ(0, shmk_alloc(self->other, 1000, 0, &self->m[i]));
			ASSERT_EQ(0, shmk_send(self->oq, &self->m[i], SHMK_TRY));
		}
		child_start(&child, keeper, self->uri);
		id = child_hear(&child);
		ASSERT_LT(0, id);
		c = spares_of(self->other, (uint32_t)id);
		EXPECT_EQ(3, c.nr);
		EXPECT_EQ(1, c.others);
		EXPECT_EQ(4, used(self->other));
		EXPECT_CLEAN(self->other);
		if (again) {
			child_tell(&child, 0);
			ASSERT_EQ(0, child_hear(&child));
			EXPECT_EQ(2, spares_of(self->other, (uint32_t)id).nr);
		}
		child_kill(&child);
		ASSERT_TRUE(settled_to(self->other, 2));
		st = pool_stat(self->other);
		EXPECT_EQ(0, st.blocks_used);
		/* The one in its hands, and not those it was done with. */
		EXPECT_EQ(lost + 1, st.lost_messages);
		EXPECT_EQ(reclaimed + 4, st.reclaimed_blocks);
		EXPECT_CLEAN(self->other);
		EXPECT_TRUE(all_is_there(self->other));
	}
}

TEST_F(store, in_a_pool_that_was_reset_nothing_is_kept)
{
	ASSERT_EQ(2, alloc_some(self->s, 1000, self->m, 2));
	shmk_free(&self->m[0]);
	ASSERT_EQ(1, kept(self->s));
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	EXPECT_EQ(-ESHUTDOWN, shmk_alloc(self->s, 1000, 0, &self->m[0]));
	shmk_free(&self->m[1]);
	EXPECT_EQ(1, kept(self->s));
	EXPECT_EQ(0, shmk_keep(self->s, 0));
	EXPECT_EQ(0, kept(self->s));
	EXPECT_EQ(0, spares_of(self->s, 0).others);
	/* What the teardown looks at is the new one. */
	shmk_detach(self->s);
	shmk_detach(self->other);
	self->s = peer(self->uri, 0);
	self->other = peer(self->uri, 0);
	ASSERT_NE(NULL, self->s);
	ASSERT_NE(NULL, self->other);
}

/* ------------------------------------------------------------- threads -- */

struct worker {
	struct shmk	*s;
	uint32_t	id;
	uint32_t	loops;
	bool		bad;
};

/* Each block is signed by who has it: two never have the same. */
static void *work(void *arg)
{
	static const size_t lens[] = { 100, 1000, 1000, 3000, 20000, 3 * SPAN };
	struct worker *w = arg;
	struct shmk_msg m[6] = { };
	uint32_t i, k, seed = w->id;

	for (i = 0; i < w->loops && !w->bad; i++) {
		k = (uint32_t)rand_r((unsigned int *)&seed) % ARRAY_SIZE(m);
		if (m[k].data) {
			w->bad |= *(uint32_t *)m[k].data != (w->id ^ k);
			shmk_free(&m[k]);
		} else if (shmk_alloc(w->s, lens[k], 0, &m[k])) {
			w->bad = true;
		} else {
			w->bad |= m[k].room < lens[k];
			*(uint32_t *)m[k].data = w->id ^ k;
		}
		if (i % 1024 == 1023)
			w->bad |= shmk_keep(w->s, i & 1024 ? 8192 : MIB);
	}
	free_all(m, ARRAY_SIZE(m));
	return NULL;
}

TEST_F(store, two_threads_keep_and_take)
{
	const char *loops = getenv("SHMK_TEST_LOOPS");
	struct worker w[2];
	pthread_t t[2];
	int i;

	for (i = 0; i < 2; i++) {
		w[i] = (struct worker) { .s = self->s, .id = 0x1000u << i,
					 .loops = loops ? (uint32_t)atol(loops) : 50000 };
		ASSERT_EQ(0, pthread_create(&t[i], NULL, work, &w[i]));
	}
	for (i = 0; i < 2; i++) {
		pthread_join(t[i], NULL);
		EXPECT_FALSE(w[i].bad);
	}
	EXPECT_EQ(kept(self->s), used(self->s));
	EXPECT_CLEAN(self->other);
	ASSERT_EQ(0, shmk_keep(self->s, 0));
	EXPECT_EQ(0, used(self->s));
}

TEST_HARNESS_MAIN
