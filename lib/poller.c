// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * poller.c - one wait for many things.
 *
 * Vocabulary
 *   source   a side of a queue, a subscription (which is the RECV side of a queue of its
 *            own), the events of the attachment, or a caller's fd.
 *   hot      of a side: its slots are looked at in each wait. It was ready not long
 *            ago, or is new.
 *   armed    of a side: it went through S0 .. S3 of wait.c and was not ready, and its
 *            fd was never seen readable since.
 *   set      the epoll set, with the fds of all sources, level-triggered. It is kept
 *            from wait to wait.
 *
 * A wait looks at the hot ones; if nothing is ready it spins as wait.c does, arms
 * what is hot, and sleeps in one epoll_pwait2(). A side whose fd is readable then is
 * hot again. So a wait costs what is hot and what it tells, and nothing for
 * a side that nobody sends to. Who uses it pays for that with a bell: the word of an armed
 * side stays set while the poller is awake, so the first message to a side
 * that was idle costs its sender one system call.
 *
 * Armed ones are found ready by their slots while they are few (LOOK_MAX), else
 * only through the set, which is then asked in each wait. What has no slots
 * (events, fds) is known through the set alone. Asking is a system call; a
 * wait that finds something in a poller with few sides and nothing else makes none.
 *
 * No wake-up is lost. wait.c proves it for who did S0 .. S3 and then sleeps on the
 * fd. To be armed is just that, seen from outside: nothing was taken out of the
 * fd since S0, and it was not readable when it was last asked for; that the process
 * did other things meanwhile, or slept on many fds at once, makes no difference
 * to those who publish. When the fd is seen readable the side is hot, and
 * nobody sleeps on it before it has gone through S0 .. S3 again.
 *
 * Each gets its turn: a side that was told goes to the end of its list, what the
 * set tells is taken from another one on in each wait, and in every ASK_FIRST-th
 * the set is asked before the slots are, so that busy queues do not hide an fd
 * from a caller with little room.
 *
 * A poller is one thread's; but a queue that is closed must find those that have it, and
 * touch no other. So its sources are chained on the queue as well, under the attachment's
 * lock, under which they also go.
 *
 * If it dies: arming has its WAITING entry, as in wait.c. All else is private.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "topic.h"
#include "wait.h"

#define LOOK_MAX	32	/* so many armed sides are looked at in each wait */
#define IDLE_WAITS	256	/* so many waits a side stays hot without a message */
#define ASK_FIRST	8
#define ASK_MAX		64	/* events taken out of the set at once */
#define SPIN_LOOKS	64	/* looks before the clock is read */

struct source {
	struct source		*next, *prev;	/* in one of the poller's lists */
	struct shmk_poller	*poller;
	struct source		*of_queue;	/* the next of the queue's; under shmk->lock */
	void			*tag;
	int			kind;		/* SHMK_READY_* */
	bool			armed;
	struct shmk_queue	*q;		/* of a queue, or a subscription's */
	struct shmk_sub		*sub;		/* SHMK_READY_SUB */
	uint32_t		side;
	int			fd;
	uint64_t		told;		/* the last wait that did */
	uint64_t		used;		/* the last wait in which it was ready, or new */
};

struct list {
	struct source	head;
	unsigned int	nr;
};

struct shmk_poller {
	struct shmk		*shmk;
	struct shmk_poller	*next;		/* of the attachment; under its lock */
	int			set;
	bool			exported;	/* the caller polls the set: -EAGAIN must arm */
	uint64_t		round;		/* waits */
	uint64_t		asks;
	struct spin		spin;
	struct list		hot;
	struct list		armed;
	struct list		dozing;		/* armed subscriptions */
	struct list		others;		/* no queue */
};

/* What a wait has found. */
struct found {
	struct shmk_ready	*ready;
	unsigned int		nr, room;
	bool			woken;		/* the interrupt fd is readable */
};

/* --------------------------------------------------------------- lists -- */

static void list_init(struct list *list)
{
	list->head.next = list->head.prev = &list->head;
	list->nr = 0;
}

