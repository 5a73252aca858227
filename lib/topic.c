// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * topic.c - one writes, many read.
 *
 * Vocabulary
 *   element  a part of the topic's own block: header and payload of one message.
 *   slot     P = (lap, ELEMENT e): the message of a position is in element e. A
 *            topic's slots never become empty again; what stands in them, all
 *            slots, is its history.
 *   hold     an entry in a reader's own ledger that names an element.
 *   row      where the writer learns of a reader and of its entries.
 *   free     neither in a slot nor held nor lent: the writer's private knowledge.
 *
 * What survivors see if the writer dies right after each store:
 *
 *   candidates[i] = me, ticket   free for anybody as soon as we are DEAD
 *   role_send = me               the role is another's as soon as we are DEAD
 *   header, payload of a free element   nothing: nobody reads it
 *   P: (lap', e') -> (lap, e)    published. e' is free once nobody holds it
 *   tail                         a hint, one behind at most
 *   waiters -> 0, bell           a settler rings all that the dead had open
 *
 * and a reader (L are entries of its ledger):
 *
 *   L[i] = HOLDING(e)            if P still names e: held. Else nobody knows yet
 *                                whether e is free, and the entry goes again. Until
 *                                then, or until it is settled, e is not used: no harm
 *   L[0].pos = next              its place; gone with it
 *   L[i] = NONE                  released
 *
 * So a death leaves nothing to repair; settling a reader's ledger and taking
 * its row away is all.
 *
 * Why the writer always finds a free element: nr_elements = slots + readers * holds
 * + 1 + spare. Why it does not take one that is held (hazard pointers; M. Michael,
 * "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects", 2004):
 *
 *   reader                         writer
 *     R1 p = P                       W1 P = another element
 *     R2 L[i] = HOLDING(e of p)      W2 full fence
 *     R3 full fence                  W3 L[i] == HOLDING(e)? then e is not free
 *     R4 P == p? then e is held
 *
 * If R4 does not see W1 then W3 sees R2. P never is the same again, because of
 * its lap (after 2^32 of them; who sleeps so long between R1 and R4 is beyond
 * this). A reader whose row the writer did not see in W3 subscribed after W2,
 * and R4 lets it hold only what is in a slot. A row that changes hands while
 * the writer looks: the new reader is such a one. A reader that releases and holds
 * the same element again by another entry can do so only while it is in a slot.
 *
 * One look at all holds (a scan) finds all free elements, at least 1 + spare, so there is a
 * scan for so many publications: with spare = readers * holds it is paid for by them. What is in
 * the slots the writer knows: it read them when it became the writer, and nobody else may write them.
 *
 * Copies need no hold: an element is written again only after it has left
 * its slot and a scan has passed, so if P is the same before and after
 * copying (R1, smp_rmb(), P again), the copy is of one message.
 *
 * Ordering, see Documentation/ordering.rst:
 *   T1  release of P by the writer, acquire by readers: header and payload.
 *   T2  the fences R3 and W2.
 *   T3  release of an entry (NONE) by the reader, acquire by the scan: all reads of
 *       the payload come before the next writing.
 *   T4  release of the position by a reader that is waited for, acquire by the writer:
 *       it has its hold, or its copy, before the slot may change.
 *   T5  W2 between the store of P and the next stores to the element that left,
 *       smp_rmb() between copying and the second look at P.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "topic.h"

#define TRIES		64	/* a reader's, when the writer laps it again and again */
#define SLOTS_MAX	SHMK_CAPACITY_MAX
#define LATE_SLICE_NS	1000000LL
#define TURN_NAP_NS	200000LL
#ifndef TURN_PATIENCE_NS	/* the explorer's time stands still */
#define TURN_PATIENCE_NS 1000000000LL	/* so long the role may stay free for who was first */
#endif

#define SLOTS_AHEAD	4	/* that a writer asks for before it needs them */
#define NO_ELEMENT	UINT32_MAX

static inline struct shmk_element *element_at(const struct shmk_topic *t, uint32_t element)
{
	return (struct shmk_element *)(t->elements + element * t->stride);
}

static inline struct shmk_slot *slot_at(const struct shmk_topic *t, uint64_t pos)
{
	return shmk_slot_at(&t->q.rv, pos);
}

static inline bool is_message(__u64 p, uint32_t lap)
{
	return SHMK_P_KIND(p) == SHMK_KIND_ELEMENT && SHMK_P_LAP(p) == lap;
}

/* The hint, and what was published behind it. */
static uint64_t tail_find(const struct shmk_topic *t)
{
	uint64_t pos = READ_ONCE(t->q.rv.ring->tail) & t->mask;
	uint32_t i;

	for (i = 0; i < 1U << t->q.rv.capacity_shift; i++, pos = (pos + 1) & t->mask)
		if (!is_message(smp_load_acquire(&slot_at(t, pos)->p), shmk_lap(&t->q.rv, pos)))
			break;
	return pos;
}

/* Only the living have a role; what the dead left is complete. */
static bool role_alive(struct shmk *s, __u64 role)
{
	return shmk_peer_alive(s, (uint32_t)role & 0xffff, (uint32_t)(role >> 32));
}

/* ---------------------------------------------------------------- rows -- */

/*
 * The ledger entries of a row's reader, or NULL. The row may change hands between
 * its word and its entry: then it is nobody's whom we must know.
 */
static const struct shmk_entry *row_entries(const struct shmk_topic *t, uint32_t i, __u64 *word)
{
	const struct shmk_row *row = &t->rows[i];
	const struct shmk *s = t->shmk;
	const struct shmk_ledger *ledger;
	uint32_t entry;

	*word = smp_load_acquire(&row->word);
	if (!*word)
		return NULL;
	entry = smp_load_acquire(&row->entry);
	if (READ_ONCE(row->word) != *word)
		return NULL;
	ledger = (const void *)(s->ledgers + SHMK_ROW_PEER(*word) * s->status->ledger_stride);
	return &ledger->entry[entry];
}

/* The position of a reader that the writer has to wait for. */
static bool row_waits(const struct shmk_topic *t, uint32_t i, uint64_t *pos)
{
	const struct shmk_entry *e;
	__u64 word;

	/* Most rows are of the other kind: the word alone tells. */
	if (SHMK_ROW_POLICY(READ_ONCE(t->rows[i].word)) != SHMK_TOPIC_WAIT)
		return false;
	e = row_entries(t, i, &word);
	if (!e || SHMK_ROW_POLICY(word) != SHMK_TOPIC_WAIT)
		return false;
	*pos = SHMK_WHERE_POS(smp_load_acquire(&e->where)) & t->mask;	/* T4 */
	return true;
}

