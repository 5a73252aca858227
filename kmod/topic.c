// SPDX-License-Identifier: GPL-2.0-only
/*
 * topic.c - queues that everybody reads: their memory and their readers.
 *
 * A topic is a queue of the pool's table. What it has besides: one block, which
 * its maker hands over and which its removal frees, and rows, one for each
 * reader that it may have. Both stand in the status region, which no process
 * can write, so the kernel believes them; what it reads in a reader's ledger
 * or in the ring it only compares.
 *
 * A row belongs to a peer until it unsubscribes, closes the topic for the last
 * time, or has been settled. It is the writer, in user space, who reads in the
 * readers' ledgers what they hold: with the row of a dead reader its holds are
 * gone.
 */
#include <linux/bitmap.h>
#include <linux/log2.h>
#include <linux/nospec.h>
#include <linux/spinlock.h>

#include "peer.h"
#include "point.h"
#include "pool.h"
#include "queue.h"
#include "topic.h"

/**
 * shmk_topic_check() - are these arguments in their ranges?
 * @args: of any queue; flags and capacity are checked
 *
 * Return: 0 or -EINVAL.
 */
int shmk_topic_check(const struct shmk_queue_create *args)
{
	if (!(args->flags & SHMK_QUEUE_F_TOPIC))
		return args->nr_readers || args->nr_holds || args->depth || args->msg_bytes ||
		       args->nr_elements || args->block || args->block_gen ? -EINVAL : 0;
	if ((args->flags & ~SHMK_QUEUE_F_TRANSIENT) != SHMK_QUEUE_F_TOPIC ||
	    args->slot_bytes != SHMK_SLOT_MIN)
		return -EINVAL;
	if (args->capacity < SHMK_TOPIC_SLOTS_MIN || !args->depth || args->depth > args->capacity)
		return -EINVAL;
	if (!args->nr_readers || args->nr_readers > SHMK_TOPIC_READERS_MAX ||
	    !args->nr_holds || args->nr_holds > SHMK_TOPIC_HOLDS_MAX)
		return -EINVAL;
	if (!args->msg_bytes || args->msg_bytes > SHMK_TOPIC_MSG_MAX)
		return -EINVAL;
	/* All terms are small: no sum or product wraps. */
	if (args->nr_elements >= SHMK_ELEMENT_NONE ||
	    args->nr_elements < args->capacity + args->nr_readers * args->nr_holds + 1)
		return -EINVAL;
	return 0;
}

/**
 * shmk_topic_reserve_locked() - rows for a topic's readers
 * @id: of the queue that is being made
 *
 * Return: 0 or -ENOSPC.
 */
int shmk_topic_reserve_locked(struct shmk_pool *pool, u32 id,
			      const struct shmk_queue_create *args)
{
	struct shmk_queue_status *qs = &pool->queue_status[id];
	unsigned long first = 0;

	lockdep_assert_held(&pool->lock);
	if (args->nr_readers) {
		first = bitmap_find_next_zero_area(pool->row_ids, pool->status->nr_rows, 0,
						   args->nr_readers, 0);
		if (first >= pool->status->nr_rows)
			return -ENOSPC;
		bitmap_set(pool->row_ids, first, args->nr_readers);
	}
	if (args->flags & SHMK_QUEUE_F_TOPIC)
		qs->depth = args->depth;
	else
		qs->max_tries = args->max_tries;
	qs->block = args->block;
	qs->block_gen = args->block_gen;
	qs->msg_bytes = args->msg_bytes;
	qs->nr_elements = args->nr_elements;
	qs->first_row = first;
	qs->nr_readers = args->nr_readers;
	qs->nr_holds = args->nr_holds;
	return 0;
}

void shmk_topic_unreserve_locked(struct shmk_pool *pool, u32 id)
{
	struct shmk_queue_status *qs = &pool->queue_status[id];

	lockdep_assert_held(&pool->lock);
	if (qs->nr_readers)
		bitmap_clear(pool->row_ids, qs->first_row, qs->nr_readers);
	qs->nr_readers = 0;
}

static bool block_fits(const struct shmk_pool *pool, const struct shmk_queue_status *qs)
{
	u32 nr_blocks = pool->view.nr_spans << SHMK_SPAN_UNITS_SHIFT;
	u64 bytes = qs->nr_elements * SHMK_TOPIC_STRIDE(qs->msg_bytes);
	u64 at = (u64)qs->block << pool->view.unit_shift;
	u64 data = pool->status->data_bytes;
	u32 block;

	if (qs->block >= nr_blocks || bytes > data || at > data - bytes)
		return false;
	block = array_index_nospec(qs->block, nr_blocks);
	return shmk_block_room(&pool->view, block) >= bytes;
}

