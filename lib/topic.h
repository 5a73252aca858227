/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * topic.h - a topic and a subscription, as topic.c has them; tests look into them.
 */
#ifndef SHMK_TOPIC_H
#define SHMK_TOPIC_H

#include "internal.h"

#define HOLD_WORDS	(SHMK_TOPIC_HOLDS_MAX / 64)

struct shmk_topic {
	struct shmk_queue	q;		/* the writer sleeps on its SEND side ... */
	struct shmk_queue	candidate;	/* ... and here who would like to be */
	struct shmk		*shmk;
	unsigned char		*elements;
	const struct shmk_row	*rows;
	uint64_t		stride;
	uint64_t		mask;		/* of positions */
	uint32_t		msg_bytes;
	uint32_t		nr_elements;
	uint32_t		depth;
	uint32_t		first_row;
	uint32_t		nr_readers;
	uint32_t		nr_holds;
	uint32_t		nr_open;	/* of this handle; under shmk->lock */
	struct shmk_topic	*next;		/* likewise */
	struct shmk_sub		*subs;		/* likewise */

	/* The writer's, under @lock. */
	struct lock		lock;
	bool			writes;
	uint64_t		era;		/* grows with each beginning and end as the writer */
	uint64_t		seq;		/* of the next message */
	uint32_t		*free;		/* a stack; the memory is for all elements */
	uint32_t		nr_free;
	uint64_t		*used;		/* bitmap, for scans */
	uint64_t		*busy;		/* bitmap: lent, or in a slot */
	uint64_t		*lent;		/* bitmap */
	uint32_t		*shown;		/* by slot: the element in it */
	uint64_t		*late;		/* by row: 1 + the position at which waiting ended, or 0 */
	uint64_t		nr_scans;
	uint64_t		epoch;		/* of the pool when the rows were looked at */
	uint32_t		nr_wait;	/* readers to wait for then */
	uint64_t		slowest;	/* the position of the slowest of them */
	uint64_t		place;		/* our word among the candidates, or 0 */
	uint32_t		place_at;
};

struct shmk_sub {
	struct shmk_queue	q;		/* its RECV side */
	struct shmk_topic	*topic;
	struct shmk_sub		*next;
	uint32_t		entry;
	bool			waited_for;
	bool			asleep;		/* the ledger says so */
	uint64_t		pos;		/* wanted next */
	uint64_t		received;
	uint64_t		dropped;
	uint64_t		held[HOLD_WORDS];
};

#endif
