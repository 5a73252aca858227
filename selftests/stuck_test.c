// SPDX-License-Identifier: GPL-2.0-only
/*
 * stuck_test.c - one that does not get on is not dead, and nobody waits for it.
 *
 * A member sleeps in shmk_recv() and holds a block; then it gets stuck, in one of many ways.
 * Meanwhile two others exchange messages, no end of anybody is told, and a message is
 * sent to the one that is stuck. When it gets on it has that message, and its block is what it was.
 */
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ptrace.h>

#include "lib_test.h"
#include "textfile.h"
#include "kselftest_harness.h"

#define CGROUP		"/sys/fs/cgroup/shmk-stuck-test"
#define ROUNDS		100
#define BYTES		8192U

enum way { STOPPED, TRACED, FROZEN, IN_VFORK, WITH_SQPOLL, BEHIND_A_HOG };

FIXTURE(stuck)
{
	char uri[64];
	struct shmk_pool_opts pool;
	struct shmk_attach_opts opts;
	struct shmk *s;
	struct shmk_queue *q;		/* to the one that gets stuck */
	struct child c;
	int gate[2];			/* what ends a vfork */
	pid_t hog;
	bool frozen, traced;
};

FIXTURE_VARIANT(stuck)
{
	enum way way;
};

FIXTURE_VARIANT_ADD(stuck, stopped) { .way = STOPPED };
FIXTURE_VARIANT_ADD(stuck, traced) { .way = TRACED };
FIXTURE_VARIANT_ADD(stuck, frozen) { .way = FROZEN };
FIXTURE_VARIANT_ADD(stuck, in_vfork) { .way = IN_VFORK };
FIXTURE_VARIANT_ADD(stuck, with_sqpoll) { .way = WITH_SQPOLL };
FIXTURE_VARIANT_ADD(stuck, behind_a_hog) { .way = BEHIND_A_HOG };

typedef FIXTURE_DATA(stuck) stuck_t;

/* Waits for what the kernel says somewhere. */
static bool comes_to_say(const char *path, const char *what)
{
	int64_t end = watchdog();

	while (!file_says(path, what))
		if (usleep(1000), now_ns() > end)
			return false;
	return true;
}

static bool comes_to_state(pid_t pid, const char *state)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	return comes_to_say(path, state);
}

FIXTURE_SETUP(stuck)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };

	memset(self, 0, sizeof(*self));
	setenv("SHMK_TEST_BACKEND", "module", 1);
	test_uri(self->uri, "stuck");
	self->pool.bytes = 1 << 20;
	self->opts.create = &self->pool;
	ASSERT_EQ(0, pipe2(self->gate, O_CLOEXEC));
	ASSERT_EQ(0, shmk_attach(self->uri, &self->opts, &self->s));
	ASSERT_EQ(0, shmk_queue_open(self->s, "stuck", &opts, SHMK_TRY, &self->q));
}

FIXTURE_TEARDOWN(stuck)
{
	if (self->hog > 0)
		kill(self->hog, SIGKILL);
	if (self->s)
		shmk_detach(self->s);
	rmdir(CGROUP);
}

/* ---- the one that gets stuck ---- */

static struct child_end *to_parent;
static stuck_t *fix;

static void waits_in_vfork(void)
{
	pid_t pid = vfork();
	char byte;

	if (!pid) {
		if (read(fix->gate[0], &byte, 1) != 1)
			_exit(1);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

/* A kernel thread that shares the memory and keeps a CPU busy meanwhile. */
static bool start_sqpoll(struct io_uring *ring)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SQPOLL, .sq_thread_idle = 60000 };

	return !io_uring_queue_init_params(4, ring, &params);
}

static void on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

struct member_arg {
	stuck_t	*f;
	enum way way;
};

