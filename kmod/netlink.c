// SPDX-License-Identifier: GPL-2.0-only
/*
 * netlink.c - the generic netlink family "shmk".
 *
 * News
 *
 * An event of any pool is also news of the machine. Who pushes it may be dying, and
 * holds locks, so pushing copies into a ring that is always there and queues a
 * work, which does the rest: it builds messages, which may fail, and gives them to sockets,
 * which may be full. What is lost on the way is told by ENOBUFS, as far as that
 * can be told, and by a gap in the numbers. No pool is held: news outlive theirs.
 *
 * Who may know what
 *
 * A netlink socket can be given to another process, which then sends or receives
 * with more rights than its opener had. All that is asked of a pool here is
 * asked, therefore, with the credentials of who opened the socket; what changes
 * something also wants CAP_NET_ADMIN of both (GENL_ADMIN_PERM).
 *
 * The core asks for CAP_NET_ADMIN in the network namespace when one joins
 * "privileged", and everybody is root in one of his own making. So those news go to
 * network namespaces of the initial user namespace only.
 */
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/pid.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/user_namespace.h>
#include <linux/workqueue.h>
#include <net/genetlink.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <uapi/linux/shmk_netlink.h>

#include "compat.h"
#include "netlink.h"
#include "peer.h"
#include "point.h"
#include "pool.h"
#include "queue.h"

#define NEWS_KEPT	1024

struct news {
	struct shmk_event event;	/* pid and uid are not filled */
	struct pid *pid;		/* a reference, or NULL */
	kuid_t uid;
	u64 seq;
	u64 pool;
	char name[SHMK_NAME_LEN];
};

static DEFINE_SPINLOCK(news_lock);	/* the next three */
static u64 news_next;			/* number of the next */
static u64 news_sent;			/* the work has come so far */
static struct news news[NEWS_KEPT];	/* number n stands in n % NEWS_KEPT */

static void news_work(struct work_struct *work);
static DECLARE_WORK(work, news_work);

enum { GROUP_EVENTS, GROUP_PRIVILEGED };

static const struct genl_multicast_group groups[] = {
	[GROUP_EVENTS] = { .name = SHMK_MCGRP_EVENTS },
	[GROUP_PRIVILEGED] = {
		.name = SHMK_MCGRP_PRIVILEGED, .flags = GENL_MCAST_CAP_NET_ADMIN },
};

static struct genl_family family;

/* --------------------------------------------------------------- news -- */

/**
 * shmk_news_push() - for all who listen; called under pool->events.lock
 * @event: complete but for pid and uid
 */
void shmk_news_push(const struct shmk_pool *pool, const struct shmk_event *event,
		    struct pid *pid, kuid_t uid)
{
	struct news *n;

	spin_lock(&news_lock);
	n = &news[news_next % NEWS_KEPT];
	put_pid(n->pid);
	n->event = *event;
	n->pid = get_pid(pid);
	n->uid = uid;
	n->seq = news_next;
	n->pool = pool->id;
	memcpy(n->name, pool->name, sizeof(n->name));
	WRITE_ONCE(news_next, news_next + 1);
	spin_unlock(&news_lock);
	schedule_work(&work);
}

/* Takes the oldest that is not sent. *lost: some before it were overwritten. */
static bool news_take(struct news *n, bool *lost)
{
	u64 oldest;
	bool any;

	spin_lock(&news_lock);
	oldest = news_next - min_t(u64, news_next, NEWS_KEPT);
	*lost = news_sent < oldest;
	news_sent = max(news_sent, oldest);
	any = news_sent != news_next;
	if (any) {
		*n = news[news_sent % NEWS_KEPT];
		news[news_sent++ % NEWS_KEPT].pid = NULL;
	}
	spin_unlock(&news_lock);
	return any;
}

static bool may_hear(const struct net *net, unsigned int group)
{
	return group != GROUP_PRIVILEGED || net->user_ns == &init_user_ns;
}

static bool listens(struct net *net, unsigned int group)
{
	return may_hear(net, group) && genl_has_listeners(&family, net, group);
}

static bool anyone_listens(unsigned int group)
{
	struct net *net;
	bool any = false;

	rcu_read_lock();
	for_each_net_rcu(net)
		any = any || listens(net, group);
	rcu_read_unlock();
	return any;
}

/* Not genlmsg_multicast_allns(): what goes wrong in one namespace is not the others' loss. */
static void multicast(struct sk_buff *skb, unsigned int group)
{
	struct sk_buff *clone;
	struct net *net;

	rcu_read_lock();
	for_each_net_rcu(net) {
		/* There may be thousands of them, and one who listens. */
		if (!listens(net, group))
			continue;
		clone = skb_clone(skb, GFP_ATOMIC);
		if (clone)
			genlmsg_multicast_netns(&family, net, clone, 0, group, GFP_ATOMIC);
		else
			genl_set_err(&family, net, 0, group, -ENOBUFS);
	}
	rcu_read_unlock();
}

