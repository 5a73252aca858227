// SPDX-License-Identifier: GPL-2.0-only
/*
 * drain_test.c - queues, topics and pools that go by themselves: drained ones when
 * they are empty, transient queues with their last user.
 *
 * Attachments of one process are as many peers; who is killed is a child.
 * SHMK_TEST_BACKEND=local|module.
 */
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

static const struct shmk_pool_opts pool_opts = {
	.bytes = 4 * MIB, .nr_peers = 16, .nr_queues = 8,
};

static struct shmk *peer(const char *uri, uint32_t flags)
{
	struct shmk_attach_opts opts = { .create = flags ? NULL : &pool_opts, .flags = flags };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | flags, .capacity = 4 };
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

static int send_no(struct shmk_queue *q, uint32_t no)
{
	unsigned char buf[600] = { 0 };

	memcpy(buf, &no, sizeof(no));
	return shmk_send_copy(q, buf, no & 1 ? 16 : sizeof(buf), SHMK_TRY);
}

/* The number of the next message, which is acknowledged; or -errno. */
static int64_t recv_no(struct shmk_queue *q, int64_t deadline)
{
	unsigned char buf[600];
	uint32_t no;
	int64_t ret = shmk_recv_copy(q, buf, sizeof(buf), deadline);

	if (ret < 0)
		return ret;
	memcpy(&no, buf, sizeof(no));
	return no;
}

/* Whether there is a queue of this name; it is not opened. */
static bool there(struct shmk *s, const char *name)
{
	struct shmk_queue_stats st;
	uint32_t id;

	for (id = 0; !shmk_queue_next(s, id, &st); id = st.id + 1)
		if (!strcmp(st.name, name))
			return true;
	return false;
}

FIXTURE(drain) {
	char uri[64];
	struct shmk *s, *o;
	struct shmk_queue *q, *p;	/* the same, of each */
};

FIXTURE_SETUP(drain)
{
	test_uri(self->uri, "drain");
	self->s = peer(self->uri, 0);
	ASSERT_NE(NULL, self->s);
	self->o = peer(self->uri, 0);
	ASSERT_NE(NULL, self->o);
}

FIXTURE_TEARDOWN(drain)
{
	struct shmk_pool_stat stat;
	char report[256] = "";

	ASSERT_EQ(0, shmk_pool_check(self->s, report, sizeof(report))) TH_LOG("%s", report);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.queues_now);
	EXPECT_EQ(0, stat.blocks_used);
	shmk_detach(self->o);
	shmk_detach(self->s);
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &self->s));
	EXPECT_EQ(0, pool_mappings());
}

static void open_both(FIXTURE_DATA(drain) *self, uint32_t flags)
{
	self->q = queue(self->s, "q", flags);
	self->p = queue(self->o, "q", 0);
	if (!self->q || !self->p)
		abort();
}

TEST_F(drain, nothing_more_is_accepted_and_all_that_is_there_is_received)
{
	struct shmk_queue_stats st;
	struct shmk_msg m;

	open_both(self, 0);
	for (uint32_t no = 0; no < 3; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	EXPECT_EQ(-EAGAIN, shmk_queue_drain(self->s, "q", SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_queue_drain(self->o, "q", SHMK_TRY));
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(SHMK_QUEUE_DRAINING, st.flags);
	EXPECT_EQ(-ESHUTDOWN, send_no(self->q, 3));
	EXPECT_EQ(-ESHUTDOWN, send_no(self->p, 4));
	ASSERT_EQ(0, shmk_alloc(self->s, 100, 0, &m));
	EXPECT_EQ(-ESHUTDOWN, shmk_send(self->q, &m, SHMK_FOREVER));
	EXPECT_EQ(-ESHUTDOWN, shmk_send_batch(self->q, &m, 1, SHMK_FOREVER));
	shmk_free(&m);
	for (uint32_t no = 0; no < 3; no++)
		EXPECT_EQ(no, recv_no(self->p, SHMK_FOREVER));
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->p, SHMK_FOREVER));
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->q, SHMK_TRY));
	EXPECT_EQ(-ESHUTDOWN, shmk_recv_batch(self->q, &m, 1, SHMK_FOREVER));
	shmk_queue_close(self->p);
	EXPECT_TRUE(there(self->s, "q"));
	shmk_queue_close(self->q);
	EXPECT_FALSE(there(self->s, "q"));
	EXPECT_EQ(-ENOENT, shmk_queue_drain(self->s, "q", SHMK_TRY));
}

