// SPDX-License-Identifier: GPL-2.0-only
/*
 * storm.c - many processes, any of which is killed or stopped at any time.
 *
 * storm [--kills N] [--procs N] [--seed N] [--wrap 1]
 *
 * Workers send, receive and forward checksummed messages through queues of all
 * kinds, share them, write and read a topic, send mail and call each other (patterns.h);
 * the controller kills, stops, continues and replaces them. While that
 * goes on it uses nothing but signals: whoever it has stopped may hold the
 * local backend's pool lock. In the end, everybody has left or is dead:
 *   - no message came twice, none was damaged, no pattern was violated;
 *   - sent = received + reported lost + still there. What a victim was just
 *     doing is known from its record (one word per life) and bounds the rest;
 *   - no block is in use, all memory can be had in one piece, the pool checks.
 * Nobody may be stuck: there must be progress in every PROGRESS_MS.
 * --wrap 1: positions, laps and generations begin just below their wrap.
 */
#include "lib_test.h"
#include "kselftest.h"
#include "wrap.h"

#define NR_QUEUES	5
#define NR_IDS		(1U << 26)
#define NR_PROCS	256
#define POOL		(8 * MIB)
#define PROGRESS_MS	15000

/*
 * What is known of a message; a byte each. KEPT: may not get lost; SHARED: there are
 * several of it, in other books; LETTER: goes with its receiver, if it dies.
 */
enum { BEGUN = 1, SENT = 2, RECEIVED = 4, KEPT = 8, SHARED = 16, LETTER = 32 };
/* What a worker is doing; survives it. */
enum { NOTHING, TAKES, HOLDS, SHARES };

struct record {
	uint32_t	phase;
	uint32_t	queue;
	int32_t		error;
	uint32_t	line;
	uint64_t	id;
};

struct shared {
	uint32_t	stop;
	uint64_t	next_id;
	uint64_t	received;
	uint64_t	twice, damaged, wrong;
	uint64_t	refs_sent, refs_received;
	uint64_t	published, read, served, answered;
	struct record	record[NR_PROCS];
	uint8_t		id[NR_IDS];
};

struct payload {
	uint64_t	id;
	uint32_t	len;
	uint32_t	sum;
	uint32_t	fill[];
};

static const struct shmk_queue_opts kinds[NR_QUEUES] = {
	{ .flags = SHMK_QUEUE_CREATE, .capacity = 64 },
	{ .flags = SHMK_QUEUE_CREATE, .capacity = 1 },
	{ .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_SP | SHMK_QUEUE_SC, .capacity = 16 },
	{ .flags = SHMK_QUEUE_CREATE, .capacity = 4, .slot_bytes = 256 },
	{ .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_SC, .capacity = 256, .slot_bytes = 128 },
};

static struct shared *sh;
static char uri[64];
static uint32_t seed, nr_procs;
static bool wraps;

static uint32_t rnd(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed >> 8;
}

static uint32_t sum(const struct payload *p)
{
	uint32_t h = (uint32_t)p->id * 2654435761u + p->len, i, n = (p->len - sizeof(*p)) / 4;

	for (i = 0; i < n; i++)
		h = h * 31 + p->fill[i];
	return h;
}

static void fill(struct payload *p, uint64_t id, uint32_t len)
{
	uint32_t i, n = (len - sizeof(*p)) / 4;

	p->id = id;
	p->len = len;
	for (i = 0; i < n; i++)
		p->fill[i] = (uint32_t)id ^ (i * 40503u);
	p->sum = sum(p);
}

/* ------------------------------------------------------------- a worker -- */

struct worker {
	struct record		*record;
	struct shmk		*s;
	struct shmk_queue	*q[NR_QUEUES];

	struct shmk_queue	*kept, *service;
	struct shmk_topic	*topic;
	struct shmk_sub		*sub;		/* or NULL */
	uint64_t		seq;		/* read last */
	struct shmk_mailbox	*box;
};

