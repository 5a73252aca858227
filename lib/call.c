// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * call.c - requests and replies.
 *
 * A request is a message in a queue that keeps its messages until they are
 * acknowledged; the reply comes into the mailbox of who asked, with the id of the
 * request. A server sends the reply first and acknowledges then. So who finds that his
 * request has left its slot, and then no reply in his mailbox, will never
 * get one: the server died with it, where a message has one try, or freed it.
 *
 *   server                               client
 *   reply into the mailbox   (Q1)        P of the request's slot   (Q2)
 *   P of the request emptied (Q2)        the mailbox               (Q1)
 *
 * A death changes the slot before its event is told, and a sleeping client looks
 * after each event.
 *
 * If a server dies between the two, the request is answered and goes to another
 * server too, whose reply finds no request outstanding and is dropped.
 */
#include <errno.h>
#include <stdlib.h>

#include "mail.h"

struct call {
	struct call	*next;
	int64_t		id;
	struct shmk_queue *service;	/* held: closed by the caller it stays until the last call */
	__u64		pos;
};

/* --------------------------------------------------------- outstanding -- */

static struct call **call_find(struct shmk_mailbox *mb, int64_t id)
{
	struct call **at;

	for (at = &mb->calls; *at; at = &(*at)->next)
		if (!id || (*at)->id == id)
			return at;
	return NULL;
}

void call_drop(struct call **at)
{
	struct call *c = *at;

	*at = c->next;
	__atomic_fetch_sub(&c->service->nr_calls, 1, __ATOMIC_RELAXED);
	queue_unhold(c->service);
	free(c);
}

/* With the attachment, which closes the services. */
void calls_forget(struct shmk_mailbox *mb)
{
	struct call *c;

	while ((c = mb->calls)) {
		mb->calls = c->next;
		free(c);
	}
}

/* Nobody has it any more, nor will. */
static bool call_over(const struct call *c)
{
	const struct shmk_ring_view *rv = &c->service->rv;
	__u64 p = smp_load_acquire(&shmk_slot_at(rv, c->pos)->p);	/* Q2 */

	return SHMK_P_LAP(p) != shmk_lap(rv, c->pos);
}

static struct call **call_over_find(struct shmk_mailbox *mb, int64_t id)
{
	struct call **at;

	for (at = &mb->calls; *at; at = &(*at)->next)
		if ((!id || (*at)->id == id) && call_over(*at))
			return at;
	return NULL;
}

/* ------------------------------------------------------------- sending -- */

int64_t shmk_request_send(struct shmk_mailbox *mb, struct shmk_queue *service,
			  struct shmk_msg *msg, int64_t deadline)
{
	const uint32_t needs = SHMK_QUEUE_F_META | SHMK_QUEUE_F_REDELIVER;
	struct call *c, **at;
	int ret;

	if (service->shmk != mb->shmk || (service->flags & needs) != needs)
		return -EINVAL;
	c = malloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	msg->tag = SHMK_TAG_REPLY;
	msg->id = (uint64_t)(mb->shmk->last_request + 1);
	ret = shmk_send(service, msg, deadline);
	if (ret) {
		free(c);
		return ret;
	}
	*c = (struct call) {
		.id = ++mb->shmk->last_request, .service = service, .pos = SHMK_WHERE_POS(msg->from),
	};
	queue_hold(service);
	__atomic_fetch_add(&service->nr_calls, 1, __ATOMIC_RELAXED);
	for (at = &mb->calls; *at; at = &(*at)->next)
		;
	*at = c;
	return c->id;
}

/* ----------------------------------------------------------- receiving -- */

/* A reply to @id; others stay, those that nobody asked for go. */
static bool reply_find(struct shmk_mailbox *mb, int64_t id, struct shmk_msg *msg)
{
	struct letter **at = &mb->aside;
	struct call **call;

	while (*at) {
		const struct shmk_msg *l = &(*at)->msg;
		int64_t to = (int64_t)l->id;

		if (l->tag != SHMK_TAG_REPLY) {
			at = &(*at)->next;
			continue;
		}
		call = to > 0 ? call_find(mb, to) : NULL;
		if (!call) {
			mail_take(mb, at, NULL);
		} else if (!id || to == id) {
			mail_take(mb, at, msg);
			call_drop(call);
			return true;
		} else {
			at = &(*at)->next;
		}
	}
	return false;
}

/* 0, -EOWNERDEAD with @msg->id set, -EAGAIN, or what is wrong with the mailbox. */
static int reply_look(struct shmk_mailbox *mb, int64_t id, struct shmk_msg *msg)
{
	struct call **over = call_over_find(mb, id);
	int ret = mail_pull(mb);

	if (reply_find(mb, id, msg))
		return 0;
	if (ret != -EAGAIN || !over)
		return ret;
	/* The look for replies began after that: this is not one of those that were found late. */
	msg->id = (uint64_t)(*over)->id;
	call_drop(over);
	return -EOWNERDEAD;
}

struct waits {
	struct shmk_mailbox *mb;
	int64_t		id;
};

static bool reply_over(struct shmk *s, void *arg)
{
	const struct waits *w = arg;

	(void)s;
	return call_over_find(w->mb, w->id);
}

int shmk_reply_recv(struct shmk_mailbox *mb, int64_t id, struct shmk_msg *msg, int64_t deadline)
{
	struct waits w = { .mb = mb, .id = id };
	int ret;

	msg->data = NULL;
	if (id < 0 || !call_find(mb, id))
		return -ENOENT;
	for (;;) {
		ret = reply_look(mb, id, msg);
		if (ret != -EAGAIN || deadline == SHMK_TRY)
			return ret;
		ret = wait_side_event(mb->q, SHMK_SIDE_RECV, reply_over, &w, deadline);
		if (ret == -ETIMEDOUT) {
			ret = reply_look(mb, id, msg);
			return ret == -EAGAIN ? -ETIMEDOUT : ret;
		}
		if (ret && ret != -EPIPE)
			return ret;
	}
}

int shmk_request_cancel(struct shmk_mailbox *mb, int64_t id)
{
	struct call **at = id > 0 ? call_find(mb, id) : NULL;

	if (!at)
		return -ENOENT;
	call_drop(at);
	return 0;
}

int shmk_call(struct shmk_mailbox *mb, struct shmk_queue *service, struct shmk_msg *msg,
	      int64_t deadline)
{
	int64_t id = shmk_request_send(mb, service, msg, deadline);
	int ret;

	if (id < 0)
		return (int)id;
	ret = shmk_reply_recv(mb, id, msg, deadline);
	if (ret)
		shmk_request_cancel(mb, id);
	return ret;
}

/* ----------------------------------------------------------- answering -- */

int shmk_reply(struct shmk_msg *request, struct shmk_msg *reply, int64_t deadline)
{
	uint32_t gen;
	int ret = -EPIPE;

	if (!request->data || !request->queue || !reply->data || reply->shmk != request->shmk)
		return -EINVAL;
	gen = mail_gen(request->shmk, request->sender);
	if (request->tag == SHMK_TAG_REPLY && gen && (gen & 0xffff) == request->sender_gen) {
		reply->tag = SHMK_TAG_REPLY;
		reply->id = request->id;
		ret = mail_post(request->shmk, request->sender, gen, reply, deadline);
		if (ret == -ENOENT)
			ret = -EPIPE;
	}
	if (!ret || ret == -EPIPE)
		shmk_free(request);
	return ret;
}
