// SPDX-License-Identifier: GPL-2.0-only
/*
 * deadline.c - alive, but stuck.
 *
 * A death needs no timeout: the kernel knows. Whether one that lives gets on with its
 * work only itself can know, and if it wants others to hear when it does not, it sets
 * a deadline and keeps changing a word of its ledger, a plain store. While any peer
 * has a deadline, a work looks at the words. One that has not changed for the peer's deadline
 * makes it stuck; one that changes again makes it unstuck. Both are told and nothing else
 * follows: nothing is taken from a peer that lives.
 *
 * The word can be any value at any time. Only whether it is another than at
 * the last look counts, so a peer can lie about nothing but itself.
 */
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "event.h"
#include "peer.h"
#include "pool.h"
#include "trace.h"

#define LOOKS		4	/* within the shortest deadline */
#define LEAST_MS	10	/* between two */
#define CHUNK		64	/* peers that are looked at without letting go of the lock */

/* Nobody has one: no next look. */
#define NEVER		U32_MAX

static void tell_locked(struct shmk_peer *peer, u32 type)
{
	struct shmk_event event = { .type = type, .took_ns = peer->moved_ns };

	shmk_peer_tell(peer, &event);
	if (type == SHMK_EV_STUCK)
		trace_shmk_stuck(peer);
	else
		trace_shmk_unstuck(peer);
}

static void moved_locked(struct shmk_peer *peer, u64 beats, u64 now)
{
	if (peer->stuck)
		tell_locked(peer, SHMK_EV_UNSTUCK);
	peer->stuck = false;
	peer->beats = beats;
	peer->moved_ns = now;
}

static void look_locked(struct shmk_peer *peer, u64 now)
{
	u64 beats = READ_ONCE(peer->ledger->beats);

	if (beats != peer->beats) {
		moved_locked(peer, beats, now);
	} else if (!peer->stuck && now - peer->moved_ns >= peer->deadline_ms * NSEC_PER_MSEC) {
		peer->stuck = true;
		tell_locked(peer, SHMK_EV_STUCK);
	}
}

/* The shortest deadline among them. */
static u32 look_chunk(struct shmk_pool *pool, u32 first, u32 end)
{
	u32 id, least = NEVER;
	struct shmk_peer *peer;

	spin_lock(&pool->lock);
	for (id = first; id < end; id++) {
		peer = pool->peers[id];
		if (!peer || !peer->deadline_ms || !shmk_peer_alive(peer))
			continue;
		look_locked(peer, ktime_get_ns());
		least = min(least, peer->deadline_ms);
	}
	spin_unlock(&pool->lock);
	return least;
}

static unsigned long pause(u32 deadline_ms)
{
	return msecs_to_jiffies(max_t(u32, deadline_ms / LOOKS, LEAST_MS));
}

/* Who sets a deadline while this runs queues it anew. */
static void look_work(struct work_struct *work)
{
	struct shmk_pool *pool = container_of(work, struct shmk_pool, deadlines.work);
	u32 first, end = pool->status->nr_peers + 1, least = NEVER;
	u64 next = READ_ONCE(pool->events.next);

	for (first = 0; first < end; first += CHUNK) {
		least = min(least, look_chunk(pool, first, min(first + CHUNK, end)));
		cond_resched();
	}
	if (READ_ONCE(pool->events.next) != next)
		shmk_event_wake(pool);
	if (least != NEVER)
		queue_delayed_work(system_unbound_wq, &pool->deadlines, pause(least));
}

/**
 * shmk_deadline_set() - when a peer counts as stuck
 * @ms: checked; 0: never
 *
 * Return: 0, or -ENXIO if it has ended.
 */
int shmk_deadline_set(struct shmk_peer *peer, u32 ms)
{
	struct shmk_pool *pool = peer->pool;
	int err = 0;

	spin_lock(&pool->lock);
	if (shmk_peer_alive(peer)) {
		moved_locked(peer, READ_ONCE(peer->ledger->beats), ktime_get_ns());
		peer->deadline_ms = ms;
	} else {
		err = -ENXIO;
	}
	spin_unlock(&pool->lock);
	if (err)
		return err;
	shmk_event_wake(pool);
	/* Now, whatever was to come: who sets one over and over puts nobody's look off. */
	if (ms)
		mod_delayed_work(system_unbound_wq, &pool->deadlines, 0);
	return 0;
}

/**
 * shmk_deadline_get() - a peer's deadline in milliseconds, 0 if it has none
 * @id: in its range
 *
 * Return: it, or -ENODEV when there is no such peer.
 */
int shmk_deadline_get(struct shmk_pool *pool, u32 id, u32 gen)
{
	struct shmk_peer *peer;
	int ms = -ENODEV;

	spin_lock(&pool->lock);
	peer = pool->peers[id];
	if (peer && peer->gen == gen)
		ms = peer->deadline_ms;
	spin_unlock(&pool->lock);
	return ms;
}

void shmk_deadlines_prepare(struct shmk_pool *pool)
{
	INIT_DELAYED_WORK(&pool->deadlines, look_work);
}

/* Nobody is left to set one. */
void shmk_deadlines_exit(struct shmk_pool *pool)
{
	cancel_delayed_work_sync(&pool->deadlines);
}
