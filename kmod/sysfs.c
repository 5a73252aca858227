// SPDX-License-Identifier: GPL-2.0-only
/*
 * sysfs.c - /sys/kernel/shmk, one value per file.
 *
 * Described in Documentation/ABI/testing/sysfs-kernel-shmk. sysfs knows no
 * namespaces: everybody who sees it sees the names and counters of all pools.
 *
 * A pool's kobject is part of the pool and its release frees the pool.
 * kobject_del() waits for readers, so a show function always finds the pages.
 */
#include <linux/cred.h>
#include <linux/kobject.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/user_namespace.h>

#include "pool.h"

static struct kobject *shmk_kobj;
static struct kobject *pools_kobj;

static struct shmk_pool *pool_of(struct kobject *kobj)
{
	return container_of(kobj, struct shmk_pool, kobj);
}

#define POOL_ATTR(name, format, value)						\
static ssize_t name##_show(struct kobject *kobj, struct kobj_attribute *attr,	\
			   char *buf)						\
{										\
	struct shmk_pool *pool = pool_of(kobj);					\
										\
	return sysfs_emit(buf, format "\n", value);				\
}										\
static struct kobj_attribute name##_attr = __ATTR_RO(name)

POOL_ATTR(size, "%llu", pool->status->data_bytes);
POOL_ATTR(memory, "%llu", pool->memory_bytes);
POOL_ATTR(page_size, "%lu", 1UL << pool->page_shift);
POOL_ATTR(node, "%d", pool->node);
POOL_ATTR(mode, "0%o", pool->mode);
POOL_ATTR(uid, "%u", from_kuid_munged(current_user_ns(), pool->uid));
POOL_ATTR(gid, "%u", from_kgid_munged(current_user_ns(), pool->gid));
POOL_ATTR(peers, "%llu", READ_ONCE(pool->status->peers_now));
POOL_ATTR(queues, "%llu", READ_ONCE(pool->status->queues_now));
POOL_ATTR(attaches, "%llu", READ_ONCE(pool->status->attaches));
POOL_ATTR(detaches, "%llu", READ_ONCE(pool->status->detaches));
POOL_ATTR(deaths, "%llu", READ_ONCE(pool->status->deaths));
POOL_ATTR(reclaimed_blocks, "%llu", READ_ONCE(pool->status->reclaimed_blocks));
POOL_ATTR(reclaimed_bytes, "%llu", READ_ONCE(pool->status->reclaimed_bytes));
POOL_ATTR(lost_messages, "%llu", READ_ONCE(pool->status->lost_messages));
POOL_ATTR(redelivered, "%llu", READ_ONCE(pool->status->redelivered));
POOL_ATTR(quarantined, "%llu", READ_ONCE(pool->status->quarantined));

static ssize_t blocks_used_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_settled usage = { };
	int err = shmk_pool_usage(pool_of(kobj), &usage);

	return err ?: sysfs_emit(buf, "%llu\n", usage.blocks);
}

static struct kobj_attribute blocks_used_attr = __ATTR_RO(blocks_used);

static ssize_t bytes_used_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_settled usage = { };
	int err = shmk_pool_usage(pool_of(kobj), &usage);

	return err ?: sysfs_emit(buf, "%llu\n", usage.bytes);
}

static struct kobj_attribute bytes_used_attr = __ATTR_RO(bytes_used);

static struct attribute *pool_attrs[] = {
	&size_attr.attr,
	&memory_attr.attr,
	&page_size_attr.attr,
	&node_attr.attr,
	&mode_attr.attr,
	&uid_attr.attr,
	&gid_attr.attr,
	&peers_attr.attr,
	&queues_attr.attr,
	&blocks_used_attr.attr,
	&bytes_used_attr.attr,
	&attaches_attr.attr,
	&detaches_attr.attr,
	&deaths_attr.attr,
	&reclaimed_blocks_attr.attr,
	&reclaimed_bytes_attr.attr,
	&lost_messages_attr.attr,
	&redelivered_attr.attr,
	&quarantined_attr.attr,
	NULL
};
ATTRIBUTE_GROUPS(pool);

static void pool_release(struct kobject *kobj)
{
	kfree(pool_of(kobj));
}

static const struct kobj_type pool_ktype = {
	.sysfs_ops	= &kobj_sysfs_ops,
	.release	= pool_release,
	.default_groups	= pool_groups,
};

/* From here on the pool is freed by kobject_put(). */
void shmk_sysfs_prepare(struct shmk_pool *pool)
{
	kobject_init(&pool->kobj, &pool_ktype);
}

/* A colon cannot be in a name, so no name is taken by an anonymous pool. */
int shmk_sysfs_add(struct shmk_pool *pool)
{
	if (pool->name[0])
		return kobject_add(&pool->kobj, pools_kobj, "%s", pool->name);
	return kobject_add(&pool->kobj, pools_kobj, "anon:%llu", pool->id);
}

void shmk_sysfs_del(struct shmk_pool *pool)
{
	if (pool->kobj.state_in_sysfs)
		kobject_del(&pool->kobj);
}

static ssize_t version_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", SHMK_ABI_VERSION);
}

static struct kobj_attribute version_attr = __ATTR_RO(version);

int shmk_sysfs_init(void)
{
	int err = -ENOMEM;

	shmk_kobj = kobject_create_and_add("shmk", kernel_kobj);
	if (!shmk_kobj)
		return -ENOMEM;
	pools_kobj = kobject_create_and_add("pools", shmk_kobj);
	if (!pools_kobj)
		goto put_shmk;
	err = sysfs_create_file(shmk_kobj, &version_attr.attr);
	if (err)
		goto put_pools;
	return 0;

put_pools:
	kobject_put(pools_kobj);
put_shmk:
	kobject_put(shmk_kobj);
	return err;
}

void shmk_sysfs_exit(void)
{
	kobject_put(pools_kobj);
	kobject_put(shmk_kobj);
}
