/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * shmk.h - libshmk: messages between processes of one machine, through memory
 * that survives any of them.
 *
 * Words
 *   pool        memory of a fixed size with a name.
 *   struct shmk an attachment: this process as a peer of one pool. A process
 *               may have several, also to the same pool.
 *   message     struct shmk_msg: a block of the pool that this peer holds, or a
 *               short text that came inline.
 *   queue       bounded; each message goes to one receiver, ownership moves.
 *
 * Names of pools are URIs: "shmk:NAME" is the module (/dev/shmk), "local:NAME"
 * the local backend (files under /dev/shm, no module, no root); plain "NAME" is
 * the module where it is there, else local.
 *
 * Errors: every call returns 0 or a positive number, or -errno; errno is not
 * touched. Common ones: -EINVAL bad argument, -ENOENT no such thing, -EAGAIN
 * nothing to receive or no room and the deadline was SHMK_TRY, -ETIMEDOUT the
 * deadline passed, -EINTR shmk_interrupt(), -ENOMEM the pool has no block of
 * that size, -ENOBUFS this peer's ledger is full, -EROFS a read-only member
 * tried to write, -ESHUTDOWN the pool was reset (shmk_pool_reset()), -EUCLEAN shared memory holds what no correct peer writes.
 * A call that fails changes nothing, if nothing else is said.
 *
 * Threads: all calls on an attachment and its queues may run in several
 * threads at once, except that nothing may run beside shmk_detach(), and
 * nothing on a queue beside its shmk_queue_close(). A struct shmk_msg belongs to one
 * thread at a time. Locks are taken only once the process has made a thread, and not on
 * what was attached with SHMK_ATTACH_ONE_THREAD: then all calls on it, its queues and messages
 * are for one thread at a time, and it is the caller who sees to that; but for
 * shmk_interrupt(), shmk_resume() and shmk_not_stuck(), which may come from any. Who breaks it
 * can spoil what this peer itself holds and sends, as any stray write of it could.
 *
 * Death: a peer may be killed between any two instructions of any call. What
 * it held comes back to the pool; a message it was sending is delivered once or
 * not at all; a message it had taken is gone with it and counted. Nobody waits
 * for it.
 *
 * fork: a child does not inherit attachments; its calls on them are undefined,
 * but shmk_detach(), which then only forgets. exec ends the peer.
 *
 * The library makes no threads, installs no handlers, hooks no exit.
 */
#ifndef SHMK_H
#define SHMK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHMK_API __attribute__((visibility("default")))
#else
#define SHMK_API
#endif

struct shmk;
struct shmk_queue;
struct shmk_poller;
struct io_uring_sqe;
struct io_uring_cqe;

/* ---------------------------------------------------------- deadlines -- */

/* Absolute, nanoseconds of CLOCK_MONOTONIC. */
#define SHMK_TRY	((int64_t)0)		/* never sleep */
#define SHMK_FOREVER	INT64_MAX

/* shmk_deadline_ms() - now + @ms; SHMK_FOREVER if @ms is negative, SHMK_TRY if it is 0. */
SHMK_API int64_t shmk_deadline_ms(int64_t ms);

/* -------------------------------------------------------------- pools -- */

#define SHMK_POOL_PERSIST	0x1	/* lives without any peer until destroyed */
/*
 * With the module, a block whose holder died while a device, a pipe or a registered
 * buffer still had its pages is given out again only when they are let go. In a pool
 * whose members keep all of it registered for good none would ever be: this turns it off.
 */
#define SHMK_POOL_NO_QUARANTINE	0x2
#define SHMK_POOL_DRAINING	0x40000000U	/* told by shmk_pool_stat() only: shmk_pool_drain() */

/**
 * struct shmk_pool_opts - what a new pool is to be; zero means the default
 * @bytes: of payload; a multiple of the page size and of 64 KiB (256 units);
 *	made exactly so or not at all
 * @page_bytes: 4096 (default) or 2 MiB
 * @unit_bytes: grain of blocks, a power of two, 256 (default) .. 64 KiB
 * @flags: SHMK_POOL_PERSIST
 * @mode: permission bits; default 0600
 * @set_owner: use @uid and @gid
 * @set_node: use @node
 * @nr_peers: default 1024
 * @nr_queues: default 1024
 * @rings_bytes: room for all queues; default bytes/16, 256 KiB .. 64 MiB
 */
struct shmk_pool_opts {
	uint64_t	bytes;
	uint32_t	page_bytes;
	uint32_t	unit_bytes;
	uint32_t	flags;
	uint32_t	mode;
	bool		set_owner;
	bool		set_node;
	uint32_t	uid;
	uint32_t	gid;
	int32_t		node;
	uint32_t	nr_peers;
	uint32_t	nr_queues;
	uint64_t	rings_bytes;
};

/**
 * shmk_pool_create() - make a pool, exclusively
 *
 * A pool that is not persistent needs a peer to live: use shmk_attach() with
 * @create for those. -EEXIST: the name is taken; told two seconds late of a pool whose
 * peers have all ended, which may be about to go. -ENOMEM, -ENOSPC: not enough
 * memory, nothing was kept. -EPERM: RLIMIT_MEMLOCK or a limit of the module.
 * -EOPNOTSUPP: this backend cannot do that (2 MiB pages, NUMA node: module only).
 */
SHMK_API int shmk_pool_create(const char *uri, const struct shmk_pool_opts *opts);

/* shmk_pool_destroy() - take the name away; -EBUSY while a living peer is attached. */
SHMK_API int shmk_pool_destroy(const char *uri);

#define SHMK_RESET_FORCE	0x1	/* although peers are attached */

/**
 * shmk_pool_reset() - a pool of the same name, size, owner and mode, with nothing in it
 *
 * Nothing that was in it is left, and nobody who was: everybody blocked in the old one
 * wakes with -ESHUTDOWN, and there all calls that would wait, allocate, send, receive,
 * publish, take, open or subscribe fail so from then on. What a peer holds it can
 * read and free until it detaches; then it may attach anew. No memory that is
 * mapped goes away under anybody, so there must be memory for both.
 *
 * -EBUSY: living peers are attached, and no SHMK_RESET_FORCE; or somebody else is
 * resetting it. -EPERM: neither owner nor root; or a limit. -ENOMEM, -ENOSPC. A
 * reset that fails has changed nothing.
 */
SHMK_API int shmk_pool_reset(const char *uri, unsigned int flags);

/**
 * shmk_pool_drain() - let nobody in any more; the pool goes with its last peer
 *
 * Those that are attached go on as before. Attaching is -ESHUTDOWN from then on, but with
 * SHMK_ATTACH_RDONLY, to look; the name is taken until the pool is gone, and it is persistent
 * no longer. At once if nobody is attached.
 * May be repeated; cannot be taken back. -EPERM: of another user.
 */
SHMK_API int shmk_pool_drain(const char *uri);

/**
 * struct shmk_pool_stat - a pool at some moment
 * @blocks_used: blocks held or queued, @bytes_used: their room; counted by a
 *	walk over the spans in use (grows with the pool)
 */
struct shmk_pool_stat {
	char		name[64];
	char		backend[16];	/* "shmk" or "local" */
	uint64_t	bytes;
	uint64_t	memory_bytes;
	uint32_t	page_bytes;
	uint32_t	unit_bytes;
	uint32_t	flags;
	int32_t		node;		/* -1: any */
	uint32_t	mode;
	uint32_t	uid;
	uint32_t	gid;
	uint32_t	nr_peers;	/* most there may be */
	uint32_t	nr_queues;
	uint32_t	peers_now;
	uint32_t	queues_now;
	uint64_t	blocks_used;
	uint64_t	bytes_used;
	uint64_t	attaches;
	uint64_t	detaches;
	uint64_t	deaths;
	uint64_t	reclaimed_blocks;
	uint64_t	reclaimed_bytes;
	uint64_t	lost_messages;
	uint64_t	age_ns;
	uint64_t	redelivered;	/* messages that went back into their queue */
};

