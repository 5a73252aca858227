// SPDX-License-Identifier: GPL-2.0-only
/*
 * settle_test.c - each row of the settling table, on words written by hand.
 *
 * No pool, no backend: a few spans, one queue and one ledger entry in private
 * memory. The dead are DEAD and OTHER; ALIVE lives.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "order.h"
#include "settle.h"
#include "kselftest_harness.h"

#define NR_SPANS	8
#define CAPACITY_SHIFT	2
#define DEAD		7
#define OTHER		8
#define ALIVE		9
#define LAP		5U
#define POS		((uint64_t)LAP << CAPACITY_SHIFT | 2)	/* slot 2 of lap 5 */
#define BLOCK		258U					/* unit 2 of span 1 */
#define GEN		41U

struct ring {
	struct shmk_ring	head;
	unsigned char		slots[64 << CAPACITY_SHIFT] __attribute__((aligned(64)));
	uint32_t		max_tries;
};

FIXTURE(settle)
{
	struct shmk_span	spans[NR_SPANS];
	__u64			taken_map[1], stale_map[1];
	struct shmk_block	*blocks;
	struct ring		ring;
	struct shmk_view	view;
	struct shmk_entry	entry;
	struct shmk_settled	settled;
};

static void queue(const struct shmk_view *view, __u32 id, struct shmk_ring_view *rv)
{
	struct ring *ring = view->owner;

	if (id > 1)
		return;
	rv->flags = id ? SHMK_QUEUE_F_REDELIVER : 0;
	rv->max_tries = id ? ring->max_tries : 0;
	rv->ring = &ring->head;
	rv->slots = ring->slots;
	rv->capacity_shift = CAPACITY_SHIFT;
	rv->slot_bytes = 64;
}

FIXTURE_SETUP(settle)
{
	memset(self, 0, sizeof(*self));
	self->blocks = calloc(NR_SPANS * SHMK_SPAN_UNITS, sizeof(*self->blocks));
	ASSERT_NE(self->blocks, NULL);
	self->view.spans = self->spans;
	self->taken_map[0] = ~0ULL;
	self->view.taken_map = self->taken_map;
	self->view.stale_map = self->stale_map;
	self->view.blocks = self->blocks;
	self->view.nr_spans = NR_SPANS;
	self->view.unit_shift = 8;
	self->view.nr_queues = 2;
	self->view.queue = queue;
	self->view.owner = &self->ring;
	/* span 1 is ALIVE's, in blocks of 2 units */
	self->spans[1].word = SHMK_SPAN_WORD(3, ALIVE, 0, 1, SHMK_SPAN_CUT);
}

FIXTURE_TEARDOWN(settle)
{
	free(self->blocks);
}

#define SLOT	((struct shmk_slot *)(self->ring.slots + 64 * 2))
#define USED(g)	SHMK_BLOCK_WORD((g), SHMK_BLOCK_USED)
#define FREE(g)	SHMK_BLOCK_WORD((g), SHMK_BLOCK_FREE)
#define GONE(g)	SHMK_BLOCK_WORD((g), SHMK_BLOCK_GONE)
#define WORD	(self->blocks[BLOCK].word)
#define P(kind, arg) SHMK_P(LAP, (kind), (arg))
#define EMPTIED	SHMK_P(LAP + 1, SHMK_KIND_EMPTY, 0)
#define AT	SHMK_WHERE(0, POS)

#define ENTRY(op, block, gen, where_) do {				\
	self->entry.what = SHMK_WHAT((op), (block), (gen));		\
	self->entry.where = (where_);					\
} while (0)
#define SETTLE(peer) \
	shmk_settle_entry(&self->view, (peer), &self->entry, &self->settled)

#define SETTLE_REDO(peer) \
	shmk_settle_redo(&self->view, (peer), &self->entry, &self->settled)

#define EXPECT_SETTLED(nr_blocks, nr_messages) do {			\
	EXPECT_EQ(self->settled.blocks, (nr_blocks));			\
	EXPECT_EQ(self->settled.bytes, (nr_blocks) * 512U);		\
	EXPECT_EQ(self->settled.messages, (nr_messages));		\
	EXPECT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_NONE);	\
} while (0)

/* ---- HELD ---- */

TEST_F(settle, held_block_is_freed_and_hinted)
{
	WORD = USED(GEN);
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0));
	EXPECT_EQ(SETTLE(DEAD), SHMK_SETTLE_NO_BELL);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_EQ(self->spans[1].freed, 1ULL << 0);
	EXPECT_NE(self->spans[1].changed, 0);
	EXPECT_EQ(self->stale_map[0], 1ULL << 1);
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, held_block_that_was_received_counts_as_a_lost_message)
{
	WORD = USED(GEN);
	ENTRY(SHMK_OP_GOT, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_SETTLED(1U, 1U);
}

TEST_F(settle, held_about_to_be_sent_is_no_message_yet)
{
	WORD = USED(GEN);
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, AT);	/* where is written before what */
	SETTLE(DEAD);
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, held_but_not_allocated_yet_changes_nothing)
{
	WORD = FREE(GEN);
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, held_of_an_older_generation_leaves_the_new_holder_alone)
{
	WORD = USED(GEN + 1);
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN + 1));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, held_and_freed_but_not_hinted_gets_its_hint)
{
	WORD = FREE(GEN + 1);
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_EQ(self->stale_map[0], 1ULL << 1);
	EXPECT_NE(self->spans[1].freed, 0);
}

/* ---- pinned ---- */

static uint64_t pinned_bytes;
static uint32_t kept;

static bool pinned(const struct shmk_view *view, __u32 block, __u64 bytes)
{
	(void)view;
	pinned_bytes = bytes;
	return block == BLOCK;
}

static void keep(const struct shmk_view *view, __u32 block)
{
	(void)view;
	kept = block;
}

