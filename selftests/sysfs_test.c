// SPDX-License-Identifier: GPL-2.0-only
/*
 * sysfs_test.c - /sys/kernel/shmk shows what there is: of whom, to whom, and no longer.
 */
#include <linux/netlink.h>
#include <pthread.h>
#include <sys/stat.h>

#include <shmk.h>

#include "shmk_test.h"
#include "kselftest_harness.h"

#define POOL		"sysfs-test"
#define DIR_OF(pool)	"/sys/kernel/shmk/pools/" pool "/"
#define OWNER		1001
#define GROUP		1002
#define STRANGER	1003
#define MANY		440	/* and rings for twenty more fit */

FIXTURE(sysfs)
{
	int device, pool;
};

FIXTURE_SETUP(sysfs)
{
	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->pool = raw_pool_create(self->device, POOL, 1 << 20, 12);
	ASSERT_LE(0, self->pool);
}

FIXTURE_TEARDOWN(sysfs)
{
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

/* What a file of the pool holds, without the newline; or why it cannot be read. */
static const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *text(const char *format, ...)
{
	static char got[128];
	char path[160] = DIR_OF(POOL);
	ssize_t n = -1;
	va_list args;
	int fd;

	va_start(args, format);
	vsnprintf(path + strlen(path), sizeof(path) - strlen(path), format, args);
	va_end(args);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = read(fd, got, sizeof(got) - 1);
	if (n < 0)
		snprintf(got, sizeof(got), "%s", strerror(errno));
	else
		got[n - (n && got[n - 1] == '\n')] = '\0';
	if (fd >= 0)
		close(fd);
	return got;
}

static long long number(const char *file)
{
	const char *got = text("%s", file);
	char *end;
	long long value = strtoll(got, &end, 0);

	return end == got || *end ? -1 : value;
}

static bool there(const char *dir, uint32_t id)
{
	char path[160];

	snprintf(path, sizeof(path), DIR_OF(POOL) "%s/%u", dir, id);
	return !access(path, F_OK);
}

/* What goes may be shown a moment longer. */
static bool goes(const char *dir, uint32_t id)
{
	uint64_t end = test_now_ns() + PATIENCE_MS * 1000000ULL;

	while (there(dir, id)) {
		if (test_now_ns() > end)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

/* ---- peers ---- */

TEST_F(sysfs, a_peer_is_shown_while_it_lives)
{
	char me[32], comm[17] = "";
	struct test_att a;

	prctl(PR_GET_NAME, comm);
	snprintf(me, sizeof(me), "%d", getpid());
	ASSERT_EQ(0, test_attach(self->pool, 0, 32, &a));
	EXPECT_STREQ(me, text("peers/%u/pid", a.peer));
	EXPECT_STREQ(comm, text("peers/%u/comm", a.peer));
	EXPECT_STREQ("0", text("peers/%u/uid", a.peer));
	EXPECT_STREQ("alive", text("peers/%u/state", a.peer));
	EXPECT_STREQ("0", text("peers/%u/read_only", a.peer));
	EXPECT_STREQ("32", text("peers/%u/entries", a.peer));
	EXPECT_EQ(a.gen, (uint32_t)atoi(text("peers/%u/generation", a.peer)));
	EXPECT_STREQ("0", text("peers/%u/blocks", a.peer));
	test_close(&a);
	EXPECT_TRUE(goes("peers", a.peer));

	/* The id's next life, at once. */
	ASSERT_EQ(0, test_attach(self->pool, SHMK_ATTACH_F_RDONLY, 16, &a));
	EXPECT_STREQ("1", text("peers/%u/read_only", a.peer));
	EXPECT_EQ(a.gen, (uint32_t)atoi(text("peers/%u/generation", a.peer)));
	test_close(&a);
}

TEST_F(sysfs, what_a_peer_holds_is_counted_and_nonsense_is_not)
{
	struct test_att a;

	ASSERT_EQ(0, test_attach(self->pool, 0, 32, &a));
	STORE(&test_span(&a, 0)->word, SHMK_SPAN_WORD(1, a.peer, 0, 1, SHMK_SPAN_CUT));
	STORE(test_block(&a, 0), SHMK_BLOCK_WORD(5, SHMK_BLOCK_USED));
	STORE(test_block(&a, 2), SHMK_BLOCK_WORD(6, SHMK_BLOCK_USED));
	test_entry(&a, 3, SHMK_WHAT(SHMK_OP_HELD, 0, 5), 0);
	test_entry(&a, 4, SHMK_WHAT(SHMK_OP_GOT, 2, 6), 0);
	EXPECT_STREQ("2", text("peers/%u/blocks", a.peer));
	EXPECT_STREQ("1024", text("peers/%u/bytes", a.peer));
	/* Of another generation, free, and far outside. */
	test_entry(&a, 5, SHMK_WHAT(SHMK_OP_HELD, 2, 7), 0);
	test_entry(&a, 6, SHMK_WHAT(SHMK_OP_HELD, 4, 0), 0);
	test_entry(&a, 7, SHMK_WHAT(SHMK_OP_HELD, 0xffffff0, 0), 0);
	STORE(&a.ledger->high, ~0ULL);
	EXPECT_STREQ("2", text("peers/%u/blocks", a.peer));
	STORE(&a.ledger->entry[3].what, 0);
	STORE(&a.ledger->entry[4].what, 0);
	EXPECT_STREQ("0", text("peers/%u/bytes", a.peer));
	test_close(&a);
}

static int ends(int sock __attribute__((unused)), void *arg)
{
	int how = *(int *)arg, pool = raw_pool_open(raw_device(), POOL, 0);
	int att = raw_attach(pool, 0, 16, NULL);

	CHILD_CHECK(att >= 0);
	if (how == SHMK_REASON_DETACHED)
		CHILD_CHECK(!raw_detach(att));
	else if (how == SHMK_REASON_CLOSED)
		close(att);
	else if (how == SHMK_REASON_KILLED)
		kill(getpid(), SIGKILL);
	else if (how == SHMK_REASON_EXEC)
		execl("/bin/true", "true", NULL);
	return 0;
}

TEST_F(sysfs, ends_are_counted_by_reason)
{
	static const char *const files[] = {
		[SHMK_REASON_DETACHED] = "ends/detached", [SHMK_REASON_CLOSED] = "ends/closed",
		[SHMK_REASON_EXITED] = "ends/exited", [SHMK_REASON_KILLED] = "ends/killed",
		[SHMK_REASON_EXEC] = "ends/exec",
	};
	struct shmk_event event;
	int how, events;

	ASSERT_EQ(0, number("ends/unknown"));
	for (how = SHMK_REASON_DETACHED; how <= SHMK_REASON_EXEC; how++) {
		/* An exec of what is not there is an exit. */
		if (how == SHMK_REASON_EXEC && access("/bin/true", X_OK))
			continue;
		EXPECT_EQ(0, number(files[how]));
		events = test_events(self->pool);
		test_child_run(ends, &how);
		do {
			ASSERT_EQ(0, test_event(events, &event));
		} while (!test_is_end(&event));
		close(events);
		EXPECT_EQ((uint32_t)how, event.reason);
		EXPECT_EQ(1, number(files[how])) TH_LOG("%s", files[how]);
	}
	EXPECT_EQ(2, number("detaches"));
	EXPECT_EQ(number("deaths"), number("ends/exited") + number("ends/killed") +
				    number("ends/exec"));
}

/* ---- queues ---- */

TEST_F(sysfs, a_queue_is_shown_and_what_members_write_is_bounded)
{
	struct test_att a;
	uint32_t id, gen;

	ASSERT_EQ(0, test_attach(self->pool, 0, 32, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "first", 8, &id, &gen));
	EXPECT_STREQ("first", text("queues/%u/name", id));
	EXPECT_STREQ("queue", text("queues/%u/kind", id));
	EXPECT_STREQ("8", text("queues/%u/capacity", id));
	EXPECT_STREQ("64", text("queues/%u/slot_bytes", id));
	EXPECT_STREQ("1", text("queues/%u/open", id));
	EXPECT_STREQ("0x0", text("queues/%u/flags", id));
	STORE(&test_ring(&a, id)->tail, 5);
	STORE(&test_ring(&a, id)->head, 3);
	STORE(&test_ring(&a, id)->waiters_send, 1);
	EXPECT_STREQ("5", text("queues/%u/sent", id));
	EXPECT_STREQ("3", text("queues/%u/received", id));
	EXPECT_STREQ("2", text("queues/%u/depth", id));
	EXPECT_STREQ("0", text("queues/%u/waiting_recv", id));
	EXPECT_STREQ("1", text("queues/%u/waiting_send", id));
	STORE(&test_ring(&a, id)->tail, 0x7fffffffULL);
	EXPECT_STREQ("8", text("queues/%u/depth", id));
	STORE(&test_ring(&a, id)->head, ~0ULL);
	EXPECT_GE(8, atoi(text("queues/%u/depth", id)));
	EXPECT_STREQ("No such file or directory", text("queues/%u/readers", id));

	EXPECT_EQ(0, number("wakes"));
	ASSERT_EQ(0, raw_bell(a.fd, id, SHMK_SIDE_RECV));
	EXPECT_STREQ("1", text("queues/%u/wakes", id));
	EXPECT_EQ(1, number("wakes"));
	ASSERT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_STREQ("0", text("queues/%u/open", id));
	ASSERT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id, gen));
	EXPECT_TRUE(goes("queues", id));
	/* The pool's counter keeps what a queue that is gone has had. */
	EXPECT_LE(1, number("wakes"));
	ASSERT_EQ(0, raw_queue_create(a.fd, "second", 4, &id, &gen));
	EXPECT_STREQ("second", text("queues/%u/name", id));
	EXPECT_STREQ("0", text("queues/%u/wakes", id));
	EXPECT_LE(1, number("wakes"));
	test_close(&a);
	EXPECT_STREQ("second", text("queues/%u/name", id));
}

TEST_F(sysfs, a_topic_shows_its_readers_and_its_writer)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE, .depth = 4, .nr_readers = 3,
					.msg_bytes = 100 };
	struct shmk_topic *t;
	struct shmk_sub *sub;
	struct shmk *s;
	char me[16];

	ASSERT_EQ(0, shmk_attach("shmk:" POOL, NULL, &s));
	snprintf(me, sizeof(me), "%u", shmk_self(s));
	ASSERT_EQ(0, shmk_topic_open(s, "news", &opts, SHMK_TRY, &t));
	EXPECT_STREQ("news", text("queues/0/name"));
	EXPECT_STREQ("topic", text("queues/0/kind"));
	EXPECT_STREQ("3", text("queues/0/readers_max"));
	EXPECT_STREQ("0", text("queues/0/readers"));
	EXPECT_STREQ("4", text("queues/0/history"));
	EXPECT_STREQ("100", text("queues/0/msg_bytes"));
	EXPECT_STREQ("0", text("queues/0/writer"));
	EXPECT_STREQ("0", text("queues/0/candidates"));
	EXPECT_STREQ("No such file or directory", text("queues/0/depth"));
	ASSERT_EQ(0, shmk_topic_subscribe(t, NULL, &sub));
	EXPECT_STREQ("1", text("queues/0/readers"));
	ASSERT_EQ(0, shmk_topic_writer(t, SHMK_TRY));
	EXPECT_STREQ(me, text("queues/0/writer"));
	ASSERT_EQ(0, shmk_topic_publish_copy(t, "x", 1, SHMK_TRY));
	EXPECT_STREQ("1", text("queues/0/sent"));
	shmk_detach(s);
}