static void list_add(struct list *list, struct source *src)
{
	src->prev = list->head.prev;
	src->next = &list->head;
	src->prev->next = src->next->prev = src;
	list->nr++;
}

static void list_del(struct list *list, struct source *src)
{
	src->prev->next = src->next;
	src->next->prev = src->prev;
	list->nr--;
}

static struct list *list_of(struct shmk_poller *p, const struct source *src)
{
	if (!src->q)
		return &p->others;
	return !src->armed ? &p->hot : src->sub ? &p->dozing : &p->armed;
}

/* To the end of the hot ones, also if it is one. */
static void make_hot(struct shmk_poller *p, struct source *src)
{
	list_del(list_of(p, src), src);
	src->armed = false;
	src->used = p->round;
	list_add(&p->hot, src);
}

static void make_armed(struct shmk_poller *p, struct source *src)
{
	list_del(&p->hot, src);
	src->armed = true;
	list_add(list_of(p, src), src);
}

/* ------------------------------------------------------------- sources -- */

/* An end is told too: the next call is -EPIPE. */
static bool source_ready(const struct source *src)
{
	return side_ready(src->q, src->side) || side_hung_up(src->q, src->side);
}

static bool full(const struct found *f)
{
	return f->nr == f->room;
}

static uint32_t source_events(const struct source *src)
{
	return src->side == SHMK_SIDE_RECV ? POLLIN : POLLOUT;
}

static void tell(struct shmk_poller *p, struct found *f, struct source *src, uint32_t events)
{
	src->told = p->round;
	f->ready[f->nr++] = (struct shmk_ready) {
		.kind = src->kind,
		.tag = src->tag,
		.queue = src->sub ? NULL : src->q,
		.sub = src->sub,
		.side = (int)src->side,
		.fd = src->kind == SHMK_READY_FD ? src->fd : -1,
		.events = events,
	};
}

/*
 * S0 .. S3. 0: it is ready after all, and stays hot; -EAGAIN: armed; -ENOBUFS:
 * there is no entry. @by_caller: the caller sleeps on the set, not we; then its fd
 * must tell at least all there is.
 */
static int arm(struct shmk_poller *p, struct source *src, bool by_caller)
{
	int ret = side_arm(src->q, src->side);

	if (ret && side_hung_up(src->q, src->side))
		return 0;
	if (ret == -EAGAIN)
		make_armed(p, src);
	else if (ret == -ENOBUFS && by_caller)
		ret = side_arm_undrained(src->q, src->side);
	return ret;
}

/* 0: all are armed; 1: one is ready; -ENOBUFS: some can not be armed. */
static int arm_hot(struct shmk_poller *p, bool by_caller)
{
	struct source *src = p->hot.head.next, *next;
	int ret, err = 0;

	for (unsigned int n = p->hot.nr; n; n--, src = next) {
		next = src->next;
		ret = arm(p, src, by_caller);
		if (!ret)
			return 1;
		if (ret != -EAGAIN)
			err = ret;
	}
	return err;
}

/* ------------------------------------------------------------- looking -- */

/* Must the set be asked to know about all? */
static bool has_unseen(const struct shmk_poller *p)
{
	return p->others.nr || p->dozing.nr || p->armed.nr > LOOK_MAX;
}

static void look_list(struct shmk_poller *p, struct list *list, struct found *f)
{
	struct source *src = list->head.next, *next;

	for (unsigned int n = list->nr; n && !full(f); n--, src = next) {
		next = src->next;
		if (src->told == p->round)
			continue;
		if (source_ready(src)) {
			make_hot(p, src);
			tell(p, f, src, source_events(src));
		} else if (!src->armed && p->hot.nr > LOOK_MAX &&
			   p->round - src->used > IDLE_WAITS) {
			arm(p, src, p->exported);
		}
	}
}

/*
 * A subscription is rung for only while its ledger says that it sleeps, and reading
 * takes that back. So one that was read since it was armed is not armed any more.
 */
static void wake_dozing(struct shmk_poller *p)
{
	struct source *src = p->dozing.head.next, *next;

	for (unsigned int n = p->dozing.nr; n; n--, src = next) {
		next = src->next;
		if (!src->sub->asleep)
			make_hot(p, src);
	}
}

