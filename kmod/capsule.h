/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * capsule.h - what the dead left behind, for who asks why.
 */
#ifndef SHMK_CAPSULE_H
#define SHMK_CAPSULE_H

#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <uapi/linux/shmk.h>

struct pid;
struct shmk_peer;
struct shmk_pool;

#define SHMK_CAPSULES_KEPT	8	/* of each pool */

/* A capsule and the identities that each reader sees in its own namespaces. */
struct shmk_capsule_kept {
	struct shmk_capsule capsule;	/* size, pid and uid are not filled */
	struct pid *pid;		/* a reference, or NULL */
	kuid_t uid;
};

/**
 * struct shmk_capsules - of the last deaths in a pool
 * @next: number of the next capsule
 * @kept: capsule n stands in n % SHMK_CAPSULES_KEPT until it is overwritten
 */
struct shmk_capsules {
	spinlock_t lock;		/* next, kept */
	u64 next;
	struct shmk_capsule_kept *kept;
};

int shmk_capsules_init(struct shmk_capsules *capsules);
void shmk_capsules_free(struct shmk_capsules *capsules);
void shmk_capsule_take(const struct shmk_peer *peer);
int shmk_capsule_get(struct shmk_pool *pool, struct shmk_capsule *capsule);

#endif