static bool is_late(const struct shmk_topic *t, uint32_t i, uint64_t pos)
{
	return READ_ONCE(t->late[i]) == pos + 1;
}

/* The wait's question, and the kernel's: could the writer go on? */
static bool writer_ready(struct shmk_queue *q, uint32_t side)
{
	struct shmk_topic *t = (struct shmk_topic *)((char *)q - offsetof(struct shmk_topic, q));
	uint64_t pos, tail = READ_ONCE(q->rv.ring->tail);
	uint32_t i;

	(void)side;
	for (i = 0; i < t->nr_readers; i++)
		if (row_waits(t, i, &pos) && !is_late(t, i, pos) &&
		    !shmk_topic_room(&q->rv, t->depth, tail, pos))
			return false;
	return true;
}

static bool candidate_ready(struct shmk_queue *q, uint32_t side)
{
	__u64 role = READ_ONCE(q->rv.ring->role_send);

	(void)side;
	return role == role_name(q->shmk) || !role_alive(q->shmk, role);
}

/*
 * Looks at the rows only if there is a new one, or if the slowest reader that was
 * seen would be in the way, which it is once in @depth messages at most.
 */
static bool room(struct shmk_topic *t, uint64_t tail)
{
	uint64_t epoch = smp_load_acquire(&t->shmk->status->epoch), pos, behind, most = 0;
	uint32_t i;

	if (epoch == t->epoch &&
	    (!t->nr_wait || shmk_topic_room(&t->q.rv, t->depth, tail, t->slowest)))
		return true;
	t->nr_wait = 0;
	t->slowest = tail;
	for (i = 0; i < t->nr_readers; i++) {
		if (!row_waits(t, i, &pos))
			continue;
		t->nr_wait++;
		if (t->late[i] && !is_late(t, i, pos))
			WRITE_ONCE(t->late[i], 0);
		behind = (tail - pos) & t->mask;
		if (!t->late[i] && behind <= t->mask >> 1 && behind >= most) {
			most = behind;
			t->slowest = pos;
		}
	}
	t->epoch = epoch;
	return shmk_topic_room(&t->q.rv, t->depth, tail, t->slowest);
}

/*
 * Of those in the way: who has been waited for since @start as long as it wanted is
 * late from now on. Returns when the next one will be; *late: there are any.
 */
static int64_t late_mark(struct shmk_topic *t, int64_t start, int64_t now, bool *late)
{
	uint64_t pos, tail = t->q.rv.ring->tail;
	int64_t next = INT64_MAX, end;
	uint32_t i;

	*late = false;
	for (i = 0; i < t->nr_readers; i++) {
		int64_t wait_ns = (int64_t)READ_ONCE(t->rows[i].wait_ns);

		if (!row_waits(t, i, &pos) || shmk_topic_room(&t->q.rv, t->depth, tail, pos))
			continue;
		if (wait_ns && !is_late(t, i, pos)) {
			if (__builtin_add_overflow(start, wait_ns, &end))
				end = INT64_MAX;
			if (end <= now)
				WRITE_ONCE(t->late[i], pos + 1);
			else if (end < next)
				next = end;
		}
		*late |= is_late(t, i, pos);
	}
	return next;
}

/* ------------------------------------------------------ free elements -- */

static inline bool bit_get(const uint64_t *map, uint32_t bit)
{
	return map[bit >> 6] >> (bit & 63) & 1;
}

static inline void bit_set(uint64_t *map, uint32_t bit)
{
	map[bit >> 6] |= 1ULL << (bit & 63);
}

static inline void bit_clear(uint64_t *map, uint32_t bit)
{
	map[bit >> 6] &= ~(1ULL << (bit & 63));
}

static size_t map_bytes(const struct shmk_topic *t)
{
	return (t->nr_elements + 63) / 64 * sizeof(uint64_t);
}

static void mark(struct shmk_topic *t, uint32_t element)
{
	if (element < t->nr_elements)
		bit_set(t->used, element);
}

static void mark_holds(struct shmk_topic *t)
{
	const struct shmk_entry *e;
	uint32_t i, j;
	__u64 word, what;

	for (i = 0; i < t->nr_readers; i++) {
		e = row_entries(t, i, &word);
		if (!e)
			continue;
		for (j = 1; j <= t->nr_holds; j++) {
			what = smp_load_acquire(&e[j].what);	/* W3; T3 */
			if (SHMK_WHAT_OP(what) == SHMK_OP_HOLDING)
				mark(t, SHMK_WHAT_BLOCK(what));
		}
	}
}

/* All that are free: neither lent, nor in a slot, nor held by a reader. */
static void scan(struct shmk_topic *t)
{
	uint64_t unused;
	uint32_t i;

	memcpy(t->used, t->busy, map_bytes(t));
	smp_mb();						/* W2; T2, T5 */
	mark_holds(t);
	for (i = 0; i < t->nr_elements; i += 64) {
		unused = ~t->used[i / 64];
		if (t->nr_elements - i < 64)
			unused &= (1ULL << (t->nr_elements - i)) - 1;
		for (; unused; unused &= unused - 1)
			t->free[t->nr_free++] = i + (uint32_t)__builtin_ctzll(unused);
	}
	t->nr_scans++;
}

/*
 * What the slots name, for one who begins to write; from then on nobody else may change them, and
 * it knows without a look at their lines. Newest first: of two slots with one element, which
 * somebody wrote where nobody may, the one that goes last has it.
 */
static void shown_begin(struct shmk_topic *t)
{
	uint32_t i, at, slots = 1U << t->q.rv.capacity_shift;

	memset(t->busy, 0, map_bytes(t));
	for (i = 1; i <= slots; i++) {
		__u64 p;

		at = (uint32_t)(t->seq - 1 - i) & (slots - 1);
		p = READ_ONCE(slot_at(t, at)->p);
		t->shown[at] = NO_ELEMENT;
		if (SHMK_P_KIND(p) != SHMK_KIND_ELEMENT || SHMK_P_ARG(p) >= t->nr_elements ||
		    bit_get(t->busy, SHMK_P_ARG(p)))
			continue;
		t->shown[at] = SHMK_P_ARG(p);
		bit_set(t->busy, SHMK_P_ARG(p));
	}
}

