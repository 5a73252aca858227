// SPDX-License-Identifier: GPL-2.0-only
/*
 * kill_sweep.c - a victim is killed after every instruction of an operation.
 *
 * For each operation and each n: a child attaches, prepares, stops at a
 * breakpoint, is single-stepped n instructions into the operation and killed.
 * Then a survivor, with nothing but the ordinary API, must find the pool
 * consistent, every message delivered once or not at all, every block free or
 * held by a living peer, the queue usable in both directions, and nothing
 * left when all is freed. System calls are one step each.
 *
 * kill_sweep pairs: two victims at once, at all combinations of a coarser grid;
 * or the second one looks for the dead (and on the local backend settles the
 * first) and is killed at that. kill_sweep stops: the victim is stopped, not
 * killed, and the others have to go on.
 *
 * Every operation says how many kill points it must cover at least; a sweep
 * that covers fewer fails, so that it cannot shrink unseen.
 *
 * How densely the points lie: see sweep.h.
 * SHMK_SWEEP_WRAP=1: laps and generations begin just below their wrap.
 * SHMK_SWEEP_GRID=n: of pairs, n points of each of the two instead of 7.
 * SHMK_TEST_BACKEND: local (default) or module. SHMK_SWEEP_OP: only that one.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"
#include "kselftest.h"
#include "survivor.h"
#include "sweep.h"

#define MESSAGES	64		/* most of a round */

static uint32_t own_id = 100;	/* of the messages a victim makes; even ones are blocks */
static unsigned int grid = 7;	/* pairs: points of each of the two, evenly over the operation */

/* The victim's side. */
struct victim {
	struct shmk	*s;
	struct shmk_queue *q, *sp, *extra;
	struct shmk_msg	msg[MESSAGES];
	unsigned int	nr;
};

struct op {
	const char	*name;
	unsigned int	points;		/* at least so many kill points (x86-64, -O2) */
	enum does	does;		/* with messages put in by the survivor */
	/* survivor, before the victim starts; returns messages put into a queue */
	unsigned int	(*before)(struct round *r);
	/* victim, before the first breakpoint */
	void		(*prepare)(struct victim *v);
	/* victim, swept */
	void		(*run)(struct victim *v);
};

/* ---------------------------------------------------------- operations -- */

static unsigned int before_nothing(struct round *r)
{
	(void)r;
	return 0;
}

static unsigned int before_some(struct round *r)
{
	uint32_t id;

	for (id = 0; id < 5; id++)
		send_id(r->s, r->q, id);
	return 5;
}

static unsigned int before_some_sp(struct round *r)
{
	uint32_t id;

	for (id = 0; id < 5; id++)
		send_id(r->s, r->sp, id);
	return 5;
}

static unsigned int before_full(struct round *r)
{
	uint32_t id;

	for (id = 0; id < CAPACITY; id++)
		send_id(r->s, r->q, id);
	return CAPACITY;
}

/* The survivor has most of the pool in empty spans of its own. */
static unsigned int before_hoard(struct round *r)
{
	static struct shmk_msg msg[256];
	unsigned int i, n;

	for (n = 0; n < 256 && !shmk_alloc(r->s, 30 << 10, 0, &msg[n]); n++)
		;
	for (i = 0; i < n; i++)
		shmk_free(&msg[i]);
	return 0;
}

static void prepare_nothing(struct victim *v)
{
	(void)v;
}

static void prepare_warm(struct victim *v)
{
	must("alloc", shmk_alloc(v->s, 300, 0, &v->msg[0]));
	shmk_free(&v->msg[0]);
}

static void prepare_one(struct victim *v)
{
	must("alloc", shmk_alloc(v->s, id_len(own_id), 0, &v->msg[0]));
	put_id(&v->msg[0], own_id);
}

static void prepare_batch(struct victim *v)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		must("alloc", shmk_alloc(v->s, id_len(own_id), 0, &v->msg[i]));
		put_id(&v->msg[i], own_id + 2 * i);
	}
}

static void prepare_received(struct victim *v)
{
	must("recv", shmk_recv(v->q, &v->msg[0], SHMK_TRY));
}

static void prepare_run(struct victim *v)
{
	must("alloc", shmk_alloc(v->s, 300 << 10, 0, &v->msg[0]));
}

