// SPDX-License-Identifier: GPL-2.0-only
/*
 * redeliver_sweep.c - receivers that are killed at every instruction, in queues
 * whose messages stay until they are acknowledged.
 *
 * Five messages, inline and in blocks, are in the queue "r". The victim receives,
 * acknowledges or sends on, and is killed. Then a survivor, with nothing but the
 * ordinary API, must find each message once and in its order, in "r" or where
 * the victim was sending it, but for those that the victim had begun to acknowledge;
 * none reported lost; and all of the capacity and of the memory.
 *
 * redeliver_sweep twice: a second victim does the same after the first one, at all
 * combinations of a grid. redeliver_sweep settled: the second one looks for the
 * dead (and on the local backend settles the first) and is killed at that.
 *
 * How densely the points lie: see sweep.h. SHMK_TEST_BACKEND: local (default) or
 * module. SHMK_SWEEP_OP: only that one. SHMK_SWEEP_GRID: points of each of two.
 */
#include "after.h"

#define CAPACITY	8
#define MESSAGES	5
#define POOL_BYTES	(2UL << 20)	/* 32 spans */

static char uri[64];

struct round {
	struct shmk	*s;
	struct shmk_queue *r, *to, *plain;
};

struct victim {
	struct shmk	*s;
	struct shmk_queue *r, *to, *plain;
	struct shmk_msg	msg[MESSAGES];
};

struct op {
	const char	*name;
	unsigned int	points;		/* at least so many kill points (x86-64, -O2) */
	unsigned int	acks;		/* so many may be acknowledged, from the first */
	bool		moves;		/* sends on: no order */
	void		(*prepare)(struct victim *v);
	void		(*run)(struct victim *v);
};

/* ------------------------------------------------------------ messages -- */

static size_t id_len(uint32_t id)
{
	return id & 1 ? 16 : 300;
}

static void send_id(struct shmk_queue *q, uint32_t id)
{
	unsigned char buf[300];

	memset(buf, (int)id, sizeof(buf));
	memcpy(buf, &id, sizeof(id));
	must("send", shmk_send_copy(q, buf, id_len(id), SHMK_TRY));
}

static bool get_id(const struct shmk_msg *msg, uint32_t *id)
{
	const unsigned char *byte = msg->data;
	size_t i;

	if (msg->len < sizeof(*id))
		return false;
	memcpy(id, msg->data, sizeof(*id));
	for (i = sizeof(*id); i < msg->len; i++)
		if (byte[i] != (unsigned char)*id)
			return false;
	return msg->len == id_len(*id);
}

/* ---------------------------------------------------------- operations -- */

static void prepare_nothing(struct victim *v)
{
	(void)v;
}

static void recv_nr(struct victim *v, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (shmk_recv(v->r, &v->msg[i], SHMK_TRY))
			v->msg[i].data = NULL;
}

static void prepare_block(struct victim *v)
{
	recv_nr(v, 1);
}

/* With a span of its own, which alloc needs many steps to get; kill_sweep.c has those. */
static void prepare_inline(struct victim *v)
{
	must("alloc", shmk_alloc(v->s, 300, 0, &v->msg[2]));
	shmk_free(&v->msg[2]);
	recv_nr(v, 2);
}

static void run_recv(struct victim *v)
{
	recv_nr(v, 2);
}

static void run_recv_batch(struct victim *v)
{
	shmk_recv_batch(v->r, v->msg, 4, SHMK_TRY);
}

static void run_free(struct victim *v)
{
	shmk_free(&v->msg[0]);
}

static void run_free_inline(struct victim *v)
{
	shmk_free(&v->msg[1]);
}

static void run_all(struct victim *v)
{
	recv_nr(v, 2);
	shmk_free(&v->msg[1]);
	shmk_free(&v->msg[0]);
}

static void run_copy(struct victim *v)
{
	char buf[300];

	shmk_recv_copy(v->r, buf, sizeof(buf), SHMK_TRY);
	shmk_recv_copy(v->r, buf, sizeof(buf), SHMK_TRY);
}

static void run_forward(struct victim *v)
{
	if (v->msg[0].data)
		shmk_send(v->plain, &v->msg[0], SHMK_TRY);
}

static void run_forward_inline(struct victim *v)
{
	if (v->msg[1].data)
		shmk_send(v->plain, &v->msg[1], SHMK_TRY);
}

static void run_forward_same_kind(struct victim *v)
{
	recv_nr(v, 1);
	if (v->msg[0].data)
		shmk_send(v->to, &v->msg[0], SHMK_TRY);
}

static void run_forward_same_queue(struct victim *v)
{
	if (v->msg[0].data)
		shmk_send(v->r, &v->msg[0], SHMK_TRY);
	if (v->msg[1].data)
		shmk_send(v->r, &v->msg[1], SHMK_TRY);
}

static void prepare_warm(struct victim *v)
{
	must("alloc", shmk_alloc(v->s, 300, 0, &v->msg[0]));
	shmk_free(&v->msg[0]);
}

