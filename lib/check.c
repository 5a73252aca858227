// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * check.c - does every word of a pool agree with every other?
 *
 * Walked: the ledgers of all peers, the slots of all queues, the spans, the
 * blocks. The main invariant: a block that is USED or a reference has exactly one
 * holder, a ledger entry or a slot; a block that is not has none. And an inner
 * block of a shared message has just the children that its word says.
 *
 * A pool under work shows halves of moves between two reads. A violation
 * counts only if the same one, word for word, is found in CONFIRM walks in a
 * row. Private memory: two bytes per block, two per span.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "internal.h"

#define CONFIRM	4
#define WALKS	64	/* of a pool so busy that no two agree, nothing can be said */

struct walk {
	struct shmk	*s;
	uint8_t		*refs;		/* holders of each block, saturating */
	uint8_t		*children;	/* of each inner block: 4 bits left, 4 bits right */
	const struct shmk_ledger *ledger;	/* that is walked */
	uint32_t	high;			/* its entries */
	bool		resends;		/* some of them are RESENDING */
	uint16_t	*named;		/* by span: the last peer whose ledger names it, or 0 */
	char		*report;
	size_t		len;
	bool		found;
};

__attribute__((format(printf, 2, 3)))
static void violation(struct walk *w, const char *fmt, ...)
{
	va_list ap;

	if (w->found)
		return;
	w->found = true;
	va_start(ap, fmt);
	vsnprintf(w->report, w->len, fmt, ap);
	va_end(ap);
}

static const struct shmk_peer_status *peer_status(struct shmk *s, uint32_t id)
{
	return (const struct shmk_peer_status *)
		((const unsigned char *)s->status + s->status->peers_off) + id;
}

static bool peer_known(struct shmk *s, uint32_t id)
{
	return id && id <= s->status->nr_peers &&
	       SHMK_PEER_STATE(READ_ONCE(peer_status(s, id)->word)) != SHMK_PEER_NONE;
}

static uint32_t nr_blocks(const struct walk *w)
{
	return w->s->view.nr_spans << SHMK_SPAN_UNITS_SHIFT;
}

static void ref(struct walk *w, uint32_t block)
{
	if (w->refs[block] < UINT8_MAX)
		w->refs[block]++;
}

/* -------------------------------------------------------------- ledgers -- */

static bool slot_of(struct walk *w, __u64 where, struct shmk_slot **slot, uint32_t *lap)
{
	struct shmk_ring_view rv = { .slots = NULL };
	uint32_t id = SHMK_WHERE_QUEUE(where);

	if (id < w->s->view.nr_queues)
		w->s->view.queue(&w->s->view, id, &rv);
	if (!rv.slots)
		return false;
	*slot = shmk_slot_at(&rv, SHMK_WHERE_POS(where));
	*lap = shmk_lap(&rv, SHMK_WHERE_POS(where));
	return true;
}

static bool published(struct walk *w, __u64 where, uint32_t block)
{
	struct shmk_slot *slot;
	uint32_t lap;

	return slot_of(w, where, &slot, &lap) &&
	       READ_ONCE(slot->p) == SHMK_P(lap, SHMK_KIND_BLOCK, block);
}

/*
 * One who is stopped when he has published a message elsewhere, and not yet emptied
 * the slot where he held it: the new slot has it.
 */
static bool resent(struct walk *w, uint32_t block, uint32_t gen)
{
	const struct shmk_entry *e;

	for (e = w->ledger->entry; w->resends && e < w->ledger->entry + w->high; e++)
		if (READ_ONCE(e->what) == SHMK_WHAT(SHMK_OP_RESENDING, block, gen) &&
		    published(w, READ_ONCE(e->where), block))
			return true;
	return false;
}