/* Takes all there is, so that the next alloc is short. */
static void prepare_short(struct victim *v)
{
	while (v->nr < MESSAGES && !shmk_alloc(v->s, 300 << 10, 0, &v->msg[v->nr]))
		v->nr++;
}

static void prepare_keep(struct victim *v)
{
	must("keep", shmk_keep(v->s, 1 << 20));
}

static void prepare_keep_batch(struct victim *v)
{
	prepare_keep(v);
	prepare_batch(v);
}

/* Of two classes, and a run. */
static void prepare_kept(struct victim *v)
{
	static const size_t lens[] = { 300, 300, 3000, 300 << 10 };
	unsigned int i;

	prepare_keep(v);
	for (i = 0; i < ARRAY_SIZE(lens); i++)
		must("alloc", shmk_alloc(v->s, lens[i], 0, &v->msg[i]));
	for (i = 0; i < ARRAY_SIZE(lens); i++)
		shmk_free(&v->msg[i]);
}

static void prepare_kept_received(struct victim *v)
{
	prepare_keep(v);
	prepare_received(v);
	shmk_free(&v->msg[0]);
}

/* Keeps a block for the last span there is. */
static void prepare_kept_short(struct victim *v)
{
	prepare_keep(v);
	prepare_short(v);
	while (v->nr < MESSAGES - 2 && !shmk_alloc(v->s, 60 << 10, 0, &v->msg[v->nr]))
		v->nr++;
	shmk_free(&v->msg[--v->nr]);
}

static void run_alloc(struct victim *v)
{
	shmk_alloc(v->s, 300, 0, &v->msg[1]);
}

static void run_alloc_run(struct victim *v)
{
	shmk_alloc(v->s, 300 << 10, 0, &v->msg[1]);
}

static void run_alloc_large(struct victim *v)
{
	shmk_alloc(v->s, 2 << 20, 0, &v->msg[MESSAGES - 1]);
}

static void run_free(struct victim *v)
{
	shmk_free(&v->msg[0]);
}

static void run_send(struct victim *v)
{
	shmk_send(v->q, &v->msg[0], SHMK_TRY);
}

static void run_send_sp(struct victim *v)
{
	shmk_send(v->sp, &v->msg[0], SHMK_TRY);
}

static void run_send_inline(struct victim *v)
{
	unsigned char small[16];
	uint32_t id = own_id + 1;

	memset(small, (int)id, sizeof(small));
	memcpy(small, &id, sizeof(id));
	shmk_send_copy(v->q, small, sizeof(small), SHMK_TRY);
}

static void run_send_inline_sp(struct victim *v)
{
	unsigned char small[16];
	uint32_t id = own_id + 1;

	memset(small, (int)id, sizeof(small));
	memcpy(small, &id, sizeof(id));
	shmk_send_copy(v->sp, small, sizeof(small), SHMK_TRY);
}

static void run_send_batch(struct victim *v)
{
	shmk_send_batch(v->q, v->msg, 3, SHMK_TRY);
}

static void run_recv(struct victim *v)
{
	shmk_recv(v->q, &v->msg[0], SHMK_TRY);
}

static void run_recv_two(struct victim *v)
{
	shmk_recv(v->q, &v->msg[0], SHMK_TRY);
	shmk_recv(v->q, &v->msg[1], SHMK_TRY);
}

static void run_recv_sc(struct victim *v)
{
	shmk_recv(v->sp, &v->msg[0], SHMK_TRY);
	shmk_recv(v->sp, &v->msg[1], SHMK_TRY);
}

static void run_recv_copy(struct victim *v)
{
	char buf[512];

	shmk_recv_copy(v->q, buf, sizeof(buf), SHMK_TRY);
}

static void run_recv_batch(struct victim *v)
{
	shmk_recv_batch(v->q, v->msg, 4, SHMK_TRY);
}

static void run_forward(struct victim *v)
{
	if (!shmk_recv(v->q, &v->msg[0], SHMK_TRY))
		shmk_send(v->sp, &v->msg[0], SHMK_TRY);
}

/* The answer goes in the block that the message came in. */
static void run_answer(struct victim *v)
{
	if (shmk_recv(v->q, &v->msg[0], SHMK_TRY))
		return;
	shmk_free(&v->msg[0]);
	if (shmk_alloc(v->s, id_len(own_id), 0, &v->msg[1]))
		return;
	if (v->msg[1].block != v->msg[0].block)
		die("another block than was kept", -EINVAL);
	put_id(&v->msg[1], own_id);
	shmk_send(v->sp, &v->msg[1], SHMK_TRY);
}

