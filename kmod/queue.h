/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * queue.h - the queues of a pool as the kernel knows them.
 */
#ifndef SHMK_QUEUE_H
#define SHMK_QUEUE_H

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <uapi/linux/shmk.h>

#include "settle.h"

struct shmk_peer;
struct shmk_pool;
struct shmk_user;

enum shmk_queue_stage {
	SHMK_QUEUE_STAGE_FREE,
	SHMK_QUEUE_STAGE_BUSY,	/* being made or removed: name and room are taken */
	SHMK_QUEUE_STAGE_READY,
};

/**
 * struct shmk_queue - one place in the pool's array of queues
 * @node: in pool->rings unless FREE; pool->lock
 * @stage: pool->lock
 * @nr_open: peers that have it open; pool->lock
 * @nr_files: queue side files; pool->lock
 * @opened: how often it was opened by a peer that had not; pool->lock
 * @name: pool->lock
 * @user: for whom it counts, unless FREE; pool->lock
 * @offset: of the ring in the control region; pool->lock
 * @bytes: of the ring with its slots; pool->lock
 * @rv: changes under pool->lock and only while @nr_open and @nr_files are both
 *	0, so whoever has the queue open reads it without a lock
 * @nr_wakes: so often was a side woken; a statistic
 * @wait: sleepers, by side; lives as long as the pool, so no epoll item can
 *	outlive it
 */
struct shmk_queue {
	struct list_head node;
	enum shmk_queue_stage stage;
	u32 nr_open;
	u32 nr_files;
	u32 opened;
	char name[SHMK_NAME_LEN];
	struct shmk_user *user;
	u64 offset;
	u64 bytes;
	struct shmk_ring_view rv;
	atomic64_t nr_wakes;
	wait_queue_head_t wait[2];
};

/**
 * struct shmk_queue_look - a queue or topic at some moment, for who watches
 * @waiters: bit by side: its waiters word is set
 *
 * What is in the ring is what the members say, true or not.
 */
struct shmk_queue_look {
	u32 id;
	u32 gen;
	u32 flags;
	u32 capacity;
	u32 slot_bytes;
	u32 nr_open;
	u32 waiters;
	u32 depth;
	u64 sent;
	u64 received;
	u64 redelivered;
	u64 bells;
	u32 history;		/* from here on of topics */
	u32 msg_bytes;
	u32 nr_readers;
	u32 readers_now;
	u32 writer;
	u32 candidates;
	char name[SHMK_NAME_LEN];
};

int shmk_queues_init(struct shmk_pool *pool, u32 nr_queues, u32 nr_rows);
void shmk_queues_free(struct shmk_pool *pool);

int shmk_queue_create(struct shmk_peer *peer, struct shmk_queue_create *args);
void shmk_queue_publish(struct shmk_peer *peer,
			const struct shmk_queue_create *args);
void shmk_queue_abort(struct shmk_peer *peer,
		      const struct shmk_queue_create *args);
int shmk_queue_open(struct shmk_peer *peer, struct shmk_queue_open *args);
int shmk_queue_close(struct shmk_peer *peer, u32 id, u32 gen);
int shmk_queue_remove(struct shmk_peer *peer, u32 id, u32 gen);
int shmk_queue_drain(struct shmk_peer *peer, u32 id, u32 gen);
bool shmk_queue_draining(const struct shmk_pool *pool, u32 id);
bool shmk_queue_close_all(struct shmk_peer *peer, const unsigned long *deadline);
int shmk_queue_look(struct shmk_pool *pool, u32 id, const char *name,
		    struct shmk_queue_look *look);

bool shmk_queue_view(struct shmk_peer *peer, u32 id, struct shmk_ring_view *rv);
void shmk_queue_wake(struct shmk_pool *pool, u32 id, u32 side);
void shmk_queue_wake_all(struct shmk_pool *pool);
void shmk_queue_ring_both(struct shmk_pool *pool, u32 id,
			  const struct shmk_ring_view *rv);

struct shmk_queue_status *shmk_queue_status_locked(struct shmk_peer *peer, u32 id);
struct shmk_queue *shmk_queue_hold(struct shmk_peer *peer, u32 id);
void shmk_queue_unhold(struct shmk_pool *pool, struct shmk_queue *queue);

/* bell.c */
struct file *shmk_side_file(struct shmk_peer *peer, const struct shmk_queue_fd *args);
int shmk_bell_ring(struct shmk_pool *pool, u64 bells, u32 nr);

#endif
