/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * shmk.h - the commands of /dev/shmk. The only copy.
 *
 * Four kinds of file:
 *   the device    open("/dev/shmk"): makes and finds pools.
 *   a pool        from SHMK_IOC_POOL_CREATE or _OPEN. A capability: whoever
 *                 holds it (inherited, passed by SCM_RIGHTS) may attach as far
 *                 as it was opened. read() gives the pool's events.
 *   an attachment from SHMK_IOC_ATTACH. Belongs to the mm that attached: one
 *                 peer. mmap() of the regions; read() gives the pool's events.
 *                 Its commands are -ENXIO from any other mm and after the end
 *                 of the peer.
 *   a queue side  from SHMK_IOC_QUEUE_FD. poll() says EPOLLIN (SHMK_SIDE_RECV)
 *                 or EPOLLOUT (SHMK_SIDE_SEND), computed from the slot words, and
 *                 EPOLLPRI while at most one attachment has the queue open.
 *
 * DOC: errno
 *   -EINVAL   a value out of its range, an unknown flag, a reserved field that
 *             is not zero, a size too small
 *   -E2BIG    size larger than this kernel knows, and the rest is not zero
 *   -EFAULT   an argument cannot be read or written
 *   -ENOTTY   no such command on this kind of file
 *   -EPERM    RLIMIT_MEMLOCK or a module limit would be exceeded; not the owner
 *   -EACCES   the pool's mode does not let this user in
 *   -ENOENT   no such pool, queue or peer
 *   -EEXIST   the name is taken
 *   -EBUSY    still in use
 *   -ENOMEM   not enough memory; nothing was kept
 *   -ENOSPC   all ids, or all room for rings, are taken
 *   -ENXIO    this mm is not, or no longer, the peer of this attachment
 *   -ESHUTDOWN  the pool drains, or was reset: nothing begins here any more
 *
 * Every argument struct begins with its size. A shorter one than the kernel's
 * is filled up with zeros, of a longer one the unknown tail must be zero. The
 * order of checks is: size, flags and reserved fields, values, permission,
 * existence, limits. File descriptors come back as the ioctl's return value,
 * O_CLOEXEC, installed after everything else has succeeded.
 */
#ifndef _LINUX_SHMK_H
#define _LINUX_SHMK_H

#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/shmk_layout.h>

#define SHMK_DEVICE		"/dev/shmk"
#define SHMK_ABI_VERSION	1

/* Names: 1 to 63 of [A-Za-z0-9._-], not starting with a dot or a dash. */

#define SHMK_POOL_F_PERSIST	0x1	/* lives without any file until destroyed */
#define SHMK_POOL_F_NO_QUARANTINE 0x2	/* pinned blocks of the dead are given out again */
#define SHMK_POOL_F_ALL		0x3
#define SHMK_POOL_F_DRAIN	0x40000000U	/* not for creation: just to look may one attach */

/**
 * struct shmk_info - SHMK_IOC_INFO, on the device: what this module is and allows
 * @size: sizeof(struct shmk_info); out: what the kernel filled
 * @abi_version: SHMK_ABI_VERSION of the module
 * @layout_version: SHMK_LAYOUT_VERSION of the module
 * @features: SHMK_FEATURE_*
 * @max_pool_bytes: largest pool (parameter max_pool_bytes; 0: no limit)
 * @max_total_bytes: of all pools together (0: no limit)
 * @max_pools_per_user: 0: no limit
 * @nr_pools: pools there are
 * @total_bytes: memory of all pools, control regions included
 * @max_peers_per_user: in all pools; 0: no limit
 * @max_queues_per_user: queues and topics, in all pools; 0: no limit
 * @user_peers: that the caller's effective uid has now
 * @user_queues: likewise
 */
struct shmk_info {
	__u32 size;
	__u32 abi_version;
	__u32 layout_version;
	__u32 features;
	__aligned_u64 max_pool_bytes;
	__aligned_u64 max_total_bytes;
	__u32 max_pools_per_user;
	__u32 nr_pools;
	__aligned_u64 total_bytes;
	__u32 max_peers_per_user;
	__u32 max_queues_per_user;
	__u32 user_peers;
	__u32 user_queues;
};