/* Twice into the store, and once out of it. */
static void run_keep_two(struct victim *v)
{
	shmk_free(&v->msg[0]);
	shmk_free(&v->msg[1]);
	shmk_alloc(v->s, id_len(own_id), 0, &v->msg[3]);
}

static void run_keep_none(struct victim *v)
{
	shmk_keep(v->s, 0);
}

static void run_queue_create(struct victim *v)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };

	shmk_queue_open(v->s, "extra", &opts, SHMK_TRY, &v->extra);
}

static void prepare_queue_extra(struct victim *v)
{
	run_queue_create(v);
}

static void run_queue_close(struct victim *v)
{
	shmk_queue_close(v->extra);
}

static void run_queue_remove(struct victim *v)
{
	shmk_queue_close(v->extra);
	shmk_queue_remove(v->s, "extra");
}

static void prepare_left(struct victim *v)
{
	run_queue_create(v);
	send_id(v->s, v->extra, own_id);
}

static void prepare_transient(struct victim *v)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_TRANSIENT, .capacity = 4,
	};

	must("transient", shmk_queue_open(v->s, "extra", &opts, SHMK_TRY, &v->extra));
	send_id(v->s, v->extra, own_id);
	send_id(v->s, v->extra, own_id + 1);
}

static void run_queue_drain(struct victim *v)
{
	shmk_queue_drain(v->s, "extra", SHMK_TRY);
	shmk_queue_close(v->extra);
}

static void run_attach(struct victim *v)
{
	struct shmk *second;

	(void)v;
	if (!shmk_attach(uri, NULL, &second))
		shmk_detach(second);
}

static void run_detach(struct victim *v)
{
	shmk_detach(v->s);
}

/* Looks for the dead: on the local backend it settles them. */
static void run_settle(struct victim *v)
{
	v->s->backend->reap(v->s);
}

static bool others_flow;	/* stops: something may come, so that nobody has to sleep */

/* A sleep and its end, with nothing to come: one that was none would be a hole here. */
static void must_have_slept(struct victim *v)
{
	struct shmk_queue_stats stats;

	must("stats", shmk_queue_stats(v->q, &stats));
	if (!stats.my_sleeps && !others_flow)
		die("no sleep", -ETIME);
}

static void run_wait(struct victim *v)
{
	shmk_recv(v->q, &v->msg[0], shmk_deadline_ms(1));
	must_have_slept(v);
}

static void run_wait_send(struct victim *v)
{
	shmk_send(v->q, &v->msg[0], shmk_deadline_ms(1));
	must_have_slept(v);
}

