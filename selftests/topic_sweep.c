// SPDX-License-Identifier: GPL-2.0-only
/*
 * topic_sweep.c - who writes or reads a topic is killed after every instruction.
 *
 * The survivor makes a topic, reads it and may write to it. Afterwards the last
 * whole message must be the last one, no sequence number may be missing, the
 * pool consistent, the role free, every row and every element to be had again,
 * and no block left when the topics have been removed.
 *
 * topic_sweep settle: the victim is killed at some points, then a second one that
 * looks for the dead (on the local backend settles it) at every instruction of that.
 *
 * SHMK_TEST_BACKEND, SHMK_SWEEP_STRIDE, SHMK_SWEEP_FULL, SHMK_SWEEP_OP: see sweep.h
 * and kill_sweep.c. SHMK_SWEEP_GRID: points of settle.
 */
#include <time.h>

#include "../lib/topic.h"
#include "kselftest.h"
#include "after.h"

#define POOL_BYTES	(1UL << 20)
#define READERS		3
#define OURS		6	/* messages that the survivor has published */

static char uri[64];
static bool on_module;
static int grid = 5;

struct round {
	struct shmk		*s;
	struct shmk_topic	*t;
	struct shmk_sub		*r;
};

struct victim {
	struct shmk		*s;
	struct shmk_topic	*t, *extra;
	struct shmk_sub		*r;
	struct shmk_loan	loan;
	struct shmk_held	held;
};

struct op {
	const char	*name;
	long		points;		/* at least so many instructions */
	bool		writes;		/* the survivor gives up the role before */
	void		(*prepare)(struct victim *v);
	void		(*run)(struct victim *v);
};

static const struct shmk_topic_opts topic_opts = {
	.flags = SHMK_TOPIC_CREATE, .depth = 4, .nr_readers = READERS, .nr_holds = 2,
	.msg_bytes = 256, .spare = 2,
};

/* ------------------------------------------------------------ messages -- */

#define LEN(no)	(8 + (no) % 240)

static void fill(void *data, uint64_t no)
{
	memset(data, (int)no * 7 + 1, LEN(no));
	memcpy(data, &no, sizeof(no));
}

static bool whole(const void *data, size_t len, uint64_t seq)
{
	const unsigned char *byte = data;
	uint64_t no;
	size_t i;

	memcpy(&no, data, sizeof(no));
	for (i = sizeof(no); i < len; i++)
		if (byte[i] != (unsigned char)(no * 7 + 1))
			return sweep_fail("message %llu is damaged", (unsigned long long)seq);
	return (no == seq && len == LEN(no)) ||
	       sweep_fail("message %llu came as %llu, %zu bytes", (unsigned long long)no,
			  (unsigned long long)seq, len);
}

/* Numbered as the topic does. */
static int put(struct shmk_topic *t)
{
	unsigned char buf[256];

	fill(buf, t->seq);
	return shmk_topic_publish_copy(t, buf, LEN(t->seq), SHMK_TRY);
}

/* ----------------------------------------------------------- the victim -- */

static void as_reader(struct victim *v)
{
	struct shmk_sub_opts opts = { .start = SHMK_START_OLDEST };

	must("subscribe", shmk_topic_subscribe(v->t, &opts, &v->r));
}

static void as_reader_waited_for(struct victim *v)
{
	struct shmk_sub_opts opts = { .start = SHMK_START_OLDEST, .wait = true };

	must("subscribe", shmk_topic_subscribe(v->t, &opts, &v->r));
}

static void as_holder(struct victim *v)
{
	as_reader(v);
	must("take", shmk_topic_take(v->r, &v->held, SHMK_TRY));
}

static void as_holder_of_all(struct victim *v)
{
	struct shmk_held held;

	as_holder(v);
	must("take", shmk_topic_take(v->r, &held, SHMK_TRY));
}

static void as_writer(struct victim *v)
{
	must("writer", shmk_topic_writer(v->t, SHMK_TRY));
}

static void as_writer_with_loan(struct victim *v)
{
	as_writer(v);
	must("loan", shmk_topic_loan(v->t, &v->loan));
}

static void as_writer_heard(struct victim *v)
{
	as_writer(v);
	WRITE_ONCE(v->t->q.rv.ring->waiters_recv, 1);
}

static void as_guest(struct victim *v)
{
	(void)v;
}

static void with_extra(struct victim *v)
{
	must("extra", shmk_topic_open(v->s, "extra", &topic_opts, SHMK_TRY, &v->extra));
}

