// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * share.c - one payload in several hands and queues.
 *
 * No counter: a counter cannot tell whether the dead had already counted. A
 * block whose holder wants a second reference becomes an inner node with two
 * children, small blocks of their own, each a reference that is held, sent,
 * received and freed like any block. Sharing a reference splits it in turn. The
 * leaves of the tree are the references, each in one ledger or one slot; the
 * root is the payload. The words are in shmk_layout.h.
 *
 * What survivors see if the writer dies right after each store; E, L, R are the
 * ledger's entries of the block r and of the children l and r', all of one peer:
 *
 *   split (r, g)
 *     L = HELD(l), l: FREE -> USED          freed; R likewise
 *     l.len = g                             the same
 *     l: USED -> REF left of r              its parent is not inner: just freed
 *     L = GOT(l), if E was GOT              the same, and E counts the lost message:
 *                                           a reference counts only if it is taken
 *                                           out of a tree
 *     r: held(g) -> INNER both(g)           L and R drop l and r', the last one frees r;
 *                                           E names what nobody holds: nothing. L counts
 *     E = NONE                              done
 *
 *   drop (l, h), a child of p, p of (q, ...)     shmk_block_put() in settle.c
 *     p: both -> only right                 again: l is no child of p any more; freed
 *   or, when it is the last one of p, the same of p first (q: both -> ..., or up
 *   to the root), then from above
 *     root: -> FREE, ..., p: -> FREE        again: goes up as far as parents are there,
 *                                           frees what is left below
 *     l: REF(h) -> FREE(h + 1)              hints only
 *     entry = NONE                          done
 *
 *   take the parent's place, (l, h) being its only child left
 *     M = HELD(p, g + 1)                    p is INNER(g): nothing
 *     p: INNER only left(g) -> held(g + 1)  M frees p; l is no child of p any more
 *     l: REF -> FREE, entry = NONE          done
 *
 * The generation grows in the last one because somebody's entry may still name
 * (p, g): who split it, and died before his last store.
 *
 * Ordering: C1 in settle.c, by the parent's word: who finds that he has the last
 * reference sees all reads and writes of the others before they dropped theirs.
 */
#include "internal.h"

struct child {
	uint32_t	block, gen, entry;
};

static __u64 *word_of(struct shmk *s, uint32_t block)
{
	return &s->view.blocks[block].word;
}

bool plainly_held(const struct shmk_msg *msg)
{
	uint32_t op = SHMK_WHAT_OP(READ_ONCE(entry_at(msg->shmk, msg->entry)->what));

	return op == SHMK_OP_HELD || op == SHMK_OP_GOT;
}

/* -------------------------------------------------- the parent's place -- */

static __u64 word_in_place(__u64 inner)
{
	static const uint8_t state[] = {
		SHMK_BLOCK_USED, SHMK_BLOCK_REF_LEFT, SHMK_BLOCK_REF_RIGHT,
	};

	return SHMK_BLOCK_UP_WORD(SHMK_BLOCK_GEN(inner) + 1, SHMK_BLOCK_UP(inner),
				  state[shmk_block_place(inner)]);
}

/* One step up, if the parent has no other child. */
static bool climb_locked(struct shmk_msg *msg)
{
	struct shmk *s = msg->shmk;
	uint32_t up, entry;
	__u64 word, up_word;

	word = READ_ONCE(*word_of(s, msg->block));
	if (!shmk_block_held_as(word, msg->gen) || !plainly_held(msg) ||
	    !shmk_block_parent(&s->view, msg->block, word, &up, &up_word) ||
	    shmk_inner_both(up_word) || entry_get_locked(s, &entry))
		return false;
	entry_set(s, entry, SHMK_WHAT(msg_received(msg) ? SHMK_OP_GOT : SHMK_OP_HELD, up,
				      SHMK_BLOCK_GEN(up_word) + 1), msg->from);
	if (!cas(word_of(s, up), up_word, word_in_place(up_word))) {
		entry_put_locked(s, entry);
		return false;
	}
	block_free_locked(s, msg->block, msg->gen, msg->entry);
	msg->block = up;
	msg->gen = SHMK_BLOCK_GEN(up_word) + 1;
	msg->entry = entry;
	return true;
}