TEST_F(settle, pinned_block_is_kept_and_free_to_nobody)
{
	self->view.pinned = pinned;
	self->view.keep = keep;
	WORD = USED(GEN);
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, SHMK_BLOCK_WORD(GEN + 1, SHMK_BLOCK_PINNED));
	EXPECT_EQ(512, pinned_bytes);
	EXPECT_EQ(BLOCK, kept);
	EXPECT_EQ(1, self->settled.pinned);
	EXPECT_SETTLED(1U, 0U);
	/* Its span is not empty, so nobody gets it whole either. */
	EXPECT_FALSE(shmk_span_unlock(&self->view, 1, self->spans[1].word, 1));
	EXPECT_EQ(WORD, SHMK_BLOCK_WORD(GEN + 1, SHMK_BLOCK_PINNED));
	/* Twice is as good as once. */
	kept = 0;
	ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, SHMK_BLOCK_WORD(GEN + 1, SHMK_BLOCK_PINNED));
	EXPECT_EQ(0, kept);
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, pinned_block_that_is_published_is_the_receivers)
{
	self->view.pinned = pinned;
	self->view.keep = keep;
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_SETTLED(0U, 0U);
}

/* ---- SENDING ---- */

TEST_F(settle, sending_that_was_not_published_is_freed)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_EMPTY, 0);
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_EMPTY, 0));
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, sending_that_lost_its_slot_to_another_is_freed)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK + 2);
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK + 2));
}

TEST_F(settle, passing_on_that_was_not_published_is_a_lost_message)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_EMPTY, 0);
	ENTRY(SHMK_OP_PASSING, BLOCK, GEN, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_SETTLED(1U, 1U);
}

TEST_F(settle, sending_that_was_published_stays_and_rings)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, sending_that_was_taken_and_handed_over_is_the_takers)
{
	WORD = USED(GEN + 1);
	SLOT->p = EMPTIED;
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN + 1));
	EXPECT_SETTLED(0U, 0U);
}

/* ---- TAKING, TAKEN ---- */

TEST_F(settle, taking_that_won_frees_the_block_and_empties_the_slot)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(1U, 1U);
}

TEST_F(settle, taking_that_lost_changes_nothing)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, ALIVE);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, taking_of_an_older_lap_changes_nothing)
{
	WORD = USED(GEN);
	SLOT->p = SHMK_P(LAP + 1, SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_EQ(SLOT->p, SHMK_P(LAP + 1, SHMK_KIND_BLOCK, BLOCK));
}

TEST_F(settle, taking_in_lap_0_that_nobody_won_changes_nothing)
{
	WORD = USED(GEN);
	SLOT->p = SHMK_P(0, SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = 0;
	ENTRY(SHMK_OP_TAKING, 0, 0, SHMK_WHERE(0, 2));
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_EQ(SLOT->p, SHMK_P(0, SHMK_KIND_BLOCK, BLOCK));
}

TEST_F(settle, taking_inline_is_a_lost_message_and_an_empty_slot)
{
	SLOT->p = P(SHMK_KIND_INLINE, 20);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(0U, 1U);
}

TEST_F(settle, copied_is_a_lost_message_whether_the_slot_was_emptied_or_not)
{
	SLOT->p = P(SHMK_KIND_INLINE, 20);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_COPIED, 0, 0, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(0U, 1U);
	SLOT->p = SHMK_P(LAP + 1, SHMK_KIND_INLINE, 3);
	ENTRY(SHMK_OP_COPIED, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(SLOT->p, SHMK_P(LAP + 1, SHMK_KIND_INLINE, 3));
	EXPECT_SETTLED(0U, 2U);
}

TEST_F(settle, taking_a_skip_is_no_loss)
{
	SLOT->p = P(SHMK_KIND_SKIP, 0);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, taken_before_the_hand_over)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(1U, 1U);
}

TEST_F(settle, taken_after_the_hand_over)
{
	WORD = USED(GEN + 1);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_EQ(SLOT->p, EMPTIED);
}

TEST_F(settle, taken_and_emptied_leaves_the_next_lap_alone)
{
	WORD = USED(GEN + 1);
	SLOT->p = SHMK_P(LAP + 1, SHMK_KIND_BLOCK, BLOCK + 2);
	SLOT->t = SHMK_T(LAP + 1, ALIVE);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_EQ(SLOT->p, SHMK_P(LAP + 1, SHMK_KIND_BLOCK, BLOCK + 2));
}

/*
 * Two dead in one slot, the settler dying between: whatever the order, the
 * block is freed once, and a new holder of it is left alone.
 */
TEST_F(settle, dead_sender_after_half_settled_taker_does_not_free)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	/* the settler of the taker got as far as the hand-over */
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	WORD = USED(GEN + 1);
	/* now the sender is settled */
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
	SETTLE(OTHER);
	EXPECT_EQ(WORD, USED(GEN + 1));
	/* then the taker again */
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_SETTLED(1U, 1U);
	/* ALIVE allocates it; settling once more does no harm */
	WORD = USED(GEN + 2);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN + 2));
}

TEST_F(settle, two_threads_of_the_dead_at_one_slot_free_once)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	SETTLE(DEAD);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_SETTLED(1U, 1U);
}

TEST_F(settle, generations_wrap)
{
	WORD = USED(UINT32_MAX);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(1));
}

TEST_F(settle, laps_wrap)
{
	uint64_t pos = (uint64_t)UINT32_MAX << CAPACITY_SHIFT | 2;

	SLOT->p = SHMK_P(UINT32_MAX, SHMK_KIND_INLINE, 1);
	SLOT->t = SHMK_T(UINT32_MAX, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, SHMK_WHERE(0, pos));
	SETTLE(DEAD);
	EXPECT_EQ(SLOT->p, SHMK_P(0, SHMK_KIND_EMPTY, 0));
}

/* ---- CLAIMING ---- */

TEST_F(settle, claimed_slot_becomes_a_skip)
{
	SLOT->p = P(SHMK_KIND_CLAIMED, DEAD);
	ENTRY(SHMK_OP_CLAIMING, 0, 0, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_SKIP, 0));
}

TEST_F(settle, claiming_that_lost_or_was_published_changes_nothing)
{
	SLOT->p = P(SHMK_KIND_CLAIMED, ALIVE);
	ENTRY(SHMK_OP_CLAIMING, 0, 0, AT);
	SETTLE(DEAD);
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_CLAIMED, ALIVE));
	SLOT->p = P(SHMK_KIND_INLINE, 3);
	ENTRY(SHMK_OP_CLAIMING, 0, 0, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_INLINE, 3));
}