/* ---- all together ---- */

TEST_F(sysfs, what_is_free_is_told)
{
	long long size = number("size");
	struct test_att a;

	EXPECT_EQ(size, number("largest_free"));
	ASSERT_EQ(0, test_attach(self->pool, 0, 16, &a));
	/* A quarter from the end */
	STORE(&test_span(&a, 12)->word, SHMK_SPAN_WORD(1, a.peer, 0, 0, SHMK_SPAN_CUT));
	EXPECT_EQ(size / 4 * 3, number("largest_free"));
	STORE(&test_span(&a, 12)->word, ~0ULL);
	EXPECT_EQ(size / 4 * 3, number("largest_free"));
	STORE(&test_span(&a, 12)->word, 0);
	test_close(&a);
}

struct file_seen {
	uid_t uid;
	gid_t gid;
	mode_t mode;
};

static struct file_seen seen(const char *file)
{
	char path[160];
	struct stat st = { .st_uid = 0 };

	snprintf(path, sizeof(path), DIR_OF("owned") "%s", file);
	stat(path, &st);
	return (struct file_seen){ st.st_uid, st.st_gid, st.st_mode & 07777 };
}

static int reads(int sock __attribute__((unused)), void *arg)
{
	const struct test_who *who = arg;
	bool inside, name;
	int fd;

	test_become(who);
	fd = open(DIR_OF("owned") "peers/1/pid", O_RDONLY);
	inside = fd >= 0;
	fd = open(DIR_OF("owned") "queues/0/name", O_RDONLY);
	name = fd >= 0;
	CHILD_CHECK(!access(DIR_OF("owned") "deaths", R_OK));
	return inside | name << 1;
}

