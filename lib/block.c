// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * block.c - blocks and the spans they are cut from.
 *
 * A peer owns spans and keeps, in private memory, a stack of the free blocks of
 * each (the block used last is used next: it is still in the cache). Nothing
 * private needs to survive: the block words are the truth, and a settler or
 * the next owner finds everything from them.
 *
 *   alloc    ledger HELD(b, g); FREE(g) -> USED(g) by CAS, which only a thief
 *            can make fail.
 *   free     USED(g) -> FREE(g + 1) by CAS; to the own stack, or hints for the
 *            owner; ledger NONE.
 *   short    of blocks, in this order: own spans whose hints say that others
 *            freed something; a new span; all own spans; what is kept (store.c);
 *            then reclaim():
 *            orphans are adopted, and spans of the living that have nothing
 *            but free blocks are seized, so that an idle peer cannot sit on
 *            memory. A seizure locks every block (FREE -> GONE) under the
 *            thief's name in the span word; whichever of owner and thief is
 *            first at a block's word has it.
 *
 * Every change of a span's word is preceded by a ledger entry that names the
 * span and the generation the word is to have. A hint is cleared only while
 * the ledger names its span, so its loss is repaired by whoever settles us.
 *
 * Cost: alloc and free touch the block's word, the ledger and private memory.
 * Taking a span looks through a bitmap with one bit per span. Only reclaim(),
 * when the pool is out of spans, looks at all spans with a hint.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"
#include "probe.h"

#define RUN		SHMK_CLASSES	/* the list of runs, beside the classes */
#define LISTS		(SHMK_CLASSES + 1)
#define GLANCE		16		/* full spans looked at before a new one is taken */
#define KEEP_MAX	256		/* empty spans kept for the next alloc, */
#ifndef KEEP_SHARE
#define KEEP_SHARE	16		/* and a 16th of the pool (the explorer's is small) */
#endif

struct own_span {
	struct own_span	*prev, *next;	/* of its class: avail or full */
	uint32_t	index;
	uint32_t	entry;		/* SPAN */
	uint32_t	nr_spans;	/* 1, or of the run */
	uint32_t	gen;
	uint32_t	list;		/* class, or RUN */
	uint32_t	step;		/* units from block to block */
	uint32_t	inverse;	/* 2^16 / step, rounded up: see slot_of() */
	uint32_t	nr_blocks;
	uint32_t	nr_free;	/* on the stack */
	bool		rescan;		/* the hints do not tell all */
	uint64_t	listed[SHMK_SPAN_UNITS / 64];	/* on the stack? */
	uint32_t	*gens;		/* of those on the stack */
	uint16_t	stack[];
};

struct ring_list {
	struct own_span	head;	/* only prev and next */
};

struct span_heap {
	struct ring_list avail[LISTS];	/* nr_free > 0 */
	struct ring_list full[LISTS];	/* longest there first */
	struct own_span	**own;		/* by span, NULL: not mine */
	uint32_t	nr_empty;	/* spans whose blocks are all on a stack */
	uint32_t	keep;
	uint8_t		class_of[SHMK_CLASS_UNITS_MAX + 1];	/* the smallest class of so many units */
};

/* -------------------------------------------------------------- lists -- */

static void list_init(struct ring_list *list)
{
	list->head.next = list->head.prev = &list->head;
}

static struct own_span *list_first(struct ring_list *list)
{
	return list->head.next == &list->head ? NULL : list->head.next;
}

static void list_del(struct own_span *sp)
{
	sp->prev->next = sp->next;
	sp->next->prev = sp->prev;
}

static void list_add(struct own_span *sp, struct own_span *after)
{
	sp->prev = after;
	sp->next = after->next;
	after->next->prev = sp;
	after->next = sp;
}

static void to_avail(struct span_heap *heap, struct own_span *sp)
{
	list_del(sp);
	list_add(sp, &heap->avail[sp->list].head);
}

static void to_full(struct span_heap *heap, struct own_span *sp)
{
	list_del(sp);
	list_add(sp, heap->full[sp->list].head.prev);
}

/* ----------------------------------------------------- a span I own ----- */

static struct shmk_span *shared(struct shmk *s, uint32_t index)
{
	return &s->view.spans[index];
}

static bool word_mine(struct shmk *s, __u64 word, uint32_t gen)
{
	uint32_t kind = SHMK_SPAN_KIND(word);

	return SHMK_SPAN_OWNER(word) == s->self && SHMK_SPAN_GEN(word) == gen &&
	       (kind == SHMK_SPAN_CUT || kind == SHMK_SPAN_RUN);
}

static bool span_mine(struct shmk *s, struct own_span *sp)
{
	return word_mine(s, READ_ONCE(shared(s, sp->index)->word), sp->gen);
}

/* unit / step without a division: exact for units below 256, whatever the step. */
static uint32_t slot_of(const struct own_span *sp, uint32_t unit)
{
	return unit * sp->inverse >> 16;
}

static bool span_empty(const struct own_span *sp)
{
	return sp->nr_free == sp->nr_blocks;
}

