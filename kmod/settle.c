// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later OR MIT
/*
 * settle.c - what is done with a dead peer's ledger.
 *
 * An entry is settled by looking at the words it names: the slot's, the
 * block's, the span's. Each of these changes by one compare-and-swap, and the
 * order of the steps below is the order in which the living do them, so that
 * a settler which dies leaves a state that the table knows already, and two
 * dead peers that met in one slot may be settled in any order.
 *
 * Invariants used throughout:
 *   - only the holder moves a block out of USED or REF, and its generation grows
 *     at every hand-over: a pair (block, generation) is held at most once, ever.
 *   - an inner block without children but one is its leaves' last holder's.
 *   - only who is named in T of a lap empties P of that lap.
 *   - only the owner takes blocks out of a span; a thief only out of FREE.
 *
 * Loops are bounded by the geometry, never by what they read. Documentation/
 * settle.rst tells the table with each window.
 */
#ifdef __KERNEL__
#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/minmax.h>
#include <asm/barrier.h>
#else
#include "order.h"
#endif
#include "settle.h"

#ifdef __KERNEL__
static inline bool cas(__u64 *p, __u64 old, __u64 new)
{
	return cmpxchg(p, old, new) == old;
}

static inline void word_or(__u64 *p, __u64 bits)
{
	atomic64_or(bits, (atomic64_t *)p);
}

static inline void word_and(__u64 *p, __u64 bits)
{
	atomic64_and(bits, (atomic64_t *)p);
}
#endif

/* How often a word may change under a settler before it lets go. */
#define TRIES 8

void shmk_map_set(__u64 *map, __u32 bit)
{
	__u64 mask = 1ULL << (bit & 63);

	if (!(READ_ONCE(map[bit >> 6]) & mask))
		word_or(&map[bit >> 6], mask);
}

void shmk_map_clear(__u64 *map, __u32 bit)
{
	__u64 mask = 1ULL << (bit & 63);

	if (READ_ONCE(map[bit >> 6]) & mask)
		word_and(&map[bit >> 6], ~mask);
}

/* Makes thieves look at a span. */
void shmk_span_hint(const struct shmk_view *view, __u32 span)
{
	WRITE_ONCE(view->spans[span].changed, 1);
	shmk_map_set(view->stale_map, span);
}

/*
 * Says that a block became free behind its owner's back. All hints are set
 * whatever the others say: the peer whose ledger we read may have died between
 * them.
 */
void shmk_block_hint(const struct shmk_view *view, __u32 block)
{
	__u32 s = block >> SHMK_SPAN_UNITS_SHIFT;
	__u64 bit = 1ULL << ((block & (SHMK_SPAN_UNITS - 1)) >> 2);

	if (!(READ_ONCE(view->spans[s].freed) & bit))
		word_or(&view->spans[s].freed, bit);
	shmk_span_hint(view, s);
}

/* Never past the end of the pool, whatever the span's words say. */
__u64 shmk_block_room(const struct shmk_view *view, __u32 block)
{
	__u32 s = block >> SHMK_SPAN_UNITS_SHIFT;
	__u64 word = READ_ONCE(view->spans[s].word);
	__u64 left = ((__u64)view->nr_spans << SHMK_SPAN_UNITS_SHIFT) - block;
	__u64 nr;

	if (SHMK_SPAN_KIND(word) == SHMK_SPAN_CUT) {
		nr = shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES);
	} else {
		nr = READ_ONCE(view->spans[s].nr_spans);
		if (nr == 0 || nr > view->nr_spans - s)
			nr = 1;
		nr *= SHMK_SPAN_UNITS;
	}
	return (nr < left ? nr : left) << view->unit_shift;
}

static bool block_valid(const struct shmk_view *view, __u32 block)
{
	return block < view->nr_spans << SHMK_SPAN_UNITS_SHIFT;
}

bool shmk_block_parent(const struct shmk_view *view, __u32 block, __u64 word,
		       __u32 *up, __u64 *up_word)
{
	__u32 place = shmk_block_place(word);

	*up = SHMK_BLOCK_UP(word);
	if (place == SHMK_PLACE_ROOT || !block_valid(view, *up))
		return false;
	/* Acquire: who was dropped from it has done reading. C1 */
	*up_word = smp_load_acquire(&view->blocks[*up].word);
	return shmk_block_inner(*up_word) && shmk_inner_has(*up_word, place) &&
	       SHMK_BLOCK_GEN(*up_word) == (__u32)READ_ONCE(view->blocks[block].len);
}

bool shmk_block_root(const struct shmk_view *view, __u32 block, __u32 *root)
{
	__u64 word, up_word;
	int depth;

	*root = block;
	word = READ_ONCE(view->blocks[block].word);
	if (!shmk_block_held(word))
		return false;
	for (depth = 0; depth <= SHMK_SHARE_DEPTH; depth++) {
		if (shmk_block_place(word) == SHMK_PLACE_ROOT)
			return true;
		if (!shmk_block_parent(view, *root, word, root, &up_word))
			return false;
		word = up_word;
	}
	return false;
}

