/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * top.h - what shmk top shows (top_view.c) and how one moves in it (cmd_top.c).
 *
 * A view is text: some lines of head, then rows. It is written to a FILE, so that it
 * is the same on a terminal and in a pipe.
 */
#ifndef SHMK_TOOL_TOP_H
#define SHMK_TOOL_TOP_H

#include "tool.h"

enum top_level { TOP_POOLS, TOP_POOL, TOP_LEDGER };

/* What a row stands for. */
struct top_row {
	char pool[96];		/* TOP_POOLS */
	uint32_t peer;		/* TOP_POOL; 0: */
	uint32_t queue;		/* ... this queue */
	char name[64];		/* of the queue */
};

struct rate {
	uint32_t gen;
	uint64_t sent, received;
};

struct top {
	enum top_level level;
	char pool[128];			/* from TOP_POOL on */
	struct shmk *s;			/* its attachment, read-only */
	uint32_t peer, queue;		/* TOP_LEDGER: of this one */
	char what[96];			/* and what it is called */
	unsigned int sort;		/* index into sort_names[level] */
	bool reverse;

	/* filled by top_view() */
	char *text;			/* free() it */
	unsigned int head;		/* so many lines are no rows */
	struct top_row *rows;		/* one for each line behind; NULL pool, peer, queue: a heading */
	unsigned int nr_rows;

	struct rate *rates;		/* by queue id, of the last view */
	int64_t rated_ns;
};

/* Takes a new look. 0, -EPIPE: the pool is closed, or another -errno. */
int top_view(struct top *t);
const char *top_sort_name(const struct top *t);
unsigned int top_sort_keys(const struct top *t);
/* Down to a pool (NULL: up to all of them); 0 or -errno. */
int top_enter(struct top *t, const char *pool);
static inline bool top_row_is_item(const struct top_row *r)
{
	return r->pool[0] || r->peer || r->name[0];
}

#endif
