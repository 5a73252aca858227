// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * dump.c - who holds which block.
 *
 * Walked: the ledgers of all peers, then the slots of all queues, then the spans for
 * what neither of them named. Nothing is written, no lock is taken, nobody is
 * asked: a pool can be looked at whose processes are all stopped. Of work that goes
 * on one sees some instant for each block: what changed hands meanwhile may be told
 * twice, or as MOVING.
 *
 * No word is believed: whatever leads out of the pool is passed over.
 */
#include <stdlib.h>

#include "internal.h"

struct dump {
	struct shmk	*s;
	uint8_t		*seen;		/* a bit for each block that was told */
	int		(*tell)(const struct shmk_holding *h, void *arg);
	void		*arg;
	int		ret;		/* of tell(); nonzero ends the walk */
};

static const struct shmk_peer_status *peer_status(struct shmk *s, uint32_t id)
{
	return (const struct shmk_peer_status *)
		((const unsigned char *)s->status + s->status->peers_off) + id;
}

static uint32_t nr_blocks(const struct shmk *s)
{
	return s->view.nr_spans << SHMK_SPAN_UNITS_SHIFT;
}

static bool ring_of(struct shmk *s, uint32_t id, struct shmk_ring_view *rv)
{
	rv->slots = NULL;
	if (id < s->view.nr_queues)
		s->view.queue(&s->view, id, rv);
	return rv->slots;
}

static void tell(struct dump *d, const struct shmk_holding *h)
{
	if (!d->ret)
		d->ret = d->tell(h, d->arg);
}

/* ---------------------------------------------------------------- blocks -- */

static void parts(struct dump *d, const struct shmk_holding *whole);

/* Where its payload is; false: @block is none of this pool's, or in nobody's hands. */
static bool place(struct dump *d, struct shmk_holding *h, uint32_t block)
{
	const struct shmk_view *v = &d->s->view;
	uint32_t root;

	if (block >= nr_blocks(d->s) || !shmk_block_held(READ_ONCE(v->blocks[block].word)) ||
	    !shmk_block_root(v, block, &root) || root >= nr_blocks(d->s))
		return false;
	h->block = block;
	h->offset = (uint64_t)root << v->unit_shift;
	h->len = 0;
	if (h->state != SHMK_HOLDING_SPARE)
		h->len = SHMK_BLOCK_LEN(READ_ONCE(v->blocks[root].len));
	h->room = shmk_block_room(v, root);
	h->shared = root != block;
	d->seen[block / 8] |= (uint8_t)(1U << block % 8);
	return true;
}

static void tell_block(struct dump *d, struct shmk_holding *h, uint32_t block)
{
	if (!place(d, h, block))
		return;
	tell(d, h);
	parts(d, h);
}

static void parts(struct dump *d, const struct shmk_holding *whole)
{
	const struct shmk_view *v = &d->s->view;
	uint32_t root = (uint32_t)(whole->offset >> v->unit_shift);
	uint32_t i, nr = shmk_block_parts(READ_ONCE(v->blocks[root].word));

	for (i = 1; i <= nr && root + i < nr_blocks(d->s); i++) {
		__u64 part = READ_ONCE(v->blocks[root + i].len);
		struct shmk_holding h = *whole;
		uint32_t block = SHMK_PART_ARG(part);

		if (SHMK_PART_KIND(part) != SHMK_PART_BLOCK && SHMK_PART_KIND(part) != SHMK_PART_GOT)
			continue;
		h.state = SHMK_HOLDING_PART;
		if (block < nr_blocks(d->s) &&
		    shmk_block_held_as(READ_ONCE(v->blocks[block].word), SHMK_PART_GEN(part)) &&
		    place(d, &h, block))
			tell(d, &h);
	}
}

static void no_block(struct shmk_holding *h, uint64_t len)
{
	h->block = SHMK_NO_BLOCK;
	h->offset = UINT64_MAX;
	h->len = len;
	h->room = 0;
	h->shared = false;
}

/* --------------------------------------------------------------- ledgers -- */

