// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * monitor.c - what happens in pools, for who is in none of them.
 *
 * With the module it is a netlink socket: the group "privileged" where that may be joined,
 * else "events", which tells ids; names are asked for then. What the socket could not
 * hold is lost. Then, and at the beginning, the pools are listed anew, and what has come and gone
 * since the last list is told as events of its own, behind SHMK_EV_LOST.
 *
 * On the local backend nobody tells. Ten times a second the directory is looked at and the events
 * of each pool are read, and that look settles whom nobody has settled yet, as
 * any peer's would, as far as this process may write there.
 */
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/shmk_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "internal.h"

#define LOOK_NS		100000000LL
#define BUF_BYTES	16384

/* A pool that is known, and where the events of a local one come from. */
struct known {
	struct known	*next;
	uint64_t	id;
	char		name[SHMK_NAME_LEN];
	bool		seen;		/* by the list that is being made */
	struct shmk	s;		/* local: open, but no peer */
	void		*stream;	/* NULL: none */
};

/* Told before anything else. */
struct pending {
	struct pending			*next;
	struct shmk_monitor_event	event;
};

struct shmk_monitor {
	const struct shmk_backend *backend;
	char			name[SHMK_NAME_LEN];	/* "": all pools */
	struct known		*known;
	struct pending		*first, **last;
	uint64_t		list_seq;	/* module: earlier events are in the list */
	int			fd;
	struct mnl_socket	*nl;
	struct mnl_socket	*ask;		/* a second one: events do not come between */
	uint16_t		family;
	uint32_t		group[2];	/* "events", "privileged" */
	bool			privileged;
	uint32_t		nlseq;
	char			buf[BUF_BYTES];
};

static bool wanted(const struct shmk_monitor *m, const char *name)
{
	return !m->name[0] || !strcmp(m->name, name);
}

/* ------------------------------------------------------------- pending -- */

static int pend(struct shmk_monitor *m, const struct shmk_monitor_event *event)
{
	struct pending *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->event = *event;
	p->next = NULL;
	*m->last = p;
	m->last = &p->next;
	return 0;
}

static int pend_pool(struct shmk_monitor *m, const struct known *k, uint32_t type)
{
	struct shmk_monitor_event event = {
		.type = type, .pool_id = k->id, .time_ns = (uint64_t)now_ns(),
	};

	memcpy(event.pool, k->name, sizeof(event.pool));
	return pend(m, &event);
}

static bool pending_take(struct shmk_monitor *m, struct shmk_monitor_event *event)
{
	struct pending *p = m->first;

	if (!p)
		return false;
	*event = p->event;
	m->first = p->next;
	if (!m->first)
		m->last = &m->first;
	free(p);
	return true;
}

/* --------------------------------------------------------------- known -- */

static struct known *known_find(struct shmk_monitor *m, uint64_t id)
{
	struct known *k = m->known;

	while (k && k->id != id)
		k = k->next;
	return k;
}

static struct known *known_add(struct shmk_monitor *m, uint64_t id, const char *name)
{
	struct known *k = calloc(1, sizeof(*k));

	if (!k)
		return NULL;
	k->id = id;
	snprintf(k->name, sizeof(k->name), "%s", name);
	k->next = m->known;
	m->known = k;
	return k;
}

static void known_drop(struct shmk_monitor *m, struct known *gone)
{
	struct known **at = &m->known;

	while (*at != gone)
		at = &(*at)->next;
	*at = gone->next;
	if (gone->stream) {
		m->backend->events_close(&gone->s, gone->stream);
		m->backend->watch_close(&gone->s);
	}
	free(gone);
}

/* One of the list. It is news if it was not known; -errno. */
static int listed(struct shmk_monitor *m, uint64_t id, const char *name, bool tell)
{
	struct known *k = known_find(m, id);

	if (!wanted(m, name))
		return 0;
	if (!k) {
		k = known_add(m, id, name);
		if (!k)
			return -ENOMEM;
		if (tell && pend_pool(m, k, SHMK_EV_CREATED))
			return -ENOMEM;
	}
	k->seen = true;
	return 0;
}