/* A reference and the inner blocks that end with it, from below. */
struct path {
	__u32	nr;
	struct {
		__u32	block, gen;
	} at[SHMK_SHARE_DEPTH + 1];
};

static void path_add(struct path *path, __u32 block, __u64 word)
{
	path->at[path->nr].block = block;
	path->at[path->nr++].gen = SHMK_BLOCK_GEN(word);
}

/*
 * Takes the child at @block out of its parent, and climbs while that leaves a
 * parent without children: those are nobody's but ours now. Only the sibling's
 * holder changes a parent's word beside us, once. False: another run of the same
 * did it before, or there is no parent.
 */
static bool path_cut(const struct shmk_view *view, struct path *path, __u32 block, __u64 word)
{
	__u32 up, tries;
	__u64 up_word;

	path->nr = 0;
	path_add(path, block, word);
	for (tries = 0; tries <= 2 * SHMK_SHARE_DEPTH; tries++) {
		if (!shmk_block_parent(view, block, word, &up, &up_word))
			break;
		if (!shmk_inner_both(up_word)) {
			if (path->nr > SHMK_SHARE_DEPTH)
				break;
			path_add(path, up, up_word);
			block = up;
			word = up_word;
		} else if (cas(&view->blocks[up].word, up_word,			/* C1 */
			       SHMK_BLOCK_UP_WORD(SHMK_BLOCK_GEN(up_word), SHMK_BLOCK_UP(up_word),
						  SHMK_INNER_STATE(shmk_block_place(up_word),
								   3 - shmk_block_place(word))))) {
			return true;
		}
	}
	return false;
}

static bool block_freed(const struct shmk_view *view, __u32 block, __u64 word,
			struct shmk_settled *freed)
{
	__u64 room = shmk_block_room(view, block);
	bool pinned = view->pinned && view->pinned(view, block, room);
	bool done = cas(&view->blocks[block].word, word,
			SHMK_BLOCK_WORD(SHMK_BLOCK_GEN(word) + 1,
					pinned ? SHMK_BLOCK_PINNED : SHMK_BLOCK_FREE));

	shmk_block_hint(view, block);
	if (done) {
		freed->blocks++;
		freed->bytes += room;
		freed->pinned += pinned;
	}
	if (done && pinned)
		view->keep(view, block);
	return done;
}

/* What became of an envelope's parts. */
struct parts {
	bool	any, first;	/* is there a block; was the first one freed by this run */
	__u32	got;		/* that had been received, freed by this run */
};

static void parts_put(const struct shmk_view *view, __u32 root, __u64 word,
		      struct shmk_settled *freed, struct parts *parts);

/*
 * The reference itself goes last: as long as it is there, its holder's entry
 * makes the next settler go the same way again. So does an envelope: after its
 * parts. @parts is NULL for a part: it is no envelope.
 */
static bool put(const struct shmk_view *view, __u32 block, __u32 gen,
		struct shmk_settled *freed, struct parts *parts)
{
	__u64 word = READ_ONCE(view->blocks[block].word);
	struct path path;
	bool cut, done;
	__u32 i;

	if (!shmk_block_held_as(word, gen)) {
		shmk_block_hint(view, block);
		return false;
	}
	cut = path_cut(view, &path, block, word);
	for (i = path.nr; i-- > 0;) {
		word = READ_ONCE(view->blocks[path.at[i].block].word);
		if (SHMK_BLOCK_GEN(word) != path.at[i].gen ||
		    !(i ? shmk_block_inner(word) : shmk_block_held(word)))
			continue;
		if (parts && shmk_block_parts(word))
			parts_put(view, path.at[i].block, word, freed, parts);
		done = block_freed(view, path.at[i].block, word, freed);
		cut |= done && shmk_block_place(word) == SHMK_PLACE_ROOT;
	}
	return cut;
}

static void parts_put(const struct shmk_view *view, __u32 root, __u64 word,
		      struct shmk_settled *freed, struct parts *parts)
{
	__u32 i, nr = shmk_block_parts(word);
	__u64 part;
	bool done;

	for (i = 0; i < nr && block_valid(view, root + 1 + i); i++) {
		part = READ_ONCE(view->blocks[root + 1 + i].len);
		if ((SHMK_PART_KIND(part) != SHMK_PART_BLOCK &&
		     SHMK_PART_KIND(part) != SHMK_PART_GOT) ||
		    !block_valid(view, SHMK_PART_ARG(part)))
			continue;
		done = put(view, SHMK_PART_ARG(part), SHMK_PART_GEN(part), freed, NULL);
		if (!parts->any)
			parts->first = done;
		parts->any = true;
		parts->got += done && SHMK_PART_KIND(part) == SHMK_PART_GOT;
	}
}

