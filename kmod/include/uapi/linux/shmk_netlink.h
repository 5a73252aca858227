/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * shmk_netlink.h - the generic netlink family "shmk": what there is, and what happens.
 *
 * Documentation/netlink/specs/shmk.yaml says the same for tools that read it;
 * netlink_test compares the two. It is for who watches and for who administrates; no
 * peer ever needs it.
 *
 * Whoever may open a netlink socket sees of all pools what /sys/kernel/shmk shows of
 * them. Peers, queues and topics are told of pools that the opener of the socket
 * may read (-EACCES else, and dumps leave them out). CREATE, DESTROY and RESET want
 * CAP_NET_ADMIN, and what the ioctl of that name wants.
 *
 * Numbers of uids are those of the opener's user namespace, pids those of who receives;
 * but in events, which everybody gets alike, those of the initial namespaces.
 *
 * Events carry SHMK_A_EVENT_SEQ, which grows by one with each event of the
 * machine, so a gap is a loss. Who finds one, or gets ENOBUFS, dumps what it keeps
 * track of; each object carries the number of the next event as it was before the
 * object was looked at, so an event with a smaller one is in it already.
 * With other errors than those of netlink itself comes a text (NLM_F_ACK_TLVS).
 */
#ifndef _LINUX_SHMK_NETLINK_H
#define _LINUX_SHMK_NETLINK_H

#define SHMK_FAMILY_NAME	"shmk"
#define SHMK_FAMILY_VERSION	1

/* For everybody in every network namespace: what, and of which pool, peer, queue. */
#define SHMK_MCGRP_EVENTS	"events"
/* CAP_NET_ADMIN; in network namespaces that are the initial user namespace's: all of it. */
#define SHMK_MCGRP_PRIVILEGED	"privileged"

enum {
	SHMK_CMD_POOL_GET	= 1,	/* SHMK_A_POOL_ID or _NAME; or dump */
	SHMK_CMD_PEER_GET	= 2,	/* and SHMK_A_PEER_ID; or dump, of one pool or all */
	SHMK_CMD_QUEUE_GET	= 3,	/* likewise; not topics */
	SHMK_CMD_TOPIC_GET	= 4,
	SHMK_CMD_POOL_CREATE	= 5,	/* persistent */
	SHMK_CMD_POOL_DESTROY	= 6,	/* SHMK_A_POOL_NAME */
	SHMK_CMD_POOL_RESET	= 7,	/* SHMK_A_POOL_NAME, _FORCE */
	SHMK_CMD_EVENT		= 8,	/* to "events" */
	SHMK_CMD_EVENT_DETAIL	= 9,	/* to "privileged" */
	__SHMK_CMD_MAX,
	SHMK_CMD_MAX		= __SHMK_CMD_MAX - 1
};

/* The values are those of struct shmk_pool_info. */
enum {
	SHMK_A_POOL_PAD		= 1,
	SHMK_A_POOL_ID		= 2,	/* u64 */
	SHMK_A_POOL_NAME	= 3,	/* string; none: it has lost it, or never had one */
	SHMK_A_POOL_BYTES	= 4,	/* u64 */
	SHMK_A_POOL_MEMORY_BYTES = 5,	/* u64 */
	SHMK_A_POOL_PAGE_SHIFT	= 6,	/* u32 */
	SHMK_A_POOL_UNIT_SHIFT	= 7,	/* u32 */
	SHMK_A_POOL_NODE	= 8,	/* s32 */
	SHMK_A_POOL_MODE	= 9,	/* u32 */
	SHMK_A_POOL_UID		= 10,	/* u32 */
	SHMK_A_POOL_GID		= 11,	/* u32 */
	SHMK_A_POOL_FLAGS	= 12,	/* u32 */
	SHMK_A_POOL_NR_PEERS	= 13,	/* u32 */
	SHMK_A_POOL_NR_QUEUES	= 14,	/* u32 */
	SHMK_A_POOL_RINGS_BYTES	= 15,	/* u64 */
	SHMK_A_POOL_PEERS_NOW	= 16,	/* u32 */
	SHMK_A_POOL_QUEUES_NOW	= 17,	/* u32 */
	SHMK_A_POOL_BLOCKS_USED	= 18,	/* u64; not in dumps: it has to be counted */
	SHMK_A_POOL_BYTES_USED	= 19,	/* u64; likewise */
	SHMK_A_POOL_ATTACHES	= 20,	/* u64 */
	SHMK_A_POOL_DETACHES	= 21,	/* u64 */
	SHMK_A_POOL_DEATHS	= 22,	/* u64 */
	SHMK_A_POOL_RECLAIMED_BLOCKS = 23,	/* u64 */
	SHMK_A_POOL_RECLAIMED_BYTES = 24,	/* u64 */
	SHMK_A_POOL_LOST_MESSAGES = 25,	/* u64 */
	SHMK_A_POOL_REDELIVERED	= 26,	/* u64 */
	SHMK_A_POOL_CREATED_NS	= 27,	/* u64 */
	SHMK_A_POOL_FORCE	= 28,	/* flag, of RESET */
	SHMK_A_POOL_SEQ		= 29,	/* u64, see above */
	__SHMK_A_POOL_MAX,
	SHMK_A_POOL_MAX		= __SHMK_A_POOL_MAX - 1
};

