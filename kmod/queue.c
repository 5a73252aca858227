// SPDX-License-Identifier: GPL-2.0-only
/*
 * queue.c - the table of a pool's queues, and the room for their rings.
 *
 * The kernel decides where a ring is and how large; what is in it belongs to
 * the peers. A queue's place and geometry stay the same while any peer or any
 * queue side file has it open, and a dead peer has its queues open until it is
 * settled, so neither poll nor settling can meet a ring that moves.
 *
 * Making and removing are in three steps, the middle one (zeroing the ring,
 * freeing its messages) without the lock: the stage BUSY keeps the name and
 * the room meanwhile.
 *
 * A queue that is transient, or drained, is removed by whoever lets go of it last:
 * closing it, dying, closing a side file.
 *
 * Rings are placed first fit; the list pool->rings is in the order of their
 * offsets, so free room is what lies between neighbours.
 */
#include <linux/bitmap.h>
#include <linux/jiffies.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "event.h"
#include "peer.h"
#include "point.h"
#include "pool.h"
#include "quarantine.h"
#include "queue.h"
#include "topic.h"
#include "trace.h"
#include "user.h"

#define RING_ALIGN	256U	/* no ring shares its cache lines, or their neighbours */

/* So many slots of a ring are gone through before others may run, */
#define PIECE_SHIFT	12

/* and a queue with more than so many is not removed by a process that dies: a worker does. */
#define INLINE_SHIFT	10

int shmk_queues_init(struct shmk_pool *pool, u32 nr_queues, u32 nr_rows)
{
	u32 i;

	pool->queue_ids = bitmap_zalloc(nr_queues, GFP_KERNEL_ACCOUNT);
	pool->row_ids = bitmap_zalloc(nr_rows, GFP_KERNEL_ACCOUNT);
	pool->queues = kvcalloc(nr_queues, sizeof(*pool->queues), GFP_KERNEL_ACCOUNT);
	if (!pool->queue_ids || !pool->row_ids || !pool->queues)
		return -ENOMEM;
	for (i = 0; i < nr_queues; i++) {
		init_waitqueue_head(&pool->queues[i].wait[SHMK_SIDE_RECV]);
		init_waitqueue_head(&pool->queues[i].wait[SHMK_SIDE_SEND]);
	}
	return 0;
}

static void uncharge(struct shmk_queue *queue)
{
	if (!queue->user)
		return;
	shmk_user_uncharge(queue->user, SHMK_QUOTA_QUEUES);
	shmk_user_put(queue->user);
	queue->user = NULL;
}

void shmk_queues_free(struct shmk_pool *pool)
{
	struct shmk_queue *queue;

	if (pool->queues)
		list_for_each_entry(queue, &pool->rings, node)
			uncharge(queue);
	kvfree(pool->queues);
	bitmap_free(pool->row_ids);
	bitmap_free(pool->queue_ids);
}

static struct shmk_queue *queue_at(struct shmk_pool *pool, u32 id)
{
	if (id >= pool->view.nr_queues)
		return NULL;
	return &pool->queues[array_index_nospec(id, pool->view.nr_queues)];
}

static u32 queue_id(const struct shmk_pool *pool, const struct shmk_queue *queue)
{
	return queue - pool->queues;
}

static u32 queue_gen(const struct shmk_pool *pool, u32 id)
{
	return SHMK_QUEUE_GEN(pool->queue_status[id].word);
}

static struct shmk_queue *find_locked(struct shmk_pool *pool, const char *name)
{
	struct shmk_queue *queue;

	lockdep_assert_held(&pool->lock);
	list_for_each_entry(queue, &pool->rings, node)
		if (!strcmp(queue->name, name))
			return queue;
	return NULL;
}

/* READY, and of this generation if one is given. */
static struct shmk_queue *ready_locked(struct shmk_pool *pool, u32 id, u32 gen)
{
	struct shmk_queue *queue = queue_at(pool, id);

	lockdep_assert_held(&pool->lock);
	if (!queue || queue->stage != SHMK_QUEUE_STAGE_READY || queue_gen(pool, id) != gen)
		return NULL;
	return queue;
}

