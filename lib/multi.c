// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * multi.c - messages of several parts, sent and received as one.
 *
 * The envelope is a block of its own that lists the blocks of the parts, each by
 * block and generation, in the records of its own further units (so that the
 * settler, which never looks at payloads, can read the list). It holds the
 * parts: letting go of the envelope is letting go of each, then of itself. What
 * is freed twice is freed once, because a pair of block and generation is.
 *
 * What survivors see if the writer dies right after each store; E is the
 * envelope's entry, P the parts', all of one peer:
 *
 *   pack
 *     E = HELD(e, g), e: FREE -> USED   freed; the parts by P
 *     bytes, lengths, the list          the same
 *     e: USED(g), no part -> n parts    E frees the parts and e, and P finds nothing
 *                                       left, or the other way round
 *     P = NONE, one after the other     E frees all
 *   then as any block
 *
 *   unpack (e, g)
 *     P = HELD, the first one GOT if E was   the same: whoever comes first frees
 *     e: USED(g), n parts -> FREE(g + 1)     P frees the parts
 *     E = NONE                               done
 *
 * Nobody else can see the words of the parts meanwhile, so they change by no
 * hand-over: with the envelope their generation goes from hand to hand.
 *
 * A lost message is counted by whoever frees the first part; see put_counted()
 * in settle.c.
 */
#include "internal.h"

static __u64 *word_of(struct shmk *s, uint32_t block)
{
	return &s->view.blocks[block].word;
}

static __u64 *part_of(struct shmk *s, uint32_t envelope, unsigned int i)
{
	return &s->view.blocks[envelope + 1 + i].len;
}

int shmk_msg_inline(struct shmk *s, const void *buf, size_t len, struct shmk_msg *msg)
{
	msg->data = NULL;
	if (len > sizeof(msg->small))
		return -EMSGSIZE;
	memcpy(msg->small, buf, len);
	msg->shmk = s;
	msg->kind = SHMK_KIND_INLINE;
	msg->from = SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0);
	msg->queue = NULL;
	msg->redelivered = 0;
	msg->tag = msg->sender = msg->sender_gen = 0;
	msg->id = 0;
	msg->len = len;
	msg->room = sizeof(msg->small);
	msg->data = msg->small;
	return 0;
}

/* -------------------------------------------------------------- reading -- */

/* The envelope whose list says what the parts are, and how many. */
static unsigned int envelope_of(const struct shmk_msg *msg, uint32_t *envelope)
{
	struct shmk *s = msg->shmk;

	if (!msg->data || msg->kind != SHMK_KIND_BLOCK ||
	    !shmk_block_root(&s->view, msg->block, envelope))
		return 0;
	return shmk_block_parts(READ_ONCE(*word_of(s, *envelope)));
}

unsigned int shmk_msg_parts(const struct shmk_msg *msg)
{
	uint32_t envelope;

	return envelope_of(msg, &envelope);
}

static bool in_pool(struct shmk *s, uint32_t block, uint64_t len)
{
	return block >> SHMK_SPAN_UNITS_SHIFT < s->view.nr_spans &&
	       len <= s->data_bytes - ((uint64_t)block << s->view.unit_shift);
}

/* -EUCLEAN: the list is not one that pack() made. @name: of the part, as it was read once. */
static int part_find(struct shmk *s, uint32_t envelope, unsigned int i, __u64 *name,
		     void **data, size_t *len)
{
	__u64 part;
	uint32_t root;

	if (!in_pool(s, envelope + 1 + i, 0))
		return -EUCLEAN;
	part = READ_ONCE(*part_of(s, envelope, i));
	*name = part;
	if (SHMK_PART_KIND(part) == SHMK_PART_INLINE) {
		*data = (unsigned char *)block_data(s, envelope) + SHMK_PART_ARG(part);
		*len = SHMK_PART_GEN(part);
		return in_pool(s, envelope, (uint64_t)SHMK_PART_ARG(part) + *len) ? 0 : -EUCLEAN;
	}
	if ((SHMK_PART_KIND(part) != SHMK_PART_BLOCK && SHMK_PART_KIND(part) != SHMK_PART_GOT) ||
	    !in_pool(s, SHMK_PART_ARG(part), 0) ||
	    !shmk_block_root(&s->view, SHMK_PART_ARG(part), &root))
		return -EUCLEAN;
	*data = block_data(s, root);
	*len = SHMK_BLOCK_LEN(READ_ONCE(s->view.blocks[root].len));
	return in_pool(s, root, *len) ? 0 : -EUCLEAN;
}

int shmk_msg_part(const struct shmk_msg *whole, unsigned int i, void **data, size_t *len)
{
	uint32_t envelope;
	__u64 part;

	if (i >= envelope_of(whole, &envelope))
		return -ENOENT;
	return part_find(whole->shmk, envelope, i, &part, data, len);
}

