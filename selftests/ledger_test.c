// SPDX-License-Identifier: GPL-2.0-only
/*
 * ledger_test.c - what the kernel does with the ledgers of the dead.
 *
 * settle_test tries each row of the settling table on words in private memory;
 * here a process is really killed in that state, and the observer looks at the
 * shared words afterwards. Then ledgers that no correct peer writes.
 *
 * SHMK_TEST_SEED repeats a random run; the seed in use is printed.
 */
#include <sys/epoll.h>

#include "death.h"

#define TIMEOUT	120

/* ---- each row of the table ---- */

/*
 * A victim writes an entry and the words that belong to it as they are at one
 * moment of the protocol, and is killed there. The span is the observer's; so
 * is everything else in the ring.
 */
FIXTURE(settled)
{
	death_t d;
};

FIXTURE_SETUP(settled)
{
	observe(_metadata, &self->d);
}

FIXTURE_TEARDOWN(settled)
{
	leave_nothing(_metadata, &self->d);
}

#define LAP		5U
#define SLOT		2U
#define POS		((uint64_t)LAP * CAPACITY + SLOT)
#define SPAN		1U
#define BLOCK		(SPAN * SHMK_SPAN_UNITS + 2)
#define GEN		41U
#define ROOM		512U

/* To be replaced by the victim's id, which nobody knows beforehand. */
#define VICTIM		0xfff0U
#define OTHER		0xfff1U

#define FREE(n)		SHMK_BLOCK_WORD(GEN + (n), SHMK_BLOCK_FREE)
#define USED(n)		SHMK_BLOCK_WORD(GEN + (n), SHMK_BLOCK_USED)
#define P(kind, arg)	SHMK_P(LAP, SHMK_KIND_##kind, arg)
#define T(peer)		SHMK_T(LAP, peer)
#define P_EMPTY		P(EMPTY, 0)
#define P_BLOCK		P(BLOCK, BLOCK)
#define P_EMPTIED	SHMK_P(LAP + 1, SHMK_KIND_EMPTY, 0)
#define T_OLD		SHMK_T(LAP - 1, OTHER)
#define HERE		SHMK_WHERE(QUEUE, POS)
#define NOWHERE		SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0)
#define QUEUE		0xffeU

FIXTURE_VARIANT(settled)
{
	uint64_t what, where;
	uint64_t block, p, t;		/* at the death */
	uint64_t block_after, p_after;	/* T never changes */
	uint32_t blocks, messages;	/* given back */
};

#define ROW(name) FIXTURE_VARIANT_ADD(settled, name)
#define WHAT(op, block, n) .what = SHMK_WHAT(SHMK_OP_##op, block, GEN + (n))

ROW(held_but_not_allocated_yet_changes_nothing) {
	WHAT(HELD, BLOCK, 0), .where = NOWHERE,
	.block = FREE(0), .block_after = FREE(0),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY,
};

ROW(held_block_is_freed) {
	WHAT(HELD, BLOCK, 0), .where = NOWHERE,
	.block = USED(0), .block_after = FREE(1),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY, .blocks = 1,
};

ROW(got_block_is_freed_and_its_message_lost) {
	WHAT(GOT, BLOCK, 1), .where = HERE,
	.block = USED(1), .block_after = FREE(2),
	.p = P_EMPTIED, .t = T(VICTIM), .p_after = P_EMPTIED, .blocks = 1, .messages = 1,
};

ROW(held_and_freed_already_stays_free) {
	WHAT(HELD, BLOCK, 0), .where = NOWHERE,
	.block = FREE(1), .block_after = FREE(1),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY,
};

ROW(held_once_and_given_to_another_since_is_the_others) {
	WHAT(HELD, BLOCK, 0), .where = NOWHERE,
	.block = USED(1), .block_after = USED(1),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY,
};

ROW(sending_before_publishing_frees_the_block) {
	WHAT(SENDING, BLOCK, 0), .where = HERE,
	.block = USED(0), .block_after = FREE(1),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY, .blocks = 1,
};

ROW(sending_that_lost_the_slot_frees_the_block) {
	WHAT(SENDING, BLOCK, 0), .where = HERE,
	.block = USED(0), .block_after = FREE(1),
	.p = P(BLOCK, BLOCK + 2), .t = T_OLD, .p_after = P(BLOCK, BLOCK + 2), .blocks = 1,
};

