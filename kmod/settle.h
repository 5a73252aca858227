/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later OR MIT */
/*
 * settle.h - what is done with a dead peer's ledger.
 *
 * The same settle.c is compiled into the module and into libshmk. It sleeps
 * never, allocates nothing, takes no lock, and believes no word it reads: all
 * geometry comes from the struct shmk_view that the caller filled from memory
 * which no peer can write.
 */
#ifndef SHMK_SETTLE_H
#define SHMK_SETTLE_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#endif
#include <linux/shmk_layout.h>

/* Where one queue is; slots is NULL when there is no such queue. */
struct shmk_ring_view {
	struct shmk_ring	*ring;
	__u8			*slots;
	__u32			capacity_shift;
	__u32			slot_bytes;
	__u32			flags;		/* SHMK_QUEUE_F_* */
	__u32			max_tries;
};

/* Where everything of a pool is, as trusted geometry. */
struct shmk_view {
	struct shmk_span	*spans;
	__u64			*taken_map;
	__u64			*stale_map;
	struct shmk_block	*blocks;
	__u32			nr_spans;
	__u32			unit_shift;
	__u32			nr_queues;
	/* Fills @rv for queue @id; a gone queue leaves slots NULL. */
	void			(*queue)(const struct shmk_view *view, __u32 id,
					 struct shmk_ring_view *rv);
	/*
	 * May @bytes of @block, which a dead peer held, still be written, though not
	 * through any mapping? Then @keep is told once it is PINNED. NULL: who settles
	 * cannot know.
	 */
	bool			(*pinned)(const struct shmk_view *view, __u32 block, __u64 bytes);
	void			(*keep)(const struct shmk_view *view, __u32 block);
	void			*owner;		/* of these three */
};

/* What came back. */
struct shmk_settled {
	__u64	blocks;
	__u64	bytes;
	__u64	messages;	/* taken by the dead, never passed on */
	__u64	entries;	/* that were not NONE */
	__u64	redelivered;	/* messages that others may take again */
	__u64	held_back;	/* REDO entries that were left for the second pass */
	__u64	pinned;		/* of @blocks: not free yet */
};

/* The queue whose both sides must be rung after an entry was settled. */
#define SHMK_SETTLE_NO_BELL	(-1)

/**
 * shmk_settle_entry() - settle one entry of a dead peer, REDO and SPAN entries excepted
 * @view: the pool
 * @peer: the dead one's id
 * @entry: in its ledger; NONE on return, unless excepted. May be rewritten on the way
 * @settled: added to
 *
 * May run twice, or run again after the settler itself died anywhere within;
 * never concurrently for the same entry. Others may work on all else.
 *
 * Return: a queue to ring on both sides, or SHMK_SETTLE_NO_BELL.
 */
int shmk_settle_entry(const struct shmk_view *view, __u32 peer,
		      struct shmk_entry *entry, struct shmk_settled *settled);

/**
 * shmk_settle_redo() - settle one REDO entry of a dead peer; others are left alone
 *
 * To be called for every entry once shmk_settle_entry() was, if it held any back:
 * only then are the blocks of messages that the dead one had sent on marked.
 *
 * Return: as shmk_settle_entry().
 */
int shmk_settle_redo(const struct shmk_view *view, __u32 peer,
		     struct shmk_entry *entry, struct shmk_settled *settled);

/**
 * shmk_settle_span() - settle one SPAN entry of a dead peer; others are left alone
 *
 * To be called for every entry once no other kind is left in the ledger: an
 * empty span goes back to the pool, another becomes an orphan.
 */
void shmk_settle_span(const struct shmk_view *view, __u32 peer,
		      struct shmk_entry *entry);

/**
 * shmk_settle_queue() - free the blocks of all messages of a queue that nobody has open
 *
 * Of a topic nothing: what its slots name are elements of one block, which is
 * the caller's to free.
 */
void shmk_settle_queue(const struct shmk_view *view,
		       const struct shmk_ring_view *rv,
		       struct shmk_settled *settled);

/**
 * shmk_settle_usage() - count the blocks in use and their bytes, spans @first to @end - 1
 *
 * Of others' running work it sees some instant for each block, not one for all.
 */
void shmk_settle_usage(const struct shmk_view *view, __u32 first, __u32 end,
		       struct shmk_settled *usage);

/* A mailbox whose owner lives and has closed it. Relaxed: a hint, but behind S2; see mail.c. */
static inline bool shmk_ring_closed(const struct shmk_ring_view *rv)
{
	return (READ_ONCE(rv->ring->role_recv) & 0xffff) == SHMK_ROLE_CLOSED;
}

/**
 * shmk_ring_drained() - is there nothing in a queue that anybody has still to take?
 * @rv: not of a topic
 *
 * Looks at all slots, not at the hints. What a receiver is just taking is taken, but
 * where it may come back to the queue (F_REDELIVER).
 */
bool shmk_ring_drained(const struct shmk_ring_view *rv);

/**
 * shmk_ring_ready() - is there something to do for a side of a queue?
 *
 * SHMK_SIDE_RECV: a message that nobody has taken. SHMK_SIDE_SEND: room, or nobody who
 * will make room: see shmk_ring_closed().
 * Looks at no more than three laps of the ring. A topic's sides are asked by
 * shmk_topic_ready() and shmk_topic_room().
 */
bool shmk_ring_ready(const struct shmk_ring_view *rv, __u32 side);

/**
 * shmk_topic_ready() - has a reader of a topic that wants @pos next something to read?
 *
 * That message, or, if it is gone already, a later one.
 */
bool shmk_topic_ready(const struct shmk_ring_view *rv, __u64 pos);

