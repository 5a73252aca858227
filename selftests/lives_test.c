// SPDX-License-Identifier: GPL-2.0-only
/*
 * lives_test.c - what many lives of others leave with one who lives on: nothing.
 *
 * A server, and one client after the other, each of which uses what there is and ends in
 * one of several ways. Then the server has as many fds, mappings and bytes of heap as after the
 * first few, and the pool as many peers, queues and blocks.
 * SHMK_TEST_BACKEND=local|module.
 */
#include <malloc.h>
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define WARM_UP	20
#define LIVES	240
#define NR_WAYS	4		/* to end */

static struct shmk *peer(const char *uri)
{
	struct shmk_pool_opts pool = { .bytes = 8 * MIB, .nr_peers = 16, .nr_queues = 24 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | flags, .capacity = 8 };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

static struct shmk_topic *topic(struct shmk *s, const char *name, uint32_t flags)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE | flags, .nr_readers = 4 };
	struct shmk_topic *t = NULL;

	return shmk_topic_open(s, name, &opts, SHMK_TRY, &t) ? NULL : t;
}

static int text(struct shmk *s, size_t len, struct shmk_msg *msg)
{
	int ret = shmk_alloc(s, len, 0, msg);

	if (!ret)
		memset(msg->data, 1, len);
	return ret;
}

/* ------------------------------------------------------------ one life -- */

struct life {
	const char	*uri;
	int		nr;
};

#define LIVE(what) do { if (!(what)) _exit(1 + __LINE__ % 128); } while (0)

/* Calls twice; the second answer is still in its hands when it ends. */
static void life_calls(struct shmk *s, struct shmk_mailbox *mb)
{
	struct shmk_queue *svc = queue(s, "svc", 0);
	struct shmk_msg m;

	LIVE(svc);
	LIVE(!text(s, 20, &m));
	LIVE(!shmk_call(mb, svc, &m, watchdog()));
	shmk_free(&m);
	LIVE(!text(s, 5000, &m));
	LIVE(!shmk_call(mb, svc, &m, watchdog()));
}

static void life_sends(struct shmk *s)
{
	struct shmk_queue *mine = queue(s, "mine", SHMK_QUEUE_TRANSIENT | SHMK_QUEUE_SP);
	struct shmk_msg m, other;

	LIVE(mine);
	LIVE(!text(s, 3000, &m));
	LIVE(!shmk_msg_share(&m, &other));
	LIVE(!shmk_send(mine, &m, SHMK_TRY));
}

static void life_publishes(struct shmk *s)
{
	struct shmk_topic *told = topic(s, "told", SHMK_TOPIC_TRANSIENT);

	LIVE(told);
	LIVE(!shmk_topic_writer(told, SHMK_TRY));
	LIVE(!shmk_topic_publish_copy(told, "hello", 6, SHMK_TRY));
}

static struct shmk_sub *life_reads(struct shmk *s, struct shmk_held *held)
{
	struct shmk_sub_opts opts = { .start = SHMK_START_LAST };
	struct shmk_topic *news = topic(s, "news", 0);
	struct shmk_sub *sub;

	LIVE(news);
	LIVE(!shmk_topic_subscribe(news, &opts, &sub));
	LIVE(!shmk_topic_take(sub, held, watchdog()));
	return sub;
}

static void life_ends(struct child_end *end, struct shmk *s, struct shmk_sub *sub, int way)
{
	struct shmk_held held;

	tell(end, 1);
	if (way == 0)
		shmk_detach(s);
	else if (way == 1)
		_exit(0);
	else if (way == 2)		/* is killed asleep */
		shmk_topic_take(sub, &held, SHMK_FOREVER);
	for (;;)
		pause();
}

static void life(struct child_end *end, void *arg)
{
	const struct life *l = arg;
	struct shmk_mailbox *mb;
	struct shmk_held held;
	struct shmk_sub *sub;
	struct shmk *s;

	LIVE(!shmk_attach(l->uri, NULL, &s));
	LIVE(!shmk_mailbox_open(s, NULL, &mb));
	life_calls(s, mb);
	life_sends(s);
	life_publishes(s);
	sub = life_reads(s, &held);
	if (l->nr % NR_WAYS == 2)
		shmk_topic_release(&held);
	tell(end, 1);
	LIVE(hear(end->from) == 1);
	life_ends(end, s, sub, l->nr % NR_WAYS);
}

/* ---------------------------------------------------------- the server -- */

FIXTURE(lives) {
	char			uri[64];
	struct shmk		*s;
	struct shmk_queue	*svc;
	struct shmk_topic	*news;
	struct shmk_poller	*poller;
	pthread_t		thread;
	int			idle[2];
};

FIXTURE_VARIANT(lives) {
	bool threads;
};

FIXTURE_VARIANT_ADD(lives, alone) { };
FIXTURE_VARIANT_ADD(lives, threads) { .threads = true };

static void *until_told(void *arg)
{
	char c;

	return (void *)read(*(int *)arg, &c, 1);
}

FIXTURE_SETUP(lives)
{
	test_uri(self->uri, "lives");
	self->s = peer(self->uri);
	ASSERT_NE(NULL, self->s);
	self->svc = queue(self->s, "svc", SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER);
	ASSERT_NE(NULL, self->svc);
	self->news = topic(self->s, "news", 0);
	ASSERT_NE(NULL, self->news);
	ASSERT_EQ(0, shmk_topic_writer(self->news, SHMK_TRY));
	ASSERT_EQ(0, shmk_poller_open(self->s, &self->poller));
	ASSERT_EQ(0, shmk_poller_add(self->poller, self->svc, SHMK_RECV, NULL));
	ASSERT_EQ(0, shmk_poller_add_events(self->poller, NULL));
	ASSERT_EQ(0, pipe(self->idle));
	if (variant->threads)
		ASSERT_EQ(0, pthread_create(&self->thread, NULL, until_told, &self->idle[0]));
}