bool shmk_block_put(const struct shmk_view *view, __u32 block, __u32 gen,
		    struct shmk_settled *freed)
{
	struct parts parts = { .any = false };

	return put(view, block, gen, freed, &parts);
}

/*
 * @message: it was received, and is lost if this frees it. An envelope goes
 * by its first part: who takes one apart has an entry for that before the
 * envelope goes, and whichever is settled first frees and counts it. Of an
 * envelope that was not received, those parts are lost messages that were.
 */
static void put_counted(const struct shmk_view *view, __u32 block, __u32 gen,
			bool message, struct shmk_settled *settled)
{
	struct parts parts = { .any = false };
	bool done = put(view, block, gen, settled, &parts);

	if (message)
		settled->messages += parts.any ? parts.first : done;
	else
		settled->messages += parts.got;
}

/* ------------------------------------------------------------- queues -- */

static bool redelivers(const struct shmk_ring_view *rv)
{
	return rv->flags & SHMK_QUEUE_F_REDELIVER;
}

static bool taken_by(const struct shmk_slot *slot, __u32 lap, __u32 peer)
{
	__u64 t = READ_ONCE(slot->t);

	return t == SHMK_T_TRIED(lap, peer, SHMK_T_TRIES(t));
}

static void slot_empty(struct shmk_slot *slot, __u64 p, __u32 lap)
{
	cas(&slot->p, p, SHMK_P(lap + 1, SHMK_KIND_EMPTY, 0));
}

/*
 * So that others may take it again. The number of tries stops at its end, which
 * is harmless: who had read that T long ago, and wins it now, wins what is there.
 * False: it was tried often enough.
 */
static bool give_back(const struct shmk_ring_view *rv, struct shmk_slot *slot, __u32 lap,
		      struct shmk_settled *settled)
{
	__u64 t = READ_ONCE(slot->t), nr;
	__u32 tries = SHMK_T_TRIES(t) + 1;
	int i;

	if (rv->max_tries && tries >= rv->max_tries)
		return false;
	if (tries > SHMK_TRIES_MAX)
		tries = SHMK_TRIES_MAX;
	if (!cas(&slot->t, t, SHMK_T_TRIED(lap, 0, tries)))
		return true;
	settled->redelivered++;
	for (i = 0; i < TRIES; i++) {
		nr = READ_ONCE(rv->ring->redelivered);
		if (cas(&rv->ring->redelivered, nr, nr + 1))
			break;
	}
	return true;
}

/*
 * Still in the slot where the dead one had it. Its block is as it was handed over:
 * not acknowledged. Or the block was marked by settle_resending(), or taken at
 * its new place: then only the slot is to be emptied.
 */
static void settle_redo_there(const struct shmk_view *view, const struct shmk_ring_view *rv,
			      struct shmk_slot *slot, __u64 p, __u32 block, __u32 gen,
			      struct shmk_settled *settled)
{
	__u32 lap = SHMK_P_LAP(p);

	if (SHMK_P_KIND(p) != SHMK_KIND_INLINE &&
	    !shmk_block_held_as(READ_ONCE(view->blocks[block].word), gen)) {
		slot_empty(slot, p, lap);
	} else if (!give_back(rv, slot, lap, settled)) {
		settled->messages++;
		slot_empty(slot, p, lap);
		if (SHMK_P_KIND(p) != SHMK_KIND_INLINE)
			shmk_block_put(view, block, gen, settled);
	}
}

/*
 * P of another lap: acknowledged, or dropped by a settler that died, but perhaps not
 * freed yet; or given back and received by another since, or sent on: then its
 * generation has grown.
 *
 * Without a block in the entry it is an inline one, or was until its holder, about
 * to send it on, put a block into the slot instead.
 */
static void settle_redo(const struct shmk_view *view, __u32 peer,
			const struct shmk_ring_view *rv, struct shmk_entry *entry,
			struct shmk_settled *settled)
{
	__u64 what = READ_ONCE(entry->what);
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 block = SHMK_WHAT_BLOCK(what), gen = SHMK_WHAT_GEN(what);
	bool is_inline = block == SHMK_NO_BLOCK && !gen;
	__u32 lap = shmk_lap(rv, pos);
	struct shmk_slot *slot = shmk_slot_at(rv, pos);
	__u64 p = smp_load_acquire(&slot->p);	/* what is read next is no older */

