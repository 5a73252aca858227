// SPDX-License-Identifier: GPL-2.0-only
/*
 * pool.c - the table of pools: make, find, permit, account, take apart.
 *
 * A pool is entered into the table first, with its name and its share of the
 * limits taken but not to be found; then its pages are allocated; then it is
 * published. So two creators of one name never both allocate, limits cannot be
 * overrun together, and nobody sees a half-made pool.
 *
 * References come from files, peers and persistence. The last one takes the
 * pool apart in this order: out of sysfs, out of the table, pages. The sysfs
 * entry goes first because the name may be taken again as soon as the table
 * has let go of it.
 *
 * A reset makes a new pool like the old one, beside it, and then moves the name
 * over. So who is in the old one keeps what is mapped, until it leaves, and a
 * reset that fails has changed nothing.
 *
 * Names belong to the machine, not to a namespace: two containers that are
 * given the same device node can meet. Owner, group and mode decide as for
 * System V shared memory, with ids of the initial user namespace.
 */
#include <linux/anon_inodes.h>
#include <linux/capability.h>
#include <linux/cred.h>
#include <linux/ctype.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sched/signal.h>
#include <linux/sched/user.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/user_namespace.h>

#include "ioctl.h"
#include "netlink.h"
#include "peer.h"
#include "point.h"
#include "pool.h"
#include "queue.h"
#include "trace.h"

#define DEFAULT_PEERS	1024
#define DEFAULT_QUEUES	1024

static DEFINE_MUTEX(pools_lock);
static LIST_HEAD(pools);		/* by growing id; pools_lock */
static u64 last_id;			/* pools_lock */
static u64 total_bytes;			/* pools_lock */
static u32 nr_pools;			/* pools_lock */

/* ----------------------------------------------------------- geometry -- */

bool shmk_name_valid(const char *name)
{
	size_t len = strnlen(name, SHMK_NAME_LEN);
	size_t i;

	if (len == 0 || len == SHMK_NAME_LEN || name[0] == '.' || name[0] == '-')
		return false;
	for (i = 0; i < len; i++)
		if (!isascii(name[i]) || (!isalnum(name[i]) && !strchr("._-", name[i])))
			return false;
	return true;
}

/* All of it is checked arithmetic; the layout's numbers fit 44 bits by these bounds. */
static bool size_valid(u64 bytes, u32 page_shift, u32 unit_shift)
{
	u64 span = (u64)SHMK_SPAN_UNITS << unit_shift;

	return bytes && !(bytes & ((1ULL << page_shift) - 1)) &&
	       !(bytes & (span - 1)) && bytes >> unit_shift <= SHMK_BLOCKS_MAX;
}

static u32 choose_unit_shift(u64 bytes)
{
	u32 shift = SHMK_UNIT_SHIFT_MIN;

	while (shift < SHMK_UNIT_SHIFT_MAX && bytes >> shift > SHMK_BLOCKS_MAX)
		shift++;
	return shift;
}

static u64 choose_rings_bytes(u64 bytes)
{
	return clamp_t(u64, bytes / 16, 256 << 10, 64 << 20);
}

/* Fills in what was left to choose. */
static int check_args(struct shmk_pool_create *args)
{
	if (args->flags & ~SHMK_POOL_F_ALL || args->reserved)
		return -EINVAL;
	if (memchr_inv(args->name, 0, sizeof(args->name)) && !shmk_name_valid(args->name))
		return -EINVAL;
	if (args->flags & SHMK_POOL_F_PERSIST && !args->name[0])
		return -EINVAL;
	if (args->page_shift != PAGE_SHIFT && args->page_shift != PMD_SHIFT)
		return -EINVAL;
	if (!args->unit_shift)
		args->unit_shift = choose_unit_shift(args->bytes);
	if (args->unit_shift < SHMK_UNIT_SHIFT_MIN || args->unit_shift > SHMK_UNIT_SHIFT_MAX)
		return -EINVAL;
	if (!size_valid(args->bytes, args->page_shift, args->unit_shift))
		return -EINVAL;
	/*
	 * Without huge pages, as with PREEMPT_RT, there is no large mapping; and
	 * madvise(MADV_COLD) on a part of a large page that is mapped by small entries never
	 * ends in these kernels, because their split_folio() does nothing and says that it has.
	 */
	if (args->page_shift != PAGE_SHIFT && !IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE))
		return -EOPNOTSUPP;
	if (args->node < -1 || args->node >= MAX_NUMNODES ||
	    (args->node >= 0 && !node_state(args->node, N_MEMORY)))
		return -EINVAL;
	if (args->mode & ~0666 || args->nr_peers > SHMK_PEERS_MAX ||
	    args->nr_queues > SHMK_QUEUES_MAX)
		return -EINVAL;
	if (!args->nr_peers)
		args->nr_peers = DEFAULT_PEERS;
	if (!args->nr_queues)
		args->nr_queues = DEFAULT_QUEUES;
	if (args->rings_bytes > 1ULL << (SHMK_MAP_SHIFT - 1))
		return -EINVAL;
	if (!args->rings_bytes)
		args->rings_bytes = choose_rings_bytes(args->bytes);
	args->rings_bytes = ALIGN(args->rings_bytes, SZ_4K);
	return 0;
}