TEST_F(settle, waiting_only_rings)
{
	ENTRY(SHMK_OP_WAITING, 0, 0, SHMK_WHERE(0, SHMK_SIDE_RECV));
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_SETTLED(0U, 0U);
}

/* ---- references: BLOCK is the root, NODE its left child, LEAF0, LEAF1 NODE's, LEAF2 the root's right ---- */

#define NODE	(BLOCK + 2)
#define LEAF0	(BLOCK + 4)
#define LEAF1	(BLOCK + 6)
#define LEAF2	(BLOCK + 8)
#define NODE_GEN 100U
#define LEAF_GEN 200U
#define AT_BLOCK(b)	(self->blocks[b].word)
#define INNER(gen, up, place, children) \
	SHMK_BLOCK_UP_WORD((gen), (up), SHMK_INNER_STATE(SHMK_PLACE_##place, SHMK_CHILDREN_##children))
#define LEFT_OF(gen, up)	SHMK_BLOCK_UP_WORD((gen), (up), SHMK_BLOCK_REF_LEFT)
#define RIGHT_OF(gen, up)	SHMK_BLOCK_UP_WORD((gen), (up), SHMK_BLOCK_REF_RIGHT)

static void tree(struct shmk_block *blocks)
{
	blocks[BLOCK] = (struct shmk_block){ INNER(GEN, 0, ROOT, BOTH), 300 };
	blocks[NODE] = (struct shmk_block){ INNER(NODE_GEN, BLOCK, LEFT, BOTH), GEN };
	blocks[LEAF0] = (struct shmk_block){ LEFT_OF(LEAF_GEN, NODE), NODE_GEN };
	blocks[LEAF1] = (struct shmk_block){ RIGHT_OF(LEAF_GEN, NODE), NODE_GEN };
	blocks[LEAF2] = (struct shmk_block){ RIGHT_OF(LEAF_GEN, BLOCK), GEN };
}

TEST_F(settle, reference_with_a_sibling_leaves_the_rest)
{
	tree(self->blocks);
	ENTRY(SHMK_OP_HELD, LEAF0, LEAF_GEN, 0);
	EXPECT_EQ(SETTLE(DEAD), SHMK_SETTLE_NO_BELL);
	EXPECT_EQ(AT_BLOCK(LEAF0), FREE(LEAF_GEN + 1));
	EXPECT_EQ(AT_BLOCK(NODE), INNER(NODE_GEN, BLOCK, LEFT, RIGHT));
	EXPECT_EQ(AT_BLOCK(BLOCK), INNER(GEN, 0, ROOT, BOTH));
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, references_are_freed_with_the_last_one_in_any_order)
{
	static const unsigned int leaf[3] = { LEAF0, LEAF1, LEAF2 };
	unsigned int order, i;

	for (order = 0; order < 6; order++) {
		unsigned int first = order % 3, second = (first + 1 + order / 3) % 3;
		const unsigned int at[3] = { first, second, 3 - first - second };

		tree(self->blocks);
		memset(&self->settled, 0, sizeof(self->settled));
		for (i = 0; i < 3; i++) {
			EXPECT_TRUE(shmk_block_inner(AT_BLOCK(BLOCK)));
			ENTRY(SHMK_OP_GOT, leaf[at[i]], LEAF_GEN, AT);
			SETTLE(DEAD);
			/* and once more, as if the settler had died */
			ENTRY(SHMK_OP_GOT, leaf[at[i]], LEAF_GEN, AT);
			SETTLE(DEAD);
		}
		EXPECT_EQ(AT_BLOCK(BLOCK), FREE(GEN + 1));
		EXPECT_EQ(AT_BLOCK(NODE), FREE(NODE_GEN + 1));
		EXPECT_SETTLED(5U, 3U);
	}
}

TEST_F(settle, reference_taken_out_but_not_freed_yet_is_freed_alone)
{
	tree(self->blocks);
	AT_BLOCK(NODE) = INNER(NODE_GEN, BLOCK, LEFT, RIGHT);
	ENTRY(SHMK_OP_GOT, LEAF0, LEAF_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(LEAF0), FREE(LEAF_GEN + 1));
	EXPECT_EQ(AT_BLOCK(NODE), INNER(NODE_GEN, BLOCK, LEFT, RIGHT));
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, reference_whose_parents_went_half_way_takes_the_rest_along)
{
	tree(self->blocks);
	AT_BLOCK(BLOCK) = FREE(GEN + 1);
	AT_BLOCK(NODE) = INNER(NODE_GEN, BLOCK, LEFT, LEFT);
	ENTRY(SHMK_OP_GOT, LEAF0, LEAF_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(BLOCK), FREE(GEN + 1));
	EXPECT_EQ(AT_BLOCK(NODE), FREE(NODE_GEN + 1));
	EXPECT_EQ(AT_BLOCK(LEAF0), FREE(LEAF_GEN + 1));
	EXPECT_SETTLED(2U, 0U);
}

TEST_F(settle, reference_whose_parent_is_a_new_one_leaves_it_alone)
{
	tree(self->blocks);
	AT_BLOCK(NODE) = INNER(NODE_GEN + 1, BLOCK, LEFT, BOTH);
	ENTRY(SHMK_OP_HELD, LEAF0, LEAF_GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(NODE), INNER(NODE_GEN + 1, BLOCK, LEFT, BOTH));
	EXPECT_EQ(AT_BLOCK(LEAF0), FREE(LEAF_GEN + 1));
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, child_of_a_block_that_is_not_split_yet_is_just_freed)
{
	tree(self->blocks);
	AT_BLOCK(NODE) = LEFT_OF(NODE_GEN, BLOCK);
	ENTRY(SHMK_OP_GOT, LEAF0, LEAF_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(NODE), LEFT_OF(NODE_GEN, BLOCK));
	EXPECT_SETTLED(1U, 0U);
	ENTRY(SHMK_OP_GOT, NODE, NODE_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(BLOCK), INNER(GEN, 0, ROOT, RIGHT));
	EXPECT_SETTLED(2U, 1U);
}

TEST_F(settle, entry_of_who_split_a_block_holds_it_no_more)
{
	tree(self->blocks);
	ENTRY(SHMK_OP_GOT, BLOCK, GEN, AT);
	SETTLE(DEAD);
	ENTRY(SHMK_OP_GOT, NODE, NODE_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(BLOCK), INNER(GEN, 0, ROOT, BOTH));
	EXPECT_EQ(AT_BLOCK(NODE), INNER(NODE_GEN, BLOCK, LEFT, BOTH));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, parents_place_that_was_not_taken_yet_is_nobodys)
{
	tree(self->blocks);
	AT_BLOCK(NODE) = INNER(NODE_GEN, BLOCK, LEFT, LEFT);
	ENTRY(SHMK_OP_GOT, NODE, NODE_GEN + 1, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(NODE), INNER(NODE_GEN, BLOCK, LEFT, LEFT));
	EXPECT_SETTLED(0U, 0U);
	/* taken: both entries are there, in any order */
	AT_BLOCK(NODE) = LEFT_OF(NODE_GEN + 1, BLOCK);
	ENTRY(SHMK_OP_GOT, LEAF0, LEAF_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(NODE), LEFT_OF(NODE_GEN + 1, BLOCK));
	ENTRY(SHMK_OP_GOT, NODE, NODE_GEN + 1, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(BLOCK), INNER(GEN, 0, ROOT, RIGHT));
	EXPECT_SETTLED(2U, 1U);
}

TEST_F(settle, taken_reference_is_handed_over_as_one_and_dropped)
{
	tree(self->blocks);
	SLOT->p = P(SHMK_KIND_BLOCK, LEAF2);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKING, 0, 0, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(AT_BLOCK(LEAF2), FREE(LEAF_GEN + 2));
	EXPECT_EQ(AT_BLOCK(BLOCK), INNER(GEN, 0, ROOT, LEFT));
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(1U, 1U);
}

TEST_F(settle, sending_a_reference_that_was_not_published_drops_it)
{
	tree(self->blocks);
	SLOT->p = P(SHMK_KIND_EMPTY, 0);
	ENTRY(SHMK_OP_PASSING, LEAF2, LEAF_GEN, AT);
	EXPECT_EQ(SETTLE(DEAD), 0);
	EXPECT_EQ(AT_BLOCK(BLOCK), INNER(GEN, 0, ROOT, LEFT));
	EXPECT_SETTLED(1U, 1U);
}

/* ---- envelopes: BLOCK has the parts NODE, which its maker had received, and LEAF0 ---- */

#define ENVELOPE(gen, n)	SHMK_BLOCK_UP_WORD((gen), (n), SHMK_BLOCK_USED)

static void envelope(struct shmk_block *blocks)
{
	blocks[BLOCK].word = ENVELOPE(GEN, 3);
	blocks[BLOCK + 1].len = SHMK_PART(SHMK_PART_INLINE, 0, 20);
	blocks[BLOCK + 2].len = SHMK_PART(SHMK_PART_GOT, NODE + 20, NODE_GEN);
	blocks[BLOCK + 3].len = SHMK_PART(SHMK_PART_BLOCK, LEAF0 + 20, LEAF_GEN);
	blocks[NODE + 20].word = USED(NODE_GEN);
	blocks[LEAF0 + 20].word = USED(LEAF_GEN);
}

TEST_F(settle, envelope_goes_with_its_parts_once)
{
	envelope(self->blocks);
	ENTRY(SHMK_OP_GOT, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_EQ(AT_BLOCK(NODE + 20), FREE(NODE_GEN + 1));
	EXPECT_EQ(AT_BLOCK(LEAF0 + 20), FREE(LEAF_GEN + 1));
	EXPECT_SETTLED(3U, 1U);
	/* the parts' next lives are not touched by a settler that goes again */
	AT_BLOCK(NODE + 20) = USED(NODE_GEN + 1);
	WORD = ENVELOPE(GEN, 3);
	ENTRY(SHMK_OP_GOT, BLOCK, GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(NODE + 20), USED(NODE_GEN + 1));
	EXPECT_SETTLED(4U, 1U);
}

TEST_F(settle, envelope_being_packed_counts_what_had_been_received)
{
	unsigned int first;

	for (first = 0; first < 2; first++) {
		envelope(self->blocks);
		memset(&self->settled, 0, sizeof(self->settled));
		if (first) {
			ENTRY(SHMK_OP_GOT, NODE + 20, NODE_GEN, AT);
			SETTLE(DEAD);
			ENTRY(SHMK_OP_HELD, LEAF0 + 20, LEAF_GEN, 0);
			SETTLE(DEAD);
		}
		ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
		SETTLE(DEAD);
		if (!first) {
			ENTRY(SHMK_OP_GOT, NODE + 20, NODE_GEN, AT);
			SETTLE(DEAD);
		}
		EXPECT_SETTLED(3U, 1U);
	}
}

TEST_F(settle, envelope_being_taken_apart_counts_once)
{
	unsigned int first;

	for (first = 0; first < 2; first++) {
		envelope(self->blocks);
		memset(&self->settled, 0, sizeof(self->settled));
		ENTRY(SHMK_OP_GOT, first ? BLOCK : NODE + 20, first ? GEN : NODE_GEN, AT);
		SETTLE(DEAD);
		ENTRY(SHMK_OP_HELD, LEAF0 + 20, LEAF_GEN, AT);
		SETTLE(DEAD);
		ENTRY(SHMK_OP_GOT, first ? NODE + 20 : BLOCK, first ? NODE_GEN : GEN, AT);
		SETTLE(DEAD);
		EXPECT_SETTLED(3U, 1U);
	}
}

TEST_F(settle, envelope_that_is_shared_keeps_its_parts_until_the_last)
{
	envelope(self->blocks);
	WORD = INNER(GEN, 3, ROOT, BOTH);
	self->blocks[LEAF2] = (struct shmk_block){ RIGHT_OF(LEAF_GEN, BLOCK), GEN };
	self->blocks[LEAF1] = (struct shmk_block){ LEFT_OF(LEAF_GEN, BLOCK), GEN };
	ENTRY(SHMK_OP_GOT, LEAF2, LEAF_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, INNER(GEN, 3, ROOT, LEFT));
	EXPECT_EQ(AT_BLOCK(LEAF0 + 20), USED(LEAF_GEN));
	EXPECT_SETTLED(1U, 1U);
	ENTRY(SHMK_OP_GOT, LEAF1, LEAF_GEN, AT);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(LEAF0 + 20), FREE(LEAF_GEN + 1));
	EXPECT_SETTLED(5U, 2U);
}

TEST_F(settle, envelope_with_a_list_of_nonsense_is_bounded)
{
	unsigned int seed = 20261122, i, b;

	TH_LOG("seed %u", seed);
	for (i = 0; i < 20000; i++) {
		/* parts that are envelopes, references, the envelope itself, outside */
		for (b = BLOCK; b < BLOCK + 80; b++) {
			unsigned int r = (unsigned int)rand_r(&seed);

			self->blocks[b].word = r & 3 ? ENVELOPE(GEN, r >> 2 & 127) :
					       SHMK_BLOCK_UP_WORD(GEN, BLOCK + (r >> 8 & 63), r >> 2 & 15);
			self->blocks[b].len = SHMK_PART(r >> 20 & 3, r & 64 ? r >> 3 : BLOCK + (r >> 14 & 63),
							GEN);
		}
		WORD = ENVELOPE(GEN, i);
		ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
		SETTLE(DEAD);
		ASSERT_EQ(WORD, FREE(GEN + 1));
	}
	/* at the very end of the pool */
	self->spans[NR_SPANS - 1].word = SHMK_SPAN_WORD(3, ALIVE, 0, 1, SHMK_SPAN_CUT);
	b = NR_SPANS * SHMK_SPAN_UNITS - 2;
	self->blocks[b].word = ENVELOPE(GEN, 64);
	ENTRY(SHMK_OP_HELD, b, GEN, 0);
	SETTLE(DEAD);
	EXPECT_EQ(AT_BLOCK(b), FREE(GEN + 1));
}

TEST_F(settle, garbage_for_trees_is_bounded)
{
	unsigned int seed = 20261121, i, b;

	TH_LOG("seed %u", seed);
	for (i = 0; i < 100000; i++) {
		/* few blocks, all of one generation: chains and circles are likely */
		for (b = BLOCK; b < BLOCK + 8; b++) {
			unsigned int r = (unsigned int)rand_r(&seed);

			self->blocks[b].word = SHMK_BLOCK_UP_WORD(GEN, r & 64 ? r : BLOCK + (r & 7),
								  r >> 3 & 7 ? r >> 7 & 15 : 3);
			self->blocks[b].len = GEN;
		}
		self->blocks[BLOCK].word = LEFT_OF(GEN, BLOCK + 1);
		ENTRY(SHMK_OP_HELD, BLOCK, GEN, 0);
		SETTLE(DEAD);
		ASSERT_EQ(WORD, FREE(GEN + 1));
		ASSERT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_NONE);
	}
}

/* ---- spans ---- */

#define SPAN(i)	(self->spans[i].word)
#define SETTLE_SPAN(peer) shmk_settle_span(&self->view, (peer), &self->entry)

TEST_F(settle, empty_span_goes_back_to_the_pool)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, 0, 3, SHMK_SPAN_CUT);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 1));
	SETTLE(DEAD);
	EXPECT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_SPAN);
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(2)), SHMK_SPAN_FREE);
	EXPECT_EQ(SHMK_SPAN_OWNER(SPAN(2)), 0);
	EXPECT_EQ(~self->taken_map[0], 1ULL << 2);
	EXPECT_EQ(self->entry.what, SHMK_OP_NONE);
}

