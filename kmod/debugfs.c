// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs.c - /sys/kernel/debug/shmk/POOL, for who looks for a bug: words, decoded.
 *
 *   ledgers   each entry in use of each peer
 *   slots     each slot in use of each queue and topic
 *   capsules  the ledgers of the last who died
 *
 * No interface: what is printed, and how, may change with any version. Root only.
 *
 * A piece is looked at under pool->lock, a few hundred words, and copied; then it is printed.
 * The words are what members wrote, true or not, and all arithmetic on them is bounded by
 * the kernel's own. debugfs lets a file's operations run only until its removal, which
 * waits for those that run: so the pool is there whenever we are called, and so a
 * search ends when the pool is about to go.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>

#include "capsule.h"
#include "peer.h"
#include "pool.h"
#include "queue.h"
#include "sysfs.h"

#define CHUNK		256	/* words that are looked at without letting go of the lock */
#define ENTRY_BITS	20	/* of a place in ledgers: { peer, entry } */
#define SLOT_BITS	16	/* of a place in slots: { queue, slot } */

static struct dentry *root;

/**
 * struct look - the private data of an open file
 * @id: of a peer or queue
 * @gen: of its life
 * @index: of an entry or slot
 * @word: the two words that were found there
 */
struct look {
	struct shmk_pool *pool;
	u32 id;
	u32 gen;
	u32 index;
	u64 word[2];
	char name[SHMK_NAME_LEN];
	struct shmk_capsule capsule;
};

/*
 * Looks for the next from @index on, at no more than CHUNK. 1: found, 0: not yet, -1: there is no
 * more.
 */
typedef int (*find_fn)(struct look *l);

static const char *name_in(const char *const *names, u32 nr, u32 i)
{
	return i < nr && names[i] ? names[i] : "nonsense";
}

/* ------------------------------------------------------------ looking -- */

/* From a place on, to what is found: *pos is its place. NULL: nothing, or an error. */
static void *search(struct look *l, loff_t *pos, find_fn find, u32 end, u32 bits)
{
	int found;

	l->id = *pos >> bits;
	l->index = *pos & ((1U << bits) - 1);
	for (; l->id < end; l->id++, l->index = 0) {
		while (!(found = find(l))) {
			if (READ_ONCE(l->pool->sysfs.going))
				return NULL;
			if (signal_pending(current))
				return ERR_PTR(-EINTR);
			cond_resched();
		}
		if (found > 0) {
			*pos = (loff_t)l->id << bits | l->index;
			return l;
		}
	}
	*pos = (loff_t)end << bits;
	return NULL;
}

static void look_stop(struct seq_file *m, void *v)
{
}

/* ------------------------------------------------------------ ledgers -- */

static int find_entry_locked(struct look *l, const struct shmk_peer *peer)
{
	u32 i, used = min_t(u64, READ_ONCE(peer->ledger->high), peer->nr_entries);
	u32 end = min(used, l->index + CHUNK);

	for (i = l->index; i < end; i++) {
		l->word[0] = READ_ONCE(peer->ledger->entry[i].what);
		if (SHMK_WHAT_OP(l->word[0])) {
			l->word[1] = READ_ONCE(peer->ledger->entry[i].where);
			l->gen = peer->gen;
			l->index = i;
			return 1;
		}
	}
	l->index = i;
	return i < used ? 0 : -1;
}

static int find_entry(struct look *l)
{
	u32 id = array_index_nospec(l->id, l->pool->status->nr_peers + 1);
	int found = -1;

	spin_lock(&l->pool->lock);
	if (l->pool->peers[id])
		found = find_entry_locked(l, l->pool->peers[id]);
	spin_unlock(&l->pool->lock);
	return found;
}

static void *ledgers_start(struct seq_file *m, loff_t *pos)
{
	struct look *l = m->private;

	return search(l, pos, find_entry, l->pool->status->nr_peers + 1, ENTRY_BITS);
}

static void *ledgers_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return ledgers_start(m, pos);
}