/* A lent element is in the slot now, and what was there only its readers'. */
static void shown_change(struct shmk_topic *t, uint64_t pos, uint32_t element)
{
	uint32_t *shown = &t->shown[pos & ((1U << t->q.rv.capacity_shift) - 1)];

	if (*shown != NO_ELEMENT)
		bit_clear(t->busy, *shown);
	*shown = element;
}

static int element_get(struct shmk_topic *t, uint32_t *element)
{
	if (unlikely(!t->nr_free))
		scan(t);
	if (unlikely(!t->nr_free))
		return -EBUSY;
	*element = t->free[--t->nr_free];
	return 0;
}

/* What the next publication writes is on its last readers' processors: asked for now. */
static void publish_ahead(const struct shmk_topic *t)
{
	const struct shmk_element *e;

	prefetchw(slot_at(t, t->seq - 1 + SLOTS_AHEAD));
	if (!t->nr_free)
		return;
	e = element_at(t, t->free[t->nr_free - 1]);
	prefetchw(e);
	prefetchw(e + 1);
}

/* -------------------------------------------------------------- the role -- */

static void writer_free(struct shmk_topic *t)
{
	free(t->free);
	free(t->used);
	free(t->busy);
	free(t->lent);
	free(t->late);
	free(t->shown);
}

static int writer_alloc(struct shmk_topic *t)
{
	if (t->free)
		return 0;
	t->free = malloc(t->nr_elements * sizeof(*t->free));
	t->used = malloc(map_bytes(t));
	t->busy = malloc(map_bytes(t));
	t->lent = malloc(map_bytes(t));
	t->late = malloc(t->nr_readers * sizeof(*t->late));
	t->shown = malloc(sizeof(*t->shown) << t->q.rv.capacity_shift);
	if (t->free && t->used && t->busy && t->lent && t->late && t->shown)
		return 0;
	writer_free(t);
	t->free = t->shown = NULL;
	t->used = t->busy = t->lent = t->late = NULL;
	return -ENOMEM;
}

/* Where the one before has stopped stands in the slots. */
static int writer_begin(struct shmk_topic *t)
{
	uint64_t tail = tail_find(t), seq = 1;
	__u64 p = READ_ONCE(slot_at(t, tail - 1)->p);

	if (SHMK_P_KIND(p) == SHMK_KIND_ELEMENT) {
		if (SHMK_P_ARG(p) >= t->nr_elements)
			return -EUCLEAN;
		seq = READ_ONCE(element_at(t, SHMK_P_ARG(p))->seq) + 1;
	}
	if (((seq - 1) & t->mask) != tail)
		return -EUCLEAN;
	WRITE_ONCE(t->q.rv.ring->tail, tail);
	t->seq = seq;
	t->nr_free = 0;
	shown_begin(t);
	memset(t->lent, 0, map_bytes(t));
	memset(t->late, 0, t->nr_readers * sizeof(*t->late));
	t->epoch = UINT64_MAX;
	t->era++;
	t->writes = true;
	return 0;
}

/*
 * Who waits for the role has a place in the ring, a word that names it and its turn. A
 * death needs no repair: the name of a dead one is as good as 0. The role itself still is taken
 * by one CAS, so there is one writer whatever the places say; they only say who
 * holds back.
 */
static bool comes_before(__u64 a, uint32_t i, __u64 b, uint32_t j)
{
	int16_t ahead = (int16_t)(SHMK_CANDIDATE_TICKET(a) - SHMK_CANDIDATE_TICKET(b));

	return ahead < 0 || (!ahead && i < j);
}

static bool is_mine(const struct shmk_topic *t, __u64 word)
{
	return (word & ~0xffff0000ULL) == role_name(t->shmk);
}

/* Does a living one wait that was there before us? All were, if we have no place. */
static bool others_first(const struct shmk_topic *t)
{
	const __u64 *at = t->q.rv.ring->candidates;
	uint32_t i;

	for (i = 0; i < SHMK_CANDIDATES; i++) {
		__u64 word = smp_load_acquire(&at[i]);

		if (word && !is_mine(t, word) && role_alive(t->shmk, word) &&
		    (!t->place || comes_before(word, i, t->place, t->place_at)))
			return true;
	}
	return false;
}

/* Behind all that live. With all places taken we are behind those, in no order. */
static void place_take(struct shmk_topic *t)
{
	__u64 *at = t->q.rv.ring->candidates, word, last = 0, seen[SHMK_CANDIDATES];
	uint32_t i, end = 0;

	if (t->place)
		return;
	for (i = 0; i < SHMK_CANDIDATES; i++) {
		seen[i] = smp_load_acquire(&at[i]);
		if (!seen[i] || is_mine(t, seen[i]) || !role_alive(t->shmk, seen[i]))
			continue;
		if (!last || comes_before(last, end, seen[i], i)) {
			last = seen[i];
			end = i;
		}
	}
	word = role_name(t->shmk) | (__u64)((SHMK_CANDIDATE_TICKET(last) + 1) & 0xffff) << 16;
	for (i = 0; i < SHMK_CANDIDATES; i++) {
		if (seen[i] && !is_mine(t, seen[i]) && role_alive(t->shmk, seen[i]))
			continue;
		if (!cas(&at[i], seen[i], word))
			continue;
		t->place = word;
		t->place_at = i;
		return;
	}
}

static void place_leave(struct shmk_topic *t)
{
	if (t->place)
		cas(&t->q.rv.ring->candidates[t->place_at], t->place, 0);
	t->place = 0;
}

static void role_drop(struct shmk_topic *t)
{
	cas(&t->q.rv.ring->role_send, role_name(t->shmk), 0);
	wait_wake(&t->candidate, SHMK_SIDE_SEND);
}

/* -EBUSY: somebody has the role; -EALREADY: somebody else waits for it, and was first. */
static int writer_try(struct shmk_topic *t, bool in_turn)
{
	__u64 *at = &t->q.rv.ring->role_send, role = READ_ONCE(*at);
	struct shmk *s = t->shmk;
	int ret = pool_is_reset(s) ? -ESHUTDOWN : writer_alloc(t);

	if (ret || t->writes)
		return ret;
	if (queue_draining(&t->q))
		return -ESHUTDOWN;
	if (role_alive(s, role) && (s->backend->reap(s) <= 0 || role_alive(s, role)))
		return -EBUSY;
	if (in_turn && others_first(t) && (s->backend->reap(s) <= 0 || others_first(t)))
		return -EALREADY;
	/* Of several only one can: the names of the living differ, those of the dead do not return. */
	if (!cas(at, role, role_name(s)))
		return -EBUSY;
	ret = writer_begin(t);
	if (ret)
		role_drop(t);
	return ret;
}

