// SPDX-License-Identifier: GPL-2.0-only
/*
 * sysfs.c - /sys/kernel/shmk, one value per file.
 *
 * Described in Documentation/ABI/testing/sysfs-kernel-shmk. sysfs knows no
 * namespaces: everybody who sees it sees the names and counters of all pools. What is
 * in a pool, its peers and queues, is readable by whom the pool's mode lets read.
 *
 * A pool's kobject is part of the pool and its release frees the pool.
 * kobject_del() waits for readers, so a show function always finds the pages; and
 * so no lock is held around it that a show function takes.
 *
 * Peers and queues come and go, and one that dies can neither allocate nor wait.
 * So whoever changes what there is sets a bit and, unless it may do so itself, leaves
 * it to a work to make a directory or remove it: it compares what is shown with what is there. A
 * new owner of an id has another generation, and gets another directory. What there
 * is no memory for is not shown until something else changes.
 */
#include <linux/bitmap.h>
#include <linux/cred.h>
#include <linux/kobject.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/sysfs.h>
#include <linux/user_namespace.h>

#include "compat.h"
#include "peer.h"
#include "pool.h"
#include "queue.h"

static struct kset *shmk_kset;		/* uevents want one: its name is their subsystem */
static struct kobject *pools_kobj;

/* --------------------------------------------------------------- pool -- */

static struct shmk_pool *pool_of(struct kobject *kobj)
{
	return container_of(kobj, struct shmk_pool, sysfs.kobj);
}

#define POOL_ATTR(name, format, value)						\
static ssize_t name##_show(struct kobject *kobj, struct kobj_attribute *attr,	\
			   char *buf)						\
{										\
	struct shmk_pool *pool = pool_of(kobj);					\
										\
	return sysfs_emit(buf, format "\n", value);				\
}										\
static struct kobj_attribute name##_attr = __ATTR_RO(name)

POOL_ATTR(size, "%llu", pool->status->data_bytes);
POOL_ATTR(memory, "%llu", pool->memory_bytes);
POOL_ATTR(page_size, "%lu", 1UL << pool->page_shift);
POOL_ATTR(node, "%d", pool->node);
POOL_ATTR(mode, "0%o", pool->mode);
POOL_ATTR(uid, "%u", from_kuid_munged(current_user_ns(), pool->uid));
POOL_ATTR(gid, "%u", from_kgid_munged(current_user_ns(), pool->gid));
POOL_ATTR(peers_now, "%llu", READ_ONCE(pool->status->peers_now));
POOL_ATTR(queues_now, "%llu", READ_ONCE(pool->status->queues_now));
POOL_ATTR(attaches, "%llu", READ_ONCE(pool->status->attaches));
POOL_ATTR(detaches, "%llu", READ_ONCE(pool->status->detaches));
POOL_ATTR(deaths, "%llu", READ_ONCE(pool->status->deaths));
POOL_ATTR(reclaimed_blocks, "%llu", READ_ONCE(pool->status->reclaimed_blocks));
POOL_ATTR(reclaimed_bytes, "%llu", READ_ONCE(pool->status->reclaimed_bytes));
POOL_ATTR(lost_messages, "%llu", READ_ONCE(pool->status->lost_messages));
POOL_ATTR(redelivered, "%llu", READ_ONCE(pool->status->redelivered));
POOL_ATTR(quarantined, "%llu", READ_ONCE(pool->status->quarantined));

static ssize_t blocks_used_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_settled usage = { };
	int err = shmk_pool_usage(pool_of(kobj), &usage);

	return err ?: sysfs_emit(buf, "%llu\n", usage.blocks);
}

static struct kobj_attribute blocks_used_attr = __ATTR_RO(blocks_used);

static ssize_t bytes_used_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_settled usage = { };
	int err = shmk_pool_usage(pool_of(kobj), &usage);

	return err ?: sysfs_emit(buf, "%llu\n", usage.bytes);
}

static struct kobj_attribute bytes_used_attr = __ATTR_RO(bytes_used);

