/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pool.h - pinned memory with a name, and who is in it.
 *
 * Lock order, outermost first. None is held while memory is allocated or user
 * memory touched, but for the first two:
 *   sysfs.lock          (sysfs.h) what sysfs shows of one pool; memory is allocated under it
 *   reader->lock        (event.h) one reader's place among the events
 *   mm->mmap_lock       taken by detaching; the kernel's, around fault and mmap
 *   quarantine.lock     (quarantine.c) one look at a time
 *   pools_lock          (pool.c) the table of all pools
 *   shmk_mm.lock        (peer.c) the peers of one mm
 *   pool->lock          everything that changes in one pool
 *   pool->capsules.lock (capsule.h) alone
 *   pool->events.lock   (event.h)
 *   users_lock          (user.c)
 *   news_lock           (netlink.c)
 *
 * A dying process takes the last five only, and final references pools_lock.
 */
#ifndef SHMK_POOL_H
#define SHMK_POOL_H

#include <linux/bits.h>
#include <linux/list.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/workqueue.h>
#include <uapi/linux/shmk.h>

#include "capsule.h"
#include "event.h"
#include "quarantine.h"
#include "region.h"
#include "settle.h"
#include "sysfs.h"

struct seq_file;
struct shmk_peer;
struct shmk_queue;
struct user_struct;

/* mmap offsets: the region's number above 44 bits, 16 TiB each. */
#define SHMK_MAP_SHIFT		44
#define SHMK_MAP_STATUS		0ULL
#define SHMK_MAP_LEDGER		BIT_ULL(SHMK_MAP_SHIFT)
#define SHMK_MAP_CONTROL	(2ULL << SHMK_MAP_SHIFT)
#define SHMK_MAP_DATA		(3ULL << SHMK_MAP_SHIFT)

/* Room for the largest ledger, so that a peer's offset follows from its id. */
#define SHMK_LEDGER_STRIDE	(32ULL << 20)

#define SHMK_NR_REASONS		(SHMK_REASON_UNKNOWN + 1)

/**
 * struct shmk_pool - one pool
 *
 * Referenced by each file that belongs to it, each peer until it is settled,
 * and by its persistence.
 */
struct shmk_pool {
	refcount_t refs;

	/* Constant once the pool is in the table. */
	u64 id;
	char name[SHMK_NAME_LEN];
	u64 memory_bytes;
	u32 page_shift;
	int node;
	u32 mode;
	kuid_t uid;
	kgid_t gid;
	kuid_t creator;
	struct user_struct *user;	/* charged for locked_pages, or NULL */
	unsigned long locked_pages;
	struct shmk_region status_region;
	struct shmk_region control;
	struct shmk_region data;
	struct shmk_view view;		/* its queue() is only good for no queue */

	/* In the status region: written under lock, read by all the world. */
	struct shmk_status *status;
	struct shmk_peer_status *peer_status;
	struct shmk_queue_status *queue_status;
	struct shmk_row *rows;

	/* The table: pools_lock. */
	struct list_head node_in_pools;
	bool ready;			/* may be found */
	bool named;			/* the name is taken by this pool */
	bool claimed;			/* being destroyed or reset */
	bool persistent;		/* has a reference for it */
	struct shmk_pool *heir;		/* of one that was reset: a reference, or NULL */
	struct list_head forebears;	/* whose heir it is, */
	struct list_head node_in_forebears;	/* and the other end */

	struct shmk_sysfs sysfs;	/* see sysfs.h */

	spinlock_t lock;		/* the rest, as far as it changes */
	unsigned long *peer_ids;	/* bit set: id taken; bit 0 always is */
	struct shmk_peer **peers;	/* by id: alive or being settled */
	struct shmk_region *ledgers;	/* by id: pages stay from life to life */
	unsigned long *queue_ids;
	unsigned long *row_ids;		/* bit set: the row is of some topic */
	struct list_head rings;		/* queues in the order of their rings */
	struct shmk_queue *queues;	/* by id; see queue.h */
	u64 ends[SHMK_NR_REASONS];	/* of peers, by reason; written under lock */
	u64 wakes_before;		/* of queues that are gone; written under lock */

	struct shmk_events events;
	struct shmk_capsules capsules;
	struct shmk_quarantine quarantine;
	struct delayed_work deadlines;	/* deadline.c: the next look */
};

/* Parameters of the module, see main.c. 0: no limit. */
extern unsigned long long shmk_max_pool_bytes;
extern unsigned long long shmk_max_total_bytes;
extern unsigned int shmk_max_pools_per_user;

bool shmk_name_valid(const char *name);

struct shmk_pool *shmk_pool_create(const struct shmk_pool_create *args);
void shmk_pool_publish(struct shmk_pool *pool);
struct shmk_pool *shmk_pool_open(const struct shmk_pool_open *args);
int shmk_pool_destroy(const struct shmk_pool_destroy *args);
int shmk_pool_reset(const struct shmk_pool_reset *args);
bool shmk_pool_draining(const struct shmk_pool *pool);
struct shmk_pool *shmk_pool_next(u64 id);
struct shmk_pool *shmk_pool_after(u64 id);
struct shmk_pool *shmk_pool_get(u64 id, const char *name);
bool shmk_pool_readable(const struct shmk_pool *pool);
void shmk_pool_brief(struct shmk_pool *pool, struct shmk_pool_info *info);
int shmk_pool_info(struct shmk_pool *pool, struct shmk_pool_info *info);
int shmk_pool_usage(struct shmk_pool *pool, struct shmk_settled *usage);
void shmk_pool_totals(struct shmk_info *info);
void shmk_pool_put(struct shmk_pool *pool);
void shmk_pool_count_locked(struct shmk_pool *pool, u64 *counter, s64 change);
void shmk_pool_show(struct seq_file *m, const struct shmk_pool *pool);

/* A pool file: a reader of events that may attach. */
struct shmk_pool_file {
	struct shmk_reader reader;	/* first, see event.h */
	bool rdonly;
};

struct file *shmk_pool_file(struct shmk_pool *pool, bool rdonly);

/* Once and for all. Set under pool->lock, so who takes an id there is before or behind it. */
static inline bool shmk_pool_is_reset(const struct shmk_pool *pool)
{
	return READ_ONCE(pool->status->flags) & SHMK_POOL_F_RESET;
}

#endif