static int writer_try_once(struct shmk_topic *t, bool waits, bool in_turn)
{
	bool locked = lock(&t->lock);
	int ret;

	if (waits)
		place_take(t);
	ret = writer_try(t, in_turn);
	if (!ret)
		place_leave(t);
	unlock(&t->lock, locked);
	return ret;
}

/*
 * -EALREADY: the role is free, but not for us: the one before us is just waking. It may be
 * stopped, not dead, so we hold back for a while only.
 */
static int writer_wait(struct shmk_topic *t, int64_t deadline)
{
	int64_t since = -1, now = 0;
	int ret;

	for (;;) {
		ret = writer_try_once(t, true, since < 0 || now - since < TURN_PATIENCE_NS);
		if (ret == -EALREADY) {
			now = now_ns();
			since = since < 0 ? now : since;
			ret = wait_nap(t->shmk, now + TURN_NAP_NS + (now - since) / 4, deadline);
		} else if (ret == -EBUSY) {
			since = -1;
			ret = wait_side(&t->candidate, SHMK_SIDE_SEND, deadline);
		} else {
			return ret;
		}
		if (ret)
			return ret;
	}
}

int shmk_topic_writer(struct shmk_topic *t, int64_t deadline)
{
	bool locked;
	int ret;

	if (t->shmk->rdonly)
		return -EROFS;
	ret = writer_try_once(t, false, true);
	if (ret == -EALREADY && deadline == SHMK_TRY)
		return -EBUSY;
	if ((ret != -EBUSY && ret != -EALREADY) || deadline == SHMK_TRY)
		return ret;
	ret = writer_wait(t, deadline);
	locked = lock(&t->lock);
	place_leave(t);
	unlock(&t->lock, locked);
	return ret;
}

void shmk_topic_writer_release(struct shmk_topic *t)
{
	bool locked = lock(&t->lock);

	if (t->writes) {
		t->writes = false;
		t->era++;
		role_drop(t);
	}
	unlock(&t->lock, locked);
}

/* ----------------------------------------------------------- publishing -- */

static int loan_locked(struct shmk_topic *t, struct shmk_loan *loan)
{
	uint32_t element;
	int ret;

	if (!t->writes)
		return -EPERM;
	if (queue_draining(&t->q))
		return -ESHUTDOWN;
	ret = element_get(t, &element);
	if (ret)
		return ret;
	bit_set(t->busy, element);
	bit_set(t->lent, element);
	*loan = (struct shmk_loan) {
		.data = element_at(t, element) + 1,
		.room = t->msg_bytes,
		.topic = t,
		.era = t->era,
		.element = element,
	};
	return 0;
}

int shmk_topic_loan(struct shmk_topic *t, struct shmk_loan *loan)
{
	bool locked;
	int ret;

	loan->data = NULL;
	if (t->shmk->rdonly)
		return -EROFS;
	locked = lock(&t->lock);
	ret = loan_locked(t, loan);
	unlock(&t->lock, locked);
	return ret;
}

static int loan_check(const struct shmk_topic *t, const struct shmk_loan *loan)
{
	if (!t->writes)
		return -EPERM;
	/* Of a copy of one that has been published or given back the element is not lent any more. */
	return loan->era == t->era && bit_get(t->lent, loan->element) ? 0 : -EINVAL;
}

void shmk_topic_unloan(struct shmk_loan *loan)
{
	struct shmk_topic *t = loan->topic;
	bool locked;

	if (!loan->data)
		return;
	locked = lock(&t->lock);
	if (!loan_check(t, loan)) {
		bit_clear(t->busy, loan->element);
		bit_clear(t->lent, loan->element);
		t->free[t->nr_free++] = loan->element;
	}
	unlock(&t->lock, locked);
	loan->data = NULL;
}

static void publish(struct shmk_topic *t, uint32_t element, size_t len)
{
	struct shmk_element *e = element_at(t, element);
	uint64_t pos = (t->seq - 1) & t->mask;

	WRITE_ONCE(e->seq, t->seq);
	WRITE_ONCE(e->len, len);
	WRITE_ONCE(e->writer, role_name(t->shmk));
	WRITE_ONCE(e->time_ns, (__u64)now_ns());
	smp_store_release(&slot_at(t, pos)->p,			/* W1; T1 */
			  SHMK_P(shmk_lap(&t->q.rv, pos), SHMK_KIND_ELEMENT, element));
	WRITE_ONCE(t->q.rv.ring->tail, (pos + 1) & t->mask);
	shown_change(t, pos, element);
	t->seq++;
	publish_ahead(t);
}

static int publish_locked(struct shmk_topic *t, struct shmk_loan *loan, size_t len)
{
	int ret = loan_check(t, loan);

	if (ret)
		return ret;
	if (pool_is_reset(t->shmk) || unlikely(queue_draining(&t->q)))
		return -ESHUTDOWN;
	if (!room(t, (t->seq - 1) & t->mask))
		return -EAGAIN;
	publish(t, loan->element, len);
	bit_clear(t->lent, loan->element);
	return 0;
}

static int try_publish(struct shmk_topic *t, struct shmk_loan *loan, size_t len)
{
	bool locked = lock(&t->lock);
	int ret = publish_locked(t, loan, len);

	unlock(&t->lock, locked);
	if (likely(!ret))
		wait_wake(&t->q, SHMK_SIDE_RECV);
	return ret;
}

/*
 * Readers are in the way. The fd of the module knows nothing of those that are late,
 * and would not wake for the others: then we look again every millisecond.
 */
static int wait_for_readers(struct shmk_topic *t, int64_t start, int64_t deadline)
{
	int64_t now = now_ns(), until;
	bool late, locked = lock(&t->lock);
	int ret;

	until = late_mark(t, start, now, &late);
	if (late)
		t->epoch = UINT64_MAX;
	unlock(&t->lock, locked);
	if (late && until > now + LATE_SLICE_NS)
		until = now + LATE_SLICE_NS;
	if (until >= deadline)
		return wait_side(&t->q, SHMK_SIDE_SEND, deadline);
	ret = wait_side(&t->q, SHMK_SIDE_SEND, until);
	return ret == -ETIMEDOUT ? 0 : ret;
}

int shmk_topic_publish(struct shmk_topic *t, struct shmk_loan *loan, size_t len,
		       int64_t deadline)
{
	int64_t start = 0;
	int ret;

	if (!loan->data || loan->topic != t)
		return -EINVAL;
	if (len > t->msg_bytes)
		return -EMSGSIZE;
	for (;;) {
		ret = try_publish(t, loan, len);
		if (likely(ret != -EAGAIN))
			break;
		if (deadline == SHMK_TRY)
			return ret;
		if (!start)
			start = now_ns();
		ret = wait_for_readers(t, start, deadline);
		if (ret)
			return ret;
	}
	if (!ret)
		loan->data = NULL;
	return ret;
}