#define SHMK_INFO_SIZE_1	48	/* of version 1 */

#define SHMK_FEATURE_URING_BELL	0x1	/* SHMK_IOC_BELL also as IORING_OP_URING_CMD */

/**
 * struct shmk_pool_create - SHMK_IOC_POOL_CREATE, on the device; returns a pool file
 * @size: sizeof(struct shmk_pool_create)
 * @flags: SHMK_POOL_F_*
 * @name: NUL-terminated; all zero: anonymous, reachable only by the file
 * @bytes: size of the data region; a multiple of the page size and of a span
 *	(SHMK_SPAN_UNITS << unit_shift): it is made exactly so or not at all
 * @page_shift: 12 or 21; with 21 all of data and control is in whole 2 MiB pages
 *	(-EOPNOTSUPP: this kernel has no transparent huge pages, as with PREEMPT_RT)
 * @unit_shift: 0 (choose: 8, larger when the pool needs it) or
 *	SHMK_UNIT_SHIFT_MIN .. SHMK_UNIT_SHIFT_MAX
 * @node: NUMA node, strictly; -1: any
 * @mode: permission bits 0666: who may open it read-write or read-only
 * @uid: owner, in the caller's user namespace; -1: the caller. Another than
 *	the caller's own needs CAP_CHOWN
 * @gid: likewise; one of the caller's groups is allowed
 * @nr_peers: 0 (1024) or up to SHMK_PEERS_MAX
 * @nr_queues: 0 (1024) or up to SHMK_QUEUES_MAX
 * @reserved: 0
 * @rings_bytes: room for rings; 0: choose (bytes/16, at least 256 KiB, at most 64 MiB)
 *
 * All pages are there, zeroed, charged to the memory cgroup and to the user's
 * RLIMIT_MEMLOCK (unless CAP_IPC_LOCK) when it returns. The last file of the
 * pool (attachments, their mappings and queue files count) takes the pool with
 * it unless it is persistent.
 */
struct shmk_pool_create {
	__u32 size;
	__u32 flags;
	char  name[SHMK_NAME_LEN];
	__aligned_u64 bytes;
	__u32 page_shift;
	__u32 unit_shift;
	__s32 node;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 nr_peers;
	__u32 nr_queues;
	__aligned_u64 rings_bytes;
	__aligned_u64 reserved;
};

#define SHMK_OPEN_F_RDONLY	0x1

/**
 * struct shmk_pool_open - SHMK_IOC_POOL_OPEN, on the device; returns a pool file
 * @size: sizeof(struct shmk_pool_open)
 * @flags: SHMK_OPEN_F_RDONLY: only read-only attachments from this file
 * @name: of the pool
 */
struct shmk_pool_open {
	__u32 size;
	__u32 flags;
	char  name[SHMK_NAME_LEN];
};

#define SHMK_DESTROY_F_DRAIN	0x1

/**
 * struct shmk_pool_destroy - SHMK_IOC_POOL_DESTROY, on the device
 * @size: sizeof(struct shmk_pool_destroy)
 * @flags: SHMK_DESTROY_F_DRAIN: instead of -EBUSY, see below
 * @name: of the pool
 *
 * Only the owner, the creator or CAP_SYS_ADMIN. -EBUSY while a peer is
 * attached. The name is free at once; the pages go with the last file.
 *
 * With DRAIN, peers that are attached go on. From then on opening the pool, and attaching
 * to it by a file, is -ESHUTDOWN but for reading, and it is persistent no longer: pool and name
 * go with the last file, also of one who looks. May be repeated.
 */
struct shmk_pool_destroy {
	__u32 size;
	__u32 flags;
	char  name[SHMK_NAME_LEN];
};

#define SHMK_RESET_F_FORCE	0x1	/* although peers are attached */

