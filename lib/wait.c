// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * wait.c - spinning, sleeping and waking.
 *
 * Vocabulary
 *   side     of a queue: receivers sleep on one, senders on the other.
 *   ready    there is something to do for the side (shmk_ring_ready()), or never will be,
 *            because the queue drains: calls do not block.
 *   word     the side's waiters word in the ring; nonzero: ring the bell.
 *   fd       of the side. The module computes its poll answer from the slots
 *            (and sets the word itself when it is polled and finds nothing); on
 *            the local backend it is a pipe, and the bell a byte in it.
 *   bell     makes the fd readable for all who poll it, in all processes.
 *
 * Who publishes (makes a side ready)		Who wants to sleep
 *	P0  the store or CAS in the slot		S0  take back old bytes (drain)
 *	P1  full fence				S1  word = 1
 *	P2  word != 0?				S2  full fence
 *	P3  xchg(word, 0) was 1?			S3  ready? then ring (P3, P4), go
 *	P4  bell					S4  poll
 *						S5  ready? then go. Else from S0.
 *
 * P1 pairs with S2 (store, fence, load on both sides): either S3 sees what P0
 * stored, or P2 sees what S1 stored or what somebody else made of it.
 *
 * No wake-up is lost. Claim: whenever a side is ready and somebody sleeps in S4
 * on an empty fd, then either the word is set and a publisher has still to come
 * to P2, or somebody is between P3 and P4, or between S0 and S3.
 *   - One sleeper S, whose S3 found nothing. The publication that makes the side
 *     ready comes after that, so its P2 sees the word as S1 left it, or as 0,
 *     because another publisher Q did P3 after S1. Then Q's bell comes after S1,
 *     and so after S0: S itself has not taken its byte. (With the drain behind
 *     S1 it could have: Q's message is gone to a third, Q's byte drained, the
 *     word 0, and the next publisher rings nobody.)
 *   - Another, A, may take that byte in its S0. A then sets the word again, and
 *     looks: what came before A's look makes A ring in S3, what comes after it
 *     finds the word set. That is the second half of S3: who drained and did
 *     not go to sleep gives back what it may have taken from others.
 *   - A bell wakes all sleepers of the side and nobody takes its byte by
 *     waking (S5 does not drain). A sleeper that is woken and leaves (deadline,
 *     interrupt) therefore leaves nothing undone; each of the others looks for
 *     itself.
 *   - io_uring's multishot poll tells each bell once, not a level. The fd is
 *     empty after S0, and every byte after that is a new completion.
 *
 * If one dies
 *   after P0, P3: its SENDING, TAKING or TAKEN entry names the queue until P4 is
 *     done, and a settler rings both its sides without looking at the word.
 *   after S0, before S3 is done: a WAITING entry does the same.
 *   in S4: the word stays set, the next publisher rings in vain, once.
 * Without a free ledger entry nobody may drain: then a sleeper looks every
 * millisecond instead.
 *
 * Waiting for room. A receiver has no P1 (wait_wake_room()): a fence there would make its
 * answer wait until the stores in the slot have come through, a tenth of a
 * hand-over and more, for the sake of a sender that is hardly ever asleep. So its P0 may still be on its way,
 * unseen by S3, when it does P2 and does not see S1: nobody rings. That cannot last: a processor
 * does not keep a store to itself, it leaves within microseconds even when each that is before it has to wait for
 * its line, and on every interrupt. Therefore
 *   - who sleeps for room does so for RELOOK_NS at most and then looks again (S5); twice as
 *     long, up to RELOOK_LAST_NS, as long as nothing but that ends its sleep. A store that was on
 *     its way at S3 is visible by then; a receiver that does P2 later sees the word. To be
 *     woken and find the room taken begins all that anew, as it is armed anew.
 *   - who polls an fd of the send side elsewhere has nobody who looks again. So before that it
 *     sets watched in the ring, and waits RELOOK_NS; from then on every receiver has P1.
 * It is the one place where a bound on time stands for a fence (but for lock.c without
 * membarrier). (Morrison and Afek, "Temporally Bounding TSO for Fence-Free Asymmetric
 * Synchronization", 2015, is the argument at length; sys_membarrier(2) for all processes would
 * do without a bound, but needs every receiver to have registered for that.)
 *
 * The word is 1 only while somebody is about to sleep or sleeps, so nobody pays
 * for a bell while both sides are awake.
 *
 * Sleeping is one system call: ppoll(2), or io_uring_enter(2) in a ring of the
 * library's own (uring.c), by SHMK_WAIT=poll|uring in the environment.
 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "wait.h"

