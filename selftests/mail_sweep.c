// SPDX-License-Identifier: GPL-2.0-only
/*
 * mail_sweep.c - senders of mail, servers and their clients, killed at every instruction.
 *
 * The survivor has a mailbox and a service. Afterwards each message is there once or not
 * at all, each request is answered once, or, where a message has one try, its
 * server's death is told; no block is left, and nothing of the dead one's mailbox.
 *
 * How densely the points lie: see sweep.h. SHMK_TEST_BACKEND: local (default) or
 * module. SHMK_SWEEP_OP: only that one.
 */
#include "after.h"

#define POOL_BYTES	(2UL << 20)	/* 32 spans */
#define LETTERS		4

static char uri[64];

struct round {
	struct shmk	*s;
	struct shmk_mailbox *mb;
	struct shmk_queue *svc;
	int64_t		id;		/* of the request that is outstanding */
	uint32_t	me, my_gen;
};

struct victim {
	struct shmk	*s;
	struct shmk_mailbox *mb;
	struct shmk_queue *svc;
	struct shmk_msg	msg, reply;
};

struct op {
	const char	*name;
	unsigned int	points;
	bool		request;	/* the survivor has sent one */
	uint32_t	max_tries;	/* of the service */
	void		(*prepare)(struct victim *v);
	void		(*run)(struct victim *v);
};

static struct round *round_of_victim;	/* inherited over fork: ids only */

static bool letter_ok(const struct shmk_msg *msg)
{
	const unsigned char *byte = msg->data;
	size_t i;

	for (i = 0; i < msg->len; i++)
		if (byte[i] != (unsigned char)(msg->tag + 1))
			return false;
	return msg->len == (msg->tag & 1 ? 16 : 300);
}

static void letter(struct shmk *s, uint32_t tag, int64_t deadline)
{
	unsigned char buf[300];

	memset(buf, (int)tag + 1, sizeof(buf));
	shmk_mail_send_copy(s, round_of_victim->me, round_of_victim->my_gen, tag, buf,
			    tag & 1 ? 16 : sizeof(buf), deadline);
}

/* ---------------------------------------------------------- operations -- */

static void prepare_nothing(struct victim *v)
{
	(void)v;
}

static void prepare_route(struct victim *v)
{
	letter(v->s, 0, SHMK_TRY);
}

static void prepare_mailbox(struct victim *v)
{
	must("mailbox", shmk_mailbox_open(v->s, NULL, &v->mb));
}

static void prepare_mail(struct victim *v)
{
	unsigned char buf[300] = { 0 };
	uint32_t tag;

	prepare_mailbox(v);
	for (tag = 1; tag < 4; tag++)
		must("to itself", shmk_mail_send_copy(v->s, shmk_self(v->s), 0, tag, buf,
						      tag & 1 ? 16 : 300, SHMK_TRY));
}

static void prepare_request(struct victim *v)
{
	must("recv", shmk_recv(v->svc, &v->msg, SHMK_TRY));
}

static void run_send(struct victim *v)
{
	letter(v->s, 1, SHMK_TRY);
	letter(v->s, 2, SHMK_TRY);
}

static void run_send_first(struct victim *v)
{
	letter(v->s, 2, SHMK_TRY);
}

static void run_open_close(struct victim *v)
{
	if (!shmk_mailbox_open(v->s, NULL, &v->mb))
		shmk_mailbox_close(v->mb);
}

static void run_recv(struct victim *v)
{
	if (!shmk_mail_recv(v->mb, SHMK_ANY_PEER, 3, &v->msg, SHMK_TRY))
		shmk_free(&v->msg);
	if (!shmk_mail_recv(v->mb, SHMK_ANY_PEER, 2, &v->msg, SHMK_TRY))
		shmk_free(&v->msg);
}

static void run_close(struct victim *v)
{
	shmk_mailbox_close(v->mb);
}

static void run_serve(struct victim *v)
{
	if (shmk_recv(v->svc, &v->msg, SHMK_TRY) || shmk_alloc(v->s, 300, 0, &v->reply))
		return;
	memset(v->reply.data, 7, 300);
	shmk_reply(&v->msg, &v->reply, SHMK_TRY);
}

static void run_reply(struct victim *v)
{
	if (shmk_alloc(v->s, 300, 0, &v->reply))
		return;
	memset(v->reply.data, 7, 300);
	shmk_reply(&v->msg, &v->reply, SHMK_TRY);
}

static void run_call(struct victim *v)
{
	if (!shmk_alloc(v->s, 300, 0, &v->msg))
		shmk_call(v->mb, v->svc, &v->msg, SHMK_TRY);
}

