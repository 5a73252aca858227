/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bench.h - one harness for shmk and all its peers, so that they differ in
 * nothing but the transport.
 *
 *   PROGRAM TRANSPORT MODE BYTES [MESSAGES]	PROGRAM --list: its transports
 *
 * Two processes, each on a processor of its own. A transport gives a few
 * functions; the harness gives time.
 *
 *   MODE    ping    one message to and fro. Prints one-way times: half of each
 *                   round trip, in ns: median, 99th and 99.9th percentile, least.
 *                   Between its batches the same two processes hand over a bare
 *                   cache line (with +sleep: wake each other by eventfd): "limit",
 *                   and "x", the ratio of the two (of the medians of the
 *                   batches' means). A machine that moves its processors about does so to both
 *           stream  side 0 sends, side 1 receives. Prints messages per second
 *                   and bytes per second, from the first sent (after a quarter
 *                   as many to warm up) to the last one confirmed by one message back
 *           fanPxC  P processes send what C receive, from the moment when all are
 *                   there to when the last one has its share. Nobody is pinned
 *   +touch  behind the mode: the sender writes every byte, the receiver reads
 *           every byte; else each touches the first eight only
 *   +sleep  behind that: the receiver sleeps in the kernel instead of polling;
 *           in ping, side 1 also waits 50 us before it answers, so that both
 *           sides really are asleep, and that time is taken off
 *   +threads  each process has a second thread, which sleeps: so that what locks only then does
 *   +one    shmk only: with SHMK_ATTACH_ONE_THREAD
 *   +1000   shmk only: 1000 more peers and 1000 more queues are in the pool
 *   +16g    shmk only: the pool has 16 GiB
 *
 * Output: one line, "TRANSPORT MODE BYTES key=value ...". A transport that
 * cannot run here exits with 4 and says why on stderr.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BENCH_SKIP	4

struct bench {
	size_t		bytes;
	unsigned long	messages;
	bool		stream, touch, sleeps, threads, one, crowd, big;
	int		senders, receivers;	/* fan: how many; else 0 */
	int		side;			/* 0 begins */
	unsigned int	limit_pair;		/* whose lines the limit is measured with now */
};

struct transport {
	const char	*name;
	/* Before the fork: what both need. */
	void		(*init)(struct bench *b);
	/* In each process, b->side is set. */
	void		(*open)(struct bench *b);
	/* The memory of the next message, bench fills it; then send() sends it. */
	void		*(*loan)(struct bench *b);
	void		(*send)(struct bench *b);
	/* Waits for the next message; recv_done() gives its memory back. */
	const void	*(*recv)(struct bench *b);
	void		(*recv_done)(struct bench *b);
	/* Optional: before the processes end. */
	void		(*close)(struct bench *b);
	/* Several processes may have each side open. */
	bool		many;
};

static inline __attribute__((noreturn, format(printf, 1, 2))) void bench_skip(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(BENCH_SKIP);
}

static inline __attribute__((noreturn, format(printf, 1, 2))) void bench_die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static inline void *bench_mapped(size_t bytes, int flags)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap of %zu bytes: %s", bytes, strerror(errno));
	return p;
}

static inline void *bench_shared(size_t bytes)
{
	return bench_mapped(bytes, MAP_SHARED);
}

/*
 * Each side's own: a message is written where it is copied from. In one buffer for both, its
 * lines would go to and fro beside the message's. Written once, so that who copies what was never
 * touched copies memory, and not one page of zeros again and again.
 */
static inline void *bench_private(size_t bytes)
{
	return memset(bench_mapped(bytes, MAP_PRIVATE), 1, bytes);
}

static inline void bench_relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

/* ---------------------------------------------------------------- time -- */

#if defined(__x86_64__)
#define bench_ticks() __builtin_ia32_rdtsc()
#else
#define bench_ticks() bench_now()
#endif

