// SPDX-License-Identifier: GPL-2.0-only
/*
 * block_test.c - blocks and spans: alloc, free, seizing, adopting.
 *
 * Several attachments of one process are as many peers; what needs another
 * process or a death forks. Where a peer has to stand at a certain point of
 * block.c, its words are written by hand. SHMK_TEST_BACKEND=local|module,
 * SHMK_TEST_SEED, SHMK_TEST_LOOPS.
 */
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define SPAN		(64UL << 10)
#define NR_SPANS	16
#define ENTRIES		8192

static uint32_t rnd(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

static uint32_t test_seed(void)
{
	const char *s = getenv("SHMK_TEST_SEED");

	return s ? (uint32_t)strtoul(s, NULL, 0) : (uint32_t)now_ns();
}

static uint32_t loops(uint32_t most)
{
	const char *s = getenv("SHMK_TEST_LOOPS");

	return s ? (uint32_t)strtoul(s, NULL, 0) : most;
}

static struct shmk *peer(const char *uri, uint32_t entries)
{
	struct shmk_pool_opts pool = { .bytes = NR_SPANS * SPAN, .nr_peers = 24, .nr_queues = 4,
				      .rings_bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool, .nr_entries = entries, .spin_us = -1 };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

/* Fills a block with what only its holder knows. */
static void sign(struct shmk_msg *msg, uint32_t id)
{
	uint32_t *w = msg->data;
	size_t n = msg->room / 4, i, step = n > 64 ? n / 32 : 1;

	for (i = 0; i < n; i += step)
		w[i] = id + (uint32_t)i;
	w[n - 1] = ~id;
}

static bool signed_by(const struct shmk_msg *msg, uint32_t id)
{
	const uint32_t *w = msg->data;
	size_t n = msg->room / 4, i, step = n > 64 ? n / 32 : 1;

	for (i = 0; i < n - 1; i += step)
		if (w[i] != id + (uint32_t)i)
			return false;
	return w[n - 1] == ~id;
}

/* As many of @len as there are. */
static unsigned int alloc_all(struct shmk *s, size_t len, struct shmk_msg *msg, unsigned int most)
{
	unsigned int n;

	for (n = 0; n < most && !shmk_alloc(s, len, 0, &msg[n]); n++)
		;
	return n;
}

static void free_all(struct shmk_msg *msg, unsigned int n)
{
	while (n)
		shmk_free(&msg[--n]);
}

#define EXPECT_CLEAN(s) do {						\
	char report_[256] = "";						\
	EXPECT_EQ(0, shmk_pool_check(s, report_, sizeof(report_)))	\
		TH_LOG("%s", report_);					\
} while (0)

static void show_spans(const struct shmk *s)
{
	const struct shmk_view *v = &s->view;
	uint32_t i;

	for (i = 0; i < v->nr_spans; i++)
		if (v->spans[i].word & 0xff)
			fprintf(stderr, "# peer %u: span %u word %#llx freed %#llx changed %llu "
				"nr %llu stale %llu\n", s->self, i,
				(unsigned long long)v->spans[i].word,
				(unsigned long long)v->spans[i].freed,
				(unsigned long long)v->spans[i].changed,
				(unsigned long long)v->spans[i].nr_spans,
				(unsigned long long)(v->stale_map[i >> 6] >> (i & 63) & 1));
}

/* Everything is free, and all of it can be had in one piece. */
#define EXPECT_ALL_BACK(s) do {						\
	struct shmk_pool_stat stat_;					\
	struct shmk_msg all_;						\
	ASSERT_EQ(0, shmk_pool_stat(s, &stat_));			\
	EXPECT_EQ(0, stat_.blocks_used);				\
	EXPECT_EQ(0, stat_.bytes_used);					\
	EXPECT_EQ(0, shmk_alloc(s, stat_.bytes, 0, &all_)) {		\
		show_spans(s);						\
	}								\
	shmk_free(&all_);						\
	EXPECT_CLEAN(s);						\
} while (0)

/* ------------------------------------------------------------- one peer -- */

FIXTURE(block) {
	char uri[64];
	struct shmk *s;			/* the main peer */
	struct shmk *other, *third;
	struct shmk_msg *msg;		/* room for all blocks of the smallest class */
};

FIXTURE_SETUP(block)
{
	test_uri(self->uri, "block");
	self->s = peer(self->uri, ENTRIES);
	ASSERT_NE(NULL, self->s);
	self->other = peer(self->uri, ENTRIES);
	ASSERT_NE(NULL, self->other);
	self->third = peer(self->uri, ENTRIES);
	ASSERT_NE(NULL, self->third);
	self->msg = calloc(ENTRIES, sizeof(*self->msg));
	ASSERT_NE(NULL, self->msg);
}

