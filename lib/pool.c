// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * pool.c - pools by their names, and the life of an attachment.
 *
 * A URI names a backend and a pool. What the backend does not do is here: the
 * checks that are the same for both, waiting for a pool to appear, and the
 * order in which an attachment is built and taken apart.
 *
 * No mapping of a pool survives fork (MADV_DONTFORK). A child that touches its
 * parent's attachment faults instead of spoiling what the parent holds, and to
 * forget an attachment means to leave the addresses alone: by then they may
 * carry something else of the child's.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define POLL_FIRST_NS	100000LL	/* waiting for a name: from here ... */
#define POLL_LAST_NS	10000000LL	/* ... up to here */

const char *shmk_version(void)
{
	return SHMK_VERSION;
}

/* --------------------------------------------------------------- names -- */

static bool name_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}

bool name_valid(const char *name)
{
	size_t len;

	if (name[0] == '.' || name[0] == '-')
		return false;
	for (len = 0; name[len]; len++)
		if (len == SHMK_NAME_LEN - 1 || !name_char(name[len]))
			return false;
	return len > 0;
}

static const struct shmk_backend *backend_by_scheme(const char *scheme, size_t len)
{
	static const struct shmk_backend *const all[] = {
		&shmk_module_backend, &shmk_local_backend,
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strlen(all[i]->scheme) == len && !memcmp(all[i]->scheme, scheme, len))
			return all[i];
	return NULL;
}

/* *@name points into @uri; it is empty for an anonymous pool. */
int uri_parse(const char *uri, const struct shmk_backend **backend, const char **name)
{
	const char *colon = uri ? strchr(uri, ':') : NULL;

	if (!uri)
		return -EINVAL;
	if (colon) {
		*backend = backend_by_scheme(uri, colon - uri);
		*name = colon + 1;
		return *backend && (!**name || name_valid(*name)) ? 0 : -EINVAL;
	}
	if (!name_valid(uri))
		return -EINVAL;
	*name = uri;
	*backend = shmk_module_backend.present() ? &shmk_module_backend : &shmk_local_backend;
	return 0;
}

static int uri_parse_named(const char *uri, const struct shmk_backend **backend,
			   const char **name)
{
	int ret = uri_parse(uri, backend, name);

	return ret ? ret : **name ? 0 : -EINVAL;
}

/* --------------------------------------------------------------- pools -- */

int shmk_pool_create(const char *uri, const struct shmk_pool_opts *opts)
{
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	const char *name;
	int ret;

	if (!opts)
		return -EINVAL;
	ret = uri_parse_named(uri, &backend, &name);
	return ret ? ret : backend->pool_create(name, opts);
}

int shmk_pool_destroy(const char *uri)
{
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	const char *name;
	int ret = uri_parse_named(uri, &backend, &name);

	return ret ? ret : backend->pool_destroy(name, false);
}

int shmk_pool_drain(const char *uri)
{
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	const char *name;
	int ret = uri_parse_named(uri, &backend, &name);

	return ret ? ret : backend->pool_destroy(name, true);
}

int shmk_pool_reset(const char *uri, unsigned int flags)
{
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	const char *name;
	int ret = uri_parse_named(uri, &backend, &name);

	if (!ret && flags & ~SHMK_RESET_FORCE)
		ret = -EINVAL;
	return ret ? ret : backend->pool_reset(name, flags & SHMK_RESET_FORCE);
}

int shmk_pool_cleanup(const char *uri)
{
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	const char *name;
	int ret = uri_parse(uri, &backend, &name);

	return ret ? ret : backend->pool_cleanup(*name ? name : NULL);
}

