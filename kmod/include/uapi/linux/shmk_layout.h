/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * shmk_layout.h - the bytes inside a pool's shared pages. The only copy.
 *
 * Vocabulary
 *   unit    the grain of the data region: 1 << unit_shift bytes (256 by
 *           default). A block is named by the index of its first unit.
 *   span    256 units (64 KiB by default): what one peer takes from the pool
 *           and cuts into blocks of one class. A run is a row of spans that
 *           carries one huge block.
 *   entry   two words of a peer's ledger: what it holds, or is just doing.
 *   ring    the slots of one queue. P and T are the two words of a slot.
 *   topic   a queue whose messages everybody reads. Its slots name elements of
 *           one block that is the topic's own; a reader has a row.
 *
 * Four regions; their mmap offsets stand in struct shmk_status:
 *   status   written by the kernel (module) or under the pool lock (local);
 *            read-only for every peer.
 *   ledgers  one per peer; written by that peer alone while it lives, by the
 *            settler after its death; readable by all.
 *   control  struct shmk_control, span records, block records, rings; written
 *            by full members.
 *   data     the payload.
 *
 * All-zero control and ledger memory is the valid initial state. Every word
 * below is naturally aligned and changes by one 64-bit store or
 * compare-and-swap. Nothing here may be believed by the kernel: it reads a
 * word once, checks its bounds and takes all geometry from its own memory.
 */
#ifndef _LINUX_SHMK_LAYOUT_H
#define _LINUX_SHMK_LAYOUT_H

#include <linux/types.h>

#define SHMK_LAYOUT_MAGIC	0x31304b4d4853ULL	/* "SHMK01" */
#define SHMK_LAYOUT_VERSION	2

#define SHMK_NAME_LEN		64	/* bytes with the NUL */
#define SHMK_LINE		64	/* bytes of a cache line */

#define SHMK_UNIT_SHIFT_MIN	8
#define SHMK_UNIT_SHIFT_MAX	16
#define SHMK_SPAN_UNITS_SHIFT	8
#define SHMK_SPAN_UNITS		(1U << SHMK_SPAN_UNITS_SHIFT)

/* Bounds that the word formats impose. Peer id 0 means nobody. */
#define SHMK_PEERS_MAX		4096U
#define SHMK_QUEUES_MAX		16384U
#define SHMK_BLOCKS_MAX		(1U << 28)
#define SHMK_CAPACITY_MAX	65536U
#define SHMK_ENTRIES_MAX	(1U << 20)
#define SHMK_SLOT_MIN		64U
#define SHMK_SLOT_MAX		256U

/* ------------------------------------------------------------- status -- */

enum shmk_peer_state {
	SHMK_PEER_NONE		= 0,	/* the id is free */
	SHMK_PEER_ALIVE		= 1,
	SHMK_PEER_DEAD		= 2,	/* can store no more; being settled */
};

/*
 * word = { generation:32, flags:16, state:16 }. The generation grows by one
 * with each attach, so (id, generation) names one life.
 */
struct shmk_peer_status {
	__u64	word;
	__u32	nr_entries;	/* of its ledger */
	__u32	local_pid;	/* local backend only; the module tells by ioctl */
	__u64	attached_ns;	/* CLOCK_MONOTONIC */
	__u64	reserved;
};

#define SHMK_PEER_STATE(word)	((__u32)(word) & 0xffff)
#define SHMK_PEER_FLAGS(word)	(((__u32)(word) >> 16) & 0xffff)
#define SHMK_PEER_GEN(word)	((__u32)((word) >> 32))
#define SHMK_PEER_WORD(gen, flags, state) \
	((__u64)(gen) << 32 | (__u64)(flags) << 16 | (state))
#define SHMK_PEER_RDONLY	1	/* flag: a read-only member */

enum shmk_queue_state {
	SHMK_QUEUE_NONE		= 0,
	SHMK_QUEUE_READY	= 1,
	SHMK_QUEUE_GOING	= 2,	/* local: a topic whose block is still to be freed */
};

