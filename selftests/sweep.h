/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sweep.h - a victim that is stepped n instructions into something, for sweeps
 * that kill it there (kill_sweep.c and its like, one per pattern).
 *
 *   static void victim(const void *arg) { attach...; sweep_begin(); ...; sweep_end(); }
 *   for (n = 0; more; n = sweep_next(n)) {
 *           pid = sweep_victim("name", victim, arg);
 *           more = sweep_step(pid, n);
 *           sweep_kill(pid);
 *           ...what must be true now; sweep_fail("what is not")
 *   }
 *
 * From the 60th instruction on the points lie further and further apart, a 60th
 * of the way; SHMK_SWEEP_FULL=1 takes every one. SHMK_SWEEP_STRIDE=n
 * takes only every n-th even before (the guest, which is emulated, does).
 */
#ifndef SWEEP_H
#define SWEEP_H

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"

static long sweep_stride = 1;
static bool sweep_full;

static char sweep_why[512];

static inline bool sweep_fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sweep_why, sizeof(sweep_why), fmt, ap);
	va_end(ap);
	return false;
}

static inline void die(const char *what, int ret)
{
	ksft_print_msg("%s: %s\n", what, strerror(-ret));
	_exit(99);
}

static inline void must(const char *what, int ret)
{
	if (ret < 0)
		die(what, ret);
}

static inline void sweep_breakpoint(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__asm__ volatile("int3" ::: "memory");
#else
	raise(SIGTRAP);
#endif
}

/*
 * Stepping takes a thousand times as long, and a deadline would be over before the
 * sleep it belongs to. So a victim's clock goes on by the look: a deadline of one
 * millisecond lets it spin in vain, sleep once, and give up. This takes the place of
 * libc's for the library, too.
 */
#define SWEEP_LOOK_NS	150000

static long long sweep_clock;		/* 0: the kernel's */

int clock_gettime(clockid_t id, struct timespec *ts)
{
	if (!sweep_clock || id != CLOCK_MONOTONIC)
		return (int)syscall(SYS_clock_gettime, id, ts);
	sweep_clock += SWEEP_LOOK_NS;
	ts->tv_sec = sweep_clock / 1000000000;
	ts->tv_nsec = sweep_clock % 1000000000;
	return 0;
}

/* The victim: from here on it is stepped, as far as the other end. */
static inline void sweep_begin(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	sweep_clock = now.tv_sec * 1000000000LL + now.tv_nsec;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		die("traceme", -errno);
	sweep_breakpoint();
}

static inline void sweep_end(void)
{
	sweep_breakpoint();
	_exit(0);
}

/* Steps @n instructions; false when the operation was over before. */
static inline bool sweep_step(pid_t pid, long n)
{
	siginfo_t info;
	int status;

	while (n--) {
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL))
			die("singlestep", -errno);
		if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
			ksft_print_msg("victim ended by itself: status %#x\n", status);
			_exit(99);
		}
		if (ptrace(PTRACE_GETSIGINFO, pid, NULL, &info))
			die("getsiginfo", -errno);
		/* TRAP_TRACE or TRAP_BRKPT (after a system call) is a step; int3 is SI_KERNEL. */
		if (WSTOPSIG(status) == SIGTRAP && info.si_code == SI_KERNEL)
			return false;
	}
	return true;
}

/* A child that has run @victim up to its sweep_begin(). */
static inline pid_t sweep_victim(const char *name, void (*victim)(const void *arg), const void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		die("fork", -errno);
	if (!pid) {
		victim(arg);
		_exit(98);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
		ksft_print_msg("%s: victim did not get to its breakpoint: %#x\n", name, status);
		_exit(99);
	}
	return pid;
}

static inline void sweep_kill(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	do {
		if (waitpid(pid, &status, 0) != pid)
			die("waitpid", -errno);
	} while (!WIFSIGNALED(status) && !WIFEXITED(status));
}

/* The point after the @n-th instruction. */
static inline long sweep_next(long n)
{
	return n + (!sweep_full && n / 60 > sweep_stride ? n / 60 : sweep_stride);
}

/*
 * What came of a sweep whose last victim was killed after @last instructions, of which there have
 * to be @least. What differs from run to run is behind the #.
 */
static inline void sweep_result(const char *name, bool ok, long last, long least, long points)
{
	if (!ok)
		ksft_test_result_fail("%s killed after %ld instructions: %s\n", name, last, sweep_why);
	else if (last < least)
		ksft_test_result_fail("%s has only %ld kill points, not %ld\n", name, last, least);
	else
		ksft_test_result_pass("%s is exact # at %ld kill points of %ld instructions\n", name,
				      points, last);
}

/*
 * A step hands over between two processes. On two processors each hand-over is
 * an interrupt to another one, and in a guest that processor may not even be
 * running: measured 100 times as slow with two guests on two cores.
 */
static inline void sweep_pin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	must("sched_setaffinity", sched_setaffinity(0, sizeof(set), &set) ? -errno : 0);
}

static inline void sweep_init(void)
{
	const char *every = getenv("SHMK_SWEEP_STRIDE");

	if (every && atol(every) > 0)
		sweep_stride = atol(every);
	sweep_full = getenv("SHMK_SWEEP_FULL") != NULL;
	sweep_pin();
}

#endif
