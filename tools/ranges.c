// SPDX-License-Identifier: GPL-2.0-only
#include <stdlib.h>
#include <string.h>

#include "ranges.h"

/* Index of the first range that ends at or after @at; nearly always the last one. */
static unsigned int find(const struct ranges *rs, uint64_t at)
{
	unsigned int lo = 0, hi = rs->nr;

	if (rs->nr && rs->r[rs->nr - 1].to < at)
		return rs->nr;
	while (lo < hi) {
		unsigned int mid = (lo + hi) / 2;

		if (rs->r[mid].to < at)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool insert(struct ranges *rs, unsigned int i, uint64_t from, uint64_t to)
{
	if (rs->nr == rs->room) {
		unsigned int room = rs->room ? 2 * rs->room : 8;
		struct range *r = realloc(rs->r, room * sizeof(*r));

		if (!r)
			return false;
		rs->r = r;
		rs->room = room;
	}
	memmove(&rs->r[i + 1], &rs->r[i], (rs->nr - i) * sizeof(*rs->r));
	rs->r[i] = (struct range){ from, to };
	rs->nr++;
	return true;
}

bool ranges_add(struct ranges *rs, uint64_t from, uint64_t to)
{
	unsigned int i = find(rs, from), last = i;
	struct range *r;

	if (i == rs->nr || rs->r[i].from > to)
		return insert(rs, i, from, to);
	/* Grow i over everything that it touches now. */
	while (last + 1 < rs->nr && rs->r[last + 1].from <= to)
		last++;
	r = &rs->r[i];
	if (from < r->from)
		r->from = from;
	if (rs->r[last].to > to)
		to = rs->r[last].to;
	if (to > r->to)
		r->to = to;
	memmove(r + 1, &rs->r[last + 1], (rs->nr - last - 1) * sizeof(*r));
	rs->nr -= last - i;
	return true;
}

bool ranges_has(const struct ranges *rs, uint64_t from, uint64_t to)
{
	unsigned int i = find(rs, to);

	return i < rs->nr && rs->r[i].from <= from;
}

bool ranges_gap(const struct ranges *rs, uint64_t at, uint64_t end, uint64_t *from, uint64_t *to)
{
	unsigned int i = find(rs, at);

	if (i < rs->nr && rs->r[i].from <= at) {
		at = rs->r[i].to;
		i++;
	}
	if (at >= end)
		return false;
	*from = at;
	*to = i < rs->nr && rs->r[i].from < end ? rs->r[i].from : end;
	return true;
}

uint64_t ranges_end(const struct ranges *rs)
{
	return rs->nr ? rs->r[rs->nr - 1].to : 0;
}

void ranges_free(struct ranges *rs)
{
	free(rs->r);
	*rs = (struct ranges){ .r = NULL };
}