static void stat_from_info(const struct shmk_backend *backend,
			   const struct shmk_pool_info *info, struct shmk_pool_stat *stat)
{
	*stat = (struct shmk_pool_stat) {
		.bytes = info->bytes,
		.memory_bytes = info->memory_bytes,
		.page_bytes = 1U << info->page_shift,
		.unit_bytes = 1U << info->unit_shift,
		.flags = (info->flags & SHMK_POOL_F_PERSIST ? SHMK_POOL_PERSIST : 0) |
			 (info->flags & SHMK_POOL_F_NO_QUARANTINE ? SHMK_POOL_NO_QUARANTINE : 0) |
			 (info->flags & SHMK_POOL_F_DRAIN ? SHMK_POOL_DRAINING : 0),
		.node = info->node,
		.mode = info->mode,
		.uid = info->uid,
		.gid = info->gid,
		.nr_peers = info->nr_peers,
		.nr_queues = info->nr_queues,
		.peers_now = info->peers_now,
		.queues_now = info->queues_now,
		.blocks_used = info->blocks_used,
		.bytes_used = info->bytes_used,
		.attaches = info->attaches,
		.detaches = info->detaches,
		.deaths = info->deaths,
		.reclaimed_blocks = info->reclaimed_blocks,
		.reclaimed_bytes = info->reclaimed_bytes,
		.lost_messages = info->lost_messages,
		.redelivered = info->redelivered,
		.age_ns = now_ns() - info->created_ns,
	};
	memcpy(stat->name, info->name, sizeof(stat->name));
	strcpy(stat->backend, backend->scheme);
}

static int list_backend(const struct shmk_backend *backend,
			int (*tell)(const struct shmk_pool_stat *info, void *arg), void *arg)
{
	struct shmk_pool_info info;
	struct shmk_pool_stat stat;
	__u64 id = 0;
	int ret;

	for (;;) {
		ret = backend->pool_next(id, &info);
		if (ret)
			return ret == -ENOENT ? 0 : ret;
		id = info.id;
		stat_from_info(backend, &info, &stat);
		ret = tell(&stat, arg);
		if (ret)
			return ret;
	}
}

int shmk_pool_list(const char *scheme,
		   int (*tell)(const struct shmk_pool_stat *info, void *arg), void *arg)
{
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	int ret = 0;

	if (!tell)
		return -EINVAL;
	if (scheme) {
		backend = backend_by_scheme(scheme, strlen(scheme));
		return backend ? list_backend(backend, tell, arg) : -EINVAL;
	}
	if (shmk_module_backend.present())
		ret = list_backend(&shmk_module_backend, tell, arg);
	return ret ? ret : list_backend(&shmk_local_backend, tell, arg);
}

int shmk_pool_stat(struct shmk *s, struct shmk_pool_stat *stat)
{
	ERRNO_KEPT;
	struct shmk_pool_info info;
	int ret;

	/* What nobody asked for is not to be found in what is counted. */
	if (!READ_ONCE(s->store.asked))
		store_sleeps(s);
	ret = s->backend->pool_info(s, &info);
	if (!ret)
		stat_from_info(s->backend, &info, stat);
	return ret;
}

/* ------------------------------------------------ what both backends need -- */

/* At an address that is not NULL nothing else may be: -EADDRINUSE. */
int region_map_at(void *at, int fd, uint64_t offset, uint64_t bytes, int prot, void *out)
{
	int flags = MAP_SHARED | (at ? MAP_FIXED_NOREPLACE : 0);
	void *addr = mmap(at, bytes, prot, flags, fd, offset);

	if (addr == MAP_FAILED)
		return errno == EEXIST ? -EADDRINUSE : -errno;
	if (madvise(addr, bytes, MADV_DONTFORK)) {
		int ret = -errno;

		munmap(addr, bytes);
		return ret;
	}
	memcpy(out, &addr, sizeof(addr));
	return 0;
}

int region_map(int fd, uint64_t offset, uint64_t bytes, int prot, void *out)
{
	return region_map_at(NULL, fd, offset, bytes, prot, out);
}

/* Of whole pools of this version only: who reads a magic reads everything. */
int status_check(const struct shmk_status *status)
{
	if (smp_load_acquire(&status->magic) != SHMK_LAYOUT_MAGIC ||
	    status->version != SHMK_LAYOUT_VERSION)
		return -EPROTO;
	return 0;
}

/*
 * The word first: what a READY word publishes stays until nobody has the queue
 * open. Pairs with the release of the word where the queue is made.
 */