static void fatal(struct worker *w, int ret, uint32_t line)
{
	w->record->error = ret;
	w->record->line = line;
	_exit(3);
}

static void phase(struct worker *w, uint32_t what)
{
	__atomic_store_n(&w->record->phase, what, __ATOMIC_SEQ_CST);
}

static bool passing(int64_t ret)
{
	return ret == -EAGAIN || ret == -ETIMEDOUT || ret == -ENOMEM || ret == -EBUSY;
}

static uint64_t new_id(struct worker *w)
{
	uint64_t id = __atomic_fetch_add(&sh->next_id, 1, __ATOMIC_RELAXED);

	if (id >= NR_IDS)
		fatal(w, -EOVERFLOW, __LINE__);
	w->record->id = id;
	return id;
}

/* Returns what was known. */
static uint8_t mark(uint64_t id, uint8_t bits)
{
	return __atomic_fetch_or(&sh->id[id], bits, __ATOMIC_SEQ_CST);
}

/* @again: so many have had it and died. */
static bool got(const void *data, size_t len, uint32_t again)
{
	const struct payload *p = data;

	if (len < sizeof(*p) || p->len != len || p->id >= NR_IDS || sum(p) != p->sum) {
		__atomic_fetch_add(&sh->damaged, 1, __ATOMIC_RELAXED);
		return false;
	}
	if (sh->id[p->id] & SHARED)
		__atomic_fetch_add(&sh->refs_received, 1, __ATOMIC_SEQ_CST);
	else if ((mark(p->id, RECEIVED) & RECEIVED) && !again)
		__atomic_fetch_add(&sh->twice, 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&sh->received, 1, __ATOMIC_RELAXED);
	return true;
}

static int64_t some_time(void)
{
	return rnd() % 3 ? SHMK_TRY : shmk_deadline_ms(1 + rnd() % 4);
}

static uint32_t some_len(void)
{
	uint32_t r = rnd() % 16, len = r < 8 ? 16 + rnd() % 60 : r < 15 ? rnd() % 3000 :
		       rnd() % 150000;

	return (len < sizeof(struct payload) ? (uint32_t)sizeof(struct payload) : len) & ~3U;
}

/* An id that was not sent is as if it had never been. */
static void send_done(struct worker *w, uint64_t id, int ret)
{
	if (!ret)
		mark(id, SENT);
	else
		__atomic_store_n(&sh->id[id], 0, __ATOMIC_SEQ_CST);
	if (ret && !passing(ret))
		fatal(w, ret, __LINE__);
}

static void send_new(struct worker *w, struct shmk_queue *q)
{
	uint32_t len = some_len();
	uint64_t small[32], id;
	struct shmk_msg m;
	int ret;

	if (len <= q->inline_max && len <= sizeof(small)) {
		id = new_id(w);
		fill((struct payload *)small, id, len);
		mark(id, BEGUN);
		send_done(w, id, shmk_send_copy(q, small, len, some_time()));
		return;
	}
	ret = shmk_alloc(w->s, len, 0, &m);
	if (ret == -ENOMEM)
		return;
	if (ret)
		fatal(w, ret, __LINE__);
	id = new_id(w);
	fill(m.data, id, len);
	mark(id, BEGUN);
	ret = shmk_send(q, &m, some_time());
	if (ret)
		shmk_free(&m);
	send_done(w, id, ret);
}