ROW(sending_after_publishing_leaves_the_message) {
	WHAT(SENDING, BLOCK, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = T_OLD, .p_after = P_BLOCK,
};

ROW(sending_that_was_taken_leaves_the_taker_alone) {
	WHAT(SENDING, BLOCK, 0), .where = HERE,
	.block = USED(1), .block_after = USED(1),
	.p = P_EMPTIED, .t = T(OTHER), .p_after = P_EMPTIED,
};

ROW(sending_that_is_being_taken_leaves_the_taker_alone) {
	WHAT(SENDING, BLOCK, 0), .where = HERE,
	.block = USED(1), .block_after = USED(1),
	.p = P_BLOCK, .t = T(OTHER), .p_after = P_BLOCK,
};

ROW(passing_on_before_publishing_frees_the_block_and_loses_the_message) {
	WHAT(PASSING, BLOCK, 0), .where = HERE,
	.block = USED(0), .block_after = FREE(1),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY, .blocks = 1, .messages = 1,
};

ROW(passing_on_after_publishing_leaves_the_message) {
	WHAT(PASSING, BLOCK, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = T_OLD, .p_after = P_BLOCK,
};

ROW(passing_on_what_was_taken_already_leaves_the_taker_alone) {
	WHAT(PASSING, BLOCK, 0), .where = HERE,
	.block = USED(1), .block_after = USED(1),
	.p = P_EMPTIED, .t = T(OTHER), .p_after = P_EMPTIED,
};

ROW(taking_before_winning_changes_nothing) {
	WHAT(TAKING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = T_OLD, .p_after = P_BLOCK,
};

ROW(taking_that_lost_changes_nothing) {
	WHAT(TAKING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = T(OTHER), .p_after = P_BLOCK,
};

ROW(taking_that_won_frees_the_block_and_empties_the_slot) {
	WHAT(TAKING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = FREE(2),
	.p = P_BLOCK, .t = T(VICTIM), .p_after = P_EMPTIED, .blocks = 1, .messages = 1,
};

ROW(taking_of_an_earlier_lap_changes_nothing) {
	WHAT(TAKING, 0, 0), .where = SHMK_WHERE(QUEUE, POS - CAPACITY),
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = SHMK_T(LAP - 1, VICTIM), .p_after = P_BLOCK,
};

ROW(taking_inline_is_a_lost_message_and_an_empty_slot) {
	WHAT(TAKING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P(INLINE, 20), .t = T(VICTIM), .p_after = P_EMPTIED, .messages = 1,
};

ROW(taking_a_skip_empties_the_slot_and_loses_nothing) {
	WHAT(TAKING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P(SKIP, 0), .t = T(VICTIM), .p_after = P_EMPTIED,
};

ROW(taken_before_the_hand_over_frees_the_block) {
	WHAT(TAKEN, BLOCK, 0), .where = HERE,
	.block = USED(0), .block_after = FREE(2),
	.p = P_BLOCK, .t = T(VICTIM), .p_after = P_EMPTIED, .blocks = 1, .messages = 1,
};

ROW(taken_after_the_hand_over_frees_the_block) {
	WHAT(TAKEN, BLOCK, 0), .where = HERE,
	.block = USED(1), .block_after = FREE(2),
	.p = P_BLOCK, .t = T(VICTIM), .p_after = P_EMPTIED, .blocks = 1, .messages = 1,
};

ROW(taken_and_emptied_leaves_the_next_message_alone) {
	WHAT(TAKEN, BLOCK, 0), .where = HERE,
	.block = USED(1), .block_after = FREE(2),
	.p = SHMK_P(LAP + 1, SHMK_KIND_BLOCK, BLOCK + 2), .t = SHMK_T(LAP + 1, OTHER),
	.p_after = SHMK_P(LAP + 1, SHMK_KIND_BLOCK, BLOCK + 2), .blocks = 1, .messages = 1,
};

ROW(copied_before_emptying_is_lost_and_the_slot_emptied) {
	WHAT(COPIED, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P(INLINE, 20), .t = T(VICTIM), .p_after = P_EMPTIED, .messages = 1,
};

ROW(copied_after_emptying_is_lost_and_the_slot_left_alone) {
	WHAT(COPIED, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = SHMK_P(LAP + 1, SHMK_KIND_INLINE, 7), .t = T(VICTIM),
	.p_after = SHMK_P(LAP + 1, SHMK_KIND_INLINE, 7), .messages = 1,
};

ROW(claiming_before_the_claim_changes_nothing) {
	WHAT(CLAIMING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P_EMPTY, .t = T_OLD, .p_after = P_EMPTY,
};

ROW(claimed_slot_becomes_a_skip) {
	WHAT(CLAIMING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P(CLAIMED, VICTIM), .t = T_OLD, .p_after = P(SKIP, 0),
};

ROW(slot_claimed_by_another_stays_claimed) {
	WHAT(CLAIMING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P(CLAIMED, OTHER), .t = T_OLD, .p_after = P(CLAIMED, OTHER),
};

ROW(inline_message_that_was_published_stays) {
	WHAT(CLAIMING, 0, 0), .where = HERE,
	.block = USED(0), .block_after = USED(0),
	.p = P(INLINE, 20), .t = T_OLD, .p_after = P(INLINE, 20),
};

ROW(waiting_changes_nothing) {
	WHAT(WAITING, 0, 0), .where = SHMK_WHERE(QUEUE, SHMK_SIDE_RECV),
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = T_OLD, .p_after = P_BLOCK,
};

ROW(taking_from_a_queue_that_is_not_there_changes_nothing) {
	WHAT(TAKING, 0, 0), .where = SHMK_WHERE(9, POS),
	.block = USED(0), .block_after = USED(0),
	.p = P_BLOCK, .t = T(VICTIM), .p_after = P_BLOCK,
};

struct row_arg {
	death_t *d;
	const FIXTURE_VARIANT(settled) *v;
	bool opens;
};

static uint64_t named(uint64_t word, uint32_t shift, uint32_t victim, uint32_t other)
{
	uint32_t who = (word >> shift) & 0xffff;

	if (who != VICTIM && who != OTHER)
		return word;
	return (word & ~(0xffffULL << shift)) |
	       (uint64_t)(who == VICTIM ? victim : other) << shift;
}

static int victim_of_row(int sock, void *arg)
{
	struct row_arg *r = arg;
	struct test_att a;
	struct shmk_slot *slot;
	uint64_t where = r->v->where;
	uint32_t other = r->d->me.peer;

	CHILD_CHECK(!test_attach(r->d->pool, 0, 0, &a));
	if (r->opens)
		CHILD_CHECK(!raw_queue_open(a.fd, "q", NULL, NULL));
	if (SHMK_WHERE_QUEUE(where) == QUEUE)
		where = SHMK_WHERE(r->d->queue, SHMK_WHERE_POS(where));
	slot = test_slot(&a, r->d->queue, POS);
	test_entry(&a, 0, r->v->what, where);
	STORE(&slot->p, named(r->v->p, 4, a.peer, other));
	STORE(&slot->t, named(r->v->t, 0, a.peer, other));
	STORE(test_block(&a, BLOCK), r->v->block);
	STORE(&test_ring(&a, r->d->queue)->waiters_recv, 1);
	STORE(&test_ring(&a, r->d->queue)->waiters_send, 1);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

static void prepare_ring(const death_t *self)
{
	struct shmk_ring *ring = test_ring(&self->me, self->queue);
	uint32_t i;

	for (i = 0; i < CAPACITY; i++)
		STORE(&test_slot(&self->me, self->queue, i)->p,
		      SHMK_P(i < SLOT ? LAP + 1 : LAP, SHMK_KIND_EMPTY, 0));
	STORE(&ring->head, POS);
	STORE(&ring->tail, POS);
	STORE(&test_span(&self->me, SPAN)->word,
	      SHMK_SPAN_WORD(1, self->me.peer, 0, 1, SHMK_SPAN_CUT));
	/* Must never be touched: the neighbour that one of the rows names. */
	STORE(test_block(&self->me, BLOCK + 2), SHMK_BLOCK_WORD(1, SHMK_BLOCK_USED));
}

static void row_is_settled(struct __test_metadata *_metadata, death_t *self,
			   const FIXTURE_VARIANT(settled) *v)
{
	struct row_arg r = { .d = self, .v = v, .opens = true };
	struct shmk_slot *slot = test_slot(&self->me, self->queue, POS);
	struct shmk_ring *ring = test_ring(&self->me, self->queue);
	struct shmk_event event;
	struct test_child c;
	uint32_t peer, gen;

	prepare_ring(self);
	ASSERT_EQ(0, victim_start(&c, victim_of_row, &r, &peer, &gen));
	KILL(&c, peer, gen, &event);
	EXPECT_EQ(v->block_after, LOAD(test_block(&self->me, BLOCK)));
	EXPECT_EQ(named(v->p_after, 4, peer, self->me.peer), LOAD(&slot->p));
	EXPECT_EQ(named(v->t, 0, peer, self->me.peer), LOAD(&slot->t));
	EXPECT_EQ(SHMK_BLOCK_WORD(1, SHMK_BLOCK_USED), LOAD(test_block(&self->me, BLOCK + 2)));
	EXPECT_EQ(v->blocks, event.blocks);
	EXPECT_EQ(v->blocks * ROOM, event.bytes);
	EXPECT_EQ(v->messages, event.messages);
	/* Whoever slept at this queue was rung for. */
	EXPECT_EQ(0, LOAD(&ring->waiters_recv));
	EXPECT_EQ(0, LOAD(&ring->waiters_send));
	if (v->blocks) {
		EXPECT_TRUE(test_map_bit(&self->me, self->me.status->stale_map_off, SPAN));
		EXPECT_NE(0, LOAD(&test_span(&self->me, SPAN)->changed));
		EXPECT_EQ(1, LOAD(&test_span(&self->me, SPAN)->freed));
	}
}

TEST_F_TIMEOUT(settled, by_the_kernel_after_a_kill, TIMEOUT)
{
	row_is_settled(_metadata, &self->d, variant);
}

/* A ledger can name only queues that its peer has open. */
TEST_F_TIMEOUT(death, queue_that_the_dead_had_not_open_is_not_touched, TIMEOUT)
{
	static const FIXTURE_VARIANT(settled) v = {
		WHAT(TAKING, 0, 0), .where = HERE,
		.block = USED(0), .p = P_BLOCK, .t = T(VICTIM),
	};
	struct row_arg r = { .d = self, .v = &v, .opens = false };
	struct shmk_event event;
	struct test_child c;
	uint32_t peer, gen;

	prepare_ring(self);
	ASSERT_EQ(0, victim_start(&c, victim_of_row, &r, &peer, &gen));
	KILL(&c, peer, gen, &event);
	EXPECT_EQ(USED(0), LOAD(test_block(&self->me, BLOCK)));
	EXPECT_EQ(P_BLOCK, LOAD(&test_slot(&self->me, self->queue, POS)->p));
	EXPECT_NOTHING_HELD(event);
}

/* It may write its own ledger, and so can claim what it likes. */
static int victim_read_only(int sock, void *arg)
{
	const death_t *d = arg;
	struct test_att a;

	CHILD_CHECK(!test_attach(d->pool, SHMK_ATTACH_F_RDONLY, 0, &a));
	CHILD_CHECK(!raw_queue_open(a.fd, "q", NULL, NULL));
	test_entry(&a, 0, SHMK_WHAT(SHMK_OP_HELD, BLOCK, GEN), NOWHERE);
	test_entry(&a, 1, SHMK_WHAT(SHMK_OP_SENDING, BLOCK + 4, GEN), HERE);
	test_entry(&a, 2, SHMK_WHAT(SHMK_OP_TAKEN, BLOCK + 8, GEN), HERE);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

TEST_F_TIMEOUT(death, ledger_of_a_read_only_member_is_not_believed, TIMEOUT)
{
	struct shmk_event event;
	struct test_child c;
	uint32_t peer, gen, i;

	prepare_ring(self);
	for (i = 0; i < 3; i++)
		STORE(test_block(&self->me, BLOCK + 4 * i), USED(0));
	ASSERT_EQ(0, victim_start(&c, victim_read_only, self, &peer, &gen));
	KILL(&c, peer, gen, &event);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(USED(0), LOAD(test_block(&self->me, BLOCK + 4 * i)));
	EXPECT_NOTHING_HELD(event);
}

/*
 * A sender and a receiver of one message, dead both, each between its ledger
 * and its last store: the block is freed once, whoever is settled first.
 */
static void two_dead_meet(struct __test_metadata *_metadata, death_t *self, int order,
			  bool handed_over)
{
	const FIXTURE_VARIANT(settled) sender = {
		WHAT(SENDING, BLOCK, 0), .where = HERE,
		.block = USED(0), .p = P_BLOCK, .t = T_OLD,
	};
	const FIXTURE_VARIANT(settled) taking = {
		WHAT(TAKING, 0, 0), .where = HERE,
		.block = USED(0), .p = P_BLOCK, .t = T(VICTIM),
	};
	const FIXTURE_VARIANT(settled) taken = {
		WHAT(TAKEN, BLOCK, 0), .where = HERE,
		.block = USED(1), .p = P_BLOCK, .t = T(VICTIM),
	};
	struct row_arg r[2] = { { self, &sender, true },
				{ self, handed_over ? &taken : &taking, true } };
	struct shmk_event event[2];
	struct test_child c[2];
	uint32_t peer[2], gen[2];
	int i, first = order == 1;

	prepare_ring(self);
	STORE(test_block(&self->me, BLOCK), FREE(0));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, victim_start(&c[i], victim_of_row, &r[i], &peer[i], &gen[i]));
	ASSERT_EQ(0, kill(c[first].pid, SIGKILL));
	if (order < 2)
		ASSERT_LE(0, test_poll(c[first].pidfd, POLLIN, PATIENCE_MS));
	ASSERT_EQ(0, kill(c[!first].pid, SIGKILL));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, test_event_of(self->events, SHMK_EV_DIED, 0, 0, &event[i]));
	EXPECT_EQ(1, event[0].blocks + event[1].blocks);
	EXPECT_EQ(1, event[0].messages + event[1].messages);
	EXPECT_EQ(FREE(2), LOAD(test_block(&self->me, BLOCK)));
	EXPECT_EQ(P_EMPTIED, LOAD(&test_slot(&self->me, self->queue, POS)->p));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(SIGKILL, test_child_end(&c[i]));
}

TEST_F_TIMEOUT(death, dead_sender_and_dead_receiver_free_their_message_once, TIMEOUT)
{
	int order;

	for (order = 0; order < 6; order++) {
		two_dead_meet(_metadata, self, order, false);
		two_dead_meet(_metadata, self, order, true);
	}
}

/* ---- spans of the dead ---- */

struct span_arg {
	death_t *d;
	void (*arrange)(struct test_att *a, uint32_t alive);
};

static int victim_with_spans(int sock, void *arg)
{
	struct span_arg *s = arg;
	struct test_att a;

	CHILD_CHECK(!test_attach(s->d->pool, 0, 0, &a));
	s->arrange(&a, s->d->me.peer);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

static void kill_with_spans(struct __test_metadata *_metadata, death_t *self,
			    void (*arrange)(struct test_att *a, uint32_t alive),
			    struct shmk_event *event)
{
	struct span_arg s = { self, arrange };
	struct test_child c;
	uint32_t peer, gen;

	ASSERT_EQ(0, victim_start(&c, victim_with_spans, &s, &peer, &gen));
	KILL(&c, peer, gen, event);
}

#define SPAN_IS(span, word_) EXPECT_EQ((word_), LOAD(&test_span(&self->me, (span))->word))
#define SPAN_FREED(span) do {							\
	uint64_t word_ = LOAD(&test_span(&self->me, (span))->word);		\
	EXPECT_EQ(SHMK_SPAN_FREE, SHMK_SPAN_KIND(word_));			\
	EXPECT_EQ(0, SHMK_SPAN_OWNER(word_));					\
	EXPECT_FALSE(test_map_bit(&self->me, self->me.status->taken_map_off, (span))); \
} while (0)

static void span_entry(struct test_att *a, uint32_t i, uint32_t op, uint32_t span, uint32_t gen,
		       uint32_t nr)
{
	uint64_t *taken = (uint64_t *)(a->control + a->status->taken_map_off);

	test_entry(a, i, SHMK_WHAT(op, span, gen), SHMK_WHERE(0, nr));
	STORE(&test_span(a, span)->nr_spans, nr);
	for (; nr; nr--, span++)
		__atomic_fetch_or(&taken[span / 64], 1ULL << span % 64, __ATOMIC_SEQ_CST);
}

/* One empty, one of whose blocks another holds, one that a thief is emptying. */
static void arrange_cut(struct test_att *a, uint32_t alive)
{
	span_entry(a, 0, SHMK_OP_SPAN, 10, 4, 1);
	STORE(&test_span(a, 10)->word, SHMK_SPAN_WORD(4, a->peer, 0, 3, SHMK_SPAN_CUT));
	span_entry(a, 1, SHMK_OP_SPAN, 11, 5, 1);
	STORE(&test_span(a, 11)->word, SHMK_SPAN_WORD(5, a->peer, 0, 3, SHMK_SPAN_CUT));
	STORE(test_block(a, 11 * SHMK_SPAN_UNITS + 4), SHMK_BLOCK_WORD(9, SHMK_BLOCK_USED));
	span_entry(a, 2, SHMK_OP_SPAN, 12, 6, 1);
	STORE(&test_span(a, 12)->word, SHMK_SPAN_WORD(6, a->peer, alive, 3, SHMK_SPAN_CUT));
	/* Not claimed yet; and one that a thief has got meanwhile. */
	span_entry(a, 3, SHMK_OP_SPAN, 13, 7, 1);
	STORE(&test_span(a, 13)->word, SHMK_SPAN_WORD(6, 0, 0, 0, SHMK_SPAN_FREE));
	span_entry(a, 4, SHMK_OP_SPAN, 14, 8, 1);
	STORE(&test_span(a, 14)->word, SHMK_SPAN_WORD(9, alive, 0, 3, SHMK_SPAN_CUT));
}

TEST_F_TIMEOUT(death, empty_spans_go_back_and_others_become_orphans, TIMEOUT)
{
	struct shmk_event event;

	kill_with_spans(_metadata, self, arrange_cut, &event);
	EXPECT_NOTHING_HELD(event);
	SPAN_FREED(10);
	SPAN_IS(11, SHMK_SPAN_WORD(5, 0, 0, 3, SHMK_SPAN_CUT));
	EXPECT_EQ(SHMK_BLOCK_WORD(9, SHMK_BLOCK_USED),
		  LOAD(test_block(&self->me, 11 * SHMK_SPAN_UNITS + 4)));
	EXPECT_TRUE(test_map_bit(&self->me, self->me.status->stale_map_off, 11));
	EXPECT_TRUE(test_map_bit(&self->me, self->me.status->taken_map_off, 11));
	SPAN_IS(12, SHMK_SPAN_WORD(6, 0, self->me.peer, 3, SHMK_SPAN_CUT));
	SPAN_FREED(13);
	SPAN_IS(14, SHMK_SPAN_WORD(9, self->me.peer, 0, 3, SHMK_SPAN_CUT));
	STORE(test_block(&self->me, 11 * SHMK_SPAN_UNITS + 4), SHMK_BLOCK_WORD(10, SHMK_BLOCK_FREE));
}

/* A run with its huge block held; a run half gathered; a run whose block is another's. */
static void arrange_runs(struct test_att *a, uint32_t alive)
{
	(void)alive;
	span_entry(a, 0, SHMK_OP_SPAN, 10, 4, 3);
	STORE(&test_span(a, 10)->word, SHMK_SPAN_WORD(4, a->peer, 0, 0, SHMK_SPAN_RUN));
	STORE(&test_span(a, 11)->word, SHMK_SPAN_TAIL_WORD(2, 10));
	STORE(&test_span(a, 12)->word, SHMK_SPAN_TAIL_WORD(3, 10));
	test_entry(a, 1, SHMK_WHAT(SHMK_OP_HELD, 10 * SHMK_SPAN_UNITS, 6),
		   SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0));
	STORE(test_block(a, 10 * SHMK_SPAN_UNITS), SHMK_BLOCK_WORD(6, SHMK_BLOCK_USED));

	span_entry(a, 2, SHMK_OP_GATHER, 20, 4, 4);
	STORE(&test_span(a, 20)->word, SHMK_SPAN_WORD(4, a->peer, 0, 0, SHMK_SPAN_GATHER));
	STORE(&test_span(a, 21)->word, SHMK_SPAN_TAIL_WORD(2, 20));
	STORE(&test_span(a, 22)->word, SHMK_SPAN_WORD(1, alive, 0, 0, SHMK_SPAN_CUT));

	span_entry(a, 3, SHMK_OP_SPAN, 30, 4, 2);
	STORE(&test_span(a, 30)->word, SHMK_SPAN_WORD(4, a->peer, 0, 0, SHMK_SPAN_RUN));
	STORE(&test_span(a, 31)->word, SHMK_SPAN_TAIL_WORD(2, 30));
	STORE(test_block(a, 30 * SHMK_SPAN_UNITS), SHMK_BLOCK_WORD(7, SHMK_BLOCK_USED));
}

TEST_F_TIMEOUT(death, runs_go_back_whole_or_become_orphans_whole, TIMEOUT)
{
	struct shmk_event event;

	kill_with_spans(_metadata, self, arrange_runs, &event);
	EXPECT_EQ(1, event.blocks);
	EXPECT_EQ(3 * (SHMK_SPAN_UNITS << 8), event.bytes);
	SPAN_FREED(10);
	SPAN_FREED(11);
	SPAN_FREED(12);
	SPAN_FREED(20);
	SPAN_FREED(21);
	SPAN_IS(22, SHMK_SPAN_WORD(1, self->me.peer, 0, 0, SHMK_SPAN_CUT));
	SPAN_IS(30, SHMK_SPAN_WORD(4, 0, 0, 0, SHMK_SPAN_RUN));
	SPAN_IS(31, SHMK_SPAN_TAIL_WORD(2, 30));
	STORE(test_block(&self->me, 30 * SHMK_SPAN_UNITS), SHMK_BLOCK_WORD(8, SHMK_BLOCK_FREE));
}

/* A thief that had locked two blocks of the observer's span, and one that had the span. */
static void arrange_thefts(struct test_att *a, uint32_t alive)
{
	span_entry(a, 0, SHMK_OP_SEIZING, 10, 4, 1);
	STORE(&test_span(a, 10)->word, SHMK_SPAN_WORD(4, alive, a->peer, 13, SHMK_SPAN_CUT));
	STORE(test_block(a, 10 * SHMK_SPAN_UNITS), SHMK_BLOCK_WORD(6, SHMK_BLOCK_GONE));
	STORE(test_block(a, 10 * SHMK_SPAN_UNITS + 128), SHMK_BLOCK_WORD(7, SHMK_BLOCK_GONE));
	span_entry(a, 1, SHMK_OP_SEIZING, 11, 4, 1);
	STORE(&test_span(a, 11)->word, SHMK_SPAN_WORD(5, a->peer, 0, 13, SHMK_SPAN_CUT));
	STORE(test_block(a, 11 * SHMK_SPAN_UNITS), SHMK_BLOCK_WORD(6, SHMK_BLOCK_GONE));
}

TEST_F_TIMEOUT(death, thief_gives_back_what_it_had_not_got_yet, TIMEOUT)
{
	struct shmk_event event;

	kill_with_spans(_metadata, self, arrange_thefts, &event);
	EXPECT_NOTHING_HELD(event);
	SPAN_IS(10, SHMK_SPAN_WORD(4, self->me.peer, 0, 13, SHMK_SPAN_CUT));
	EXPECT_EQ(SHMK_BLOCK_WORD(6, SHMK_BLOCK_FREE), LOAD(test_block(&self->me, 10 * SHMK_SPAN_UNITS)));
	EXPECT_EQ(SHMK_BLOCK_WORD(7, SHMK_BLOCK_FREE),
		  LOAD(test_block(&self->me, 10 * SHMK_SPAN_UNITS + 128)));
	SPAN_FREED(11);
	EXPECT_EQ(SHMK_BLOCK_WORD(7, SHMK_BLOCK_FREE), LOAD(test_block(&self->me, 11 * SHMK_SPAN_UNITS)));
}

/* ---- bells of the dead ---- */

/*
 * The observer sleeps in epoll. The victim publishes, takes the waiters word
 * back to 0, and dies before it rings: only its settling can wake the sleeper.
 */
static int victim_rings_not(int sock, void *arg)
{
	death_t *d = arg;
	struct shmk_slot *slot;
	struct test_att a;

	CHILD_CHECK(!test_attach(d->pool, 0, 0, &a));
	CHILD_CHECK(!raw_queue_open(a.fd, "q", NULL, NULL));
	slot = test_slot(&a, d->queue, POS);
	test_entry(&a, 0, SHMK_WHAT(SHMK_OP_SENDING, BLOCK, GEN), SHMK_WHERE(d->queue, POS));
	STORE(test_block(&a, BLOCK), USED(0));
	STORE(&slot->p, P_BLOCK);
	CHILD_CHECK(__atomic_exchange_n(&test_ring(&a, d->queue)->waiters_recv, 0,
					__ATOMIC_SEQ_CST) == 1);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

TEST_F_TIMEOUT(death, sleeper_is_woken_for_a_publisher_that_died_before_it_rang, TIMEOUT)
{
	struct epoll_event ev = { .events = EPOLLIN };
	struct shmk_event event;
	struct test_child c;
	uint32_t peer, gen;
	int ep, side;

	prepare_ring(self);
	side = raw_queue_fd(self->me.fd, self->queue, SHMK_SIDE_RECV);
	ASSERT_LE(0, side);
	ep = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, side, &ev));
	EXPECT_EQ(1, LOAD(&test_ring(&self->me, self->queue)->waiters_recv));
	ASSERT_EQ(0, victim_start(&c, victim_rings_not, self, &peer, &gen));
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	ASSERT_EQ(0, kill(c.pid, SIGKILL));
	EXPECT_EQ(1, epoll_wait(ep, &ev, 1, PATIENCE_MS));
	EXPECT_EQ(EPOLLIN, ev.events);
	ASSERT_EQ(0, test_end_of(self->events, peer, gen, &event));
	EXPECT_NOTHING_HELD(event);
	EXPECT_EQ(SIGKILL, test_child_end(&c));
	close(ep);
	close(side);
}

/* ---- hostile victims ---- */

static uint64_t seed;

static uint64_t random64(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

enum garbage {
	ALL_ONES, RANDOM, RANDOM_IN_RANGE, HIGH_ONLY, OUT_OF_RANGE, NR_GARBAGE,
};

struct hostile_arg {
	death_t *d;
	enum garbage garbage;
	uint32_t nr_entries;
	uint64_t seed;
};

static uint64_t nasty(uint64_t *state)
{
	static const uint64_t values[] = { 0, 1, 2, 0x7f, 0xff, 0xffff, 0x10000, 0x7fffffff,
		0x80000000, 0xffffffff, ~0ULL, 1ULL << 47, 1ULL << 63 };

	return values[random64(state) % ARRAY_SIZE(values)];
}

static void write_garbage(struct test_att *a, const struct hostile_arg *h)
{
	uint64_t state = h->seed;
	uint32_t i;

	for (i = 0; i < h->nr_entries && h->garbage != HIGH_ONLY; i++) {
		struct shmk_entry e = { ~0ULL, ~0ULL };

		if (h->garbage == RANDOM)
			e = (struct shmk_entry){ random64(&state), random64(&state) };
		else if (h->garbage == RANDOM_IN_RANGE)
			e = (struct shmk_entry){
				SHMK_WHAT(random64(&state) % 16, random64(&state) % 1024,
					  random64(&state) % 2),
				SHMK_WHERE(random64(&state) % 17, random64(&state) % 64) };
		else if (h->garbage == OUT_OF_RANGE)
			e = (struct shmk_entry){
				SHMK_WHAT(random64(&state) & 15, nasty(&state) & 0xfffffff,
					  nasty(&state)),
				SHMK_WHERE(nasty(&state) & 0xffff, nasty(&state)) };
		a->ledger->entry[i] = e;
	}
	STORE(&a->ledger->high, ~0ULL);
}

static int victim_is_hostile(int sock, void *arg)
{
	struct hostile_arg *h = arg;
	struct test_att a;

	CHILD_CHECK(!test_attach(h->d->pool, 0, h->nr_entries, &a));
	CHILD_CHECK(!raw_queue_open(a.fd, "q", NULL, NULL));
	write_garbage(&a, h);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

/* Can the pool still do what a pool does? Its words may be anything, its kernel objects not. */
static void pool_works(struct __test_metadata *_metadata, death_t *self)
{
	struct shmk_pool_info info;
	struct test_att a;
	uint32_t id, gen;
	int side;

	ASSERT_EQ(0, raw_pool_info(self->pool, &info));
	ASSERT_EQ(0, test_attach(self->pool, 0, 0, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "after", 4, &id, &gen));
	side = raw_queue_fd(a.fd, id, SHMK_SIDE_RECV);
	ASSERT_LE(0, side);
	EXPECT_EQ(-ETIMEDOUT, test_poll(side, POLLIN, 0));
	STORE(&test_slot(&a, id, 0)->p, SHMK_P(0, SHMK_KIND_INLINE, 1));
	EXPECT_EQ(POLLIN, test_poll(side, POLLIN, PATIENCE_MS));
	close(side);
	EXPECT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_EQ(0, raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id, gen));
	EXPECT_EQ(0, raw_detach(a.fd));
	test_close(&a);
}

static void garbage_is_survived(struct __test_metadata *_metadata, death_t *self,
				uint32_t nr_entries, int rounds)
{
	struct hostile_arg h = { .d = self, .nr_entries = nr_entries };
	struct shmk_event event;
	struct test_child c;
	uint32_t peer, gen;
	uint64_t took = 0;
	int i;

	h.seed = seed;
	printf("# seed %llu\n", (unsigned long long)seed);
	for (i = 0; i < rounds; i++) {
		h.garbage = i % NR_GARBAGE;
		h.seed++;
		ASSERT_EQ(0, victim_start(&c, victim_is_hostile, &h, &peer, &gen));
		KILL(&c, peer, gen, &event);
		EXPECT_GE(nr_entries, event.blocks);
		if (event.took_ns > took)
			took = event.took_ns;
	}
	printf("# %u entries of garbage: at most %llu us to settle\n", nr_entries,
	       (unsigned long long)took / 1000);
	pool_works(_metadata, self);
}

TEST_F_TIMEOUT(death, garbage_in_a_ledger_harms_nobody, TIMEOUT)
{
	garbage_is_survived(_metadata, self, 4096, 4 * NR_GARBAGE);
}

TEST_F_TIMEOUT(death, garbage_in_the_largest_ledger_is_settled_in_bounded_time, TIMEOUT)
{
	garbage_is_survived(_metadata, self, SHMK_ENTRIES_MAX, NR_GARBAGE);
}

/* Full members may write all of control, at any time. */
static int scribbler(int sock, void *arg)
{
	death_t *d = arg;
	uint64_t state = seed, nr;
	struct test_att a;
	uint64_t *words;

	CHILD_CHECK(!test_attach(d->pool, 0, 0, &a));
	CHILD_CHECK(!raw_queue_open(a.fd, "q", NULL, NULL));
	words = (uint64_t *)a.control;
	nr = a.status->control_bytes / 8;
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	for (;;) {
		uint64_t at = random64(&state) % nr;

		/* Often where the ledgers of the others point. */
		if (state & 1)
			at = (a.status->blocks_off + state / 2 % 1024 * 16) / 8;
		else if (state & 2)
			at = (a.status->spans_off + state / 4 % 512 * 8) / 8;
		STORE(&words[at % nr], state & 4 ? random64(&state) : nasty(&state));
	}
	return 0;
}

TEST_F_TIMEOUT(death, control_scribbled_over_while_settling_harms_nobody, TIMEOUT)
{
	struct hostile_arg h = { .d = self, .nr_entries = 4096 };
	struct shmk_event event;
	struct test_child c, s;
	uint32_t peer, gen, speer, sgen;
	int i;

	h.seed = seed;
	printf("# seed %llu\n", (unsigned long long)seed);
	ASSERT_EQ(0, victim_start(&s, scribbler, self, &speer, &sgen));
	for (i = 0; i < 4 * NR_GARBAGE; i++) {
		h.garbage = i % NR_GARBAGE;
		h.seed++;
		ASSERT_EQ(0, victim_start(&c, victim_is_hostile, &h, &peer, &gen));
		KILL(&c, peer, gen, &event);
	}
	KILL(&s, speer, sgen, &event);
	pool_works(_metadata, self);
}

int main(int argc, char **argv)
{
	const char *s = getenv("SHMK_TEST_SEED");

	seed = s ? strtoull(s, NULL, 0) : test_now_ns();
	return test_harness_run(argc, argv);
}