/* Where everything is; the same words later stand at the head of the status region. */
static void layout(const struct shmk_pool_create *args, struct shmk_status *s)
{
	u64 at, map_bytes;

	s->version = SHMK_LAYOUT_VERSION;
	s->flags = args->flags;
	s->data_bytes = args->bytes;
	s->ledger_stride = SHMK_LEDGER_STRIDE;
	s->map_ledger = SHMK_MAP_LEDGER;
	s->map_control = SHMK_MAP_CONTROL;
	s->map_data = SHMK_MAP_DATA;
	s->page_shift = args->page_shift;
	s->unit_shift = args->unit_shift;
	s->nr_spans = args->bytes >> (args->unit_shift + SHMK_SPAN_UNITS_SHIFT);
	s->nr_blocks = s->nr_spans << SHMK_SPAN_UNITS_SHIFT;
	s->nr_peers = args->nr_peers;
	s->nr_queues = args->nr_queues;
	s->created_ns = ktime_get_ns();
	memcpy(s->name, args->name, strnlen(args->name, SHMK_NAME_LEN - 1));

	s->peers_off = ALIGN(sizeof(*s), SHMK_LINE);
	at = s->peers_off + (s->nr_peers + 1ULL) * sizeof(struct shmk_peer_status);
	s->queues_off = ALIGN(at, SHMK_LINE);
	at = s->queues_off + s->nr_queues * (u64)sizeof(struct shmk_queue_status);
	s->rows_off = ALIGN(at, SHMK_LINE);
	s->nr_rows = s->nr_peers * (u64)SHMK_ROWS_PER_PEER;
	at = s->rows_off + s->nr_rows * sizeof(struct shmk_row);
	s->status_bytes = PAGE_ALIGN(at);

	map_bytes = ALIGN(DIV_ROUND_UP(s->nr_spans, 8), SHMK_LINE);
	s->taken_map_off = ALIGN(sizeof(struct shmk_control), SHMK_LINE);
	s->stale_map_off = s->taken_map_off + map_bytes;
	s->spans_off = s->stale_map_off + map_bytes;
	s->blocks_off = s->spans_off + s->nr_spans * (u64)sizeof(struct shmk_span);
	at = s->blocks_off + s->nr_blocks * (u64)sizeof(struct shmk_block);
	s->rings_off = ALIGN(at, SZ_4K);
	s->rings_bytes = args->rings_bytes;
	s->control_bytes = ALIGN(s->rings_off + s->rings_bytes, 1ULL << s->page_shift);
}

/* ---------------------------------------------------------- the table -- */

static struct shmk_pool *find_locked(const char *name)
{
	struct shmk_pool *pool;

	lockdep_assert_held(&pools_lock);
	list_for_each_entry(pool, &pools, node_in_pools)
		if (pool->named && !strcmp(pool->name, name))
			return pool;
	return NULL;
}

static u32 count_of_locked(kuid_t creator)
{
	struct shmk_pool *pool;
	u32 nr = 0;

	list_for_each_entry(pool, &pools, node_in_pools)
		nr += uid_eq(pool->creator, creator);
	return nr;
}

/* An @old one is about to lose its name: it does not count as a pool of its creator. */
static int limits_locked(const struct shmk_pool *pool, u64 bytes, const struct shmk_pool *old)
{
	unsigned long long max_pool = READ_ONCE(shmk_max_pool_bytes);
	unsigned long long max_total = READ_ONCE(shmk_max_total_bytes);
	unsigned int max_pools = READ_ONCE(shmk_max_pools_per_user);

	if (max_pool && bytes > max_pool)
		return -EPERM;
	if (max_total && (total_bytes > max_total ||
			  pool->memory_bytes > max_total - total_bytes))
		return -EPERM;
	if (max_pools && !old && count_of_locked(pool->creator) >= max_pools)
		return -EPERM;
	return 0;
}

/* Takes the name, unless it is @old's for now, and the share of the limits. */
static int table_enter(struct shmk_pool *pool, u64 bytes, const struct shmk_pool *old)
{
	int err = 0;

	mutex_lock(&pools_lock);
	if (!old && pool->name[0] && find_locked(pool->name))
		err = -EEXIST;
	if (!err)
		err = limits_locked(pool, bytes, old);
	if (!err) {
		pool->id = ++last_id;
		pool->named = !old && pool->name[0];
		total_bytes += pool->memory_bytes;
		nr_pools++;
		list_add_tail(&pool->node_in_pools, &pools);
	}
	mutex_unlock(&pools_lock);
	return err;
}

/* What happens to the pool itself, by the calling process. */
static void tell(struct shmk_pool *pool, u32 type)
{
	struct shmk_event event = { .type = type, .time_ns = ktime_get_ns() };

	get_task_comm(event.comm, current->group_leader);
	shmk_news_push(pool, &event, task_tgid(current), current_euid());
}