/**
 * shmk_pool_list() - tell all pools of a backend that the caller may read
 * @scheme: "shmk", "local" or NULL for both
 * @tell: called for each; a nonzero return ends the walk and is returned
 */
SHMK_API int shmk_pool_list(const char *scheme,
			    int (*tell)(const struct shmk_pool_stat *info, void *arg),
			    void *arg);

/**
 * shmk_pool_cleanup() - remove what no living process holds
 * @uri: a pool, or "local:" or "shmk:" for all of a backend
 *
 * With the module there is never anything to do but for persistent pools, and
 * those stay. Return: number of pools removed; -EBUSY for one named pool in use.
 */
SHMK_API int shmk_pool_cleanup(const char *uri);

/* -------------------------------------------------------- attachments -- */

#define SHMK_ATTACH_RDONLY	0x1	/* look only; can never write data or control */
#define SHMK_ATTACH_NO_URING	0x2	/* sleep by poll whatever SHMK_WAIT in the environment says */
#define SHMK_ATTACH_PREFAULT	0x4	/* map all pages now, not at first touch */
#define SHMK_ATTACH_AT		0x8	/* the data at an address of the caller's, see @data_at */
#define SHMK_ATTACH_ONE_THREAD	0x10	/* only one thread at a time will use it: no locks */
#define SHMK_ATTACH_NO_MEMBARRIER 0x20	/* locks by locked instructions: where a filter kills for it */

/**
 * struct shmk_attach_opts - zero means the default
 * @flags: SHMK_ATTACH_*
 * @nr_entries: how many messages this peer may hold at once; default 4096. Its spans
 *	need some of them, and are given up for messages
 * @spin_us: spin up to so long before sleeping; default 0: adapt by
 *	itself (up to 50 us); -1: never
 * @create: not NULL: make the pool if it does not exist (open or create)
 * @exclusive: with @create: -EEXIST if it does
 * @deadline: without @create: wait so long for the pool to appear (SHMK_TRY: do not)
 * @pool_fd: module only: attach through this pool file (inherited or passed
 *	by SCM_RIGHTS) if it is not 0; the name in the URI is then empty ("shmk:")
 * @data_at: with SHMK_ATTACH_AT: the data is mapped at this address, or not at all: -EADDRINUSE.
 *	A multiple of the page size. Nothing in shmk needs it: for data with pointers in it
 */
struct shmk_attach_opts {
	uint32_t	flags;
	uint32_t	nr_entries;
	int32_t		spin_us;
	const struct shmk_pool_opts *create;
	bool		exclusive;
	int64_t		deadline;
	int		pool_fd;
	void		*data_at;
};

/**
 * shmk_attach() - become a peer of a pool
 * @uri: see above; "local:" or "shmk:" with @create: an anonymous pool
 * @opts: NULL for all defaults
 * @out: set on success
 *
 * -ENOENT no such pool; -EACCES; -ENOSPC all peer ids are taken; -EPROTO the
 * pool was made by another version of the layout.
 */
SHMK_API int shmk_attach(const char *uri, const struct shmk_attach_opts *opts,
			 struct shmk **out);

/**
 * shmk_detach() - stop being a peer
 *
 * What it still holds is freed, its open queues are closed (their handles are
 * gone), in any order. When it returns all that is done, and the peer's id free; but on the
 * module what takes longer than a second (10^6 blocks on a slow machine) is done later, and
 * SHMK_EV_DETACHED tells when.
 * Never fails; NULL is ignored.
 */
SHMK_API void shmk_detach(struct shmk *s);

SHMK_API int shmk_pool_stat(struct shmk *s, struct shmk_pool_stat *stat);
SHMK_API uint32_t shmk_self(const struct shmk *s);		/* own peer id */
SHMK_API uint32_t shmk_self_gen(const struct shmk *s);

/* shmk_pool_fd() - the module's pool file, to pass on; -EOPNOTSUPP on local. Not the caller's to close. */
SHMK_API int shmk_pool_fd(const struct shmk *s);

/* shmk_contains() - do @len bytes at @ptr lie wholly in the pool's data, as mapped here? */
SHMK_API bool shmk_contains(const struct shmk *s, const void *ptr, size_t len);

/* -------------------------------------------------------------- peers -- */

/* shmk_peer_alive() - two loads: does life @gen of peer @id go on? Exact on the module; see Documentation for local. */
SHMK_API bool shmk_peer_alive(struct shmk *s, uint32_t id, uint32_t gen);

struct shmk_peer {
	uint32_t	id;
	uint32_t	gen;
	bool		dead;		/* still being settled */
	bool		rdonly;
	bool		stuck;		/* see shmk_stuck_after() */
	int32_t		pid;		/* 0: not visible here */
	uint32_t	uid;
	uint32_t	nr_entries;
	uint64_t	attached_ns;	/* CLOCK_MONOTONIC */
	char		comm[16];
};

/* shmk_peer_next() - tell the first peer with an id of at least @id; -ENOENT after the last. */
SHMK_API int shmk_peer_next(struct shmk *s, uint32_t id, struct shmk_peer *peer);

/**
 * shmk_stuck_after() - let others hear when this peer does not get on
 * @ms: 0: never, as at first; or up to a day
 *
 * A death needs no deadline. This is for one that lives and hangs: if it has not called
 * shmk_not_stuck() for @ms, everybody gets an event SHMK_EV_STUCK, and SHMK_EV_UNSTUCK when it
 * calls it again; shmk_peer_next() says it, too. Nothing else follows. It is told within half as
 * much again, and the clock goes on while the process is stopped or has no processor.
 * Module only: -EOPNOTSUPP. -EINVAL. This call itself is a sign of life.
 */
SHMK_API int shmk_stuck_after(struct shmk *s, uint32_t ms);

/* shmk_not_stuck() - a sign of life: one store, no system call. From any thread; not in a forked child. */
SHMK_API void shmk_not_stuck(struct shmk *s);

/* shmk_wait_peers() - until at least @n peers (this one counts) are attached. */
SHMK_API int shmk_wait_peers(struct shmk *s, uint32_t n, int64_t deadline);

/* --------------------------------------------------------- interrupts -- */

/**
 * shmk_interrupt() - every blocked and every coming call that would block returns -EINTR
 *
 * Until shmk_resume(). Safe in any thread and in signal handlers.
 */
SHMK_API void shmk_interrupt(struct shmk *s);
SHMK_API void shmk_resume(struct shmk *s);

/* ------------------------------------------------------------- events -- */

struct shmk_event;	/* <linux/shmk.h> */

/**
 * shmk_event_fd() - readable when shmk_event_next() has something
 *
 * The fd stays the library's. Events begin at the attachment. It may be readable for
 * nothing: shmk_event_next() says -EAGAIN then, as it does behind the last event.
 *
 * On the local backend a death is an event when somebody has looked for the dead. The fd is
 * readable when the process of another peer ends, too, and shmk_event_next() looks; but only of
 * 64 peers, and of those whose pid is visible here, not when they exec, and from Linux 5.3.
 * Who wants to hear of all calls shmk_event_next() now and then. An fd of a queue
 * (shmk_queue_fd()) is told only by who has looked: poll this one beside it.
 */
SHMK_API int shmk_event_fd(struct shmk *s);

/* shmk_event_next() - 0 and an event, or -EAGAIN. On local, looks for dead peers first. */
SHMK_API int shmk_event_next(struct shmk *s, struct shmk_event *event);

/* ----------------------------------------------------------- monitors -- */

struct shmk_monitor;

#define SHMK_MONITOR_EXISTING	0x1	/* tell the pools there are as SHMK_EV_CREATED */