static void look(struct shmk_poller *p, struct found *f)
{
	unsigned int nr_armed = p->armed.nr;

	look_list(p, &p->hot, f);
	if (nr_armed <= LOOK_MAX)
		look_list(p, &p->armed, f);
}

static void told_by_set(struct shmk_poller *p, struct found *f, struct source *src,
			uint32_t events)
{
	bool gone = events & (EPOLLERR | EPOLLHUP);

	if (src->q) {
		if (src->told == p->round)
			return;
		make_hot(p, src);
		if (!full(f) && (gone || source_ready(src)))
			tell(p, f, src, source_events(src));
	} else if (src->kind && !full(f)) {
		tell(p, f, src, events);
	}
}

static int set_wait(int set, struct epoll_event *events, int max, int64_t timeout_ns)
{
	struct timespec ts = {
		.tv_sec = timeout_ns / NS_PER_S,
		.tv_nsec = timeout_ns % NS_PER_S,
	};
	int n = epoll_pwait2(set, events, max, timeout_ns < 0 ? NULL : &ts, NULL);
	int64_t ms = (timeout_ns + 999999) / 1000000;

	if (n < 0 && errno == ENOSYS)	/* before 5.11, or a filter that does not know it */
		n = epoll_wait(set, events, max, timeout_ns < 0 ? -1 : (int)(ms < INT32_MAX ?
									     ms : INT32_MAX));
	/* A signal is no reason to give up; the caller counts the time anew. */
	return n < 0 ? errno == EINTR ? 0 : -errno : n;
}

/*
 * Waits so long for the set, negative: for ever, and takes what it tells. On the
 * local backend that may be old news of hot sides, which are not drained.
 */
static int ask(struct shmk_poller *p, struct found *f, int64_t timeout_ns)
{
	struct epoll_event events[ASK_MAX], *e;
	int n;

	if (timeout_ns)
		store_sleeps(p->shmk);
	n = set_wait(p->set, events, ASK_MAX, timeout_ns);
	/* There may be room for fewer; they come in the same order every time. */
	p->asks++;
	for (int i = 0; i < n; i++) {
		e = &events[(i + p->asks) % (unsigned int)n];
		if (e->data.ptr)
			told_by_set(p, f, e->data.ptr, e->events);
		else
			f->woken = true;
	}
	return n < 0 ? n : 0;
}

static int look_around(struct shmk_poller *p, struct found *f)
{
	bool unseen = has_unseen(p), first = unseen && p->round % ASK_FIRST == 0;
	int ret = first ? ask(p, f, 0) : 0;

	if (!ret)
		look(p, f);
	if (!ret && unseen && !first && !full(f))
		ret = ask(p, f, 0);
	return f->nr ? 0 : ret;
}

/* ------------------------------------------------------------- waiting -- */

/* So many looks that the clock is read every few microseconds. */
static int spin_some(struct shmk_poller *p, struct found *f)
{
	unsigned int sides = p->hot.nr + (p->armed.nr <= LOOK_MAX ? p->armed.nr : 0);
	unsigned int passes = sides < SPIN_LOOKS ? SPIN_LOOKS / (sides ? sides : 1) : 1;

	while (passes-- && !f->nr) {
		look(p, f);
		cpu_relax();
	}
	return f->nr || !has_unseen(p) ? 0 : ask(p, f, 0);
}

static int spin(struct shmk_poller *p, struct found *f, int64_t deadline)
{
	struct shmk *s = p->shmk;
	int64_t end;
	int ret;

	if (!p->hot.nr && (!p->armed.nr || p->armed.nr > LOOK_MAX))
		return 0;	/* nothing to look at */
	if (!spin_wanted(s, &p->spin))
		return 0;
	end = now_ns() + s->spin_max_ns;
	if (end > deadline)
		end = deadline;
	do
		ret = spin_some(p, f);
	while (!ret && !f->nr && !interrupted(s) && now_ns() < end);
	if (s->spin_adapts)
		spin_learn(&p->spin, f->nr);
	return ret;
}

/*
 * Without an entry nothing may be drained, and a fd that was not drained may be
 * readable for nothing: so a nap instead of the set.
 */
