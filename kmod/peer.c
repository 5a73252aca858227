// SPDX-License-Identifier: GPL-2.0-only
/*
 * peer.c - one mm in one pool: attach, die, detach.
 *
 * A peer is its mm: all threads, vfork children, io_uring workers that share
 * it are one peer, and it ends when the mm ends, not when some file is closed
 * (dup, fork, SCM_RIGHTS, io_uring keep files). It can end in three ways,
 *
 *   notifier_release()        the mm is going: exit, kill, exec
 *   shmk_peer_detach()  it asked for it
 *   shmk_peer_close()   its last file is gone while the mm lives
 *
 * which may run at the same time. Exactly one moves the stage from ALIVE to
 * ENDING; that one, the ender, takes the peer off its mm and settles it, the
 * others do nothing.
 *
 * Why the dead can store no more
 *
 * notifier_release() runs when mm_users has become 0. All that stores through a
 * user mapping holds mm_users: threads of the process, SQPOLL and io-wq
 * threads and vhost workers (they share the mm), kernel threads within
 * kthread_use_mm() (whose users took mmget first), ptrace, /proc/pid/mem,
 * process_vm_writev() (get_task_mm or mmget). Lazy TLB users have the page
 * tables loaded and do not touch user addresses. Nobody else has the peer's
 * mapping: a forked child gets no page table entries of it and its faults are
 * SIGBUS (map.c). So the mappings themselves may still be there, and usually
 * are, for seconds if the process was large.
 *
 * Stores that go past page tables, into pages that were pinned before (direct I/O
 * in flight, registered buffers, RDMA, and, of a peer that detaches, ptrace or
 * process_vm_writev() in the middle of a page): blocks of such pages are not given
 * out (quarantine.c), nor is an id whose ledger has some, see id_take(). What is not
 * covered: devices in shared virtual addressing whose driver's own notifier has
 * not run yet.
 *
 * shmk_peer_detach() has to make it true: see there. shmk_peer_close() has no
 * mapping left, because a mapping holds the file.
 */
#include <linux/cred.h>
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/user_namespace.h>

#include "capsule.h"
#include "event.h"
#include "peer.h"
#include "point.h"
#include "pool.h"
#include "queue.h"
#include "trace.h"
#include "user.h"

#define DEFAULT_ENTRIES		4096

/*
 * How long an ending process settles itself, and closes its queues, before the rest goes to a
 * worker. By time as well as by number: other processes that exit wait for notifiers
 * to come back, and the entries of a hostile peer can be made slow.
 */
#define INLINE_ENTRIES		16384
#define INLINE_JIFFIES		2
#define DETACH_JIFFIES		HZ

/* How often, a millisecond or more apart, attaching looks for an id that can be given out. */
#define ID_TRIES		50

static struct workqueue_struct *workqueue;

/* -------------------------------------------------------------- one mm -- */

static void notifier_release(struct mmu_notifier *notifier, struct mm_struct *mm);

static struct mmu_notifier *notifier_alloc(struct mm_struct *mm)
{
	struct shmk_mm *smm = kzalloc(sizeof(*smm), GFP_KERNEL_ACCOUNT);

	if (!smm)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&smm->lock);
	INIT_LIST_HEAD(&smm->peers);
	return &smm->notifier;
}

static void notifier_free(struct mmu_notifier *notifier)
{
	kfree(container_of(notifier, struct shmk_mm, notifier));
}

static const struct mmu_notifier_ops notifier_ops = {
	.release	= notifier_release,
	.alloc_notifier	= notifier_alloc,
	.free_notifier	= notifier_free,
};

/* ----------------------------------------------------------- attaching -- */

static u64 ledger_bytes(u32 nr_entries)
{
	return PAGE_ALIGN(sizeof(struct shmk_ledger) +
			  (u64)nr_entries * sizeof(struct shmk_entry));
}