/* Returns its heir, whose reference is the caller's now. */
static struct shmk_pool *table_leave(struct shmk_pool *pool)
{
	struct shmk_pool *heir;

	mutex_lock(&pools_lock);
	list_del(&pool->node_in_pools);
	list_del_init(&pool->node_in_forebears);
	heir = pool->heir;
	/* Of itself; who destroys or resets it tells so. */
	if (pool->ready && !shmk_pool_is_reset(pool) && (pool->named || !pool->name[0])) {
		tell(pool, SHMK_EV_DESTROYED);
		trace_shmk_pool_destroyed(pool);
	}
	total_bytes -= pool->memory_bytes;
	nr_pools--;
	mutex_unlock(&pools_lock);
	return heir;
}

void shmk_pool_totals(struct shmk_info *info)
{
	mutex_lock(&pools_lock);
	info->nr_pools = nr_pools;
	info->total_bytes = total_bytes;
	mutex_unlock(&pools_lock);
}

/* --------------------------------------------------------- permission -- */

static bool is_owner(const struct shmk_pool *pool)
{
	return uid_eq(current_euid(), pool->uid) || uid_eq(current_euid(), pool->creator);
}

static bool mode_permits(const struct shmk_pool *pool, bool rdonly)
{
	u32 mode = pool->mode;
	u32 want = rdonly ? 04 : 06;

	if (is_owner(pool))
		mode >>= 6;
	else if (in_egroup_p(pool->gid))
		mode >>= 3;
	return (mode & want) == want;
}

static bool may_open(const struct shmk_pool *pool, bool rdonly)
{
	return mode_permits(pool, rdonly) || capable(CAP_DAC_OVERRIDE);
}

/* Leaving a pool out of a list is not worth an audit record. */
bool shmk_pool_readable(const struct shmk_pool *pool)
{
	return mode_permits(pool, true) ||
	       ns_capable_noaudit(&init_user_ns, CAP_DAC_OVERRIDE);
}

static int set_owner(struct shmk_pool *pool, const struct shmk_pool_create *args,
		     const struct shmk_pool *old)
{
	if (old) {
		pool->creator = old->creator;
		pool->uid = old->uid;
		pool->gid = old->gid;
		return 0;
	}
	pool->creator = current_euid();
	pool->uid = args->uid == (u32)-1 ? current_euid() :
		    make_kuid(current_user_ns(), args->uid);
	pool->gid = args->gid == (u32)-1 ? current_egid() :
		    make_kgid(current_user_ns(), args->gid);
	if (!uid_valid(pool->uid) || !gid_valid(pool->gid))
		return -EINVAL;
	if (uid_eq(pool->uid, current_euid()) && in_egroup_p(pool->gid))
		return 0;
	return capable(CAP_CHOWN) ? 0 : -EPERM;
}

/* --------------------------------------------------------- accounting -- */

/* As AF_XDP charges its umem: the user, not the process, has so much locked. */
static int charge(struct shmk_pool *pool, struct user_struct *user, bool limited)
{
	unsigned long pages = pool->memory_bytes >> PAGE_SHIFT;
	unsigned long limit = limited ? rlimit(RLIMIT_MEMLOCK) >> PAGE_SHIFT : ULONG_MAX;
	unsigned long now;

	do {
		now = atomic_long_read(&user->locked_vm);
		if (now > limit || pages > limit - now)
			return -EPERM;
	} while (atomic_long_cmpxchg(&user->locked_vm, now, now + pages) != now);
	pool->user = get_uid(user);
	pool->locked_pages = pages;
	return 0;
}

/* What is charged to somebody stays so whoever resets it. */
static int charge_like(struct shmk_pool *pool, const struct shmk_pool *old)
{
	bool free = capable(CAP_IPC_LOCK);

	if (old)
		return old->user ? charge(pool, old->user, !free) : 0;
	return free ? 0 : charge(pool, current_user(), true);
}

static void uncharge(struct shmk_pool *pool)
{
	if (!pool->user)
		return;
	atomic_long_sub(pool->locked_pages, &pool->user->locked_vm);
	free_uid(pool->user);
}

/* ------------------------------------------------------ making a pool -- */

static int alloc_tables(struct shmk_pool *pool, const struct shmk_status *s)
{
	pool->peer_ids = bitmap_zalloc(s->nr_peers + 1, GFP_KERNEL_ACCOUNT);
	pool->peers = kvcalloc(s->nr_peers + 1, sizeof(*pool->peers), GFP_KERNEL_ACCOUNT);
	pool->ledgers = kvcalloc(s->nr_peers + 1, sizeof(*pool->ledgers), GFP_KERNEL_ACCOUNT);
	if (!pool->peer_ids || !pool->peers || !pool->ledgers)
		return -ENOMEM;
	__set_bit(0, pool->peer_ids);
	return shmk_events_init(&pool->events) ?:
	       shmk_capsules_init(&pool->capsules) ?:
	       shmk_queues_init(pool, s->nr_queues, s->nr_rows) ?:
	       shmk_sysfs_tables(pool, s) ?:
	       shmk_quarantine_init(pool, s);
}

