// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * queue.c - sending and receiving.
 *
 * A position counts messages; its slot has two words. P says what is there
 * and for which lap, T says who took it. Tail and head are hints: where to
 * begin to look. Both sides look at the slots only.
 *
 * What survivors see if the writer dies right after each store (L is its
 * ledger entry):
 *
 *   send a block, or pass it on
 *     L = SENDING(b, g; q, pos)    P is not (lap, b), b is USED(g): freed; PASSING, if
 *                                  it was received before: also counted as lost
 *     P: (lap, EMPTY) -> (lap, b)  published; the settler rings for it
 *     tail                         a hint
 *     waiters -> 0, bell           L still names q: the settler rings
 *     L = NONE                     done
 *   send inline
 *     L = CLAIMING(q, pos)         nothing has happened
 *     P = (lap, CLAIMED me)        becomes (lap, SKIP); only with several producers
 *     payload                      the same
 *     P = (lap, INLINE len)        published
 *   receive
 *     L = TAKING(q, pos)           T does not name us: nothing has happened
 *     T = (lap, me)                ours: freed, P emptied, counted as lost
 *     L = TAKEN(b, g; q, pos)      the same
 *     b: USED(g) -> USED(g + 1)    the same (or REF: see share.c)
 *     P = (lap + 1, EMPTY)         ours: freed, counted as lost
 *     head, waiters -> 0, bell     L still names q
 *     L = GOT(b, g + 1)            freed, counted as lost
 *   an inline one, from T on
 *     copy, L = COPIED(q, pos)     ours: P emptied, counted as lost
 *     P = (lap + 1, EMPTY)         counted as lost
 *     L = NONE                     received
 *   where unacknowledged messages stay (F_REDELIVER), from T on
 *     L = TAKEN; b: -> USED(g + 1) given back: T = (lap, nobody, tries + 1)
 *     L = REDO(b, g + 1; q, pos)   the same; without b: an inline one was copied out
 *     P = (lap + 1, EMPTY)         acknowledged: the settler frees b
 *     bell, b: -> FREE(g + 2)      L still names q
 *     L = NONE                     done
 *   sending such a one on: A = REDO(b, g; q, pos), of an inline one first
 *     C = SENDING(c, g; q, pos)    c is a copy; freed, A given back
 *     P = (lap, c)                 A given back, as a block
 *     A = REDO(c, g; q, pos), C = NONE
 *   then
 *     B = RESENDING(b, g; q2, p2)  A given back
 *     P2: (lap2, EMPTY) -> (lap2, b)  published: B marks b first, so A only empties P
 *     P = (lap + 1, EMPTY), bell   published; A still names q
 *     A = NONE, bell, B = NONE     B still names q2
 *
 * Somebody who is stopped, not dead: anywhere in sending a block, nobody is
 * delayed. Between CLAIMED and INLINE, receivers take what lies behind and come
 * back to it. Between T and P, senders stop when they have come round to
 * that slot.
 *
 * Ordering (see Documentation/ordering.rst for the pairs):
 *   Q1  release store or CAS of P by the sender, acquire load of P by the
 *       receiver: payload, block word and length.
 *   Q2  release store of P by the receiver, acquire load of P by the sender:
 *       the slot's inline bytes are not read any more, the hand-over is visible.
 *   Q4  CAS of T by the settler who gives a message back, acquire load of T by the
 *       receiver: what the dead one did to block word and payload.
 *   Q3  full fence between a store of P and the load of waiters: in wait_wake(),
 *       or the CAS itself. A receiver that takes a message has none, unless the ring is watched:
 *       see "Waiting for room" in wait.c.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"
#include "probe.h"

/*
 * What a message goes through is compiled once for plain queues, once for those of one
 * sender or receiver, and once for all others and for processes with threads: @f are the queue's
 * flags, a constant but in the last, and ALONE.
 */
#define ALONE		0x80000000U	/* one thread, and no locks */
#define RECV_KINDS	(SHMK_QUEUE_F_SC | SHMK_QUEUE_F_REDELIVER | SHMK_QUEUE_F_META)
#define SEND_KINDS	(SHMK_QUEUE_F_SP | SHMK_QUEUE_F_META)

#define SLOTS_AHEAD	4	/* that a sender asks for before it needs them */
#define SMALL_INLINE	(SHMK_SLOT_MIN - offsetof(struct shmk_slot, inl))

static always_inline bool lock_in(struct lock *at, uint32_t f)
{
	return !(f & ALONE) && lock(at);
}

static always_inline int entry_get_in(struct shmk *s, uint32_t *index, uint32_t f)
{
	return f & ALONE ? entry_get_locked(s, index) : entry_get(s, index);
}

static always_inline void entry_put_in(struct shmk *s, uint32_t index, uint32_t f)
{
	if (f & ALONE)
		entry_put_locked(s, index);
	else
		entry_put(s, index);
}

static inline bool kind_plain(uint32_t kind)
{
	return kind == SHMK_KIND_BLOCK || kind == SHMK_KIND_INLINE;
}

/* Which of them: with several threads the one for all others. */
static always_inline uint32_t kind_of(const struct shmk_queue *q, uint32_t kinds)
{
	return likely(__libc_single_threaded || q->shmk->lock.none) ? q->flags & kinds : UINT32_MAX;
}

static inline bool redelivers(uint32_t f)
{
	return f & SHMK_QUEUE_F_REDELIVER;
}

static inline size_t meta_bytes(uint32_t f)
{
	return f & SHMK_QUEUE_F_META ? sizeof(struct shmk_slot_meta) : 0;
}

/* ---------------------------------------------------------- the roles -- */

static bool role_alive(struct shmk *s, __u64 role)
{
	const struct shmk_peer_status *peers = (const void *)
		((const unsigned char *)s->status + s->status->peers_off);
	uint32_t id = (uint32_t)role & 0xffff;
	__u64 word;

	if (!id || id > s->status->nr_peers)
		return false;
	word = smp_load_acquire(&peers[id].word);
	return SHMK_PEER_STATE(word) != SHMK_PEER_NONE &&
	       SHMK_PEER_GEN(word) == (uint32_t)(role >> 32);
}

/*
 * The one producer or receiver of a queue that was made for one. A name whose
 * bearer is settled is free to overwrite; whoever is dead but not settled
 * may still have his last message half done, so that counts as alive.
 */
static int role_take(struct shmk_queue *q, uint32_t side)
{
	struct shmk *s = q->shmk;
	__u64 *at = side == SHMK_SIDE_RECV ? &q->rv.ring->role_recv : &q->rv.ring->role_send;
	__u64 role = READ_ONCE(*at);

	if (role != role_name(s)) {
		if (role_alive(s, role) && (s->backend->reap(s) <= 0 || role_alive(s, role)))
			return -EBUSY;
		if (!cas(at, role, role_name(s)))
			return -EBUSY;
	}
	q->have_role[side] = true;
	return 0;
}

static void role_drop(struct shmk_queue *q, uint32_t side)
{
	__u64 *at = side == SHMK_SIDE_RECV ? &q->rv.ring->role_recv : &q->rv.ring->role_send;

	if (q->have_role[side])
		cas(at, role_name(q->shmk), 0);
	q->have_role[side] = false;
}

/* May this handle work on that side now? */
static always_inline int side_enter(struct shmk_queue *q, uint32_t side, uint32_t f)
{
	uint32_t single = side == SHMK_SIDE_RECV ? SHMK_QUEUE_F_SC : SHMK_QUEUE_F_SP;

	if (unlikely(q->shmk->rdonly))
		return -EROFS;
	if (pool_is_reset(q->shmk))
		return -ESHUTDOWN;
	if (side == SHMK_SIDE_SEND && unlikely(queue_draining(q)))
		return -ESHUTDOWN;
	if ((f & single) && unlikely(!q->have_role[side]))
		return role_take(q, side);
	return 0;
}

/* --------------------------------------------------------------- slots -- */

/* Where a look around a ring stands. */
struct look {
	struct shmk_slot	*slot;
	__u64			pos;
	__u64			start;	/* the hint it began from */
	__u64			*hint;
	__u32			lap;
	__u32			left;	/* steps until something must be wrong */
};

static always_inline void look_at(struct shmk_queue *q, struct look *l)
{
	l->slot = (struct shmk_slot *)(q->rv.slots +
				       (size_t)((uint32_t)l->pos & q->index_mask) * q->rv.slot_bytes);
	l->lap = shmk_lap(&q->rv, l->pos);
}

static always_inline void look_from(struct shmk_queue *q, struct look *l, __u64 pos)
{
	l->pos = pos;
	l->left = q->look_most;
	look_at(q, l);
}