int shmk_topic_publish_copy(struct shmk_topic *t, const void *buf, size_t len,
			    int64_t deadline)
{
	struct shmk_loan loan;
	int ret;

	if (len > t->msg_bytes)
		return -EMSGSIZE;
	ret = shmk_topic_loan(t, &loan);
	if (ret)
		return ret;
	memcpy(loan.data, buf, len);
	ret = shmk_topic_publish(t, &loan, len, deadline);
	if (ret)
		shmk_topic_unloan(&loan);
	return ret;
}

/* -------------------------------------------------------------- reading -- */

static inline struct shmk_entry *sub_entry(const struct shmk_sub *sub, uint32_t i)
{
	return entry_at(sub->topic->shmk, sub->entry + i);
}

static struct shmk_sub *sub_of(struct shmk_queue *q)
{
	return (struct shmk_sub *)((char *)q - offsetof(struct shmk_sub, q));
}

static bool reader_ready(struct shmk_queue *q, uint32_t side)
{
	(void)side;
	return shmk_topic_ready(&q->rv, sub_of(q)->pos);
}

static void asleep_set(struct shmk_sub *sub, bool asleep)
{
	if (sub->asleep == asleep)
		return;
	sub->asleep = asleep;
	WRITE_ONCE(sub_entry(sub, 0)->what,
		   SHMK_WHAT(SHMK_OP_HOLDING, SHMK_ELEMENT_NONE, asleep));
}

/* Before the waiters word: who swaps that to 0 then sees whom to ring for. */
static void reader_arming(struct shmk_queue *q, uint32_t side)
{
	(void)side;
	asleep_set(sub_of(q), true);
	smp_mb();
}

/* The reader has what it wanted before @pos. */
static void move_on(struct shmk_sub *sub, uint64_t pos)
{
	struct shmk_topic *t = sub->topic;

	sub->pos = pos & t->mask;
	smp_store_release(&sub_entry(sub, 0)->where,			/* T4 */
			  SHMK_WHERE(t->q.id, sub->pos));
	asleep_set(sub, false);
	if (sub->waited_for)
		wait_wake(&sub->q, SHMK_SIDE_SEND);
}

/* The slots have come round: on to the oldest that the topic keeps. */
static void skip(struct shmk_sub *sub)
{
	struct shmk_topic *t = sub->topic;
	uint64_t pos = (tail_find(t) - t->depth) & t->mask;
	uint64_t missed = (pos - sub->pos) & t->mask;

	if (missed > t->mask >> 1)
		return;
	sub->dropped += missed;
	move_on(sub, pos);
}

/* P of the next message. -EAGAIN: there is none yet. */
static int next_p(struct shmk_sub *sub, __u64 *p)
{
	struct shmk_topic *t = sub->topic;
	int tries;

	if (pool_is_reset(t->shmk))
		return -ESHUTDOWN;
	for (tries = 0; tries < TRIES; tries++) {
		uint32_t lap = shmk_lap(&t->q.rv, sub->pos);

		*p = smp_load_acquire(&slot_at(t, sub->pos)->p);	/* R1; T1 */
		if (is_message(*p, lap))
			return 0;
		if (SHMK_P_KIND(*p) != SHMK_KIND_ELEMENT || (__s32)(SHMK_P_LAP(*p) - lap) < 0)
			return -EAGAIN;
		skip(sub);
	}
	return -EAGAIN;
}

/* P of the last message, and its position. */
static int last_p(const struct shmk_topic *t, uint64_t *pos, __u64 *p)
{
	int tries;

	if (pool_is_reset(t->shmk))
		return -ESHUTDOWN;
	for (tries = 0; tries < TRIES; tries++) {
		*pos = (tail_find(t) - 1) & t->mask;
		*p = smp_load_acquire(&slot_at(t, *pos)->p);		/* R1; T1 */
		if (SHMK_P_KIND(*p) != SHMK_KIND_ELEMENT)
			return -EAGAIN;
		if (SHMK_P_LAP(*p) == shmk_lap(&t->q.rv, *pos))
			return 0;
	}
	return -EAGAIN;
}

/* Of an element that is held, or that is being copied; true or not will be seen. */
static int held_fill(const struct shmk_topic *t, __u64 p, struct shmk_held *held)
{
	const struct shmk_element *e;
	uint64_t writer;

	*held = (struct shmk_held) { .data = NULL };
	if (SHMK_P_ARG(p) >= t->nr_elements)
		return -EUCLEAN;
	e = element_at(t, SHMK_P_ARG(p));
	writer = READ_ONCE(e->writer);
	held->len = (size_t)READ_ONCE(e->len);
	held->seq = READ_ONCE(e->seq);
	held->time_ns = (int64_t)READ_ONCE(e->time_ns);
	held->writer = (uint32_t)writer & 0xffff;
	held->writer_gen = (uint32_t)(writer >> 32);
	return held->len > t->msg_bytes ? -EUCLEAN : 0;
}

static void held_finish(const struct shmk_topic *t, struct shmk_held *held)
{
	held->writer_alive = shmk_peer_alive(t->shmk, held->writer, held->writer_gen);
}

static int hold_find(const struct shmk_sub *sub, uint32_t *i)
{
	for (*i = 0; *i < sub->topic->nr_holds; ++*i)
		if (!bit_get(sub->held, *i))
			return 0;
	return -EBUSY;
}

/* -ESTALE: the writer was faster. */
static int hold(struct shmk_sub *sub, uint32_t i, uint64_t pos, __u64 p, struct shmk_held *held)
{
	struct shmk_topic *t = sub->topic;
	struct shmk_entry *entry = sub_entry(sub, 1 + i);
	int ret = -ESTALE;

	/* Their lines come while the fence waits; what is in P has not been looked at yet. */
	__builtin_prefetch(element_at(t, SHMK_P_ARG(p)));
	__builtin_prefetch(element_at(t, SHMK_P_ARG(p)) + 1);
	WRITE_ONCE(entry->what, SHMK_WHAT(SHMK_OP_HOLDING, SHMK_P_ARG(p), SHMK_P_LAP(p))); /* R2 */
	smp_mb();							/* R3; T2 */
	if (READ_ONCE(slot_at(t, pos)->p) == p)				/* R4 */
		ret = held_fill(t, p, held);
	if (ret) {
		smp_store_release(&entry->what, SHMK_OP_NONE);
		return ret;
	}
	bit_set(sub->held, i);
	held->data = element_at(t, SHMK_P_ARG(p)) + 1;
	held->sub = sub;
	held->entry = i;
	held->dropped = sub->dropped;
	held_finish(t, held);
	sub->received++;
	return 0;
}