/* One that is listed already was freed by two: by somebody who wrote where nobody may. */
static always_inline void span_push(struct shmk *s, struct own_span *sp, uint32_t slot, uint32_t gen)
{
	if (unlikely(sp->listed[slot >> 6] >> (slot & 63) & 1))
		return;
	sp->listed[slot >> 6] |= 1ULL << (slot & 63);
	sp->gens[slot] = gen;
	sp->stack[sp->nr_free++] = (uint16_t)slot;
	if (sp->nr_free == 1)
		to_avail(s->heap, sp);
	if (span_empty(sp))
		s->heap->nr_empty += sp->nr_spans;
}

/* Gives up what is known of a span; its word says already who owns it now. */
static void span_forget(struct shmk *s, struct own_span *sp)
{
	if (span_empty(sp))
		s->heap->nr_empty -= sp->nr_spans;
	list_del(sp);
	s->heap->own[sp->index] = NULL;
	entry_put_locked(s, sp->entry);
	free(sp);
}

/*
 * Lists the free blocks among those that @bits name, four units each. The last one first, so that they are
 * given out upwards, as processors expect of who writes and reads much.
 */
static void span_scan(struct shmk *s, struct own_span *sp, uint64_t bits)
{
	uint32_t slot, first = sp->index << SHMK_SPAN_UNITS_SHIFT;
	__u64 word;

	for (slot = sp->nr_blocks; slot--;) {
		if (!(bits >> (slot * sp->step >> 2) & 1) ||
		    (sp->listed[slot >> 6] >> (slot & 63) & 1))
			continue;
		word = smp_load_acquire(&s->view.blocks[first + slot * sp->step].word);
		/* With anything else in it, it could not be taken, but would be listed for ever. */
		if (word == SHMK_BLOCK_WORD(SHMK_BLOCK_GEN(word), SHMK_BLOCK_FREE))
			span_push(s, sp, slot, SHMK_BLOCK_GEN(word));
		else if (SHMK_BLOCK_STATE(word) == SHMK_BLOCK_GONE)
			sp->rescan = true;
	}
}

static struct own_span *span_new(struct shmk *s, uint32_t index, uint32_t entry,
				 uint32_t nr_spans, __u64 word)
{
	bool run = SHMK_SPAN_KIND(word) == SHMK_SPAN_RUN;
	uint32_t list = run ? RUN : SHMK_SPAN_CLASS(word) % SHMK_CLASSES;
	uint32_t step = run ? SHMK_SPAN_UNITS : shmk_class_units(list);
	uint32_t n = SHMK_SPAN_UNITS / step;
	struct own_span *sp;

	/* gens behind the stack; the stack is rounded up to their alignment */
	sp = malloc(sizeof(*sp) + ((n + 1) & ~1U) * sizeof(sp->stack[0]) +
		    n * sizeof(*sp->gens));
	if (!sp)
		return NULL;
	memset(sp, 0, sizeof(*sp));
	sp->index = index;
	sp->entry = entry;
	sp->nr_spans = nr_spans;
	sp->gen = SHMK_SPAN_GEN(word);
	sp->list = list;
	sp->step = step;
	sp->inverse = 65536 / step + 1;
	sp->nr_blocks = n;
	sp->gens = (uint32_t *)(void *)(sp->stack + ((n + 1) & ~1U));
	/* It may have been mine before: a thief took it, and I did not notice. */
	if (s->heap->own[index])
		span_forget(s, s->heap->own[index]);
	list_add(sp, s->heap->full[list].head.prev);
	s->heap->own[index] = sp;
	return sp;
}

/*
 * Gives a span of which all blocks are free back to the pool. GATHER in its
 * word locks thieves out, GATHER in the ledger says that the tails go. Fails
 * when a thief was there first.
 */
static bool span_release(struct shmk *s, uint32_t index, uint32_t gen, uint32_t entry)
{
	struct shmk_span *span = shared(s, index);
	__u64 word = READ_ONCE(span->word);

	if (!word_mine(s, word, gen) || SHMK_SPAN_THIEF(word) ||
	    !cas(&span->word, word, SHMK_SPAN_WORD(gen, s->self, 0, 0, SHMK_SPAN_GATHER)))
		return false;
	entry_what(s, entry, SHMK_WHAT(SHMK_OP_GATHER, index, gen));
	shmk_span_scatter(&s->view, s->self, entry_at(s, entry));
	barrier();
	return true;
}

static void span_give_back(struct shmk *s, struct own_span *sp)
{
	if (span_release(s, sp->index, sp->gen, sp->entry))
		span_forget(s, sp);
	else if (!span_mine(s, sp))
		span_forget(s, sp);
	else
		sp->rescan = true;
}

/* Keeps an empty span for the next alloc, where thieves find it, unless there are enough. */
static void span_now_empty(struct shmk *s, struct own_span *sp)
{
	if (s->heap->nr_empty > s->heap->keep)
		span_give_back(s, sp);
	else if (!READ_ONCE(shared(s, sp->index)->changed))
		shmk_span_hint(&s->view, sp->index);
}