static void tell_lost(unsigned int group)
{
	struct net *net;

	rcu_read_lock();
	for_each_net_rcu(net)
		if (may_hear(net, group))
			genl_set_err(&family, net, 0, group, -ENOBUFS);
	rcu_read_unlock();
}

static bool has_queue(const struct shmk_event *e)
{
	return e->type == SHMK_EV_QUEUE_CREATED || e->type == SHMK_EV_QUEUE_REMOVED;
}

static int put_u64(struct sk_buff *skb, int attr, u64 value, int pad)
{
	return nla_put_u64_64bit(skb, attr, value, pad);
}

static int put_event(struct sk_buff *skb, int attr, u64 value)
{
	return put_u64(skb, attr, value, SHMK_A_EVENT_PAD);
}

static int fill_ids(struct sk_buff *skb, const struct news *n)
{
	const struct shmk_event *e = &n->event;

	if (put_event(skb, SHMK_A_EVENT_SEQ, n->seq) ||
	    nla_put_u32(skb, SHMK_A_EVENT_TYPE, e->type) ||
	    put_event(skb, SHMK_A_EVENT_TIME_NS, e->time_ns) ||
	    put_event(skb, SHMK_A_EVENT_POOL_ID, n->pool))
		return -EMSGSIZE;
	if (e->peer && (nla_put_u32(skb, SHMK_A_EVENT_PEER, e->peer) ||
			nla_put_u32(skb, SHMK_A_EVENT_GEN, e->gen)))
		return -EMSGSIZE;
	if (has_queue(e) && nla_put_u32(skb, SHMK_A_EVENT_QUEUE, e->queue))
		return -EMSGSIZE;
	return 0;
}

static int fill_detail(struct sk_buff *skb, const struct news *n)
{
	const struct shmk_event *e = &n->event;

	if ((n->name[0] && nla_put_string(skb, SHMK_A_EVENT_POOL_NAME, n->name)) ||
	    put_event(skb, SHMK_A_EVENT_POOL_SEQ, e->seq) ||
	    nla_put_s32(skb, SHMK_A_EVENT_PID, pid_nr(n->pid)) ||
	    nla_put_u32(skb, SHMK_A_EVENT_UID, from_kuid_munged(&init_user_ns, n->uid)) ||
	    nla_put_u32(skb, SHMK_A_EVENT_REASON, e->reason) ||
	    nla_put_s32(skb, SHMK_A_EVENT_CODE, e->code) ||
	    put_event(skb, SHMK_A_EVENT_TOOK_NS, e->took_ns) ||
	    put_event(skb, SHMK_A_EVENT_BLOCKS, e->blocks) ||
	    put_event(skb, SHMK_A_EVENT_BYTES, e->bytes) ||
	    put_event(skb, SHMK_A_EVENT_MESSAGES, e->messages) ||
	    put_event(skb, SHMK_A_EVENT_REDELIVERED, e->redelivered))
		return -EMSGSIZE;
	if (e->comm[0] && nla_put(skb, SHMK_A_EVENT_COMM, strnlen(e->comm, sizeof(e->comm) - 1) + 1,
				  e->comm))
		return -EMSGSIZE;
	return 0;
}

static struct sk_buff *event_message(const struct news *n, unsigned int group)
{
	struct sk_buff *skb = genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL);
	bool detail = group == GROUP_PRIVILEGED;
	void *hdr;

	if (!skb)
		return NULL;
	hdr = genlmsg_put(skb, 0, 0, &family, 0, detail ? SHMK_CMD_EVENT_DETAIL : SHMK_CMD_EVENT);
	/* An empty message has room for all of it. */
	if (!hdr || fill_ids(skb, n) || (detail && fill_detail(skb, n))) {
		nlmsg_free(skb);
		return NULL;
	}
	genlmsg_end(skb, hdr);
	return skb;
}

static void send_to(const struct news *n, unsigned int group)
{
	struct sk_buff *skb;

	if (!anyone_listens(group))
		return;
	skb = event_message(n, group);
	if (!skb) {
		tell_lost(group);
		return;
	}
	multicast(skb, group);
	consume_skb(skb);
}

static void news_work(struct work_struct *unused)
{
	struct news n;
	bool lost;

	while (news_take(&n, &lost)) {
		if (lost) {
			tell_lost(GROUP_EVENTS);
			tell_lost(GROUP_PRIVILEGED);
		}
		send_to(&n, GROUP_EVENTS);
		send_to(&n, GROUP_PRIVILEGED);
		shmk_sysfs_uevent(&n.event, n.pool, n.name);
		put_pid(n.pid);
		cond_resched();
	}
}