/* Does this entry hold its block, as far as the block knows? */
static bool entry_holds(struct walk *w, __u64 what, __u64 where, uint32_t block)
{
	__u64 word = READ_ONCE(w->s->view.blocks[block].word);
	uint32_t gen = SHMK_WHAT_GEN(what);

	if (!shmk_block_held(word))
		return false;
	switch (SHMK_WHAT_OP(what)) {
	case SHMK_OP_HELD:
	case SHMK_OP_GOT:
		return SHMK_BLOCK_GEN(word) == gen;
	case SHMK_OP_TAKEN:
		return SHMK_BLOCK_GEN(word) == gen || SHMK_BLOCK_GEN(word) == gen + 1;
	case SHMK_OP_SENDING:
	case SHMK_OP_PASSING:
		return SHMK_BLOCK_GEN(word) == gen && !published(w, where, block);
	case SHMK_OP_REDO:
		return SHMK_BLOCK_GEN(word) == gen && !resent(w, block, gen);
	default:
		return false;
	}
}

/*
 * A block may be ahead of the entry of who is just freeing it, for as long as he
 * is stopped there, but never behind.
 */
static bool holds_the_future(struct walk *w, __u64 what, uint32_t block)
{
	__u64 word = READ_ONCE(w->s->view.blocks[block].word);
	uint32_t op = SHMK_WHAT_OP(what);

	return (op == SHMK_OP_HELD || op == SHMK_OP_GOT || op == SHMK_OP_REDO) &&
	       (int32_t)(SHMK_WHAT_GEN(what) - SHMK_BLOCK_GEN(word)) > 0;
}

static void walk_taking(struct walk *w, uint32_t peer, __u64 where)
{
	struct shmk_slot *slot;
	uint32_t lap;
	__u64 p, t;

	if (!slot_of(w, where, &slot, &lap))
		return;
	p = READ_ONCE(slot->p);
	t = READ_ONCE(slot->t);
	if (t == SHMK_T_TRIED(lap, peer, SHMK_T_TRIES(t)) && SHMK_P_LAP(p) == lap &&
	    SHMK_P_KIND(p) == SHMK_KIND_BLOCK && SHMK_P_ARG(p) < nr_blocks(w))
		ref(w, SHMK_P_ARG(p));
}

static void walk_entry(struct walk *w, uint32_t peer, uint32_t i, const struct shmk_entry *e)
{
	__u64 where = READ_ONCE(e->where), what = READ_ONCE(e->what);
	uint32_t op = SHMK_WHAT_OP(what), block = SHMK_WHAT_BLOCK(what);

	if (op >= SHMK_OP_SPAN && op <= SHMK_OP_SEIZING) {
		if (block < w->s->view.nr_spans && w->named[block] != peer)
			w->named[block] = w->named[block] ? UINT16_MAX : (uint16_t)peer;
	} else if (op == SHMK_OP_HOLDING) {
		/* Of a topic's element, not a block: see walk_holds(). */
	} else if (op > SHMK_OP_RESENDING) {
		violation(w, "peer %u entry %u: no such operation %u (what %#llx)", peer, i, op,
			  (unsigned long long)what);
	} else if (op == SHMK_OP_TAKING ||
		   what == SHMK_WHAT(SHMK_OP_REDO, SHMK_NO_BLOCK, 0)) {
		walk_taking(w, peer, where);
	} else if (op == SHMK_OP_HELD || op == SHMK_OP_GOT || op == SHMK_OP_SENDING ||
		   op == SHMK_OP_PASSING || op == SHMK_OP_TAKEN || op == SHMK_OP_REDO) {
		if (block >= nr_blocks(w))
			violation(w, "peer %u entry %u: block %u is outside the pool", peer, i,
				  block);
		else if (entry_holds(w, what, where, block))
			ref(w, block);
		else if (holds_the_future(w, what, block))
			violation(w, "peer %u entry %u: holds block %u of generation %u, whose word is %#llx",
				  peer, i, block, SHMK_WHAT_GEN(what),
				  (unsigned long long)READ_ONCE(w->s->view.blocks[block].word));
	}
}

static void walk_ledgers(struct walk *w)
{
	const struct shmk_status *st = w->s->status;
	uint32_t id, i, high, most;

	for (id = 1; id <= st->nr_peers; id++) {
		const struct shmk_ledger *ledger;

		if (!peer_known(w->s, id))
			continue;
		ledger = (const void *)(w->s->ledgers + id * st->ledger_stride);
		most = READ_ONCE(peer_status(w->s, id)->nr_entries);
		high = (uint32_t)READ_ONCE(ledger->high);
		if (high > most) {
			violation(w, "peer %u: its ledger says %u entries, it has %u", id, high,
				  most);
			continue;
		}
		w->ledger = ledger;
		w->high = high;
		w->resends = false;
		for (i = 0; i < high; i++)
			w->resends |= SHMK_WHAT_OP(READ_ONCE(ledger->entry[i].what)) ==
				      SHMK_OP_RESENDING;
		for (i = 0; i < high; i++)
			walk_entry(w, id, i, &ledger->entry[i]);
	}
}