/* word = { generation:32, flags:16, state:16 } */
struct shmk_queue_status {
	__u64	word;
	__u64	ring;		/* byte offset of its struct shmk_ring in control */
	__u32	capacity;	/* slots, a power of two */
	__u32	slot_bytes;	/* 64, 128 or 256 */
	__u32	nr_open;	/* attachments that have it open */
	union {
		__u32	depth;		/* topic: messages that a late reader finds, at most capacity */
		__u32	max_tries;	/* F_REDELIVER: deliveries before a drop; 0: any number */
	};
	/* of a topic (SHMK_QUEUE_F_TOPIC), else 0 */
	__u32	block;		/* the elements: nr_elements * SHMK_TOPIC_STRIDE(msg_bytes) bytes ... */
	__u32	block_gen;	/* ... in this block of this generation */
	__u32	msg_bytes;	/* largest payload */
	__u32	nr_elements;
	__u32	first_row;	/* of its readers */
	__u16	nr_readers;	/* so many rows */
	__u16	nr_holds;	/* of each reader at once */
	char	name[SHMK_NAME_LEN];
};

/*
 * A reader of a topic. All rows of a pool are one table; a topic has a part of
 * it, from first_row on. word = { generation:32, policy:16, peer:16 }, written
 * last; 0: nobody. entry: of the reader's ledger, the first of 1 + nr_holds:
 * how far it has read, then what it holds.
 */
struct shmk_row {
	__u64	word;
	__u32	entry;
	__u32	reserved;
	__u64	wait_ns;	/* SHMK_TOPIC_WAIT: how long the writer waits for it; 0: for ever */
	__u64	reserved2;
};

#define SHMK_ROW_WORD(gen, policy, peer) \
	((__u64)(gen) << 32 | (__u64)(policy) << 16 | (peer))
#define SHMK_ROW_PEER(word)	((__u32)(word) & 0xffff)
#define SHMK_ROW_POLICY(word)	(((__u32)(word) >> 16) & 0xffff)
#define SHMK_ROW_GEN(word)	((__u32)((word) >> 32))

/* Rows of a pool: so many for each peer that it may have. */
#define SHMK_ROWS_PER_PEER	4U

enum shmk_topic_policy {
	SHMK_TOPIC_SKIP		= 0,	/* the writer goes on; who is too slow misses messages */
	SHMK_TOPIC_WAIT		= 1,	/* the writer waits for this reader */
};

/* What an element begins with; the payload follows. Written by the writer before it publishes. */
struct shmk_element {
	__u64	seq;		/* of the topic, from 1 */
	__u64	len;		/* of the payload */
	__u64	writer;		/* { generation:32, 0:16, peer:16 } */
	__u64	time_ns;	/* CLOCK_MONOTONIC */
	__u64	reserved[4];
};

#define SHMK_TOPIC_READERS_MAX	4096U
#define SHMK_TOPIC_HOLDS_MAX	256U
#define SHMK_TOPIC_SLOTS_MIN	4U
#define SHMK_TOPIC_MSG_MAX	(1U << 30)
#define SHMK_TOPIC_STRIDE(msg_bytes) \
	(((__u64)(msg_bytes) + sizeof(struct shmk_element) + SHMK_LINE - 1) & ~(__u64)(SHMK_LINE - 1))

#define SHMK_QUEUE_STATE(word)	((__u32)(word) & 0xffff)
#define SHMK_QUEUE_FLAGS(word)	(((__u32)(word) >> 16) & 0xffff)
#define SHMK_QUEUE_GEN(word)	((__u32)((word) >> 32))
#define SHMK_QUEUE_WORD(gen, flags, state) SHMK_PEER_WORD(gen, flags, state)

#define SHMK_CANDIDATES		7U
#define SHMK_CANDIDATE_TICKET(word)	((__u32)((word) >> 16) & 0xffff)

