/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * sysfs.h - what sysfs shows of one pool.
 */
#ifndef SHMK_SYSFS_H
#define SHMK_SYSFS_H

#include <linux/kobject.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct dentry;
struct shmk_event;
struct shmk_pool;
struct shmk_status;

/* Of these each has a directory in that of its pool. */
enum shmk_shown {
	SHMK_SHOWN_PEERS,
	SHMK_SHOWN_QUEUES,
	SHMK_NR_SHOWN
};

struct shmk_shown_one;

/**
 * struct shmk_shown_table - all peers, or all queues
 * @end: of their ids
 * @stale: bit set: what is shown of this id may be something else by now. Set
 *	without lock, by the dying, too; cleared by who looks
 * @ones: by id, NULL: not shown; lock
 * @dir: they are in, NULL unless the pool is shown; lock
 */
struct shmk_shown_table {
	u32 end;
	unsigned long *stale;
	struct shmk_shown_one **ones;
	struct kobject *dir;
};

/**
 * struct shmk_sysfs - of one pool
 * @kobj: its directory; the last reference frees the pool
 * @lock: who adds or removes anything; protects what says so
 * @debug_dir: of the pool in debugfs
 * @going: who searches there shall give up
 * @work: brings what is shown up to date, for who must not do it itself
 */
struct shmk_sysfs {
	struct kobject kobj;
	struct mutex lock;	/* directories, ones */
	struct work_struct work;
	struct shmk_shown_table tables[SHMK_NR_SHOWN];
	struct dentry *debug_dir;	/* lock; debugfs.c */
	bool going;			/* written under lock */
};

int shmk_sysfs_init(void);
void shmk_sysfs_exit(void);
void shmk_sysfs_prepare(struct shmk_pool *pool);
int shmk_sysfs_tables(struct shmk_pool *pool, const struct shmk_status *s);
void shmk_sysfs_free(struct shmk_pool *pool);
int shmk_sysfs_add(struct shmk_pool *pool);
void shmk_sysfs_del(struct shmk_pool *pool);
void shmk_sysfs_uevent(const struct shmk_event *event, u64 id, const char *name);
void shmk_sysfs_changed(struct shmk_pool *pool, enum shmk_shown shown, u32 id);
void shmk_sysfs_added(struct shmk_pool *pool, enum shmk_shown shown, u32 id);

/* debugfs.c */
void shmk_debugfs_init(void);
void shmk_debugfs_exit(void);
void shmk_debugfs_add(struct shmk_pool *pool);
void shmk_debugfs_del(struct shmk_pool *pool);

#endif
