// SPDX-License-Identifier: GPL-2.0-only
/*
 * cost_test.c - what the operations cost, in instructions, on the local backend.
 *
 * Times say little on a shared machine; instructions are the same every time. A child
 * does an operation some dozens of times between two breakpoints, and is stepped through
 * them, after it has done the same once unwatched. So each instruction of the library and
 * of libc is counted, and each system call is seen, of which there must be none.
 *
 * The bounds are 1.3 times what the compiler of Debian 12 made of it, so that who makes an
 * operation dearer has to say so here. The second half of the claims are ratios: the same
 * operation in a pool with many queues, peers, readers, or with much memory.
 */
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include "lib_test.h"
#include "kselftest.h"

#if !defined(__x86_64__)
int main(void)
{
	ksft_print_header();
	ksft_set_plan(1);
	ksft_test_result_skip("cost_test: its breakpoints are x86-64\n");
	ksft_finished();
}
#else

#define N	16	/* operations that are stepped through */
#define READERS	1024
#define PEERS	16	/* that the readers are of */
#define SPARE	255	/* elements: so often a publisher looks at all readers */
#define PUBLISH	(SPARE + 45)

/* What a pool is like. */
struct setting {
	uint64_t	bytes;
	uint32_t	peers, queues;
};

static const struct setting small = { 8 * MIB, 1, 1 };

static struct {
	struct shmk		*s, *o;
	struct shmk_queue	*q, *from, *service, *serve;
	struct shmk_mailbox	*mine, *theirs;
	struct shmk_topic	*t;
	struct shmk_sub		*sub[READERS];
	struct shmk_msg		msg[N];
	uint32_t		to;
} w;

static void must(const char *what, int64_t ret)
{
	if (ret >= 0)
		return;
	printf("# %s: %s\n", what, strerror((int)-ret));
	fflush(stdout);
	_exit(90);
}

/* ---------------------------------------------------------- operations -- */

static const char text[32] = "thirty-one bytes and their end";

static void alloc_free(int i)
{
	must("alloc", shmk_alloc(w.s, 1000, 0, &w.msg[i]));
	shmk_free(&w.msg[i]);
}

static void keep(void)
{
	must("keep", shmk_keep(w.s, 1 << 16));
}

static void keep_none(void)
{
	must("keep", shmk_keep(w.s, 0));
}

static void alloc_all(void)
{
	for (int i = 0; i < N; i++)
		must("alloc", shmk_alloc(w.s, 1000, 0, &w.msg[i]));
}

static void free_all(void)
{
	for (int i = 0; i < N; i++)
		shmk_free(&w.msg[i]);
}

static void send_inline(int i)
{
	(void)i;
	must("send", shmk_send_copy(w.q, text, sizeof(text), SHMK_TRY));
}

static void send_block(int i)
{
	must("send", shmk_send(w.q, &w.msg[i], SHMK_TRY));
}

static void recv_one(int i)
{
	must("recv", shmk_recv(w.from, &w.msg[i], SHMK_TRY));
}

static void fill_inline(void)
{
	for (int i = 0; i < N; i++)
		send_inline(i);
}

static void fill_block(void)
{
	alloc_all();
	for (int i = 0; i < N; i++)
		send_block(i);
}

static void drain(void)
{
	for (int i = 0; i < N; i++)
		recv_one(i);
	free_all();
}

static void send_batch(int i)
{
	if (!i)
		must("send", shmk_send_batch(w.q, w.msg, N, SHMK_TRY));
}

static void recv_batch(int i)
{
	if (!i)
		must("recv", shmk_recv_batch(w.from, w.msg, N, SHMK_TRY));
}

static void mail_send(int i)
{
	(void)i;
	must("mail", shmk_mail_send_copy(w.s, w.to, 0, 1, text, 16, SHMK_TRY));
}

static void mail_recv(int i)
{
	must("mail", shmk_mail_recv(w.theirs, SHMK_ANY_PEER, 1, &w.msg[i], SHMK_TRY));
}

