// SPDX-License-Identifier: GPL-2.0-only
/*
 * mail_test.c - tags, mailboxes, requests and replies.
 *
 * Attachments of one process are as many peers; who is killed is a child.
 * SHMK_TEST_BACKEND=local|module.
 */
#include <malloc.h>
#include <pthread.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define POOL	(4 * MIB)

static struct shmk *peer(const char *uri)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = 32, .nr_queues = 16 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s = NULL;

	return shmk_attach(uri, &opts, &s) ? NULL : s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags,
				uint32_t max_tries)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | flags, .capacity = 4, .max_tries = max_tries,
	};
	struct shmk_queue *q = NULL;

	return shmk_queue_open(s, name, &opts, SHMK_TRY, &q) ? NULL : q;
}

static int text(struct shmk *s, const char *what, size_t len, struct shmk_msg *msg)
{
	int ret = shmk_alloc(s, len, 0, msg);

	if (!ret)
		snprintf(msg->data, len, "%s", what);
	return ret;
}

#define EXPECT_CLEAN(s) do {						\
	char report_[256] = "";						\
	EXPECT_EQ(0, shmk_pool_check(s, report_, sizeof(report_)))	\
		TH_LOG("%s", report_);					\
} while (0)

FIXTURE(mail) {
	char uri[64];
	struct shmk *s, *o;
	struct shmk_mailbox *mine, *theirs;
};

FIXTURE_SETUP(mail)
{
	test_uri(self->uri, "mail");
	self->s = peer(self->uri);
	ASSERT_NE(NULL, self->s);
	self->o = peer(self->uri);
	ASSERT_NE(NULL, self->o);
	ASSERT_EQ(0, shmk_mailbox_open(self->s, NULL, &self->mine));
	ASSERT_EQ(0, shmk_mailbox_open(self->o, NULL, &self->theirs));
}

FIXTURE_TEARDOWN(mail)
{
	struct shmk_pool_stat stat;

	EXPECT_CLEAN(self->s);
	shmk_mailbox_close(self->theirs);
	shmk_detach(self->o);
	shmk_mailbox_close(self->mine);
	settled(self->s);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_CLEAN(self->s);
	shmk_detach(self->s);
	shmk_pool_destroy(self->uri);
	EXPECT_EQ(0, pool_mappings());
}

/* ---------------------------------------------------------------- tags -- */

TEST_F(mail, tags_go_with_the_message)
{
	static const uint32_t kinds[] = {
		0, SHMK_QUEUE_SP, SHMK_QUEUE_SC, SHMK_QUEUE_REDELIVER,
	};
	struct shmk_queue *a, *b;
	struct shmk_msg m, n;
	uint32_t i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		char name[8] = { 't', (char)('0' + i), 0 };

		a = queue(self->s, name, SHMK_QUEUE_TAGGED | kinds[i], 0);
		b = queue(self->o, name, 0, 0);
		ASSERT_NE(NULL, a);
		ASSERT_NE(NULL, b);
		ASSERT_EQ(0, text(self->s, "block", 600, &m));
		EXPECT_EQ(0, m.tag);
		m.tag = 7 + i;
		m.id = 1ULL << 60;
		ASSERT_EQ(0, shmk_send(a, &m, SHMK_TRY));
		ASSERT_EQ(0, shmk_send_copy(a, "0123456789012345678901234567890", 32, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(b, &m, SHMK_TRY));
		ASSERT_EQ(0, shmk_recv(b, &n, SHMK_TRY));
		EXPECT_STREQ("block", m.data);
		EXPECT_EQ(7 + i, m.tag);
		EXPECT_EQ(1ULL << 60, m.id);
		EXPECT_EQ(shmk_self(self->s), m.sender);
		EXPECT_EQ(shmk_self_gen(self->s) & 0xffff, m.sender_gen);
		EXPECT_STREQ("0123456789012345678901234567890", n.data);
		EXPECT_EQ(0, n.tag);
		EXPECT_EQ(32, n.len);
		EXPECT_EQ(SHMK_KIND_INLINE, n.kind);
		EXPECT_CLEAN(self->s);
		shmk_free(&n);
		shmk_free(&m);
		shmk_queue_close(a);
		shmk_queue_close(b);
	}
}

/* --------------------------------------------------------------- mail -- */