static always_inline void look_begin(struct shmk_queue *q, struct look *l, uint32_t side)
{
	l->hint = side == SHMK_SIDE_RECV ? &q->rv.ring->head : &q->rv.ring->tail;
	l->start = READ_ONCE(*l->hint) & q->pos_mask;
	look_from(q, l, l->start);
}

/*
 * The slot that is next, and the one of some messages later: the receivers' processor has them.
 * First of all in sending, of a batch with each message. Whoever polls the next one has taken it
 * back to look at it, so asked for only when it is written, it would have to be waited for; and
 * asked for much earlier, it would be gone again. @len is not checked yet.
 */
static always_inline void room_ahead(struct shmk_queue *q, size_t len)
{
	struct look next = { .pos = READ_ONCE(q->rv.ring->tail) };
	struct look later = { .pos = next.pos + SLOTS_AHEAD };
	size_t line, end = offsetof(struct shmk_slot, inl) + len;

	if (unlikely(len > q->rv.slot_bytes))
		end = q->rv.slot_bytes;
	look_at(q, &next);
	look_at(q, &later);
	for (line = 0; line < end; line += SHMK_SLOT_MIN) {
		prefetchw((unsigned char *)next.slot + line);
		prefetchw((unsigned char *)later.slot + line);
	}
}

/* Behind P and T. An inline message that stayed in another slot becomes a block. */
static always_inline size_t slot_bytes_of(const struct shmk_msg *msg, uint32_t f)
{
	return msg->kind == SHMK_KIND_INLINE && !msg->queue ? meta_bytes(f) + msg->len :
							      meta_bytes(f);
}

/*
 * The slot is @ahead laps ahead: all positions more than a lap before its last
 * are done with. A hint lags so far when its pushers were stopped, or died, one
 * after another; and we may have been stopped ourselves.
 */
static always_inline void look_skip(struct shmk_queue *q, struct look *l, __s32 ahead)
{
	if (unlikely(ahead > 2)) {
		l->pos += (__u64)(ahead - 2) << q->rv.capacity_shift;
		l->pos &= q->pos_mask;
	}
}

/*
 * False: a walk this long without anybody's progress means that somebody wrote
 * where nobody may.
 */
static always_inline bool look_next(struct shmk_queue *q, struct look *l)
{
	l->pos = (l->pos + 1) & q->pos_mask;
	look_at(q, l);
	return l->left-- != 0;
}

/* Others were faster than this look: whether it is worth another. */
static inline bool look_again(struct shmk_queue *q, struct look *l)
{
	__u64 start = l->start;

	look_begin(q, l, l->hint == &q->rv.ring->head ? SHMK_SIDE_RECV : SHMK_SIDE_SEND);
	return l->start != start;
}

static always_inline __s32 look_ahead(const struct look *l, __u64 p)
{
	return (__s32)(SHMK_P_LAP(p) - l->lap);
}

/* Forward only, and never past what was seen done: lag is harmless, lead is not. */
static always_inline void hint_push(__u64 *hint, __u64 from, __u64 to, bool single)
{
	if (from == to)
		return;
	if (single)
		WRITE_ONCE(*hint, to);
	else
		cas(hint, from, to);
}

/* The first empty slot of its lap. -EAGAIN: the ring is full; -EPIPE: and nobody will empty it. */
static int room_search(struct shmk_queue *q, struct look *l)
{
	look_begin(q, l, SHMK_SIDE_SEND);
	do {
		__u64 p = smp_load_acquire(&l->slot->p);	/* Q2 */
		__s32 ahead = look_ahead(l, p);

		if (ahead < 0)
			return unlikely(shmk_ring_closed(&q->rv)) ? -EPIPE : -EAGAIN;
		if (ahead == 0 && SHMK_P_KIND(p) == SHMK_KIND_EMPTY)
			/* With anything else in it no CAS would ever succeed. */
			return likely(!SHMK_P_ARG(p)) ? 0 : -EUCLEAN;
		look_skip(q, l, ahead);
	} while (look_next(q, l) || look_again(q, l));
	return -EUCLEAN;
}

static noinline int room_far(struct shmk_queue *q, __u64 *start, __u64 *pos)
{
	struct look l;
	int ret = room_search(q, &l);

	*start = l.start;
	*pos = l.pos;
	return ret;
}

/* Mostly it is where the tail points. */
static always_inline int look_for_room(struct shmk_queue *q, struct look *l)
{
	__u64 start, pos;
	int ret;

	look_begin(q, l, SHMK_SIDE_SEND);
	if (likely(smp_load_acquire(&l->slot->p) == SHMK_P(l->lap, SHMK_KIND_EMPTY, 0)))	/* Q2 */
		return 0;
	ret = room_far(q, &start, &pos);
	look_from(q, l, pos);
	l->start = start;
	return ret;
}

/* Of several producers; the slot's bytes are then this one's to write. */
static always_inline bool slot_claim(struct shmk_queue *q, struct look *l)
{
	return cas(&l->slot->p, SHMK_P(l->lap, SHMK_KIND_EMPTY, 0),
		   SHMK_P(l->lap, SHMK_KIND_CLAIMED, q->shmk->self));
}

static always_inline void meta_write(struct shmk_queue *q, struct look *l, __u32 tag, __u64 id,
				      uint32_t f)
{
	const struct shmk_slot_meta meta = {
		.sender = (__u16)q->shmk->self, .gen = (__u16)q->shmk->gen, .tag = tag, .id = id,
	};

	if (meta_bytes(f))
		memcpy(l->slot->inl, &meta, sizeof(meta));
}

/* Publishes by one word, or two. Whether it was this one that got the slot. */
static always_inline bool publish(struct shmk_queue *q, struct look *l, const struct shmk_msg *msg,
				  uint32_t f)
{
	__u64 p = SHMK_P(l->lap, SHMK_KIND_BLOCK, msg->block);

	if (meta_bytes(f)) {
		if (!(f & SHMK_QUEUE_F_SP) && !slot_claim(q, l))
			return false;
		meta_write(q, l, msg->tag, msg->id, f);
		smp_store_release(&l->slot->p, p);		/* Q1 */
		return true;
	}

	if (f & SHMK_QUEUE_F_SP) {
		smp_store_release(&l->slot->p, p);		/* Q1 */
		return true;
	}
	return cas(&l->slot->p, SHMK_P(l->lap, SHMK_KIND_EMPTY, 0), p);	/* Q1 */
}

/* Of the handle; several threads at once may lose a count, never a message. */
static inline void count(uint64_t *nr)
{
	WRITE_ONCE(*nr, READ_ONCE(*nr) + 1);
}

static always_inline void published(struct shmk_queue *q, struct look *l, uint32_t f)
{
	hint_push(&q->rv.ring->tail, l->start, (l->pos + 1) & q->pos_mask, f & SHMK_QUEUE_F_SP);
	count(&q->nr[SHMK_SIDE_SEND]);
}

/* ------------------------------------------------------------- sending -- */

/* Of a reference it is not the payload's, of an envelope it is there. */
static inline void len_write(const struct shmk_msg *msg)
{
	struct shmk_block *block = &msg->shmk->view.blocks[msg->block];

	if (likely(shmk_block_plain(READ_ONCE(block->word))))
		WRITE_ONCE(block->len, msg->len);
}

/*
 * Puts a block into the ring; @msg->entry goes from HELD (GOT) to SENDING
 * (PASSING) and is left there, so that it names the queue until the bell has been
 * rung. -EAGAIN, and HELD (GOT) again, when there is no room.
 */
static always_inline int put_block(struct shmk_queue *q, struct shmk_msg *msg, uint32_t f)
{
	struct shmk *s = q->shmk;
	bool got = SHMK_WHERE_QUEUE(msg->from) != SHMK_QUEUE_NOWHERE;
	struct look l;
	int ret;

	len_write(msg);
	for (;;) {
		ret = look_for_room(q, &l);
		if (unlikely(ret)) {
			entry_set(s, msg->entry,
				  SHMK_WHAT(got ? SHMK_OP_GOT : SHMK_OP_HELD, msg->block,
					    msg->gen), msg->from);
			return ret;
		}
		entry_set(s, msg->entry,
			  SHMK_WHAT(got ? SHMK_OP_PASSING : SHMK_OP_SENDING, msg->block,
				    msg->gen), SHMK_WHERE(q->id, l.pos));
		if (likely(publish(q, &l, msg, f)))
			break;
	}
	published(q, &l, f);
	PROBE(send, q->id, l.pos, msg->len, msg->block);
	return 0;
}

static void held_resent(struct shmk_msg *msg);

/*
 * An inline message that is held in its slot becomes a block there, so that one word
 * can tell whether it was sent on.
 */