/* ------------------------------------------------------------- asking -- */

/* Of the opener. The socket lives while one of its requests is answered. */
static const struct cred *creds_take(const struct sk_buff *request)
{
	return override_creds(NETLINK_CB(request).sk->sk_socket->file->f_cred);
}

static void creds_drop(const struct cred *own)
{
	revert_creds(own);
}

/* Before anything is looked at: what is counted later may be seen all the same. */
static u64 seq_now(void)
{
	u64 seq = READ_ONCE(news_next);

	smp_rmb();	/* before what is told; a count that is too small only tells more anew */
	return seq;
}

/* By id or name, whichever there is. */
static struct shmk_pool *pool_asked(struct nlattr *id, struct nlattr *name,
				    struct netlink_ext_ack *extack)
{
	struct shmk_pool *pool;

	if (!id && !name) {
		NL_SET_ERR_MSG(extack, "the id or the name of a pool is missing");
		return ERR_PTR(-EINVAL);
	}
	pool = shmk_pool_get(id ? nla_get_u64(id) : 0, name ? nla_data(name) : NULL);
	if (!pool) {
		NL_SET_ERR_MSG_ATTR(extack, id ?: name, "no such pool");
		return ERR_PTR(-ENOENT);
	}
	return pool;
}

/* And one whose inside the asker may see. */
static struct shmk_pool *readable_asked(struct nlattr *id, struct nlattr *name,
					struct netlink_ext_ack *extack)
{
	struct shmk_pool *pool = pool_asked(id, name, extack);

	if (IS_ERR(pool) || shmk_pool_readable(pool))
		return pool;
	shmk_pool_put(pool);
	NL_SET_ERR_MSG(extack, "this pool is not to be read by you");
	return ERR_PTR(-EACCES);
}

/**
 * struct answer - where an answer goes
 * @seq: of the news, before the object was looked at
 */
struct answer {
	struct sk_buff *skb;
	u32 portid;
	u32 nlseq;
	int flags;
	u8 cmd;
	u64 seq;
};

static void *answer_begin(const struct answer *a)
{
	return genlmsg_put(a->skb, a->portid, a->nlseq, &family, a->flags, a->cmd);
}

static int answer_end(const struct answer *a, void *hdr, int err)
{
	if (err)
		genlmsg_cancel(a->skb, hdr);
	else
		genlmsg_end(a->skb, hdr);
	return err ? -EMSGSIZE : 0;
}

static struct answer answer_dump(struct sk_buff *skb, struct netlink_callback *cb, u8 cmd)
{
	return (struct answer){
		.skb	= skb,
		.portid	= NETLINK_CB(cb->skb).portid,
		.nlseq	= cb->nlh->nlmsg_seq,
		.flags	= NLM_F_MULTI,
		.cmd	= cmd,
		.seq	= seq_now(),
	};
}

static int answer_new(struct answer *a, struct genl_info *info)
{
	*a = (struct answer){
		.skb	= genlmsg_new(GENLMSG_DEFAULT_SIZE, GFP_KERNEL),
		.portid	= info->snd_portid,
		.nlseq	= info->snd_seq,
		.cmd	= info->genlhdr->cmd,
		.seq	= seq_now(),
	};
	return a->skb ? 0 : -ENOMEM;
}

static int answer_send(struct answer *a, struct genl_info *info, int err)
{
	if (!err)
		return genlmsg_reply(a->skb, info);
	nlmsg_free(a->skb);
	return err;
}

/* -------------------------------------------------------------- pools -- */

static int put_pool(struct sk_buff *skb, int attr, u64 value)
{
	return put_u64(skb, attr, value, SHMK_A_POOL_PAD);
}

static int fill_shape(struct sk_buff *skb, const struct shmk_pool_info *i, u64 rings_bytes)
{
	return put_pool(skb, SHMK_A_POOL_ID, i->id) ||
	       (i->name[0] && nla_put_string(skb, SHMK_A_POOL_NAME, i->name)) ||
	       put_pool(skb, SHMK_A_POOL_BYTES, i->bytes) ||
	       put_pool(skb, SHMK_A_POOL_MEMORY_BYTES, i->memory_bytes) ||
	       nla_put_u32(skb, SHMK_A_POOL_PAGE_SHIFT, i->page_shift) ||
	       nla_put_u32(skb, SHMK_A_POOL_UNIT_SHIFT, i->unit_shift) ||
	       nla_put_s32(skb, SHMK_A_POOL_NODE, i->node) ||
	       nla_put_u32(skb, SHMK_A_POOL_MODE, i->mode) ||
	       nla_put_u32(skb, SHMK_A_POOL_UID, i->uid) ||
	       nla_put_u32(skb, SHMK_A_POOL_GID, i->gid) ||
	       nla_put_u32(skb, SHMK_A_POOL_FLAGS, i->flags) ||
	       nla_put_u32(skb, SHMK_A_POOL_NR_PEERS, i->nr_peers) ||
	       nla_put_u32(skb, SHMK_A_POOL_NR_QUEUES, i->nr_queues) ||
	       put_pool(skb, SHMK_A_POOL_RINGS_BYTES, rings_bytes) ||
	       put_pool(skb, SHMK_A_POOL_CREATED_NS, i->created_ns);
}