FIXTURE_TEARDOWN(block)
{
	EXPECT_CLEAN(self->s);
	shmk_detach(self->third);
	shmk_detach(self->other);
	EXPECT_ALL_BACK(self->s);
	shmk_detach(self->s);
	shmk_pool_destroy(self->uri);
	free(self->msg);
	EXPECT_EQ(0, pool_mappings());
}

TEST_F(block, every_class_has_its_room)
{
	uint32_t class;

	for (class = 0; class < SHMK_CLASSES; class++) {
		size_t room = (size_t)shmk_class_units(class) << 8;
		size_t below = class ? (size_t)shmk_class_units(class - 1) << 8 : 0;
		struct shmk_msg m;

		ASSERT_EQ(0, shmk_alloc(self->s, room, 0, &m));
		EXPECT_EQ(room, m.room);
		EXPECT_EQ(room, m.len);
		EXPECT_TRUE(shmk_contains(self->s, m.data, room));
		shmk_free(&m);
		EXPECT_EQ(NULL, m.data);
		ASSERT_EQ(0, shmk_alloc(self->s, below + 1, 0, &m));
		EXPECT_EQ(room, m.room);
		shmk_free(&m);
	}
}

TEST_F(block, every_class_fills_the_pool_and_gives_it_back)
{
	uint32_t class;

	for (class = 0; class < SHMK_CLASSES; class++) {
		uint32_t units = shmk_class_units(class);
		unsigned int n, i;

		n = alloc_all(self->s, (size_t)units << 8, self->msg, ENTRIES);
		EXPECT_EQ(SHMK_SPAN_UNITS / units * NR_SPANS, n);
		for (i = 0; i < n; i++)
			sign(&self->msg[i], i * 7919);
		for (i = 0; i < n; i++)
			EXPECT_TRUE(signed_by(&self->msg[i], i * 7919));
		free_all(self->msg, n);
	}
}

TEST_F(block, runs_of_every_length_up_to_the_whole_pool)
{
	unsigned int nr, n;

	for (nr = 1; nr <= NR_SPANS; nr++) {
		n = alloc_all(self->s, nr * SPAN - 100, self->msg, ENTRIES);
		EXPECT_EQ(NR_SPANS / nr, n);
		EXPECT_GE(self->msg[0].room, nr * SPAN - 100);
		sign(&self->msg[0], nr);
		sign(&self->msg[n - 1], nr + 1);
		EXPECT_TRUE(n == 1 || signed_by(&self->msg[0], nr));
		free_all(self->msg, n);
	}
}

TEST_F(block, runs_leave_their_neighbours_alone)
{
	unsigned int i, n = 0;
	uint32_t seed = test_seed();
	size_t len[40];

	TH_LOG("seed %u", seed);
	for (i = 0; i < 2000; i++) {
		unsigned int k = rnd(&seed) % 40;

		if (self->msg[k].data) {
			ASSERT_TRUE(signed_by(&self->msg[k], k));
			shmk_free(&self->msg[k]);
			continue;
		}
		len[k] = rnd(&seed) % 2 ? rnd(&seed) % (5 * SPAN) : rnd(&seed) % 3000;
		if (shmk_alloc(self->s, len[k], 0, &self->msg[k]))
			continue;
		ASSERT_GE(self->msg[k].room, len[k]);
		ASSERT_TRUE(shmk_contains(self->s, self->msg[k].data, self->msg[k].room));
		sign(&self->msg[k], k);
		n++;
	}
	EXPECT_GT(n, 100);
	for (i = 0; i < 40; i++)
		shmk_free(&self->msg[i]);
}

TEST_F(block, alignment_is_kept_or_refused)
{
	size_t align, len;
	struct shmk_msg m;

	for (align = 1; align <= 4096; align *= 2)
		for (len = 0; len < 3 * SPAN; len += len < 5000 ? 37 : 4999) {
			ASSERT_EQ(0, shmk_alloc(self->s, len, align, &m));
			ASSERT_EQ(0, (uintptr_t)m.data & (align - 1));
			ASSERT_GE(m.room, len);
			shmk_free(&m);
		}
	EXPECT_EQ(-EINVAL, shmk_alloc(self->s, 1, 3, &m));
	EXPECT_EQ(NULL, m.data);
	EXPECT_EQ(-EINVAL, shmk_alloc(self->s, 1, 8192, &m));
}