static int held_to_block(struct shmk_msg *msg)
{
	struct shmk_queue *q = msg->queue;
	struct shmk *s = q->shmk;
	struct shmk_msg block;
	struct look l = { .pos = SHMK_WHERE_POS(msg->from) };
	int ret = shmk_alloc(s, msg->len, 0, &block);

	if (ret)
		return ret;
	memcpy(block.data, msg->data, msg->len);
	WRITE_ONCE(s->view.blocks[block.block].len, msg->len);
	entry_set(s, block.entry, SHMK_WHAT(SHMK_OP_SENDING, block.block, block.gen), msg->from);
	look_at(q, &l);
	smp_store_release(&l.slot->p, SHMK_P(l.lap, SHMK_KIND_BLOCK, block.block));	/* Q1 */
	entry_what(s, msg->entry, SHMK_WHAT(SHMK_OP_REDO, block.block, block.gen));
	entry_put(s, block.entry);
	msg->data = block.data;
	msg->room = block.room;
	msg->block = block.block;
	msg->gen = block.gen;
	msg->kind = SHMK_KIND_BLOCK;
	return 0;
}

/*
 * Sends on what is held in a slot. @entry is one more: REDO keeps the old place
 * until the new one is published.
 */
static int put_held(struct shmk_queue *q, struct shmk_msg *msg, uint32_t entry)
{
	struct shmk *s = q->shmk;
	struct look l;
	int ret;

	if (msg->kind == SHMK_KIND_INLINE) {
		ret = held_to_block(msg);
		if (ret)
			return ret;
	}
	len_write(msg);
	do {
		ret = look_for_room(q, &l);
		if (ret)
			return ret;
		entry_set(s, entry, SHMK_WHAT(SHMK_OP_RESENDING, msg->block, msg->gen),
			  SHMK_WHERE(q->id, l.pos));
	} while (!publish(q, &l, msg, q->flags));
	published(q, &l, q->flags);
	PROBE(send, q->id, l.pos, msg->len, msg->block);
	held_resent(msg);
	return 0;
}

/* The same for @len inline bytes; @entry is left CLAIMING. */
static always_inline int put_inline(struct shmk_queue *q, const void *buf, size_t len,
				    uint32_t tag, uint64_t id, uint32_t entry, uint32_t f)
{
	struct shmk *s = q->shmk;
	struct look l;
	int ret;

	for (;;) {
		ret = look_for_room(q, &l);
		if (unlikely(ret))
			return ret;
		entry_set(s, entry, SHMK_OP_CLAIMING, SHMK_WHERE(q->id, l.pos));
		if (f & SHMK_QUEUE_F_SP)
			break;
		if (likely(slot_claim(q, &l)))
			break;
	}
	meta_write(q, &l, tag, id, f);
	memcpy(l.slot->inl + meta_bytes(f), buf, len);
	smp_store_release(&l.slot->p,					/* Q1 */
			  SHMK_P(l.lap, SHMK_KIND_INLINE, (__u32)len));
	published(q, &l, f);
	PROBE(send, q->id, l.pos, len, SHMK_NO_BLOCK);
	return 0;
}

static int msg_check(struct shmk_queue *q, const struct shmk_msg *msg)
{
	if (!msg->data || msg->shmk != q->shmk || msg->len > msg->room)
		return -EINVAL;
	if (msg->kind == SHMK_KIND_INLINE && msg->len > q->inline_max && !msg->queue)
		return -EMSGSIZE;
	return 0;
}

/* One try; on success the entry in @entry names the queue and is the caller's to put. */
static always_inline int put_one(struct shmk_queue *q, struct shmk_msg *msg, uint32_t *entry,
				 uint32_t f)
{
	int ret;

	if (likely(msg->kind == SHMK_KIND_BLOCK && !msg->queue)) {
		*entry = msg->entry;
		return put_block(q, msg, f);
	}
	ret = entry_get_in(q->shmk, entry, f);
	if (ret)
		return ret;
	if (msg->queue)
		ret = put_held(q, msg, *entry);
	else
		ret = put_inline(q, msg->small, msg->len, msg->tag, msg->id, *entry, f);
	if (ret)
		entry_put_in(q->shmk, *entry, f);
	return ret;
}

static always_inline void send_done(struct shmk_queue *q, uint32_t entry, uint32_t f)
{
	/* Published by a plain store: fence. */
	if (f & (SHMK_QUEUE_F_SP | SHMK_QUEUE_F_META))
		wait_wake(q, SHMK_SIDE_RECV);			/* Q3 */
	else
		wait_wake_ordered(q, SHMK_SIDE_RECV);
	entry_put_in(q->shmk, entry, f);
}

/*
 * With several producers an inline message is published by a plain store; only
 * the tail's CAS behind it may have failed to be one at all. Fence always.
 */
static always_inline void send_inline_done(struct shmk_queue *q, uint32_t entry, uint32_t f)
{
	wait_wake(q, SHMK_SIDE_RECV);				/* Q3 */
	entry_put_in(q->shmk, entry, f);
}

static always_inline int try_send_as(struct shmk_queue *q, struct shmk_msg *msg, uint32_t f)
{
	bool single = f & SHMK_QUEUE_F_SP;
	uint32_t entry;
	bool locked;
	int ret;

	room_ahead(q, slot_bytes_of(msg, f));
	locked = single && lock_in(&q->role_lock[SHMK_SIDE_SEND], f);
	ret = side_enter(q, SHMK_SIDE_SEND, f);
	if (likely(!ret))
		ret = put_one(q, msg, &entry, f);
	unlock(&q->role_lock[SHMK_SIDE_SEND], locked);
	if (ret)
		return ret;
	if (meta_bytes(f))
		msg->from = READ_ONCE(entry_at(q->shmk, entry)->where);	/* for call.c */
	if (likely(msg->kind == SHMK_KIND_BLOCK))
		send_done(q, entry, f);
	else
		send_inline_done(q, entry, f);
	msg->data = NULL;
	return 0;
}

static noinline int try_send_plain(struct shmk_queue *q, struct shmk_msg *msg)
{
	return try_send_as(q, msg, ALONE);
}

static noinline int try_send_single(struct shmk_queue *q, struct shmk_msg *msg)
{
	return try_send_as(q, msg, SHMK_QUEUE_F_SP | ALONE);
}

static noinline int try_send_any(struct shmk_queue *q, struct shmk_msg *msg)
{
	return try_send_as(q, msg, q->flags);
}

static inline int try_send(struct shmk_queue *q, struct shmk_msg *msg)
{
	switch (kind_of(q, SEND_KINDS)) {
	case 0:
		return try_send_plain(q, msg);
	case SHMK_QUEUE_F_SP:
		return try_send_single(q, msg);
	default:
		return try_send_any(q, msg);
	}
}

int shmk_send(struct shmk_queue *q, struct shmk_msg *msg, int64_t deadline)
{
	int ret = msg_check(q, msg);

	if (unlikely(ret))
		return ret;
	for (;;) {
		ret = try_send(q, msg);
		if (likely(ret != -EAGAIN))
			return ret;
		ret = wait_look(q, SHMK_SIDE_SEND, deadline);
		if (ret)
			return ret;
	}
}

static always_inline int try_send_inline_as(struct shmk_queue *q, const void *buf, size_t len,
					    uint32_t f)
{
	bool single = f & SHMK_QUEUE_F_SP;
	uint32_t entry;
	bool locked;
	int ret;

	room_ahead(q, meta_bytes(f) + len);
	ret = entry_get_in(q->shmk, &entry, f);
	if (unlikely(ret))
		return ret;
	locked = single && lock_in(&q->role_lock[SHMK_SIDE_SEND], f);
	ret = side_enter(q, SHMK_SIDE_SEND, f);
	if (likely(!ret))
		ret = put_inline(q, buf, len, 0, 0, entry, f);
	unlock(&q->role_lock[SHMK_SIDE_SEND], locked);
	if (likely(!ret))
		send_inline_done(q, entry, f);
	else
		entry_put_in(q->shmk, entry, f);
	return ret;
}

static noinline int try_send_inline_single(struct shmk_queue *q, const void *buf, size_t len)
{
	return try_send_inline_as(q, buf, len, SHMK_QUEUE_F_SP | ALONE);
}

static noinline int try_send_inline_any(struct shmk_queue *q, const void *buf, size_t len)
{
	return try_send_inline_as(q, buf, len, q->flags);
}

static inline int try_send_inline(struct shmk_queue *q, const void *buf, size_t len)
{
	return kind_of(q, SEND_KINDS) == SHMK_QUEUE_F_SP ? try_send_inline_single(q, buf, len) :
							     try_send_inline_any(q, buf, len);
}

static noinline int send_copy_block(struct shmk_queue *q, const void *buf, size_t len,
				    int64_t deadline)
{
	struct shmk_msg msg;
	int ret = shmk_alloc(q->shmk, len, 0, &msg);

	if (ret)
		return ret;
	memcpy(msg.data, buf, len);
	ret = shmk_send(q, &msg, deadline);
	if (ret)
		shmk_free(&msg);
	return ret;
}

