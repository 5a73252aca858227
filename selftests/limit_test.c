// SPDX-License-Identifier: GPL-2.0-only
/*
 * limit_test.c - everything that can run out does so with the right errno, and
 * what was refused has left no trace.
 *
 * Every test ends with no pool in the machine, in sysfs, or on anybody's
 * account. Wants to be root in the initial user namespace.
 */
#include <sched.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "shmk_test.h"
#include "textfile.h"
#include "kselftest_harness.h"

#define SPAN_BYTES	(256UL << 8)	/* at the default unit of 256 bytes */
#define PARAMS		"/sys/module/shmk/parameters/"
#define CGROUP		"/sys/fs/cgroup/shmk-limit-test"

static const struct test_who plain = { "plain user", 1000, 1000, 1000, 0, 0 };
static const struct test_who other = { "other user", 1001, 1001, 1001, 0, 0 };
static const struct test_who locker = { "with CAP_IPC_LOCK", 1000, 1000, 1000, 0, CAP(IPC_LOCK) };

static long long read_number(const char *path)
{
	char buf[64];

	return read_text(path, buf, sizeof(buf)) ? -1 : atoll(buf);
}

static int write_number(const char *path, unsigned long long value)
{
	char buf[32];

	snprintf(buf, sizeof(buf), "%llu", value);
	return write_text(path, buf);
}

/* The fd of an anonymous pool, or -errno. */
static int pool(int device, uint64_t bytes, uint32_t page_shift)
{
	return raw_pool_create(device, NULL, bytes, page_shift);
}

FIXTURE(limit)
{
	int device;
	long long max_pool_bytes, max_total_bytes, max_pools_per_user;
	long long max_peers_per_user, max_queues_per_user;
};

FIXTURE_SETUP(limit)
{
	if (geteuid())
		SKIP(return, "only root can set the limits");
	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->max_pool_bytes = read_number(PARAMS "max_pool_bytes");
	self->max_total_bytes = read_number(PARAMS "max_total_bytes");
	self->max_pools_per_user = read_number(PARAMS "max_pools_per_user");
	self->max_peers_per_user = read_number(PARAMS "max_peers_per_user");
	self->max_queues_per_user = read_number(PARAMS "max_queues_per_user");
	ASSERT_LE(0, self->max_peers_per_user);
	ASSERT_LE(0, self->max_queues_per_user);
	ASSERT_LE(0, self->max_pool_bytes);
	ASSERT_LE(0, self->max_total_bytes);
	ASSERT_LE(0, self->max_pools_per_user);
}

FIXTURE_TEARDOWN(limit)
{
	EXPECT_EQ(0, write_number(PARAMS "max_pool_bytes", self->max_pool_bytes));
	EXPECT_EQ(0, write_number(PARAMS "max_total_bytes", self->max_total_bytes));
	EXPECT_EQ(0, write_number(PARAMS "max_pools_per_user", self->max_pools_per_user));
	EXPECT_EQ(0, write_number(PARAMS "max_peers_per_user", self->max_peers_per_user));
	EXPECT_EQ(0, write_number(PARAMS "max_queues_per_user", self->max_queues_per_user));
	EXPECT_EQ(0, test_no_pools(self->device));
	EXPECT_EQ(0, test_info(self->device).user_peers);
	EXPECT_EQ(0, test_info(self->device).user_queues);
	EXPECT_EQ(0, test_sysfs_pools());
	close(self->device);
}

/* All memory of a pool of so many bytes, as it is charged. */
static uint64_t memory_of(struct __test_metadata *_metadata, int device, uint64_t bytes)
{
	struct shmk_pool_info info;
	int fd = pool(device, bytes, 12);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, raw_pool_info(fd, &info));
	close(fd);
	EXPECT_LT(bytes, info.memory_bytes);
	return info.memory_bytes;
}

/* ---- sizes ---- */

TEST_F_TIMEOUT(limit, odd_sizes_are_refused, 120)
{
	static const struct {
		uint64_t bytes;
		uint32_t page_shift, unit_shift;
	} odd[] = {
		{ 0, 12, 0 }, { 1, 12, 0 }, { 4096, 12, 0 }, { SPAN_BYTES - 4096, 12, 0 },
		{ SPAN_BYTES + 1, 12, 0 }, { SPAN_BYTES + 4096, 12, 0 },
		{ SPAN_BYTES, 21, 0 }, { 3UL << 20, 21, 0 },
		{ 1UL << 20, 0, 0 }, { 1UL << 20, 11, 0 }, { 1UL << 20, 13, 0 }, { 1UL << 30, 30, 0 },
		{ 1UL << 20, 64, 0 }, { 1UL << 20, ~0U, 0 },
		{ 1UL << 20, 12, 7 }, { 1UL << 20, 12, 17 }, { 1UL << 20, 12, ~0U },
		{ SPAN_BYTES, 12, 9 }, { 8UL << 20, 12, 16 },
	};
	struct shmk_pool_create args;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(odd); i++) {
		args = raw_pool_args("odd", odd[i].bytes, odd[i].page_shift);
		args.unit_shift = odd[i].unit_shift;
		EXPECT_EQ(-EINVAL, raw(self->device, SHMK_IOC_POOL_CREATE, &args))
			TH_LOG("%llu bytes, page 2^%u, unit 2^%u", (unsigned long long)odd[i].bytes,
			       odd[i].page_shift, odd[i].unit_shift);
	}
	/* The least there is. */
	args = raw_pool_args("odd", SPAN_BYTES, 12);
	args.nr_peers = args.nr_queues = 1;
	args.rings_bytes = 1;
	i = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	EXPECT_LE(0, (int)i);
	close(i);
}

