// SPDX-License-Identifier: GPL-2.0-only
/*
 * peer_test.c - peers as others see them: there, gone, how, and what came back.
 * On both backends.
 */
#include "lib_test.h"
#include "kselftest_harness.h"

#define HELD	10

FIXTURE(peer)
{
	char			uri[128];
	struct shmk_pool_opts	opts;
	struct shmk		*s;
	struct shmk_queue	*q;
	int			fds;
	int			names;
};

FIXTURE_SETUP(peer)
{
	struct shmk_attach_opts create = { .create = &self->opts };
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };

	test_uri(self->uri, "peer");
	self->opts = (struct shmk_pool_opts) { .bytes = 4 * MIB, .nr_peers = 16 };
	self->names = dir_entries(test_dir);
	self->fds = open_fds();
	ASSERT_EQ(0, shmk_attach(self->uri, &create, &self->s));
	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &qopts, SHMK_TRY, &self->q));
}

/* Everything is where it was, in the pool and outside. */
FIXTURE_TEARDOWN(peer)
{
	struct shmk_pool_stat stat;
	char report[256] = "";

	EXPECT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(1, stat.peers_now);
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_EQ(stat.attaches, stat.detaches + stat.deaths + 1);
	EXPECT_EQ(0, shmk_pool_check(self->s, report, sizeof(report)))
		TH_LOG("%s", report);
	shmk_detach(self->s);
	EXPECT_EQ(self->fds, open_fds());
	EXPECT_EQ(0, pool_mappings());
	EXPECT_EQ(self->names, dir_entries(test_dir));
}

/* A peer that says who it is, holds some blocks, and then does as it is told. */
enum { DETACH, EXIT, EXEC, PARK };

static void peer_body(struct child_end *end, void *arg)
{
	struct shmk_msg msg[HELD];
	struct shmk_queue *q;
	struct shmk *s;

	memset(msg, 0, sizeof(msg));
	prctl(PR_SET_NAME, "a peer");
	if (shmk_attach(arg, NULL, &s) || shmk_queue_open(s, "q", NULL, SHMK_TRY, &q))
		_exit(1);
	tell(end, shmk_self(s));
	tell(end, shmk_self_gen(s));
	for (int i = 0; i < HELD; i++)
		if (shmk_alloc(s, 2000, 0, &msg[i]))
			_exit(2);
	tell(end, HELD);
	switch (hear(end->from)) {
	case DETACH:
		shmk_detach(s);
		break;
	case EXIT:
		_exit(3);
	case EXEC:
		tell(end, 0);
		execl("/bin/sleep", "sleep", "1000", NULL);
		_exit(4);
	case PARK:
		pause();
	}
}

struct life {
	struct child	child;
	uint32_t	id;
	uint32_t	gen;
};

static void life_start(struct life *life, char *uri)
{
	child_start(&life->child, peer_body, uri);
	life->id = child_hear(&life->child);
	life->gen = child_hear(&life->child);
	child_hear(&life->child);
}

TEST_F(peer, a_deadline_is_taken_where_somebody_looks)
{
	struct shmk_peer peer;

	EXPECT_EQ(on_module() ? 0 : -EOPNOTSUPP, shmk_stuck_after(self->s, 86400000));
	EXPECT_EQ(on_module() ? -EINVAL : -EOPNOTSUPP, shmk_stuck_after(self->s, 86400001));
	shmk_not_stuck(self->s);
	ASSERT_EQ(0, shmk_peer_next(self->s, shmk_self(self->s), &peer));
	EXPECT_FALSE(peer.stuck);
	EXPECT_EQ(0, shmk_pool_check(self->s, NULL, 0));
}