/*
 * Takes in what others freed. Of a run, which has one block, that one's word tells as much as
 * a hint would, so nobody leaves one. False when the span is not mine any more: blocks
 * read before the word was seen to be mine were mine. Hints that were taken
 * from under its new owner go back; if we die before that, the settler of our
 * SPAN entry gives all of them.
 */
static bool span_collect(struct shmk *s, struct own_span *sp)
{
	struct shmk_span *span = shared(s, sp->index);
	uint64_t hints = 0, bits;

	if (span_mine(s, sp)) {
		if (sp->list != RUN && READ_ONCE(span->freed))
			hints = xchg(&span->freed, 0);
		bits = sp->rescan || sp->list == RUN ? UINT64_MAX : hints;
		sp->rescan = false;
		if (bits)
			span_scan(s, sp, bits);
		if (span_mine(s, sp))
			return true;
		if (hints) {
			__atomic_fetch_or(&span->freed, hints, __ATOMIC_SEQ_CST);
			shmk_span_hint(&s->view, sp->index);
		}
	}
	span_forget(s, sp);
	return false;
}

/*
 * The first look at a span that was just made mine. A thief may have it before
 * that look is over; what was found then is the next owner's, as above.
 */
static bool span_begin(struct shmk *s, struct own_span *sp)
{
	/* A full fence: a block that the scan finds in use gets its hint after this. */
	xchg(&shared(s, sp->index)->freed, 0);
	span_scan(s, sp, UINT64_MAX);
	if (span_mine(s, sp))
		return true;
	span_forget(s, sp);
	return false;
}

/*
 * Of a block that is taken soon: its word, and where its data begins. Others have freed it, so
 * the lines are on their processor, and to wait for them is most of what a message costs.
 */
#define POP_AHEAD	2

static always_inline void pop_ahead(struct shmk *s, const struct own_span *sp)
{
	uint32_t block;

	if (sp->nr_free <= POP_AHEAD)
		return;
	block = (sp->index << SHMK_SPAN_UNITS_SHIFT) +
		sp->stack[sp->nr_free - 1 - POP_AHEAD] * sp->step;
	prefetchw(&s->view.blocks[block]);
	prefetchw(block_data(s, block));
}

/*
 * The next free block of a span. -EAGAIN: there is none after all, and the
 * span is on the full list, or not mine.
 */
static always_inline int span_pop(struct shmk *s, struct own_span *sp, uint32_t entry,
		    uint32_t *block, uint32_t *gen)
{
	while (sp->nr_free) {
		uint32_t slot;

		if (span_empty(sp))
			s->heap->nr_empty -= sp->nr_spans;
		slot = sp->stack[--sp->nr_free];
		pop_ahead(s, sp);
		sp->listed[slot >> 6] &= ~(1ULL << (slot & 63));
		if (!sp->nr_free)
			to_full(s->heap, sp);
		*block = (sp->index << SHMK_SPAN_UNITS_SHIFT) + slot * sp->step;
		*gen = sp->gens[slot];
		entry_set(s, entry, SHMK_WHAT(SHMK_OP_HELD, *block, *gen),
			  SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0));
		if (likely(cas(&s->view.blocks[*block].word,
			       SHMK_BLOCK_WORD(*gen, SHMK_BLOCK_FREE),
			       SHMK_BLOCK_WORD(*gen, SHMK_BLOCK_USED))))
			return 0;
		/* The span may be given back before another block is found: no name may stay. */
		entry_what(s, entry, SHMK_OP_NONE);
		if (!span_mine(s, sp)) {
			span_forget(s, sp);
			return -EAGAIN;
		}
		sp->rescan = true;	/* a thief is at it, and may give up */
	}
	return -EAGAIN;
}

/* ----------------------------------------------- spans from the pool ---- */

/*
 * Sets the hint of a span that is not FREE. Whoever frees it sets the word,
 * then looks at the bit; we set the bit, then look at the word: one of the
 * two sees the other (both are full fences).
 */
static void taken_hint_set(struct shmk *s, uint32_t index)
{
	shmk_map_set(s->view.taken_map, index);
	if (SHMK_SPAN_KIND(READ_ONCE(shared(s, index)->word)) == SHMK_SPAN_FREE)
		shmk_map_clear(s->view.taken_map, index);
}

static bool span_claim(struct shmk *s, uint32_t index, uint32_t class, uint32_t entry)
{
	struct shmk_span *span = shared(s, index);
	__u64 word = READ_ONCE(span->word);
	uint32_t gen = (SHMK_SPAN_GEN(word) + 1) & 0xffff;
	bool mine;

	entry_set(s, entry, SHMK_WHAT(SHMK_OP_SPAN, index, gen), SHMK_WHERE(0, 1));
	mine = SHMK_SPAN_KIND(word) == SHMK_SPAN_FREE &&
	       cas(&span->word, word,
		   SHMK_SPAN_WORD(gen, s->self, 0, class, SHMK_SPAN_CUT));
	/* Even of our own: a thief may have got it and given it back by now. */
	taken_hint_set(s, index);
	return mine;
}

