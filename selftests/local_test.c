// SPDX-License-Identifier: GPL-2.0-only
/*
 * local_test.c - what only the local backend has: files, locks, a journal, and
 * peers that settle each other and may be killed while they do.
 *
 * The kill tests run a child under ptrace and kill it before its n-th system
 * call, for all n, or a random number of instructions after one (the seed is told;
 * SHMK_TEST_SEED repeats it, SHMK_TEST_KILLS says how many). An emulated guest
 * is slow: SHMK_TEST_EVERY=7 kills at every seventh call only.
 */
#include <sched.h>
#include <sys/inotify.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/user.h>
#include <time.h>

#include "lib_test.h"
#include "local.h"
#include "wait.h"
#include "kselftest_harness.h"

#define HELD	5

FIXTURE(local)
{
	char			uri[128];
	const char		*name;
	struct shmk_pool_opts	opts;
	struct shmk_attach_opts	create;
	int			names;
};

FIXTURE_SETUP(local)
{
	unsetenv("SHMK_TEST_BACKEND");
	test_uri(self->uri, "local");
	self->name = strchr(self->uri, ':') + 1;
	/* Small tables: scanning them is most of what a peer executes here. */
	self->opts = (struct shmk_pool_opts) {
		.bytes = MIB, .nr_peers = 8, .nr_queues = 8, .rings_bytes = 16 << 10,
	};
	self->create = (struct shmk_attach_opts) { .create = &self->opts, .nr_entries = 64 };
	self->names = dir_entries(test_dir);
}

FIXTURE_TEARDOWN(local)
{
	EXPECT_EQ(0, pool_mappings());
	EXPECT_EQ(self->names, dir_entries(test_dir));
}

static char *pool_path(char *buf, const char *name, const char *file)
{
	sprintf(buf, "%s/shmk-%s/%s", test_dir, name, file);
	return buf;
}

/* ---------------------------------------------------------------- ruins -- */

TEST_F(local, a_pool_whose_peers_all_died_is_gone)
{
	struct shmk_pool_stat stat;
	struct shmk *s;
	pid_t pid;

	for (int with_create = 0; with_create < 2; with_create++) {
		pid = fork();
		if (!pid) {
			if (shmk_attach(self->uri, &self->create, &s))
				_exit(1);
			raise(SIGKILL);
		}
		waitpid(pid, NULL, 0);
		EXPECT_EQ(self->names + 1, dir_entries(test_dir));
		if (!with_create) {
			EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
			EXPECT_EQ(self->names, dir_entries(test_dir));
			continue;
		}
		ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
		ASSERT_EQ(0, shmk_pool_stat(s, &stat));
		EXPECT_EQ(1, stat.attaches);	/* a fresh one */
		EXPECT_EQ(0, stat.deaths);
		shmk_detach(s);
	}
}

TEST_F(local, a_persistent_pool_is_settled_by_the_next_peer)
{
	struct shmk_pool_stat stat;
	struct shmk_msg msg = { 0 };
	struct shmk *s;
	pid_t pid;

	self->opts.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(self->uri, &self->opts));
	pid = fork();
	if (!pid) {
		if (shmk_attach(self->uri, NULL, &s) || shmk_alloc(s, 5000, 0, &msg))
			_exit(1);
		raise(SIGKILL);
	}
	waitpid(pid, NULL, 0);
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &s));
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(1, stat.deaths);
	EXPECT_EQ(1, stat.reclaimed_blocks);
	EXPECT_EQ(0, stat.blocks_used);
	shmk_detach(s);
	EXPECT_EQ(0, shmk_pool_cleanup("local:"));
	EXPECT_EQ(0, shmk_pool_destroy(self->uri));
}

TEST_F(local, cleanup_removes_what_no_living_process_holds)
{
	struct shmk *s, *t;
	char other[160];
	pid_t pid;

	sprintf(other, "%s.other", self->uri);
	ASSERT_EQ(0, shmk_attach(other, &self->create, &t));
	pid = fork();
	if (!pid) {
		if (shmk_attach(self->uri, &self->create, &s) ||
		    shmk_attach("local:", &self->create, &s))
			_exit(1);
		raise(SIGKILL);
	}
	waitpid(pid, NULL, 0);
	EXPECT_EQ(2, shmk_pool_cleanup("local:"));
	EXPECT_EQ(0, shmk_pool_cleanup("local:"));
	EXPECT_EQ(-ENOENT, shmk_pool_cleanup(self->uri));
	EXPECT_EQ(-EBUSY, shmk_pool_cleanup(other));
	shmk_detach(t);
}

TEST_F(local, ruins_are_cleared_by_who_comes_next)
{
	static const char *const files[] = { "meta", "pool", "events", "lock" };
	char path[256];
	struct shmk *s;

	self->opts.flags = SHMK_POOL_PERSIST;
	for (int missing = 1; missing <= 4; missing++) {
		ASSERT_EQ(0, shmk_pool_create(self->uri, &self->opts));
		for (int i = 0; i < missing; i++)
			ASSERT_EQ(0, unlink(pool_path(path, self->name, files[i])));
		EXPECT_EQ(0, shmk_pool_list("local", NULL, NULL) == -EINVAL ? 0 : 1);
		EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
		EXPECT_EQ(self->names, dir_entries(test_dir));
		EXPECT_EQ(0, shmk_pool_create(self->uri, &self->opts));
		EXPECT_EQ(0, shmk_pool_destroy(self->uri));
	}
}

