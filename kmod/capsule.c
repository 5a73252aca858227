// SPDX-License-Identifier: GPL-2.0-only
/*
 * capsule.c - the ledgers of the last who died, as they were.
 *
 * Settling empties a ledger. What its peer was doing when it died, the first question of who
 * looks for a bug, is therefore copied before that, into memory that the pool always
 * has: a death allocates nothing. A few are kept, the oldest goes when one more comes;
 * reading takes none away, so that several can read.
 *
 * The words are what the dead wrote, true or not. They are told, never followed.
 */
#include <linux/cred.h>
#include <linux/minmax.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/user_namespace.h>

#include "capsule.h"
#include "peer.h"
#include "pool.h"

#define LOOK_ENTRIES	1024

int shmk_capsules_init(struct shmk_capsules *capsules)
{
	spin_lock_init(&capsules->lock);
	capsules->kept = kvcalloc(SHMK_CAPSULES_KEPT, sizeof(*capsules->kept),
				  GFP_KERNEL_ACCOUNT);
	return capsules->kept ? 0 : -ENOMEM;
}

/* Nobody is left to die or read. */
void shmk_capsules_free(struct shmk_capsules *capsules)
{
	unsigned int i;

	for (i = 0; capsules->kept && i < SHMK_CAPSULES_KEPT; i++)
		put_pid(capsules->kept[i].pid);
	kvfree(capsules->kept);
}

/* Entries are used from the low end on. A bounded look, whatever the dead said they had. */
static void copy_entries(struct shmk_capsule *c, const struct shmk_peer *peer)
{
	const struct shmk_entry *entries = peer->ledger->entry;
	u32 i, end = min_t(u32, peer->high, LOOK_ENTRIES);

	for (i = 0; i < end && c->nr_entries < SHMK_CAPSULE_ENTRIES; i++) {
		u64 what = READ_ONCE(entries[i].what);

		if (!SHMK_WHAT_OP(what))
			continue;
		c->entry[c->nr_entries].what = what;
		c->entry[c->nr_entries++].where = READ_ONCE(entries[i].where);
	}
	c->high = peer->high;
}

/**
 * shmk_capsule_take() - keep what a peer that has ended otherwise than cleanly left
 * @peer: its end is known, and nothing is settled yet
 */
void shmk_capsule_take(const struct shmk_peer *peer)
{
	struct shmk_capsules *capsules = &peer->pool->capsules;
	struct shmk_capsule_kept *kept;

	spin_lock(&capsules->lock);
	kept = &capsules->kept[capsules->next % SHMK_CAPSULES_KEPT];
	put_pid(kept->pid);
	kept->pid = get_pid(peer->pid);
	kept->uid = peer->uid;
	kept->capsule = (struct shmk_capsule){
		.seq		= capsules->next++,
		.time_ns	= ktime_get_ns(),
		.attached_ns	= peer->attached_ns,
		.peer		= peer->id,
		.gen		= peer->gen,
		.reason		= peer->reason,
		.code		= peer->code,
	};
	memcpy(kept->capsule.comm, peer->comm, sizeof(kept->capsule.comm));
	copy_entries(&kept->capsule, peer);
	spin_unlock(&capsules->lock);
}

static void identify(const struct shmk_capsule_kept *kept, struct shmk_capsule *c)
{
	c->size = sizeof(*c);
	c->pid = pid_nr_ns(kept->pid, task_active_pid_ns(current));
	c->uid = from_kuid_munged(current_user_ns(), kept->uid);
}

/**
 * shmk_capsule_get() - the first that is kept from a number on
 * @c: seq is in and out
 *
 * Return: 0 or -ENOENT.
 */
int shmk_capsule_get(struct shmk_pool *pool, struct shmk_capsule *c)
{
	struct shmk_capsules *capsules = &pool->capsules;
	const struct shmk_capsule_kept *kept;
	int err = -ENOENT;
	u64 oldest;

	spin_lock(&capsules->lock);
	oldest = capsules->next - min_t(u64, capsules->next, SHMK_CAPSULES_KEPT);
	oldest = max_t(u64, oldest, c->seq);
	if (oldest < capsules->next) {
		kept = &capsules->kept[oldest % SHMK_CAPSULES_KEPT];
		*c = kept->capsule;
		identify(kept, c);
		err = 0;
	}
	spin_unlock(&capsules->lock);
	return err;
}