#define NS_PER_US	1000LL
#define NS_PER_MS	1000000LL

#define RELOOK_NS	(2 * NS_PER_MS)
#define RELOOK_LAST_NS	(32 * NS_PER_MS)
#define SPIN_ADAPTED_NS	(50 * NS_PER_US)
#define SPIN_MAX_NS	(4 * NS_PER_S)
#define SPIN_FIRST	64	/* looks before the clock is read; a few us */
#define SPIN_PENALTY	127
#define ALLOC_FIRST_NS	(50 * NS_PER_US)
#define ALLOC_LAST_NS	(5 * NS_PER_MS)

/* -------------------------------------------------------------- clock -- */

int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int64_t shmk_deadline_ms(int64_t ms)
{
	int64_t ns;

	if (ms == 0)
		return SHMK_TRY;
	if (ms < 0 || __builtin_mul_overflow(ms, NS_PER_MS, &ns) ||
	    __builtin_add_overflow(ns, now_ns(), &ns))
		return SHMK_FOREVER;
	return ns;
}

/* ---------------------------------------------------------- interrupt -- */

static void interrupt_raise(struct shmk *s)
{
	uint64_t one = 1;
	ssize_t n = write(s->interrupt_fd, &one, sizeof(one));

	(void)n;	/* EAGAIN: it is readable already */
}

/*
 * Makes the fd unreadable. An interrupt may come in between: then the flag is
 * set again (I1 pairs with I0: one of the two sees the other), and what was
 * read is put back.
 */
void interrupt_lower(struct shmk *s)
{
	uint64_t count;
	ssize_t n = read(s->interrupt_fd, &count, sizeof(count));

	(void)n;
	smp_mb();	/* I1 */
	if (interrupted(s))
		interrupt_raise(s);
}

/* Flag first: who is woken by the fd must see it. */
void shmk_interrupt(struct shmk *s)
{
	ERRNO_KEPT;

	atomic_store(&s->interrupted, 1);	/* I0 */
	interrupt_raise(s);
}

void shmk_resume(struct shmk *s)
{
	ERRNO_KEPT;

	atomic_store(&s->interrupted, 0);
	interrupt_lower(s);
}

/* ------------------------------------------------------------- waking -- */

static bool slots_ready(struct shmk_queue *q, uint32_t side)
{
	return q->ready ? q->ready(q, side) : shmk_ring_ready(&q->rv, side);
}

/*
 * Nothing more is to be sent: a sender never waits again, a receiver only for what is
 * still in somebody's hands. Who drains sets the word first (D0) and rings then, so who
 * goes to sleep sees it in S3 or is woken; and what was sent before that is seen by who sees
 * the word (D1) and then looks at the slots.
 */
static bool side_over(struct shmk_queue *q, uint32_t side)
{
	if (likely(!queue_draining(q)))
		return false;
	if (side == SHMK_SIDE_SEND)
		return true;
	return q->ready ? !q->ready(q, side) : shmk_ring_drained(&q->rv);
}

bool side_ready(struct shmk_queue *q, uint32_t side)
{
	return slots_ready(q, side) || side_over(q, side);
}

static const struct shmk_queue_status *status_of(const struct shmk_queue *q)
{
	return (const struct shmk_queue_status *)
		((const unsigned char *)q->shmk->status + q->shmk->status->queues_off) + q->id;
}

/*
 * H0: who closed, or died, did so after its last store in a slot; nr_open is stored
 * with release after that, and rung for. So who sees itself alone, and then (H1)
 * no message, has seen all there ever was.
 */