static void receive(struct worker *w, struct shmk_queue *q, struct shmk_queue *next)
{
	struct shmk_msg m;
	uint64_t id;
	int ret;

	phase(w, TAKES);
	ret = shmk_recv(q, &m, some_time());
	if (ret) {
		phase(w, NOTHING);
		if (!passing(ret))
			fatal(w, ret, __LINE__);
		return;
	}
	ret = got(m.data, m.len, 0);
	phase(w, HOLDS);
	if (ret && sh->id[((struct payload *)m.data)->id] & SHARED) {
		/* What others read, too, goes on as it is. */
		ret = next ? shmk_send(next, &m, some_time()) : -EAGAIN;
		if (!ret)
			__atomic_fetch_add(&sh->refs_sent, 1, __ATOMIC_SEQ_CST);
		else if (!passing(ret))
			fatal(w, ret, __LINE__);
	} else if (ret && next && (m.kind == SHMK_KIND_BLOCK || m.len <= next->inline_max)) {
		id = new_id(w);
		fill(m.data, id, (uint32_t)m.len);
		mark(id, BEGUN);
		send_done(w, id, shmk_send(next, &m, some_time()));
	}
	shmk_free(&m);
	phase(w, NOTHING);
}

#include "patterns.h"

static void worker_main(struct record *record)
{
	struct worker w = { .record = record };
	struct shmk_attach_opts opts = { .nr_entries = 64 };
	char name[8];
	uint32_t i;
	int ret = shmk_attach(uri, &opts, &w.s);

	if (ret)
		fatal(&w, ret, __LINE__);
	for (i = 0; i < NR_QUEUES; i++) {
		sprintf(name, "q%u", i);
		ret = shmk_queue_open(w.s, name, NULL, SHMK_TRY, &w.q[i]);
		if (ret)
			fatal(&w, ret, __LINE__);
	}
	patterns_open(&w);
	while (!__atomic_load_n(&sh->stop, __ATOMIC_RELAXED)) {
		uint32_t a = rnd() % NR_QUEUES, b = rnd() % NR_QUEUES, what = rnd() % 16;

		record->queue = a;
		if (rnd() % 2)
			patterns_do(&w);
		else if (what < 7)
			send_new(&w, w.q[a]);
		else if (what < 15)
			receive(&w, w.q[a], what & 1 ? w.q[b] : NULL);
		else if (rnd() % 8 == 0) {	/* others may have the roles */
			sprintf(name, "q%u", a);
			shmk_queue_close(w.q[a]);
			ret = shmk_queue_open(w.s, name, NULL, SHMK_TRY, &w.q[a]);
			if (ret)
				fatal(&w, ret, __LINE__);
		}
	}
	shmk_detach(w.s);
	_exit(0);
}

/* ------------------------------------------------------- the controller -- */

static struct shmk *s;
static struct shmk_queue *queues[NR_QUEUES], *kept, *service;
static struct shmk_topic *topic;
static pid_t pids[NR_PROCS];
static int64_t stopped[NR_PROCS];	/* since when; 0: runs */
static uint32_t nr_kills, in_take, in_hold, in_share;

static void state_dump(void)
{
	char report[256];
	uint32_t i, k;

	for (i = 0; i < NR_QUEUES; i++) {
		struct shmk_queue *q = queues[i];

		ksft_print_msg("q%u: head %llu tail %llu waiters %llu %llu roles %#llx %#llx\n", i,
			       (unsigned long long)q->rv.ring->head,
			       (unsigned long long)q->rv.ring->tail,
			       (unsigned long long)q->rv.ring->waiters_recv,
			       (unsigned long long)q->rv.ring->waiters_send,
			       (unsigned long long)q->rv.ring->role_recv,
			       (unsigned long long)q->rv.ring->role_send);
		for (k = 0; k < 4 && k < 1U << q->rv.capacity_shift; k++)
			ksft_print_msg("  slot %u: P %#llx T %#llx\n", k,
				       (unsigned long long)shmk_slot_at(&q->rv, k)->p,
				       (unsigned long long)shmk_slot_at(&q->rv, k)->t);
	}
	for (i = 0; i < nr_procs; i++)
		ksft_print_msg("worker %u: pid %d%s phase %u queue %u error %d line %u\n", i, pids[i],
			       stopped[i] ? " stopped" : "", sh->record[i].phase,
			       sh->record[i].queue, sh->record[i].error, sh->record[i].line);
	if (shmk_pool_check(s, report, sizeof(report)))
		ksft_print_msg("check: %s\n", report);
}