int64_t parts_copy(const struct shmk_msg *msg, void *buf, size_t room)
{
	unsigned int i, n;
	size_t at = 0, len;
	uint32_t envelope;
	__u64 part;
	void *data;

	n = envelope_of(msg, &envelope);
	for (i = 0; i < n; i++) {
		if (part_find(msg->shmk, envelope, i, &part, &data, &len) || len > room - at)
			return -EUCLEAN;
		memcpy((unsigned char *)buf + at, data, len);
		at += len;
	}
	return (int64_t)at;
}

/* -------------------------------------------------------------- packing -- */

static bool is_block(const struct shmk_msg *msg)
{
	return msg->kind == SHMK_KIND_BLOCK;
}

static int parts_check(const struct shmk_msg *msgs, unsigned int n)
{
	unsigned int i, j;

	if (!n)
		return -EINVAL;
	if (n > SHMK_PARTS_MAX)
		return -E2BIG;
	for (i = 0; i < n; i++) {
		if (!msgs[i].data || msgs[i].shmk != msgs[0].shmk || msgs[i].len > msgs[i].room ||
		    shmk_msg_parts(&msgs[i]))
			return -EINVAL;
		if (msgs[i].queue)
			return -EBUSY;
		if (!is_block(&msgs[i]))
			continue;
		if (!plainly_held(&msgs[i]))
			return -EBUSY;
		for (j = 0; j < i; j++)
			if (is_block(&msgs[j]) && msgs[j].block == msgs[i].block)
				return -EINVAL;
	}
	return 0;
}

static size_t envelope_bytes(const struct shmk_msg *msgs, unsigned int n)
{
	size_t list = (size_t)(n + 1) << msgs[0].shmk->view.unit_shift, bytes = CHILD_BYTES;
	unsigned int i;

	for (i = 0; i < n; i++)
		bytes += is_block(&msgs[i]) ? 0 : msgs[i].len;
	return bytes > list ? bytes : list;
}

/* The list, and what it speaks of; nobody believes it before the word says so. */
static void list_write(struct shmk_msg *msgs, unsigned int n, const struct shmk_msg *whole)
{
	struct shmk *s = whole->shmk;
	uint64_t total = 0, at = 0;
	unsigned int i;
	__u64 part;

	for (i = 0; i < n; i++) {
		const struct shmk_msg *m = &msgs[i];

		total += m->len;
		if (!is_block(m)) {
			memcpy((unsigned char *)whole->data + at, m->data, m->len);
			part = SHMK_PART(SHMK_PART_INLINE, at, m->len);
			at += m->len;
		} else {
			if (shmk_block_plain(READ_ONCE(*word_of(s, m->block))))
				WRITE_ONCE(s->view.blocks[m->block].len, m->len);
			part = SHMK_PART(msg_received(m) ? SHMK_PART_GOT : SHMK_PART_BLOCK,
					 m->block, m->gen);
		}
		WRITE_ONCE(*part_of(s, whole->block, i), part);
	}
	WRITE_ONCE(s->view.blocks[whole->block].len, total);
}

/* The parts' entries are NONE on return, and still theirs. */
static int pack(struct shmk_msg *msgs, unsigned int n, struct shmk_msg *whole)
{
	int ret = parts_check(msgs, n);
	unsigned int i;

	whole->data = NULL;
	if (!ret)
		ret = shmk_alloc(msgs[0].shmk, envelope_bytes(msgs, n), 0, whole);
	if (ret)
		return ret;
	list_write(msgs, n, whole);
	whole->len = 0;
	whole->room = 0;
	barrier();
	WRITE_ONCE(*word_of(whole->shmk, whole->block),
		   SHMK_BLOCK_UP_WORD(whole->gen, n, SHMK_BLOCK_USED));
	for (i = 0; i < n; i++)
		if (is_block(&msgs[i]))
			entry_what(whole->shmk, msgs[i].entry, SHMK_OP_NONE);
	return 0;
}

/* The whole has gone its way. */
static void parts_forget(struct shmk *s, struct shmk_msg *msgs, unsigned int n)
{
	bool locked = lock(&s->lock);
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (is_block(&msgs[i]))
			entry_put_locked(s, msgs[i].entry);
		msgs[i].data = NULL;
	}
	unlock(&s->lock, locked);
}

int shmk_msg_pack(struct shmk_msg *msgs, unsigned int n, struct shmk_msg *whole)
{
	int ret = pack(msgs, n, whole);

	if (!ret)
		parts_forget(whole->shmk, msgs, n);
	return ret;
}

/* ------------------------------------------------------------ unpacking -- */

/* The parts are in their entries by now, so this frees only the envelope. */
static int envelope_free(struct shmk_msg *whole, unsigned int n)
{
	struct shmk *s = whole->shmk;
	bool locked;

	if (!cas(word_of(s, whole->block),
		 SHMK_BLOCK_UP_WORD(whole->gen, n, SHMK_BLOCK_USED),
		 SHMK_BLOCK_WORD(whole->gen + 1, SHMK_BLOCK_FREE)))
		return -EUCLEAN;
	shmk_block_hint(&s->view, whole->block);
	locked = lock(&s->lock);
	entry_put_locked(s, whole->entry);
	unlock(&s->lock, locked);
	whole->data = NULL;
	return 0;
}

