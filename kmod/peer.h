/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * peer.h - one mm in one pool.
 */
#ifndef SHMK_PEER_H
#define SHMK_PEER_H

#include <linux/compiler.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/mmu_notifier.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/workqueue.h>
#include <uapi/linux/shmk.h>

#include "event.h"
#include "settle.h"

struct shmk_pool;
struct shmk_user;

/*
 * One way only. Who moves a peer from ALIVE to ENDING settles it, and nobody
 * else. Changes under pool->lock, so that a command which found the peer ALIVE
 * under that lock has left its mark before the ender looks.
 */
enum shmk_peer_stage {
	SHMK_PEER_STAGE_NEW,	/* being attached; nobody can see it */
	SHMK_PEER_STAGE_ALIVE,
	SHMK_PEER_STAGE_ENDING,
	SHMK_PEER_STAGE_GONE,	/* everything is given back, the id is free */
};

/**
 * struct shmk_mm - an mm that has peers; one per mm
 * @notifier: of this mm; each peer holds a reference to it
 * @lock: protects @peers
 * @peers: that are ALIVE or whose ender has not taken them off yet
 */
struct shmk_mm {
	struct mmu_notifier notifier;
	spinlock_t lock;	/* peers */
	struct list_head peers;
};

/**
 * struct shmk_peer - one mm in one pool; the private data of its attachment file
 *
 * Referenced by the file and by shmk_mm.peers, whose reference goes to the ender.
 */
struct shmk_peer {
	struct shmk_reader reader;	/* first, see event.h */
	refcount_t refs;
	enum shmk_peer_stage stage;	/* pool->lock; faults look without it */
	struct list_head node;		/* in shmk_mm.peers; shmk_mm.lock */

	/* Constant while anybody can see the peer. */
	struct shmk_pool *pool;		/* a reference */
	struct shmk_mm *mm;
	u32 id;				/* 0: none */
	u32 gen;
	u32 nr_entries;
	u64 ledger_bytes;		/* whole pages */
	struct shmk_ledger *ledger;	/* the kernel's view */
	bool rdonly;
	struct pid *pid;		/* of the thread group that attached */
	kuid_t uid;
	struct shmk_user *user;		/* of @uid, a reference */
	char comm[TASK_COMM_LEN];
	u64 attached_ns;

	u32 *opens;			/* by queue id, how often; pool->lock */

	/* deadline.c; pool->lock. */
	u32 deadline_ms;		/* 0: none */
	bool stuck;
	u64 beats;			/* as seen last, and */
	u64 moved_ns;			/* when that was another value than before */

	/* The ender's alone. */
	struct work_struct work;
	bool charged;			/* counts for @user; before, of who attaches */
	u64 began_ns;
	u32 high;			/* entries to look at */
	u32 cursor;			/* 0 .. 2 * high, see peer.c */
	u32 reason;
	int code;
	struct shmk_settled settled;
};

struct shmk_peer *shmk_peer_create(struct shmk_pool *pool,
				   struct shmk_attach *args);
void shmk_peer_publish(struct shmk_peer *peer);
int shmk_peer_detach(struct shmk_peer *peer, struct address_space *mapping);
void shmk_peer_close(struct shmk_peer *peer);
int shmk_peer_info(struct shmk_pool *pool, struct shmk_peer_info *info);
void shmk_peer_tell(struct shmk_peer *peer, struct shmk_event *event);
int shmk_peer_held(struct shmk_pool *pool, u32 id, u32 gen, struct shmk_settled *held);

static inline bool shmk_peer_alive(const struct shmk_peer *peer)
{
	return READ_ONCE(peer->stage) == SHMK_PEER_STAGE_ALIVE;
}

/* The mm is pinned by the notifier: its address cannot be another's meanwhile. */
static inline bool shmk_peer_is_mm(const struct shmk_peer *peer,
				   const struct mm_struct *mm)
{
	return peer->mm->notifier.mm == mm;
}

int shmk_peers_init(void);
void shmk_peers_exit(void);

/* deadline.c */
int shmk_deadline_set(struct shmk_peer *peer, u32 ms);
int shmk_deadline_get(struct shmk_pool *pool, u32 id, u32 gen);
void shmk_deadlines_prepare(struct shmk_pool *pool);
void shmk_deadlines_exit(struct shmk_pool *pool);

/* map.c */
struct file *shmk_attachment_file(struct shmk_peer *peer);

#endif