	if (SHMK_P_LAP(p) != lap) {
		if (!is_inline && block_valid(view, block))
			shmk_block_put(view, block, gen, settled);
		return;
	}
	if (!taken_by(slot, lap, peer))
		return;
	if (SHMK_P_KIND(p) == SHMK_KIND_BLOCK && block_valid(view, SHMK_P_ARG(p))) {
		if (is_inline) {
			block = SHMK_P_ARG(p);
			gen = SHMK_BLOCK_GEN(READ_ONCE(view->blocks[block].word));
			WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_REDO, block, gen));
			barrier();
		}
		if (SHMK_P_ARG(p) == block)
			settle_redo_there(view, rv, slot, p, block, gen, settled);
	} else if (SHMK_P_KIND(p) == SHMK_KIND_INLINE) {
		settle_redo_there(view, rv, slot, p, block, gen, settled);
	}
}

/*
 * As the living one would have gone on: hand over, REDO. Nobody else touches
 * the block as long as T names the dead one.
 */
static void settle_taken_redo(const struct shmk_view *view, __u32 peer,
			      const struct shmk_ring_view *rv, struct shmk_entry *entry,
			      struct shmk_settled *settled)
{
	__u64 what = READ_ONCE(entry->what);
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 block = SHMK_WHAT_BLOCK(what);
	__u32 gen = SHMK_WHAT_GEN(what);
	__u32 lap = shmk_lap(rv, pos);
	struct shmk_slot *slot = shmk_slot_at(rv, pos);
	__u64 word;

	if (!taken_by(slot, lap, peer) ||
	    READ_ONCE(slot->p) != SHMK_P(lap, SHMK_KIND_BLOCK, block))
		return;
	word = READ_ONCE(view->blocks[block].word);
	if (shmk_block_held_as(word, gen))
		cas(&view->blocks[block].word, word, shmk_block_handed(word));
	WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_REDO, block, gen + 1));
	barrier();
	settle_redo(view, peer, rv, entry, settled);
}

/*
 * The dead one had won T and read the block's word. In the order of the
 * living: hand over, empty the slot, free. Emptying first would show a dying
 * sender of the same message an empty slot and an untouched block, and it
 * would free what another has been given since.
 */
static void settle_taken(const struct shmk_view *view, __u32 peer,
			 const struct shmk_ring_view *rv,
			 struct shmk_entry *entry,
			 struct shmk_settled *settled)
{
	__u64 what = READ_ONCE(entry->what);
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 block = SHMK_WHAT_BLOCK(what);
	__u32 gen = SHMK_WHAT_GEN(what);
	__u32 lap;
	struct shmk_slot *slot;
	__u64 word;

	if (!block_valid(view, block))
		return;
	if (rv->slots && redelivers(rv)) {
		settle_taken_redo(view, peer, rv, entry, settled);
		return;
	}
	word = READ_ONCE(view->blocks[block].word);
	if (shmk_block_held_as(word, gen))
		cas(&view->blocks[block].word, word, shmk_block_handed(word));
	if (rv->slots) {
		slot = shmk_slot_at(rv, pos);
		lap = shmk_lap(rv, pos);
		if (taken_by(slot, lap, peer))
			slot_empty(slot, SHMK_P(lap, SHMK_KIND_BLOCK, block), lap);
	}
	put_counted(view, block, gen + 1, true, settled);
}

/*
 * Did the dead one win T? Then the message is its own: a block becomes TAKEN
 * in the ledger before anything is touched, since only the pair with the
 * generation can be settled twice.
 */
static void settle_taking(const struct shmk_view *view, __u32 peer,
			  const struct shmk_ring_view *rv,
			  struct shmk_entry *entry,
			  struct shmk_settled *settled)
{
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 lap, block;
	struct shmk_slot *slot;
	__u64 p, word;

	if (!rv->slots)
		return;
	slot = shmk_slot_at(rv, pos);
	lap = shmk_lap(rv, pos);
	p = READ_ONCE(slot->p);
	if (!taken_by(slot, lap, peer) || SHMK_P_LAP(p) != lap)
		return;
	switch (SHMK_P_KIND(p)) {
	case SHMK_KIND_BLOCK:
		block = SHMK_P_ARG(p);
		if (!block_valid(view, block))
			break;
		word = READ_ONCE(view->blocks[block].word);
		if (!shmk_block_held(word))
			break;
		WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_TAKEN, block,
						  SHMK_BLOCK_GEN(word)));
		barrier();
		settle_taken(view, peer, rv, entry, settled);
		return;
	case SHMK_KIND_INLINE:
		if (redelivers(rv) && give_back(rv, slot, lap, settled))
			return;
		settled->messages++;
		break;
	case SHMK_KIND_SKIP:
		break;
	default:
		return;
	}
	slot_empty(slot, p, lap);
}