/* How far from the front of its queue: messages before it, or taken since. */
static void distance(struct shmk_holding *h, const struct shmk_ring_view *rv)
{
	uint64_t mask = (1ULL << (32 + rv->capacity_shift)) - 1;
	uint64_t head = READ_ONCE(rv->ring->head) & mask;
	uint64_t ahead = (h->pos - head) & mask;

	if (h->state == SHMK_HOLDING_QUEUED)
		h->distance = ahead > mask / 2 ? 0 : ahead;
	else
		h->distance = ahead > mask / 2 ? mask + 1 - ahead : 0;
}

/* Of a message that is still in its slot: what the slot says, if it is this peer's. */
static void tell_taking(struct dump *d, struct shmk_holding *h, const struct shmk_ring_view *rv)
{
	struct shmk_slot *slot = shmk_slot_at(rv, h->pos);
	uint32_t lap = shmk_lap(rv, h->pos);
	__u64 p = READ_ONCE(slot->p), t = READ_ONCE(slot->t);

	h->tries = SHMK_T_TRIES(t);
	if (t != SHMK_T_TRIED(lap, h->peer, h->tries) || SHMK_P_LAP(p) != lap)
		return;
	if (SHMK_P_KIND(p) == SHMK_KIND_BLOCK) {
		tell_block(d, h, SHMK_P_ARG(p));
	} else if (SHMK_P_KIND(p) == SHMK_KIND_INLINE) {
		no_block(h, SHMK_P_ARG(p));
		tell(d, h);
	}
}

static const struct shmk_element *element(struct dump *d, uint32_t id, uint32_t index,
					  struct shmk_holding *h)
{
	const struct shmk_queue_status *q = queue_status(d->s, id);
	uint64_t stride = SHMK_TOPIC_STRIDE(q->msg_bytes);
	uint64_t at = ((uint64_t)q->block << d->s->view.unit_shift) + index * stride;
	const struct shmk_element *e;

	if (index >= q->nr_elements || at + stride > d->s->data_bytes)
		return NULL;
	e = (const void *)(d->s->data + at);
	h->block = q->block;
	h->offset = at + sizeof(*e);
	h->room = stride - sizeof(*e);
	h->len = READ_ONCE(e->len) < h->room ? READ_ONCE(e->len) : h->room;
	h->since_ns = (int64_t)READ_ONCE(e->time_ns);
	return e;
}

static void tell_reader(struct dump *d, struct shmk_holding *h, const struct shmk_ring_view *rv,
			uint32_t index)
{
	if (!(rv->flags & SHMK_QUEUE_F_TOPIC))
		return;
	no_block(h, 0);
	h->state = SHMK_HOLDING_SUBSCRIBED;
	if (index != SHMK_ELEMENT_NONE) {
		h->state = SHMK_HOLDING_READING;
		if (!element(d, h->queue, index, h))
			return;
	}
	tell(d, h);
}

static void tell_span(struct dump *d, struct shmk_holding *h, uint32_t span, uint64_t nr)
{
	uint32_t shift = d->s->view.unit_shift + SHMK_SPAN_UNITS_SHIFT;
	struct shmk_settled used = { };

	if (span >= d->s->view.nr_spans || nr > d->s->view.nr_spans - span)
		return;
	shmk_settle_usage(&d->s->view, span, span + 1, &used);
	h->queue = SHMK_HOLDING_NOWHERE;
	h->pos = 0;
	h->block = span << SHMK_SPAN_UNITS_SHIFT;
	h->offset = (uint64_t)span << shift;
	h->room = nr << shift;
	h->len = used.bytes;
	tell(d, h);
}

/* Does the entry of an operation still have this block, as far as the block knows? */
static bool entry_has(struct dump *d, uint32_t op, __u64 what, const struct shmk_holding *h,
		      const struct shmk_ring_view *rv)
{
	uint32_t block = SHMK_WHAT_BLOCK(what), gen = SHMK_WHAT_GEN(what);
	__u64 word;

	if (block >= nr_blocks(d->s))
		return false;
	word = READ_ONCE(d->s->view.blocks[block].word);
	if (op == SHMK_OP_TAKEN && shmk_block_held_as(word, gen + 1))
		return true;
	if (!shmk_block_held_as(word, gen))
		return false;
	/* Published: it is the slot's. */
	return h->state != SHMK_HOLDING_SENDING || !rv->slots ||
	       READ_ONCE(shmk_slot_at(rv, h->pos)->p) !=
	       SHMK_P(shmk_lap(rv, h->pos), SHMK_KIND_BLOCK, block);
}