TEST_F_TIMEOUT(limit, too_large_is_refused_at_once_and_nothing_overflows, 120)
{
	static const struct {
		uint64_t bytes, rings;
		uint32_t page_shift;
		int ret;
	} large[] = {
		{ 1ULL << 40, 0, 12, -ENOMEM },
		{ 1ULL << 40, 0, 21, -ENOMEM },
		{ 1ULL << 44, 0, 12, -ENOMEM },		/* SHMK_BLOCKS_MAX of the largest units */
		{ 1ULL << 44, 0, 21, -ENOMEM },
		{ (1ULL << 44) + (16 << 20), 0, 12, -EINVAL },
		{ 1ULL << 45, 0, 12, -EINVAL },
		{ 1ULL << 63, 0, 12, -EINVAL },
		{ 1ULL << 63, 0, 21, -EINVAL },
		{ -SPAN_BYTES, 0, 12, -EINVAL },
		{ -(2ULL << 20), 0, 21, -EINVAL },
		{ ~0ULL, 0, 12, -EINVAL },
		{ SPAN_BYTES, ~0ULL, 12, -EINVAL },
		{ SPAN_BYTES, -4096ULL, 12, -EINVAL },
		{ SPAN_BYTES, 1ULL << 63, 12, -EINVAL },
		{ SPAN_BYTES, (1ULL << 43) + 1, 12, -EINVAL },
		{ SPAN_BYTES, 1ULL << 43, 12, -ENOMEM },
		{ 2ULL << 20, 1ULL << 43, 21, -ENOMEM },
		{ 1ULL << 44, 1ULL << 43, 21, -ENOMEM },
	};
	struct shmk_pool_create args;
	uint64_t start = test_now_ns();
	struct shmk_info info;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(large); i++) {
		int ret = large[i].ret;

		if (large[i].page_shift == 21 && ret == -ENOMEM && !raw_has_pmds())
			ret = -EOPNOTSUPP;
		args = raw_pool_args("large", large[i].bytes, large[i].page_shift);
		args.rings_bytes = large[i].rings;
		EXPECT_EQ(ret, raw(self->device, SHMK_IOC_POOL_CREATE, &args))
			TH_LOG("%llx bytes, %llx for rings", (unsigned long long)large[i].bytes,
			       (unsigned long long)large[i].rings);
		info = test_info(self->device);
		EXPECT_EQ(0, info.nr_pools);
		EXPECT_EQ(0, info.total_bytes);
	}
	/* Without pushing out everybody's memory first. */
	EXPECT_GT(30 * 1000000000ULL, test_now_ns() - start);
}

TEST_F_TIMEOUT(limit, numbers_of_peers_and_queues_have_bounds, 120)
{
	struct shmk_pool_create args = raw_pool_args("many", SPAN_BYTES, 12);
	struct shmk_pool_info info;
	int fd;

	args.nr_peers = SHMK_PEERS_MAX + 1;
	EXPECT_EQ(-EINVAL, raw(self->device, SHMK_IOC_POOL_CREATE, &args));
	args.nr_peers = ~0U;
	EXPECT_EQ(-EINVAL, raw(self->device, SHMK_IOC_POOL_CREATE, &args));
	args.nr_peers = SHMK_PEERS_MAX;
	args.nr_queues = SHMK_QUEUES_MAX + 1;
	EXPECT_EQ(-EINVAL, raw(self->device, SHMK_IOC_POOL_CREATE, &args));
	args.nr_queues = SHMK_QUEUES_MAX;
	fd = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, raw_pool_info(fd, &info));
	EXPECT_EQ(SHMK_PEERS_MAX, info.nr_peers);
	EXPECT_EQ(SHMK_QUEUES_MAX, info.nr_queues);
	close(fd);
}

/* ---- RLIMIT_MEMLOCK ---- */

struct memlock_arg {
	const struct test_who *who;
	int device;
	uint64_t memory;	/* of a pool of one span */
	uint64_t limit;
	int expected;
};

static void limit_memlock(uint64_t bytes)
{
	struct rlimit r = { bytes, bytes };

	CHILD_CHECK(!setrlimit(RLIMIT_MEMLOCK, &r));
}