int shmk_send_copy(struct shmk_queue *q, const void *buf, size_t len, int64_t deadline)
{
	int ret;

	if (unlikely(len > q->inline_max))
		return send_copy_block(q, buf, len, deadline);
	if (q->shmk->rdonly)
		return -EROFS;
	for (;;) {
		ret = try_send_inline(q, buf, len);
		if (likely(ret != -EAGAIN))
			return ret;
		ret = wait_look(q, SHMK_SIDE_SEND, deadline);
		if (ret)
			return ret;
	}
}

static struct shmk_queue *handle_in(struct shmk_queue *list, uint32_t id)
{
	while (list && list->id != id)
		list = list->next;
	return list;
}

/*
 * The handle by which a message of queue @id is held; NULL if it could be by either
 * of two, one that was closed and one that was opened after that.
 */
static struct shmk_queue *handle_of(struct shmk *s, uint32_t id)
{
	bool locked = lock(&s->lock);
	struct shmk_queue *old = handle_in(s->closing, id), *q = handle_in(s->queues, id);

	/* It may be there for the sake of requests that are outstanding alone. */
	if (old && q && READ_ONCE(old->nr_held) <= READ_ONCE(old->nr_calls))
		old = NULL;
	unlock(&s->lock, locked);
	return old && q ? NULL : q ? q : old;
}

static bool op_holds(uint32_t op)
{
	return op == SHMK_OP_HELD || op == SHMK_OP_GOT || op == SHMK_OP_REDO;
}

static bool block_valid(struct shmk *s, uint32_t block)
{
	return block >> SHMK_SPAN_UNITS_SHIFT < s->view.nr_spans;
}

/* Fills @msg with the message that this peer holds and whose data begins at @ptr. */
static int msg_find(struct shmk *s, const void *ptr, size_t len, struct shmk_msg *msg)
{
	size_t off = (size_t)((const unsigned char *)ptr - s->data);
	uint32_t i, root, block = (uint32_t)(off >> s->view.unit_shift);

	if (!shmk_contains(s, ptr, len) || off & ((1U << s->view.unit_shift) - 1))
		return -EFAULT;
	for (i = 0; i < s->fresh_entry; i++) {
		__u64 what = READ_ONCE(entry_at(s, i)->what);

		/* No block: inline, in its slot. */
		if (!op_holds(SHMK_WHAT_OP(what)) || !block_valid(s, SHMK_WHAT_BLOCK(what)) ||
		    !shmk_block_root(&s->view, SHMK_WHAT_BLOCK(what), &root) || root != block ||
		    READ_ONCE(entry_at(s, i)->where) ==
		    SHMK_WHERE(SHMK_QUEUE_NOWHERE, SHMK_POS_KEPT))
			continue;
		msg->data = block_data(s, block);
		msg->room = shmk_block_room(&s->view, block);
		msg->len = len;
		msg->shmk = s;
		msg->block = SHMK_WHAT_BLOCK(what);
		msg->gen = SHMK_WHAT_GEN(what);
		msg->entry = i;
		msg->kind = SHMK_KIND_BLOCK;
		msg->from = READ_ONCE(entry_at(s, i)->where);
		msg->redelivered = 0;
		msg->tag = 0;
		msg->sender = 0;
		msg->sender_gen = 0;
		msg->id = 0;
		msg->queue = NULL;
		if (SHMK_WHAT_OP(what) == SHMK_OP_REDO) {
			msg->queue = handle_of(s, SHMK_WHERE_QUEUE(msg->from));
			if (!msg->queue)
				return -EFAULT;
		}
		return len <= msg->room ? 0 : -EFAULT;
	}
	return -EFAULT;
}

int shmk_send_ptr(struct shmk_queue *q, const void *ptr, size_t len, int64_t deadline)
{
	struct shmk_msg msg;
	int ret = msg_find(q->shmk, ptr, len, &msg);

	return ret ? ret : shmk_send(q, &msg, deadline);
}

/* As many as there is room for; each entry is put at once, @bell names the queue for all. */
static always_inline int put_many_as(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
				     int *ret, uint32_t f)
{
	bool single = f & SHMK_QUEUE_F_SP;
	bool locked = single && lock_in(&q->role_lock[SHMK_SIDE_SEND], f);
	unsigned int i = 0;
	uint32_t entry;

	*ret = side_enter(q, SHMK_SIDE_SEND, f);
	while (!*ret && i < n) {
		room_ahead(q, slot_bytes_of(&msgs[i], f));
		*ret = msg_check(q, &msgs[i]);
		if (!*ret)
			*ret = put_one(q, &msgs[i], &entry, f);
		if (*ret)
			break;
		entry_put_in(q->shmk, entry, f);
		msgs[i++].data = NULL;
	}
	unlock(&q->role_lock[SHMK_SIDE_SEND], locked);
	return (int)i;
}

static int put_many(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n, int *ret)
{
	switch (kind_of(q, SEND_KINDS)) {
	case SHMK_QUEUE_F_SP:
		return put_many_as(q, msgs, n, ret, SHMK_QUEUE_F_SP | ALONE);
	default:
		return put_many_as(q, msgs, n, ret, q->flags);
	}
}

int shmk_send_batch(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
		    int64_t deadline)
{
	unsigned int sent = 0;
	uint32_t bell;
	int ret = 0;

	if (n > INT32_MAX)
		return -EINVAL;
	if (q->shmk->rdonly)
		return -EROFS;
	while (sent < n) {
		ret = entry_get(q->shmk, &bell);
		if (ret)
			break;
		entry_set(q->shmk, bell, SHMK_OP_WAITING, SHMK_WHERE(q->id, SHMK_SIDE_RECV));
		sent += (unsigned int)put_many(q, msgs + sent, n - sent, &ret);
		wait_wake(q, SHMK_SIDE_RECV);			/* Q3 */
		entry_put(q->shmk, bell);
		if (ret == -EAGAIN)
			ret = wait_look(q, SHMK_SIDE_SEND, deadline);
		if (ret)
			break;
	}
	return sent ? (int)sent : ret;
}

/* ----------------------------------------------------------- receiving -- */

/* Of a message that may be another's by now: a guess, exact if we take it. */
static uint64_t message_len(struct shmk *s, __u64 p)
{
	uint32_t root;

	if (SHMK_P_KIND(p) == SHMK_KIND_INLINE)
		return SHMK_P_ARG(p);
	if (SHMK_P_KIND(p) == SHMK_KIND_BLOCK && block_valid(s, SHMK_P_ARG(p)) &&
	    shmk_block_root(&s->view, SHMK_P_ARG(p), &root))
		return SHMK_BLOCK_LEN(READ_ONCE(s->view.blocks[root].len));
	return 0;
}

/*
 * Is there a message by now in what was CLAIMED, from @pos to where we look?
 * What we look at was published after we passed there, perhaps by the same sender, who
 * then published the other one first (Q1): that one comes first.
 */
static bool hole_filled(struct shmk_queue *q, __u64 pos, const struct look *l)
{
	for (; pos != l->pos; pos = shmk_pos_next(&q->rv, pos)) {
		struct look h = { .pos = pos };
		__u64 p;

		look_at(q, &h);
		p = smp_load_acquire(&h.slot->p);
		if (SHMK_P_LAP(p) == h.lap && SHMK_P_KIND(p) != SHMK_KIND_EMPTY &&
		    SHMK_P_KIND(p) != SHMK_KIND_CLAIMED &&
		    !shmk_taken(READ_ONCE(h.slot->t), h.lap))
			return true;
	}
	return false;
}

/* What the receiver of a block will do with its data: who keeps blocks writes an answer there. */
enum ahead { AHEAD_NONE, AHEAD_READ, AHEAD_WRITE };

static always_inline enum ahead ahead_of(const struct shmk_queue *q)
{
	return store_answers(q->shmk) ? AHEAD_WRITE : AHEAD_READ;
}

/*
 * The lines that come over from the sender's processor next, both at once: the block's word, to be
 * written, and where its data begins. Of what is in P whatever it is, and without a branch: who polls has mostly
 * guessed what P will be, and when it comes and is something else must begin again, but not with what
 * came before the guess. Hints only: P has not been looked at yet, and a prefetch does not fault.
 */
