/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * wait.h - what wait.c (when to sleep) and uring.c (the fds and the second way
 * to sleep on them) know of each other.
 */
#ifndef SHMK_WAIT_H
#define SHMK_WAIT_H

#include "internal.h"

/* What a sleep ended by; none of them at its timeout or for no reason at all. */
#define WOKEN_SIDE	0x1
#define WOKEN_INTERRUPT	0x2
#define WOKEN_GONE	0x4	/* POLLERR or POLLHUP of the side: nothing will come any more */

/* wait.c: 0 if the side became ready after all, -EAGAIN: armed, -ENOBUFS: cannot be armed. */
int side_arm(struct shmk_queue *q, uint32_t side);

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

#endif
