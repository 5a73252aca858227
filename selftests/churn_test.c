// SPDX-License-Identifier: GPL-2.0-only
/*
 * churn_test.c - many hostile processes on few pools, killed at any moment.
 *
 * Each child has two threads that issue random commands with random, mostly
 * plausible, arguments on a few pools that all share, write garbage wherever
 * they may write, and poll. The parent kills one after the other at random
 * moments and starts new ones. Nothing is expected of any single call; the
 * kernel must come through (the guest panics on a warning), and in the end
 * nothing may be left.
 *
 * SHMK_TEST_SEED repeats a run as far as scheduling allows, SHMK_TEST_MS is
 * how long it runs.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

#include "raw.h"
#include "kselftest_harness.h"

#define CHILDREN	6
#define POOLS		3
#define FDS		8

struct state {
	unsigned int seed;
	int dev;
	int pool[POOLS];
	int *att, *side;		/* FDS each, shared by the threads: races wanted */
	void *map[FDS];
	size_t len[FDS];
	sigjmp_buf fault;
};

static __thread struct state *self_state;

/* What went through, of all children: a churn in which nothing does proves nothing. */
enum { MADE, ATTACHED, DETACHED, QUEUES, SIDES, MAPPED, EVENTS, NR_COUNTS };
static unsigned long *counts;

static void count(int what)
{
	__atomic_add_fetch(&counts[what], 1, __ATOMIC_RELAXED);
}

static void on_fault(int sig)
{
	if (!self_state)
		_exit(1);
	siglongjmp(self_state->fault, sig);
}

static unsigned int rnd(struct state *s, unsigned int n)
{
	return (unsigned int)rand_r(&s->seed) % n;
}

static int any(struct state *s, const int *fds)
{
	return fds[rnd(s, FDS)];
}

static void replace(struct state *s, int *fds, int fd, int what)
{
	unsigned int i = rnd(s, FDS);
	int old;

	if (fd < 0)
		return;
	count(what);
	old = __atomic_exchange_n(&fds[i], fd, __ATOMIC_SEQ_CST);
	if (old >= 0)
		close(old);
}

static const char *a_name(struct state *s)
{
	static const char *const names[] = { "churn-a", "churn-b", "churn-c" };

	return names[rnd(s, 3)];
}

static void pool_command(struct state *s)
{
	unsigned int i = rnd(s, POOLS);
	struct shmk_pool_create a = raw_pool_args(a_name(s), (1 + rnd(s, 2)) * 2 * MiB,
						  rnd(s, 4) ? 12 : 21);
	struct shmk_pool_info info;
	int fd;

	a.nr_peers = 8;
	a.nr_queues = 8;
	switch (rnd(s, 5)) {
	case 0:
		a.flags = rnd(s, 2) ? SHMK_POOL_F_PERSIST : 0;
		fd = raw(s->dev, SHMK_IOC_POOL_CREATE, &a);
		if (fd >= 0)
			count(MADE);
		break;
	case 1:
		raw_pool_destroy(s->dev, a.name);
		return;
	case 2:
		memset(&info, 0, sizeof(info));
		info.size = sizeof(info);
		while (!raw(s->dev, SHMK_IOC_POOL_NEXT, &info))
			;
		return;
	default:
		fd = raw_pool_open(s->dev, a.name, rnd(s, 4) ? 0 : SHMK_OPEN_F_RDONLY);
	}
	if (fd < 0)
		return;
	if (s->pool[i] >= 0)
		close(s->pool[i]);
	s->pool[i] = fd;
}

static void queue_command(struct state *s)
{
	char name[8] = { 'q', (char)('0' + rnd(s, 6)) };
	int att = any(s, s->att);
	uint32_t id, gen;

	switch (rnd(s, 6)) {
	case 0:
		if (!raw_queue_create(att, name, 1U << rnd(s, 10), &id, &gen))
			count(QUEUES);
		break;
	case 1:
		if (!raw_queue_open(att, name, &id, &gen) && rnd(s, 2))
			raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, id, gen);
		break;
	case 2:
		if (!raw_queue_open(att, name, &id, &gen)) {
			while (!raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, id, gen))
				;
			raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, id, gen);
		}
		break;
	case 3:
		replace(s, s->side, raw_queue_fd(att, rnd(s, 8), rnd(s, 2)), SIDES);
		break;
	default:
		raw_bell(att, rnd(s, 8), rnd(s, 2));
	}
}

static void scribble_ledger(struct state *s, volatile uint64_t *p, size_t words)
{
	p[0] = rnd(s, 1000);
	for (size_t e = 8; e < words; e += 2) {
		p[e + 1] = SHMK_WHERE(rnd(s, 8), rnd(s, 1024));
		p[e] = SHMK_WHAT(rnd(s, 12), rnd(s, 16384), rnd(s, 3));
	}
}

static void scribble(struct state *s, volatile uint64_t *p, size_t words)
{
	for (unsigned int k = 0; k < 64; k++)
		p[(size_t)rand_r(&s->seed) % words] =
			(uint64_t)rnd(s, 3) << 32 | (uint64_t)rnd(s, 300) << 4 | rnd(s, 6);
}

static __attribute__((noinline)) void guarded(struct state *s, bool ledger, void *p, size_t words)
{
	if (sigsetjmp(s->fault, 1))
		return;
	if (ledger)
		scribble_ledger(s, p, words);
	else
		scribble(s, p, words);
}