TEST_F(local, a_directory_of_somebody_else_is_left_alone)
{
	char path[256];
	struct shmk *s;

	mkdir(pool_path(path, self->name, ""), 0700);
	close(open(pool_path(path, self->name, "precious"), O_CREAT | O_WRONLY, 0600));
	EXPECT_EQ(-EPROTO, shmk_attach(self->uri, NULL, &s));
	EXPECT_EQ(-EPROTO, shmk_attach(self->uri, &self->create, &s));
	EXPECT_EQ(0, access(path, F_OK));
	unlink(path);
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
}

/* -------------------------------------------------------------- details -- */

TEST_F(local, files_have_the_pools_mode)
{
	static const struct { const char *file; mode_t mode; } expected[] = {
		{ "", 0770 }, { "pool", 0640 }, { "meta", 0660 },
		{ "lock", 0660 }, { "events", 0660 },
	};
	char path[256];
	struct shmk *s;
	struct stat st;
	size_t i;

	umask(0177);
	self->opts.mode = 0640;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		ASSERT_EQ(0, stat(pool_path(path, self->name, expected[i].file), &st));
		EXPECT_EQ(expected[i].mode, st.st_mode & 07777)
			TH_LOG("%s", path);
	}
	shmk_detach(s);
}

TEST_F(local, a_reader_may_look_and_others_may_not)
{
	struct shmk_attach_opts rdonly = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk *s, *r;
	int status;
	pid_t pid;

	if (geteuid())
		SKIP(return, "needs another user");
	chmod(test_dir, 01777);
	self->opts.mode = 0644;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	pid = fork();
	if (!pid) {
		if (setgid(65534) || setuid(65534))
			_exit(1);
		if (shmk_attach(self->uri, NULL, &r) != -EACCES)
			_exit(2);
		if (shmk_attach(self->uri, &rdonly, &r))
			_exit(3);
		if (shmk_pool_destroy(self->uri) != -EPERM)
			_exit(4);
		shmk_detach(r);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	EXPECT_EQ(0, status);
	shmk_detach(s);

	self->opts.mode = 0600;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	pid = fork();
	if (!pid) {
		if (setgid(65534) || setuid(65534))
			_exit(1);
		if (shmk_attach(self->uri, &rdonly, &r) != -EACCES)
			_exit(2);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	EXPECT_EQ(0, status);
	shmk_detach(s);
}

TEST_F(local, huge_pages_and_nodes_are_the_modules)
{
	self->opts.page_bytes = 2 << 20;
	EXPECT_EQ(-EOPNOTSUPP, shmk_pool_create(self->uri, &self->opts));
	self->opts.page_bytes = 0;
	self->opts.set_node = true;
	EXPECT_EQ(-EOPNOTSUPP, shmk_pool_create(self->uri, &self->opts));
}

TEST_F(local, ledger_memory_is_given_back_and_zero_again)
{
	struct shmk_pool_stat before, with, after;
	struct shmk_attach_opts opts = { .nr_entries = 65536 };
	struct shmk *s, *t;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_pool_stat(s, &before));
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &t));
	ASSERT_EQ(0, shmk_pool_stat(s, &with));
	EXPECT_LE(before.memory_bytes + MIB, with.memory_bytes);
	t->ledger->entry[65535].where = 0x5a5a;
	shmk_detach(t);
	ASSERT_EQ(0, shmk_pool_stat(s, &after));
	EXPECT_EQ(before.memory_bytes, after.memory_bytes);
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &t));
	EXPECT_EQ(0, t->ledger->entry[65535].where);
	shmk_detach(t);
	shmk_detach(s);
}

TEST_F(local, rings_are_placed_where_there_is_room)
{
	struct shmk_queue_create arg = { .size = sizeof(arg), .capacity = 64, .slot_bytes = 64 };
	uint64_t ring[3];
	struct shmk *s;
	__u32 id[3], gen[3];
	int i;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));	/* 16 KiB: 3 fit */
	for (i = 0; i < 4; i++) {
		sprintf(arg.name, "q%d", i);
		ASSERT_EQ(i < 3 ? 0 : -ENOSPC, s->backend->queue_create(s, &arg));
		if (i == 3)
			break;
		id[i] = arg.id;
		gen[i] = arg.gen;
		ring[i] = ((struct shmk_queue_status *)((char *)s->status +
							s->status->queues_off))[arg.id].ring;
	}
	EXPECT_EQ(-EEXIST, s->backend->queue_create(s, (strcpy(arg.name, "q0"), &arg)));
	EXPECT_EQ(-EBUSY, s->backend->queue_remove(s, id[1], gen[1]));
	EXPECT_EQ(0, s->backend->queue_close(s, id[1], gen[1]));
	EXPECT_EQ(-ENOENT, s->backend->queue_close(s, id[1], gen[1]));
	EXPECT_EQ(0, s->backend->queue_remove(s, id[1], gen[1]));
	EXPECT_EQ(-ENOENT, s->backend->queue_remove(s, id[1], gen[1]));
	memset(s->control + ring[1], 0xff, sizeof(struct shmk_ring) + 64 * 64);
	strcpy(arg.name, "again");
	EXPECT_EQ(0, s->backend->queue_create(s, &arg));
	EXPECT_EQ(id[1], arg.id);
	EXPECT_EQ(gen[1] + 1, arg.gen);
	for (i = 0; i < (int)(sizeof(struct shmk_ring) + 64 * 64); i++)
		if (s->control[ring[1] + i])
			break;
	EXPECT_EQ(sizeof(struct shmk_ring) + 64 * 64, (size_t)i);
	shmk_detach(s);
}

