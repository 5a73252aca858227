// SPDX-License-Identifier: GPL-2.0-only
/*
 * main.c - the module: parameters, the device, coming and going.
 *
 * The device is 0600 by default; who else may make and find pools is a matter
 * of udev. A pool's own mode decides about the pool.
 */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>

#include "ioctl.h"
#include "netlink.h"
#include "peer.h"
#include "pool.h"
#include "user.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

#if BITS_PER_LONG != 64
#error "shmk needs a 64 bit kernel: regions lie 16 TiB apart, and words are 64 bits"
#endif

unsigned long long shmk_max_pool_bytes;
module_param_named(max_pool_bytes, shmk_max_pool_bytes, ullong, 0644);
MODULE_PARM_DESC(max_pool_bytes, "largest data region of a pool (0: no limit)");

unsigned long long shmk_max_total_bytes;
module_param_named(max_total_bytes, shmk_max_total_bytes, ullong, 0644);
MODULE_PARM_DESC(max_total_bytes, "memory of all pools together (0: no limit)");

unsigned int shmk_max_pools_per_user;
module_param_named(max_pools_per_user, shmk_max_pools_per_user, uint, 0644);
MODULE_PARM_DESC(max_pools_per_user, "pools that one user may have made (0: no limit)");

unsigned int shmk_max_peers_per_user;
module_param_named(max_peers_per_user, shmk_max_peers_per_user, uint, 0644);
MODULE_PARM_DESC(max_peers_per_user, "peers that one user may have in all pools (0: no limit)");

unsigned int shmk_max_queues_per_user;
module_param_named(max_queues_per_user, shmk_max_queues_per_user, uint, 0644);
MODULE_PARM_DESC(max_queues_per_user, "queues and topics that one user may have made (0: no limit)");

static const struct file_operations device_ops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= shmk_device_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice device = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "shmk",
	.fops	= &device_ops,
	.mode	= 0600,
};

static int __init shmk_init(void)
{
	int err;

	err = shmk_peers_init();
	if (err)
		return err;
	err = shmk_sysfs_init();
	if (err)
		goto exit_peers;
	shmk_debugfs_init();
	err = shmk_netlink_init();
	if (err)
		goto exit_debugfs;
	err = misc_register(&device);
	if (err)
		goto exit_netlink;
	return 0;

exit_netlink:
	shmk_netlink_exit();
exit_debugfs:
	shmk_debugfs_exit();
	shmk_sysfs_exit();
exit_peers:
	shmk_peers_exit();
	return err;
}

static void __exit shmk_exit(void)
{
	misc_deregister(&device);
	shmk_peers_exit();
	shmk_netlink_exit();	/* the last peers had their news */
	shmk_debugfs_exit();
	shmk_sysfs_exit();
}

module_init(shmk_init);
module_exit(shmk_exit);

MODULE_AUTHOR("shmk maintainers");
MODULE_DESCRIPTION("Crash-safe shared memory transport");
MODULE_LICENSE("GPL");
MODULE_VERSION(SHMK_VERSION);