static always_inline void block_ahead(const struct shmk_queue *q, __u64 p, enum ahead ahead)
{
	uintptr_t block = -(uintptr_t)(SHMK_P_KIND(p) == SHMK_KIND_BLOCK);
	uintptr_t word = (uintptr_t)&q->shmk->view.blocks[SHMK_P_ARG(p)];
	uintptr_t data = (uintptr_t)block_data(q->shmk, SHMK_P_ARG(p));
	uintptr_t none = (uintptr_t)__builtin_frame_address(0);	/* of this thread alone */

	__asm__ ("" : "+r" (block));	/* else the compiler sees a branch in it */
	prefetchw((const void *)((word & block) | (none & ~block)));
	data = (data & block) | (none & ~block);
	if (ahead == AHEAD_WRITE)
		prefetchw((const void *)data);
	else
		__builtin_prefetch((const void *)data);
}

/*
 * Finds the first message that nobody has taken and takes it: T names us, the
 * entry says TAKING. *p is what it was. Looks past what is CLAIMED, or held where
 * messages stay. The head goes up to the first slot that is not done with.
 */
static int take(struct shmk_queue *q, uint32_t entry, size_t room, struct look *l, __u64 *p)
{
	const uint32_t f = q->flags;
	struct shmk *s = q->shmk;
	bool single = f & SHMK_QUEUE_F_SC, hole, stay;
	__u64 *head = &q->rv.ring->head;
	__u64 t, won, done;
	int ret = -EUCLEAN;

	look_begin(q, l, SHMK_SIDE_RECV);
again:
	done = l->pos;
	hole = stay = false;
	do {
		__s32 ahead;

		if (!stay)
			done = l->pos;
		*p = smp_load_acquire(&l->slot->p);		/* Q1 */
		ahead = look_ahead(l, *p);
		if (ahead < 0 || (ahead == 0 && SHMK_P_KIND(*p) == SHMK_KIND_EMPTY)) {
			ret = -EAGAIN;
			break;
		}
		if (ahead > 0) {
			if (!stay)
				look_skip(q, l, ahead);
			continue;
		}
		if (SHMK_P_KIND(*p) == SHMK_KIND_CLAIMED) {
			hole = stay = true;
			continue;
		}
		t = smp_load_acquire(&l->slot->t);		/* Q4 */
		if (shmk_taken(t, l->lap)) {
			stay |= redelivers(f);
			continue;
		}
		if (hole && hole_filled(q, done, l)) {
			look_from(q, l, done);
			goto again;
		}
		if (room != SIZE_MAX && message_len(s, *p) > room) {
			/* Another may have taken it since; then its length says nothing. */
			if (cmpxchg(&l->slot->t, t, t) != t)
				continue;
			ret = -EMSGSIZE;
			break;
		}
		prefetchw(l->slot);
		if (SHMK_P_KIND(*p) == SHMK_KIND_BLOCK)
			block_ahead(q, *p, ahead_of(q));
		entry_set(s, entry, SHMK_OP_TAKING, SHMK_WHERE(q->id, l->pos));
		won = SHMK_T_TRIED(l->lap, s->self,
				   SHMK_P_LAP(t) == l->lap ? SHMK_T_TRIES(t) : 0);
		if (single) {
			WRITE_ONCE(l->slot->t, won);
			barrier();
		} else if (!cas(&l->slot->t, t, won)) {
			stay |= redelivers(f);
			continue;
		}
		/*
		 * Who had it before us may have put an inline message into a block, to
		 * send it on, since we read P.
		 */
		if (redelivers(f))
			*p = smp_load_acquire(&l->slot->p);		/* Q4 */
		if (!stay && !redelivers(f))
			done = (l->pos + 1) & q->pos_mask;
		ret = 0;
		break;
	} while (look_next(q, l));
	if (unlikely(ret == -EUCLEAN) && look_again(q, l))
		goto again;
	hint_push(head, l->start, done, single);
	return ret;
}

/*
 * What the first look of take() mostly comes to, store by store the same. False: there
 * is more to it.
 */
static always_inline bool take_first(struct shmk_queue *q, uint32_t entry, size_t room,
				     struct look *l, __u64 *p, uint32_t f, bool looked)
{
	__u64 t;

	look_begin(q, l, SHMK_SIDE_RECV);
	*p = smp_load_acquire(&l->slot->p);			/* Q1 */
	t = smp_load_acquire(&l->slot->t);			/* Q4 */
	if (unlikely(redelivers(f) || SHMK_P_LAP(*p) != l->lap ||
		     !kind_plain(SHMK_P_KIND(*p)) || shmk_taken(t, l->lap)))
		return false;
	/* Of a block the length is not in P. */
	if (room != SIZE_MAX && (SHMK_P_KIND(*p) == SHMK_KIND_BLOCK || SHMK_P_ARG(*p) > room))
		return false;
	prefetchw(l->slot);
	if (SHMK_P_KIND(*p) == SHMK_KIND_BLOCK && !(looked && READ_ONCE(q->ahead)))
		block_ahead(q, *p, ahead_of(q));
	entry_set(q->shmk, entry, SHMK_OP_TAKING, SHMK_WHERE(q->id, l->pos));
	if (f & SHMK_QUEUE_F_SC) {
		WRITE_ONCE(l->slot->t, SHMK_T(l->lap, q->shmk->self));
		barrier();
	} else if (unlikely(!cas(&l->slot->t, t, SHMK_T(l->lap, q->shmk->self)))) {
		return false;
	}
	hint_push(l->hint, l->start, (l->pos + 1) & q->pos_mask, f & SHMK_QUEUE_F_SC);
	return true;
}

static inline void slot_empty(struct look *l)
{
	smp_store_release(&l->slot->p,					/* Q2 */
			  SHMK_P(l->lap + 1, SHMK_KIND_EMPTY, 0));
}

/* A message has left a slot where it could have come back to: one less to wait for when it drains. */
static void left_wake(struct shmk_queue *q)
{
	wait_wake(q, SHMK_SIDE_SEND);				/* Q3 */
	if (unlikely(queue_draining(q)))
		wait_wake(q, SHMK_SIDE_RECV);
}

/* What is ours by T but not by sense: somebody wrote where nobody may. */
static inline int take_garbage(struct look *l)
{
	slot_empty(l);
	return -EUCLEAN;
}

/* The message stays where it is, and the entry says that it is ours, until message_ack(). */
static void take_held(struct shmk_queue *q, struct look *l, struct shmk_msg *msg, __u64 what)
{
	entry_what(q->shmk, msg->entry, what);
	queue_hold(q);
	msg->queue = q;
	msg->redelivered = SHMK_T_TRIES(READ_ONCE(l->slot->t));
}

static always_inline void meta_read(struct look *l, struct shmk_msg *msg, uint32_t f)
{
	struct shmk_slot_meta meta;

	if (!meta_bytes(f))
		return;
	memcpy(&meta, l->slot->inl, sizeof(meta));
	msg->sender = meta.sender;
	msg->sender_gen = meta.gen;
	msg->tag = meta.tag;
	msg->id = meta.id;
}

/* Hand-over of a block, in the order of the table above. */
static always_inline int take_block(struct shmk_queue *q, struct look *l, __u64 p,
				    struct shmk_msg *msg, uint32_t f)
{
	struct shmk *s = q->shmk;
	uint32_t root, block = SHMK_P_ARG(p);
	__u64 word, len;

	if (unlikely(!block_valid(s, block)))
		return take_garbage(l);
	word = READ_ONCE(s->view.blocks[block].word);
	root = block;
	if (unlikely(!shmk_block_plain(word) && !shmk_block_root(&s->view, block, &root)))
		return take_garbage(l);
	len = SHMK_BLOCK_LEN(READ_ONCE(s->view.blocks[root].len));
	if (unlikely(!shmk_block_plain(word)) &&
	    shmk_block_parts(READ_ONCE(s->view.blocks[root].word)))
		len = 0;	/* that was of all its parts; its own bytes are theirs */
	if (unlikely(len > s->data_bytes - ((__u64)root << s->view.unit_shift)))
		return take_garbage(l);
	msg->gen = SHMK_BLOCK_GEN(word) + 1;
	entry_what(s, msg->entry, SHMK_WHAT(SHMK_OP_TAKEN, block, SHMK_BLOCK_GEN(word)));
	WRITE_ONCE(s->view.blocks[block].word, shmk_block_handed(word));
	meta_read(l, msg, f);
	if (redelivers(f))
		take_held(q, l, msg, SHMK_WHAT(SHMK_OP_REDO, block, msg->gen));
	else
		slot_empty(l);
	msg->block = block;
	msg->kind = SHMK_KIND_BLOCK;
	msg->from = SHMK_WHERE(q->id, l->pos);
	msg->data = block_data(s, root);
	msg->len = (size_t)len;
	msg->room = (size_t)len;
	return 0;
}

static always_inline int take_inline(struct shmk_queue *q, struct look *l, __u64 p,
				     struct shmk_msg *msg, uint32_t f)
{
	uint32_t len = SHMK_P_ARG(p);