static void view_queue(const struct shmk_view *view, __u32 id, struct shmk_ring_view *rv)
{
	const struct shmk *s = view->owner;
	const struct shmk_queue_status *q;

	rv->slots = NULL;
	if (id >= view->nr_queues)
		return;
	q = (const void *)((const char *)s->status + s->status->queues_off);
	q += id;
	if (SHMK_QUEUE_STATE(smp_load_acquire(&q->word)) != SHMK_QUEUE_READY)
		return;
	rv->ring = (void *)(s->control + READ_ONCE(q->ring));
	rv->capacity_shift = __builtin_ctz(READ_ONCE(q->capacity));
	rv->slot_bytes = READ_ONCE(q->slot_bytes);
	rv->flags = SHMK_QUEUE_FLAGS(READ_ONCE(q->word));
	rv->max_tries = READ_ONCE(q->max_tries);
	rv->slots = (void *)(rv->ring + 1);
}

void view_init(struct shmk *s)
{
	const struct shmk_status *status = s->status;

	s->data_bytes = status->data_bytes;
	s->view = (struct shmk_view) {
		.spans = (void *)(s->control + status->spans_off),
		.taken_map = (void *)(s->control + status->taken_map_off),
		.stale_map = (void *)(s->control + status->stale_map_off),
		.blocks = (void *)(s->control + status->blocks_off),
		.nr_spans = status->nr_spans,
		.unit_shift = status->unit_shift,
		.nr_queues = status->nr_queues,
		.queue = view_queue,
		.owner = s,
	};
}

/* --------------------------------------------------------- attachments -- */

static int populate(void *addr, uint64_t bytes, bool writable)
{
	if (!madvise(addr, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ))
		return 0;
	return errno == EINVAL ? 0 : -errno;	/* a kernel before 5.14: at first touch then */
}

static int prefault(struct shmk *s)
{
	uint64_t ledger = sizeof(*s->ledger) + s->nr_entries * sizeof(struct shmk_entry);
	uint64_t page = sysconf(_SC_PAGESIZE);
	int ret;

	ret = populate(s->ledger, (ledger + page - 1) & -page, true);
	if (!ret)
		ret = populate(s->control, s->status->control_bytes, !s->rdonly);
	if (!ret)
		ret = populate(s->data, s->data_bytes, !s->rdonly);
	return ret;
}

/* Names have no notification: look again, at growing distances. */
static int attach_wait(struct shmk *s, const char *name, const struct shmk_attach_opts *opts)
{
	int64_t slice = POLL_FIRST_NS;

	for (;;) {
		int ret = s->backend->attach(s, name, opts);
		int64_t left;

		if (ret != -ENOENT || opts->create || opts->deadline == SHMK_TRY)
			return ret;
		left = opts->deadline - now_ns();
		if (left <= 0)
			return -ETIMEDOUT;
		if (slice > left)
			slice = left;
		nanosleep(&(struct timespec) { .tv_nsec = slice }, NULL);
		slice = slice * 2 > POLL_LAST_NS ? POLL_LAST_NS : slice * 2;
	}
}

static int opts_check(const struct shmk_attach_opts *opts, const struct shmk_backend *backend,
		      const char *name)
{
	const uint32_t known = SHMK_ATTACH_RDONLY | SHMK_ATTACH_NO_URING |
			       SHMK_ATTACH_PREFAULT | SHMK_ATTACH_AT | SHMK_ATTACH_ONE_THREAD |
			       SHMK_ATTACH_NO_MEMBARRIER;

	if (opts->flags & ~known || opts->nr_entries > SHMK_ENTRIES_MAX || opts->pool_fd < 0)
		return -EINVAL;
	if (opts->exclusive && !opts->create)
		return -EINVAL;
	/* Programs from before there was data_at have no such flag. */
	if (opts->flags & SHMK_ATTACH_AT &&
	    (!opts->data_at || (uintptr_t)opts->data_at % (uintptr_t)sysconf(_SC_PAGESIZE)))
		return -EINVAL;
	if (opts->pool_fd && (*name || opts->create))
		return -EINVAL;
	if (opts->pool_fd && !backend->pool_fd)
		return -EOPNOTSUPP;
	return *name || opts->create || opts->pool_fd ? 0 : -EINVAL;
}