static void run_forward_batch(struct victim *v)
{
	int n = shmk_recv_batch(v->r, v->msg, 3, SHMK_TRY);

	if (n > 0)
		shmk_send_batch(v->to, v->msg, (unsigned int)n, SHMK_TRY);
}

static void run_close(struct victim *v)
{
	shmk_queue_close(v->r);
	shmk_free(&v->msg[1]);
	shmk_free(&v->msg[0]);
}

static void run_detach(struct victim *v)
{
	shmk_detach(v->s);
}

static void run_settle(struct victim *v)
{
	v->s->backend->reap(v->s);
}

#define OP(n, min, acks, moves, p, r) \
	{ n, min, acks, moves, prepare_##p, run_##r }
static const struct op ops[] = {
	OP("recv",		200, 0, false, nothing, recv),
	OP("recv_batch",	300, 0, false, nothing, recv_batch),
	OP("free_block",	80, 1, false, block, free),
	OP("free_inline",	40, 2, false, inline, free_inline),
	OP("recv_and_free",	300, 2, false, nothing, all),
	OP("recv_copy",		300, 2, false, nothing, copy),
	OP("forward",		150, 0, true, block, forward),
	OP("forward_inline",	300, 0, true, inline, forward_inline),
	OP("forward_same_kind",	250, 0, true, nothing, forward_same_kind),
	OP("forward_same_queue", 300, 0, true, inline, forward_same_queue),
	OP("forward_batch",	500, 0, true, warm, forward_batch),
	OP("close_then_free",	150, 2, false, inline, close),
	OP("detach_holding",	100, 0, false, inline, detach),
};

static const struct op settle_op = OP("settle", 0, 0, false, nothing, settle);

/* --------------------------------------------------------- the victim -- */

static void victim_main(const void *arg)
{
	const struct op *op = arg;
	static struct victim v;
	struct shmk_attach_opts opts = { .spin_us = -1 };

	must("victim: attach", shmk_attach(uri, &opts, &v.s));
	must("victim: queue", shmk_queue_open(v.s, "r", NULL, SHMK_TRY, &v.r));
	must("victim: queue", shmk_queue_open(v.s, "to", NULL, SHMK_TRY, &v.to));
	must("victim: queue", shmk_queue_open(v.s, "plain", NULL, SHMK_TRY, &v.plain));
	op->prepare(&v);
	sweep_begin();
	op->run(&v);
	sweep_end();
}

/* -------------------------------------------------------- the survivor -- */

/* All that is in a queue; with @ordered, ids only grow. */
static bool drain(struct shmk_queue *q, bool ordered, uint32_t tries, unsigned int seen[MESSAGES])
{
	struct shmk_msg msg;
	uint32_t id, last = 0;
	int ret;

	while (!(ret = shmk_recv(q, &msg, SHMK_TRY))) {
		if (!get_id(&msg, &id) || id >= MESSAGES)
			return sweep_fail("a message is damaged (length %zu)", msg.len);
		if (seen[id]++)
			return sweep_fail("message %u is there twice", id);
		if (ordered && id < last)
			return sweep_fail("message %u comes after message %u", id, last);
		if (msg.redelivered > tries)
			return sweep_fail("message %u was given back %u times", id, msg.redelivered);
		last = id;
		shmk_free(&msg);
	}
	return ret == -EAGAIN ? true : sweep_fail("recv: %s", strerror(-ret));
}

/* Two laps of the whole capacity. */
static bool refill(struct shmk_queue *q)
{
	struct shmk_msg msg[CAPACITY];
	int lap, n, ret;

	for (lap = 0; lap < 2; lap++) {
		for (n = 0; n < CAPACITY; n++) {
			char c = (char)n;

			ret = shmk_send_copy(q, &c, 1, SHMK_TRY);
			if (ret)
				return sweep_fail("message %d of %d after the death: %s", n,
						  CAPACITY, strerror(-ret));
		}
		ret = shmk_recv_batch(q, msg, CAPACITY, SHMK_TRY);
		if (ret != CAPACITY)
			return sweep_fail("%d of %d messages came back", ret, CAPACITY);
		for (n = 0; n < CAPACITY; n++)
			shmk_free(&msg[n]);
	}
	return true;
}

/* @victims did it, one after the other. */
static bool survivor(const struct op *op, struct round *r, unsigned int victims)
{
	unsigned int seen[MESSAGES] = { 0 }, id;
	struct shmk_pool_stat stat;

	if (!pool_alone(r->s) || !pool_sound(r->s, "after the death") ||
	    !drain(r->r, !op->moves, victims, seen) || !drain(r->to, false, victims, seen) ||
	    !drain(r->plain, false, victims, seen))
		return false;
	for (id = 0; id < MESSAGES; id++)
		if (!seen[id] && id >= victims * op->acks)
			return sweep_fail("message %u is lost", id);
	must("stat", shmk_pool_stat(r->s, &stat));
	if (stat.lost_messages)
		return sweep_fail("%llu messages are reported lost",
				  (unsigned long long)stat.lost_messages);
	return refill(r->r) && refill(r->to) && refill(r->plain) && pool_memory_back(r->s, POOL_BYTES) &&
	       pool_sound(r->s, "at the end");
}

static void round_open(struct round *r)
{
	struct shmk_pool_opts pool = { .bytes = POOL_BYTES, .nr_peers = 16, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .exclusive = true, .spin_us = -1 };
	struct shmk_queue_opts q = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER, .capacity = CAPACITY,
	};
	uint32_t id;

	must("attach", shmk_attach(uri, &opts, &r->s));
	must("queue", shmk_queue_open(r->s, "r", &q, SHMK_TRY, &r->r));
	must("queue", shmk_queue_open(r->s, "to", &q, SHMK_TRY, &r->to));
	q.flags = SHMK_QUEUE_CREATE;
	must("queue", shmk_queue_open(r->s, "plain", &q, SHMK_TRY, &r->plain));
	for (id = 0; id < MESSAGES; id++)
		send_id(r->r, id);
}