/**
 * shmk_topic_room() - may a topic's writer publish at @tail, as far as a reader is concerned
 * that waits to be waited for and wants @pos next?
 */
static inline bool shmk_topic_room(const struct shmk_ring_view *rv, __u32 depth, __u64 tail,
				   __u64 pos)
{
	__u64 mask = (1ULL << (32 + rv->capacity_shift)) - 1;
	__u64 behind = (tail - pos) & mask;

	/* Ahead of the tail is nobody but who is just coming or writes nonsense. */
	return behind < depth || behind > mask >> 1;
}

/* Shared with the library's own transitions. */
/*
 * Frees what is held by (@block, @gen): a block, or a reference and all that
 * ends with it, which is added to @freed. Nothing when it is held no more. May
 * die anywhere and be run again. Return: whether a block was freed, or a reference
 * taken out of its tree, by this run.
 */
bool shmk_block_put(const struct shmk_view *view, __u32 block, __u32 gen,
		    struct shmk_settled *freed);
/* Of what the caller holds: the block with the payload. False: nonsense. */
bool shmk_block_root(const struct shmk_view *view, __u32 block, __u32 *root);
/* One step of that: its parent, with its word. False: it is no (longer a) child of anything. */
bool shmk_block_parent(const struct shmk_view *view, __u32 block, __u64 word,
		       __u32 *up, __u64 *up_word);
void shmk_map_set(__u64 *map, __u32 bit);
void shmk_map_clear(__u64 *map, __u32 bit);
void shmk_span_hint(const struct shmk_view *view, __u32 span);
void shmk_block_hint(const struct shmk_view *view, __u32 block);
void shmk_span_scatter(const struct shmk_view *view, __u32 peer,
		       const struct shmk_entry *entry);
bool shmk_span_unlock(const struct shmk_view *view, __u32 index, __u64 word,
		      __u32 raise);
__u64 shmk_block_room(const struct shmk_view *view, __u32 block);

/* In somebody's hands or in a slot, when these have its generation. */
static inline bool shmk_block_held(__u64 word)
{
	__u32 state = SHMK_BLOCK_STATE(word);

	return state == SHMK_BLOCK_USED || state == SHMK_BLOCK_REF_LEFT ||
	       state == SHMK_BLOCK_REF_RIGHT;
}

static inline bool shmk_block_held_as(__u64 word, __u32 gen)
{
	return shmk_block_held(word) && SHMK_BLOCK_GEN(word) == gen;
}

/* The word of a held block after a hand-over: the next generation of the same. */
static inline __u64 shmk_block_handed(__u64 word)
{
	return word + (1ULL << 32);
}

static inline bool shmk_block_inner(__u64 word)
{
	return SHMK_BLOCK_STATE(word) >= SHMK_BLOCK_INNER &&
	       SHMK_BLOCK_STATE(word) <= SHMK_BLOCK_INNER_MAX;
}

/* Just a block with its payload: neither a reference nor an envelope. */
static inline bool shmk_block_plain(__u64 word)
{
	return (__u32)word == SHMK_BLOCK_USED;
}

/* Where in its tree a held or inner block is. */
static inline __u32 shmk_block_place(__u64 word)
{
	switch (SHMK_BLOCK_STATE(word)) {
	case SHMK_BLOCK_USED:
		return SHMK_PLACE_ROOT;
	case SHMK_BLOCK_REF_LEFT:
		return SHMK_PLACE_LEFT;
	case SHMK_BLOCK_REF_RIGHT:
		return SHMK_PLACE_RIGHT;
	default:
		return SHMK_INNER_PLACE(SHMK_BLOCK_STATE(word));
	}
}

/* How many parts an envelope has; 0 of all else. */
static inline __u32 shmk_block_parts(__u64 word)
{
	__u32 nr = SHMK_BLOCK_UP(word);

	if (!(shmk_block_held(word) || shmk_block_inner(word)) ||
	    shmk_block_place(word) != SHMK_PLACE_ROOT)
		return 0;
	return nr < SHMK_PARTS_MAX ? nr : SHMK_PARTS_MAX;
}

/* Does an inner block have the child at @place? */
static inline bool shmk_inner_has(__u64 word, __u32 place)
{
	__u32 children = SHMK_INNER_CHILDREN(SHMK_BLOCK_STATE(word));

	return children == SHMK_CHILDREN_BOTH || children == place;
}

static inline bool shmk_inner_both(__u64 word)
{
	return SHMK_INNER_CHILDREN(SHMK_BLOCK_STATE(word)) == SHMK_CHILDREN_BOTH;
}

static inline struct shmk_slot *shmk_slot_at(const struct shmk_ring_view *rv, __u64 pos)
{
	__u32 index = (__u32)pos & ((1U << rv->capacity_shift) - 1);

	return (struct shmk_slot *)(rv->slots + (size_t)index * rv->slot_bytes);
}

static inline __u32 shmk_lap(const struct shmk_ring_view *rv, __u64 pos)
{
	return (__u32)(pos >> rv->capacity_shift);
}

/*
 * By this lap or, if P was read long ago, a later one: T must never go back, or
 * a message is taken twice. Peer 0 had it and gave it back.
 */
static inline bool shmk_taken(__u64 t, __u32 lap)
{
	__s32 ahead = (__s32)(SHMK_P_LAP(t) - lap);

	return (t & SHMK_TAKEN) && (ahead > 0 || (ahead == 0 && SHMK_T_PEER(t)));
}

/* Positions are modulo capacity << 32. */
static inline __u64 shmk_pos_next(const struct shmk_ring_view *rv, __u64 pos)
{
	return (pos + 1) & ((1ULL << (32 + rv->capacity_shift)) - 1);
}

#endif
