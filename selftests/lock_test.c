// SPDX-License-Identifier: GPL-2.0-only
/*
 * lock_test.c - a lock among threads that belongs to one of them (lib/lock.c).
 *
 * SHMK_TEST_LOOPS: times that the bias is taken away while its owner goes in and out.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"
#include "kselftest_harness.h"

#define OFTEN	1000000

static void take(struct lock *l, int times)
{
	while (times--)
		unlock(l, lock(l));
}

static bool mine(const struct lock *l)
{
	return atomic_load(&l->bias) == thread_self();
}

static void *idles(void *arg)
{
	char c;

	return (void *)read(*(int *)arg, &c, 1);
}

/* A process with a second thread, that does nothing. */
FIXTURE(lock) {
	struct lock l;
	pthread_t idle;
	int pipe[2];
};

FIXTURE_SETUP(lock)
{
	int can = (int)syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);

	if (can < 0 || !(can & MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		SKIP(return, "no membarrier(2) here, and so no bias: locks are plain ones");
	lock_bias_init();
	ASSERT_EQ(0, pipe(self->pipe));
	ASSERT_EQ(0, pthread_create(&self->idle, NULL, idles, &self->pipe[0]));
}

FIXTURE_TEARDOWN(lock)
{
	if (!self->idle)
		return;
	close(self->pipe[1]);
	pthread_join(self->idle, NULL);
}

static void *takes_once(void *l)
{
	take(l, 1);
	return NULL;
}

static void *takes_often(void *l)
{
	take(l, OFTEN);
	return (void *)(uintptr_t)mine(l);
}

static void *in_thread(void *(*does)(void *l), struct lock *l)
{
	pthread_t t;
	void *ret = NULL;

	if (pthread_create(&t, NULL, does, l) || pthread_join(t, &ret))
		abort();
	return ret;
}

TEST_F(lock, who_takes_it_again_and_again_has_it_without_a_locked_instruction)
{
	bool locked;

	take(&self->l, 1000);
	EXPECT_FALSE(mine(&self->l));
	take(&self->l, 100);
	ASSERT_TRUE(mine(&self->l));
	locked = lock(&self->l);
	EXPECT_TRUE(locked);
	EXPECT_EQ(0, atomic_load(&self->l.held));
	EXPECT_EQ(1, atomic_load(&self->l.inside));
	unlock(&self->l, locked);
	EXPECT_EQ(0, atomic_load(&self->l.inside));
}

/* Soon after it was given; the clock is told so. */
TEST_F(lock, another_takes_the_bias_away_and_each_time_it_is_twice_as_hard_to_get)
{
	int run = 1024;

	for (int i = 0; i < 6; i++, run *= 2) {
		take(&self->l, run - 1);
		EXPECT_FALSE(mine(&self->l));
		take(&self->l, run + 2);
		EXPECT_TRUE(mine(&self->l));
		self->l.given = (uint32_t)(now_ns() / 1000000) + 1000000;
		in_thread(takes_once, &self->l);
		EXPECT_EQ(0, atomic_load(&self->l.bias));
	}
	/* But not one that was of use for long. */
	take(&self->l, 2 * run);
	EXPECT_TRUE(mine(&self->l));
	self->l.given = (uint32_t)(now_ns() / 1000000) - 1000;
	in_thread(takes_once, &self->l);
	take(&self->l, 3000);
	EXPECT_TRUE(mine(&self->l));
}

/* Two that take turns are not charged for what only one could have. */
TEST_F(lock, turns_give_no_bias)
{
	for (int i = 0; i < 100; i++) {
		take(&self->l, 500);
		in_thread(takes_once, &self->l);
	}
	EXPECT_EQ(0, atomic_load(&self->l.bias));
	EXPECT_EQ(0, self->l.revoked);
}

/* "inside" has one writer. */
TEST_F(lock, only_one_thread_ever_gets_it)
{
	take(&self->l, 2000);
	ASSERT_TRUE(mine(&self->l));
	EXPECT_EQ((void *)false, in_thread(takes_often, &self->l));
	EXPECT_EQ(0, atomic_load(&self->l.bias));
	take(&self->l, 10000);
	EXPECT_TRUE(mine(&self->l));
}

TEST_F(lock, one_that_is_said_to_be_nobody_elses_is_none)
{
	self->l.none = true;
	EXPECT_FALSE(lock(&self->l));
	EXPECT_EQ(0, atomic_load(&self->l.held));
}

/*
 * The owner goes in and out as fast as it can, another takes its bias away again and
 * again. What they count is plain memory; "in" is set by who is in.
 */
struct contest {
	struct lock l;
	volatile uint64_t in, counter;
	uint64_t owners, others, biased;
	atomic_bool over;
	atomic_uint clashes;
};

static void go_in(struct contest *c, uint64_t me)
{
	bool locked = lock(&c->l);

	if (c->in)
		atomic_fetch_add(&c->clashes, 1);
	c->in = me;
	/* Mostly a moment, so that both meet on their way in; now and then for long. */
	for (int i = c->counter++ % 16 ? 0 : 300; i; i--)
		cpu_relax();
	if (c->in != me)
		atomic_fetch_add(&c->clashes, 1);
	c->in = 0;
	unlock(&c->l, locked);
}

static void *owner(void *arg)
{
	struct contest *c = arg;

	while (!atomic_load_explicit(&c->over, memory_order_relaxed)) {
		c->biased += mine(&c->l);
		go_in(c, 1);
		c->owners++;
	}
	return NULL;
}

static void other(struct contest *c, int times)
{
	while (times) {
		if (!atomic_load_explicit(&c->l.bias, memory_order_relaxed)) {
			sched_yield();
			continue;
		}
		times--;
		go_in(c, 2);
		c->others++;
		c->l.revoked = 0;	/* or it would soon never be biased again */
	}
}

static void contest(struct contest *c, int times)
{
	pthread_t t;

	if (pthread_create(&t, NULL, owner, c))
		abort();
	other(c, times);
	atomic_store(&c->over, true);
	pthread_join(t, NULL);
}

#define EXPECT_FAIR(c, times) do {						\
	TH_LOG("%d times revoked, %llu times in by bias", times, (unsigned long long)(c)->biased); \
	EXPECT_EQ(0, atomic_load(&(c)->clashes));				\
	EXPECT_EQ((c)->owners + (c)->others, (c)->counter);			\
	EXPECT_LT(0, (c)->biased);						\
} while (0)