TEST_F(block, resize_in_place_moves_nothing)
{
	struct shmk_msg m;
	void *data;

	ASSERT_EQ(0, shmk_alloc(self->s, 300, 0, &m));
	data = m.data;
	EXPECT_EQ(512, m.room);
	EXPECT_EQ(0, shmk_resize(&m, 512));
	EXPECT_EQ(512, m.len);
	EXPECT_EQ(-ENOSPC, shmk_resize(&m, 513));
	EXPECT_EQ(512, m.len);
	EXPECT_EQ(0, shmk_resize(&m, 0));
	EXPECT_EQ(0, m.len);
	EXPECT_EQ(data, m.data);
	shmk_free(&m);
	EXPECT_EQ(-EINVAL, shmk_resize(&m, 1));
	shmk_free(&m);
}

TEST_F(block, contains_knows_the_edges)
{
	unsigned char *d = self->s->data;
	size_t n = self->s->data_bytes;

	EXPECT_TRUE(shmk_contains(self->s, d, n));
	EXPECT_TRUE(shmk_contains(self->s, d + n, 0));
	EXPECT_FALSE(shmk_contains(self->s, d + n, 1));
	EXPECT_FALSE(shmk_contains(self->s, d + 1, n));
	EXPECT_FALSE(shmk_contains(self->s, d - 1, 2));
	EXPECT_FALSE(shmk_contains(self->s, d + 1, SIZE_MAX));
	EXPECT_FALSE(shmk_contains(self->s, NULL, 1));
	EXPECT_FALSE(shmk_contains(self->other, d, 1));
}

TEST_F(block, too_large_is_e2big_at_any_size)
{
	static const size_t lens[] = {
		NR_SPANS * SPAN + 1, 1UL << 32, SIZE_MAX / 2, SIZE_MAX - 65536, SIZE_MAX - 256,
		SIZE_MAX - 255, SIZE_MAX - 1, SIZE_MAX,
	};
	struct shmk_msg m;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		m.data = self;
		EXPECT_EQ(-E2BIG, shmk_alloc(self->s, lens[i], 0, &m))
			TH_LOG("length %#zx", lens[i]);
		EXPECT_EQ(NULL, m.data);
	}
}

TEST_F(block, enomem_leaves_nothing_behind)
{
	unsigned int n = alloc_all(self->s, SPAN, self->msg, ENTRIES), i;
	struct shmk_msg m;

	ASSERT_EQ(NR_SPANS, n);
	for (i = 0; i < 3 * ENTRIES; i++) {
		ASSERT_EQ(-ENOMEM, shmk_alloc(self->s, 1, 0, &m));
		ASSERT_EQ(NULL, m.data);
		ASSERT_EQ(-ENOMEM, shmk_alloc(self->s, SPAN, 0, &m));
	}
	shmk_free(&self->msg[5]);
	EXPECT_EQ(0, shmk_alloc(self->s, 1, 0, &self->msg[5]));
	free_all(self->msg, n);
}

#define POOL	((size_t)NR_SPANS * SPAN)

/* Takes three quarters of the pool, and frees them or dies with them when told. */
static void hog(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg, 0);
	struct shmk_msg msg;

	tell(end, !shmk_alloc(s, POOL / 4 * 3, 0, &msg));
	if (hear(end->from))
		raise(SIGKILL);
	shmk_free(&msg);
	hear(end->from);
}

struct waiter_for_memory {
	struct shmk *s;
	atomic_int begun;
	struct shmk_msg msg;
	int ret;
};

static void *wait_for_memory(void *arg)
{
	struct waiter_for_memory *w = arg;

	atomic_store(&w->begun, 1);
	w->ret = shmk_alloc_wait(w->s, POOL / 2, 0, &w->msg, watchdog());
	return NULL;
}

TEST_F(block, who_waits_for_memory_gets_what_others_free_or_leave_behind)
{
	struct waiter_for_memory w = { .s = self->s };
	pthread_t thread;
	struct child c;
	int64_t end;

	EXPECT_EQ(-E2BIG, shmk_alloc_wait(self->s, 2 * POOL, 0, &w.msg, watchdog()));
	EXPECT_EQ(-EINVAL, shmk_alloc_wait(self->s, 1, 3, &w.msg, watchdog()));
	for (int dies = 0; dies < 2; dies++) {
		child_start(&c, hog, self->uri);
		ASSERT_EQ(1, child_hear(&c));
		EXPECT_EQ(-ENOMEM, shmk_alloc_wait(self->s, POOL / 2, 0, &w.msg, SHMK_TRY));
		end = now_ns() + 7000000;
		EXPECT_EQ(-ETIMEDOUT, shmk_alloc_wait(self->s, POOL / 2, 0, &w.msg, end));
		EXPECT_LE(end, now_ns());
		EXPECT_EQ(NULL, w.msg.data);
		atomic_store(&w.begun, 0);
		ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_memory, &w));
		while (!atomic_load(&w.begun))
			sched_yield();
		usleep(3000);
		child_tell(&c, dies);
		pthread_join(thread, NULL);
		EXPECT_EQ(0, w.ret) TH_LOG("%s", dies ? "killed" : "freed");
		if (!w.ret)
			shmk_free(&w.msg);
		child_kill(&c);
	}
}