	if (unlikely(len > q->inline_max))
		return take_garbage(l);
	/* Of a small slot all there is: without a call. */
	if (!meta_bytes(f) && likely(q->inline_max == SMALL_INLINE))
		memcpy(msg->small, l->slot->inl, SMALL_INLINE);
	else
		memcpy(msg->small, l->slot->inl + meta_bytes(f), len);
	meta_read(l, msg, f);
	if (redelivers(f)) {
		take_held(q, l, msg, SHMK_WHAT(SHMK_OP_REDO, SHMK_NO_BLOCK, 0));
	} else {
		entry_what(q->shmk, msg->entry, SHMK_OP_COPIED);
		slot_empty(l);
	}
	msg->kind = SHMK_KIND_INLINE;
	msg->from = SHMK_WHERE(q->id, l->pos);
	msg->data = msg->small;
	msg->len = len;
	msg->room = sizeof(msg->small);
	return 0;
}

/* A block or an inline message, whose slot is ours by T. */
static always_inline int take_message(struct shmk_queue *q, struct look *l, __u64 p,
				      struct shmk_msg *msg, uint32_t f)
{
	bool block = SHMK_P_KIND(p) == SHMK_KIND_BLOCK;
	uint8_t ahead;
	int ret = block ? take_block(q, l, p, msg, f) : take_inline(q, l, p, msg, f);

	/* One that stays in its slot is another's, who works with it. */
	ahead = block && !redelivers(f) ? ahead_of(q) : AHEAD_NONE;
	if (unlikely(READ_ONCE(q->ahead) != ahead))
		WRITE_ONCE(q->ahead, ahead);
	if (likely(!ret)) {
		count(&q->nr[SHMK_SIDE_RECV]);
		PROBE(recv, q->id, l->pos, msg->len, msg->block);
	}
	return ret;
}

static noinline int get_any(struct shmk_queue *q, struct shmk_msg *msg, size_t room)
{
	struct look l;
	__u64 p;
	int ret;

	for (;;) {
		ret = take(q, msg->entry, room, &l, &p);
		if (ret)
			return ret;
		if (kind_plain(SHMK_P_KIND(p)))
			return take_message(q, &l, p, msg, q->flags);
		if (SHMK_P_KIND(p) != SHMK_KIND_SKIP)
			return take_garbage(&l);
		slot_empty(&l);
		left_wake(q);
	}
}

/*
 * One message into @msg, whose entry names the queue on return (TAKEN, COPIED
 * or TAKING) whatever comes out; recv_done() ends that.
 */
static always_inline int get_one(struct shmk_queue *q, struct shmk_msg *msg, size_t room, uint32_t f,
				 bool looked)
{
	struct look l;
	__u64 p;

	/* All that only some messages have. */
	memset(&msg->queue, 0, offsetof(struct shmk_msg, small) - offsetof(struct shmk_msg, queue));
	if (likely(take_first(q, msg->entry, room, &l, &p, f, looked)))
		return take_message(q, &l, p, msg, f);
	return get_any(q, msg, room);
}

/* The message is ours and the others know; from now on the entry says just that. */
static always_inline void recv_done(struct shmk_queue *q, struct shmk_msg *msg, uint32_t f)
{
	msg->shmk = q->shmk;
	if (msg->queue)
		return;		/* REDO already */
	if (likely(msg->kind == SHMK_KIND_BLOCK))
		entry_what(q->shmk, msg->entry,
			   SHMK_WHAT(SHMK_OP_GOT, msg->block, msg->gen));
	else
		entry_put_in(q->shmk, msg->entry, f);
}

/*
 * One thread at a time where messages stay, too: else T could name this peer for one
 * thread while the entry of another says TAKING of the same place, which it has lost.
 */
static always_inline bool recv_lock(struct shmk_queue *q, uint32_t f)
{
	return f & (SHMK_QUEUE_F_SC | SHMK_QUEUE_F_REDELIVER) &&
	       lock_in(&q->role_lock[SHMK_SIDE_RECV], f);
}

static always_inline int try_recv_as(struct shmk_queue *q, struct shmk_msg *msg, size_t room,
				     uint32_t f)
{
	bool locked;
	int ret = entry_get_in(q->shmk, &msg->entry, f);

	if (unlikely(ret))
		return ret;
	locked = recv_lock(q, f);
	ret = side_enter(q, SHMK_SIDE_RECV, f);
	if (likely(!ret))
		ret = get_one(q, msg, room, f, true);
	if (ret == -EUCLEAN)
		wait_wake(q, SHMK_SIDE_SEND);
	if (unlikely(ret))
		entry_put_in(q->shmk, msg->entry, f);
	unlock(&q->role_lock[SHMK_SIDE_RECV], locked);
	if (likely(!ret)) {
		if (!msg->queue)
			wait_wake_room(q);			/* Q3 */
		recv_done(q, msg, f);
	}
	return ret;
}

static noinline int try_recv_plain(struct shmk_queue *q, struct shmk_msg *msg, size_t room)
{
	return try_recv_as(q, msg, room, ALONE);
}

static noinline int try_recv_single(struct shmk_queue *q, struct shmk_msg *msg, size_t room)
{
	return try_recv_as(q, msg, room, SHMK_QUEUE_F_SC | ALONE);
}

static noinline int try_recv_any(struct shmk_queue *q, struct shmk_msg *msg, size_t room)
{
	return try_recv_as(q, msg, room, q->flags);
}

static inline int try_recv(struct shmk_queue *q, struct shmk_msg *msg, size_t room)
{
	switch (kind_of(q, RECV_KINDS)) {
	case 0:
		return try_recv_plain(q, msg, room);
	case SHMK_QUEUE_F_SC:
		return try_recv_single(q, msg, room);
	default:
		return try_recv_any(q, msg, room);
	}
}

/*
 * What take() would find out first, and what a receiver that polls finds nearly every
 * time: nothing yet. It says nothing about a role that is still to be taken, or a pool that was
 * reset: those are try_recv()'s to tell.
 */
static inline bool nothing_there(struct shmk_queue *q)
{
	enum ahead ahead;
	struct look l;
	__u64 p;

	if (q->flags & SHMK_QUEUE_F_SC && unlikely(!READ_ONCE(q->have_role[SHMK_SIDE_RECV])))
		return false;
	look_begin(q, &l, SHMK_SIDE_RECV);
	p = READ_ONCE(l.slot->p);
	ahead = READ_ONCE(q->ahead);
	if (ahead)
		block_ahead(q, p, ahead);
	return p == SHMK_P(l.lap, SHMK_KIND_EMPTY, 0) && !pool_is_reset(q->shmk);
}

static int recv_room(struct shmk_queue *q, struct shmk_msg *msg, size_t room, int64_t deadline)
{
	int ret;

	msg->data = NULL;
	if (unlikely(q->shmk->rdonly))
		return -EROFS;
	for (;;) {
		ret = nothing_there(q) ? -EAGAIN : try_recv(q, msg, room);
		if (ret != -EAGAIN)
			return ret;
		ret = wait_look(q, SHMK_SIDE_RECV, deadline);
		if (ret)
			return ret;
	}
}

int shmk_recv(struct shmk_queue *q, struct shmk_msg *msg, int64_t deadline)
{
	return recv_room(q, msg, SIZE_MAX, deadline);
}

int64_t shmk_recv_copy(struct shmk_queue *q, void *buf, size_t room, int64_t deadline)
{
	struct shmk_msg msg;
	int64_t ret;

	ret = recv_room(q, &msg, room, deadline);
	if (ret)
		return ret;
	if (unlikely(shmk_msg_parts(&msg))) {
		ret = parts_copy(&msg, buf, room);
	} else {
		memcpy(buf, msg.data, msg.len);
		ret = (int64_t)msg.len;
	}
	shmk_free(&msg);
	return ret;
}

/* All that is there, up to @n. */
static always_inline int get_many_as(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
				     int *ret, uint32_t f)
{
	bool locked = recv_lock(q, f);
	unsigned int i = 0;

	*ret = side_enter(q, SHMK_SIDE_RECV, f);
	while (!*ret && i < n) {
		*ret = entry_get_in(q->shmk, &msgs[i].entry, f);
		if (*ret)
			break;
		*ret = get_one(q, &msgs[i], SIZE_MAX, f, false);
		if (*ret) {
			entry_put_in(q->shmk, msgs[i].entry, f);
			break;
		}
		recv_done(q, &msgs[i++], f);
	}
	unlock(&q->role_lock[SHMK_SIDE_RECV], locked);
	return (int)i;
}

static int get_many(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n, int *ret)
{
	switch (kind_of(q, RECV_KINDS)) {
	case SHMK_QUEUE_F_SC:
		return get_many_as(q, msgs, n, ret, SHMK_QUEUE_F_SC | ALONE);
	default:
		return get_many_as(q, msgs, n, ret, q->flags);
	}
}