/**
 * struct shmk_monitor_event - what happened in some pool
 * @type: SHMK_EV_* of <linux/shmk.h>. SHMK_EV_LOST: some are missing; what has become of the
 *	pools meanwhile is told behind it, as created and destroyed
 * @reason, @code, @took_ns, @blocks, @bytes, @messages, @redelivered: of an end, as in struct shmk_event
 * @seq: of the machine (module), or of the pool (local)
 * @pool, @pool_id: which; a pool of the same name that comes later has another id
 * @has_detail: false: who watches is not privileged, and just type, time, pool, peer, gen and
 *	queue are known
 * @pid, @uid: as the initial namespaces have them (module), or the peer itself (local)
 */
struct shmk_monitor_event {
	uint32_t	type;
	uint32_t	reason;
	uint64_t	seq;
	uint64_t	time_ns;
	uint64_t	took_ns;
	uint64_t	pool_id;
	char		pool[64];
	uint32_t	peer;
	uint32_t	gen;
	uint32_t	queue;
	int32_t		pid;
	uint32_t	uid;
	int32_t		code;
	uint64_t	blocks;
	uint64_t	bytes;
	uint64_t	messages;
	uint64_t	redelivered;
	bool		has_detail;
	char		comm[16];
};

/**
 * shmk_monitor_open() - watch pools without being in any
 * @uri: "shmk:" or "local:" for all pools, or one pool, whether it exists or not: the monitor
 *	goes on with the next one of that name
 * @flags: SHMK_MONITOR_*
 *
 * With the module it listens to netlink; everything is told to who has CAP_NET_ADMIN, ids
 * to all others. On local it looks ten times a second, and settles the dead as a peer would.
 * -ENODEV: there is no module. -EOPNOTSUPP: the module, in a static program without libmnl.
 */
SHMK_API int shmk_monitor_open(const char *uri, unsigned int flags, struct shmk_monitor **out);

/*
 * shmk_monitor_fd() - readable when it is time for shmk_monitor_next(), which is to be
 * called until it says -EAGAIN. The fd stays the library's.
 */
SHMK_API int shmk_monitor_fd(const struct shmk_monitor *m);

/* shmk_monitor_next() - 0 and an event, or -EAGAIN; never waits. One thread at a time. */
SHMK_API int shmk_monitor_next(struct shmk_monitor *m, struct shmk_monitor_event *event);

SHMK_API void shmk_monitor_close(struct shmk_monitor *m);

/* ----------------------------------------------------------- messages -- */

#define SHMK_INLINE_MAX	240

/**
 * struct shmk_msg - a message that this process holds
 * @data: where; in the pool, or in @small for an inline one
 * @len: bytes of payload; set it (or shmk_resize()) before sending
 * @room: bytes that may be used at @data; of a received message just @len,
 *	shmk_resize() finds out whether there is more
 *
 * @redelivered: so many peers had received it before and died with it unacknowledged
 *	(SHMK_QUEUE_REDELIVER)
 *
 * @tag, @id: of a message of a TAGGED queue; the sender's to set, 0 after shmk_alloc()
 * @sender, @sender_gen: who sent it to a TAGGED queue: peer id, and the low 16 bits of the
 *	generation of that life; else 0
 *
 * Do not copy the struct; shmk_msg_move() does. All other members are the
 * library's. A struct that holds nothing has data == NULL.
 */
struct shmk_msg {
	void		*data;
	size_t		len;
	size_t		room;
	struct shmk	*shmk;
	uint32_t	block;
	uint32_t	gen;
	uint32_t	entry;
	uint32_t	kind;
	uint64_t	from;
	struct shmk_queue *queue;
	uint32_t	redelivered;
	uint32_t	tag;
	uint32_t	sender;
	uint32_t	sender_gen;
	uint64_t	id;
	unsigned char	small[SHMK_INLINE_MAX] __attribute__((aligned(16)));
};

/**
 * shmk_alloc() - a block of at least @len bytes
 * @align: of its start in memory: 0 or a power of two up to 4096
 *
 * @msg->len = @len, room is what the block really has. The contents are
 * whatever was there. -ENOMEM: the pool has no such block now; -E2BIG: it
 * never can have; -ENOBUFS; -EROFS.
 * Source of the private span: the thread-local heaps of mimalloc and snmalloc.
 */
SHMK_API int shmk_alloc(struct shmk *s, size_t len, size_t align, struct shmk_msg *msg);

/**
 * shmk_alloc_wait() - the same, but wait for a block while the pool has none
 *
 * Looks again every 50 us at first, then every 5 ms: no bell rings when memory is freed. What a
 * dead peer held is found as soon as it is settled. -ETIMEDOUT, -EINTR; with SHMK_TRY it is shmk_alloc().
 */
SHMK_API int shmk_alloc_wait(struct shmk *s, size_t len, size_t align, struct shmk_msg *msg,
			     int64_t deadline);

/* shmk_free() - give it back; of an inline or empty message it forgets the contents. */
SHMK_API void shmk_free(struct shmk_msg *msg);

/**
 * shmk_keep() - how much of what it frees may this attachment keep for its own next allocations?
 * @bytes: at most so many, in at most 32 blocks; 0: none, and what is kept goes
 *
 * A block that is kept is allocated again without a locked operation, and that of a message that was
 * received without going back to the sender's processor: whoever answers one message with another
 * is a third faster for it. Nobody else can have it meanwhile: it counts as used and as held by
 * this peer (shmk_pool_dump() says which), and other peers may see -ENOMEM for want of it, or of the rest of
 * the span it is cut from. It goes back when this peer sleeps in the library, is told -EAGAIN by what it has
 * an fd of, runs short itself, detaches, or dies.
 *
 * Who never calls this keeps one block, once it has freed and allocated blocks of one size in turn
 * 16 times without sleeping in between. It goes back as above, when two are freed in a row or another size is
 * allocated, and by shmk_pool_stat(), so that a program does not find in use what it has freed. It is
 * no larger (nor is the span it is cut from) than that all peers attached just then could keep a quarter of the
 * pool. Who stops then to call the library, or only polls, goes on keeping it; who has asked for an fd to
 * wait with (shmk_queue_fd(), shmk_sub_fd(), shmk_poller_fd()) keeps none. -EROFS.
 */
SHMK_API int shmk_keep(struct shmk *s, size_t bytes);

/* shmk_resize() - change the payload length in place; -ENOSPC if @len > room; -EBUSY: shared. */
SHMK_API int shmk_resize(struct shmk_msg *msg, size_t len);

SHMK_API void shmk_msg_move(struct shmk_msg *to, struct shmk_msg *from);

/**
 * shmk_msg_share() - a second reference to the same payload
 * @other: must hold nothing; holds the second one on success
 *
 * Both are messages of their own from then on: held, sent to any queues,
 * received, shared again and freed each by itself, in any order, by any peers.
 * The payload goes when the last one does. A reference ends with its holder.
 *
 * Nothing is copied (but inline messages), and nothing protects the payload: as
 * long as shmk_msg_shared(), who writes to it writes to the others' message.
 * Its length is fixed; room is len.
 *
 * Costs two blocks of one unit and a ledger entry. -ENOMEM, -ENOBUFS; -EBUSY: the
 * message is not held in the plain way. -EMLINK: 48 splits lie between this one and the
 * payload. share_many() splits evenly, and who shares the only reference left begins
 * anew; but who for ever shares the newest of several and drops the oldest gets
 * there, and has to copy. A message that was received stays the one that counts as lost.
 */
SHMK_API int shmk_msg_share(struct shmk_msg *msg, struct shmk_msg *other);

/* shmk_msg_share_many() - @n more references, all or none. */
SHMK_API int shmk_msg_share_many(struct shmk_msg *msg, struct shmk_msg *others, unsigned int n);

/**
 * shmk_msg_shared() - has anybody else a reference to this payload?
 *
 * False is for good, until the caller shares it again: all others have done with
 * it, and it may be written. True may be over at once.
 */