TEST_F(sysfs, who_may_read_the_pool_may_read_what_is_in_it_and_nobody_else)
{
	static const struct {
		uint32_t mode;
		int by_owner, by_group, by_stranger;
	} modes[] = {
		{ 0640, 3, 3, 0 }, { 0600, 3, 0, 0 }, { 0044, 0, 3, 3 }, { 0200, 0, 0, 0 },
	};
	struct test_who owner = { "owner", OWNER, OWNER, STRANGER, 0, 0 };
	struct test_who group = { "group", STRANGER, STRANGER, STRANGER, GROUP, 0 };
	struct test_who stranger = { "stranger", STRANGER, STRANGER, STRANGER, 0, 0 };
	unsigned int i;

	for (i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		struct shmk_pool_create args = raw_pool_args("owned", 1 << 20, 12);
		uint32_t want = modes[i].mode & 0444, id, gen;
		struct file_seen f;
		int pool, att;

		args.mode = modes[i].mode;
		args.uid = OWNER;
		args.gid = GROUP;
		pool = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
		ASSERT_LE(0, pool);
		att = raw_attach(pool, 0, 16, NULL);
		ASSERT_LE(0, att);
		ASSERT_EQ(0, raw_queue_create(att, "q", 4, &id, &gen));
		f = seen("peers/1/pid");
		EXPECT_EQ(want ?: 0400, f.mode) TH_LOG("pool of mode 0%o", modes[i].mode);
		EXPECT_EQ(want ? OWNER : 0, f.uid);
		EXPECT_EQ(want ? GROUP : 0, f.gid);
		f = seen("queues/0/depth");
		EXPECT_EQ(want ?: 0400, f.mode);
		f = seen("deaths");
		EXPECT_EQ(0444, f.mode);
		EXPECT_EQ(0, f.uid);
		EXPECT_EQ(modes[i].by_owner, test_child_run(reads, &owner));
		EXPECT_EQ(modes[i].by_group, test_child_run(reads, &group));
		EXPECT_EQ(modes[i].by_stranger, test_child_run(reads, &stranger));
		close(att);
		close(pool);
		ASSERT_GT(20, test_sysfs_pools());
	}
}