/* The taker has the bytes, and had not told its caller. */
static void settle_copied(__u32 peer, const struct shmk_ring_view *rv,
			  const struct shmk_entry *entry, struct shmk_settled *settled)
{
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	struct shmk_slot *slot;
	__u32 lap;
	__u64 p;

	settled->messages++;
	if (!rv->slots)
		return;
	slot = shmk_slot_at(rv, pos);
	lap = shmk_lap(rv, pos);
	p = READ_ONCE(slot->p);
	if (taken_by(slot, lap, peer) && SHMK_P_LAP(p) == lap &&
	    SHMK_P_KIND(p) == SHMK_KIND_INLINE)
		slot_empty(slot, p, lap);
}

/* Published, published and already taken, or never published? */
static void settle_sending(const struct shmk_view *view,
			   const struct shmk_ring_view *rv,
			   const struct shmk_entry *entry,
			   struct shmk_settled *settled)
{
	__u64 what = READ_ONCE(entry->what);
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 block = SHMK_WHAT_BLOCK(what);
	__u32 lap;

	if (!block_valid(view, block))
		return;
	if (rv->slots) {
		lap = shmk_lap(rv, pos);
		/* Q2: who sees it emptied sees the hand-over. */
		if (smp_load_acquire(&shmk_slot_at(rv, pos)->p) ==
		    SHMK_P(lap, SHMK_KIND_BLOCK, block))
			return;
	}
	put_counted(view, block, SHMK_WHAT_GEN(what),
		    SHMK_WHAT_OP(what) == SHMK_OP_PASSING, settled);
}

/*
 * Was a message that the dead one held unacknowledged published elsewhere? Then
 * its block is marked, as by a hand-over, for the REDO entry to see. Who is
 * taking it there writes the same word, or has written a later one.
 */
static void settle_resending(const struct shmk_view *view,
			     const struct shmk_ring_view *rv,
			     const struct shmk_entry *entry)
{
	__u64 what = READ_ONCE(entry->what);
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 block = SHMK_WHAT_BLOCK(what);
	__u64 word;

	if (!block_valid(view, block) || !rv->slots ||
	    READ_ONCE(shmk_slot_at(rv, pos)->p) !=
	    SHMK_P(shmk_lap(rv, pos), SHMK_KIND_BLOCK, block))
		return;
	word = READ_ONCE(view->blocks[block].word);
	if (shmk_block_held_as(word, SHMK_WHAT_GEN(what)))
		cas(&view->blocks[block].word, word, shmk_block_handed(word));
}

static void settle_claiming(__u32 peer, const struct shmk_ring_view *rv,
			    const struct shmk_entry *entry)
{
	__u64 pos = SHMK_WHERE_POS(READ_ONCE(entry->where));
	__u32 lap;

	if (!rv->slots)
		return;
	lap = shmk_lap(rv, pos);
	cas(&shmk_slot_at(rv, pos)->p, SHMK_P(lap, SHMK_KIND_CLAIMED, peer),
	    SHMK_P(lap, SHMK_KIND_SKIP, 0));
}

static void settle_held(const struct shmk_view *view,
			const struct shmk_entry *entry,
			struct shmk_settled *settled)
{
	__u64 what = READ_ONCE(entry->what);

	if (block_valid(view, SHMK_WHAT_BLOCK(what)))
		put_counted(view, SHMK_WHAT_BLOCK(what), SHMK_WHAT_GEN(what),
			    SHMK_WHAT_OP(what) == SHMK_OP_GOT, settled);
}

void shmk_settle_queue(const struct shmk_view *view,
		       const struct shmk_ring_view *rv,
		       struct shmk_settled *settled)
{
	__u32 i, block;
	__u64 p, word;

	for (i = 0; i < 1U << rv->capacity_shift; i++) {
		p = READ_ONCE(shmk_slot_at(rv, i)->p);
		block = SHMK_P_ARG(p);
		if (SHMK_P_KIND(p) == SHMK_KIND_BLOCK && block_valid(view, block)) {
			word = READ_ONCE(view->blocks[block].word);
			shmk_block_put(view, block, SHMK_BLOCK_GEN(word), settled);
		}
		/* As if taken: one who removes and is killed at it leaves a queue that works. */
		if (SHMK_P_KIND(p) != SHMK_KIND_EMPTY)
			slot_empty(shmk_slot_at(rv, i), p, SHMK_P_LAP(p));
	}
}

/*
 * A lap, if the head is where it should be. Where taken messages stay, it may be
 * a lap behind the first of them, and what is free lie a lap behind that.
 */
static bool recv_ready(const struct shmk_ring_view *rv)
{
	__u32 i, most = (redelivers(rv) ? 3U : 1U) << rv->capacity_shift;
	__u64 pos = READ_ONCE(rv->ring->head);
	struct shmk_slot *slot;
	__s32 ahead;
	__u64 p;

	for (i = 0; i <= most; i++, pos++) {
		slot = shmk_slot_at(rv, pos);
		p = smp_load_acquire(&slot->p);			/* Q1 */
		ahead = (__s32)(SHMK_P_LAP(p) - shmk_lap(rv, pos));
		if (ahead < 0 || (ahead == 0 && SHMK_P_KIND(p) == SHMK_KIND_EMPTY))
			return false;
		if (ahead == 0 && SHMK_P_KIND(p) != SHMK_KIND_CLAIMED &&
		    !shmk_taken(READ_ONCE(slot->t), SHMK_P_LAP(p)))
			return true;
	}
	return false;
}