/* --------------------------------------------------------------- queues -- */

static void walk_slot(struct walk *w, uint32_t id, uint32_t i, const struct shmk_slot *slot)
{
	__u64 t = READ_ONCE(slot->t), p = READ_ONCE(slot->p);
	uint32_t kind = SHMK_P_KIND(p), arg = SHMK_P_ARG(p);
	bool taken = (t & SHMK_TAKEN) && SHMK_P_LAP(t) == SHMK_P_LAP(p) && SHMK_T_PEER(t);

	if (kind > SHMK_KIND_SKIP)
		violation(w, "queue %u slot %u: no such kind %u (P %#llx)", id, i, kind,
			  (unsigned long long)p);
	else if (kind == SHMK_KIND_EMPTY && taken)
		violation(w, "queue %u slot %u: nothing was taken (P %#llx, T %#llx)", id, i,
			  (unsigned long long)p, (unsigned long long)t);
	else if (taken && !peer_known(w->s, (uint32_t)t & 0xffff))
		violation(w, "queue %u slot %u: taken by peer %u, who is gone (P %#llx)", id, i,
			  (uint32_t)t & 0xffff, (unsigned long long)p);
	else if (kind == SHMK_KIND_CLAIMED && !peer_known(w->s, arg))
		violation(w, "queue %u slot %u: claimed by peer %u, who is gone", id, i, arg);
	else if (kind == SHMK_KIND_BLOCK && arg >= nr_blocks(w))
		violation(w, "queue %u slot %u: block %u is outside the pool", id, i, arg);
	else if (kind == SHMK_KIND_BLOCK && !taken)
		ref(w, arg);
}

/* Laps fall by one, once, on the way round from head. */
static void walk_laps(struct walk *w, uint32_t id, const struct shmk_ring_view *rv)
{
	uint64_t mask = (1ULL << (32 + rv->capacity_shift)) - 1;
	uint64_t head = READ_ONCE(rv->ring->head) & mask, tail = READ_ONCE(rv->ring->tail) & mask;
	uint64_t depth = (tail - ring_oldest(rv, head, tail)) & mask;
	struct shmk_slot *slot = shmk_slot_at(rv, head);
	int32_t ahead = (int32_t)(SHMK_P_LAP(READ_ONCE(slot->p)) - shmk_lap(rv, head));

	if (depth > 1ULL << rv->capacity_shift && depth < mask / 2)
		violation(w, "queue %u: head %llu and tail %llu are more than a lap apart", id,
			  (unsigned long long)head, (unsigned long long)tail);
	/* It never leads; a receiver that died before it pushed it may have left it another lap behind. */
	if (ahead < -1 || (ahead > 1 && (uint64_t)ahead > 1 + READ_ONCE(w->s->status->deaths)))
		violation(w, "queue %u: head %llu leads into lap %u of a slot with P %#llx", id,
			  (unsigned long long)head, shmk_lap(rv, head),
			  (unsigned long long)READ_ONCE(slot->p));
}

/* What a row's reader says that it holds. */
static void walk_holds(struct walk *w, uint32_t id, uint32_t row)
{
	const struct shmk_queue_status *q = queue_status(w->s, id);
	const struct shmk_row *r =
		(const struct shmk_row *)((const char *)w->s->status + w->s->status->rows_off) +
		row;
	__u64 word = READ_ONCE(r->word), what;
	uint32_t i, peer = SHMK_ROW_PEER(word), entry = READ_ONCE(r->entry);
	const struct shmk_ledger *ledger;

	if (!word)
		return;
	if (!peer_known(w->s, peer) || SHMK_ROW_GEN(word) !=
	    SHMK_PEER_GEN(READ_ONCE(peer_status(w->s, peer)->word)) ||
	    entry >= READ_ONCE(peer_status(w->s, peer)->nr_entries)) {
		violation(w, "topic %u row %u: of peer %u, who is gone (word %#llx)", id, row, peer,
			  (unsigned long long)word);
		return;
	}
	ledger = (const void *)(w->s->ledgers + peer * w->s->status->ledger_stride);
	for (i = 0; i <= q->nr_holds; i++) {
		what = READ_ONCE(ledger->entry[entry + i].what);
		if (SHMK_WHAT_OP(what) == SHMK_OP_HOLDING && SHMK_WHAT_BLOCK(what) >= q->nr_elements &&
		    SHMK_WHAT_BLOCK(what) != SHMK_ELEMENT_NONE)
			violation(w, "topic %u row %u: peer %u holds element %u of %u", id, row,
				  peer, SHMK_WHAT_BLOCK(what), q->nr_elements);
	}
}