bool side_hung_up(struct shmk_queue *q, uint32_t side)
{
	return q->hangup && smp_load_acquire(&status_of(q)->nr_open) <= 1 &&	/* H1 */
	       !side_ready(q, side);
}

static void ring(struct shmk_queue *q, uint32_t side)
{
	const struct shmk_bell_one bell = { .id = q->id, .side = side };

	q->shmk->backend->bell(q->shmk, &bell, 1);
	__atomic_fetch_add(&q->nr_bells, 1, __ATOMIC_RELAXED);
}

/* P3, P4. The exchange lets one of several publishers ring. */
void wait_bell(struct shmk_queue *q, uint32_t side)
{
	if (xchg(waiters_word(q, side), 0))
		ring(q, side);
}

/*
 * S1 .. S3. A read-only member (of a topic) cannot write the word: with the module
 * the kernel does S1 to S3 when the fd is polled; on local see sleep_side().
 */
static int arm(struct shmk_queue *q, uint32_t side)
{
	if (q->arming)
		q->arming(q, side);
	if (!q->shmk->rdonly)
		WRITE_ONCE(*waiters_word(q, side), 1);	/* S1 */
	smp_mb();				/* S2, with P1 of who publishes */
	return side_ready(q, side) ? 0 : -EAGAIN;
}

int side_arm(struct shmk_queue *q, uint32_t side)
{
	struct shmk *s = q->shmk;
	uint32_t entry;
	int ret = entry_get(s, &entry);

	if (ret)
		return ret;
	entry_set(s, entry, SHMK_WHAT(SHMK_OP_WAITING, 0, 0), SHMK_WHERE(q->id, side));
	s->backend->side_drain(s, q->side[side].fd);	/* S0 */
	ret = arm(q, side);
	if (!ret && !s->rdonly)
		wait_bell(q, side);
	entry_put(s, entry);
	return ret;
}

/*
 * Without an entry nothing may be taken away, neither bytes nor the word. The fd
 * then may tell old news, but it tells all.
 */
int side_arm_undrained(struct shmk_queue *q, uint32_t side)
{
	int ret = arm(q, side);

	if (!ret)
		ring(q, side);
	return ret;
}

/*
 * Who polls fds of its own looks for the dead whenever it comes by. Behind the arming: what
 * is found makes the fd readable. So does that nobody else is left, the news of which the
 * drain may have taken.
 */
static void poll_reap(struct shmk_queue *q, uint32_t side)
{
	struct shmk *s = q->shmk;

	if (s->backend->wait_slice_ns == INT64_MAX)
		return;
	wait_reap(s, now_ns());
	if (side_hung_up(q, side))
		ring(q, side);
}

int wait_arm(struct shmk_queue *q, uint32_t side)
{
	ERRNO_KEPT;
	int ret;

	if (likely(!READ_ONCE(q->side[side].exported)))
		return -EAGAIN;
	ret = side_arm(q, side);
	if (ret == -ENOBUFS)
		ret = side_arm_undrained(q, side);
	if (!ret)
		return 0;
	store_sleeps(q->shmk);
	poll_reap(q, side);
	return ret;
}

/* Some ms, once in the life of a ring. */
void wait_watch(struct shmk_queue *q)
{
	__u64 *watched = &q->rv.ring->watched, since;

	cas(watched, 0, (__u64)now_ns());
	since = READ_ONCE(*watched);
	while ((__u64)now_ns() - since < RELOOK_NS)
		nanosleep(&(struct timespec) { .tv_nsec = RELOOK_NS / 4 }, NULL);
}

/* ----------------------------------------------------------- spinning -- */

bool spin_wanted(struct shmk *s, struct spin *spin)
{
	uint8_t skip;

	if (!s->spin_max_ns)
		return false;
	if (!s->spin_adapts)
		return true;
	skip = READ_ONCE(spin->skip);
	if (skip)
		WRITE_ONCE(spin->skip, skip - 1);
	return !skip;
}

/*
 * Whoever waits long, or for one that needs this very CPU, spins in vain: 50 us
 * in the first wait, in the third, the seventh ... and then in every 128th,
 * which is how it finds out that times have changed.
 */