/**
 * struct shmk_pool_reset - SHMK_IOC_POOL_RESET, on the device
 * @size: sizeof(struct shmk_pool_reset)
 * @flags: SHMK_RESET_F_FORCE
 * @name: of the pool
 *
 * The name goes to a new pool, with another id and nothing in it, that has the
 * owner, mode, size and geometry of the old one; one that was not persistent stays as
 * long as there are files of the old one. Whoever is in the old one, which has no name
 * any more, wakes: SHMK_POOL_F_RESET stands in its status, its event is
 * SHMK_EV_RESET, its queue side files say EPOLLERR | EPOLLHUP, and all commands on its
 * files but INFO, PEER_INFO, EVENTS, QUEUE_CLOSE, TOPIC_UNSUBSCRIBE and DETACH are
 * -ESHUTDOWN. Its memory stays as it is until its last file is closed.
 *
 * Only the owner, the creator or CAP_SYS_ADMIN. -EBUSY without FORCE when a peer is
 * attached; and when the pool is being reset. There must be memory for both; it is
 * charged to whose memory the old one is (-EPERM), and to the caller's memory
 * cgroup. If it fails the old pool is what it was.
 */
struct shmk_pool_reset {
	__u32 size;
	__u32 flags;
	char  name[SHMK_NAME_LEN];
};

/**
 * struct shmk_pool_info - SHMK_IOC_POOL_NEXT on the device, SHMK_IOC_POOL_INFO on a pool or attachment
 * @size: sizeof(struct shmk_pool_info); out: what the kernel filled
 * @flags: out: SHMK_POOL_F_*, SHMK_POOL_F_RESET
 * @id: in of POOL_NEXT: the first pool with a larger id is told, -ENOENT after
 *	the last; out: its id. Ids grow and are never used again.
 * @bytes: data region
 * @memory_bytes: all pages of the pool
 * @blocks_used: blocks in use, by a walk over the spans in use
 * @bytes_used: the room of these blocks
 *
 * Pools that the caller may not open for reading are left out by POOL_NEXT.
 * The counters are those of struct shmk_status.
 */
struct shmk_pool_info {
	__u32 size;
	__u32 flags;
	__aligned_u64 id;
	char  name[SHMK_NAME_LEN];
	__aligned_u64 bytes;
	__aligned_u64 memory_bytes;
	__u32 page_shift;
	__u32 unit_shift;
	__s32 node;
	__u32 mode;
	__u32 uid;
	__u32 gid;
	__u32 nr_peers;
	__u32 nr_queues;
	__u32 peers_now;
	__u32 queues_now;
	__aligned_u64 blocks_used;
	__aligned_u64 bytes_used;
	__aligned_u64 attaches;
	__aligned_u64 detaches;
	__aligned_u64 deaths;
	__aligned_u64 reclaimed_blocks;
	__aligned_u64 reclaimed_bytes;
	__aligned_u64 lost_messages;
	__aligned_u64 created_ns;
	__aligned_u64 redelivered;
};

#define SHMK_ATTACH_F_RDONLY	0x1	/* data and control can never be written */
#define SHMK_ATTACH_F_ALL	0x1

/**
 * struct shmk_attach - SHMK_IOC_ATTACH, on a pool; returns an attachment file
 * @size: sizeof(struct shmk_attach)
 * @flags: SHMK_ATTACH_F_*; -EACCES without RDONLY on a pool opened read-only
 * @nr_entries: of the ledger: how much this peer may hold at once; 0: 4096;
 *	up to SHMK_ENTRIES_MAX
 * @peer: out: the id
 * @gen: out: its generation
 * @reserved: 0
 *
 * The calling mm becomes a peer. -EINTR: a signal came; nothing was kept, try again.
 * A process may attach several times. An id whose ledger
 * a former peer has pinned counts as taken.
 */
struct shmk_attach {
	__u32 size;
	__u32 flags;
	__u32 nr_entries;
	__u32 peer;
	__u32 gen;
	__u32 reserved;
};