/* The block of a topic has one holder, the topic; its slots name different elements. */
static void walk_topic(struct walk *w, uint32_t id, const struct shmk_ring_view *rv)
{
	const struct shmk_queue_status *q = queue_status(w->s, id);
	uint32_t i, j, n = 1U << rv->capacity_shift;
	__u64 word;

	word = q->block < nr_blocks(w) ? READ_ONCE(w->s->view.blocks[q->block].word) : 0;
	if (word == SHMK_BLOCK_WORD(q->block_gen, SHMK_BLOCK_USED))
		ref(w, q->block);
	else
		violation(w, "topic %u: its block %u of generation %u has the word %#llx", id,
			  q->block, q->block_gen, (unsigned long long)word);
	for (i = 0; i < n; i++) {
		__u64 p = READ_ONCE(shmk_slot_at(rv, i)->p);

		if (p && (SHMK_P_KIND(p) != SHMK_KIND_ELEMENT || SHMK_P_ARG(p) >= q->nr_elements))
			violation(w, "topic %u slot %u: no element (P %#llx)", id, i,
				  (unsigned long long)p);
		for (j = i < 64 ? 0 : i - 64; j < i; j++)	/* near enough */
			if (p && SHMK_P_ARG(p) == SHMK_P_ARG(READ_ONCE(shmk_slot_at(rv, j)->p)))
				violation(w, "topic %u: element %u is in slots %u and %u", id,
					  SHMK_P_ARG(p), j, i);
	}
	for (i = 0; i < q->nr_readers; i++)
		walk_holds(w, id, q->first_row + i);
}

static void walk_queues(struct walk *w)
{
	uint32_t id, i;

	for (id = 0; id < w->s->view.nr_queues; id++) {
		struct shmk_ring_view rv = { .slots = NULL };

		w->s->view.queue(&w->s->view, id, &rv);
		if (!rv.slots)
			continue;
		if (rv.flags & SHMK_QUEUE_F_TOPIC) {
			walk_topic(w, id, &rv);
			continue;
		}
		for (i = 0; i < 1U << rv.capacity_shift; i++)
			walk_slot(w, id, i, shmk_slot_at(&rv, i));
		walk_laps(w, id, &rv);
	}
}

/* --------------------------------------------------------------- shared -- */

/* A child counts for its parent as long as both say so. */
static void walk_child(struct walk *w, uint32_t block)
{
	__u64 word = READ_ONCE(w->s->view.blocks[block].word), up_word;
	uint32_t up, one;

	if ((!shmk_block_held(word) && !shmk_block_inner(word)) ||
	    !shmk_block_parent(&w->s->view, block, word, &up, &up_word))
		return;
	one = shmk_block_place(word) == SHMK_PLACE_LEFT ? 1 : 0x10;
	if ((w->children[up] & (one * 0xf)) < one * 0xf)
		w->children[up] = (uint8_t)(w->children[up] + one);
}

/*
 * The parts of an envelope. Who makes one, or takes one apart, may be stopped
 * while he has the parts, too.
 */