static int within_memlock(int sock, void *arg)
{
	struct memlock_arg *m = arg;
	int fd, i;

	(void)sock;
	limit_memlock(2 * m->memory);
	test_become(m->who);
	for (i = 0; i < 50; i++)
		CHILD_CHECK(pool(m->device, (2 * m->memory | (SPAN_BYTES - 1)) + 1, 12) == -EPERM);
	/* None of these was charged: exactly two fit, and again after they are gone. */
	for (i = 0; i < 3; i++) {
		int first = pool(m->device, SPAN_BYTES, 12);

		CHILD_CHECK(first >= 0);
		fd = pool(m->device, SPAN_BYTES, 12);
		CHILD_CHECK(fd >= 0);
		CHILD_CHECK(pool(m->device, SPAN_BYTES, 12) == -EPERM);
		CHILD_CHECK(pool(m->device, SPAN_BYTES, 12) == -EPERM);
		close(fd);
		fd = pool(m->device, SPAN_BYTES, 12);
		CHILD_CHECK(fd >= 0);
		CHILD_CHECK(pool(m->device, SPAN_BYTES, 12) == -EPERM);
		close(fd);
		close(first);
	}
	return 0;
}

TEST_F_TIMEOUT(limit, memlock_is_charged_exactly_and_given_back, 120)
{
	struct memlock_arg m = { .who = &plain, .device = self->device };

	m.memory = memory_of(_metadata, self->device, SPAN_BYTES);
	EXPECT_EQ(0, test_child_run(within_memlock, &m));
}

static int tries_memlock(int sock, void *arg)
{
	struct memlock_arg *m = arg;

	(void)sock;
	limit_memlock(m->limit);
	test_become(m->who);
	CHILD_CHECK(pool(m->device, SPAN_BYTES, 12) >= 0 ? !m->expected : -errno == m->expected);
	return 0;
}

TEST_F_TIMEOUT(limit, memlock_is_met_to_the_page, 120)
{
	struct memlock_arg m = { .who = &plain, .device = self->device };

	m.memory = memory_of(_metadata, self->device, SPAN_BYTES);
	m.limit = m.memory;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
	m.limit = m.memory - 4096;
	m.expected = -EPERM;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
	m.limit = 0;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
	/* CAP_IPC_LOCK is above it. */
	m.who = &locker;
	m.expected = 0;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
}

static int keeps_a_pool(int sock, void *arg)
{
	struct memlock_arg *m = arg;

	limit_memlock(m->limit);
	test_become(m->who);
	CHILD_CHECK(pool(m->device, SPAN_BYTES, 12) >= 0);
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	test_park(sock);
}

/* The user, not the process, has so much locked; and a killed maker's pool is off the account. */
TEST_F_TIMEOUT(limit, memlock_counts_all_of_a_users_pools_and_nobody_elses, 120)
{
	struct memlock_arg m = { .who = &plain, .device = self->device };
	struct test_child c;
	struct test_msg msg;

	m.memory = memory_of(_metadata, self->device, SPAN_BYTES);
	m.limit = m.memory + 4096;
	ASSERT_EQ(0, test_child_start(&c, keeps_a_pool, &m));
	ASSERT_EQ(0, test_hear(c.sock, &msg));
	m.expected = -EPERM;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
	m.expected = 0;
	m.who = &other;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
	EXPECT_EQ(SIGKILL, test_child_kill(&c));
	m.who = &plain;
	EXPECT_EQ(0, test_child_run(tries_memlock, &m));
}

/* ---- the memory cgroup ---- */

static int cgroup_make(uint64_t max)
{
	int err;

	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		return -errno;
	err = write_number(CGROUP "/memory.max", max);
	/* Where there is swap, reaching the limit must not mean to use it. */
	write_text(CGROUP "/memory.swap.max", "0");
	return err;
}

static long long cgroup_event(const char *name)
{
	char buf[512], *p;

	if (read_text(CGROUP "/memory.events", buf, sizeof(buf)))
		return -1;
	for (p = strtok(buf, "\n"); p; p = strtok(NULL, "\n"))
		if (!strncmp(p, name, strlen(name)) && p[strlen(name)] == ' ')
			return atoll(p + strlen(name));
	return -1;
}