TEST_F(mail, by_sender_and_tag_in_order)
{
	struct shmk *third = peer(self->uri);
	uint32_t me = shmk_self(self->s), from = shmk_self(self->o), other;
	struct shmk_mail_info info = { 9, 9, 9, 9 };
	struct shmk_msg m;
	uint32_t i;

	ASSERT_NE(NULL, third);
	other = shmk_self(third);
	for (i = 0; i < 6; i++)
		ASSERT_EQ(0, shmk_mail_send_copy(self->o, me, 0, i % 2, &i, sizeof(i), SHMK_TRY));
	for (; i < 9; i++)
		ASSERT_EQ(0, shmk_mail_send_copy(third, me, 0, 1, &i, sizeof(i), SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_mail_probe(self->mine, from, 5, &info));
	EXPECT_EQ(9, info.tag);
	ASSERT_EQ(0, shmk_mail_probe(self->mine, SHMK_ANY_PEER, 1, &info));
	EXPECT_EQ(from, info.from);
	EXPECT_EQ(1, info.tag);
	EXPECT_EQ(sizeof(i), info.len);
	for (i = 1; i < 6; i += 2) {
		ASSERT_EQ(0, shmk_mail_recv(self->mine, from, 1, &m, SHMK_TRY));
		EXPECT_EQ(i, *(uint32_t *)m.data);
		shmk_free(&m);
	}
	EXPECT_EQ(-EAGAIN, shmk_mail_recv(self->mine, from, 1, &m, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_mail_recv(self->mine, from, 1, &m, shmk_deadline_ms(10)));
	ASSERT_EQ(0, shmk_mail_recv(self->mine, other, SHMK_ANY_TAG, &m, SHMK_TRY));
	EXPECT_EQ(6, *(uint32_t *)m.data);
	shmk_free(&m);
	for (i = 0; i < 5; i++) {
		static const uint32_t left[] = { 0, 2, 4, 7, 8 };

		ASSERT_EQ(0, shmk_mail_recv(self->mine, SHMK_ANY_PEER, SHMK_ANY_TAG, &m, SHMK_TRY));
		EXPECT_EQ(left[i], *(uint32_t *)m.data);
		shmk_free(&m);
	}
	shmk_detach(third);
}

TEST_F(mail, a_block_moves)
{
	struct shmk_msg m;
	void *at;

	ASSERT_EQ(0, text(self->o, "far", 100000, &m));
	at = (void *)((char *)m.data - (char *)self->o->data);
	ASSERT_EQ(0, shmk_mail_send(self->o, shmk_self(self->s), shmk_self_gen(self->s), 3, &m,
				    SHMK_TRY));
	EXPECT_EQ(NULL, m.data);
	ASSERT_EQ(0, shmk_mail_recv(self->mine, SHMK_ANY_PEER, 3, &m, SHMK_TRY));
	EXPECT_STREQ("far", m.data);
	EXPECT_EQ(at, (void *)((char *)m.data - (char *)self->s->data));
	shmk_free(&m);
}

TEST_F(mail, errors)
{
	struct shmk *third = peer(self->uri);
	struct shmk_mailbox *mb;
	uint32_t id = shmk_self(third), gen = shmk_self_gen(third);
	char c = 1;

	EXPECT_EQ(-EBUSY, shmk_mailbox_open(self->s, NULL, &mb));
	EXPECT_EQ(NULL, mb);
	EXPECT_EQ(-ENOENT, shmk_mail_send_copy(self->s, id, 0, 1, &c, 1, SHMK_TRY));
	EXPECT_EQ(-ENOENT, shmk_mail_send_copy(self->s, id, 0, 1, &c, 1, shmk_deadline_ms(10)));
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, id, gen + 1, 1, &c, 1, SHMK_TRY));
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, 30, 0, 1, &c, 1, SHMK_TRY));
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, 0, 0, 1, &c, 1, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_mail_send_copy(self->s, id, 0, SHMK_TAG_REPLY, &c, 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
	EXPECT_EQ(0, shmk_mail_send_copy(self->s, id, 0, 1, &c, 1, SHMK_TRY));
	shmk_mailbox_close(mb);
	EXPECT_EQ(-ENOENT, shmk_mail_send_copy(self->s, id, 0, 1, &c, 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
	EXPECT_EQ(0, shmk_mail_send_copy(self->s, id, 0, 1, &c, 1, SHMK_TRY));
	shmk_mailbox_close(mb);
	shmk_detach(third);
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, id, gen, 1, &c, 1, SHMK_FOREVER));
}

TEST_F(mail, the_next_life_gets_nothing_of_the_last)
{
	struct shmk *third = peer(self->uri);
	uint32_t id = shmk_self(third), gen = shmk_self_gen(third);
	struct shmk_mailbox *mb;
	struct shmk_msg m;
	char c = 1;

	ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
	ASSERT_EQ(0, shmk_mail_send_copy(self->s, id, gen, 1, &c, 1, SHMK_TRY));
	shmk_detach(third);		/* mailbox and all */
	third = peer(self->uri);
	ASSERT_EQ(id, shmk_self(third));
	ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, id, gen, 1, &c, 1, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_mail_recv(mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &m, SHMK_TRY));
	EXPECT_EQ(0, shmk_mail_send_copy(self->s, id, 0, 1, &c, 1, SHMK_TRY));
	EXPECT_EQ(0, shmk_mail_recv(mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &m, SHMK_TRY));
	shmk_free(&m);
	shmk_mailbox_close(mb);
	shmk_detach(third);
}

/* A child that opens a mailbox of 4, or is a server, and does not look into it. */
static void owner(struct child_end *end, void *arg)
{
	struct shmk_mailbox_opts opts = { .capacity = 4 };
	struct shmk_mailbox *mb;
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s) || shmk_mailbox_open(s, &opts, &mb))
		_exit(91);
	tell(end, (int)shmk_self(s));
	for (;;)
		pause();
}

static void *kill_later(void *arg)
{
	struct timespec ts = { .tv_nsec = 50000000 };

	nanosleep(&ts, NULL);
	child_kill(arg);
	return NULL;
}