/* Without room, too, there is something to do for who finds a mailbox closed: give up. */
static bool send_ready(const struct shmk_ring_view *rv)
{
	__u64 pos = READ_ONCE(rv->ring->tail);
	__u32 i;
	__s32 ahead;
	__u64 p;

	if (shmk_ring_closed(rv))					/* M1 */
		return true;
	for (i = 0; i <= 2U << rv->capacity_shift; i++, pos++) {
		p = smp_load_acquire(&shmk_slot_at(rv, pos)->p);	/* Q2 */
		ahead = (__s32)(SHMK_P_LAP(p) - shmk_lap(rv, pos));
		if (ahead < 0)
			return false;
		/* Senders that stopped before they pushed the tail: go where the slot is. */
		if (ahead > 1)
			pos += (__u64)(ahead - 1) << rv->capacity_shift;
		if (ahead == 0 && SHMK_P_KIND(p) == SHMK_KIND_EMPTY)
			return true;
	}
	return false;
}

bool shmk_ring_ready(const struct shmk_ring_view *rv, __u32 side)
{
	return side == SHMK_SIDE_RECV ? recv_ready(rv) : send_ready(rv);
}

bool shmk_ring_drained(const struct shmk_ring_view *rv)
{
	__u32 i;

	for (i = 0; i < 1U << rv->capacity_shift; i++) {
		struct shmk_slot *slot = shmk_slot_at(rv, i);
		__u64 p = smp_load_acquire(&slot->p);	/* T is no older */

		if (SHMK_P_KIND(p) == SHMK_KIND_EMPTY)
			continue;
		if (redelivers(rv) || SHMK_P_KIND(p) == SHMK_KIND_CLAIMED ||
		    !shmk_taken(READ_ONCE(slot->t), SHMK_P_LAP(p)))
			return false;
	}
	return true;
}

bool shmk_topic_ready(const struct shmk_ring_view *rv, __u64 pos)
{
	__u64 p = smp_load_acquire(&shmk_slot_at(rv, pos)->p);	/* Q1 */
	__s32 ahead = (__s32)(SHMK_P_LAP(p) - shmk_lap(rv, pos));

	return SHMK_P_KIND(p) == SHMK_KIND_ELEMENT && ahead >= 0;
}

/* -------------------------------------------------------------- spans -- */

struct span_entry {
	struct shmk_span *span;
	__u32 index, gen, nr;
};

static bool span_entry(const struct shmk_view *view,
		       const struct shmk_entry *entry, struct span_entry *e)
{
	__u64 what = READ_ONCE(entry->what);
	__u64 nr = SHMK_WHERE_POS(READ_ONCE(entry->where));

	e->index = SHMK_WHAT_BLOCK(what);
	e->gen = SHMK_WHAT_GEN(what) & 0xffff;
	if (e->index >= view->nr_spans)
		return false;
	e->nr = nr > view->nr_spans - e->index ? view->nr_spans - e->index : (__u32)nr;
	e->span = &view->spans[e->index];
	return true;
}

static bool owned_by(__u64 word, __u32 gen, __u32 peer)
{
	return SHMK_SPAN_OWNER(word) == peer && SHMK_SPAN_GEN(word) == gen &&
	       SHMK_SPAN_KIND(word) != SHMK_SPAN_TAIL;
}

static bool thief_of(__u64 word, __u32 peer)
{
	return SHMK_SPAN_THIEF(word) == peer &&
	       (SHMK_SPAN_KIND(word) == SHMK_SPAN_CUT ||
		SHMK_SPAN_KIND(word) == SHMK_SPAN_RUN);
}

/*
 * Unlocks blocks that a thief had locked. A thief that gave up leaves their
 * generation (the owner's private list still names it), a new owner raises it
 * (nobody's list may name them any more).
 * Returns whether all blocks of the span are free.
 */
bool shmk_span_unlock(const struct shmk_view *view, __u32 index, __u64 word,
		      __u32 raise)
{
	__u32 first = index << SHMK_SPAN_UNITS_SHIFT;
	__u32 step = SHMK_SPAN_KIND(word) == SHMK_SPAN_CUT ?
		     shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES) :
		     SHMK_SPAN_UNITS;
	bool empty = true;
	__u32 i;

	for (i = 0; i + step <= SHMK_SPAN_UNITS; i += step) {
		__u64 *at = &view->blocks[first + i].word;
		__u64 w = READ_ONCE(*at);

		if (SHMK_BLOCK_STATE(w) == SHMK_BLOCK_GONE)
			cas(at, w, SHMK_BLOCK_WORD(SHMK_BLOCK_GEN(w) + raise,
						   SHMK_BLOCK_FREE));
		else if (SHMK_BLOCK_STATE(w) != SHMK_BLOCK_FREE)
			empty = false;
	}
	return empty;
}

