// SPDX-License-Identifier: GPL-2.0-only
/*
 * bell.c - sleeping on a queue and waking who sleeps.
 *
 * A queue side file answers poll() from the slot words themselves, so it is
 * level-triggered for poll, select, epoll and io_uring alike.
 *
 * The pair that loses no wake-up crosses from user space into the kernel:
 *
 *   sleeper (here, side_look)             publisher (library, send or receive)
 *     S1 poll_wait(): on the wait queue     P1 store the slot word
 *     S2 waiters = 1                        P2 full fence (or the CAS of P1)
 *     S3 smp_mb()                           P3 waiters != 0 ? swap to 0, ring
 *     S4 look at the slots again
 *
 * Either S4 sees P1, then poll() says ready; or P3 sees S2, then the publisher
 * rings, and the bell finds the sleeper on the wait queue because of S1. S3
 * pairs with P2. (A receiver, whose P1 makes room for senders, has P2 only in a ring that is
 * watched; in another, a sender sleeps in the library and looks again after a time: lib/wait.c.)
 * A publisher that dies between swap and ring still has an entry
 * that names the queue in its ledger (SENDING, TAKEN, ..., WAITING for a batch),
 * and settling rings for it.
 *
 * The waiters word can be written by any full member. A spoiled word costs a
 * wake-up that members of that pool then miss; it costs the kernel nothing.
 */
#include <linux/anon_inodes.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "peer.h"
#include "point.h"
#include "pool.h"
#include "queue.h"
#include "topic.h"
#include "trace.h"

/**
 * struct side - the private data of a queue side file
 * @pool: a reference
 * @queue: held open
 * @side: enum shmk_side
 * @id: of the queue
 * @me: { generation:32, peer:32 } of whose it is; for topics
 * @row: of a topic's reader, and
 * @word: what stood there
 */
struct side {
	struct shmk_pool *pool;
	struct shmk_queue *queue;
	u32 side;
	u32 id;
	u64 me;
	u32 row;
	u64 word;
};

/* A topic's reader has its own idea of what it has not seen yet. */
static int slots_ready(const struct side *s)
{
	const struct shmk_ring_view *rv = &s->queue->rv;

	if (!(rv->flags & SHMK_QUEUE_F_TOPIC))
		return shmk_ring_ready(rv, s->side);
	if (s->side == SHMK_SIDE_SEND)
		return shmk_topic_send_ready(s->pool, rv, s->id, s->me);
	return shmk_topic_recv_ready(s->pool, rv, s->row, s->word);
}

/* Who would be told that nothing comes any more need not wait either. */
static int ring_ready(const struct side *s)
{
	const struct shmk_ring_view *rv = &s->queue->rv;
	int ready = slots_ready(s);

	if (ready || !shmk_queue_draining(s->pool, s->id))
		return ready;
	return s->side == SHMK_SIDE_SEND || rv->flags & SHMK_QUEUE_F_TOPIC ||
	       shmk_ring_drained(rv);
}

static __poll_t side_ready(const struct side *s)
{
	int ready = ring_ready(s);

	if (ready < 0)
		return EPOLLERR | EPOLLHUP;
	if (!ready)
		return 0;
	return s->side == SHMK_SIDE_RECV ? EPOLLIN | EPOLLRDNORM : EPOLLOUT | EPOLLWRNORM;
}

/*
 * At most one peer has the queue open. Told by the one bit that only who asks for
 * it gets (io_uring adds EPOLLRDHUP to what it is asked): who waits for others to come
 * must not be bothered.
 */
static __poll_t side_alone(const struct side *s)
{
	return READ_ONCE(s->queue->nr_open) <= 1 ? EPOLLPRI : 0;
}

static u64 *side_waiters(const struct side *s)
{
	struct shmk_ring *ring = s->queue->rv.ring;

	return s->side == SHMK_SIDE_RECV ? &ring->waiters_recv : &ring->waiters_send;
}

static __poll_t side_look(struct side *s)
{
	__poll_t ready = side_ready(s);

	/* Marked before all are woken: see S1. */
	if (shmk_pool_is_reset(s->pool))
		return EPOLLERR | EPOLLHUP;
	if (ready)
		return ready;
	WRITE_ONCE(*side_waiters(s), 1);			/* S2 */
	smp_mb();						/* S3 */
	shmk_pass(SHMK_AT_POLL_SET);
	return side_ready(s) | side_alone(s);			/* S4 */
}

/*
 * A look goes through up to three laps of a ring, if its members want that, and the core
 * yields to nobody between the files of one poll(), which may be the same many times. Whoever calls
 * ->poll may sleep: that of epoll takes a mutex. (A dying one is on the wait queue
 * all the same: others may have the epoll set, too.)
 */