static void member(struct child_end *end, void *arg)
{
	struct member_arg *a = arg;
	struct shmk_msg mine, got;
	struct shmk_queue *q;
	struct io_uring ring;
	struct shmk *s;
	unsigned int i;

	fix = a->f;
	to_parent = end;
	if (a->way == BEHIND_A_HOG)
		on_cpu(1);
	if (shmk_attach(a->f->uri, NULL, &s) ||
	    shmk_queue_open(s, "stuck", NULL, SHMK_TRY, &q) || shmk_alloc(s, BYTES, 0, &mine))
		_exit(91);
	memset(mine.data, 0xaa, BYTES);
	if (a->way == WITH_SQPOLL && !start_sqpoll(&ring))
		_exit(79);
	tell(end, (int)s->self);
	if (a->way == IN_VFORK)
		waits_in_vfork();
	if (shmk_recv(q, &got, SHMK_FOREVER))
		_exit(92);
	if (got.len != BYTES || *(unsigned char *)got.data != 0x77)
		_exit(93);
	shmk_free(&got);
	for (i = 0; i < BYTES; i++)
		if (((unsigned char *)mine.data)[i] != 0xaa)
			_exit(94);
	shmk_free(&mine);
	shmk_detach(s);
}

/* Spins with a priority that no ordinary thread gets past. */
static void hog(struct child_end *end, void *arg)
{
	struct sched_param param = { .sched_priority = 50 };
	volatile unsigned long turns = 0;

	(void)arg;
	on_cpu(1);
	if (sched_setscheduler(0, SCHED_FIFO, &param))
		_exit(79);
	tell(end, 0);
	for (;;)
		turns = turns + 1;
}

/* ---- stuck, and not ---- */

/* -ENOSYS: cannot be had here. */
static int get_stuck(stuck_t *f, enum way way)
{
	struct child c;
	char pid[16];

	switch (way) {
	case STOPPED:
	case WITH_SQPOLL:
		kill(f->c.pid, SIGSTOP);
		return comes_to_state(f->c.pid, "State:\tT") ? 0 : -ETIME;
	case TRACED:
		if (ptrace(PTRACE_SEIZE, f->c.pid, NULL, NULL) ||
		    ptrace(PTRACE_INTERRUPT, f->c.pid, NULL, NULL))
			return -ENOSYS;
		f->traced = true;
		return comes_to_state(f->c.pid, "State:\tt") ? 0 : -ETIME;
	case FROZEN:
		snprintf(pid, sizeof(pid), "%d", f->c.pid);
		if ((mkdir(CGROUP, 0755) && errno != EEXIST) ||
		    write_text(CGROUP "/cgroup.procs", pid) ||
		    write_text(CGROUP "/cgroup.freeze", "1"))
			return -ENOSYS;
		return comes_to_say(CGROUP "/cgroup.events", "frozen 1") ? 0 : -ETIME;
	case IN_VFORK:
		return comes_to_state(f->c.pid, "State:\tD") ? 0 : -ETIME;
	case BEHIND_A_HOG:
		if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
			return -ENOSYS;
		child_start(&c, hog, NULL);
		f->hog = c.pid;
		return child_hear(&c) ? -ENOSYS : 0;
	}
	return -ENOSYS;
}

static void get_on(stuck_t *f, enum way way)
{
	int status;

	switch (way) {
	case STOPPED:
	case WITH_SQPOLL:
		kill(f->c.pid, SIGCONT);
		break;
	case TRACED:
		waitpid(f->c.pid, &status, __WALL);
		ptrace(PTRACE_DETACH, f->c.pid, NULL, NULL);
		break;
	case FROZEN:
		write_text(CGROUP "/cgroup.freeze", "0");
		break;
	case IN_VFORK:
		if (write(f->gate[1], "", 1) != 1)
			abort();
		break;
	case BEHIND_A_HOG:
		kill(f->hog, SIGKILL);
		waitpid(f->hog, &status, 0);
		f->hog = 0;
		break;
	}
}

/* ---- the others ---- */