static int span_find(struct shmk *s, uint32_t class, uint32_t entry, uint32_t *index)
{
	uint32_t i, words = (s->view.nr_spans + 63) / 64;
	uint64_t bits;

	for (i = 0; i < words; i++) {
		for (bits = ~READ_ONCE(s->view.taken_map[i]); bits; bits &= bits - 1) {
			*index = i * 64 + (uint32_t)__builtin_ctzll(bits);
			if (*index < s->view.nr_spans &&
			    span_claim(s, *index, class, entry))
				return 0;
		}
	}
	return -ENOMEM;
}

/*
 * Puts a run together: the head first, under its owner's name, then the tails,
 * which name their head. *stop is where it failed.
 */
static bool run_claim(struct shmk *s, uint32_t first, uint32_t nr, uint32_t entry,
		      uint32_t *stop)
{
	struct shmk_span *span = shared(s, first);
	__u64 word = READ_ONCE(span->word);
	uint32_t i, gen = (SHMK_SPAN_GEN(word) + 1) & 0xffff;
	__u64 head = SHMK_SPAN_WORD(gen, s->self, 0, 0, SHMK_SPAN_GATHER);

	*stop = first;
	entry_set(s, entry, SHMK_WHAT(SHMK_OP_GATHER, first, gen), SHMK_WHERE(0, nr));
	if (SHMK_SPAN_KIND(word) != SHMK_SPAN_FREE || !cas(&span->word, word, head))
		return false;
	for (i = 1; i < nr; i++) {
		word = READ_ONCE(span[i].word);
		if (SHMK_SPAN_KIND(word) != SHMK_SPAN_FREE ||
		    !cas(&span[i].word, word,
			 SHMK_SPAN_TAIL_WORD(SHMK_SPAN_GEN(word), first))) {
			shmk_span_scatter(&s->view, s->self, entry_at(s, entry));
			*stop = first + i;
			return false;
		}
	}
	/* Before it can be stolen: a hint set later could hide what is free again. */
	for (i = 0; i < nr; i++)
		shmk_map_set(s->view.taken_map, first + i);
	WRITE_ONCE(span->nr_spans, nr);
	cas(&span->word, head, SHMK_SPAN_WORD(gen, s->self, 0, 0, SHMK_SPAN_RUN));
	entry_what(s, entry, SHMK_WHAT(SHMK_OP_SPAN, first, gen));
	return true;
}

/*
 * Single spans fill the pool from below, runs from above: they spoil each
 * other's room as late as possible. Returns the first of @nr clear hints in a
 * row that end before @end.
 */
static bool run_search(struct shmk *s, uint32_t nr, uint32_t *end, uint32_t *first)
{
	uint32_t pos = *end, row = 0;

	while (pos) {
		uint64_t bits = ~READ_ONCE(s->view.taken_map[(pos - 1) >> 6]);

		if (!bits || (bits == UINT64_MAX && !(pos & 63) && row + 64 < nr)) {
			uint32_t skip = ((pos - 1) & 63) + 1;

			row = bits ? row + 64 : 0;
			pos -= skip;
			continue;
		}
		pos--;
		row = bits >> (pos & 63) & 1 ? row + 1 : 0;
		if (row == nr) {
			*first = pos;
			*end = pos + nr - 1;
			return true;
		}
	}
	return false;
}

static int run_find(struct shmk *s, uint32_t nr, uint32_t entry, uint32_t *first)
{
	uint32_t stop, end = s->view.nr_spans;

	while (run_search(s, nr, &end, first)) {
		if (run_claim(s, *first, nr, entry, &stop))
			return 0;
		taken_hint_set(s, stop);
		end = stop;
	}
	return -ENOMEM;
}

/* Drops the name from a span: an orphan, of which others make the best. */
static void span_abandon(struct shmk *s, struct own_span *sp)
{
	__u64 word = READ_ONCE(shared(s, sp->index)->word);

	while (word_mine(s, word, sp->gen)) {
		if (cas(&shared(s, sp->index)->word, word, word & ~(0xffffULL << 32)))
			break;
		word = READ_ONCE(shared(s, sp->index)->word);
	}
	shmk_span_hint(&s->view, sp->index);
	span_forget(s, sp);
}

static struct own_span *first_empty(struct shmk *s)
{
	struct own_span *sp, *head;
	uint32_t list;

	for (list = 0; list < LISTS; list++) {
		head = &s->heap->avail[list].head;
		for (sp = head->next; sp != head; sp = sp->next)
			if (span_empty(sp) && !sp->rescan)
				return sp;
	}
	return NULL;
}

/*
 * The ledger is full, and spans are not what the caller asked for: gives up one,
 * empty if there is one, else one without a free block, else any.
 */