TEST_F(sysfs, a_reset_pool_shows_the_new_one_and_a_nameless_one_nothing)
{
	struct test_att a, b;
	uint32_t id, gen;
	int pool;

	ASSERT_EQ(0, test_attach(self->pool, 0, 16, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "q", 4, &id, &gen));
	ASSERT_TRUE(there("peers", a.peer));
	ASSERT_EQ(-EBUSY, raw_pool_reset(self->device, POOL, 0));
	ASSERT_TRUE(there("peers", a.peer));
	ASSERT_EQ(0, raw_pool_reset(self->device, POOL, SHMK_RESET_F_FORCE));
	EXPECT_FALSE(there("peers", a.peer));
	EXPECT_FALSE(there("queues", id));
	EXPECT_EQ(0, number("peers_now"));
	pool = raw_pool_open(self->device, POOL, 0);
	ASSERT_LE(0, pool);
	ASSERT_EQ(0, test_attach(pool, 0, 16, &b));
	EXPECT_TRUE(there("peers", b.peer));
	/* The end of the old ones does not touch the new ones of the same ids. */
	ASSERT_EQ(a.peer, b.peer);
	test_close(&a);
	EXPECT_TRUE(there("peers", b.peer));
	test_close(&b);
	ASSERT_TRUE(goes("peers", b.peer));

	/* The file still attaches. */
	ASSERT_EQ(0, raw_pool_destroy(self->device, POOL));
	EXPECT_STREQ("No such file or directory", text("size"));
	ASSERT_EQ(0, test_attach(pool, 0, 16, &b));
	ASSERT_EQ(0, raw_queue_create(b.fd, "q", 4, &id, &gen));
	EXPECT_STREQ("No such file or directory", text("size"));
	test_close(&b);
	close(pool);
}