/* Until the group's memory is down to that; the kernel frees some of it later. */
static bool cgroup_falls_to(long long bytes)
{
	uint64_t end = test_now_ns() + PATIENCE_MS * 1000000ULL;

	while (read_number(CGROUP "/memory.current") > bytes) {
		if (test_now_ns() > end)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

#define CGROUP_MAX	(32UL << 20)
#define SLACK		(2L << 20)	/* per-cpu stocks, page tables, the child's own */

struct cgroup_arg {
	int device;
	uint32_t page_shift;
};

static int in_a_small_cgroup(int sock, void *arg)
{
	struct cgroup_arg *g = arg;
	struct shmk_pool_info info;
	long long before;
	struct test_att a;
	int fd;

	(void)sock;
	CHILD_CHECK(!write_text(CGROUP "/cgroup.procs", "0"));
	/* What the first use costs is not what is looked for. */
	fd = pool(g->device, 2UL << 20, g->page_shift);
	CHILD_CHECK(fd >= 0);
	close(fd);
	before = read_number(CGROUP "/memory.current");
	CHILD_CHECK(before >= 0);

	/* Too large for the group: an error, and nobody is killed for it. */
	CHILD_CHECK(pool(g->device, 64UL << 20, g->page_shift) == -ENOMEM);
	CHILD_CHECK(cgroup_falls_to(before + SLACK));
	CHILD_CHECK(cgroup_event("oom_kill") == 0);

	/* What fits is charged to it, all of it, before it is touched. */
	fd = pool(g->device, 16UL << 20, g->page_shift);
	CHILD_CHECK(fd >= 0);
	CHILD_CHECK(read_number(CGROUP "/memory.current") >= before + (16L << 20));
	CHILD_CHECK(pool(g->device, 16UL << 20, g->page_shift) == -ENOMEM);
	/* So is a ledger; and a refused attach is none. */
	CHILD_CHECK(test_attach(fd, 0, SHMK_ENTRIES_MAX, &a) == -ENOMEM);
	CHILD_CHECK(!raw_pool_info(fd, &info) && !info.peers_now && !info.attaches);
	CHILD_CHECK(!test_attach(fd, 0, 0, &a));
	CHILD_CHECK(a.peer == 1);
	test_close(&a);
	close(fd);
	CHILD_CHECK(cgroup_falls_to(before + SLACK));
	CHILD_CHECK(cgroup_event("oom_kill") == 0);
	return 0;
}

static void cgroup_limits(struct __test_metadata *_metadata, int device, uint32_t page_shift)
{
	struct cgroup_arg g = { .device = device, .page_shift = page_shift };
	int err = cgroup_make(CGROUP_MAX);

	if (err)
		SKIP(return, "no memory cgroup v2 here (%s)", strerror(-err));
	EXPECT_EQ(0, test_child_run(in_a_small_cgroup, &g));
	EXPECT_EQ(0, test_no_pools(device));
	EXPECT_EQ(0, rmdir(CGROUP));
}

TEST_F_TIMEOUT(limit, cgroup_is_charged_and_its_limit_is_ENOMEM_not_a_kill, 120)
{
	cgroup_limits(_metadata, self->device, 12);
}

/* There is no way here to run out of huge pages but by the group's limit. */
TEST_F_TIMEOUT(limit, huge_pages_that_cannot_be_had_are_ENOMEM_not_small_ones, 120)
{
	int fd = pool(self->device, 2UL << 20, 21);

	if (fd == -ENOMEM)
		SKIP(return, "not even one pool of huge pages can be had");
	if (!raw_has_pmds()) {
		EXPECT_EQ(-EOPNOTSUPP, fd);
		SKIP(return, "this kernel has no transparent huge pages");
	}
	ASSERT_LE(0, fd);
	close(fd);
	cgroup_limits(_metadata, self->device, 21);
}

static int makes_a_large_pool(int sock, void *arg)
{
	int device = *(int *)arg;

	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	pool(device, 1UL << 30, 12);
	test_park(sock);
}

TEST_F_TIMEOUT(limit, maker_killed_while_making_leaves_nothing, 120)
{
	struct test_child c;
	struct test_msg m;

	ASSERT_EQ(0, test_child_start(&c, makes_a_large_pool, &self->device));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	/* Its share is taken before its pages are. */
	while (!test_info(self->device).total_bytes)
		sched_yield();
	EXPECT_EQ(SIGKILL, test_child_kill(&c));
	EXPECT_EQ(0, test_no_pools(self->device));
}

/* ---- the module's own limits ---- */

TEST_F_TIMEOUT(limit, max_pool_bytes_holds_for_everybody, 120)
{
	int fd;

	ASSERT_EQ(0, write_number(PARAMS "max_pool_bytes", 4 * SPAN_BYTES));
	EXPECT_EQ(4 * SPAN_BYTES, test_info(self->device).max_pool_bytes);
	EXPECT_EQ(-EPERM, pool(self->device, 5 * SPAN_BYTES, 12));
	EXPECT_EQ(-EPERM, pool(self->device, 1UL << 40, 12));
	fd = pool(self->device, 4 * SPAN_BYTES, 12);
	ASSERT_LE(0, fd);
	/* One that is there already stays. */
	ASSERT_EQ(0, write_number(PARAMS "max_pool_bytes", SPAN_BYTES));
	EXPECT_EQ(1, test_info(self->device).nr_pools);
	EXPECT_EQ(-EPERM, pool(self->device, 4 * SPAN_BYTES, 12));
	close(fd);
	ASSERT_EQ(0, write_number(PARAMS "max_pool_bytes", 0));
	fd = pool(self->device, 5 * SPAN_BYTES, 12);
	EXPECT_LE(0, fd);
	close(fd);
}

TEST_F_TIMEOUT(limit, max_total_bytes_counts_all_memory_of_all_pools, 120)
{
	uint64_t memory = memory_of(_metadata, self->device, SPAN_BYTES);
	int fd[2];

	ASSERT_EQ(0, write_number(PARAMS "max_total_bytes", 2 * memory));
	EXPECT_EQ(2 * memory, test_info(self->device).max_total_bytes);
	fd[0] = pool(self->device, SPAN_BYTES, 12);
	fd[1] = pool(self->device, SPAN_BYTES, 12);
	ASSERT_LE(0, fd[0]);
	ASSERT_LE(0, fd[1]);
	EXPECT_EQ(2 * memory, test_info(self->device).total_bytes);
	EXPECT_EQ(-EPERM, pool(self->device, SPAN_BYTES, 12));
	EXPECT_EQ(2 * memory, test_info(self->device).total_bytes);
	close(fd[0]);
	EXPECT_EQ(memory, test_info(self->device).total_bytes);
	EXPECT_EQ(-EPERM, pool(self->device, 2 * SPAN_BYTES, 12));
	fd[0] = pool(self->device, SPAN_BYTES, 12);
	EXPECT_LE(0, fd[0]);
	/* Below what is there already: nothing more, and nothing less. */
	ASSERT_EQ(0, write_number(PARAMS "max_total_bytes", 1));
	EXPECT_EQ(-EPERM, pool(self->device, SPAN_BYTES, 12));
	EXPECT_EQ(2, test_info(self->device).nr_pools);
	close(fd[0]);
	close(fd[1]);
}

static int makes_one(int sock, void *arg)
{
	struct memlock_arg *m = arg;
	int ret;

	(void)sock;
	test_become(m->who);
	ret = pool(m->device, SPAN_BYTES, 12);
	return ret < 0 ? -ret : 0;
}

TEST_F_TIMEOUT(limit, max_pools_per_user_counts_by_maker, 120)
{
	/* Without it, RLIMIT_MEMLOCK would come into play. */
	struct test_who rich = { "other user", 1001, 1001, 1001, 0, CAP(IPC_LOCK) };
	struct memlock_arg m = { .who = &rich, .device = self->device };
	struct shmk_pool_create args = raw_pool_args("given", SPAN_BYTES, 12);
	int fd[2];

	ASSERT_EQ(0, write_number(PARAMS "max_pools_per_user", 2));
	EXPECT_EQ(2, test_info(self->device).max_pools_per_user);
	fd[0] = pool(self->device, SPAN_BYTES, 12);
	/* Giving one away does not make room for another. */
	args.uid = 1001;
	fd[1] = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, fd[0]);
	ASSERT_LE(0, fd[1]);
	EXPECT_EQ(-EPERM, pool(self->device, SPAN_BYTES, 12));
	EXPECT_EQ(0, test_child_run(makes_one, &m));
	close(fd[1]);
	fd[1] = pool(self->device, SPAN_BYTES, 12);
	EXPECT_LE(0, fd[1]);
	EXPECT_EQ(-EPERM, pool(self->device, SPAN_BYTES, 12));
	close(fd[0]);
	close(fd[1]);
}

/* ---- what one user may have ---- */

static int attach_poisoned(int fd, struct shmk_attach *args)
{
	*args = (struct shmk_attach){ .size = sizeof(*args), .peer = 0xa5a5a5a5, .gen = 0xa5a5a5a5 };
	return raw(fd, SHMK_IOC_ATTACH, args);
}

struct quota_arg {
	int device, pool;
};

/* Another user, who is told nothing of the first one's, and may have as much itself. */
static int has_two_of_each(int sock, void *arg)
{
	struct quota_arg *q = arg;
	struct shmk_queue_close remove = { .size = sizeof(remove) };
	int att[3];

	(void)sock;
	test_become(&other);
	CHILD_CHECK(!test_info(q->device).user_peers);
	att[0] = raw_attach(q->pool, 0, 0, NULL);
	att[1] = raw_attach(q->pool, SHMK_ATTACH_F_RDONLY, 0, NULL);
	CHILD_CHECK(att[0] >= 0 && att[1] >= 0);
	CHILD_CHECK(raw_attach(q->pool, 0, 0, NULL) == -EPERM);
	CHILD_CHECK(test_info(q->device).user_peers == 2);
	CHILD_CHECK(!raw_queue_create(att[0], "theirs", 1, &remove.id, &remove.gen));
	CHILD_CHECK(!raw_queue_create(att[0], "theirs2", 1, NULL, NULL));
	CHILD_CHECK(raw_queue_create(att[0], "theirs3", 1, NULL, NULL) == -EPERM);
	CHILD_CHECK(test_info(q->device).user_queues == 2);
	return 0;
}

static int attaches_and_parks(int sock, void *arg)
{
	const struct quota_arg *q = arg;

	CHILD_CHECK(raw_attach(q->pool, 0, 0, NULL) >= 0);
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	test_park(sock);
}

TEST_F_TIMEOUT(limit, max_peers_per_user_counts_in_all_pools, 120)
{
	struct quota_arg q = { .device = self->device };
	struct shmk_attach ids;
	struct test_child c;
	struct test_msg m;
	int p[2], att[3];

	p[0] = pool(self->device, SPAN_BYTES, 12);
	p[1] = pool(self->device, SPAN_BYTES, 12);
	ASSERT_LE(0, p[0]);
	ASSERT_LE(0, p[1]);
	q.pool = p[0];
	ASSERT_EQ(0, write_number(PARAMS "max_peers_per_user", 2));
	ASSERT_EQ(0, write_number(PARAMS "max_queues_per_user", 2));
	EXPECT_EQ(2, test_info(self->device).max_peers_per_user);
	att[0] = attach_poisoned(p[0], &ids);
	att[1] = raw_attach(p[1], SHMK_ATTACH_F_RDONLY, 0, NULL);
	ASSERT_LE(0, att[0]);
	ASSERT_LE(0, att[1]);
	EXPECT_EQ(2, test_info(self->device).user_peers);
	EXPECT_EQ(-EPERM, attach_poisoned(p[0], &ids));
	EXPECT_EQ(0xa5a5a5a5, ids.peer);
	EXPECT_EQ(-EPERM, attach_poisoned(p[1], &ids));
	/* Each user has its own. */
	EXPECT_EQ(0, test_child_run(has_two_of_each, &q));
	/* At run time: more, and less than there are. */
	ASSERT_EQ(0, write_number(PARAMS "max_peers_per_user", 3));
	att[2] = raw_attach(p[0], 0, 0, NULL);
	ASSERT_LE(0, att[2]);
	ASSERT_EQ(0, write_number(PARAMS "max_peers_per_user", 1));
	close(att[2]);
	EXPECT_EQ(0, raw_detach(att[1]));
	EXPECT_EQ(-EPERM, raw_attach(p[1], 0, 0, NULL));
	/* It is the peer that counts, not its file. */
	EXPECT_EQ(0, raw_detach(att[0]));
	EXPECT_EQ(0, test_info(self->device).user_peers);
	close(att[0]);
	close(att[1]);

	ASSERT_EQ(0, test_child_start(&c, attaches_and_parks, &q));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	EXPECT_EQ(-EPERM, raw_attach(p[0], 0, 0, NULL));
	EXPECT_EQ(SIGKILL, test_child_kill(&c));
	att[0] = raw_attach(p[0], 0, 0, NULL);
	EXPECT_LE(0, att[0]);
	close(att[0]);
	close(p[0]);
	close(p[1]);
}

TEST_F_TIMEOUT(limit, max_queues_per_user_counts_by_maker, 120)
{
	struct quota_arg q = { .device = self->device };
	struct shmk_queue_create args = { .size = sizeof(args), .name = "c", .capacity = 1,
					  .id = 0xa5a5a5a5 };
	uint32_t id, gen;
	int att;

	q.pool = pool(self->device, MiB, 12);
	ASSERT_LE(0, q.pool);
	ASSERT_EQ(0, write_number(PARAMS "max_queues_per_user", 2));
	ASSERT_EQ(0, write_number(PARAMS "max_peers_per_user", 2));
	EXPECT_EQ(2, test_info(self->device).max_queues_per_user);
	att = raw_attach(q.pool, 0, 0, NULL);
	ASSERT_LE(0, att);
	ASSERT_EQ(0, raw_queue_create(att, "a", 1, &id, &gen));
	ASSERT_EQ(0, raw_queue_create(att, "b", 1, NULL, NULL));
	EXPECT_EQ(2, test_info(self->device).user_queues);
	EXPECT_EQ(-EPERM, raw(att, SHMK_IOC_QUEUE_CREATE, &args));
	EXPECT_EQ(0xa5a5a5a5, args.id);
	EXPECT_EQ(-EEXIST, raw_queue_create(att, "b", 1, NULL, NULL));
	/* Another one's queues in the same pool are its own; they go with the pool. */
	EXPECT_EQ(0, test_child_run(has_two_of_each, &q));
	/* Whoever makes room. What its maker has left behind is still its maker's. */
	ASSERT_EQ(0, raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	ASSERT_EQ(0, raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, id, gen));
	EXPECT_EQ(1, test_info(self->device).user_queues);
	close(att);
	EXPECT_EQ(1, test_info(self->device).user_queues);
	att = raw_attach(q.pool, 0, 0, NULL);
	ASSERT_LE(0, att);
	EXPECT_EQ(0, raw(att, SHMK_IOC_QUEUE_CREATE, &args));
	EXPECT_EQ(-EPERM, raw_queue_create(att, "d", 1, NULL, NULL));
	/* What fails for another reason counts nothing. */
	ASSERT_EQ(0, write_number(PARAMS "max_queues_per_user", 3));
	EXPECT_EQ(-ENOSPC, raw_queue_create(att, "large", SHMK_CAPACITY_MAX, NULL, NULL));
	args.flags = SHMK_QUEUE_F_TOPIC;
	strcpy(args.name, "topic");
	args.capacity = 4;
	args.nr_readers = args.nr_holds = args.depth = args.msg_bytes = 1;
	args.nr_elements = 6;
	EXPECT_EQ(-EINVAL, raw(att, SHMK_IOC_QUEUE_CREATE, &args));
	EXPECT_EQ(0, raw_queue_create(att, "d", 1, NULL, NULL));
	EXPECT_EQ(3, test_info(self->device).user_queues);
	close(att);
	close(q.pool);
}

/* ---- ids and room inside a pool ---- */

TEST_F_TIMEOUT(limit, peer_ids_run_out_with_ENOSPC_and_come_back, 120)
{
	struct shmk_pool_create args = raw_pool_args(NULL, SPAN_BYTES, 12);
	struct shmk_pool_info info;
	struct shmk_attach attach;
	int p, att[3], i;

	args.nr_peers = 3;
	p = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, p);
	for (i = 0; i < 3; i++) {
		att[i] = attach_poisoned(p, &attach);
		ASSERT_LE(0, att[i]);
		EXPECT_EQ(i + 1, attach.peer);
		EXPECT_EQ(1, attach.gen);
	}
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(-ENOSPC, attach_poisoned(p, &attach));
		EXPECT_EQ(0xa5a5a5a5, attach.peer);
		EXPECT_EQ(0xa5a5a5a5, attach.gen);
	}
	ASSERT_EQ(0, raw_pool_info(p, &info));
	EXPECT_EQ(3, info.peers_now);
	EXPECT_EQ(3, info.attaches);
	EXPECT_EQ(0, raw_detach(att[1]));
	close(att[1]);
	att[1] = attach_poisoned(p, &attach);
	EXPECT_LE(0, att[1]);
	EXPECT_EQ(2, attach.peer);
	EXPECT_EQ(2, attach.gen);
	EXPECT_EQ(-ENOSPC, attach_poisoned(p, &attach));
	for (i = 0; i < 3; i++)
		close(att[i]);
	close(p);
}

