/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * bench.h - one harness for shmk and all its peers, so that they differ in
 * nothing but the transport.
 *
 *   PROGRAM TRANSPORT MODE BYTES [MESSAGES]
 *
 * Two processes, each on a processor of its own. A transport gives five
 * functions; the harness gives time.
 *
 *   MODE    ping    one message to and fro. Prints one-way times: half of each
 *                   round trip, in ns: median, 99th and 99.9th percentile, least
 *           stream  side 0 sends, side 1 receives. Prints messages per second
 *                   and bytes per second, from the first sent (after a quarter
 *                   as many to warm up) to the last one confirmed by one message back
 *   +touch  behind the mode: the sender writes every byte, the receiver reads
 *           every byte; else each touches the first eight only
 *   +sleep  behind that: the receiver sleeps in the kernel instead of polling;
 *           in ping, side 1 also waits 50 us before it answers, so that both
 *           sides really are asleep, and that time is taken off
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
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BENCH_SKIP	4

struct bench {
	size_t		bytes;
	unsigned long	messages;
	bool		stream, touch, sleeps;
	int		side;		/* 0 begins */
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

static inline void *bench_shared(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap of %zu bytes: %s", bytes, strerror(errno));
	return p;
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

static inline void bench_ping(const struct transport *t, struct bench *b, const char *mode)
{
	unsigned long i, warm = b->messages / 10 + 1;
	uint64_t *took = (uint64_t *)malloc(sizeof(*took) * b->messages);
	double ns = bench_tick_ns();
	uint64_t begin;

	for (i = 0; i < warm + b->messages; i++) {
		if (b->side) {
			bench_get(t, b);
			bench_nap(b);
			bench_put(t, b, i);
			continue;
		}
		begin = bench_ticks();
		bench_put(t, b, i);
		bench_get(t, b);
		if (i >= warm)
			took[i - warm] = bench_ticks() - begin;
	}
	if (!b->side) {
		uint64_t nap = b->sleeps ? (uint64_t)(BENCH_NAP / ns) : 0;
		unsigned long n = b->messages;

		qsort(took, n, sizeof(*took), bench_less);
#define ONE_WAY(x) ((double)((x) - (nap < (x) ? nap : (x))) * ns / 2)
		printf("%s %s %zu median=%.1f p99=%.1f p999=%.1f least=%.1f\n", t->name, mode,
		       b->bytes, ONE_WAY(took[n / 2]), ONE_WAY(took[n - n / 100 - 1]),
		       ONE_WAY(took[n - n / 1000 - 1]), ONE_WAY(took[0]));
#undef ONE_WAY
	}
	free(took);
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

static inline void bench_side(const struct transport *t, struct bench *b, const char *mode)
{
	bench_pin(b->side);
	t->open(b);
	if (b->stream)
		bench_stream(t, b, mode);
	else
		bench_ping(t, b, mode);
	fflush(stdout);
	if (t->close)
		t->close(b);
}

/* How many messages, if nobody says: slow transports need not take minutes. */
static inline unsigned long bench_messages(const struct bench *b)
{
	if (b->sleeps && !b->stream)
		return 2000;
	if (b->bytes >= 1 << 20)
		return b->stream ? 1000 : 2000;
	if (b->bytes >= 1 << 16)
		return 10000;
	return b->stream ? 500000 : 20000;
}

static inline int bench_main(const struct transport *const *list, int argc, char **argv)
{
	struct bench b = {};
	int status;
	pid_t pid;

	while (argc > 1 && *list && strcmp((*list)->name, argv[1]))
		list++;
	if (argc < 4 || !*list || (strncmp(argv[2], "ping", 4) && strncmp(argv[2], "stream", 6)))
		bench_die("usage: %s TRANSPORT ping|stream[+touch][+sleep] BYTES [MESSAGES]", argv[0]);
	b.stream = !strncmp(argv[2], "stream", 6);
	b.touch = strstr(argv[2], "+touch");
	b.sleeps = strstr(argv[2], "+sleep");
	b.bytes = strtoul(argv[3], NULL, 0);
	if (b.bytes < 8 || b.bytes % 8)
		bench_die("a multiple of 8 bytes");
	b.messages = argc > 4 ? strtoul(argv[4], NULL, 0) : bench_messages(&b);
	(*list)->init(&b);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	b.side = !pid;
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	bench_side(*list, &b, argv[2]);
	if (!pid)
		_exit(0);
	if (waitpid(pid, &status, 0) != pid || status) {
		fprintf(stderr, "the other side ended with status %#x\n", status);
		return WIFEXITED(status) && WEXITSTATUS(status) == BENCH_SKIP ? BENCH_SKIP : 1;
	}
	return 0;
}

#endif
