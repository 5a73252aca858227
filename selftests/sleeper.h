/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sleeper.h - what tests of sleeping and waking share: children that sleep, their
 * system calls counted, and children that are stepped into a wait, to be left
 * there while others do something, and then let go.
 *
 * SHMK_TEST_BACKEND=local|module, SHMK_TEST_CYCLES=n (sleeps per test that
 * counts them), SHMK_TEST_STRIDE=n (1: every instruction).
 *
 * Include it behind kselftest_harness.h.
 */
#ifndef SLEEPER_H
#define SLEEPER_H

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <linux/ptrace.h>
#include <liburing.h>
#include <unistd.h>

#include "internal.h"

#define WATCHDOG_MS	20000
#define NS_PER_MS	1000000LL

/* ---------------------------------------------------------------- tools -- */

static char pool_uri[128];
static int cycles;

static inline bool module_backend(void)
{
	const char *backend = getenv("SHMK_TEST_BACKEND");

	return backend && !strcmp(backend, "module");
}

static inline int64_t watchdog(void)
{
	return shmk_deadline_ms(WATCHDOG_MS);
}

/* For a wait in vain that is to have slept: a short one can be over before, on a slow machine. */
static inline int64_t a_sleep(void)
{
	return shmk_deadline_ms(300);
}

/* In children, where the harness's ASSERT is not to be had. */
#define CHECK(cond) do {							\
	if (!(cond)) {								\
		fprintf(stderr, "# %d: %s: failed in a child\n", __LINE__, #cond);	\
		_exit(1);							\
	}									\
} while (0)

static struct shmk_backend patched;

static inline void no_slices(struct shmk *s)
{
	patched = *s->backend;
	patched.wait_slice_ns = INT64_MAX;
	s->backend = &patched;
}

static inline struct shmk *join_spinning(int32_t spin_us, uint32_t nr_entries)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = {
		.create = &pool, .spin_us = spin_us, .nr_entries = nr_entries,
	};
	struct shmk *s;
	int ret = shmk_attach(pool_uri, &opts, &s);

	if (ret) {
		fprintf(stderr, "# attach %s: %s\n", pool_uri, strerror(-ret));
		_exit(1);
	}
	return s;
}

static inline struct shmk *join(void)
{
	struct shmk *s = join_spinning(-1, 0);

	no_slices(s);
	return s;
}

static inline struct shmk_queue *queue(struct shmk *s, const char *name, uint32_t capacity)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = capacity };
	struct shmk_queue *q;
	int ret = shmk_queue_open(s, name, &opts, SHMK_TRY, &q);

	if (ret) {
		fprintf(stderr, "# queue %s: %s\n", name, strerror(-ret));
		_exit(1);
	}
	return q;
}

static inline int put(struct shmk_queue *q, uint64_t value, int64_t deadline)
{
	return shmk_send_copy(q, &value, sizeof(value), deadline);
}

/* 0 and *value, or -errno */
static inline int get(struct shmk_queue *q, uint64_t *value, int64_t deadline)
{
	int64_t ret;

	*value = ~0ULL;
	ret = shmk_recv_copy(q, value, sizeof(*value), deadline);
	return ret == sizeof(*value) ? 0 : ret < 0 ? (int)ret : -EPROTO;
}

static inline pid_t child(void (*run)(void *arg), void *arg)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run(arg);
		_exit(0);
	}
	return pid;
}

