// SPDX-License-Identifier: GPL-2.0-only
/*
 * latency.c - from kill() to the event, beside what else tells of a death.
 *
 * One victim at a time holds blocks of the pool and a robust mutex and has so
 * much other memory, all of it touched, in 4 KiB pages. The observer takes the
 * time, kills it, sleeps until it learns of it in one of these ways, and takes
 * the time again:
 *
 *   event   poll() of the pool's event file; by then everything is given back
 *   pidfd   poll() of its pidfd: comes when the dead one's memory is torn down
 *   plain   the same, of a victim that has the memory and nothing of the pool
 *   mutex   pthread_mutex_lock() returns EOWNERDEAD: nothing is given back, that
 *           is left to whoever sleeps
 *
 * The ways take turns, so that whatever disturbs the machine disturbs all of
 * them. Medians are compared, never single values. The pidfd of a large victim
 * comes so much later that the one that gave the event can give it as well.
 *
 * Observer and victims have a processor each, if there are two: else it is a
 * matter of the scheduler whether the observer runs at once or waits for the
 * dying one's slice to end, whatever told it. SHMK_TEST_PIN=0 leaves them free.
 *
 * SHMK_TEST_ROUNDS: of each kind (21). SHMK_TEST_LARGE: MiB of the large victim
 * (1024); less when memory or SHMK_TEST_SECONDS (45) do not allow for so much.
 */
#include <pthread.h>
#include <sched.h>

#include "death.h"

#define MAX_ROUNDS	1001
#define HELD		64U
#define MIN_LARGE	(64UL << 20)

enum { SMALL, LARGE, NR_SIZES };
enum { EVENT, PIDFD, PLAIN, MUTEX, TOOK, NR_WAYS };

struct victim_arg {
	const death_t *d;
	size_t bytes;
	pthread_mutex_t *mutex;
	bool plain;
};

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

