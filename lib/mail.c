// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * mail.c - messages to a peer, by its id.
 *
 * A mailbox is a TAGGED queue for one receiver, named by the id and generation of
 * its owner. So nothing is needed that queues do not have: a message is in one
 * slot or one ledger, whoever dies. What was received and is not asked for yet
 * waits aside in a private list; its blocks stand in the ledger as GOT.
 *
 * Who closes a mailbox and lives writes CLOSED into the role word of its ring:
 * senders may have the queue open. They are ready to give up then, room or not:
 *
 *   owner                              sender that waits for room
 *   M1  role := CLOSED                 S1  waiters := 1
 *       full fence                     S2  full fence
 *       waiters set? ring              S3  room, or CLOSED?
 *
 * The queue is TRANSIENT: it goes when neither its owner has it open nor who has sent there.
 * These close it when they send to anybody or go to sleep after the death.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "mail.h"

#define INLINE	32U		/* fits into any slot with its tag */

/*
 * The mailbox of another, as this attachment has it open; of an id there is one at most. It
 * stays so until the life that it belongs to is over: nothing may be on a queue beside its
 * close, so who sends there counts as a user, and the last one closes what is cut by then.
 */
struct mail_route {
	struct mail_route *next;
	uint32_t	id, gen;
	uint32_t	users;		/* this and the next: under shmk->lock */
	bool		cut;		/* not in the list any more */
	struct shmk_queue *q;
};

/* -------------------------------------------------------------- routes -- */

static void box_name(char *name, uint32_t id, uint32_t gen)
{
	snprintf(name, SHMK_NAME_LEN, "mailbox-%u-%u", id, gen);
}

uint32_t mail_gen(struct shmk *s, uint32_t id)
{
	const struct shmk_peer_status *peers = (const void *)
		((const unsigned char *)s->status + s->status->peers_off);
	__u64 word;

	if (!id || id > s->status->nr_peers)
		return 0;
	word = smp_load_acquire(&peers[id].word);
	return SHMK_PEER_STATE(word) == SHMK_PEER_ALIVE ? SHMK_PEER_GEN(word) : 0;
}

/* Under shmk->lock. */
static struct mail_route *route_find(struct shmk *s, uint32_t id)
{
	return s->route_of ? s->route_of[id] : NULL;
}

/* Under shmk->lock; *@at may be the caller's to close: then it is put in front of @over. */
static void route_cut(struct shmk *s, struct mail_route **at, struct mail_route **over)
{
	struct mail_route *r = *at;

	*at = r->next;
	s->route_of[r->id] = NULL;
	r->cut = true;
	if (r->users)
		return;
	r->next = *over;
	*over = r;
}

static void routes_close(struct mail_route *over)
{
	struct mail_route *r;

	while ((r = over)) {
		over = r->next;
		shmk_queue_close(r->q);
		free(r);
	}
}

static bool route_over(struct shmk *s, const struct mail_route *r)
{
	return mail_gen(s, r->id) != r->gen;
}

/* Counted when the id is not ALIVE in that life any more. */
static uint64_t ends(struct shmk *s)
{
	return smp_load_acquire(&s->status->deaths) + smp_load_acquire(&s->status->detaches);
}

/*
 * Who was answered and has died since is not written to again, so this cannot wait until
 * sending there fails. With each letter, and before each sleep. A few instructions, unless
 * somebody's life has ended since the last time.
 */
void mail_sweep(struct shmk *s)
{
	struct mail_route **at, *over = NULL;
	uint64_t now = ends(s);
	bool locked;

	if (likely(READ_ONCE(s->routes_swept) == now))
		return;
	/* Then the next time. Who has somebody stopped before him must not wait in each call. */
	if (READ_ONCE(s->routes) && s->backend->busy && s->backend->busy(s))
		return;
	locked = lock(&s->lock);
	WRITE_ONCE(s->routes_swept, now);
	for (at = &s->routes; *at;)
		if (route_over(s, *at))
			route_cut(s, at, &over);
		else
			at = &(*at)->next;
	unlock(&s->lock, locked);
	routes_close(over);
}

/* The one to @id, whatever life, if there is one. */
static void route_forget(struct shmk *s, uint32_t id)
{
	struct mail_route **at, *over = NULL;
	bool locked = lock(&s->lock);

	for (at = &s->routes; *at && (*at)->id != id; at = &(*at)->next)
		;
	if (*at)
		route_cut(s, at, &over);
	unlock(&s->lock, locked);
	routes_close(over);
}

/* Whoever uses it. */
static void route_put(struct shmk *s, struct mail_route *r)
{
	bool locked = lock(&s->lock);
	bool last = !--r->users && r->cut;

	unlock(&s->lock, locked);
	if (last) {
		r->next = NULL;
		routes_close(r);
	}
}