/**
 * shmk_topic_take_block() - USED(g) of the caller becomes USED(g + 1) of the topic
 *
 * Who names a block that is not its own spoils its own pool, as it could do
 * without us.
 *
 * Return: 0 or -EINVAL.
 */
int shmk_topic_take_block(struct shmk_pool *pool, u32 id)
{
	struct shmk_queue_status *qs = &pool->queue_status[id];
	u64 used = SHMK_BLOCK_WORD(qs->block_gen, SHMK_BLOCK_USED);
	u64 taken = SHMK_BLOCK_WORD(qs->block_gen + 1, SHMK_BLOCK_USED);

	if (shmk_point(SHMK_AT_TOPIC_MADE))
		return -EDOM;
	if (!block_fits(pool, qs) ||
	    cmpxchg(&pool->view.blocks[qs->block].word, used, taken) != used)
		return -EINVAL;
	qs->block_gen++;
	return 0;
}

/**
 * shmk_topic_put_block() - free the block of a topic that is going
 *
 * Return: is it in quarantine now?
 */
bool shmk_topic_put_block(struct shmk_pool *pool, u32 id)
{
	const struct shmk_queue_status *qs = &pool->queue_status[id];
	struct shmk_settled freed = { };

	shmk_pass(SHMK_AT_TOPIC_GOING);
	shmk_block_put(&pool->view, qs->block, qs->block_gen, &freed);
	return freed.pinned;
}

/**
 * shmk_topic_leave_locked() - a peer has a queue open no longer, and reads it no longer
 */
void shmk_topic_leave_locked(struct shmk_pool *pool, u32 id, u32 peer)
{
	const struct shmk_queue_status *qs = &pool->queue_status[id];
	struct shmk_row *row = &pool->rows[qs->first_row];
	u32 i;

	lockdep_assert_held(&pool->lock);
	for (i = 0; i < qs->nr_readers; i++, row++)
		if (SHMK_ROW_PEER(row->word) == peer)
			WRITE_ONCE(row->word, 0);
}

static int subscribe_locked(struct shmk_peer *peer, const struct shmk_queue_status *qs,
			    struct shmk_topic_subscribe *args)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_row *row = &pool->rows[qs->first_row];
	u32 i;

	if (!(SHMK_QUEUE_FLAGS(qs->word) & SHMK_QUEUE_F_TOPIC))
		return -EINVAL;
	if (args->entry >= peer->nr_entries || qs->nr_holds >= peer->nr_entries - args->entry)
		return -EINVAL;
	for (i = 0; i < qs->nr_readers && row->word; i++)
		row++;
	if (i == qs->nr_readers)
		return -ENOSPC;
	row->entry = args->entry;
	row->wait_ns = args->wait_ns;
	/* The writer: with the word it sees all else. */
	smp_store_release(&row->word, SHMK_ROW_WORD(peer->gen, args->policy, peer->id));
	/* A writer that has looked already looks again, and then sees the word. */
	smp_wmb();
	shmk_pool_count_locked(pool, &pool->status->epoch, 1);
	args->row = row - pool->rows;
	return 0;
}

/**
 * shmk_topic_subscribe() - a row for one more reader
 * @args: in and out
 *
 * Return: 0, -EINVAL, -EACCES, -ENOENT, -ENOSPC or -ENXIO.
 */
int shmk_topic_subscribe(struct shmk_peer *peer, struct shmk_topic_subscribe *args)
{
	struct shmk_pool *pool = peer->pool;
	const struct shmk_queue_status *qs;
	int err;

	if (args->policy > SHMK_TOPIC_WAIT || (args->policy == SHMK_TOPIC_SKIP && args->wait_ns))
		return -EINVAL;
	/* It could not tell the writer that it has read on. */
	if (peer->rdonly && args->policy == SHMK_TOPIC_WAIT)
		return -EACCES;
	spin_lock(&pool->lock);
	qs = shmk_queue_status_locked(peer, args->id);
	if (IS_ERR(qs))
		err = PTR_ERR(qs);
	else if (SHMK_QUEUE_GEN(qs->word) != args->gen)
		err = -ENOENT;
	else
		err = subscribe_locked(peer, qs, args);
	spin_unlock(&pool->lock);
	shmk_pass(SHMK_AT_TOPIC_SUBSCRIBED);
	return err;
}

/* The row of a topic that @peer has open, if it is the peer's own. */
static struct shmk_row *own_row_locked(struct shmk_peer *peer, u32 id, u32 row)
{
	const struct shmk_queue_status *qs = shmk_queue_status_locked(peer, id);
	struct shmk_row *at;