static void run_publish(struct victim *v)
{
	fill(v->loan.data, v->t->seq);
	shmk_topic_publish(v->t, &v->loan, LEN(v->t->seq), SHMK_TRY);
}

static void run_publish_copy(struct victim *v)
{
	put(v->t);
}

static void run_publish_many(struct victim *v)
{
	int i;

	for (i = 0; i < 12; i++)
		put(v->t);
}

static void run_become_writer(struct victim *v)
{
	shmk_topic_writer(v->t, SHMK_TRY);
}

static void run_release_role(struct victim *v)
{
	shmk_topic_writer_release(v->t);
}

static void run_want_role(struct victim *v)
{
	shmk_topic_writer(v->t, shmk_deadline_ms(1));
	must("a sleep", v->t->candidate.nr_sleeps ? 0 : -ETIME);
}

static void run_take(struct victim *v)
{
	shmk_topic_take(v->r, &v->held, SHMK_TRY);
}

static void run_take_last(struct victim *v)
{
	shmk_topic_take_last(v->r, &v->held);
}

static void run_take_and_release(struct victim *v)
{
	struct shmk_held held;

	if (!shmk_topic_take(v->r, &held, SHMK_TRY))
		shmk_topic_release(&held);
}

static void run_release(struct victim *v)
{
	shmk_topic_release(&v->held);
}

static void run_read(struct victim *v)
{
	char buf[256];

	shmk_topic_read(v->r, buf, sizeof(buf), NULL, SHMK_TRY);
}

static void run_read_last(struct victim *v)
{
	char buf[256];

	shmk_topic_read_last(v->t, buf, sizeof(buf), NULL);
}

static void run_sleep(struct victim *v)
{
	while (!shmk_topic_take(v->r, &v->held, shmk_deadline_ms(1)))
		shmk_topic_release(&v->held);
	must("a sleep", v->r->q.nr_sleeps ? 0 : -ETIME);
}

static void run_subscribe(struct victim *v)
{
	as_reader(v);
}

static void run_unsubscribe(struct victim *v)
{
	shmk_topic_unsubscribe(v->r);
}

static void run_close(struct victim *v)
{
	shmk_topic_close(v->t);
}

static void run_create(struct victim *v)
{
	with_extra(v);
}

static void run_remove(struct victim *v)
{
	shmk_topic_close(v->extra);
	shmk_queue_remove(v->s, "extra");
}

static void run_detach(struct victim *v)
{
	shmk_detach(v->s);
}

static void run_settle(struct victim *v)
{
	v->s->backend->reap(v->s);
}

static const struct op ops[] = {
	{ "publish", 60, true, as_writer_with_loan, run_publish },
	{ "publish_copy", 200, true, as_writer, run_publish_copy },
	{ "publish_with_sleepers", 200, true, as_writer_heard, run_publish_copy },
	{ "publish_many", 1000, true, as_writer, run_publish_many },
	{ "become_writer", 60, true, as_guest, run_become_writer },
	{ "release_role", 20, true, as_writer, run_release_role },
	{ "want_role", 100, false, as_guest, run_want_role },
	{ "take", 60, false, as_reader, run_take },
	{ "take_waited_for", 60, false, as_reader_waited_for, run_take },
	{ "take_last", 60, false, as_holder, run_take_last },
	{ "take_and_release", 100, false, as_reader, run_take_and_release },
	{ "take_too_many", 10, false, as_holder_of_all, run_take },
	{ "release", 15, false, as_holder, run_release },
	{ "read", 60, false, as_reader, run_read },
	{ "read_last", 60, false, as_guest, run_read_last },
	{ "sleep", 200, false, as_reader, run_sleep },
	{ "subscribe", 100, false, as_guest, run_subscribe },
	{ "unsubscribe", 100, false, as_holder, run_unsubscribe },
	{ "close", 100, true, as_writer_with_loan, run_close },
	{ "create", 300, false, as_guest, run_create },
	{ "remove", 60, false, with_extra, run_remove },
	{ "detach", 60, true, as_writer_with_loan, run_detach },
	{ "settle", 0, false, as_guest, run_settle },
};

static void victim_main(const void *arg)
{
	const struct op *op = arg;
	static struct victim v;
	struct shmk_attach_opts opts = { .spin_us = -1 };

	must("victim: attach", shmk_attach(uri, &opts, &v.s));
	must("victim: topic", shmk_topic_open(v.s, "t", NULL, SHMK_TRY, &v.t));
	op->prepare(&v);
	sweep_begin();
	op->run(&v);
	sweep_end();
}

/* --------------------------------------------------------- the survivor -- */