FIXTURE_TEARDOWN(lives)
{
	char report[256] = "";

	close(self->idle[1]);
	if (variant->threads)
		pthread_join(self->thread, NULL);
	close(self->idle[0]);
	EXPECT_EQ(0, shmk_pool_check(self->s, report, sizeof(report)))
		TH_LOG("%s", report);
	shmk_detach(self->s);
	shmk_pool_destroy(self->uri);
	EXPECT_EQ(0, pool_mappings());
}

static void drain_events(struct shmk *s)
{
	struct shmk_event e;

	while (!shmk_event_next(s, &e))
		;
}

static int serve_one(struct shmk *s, struct shmk_queue *svc, struct shmk_poller *poller)
{
	struct shmk_msg req, rep;
	struct shmk_ready ready[4];
	int ret;

	while ((ret = shmk_recv(svc, &req, SHMK_TRY)) == -EAGAIN) {
		ret = shmk_poller_wait(poller, ready, 4, watchdog());
		if (ret < 0)
			return ret;
		drain_events(s);
	}
	if (!ret)
		ret = text(s, req.len, &rep);
	return ret ? ret : shmk_reply(&req, &rep, watchdog());
}

static int take_its_block(struct shmk *s, struct shmk_poller *poller)
{
	struct shmk_queue *q = queue(s, "mine", SHMK_QUEUE_TRANSIENT | SHMK_QUEUE_SP);
	struct shmk_msg m;
	int ret;

	if (!q)
		return -ENOENT;
	ret = shmk_poller_add(poller, q, SHMK_RECV, NULL);
	if (!ret)
		ret = shmk_recv(q, &m, watchdog());
	if (!ret)
		shmk_free(&m);
	shmk_queue_close(q);
	return ret;
}

static int read_what_it_told(struct shmk *s)
{
	struct shmk_sub_opts opts = { .start = SHMK_START_LAST };
	struct shmk_topic *t = topic(s, "told", SHMK_TOPIC_TRANSIENT);
	struct shmk_sub *sub;
	char buf[16];
	int64_t len;

	if (!t)
		return -ENOENT;
	len = shmk_topic_subscribe(t, &opts, &sub);
	if (!len)
		len = shmk_topic_read(sub, buf, sizeof(buf), NULL, watchdog());
	shmk_topic_close(t);
	return len == 6 ? 0 : -EPROTO;
}

struct standing {
	int			fds, maps;
	size_t			heap;
	struct shmk_pool_stat	pool;
};

static int lines(const char *path)
{
	FILE *f = fopen(path, "r");
	int c, nr = 0;

	while (f && (c = getc(f)) != EOF)
		nr += c == '\n';
	if (f)
		fclose(f);
	return nr;
}

/* When all who have ended are settled. */
static void stand(struct shmk *s, struct standing *at)
{
	int64_t end = watchdog();

	do {
		s->backend->reap(s);
		usleep(1000);
	} while (!shmk_pool_stat(s, &at->pool) && at->pool.peers_now > 1 && now_ns() < end);
	drain_events(s);
	/* To nobody: but who writes a letter closes the mailboxes of those who have died. */
	shmk_mail_send_copy(s, shmk_self(s), 0, 0, "", 1, SHMK_TRY);
	shmk_pool_stat(s, &at->pool);
	at->fds = open_fds();
	at->maps = lines("/proc/self/maps");
	at->heap = mallinfo2().uordblks;
}

TEST_F(lives, leave_nothing)
{
	struct standing before = { }, after;

	for (int i = 0; i < WARM_UP + LIVES; i++) {
		struct life l = { .uri = self->uri, .nr = i };
		struct child c;

		if (i == WARM_UP)
			stand(self->s, &before);
		ASSERT_EQ(0, shmk_topic_publish_copy(self->news, &i, sizeof(i), SHMK_TRY));
		child_start(&c, life, &l);
		ASSERT_EQ(0, serve_one(self->s, self->svc, self->poller)) TH_LOG("life %d", i);
		ASSERT_EQ(0, serve_one(self->s, self->svc, self->poller));
		ASSERT_EQ(1, child_hear(&c)) TH_LOG("life %d", i);
		ASSERT_EQ(0, take_its_block(self->s, self->poller));
		ASSERT_EQ(0, read_what_it_told(self->s));
		child_tell(&c, 1);
		ASSERT_EQ(1, child_hear(&c));
		ASSERT_NE(-1, i % NR_WAYS == 1 ? child_wait(&c) : child_kill(&c));
	}
	stand(self->s, &after);
	EXPECT_EQ(1, before.pool.peers_now);
	EXPECT_EQ(1, after.pool.peers_now);
	EXPECT_EQ(before.pool.blocks_used, after.pool.blocks_used);
	EXPECT_EQ(before.pool.queues_now, after.pool.queues_now);
	EXPECT_LE(after.fds, before.fds + 8);	/* local keeps a few pipes to ring by */
	EXPECT_LE(after.maps, before.maps + 2);
	/* malloc keeps a few of each size; the smallest allocation for each life would be twice that. */
	EXPECT_LE(after.heap, before.heap + LIVES * 2 * sizeof(void *));
}

TEST_HARNESS_MAIN
