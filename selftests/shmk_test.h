/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * shmk_test.h - what the tests of the module share, beside the commands of
 * raw.h: an attachment with its regions, events, children.
 *
 * Nothing here uses libshmk: a bug in the library must not hide one in the
 * module. All functions that can fail return -errno. Waiting is always for
 * something (a message, an event, a pidfd) and never longer than PATIENCE_MS,
 * which has to be enough for an emulated debug kernel on a busy machine.
 */
#ifndef SHMK_TEST_H
#define SHMK_TEST_H

#include <dirent.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "raw.h"

#define PATIENCE_MS	45000

#define LOAD(p)		__atomic_load_n(p, __ATOMIC_SEQ_CST)
#define STORE(p, v)	__atomic_store_n(p, v, __ATOMIC_SEQ_CST)

static inline uint64_t test_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* ---- pools ---- */

static inline struct shmk_info test_info(int device)
{
	struct shmk_info info;

	memset(&info, 0xa5, sizeof(info));
	info.size = sizeof(info);
	if (raw(device, SHMK_IOC_INFO, &info))
		info.size = 0;
	return info;
}

/* Number of directories in /sys/kernel/shmk/pools. */
static inline int test_sysfs_pools(void)
{
	DIR *dir = opendir("/sys/kernel/shmk/pools");
	struct dirent *d;
	int nr = 0;

	if (!dir)
		return -errno;
	while ((d = readdir(dir)))
		nr += d->d_name[0] != '.';
	closedir(dir);
	return nr;
}

/*
 * No pool is left, to the module as to sysfs: 0, or -ETIMEDOUT. Files go by
 * task work and io_uring's by workers, so this waits for the counter.
 */
static inline int test_no_pools(int device)
{
	uint64_t end = test_now_ns() + PATIENCE_MS * 1000000ULL;
	struct shmk_info info;

	do {
		info = test_info(device);
		if (!info.size)
			return -EIO;
		if (!info.nr_pools && !info.total_bytes && !test_sysfs_pools())
			return 0;
		poll(NULL, 0, 1);
	} while (test_now_ns() < end);
	fprintf(stderr, "# %u pools with %llu bytes are left, %d in sysfs\n", info.nr_pools,
		(unsigned long long)info.total_bytes, test_sysfs_pools());
	return -ETIMEDOUT;
}

/* ---- attachments and their regions ---- */

struct test_att {
	int			fd;
	uint32_t		peer, gen;
	const struct shmk_status *status;
	struct shmk_ledger	*ledger;
	unsigned char		*control;
	unsigned char		*data;
	/* Copied: after the end of the peer the status cannot be read. */
	uint64_t		status_bytes, ledger_bytes, control_bytes, data_bytes;
};

/* @out: where the address goes. */
static inline int test_map(int fd, int prot, uint64_t offset, uint64_t bytes, void *out)
{
	void *p = raw_map(fd, prot, offset, bytes);

	if (p == MAP_FAILED)
		return -errno;
	memcpy(out, &p, sizeof(p));
	return 0;
}

static inline int test_map_all(struct test_att *a, uint32_t flags, uint32_t nr_entries)
{
	int prot = flags & SHMK_ATTACH_F_RDONLY ? PROT_READ : PROT_READ | PROT_WRITE;
	const struct shmk_status *s = raw_status(a->fd);
	int err;

	if (!s)
		return -errno;
	a->status = s;
	a->status_bytes = s->status_bytes;
	a->ledger_bytes = raw_ledger_bytes(nr_entries ?: 4096);
	a->control_bytes = s->control_bytes;
	a->data_bytes = s->data_bytes;
	err = test_map(a->fd, PROT_READ | PROT_WRITE, raw_ledger_offset(s, a->peer),
		       a->ledger_bytes, &a->ledger);
	if (!err)
		err = test_map(a->fd, prot, s->map_control, s->control_bytes, &a->control);
	if (!err)
		err = test_map(a->fd, prot, s->map_data, s->data_bytes, &a->data);
	return err;
}

static inline void test_unmap(struct test_att *a)
{
	if (a->data)
		munmap(a->data, a->data_bytes);
	if (a->control)
		munmap(a->control, a->control_bytes);
	if (a->ledger)
		munmap(a->ledger, a->ledger_bytes);
	if (a->status)
		munmap((void *)a->status, a->status_bytes);
	a->status = NULL;
	a->ledger = NULL;
	a->control = a->data = NULL;
}

/* Ends the peer with reason CLOSED, if it lives. */
static inline void test_close(struct test_att *a)
{
	test_unmap(a);
	if (a->fd > 0)
		close(a->fd);
	a->fd = -1;
}

static inline int test_attach(int pool, uint32_t flags, uint32_t nr_entries,
			      struct test_att *a)
{
	struct shmk_attach ids;
	int err;