SHMK_API bool shmk_msg_shared(const struct shmk_msg *msg);

/**
 * shmk_msg_refs() - how many references there are, in hands and in queues
 *
 * By a walk over the pool (there is no counter), so for people and tests; of
 * others' running work it sees some instant for each reference.
 */
SHMK_API int shmk_msg_refs(const struct shmk_msg *msg);

/* --------------------------------------------- messages of several parts -- */

/**
 * shmk_msg_inline() - a short message without a block, up to SHMK_INLINE_MAX bytes
 *
 * To be sent inline, or as a part. -EMSGSIZE.
 */
SHMK_API int shmk_msg_inline(struct shmk *s, const void *buf, size_t len, struct shmk_msg *msg);

/**
 * shmk_msg_pack() - one message of @n parts, 1 to 64
 * @msgs: the parts, in their order; hold nothing any more on success
 * @whole: must hold nothing; the message
 *
 * No payload is copied, but of inline messages: the parts' blocks go along in an
 * envelope, and may be references. The whole is sent, received, shared
 * and freed like one message, and all or none of it comes over. -E2BIG: more
 * than 64; -EINVAL: a part has parts; -EBUSY, -ENOMEM, -ENOBUFS.
 */
SHMK_API int shmk_msg_pack(struct shmk_msg *msgs, unsigned int n, struct shmk_msg *whole);

/**
 * shmk_msg_unpack() - take it apart again
 * @whole: holds nothing any more on success
 * @max: room in @msgs, which must hold nothing
 *
 * A message without parts is its only one. Return: how many. -EMSGSIZE: more than
 * @max; -ENOBUFS; -EBUSY: shared, or of a queue that redelivers: read its parts
 * where they are.
 */
SHMK_API int shmk_msg_unpack(struct shmk_msg *whole, struct shmk_msg *msgs, unsigned int max);

/**
 * shmk_msg_parts() - how many parts it has; 0 if it is a plain message
 *
 * shmk_recv() of such a message gives the whole: its len is 0, and nothing is to be
 * read at its data. Freeing it frees all; shmk_recv_copy() copies all parts, one
 * after the other.
 */
SHMK_API unsigned int shmk_msg_parts(const struct shmk_msg *msg);

/* shmk_msg_part() - where part @i is, and its length; its lifetime is the whole's. -ENOENT. */
SHMK_API int shmk_msg_part(const struct shmk_msg *whole, unsigned int i, void **data, size_t *len);

/* ------------------------------------------------------------- queues -- */

#define SHMK_QUEUE_CREATE	0x1	/* make it if there is none */
#define SHMK_QUEUE_EXCL		0x2	/* with CREATE: -EEXIST if there is one */
#define SHMK_QUEUE_SP		0x10	/* made for one producer at a time */
#define SHMK_QUEUE_SC		0x20	/* made for one receiver at a time */
#define SHMK_QUEUE_TAGGED	0x100	/* messages carry who sent them, a tag and an id */
#define SHMK_QUEUE_REDELIVER	0x40	/* what a dead receiver had not acknowledged goes to another */
#define SHMK_QUEUE_TOPIC	0x80	/* told by shmk_queue_next() only: shmk_topic_open() */
#define SHMK_QUEUE_TRANSIENT	0x200	/* goes, with its messages, when nobody has it open any more */
#define SHMK_QUEUE_DRAINING	0x400	/* told by shmk_queue_next() only: shmk_queue_drain() */
#define SHMK_QUEUE_HANGUP	0x1000	/* of this attachment: -EPIPE instead of waiting when alone */

/**
 * struct shmk_queue_opts - zero means the default
 * @flags: SHMK_QUEUE_*; SP, SC, REDELIVER, TAGGED and TRANSIENT count when it is made
 * @capacity: messages, a power of two up to 65536; default 64
 * @slot_bytes: 64 (default), 128 or 256: inline messages up to 16 less, with TAGGED 32 less
 * @max_tries: with REDELIVER: when so many receivers have died with a message it is
 *	dropped and counted as lost; up to 32767; default 0: never
 */
struct shmk_queue_opts {
	uint32_t	flags;
	uint32_t	capacity;
	uint32_t	slot_bytes;
	uint32_t	max_tries;
};

/**
 * shmk_queue_open() - open a queue by name, or make it
 * @deadline: without CREATE: how long to wait for somebody to make it
 *
 * With HANGUP, receiving from the empty queue, or sending to the full one, is -EPIPE when
 * no other attachment has it open, also for who is already asleep then. What was sent
 * before comes first.
 *
 * An existing queue keeps its own capacity and kind. With SP or SC the first
 * call that sends or receives takes the role; -EBUSY there while a living peer
 * has it. The role ends with the last shmk_queue_close() of the attachment, or with the peer.
 *
 * With REDELIVER a message stays in its slot until its receiver acknowledges it:
 * by shmk_free(), by sending it on, or at the end of shmk_recv_copy(). If the
 * receiver dies or detaches before that, another one gets the message, at its old
 * place in the order. A message that is held, inline or not, costs a ledger entry
 * and its slot: no message can be sent that lies a whole capacity behind the
 * oldest one that is not acknowledged, and a receiver passes by those that
 * others hold. A queue may be closed while messages of it are held.
 */
SHMK_API int shmk_queue_open(struct shmk *s, const char *name,
			     const struct shmk_queue_opts *opts, int64_t deadline,
			     struct shmk_queue **out);
SHMK_API void shmk_queue_close(struct shmk_queue *q);

/*
 * shmk_queue_remove() - -EBUSY while anyone has it open; its messages are freed.
 *
 * A queue and its messages stay when all have closed it, or died, until this or the end of
 * the pool. One that was made TRANSIENT goes with the last that has it open, who may be killed;
 * what is in it then is freed.
 */
SHMK_API int shmk_queue_remove(struct shmk *s, const char *name);

/**
 * shmk_queue_drain() - let nothing more in; the queue goes when it is empty and nobody has it open
 * @name: of a queue or topic
 * @deadline: how long to wait until it is gone
 *
 * From then on sending is -ESHUTDOWN, also for who is blocked in it. What was sent before is
 * received as ever; who finds nothing left gets -ESHUTDOWN instead of waiting, and should
 * close. A message that is not acknowledged (REDELIVER) is not gone: it may come back, and
 * is waited for. A send that was under way may still succeed; its message may come after a
 * receiver has been told that nothing is left, and then keeps the queue until somebody opens it
 * and takes it. Of a topic, publishing and becoming the writer is -ESHUTDOWN, a reader reads to
 * the end; it goes when nobody has it open.
 *
 * May be repeated; cannot be taken back, whoever dies. Return: 0: it is gone. -EAGAIN (SHMK_TRY),
 * -ETIMEDOUT: not yet; it drains all the same. -ENOENT.
 */
SHMK_API int shmk_queue_drain(struct shmk *s, const char *name, int64_t deadline);

/**
 * shmk_queue_reset() - receive and free what is in the queue, while others have it open
 *
 * Takes all that was there when it began, and none of what is sent after it has returned. Needs the
 * receiver's role of a queue made for one receiver. Return: how many messages, or -errno.
 */
SHMK_API int64_t shmk_queue_reset(struct shmk_queue *q);

/**
 * shmk_send() - pass a message on; on success @msg holds nothing any more
 *
 * The block itself moves; whatever was received can be sent on (forwarding).
 * An inline message is sent inline if the slot has room for it, else -EMSGSIZE;
 * but one of a REDELIVER queue in a block: @msg->data may be another one even if the
 * call fails, -ENOMEM is possible.
 * -EINVAL: @msg is of another pool or empty.
 * If the sender dies within: the message is delivered once, or freed.
 * Order: of one sender to one queue, as sent.
 */
SHMK_API int shmk_send(struct shmk_queue *q, struct shmk_msg *msg, int64_t deadline);

/**
 * shmk_send_copy() - send a copy of @len bytes: inline if they fit into the slot, else in a block
 */
