// SPDX-License-Identifier: GPL-2.0-only
/*
 * share_sweep.c - who shares, passes on or drops references, or messages of several
 * parts, is killed after every instruction.
 *
 * The survivor makes a payload, shares it, puts references into a queue and
 * may keep one. Afterwards the pool must be consistent, every payload whole as
 * long as anybody has a reference to it, the number of references what is to
 * be seen, every message there once or reported lost, and no block left
 * when all have been dropped.
 *
 * Then pairs: two victims with references to one payload are killed at all
 * combinations of a grid; or the second one looks for the dead, on the local
 * backend settles the first, and is killed at that.
 *
 * SHMK_TEST_BACKEND, SHMK_SWEEP_STRIDE, SHMK_SWEEP_FULL: see sweep.h and
 * kill_sweep.c. SHMK_SWEEP_OP: only that one. SHMK_SWEEP_GRID: of pairs.
 */
#include "after.h"
#include "kselftest.h"

#define POOL_BYTES	(1UL << 20)
#define LEN		300
#define OURS		0x11	/* bytes of the survivor's payload */
#define THEIRS		0x22	/* of a victim's own */

static char uri[64];
static int grid = 7;

struct round {
	struct shmk	*s;
	struct shmk_queue *q;
	struct shmk_msg	own;		/* a reference, or empty */
	unsigned int	put;
};

struct victim {
	struct shmk	*s;
	struct shmk_queue *q;
	struct shmk_msg	msg[8];	/* the last two keep spans */
};

struct op {
	const char	*name;
	long		points;		/* at least so many instructions */
	unsigned int	put;		/* references that wait for it */
	bool		keep;		/* the survivor has one, too */
	bool		eats;		/* it may be done with what it received */
	bool		parts;		/* each reference is one part of two */
	void		(*prepare)(struct victim *v);
	void		(*run)(struct victim *v);
};

static void fill(struct shmk *s, struct shmk_msg *msg, int byte)
{
	must("alloc", shmk_alloc(s, LEN, 0, msg));
	memset(msg->data, byte, LEN);
}

/* ----------------------------------------------------------- the victim -- */

static void prepare_nothing(struct victim *v)
{
	(void)v;
}

/* So that splitting and packing find their blocks at hand, in spans that stay. */
static void warm(struct victim *v)
{
	int i;

	for (i = 2; i < 8; i++)
		must("alloc", shmk_alloc(v->s, i & 1 ? 1 : 700, 0, &v->msg[i]));
	for (i = 2; i < 6; i++)
		shmk_free(&v->msg[i]);
}

static void prepare_own(struct victim *v)
{
	warm(v);
	fill(v->s, &v->msg[0], THEIRS);
}

static void prepare_shared(struct victim *v)
{
	prepare_own(v);
	must("share", shmk_msg_share(&v->msg[0], &v->msg[1]));
}

static void prepare_received(struct victim *v)
{
	warm(v);
	must("recv", shmk_recv(v->q, &v->msg[0], SHMK_TRY));
}

/* The deepest one of four, the others gone: three inner blocks hang on it. */
static void prepare_deep(struct victim *v)
{
	int i;

	prepare_own(v);
	for (i = 1; i < 4; i++)
		must("share", shmk_msg_share(&v->msg[0], &v->msg[i]));
	for (i = 1; i < 4; i++)
		shmk_free(&v->msg[i]);
}

static void run_share(struct victim *v)
{
	shmk_msg_share(&v->msg[0], &v->msg[1]);
}

static void run_share_many(struct victim *v)
{
	shmk_msg_share_many(&v->msg[0], &v->msg[1], 3);
}

static void run_free(struct victim *v)
{
	shmk_free(&v->msg[0]);
}

static void run_free_both(struct victim *v)
{
	shmk_free(&v->msg[0]);
	shmk_free(&v->msg[1]);
}

static void run_resize(struct victim *v)
{
	shmk_resize(&v->msg[0], LEN + 1);
}

static void run_send(struct victim *v)
{
	shmk_send(v->q, &v->msg[0], SHMK_TRY);
}

static void run_send_batch(struct victim *v)
{
	shmk_send_batch(v->q, v->msg, 2, SHMK_TRY);
}

static void run_recv(struct victim *v)
{
	shmk_recv(v->q, &v->msg[0], SHMK_TRY);
}

static void run_recv_copy(struct victim *v)
{
	unsigned char buf[LEN];

	shmk_recv_copy(v->q, buf, sizeof(buf), SHMK_TRY);
}