static int try_take(struct shmk_sub *sub, struct shmk_held *held)
{
	uint32_t i;
	int ret = hold_find(sub, &i), tries;
	__u64 p;

	for (tries = 0; !ret && tries < TRIES; tries++) {
		ret = next_p(sub, &p);
		if (ret)
			return ret;
		ret = hold(sub, i, sub->pos, p, held);
		if (!ret)
			move_on(sub, sub->pos + 1);
		if (ret != -ESTALE)
			return ret;
		ret = 0;
	}
	return ret ? ret : -EAGAIN;
}

int shmk_topic_take(struct shmk_sub *sub, struct shmk_held *held, int64_t deadline)
{
	int ret;

	held->data = NULL;
	for (;;) {
		ret = try_take(sub, held);
		if (likely(ret != -EAGAIN))
			return ret;
		ret = wait_side(&sub->q, SHMK_SIDE_RECV, deadline);
		if (ret)
			return ret;
	}
}

int shmk_topic_take_last(struct shmk_sub *sub, struct shmk_held *held)
{
	struct shmk_topic *t = sub->topic;
	uint32_t i;
	int ret = hold_find(sub, &i), tries;
	uint64_t pos;
	__u64 p;

	held->data = NULL;
	for (tries = 0; !ret && tries < TRIES; tries++) {
		ret = last_p(t, &pos, &p);
		if (ret)
			return ret;
		ret = hold(sub, i, pos, p, held);
		if (!ret)
			move_on(sub, pos + 1);
		if (ret != -ESTALE)
			return ret;
		ret = 0;
	}
	return ret ? ret : -EAGAIN;
}

int shmk_topic_release(struct shmk_held *held)
{
	struct shmk_sub *sub = held->sub;

	if (!held->data)
		return -EINVAL;
	smp_store_release(&sub_entry(sub, 1 + held->entry)->what, SHMK_OP_NONE);	/* T3 */
	bit_clear(sub->held, held->entry);
	held->data = NULL;
	return 0;
}

/* -ESTALE: it was overwritten meanwhile, and what was copied is worth nothing. */
static int copy(const struct shmk_topic *t, uint64_t pos, __u64 p, void *buf, size_t room,
		struct shmk_held *held)
{
	int ret = held_fill(t, p, held);

	if (!ret && held->len > room)
		ret = -EMSGSIZE;
	if (!ret)
		memcpy(buf, element_at(t, SHMK_P_ARG(p)) + 1, held->len);
	smp_rmb();							/* T5 */
	if (READ_ONCE(slot_at(t, pos)->p) != p)
		return -ESTALE;
	if (!ret)
		held_finish(t, held);
	return ret;
}

static int try_read(struct shmk_sub *sub, void *buf, size_t room, struct shmk_held *held)
{
	int ret, tries;
	__u64 p;

	for (tries = 0; tries < TRIES; tries++) {
		ret = next_p(sub, &p);
		if (ret)
			return ret;
		ret = copy(sub->topic, sub->pos, p, buf, room, held);
		if (ret == -ESTALE)
			continue;
		held->dropped = sub->dropped;
		if (!ret) {
			sub->received++;
			move_on(sub, sub->pos + 1);
		}
		return ret;
	}
	return -EAGAIN;
}

int64_t shmk_topic_read(struct shmk_sub *sub, void *buf, size_t room, struct shmk_held *held,
			int64_t deadline)
{
	struct shmk_held mine;
	int ret;

	if (!held)
		held = &mine;
	for (;;) {
		ret = try_read(sub, buf, room, held);
		if (likely(!ret))
			return (int64_t)held->len;
		if (ret != -EAGAIN)
			return ret;
		ret = wait_side(&sub->q, SHMK_SIDE_RECV, deadline);
		if (ret)
			return ret;
	}
}

int64_t shmk_topic_read_last(struct shmk_topic *t, void *buf, size_t room,
			     struct shmk_held *held)
{
	struct shmk_held mine;
	int ret, tries;
	uint64_t pos;
	__u64 p;

	if (!held)
		held = &mine;
	for (tries = 0; tries < TRIES; tries++) {
		ret = last_p(t, &pos, &p);
		if (ret)
			return ret;
		ret = copy(t, pos, p, buf, room, held);
		if (ret != -ESTALE)
			return ret ? ret : (int64_t)held->len;
	}
	return -EAGAIN;
}

/* -------------------------------------------------------- subscriptions -- */

static void queue_init(struct shmk_queue *q, const struct shmk_queue *like,
		       bool (*ready)(struct shmk_queue *q, uint32_t side), uint32_t row)
{
	*q = (struct shmk_queue) {
		.shmk = like->shmk, .rv = like->rv, .word = like->word, .id = like->id, .gen = like->gen,
		.flags = like->flags, .row = row, .ready = ready,
		.side = { { .fd = -1 }, { .fd = -1 } },
	};
}

static uint64_t start_pos(const struct shmk_topic *t, uint32_t start)
{
	uint64_t tail = tail_find(t), pos = tail - (start == SHMK_START_LAST ? 1 : t->depth);

	if (start == SHMK_START_NEW)
		return tail;
	/* Not so many were ever published: then we are in the first lap. */
	if (SHMK_P_KIND(READ_ONCE(slot_at(t, pos)->p)) != SHMK_KIND_ELEMENT)
		return 0;
	return pos & t->mask;
}

/* In what the writer reads of us there is something before it can look. */
static void entries_begin(struct shmk_sub *sub, uint64_t pos)
{
	struct shmk *s = sub->topic->shmk;
	uint32_t i, id = sub->topic->q.id;

	for (i = 1; i <= sub->topic->nr_holds; i++)
		entry_set(s, sub->entry + i, SHMK_OP_NONE, SHMK_WHERE(id, 0));
	entry_set(s, sub->entry, SHMK_WHAT(SHMK_OP_HOLDING, SHMK_ELEMENT_NONE, 0),
		  SHMK_WHERE(id, pos));
	sub->pos = pos;
}

