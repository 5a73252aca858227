// SPDX-License-Identifier: GPL-2.0-only
/*
 * dump_test.c - shmk_pool_dump() and shmk_pool_space() tell what is there.
 *
 * SHMK_TEST_BACKEND=local|module. Who looks is a read-only member.
 */
#include "lib_test.h"
#include "kselftest_harness.h"

#define POOL	(4 * MIB)
#define MOST	64

FIXTURE(dump)
{
	char		uri[64];
	struct shmk	*a, *b, *look;
	struct shmk_queue *qa, *qb;
	struct shmk_msg	m[8];
	struct shmk_holding h[MOST];
	unsigned int	nr;
};

static struct shmk *attach(const char *uri, uint32_t flags)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 32, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .flags = flags };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | flags, .capacity = 8 };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

FIXTURE_SETUP(dump)
{
	test_uri(self->uri, "dump");
	self->a = attach(self->uri, 0);
	self->b = attach(self->uri, 0);
	self->look = attach(self->uri, SHMK_ATTACH_RDONLY);
	ASSERT_NE(self->a, NULL);
	ASSERT_NE(self->b, NULL);
	ASSERT_NE(self->look, NULL);
	self->qa = queue(self->a, "q", 0);
	self->qb = queue(self->b, "q", 0);
	ASSERT_NE(self->qb, NULL);
}

FIXTURE_TEARDOWN(dump)
{
	shmk_detach(self->b);
	shmk_detach(self->a);
	shmk_detach(self->look);
}

struct collect {
	struct shmk_holding *h;
	unsigned int nr;
	uint64_t blocks;
};

/* Spans are not what is looked for. */
static int collect(const struct shmk_holding *h, void *arg)
{
	struct collect *c = arg;

	if (h->state == SHMK_HOLDING_SPAN)
		return 0;
	if (h->block != SHMK_NO_BLOCK && h->state != SHMK_HOLDING_KEPT &&
	    h->state != SHMK_HOLDING_READING)
		c->blocks++;
	if (c->nr == MOST)
		return -E2BIG;
	c->h[c->nr++] = *h;
	return 0;
}

/* Each block in use has been told once, or more was said than there is. */
static int look(FIXTURE_DATA(dump) *self)
{
	struct collect c = { .h = self->h };
	struct shmk_pool_stat st;
	int ret = shmk_pool_dump(self->look, collect, &c);

	self->nr = c.nr;
	if (ret || shmk_pool_stat(self->look, &st))
		return -EIO;
	return st.blocks_used == c.blocks ? (int)c.nr : -EUCLEAN;
}

static const struct shmk_holding *find(FIXTURE_DATA(dump) *self, uint32_t state, unsigned int nth)
{
	for (unsigned int i = 0; i < self->nr; i++)
		if (self->h[i].state == state && !nth--)
			return &self->h[i];
	return NULL;
}