void spin_learn(struct spin *spin, bool success)
{
	uint8_t penalty = READ_ONCE(spin->penalty);

	if (success) {
		if (penalty)
			WRITE_ONCE(spin->penalty, 0);
		return;
	}
	penalty = penalty < SPIN_PENALTY ? 2 * penalty + 1 : SPIN_PENALTY;
	WRITE_ONCE(spin->penalty, penalty);
	WRITE_ONCE(spin->skip, penalty);
}

static bool spin_some(struct shmk_queue *q, uint32_t side)
{
	for (int i = 0; i < SPIN_FIRST; i++) {
		if (side_ready(q, side))
			return true;
		cpu_relax();
	}
	return false;
}

/* True when the side is ready. The interrupt and the deadline are for who sleeps. */
static bool spin_side(struct shmk_queue *q, uint32_t side, int64_t deadline)
{
	struct shmk *s = q->shmk;
	struct spin *spin = &q->spin[side];
	int64_t end;
	bool success;

	if (!spin_wanted(s, spin))
		return false;
	success = spin_some(q, side);
	if (!success) {
		end = now_ns() + s->spin_max_ns;
		if (end > deadline)
			end = deadline;
		while (!(success = spin_some(q, side)))
			if (interrupted(s) || now_ns() >= end)
				break;
	}
	if (s->spin_adapts)
		spin_learn(spin, success);
	return success;
}

/* Another may use the only CPU instead; affinity is what it was at attach. */
static bool one_cpu(void)
{
	cpu_set_t set;

	return !sched_getaffinity(0, sizeof(set), &set) && CPU_COUNT(&set) == 1;
}

static void spin_init(struct shmk *s)
{
	s->spin_adapts = s->spin_us == 0;
	s->spin_max_ns = SPIN_ADAPTED_NS;
	if (s->spin_us < 0 || one_cpu())
		s->spin_max_ns = 0;
	else if (s->spin_us)
		s->spin_max_ns = s->spin_us < SPIN_MAX_NS / NS_PER_US ?
				 s->spin_us * NS_PER_US : SPIN_MAX_NS;
}

/* ----------------------------------------------------------- sleeping -- */

static int poll_fds(struct pollfd *fds, nfds_t nr, int64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = timeout_ns / NS_PER_S,
		.tv_nsec = timeout_ns % NS_PER_S,
	};
	int n = ppoll(fds, nr, timeout_ns < 0 ? NULL : &ts, NULL);

	/* A signal is no reason to give up; the caller counts the time anew. */
	if (n < 0)
		return errno == EINTR || errno == ENOMEM ? 0 : -errno;
	return n;
}

int poll_sleep(struct shmk *s, int fd, short events, int64_t timeout_ns)
{
	struct pollfd fds[] = {
		{ .fd = s->interrupt_fd, .events = POLLIN },
		{ .fd = fd, .events = events },
	};
	int woken = 0, ret;

	store_sleeps(s);
	ret = poll_fds(fds, 2, timeout_ns);
	if (ret <= 0)
		return ret;
	if (fds[0].revents)
		woken |= WOKEN_INTERRUPT;
	if (fds[1].revents & events)
		woken |= WOKEN_SIDE;
	else if (fds[1].revents)
		woken |= WOKEN_GONE;
	return woken;
}

int64_t wait_reap(struct shmk *s, int64_t now)
{
	const int64_t slice = s->backend->wait_slice_ns;
	int64_t next;

	mail_sweep(s);
	if (slice == INT64_MAX)
		return slice;
	next = READ_ONCE(s->next_reap);
	if (now < next)
		return next;
	s->backend->reap(s);
	next = now + slice;
	WRITE_ONCE(s->next_reap, next);
	return next;
}

int wait_over(struct shmk *s, int64_t now, int64_t deadline)
{
	if (interrupted(s))
		return -EINTR;
	if (pool_is_reset(s))
		return -ESHUTDOWN;
	return now >= deadline ? -ETIMEDOUT : 0;
}

int64_t timeout_until(int64_t now, int64_t when, int64_t deadline)
{
	if (when > deadline)
		when = deadline;
	if (when == INT64_MAX)
		return -1;
	return when > now ? when - now : 0;
}