/* RESENDING is not among them: its block is in a REDO entry, or in a slot by now. */
static const uint8_t state_of[] = {
	[SHMK_OP_HELD]		= SHMK_HOLDING_HELD,
	[SHMK_OP_GOT]		= SHMK_HOLDING_RECEIVED,
	[SHMK_OP_COPIED]	= SHMK_HOLDING_RECEIVED,
	[SHMK_OP_REDO]		= SHMK_HOLDING_UNACKED,
	[SHMK_OP_SENDING]	= SHMK_HOLDING_SENDING,
	[SHMK_OP_PASSING]	= SHMK_HOLDING_SENDING,
	[SHMK_OP_CLAIMING]	= SHMK_HOLDING_SENDING,
	[SHMK_OP_TAKING]	= SHMK_HOLDING_TAKING,
	[SHMK_OP_TAKEN]		= SHMK_HOLDING_TAKING,
	[SHMK_OP_WAITING]	= SHMK_HOLDING_WAITING,
	[SHMK_OP_HOLDING]	= SHMK_HOLDING_READING,
	[SHMK_OP_SPAN]		= SHMK_HOLDING_SPAN,
	[SHMK_OP_GATHER]	= SHMK_HOLDING_SPAN,
	[SHMK_OP_SEIZING]	= SHMK_HOLDING_SPAN,
};

uint32_t shmk_holding_state(uint32_t op, __u64 where)
{
	if (op == SHMK_OP_HELD && where == SHMK_WHERE(SHMK_QUEUE_NOWHERE, SHMK_POS_KEPT))
		return SHMK_HOLDING_SPARE;
	return op < sizeof(state_of) ? state_of[op] : 0;
}

static void tell_entry(struct dump *d, struct shmk_holding *h, __u64 what, __u64 where)
{
	uint32_t op = SHMK_WHAT_OP(what), block = SHMK_WHAT_BLOCK(what);
	struct shmk_ring_view rv = { .slots = NULL };
	bool ring;

	h->state = shmk_holding_state(op, where);
	if (!h->state)
		return;
	h->pos = h->state == SHMK_HOLDING_SPARE ? 0 : SHMK_WHERE_POS(where);
	if (h->state == SHMK_HOLDING_SPAN) {
		tell_span(d, h, block, h->pos);
		return;
	}
	ring = op != SHMK_OP_HELD && ring_of(d->s, SHMK_WHERE_QUEUE(where), &rv);
	h->queue = ring ? SHMK_WHERE_QUEUE(where) : SHMK_HOLDING_NOWHERE;
	if (ring && h->state != SHMK_HOLDING_WAITING && h->state != SHMK_HOLDING_READING)
		distance(h, &rv);
	if (h->state == SHMK_HOLDING_READING) {
		if (ring)
			tell_reader(d, h, &rv, block);
	} else if (op == SHMK_OP_TAKING || (op == SHMK_OP_REDO && block == SHMK_NO_BLOCK)) {
		if (ring)
			tell_taking(d, h, &rv);
	} else if (op == SHMK_OP_WAITING || op == SHMK_OP_CLAIMING || op == SHMK_OP_COPIED) {
		no_block(h, 0);
		tell(d, h);
	} else if (entry_has(d, op, what, h, &rv)) {
		tell_block(d, h, block);
	}
}