#define SHMK_QUEUE_F_SP		0x0001	/* one producer at a time: no CAS on P */
#define SHMK_QUEUE_F_SC		0x0002	/* one consumer at a time: no CAS on T */
#define SHMK_QUEUE_F_REDELIVER	0x0004	/* a message stays in its slot until it is acknowledged */
#define SHMK_QUEUE_F_TOPIC	0x0008	/* many readers of each message */
#define SHMK_QUEUE_F_META	0x0010	/* struct shmk_slot_meta before the inline bytes */
#define SHMK_QUEUE_F_TRANSIENT	0x0020	/* goes, with its messages, when nobody has it open any more */
#define SHMK_QUEUE_F_ALL	0x003f
#define SHMK_QUEUE_F_DRAIN	0x8000	/* not for creation: see SHMK_IOC_QUEUE_DRAIN */

#define SHMK_POOL_F_RESET	0x80000000U	/* over: the name is another pool's; see SHMK_IOC_POOL_RESET */

struct shmk_status {
	__u64	magic;		/* written last: nonzero means ready */
	__u32	version;
	__u32	flags;		/* SHMK_POOL_F_* of shmk.h, and SHMK_POOL_F_RESET */
	__u64	data_bytes;	/* exactly what was asked for */
	__u64	control_bytes;	/* rounded up to the page size */
	__u64	status_bytes;

	__u64	map_ledger;	/* mmap offset of ledger 0 (of nobody) */
	__u64	ledger_stride;	/* of peer p: map_ledger + p * ledger_stride */
	__u64	map_control;
	__u64	map_data;

	__u32	page_shift;	/* 12 or 21 */
	__u32	unit_shift;
	__u32	nr_spans;	/* whole spans in the data region */
	__u32	nr_blocks;	/* nr_spans * SHMK_SPAN_UNITS */
	__u32	nr_peers;	/* ids run from 1 to nr_peers */
	__u32	nr_queues;	/* ids run from 0 to nr_queues - 1 */

	__u64	peers_off;	/* in status: struct shmk_peer_status[nr_peers + 1] */
	__u64	queues_off;	/* in status: struct shmk_queue_status[nr_queues] */
	__u64	spans_off;	/* in control: struct shmk_span[nr_spans] */
	__u64	taken_map_off;	/* in control: bitmap, see struct shmk_span */
	__u64	stale_map_off;	/* in control: bitmap, see struct shmk_span */
	__u64	blocks_off;	/* in control: struct shmk_block[nr_blocks] */
	__u64	rings_off;	/* in control */
	__u64	rings_bytes;

	/* counters; each only grows, but for peers_now and queues_now */
	__u64	epoch;		/* moves with every attach, end, queue made or gone */
	__u64	peers_now;
	__u64	queues_now;
	__u64	attaches;
	__u64	detaches;	/* clean ends */
	__u64	deaths;		/* all other ends */
	__u64	reclaimed_blocks;
	__u64	reclaimed_bytes;
	__u64	lost_messages;	/* taken by a peer that died before it freed or passed them on */
	__u64	created_ns;	/* CLOCK_MONOTONIC */
	__u64	rows_off;	/* in status: struct shmk_row[nr_rows] */
	__u64	nr_rows;
	__u64	redelivered;	/* given back at the death of who had them unacknowledged */
	__u64	quarantined;	/* blocks of the dead that are PINNED now */
	__u64	reserved[4];
	char	name[SHMK_NAME_LEN];
};

/* ------------------------------------------------------------- blocks -- */