TEST_F(local, wrong_queue_arguments_are_refused)
{
	const struct shmk_queue_create bad[] = {
		{ .name = "q", .capacity = 0 },
		{ .name = "q", .capacity = 3 },
		{ .name = "q", .capacity = SHMK_CAPACITY_MAX * 2 },
		{ .name = "q", .capacity = 1, .slot_bytes = 32 },
		{ .name = "q", .capacity = 1, .slot_bytes = 512 },
		{ .name = "q", .capacity = 1, .flags = 0x80 },
		{ .name = "", .capacity = 1 },
		{ .name = "a b", .capacity = 1 },
	};
	struct shmk_queue_create arg;
	struct shmk *s;
	size_t i;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		arg = bad[i];
		EXPECT_EQ(-EINVAL, s->backend->queue_create(s, &arg))
			TH_LOG("of arguments %zu", i);
	}
	memset(arg.name, 'a', sizeof(arg.name));
	EXPECT_EQ(-EINVAL, s->backend->queue_create(s, &arg));
	shmk_detach(s);
}

/* ---------------------------------------------------------------- bells -- */

static bool readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) == 1 && p.revents == POLLIN;
}

TEST_F(local, a_bell_makes_a_side_readable_until_it_is_drained)
{
	struct shmk_queue_create arg = {
		.size = sizeof(arg), .name = "q", .capacity = 4, .slot_bytes = 64,
	};
	struct shmk_bell_one bell[2] = { { .side = SHMK_SIDE_RECV }, { .side = SHMK_SIDE_SEND } };
	struct shmk *s, *t;
	short events;
	int r, w, i;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	ASSERT_EQ(0, s->backend->queue_create(s, &arg));
	EXPECT_EQ(-ENOENT, t->backend->side_fd(t, arg.id, SHMK_SIDE_RECV, ROW_NONE, &events));
	EXPECT_EQ(-EINVAL, s->backend->side_fd(s, 8, SHMK_SIDE_RECV, ROW_NONE, &events));
	EXPECT_EQ(-EINVAL, s->backend->side_fd(s, arg.id, 2, ROW_NONE, &events));
	EXPECT_EQ(0, t->backend->bell(t, bell, 2));	/* nobody ever slept */
	r = s->backend->side_fd(s, arg.id, SHMK_SIDE_RECV, ROW_NONE, &events);
	ASSERT_LE(0, r);
	EXPECT_EQ(POLLIN, events);
	w = s->backend->side_fd(s, arg.id, SHMK_SIDE_SEND, ROW_NONE, &events);
	ASSERT_LE(0, w);
	EXPECT_FALSE(readable(r));
	ASSERT_EQ(0, t->backend->bell(t, bell, 1));
	EXPECT_TRUE(readable(r));
	EXPECT_FALSE(readable(w));
	s->backend->side_drain(s, r);
	EXPECT_FALSE(readable(r));
	/* Nobody drains: it may not block, fail or kill. */
	for (i = 0; i < 100000; i++)
		ASSERT_EQ(0, t->backend->bell(t, bell, 2));
	EXPECT_TRUE(readable(r));
	EXPECT_TRUE(readable(w));
	s->backend->side_drain(s, r);
	EXPECT_FALSE(readable(r));
	close(r);
	close(w);
	EXPECT_EQ(0, t->backend->bell(t, bell, 2));	/* nobody sleeps any more */
	bell[0].id = 7;
	EXPECT_EQ(-ENOENT, t->backend->bell(t, bell, 1));
	bell[0].id = 8;
	EXPECT_EQ(-EINVAL, t->backend->bell(t, bell, 1));
	shmk_detach(t);
	shmk_detach(s);
}

TEST_F(local, a_bell_reaches_the_queue_that_has_the_id_now)
{
	struct shmk_queue_create arg = {
		.size = sizeof(arg), .name = "q", .capacity = 4, .slot_bytes = 64,
	};
	struct shmk_bell_one bell = { .side = SHMK_SIDE_RECV };
	struct shmk *s, *t;
	short events;
	int r;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, s->backend->queue_create(s, &arg));
		ASSERT_EQ(0, arg.id);
		r = s->backend->side_fd(s, 0, SHMK_SIDE_RECV, ROW_NONE, &events);
		ASSERT_LE(0, r);
		ASSERT_EQ(0, t->backend->bell(t, &bell, 1));
		EXPECT_TRUE(readable(r));
		close(r);
		ASSERT_EQ(0, s->backend->queue_close(s, 0, arg.gen));
		ASSERT_EQ(0, s->backend->queue_remove(s, 0, arg.gen));
	}
	shmk_detach(t);
	shmk_detach(s);
}

/* As it is for who was about to sleep for the first time while somebody reset the pool. */
TEST_F(local, who_goes_to_sleep_as_the_pool_is_reset_is_told_so)
{
	struct shmk_queue_opts make = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_queue *q;
	struct shmk *s;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &make, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	EXPECT_EQ(-ESHUTDOWN, shmk_queue_fd(q, SHMK_RECV));
	EXPECT_EQ(-ESHUTDOWN, shmk_queue_fd(q, SHMK_SEND));
	shmk_detach(s);
	shmk_pool_destroy(self->uri);
}

TEST_F(local, a_bell_rings_even_when_no_file_may_be_opened)
{
	struct shmk_queue_create arg = {
		.size = sizeof(arg), .capacity = 1, .slot_bytes = 64,
	};
	struct shmk_bell_one bell[8];
	struct rlimit limit, few;
	struct shmk *s, *t;
	short events;
	int fd[8], i, last;

	self->opts.rings_bytes = 0;
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	for (i = 0; i < 8; i++) {
		sprintf(arg.name, "q%d", i);
		ASSERT_EQ(0, s->backend->queue_create(s, &arg));
		fd[i] = s->backend->side_fd(s, arg.id, SHMK_SIDE_RECV, ROW_NONE, &events);
		ASSERT_LE(0, fd[i]);
		bell[i] = (struct shmk_bell_one) { .id = arg.id, .side = SHMK_SIDE_RECV };
	}
	ASSERT_EQ(0, t->backend->bell(t, bell, 1));
	last = dup(0);
	close(last);
	few = (struct rlimit) { .rlim_cur = last, .rlim_max = limit.rlim_max };
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	EXPECT_EQ(0, t->backend->bell(t, bell, 8));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; i < 8; i++) {
		EXPECT_TRUE(readable(fd[i]));
		close(fd[i]);
	}
	shmk_detach(t);
	shmk_detach(s);
}