static int alloc_regions(struct shmk_pool *pool, const struct shmk_status *s)
{
	int err;

	err = shmk_region_alloc(&pool->data, s->data_bytes, s->page_shift, pool->node);
	if (!err)
		err = shmk_region_alloc(&pool->control, s->control_bytes,
					s->page_shift, pool->node);
	if (!err)
		err = shmk_region_alloc(&pool->status_region, s->status_bytes,
					PAGE_SHIFT, NUMA_NO_NODE);
	if (!err)
		err = shmk_region_view(&pool->control);
	if (!err)
		err = shmk_region_view(&pool->status_region);
	return err;
}

static void no_queue(const struct shmk_view *view, u32 id, struct shmk_ring_view *rv)
{
	rv->slots = NULL;
}

static bool view_pinned(const struct shmk_view *view, u32 block, u64 bytes)
{
	return shmk_quarantine_pinned(view->owner, block, bytes);
}

static void view_keep(const struct shmk_view *view, u32 block)
{
	shmk_quarantine_keep(view->owner, block);
}

static void set_up(struct shmk_pool *pool, const struct shmk_status *s)
{
	bool quarantine = shmk_quarantine_on(pool);
	void *control = pool->control.addr;

	pool->status = pool->status_region.addr;
	*pool->status = *s;
	pool->peer_status = pool->status_region.addr + s->peers_off;
	pool->queue_status = pool->status_region.addr + s->queues_off;
	pool->rows = pool->status_region.addr + s->rows_off;
	pool->view = (struct shmk_view){
		.spans		= control + s->spans_off,
		.taken_map	= control + s->taken_map_off,
		.stale_map	= control + s->stale_map_off,
		.blocks		= control + s->blocks_off,
		.nr_spans	= s->nr_spans,
		.unit_shift	= s->unit_shift,
		.nr_queues	= s->nr_queues,
		.queue		= no_queue,
		.pinned		= quarantine ? view_pinned : NULL,
		.keep		= quarantine ? view_keep : NULL,
		.owner		= pool,
	};
}

/* Undoes what was done of making a pool, whatever that was. */
static void take_apart(struct shmk_pool *pool)
{
	u32 i;

	shmk_quarantine_exit(pool);
	shmk_deadlines_exit(pool);
	shmk_region_free(&pool->data);
	shmk_region_free(&pool->control);
	for (i = 0; pool->ledgers && pool->status && i <= pool->status->nr_peers; i++)
		shmk_region_free(&pool->ledgers[i]);
	shmk_region_free(&pool->status_region);
	shmk_queues_free(pool);
	shmk_events_free(&pool->events);
	shmk_capsules_free(&pool->capsules);
	shmk_sysfs_free(pool);
	kvfree(pool->ledgers);
	kvfree(pool->peers);
	bitmap_free(pool->peer_ids);
	uncharge(pool);
}