/* The first free id from @from on. */
static int id_take_from(struct shmk_peer *peer, u32 from)
{
	struct shmk_pool *pool = peer->pool;
	u32 end = pool->status->nr_peers + 1;
	int err = 0;
	u32 id;

	spin_lock(&pool->lock);
	id = find_next_zero_bit(pool->peer_ids, end, from);
	if (shmk_pool_is_reset(pool) || (shmk_pool_draining(pool) && !peer->rdonly)) {
		err = -ESHUTDOWN;
	} else if (id < end) {
		__set_bit(id, pool->peer_ids);
		peer->id = id;
		peer->gen = SHMK_PEER_GEN(pool->peer_status[id].word) + 1;
	} else {
		err = -ENOSPC;
	}
	spin_unlock(&pool->lock);
	return err;
}

static void id_free_locked(struct shmk_peer *peer)
{
	lockdep_assert_held(&peer->pool->lock);
	__clear_bit(peer->id, peer->pool->peer_ids);
}

static void id_drop(struct shmk_peer *peer)
{
	spin_lock(&peer->pool->lock);
	id_free_locked(peer);
	spin_unlock(&peer->pool->lock);
	peer->id = 0;
}

/*
 * An id whose ledger a former peer has pinned is passed over: it could write, as
 * if it were the new one, what the settler will believe of it. If there is
 * no other, a passing reference is waited for (a former peer's mappings that are
 * just going) for some time.
 */
static int id_take(struct shmk_peer *peer)
{
	struct shmk_region *ledgers = peer->pool->ledgers;
	bool passed = false;
	unsigned int tries;
	int err;
	u32 id;

	for (tries = 0; tries < ID_TRIES; tries++) {
		for (id = 0; !(err = id_take_from(peer, id + 1));) {
			id = peer->id;
			if (!shmk_region_pinned(&ledgers[id], 0, peer->ledger_bytes))
				return 0;
			id_drop(peer);
			passed = true;
			cond_resched();
			if (fatal_signal_pending(current))
				return -EINTR;
		}
		if (err != -ENOSPC || !passed)
			break;
		usleep_range(1000, 2000);
	}
	return err;
}

/*
 * The ledger's pages stay with the id: others may have them mapped, and the
 * next peer of this id must be seen through the same mappings. Only the holder
 * of the id changes them; the lock is for who faults one in.
 */
static int ledger_take(struct shmk_peer *peer)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_region *ledger = &pool->ledgers[peer->id];
	struct shmk_region grown, old;
	int err;

	if (ledger->nr_pages < peer->ledger_bytes >> PAGE_SHIFT) {
		err = shmk_region_grow(ledger, &grown, peer->ledger_bytes);
		if (err)
			return err;
		shmk_pass(SHMK_AT_LEDGER_GROWN);
		spin_lock(&pool->lock);
		old = *ledger;
		*ledger = grown;
		spin_unlock(&pool->lock);
		shmk_region_drop_old(&old);
	}
	/* Its last owner may have written anywhere in it, see ledger_clear(). */
	shmk_region_zero(ledger, peer->ledger_bytes);
	peer->ledger = ledger->addr;
	return 0;
}

/* Once, by the ender, or by who drops a peer that was never seen. */
static void uncharge(struct shmk_peer *peer)
{
	if (peer->charged)
		shmk_user_uncharge(peer->user, SHMK_QUOTA_PEERS);
	peer->charged = false;
}

static void peer_put(struct shmk_peer *peer)
{
	if (!refcount_dec_and_test(&peer->refs))
		return;
	if (peer->id && peer->stage == SHMK_PEER_STAGE_NEW)
		id_drop(peer);
	if (peer->mm)
		mmu_notifier_put(&peer->mm->notifier);
	uncharge(peer);
	shmk_user_put(peer->user);
	put_pid(peer->pid);
	kvfree(peer->opens);
	shmk_reader_exit(&peer->reader);
	kfree(peer);
}

