/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * internal.h - what the library's files share.
 *
 * Private memory (struct shmk, struct shmk_queue) is this process's alone and
 * dies with it; it never has to be repaired. What must survive stands in the
 * ledger first.
 */
#ifndef SHMK_INTERNAL_H
#define SHMK_INTERNAL_H

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/single_threaded.h>
#include <sys/types.h>
#include <linux/shmk.h>
#include <linux/shmk_layout.h>

#include "backend.h"
#include "order.h"
#include "settle.h"
#include "shmk.h"

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)
/* Of what is made anew for each kind of queue, whose flags are then known to the compiler. */
#define always_inline	inline __attribute__((always_inline))
/* What is rare, or one of several of a kind: its registers are its own. */
#define noinline	__attribute__((noinline))

/* First in a public function that calls into libc: errno stays the caller's. */
static inline void errno_restore(const int *saved)
{
	errno = *saved;
}
#define ERRNO_KEPT \
	const int errno_saved __attribute__((cleanup(errno_restore), unused)) = errno

/* A hint that it is going to be written. gcc has it for x86 only if told of a newer processor; older ones ignore it. */
static always_inline void prefetchw(const void *p)
{
#if defined(__x86_64__)
	__asm__ volatile("prefetchw %0" : : "m" (*(const char *)p));
#else
	__builtin_prefetch(p, 1);
#endif
}

struct span_heap;	/* block.c */
struct waiter;		/* wait.c */
struct mail_route;	/* mail.c */

/*
 * A lock of private memory. Costs nothing while the process has one thread, or said that it
 * is used by one; a few plain loads and stores for the thread that it belongs to: see lock.c.
 * Whoever locked must unlock with the returned value: a second thread may have started in
 * between.
 */
struct lock {
	atomic_uint	held;
	atomic_uchar	inside;		/* the biased thread has it, or is just looking; its alone */
	bool		biased;		/* is it had by bias? of who has it */
	bool		none;		/* SHMK_ATTACH_ONE_THREAD; set when made */
	uint8_t		revoked;	/* how often, up to RUN_SHIFT; under @held, as what follows */
	atomic_uintptr_t bias;		/* the thread that needs no @held, or 0 */
	uintptr_t	who;		/* had it last; once there was a bias: whose it was */
	uint32_t	run;		/* times in a row that @who had it */
	uint32_t	given;		/* when the bias was, in ms */
};

/* lock.c. Of the process; a grace period, once, if it has threads already. */
void lock_bias_init(void);
void lock_shared(struct lock *lock);

/* Not two at a time have the same; who comes later may have that of one that ended. */
static always_inline uintptr_t thread_self(void)
{
#if defined(__x86_64__) && defined(__LP64__)
	uintptr_t self;

	__asm__("movq %%fs:0, %0" : "=r" (self));	/* clang of Debian 12 has no builtin for it */
	return self;
#elif defined(__aarch64__)
	return (uintptr_t)__builtin_thread_pointer();
#else
	return (uintptr_t)pthread_self();
#endif
}

static always_inline bool lock_biased(struct lock *lock)
{
	uintptr_t self = thread_self();

	if (atomic_load_explicit(&lock->bias, memory_order_relaxed) != self)
		return false;
	atomic_store_explicit(&lock->inside, 1, memory_order_relaxed);		/* L1 */
	atomic_signal_fence(memory_order_seq_cst);
	if (likely(atomic_load_explicit(&lock->bias, memory_order_relaxed) == self)) { /* L2 */
		lock->biased = true;
		return true;
	}
	atomic_store_explicit(&lock->inside, 0, memory_order_release);
	return false;
}

static inline bool lock(struct lock *lock)
{
	if (likely(__libc_single_threaded || lock->none))
		return false;
	if (!lock_biased(lock))
		lock_shared(lock);
	return true;
}

static inline void unlock(struct lock *lock, bool locked)
{
	if (!locked)
		return;
	if (lock->biased) {
		lock->biased = false;
		atomic_store_explicit(&lock->inside, 0, memory_order_release);	/* L3 */
	} else {
		atomic_store_explicit(&lock->held, 0, memory_order_release);
	}
}

/* store.c; under shmk->lock */
#define NR_KEPT	32

struct kept {
	uint32_t		block, gen, entry;
	uint32_t		units;		/* room */
};

/* So many frees and allocations in turn, and one block is kept unasked. */
#define STORE_TURNS	16

