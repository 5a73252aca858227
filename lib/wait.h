/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * wait.h - what wait.c (when to sleep), uring.c (the fds and the second way to
 * sleep on them) and poller.c (sleeping on many) know of each other.
 */
#ifndef SHMK_WAIT_H
#define SHMK_WAIT_H

#include <poll.h>

#include "internal.h"

/* What a sleep ended by; none of them at its timeout or for no reason at all. */
#define WOKEN_SIDE	0x1
#define WOKEN_INTERRUPT	0x2
#define WOKEN_GONE	0x4	/* POLLERR or POLLHUP of the side: nothing will come any more */

#define NS_PER_S	1000000000LL
#define NO_ENTRY_NS	1000000LL	/* who cannot be armed looks so often */

/* wait.c: is there something to do for the side? */
bool side_ready(struct shmk_queue *q, uint32_t side);
/* wait.c: nothing to do for the side, and nobody else who could change that, if asked for */
bool side_hung_up(struct shmk_queue *q, uint32_t side);
/* What to poll the side's fd for. */
static inline short side_events(const struct shmk_queue *q, uint32_t side)
{
	return (short)(q->side[side].events | (q->hangup ? POLLPRI : 0));
}

/* wait.c: 0 if the side became ready after all, -EAGAIN: armed, -ENOBUFS: cannot be armed. */
int side_arm(struct shmk_queue *q, uint32_t side);
/* Without an entry: the fd then tells old news too, but it tells all. */
int side_arm_undrained(struct shmk_queue *q, uint32_t side);

/* Is it worth while to spin, and was it? */
bool spin_wanted(struct shmk *s, struct spin *spin);
void spin_learn(struct spin *spin, bool success);

/* Looks for the dead once in a slice. Returns when the next time is. */
int64_t wait_reap(struct shmk *s, int64_t now);
/* 0: go on; or why a wait must end without having got anything. */
int wait_over(struct shmk *s, int64_t now, int64_t deadline);
int64_t timeout_until(int64_t now, int64_t when, int64_t deadline);
/* @fd may be -1; @timeout_ns negative: for ever. Returns WOKEN_*. */
int poll_sleep(struct shmk *s, int fd, short events, int64_t timeout_ns);
void interrupt_lower(struct shmk *s);

static inline bool interrupted(struct shmk *s)
{
	return atomic_load_explicit(&s->interrupted, memory_order_relaxed);
}

/* uring.c: makes the fd of a side unless it is there. */
int side_open(struct shmk_queue *q, uint32_t side);
/*
 * Sleeps in the library's ring until the side or the interrupt fd is ready, or
 * @timeout_ns (negative: for ever) is over. Returns WOKEN_* or -ENOSYS: there
 * is no io_uring here; s->no_uring is set by then.
 */
int uring_sleep(struct shmk_queue *q, uint32_t side, int64_t timeout_ns);
/* No ring of the library polls this side any more. */
void uring_forget(struct shmk *s, uint64_t serial);
void uring_exit(struct shmk *s);

/* poller.c: takes both sides of @q out of all pollers. */
void poller_forget(struct shmk_queue *q);

#endif
