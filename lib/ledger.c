// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * ledger.c - the entries of the own ledger.
 *
 * Which entries are free is private knowledge; the entries themselves are what
 * a settler reads, up to ledger->high. It costs what the peer ever held at
 * once, because the entry used last is used next. When all are in use, those of
 * blocks that are only kept (store.c) are given up first, then those of own spans.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

int ledger_init(struct shmk *s)
{
	s->nr_free_entries = 0;
	s->fresh_entry = 0;
	s->free_entries = malloc(sizeof(*s->free_entries) * s->nr_entries);
	return s->free_entries ? 0 : -ENOMEM;
}

void ledger_exit(struct shmk *s)
{
	free(s->free_entries);
	s->free_entries = NULL;
}

/* high first: a settler looks at no entry above it. */
int entry_fresh_locked(struct shmk *s, uint32_t *index)
{
	if (s->fresh_entry == s->nr_entries) {
		if (s->store.nr)
			store_empty_locked(s);
		else if (!heap_yield_locked(s))
			return -ENOBUFS;
		*index = s->free_entries[--s->nr_free_entries];
		return 0;
	}
	*index = s->fresh_entry++;
	WRITE_ONCE(s->ledger->high, s->fresh_entry);
	barrier();
	return 0;
}

/* Unused ones in a row among those that were used before. */
static bool run_find(struct shmk *s, uint32_t nr, uint32_t *first)
{
	unsigned char *unused = calloc(s->fresh_entry + 1, 1);
	uint32_t i, run = 0;

	if (!unused)
		return false;
	for (i = 0; i < s->nr_free_entries; i++)
		unused[s->free_entries[i]] = 1;
	for (i = 0; i < s->fresh_entry && run < nr; i++)
		run = unused[i] ? run + 1 : 0;
	free(unused);
	*first = i - run;
	return run == nr;
}

static void run_take(struct shmk *s, uint32_t first, uint32_t nr)
{
	uint32_t i, kept = 0;

	for (i = 0; i < s->nr_free_entries; i++)
		if (s->free_entries[i] - first >= nr)
			s->free_entries[kept++] = s->free_entries[i];
	s->nr_free_entries = kept;
}

static int entries_get_locked(struct shmk *s, uint32_t nr, uint32_t *first)
{
	if (run_find(s, nr, first)) {
		run_take(s, *first, nr);
		return 0;
	}
	if (s->nr_entries - s->fresh_entry < nr)
		return -ENOBUFS;
	*first = s->fresh_entry;
	s->fresh_entry += nr;
	WRITE_ONCE(s->ledger->high, s->fresh_entry);
	barrier();
	return 0;
}

int entries_get(struct shmk *s, uint32_t nr, uint32_t *first)
{
	bool locked = lock(&s->lock);
	int ret = entries_get_locked(s, nr, first);

	if (ret && s->store.nr) {
		store_empty_locked(s);
		ret = entries_get_locked(s, nr, first);
	}
	unlock(&s->lock, locked);
	return ret;
}