TEST_F(mail, a_sender_that_waits_for_room_hears_of_the_death)
{
	struct child c;
	pthread_t thread;
	uint32_t to;
	char b = 1;
	int i;

	child_start(&c, owner, self->uri);
	to = (uint32_t)child_hear(&c);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, shmk_mail_send_copy(self->s, to, 0, 1, &b, 1, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_mail_send_copy(self->s, to, 0, 1, &b, 1, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_mail_send_copy(self->s, to, 0, 1, &b, 1, shmk_deadline_ms(10)));
	ASSERT_EQ(0, pthread_create(&thread, NULL, kill_later, &c));
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, to, 0, 1, &b, 1, watchdog()));
	pthread_join(thread, NULL);
	EXPECT_EQ(-EPIPE, shmk_mail_send_copy(self->s, to, 0, 1, &b, 1, SHMK_TRY));
}

static void *take_later(void *arg)
{
	FIXTURE_DATA(mail) *self = arg;
	struct timespec ts = { .tv_nsec = 50000000 };
	struct shmk_msg m;

	nanosleep(&ts, NULL);
	for (int i = 0; i < 65; i++)
		if (!shmk_mail_recv(self->theirs, SHMK_ANY_PEER, 1, &m, watchdog()))
			shmk_free(&m);
	return NULL;
}

TEST_F(mail, a_sender_waits_for_room)
{
	pthread_t thread;
	char b = 1;
	int i;

	for (i = 0; i < 64; i++)
		ASSERT_EQ(0, shmk_mail_send_copy(self->s, shmk_self(self->o), 0, 1, &b, 1, SHMK_TRY));
	ASSERT_EQ(0, pthread_create(&thread, NULL, take_later, self));
	EXPECT_EQ(0, shmk_mail_send_copy(self->s, shmk_self(self->o), 0, 1, &b, 1, watchdog()));
	pthread_join(thread, NULL);
}

static void *send_waiting(void *arg)
{
	FIXTURE_DATA(mail) *self = arg;
	char b = 1;

	return (void *)(long)shmk_mail_send_copy(self->s, shmk_self(self->o), 0, 1, &b, 1,
						 watchdog());
}

/*
 * Another has claimed the last slot and stands still: closing makes no room then, and what
 * is in the slot in the end will never be taken out.
 */
TEST_F(mail, a_sender_does_not_wait_at_a_closed_mailbox)
{
	struct shmk_slot *slot = shmk_slot_at(&shmk_mailbox_queue(self->theirs)->rv, 0);
	struct shmk_queue_stats stats;
	pthread_t thread;
	char b = 1;
	void *ret;
	int i;

	WRITE_ONCE(slot->p, SHMK_P(0, SHMK_KIND_CLAIMED, shmk_self(self->s)));
	for (i = 1; i < 64; i++)
		ASSERT_EQ(0, shmk_mail_send_copy(self->s, shmk_self(self->o), 0, 1, &b, 1, SHMK_TRY));
	ASSERT_EQ(0, pthread_create(&thread, NULL, send_waiting, self));
	do {
		usleep(1000);
		ASSERT_EQ(0, shmk_queue_stats(shmk_mailbox_queue(self->theirs), &stats));
	} while (!stats.send_waiting);
	/* What is behind the claimed slot is taken out, and makes no room. */
	shmk_mailbox_close(self->theirs);
	self->theirs = NULL;
	pthread_join(thread, &ret);
	EXPECT_EQ(-ENOENT, (int)(long)ret);
	EXPECT_EQ(-ENOENT, shmk_mail_send_copy(self->s, shmk_self(self->o), 0, 1, &b, 1, SHMK_TRY));
	WRITE_ONCE(slot->p, SHMK_P(0, SHMK_KIND_SKIP, 0));
}

/* ---------------------------------------------------------------- calls -- */

/* Answers @nr requests with their text in upper case; dies with the next one. */
struct service {
	const char	*uri;
	int		nr;
	bool		answers_last;	/* before it dies */
};

static int serve_one(struct shmk *s, struct shmk_queue *q, bool last, bool answers)
{
	struct shmk_msg req, rep;
	int ret = shmk_recv(q, &req, watchdog());

	if (ret)
		return ret;
	if (last && !answers)
		raise(SIGKILL);
	ret = text(s, req.data, req.len, &rep);
	if (ret)
		return ret;
	for (char *p = rep.data; *p; p++)
		*p = (char)(*p - 'a' + 'A');
	return shmk_reply(&req, &rep, watchdog());
}

static void server(struct child_end *end, void *arg)
{
	const struct service *v = arg;
	struct shmk_queue *q;
	struct shmk *s;

	if (shmk_attach(v->uri, NULL, &s) || shmk_queue_open(s, "svc", NULL, SHMK_TRY, &q))
		_exit(91);
	tell(end, 1);
	for (int i = 0; i < v->nr; i++)
		if (serve_one(s, q, false, true))
			_exit(92);
	serve_one(s, q, true, v->answers_last);
	raise(SIGKILL);
}