/* Links @queue where its ring fits. */
static bool place_locked(struct shmk_pool *pool, struct shmk_queue *queue, u64 bytes)
{
	u64 at = pool->status->rings_off;
	u64 end = at + pool->status->rings_bytes;
	struct shmk_queue *next;

	list_for_each_entry(next, &pool->rings, node) {
		if (next->offset - at >= bytes)
			break;
		at = next->offset + next->bytes;
	}
	if (list_entry_is_head(next, &pool->rings, node) && end - at < bytes)
		return false;
	queue->offset = at;
	queue->bytes = bytes;
	list_add_tail(&queue->node, &next->node);
	return true;
}

static int reserve_locked(struct shmk_peer *peer, struct shmk_queue_create *args, u64 bytes)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue;
	int err;
	u32 id;

	if (!shmk_peer_alive(peer))
		return -ENXIO;
	if (find_locked(pool, args->name))
		return -EEXIST;
	id = find_first_zero_bit(pool->queue_ids, pool->view.nr_queues);
	if (id >= pool->view.nr_queues)
		return -ENOSPC;
	queue = &pool->queues[id];
	if (!place_locked(pool, queue, bytes))
		return -ENOSPC;
	err = shmk_topic_reserve_locked(pool, id, args);
	if (err)
		goto unplace;
	err = shmk_user_charge(peer->user, SHMK_QUOTA_QUEUES);
	if (err)
		goto unreserve;
	shmk_user_get(peer->user);
	queue->user = peer->user;
	__set_bit(id, pool->queue_ids);
	queue->stage = SHMK_QUEUE_STAGE_BUSY;
	shmk_pool_count_locked(pool, &pool->wakes_before, atomic64_xchg(&queue->nr_wakes, 0));
	strscpy(queue->name, args->name, sizeof(queue->name));
	args->id = id;
	args->gen = queue_gen(pool, id) + 1;
	return 0;

unreserve:
	shmk_topic_unreserve_locked(pool, id);
unplace:
	list_del(&queue->node);
	return err;
}

static void unreserve_locked(struct shmk_pool *pool, struct shmk_queue *queue)
{
	list_del(&queue->node);
	uncharge(queue);
	shmk_topic_unreserve_locked(pool, queue_id(pool, queue));
	__clear_bit(queue_id(pool, queue), pool->queue_ids);
	queue->stage = SHMK_QUEUE_STAGE_FREE;
	queue->rv.slots = NULL;
}

static int check_args(struct shmk_queue_create *args)
{
	if (args->flags & ~SHMK_QUEUE_F_ALL)
		return -EINVAL;
	if (args->max_tries > SHMK_TRIES_MAX)
		return -EINVAL;
	if (args->max_tries && !(args->flags & SHMK_QUEUE_F_REDELIVER))
		return -EINVAL;
	if (!shmk_name_valid(args->name))
		return -EINVAL;
	if (!is_power_of_2(args->capacity) || args->capacity > SHMK_CAPACITY_MAX)
		return -EINVAL;
	if (!args->slot_bytes)
		args->slot_bytes = SHMK_SLOT_MIN;
	if (!is_power_of_2(args->slot_bytes) || args->slot_bytes < SHMK_SLOT_MIN ||
	    args->slot_bytes > SHMK_SLOT_MAX)
		return -EINVAL;
	return shmk_topic_check(args);
}

static void abort_create(struct shmk_pool *pool, struct shmk_queue *queue)
{
	spin_lock(&pool->lock);
	unreserve_locked(pool, queue);
	spin_unlock(&pool->lock);
}

/**
 * shmk_queue_create() - take a name, an id and room, and zero the ring
 * @peer: read-write
 * @args: in and out
 *
 * Followed by shmk_queue_publish() or shmk_queue_abort().
 *
 * Return: 0, -EINVAL, -EACCES, -EEXIST, -ENOSPC, -EPERM or -ENXIO.
 */