	if (IS_ERR(qs))
		return ERR_CAST(qs);
	if (row < qs->first_row || row - qs->first_row >= qs->nr_readers)
		return ERR_PTR(-ENOENT);
	at = &peer->pool->rows[array_index_nospec(row, peer->pool->status->nr_rows)];
	if (SHMK_ROW_PEER(at->word) != peer->id || SHMK_ROW_GEN(at->word) != peer->gen)
		return ERR_PTR(-ENOENT);
	return at;
}

/**
 * shmk_topic_unsubscribe() - the row is free
 *
 * Return: 0, -ENOENT or -ENXIO.
 */
int shmk_topic_unsubscribe(struct shmk_peer *peer, u32 id, u32 row)
{
	struct shmk_row *at;

	spin_lock(&peer->pool->lock);
	at = own_row_locked(peer, id, row);
	if (!IS_ERR(at))
		WRITE_ONCE(at->word, 0);
	spin_unlock(&peer->pool->lock);
	shmk_pass(SHMK_AT_TOPIC_UNSUBSCRIBED);
	return PTR_ERR_OR_ZERO(at);
}

/**
 * shmk_topic_row() - is this row the peer's own?
 * @word: out: of the row
 *
 * Return: 0, -ENOENT or -ENXIO.
 */
int shmk_topic_row(struct shmk_peer *peer, u32 id, u32 row, u64 *word)
{
	const struct shmk_row *at;

	spin_lock(&peer->pool->lock);
	at = own_row_locked(peer, id, row);
	if (!IS_ERR(at))
		*word = at->word;
	spin_unlock(&peer->pool->lock);
	return PTR_ERR_OR_ZERO(at);
}

/*
 * What a reader says that it wants next. While its row is there the peer is not
 * gone, so its ledger stays where it is as long as the lock is held.
 */
static bool position_locked(struct shmk_pool *pool, const struct shmk_row *row, u64 word,
			    u64 *pos)
{
	const struct shmk_ledger *ledger;

	lockdep_assert_held(&pool->lock);
	if (!word || row->word != word)
		return false;
	ledger = pool->ledgers[SHMK_ROW_PEER(word)].addr;
	*pos = SHMK_WHERE_POS(READ_ONCE(ledger->entry[row->entry].where));
	return true;
}

/**
 * shmk_topic_recv_ready() - is there something to read for the reader of @row?
 * @word: of the row when the file was made
 *
 * Return: 0, 1, or -ESHUTDOWN when the subscription is over.
 */
int shmk_topic_recv_ready(struct shmk_pool *pool, const struct shmk_ring_view *rv,
			  u32 row, u64 word)
{
	bool there;
	u64 pos;

	shmk_pass(SHMK_AT_TOPIC_LOOK);
	spin_lock(&pool->lock);
	there = position_locked(pool, &pool->rows[row], word, &pos);
	spin_unlock(&pool->lock);
	return there ? shmk_topic_ready(rv, pos) : -ESHUTDOWN;
}

static bool role_alive(const struct shmk_pool *pool, u64 role)
{
	u32 end = pool->status->nr_peers + 1;
	u32 id = role & 0xffff;
	u64 word;

	if (!id || id >= end)
		return false;
	id = array_index_nospec(id, end);
	/* Pairs with mark_dead(): all that the dead stored is before it. */
	word = smp_load_acquire(&pool->peer_status[id].word);
	return SHMK_PEER_STATE(word) == SHMK_PEER_ALIVE && SHMK_PEER_GEN(word) == role >> 32;
}

/*
 * One row at a time under the lock: there may be thousands, and each is in
 * memory of its own.
 */
static bool all_have_room(struct shmk_pool *pool, const struct shmk_ring_view *rv,
			  const struct shmk_queue_status *qs)
{
	u64 tail = READ_ONCE(rv->ring->tail);
	bool room = true;
	u64 word, pos;
	u32 i;

	for (i = 0; i < qs->nr_readers && room; i++) {
		const struct shmk_row *row = &pool->rows[qs->first_row + i];

		word = READ_ONCE(row->word);
		if (SHMK_ROW_POLICY(word) != SHMK_TOPIC_WAIT)
			continue;
		spin_lock(&pool->lock);
		if (position_locked(pool, row, word, &pos))
			room = shmk_topic_room(rv, qs->depth, tail, pos);
		spin_unlock(&pool->lock);
	}
	return room;
}

/**
 * shmk_topic_send_ready() - may who asks publish, or become the writer?
 * @me: { generation:32, 0:16, peer:16 } of who asks
 */
bool shmk_topic_send_ready(struct shmk_pool *pool, const struct shmk_ring_view *rv,
			   u32 id, u64 me)
{
	u64 role = READ_ONCE(rv->ring->role_send);

	shmk_pass(SHMK_AT_TOPIC_ROLE);
	if (role != me)
		return !role_alive(pool, role);
	return all_have_room(pool, rv, &pool->queue_status[id]);
}