static void settle_work(struct work_struct *work);

/* Refused only as -ENOMEM; a peer in this state ends with peer_put(). */
static struct shmk_peer *peer_alloc(struct shmk_pool *pool, const struct shmk_attach *args)
{
	struct shmk_peer *peer;

	peer = kzalloc(sizeof(*peer), GFP_KERNEL_ACCOUNT);
	if (!peer)
		return NULL;
	peer->opens = kvcalloc(pool->view.nr_queues, sizeof(*peer->opens), GFP_KERNEL_ACCOUNT);
	if (!peer->opens) {
		kfree(peer);
		return NULL;
	}
	shmk_reader_init(&peer->reader, pool);
	refcount_set(&peer->refs, 1);
	INIT_WORK(&peer->work, settle_work);
	peer->pool = pool;
	peer->nr_entries = args->nr_entries ?: DEFAULT_ENTRIES;
	peer->ledger_bytes = ledger_bytes(peer->nr_entries);
	peer->rdonly = args->flags & SHMK_ATTACH_F_RDONLY;
	peer->pid = get_pid(task_tgid(current));
	peer->uid = current_euid();
	get_task_comm(peer->comm, current->group_leader);
	return peer;
}

static int user_take(struct shmk_peer *peer)
{
	int err;

	peer->user = shmk_user_find(peer->uid);
	if (!peer->user)
		return -ENOMEM;
	err = shmk_user_charge(peer->user, SHMK_QUOTA_PEERS);
	peer->charged = !err;
	return err;
}

/* No lock of ours around this: it takes mmap_lock. */
static int mm_take(struct shmk_peer *peer)
{
	struct mmu_notifier *notifier = mmu_notifier_get(&notifier_ops, current->mm);

	if (IS_ERR(notifier))
		return PTR_ERR(notifier);
	peer->mm = container_of(notifier, struct shmk_mm, notifier);
	return 0;
}

/**
 * shmk_peer_create() - a peer that nobody can see yet, for the calling mm
 * @pool: the pool
 * @args: checked by the caller; peer and gen are filled
 *
 * Return: a reference for the attachment file, or -ENOMEM, -ENOSPC, -EPERM, -EINTR,
 * -ESHUTDOWN.
 */
struct shmk_peer *shmk_peer_create(struct shmk_pool *pool, struct shmk_attach *args)
{
	struct shmk_peer *peer = peer_alloc(pool, args);
	int err;

	if (!peer)
		return ERR_PTR(-ENOMEM);
	err = user_take(peer) ?: shmk_point(SHMK_AT_ATTACH_USER);
	if (!err)
		err = mm_take(peer) ?: shmk_point(SHMK_AT_ATTACH_MM);
	if (!err)
		err = id_take(peer) ?: shmk_point(SHMK_AT_ATTACH_ID);
	if (!err)
		err = ledger_take(peer) ?: shmk_point(SHMK_AT_ATTACH_LEDGER);
	if (err) {
		peer_put(peer);
		return ERR_PTR(err);
	}
	args->peer = peer->id;
	args->gen = peer->gen;
	return peer;
}

/* Of what has happened to it; the caller wakes the readers. */
void shmk_peer_tell(struct shmk_peer *peer, struct shmk_event *event)
{
	event->peer = peer->id;
	event->gen = peer->gen;
	memcpy(event->comm, peer->comm, sizeof(event->comm));
	shmk_event_push(peer->pool, event, peer->pid, peer->uid);
}

static u64 status_word(const struct shmk_peer *peer, u32 state)
{
	return SHMK_PEER_WORD(peer->gen, peer->rdonly ? SHMK_PEER_RDONLY : 0, state);
}

