/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * topic.h - queues that everybody reads.
 */
#ifndef SHMK_TOPIC_H
#define SHMK_TOPIC_H

#include <linux/types.h>
#include <uapi/linux/shmk.h>

#include "settle.h"

struct shmk_peer;
struct shmk_pool;

/* queue.c calls these; all fields of a topic are in its shmk_queue_status. */
int shmk_topic_check(const struct shmk_queue_create *args);
int shmk_topic_reserve_locked(struct shmk_pool *pool, u32 id,
			      const struct shmk_queue_create *args);
void shmk_topic_unreserve_locked(struct shmk_pool *pool, u32 id);
int shmk_topic_take_block(struct shmk_pool *pool, u32 id);
bool shmk_topic_put_block(struct shmk_pool *pool, u32 id);
void shmk_topic_leave_locked(struct shmk_pool *pool, u32 id, u32 peer);

int shmk_topic_subscribe(struct shmk_peer *peer, struct shmk_topic_subscribe *args);
int shmk_topic_unsubscribe(struct shmk_peer *peer, u32 id, u32 row);

/* bell.c */
int shmk_topic_row(struct shmk_peer *peer, u32 id, u32 row, u64 *word);
int shmk_topic_recv_ready(struct shmk_pool *pool, const struct shmk_ring_view *rv,
			  u32 row, u64 word);
bool shmk_topic_send_ready(struct shmk_pool *pool, const struct shmk_ring_view *rv,
			   u32 id, u64 me);

#endif