static int fill_counters(struct sk_buff *skb, const struct shmk_pool_info *i)
{
	return nla_put_u32(skb, SHMK_A_POOL_PEERS_NOW, i->peers_now) ||
	       nla_put_u32(skb, SHMK_A_POOL_QUEUES_NOW, i->queues_now) ||
	       put_pool(skb, SHMK_A_POOL_ATTACHES, i->attaches) ||
	       put_pool(skb, SHMK_A_POOL_DETACHES, i->detaches) ||
	       put_pool(skb, SHMK_A_POOL_DEATHS, i->deaths) ||
	       put_pool(skb, SHMK_A_POOL_RECLAIMED_BLOCKS, i->reclaimed_blocks) ||
	       put_pool(skb, SHMK_A_POOL_RECLAIMED_BYTES, i->reclaimed_bytes) ||
	       put_pool(skb, SHMK_A_POOL_LOST_MESSAGES, i->lost_messages) ||
	       put_pool(skb, SHMK_A_POOL_REDELIVERED, i->redelivered);
}

static int fill_usage(struct sk_buff *skb, const struct shmk_settled *usage)
{
	return put_pool(skb, SHMK_A_POOL_BLOCKS_USED, usage->blocks) ||
	       put_pool(skb, SHMK_A_POOL_BYTES_USED, usage->bytes);
}

static int fill_pool(const struct answer *a, struct shmk_pool *pool,
		     const struct shmk_settled *usage)
{
	struct shmk_pool_info info;
	void *hdr = answer_begin(a);
	int err;

	if (!hdr)
		return -EMSGSIZE;
	shmk_pool_brief(pool, &info);
	err = fill_shape(a->skb, &info, pool->status->rings_bytes) ||
	      fill_counters(a->skb, &info) || (usage && fill_usage(a->skb, usage)) ||
	      put_pool(a->skb, SHMK_A_POOL_SEQ, a->seq);
	return answer_end(a, hdr, err);
}

static int pool_get(struct genl_info *info)
{
	struct shmk_settled usage = { };
	struct shmk_pool *pool;
	struct answer a;
	int err;

	pool = pool_asked(info->attrs[SHMK_A_POOL_ID], info->attrs[SHMK_A_POOL_NAME],
			  info->extack);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	err = answer_new(&a, info);
	if (!err) {
		err = shmk_pool_usage(pool, &usage) ?: fill_pool(&a, pool, &usage);
		err = answer_send(&a, info, err);
	}
	shmk_pool_put(pool);
	return err;
}

/* args[0]: the last pool that was told. */
static int pool_dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct answer a = answer_dump(skb, cb, SHMK_CMD_POOL_GET);
	struct shmk_pool *pool;
	int err = 0;

	while (!err && (pool = shmk_pool_after(cb->args[0]))) {
		err = fill_pool(&a, pool, NULL);
		if (!err)
			cb->args[0] = pool->id;
		shmk_pool_put(pool);
	}
	return skb->len;
}

/* ------------------------------------------------------ what is in it -- */

static int put_peer(struct sk_buff *skb, int attr, u64 value)
{
	return put_u64(skb, attr, value, SHMK_A_PEER_PAD);
}

static int fill_peer(const struct answer *a, const struct shmk_pool *pool,
		     const struct shmk_peer_info *i)
{
	void *hdr = answer_begin(a);
	int err;

	if (!hdr)
		return -EMSGSIZE;
	err = put_peer(a->skb, SHMK_A_PEER_POOL_ID, pool->id) ||
	      nla_put_u32(a->skb, SHMK_A_PEER_ID, i->peer) ||
	      nla_put_u32(a->skb, SHMK_A_PEER_GEN, i->gen) ||
	      nla_put_u32(a->skb, SHMK_A_PEER_STATE, i->state) ||
	      nla_put_u32(a->skb, SHMK_A_PEER_FLAGS, i->flags) ||
	      nla_put_s32(a->skb, SHMK_A_PEER_PID, i->pid) ||
	      nla_put_u32(a->skb, SHMK_A_PEER_UID, i->uid) ||
	      nla_put_string(a->skb, SHMK_A_PEER_COMM, i->comm) ||
	      nla_put_u32(a->skb, SHMK_A_PEER_NR_ENTRIES, i->nr_entries) ||
	      put_peer(a->skb, SHMK_A_PEER_ATTACHED_NS, i->attached_ns) ||
	      put_peer(a->skb, SHMK_A_PEER_SEQ, a->seq);
	return answer_end(a, hdr, err);
}