static void span_release(const struct shmk_view *view, __u32 index, __u64 word)
{
	if (cas(&view->spans[index].word, word,
		SHMK_SPAN_WORD(SHMK_SPAN_GEN(word), 0, 0, 0, SHMK_SPAN_FREE)))
		shmk_map_clear(view->taken_map, index);
}

/*
 * A run that was being put together or given back: tails first, the head last.
 * What is not ours gets its hint all the same, the dead one may just have
 * cleared it. A wrong hint costs a look.
 *
 * Only GATHER in the head's word keeps thieves away meanwhile.
 */
void shmk_span_scatter(const struct shmk_view *view, __u32 peer,
		       const struct shmk_entry *entry)
{
	struct span_entry e;
	__u64 head, tail;
	bool mine;
	__u32 i;

	if (!span_entry(view, entry, &e))
		return;
	head = READ_ONCE(e.span->word);
	mine = owned_by(head, e.gen, peer) && SHMK_SPAN_KIND(head) == SHMK_SPAN_GATHER;
	for (i = 1; i < e.nr; i++) {
		tail = READ_ONCE(e.span[i].word);
		if (mine && SHMK_SPAN_KIND(tail) == SHMK_SPAN_TAIL &&
		    SHMK_SPAN_HEAD(tail) == e.index)
			span_release(view, e.index + i, tail);
		else
			shmk_map_clear(view->taken_map, e.index + i);
	}
	if (mine)
		span_release(view, e.index, head);
	else
		shmk_map_clear(view->taken_map, e.index);
}

/* The run was complete, and its owner died before the ledger said so: a span like any other. */
static void settle_gather(const struct shmk_view *view, __u32 peer,
			  struct shmk_entry *entry)
{
	struct span_entry e;
	__u64 head;

	if (!span_entry(view, entry, &e))
		return;
	head = READ_ONCE(e.span->word);
	if (owned_by(head, e.gen, peer) && SHMK_SPAN_KIND(head) == SHMK_SPAN_RUN)
		WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_SPAN, e.index, e.gen));
	else
		shmk_span_scatter(view, peer, entry);
}

/* A thief that had not got the span gives up; one that had becomes a plain owner. */
static void settle_seizing(const struct shmk_view *view, __u32 peer,
			   struct shmk_entry *entry)
{
	struct span_entry e;
	__u64 word, new;
	int tries;

	if (!span_entry(view, entry, &e))
		return;
	word = READ_ONCE(e.span->word);
	if (owned_by(word, (e.gen + 1) & 0xffff, peer)) {
		WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_SPAN, e.index,
						  (e.gen + 1) & 0xffff));
		return;
	}
	if (thief_of(word, peer))
		shmk_span_unlock(view, e.index, word, 0);
	for (tries = 0; thief_of(word, peer) && tries < TRIES; tries++) {
		/* The owner may die or leave meanwhile and drop its name. */
		new = word & ~((__u64)0xffff << 16);
		if (cas(&e.span->word, word, new))
			break;
		word = READ_ONCE(e.span->word);
	}
	shmk_span_hint(view, e.index);
}

/* Empty goes back to the pool, else it becomes an orphan that others adopt. */
void shmk_settle_span(const struct shmk_view *view, __u32 peer,
		      struct shmk_entry *entry)
{
	struct span_entry e;
	__u64 word, new;
	int tries;

	if (SHMK_WHAT_OP(READ_ONCE(entry->what)) != SHMK_OP_SPAN)
		return;
	for (tries = 0; span_entry(view, entry, &e) && tries < TRIES; tries++) {
		word = READ_ONCE(e.span->word);
		if (!owned_by(word, e.gen, peer)) {
			shmk_map_clear(view->taken_map, e.index);
			/* The dead one may have taken the hints before it saw that. */
			word_or(&e.span->freed, ~0ULL);
			shmk_span_hint(view, e.index);
			break;
		}
		if (!SHMK_SPAN_THIEF(word) && shmk_span_unlock(view, e.index, word, 1)) {
			/* GATHER locks thieves out while the tails go. */
			new = SHMK_SPAN_WORD(e.gen, peer, 0, 0, SHMK_SPAN_GATHER);
			if (!cas(&e.span->word, word, new))
				continue;
			WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_GATHER, e.index, e.gen));
			barrier();
			shmk_span_scatter(view, peer, entry);
			break;
		}
		new = word & ~((__u64)0xffff << 32);
		if (cas(&e.span->word, word, new)) {
			shmk_span_hint(view, e.index);
			break;
		}
	}
	WRITE_ONCE(entry->what, SHMK_OP_NONE);
}

