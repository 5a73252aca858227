// SPDX-License-Identifier: GPL-2.0-only
/*
 * hostile_fuzz.c - members that write garbage wherever they may, and die; the others
 * may get any error, but do not crash, do not hang, and get no message that lies
 * outside of the pool. Other pools do not notice.
 *
 * A round is a pool of its own, for a pool that was spoilt once soon has nothing left
 * to fail. First rounds of one process, which are the same for the same seed: some
 * steps of members, some words of garbage, a child that spoils its ledger and is
 * killed. Then rounds of several processes at once.
 *
 * SHMK_TEST_SEED=N repeats, beginning with the round of that seed, which is printed when
 * it fails. SHMK_FUZZ_SECONDS: for each of the two. On the module it is the kernel
 * that settles; vm/init looks at what it says.
 */
#include <poll.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define STEPS		400
#define SLOTS		12
#define QUEUES		5
#define WORKERS		3
#define SPOILERS	2
#define LIMIT_MS	20000	/* for one step, or to end */

/* ------------------------------------------------------------ chance -- */

static uint64_t state;

static uint64_t rnd64(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static uint32_t rnd(uint32_t n)
{
	return (uint32_t)(rnd64() % n);
}

/* ---------------------------------------------------------- progress -- */

/* What a process of a round is just doing; read by who watches it. */
struct progress {
	atomic_int	op;
	atomic_ulong	nr, good;
	atomic_bool	over;		/* told to it */
	char		why[160];	/* it gave up */
};

static struct progress *me;

static void __attribute__((noreturn, format(printf, 1, 2))) give_up(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(me->why, sizeof(me->why), fmt, ap);
	va_end(ap);
	_exit(3);
}

/* ----------------------------------------------------------- a member -- */

struct member {
	struct shmk		*s;
	struct shmk_queue	*q[QUEUES];
	struct shmk_topic	*topic;
	struct shmk_sub		*sub;
	struct shmk_held	held;
	struct shmk_loan	loan;
	struct shmk_mailbox	*mb;
	struct shmk_msg		msg[SLOTS];
};

static const struct shmk_queue_opts queue_opts[QUEUES] = {
	{ .flags = SHMK_QUEUE_CREATE, .capacity = 8 },
	{ .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_SP | SHMK_QUEUE_SC, .capacity = 4 },
	{ .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER, .capacity = 8, .max_tries = 3 },
	{ .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_TAGGED, .capacity = 8, .slot_bytes = 128 },
	{ .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER, .capacity = 8 },
};

static const struct shmk_topic_opts topic_opts = {
	.flags = SHMK_TOPIC_CREATE, .depth = 4, .nr_readers = 4, .nr_holds = 2, .msg_bytes = 300,
};

static void queue_open(struct member *m, unsigned int i)
{
	char name[] = { 'q', (char)('0' + i), 0 };

	if (shmk_queue_open(m->s, name, &queue_opts[i], SHMK_TRY, &m->q[i]))
		m->q[i] = NULL;
}

static bool member_open(struct member *m, const char *uri)
{
	const struct shmk_pool_opts pool = {
		.bytes = 512 << 10, .nr_peers = 16, .nr_queues = 16, .rings_bytes = 256 << 10,
	};
	const struct shmk_attach_opts opts = { .create = &pool, .nr_entries = 40 + rnd(60), .spin_us = -1 };

	memset(m, 0, sizeof(*m));
	if (shmk_attach(uri, &opts, &m->s))
		return false;
	for (unsigned int i = 0; i < QUEUES; i++)
		queue_open(m, i);
	if (!shmk_topic_open(m->s, "t", &topic_opts, SHMK_TRY, &m->topic) &&
	    shmk_topic_subscribe(m->topic, NULL, &m->sub))
		m->sub = NULL;
	if (shmk_mailbox_open(m->s, NULL, &m->mb))
		m->mb = NULL;
	return true;
}

static void member_close(struct member *m)
{
	if (rnd(2))
		for (unsigned int i = 0; i < SLOTS; i++)
			shmk_free(&m->msg[i]);
	shmk_detach(m->s);
	m->s = NULL;
}

/* The payload is memory of the pool, or of the message, from its first to its last byte. */
static void msg_sound(struct member *m, struct shmk_msg *msg, const char *where)
{
	volatile unsigned char sum = 0;
	unsigned char *data = msg->data;

	if (!data)
		give_up("%s: success without a message", where);
	if (data == msg->small ? msg->room > sizeof(msg->small) :
				 !shmk_contains(m->s, data, msg->room))
		give_up("%s: %p has room for %zu bytes and lies elsewhere", where, msg->data, msg->room);
	if (msg->len > msg->room)
		give_up("%s: length %zu, room %zu", where, msg->len, msg->room);
	for (size_t i = 0; i < msg->len; i++)
		sum += data[i];
	if (msg->room && rnd(2))
		data[rnd(2) ? msg->room - 1 : rnd((uint32_t)msg->room)] = sum;
}

/* One that holds something, or nothing. */
static struct shmk_msg *any(struct member *m, bool full)
{
	unsigned int i, from = rnd(SLOTS);

	for (i = 0; i < SLOTS; i++)
		if (!m->msg[(from + i) % SLOTS].data == !full)
			return &m->msg[(from + i) % SLOTS];
	return NULL;
}

static void got(struct member *m, struct shmk_msg *msg, int ret, const char *where)
{
	void *data;
	size_t len;

	if (ret < 0)
		return;
	atomic_fetch_add(&me->good, 1);
	msg_sound(m, msg, where);
	for (unsigned int i = 0; i <= shmk_msg_parts(msg); i++)
		if (!shmk_msg_part(msg, i, &data, &len) && !shmk_contains(m->s, data, len))
			give_up("%s: part %u lies elsewhere", where, i);
	shmk_msg_shared(msg);
	shmk_msg_refs(msg);
}

static void op_alloc(struct member *m, struct shmk_queue *q)
{
	static const uint32_t most[] = { 200, 3000, 40000, 200000 };
	struct shmk_msg *msg = any(m, false);

	(void)q;
	if (msg)
		got(m, msg, shmk_alloc(m->s, rnd(most[rnd(4)]), rnd(4) ? 0 : 1024, msg), "alloc");
}

static void op_free(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg *msg = any(m, true);

	(void)q;
	if (msg)
		shmk_free(msg);
}

static void op_resize(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg *msg = any(m, true);

	(void)q;
	if (msg && !shmk_resize(msg, rnd(2) ? rnd(300) : msg->room))
		msg_sound(m, msg, "resize");
}

static void op_send(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg *msg = any(m, true);
	unsigned char buf[300] = { 0 };

	switch (rnd(5)) {
	case 0:
		shmk_send_copy(q, buf, rnd(sizeof(buf)), SHMK_TRY);
		break;
	case 1:
		shmk_send_batch(q, m->msg, rnd(SLOTS), SHMK_TRY);
		break;
	case 2:
		if (msg && msg->data != msg->small && !shmk_send_ptr(q, msg->data, msg->len, SHMK_TRY))
			msg->data = NULL;
		break;
	default:
		if (msg)
			shmk_send(q, msg, SHMK_TRY);
	}
}

static void op_recv(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg *msg = any(m, false), some[4];
	unsigned char buf[4096];
	int n;

	switch (rnd(5)) {
	case 0:
		shmk_recv_copy(q, buf, rnd(sizeof(buf)), SHMK_TRY);
		break;
	case 1:
		n = shmk_recv_batch(q, some, 4, SHMK_TRY);
		for (int i = 0; i < n; i++) {
			got(m, &some[i], 0, "recv_batch");
			shmk_free(&some[i]);
		}
		break;
	case 2:
		if (!rnd(20))
			shmk_queue_reset(q);
		break;
	default:
		if (msg)
			got(m, msg, shmk_recv(q, msg, SHMK_TRY), "recv");
	}
}

static void op_share(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg *from = any(m, true), *to = any(m, false), many[6];
	unsigned int n = 1 + rnd(6);

	(void)q;
	if (!from || !to)
		return;
	if (rnd(3)) {
		if (!shmk_msg_share(from, to))
			msg_sound(m, to, "share");
		return;
	}
	if (shmk_msg_share_many(from, many, n))
		return;
	while (n--) {
		msg_sound(m, &many[n], "share_many");
		shmk_free(&many[n]);
	}
}

static void op_parts(struct member *m, struct shmk_queue *q)
{
	unsigned int first = rnd(SLOTS), n = 1 + rnd(SLOTS - first);
	struct shmk_msg some[SHMK_PARTS_MAX];
	struct shmk_msg *msg = any(m, rnd(2));
	int nr;

	if (rnd(3) == 0) {
		shmk_send_multi(q, m->msg + first, n, SHMK_TRY);
		return;
	}
	if (!msg)
		return;
	if (!msg->data) {
		got(m, msg, shmk_msg_pack(m->msg + first, n, msg), "pack");
		return;
	}
	nr = rnd(2) ? shmk_msg_unpack(msg, some, SHMK_PARTS_MAX) :
		      shmk_recv_multi(q, some, SHMK_PARTS_MAX, SHMK_TRY);
	for (int i = 0; i < nr; i++) {
		msg_sound(m, &some[i], "unpack");
		shmk_free(&some[i]);
	}
}

static void op_topic(struct member *m, struct shmk_queue *q)
{
	unsigned char buf[400] = { 0 };
	struct shmk_held held;

	(void)q;
	if (!m->topic || !m->sub)
		return;
	switch (rnd(8)) {
	case 0:
		shmk_topic_writer(m->topic, SHMK_TRY);
		break;
	case 1:
		if (!m->loan.data && !shmk_topic_loan(m->topic, &m->loan)) {
			if (!shmk_contains(m->s, m->loan.data, m->loan.room))
				give_up("loan lies elsewhere");
			memset(m->loan.data, 1, m->loan.room);
		}
		break;
	case 2:
		if (m->loan.data)
			shmk_topic_publish(m->topic, &m->loan, rnd(301), SHMK_TRY);
		break;
	case 3:
		shmk_topic_publish_copy(m->topic, buf, rnd(301), SHMK_TRY);
		break;
	case 4:
		if (!m->held.data && !(rnd(2) ? shmk_topic_take(m->sub, &m->held, SHMK_TRY) :
						shmk_topic_take_last(m->sub, &m->held)) &&
		    !shmk_contains(m->s, m->held.data, m->held.len))
			give_up("topic: %zu bytes lie elsewhere", m->held.len);
		break;
	case 5:
		if (m->held.data)
			shmk_topic_release(&m->held);
		m->held.data = NULL;
		break;
	case 6:
		shmk_topic_read(m->sub, buf, sizeof(buf), &held, SHMK_TRY);
		break;
	default:
		shmk_topic_read_last(m->topic, buf, sizeof(buf), &held);
	}
}

static void op_mail(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg *full = any(m, true), *empty = any(m, false);
	struct shmk_mail_info info;

	if (!m->mb || !full || !empty || !m->q[4])
		return;
	switch (rnd(6)) {
	case 0:
		shmk_mail_send(m->s, 1 + rnd(4), 0, rnd(3), full, SHMK_TRY);
		break;
	case 1:
		got(m, empty, shmk_mail_recv(m->mb, rnd(4), rnd(2) ? SHMK_ANY_TAG : rnd(3), empty,
					     SHMK_TRY), "mail");
		break;
	case 2:
		shmk_mail_probe(m->mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &info);
		break;
	case 3:
		shmk_request_send(m->mb, m->q[4], full, SHMK_TRY);
		break;
	case 4:
		got(m, empty, shmk_reply_recv(m->mb, 0, empty, SHMK_TRY), "reply");
		break;
	default:
		if (!shmk_recv(m->q[4], empty, SHMK_TRY))
			shmk_reply(empty, full, SHMK_TRY);
	}
	(void)q;
}

/* Whatever it tells of lies in the pool. */
static int told(const struct shmk_holding *h, void *arg)
{
	const struct shmk *s = arg;

	if (h->block != SHMK_NO_BLOCK &&
	    (h->offset >= s->data_bytes || h->room > s->data_bytes - h->offset))
		abort();
	return 0;
}

static void op_look(struct member *m, struct shmk_queue *q)
{
	struct shmk_queue_stats stats;
	struct shmk_pool_stat pool;
	struct shmk_peer peer;
	struct shmk_event event;
	struct shmk_pool_space space;
	char report[400];

	switch (rnd(8)) {
	case 0:
		shmk_pool_check(m->s, report, sizeof(report));
		break;
	case 6:
		shmk_pool_dump(m->s, told, m->s);
		break;
	case 7:
		shmk_pool_space(m->s, &space);
		break;
	case 1:
		shmk_pool_stat(m->s, &pool);
		break;
	case 2:
		for (uint32_t id = 0; !shmk_queue_next(m->s, id, &stats); id = stats.id + 1)
			;
		break;
	case 3:
		for (uint32_t id = 0; !shmk_peer_next(m->s, id, &peer); id = peer.id + 1)
			;
		break;
	case 4:
		for (int i = 0; i < 100 && !shmk_event_next(m->s, &event); i++)
			;
		break;
	default:
		shmk_queue_fd(q, (int)rnd(2));
	}
}

static void op_reopen(struct member *m, struct shmk_queue *q)
{
	for (unsigned int i = 0; i < QUEUES && !rnd(8); i++) {
		if (m->q[i] != q)
			continue;
		shmk_queue_close(q);
		queue_open(m, i);
	}
}

/* A call that sleeps, with nobody to wake it but the deadline. */
static void op_wait(struct member *m, struct shmk_queue *q)
{
	struct shmk_msg msg;

	if (rnd(8))
		return;
	if (!shmk_recv(q, &msg, shmk_deadline_ms(2))) {
		got(m, &msg, 0, "wait");
		shmk_free(&msg);
	}
}

static const struct {
	const char *name;
	void (*run)(struct member *m, struct shmk_queue *q);
} ops[] = {
	{ "alloc", op_alloc }, { "alloc", op_alloc }, { "free", op_free }, { "resize", op_resize },
	{ "send", op_send }, { "send", op_send }, { "recv", op_recv }, { "recv", op_recv },
	{ "share", op_share }, { "parts", op_parts }, { "topic", op_topic }, { "topic", op_topic },
	{ "mail", op_mail }, { "look", op_look }, { "reopen", op_reopen }, { "wait", op_wait },
	/* not of step() */
	{ "open", NULL }, { "close", NULL }, { "spoil", NULL }, { "a death", NULL },
};
#define NR_OPS	(sizeof(ops) / sizeof(*ops) - 4)
#define OPEN	NR_OPS

static void at(unsigned int op)
{
	atomic_store(&me->op, (int)op);
	atomic_fetch_add(&me->nr, 1);
}

static void step(struct member *m)
{
	struct shmk_queue *q = m->q[rnd(QUEUES)];
	unsigned int op = rnd(NR_OPS);

	at(op);
	if (q)
		ops[op].run(m, q);
}

/* ------------------------------------------------------------ garbage -- */

static uint64_t spoilt(uint64_t old)
{
	switch (rnd(9)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2:
		return old + 1;
	case 3:
		return old - 1;
	case 4:
		return old + (1ULL << 32);
	case 5:
		return old - (1ULL << 32);
	case 6:
		return (old & ~0xffffULL) | rnd(20);
	case 7:
		return rnd64();
	default:
		return old ^ 1ULL << rnd(64);
	}
}

/* Of this pool, and mostly one in use. */
static uint32_t a_block(struct shmk *s)
{
	return rnd(3) ? rnd(64) : rnd(20) ? rnd(s->view.nr_spans * SHMK_SPAN_UNITS) : rnd(1U << 28);
}

static void spoil_block(struct shmk *s)
{
	struct shmk_block *b = &s->view.blocks[a_block(s) % (s->view.nr_spans * SHMK_SPAN_UNITS)];
	uint64_t gen = SHMK_BLOCK_GEN(b->word) + rnd(3) - 1;

	switch (rnd(4)) {
	case 0:
		WRITE_ONCE(b->len, rnd(2) ? spoilt(b->len) :
					    SHMK_PART(rnd(5), a_block(s), rnd(5)));
		break;
	case 1:
		WRITE_ONCE(b->word, spoilt(b->word));
		break;
	default:
		WRITE_ONCE(b->word, SHMK_BLOCK_UP_WORD(gen, a_block(s), rnd(16)));
	}
}

static void spoil_span(struct shmk *s)
{
	struct shmk_span *p = &s->view.spans[rnd(s->view.nr_spans)];

	switch (rnd(5)) {
	case 0:
		WRITE_ONCE(p->nr_spans, rnd(2) ? rnd(20) : rnd64());
		break;
	case 1:
		WRITE_ONCE(p->freed, rnd64());
		WRITE_ONCE(p->changed, 1);
		break;
	case 2:
		WRITE_ONCE(p->word, spoilt(p->word));
		break;
	default:
		WRITE_ONCE(p->word, SHMK_SPAN_WORD(SHMK_SPAN_GEN(p->word), rnd(5), rnd(5),
						   rnd(20), rnd(6)));
	}
	if (rnd(2)) {
		s->view.taken_map[0] = spoilt(s->view.taken_map[0]);
		s->view.stale_map[0] = spoilt(s->view.stale_map[0]);
	}
}

static void spoil_ring(struct shmk *s)
{
	struct shmk_ring_view rv = { .slots = NULL };
	struct shmk_slot *slot;
	__u64 *words;
	uint32_t lap;

	s->view.queue(&s->view, rnd(8), &rv);
	if (!rv.slots)
		return;
	words = (__u64 *)rv.ring;
	slot = shmk_slot_at(&rv, rnd(1U << rv.capacity_shift));
	lap = SHMK_P_LAP(slot->p) + rnd(3) - 1;
	switch (rnd(5)) {
	case 0:
		words = &words[rnd(sizeof(*rv.ring) / 8)];
		WRITE_ONCE(*words, spoilt(*words));
		break;
	case 1:
		WRITE_ONCE(slot->t, SHMK_T_TRIED(lap, rnd(6), rnd(4)));
		break;
	case 2:
		WRITE_ONCE(slot->p, spoilt(slot->p));
		break;
	case 3:
		*(__u64 *)(void *)slot->inl = spoilt(*(__u64 *)(void *)slot->inl);
		break;
	default:
		WRITE_ONCE(slot->p, SHMK_P(lap, rnd(7), rnd(2) ? a_block(s) : rnd(300)));
	}
}

static void spoil_ledger(struct shmk *s)
{
	struct shmk_entry *e = &s->ledger->entry[rnd(rnd(2) ? 8 : s->nr_entries)];

	WRITE_ONCE(e->where, rnd(3) ? SHMK_WHERE(rnd(8), rnd(2) ? rnd(16) : rnd(1U << 31)) : rnd64());
	WRITE_ONCE(e->what, rnd(6) ? SHMK_WHAT(rnd(16), a_block(s), rnd(6)) : rnd64());
	if (!rnd(4))
		WRITE_ONCE(s->ledger->high, rnd(2) ? s->nr_entries : rnd64());
}

static void spoil(struct shmk *s)
{
	__u64 *p;

	switch (rnd(10)) {
	case 0:
	case 1:
	case 2:
		spoil_block(s);
		break;
	case 3:
		spoil_span(s);
		break;
	case 4:
	case 5:
	case 6:
		spoil_ring(s);
		break;
	case 7:
		spoil_ledger(s);
		break;
	case 8:
		p = (__u64 *)(void *)s->data + rnd((uint32_t)(rnd(2) ? 2048 : s->data_bytes / 8));
		WRITE_ONCE(*p, spoilt(*p));
		break;
	default:
		p = (__u64 *)(void *)s->control + rnd((uint32_t)(s->status->control_bytes / 8));
		WRITE_ONCE(*p, spoilt(*p));
	}
}

/* ------------------------------------------------- one after the other -- */

/* Its own ledger, and all else; killed with whatever that is. */
static void a_death(const char *uri)
{
	struct member m;
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork: %s", strerror(errno));
	if (pid) {
		waitpid(pid, NULL, 0);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (member_open(&m, uri)) {
		for (uint32_t n = rnd(30); n; n--)
			step(&m);
		for (uint32_t n = rnd(40); n; n--)
			spoil_ledger(m.s);
		for (uint32_t n = rnd(6); n; n--)
			spoil(m.s);
	}
	raise(SIGKILL);
}

static void round_alone(const char *uri)
{
	struct member m[2], hostile;
	uint32_t mean = 1 + rnd(30);

	at(OPEN);
	if (!member_open(&m[0], uri) || !member_open(&m[1], uri) || !member_open(&hostile, uri))
		give_up("nobody can attach to what nobody has spoilt");
	for (uint32_t n = 0; n < STEPS; n++) {
		step(&m[rnd(2)]);
		if (!rnd(mean)) {
			at(OPEN + 2);
			for (uint32_t k = 1 + rnd(4); k; k--)
				spoil(hostile.s);
		}
		if (!rnd(60)) {
			at(OPEN + 3);
			a_death(uri);
		}
	}
	at(OPEN + 1);
	member_close(&hostile);
	member_close(&m[0]);
	member_close(&m[1]);
}

/* ------------------------------------------------------- all at once -- */

static void worker(const char *uri)
{
	unsigned int left = 100;
	struct member m;

	at(OPEN);
	if (!member_open(&m, uri))
		return;		/* spoilt already, or full of the dead: no crash is what counts */
	while (left) {
		step(&m);
		left -= atomic_load(&me->over);
	}
	at(OPEN + 1);
	member_close(&m);
}

/* Its own ledger, too, and with that it can do nothing else any more. */
static void spoiler(const char *uri)
{
	struct member m;

	at(OPEN);
	if (!member_open(&m, uri))
		return;
	while (!atomic_load(&me->over)) {
		at(OPEN + 2);
		spoil(m.s);
		if (!rnd(3))
			usleep(rnd(300));
	}
	member_close(&m);
}

/* -------------------------------------------------------- the watcher -- */

struct runner {
	pid_t		pid;
	struct progress	*progress;
	unsigned long	seen;
	int64_t		since;
};

static void start(struct runner *r, void (*body)(const char *uri), const char *uri, uint64_t seed)
{
	memset(r->progress, 0, sizeof(*r->progress));
	r->seen = 0;
	r->since = now_ns();
	r->pid = fork();
	if (r->pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	me = r->progress;
	state = seed;
	body(uri);
	_exit(0);
}

/* Has it stood still for too long? */
static bool hangs(struct runner *r)
{
	unsigned long nr = atomic_load(&r->progress->nr);

	if (nr != r->seen) {
		r->seen = nr;
		r->since = now_ns();
	}
	return now_ns() - r->since > LIMIT_MS * 1000000LL;
}

/* True: it has ended, or was made to. @bad: not as it should. */
static bool ended(struct runner *r, bool *bad)
{
	const struct progress *p = r->progress;
	const char *op = ops[atomic_load(&p->op)].name;
	int status;

	if (!hangs(r)) {
		if (waitpid(r->pid, &status, WNOHANG) != r->pid)
			return false;
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			return true;
		if (WIFSIGNALED(status))
			ksft_print_msg("signal %d in %s (step %lu)\n", WTERMSIG(status), op, r->seen);
		else
			ksft_print_msg("%s: %s (step %lu)\n", op, p->why, r->seen);
	} else {
		ksft_print_msg("%s takes more than %d ms (step %lu)\n", op, LIMIT_MS, r->seen);
		kill(r->pid, SIGABRT);	/* a core, where one is wanted */
		waitpid(r->pid, &status, 0);
	}
	*bad = true;
	return true;
}

static unsigned long env(const char *name, unsigned long otherwise)
{
	const char *v = getenv(name);

	return v ? strtoul(v, NULL, 0) : otherwise;
}

/* ---------------------------------------------------------- the tests -- */

#define CLEAN	16

FIXTURE(hostile) {
	uint64_t	seed;
	int64_t		end;
	struct progress	*progress;
	struct shmk	*clean;		/* another pool, of which nobody else knows */
	struct shmk_queue *q;
	struct shmk_msg	msg[CLEAN];
};

FIXTURE_SETUP(hostile)
{
	const struct shmk_pool_opts pool = { .bytes = MIB, .nr_peers = 4, .nr_queues = 4 };
	const struct shmk_attach_opts opts = { .create = &pool };
	const struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	char uri[64];

	self->seed = env("SHMK_TEST_SEED", (unsigned long)now_ns() >> 10);
	self->end = now_ns() + (int64_t)env("SHMK_FUZZ_SECONDS", 7) * 1000000000;
	self->progress = mmap(NULL, 4096 * (WORKERS + SPOILERS), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->progress);
	ASSERT_EQ(0, shmk_attach(test_uri(uri, "clean"), &opts, &self->clean));
	ASSERT_EQ(0, shmk_queue_open(self->clean, "q", &qopts, SHMK_TRY, &self->q));
	for (int i = 0; i < CLEAN; i++) {
		ASSERT_EQ(0, shmk_alloc(self->clean, 1000, 0, &self->msg[i]));
		memset(self->msg[i].data, i, 1000);
	}
	for (int i = 0; i < CLEAN / 2; i++)
		ASSERT_EQ(0, shmk_send(self->q, &self->msg[i], SHMK_TRY));
}

FIXTURE_TEARDOWN(hostile)
{
	char report[400] = "";

	for (int i = 0; i < CLEAN / 2; i++)
		EXPECT_EQ(0, shmk_recv(self->q, &self->msg[i], SHMK_TRY));
	for (int i = 0; i < CLEAN; i++)
		for (int k = 0; self->msg[i].data && k < 1000; k++)
			ASSERT_EQ(i, ((unsigned char *)self->msg[i].data)[k]);
	EXPECT_EQ(0, shmk_pool_check(self->clean, report, sizeof(report)))
		TH_LOG("%s", report);
	shmk_detach(self->clean);
}

static struct progress *progress_of(const FIXTURE_DATA(hostile) *self, unsigned int i)
{
	return (void *)((char *)self->progress + i * 4096UL);
}

static void uri_of(char *uri, uint64_t seed)
{
	sprintf(uri, "%s:fuzz.%d.%llx", on_module() ? "shmk" : "local", getpid(),
		(unsigned long long)seed);
}

/* A round is over when nothing is left of its pool. */
static bool pool_is_gone(const char *uri)
{
	const int64_t end = now_ns() + LIMIT_MS * 1000000LL;
	struct shmk *s;
	int ret;

	do {
		if (!on_module())
			shmk_pool_cleanup(uri);
		ret = shmk_attach(uri, NULL, &s);
		if (ret == -ENOENT)
			return true;
		if (!ret)
			shmk_detach(s);
		usleep(10000);
	} while (now_ns() < end);
	return false;
}

TEST_F_TIMEOUT(hostile, members_get_errors_and_nothing_worse_one_after_the_other, 100000)
{
	struct runner r = { .progress = progress_of(self, 0) };
	unsigned long rounds = 0, steps = 0, good = 0;
	bool bad = false;
	char uri[80];

	do {
		uri_of(uri, self->seed);
		start(&r, round_alone, uri, self->seed);
		while (!ended(&r, &bad))
			usleep(200);
		steps += atomic_load(&r.progress->nr);
		good += atomic_load(&r.progress->good);
		ASSERT_FALSE(bad)
			TH_LOG("SHMK_TEST_SEED=%llu", (unsigned long long)self->seed);
		ASSERT_TRUE(pool_is_gone(uri))
			TH_LOG("SHMK_TEST_SEED=%llu: the pool stays", (unsigned long long)self->seed);
		self->seed++;
		rounds++;
	} while (now_ns() < self->end);
	TH_LOG("%lu rounds, %lu steps, %lu good messages, SHMK_TEST_SEED from %llu",
	       rounds, steps, good, (unsigned long long)(self->seed - rounds));
	EXPECT_LT(0, good);
}

static void let_them_work(struct runner *r, uint64_t *seed, const char *uri, bool *bad)
{
	const int64_t end = now_ns() + 300000000;

	while (now_ns() < end && !*bad) {
		unsigned int i = rnd(WORKERS + SPOILERS);

		usleep(rnd(20000));
		for (unsigned int k = 0; k < WORKERS + SPOILERS; k++)
			if (ended(&r[k], bad))
				start(&r[k], k < WORKERS ? worker : spoiler, uri, ++*seed);
		if (i && rnd(2)) {	/* one stays */
			kill(r[i].pid, SIGKILL);
			waitpid(r[i].pid, NULL, 0);
			start(&r[i], i < WORKERS ? worker : spoiler, uri, ++*seed);
		}
	}
	for (unsigned int k = 0; k < WORKERS + SPOILERS; k++)
		atomic_store(&r[k].progress->over, true);
	for (unsigned int k = 0; k < WORKERS + SPOILERS; k++)
		while (!ended(&r[k], bad))
			usleep(1000);
}

TEST_F_TIMEOUT(hostile, members_get_errors_and_nothing_worse_all_at_once, 100000)
{
	struct runner r[WORKERS + SPOILERS];
	unsigned long rounds = 0;
	bool bad = false;
	char uri[80];

	state = self->seed;
	do {
		uint64_t seed = self->seed + rounds * 1000;

		uri_of(uri, seed);
		for (unsigned int k = 0; k < WORKERS + SPOILERS; k++) {
			r[k].progress = progress_of(self, k);
			start(&r[k], k < WORKERS ? worker : spoiler, uri, ++seed);
		}
		let_them_work(r, &seed, uri, &bad);
		ASSERT_FALSE(bad)
			TH_LOG("SHMK_TEST_SEED=%llu", (unsigned long long)(self->seed + rounds * 1000));
		ASSERT_TRUE(pool_is_gone(uri));
		rounds++;
	} while (now_ns() < self->end);
	TH_LOG("%lu rounds, SHMK_TEST_SEED=%llu", rounds, (unsigned long long)self->seed);
}

/* ------------------------------------------ what such rounds have found -- */

#define SPANS	32

FIXTURE(spoilt) {
	char		uri[64];
	struct shmk	*s;
	struct shmk_queue *q;
};

FIXTURE_SETUP(spoilt)
{
	/* So large that an empty span is kept. */
	const struct shmk_pool_opts pool = { .bytes = SPANS << 16, .nr_peers = 4, .nr_queues = 4 };
	const struct shmk_attach_opts opts = { .create = &pool, .nr_entries = 10000 };
	const struct shmk_queue_opts qopts = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER, .capacity = 4,
	};

	ASSERT_EQ(0, shmk_attach(test_uri(self->uri, "spoilt"), &opts, &self->s));
	ASSERT_EQ(SPANS, self->s->view.nr_spans);
	ASSERT_EQ(0, shmk_queue_open(self->s, "q", &qopts, SHMK_TRY, &self->q));
}

FIXTURE_TEARDOWN(spoilt)
{
	shmk_detach(self->s);
}

/* One block of each unit of the class of @len, until there are none. */
static unsigned int alloc_all(struct shmk *s, size_t len)
{
	struct shmk_msg msg;
	unsigned int nr = 0;

	while (!shmk_alloc(s, len, 0, &msg))
		nr++;
	return nr;
}

TEST_F(spoilt, a_message_has_its_room_whatever_the_span_says)
{
	struct shmk_msg first, msg;
	struct shmk_span *span;

	ASSERT_EQ(0, shmk_alloc(self->s, 1, 0, &first));
	span = &self->s->view.spans[first.block >> SHMK_SPAN_UNITS_SHIFT];
	span->word = SHMK_SPAN_WORD(SHMK_SPAN_GEN(span->word), self->s->self, 0, 5, SHMK_SPAN_CUT);
	ASSERT_EQ(0, shmk_alloc(self->s, 256, 0, &msg));
	EXPECT_EQ(256, msg.room);
}

TEST_F(spoilt, room_ends_with_the_pool)
{
	struct shmk_span *span = &self->s->view.spans[SPANS - 1];
	const uint32_t last = SPANS * SHMK_SPAN_UNITS - 1;

	span->word = SHMK_SPAN_WORD(1, self->s->self, 0, SHMK_CLASSES - 1, SHMK_SPAN_CUT);
	EXPECT_EQ(256, shmk_block_room(&self->s->view, last));
	span->word = SHMK_SPAN_WORD(1, self->s->self, 0, 0, SHMK_SPAN_RUN);
	span->nr_spans = 2;
	EXPECT_EQ(256, shmk_block_room(&self->s->view, last));
}

TEST_F(spoilt, a_free_block_that_nobody_can_take_is_not_tried_for_ever)
{
	struct shmk_msg msg;
	__u64 *word;

	ASSERT_EQ(0, shmk_alloc(self->s, 1, 0, &msg));
	word = &self->s->view.blocks[msg.block].word;
	shmk_free(&msg);
	*word |= 1 << 4;
	EXPECT_EQ(SPANS * SHMK_SPAN_UNITS - 1, alloc_all(self->s, 1));
}

TEST_F(spoilt, a_block_freed_by_two_is_listed_once)
{
	struct shmk_msg msg;
	__u64 *word;

	ASSERT_EQ(0, shmk_alloc(self->s, 1, 0, &msg));
	word = &self->s->view.blocks[msg.block].word;
	for (int i = 0; i < 100000; i++) {
		struct shmk_msg again = msg;

		*word = SHMK_BLOCK_WORD(msg.gen, SHMK_BLOCK_USED);
		ASSERT_EQ(0, entry_get(self->s, &again.entry));
		shmk_free(&again);
	}
	EXPECT_EQ(SPANS * SHMK_SPAN_UNITS, alloc_all(self->s, 1));
}

TEST_F(spoilt, what_lies_behind_the_last_block_of_a_span_is_none)
{
	const uint32_t step = 12, behind = SHMK_SPAN_UNITS / step * step;
	struct shmk_msg msg, other, none;

	ASSERT_EQ(0, shmk_alloc(self->s, step << 8, 0, &msg));
	ASSERT_EQ(0, shmk_alloc(self->s, step << 8, 0, &other));
	none = msg;
	none.block = (msg.block & ~(SHMK_SPAN_UNITS - 1)) + behind;
	self->s->view.blocks[none.block].word = SHMK_BLOCK_WORD(msg.gen, SHMK_BLOCK_USED);
	ASSERT_EQ(0, entry_get(self->s, &none.entry));
	shmk_free(&none);
	EXPECT_EQ(SPANS * (SHMK_SPAN_UNITS / step) - 2, alloc_all(self->s, step << 8));
}

TEST_F(spoilt, an_empty_slot_that_nobody_can_fill_is_an_error)
{
	struct shmk_msg msg;

	shmk_slot_at(&self->q->rv, 0)->p = SHMK_P(0, SHMK_KIND_EMPTY, 1);
	ASSERT_EQ(0, shmk_alloc(self->s, 1, 0, &msg));
	EXPECT_EQ(-EUCLEAN, shmk_send(self->q, &msg, SHMK_FOREVER));
	EXPECT_EQ(-EUCLEAN, shmk_send_copy(self->q, "", 1, SHMK_FOREVER));
}

/* To who waits there is room, to who sends there is none. */
TEST_F(spoilt, nobody_waits_for_what_is_there_and_is_not)
{
	static const uint32_t lap[] = { 2, 1, UINT32_MAX, UINT32_MAX };

	for (unsigned int i = 0; i < 4; i++)
		shmk_slot_at(&self->q->rv, i)->p = SHMK_P(lap[i], SHMK_KIND_EMPTY, 0);
	ASSERT_TRUE(shmk_ring_ready(&self->q->rv, SHMK_SIDE_SEND));
	EXPECT_EQ(-EAGAIN, shmk_send_copy(self->q, "", 1, SHMK_TRY));
	EXPECT_EQ(-EUCLEAN, shmk_send_copy(self->q, "", 1, SHMK_FOREVER));
	ASSERT_LE(0, shmk_queue_fd(self->q, SHMK_SEND));
	EXPECT_EQ(-EUCLEAN, shmk_send_copy(self->q, "", 1, SHMK_TRY));
}

/* Nothing is spoilt: the entry of an inline message that stays in its slot names no block. */
TEST_F(spoilt, a_pointer_is_found_beside_a_held_inline_message)
{
	struct shmk_msg held, msg;

	ASSERT_EQ(0, shmk_send_copy(self->q, "x", 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(self->q, &held, SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(self->s, 10, 0, &msg));
	/* So that it comes behind: entries are looked through from the first. */
	EXPECT_EQ(0, shmk_send_ptr(self->q, msg.data, 10, SHMK_TRY));
	shmk_free(&held);
}

TEST_HARNESS_MAIN