static void give_up(const char *why)
{
	uint32_t i;

	ksft_print_msg("%s\n", why);
	for (i = 0; i < nr_procs; i++)
		if (pids[i] > 0)
			kill(pids[i], SIGCONT);
	state_dump();
	for (i = 0; i < nr_procs; i++)
		if (pids[i] > 0)
			kill(pids[i], SIGKILL);
	ksft_test_result_fail("storm: %s\n", why);
	ksft_finished();
}

static void start(uint32_t i)
{
	memset(&sh->record[i], 0, sizeof(sh->record[i]));
	stopped[i] = 0;
	rnd();
	pids[i] = fork();
	if (pids[i] < 0)
		give_up("fork");
	if (pids[i])
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	seed ^= (uint32_t)getpid() * 2654435761u;
	shmk_detach(s);
	worker_main(&sh->record[i]);
}

static void cont(uint32_t i)
{
	stopped[i] = 0;
	kill(pids[i], SIGCONT);
}

static void strike(uint32_t i)
{
	int status;

	if (kill(pids[i], SIGKILL) || waitpid(pids[i], &status, 0) != pids[i])
		give_up("kill");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		give_up("a worker ended by itself");
	nr_kills++;
	in_take += sh->record[i].phase == TAKES;
	in_hold += sh->record[i].phase == HOLDS;
	in_share += sh->record[i].phase == SHARES;
}

static void storm(uint32_t kills)
{
	uint64_t seen = 0;
	int64_t when = now_ns();
	uint32_t i;

	while (nr_kills < kills) {
		uint32_t victim = rnd() % nr_procs, what = rnd() % 4;
		int64_t now = now_ns();

		nanosleep(&(struct timespec) { .tv_nsec = rnd() % 4000 * 1000 }, NULL);
		for (i = 0; i < nr_procs; i++)
			if (stopped[i] && now - stopped[i] > 100 * 1000000LL)
				cont(i);
		if (what < 2) {
			strike(victim);
			start(victim);
		} else if (stopped[victim]) {
			cont(victim);
		} else if (what == 2) {
			stopped[victim] = now;
			kill(pids[victim], SIGSTOP);
		}
		if (sh->received != seen) {
			seen = sh->received;
			when = now;
		} else if (now - when > PROGRESS_MS * 1000000LL) {
			give_up("no progress");
		}
		if (sh->twice || sh->damaged || sh->wrong)
			give_up("a message came twice, damaged, or where it should not");
	}
}

static void calm(void)
{
	int64_t end = shmk_deadline_ms(3 * PROGRESS_MS);
	struct shmk_pool_stat stat;
	uint32_t i, left;
	int status;

	sh->stop = 1;
	for (i = 0; i < nr_procs; i++)
		cont(i);
	do {
		nanosleep(&(struct timespec) { .tv_nsec = 1000000 }, NULL);
		for (left = i = 0; i < nr_procs; i++) {
			if (pids[i] && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
				pids[i] = 0;
				if (status)
					give_up("a worker failed");
			}
			left += pids[i] != 0;
		}
		if (now_ns() > end)
			give_up("somebody is stuck");
	} while (left);
	do {
		s->backend->reap(s);
		if (shmk_pool_stat(s, &stat) || now_ns() > end)
			give_up("the dead are not settled");
	} while (stat.peers_now != 1);
}

/* What was sent to, and not received; and what nobody wants any more. */
static uint64_t drain(struct shmk_queue *q, bool in_books)
{
	struct shmk_msg m;
	uint64_t nr = 0;
	int ret;

	while (!(ret = shmk_recv(q, &m, SHMK_TRY))) {
		if (in_books)
			got(m.data, m.len, m.redelivered);
		shmk_free(&m);
		nr++;
	}
	if (ret != -EAGAIN)
		give_up("drain");
	return nr;
}