static void publish_locked(struct shmk_peer *peer)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_peer_status *ps = &pool->peer_status[peer->id];
	struct shmk_status *s = pool->status;
	struct shmk_event event = { .type = SHMK_EV_ATTACHED };

	WRITE_ONCE(peer->stage, SHMK_PEER_STAGE_ALIVE);
	peer->attached_ns = ktime_get_ns();
	pool->peers[peer->id] = peer;
	ps->nr_entries = peer->nr_entries;
	ps->attached_ns = peer->attached_ns;
	/* Readers in user space: ALIVE only when all else is there. */
	smp_store_release(&ps->word, status_word(peer, SHMK_PEER_ALIVE));
	shmk_pool_count_locked(pool, &s->peers_now, 1);
	shmk_pool_count_locked(pool, &s->attaches, 1);
	shmk_pool_count_locked(pool, &s->epoch, 1);
	shmk_peer_tell(peer, &event);
	trace_shmk_attach(peer);
}

/**
 * shmk_peer_publish() - the peer is there; cannot fail
 *
 * The calling task has the mm in use, so notifier_release() is not running yet.
 */
void shmk_peer_publish(struct shmk_peer *peer)
{
	refcount_inc(&peer->refs);
	spin_lock(&peer->mm->lock);
	list_add_tail(&peer->node, &peer->mm->peers);
	spin_lock(&peer->pool->lock);
	publish_locked(peer);
	spin_unlock(&peer->pool->lock);
	spin_unlock(&peer->mm->lock);
	shmk_pass(SHMK_AT_PEER_PUBLISHED);
	shmk_event_wake(peer->pool);
	shmk_sysfs_added(peer->pool, SHMK_SHOWN_PEERS, peer->id);
}

/* -------------------------------------------------------------- ending -- */

/* Are we the ender? */
static bool end_begin(struct shmk_peer *peer, u32 reason)
{
	bool begun;

	spin_lock(&peer->pool->lock);
	begun = shmk_peer_alive(peer);
	if (begun)
		WRITE_ONCE(peer->stage, SHMK_PEER_STAGE_ENDING);
	spin_unlock(&peer->pool->lock);
	if (begun) {
		peer->began_ns = ktime_get_ns();
		peer->reason = reason;
	}
	return begun;
}

/* From here on its stores are over, and everybody may know. */
static void mark_dead(struct shmk_peer *peer)
{
	/* Pairs with whoever acts on DEAD: all that the dead stored is before it. */
	smp_store_release(&peer->pool->peer_status[peer->id].word,
			  status_word(peer, SHMK_PEER_DEAD));
}

static void ledger_view_queue(const struct shmk_view *view, u32 id, struct shmk_ring_view *rv)
{
	shmk_queue_view(view->owner, id, rv);
}

static bool ledger_view_pinned(const struct shmk_view *view, u32 block, u64 bytes)
{
	const struct shmk_peer *peer = view->owner;

	return shmk_quarantine_pinned(peer->pool, block, bytes);
}

static void ledger_view_keep(const struct shmk_view *view, u32 block)
{
	const struct shmk_peer *peer = view->owner;

	shmk_quarantine_keep(peer->pool, block);
}

static void ring_for(struct shmk_peer *peer, int bell)
{
	struct shmk_ring_view rv;

	if (bell != SHMK_SETTLE_NO_BELL && shmk_queue_view(peer, bell, &rv))
		shmk_queue_ring_both(peer->pool, bell, &rv);
}

static void settle_one(struct shmk_peer *peer, const struct shmk_view *view, u64 cursor)
{
	struct shmk_entry *entries = peer->ledger->entry;

	if (cursor < peer->high)
		ring_for(peer, shmk_settle_entry(view, peer->id, &entries[cursor],
						 &peer->settled));
	else if (cursor < 2 * peer->high)
		ring_for(peer, shmk_settle_redo(view, peer->id, &entries[cursor - peer->high],
						&peer->settled));
	else
		shmk_settle_span(view, peer->id, &entries[cursor - 2 * peer->high]);
}