/* In a user namespace that may have none: the machine's are not ours to use up. */
TEST_F(local, events_are_told_without_inotify)
{
	int limit, fd, ret;
	struct shmk_event e;
	struct pollfd p;
	struct shmk *s, *t;

	if (unshare(CLONE_NEWUSER))
		SKIP(return, "no user namespaces");
	limit = open("/proc/sys/user/max_inotify_instances", O_WRONLY);
	if (limit < 0 || write(limit, "0", 1) != 1)
		SKIP(return, "no limit on inotify instances");
	close(limit);
	EXPECT_EQ(-1, inotify_init1(0));
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	fd = shmk_event_fd(s);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-EAGAIN, shmk_event_next(s, &e));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	p = (struct pollfd) { .fd = fd, .events = POLLIN };
	EXPECT_EQ(1, poll(&p, 1, WATCHDOG_MS));
	ASSERT_EQ(0, shmk_event_next(s, &e));
	EXPECT_EQ(SHMK_EV_ATTACHED, e.type);
	ret = shmk_event_next(s, &e);
	EXPECT_EQ(-EAGAIN, ret);
	EXPECT_EQ(0, poll(&p, 1, 0));
	EXPECT_EQ(0, shmk_wait_peers(s, 2, watchdog()));
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(s, 3, now_ns() + 1000000));
	shmk_detach(t);
	shmk_detach(s);
}

/* ---------------------------------------------------------------- opens -- */

struct twice {
	const char	*uri;
	unsigned int	opens;
};

static void opens_a_queue(struct child_end *end, void *arg)
{
	const struct twice *t = arg;
	struct shmk_queue *q;
	struct shmk *s;

	if (shmk_attach(t->uri, NULL, &s))
		_exit(1);
	for (unsigned int i = 0; i < t->opens; i++)
		if (shmk_queue_open(s, "q", NULL, SHMK_TRY, &q))
			_exit(2);
	tell(end, 1);
	pause();
}

/* What is counted for the queue is who has it open, not how often. */
TEST_F(local, a_queue_that_is_opened_twice_is_open_once)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_HANGUP, .capacity = 4,
	};
	struct twice t = { .uri = self->uri };
	struct shmk_queue_status *status;
	struct shmk_queue *q[3];
	struct shmk_msg msg;
	struct child c;
	struct shmk *s;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q[i]));
	status = (void *)((char *)s->status + s->status->queues_off);
	EXPECT_EQ(1, status->nr_open);
	EXPECT_EQ(-EPIPE, shmk_recv(q[0], &msg, shmk_deadline_ms(200)));
	for (t.opens = 1; t.opens <= 2; t.opens++) {
		child_start(&c, opens_a_queue, &t);
		ASSERT_EQ(1, child_hear(&c));
		EXPECT_EQ(2, status->nr_open);
		child_kill(&c);
		EXPECT_EQ(-EPIPE, shmk_recv(q[0], &msg, shmk_deadline_ms(3000)));
		EXPECT_EQ(1, status->nr_open);
	}
	shmk_queue_close(q[2]);
	shmk_queue_close(q[1]);
	EXPECT_EQ(1, status->nr_open);
	EXPECT_EQ(-EBUSY, shmk_queue_remove(s, "q"));
	shmk_queue_close(q[0]);
	EXPECT_EQ(0, status->nr_open);
	EXPECT_EQ(0, shmk_queue_remove(s, "q"));
	opts.flags |= SHMK_QUEUE_TRANSIENT;
	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q[i]));
	shmk_queue_close(q[0]);
	EXPECT_EQ(1, s->status->queues_now);
	shmk_queue_close(q[1]);
	EXPECT_EQ(0, s->status->queues_now);
	shmk_detach(s);
}

/* ------------------------------------------------------------- the dead -- */

static void attached(struct child_end *end, void *arg)
{
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s))
		_exit(1);
	tell(end, 1);
	pause();
}

/* Sleeps in slices until a peer's death was noticed. False: it was not, in @ms. */
static bool noticed(struct shmk *s, struct shmk_queue *q, __u64 deaths, int ms)
{
	int64_t end = shmk_deadline_ms(ms);
	struct shmk_msg msg;

	while (local_of(s)->status->deaths < deaths && now_ns() < end)
		shmk_recv(q, &msg, shmk_deadline_ms(50));
	return local_of(s)->status->deaths == deaths;
}

static void watches(struct child_end *end, void *arg)
{
	struct shmk_event e;
	struct shmk *s;
	struct pollfd p = { .events = POLLIN };

	if (shmk_attach(arg, NULL, &s))
		_exit(1);
	p.fd = shmk_event_fd(s);
	while (!shmk_event_next(s, &e))
		;
	for (tell(end, 1); poll(&p, 1, -1) > 0; )
		while (!shmk_event_next(s, &e))
			if (e.type == SHMK_EV_DIED)
				tell(end, 2);
}

