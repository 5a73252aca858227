// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs_test.c - what is decoded there is what is in the pool, nonsense included, while all
 * comes and goes.
 */
#include <pthread.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <linux/magic.h>

#include <shmk.h>

#include "shmk_test.h"
#include "kselftest_harness.h"

#define POOL		"debugfs-test"
#define DIR_OF		"/sys/kernel/debug/shmk/" POOL "/"
#define ROOM		(1 << 20)

FIXTURE(debugfs)
{
	int device, pool;
	char *text;
};

FIXTURE_SETUP(debugfs)
{
	struct statfs fs;

	if (statfs("/sys/kernel/debug", &fs) || fs.f_type != DEBUGFS_MAGIC)
		SKIP(return, "no debugfs is mounted");
	ASSERT_EQ(0, access("/sys/kernel/debug/shmk", F_OK));
	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->pool = raw_pool_create(self->device, POOL, 1 << 20, 12);
	ASSERT_LE(0, self->pool);
	self->text = calloc(1, ROOM);
	ASSERT_NE(NULL, self->text);
}

FIXTURE_TEARDOWN(debugfs)
{
	free(self->text);
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	EXPECT_NE(0, access(DIR_OF, F_OK));
	close(self->device);
}

/* All of a file, in pieces of @step: the number of lines, or -errno. */
static int read_all(const char *file, char *text, size_t step)
{
	char path[128];
	size_t done = 0;
	ssize_t n;
	int fd, lines = 0;

	snprintf(path, sizeof(path), DIR_OF "%s", file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	while (done < ROOM - 1 && (n = read(fd, text + done, step < ROOM - 1 - done ?
					    step : ROOM - 1 - done)) > 0)
		done += (size_t)n;
	if (n < 0)
		lines = -errno;
	text[done] = '\0';
	close(fd);
	for (size_t i = 0; lines >= 0 && i < done; i++)
		lines += text[i] == '\n';
	return lines;
}

static bool has(const char *text, const char *line)
{
	const char *at = strstr(text, line);

	if (at && (at == text || at[-1] == '\n') && at[strlen(line)] == '\n')
		return true;
	fprintf(stderr, "# no \"%s\" in:\n%s", line, text);
	return false;
}

TEST_F(debugfs, only_root_reads_it)
{
	static const char *const files[] = { "ledgers", "slots", "capsules" };
	char path[128];
	struct stat st;

	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), DIR_OF "%s", files[i]);
		ASSERT_EQ(0, stat(path, &st));
		EXPECT_EQ(0400, st.st_mode & 07777);
		EXPECT_EQ(0, st.st_uid);
	}
}

TEST_F(debugfs, words_are_decoded_nonsense_included)
{
	struct test_att a;
	uint32_t id, gen;

	ASSERT_EQ(0, test_attach(self->pool, 0, 2000, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "q", 8, &id, &gen));
	EXPECT_EQ(0, read_all("ledgers", self->text, ROOM));
	EXPECT_EQ(0, read_all("slots", self->text, ROOM));
	test_entry(&a, 3, SHMK_WHAT(SHMK_OP_HELD, 12, 4), SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0));
	test_entry(&a, 700, SHMK_WHAT(SHMK_OP_WAITING, 0, 0), SHMK_WHERE(id, 1));
	test_entry(&a, 1999, SHMK_WHAT(SHMK_OP_RESENDING, 0xfffffff, ~0U), ~0ULL);
	EXPECT_EQ(3, read_all("ledgers", self->text, ROOM));
	EXPECT_TRUE(has(self->text, "peer 1 gen 1 entry 3: held 12 gen 4 pos 0"));
	EXPECT_TRUE(has(self->text, "peer 1 gen 1 entry 700: waiting 0 gen 0 queue 0 pos 1"));
	EXPECT_EQ(3, read_all("ledgers", self->text, 7));
	/* It says it has more than it has. */
	STORE(&a.ledger->high, ~0ULL);
	EXPECT_EQ(3, read_all("ledgers", self->text, ROOM));

	STORE(&test_slot(&a, id, 2)->p, SHMK_P(5, SHMK_KIND_BLOCK, 77));
	STORE(&test_slot(&a, id, 2)->t, SHMK_T_TRIED(5, 1, 3));
	STORE(&test_slot(&a, id, 7)->p, ~0ULL);
	STORE(&test_slot(&a, id, 7)->t, 0);
	EXPECT_EQ(2, read_all("slots", self->text, 100));
	EXPECT_TRUE(has(self->text, "queue 0 gen 1 q slot 2: lap 5 block 77 taken lap 5 peer 1 tries 3"));
	EXPECT_TRUE(has(self->text, "queue 0 gen 1 q slot 7: lap 4294967295 nonsense 268435455"));
	STORE(&test_slot(&a, id, 2)->p, 0);
	STORE(&test_slot(&a, id, 7)->p, 0);
	for (int i = 0; i < 2000; i++)
		STORE(&a.ledger->entry[i].what, 0);
	test_close(&a);
	EXPECT_EQ(0, read_all("ledgers", self->text, ROOM));
}