int shmk_queue_create(struct shmk_peer *peer, struct shmk_queue_create *args)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue;
	u64 bytes;
	int err;

	err = check_args(args);
	if (err)
		return err;
	if (peer->rdonly)
		return -EACCES;
	bytes = ALIGN(sizeof(struct shmk_ring) + (u64)args->capacity * args->slot_bytes,
		      RING_ALIGN);
	spin_lock(&pool->lock);
	err = reserve_locked(peer, args, bytes);
	spin_unlock(&pool->lock);
	if (err)
		return err;
	queue = &pool->queues[args->id];
	shmk_pass(SHMK_AT_QUEUE_RESERVED);
	memset(pool->control.addr + queue->offset, 0, queue->bytes);
	shmk_pass(SHMK_AT_QUEUE_ZEROED);
	queue->rv = (struct shmk_ring_view){
		.ring		= pool->control.addr + queue->offset,
		.slots		= pool->control.addr + queue->offset + sizeof(struct shmk_ring),
		.capacity_shift	= ilog2(args->capacity),
		.slot_bytes	= args->slot_bytes,
		.flags		= args->flags,
		.max_tries	= args->max_tries,
	};
	if (args->flags & SHMK_QUEUE_F_TOPIC)
		err = shmk_topic_take_block(pool, args->id);
	if (err)
		abort_create(pool, queue);
	return err;
}

void shmk_queue_abort(struct shmk_peer *peer, const struct shmk_queue_create *args)
{
	if (args->flags & SHMK_QUEUE_F_TOPIC && shmk_topic_put_block(peer->pool, args->id))
		shmk_quarantine_look(peer->pool);
	abort_create(peer->pool, &peer->pool->queues[args->id]);
}

static void set_open_locked(struct shmk_pool *pool, u32 id, u32 nr_open)
{
	WRITE_ONCE(pool->queues[id].nr_open, nr_open);	/* side_poll() reads it without lock */
	/* Who sees that a sender has closed sees all it sent: H in lib/wait.c. */
	smp_store_release(&pool->queue_status[id].nr_open, nr_open);
}

static void count_locked(struct shmk_pool *pool, s64 change)
{
	shmk_pool_count_locked(pool, &pool->status->queues_now, change);
	shmk_pool_count_locked(pool, &pool->status->epoch, 1);
}

/* @peer: who did it, or NULL: nobody who is there any more. */
static void tell(struct shmk_pool *pool, struct shmk_peer *peer, u32 type, u32 id)
{
	struct shmk_event event = {
		.type	= type,
		.queue	= id,
	};

	if (!peer) {
		shmk_event_push(pool, &event, NULL, pool->creator);
		return;
	}
	event.peer = peer->id;
	event.gen = peer->gen;
	memcpy(event.comm, peer->comm, sizeof(event.comm));
	shmk_event_push(pool, &event, peer->pid, peer->uid);
}

/* Some of a ring's slots as a ring of its own, for who goes through all in whatever order. */
static u32 nr_pieces(const struct shmk_ring_view *rv)
{
	return rv->capacity_shift > PIECE_SHIFT ? 1U << (rv->capacity_shift - PIECE_SHIFT) : 1;
}

static struct shmk_ring_view piece_of(const struct shmk_ring_view *rv, u32 nr)
{
	struct shmk_ring_view piece = *rv;

	piece.capacity_shift = min_t(u32, rv->capacity_shift, PIECE_SHIFT);
	piece.slots += ((size_t)nr << piece.capacity_shift) * rv->slot_bytes;
	return piece;
}

/* Returns whether some are in quarantine now. */
static bool free_messages(struct shmk_pool *pool, const struct shmk_ring_view *rv)
{
	struct shmk_settled freed = { };
	struct shmk_ring_view piece;
	u32 i;

	for (i = 0; i < nr_pieces(rv); i++) {
		piece = piece_of(rv, i);
		shmk_settle_queue(&pool->view, &piece, &freed);
		cond_resched();
	}
	return freed.pinned;
}

static bool is_drained(const struct shmk_ring_view *rv)
{
	struct shmk_ring_view piece;
	u32 i;

	for (i = 0; i < nr_pieces(rv); i++) {
		piece = piece_of(rv, i);
		if (!shmk_ring_drained(&piece))
			return false;
		cond_resched();
	}
	return true;
}

/*
 * Of a queue that is BUSY: nobody has it, nobody finds it. Who sent what is in there may
 * be dead, and its pins last. Returns whether some of it is in quarantine now.
 */