struct store {
	uint64_t		most;		/* bytes, if */
	bool			asked;		/* by shmk_keep(); else one block, by these two: */
	bool			freed;		/* since the last allocation */
	uint8_t			turns;		/* since this peer slept; written by WRITE_ONCE() */
	uint32_t		nr;
	uint64_t		bytes;
	struct kept		kept[NR_KEPT];
};

struct shmk {
	const struct shmk_backend *backend;
	void			*priv;		/* the backend's */

	/* set by backend->attach() */
	const struct shmk_status *status;
	struct shmk_ledger	*ledger;	/* own */
	const unsigned char	*ledgers;	/* ledger_stride apart, of peer 0 first */
	unsigned char		*control;
	unsigned char		*data;
	void			*data_at;	/* where it is to be, or NULL; set before attach() */
	uint32_t		self;
	uint32_t		gen;
	bool			rdonly;

	/* copies of the status, so that the fast path touches one line */
	struct shmk_view	view;		/* spans, blocks, bitmaps, queue lookup */
	uint64_t		data_bytes;
	uint32_t		nr_entries;

	pid_t			pid;		/* who attached: a forked child may only forget */
	int32_t			spin_us;
	bool			no_uring;

	struct lock		lock;		/* entries, heap */
	uint32_t		*free_entries;	/* stack of used ones */
	uint32_t		nr_free_entries;
	uint32_t		fresh_entry;	/* from here on none was ever used */
	struct span_heap	*heap;
	struct store		store;

	atomic_int		interrupted;
	int			interrupt_fd;	/* eventfd, readable while interrupted */
	struct waiter		*waiters;	/* uring.c: idle ones; under lock */
	uint32_t		spin_max_ns;	/* 0: never spin */
	bool			spin_adapts;
	int64_t			next_reap;	/* now_ns() */
	uint64_t		last_serial;	/* of side_fd; under lock */
	void			*events;	/* the stream of shmk_event_next() */
	struct shmk_queue	*queues;	/* open ones; under lock */
	struct shmk_poller	*pollers;	/* under lock */
	struct shmk_topic	*topics;	/* likewise */
	struct mail_route	*routes;	/* mail.c: mailboxes of others; under lock */
	struct mail_route	**route_of;	/* by peer id; made with the first; likewise */
	int64_t			last_request;	/* call.c: ids, none twice in this life; of the mailbox */
	uint64_t		routes_swept;	/* as many lives had ended by then; by WRITE_ONCE() */
	struct shmk_mailbox	*mailbox;	/* the own one */
	struct shmk_queue	*closing;	/* closed, but held by a message or a request; under lock */
};

struct side_fd {
	int		fd;		/* -1: not made yet; made by side_open() */
	short		events;
	bool		exported;	/* the caller polls it: -EAGAIN must arm it */
	uint64_t	serial;		/* names the fd; never used again */
};

/* Is spinning worth while? A failure makes more and more waits do without. */
struct spin {
	uint8_t		skip;		/* so many waits do not spin */
	uint8_t		penalty;	/* so many it will be after the next failure */
};

struct shmk_queue {
	struct shmk		*shmk;
	struct shmk_ring_view	rv;
	__u64			pos_mask;	/* positions are modulo capacity << 32 */
	uint32_t		index_mask;	/* capacity - 1 */
	uint32_t		look_most;	/* steps of a look around the ring */
	const __u64		*word;		/* in the status region; says whether it drains */
	uint32_t		id;
	uint32_t		gen;
	uint32_t		flags;		/* SHMK_QUEUE_F_* */
	uint32_t		inline_max;
	uint32_t		meta;		/* F_META: bytes before the inline ones; else 0 */
	uint32_t		nr_open;	/* of this handle; under shmk->lock */
	uint64_t		handle;		/* of all that this process ever makes, from 1 */
	struct lock		role_lock[2];	/* F_SC, F_SP: one thread at a time */
	bool			have_role[2];
	bool			hangup;		/* SHMK_QUEUE_HANGUP */
	struct side_fd		side[2];	/* under shmk->lock while being made */
	struct spin		spin[2];	/* hints */
	uint64_t		nr[2];		/* messages received, sent by this handle */
	uint64_t		nr_sleeps;
	uint64_t		nr_bells;
	uint32_t		nr_held;	/* messages not acknowledged, requests not answered; atomic */
	uint32_t		nr_calls;	/* the latter; atomic */
	bool			closing;	/* closed but for those; under shmk->lock */
	struct source		*sources;	/* poller.c: of the pollers that have it; under shmk->lock */
	uint8_t			ahead;		/* enum ahead, by the last message received; a hint, unlocked */
	struct shmk_queue	*next;
	/* topic.c, which has its own idea of what a side waits for; else NULL */
	bool			(*ready)(struct shmk_queue *q, uint32_t side);
	void			(*arming)(struct shmk_queue *q, uint32_t side);	/* before S1; or NULL */
	uint32_t		row;		/* of the fds, see backend.h */
};