TEST_F(dump, a_block_is_followed_from_hand_to_hand)
{
	const struct shmk_holding *h;
	uint64_t offset;

	EXPECT_EQ(0, look(self));
	ASSERT_EQ(0, shmk_alloc(self->a, 10000, 0, &self->m[0]));
	offset = (char *)self->m[0].data - (char *)self->a->data;
	ASSERT_EQ(1, look(self));
	h = find(self, SHMK_HOLDING_HELD, 0);
	ASSERT_NE(NULL, h);
	EXPECT_EQ(shmk_self(self->a), h->peer);
	EXPECT_EQ(shmk_self_gen(self->a), h->gen);
	EXPECT_EQ(offset, h->offset);
	EXPECT_EQ(0, h->len);	/* nobody else has to know it yet */
	EXPECT_LE(10000, h->room);
	EXPECT_EQ(SHMK_HOLDING_NOWHERE, h->queue);

	ASSERT_EQ(0, shmk_send(self->qa, &self->m[0], SHMK_TRY));
	ASSERT_EQ(0, shmk_send_copy(self->qa, "inline", 6, SHMK_TRY));
	ASSERT_EQ(2, look(self));
	h = find(self, SHMK_HOLDING_QUEUED, 0);
	ASSERT_NE(NULL, h);
	EXPECT_EQ(0, h->peer);
	EXPECT_EQ(offset, h->offset);
	EXPECT_EQ(10000, h->len);
	EXPECT_EQ(0, h->pos);
	EXPECT_EQ(0, h->distance);
	h = find(self, SHMK_HOLDING_QUEUED, 1);
	ASSERT_NE(NULL, h);
	EXPECT_EQ(UINT64_MAX, h->offset);
	EXPECT_EQ(6, h->len);
	EXPECT_EQ(1, h->pos);
	EXPECT_EQ(1, h->distance);

	ASSERT_EQ(0, shmk_recv(self->qb, &self->m[0], SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->qb, &self->m[1], SHMK_TRY));
	ASSERT_EQ(1, look(self));
	h = find(self, SHMK_HOLDING_RECEIVED, 0);
	ASSERT_NE(NULL, h);
	EXPECT_EQ(shmk_self(self->b), h->peer);
	EXPECT_EQ(offset, h->offset);
	EXPECT_EQ(0, h->pos);
	EXPECT_EQ(2, h->distance);
	shmk_free(&self->m[0]);
	shmk_free(&self->m[1]);
	EXPECT_EQ(0, look(self));
}

