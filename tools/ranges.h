/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ranges.h - which bytes of a file have come: sorted ranges [from, to) that
 * neither touch nor overlap. In order there is one; out of order one more per gap.
 */
#ifndef SHMK_RANGES_H
#define SHMK_RANGES_H

#include <stdbool.h>
#include <stdint.h>

struct range {
	uint64_t from;
	uint64_t to;
};

struct ranges {
	struct range *r;
	unsigned int nr;
	unsigned int room;
};

/* false: no memory, nothing changed */
bool ranges_add(struct ranges *rs, uint64_t from, uint64_t to);
bool ranges_has(const struct ranges *rs, uint64_t from, uint64_t to);
/* The first hole in [at, end); false if there is none. */
bool ranges_gap(const struct ranges *rs, uint64_t at, uint64_t end, uint64_t *from, uint64_t *to);
/* End of the last one, 0 if there is none. */
uint64_t ranges_end(const struct ranges *rs);
void ranges_free(struct ranges *rs);

#endif