TEST_F(settle, span_with_a_used_block_becomes_an_orphan)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, 0, 3, SHMK_SPAN_CUT);
	self->blocks[2 * 256 + 4].word = USED(1);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 1));
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(4, 0, 0, 3, SHMK_SPAN_CUT));
	EXPECT_EQ(self->stale_map[0], 1ULL << 2);
	EXPECT_EQ(~self->taken_map[0], 0);
}

TEST_F(settle, span_not_claimed_yet_stays_as_it_is_and_is_hinted)
{
	SPAN(2) = SHMK_SPAN_WORD(3, 0, 0, 0, SHMK_SPAN_FREE);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 1));
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(3, 0, 0, 0, SHMK_SPAN_FREE));
	EXPECT_EQ(~self->taken_map[0], 1ULL << 2);
}

TEST_F(settle, span_that_a_thief_has_got_is_the_thiefs)
{
	SPAN(2) = SHMK_SPAN_WORD(5, ALIVE, 0, 3, SHMK_SPAN_CUT);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 1));
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(5, ALIVE, 0, 3, SHMK_SPAN_CUT));
}

TEST_F(settle, span_under_a_thief_is_left_to_the_thief)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, ALIVE, 13, SHMK_SPAN_CUT);
	self->blocks[2 * 256].word = GONE(6);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 1));
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(4, 0, ALIVE, 13, SHMK_SPAN_CUT));
	EXPECT_EQ(self->blocks[2 * 256].word, GONE(6));
}