static int holds(int sock, void *arg __attribute__((unused)))
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 16 };
	struct shmk_msg msg;
	struct shmk_queue *q;
	struct shmk *s;

	CHILD_CHECK(!shmk_attach("shmk:" POOL, NULL, &s));
	CHILD_CHECK(!shmk_queue_open(s, "work", &opts, SHMK_TRY, &q));
	for (int i = 0; i < 9; i++) {
		CHILD_CHECK(!shmk_alloc(s, 500, 0, &msg));
		if (i < 5)
			CHILD_CHECK(!shmk_send(q, &msg, SHMK_TRY));
	}
	CHILD_CHECK(!shmk_recv(q, &msg, SHMK_TRY));
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	test_park(sock);
}

struct counted {
	int held, queued;
};

static int count(const struct shmk_holding *h, void *arg)
{
	struct counted *c = arg;

	c->held += h->state == SHMK_HOLDING_HELD || h->state == SHMK_HOLDING_RECEIVED;
	c->queued += h->state == SHMK_HOLDING_QUEUED;
	return 0;
}

/* How many lines have @what. */
static int lines_with(const char *text, const char *what)
{
	int nr = 0;

	for (; (text = strstr(text, what)); text++)
		nr++;
	return nr;
}

TEST_F(debugfs, it_shows_what_a_dump_shows_and_afterwards_the_capsule)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct counted c = { 0, 0 };
	struct shmk_event event;
	struct test_child child;
	struct test_msg m;
	struct shmk *s;
	int events;

	ASSERT_EQ(0, test_child_start(&child, holds, NULL));
	ASSERT_EQ(0, test_hear(child.sock, &m));
	ASSERT_EQ(0, shmk_attach("shmk:" POOL, &opts, &s));
	ASSERT_EQ(0, shmk_pool_dump(s, count, &c));
	EXPECT_EQ(5, c.held);
	EXPECT_EQ(4, c.queued);
	ASSERT_LE(5, read_all("ledgers", self->text, ROOM));
	EXPECT_EQ(c.held, lines_with(self->text, ": held ") + lines_with(self->text, ": got "));
	ASSERT_EQ(c.queued, read_all("slots", self->text, ROOM));
	EXPECT_EQ(c.queued, lines_with(self->text, "work slot "));
	EXPECT_EQ(0, read_all("capsules", self->text, ROOM));

	events = test_events(self->pool);
	test_child_kill(&child);
	ASSERT_EQ(0, test_event_of(events, SHMK_EV_DIED, 0, 0, &event));
	ASSERT_LE(6, read_all("capsules", self->text, ROOM));
	EXPECT_EQ(self->text, strstr(self->text, "capsule 0 peer 1 gen 1 "));
	EXPECT_EQ(c.held, lines_with(self->text, "  held ") + lines_with(self->text, "  got "));
	EXPECT_EQ(0, read_all("ledgers", self->text, ROOM));
	close(events);
	shmk_detach(s);
}

TEST_F(debugfs, a_file_outlives_its_pool_and_says_so)
{
	char got[64];
	int fd, att;

	att = raw_attach(self->pool, 0, 16, NULL);
	ASSERT_LE(0, att);
	fd = open(DIR_OF "ledgers", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	close(att);
	close(self->pool);
	self->pool = -1;
	ASSERT_EQ(0, test_no_pools(self->device));
	EXPECT_GT(0, read(fd, got, sizeof(got)));
	close(fd);
}

struct reader {
	bool stop;
	char *text;
	uint64_t reads;
};

static void *keeps_reading(void *arg)
{
	static const char *const files[] = { "ledgers", "slots", "capsules" };
	struct reader *r = arg;

	for (unsigned int i = 0; !LOAD(&r->stop); i++)
		if (read_all(files[i % 3], r->text, 4096) >= 0)
			STORE(&r->reads, r->reads + 1);
	return NULL;
}

/* A pool that comes and goes, with queues, peers and deaths. */
static int churns(int sock __attribute__((unused)), void *arg)
{
	int pool = raw_pool_create(*(int *)arg, POOL, 1 << 20, 12);
	struct test_att a;
	uint32_t id, gen;

	CHILD_CHECK(pool >= 0);
	for (int i = 0; i < 5; i++) {
		CHILD_CHECK(!test_attach(pool, 0, 4096, &a));
		CHILD_CHECK(!raw_queue_create(a.fd, "churn", 64, &id, &gen));
		test_entry(&a, 4000, SHMK_WHAT(SHMK_OP_WAITING, 0, 0), SHMK_WHERE(id, 1));
		STORE(&test_slot(&a, id, 60)->p, SHMK_P(0, SHMK_KIND_SKIP, 0));
		CHILD_CHECK(!raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id, gen));
		CHILD_CHECK(!raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id, gen));
		if (i < 4)
			test_close(&a);
	}
	kill(getpid(), SIGKILL);
	return 0;
}

TEST_F_TIMEOUT(debugfs, readers_meet_who_comes_and_goes, 90)
{
	struct reader r = { .stop = false, .text = self->text };
	pthread_t thread;

	close(self->pool);
	self->pool = -1;
	ASSERT_EQ(0, test_no_pools(self->device));
	ASSERT_EQ(0, pthread_create(&thread, NULL, keeps_reading, &r));
	for (int i = 0; i < 10; i++) {
		EXPECT_EQ(-1000 - SIGKILL, test_child_run(churns, &self->device));
		EXPECT_EQ(0, test_no_pools(self->device));
	}
	STORE(&r.stop, true);
	pthread_join(thread, NULL);
	EXPECT_LT(0, r.reads);
}

TEST_HARNESS_MAIN