static void mail_fill(void)
{
	for (int i = 0; i < N; i++)
		mail_send(i);
}

static void mail_drain(void)
{
	for (int i = 0; i < N; i++)
		mail_recv(i);
	free_all();
}

/* Both sides of it. */
static void call(int i)
{
	struct shmk_msg *msg = &w.msg[i], request, reply;
	int64_t id;

	must("alloc", shmk_alloc(w.s, 1000, 0, msg));
	id = shmk_request_send(w.mine, w.service, msg, SHMK_TRY);
	must("request", id);
	must("serve", shmk_recv(w.serve, &request, SHMK_TRY));
	must("alloc", shmk_alloc(w.o, 1000, 0, &reply));
	must("reply", shmk_reply(&request, &reply, SHMK_TRY));
	must("reply", shmk_reply_recv(w.mine, id, msg, SHMK_TRY));
	shmk_free(msg);
}

static void publish(int i)
{
	(void)i;
	must("publish", shmk_topic_publish_copy(w.t, text, sizeof(text), SHMK_TRY));
}

static void take(int i)
{
	struct shmk_held held;

	(void)i;
	must("publish", shmk_topic_take_last(w.sub[0], &held));
	shmk_topic_release(&held);
}

/* @most: instructions for one, once 1.3 times what was counted. */
struct op {
	const char	*name;
	void		(*before)(void);
	void		(*run)(int i);
	void		(*after)(void);
	int		times;
	unsigned int	most;
};

static const struct op ops[] = {
	/* First: all others have been told what to keep. */
	{ "alloc_and_free_unasked", NULL, alloc_free, NULL, N, 400 },
	{ "alloc_and_free", keep_none, alloc_free, NULL, N, 476 },
	{ "alloc_and_free_kept", keep, alloc_free, keep_none, N, 365 },
	{ "send_inline", NULL, send_inline, drain, N, 312 },
	{ "recv_inline", fill_inline, recv_one, free_all, N, 328 },
	{ "send_block", alloc_all, send_block, drain, N, 258 },
	{ "recv_block", fill_block, recv_one, free_all, N, 373 },
	{ "send_in_a_batch", alloc_all, send_batch, drain, N, 207 },
	{ "recv_in_a_batch", fill_block, recv_batch, free_all, N, 277 },
	{ "mail_send", NULL, mail_send, mail_drain, N, 548 },
	{ "mail_recv", mail_fill, mail_recv, free_all, N, 913 },
	{ "call_and_reply", NULL, call, NULL, N, 3610 },
};

static const struct op topic_ops[] = {
	{ "publish", NULL, publish, NULL, PUBLISH, 372 },
	{ "take", NULL, take, NULL, N, 393 },
};

/* -------------------------------------------------------------- the pool -- */

static struct shmk *attach(const char *uri, const struct setting *set)
{
	struct shmk_pool_opts pool = {
		.bytes = set->bytes, .nr_peers = set->peers + 511, .nr_queues = set->queues + 40,
		.rings_bytes = 8 * MIB,
	};
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s = NULL;

	must("attach", shmk_attach(uri, &opts, &s));
	return s;
}

static struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t flags)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE | flags, .capacity = 64 };
	struct shmk_queue *q = NULL;

	must(name, shmk_queue_open(s, name, &opts, SHMK_TRY, &q));
	return q;
}

/* Others first, so that what is measured is the last of many. */
static void pool_fill(const char *uri, const struct setting *set)
{
	char name[32];
	uint32_t i;

	for (i = 1; i < set->peers; i++)
		attach(uri, set);
	w.s = attach(uri, set);
	w.o = attach(uri, set);
	for (i = 1; i < set->queues; i++) {
		snprintf(name, sizeof(name), "other-%u", i);
		queue(w.s, name, 0);
	}
	w.q = queue(w.s, "q", 0);
	w.from = queue(w.o, "q", 0);
	w.service = queue(w.s, "svc", SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER);
	w.serve = queue(w.o, "svc", 0);
	must("mailbox", shmk_mailbox_open(w.s, NULL, &w.mine));
	must("mailbox", shmk_mailbox_open(w.o, NULL, &w.theirs));
	w.to = shmk_self(w.o);
}

