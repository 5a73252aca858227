/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * survivor.h - the pool that a victim works on, and what must be true of it after.
 *
 *   round_open(&r);  ...send_id() some...  roles_drop(&r);
 *   ...a victim attaches to uri, uses "q" and "sp", and dies...
 *   ok = survivor(TAKES, &r, number of messages that were sent);
 *
 * Messages have a number; even ones are blocks, odd ones inline. What is not true
 * is in sweep_why (sweep.h). Define POOL_BYTES before for another size.
 */
#ifndef SURVIVOR_H
#define SURVIVOR_H

#include "after.h"
#include "wrap.h"

#define CAPACITY	8
#ifndef POOL_BYTES
#define POOL_BYTES	(4UL << 20)	/* 64 spans */
#endif

/* What a victim does with the messages that the survivor has put into queues. */
enum does {
	KEEPS,		/* takes none */
	TAKES,		/* takes, and holds or passes on */
	EATS,		/* may have freed some */
};

static char uri[64];
static bool wraps, on_module;

struct round {
	struct shmk	*s;		/* the survivor */
	struct shmk_queue *q;
	struct shmk_queue *sp;		/* one producer, one receiver */
};

/* ------------------------------------------------------------ messages -- */

static inline size_t id_len(uint32_t id)
{
	return id & 1 ? 16 : 300;	/* odd ones fit inline */
}

static inline void put_id(struct shmk_msg *msg, uint32_t id)
{
	memset(msg->data, (int)id, msg->len);
	memcpy(msg->data, &id, sizeof(id));
}

static inline bool get_id(const struct shmk_msg *msg, uint32_t *id)
{
	const unsigned char *byte = msg->data;
	size_t i;

	if (msg->len < sizeof(*id))
		return false;
	memcpy(id, msg->data, sizeof(*id));
	for (i = sizeof(*id); i < msg->len; i++)
		if (byte[i] != (unsigned char)*id)
			return false;
	return msg->len == id_len(*id);
}

static inline void send_id(struct shmk *s, struct shmk_queue *q, uint32_t id)
{
	struct shmk_msg msg;
	unsigned char small[16];

	if (id & 1) {
		memset(small, (int)id, sizeof(small));
		memcpy(small, &id, sizeof(id));
		must("send inline", shmk_send_copy(q, small, sizeof(small), SHMK_TRY));
		return;
	}
	must("alloc", shmk_alloc(s, id_len(id), 0, &msg));
	put_id(&msg, id);
	must("send", shmk_send(q, &msg, SHMK_TRY));
}

/* -------------------------------------------------------- the survivor -- */

/* All that is in a queue, each id at most once. */
static inline bool drain(struct shmk_queue *q, uint64_t seen[4], unsigned int *nr)
{
	struct shmk_msg msg;
	uint32_t id;
	int ret;

	while (!(ret = shmk_recv(q, &msg, SHMK_TRY))) {
		if (!get_id(&msg, &id) || id >= 256)
			return sweep_fail("a message is damaged (first word %u, length %zu)",
				    *(uint32_t *)msg.data, msg.len);
		if (seen[id >> 6] >> (id & 63) & 1)
			return sweep_fail("message %u came twice", id);
		seen[id >> 6] |= 1ULL << (id & 63);
		(*nr)++;
		shmk_free(&msg);
	}
	return ret == -EAGAIN ? true : sweep_fail("recv: %s", strerror(-ret));
}

static inline bool refill(struct round *r, struct shmk_queue *q)
{
	uint64_t seen[4] = { 0 };
	unsigned int nr = 0;
	uint32_t id;
	struct shmk_msg msg;
	int lap, ret;

	for (lap = 0; lap < 2; lap++) {
		for (id = 0; id < CAPACITY; id++) {
			ret = shmk_alloc(r->s, id_len(2 * id), 0, &msg);
			if (ret)
				return sweep_fail("alloc: %s", strerror(-ret));
			put_id(&msg, 2 * id);
			ret = shmk_send(q, &msg, SHMK_TRY);
			if (ret)
				return sweep_fail("message %u of %u after the death: send: %s", id,
					    CAPACITY, strerror(-ret));
		}
		memset(seen, 0, sizeof(seen));
		nr = 0;
		if (!drain(q, seen, &nr))
			return false;
		if (nr != CAPACITY)
			return sweep_fail("%u of %u messages came back", nr, CAPACITY);
	}
	return true;
}

static inline bool survivor(enum does does, struct round *r, unsigned int put)
{
	uint64_t seen[4] = { 0 };
	struct shmk_pool_stat stat;
	unsigned int nr = 0, missing = 0, small = 0;
	uint32_t id;

	if (!pool_alone(r->s) || !pool_sound(r->s, "after the death"))
		return false;
	if (!drain(r->q, seen, &nr) || !drain(r->sp, seen, &nr))
		return false;
	must("stat", shmk_pool_stat(r->s, &stat));
	for (id = 0; id < put; id++) {
		missing += !(seen[0] >> id & 1);
		small += id & 1 && !(seen[0] >> id & 1);
	}
	/*
	 * KEEPS: none is missing. TAKES: those it had, reported; but for
	 * inline ones that the library had given to a victim which could not tell.
	 * EATS: it may have been done with them.
	 */
	if (stat.lost_messages > missing ||
	    (does == KEEPS && missing) ||
	    (does == TAKES && missing - stat.lost_messages > small))
		return sweep_fail("%u messages are missing, %llu are reported lost", missing,
			    (unsigned long long)stat.lost_messages);
	if (!refill(r, r->q) || !refill(r, r->sp))
		return false;
	return pool_memory_back(r->s, POOL_BYTES) && pool_sound(r->s, "at the end");
}

static inline void round_open(struct round *r)
{
	struct shmk_pool_opts pool = { .bytes = POOL_BYTES, .nr_peers = 16, .nr_queues = 8 };
	struct shmk_attach_opts opts = { .create = &pool, .exclusive = true, .spin_us = -1 };
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE, .capacity = CAPACITY };

	must("attach", shmk_attach(uri, &opts, &r->s));
	must("queue", shmk_queue_open(r->s, "q", &q, SHMK_TRY, &r->q));
	q.flags |= SHMK_QUEUE_SP | SHMK_QUEUE_SC;
	must("queue", shmk_queue_open(r->s, "sp", &q, SHMK_TRY, &r->sp));
	if (wraps) {
		wrap_ring(&r->q->rv);
		wrap_ring(&r->sp->rv);
		wrap_blocks(&r->s->view);
		if (!on_module)
			wrap_peers(r->s);
	}
}

/* The roles of "sp" must be free for the victim and, after it, for the survivor. */
static inline void roles_drop(struct round *r)
{
	shmk_queue_close(r->sp);
	must("queue", shmk_queue_open(r->s, "sp", NULL, SHMK_TRY, &r->sp));
}

#endif