TEST_F(settle, run_goes_back_with_all_its_tails)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, 0, 0, SHMK_SPAN_RUN);
	self->spans[2].nr_spans = 3;
	SPAN(3) = SHMK_SPAN_TAIL_WORD(9, 2);
	SPAN(4) = SHMK_SPAN_TAIL_WORD(9, 2);
	SPAN(5) = SHMK_SPAN_WORD(1, ALIVE, 0, 0, SHMK_SPAN_CUT);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 3));
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(2)), SHMK_SPAN_FREE);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(3)), SHMK_SPAN_FREE);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(4)), SHMK_SPAN_FREE);
	EXPECT_EQ(SPAN(5), SHMK_SPAN_WORD(1, ALIVE, 0, 0, SHMK_SPAN_CUT));
	EXPECT_EQ(~self->taken_map[0], 7ULL << 2);
}

TEST_F(settle, run_with_its_block_in_use_becomes_an_orphan_whole)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, 0, 0, SHMK_SPAN_RUN);
	SPAN(3) = SHMK_SPAN_TAIL_WORD(9, 2);
	self->blocks[2 * 256].word = USED(1);
	ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 2));
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(4, 0, 0, 0, SHMK_SPAN_RUN));
	EXPECT_EQ(SPAN(3), SHMK_SPAN_TAIL_WORD(9, 2));
}