/* The longest row of spans that are nobody's. */
static ssize_t largest_free_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	const struct shmk_view *view = &pool_of(kobj)->view;
	u32 i, row = 0, most = 0;
	u64 word;

	for (i = 0; i < view->nr_spans; i++) {
		word = READ_ONCE(view->spans[i].word);
		row = SHMK_SPAN_KIND(word) == SHMK_SPAN_FREE ? row + 1 : 0;
		most = max(most, row);
		if (i % 4096)
			continue;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return sysfs_emit(buf, "%llu\n",
			  (u64)most << (view->unit_shift + SHMK_SPAN_UNITS_SHIFT));
}

static struct kobj_attribute largest_free_attr = __ATTR_RO(largest_free);

/* Counters of queues that are gone stand in their places still. */
static ssize_t wakes_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_pool *pool = pool_of(kobj);
	u64 wakes = READ_ONCE(pool->wakes_before);
	u32 id;

	for (id = 0; id < pool->view.nr_queues; id++)
		wakes += atomic64_read(&pool->queues[id].nr_wakes);
	return sysfs_emit(buf, "%llu\n", wakes);
}

static struct kobj_attribute wakes_attr = __ATTR_RO(wakes);

static struct attribute *pool_attrs[] = {
	&size_attr.attr,
	&memory_attr.attr,
	&page_size_attr.attr,
	&node_attr.attr,
	&mode_attr.attr,
	&uid_attr.attr,
	&gid_attr.attr,
	&peers_now_attr.attr,
	&queues_now_attr.attr,
	&blocks_used_attr.attr,
	&bytes_used_attr.attr,
	&largest_free_attr.attr,
	&wakes_attr.attr,
	&attaches_attr.attr,
	&detaches_attr.attr,
	&deaths_attr.attr,
	&reclaimed_blocks_attr.attr,
	&reclaimed_bytes_attr.attr,
	&lost_messages_attr.attr,
	&redelivered_attr.attr,
	&quarantined_attr.attr,
	NULL
};

#define END_ATTR(name, reason)							\
	POOL_ATTR(name, "%llu", READ_ONCE(pool->ends[reason]))

END_ATTR(detached, SHMK_REASON_DETACHED);
END_ATTR(closed, SHMK_REASON_CLOSED);
END_ATTR(exited, SHMK_REASON_EXITED);
END_ATTR(killed, SHMK_REASON_KILLED);
END_ATTR(exec, SHMK_REASON_EXEC);
END_ATTR(unknown, SHMK_REASON_UNKNOWN);

static struct attribute *end_attrs[] = {
	&detached_attr.attr,
	&closed_attr.attr,
	&exited_attr.attr,
	&killed_attr.attr,
	&exec_attr.attr,
	&unknown_attr.attr,
	NULL
};

static const struct attribute_group pool_group = { .attrs = pool_attrs };
static const struct attribute_group ends_group = { .name = "ends", .attrs = end_attrs };

static const struct attribute_group *pool_groups[] = { &pool_group, &ends_group, NULL };

static void pool_release(struct kobject *kobj)
{
	kfree(pool_of(kobj));
}

static const struct kobj_type pool_ktype = {
	.sysfs_ops	= &kobj_sysfs_ops,
	.release	= pool_release,
	.default_groups	= pool_groups,
};

/* ------------------------------------------------------- what is in it -- */

/**
 * struct shmk_shown_one - the directory of a peer or a queue
 * @pool: outlives it
 * @gen: of this life of @id
 */
struct shmk_shown_one {
	struct kobject kobj;
	struct shmk_pool *pool;
	u32 id;
	u32 gen;
};

static struct shmk_shown_one *one_of(const struct kobject *kobj)
{
	return container_of(kobj, struct shmk_shown_one, kobj);
}

static void one_release(struct kobject *kobj)
{
	kfree(one_of(kobj));
}

/* Whom the mode lets read. If that is nobody, then just root. */
static void one_ownership(SHMK_CONST_KOBJECT *kobj, kuid_t *uid, kgid_t *gid)
{
	const struct shmk_pool *pool = one_of(kobj)->pool;

	if (!(pool->mode & 0444))
		return;
	*uid = pool->uid;
	*gid = pool->gid;
}