static bool finish_remove(struct shmk_pool *pool, struct shmk_queue *queue, struct shmk_peer *peer)
{
	bool pinned;

	shmk_pass(SHMK_AT_REMOVE_BEGUN);
	if (queue->rv.flags & SHMK_QUEUE_F_TOPIC)
		pinned = shmk_topic_put_block(pool, queue_id(pool, queue));
	else
		pinned = free_messages(pool, &queue->rv);
	shmk_pass(SHMK_AT_REMOVE_FREED);

	spin_lock(&pool->lock);
	unreserve_locked(pool, queue);
	count_locked(pool, -1);
	shmk_sysfs_changed(pool, SHMK_SHOWN_QUEUES, queue_id(pool, queue));
	tell(pool, peer, SHMK_EV_QUEUE_REMOVED, queue_id(pool, queue));
	trace_shmk_queue_removed(pool, queue_id(pool, queue), queue->name);
	spin_unlock(&pool->lock);
	shmk_event_wake(pool);
	return pinned;
}

static bool unused_locked(const struct shmk_queue *queue)
{
	return !queue->nr_open && !queue->nr_files;
}

/* May it go by itself, as far as can be told without looking at its slots? */
static bool leaving_locked(struct shmk_pool *pool, const struct shmk_queue *queue)
{
	u64 word = pool->queue_status[queue_id(pool, queue)].word;

	lockdep_assert_held(&pool->lock);
	return queue->stage == SHMK_QUEUE_STAGE_READY && unused_locked(queue) &&
	       SHMK_QUEUE_FLAGS(word) & (SHMK_QUEUE_F_TRANSIENT | SHMK_QUEUE_F_DRAIN);
}

static void take_locked(struct shmk_pool *pool, struct shmk_queue *queue)
{
	struct shmk_queue_status *qs = &pool->queue_status[queue_id(pool, queue)];

	queue->stage = SHMK_QUEUE_STAGE_BUSY;
	WRITE_ONCE(qs->word, SHMK_QUEUE_WORD(SHMK_QUEUE_GEN(qs->word), 0, SHMK_QUEUE_NONE));
}

/*
 * Somebody has let go of a queue, or it has begun to drain. The slots are looked at without
 * the lock, and what was seen is good if nobody has opened it since: without that
 * nothing can come, and nothing is under way. Else it is for who closes it next.
 *
 * Returns as finish_remove().
 */
static bool collect(struct shmk_pool *pool, struct shmk_queue *queue)
{
	struct shmk_ring_view rv;
	bool go, look;
	u32 opened;

	spin_lock(&pool->lock);
	go = leaving_locked(pool, queue);
	rv = queue->rv;
	opened = queue->opened;
	spin_unlock(&pool->lock);
	look = !(rv.flags & (SHMK_QUEUE_F_TRANSIENT | SHMK_QUEUE_F_TOPIC));
	if (!go || (look && !is_drained(&rv)))
		return false;
	shmk_pass(SHMK_AT_COLLECT_LOOKED);
	spin_lock(&pool->lock);
	go = leaving_locked(pool, queue) && queue->opened == opened;
	if (go)
		take_locked(pool, queue);
	spin_unlock(&pool->lock);
	return go && finish_remove(pool, queue, NULL);
}

/* The same for who has time: most of what is in quarantine then is only large. */
static void collect_now(struct shmk_pool *pool, struct shmk_queue *queue)
{
	if (collect(pool, queue))
		shmk_quarantine_look(pool);
}

/**
 * shmk_queue_publish() - the queue is there, open for its maker; cannot fail
 *
 * A maker that another of its threads has ended meanwhile leaves a queue that
 * nobody has open.
 */