/* The first one from *id on; *id is the next then. -ENOENT: there is none. */
static int tell_peer(const struct answer *a, struct shmk_pool *pool, u32 *id)
{
	struct shmk_peer_info info = { .peer = *id };
	int err = shmk_peer_info(pool, &info) ?: fill_peer(a, pool, &info);

	if (!err)
		*id = info.peer + 1;
	return err;
}

static int put_queue(struct sk_buff *skb, int attr, u64 value)
{
	return put_u64(skb, attr, value, SHMK_A_QUEUE_PAD);
}

static int fill_ring(struct sk_buff *skb, const struct shmk_queue_look *q)
{
	return nla_put_u32(skb, SHMK_A_QUEUE_ID, q->id) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_GEN, q->gen) ||
	       nla_put_string(skb, SHMK_A_QUEUE_NAME, q->name) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_FLAGS, q->flags) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_CAPACITY, q->capacity) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_SLOT_BYTES, q->slot_bytes) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_NR_OPEN, q->nr_open) ||
	       put_queue(skb, SHMK_A_QUEUE_SENT, q->sent) ||
	       put_queue(skb, SHMK_A_QUEUE_BELLS, q->bells) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_WAITERS, q->waiters);
}

static int fill_kind(struct sk_buff *skb, const struct shmk_queue_look *q)
{
	if (!(q->flags & SHMK_QUEUE_F_TOPIC))
		return put_queue(skb, SHMK_A_QUEUE_RECEIVED, q->received) ||
		       nla_put_u32(skb, SHMK_A_QUEUE_DEPTH, q->depth) ||
		       put_queue(skb, SHMK_A_QUEUE_REDELIVERED, q->redelivered);
	return nla_put_u32(skb, SHMK_A_QUEUE_HISTORY, q->history) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_MSG_BYTES, q->msg_bytes) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_NR_READERS, q->nr_readers) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_READERS_NOW, q->readers_now) ||
	       nla_put_u32(skb, SHMK_A_QUEUE_WRITER, q->writer);
}

static int fill_queue(const struct answer *a, const struct shmk_pool *pool,
		      const struct shmk_queue_look *q)
{
	void *hdr = answer_begin(a);
	int err;

	if (!hdr)
		return -EMSGSIZE;
	err = put_queue(a->skb, SHMK_A_QUEUE_POOL_ID, pool->id) || fill_ring(a->skb, q) ||
	      fill_kind(a->skb, q) || put_queue(a->skb, SHMK_A_QUEUE_SEQ, a->seq);
	return answer_end(a, hdr, err);
}

/* As tell_peer(), of one kind only. */
static int tell_kind(const struct answer *a, struct shmk_pool *pool, u32 *id, bool topics)
{
	struct shmk_queue_look look;
	int err;

	for (;;) {
		err = shmk_queue_look(pool, *id, NULL, &look);
		if (err)
			return err;
		if (!(look.flags & SHMK_QUEUE_F_TOPIC) == !topics)
			break;
		*id = look.id + 1;
	}
	err = fill_queue(a, pool, &look);
	if (!err)
		*id = look.id + 1;
	return err;
}

static int tell_queue(const struct answer *a, struct shmk_pool *pool, u32 *id)
{
	return tell_kind(a, pool, id, false);
}

static int tell_topic(const struct answer *a, struct shmk_pool *pool, u32 *id)
{
	return tell_kind(a, pool, id, true);
}

typedef int (*tell_fn)(const struct answer *a, struct shmk_pool *pool, u32 *id);

/*
 * args[0]: the pool that is being told, args[1]: its next object, args[2]: only this
 * pool was asked for (and then it is done when that has been told).
 */
static int dump_inside(struct sk_buff *skb, struct netlink_callback *cb, u8 cmd, tell_fn tell)
{
	struct answer a = answer_dump(skb, cb, cmd);
	struct shmk_pool *pool;
	int err = 0;

	while (err != -EMSGSIZE) {
		u32 id = cb->args[1];

		if (cb->args[2] && cb->args[2] != cb->args[0] + 1)
			break;
		pool = shmk_pool_after(cb->args[0]);
		if (!pool)
			break;
		err = shmk_pool_readable(pool) && (!cb->args[2] || pool->id == cb->args[2]) ?
		      tell(&a, pool, &id) : -ENOENT;
		cb->args[1] = id;
		if (err == -ENOENT) {
			cb->args[0] = pool->id;
			cb->args[1] = 0;
		}
		shmk_pool_put(pool);
		cond_resched();
	}
	return skb->len;
}