static int nap(struct shmk_poller *p, struct found *f, int64_t timeout_ns)
{
	int ret = poll_sleep(p->shmk, -1, 0, timeout_ns);

	if (ret < 0)
		return ret;
	f->woken = ret & WOKEN_INTERRUPT;
	look(p, f);
	return full(f) ? 0 : ask(p, f, 0);
}

static int sleep_once(struct shmk_poller *p, struct found *f, int64_t now, int64_t deadline)
{
	struct shmk *s = p->shmk;
	int64_t wake = wait_reap(s, now);
	int ret = arm_hot(p, false);

	if (ret == 1) {
		look(p, f);
		return 0;
	}
	if (ret == -ENOBUFS)
		ret = nap(p, f, timeout_until(now, now + NO_ENTRY_NS, deadline));
	else if (!ret)
		ret = ask(p, f, timeout_until(now, wake, deadline));
	if (f->woken && !interrupted(s))
		interrupt_lower(s);
	f->woken = false;
	return ret;
}

static int poller_sleep(struct shmk_poller *p, struct found *f, int64_t deadline)
{
	int64_t now;
	int ret;

	do {
		now = now_ns();
		ret = wait_over(p->shmk, now, deadline);
		if (!ret)
			ret = sleep_once(p, f, now, deadline);
	} while (!ret && !f->nr);
	return ret;
}

/*
 * Nothing is ready, and this call does not wait. If the caller goes on to wait for
 * the fd, then what is hot must be armed. An interrupt makes that fd readable too.
 */
static int give_up(struct shmk_poller *p, struct found *f)
{
	int ret;

	if (!p->exported)
		return -EAGAIN;
	store_sleeps(p->shmk);
	do {
		ret = arm_hot(p, true);
		if (ret == 1)
			look(p, f);
	} while (ret == 1 && !f->nr);
	if (interrupted(p->shmk))
		return -EINTR;
	if (f->woken)
		interrupt_lower(p->shmk);
	return -EAGAIN;
}

int shmk_poller_wait(struct shmk_poller *p, struct shmk_ready *ready, unsigned int n,
		     int64_t deadline)
{
	struct found f = { .ready = ready, .room = n };
	ERRNO_KEPT;
	int ret;

	if (!n || n > INT32_MAX)
		return -EINVAL;
	p->round++;
	wake_dozing(p);
	ret = look_around(p, &f);
	if (!ret && !f.nr && deadline == SHMK_TRY) {
		ret = give_up(p, &f);
	} else if (!ret && !f.nr) {
		ret = spin(p, &f, deadline);
		if (!ret && !f.nr)
			ret = poller_sleep(p, &f, deadline);
	}
	if (pool_is_reset(p->shmk))
		return -ESHUTDOWN;
	return f.nr ? (int)f.nr : ret;
}

/* ------------------------------------------------------------ its sets -- */

static struct source *find_side(struct shmk_poller *p, const struct shmk_queue *q, int side)
{
	bool locked = lock(&p->shmk->lock);
	struct source *src = q->sources;

	while (src && (src->poller != p || (int)src->side != side))
		src = src->of_queue;
	unlock(&p->shmk->lock, locked);
	return src;
}

static struct source *find_other(struct shmk_poller *p, int kind, int fd)
{
	struct source *src;

	for (src = p->others.head.next; src != &p->others.head; src = src->next)
		if (src->kind == kind && src->fd == fd)
			return src;
	return NULL;
}

static int set_add(struct shmk_poller *p, int fd, uint32_t events, struct source *src)
{
	struct epoll_event ev = { .events = events, .data.ptr = src };

	return epoll_ctl(p->set, EPOLL_CTL_ADD, fd, &ev) ? -errno : 0;
}

static void source_chain(struct source *src)
{
	bool locked = lock(&src->poller->shmk->lock);

	src->of_queue = src->q->sources;
	src->q->sources = src;
	unlock(&src->poller->shmk->lock, locked);
}