static umode_t one_mode(const struct shmk_shown_one *one)
{
	return one->pool->mode & 0444 ?: 0400;
}

static umode_t peer_visible(struct kobject *kobj, struct attribute *attr, int index)
{
	return one_mode(one_of(kobj));
}

static int peer_look(struct kobject *kobj, struct shmk_peer_info *info)
{
	struct shmk_shown_one *one = one_of(kobj);

	*info = (struct shmk_peer_info){ .peer = one->id };
	if (shmk_peer_info(one->pool, info) || info->peer != one->id || info->gen != one->gen)
		return -ENODEV;
	return 0;
}

#define PEER_ATTR(name, format, value)						\
static ssize_t peer_##name##_show(struct kobject *kobj, struct kobj_attribute *attr,	\
				  char *buf)					\
{										\
	struct shmk_peer_info info;						\
	int err = peer_look(kobj, &info);					\
										\
	return err ?: sysfs_emit(buf, format "\n", value);			\
}										\
static struct kobj_attribute peer_##name##_attr =				\
	__ATTR(name, 0444, peer_##name##_show, NULL)

PEER_ATTR(generation, "%u", info.gen);
PEER_ATTR(pid, "%d", info.pid);
PEER_ATTR(uid, "%u", info.uid);
PEER_ATTR(comm, "%s", info.comm);
PEER_ATTR(state, "%s", info.state == SHMK_PEER_ALIVE ? "alive" : "settling");
PEER_ATTR(read_only, "%d", !!(info.flags & SHMK_PEER_RDONLY));
PEER_ATTR(entries, "%u", info.nr_entries);
PEER_ATTR(attached_ns, "%llu", info.attached_ns);
PEER_ATTR(stuck, "%d", !!(info.flags & SHMK_PEER_STUCK));

static ssize_t deadline_ms_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	const struct shmk_shown_one *one = one_of(kobj);
	int ms = shmk_deadline_get(one->pool, one->id, one->gen);

	return ms < 0 ? ms : sysfs_emit(buf, "%d\n", ms);
}

static struct kobj_attribute deadline_ms_attr = __ATTR_RO(deadline_ms);

static int peer_held(struct kobject *kobj, struct shmk_settled *held)
{
	const struct shmk_shown_one *one = one_of(kobj);

	return shmk_peer_held(one->pool, one->id, one->gen, held);
}

static ssize_t blocks_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_settled held = { };
	int err = peer_held(kobj, &held);

	return err ?: sysfs_emit(buf, "%llu\n", held.blocks);
}

static struct kobj_attribute blocks_attr = __ATTR_RO(blocks);

static ssize_t bytes_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	struct shmk_settled held = { };
	int err = peer_held(kobj, &held);

	return err ?: sysfs_emit(buf, "%llu\n", held.bytes);
}

static struct kobj_attribute bytes_attr = __ATTR_RO(bytes);

static struct attribute *peer_attrs[] = {
	&peer_generation_attr.attr,
	&peer_pid_attr.attr,
	&peer_uid_attr.attr,
	&peer_comm_attr.attr,
	&peer_state_attr.attr,
	&peer_read_only_attr.attr,
	&peer_entries_attr.attr,
	&peer_attached_ns_attr.attr,
	&peer_stuck_attr.attr,
	&deadline_ms_attr.attr,
	&blocks_attr.attr,
	&bytes_attr.attr,
	NULL
};

static const struct attribute_group peer_group = {
	.attrs		= peer_attrs,
	.is_visible	= peer_visible,
};

static const struct attribute_group *peer_groups[] = { &peer_group, NULL };

static const struct kobj_type peer_ktype = {
	.sysfs_ops	= &kobj_sysfs_ops,
	.release	= one_release,
	.default_groups	= peer_groups,
	.get_ownership	= one_ownership,
};

static int queue_look(struct kobject *kobj, struct shmk_queue_look *look)
{
	struct shmk_shown_one *one = one_of(kobj);

	if (shmk_queue_look(one->pool, one->id, NULL, look) || look->id != one->id ||
	    look->gen != one->gen)
		return -ENODEV;
	return 0;
}