/* Attributes of pool id and name stand in the same places for peers and queues. */
static int start_inside(struct netlink_callback *cb)
{
	struct nlattr **attrs = shmk_dump_attrs(cb);
	struct nlattr *id = attrs[SHMK_A_PEER_POOL_ID], *name = attrs[SHMK_A_PEER_POOL_NAME];
	struct shmk_pool *pool;
	const struct cred *own;

	BUILD_BUG_ON((int)SHMK_A_PEER_POOL_ID != (int)SHMK_A_QUEUE_POOL_ID);
	BUILD_BUG_ON((int)SHMK_A_PEER_POOL_NAME != (int)SHMK_A_QUEUE_POOL_NAME);
	if (!id && !name)
		return 0;
	own = creds_take(cb->skb);
	pool = readable_asked(id, name, cb->extack);
	creds_drop(own);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	cb->args[0] = pool->id - 1;
	cb->args[2] = pool->id;
	shmk_pool_put(pool);
	return 0;
}

static int peer_get(struct genl_info *info)
{
	struct shmk_peer_info i = { };
	struct shmk_pool *pool;
	struct answer a;
	int err;

	if (GENL_REQ_ATTR_CHECK(info, SHMK_A_PEER_ID))
		return -EINVAL;
	pool = readable_asked(info->attrs[SHMK_A_PEER_POOL_ID],
			      info->attrs[SHMK_A_PEER_POOL_NAME], info->extack);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	err = answer_new(&a, info);
	if (!err) {
		i.peer = nla_get_u32(info->attrs[SHMK_A_PEER_ID]);
		err = shmk_peer_info(pool, &i);
		if (!err && i.peer != nla_get_u32(info->attrs[SHMK_A_PEER_ID]))
			err = -ENOENT;
		if (err)
			NL_SET_ERR_MSG_ATTR(info->extack, info->attrs[SHMK_A_PEER_ID],
					    "no such peer");
		err = answer_send(&a, info, err ?: fill_peer(&a, pool, &i));
	}
	shmk_pool_put(pool);
	return err;
}

static int find_queue(struct shmk_pool *pool, struct genl_info *info, struct shmk_queue_look *look)
{
	struct nlattr *id = info->attrs[SHMK_A_QUEUE_ID], *name = info->attrs[SHMK_A_QUEUE_NAME];
	bool topic = info->genlhdr->cmd == SHMK_CMD_TOPIC_GET;
	int err;

	err = shmk_queue_look(pool, id ? nla_get_u32(id) : 0, name ? nla_data(name) : NULL, look);
	if (!err && ((id && look->id != nla_get_u32(id)) ||
		     !(look->flags & SHMK_QUEUE_F_TOPIC) == topic))
		err = -ENOENT;
	if (err)
		NL_SET_ERR_MSG_ATTR(info->extack, id ?: name, "none of that kind");
	return err;
}

static int queue_get(struct genl_info *info)
{
	struct shmk_queue_look look;
	struct shmk_pool *pool;
	struct answer a;
	int err;

	if (!info->attrs[SHMK_A_QUEUE_ID] && !info->attrs[SHMK_A_QUEUE_NAME]) {
		GENL_SET_ERR_MSG(info, "the id or the name of a queue is missing");
		return -EINVAL;
	}
	pool = readable_asked(info->attrs[SHMK_A_QUEUE_POOL_ID],
			      info->attrs[SHMK_A_QUEUE_POOL_NAME], info->extack);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	err = answer_new(&a, info);
	if (!err) {
		err = find_queue(pool, info, &look);
		err = answer_send(&a, info, err ?: fill_queue(&a, pool, &look));
	}
	shmk_pool_put(pool);
	return err;
}

/* --------------------------------------------------------- administering -- */

static int explain(struct genl_info *info, int err)
{
	switch (err) {
	case -EINVAL:
		GENL_SET_ERR_MSG(info, "a name, size or number is not one that a pool can have");
		break;
	case -EEXIST:
		GENL_SET_ERR_MSG(info, "there is a pool of this name");
		break;
	case -ENOENT:
		GENL_SET_ERR_MSG(info, "no such pool");
		break;
	case -EPERM:
		GENL_SET_ERR_MSG(info, "not the pool's owner, or more than a limit allows");
		break;
	case -EBUSY:
		GENL_SET_ERR_MSG(info, "peers are attached, or it is being reset");
		break;
	case -ENOMEM:
		GENL_SET_ERR_MSG(info, "not enough memory; nothing was kept");
		break;
	}
	return err;
}

static u32 u32_or(struct genl_info *info, int attr, u32 value)
{
	return info->attrs[attr] ? nla_get_u32(info->attrs[attr]) : value;
}