/*
 * Three passes over the ledger: all but two kinds; then, if there are any, the
 * messages that were held unacknowledged, of which by then those that were sent on
 * are marked; then the spans, which only then show which of their blocks are
 * free. The cursor counts through all. Returns whether all is done.
 */
static bool settle_some(struct shmk_peer *peer, u32 budget, unsigned long deadline)
{
	struct shmk_view view = peer->pool->view;

	view.queue = ledger_view_queue;
	view.owner = peer;
	if (shmk_quarantine_on(peer->pool)) {
		view.pinned = ledger_view_pinned;
		view.keep = ledger_view_keep;
	}
	while (peer->cursor < 3 * peer->high) {
		if (peer->cursor == peer->high && !peer->settled.held_back) {
			peer->cursor += peer->high;
			continue;
		}
		if (!budget-- || time_after(jiffies, deadline) ||
		    shmk_point(SHMK_AT_SETTLE_ENTRY))
			return false;
		settle_one(peer, &view, peer->cursor);
		peer->cursor++;
	}
	return true;
}

static bool is_clean(const struct shmk_peer *peer)
{
	return peer->reason == SHMK_REASON_DETACHED || peer->reason == SHMK_REASON_CLOSED;
}

static void count_end_locked(struct shmk_peer *peer)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_status *s = pool->status;

	shmk_pool_count_locked(pool, &s->peers_now, -1);
	shmk_pool_count_locked(pool, is_clean(peer) ? &s->detaches : &s->deaths, 1);
	shmk_pool_count_locked(pool, &pool->ends[peer->reason], 1);
	shmk_pool_count_locked(pool, &s->reclaimed_blocks, peer->settled.blocks);
	shmk_pool_count_locked(pool, &s->reclaimed_bytes, peer->settled.bytes);
	shmk_pool_count_locked(pool, &s->lost_messages, peer->settled.messages);
	shmk_pool_count_locked(pool, &s->redelivered, peer->settled.redelivered);
	shmk_pool_count_locked(pool, &s->epoch, 1);
}

/*
 * Clears what was settled and no more, so that an end costs what the dead
 * held, however large its ledger was. The rest is nobody's business until the
 * id is taken again.
 */
static void ledger_clear(struct shmk_peer *peer)
{
	shmk_region_zero(&peer->pool->ledgers[peer->id], ledger_bytes(peer->high));
}

/*
 * Of a peer that is settled. Returns whether all its queues are closed; if not, it is to be
 * called again.
 */
static bool end_close(struct shmk_peer *peer, const unsigned long *deadline)
{
	shmk_pass(SHMK_AT_END_SETTLED);
	ledger_clear(peer);
	shmk_pass(SHMK_AT_END_CLEARED);
	return shmk_queue_close_all(peer, deadline);
}

/*
 * The event comes last, so that who has read it finds all the rest done; under
 * the lock, so that no event of the id's next life overtakes it.
 */
static void end_finish(struct shmk_peer *peer)
{
	struct shmk_pool *pool = peer->pool;
	struct shmk_event event = {
		.type		= is_clean(peer) ? SHMK_EV_DETACHED : SHMK_EV_DIED,
		.reason		= peer->reason,
		.code		= peer->code,
		.took_ns	= peer->began_ns,
		.blocks		= peer->settled.blocks,
		.bytes		= peer->settled.bytes,
		.messages	= peer->settled.messages,
		.redelivered	= peer->settled.redelivered,
	};

	shmk_pass(SHMK_AT_END_CLOSED);
	uncharge(peer);

	spin_lock(&pool->lock);
	WRITE_ONCE(peer->stage, SHMK_PEER_STAGE_GONE);
	count_end_locked(peer);
	pool->peers[peer->id] = NULL;
	/* Who sees NONE sees all entries settled. */
	smp_store_release(&pool->peer_status[peer->id].word, status_word(peer, SHMK_PEER_NONE));
	id_free_locked(peer);
	shmk_peer_tell(peer, &event);
	shmk_sysfs_changed(pool, SHMK_SHOWN_PEERS, peer->id);
	spin_unlock(&pool->lock);
	trace_shmk_settled(peer, ktime_get_ns() - peer->began_ns);
	shmk_pass(SHMK_AT_END_TOLD);
	shmk_event_wake(pool);
}