#define QUEUE_ATTR(name, format, value)						\
static ssize_t queue_##name##_show(struct kobject *kobj, struct kobj_attribute *attr,	\
				   char *buf)					\
{										\
	struct shmk_queue_look look;						\
	int err = queue_look(kobj, &look);					\
										\
	return err ?: sysfs_emit(buf, format "\n", value);			\
}										\
static struct kobj_attribute queue_##name##_attr =				\
	__ATTR(name, 0444, queue_##name##_show, NULL)

QUEUE_ATTR(generation, "%u", look.gen);
QUEUE_ATTR(name, "%s", look.name);
QUEUE_ATTR(kind, "%s", look.flags & SHMK_QUEUE_F_TOPIC ? "topic" : "queue");
QUEUE_ATTR(flags, "0x%x", look.flags);
QUEUE_ATTR(capacity, "%u", look.capacity);
QUEUE_ATTR(slot_bytes, "%u", look.slot_bytes);
QUEUE_ATTR(open, "%u", look.nr_open);
QUEUE_ATTR(sent, "%llu", look.sent);
QUEUE_ATTR(wakes, "%llu", look.bells);
QUEUE_ATTR(waiting_recv, "%u", look.waiters >> SHMK_SIDE_RECV & 1);
QUEUE_ATTR(waiting_send, "%u", look.waiters >> SHMK_SIDE_SEND & 1);
/* Of what is no topic */
QUEUE_ATTR(depth, "%u", look.depth);
QUEUE_ATTR(received, "%llu", look.received);
QUEUE_ATTR(redelivered, "%llu", look.redelivered);
/* Of topics */
QUEUE_ATTR(history, "%u", look.history);
QUEUE_ATTR(msg_bytes, "%u", look.msg_bytes);
QUEUE_ATTR(readers_max, "%u", look.nr_readers);
QUEUE_ATTR(readers, "%u", look.readers_now);
QUEUE_ATTR(writer, "%u", look.writer);
QUEUE_ATTR(candidates, "%u", look.candidates);

static struct attribute *ring_attrs[] = {
	&queue_generation_attr.attr,
	&queue_name_attr.attr,
	&queue_kind_attr.attr,
	&queue_flags_attr.attr,
	&queue_capacity_attr.attr,
	&queue_slot_bytes_attr.attr,
	&queue_open_attr.attr,
	&queue_sent_attr.attr,
	&queue_wakes_attr.attr,
	&queue_waiting_recv_attr.attr,
	&queue_waiting_send_attr.attr,
	NULL
};

static struct attribute *queue_attrs[] = {
	&queue_depth_attr.attr,
	&queue_received_attr.attr,
	&queue_redelivered_attr.attr,
	NULL
};

static struct attribute *topic_attrs[] = {
	&queue_history_attr.attr,
	&queue_msg_bytes_attr.attr,
	&queue_readers_max_attr.attr,
	&queue_readers_attr.attr,
	&queue_writer_attr.attr,
	&queue_candidates_attr.attr,
	NULL
};

static umode_t ring_visible(struct kobject *kobj, struct attribute *attr, int index)
{
	return one_mode(one_of(kobj));
}

static bool is_topic(struct kobject *kobj)
{
	struct shmk_queue_look look;

	return !queue_look(kobj, &look) && look.flags & SHMK_QUEUE_F_TOPIC;
}

static umode_t queue_visible(struct kobject *kobj, struct attribute *attr, int index)
{
	return is_topic(kobj) ? 0 : one_mode(one_of(kobj));
}

static umode_t topic_visible(struct kobject *kobj, struct attribute *attr, int index)
{
	return is_topic(kobj) ? one_mode(one_of(kobj)) : 0;
}

static const struct attribute_group ring_group = {
	.attrs		= ring_attrs,
	.is_visible	= ring_visible,
};

static const struct attribute_group queue_group = {
	.attrs		= queue_attrs,
	.is_visible	= queue_visible,
};

static const struct attribute_group topic_group = {
	.attrs		= topic_attrs,
	.is_visible	= topic_visible,
};

static const struct attribute_group *queue_groups[] = {
	&ring_group, &queue_group, &topic_group, NULL
};

static const struct kobj_type queue_ktype = {
	.sysfs_ops	= &kobj_sysfs_ops,
	.release	= one_release,
	.default_groups	= queue_groups,
	.get_ownership	= one_ownership,
};

static const struct kobj_type *const ktypes[] = {
	[SHMK_SHOWN_PEERS]	= &peer_ktype,
	[SHMK_SHOWN_QUEUES]	= &queue_ktype,
};

static const char *const dir_names[] = {
	[SHMK_SHOWN_PEERS]	= "peers",
	[SHMK_SHOWN_QUEUES]	= "queues",
};

/* ------------------------------------------------------ coming, going -- */

static bool is_there(struct shmk_pool *pool, enum shmk_shown shown, u32 id, u32 *gen)
{
	bool there;

	spin_lock(&pool->lock);
	if (shown == SHMK_SHOWN_PEERS) {
		there = pool->peers[id];
		/* That it is dead is written there without the lock. */
		*gen = SHMK_PEER_GEN(READ_ONCE(pool->peer_status[id].word));
	} else {
		there = pool->queues[id].stage == SHMK_QUEUE_STAGE_READY;
		*gen = SHMK_QUEUE_GEN(pool->queue_status[id].word);
	}
	spin_unlock(&pool->lock);
	return there;
}

static void hide_one(struct shmk_shown_table *table, u32 id)
{
	struct shmk_shown_one *one = table->ones[id];

	if (!one)
		return;
	table->ones[id] = NULL;
	kobject_del(&one->kobj);
	kobject_put(&one->kobj);
}

/* Whatever goes wrong: it is tried again with whatever changes next. */
static void show_one(struct shmk_pool *pool, enum shmk_shown shown, u32 id, u32 gen)
{
	struct shmk_shown_table *table = &pool->sysfs.tables[shown];
	struct shmk_shown_one *one = kzalloc(sizeof(*one), GFP_KERNEL_ACCOUNT);

	if (!one)
		goto later;
	one->pool = pool;
	one->id = id;
	one->gen = gen;
	if (kobject_init_and_add(&one->kobj, ktypes[shown], table->dir, "%u", id)) {
		kobject_put(&one->kobj);
		goto later;
	}
	table->ones[id] = one;
	return;

later:
	set_bit(id, table->stale);
}

static void refresh_locked(struct shmk_pool *pool, enum shmk_shown shown, u32 id)
{
	struct shmk_shown_table *table = &pool->sysfs.tables[shown];
	u32 gen;
	bool there;

	clear_bit(id, table->stale);
	smp_mb__after_atomic();		/* what comes after the look finds the bit clear */
	there = is_there(pool, shown, id, &gen);
	if (table->ones[id] && there && table->ones[id]->gen == gen)
		return;
	hide_one(table, id);
	if (there)
		show_one(pool, shown, id, gen);
}

static u32 next_stale(const struct shmk_shown_table *table, u32 from)
{
	/* Bits are set at any moment; who sets one that is missed looks again, or has it done. */
	return data_race(find_next_bit(table->stale, table->end, from));
}

static void refresh_table_locked(struct shmk_pool *pool, enum shmk_shown shown)
{
	struct shmk_shown_table *table = &pool->sysfs.tables[shown];
	u32 id;

	lockdep_assert_held(&pool->sysfs.lock);
	for (id = next_stale(table, 0); id < table->end; id = next_stale(table, id + 1)) {
		refresh_locked(pool, shown, id);
		cond_resched();
	}
}

/* Of a pool that is not shown the bits stay as they are. */
static void refresh(struct shmk_pool *pool)
{
	mutex_lock(&pool->sysfs.lock);
	if (pool->sysfs.tables[0].dir) {
		refresh_table_locked(pool, SHMK_SHOWN_PEERS);
		refresh_table_locked(pool, SHMK_SHOWN_QUEUES);
	}
	mutex_unlock(&pool->sysfs.lock);
}

static void refresh_work(struct work_struct *work)
{
	refresh(container_of(work, struct shmk_pool, sysfs.work));
}

/**
 * shmk_sysfs_changed() - something has come or gone
 * @id: in its range
 *
 * Takes no lock and allocates nothing. The caller has a reference to the pool.
 */
void shmk_sysfs_changed(struct shmk_pool *pool, enum shmk_shown shown, u32 id)
{
	set_bit(id, pool->sysfs.tables[shown].stale);
	schedule_work(&pool->sysfs.work);
}

/**
 * shmk_sysfs_added() - something has come, and is shown on return; may sleep
 * @id: in its range
 */
void shmk_sysfs_added(struct shmk_pool *pool, enum shmk_shown shown, u32 id)
{
	set_bit(id, pool->sysfs.tables[shown].stale);
	refresh(pool);
}

/* From here on the pool is freed by kobject_put(). */
void shmk_sysfs_prepare(struct shmk_pool *pool)
{
	mutex_init(&pool->sysfs.lock);
	INIT_WORK(&pool->sysfs.work, refresh_work);
	kobject_init(&pool->sysfs.kobj, &pool_ktype);
}

static int table_alloc(struct shmk_shown_table *table, u32 end)
{
	table->end = end;
	table->stale = bitmap_zalloc(end, GFP_KERNEL_ACCOUNT);
	table->ones = kvcalloc(end, sizeof(*table->ones), GFP_KERNEL_ACCOUNT);
	return table->stale && table->ones ? 0 : -ENOMEM;
}

int shmk_sysfs_tables(struct shmk_pool *pool, const struct shmk_status *s)
{
	return table_alloc(&pool->sysfs.tables[SHMK_SHOWN_PEERS], s->nr_peers + 1) ?:
	       table_alloc(&pool->sysfs.tables[SHMK_SHOWN_QUEUES], s->nr_queues);
}

/* The pool's last reference is gone: nothing comes or goes any more. */
void shmk_sysfs_free(struct shmk_pool *pool)
{
	u32 i;

	cancel_work_sync(&pool->sysfs.work);
	for (i = 0; i < SHMK_NR_SHOWN; i++) {
		bitmap_free(pool->sysfs.tables[i].stale);
		kvfree(pool->sysfs.tables[i].ones);
	}
}

static void hide_all_locked(struct shmk_pool *pool)
{
	struct shmk_shown_table *table;
	u32 i, id;

	for (i = 0; i < SHMK_NR_SHOWN; i++) {
		table = &pool->sysfs.tables[i];
		for (id = 0; table->dir && id < table->end; id++)
			hide_one(table, id);
		kobject_put(table->dir);
		table->dir = NULL;
	}
}

static int show_all_locked(struct shmk_pool *pool)
{
	struct shmk_shown_table *table;
	u32 i;

	for (i = 0; i < SHMK_NR_SHOWN; i++) {
		table = &pool->sysfs.tables[i];
		table->dir = kobject_create_and_add(dir_names[i], &pool->sysfs.kobj);
		if (!table->dir)
			return -ENOMEM;
		bitmap_fill(table->stale, table->end);
	}
	for (i = 0; i < SHMK_NR_SHOWN; i++)
		refresh_table_locked(pool, i);
	return 0;
}

/* A colon cannot be in a name, so no name is taken by an anonymous pool. */
static int add_locked(struct shmk_pool *pool)
{
	if (pool->name[0])
		return kobject_add(&pool->sysfs.kobj, pools_kobj, "%s", pool->name);
	return kobject_add(&pool->sysfs.kobj, pools_kobj, "anon:%llu", pool->id);
}

static void del_locked(struct shmk_pool *pool)
{
	shmk_debugfs_del(pool);
	hide_all_locked(pool);
	if (pool->sysfs.kobj.state_in_sysfs)
		kobject_del(&pool->sysfs.kobj);
}

int shmk_sysfs_add(struct shmk_pool *pool)
{
	int err;

	mutex_lock(&pool->sysfs.lock);
	err = add_locked(pool) ?: show_all_locked(pool);
	if (err)
		del_locked(pool);
	else
		shmk_debugfs_add(pool);
	mutex_unlock(&pool->sysfs.lock);
	return err;
}

void shmk_sysfs_del(struct shmk_pool *pool)
{
	mutex_lock(&pool->sysfs.lock);
	del_locked(pool);
	mutex_unlock(&pool->sysfs.lock);
}

static ssize_t version_show(struct kobject *kobj, struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n", SHMK_ABI_VERSION);
}

static struct kobj_attribute version_attr = __ATTR_RO(version);

/* ------------------------------------------------------------- uevents -- */

#define UEVENT_VARS	8
#define UEVENT_LEN	(SHMK_NAME_LEN + 16)

struct uevent {
	char text[UEVENT_VARS][UEVENT_LEN];
	char *vars[UEVENT_VARS + 1];
	unsigned int nr;
};

static __printf(2, 3) void uevent_add(struct uevent *u, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(u->text[u->nr], UEVENT_LEN, format, args);
	va_end(args);
	u->vars[u->nr] = u->text[u->nr];
	u->nr++;
}

static const char *uevent_name(u32 type)
{
	switch (type) {
	case SHMK_EV_CREATED:
		return "created";
	case SHMK_EV_DESTROYED:
		return "destroyed";
	case SHMK_EV_RESET:
		return "reset";
	case SHMK_EV_DIED:
		return "died";
	default:
		return NULL;
	}
}

static const char *reason_name(u32 reason)
{
	static const char *const names[SHMK_NR_REASONS] = {
		[SHMK_REASON_EXITED]	= "exited",
		[SHMK_REASON_KILLED]	= "killed",
		[SHMK_REASON_EXEC]	= "exec",
	};

	return reason < SHMK_NR_REASONS && names[reason] ? names[reason] : "unknown";
}

/**
 * shmk_sysfs_uevent() - tell udev and its like, if it is a matter for them; may sleep
 * @event: of a pool that may be gone
 * @id: of the pool
 * @name: of the pool, empty if it has none
 *
 * Of all pools by the directory that is always there. Nothing depends on it, and nothing
 * is in it that sysfs does not show to everybody: no pid, no user.
 */
void shmk_sysfs_uevent(const struct shmk_event *event, u64 id, const char *name)
{
	const char *what = uevent_name(event->type);
	struct uevent u = { .nr = 0 };

	if (!what)
		return;
	uevent_add(&u, "SHMK_EVENT=%s", what);
	uevent_add(&u, "POOL_ID=%llu", id);
	if (name[0])
		uevent_add(&u, "POOL=%s", name);
	if (event->type == SHMK_EV_DIED) {
		uevent_add(&u, "PEER=%u", event->peer);
		uevent_add(&u, "GENERATION=%u", event->gen);
		uevent_add(&u, "REASON=%s", reason_name(event->reason));
		uevent_add(&u, "CODE=%d", event->code);
	}
	kobject_uevent_env(pools_kobj, KOBJ_CHANGE, u.vars);
}

/* ------------------------------------------------------------- module -- */

static void dir_release(struct kobject *kobj)
{
	kfree(kobj);
}

static const struct kobj_type dir_ktype = {
	.sysfs_ops	= &kobj_sysfs_ops,
	.release	= dir_release,
};

static int pools_add(void)
{
	pools_kobj = kzalloc(sizeof(*pools_kobj), GFP_KERNEL);
	if (!pools_kobj)
		return -ENOMEM;
	pools_kobj->kset = shmk_kset;
	return kobject_init_and_add(pools_kobj, &dir_ktype, NULL, "pools");
}

int shmk_sysfs_init(void)
{
	int err;

	shmk_kset = kset_create_and_add("shmk", NULL, kernel_kobj);
	if (!shmk_kset)
		return -ENOMEM;
	err = pools_add();
	if (!err)
		err = sysfs_create_file(&shmk_kset->kobj, &version_attr.attr);
	if (err)
		shmk_sysfs_exit();
	return err;
}

void shmk_sysfs_exit(void)
{
	kobject_put(pools_kobj);
	kset_unregister(shmk_kset);
}