static void show_entry(struct seq_file *m, u64 what, u64 where)
{
	static const char *const ops[] = {
		[SHMK_OP_HELD]		= "held",
		[SHMK_OP_SENDING]	= "sending",
		[SHMK_OP_TAKING]	= "taking",
		[SHMK_OP_TAKEN]		= "taken",
		[SHMK_OP_CLAIMING]	= "claiming",
		[SHMK_OP_SPAN]		= "span",
		[SHMK_OP_GATHER]	= "gather",
		[SHMK_OP_SEIZING]	= "seizing",
		[SHMK_OP_WAITING]	= "waiting",
		[SHMK_OP_PASSING]	= "passing",
		[SHMK_OP_COPIED]	= "copied",
		[SHMK_OP_GOT]		= "got",
		[SHMK_OP_HOLDING]	= "holding",
		[SHMK_OP_REDO]		= "redo",
		[SHMK_OP_RESENDING]	= "resending",
	};

	seq_printf(m, "%s %u gen %u", name_in(ops, ARRAY_SIZE(ops), SHMK_WHAT_OP(what)),
		   SHMK_WHAT_BLOCK(what), SHMK_WHAT_GEN(what));
	if (SHMK_WHERE_QUEUE(where) != SHMK_QUEUE_NOWHERE)
		seq_printf(m, " queue %u", SHMK_WHERE_QUEUE(where));
	seq_printf(m, " pos %llu\n", SHMK_WHERE_POS(where));
}

static int ledgers_show(struct seq_file *m, void *v)
{
	const struct look *l = v;

	seq_printf(m, "peer %u gen %u entry %u: ", l->id, l->gen, l->index);
	show_entry(m, l->word[0], l->word[1]);
	return 0;
}

static const struct seq_operations ledgers_ops = {
	.start	= ledgers_start,
	.next	= ledgers_next,
	.stop	= look_stop,
	.show	= ledgers_show,
};

/* -------------------------------------------------------------- slots -- */

static int find_slot_locked(struct look *l, u32 id)
{
	const struct shmk_ring_view *rv = &l->pool->queues[id].rv;
	u32 capacity = 1U << rv->capacity_shift;
	u32 i, end = min(capacity, l->index + CHUNK);

	for (i = l->index; i < end; i++) {
		l->word[0] = READ_ONCE(shmk_slot_at(rv, i)->p);
		if (SHMK_P_KIND(l->word[0]) != SHMK_KIND_EMPTY) {
			l->word[1] = READ_ONCE(shmk_slot_at(rv, i)->t);
			l->gen = SHMK_QUEUE_GEN(l->pool->queue_status[id].word);
			memcpy(l->name, l->pool->queues[id].name, sizeof(l->name));
			l->index = i;
			return 1;
		}
	}
	l->index = i;
	return i < capacity ? 0 : -1;
}

/* A READY queue stays where it is as long as we have the lock. */
static int find_slot(struct look *l)
{
	u32 id = array_index_nospec(l->id, l->pool->view.nr_queues);
	int found = -1;

	spin_lock(&l->pool->lock);
	if (l->pool->queues[id].stage == SHMK_QUEUE_STAGE_READY)
		found = find_slot_locked(l, id);
	spin_unlock(&l->pool->lock);
	return found;
}

static void *slots_start(struct seq_file *m, loff_t *pos)
{
	struct look *l = m->private;

	return search(l, pos, find_slot, l->pool->view.nr_queues, SLOT_BITS);
}

static void *slots_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return slots_start(m, pos);
}