/* ------------------------------------------------------------- killing -- */

static bool kill_after(const struct op *op, long n, bool *ok)
{
	struct round r = { 0 };
	bool more;
	pid_t pid;

	round_open(&r);
	pid = sweep_victim(op->name, victim_main, op);
	more = sweep_step(pid, n);
	sweep_kill(pid);
	*ok = survivor(op, &r, 1);
	shmk_detach(r.s);
	return more;
}

static void sweep(const struct op *op)
{
	long n, last = 0, points = 0;
	bool ok = true, more = true;

	for (n = 0; more && ok; n = sweep_next(n), points++) {
		more = kill_after(op, n, &ok);
		last = n;
	}
	sweep_result(op->name, ok, last, op->points, points);
}

/* How many instructions the victim has, behind one that was killed after @n (< 0: none). */
static long length(const struct op *dead, long n, const struct op *op)
{
	struct round r = { 0 };
	long m = 0;
	pid_t a = 0, b = 0;

	round_open(&r);
	if (n >= 0)
		a = sweep_victim(dead->name, victim_main, dead);
	/* Not while the other stands still: it may have the pool's lock. */
	if (op == &settle_op)
		b = sweep_victim(op->name, victim_main, op);
	if (n >= 0) {
		sweep_step(a, n);
		sweep_kill(a);
	}
	if (op != &settle_op)
		b = sweep_victim(op->name, victim_main, op);
	while (sweep_step(b, 1))
		m++;
	sweep_kill(b);
	shmk_detach(r.s);
	return m;
}

/*
 * @second lives already when it is to settle the first one, else it comes after
 * somebody has.
 */
static bool kill_both(const struct op *op, long n, const struct op *second, long m)
{
	bool settles = second == &settle_op;
	struct round r = { 0 };
	pid_t a, b;
	bool ok;

	round_open(&r);
	a = sweep_victim(op->name, victim_main, op);
	b = settles ? sweep_victim(second->name, victim_main, second) : 0;
	sweep_step(a, n);
	sweep_kill(a);
	if (!settles && !pool_alone(r.s))
		return false;
	b = settles ? b : sweep_victim(second->name, victim_main, second);
	sweep_step(b, m);
	sweep_kill(b);
	ok = survivor(op, &r, settles ? 1 : 2);
	shmk_detach(r.s);
	return ok;
}

static void sweep_two(const struct op *op, const struct op *second, int grid)
{
	long la = length(NULL, -1, op), lb, n = 0, m = 0;
	const char *how = second == &settle_op ? "settled by a dying one" : "twice";
	unsigned int points = 0;
	bool ok = true;
	int i, j;

	for (i = 0; i < grid && ok; i++) {
		n = (la * (i + 1) - 1) / grid;
		lb = length(op, n, second);
		for (j = 0; j < grid && ok; j++, points++) {
			m = (lb * (j + 1) - 1) / grid;
			ok = kill_both(op, n, second, m);
		}
	}
	if (ok)
		ksft_test_result_pass("%s %s # at %u pairs of points\n", op->name, how, points);
	else
		ksft_test_result_fail("%s %s, killed after %ld and %ld instructions: %s\n", op->name,
				      how, n, m, sweep_why);
}

/* ---------------------------------------------------------------- main -- */

int main(int argc, char **argv)
{
	const char *backend = getenv("SHMK_TEST_BACKEND"), *only = getenv("SHMK_SWEEP_OP");
	const char *mode = argc > 1 ? argv[1] : "kills", *points = getenv("SHMK_SWEEP_GRID");
	int grid = points ? atoi(points) : 6;
	unsigned int n = 0;
	size_t i;

	snprintf(uri, sizeof(uri), "%s:redeliver-sweep-%d",
		 backend && !strcmp(backend, "module") ? "shmk" : "local", (int)getpid());
	sweep_init();
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		n += !only || !strcmp(only, ops[i].name);
	ksft_print_header();
	ksft_set_plan(n);
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		if (only && strcmp(only, ops[i].name))
			continue;
		if (!strcmp(mode, "twice"))
			sweep_two(&ops[i], &ops[i], grid);
		else if (!strcmp(mode, "settled"))
			sweep_two(&ops[i], &settle_op, grid);
		else
			sweep(&ops[i]);
	}
	ksft_finished();
}