TEST_F(drain, an_unused_queue_goes_at_once_if_it_is_empty)
{
	open_both(self, 0);
	shmk_queue_close(self->p);
	shmk_queue_close(self->q);
	EXPECT_EQ(0, shmk_queue_drain(self->s, "q", SHMK_TRY));
	EXPECT_FALSE(there(self->s, "q"));
	self->q = queue(self->s, "q", SHMK_QUEUE_EXCL);
	ASSERT_NE(NULL, self->q);
	EXPECT_EQ(0, send_no(self->q, 1));	/* it is a new one */
	EXPECT_EQ(1, recv_no(self->q, SHMK_TRY));
	shmk_queue_close(self->q);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "q"));
}

TEST_F(drain, messages_keep_an_unused_queue_until_somebody_takes_them)
{
	open_both(self, 0);
	ASSERT_EQ(0, send_no(self->q, 1));
	ASSERT_EQ(0, send_no(self->q, 2));
	shmk_queue_close(self->q);
	shmk_queue_close(self->p);
	EXPECT_EQ(-EAGAIN, shmk_queue_drain(self->s, "q", SHMK_TRY));
	ASSERT_EQ(0, shmk_queue_open(self->s, "q", NULL, SHMK_TRY, &self->q));
	EXPECT_EQ(1, recv_no(self->q, SHMK_TRY));
	shmk_queue_close(self->q);
	EXPECT_TRUE(there(self->s, "q"));
	ASSERT_EQ(0, shmk_queue_open(self->o, "q", NULL, SHMK_TRY, &self->p));
	EXPECT_EQ(-ESHUTDOWN, send_no(self->p, 3));
	EXPECT_EQ(2, recv_no(self->p, SHMK_TRY));
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->p, SHMK_TRY));
	shmk_queue_close(self->p);
	EXPECT_FALSE(there(self->s, "q"));
}

/* A thread that is blocked in one call. */
struct blocked {
	pthread_t	thread;
	struct shmk_queue *q;
	struct shmk	*s;
	bool		sends;
	int64_t		ret;
};

static void *blocked_run(void *arg)
{
	struct blocked *b = arg;

	if (b->s)
		b->ret = shmk_queue_drain(b->s, "q", watchdog());
	else if (b->sends)
		b->ret = shmk_send_copy(b->q, "x", 1, watchdog());
	else
		b->ret = recv_no(b->q, watchdog());
	return NULL;
}

static void blocked_start(struct blocked *b)
{
	struct shmk_queue_stats st;
	int64_t end = watchdog();

	pthread_create(&b->thread, NULL, blocked_run, b);
	while (b->q && now_ns() < end && !shmk_queue_stats(b->q, &st) &&
	       !(b->sends ? st.send_waiting : st.recv_waiting))
		usleep(1000);
	if (b->s)
		usleep(20000);
}

static int64_t blocked_join(struct blocked *b)
{
	pthread_join(b->thread, NULL);
	return b->ret;
}

TEST_F(drain, who_is_blocked_is_told)
{
	struct blocked recv = { 0 }, send = { .sends = true };

	open_both(self, 0);
	recv.q = self->q;
	blocked_start(&recv);
	EXPECT_EQ(-EAGAIN, shmk_queue_drain(self->o, "q", SHMK_TRY));
	EXPECT_EQ(-ESHUTDOWN, blocked_join(&recv));
	shmk_queue_close(self->q);
	shmk_queue_close(self->p);
	open_both(self, 0);
	for (uint32_t no = 0; no < 4; no++)
		ASSERT_EQ(0, send_no(self->q, no));
	send.q = self->q;
	blocked_start(&send);
	EXPECT_EQ(-EAGAIN, shmk_queue_drain(self->o, "q", SHMK_TRY));
	EXPECT_EQ(-ESHUTDOWN, blocked_join(&send));
	for (uint32_t no = 0; no < 4; no++)
		EXPECT_EQ(no, recv_no(self->p, SHMK_TRY));
	shmk_queue_close(self->q);
	shmk_queue_close(self->p);
}