bool share_alone(struct shmk_msg *msg)
{
	struct shmk *s = msg->shmk;
	bool locked;

	if (likely(shmk_block_plain(READ_ONCE(*word_of(s, msg->block)))))
		return true;
	locked = lock(&s->lock);
	while (climb_locked(msg))
		;
	unlock(&s->lock, locked);
	return shmk_block_plain(READ_ONCE(*word_of(s, msg->block)));
}

/* ------------------------------------------------------------ splitting -- */

static uint32_t depth_of(struct shmk *s, uint32_t block, __u64 word)
{
	uint32_t depth = 0;
	__u64 up_word;

	while (depth <= SHMK_SHARE_DEPTH &&
	       shmk_block_parent(&s->view, block, word, &block, &up_word)) {
		word = up_word;
		depth++;
	}
	return depth;
}

static int child_get(struct shmk *s, struct child *c)
{
	int ret = entry_get_locked(s, &c->entry);

	if (ret)
		return ret;
	ret = block_alloc_locked(s, CHILD_BYTES, 0, c->entry, &c->block, &c->gen);
	if (ret)
		entry_put_locked(s, c->entry);
	return ret;
}

static void child_drop(struct shmk *s, struct child *c)
{
	block_free_locked(s, c->block, c->gen, c->entry);
}

/* Not yet a child of @parent, which is not INNER, but ready to be. */
static void child_hang(struct shmk *s, struct child *c, const struct shmk_msg *parent,
		       uint32_t state)
{
	WRITE_ONCE(s->view.blocks[c->block].len, parent->gen);
	barrier();
	WRITE_ONCE(*word_of(s, c->block), SHMK_BLOCK_UP_WORD(c->gen, parent->block, state));
	barrier();
}

static void child_give(struct shmk *s, const struct child *c, struct shmk_msg *msg)
{
	msg->shmk = s;
	msg->block = c->block;
	msg->gen = c->gen;
	msg->entry = c->entry;
	msg->kind = SHMK_KIND_BLOCK;
}

static int split_locked(struct shmk_msg *msg, __u64 word, struct child *left, struct child *right)
{
	struct shmk *s = msg->shmk;
	__u64 inner = SHMK_BLOCK_UP_WORD(msg->gen, SHMK_BLOCK_UP(word),
					 SHMK_INNER_STATE(shmk_block_place(word),
							  SHMK_CHILDREN_BOTH));

	if (shmk_block_plain(word))
		WRITE_ONCE(s->view.blocks[msg->block].len, msg->len);
	child_hang(s, left, msg, SHMK_BLOCK_REF_LEFT);
	child_hang(s, right, msg, SHMK_BLOCK_REF_RIGHT);
	if (msg_received(msg))
		entry_set(s, left->entry, SHMK_WHAT(SHMK_OP_GOT, left->block, left->gen),
			  msg->from);
	if (!cas(word_of(s, msg->block), word, inner))				/* C1 */
		return -EUCLEAN;
	entry_put_locked(s, msg->entry);
	return 0;
}

static int share_locked(struct shmk_msg *msg, struct shmk_msg *other)
{
	struct shmk *s = msg->shmk;
	struct child left, right;
	__u64 word;
	int ret;

	if (!plainly_held(msg))
		return -EBUSY;
	while (climb_locked(msg))
		;
	word = READ_ONCE(*word_of(s, msg->block));
	if (!shmk_block_held_as(word, msg->gen))
		return -EUCLEAN;
	if (depth_of(s, msg->block, word) >= SHMK_SHARE_DEPTH)
		return -EMLINK;
	ret = child_get(s, &left);
	if (ret)
		return ret;
	ret = child_get(s, &right);
	if (!ret) {
		ret = split_locked(msg, word, &left, &right);
		if (ret)
			child_drop(s, &right);
	}
	if (ret) {
		child_drop(s, &left);
		return ret;
	}
	child_give(s, &left, msg);
	child_give(s, &right, other);
	return 0;
}