TEST_F_TIMEOUT(limit, ledgers_have_a_bound, 120)
{
	struct shmk_attach args = { .size = sizeof(args), .nr_entries = SHMK_ENTRIES_MAX + 1 };
	int p = pool(self->device, SPAN_BYTES, 12), att;

	ASSERT_LE(0, p);
	EXPECT_EQ(-EINVAL, raw(p, SHMK_IOC_ATTACH, &args));
	args.nr_entries = ~0U;
	EXPECT_EQ(-EINVAL, raw(p, SHMK_IOC_ATTACH, &args));
	args.nr_entries = SHMK_ENTRIES_MAX;
	att = raw(p, SHMK_IOC_ATTACH, &args);
	EXPECT_LE(0, att);
	EXPECT_EQ(1, args.peer);
	close(att);
	close(p);
}

TEST_F_TIMEOUT(limit, queue_ids_run_out_with_ENOSPC_and_come_back, 120)
{
	struct shmk_pool_create args = raw_pool_args(NULL, SPAN_BYTES, 12);
	struct shmk_queue_create create = { .size = sizeof(create), .name = "c", .capacity = 1,
					    .id = 0xa5a5a5a5, .gen = 0xa5a5a5a5 };
	struct shmk_pool_info info;
	struct test_att a;
	uint32_t id[2], gen[2];
	int p;

	args.nr_queues = 2;
	p = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, p);
	ASSERT_EQ(0, test_attach(p, 0, 0, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "a", 1, &id[0], &gen[0]));
	ASSERT_EQ(0, raw_queue_create(a.fd, "b", 1, &id[1], &gen[1]));
	/* A taken name is told before the lack of room. */
	EXPECT_EQ(-EEXIST, raw_queue_create(a.fd, "b", 1, NULL, NULL));
	EXPECT_EQ(-ENOSPC, raw(a.fd, SHMK_IOC_QUEUE_CREATE, &create));
	EXPECT_EQ(0xa5a5a5a5, create.id);
	EXPECT_EQ(0xa5a5a5a5, create.gen);
	EXPECT_EQ(-ENOENT, raw_queue_open(a.fd, "c", NULL, NULL));
	ASSERT_EQ(0, raw_pool_info(p, &info));
	EXPECT_EQ(2, info.queues_now);
	EXPECT_EQ(-EBUSY, raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id[0], gen[0]));
	EXPECT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id[0], gen[0]));
	EXPECT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id[0], gen[0]));
	EXPECT_EQ(0, raw(a.fd, SHMK_IOC_QUEUE_CREATE, &create));
	EXPECT_EQ(id[0], create.id);
	EXPECT_EQ(gen[0] + 1, create.gen);
	EXPECT_EQ(-ENOSPC, raw_queue_create(a.fd, "d", 1, NULL, NULL));
	test_close(&a);
	close(p);
}