struct seek {
	uint32_t	id, gen;
	struct shmk_queue *q;
	int		ret;
};

/* wait_event(): the mailbox is there, or never will be. */
static bool box_there(struct shmk *s, void *arg)
{
	struct seek *k = arg;
	char name[SHMK_NAME_LEN];

	if (mail_gen(s, k->id) != k->gen) {
		k->ret = -EPIPE;
		return true;
	}
	box_name(name, k->id, k->gen);
	k->ret = shmk_queue_open(s, name, NULL, SHMK_TRY, &k->q);
	return k->ret != -ENOENT;
}

static int route_table(struct shmk *s)
{
	struct mail_route **table;
	bool locked;

	if (READ_ONCE(s->route_of))
		return 0;
	table = calloc((size_t)s->status->nr_peers + 1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	locked = lock(&s->lock);
	if (!s->route_of) {
		WRITE_ONCE(s->route_of, table);
		table = NULL;
	}
	unlock(&s->lock, locked);
	free(table);
	return 0;
}

/* With one user more; NULL: there is none of this life. */
static struct mail_route *route_use(struct shmk *s, uint32_t id, uint32_t gen)
{
	bool locked = lock(&s->lock);
	struct mail_route *r = route_find(s, id);

	if (r && r->gen == gen)
		r->users++;
	else
		r = NULL;
	unlock(&s->lock, locked);
	return r;
}

/* False: another thread was faster. Of two lives one is over: that of either may be made anew. */
static bool route_add(struct shmk *s, struct mail_route *r)
{
	struct mail_route **at, *over = NULL;
	bool locked = lock(&s->lock);
	struct mail_route *old = route_find(s, r->id);
	bool add = !old || old->gen != r->gen;

	if (old && add) {
		for (at = &s->routes; *at != old; at = &(*at)->next)
			;
		route_cut(s, at, &over);
	}
	/* Its life may be over, and have been counted and swept for, since it was opened. */
	if (add && route_over(s, r))
		WRITE_ONCE(s->routes_swept, UINT64_MAX);
	if (add) {
		r->next = s->routes;
		s->routes = r;
		s->route_of[r->id] = r;
	}
	unlock(&s->lock, locked);
	routes_close(over);
	return add;
}

static int route_open(struct shmk *s, uint32_t id, uint32_t gen, int64_t deadline)
{
	struct seek k = { .id = id, .gen = gen };
	struct mail_route *r;
	int ret = wait_event(s, box_there, &k, deadline);

	if (ret == -EAGAIN || ret == -ETIMEDOUT)
		return -ENOENT;
	if (ret || k.ret)
		return ret ? ret : k.ret;
	r = malloc(sizeof(*r));
	if (r) {
		*r = (struct mail_route){ .id = id, .gen = gen, .q = k.q };
		if (route_add(s, r))
			return 0;
	}
	shmk_queue_close(k.q);
	ret = r ? 0 : -ENOMEM;
	free(r);
	return ret;
}

/* *@out is given back by route_put(). */
static int route_get(struct shmk *s, uint32_t id, uint32_t gen, int64_t deadline,
		     struct mail_route **out)
{
	int ret = route_table(s);

	/* Again only if its life is over by now, or other threads are at it, too. */
	while (!ret && !(*out = route_use(s, id, gen)))
		ret = route_open(s, id, gen, deadline);
	return ret;
}

/* What it holds in the pool goes with the end of the peer. */
static void box_forget(struct shmk *s)
{
	struct shmk_mailbox *mb = s->mailbox;
	struct letter *l;

	if (!mb)
		return;
	while ((l = mb->aside)) {
		mb->aside = l->next;
		free(l);
	}
	calls_forget(mb);
	s->mailbox = NULL;
	free(mb);
}

void mail_exit(struct shmk *s)
{
	struct mail_route *r;

	while ((r = s->routes)) {
		s->routes = r->next;
		free(r);	/* its queue goes with the others */
	}
	free(s->route_of);
	s->route_of = NULL;
	box_forget(s);
}

/* ------------------------------------------------------------- sending -- */

/* wait_side_event() */
static bool receiver_gone(struct shmk *s, void *arg)
{
	return route_over(s, arg);
}

static int send_to(struct mail_route *r, struct shmk_msg *msg, int64_t deadline)
{
	struct shmk *s = msg->shmk;
	int ret;

	for (;;) {
		if (route_over(s, r))
			return -EPIPE;
		if (shmk_ring_closed(&r->q->rv))
			return -ENOENT;
		ret = shmk_send(r->q, msg, SHMK_TRY);
		if (ret == -EPIPE)
			continue;
		if (ret != -EAGAIN || deadline == SHMK_TRY)
			return ret;
		ret = wait_side_event(r->q, SHMK_SIDE_SEND, receiver_gone, r, deadline);
		if (ret)
			return ret;
	}
}

int mail_post(struct shmk *s, uint32_t to, uint32_t gen, struct shmk_msg *msg, int64_t deadline)
{
	struct mail_route *r;
	int ret;

	if (!msg->data || msg->shmk != s)
		return -EINVAL;
	if (s->rdonly)
		return -EROFS;
	mail_sweep(s);
	if (!gen)
		gen = mail_gen(s, to);
	if (!gen || to > s->status->nr_peers)
		return -EPIPE;
	ret = route_get(s, to, gen, deadline, &r);
	if (ret)
		return ret;
	ret = send_to(r, msg, deadline);
	route_put(s, r);
	if (ret == -EPIPE)
		mail_sweep(s);
	return ret;
}

int shmk_mail_send(struct shmk *s, uint32_t to, uint32_t gen, uint32_t tag,
		   struct shmk_msg *msg, int64_t deadline)
{
	if (tag >= SHMK_TAG_REPLY)
		return -EINVAL;
	msg->tag = tag;
	return mail_post(s, to, gen, msg, deadline);
}

int shmk_mail_send_copy(struct shmk *s, uint32_t to, uint32_t gen, uint32_t tag,
			const void *buf, size_t len, int64_t deadline)
{
	struct shmk_msg msg;
	int ret;

	if (len <= INLINE) {
		memset(&msg, 0, offsetof(struct shmk_msg, small));
		msg.shmk = s;
		msg.kind = SHMK_KIND_INLINE;
		msg.data = msg.small;
		msg.len = len;
		msg.room = sizeof(msg.small);
	} else {
		ret = shmk_alloc(s, len, 0, &msg);
		if (ret)
			return ret;
	}
	memcpy(msg.data, buf, len);
	ret = shmk_mail_send(s, to, gen, tag, &msg, deadline);
	if (ret)
		shmk_free(&msg);
	return ret;
}

/* ----------------------------------------------------------- receiving -- */

/* Of any life, if @gen is 0. */
bool mail_matches(const struct shmk_msg *msg, uint32_t from, uint32_t gen, uint32_t tag)
{
	return (from == SHMK_ANY_PEER || msg->sender == from) &&
	       (!gen || msg->sender_gen == (gen & 0xffff)) &&
	       (tag == msg->tag || (tag == SHMK_ANY_TAG && msg->tag != SHMK_TAG_REPLY));
}

/* The next in the queue goes aside. */
static int mail_pull_one(struct shmk_mailbox *mb)
{
	struct letter *l = malloc(sizeof(*l));
	int ret;

	if (!l)
		return -ENOMEM;
	ret = shmk_recv(mb->q, &l->msg, SHMK_TRY);
	if (ret) {
		free(l);
		return ret;
	}
	l->next = NULL;
	*mb->last = l;
	mb->last = &l->next;
	return 0;
}

int mail_pull(struct shmk_mailbox *mb)
{
	int ret;

	do
		ret = mail_pull_one(mb);
	while (!ret);
	return ret;
}

void mail_take(struct shmk_mailbox *mb, struct letter **at, struct shmk_msg *msg)
{
	struct letter *l = *at;

	*at = l->next;
	if (mb->last == &l->next)
		mb->last = at;
	if (msg)
		shmk_msg_move(msg, &l->msg);
	else
		shmk_free(&l->msg);
	free(l);
}

/* What a receiver asks for. */
struct wish {
	uint32_t	from, gen, tag;
};

static bool wish_is(const struct wish *w, const struct letter *l)
{
	return mail_matches(&l->msg, w->from, w->gen, w->tag);
}

/*
 * What is aside came first. No more is taken out of the queue than is looked at, so who
 * asks for all in turn has nothing aside; and blocks only as long as entries last.
 */
static int mail_look(struct shmk_mailbox *mb, const struct wish *w, struct letter ***at)
{
	int ret;

	for (*at = &mb->aside; **at; *at = &(**at)->next)
		if (wish_is(w, **at))
			return 0;
	do {
		*at = mb->last;
		ret = mail_pull_one(mb);
	} while (!ret && !wish_is(w, **at));
	return ret;
}

static int mail_get(struct shmk_mailbox *mb, const struct wish *w, struct shmk_msg *msg)
{
	struct letter **at;
	int ret = mail_look(mb, w, &at);

	if (!ret)
		mail_take(mb, at, msg);
	return ret;
}

int shmk_mail_recv(struct shmk_mailbox *mb, uint32_t from, uint32_t tag, struct shmk_msg *msg,
		   int64_t deadline)
{
	const struct wish w = { .from = from, .tag = tag };
	int ret;

	msg->data = NULL;
	for (;;) {
		ret = mail_get(mb, &w, msg);
		if (ret != -EAGAIN)
			return ret;
		ret = wait_look(mb->q, SHMK_SIDE_RECV, deadline);
		if (ret)
			return ret;
	}
}

/* wait_side_event() */
static bool sender_gone(struct shmk *s, void *arg)
{
	const struct wish *w = arg;

	return mail_gen(s, w->from) != w->gen;
}

int shmk_mail_recv_from(struct shmk_mailbox *mb, uint32_t from, uint32_t gen, uint32_t tag,
			struct shmk_msg *msg, int64_t deadline)
{
	struct wish w = { .from = from, .gen = gen, .tag = tag };
	bool gone;
	int ret;

	msg->data = NULL;
	if (from == SHMK_ANY_PEER || !gen)
		return -EINVAL;
	for (;;) {
		gone = sender_gone(mb->shmk, &w);	/* first: then all that it sent is there */
		ret = mail_get(mb, &w, msg);
		if (ret != -EAGAIN)
			return ret;
		if (gone)
			return -EPIPE;
		ret = wait_side_event(mb->q, SHMK_SIDE_RECV, sender_gone, &w, deadline);
		if (ret && ret != -EPIPE)
			return ret;
	}
}

int shmk_mail_probe(struct shmk_mailbox *mb, uint32_t from, uint32_t tag,
		    struct shmk_mail_info *info)
{
	const struct wish w = { .from = from, .tag = tag };
	struct letter **at;
	int ret = mail_look(mb, &w, &at);

	if (!ret && info)
		*info = (struct shmk_mail_info) {
			.from = (*at)->msg.sender, .gen = (*at)->msg.sender_gen,
			.tag = (*at)->msg.tag, .len = (*at)->msg.len,
		};
	return ret;
}

/* ------------------------------------------------------------- handles -- */

int shmk_mailbox_open(struct shmk *s, const struct shmk_mailbox_opts *opts,
		      struct shmk_mailbox **out)
{
	struct shmk_queue_opts q = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_SC | SHMK_QUEUE_TAGGED | SHMK_QUEUE_TRANSIENT,
		.capacity = opts ? opts->capacity : 0, .slot_bytes = opts ? opts->slot_bytes : 0,
	};
	struct shmk_mailbox *mb;
	char name[SHMK_NAME_LEN];
	int ret;

	*out = NULL;
	if (s->rdonly)
		return -EROFS;
	if (s->mailbox)
		return -EBUSY;
	mb = calloc(1, sizeof(*mb));
	if (!mb)
		return -ENOMEM;
	mb->shmk = s;
	mb->last = &mb->aside;
	mail_sweep(s);
	box_name(name, s->self, s->gen);
	ret = shmk_queue_open(s, name, &q, SHMK_TRY, &mb->q);
	if (!ret) {
		s->mailbox = mb;
		/* It may have been closed before. */
		WRITE_ONCE(mb->q->rv.ring->role_recv, (__u64)s->gen << 32 | s->self);
		mail_pull(mb);	/* and this handle knows that it has the role */
		*out = mb;
	} else {
		free(mb);
	}
	return ret;
}

/*
 * Closed first, then emptied: a sender that waits for room finds it closed. One that has
 * begun to send by then may still fill it, so room is not what the others are told of.
 */
void shmk_mailbox_close(struct shmk_mailbox *mb)
{
	bool more;
	struct shmk *s;
	int ret;

	if (!mb)
		return;
	s = mb->shmk;
	WRITE_ONCE(mb->q->rv.ring->role_recv, (__u64)s->gen << 32 | SHMK_ROLE_CLOSED);
	wait_wake(mb->q, SHMK_SIDE_SEND);			/* M1 */
	/* Without an entry for the next one, and none that this could free, it goes with the queue. */
	do {
		ret = mail_pull(mb);
		more = ret == -ENOBUFS && mb->aside;
		while (mb->aside)
			mail_take(mb, &mb->aside, NULL);
	} while (more);
	while (mb->calls)
		call_drop(&mb->calls);
	s->mailbox = NULL;
	route_forget(s, s->self);		/* of letters to itself */
	shmk_queue_close(mb->q);
	free(mb);
}

struct shmk_queue *shmk_mailbox_queue(struct shmk_mailbox *mb)
{
	return mb->q;
}