static struct shmk_pool *pool_alloc(const struct shmk_pool_create *args,
				    const struct shmk_status *s)
{
	struct shmk_pool *pool;

	pool = kzalloc(sizeof(*pool), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return ERR_PTR(-ENOMEM);
	refcount_set(&pool->refs, 1);
	spin_lock_init(&pool->lock);
	INIT_LIST_HEAD(&pool->rings);
	INIT_LIST_HEAD(&pool->forebears);
	INIT_LIST_HEAD(&pool->node_in_forebears);
	memcpy(pool->name, s->name, sizeof(pool->name));
	pool->memory_bytes = s->data_bytes + s->control_bytes + s->status_bytes;
	pool->page_shift = args->page_shift;
	pool->node = args->node;
	pool->mode = args->mode;
	shmk_quarantine_prepare(pool);
	shmk_deadlines_prepare(pool);
	shmk_sysfs_prepare(pool);
	return pool;
}

/* Not in sysfs yet. @old: takes its name later, and its owner. */
static struct shmk_pool *make(const struct shmk_pool_create *args, const struct shmk_pool *old)
{
	struct shmk_status s = { };
	struct shmk_pool *pool;
	int err;

	layout(args, &s);
	pool = pool_alloc(args, &s);
	if (IS_ERR(pool))
		return pool;
	err = set_owner(pool, args, old);
	if (err)
		goto free_pool;
	err = table_enter(pool, args->bytes, old);
	if (err)
		goto free_pool;
	err = shmk_point(SHMK_AT_POOL_ENTERED) ?: charge_like(pool, old);
	if (err)
		goto leave_table;
	err = shmk_point(SHMK_AT_POOL_CHARGED) ?: alloc_tables(pool, &s);
	if (!err)
		err = shmk_point(SHMK_AT_POOL_TABLES) ?: alloc_regions(pool, &s);
	if (!err)
		err = shmk_point(SHMK_AT_POOL_REGIONS);
	if (err)
		goto take_apart;
	set_up(pool, &s);
	return pool;

take_apart:
	take_apart(pool);
leave_table:
	table_leave(pool);
free_pool:
	kobject_put(&pool->sysfs.kobj);
	return ERR_PTR(err);
}

/**
 * shmk_pool_create() - a pool with all its pages, not to be found yet
 * @user_args: as they came
 *
 * Return: the caller's reference, or an error: -EINVAL, -EPERM, -EEXIST,
 * -ENOMEM, -EINTR. shmk_pool_publish() makes it visible.
 */
struct shmk_pool *shmk_pool_create(const struct shmk_pool_create *user_args)
{
	struct shmk_pool_create args = *user_args;
	struct shmk_pool *pool;
	int err;

	err = check_args(&args);
	if (err)
		return ERR_PTR(err);
	pool = make(&args, NULL);
	if (IS_ERR(pool))
		return pool;
	err = shmk_sysfs_add(pool);
	if (err) {
		shmk_pool_put(pool);
		return ERR_PTR(err);
	}
	shmk_pass(SHMK_AT_POOL_SHOWN);
	return pool;
}

static void publish_locked(struct shmk_pool *pool)
{
	lockdep_assert_held(&pools_lock);
	if (pool->status->flags & SHMK_POOL_F_PERSIST) {
		/* A persistent pool is a reason not to unload the module. */
		__module_get(THIS_MODULE);
		refcount_inc(&pool->refs);
		pool->persistent = true;
	}
	/* Whoever sees the magic sees all the geometry before it. */
	smp_store_release(&pool->status->magic, SHMK_LAYOUT_MAGIC);
	pool->ready = true;
	tell(pool, SHMK_EV_CREATED);
	trace_shmk_pool_created(pool);
}

/**
 * shmk_pool_publish() - from now on the pool may be found; cannot fail
 */
void shmk_pool_publish(struct shmk_pool *pool)
{
	mutex_lock(&pools_lock);
	publish_locked(pool);
	mutex_unlock(&pools_lock);
}

/**
 * shmk_pool_put() - drop a reference; may sleep
 */
void shmk_pool_put(struct shmk_pool *pool)
{
	struct shmk_pool *heir;

	if (!refcount_dec_and_test(&pool->refs))
		return;
	shmk_pass(SHMK_AT_POOL_LAST);
	shmk_sysfs_del(pool);
	heir = table_leave(pool);
	shmk_pass(SHMK_AT_POOL_LEFT);
	take_apart(pool);
	kobject_put(&pool->sysfs.kobj);	/* frees the pool */
	if (heir)
		shmk_pool_put(heir);	/* has none itself: heirs are moved on, see inherit_locked() */
}

/* ---------------------------------------------------- finding, ending -- */

/**
 * shmk_pool_open() - find a pool by name
 * @args: checked by the caller but for the name
 *
 * Return: a reference, or -EINVAL, -ENOENT, -EACCES, -ESHUTDOWN.
 */
struct shmk_pool *shmk_pool_open(const struct shmk_pool_open *args)
{
	struct shmk_pool *pool;

	if (!shmk_name_valid(args->name))
		return ERR_PTR(-EINVAL);
	mutex_lock(&pools_lock);
	pool = find_locked(args->name);
	if (!pool || !pool->ready)
		pool = ERR_PTR(-ENOENT);
	else if (!may_open(pool, args->flags & SHMK_OPEN_F_RDONLY))
		pool = ERR_PTR(-EACCES);
	else if (shmk_pool_draining(pool) && !(args->flags & SHMK_OPEN_F_RDONLY))
		pool = ERR_PTR(-ESHUTDOWN);
	else if (!refcount_inc_not_zero(&pool->refs))
		pool = ERR_PTR(-ENOENT);
	mutex_unlock(&pools_lock);
	return pool;
}

static struct shmk_pool *next(u64 id, bool readable)
{
	struct shmk_pool *pool, *found = NULL;

	mutex_lock(&pools_lock);
	list_for_each_entry(pool, &pools, node_in_pools) {
		if (pool->id <= id || !pool->ready ||
		    (readable && !shmk_pool_readable(pool)) ||
		    !refcount_inc_not_zero(&pool->refs))
			continue;
		found = pool;
		break;
	}
	mutex_unlock(&pools_lock);
	return found;
}

/**
 * shmk_pool_draining() - may nobody attach any more but to look?
 *
 * Exact under pool->lock.
 */
bool shmk_pool_draining(const struct shmk_pool *pool)
{
	return READ_ONCE(pool->status->flags) & SHMK_POOL_F_DRAIN;
}

/**
 * shmk_pool_next() - the first pool with a larger id that the caller may read
 * @id: 0 to begin
 *
 * Return: a reference or NULL.
 */
struct shmk_pool *shmk_pool_next(u64 id)
{
	return next(id, true);
}

/* The same, whoever may read it. */
struct shmk_pool *shmk_pool_after(u64 id)
{
	return next(id, false);
}

/* Of this name, or of this id. Not what may be done with it. Returns a reference or NULL. */
struct shmk_pool *shmk_pool_get(u64 id, const char *name)
{
	struct shmk_pool *pool;

	if (!name) {
		pool = id ? next(id - 1, false) : NULL;
		if (pool && pool->id != id) {
			shmk_pool_put(pool);
			pool = NULL;
		}
		return pool;
	}
	mutex_lock(&pools_lock);
	pool = find_locked(name);
	if (pool && (!pool->ready || !refcount_inc_not_zero(&pool->refs)))
		pool = NULL;
	mutex_unlock(&pools_lock);
	return pool;
}

/* Whoever has an id: attached, about to be, or being settled. */
static bool has_peers_locked(const struct shmk_pool *pool)
{
	u32 end = pool->status->nr_peers + 1;

	lockdep_assert_held(&pool->lock);
	return find_next_bit(pool->peer_ids, end, 1) < end;
}

static bool has_peers(struct shmk_pool *pool)
{
	bool any;

	spin_lock(&pool->lock);
	any = has_peers_locked(pool);
	spin_unlock(&pool->lock);
	return any;
}

/* Finds the pool, for one who destroys or resets at a time; and hides it from all others. */
static struct shmk_pool *claim(const char *name, bool force, bool hide)
{
	struct shmk_pool *pool;

	mutex_lock(&pools_lock);
	pool = find_locked(name);
	if (!pool || !pool->ready)
		pool = ERR_PTR(-ENOENT);
	else if (!is_owner(pool) && !capable(CAP_SYS_ADMIN))
		pool = ERR_PTR(-EPERM);
	else if (pool->claimed || (!force && has_peers(pool)))
		pool = ERR_PTR(-EBUSY);
	else if (!refcount_inc_not_zero(&pool->refs))
		pool = ERR_PTR(-ENOENT);
	else
		pool->claimed = true;
	if (!IS_ERR(pool) && hide)
		pool->ready = false;
	mutex_unlock(&pools_lock);
	return pool;
}

/* Only who looks comes in from here on. True: nobody is in, and nobody finds it any more. */
static bool drain(struct shmk_pool *pool)
{
	bool used;

	mutex_lock(&pools_lock);
	spin_lock(&pool->lock);
	WRITE_ONCE(pool->status->flags, pool->status->flags | SHMK_POOL_F_DRAIN);
	used = has_peers_locked(pool);
	spin_unlock(&pool->lock);
	pool->ready = used;
	mutex_unlock(&pools_lock);
	return !used;
}

static void unclaim(struct shmk_pool *pool)
{
	mutex_lock(&pools_lock);
	pool->claimed = false;
	mutex_unlock(&pools_lock);
}

/* Whether it was persistent: then the caller has that reference now, and the module's. */
static bool drop_persistence(struct shmk_pool *pool)
{
	bool persistent;

	mutex_lock(&pools_lock);
	persistent = pool->persistent;
	pool->persistent = false;
	mutex_unlock(&pools_lock);
	return persistent;
}

/* Not before sysfs has let go: the next pool of this name makes the same entry. */
static void drop_name(struct shmk_pool *pool)
{
	mutex_lock(&pools_lock);
	pool->named = false;
	pool->ready = true;
	mutex_unlock(&pools_lock);
}

static void put_persistence(struct shmk_pool *pool)
{
	if (!drop_persistence(pool))
		return;
	shmk_pool_put(pool);
	module_put(THIS_MODULE);	/* the device file holds it too */
}

/**
 * shmk_pool_destroy() - take a pool's name away, and its persistence
 * @args: checked by the caller but for the name
 *
 * Files that are open stay what they are, but that by those of a pool that is drained one
 * can attach just to look; the last one takes the pages.
 *
 * Return: 0, -EINVAL, -ENOENT, -EPERM or -EBUSY.
 */
int shmk_pool_destroy(const struct shmk_pool_destroy *args)
{
	struct shmk_event event = { .type = SHMK_EV_DESTROYED };
	bool drains = args->flags & SHMK_DESTROY_F_DRAIN;
	struct shmk_pool *pool;

	if (!shmk_name_valid(args->name))
		return -EINVAL;
	pool = claim(args->name, drains, !drains);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	if (drains && !drain(pool)) {
		put_persistence(pool);
		unclaim(pool);
		shmk_pool_put(pool);
		return 0;
	}
	shmk_pass(SHMK_AT_DESTROY_CLAIMED);
	shmk_sysfs_del(pool);
	shmk_pass(SHMK_AT_DESTROY_HIDDEN);
	drop_name(pool);
	put_persistence(pool);
	shmk_pass(SHMK_AT_DESTROY_UNNAMED);
	shmk_event_push(pool, &event, NULL, current_euid());
	trace_shmk_pool_destroyed(pool);
	shmk_event_wake(pool);
	shmk_pool_put(pool);
	return 0;
}

/* What the old one was made with; all that can be chosen is chosen. */
static struct shmk_pool_create args_of(const struct shmk_pool *pool, bool persistent)
{
	const struct shmk_status *s = pool->status;
	struct shmk_pool_create args = {
		.flags		= (s->flags & SHMK_POOL_F_NO_QUARANTINE) |
				  (persistent ? SHMK_POOL_F_PERSIST : 0),
		.bytes		= s->data_bytes,
		.page_shift	= s->page_shift,
		.unit_shift	= s->unit_shift,
		.node		= pool->node,
		.mode		= pool->mode,
		.nr_peers	= s->nr_peers,
		.nr_queues	= s->nr_queues,
		.rings_bytes	= s->rings_bytes,
	};

	memcpy(args.name, pool->name, sizeof(args.name));
	return args;
}

/* From here on nobody begins anything there. */
static int mark_reset(struct shmk_pool *pool, bool force)
{
	struct shmk_status *s = pool->status;
	int err = 0;

	spin_lock(&pool->lock);
	if (!force && has_peers_locked(pool)) {
		err = -EBUSY;
	} else {
		WRITE_ONCE(s->flags, s->flags | SHMK_POOL_F_RESET);
		shmk_pool_count_locked(pool, &s->epoch, 1);
	}
	spin_unlock(&pool->lock);
	return err;
}

/* All that the old one keeps, and those before it: no chain of heirs gets longer than one. */
static unsigned int inherit_locked(struct shmk_pool *old, struct shmk_pool *new)
{
	struct shmk_pool *pool;
	unsigned int nr = 0;

	lockdep_assert_held(&pools_lock);
	list_for_each_entry(pool, &old->forebears, node_in_forebears) {
		pool->heir = new;
		nr++;
	}
	list_splice_init(&old->forebears, &new->forebears);
	list_add(&old->node_in_forebears, &new->forebears);
	old->heir = new;
	refcount_add(nr + 1, &new->refs);
	return nr;
}

/* Name, persistence and heritage go over at once. -EBUSY: somebody has come since. */
static int succeed(struct shmk_pool *old, struct shmk_pool *new, bool force)
{
	unsigned int nr_refs = 0;
	int err;

	mutex_lock(&pools_lock);
	err = mark_reset(old, force);
	if (!err) {
		old->named = false;
		new->named = true;
		publish_locked(new);
		nr_refs = inherit_locked(old, new);
		if (old->persistent) {
			nr_refs++;
			module_put(THIS_MODULE);	/* the new one has its own */
		}
		old->persistent = false;
	}
	mutex_unlock(&pools_lock);
	while (nr_refs--)
		shmk_pool_put(old);	/* not the last: we have one */
	return err;
}

/* Nothing can be seen of an old pool by name while the new one takes its place in sysfs. */
static int replace(struct shmk_pool *old, struct shmk_pool *new, bool force)
{
	int err;

	shmk_sysfs_del(old);
	shmk_pass(SHMK_AT_RESET_HIDDEN);
	err = shmk_sysfs_add(new) ?: shmk_point(SHMK_AT_RESET_SHOWN);
	if (!err)
		err = succeed(old, new, force);
	if (!err)
		return 0;
	/* If there is no memory for this either, it is a pool that sysfs does not show. */
	shmk_sysfs_del(new);
	shmk_sysfs_add(old);
	return err;
}

static bool is_persistent(struct shmk_pool *pool)
{
	bool persistent;

	mutex_lock(&pools_lock);
	persistent = pool->persistent;
	mutex_unlock(&pools_lock);
	return persistent;
}

static struct shmk_pool *make_like(struct shmk_pool *old)
{
	struct shmk_pool_create args = args_of(old, is_persistent(old));

	return make(&args, old);
}

/**
 * shmk_pool_reset() - a new pool takes the place of an old one
 * @args: checked by the caller but for the name
 *
 * Return: 0, -EINVAL, -ENOENT, -EPERM, -EBUSY, -ENOMEM or -EINTR.
 */
int shmk_pool_reset(const struct shmk_pool_reset *args)
{
	struct shmk_event event = { .type = SHMK_EV_RESET };
	bool force = args->flags & SHMK_RESET_F_FORCE;
	struct shmk_pool *old, *new;
	int err;

	if (!shmk_name_valid(args->name))
		return -EINVAL;
	old = claim(args->name, force, false);
	if (IS_ERR(old))
		return PTR_ERR(old);
	new = make_like(old);
	err = PTR_ERR_OR_ZERO(new);
	if (!err) {
		err = replace(old, new, force);
		shmk_pool_put(new);
	}
	if (err) {
		unclaim(old);
	} else {
		shmk_event_push(old, &event, NULL, current_euid());
		trace_shmk_pool_reset(old);
		shmk_event_wake(old);
		shmk_queue_wake_all(old);
	}
	shmk_pool_put(old);
	return err;
}

/* ------------------------------------------------------------- telling -- */

/* All counters but magic are words that only the kernel writes, under pool->lock. */
void shmk_pool_count_locked(struct shmk_pool *pool, u64 *counter, s64 change)
{
	lockdep_assert_held(&pool->lock);
	WRITE_ONCE(*counter, *counter + change);
}

/**
 * shmk_pool_usage() - count blocks in use
 * @pool: the pool
 * @usage: zeroed; added to
 *
 * Return: 0, or -EINTR when the caller is being killed.
 */
int shmk_pool_usage(struct shmk_pool *pool, struct shmk_settled *usage)
{
	const u32 step = 64;
	u32 first, nr = pool->view.nr_spans;

	for (first = 0; first < nr; first += step) {
		if (fatal_signal_pending(current))
			return -EINTR;
		shmk_settle_usage(&pool->view, first, min(first + step, nr), usage);
		cond_resched();
	}
	return 0;
}

static void info_identity(struct shmk_pool *pool, struct shmk_pool_info *info)
{
	struct shmk_status *s = pool->status;

	info->id = pool->id;
	info->bytes = s->data_bytes;
	info->memory_bytes = pool->memory_bytes;
	info->page_shift = s->page_shift;
	info->unit_shift = s->unit_shift;
	info->node = pool->node;
	info->mode = pool->mode;
	info->uid = from_kuid_munged(current_user_ns(), pool->uid);
	info->gid = from_kgid_munged(current_user_ns(), pool->gid);
	info->nr_peers = s->nr_peers;
	info->nr_queues = s->nr_queues;
	info->created_ns = s->created_ns;

	mutex_lock(&pools_lock);
	info->flags = pool->persistent ? SHMK_POOL_F_PERSIST : 0;
	info->flags |= s->flags & (SHMK_POOL_F_RESET | SHMK_POOL_F_DRAIN |
				   SHMK_POOL_F_NO_QUARANTINE);
	if (pool->named)
		memcpy(info->name, pool->name, sizeof(info->name));
	mutex_unlock(&pools_lock);
}

static void info_counters(struct shmk_pool *pool, struct shmk_pool_info *info)
{
	struct shmk_status *s = pool->status;

	spin_lock(&pool->lock);
	info->peers_now = s->peers_now;
	info->queues_now = s->queues_now;
	info->attaches = s->attaches;
	info->detaches = s->detaches;
	info->deaths = s->deaths;
	info->reclaimed_blocks = s->reclaimed_blocks;
	info->reclaimed_bytes = s->reclaimed_bytes;
	info->lost_messages = s->lost_messages;
	info->redelivered = s->redelivered;
	spin_unlock(&pool->lock);
}

/* All about a pool but what would have to be counted. */
void shmk_pool_brief(struct shmk_pool *pool, struct shmk_pool_info *info)
{
	*info = (struct shmk_pool_info){ .size = sizeof(*info) };
	info_identity(pool, info);
	info_counters(pool, info);
}

/**
 * shmk_pool_info() - all about a pool, in the caller's ids
 *
 * Return: 0, or -EINTR when the caller is being killed.
 */
int shmk_pool_info(struct shmk_pool *pool, struct shmk_pool_info *info)
{
	struct shmk_settled usage = { };
	int err;

	*info = (struct shmk_pool_info){ .size = sizeof(*info) };
	info_identity(pool, info);
	err = shmk_pool_usage(pool, &usage);
	info_counters(pool, info);
	info->blocks_used = usage.blocks;
	info->bytes_used = usage.bytes;
	return err;
}

/* The lines that the fdinfo of every file of a pool begins with. */
void shmk_pool_show(struct seq_file *m, const struct shmk_pool *pool)
{
	seq_printf(m, "pool:\t%s\n", pool->name);
	seq_printf(m, "pool-id:\t%llu\n", pool->id);
	seq_printf(m, "pool-memory:\t%llu\n", pool->memory_bytes);
}

/* ---------------------------------------------------------- pool files -- */

static void pool_file_show(struct seq_file *m, struct file *file)
{
	struct shmk_pool_file *pf = file->private_data;

	shmk_reader_show(m, file);
	seq_printf(m, "rdonly:\t%d\n", pf->rdonly);
}

static int pool_file_release(struct inode *inode, struct file *file)
{
	struct shmk_pool_file *pf = file->private_data;

	shmk_reader_exit(&pf->reader);
	kfree(pf);
	return 0;
}

static const struct file_operations pool_file_ops = {
	.owner		= THIS_MODULE,
	.read		= shmk_reader_read,
	.poll		= shmk_reader_poll,
	.unlocked_ioctl	= shmk_pool_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.show_fdinfo	= pool_file_show,
	.release	= pool_file_release,
};

/**
 * shmk_pool_file() - a file that may attach and reads events
 * @pool: takes a reference of its own
 * @rdonly: only read-only attachments
 */
struct file *shmk_pool_file(struct shmk_pool *pool, bool rdonly)
{
	struct shmk_pool_file *pf;
	struct file *file;

	pf = kzalloc(sizeof(*pf), GFP_KERNEL_ACCOUNT);
	if (!pf)
		return ERR_PTR(-ENOMEM);
	shmk_reader_init(&pf->reader, pool);
	pf->rdonly = rdonly;
	file = anon_inode_getfile("[shmk-pool]", &pool_file_ops, pf,
				  rdonly ? O_RDONLY : O_RDWR);
	if (IS_ERR(file)) {
		shmk_reader_exit(&pf->reader);
		kfree(pf);
		return file;
	}
	stream_open(file_inode(file), file);
	return file;
}
