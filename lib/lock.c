// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * lock.c - locks among the threads of a process.
 *
 * Vocabulary
 *   held    the lock as such: 1 while somebody has it, or takes the bias away.
 *   bias    the one thread that need not ask for it.
 *
 * Most locks here are taken by one thread for as long as they live, and a locked
 * instruction for each of them (three for a message sent, two for one received) costs a fourth
 * of a message's way. So a thread that has taken a lock RUN times in a row gets the bias, and
 * from then on stores a flag and looks whether it has it still. Another thread that comes
 * takes it away:
 *
 *   the biased                              the other, which has held
 *     L1 inside = 1                           L4 bias = 0
 *        (compiler barrier)                   L5 membarrier(): each thread of the process
 *     L2 bias == me? then it is in                has gone through a full fence
 *     L3 inside = 0 (release)                 L6 wait for inside == 0 (acquire)
 *
 * Either the fence of L5 is behind L1 in the biased thread, and L6 sees it; or it is before
 * L2, which sees L4. What the biased has written inside comes with L3 and L6; what others
 * wrote, it saw when it took held, before it got the bias.
 *
 * Only one thread ever gets the bias of a lock, so that "inside" has one writer: one that
 * hangs between its first look at the bias and L1 while others had it would spoil theirs. If it
 * was taken away within KEPT_MS it comes again after twice as many times in a row, each
 * time; else after as many as at first. So a lock that two use all the time costs a
 * handful of membarriers, and then an instruction or three more than a plain one; and one into which
 * another looks each second is biased in between.
 *
 * The idea is that of biased locks in virtual machines for Java (Kawachiya and others, Lock
 * Reservation, OOPSLA 2002), the fence that only one side pays for that of
 * sys_membarrier(2).
 */
#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif

#define RUN		1024
#define RUN_SHIFT	16
#define KEPT_MS		10

#define NAP_NS		50000
#define DRAINED_NS	20000000

static atomic_int bias_state;		/* 0: not asked yet, 1: there is a fence, -1: none */

static void nap(long ns)
{
	const int64_t until = now_ns() + ns;
	const struct timespec time = {
		.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000,
	};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
		;
}

/* Wraps: a bias that was kept for 25 days is taken for a new one, once. */
static uint32_t now_ms(void)
{
	return (uint32_t)(now_ns() / 1000000);
}

static int membarrier(int cmd)
{
	return (int)syscall(SYS_membarrier, cmd, 0, 0);
}

/* The fence is a kernel's that has a signal for it, not one that waits for a grace period. */
void lock_bias_init(void)
{
	ERRNO_KEPT;

	if (atomic_load_explicit(&bias_state, memory_order_relaxed))
		return;
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)	/* knows of no such fence */
	atomic_store(&bias_state, -1);
#else
	atomic_store(&bias_state,
		     membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) ? -1 : 1);
#endif
}

/*
 * Who has the lock runs a few dozen instructions or has lost its CPU; it may have a lower
 * priority than we, so yielding alone is not enough.
 */
static void wait_a_little(unsigned int tries)
{
	if (tries < 200)
		cpu_relax();
	else if (tries < 250)
		sched_yield();
	else
		nap(NAP_NS);
}

/*
 * A child of fork() has not registered. Refused by a filter that came after the first attach,
 * it is time that makes L1 visible: no processor keeps a store to itself for that long.
 */
static void fence_all(void)
{
	ERRNO_KEPT;

	if (!membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		return;
	if (!membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) &&
	    !membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		return;
	atomic_store(&bias_state, -1);
	nap(DRAINED_NS);
	atomic_thread_fence(memory_order_seq_cst);
}

static void bias_take_away(struct lock *lock)
{
	unsigned int tries;

	atomic_store_explicit(&lock->bias, 0, memory_order_relaxed);	/* L4 */
	fence_all();							/* L5 */
	for (tries = 0; atomic_load_explicit(&lock->inside, memory_order_acquire); tries++)
		wait_a_little(tries);					/* L6 */
	if ((int32_t)(now_ms() - lock->given) > KEPT_MS)
		lock->revoked = 1;
	else if (lock->revoked < RUN_SHIFT)
		lock->revoked++;
}

/* A nap is where a thread may be cancelled, and this one has the lock. */
static void bias_revoke(struct lock *lock)
{
	int state;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	bias_take_away(lock);
	pthread_setcancelstate(state, &state);
}

static void bias_earn(struct lock *lock, uintptr_t self)
{
	if (lock->who != self) {
		if (!lock->revoked)
			lock->who = self;
		lock->run = 0;
	} else if (++lock->run >= (uint32_t)RUN << lock->revoked) {
		lock->run = 0;
		if (atomic_load_explicit(&bias_state, memory_order_relaxed) != 1)
			return;
		lock->given = now_ms();
		atomic_store_explicit(&lock->bias, self, memory_order_relaxed);
	}
}

void lock_shared(struct lock *lock)
{
	unsigned int tries = 0;

	while (atomic_exchange_explicit(&lock->held, 1, memory_order_acquire))
		while (atomic_load_explicit(&lock->held, memory_order_relaxed))
			wait_a_little(tries++);
	if (unlikely(atomic_load_explicit(&lock->bias, memory_order_relaxed)))
		bias_revoke(lock);
	else
		bias_earn(lock, thread_self());
}