/**
 * struct shmk_queue_create - SHMK_IOC_QUEUE_CREATE, on a read-write attachment
 * @size: sizeof(struct shmk_queue_create)
 * @flags: SHMK_QUEUE_F_* (shmk_layout.h)
 * @name: unique in the pool
 * @capacity: messages, a power of two, 1 .. SHMK_CAPACITY_MAX
 * @slot_bytes: 0 (64), 64, 128 or 256; all but 16 hold an inline message
 * @id: out
 * @gen: out
 * @nr_readers: this and what follows, but the last, is for SHMK_QUEUE_F_TOPIC and else 0: most subscriptions
 *	at once, 1 .. SHMK_TOPIC_READERS_MAX
 * @nr_holds: of each, 1 .. SHMK_TOPIC_HOLDS_MAX
 * @depth: 1 .. @capacity
 * @msg_bytes: 1 .. SHMK_TOPIC_MSG_MAX
 * @nr_elements: at least @capacity + @nr_readers * @nr_holds + 1
 * @block: with room for them, in use and the caller's
 * @block_gen: its generation
 * @max_tries: with F_REDELIVER: a message is dropped, and counted as lost, when so
 *	many have died with it unacknowledged, up to SHMK_TRIES_MAX; 0: never
 *
 * A topic has at least SHMK_TOPIC_SLOTS_MIN slots, of 64 bytes. Its block is the
 * topic's from then on, of the next generation; if the call fails it is still the
 * caller's, but for -EFAULT, when it is freed. -ENOSPC also when there are not
 * enough rows. Makes the queue and opens it for this attachment. It stays until it is
 * removed or the pool goes; with F_TRANSIENT at the latest until the last attachment has closed it,
 * and the last of its side files is closed. -EEXIST if there is one of this name.
 */
struct shmk_queue_create {
	__u32 size;
	__u32 flags;
	char  name[SHMK_NAME_LEN];
	__u32 capacity;
	__u32 slot_bytes;
	__u32 id;
	__u32 gen;
	__u32 nr_readers;
	__u32 nr_holds;
	__u32 depth;
	__u32 msg_bytes;
	__u32 nr_elements;
	__u32 block;
	__u32 block_gen;
	__u32 max_tries;
};

#define SHMK_QUEUE_CREATE_SIZE_1	88	/* of version 1 */

/**
 * struct shmk_queue_open - SHMK_IOC_QUEUE_OPEN, on an attachment
 * @size: sizeof(struct shmk_queue_open)
 * @flags: 0
 * @name: of the queue
 * @id: out
 * @gen: out
 *
 * Opens nest; each wants its SHMK_IOC_QUEUE_CLOSE. The end of the peer closes all.
 */
struct shmk_queue_open {
	__u32 size;
	__u32 flags;
	char  name[SHMK_NAME_LEN];
	__u32 id;
	__u32 gen;
};

/**
 * struct shmk_queue_close - SHMK_IOC_QUEUE_CLOSE, _REMOVE and _DRAIN, on an attachment
 * @size: sizeof(struct shmk_queue_close)
 * @flags: 0
 * @id: of the queue
 * @gen: of the queue; -ENOENT when it is another's by now
 *
 * REMOVE is -EBUSY while any attachment has it open. Its messages are freed.
 *
 * DRAIN sets SHMK_QUEUE_F_DRAIN in its status word and wakes both sides: nothing more is to
 * be sent. The queue is removed as soon as nobody has it open and there is no message in
 * it, a topic as soon as nobody has it open.
 */
struct shmk_queue_close {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 gen;
};

#define SHMK_QUEUE_FD_F_ROW	0x1