static void settle_work(struct work_struct *work)
{
	struct shmk_peer *peer = container_of(work, struct shmk_peer, work);

	shmk_pass(SHMK_AT_WORK_BEGUN);
	while (!settle_some(peer, INLINE_ENTRIES, jiffies + INLINE_JIFFIES))
		cond_resched();
	end_close(peer, NULL);
	if (peer->settled.pinned)
		shmk_quarantine_wait(peer->pool);
	end_finish(peer);
	peer_put(peer);
}

/* A read-only member can hold nothing: what it claims is another's. */
static u32 entries_used(const struct shmk_peer *peer)
{
	return peer->rdonly ? 0 : min_t(u64, READ_ONCE(peer->ledger->high), peer->nr_entries);
}

/* Is all done but telling it? Else the rest is a worker's. */
static bool settle_now(struct shmk_peer *peer, unsigned long deadline)
{
	return !shmk_point(SHMK_AT_SETTLE_BEGUN) && !time_after(jiffies, deadline) &&
	       settle_some(peer, INLINE_ENTRIES, deadline) && !peer->settled.pinned &&
	       end_close(peer, &deadline) && !peer->settled.pinned;
}

/*
 * Settles a dead peer that has been taken off its mm; takes over a reference. Returns whether
 * all is done; else a worker has the rest.
 */
static bool settle(struct shmk_peer *peer, unsigned long deadline)
{
	trace_shmk_end(peer);
	peer->high = entries_used(peer);
	if (!is_clean(peer))
		shmk_capsule_take(peer);
	if (!settle_now(peer, deadline)) {
		queue_work(workqueue, &peer->work);
		return false;
	}
	end_finish(peer);
	peer_put(peer);
	return true;
}

/*
 * Who attached, how did it end? SIGNAL_GROUP_EXIT is set by the first of
 * exit_group(), a fatal signal, or the last thread's exit, in all cases before
 * the mm goes. Without it the thread group lives, and the mm is gone, so it
 * has another one by now: exec.
 */
static u32 find_reason(struct pid *pid, int *code)
{
	u32 reason = SHMK_REASON_UNKNOWN;
	struct task_struct *task;
	int status;

	*code = 0;
	rcu_read_lock();
	task = pid_task(pid, PIDTYPE_TGID);
	if (task && !(READ_ONCE(task->signal->flags) & SIGNAL_GROUP_EXIT)) {
		reason = SHMK_REASON_EXEC;
	} else if (task) {
		status = READ_ONCE(task->signal->group_exit_code);
		reason = status & 0x7f ? SHMK_REASON_KILLED : SHMK_REASON_EXITED;
		*code = status & 0x7f ? status & 0x7f : (status >> 8) & 0xff;
	}
	rcu_read_unlock();
	return reason;
}

/* All are marked before the first is settled: nobody shall wait for the dead. */
static void mark_all(struct shmk_mm *smm, struct list_head *dying)
{
	struct shmk_peer *peer, *next;

	spin_lock(&smm->lock);
	list_for_each_entry_safe(peer, next, &smm->peers, node) {
		/* Otherwise its ender takes it off. */
		if (!end_begin(peer, SHMK_REASON_UNKNOWN))
			continue;
		mark_dead(peer);
		list_move_tail(&peer->node, dying);
	}
	spin_unlock(&smm->lock);
}