TEST_F(block, read_only_member_gets_none)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_msg m;
	struct shmk *ro;

	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &ro));
	m.data = self;
	EXPECT_EQ(-EROFS, shmk_alloc(ro, 1, 0, &m));
	EXPECT_EQ(NULL, m.data);
	EXPECT_CLEAN(ro);
	shmk_detach(ro);
}

TEST_F(block, full_ledger_refuses_then_recovers)
{
	struct shmk *s = peer(self->uri, 16);
	unsigned int n, round, i;
	struct shmk_msg m;

	ASSERT_NE(NULL, s);
	for (round = 0; round < 50; round++) {
		n = alloc_all(s, 100, self->msg, ENTRIES);
		EXPECT_GE(n, s->nr_entries - 1);
		m.data = self;
		EXPECT_EQ(-ENOBUFS, shmk_alloc(s, 100, 0, &m));
		EXPECT_EQ(NULL, m.data);
		for (i = 0; i < n; i += 2)
			shmk_free(&self->msg[i]);
		EXPECT_EQ(0, shmk_alloc(s, 100, 0, &self->msg[0]));
		for (i = 0; i < n; i++)
			shmk_free(&self->msg[i]);
	}
	shmk_detach(s);
}

/* Spans kept for the next alloc, and those whose blocks others have, are not held. */
TEST_F(block, spans_do_not_use_up_the_ledger)
{
	struct shmk_pool_opts pool = { .bytes = 256 * SPAN, .nr_peers = 4, .nr_queues = 4 };
	struct shmk_attach_opts opts = { .create = &pool, .nr_entries = 8, .spin_us = -1 };
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE, .capacity = 64 };
	struct shmk_queue *q, *r;
	struct shmk_msg m, held[8];
	struct shmk *s, *o;
	unsigned int i;
	char uri[64];

	ASSERT_EQ(0, shmk_attach(test_uri(uri, "ledger"), &opts, &s));
	opts.nr_entries = ENTRIES;
	ASSERT_EQ(0, shmk_attach(uri, &opts, &o));
	s->nr_entries = 8;	/* whatever the backend made of it */
	for (i = 0; i < 3 * SHMK_CLASSES; i++) {
		ASSERT_EQ(0, shmk_alloc(s, (size_t)shmk_class_units(i % SHMK_CLASSES) << 8, 0, &m))
			TH_LOG("alloc %u", i);
		shmk_free(&m);
	}
	ASSERT_EQ(0, shmk_queue_open(s, "q", &qopts, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_queue_open(o, "q", NULL, SHMK_TRY, &r));
	for (i = 0; i < 16; i++) {
		ASSERT_EQ(0, shmk_alloc(s, SPAN, 0, &m)) TH_LOG("message %u", i);
		ASSERT_EQ(0, shmk_send(q, &m, SHMK_TRY));
	}
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, shmk_recv(q, &held[i], SHMK_TRY)) TH_LOG("hold %u", i);
	EXPECT_EQ(-ENOBUFS, shmk_recv(q, &m, SHMK_TRY));
	EXPECT_EQ(-ENOBUFS, shmk_alloc(s, 1, 0, &m));
	EXPECT_CLEAN(o);
	free_all(held, 8);
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, shmk_recv(r, &m, SHMK_TRY));
		shmk_free(&m);
	}
	shmk_queue_close(r);
	shmk_detach(s);
	EXPECT_ALL_BACK(o);
	shmk_detach(o);
}

TEST_F(block, holes_are_filled_before_the_pool_is_out)
{
	unsigned int n = alloc_all(self->s, 256, self->msg, ENTRIES), i;

	ASSERT_EQ(NR_SPANS * SHMK_SPAN_UNITS, n);
	for (i = 0; i < n; i += 2)
		shmk_free(&self->msg[i]);
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->s, 512, 0, &self->msg[0]));
	for (i = 0; i < n; i += 2)
		ASSERT_EQ(0, shmk_alloc(self->s, 256, 0, &self->msg[i]));
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->other, 1, 0, &self->msg[n]));
	free_all(self->msg, n);
}