/* 0: the child ended well. */
static inline int child_end(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static inline void *shared(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED ? NULL : at;
}

/* Is the process in one of the system calls that the library sleeps in? */
static inline bool asleep(pid_t pid)
{
	char path[64], buf[128] = "", state = 0;
	long nr = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	f = fopen(path, "r");
	if (f) {
		if (fgets(buf, sizeof(buf), f))
			nr = strtol(buf, NULL, 10);
		fclose(f);
	}
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (f) {
		if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(f);
	}
	return state == 'S' && (nr == __NR_ppoll || nr == __NR_io_uring_enter ||
				nr == __NR_epoll_pwait2 || nr == __NR_epoll_wait);
}

static inline void until_asleep(pid_t pid)
{
	while (!asleep(pid))
		sched_yield();
}

/* The same of one that is traced. False: it has stopped instead. */
static inline bool traced_asleep(pid_t pid)
{
	siginfo_t info = { .si_pid = 0 };

	while (!asleep(pid)) {
		waitid(P_PID, pid, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT);
		if (info.si_pid)
			return false;
		sched_yield();
	}
	return true;
}

static inline void busy(unsigned int loops)
{
	for (unsigned int i = 0; i < loops; i++)
		cpu_relax();
}

static inline void pin_to(int cpu)
{
	cpu_set_t set;

	if (cpu < 0)
		return;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

static inline void forbid_uring(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_enter, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_register, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {
		.len = sizeof(filter) / sizeof(filter[0]), .filter = filter,
	};

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static inline bool uring_works(void)
{
	struct io_uring ring;
	int ret = io_uring_queue_init(4, &ring,
				      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);

	if (!ret)
		io_uring_queue_exit(&ring);
	return !ret;
}

static inline void pool_name(void)
{
	const char *n = getenv("SHMK_TEST_CYCLES");

	cycles = n ? atoi(n) : 20000;
	snprintf(pool_uri, sizeof(pool_uri), "%s:wait-%d", module_backend() ? "shmk" : "local",
		 getpid());
}
/* --------------------------------------------------- system calls counted -- */

#define MARK_ON		(-4711)
#define MARK_OFF	(-4712)
#define NR_MAX		600

static inline void mark(int which)
{
	syscall(__NR_getpgid, which);
}

struct counts {
	unsigned int nr[NR_MAX];
	unsigned int clock;	/* where the vdso has none; not counted in total */
	unsigned int drain;	/* the local backend's one read before a sleep */
	unsigned int total;
};

static inline void count_call(struct counts *c, bool *on, const struct __ptrace_syscall_info *info)
{
	if (info->entry.nr == __NR_getpgid && (int)info->entry.args[0] == MARK_ON) {
		*on = true;
	} else if (info->entry.nr == __NR_getpgid && (int)info->entry.args[0] == MARK_OFF) {
		*on = false;
	} else if (*on && info->entry.nr < NR_MAX) {
		c->nr[info->entry.nr]++;
		if (info->entry.nr == __NR_clock_gettime)
			c->clock++;
		else
			c->total++;
	}
}

/*
 * Counts what the child calls between MARK_ON and MARK_OFF. @begin is called
 * at MARK_ON, @wake when the child has gone to sleep after it. Returns how it
 * ended.
 */
static inline int trace(pid_t pid, struct counts *c, void (*begin)(void *arg),
		 void (*wake)(void *arg), void *arg)
{
	struct __ptrace_syscall_info info;
	bool on = false, was, entry;
	int status;

	memset(c, 0, sizeof(*c));
	while (waitpid(pid, &status, 0) == pid) {
		if (WIFEXITED(status) || WIFSIGNALED(status))
			break;
		entry = false;
		was = on;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) &&
		    ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0)
			entry = info.op == PTRACE_SYSCALL_INFO_ENTRY;
		if (entry)
			count_call(c, &on, &info);
		else if (WSTOPSIG(status) == SIGSTOP)
			ptrace(PTRACE_SETOPTIONS, pid, 0,
			       PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
		if (begin && on && !was)
			begin(arg);
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
		if (entry && on && wake && (info.entry.nr == __NR_ppoll ||
					    info.entry.nr == __NR_epoll_pwait2 ||
					    info.entry.nr == __NR_io_uring_enter)) {
			if (traced_asleep(pid))
				wake(arg);
		}
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static inline void traced(void)
{
	CHECK(!ptrace(PTRACE_TRACEME, 0, 0, 0));
	raise(SIGSTOP);
}

static inline void log_counts(struct __test_metadata *_metadata, const char *who,
		       const struct counts *c, int messages)
{
	char list[256] = "";
	size_t at = 0;

	for (int nr = 0; nr < NR_MAX && at < sizeof(list); nr++)
		if (c->nr[nr])
			at += snprintf(list + at, sizeof(list) - at, ", nr %d: %u", nr, c->nr[nr]);
	TH_LOG("%s: %u system calls for %d messages%s (clock_gettime %u not counted)",
	       who, c->total, messages, list, c->clock);
}
/* ------------------------------------------------ at every instruction -- */

/*
 * A child is let go some instructions far into a wait, then others do
 * something, then it goes on. Stepping is slow, so each run tries every n-th
 * instruction, from another one on; SHMK_TEST_STRIDE=1 tries all.
 */
static inline int stride(void)
{
	const char *n = getenv("SHMK_TEST_STRIDE");

	return n ? atoi(n) : cycles < 10000 ? 37 : 7;
}

static inline int first_step(void)
{
	return getpid() % stride();
}

static inline void trace_begin(pid_t pid)
{
	waitpid(pid, NULL, 0);
	ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
}

/* Until the child stops: true. False: it sleeps, and still does after @ms. */
static inline bool stops(pid_t pid, int *status, int ms)
{
	int64_t until = now_ns() + ms * NS_PER_MS;

	for (int i = 1;; i++) {
		if (waitpid(pid, status, WNOHANG) == pid)
			return true;
		if (i % 64 == 0 && asleep(pid) && now_ns() >= until)
			return waitpid(pid, status, WNOHANG) == pid;
		sched_yield();
	}
}

static inline bool at_mark(pid_t pid, int status, int which)
{
	struct __ptrace_syscall_info info;

	return WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80) &&
	       ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info) > 0 &&
	       info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == __NR_getpgid &&
	       (int)info.entry.args[0] == which;
}

/* From a stop to the next such mark. False: sleeps for 5 s, or is gone. */
static inline bool runs_to(pid_t pid, int which)
{
	int status;

	do {
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
		if (!stops(pid, &status, 5000) || !WIFSTOPPED(status))
			return false;
	} while (!at_mark(pid, status, which));
	return true;
}

/* @n instructions; false: it has gone to sleep and runs (so to say). */
static inline bool step(pid_t pid, int n)
{
	int status;

	while (n--) {
		ptrace(PTRACE_SINGLESTEP, pid, 0, 0);
		if (!stops(pid, &status, 0))
			return false;
	}
	return true;
}
/* If there is no message the child has to sleep, and the next message to wake it. */
static inline bool waits_well(pid_t pid, bool stopped, bool message, struct shmk_queue *q)
{
	int status;

	if (stopped)
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
	for (;;) {
		if (!stops(pid, &status, message ? 5000 : 0)) {
			if (message)
				return false;
			message = !put(q, 1, SHMK_TRY);
			continue;
		}
		if (at_mark(pid, status, MARK_OFF))
			return message;
		ptrace(PTRACE_SYSCALL, pid, 0, 0);
	}
}

/* What happens beside one that goes to sleep. Says whether it left a message. */
typedef bool (*meanwhile_t)(struct shmk_queue *mine, struct shmk_queue *others);

static inline bool sent(struct shmk_queue *mine, struct shmk_queue *others)
{
	(void)others;
	CHECK(!put(mine, 1, SHMK_TRY));
	return true;
}

static inline bool sent_and_taken(struct shmk_queue *mine, struct shmk_queue *others)
{
	uint64_t value;

	CHECK(!put(mine, 1, SHMK_TRY));
	CHECK(!get(others, &value, SHMK_TRY));
	return false;
}

/*
 * Steps it into its sleep, a little further each time, and does @meanwhile there. How many
 * instructions it took until it slept; negative: one was lost after so many.
 */
static inline int steps_into_sleep(pid_t pid, struct shmk_queue *mine, struct shmk_queue *others,
				   meanwhile_t meanwhile)
{
	bool stopped = true;
	int k;

	trace_begin(pid);
	for (k = first_step(); stopped; k += stride()) {
		if (!runs_to(pid, MARK_ON))
			return -k - 1;
		stopped = step(pid, k);
		if (!waits_well(pid, stopped, meanwhile(mine, others), mine))
			return -k - 1;
	}
	return k;
}

#endif