#define OP(n, min, req, tries, p, r) \
	{ n, min, req, tries, prepare_##p, run_##r }
static const struct op ops[] = {
	OP("mail_first",	1000, false, 0, nothing, send_first),
	OP("mail",		300, false, 0, route, send),
	OP("mail_recv",		300, false, 0, mail, recv),
	OP("mailbox",		500, false, 0, nothing, open_close),
	OP("mailbox_close",	300, false, 0, mail, close),
	OP("serve",		1000, true, 0, route, serve),
	OP("serve_once",	1000, true, 1, route, serve),
	OP("reply",		300, true, 0, request, reply),
	OP("reply_once",	300, true, 1, request, reply),
	OP("call",		300, false, 0, mailbox, call),
};

/* --------------------------------------------------------- the victim -- */

static void victim_main(const void *arg)
{
	const struct op *op = arg;
	static struct victim v;
	struct shmk_attach_opts opts = { .spin_us = -1 };

	must("victim: attach", shmk_attach(uri, &opts, &v.s));
	must("victim: queue", shmk_queue_open(v.s, "svc", NULL, SHMK_TRY, &v.svc));
	op->prepare(&v);
	sweep_begin();
	op->run(&v);
	sweep_end();
}

/* -------------------------------------------------------- the survivor -- */

static bool drain(struct round *r)
{
	unsigned int seen[LETTERS] = { 0 };
	struct shmk_msg msg;
	uint32_t last = 0;
	int ret;

	while (!(ret = shmk_mail_recv(r->mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &msg, SHMK_TRY))) {
		if (msg.tag >= LETTERS || !letter_ok(&msg))
			return sweep_fail("a letter is damaged (tag %u, length %zu)", msg.tag, msg.len);
		if (seen[msg.tag]++)
			return sweep_fail("letter %u is there twice", msg.tag);
		if (msg.tag < last)
			return sweep_fail("letter %u comes after letter %u", msg.tag, last);
		last = msg.tag;
		shmk_free(&msg);
	}
	return ret == -EAGAIN ? true : sweep_fail("mail_recv: %s", strerror(-ret));
}

/* What another server does, if the request is there again. */
static int serve(struct round *r)
{
	struct shmk_msg req, rep;
	int ret = shmk_recv(r->svc, &req, SHMK_TRY);

	if (ret)
		return ret;
	must("alloc", shmk_alloc(r->s, 300, 0, &rep));
	memset(rep.data, 7, 300);
	return shmk_reply(&req, &rep, SHMK_TRY);
}

static bool answered(const struct op *op, struct round *r)
{
	struct shmk_msg msg;
	int served = op->max_tries ? -EAGAIN : serve(r), ret;

	ret = shmk_reply_recv(r->mb, r->id, &msg, SHMK_TRY);
	if (ret == -EAGAIN && op->max_tries) {	/* not taken yet when it died */
		served = serve(r);
		ret = shmk_reply_recv(r->mb, r->id, &msg, SHMK_TRY);
	}
	if (ret == -EOWNERDEAD && op->max_tries && served == -EAGAIN)
		return true;
	if (ret)
		return sweep_fail("the request has no answer: %s (served: %s)", strerror(-ret),
				  strerror(-served));
	if (msg.len != 300 || *(char *)msg.data != 7)
		return sweep_fail("the answer is damaged");
	shmk_free(&msg);
	ret = shmk_reply_recv(r->mb, 0, &msg, SHMK_TRY);
	return ret == -ENOENT ? true : sweep_fail("there is another answer: %d", ret);
}

/* The next who opens a mailbox removes the dead one's; the service is all there is then. */
static bool mailboxes_gone(struct round *r)
{
	struct shmk_pool_stat stat;

	shmk_mailbox_close(r->mb);
	must("mailbox", shmk_mailbox_open(r->s, NULL, &r->mb));
	shmk_mailbox_close(r->mb);
	must("stat", shmk_pool_stat(r->s, &stat));
	return stat.queues_now == 1 ? true : sweep_fail("%u queues are left", stat.queues_now);
}

static bool requests_gone(struct round *r)
{
	struct shmk_msg msg;

	while (!shmk_recv(r->svc, &msg, SHMK_TRY))
		shmk_free(&msg);
	return true;
}

static bool survivor(const struct op *op, struct round *r)
{
	return pool_alone(r->s) && pool_sound(r->s, "after the death") && drain(r) &&
	       (!op->request || answered(op, r)) && requests_gone(r) && drain(r) &&
	       mailboxes_gone(r) && pool_memory_back(r->s, POOL_BYTES) && pool_sound(r->s, "at the end");
}

static void round_open(const struct op *op, struct round *r)
{
	struct shmk_pool_opts pool = { .bytes = POOL_BYTES, .nr_peers = 16, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .exclusive = true, .spin_us = -1 };
	struct shmk_queue_opts q = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER | SHMK_QUEUE_TAGGED,
		.capacity = 4, .max_tries = op->max_tries,
	};
	struct shmk_msg msg;

	must("attach", shmk_attach(uri, &opts, &r->s));
	must("queue", shmk_queue_open(r->s, "svc", &q, SHMK_TRY, &r->svc));
	must("mailbox", shmk_mailbox_open(r->s, NULL, &r->mb));
	r->me = shmk_self(r->s);
	r->my_gen = shmk_self_gen(r->s);
	round_of_victim = r;
	if (!op->request)
		return;
	must("alloc", shmk_alloc(r->s, 300, 0, &msg));
	r->id = shmk_request_send(r->mb, r->svc, &msg, SHMK_TRY);
	must("request", r->id < 0 ? (int)r->id : 0);
}

static bool kill_after(const struct op *op, long n, bool *ok)
{
	struct round r = { 0 };
	bool more;
	pid_t pid;

	round_open(op, &r);
	pid = sweep_victim(op->name, victim_main, op);
	more = sweep_step(pid, n);
	sweep_kill(pid);
	*ok = survivor(op, &r);
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

int main(void)
{
	const char *backend = getenv("SHMK_TEST_BACKEND"), *only = getenv("SHMK_SWEEP_OP");
	unsigned int n = 0;
	size_t i;

	snprintf(uri, sizeof(uri), "%s:mail-sweep-%d",
		 backend && !strcmp(backend, "module") ? "shmk" : "local", (int)getpid());
	sweep_init();
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		n += !only || !strcmp(only, ops[i].name);
	ksft_print_header();
	ksft_set_plan(n);
	for (i = 0; i < ARRAY_SIZE(ops); i++)
		if (!only || !strcmp(only, ops[i].name))
			sweep(&ops[i]);
	ksft_finished();
}