/*
 * One record per unit; only the record of a block's first unit is in use.
 * word = { generation:32, up:28, state:4 }:
 *   FREE(g) -> USED(g)      alloc, by the span's owner, CAS
 *   held(g) -> held(g+1)    hand-over, by the taker, who alone may write
 *   held(g) -> FREE(g+1)    free, by the holder
 *   FREE(g) -> GONE(g)      seize, by the span's thief, CAS; back if it fails
 *   GONE(g) -> FREE(g+1)    the span has changed hands
 *   held(g) -> PINNED(g+1)  by the settler of a dead holder: its pages are still
 *                           pinned, and may be written past all page tables
 *   PINNED(g) -> FREE(g)    by the kernel, when they are not any more
 * "held" is what a ledger or a slot names: USED, a block with its payload, or
 * REF, a reference to another block's payload: the left or right child of
 * block up. A block whose holder split it in two is INNER, an inner node of the
 * tree whose leaves are the references: it is in no hand, lives until both its
 * children are gone, and keeps in its state what it was before (the root, or a
 * left or right child itself) and which children there are.
 *   USED(g) -> REF(g)           a child to be, by its holder
 *   held(g) -> INNER both(g)    split, by the holder, CAS
 *   both(g) -> only left, only right(g)   one child is dropped, CAS
 *   only(g) -> FREE(g+1)        the last one goes, by its holder
 *   only(g) -> held(g+1)        the last one's holder takes its parent's place
 * A child does not care what became of a parent whose generation has grown.
 *
 * A USED block, or root, whose up is not 0 is the envelope of so many parts. The
 * record of its unit 1 + i has in its len the name of part i:
 *   { gen:32, block:28, kind:4 }     held by the envelope, freed with it
 *   { length:32, offset:28, INLINE } bytes of the envelope itself
 *   USED(g, 0) -> USED(g, n)         by its holder, who holds the parts, too, and
 *                                    then lets go of them
 */
struct shmk_block {
	__u64	word;
	__u64	len;		/* USED and root: payload bytes, of all parts; child: its parent's generation */
};

#define SHMK_BLOCK_LEN(len)	((len) & ((1ULL << 44) - 1))

enum shmk_block_state {
	SHMK_BLOCK_FREE		= 0,
	SHMK_BLOCK_USED		= 1,
	SHMK_BLOCK_GONE		= 2,
	SHMK_BLOCK_REF_LEFT	= 3,
	SHMK_BLOCK_REF_RIGHT	= 4,
	SHMK_BLOCK_INNER	= 5,	/* 5 + 3 * place + children, to 13 */
	SHMK_BLOCK_INNER_MAX	= 13,
	SHMK_BLOCK_PINNED	= 14,
	SHMK_BLOCK_STATE_MAX	= 14,
};

enum shmk_place {
	SHMK_PLACE_ROOT		= 0,
	SHMK_PLACE_LEFT		= 1,
	SHMK_PLACE_RIGHT	= 2,
};

enum shmk_children {
	SHMK_CHILDREN_BOTH	= 0,
	SHMK_CHILDREN_LEFT	= 1,	/* that one only */
	SHMK_CHILDREN_RIGHT	= 2,
};

enum shmk_part_kind {
	SHMK_PART_BLOCK		= 1,
	SHMK_PART_GOT		= 2,	/* BLOCK, and who made the envelope had received it */
	SHMK_PART_INLINE	= 3,
};

#define SHMK_PARTS_MAX		64
#define SHMK_PART(kind, arg, gen) \
	((__u64)(__u32)(gen) << 32 | (__u64)(arg) << 4 | (kind))
#define SHMK_PART_KIND(part)		((__u32)(part) & 0xf)
#define SHMK_PART_ARG(part)		((__u32)(part) >> 4)
#define SHMK_PART_GEN(part)		((__u32)((part) >> 32))

/* Most references between a payload and a leaf, the leaf included. */
#define SHMK_SHARE_DEPTH	48

#define SHMK_BLOCK_WORD(gen, state)	((__u64)(__u32)(gen) << 32 | (state))
#define SHMK_BLOCK_UP_WORD(gen, up, state) \
	((__u64)(__u32)(gen) << 32 | (__u64)(up) << 4 | (state))
