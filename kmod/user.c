// SPDX-License-Identifier: GPL-2.0-only
/*
 * user.c - what one user has: peers and queues.
 *
 * A user is an effective uid of the initial user namespace, as for pools: a
 * container that maps its users elsewhere has others. A peer counts for who attached
 * until it has been settled, a queue for who made it until it is removed or goes
 * with its pool.
 *
 * Nobody is exempt, root neither: the limits are there to find what runs away.
 * They may be changed at any time; who has more already keeps it and gets no more.
 *
 * (Pools are counted by a walk over their table, see pool.c; locked memory by the core.)
 */
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <uapi/linux/shmk.h>

#include "user.h"

/**
 * struct shmk_user - one uid that has something
 * @refs: peers and queues; users_lock
 * @nr: of each kind; users_lock
 */
struct shmk_user {
	struct list_head node;
	kuid_t uid;
	unsigned long refs;
	unsigned int nr[SHMK_NR_QUOTAS];
};

/* Innermost: taken under pool->lock. */
static DEFINE_SPINLOCK(users_lock);
static LIST_HEAD(users);		/* users_lock */

static struct shmk_user *find_locked(kuid_t uid)
{
	struct shmk_user *user;

	lockdep_assert_held(&users_lock);
	list_for_each_entry(user, &users, node)
		if (uid_eq(user->uid, uid))
			return user;
	return NULL;
}

/**
 * shmk_user_find() - the one and only of a uid
 *
 * Return: a reference, or NULL when there is no memory.
 */
struct shmk_user *shmk_user_find(kuid_t uid)
{
	struct shmk_user *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	struct shmk_user *user;

	if (!new)
		return NULL;
	new->uid = uid;
	new->refs = 1;
	spin_lock(&users_lock);
	user = find_locked(uid);
	if (user)
		user->refs++;
	else
		list_add(&new->node, &users);
	spin_unlock(&users_lock);
	if (user)
		kfree(new);
	return user ?: new;
}

void shmk_user_get(struct shmk_user *user)
{
	spin_lock(&users_lock);
	user->refs++;
	spin_unlock(&users_lock);
}

/* @user: may be NULL */
void shmk_user_put(struct shmk_user *user)
{
	bool last;

	if (!user)
		return;
	spin_lock(&users_lock);
	last = !--user->refs;
	if (last)
		list_del(&user->node);
	spin_unlock(&users_lock);
	if (last)
		kfree(user);
}

static unsigned int limit_of(enum shmk_quota quota)
{
	return quota == SHMK_QUOTA_PEERS ? READ_ONCE(shmk_max_peers_per_user) :
					   READ_ONCE(shmk_max_queues_per_user);
}

/**
 * shmk_user_charge() - one more
 *
 * Return: 0, or -EPERM when the user has as many as it may have.
 */
int shmk_user_charge(struct shmk_user *user, enum shmk_quota quota)
{
	unsigned int limit = limit_of(quota);
	int err = 0;

	spin_lock(&users_lock);
	if ((limit && user->nr[quota] >= limit) || user->nr[quota] == UINT_MAX)
		err = -EPERM;
	else
		user->nr[quota]++;
	spin_unlock(&users_lock);
	return err;
}

void shmk_user_uncharge(struct shmk_user *user, enum shmk_quota quota)
{
	spin_lock(&users_lock);
	user->nr[quota]--;
	spin_unlock(&users_lock);
}

/**
 * shmk_user_totals() - what a uid has now
 */
void shmk_user_totals(kuid_t uid, struct shmk_info *info)
{
	const struct shmk_user *user;

	spin_lock(&users_lock);
	user = find_locked(uid);
	if (user) {
		info->user_peers = user->nr[SHMK_QUOTA_PEERS];
		info->user_queues = user->nr[SHMK_QUOTA_QUEUES];
	}
	spin_unlock(&users_lock);
}