/* Mailboxes of the dead are removed by who opens one. */
static void patterns_end(void)
{
	struct shmk_topic_stats stats;
	struct shmk_mailbox *box;
	struct shmk_queue_stats left;
	uint64_t buf[128];
	struct shmk_held last = { };
	int64_t n = shmk_topic_read_last(topic, buf, sizeof(buf), &last);

	if (shmk_topic_stats(topic, &stats) || stats.nr_subs || stats.writer)
		give_up("the topic has users who are dead");
	if (n < 0 || !value_whole(buf, n, stats.published) || last.seq != stats.published)
		give_up("the last value of the topic is not the last");
	if (stats.published < sh->published || stats.published > sh->published + nr_kills)
		give_up("the topic has lost or invented a value");
	shmk_topic_close(topic);
	if (shmk_queue_remove(s, "topic"))
		give_up("the topic cannot be removed");
	if (shmk_mailbox_open(s, NULL, &box))
		give_up("no mailbox");
	shmk_mailbox_close(box);
	for (uint32_t id = 0; !shmk_queue_next(s, id, &left); id = left.id + 1)
		if (!strncmp(left.name, "mailbox", 7))
			give_up("a mailbox is left");
}

struct books {
	uint64_t	sent, received, missing, unknown, letters, kept;
};

static struct books books_read(void)
{
	struct books b = { };

	for (uint64_t i = 0; i < sh->next_id; i++) {
		uint8_t id = sh->id[i];
		bool missing = (id & SENT) && !(id & RECEIVED);

		b.sent += (id & SENT) != 0;
		b.received += (id & RECEIVED) != 0;
		b.unknown += (id & BEGUN) && !(id & SENT) && !(id & RECEIVED);
		b.letters += missing && id & LETTER;
		b.kept += missing && id & KEPT;
		b.missing += missing && !(id & (LETTER | KEPT));
	}
	return b;
}

static void report_books(const struct books *b, const struct shmk_pool_stat *stat, uint64_t there)
{
	ksft_print_msg("%u kills: %llu sent, %llu received, %llu of them at the end, %llu missing, %llu reported lost, %llu unknown; %u victims were taking, %u holding, %u sharing; %llu deaths, %llu blocks reclaimed\n",
		       nr_kills, (unsigned long long)b->sent, (unsigned long long)b->received,
		       (unsigned long long)there, (unsigned long long)b->missing,
		       (unsigned long long)stat->lost_messages, (unsigned long long)b->unknown,
		       in_take, in_hold, in_share, (unsigned long long)stat->deaths,
		       (unsigned long long)stat->reclaimed_blocks);
	ksft_print_msg("references: %llu sent, %llu received; topic: %llu published, %llu read; calls: %llu served, %llu answered; %llu letters went with their receivers, %llu came again\n",
		       (unsigned long long)sh->refs_sent, (unsigned long long)sh->refs_received,
		       (unsigned long long)sh->published, (unsigned long long)sh->read,
		       (unsigned long long)sh->served, (unsigned long long)sh->answered,
		       (unsigned long long)b->letters, (unsigned long long)stat->redelivered);
}

/*
 * A worker that was sharing may have sent references that it had not counted yet, and
 * held some that it had not sent. A reply may be lost with who asked.
 */
static void compare(const struct books *b, const struct shmk_pool_stat *stat)
{
	int64_t refs = (int64_t)(sh->refs_sent - sh->refs_received);
	int64_t lost = (int64_t)stat->lost_messages, most;

	if (sh->twice || sh->damaged || sh->wrong)
		give_up("a message came twice, damaged, or where it should not");
	if (b->unknown > nr_kills)
		give_up("more sends are unknown than there were kills");
	if (b->kept)
		give_up("a message is missing that was to be delivered again");
	/* An inline message may be its taker's, but not in the taker's books. */
	if ((int64_t)b->missing + refs > lost + in_take)
		give_up("messages are missing that nobody reported lost");
	most = (int64_t)(b->missing + b->unknown + b->letters) + refs + in_take + in_hold +
	       4 * in_share + (int64_t)(sh->served - sh->answered);
	if (lost > most)
		give_up("more messages are reported lost than can be");
}