TEST_F(peer, a_peer_is_told_by_name_and_number)
{
	struct shmk_peer peer;
	struct life l;

	life_start(&l, self->uri);
	EXPECT_TRUE(shmk_peer_alive(self->s, l.id, l.gen));
	EXPECT_FALSE(shmk_peer_alive(self->s, l.id, l.gen + 1));
	EXPECT_FALSE(shmk_peer_alive(self->s, 0, 0));
	EXPECT_FALSE(shmk_peer_alive(self->s, 17, 1));
	EXPECT_FALSE(shmk_peer_alive(self->s, UINT32_MAX, 1));
	memset(&peer, 0xaa, sizeof(peer));
	ASSERT_EQ(0, shmk_peer_next(self->s, shmk_self(self->s) + 1, &peer));
	EXPECT_EQ(l.id, peer.id);
	EXPECT_EQ(l.gen, peer.gen);
	EXPECT_EQ(l.child.pid, peer.pid);
	EXPECT_EQ(geteuid(), peer.uid);
	EXPECT_EQ(4096, peer.nr_entries);
	EXPECT_FALSE(peer.dead);
	EXPECT_FALSE(peer.rdonly);
	EXPECT_GE((uint64_t)now_ns(), peer.attached_ns);
	EXPECT_STREQ("a peer", peer.comm);
	EXPECT_EQ(-ENOENT, shmk_peer_next(self->s, l.id + 1, &peer));
	EXPECT_EQ(-ENOENT, shmk_peer_next(self->s, UINT32_MAX, &peer));
	child_tell(&l.child, DETACH);
	EXPECT_EQ(0, child_wait(&l.child));
	EXPECT_FALSE(shmk_peer_alive(self->s, l.id, l.gen));
}

/* Exactly one end, of this life, with all that it held. */
static void expect_end(struct __test_metadata *_metadata, struct shmk *s, const struct life *l,
		       uint32_t type, uint32_t reason, int32_t code)
{
	struct shmk_pool_stat stat;
	struct shmk_event e;

	memset(&e, 0xaa, sizeof(e));
	ASSERT_EQ(0, event_wait_type(s, &e, type));
	EXPECT_EQ(on_module() || type == SHMK_EV_DETACHED ? reason : SHMK_REASON_UNKNOWN, e.reason);
	if (on_module())
		EXPECT_EQ(code, e.code);
	EXPECT_EQ(l->id, e.peer);
	EXPECT_EQ(l->gen, e.gen);
	EXPECT_EQ(l->child.pid, e.pid);
	EXPECT_EQ(geteuid(), e.uid);
	EXPECT_EQ(HELD, e.blocks);
	EXPECT_EQ(HELD * 2048, e.bytes);
	EXPECT_EQ(0, e.messages);
	EXPECT_LT(0, e.took_ns);
	EXPECT_GE((uint64_t)now_ns(), e.time_ns);
	EXPECT_FALSE(shmk_peer_alive(s, l->id, l->gen));
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(type == SHMK_EV_DIED, stat.deaths);
	EXPECT_EQ(type == SHMK_EV_DETACHED, stat.detaches);
	EXPECT_EQ(HELD, stat.reclaimed_blocks);
	EXPECT_EQ(HELD * 2048, stat.reclaimed_bytes);
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_EQ(-EAGAIN, shmk_event_next(s, &e));
}

TEST_F(peer, a_kill_gives_back_what_was_held)
{
	struct life l;

	life_start(&l, self->uri);
	EXPECT_EQ(SIGKILL, child_kill(&l.child));
	expect_end(_metadata, self->s, &l, SHMK_EV_DIED, SHMK_REASON_KILLED, SIGKILL);
}

TEST_F(peer, an_exit_gives_back_what_was_held)
{
	struct life l;

	life_start(&l, self->uri);
	child_tell(&l.child, EXIT);
	EXPECT_EQ(3 << 8, child_wait(&l.child));
	expect_end(_metadata, self->s, &l, SHMK_EV_DIED, SHMK_REASON_EXITED, 3);
}

TEST_F(peer, a_detach_gives_back_what_was_held)
{
	struct life l;

	life_start(&l, self->uri);
	child_tell(&l.child, DETACH);
	EXPECT_EQ(0, child_wait(&l.child));
	expect_end(_metadata, self->s, &l, SHMK_EV_DETACHED, SHMK_REASON_DETACHED, 0);
}

TEST_F(peer, exec_is_the_end_of_the_peer)
{
	struct life l;

	life_start(&l, self->uri);
	child_tell(&l.child, EXEC);
	EXPECT_EQ(0, child_hear(&l.child));
	expect_end(_metadata, self->s, &l, SHMK_EV_DIED, SHMK_REASON_EXEC, 0);
	EXPECT_EQ(0, kill(l.child.pid, 0));
	child_kill(&l.child);
}