static void run_forward(struct victim *v)
{
	if (!shmk_recv(v->q, &v->msg[0], SHMK_TRY))
		shmk_send(v->q, &v->msg[0], SHMK_TRY);
}

static void run_share_send(struct victim *v)
{
	if (!shmk_msg_share(&v->msg[0], &v->msg[1]))
		shmk_send(v->q, &v->msg[1], SHMK_TRY);
}

static void run_detach(struct victim *v)
{
	shmk_detach(v->s);
}

static void run_settle(struct victim *v)
{
	v->s->backend->reap(v->s);
}

/* One reference that was received, and a block of its own. */
static void prepare_two(struct victim *v)
{
	prepare_received(v);
	fill(v->s, &v->msg[1], THEIRS);
}

static void prepare_packed(struct victim *v)
{
	prepare_shared(v);
	must("pack", shmk_msg_pack(v->msg, 2, &v->msg[2]));
	shmk_msg_move(&v->msg[0], &v->msg[2]);
}

static void run_send_multi(struct victim *v)
{
	shmk_send_multi(v->q, v->msg, 2, SHMK_TRY);
}

static void run_pack(struct victim *v)
{
	shmk_msg_pack(v->msg, 2, &v->msg[2]);
}

static void run_unpack(struct victim *v)
{
	shmk_msg_unpack(&v->msg[0], &v->msg[1], 2);
}

static void run_recv_multi(struct victim *v)
{
	shmk_recv_multi(v->q, v->msg, 2, SHMK_TRY);
}

static void run_recv_copy_parts(struct victim *v)
{
	unsigned char buf[2 * LEN];

	shmk_recv_copy(v->q, buf, sizeof(buf), SHMK_TRY);
}

#define OP(n, min, put, keep, eats, p, r) { n, min, put, keep, eats, false, prepare_##p, run_##r }
#define PARTS(n, min, put, keep, eats, p, r) { n, min, put, keep, eats, true, prepare_##p, run_##r }
static const struct op ops[] = {
	OP("share",		200, 0, false, false, own, share),
	OP("share_again",	200, 0, false, false, shared, share),
	OP("share_received",	200, 1, true, false, received, share),
	OP("share_last",	200, 1, false, false, received, share),
	OP("share_many",	400, 0, false, false, own, share_many),
	OP("share_and_send",	300, 0, false, false, own, share_send),
	OP("drop_own",		100, 0, false, false, shared, free_both),
	OP("drop_beside_another", 60, 1, true, true, received, free),
	OP("drop_last",		60, 1, false, true, received, free),
	OP("drop_deep",		100, 0, false, false, deep, free),
	OP("resize_last",	100, 1, false, false, received, resize),
	OP("resize_deep",	200, 0, false, false, deep, resize),
	OP("send_reference",	100, 0, false, false, shared, send),
	OP("send_both",		200, 0, false, false, shared, send_batch),
	OP("recv_reference",	100, 2, true, false, nothing, recv),
	OP("recv_copy_reference", 100, 2, false, true, nothing, recv_copy),
	OP("forward_reference",	200, 2, true, false, nothing, forward),
	OP("detach_holding_references", 100, 0, false, false, shared, detach),
	OP("send_parts",	300, 0, false, false, shared, send_multi),
	OP("pack_received",	200, 1, true, false, two, pack),
	PARTS("recv_parts",	300, 2, true, false, nothing, recv_multi),
	PARTS("recv_copy_parts", 200, 2, false, true, nothing, recv_copy_parts),
	PARTS("unpack_received", 100, 1, true, false, received, unpack),
	PARTS("share_whole",	200, 1, true, false, received, share),
	PARTS("drop_whole",	60, 1, false, true, received, free),
	PARTS("forward_whole",	200, 2, true, false, nothing, forward),
	OP("unpack_own",	100, 0, false, false, packed, unpack),
	OP("settle",		0, 0, false, false, nothing, settle),	/* of pairs only */
};

static void victim_main(const void *arg)
{
	const struct op *op = arg;
	static struct victim v;
	struct shmk_attach_opts opts = { .spin_us = -1, .nr_entries = 128 };

	must("victim: attach", shmk_attach(uri, &opts, &v.s));
	must("victim: queue", shmk_queue_open(v.s, "q", NULL, SHMK_TRY, &v.q));
	op->prepare(&v);
	sweep_begin();
	op->run(&v);
	sweep_end();
}

/* --------------------------------------------------------- the survivor -- */