static void account(void)
{
	struct shmk_pool_stat stat;
	uint64_t i, there = 0;
	struct books b;
	char report[256];
	struct shmk_msg m;

	if (shmk_pool_check(s, report, sizeof(report)))
		give_up(report);
	for (i = 0; i < NR_QUEUES; i++)
		there += drain(queues[i], true);
	there += drain(kept, true);
	drain(service, false);
	patterns_end();
	if (shmk_pool_stat(s, &stat))
		give_up("stat");
	b = books_read();
	report_books(&b, &stat, there);
	compare(&b, &stat);
	if (stat.blocks_used)
		give_up("blocks are still in use");
	if (shmk_alloc(s, POOL, 0, &m))
		give_up("not all memory came back");
	shmk_free(&m);
	if (shmk_pool_check(s, report, sizeof(report)))
		give_up(report);
}

static struct shmk_queue *make_queue(const char *name, const struct shmk_queue_opts *opts)
{
	struct shmk_queue *q;

	if (shmk_queue_open(s, name, opts, SHMK_TRY, &q))
		ksft_exit_fail_msg("no queue\n");
	if (wraps)
		wrap_ring(&q->rv);
	return q;
}

static void make_patterns(void)
{
	const struct shmk_queue_opts keeps = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER, .capacity = 32,
	}, serves = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_REDELIVER | SHMK_QUEUE_TAGGED,
		.capacity = 16,
	};
	const struct shmk_topic_opts topics = {
		.flags = SHMK_TOPIC_CREATE, .depth = 8, .nr_readers = 64,
	};

	kept = make_queue("kept", &keeps);
	service = make_queue("service", &serves);
	if (shmk_topic_open(s, "topic", &topics, SHMK_TRY, &topic))
		ksft_exit_fail_msg("no topic\n");
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = POOL, .nr_peers = NR_PROCS + 16,
		.nr_queues = 2 * NR_PROCS, .rings_bytes = 4 * MIB };
	struct shmk_attach_opts opts = { .create = &pool, .exclusive = true };
	uint32_t kills = 300, i;
	int64_t t = now_ns();
	char name[8];

	seed = (uint32_t)(t >> 8);
	nr_procs = on_module() ? 12 : 48;
	for (int a = 1; a + 1 < argc; a += 2) {
		uint32_t n = (uint32_t)strtoul(argv[a + 1], NULL, 0);

		if (!strcmp(argv[a], "--kills"))
			kills = n;
		else if (!strcmp(argv[a], "--procs"))
			nr_procs = n < NR_PROCS ? n : NR_PROCS;
		else if (!strcmp(argv[a], "--seed"))
			seed = n;
		else if (!strcmp(argv[a], "--wrap"))
			wraps = n;
	}
	ksft_print_header();
	ksft_set_plan(1);
	ksft_print_msg("%u processes, %u kills, --seed %u\n", nr_procs, kills, seed);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sh == MAP_FAILED || shmk_attach(test_uri(uri, "storm"), &opts, &s))
		ksft_exit_fail_msg("no pool\n");
	for (i = 0; i < NR_QUEUES; i++) {
		sprintf(name, "q%u", i);
		queues[i] = make_queue(name, &kinds[i]);
	}
	if (wraps) {
		wrap_blocks(&s->view);	/* while all are free */
		if (!on_module())
			wrap_peers(s);
	}
	make_patterns();
	for (i = 0; i < nr_procs; i++)
		start(i);
	storm(kills);
	calm();
	account();
	shmk_detach(s);
	ksft_test_result_pass("storm: nothing is lost, leaked or stuck\n");
	ksft_print_msg("%lld ms\n", (long long)((now_ns() - t) / 1000000));
	ksft_finished();
}
