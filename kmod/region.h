/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * region.h - the pages behind one range of mmap offsets.
 */
#ifndef SHMK_REGION_H
#define SHMK_REGION_H

#include <linux/mm_types.h>
#include <linux/types.h>

/**
 * struct shmk_region - pages that belong together
 * @heads: one pointer for each 1 << @order pages
 * @nr_pages: of PAGE_SIZE, all together
 * @order: 0, or that of a compound page that one PMD maps
 * @addr: the kernel's own view, NULL without one
 *
 * Constant from allocation to the end of the pool, but for ledgers, which grow
 * under pool->lock and never shrink: a page keeps its place, because others
 * may have it mapped.
 */
struct shmk_region {
	struct page **heads;
	unsigned long nr_pages;
	unsigned int order;
	void *addr;
};

int shmk_region_alloc(struct shmk_region *region, u64 bytes,
		      unsigned int page_shift, int node);
int shmk_region_view(struct shmk_region *region);
int shmk_region_grow(const struct shmk_region *old, struct shmk_region *grown,
		     u64 bytes);
void shmk_region_drop_grown(const struct shmk_region *old,
			    struct shmk_region *grown);
void shmk_region_drop_old(struct shmk_region *old);
void shmk_region_free(struct shmk_region *region);
struct page *shmk_region_page(const struct shmk_region *region,
			      unsigned long index);
void shmk_region_zero(struct shmk_region *region, u64 bytes);

#endif