/* A reference by itself, or as one of two parts. */
static void put_one(struct round *r, struct shmk_msg *reference, bool parts)
{
	struct shmk_msg two[2];

	if (!parts) {
		must("send", shmk_send(r->q, reference, SHMK_TRY));
		return;
	}
	shmk_msg_move(&two[0], reference);
	fill(r->s, &two[1], OURS);
	must("send", shmk_send_multi(r->q, two, 2, SHMK_TRY));
}

static void round_open(struct round *r, unsigned int put, bool keep, bool parts)
{
	struct shmk_pool_opts pool = { .bytes = POOL_BYTES, .nr_peers = 8, .nr_queues = 4,
				       .rings_bytes = 64 << 10 };
	struct shmk_attach_opts opts = { .create = &pool, .exclusive = true, .spin_us = -1,
					 .nr_entries = 128 };
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE, .capacity = 16 };
	struct shmk_msg more[2];

	memset(r, 0, sizeof(*r));
	must("attach", shmk_attach(uri, &opts, &r->s));
	must("queue", shmk_queue_open(r->s, "q", &q, SHMK_TRY, &r->q));
	r->put = put;
	if (!put && !keep)
		return;
	fill(r->s, &r->own, OURS);
	must("share", shmk_msg_share_many(&r->own, more, put));
	while (put)
		put_one(r, &more[--put], parts);
	if (!keep)
		shmk_free(&r->own);
}

static bool whole(const struct shmk_msg *msg, int *byte)
{
	const unsigned char *p = msg->data;
	size_t i;

	*byte = p[0];
	for (i = 0; i < LEN; i++)
		if (p[i] != *byte)
			return sweep_fail("byte %zu of a payload is %#x, not %#x", i, p[i], *byte);
	return (msg->len == LEN && (*byte == OURS || *byte == THEIRS)) ||
	       sweep_fail("a payload of %zu bytes %#x", msg->len, *byte);
}

/* Takes all that waits; *ours of it were put by the survivor. */
static bool take_all(struct round *r, struct shmk_msg *held, unsigned int *nr, unsigned int *ours)
{
	int byte = 0, i, ret;

	while ((ret = shmk_recv_multi(r->q, &held[*nr], 2, SHMK_TRY)) > 0) {
		for (i = 0; i < ret; i++)
			if (!whole(&held[(*nr)++], &byte))
				return false;
		*ours += byte == OURS;
	}
	return ret == -EAGAIN || sweep_fail("recv: %s", strerror(-ret));
}

static bool survivor(struct round *r, bool eats, bool counts)
{
	static struct shmk_msg held[16];
	struct shmk_pool_stat stat;
	unsigned int nr = 0, ours = 0, i;
	int byte, refs;

	if (!pool_alone(r->s) || !pool_sound(r->s, "after the death") || !take_all(r, held, &nr, &ours))
		return false;
	must("stat", shmk_pool_stat(r->s, &stat));
	if (ours > r->put || stat.lost_messages > r->put - ours ||
	    (counts && !eats && stat.lost_messages != r->put - ours))
		return sweep_fail("%u of %u references are there, %llu are reported lost", ours,
				  r->put, (unsigned long long)stat.lost_messages);
	if (r->own.data) {
		refs = shmk_msg_refs(&r->own);
		if (refs != (int)ours + 1 || shmk_msg_shared(&r->own) != (ours > 0))
			return sweep_fail("%d references, %u of them received", refs, ours);
		if (!whole(&r->own, &byte))
			return false;
	}
	for (i = 0; i < nr; i++) {
		if (!whole(&held[i], &byte))
			return false;
		shmk_free(&held[i]);
	}
	if (r->own.data && shmk_resize(&r->own, LEN - 1))
		return sweep_fail("the last reference is not alone");
	shmk_free(&r->own);
	must("stat", shmk_pool_stat(r->s, &stat));
	if (stat.blocks_used)
		return sweep_fail("%llu blocks are still in use", (unsigned long long)stat.blocks_used);
	return pool_sound(r->s, "at the end");
}

/* -------------------------------------------------------------- sweeping -- */

static void sweep(const struct op *op)
{
	bool more = true, ok = true;
	long n = 0, last = 0, points = 0;
	struct round r;
	pid_t pid;

	for (; more && ok; n = sweep_next(n), points++) {
		round_open(&r, op->put, op->keep, op->parts);
		pid = sweep_victim(op->name, victim_main, op);
		more = sweep_step(pid, n);
		sweep_kill(pid);
		ok = survivor(&r, op->eats, true);
		shmk_detach(r.s);
		last = n;
	}
	sweep_result(op->name, ok, last, op->points, points);
}

