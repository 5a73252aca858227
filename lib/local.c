// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * local.c - the backend that needs no module and no root.
 *
 * The regions are files (local_dir.c), who lives is known by locks that the
 * kernel takes back (local_lock.c), and what the module does in the kernel is
 * done here by the peers for each other: whoever attaches, is about to sleep,
 * runs short of memory or reads events looks for the dead and settles them.
 *
 * All that is in the status region changes under the pool lock, and its holder
 * may be killed anywhere. So it is never changed in place: the stores are
 * written into a journal, one word makes the journal valid, then they are
 * carried out, and the next holder of the lock carries out again what it finds
 * valid. For those who read without the lock the stores come in the order
 * given. What is written beside the journal is of no meaning until it is
 * carried out: the fields of an id or a queue that is not in use yet, and the
 * event after the last. A reader of the status region can be behind, but never
 * sees what will not come.
 *
 * A dead peer is marked DEAD, its ledger settled, its queues closed, its id
 * freed. Every step can be done twice; a settler that is killed is followed by
 * the next one.
 *
 * What this backend cannot promise:
 *
 *   the last peers die		Nobody is left to settle. The next one that attaches
 *				does it, or removes a pool that was not persistent.
 *   death is noticed		when somebody looks: at once by who is about to sleep
 *				or runs short, every 100 ms by who sleeps. With very
 *				many peers a look costs more than 100 us; then the
 *				looks of all peers together use 1/16 of one CPU. Who
 *				only polls is woken by shmk_event_fd(), for the first
 *				64 peers whose pids it can see; queue fds alone wake
 *				nobody for a death.
 *   how a peer died		UNKNOWN; only a clean detach is told apart.
 *   other threads		that share the memory but not the files (vfork's
 *				child, CLONE_VM) may outlive the peer and still store.
 *   close()			A process that itself opens and closes the file
 *				"lock" of a pool that it is attached to is dead for
 *				the others.
 *   hostile members		can write everything, status and other ledgers
 *				included, and truncate the files (SIGBUS).
 *   read-only members		map the data from a file opened for reading, so that
 *				mprotect() does not help them; but who may open the
 *				file for writing can do so. They write to the status
 *				region, because to join means that, and so "read" in
 *				the mode of a pool gives write access to all but the
 *				pool file. They cannot settle a dead full member.
 *   another user's pool	The directory can be removed by its owner only (the
 *				base is sticky); others leave it empty, and its name
 *				stays taken for everyone but the owner.
 *   a reset that is killed	between two system calls leaves those who were in the old
 *				pool there, among themselves, and knowing nothing.
 *   pinned memory		It can be swapped. RLIMIT_MEMLOCK does not count, the
 *				limit is that of the file system; all of it is there
 *				from the start but for ledgers.
 *   direct I/O			into blocks of a dead peer may be under way when they
 *				are given out again.
 *   kernel views		no sysfs, no netlink, no tracepoints, no io_uring bell.
 *   2 MiB pages, NUMA node	-EOPNOTSUPP
 *   pids, uids			of events are as the peer itself saw them, if it lived
 *				in another namespace.
 *   watchers			of shmk_event_fd() are inotify instances, by default
 *				128 per user; the next one is a timer of 100 ms. So is
 *				what blocking calls wait with that have to see events
 *				(shmk_call(), mail, opening waits); one of those is kept
 *				until the attachment ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "local.h"

#define SLICE_NS	100000000LL
#define SCAN_CHEAP_NS	100000LL	/* a look for the dead that costs more ... */
#define SCAN_REST	16		/* ... is followed by a rest of so many times that, */
#define SCAN_REST_MAX_NS 1000000000LL	/* but not more than this */
#define PATIENCE_NS	4000000LL	/* with who has the pool lock, of who has better to do */
#define PATIENCE_NAP_NS	50000LL
#define ENTRIES_DEFAULT	4096U
#define EVENTS_HEADSTART 64	/* of a reader that was overtaken, before the next time */

static struct shmk_peer_status *peer_at(const struct local *l, uint32_t id)
{
	return (struct shmk_peer_status *)((char *)l->status + l->status->peers_off) + id;
}

static struct shmk_queue_status *queue_at(const struct local *l, uint32_t id)
{
	return (struct shmk_queue_status *)((char *)l->status + l->status->queues_off) + id;
}

/* How often a peer has each queue open: survivors must be able to see it. */
static __u32 *opens_of(const struct local *l, uint32_t peer)
{
	return (__u32 *)((char *)l->opens + peer * l->opens_stride);
}

/* --------------------------------------------------------------- journal -- */

static void journal_add(struct local *l, void *word, uint32_t size, __u64 value)
{
	l->extra->store[l->nr_stores++] = (struct local_store) {
		.offset = (char *)word - (char *)l->status, .size = size, .value = value,
	};
}

static void set64(struct local *l, __u64 *word, __u64 value)
{
	journal_add(l, word, sizeof(*word), value);
}

static void set32(struct local *l, __u32 *word, __u32 value)
{
	journal_add(l, word, sizeof(*word), value);
}

/* Wakes who watches for events; nothing is lost if it fails, they look every slice. */
static void kick(const struct local *l)
{
	ssize_t ignored = pwrite(l->events, "", 1, 0);

	(void)ignored;
}

/*
 * Each store is a release: who reads without the lock (pool.c view_queue(),
 * peer.c, events_take()) sees, with a word, what was written before it. Done
 * twice it is the same, for nobody else writes these words.
 */
static void journal_carry_out(struct local *l)
{
	struct local_extra *x = l->extra;

	for (__u64 i = 0; i < x->nr_stores && i < JOURNAL_MAX; i++) {
		__u32 offset = READ_ONCE(x->store[i].offset);
		__u64 size = x->store[i].size == sizeof(__u64) ? sizeof(__u64) : sizeof(__u32);
		char *at = (char *)l->status + offset;

		/* One that is of somebody's making must not lead out of the region. */
		if (offset % size || offset + size > l->status_bytes)
			continue;
		if (size == sizeof(__u64))
			smp_store_release((__u64 *)at, x->store[i].value);
		else
			smp_store_release((__u32 *)at, (__u32)x->store[i].value);
	}
	kick(l);
	barrier();
	WRITE_ONCE(x->nr_stores, 0);
}

/* Killed before the word: nothing has happened. After it: all of it has. */
static void journal_commit(struct local *l)
{
	barrier();
	WRITE_ONCE(l->extra->nr_stores, l->nr_stores);
	barrier();
	l->nr_stores = 0;
	journal_carry_out(l);
}

static void pool_locked(struct local *l)
{
	l->nr_stores = 0;
	if (l->extra->nr_stores)
		journal_carry_out(l);
}

static int pool_lock(struct local *l)
{
	int ret = lock_file_lock(l->lock);

	if (!ret)
		pool_locked(l);
	return ret;
}

/* -EAGAIN: somebody has it, and may be stopped, for longer than a caller with a deadline waits. */
static int pool_lock_briefly(struct local *l)
{
	struct timespec nap = { .tv_nsec = PATIENCE_NAP_NS };
	const __s64 end = now_ns() + PATIENCE_NS;
	int ret = lock_file_trylock(l->lock);

	while (ret == -EAGAIN && now_ns() < end) {
		nanosleep(&nap, NULL);
		nap.tv_nsec *= 2;
		ret = lock_file_trylock(l->lock);
	}
	if (!ret)
		pool_locked(l);
	return ret;
}

static void pool_unlock(struct local *l)
{
	lock_file_unlock(l->lock);
}

static bool local_busy(struct shmk *s)
{
	struct local *l = local_of(s);

	if (lock_file_trylock(l->lock))
		return true;
	pool_unlock(l);
	return false;
}

/* ---------------------------------------------------------------- events -- */

/*
 * The event stands behind the last one until the journal moves nr_events. It
 * overwrites the oldest, which readers no longer believe; see events_take().
 */
static void journal_event(struct local *l, const struct shmk_event *event)
{
	struct local_extra *x = l->extra;
	struct shmk_event *e = &x->event[x->nr_events % EVENTS_MAX];

	smp_mb();	/* Ev: pairs with events_take(): nr_events before this slot changes */
	*e = *event;
	e->seq = x->nr_events;
	e->time_ns = now_ns();
	set64(l, &x->nr_events, x->nr_events + 1);
	set64(l, &l->status->epoch, l->status->epoch + 1);
}

static int reap(struct shmk *s, bool forced);

/*
 * A death makes no event before somebody looks. Whoever waits in the library looks in
 * each slice, but for who polls the fd of the attachment's own stream nobody may do so:
 * all the others may poll theirs. That fd is therefore an epoll set, in which a pidfd of
 * each other peer is, too.
 */
#define PIDFDS_MAX	64U

struct stream {
	pthread_mutex_t	mutex;		/* all of it */
	__u64		next;
	int		fd;		/* -1: nobody asked for it yet */
	int		notify;		/* what events make readable: fd, or in its set */
	int		*pidfd;		/* of each peer, or -1; NULL: there is no set */
	uint32_t	nr_peers;	/* those in pidfd */
	uint32_t	nr_pidfds;
	bool		timed;		/* notify is a timer, for want of something better */
};