	memset(a, 0, sizeof(*a));
	a->fd = raw_attach(pool, flags, nr_entries, &ids);
	if (a->fd < 0)
		return a->fd;
	a->peer = ids.peer;
	a->gen = ids.gen;
	err = test_map_all(a, flags, nr_entries);
	if (err)
		test_close(a);
	return err;
}

static inline __u64 *test_block(const struct test_att *a, uint32_t block)
{
	return &((struct shmk_block *)(a->control + a->status->blocks_off))[block].word;
}

static inline struct shmk_span *test_span(const struct test_att *a, uint32_t span)
{
	return &((struct shmk_span *)(a->control + a->status->spans_off))[span];
}

/* A bit of one of the two span bitmaps. */
static inline bool test_map_bit(const struct test_att *a, uint64_t map_off, uint32_t bit)
{
	return LOAD((uint64_t *)(a->control + map_off) + bit / 64) >> (bit % 64) & 1;
}

static inline uint32_t test_peer_state(const struct test_att *a, uint32_t peer)
{
	return SHMK_PEER_STATE(LOAD(&raw_peer_status(a->status, peer)->word));
}

static inline const struct shmk_queue_status *test_queue_status(const struct test_att *a,
								uint32_t id)
{
	return &((const struct shmk_queue_status *)((const char *)a->status +
						    a->status->queues_off))[id];
}

static inline struct shmk_ring *test_ring(const struct test_att *a, uint32_t id)
{
	return (struct shmk_ring *)(a->control + test_queue_status(a, id)->ring);
}

static inline struct shmk_slot *test_slot(const struct test_att *a, uint32_t id, uint64_t pos)
{
	const struct shmk_queue_status *qs = test_queue_status(a, id);

	return (struct shmk_slot *)((unsigned char *)(test_ring(a, id) + 1) +
				    (pos & (qs->capacity - 1)) * qs->slot_bytes);
}

/* As the library does it: the second word first, and high before both. */
static inline void test_entry(struct test_att *a, uint32_t index, uint64_t what, uint64_t where)
{
	if (LOAD(&a->ledger->high) <= index)
		STORE(&a->ledger->high, index + 1);
	STORE(&a->ledger->entry[index].where, where);
	STORE(&a->ledger->entry[index].what, what);
}

/* ---- events ---- */

/* What poll() says now, or -ETIMEDOUT after @ms. */
static inline int test_poll(int fd, short events, int ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int ret;

	do
		ret = poll(&p, 1, ms);
	while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : ret ? p.revents : -ETIMEDOUT;
}

static inline int test_events(int fd)
{
	return raw(fd, SHMK_IOC_EVENTS, NULL);
}

static inline int test_event_within(int fd, struct shmk_event *event, int ms)
{
	ssize_t n;
	int ret;

	memset(event, 0xa5, sizeof(*event));
	ret = test_poll(fd, POLLIN, ms);
	if (ret < 0)
		return ret;
	n = read(fd, event, sizeof(*event));
	if (n < 0)
		return -errno;
	return n == sizeof(*event) ? 0 : -EIO;
}

/* The next event, whatever it is. */
static inline int test_event(int fd, struct shmk_event *event)
{
	return test_event_within(fd, event, PATIENCE_MS);
}

static inline bool test_is_end(const struct shmk_event *event)
{
	return event->type == SHMK_EV_DIED || event->type == SHMK_EV_DETACHED;
}

/* The next event of the type about that life; @peer 0 is any. Others are dropped. */
static inline int test_event_of(int fd, uint32_t type, uint32_t peer, uint32_t gen,
				struct shmk_event *event)
{
	int err;

	do
		err = test_event(fd, event);
	while (!err && !(event->type == type &&
			 (!peer || (event->peer == peer && event->gen == gen))));
	return err;
}

/* The end of that life, however it came. */
static inline int test_end_of(int fd, uint32_t peer, uint32_t gen, struct shmk_event *event)
{
	int err;

	do
		err = test_event(fd, event);
	while (!err && !(test_is_end(event) && event->peer == peer && event->gen == gen));
	return err;
}

/* Reads all there is now; the number of peers' ends among it. */
static inline int test_ends_now(int fd)
{
	struct shmk_event event;
	int err, nr = 0;

	while (!(err = test_event_within(fd, &event, 0)))
		nr += test_is_end(&event);
	return err == -ETIMEDOUT ? nr : err;
}

/* ---- children ---- */

/*
 * A child runs fn(sock, arg) and exits with what that returns. Parent and
 * child talk through a socket of messages: numbers, and file descriptors.
 */
struct test_child {
	pid_t	pid;
	int	pidfd;
	int	sock;
};

struct test_msg {
	uint64_t	v[3];
};

static inline int test_say_fd(int sock, uint64_t a, uint64_t b, uint64_t c, int fd)
{
	struct test_msg m = { { a, b, c } };
	struct iovec iov = { .iov_base = &m, .iov_len = sizeof(m) };
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = { { 0 } };
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (fd >= 0) {
		h.msg_control = u.buf;
		h.msg_controllen = sizeof(u.buf);
		CMSG_FIRSTHDR(&h)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&h)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&h)->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&h)), &fd, sizeof(int));
	}
	return sendmsg(sock, &h, MSG_NOSIGNAL) == sizeof(m) ? 0 : -errno;
}