void shmk_queue_publish(struct shmk_peer *peer, const struct shmk_queue_create *args)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue_status *qs = &pool->queue_status[args->id];
	struct shmk_queue *queue = &pool->queues[args->id];

	spin_lock(&pool->lock);
	qs->ring = queue->offset;
	qs->capacity = args->capacity;
	qs->slot_bytes = args->slot_bytes;
	memcpy(qs->name, queue->name, sizeof(qs->name));
	queue->stage = SHMK_QUEUE_STAGE_READY;
	if (shmk_peer_alive(peer)) {
		peer->opens[args->id] = 1;
		queue->opened++;
		set_open_locked(pool, args->id, 1);
	}
	/* Readers in user space: the state is READY only when all else is there. */
	smp_store_release(&qs->word, SHMK_QUEUE_WORD(args->gen, args->flags, SHMK_QUEUE_READY));
	count_locked(pool, 1);
	tell(pool, peer, SHMK_EV_QUEUE_CREATED, args->id);
	trace_shmk_queue_created(pool, args->id, queue->name);
	spin_unlock(&pool->lock);
	shmk_pass(SHMK_AT_QUEUE_PUBLISHED);
	shmk_event_wake(pool);
	shmk_sysfs_added(pool, SHMK_SHOWN_QUEUES, args->id);
	collect(pool, queue);
}

static int open_locked(struct shmk_peer *peer, struct shmk_queue_open *args)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue = find_locked(pool, args->name);
	u32 id;

	if (!shmk_peer_alive(peer))
		return -ENXIO;
	if (!queue || queue->stage != SHMK_QUEUE_STAGE_READY)
		return -ENOENT;
	id = queue_id(pool, queue);
	if (peer->opens[id] == U32_MAX)
		return -ENOSPC;
	if (!peer->opens[id]++) {
		queue->opened++;
		set_open_locked(pool, id, queue->nr_open + 1);
	}
	args->id = id;
	args->gen = queue_gen(pool, id);
	return 0;
}

/**
 * shmk_queue_open() - open a queue by name for this peer
 * @args: in and out
 *
 * Return: 0, -EINVAL, -ENOENT, -ENOSPC or -ENXIO.
 */
int shmk_queue_open(struct shmk_peer *peer, struct shmk_queue_open *args)
{
	int err;

	if (!shmk_name_valid(args->name))
		return -EINVAL;
	spin_lock(&peer->pool->lock);
	err = open_locked(peer, args);
	spin_unlock(&peer->pool->lock);
	return err;
}

/**
 * shmk_queue_close() - undo one open
 *
 * A sleeper may wait for being left alone, so the last one of a peer wakes all.
 *
 * Return: 0, or -ENOENT if this peer has no such queue open.
 */
int shmk_queue_close(struct shmk_peer *peer, u32 id, u32 gen)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue;
	bool last = false;
	int err = -ENOENT;

	spin_lock(&pool->lock);
	queue = ready_locked(pool, id, gen);
	if (queue && shmk_peer_alive(peer) && peer->opens[queue_id(pool, queue)]) {
		last = !--peer->opens[queue_id(pool, queue)];
		if (last) {
			shmk_topic_leave_locked(pool, queue_id(pool, queue), peer->id);
			set_open_locked(pool, queue_id(pool, queue), queue->nr_open - 1);
		}
		err = 0;
	}
	spin_unlock(&pool->lock);
	if (last) {
		shmk_queue_wake(pool, id, SHMK_SIDE_RECV);
		shmk_queue_wake(pool, id, SHMK_SIDE_SEND);
		collect_now(pool, queue);
	}
	return err;
}

static struct shmk_queue *begin_remove(struct shmk_pool *pool, u32 id, u32 gen)
{
	struct shmk_queue *queue;

	spin_lock(&pool->lock);
	queue = ready_locked(pool, id, gen);
	if (!queue)
		queue = ERR_PTR(-ENOENT);
	else if (!unused_locked(queue))
		queue = ERR_PTR(-EBUSY);
	else
		take_locked(pool, queue);
	spin_unlock(&pool->lock);
	return queue;
}

/**
 * shmk_queue_remove() - free a queue that nobody has open, and its messages
 *
 * Return: 0, -EACCES, -ENOENT or -EBUSY.
 */
int shmk_queue_remove(struct shmk_peer *peer, u32 id, u32 gen)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue;

	if (peer->rdonly)
		return -EACCES;
	queue = begin_remove(pool, id, gen);
	if (IS_ERR(queue))
		return PTR_ERR(queue);
	if (finish_remove(pool, queue, peer))
		shmk_quarantine_look(pool);
	return 0;
}