static int pool_create(struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct shmk_pool_create args = {
		.flags		= SHMK_POOL_F_PERSIST,	/* else it would be gone at once */
		.page_shift	= u32_or(info, SHMK_A_POOL_PAGE_SHIFT, PAGE_SHIFT),
		.unit_shift	= u32_or(info, SHMK_A_POOL_UNIT_SHIFT, 0),
		.node		= attrs[SHMK_A_POOL_NODE] ?
				  nla_get_s32(attrs[SHMK_A_POOL_NODE]) : -1,
		.mode		= u32_or(info, SHMK_A_POOL_MODE, 0600),
		.uid		= u32_or(info, SHMK_A_POOL_UID, -1),
		.gid		= u32_or(info, SHMK_A_POOL_GID, -1),
		.nr_peers	= u32_or(info, SHMK_A_POOL_NR_PEERS, 0),
		.nr_queues	= u32_or(info, SHMK_A_POOL_NR_QUEUES, 0),
	};
	struct shmk_pool *pool;

	if (GENL_REQ_ATTR_CHECK(info, SHMK_A_POOL_NAME) ||
	    GENL_REQ_ATTR_CHECK(info, SHMK_A_POOL_BYTES))
		return -EINVAL;
	strscpy(args.name, nla_data(attrs[SHMK_A_POOL_NAME]), sizeof(args.name));
	args.bytes = nla_get_u64(attrs[SHMK_A_POOL_BYTES]);
	if (attrs[SHMK_A_POOL_RINGS_BYTES])
		args.rings_bytes = nla_get_u64(attrs[SHMK_A_POOL_RINGS_BYTES]);
	pool = shmk_pool_create(&args);
	if (IS_ERR(pool))
		return explain(info, PTR_ERR(pool));
	shmk_pool_publish(pool);
	shmk_pool_put(pool);
	return 0;
}

static int pool_destroy(struct genl_info *info)
{
	struct shmk_pool_destroy args = { };

	if (GENL_REQ_ATTR_CHECK(info, SHMK_A_POOL_NAME))
		return -EINVAL;
	strscpy(args.name, nla_data(info->attrs[SHMK_A_POOL_NAME]), sizeof(args.name));
	return explain(info, shmk_pool_destroy(&args));
}

static int pool_reset(struct genl_info *info)
{
	struct shmk_pool_reset args = {
		.flags = info->attrs[SHMK_A_POOL_FORCE] ? SHMK_RESET_F_FORCE : 0,
	};

	if (GENL_REQ_ATTR_CHECK(info, SHMK_A_POOL_NAME))
		return -EINVAL;
	strscpy(args.name, nla_data(info->attrs[SHMK_A_POOL_NAME]), sizeof(args.name));
	return explain(info, shmk_pool_reset(&args));
}

/* ------------------------------------------------------------ the family -- */

/*
 * GENL_ADMIN_PERM asks the opener only if the message has no address: who gives one is
 * thought to know what it does. But it is the opener's pool that would be made.
 */
static int run(struct sk_buff *skb, struct genl_info *info, int (*command)(struct genl_info *),
	       bool admin)
{
	const struct cred *own;
	int err;

	/* What it makes may hold the module: only one that is to stay can be held. */
	if (THIS_MODULE->state != MODULE_STATE_LIVE || !try_module_get(THIS_MODULE))
		return -ENODEV;
	own = creds_take(skb);
	err = admin && !capable(CAP_NET_ADMIN) ? -EPERM : command(info);
	creds_drop(own);
	module_put(THIS_MODULE);
	return err;
}

static int dump(struct sk_buff *skb, struct netlink_callback *cb, u8 cmd, tell_fn tell)
{
	const struct cred *own = creds_take(cb->skb);
	int len = tell ? dump_inside(skb, cb, cmd, tell) : pool_dump(skb, cb);

	creds_drop(own);
	return len;
}

#define DOIT(command, admin)							\
static int do_##command(struct sk_buff *skb, struct genl_info *info)		\
{										\
	return run(skb, info, command, admin);					\
}

DOIT(pool_get, false)
DOIT(peer_get, false)
DOIT(queue_get, false)
DOIT(pool_create, true)
DOIT(pool_destroy, true)
DOIT(pool_reset, true)

static int dump_pools(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb, SHMK_CMD_POOL_GET, NULL);
}

static int dump_peers(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb, SHMK_CMD_PEER_GET, tell_peer);
}

static int dump_queues(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb, SHMK_CMD_QUEUE_GET, tell_queue);
}

static int dump_topics(struct sk_buff *skb, struct netlink_callback *cb)
{
	return dump(skb, cb, SHMK_CMD_TOPIC_GET, tell_topic);
}

