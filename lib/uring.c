// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * uring.c - the fds of queue sides: for poll, epoll and select, in the caller's
 * io_uring, and in rings of the library's own.
 *
 * A waiter is a ring with two multishot polls: the interrupt fd, and the side
 * that its thread slept on last. While that stays the same a sleep is one
 * io_uring_enter() that submits nothing. Only one side, because an armed poll
 * keeps the file, and with it the queue, open.
 *
 * Rings are not for several threads, and a poll completes in the context of the
 * thread that armed it, which may be busy or stopped elsewhere; so a waiter
 * belongs to the thread that made it (the kernel enforces it:
 * SINGLE_ISSUER), and its completions wait until that thread sleeps again
 * instead of interrupting its other system calls (DEFER_TASKRUN). Idle waiters
 * are in a list; those whose thread has ended are found when a new one is
 * needed. Kernels without these flags, like those where io_uring is forbidden,
 * get poll.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "wait.h"

/* user_data; each poll of a side has its own, from TAG_SIDE on */
#define TAG_NONE	0
#define TAG_INTERRUPT	1
#define TAG_SIDE	2

#define WAITER_SQES	4	/* at most 3 are needed at once */

struct waiter {
	struct waiter	*next;
	struct io_uring	ring;
	pthread_t	thread;
	pid_t		tid;
	bool		interrupt_armed;
	uint64_t	serial;		/* of the side that is armed, or 0 */
	uint64_t	tag;		/* of its poll */
};

/* ------------------------------------------------------------- waiters -- */

static void waiter_free(struct waiter *w)
{
	io_uring_queue_exit(&w->ring);
	free(w);
}