/* Nobody is in a call of the library: all poll. */
TEST_F(local, a_death_makes_the_event_fd_of_all_others_readable)
{
	int fds = open_fds();
	struct child victim, other;
	struct shmk_event e = { };
	struct pollfd p;
	struct shmk *s;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	child_start(&other, watches, self->uri);
	ASSERT_EQ(1, child_hear(&other));
	for (int i = 0; i < 6; i++) {
		/* One that is there before the fd, and others that come later. */
		child_start(&victim, attached, self->uri);
		ASSERT_EQ(1, child_hear(&victim));
		p = (struct pollfd) { .fd = shmk_event_fd(s), .events = POLLIN };
		ASSERT_LE(0, p.fd);
		if (i != 5)	/* the last dies before anybody has seen it come */
			while (!shmk_event_next(s, &e))
				;
		child_kill(&victim);
		do {
			EXPECT_EQ(1, poll(&p, 1, WATCHDOG_MS));
			while (!shmk_event_next(s, &e) && e.type != SHMK_EV_DIED)
				;
		} while (e.type == SHMK_EV_ATTACHED);
		EXPECT_EQ(SHMK_EV_DIED, e.type);
		EXPECT_EQ(2, child_hear(&other));
		while (!shmk_event_next(s, &e))
			;
		EXPECT_EQ(0, poll(&p, 1, 120));		/* and it is told once */
	}
	child_kill(&other);
	shmk_detach(s);
	EXPECT_EQ(fds, open_fds());
}

/* It has the same epoll set and inotify instance, and must not take from them. */
TEST_F(local, a_forked_child_that_detaches_takes_nothing_from_the_event_fd)
{
	struct child victim;
	struct shmk_event e;
	struct pollfd p;
	struct shmk *s;
	pid_t pid;
	int status;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	child_start(&victim, attached, self->uri);
	ASSERT_EQ(1, child_hear(&victim));
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(s, 8, a_sleep()));	/* has a stream */
	p = (struct pollfd) { .fd = shmk_event_fd(s), .events = POLLIN };
	while (!shmk_event_next(s, &e))
		;
	pid = fork();
	if (!pid) {
		shmk_detach(s);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_EQ(0, poll(&p, 1, 0));
	child_kill(&victim);
	EXPECT_EQ(1, poll(&p, 1, WATCHDOG_MS));
	ASSERT_EQ(0, shmk_event_next(s, &e));
	EXPECT_EQ(SHMK_EV_DIED, e.type);
	shmk_detach(s);
}

/* A server in a loop of its own that is woken for something else now and then. */
TEST_F(local, who_polls_a_queue_fd_only_finds_the_dead_when_it_comes_by)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_HANGUP, .capacity = 4,
	};
	struct twice t = { .uri = self->uri, .opens = 1 };
	struct shmk_queue *q;
	struct child c;
	struct pollfd p;
	struct shmk *s;
	char byte;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q));
	child_start(&c, opens_a_queue, &t);
	ASSERT_EQ(1, child_hear(&c));
	p = (struct pollfd) { .fd = shmk_queue_fd(q, SHMK_RECV), .events = POLLIN };
	ASSERT_LE(0, p.fd);
	EXPECT_EQ(-EAGAIN, shmk_recv_copy(q, &byte, 1, SHMK_TRY));
	child_kill(&c);
	usleep(150000);
	local_of(s)->extra->scan_after = 0;	/* a look that took long rests for longer */
	EXPECT_EQ(-EAGAIN, shmk_recv_copy(q, &byte, 1, SHMK_TRY));
	EXPECT_EQ(1, poll(&p, 1, 0));
	EXPECT_EQ(-EPIPE, shmk_recv_copy(q, &byte, 1, SHMK_TRY));
	shmk_queue_close(q);
	shmk_detach(s);
}

/* An inotify instance is dear to close, and a look is a call for each peer. */
TEST_F(local, waits_keep_their_stream_and_look_for_the_dead_as_sleepers_do)
{
	struct rlimit all, none;
	int fds = open_fds();
	struct shmk_event e;
	int64_t rest;
	struct child c;
	struct shmk *s;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(s, 8, a_sleep()));
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &all));
	none = (struct rlimit) { .rlim_cur = 3, .rlim_max = all.rlim_max };
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	for (int i = 0; i < 3; i++)
		EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(s, 8, a_sleep()));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &all));

	child_start(&c, attached, self->uri);
	ASSERT_EQ(1, child_hear(&c));
	rest = now_ns() + NS_PER_S;
	local_of(s)->extra->scan_after = (__u64)rest;
	child_kill(&c);
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(s, 8, shmk_deadline_ms(250)));
	if (now_ns() < rest)
		EXPECT_EQ(0, local_of(s)->status->deaths);
	while (!shmk_event_next(s, &e))
		;
	EXPECT_EQ(1, local_of(s)->status->deaths);
	shmk_detach(s);
	EXPECT_EQ(fds, open_fds());
}

/* As a member left it that was stopped for long while it looked, or wrote nonsense. */
TEST_F(local, a_rest_beyond_all_measure_is_not_kept)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	const int64_t rests[] = { 32 * NS_PER_S, INT64_MAX, -NS_PER_S, 500 * 1000000LL };
	struct shmk_queue *q;
	struct child c;
	struct shmk *s;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q));
	for (int i = 0; i < 4; i++) {
		child_start(&c, attached, self->uri);
		ASSERT_EQ(1, child_hear(&c));
		child_kill(&c);
		local_of(s)->extra->scan_after = (__u64)rests[i] + (i == 1 ? 0 : (__u64)now_ns());
		EXPECT_TRUE(noticed(s, q, i + 1, 10000)) {
			TH_LOG("with a rest of %lld ns", (long long)rests[i]);
		}
	}
	shmk_queue_close(q);
	shmk_detach(s);
}