/* The mm has no users any more; see the head of this file. Allocates nothing. */
static void notifier_release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	struct shmk_mm *smm = container_of(notifier, struct shmk_mm, notifier);
	unsigned long deadline = jiffies + INLINE_JIFFIES;
	struct shmk_peer *peer, *next;
	LIST_HEAD(dying);

	mark_all(smm, &dying);
	shmk_pass(SHMK_AT_RELEASE_MARKED);
	/* The list is ours: who lost end_begin() does not touch the node. */
	list_for_each_entry_safe(peer, next, &dying, node) {
		list_del(&peer->node);
		peer->reason = find_reason(peer->pid, &peer->code);
		settle(peer, deadline);
	}
}

static void mm_leave(struct shmk_peer *peer)
{
	spin_lock(&peer->mm->lock);
	list_del(&peer->node);
	spin_unlock(&peer->mm->lock);
}

/*
 * Of a process that lives on, and whose peer it was: when its call returns, what it held is
 * given back, its id can be had and its pool be destroyed. A fatal signal ends the wait; others
 * do not, as task work counts for one, and the settling's own events can make some. Behind GONE
 * the worker has a few instructions left, in which it lets go of the peer.
 */
static void wait_settled(struct shmk_peer *peer)
{
	wait_event_killable_timeout(peer->pool->events.wait,
				    READ_ONCE(peer->stage) == SHMK_PEER_STAGE_GONE,
				    DETACH_JIFFIES);
	if (READ_ONCE(peer->stage) == SHMK_PEER_STAGE_GONE)
		flush_work(&peer->work);
}

/**
 * shmk_peer_detach() - end the calling mm's peer
 * @mapping: of the attachment
 *
 * The mm lives on, and its other threads may be storing. ENDING makes new
 * faults fail. A fault that looked before that holds mmap_lock until its page
 * table entry is there (our vm_ops have no map_pages, so the core never calls
 * ->fault under a mere VMA lock), so taking mmap_lock once for writing waits
 * for all of them; then all entries go, and with them the last chance to store.
 *
 * What takes long, and what the quarantine has to look at, is finished by a worker, for which
 * it waits a second at most; the event tells when.
 *
 * Return: 0, or -ENXIO if it has ended already.
 */
int shmk_peer_detach(struct shmk_peer *peer, struct address_space *mapping)
{
	struct mm_struct *mm = peer->mm->notifier.mm;

	if (!end_begin(peer, SHMK_REASON_DETACHED))
		return -ENXIO;
	shmk_pass(SHMK_AT_DETACH_BEGUN);
	mm_leave(peer);
	shmk_pass(SHMK_AT_DETACH_LEFT);
	mmap_write_lock(mm);
	mmap_write_unlock(mm);
	unmap_mapping_range(mapping, 0, 0, 1);
	shmk_pass(SHMK_AT_DETACH_UNMAPPED);
	mark_dead(peer);
	shmk_pass(SHMK_AT_DETACH_MARKED);
	if (!settle(peer, jiffies + INLINE_JIFFIES))
		wait_settled(peer);
	return 0;
}

static bool is_own(const struct shmk_peer *peer)
{
	return peer->mm->notifier.mm == current->mm &&
	       !(current->flags & (PF_EXITING | PF_KTHREAD | PF_IO_WORKER));
}

/**
 * shmk_peer_close() - the attachment file is gone
 *
 * May be a file that was never handed out, whose peer is still NEW.
 * It waits as shmk_peer_detach() does, but not where others were left to close it, who may
 * have been sent many of them, nor a process that ends, nor a thread of io_uring's.
 */
void shmk_peer_close(struct shmk_peer *peer)
{
	if (end_begin(peer, SHMK_REASON_CLOSED)) {
		shmk_pass(SHMK_AT_CLOSE_BEGUN);
		mm_leave(peer);
		mark_dead(peer);
		if (!settle(peer, jiffies + INLINE_JIFFIES) && is_own(peer))
			wait_settled(peer);
	}
	peer_put(peer);
}