int shmk_recv_batch(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
		    int64_t deadline)
{
	uint32_t bell;
	int got, ret;

	if (!n || n > INT32_MAX)
		return -EINVAL;
	if (q->shmk->rdonly)
		return -EROFS;
	for (;;) {
		ret = entry_get(q->shmk, &bell);
		if (ret)
			return ret;
		entry_set(q->shmk, bell, SHMK_OP_WAITING, SHMK_WHERE(q->id, SHMK_SIDE_SEND));
		got = get_many(q, msgs, n, &ret);
		wait_wake_room(q);				/* Q3 */
		entry_put(q->shmk, bell);
		if (got)
			return got;
		if (ret == -EAGAIN)
			ret = wait_look(q, SHMK_SIDE_RECV, deadline);
		if (ret)
			return ret;
	}
}

/*
 * Just a receiver in a hurry. What was there at the beginning is at most what the ring
 * holds; who goes on sending is not taken from for ever.
 */
int64_t shmk_queue_reset(struct shmk_queue *q)
{
	uint32_t left = 1U << q->rv.capacity_shift;
	struct shmk_msg msg;
	int64_t nr = 0;
	int ret = 0;

	for (; left; left--) {
		ret = shmk_recv(q, &msg, SHMK_TRY);
		if (ret)
			break;
		shmk_free(&msg);
		nr++;
	}
	return nr || ret == -EAGAIN || ret == -EPIPE ? nr : ret;
}

/* ------------------------------------------------------ acknowledging -- */

static void queue_drop(struct shmk_queue **list, struct shmk_queue *q)
{
	for (; *list; list = &(*list)->next) {
		if (*list == q) {
			*list = q->next;
			break;
		}
	}
}

/* For a message of it that is held, or a request that is outstanding. */
void queue_hold(struct shmk_queue *q)
{
	__atomic_fetch_add(&q->nr_held, 1, __ATOMIC_RELAXED);
}

/*
 * The ring stays where it is as long as this peer has the queue open: who holds it
 * last makes up for the close that was put off.
 */
void queue_unhold(struct shmk_queue *q)
{
	struct shmk *s = q->shmk;
	bool locked = lock(&s->lock);
	bool last = !__atomic_sub_fetch(&q->nr_held, 1, __ATOMIC_RELAXED) && q->closing;

	if (last)
		queue_drop(&s->closing, q);
	unlock(&s->lock, locked);
	if (last) {
		s->backend->queue_close(s, q->id, q->gen);
		free(q);
	}
}

/* Of a message that is acknowledged, or published elsewhere: its entry still names the queue. */
static void held_leave(struct shmk_msg *msg)
{
	struct look l = { .pos = SHMK_WHERE_POS(msg->from) };

	look_at(msg->queue, &l);
	slot_empty(&l);
	left_wake(msg->queue);
}

static void held_resent(struct shmk_msg *msg)
{
	held_leave(msg);
	entry_put(msg->shmk, msg->entry);
	queue_unhold(msg->queue);
}

/*
 * The slot first: to free a reference takes many stores, and what is half freed must
 * not be given back.
 */
void message_ack(struct shmk_msg *msg)
{
	struct shmk *s = msg->queue->shmk;
	bool locked;

	held_leave(msg);
	locked = lock(&s->lock);
	if (msg->kind == SHMK_KIND_BLOCK)
		block_free_locked(s, msg->block, msg->gen, msg->entry);
	else
		entry_put_locked(s, msg->entry);
	unlock(&s->lock, locked);
	queue_unhold(msg->queue);
}

/* ------------------------------------------------------------- handles -- */

int queue_name_copy(char *to, const char *name)
{
	if (!name || !name_valid(name))
		return -EINVAL;
	memset(to, 0, SHMK_NAME_LEN);
	memcpy(to, name, strlen(name));
	return 0;
}

static int opts_check(const struct shmk_queue_opts *opts)
{
	uint32_t known = SHMK_QUEUE_CREATE | SHMK_QUEUE_EXCL | SHMK_QUEUE_SP | SHMK_QUEUE_SC |
			 SHMK_QUEUE_REDELIVER | SHMK_QUEUE_HANGUP | SHMK_QUEUE_TAGGED |
			 SHMK_QUEUE_TRANSIENT;

	if (opts->flags & ~known)
		return -EINVAL;
	if (opts->max_tries && !(opts->flags & SHMK_QUEUE_REDELIVER))
		return -EINVAL;
	if ((opts->flags & SHMK_QUEUE_EXCL) && !(opts->flags & SHMK_QUEUE_CREATE))
		return -EINVAL;
	return 0;
}

static int queue_make(struct shmk *s, struct queue_find *f)
{
	const struct shmk_queue_opts *opts = f->opts;
	struct shmk_queue_create arg = {
		.size = sizeof(arg),
		.flags = (opts->flags & SHMK_QUEUE_SP ? SHMK_QUEUE_F_SP : 0) |
			 (opts->flags & SHMK_QUEUE_SC ? SHMK_QUEUE_F_SC : 0) |
			 (opts->flags & SHMK_QUEUE_REDELIVER ? SHMK_QUEUE_F_REDELIVER : 0) |
			 (opts->flags & SHMK_QUEUE_TAGGED ? SHMK_QUEUE_F_META : 0) |
			 (opts->flags & SHMK_QUEUE_TRANSIENT ? SHMK_QUEUE_F_TRANSIENT : 0),
		.max_tries = opts->max_tries,
		.capacity = opts->capacity ? opts->capacity : 64,
		.slot_bytes = opts->slot_bytes,
	};
	int ret = queue_name_copy(arg.name, f->name);

	if (!ret)
		ret = s->backend->queue_create(s, &arg);
	f->id = arg.id;
	f->gen = arg.gen;
	return ret;
}

static int queue_find(struct shmk *s, struct queue_find *f)
{
	struct shmk_queue_open arg = { .size = sizeof(arg) };
	int ret = queue_name_copy(arg.name, f->name);

	if (!ret)
		ret = s->backend->queue_open(s, &arg);
	f->id = arg.id;
	f->gen = arg.gen;
	return ret;
}

/* Who removes one, or makes one, is done soon; but not if we keep its processor from it. */
static int queue_turn(struct shmk *s, unsigned int tries)
{
	return tries < 8 ? 0 : wait_nap(s, now_ns() + 50000, SHMK_FOREVER);
}

/* Open, or create, whichever works first. Neither may be while one of that name is on its way out. */
static int queue_get(struct shmk *s, struct queue_find *f)
{
	bool create = f->flags & SHMK_QUEUE_CREATE, excl = f->flags & SHMK_QUEUE_EXCL;
	unsigned int tries = 0;
	int ret, turn = 0;

	do {
		ret = excl ? -ENOENT : queue_find(s, f);
		if (ret == -ENOENT && create)
			ret = f->make(s, f);
	} while (ret == -EEXIST && !excl && !(turn = queue_turn(s, tries++)));
	return turn ? turn : ret;
}

static bool queue_found(struct shmk *s, void *arg)
{
	struct queue_find *f = arg;

	f->ret = pool_is_reset(s) ? -ESHUTDOWN : queue_get(s, f);
	return f->ret != -ENOENT;
}

/* 0: it is open, once more. */
int queue_open_named(struct shmk *s, struct queue_find *f, int64_t deadline)
{
	int ret;

	if (!queue_found(s, f) && deadline != SHMK_TRY) {
		ret = wait_event(s, queue_found, f, deadline);
		if (ret)
			return ret;
	}
	return f->ret;
}

static struct shmk_queue *queue_new(struct shmk *s, uint32_t id, uint32_t gen)
{
	static uint64_t last_handle;
	const struct shmk_queue_status *status = queue_status(s, id);
	struct shmk_queue *q = aligned_alloc(SHMK_LINE,
		(sizeof(*q) + SHMK_LINE - 1) & ~(size_t)(SHMK_LINE - 1));

	if (!q)
		return NULL;
	memset(q, 0, sizeof(*q));
	q->shmk = s;
	q->word = &status->word;
	q->id = id;
	q->gen = gen;
	q->flags = SHMK_QUEUE_FLAGS(status->word);
	q->meta = q->flags & SHMK_QUEUE_F_META ? sizeof(struct shmk_slot_meta) : 0;
	q->inline_max = status->slot_bytes - (uint32_t)offsetof(struct shmk_slot, inl) - q->meta;
	q->nr_open = 1;
	q->role_lock[0].none = s->lock.none;
	q->role_lock[1].none = s->lock.none;
	q->handle = __atomic_add_fetch(&last_handle, 1, __ATOMIC_RELAXED);
	q->row = ROW_NONE;
	q->side[0].fd = -1;
	q->side[1].fd = -1;
	s->view.queue(&s->view, id, &q->rv);
	queue_geometry(q);
	return q;
}