static int attach_finish(struct shmk *s, const struct shmk_attach_opts *opts)
{
	int ret;

	ret = ledger_init(s);
	if (ret)
		return ret;
	ret = heap_init(s);
	if (ret)
		goto undo_ledger;
	ret = wait_init(s);
	if (ret)
		goto undo_heap;
	ret = s->backend->events_open(s, &s->events);
	if (ret)
		goto undo_wait;
	if (opts->flags & SHMK_ATTACH_PREFAULT)
		ret = prefault(s);
	if (ret)
		goto undo_events;
	return 0;

undo_events:
	s->backend->events_close(s, s->events);
undo_wait:
	wait_exit(s);
undo_heap:
	heap_exit(s);
undo_ledger:
	ledger_exit(s);
	return ret;
}

static int attach(struct shmk *s, const char *name, const struct shmk_attach_opts *opts)
{
	int ret;

	s->pid = getpid();
	s->rdonly = opts->flags & SHMK_ATTACH_RDONLY;
	s->lock.none = opts->flags & SHMK_ATTACH_ONE_THREAD;
	if (!(opts->flags & (SHMK_ATTACH_ONE_THREAD | SHMK_ATTACH_NO_MEMBARRIER)))
		lock_bias_init();
	s->no_uring = opts->flags & SHMK_ATTACH_NO_URING;
	s->spin_us = opts->spin_us;
	s->data_at = opts->flags & SHMK_ATTACH_AT ? opts->data_at : NULL;
	ret = attach_wait(s, name, opts);
	if (ret)
		return ret;
	view_init(s);
	ret = attach_finish(s, opts);
	if (ret)
		s->backend->detach(s, false);
	return ret;
}

int shmk_attach(const char *uri, const struct shmk_attach_opts *opts, struct shmk **out)
{
	static const struct shmk_attach_opts defaults;
	ERRNO_KEPT;
	const struct shmk_backend *backend;
	const char *name;
	struct shmk *s;
	int ret;

	if (!opts)
		opts = &defaults;
	ret = uri_parse(uri, &backend, &name);
	if (!ret)
		ret = opts_check(opts, backend, name);
	if (ret)
		return ret;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->backend = backend;
	ret = attach(s, name, opts);
	if (ret) {
		free(s);
		return ret;
	}
	*out = s;
	return 0;
}

/*
 * A forked child lets go of what fork copied: memory and file descriptors. It
 * writes nothing that is shared, and takes no lock, which one of the parent's
 * threads may have held at the fork.
 */
static void queues_forget(struct shmk_queue **list)
{
	struct shmk_queue *q;

	while ((q = *list)) {
		*list = q->next;
		for (int side = 0; side < 2; side++)
			if (q->side[side].fd >= 0)
				close(q->side[side].fd);
		free(q);
	}
}

void shmk_detach(struct shmk *s)
{
	ERRNO_KEPT;
	bool forget;

	if (!s)
		return;
	forget = s->pid != getpid();
	/* What the program has freed is nothing that this peer leaves behind. */
	if (!forget)
		store_sleeps(s);
	pollers_exit(s);
	mail_exit(s);
	if (!forget)
		while (s->topics)
			shmk_topic_close(s->topics);
	if (forget) {
		queues_forget(&s->queues);
		queues_forget(&s->closing);
		topics_forget(s);
	}
	queues_close(s);
	s->backend->events_close(s, s->events);
	wait_exit(s);
	heap_exit(s);
	ledger_exit(s);
	s->backend->detach(s, forget);
	free(s);
}

uint32_t shmk_self(const struct shmk *s)
{
	return s->self;
}

uint32_t shmk_self_gen(const struct shmk *s)
{
	return s->gen;
}

int shmk_pool_fd(const struct shmk *s)
{
	return s->backend->pool_fd ? s->backend->pool_fd(s) : -EOPNOTSUPP;
}

bool shmk_contains(const struct shmk *s, const void *ptr, size_t len)
{
	size_t offset = (uintptr_t)ptr - (uintptr_t)s->data;

	/* An address before the data wraps to an offset behind it. */
	return offset <= s->data_bytes && len <= s->data_bytes - offset;
}