void shmk_settle_usage(const struct shmk_view *view, __u32 first, __u32 end,
		       struct shmk_settled *usage)
{
	__u32 s, i, step, kind;
	__u64 word;

	for (s = first; s < end; s++) {
		word = READ_ONCE(view->spans[s].word);
		kind = SHMK_SPAN_KIND(word);
		if (kind != SHMK_SPAN_CUT && kind != SHMK_SPAN_RUN)
			continue;
		step = kind == SHMK_SPAN_RUN ? SHMK_SPAN_UNITS :
		       shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES);
		for (i = 0; i + step <= SHMK_SPAN_UNITS; i += step) {
			__u32 block = (s << SHMK_SPAN_UNITS_SHIFT) + i;
			__u64 w = READ_ONCE(view->blocks[block].word);

			if (SHMK_BLOCK_STATE(w) == SHMK_BLOCK_FREE ||
			    SHMK_BLOCK_STATE(w) == SHMK_BLOCK_GONE)
				continue;
			usage->blocks++;
			usage->bytes += shmk_block_room(view, block);
		}
	}
}

/* ------------------------------------------------------------ entries -- */

static bool names_queue(__u32 op)
{
	return (op >= SHMK_OP_SENDING && op <= SHMK_OP_CLAIMING) ||
	       op == SHMK_OP_WAITING || op == SHMK_OP_PASSING || op == SHMK_OP_COPIED ||
	       op == SHMK_OP_RESENDING;
}

int shmk_settle_entry(const struct shmk_view *view, __u32 peer,
		      struct shmk_entry *entry, struct shmk_settled *settled)
{
	__u64 where = READ_ONCE(entry->where);
	__u32 op = SHMK_WHAT_OP(READ_ONCE(entry->what));
	__u32 id = SHMK_WHERE_QUEUE(where);
	struct shmk_ring_view rv = { .slots = NULL };
	int bell = SHMK_SETTLE_NO_BELL;

	if (op == SHMK_OP_NONE)
		return bell;
	settled->entries++;
	if (op == SHMK_OP_REDO)
		settled->held_back++;
	if (op == SHMK_OP_SPAN || op == SHMK_OP_REDO)
		return bell;
	if (names_queue(op) && id < view->nr_queues) {
		view->queue(view, id, &rv);
		if (rv.slots)
			bell = (int)id;
	}
	switch (op) {
	case SHMK_OP_HELD:
	case SHMK_OP_GOT:
		settle_held(view, entry, settled);
		break;
	case SHMK_OP_SENDING:
	case SHMK_OP_PASSING:
		settle_claiming(peer, &rv, entry);	/* F_META */
		settle_sending(view, &rv, entry, settled);
		break;
	case SHMK_OP_TAKING:
		settle_taking(view, peer, &rv, entry, settled);
		break;
	case SHMK_OP_TAKEN:
		settle_taken(view, peer, &rv, entry, settled);
		break;
	case SHMK_OP_COPIED:
		settle_copied(peer, &rv, entry, settled);
		break;
	case SHMK_OP_CLAIMING:
		settle_claiming(peer, &rv, entry);
		break;
	case SHMK_OP_RESENDING:
		settle_claiming(peer, &rv, entry);
		settle_resending(view, &rv, entry);
		break;
	case SHMK_OP_GATHER:
		settle_gather(view, peer, entry);
		break;
	case SHMK_OP_SEIZING:
		settle_seizing(view, peer, entry);
		break;
	default:
		break;
	}
	if (SHMK_WHAT_OP(READ_ONCE(entry->what)) != SHMK_OP_SPAN)
		WRITE_ONCE(entry->what, SHMK_OP_NONE);
	return bell;
}

/* One of a queue that the dead one did not have open is held, as far as it goes. */
int shmk_settle_redo(const struct shmk_view *view, __u32 peer,
		     struct shmk_entry *entry, struct shmk_settled *settled)
{
	__u32 id = SHMK_WHERE_QUEUE(READ_ONCE(entry->where));
	struct shmk_ring_view rv = { .slots = NULL };

	if (SHMK_WHAT_OP(READ_ONCE(entry->what)) != SHMK_OP_REDO)
		return SHMK_SETTLE_NO_BELL;
	if (id < view->nr_queues)
		view->queue(view, id, &rv);
	if (rv.slots)
		settle_redo(view, peer, &rv, entry, settled);
	else
		settle_held(view, entry, settled);
	WRITE_ONCE(entry->what, SHMK_OP_NONE);
	return rv.slots ? (int)id : SHMK_SETTLE_NO_BELL;
}