bool heap_yield_locked(struct shmk *s)
{
	uint32_t list, had = s->nr_free_entries;
	struct own_span *sp;

	while ((sp = first_empty(s))) {
		span_give_back(s, sp);
		if (s->nr_free_entries > had)
			return true;
	}
	for (sp = NULL, list = 0; list < LISTS && !sp; list++)
		sp = list_first(&s->heap->full[list]);
	for (list = 0; list < LISTS && !sp; list++)
		sp = list_first(&s->heap->avail[list]);
	if (sp)
		span_abandon(s, sp);
	return sp;
}

/* A new span of a class, or a run of @nr, with all its blocks on the stack. */
static int span_take(struct shmk *s, uint32_t list, uint32_t nr)
{
	uint32_t entry, index;
	struct own_span *sp;
	int ret;

	ret = entry_get_locked(s, &entry);
	if (ret)
		return ret;
	ret = list == RUN ? run_find(s, nr, entry, &index) :
			    span_find(s, list, entry, &index);
	if (ret) {
		entry_put_locked(s, entry);
		return ret;
	}
	sp = span_new(s, index, entry, nr, READ_ONCE(shared(s, index)->word));
	if (!sp) {
		span_release(s, index, SHMK_SPAN_GEN(READ_ONCE(shared(s, index)->word)),
			     entry);
		entry_put_locked(s, entry);
		return -ENOMEM;
	}
	span_begin(s, sp);
	return 0;
}

/* ------------------------------------------------------------ reclaim --- */

static uint32_t run_length(struct shmk *s, uint32_t index, __u64 word)
{
	uint64_t nr = READ_ONCE(shared(s, index)->nr_spans);

	if (SHMK_SPAN_KIND(word) != SHMK_SPAN_RUN)
		return 1;
	return nr && nr <= s->view.nr_spans - index ? (uint32_t)nr : 1;
}

static uint32_t span_step(__u64 word)
{
	return SHMK_SPAN_KIND(word) == SHMK_SPAN_RUN ? SHMK_SPAN_UNITS :
	       shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES);
}

/* FREE -> GONE for all blocks. False: one is in use; some may be locked. */
static bool blocks_lock(struct shmk *s, uint32_t index, __u64 word)
{
	uint32_t i, step = span_step(word), first = index << SHMK_SPAN_UNITS_SHIFT;

	for (i = 0; i + step <= SHMK_SPAN_UNITS; i += step) {
		__u64 *at = &s->view.blocks[first + i].word;
		__u64 old = READ_ONCE(*at);

		if (SHMK_BLOCK_STATE(old) != SHMK_BLOCK_FREE ||
		    !cas(at, old, SHMK_BLOCK_WORD(SHMK_BLOCK_GEN(old), SHMK_BLOCK_GONE)))
			return false;
	}
	return true;
}

static bool blocks_free(struct shmk *s, uint32_t index, __u64 word)
{
	uint32_t i, step = span_step(word), first = index << SHMK_SPAN_UNITS_SHIFT;

	for (i = 0; i + step <= SHMK_SPAN_UNITS; i += step)
		if (SHMK_BLOCK_STATE(READ_ONCE(s->view.blocks[first + i].word)) !=
		    SHMK_BLOCK_FREE)
			return false;
	return true;
}

/*
 * A span that came to be mine with all it has: what is free is used, or, when
 * that is all of it, given back. A thief may be at it already, so it is kept
 * on the books until its word says FREE. *entry becomes the span's.
 */
static bool span_got(struct shmk *s, uint32_t index, uint32_t nr, __u64 mine,
		     uint32_t *entry)
{
	struct own_span *sp = span_new(s, index, *entry, nr, mine);

	if (!sp) {
		shmk_settle_span(&s->view, s->self, entry_at(s, *entry));
		return false;
	}
	*entry = UINT32_MAX;
	if (span_begin(s, sp) && span_empty(sp))
		span_give_back(s, sp);
	return true;
}

/*
 * Takes an empty span from its living owner and gives it to the pool. The
 * entry goes SEIZING(gen) -> SPAN(gen + 1) -> GATHER(gen + 1).
 */
static bool span_seize(struct shmk *s, uint32_t index, __u64 word, uint32_t *entry)
{
	struct shmk_span *span = shared(s, index);
	uint32_t gen = SHMK_SPAN_GEN(word), next = (gen + 1) & 0xffff;
	uint32_t nr = run_length(s, index, word);
	__u64 mine = SHMK_SPAN_WORD(next, s->self, 0, SHMK_SPAN_CLASS(word),
				    SHMK_SPAN_KIND(word));
	__u64 now;

	if (SHMK_SPAN_THIEF(word) || !blocks_free(s, index, word))
		return false;
	entry_set(s, *entry, SHMK_WHAT(SHMK_OP_SEIZING, index, gen), SHMK_WHERE(0, nr));
	now = word | (__u64)s->self << 16;
	if (!cas(&span->word, word, now))
		return false;
	if (!blocks_lock(s, index, word)) {
		/* Just what a settler does for a thief that has not made it. */
		shmk_settle_entry(&s->view, s->self, entry_at(s, *entry),
				  &(struct shmk_settled){ 0 });
		return false;
	}
	/* Nobody but the owner, by leaving, changes the word while I am its thief. */
	while (!cas(&span->word, now, mine)) {
		now = READ_ONCE(span->word);
		if (SHMK_SPAN_THIEF(now) != s->self)
			return false;
	}
	entry_what(s, *entry, SHMK_WHAT(SHMK_OP_SPAN, index, next));
	/*
	 * Not after others can have begun to lock: the next thief looks first
	 * whether all are FREE, and that is when this is over. (An orphan has
	 * no locked blocks: its settler saw to that.)
	 */
	shmk_span_unlock(&s->view, index, mine, 1);
	return span_got(s, index, nr, mine, entry);
}