TEST_F(settle, half_gathered_run_is_taken_apart)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, 0, 0, SHMK_SPAN_GATHER);
	SPAN(3) = SHMK_SPAN_TAIL_WORD(9, 2);
	SPAN(4) = SHMK_SPAN_WORD(1, ALIVE, 0, 0, SHMK_SPAN_CUT);
	ENTRY(SHMK_OP_GATHER, 2, 4, SHMK_WHERE(0, 4));
	SETTLE(DEAD);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(2)), SHMK_SPAN_FREE);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(3)), SHMK_SPAN_FREE);
	EXPECT_EQ(SPAN(4), SHMK_SPAN_WORD(1, ALIVE, 0, 0, SHMK_SPAN_CUT));
	EXPECT_EQ(SPAN(5), 0);
}

TEST_F(settle, gathered_run_that_a_thief_is_at_is_left_to_the_thief)
{
	SPAN(2) = SHMK_SPAN_WORD(4, DEAD, ALIVE, 0, SHMK_SPAN_RUN);
	self->spans[2].nr_spans = 2;
	SPAN(3) = SHMK_SPAN_TAIL_WORD(9, 2);
	self->blocks[2 * 256].word = GONE(6);
	ENTRY(SHMK_OP_GATHER, 2, 4, SHMK_WHERE(0, 2));
	SETTLE(DEAD);
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(4, 0, ALIVE, 0, SHMK_SPAN_RUN));
	EXPECT_EQ(SPAN(3), SHMK_SPAN_TAIL_WORD(9, 2));
	EXPECT_EQ(self->blocks[2 * 256].word, GONE(6));
}

TEST_F(settle, gather_that_lost_the_head_leaves_anothers_tails_alone)
{
	SPAN(2) = SHMK_SPAN_WORD(4, ALIVE, 0, 0, SHMK_SPAN_RUN);
	SPAN(3) = SHMK_SPAN_TAIL_WORD(9, 2);
	ENTRY(SHMK_OP_GATHER, 2, 4, SHMK_WHERE(0, 2));
	SETTLE(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(4, ALIVE, 0, 0, SHMK_SPAN_RUN));
	EXPECT_EQ(SPAN(3), SHMK_SPAN_TAIL_WORD(9, 2));
}

TEST_F(settle, thief_that_had_not_made_it_unlocks_with_the_same_generation)
{
	SPAN(2) = SHMK_SPAN_WORD(4, ALIVE, DEAD, 13, SHMK_SPAN_CUT);
	self->blocks[2 * 256].word = GONE(6);
	self->blocks[2 * 256 + 128].word = USED(8);
	ENTRY(SHMK_OP_SEIZING, 2, 4, SHMK_WHERE(0, 1));
	SETTLE(DEAD);
	EXPECT_EQ(SPAN(2), SHMK_SPAN_WORD(4, ALIVE, 0, 13, SHMK_SPAN_CUT));
	EXPECT_EQ(self->blocks[2 * 256].word, FREE(6));
	EXPECT_EQ(self->blocks[2 * 256 + 128].word, USED(8));
	EXPECT_EQ(self->stale_map[0], 1ULL << 2);
}

TEST_F(settle, thief_that_had_the_span_is_settled_as_its_owner)
{
	SPAN(2) = SHMK_SPAN_WORD(5, DEAD, 0, 13, SHMK_SPAN_CUT);
	self->blocks[2 * 256].word = GONE(6);
	self->blocks[2 * 256 + 128].word = GONE(8);
	ENTRY(SHMK_OP_SEIZING, 2, 4, SHMK_WHERE(0, 1));
	SETTLE(DEAD);
	EXPECT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_SPAN);
	SETTLE_SPAN(DEAD);
	EXPECT_EQ(SHMK_SPAN_KIND(SPAN(2)), SHMK_SPAN_FREE);
	EXPECT_EQ(self->blocks[2 * 256].word, FREE(7));
	EXPECT_EQ(self->blocks[2 * 256 + 128].word, FREE(9));
}

TEST_F(settle, both_thief_and_owner_dead_in_any_order)
{
	int order;

	for (order = 0; order < 2; order++) {
		int i;

		SPAN(2) = SHMK_SPAN_WORD(4, OTHER, DEAD, 13, SHMK_SPAN_CUT);
		self->blocks[2 * 256].word = GONE(6);
		self->blocks[2 * 256 + 128].word = FREE(8);
		for (i = 0; i < 2; i++) {
			if (i == order) {
				ENTRY(SHMK_OP_SEIZING, 2, 4, SHMK_WHERE(0, 1));
				SETTLE(DEAD);
			} else {
				ENTRY(SHMK_OP_SPAN, 2, 4, SHMK_WHERE(0, 1));
				SETTLE_SPAN(OTHER);
			}
		}
		EXPECT_EQ(SHMK_SPAN_THIEF(SPAN(2)), 0);
		EXPECT_EQ(SHMK_SPAN_OWNER(SPAN(2)), 0);
		EXPECT_EQ(SHMK_BLOCK_STATE(self->blocks[2 * 256].word), SHMK_BLOCK_FREE);
		EXPECT_EQ(self->stale_map[0] >> 2 & 1 || ~self->taken_map[0] >> 2 & 1, 1);
	}
}

/* ---- what a hostile or broken peer may have left ---- */

TEST_F(settle, garbage_is_bounded_and_harmless)
{
	unsigned int seed = 20261120, i, j;

	TH_LOG("seed %u", seed);
	for (i = 0; i < 200000; i++) {
		uint64_t r[4];

		for (j = 0; j < 4; j++)
			r[j] = (uint64_t)rand_r(&seed) << 62 ^ (uint64_t)rand_r(&seed) << 31 ^
			       (uint64_t)rand_r(&seed);
		self->entry.what = r[0] & (i & 1 ? ~0ULL : 0xffffffff00000fffULL);
		self->entry.where = r[1] & (i & 2 ? ~0ULL : 0x3f0000ULL);
		self->spans[i % NR_SPANS].word = r[2];
		SLOT->p = r[3];
		SLOT->t = (r[2] & ~0xffffULL) | DEAD;
		SETTLE(DEAD);
		SETTLE_REDO(DEAD);
		SETTLE_SPAN(DEAD);
		ASSERT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_NONE);
	}
}