/**
 * shmk_queue_draining() - is nothing more to be sent to a queue?
 * @id: in its range; held open by the caller
 */
bool shmk_queue_draining(const struct shmk_pool *pool, u32 id)
{
	return SHMK_QUEUE_FLAGS(READ_ONCE(pool->queue_status[id].word)) & SHMK_QUEUE_F_DRAIN;
}

/**
 * shmk_queue_drain() - nothing more is to be sent; the queue goes when it is empty and unused
 *
 * Return: 0, -EACCES or -ENOENT.
 */
int shmk_queue_drain(struct shmk_peer *peer, u32 id, u32 gen)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue;
	u64 *word;

	if (peer->rdonly)
		return -EACCES;
	spin_lock(&pool->lock);
	queue = ready_locked(pool, id, gen);
	if (queue) {
		word = &pool->queue_status[queue_id(pool, queue)].word;
		/* Who sees it sees what was sent before: D in lib/wait.c. */
		smp_store_release(word, SHMK_QUEUE_WORD(gen, SHMK_QUEUE_FLAGS(*word) |
							SHMK_QUEUE_F_DRAIN, SHMK_QUEUE_READY));
		shmk_pool_count_locked(pool, &pool->status->epoch, 1);
	}
	spin_unlock(&pool->lock);
	if (!queue)
		return -ENOENT;
	shmk_pass(SHMK_AT_DRAIN_MARKED);
	smp_mb();	/* the word before who sleeps; with S3 of bell.c */
	shmk_queue_wake(pool, queue_id(pool, queue), SHMK_SIDE_RECV);
	shmk_queue_wake(pool, queue_id(pool, queue), SHMK_SIDE_SEND);
	collect_now(pool, queue);
	return 0;
}

/**
 * shmk_queue_view() - where a queue is, for settling a peer
 * @peer: ending
 * @id: as the peer's ledger says
 * @rv: filled
 *
 * Only queues that the dead one had open: these stay where they are until
 * shmk_queue_close_all(), and a ledger cannot name what its peer never had.
 */
bool shmk_queue_view(struct shmk_peer *peer, u32 id, struct shmk_ring_view *rv)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue = queue_at(pool, id);

	rv->slots = NULL;
	spin_lock(&pool->lock);
	if (queue && peer->opens[queue_id(pool, queue)])
		*rv = queue->rv;
	spin_unlock(&pool->lock);
	return rv->slots;
}

static __poll_t side_mask(u32 side)
{
	return side == SHMK_SIDE_RECV ? EPOLLIN | EPOLLRDNORM : EPOLLOUT | EPOLLWRNORM;
}

/**
 * shmk_queue_wake() - wake who sleeps on one side
 *
 * All of them, exclusive waiters too: one waiters word stands for all sleepers
 * of the side, and who rings has set it to 0 for all.
 */
void shmk_queue_wake(struct shmk_pool *pool, u32 id, u32 side)
{
	struct shmk_queue *queue = queue_at(pool, id);

	if (!queue || side > SHMK_SIDE_SEND)
		return;
	trace_shmk_wake(pool, id, side);
	atomic64_inc(&queue->nr_wakes);
	__wake_up(&queue->wait[side & SHMK_SIDE_SEND], TASK_INTERRUPTIBLE, 0,
		  poll_to_key(side_mask(side)));
}

/* Whoever sleeps anywhere in the pool: it was reset. */
void shmk_queue_wake_all(struct shmk_pool *pool)
{
	u32 id;

	for (id = 0; id < pool->view.nr_queues; id++) {
		wake_up_poll(&pool->queues[id].wait[SHMK_SIDE_RECV], EPOLLERR | EPOLLHUP);
		wake_up_poll(&pool->queues[id].wait[SHMK_SIDE_SEND], EPOLLERR | EPOLLHUP);
		cond_resched();
	}
}

/**
 * shmk_queue_ring_both() - on behalf of the dead: clear both waiters words and wake
 * @rv: of a queue that is held open meanwhile
 *
 * Settling has changed slots, and rings whatever the words say.
 */