/*
 * Makes an orphan mine. What it has free is used, or given back when that is
 * all of it. *entry becomes the span's.
 */
static bool span_adopt(struct shmk *s, uint32_t index, __u64 word, uint32_t *entry)
{
	uint32_t nr = run_length(s, index, word);
	uint32_t gen = (SHMK_SPAN_GEN(word) + 1) & 0xffff;
	__u64 mine = SHMK_SPAN_WORD(gen, s->self, 0, SHMK_SPAN_CLASS(word),
				    SHMK_SPAN_KIND(word));

	if (SHMK_SPAN_THIEF(word))
		return false;
	entry_set(s, *entry, SHMK_WHAT(SHMK_OP_SPAN, index, gen), SHMK_WHERE(0, nr));
	if (!cas(&shared(s, index)->word, word, mine))
		return false;
	return span_got(s, index, nr, mine, entry);
}

static bool reclaim_one(struct shmk *s, uint32_t index, uint32_t *entry)
{
	struct shmk_span *span = shared(s, index);
	struct own_span *sp = s->heap->own[index];
	uint32_t kind;
	__u64 word;

	/*
	 * Hints first, then the words. A freer does it the other way round, both
	 * with full fences: it either sees changed == 0 or we see its block free.
	 */
	entry_set(s, *entry, SHMK_WHAT(SHMK_OP_SEIZING, index, 0), SHMK_WHERE(0, 1));
	shmk_map_clear(s->view.stale_map, index);
	WRITE_ONCE(span->changed, 0);
	smp_mb();
	word = READ_ONCE(span->word);
	kind = SHMK_SPAN_KIND(word);
	if (kind != SHMK_SPAN_CUT && kind != SHMK_SPAN_RUN)
		return false;
	if (SHMK_SPAN_OWNER(word) == 0)
		return span_adopt(s, index, word, entry);
	if (SHMK_SPAN_OWNER(word) != s->self)
		return span_seize(s, index, word, entry);
	if (!sp || !span_collect(s, sp) || !sp->nr_free)
		return false;
	if (span_empty(sp))
		span_give_back(s, sp);
	return true;
}

/* Returns whether anything has changed for the better. */
static bool reclaim(struct shmk *s)
{
	uint32_t i, index, entry = UINT32_MAX, words = (s->view.nr_spans + 63) / 64;
	bool gained = false;
	uint64_t bits;

	for (i = 0; i < words; i++) {
		for (bits = READ_ONCE(s->view.stale_map[i]); bits; bits &= bits - 1) {
			index = i * 64 + (uint32_t)__builtin_ctzll(bits);
			if (index >= s->view.nr_spans)
				break;
			if (entry == UINT32_MAX && entry_get_locked(s, &entry))
				return gained;
			gained |= reclaim_one(s, index, &entry);
		}
	}
	if (entry != UINT32_MAX)
		entry_put_locked(s, entry);
	return gained;
}

/* ----------------------------------------------------------- the heap --- */

/* Collects from at most @most full spans of a list; true when one has something now. */
static bool collect(struct shmk *s, uint32_t list, uint32_t most)
{
	struct ring_list *full = &s->heap->full[list];
	struct own_span *sp, *last = full->head.prev;

	while (most-- && (sp = list_first(full))) {
		bool end = sp == last;

		if (span_collect(s, sp)) {
			if (sp->nr_free)
				return true;
			to_full(s->heap, sp);
		}
		if (end)
			break;
	}
	return false;
}

static always_inline struct own_span *avail(struct shmk *s, uint32_t list, uint32_t nr)
{
	struct own_span *sp, *head = &s->heap->avail[list].head;

	for (sp = head->next; sp != head; sp = sp->next)
		if (sp->nr_spans >= nr && sp->nr_spans <= nr + nr / 4)
			return sp;
	return NULL;
}

/* The list that serves @len and @align, and the number of spans of a run. */
static always_inline int list_for(struct shmk *s, size_t len, size_t align, uint32_t *list, uint32_t *nr)
{
	size_t units;
	uint32_t class;

	if (unlikely(len > s->data_bytes))
		return -E2BIG;
	*nr = 1;
	units = (len + ((size_t)1 << s->view.unit_shift) - 1) >> s->view.unit_shift;
	class = units <= SHMK_CLASS_UNITS_MAX ? s->heap->class_of[units] : SHMK_CLASSES;
	for (; class < SHMK_CLASSES; class++) {
		if (likely(!(((size_t)shmk_class_units(class) << s->view.unit_shift) &
			     (align - 1)))) {
			*list = class;
			return 0;
		}
	}
	*list = RUN;
	units = (units + SHMK_SPAN_UNITS - 1) / SHMK_SPAN_UNITS;
	if (units > s->view.nr_spans)
		return -E2BIG;
	*nr = (uint32_t)units;
	return 0;
}

