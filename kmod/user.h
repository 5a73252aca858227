/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * user.h - what one user has: peers and queues.
 */
#ifndef SHMK_USER_H
#define SHMK_USER_H

#include <linux/types.h>
#include <linux/uidgid.h>

/* Parameters of the module, see main.c. 0: no limit. */
extern unsigned int shmk_max_peers_per_user;
extern unsigned int shmk_max_queues_per_user;

enum shmk_quota {
	SHMK_QUOTA_PEERS,
	SHMK_QUOTA_QUEUES,	/* topics too */
	SHMK_NR_QUOTAS
};

struct shmk_info;
struct shmk_user;

struct shmk_user *shmk_user_find(kuid_t uid);
void shmk_user_get(struct shmk_user *user);
void shmk_user_put(struct shmk_user *user);
int shmk_user_charge(struct shmk_user *user, enum shmk_quota quota);
void shmk_user_uncharge(struct shmk_user *user, enum shmk_quota quota);
void shmk_user_totals(kuid_t uid, struct shmk_info *info);

#endif