static void topic_fill(const char *uri, const struct setting *set, int readers)
{
	struct shmk_topic_opts make = {
		.flags = SHMK_TOPIC_CREATE, .nr_readers = READERS, .msg_bytes = 64, .spare = SPARE,
	};
	struct shmk_topic *t[PEERS];
	int i;

	must("topic", shmk_topic_open(w.s, "t", &make, SHMK_TRY, &w.t));
	must("writer", shmk_topic_writer(w.t, SHMK_TRY));
	publish(0);
	for (i = 0; i < PEERS; i++)
		must("topic", shmk_topic_open(attach(uri, set), "t", NULL, SHMK_TRY, &t[i]));
	for (i = 0; i < readers; i++)
		must("subscribe", shmk_topic_subscribe(t[i % PEERS], NULL, &w.sub[i]));
}

/* -------------------------------------------------------------- counting -- */

struct count {
	double		each;		/* instructions */
	uint64_t	syscalls;	/* of all */
};

static void once(const struct op *op, bool watched)
{
	int i;

	if (op->before)
		op->before();
	if (watched)
		__asm__ volatile("int3" ::: "memory");
	for (i = 0; i < op->times; i++)
		op->run(i);
	if (watched)
		__asm__ volatile("int3" ::: "memory");
	if (op->after)
		op->after();
}

static bool trapped(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

/*
 * The vdso reads the clock again whenever the kernel has moved it meanwhile, which who is
 * stepped through it for so long sees many times: another number in every run.
 */
static bool in_vdso(unsigned long rip)
{
	static unsigned long from, to;
	char line[256];
	FILE *f;

	for (f = from ? NULL : fopen("/proc/self/maps", "re"); f && fgets(line, sizeof(line), f);)
		if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &from, &to) == 2)
			break;
	if (f)
		fclose(f);
	return rip >= from && rip < to;
}

/* The child is this program, at the same addresses: its code can be read here. */
static bool count_steps(pid_t pid, struct count *c, int times)
{
	uint64_t steps = 0;

	for (;;) {
		unsigned long rip = (unsigned long)ptrace(PTRACE_PEEKUSER, pid,
						offsetof(struct user, regs.rip), 0);
		const unsigned char *code = (const unsigned char *)rip;

		if (code[0] == 0xcc)
			break;
		c->syscalls += code[0] == 0x0f && code[1] == 0x05;
		steps += !in_vdso(rip);
		if (ptrace(PTRACE_SINGLESTEP, pid, 0, 0) || !trapped(pid))
			return false;
	}
	c->each = (double)steps / times;
	return true;
}

static void child(const char *uri, const struct setting *set, int readers, const struct op *op,
		  unsigned int nr)
{
	ptrace(PTRACE_TRACEME, 0, 0, 0);
	pool_fill(uri, set);
	if (readers)
		topic_fill(uri, set, readers);
	for (; nr--; op++) {
		once(op, false);	/* its first time */
		once(op, true);
	}
	_exit(0);
}

/* All of @op, one after the other, in one pool. What could not be counted is 0. */
static void measure(const struct setting *set, int readers, const struct op *op, unsigned int nr,
		    struct count *c)
{
	char uri[64];
	pid_t pid;
	int status;