static int sleep_fds(struct shmk_queue *q, uint32_t side, int64_t timeout_ns)
{
	struct shmk *s = q->shmk;
	int ret;

	store_sleeps(s);
	if (!READ_ONCE(s->no_uring)) {
		ret = uring_sleep(q, side, timeout_ns);
		if (ret != -ENOSYS)
			return ret;
	}
	return poll_sleep(s, q->side[side].fd, side_events(q, side), timeout_ns);
}

/* One sleep: 0, go and look again, or -errno. @armed is what side_arm() said. */
static int sleep_once(struct shmk_queue *q, uint32_t side, int armed, int64_t timeout_ns)
{
	struct shmk *s = q->shmk;
	int woken;

	__atomic_fetch_add(&q->nr_sleeps, 1, __ATOMIC_RELAXED);
	if (armed == -EAGAIN)
		woken = sleep_fds(q, side, timeout_ns);
	else
		woken = poll_sleep(s, -1, 0, timeout_ns);
	if (woken < 0)
		return woken;
	if ((woken & WOKEN_INTERRUPT) && !interrupted(s))
		interrupt_lower(s);
	return (woken & WOKEN_GONE) && !side_ready(q, side) ? -ESHUTDOWN : 0;
}

/* Who waits for room is not to be trusted to a bell alone: see the top. */
struct relook {
	int64_t	span, at;
};

static int64_t wake_for_room(const struct shmk_queue *q, uint32_t side, int64_t now,
			     struct relook *r, int64_t wake)
{
	if (side != SHMK_SIDE_SEND || q->ready)
		return wake;
	if (!r->at || now < r->at)
		r->span = RELOOK_NS;
	else if (r->span < RELOOK_LAST_NS)
		r->span *= 2;
	r->at = now + r->span;
	return r->at < wake ? r->at : wake;
}

static int sleep_side(struct shmk_queue *q, uint32_t side, int64_t deadline)
{
	struct shmk *s = q->shmk;
	struct relook relook = { .at = 0 };
	int64_t now, wake;
	int ret = side_open(q, side);

	while (!ret) {
		now = now_ns();
		ret = wait_over(s, now, deadline);
		if (ret)
			break;
		wake = wait_reap(s, now);
		ret = side_arm(q, side);
		if (!ret)
			break;
		if (side_hung_up(q, side))
			return -EPIPE;
		wake = wake_for_room(q, side, now, &relook, wake);
		/* Nobody rings for who can neither drain nor, being read-only, set the word. */
		if (ret == -ENOBUFS || (s->rdonly && s->backend->wait_slice_ns != INT64_MAX))
			wake = now + NO_ENTRY_NS;
		ret = sleep_once(q, side, ret, timeout_until(now, wake, deadline));
		if (!ret && side_ready(q, side))		/* S5 */
			break;
	}
	return ret;
}

int wait_side(struct shmk_queue *q, uint32_t side, int64_t deadline)
{
	ERRNO_KEPT;

	if (unlikely(side_over(q, side)))
		return -ESHUTDOWN;
	if (unlikely(side_hung_up(q, side)))
		return -EPIPE;
	if (deadline == SHMK_TRY)
		return wait_arm(q, side);
	if (spin_side(q, side, deadline))
		return 0;
	return sleep_side(q, side, deadline);
}

/*
 * What somebody wrote into a ring where nobody may can look ready here, and not to
 * who takes or puts: for ever. This thread's waits that ended well, one after the
 * other, with nothing got in between.
 */
#define VAIN	32

static __thread struct {
	uint64_t	handle;		/* not its address, at which another may lie by now; 0: none */
	uint32_t	side;
	uint32_t	nr;
	uint64_t	done;		/* q->nr[side] */
	uint64_t	print;		/* of the ring, at the last of them */
} vain;

/* Each of these words, once changed, is not again what it was. */
static uint64_t ring_print(const struct shmk_ring_view *rv)
{
	uint64_t print = READ_ONCE(rv->ring->head) * 31 + READ_ONCE(rv->ring->tail);

	for (uint32_t i = 0; i < 1U << rv->capacity_shift; i++) {
		const struct shmk_slot *slot = shmk_slot_at(rv, i);

		print = print * 31 + READ_ONCE(slot->p);
		print = print * 31 + READ_ONCE(slot->t);
	}
	return print;
}