static void part_hold(struct shmk_msg *msg, uint32_t op)
{
	entry_set(msg->shmk, msg->entry, SHMK_WHAT(op, msg->block, msg->gen), msg->from);
}

/* After a pack() whose whole could not be sent. */
static void pack_undo(struct shmk_msg *msgs, unsigned int n, struct shmk_msg *whole)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (is_block(&msgs[i]))
			part_hold(&msgs[i], msg_received(&msgs[i]) ? SHMK_OP_GOT : SHMK_OP_HELD);
	envelope_free(whole, n);
}

/* Everything of part @i but its entry. */
static int part_fill(const struct shmk_msg *whole, unsigned int i, struct shmk_msg *msg)
{
	struct shmk *s = whole->shmk;
	__u64 part;
	void *data;
	size_t len;
	int ret = part_find(s, whole->block, i, &part, &data, &len);

	if (ret)
		return ret;
	if (SHMK_PART_KIND(part) == SHMK_PART_INLINE)
		return shmk_msg_inline(s, data, len, msg) ? -EUCLEAN : 0;
	msg->shmk = s;
	msg->kind = SHMK_KIND_BLOCK;
	msg->from = SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0);
	msg->queue = NULL;
	msg->redelivered = 0;
	msg->tag = msg->sender = msg->sender_gen = 0;
	msg->id = 0;
	msg->block = SHMK_PART_ARG(part);
	msg->gen = SHMK_PART_GEN(part);
	msg->data = data;
	msg->len = len;
	msg->room = len;
	return entry_get(s, &msg->entry);
}

/* Holds all parts beside the envelope. The first one is the received message now. */
static void parts_hold(const struct shmk_msg *whole, struct shmk_msg *msgs, unsigned int n)
{
	bool got = msg_received(whole);
	unsigned int i;
	uint32_t op;

	for (i = 0; i < n; i++) {
		if (!is_block(&msgs[i]))
			continue;
		op = SHMK_OP_HELD;
		if (got) {
			msgs[i].from = whole->from;
			op = SHMK_OP_GOT;
		} else if (!msg_received(whole) &&
			   SHMK_PART_KIND(READ_ONCE(*part_of(whole->shmk, whole->block, i))) ==
			   SHMK_PART_GOT) {
			op = SHMK_OP_GOT;
		}
		got = false;
		part_hold(&msgs[i], op);
	}
}

static int unpack(struct shmk_msg *whole, struct shmk_msg *msgs, unsigned int n)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < n; i++) {
		msgs[i].data = NULL;
		ret = part_fill(whole, i, &msgs[i]);
		if (ret)
			break;
	}
	if (!ret) {
		parts_hold(whole, msgs, n);
		ret = envelope_free(whole, n);
		if (!ret)
			return (int)n;
	}
	while (i--) {
		if (is_block(&msgs[i]))
			entry_put(whole->shmk, msgs[i].entry);
		msgs[i].data = NULL;
	}
	return ret;
}

int shmk_msg_unpack(struct shmk_msg *whole, struct shmk_msg *msgs, unsigned int max)
{
	unsigned int n;

	if (!whole->data || !max)
		return -EINVAL;
	n = shmk_msg_parts(whole);
	if (!n) {
		shmk_msg_move(&msgs[0], whole);
		return 1;
	}
	if (n > max)
		return -EMSGSIZE;
	share_alone(whole);	/* the last reference to it becomes the envelope itself */
	if (shmk_block_parts(READ_ONCE(*word_of(whole->shmk, whole->block))) != n ||
	    !plainly_held(whole) ||
	    !shmk_block_held(READ_ONCE(*word_of(whole->shmk, whole->block))))
		return -EBUSY;
	return unpack(whole, msgs, n);
}

/* --------------------------------------------------------------- queues -- */

int shmk_send_multi(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n, int64_t deadline)
{
	struct shmk_msg whole;
	int ret;

	if (n && msgs[0].data && msgs[0].shmk != q->shmk)
		return -EINVAL;
	ret = pack(msgs, n, &whole);
	if (ret)
		return ret;
	ret = shmk_send(q, &whole, deadline);
	if (ret)
		pack_undo(msgs, n, &whole);
	else
		parts_forget(q->shmk, msgs, n);
	return ret;
}

int shmk_recv_multi(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int max, int64_t deadline)
{
	struct shmk_msg whole;
	int ret;

	if (!max)
		return -EINVAL;
	msgs[0].data = NULL;
	ret = shmk_recv(q, &whole, deadline);
	if (ret)
		return ret;
	ret = shmk_msg_unpack(&whole, msgs, max);
	if (ret < 0)
		shmk_msg_move(&msgs[0], &whole);
	return ret;
}