TEST_F(drain, who_drains_may_wait_for_the_end)
{
	struct blocked b = { .s = self->s };

	open_both(self, 0);
	ASSERT_EQ(0, send_no(self->q, 1));
	shmk_queue_close(self->q);
	EXPECT_EQ(-ETIMEDOUT, shmk_queue_drain(self->s, "q", shmk_deadline_ms(20)));
	blocked_start(&b);
	EXPECT_EQ(1, recv_no(self->p, watchdog()));
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->p, watchdog()));
	shmk_queue_close(self->p);
	blocked_join(&b);
	EXPECT_TRUE(!b.ret || b.ret == -ENOENT);	/* that, if it came too late */
}

TEST_F(drain, pollers_and_fds_say_that_nothing_more_comes)
{
	struct shmk_poller *poller;
	struct shmk_ready ready[2];
	struct pollfd fd = { .events = POLLIN };

	open_both(self, 0);
	ASSERT_EQ(0, shmk_poller_open(self->s, &poller));
	ASSERT_EQ(0, shmk_poller_add(poller, self->q, SHMK_RECV, self->q));
	ASSERT_EQ(-ETIMEDOUT, shmk_poller_wait(poller, ready, 2, shmk_deadline_ms(10)));
	fd.fd = shmk_queue_fd(self->p, SHMK_RECV);
	ASSERT_LE(0, fd.fd);
	EXPECT_EQ(-EAGAIN, recv_no(self->p, SHMK_TRY));
	EXPECT_EQ(0, poll(&fd, 1, 10));
	ASSERT_EQ(-EAGAIN, shmk_queue_drain(self->s, "q", SHMK_TRY));
	EXPECT_EQ(1, shmk_poller_wait(poller, ready, 2, watchdog()));
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->q, SHMK_TRY));
	EXPECT_EQ(1, poll(&fd, 1, WATCHDOG_MS));
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->p, SHMK_TRY));
	shmk_poller_close(poller);
	shmk_queue_close(self->q);
	shmk_queue_close(self->p);
	EXPECT_FALSE(there(self->s, "q"));
}