static void echo(struct child_end *end, void *arg)
{
	struct member_arg *a = arg;
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 2 };
	struct shmk_queue *there, *back;
	struct shmk_msg m;
	struct shmk *s;
	int i;

	if (shmk_attach(a->f->uri, NULL, &s) ||
	    shmk_queue_open(s, "there", &opts, SHMK_TRY, &there) ||
	    shmk_queue_open(s, "back", &opts, SHMK_TRY, &back))
		_exit(91);
	tell(end, (int)s->self);
	for (i = 0; i < ROUNDS; i++)
		if (shmk_recv(there, &m, watchdog()) || shmk_send(back, &m, watchdog()))
			_exit(92);
	shmk_detach(s);
}

/* The number of ends told so far. */
static int ends(stuck_t *f)
{
	struct shmk_event event;
	int nr = 0;

	while (!shmk_event_next(f->s, &event))
		nr += event.type == SHMK_EV_DIED || event.type == SHMK_EV_DETACHED;
	return nr;
}

TEST_F_TIMEOUT(stuck, nobody_waits_and_nothing_is_lost, 120)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 2 };
	struct member_arg arg = { self, variant->way };
	struct shmk_queue *there, *back;
	struct child other;
	struct shmk_msg m;
	int i, id, ret;

	child_start(&self->c, member, &arg);
	id = child_hear(&self->c);
	if (id < 0) {
		ASSERT_EQ(79, WEXITSTATUS(child_wait(&self->c)));
		SKIP(return, "not to be had here");
	}
	if (variant->way != IN_VFORK)
		ASSERT_TRUE(comes_to_state(self->c.pid, "State:\tS"));
	ret = get_stuck(self, variant->way);
	if (ret == -ENOSYS) {
		kill(self->c.pid, SIGKILL);
		child_wait(&self->c);
		SKIP(return, "not to be had here");
	}
	ASSERT_EQ(0, ret);

	/* Something for it to find. */
	ASSERT_EQ(0, shmk_alloc(self->s, BYTES, 0, &m));
	memset(m.data, 0x77, BYTES);
	ASSERT_EQ(0, shmk_send(self->q, &m, SHMK_TRY));

	child_start(&other, echo, &arg);
	ASSERT_LT(0, child_hear(&other));
	ASSERT_EQ(0, shmk_queue_open(self->s, "there", &opts, SHMK_TRY, &there));
	ASSERT_EQ(0, shmk_queue_open(self->s, "back", &opts, SHMK_TRY, &back));
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, shmk_alloc(self->s, 100, 0, &m));
		ASSERT_EQ(0, shmk_send(there, &m, watchdog()));
		ASSERT_EQ(0, shmk_recv(back, &m, watchdog()));
		shmk_free(&m);
	}
	EXPECT_EQ(0, child_wait(&other));
	/* That one has left; the one that is stuck has not. */
	EXPECT_EQ(1, ends(self));
	EXPECT_EQ(SHMK_PEER_ALIVE, SHMK_PEER_STATE(READ_ONCE(((const struct shmk_peer_status *)
		((const char *)self->s->status + self->s->status->peers_off))[id].word)));

	get_on(self, variant->way);
	EXPECT_EQ(0, child_wait(&self->c));
	EXPECT_EQ(1, ends(self));
	EXPECT_EQ(0, shmk_pool_check(self->s, NULL, 0));
}