static void walk_parts(struct walk *w, uint32_t envelope)
{
	uint32_t i, block, nr = shmk_block_parts(READ_ONCE(w->s->view.blocks[envelope].word));
	__u64 part;

	for (i = 1; i <= nr && envelope + i < nr_blocks(w); i++) {
		part = READ_ONCE(w->s->view.blocks[envelope + i].len);
		block = SHMK_PART_ARG(part);
		if (SHMK_PART_KIND(part) == SHMK_PART_INLINE)
			continue;
		if ((SHMK_PART_KIND(part) != SHMK_PART_BLOCK &&
		     SHMK_PART_KIND(part) != SHMK_PART_GOT) || block >= nr_blocks(w))
			violation(w, "block %u: part %u is %#llx", envelope, i - 1,
				  (unsigned long long)part);
		else if (shmk_block_held_as(READ_ONCE(w->s->view.blocks[block].word),
					    SHMK_PART_GEN(part)) && !w->refs[block])
			ref(w, block);
	}
}

static void walk_shared(struct walk *w)
{
	uint32_t block;

	for (block = 0; block < nr_blocks(w); block++) {
		walk_child(w, block);
		walk_parts(w, block);
	}
}

static void walk_inner(struct walk *w, uint32_t block, __u64 word)
{
	uint32_t left = w->children[block] & 0xf, right = w->children[block] >> 4;

	if (left != shmk_inner_has(word, SHMK_PLACE_LEFT) ||
	    right != shmk_inner_has(word, SHMK_PLACE_RIGHT))
		violation(w, "block %u: shared, with %u left and %u right children (word %#llx)",
			  block, left, right, (unsigned long long)word);
}

/* ---------------------------------------------------------------- spans -- */

static void walk_block(struct walk *w, uint32_t block, bool in_use, bool thief)
{
	__u64 word = READ_ONCE(w->s->view.blocks[block].word);
	uint32_t state = SHMK_BLOCK_STATE(word), refs = w->refs[block];

	if (state > SHMK_BLOCK_STATE_MAX)
		violation(w, "block %u: no such state (word %#llx)", block,
			  (unsigned long long)word);
	else if (!in_use && state != SHMK_BLOCK_FREE)
		violation(w, "block %u: word %#llx where no block is cut", block,
			  (unsigned long long)word);
	else if (state == SHMK_BLOCK_GONE && !thief)
		violation(w, "block %u: locked, but the span has no thief (word %#llx)", block,
			  (unsigned long long)word);
	else if (shmk_block_held(word) && refs != 1)
		violation(w, "block %u: in use, with %u holders (word %#llx)", block, refs,
			  (unsigned long long)word);
	else if (!shmk_block_held(word) && refs)
		violation(w, "block %u: free, with %u holders (word %#llx)", block, refs,
			  (unsigned long long)word);
	else if (shmk_block_inner(word))
		walk_inner(w, block, word);
}

static void walk_tail(struct walk *w, uint32_t index, __u64 word)
{
	uint32_t head = SHMK_SPAN_HEAD(word);
	__u64 nr, at;

	if (head >= index) {
		violation(w, "span %u: tail of span %u", index, head);
		return;
	}
	at = READ_ONCE(w->s->view.spans[head].word);
	nr = READ_ONCE(w->s->view.spans[head].nr_spans);
	if (SHMK_SPAN_KIND(at) != SHMK_SPAN_GATHER &&
	    (SHMK_SPAN_KIND(at) != SHMK_SPAN_RUN || nr <= index - head))
		violation(w, "span %u: tail of span %u, which is no run of that length (word %#llx, %llu spans)",
			  index, head, (unsigned long long)at, (unsigned long long)nr);
}

/* Returns units from block to block; 0: no blocks here. */
static uint32_t walk_span_word(struct walk *w, uint32_t index, __u64 word)
{
	uint32_t owner = SHMK_SPAN_OWNER(word), thief = SHMK_SPAN_THIEF(word);

	switch (SHMK_SPAN_KIND(word)) {
	case SHMK_SPAN_FREE:
		return 0;
	case SHMK_SPAN_TAIL:
		walk_tail(w, index, word);
		return 0;
	case SHMK_SPAN_CUT:
	case SHMK_SPAN_RUN:
	case SHMK_SPAN_GATHER:
		if ((owner && !peer_known(w->s, owner)) || (thief && !peer_known(w->s, thief)))
			violation(w, "span %u: owner %u or thief %u is gone (word %#llx)", index,
				  owner, thief, (unsigned long long)word);
		if (SHMK_SPAN_KIND(word) != SHMK_SPAN_CUT)
			return SHMK_SPAN_UNITS;
		if (SHMK_SPAN_CLASS(word) < SHMK_CLASSES)
			return shmk_class_units(SHMK_SPAN_CLASS(word));
		/* fall through */
	default:
		violation(w, "span %u: no such span (word %#llx)", index,
			  (unsigned long long)word);
		return 0;
	}
}