TEST_F_TIMEOUT(limit, ring_room_runs_out_with_ENOSPC_and_is_used_to_the_end, 120)
{
	struct shmk_pool_create args = raw_pool_args(NULL, SPAN_BYTES, 12);
	uint64_t ring = sizeof(struct shmk_ring) + 4 * 64;
	uint32_t id[8], gen[8], fit, i;
	struct test_att a;
	char name[8];
	int p;

	args.rings_bytes = 4096;
	p = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, p);
	ASSERT_EQ(0, test_attach(p, 0, 0, &a));
	EXPECT_EQ(4096, a.status->rings_bytes);
	EXPECT_EQ(-ENOSPC, raw_queue_create(a.fd, "big", 64, NULL, NULL));
	EXPECT_EQ(-ENOSPC, raw_queue_create(a.fd, "bigger", SHMK_CAPACITY_MAX, NULL, NULL));
	fit = 4096 / ring;
	ASSERT_EQ(8, fit);
	for (i = 0; i < fit; i++) {
		snprintf(name, sizeof(name), "q%u", i);
		ASSERT_EQ(0, raw_queue_create(a.fd, name, 4, &id[i], &gen[i]));
	}
	EXPECT_EQ(-ENOSPC, raw_queue_create(a.fd, "more", 1, NULL, NULL));
	/* Two holes that are not neighbours make no larger one; two that are do. */
	for (i = 1; i < 6; i += 2) {
		ASSERT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id[i], gen[i]));
		ASSERT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id[i], gen[i]));
	}
	EXPECT_EQ(-ENOSPC, raw_queue_create(a.fd, "more", 8, NULL, NULL));
	ASSERT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id[2], gen[2]));
	ASSERT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id[2], gen[2]));
	EXPECT_EQ(0, raw_queue_create(a.fd, "more", 8, &id[1], NULL));
	EXPECT_EQ(a.status->rings_off + ring, test_queue_status(&a, id[1])->ring);
	test_close(&a);
	close(p);
}