static void ledger(struct dump *d, uint32_t id)
{
	const struct shmk_status *st = d->s->status;
	const struct shmk_ledger *l = (const void *)(d->s->ledgers + id * st->ledger_stride);
	__u64 word = READ_ONCE(peer_status(d->s, id)->word);
	uint64_t high, most;

	/* The module makes a ledger at the first attach of an id; it stays from then on. */
	if (SHMK_PEER_STATE(word) == SHMK_PEER_NONE)
		return;
	high = READ_ONCE(l->high);
	most = READ_ONCE(peer_status(d->s, id)->nr_entries);
	for (uint32_t i = 0; !d->ret && i < (high < most ? high : most); i++) {
		__u64 where = READ_ONCE(l->entry[i].where), what = READ_ONCE(l->entry[i].what);
		struct shmk_holding h = {
			.peer = id, .gen = SHMK_PEER_GEN(word), .entry = i,
		};

		/* What a read-only member says that it holds is another's. */
		if (!(SHMK_PEER_FLAGS(word) & SHMK_PEER_RDONLY) ||
		    SHMK_WHAT_OP(what) == SHMK_OP_HOLDING)
			tell_entry(d, &h, what, where);
	}
}

/* ---------------------------------------------------------------- queues -- */

static void queued(struct dump *d, uint32_t id, uint32_t i, const struct shmk_ring_view *rv)
{
	const struct shmk_slot *slot = shmk_slot_at(rv, i);
	__u64 t = READ_ONCE(slot->t), p = READ_ONCE(slot->p);
	struct shmk_holding h = {
		.state = SHMK_HOLDING_QUEUED, .entry = SHMK_HOLDING_NOWHERE, .queue = id,
		.pos = (uint64_t)SHMK_P_LAP(p) << rv->capacity_shift | i,
	};

	if ((t & SHMK_TAKEN) && SHMK_P_LAP(t) == SHMK_P_LAP(p)) {
		if (SHMK_T_PEER(t))
			return;		/* its ledger has told it */
		h.tries = SHMK_T_TRIES(t);
	}
	distance(&h, rv);
	if (SHMK_P_KIND(p) == SHMK_KIND_BLOCK) {
		tell_block(d, &h, SHMK_P_ARG(p));
	} else if (SHMK_P_KIND(p) == SHMK_KIND_INLINE) {
		no_block(&h, SHMK_P_ARG(p));
		tell(d, &h);
	}
}

static void topic(struct dump *d, uint32_t id, const struct shmk_ring_view *rv)
{
	const struct shmk_queue_status *q = queue_status(d->s, id);
	struct shmk_holding h = {
		.state = SHMK_HOLDING_TOPIC, .entry = SHMK_HOLDING_NOWHERE, .queue = id,
	};
	uint32_t i;

	if (place(d, &h, q->block))
		tell(d, &h);
	for (i = 0; !d->ret && i < 1U << rv->capacity_shift; i++) {
		__u64 p = READ_ONCE(shmk_slot_at(rv, i)->p);

		h.state = SHMK_HOLDING_KEPT;
		h.pos = (uint64_t)SHMK_P_LAP(p) << rv->capacity_shift | i;
		if (SHMK_P_KIND(p) == SHMK_KIND_ELEMENT && element(d, id, SHMK_P_ARG(p), &h))
			tell(d, &h);
	}
}

static void queue(struct dump *d, uint32_t id)
{
	struct shmk_ring_view rv;

	if (!ring_of(d->s, id, &rv))
		return;
	if (rv.flags & SHMK_QUEUE_F_TOPIC) {
		topic(d, id, &rv);
		return;
	}
	for (uint32_t i = 0, n = 1U << rv.capacity_shift; !d->ret && i < n; i++)
		queued(d, id, (uint32_t)(READ_ONCE(rv.ring->head) + i) & (n - 1), &rv);
}

/* ----------------------------------------------------------------- spans -- */

/* Units from block to block; 0: no blocks here. */
static uint32_t span_step(__u64 word)
{
	switch (SHMK_SPAN_KIND(word)) {
	case SHMK_SPAN_CUT:
		return shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES);
	case SHMK_SPAN_RUN:
		return SHMK_SPAN_UNITS;
	default:
		return 0;
	}
}

