// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * capsule.c - what the last who died were doing, decoded.
 *
 * The words are what the dead left, true or not, and what they name was settled long ago:
 * they are told, and nothing is looked up that they lead to.
 */
#include <string.h>

#include "internal.h"

int shmk_capsule_next(struct shmk *s, uint64_t seq, struct shmk_capsule *capsule)
{
	ERRNO_KEPT;

	if (!s->backend->capsule)
		return -EOPNOTSUPP;
	memset(capsule, 0, sizeof(*capsule));
	capsule->size = sizeof(*capsule);
	capsule->seq = seq;
	return s->backend->capsule(s, capsule);
}

static uint32_t state_of(uint32_t op, uint32_t block, __u64 where)
{
	switch (op) {
	case SHMK_OP_RESENDING:		/* its REDO entry stands beside it */
		return SHMK_HOLDING_SENDING;
	case SHMK_OP_HOLDING:
		return block == SHMK_ELEMENT_NONE ? SHMK_HOLDING_SUBSCRIBED : SHMK_HOLDING_READING;
	default:
		return shmk_holding_state(op, where);
	}
}

/* Has the word a block, and not a span, an element, or nothing? */
static bool names_block(uint32_t state, uint32_t op)
{
	return (state <= SHMK_HOLDING_SENDING || state == SHMK_HOLDING_SPARE) &&
	       op != SHMK_OP_CLAIMING && op != SHMK_OP_COPIED;
}

int shmk_capsule_holding(struct shmk *s, const struct shmk_capsule *capsule, uint32_t i,
			 struct shmk_holding *h)
{
	uint32_t op, block, queue, shift = s->view.unit_shift;
	uint64_t pos;

	if (i >= capsule->nr_entries || i >= SHMK_CAPSULE_ENTRIES)
		return -ENOENT;
	op = SHMK_WHAT_OP(capsule->entry[i].what);
	block = SHMK_WHAT_BLOCK(capsule->entry[i].what);
	queue = SHMK_WHERE_QUEUE(capsule->entry[i].where);
	pos = SHMK_WHERE_POS(capsule->entry[i].where);
	*h = (struct shmk_holding) {
		.state = state_of(op, block, capsule->entry[i].where),
		.peer = capsule->peer, .gen = capsule->gen,
		.entry = SHMK_HOLDING_NOWHERE, .block = SHMK_NO_BLOCK, .offset = UINT64_MAX,
		.queue = SHMK_HOLDING_NOWHERE,
	};
	if (h->state == SHMK_HOLDING_SPAN) {
		shift += SHMK_SPAN_UNITS_SHIFT;
		h->offset = (uint64_t)block << shift;
		h->room = pos << shift;
		return 0;
	}
	if (names_block(h->state, op) && block != SHMK_NO_BLOCK) {
		h->block = block;
		h->offset = (uint64_t)block << shift;
	}
	if (op != SHMK_OP_HELD && queue < s->view.nr_queues) {
		h->queue = queue;
		h->pos = pos;
	}
	return 0;
}