/* Under shmk->lock, if it has a queue. */
static void source_free(struct list *list, struct source *src)
{
	struct source **at;

	if (src->q) {
		for (at = &src->q->sources; *at != src; at = &(*at)->of_queue)
			;
		*at = src->of_queue;
	}
	list_del(list, src);
	free(src);
}

static void source_drop_locked(struct source *src)
{
	struct shmk_poller *p = src->poller;

	epoll_ctl(p->set, EPOLL_CTL_DEL, src->fd, NULL);
	source_free(list_of(p, src), src);
}

static int source_add(struct shmk_poller *p, const struct source *like, uint32_t events)
{
	struct source *src = malloc(sizeof(*src));
	int ret;

	if (!src)
		return -ENOMEM;
	*src = *like;
	ret = set_add(p, src->fd, events, src);
	if (ret) {
		free(src);
		return ret;
	}
	src->poller = p;
	list_add(list_of(p, src), src);
	if (src->q)
		source_chain(src);
	if (src->q && p->exported)
		arm(p, src, true);
	return 0;
}

int shmk_poller_add(struct shmk_poller *p, struct shmk_queue *q, int side, void *tag)
{
	struct source src = { .kind = SHMK_READY_QUEUE, .q = q, .tag = tag };
	ERRNO_KEPT;
	int ret;

	if ((side != SHMK_RECV && side != SHMK_SEND) || q->shmk != p->shmk)
		return -EINVAL;
	if (p->shmk->rdonly)
		return -EROFS;
	if (find_side(p, q, side))
		return -EEXIST;
	ret = side_open(q, (uint32_t)side);
	if (ret)
		return ret;
	if (side == SHMK_SEND)
		wait_watch(q);
	src.side = (uint32_t)side;
	src.fd = q->side[side].fd;
	src.used = p->round;
	return source_add(p, &src, (uint32_t)side_events(q, (uint32_t)side));
}

int shmk_poller_add_sub(struct shmk_poller *p, struct shmk_sub *sub, void *tag)
{
	struct source src = { .kind = SHMK_READY_SUB, .q = &sub->q, .sub = sub, .tag = tag };
	ERRNO_KEPT;
	struct shmk *s = p->shmk;
	int ret;

	if (sub->q.shmk != s)
		return -EINVAL;
	if (s->rdonly && s->backend->wait_slice_ns != INT64_MAX)
		return -EOPNOTSUPP;	/* as shmk_sub_fd() */
	if (find_side(p, &sub->q, SHMK_SIDE_RECV))
		return -EEXIST;
	ret = side_open(&sub->q, SHMK_SIDE_RECV);
	if (ret)
		return ret;
	src.fd = sub->q.side[SHMK_SIDE_RECV].fd;
	src.used = p->round;
	return source_add(p, &src, (uint32_t)side_events(&sub->q, SHMK_SIDE_RECV));
}

int shmk_poller_add_events(struct shmk_poller *p, void *tag)
{
	struct source src = { .kind = SHMK_READY_EVENTS, .tag = tag };
	ERRNO_KEPT;

	src.fd = shmk_event_fd(p->shmk);
	if (src.fd < 0)
		return src.fd;
	return find_other(p, SHMK_READY_EVENTS, src.fd) ? -EEXIST : source_add(p, &src, EPOLLIN);
}

int shmk_poller_add_fd(struct shmk_poller *p, int fd, short events, void *tag)
{
	struct source src = { .kind = SHMK_READY_FD, .fd = fd, .tag = tag };
	ERRNO_KEPT;
	struct source *old = find_other(p, SHMK_READY_FD, fd);
	int ret;

	if (events & ~(POLLIN | POLLOUT | POLLPRI | POLLRDHUP))
		return -EINVAL;
	ret = source_add(p, &src, (uint32_t)events);
	/*
	 * The old one was closed without being removed. If another process has it too it
	 * is in the set for ever, so what the set names stays.
	 */
	if (!ret && old)
		old->kind = 0;
	return ret;
}

static int source_remove(struct source *src)
{
	ERRNO_KEPT;
	struct shmk *s;
	bool locked;

	if (!src)
		return -ENOENT;
	s = src->poller->shmk;
	locked = lock(&s->lock);
	source_drop_locked(src);
	unlock(&s->lock, locked);
	return 0;
}

