/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * wrap.h - positions, laps and generations just below their wrap.
 *
 * For a pool and queues that nobody has used yet: the words are written past
 * all protocols.
 */
#ifndef WRAP_H
#define WRAP_H

#include "internal.h"

/* The next message but one begins lap 0 again: positions count modulo capacity << 32. */
static inline void wrap_ring(const struct shmk_ring_view *rv)
{
	uint64_t capacity = 1ULL << rv->capacity_shift, pos = (capacity << 32) - 2, i;

	for (i = 0; i < capacity; i++)
		shmk_slot_at(rv, pos + i)->p =
			SHMK_P((pos + i) >> rv->capacity_shift, SHMK_KIND_EMPTY, 0);
	rv->ring->head = pos;
	rv->ring->tail = pos;
}

static inline void wrap_blocks(const struct shmk_view *view)
{
	uint32_t i;

	for (i = 0; i < view->nr_spans; i++)
		view->spans[i].word = SHMK_SPAN_WORD(0xffff, 0, 0, 0, SHMK_SPAN_FREE);
	for (i = 0; i < view->nr_spans << SHMK_SPAN_UNITS_SHIFT; i++)
		view->blocks[i].word = SHMK_BLOCK_WORD(UINT32_MAX, SHMK_BLOCK_FREE);
}

/* The second next life of each free id has generation 0. Local backend: else it is the kernel's. */
static inline void wrap_peers(struct shmk *s)
{
	struct shmk_peer_status *peer = (void *)((uintptr_t)s->status + s->status->peers_off);
	uint32_t id;

	for (id = 1; id <= s->status->nr_peers; id++)
		if (SHMK_PEER_STATE(peer[id].word) == SHMK_PEER_NONE)
			peer[id].word = SHMK_PEER_WORD(UINT32_MAX - 1, 0, SHMK_PEER_NONE);
}

#endif