static inline uint64_t bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds of a tick. */
static inline double bench_tick_ns(void)
{
	uint64_t n = bench_now(), t = bench_ticks();

	while (bench_now() - n < 20000000)
		;
	return (double)(bench_now() - n) / (double)(bench_ticks() - t);
}

static inline int bench_double_less(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts them. */
static inline double bench_median(double *of, unsigned int nr)
{
	qsort(of, nr, sizeof(*of), bench_double_less);
	return nr % 2 ? of[nr / 2] : (of[nr / 2 - 1] + of[nr / 2]) / 2;
}

/* ------------------------------------------------------------ one message -- */

static volatile uint64_t bench_sink;

static inline void bench_fill(struct bench *b, void *to, uint64_t n)
{
	if (b->touch)
		memset(to, (int)n, b->bytes);
	memcpy(to, &n, b->bytes < 8 ? b->bytes : 8);
}

static inline void bench_read(struct bench *b, const void *from)
{
	const uint64_t *word = (const uint64_t *)from;
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < (b->touch ? b->bytes / 8 : 1); i++)
		sum += word[i];
	bench_sink = sum;
}

static inline void bench_put(const struct transport *t, struct bench *b, uint64_t n)
{
	bench_fill(b, t->loan(b), n);
	t->send(b);
}

static inline void bench_get(const struct transport *t, struct bench *b)
{
	bench_read(b, t->recv(b));
	t->recv_done(b);
}

/* ---------------------------------------------------------------- modes -- */

#define BENCH_NAP	50000	/* ns */

static inline void bench_nap(struct bench *b)
{
	uint64_t until = bench_now() + BENCH_NAP;

	while (b->sleeps && bench_now() < until)
		bench_relax();
}