/*
 * Nobody has changed anything since the look that found nothing: so it is not that
 * others are faster.
 */
static int vain_check(struct shmk_queue *q, uint32_t side)
{
	uint64_t print;

	if (vain.handle != q->handle || vain.side != side || vain.done != READ_ONCE(q->nr[side])) {
		vain.handle = q->handle;
		vain.side = side;
		vain.done = READ_ONCE(q->nr[side]);
		vain.nr = 0;
	}
	if (likely(vain.nr++ < VAIN))
		return 0;
	print = vain.print;
	vain.print = ring_print(&q->rv);
	if (print != vain.print)
		return 0;
	vain.handle = 0;
	return -EUCLEAN;
}

int wait_look(struct shmk_queue *q, uint32_t side, int64_t deadline)
{
	int ret;

	/* Who polls does not get further. */
	if (deadline == SHMK_TRY && likely(!READ_ONCE(q->side[side].exported)) &&
	    !side_over(q, side) && !side_hung_up(q, side))
		return -EAGAIN;
	ret = wait_side(q, side, deadline);
	return ret ? ret : vain_check(q, side);
}

/* ------------------------------------------------------------- events -- */

static void events_drain(struct shmk *s, void *stream)
{
	struct shmk_event event;

	while (!s->backend->events_next(s, stream, &event))
		;
}

/* The stream began before @ready() is asked, so nothing is missed in between. */
static int sleep_event(struct shmk *s, void *stream,
		       bool (*ready)(struct shmk *s, void *arg), void *arg, int64_t deadline)
{
	int fd = s->backend->events_fd(s, stream);
	int64_t now, wake;
	int ret;

	if (fd < 0)
		return fd;
	for (;;) {
		now = now_ns();
		wake = wait_reap(s, now);
		events_drain(s, stream);
		if (ready(s, arg))
			return 0;
		ret = wait_over(s, now, deadline);
		if (ret)
			return ret;
		ret = poll_sleep(s, fd, POLLIN, timeout_until(now, wake, deadline));
		if (ret < 0)
			return ret;
		if ((ret & WOKEN_INTERRUPT) && !interrupted(s))
			interrupt_lower(s);
	}
}

static int sleep_side_event(struct shmk_queue *q, uint32_t side, void *stream,
			    bool (*over)(struct shmk *s, void *arg), void *arg, int64_t deadline)
{
	struct shmk *s = q->shmk;
	int events = s->backend->events_fd(s, stream);
	struct relook relook = { .at = 0 };
	int64_t now, wake;
	int ret = events < 0 ? events : side_open(q, side);

	while (!ret) {
		struct pollfd fds[] = {
			{ .fd = s->interrupt_fd, .events = POLLIN },
			{ .fd = events, .events = POLLIN },
			{ .fd = q->side[side].fd, .events = q->side[side].events },
		};

		now = now_ns();
		wake = wait_reap(s, now);
		events_drain(s, stream);
		if (over(s, arg))
			return -EPIPE;
		ret = wait_over(s, now, deadline);
		if (ret)
			break;
		ret = side_arm(q, side);
		if (!ret)
			break;
		wake = wake_for_room(q, side, now, &relook, wake);
		if (ret == -ENOBUFS)	/* then the side is looked at every millisecond */
			wake = now + NO_ENTRY_NS;
		store_sleeps(s);
		ret = poll_fds(fds, ret == -ENOBUFS ? 2 : 3, timeout_until(now, wake, deadline));
		if (ret < 0)
			break;
		ret = 0;
		if (fds[0].revents && !interrupted(s))
			interrupt_lower(s);
		if (side_ready(q, side))
			break;
	}
	return ret;
}