#define OP(n, min, does_, b, p, r) \
	{ n, min, does_, before_##b, prepare_##p, run_##r }
static const struct op ops[] = {
	OP("alloc",		100, KEEPS, nothing, warm, alloc),
	OP("alloc_new_span",	1000, KEEPS, nothing, nothing, alloc),
	OP("alloc_run",		300, KEEPS, nothing, nothing, alloc_run),
	OP("alloc_seize",	1000, KEEPS, hoard, nothing, alloc_large),
	OP("alloc_short",	100, KEEPS, nothing, short, alloc_large),
	OP("free_own",		60, KEEPS, nothing, one, free),
	OP("free_foreign",	60, EATS, some, received, free),
	OP("free_run",		60, KEEPS, nothing, run, free),
	OP("send",		100, KEEPS, nothing, one, send),
	OP("send_full",		60, KEEPS, full, one, send),
	OP("send_one_producer",	100, KEEPS, nothing, one, send_sp),
	OP("send_inline",	100, KEEPS, nothing, nothing, send_inline),
	OP("send_inline_one_producer", 100, KEEPS, nothing, nothing, send_inline_sp),
	OP("send_batch",	300, KEEPS, some, batch, send_batch),
	OP("recv",		100, TAKES, some, nothing, recv),
	OP("recv_block_and_inline", 200, TAKES, some, nothing, recv_two),
	OP("recv_one_receiver",	200, TAKES, some_sp, nothing, recv_sc),
	OP("recv_copy",		100, EATS, some, nothing, recv_copy),
	OP("recv_batch",	300, TAKES, some, nothing, recv_batch),
	OP("recv_empty",	60, TAKES, nothing, nothing, recv),
	OP("forward",		200, TAKES, some, nothing, forward),
	OP("keep_answer",	300, EATS, some, keep, answer),
	OP("keep_own",		100, KEEPS, nothing, keep_batch, keep_two),
	OP("keep_gives_back",	200, KEEPS, nothing, kept, keep_none),
	OP("keep_gives_back_foreign", 60, EATS, some, kept_received, keep_none),
	OP("keep_short",	300, KEEPS, nothing, kept_short, alloc),
	OP("keep_sleep",	300, TAKES, nothing, kept, wait),
	OP("keep_detach",	100, KEEPS, nothing, kept, detach),
	OP("queue_create",	100, KEEPS, nothing, nothing, queue_create),
	OP("queue_close",	50, KEEPS, nothing, queue_extra, queue_close),
	OP("queue_remove",	50, KEEPS, nothing, queue_extra, queue_remove),
	OP("queue_drain",	100, KEEPS, nothing, queue_extra, queue_drain),
	OP("queue_drain_left",	100, KEEPS, nothing, left, queue_drain),
	OP("transient_close",	100, KEEPS, nothing, transient, queue_close),
	OP("attach_detach",	200, KEEPS, nothing, nothing, attach),
	OP("detach_holding",	100, KEEPS, some, batch, detach),
	OP("settle",		0, KEEPS, nothing, nothing, settle),
	OP("sleep_recv",	100, TAKES, nothing, nothing, wait),
	OP("sleep_send",	100, KEEPS, full, one, wait_send),
};

/* --------------------------------------------------------- the victim -- */

static void victim_main(const void *arg)
{
	const struct op *op = arg;
	static struct victim v;
	struct shmk_attach_opts opts = { .spin_us = -1 };

	must("victim: attach", shmk_attach(uri, &opts, &v.s));
	must("victim: queue", shmk_queue_open(v.s, "q", NULL, SHMK_TRY, &v.q));
	must("victim: queue", shmk_queue_open(v.s, "sp", NULL, SHMK_TRY, &v.sp));
	op->prepare(&v);
	sweep_begin();
	op->run(&v);
	sweep_end();
}

static pid_t victim_start(const struct op *op)
{
	return sweep_victim(op->name, victim_main, op);
}

/* -------------------------------------------------------------- kills -- */

/*
 * Whatever became of the victim's queue, it can be drained: what is in it can be taken, and
 * with that, unused, it is gone. One that was transient is gone already.
 */
static bool extra_goes(const struct op *op, struct round *r)
{
	struct shmk_queue *q;
	struct shmk_msg msg;
	int ret;

	if (!pool_alone(r->s))
		return false;
	ret = shmk_queue_open(r->s, "extra", NULL, SHMK_TRY, &q);
	if (ret == -ENOENT)
		return true;
	if (ret)
		return sweep_fail("open: %s", strerror(-ret));
	if (op->prepare == prepare_transient)
		return sweep_fail("a transient queue is still there");
	while (!(ret = shmk_recv(q, &msg, SHMK_TRY)))
		shmk_free(&msg);
	if (ret != -EAGAIN && ret != -ESHUTDOWN)
		return sweep_fail("recv: %s", strerror(-ret));
	shmk_queue_close(q);
	ret = shmk_queue_drain(r->s, "extra", SHMK_TRY);
	return !ret || ret == -ENOENT || sweep_fail("drain: %s", strerror(-ret));
}

/* Returns whether the operation went on for more than @n instructions. */
static bool kill_after(const struct op *op, long n, bool *ok)
{
	struct round r = { 0 };
	unsigned int put;
	bool more;
	pid_t pid;

	round_open(&r);
	put = op->before(&r);
	roles_drop(&r);
	pid = victim_start(op);
	more = sweep_step(pid, n);
	sweep_kill(pid);
	*ok = extra_goes(op, &r) && survivor(op->does, &r, put);
	shmk_detach(r.s);
	return more;
}

static void sweep(const struct op *op)
{
	long n, next, last = 0, points = 0;
	bool ok = true, more = true;

	for (n = 0; more && ok; n = next) {
		more = kill_after(op, n, &ok);
		points++;
		last = n;
		next = sweep_next(n);
	}
	sweep_result(op->name, ok, last, op->points, points);
}

static const struct op *op_find(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	die(name, -ENOENT);
	return NULL;
}

/* --------------------------------------------------------------- pairs -- */

struct pair {
	const char	*a, *b;
	bool		b_settles;	/* a is dead before b goes on */
};

/* Two at one queue, or one that dies while it settles the other. */
static const struct pair pairs[] = {
	{ "send", "send", false },
	{ "send", "recv", false },
	{ "recv", "recv", false },
	{ "send_inline", "recv_block_and_inline", false },
	{ "recv", "send_full", false },
	{ "forward", "recv_batch", false },
	{ "alloc_new_span", "alloc_new_span", false },
	{ "alloc_run", "alloc_seize", false },
	{ "send", "settle", true },
	{ "recv", "settle", true },
	{ "forward", "settle", true },
	{ "send_batch", "settle", true },
	{ "alloc_seize", "settle", true },
	{ "detach_holding", "settle", true },
	{ "keep_answer", "settle", true },
	{ "queue_create", "settle", true },
	{ "queue_drain", "settle", true },
	{ "transient_close", "settle", true },
};

/* How many instructions an operation has, when it is alone. */
static long op_length(const struct op *op)
{
	struct round r = { 0 };
	long n = 0;
	pid_t pid;

	round_open(&r);
	op->before(&r);
	roles_drop(&r);
	pid = victim_start(op);
	while (sweep_step(pid, 1))
		n++;
	sweep_kill(pid);
	shmk_detach(r.s);
	return n;
}

/* And how many settling @dead has, killed after @n instructions. */
static long settle_length(const struct op *dead, long n)
{
	const struct op *op = op_find("settle");
	struct round r = { 0 };
	pid_t a, b;
	long m = 0;

	round_open(&r);
	dead->before(&r);
	roles_drop(&r);
	a = victim_start(dead);
	b = victim_start(op);
	sweep_step(a, n);
	sweep_kill(a);
	while (sweep_step(b, 1))
		m++;
	sweep_kill(b);
	shmk_detach(r.s);
	return m;
}

/* Messages are put by the first one's "before"; either may lose some. */
static bool kill_both(const struct pair *p, long n, long m)
{
	const struct op *a = op_find(p->a), *b = op_find(p->b);
	struct op both = *a;
	struct round r = { 0 };
	unsigned int put;
	pid_t pa, pb;
	bool ok;

	round_open(&r);
	put = a->before(&r);
	if (!put && !p->b_settles)
		put = b->before(&r);
	roles_drop(&r);
	pa = victim_start(a);
	own_id = 150;
	pb = victim_start(b);
	own_id = 100;
	sweep_step(pa, n);
	if (p->b_settles)
		sweep_kill(pa);
	sweep_step(pb, m);
	if (!p->b_settles)
		sweep_kill(pa);
	sweep_kill(pb);
	if (b->does > both.does)
		both.does = b->does;
	/* A settler that dies takes what it had counted with it: local only. */
	if (p->b_settles && both.does == TAKES)
		both.does = EATS;
	ok = extra_goes(a, &r) && survivor(both.does, &r, put);
	shmk_detach(r.s);
	return ok;
}

static void pair_sweep(const struct pair *p)
{
	long la = op_length(op_find(p->a)), lb = p->b_settles ? 0 : op_length(op_find(p->b));
	unsigned int i, j, points = 0;
	bool ok = true;

	for (i = 0; i < grid && ok; i++) {
		long n = (la * (i + 1) - 1) / grid, m = 0;

		if (p->b_settles)
			lb = settle_length(op_find(p->a), n);
		for (j = 0; j < grid && ok; j++, points++) {
			m = (lb * (j + 1) - 1) / grid;
			ok = kill_both(p, n, m);
		}
		if (!ok)
			ksft_test_result_fail("%s and %s killed after %ld and %ld instructions: %s\n",
					      p->a, p->b, n, m, sweep_why);
	}
	if (ok)
		ksft_test_result_pass("%s %s %s # at %u pairs of points\n", p->a,
				      p->b_settles ? "settled by a dying" : "and", p->b, points);
}

/* --------------------------------------------------------------- stops -- */

/*
 * How many messages the others get through a queue while one is stopped in
 * the middle of an operation on it.
 */
static unsigned int flow(struct round *r, unsigned int most)
{
	struct shmk_msg msg;
	unsigned int n = 0;
	char c = 1;

	for (; !shmk_recv(r->q, &msg, SHMK_TRY); n++)
		shmk_free(&msg);
	for (; n < most; n++) {
		if (shmk_send_copy(r->q, &c, 1, SHMK_TRY) ||
		    shmk_recv(r->q, &msg, SHMK_TRY))
			break;
		shmk_free(&msg);
	}
	return n;
}

static const char * const stops[] = {
	"send", "send_inline", "send_batch", "send_full", "recv", "recv_batch", "recv_copy",
	"forward", "sleep_recv", "sleep_send", "alloc_new_span", "free_foreign",
	"keep_answer",
};

#define STOP_FLOW	(4 * CAPACITY)

/*
 * The others go on, for a lap of the ring at least (but for the slot that the
 * stopped one has in its hands), and all is well when it goes on and ends.
 */
static bool stop_after(const struct op *op, long n, unsigned int *least, bool *more)
{
	struct round r = { 0 };
	unsigned int got;
	int status;
	pid_t pid;
	bool ok;

	round_open(&r);
	op->before(&r);
	roles_drop(&r);
	pid = victim_start(op);
	*more = sweep_step(pid, n);
	got = flow(&r, STOP_FLOW);
	if (got < *least)
		*least = got;
	ok = got >= CAPACITY - 1 || sweep_fail("only %u messages pass", got);
	if (*more)
		while (sweep_step(pid, 1))
			;
	kill(pid, SIGCONT);
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
	waitpid(pid, &status, 0);
	flow(&r, 0);
	ok = ok && pool_alone(r.s) && pool_sound(r.s, "after the stopped one went on and left") &&
	     refill(&r, r.q);
	shmk_detach(r.s);
	return ok;
}

static void stop_sweep(const struct op *op)
{
	unsigned int least = STOP_FLOW;
	bool ok = true, more = true;
	long n, points = 0;

	for (n = 0; more && ok; n += sweep_stride + n / 40, points++)
		ok = stop_after(op, n, &least, &more);
	if (ok)
		ksft_test_result_pass("%s stopped, the others go on # for at least %u of %u messages, ring of %u, %ld points\n",
				      op->name, least, STOP_FLOW, CAPACITY, points);
	else
		ksft_test_result_fail("%s stopped after %ld instructions: %s\n", op->name, n, sweep_why);
}

/* --------------------------------------------------------------- main -- */

static bool chosen(const char *name)
{
	const char *only = getenv("SHMK_SWEEP_OP");

	return !only || !strcmp(only, name);
}

static void main_kill(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		if (chosen(ops[i].name))
			sweep(&ops[i]);
}

static void main_pairs(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(pairs); i++)
		if (chosen(pairs[i].a))
			pair_sweep(&pairs[i]);
}