/*
 * ledger.c: entries of the own ledger. -ENOBUFS when all are in use. put() sets
 * NONE. _locked: s->lock is held. Getting one that was used before is a few
 * instructions of each message: here, to be part of its callers.
 */
int ledger_init(struct shmk *s);
void ledger_exit(struct shmk *s);
/* One that was never used; for want of it, that of a block that is kept, or an own span's. */
int entry_fresh_locked(struct shmk *s, uint32_t *index);

/* @nr in a row; all NONE. The caller puts each. */
int entries_get(struct shmk *s, uint32_t nr, uint32_t *first);

static inline struct shmk_entry *entry_at(struct shmk *s, uint32_t index)
{
	return &s->ledger->entry[index];
}

/* Order for the settler only: where, then what. */
static inline void entry_set(struct shmk *s, uint32_t index, __u64 what, __u64 where)
{
	struct shmk_entry *e = entry_at(s, index);

	WRITE_ONCE(e->where, where);
	barrier();
	WRITE_ONCE(e->what, what);
	barrier();
}

static inline void entry_what(struct shmk *s, uint32_t index, __u64 what)
{
	barrier();
	WRITE_ONCE(entry_at(s, index)->what, what);
	barrier();
}

static inline int entry_get_locked(struct shmk *s, uint32_t *index)
{
	if (unlikely(!s->nr_free_entries))
		return entry_fresh_locked(s, index);
	*index = s->free_entries[--s->nr_free_entries];
	return 0;
}

static inline void entry_put_locked(struct shmk *s, uint32_t index)
{
	entry_what(s, index, SHMK_OP_NONE);
	s->free_entries[s->nr_free_entries++] = index;
}

static inline int entry_get(struct shmk *s, uint32_t *index)
{
	bool locked = lock(&s->lock);
	int ret = entry_get_locked(s, index);

	unlock(&s->lock, locked);
	return ret;
}

static inline void entry_put(struct shmk *s, uint32_t index)
{
	bool locked = lock(&s->lock);

	entry_put_locked(s, index);
	unlock(&s->lock, locked);
}

/* block.c. All but init and exit under s->lock. */
int heap_init(struct shmk *s);
void heap_exit(struct shmk *s);
/*
 * A block of at least @len bytes, USED, with HELD in @entry. -ENOMEM, -E2BIG.
 */
int block_alloc_locked(struct shmk *s, size_t len, size_t align, uint32_t entry,
		       uint32_t *block, uint32_t *gen);
/* Of an own span's block as this peer cut it, of others' as the span's word says. */
size_t block_room_locked(struct shmk *s, uint32_t block);
/* For want of an entry: an own span goes, and its entry. False: there is none. */
bool heap_yield_locked(struct shmk *s);
/* Of a block that this peer holds by @entry; the entry goes too. */
void block_free_locked(struct shmk *s, uint32_t block, uint32_t gen, uint32_t entry);

/*
 * store.c: freed blocks that are kept. keep: in place of block_free_locked(), if there is
 * room. take: one of @least to @most units; fills block, gen, entry, room of @msg. empty: before
 * this peer sleeps, and when it is short.
 */
bool store_keep_locked(struct shmk *s, const struct shmk_msg *msg);
bool store_take_locked(struct shmk *s, uint32_t least, uint32_t most, struct shmk_msg *msg);
void store_empty_locked(struct shmk *s);
void store_empty(struct shmk *s);
/* The caller will sleep where it is not seen, in an epoll of its own: nothing is kept unasked any more. */
void store_exported(struct shmk *s);

/*
 * What this peer does is to free and to allocate in turn: an allocation that found nothing kept.
 * Of another class than what is, or the block could not be kept: not worth while.
 */
