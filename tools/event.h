/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * event.h - looking on while something happens: 'shmk events' and 'shmk monitor'.
 */
#ifndef SHMK_TOOL_EVENT_H
#define SHMK_TOOL_EVENT_H

#include <stdbool.h>
#include <stdint.h>

struct watch {
	const char *what;	/* a pool, or all: for complaints */
	bool json;
	uint64_t count;		/* 0: no end */
	uint64_t seen;
	/* Prints what is there. 0: more may come; 1: that was enough; -errno. */
	int (*print_new)(struct watch *w, void *arg);
};

/* 1: taken; 0: not --json nor --count; -1: bad value, told. */
int watch_option(struct watch *w, const char *verb, int opt, const char *arg);
/* One more was printed: was it the last that is wanted? */
bool watch_is_full(struct watch *w);
/* Until that was enough, a signal, or the timeout. Returns an exit status. */
int watch_loop(struct watch *w, int fd, int look_every_ms, int64_t timeout_ms, void *arg);

/* Parts of a line about an end. */
void print_given_back(uint64_t bytes, uint64_t blocks);
void print_lost(uint64_t messages);

#endif