static struct stream *stream_new(void)
{
	struct stream *st = calloc(1, sizeof(*st));

	if (!st)
		return NULL;
	pthread_mutex_init(&st->mutex, NULL);
	st->fd = -1;
	st->notify = -1;
	return st;
}

/* In a forked child nothing of the pool is mapped, and the set is the parent's, too. */
static void stream_free(struct stream *st)
{
	if (!st)
		return;
	for (uint32_t id = 1; id <= st->nr_peers; id++)
		if (st->pidfd[id] >= 0)
			close(st->pidfd[id]);
	if (st->notify != st->fd)
		close(st->notify);
	if (st->fd >= 0)
		close(st->fd);
	free(st->pidfd);
	free(st);
}

/*
 * To close an inotify instance takes milliseconds, and each blocking call with an eye on
 * events needs a stream. So one stays with the attachment, for the next call.
 */
static struct stream *idle_swap(struct local *l, struct stream *st)
{
	return __atomic_exchange_n(&l->idle, st, __ATOMIC_ACQ_REL);
}

static int events_open(struct shmk *s, void **stream)
{
	struct local *l = local_of(s);
	bool own = stream == &s->events;
	struct stream *st = own ? NULL : idle_swap(l, NULL);

	if (!st)
		st = stream_new();
	if (!st)
		return -ENOMEM;
	/* The attachment's own stream misses nothing since it was made. */
	st->next = own ? l->first_event : smp_load_acquire(&l->extra->nr_events);
	*stream = st;
	return 0;
}

static bool is_due(const struct shmk *s, uint32_t id);

/* Out of the set first: a forked child may have the pidfd, too. */
static void death_forget(struct stream *st, uint32_t id)
{
	if (st->pidfd[id] < 0)
		return;
	epoll_ctl(st->fd, EPOLL_CTL_DEL, st->pidfd[id], NULL);
	close(st->pidfd[id]);
	st->pidfd[id] = -1;
	st->nr_pidfds--;
}

/*
 * A pidfd of who has the lock of the peer's life. The pid may have been given to
 * another process before it was opened, but not if it has the lock after that.
 * -ESRCH: it has died since.
 */
static int death_open(const struct local *l, uint32_t id)
{
	pid_t pid, again;
	int fd;

	if (!lock_file_alive(l->lock, id, &pid))
		return -ESRCH;
	if (pid <= 0 || pid == getpid())
		return -EINVAL;
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return -errno;
	if (lock_file_alive(l->lock, id, &again) && again == pid)
		return fd;
	close(fd);
	return -ESRCH;
}

/*
 * The set watches who has the id now, if anyone. Its end is told once: what was
 * not settled then is left to others, and must not keep the set readable.
 */
static void death_watch(const struct shmk *s, struct stream *st, uint32_t id)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT, .data.u32 = id };
	int fd;

	if (!id || id > st->nr_peers)
		return;
	death_forget(st, id);
	if (st->nr_pidfds == PIDFDS_MAX)
		return;
	fd = death_open(local_of(s), id);
	if (fd == -ESRCH && is_due(s, id))
		kick(local_of(s));
	if (fd < 0)
		return;
	if (epoll_ctl(st->fd, EPOLL_CTL_ADD, fd, &ev)) {
		close(fd);
		return;
	}
	st->pidfd[id] = fd;
	st->nr_pidfds++;
}

static void deaths_watch(const struct shmk *s, struct stream *st)
{
	for (uint32_t id = 1; id <= st->nr_peers; id++)
		death_watch(s, st, id);
}

/* If there can be no set, what is in it is the fd: somebody else has to look. */
static void deaths_open(const struct shmk *s, struct stream *st)
{
	struct epoll_event ev = { .events = EPOLLIN };
	const uint32_t nr = s->status->nr_peers;
	int set = epoll_create1(EPOLL_CLOEXEC);
	int *pidfd = malloc((nr + 1) * sizeof(*pidfd));

	if (set < 0 || !pidfd || epoll_ctl(set, EPOLL_CTL_ADD, st->notify, &ev)) {
		if (set >= 0)
			close(set);
		free(pidfd);
		return;
	}
	for (uint32_t id = 0; id <= nr; id++)
		pidfd[id] = -1;
	st->pidfd = pidfd;
	st->nr_peers = nr;
	st->fd = set;
	deaths_watch(s, st);
}

/* Before a look for the dead: what is told once is not lost by that. */
static void deaths_told(struct stream *st)
{
	struct epoll_event ev[16];

	pthread_mutex_lock(&st->mutex);
	if (st->nr_pidfds)
		epoll_wait(st->fd, ev, 16, 0);
	pthread_mutex_unlock(&st->mutex);
}

static void deaths_follow(const struct shmk *s, struct stream *st, const struct shmk_event *event)
{
	switch (event->type) {
	case SHMK_EV_ATTACHED:
	case SHMK_EV_DETACHED:
	case SHMK_EV_DIED:
		death_watch(s, st, event->peer);
		break;
	case SHMK_EV_LOST:
		deaths_watch(s, st);
		break;
	}
}

static void events_close(struct shmk *s, void *stream)
{
	struct stream *st = stream;

	if (st != s->events && !st->timed)
		st = idle_swap(local_of(s), st);
	stream_free(st);
}

static bool events_pending(const struct local *l, const struct stream *st)
{
	return smp_load_acquire(&l->extra->nr_events) != st->next;
}

/* Readable in each slice, so its reader looks often enough. */
static int events_timer(void)
{
	const struct itimerspec slice = {
		.it_interval.tv_nsec = SLICE_NS, .it_value.tv_nsec = SLICE_NS,
	};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	timerfd_settime(fd, 0, &slice, NULL);
	return fd;
}

static int events_watch_timed(struct stream *st)
{
	st->timed = true;
	return events_timer();
}

/* Instances of inotify are few. */
static int events_watch(const struct local *l, struct stream *st)
{
	char path[PATH_MAX];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s/events", base_path(), l->dir_name);
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0)
		return events_watch_timed(st);
	if (inotify_add_watch(fd, path, IN_MODIFY) < 0) {
		ret = -errno;
		close(fd);
		return ret == -ENOSPC ? events_watch_timed(st) : ret;
	}
	return fd;
}

static int events_fd(struct shmk *s, void *stream)
{
	struct local *l = local_of(s);
	struct stream *st = stream;
	int fd;

	pthread_mutex_lock(&st->mutex);
	fd = st->fd;
	if (fd < 0) {
		fd = events_watch(l, st);
		st->fd = st->notify = fd < 0 ? -1 : fd;
		if (fd >= 0 && stream == s->events)
			deaths_open(s, st);
		if (fd >= 0 && events_pending(l, st))
			kick(l);
		fd = fd < 0 ? fd : st->fd;
	}
	pthread_mutex_unlock(&st->mutex);
	return fd;
}

/*
 * Copies without the lock. The writer of event n writes over n - EVENTS_MAX
 * while nr_events is n, so a copy is good if nr_events, read after it, is less
 * than EVENTS_MAX ahead. (Ev: the slot is read before nr_events.)
 */
static bool events_take(const struct local *l, struct stream *st, struct shmk_event *event)
{
	const struct local_extra *x = l->extra;
	__u64 now;

	if (!events_pending(l, st))
		return false;
	*event = x->event[st->next % EVENTS_MAX];
	smp_mb();
	now = READ_ONCE(x->nr_events);
	if (now - st->next < EVENTS_MAX) {
		st->next++;
		return true;
	}
	now -= EVENTS_MAX - EVENTS_HEADSTART;
	*event = (struct shmk_event) {
		.type = SHMK_EV_LOST, .seq = st->next, .time_ns = now_ns(),
		.code = now - st->next,
	};
	st->next = now;
	return true;
}

static void events_drain(const struct stream *st)
{
	char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

	while (st->notify >= 0 && read(st->notify, buf, sizeof(buf)) > 0)
		;
}

/* The fd stays readable until there is nothing: events may share one notification. */
static int events_next_locked(const struct local *l, struct stream *st,
			      struct shmk_event *event)
{
	if (events_take(l, st, event))
		return 0;
	events_drain(st);
	if (!events_take(l, st, event))
		return -EAGAIN;
	if (events_pending(l, st))	/* it came before the drain, so did its notification */
		kick(l);
	return 0;
}

/* Who asks for events, here or in a monitor, wants the dead to be found; a waiter has looked. */
static int events_next(struct shmk *s, void *stream, struct shmk_event *event)
{
	struct stream *st = stream;
	int ret;

	deaths_told(st);
	if (st == s->events || !s->self)
		reap(s, true);
	pthread_mutex_lock(&st->mutex);
	ret = events_next_locked(local_of(s), st, event);
	if (!ret)
		deaths_follow(s, st, event);
	pthread_mutex_unlock(&st->mutex);
	return ret;
}

/* ----------------------------------------------------------------- bells -- */

/*
 * Sleepers share a FIFO if they wait for the same: who takes its bytes to sleep
 * again looks first, and what he finds is what the others wait for. The readers
 * of a topic each have a place of their own, and so a FIFO.
 */