int shmk_poller_remove(struct shmk_poller *p, struct shmk_queue *q, int side)
{
	return source_remove(find_side(p, q, side));
}

int shmk_poller_remove_sub(struct shmk_poller *p, struct shmk_sub *sub)
{
	return source_remove(find_side(p, &sub->q, SHMK_SIDE_RECV));
}

int shmk_poller_remove_events(struct shmk_poller *p)
{
	return source_remove(find_other(p, SHMK_READY_EVENTS, shmk_event_fd(p->shmk)));
}

int shmk_poller_remove_fd(struct shmk_poller *p, int fd)
{
	return source_remove(find_other(p, SHMK_READY_FD, fd));
}

/* Before the queue goes. An fd that a forked child has too would stay in the set. */
void poller_forget(struct shmk_queue *q)
{
	ERRNO_KEPT;
	struct shmk *s = q->shmk;
	bool locked = lock(&s->lock);

	while (q->sources)
		source_drop_locked(q->sources);
	unlock(&s->lock, locked);
}

/* ------------------------------------------------- the caller's own loop -- */

int shmk_poller_fd(struct shmk_poller *p)
{
	ERRNO_KEPT;
	struct source *src = p->hot.head.next, *next;

	if (!p->exported) {
		store_exported(p->shmk);
		p->exported = true;
		for (unsigned int n = p->hot.nr; n; n--, src = next) {
			next = src->next;
			arm(p, src, true);	/* one that is ready is rung for */
		}
	}
	return p->set;
}

int shmk_poller_prep_wait(struct shmk_poller *p, struct io_uring_sqe *sqe)
{
	io_uring_prep_poll_multishot(sqe, shmk_poller_fd(p), POLLIN);
	return 0;
}

int shmk_poller_handle(struct shmk_poller *p, const struct io_uring_cqe *cqe)
{
	(void)p;
	if (cqe->res < 0)
		return cqe->res;
	return cqe->flags & IORING_CQE_F_MORE ? 0 : 1;
}

/* ---------------------------------------------------------------- life -- */

static void list_free(struct list *list)
{
	struct source *src;

	while ((src = list->head.next) != &list->head)
		source_free(list, src);
}

static void sources_free(struct shmk_poller *p)
{
	list_free(&p->hot);
	list_free(&p->armed);
	list_free(&p->dozing);
	list_free(&p->others);
}

static void poller_free(struct shmk_poller *p)
{
	close(p->set);
	free(p);
}

int shmk_poller_open(struct shmk *s, struct shmk_poller **out)
{
	ERRNO_KEPT;
	struct shmk_poller *p = calloc(1, sizeof(*p));
	bool locked;
	int ret;

	*out = NULL;
	if (!p)
		return -ENOMEM;
	p->shmk = s;
	list_init(&p->hot);
	list_init(&p->armed);
	list_init(&p->dozing);
	list_init(&p->others);
	p->set = epoll_create1(EPOLL_CLOEXEC);
	ret = p->set < 0 ? -errno : set_add(p, s->interrupt_fd, EPOLLIN, NULL);
	if (ret) {
		if (p->set >= 0)
			close(p->set);
		free(p);
		return ret;
	}
	locked = lock(&s->lock);
	p->next = s->pollers;
	s->pollers = p;
	unlock(&s->lock, locked);
	*out = p;
	return 0;
}

void shmk_poller_close(struct shmk_poller *p)
{
	ERRNO_KEPT;
	struct shmk_poller **at;
	bool locked;

	if (!p)
		return;
	locked = lock(&p->shmk->lock);
	for (at = &p->shmk->pollers; *at && *at != p; at = &(*at)->next)
		;
	if (*at)
		*at = p->next;
	sources_free(p);
	unlock(&p->shmk->lock, locked);
	poller_free(p);
}

/* At the detach, beside which nothing runs; in a forked child the lock may be held for ever. */
void pollers_exit(struct shmk *s)
{
	struct shmk_poller *p;

	while ((p = s->pollers)) {
		s->pollers = p->next;
		sources_free(p);
		poller_free(p);
	}
}