SHMK_API int shmk_send_copy(struct shmk_queue *q, const void *buf, size_t len,
			    int64_t deadline);

/**
 * shmk_send_ptr() - send @len bytes at @ptr, which must begin the data of a message that this
 *	attachment holds
 *
 * For code that passes pointers about. -EFAULT if it is no such message.
 * (Looks for the entry in the ledger: costs what this peer holds.)
 */
SHMK_API int shmk_send_ptr(struct shmk_queue *q, const void *ptr, size_t len,
			   int64_t deadline);

/**
 * shmk_send_batch() - send up to @n messages, one doorbell for all
 *
 * Return: how many were sent, from the first; less than @n when the queue
 * was full at the deadline; -errno only if none was.
 */
SHMK_API int shmk_send_batch(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
			     int64_t deadline);

/**
 * shmk_recv() - the next message; the caller holds it until it frees or sends it
 * @msg: must hold nothing
 *
 * If the receiver dies within or later: the block is freed, the message lost
 * and counted (lost_messages). With REDELIVER it goes to another receiver.
 */
SHMK_API int shmk_recv(struct shmk_queue *q, struct shmk_msg *msg, int64_t deadline);

/* shmk_recv_copy() - copy the next message to @buf and free it. Its length, or -EMSGSIZE, and it stays in the queue. */
SHMK_API int64_t shmk_recv_copy(struct shmk_queue *q, void *buf, size_t room, int64_t deadline);

/* shmk_recv_batch() - up to @n that are there, waiting for the first only. Return: how many. */
SHMK_API int shmk_recv_batch(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
			     int64_t deadline);

/**
 * shmk_send_multi() - send @n messages as the parts of one; on success they hold nothing any more
 *
 * As shmk_msg_pack() and shmk_send(), but that a failure leaves all as it was.
 */
SHMK_API int shmk_send_multi(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int n,
			     int64_t deadline);

/**
 * shmk_recv_multi() - receive a message and take it apart
 *
 * Return: how many parts, 1 for a plain message. When it was received but cannot be
 * taken apart (-EMSGSIZE, -EBUSY, -ENOBUFS; never with room for 64 parts that are
 * not shared, and entries for them), @msgs[0] holds it whole; else @msgs[0].data is NULL.
 */
SHMK_API int shmk_recv_multi(struct shmk_queue *q, struct shmk_msg *msgs, unsigned int max,
			     int64_t deadline);

/**
 * struct shmk_queue_stats - a queue at some moment
 * @sent, @received: positions, so messages since it was made (modulo capacity << 32)
 * @depth: messages waiting now; REDELIVER: from the oldest one not acknowledged on
 * @redelivered: so often a message went back into the queue
 */
struct shmk_queue_stats {
	char		name[64];
	uint32_t	id;
	uint32_t	gen;
	uint32_t	flags;		/* SHMK_QUEUE_SP, _SC, _REDELIVER, _TAGGED */
	uint32_t	capacity;
	uint32_t	slot_bytes;
	uint32_t	nr_open;
	uint64_t	sent;
	uint64_t	received;
	uint32_t	depth;
	bool		recv_waiting;	/* a receiver sleeps */
	bool		send_waiting;
	/* of this handle; approximate if several threads use it: */
	uint64_t	my_sent;
	uint64_t	my_received;
	uint64_t	my_sleeps;	/* who waits for room sleeps for 32 ms at a time at most */
	uint64_t	my_bells;
	uint64_t	redelivered;	/* of the queue */
};

SHMK_API int shmk_queue_stats(struct shmk_queue *q, struct shmk_queue_stats *stats);
/* shmk_queue_next() - stats of the first queue with an id of at least @id; -ENOENT after the last. */
SHMK_API int shmk_queue_next(struct shmk *s, uint32_t id, struct shmk_queue_stats *stats);

/* ------------------------------------------------------------- topics -- */

struct shmk_topic;
struct shmk_sub;

#define SHMK_TOPIC_CREATE	0x1	/* make it if there is none */
#define SHMK_TOPIC_EXCL		0x2	/* with CREATE: -EEXIST if there is one */
#define SHMK_TOPIC_TRANSIENT	0x200	/* goes when nobody has it open any more */

/**
 * struct shmk_topic_opts - zero means the default; all but @flags count when it is made
 * @flags: SHMK_TOPIC_CREATE, _EXCL, _TRANSIENT
 * @depth: messages that are kept, for late or slow readers; default 1
 * @nr_readers: most subscriptions at once, up to 4096; default 16
 * @nr_holds: messages that each may hold at once, up to 256; default 1
 * @msg_bytes: largest message; default 1024
 * @spare: room for more messages than it needs; the more, the less often the
 *	writer looks what the readers hold. Default @nr_readers * @nr_holds
 *
 * A topic needs (depth, at least 4 and rounded up to a power of two, + nr_readers * nr_holds +
 * 1 + spare) * (msg_bytes + 64) bytes of the pool, in one piece, from when it is made to when
 * it is removed (shmk_queue_remove()); -ENOMEM or -E2BIG if they are not there.
 */
struct shmk_topic_opts {
	uint32_t	flags;
	uint32_t	depth;
	uint32_t	nr_readers;
	uint32_t	nr_holds;
	uint32_t	msg_bytes;
	uint32_t	spare;
};

/**
 * shmk_topic_open() - open a topic by name, or make it
 * @deadline: without CREATE: how long to wait for somebody to make it
 *
 * A topic is a queue of the pool: one name, one table. shmk_queue_open() of a
 * topic and shmk_topic_open() of a queue are -EINVAL. -ENOSPC: all ids, room for
 * rings or rows of readers (4 for each peer that the pool may have) are taken.
 */
SHMK_API int shmk_topic_open(struct shmk *s, const char *name,
			     const struct shmk_topic_opts *opts, int64_t deadline,
			     struct shmk_topic **out);
/* shmk_topic_close() - ends its subscriptions and the writer's role, too. NULL is ignored. */
SHMK_API void shmk_topic_close(struct shmk_topic *t);

/**
 * shmk_topic_writer() - become the writer of a topic
 *
 * There is one at a time. SHMK_TRY: -EBUSY while another one lives; else waits
 * until it leaves (shmk_topic_writer_release(), close) or dies; of all that
 * wait exactly one gets it, the first that came (of the first seven; of more in no order), or
 * the next one if that is stopped for a second. -EBUSY also while another one waits and is
 * just waking.
 */
SHMK_API int shmk_topic_writer(struct shmk_topic *t, int64_t deadline);
SHMK_API void shmk_topic_writer_release(struct shmk_topic *t);

/**
 * struct shmk_loan - room for a message, in the topic's own memory
 * @data: where, @room bytes; NULL: nothing
 */
struct shmk_loan {
	void		*data;
	size_t		room;
	struct shmk_topic *topic;
	uint64_t	era;
	uint32_t	element;
};

/**
 * shmk_topic_loan() - room to write the next message in place
 *
 * Never waits. -EPERM: not the writer. -EBUSY: all that is free is lent already;
 * one is always free, @spare more at least.
 */
SHMK_API int shmk_topic_loan(struct shmk_topic *t, struct shmk_loan *loan);

/**
 * shmk_topic_publish() - the first @len bytes of a loan are the topic's last message
 *
 * On success the loan holds nothing any more. One word publishes: killed before
 * it, nothing has happened, and the message before is still the last one. Waits
 * for nobody but readers that subscribed with SHMK_TOPIC_WAIT. -EPERM: not the
 * writer. -EMSGSIZE; -EINVAL: nothing lent, or in an earlier time as the writer.
 */
SHMK_API int shmk_topic_publish(struct shmk_topic *t, struct shmk_loan *loan, size_t len,
				int64_t deadline);
SHMK_API void shmk_topic_unloan(struct shmk_loan *loan);
SHMK_API int shmk_topic_publish_copy(struct shmk_topic *t, const void *buf, size_t len,
				     int64_t deadline);