static int bench_less(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* What a round trip is measured against; made before the fork. */
struct bench_line {
	uint64_t	word;
	unsigned char	text[56];
} __attribute__((aligned(64)));

/*
 * By sender, each on a page of its own. A processor spreads lines over parts of its cache by their
 * physical address, and how far these are from who writes and who reads makes half a hand-over more
 * or less, the same for a line as long as it stays in its place. One pair of lines would be
 * a lottery ticket: each batch takes the next pair.
 */
static struct bench_line *bench_lines;
#define BENCH_PAIRS	64
#define BENCH_PAGE	(4096 / sizeof(struct bench_line))
static int bench_bell[2];			/* eventfds, by receiver */

static inline void bench_limit_init(void)
{
	int i;

	bench_lines = (struct bench_line *)bench_shared(2 * BENCH_PAIRS * 4096);
	/* All pages now, not in the round trips. */
	memset(bench_lines, 0, 2 * BENCH_PAIRS * 4096);
	for (i = 0; i < 2; i++)
		bench_bell[i] = eventfd(0, EFD_SEMAPHORE);
}

/* Not both at the same place of a page, which would make a store and a load look alike. */
static inline struct bench_line *bench_line(struct bench *b, int side)
{
	unsigned int pair = b->limit_pair % BENCH_PAIRS;

	return bench_lines + (2 * pair + side) * BENCH_PAGE + (7 * pair + 5 * side) % BENCH_PAGE;
}

static inline void bench_limit_put(struct bench *b)
{
	static uint64_t sent;
	struct bench_line *l = bench_line(b, b->side);
	uint64_t one = 1;

	if (b->sleeps) {
		while (write(bench_bell[!b->side], &one, sizeof(one)) < 0)
			;
		return;
	}
	memset(l->text, (int)sent, sizeof(l->text));
	__atomic_store_n(&l->word, ++sent, __ATOMIC_RELEASE);
}

static inline void bench_limit_get(struct bench *b, uint64_t n)
{
	struct bench_line *l = bench_line(b, !b->side);
	uint64_t got;

	if (b->sleeps)
		while (read(bench_bell[b->side], &got, sizeof(got)) < 0)
			;
	else
		while (__atomic_load_n(&l->word, __ATOMIC_ACQUIRE) != n)
			bench_relax();
}

/* Round trips; @t is NULL for the limit's. Side 0 notes in @took how long each was, in ticks. */
static inline void bench_trips(const struct transport *t, struct bench *b, uint64_t first,
			       unsigned int nr, uint64_t *took)
{
	uint64_t i, begin = 0;

	for (i = first; i < first + nr; i++) {
		if (!b->side)
			begin = bench_ticks();
		else if (t)
			bench_get(t, b);
		else
			bench_limit_get(b, i + 1);
		if (b->side)
			bench_nap(b);
		if (t)
			bench_put(t, b, i);
		else
			bench_limit_put(b);
		if (b->side)
			continue;
		if (t)
			bench_get(t, b);
		else
			bench_limit_get(b, i + 1);
		*took++ = bench_ticks() - begin;
	}
}

#define BENCH_BATCH	200	/* round trips of each in turn */
#define BENCH_COLD	8	/* of these are not counted */

static inline double bench_one_way(uint64_t *took, unsigned long n, unsigned long rank, bool sleeps,
				   double ns)
{
	double nap = sleeps ? BENCH_NAP : 0, trip = (double)took[rank < n ? rank : n - 1] * ns;

	return (trip > nap ? trip - nap : 0) / 2;
}

/*
 * The median of the batches' means: finer than a median of trips where the counter steps by
 * 10 ns, and as indifferent to what interrupts a few of them.
 */
static inline double bench_typical(const uint64_t *took, unsigned long batches, unsigned int kept,
				   bool sleeps, double ns)
{
	uint64_t *sums = (uint64_t *)calloc(batches, sizeof(*sums));
	unsigned long i;
	double typical;

	for (i = 0; i < batches * kept; i++)
		sums[i / kept] += took[i];
	qsort(sums, batches, sizeof(*sums), bench_less);
	typical = (double)sums[batches / 2] / kept * ns - (sleeps ? BENCH_NAP : 0);
	free(sums);
	return typical / 2;
}

static inline void bench_ping(const struct transport *t, struct bench *b, const char *mode)
{
	unsigned int batch = b->sleeps ? BENCH_BATCH / 8 : BENCH_BATCH, kept = batch - BENCH_COLD;
	unsigned long batches = b->messages / kept + 1, i, n = batches * kept;
	uint64_t *took[2], round[BENCH_BATCH], done = 0;
	double ns = bench_tick_ns(), x;

	took[0] = (uint64_t *)malloc(sizeof(*took[0]) * n);
	took[1] = (uint64_t *)malloc(sizeof(*took[1]) * n);
	/* The first batch of each only warms up. */
	for (i = 0; i <= batches; i++, done += batch) {
		b->limit_pair++;
		bench_trips(NULL, b, done, batch, round);
		if (i)
			memcpy(took[1] + (i - 1) * kept, round + BENCH_COLD, kept * sizeof(*round));
		bench_trips(t, b, done, batch, round);
		if (i)
			memcpy(took[0] + (i - 1) * kept, round + BENCH_COLD, kept * sizeof(*round));
	}
	if (!b->side) {
		x = bench_typical(took[0], batches, kept, b->sleeps, ns) /
		    bench_typical(took[1], batches, kept, b->sleeps, ns);
		qsort(took[0], n, sizeof(*took[0]), bench_less);
		qsort(took[1], n, sizeof(*took[1]), bench_less);
		printf("%s %s %zu median=%.1f p99=%.1f p999=%.1f least=%.1f limit=%.1f limit99=%.1f x=%.3f\n",
		       t->name, mode, b->bytes, bench_one_way(took[0], n, n / 2, b->sleeps, ns),
		       bench_one_way(took[0], n, n - n / 100 - 1, b->sleeps, ns),
		       bench_one_way(took[0], n, n - n / 1000 - 1, b->sleeps, ns),
		       bench_one_way(took[0], n, 0, b->sleeps, ns),
		       bench_one_way(took[1], n, n / 2, b->sleeps, ns),
		       bench_one_way(took[1], n, n - n / 100 - 1, b->sleeps, ns), x);
	}
	free(took[0]);
	free(took[1]);
}

static inline void bench_stream(const struct transport *t, struct bench *b, const char *mode)
{
	unsigned long i, warm = b->messages / 4 + 1, all = warm + b->messages;
	uint64_t begin = 0;
	double s;

	if (b->side) {
		for (i = 0; i < all; i++)
			bench_get(t, b);
		bench_put(t, b, i);
		return;
	}
	for (i = 0; i < all; i++) {
		if (i == warm)
			begin = bench_now();
		bench_put(t, b, i);
	}
	bench_get(t, b);
	s = (double)(bench_now() - begin) / 1e9;
	printf("%s %s %zu rate=%.0f bandwidth=%.0f\n", t->name, mode, b->bytes,
	       (double)b->messages / s, (double)b->messages * (double)b->bytes / s);
}

static inline void bench_pin(int side)
{
	cpu_set_t all, one;
	int cpu, seen = 0;

	if (sched_getaffinity(0, sizeof(all), &all) || CPU_COUNT(&all) < 2)
		bench_skip("two processors are needed");
	CPU_ZERO(&one);
	for (cpu = 0; cpu < CPU_SETSIZE && seen <= side; cpu++)
		if (CPU_ISSET(cpu, &all) && seen++ == side)
			CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

static inline void *bench_idle(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static inline void bench_open(const struct transport *t, struct bench *b)
{
	pthread_t thread;

	if (b->threads && pthread_create(&thread, NULL, bench_idle, NULL))
		bench_die("no thread");
	t->open(b);
}

static inline void bench_side(const struct transport *t, struct bench *b, const char *mode)
{
	bench_pin(b->side);
	bench_open(t, b);
	if (b->stream)
		bench_stream(t, b, mode);
	else
		bench_ping(t, b, mode);
	fflush(stdout);
	if (t->close)
		t->close(b);
}

/* ------------------------------------------------------------------ fan -- */

struct bench_fan {
	int		ready, go, failed;
	uint64_t	begin, end[64];
};

static inline void bench_fan_one(const struct transport *t, struct bench *b, struct bench_fan *f,
				 int i)
{
	unsigned long share = b->messages / (unsigned long)(b->side ? b->receivers : b->senders), n;

	b->stream = true;
	bench_open(t, b);
	__atomic_add_fetch(&f->ready, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&f->go, __ATOMIC_SEQ_CST))
		usleep(1000);
	for (n = 0; n < share; n++)
		if (b->side)
			bench_get(t, b);
		else
			bench_put(t, b, n);
	f->end[i] = bench_now();
	/* What nobody has taken yet must not go with its sender. */
	__atomic_sub_fetch(&f->ready, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&f->ready, __ATOMIC_SEQ_CST))
		usleep(1000);
}

/* The first process only watches. */
static inline int bench_fan(const struct transport *t, struct bench *b, const char *mode)
{
	struct bench_fan *f = (struct bench_fan *)bench_shared(sizeof(*f));
	int i, all = b->senders + b->receivers, status, bad = 0;
	uint64_t end = 0;
	double s;

	b->messages -= b->messages % (unsigned long)(b->senders * b->receivers);
	for (i = 0; i < all; i++) {
		pid_t pid = fork();

		if (pid < 0)
			bench_die("fork: %s", strerror(errno));
		if (pid)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		b->side = i >= b->senders;
		bench_fan_one(t, b, f, i);
		_exit(0);
	}
	while (__atomic_load_n(&f->ready, __ATOMIC_SEQ_CST) < all) {
		if (waitpid(-1, &status, WNOHANG) > 0)
			bench_die("one of them ended with status %#x", status);
		usleep(1000);
	}
	f->begin = bench_now();
	__atomic_store_n(&f->go, 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < all; i++)
		if (wait(&status) > 0 && status)
			bad = status;
	if (bad)
		bench_die("one of them ended with status %#x", bad);
	for (i = b->senders; i < all; i++)
		end = f->end[i] > end ? f->end[i] : end;
	s = (double)(end - f->begin) / 1e9;
	printf("%s %s %zu rate=%.0f bandwidth=%.0f\n", t->name, mode, b->bytes,
	       (double)b->messages / s, (double)b->messages * (double)b->bytes / s);
	if (t->close)
		t->close(b);
	return 0;
}

/* ------------------------------------------------------------------ all -- */

/* How many messages, if nobody says: slow transports need not take minutes. */
static inline unsigned long bench_messages(const struct bench *b)
{
	if (b->senders)
		return 100000;
	if (b->sleeps && !b->stream)
		return 2000;
	if (b->bytes >= 1 << 20)
		return b->stream ? 1000 : 2000;
	if (b->bytes >= 1 << 16)
		return 10000;
	return b->stream ? 500000 : 20000;
}

static inline bool bench_mode(struct bench *b, const char *mode)
{
	char rest[32] = "";
	char *at, *part;
	int skip = 0;

	b->stream = !strncmp(mode, "stream", 6);
	if (sscanf(mode, "fan%dx%d%n", &b->senders, &b->receivers, &skip) == 2) {
		if (b->senders < 1 || b->receivers < 1 || b->senders + b->receivers > 64)
			return false;
		mode += skip;
	} else if (b->stream || !strncmp(mode, "ping", 4)) {
		b->senders = b->receivers = 0;
		mode += b->stream ? 6 : 4;
	} else {
		return false;
	}
	if (*mode && *mode != '+')
		return false;
	snprintf(rest, sizeof(rest), "%s", mode);
	for (at = rest; (part = strtok_r(at, "+", &at));) {
		bool *flag = !strcmp(part, "touch") ? &b->touch : !strcmp(part, "sleep") ? &b->sleeps :
			     !strcmp(part, "threads") ? &b->threads :
			     !strcmp(part, "one") ? &b->one :
			     !strcmp(part, "1000") ? &b->crowd : !strcmp(part, "16g") ? &b->big : NULL;

		if (!flag)
			return false;
		*flag = true;
	}
	return true;
}

static inline int bench_pair(const struct transport *t, struct bench *b, const char *mode)
{
	int status;
	pid_t pid;

	bench_limit_init();
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	b->side = !pid;
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_side(t, b, mode);
	if (!pid)
		_exit(0);
	if (waitpid(pid, &status, 0) != pid || status) {
		fprintf(stderr, "the other side ended with status %#x\n", status);
		return WIFEXITED(status) && WEXITSTATUS(status) == BENCH_SKIP ? BENCH_SKIP : 1;
	}
	return 0;
}

static inline int bench_main(const struct transport *const *list, int argc, char **argv)
{
	struct bench b = {};

	if (argc == 2 && !strcmp(argv[1], "--list")) {
		for (; *list; list++)
			puts((*list)->name);
		return 0;
	}
	while (argc > 1 && *list && strcmp((*list)->name, argv[1]))
		list++;
	if (argc < 4 || !*list || !bench_mode(&b, argv[2]))
		bench_die("usage: %s TRANSPORT ping|stream|fanPxC[+touch][+sleep] BYTES [MESSAGES]",
			  argv[0]);
	b.bytes = strtoul(argv[3], NULL, 0);
	if (b.bytes < 8 || b.bytes % 8)
		bench_die("a multiple of 8 bytes");
	b.messages = argc > 4 ? strtoul(argv[4], NULL, 0) : bench_messages(&b);
	if ((b.one || b.crowd || b.big) && strncmp((*list)->name, "shmk", 4))
		bench_skip("of shmk only");
	if (b.senders && !(*list)->many)
		bench_skip("one sender and one receiver only");
	(*list)->init(&b);
	fflush(NULL);
	return b.senders ? bench_fan(*list, &b, argv[2]) : bench_pair(*list, &b, argv[2]);
}

#endif
