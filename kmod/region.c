// SPDX-License-Identifier: GPL-2.0-only
/*
 * region.c - pages: allocate, view, grow, free.
 *
 * All pages of a pool are ordinary kernel pages, zeroed and charged to the
 * memory cgroup of who made the pool, allocated before anybody can see the
 * region, in one size: single pages, or compound pages that a PMD can map.
 * They are on no LRU list and have no owner the kernel could ask, so they are
 * never swapped, migrated or reclaimed.
 *
 * Freeing only drops the region's own references. A page that is still pinned
 * (direct I/O, registered buffers) lives on until the pin goes.
 */
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "region.h"

static unsigned long nr_heads(const struct shmk_region *region)
{
	return region->nr_pages >> region->order;
}

/*
 * RETRY_MAYFAIL: a pool that does not fit must fail, not have the OOM killer
 * make room for it.
 */
static struct page *page_alloc(unsigned int order, int node)
{
	gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN |
		    __GFP_RETRY_MAYFAIL | (order ? __GFP_COMP : 0);

	if (node == NUMA_NO_NODE)
		return alloc_pages(gfp, order);
	return alloc_pages_node(node, gfp | __GFP_THISNODE, order);
}

static void pages_free(struct page **heads, unsigned long first, unsigned long end)
{
	for (; first < end; first++) {
		put_page(heads[first]);
		cond_resched();
	}
}

static int pages_fill(struct page **heads, unsigned long first,
		      unsigned long end, unsigned int order, int node)
{
	unsigned long i;
	int err = -ENOMEM;

	for (i = first; i < end; i++) {
		if (fatal_signal_pending(current)) {
			err = -EINTR;
			break;
		}
		heads[i] = page_alloc(order, node);
		if (!heads[i])
			break;
		cond_resched();
	}
	if (i == end)
		return 0;
	pages_free(heads, first, i);
	return err;
}

static struct page **heads_alloc(unsigned long nr)
{
	return kvmalloc_array(nr, sizeof(struct page *),
			      GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

/**
 * shmk_region_alloc() - all pages of a region, or none
 * @region: to be filled
 * @bytes: a multiple of 1 << @page_shift
 * @page_shift: PAGE_SHIFT or PMD_SHIFT
 * @node: strictly this NUMA node, or NUMA_NO_NODE
 *
 * Return: 0, -ENOMEM, or -EINTR when the caller is being killed.
 */
int shmk_region_alloc(struct shmk_region *region, u64 bytes,
		      unsigned int page_shift, int node)
{
	int err;

	region->order = page_shift - PAGE_SHIFT;
	region->nr_pages = bytes >> PAGE_SHIFT;
	/* Spares a hopeless attempt that would push everybody's pages out. */
	if (bytes >> PAGE_SHIFT > totalram_pages())
		return -ENOMEM;
	region->heads = heads_alloc(nr_heads(region));
	if (!region->heads)
		return -ENOMEM;
	err = pages_fill(region->heads, 0, nr_heads(region), region->order, node);
	if (err) {
		kvfree(region->heads);
		region->heads = NULL;
	}
	return err;
}

/**
 * shmk_region_view() - map the region into the kernel
 * @region: allocated
 *
 * settle.c wants plain pointers, also over compound pages.
 *
 * Return: 0 or -ENOMEM.
 */
int shmk_region_view(struct shmk_region *region)
{
	struct page **pages = region->heads;
	unsigned long i;

	if (region->order) {
		pages = heads_alloc(region->nr_pages);
		if (!pages)
			return -ENOMEM;
		for (i = 0; i < region->nr_pages; i++)
			pages[i] = shmk_region_page(region, i);
	}
	region->addr = vmap(pages, region->nr_pages, VM_MAP, PAGE_KERNEL);
	if (region->order)
		kvfree(pages);
	return region->addr ? 0 : -ENOMEM;
}

/**
 * shmk_region_grow() - a larger region that begins with the pages of another
 * @old: single pages; may be empty
 * @grown: to be filled; shares @old's pages
 * @bytes: a multiple of the page size, more than @old has
 *
 * The caller puts @grown in the place of @old and calls
 * shmk_region_drop_old(), or gives up with shmk_region_drop_grown().
 *
 * Return: 0, -ENOMEM or -EINTR.
 */
int shmk_region_grow(const struct shmk_region *old, struct shmk_region *grown,
		     u64 bytes)
{
	unsigned long nr = bytes >> PAGE_SHIFT;
	int err;

	*grown = (struct shmk_region){ .nr_pages = nr };
	grown->heads = heads_alloc(nr);
	if (!grown->heads)
		return -ENOMEM;
	if (old->nr_pages)
		memcpy(grown->heads, old->heads, old->nr_pages * sizeof(*old->heads));
	err = pages_fill(grown->heads, old->nr_pages, nr, 0, NUMA_NO_NODE);
	if (err)
		goto free_heads;
	err = shmk_region_view(grown);
	if (err)
		goto free_pages;
	return 0;

free_pages:
	pages_free(grown->heads, old->nr_pages, nr);
free_heads:
	kvfree(grown->heads);
	return err;
}

void shmk_region_drop_grown(const struct shmk_region *old,
			    struct shmk_region *grown)
{
	vunmap(grown->addr);
	pages_free(grown->heads, old->nr_pages, grown->nr_pages);
	kvfree(grown->heads);
}

void shmk_region_drop_old(struct shmk_region *old)
{
	vunmap(old->addr);
	kvfree(old->heads);
}

/**
 * shmk_region_free() - drop the region's references
 * @region: allocated, empty, or failed to be allocated
 */
void shmk_region_free(struct shmk_region *region)
{
	vunmap(region->addr);
	if (region->heads)
		pages_free(region->heads, 0, nr_heads(region));
	kvfree(region->heads);
	*region = (struct shmk_region){ };
}

/**
 * shmk_region_page() - one page, NULL beyond the end
 * @region: allocated
 * @index: of the page; may come from user space
 */
struct page *shmk_region_page(const struct shmk_region *region,
			      unsigned long index)
{
	if (index >= region->nr_pages)
		return NULL;
	index = array_index_nospec(index, region->nr_pages);
	return region->heads[index >> region->order] +
	       (index & ((1UL << region->order) - 1));
}

void shmk_region_zero(struct shmk_region *region, u64 bytes)
{
	u64 at;

	for (at = 0; at < bytes; at += PAGE_SIZE) {
		clear_page(region->addr + at);
		cond_resched();
	}
}