TEST_F(drain, what_is_not_acknowledged_is_waited_for)
{
	struct blocked b = { 0 };
	struct shmk_msg m;

	open_both(self, SHMK_QUEUE_REDELIVER);
	ASSERT_EQ(0, send_no(self->q, 1));
	ASSERT_EQ(0, send_no(self->q, 2));
	ASSERT_EQ(0, shmk_recv(self->p, &m, SHMK_TRY));
	ASSERT_EQ(-EAGAIN, shmk_queue_drain(self->s, "q", SHMK_TRY));
	EXPECT_EQ(2, recv_no(self->q, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, recv_no(self->q, SHMK_TRY));	/* it may come back */
	b.q = self->q;
	blocked_start(&b);
	shmk_detach(self->o);
	EXPECT_EQ(1, blocked_join(&b));			/* as it does */
	EXPECT_EQ(-ESHUTDOWN, recv_no(self->q, SHMK_TRY));
	shmk_queue_close(self->q);
	EXPECT_FALSE(there(self->s, "q"));

	self->o = peer(self->uri, 0);
	ASSERT_NE(NULL, self->o);
	open_both(self, SHMK_QUEUE_REDELIVER);
	ASSERT_EQ(0, send_no(self->q, 1));
	ASSERT_EQ(0, shmk_recv(self->p, &m, SHMK_TRY));
	ASSERT_EQ(-EAGAIN, shmk_queue_drain(self->s, "q", SHMK_TRY));
	b.q = self->q;
	blocked_start(&b);
	shmk_queue_close(self->p);
	shmk_free(&m);					/* the acknowledgement wakes, too */
	EXPECT_EQ(-ESHUTDOWN, blocked_join(&b));
	shmk_queue_close(self->q);
}

TEST_F(drain, of_a_topic_readers_read_to_the_end)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE, .depth = 4, .msg_bytes = 16 };
	struct shmk_topic *t, *u;
	struct shmk_sub *sub;
	struct shmk_loan loan;
	char buf[16];

	ASSERT_EQ(0, shmk_topic_open(self->s, "t", &opts, SHMK_TRY, &t));
	ASSERT_EQ(0, shmk_topic_open(self->o, "t", NULL, SHMK_TRY, &u));
	ASSERT_EQ(0, shmk_topic_subscribe(u, NULL, &sub));
	ASSERT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_publish_copy(t, "one", 4, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_loan(t, &loan));
	ASSERT_EQ(-EAGAIN, shmk_queue_drain(self->o, "t", SHMK_TRY));
	EXPECT_EQ(-ESHUTDOWN, shmk_topic_publish(t, &loan, 4, SHMK_FOREVER));
	shmk_topic_unloan(&loan);
	EXPECT_EQ(-ESHUTDOWN, shmk_topic_publish_copy(t, "two", 4, SHMK_FOREVER));
	EXPECT_EQ(-ESHUTDOWN, shmk_topic_writer(u, SHMK_FOREVER));
	EXPECT_EQ(4, shmk_topic_read(sub, buf, sizeof(buf), NULL, SHMK_FOREVER));
	EXPECT_EQ(-ESHUTDOWN, shmk_topic_read(sub, buf, sizeof(buf), NULL, SHMK_FOREVER));
	EXPECT_EQ(-ESHUTDOWN, shmk_topic_read(sub, buf, sizeof(buf), NULL, SHMK_TRY));
	shmk_topic_close(t);
	EXPECT_TRUE(there(self->s, "t"));
	shmk_topic_close(u);
	EXPECT_FALSE(there(self->s, "t"));
}

static void *topic_reader(void *arg)
{
	struct shmk_sub *sub = arg;
	char buf[16];

	return (void *)(intptr_t)shmk_topic_read(sub, buf, sizeof(buf), NULL, watchdog());
}

/* A read-only one cannot say that it sleeps but in its ledger. */
TEST_F(drain, a_blocked_reader_is_told)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE, .depth = 4, .msg_bytes = 16 };
	struct shmk *ro = peer(self->uri, SHMK_ATTACH_RDONLY);
	struct shmk_topic *t, *u[2];
	struct shmk_sub *sub[2];
	pthread_t thread[2];
	void *ret;

	ASSERT_NE(NULL, ro);
	ASSERT_EQ(0, shmk_topic_open(self->s, "t", &opts, SHMK_TRY, &t));
	for (int i = 0; i < 2; i++) {
		ASSERT_EQ(0, shmk_topic_open(i ? ro : self->o, "t", NULL, SHMK_TRY, &u[i]));
		ASSERT_EQ(0, shmk_topic_subscribe(u[i], NULL, &sub[i]));
		pthread_create(&thread[i], NULL, topic_reader, sub[i]);
	}
	usleep(20000);
	ASSERT_EQ(-EAGAIN, shmk_queue_drain(self->s, "t", SHMK_TRY));
	for (int i = 0; i < 2; i++) {
		pthread_join(thread[i], &ret);
		EXPECT_EQ(-ESHUTDOWN, (int)(intptr_t)ret);
	}
	shmk_detach(ro);
	shmk_topic_close(t);
	shmk_topic_close(u[0]);
	EXPECT_FALSE(there(self->s, "t"));
}

/* ----------------------------------------------------------- transient -- */