/* As above, the stream began first: an event behind over()'s look makes its fd readable. */
int wait_side_event(struct shmk_queue *q, uint32_t side,
		    bool (*over)(struct shmk *s, void *arg), void *arg, int64_t deadline)
{
	ERRNO_KEPT;
	struct shmk *s = q->shmk;
	void *stream;
	int ret;

	if (over(s, arg))
		return -EPIPE;
	if (deadline == SHMK_TRY)
		return wait_arm(q, side);
	ret = s->backend->events_open(s, &stream);
	if (!ret) {
		ret = sleep_side_event(q, side, stream, over, arg, deadline);
		s->backend->events_close(s, stream);
	}
	return ret;
}

int wait_event(struct shmk *s, bool (*ready)(struct shmk *s, void *arg), void *arg,
	       int64_t deadline)
{
	ERRNO_KEPT;
	int ret;
	void *stream;

	if (pool_is_reset(s))
		return -ESHUTDOWN;
	if (ready(s, arg))
		return 0;
	if (deadline == SHMK_TRY)
		return -EAGAIN;
	ret = s->backend->events_open(s, &stream);
	if (!ret) {
		ret = sleep_event(s, stream, ready, arg, deadline);
		s->backend->events_close(s, stream);
	}
	return ret;
}

int wait_nap(struct shmk *s, int64_t until, int64_t deadline)
{
	ERRNO_KEPT;
	int64_t now = now_ns();
	int ret = wait_over(s, now, deadline);

	if (ret)
		return ret;
	ret = poll_sleep(s, -1, 0, timeout_until(now, until, deadline));
	if (ret < 0)
		return ret;
	if ((ret & WOKEN_INTERRUPT) && !interrupted(s))
		interrupt_lower(s);
	return 0;
}

/* -------------------------------------------------------------- memory -- */

/*
 * Who frees is not asked to tell: that would cost every free a look at a word that
 * others write. So whoever waits looks again by itself, at growing distances.
 */
int shmk_alloc_wait(struct shmk *s, size_t len, size_t align, struct shmk_msg *msg,
		    int64_t deadline)
{
	ERRNO_KEPT;
	int64_t pause = ALLOC_FIRST_NS;
	int ret;

	for (;;) {
		ret = shmk_alloc(s, len, align, msg);
		if (ret != -ENOMEM || deadline == SHMK_TRY)
			return ret;
		ret = wait_nap(s, now_ns() + pause, deadline);
		if (ret)
			return ret;
		pause = pause * 2 < ALLOC_LAST_NS ? pause * 2 : ALLOC_LAST_NS;
	}
}

/* --------------------------------------------------------------- life -- */

/*
 * poll is the default. A ring saves a tenth of a sleep where both share a CPU
 * (5.8 against 6.4 us for a round of two sleeps, local backend, 6.18), but it is
 * a file and memory for each thread that sleeps; its polls let go of a queue's
 * file some time after the process has ended, when all should be back already;
 * and a policy may kill for io_uring instead of refusing it.
 */
static bool want_uring(void)
{
	const char *way = secure_getenv("SHMK_WAIT");
	const char *no = secure_getenv("SHMK_NO_URING");

	return way && !strcmp(way, "uring") && !(no && !strcmp(no, "1"));
}

int wait_init(struct shmk *s)
{
	s->waiters = NULL;
	s->next_reap = 0;
	s->last_serial = 0;
	if (!want_uring())
		s->no_uring = true;
	spin_init(s);
	atomic_init(&s->interrupted, 0);
	s->interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return s->interrupt_fd < 0 ? -errno : 0;
}

void wait_exit(struct shmk *s)
{
	ERRNO_KEPT;

	uring_exit(s);
	if (s->interrupt_fd >= 0)
		close(s->interrupt_fd);
	s->interrupt_fd = -1;
}

static void side_close(struct shmk *s, struct side_fd *side)
{
	if (side->fd < 0)
		return;
	uring_forget(s, side->serial);
	close(side->fd);
	side->fd = -1;
	side->exported = false;
}

void wait_forget(struct shmk_queue *q)
{
	ERRNO_KEPT;

	poller_forget(q);
	side_close(q->shmk, &q->side[SHMK_SIDE_RECV]);
	side_close(q->shmk, &q->side[SHMK_SIDE_SEND]);
}