/* ---- file descriptors ---- */

static int without_fds(int sock, void *arg)
{
	int device = *(int *)arg, p, events;
	struct shmk_pool_create args = raw_pool_args("nofd", SPAN_BYTES, 12);
	struct rlimit r = { 0, 0 };
	struct shmk_pool_info info;
	struct shmk_event event;
	struct test_att a;
	uint32_t id;

	(void)sock;
	p = pool(device, SPAN_BYTES, 12);
	CHILD_CHECK(p >= 0 && !test_attach(p, 0, 0, &a));
	CHILD_CHECK(!raw_queue_create(a.fd, "q", 4, &id, NULL));
	events = test_events(p);
	CHILD_CHECK(events >= 0);
	getrlimit(RLIMIT_NOFILE, &r);
	r.rlim_cur = 3;
	CHILD_CHECK(!setrlimit(RLIMIT_NOFILE, &r));

	CHILD_CHECK(raw(device, SHMK_IOC_POOL_CREATE, &args) == -EMFILE);
	args.flags = SHMK_POOL_F_PERSIST;
	CHILD_CHECK(raw(device, SHMK_IOC_POOL_CREATE, &args) == -EMFILE);
	CHILD_CHECK(raw_attach(p, 0, 0, NULL) == -EMFILE);
	CHILD_CHECK(raw_queue_fd(a.fd, id, SHMK_SIDE_RECV) == -EMFILE);
	CHILD_CHECK(test_events(p) == -EMFILE);
	/* Nothing came of it, and nobody heard of it. */
	CHILD_CHECK(test_info(device).nr_pools == 1);
	CHILD_CHECK(!raw_pool_info(p, &info) && info.peers_now == 1 && info.attaches == 1);
	CHILD_CHECK(test_event_within(events, &event, 0) == -ETIMEDOUT);

	r.rlim_cur = r.rlim_max;
	CHILD_CHECK(!setrlimit(RLIMIT_NOFILE, &r));
	CHILD_CHECK(raw_pool_destroy(device, "nofd") == -ENOENT);
	CHILD_CHECK(raw(device, SHMK_IOC_POOL_CREATE, &args) >= 0);
	CHILD_CHECK(!raw_pool_destroy(device, "nofd"));
	return 0;
}

