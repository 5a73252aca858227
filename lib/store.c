// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * store.c - blocks that a peer keeps for its own next allocations.
 *
 * Vocabulary
 *   store   blocks that the caller has freed and this peer still holds: USED in their
 *           word, HELD by an entry of its ledger, like any other it holds. Nothing else in
 *           the pool knows the word; who settles this peer frees them as all it held.
 *   keep    to put a freed block there, its own or one it received.
 *
 * Invariants
 *   - kept is a plain block: neither a reference nor an envelope (its whole word says so).
 *   - a kept block has its entry, with KEPT where a message has its position.
 *   - so many bytes as shmk_keep() allowed, and NR_KEPT blocks; none at all in a peer that
 *     sleeps in the library, or has just been refused memory.
 *   - unasked one block, in a peer that has freed and allocated in turn STORE_TURNS times without
 *     sleeping. Nobody can take it away from who stops then and does something else: so it is no larger
 *     than that all peers who are there could keep a quarter of the pool, counted in spans. None in who
 *     sleeps by an fd, frees two in a row, or looks at the pool to see what is used.
 *
 * Why: to free a block and to take it again are two locked operations, and for one that was
 * received two cache lines that travel back to its owner, and later here again. Whoever
 * answers a message with what it came in touches no line that others have.
 *
 * What survivors see if the peer dies right after each store (L is the block's entry):
 *   keep    L.where = (nowhere, KEPT)   HELD: freed. GOT: freed, counted as lost
 *           L.what = HELD(b, g)         freed
 *   take    L.where = (nowhere, 0)      the same
 * The pair (b, g) stays with one entry of one ledger: what is unique remains so.
 *
 * Source of the idea: the caches of threads in front of a heap (tcmalloc, mimalloc),
 * bounded by what others are to be able to have.
 */
#include "internal.h"

#define KEPT_SHARE	4

static bool kept_plain(struct shmk *s, const struct shmk_msg *msg)
{
	return READ_ONCE(s->view.blocks[msg->block].word) ==
	       SHMK_BLOCK_WORD(msg->gen, SHMK_BLOCK_USED);
}

/* Two freed in a row are no turns. */
static bool turns_locked(struct shmk *s)
{
	struct store *st = &s->store;

	if (unlikely(st->freed && st->turns))
		store_empty_locked(s);
	st->freed = true;
	return st->turns == STORE_TURNS;
}

/*
 * If all who are there now did it, a quarter of the pool. The span that a block is cut from is what others
 * cannot have. The count is the status': on local a hostile member may write it, up to that quarter.
 */
static bool room_unasked(const struct shmk *s, uint64_t room)
{
	uint64_t span = (uint64_t)SHMK_SPAN_UNITS << s->view.unit_shift;
	uint64_t part = s->data_bytes / KEPT_SHARE;

	if (room < span)
		room = span;
	return room <= part && room * READ_ONCE(s->status->peers_now) <= part;
}

static bool room_locked(const struct shmk *s, uint64_t room)
{
	const struct store *st = &s->store;

	if (!st->asked)
		return room_unasked(s, room);
	return st->nr < NR_KEPT && room <= st->most - st->bytes;
}

bool store_keep_locked(struct shmk *s, const struct shmk_msg *msg)
{
	struct store *st = &s->store;
	uint64_t room;

	if (likely(st->asked ? !st->most : !turns_locked(s)))
		return false;
	room = block_room_locked(s, msg->block);
	if (!room_locked(s, room) || !kept_plain(s, msg) || pool_is_reset(s))
		return false;
	entry_set(s, msg->entry, SHMK_WHAT(SHMK_OP_HELD, msg->block, msg->gen),
		  SHMK_WHERE(SHMK_QUEUE_NOWHERE, SHMK_POS_KEPT));
	st->kept[st->nr++] = (struct kept) {
		.block = msg->block, .gen = msg->gen, .entry = msg->entry,
		.units = (uint32_t)(room >> s->view.unit_shift),
	};
	st->bytes += room;
	return true;
}

/* The one freed last is in the cache: from the top. What is not @least units is another class's. */
bool store_take_locked(struct shmk *s, uint32_t least, uint32_t most, struct shmk_msg *msg)
{
	struct store *st = &s->store;
	struct kept *k = st->kept + st->nr;

	do {
		if (k-- == st->kept)
			return false;
	} while (k->units < least || k->units > most);
	msg->block = k->block;
	msg->gen = k->gen;
	msg->entry = k->entry;
	msg->room = (size_t)k->units << s->view.unit_shift;
	WRITE_ONCE(entry_at(s, k->entry)->where, SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0));
	st->freed = false;
	st->bytes -= msg->room;
	*k = st->kept[--st->nr];
	return true;
}

void store_empty_locked(struct shmk *s)
{
	struct store *st = &s->store;

	while (st->nr) {
		const struct kept *k = &st->kept[--st->nr];

		block_free_locked(s, k->block, k->gen, k->entry);
	}
	st->bytes = 0;
	WRITE_ONCE(st->turns, 0);
}

void store_empty(struct shmk *s)
{
	bool locked = lock(&s->lock);

	store_empty_locked(s);
	unlock(&s->lock, locked);
}

void store_exported(struct shmk *s)
{
	bool locked = lock(&s->lock);

	if (!s->store.asked && !s->rdonly) {
		WRITE_ONCE(s->store.asked, true);
		store_empty_locked(s);
	}
	unlock(&s->lock, locked);
}

int shmk_keep(struct shmk *s, size_t bytes)
{
	bool locked;

	if (s->rdonly)
		return -EROFS;
	locked = lock(&s->lock);
	WRITE_ONCE(s->store.most, bytes < s->data_bytes ? bytes : s->data_bytes);
	WRITE_ONCE(s->store.asked, true);
	if (s->store.bytes > s->store.most)
		store_empty_locked(s);
	unlock(&s->lock, locked);
	return 0;
}
