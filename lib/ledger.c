// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * ledger.c - the entries of the own ledger.
 *
 * Which entries are free is private knowledge; the entries themselves are what
 * a settler reads, up to ledger->high. It costs what the peer ever held at
 * once, because the entry used last is used next. When all are in use, those of
 * own spans are given up first.
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
static int entry_fresh(struct shmk *s, uint32_t *index)
{
	if (s->fresh_entry == s->nr_entries) {
		if (!heap_yield_locked(s))
			return -ENOBUFS;
		*index = s->free_entries[--s->nr_free_entries];
		return 0;
	}
	*index = s->fresh_entry++;
	WRITE_ONCE(s->ledger->high, s->fresh_entry);
	barrier();
	return 0;
}

int entry_get_locked(struct shmk *s, uint32_t *index)
{
	if (unlikely(!s->nr_free_entries))
		return entry_fresh(s, index);
	*index = s->free_entries[--s->nr_free_entries];
	return 0;
}

void entry_put_locked(struct shmk *s, uint32_t index)
{
	entry_what(s, index, SHMK_OP_NONE);
	s->free_entries[s->nr_free_entries++] = index;
}

int entry_get(struct shmk *s, uint32_t *index)
{
	bool locked = lock(&s->lock);
	int ret = entry_get_locked(s, index);

	unlock(&s->lock, locked);
	return ret;
}

void entry_put(struct shmk *s, uint32_t index)
{
	bool locked = lock(&s->lock);

	entry_put_locked(s, index);
	unlock(&s->lock, locked);
}