static inline int test_say(int sock, uint64_t a, uint64_t b, uint64_t c)
{
	return test_say_fd(sock, a, b, c, -1);
}

/* 0, -EPIPE when the other end is gone, -ETIMEDOUT. @fd: of one that came along, or -1. */
static inline int test_hear_fd(int sock, struct test_msg *m, int *fd)
{
	struct iovec iov = { .iov_base = m, .iov_len = sizeof(*m) };
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u;
	struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.buf,
			    .msg_controllen = sizeof(u.buf) };
	ssize_t n;
	int ret;

	memset(m, 0xa5, sizeof(*m));
	*fd = -1;
	ret = test_poll(sock, POLLIN, PATIENCE_MS);
	if (ret < 0)
		return ret;
	n = recvmsg(sock, &h, MSG_CMSG_CLOEXEC);
	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (n != sizeof(*m))
		return -EPIPE;
	if (CMSG_FIRSTHDR(&h) && CMSG_FIRSTHDR(&h)->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&h)), sizeof(int));
	return 0;
}

static inline int test_hear(int sock, struct test_msg *m)
{
	int fd, err = test_hear_fd(sock, m, &fd);

	if (fd >= 0)
		close(fd);
	return err;
}

/* In a child: say on stderr what went wrong, and end. */
#define CHILD_CHECK(cond) do {							\
	if (!(cond)) {								\
		fprintf(stderr, "# child, %s:%d: not true: %s (errno %d)\n",	\
			__FILE__, __LINE__, #cond, errno);			\
		_exit(99);							\
	}									\
} while (0)

/* In a child: nothing to do any more until the parent is gone or kills us. */
static inline void __attribute__((noreturn)) test_park(int sock)
{
	struct test_msg m;

	while (recv(sock, &m, sizeof(m), 0) < 0 && errno == EINTR)
		;
	_exit(98);
}

static inline int test_child_start(struct test_child *c, int (*fn)(int sock, void *arg),
				   void *arg)
{
	int socks[2];

	*c = (struct test_child){ -1, -1, -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return -errno;
	fflush(stdout);
	c->pid = fork();
	if (c->pid < 0)
		return -errno;
	if (!c->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(socks[0]);
		_exit(fn(socks[1], arg));
	}
	close(socks[1]);
	c->sock = socks[0];
	c->pidfd = syscall(SYS_pidfd_open, c->pid, 0);
	return c->pidfd < 0 ? -errno : 0;
}

/* Waits for the end; the wait status, or -ETIMEDOUT. */
static inline int test_child_end(struct test_child *c)
{
	int status = -1, ret;

	ret = test_poll(c->pidfd, POLLIN, PATIENCE_MS);
	if (ret < 0) {
		kill(c->pid, SIGKILL);
		test_poll(c->pidfd, POLLIN, PATIENCE_MS);
	}
	waitpid(c->pid, &status, 0);
	close(c->pidfd);
	close(c->sock);
	return ret < 0 ? ret : status;
}

static inline int test_child_kill(struct test_child *c)
{
	kill(c->pid, SIGKILL);
	return test_child_end(c);
}

/* Runs it to its end; the exit code, or -errno, or -signal - 1000. */
static inline int test_child_run(int (*fn)(int sock, void *arg), void *arg)
{
	struct test_child c;
	int status = test_child_start(&c, fn, arg);

	if (!status)
		status = test_child_end(&c);
	if (status < 0)
		return status;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1000 - WTERMSIG(status);
}

/* ---- becoming somebody else ---- */

struct test_who {
	const char *name;
	uid_t ruid, euid;
	gid_t gid;
	gid_t extra;		/* supplementary group, 0: none */
	uint64_t caps;		/* effective capabilities */
};

#define CAP(name)	(1ULL << CAP_##name)

static inline int test_set_caps(uint64_t caps)
{
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ (uint32_t)caps, (uint32_t)caps, 0 },
		{ caps >> 32, caps >> 32, 0 },
	};

	return syscall(SYS_capset, &head, data);
}

/* In a child. The parent's death still ends it. */
static inline void test_become(const struct test_who *w)
{
	CHILD_CHECK(!setgroups(w->extra ? 1 : 0, &w->extra));
	CHILD_CHECK(!setresgid(w->gid, w->gid, w->gid));
	CHILD_CHECK(!prctl(PR_SET_KEEPCAPS, 1));
	CHILD_CHECK(!setresuid(w->ruid, w->euid, w->euid));
	CHILD_CHECK(!test_set_caps(w->caps));
	CHILD_CHECK(geteuid() == w->euid && getuid() == w->ruid);
	/* Changing ids has cleared it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

#endif