static uint64_t create_one(struct __test_metadata *_metadata, int att, int i)
{
	uint64_t began = test_now_ns();
	uint32_t id, gen;
	char name[16];

	snprintf(name, sizeof(name), "q%d", i);
	ASSERT_EQ(0, raw_queue_create(att, name, 2, &id, &gen));
	return test_now_ns() - began;
}

/* The fastest of twenty: what else the machine does is not our business. */
static uint64_t create_some(struct __test_metadata *_metadata, int att, int first)
{
	uint64_t least = UINT64_MAX, took;
	int i;

	for (i = first; i < first + 20; i++) {
		took = create_one(_metadata, att, i);
		least = took < least ? took : least;
	}
	return least;
}

TEST_F_TIMEOUT(sysfs, many_queues_cost_no_more_each, 120)
{
	uint64_t early, late;
	struct test_att a;
	int i;

	ASSERT_EQ(0, test_attach(self->pool, 0, 16, &a));
	create_some(_metadata, a.fd, 0);
	early = create_some(_metadata, a.fd, 20);
	for (i = 40; i < MANY; i++)
		create_one(_metadata, a.fd, i);
	late = create_some(_metadata, a.fd, MANY);
	TH_LOG("%llu ns, with %d others %llu ns", (unsigned long long)early, MANY,
	       (unsigned long long)late);
	EXPECT_GT(8 * early, late);
	EXPECT_TRUE(there("queues", MANY + 19));
	test_close(&a);
}

struct reader {
	bool stop;
	uint64_t reads;
};

static void *read_all(void *arg)
{
	static const char *const files[] = { "peers/1/pid", "peers/1/blocks", "peers/2/state",
					     "queues/0/depth", "queues/0/name", "wakes" };
	struct reader *r = arg;
	char path[160], got[128];
	unsigned int i;
	int fd;

	for (i = 0; !LOAD(&r->stop); i++) {
		snprintf(path, sizeof(path), DIR_OF(POOL) "%s", files[i % 6]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		if (read(fd, got, sizeof(got)) > 0)
			STORE(&r->reads, r->reads + 1);
		close(fd);
	}
	return NULL;
}

static int churns(int sock __attribute__((unused)), void *arg __attribute__((unused)))
{
	int i, att, pool = raw_pool_open(raw_device(), POOL, 0);
	uint32_t id, gen;

	for (i = 0; i < 30; i++) {
		att = raw_attach(pool, 0, 16, NULL);
		CHILD_CHECK(att >= 0);
		CHILD_CHECK(!raw_queue_create(att, "churn", 2, &id, &gen));
		CHILD_CHECK(!raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, id, gen));
		CHILD_CHECK(!raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, id, gen));
		if (i % 2)
			close(att);
	}
	kill(getpid(), SIGKILL);
	return 0;
}

TEST_F_TIMEOUT(sysfs, readers_meet_who_comes_and_goes, 90)
{
	struct reader r = { .stop = false };
	uint32_t id = 0, peer;
	pthread_t thread;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, read_all, &r));
	for (i = 0; i < 4; i++)
		EXPECT_EQ(-1000 - SIGKILL, test_child_run(churns, NULL));
	for (peer = 1; peer < 20; peer++)
		EXPECT_TRUE(goes("peers", peer));
	EXPECT_TRUE(goes("queues", id));
	STORE(&r.stop, true);
	pthread_join(thread, NULL);
	EXPECT_LT(0, r.reads);
}