/* What is not listed any more is gone. */
static int list_end(struct shmk_monitor *m)
{
	struct known *k = m->known, *next;
	int ret = 0;

	for (; k && !ret; k = next) {
		next = k->next;
		if (k->seen) {
			k->seen = false;
			continue;
		}
		ret = pend_pool(m, k, SHMK_EV_DESTROYED);
		known_drop(m, k);
	}
	return ret;
}

/* -------------------------------------------------------------- netlink -- */

/* What is not there, or not as long as a number is, is 0. */
static uint64_t num(const struct nlattr *a)
{
	switch (a ? mnl_attr_get_payload_len(a) : 0) {
	case 8:
		return mnl_attr_get_u64(a);
	case 4:
		return mnl_attr_get_u32(a);
	case 2:
		return mnl_attr_get_u16(a);
	default:
		return 0;
	}
}

/* As much of it as fits; what is not there, or does not end, is "". */
static void text(const struct nlattr *a, char *to, size_t room)
{
	bool ends = a && memchr(mnl_attr_get_payload(a), 0, mnl_attr_get_payload_len(a));

	snprintf(to, room, "%s", ends ? mnl_attr_get_str(a) : "");
}

static void parse(const struct nlmsghdr *nlh, const struct nlattr **attrs, unsigned int nr)
{
	const struct nlattr *a;

	memset(attrs, 0, nr * sizeof(*attrs));
	mnl_attr_for_each(a, nlh, sizeof(struct genlmsghdr))
		if (mnl_attr_get_type(a) < nr)
			attrs[mnl_attr_get_type(a)] = a;
}

static struct nlmsghdr *begin(struct shmk_monitor *m, uint16_t family, uint8_t cmd, uint16_t flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(m->buf);
	struct genlmsghdr *g;

	nlh->nlmsg_type = family;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	nlh->nlmsg_seq = ++m->nlseq;
	g = mnl_nlmsg_put_extra_header(nlh, sizeof(*g));
	g->cmd = cmd;
	g->version = SHMK_FAMILY_VERSION;
	return nlh;
}

/* 0 or -errno */
static int error_of(const struct nlmsghdr *nlh)
{
	int error;

	if (mnl_nlmsg_get_payload_len(nlh) < sizeof(error))
		return -EPROTO;
	error = ((struct nlmsgerr *)mnl_nlmsg_get_payload(nlh))->error;
	return error > 0 || error < -4095 ? -EPROTO : error;
}

/* libmnl compares as signed numbers, and takes a length of 2 GiB for a small one. */
static bool is_whole(const struct nlmsghdr *nlh, int len)
{
	return mnl_nlmsg_ok(nlh, len) && nlh->nlmsg_len <= (uint32_t)len;
}