static void holds_the_lock(struct child_end *end, void *arg)
{
	struct pollfd p = { .fd = end->from, .events = POLLIN };
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s) || lock_file_lock(local_of(s)->lock))
		_exit(1);
	tell(end, 1);
	poll(&p, 1, WATCHDOG_MS);
}

/* As one that was stopped while it has it. The dead are found when it is gone. */
TEST_F(local, who_has_the_pool_lock_does_not_keep_others_past_their_deadline)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct child dead, holder;
	struct shmk_msg msg[17];	/* no more fit */
	struct shmk_queue *q;
	int64_t begin;
	struct shmk *s;
	int nr = 0, ret;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q));
	EXPECT_EQ(-ETIMEDOUT, shmk_recv(q, msg, a_sleep()));	/* makes the side */
	child_start(&dead, attached, self->uri);
	ASSERT_EQ(1, child_hear(&dead));
	child_start(&holder, holds_the_lock, self->uri);
	ASSERT_EQ(1, child_hear(&holder));
	child_kill(&dead);
	begin = now_ns();
	EXPECT_EQ(-ETIMEDOUT, shmk_recv(q, msg, shmk_deadline_ms(250)));
	EXPECT_GT(begin + 10 * NS_PER_S, now_ns());
	while (!(ret = shmk_alloc(s, 64 << 10, 0, &msg[nr])))
		nr++;
	EXPECT_EQ(-ENOMEM, ret);
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(s, 8, shmk_deadline_ms(200)));
	EXPECT_GT(begin + 10 * NS_PER_S, now_ns());
	EXPECT_EQ(0, local_of(s)->status->deaths);
	child_kill(&holder);
	EXPECT_TRUE(noticed(s, q, 2, WATCHDOG_MS));
	while (nr)
		shmk_free(&msg[--nr]);
	shmk_queue_close(q);
	shmk_detach(s);
}

static void *receives_at_once(void *q)
{
	char byte;

	return (void *)shmk_recv_copy(q, &byte, 1, a_sleep());
}

/* The first sleep on a side makes its FIFO, under the pool lock. */
TEST_F(local, a_thread_that_waits_for_the_pool_lock_keeps_no_other_from_allocating)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct child holder;
	struct shmk_queue *q;
	struct shmk_msg msg;
	pthread_t thread;
	int64_t begin;
	struct shmk *s;
	void *ret;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q));
	child_start(&holder, holds_the_lock, self->uri);
	ASSERT_EQ(1, child_hear(&holder));
	ASSERT_EQ(0, pthread_create(&thread, NULL, receives_at_once, q));
	usleep(300000);
	begin = now_ns();
	ASSERT_EQ(0, shmk_alloc(s, 5000, 0, &msg));
	EXPECT_GT(begin + 10 * NS_PER_S, now_ns());
	child_kill(&holder);
	ASSERT_EQ(0, pthread_join(thread, &ret));
	EXPECT_EQ(-ETIMEDOUT, (long)ret);
	shmk_free(&msg);
	shmk_queue_close(q);
	shmk_detach(s);
}

/* -------------------------------------------------------------- journal -- */

TEST_F(local, a_valid_journal_is_carried_out_by_the_next_one)
{
	struct shmk_event e;
	struct shmk *s, *t;
	struct local *l;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	l = local_of(s);
	/* As it is left by one that was killed right after its word, or twice in the middle. */
	for (int done = 0; done <= 2; done++) {
		__u64 deaths = l->status->deaths;

		l->extra->event[l->extra->nr_events % EVENTS_MAX] = (struct shmk_event) {
			.type = SHMK_EV_DIED, .seq = l->extra->nr_events, .peer = 7,
		};
		l->extra->store[0] = (struct local_store) {
			.offset = (char *)&l->status->deaths - (char *)l->status, .size = 8,
			.value = deaths + 1,
		};
		l->extra->store[1] = (struct local_store) {
			.offset = (char *)&l->extra->nr_events - (char *)l->status, .size = 8,
			.value = l->extra->nr_events + 1,
		};
		if (done > 0)
			l->status->deaths++;
		if (done > 1)
			l->extra->nr_events++;
		l->extra->nr_stores = 2;
		ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
		EXPECT_EQ(deaths + 1, l->status->deaths);
		EXPECT_EQ(0, l->extra->nr_stores);
		ASSERT_EQ(0, shmk_event_next(s, &e));
		EXPECT_EQ(7, e.peer);
		ASSERT_EQ(0, shmk_event_next(s, &e));
		EXPECT_EQ(SHMK_EV_ATTACHED, e.type);
		shmk_detach(t);
		ASSERT_EQ(0, shmk_event_next(s, &e));
		EXPECT_EQ(-EAGAIN, shmk_event_next(s, &e));
	}
	shmk_detach(s);
}

TEST_F(local, a_journal_that_is_not_valid_has_not_happened)
{
	struct shmk *s, *t;
	struct local *l;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	l = local_of(s);
	l->extra->store[0] = (struct local_store) {
		.offset = (char *)&l->status->deaths - (char *)l->status, .size = 8, .value = 99,
	};
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	EXPECT_EQ(0, l->status->deaths);
	shmk_detach(t);
	shmk_detach(s);
}

/* ---------------------------------------------------------------- kills -- */

/*
 * A child that stops, does its deed, and exits. With @fork_first its memory is
 * that of this process, so @arg may be anything.
 */
struct victim {
	pid_t	pid;
	bool	ended;
};