static __poll_t side_poll(struct file *file, poll_table *wait)
{
	struct side *s = file->private_data;
	u32 id = s->queue - s->pool->queues;
	__poll_t ready;

	poll_wait(file, &s->queue->wait[s->side], wait);	/* S1 */
	cond_resched();
	if (fatal_signal_pending(current))
		return EPOLLERR;
	shmk_pass(SHMK_AT_POLL_QUEUED);
	ready = side_look(s);
	if (ready & ~EPOLLPRI)
		trace_shmk_ready(s->pool, id, s->side);
	else
		trace_shmk_armed(s->pool, id, s->side);
	return ready;
}

static void side_show(struct seq_file *m, struct file *file)
{
	struct side *s = file->private_data;

	shmk_pool_show(m, s->pool);
	seq_printf(m, "queue:\t%s\n", s->queue->name);
	seq_printf(m, "queue-id:\t%td\n", s->queue - s->pool->queues);
	seq_printf(m, "side:\t%s\n", s->side == SHMK_SIDE_RECV ? "recv" : "send");
	seq_printf(m, "waiters:\t%llu\n", READ_ONCE(*side_waiters(s)));
}

static int side_release(struct inode *inode, struct file *file)
{
	struct side *s = file->private_data;

	shmk_queue_unhold(s->pool, s->queue);
	shmk_pool_put(s->pool);
	kfree(s);
	return 0;
}

static const struct file_operations side_ops = {
	.owner		= THIS_MODULE,
	.poll		= side_poll,
	.show_fdinfo	= side_show,
	.release	= side_release,
};

/* Messages of a topic are there for a reader, and there is no reader without a row. */
static int check_row(struct shmk_peer *peer, struct side *s, const struct shmk_queue_fd *args)
{
	bool topic = s->queue->rv.flags & SHMK_QUEUE_F_TOPIC;
	bool row = args->flags & SHMK_QUEUE_FD_F_ROW;

	if (row != (topic && args->side == SHMK_SIDE_RECV))
		return -EINVAL;
	return row ? shmk_topic_row(peer, args->id, args->row, &s->word) : 0;
}

/**
 * shmk_side_file() - a file to sleep on one side of a queue
 * @peer: has the queue open
 * @args: checked, but for the ids
 */
struct file *shmk_side_file(struct shmk_peer *peer, const struct shmk_queue_fd *args)
{
	struct file *file;
	struct side *s;
	int err;

	s = kzalloc(sizeof(*s), GFP_KERNEL_ACCOUNT);
	if (!s)
		return ERR_PTR(-ENOMEM);
	s->queue = shmk_queue_hold(peer, args->id);
	if (IS_ERR(s->queue)) {
		file = ERR_CAST(s->queue);
		goto free_side;
	}
	s->pool = peer->pool;
	s->side = args->side;
	s->id = s->queue - peer->pool->queues;
	s->me = (u64)peer->gen << 32 | peer->id;
	s->row = args->row;
	err = check_row(peer, s, args);
	if (err) {
		file = ERR_PTR(err);
		goto unhold;
	}
	file = shmk_point(SHMK_AT_SIDE_HELD) ? ERR_PTR(-EDOM) :
	       anon_inode_getfile("[shmk-queue]", &side_ops, s, O_RDONLY);
	if (IS_ERR(file))
		goto unhold;
	refcount_inc(&s->pool->refs);
	return file;

unhold:
	shmk_queue_unhold(s->pool, s->queue);
free_side:
	kfree(s);
	return file;
}

/**
 * shmk_bell_ring() - wake who sleeps on these sides
 * @pool: of the attachment
 * @bells: user pointer to struct shmk_bell_one
 * @nr: 1 .. SHMK_BELLS_MAX
 *
 * All are checked before the first rings. A queue that is not there has no
 * sleepers.
 *
 * Return: 0, -EINVAL or -EFAULT.
 */
int shmk_bell_ring(struct shmk_pool *pool, u64 bells, u32 nr)
{
	struct shmk_bell_one one[SHMK_BELLS_MAX];
	u32 i;

	if (!nr || nr > SHMK_BELLS_MAX)
		return -EINVAL;
	if (copy_from_user(one, u64_to_user_ptr(bells), nr * sizeof(one[0])))
		return -EFAULT;
	for (i = 0; i < nr; i++)
		if (one[i].id >= pool->view.nr_queues || one[i].side > SHMK_SIDE_SEND)
			return -EINVAL;
	shmk_pass(SHMK_AT_BELL_CHECKED);
	for (i = 0; i < nr; i++) {
		trace_shmk_bell(pool, one[i].id, one[i].side);
		shmk_queue_wake(pool, one[i].id, one[i].side);
	}
	return 0;
}