static int waiter_new(struct waiter **out)
{
	struct waiter *w = calloc(1, sizeof(*w));
	int ret;

	if (!w)
		return -ENOMEM;
	ret = io_uring_queue_init(WAITER_SQES, &w->ring,
				  IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
	if (ret) {
		free(w);
		return ret;
	}
	w->thread = pthread_self();
	w->tid = gettid();
	w->tag = TAG_SIDE;
	*out = w;
	return 0;
}

/* A tid that is in use again only delays the end of the waiter. */
static bool thread_gone(const struct shmk *s, const struct waiter *w)
{
	return tgkill(s->pid, w->tid, 0) && errno == ESRCH;
}

/*
 * Takes those idle waiters out of the list that @which wants. Freeing them is
 * not for under the lock.
 */
static struct waiter *waiters_take(struct shmk *s,
				   bool (*which)(const struct shmk *s, const struct waiter *w,
						 uint64_t arg),
				   uint64_t arg, bool all)
{
	struct waiter **at = &s->waiters, *w, *taken = NULL;
	bool locked = lock(&s->lock);

	while ((w = *at)) {
		if (!which(s, w, arg)) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = taken;
		taken = w;
		if (!all)
			break;
	}
	unlock(&s->lock, locked);
	return taken;
}

static void waiters_free(struct waiter *w)
{
	struct waiter *next;

	for (; w; w = next) {
		next = w->next;
		waiter_free(w);
	}
}

static bool is_mine(const struct shmk *s, const struct waiter *w, uint64_t arg)
{
	(void)s, (void)arg;
	return pthread_equal(w->thread, pthread_self());
}

static bool is_orphan(const struct shmk *s, const struct waiter *w, uint64_t arg)
{
	(void)arg;
	return thread_gone(s, w);
}

static bool polls_serial(const struct shmk *s, const struct waiter *w, uint64_t serial)
{
	(void)s;
	return w->serial == serial;
}

static int waiter_get(struct shmk *s, struct waiter **out)
{
	*out = waiters_take(s, is_mine, 0, false);
	if (*out)
		return 0;
	waiters_free(waiters_take(s, is_orphan, 0, true));
	return waiter_new(out);
}

static void waiter_put(struct shmk *s, struct waiter *w)
{
	bool locked = lock(&s->lock);

	w->next = s->waiters;
	s->waiters = w;
	unlock(&s->lock, locked);
}

/* --------------------------------------------------------------- polls -- */

static void prep_disarm(struct waiter *w)
{
	struct io_uring_sqe *sqe;

	if (!w->serial)
		return;
	sqe = io_uring_get_sqe(&w->ring);
	io_uring_prep_poll_remove(sqe, w->tag);
	io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
	io_uring_sqe_set_data64(sqe, TAG_NONE);
	w->serial = 0;
}

/* A poll that ended has a new tag when it is armed again: old completions say nothing about it. */
static void prep_arm(struct waiter *w, const struct shmk *s, const struct side_fd *side,
		     short events)
{
	struct io_uring_sqe *sqe;

	if (!w->interrupt_armed) {
		sqe = io_uring_get_sqe(&w->ring);
		io_uring_prep_poll_multishot(sqe, s->interrupt_fd, POLLIN);
		io_uring_sqe_set_data64(sqe, TAG_INTERRUPT);
		w->interrupt_armed = true;
	}
	if (w->serial == side->serial)
		return;
	prep_disarm(w);
	sqe = io_uring_get_sqe(&w->ring);
	io_uring_prep_poll_multishot(sqe, side->fd, (unsigned short)events);
	io_uring_sqe_set_data64(sqe, ++w->tag);
	w->serial = side->serial;
}

/* One completion: WOKEN_*, or -errno of a poll that cannot be. */
static int cqe_meaning(struct waiter *w, const struct io_uring_cqe *cqe)
{
	bool more = cqe->flags & IORING_CQE_F_MORE;

	if (cqe->user_data == TAG_INTERRUPT) {
		w->interrupt_armed = more;
		return WOKEN_INTERRUPT;
	}
	if (cqe->user_data != w->tag)
		return 0;
	if (!more)
		w->serial = 0;
	if (cqe->res < 0)
		return cqe->res == -ECANCELED ? 0 : cqe->res;
	return cqe->res & (POLLERR | POLLHUP | POLLNVAL) ? WOKEN_GONE : WOKEN_SIDE;
}

static int take_cqes(struct waiter *w)
{
	struct io_uring_cqe *cqe;
	unsigned int head, nr = 0;
	int meaning, woken = 0, err = 0;

	io_uring_for_each_cqe(&w->ring, head, cqe) {
		meaning = cqe_meaning(w, cqe);
		if (meaning < 0)
			err = meaning;
		else
			woken |= meaning;
		nr++;
	}
	io_uring_cq_advance(&w->ring, nr);
	return err ? err : woken;
}

/* -EEXIST: a new thread that looks like the one which made the ring. */
static bool ring_usable(int ret)
{
	return ret >= 0 || ret == -ETIME || ret == -EINTR || ret == -EAGAIN || ret == -EBUSY;
}

static int waiter_sleep(struct waiter *w, const struct shmk *s, const struct side_fd *side,
			short events, int64_t timeout_ns)
{
	struct __kernel_timespec ts = {
		.tv_sec = timeout_ns / 1000000000,
		.tv_nsec = timeout_ns % 1000000000,
	};
	struct io_uring_cqe *cqe;
	int ret;

	prep_arm(w, s, side, events);
	ret = io_uring_submit_and_wait_timeout(&w->ring, &cqe, 1, timeout_ns < 0 ? NULL : &ts,
					       NULL);
	return ring_usable(ret) ? 0 : ret;
}

/*
 * What makes a ring useless (forbidden, out of memory or fds) will most likely
 * not pass, so there is one try in the life of the attachment.
 */
int uring_sleep(struct shmk_queue *q, uint32_t side, int64_t timeout_ns)
{
	struct shmk *s = q->shmk;
	struct waiter *w;
	int ret = waiter_get(s, &w);

	if (ret)
		goto unusable;
	ret = waiter_sleep(w, s, &q->side[side], side_events(q, side), timeout_ns);
	if (ret) {
		waiter_free(w);
		if (ret == -EEXIST)
			return 0;
		goto unusable;
	}
	ret = take_cqes(w);
	waiter_put(s, w);
	return ret;
unusable:
	WRITE_ONCE(s->no_uring, true);
	return -ENOSYS;
}

/*
 * Closing a ring lets its polls go some time later; the own ones are taken back
 * before, so that a queue which was closed is closed. A forked child only
 * closes its copies.
 */
static void waiter_retire(const struct shmk *s, struct waiter *w)
{
	if (w->serial && s->pid == getpid() && is_mine(s, w, 0)) {
		prep_disarm(w);
		/* At least the poll's own last completion comes, or is there. */
		io_uring_submit_and_wait(&w->ring, 1);
	}
	waiter_free(w);
}

static void waiters_retire(const struct shmk *s, struct waiter *w)
{
	struct waiter *next;

	for (; w; w = next) {
		next = w->next;
		waiter_retire(s, w);
	}
}

void uring_forget(struct shmk *s, uint64_t serial)
{
	waiters_retire(s, waiters_take(s, polls_serial, serial, true));
}

/* Nothing runs beside; in a forked child the lock may have been held for ever. */
void uring_exit(struct shmk *s)
{
	waiters_retire(s, s->waiters);
	s->waiters = NULL;
}

/* ------------------------------------------------------------ side fds -- */

/*
 * The fd is made without the lock: on the local backend that may have to wait for the pool
 * lock, and our other threads need this one to allocate. Who comes second drops his.
 */
int side_open(struct shmk_queue *q, uint32_t which)
{
	struct side_fd *side = &q->side[which];
	struct shmk *s = q->shmk;
	short events;
	bool locked;
	int fd;

	if (smp_load_acquire(&side->fd) >= 0)	/* F1 */
		return 0;
	fd = s->backend->side_fd(s, q->id, which, q->row, &events);
	if (fd < 0)
		return fd;
	locked = lock(&s->lock);
	if (side->fd < 0) {
		side->events = events;
		side->serial = ++s->last_serial;
		smp_store_release(&side->fd, fd);	/* F0: the events and the serial, for F1 */
		fd = -1;
	}
	unlock(&s->lock, locked);
	if (fd >= 0)
		close(fd);
	return 0;
}

static bool side_valid(int side)
{
	return side == SHMK_RECV || side == SHMK_SEND;
}

/*
 * On the local backend the pipe says nothing about what came before anybody
 * waited: wait_arm() rings if there is something, so it is level-triggered from
 * the start.
 */
int side_export(struct shmk_queue *q, uint32_t side)
{
	ERRNO_KEPT;
	int ret = side_open(q, side);

	if (ret)
		return ret;
	store_exported(q->shmk);
	if (side == SHMK_SIDE_SEND)
		wait_watch(q);
	WRITE_ONCE(q->side[side].exported, true);
	ret = wait_arm(q, side);
	return ret == -EAGAIN || !ret ? q->side[side].fd : ret;
}

int shmk_queue_fd(struct shmk_queue *q, int side)
{
	if (!side_valid(side))
		return -EINVAL;
	if (q->shmk->rdonly)
		return -EROFS;
	return side_export(q, side);
}

short shmk_queue_events(struct shmk_queue *q, int side)
{
	ERRNO_KEPT;
	int ret;

	if (!side_valid(side))
		return 0;
	ret = side_open(q, side);
	return ret ? 0 : q->side[side].events;
}

/* --------------------------------------------------- the caller's ring -- */

int shmk_uring_prep_wait(struct shmk_queue *q, int side, struct io_uring_sqe *sqe)
{
	int fd = shmk_queue_fd(q, side);

	if (fd < 0)
		return fd;
	io_uring_prep_poll_multishot(sqe, fd, shmk_queue_events(q, side));
	return 0;
}

int shmk_uring_handle(struct shmk_queue *q, const struct io_uring_cqe *cqe)
{
	(void)q;
	if (cqe->res < 0)
		return cqe->res;
	return cqe->flags & IORING_CQE_F_MORE ? 0 : 1;
}