static void round_open(struct round *r, bool gives_role)
{
	struct shmk_pool_opts pool = { .bytes = POOL_BYTES, .nr_peers = 8, .nr_queues = 4 };
	struct shmk_attach_opts opts = { .create = &pool, .exclusive = true, .spin_us = -1 };
	int i;

	must("attach", shmk_attach(uri, &opts, &r->s));
	must("topic", shmk_topic_open(r->s, "t", &topic_opts, SHMK_TRY, &r->t));
	must("writer", shmk_topic_writer(r->t, SHMK_TRY));
	must("subscribe", shmk_topic_subscribe(r->t, NULL, &r->r));
	for (i = 0; i < OURS; i++)
		must("publish", put(r->t));
	if (gives_role)
		shmk_topic_writer_release(r->t);
}

static bool wait_gone(struct round *r)
{
	int64_t end = shmk_deadline_ms(10000);
	struct shmk_pool_stat stat;

	do {
		must("stat", shmk_pool_stat(r->s, &stat));
		if (stat.peers_now == 1)
			return true;
	} while (now_ns() < end);
	return sweep_fail("%u peers after the death", stat.peers_now);
}

/* All that can still be read, without a gap, the last one last. */
static bool check_messages(struct round *r, uint64_t *last)
{
	struct shmk_held held;
	uint64_t seq = 0;
	char buf[256];
	int64_t len;

	while (!shmk_topic_take(r->r, &held, SHMK_TRY)) {
		if (seq && held.seq != seq + 1)
			return sweep_fail("message %llu comes after %llu",
					  (unsigned long long)held.seq, (unsigned long long)seq);
		seq = held.seq;
		if (!whole(held.data, held.len, seq))
			return false;
		shmk_topic_release(&held);
	}
	len = shmk_topic_read_last(r->t, buf, sizeof(buf), &held);
	*last = held.seq;
	return (len >= 0 && held.seq == seq && seq >= OURS) ||
	       sweep_fail("the last message is %llu, after %llu came nothing",
			  (unsigned long long)held.seq, (unsigned long long)seq);
}

/* The next number is the next one; all elements that are neither history nor held are free. */
static bool check_writing(struct round *r, uint64_t last)
{
	struct shmk_loan loan[64];
	uint32_t n, free = 0, want = r->t->nr_elements - 4;
	int ret = shmk_topic_writer(r->t, SHMK_TRY);

	if (ret)
		return sweep_fail("the role cannot be had: %s", strerror(-ret));
	if (r->t->seq != last + 1)
		return sweep_fail("message %llu would follow %llu", (unsigned long long)r->t->seq,
				  (unsigned long long)last);
	for (n = 0; n < 40; n++)
		if (put(r->t))
			return sweep_fail("nothing can be published");
	shmk_topic_writer_release(r->t);
	must("writer", shmk_topic_writer(r->t, SHMK_TRY));
	while (free < 64 && !shmk_topic_loan(r->t, &loan[free]))
		free++;
	for (n = 0; n < free; n++)
		shmk_topic_unloan(&loan[n]);
	return free == want || sweep_fail("%u elements are free, not %u", free, want);
}

static bool check_rows(struct round *r)
{
	struct shmk_sub *sub[READERS];
	int i, ret;

	for (i = 1; i < READERS; i++) {
		ret = shmk_topic_subscribe(r->t, NULL, &sub[i]);
		if (ret)
			return sweep_fail("reader %d: %s", i, strerror(-ret));
	}
	if (shmk_topic_subscribe(r->t, NULL, &sub[0]) != -ENOSPC)
		return sweep_fail("one reader too many");
	return true;
}

static bool check_nothing_left(struct round *r)
{
	struct shmk_pool_stat stat;
	struct shmk_msg msg;
	int ret = shmk_queue_remove(r->s, "extra");

	if (ret && ret != -ENOENT)
		return sweep_fail("remove: %s", strerror(-ret));
	shmk_topic_close(r->t);
	must("remove", shmk_queue_remove(r->s, "t"));
	must("stat", shmk_pool_stat(r->s, &stat));
	if (stat.blocks_used || stat.queues_now)
		return sweep_fail("%llu blocks and %u queues are left",
				  (unsigned long long)stat.blocks_used, stat.queues_now);
	ret = shmk_alloc(r->s, POOL_BYTES, 0, &msg);
	if (ret)
		return sweep_fail("the pool cannot be had as a whole: %s", strerror(-ret));
	shmk_free(&msg);
	return pool_sound(r->s, "at the end");
}

static bool survivor(struct round *r)
{
	uint64_t last;

	return wait_gone(r) && pool_sound(r->s, "after the death") && check_messages(r, &last) &&
	       check_writing(r, last) && check_rows(r) && check_nothing_left(r);
}