void shmk_queue_ring_both(struct shmk_pool *pool, u32 id, const struct shmk_ring_view *rv)
{
	smp_mb();	/* slots before words; with S3 of bell.c */
	WRITE_ONCE(rv->ring->waiters_recv, 0);
	WRITE_ONCE(rv->ring->waiters_send, 0);
	shmk_queue_wake(pool, id, SHMK_SIDE_RECV);
	shmk_queue_wake(pool, id, SHMK_SIDE_SEND);
}

/* One of those that the peer had open; its own alone by now. */
static void close_dead(struct shmk_peer *peer, u32 id)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue = &pool->queues[id];

	shmk_pass(SHMK_AT_END_QUEUE);
	spin_lock(&pool->lock);
	shmk_topic_leave_locked(pool, id, peer->id);
	spin_unlock(&pool->lock);
	shmk_queue_ring_both(pool, id, &queue->rv);
	spin_lock(&pool->lock);
	peer->opens[id] = 0;
	set_open_locked(pool, id, queue->nr_open - 1);
	spin_unlock(&pool->lock);
	shmk_queue_wake(pool, id, SHMK_SIDE_RECV);
	shmk_queue_wake(pool, id, SHMK_SIDE_SEND);
	peer->settled.pinned += collect(pool, queue);
}

/* Would it go with this peer, and take long? As far as can be told without the lock. */
static bool goes_slowly(const struct shmk_pool *pool, u32 id)
{
	const struct shmk_queue *queue = &pool->queues[id];
	u64 word = READ_ONCE(pool->queue_status[id].word);

	return SHMK_QUEUE_FLAGS(word) & (SHMK_QUEUE_F_TRANSIENT | SHMK_QUEUE_F_DRAIN) &&
	       READ_ONCE(queue->nr_open) <= 1 && queue->rv.capacity_shift > INLINE_SHIFT;
}

/**
 * shmk_queue_close_all() - the end of a peer closes all it had open
 * @peer: settled
 * @deadline: in jiffies, for a process that dies. NULL: it takes what it takes
 *
 * Everybody on these queues is woken, since one that can send or receive is
 * gone, which may be what a sleeper waits for: a topic's writer for a reader,
 * say, whose row is gone by then, or who wants to be the writer, for the writer.
 *
 * Return: whether all are closed. To be called again, without a deadline, if not.
 */
bool shmk_queue_close_all(struct shmk_peer *peer, const unsigned long *deadline)
{
	u32 id;

	for (id = 0; id < peer->pool->view.nr_queues; id++) {
		/* Nobody else changes it any more: opening wants a living peer. */
		if (!READ_ONCE(peer->opens[id]))
			continue;
		if (deadline && (time_after(jiffies, *deadline) || goes_slowly(peer->pool, id)))
			return false;
		close_dead(peer, id);
		cond_resched();
	}
	return true;
}

/**
 * shmk_queue_status_locked() - what is known of a queue that @peer has open
 *
 * Return: it, or -ENOENT, or -ENXIO.
 */
struct shmk_queue_status *shmk_queue_status_locked(struct shmk_peer *peer, u32 id)
{
	struct shmk_queue *queue = queue_at(peer->pool, id);

	lockdep_assert_held(&peer->pool->lock);
	if (!shmk_peer_alive(peer))
		return ERR_PTR(-ENXIO);
	if (!queue || !peer->opens[queue_id(peer->pool, queue)])
		return ERR_PTR(-ENOENT);
	return &peer->pool->queue_status[queue_id(peer->pool, queue)];
}

/**
 * shmk_queue_hold() - hold a queue open for a file
 * @peer: has the queue open
 *
 * Return: the queue, or -ENOENT, or -ENXIO.
 */
struct shmk_queue *shmk_queue_hold(struct shmk_peer *peer, u32 id)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_queue *queue = queue_at(pool, id);

	if (!queue)
		return ERR_PTR(-ENOENT);
	spin_lock(&pool->lock);
	if (!shmk_peer_alive(peer))
		queue = ERR_PTR(-ENXIO);
	else if (!peer->opens[queue_id(pool, queue)])
		queue = ERR_PTR(-ENOENT);
	else
		queue->nr_files++;
	spin_unlock(&pool->lock);
	return queue;
}

