// SPDX-License-Identifier: GPL-2.0-only
/*
 * quarantine.c - blocks of the dead that a device may still be writing to.
 *
 * A dead peer stores no more (peer.c), but what it had started may: direct I/O,
 * a buffer registered with an io_uring that somebody else has open, RDMA. And
 * what it gave to a pipe by vmsplice() is still to be read. All of these hold
 * references to the pages. A block with such a page becomes PINNED instead of
 * FREE when its dead holder is settled, or when the queue or topic that it is in
 * is removed: its sender may be dead. It is FREE when all are gone.
 *
 * How many references a page has
 *
 *   1		the region's own
 *   1		for each page table entry that maps it, a PMD too: ->fault took it,
 *		zapping drops it. folio_mapcount() counts the same entries.
 *   the rest	pins (1024 each on a single page) and plain references of users
 *		such as pipes, and, up to 6.1, of all direct I/O
 *
 * So a page is somebody's whose references are more than 1 + its mapcount. The two
 * numbers are not read at once. A fault takes the reference first and counts the
 * mapping then, zapping drops the reference last, after a batch of pages: for a
 * moment an innocent page looks pinned. That costs another look. The other way
 * round, a mapping counted whose reference was not, would let a pinned page go: hence
 * the mapcount is read on both sides, and must be the same.
 *
 * With pages of 2 MiB it is the whole page that is pinned, with all of its blocks.
 *
 * Keeping a block on the way of death takes a spin lock and sets a bit; no memory.
 * Which blocks a marked span has is read from the block words, which members can
 * write: they can spoil their own pool's quarantine, and the work that a look is: no
 * page is looked at twice in one.
 */
#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "compat.h"
#include "pool.h"
#include "quarantine.h"
#include "region.h"
#include "trace.h"

/* Larger blocks are not looked at while their holder dies: they wait for a worker. */
#define INLINE_PAGES	64

/* So many are looked at before others may run. */
#define YIELD_PAGES	1024

/* While something is PINNED it is looked at so often, at first and at last. */
#define DELAY_FIRST	(HZ / 100 ?: 1)
#define DELAY_MOST	HZ

/* How long a death is not told, all in all, in the hope that it was a passing reference. */
#define WAIT_MS		16

static bool page_pinned(struct page *page)
{
	struct folio *folio = page_folio(page);
	int mapped = shmk_folio_mapcount(folio);
	int refs;

	/* In this order, see above; the core's atomic operations are the other side. */
	smp_rmb();
	refs = folio_ref_count(folio);
	/* The second look. */
	smp_rmb();
	return refs > 1 + mapped || shmk_folio_mapcount(folio) != mapped;
}

/**
 * shmk_region_pinned() - has anybody but page tables a reference to these pages?
 * @region: nobody changes its page array
 *
 * Takes as long as there are pages, and yields if these are many; may say yes for a moment
 * without a reason.
 */
bool shmk_region_pinned(const struct shmk_region *region, u64 at, u64 bytes)
{
	unsigned long i = at >> PAGE_SHIFT;
	unsigned long last = (at + bytes - 1) >> PAGE_SHIFT;
	unsigned int nr = 0;

	for (; bytes && i <= last && i < region->nr_pages;
	     i = ((i >> region->order) + 1) << region->order) {
		if (page_pinned(region->heads[i >> region->order]))
			return true;
		if (++nr % YIELD_PAGES == 0)
			cond_resched();
	}
	return false;
}

bool shmk_quarantine_on(const struct shmk_pool *pool)
{
	return pool->quarantine.spans;
}

/**
 * shmk_quarantine_pinned() - must a dead peer's block be kept?
 * @block: valid
 * @bytes: from where it begins
 *
 * Does not sleep, for it looks at a few pages at most.
 */
bool shmk_quarantine_pinned(const struct shmk_pool *pool, u32 block, u64 bytes)
{
	if (bytes >> (PAGE_SHIFT + pool->data.order) > INLINE_PAGES)
		return true;
	return shmk_region_pinned(&pool->data, (u64)block << pool->view.unit_shift, bytes);
}

/**
 * shmk_quarantine_keep() - the block is PINNED: see to it that it is looked at
 */
void shmk_quarantine_keep(struct shmk_pool *pool, u32 block)
{
	spin_lock(&pool->lock);
	__set_bit(block >> SHMK_SPAN_UNITS_SHIFT, pool->quarantine.spans);
	shmk_pool_count_locked(pool, &pool->status->quarantined, 1);
	spin_unlock(&pool->lock);
	trace_shmk_pinned(pool, block);
	mod_delayed_work(system_unbound_wq, &pool->quarantine.work, DELAY_FIRST);
}

/* ------------------------------------------------------------ looking -- */

/* What a look has found. */
struct found {
	u64 freed, left;
};

static void look_block(struct shmk_pool *pool, u32 block, struct found *found)
{
	u64 *at = &pool->view.blocks[block].word;
	u64 word = READ_ONCE(*at);

	if (SHMK_BLOCK_STATE(word) != SHMK_BLOCK_PINNED)
		return;
	if (shmk_region_pinned(&pool->data, (u64)block << pool->view.unit_shift,
			       shmk_block_room(&pool->view, block))) {
		found->left++;
		return;
	}
	if (cmpxchg(at, word, SHMK_BLOCK_WORD(SHMK_BLOCK_GEN(word), SHMK_BLOCK_FREE)) != word)
		return;
	/* As if its holder had freed it. */
	shmk_block_hint(&pool->view, block);
	found->freed++;
	trace_shmk_unpinned(pool, block);
}

