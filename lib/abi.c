// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * abi.c - sizes and places that programs, the kernel and other builds of this
 * library were compiled with. Who changes a number here breaks one of them:
 * the kernel has its own copy in kmod/ioctl.c.
 *
 * shmk.h is for 64 bit only: a 32 bit program could not map a pool's ledgers.
 */
#include "internal.h"
#include "settle.h"

#define SIZE(type, bytes) \
	_Static_assert(sizeof(type) == (bytes), "sizeof(" #type ")")
#define OFFSET(type, member, bytes) \
	_Static_assert(offsetof(type, member) == (bytes), "offsetof(" #type ", " #member ")")

SIZE(void *, 8);

/* <linux/shmk.h> */
SIZE(struct shmk_info, 64);
SIZE(struct shmk_pool_create, 128);
SIZE(struct shmk_pool_open, 72);
SIZE(struct shmk_pool_destroy, 72);
SIZE(struct shmk_pool_reset, 72);
SIZE(struct shmk_capsule, 1104);
SIZE(struct shmk_deadline, 16);
SIZE(struct shmk_pool_info, 216);
SIZE(struct shmk_attach, 24);
SIZE(struct shmk_queue_create, 120);
SIZE(struct shmk_queue_open, 80);
SIZE(struct shmk_queue_close, 16);
SIZE(struct shmk_queue_fd, 24);
SIZE(struct shmk_topic_subscribe, 40);
SIZE(struct shmk_topic_unsubscribe, 16);
SIZE(struct shmk_bell_one, 8);
SIZE(struct shmk_bell, 16);
SIZE(struct shmk_bell_cmd, 16);
SIZE(struct shmk_peer_info, 56);
SIZE(struct shmk_event, 112);

/* <linux/shmk_layout.h> */
SIZE(struct shmk_peer_status, 32);
SIZE(struct shmk_queue_status, 120);
SIZE(struct shmk_row, 32);
SIZE(struct shmk_element, 64);
SIZE(struct shmk_status, 368);
SIZE(struct shmk_block, 16);
SIZE(struct shmk_span, 64);
SIZE(struct shmk_entry, 16);
SIZE(struct shmk_ledger, 64);
SIZE(struct shmk_slot, 16);
SIZE(struct shmk_slot_meta, 16);
SIZE(struct shmk_ring, 256);
SIZE(struct shmk_control, 256);
OFFSET(struct shmk_status, version, 8);
OFFSET(struct shmk_status, map_ledger, 40);
OFFSET(struct shmk_status, page_shift, 72);
OFFSET(struct shmk_status, peers_off, 96);
OFFSET(struct shmk_status, epoch, 160);
OFFSET(struct shmk_status, name, 304);
OFFSET(struct shmk_queue_status, ring, 8);
OFFSET(struct shmk_queue_status, nr_open, 24);
OFFSET(struct shmk_queue_status, depth, 28);
OFFSET(struct shmk_queue_status, nr_readers, 52);
OFFSET(struct shmk_queue_status, name, 56);
OFFSET(struct shmk_slot, inl, 16);
OFFSET(struct shmk_ring, head, 64);
OFFSET(struct shmk_ring, waiters_recv, 128);
OFFSET(struct shmk_ring, waiters_send, 192);

/* <shmk.h> */
SIZE(struct shmk_pool_opts, 56);
SIZE(struct shmk_pool_stat, 224);
SIZE(struct shmk_attach_opts, 56);
SIZE(struct shmk_peer, 48);
SIZE(struct shmk_msg, 336);
SIZE(struct shmk_queue_opts, 16);
SIZE(struct shmk_queue_stats, 152);
OFFSET(struct shmk_pool_opts, bytes, 0);
OFFSET(struct shmk_pool_opts, rings_bytes, 48);
OFFSET(struct shmk_pool_stat, age_ns, 208);
OFFSET(struct shmk_attach_opts, create, 16);
OFFSET(struct shmk_attach_opts, deadline, 32);
OFFSET(struct shmk_attach_opts, data_at, 48);
OFFSET(struct shmk_peer, attached_ns, 24);
OFFSET(struct shmk_peer, comm, 32);
OFFSET(struct shmk_msg, shmk, 24);
OFFSET(struct shmk_msg, small, 96);
OFFSET(struct shmk_queue_stats, sent, 88);
OFFSET(struct shmk_queue_stats, my_sent, 112);