/* Sends, and hears all answers: @told for each; 0 or -errno. */
static int ask(struct shmk_monitor *m, const struct nlmsghdr *nlh,
	       int (*told)(struct shmk_monitor *m, const struct nlmsghdr *nlh))
{
	if (mnl_socket_sendto(m->ask, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	for (;;) {
		int len = (int)mnl_socket_recvfrom(m->ask, m->buf, sizeof(m->buf)), ret = 0;
		const struct nlmsghdr *at = (const struct nlmsghdr *)m->buf;

		if (len < 0)
			return -errno;
		for (; is_whole(at, len); at = mnl_nlmsg_next(at, &len)) {
			if (at->nlmsg_seq != m->nlseq)
				continue;
			if (at->nlmsg_type == NLMSG_ERROR)
				return error_of(at);
			if (at->nlmsg_type == NLMSG_DONE)
				return 0;
			ret = ret ? ret : told(m, at);
		}
		if (ret)
			return ret;
	}
}

static int family_told(struct shmk_monitor *m, const struct nlmsghdr *nlh)
{
	const struct nlattr *attrs[CTRL_ATTR_MAX + 1], *group, *a;
	char name[GENL_NAMSIZ];

	parse(nlh, attrs, CTRL_ATTR_MAX + 1);
	if (!attrs[CTRL_ATTR_FAMILY_ID] || !attrs[CTRL_ATTR_MCAST_GROUPS])
		return -EPROTO;
	m->family = (uint16_t)num(attrs[CTRL_ATTR_FAMILY_ID]);
	mnl_attr_for_each_nested(group, attrs[CTRL_ATTR_MCAST_GROUPS]) {
		bool privileged = false;
		uint32_t id = 0;

		mnl_attr_for_each_nested(a, group) {
			if (mnl_attr_get_type(a) == CTRL_ATTR_MCAST_GRP_NAME) {
				text(a, name, sizeof(name));
				privileged = !strcmp(name, SHMK_MCGRP_PRIVILEGED);
			}
			if (mnl_attr_get_type(a) == CTRL_ATTR_MCAST_GRP_ID)
				id = (uint32_t)num(a);
		}
		m->group[privileged] = id;
	}
	return 0;
}

static int pool_told(struct shmk_monitor *m, const struct nlmsghdr *nlh)
{
	const struct nlattr *attrs[SHMK_A_POOL_MAX + 1];
	char name[SHMK_NAME_LEN];
	uint64_t seq;

	parse(nlh, attrs, SHMK_A_POOL_MAX + 1);
	seq = num(attrs[SHMK_A_POOL_SEQ]);
	if (m->list_seq > seq)
		m->list_seq = seq;
	text(attrs[SHMK_A_POOL_NAME], name, sizeof(name));
	return listed(m, num(attrs[SHMK_A_POOL_ID]), name, true);
}

/* Of one that is new; it may have gone by now. */
static int pool_ask(struct shmk_monitor *m, uint64_t id)
{
	struct nlmsghdr *nlh = begin(m, m->family, SHMK_CMD_POOL_GET, 0);
	struct pending **last = m->last;
	uint64_t seq = m->list_seq;
	int ret;

	mnl_attr_put_u64(nlh, SHMK_A_POOL_ID, id);
	ret = ask(m, nlh, pool_told);
	m->list_seq = seq;
	/* Its event has come already. */
	if (*last) {
		free(*last);
		*last = NULL;
		m->last = last;
	}
	return ret == -ENOENT ? 0 : ret;
}

/* The least of what the pools say of their numbers: an event before that is in all of them. */
static int list_module(struct shmk_monitor *m)
{
	int ret;

	m->list_seq = UINT64_MAX;
	ret = ask(m, begin(m, m->family, SHMK_CMD_POOL_GET, NLM_F_DUMP), pool_told);
	if (m->list_seq == UINT64_MAX)
		m->list_seq = 0;
	return ret ? ret : list_end(m);
}

static void event_fill(struct shmk_monitor_event *e, const struct nlattr **a)
{
	*e = (struct shmk_monitor_event) {
		.type = (uint32_t)num(a[SHMK_A_EVENT_TYPE]),
		.reason = (uint32_t)num(a[SHMK_A_EVENT_REASON]),
		.seq = num(a[SHMK_A_EVENT_SEQ]),
		.time_ns = num(a[SHMK_A_EVENT_TIME_NS]),
		.took_ns = num(a[SHMK_A_EVENT_TOOK_NS]),
		.pool_id = num(a[SHMK_A_EVENT_POOL_ID]),
		.peer = (uint32_t)num(a[SHMK_A_EVENT_PEER]),
		.gen = (uint32_t)num(a[SHMK_A_EVENT_GEN]),
		.queue = (uint32_t)num(a[SHMK_A_EVENT_QUEUE]),
		.pid = (int32_t)num(a[SHMK_A_EVENT_PID]),
		.uid = (uint32_t)num(a[SHMK_A_EVENT_UID]),
		.code = (int32_t)num(a[SHMK_A_EVENT_CODE]),
		.blocks = num(a[SHMK_A_EVENT_BLOCKS]),
		.bytes = num(a[SHMK_A_EVENT_BYTES]),
		.messages = num(a[SHMK_A_EVENT_MESSAGES]),
		.redelivered = num(a[SHMK_A_EVENT_REDELIVERED]),
		.has_detail = a[SHMK_A_EVENT_POOL_SEQ],
	};
	text(a[SHMK_A_EVENT_POOL_NAME], e->pool, sizeof(e->pool));
	text(a[SHMK_A_EVENT_COMM], e->comm, sizeof(e->comm));
}

/* Keeps the list, and finds the name. True: it is for the caller. */
static bool event_take(struct shmk_monitor *m, struct shmk_monitor_event *e)
{
	struct known *k = known_find(m, e->pool_id);
	bool over = e->type == SHMK_EV_DESTROYED || e->type == SHMK_EV_RESET;

	if (e->type == SHMK_EV_CREATED && k)
		return false;		/* told by the list */
	if (!k && over)
		return false;
	if (!k && e->pool[0] && wanted(m, e->pool))
		k = known_add(m, e->pool_id, e->pool);
	else if (!k && !e->pool[0] && !pool_ask(m, e->pool_id))
		k = known_find(m, e->pool_id);
	if (!k)
		return false;
	memcpy(e->pool, k->name, sizeof(e->pool));
	if (over)
		known_drop(m, k);
	return true;
}

static int lost(struct shmk_monitor *m)
{
	struct shmk_monitor_event event = {
		.type = SHMK_EV_LOST, .time_ns = (uint64_t)now_ns(),
	};
	int ret = pend(m, &event);

	return ret ? ret : list_module(m);
}

static int next_module(struct shmk_monitor *m, struct shmk_monitor_event *event)
{
	const struct nlattr *attrs[SHMK_A_EVENT_MAX + 1];
	const struct nlmsghdr *nlh = (const struct nlmsghdr *)m->buf;
	struct sockaddr_nl from = { };
	socklen_t from_len;
	ssize_t len;
	int ret;

	for (;;) {
		from_len = sizeof(from);
		len = recvfrom(m->fd, m->buf, sizeof(m->buf), MSG_DONTWAIT,
			       (struct sockaddr *)&from, &from_len);
		if (len < 0 && errno != ENOBUFS)
			return errno == EINTR ? -EAGAIN : -errno;
		if (len < 0) {
			ret = lost(m);
			return ret ? ret : pending_take(m, event) ? 0 : -EAGAIN;
		}
		/* The kernel's word only; with CAP_NET_ADMIN others may write here, too. */
		if (from.nl_pid || !is_whole(nlh, (int)len) || nlh->nlmsg_type != m->family)
			continue;
		parse(nlh, attrs, SHMK_A_EVENT_MAX + 1);
		event_fill(event, attrs);
		if (event->seq >= m->list_seq && event_take(m, event))
			return 0;
	}
}

/* Not there in a static program that was linked without libmnl. */
static struct mnl_socket *(*volatile open_socket)(int bus, int flags) = mnl_socket_open2;

static int socket_open(struct mnl_socket **nl)
{
	if (!open_socket)
		return -EOPNOTSUPP;
	*nl = open_socket(NETLINK_GENERIC, SOCK_CLOEXEC);
	if (!*nl || mnl_socket_bind(*nl, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	return 0;
}

static int join(struct shmk_monitor *m, bool privileged)
{
	return mnl_socket_setsockopt(m->nl, NETLINK_ADD_MEMBERSHIP, &m->group[privileged],
				     sizeof(m->group[privileged])) ? -errno : 0;
}

/* Joined first, then listed: nothing falls between the two. */
static int open_module(struct shmk_monitor *m)
{
	struct nlmsghdr *nlh;
	int ret = socket_open(&m->ask);

	if (!ret)
		ret = socket_open(&m->nl);
	if (ret)
		return ret;
	nlh = begin(m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	mnl_attr_put_strz(nlh, CTRL_ATTR_FAMILY_NAME, SHMK_FAMILY_NAME);
	ret = ask(m, nlh, family_told);
	if (ret)
		return ret == -ENOENT ? -ENODEV : ret;
	m->fd = mnl_socket_get_fd(m->nl);
	m->privileged = !join(m, true);
	ret = m->privileged ? 0 : join(m, false);
	return ret ? ret : list_module(m);
}

/* ---------------------------------------------------------------- local -- */

static int list_local(struct shmk_monitor *m)
{
	struct shmk_pool_info info;
	struct known *k;
	__u64 id = 0;
	int ret = 0;

	while (!ret && !m->backend->pool_next(id, &info)) {
		id = info.id;
		ret = listed(m, id, info.name, true);
	}
	if (!ret)
		ret = list_end(m);
	for (k = m->known; k && !ret; k = k->next)
		if (!k->stream && !m->backend->watch_open(&k->s, k->name) &&
		    m->backend->events_open(&k->s, &k->stream))
			m->backend->watch_close(&k->s);
	return ret;
}

static void event_from(struct shmk_monitor_event *to, const struct shmk_event *e,
		       const struct known *k)
{
	*to = (struct shmk_monitor_event) {
		.type = e->type, .reason = e->reason, .seq = e->seq, .time_ns = e->time_ns,
		.took_ns = e->took_ns, .pool_id = k->id, .peer = e->peer, .gen = e->gen,
		.queue = e->queue, .pid = e->pid, .uid = e->uid, .code = e->code,
		.blocks = e->blocks, .bytes = e->bytes, .messages = e->messages,
		.redelivered = e->redelivered, .has_detail = true,
	};
	memcpy(to->pool, k->name, sizeof(to->pool));
	memcpy(to->comm, e->comm, sizeof(to->comm));
}

static bool next_of_known(struct shmk_monitor *m, struct shmk_monitor_event *event)
{
	struct shmk_event e;

	for (struct known *k = m->known; k; k = k->next)
		if (k->stream && !m->backend->events_next(&k->s, k->stream, &e)) {
			event_from(event, &e, k);
			return true;
		}
	return false;
}

/* Once in each slice the directory; what is behind a pool's end is no news any more. */
static int next_local(struct shmk_monitor *m, struct shmk_monitor_event *event)
{
	uint64_t ticks;
	int ret = 0;

	if (next_of_known(m, event))
		return 0;
	if (read(m->fd, &ticks, sizeof(ticks)) == sizeof(ticks))
		ret = list_local(m);
	if (ret)
		return ret;
	return pending_take(m, event) || next_of_known(m, event) ? 0 : -EAGAIN;
}

static int open_local(struct shmk_monitor *m)
{
	const struct itimerspec slice = {
		.it_interval.tv_nsec = LOOK_NS, .it_value.tv_nsec = 1,
	};

	m->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (m->fd < 0)
		return -errno;
	timerfd_settime(m->fd, 0, &slice, NULL);
	return list_local(m);
}

/* ------------------------------------------------------------------ all -- */

int shmk_monitor_open(const char *uri, unsigned int flags, struct shmk_monitor **out)
{
	ERRNO_KEPT;
	struct shmk_monitor *m;
	const char *name;
	int ret;

	if (flags & ~SHMK_MONITOR_EXISTING)
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->fd = -1;
	m->last = &m->first;
	ret = uri_parse(uri, &m->backend, &name);
	if (!ret)
		snprintf(m->name, sizeof(m->name), "%s", name);
	if (!ret)
		ret = m->backend == &shmk_module_backend ? open_module(m) : open_local(m);
	if (ret) {
		shmk_monitor_close(m);
		return ret;
	}
	/* What was there is no news, if not asked for. */
	if (!(flags & SHMK_MONITOR_EXISTING)) {
		struct shmk_monitor_event ignored;

		while (pending_take(m, &ignored))
			;
	}
	*out = m;
	return 0;
}

int shmk_monitor_fd(const struct shmk_monitor *m)
{
	return m->fd;
}

int shmk_monitor_next(struct shmk_monitor *m, struct shmk_monitor_event *event)
{
	ERRNO_KEPT;

	if (pending_take(m, event))
		return 0;
	return m->nl ? next_module(m, event) : next_local(m, event);
}

void shmk_monitor_close(struct shmk_monitor *m)
{
	ERRNO_KEPT;
	struct shmk_monitor_event ignored;

	if (!m)
		return;
	while (pending_take(m, &ignored))
		;
	while (m->known)
		known_drop(m, m->known);
	if (m->ask)
		mnl_socket_close(m->ask);
	if (m->nl)
		mnl_socket_close(m->nl);
	else if (m->fd >= 0)
		close(m->fd);
	free(m);
}