/* Returns where the next span with blocks of its own is. */
static u32 look_span(struct shmk_pool *pool, u32 span, struct found *found)
{
	u64 word = READ_ONCE(pool->view.spans[span].word);
	u32 i, step = SHMK_SPAN_UNITS, first = span << SHMK_SPAN_UNITS_SHIFT;
	u64 bytes;

	if (SHMK_SPAN_KIND(word) == SHMK_SPAN_CUT)
		step = shmk_class_units(SHMK_SPAN_CLASS(word) % SHMK_CLASSES);
	for (i = 0; i + step <= SHMK_SPAN_UNITS; i += step)
		look_block(pool, first + i, found);
	if (SHMK_SPAN_KIND(word) != SHMK_SPAN_RUN)
		return span + 1;
	bytes = shmk_block_room(&pool->view, first);
	return span + max_t(u32, bytes >> (pool->view.unit_shift + SHMK_SPAN_UNITS_SHIFT), 1);
}

/* The bit goes first: who keeps a block of the span meanwhile sets it again. */
static bool take_bit(struct shmk_pool *pool, u32 span)
{
	bool was;

	spin_lock(&pool->lock);
	was = __test_and_clear_bit(span, pool->quarantine.spans);
	spin_unlock(&pool->lock);
	return was;
}

static void put_bit(struct shmk_pool *pool, u32 span, const struct found *found)
{
	u64 *counter = &pool->status->quarantined;

	spin_lock(&pool->lock);
	if (found->left)
		__set_bit(span, pool->quarantine.spans);
	/* A member may have written more of them than there were. */
	shmk_pool_count_locked(pool, counter, -(s64)min(*counter, found->freed));
	spin_unlock(&pool->lock);
}

/* Nothing is marked, so nothing is PINNED, whatever members have written there. */
static u64 count_left(struct shmk_pool *pool)
{
	u64 *counter = &pool->status->quarantined;
	u64 left;

	spin_lock(&pool->lock);
	if (bitmap_empty(pool->quarantine.spans, pool->view.nr_spans))
		shmk_pool_count_locked(pool, counter, -(s64)*counter);
	left = *counter;
	spin_unlock(&pool->lock);
	return left;
}

/**
 * shmk_quarantine_look() - give back what nobody has pinned any more; may sleep
 *
 * Ends early for who is being killed; there will be other looks.
 *
 * Return: how many blocks are left.
 */
u64 shmk_quarantine_look(struct shmk_pool *pool)
{
	u32 span = 0, nr = pool->view.nr_spans;
	u64 left;

	if (!shmk_quarantine_on(pool) || !READ_ONCE(pool->status->quarantined))
		return 0;
	if (mutex_lock_killable(&pool->quarantine.lock))
		return READ_ONCE(pool->status->quarantined);
	while (!fatal_signal_pending(current) &&
	       (span = find_next_bit(pool->quarantine.spans, nr, span)) < nr) {
		struct found found = { };
		u32 this = span;

		if (!take_bit(pool, this)) {
			span++;
			continue;
		}
		span = look_span(pool, this, &found);
		put_bit(pool, this, &found);
		cond_resched();
	}
	left = count_left(pool);
	mutex_unlock(&pool->quarantine.lock);
	return left;
}

/**
 * shmk_quarantine_wait() - for a worker that has settled a peer: look a few times
 *
 * Most of what looks pinned is a mapping that comes or goes, or a block too large to be
 * looked at before. So the end of the peer is told when these are free.
 */
void shmk_quarantine_wait(struct shmk_pool *pool)
{
	unsigned int ms;

	for (ms = 1; shmk_quarantine_look(pool) && ms < WAIT_MS; ms *= 2)
		usleep_range(1000 * ms, 1500 * ms);
}

static void look_work(struct work_struct *work)
{
	struct shmk_quarantine *q = container_of(to_delayed_work(work), struct shmk_quarantine,
						 work);
	struct shmk_pool *pool = container_of(q, struct shmk_pool, quarantine);
	u64 before = READ_ONCE(pool->status->quarantined);
	u64 left = shmk_quarantine_look(pool);

	if (!left)
		q->delay = DELAY_FIRST;
	else
		q->delay = left < before ? DELAY_FIRST : min(2 * q->delay, (ulong)DELAY_MOST);
	if (left)
		queue_delayed_work(system_unbound_wq, &q->work, q->delay);
}

/* ------------------------------------------------------------- a pool -- */

void shmk_quarantine_prepare(struct shmk_pool *pool)
{
	mutex_init(&pool->quarantine.lock);
	INIT_DELAYED_WORK(&pool->quarantine.work, look_work);
	pool->quarantine.delay = DELAY_FIRST;
}

/**
 * shmk_quarantine_init() - for a pool that has one
 *
 * Return: 0 or -ENOMEM. shmk_quarantine_exit() in both cases.
 */
int shmk_quarantine_init(struct shmk_pool *pool, const struct shmk_status *s)
{
	if (s->flags & SHMK_POOL_F_NO_QUARANTINE)
		return 0;
	pool->quarantine.spans = kvcalloc(BITS_TO_LONGS(s->nr_spans), sizeof(long),
					  GFP_KERNEL_ACCOUNT);
	return pool->quarantine.spans ? 0 : -ENOMEM;
}

/**
 * shmk_quarantine_exit() - the pool is going, and no peer of it is left
 *
 * What is still pinned lives on without the pool, until the pins are gone.
 */
void shmk_quarantine_exit(struct shmk_pool *pool)
{
	cancel_delayed_work_sync(&pool->quarantine.work);
	kvfree(pool->quarantine.spans);
}