TEST_F(peer, a_stopped_peer_is_alive)
{
	struct shmk_event e;
	struct life l;
	int status;

	life_start(&l, self->uri);
	kill(l.child.pid, SIGSTOP);
	ASSERT_EQ(l.child.pid, waitpid(l.child.pid, &status, WUNTRACED));
	ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_ATTACHED));
	EXPECT_EQ(-EAGAIN, shmk_event_next(self->s, &e));
	EXPECT_TRUE(shmk_peer_alive(self->s, l.id, l.gen));
	child_kill(&l.child);
	ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
}

TEST_F(peer, an_id_comes_back_with_another_generation)
{
	struct shmk_event e;
	struct life l, m;

	life_start(&l, self->uri);
	child_kill(&l.child);
	ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
	life_start(&m, self->uri);
	EXPECT_EQ(l.id, m.id);
	EXPECT_LT(l.gen, m.gen);
	EXPECT_FALSE(shmk_peer_alive(self->s, l.id, l.gen));
	child_kill(&m.child);
	ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
}

TEST_F(peer, ids_run_out_and_come_back_with_a_death)
{
	struct shmk *all[16];
	struct shmk *one = (void *)-1;
	struct shmk_event e;
	struct life l;
	int i;

	life_start(&l, self->uri);
	for (i = 0; i < 14; i++)
		ASSERT_EQ(0, shmk_attach(self->uri, NULL, &all[i]));
	EXPECT_EQ(-ENOSPC, shmk_attach(self->uri, NULL, &one));
	EXPECT_EQ((void *)-1, one);
	child_kill(&l.child);
	if (on_module())
		ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
	/* On local whoever attaches looks for the dead first. */
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &one));
	EXPECT_EQ(l.id, shmk_self(one));
	shmk_detach(one);
	for (i = 0; i < 14; i++)
		shmk_detach(all[i]);
}

TEST_F(peer, memory_comes_back_to_who_runs_short)
{
	struct shmk_msg msg[64];
	struct shmk_event e;
	struct life l;
	int nr, again;

	memset(msg, 0, sizeof(msg));
	life_start(&l, self->uri);
	for (nr = 0; nr < 64; nr++)
		if (shmk_alloc(self->s, 120000, 0, &msg[nr]))
			break;
	EXPECT_LT(10, nr);
	EXPECT_EQ(-ENOMEM, shmk_alloc(self->s, 120000, 0, &msg[nr]));
	for (int i = 0; i < nr; i++)
		shmk_free(&msg[i]);
	child_kill(&l.child);
	if (on_module())
		ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
	for (again = 0; again < 64; again++)
		if (shmk_alloc(self->s, 120000, 0, &msg[again]))
			break;
	EXPECT_LE(nr, again);
	for (int i = 0; i < again; i++)
		shmk_free(&msg[i]);
}

TEST_F(peer, the_dead_have_no_queue_open)
{
	struct shmk_queue_stats stats;
	struct shmk_event e;
	struct life l;

	life_start(&l, self->uri);
	ASSERT_EQ(0, shmk_queue_stats(self->q, &stats));
	EXPECT_EQ(2, stats.nr_open);
	shmk_queue_close(self->q);
	EXPECT_EQ(-EBUSY, shmk_queue_remove(self->s, "q"));
	child_kill(&l.child);
	if (on_module())
		ASSERT_EQ(0, event_wait_type(self->s, &e, SHMK_EV_DIED));
	EXPECT_EQ(0, shmk_queue_remove(self->s, "q"));
}

TEST_F(peer, a_read_only_member_comes_and_dies)
{
	struct shmk_attach_opts rdonly = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_peer peer;
	struct shmk *r;

	ASSERT_EQ(0, shmk_attach(self->uri, &rdonly, &r));
	ASSERT_EQ(0, shmk_peer_next(self->s, shmk_self(r), &peer));
	EXPECT_TRUE(peer.rdonly);
	EXPECT_TRUE(shmk_peer_alive(r, shmk_self(self->s), shmk_self_gen(self->s)));
	shmk_detach(r);
}