/* ----------------------------------------------------------- other peers -- */

TEST_F(block, idle_peers_empty_spans_can_be_had)
{
	struct shmk *peers[] = { self->s, self->other, self->third };
	unsigned int round, n;

	for (round = 0; round < 30; round++) {
		size_t len = round % 4 == 3 ? NR_SPANS * SPAN :
			     (size_t)shmk_class_units(round % SHMK_CLASSES) << 8;

		n = alloc_all(peers[round % 3], len, self->msg, ENTRIES);
		EXPECT_EQ(round % 4 == 3 ? 1 : SHMK_SPAN_UNITS / (len >> 8) * NR_SPANS, n)
			TH_LOG("round %u, length %zu", round, len);
		free_all(self->msg, n);
	}
}

TEST_F(block, whoever_frees_the_owner_finds_it)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 8192 };
	struct shmk_queue *q, *r;
	unsigned int n, i, round;
	struct shmk_msg m;

	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &opts, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_queue_open(self->other, "q", NULL, SHMK_TRY, &r));
	for (round = 0; round < 4; round++) {
		size_t len = (size_t)shmk_class_units(round * 3) << 8;

		n = alloc_all(self->s, len, self->msg, ENTRIES);
		EXPECT_EQ(SHMK_SPAN_UNITS / (len >> 8) * NR_SPANS, n) TH_LOG("round %u", round);
		for (i = 0; i < n; i++)
			ASSERT_EQ(0, shmk_send(q, &self->msg[i], SHMK_TRY));
		for (i = 0; i < n; i++) {
			ASSERT_EQ(0, shmk_recv(r, &m, SHMK_TRY));
			shmk_free(&m);
		}
	}
	shmk_queue_close(r);
	shmk_queue_close(q);
}

/*
 * A span is seized and comes back to its first owner, cut otherwise. What that
 * one still knows of the old cut must not spoil the new.
 */
TEST_F(block, seized_span_comes_back_to_its_owner)
{
	struct shmk_msg all, m;
	unsigned int n, i;

	/* the owner keeps an empty span of class 0, others take all there is */
	ASSERT_EQ(0, shmk_alloc(self->s, 256, 0, &m));
	shmk_free(&m);
	ASSERT_EQ(0, shmk_alloc(self->other, NR_SPANS * SPAN, 0, &all));
	shmk_free(&all);
	/* it needs all of the pool in another class; this lets the other give back */
	n = alloc_all(self->s, 1024, self->msg, ENTRIES);
	EXPECT_EQ(NR_SPANS * 64, n);
	/* now it looks for class 0, and finds what it knew */
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->s, 256, 0, &m));
	for (i = 0; i < n; i++)
		shmk_free(&self->msg[i]);
	n = alloc_all(self->s, 256, self->msg, ENTRIES);
	EXPECT_EQ(NR_SPANS * SHMK_SPAN_UNITS, n);
	free_all(self->msg, n);
}

/* The hints in a span are its owner's. One that had it before must not take them. */
TEST_F(block, former_owner_leaves_the_hints)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 8192 };
	struct shmk_queue *q, *r, *f;
	unsigned int n, i;
	struct shmk_msg m, all;

	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &opts, SHMK_TRY, &f));
	ASSERT_EQ(0, shmk_queue_open(self->other, "q", NULL, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_queue_open(self->third, "q", NULL, SHMK_TRY, &r));
	/* s owns all, and its list of full spans stays as it is: others free */
	n = alloc_all(self->s, 256, self->msg, ENTRIES);
	ASSERT_EQ(NR_SPANS * SHMK_SPAN_UNITS, n);
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, shmk_send(f, &self->msg[i], SHMK_TRY));
	while (!shmk_recv(r, &m, SHMK_TRY))
		shmk_free(&m);
	/* other seizes all, and fills it */
	ASSERT_EQ(0, shmk_alloc(self->other, NR_SPANS * SPAN, 0, &all));
	shmk_free(&all);
	n = alloc_all(self->other, 256, self->msg, ENTRIES);
	ASSERT_EQ(NR_SPANS * SHMK_SPAN_UNITS, n);
	/* third frees one of each span, s looks at what was its own ... */
	for (i = 0; i < n; i += SHMK_SPAN_UNITS)
		ASSERT_EQ(0, shmk_send(q, &self->msg[i], SHMK_TRY));
	while (!shmk_recv(r, &m, SHMK_TRY))
		shmk_free(&m);
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->s, 256, 0, &m));
	/* ... and other must find them nevertheless */
	for (i = 0; i < n; i += SHMK_SPAN_UNITS)
		EXPECT_EQ(0, shmk_alloc(self->other, 256, 0, &self->msg[i]))
			TH_LOG("span %u", i / SHMK_SPAN_UNITS);
	free_all(self->msg, n);
	shmk_queue_close(f);
	shmk_queue_close(q);
	shmk_queue_close(r);
}