/**
 * struct shmk_queue_fd - SHMK_IOC_QUEUE_FD, on an attachment; returns a queue side file
 * @size: sizeof(struct shmk_queue_fd)
 * @flags: SHMK_QUEUE_FD_F_ROW: of the subscription @row; just for SHMK_SIDE_RECV of topics,
 *	which cannot do without
 * @id: of the queue, which this attachment must have open
 * @side: enum shmk_side
 * @row: this attachment's, else -ENOENT
 * @reserved: 0
 *
 * The file holds the queue open until it is closed. poll() is level-triggered:
 * when it finds nothing it sets the side's waiters word and looks again.
 * A side that is ready sets nothing: an edge-triggered user must take or put
 * until -EAGAIN, where the library sets the word.
 * Of SHMK_SIDE_SEND: receivers have no full fence before they look at that word unless the
 * ring is watched. Who polls without a timeout sets that first and waits 2 ms, see struct shmk_ring in
 * shmk_layout.h (the library does).
 */
struct shmk_queue_fd {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 side;
	__u32 row;
	__u32 reserved;
};

#define SHMK_QUEUE_FD_SIZE_1	16	/* of version 1 */

/**
 * struct shmk_topic_subscribe - SHMK_IOC_TOPIC_SUBSCRIBE, on an attachment
 * @size: sizeof(struct shmk_topic_subscribe)
 * @flags: 0
 * @id: of the topic, which this attachment must have open
 * @gen: of the topic
 * @policy: enum shmk_topic_policy; SHMK_TOPIC_WAIT is -EACCES on a read-only attachment
 * @entry: the first of 1 + nr_holds entries of the ledger, which the caller has set aside
 * @wait_ns: see struct shmk_row; 0 with SHMK_TOPIC_SKIP
 * @row: out
 * @reserved: 0
 *
 * -ENOSPC when the topic has all the readers it was made for. The row is
 * free again after SHMK_IOC_TOPIC_UNSUBSCRIBE, the last close of the topic, or the end of the peer.
 */
struct shmk_topic_subscribe {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 gen;
	__u32 policy;
	__u32 entry;
	__aligned_u64 wait_ns;
	__u32 row;
	__u32 reserved;
};

/**
 * struct shmk_topic_unsubscribe - SHMK_IOC_TOPIC_UNSUBSCRIBE, on an attachment
 * @size: sizeof(struct shmk_topic_unsubscribe)
 * @flags: 0
 * @id: of the topic
 * @row: this attachment's, else -ENOENT
 */
struct shmk_topic_unsubscribe {
	__u32 size;
	__u32 flags;
	__u32 id;
	__u32 row;
};

struct shmk_bell_one {
	__u32 id;
	__u32 side;
};

#define SHMK_BELLS_MAX		64

/**
 * struct shmk_bell - SHMK_IOC_BELL, on an attachment, and IORING_OP_URING_CMD
 * @size: sizeof(struct shmk_bell)
 * @nr: 1 .. SHMK_BELLS_MAX
 * @bells: pointer to nr struct shmk_bell_one
 *
 * Wakes who sleeps on these sides. As URING_CMD (cmd_op SHMK_IOC_BELL) the
 * sqe's cmd area holds { __u64 bells; __u32 nr; __u32 0 } and it completes
 * inline. Returns 0.
 */
struct shmk_bell {
	__u32 size;
	__u32 nr;
	__aligned_u64 bells;
};

struct shmk_bell_cmd {
	__u64 bells;
	__u32 nr;
	__u32 reserved;
};

/**
 * struct shmk_peer_info - SHMK_IOC_PEER_INFO, on a pool or attachment
 * @size: sizeof(struct shmk_peer_info); out: what the kernel filled
 * @peer: in: the first peer in use with an id of at least this is told,
 *	-ENOENT after the last; out: its id
 * @pid: of its thread group, in the caller's pid namespace; 0: not visible there
 * @uid: in the caller's user namespace
 * @flags: SHMK_PEER_RDONLY, SHMK_PEER_STUCK
 */
struct shmk_peer_info {
	__u32 size;
	__u32 peer;
	__u32 gen;
	__u32 state;
	__u32 flags;
	__s32 pid;
	__u32 uid;
	__u32 nr_entries;
	__aligned_u64 attached_ns;
	char  comm[16];
};