/* What nobody had: an inner node of a shared message, or on its way from hand to hand. */
static void rest(struct dump *d, uint32_t block)
{
	__u64 word = READ_ONCE(d->s->view.blocks[block].word);
	struct shmk_holding h = {
		.state = SHMK_HOLDING_MOVING, .entry = SHMK_HOLDING_NOWHERE,
		.queue = SHMK_HOLDING_NOWHERE,
	};

	if (d->seen[block / 8] & 1U << block % 8)
		return;
	if (shmk_block_held(word)) {
		if (place(d, &h, block))
			tell(d, &h);
	} else if (shmk_block_inner(word)) {
		h.state = SHMK_HOLDING_SHARED;
		h.block = block;
		h.offset = (uint64_t)block << d->s->view.unit_shift;
		h.room = shmk_block_room(&d->s->view, block);
		h.len = shmk_block_place(word) == SHMK_PLACE_ROOT ?
			SHMK_BLOCK_LEN(READ_ONCE(d->s->view.blocks[block].len)) : 0;
		tell(d, &h);
	}
}

static void spans(struct dump *d)
{
	for (uint32_t i = 0; !d->ret && i < d->s->view.nr_spans; i++) {
		uint32_t step = span_step(READ_ONCE(d->s->view.spans[i].word));

		for (uint32_t u = 0; step && !d->ret && u + step <= SHMK_SPAN_UNITS; u += step)
			rest(d, (i << SHMK_SPAN_UNITS_SHIFT) + u);
	}
}

int shmk_pool_dump(struct shmk *s, int (*fn)(const struct shmk_holding *h, void *arg), void *arg)
{
	ERRNO_KEPT;
	struct dump d = { .s = s, .tell = fn, .arg = arg };
	uint32_t id;

	if (!fn)
		return -EINVAL;
	d.seen = calloc(1, nr_blocks(s) / 8 + 1);
	if (!d.seen)
		return -ENOMEM;
	for (id = 1; !d.ret && id <= s->status->nr_peers; id++)
		ledger(&d, id);
	for (id = 0; !d.ret && id < s->view.nr_queues; id++)
		queue(&d, id);
	spans(&d);
	free(d.seen);
	return d.ret;
}

/* ----------------------------------------------------------------- space -- */

/* Whose blocks are all free can be had by anyone, whoever has cut it. */
static bool span_available(const struct shmk_view *v, uint32_t i, __u64 word)
{
	uint32_t u, step = span_step(word);

	if (SHMK_SPAN_KIND(word) == SHMK_SPAN_FREE)
		return true;
	for (u = 0; step && u + step <= SHMK_SPAN_UNITS; u += step)
		if (SHMK_BLOCK_STATE(READ_ONCE(v->blocks[(i << SHMK_SPAN_UNITS_SHIFT) + u].word)) !=
		    SHMK_BLOCK_FREE)
			return false;
	return step;
}

static uint64_t largest_in_span(const struct shmk_view *v, uint32_t i, __u64 word)
{
	uint32_t u, step = span_step(word);

	for (u = 0; step && u + step <= SHMK_SPAN_UNITS; u += step)
		if (SHMK_BLOCK_STATE(READ_ONCE(v->blocks[(i << SHMK_SPAN_UNITS_SHIFT) + u].word)) ==
		    SHMK_BLOCK_FREE)
			return (uint64_t)step << v->unit_shift;
	return 0;
}

int shmk_pool_space(struct shmk *s, struct shmk_pool_space *space)
{
	const struct shmk_view *v = &s->view;
	uint64_t span = (uint64_t)SHMK_SPAN_UNITS << v->unit_shift, row = 0, one;
	uint32_t i, nr;

	*space = (struct shmk_pool_space){ .spans = v->nr_spans, .span_bytes = span };
	for (i = 0; i < v->nr_spans; i += nr) {
		__u64 word = READ_ONCE(v->spans[i].word), run = READ_ONCE(v->spans[i].nr_spans);

		nr = SHMK_SPAN_KIND(word) == SHMK_SPAN_RUN && run && run <= v->nr_spans - i ? run : 1;
		if (span_available(v, i, word)) {
			space->spans_untouched += SHMK_SPAN_KIND(word) == SHMK_SPAN_FREE;
			space->spans_empty += nr;
			row += nr;
			one = row * span;
		} else {
			row = 0;
			one = largest_in_span(v, i, word);
		}
		if (one > space->largest)
			space->largest = one;
	}
	return 0;
}