TEST_F(drain, a_transient_queue_goes_with_its_last_user_and_its_messages)
{
	struct shmk_queue_stats st;

	open_both(self, SHMK_QUEUE_TRANSIENT);
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(SHMK_QUEUE_TRANSIENT, st.flags);
	ASSERT_EQ(0, send_no(self->q, 1));
	ASSERT_EQ(0, send_no(self->q, 2));
	shmk_queue_close(self->q);
	EXPECT_EQ(1, recv_no(self->p, SHMK_TRY));
	ASSERT_EQ(0, shmk_queue_fd(self->p, SHMK_RECV) < 0);
	shmk_queue_close(self->p);
	EXPECT_FALSE(there(self->s, "q"));
	open_both(self, SHMK_QUEUE_TRANSIENT | SHMK_QUEUE_REDELIVER);
	shmk_queue_close(self->q);
	shmk_detach(self->o);
	EXPECT_FALSE(there(self->s, "q"));
	self->o = peer(self->uri, 0);
}

TEST_F(drain, a_transient_topic_goes_with_its_last_user)
{
	struct shmk_topic_opts opts = {
		.flags = SHMK_TOPIC_CREATE | SHMK_TOPIC_TRANSIENT, .msg_bytes = 16,
	};
	struct shmk *ro = peer(self->uri, SHMK_ATTACH_RDONLY);
	struct shmk_topic *t, *u;
	struct shmk_sub *sub;

	ASSERT_NE(NULL, ro);
	ASSERT_EQ(0, shmk_topic_open(self->s, "t", &opts, SHMK_TRY, &t));
	ASSERT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_publish_copy(t, "one", 4, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_open(ro, "t", NULL, SHMK_TRY, &u));
	ASSERT_EQ(0, shmk_topic_subscribe(u, NULL, &sub));
	shmk_topic_close(t);
	EXPECT_TRUE(there(self->s, "t"));
	shmk_detach(ro);
	/* On local a read-only member can free nothing; who looks for the name can. */
	EXPECT_EQ(-ENOENT, shmk_topic_open(self->s, "t", NULL, SHMK_TRY, &t));
	EXPECT_FALSE(there(self->s, "t"));
}

static void victim(struct child_end *end, void *arg)
{
	struct shmk *s = peer(arg, 0);
	struct shmk_queue *t, *d;
	struct shmk_msg m;

	if (!s)
		_exit(1);
	t = queue(s, "t", SHMK_QUEUE_TRANSIENT);
	d = queue(s, "d", 0);
	if (!t || !d || send_no(t, 2) || send_no(t, 3) || send_no(d, 2) ||
	    shmk_recv(d, &m, SHMK_TRY))
		_exit(2);
	tell(end, 1);
	hear(end->from);
}

TEST_F(drain, the_last_user_may_be_killed)
{
	struct shmk_event e;
	struct child c;

	child_start(&c, victim, self->uri);
	ASSERT_EQ(1, child_hear(&c));
	EXPECT_EQ(-EAGAIN, shmk_queue_drain(self->s, "d", SHMK_TRY));
	EXPECT_TRUE(there(self->s, "t"));
	child_kill(&c);
	ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
	/* Its files may be closed a little after that. */
	for (int64_t end = watchdog(); now_ns() < end && there(self->s, "t");)
		usleep(1000);
	EXPECT_FALSE(there(self->s, "t"));
	EXPECT_FALSE(there(self->s, "d"));
}

/* --------------------------------------------------------------- pools -- */

TEST(drained_pool_lets_nobody_in_and_goes_with_its_last_peer)
{
	struct shmk_pool_opts persists = pool_opts;
	struct shmk_attach_opts create = { .create = &pool_opts };
	struct shmk_pool_stat stat;
	struct shmk *s, *o, *x;
	struct shmk_queue *q;
	char uri[64];

	test_uri(uri, "drain");
	EXPECT_EQ(-ENOENT, shmk_pool_drain(uri));
	persists.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(uri, &persists));
	EXPECT_EQ(0, shmk_pool_drain(uri));		/* there is nobody */
	EXPECT_EQ(-ENOENT, shmk_attach(uri, NULL, &s));
	ASSERT_EQ(0, shmk_pool_create(uri, &persists));
	ASSERT_EQ(0, shmk_attach(uri, NULL, &s));
	ASSERT_EQ(0, shmk_attach(uri, NULL, &o));
	EXPECT_EQ(0, shmk_pool_drain(uri));
	EXPECT_EQ(0, shmk_pool_drain(uri));
	EXPECT_EQ(-ESHUTDOWN, shmk_attach(uri, NULL, &x));
	EXPECT_EQ(-ESHUTDOWN, shmk_attach(uri, &create, &x));
	EXPECT_EQ(-EEXIST, shmk_pool_create(uri, &persists));
	EXPECT_EQ(-EBUSY, shmk_pool_destroy(uri));
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(SHMK_POOL_DRAINING, stat.flags);
	q = queue(s, "q", 0);				/* who is in goes on */
	ASSERT_NE(NULL, q);
	EXPECT_EQ(0, send_no(q, 1));
	EXPECT_EQ(1, recv_no(q, SHMK_TRY));
	shmk_detach(s);
	EXPECT_EQ(-ESHUTDOWN, shmk_attach(uri, NULL, &x));
	shmk_detach(o);
	EXPECT_EQ(-ENOENT, shmk_attach(uri, NULL, &x));
	EXPECT_EQ(0, dir_entries(test_dir));
}