/* One handle per queue and attachment: two would both believe to have the role. */
static int queue_handle(struct shmk *s, uint32_t id, uint32_t gen, struct shmk_queue **out)
{
	bool locked = lock(&s->lock);
	struct shmk_queue *q;

	for (q = s->queues; q && (q->id != id || q->gen != gen); q = q->next)
		;
	if (q) {
		q->nr_open++;
	} else {
		q = queue_new(s, id, gen);
		if (q) {
			q->next = s->queues;
			s->queues = q;
		}
	}
	unlock(&s->lock, locked);
	*out = q;
	return q ? 0 : -ENOMEM;
}

static void hangup_wanted(struct shmk_queue *q)
{
	bool locked = lock(&q->shmk->lock);

	q->hangup = true;
	for (int side = 0; side < 2; side++)	/* polls that do not ask for it are made anew */
		q->side[side].serial = ++q->shmk->last_serial;
	unlock(&q->shmk->lock, locked);
}

int shmk_queue_open(struct shmk *s, const char *name, const struct shmk_queue_opts *opts,
		    int64_t deadline, struct shmk_queue **out)
{
	static const struct shmk_queue_opts defaults;
	struct queue_find f = { .name = name, .make = queue_make };
	int ret;

	f.opts = opts ? opts : &defaults;
	f.flags = opts ? opts->flags : 0;
	ret = opts_check(f.opts);
	*out = NULL;
	if (!ret)
		ret = queue_open_named(s, &f, deadline);
	if (ret)
		return ret;
	if (SHMK_QUEUE_FLAGS(queue_status(s, f.id)->word) & SHMK_QUEUE_F_TOPIC)
		ret = -EINVAL;
	else
		ret = queue_handle(s, f.id, f.gen, out);
	if (ret)
		s->backend->queue_close(s, f.id, f.gen);
	else if (f.flags & SHMK_QUEUE_HANGUP)
		hangup_wanted(*out);
	return ret;
}

/* The last close of what messages are held of is put off; their handle is found no more. */
void shmk_queue_close(struct shmk_queue *q)
{
	struct shmk *s;
	uint32_t id, gen;
	bool locked, last;

	if (!q)
		return;
	s = q->shmk;
	id = q->id;
	gen = q->gen;
	locked = lock(&s->lock);
	last = --q->nr_open == 0;
	if (last) {
		queue_drop(&s->queues, q);
		q->next = s->closing;
		s->closing = q;
		queue_hold(q);
		q->closing = true;
		/* Before another thread can open it anew, and find that this peer has the role. */
		role_drop(q, SHMK_SIDE_RECV);
		role_drop(q, SHMK_SIDE_SEND);
	}
	unlock(&s->lock, locked);
	if (!last) {	/* another thread may be closing that one by now */
		s->backend->queue_close(s, id, gen);
		return;
	}
	wait_forget(q);
	queue_unhold(q);
}

/* What is still held goes back with the end of the peer, which closes the queues. */
void queues_close(struct shmk *s)
{
	struct shmk_queue *q;

	while (s->queues)
		shmk_queue_close(s->queues);
	while ((q = s->closing)) {
		s->closing = q->next;
		free(q);
	}
}

/* A queue or topic that is there, without opening it. */
static int queue_seek(struct shmk *s, const char *name, uint32_t *id, uint32_t *gen)
{
	if (!name || !name_valid(name))
		return -EINVAL;
	if (s->rdonly)
		return -EROFS;
	for (*id = 0; *id < s->view.nr_queues; ++*id) {
		const struct shmk_queue_status *status = queue_status(s, *id);
		__u64 word = smp_load_acquire(&status->word);

		*gen = SHMK_QUEUE_GEN(word);
		if (SHMK_QUEUE_STATE(word) == SHMK_QUEUE_READY &&
		    !strncmp(status->name, name, SHMK_NAME_LEN))
			return 0;
	}
	return -ENOENT;
}

int shmk_queue_remove(struct shmk *s, const char *name)
{
	uint32_t id, gen;
	int ret = queue_seek(s, name, &id, &gen);

	return ret ? ret : s->backend->queue_remove(s, id, gen);
}

struct drain {
	uint32_t	id, gen;
};

static bool queue_gone(struct shmk *s, void *arg)
{
	const struct drain *d = arg;
	__u64 word = smp_load_acquire(&queue_status(s, d->id)->word);

	return SHMK_QUEUE_STATE(word) != SHMK_QUEUE_READY || SHMK_QUEUE_GEN(word) != d->gen;
}

int shmk_queue_drain(struct shmk *s, const char *name, int64_t deadline)
{
	struct drain d;
	int ret = queue_seek(s, name, &d.id, &d.gen);

	if (!ret)
		ret = s->backend->queue_drain(s, d.id, d.gen);
	return ret ? ret : wait_event(s, queue_gone, &d, deadline);
}

/* ---------------------------------------------------------- statistics -- */

uint64_t ring_oldest(const struct shmk_ring_view *rv, uint64_t head, uint64_t tail)
{
	uint64_t mask = (1ULL << (32 + rv->capacity_shift)) - 1;

	for (uint32_t i = 0; i < 2U << rv->capacity_shift && head != tail; i++) {
		__u64 p = smp_load_acquire(&shmk_slot_at(rv, head)->p);
		int32_t ahead = (int32_t)(SHMK_P_LAP(p) - shmk_lap(rv, head));

		if (ahead <= 0)
			break;
		head = (head + 1 + ((uint64_t)(ahead - 1) << rv->capacity_shift)) & mask;
	}
	return head;
}

static void ring_stats(const struct shmk_ring_view *rv, struct shmk_queue_stats *st)
{
	uint64_t mask = (1ULL << (32 + rv->capacity_shift)) - 1;
	uint64_t depth;

	st->received = READ_ONCE(rv->ring->head) & mask;
	st->sent = READ_ONCE(rv->ring->tail) & mask;
	if (!(rv->flags & SHMK_QUEUE_F_TOPIC))
		st->received = ring_oldest(rv, st->received, st->sent);
	depth = (st->sent - st->received) & mask;
	/* The two were not read at once: more than a lap apart means head was past tail. */
	st->depth = depth <= 1ULL << rv->capacity_shift ? (uint32_t)depth : 0;
	st->recv_waiting = READ_ONCE(rv->ring->waiters_recv) != 0;
	st->send_waiting = READ_ONCE(rv->ring->waiters_send) != 0;
	st->redelivered = READ_ONCE(rv->ring->redelivered);
}

static int id_stats(struct shmk *s, uint32_t id, struct shmk_queue_stats *st)
{
	const struct shmk_queue_status *status = queue_status(s, id);
	__u64 word = smp_load_acquire(&status->word);
	struct shmk_ring_view rv = { .slots = NULL };

	memset(st, 0, sizeof(*st));
	if (SHMK_QUEUE_STATE(word) != SHMK_QUEUE_READY)
		return -ENOENT;
	s->view.queue(&s->view, id, &rv);
	if (!rv.slots)
		return -ENOENT;
	memcpy(st->name, status->name, sizeof(st->name) - 1);
	st->id = id;
	st->gen = SHMK_QUEUE_GEN(word);
	st->flags = (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_SP ? SHMK_QUEUE_SP : 0) |
		    (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_SC ? SHMK_QUEUE_SC : 0) |
		    (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_TOPIC ? SHMK_QUEUE_TOPIC : 0) |
		    (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_REDELIVER ? SHMK_QUEUE_REDELIVER : 0) |
		    (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_META ? SHMK_QUEUE_TAGGED : 0) |
		    (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_TRANSIENT ? SHMK_QUEUE_TRANSIENT : 0) |
		    (SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_DRAIN ? SHMK_QUEUE_DRAINING : 0);
	st->capacity = status->capacity;
	st->slot_bytes = status->slot_bytes;
	st->nr_open = READ_ONCE(status->nr_open);
	ring_stats(&rv, st);
	return 0;
}

int shmk_queue_stats(struct shmk_queue *q, struct shmk_queue_stats *st)
{
	int ret = id_stats(q->shmk, q->id, st);

	st->my_sent = q->nr[SHMK_SIDE_SEND];
	st->my_received = q->nr[SHMK_SIDE_RECV];
	st->my_sleeps = q->nr_sleeps;
	st->my_bells = q->nr_bells;
	return ret;
}

int shmk_queue_next(struct shmk *s, uint32_t id, struct shmk_queue_stats *st)
{
	for (; id < s->view.nr_queues; id++)
		if (!id_stats(s, id, st))
			return 0;
	return -ENOENT;
}