#define SHMK_PEER_STUCK		2	/* flag, beside SHMK_PEER_RDONLY: see SHMK_IOC_DEADLINE */

#define SHMK_CAPSULE_ENTRIES	64

/**
 * struct shmk_capsule - SHMK_IOC_CAPSULE, on a pool or attachment: what one who died left
 * @size: sizeof(struct shmk_capsule); out: what the kernel filled
 * @peer: id, @gen: its generation
 * @pid, @uid: as the caller sees them
 * @reason: enum shmk_reason, @code: see struct shmk_event
 * @high: so many entries of its ledger had been used at some time
 * @nr_entries: so many are told: those in use at its death, the first of them
 * @reserved: 0
 * @seq: in: the first capsule with at least this number is told, -ENOENT after the last; out: its number
 * @time_ns: of the death, @attached_ns: of the attach; CLOCK_MONOTONIC
 * @comm: of the peer
 * @entry: the words, as they were before anything was settled; as the dead wrote them
 *
 * Of ends that were not clean. A pool keeps the last few; nothing is taken away by being read.
 */
struct shmk_capsule {
	__u32 size;
	__u32 peer;
	__u32 gen;
	__s32 pid;
	__u32 uid;
	__u32 reason;
	__s32 code;
	__u32 high;
	__u32 nr_entries;
	__u32 reserved;
	__aligned_u64 seq;
	__aligned_u64 time_ns;
	__aligned_u64 attached_ns;
	char  comm[16];
	struct shmk_entry entry[SHMK_CAPSULE_ENTRIES];
};

#define SHMK_DEADLINE_MAX	86400000U	/* a day */

/**
 * struct shmk_deadline - SHMK_IOC_DEADLINE, on an attachment: when it counts as stuck
 * @size: sizeof(struct shmk_deadline)
 * @flags: 0
 * @ms: 0: never, as at first; or up to SHMK_DEADLINE_MAX
 * @reserved: 0
 *
 * If the word beats of its ledger has not changed for so long, the peer is stuck: its info says
 * so, and there is an event SHMK_EV_STUCK; when it changes, SHMK_EV_UNSTUCK. Nothing
 * else follows: it is alive, and keeps what it has. The kernel looks four times within the
 * shortest deadline of the pool, but no more than a hundred times a second, and as long as any
 * peer has one. This call itself is a sign of life.
 */
struct shmk_deadline {
	__u32 size;
	__u32 flags;
	__u32 ms;
	__u32 reserved;
};

enum shmk_event_type {
	SHMK_EV_ATTACHED	= 1,
	SHMK_EV_DETACHED	= 2,	/* a clean end: reason DETACHED or CLOSED */
	SHMK_EV_DIED		= 3,	/* any other end */
	SHMK_EV_QUEUE_CREATED	= 4,
	SHMK_EV_QUEUE_REMOVED	= 5,
	SHMK_EV_DESTROYED	= 6,	/* the pool's name is gone */
	SHMK_EV_LOST		= 7,	/* the reader was too slow: @code events are missing */
	SHMK_EV_RESET		= 8,	/* the pool's name is another pool's */
	SHMK_EV_CREATED		= 9,	/* only of netlink: nobody reads a pool's events before it is there */
	SHMK_EV_STUCK		= 10,	/* a peer has missed its own deadline; it is alive */
	SHMK_EV_UNSTUCK		= 11,	/* and goes on */
};

enum shmk_reason {
	SHMK_REASON_NONE	= 0,
	SHMK_REASON_DETACHED	= 1,	/* SHMK_IOC_DETACH */
	SHMK_REASON_CLOSED	= 2,	/* last file and mapping closed by a living process */
	SHMK_REASON_EXITED	= 3,	/* code = exit code */
	SHMK_REASON_KILLED	= 4,	/* code = signal */
	SHMK_REASON_EXEC	= 5,
	SHMK_REASON_UNKNOWN	= 6,	/* ended, and nobody can tell how */
};