static struct shmk_queue *service(struct shmk *s, uint32_t max_tries)
{
	return queue(s, "svc", SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER, max_tries);
}

static bool all_served(struct shmk_queue *q)
{
	struct shmk_queue_stats stats;
	int64_t end = watchdog();

	while (!shmk_queue_stats(q, &stats) && stats.depth && now_ns() < end)
		usleep(1000);
	return !stats.depth;
}

TEST_F(mail, call_and_reply)
{
	struct service v = { .uri = self->uri, .nr = 3 };
	struct shmk_queue *q = service(self->s, 0);
	struct child c;
	struct shmk_msg m;
	int i;

	ASSERT_NE(NULL, q);
	child_start(&c, server, &v);
	ASSERT_EQ(1, child_hear(&c));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, text(self->s, i ? "again" : "abc", i == 2 ? 40000 : 12, &m));
		ASSERT_EQ(0, shmk_call(self->mine, q, &m, watchdog()));
		EXPECT_STREQ(i ? "AGAIN" : "ABC", m.data);
		shmk_free(&m);
	}
	/* A server that dies between its reply and the end of the request leaves that to another. */
	EXPECT_TRUE(all_served(q));
	child_kill(&c);
	shmk_queue_close(q);
}

TEST_F(mail, many_outstanding_in_any_order)
{
	struct shmk_queue *q = service(self->s, 0), *p = service(self->o, 0);
	struct shmk_msg m, req[3];
	int64_t id[3];
	int i;

	ASSERT_NE(NULL, q);
	ASSERT_NE(NULL, p);
	for (i = 0; i < 3; i++) {
		char word[2] = { (char)('a' + i), 0 };

		ASSERT_EQ(0, text(self->s, word, 2, &m));
		id[i] = shmk_request_send(self->mine, q, &m, SHMK_TRY);
		ASSERT_LT(0, id[i]);
		ASSERT_EQ(0, shmk_recv(p, &req[i], SHMK_TRY));
	}
	EXPECT_EQ(-EAGAIN, shmk_reply_recv(self->mine, id[1], &m, SHMK_TRY));
	EXPECT_EQ(-ENOENT, shmk_reply_recv(self->mine, id[2] + 1, &m, SHMK_TRY));
	for (i = 2; i >= 0; i--) {
		ASSERT_EQ(0, text(self->o, req[i].data, 2, &m));
		ASSERT_EQ(0, shmk_reply(&req[i], &m, SHMK_TRY));
		EXPECT_EQ(NULL, req[i].data);
		EXPECT_EQ(NULL, m.data);
	}
	ASSERT_EQ(0, shmk_reply_recv(self->mine, id[1], &m, SHMK_TRY));
	EXPECT_STREQ("b", m.data);
	shmk_free(&m);
	ASSERT_EQ(0, shmk_reply_recv(self->mine, 0, &m, SHMK_TRY));
	EXPECT_EQ((uint64_t)id[2], m.id);
	EXPECT_STREQ("c", m.data);
	shmk_free(&m);
	ASSERT_EQ(0, shmk_reply_recv(self->mine, 0, &m, SHMK_TRY));
	EXPECT_EQ((uint64_t)id[0], m.id);
	shmk_free(&m);
	EXPECT_EQ(-ENOENT, shmk_reply_recv(self->mine, 0, &m, SHMK_TRY));
	shmk_queue_close(q);
	shmk_queue_close(p);
}

TEST_F(mail, a_late_reply_is_dropped)
{
	struct shmk_queue *q = service(self->s, 0), *p = service(self->o, 0);
	struct shmk_msg m, req;
	int64_t id;

	ASSERT_EQ(0, text(self->s, "x", 2, &m));
	id = shmk_request_send(self->mine, q, &m, SHMK_TRY);
	ASSERT_LT(0, id);
	ASSERT_EQ(0, shmk_recv(p, &req, SHMK_TRY));
	EXPECT_EQ(0, shmk_request_cancel(self->mine, id));
	EXPECT_EQ(-ENOENT, shmk_request_cancel(self->mine, id));
	ASSERT_EQ(0, text(self->o, "y", 2, &m));
	EXPECT_EQ(0, shmk_reply(&req, &m, SHMK_TRY));
	ASSERT_EQ(0, text(self->s, "z", 2, &m));
	EXPECT_EQ(-ETIMEDOUT, shmk_call(self->mine, q, &m, shmk_deadline_ms(10)));
	EXPECT_EQ(NULL, m.data);
	EXPECT_EQ(-EAGAIN, shmk_mail_recv(self->mine, SHMK_ANY_PEER, SHMK_ANY_TAG, &m, SHMK_TRY));
	EXPECT_EQ(0, shmk_recv(p, &m, SHMK_TRY));
	shmk_free(&m);
	shmk_queue_close(q);
	shmk_queue_close(p);
}