/* ---- REDO, RESENDING: a queue whose messages stay until they are acknowledged ---- */

#define STAYS	SHMK_WHERE(1, POS)	/* the same ring, as a queue of that kind */

#define EXPECT_REDONE(nr, tries) do {					\
	EXPECT_EQ(self->settled.redelivered, (nr));			\
	EXPECT_EQ(self->ring.head.redelivered, (nr));			\
	EXPECT_EQ(SLOT->t, SHMK_T_TRIED(LAP, 0, (tries)));		\
	EXPECT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_NONE);	\
} while (0)

TEST_F(settle, redo_unacknowledged_goes_back)
{
	int again;

	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T_TRIED(LAP, DEAD, 2);
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_REDO, BLOCK, GEN, STAYS);
		EXPECT_EQ(SETTLE(DEAD), SHMK_SETTLE_NO_BELL);
		EXPECT_EQ(SHMK_WHAT_OP(self->entry.what), SHMK_OP_REDO);
		EXPECT_EQ(self->settled.held_back, again + 1U);
		EXPECT_EQ(SETTLE_REDO(DEAD), 1);
		EXPECT_REDONE(1U, 3U);
		EXPECT_EQ(WORD, USED(GEN));
		EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
	}
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, redo_that_another_has_by_now_is_his)
{
	WORD = USED(GEN + 1);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T_TRIED(LAP, ALIVE, 1);
	ENTRY(SHMK_OP_REDO, BLOCK, GEN, STAYS);
	EXPECT_EQ(SETTLE_REDO(DEAD), 1);
	EXPECT_EQ(WORD, USED(GEN + 1));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
	EXPECT_EQ(SLOT->t, SHMK_T_TRIED(LAP, ALIVE, 1));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, redo_acknowledged_is_freed)
{
	int again;

	WORD = USED(GEN);
	SLOT->p = EMPTIED;
	SLOT->t = SHMK_T(LAP, DEAD);
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_REDO, BLOCK, GEN, STAYS);
		self->spans[1].freed = 0;
		EXPECT_EQ(SETTLE_REDO(DEAD), 1);
		EXPECT_EQ(SLOT->p, EMPTIED);
		EXPECT_EQ(WORD, FREE(GEN + 1));
		EXPECT_EQ(self->spans[1].freed, 1ULL << 0);
		EXPECT_SETTLED(1U, 0U);
	}
	EXPECT_EQ(self->settled.redelivered, 0);
}

TEST_F(settle, redo_given_back_and_acknowledged_by_another_is_over)
{
	WORD = USED(GEN + 1);	/* he is just going to free it */
	SLOT->p = EMPTIED;
	SLOT->t = SHMK_T_TRIED(LAP, ALIVE, 1);
	ENTRY(SHMK_OP_REDO, BLOCK, GEN, STAYS);
	EXPECT_EQ(SETTLE_REDO(DEAD), 1);
	EXPECT_EQ(WORD, USED(GEN + 1));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, redo_inline_goes_back)
{
	SLOT->p = P(SHMK_KIND_INLINE, 9);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_REDO, SHMK_NO_BLOCK, 0, STAYS);
	EXPECT_EQ(SETTLE_REDO(DEAD), 1);
	EXPECT_REDONE(1U, 1U);
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_INLINE, 9));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, redo_inline_that_became_a_block_goes_back)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_SENDING, BLOCK, GEN, STAYS);
	SETTLE(DEAD);
	ENTRY(SHMK_OP_REDO, SHMK_NO_BLOCK, 0, STAYS);
	EXPECT_EQ(SETTLE_REDO(DEAD), 1);
	EXPECT_REDONE(1U, 1U);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
}

TEST_F(settle, redo_tried_often_enough_is_dropped)
{
	int again;

	self->ring.max_tries = 3;
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T_TRIED(LAP, DEAD, 2);
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_REDO, BLOCK, GEN, STAYS);
		EXPECT_EQ(SETTLE_REDO(DEAD), 1);
		EXPECT_EQ(WORD, FREE(GEN + 1));
		EXPECT_EQ(SLOT->p, EMPTIED);
		EXPECT_SETTLED(1U, 1U);
	}
	SLOT->p = P(SHMK_KIND_INLINE, 9);
	ENTRY(SHMK_OP_REDO, SHMK_NO_BLOCK, 0, STAYS);
	SETTLE_REDO(DEAD);
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(1U, 2U);
	EXPECT_EQ(self->settled.redelivered, 0);
}

TEST_F(settle, tries_stop_at_their_end)
{
	SLOT->p = P(SHMK_KIND_INLINE, 9);
	SLOT->t = SHMK_T_TRIED(LAP, DEAD, SHMK_TRIES_MAX);
	ENTRY(SHMK_OP_REDO, SHMK_NO_BLOCK, 0, STAYS);
	SETTLE_REDO(DEAD);
	EXPECT_REDONE(1U, SHMK_TRIES_MAX);
}

TEST_F(settle, taking_where_messages_stay_gives_back)
{
	int again;

	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_TAKING, 0, 0, STAYS);
		EXPECT_EQ(SETTLE(DEAD), 1);
		EXPECT_REDONE(1U, 1U);
		EXPECT_EQ(WORD, USED(GEN + 1));
	}
	SLOT->p = P(SHMK_KIND_INLINE, 9);
	SLOT->t = SHMK_T_TRIED(LAP, DEAD, 1);
	ENTRY(SHMK_OP_TAKING, 0, 0, STAYS);
	EXPECT_EQ(SETTLE(DEAD), 1);
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_INLINE, 9));
	EXPECT_EQ(SLOT->t, SHMK_T_TRIED(LAP, 0, 2));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, taken_where_messages_stay_gives_back)
{
	int done;

	for (done = 0; done < 2; done++) {
		WORD = USED(GEN + done);
		SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
		SLOT->t = SHMK_T_TRIED(LAP, DEAD, done);
		ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, STAYS);
		EXPECT_EQ(SETTLE(DEAD), 1);
		EXPECT_REDONE(done + 1U, done + 1U);
		EXPECT_EQ(WORD, USED(GEN + 1));
	}
	EXPECT_SETTLED(0U, 0U);
}