void shmk_queue_unhold(struct shmk_pool *pool, struct shmk_queue *queue)
{
	spin_lock(&pool->lock);
	queue->nr_files--;
	spin_unlock(&pool->lock);
	collect(pool, queue);
}

/* ------------------------------------------------------------- telling -- */

static void look_topic(const struct shmk_pool *pool, const struct shmk_queue_status *qs,
		       struct shmk_queue_look *look)
{
	u32 i;

	look->history = qs->depth;
	look->msg_bytes = qs->msg_bytes;
	look->nr_readers = qs->nr_readers;
	for (i = 0; i < qs->nr_readers; i++)
		look->readers_now += !!READ_ONCE(pool->rows[qs->first_row + i].word);
}

/* Names of the dead may stand there, and nonsense. */
static u32 count_candidates(const struct shmk_pool *pool, const struct shmk_ring *ring)
{
	u32 i, id, nr = 0;
	u64 word;

	for (i = 0; i < SHMK_CANDIDATES; i++) {
		word = READ_ONCE(ring->candidates[i]);
		id = word & 0xffff;
		if (id > pool->status->nr_peers)
			continue;
		id = array_index_nospec(id, pool->status->nr_peers + 1);
		nr += pool->peers[id] && pool->peers[id]->gen == word >> 32;
	}
	return nr;
}

static void look_ring(const struct shmk_pool *pool, const struct shmk_queue *queue,
		      struct shmk_queue_look *look)
{
	const struct shmk_ring *ring = queue->rv.ring;
	u64 mask = (1ULL << (32 + queue->rv.capacity_shift)) - 1;

	look->sent = READ_ONCE(ring->tail) & mask;
	look->waiters = !!READ_ONCE(ring->waiters_recv) << SHMK_SIDE_RECV |
			!!READ_ONCE(ring->waiters_send) << SHMK_SIDE_SEND;
	if (look->flags & SHMK_QUEUE_F_TOPIC) {
		look->writer = READ_ONCE(ring->role_send) & 0xffff;
		look->candidates = count_candidates(pool, ring);
		return;
	}
	look->received = READ_ONCE(ring->head) & mask;
	look->redelivered = READ_ONCE(ring->redelivered);
	/* The hints lag each by itself: more than all, or less than nothing, is neither. */
	if ((s64)((look->sent - look->received) << (32 - queue->rv.capacity_shift)) > 0)
		look->depth = min_t(u64, (look->sent - look->received) & mask, look->capacity);
}

static void look_locked(const struct shmk_pool *pool, u32 id, struct shmk_queue_look *look)
{
	const struct shmk_queue *queue = &pool->queues[id];
	const struct shmk_queue_status *qs = &pool->queue_status[id];

	*look = (struct shmk_queue_look){
		.id		= id,
		.gen		= SHMK_QUEUE_GEN(qs->word),
		.flags		= queue->rv.flags,
		.capacity	= qs->capacity,
		.slot_bytes	= qs->slot_bytes,
		.nr_open	= queue->nr_open,
		.bells		= atomic64_read(&queue->nr_wakes),
	};
	memcpy(look->name, queue->name, sizeof(look->name));
	look_ring(pool, queue, look);
	if (look->flags & SHMK_QUEUE_F_TOPIC)
		look_topic(pool, qs, look);
}

/**
 * shmk_queue_look() - the first queue or topic from an id on, or the one of a name
 *
 * Return: 0 or -ENOENT.
 */
int shmk_queue_look(struct shmk_pool *pool, u32 id, const char *name,
		    struct shmk_queue_look *look)
{
	struct shmk_queue *queue;
	int err = -ENOENT;

	spin_lock(&pool->lock);
	if (name) {
		queue = find_locked(pool, name);
		id = queue ? queue_id(pool, queue) : pool->view.nr_queues;
	}
	for (; id < pool->view.nr_queues; id++) {
		id = array_index_nospec(id, pool->view.nr_queues);
		if (pool->queues[id].stage == SHMK_QUEUE_STAGE_READY) {
			look_locked(pool, id, look);
			err = 0;
			break;
		}
		if (name)
			break;
	}
	spin_unlock(&pool->lock);
	return err;
}
