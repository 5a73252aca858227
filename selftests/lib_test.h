/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * shmk_test.h - what tests of the library share.
 *
 * SHMK_TEST_BACKEND=local|module picks the scheme. Local pools of a test
 * program live in a directory of its own, so that what is left over is seen.
 * Include it before kselftest_harness.h.
 */
#ifndef SHMK_TEST_H
#define SHMK_TEST_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"

#define WATCHDOG_MS	20000
#define MIB		(1ULL << 20)

static inline bool on_module(void)
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

/* ------------------------------------------------------------ the place -- */

static char test_dir[64];
static pid_t test_main;

/* Before main(), so that all of the harness's children have the same. */
__attribute__((constructor)) static void test_dir_make(void)
{
	strcpy(test_dir, "/dev/shm/shmk_test.XXXXXX");
	if (!mkdtemp(test_dir) || setenv("SHMK_LOCAL_DIR", test_dir, 1)) {
		perror("shmk_test: a directory of our own");
		exit(1);
	}
	test_main = getpid();
}

/* A test that failed may leave pools; those that pass say so themselves. */
__attribute__((destructor)) static void test_dir_drop(void)
{
	if (getpid() != test_main)
		return;
	shmk_pool_cleanup("local:");
	rmdir(test_dir);
}

/* The number of names in a directory, dotted ones too. */
static inline int dir_entries(const char *path)
{
	DIR *d = opendir(path);
	int nr = 0;

	while (d && readdir(d))
		nr++;
	if (d)
		closedir(d);
	return nr - 2;
}

static inline int open_fds(void)
{
	return dir_entries("/proc/self/fd");
}

/* Mappings of this process that show a pool's memory. */
static inline int pool_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	int nr = 0;

	while (f && fgets(line, sizeof(line), f))
		if (strstr(line, test_dir) || strstr(line, "shmk_test.") || strstr(line, "[shmk]"))
			nr++;
	if (f)
		fclose(f);
	return nr;
}

/* A URI of the backend under test, different for each process that asks. */
static inline const char *test_uri(char *buf, const char *name)
{
	sprintf(buf, "%s:%s.%d", on_module() ? "shmk" : "local", name, getpid());
	return buf;
}

/* ------------------------------------------------------------- children -- */

/* Another process, and two pipes to walk in step with it. */
struct child {
	pid_t	pid;
	int	from;		/* its messages */
	int	to;
};

struct child_end {
	int	from;
	int	to;
};

/* The child's side: tell the parent a number, or wait for one. */
static inline void tell(const struct child_end *end, int value)
{
	if (write(end->to, &value, sizeof(value)) != sizeof(value))
		_exit(90);
}

static inline int hear(int fd)
{
	int value;

	return read(fd, &value, sizeof(value)) == sizeof(value) ? value : -EPIPE;
}

static inline void child_start(struct child *c, void (*body)(struct child_end *end, void *arg),
			       void *arg)
{
	int down[2], up[2];

	if (pipe2(down, O_CLOEXEC) || pipe2(up, O_CLOEXEC))
		abort();
	c->pid = fork();
	if (c->pid < 0)
		abort();
	if (!c->pid) {
		struct child_end end = { .from = down[0], .to = up[1] };

		close(down[1]);
		close(up[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		body(&end, arg);
		_exit(0);
	}
	close(down[0]);
	close(up[1]);
	c->from = up[0];
	c->to = down[1];
}

static inline int child_hear(const struct child *c)
{
	return hear(c->from);
}

static inline void child_tell(const struct child *c, int value)
{
	if (write(c->to, &value, sizeof(value)) != sizeof(value))
		abort();
}

/* Its wait status. */
static inline int child_wait(struct child *c)
{
	int status = 0;

	while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
		;
	close(c->from);
	close(c->to);
	return status;
}

static inline int child_kill(struct child *c)
{
	kill(c->pid, SIGKILL);
	return child_wait(c);
}

/* Until none of the dead is left: on the module a worker may have the rest. */
static inline void settled(struct shmk *s)
{
	int64_t end = watchdog();
	struct shmk_pool_stat stat;
	struct shmk_peer peer;
	uint32_t id = 1;

	shmk_pool_stat(s, &stat);		/* on local it settles */
	while (!shmk_peer_next(s, id, &peer) && now_ns() < end) {
		if (peer.dead)
			usleep(1000);
		else
			id = peer.id + 1;
	}
}

/*
 * Three children that say 1 when they are at work, killed and started again @kills times. Waits
 * until all are settled and @left peers are there. False: one ended by itself, it found something
 * wrong; or they are not settled.
 */
static inline bool children_killed(struct shmk *s, void (*body)(struct child_end *end, void *arg),
				   void *arg, unsigned int kills, unsigned int seed,
				   unsigned int left)
{
	struct shmk_pool_stat st = { };
	struct child c[3];
	unsigned int i, n;
	bool ok = true;

	for (n = 0; n < kills + 3 && ok; n++) {
		i = n < 3 ? n : (unsigned int)rand_r(&seed) % 3;
		if (n >= 3) {
			usleep((unsigned int)rand_r(&seed) % 3000);
			ok = WTERMSIG(child_kill(&c[i])) == SIGKILL;
		}
		child_start(&c[i], body, arg);
		ok = ok && child_hear(&c[i]) == 1;
	}
	for (i = 0; i < 3 && i < n; i++)
		ok &= WTERMSIG(child_kill(&c[i])) == SIGKILL;
	for (i = 0; i < 5000; i++) {
		s->backend->reap(s);
		if (!shmk_pool_stat(s, &st) && st.peers_now == left)
			return ok;
		usleep(1000);
	}
	return false;
}

/* --------------------------------------------------------------- events -- */

/* The next event, waited for with its fd alone. */
static inline int event_wait(struct shmk *s, struct shmk_event *event)
{
	int fd = shmk_event_fd(s);
	int64_t end = watchdog();
	int ret;

	if (fd < 0)
		return fd;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		ret = shmk_event_next(s, event);
		if (ret != -EAGAIN)
			return ret;
		if (now_ns() > end)
			return -ETIMEDOUT;
		poll(&p, 1, on_module() ? WATCHDOG_MS : 100);
	}
}

/* The next one of a type; others are skipped. */
static inline int event_wait_type(struct shmk *s, struct shmk_event *event, uint32_t type)
{
	int ret;

	do
		ret = event_wait(s, event);
	while (!ret && event->type != type);
	return ret;
}

#endif