static noinline int alloc_search(struct shmk *s, uint32_t list, uint32_t nr, uint32_t entry,
				 uint32_t *block, uint32_t *gen)
{
	struct own_span *sp;
	int ret, reclaims = 0;

	for (;;) {
		sp = avail(s, list, nr);
		if (sp) {
			if (!span_pop(s, sp, entry, block, gen))
				return 0;
			continue;
		}
		if (collect(s, list, GLANCE))
			continue;
		ret = span_take(s, list, nr);
		if (!ret)
			continue;
		if (collect(s, list, UINT32_MAX))
			continue;
		/* What is kept is of another size, but may be all that is in use of a span. */
		if (s->store.nr) {
			store_empty_locked(s);
			continue;
		}
		/* Once more than it can help is enough: others are short, too. */
		if (reclaims++ == 2 || !reclaim(s))
			return ret;
	}
}

/* Mostly there is a block in the first span that has any. */
static always_inline int alloc_from(struct shmk *s, uint32_t list, uint32_t nr, uint32_t entry,
				    uint32_t *block, uint32_t *gen)
{
	struct own_span *sp = avail(s, list, nr);

	if (likely(sp && !span_pop(s, sp, entry, block, gen)))
		return 0;
	return alloc_search(s, list, nr, entry, block, gen);
}

int block_alloc_locked(struct shmk *s, size_t len, size_t align, uint32_t entry,
		       uint32_t *block, uint32_t *gen)
{
	uint32_t list, nr;
	int ret = list_for(s, len ? len : 1, align ? align : 1, &list, &nr);

	return ret ? ret : alloc_from(s, list, nr, entry, block, gen);
}

void block_free_locked(struct shmk *s, uint32_t block, uint32_t gen, uint32_t entry)
{
	uint32_t index = block >> SHMK_SPAN_UNITS_SHIFT;
	uint32_t slot, unit = block & (SHMK_SPAN_UNITS - 1);
	struct own_span *sp = s->heap->own[index];

	if (!cas(&s->view.blocks[block].word, SHMK_BLOCK_WORD(gen, SHMK_BLOCK_USED),
		 SHMK_BLOCK_WORD(gen + 1, SHMK_BLOCK_FREE))) {
		/* A reference; or somebody wrote over it, and it is not ours to free. */
		shmk_block_put(&s->view, block, gen, &(struct shmk_settled){ 0 });
		goto out;
	}
	if (sp && !span_mine(s, sp)) {
		span_forget(s, sp);
		sp = NULL;
	}
	slot = sp ? slot_of(sp, unit) : 0;
	/* Of a span of mine, but no block that I cut: by somebody who wrote where nobody may. */
	if (!sp || slot * sp->step != unit || slot >= sp->nr_blocks) {
		struct shmk_span *span = shared(s, index);
		__u64 hints = READ_ONCE(span->freed);

		/* as shmk_block_hint(), but the second hint only with the first change */
		if (!(hints >> (unit >> 2) & 1) &&
		    SHMK_SPAN_KIND(READ_ONCE(span->word)) != SHMK_SPAN_RUN)
			word_or(&span->freed, 1ULL << (unit >> 2));
		if (!READ_ONCE(span->changed))
			shmk_span_hint(&s->view, index);
	} else {
		span_push(s, sp, slot, gen + 1);
		if (span_empty(sp))
			span_now_empty(s, sp);
		else if ((sp->rescan || READ_ONCE(shared(s, index)->freed)) &&
			 !READ_ONCE(shared(s, index)->changed))
			shmk_span_hint(&s->view, index);
	}
out:
	entry_put_locked(s, entry);
}

int heap_init(struct shmk *s)
{
	struct span_heap *heap = calloc(1, sizeof(*heap));
	uint32_t i;

	if (!heap)
		return -ENOMEM;
	heap->own = calloc(s->view.nr_spans, sizeof(*heap->own));
	if (!heap->own) {
		free(heap);
		return -ENOMEM;
	}
	for (i = 0; i < LISTS; i++) {
		list_init(&heap->avail[i]);
		list_init(&heap->full[i]);
	}
	heap->keep = s->view.nr_spans / KEEP_SHARE;
	if (heap->keep > KEEP_MAX)
		heap->keep = KEEP_MAX;
	for (i = 0; i <= SHMK_CLASS_UNITS_MAX; i++)
		while (shmk_class_units(heap->class_of[i]) < i)
			heap->class_of[i]++;
	memset(&s->store, 0, sizeof(s->store));
	s->heap = heap;
	return 0;
}

static void list_free(struct ring_list *list)
{
	struct own_span *sp;

	while ((sp = list_first(list))) {
		list_del(sp);
		free(sp);
	}
}