static int count(const struct shmk_holding *h, void *arg)
{
	unsigned int *queued = arg;

	*queued += h->state == SHMK_HOLDING_QUEUED;
	return 0;
}

TEST(drained_pool_can_be_looked_at_and_goes_with_who_looks)
{
	struct shmk_attach_opts look = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_pool_opts persists = pool_opts;
	struct shmk_pool_stat stat;
	struct shmk *s, *o, *x;
	unsigned int queued = 0;
	char uri[64];

	test_uri(uri, "drain");
	persists.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(uri, &persists));
	ASSERT_EQ(0, shmk_attach(uri, NULL, &s));
	ASSERT_EQ(0, send_no(queue(s, "q", 0), 1));
	ASSERT_EQ(0, shmk_pool_drain(uri));
	ASSERT_EQ(0, shmk_attach(uri, &look, &o));
	ASSERT_EQ(0, shmk_pool_stat(o, &stat));
	EXPECT_EQ(SHMK_POOL_DRAINING, stat.flags);
	EXPECT_EQ(2, stat.peers_now);
	EXPECT_EQ(0, shmk_pool_dump(o, count, &queued));
	EXPECT_EQ(1, queued);
	EXPECT_EQ(0, shmk_pool_check(o, NULL, 0));
	EXPECT_EQ(NULL, queue(o, "new", 0));
	/* It stays what it is: the last of all takes it along. */
	shmk_detach(s);
	EXPECT_EQ(-ESHUTDOWN, shmk_attach(uri, NULL, &x));
	EXPECT_EQ(-EEXIST, shmk_pool_create(uri, &persists));
	shmk_detach(o);
	EXPECT_EQ(-ENOENT, shmk_attach(uri, &look, &x));
	EXPECT_EQ(0, dir_entries(test_dir));
}

static void pool_user(struct child_end *end, void *arg)
{
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s))
		_exit(1);
	tell(end, 1);
	hear(end->from);
	shmk_detach(s);
	tell(end, 2);
}

TEST(drained_pool_goes_when_its_peers_die)
{
	struct shmk_pool_opts persists = pool_opts;
	struct child c[2];
	struct shmk *s;
	char uri[64];
	int64_t end;
	int ret;

	test_uri(uri, "drain");
	persists.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(uri, &persists));
	for (int i = 0; i < 2; i++) {
		child_start(&c[i], pool_user, uri);
		ASSERT_EQ(1, child_hear(&c[i]));
	}
	EXPECT_EQ(0, shmk_pool_drain(uri));
	child_tell(&c[0], 0);
	EXPECT_EQ(2, child_hear(&c[0]));
	child_wait(&c[0]);
	EXPECT_EQ(-ESHUTDOWN, shmk_attach(uri, NULL, &s));
	child_kill(&c[1]);
	for (end = watchdog(); (ret = shmk_attach(uri, NULL, &s)) == -ESHUTDOWN && now_ns() < end;)
		usleep(1000);
	EXPECT_EQ(-ENOENT, ret);
	EXPECT_EQ(0, dir_entries(test_dir));
}

TEST_HARNESS_MAIN