#define SHMK_BLOCK_GEN(word)		((__u32)((word) >> 32))
#define SHMK_BLOCK_UP(word)		((__u32)(word) >> 4)
#define SHMK_BLOCK_STATE(word)		((__u32)(word) & 0xf)
#define SHMK_INNER_STATE(place, children) (SHMK_BLOCK_INNER + 3 * (place) + (children))
#define SHMK_INNER_PLACE(state)		(((state) - SHMK_BLOCK_INNER) / 3)
#define SHMK_INNER_CHILDREN(state)	(((state) - SHMK_BLOCK_INNER) % 3)

/* -------------------------------------------------------------- spans -- */

enum shmk_span_kind {
	SHMK_SPAN_FREE		= 0,	/* in the pool */
	SHMK_SPAN_CUT		= 1,	/* cut into blocks of one class */
	SHMK_SPAN_GATHER	= 2,	/* first of a run that is being gathered or given back */
	SHMK_SPAN_RUN		= 3,	/* first of a run; its block is the first unit's */
	SHMK_SPAN_TAIL		= 4,	/* in a run, but not its first */
};

/*
 * word of FREE, CUT, GATHER, RUN = { gen:16, owner:16, thief:16, class:8, kind:8 }
 * word of TAIL                   = { gen:16, head:40, kind:8 }
 * owner 0 of CUT and RUN: an orphan, anyone may adopt it (CAS owner 0 -> me).
 * thief: a peer that tries to empty the span under its owner (see block.c).
 * freed: a hint for the owner: bit i set means a block among units
 *        4i .. 4i+3 was freed by somebody else.
 * changed: a hint for thieves: nonzero means that it is worth while to look
 *        (again) whether all blocks are free.
 * The two bitmaps of the control region have a bit per span, taken_map, a hint
 * "not FREE", and stale_map, a hint "changed, or an orphan". No span is hidden
 * by a death: the ledger of who was about to change a hint names the span,
 * and its settler makes the hint say "look".
 */
struct shmk_span {
	__u64	word;
	__u64	freed;
	__u64	changed;
	__u64	nr_spans;	/* of the run */
	__u64	reserved[4];
};

#define SHMK_SPAN_KIND(w)	((__u32)(w) & 0xff)
#define SHMK_SPAN_CLASS(w)	((__u32)((w) >> 8) & 0xff)
#define SHMK_SPAN_THIEF(w)	((__u32)((w) >> 16) & 0xffff)
#define SHMK_SPAN_OWNER(w)	((__u32)((w) >> 32) & 0xffff)
#define SHMK_SPAN_GEN(w)	((__u32)((w) >> 48))
#define SHMK_SPAN_WORD(gen, owner, thief, class, kind)			\
	((__u64)((gen) & 0xffff) << 48 | (__u64)(owner) << 32 |		\
	 (__u64)(thief) << 16 | (__u64)(class) << 8 | (kind))
#define SHMK_SPAN_HEAD(w)	((__u32)((w) >> 8))
#define SHMK_SPAN_TAIL_WORD(gen, head)					\
	((__u64)((gen) & 0xffff) << 48 | (__u64)(head) << 8 | SHMK_SPAN_TAIL)

/*
 * Classes: 1, 2, 3, 4, 6, 8, 12, ... 96, 128 units. Odd classes from 3 on
 * are powers of two, so such a block is aligned to its own size.
 */
#define SHMK_CLASSES		14U
#define SHMK_CLASS_UNITS_MAX	128U
static inline __u32 shmk_class_units(__u32 index)
{
	if (index < 2)
		return index + 1;
	return (index & 1 ? 4U : 3U) << ((index - 2) / 2);
}

/* ------------------------------------------------------------- ledger -- */