static bool map_has(const __u64 *map, uint32_t bit)
{
	return READ_ONCE(map[bit >> 6]) >> (bit & 63) & 1;
}

static void walk_spans(struct walk *w)
{
	const struct shmk_view *v = &w->s->view;
	uint32_t index, unit;

	for (index = 0; index < v->nr_spans; index++) {
		__u64 word = READ_ONCE(v->spans[index].word);
		uint32_t step = walk_span_word(w, index, word);
		bool thief = SHMK_SPAN_KIND(word) != SHMK_SPAN_TAIL && SHMK_SPAN_THIEF(word);
		bool owned = SHMK_SPAN_KIND(word) == SHMK_SPAN_TAIL || SHMK_SPAN_OWNER(word);

		for (unit = 0; unit < SHMK_SPAN_UNITS; unit++)
			walk_block(w, (index << SHMK_SPAN_UNITS_SHIFT) + unit,
				   step && unit % step == 0 && unit + step <= SHMK_SPAN_UNITS,
				   thief);
		/* Whoever is named there is just doing it, or stopped in the middle. */
		if (SHMK_SPAN_KIND(word) == SHMK_SPAN_FREE && map_has(v->taken_map, index) &&
		    !w->named[index])
			violation(w, "span %u: free, but nobody would find it", index);
		if ((SHMK_SPAN_KIND(word) == SHMK_SPAN_CUT || SHMK_SPAN_KIND(word) == SHMK_SPAN_RUN) &&
		    SHMK_SPAN_OWNER(word) && w->named[index] != SHMK_SPAN_OWNER(word) &&
		    w->named[index] != UINT16_MAX)
			violation(w, "span %u: not in the ledger of its owner, peer %u", index,
				  SHMK_SPAN_OWNER(word));
		if (SHMK_SPAN_KIND(word) != SHMK_SPAN_FREE && !owned &&
		    !map_has(v->stale_map, index) && READ_ONCE(v->spans[index].changed))
			violation(w, "span %u: an orphan that nobody would look at", index);
	}
}

/* ------------------------------------------------------------------------ */

static void pause_ms(long ms)
{
	struct timespec ts = { .tv_nsec = ms * 1000000 };

	nanosleep(&ts, NULL);
}

static bool walk(struct walk *w)
{
	memset(w->refs, 0, nr_blocks(w));
	memset(w->children, 0, nr_blocks(w));
	memset(w->named, 0, w->s->view.nr_spans * sizeof(*w->named));
	w->report[0] = '\0';
	w->found = false;
	walk_ledgers(w);
	walk_queues(w);
	walk_shared(w);
	walk_spans(w);
	return w->found;
}

/* Whether the same violation was found often enough in a row; it is in @first. */
static bool confirmed(struct walk *w, char *first, size_t len)
{
	int same = 0, walks;

	first[0] = '\0';
	for (walks = 0; walks < WALKS && same < CONFIRM; walks++) {
		if (!walk(w))
			return false;
		same = strcmp(first, w->report) ? 0 : same + 1;
		memcpy(first, w->report, len);
		if (same)
			pause_ms(same);
	}
	return same == CONFIRM;
}

int shmk_pool_check(struct shmk *s, char *report, size_t len)
{
	char first[256], again[256];
	struct walk w = { .s = s, .report = again, .len = sizeof(again) };
	int ret = -ENOMEM;

	w.refs = malloc(nr_blocks(&w));
	w.children = malloc(nr_blocks(&w));
	w.named = malloc(s->view.nr_spans * sizeof(*w.named));
	if (w.refs && w.children && w.named) {
		s->backend->reap(s);
		ret = confirmed(&w, first, sizeof(first)) ? -EUCLEAN : 0;
		if (report && len)
			snprintf(report, len, "%s", ret ? first : "");
	}
	free(w.refs);
	free(w.children);
	free(w.named);
	return ret;
}