static int try_share(struct shmk_msg *msg, struct shmk_msg *other)
{
	bool locked = lock(&msg->shmk->lock);
	int ret = share_locked(msg, other);

	unlock(&msg->shmk->lock, locked);
	return ret;
}

/* A short text has no block: it is simply there twice. */
static int copy_inline(struct shmk_msg *msg, struct shmk_msg *other)
{
	if (msg->len > sizeof(other->small))
		return -EINVAL;
	memcpy(other->small, msg->small, msg->len);
	other->shmk = msg->shmk;
	other->kind = SHMK_KIND_INLINE;
	other->len = msg->len;
	other->room = sizeof(other->small);
	other->data = other->small;
	return 0;
}

int shmk_msg_share(struct shmk_msg *msg, struct shmk_msg *other)
{
	int ret;

	if (!msg->data || msg == other || msg->len > msg->room)
		return -EINVAL;
	other->data = NULL;
	other->from = SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0);
	other->queue = NULL;
	other->redelivered = 0;
	other->tag = msg->tag;
	other->sender = msg->sender;
	other->sender_gen = msg->sender_gen;
	other->id = msg->id;
	if (msg->kind == SHMK_KIND_INLINE)
		return copy_inline(msg, other);
	ret = try_share(msg, other);
	if (unlikely(ret == -ENOMEM) && msg->shmk->backend->reap(msg->shmk) > 0)
		ret = try_share(msg, other);
	if (ret)
		return ret;
	msg->room = msg->len;
	other->data = msg->data;
	other->len = msg->len;
	other->room = msg->len;
	return 0;
}

/* Each in turn is split once before any is split again: the tree is as flat as can be. */
int shmk_msg_share_many(struct shmk_msg *msg, struct shmk_msg *others, unsigned int n)
{
	unsigned int have, from;
	int ret = 0;

	if (n > SHMK_ENTRIES_MAX)
		return -EINVAL;
	for (have = 1; have <= n; have++) {
		from = have - (1U << (31 - __builtin_clz(have)));
		ret = shmk_msg_share(from ? &others[from - 1] : msg, &others[have - 1]);
		if (ret)
			break;
	}
	for (; ret && have > 1; have--)
		shmk_free(&others[have - 2]);
	return ret;
}

/* -------------------------------------------------------------- queries -- */

bool shmk_msg_shared(const struct shmk_msg *msg)
{
	uint32_t block = msg->block, depth;
	__u64 word, up_word;

	if (!msg->data || msg->kind != SHMK_KIND_BLOCK)
		return false;
	word = READ_ONCE(*word_of(msg->shmk, block));
	for (depth = 0; depth <= SHMK_SHARE_DEPTH; depth++) {
		if (!shmk_block_parent(&msg->shmk->view, block, word, &block, &up_word))
			return false;
		if (shmk_inner_both(up_word))
			return true;
		word = up_word;
	}
	return true;
}

/* The references in one span whose payload is @root. */
static unsigned int refs_in(const struct shmk_view *view, uint32_t span, uint32_t root)
{
	__u64 word = READ_ONCE(view->spans[span].word);
	uint32_t i, at, step;
	unsigned int nr = 0;

	if (SHMK_SPAN_KIND(word) != SHMK_SPAN_CUT)
		return 0;
	step = shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES);
	for (i = 0; i + step <= SHMK_SPAN_UNITS; i += step) {
		uint32_t block = (span << SHMK_SPAN_UNITS_SHIFT) + i;

		word = READ_ONCE(view->blocks[block].word);
		nr += shmk_block_held(word) && shmk_block_place(word) != SHMK_PLACE_ROOT &&
		      shmk_block_root(view, block, &at) && at == root;
	}
	return nr;
}

int shmk_msg_refs(const struct shmk_msg *msg)
{
	uint32_t span, root;
	unsigned int nr = 0;

	if (!msg->data)
		return -EINVAL;
	if (!shmk_msg_shared(msg))
		return 1;
	if (!shmk_block_root(&msg->shmk->view, msg->block, &root))
		return -EUCLEAN;
	for (span = 0; span < msg->shmk->view.nr_spans; span++)
		nr += refs_in(&msg->shmk->view, span, root);
	return nr ? (int)nr : 1;
}