static void entries_put(struct shmk_sub *sub)
{
	uint32_t i;

	for (i = 0; i <= sub->topic->nr_holds; i++)
		entry_put(sub->topic->shmk, sub->entry + i);
}

static int row_get(struct shmk_sub *sub, const struct shmk_sub_opts *opts)
{
	struct shmk_topic *t = sub->topic;
	struct shmk_topic_subscribe arg = {
		.size = sizeof(arg),
		.id = t->q.id,
		.gen = t->q.gen,
		.policy = opts->wait ? SHMK_TOPIC_WAIT : SHMK_TOPIC_SKIP,
		.entry = sub->entry,
		.wait_ns = (__u64)opts->wait_ns,
	};
	int ret = t->shmk->backend->topic_subscribe(t->shmk, &arg);

	sub->q.row = arg.row;
	return ret;
}

static int subscribe(struct shmk_sub *sub, const struct shmk_sub_opts *opts)
{
	struct shmk_topic *t = sub->topic;
	int ret = entries_get(t->shmk, 1 + t->nr_holds, &sub->entry);

	if (ret)
		return ret;
	entries_begin(sub, start_pos(t, opts->start));
	ret = row_get(sub, opts);
	if (ret) {
		entries_put(sub);
		return ret;
	}
	/* Now the writer knows us; what came before that is not for us to miss. */
	move_on(sub, start_pos(t, opts->start));
	return 0;
}

static int sub_opts_check(const struct shmk_topic *t, const struct shmk_sub_opts *opts)
{
	if (opts->start > SHMK_START_OLDEST || opts->wait_ns < 0 ||
	    (opts->wait_ns && !opts->wait))
		return -EINVAL;
	return opts->wait && t->shmk->rdonly ? -EROFS : 0;
}

static void *line_alloc(size_t size)
{
	size_t bytes = (size + SHMK_LINE - 1) & ~(size_t)(SHMK_LINE - 1);
	void *p = aligned_alloc(SHMK_LINE, bytes);

	if (p)
		memset(p, 0, bytes);
	return p;
}

int shmk_topic_subscribe(struct shmk_topic *t, const struct shmk_sub_opts *opts,
			 struct shmk_sub **out)
{
	static const struct shmk_sub_opts defaults;
	struct shmk_sub *sub;
	bool locked;
	int ret;

	if (!opts)
		opts = &defaults;
	*out = NULL;
	ret = sub_opts_check(t, opts);
	if (ret)
		return ret;
	sub = line_alloc(sizeof(*sub));
	if (!sub)
		return -ENOMEM;
	sub->topic = t;
	sub->waited_for = opts->wait;
	queue_init(&sub->q, &t->q, reader_ready, ROW_NONE);
	sub->q.arming = reader_arming;
	ret = subscribe(sub, opts);
	if (ret) {
		free(sub);
		return ret;
	}
	locked = lock(&t->shmk->lock);
	sub->next = t->subs;
	t->subs = sub;
	unlock(&t->shmk->lock, locked);
	*out = sub;
	return 0;
}

/* The row first: then the writer does not look at entries that are another's. */
void shmk_topic_unsubscribe(struct shmk_sub *sub)
{
	struct shmk_topic *t;
	struct shmk_sub **at;
	bool locked;

	if (!sub)
		return;
	t = sub->topic;
	locked = lock(&t->shmk->lock);
	for (at = &t->subs; *at && *at != sub; at = &(*at)->next)
		;
	if (*at)
		*at = sub->next;
	unlock(&t->shmk->lock, locked);
	wait_forget(&sub->q);
	t->shmk->backend->topic_unsubscribe(t->shmk, t->q.id, sub->q.row);
	if (sub->waited_for)
		wait_wake(&sub->q, SHMK_SIDE_SEND);
	entries_put(sub);
	free(sub);
}

int shmk_sub_stats(struct shmk_sub *sub, struct shmk_sub_stats *stats)
{
	uint64_t behind = (tail_find(sub->topic) - sub->pos) & sub->topic->mask;

	*stats = (struct shmk_sub_stats) {
		.received = sub->received,
		.dropped = sub->dropped,
		.behind = behind > sub->topic->mask >> 1 ? 0 : behind,
	};
	return 0;
}

int shmk_sub_fd(struct shmk_sub *sub)
{
	struct shmk *s = sub->topic->shmk;

	/* It could not make the writer ring. */
	if (s->rdonly && s->backend->wait_slice_ns != INT64_MAX)
		return -EOPNOTSUPP;
	return side_export(&sub->q, SHMK_SIDE_RECV);
}

/* -------------------------------------------------------------- handles -- */

static uint32_t slots_for(uint32_t depth)
{
	uint32_t slots = SHMK_TOPIC_SLOTS_MIN;

	while (slots < depth)
		slots *= 2;
	return slots;
}

static int opts_check(const struct shmk_topic_opts *opts)
{
	if (opts->flags & ~(uint32_t)(SHMK_TOPIC_CREATE | SHMK_TOPIC_EXCL | SHMK_TOPIC_TRANSIENT))
		return -EINVAL;
	if ((opts->flags & SHMK_TOPIC_EXCL) && !(opts->flags & SHMK_TOPIC_CREATE))
		return -EINVAL;
	if (opts->depth > SLOTS_MAX || opts->nr_readers > SHMK_TOPIC_READERS_MAX ||
	    opts->nr_holds > SHMK_TOPIC_HOLDS_MAX || opts->msg_bytes > SHMK_TOPIC_MSG_MAX ||
	    opts->spare >= SHMK_ELEMENT_NONE / 2)
		return -EINVAL;
	return 0;
}

/* The block is made here and handed over; if that fails it is still ours. */
static int topic_make(struct shmk *s, struct queue_find *f)
{
	const struct shmk_topic_opts *opts = f->opts;
	struct shmk_queue_create arg = {
		.size = sizeof(arg),
		.flags = SHMK_QUEUE_F_TOPIC |
			 (opts->flags & SHMK_TOPIC_TRANSIENT ? SHMK_QUEUE_F_TRANSIENT : 0),
		.slot_bytes = SHMK_SLOT_MIN,
		.nr_readers = opts->nr_readers ? opts->nr_readers : 16,
		.nr_holds = opts->nr_holds ? opts->nr_holds : 1,
		.depth = opts->depth ? opts->depth : 1,
		.msg_bytes = opts->msg_bytes ? opts->msg_bytes : 1024,
	};
	uint32_t holds = arg.nr_readers * arg.nr_holds;
	struct shmk_msg msg;
	int ret = queue_name_copy(arg.name, f->name);

	if (ret)
		return ret;
	arg.capacity = slots_for(arg.depth);
	arg.nr_elements = arg.capacity + holds + 1 + (opts->spare ? opts->spare : holds);
	ret = shmk_alloc(s, arg.nr_elements * SHMK_TOPIC_STRIDE(arg.msg_bytes), 0, &msg);
	if (ret)
		return ret;
	arg.block = msg.block;
	arg.block_gen = msg.gen;
	ret = s->backend->queue_create(s, &arg);
	/* Undone by the kernel after it had been taken over: then it is free already. */
	if (ret && READ_ONCE(s->view.blocks[msg.block].word) ==
		   SHMK_BLOCK_WORD(msg.gen, SHMK_BLOCK_USED))
		shmk_free(&msg);
	else
		entry_put(s, msg.entry);
	f->id = arg.id;
	f->gen = arg.gen;
	return ret;
}