static int slots_show(struct seq_file *m, void *v)
{
	static const char *const kinds[] = {
		[SHMK_KIND_BLOCK]	= "block",
		[SHMK_KIND_INLINE]	= "inline",
		[SHMK_KIND_CLAIMED]	= "claimed",
		[SHMK_KIND_SKIP]	= "skip",
		[SHMK_KIND_ELEMENT]	= "element",
	};
	const struct look *l = v;
	u64 p = l->word[0], t = l->word[1];

	seq_printf(m, "queue %u gen %u %s slot %u: lap %u %s %u", l->id, l->gen, l->name, l->index,
		   SHMK_P_LAP(p), name_in(kinds, ARRAY_SIZE(kinds), SHMK_P_KIND(p)),
		   SHMK_P_ARG(p));
	if (t & SHMK_TAKEN)
		seq_printf(m, " taken lap %u peer %u tries %u", SHMK_P_LAP(t),
			   SHMK_T_PEER(t), SHMK_T_TRIES(t));
	seq_putc(m, '\n');
	return 0;
}

static const struct seq_operations slots_ops = {
	.start	= slots_start,
	.next	= slots_next,
	.stop	= look_stop,
	.show	= slots_show,
};

/* ----------------------------------------------------------- capsules -- */

static void *capsules_start(struct seq_file *m, loff_t *pos)
{
	struct look *l = m->private;

	l->capsule.seq = *pos;
	if (shmk_capsule_get(l->pool, &l->capsule))
		return NULL;
	*pos = l->capsule.seq;
	return l;
}

static void *capsules_next(struct seq_file *m, void *v, loff_t *pos)
{
	++*pos;
	return capsules_start(m, pos);
}

static int capsules_show(struct seq_file *m, void *v)
{
	const struct shmk_capsule *c = &((const struct look *)v)->capsule;
	u32 i;

	seq_printf(m, "capsule %llu peer %u gen %u pid %d uid %u comm %.16s reason %u code %d time_ns %llu entries %u of %u\n",
		   c->seq, c->peer, c->gen, c->pid, c->uid, c->comm, c->reason, c->code, c->time_ns,
		   c->nr_entries, c->high);
	for (i = 0; i < c->nr_entries; i++) {
		seq_puts(m, "  ");
		show_entry(m, c->entry[i].what, c->entry[i].where);
	}
	return 0;
}

static const struct seq_operations capsules_ops = {
	.start	= capsules_start,
	.next	= capsules_next,
	.stop	= look_stop,
	.show	= capsules_show,
};

/* -------------------------------------------------------------- files -- */

static int look_open(struct inode *inode, struct file *file, const struct seq_operations *ops)
{
	struct look *l = __seq_open_private(file, ops, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->pool = inode->i_private;
	return 0;
}

#define LOOK_FILE(name)								\
static int name##_open(struct inode *inode, struct file *file)			\
{										\
	return look_open(inode, file, &name##_ops);				\
}										\
static const struct file_operations name##_file_ops = {				\
	.owner		= THIS_MODULE,						\
	.open		= name##_open,						\
	.read		= seq_read,						\
	.llseek		= seq_lseek,						\
	.release	= seq_release_private,					\
}

LOOK_FILE(ledgers);
LOOK_FILE(slots);
LOOK_FILE(capsules);

/* Under sysfs.lock, as the next. That there is none, or no memory for it, harms nobody. */
void shmk_debugfs_add(struct shmk_pool *pool)
{
	struct dentry *dir;

	WRITE_ONCE(pool->sysfs.going, false);
	dir = debugfs_create_dir(kobject_name(&pool->sysfs.kobj), root);
	pool->sysfs.debug_dir = dir;
	debugfs_create_file("ledgers", 0400, dir, pool, &ledgers_file_ops);
	debugfs_create_file("slots", 0400, dir, pool, &slots_file_ops);
	debugfs_create_file("capsules", 0400, dir, pool, &capsules_file_ops);
}

/* Returns when nobody reads any more, which is soon: see search(). */
void shmk_debugfs_del(struct shmk_pool *pool)
{
	WRITE_ONCE(pool->sysfs.going, true);
	debugfs_remove(pool->sysfs.debug_dir);
	pool->sysfs.debug_dir = NULL;
}

void shmk_debugfs_init(void)
{
	root = debugfs_create_dir("shmk", NULL);
}

void shmk_debugfs_exit(void)
{
	debugfs_remove(root);
}