/*
 * The same in the moment where no look beforehand helps: it has taken the hints,
 * and then died. Its ledger still names the span, and the settler says: look.
 */
TEST_F(block, hints_taken_by_a_dead_former_owner_come_back)
{
	struct shmk *dead = peer(self->uri, ENTRIES);
	struct shmk_span *span = self->s->view.spans;
	unsigned int n;
	uint32_t block;
	struct shmk_msg m;

	ASSERT_NE(NULL, dead);
	n = alloc_all(self->s, 256, self->msg, ENTRIES);
	ASSERT_EQ(NR_SPANS * SHMK_SPAN_UNITS, n);
	/* what @dead was about: a look at a span that was its own in generation 0 */
	block = self->msg[3].block;
	span += block >> SHMK_SPAN_UNITS_SHIFT;
	entry_get(dead, &(uint32_t){ 0 });
	entry_set(dead, 0, SHMK_WHAT(SHMK_OP_SPAN, block >> SHMK_SPAN_UNITS_SHIFT, 0),
		  SHMK_WHERE(0, 1));
	/* a foreign free, whose hint @dead has just taken */
	ASSERT_TRUE(shmk_block_put(&self->s->view, block, self->msg[3].gen,
				   &(struct shmk_settled){ 0 }));
	entry_put(self->s, self->msg[3].entry);
	self->msg[3].data = NULL;
	span->freed = 0;
	shmk_detach(dead);
	EXPECT_EQ(0, shmk_alloc(self->s, 256, 0, &m));
	shmk_free(&m);
	free_all(self->msg, n);
}

/*
 * A thief is at a block when its owner wants it. The owner may give the span
 * back later in the same call: its entry must not name the block any more, or
 * its death would free what another has got by then.
 */
TEST_F(block, lost_block_is_not_in_the_ledger)
{
	struct shmk *s = self->s;
	uint32_t block, gen, entry;
	struct shmk_msg m, n;
	__u64 word;

	ASSERT_EQ(0, shmk_alloc(s, SPAN, 0, &m));
	shmk_free(&m);
	ASSERT_EQ(0, shmk_alloc(self->third, (NR_SPANS - 1) * SPAN, 0, &n));
	word = s->view.blocks[m.block].word;
	s->view.blocks[m.block].word = SHMK_BLOCK_WORD(SHMK_BLOCK_GEN(word), SHMK_BLOCK_GONE);
	s->view.spans[m.block >> 8].word |= (__u64)shmk_self(self->other) << 16;
	ASSERT_EQ(0, entry_get(s, &entry));
	EXPECT_EQ(-ENOMEM, block_alloc_locked(s, SPAN, 0, entry, &block, &gen));
	EXPECT_EQ(SHMK_OP_NONE, SHMK_WHAT_OP(entry_at(s, entry)->what));
	entry_put(s, entry);
	/* the thief gives up */
	s->view.blocks[m.block].word = word;
	s->view.spans[m.block >> 8].word &= ~(0xffffULL << 16);
	shmk_span_hint(&s->view, m.block >> 8);
	EXPECT_EQ(0, shmk_alloc(s, SPAN, 0, &m));
	shmk_free(&m);
	shmk_free(&n);
}

TEST_F(block, stopped_thief_locks_one_span_and_no_more)
{
	struct shmk_msg m;
	uint32_t index;
	__u64 word;
	unsigned int n;

	ASSERT_EQ(0, shmk_alloc(self->s, 256, 0, &m));
	index = m.block >> SHMK_SPAN_UNITS_SHIFT;
	shmk_free(&m);
	word = self->s->view.spans[index].word;
	self->s->view.spans[index].word |= (__u64)shmk_self(self->other) << 16;
	n = alloc_all(self->s, 256, self->msg, ENTRIES);
	EXPECT_EQ(NR_SPANS * SHMK_SPAN_UNITS, n);
	free_all(self->msg, n);
	n = alloc_all(self->third, SPAN, self->msg, ENTRIES);
	EXPECT_EQ(NR_SPANS - 1, n);
	free_all(self->msg, n);
	self->s->view.spans[index].word = word;
	shmk_span_hint(&self->s->view, index);
}