enum shmk_sub_start {
	SHMK_START_NEW		= 0,	/* what is published from now on */
	SHMK_START_LAST		= 1,	/* the last message first, if there is one */
	SHMK_START_OLDEST	= 2,	/* all that the topic keeps */
};

/**
 * struct shmk_sub_opts - zero means the default
 * @wait: the writer waits for this reader instead of overwriting what it has not read:
 *	what is published after shmk_topic_subscribe() is not dropped. Not for read-only
 *	members (-EROFS)
 * @wait_ns: with @wait: but so long at most, each time; then this reader misses
 *	messages, and is not waited for until it has read one; 0: for ever
 * @start: enum shmk_sub_start
 */
struct shmk_sub_opts {
	bool		wait;
	uint32_t	start;
	int64_t		wait_ns;
};

/**
 * shmk_topic_subscribe() - read a topic
 *
 * Takes 1 + nr_holds entries of the ledger (-ENOBUFS). -ENOSPC: the topic has all the
 * readers that it was made for. A subscription is for one thread at a time.
 */
SHMK_API int shmk_topic_subscribe(struct shmk_topic *t, const struct shmk_sub_opts *opts,
				  struct shmk_sub **out);
/* shmk_topic_unsubscribe() - what it holds is released, too. NULL is ignored. */
SHMK_API void shmk_topic_unsubscribe(struct shmk_sub *sub);

/**
 * struct shmk_held - a message of a topic
 * @data: in the pool, not to be written; of a copy NULL
 * @seq: counts the messages of the topic, from 1, whoever wrote them
 * @time_ns: when it was published, CLOCK_MONOTONIC
 * @writer, @writer_gen: the peer that wrote it
 * @writer_alive: is it still there?
 * @dropped: messages that this subscription has missed so far
 */
struct shmk_held {
	const void	*data;
	size_t		len;
	uint64_t	seq;
	int64_t		time_ns;
	uint32_t	writer;
	uint32_t	writer_gen;
	bool		writer_alive;
	uint64_t	dropped;
	struct shmk_sub	*sub;
	uint32_t	entry;
};

/**
 * shmk_topic_take() - hold the next message; it stays as it is until shmk_topic_release()
 *
 * -EBUSY: nr_holds are held already. -EAGAIN, -ETIMEDOUT: nothing new. Who was
 * too slow gets the oldest one that there is, and @dropped counts.
 */
SHMK_API int shmk_topic_take(struct shmk_sub *sub, struct shmk_held *held, int64_t deadline);

/* shmk_topic_take_last() - hold the last message, seen or not; reading goes on behind it. -EAGAIN: there is none yet. */
SHMK_API int shmk_topic_take_last(struct shmk_sub *sub, struct shmk_held *held);

/* shmk_topic_release() - -EINVAL if it holds nothing. */
SHMK_API int shmk_topic_release(struct shmk_held *held);

/**
 * shmk_topic_read() - copy the next message, without holding it
 * @held: filled but for @data; may be NULL
 *
 * Return: its length, or -EMSGSIZE, and it is still the next.
 */
SHMK_API int64_t shmk_topic_read(struct shmk_sub *sub, void *buf, size_t room,
				 struct shmk_held *held, int64_t deadline);

/* shmk_topic_read_last() - copy the last message, with no subscription at all. -EAGAIN: there is none yet. */
SHMK_API int64_t shmk_topic_read_last(struct shmk_topic *t, void *buf, size_t room,
				      struct shmk_held *held);

/**
 * struct shmk_topic_stats - a topic at some moment
 * @published: messages ever
 * @writer: the writer, 0: there is none, or it is dead; @writer_gen
 * @nr_subs: readers there are
 * @my_scans: how often this handle, as the writer, looked at the readers' holds
 */
struct shmk_topic_stats {
	char		name[64];
	uint32_t	id;
	uint32_t	gen;
	uint32_t	depth;
	uint32_t	nr_readers;
	uint32_t	nr_holds;
	uint32_t	msg_bytes;
	uint32_t	nr_elements;
	uint32_t	nr_subs;
	uint64_t	published;
	uint32_t	writer;
	uint32_t	writer_gen;
	uint64_t	my_scans;
};

SHMK_API int shmk_topic_stats(struct shmk_topic *t, struct shmk_topic_stats *stats);

/**
 * struct shmk_sub_stats - of one subscription
 * @received: messages taken or copied, @dropped: missed
 * @behind: published and not read yet
 */
struct shmk_sub_stats {
	uint64_t	received;
	uint64_t	dropped;
	uint64_t	behind;
};

SHMK_API int shmk_sub_stats(struct shmk_sub *sub, struct shmk_sub_stats *stats);

/**
 * shmk_sub_fd() - readable (POLLIN) while there is something to read; as shmk_queue_fd()
 *
 * -EOPNOTSUPP for read-only members on local.
 */
SHMK_API int shmk_sub_fd(struct shmk_sub *sub);

/* ----------------------------------------------------------- endpoints -- */

struct shmk_endpoint;

/**
 * struct shmk_endpoint_opts - zero means the default
 * @attach: for the first endpoint of this process in the pool; NULL: defaults
 * @queue: how to open the queue; NULL: it must be there
 * @deadline: wait so long for the queue (and with @attach->deadline for the pool)
 */
struct shmk_endpoint_opts {
	const struct shmk_attach_opts *attach;
	const struct shmk_queue_opts *queue;
	int64_t		deadline;
};

/**
 * shmk_endpoint_open() - a queue by one string, "shmk:POOL/QUEUE", "local:POOL/QUEUE", "POOL/QUEUE"
 *
 * All endpoints of a process in one pool share one attachment: what was received by one can be
 * sent by another. -EPROTONOSUPPORT: another scheme. -EINVAL: SHMK_ATTACH_ONE_THREAD, which
 * an attachment that is shared cannot be. Else as shmk_attach() and shmk_queue_open().
 */
SHMK_API int shmk_endpoint_open(const char *uri, const struct shmk_endpoint_opts *opts,
				struct shmk_endpoint **out);
/* shmk_endpoint_close() - the last one of a pool detaches. Release what it received before. */
SHMK_API void shmk_endpoint_close(struct shmk_endpoint *ep);
SHMK_API struct shmk_queue *shmk_endpoint_queue(const struct shmk_endpoint *ep);
SHMK_API struct shmk *shmk_endpoint_shmk(const struct shmk_endpoint *ep);

/* ---------------------------------------------------------- mailboxes -- */

struct shmk_mailbox;

#define SHMK_ANY_PEER	0U
#define SHMK_ANY_TAG	UINT32_MAX
#define SHMK_TAG_REPLY	0xfffffffeU	/* of answers to requests; not for others' use */

/**
 * struct shmk_mailbox_opts - zero means the default
 * @capacity, @slot_bytes: as of a queue
 */
struct shmk_mailbox_opts {
	uint32_t	capacity;
	uint32_t	slot_bytes;
};

/**
 * shmk_mailbox_open() - be reachable by peer id; one mailbox for an attachment
 *
 * It is a TAGGED queue named by this peer's id and generation, so that mail to one life
 * never reaches the next one of the same id. -EBUSY: there is one already.
 * A mailbox goes when neither its owner has it open nor who has sent there. These close those of
 * the dead with the next letter to anybody or the next sleep; until then each is one of the
 * pool's queues.
 * A mailbox is used by one thread at a time.
 */
SHMK_API int shmk_mailbox_open(struct shmk *s, const struct shmk_mailbox_opts *opts,
			       struct shmk_mailbox **out);
/* shmk_mailbox_close() - what is in it is freed. After shmk_detach() it must not be called. */
SHMK_API void shmk_mailbox_close(struct shmk_mailbox *mb);
/* shmk_mailbox_queue() - its queue, for shmk_queue_fd() and the like; not to be received from. */
SHMK_API struct shmk_queue *shmk_mailbox_queue(struct shmk_mailbox *mb);