/* And one that is stuck dies like any other. */
TEST_F_TIMEOUT(stuck, it_is_killed_and_settled_at_once, 120)
{
	struct member_arg arg = { self, variant->way };
	struct pollfd p;
	int id, ret;

	/* What a vfork leaves is ours to reap. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child_start(&self->c, member, &arg);
	id = child_hear(&self->c);
	if (id < 0) {
		ASSERT_EQ(79, WEXITSTATUS(child_wait(&self->c)));
		SKIP(return, "not to be had here");
	}
	ret = get_stuck(self, variant->way);
	if (ret)
		kill(self->c.pid, SIGKILL);
	if (ret == -ENOSYS || variant->way == BEHIND_A_HOG) {
		get_on(self, variant->way);
		kill(self->c.pid, SIGKILL);
		child_wait(&self->c);
		if (ret == -ENOSYS)
			SKIP(return, "not to be had here");
		return;
	}
	ASSERT_EQ(0, ret);
	EXPECT_EQ(0, ends(self));
	kill(self->c.pid, SIGKILL);
	p = (struct pollfd){ .fd = shmk_event_fd(self->s), .events = POLLIN };
	if (variant->way == IN_VFORK) {
		/* Its child has the same memory and is the same peer: it lives, and so does that. */
		ASSERT_TRUE(comes_to_state(self->c.pid, "State:\tZ"));
		EXPECT_EQ(0, ends(self));
		ASSERT_EQ(1, write(self->gate[1], "", 1));
	}
	ASSERT_EQ(1, poll(&p, 1, WATCHDOG_MS));
	EXPECT_EQ(1, ends(self));
	if (variant->way == FROZEN)
		write_text(CGROUP "/cgroup.freeze", "0");
	child_wait(&self->c);
	if (variant->way == IN_VFORK)
		EXPECT_LT(0, waitpid(-1, NULL, 0));
	EXPECT_EQ(0, shmk_pool_check(self->s, NULL, 0));
}

/* ---- too little memory ---- */

#define PRESSURE	"/sys/fs/cgroup/shmk-pressure-test"
#define PRESSED		(16U << 20)

static void in_the_group(void)
{
	if (write_text(PRESSURE "/cgroup.procs", "0"))
		_exit(79);
}

/* Its pool is charged to the group, and no pressure takes a page of it. */
static void keeps_a_pool(struct child_end *end, void *arg)
{
	struct shmk_pool_opts pool = { .bytes = PRESSED };
	struct shmk_attach_opts opts = { .create = &pool };
	uint64_t *word, i;
	struct shmk *s;

	in_the_group();
	if (shmk_attach(arg, &opts, &s))
		_exit(91);
	word = (uint64_t *)s->data;
	for (i = 0; i < PRESSED / 8; i++)
		word[i] = i;
	tell(end, 0);
	if (hear(end->from))
		_exit(92);
	for (i = 0; i < PRESSED / 8; i++)
		if (word[i] != i)
			_exit(93);
	shmk_detach(s);
}

static void eats(struct child_end *end, void *arg)
{
	const size_t step = 1 << 20;
	char *p;

	(void)end;
	(void)arg;
	in_the_group();
	write_text("/proc/self/oom_score_adj", "1000");
	while ((p = mmap(NULL, step, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
			 -1, 0)) != MAP_FAILED)
		memset(p, 1, step);
	_exit(0);
}

TEST(memory_pressure_takes_no_page_of_a_pool_and_no_member)
{
	struct child keeper, eater;
	char uri[64];
	int status, err;

	setenv("SHMK_TEST_BACKEND", "module", 1);
	test_uri(uri, "pressure");
	err = mkdir(PRESSURE, 0755) && errno != EEXIST ? -errno :
	      write_text(PRESSURE "/memory.max", "50331648");
	write_text(PRESSURE "/memory.swap.max", "0");
	if (err)
		SKIP(return, "no memory cgroup: %s", strerror(-err));
	child_start(&keeper, keeps_a_pool, uri);
	ASSERT_EQ(0, child_hear(&keeper));
	child_start(&eater, eats, NULL);
	status = child_wait(&eater);
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_EQ(SIGKILL, WTERMSIG(status));
	write_text("/proc/sys/vm/drop_caches", "3");
	child_tell(&keeper, 0);
	EXPECT_EQ(0, child_wait(&keeper));
	rmdir(PRESSURE);
}

TEST_HARNESS_MAIN