static const struct op *op_find(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ops) && strcmp(ops[i].name, name); i++)
		;
	if (i == ARRAY_SIZE(ops))
		die(name, -ENOENT);
	return &ops[i];
}

static const struct {
	const char	*a, *b;
	unsigned int	put;
	bool		keep;
} pairs[] = {
	{ "drop_last", "drop_last", 2, false },		/* siblings */
	{ "drop_last", "drop_beside_another", 2, true },
	{ "share_received", "drop_last", 2, false },
	{ "share_received", "share_received", 2, false },
	{ "resize_last", "drop_last", 2, false },
	{ "recv_reference", "forward_reference", 2, false },
	{ "share_received", "settle", 1, false },
	{ "drop_last", "settle", 1, false },
	{ "drop_beside_another", "settle", 1, true },
	{ "drop_deep", "settle", 0, false },
	{ "resize_deep", "settle", 0, false },
	{ "send_both", "settle", 0, false },
	{ "forward_reference", "settle", 2, true },
	{ "unpack_received", "share_whole", 2, true },
	{ "drop_whole", "drop_last", 2, false },
	{ "send_parts", "settle", 0, false },
	{ "pack_received", "settle", 1, true },
	{ "unpack_received", "settle", 1, false },
};

/* Runs a to its n-th instruction, then b to its m-th; how long b is if it is let go on. */
static bool pair_kill(unsigned int i, long n, long m, long *length)
{
	const struct op *a = op_find(pairs[i].a), *b = op_find(pairs[i].b);
	bool settles = !strcmp(b->name, "settle"), ok;
	struct round r;
	pid_t pa, pb;
	long k;

	round_open(&r, pairs[i].put, pairs[i].keep, op_find(pairs[i].a)->parts);
	pa = sweep_victim(a->name, victim_main, a);
	pb = sweep_victim(b->name, victim_main, b);
	sweep_step(pa, n);
	if (settles)
		sweep_kill(pa);
	for (k = 0; k < m && sweep_step(pb, 1); k++)
		;
	*length = k;
	if (!settles)
		sweep_kill(pa);
	sweep_kill(pb);
	/* A settler that dies takes what it had counted with it: local only. */
	ok = survivor(&r, true, false);
	shmk_detach(r.s);
	return ok;
}

static long op_length(unsigned int i, const char *name)
{
	const struct op *op = op_find(name);
	struct round r;
	long n = 0;
	pid_t pid;

	round_open(&r, pairs[i].put, pairs[i].keep, op_find(pairs[i].a)->parts);
	pid = sweep_victim(name, victim_main, op);
	while (sweep_step(pid, 1))
		n++;
	sweep_kill(pid);
	shmk_detach(r.s);
	return n;
}

static void pair_sweep(unsigned int i)
{
	long la = op_length(i, pairs[i].a), lb, n = 0, m = 0, x, y, k;
	bool ok = true;

	for (x = 0; ok && x < grid; x++) {
		n = (la * (x + 1) - 1) / grid;
		ok = pair_kill(i, n, 100000, &lb);
		for (y = 0; ok && y < grid; y++) {
			m = (lb * (y + 1) - 1) / grid;
			ok = pair_kill(i, n, m, &k);
		}
	}
	if (ok)
		ksft_test_result_pass("%s and %s are exact # at %d pairs of points\n", pairs[i].a,
				      pairs[i].b, grid * grid);
	else
		ksft_test_result_fail("%s and %s killed after %ld and %ld instructions: %s\n",
				      pairs[i].a, pairs[i].b, n, m, sweep_why);
}

int main(void)
{
	const char *backend = getenv("SHMK_TEST_BACKEND"), *only = getenv("SHMK_SWEEP_OP");
	bool module = backend && !strcmp(backend, "module");
	unsigned int i, n = 0;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		n += ops[i].points && (!only || !strcmp(only, ops[i].name));
	ksft_print_header();
	ksft_set_plan(only ? n : n + (unsigned int)ARRAY_SIZE(pairs));
	if (getenv("SHMK_SWEEP_GRID") && atoi(getenv("SHMK_SWEEP_GRID")) > 0)
		grid = atoi(getenv("SHMK_SWEEP_GRID"));
	snprintf(uri, sizeof(uri), "%s:share-sweep-%d", module ? "shmk" : "local", (int)getpid());
	sweep_init();
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		if (ops[i].points && (!only || !strcmp(only, ops[i].name)))
			sweep(&ops[i]);
	for (i = 0; !only && i < ARRAY_SIZE(pairs); i++)
		pair_sweep(i);
	ksft_finished();
}