static void victim_start(struct victim *v, void (*deed)(void *arg), void *arg)
{
	v->ended = false;
	v->pid = fork();
	if (!v->pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		deed(arg);
		_exit(0);
	}
	waitpid(v->pid, NULL, 0);
	ptrace(PTRACE_SETOPTIONS, v->pid, NULL, PTRACE_O_EXITKILL);
}

/* One more system call stop, or instruction. False when it has ended by itself. */
static bool victim_step(struct victim *v, int request)
{
	int status;

	if (v->ended)
		return false;
	ptrace(request, v->pid, NULL, NULL);
	waitpid(v->pid, &status, 0);
	v->ended = WIFEXITED(status) || WIFSIGNALED(status);
	if (v->ended && status)
		abort();
	return !v->ended;
}

static void victim_kill(struct victim *v)
{
	if (v->ended)
		return;
	kill(v->pid, SIGKILL);
	while (waitpid(v->pid, NULL, 0) < 0 && errno == EINTR)
		;
	v->ended = true;
}

struct scene {
	char			*uri;
	struct shmk_attach_opts	*create;
};

static void deed_attach(void *arg)
{
	struct scene *scene = arg;
	struct shmk_attach_opts opts = { .nr_entries = 64 };
	struct shmk *s;

	if (shmk_attach(scene->uri, &opts, &s))
		_exit(1);
	shmk_detach(s);
}

static void deed_queues(void *arg)
{
	struct scene *scene = arg;
	struct shmk_attach_opts opts = { .nr_entries = 64 };
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_queue *q;
	struct shmk *s;

	if (shmk_attach(scene->uri, &opts, &s) ||
	    shmk_queue_open(s, "victims", &qopts, SHMK_TRY, &q) ||
	    shmk_send_copy(q, "0123456789012345678901234567890123456789012345678901234567890123",
			   64, SHMK_TRY) || shmk_queue_fd(q, SHMK_RECV) < 0)
		_exit(1);
	shmk_queue_close(q);
	if (shmk_queue_remove(s, "victims"))
		_exit(2);
	shmk_detach(s);
}

static void deed_create(void *arg)
{
	struct scene *scene = arg;
	struct shmk *s;

	if (shmk_attach(scene->uri, scene->create, &s))
		_exit(1);
	shmk_detach(s);
}

static void hold_and_die(void *arg)
{
	struct scene *scene = arg;
	struct shmk_attach_opts opts = { .nr_entries = 64 };
	struct shmk_msg msg[HELD];
	struct shmk_queue *q;
	struct shmk *s;

	memset(msg, 0, sizeof(msg));
	if (shmk_attach(scene->uri, &opts, &s) ||
	    shmk_queue_open(s, "observers", NULL, SHMK_TRY, &q))
		_exit(1);
	for (int i = 0; i < HELD; i++)
		if (shmk_alloc(s, 2000, 0, &msg[i]))
			_exit(2);
	raise(SIGKILL);
}

/* Attaching settles: that is the deed. */
static void dead_peer_leave(struct scene *scene)
{
	pid_t pid = fork();

	if (!pid)
		hold_and_die(scene);
	waitpid(pid, NULL, 0);
}

static uint32_t peers_not_free(const struct shmk *s)
{
	const struct shmk_peer_status *peer =
		(const void *)((const char *)s->status + s->status->peers_off);
	uint32_t nr = 0;

	for (uint32_t id = 1; id <= s->status->nr_peers; id++)
		nr += SHMK_PEER_STATE(peer[id].word) != SHMK_PEER_NONE;
	return nr;
}

/* Nothing but the observer is left, and each end was told and counted once. */
static void expect_order(struct __test_metadata *_metadata, struct shmk *s, struct shmk_queue *q,
			 uint32_t point)
{
	struct shmk_queue_stats stats;
	struct shmk_pool_stat stat;
	struct shmk_event e;
	uint32_t attached = 0, ended = 0;
	uint64_t seq = 0;
	char report[256] = "";

	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(1, stat.peers_now);
	EXPECT_EQ(1, s->status->peers_now);
	EXPECT_EQ(1, peers_not_free(s));
	EXPECT_EQ(stat.attaches, stat.detaches + stat.deaths + 1);
	ASSERT_EQ(0, shmk_queue_stats(q, &stats));
	EXPECT_EQ(1, stats.nr_open);
	/* A queue stays when its maker dies, with its message or without. */
	if (stat.queues_now == 2)
		EXPECT_EQ(0, shmk_queue_remove(s, "victims"));
	EXPECT_EQ(-ENOENT, shmk_queue_remove(s, "victims"));
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(1, stat.queues_now);
	EXPECT_EQ(0, stat.blocks_used);
	while (!shmk_event_next(s, &e)) {
		if (seq)
			EXPECT_EQ(seq + 1, e.seq);
		seq = e.seq;
		attached += e.type == SHMK_EV_ATTACHED;
		ended += e.type == SHMK_EV_DETACHED || e.type == SHMK_EV_DIED;
	}
	EXPECT_EQ(attached, ended);
	EXPECT_EQ(0, shmk_pool_check(s, report, sizeof(report)))
		TH_LOG("%s", report);
	if (_metadata->exit_code != KSFT_PASS)
		TH_LOG("killed at point %u", point);
}

#define MAX_POINTS	2000

static uint32_t every(void)
{
	const char *n = getenv("SHMK_TEST_EVERY");

	return n ? atoi(n) : 1;
}