enum shmk_op {
	SHMK_OP_NONE		= 0,
	SHMK_OP_HELD		= 1,	/* block, gen: one's own, from alloc */
	SHMK_OP_SENDING		= 2,	/* block, gen; queue, pos */
	SHMK_OP_TAKING		= 3,	/* queue, pos */
	SHMK_OP_TAKEN		= 4,	/* block, gen before the hand-over; queue, pos */
	SHMK_OP_CLAIMING	= 5,	/* queue, pos: an inline message by one of several producers */
	SHMK_OP_SPAN		= 6,	/* block = span, gen of its word; pos = spans of the run, 1 of a cut span */
	SHMK_OP_GATHER		= 7,	/* the same: a run that is being put together or given back */
	SHMK_OP_SEIZING		= 8,	/* the same, of a span that another owns */
	SHMK_OP_WAITING		= 9,	/* queue, pos = side: its waiters word or bell is in my hands */
	SHMK_OP_PASSING		= 10,	/* SENDING of a block that was received: unpublished, it is lost */
	SHMK_OP_COPIED		= 11,	/* queue, pos: an inline message that is the receiver's now */
	SHMK_OP_GOT		= 12,	/* HELD of a block that was received from queue, pos: else it is lost */
	SHMK_OP_HOLDING		= 13,	/* block = element of topic queue, gen = lap; a reader holds it */
	SHMK_OP_REDO		= 14,	/* block (or SHMK_NO_BLOCK: inline), gen; queue, pos: it is in the slot until acknowledged */
	SHMK_OP_RESENDING	= 15,	/* block, gen; queue, pos: a REDO message on its way to there */
};

/*
 * The first entry of a subscription is HOLDING, too, but no element: pos is the
 * position that the reader wants next, gen 1 while it may sleep.
 */
#define SHMK_ELEMENT_NONE	0xfffffffU

/* what = { gen:32, block:28, op:4 }, where = { pos:48, queue:16 }; where is written first */
struct shmk_entry {
	__u64	what;
	__u64	where;
};

#define SHMK_WHAT(op, block, gen) \
	((__u64)(__u32)(gen) << 32 | (__u64)(block) << 4 | (op))
#define SHMK_WHAT_OP(what)	((__u32)(what) & 0xf)
#define SHMK_WHAT_BLOCK(what)	((__u32)(what) >> 4)
#define SHMK_WHAT_GEN(what)	((__u32)((what) >> 32))
#define SHMK_WHERE(queue, pos)	((__u64)(pos) << 16 | (queue))
#define SHMK_WHERE_QUEUE(where)	((__u32)(where) & 0xffff)
#define SHMK_WHERE_POS(where)	((__u64)(where) >> 16)
#define SHMK_QUEUE_NOWHERE	0xffffU	/* queue of what came from none */
#define SHMK_POS_KEPT		1U	/* its pos: the holder has freed it, and keeps it to use it again */
#define SHMK_NO_BLOCK		0xfffffffU	/* with generation 0 */

struct shmk_ledger {
	__u64	high;		/* no entry at or above this index was ever written */
	__u64	beats;		/* any other value: its peer goes on; see SHMK_IOC_DEADLINE */
	__u64	reserved[6];
	struct shmk_entry entry[];
};

/* -------------------------------------------------------------- rings -- */

/*
 * A position counts messages of a queue: { lap:32, index }, modulo
 * capacity << 32. The slot of a position is its low bits.
 *   P = { lap:32, arg:28, kind:4 }
 *       (lap, EMPTY) -> (lap, BLOCK b | INLINE len)          by a producer
 *       (lap, EMPTY) -> (lap, CLAIMED p) -> (lap, INLINE len) inline, several producers
 *       (lap, not EMPTY) -> (lap+1, EMPTY)                   by the taker
 *   of a topic: (older) -> (lap, ELEMENT e), by the writer, over and over; T is not used
 *   T = { lap:32, 1:1, tries:15, peer:16 }, names who took the message of that lap
 * In a queue with F_REDELIVER, P stays until the message is acknowledged, and
 * the settler of who had it writes T = (lap, tries + 1, peer 0): anyone may take it
 * again. tries is 0 in other queues. For the forwarder of an inline one:
 *       (lap, INLINE len) -> (lap, BLOCK b)                  by who has taken it
 * SKIP is a message that its producer did not live to write: whoever takes it
 * drops it.
 * SHMK_TAKEN distinguishes (lap 0, nobody) from (lap 0, peer).
 */