/* Private memory only: what the ledger holds is the settler's. */
void heap_exit(struct shmk *s)
{
	uint32_t i;

	if (!s->heap)
		return;
	for (i = 0; i < LISTS; i++) {
		list_free(&s->heap->avail[i]);
		list_free(&s->heap->full[i]);
	}
	free(s->heap->own);
	free(s->heap);
	s->heap = NULL;
}

/* ---------------------------------------------------------- messages ---- */

/* As this peer cut it: others may have written over the span's word. */
static size_t room_locked(struct shmk *s, uint32_t block)
{
	const struct own_span *sp = s->heap->own[block >> SHMK_SPAN_UNITS_SHIFT];

	return ((size_t)sp->step * sp->nr_spans) << s->view.unit_shift;
}

size_t block_room_locked(struct shmk *s, uint32_t block)
{
	struct own_span *sp = s->heap->own[block >> SHMK_SPAN_UNITS_SHIFT];

	/* A thief may have it since, and have cut it anew. */
	return sp && span_mine(s, sp) ? room_locked(s, block) : shmk_block_room(&s->view, block);
}

static always_inline bool take_kept(struct shmk *s, uint32_t list, uint32_t nr, struct shmk_msg *msg)
{
	uint32_t units = list == RUN ? nr * SHMK_SPAN_UNITS : shmk_class_units(list);

	return store_take_locked(s, units, list == RUN ? units + units / 4 : units, msg);
}

static always_inline int alloc_locked(struct shmk *s, uint32_t list, uint32_t nr, struct shmk_msg *msg)
{
	int ret;

	if (s->store.nr && take_kept(s, list, nr, msg))
		return 0;
	if (!s->store.asked)
		store_missed_locked(s);
	ret = entry_get_locked(s, &msg->entry);
	if (ret)
		return ret;
	ret = alloc_from(s, list, nr, msg->entry, &msg->block, &msg->gen);
	if (ret)
		entry_put_locked(s, msg->entry);
	else
		msg->room = room_locked(s, msg->block);
	return ret;
}

static always_inline int try_alloc(struct shmk *s, size_t len, size_t align, struct shmk_msg *msg)
{
	bool locked = lock(&s->lock);
	uint32_t list, nr;
	int ret = list_for(s, len ? len : 1, align ? align : 1, &list, &nr);

	if (likely(!ret))
		ret = alloc_locked(s, list, nr, msg);
	unlock(&s->lock, locked);
	return ret;
}

/* The dead may hold what is wanted. */
static noinline int alloc_reaped(struct shmk *s, size_t len, size_t align, struct shmk_msg *msg)
{
	ERRNO_KEPT;

	return s->backend->reap(s) > 0 ? try_alloc(s, len, align, msg) : -ENOMEM;
}

int shmk_alloc(struct shmk *s, size_t len, size_t align, struct shmk_msg *msg)
{
	int ret;

	msg->data = NULL;
	if (align & (align - 1) || align > 4096)
		return -EINVAL;
	if (s->rdonly)
		return -EROFS;
	if (pool_is_reset(s))
		return -ESHUTDOWN;
	ret = try_alloc(s, len, align, msg);
	if (unlikely(ret == -ENOMEM))
		ret = alloc_reaped(s, len, align, msg);
	if (ret)
		return ret;
	msg->shmk = s;
	msg->from = SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0);
	msg->queue = NULL;
	msg->redelivered = 0;
	msg->tag = 0;
	msg->sender = 0;
	msg->sender_gen = 0;
	msg->id = 0;
	msg->kind = SHMK_KIND_BLOCK;
	msg->len = len;
	msg->data = block_data(s, msg->block);
	PROBE(alloc, s->self, msg->block, msg->len, msg->room);
	return 0;
}

void shmk_free(struct shmk_msg *msg)
{
	bool locked;

	if (msg->data && msg->queue) {
		message_ack(msg);
	} else if (msg->data && msg->kind == SHMK_KIND_BLOCK) {
		locked = lock(&msg->shmk->lock);
		if (!store_keep_locked(msg->shmk, msg))
			block_free_locked(msg->shmk, msg->block, msg->gen, msg->entry);
		unlock(&msg->shmk->lock, locked);
	}
	msg->data = NULL;
}

int shmk_resize(struct shmk_msg *msg, size_t len)
{
	if (!msg->data)
		return -EINVAL;
	if (msg->kind == SHMK_KIND_BLOCK && !share_alone(msg))
		return -EBUSY;
	if (msg->kind == SHMK_KIND_BLOCK && len > msg->room)
		msg->room = shmk_block_room(&msg->shmk->view, msg->block);
	if (len > msg->room)
		return -ENOSPC;
	msg->len = len;
	return 0;
}

void shmk_msg_move(struct shmk_msg *to, struct shmk_msg *from)
{
	size_t used = from->kind == SHMK_KIND_INLINE ? sizeof(*from) :
		      offsetof(struct shmk_msg, small);

	memcpy(to, from, used);
	if (from->data == from->small)
		to->data = to->small;
	from->data = NULL;
}