TEST_F(block, generations_pass_their_wrap)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_queue *q;
	uint32_t i, units = NR_SPANS * SHMK_SPAN_UNITS;
	struct shmk_msg m;

	for (i = 0; i < units; i++)
		self->s->view.blocks[i].word = SHMK_BLOCK_WORD(UINT32_MAX - 2, SHMK_BLOCK_FREE);
	for (i = 0; i < NR_SPANS; i++)
		self->s->view.spans[i].word = SHMK_SPAN_WORD(0xfffe, 0, 0, 0, SHMK_SPAN_FREE);
	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &opts, SHMK_TRY, &q));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, shmk_alloc(self->s, 1000, 0, &m));
		ASSERT_EQ(0, shmk_send(q, &m, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(q, &m, SHMK_TRY));
		shmk_free(&m);
		EXPECT_CLEAN(self->s);
		ASSERT_EQ(0, shmk_alloc(i & 1 ? self->other : self->third, NR_SPANS * SPAN, 0, &m));
		shmk_free(&m);
	}
	shmk_queue_close(q);
}

/* ---------------------------------------------------------------- deaths -- */

struct holder {
	const char	*uri;
	size_t		len;
	unsigned int	keep;	/* every keep-th block is sent away before the death */
};

static void holder_main(struct child_end *end, void *arg)
{
	static struct shmk_msg msg[ENTRIES];
	struct holder *h = arg;
	struct shmk *s = peer(h->uri, ENTRIES);
	struct shmk_queue *q;
	unsigned int n, i;

	if (!s || shmk_queue_open(s, "q", NULL, SHMK_TRY, &q))
		_exit(1);
	n = alloc_all(s, h->len, msg, ENTRIES);
	for (i = 0; i < n; i += h->keep)
		if (shmk_send(q, &msg[i], SHMK_TRY))
			_exit(2);
	tell(end, (int)n);
	hear(end->from);
}

TEST_F(block, orphans_are_adopted_and_all_comes_back)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 8192 };
	static const size_t lens[] = { 256, 1500, 20000, SPAN, 3 * SPAN };
	struct shmk_queue *q;
	unsigned int i;

	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &opts, SHMK_TRY, &q));
	for (i = 0; i < 2 * ARRAY_SIZE(lens); i++) {
		struct holder h = { self->uri, lens[i / 2], i & 1 ? 7 : 1 };
		unsigned int n, left, nr = 0;
		struct shmk_event event;
		struct shmk_msg m;
		struct child c;
		int total;

		child_start(&c, holder_main, &h);
		total = child_hear(&c);
		ASSERT_GT(total, 0) TH_LOG("length %zu", h.len);
		child_kill(&c);
		ASSERT_EQ(0, event_wait_type(self->s, &event, SHMK_EV_DIED));
		/* what was sent is still there; what else there was can be had at once */
		left = ((unsigned int)total + h.keep - 1) / h.keep;
		n = alloc_all(self->other, h.len, self->msg, ENTRIES);
		EXPECT_EQ((unsigned int)total - left, n) TH_LOG("length %zu keep %u", h.len, h.keep);
		while (!shmk_recv(q, &m, SHMK_TRY)) {
			nr++;
			shmk_free(&m);
		}
		EXPECT_EQ(left, nr);
		free_all(self->msg, n);
		EXPECT_ALL_BACK(self->third);
	}
	shmk_queue_close(q);
}

TEST_F(block, order_of_frees_and_detaches_does_not_matter)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 64 };
	struct shmk_queue *q, *r;
	struct shmk_msg m, kept;
	struct shmk *s = peer(self->uri, 64);
	unsigned int i;

	ASSERT_NE(NULL, s);
	ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_queue_open(self->other, "q", NULL, SHMK_TRY, &r));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, shmk_alloc(s, 1000, 0, &m));
		sign(&m, i);
		ASSERT_EQ(0, shmk_send(q, &m, SHMK_TRY));
	}
	ASSERT_EQ(0, shmk_recv(r, &kept, SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(s, 1000, 0, &m));
	shmk_detach(s);			/* its queue, its block, its spans */
	for (i = 1; i < 10; i++) {
		ASSERT_EQ(0, shmk_recv(r, &m, SHMK_TRY));
		ASSERT_EQ(0, shmk_resize(&m, 1024));
		EXPECT_TRUE(signed_by(&m, i));
		shmk_free(&m);
	}
	ASSERT_EQ(0, shmk_resize(&kept, 1024));
	EXPECT_TRUE(signed_by(&kept, 0));
	shmk_queue_close(r);
	shmk_free(&kept);
}