TEST_F(lock, never_two_are_in_while_the_bias_comes_and_goes)
{
	const char *loops = getenv("SHMK_TEST_LOOPS");
	int times = loops ? atoi(loops) : 2000;
	struct contest c = { .in = 0 };

	contest(&c, times);
	EXPECT_FAIR(&c, times);
}

static int forbid_membarrier(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_membarrier, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {
		.len = sizeof(filter) / sizeof(filter[0]), .filter = filter,
	};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	       syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog);
}

/* Then the bias is taken once more, slowly, and there is none from then on. */
TEST_F(lock, a_process_that_loses_membarrier_later_goes_on_without_bias)
{
	struct contest c = { .in = 0 };

	take(&self->l, 2000);
	ASSERT_TRUE(mine(&self->l));
	ASSERT_EQ(0, forbid_membarrier());
	contest(&c, 1);
	EXPECT_FAIR(&c, 1);
	in_thread(takes_once, &self->l);
	EXPECT_EQ(0, atomic_load(&self->l.bias));
	take(&self->l, 10000);
	EXPECT_EQ(0, atomic_load(&self->l.bias));
}

/* Forked from a thread that has it or not: the child's lock works, and is its own. */
TEST_F(lock, a_forked_child_takes_it_as_well)
{
	int status;
	pid_t pid;

	take(&self->l, 2000);
	ASSERT_TRUE(mine(&self->l));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		alarm(20);
		take(&self->l, 10);
		in_thread(takes_once, &self->l);
		take(&self->l, 10);
		_exit(atomic_load(&self->l.bias) ? 1 : 0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_TRUE(mine(&self->l));
}

TEST_HARNESS_MAIN