struct shmk_slot {
	__u64	p;
	__u64	t;
	__u8	inl[];		/* slot_bytes - 16 */
};

/*
 * F_META: the first of the inline bytes, also of a block. With several producers
 * such a block goes through CLAIMED, too.
 */
struct shmk_slot_meta {
	__u16	sender;		/* peer */
	__u16	gen;		/* of the sender's life: its low bits */
	__u32	tag;
	__u64	id;
};

enum shmk_kind {
	SHMK_KIND_EMPTY		= 0,
	SHMK_KIND_BLOCK		= 1,	/* arg = block */
	SHMK_KIND_INLINE	= 2,	/* arg = length */
	SHMK_KIND_CLAIMED	= 3,	/* arg = peer */
	SHMK_KIND_SKIP		= 4,
	SHMK_KIND_ELEMENT	= 5,	/* arg = element; of topics, and never EMPTY again */
};

#define SHMK_P(lap, kind, arg)	((__u64)(__u32)(lap) << 32 | (__u64)(arg) << 4 | (kind))
#define SHMK_P_LAP(p)		((__u32)((p) >> 32))
#define SHMK_P_KIND(p)		((__u32)(p) & 0xf)
#define SHMK_P_ARG(p)		((__u32)(p) >> 4)
#define SHMK_TAKEN		0x80000000U
#define SHMK_T(lap, peer)	((__u64)(__u32)(lap) << 32 | SHMK_TAKEN | (peer))
#define SHMK_TRIES_MAX		0x7fffU
#define SHMK_T_TRIED(lap, peer, tries) (SHMK_T(lap, peer) | (__u64)(tries) << 16)
#define SHMK_T_TRIES(t)		((__u32)(t) >> 16 & SHMK_TRIES_MAX)
#define SHMK_T_PEER(t)		((__u32)(t) & 0xffff)

enum shmk_side {
	SHMK_SIDE_RECV		= 0,	/* sleeps until there is a message */
	SHMK_SIDE_SEND		= 1,	/* sleeps until there is room */
};

/*
 * tail, head: hints. Everything before tail was published at some time,
 * everything before head is taken; both may lag, neither may lead.
 * waiters: nonzero: somebody of that side sleeps or is about to; whoever
 * changes it to 0 rings the bell of that side.
 * watched: nonzero: an fd of the send side is polled, so receivers need a full fence between emptying
 * a slot and their look at waiters_send. Else they have none, and who waits for room looks again
 * after some milliseconds, by when every store is visible. CLOCK_MONOTONIC ns when it was set, by CAS from
 * 0 and for the ring's life; who has set it, or finds it set later than 2 ms ago, waits until that is so long ago.
 * role: { gen:32, peer:16 } of the one producer or consumer (F_SP, F_SC); of a
 * topic role_send is the writer's.
 * role_recv of a mailbox that its owner has closed and outlives names SHMK_ROLE_CLOSED:
 * its senders need not wait.
 * candidates: of a topic, { gen:32, ticket:16, peer:16 }: who waits for the writer's role;
 * it is for the living one with the lowest ticket. 0, or the name of a dead one: free.
 * redelivered: a statistic: so often was a message given back (F_REDELIVER).
 */
#define SHMK_ROLE_CLOSED	0xffff	/* no peer has this id */

struct shmk_ring {
	__u64	tail;
	__u64	pad0[7];
	__u64	head;
	__u64	candidates[7];
	__u64	waiters_recv;
	__u64	role_recv;
	__u64	pad2[6];
	__u64	waiters_send;
	__u64	role_send;
	__u64	redelivered;
	__u64	watched;
	__u64	pad3[4];
	/* slots follow */
};

/* ------------------------------------------------------------ control -- */

struct shmk_control {
	__u64	reserved[32];
};

#endif
