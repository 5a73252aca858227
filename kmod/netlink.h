/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * netlink.h - news of all pools, and the family that tells them.
 */
#ifndef SHMK_NETLINK_H
#define SHMK_NETLINK_H

#include <linux/types.h>
#include <linux/uidgid.h>
#include <uapi/linux/shmk.h>

struct pid;
struct shmk_pool;

void shmk_news_push(const struct shmk_pool *pool, const struct shmk_event *event,
		    struct pid *pid, kuid_t uid);

int shmk_netlink_init(void);
void shmk_netlink_exit(void);

#endif