TEST_F(dump, what_is_not_acknowledged_is_in_its_receivers_hands)
{
	struct shmk_queue *ra = queue(self->a, "r", SHMK_QUEUE_REDELIVER);
	struct shmk_queue *rb = queue(self->b, "r", SHMK_QUEUE_REDELIVER);
	const struct shmk_holding *h;

	ASSERT_NE(NULL, rb);
	ASSERT_EQ(0, shmk_alloc(self->a, 1000, 0, &self->m[0]));
	ASSERT_EQ(0, shmk_send(ra, &self->m[0], SHMK_TRY));
	ASSERT_EQ(0, shmk_send_copy(ra, "inline", 6, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(rb, &self->m[0], SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(rb, &self->m[1], SHMK_TRY));
	ASSERT_EQ(2, look(self));
	for (unsigned int i = 0; i < 2; i++) {
		h = find(self, SHMK_HOLDING_UNACKED, i);
		ASSERT_NE(NULL, h);
		EXPECT_EQ(shmk_self(self->b), h->peer);
		EXPECT_EQ(i, h->pos);
	}
	shmk_free(&self->m[0]);
	shmk_free(&self->m[1]);
	EXPECT_EQ(0, look(self));
}

TEST_F(dump, references_and_parts_are_told_with_their_holder)
{
	const struct shmk_holding *h;

	ASSERT_EQ(0, shmk_alloc(self->a, 1000, 0, &self->m[0]));
	ASSERT_EQ(0, shmk_msg_share(&self->m[0], &self->m[1]));
	/* Two references and the payload, which is no reference. */
	ASSERT_EQ(3, look(self));
	for (unsigned int i = 0; i < 2; i++) {
		h = find(self, SHMK_HOLDING_HELD, i);
		ASSERT_NE(NULL, h);
		EXPECT_TRUE(h->shared);
		EXPECT_EQ((char *)self->m[0].data - (char *)self->a->data, h->offset);
		EXPECT_EQ(1000, h->len);
	}
	ASSERT_NE(NULL, find(self, SHMK_HOLDING_SHARED, 0));
	shmk_free(&self->m[0]);
	shmk_free(&self->m[1]);

	ASSERT_EQ(0, shmk_alloc(self->a, 1000, 0, &self->m[0]));
	ASSERT_EQ(0, shmk_alloc(self->a, 2000, 0, &self->m[1]));
	ASSERT_EQ(0, shmk_msg_pack(self->m, 2, &self->m[2]));
	ASSERT_EQ(3, look(self));
	for (unsigned int i = 0; i < 2; i++) {
		h = find(self, SHMK_HOLDING_PART, i);
		ASSERT_NE(NULL, h);
		EXPECT_EQ(shmk_self(self->a), h->peer);
		EXPECT_EQ(1000 * (i + 1), h->len);
	}
	shmk_free(&self->m[2]);
	EXPECT_EQ(0, look(self));
}

TEST_F(dump, a_topic_tells_since_when_and_who_reads)
{
	struct shmk_topic_opts opts = {
		.flags = SHMK_QUEUE_CREATE, .depth = 2, .msg_bytes = 100, .nr_readers = 2,
	};
	int64_t before = shmk_deadline_ms(1) - 1000000;
	const struct shmk_holding *h;
	struct shmk_topic *ta, *tb;
	struct shmk_held held;
	struct shmk_sub *sub;

	ASSERT_EQ(0, shmk_topic_open(self->a, "t", &opts, SHMK_TRY, &ta));
	ASSERT_EQ(0, shmk_topic_open(self->b, "t", NULL, SHMK_TRY, &tb));
	ASSERT_EQ(0, shmk_topic_subscribe(tb, NULL, &sub));
	ASSERT_EQ(0, shmk_topic_writer(ta, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_publish_copy(ta, "hello", 5, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_take(sub, &held, SHMK_TRY));
	ASSERT_LT(0, look(self));
	h = find(self, SHMK_HOLDING_READING, 0);
	ASSERT_NE(NULL, h);
	EXPECT_EQ(shmk_self(self->b), h->peer);
	EXPECT_EQ(5, h->len);
	EXPECT_LE(before, h->since_ns);
	h = find(self, SHMK_HOLDING_KEPT, 0);
	ASSERT_NE(NULL, h);
	EXPECT_EQ(5, h->len);
	ASSERT_NE(NULL, find(self, SHMK_HOLDING_TOPIC, 0));
	ASSERT_NE(NULL, find(self, SHMK_HOLDING_SUBSCRIBED, 0));
}

TEST_F(dump, space_goes_from_pristine_to_full)
{
	struct shmk_pool_space sp;
	struct shmk_msg m = { };

	ASSERT_EQ(0, shmk_pool_space(self->look, &sp));
	EXPECT_EQ(sp.spans, sp.spans_untouched);
	EXPECT_EQ(POOL, sp.spans * sp.span_bytes);
	EXPECT_EQ(POOL, sp.largest);
	/* What it says can be had, and one byte more cannot. */
	ASSERT_EQ(0, shmk_alloc(self->a, 1, 0, &self->m[0]));
	ASSERT_EQ(0, shmk_pool_space(self->look, &sp));
	EXPECT_GT(POOL, sp.largest);
	EXPECT_GT(sp.spans, sp.spans_untouched);
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->b, sp.largest + 1, 0, &m));
	ASSERT_EQ(0, shmk_alloc(self->b, sp.largest, 0, &m));
	ASSERT_EQ(0, shmk_pool_space(self->look, &sp));
	EXPECT_EQ(0, sp.spans_untouched);
	shmk_free(&m);
	shmk_free(&self->m[0]);
	ASSERT_EQ(0, shmk_pool_space(self->look, &sp));
	EXPECT_EQ(sp.spans, sp.spans_empty);
	EXPECT_EQ(POOL, sp.largest);
}

static int stop_at_once(const struct shmk_holding *h, void *arg)
{
	(void)h;
	(void)arg;
	return 7;
}

TEST_F(dump, what_the_callback_returns_ends_it)
{
	EXPECT_EQ(-EINVAL, shmk_pool_dump(self->look, NULL, NULL));
	EXPECT_EQ(0, shmk_pool_dump(self->look, stop_at_once, NULL));
	ASSERT_EQ(0, shmk_alloc(self->a, 1000, 0, &self->m[0]));
	EXPECT_EQ(7, shmk_pool_dump(self->look, stop_at_once, NULL));
}

TEST_HARNESS_MAIN