/* Given back by a settler that died; the next receiver has the generation that this one would have had. */
TEST_F(settle, taken_given_back_before_is_left_alone)
{
	WORD = USED(GEN + 1);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T_TRIED(LAP, ALIVE, 1);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, STAYS);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN + 1));
	EXPECT_EQ(SLOT->t, SHMK_T_TRIED(LAP, ALIVE, 1));
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
	EXPECT_SETTLED(0U, 0U);
}

/* And he has sent it on already. */
TEST_F(settle, taken_given_back_before_and_over_is_left_alone)
{
	WORD = USED(GEN + 1);
	SLOT->p = EMPTIED;
	SLOT->t = SHMK_T_TRIED(LAP, ALIVE, 1);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, STAYS);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, USED(GEN + 1));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, taken_often_enough_is_dropped)
{
	self->ring.max_tries = 1;
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	SLOT->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_TAKEN, BLOCK, GEN, STAYS);
	SETTLE(DEAD);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_SETTLED(1U, 1U);
}

/* The old place: slot 1 of the same lap. */
#define OLD	((struct shmk_slot *)(self->ring.slots + 64))
#define OLD_AT	SHMK_WHERE(1, POS - 1)

TEST_F(settle, resending_unpublished_leaves_it_to_its_old_place)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_EMPTY, 0);
	OLD->p = P(SHMK_KIND_BLOCK, BLOCK);
	OLD->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_RESENDING, BLOCK, GEN, STAYS);
	EXPECT_EQ(SETTLE(DEAD), 1);
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_SETTLED(0U, 0U);
	ENTRY(SHMK_OP_REDO, BLOCK, GEN, OLD_AT);
	EXPECT_EQ(SETTLE_REDO(DEAD), 1);
	EXPECT_EQ(OLD->t, SHMK_T_TRIED(LAP, 0, 1));
	EXPECT_EQ(OLD->p, P(SHMK_KIND_BLOCK, BLOCK));
}

TEST_F(settle, resending_published_empties_the_old_place)
{
	int again;

	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	OLD->p = P(SHMK_KIND_BLOCK, BLOCK);
	OLD->t = SHMK_T(LAP, DEAD);
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_RESENDING, BLOCK, GEN, STAYS);
		EXPECT_EQ(SETTLE(DEAD), 1);
		EXPECT_EQ(WORD, USED(GEN + 1));
	}
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_REDO, BLOCK, GEN, OLD_AT);
		EXPECT_EQ(SETTLE_REDO(DEAD), 1);
		EXPECT_EQ(OLD->p, EMPTIED);
		EXPECT_EQ(SLOT->p, P(SHMK_KIND_BLOCK, BLOCK));
		EXPECT_EQ(WORD, USED(GEN + 1));
	}
	EXPECT_SETTLED(0U, 0U);
	EXPECT_EQ(self->settled.redelivered, 0);
}

TEST_F(settle, resending_published_and_taken_empties_the_old_place)
{
	WORD = FREE(GEN + 2);
	SLOT->p = EMPTIED;
	OLD->p = P(SHMK_KIND_BLOCK, BLOCK);
	OLD->t = SHMK_T(LAP, DEAD);
	ENTRY(SHMK_OP_RESENDING, BLOCK, GEN, STAYS);
	SETTLE(DEAD);
	ENTRY(SHMK_OP_REDO, BLOCK, GEN, OLD_AT);
	SETTLE_REDO(DEAD);
	EXPECT_EQ(OLD->p, EMPTIED);
	EXPECT_EQ(WORD, FREE(GEN + 2));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, sending_a_block_with_a_tag_that_was_only_claimed)
{
	int again;

	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_CLAIMED, DEAD);
	for (again = 0; again < 2; again++) {
		ENTRY(SHMK_OP_SENDING, BLOCK, GEN, AT);
		EXPECT_EQ(SETTLE(DEAD), 0);
		EXPECT_EQ(SLOT->p, P(SHMK_KIND_SKIP, 0));
		EXPECT_EQ(WORD, FREE(GEN + 1));
		EXPECT_SETTLED(1U, 0U);
	}
}

TEST_F(settle, resending_with_a_tag_that_was_only_claimed)
{
	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_CLAIMED, DEAD);
	ENTRY(SHMK_OP_RESENDING, BLOCK, GEN, STAYS);
	SETTLE(DEAD);
	EXPECT_EQ(SLOT->p, P(SHMK_KIND_SKIP, 0));
	EXPECT_EQ(WORD, USED(GEN));
	EXPECT_SETTLED(0U, 0U);
}

TEST_F(settle, redo_of_a_queue_that_is_not_there_is_held)
{
	WORD = USED(GEN);
	ENTRY(SHMK_OP_REDO, BLOCK, GEN, SHMK_WHERE(9, POS));
	EXPECT_EQ(SETTLE_REDO(DEAD), SHMK_SETTLE_NO_BELL);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_SETTLED(1U, 0U);
}

TEST_F(settle, ready_is_what_nobody_has)
{
	struct shmk_ring_view rv = { .slots = NULL };

	queue(&self->view, 1, &rv);
	self->ring.head.head = POS;
	SLOT->p = P(SHMK_KIND_INLINE, 9);
	SLOT->t = SHMK_T(LAP, ALIVE);
	EXPECT_EQ(shmk_ring_ready(&rv, SHMK_SIDE_RECV), 0);
	SLOT->t = SHMK_T_TRIED(LAP, 0, 1);
	EXPECT_EQ(shmk_ring_ready(&rv, SHMK_SIDE_RECV), 1);
	SLOT->t = SHMK_T_TRIED(LAP + 1, 0, 1);
	EXPECT_EQ(shmk_ring_ready(&rv, SHMK_SIDE_RECV), 0);
}

TEST_F(settle, all_of_a_queue_is_freed)
{
	struct shmk_ring_view rv = { .slots = NULL };

	WORD = USED(GEN);
	SLOT->p = P(SHMK_KIND_BLOCK, BLOCK);
	queue(&self->view, 0, &rv);
	shmk_settle_queue(&self->view, &rv, &self->settled);
	EXPECT_EQ(WORD, FREE(GEN + 1));
	EXPECT_EQ(SLOT->p, EMPTIED);
	EXPECT_EQ(self->settled.blocks, 1);
}

TEST_HARNESS_MAIN