/* The values are those of struct shmk_peer_info. */
enum {
	SHMK_A_PEER_PAD		= 1,
	SHMK_A_PEER_POOL_ID	= 2,	/* u64 */
	SHMK_A_PEER_POOL_NAME	= 3,	/* string, to ask with */
	SHMK_A_PEER_ID		= 4,	/* u32 */
	SHMK_A_PEER_GEN		= 5,	/* u32 */
	SHMK_A_PEER_STATE	= 6,	/* u32, enum shmk_peer_state */
	SHMK_A_PEER_FLAGS	= 7,	/* u32 */
	SHMK_A_PEER_PID		= 8,	/* s32 */
	SHMK_A_PEER_UID		= 9,	/* u32 */
	SHMK_A_PEER_COMM	= 10,	/* string */
	SHMK_A_PEER_NR_ENTRIES	= 11,	/* u32 */
	SHMK_A_PEER_ATTACHED_NS	= 12,	/* u64 */
	SHMK_A_PEER_SEQ		= 13,	/* u64 */
	__SHMK_A_PEER_MAX,
	SHMK_A_PEER_MAX		= __SHMK_A_PEER_MAX - 1
};

/*
 * Queues and topics. SENT, RECEIVED and DEPTH are what the members' hints say; they
 * may lag behind by messages that are just under way.
 */
enum {
	SHMK_A_QUEUE_PAD	= 1,
	SHMK_A_QUEUE_POOL_ID	= 2,	/* u64 */
	SHMK_A_QUEUE_POOL_NAME	= 3,	/* string, to ask with */
	SHMK_A_QUEUE_ID		= 4,	/* u32 */
	SHMK_A_QUEUE_GEN	= 5,	/* u32 */
	SHMK_A_QUEUE_NAME	= 6,	/* string; to ask with, too */
	SHMK_A_QUEUE_FLAGS	= 7,	/* u32, SHMK_QUEUE_F_* */
	SHMK_A_QUEUE_CAPACITY	= 8,	/* u32 */
	SHMK_A_QUEUE_SLOT_BYTES	= 9,	/* u32 */
	SHMK_A_QUEUE_NR_OPEN	= 10,	/* u32 */
	SHMK_A_QUEUE_SENT	= 11,	/* u64 */
	SHMK_A_QUEUE_RECEIVED	= 12,	/* u64; not of topics */
	SHMK_A_QUEUE_DEPTH	= 13,	/* u32; not of topics */
	SHMK_A_QUEUE_REDELIVERED = 14,	/* u64; not of topics */
	SHMK_A_QUEUE_BELLS	= 15,	/* u64: so often was who sleeps on it woken */
	SHMK_A_QUEUE_WAITERS	= 16,	/* u32: 1 receivers, 2 senders sleep, or are about to */
	SHMK_A_QUEUE_HISTORY	= 17,	/* u32; from here on of topics */
	SHMK_A_QUEUE_MSG_BYTES	= 18,	/* u32 */
	SHMK_A_QUEUE_NR_READERS	= 19,	/* u32: most at once */
	SHMK_A_QUEUE_READERS_NOW = 20,	/* u32 */
	SHMK_A_QUEUE_WRITER	= 21,	/* u32: peer id, 0: none */
	SHMK_A_QUEUE_SEQ	= 22,	/* u64 */
	__SHMK_A_QUEUE_MAX,
	SHMK_A_QUEUE_MAX	= __SHMK_A_QUEUE_MAX - 1
};

/* The values are those of struct shmk_event; PEER, GEN and QUEUE only where there is one. */
enum {
	SHMK_A_EVENT_PAD	= 1,
	SHMK_A_EVENT_SEQ	= 2,	/* u64, see above */
	SHMK_A_EVENT_TYPE	= 3,	/* u32, enum shmk_event_type */
	SHMK_A_EVENT_TIME_NS	= 4,	/* u64 */
	SHMK_A_EVENT_POOL_ID	= 5,	/* u64 */
	SHMK_A_EVENT_PEER	= 6,	/* u32 */
	SHMK_A_EVENT_GEN	= 7,	/* u32 */
	SHMK_A_EVENT_QUEUE	= 8,	/* u32 */
	SHMK_A_EVENT_POOL_NAME	= 9,	/* string; from here on only of EVENT_DETAIL */
	SHMK_A_EVENT_POOL_SEQ	= 10,	/* u64, seq of struct shmk_event */
	SHMK_A_EVENT_PID	= 11,	/* s32 */
	SHMK_A_EVENT_UID	= 12,	/* u32 */
	SHMK_A_EVENT_COMM	= 13,	/* string */
	SHMK_A_EVENT_REASON	= 14,	/* u32, enum shmk_reason */
	SHMK_A_EVENT_CODE	= 15,	/* s32 */
	SHMK_A_EVENT_TOOK_NS	= 16,	/* u64 */
	SHMK_A_EVENT_BLOCKS	= 17,	/* u64 */
	SHMK_A_EVENT_BYTES	= 18,	/* u64 */
	SHMK_A_EVENT_MESSAGES	= 19,	/* u64 */
	SHMK_A_EVENT_REDELIVERED = 20,	/* u64 */
	__SHMK_A_EVENT_MAX,
	SHMK_A_EVENT_MAX	= __SHMK_A_EVENT_MAX - 1
};

#endif