	memset(c, 0, nr * sizeof(*c));
	test_uri(uri, op->name);
	fflush(stdout);
	pid = fork();
	if (!pid)
		child(uri, set, readers, op, nr);
	while (nr-- && trapped(pid) && count_steps(pid, c, op->times)) {
		ptrace(PTRACE_CONT, pid, 0, 0);		/* into the second breakpoint */
		if (!trapped(pid))
			break;
		ptrace(PTRACE_CONT, pid, 0, 0);
		op++;
		c++;
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	shmk_pool_destroy(uri);
}

/* ----------------------------------------------------------------- tests -- */

static struct count counted[ARRAY_SIZE(ops)];	/* in the small pool */

static void test_ops(const struct op *op, unsigned int nr, const struct count *c)
{
	for (; nr--; op++, c++) {
		ksft_print_msg("%s: %.1f instructions, at most %u\n", op->name, c->each, op->most);
		ksft_test_result(c->each && c->each <= op->most, "%s costs what it did\n", op->name);
		ksft_test_result(c->each && !c->syscalls, "%s makes no system call\n", op->name);
	}
}

/* Each operation, in @set as in the small one. */
static void test_same(const struct setting *set, const char *what)
{
	struct count c[ARRAY_SIZE(ops)];
	unsigned int i, grown = 0;

	measure(set, 0, ops, ARRAY_SIZE(ops), c);
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		if (c[i].each && !c[i].syscalls && c[i].each <= counted[i].each * 1.02 + 1)
			continue;
		ksft_print_msg("%s: %.1f, %.1f with %s\n", ops[i].name, counted[i].each, c[i].each,
			       what);
		grown++;
	}
	ksft_test_result(!grown, "nothing costs more with %s\n", what);
}

static void test_readers(void)
{
	struct count one[ARRAY_SIZE(topic_ops)], many[ARRAY_SIZE(topic_ops)];

	measure(&small, 1, topic_ops, ARRAY_SIZE(topic_ops), one);
	measure(&small, READERS, topic_ops, ARRAY_SIZE(topic_ops), many);
	test_ops(topic_ops, ARRAY_SIZE(topic_ops), one);
	ksft_print_msg("publish: %.1f with 1 reader, %.1f with %d\n", one[0].each, many[0].each,
		       READERS);
	ksft_test_result(many[0].each && !many[0].syscalls && many[0].each < one[0].each * 1.3,
			 "publishing costs the same with 1 and 1024 readers\n");
}

/* From the words of a real pool. */
static void test_memory(void)
{
	char uri[64];
	struct shmk *s;
	uint64_t ring, block, ledger;

	test_uri(uri, "memory");
	s = attach(uri, &small);
	ring = sizeof(struct shmk_ring) + 64 * 64;
	block = sizeof(struct shmk_block) + sizeof(struct shmk_span) / SHMK_SPAN_UNITS;
	ledger = sizeof(struct shmk_ledger) + s->nr_entries * sizeof(struct shmk_entry);
	ksft_print_msg("a peer: %zu bytes of status, %llu of ledger with %u entries\n",
		       sizeof(struct shmk_peer_status), (unsigned long long)ledger, s->nr_entries);
	ksft_print_msg("a queue of 64: %zu bytes of status, %llu of ring\n",
		       sizeof(struct shmk_queue_status), (unsigned long long)ring);
	ksft_print_msg("a unit of %u bytes: %llu of control\n", 1U << s->view.unit_shift,
		       (unsigned long long)block);
	ksft_test_result(sizeof(struct shmk_peer_status) <= 32 &&
			 ledger <= 64 + 16 * (uint64_t)s->nr_entries &&
			 sizeof(struct shmk_queue_status) <= 128 && ring <= 8192 &&
			 block * 16 <= 1U << s->view.unit_shift,
			 "a peer, a queue and a block need so much memory\n");
	shmk_detach(s);
	shmk_pool_destroy(uri);
}

int main(void)
{
	/* In a quarter of a pool there is a span for each of 100: else none keeps a block unasked. */
	static const struct setting queues = { 8 * MIB, 1, 1000 }, peers = { 32 * MIB, 100, 1 },
		large = { 256 * MIB, 1, 1 };

	ksft_print_header();
	ksft_set_plan(2 * (ARRAY_SIZE(ops) + ARRAY_SIZE(topic_ops)) + 5);
	measure(&small, 0, ops, ARRAY_SIZE(ops), counted);
	test_ops(ops, ARRAY_SIZE(ops), counted);
	test_readers();
	test_same(&queues, "1000 queues");
	test_same(&peers, "100 peers");
	test_same(&large, "256 MiB instead of 8");
	test_memory();
	ksft_finished();
}
#endif