TEST_F(mail, a_service_must_keep_its_requests)
{
	struct shmk_queue *q = queue(self->s, "no", SHMK_QUEUE_TAGGED, 0);
	struct shmk_msg m, req;

	ASSERT_NE(NULL, q);
	ASSERT_EQ(0, text(self->s, "x", 2, &m));
	EXPECT_EQ(-EINVAL, shmk_call(self->mine, q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_send(q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(q, &req, SHMK_TRY));
	ASSERT_EQ(0, text(self->s, "x", 2, &m));
	EXPECT_EQ(-EINVAL, shmk_reply(&req, &m, SHMK_TRY));
	shmk_free(&req);
	shmk_free(&m);
	shmk_queue_close(q);
}

TEST_F(mail, who_asked_is_gone)
{
	struct shmk_queue *p = service(self->o, 0), *q;
	struct shmk *third = peer(self->uri);
	struct shmk_mailbox *mb;
	struct shmk_msg m, req;

	ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
	q = service(third, 0);
	ASSERT_EQ(0, text(third, "x", 2, &m));
	ASSERT_LT(0, shmk_request_send(mb, q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(p, &req, SHMK_TRY));
	shmk_detach(third);
	ASSERT_EQ(0, text(self->o, "y", 2, &m));
	EXPECT_EQ(-EPIPE, shmk_reply(&req, &m, SHMK_TRY));
	EXPECT_EQ(NULL, req.data);
	EXPECT_NE(NULL, m.data);
	shmk_free(&m);
	shmk_queue_close(p);
}

/* By redelivery to another server; or, with one try, the caller hears of it. */
TEST_F(mail, the_death_of_a_server)
{
	struct service dies = { .uri = self->uri, .nr = 0 }, lives = { .uri = self->uri, .nr = 1 };
	struct shmk_queue *q = service(self->s, 0);
	struct child a, b;
	struct shmk_msg m;

	child_start(&a, server, &dies);
	ASSERT_EQ(1, child_hear(&a));
	ASSERT_EQ(0, text(self->s, "one", 8, &m));
	ASSERT_LT(0, shmk_request_send(self->mine, q, &m, SHMK_TRY));
	child_wait(&a);
	EXPECT_EQ(-ETIMEDOUT, shmk_reply_recv(self->mine, 0, &m, shmk_deadline_ms(150)));
	child_start(&b, server, &lives);
	ASSERT_EQ(1, child_hear(&b));
	ASSERT_EQ(0, shmk_reply_recv(self->mine, 0, &m, watchdog()));
	EXPECT_STREQ("ONE", m.data);
	shmk_free(&m);
	EXPECT_TRUE(all_served(q));
	child_kill(&b);
	shmk_queue_close(q);
}

TEST_F(mail, the_death_of_the_only_server_is_told_at_once)
{
	struct service dies = { .uri = self->uri, .nr = 0 };
	struct shmk_queue *q = service(self->s, 1);
	struct shmk_msg m;
	struct child a;
	int answers;

	for (answers = 0; answers < 2; answers++) {
		dies.answers_last = answers;
		child_start(&a, server, &dies);
		ASSERT_EQ(1, child_hear(&a));
		ASSERT_EQ(0, text(self->s, "one", 8, &m));
		EXPECT_EQ(answers ? 0 : -EOWNERDEAD, shmk_call(self->mine, q, &m, watchdog()));
		EXPECT_EQ(answers, m.data != NULL);
		shmk_free(&m);
		child_wait(&a);
	}
	shmk_queue_close(q);
}

TEST_F(mail, an_idle_server_that_dies_takes_nothing_along)
{
	struct service idle = { .uri = self->uri, .nr = 0 }, lives = { .uri = self->uri, .nr = 1 };
	struct shmk_queue *q = service(self->s, 1);
	struct child a, b;
	struct shmk_msg m;

	child_start(&a, server, &idle);
	ASSERT_EQ(1, child_hear(&a));
	child_kill(&a);
	child_start(&b, server, &lives);
	ASSERT_EQ(1, child_hear(&b));
	ASSERT_EQ(0, text(self->s, "one", 8, &m));
	EXPECT_EQ(0, shmk_call(self->mine, q, &m, watchdog()));
	shmk_free(&m);
	EXPECT_TRUE(all_served(q));
	child_kill(&b);
	shmk_queue_close(q);
}

/* One life: asks once, and is killed with its mailbox open. */
static void client(struct child_end *end, void *arg)
{
	struct shmk_mailbox *mb;
	struct shmk_queue *q;
	struct shmk_msg m;
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s) || shmk_mailbox_open(s, NULL, &mb) ||
	    shmk_queue_open(s, "svc", NULL, SHMK_TRY, &q) || text(s, "one", 8, &m))
		_exit(91);
	tell(end, shmk_call(mb, q, &m, watchdog()) ? 2 : 1);
	for (;;)
		pause();
}

static uint64_t queues_now(struct shmk *s)
{
	struct shmk_pool_stat stat;

	return shmk_pool_stat(s, &stat) ? UINT64_MAX : stat.queues_now;
}

static void *until_told(void *arg)
{
	char c;

	return (void *)read(*(int *)arg, &c, 1);
}

/* Whoever was answered and died leaves nothing behind with who answered. */
static void serve_lives(struct __test_metadata *_metadata, struct shmk *s, const char *uri)
{
	struct shmk_queue *q = service(s, 0);
	uint64_t before = queues_now(s), most = 0;
	struct child c;

	for (int i = 0; i < 40; i++) {
		child_start(&c, client, (void *)uri);
		ASSERT_EQ(0, serve_one(s, q, false, true));
		ASSERT_EQ(1, child_hear(&c));
		child_kill(&c);
		if (queues_now(s) > most)
			most = queues_now(s);
	}
	EXPECT_LE(most, before + 6);	/* of the last ones: settling takes its time */
	shmk_queue_close(q);
}

TEST_F(mail, many_lives_of_clients_leave_no_mailboxes)
{
	serve_lives(_metadata, self->s, self->uri);
}

/* A burst, and then the server only sleeps. */
TEST_F(mail, who_goes_to_sleep_closes_the_mailboxes_of_the_dead)
{
	struct shmk_queue *q = service(self->s, 0);
	uint64_t before = queues_now(self->s);
	struct child c[5];
	struct shmk_msg m;

	for (int i = 0; i < 5; i++) {
		child_start(&c[i], client, self->uri);
		ASSERT_EQ(0, serve_one(self->s, q, false, true));
		ASSERT_EQ(1, child_hear(&c[i]));
	}
	EXPECT_EQ(before + 5, queues_now(self->s));
	for (int i = 0; i < 5; i++)
		child_kill(&c[i]);
	for (int i = 0; i < 200 && queues_now(self->s) > before; i++)
		EXPECT_EQ(-ETIMEDOUT, shmk_recv(q, &m, shmk_deadline_ms(20)));
	EXPECT_EQ(before, queues_now(self->s));
	shmk_queue_close(q);
}

TEST_F(mail, many_lives_leave_no_mailboxes_with_threads)
{
	pthread_t thread;
	int idle[2];

	ASSERT_EQ(0, pipe(idle));
	ASSERT_EQ(0, pthread_create(&thread, NULL, until_told, &idle[0]));
	serve_lives(_metadata, self->s, self->uri);
	close(idle[1]);
	pthread_join(thread, NULL);
	close(idle[0]);
}

/* ------------------------------------------------------- whose letters -- */

struct letters {
	const char	*uri;
	uint32_t	to;
	int		nr;
};

/* Writes @nr letters with 1, 2 ... in them, and lives on. */
static void letter_writer(struct child_end *end, void *arg)
{
	const struct letters *l = arg;
	struct shmk *s;

	if (shmk_attach(l->uri, NULL, &s))
		_exit(91);
	for (char c = 1; c <= l->nr; c++)
		if (shmk_mail_send_copy(s, l->to, 0, 1, &c, 1, watchdog()))
			_exit(92);
	tell(end, (int)shmk_self(s));
	tell(end, (int)shmk_self_gen(s));
	for (;;)
		pause();
}

TEST_F(mail, of_one_life_only)
{
	struct letters two = { .uri = self->uri, .to = shmk_self(self->s), .nr = 2 };
	struct letters one = { .uri = self->uri, .to = shmk_self(self->s), .nr = 1 };
	struct shmk_mail_info info;
	struct child a, b;
	uint32_t id, gen;
	struct shmk_msg m;
	int64_t until;

	child_start(&a, letter_writer, &two);
	id = (uint32_t)child_hear(&a);
	gen = (uint32_t)child_hear(&a);
	EXPECT_EQ(-EINVAL, shmk_mail_recv_from(self->mine, id, 0, 1, &m, SHMK_TRY));
	EXPECT_EQ(-EINVAL, shmk_mail_recv_from(self->mine, SHMK_ANY_PEER, gen, 1, &m, SHMK_TRY));
	EXPECT_EQ(-EPIPE, shmk_mail_recv_from(self->mine, id, gen + 1, 1, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_mail_recv_from(self->mine, id, gen, 1, &m, SHMK_TRY));
	shmk_free(&m);
	EXPECT_EQ(0, shmk_mail_probe(self->mine, id, 1, &info));
	EXPECT_EQ(id, info.from);
	EXPECT_EQ(gen & 0xffff, info.gen);
	EXPECT_EQ(1, info.len);
	child_kill(&a);
	until = watchdog();
	do {
		self->s->backend->reap(self->s);
		child_start(&b, letter_writer, &one);
		if ((uint32_t)child_hear(&b) == id)
			break;
		child_kill(&b);
	} while (now_ns() < until);
	gen = (uint32_t)child_hear(&b);
	/* The new life has the id; its letter is another than what is left of the last. */
	ASSERT_EQ(0, shmk_mail_recv_from(self->mine, id, gen, 1, &m, SHMK_TRY));
	EXPECT_EQ(1, *(char *)m.data);
	shmk_free(&m);
	EXPECT_EQ(-EAGAIN, shmk_mail_recv_from(self->mine, id, gen, 1, &m, SHMK_TRY));
	/* The last one's is not lost, and is had by its own generation as well. */
	while (!shmk_mail_recv(self->mine, id, 1, &m, SHMK_TRY)) {
		EXPECT_NE(gen & 0xffff, m.sender_gen);
		shmk_free(&m);
	}
	child_kill(&b);
	EXPECT_EQ(-EPIPE, shmk_mail_recv_from(self->mine, id, gen, 1, &m, watchdog()));
}

TEST_F(mail, who_waits_for_one_hears_of_its_death)
{
	struct letters none = { .uri = self->uri, .to = shmk_self(self->s) };
	pthread_t thread;
	struct shmk_msg m;
	uint32_t id, gen;
	struct child c;

	child_start(&c, letter_writer, &none);
	id = (uint32_t)child_hear(&c);
	gen = (uint32_t)child_hear(&c);
	EXPECT_EQ(-ETIMEDOUT, shmk_mail_recv_from(self->mine, id, gen, 1, &m, shmk_deadline_ms(10)));
	ASSERT_EQ(0, pthread_create(&thread, NULL, kill_later, &c));
	EXPECT_EQ(-EPIPE, shmk_mail_recv_from(self->mine, id, gen, 1, &m, watchdog()));
	pthread_join(thread, NULL);
}

/* What is behind what was asked for stays in the queue, and holds senders back. */
TEST_F(mail, no_more_is_taken_out_than_is_looked_at)
{
	struct shmk_queue_stats stats;
	struct shmk_msg m;
	char b = 1;

	for (uint32_t i = 0; i < 5; i++)
		ASSERT_EQ(0, shmk_mail_send_copy(self->o, shmk_self(self->s), 0, i, &b, 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_mail_recv(self->mine, SHMK_ANY_PEER, 1, &m, SHMK_TRY));
	EXPECT_EQ(1, m.tag);
	shmk_free(&m);
	ASSERT_EQ(0, shmk_queue_stats(shmk_mailbox_queue(self->mine), &stats));
	EXPECT_EQ(3, stats.depth);
	for (uint32_t i = 0; i < 5; i++) {
		if (i == 1)
			continue;
		ASSERT_EQ(0, shmk_mail_recv(self->mine, SHMK_ANY_PEER, SHMK_ANY_TAG, &m, SHMK_TRY));
		EXPECT_EQ(i, m.tag);
		shmk_free(&m);
	}
}

/* ------------------------------------------------- mailboxes come and go -- */

/* A late reply to a request of the last mailbox is none to one of the next. */
TEST_F(mail, requests_of_the_next_mailbox_are_others)
{
	struct shmk_queue *q = service(self->s, 0), *p = service(self->o, 0);
	struct shmk_msg m, first, second;
	int64_t id[2];

	ASSERT_EQ(0, text(self->s, "first", 8, &m));
	id[0] = shmk_request_send(self->mine, q, &m, SHMK_TRY);
	ASSERT_LT(0, id[0]);
	ASSERT_EQ(0, shmk_recv(p, &first, SHMK_TRY));
	shmk_mailbox_close(self->mine);
	ASSERT_EQ(0, shmk_mailbox_open(self->s, NULL, &self->mine));
	ASSERT_EQ(0, text(self->s, "second", 8, &m));
	id[1] = shmk_request_send(self->mine, q, &m, SHMK_TRY);
	EXPECT_LT(id[0], id[1]);
	ASSERT_EQ(0, text(self->o, "to the first", 16, &m));
	EXPECT_EQ(0, shmk_reply(&first, &m, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_reply_recv(self->mine, 0, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(p, &second, SHMK_TRY));
	ASSERT_EQ(0, text(self->o, "to the second", 16, &m));
	EXPECT_EQ(0, shmk_reply(&second, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_reply_recv(self->mine, id[1], &m, SHMK_TRY));
	EXPECT_STREQ("to the second", m.data);
	shmk_free(&m);
	shmk_queue_close(q);
	shmk_queue_close(p);
}

TEST_F(mail, a_service_is_closed_before_its_reply_comes)
{
	struct shmk_queue *q = service(self->s, 1), *p = service(self->o, 1), *others[8];
	struct shmk_msg m, req;
	int i;

	ASSERT_EQ(0, text(self->s, "x", 8, &m));
	ASSERT_LT(0, shmk_request_send(self->mine, q, &m, SHMK_TRY));
	shmk_queue_close(q);
	for (i = 0; i < 8; i++) {	/* where it was, if it is freed */
		char name[4] = { 'q', (char)('0' + i), 0 };

		others[i] = queue(self->s, name, 0, 0);
	}
	EXPECT_EQ(-EAGAIN, shmk_reply_recv(self->mine, 0, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(p, &req, SHMK_TRY));
	ASSERT_EQ(0, text(self->o, "y", 8, &m));
	EXPECT_EQ(0, shmk_reply(&req, &m, SHMK_TRY));
	EXPECT_EQ(0, shmk_reply_recv(self->mine, 0, &m, SHMK_TRY));
	shmk_free(&m);
	for (i = 0; i < 8; i++)
		shmk_queue_close(others[i]);
	shmk_queue_close(p);
	EXPECT_EQ(0, shmk_queue_remove(self->o, "svc"));	/* nobody has it open by now */
}

/* Client and server of one queue; what is outstanding must not hide what is received. */
TEST_F(mail, a_service_is_opened_anew_by_who_has_asked)
{
	struct shmk_queue *q = service(self->s, 0), *other = queue(self->s, "other", 0, 0);
	struct shmk_msg m, req;

	ASSERT_EQ(0, text(self->s, "x", 600, &m));
	ASSERT_LT(0, shmk_request_send(self->mine, q, &m, SHMK_TRY));
	shmk_queue_close(q);
	q = service(self->s, 0);
	ASSERT_EQ(0, shmk_recv(q, &req, SHMK_TRY));
	EXPECT_EQ(0, shmk_send_ptr(other, req.data, req.len, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(other, &m, SHMK_TRY));
	shmk_free(&m);
	shmk_queue_close(q);
	shmk_queue_close(other);
}

TEST_F(mail, is_closed_with_a_full_ledger)
{
	struct shmk_attach_opts opts = { .nr_entries = 16 };
	struct shmk_mailbox *mb;
	struct shmk_msg m[32];
	struct shmk_queue *q;
	struct shmk *third;
	int n = 0;

	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &third));
	ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
	q = queue(self->s, "full", 0, 0);
	ASSERT_NE(NULL, q);
	shmk_queue_close(q);
	q = queue(third, "full", 0, 0);
	for (;; n++) {
		struct shmk_queue *from = queue(self->s, "full", 0, 0);

		ASSERT_EQ(0, text(self->s, "x", 600, &m[n]));
		ASSERT_EQ(0, shmk_send(from, &m[n], SHMK_TRY));
		shmk_queue_close(from);
		if (shmk_recv(q, &m[n], SHMK_TRY))
			break;
		ASSERT_GT(31, n);
	}
	ASSERT_EQ(0, text(self->s, "x", 600, &m[31]));
	ASSERT_EQ(0, shmk_mail_send(self->s, shmk_self(third), 0, 1, &m[31], SHMK_TRY));
	shmk_mailbox_close(mb);
	while (n--)
		shmk_free(&m[n]);
	ASSERT_EQ(0, shmk_recv(q, &m[0], SHMK_TRY));
	shmk_free(&m[0]);
	shmk_detach(third);
	/* The letter that could not be taken out goes with the mailbox, which its sender has open. */
	ASSERT_EQ(0, shmk_mail_send_copy(self->s, shmk_self(self->o), 0, 1, "", 1, SHMK_TRY));
}

/* shmk_detach() ends the mailbox, with what is in it. */
TEST_F(mail, a_mailbox_that_was_not_closed_is_not_left_over)
{
	struct shmk_mailbox *mb;
	struct shmk_queue *q;
	struct shmk *third;
	size_t before = 0;
	struct shmk_msg m;
	char b = 1;

	ASSERT_NE(NULL, service(self->s, 0));
	for (int i = 0; i < 220; i++) {
		if (i == 20)
			before = mallinfo2().uordblks;
		third = peer(self->uri);
		ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
		q = service(third, 0);
		ASSERT_EQ(0, text(third, "x", 8, &m));
		ASSERT_LT(0, shmk_request_send(mb, q, &m, SHMK_TRY));
		for (int k = 0; k < 3; k++)
			ASSERT_EQ(0, shmk_mail_send_copy(self->s, shmk_self(third), 0, 7, &b, 1,
							 SHMK_TRY));
		EXPECT_EQ(-EAGAIN, shmk_mail_recv(mb, SHMK_ANY_PEER, 8, &m, SHMK_TRY));
		shmk_detach(third);
		ASSERT_EQ(0, shmk_recv(service(self->s, 0), &m, SHMK_TRY));
		shmk_free(&m);
	}
	EXPECT_GT(before + 200 * sizeof(void *), mallinfo2().uordblks);
}

struct writer {
	struct shmk	*s;
	uint32_t	to;
	int		stop;		/* __atomic */
	int		sent;		/* by all */
};

static void *write_on(void *arg)
{
	struct writer *w = arg;
	char b = 1;

	while (!__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		int ret = shmk_mail_send_copy(w->s, w->to, 0, 1, &b, 1, SHMK_TRY);

		if (!ret)
			__atomic_add_fetch(&w->sent, 1, __ATOMIC_RELAXED);
		else if (ret != -EPIPE && ret != -ENOENT && ret != -EAGAIN)
			return (void *)(long)ret;
	}
	return NULL;
}

/* Whose box is closed is another thread's to write into just now. */
TEST_F(mail, threads_write_to_lives_that_end)
{
	struct shmk *third = peer(self->uri);
	struct writer w = { .s = self->s, .to = shmk_self(third) };
	struct shmk_mailbox *mb;
	pthread_t thread[3];
	struct shmk_msg m;
	void *ret;
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, write_on, &w));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(w.to, shmk_self(third));
		ASSERT_EQ(0, shmk_mailbox_open(third, NULL, &mb));
		ASSERT_EQ(0, shmk_mail_recv(mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &m, watchdog()));
		shmk_free(&m);
		if (i % 2)
			shmk_mailbox_close(mb);
		shmk_detach(third);
		third = peer(self->uri);
		ASSERT_NE(NULL, third);
	}
	__atomic_store_n(&w.stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, pthread_join(thread[i], &ret));
		EXPECT_EQ(NULL, ret);
	}
	EXPECT_LE(100, w.sent);
	EXPECT_GE(6, queues_now(self->s));
	shmk_detach(third);
}

TEST_HARNESS_MAIN