/* ------------------------------------------------------------- telling -- */

static void info_locked(struct shmk_peer *peer, struct shmk_peer_info *info)
{
	info->size = sizeof(*info);
	info->peer = peer->id;
	info->gen = peer->gen;
	info->state = SHMK_PEER_STATE(peer->pool->peer_status[peer->id].word);
	info->flags = (peer->rdonly ? SHMK_PEER_RDONLY : 0) | (peer->stuck ? SHMK_PEER_STUCK : 0);
	info->nr_entries = peer->nr_entries;
	info->attached_ns = peer->attached_ns;
	info->pid = pid_nr_ns(peer->pid, task_active_pid_ns(current));
	info->uid = from_kuid_munged(current_user_ns(), peer->uid);
	memcpy(info->comm, peer->comm, sizeof(info->comm));
}

/**
 * shmk_peer_info() - the first peer in use from an id on
 * @info: peer is in and out
 *
 * Return: 0 or -ENOENT.
 */
int shmk_peer_info(struct shmk_pool *pool, struct shmk_peer_info *info)
{
	u32 end = pool->status->nr_peers + 1;
	u32 id;

	spin_lock(&pool->lock);
	for (id = info->peer; id < end; id++) {
		id = array_index_nospec(id, end);
		if (!pool->peers[id])
			continue;
		info_locked(pool->peers[id], info);
		break;
	}
	spin_unlock(&pool->lock);
	return id < end ? 0 : -ENOENT;
}

/* An entry that names a block which its peer holds. */
static bool entry_holds(const struct shmk_pool *pool, u64 what)
{
	u32 op = SHMK_WHAT_OP(what), block = SHMK_WHAT_BLOCK(what);

	if (op != SHMK_OP_HELD && op != SHMK_OP_GOT && op != SHMK_OP_REDO)
		return false;
	return block < pool->status->nr_blocks &&
	       shmk_block_held_as(READ_ONCE(pool->view.blocks[block].word), SHMK_WHAT_GEN(what));
}

static void count_held_locked(const struct shmk_peer *peer, u32 first, u32 end,
			      struct shmk_settled *held)
{
	u64 what;
	u32 i;

	for (i = first; i < end; i++) {
		what = READ_ONCE(peer->ledger->entry[i].what);
		if (!entry_holds(peer->pool, what))
			continue;
		held->blocks++;
		held->bytes += shmk_block_room(&peer->pool->view, SHMK_WHAT_BLOCK(what));
	}
}

/**
 * shmk_peer_held() - count the blocks that a peer holds, as its ledger says
 * @id: in its range
 * @held: zeroed; added to
 *
 * In pieces, between which the peer may end.
 *
 * Return: 0, -ENODEV when there is no such peer, -EINTR when the caller is being killed.
 */
int shmk_peer_held(struct shmk_pool *pool, u32 id, u32 gen, struct shmk_settled *held)
{
	const u32 step = 256;
	struct shmk_peer *peer;
	u32 first, end = 1;

	for (first = 0; first < end; first += step) {
		spin_lock(&pool->lock);
		peer = pool->peers[id];
		if (!peer || peer->gen != gen) {
			spin_unlock(&pool->lock);
			return -ENODEV;
		}
		end = entries_used(peer);
		count_held_locked(peer, first, min(first + step, end), held);
		spin_unlock(&pool->lock);
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

int shmk_peers_init(void)
{
	workqueue = alloc_workqueue("shmk", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return workqueue ? 0 : -ENOMEM;
}

/*
 * No file and no persistent pool is left. What may still run of us: an
 * notifier_release() whose peers' files were closed meanwhile, the works it queued,
 * and the callbacks that free struct shmk_mm, from both.
 */
void shmk_peers_exit(void)
{
	mmu_notifier_synchronize();
	destroy_workqueue(workqueue);
	mmu_notifier_synchronize();
}