static struct shmk_topic *topic_new(struct shmk *s, uint32_t id, uint32_t gen)
{
	const struct shmk_queue_status *st = queue_status(s, id);
	struct shmk_topic *t = line_alloc(sizeof(*t));
	struct shmk_queue q = {
		.shmk = s, .id = id, .gen = gen, .flags = SHMK_QUEUE_FLAGS(st->word),
		.word = &st->word,
	};

	if (!t)
		return NULL;
	s->view.queue(&s->view, id, &q.rv);
	queue_init(&t->q, &q, writer_ready, ROW_NONE);
	queue_init(&t->candidate, &q, candidate_ready, ROW_CANDIDATE);
	t->shmk = s;
	t->elements = block_data(s, st->block);
	t->stride = SHMK_TOPIC_STRIDE(st->msg_bytes);
	t->mask = (1ULL << (32 + q.rv.capacity_shift)) - 1;
	t->msg_bytes = st->msg_bytes;
	t->nr_elements = st->nr_elements;
	t->depth = st->depth;
	t->first_row = st->first_row;
	t->nr_readers = st->nr_readers;
	t->nr_holds = st->nr_holds;
	t->rows = (const struct shmk_row *)((const char *)s->status + s->status->rows_off) +
		  st->first_row;
	t->nr_open = 1;
	t->lock.none = s->lock.none;
	return t;
}

/* One handle per topic and attachment, as the writer's role is the peer's. */
static int topic_handle(struct shmk *s, uint32_t id, uint32_t gen, struct shmk_topic **out)
{
	bool locked = lock(&s->lock);
	struct shmk_topic *t;

	for (t = s->topics; t && (t->q.id != id || t->q.gen != gen); t = t->next)
		;
	if (t) {
		t->nr_open++;
	} else {
		t = topic_new(s, id, gen);
		if (t) {
			t->next = s->topics;
			s->topics = t;
		}
	}
	unlock(&s->lock, locked);
	*out = t;
	return t ? 0 : -ENOMEM;
}

int shmk_topic_open(struct shmk *s, const char *name, const struct shmk_topic_opts *opts,
		    int64_t deadline, struct shmk_topic **out)
{
	static const struct shmk_topic_opts defaults;
	struct queue_find f = { .name = name, .make = topic_make };
	int ret;

	f.opts = opts ? opts : &defaults;
	f.flags = opts ? opts->flags : 0;	/* SHMK_TOPIC_CREATE is SHMK_QUEUE_CREATE */
	*out = NULL;
	ret = opts ? opts_check(opts) : 0;
	if (!ret)
		ret = queue_open_named(s, &f, deadline);
	if (ret)
		return ret;
	if (!(SHMK_QUEUE_FLAGS(queue_status(s, f.id)->word) & SHMK_QUEUE_F_TOPIC))
		ret = -EINVAL;
	else
		ret = topic_handle(s, f.id, f.gen, out);
	if (ret)
		s->backend->queue_close(s, f.id, f.gen);
	return ret;
}

static void topic_free(struct shmk_topic *t)
{
	writer_free(t);
	free(t);
}

void shmk_topic_close(struct shmk_topic *t)
{
	struct shmk *s;
	struct shmk_topic **at;
	uint32_t id, gen;
	bool locked, last;

	if (!t)
		return;
	s = t->shmk;
	id = t->q.id;
	gen = t->q.gen;
	locked = lock(&s->lock);
	last = --t->nr_open == 0;
	for (at = &s->topics; last && *at; at = &(*at)->next) {
		if (*at == t) {
			*at = t->next;
			break;
		}
	}
	unlock(&s->lock, locked);
	if (last) {
		while (t->subs)
			shmk_topic_unsubscribe(t->subs);
		shmk_topic_writer_release(t);
		wait_forget(&t->q);
		wait_forget(&t->candidate);
	}
	s->backend->queue_close(s, id, gen);
	if (last)
		topic_free(t);
}

static void sides_close(struct shmk_queue *q)
{
	int side;

	for (side = 0; side < 2; side++)
		if (q->side[side].fd >= 0)
			close(q->side[side].fd);
}

/* As queues_forget(): memory and file descriptors only. */
void topics_forget(struct shmk *s)
{
	struct shmk_topic *t;
	struct shmk_sub *sub;

	while ((t = s->topics)) {
		s->topics = t->next;
		while ((sub = t->subs)) {
			t->subs = sub->next;
			sides_close(&sub->q);
			free(sub);
		}
		sides_close(&t->q);
		sides_close(&t->candidate);
		topic_free(t);
	}
}

int shmk_topic_stats(struct shmk_topic *t, struct shmk_topic_stats *stats)
{
	__u64 role = READ_ONCE(t->q.rv.ring->role_send);
	struct shmk_held held;
	uint32_t i;

	*stats = (struct shmk_topic_stats) {
		.id = t->q.id,
		.gen = t->q.gen,
		.depth = t->depth,
		.nr_readers = t->nr_readers,
		.nr_holds = t->nr_holds,
		.msg_bytes = t->msg_bytes,
		.nr_elements = t->nr_elements,
		.my_scans = t->nr_scans,
	};
	memcpy(stats->name, queue_status(t->shmk, t->q.id)->name, sizeof(stats->name) - 1);
	for (i = 0; i < t->nr_readers; i++)
		stats->nr_subs += READ_ONCE(t->rows[i].word) != 0;
	if (shmk_topic_read_last(t, NULL, 0, &held) != -EAGAIN)
		stats->published = held.seq;
	if (role_alive(t->shmk, role)) {
		stats->writer = (uint32_t)role & 0xffff;
		stats->writer_gen = (uint32_t)(role >> 32);
	}
	return 0;
}