/**
 * struct shmk_event - what read() of a pool, attachment or event file returns, a row of them
 * @type: enum shmk_event_type
 * @reason: enum shmk_reason
 * @seq: grows by one with each event of the pool
 * @time_ns: CLOCK_MONOTONIC; of an end: when everything was given back
 * @took_ns: of an end: from the moment the kernel knew to the moment everything was back;
 *	of STUCK and UNSTUCK: since the peer was last seen to move
 * @peer: id, @gen: its generation
 * @pid: in the pid namespace of the reader, 0 if not visible there
 * @uid: in the user namespace of the reader
 * @code: exit code, signal or number of lost events
 * @queue: id, of queue events
 * @blocks: given back to the pool, @bytes: their room
 * @messages: taken by the dead and lost with it
 * @redelivered: taken by the dead and not acknowledged: others may take them again
 * @comm: of the peer
 *
 * A file's reader begins at the moment the file was made. read() wants room
 * for at least one (-EINVAL), blocks unless O_NONBLOCK; poll() says EPOLLIN.
 */
struct shmk_event {
	__u32 type;
	__u32 reason;
	__u64 seq;
	__u64 time_ns;
	__u64 took_ns;
	__u32 peer;
	__u32 gen;
	__s32 pid;
	__u32 uid;
	__s32 code;
	__u32 queue;
	__u64 blocks;
	__u64 bytes;
	__u64 messages;
	char  comm[16];
	__u64 redelivered;
	__u64 reserved;
};

#define SHMK_IOC		0xB7

/* _IO without a size: the structs may grow, see their size field. */

/* on the device */
#define SHMK_IOC_INFO		_IO(SHMK_IOC, 0x00)
#define SHMK_IOC_POOL_CREATE	_IO(SHMK_IOC, 0x01)
#define SHMK_IOC_POOL_OPEN	_IO(SHMK_IOC, 0x02)
#define SHMK_IOC_POOL_DESTROY	_IO(SHMK_IOC, 0x03)
#define SHMK_IOC_POOL_NEXT	_IO(SHMK_IOC, 0x04)
#define SHMK_IOC_POOL_RESET	_IO(SHMK_IOC, 0x05)
/* on a pool; INFO, PEER_INFO and EVENTS also on an attachment */
#define SHMK_IOC_POOL_INFO	_IO(SHMK_IOC, 0x10)
#define SHMK_IOC_PEER_INFO	_IO(SHMK_IOC, 0x11)
#define SHMK_IOC_EVENTS		_IO(SHMK_IOC, 0x12)	/* returns a new event file */
#define SHMK_IOC_ATTACH		_IO(SHMK_IOC, 0x13)
#define SHMK_IOC_CAPSULE	_IO(SHMK_IOC, 0x14)
/* on an attachment */
#define SHMK_IOC_DETACH		_IO(SHMK_IOC, 0x20)
#define SHMK_IOC_QUEUE_CREATE	_IO(SHMK_IOC, 0x21)
#define SHMK_IOC_QUEUE_OPEN	_IO(SHMK_IOC, 0x22)
#define SHMK_IOC_QUEUE_CLOSE	_IO(SHMK_IOC, 0x23)
#define SHMK_IOC_QUEUE_REMOVE	_IO(SHMK_IOC, 0x24)
#define SHMK_IOC_QUEUE_FD	_IO(SHMK_IOC, 0x25)
#define SHMK_IOC_BELL		_IO(SHMK_IOC, 0x26)
#define SHMK_IOC_TOPIC_SUBSCRIBE _IO(SHMK_IOC, 0x27)
#define SHMK_IOC_TOPIC_UNSUBSCRIBE _IO(SHMK_IOC, 0x28)
#define SHMK_IOC_QUEUE_DRAIN	_IO(SHMK_IOC, 0x29)
#define SHMK_IOC_DEADLINE	_IO(SHMK_IOC, 0x2a)
#define SHMK_IOC_RELEASE	_IO(SHMK_IOC, 0x2e)	/* looks now which PINNED blocks are free */

#endif