#define NAME_POLICY	{ .type = NLA_NUL_STRING, .len = SHMK_NAME_LEN - 1 }

/* To ask with; what is not here is refused. */
static const struct nla_policy pool_get_policy[] = {
	[SHMK_A_POOL_ID]	= { .type = NLA_U64 },
	[SHMK_A_POOL_NAME]	= NAME_POLICY,
};

static const struct nla_policy pool_create_policy[] = {
	[SHMK_A_POOL_NAME]	= NAME_POLICY,
	[SHMK_A_POOL_BYTES]	= { .type = NLA_U64 },
	[SHMK_A_POOL_PAGE_SHIFT] = { .type = NLA_U32 },
	[SHMK_A_POOL_UNIT_SHIFT] = { .type = NLA_U32 },
	[SHMK_A_POOL_NODE]	= { .type = NLA_S32 },
	[SHMK_A_POOL_MODE]	= { .type = NLA_U32 },
	[SHMK_A_POOL_UID]	= { .type = NLA_U32 },
	[SHMK_A_POOL_GID]	= { .type = NLA_U32 },
	[SHMK_A_POOL_NR_PEERS]	= { .type = NLA_U32 },
	[SHMK_A_POOL_NR_QUEUES]	= { .type = NLA_U32 },
	[SHMK_A_POOL_RINGS_BYTES] = { .type = NLA_U64 },
};

static const struct nla_policy pool_destroy_policy[] = {
	[SHMK_A_POOL_NAME]	= NAME_POLICY,
};

static const struct nla_policy pool_reset_policy[] = {
	[SHMK_A_POOL_NAME]	= NAME_POLICY,
	[SHMK_A_POOL_FORCE]	= { .type = NLA_FLAG },
};

static const struct nla_policy peer_get_policy[] = {
	[SHMK_A_PEER_POOL_ID]	= { .type = NLA_U64 },
	[SHMK_A_PEER_POOL_NAME]	= NAME_POLICY,
	[SHMK_A_PEER_ID]	= { .type = NLA_U32 },
};

static const struct nla_policy queue_get_policy[] = {
	[SHMK_A_QUEUE_POOL_ID]	= { .type = NLA_U64 },
	[SHMK_A_QUEUE_POOL_NAME] = NAME_POLICY,
	[SHMK_A_QUEUE_ID]	= { .type = NLA_U32 },
	[SHMK_A_QUEUE_NAME]	= NAME_POLICY,
};

#define POLICY(name)	.policy = name##_policy, .maxattr = ARRAY_SIZE(name##_policy) - 1

static const struct genl_ops ops[] = {
	{
		.cmd	= SHMK_CMD_POOL_GET,
		.doit	= do_pool_get,
		.dumpit	= dump_pools,
		POLICY(pool_get),
	}, {
		.cmd	= SHMK_CMD_PEER_GET,
		.doit	= do_peer_get,
		.start	= start_inside,
		.dumpit	= dump_peers,
		POLICY(peer_get),
	}, {
		.cmd	= SHMK_CMD_QUEUE_GET,
		.doit	= do_queue_get,
		.start	= start_inside,
		.dumpit	= dump_queues,
		POLICY(queue_get),
	}, {
		.cmd	= SHMK_CMD_TOPIC_GET,
		.doit	= do_queue_get,
		.start	= start_inside,
		.dumpit	= dump_topics,
		POLICY(queue_get),
	}, {
		.cmd	= SHMK_CMD_POOL_CREATE,
		.doit	= do_pool_create,
		.flags	= GENL_ADMIN_PERM,
		POLICY(pool_create),
	}, {
		.cmd	= SHMK_CMD_POOL_DESTROY,
		.doit	= do_pool_destroy,
		.flags	= GENL_ADMIN_PERM,
		POLICY(pool_destroy),
	}, {
		.cmd	= SHMK_CMD_POOL_RESET,
		.doit	= do_pool_reset,
		.flags	= GENL_ADMIN_PERM,
		POLICY(pool_reset),
	},
};

static struct genl_family family __ro_after_init = {
	.name		= SHMK_FAMILY_NAME,
	.version	= SHMK_FAMILY_VERSION,
	.module		= THIS_MODULE,
	.netnsok	= true,
	.parallel_ops	= true,
	.ops		= ops,
	.n_ops		= ARRAY_SIZE(ops),
	.mcgrps		= groups,
	.n_mcgrps	= ARRAY_SIZE(groups),
};

int shmk_netlink_init(void)
{
	return genl_register_family(&family);
}

/* Nobody is left who could push; what was not sent goes with the module. */
void shmk_netlink_exit(void)
{
	unsigned int i;

	cancel_work_sync(&work);
	genl_unregister_family(&family);
	for (i = 0; i < NEWS_KEPT; i++)
		put_pid(news[i].pid);
}