static void fifo_name(char *name, size_t room, uint32_t queue, uint32_t gen, uint32_t side,
		      uint32_t row)
{
	if (row < ROW_CANDIDATE)
		snprintf(name, room, "q%u.%u.t%u", queue, gen, row);
	else if (row == ROW_CANDIDATE)
		snprintf(name, room, "q%u.%u.c", queue, gen);
	else
		snprintf(name, room, "q%u.%u.%c", queue, gen,
			 side == SHMK_SIDE_RECV ? 'r' : 'w');
}

/*
 * Open for reading and writing at both ends: so the sleeper sees no hang-up
 * when a ringer goes, and a ringer gets no SIGPIPE when no sleeper is left.
 */
static int fifo_open(const struct local *l, const char *name)
{
	int fd = openat(l->dir, name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

/* Made under another name, so that nobody finds it without its access rights. */
static int fifo_make(struct local *l, const char *name)
{
	const char *new = ".fifo";
	struct stat st;
	int ret = 0;

	if (fstat(l->meta, &st))
		return -errno;
	unlinkat(l->dir, new, 0);
	if (mkfifoat(l->dir, new, 0600))
		return -errno;
	if (fchmodat(l->dir, new, st.st_mode & 0666, 0) ||
	    (linkat(l->dir, new, l->dir, name, 0) && errno != EEXIST))
		ret = -errno;
	unlinkat(l->dir, new, 0);
	return ret;
}

static int local_side_fd(struct shmk *s, __u32 queue, __u32 side, __u32 row, short *events)
{
	struct local *l = local_of(s);
	char name[32];
	int ret;

	if (queue >= l->status->nr_queues || side > SHMK_SIDE_SEND)
		return -EINVAL;
	if (!READ_ONCE(opens_of(l, s->self)[queue]))
		return -ENOENT;
	*events = POLLIN;
	fifo_name(name, sizeof(name), queue, SHMK_QUEUE_GEN(queue_at(l, queue)->word), side, row);
	ret = fifo_open(l, name);
	if (ret != -ENOENT)
		return ret;
	ret = pool_lock(l);
	if (ret)
		return ret;
	/* The directory may be gone; who resets a pool has said so, under this lock, before. */
	ret = pool_is_reset(s) ? -ESHUTDOWN : fifo_make(l, name);
	if (!ret)
		ret = fifo_open(l, name);
	pool_unlock(l);
	return ret;
}

static void local_side_drain(struct shmk *s, int fd)
{
	char buf[4096];

	(void)s;
	while (read(fd, buf, sizeof(buf)) == sizeof(buf))
		;
}

static void bells_drop(struct local *l)
{
	for (unsigned int i = 0; i < BELLS_MAX; i++) {
		if (l->bell[i].fd >= 0)
			close(l->bell[i].fd);
		l->bell[i].fd = -1;
	}
}

static struct bell *bell_at(struct local *l, __u64 key)
{
	return &l->bell[key * 0x9e3779b97f4a7c15ULL >> 32 & (BELLS_MAX - 1)];
}

/*
 * No FIFO means that nobody ever slept on this side. Too many open files must
 * not cost a wake-up: the other bells are only kept for speed.
 */
static int bell_fd(struct local *l, uint32_t queue, uint32_t gen, uint32_t side, uint32_t row)
{
	const __u64 key = (__u64)gen << 32 | (__u64)((row + 2) & 0x7fff) << 15 | queue << 1 | side;
	struct bell *bell = bell_at(l, key);
	char name[32];

	if (bell->fd >= 0 && bell->key == key)
		return bell->fd;
	if (bell->fd >= 0)
		close(bell->fd);
	fifo_name(name, sizeof(name), queue, gen, side, row);
	bell->fd = fifo_open(l, name);
	if (bell->fd == -EMFILE) {
		bells_drop(l);
		bell->fd = fifo_open(l, name);
	}
	bell->key = key;
	return bell->fd;
}

/* A full FIFO is as readable as one with a byte more. */
static int bell_ring_one(struct local *l, uint32_t queue, uint32_t gen, uint32_t side,
			 uint32_t row)
{
	int fd, ret = 0;

	pthread_mutex_lock(&l->bell_mutex);
	fd = bell_fd(l, queue, gen, side, row);
	if (fd < 0)
		ret = fd == -ENOENT ? 0 : fd;
	else if (write(fd, "", 1) < 0 && errno != EAGAIN)
		ret = -errno;
	pthread_mutex_unlock(&l->bell_mutex);
	return ret;
}

/*
 * Does the reader of a row sleep, or is it about to? It says so in its ledger
 * before it sets the waiters word, which we have set to 0 by now.
 */
static bool row_asleep(const struct shmk *s, const struct shmk_row *row)
{
	__u64 word = smp_load_acquire(&row->word);
	uint32_t id = SHMK_ROW_PEER(word), entry = READ_ONCE(row->entry);
	const struct shmk_ledger *ledger =
		(const void *)(s->ledgers + id * s->status->ledger_stride);

	return word && id <= s->status->nr_peers && entry < SHMK_ENTRIES_MAX &&
	       SHMK_WHAT_GEN(READ_ONCE(ledger->entry[entry].what));
}

static int bell_ring_readers(struct shmk *s, uint32_t queue, uint32_t gen)
{
	struct local *l = local_of(s);
	const struct shmk_queue_status *q = queue_at(l, queue);
	int ret = 0;

	for (uint32_t i = 0; i < q->nr_readers; i++) {
		uint32_t row = q->first_row + i;
		int one = row_asleep(s, &l->rows[row]) ?
			bell_ring_one(l, queue, gen, SHMK_SIDE_RECV, row) : 0;

		ret = ret ? ret : one;
	}
	return ret;
}

static int bell_ring(struct shmk *s, uint32_t queue, uint32_t side)
{
	struct local *l = local_of(s);
	__u64 word = smp_load_acquire(&queue_at(l, queue)->word);
	uint32_t gen = SHMK_QUEUE_GEN(word);
	int ret;

	if (SHMK_QUEUE_STATE(word) != SHMK_QUEUE_READY)
		return -ENOENT;
	if (!(SHMK_QUEUE_FLAGS(word) & SHMK_QUEUE_F_TOPIC))
		return bell_ring_one(l, queue, gen, side, ROW_NONE);
	if (side == SHMK_SIDE_RECV)
		return bell_ring_readers(s, queue, gen);
	ret = bell_ring_one(l, queue, gen, side, ROW_NONE);
	return bell_ring_one(l, queue, gen, side, ROW_CANDIDATE) ?: ret;
}

static void ring_both(struct shmk *s, uint32_t queue)
{
	bell_ring(s, queue, SHMK_SIDE_RECV);
	bell_ring(s, queue, SHMK_SIDE_SEND);
}

static int local_bell(struct shmk *s, const struct shmk_bell_one *bells, unsigned int nr)
{
	struct local *l = local_of(s);
	int ret = 0;

	for (unsigned int i = 0; i < nr; i++) {
		int one = bells[i].id < l->status->nr_queues && bells[i].side <= SHMK_SIDE_SEND ?
			bell_ring(s, bells[i].id, bells[i].side) : -EINVAL;

		ret = ret ? ret : one;
	}
	return ret;
}

/* ---------------------------------------------------------------- ending -- */

/*
 * A row changes by one store, so it needs no journal. It goes before the queue
 * is closed: who is killed in between has it open, and is settled.
 */
static void rows_leave(struct local *l, uint32_t queue, uint32_t peer)
{
	const struct shmk_queue_status *q = queue_at(l, queue);

	for (uint32_t i = 0; i < q->nr_readers; i++)
		if (SHMK_ROW_PEER(l->rows[q->first_row + i].word) == peer)
			smp_store_release(&l->rows[q->first_row + i].word, 0);
}

static void topic_gone(struct shmk *s, uint32_t id);
static void queues_collect(struct shmk *s);

/*
 * The status region has its journal, a block's word is elsewhere. So a topic
 * whose maker was killed behind the journal gets its block here, before any
 * ledger is settled that says HELD of it; and one whose remover was killed gives it
 * back.
 */
static void topics_mend(struct shmk *s)
{
	struct local *l = local_of(s);

	for (uint32_t id = 0; id < l->status->nr_queues; id++) {
		const struct shmk_queue_status *q = queue_at(l, id);

		if (SHMK_QUEUE_STATE(q->word) == SHMK_QUEUE_GOING)
			topic_gone(s, id);
		else if (SHMK_QUEUE_STATE(q->word) == SHMK_QUEUE_READY &&
			 SHMK_QUEUE_FLAGS(q->word) & SHMK_QUEUE_F_TOPIC)
			cas(&s->view.blocks[q->block].word,
			    SHMK_BLOCK_WORD(q->block_gen - 1, SHMK_BLOCK_USED),
			    SHMK_BLOCK_WORD(q->block_gen, SHMK_BLOCK_USED));
	}
}

static uint32_t entries_bound(const struct shmk_ledger *ledger, uint32_t nr_entries)
{
	__u64 high = READ_ONCE(ledger->high);

	return high < nr_entries ? high : nr_entries;
}

static void settle_ledger(struct shmk *s, uint32_t id, struct shmk_ledger *ledger)
{
	struct local *l = local_of(s);
	uint32_t nr = entries_bound(ledger, peer_at(l, id)->nr_entries);

	struct shmk_settled *settled = &l->extra->peer[id].settled;

	for (uint32_t i = 0; i < nr; i++)
		shmk_settle_entry(&s->view, id, &ledger->entry[i], settled);
	for (uint32_t i = 0; i < nr && settled->held_back; i++)
		shmk_settle_redo(&s->view, id, &ledger->entry[i], settled);
	for (uint32_t i = 0; i < nr; i++)
		shmk_settle_span(&s->view, id, &ledger->entry[i]);
}

/*
 * Rings for all queues that the dead had open, not only for those that an
 * entry named: another settler may have emptied the entry and been killed before it rang.
 * They are closed after that, so there is always someone to ring again.
 */
static void close_queues(struct shmk *s, uint32_t id)
{
	struct local *l = local_of(s);
	__u32 *opens = opens_of(l, id);

	for (uint32_t q = 0; q < l->status->nr_queues; q++) {
		struct shmk_queue_status *queue = queue_at(l, q);

		if (!opens[q])
			continue;
		rows_leave(l, q, id);
		ring_both(s, q);
		set32(l, &queue->nr_open, queue->nr_open - 1);
		set32(l, &opens[q], 0);
		journal_commit(l);
		ring_both(s, q);	/* who waits for being alone; if we die, in a slice */
	}
}

static void free_id(struct local *l, uint32_t id)
{
	struct shmk_peer_status *peer = peer_at(l, id);
	struct local_peer *more = &l->extra->peer[id];
	struct shmk_status *st = l->status;
	bool clean = more->reason == SHMK_REASON_DETACHED;
	struct shmk_event event = {
		.type = clean ? SHMK_EV_DETACHED : SHMK_EV_DIED,
		.reason = more->reason,
		.took_ns = now_ns() - more->died_ns,
		.peer = id,
		.gen = SHMK_PEER_GEN(peer->word),
		.pid = peer->local_pid,
		.uid = more->uid,
		.blocks = more->settled.blocks,
		.bytes = more->settled.bytes,
		.messages = more->settled.messages,
		.redelivered = more->settled.redelivered,
	};

	memcpy(event.comm, more->comm, sizeof(event.comm));
	journal_event(l, &event);
	set64(l, &peer->word, SHMK_PEER_WORD(event.gen, 0, SHMK_PEER_NONE));
	set64(l, &st->peers_now, st->peers_now - 1);
	set64(l, &st->reclaimed_blocks, st->reclaimed_blocks + event.blocks);
	set64(l, &st->reclaimed_bytes, st->reclaimed_bytes + event.bytes);
	set64(l, &st->lost_messages, st->lost_messages + event.messages);
	set64(l, &st->redelivered, st->redelivered + event.redelivered);
	if (clean)
		set64(l, &st->detaches, st->detaches + 1);
	else
		set64(l, &st->deaths, st->deaths + 1);
	journal_commit(l);
}

/* Gives the memory back; what was there reads as zero again. */
static void zero_rows(struct local *l, uint32_t id)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	const struct shmk_status *st = l->status;

	fallocate(l->meta, mode, st->map_ledger + id * st->ledger_stride, st->ledger_stride);
	fallocate(l->meta, mode, (char *)opens_of(l, id) - (char *)st, l->opens_stride);
}

static void mark_dead(struct local *l, uint32_t id, uint32_t reason)
{
	struct shmk_peer_status *peer = peer_at(l, id);
	struct local_peer *more = &l->extra->peer[id];

	set64(l, &more->died_ns, now_ns());
	set32(l, &more->reason, reason);
	set64(l, &peer->word, SHMK_PEER_WORD(SHMK_PEER_GEN(peer->word),
					     SHMK_PEER_FLAGS(peer->word), SHMK_PEER_DEAD));
	set64(l, &l->status->epoch, l->status->epoch + 1);
	journal_commit(l);
}

/* A read-only member has nothing in its ledger: it can neither take nor hold. */
static bool has_ledger(__u64 word)
{
	return !(SHMK_PEER_FLAGS(word) & SHMK_PEER_RDONLY);
}

/* Buries one that is marked DEAD. -errno: it stays so, for the next one. */
static int bury(struct shmk *s, uint32_t id)
{
	struct local *l = local_of(s);
	const struct shmk_status *st = l->status;
	uint64_t bytes = ledger_bytes(peer_at(l, id)->nr_entries);
	struct shmk_ledger *ledger;
	int ret;

	if (has_ledger(peer_at(l, id)->word)) {
		ret = region_map(l->meta, st->map_ledger + id * st->ledger_stride, bytes,
				 PROT_READ | PROT_WRITE, &ledger);
		if (ret)
			return ret;
		topics_mend(s);
		settle_ledger(s, id, ledger);
		munmap(ledger, bytes);
	}
	close_queues(s, id);
	queues_collect(s);
	free_id(l, id);
	zero_rows(l, id);
	return 0;
}

static bool is_alive(const struct local *l, uint32_t id)
{
	pid_t ignored;

	return lock_file_alive(l->lock, id, &ignored);
}

/* Is there anything to do about a peer for an attachment like @s? */
static bool is_due(const struct shmk *s, uint32_t id)
{
	const struct local *l = local_of(s);
	__u64 word = smp_load_acquire(&peer_at(l, id)->word);

	switch (SHMK_PEER_STATE(word)) {
	case SHMK_PEER_ALIVE:
		return !is_alive(l, id);
	case SHMK_PEER_DEAD:
		return !s->rdonly || !has_ledger(word);
	default:
		return false;
	}
}

static int reap_locked(struct shmk *s)
{
	struct local *l = local_of(s);
	int nr = 0;

	for (uint32_t id = 1; id <= l->status->nr_peers; id++) {
		if (!is_due(s, id))
			continue;
		if (SHMK_PEER_STATE(peer_at(l, id)->word) == SHMK_PEER_ALIVE)
			mark_dead(l, id, SHMK_REASON_UNKNOWN);
		if (is_due(s, id) && !bury(s, id))
			nr++;
	}
	return nr;
}

/* A journal that is valid has a living writer, or needs us. */
static bool any_due(const struct shmk *s)
{
	const struct local *l = local_of(s);

	if (READ_ONCE(l->extra->nr_stores))
		return true;
	for (uint32_t id = 1; id <= l->status->nr_peers; id++)
		if (is_due(s, id))
			return true;
	return false;
}

/* A rest longer than there can be is somebody's mistake, and must not keep the dead unburied. */
static bool scan_rests(const struct local *l, __s64 now)
{
	__u64 rest = READ_ONCE(l->extra->scan_after) - (__u64)now;

	return rest - 1 < SCAN_REST_MAX_NS;	/* none: 0, or wrapped */
}

/* @took is wall time: who was stopped in between must not make all others wait for long. */
static void scan_rest(struct local *l, __s64 begin, __s64 took)
{
	if (took <= SCAN_CHEAP_NS)
		return;
	if (took > SCAN_REST_MAX_NS / SCAN_REST)
		took = SCAN_REST_MAX_NS / SCAN_REST;
	WRITE_ONCE(l->extra->scan_after, begin + SCAN_REST * took);
}

/*
 * A look costs a system call for each peer, so a long one is followed by a
 * rest, for all attachments together. Short ones are not: whoever waited for a
 * process to end, and then looks, finds it settled.
 *
 * Unforced, it is for who is about to sleep or runs short, and has a deadline: if
 * somebody has the pool lock, he settles, or another does in the next slice.
 */
static int reap(struct shmk *s, bool forced)
{
	struct local *l = local_of(s);
	__s64 begin = now_ns();
	bool due;
	int ret;

	if (!forced && scan_rests(l, begin))
		return 0;
	due = any_due(s);
	scan_rest(l, begin, now_ns() - begin);
	if (!due)
		return 0;
	ret = forced ? pool_lock(l) : pool_lock_briefly(l);
	if (ret)
		return ret == -EAGAIN ? 0 : ret;
	ret = reap_locked(s);
	pool_unlock(l);
	return ret;
}

static int local_reap(struct shmk *s)
{
	return reap(s, false);
}

static bool any_alive(const struct local *l)
{
	for (uint32_t id = 1; id <= l->status->nr_peers; id++)
		if (SHMK_PEER_STATE(READ_ONCE(peer_at(l, id)->word)) == SHMK_PEER_ALIVE &&
		    is_alive(l, id))
			return true;
	return false;
}

/* Its peers have come and gone: no one may join it any more. */
static bool is_over(const struct local *l)
{
	return !(READ_ONCE(l->status->flags) & SHMK_POOL_F_PERSIST) && l->extra->had_peer &&
	       !any_alive(l);
}

static bool is_draining(const struct local *l)
{
	return READ_ONCE(l->status->flags) & SHMK_POOL_F_DRAIN;
}

/* --------------------------------------------------------------- joining -- */

static int ledger_make(struct shmk *s, uint32_t id)
{
	struct local *l = local_of(s);
	const struct shmk_status *st = l->status;
	off_t at = st->map_ledger + id * st->ledger_stride;
	uint64_t bytes = ledger_bytes(s->nr_entries);
	int ret;

	zero_rows(l, id);
	ret = file_allocate(l->meta, at, bytes);
	if (!ret)
		ret = file_allocate(l->meta, (uint64_t)((char *)opens_of(l, id) - (char *)st),
				    st->nr_queues * sizeof(__u32));
	if (ret) {
		zero_rows(l, id);
		return ret == -ENOSPC ? -ENOMEM : ret;
	}
	ret = region_map(l->meta, at, bytes, PROT_READ | PROT_WRITE, &s->ledger);
	if (ret)
		zero_rows(l, id);
	return ret;
}

static void peer_publish(struct shmk *s, uint32_t id)
{
	struct local *l = local_of(s);
	struct shmk_peer_status *peer = peer_at(l, id);
	struct local_peer *more = &l->extra->peer[id];
	struct shmk_status *st = l->status;
	__u32 gen = SHMK_PEER_GEN(peer->word) + 1;
	struct shmk_event event = {
		.type = SHMK_EV_ATTACHED, .peer = id, .gen = gen ? gen : 1,
		.pid = getpid(), .uid = geteuid(),
	};

	l->first_event = l->extra->nr_events + 1;	/* behind our own */
	prctl(PR_GET_NAME, event.comm);
	*more = (struct local_peer) { .uid = event.uid };
	memcpy(more->comm, event.comm, sizeof(more->comm));
	peer->nr_entries = s->nr_entries;
	peer->local_pid = event.pid;
	peer->attached_ns = now_ns();
	journal_event(l, &event);
	set64(l, &peer->word, SHMK_PEER_WORD(event.gen, s->rdonly ? SHMK_PEER_RDONLY : 0,
					     SHMK_PEER_ALIVE));
	set64(l, &l->extra->had_peer, 1);
	set64(l, &st->peers_now, st->peers_now + 1);
	set64(l, &st->attaches, st->attaches + 1);
	journal_commit(l);
	s->self = id;
	s->gen = event.gen;
}

/*
 * The lock on the life first: an id whose word is not ALIVE yet is nobody's, so
 * who is killed before that leaves a free id and memory that its next user zeroes.
 */
static int join_as(struct shmk *s, uint32_t id)
{
	struct local *l = local_of(s);
	int ret = lock_file_own(l->lock, id);

	if (ret)
		return ret;
	ret = ledger_make(s, id);
	if (ret) {
		lock_file_disown(l->lock, id);
		return ret;
	}
	peer_publish(s, id);
	return 0;
}

static int join(struct shmk *s, uint32_t nr_entries)
{
	struct local *l = local_of(s);
	int ret = -ENOSPC;

	s->nr_entries = nr_entries ? nr_entries : ENTRIES_DEFAULT;
	for (uint32_t id = 1; id <= l->status->nr_peers; id++) {
		if (SHMK_PEER_STATE(peer_at(l, id)->word) != SHMK_PEER_NONE)
			continue;
		ret = join_as(s, id);
		if (ret != -EAGAIN)
			return ret;
		ret = -ENOSPC;
	}
	return ret;
}

static void unlock_close(struct shmk *s)
{
	pool_unlock(local_of(s));
	dir_close(s, false);
}

/* One that was reset since its name was looked up has the name no more: another has. */
static int open_and_lock(struct shmk *s, const char *name)
{
	int ret;

	for (;;) {
		ret = dir_open(s, name);
		if (ret)
			return ret;
		ret = pool_lock(local_of(s));
		if (ret) {
			dir_close(s, false);
			return ret;
		}
		if (!pool_is_reset(s))
			return 0;
		unlock_close(s);
	}
}

/*
 * Opens a pool that one may join; the pool lock is held. -ENOENT: it is over, or was never;
 * -ESHUTDOWN: it drains, and @s is to do more than look.
 */
static int open_locked(struct shmk *s, const char *name)
{
	int ret = open_and_lock(s, name);

	if (ret)
		return ret;
	if (!local_of(s)->extra->gone && !is_over(local_of(s))) {
		if (!is_draining(local_of(s)) || s->rdonly)
			return 0;
		unlock_close(s);
		return -ESHUTDOWN;
	}
	ret = dir_remove(s);
	unlock_close(s);
	return ret ? ret : -ENOENT;
}

/* The pool lock is held on success, and *@made tells which of the two it was. */
static int open_or_create(struct shmk *s, const char *name, const struct shmk_pool_opts *create,
			  bool exclusive, bool *made)
{
	int ret;

	do {
		*made = false;
		ret = *name ? open_locked(s, name) : -ENOENT;
		if (!ret && exclusive)
			unlock_close(s);
		if (exclusive && (!ret || ret == -ESHUTDOWN))
			return -EEXIST;
		if (ret == -ENOENT && create) {
			dir_sweep();
			ret = dir_create(s, name, create);
			*made = !ret;
		}
	} while (ret == -EEXIST);	/* another was made between the two */
	return ret;
}

static int local_attach(struct shmk *s, const char *name, const struct shmk_attach_opts *opts)
{
	bool made;
	int ret = open_or_create(s, name, opts->create, opts->exclusive, &made);

	if (ret)
		return ret;
	reap_locked(s);
	queues_collect(s);	/* what was left to a read-only member */
	ret = join(s, opts->nr_entries);
	if (!ret) {
		pool_unlock(local_of(s));
		return 0;
	}
	if (made)
		dir_remove(s);
	unlock_close(s);
	return ret;
}

/* If burying fails, the peer is DEAD and its process lives; the next one does it. */
static void local_detach(struct shmk *s, bool forget)
{
	struct local *l = local_of(s);

	if (!forget && !pool_lock(l)) {
		mark_dead(l, s->self, SHMK_REASON_DETACHED);
		bury(s, s->self);
		lock_file_disown(l->lock, s->self);
		if (is_over(l))
			dir_remove(s);
		pool_unlock(l);
	}
	stream_free(l->idle);
	dir_close(s, forget);
}

/* ---------------------------------------------------------------- queues -- */

static int queue_find(const struct local *l, const char *name)
{
	for (uint32_t id = 0; id < l->status->nr_queues; id++)
		if (SHMK_QUEUE_STATE(queue_at(l, id)->word) == SHMK_QUEUE_READY &&
		    !strcmp(queue_at(l, id)->name, name))
			return id;
	return -ENOENT;
}

static void queue_collect(struct shmk *s, uint32_t id);

/* The same, but for a transient one that only the dead have open. */
static int queue_find_used(struct shmk *s, const char *name)
{
	struct local *l = local_of(s);
	int id = queue_find(l, name);

	if (id < 0 || !(SHMK_QUEUE_FLAGS(queue_at(l, id)->word) & SHMK_QUEUE_F_TRANSIENT))
		return id;
	reap_locked(s);
	queue_collect(s, id);
	return queue_find(l, name);
}

static int queue_free_id(const struct local *l)
{
	for (uint32_t id = 0; id < l->status->nr_queues; id++)
		if (SHMK_QUEUE_STATE(queue_at(l, id)->word) == SHMK_QUEUE_NONE)
			return id;
	return -ENOSPC;
}

/* The queue of this generation, or NULL. */
static struct shmk_queue_status *queue_get(const struct local *l, uint32_t id, uint32_t gen)
{
	struct shmk_queue_status *q;

	if (id >= l->status->nr_queues)
		return NULL;
	q = queue_at(l, id);
	return SHMK_QUEUE_STATE(q->word) == SHMK_QUEUE_READY && SHMK_QUEUE_GEN(q->word) == gen ?
		q : NULL;
}

static uint64_t ring_bytes(uint32_t capacity, uint32_t slot_bytes)
{
	return sizeof(struct shmk_ring) + (uint64_t)capacity * slot_bytes;
}

struct extent {
	uint64_t	begin;
	uint64_t	end;
};

static int extent_order(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The first place with room for @size between @begin and @end, where no extent is. */
static int place_find(struct extent *used, uint32_t nr, uint64_t begin, uint64_t end,
		      uint64_t size, uint64_t *place)
{
	uint64_t at = begin;

	qsort(used, nr, sizeof(*used), extent_order);
	for (uint32_t i = 0; i < nr && at + size > used[i].begin; i++)
		at = used[i].end;
	*place = at;
	return at + size <= end ? 0 : -ENOSPC;
}

/* What is free is what no READY queue has: nothing else could be left wrong by a kill. */
static int ring_place(const struct local *l, uint64_t bytes, uint64_t *place)
{
	const struct shmk_status *st = l->status;
	struct extent *used = malloc(st->nr_queues * sizeof(*used));
	uint32_t nr = 0;
	int ret;

	if (!used)
		return -ENOMEM;
	for (uint32_t id = 0; id < st->nr_queues; id++) {
		const struct shmk_queue_status *q = queue_at(l, id);

		if (SHMK_QUEUE_STATE(q->word) == SHMK_QUEUE_READY)
			used[nr++] = (struct extent) {
				q->ring, q->ring + ring_bytes(q->capacity, q->slot_bytes),
			};
	}
	ret = place_find(used, nr, st->rings_off, st->rings_off + st->rings_bytes, bytes, place);
	free(used);
	return ret;
}

static int rows_place(const struct local *l, uint32_t nr_rows, uint64_t *place)
{
	const struct shmk_status *st = l->status;
	struct extent *used;
	uint32_t nr = 0;
	int ret;

	*place = 0;
	if (!nr_rows)
		return 0;
	used = malloc(st->nr_queues * sizeof(*used));
	if (!used)
		return -ENOMEM;
	for (uint32_t id = 0; id < st->nr_queues; id++) {
		const struct shmk_queue_status *q = queue_at(l, id);

		if (SHMK_QUEUE_STATE(q->word) == SHMK_QUEUE_READY && q->nr_readers)
			used[nr++] = (struct extent) {
				q->first_row, q->first_row + q->nr_readers,
			};
	}
	ret = place_find(used, nr, 0, st->nr_rows, nr_rows, place);
	free(used);
	return ret;
}

/* As shmk_topic_check() of the module. */
static int topic_args(const struct shmk_queue_create *arg)
{
	if (!(arg->flags & SHMK_QUEUE_F_TOPIC))
		return arg->nr_readers || arg->nr_holds || arg->depth || arg->msg_bytes ||
		       arg->nr_elements || arg->block || arg->block_gen ? -EINVAL : 0;
	if ((arg->flags & ~SHMK_QUEUE_F_TRANSIENT) != SHMK_QUEUE_F_TOPIC ||
	    (arg->slot_bytes && arg->slot_bytes != SHMK_SLOT_MIN) ||
	    arg->capacity < SHMK_TOPIC_SLOTS_MIN || !arg->depth || arg->depth > arg->capacity)
		return -EINVAL;
	if (!arg->nr_readers || arg->nr_readers > SHMK_TOPIC_READERS_MAX ||
	    !arg->nr_holds || arg->nr_holds > SHMK_TOPIC_HOLDS_MAX ||
	    !arg->msg_bytes || arg->msg_bytes > SHMK_TOPIC_MSG_MAX ||
	    arg->nr_elements >= SHMK_ELEMENT_NONE ||
	    arg->nr_elements < arg->capacity + arg->nr_readers * arg->nr_holds + 1)
		return -EINVAL;
	return 0;
}

static int queue_args(const struct shmk_queue_create *arg)
{
	if (arg->flags & ~SHMK_QUEUE_F_ALL)
		return -EINVAL;
	if (arg->max_tries > SHMK_TRIES_MAX ||
	    (arg->max_tries && !(arg->flags & SHMK_QUEUE_F_REDELIVER)))
		return -EINVAL;
	if (!memchr(arg->name, 0, sizeof(arg->name)) || !name_valid(arg->name))
		return -EINVAL;
	if (!arg->capacity || arg->capacity > SHMK_CAPACITY_MAX ||
	    arg->capacity & (arg->capacity - 1))
		return -EINVAL;
	switch (arg->slot_bytes) {
	case 0: case 64: case 128: case 256:
		return topic_args(arg);
	}
	return -EINVAL;
}

/* nr_open counts attachments, whatever number of times one has it open. @change: 1 or -1 */
static void queue_count_open(struct shmk *s, uint32_t id, int change)
{
	struct local *l = local_of(s);
	struct shmk_queue_status *q = queue_at(l, id);
	__u32 *opens = &opens_of(l, s->self)[id];
	const __u32 now = *opens + change;

	set32(l, opens, now);
	if (!now != !*opens)
		set32(l, &q->nr_open, q->nr_open + change);
}

static void queue_event(struct shmk *s, uint32_t id, uint32_t type)
{
	struct local *l = local_of(s);
	struct shmk_event event = {
		.type = type, .queue = id, .peer = s->self, .gen = s->gen, .pid = getpid(),
		.uid = l->extra->peer[s->self].uid,
	};

	memcpy(event.comm, l->extra->peer[s->self].comm, sizeof(event.comm));
	journal_event(l, &event);
}

/* Is the block the maker's, and large enough? */
static int topic_block_check(struct shmk *s, const struct shmk_queue_create *arg)
{
	uint64_t bytes = arg->nr_elements * SHMK_TOPIC_STRIDE(arg->msg_bytes);

	if (!(arg->flags & SHMK_QUEUE_F_TOPIC))
		return 0;
	if (arg->block >= s->view.nr_spans << SHMK_SPAN_UNITS_SHIFT ||
	    READ_ONCE(s->view.blocks[arg->block].word) !=
	    SHMK_BLOCK_WORD(arg->block_gen, SHMK_BLOCK_USED) ||
	    shmk_block_room(&s->view, arg->block) < bytes)
		return -EINVAL;
	return 0;
}

static void topic_fill(struct local *l, struct shmk_queue_status *q,
		       const struct shmk_queue_create *arg, uint64_t row)
{
	if (arg->flags & SHMK_QUEUE_F_TOPIC)
		q->depth = arg->depth;
	else
		q->max_tries = arg->max_tries;
	q->block = arg->block;
	q->block_gen = arg->flags & SHMK_QUEUE_F_TOPIC ? arg->block_gen + 1 : 0;
	q->msg_bytes = arg->msg_bytes;
	q->nr_elements = arg->nr_elements;
	q->first_row = (uint32_t)row;
	q->nr_readers = (__u16)arg->nr_readers;
	q->nr_holds = (__u16)arg->nr_holds;
	memset(&l->rows[row], 0, arg->nr_readers * sizeof(*l->rows));
}

static int queue_make(struct shmk *s, struct shmk_queue_create *arg)
{
	struct local *l = local_of(s);
	uint32_t slot_bytes = arg->slot_bytes ? arg->slot_bytes : SHMK_SLOT_MIN;
	uint64_t bytes = ring_bytes(arg->capacity, slot_bytes);
	struct shmk_queue_status *q;
	uint64_t ring, row;
	int id, ret;

	if (queue_find_used(s, arg->name) >= 0)
		return -EEXIST;
	id = queue_free_id(l);
	if (id < 0)
		return id;
	ret = ring_place(l, bytes, &ring);
	if (!ret)
		ret = rows_place(l, arg->nr_readers, &row);
	if (!ret)
		ret = topic_block_check(s, arg);
	if (ret)
		return ret;
	memset(s->control + ring, 0, bytes);
	q = queue_at(l, id);
	arg->id = id;
	arg->gen = SHMK_QUEUE_GEN(q->word) + 1;
	q->ring = ring;
	q->capacity = arg->capacity;
	q->slot_bytes = slot_bytes;
	q->nr_open = 0;
	topic_fill(l, q, arg, row);
	memcpy(q->name, arg->name, sizeof(q->name));
	set64(l, &q->word, SHMK_QUEUE_WORD(arg->gen, arg->flags, SHMK_QUEUE_READY));
	set64(l, &l->status->queues_now, l->status->queues_now + 1);
	queue_count_open(s, id, 1);
	queue_event(s, id, SHMK_EV_QUEUE_CREATED);
	journal_commit(l);
	/* Killed before this: topics_mend(). Nobody else changes the block of a holder. */
	if (arg->flags & SHMK_QUEUE_F_TOPIC)
		cas(&s->view.blocks[arg->block].word,
		    SHMK_BLOCK_WORD(arg->block_gen, SHMK_BLOCK_USED),
		    SHMK_BLOCK_WORD(arg->block_gen + 1, SHMK_BLOCK_USED));
	return 0;
}

static int local_queue_create(struct shmk *s, struct shmk_queue_create *arg)
{
	int ret = queue_args(arg);

	if (ret)
		return ret;
	if (s->rdonly)
		return -EROFS;
	ret = pool_lock(local_of(s));
	if (ret)
		return ret;
	ret = queue_make(s, arg);
	pool_unlock(local_of(s));
	return ret;
}

static int local_queue_open(struct shmk *s, struct shmk_queue_open *arg)
{
	struct local *l = local_of(s);
	int id, ret;

	if (arg->flags || !memchr(arg->name, 0, sizeof(arg->name)))
		return -EINVAL;
	ret = pool_lock(l);
	if (ret)
		return ret;
	id = queue_find_used(s, arg->name);
	if (id >= 0) {
		arg->id = id;
		arg->gen = SHMK_QUEUE_GEN(queue_at(l, id)->word);
		queue_count_open(s, id, 1);
		journal_commit(l);
	}
	pool_unlock(l);
	return id < 0 ? id : 0;
}

static int local_queue_close(struct shmk *s, __u32 id, __u32 gen)
{
	struct local *l = local_of(s);
	int ret = pool_lock(l);

	if (ret)
		return ret;
	if (queue_get(l, id, gen) && opens_of(l, s->self)[id]) {
		if (opens_of(l, s->self)[id] == 1)
			rows_leave(l, id, s->self);
		queue_count_open(s, id, -1);
		journal_commit(l);
		if (!opens_of(l, s->self)[id]) {
			ring_both(s, id);	/* who is left may want to know */
			queue_collect(s, id);
		}
	} else {
		ret = -ENOENT;
	}
	pool_unlock(l);
	return ret;
}

static void fifo_unlink(const struct local *l, uint32_t id, uint32_t gen, uint32_t side,
			uint32_t row)
{
	char name[32];

	fifo_name(name, sizeof(name), id, gen, side, row);
	unlinkat(l->dir, name, 0);
}

static void fifo_remove(const struct local *l, uint32_t id, uint32_t gen)
{
	const struct shmk_queue_status *q = queue_at(l, id);

	for (uint32_t side = 0; side <= SHMK_SIDE_SEND; side++)
		fifo_unlink(l, id, gen, side, ROW_NONE);
	if (q->nr_readers)
		fifo_unlink(l, id, gen, SHMK_SIDE_SEND, ROW_CANDIDATE);
	for (uint32_t i = 0; i < q->nr_readers; i++)
		fifo_unlink(l, id, gen, SHMK_SIDE_RECV, q->first_row + i);
}

static void queue_gone(struct shmk *s, uint32_t id, uint32_t gen)
{
	struct local *l = local_of(s);

	fifo_remove(l, id, gen);
	set64(l, &queue_at(l, id)->word, SHMK_QUEUE_WORD(gen, 0, SHMK_QUEUE_NONE));
	set64(l, &l->status->queues_now, l->status->queues_now - 1);
	queue_event(s, id, SHMK_EV_QUEUE_REMOVED);
	journal_commit(l);
}

/* Of a topic that is GOING, the rest; to be done twice if it must. */
static void topic_gone(struct shmk *s, uint32_t id)
{
	const struct shmk_queue_status *q = queue_at(local_of(s), id);
	struct shmk_settled ignored = { 0 };

	shmk_block_put(&s->view, q->block, q->block_gen, &ignored);
	queue_gone(s, id, SHMK_QUEUE_GEN(q->word));
}

/*
 * First the messages, last the word: killed in between, a queue is left that
 * has fewer messages and no FIFOs, which come back when someone wants them.
 */
static int queue_unmake(struct shmk *s, uint32_t id, uint32_t gen)
{
	struct local *l = local_of(s);
	struct shmk_queue_status *q = queue_get(l, id, gen);
	struct shmk_settled ignored = { 0 };
	struct shmk_ring_view rv;

	if (!q)
		return -ENOENT;
	if (q->nr_open)
		return -EBUSY;
	if (SHMK_QUEUE_FLAGS(q->word) & SHMK_QUEUE_F_TOPIC) {
		/* Nobody may find it any more when its block is free. */
		set64(l, &q->word, SHMK_QUEUE_WORD(gen, SHMK_QUEUE_F_TOPIC, SHMK_QUEUE_GOING));
		journal_commit(l);
		topic_gone(s, id);
		return 0;
	}
	s->view.queue(&s->view, id, &rv);
	shmk_settle_queue(&s->view, &rv, &ignored);
	queue_gone(s, id, gen);
	return 0;
}

/*
 * Removes a queue that nobody has open if it is transient, or drained and empty. Killed before
 * that: who settles us does it. Not by a read-only member: by who opens it, or attaches next.
 */
static void queue_collect(struct shmk *s, uint32_t id)
{
	const struct shmk_queue_status *q = queue_at(local_of(s), id);
	uint32_t flags = SHMK_QUEUE_FLAGS(q->word);
	struct shmk_ring_view rv;

	if (s->rdonly || SHMK_QUEUE_STATE(q->word) != SHMK_QUEUE_READY || q->nr_open ||
	    !(flags & (SHMK_QUEUE_F_TRANSIENT | SHMK_QUEUE_F_DRAIN)))
		return;
	s->view.queue(&s->view, id, &rv);
	if (flags & (SHMK_QUEUE_F_TRANSIENT | SHMK_QUEUE_F_TOPIC) || shmk_ring_drained(&rv))
		queue_unmake(s, id, SHMK_QUEUE_GEN(q->word));
}

static void queues_collect(struct shmk *s)
{
	for (uint32_t id = 0; id < s->status->nr_queues; id++)
		queue_collect(s, id);
}

static int local_queue_drain(struct shmk *s, __u32 id, __u32 gen)
{
	struct local *l = local_of(s);
	struct shmk_queue_status *q;
	int ret;

	if (s->rdonly)
		return -EROFS;
	ret = pool_lock(l);
	if (ret)
		return ret;
	reap_locked(s);
	q = queue_get(l, id, gen);
	if (q) {
		set64(l, &q->word, SHMK_QUEUE_WORD(gen, SHMK_QUEUE_FLAGS(q->word) |
						   SHMK_QUEUE_F_DRAIN, SHMK_QUEUE_READY));
		set64(l, &l->status->epoch, l->status->epoch + 1);
		journal_commit(l);
		smp_mb();	/* before row_asleep(); who is killed here has woken nobody: in a slice */
		ring_both(s, id);
		queue_collect(s, id);
	}
	pool_unlock(l);
	return q ? 0 : -ENOENT;
}

static int local_queue_remove(struct shmk *s, __u32 id, __u32 gen)
{
	int ret;

	if (s->rdonly)
		return -EROFS;
	ret = pool_lock(local_of(s));
	if (ret)
		return ret;
	reap_locked(s);		/* the dead have nothing open */
	ret = queue_unmake(s, id, gen);
	pool_unlock(local_of(s));
	return ret;
}

/* ---------------------------------------------------------------- topics -- */

static int subscribe(struct shmk *s, struct shmk_topic_subscribe *arg)
{
	struct local *l = local_of(s);
	const struct shmk_queue_status *q = queue_get(l, arg->id, arg->gen);
	struct shmk_row *row;
	uint32_t i;

	if (!q || !opens_of(l, s->self)[arg->id])
		return -ENOENT;
	if (!(SHMK_QUEUE_FLAGS(q->word) & SHMK_QUEUE_F_TOPIC) || arg->entry >= s->nr_entries ||
	    q->nr_holds >= s->nr_entries - arg->entry)
		return -EINVAL;
	row = &l->rows[q->first_row];
	for (i = 0; i < q->nr_readers && row->word; i++)
		row++;
	if (i == q->nr_readers)
		return -ENOSPC;
	row->entry = arg->entry;
	row->wait_ns = arg->wait_ns;
	smp_store_release(&row->word, SHMK_ROW_WORD(s->gen, arg->policy, s->self));
	/* A writer that has looked already looks again, and then sees the word. */
	set64(l, &l->status->epoch, l->status->epoch + 1);
	journal_commit(l);
	arg->row = (uint32_t)(row - l->rows);
	return 0;
}

static int local_topic_subscribe(struct shmk *s, struct shmk_topic_subscribe *arg)
{
	int ret;

	if (arg->flags || arg->reserved || arg->policy > SHMK_TOPIC_WAIT ||
	    (arg->policy == SHMK_TOPIC_SKIP && arg->wait_ns))
		return -EINVAL;
	if (s->rdonly && arg->policy == SHMK_TOPIC_WAIT)
		return -EACCES;
	ret = pool_lock(local_of(s));
	if (ret)
		return ret;
	ret = subscribe(s, arg);
	if (ret == -ENOSPC && reap_locked(s))
		ret = subscribe(s, arg);
	pool_unlock(local_of(s));
	return ret;
}

static int local_topic_unsubscribe(struct shmk *s, __u32 id, __u32 row)
{
	struct local *l = local_of(s);
	const struct shmk_queue_status *q;
	int ret = pool_lock(l);

	if (ret)
		return ret;
	q = queue_at(l, id);
	if (row < q->first_row || row - q->first_row >= q->nr_readers ||
	    SHMK_ROW_PEER(l->rows[row].word) != s->self)
		ret = -ENOENT;
	else
		smp_store_release(&l->rows[row].word, 0);
	pool_unlock(l);
	return ret;
}

/* --------------------------------------------------------------- telling -- */

static uint64_t file_bytes(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) ? 0 : st.st_blocks * 512ULL;
}

static uint32_t count_alive(const struct local *l)
{
	uint32_t nr = 0;

	for (uint32_t id = 1; id <= l->status->nr_peers; id++)
		if (SHMK_PEER_STATE(READ_ONCE(peer_at(l, id)->word)) == SHMK_PEER_ALIVE &&
		    is_alive(l, id))
			nr++;
	return nr;
}

static int info_fill(struct shmk *s, struct shmk_pool_info *info)
{
	const struct local *l = local_of(s);
	const struct shmk_status *st = l->status;
	struct shmk_settled usage = { 0 };
	struct stat file, dir;

	if (fstatat(l->dir, "pool", &file, AT_SYMLINK_NOFOLLOW) || fstat(l->dir, &dir))
		return -errno;
	shmk_settle_usage(&s->view, 0, st->nr_spans, &usage);
	*info = (struct shmk_pool_info) {
		.size = sizeof(*info),
		.flags = st->flags,
		.id = dir.st_ino,
		.bytes = st->data_bytes,
		.memory_bytes = file.st_blocks * 512ULL + file_bytes(l->dir, "meta"),
		.page_shift = st->page_shift,
		.unit_shift = st->unit_shift,
		.node = -1,
		.mode = file.st_mode & 0666,
		.uid = file.st_uid,
		.gid = file.st_gid,
		.nr_peers = st->nr_peers,
		.nr_queues = st->nr_queues,
		.peers_now = count_alive(l),
		.queues_now = st->queues_now,
		.blocks_used = usage.blocks,
		.bytes_used = usage.bytes,
		.attaches = st->attaches,
		.detaches = st->detaches,
		.deaths = st->deaths,
		.reclaimed_blocks = st->reclaimed_blocks,
		.reclaimed_bytes = st->reclaimed_bytes,
		.lost_messages = st->lost_messages,
		.redelivered = st->redelivered,
		.created_ns = st->created_ns,
	};
	memcpy(info->name, st->name, sizeof(info->name) - 1);
	return 0;
}

static int local_pool_info(struct shmk *s, struct shmk_pool_info *info)
{
	reap(s, true);
	return info_fill(s, info);
}

static int local_peer_info(struct shmk *s, struct shmk_peer_info *info)
{
	const struct local *l = local_of(s);

	for (uint32_t id = info->peer ? info->peer : 1; id <= l->status->nr_peers; id++) {
		const struct shmk_peer_status *peer = peer_at(l, id);
		__u64 word = smp_load_acquire(&peer->word);
		pid_t pid;

		if (SHMK_PEER_STATE(word) == SHMK_PEER_NONE)
			continue;
		if (!lock_file_alive(l->lock, id, &pid))
			pid = peer->local_pid;
		*info = (struct shmk_peer_info) {
			.size = sizeof(*info),
			.peer = id,
			.gen = SHMK_PEER_GEN(word),
			.state = SHMK_PEER_STATE(word),
			.flags = SHMK_PEER_FLAGS(word),
			.pid = pid,
			.uid = l->extra->peer[id].uid,
			.nr_entries = peer->nr_entries,
			.attached_ns = peer->attached_ns,
		};
		memcpy(info->comm, l->extra->peer[id].comm, sizeof(info->comm));
		return 0;
	}
	return -ENOENT;
}

/* ----------------------------------------------------------------- pools -- */

static bool local_present(void)
{
	return true;
}

static int local_pool_create(const char *name, const struct shmk_pool_opts *opts)
{
	struct shmk s = { .backend = &shmk_local_backend };
	bool made;
	int ret = open_or_create(&s, name, opts, true, &made);

	if (!ret)
		unlock_close(&s);
	return ret;
}

/* As a reader only: the dead need no settling in a pool that goes. */
static int open_to_remove(struct shmk *s, const char *name)
{
	*s = (struct shmk) { .backend = &shmk_local_backend, .rdonly = true };
	return open_and_lock(s, name);
}

static bool may_remove(const struct local *l)
{
	struct stat st;

	return !geteuid() || (!fstat(l->dir, &st) && st.st_uid == geteuid());
}

/* One word, so whoever is killed here has begun it or has not. */
static int drain_begin(struct local *l)
{
	set32(l, &l->status->flags,
	      (l->status->flags & ~SHMK_POOL_F_PERSIST) | SHMK_POOL_F_DRAIN);
	journal_commit(l);
	return 0;
}

static int local_pool_destroy(const char *name, bool drain)
{
	struct shmk s;
	int ret = open_to_remove(&s, name);

	if (ret)
		return ret;
	if (!may_remove(local_of(&s)))
		ret = -EPERM;
	else if (local_of(&s)->extra->gone)
		ret = -ENOENT;
	else if (any_alive(local_of(&s)))
		ret = drain ? drain_begin(local_of(&s)) : -EBUSY;
	else
		ret = dir_remove(&s);
	unlock_close(&s);
	return ret;
}

/* What the old one was made with. */
static int opts_of(const struct local *l, struct shmk_pool_opts *opts)
{
	const struct shmk_status *st = l->status;
	struct stat file;

	if (fstatat(l->dir, "pool", &file, AT_SYMLINK_NOFOLLOW))
		return -errno;
	*opts = (struct shmk_pool_opts) {
		.bytes = st->data_bytes,
		.unit_bytes = 1U << st->unit_shift,
		.flags = (st->flags & SHMK_POOL_F_PERSIST ? SHMK_POOL_PERSIST : 0) |
			 (st->flags & SHMK_POOL_F_NO_QUARANTINE ? SHMK_POOL_NO_QUARANTINE : 0),
		.mode = file.st_mode & 0666,
		.set_owner = true,
		.uid = file.st_uid,
		.gid = file.st_gid,
		.nr_peers = st->nr_peers,
		.nr_queues = st->nr_queues,
		.rings_bytes = st->rings_bytes,
	};
	return 0;
}

/* Tells all who are in it. */
static void mark_reset(struct shmk *s)
{
	struct local *l = local_of(s);
	struct shmk_event event = {
		.type = SHMK_EV_RESET, .pid = getpid(), .uid = geteuid(),
	};

	journal_event(l, &event);
	set32(l, &l->status->flags, l->status->flags | SHMK_POOL_F_RESET);
	journal_commit(l);
	for (uint32_t id = 0; id < l->status->nr_queues; id++)
		if (SHMK_QUEUE_STATE(queue_at(l, id)->word) == SHMK_QUEUE_READY)
			ring_both(s, id);
}

static int reset_locked(struct shmk *s, const char *name, bool force)
{
	struct shmk new = { .backend = &shmk_local_backend };
	struct local *l = local_of(s);
	struct shmk_pool_opts opts;
	int ret;

	if (!may_remove(l))
		return -EPERM;
	if (l->extra->gone || is_over(l))
		return -ENOENT;
	if (!force && any_alive(l))
		return -EBUSY;
	ret = opts_of(l, &opts);
	if (!ret)
		ret = dir_replace(&new, name, l, &opts);
	if (ret)
		return ret;
	unlock_close(&new);
	mark_reset(s);
	dir_remove(s);		/* what is left of it is ruins */
	return 0;
}

static int local_pool_reset(const char *name, bool force)
{
	struct shmk s;
	int ret = open_to_remove(&s, name);

	if (ret)
		return ret;
	ret = reset_locked(&s, name, force);
	unlock_close(&s);
	return ret;
}

static int cleanup_one(const char *name)
{
	struct shmk s;
	int ret = open_to_remove(&s, name);

	if (ret)
		return ret;
	if (any_alive(local_of(&s)))
		ret = -EBUSY;
	else if (!(s.status->flags & SHMK_POOL_F_PERSIST) || local_of(&s)->extra->gone)
		ret = may_remove(local_of(&s)) ? dir_remove(&s) : -EPERM;
	else
		ret = -EAGAIN;
	unlock_close(&s);
	return ret == -EAGAIN ? 0 : ret ? ret : 1;
}

static int local_pool_cleanup(const char *name)
{
	char each[SHMK_NAME_LEN];
	__u64 ino = 0;
	int nr;

	if (name)
		return cleanup_one(name);
	nr = dir_sweep();
	while (!dir_next(ino, each, &ino))
		if (cleanup_one(each) == 1)
			nr++;
	return nr;
}

/* Pools that cannot be read, or are going, are passed over. */
static int local_pool_next(__u64 id, struct shmk_pool_info *info)
{
	char name[SHMK_NAME_LEN];

	while (!dir_next(id, name, &id)) {
		struct shmk s = { .backend = &shmk_local_backend, .rdonly = true };
		int ret = dir_open(&s, name);

		if (ret)
			continue;
		ret = local_of(&s)->extra->gone ? -ENOENT : info_fill(&s, info);
		dir_close(&s, false);
		if (!ret)
			return 0;
	}
	return -ENOENT;
}

/* Who may write settles; who may not sees what others have settled. */
static int local_watch_open(struct shmk *s, const char *name)
{
	int ret;

	*s = (struct shmk) { .backend = &shmk_local_backend };
	ret = dir_open(s, name);
	if (ret != -EACCES)
		return ret;
	*s = (struct shmk) { .backend = &shmk_local_backend, .rdonly = true };
	return dir_open(s, name);
}

static void local_watch_close(struct shmk *s)
{
	stream_free(local_of(s)->idle);
	dir_close(s, false);
}

const struct shmk_backend shmk_local_backend = {
	.scheme		= "local",
	.present	= local_present,
	.pool_create	= local_pool_create,
	.pool_destroy	= local_pool_destroy,
	.pool_reset	= local_pool_reset,
	.pool_next	= local_pool_next,
	.pool_cleanup	= local_pool_cleanup,
	.attach		= local_attach,
	.detach		= local_detach,
	.pool_info	= local_pool_info,
	.peer_info	= local_peer_info,
	.queue_create	= local_queue_create,
	.queue_open	= local_queue_open,
	.queue_close	= local_queue_close,
	.queue_remove	= local_queue_remove,
	.queue_drain	= local_queue_drain,
	.topic_subscribe = local_topic_subscribe,
	.topic_unsubscribe = local_topic_unsubscribe,
	.side_fd	= local_side_fd,
	.side_drain	= local_side_drain,
	.bell		= local_bell,
	.reap		= local_reap,
	.busy		= local_busy,
	.wait_slice_ns	= SLICE_NS,
	.watch_open	= local_watch_open,
	.watch_close	= local_watch_close,
	.events_open	= events_open,
	.events_fd	= events_fd,
	.events_next	= events_next,
	.events_close	= events_close,
};