TEST_F_TIMEOUT(limit, call_that_gets_no_fd_leaves_no_trace, 120)
{
	EXPECT_EQ(0, test_child_run(without_fds, &self->device));
}

/* ---- events ---- */

#define KEPT	1024		/* SHMK_EVENTS_KEPT of the module */

TEST_F_TIMEOUT(limit, slow_reader_is_told_how_many_events_it_lost, 120)
{
	struct shmk_event event;
	uint64_t seq = 0, first;
	int p, slow, quick, att, i;

	p = pool(self->device, SPAN_BYTES, 12);
	ASSERT_LE(0, p);
	slow = test_events(p);
	quick = test_events(p);
	ASSERT_LE(0, slow);
	ASSERT_LE(0, quick);
	/* Two each: attached, detached. */
	for (i = 0; i < KEPT / 2 + 100; i++) {
		att = raw_attach(p, 0, 1, NULL);
		ASSERT_LE(0, att);
		close(att);
		ASSERT_EQ(0, test_event_within(quick, &event, 0));
		EXPECT_EQ(SHMK_EV_ATTACHED, event.type);
		if (!i)
			seq = event.seq;
		EXPECT_EQ(seq + 2 * i, event.seq);
		ASSERT_EQ(0, test_event_within(quick, &event, 0));
		EXPECT_EQ(SHMK_EV_DETACHED, event.type);
		EXPECT_EQ(seq + 2 * i + 1, event.seq);
	}
	EXPECT_EQ(-ETIMEDOUT, test_event_within(quick, &event, 0));

	ASSERT_EQ(0, test_event_within(slow, &event, 0));
	EXPECT_EQ(SHMK_EV_LOST, event.type);
	EXPECT_EQ(200, event.code);
	for (i = 0, first = seq + 200; i < KEPT; i++) {
		ASSERT_EQ(0, test_event_within(slow, &event, 0));
		ASSERT_EQ(first + i, event.seq);
		ASSERT_EQ(i & 1 ? SHMK_EV_DETACHED : SHMK_EV_ATTACHED, event.type);
	}
	EXPECT_EQ(-ETIMEDOUT, test_event_within(slow, &event, 0));
	close(slow);
	close(quick);
	close(p);
}

TEST_HARNESS_MAIN