/* Kills before system call 1, 2, ... of a deed, and after each looks at what is left. */
static uint32_t kill_at_calls(struct __test_metadata *_metadata, struct scene *scene,
			      void (*deed)(void *arg), bool with_dead)
{
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_event e;
	struct shmk_queue *q;
	struct shmk *s;
	bool more = true;
	uint32_t n;

	for (n = 1; more && n < MAX_POINTS && _metadata->exit_code == KSFT_PASS; n += every()) {
		struct victim v;

		ASSERT_EQ(0, shmk_attach(scene->uri, scene->create, &s)) {
			return n;
		}
		ASSERT_EQ(0, shmk_queue_open(s, "observers", &qopts, SHMK_TRY, &q)) {
			return n;
		}
		while (!shmk_event_next(s, &e))
			;
		if (with_dead)
			dead_peer_leave(scene);
		victim_start(&v, deed, scene);
		for (uint32_t i = 0; more && i < n; i++)
			more = victim_step(&v, PTRACE_SYSCALL);
		victim_kill(&v);
		(void)e;
		expect_order(_metadata, s, q, n);
		shmk_detach(s);
	}
	return n;
}

static uint64_t random_state;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static int random_begin(void)
{
	const char *seed = getenv("SHMK_TEST_SEED"), *kills = getenv("SHMK_TEST_KILLS");

	random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)now_ns() | 1;
	printf("# SHMK_TEST_SEED=%llu\n", (unsigned long long)random_state);
	return kills ? atoi(kills) : 200;
}

/* One whole run: how often does a deed stop at system calls? */
static uint32_t deed_stops(struct scene *scene, void (*deed)(void *arg))
{
	struct victim v;
	uint32_t n = 0;

	victim_start(&v, deed, scene);
	while (victim_step(&v, PTRACE_SYSCALL))
		n++;
	return n;
}

/* Most of what matters is not far from a system call: the lock is one. */
#define STEPS	600

static void kill_at_random(struct __test_metadata *_metadata, struct scene *scene,
			   void (*deed)(void *arg), bool with_dead)
{
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	int kills = random_begin();
	struct shmk_queue *q;
	struct shmk_event e;
	uint32_t stops;
	struct shmk *s;

	ASSERT_EQ(0, shmk_attach(scene->uri, scene->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "observers", &qopts, SHMK_TRY, &q));
	while (!shmk_event_next(s, &e))
		;
	if (with_dead)
		dead_peer_leave(scene);
	stops = deed_stops(scene, deed);
	for (int i = 0; i < kills && _metadata->exit_code == KSFT_PASS; i++) {
		uint32_t stop = random_next() % stops, steps = random_next() % STEPS;
		struct victim v;

		if (with_dead)
			dead_peer_leave(scene);
		victim_start(&v, deed, scene);
		for (uint32_t at = 0; at < stop; at++)
			victim_step(&v, PTRACE_SYSCALL);
		for (uint32_t at = 0; at < steps; at++)
			victim_step(&v, PTRACE_SINGLESTEP);
		victim_kill(&v);
		expect_order(_metadata, s, q, stop * STEPS + steps);
	}
	shmk_detach(s);
}

TEST_F_TIMEOUT(local, a_kill_before_any_call_of_attach_and_detach_leaves_order, 120)
{
	struct scene scene = { self->uri, &self->create };

	EXPECT_LT(30, kill_at_calls(_metadata, &scene, deed_attach, false));
}

TEST_F_TIMEOUT(local, a_kill_before_any_call_of_making_a_queue_leaves_order, 120)
{
	struct scene scene = { self->uri, &self->create };

	EXPECT_LT(50, kill_at_calls(_metadata, &scene, deed_queues, false));
}

TEST_F_TIMEOUT(local, a_kill_before_any_call_of_settling_leaves_order, 120)
{
	struct scene scene = { self->uri, &self->create };

	EXPECT_LT(40, kill_at_calls(_metadata, &scene, deed_attach, true));
}

TEST_F_TIMEOUT(local, a_kill_anywhere_in_attach_and_detach_leaves_order, 300)
{
	struct scene scene = { self->uri, &self->create };

	kill_at_random(_metadata, &scene, deed_attach, false);
}

TEST_F_TIMEOUT(local, a_kill_anywhere_in_making_a_queue_leaves_order, 300)
{
	struct scene scene = { self->uri, &self->create };

	kill_at_random(_metadata, &scene, deed_queues, false);
}

TEST_F_TIMEOUT(local, a_kill_anywhere_in_settling_leaves_order, 300)
{
	struct scene scene = { self->uri, &self->create };

	kill_at_random(_metadata, &scene, deed_attach, true);
}

/* Nobody watches here: the maker and the remover of the pool is the one that is killed. */
TEST_F_TIMEOUT(local, a_kill_before_any_call_of_making_and_removing_a_pool_leaves_order, 120)
{
	struct scene scene = { self->uri, &self->create };
	struct shmk_pool_stat stat;
	bool more = true;
	struct shmk *s;
	uint32_t n;

	for (n = 1; more && n < MAX_POINTS && _metadata->exit_code == KSFT_PASS; n += every()) {
		struct victim v;

		victim_start(&v, deed_create, &scene);
		for (uint32_t i = 0; more && i < n; i++)
			more = victim_step(&v, PTRACE_SYSCALL);
		victim_kill(&v);
		if (n % 2) {
			EXPECT_LE(0, shmk_pool_cleanup("local:"));
			EXPECT_EQ(self->names, dir_entries(test_dir));
		}
		ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
		ASSERT_EQ(0, shmk_pool_stat(s, &stat));
		EXPECT_EQ(1, stat.attaches);
		EXPECT_EQ(0, shmk_pool_check(s, NULL, 0));
		shmk_detach(s);
		EXPECT_EQ(self->names, dir_entries(test_dir))
			TH_LOG("killed before call %u", n);
	}
	EXPECT_LT(60, n);
}

TEST_HARNESS_MAIN