/* Maps something and spoils it. */
static void spoil(struct state *s)
{
	unsigned int i = rnd(s, FDS);
	uint64_t off = (uint64_t)rnd(s, 4) << 44;
	bool ledger = off == 1ULL << 44;
	size_t len = (1 + rnd(s, 256)) * 4096UL;

	if (ledger) {
		off += rnd(s, 9) * (32ULL << 20);
		len = (1 + rnd(s, 4)) * 4096UL;
	}
	if (s->map[i])
		munmap(s->map[i], s->len[i]);
	s->map[i] = raw_map(any(s, s->att), PROT_READ | PROT_WRITE, off, len);
	s->len[i] = len;
	if (s->map[i] == MAP_FAILED) {
		s->map[i] = NULL;
		return;
	}
	count(MAPPED);
	guarded(s, ledger, s->map[i], len / 8);
}

static void look(struct state *s)
{
	struct pollfd p[3] = {
		{ .fd = any(s, s->side), .events = POLLIN | POLLOUT },
		{ .fd = any(s, s->att), .events = POLLIN },
		{ .fd = s->pool[rnd(s, POOLS)], .events = POLLIN },
	};
	struct shmk_event ev[4];
	struct shmk_pool_info info;
	struct shmk_peer_info peer = { .size = sizeof(peer), .peer = rnd(s, 9) };

	poll(p, 3, (int)rnd(s, 3));
	if (p[1].revents & POLLIN && read(p[1].fd, ev, sizeof(ev)) > 0)
		count(EVENTS);
	raw_pool_info(p[2].fd, &info);
	raw(p[2].fd, SHMK_IOC_PEER_INFO, &peer);
}

static void step(struct state *s)
{
	switch (rnd(s, 8)) {
	case 0:
		pool_command(s);
		break;
	case 1:
		replace(s, s->att, raw_attach(s->pool[rnd(s, POOLS)], rnd(s, 5) ? 0 : 1,
					      rnd(s, 2000), NULL), ATTACHED);
		break;
	case 2:
		if (!rnd(s, 4) && !raw_detach(any(s, s->att)))
			count(DETACHED);
		break;
	case 3:
	case 4:
		queue_command(s);
		break;
	case 5:
	case 6:
		spoil(s);
		break;
	default:
		look(s);
	}
}

static void *thread(void *arg)
{
	self_state = arg;
	for (;;)
		step(arg);
	return NULL;
}

static void child(unsigned int seed)
{
	static struct state state[2];
	static int att[FDS], side[FDS];
	pthread_t t;

	for (int i = 0; i < FDS; i++)
		att[i] = side[i] = -1;
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	for (int i = 0; i < 2; i++) {
		state[i].seed = seed + (unsigned int)i * 7919;
		state[i].dev = raw_device();
		state[i].att = att;
		state[i].side = side;
		for (int k = 0; k < POOLS; k++)
			state[i].pool[k] = -1;
	}
	pthread_create(&t, NULL, thread, &state[1]);
	/* Some children leave by themselves. */
	for (unsigned int n = 0; seed % 4 || n < 2000; n++) {
		self_state = &state[0];
		step(&state[0]);
	}
	_exit(0);
}

static unsigned long env(const char *name, unsigned long otherwise)
{
	const char *v = getenv(name);

	return v ? strtoul(v, NULL, 0) : otherwise;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static pid_t start(unsigned int seed)
{
	pid_t pid = fork();

	if (!pid)
		child(seed);
	return pid;
}

static bool all_counted(void)
{
	for (int i = 0; i < NR_COUNTS; i++)
		if (!counts[i])
			return false;
	return true;
}

FIXTURE(churn) { };
FIXTURE_SETUP(churn) { }
FIXTURE_TEARDOWN(churn) { }

/* The time is the runner's to limit. */
TEST_F_TIMEOUT(churn, nothing_is_left_of_hostile_processes_killed_at_any_moment, 3600)
{
	unsigned int seed = (unsigned int)env("SHMK_TEST_SEED", (unsigned long)time(NULL));
	uint64_t end = now_ms() + env("SHMK_TEST_MS", 10000);
	struct shmk_info info = { .size = sizeof(info) };
	unsigned int rounds = 0;
	pid_t pid[CHILDREN];
	int dev = raw_device();

	ASSERT_LE(0, dev);
	counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, counts);
	TH_LOG("SHMK_TEST_SEED=%u", seed);
	for (unsigned int i = 0; i < CHILDREN; i++)
		pid[i] = start(seed++);
	/* On a slow kernel it takes longer until each has come about. */
	while (now_ms() < end || (!all_counted() && now_ms() < end + 60000)) {
		unsigned int i = (unsigned int)rand_r(&seed) % CHILDREN;

		usleep((unsigned int)rand_r(&seed) % 30000);
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
		pid[i] = start(seed + rounds++);
	}
	for (unsigned int i = 0; i < CHILDREN; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
	TH_LOG("%u children; pools %lu, attached %lu, detached %lu, queues %lu, sides %lu, mapped %lu, events %lu",
	       rounds + CHILDREN, counts[MADE], counts[ATTACHED], counts[DETACHED],
	       counts[QUEUES], counts[SIDES], counts[MAPPED], counts[EVENTS]);
	for (int i = 0; i < NR_COUNTS; i++) {
		EXPECT_LT(0, counts[i])
			TH_LOG("count %d", i);
	}
	raw_pool_destroy(dev, "churn-a");
	raw_pool_destroy(dev, "churn-b");
	raw_pool_destroy(dev, "churn-c");
	/* The last ends may still be with a worker. */
	for (int i = 0; i < 1000; i++) {
		ASSERT_EQ(0, raw(dev, SHMK_IOC_INFO, &info));
		if (!info.nr_pools)
			break;
		usleep(10000);
		raw_pool_destroy(dev, "churn-a");
		raw_pool_destroy(dev, "churn-b");
		raw_pool_destroy(dev, "churn-c");
	}
	EXPECT_EQ(0, info.nr_pools);
	EXPECT_EQ(0, info.total_bytes);
	close(dev);
}

TEST_HARNESS_MAIN