/* --------------------------------------------------------------- stresses -- */

struct worker {
	struct shmk	*s;
	const char	*uri;
	uint32_t	seed;
	uint32_t	loops;
	uint32_t	nr_msg;
	size_t		most;
	bool		bad;
	uint32_t	got;
};

static void *work(void *arg)
{
	struct worker *w = arg;
	struct shmk_msg *msg = calloc(w->nr_msg, sizeof(*msg));
	uint32_t i, k;

	for (i = 0; i < w->loops; i++) {
		k = rnd(&w->seed) % w->nr_msg;
		if (msg[k].data) {
			if (!signed_by(&msg[k], k + k * 31))
				w->bad = true;
			shmk_free(&msg[k]);
		} else {
			size_t len = rnd(&w->seed) % (rnd(&w->seed) % 8 ? 4000 : w->most) + 1;

			if (shmk_alloc(w->s, len, 0, &msg[k]))
				continue;
			w->got++;
			sign(&msg[k], k + k * 31);
		}
	}
	for (k = 0; k < w->nr_msg; k++) {
		if (msg[k].data && !signed_by(&msg[k], k + k * 31))
			w->bad = true;
		shmk_free(&msg[k]);
	}
	free(msg);
	return NULL;
}

TEST_F(block, threads_share_an_attachment)
{
	struct worker w[4];
	pthread_t t[4];
	uint32_t seed = test_seed();
	int i;

	TH_LOG("seed %u", seed);
	for (i = 0; i < 4; i++) {
		w[i] = (struct worker) { .s = self->s, .seed = seed + i, .loops = loops(40000),
					 .nr_msg = 40, .most = 3 * SPAN };
		ASSERT_EQ(0, pthread_create(&t[i], NULL, work, &w[i]));
	}
	for (i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		EXPECT_FALSE(w[i].bad);
		EXPECT_GT(w[i].got, loops(40000) / 20);
	}
}

TEST_F(block, threads_with_attachments_of_their_own)
{
	struct shmk *peers[] = { self->s, self->other, self->third };
	struct worker w[3];
	pthread_t t[3];
	uint32_t seed = test_seed();
	int i, got = 0;

	TH_LOG("seed %u", seed);
	for (i = 0; i < 3; i++) {
		w[i] = (struct worker) { .s = peers[i], .seed = seed + i, .loops = loops(60000),
					 .nr_msg = 30, .most = 6 * SPAN };
		ASSERT_EQ(0, pthread_create(&t[i], NULL, work, &w[i]));
	}
	for (i = 0; i < 3; i++) {
		pthread_join(t[i], NULL);
		EXPECT_FALSE(w[i].bad);
		got += (int)w[i].got;
	}
	/* One that comes last may find that the others have it all. */
	EXPECT_GT(got, 100);
}

static void worker_main(struct child_end *end, void *arg)
{
	struct worker *w = arg;

	w->s = peer(w->uri, 256);
	if (!w->s)
		_exit(1);
	tell(end, 0);
	work(w);
	if (w->bad)
		_exit(2);
	tell(end, (int)w->got);
	hear(end->from);
	if (w->loops & 1)	/* half of them leave, the others are killed */
		shmk_detach(w->s);
	else
		raise(SIGKILL);
}

/* Everybody is short of memory all the time: alloc against seize. */
TEST_F(block, processes_hammer_seize_against_alloc)
{
	uint32_t seed = test_seed();
	struct shmk_event event;
	struct child c[4];
	struct worker w[4];
	int i, got = 0, status;

	TH_LOG("seed %u", seed);
	for (i = 0; i < 4; i++) {
		w[i] = (struct worker) { .uri = self->uri, .seed = seed + i,
					 .loops = loops(60000) / 2 * 2 + (i & 1), .nr_msg = 12,
					 .most = i == 0 ? NR_SPANS * SPAN : 6 * SPAN };
		child_start(&c[i], worker_main, &w[i]);
	}
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, child_hear(&c[i]));
	for (i = 0; i < 4; i++) {
		int n = child_hear(&c[i]);

		ASSERT_GE(n, 0) {
			TH_LOG("status %#x", child_wait(&c[i]));
		}
		got += n;
	}
	EXPECT_CLEAN(self->s);
	for (i = 0; i < 4; i++) {
		child_tell(&c[i], 0);
		status = child_wait(&c[i]);
		EXPECT_EQ(i & 1 ? 0 : SIGKILL, status & 0xffff);
	}
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, event_wait_type(self->s, &event, SHMK_EV_DIED));
	TH_LOG("%d blocks", got);
}

TEST_HARNESS_MAIN