/* -------------------------------------------------------------- waiting -- */

static void wait_body(struct child_end *end, void *arg)
{
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s))
		_exit(1);
	tell(end, 0);
	if (shmk_wait_peers(s, 4, watchdog()))
		_exit(2);
	tell(end, 1);
	hear(end->from);
	shmk_detach(s);
}

TEST_F(peer, all_wait_until_all_are_there)
{
	struct child c[3];
	int i;

	EXPECT_EQ(0, shmk_wait_peers(self->s, 1, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_wait_peers(self->s, 4, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(self->s, 4, now_ns() + 10000000));
	EXPECT_EQ(-EINVAL, shmk_wait_peers(self->s, 17, SHMK_FOREVER));
	for (i = 0; i < 3; i++)
		child_start(&c[i], wait_body, self->uri);
	EXPECT_EQ(0, shmk_wait_peers(self->s, 4, watchdog()));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, child_hear(&c[i]));
		EXPECT_EQ(1, child_hear(&c[i]));
	}
	for (i = 0; i < 3; i++) {
		child_tell(&c[i], 0);
		EXPECT_EQ(0, child_wait(&c[i]));
	}
}

TEST_F(peer, waiting_for_peers_can_be_interrupted)
{
	shmk_interrupt(self->s);
	EXPECT_EQ(-EINTR, shmk_wait_peers(self->s, 2, watchdog()));
	shmk_resume(self->s);
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(self->s, 2, now_ns() + 1000000));
}

/* --------------------------------------------------------------- events -- */

TEST_F(peer, events_tell_everything_in_order)
{
	static const uint32_t expected[] = {
		SHMK_EV_QUEUE_CREATED, SHMK_EV_ATTACHED, SHMK_EV_QUEUE_CREATED,
		SHMK_EV_QUEUE_REMOVED, SHMK_EV_DETACHED,
	};
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	struct pollfd p = { .fd = shmk_event_fd(self->s), .events = POLLIN };
	struct shmk_queue *q;
	struct shmk_event e;
	uint64_t seq = 0;
	struct shmk *t;
	size_t i;

	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	ASSERT_EQ(0, shmk_queue_open(t, "r", &qopts, SHMK_TRY, &q));
	shmk_queue_close(q);
	ASSERT_EQ(0, shmk_queue_remove(t, "r"));
	shmk_detach(t);
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		EXPECT_EQ(1, poll(&p, 1, WATCHDOG_MS));
		ASSERT_EQ(0, shmk_event_next(self->s, &e));
		EXPECT_EQ(expected[i], e.type);
		if (i)
			EXPECT_EQ(seq + 1, e.seq);
		seq = e.seq;
	}
	EXPECT_EQ(-EAGAIN, shmk_event_next(self->s, &e));
	EXPECT_EQ(0, poll(&p, 1, 0));
}

TEST_F(peer, a_slow_reader_learns_how_many_events_it_lost)
{
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	const int rounds = 700;		/* 1,401 events, of which 1,024 are kept */
	uint64_t lost = 0, seen = 0, seq = 0;
	struct shmk_queue *q;
	struct shmk_event e;
	int ret;

	for (int i = 0; i < rounds; i++) {
		ASSERT_EQ(0, shmk_queue_open(self->s, "r", &qopts, SHMK_TRY, &q));
		shmk_queue_close(q);
		ASSERT_EQ(0, shmk_queue_remove(self->s, "r"));
	}
	while (!(ret = shmk_event_next(self->s, &e))) {
		if (e.type == SHMK_EV_LOST) {
			lost += e.code;
			continue;
		}
		if (seen++)
			EXPECT_EQ(seq + 1, e.seq);
		seq = e.seq;
	}
	EXPECT_EQ(-EAGAIN, ret);
	EXPECT_LT(0, lost);
	EXPECT_LT(100, seen);
	EXPECT_EQ(1 + 2 * rounds, lost + seen);
}

/* Its events begin when it comes. */
TEST_F(peer, the_past_is_not_told)
{
	struct shmk_event e;
	struct shmk *t;

	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	EXPECT_EQ(-EAGAIN, shmk_event_next(t, &e));
	shmk_detach(t);
}

TEST_HARNESS_MAIN