/**
 * shmk_mail_send() - send @msg to a peer's mailbox; on success @msg holds nothing any more
 * @to, @gen: the peer's life; @gen 0: whichever now has that id
 *
 * -ENOENT: it has no mailbox, after waiting for one until @deadline.
 * -EPIPE: it is dead; at once, also when it dies while this call waits for room.
 * Order: of one sender and one tag, as sent.
 */
SHMK_API int shmk_mail_send(struct shmk *s, uint32_t to, uint32_t gen, uint32_t tag,
			    struct shmk_msg *msg, int64_t deadline);
SHMK_API int shmk_mail_send_copy(struct shmk *s, uint32_t to, uint32_t gen, uint32_t tag,
				 const void *buf, size_t len, int64_t deadline);

/**
 * shmk_mail_recv() - the first message from @from (or SHMK_ANY_PEER) with @tag (or SHMK_ANY_TAG)
 *
 * Others wait aside, held by this peer, until they are asked for. @from: of whatever life that
 * id has had, see @msg->sender_gen; who is dead is waited for until @deadline.
 */
SHMK_API int shmk_mail_recv(struct shmk_mailbox *mb, uint32_t from, uint32_t tag,
			    struct shmk_msg *msg, int64_t deadline);

/**
 * shmk_mail_recv_from() - the same, of one life only: @from and @gen, neither of them 0
 *
 * -EPIPE: that life is over, and nothing that it sent is left; at once, also when it ends
 * while this call waits.
 */
SHMK_API int shmk_mail_recv_from(struct shmk_mailbox *mb, uint32_t from, uint32_t gen, uint32_t tag,
				 struct shmk_msg *msg, int64_t deadline);

/* struct shmk_mail_info - of what shmk_mail_recv() would return now; @gen: its low 16 bits */
struct shmk_mail_info {
	uint32_t	from;
	uint32_t	gen;
	uint32_t	tag;
	size_t		len;
};

/* shmk_mail_probe() - 0 and @info (unless NULL), or -EAGAIN. Never waits. */
SHMK_API int shmk_mail_probe(struct shmk_mailbox *mb, uint32_t from, uint32_t tag,
			     struct shmk_mail_info *info);

/* ------------------------------------------------- requests and replies -- */

/**
 * shmk_request_send() - send a request to a service; any number may be outstanding
 * @mb: where the reply is to come
 * @service: a queue made with TAGGED and REDELIVER; servers just receive from it, and
 *	answer by shmk_reply()
 *
 * If a server dies with the request, another one gets it (again, after what
 * the dead one may have done); with @max_tries = 1 of the queue no other gets it, and
 * the reply is -EOWNERDEAD. Return: its number, > 0.
 */
SHMK_API int64_t shmk_request_send(struct shmk_mailbox *mb, struct shmk_queue *service,
				   struct shmk_msg *msg, int64_t deadline);

/**
 * shmk_reply_recv() - the reply to request @id, or to any if it is 0
 *
 * @msg->id tells to which. -EOWNERDEAD: its server died, or gave up, and nobody else
 * will answer; @msg->id is set. -ENOENT: there is no such request.
 * A request that was not answered at the deadline (-ETIMEDOUT) stays outstanding. A server
 * that frees a request and does not answer is noticed by the next event or at the deadline.
 */
SHMK_API int shmk_reply_recv(struct shmk_mailbox *mb, int64_t id, struct shmk_msg *msg,
			     int64_t deadline);

/* shmk_request_cancel() - a reply that comes later is dropped. -ENOENT. */
SHMK_API int shmk_request_cancel(struct shmk_mailbox *mb, int64_t id);

/* shmk_call() - send @msg, wait, and @msg is the reply. If it fails once sent, the request is cancelled. */
SHMK_API int shmk_call(struct shmk_mailbox *mb, struct shmk_queue *service,
		       struct shmk_msg *msg, int64_t deadline);

/**
 * shmk_reply() - answer @request, received from a service, with @reply
 *
 * On success both hold nothing any more. -EPIPE: who asked is gone, has no
 * mailbox, or did not ask by shmk_request_send(); @request is freed, @reply is not.
 * With another error both are still held.
 * A server that dies within: the reply has been sent, or another server gets the
 * request, or both; then the second reply is dropped.
 */
SHMK_API int shmk_reply(struct shmk_msg *request, struct shmk_msg *reply, int64_t deadline);

/* --------------------------------------------- the caller's event loop -- */

#define SHMK_RECV	0	/* enum shmk_side */
#define SHMK_SEND	1

/**
 * shmk_queue_fd() - an fd for poll, epoll, select or io_uring
 * @side: SHMK_RECV: readable while there is a message; SHMK_SEND: on the module
 *	writable (POLLOUT), on local readable (POLLIN), while there is room
 *
 * shmk_queue_events() tells which events to ask for. Level-triggered.
 * A spurious wake-up is possible: call with SHMK_TRY, and go back to the loop
 * on -EAGAIN, which arms the fd. The fd stays the library's; do not read it.
 */
SHMK_API int shmk_queue_fd(struct shmk_queue *q, int side);
SHMK_API short shmk_queue_events(struct shmk_queue *q, int side);

/**
 * shmk_uring_prep_wait() - fill an sqe of the caller's own ring with a multishot poll of a side
 *
 * A completion means: take (or put) until -EAGAIN. When shmk_uring_handle() of
 * the completion returns 1 the poll has ended and must be prepared again; 0:
 * it is still armed; -errno: it failed.
 */
SHMK_API int shmk_uring_prep_wait(struct shmk_queue *q, int side, struct io_uring_sqe *sqe);
SHMK_API int shmk_uring_handle(struct shmk_queue *q, const struct io_uring_cqe *cqe);

/* ------------------------------------------------------------- pollers -- */

#define SHMK_READY_QUEUE	1	/* receive from, or send to, @queue */
#define SHMK_READY_EVENTS	2	/* call shmk_event_next() until -EAGAIN */
#define SHMK_READY_FD		3	/* @fd is ready for @events */
#define SHMK_READY_SUB		4	/* read @sub */

/**
 * struct shmk_ready - something that a poller found ready
 * @kind: SHMK_READY_*
 * @tag: as given when it was added
 * @queue, @side: of SHMK_READY_QUEUE
 * @sub: of SHMK_READY_SUB
 * @fd: of SHMK_READY_FD, else -1
 * @events: as of poll(2): POLLIN, POLLOUT, POLLHUP ...
 */
struct shmk_ready {
	int		kind;
	int		side;
	int		fd;
	uint32_t	events;
	void		*tag;
	struct shmk_queue *queue;
	struct shmk_sub	*sub;
};

/**
 * shmk_poller_open() - one wait for many queues, the attachment's events, and other fds
 *
 * A poller belongs to one thread at a time. What is in it stays the caller's. It is gone after
 * shmk_poller_close() or shmk_detach().
 */
SHMK_API int shmk_poller_open(struct shmk *s, struct shmk_poller **out);
SHMK_API void shmk_poller_close(struct shmk_poller *p);

/**
 * shmk_poller_add() - a side of a queue (SHMK_RECV, SHMK_SEND) of this attachment
 *
 * shmk_queue_close() takes it out. -EEXIST: it is in already.
 */
