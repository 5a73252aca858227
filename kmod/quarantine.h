/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * quarantine.h - blocks of the dead that a device may still be writing to.
 */
#ifndef SHMK_QUARANTINE_H
#define SHMK_QUARANTINE_H

#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct shmk_pool;
struct shmk_region;
struct shmk_status;

/**
 * struct shmk_quarantine - of one pool
 * @lock: who looks
 * @spans: bit set: blocks of this span are PINNED, or have been; pool->lock.
 *	NULL, and constant, when the pool does without
 * @work: the next look
 * @delay: until then, in jiffies; the work's alone
 */
struct shmk_quarantine {
	struct mutex lock;	/* of who looks */
	unsigned long *spans;
	struct delayed_work work;
	unsigned long delay;
};

void shmk_quarantine_prepare(struct shmk_pool *pool);
int shmk_quarantine_init(struct shmk_pool *pool, const struct shmk_status *s);
void shmk_quarantine_exit(struct shmk_pool *pool);
bool shmk_quarantine_on(const struct shmk_pool *pool);

bool shmk_region_pinned(const struct shmk_region *region, u64 at, u64 bytes);
bool shmk_quarantine_pinned(const struct shmk_pool *pool, u32 block, u64 bytes);
void shmk_quarantine_keep(struct shmk_pool *pool, u32 block);
u64 shmk_quarantine_look(struct shmk_pool *pool);
void shmk_quarantine_wait(struct shmk_pool *pool);

#endif