/* On the n-th of the processors that this program may use at all, if there are so many. */
static void run_on(int n)
{
	static cpu_set_t all;
	cpu_set_t one;
	int cpu;

	if (!CPU_COUNT(&all))
		sched_getaffinity(0, sizeof(all), &all);
	if (CPU_COUNT(&all) < 2 || !from_env("SHMK_TEST_PIN", 1))
		return;
	for (cpu = 0; n || !CPU_ISSET(cpu, &all); cpu++)
		n -= CPU_ISSET(cpu, &all);
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

/* Blocks of the observer's span, so that nothing but their words changes. */
static int victim_with_memory(int sock, void *arg)
{
	struct victim_arg *v = arg;
	struct test_att a;
	uint32_t i;
	char *p;

	run_on(1);
	p = mmap(NULL, v->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHILD_CHECK(p != MAP_FAILED);
	madvise(p, v->bytes, MADV_NOHUGEPAGE);
	/* As touching each page, without a fault for each. */
	CHILD_CHECK(!madvise(p, v->bytes, MADV_POPULATE_WRITE));
	if (v->plain) {
		CHILD_CHECK(!test_say(sock, 0, 0, 0));
		test_park(sock);
	}
	CHILD_CHECK(!test_attach(v->d->pool, 0, 0, &a));
	for (i = 0; i < HELD; i++) {
		test_entry(&a, i, SHMK_WHAT(SHMK_OP_HELD, i, 1), 0);
		STORE(test_block(&a, i), SHMK_BLOCK_WORD(1, SHMK_BLOCK_USED));
	}
	CHILD_CHECK(!pthread_mutex_lock(v->mutex));
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

static void mutex_init(pthread_mutex_t *mutex)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(mutex, &attr);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static uint64_t median(uint64_t *v, int nr)
{
	qsort(v, nr, sizeof(*v), compare);
	return v[nr / 2];
}

static uint64_t free_bytes(void)
{
	char line[256];
	uint64_t kib = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %lu", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

static uint64_t ns[NR_WAYS][NR_SIZES][MAX_ROUNDS];

/* One death, learned of in one way. */
static void one_death(struct __test_metadata *_metadata, death_t *self, struct victim_arg *v,
		      int way, int size, int round)
{
	struct shmk_event event;
	struct test_child c;
	uint32_t peer, gen;
	uint64_t start;

	v->plain = way == PLAIN;
	ASSERT_EQ(0, victim_start(&c, victim_with_memory, v, &peer, &gen));
	ASSERT_EQ(0, test_ends_now(self->events));
	start = test_now_ns();
	ASSERT_EQ(0, kill(c.pid, SIGKILL));
	switch (way) {
	case EVENT:
		ASSERT_EQ(POLLIN, test_poll(self->events, POLLIN, PATIENCE_MS));
		break;
	case PIDFD:
	case PLAIN:
		ASSERT_EQ(POLLIN, test_poll(c.pidfd, POLLIN, PATIENCE_MS));
		break;
	case MUTEX:
		ASSERT_EQ(EOWNERDEAD, pthread_mutex_lock(v->mutex));
		break;
	}
	ns[way][size][round] = test_now_ns() - start;
	if (way == EVENT && size == LARGE) {
		ASSERT_EQ(POLLIN, test_poll(c.pidfd, POLLIN, PATIENCE_MS));
		ns[PIDFD][size][round] = test_now_ns() - start;
	}
	EXPECT_EQ(SIGKILL, test_child_end(&c));
	if (v->plain)
		return;
	ASSERT_EQ(0, test_end_of(self->events, peer, gen, &event));
	EXPECT_EQ(HELD, event.blocks);
	if (way == EVENT)
		ns[TOOK][size][round] = event.took_ns;
	if (way != MUTEX)
		EXPECT_EQ(EOWNERDEAD, pthread_mutex_lock(v->mutex));
	pthread_mutex_consistent(v->mutex);
	pthread_mutex_unlock(v->mutex);
}

/* The largest victim that memory and time allow for, by trying. */
static size_t large_bytes(struct __test_metadata *_metadata, death_t *self, struct victim_arg *v,
			  int rounds)
{
	uint64_t budget = from_env("SHMK_TEST_SECONDS", 45) * 1000000000ULL / (3 * rounds);
	uint64_t most = from_env("SHMK_TEST_LARGE", 1024) << 20, start, took;
	int try;

	for (v->bytes = MIN_LARGE; ; v->bytes *= 2) {
		/* Twice: the first also pays for memory that the guest never had before. */
		for (took = budget, try = 0; took >= budget / 2 && try < 2; try++) {
			start = test_now_ns();
			one_death(_metadata, self, v, EVENT, LARGE, 0);
			took = test_now_ns() - start;
		}
		if (2 * took > budget || 2 * v->bytes > most ||
		    4 * v->bytes > free_bytes())
			return v->bytes;
	}
}

typedef uint64_t medians_t[NR_WAYS][NR_SIZES];

static void table(medians_t m, const size_t *bytes, int rounds)
{
	static const char *const names[NR_WAYS] = {
		"shmk event readable", "pidfd readable", "pidfd of one without shmk",
		"robust mutex: EOWNERDEAD",
		"(settling itself: took_ns)",
	};
	int way;

	printf("# from kill(), median (least) of %d, us %5zu MiB        %5zu MiB    large/small\n",
	       rounds, bytes[SMALL] >> 20, bytes[LARGE] >> 20);
	for (way = 0; way < NR_WAYS; way++)
		printf("# %-28s %9.1f (%5.0f) %9.1f (%5.0f)   %.2f\n", names[way],
		       m[way][SMALL] / 1e3, ns[way][SMALL][0] / 1e3,
		       m[way][LARGE] / 1e3, ns[way][LARGE][0] / 1e3,
		       (double)m[way][LARGE] / m[way][SMALL]);
	printf("# %-28s %9.3f         %9.3f\n", "event / pidfd without shmk",
	       (double)m[EVENT][SMALL] / m[PLAIN][SMALL],
	       (double)m[EVENT][LARGE] / m[PLAIN][LARGE]);
	printf("# %-28s %9.3f         %9.3f\n", "event / mutex",
	       (double)m[EVENT][SMALL] / m[MUTEX][SMALL],
	       (double)m[EVENT][LARGE] / m[MUTEX][LARGE]);
}

static void measure(struct __test_metadata *_metadata, death_t *self, struct victim_arg *v,
		    const size_t *bytes, int rounds, medians_t m)
{
	int round, way, size;

	for (round = 0; round < rounds; round++)
		for (size = 0; size < NR_SIZES; size++)
			for (way = EVENT; way <= MUTEX; way++) {
				if (way == PIDFD && size == LARGE)
					continue;
				v->bytes = bytes[size];
				one_death(_metadata, self, v, way, size, round);
			}
	for (way = 0; way < NR_WAYS; way++)
		for (size = 0; size < NR_SIZES; size++)
			m[way][size] = median(ns[way][size], rounds);
	table(m, bytes, rounds);
}

/*
 * How much later the event of the large victim comes. The mutex knows nothing
 * of memory, so what it is later by is the machine's doing: a processor that
 * has just filled the memory is one that an emulator's host lets wait.
 */
static double growth(medians_t m)
{
	double event = (double)m[EVENT][LARGE] / m[EVENT][SMALL];
	double machine = (double)m[MUTEX][LARGE] / m[MUTEX][SMALL];

	return machine > 1 ? event / machine : event;
}

static bool is_fast(medians_t m)
{
	return growth(m) <= 3 && m[EVENT][LARGE] < m[PIDFD][LARGE] &&
	       m[EVENT][LARGE] < m[PLAIN][LARGE];
}

/*
 * Waiting for the teardown would be a hundred times. On a busy machine even
 * medians go astray, so there is a second and a third try.
 */
TEST_F_TIMEOUT(death, is_told_as_fast_whatever_memory_the_victim_has, 500)
{
	int rounds = from_env("SHMK_TEST_ROUNDS", 21), tries;
	size_t bytes[NR_SIZES] = { 1 << 20 };
	uint64_t enough = test_now_ns() + 150000000000;
	struct victim_arg v = { .d = self };
	medians_t m;

	ASSERT_LT(0, rounds);
	ASSERT_GE(MAX_ROUNDS, rounds);
	run_on(0);
	if (free_bytes() < 4 * MIN_LARGE)
		SKIP(return, "only %lu MiB of memory are free", (unsigned long)(free_bytes() >> 20));
	v.mutex = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, v.mutex);
	mutex_init(v.mutex);
	STORE(&test_span(&self->me, 0)->word, SHMK_SPAN_WORD(1, self->me.peer, 0, 0, SHMK_SPAN_CUT));
	bytes[LARGE] = large_bytes(_metadata, self, &v, rounds);

	for (tries = 0; tries < 3 && (!tries || test_now_ns() < enough); tries++) {
		measure(_metadata, self, &v, bytes, rounds, m);
		if (is_fast(m))
			break;
	}
	EXPECT_GE(300, (int)(growth(m) * 100));
	EXPECT_GT(m[PIDFD][LARGE], m[EVENT][LARGE]);
	EXPECT_GT(m[PLAIN][LARGE], m[EVENT][LARGE]);
}

TEST_HARNESS_MAIN