/* ---- uevents ---- */

static int uevents_open(void)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = 1 };
	int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);

	if (fd >= 0 && bind(fd, (struct sockaddr *)&addr, sizeof(addr))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

/* The next of ours, its variables each with a newline before and behind it. */
static bool uevent(int fd, char *got, size_t room)
{
	ssize_t n, i;

	do {
		if (test_poll(fd, POLLIN, PATIENCE_MS) < 0)
			return false;
		n = recv(fd, got + 1, room - 2, 0);
		if (n <= 0)
			return false;
		got[0] = '\n';
		got[n + 1] = '\0';
		for (i = 1; i < n; i++)
			if (!got[i])
				got[i] = '\n';
		got[n] = '\n';
	} while (!strstr(got, "\nSUBSYSTEM=shmk\n"));
	return true;
}

/* @vars: one to a line. */
static bool has(const char *got, const char *vars)
{
	char want[64];
	const char *end;

	for (; *vars; vars = end + 1) {
		end = strchr(vars, '\n');
		snprintf(want, sizeof(want), "\n%.*s\n", (int)(end - vars), vars);
		if (!strstr(got, want)) {
			fprintf(stderr, "# no %.*s in%s", (int)(end - vars), vars, got);
			return false;
		}
	}
	return true;
}

TEST_F(sysfs, what_udev_wants_to_know_is_told)
{
	int fd = uevents_open(), how = SHMK_REASON_KILLED, other;
	char got[2048], ids[64];
	struct shmk_pool_info info;

	ASSERT_LE(0, fd);
	other = raw_pool_create(self->device, "sysfs-other", 1 << 20, 12);
	ASSERT_LE(0, other);
	ASSERT_EQ(0, raw_pool_info(other, &info));
	snprintf(ids, sizeof(ids), "POOL_ID=%llu\nPOOL=sysfs-other\n",
		 (unsigned long long)info.id);
	do {
		ASSERT_TRUE(uevent(fd, got, sizeof(got)));
	} while (!strstr(got, "POOL=sysfs-other"));
	EXPECT_TRUE(has(got, "ACTION=change\nSHMK_EVENT=created\nDEVPATH=/kernel/shmk/pools\n"));
	EXPECT_TRUE(has(got, ids));
	EXPECT_EQ(NULL, strstr(got, "PEER="));

	EXPECT_EQ(-1000 - SIGKILL, test_child_run(ends, &how));
	ASSERT_TRUE(uevent(fd, got, sizeof(got)));
	EXPECT_TRUE(has(got, "SHMK_EVENT=died\nPOOL=" POOL "\nPEER=1\nGENERATION=1\n"
			     "REASON=killed\nCODE=9\n"));
	/* Just as little as sysfs tells to everybody. */
	EXPECT_EQ(NULL, strstr(got, "PID="));
	EXPECT_EQ(NULL, strstr(got, "UID="));
	/* An orderly end is none of udev's business. */
	how = SHMK_REASON_DETACHED;
	EXPECT_EQ(0, test_child_run(ends, &how));
	close(other);
	ASSERT_TRUE(uevent(fd, got, sizeof(got)));
	EXPECT_TRUE(has(got, "SHMK_EVENT=destroyed\n"));
	EXPECT_TRUE(has(got, ids));
	ASSERT_EQ(0, raw_pool_reset(self->device, POOL, 0));
	ASSERT_TRUE(uevent(fd, got, sizeof(got)));
	EXPECT_TRUE(has(got, "SHMK_EVENT=created\nPOOL=" POOL "\n"));
	ASSERT_TRUE(uevent(fd, got, sizeof(got)));
	EXPECT_TRUE(has(got, "SHMK_EVENT=reset\nPOOL=" POOL "\n"));
	close(fd);
}

TEST_HARNESS_MAIN