/* --------------------------------------------------------------- sweeps -- */

static bool kill_after(const struct op *op, long n, bool *more)
{
	struct round r;
	pid_t pid;
	bool ok;

	round_open(&r, op->writes);
	pid = sweep_victim(op->name, victim_main, op);
	*more = sweep_step(pid, n);
	sweep_kill(pid);
	ok = survivor(&r);
	shmk_detach(r.s);
	return ok;
}

static void sweep(const struct op *op)
{
	bool ok = true, more = true;
	long n = 0, points = 0;

	while (more && ok) {
		ok = kill_after(op, n, &more);
		if (!ok)
			break;
		points++;
		n = sweep_next(n);
	}
	if (!ok)
		ksft_test_result_fail("%s killed after %ld instructions: %s\n", op->name, n,
				      sweep_why);
	else if (n < op->points)
		ksft_test_result_fail("%s has only %ld instructions, not %ld\n", op->name, n,
				      op->points);
	else
		ksft_test_result_pass("%s # killed at %ld points of %ld\n", op->name, points, n);
}

static const struct op *op_find(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (!strcmp(ops[i].name, name))
			return &ops[i];
	return NULL;
}

/* Instructions of an operation, or of settling who was killed after @n of it. */
static long length(const struct op *op, long n, bool settle)
{
	struct round r;
	pid_t a, b = 0;
	long m = 0;

	round_open(&r, op->writes);
	a = sweep_victim(op->name, victim_main, op);
	if (settle) {
		b = sweep_victim("settle", victim_main, op_find("settle"));
		sweep_step(a, n);
		sweep_kill(a);
		a = b;
	}
	while (sweep_step(a, 1))
		m++;
	sweep_kill(a);
	shmk_detach(r.s);
	return m;
}

static bool settler_killed(const struct op *op, long n, long m)
{
	struct round r;
	pid_t a, b;
	bool ok;

	round_open(&r, op->writes);
	a = sweep_victim(op->name, victim_main, op);
	b = sweep_victim("settle", victim_main, op_find("settle"));
	sweep_step(a, n);
	sweep_kill(a);
	sweep_step(b, m);
	sweep_kill(b);
	ok = survivor(&r);
	shmk_detach(r.s);
	return ok;
}

static void settle_sweep(const struct op *op)
{
	long l = length(op, 0, false), n = 0, m = 0, k, points = 0;
	bool ok = true;
	int i, j;

	for (i = 0; i < grid && ok; i++) {
		n = (l * (i + 1) - 1) / grid;
		k = length(op, n, true);
		for (j = 0; j < 3 * grid && ok; j++, points++) {
			m = (k * (j + 1) - 1) / (3 * grid);
			ok = settler_killed(op, n, m);
		}
	}
	if (ok)
		ksft_test_result_pass("%s settled by a dying # at %ld pairs of points\n", op->name,
				      points);
	else
		ksft_test_result_fail("%s killed after %ld, its settler after %ld instructions: %s\n",
				      op->name, n, m, sweep_why);
}

static bool chosen(const char *name)
{
	const char *only = getenv("SHMK_SWEEP_OP");

	return !only || !strcmp(only, name);
}

int main(int argc, char **argv)
{
	static const char *const settled[] = {
		"publish_copy", "take", "unsubscribe", "create", "remove", "close",
	};
	const char *backend = getenv("SHMK_TEST_BACKEND");
	bool settle = argc > 1 && !strcmp(argv[1], "settle");
	size_t i, nr = settle ? sizeof(settled) / sizeof(settled[0]) :
				sizeof(ops) / sizeof(ops[0]) - 1;
	unsigned int plan = 0;

	if (getenv("SHMK_SWEEP_GRID") && atoi(getenv("SHMK_SWEEP_GRID")) > 0)
		grid = atoi(getenv("SHMK_SWEEP_GRID"));
	on_module = backend && !strcmp(backend, "module");
	snprintf(uri, sizeof(uri), "%s:topics-%d", on_module ? "shmk" : "local", (int)getpid());
	sweep_init();
	ksft_print_header();
	for (i = 0; i < nr; i++)
		plan += chosen(settle ? settled[i] : ops[i].name);
	ksft_set_plan(plan);
	for (i = 0; i < nr; i++) {
		if (!chosen(settle ? settled[i] : ops[i].name))
			continue;
		if (settle)
			settle_sweep(op_find(settled[i]));
		else
			sweep(&ops[i]);
	}
	ksft_finished();
}