static always_inline void store_missed_locked(struct shmk *s)
{
	struct store *st = &s->store;

	if (likely(!st->freed))
		WRITE_ONCE(st->turns, 0);
	else if (st->turns < STORE_TURNS)
		WRITE_ONCE(st->turns, st->turns + 1);
	else
		store_empty_locked(s);
	st->freed = false;
}

/* Will what is received now be written again here, once it is freed? A hint. */
static inline bool store_answers(const struct shmk *s)
{
	return READ_ONCE(s->store.asked) ? READ_ONCE(s->store.most) :
	       READ_ONCE(s->store.turns) == STORE_TURNS;
}

/* Others may want it while this peer does nothing. Who sleeps between its turns keeps nothing. */
static inline void store_sleeps(struct shmk *s)
{
	if (unlikely(READ_ONCE(s->store.nr) || READ_ONCE(s->store.turns)))
		store_empty(s);
}

/* The smallest block (the explorer takes one of which a span has few). */
#ifndef CHILD_BYTES
#define CHILD_BYTES	1
#endif

/*
 * share.c: is this block message nobody else's? If only by now, it is the plain
 * block again on return.
 */
bool share_alone(struct shmk_msg *msg);
/* Is the message its holder's in the plain way, and not also a queue's? */
bool plainly_held(const struct shmk_msg *msg);

static inline bool msg_received(const struct shmk_msg *msg)
{
	return SHMK_WHERE_QUEUE(msg->from) != SHMK_QUEUE_NOWHERE;
}

/* multi.c: the bytes of all parts, one after the other. Their number, or -EUCLEAN. */
int64_t parts_copy(const struct shmk_msg *msg, void *buf, size_t room);

/*
 * queue.c: the first position from @head on that is not done with, or @tail. The head is moved
 * by who looks for a message, not by who acknowledges one or settles the dead: so it may stand
 * behind by more than the ring has. Positions of 32 + capacity_shift bits; two laps of looks.
 */
uint64_t ring_oldest(const struct shmk_ring_view *rv, uint64_t head, uint64_t tail);

static inline void *block_data(struct shmk *s, uint32_t block)
{
	return s->data + ((size_t)block << s->view.unit_shift);
}

/* queue.c */
/* Of a message that stayed in its slot: empties it, frees the block. */
void message_ack(struct shmk_msg *msg);
/* The end of the attachment: all handles go. */
void queues_close(struct shmk *s);
/* The handle is of use until queue_unhold(), whoever closes it. */
void queue_hold(struct shmk_queue *q);
void queue_unhold(struct shmk_queue *q);

/* mail.c: before the queues are closed. */
void mail_exit(struct shmk *s);
/* Closes the mailboxes of those whose lives are over. */
void mail_sweep(struct shmk *s);

/* wait.c */
int wait_init(struct shmk *s);		/* sets all that is wait.c's in struct shmk */
void wait_exit(struct shmk *s);
/* Before @q goes: closes its side fds, takes its polls back. */
void wait_forget(struct shmk_queue *q);
/*
 * Until the side of @q is ready: 0, -ETIMEDOUT, -EAGAIN (SHMK_TRY), -EINTR; -ESHUTDOWN: it
 * drains, and never will be.
 * Only says that another look is worth while.
 */
int wait_side(struct shmk_queue *q, uint32_t side, int64_t deadline);
/*
 * The same between two looks at the ring, for who has found nothing: -EUCLEAN when that
 * goes on while nobody changes anything.
 */
int wait_look(struct shmk_queue *q, uint32_t side, int64_t deadline);
/* Of a non-blocking call that found nothing: 0 if there is something after all. */
int wait_arm(struct shmk_queue *q, uint32_t side);
void wait_bell(struct shmk_queue *q, uint32_t side);
/* uring.c: the fd of a side, for the caller to poll, armed. */
int side_export(struct shmk_queue *q, uint32_t side);

static inline __u64 *waiters_word(struct shmk_queue *q, uint32_t side)
{
	struct shmk_ring *ring = q->rv.ring;

	return side == SHMK_SIDE_RECV ? &ring->waiters_recv : &ring->waiters_send;
}

/*
 * Rings the bell of a side if its waiters word is set. To be called after the
 * store that made the side ready, while an entry of the own ledger still names
 * the queue. wait_wake_ordered(): that store was followed by a full fence, or
 * was a compare-and-swap; then this is one load. See P1 in wait.c.
 */