SHMK_API int shmk_poller_add(struct shmk_poller *p, struct shmk_queue *q, int side, void *tag);
/* shmk_poller_add_sub() - a subscription; the end of that takes it out. -EOPNOTSUPP as shmk_sub_fd(). */
SHMK_API int shmk_poller_add_sub(struct shmk_poller *p, struct shmk_sub *sub, void *tag);
/* shmk_poller_add_events() - attaches, deaths ...: when shmk_event_next() has something (or, seldom, had). */
SHMK_API int shmk_poller_add_events(struct shmk_poller *p, void *tag);
/* shmk_poller_add_fd() - @events as of poll(2). Remove it before it is closed. -EPERM: fd that cannot be polled. */
SHMK_API int shmk_poller_add_fd(struct shmk_poller *p, int fd, short events, void *tag);
/* shmk_poller_remove() and its like: -ENOENT if it is not in. */
SHMK_API int shmk_poller_remove(struct shmk_poller *p, struct shmk_queue *q, int side);
SHMK_API int shmk_poller_remove_sub(struct shmk_poller *p, struct shmk_sub *sub);
SHMK_API int shmk_poller_remove_events(struct shmk_poller *p);
SHMK_API int shmk_poller_remove_fd(struct shmk_poller *p, int fd);

/**
 * shmk_poller_wait() - until something is ready
 * @ready: filled with up to @n; what was told before comes last
 *
 * Level-triggered: what stays ready is told again. Another may be faster, so use SHMK_TRY on
 * what is ready. Return: how many, or -EAGAIN, -ETIMEDOUT, -EINTR.
 */
SHMK_API int shmk_poller_wait(struct shmk_poller *p, struct shmk_ready *ready, unsigned int n,
			      int64_t deadline);

/**
 * shmk_poller_fd() - readable (POLLIN) when the poller has something
 *
 * For a loop of the caller's own. When it is readable: shmk_poller_wait() with SHMK_TRY until
 * -EAGAIN, which arms it; from then on that costs what was ready since. While the
 * attachment is interrupted the fd is readable and -EINTR comes instead.
 * The fd stays the library's.
 */
SHMK_API int shmk_poller_fd(struct shmk_poller *p);
/* The same in the caller's io_uring; see shmk_uring_prep_wait(). */
SHMK_API int shmk_poller_prep_wait(struct shmk_poller *p, struct io_uring_sqe *sqe);
SHMK_API int shmk_poller_handle(struct shmk_poller *p, const struct io_uring_cqe *cqe);

/* ------------------------------------------------------ looking inside -- */

/* Where a block is, or an inline message, or what else stands in a ledger. */
enum shmk_holding_state {
	SHMK_HOLDING_HELD	= 1,	/* in @peer's hands: from alloc */
	SHMK_HOLDING_RECEIVED	= 2,	/* the same: from @queue, at @pos */
	SHMK_HOLDING_UNACKED	= 3,	/* the same, and also in its slot until it is acknowledged */
	SHMK_HOLDING_SENDING	= 4,	/* on its way into @queue */
	SHMK_HOLDING_TAKING	= 5,	/* on its way out of @queue */
	SHMK_HOLDING_QUEUED	= 6,	/* waits in @queue; @peer is 0 */
	SHMK_HOLDING_KEPT	= 7,	/* a message of topic @queue, which its readers can still have */
	SHMK_HOLDING_TOPIC	= 8,	/* the block that all messages of topic @queue are in */
	SHMK_HOLDING_READING	= 9,	/* a message of topic @queue that reader @peer holds */
	SHMK_HOLDING_PART	= 10,	/* in a message of several parts, whose holder is told */
	SHMK_HOLDING_SHARED	= 11,	/* of a shared message: no reference itself, others lead here */
	SHMK_HOLDING_MOVING	= 12,	/* in use; changed hands while we looked */
	/* Not messages, but what a ledger has beside them: */
	SHMK_HOLDING_SPAN	= 13,	/* memory that @peer allocates from: @len of @room in use */
	SHMK_HOLDING_WAITING	= 14,	/* @peer sleeps, or is about to, on side @pos of @queue */
	SHMK_HOLDING_SUBSCRIBED	= 15,	/* @peer reads topic @queue, and wants @pos next */
	SHMK_HOLDING_SPARE	= 16,	/* freed by @peer, which keeps it, asked or not: shmk_keep() */
};

#define SHMK_HOLDING_NOWHERE	UINT32_MAX

/**
 * struct shmk_holding - who holds what
 * @state: enum shmk_holding_state
 * @peer, @gen: the life that has it, 0: nobody
 * @entry: of its ledger, or SHMK_HOLDING_NOWHERE
 * @shared: a reference: others have the same payload
 * @block: SHMK_NO_BLOCK of <linux/shmk_layout.h>: none, it is inline
 * @offset: of the payload in the pool's data; UINT64_MAX: inline
 * @len: of the payload; 0 while it was neither sent nor shared: only its holder knows it then
 * @room: bytes that the block has
 * @queue: where it is, goes or came from, or SHMK_HOLDING_NOWHERE
 * @pos: in that queue
 * @distance: QUEUED: messages before it; received ones: taken from that queue since
 * @tries: peers that received it and died with it unacknowledged
 * @since_ns: CLOCK_MONOTONIC, of a topic's message when it was published; else 0: no time
 *	is stored with a block. It is not longer than @peer is attached.
 */
struct shmk_holding {
	uint32_t	state;
	uint32_t	peer;
	uint32_t	gen;
	uint32_t	entry;
	bool		shared;
	uint32_t	block;
	uint64_t	offset;
	uint64_t	len;
	uint64_t	room;
	uint32_t	queue;
	uint32_t	tries;
	uint64_t	pos;
	uint64_t	distance;
	int64_t		since_ns;
};

/**
 * shmk_pool_dump() - tell who holds what: all ledgers, all queues, and all blocks in use
 * @tell: called for each; a nonzero return ends the walk and is returned
 *
 * Asks nobody and changes nothing: works while all others are stopped, and for a read-only
 * member. Of work that goes on it sees some instant for each block. -ENOMEM.
 */
SHMK_API int shmk_pool_dump(struct shmk *s,
			    int (*tell)(const struct shmk_holding *holding, void *arg), void *arg);

struct shmk_capsule;	/* <linux/shmk.h> */

/**
 * shmk_capsule_next() - what one of the last who died was doing just then
 * @seq: the first that is kept with at least this number is told; 0 to begin
 *
 * Of those whose end was not clean. The kernel keeps a few of each pool until more come; reading
 * takes none away. -ENOENT: no more. -EOPNOTSUPP: the local backend keeps none.
 */
SHMK_API int shmk_capsule_next(struct shmk *s, uint64_t seq, struct shmk_capsule *capsule);

/**
 * shmk_capsule_holding() - entry @i of it, decoded: what the dead said that it had
 *
 * It has been settled since: the block can be another's, and the queue with this id another one.
 * Where it was, and in which state; not how long it was. -ENOENT: no more.
 */
SHMK_API int shmk_capsule_holding(struct shmk *s, const struct shmk_capsule *capsule, uint32_t i,
				  struct shmk_holding *holding);

/**
 * struct shmk_pool_space - what the allocator has left
 * @spans, @span_bytes: what the pool is divided into
 * @spans_untouched: not in use by anyone for anything
 * @spans_empty: those, and those whose blocks are all free, whoever allocates from them
 * @largest: the largest block that shmk_alloc() could give right now
 */
struct shmk_pool_space {
	uint64_t	spans;
	uint64_t	span_bytes;
	uint64_t	spans_untouched;
	uint64_t	spans_empty;
	uint64_t	largest;
};

/* shmk_pool_space() - by a walk over the pool; for people, monitors and tests. */
SHMK_API int shmk_pool_space(struct shmk *s, struct shmk_pool_space *space);

/* ------------------------------------------------------------- checks -- */

/**
 * shmk_pool_check() - walk every invariant of the pool
 * @report: filled with the first violation, its words decoded; may be NULL
 *
 * Sees a living pool: what is being changed right then is looked at again.
 * Return: 0, or -EUCLEAN.
 */
SHMK_API int shmk_pool_check(struct shmk *s, char *report, size_t len);

/* shmk_version() - of the library, "0.1.0". */
SHMK_API const char *shmk_version(void);

#ifdef __cplusplus
}
#endif

#endif