static void main_stops(void)
{
	size_t i;

	others_flow = true;
	for (i = 0; i < ARRAY_SIZE(stops); i++)
		if (chosen(stops[i]))
			stop_sweep(op_find(stops[i]));
}

static unsigned int planned(const char *mode)
{
	unsigned int n = 0;
	size_t i;

	if (!strcmp(mode, "pairs")) {
		for (i = 0; i < ARRAY_SIZE(pairs); i++)
			n += chosen(pairs[i].a);
	} else if (!strcmp(mode, "stops")) {
		for (i = 0; i < ARRAY_SIZE(stops); i++)
			n += chosen(stops[i]);
	} else {
		for (i = 0; i < ARRAY_SIZE(ops); i++)
			n += chosen(ops[i].name);
	}
	return n;
}

int main(int argc, char **argv)
{
	const char *backend = getenv("SHMK_TEST_BACKEND");
	const char *mode = argc > 1 ? argv[1] : "kills";

	wraps = getenv("SHMK_SWEEP_WRAP") != NULL;
	if (getenv("SHMK_SWEEP_GRID") && atoi(getenv("SHMK_SWEEP_GRID")) > 0)
		grid = atoi(getenv("SHMK_SWEEP_GRID"));
	on_module = backend && !strcmp(backend, "module");
	snprintf(uri, sizeof(uri), "%s:sweep-%d", on_module ? "shmk" : "local", (int)getpid());
	sweep_init();
	ksft_print_header();
	ksft_set_plan(planned(mode));
	if (!strcmp(mode, "pairs"))
		main_pairs();
	else if (!strcmp(mode, "stops"))
		main_stops();
	else
		main_kill();
	ksft_finished();
}