static inline void wait_wake_ordered(struct shmk_queue *q, uint32_t side)
{
	if (unlikely(READ_ONCE(*waiters_word(q, side))))
		wait_bell(q, side);
}

static inline void wait_wake(struct shmk_queue *q, uint32_t side)
{
	smp_mb();	/* P1 */
	wait_wake_ordered(q, side);
}

/*
 * The same for who has emptied a slot by a plain store: a receiver, whose next message is
 * behind this. No fence, unless somebody polls an fd for room: see "Waiting for room" in wait.c.
 */
static inline void wait_wake_room(struct shmk_queue *q)
{
	if (unlikely(READ_ONCE(q->rv.ring->watched)))
		smp_mb();	/* P1 */
	barrier();
	wait_wake_ordered(q, SHMK_SIDE_SEND);
}

/* Before an fd of the send side is polled by others than wait.c. */
void wait_watch(struct shmk_queue *q);

/* Until @ready(s, arg) is true, looked at after each event of the pool. */
int wait_event(struct shmk *s, bool (*ready)(struct shmk *s, void *arg), void *arg,
	       int64_t deadline);
/*
 * Until a side of @q is ready: 0; or @over(s, arg), which is looked at after each event:
 * -EPIPE; or as wait_side().
 */
int wait_side_event(struct shmk_queue *q, uint32_t side,
		    bool (*over)(struct shmk *s, void *arg), void *arg, int64_t deadline);
/* Until @until, for want of anything to be woken by. 0, -ETIMEDOUT (@deadline), -EINTR. */
int wait_nap(struct shmk *s, int64_t until, int64_t deadline);
int64_t now_ns(void);

/* poller.c: closes those that the caller did not. */
void pollers_exit(struct shmk *s);

/* queue.c: opening by name, for queues and topics. */
struct queue_find {
	const char	*name;
	uint32_t	flags;		/* SHMK_QUEUE_CREATE, _EXCL */
	/* Fills id and gen of what it made. */
	int		(*make)(struct shmk *s, struct queue_find *f);
	const void	*opts;
	uint32_t	id, gen;
	int		ret;
};
int queue_open_named(struct shmk *s, struct queue_find *f, int64_t deadline);
int queue_name_copy(char *to, const char *name);

static inline const struct shmk_queue_status *queue_status(struct shmk *s, uint32_t id)
{
	return (const struct shmk_queue_status *)
		((const unsigned char *)s->status + s->status->queues_off) + id;
}

/*
 * Was the pool reset? Then nothing begins here any more. A plain look at a line that
 * hardly ever changes; who sleeps is woken when it does, and looks again in wait_over().
 */
static inline bool pool_is_reset(const struct shmk *s)
{
	return unlikely(__atomic_load_n(&s->status->flags, __ATOMIC_RELAXED) & SHMK_POOL_F_RESET);
}

static inline bool queue_draining(const struct shmk_queue *q)
{
	return SHMK_QUEUE_FLAGS(smp_load_acquire(q->word)) & SHMK_QUEUE_F_DRAIN;	/* D1 */
}

static inline __u64 role_name(const struct shmk *s)
{
	return (__u64)s->gen << 32 | s->self;
}

/* What queue.c wants to know of a ring at each look. */
static inline void queue_geometry(struct shmk_queue *q)
{
	q->pos_mask = (1ULL << (32 + q->rv.capacity_shift)) - 1;
	q->index_mask = (1U << q->rv.capacity_shift) - 1;
	q->look_most = 64 + (4U << q->rv.capacity_shift);
}

/* topic.c: of a forked child */
void topics_forget(struct shmk *s);

/* dump.c: enum shmk_holding_state of an entry, 0: not told */
uint32_t shmk_holding_state(uint32_t op, __u64 where);

/* pool.c */
int uri_parse(const char *uri, const struct shmk_backend **backend, const char **name);
bool name_valid(const char *name);
/* A shared mapping that fork does not copy; *(void **)@out is its address. */
int region_map(int fd, uint64_t offset, uint64_t bytes, int prot, void *out);
int region_map_at(void *at, int fd, uint64_t offset, uint64_t bytes, int prot, void *out);
int status_check(const struct shmk_status *status);	/* -EPROTO */
/* Fills s->view and s->data_bytes from s->status and s->control. */
void view_init(struct shmk *s);

#endif
