// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * module.c - the backend that asks the kernel.
 *
 * Thin: one ioctl for each thing asked for. What the kernel tells about where
 * its regions are is believed; the versions are compared before anything is
 * looked at.
 *
 * An attachment has two files: the pool's, which can be passed on, and its
 * own, through which everything is mapped and asked.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#define LEAVING_NS	2000000000	/* for a pool whose last peer has ended to go */

struct module {
	int		pool;
	int		attachment;
	uint64_t	status_bytes;
	uint64_t	ledger_bytes;
	uint64_t	ledgers_bytes;
};

static struct module *module_of(const struct shmk *s)
{
	return s->priv;
}

static int call(int fd, unsigned long command, void *arg)
{
	int ret = ioctl(fd, command, arg);

	return ret < 0 ? -errno : ret;
}

/* ---------------------------------------------------------------- device -- */

/* -ENOENT means "no such pool" to the callers: no module is -ENODEV. */
static int device_open(void)
{
	int fd = open(SHMK_DEVICE, O_RDWR | O_CLOEXEC);
	struct shmk_info info = { .size = sizeof(info) };
	int ret;

	if (fd < 0)
		return errno == ENOENT ? -ENODEV : -errno;
	ret = call(fd, SHMK_IOC_INFO, &info);
	if (ret >= 0 && info.abi_version == SHMK_ABI_VERSION &&
	    info.layout_version == SHMK_LAYOUT_VERSION)
		return fd;
	close(fd);
	return ret == -EINVAL || ret >= 0 ? -EPROTO : ret;
}

static bool module_present(void)
{
	int fd = open(SHMK_DEVICE, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static int device_call(unsigned long command, void *arg)
{
	int device = device_open();
	int ret;

	if (device < 0)
		return device;
	ret = call(device, command, arg);
	close(device);
	return ret;
}

/* ----------------------------------------------------------------- pools -- */

static int pool_make(int device, const char *name, const struct shmk_pool_opts *opts)
{
	struct shmk_pool_create arg = {
		.size = sizeof(arg),
		.bytes = opts->bytes,
		.node = opts->set_node ? opts->node : -1,
		.mode = opts->mode ? opts->mode : 0600,
		.uid = opts->set_owner ? opts->uid : (uint32_t)-1,
		.gid = opts->set_owner ? opts->gid : (uint32_t)-1,
		.nr_peers = opts->nr_peers,
		.nr_queues = opts->nr_queues,
		.rings_bytes = opts->rings_bytes,
	};

	if (opts->flags & ~(SHMK_POOL_PERSIST | SHMK_POOL_NO_QUARANTINE))
		return -EINVAL;
	if (opts->page_bytes && opts->page_bytes != 4096 && opts->page_bytes != 2U << 20)
		return -EINVAL;
	if (opts->unit_bytes & (opts->unit_bytes - 1))
		return -EINVAL;
	if (opts->flags & SHMK_POOL_PERSIST)
		arg.flags |= SHMK_POOL_F_PERSIST;
	if (opts->flags & SHMK_POOL_NO_QUARANTINE)
		arg.flags |= SHMK_POOL_F_NO_QUARANTINE;
	arg.page_shift = opts->page_bytes == 2U << 20 ? 21 : 12;
	arg.unit_shift = opts->unit_bytes ? __builtin_ctz(opts->unit_bytes) : 0;
	strcpy(arg.name, name);
	return call(device, SHMK_IOC_POOL_CREATE, &arg);
}

static int pool_find(int device, const char *name, bool rdonly)
{
	struct shmk_pool_open arg = {
		.size = sizeof(arg), .flags = rdonly ? SHMK_OPEN_F_RDONLY : 0,
	};

	strcpy(arg.name, name);
	return call(device, SHMK_IOC_POOL_OPEN, &arg);
}

static int module_pool_next(__u64 id, struct shmk_pool_info *info)
{
	*info = (struct shmk_pool_info) { .size = sizeof(*info), .id = id };
	return device_call(SHMK_IOC_POOL_NEXT, info);
}

/* The pool of that name, if the caller may see it; of none: -ENOENT. */
static int pool_named(const char *name, struct shmk_pool_info *info)
{
	__u64 id = 0;
	int ret;

	while (!(ret = module_pool_next(id, info))) {
		id = info->id;
		if (name && !strcmp(name, info->name))
			return 0;
	}
	return ret;
}

/* Dead ones that are still being settled are none. */
static bool has_living_peer(int device, const char *name)
{
	struct shmk_peer_info info = { .size = sizeof(info) };
	int fd = pool_find(device, name, true);
	bool living = fd < 0 && fd != -ENOENT;

	while (fd >= 0 && !living && !call(fd, SHMK_IOC_PEER_INFO, &info)) {
		living = info.state == SHMK_PEER_ALIVE;
		info.peer++;
	}
	if (fd >= 0)
		close(fd);
	return living;
}

/*
 * All peers have ended, nobody asked to keep it: it goes with the last reference, which a
 * worker of the kernel may just be about to let go. A pool that nobody has attached to
 * yet is not meant. One that is not seen is half gone, or not for our eyes.
 */
static bool pool_is_leaving(int device, const char *name)
{
	struct shmk_pool_info info;

	if (pool_named(name, &info))
		return true;
	if (!info.attaches || info.flags & SHMK_POOL_F_PERSIST)
		return false;
	return !info.peers_now || !has_living_peer(device, name);
}

/* Who has seen the last peer end shall not be told that its pool exists. */
static int pool_make_soon(int device, const char *name, const struct shmk_pool_opts *opts)
{
	int64_t deadline = now_ns() + LEAVING_NS;
	int fd;

	while ((fd = pool_make(device, name, opts)) == -EEXIST && now_ns() < deadline &&
	       pool_is_leaving(device, name))
		usleep(500);
	return fd;
}

static int module_pool_create(const char *name, const struct shmk_pool_opts *opts)
{
	int device = device_open();
	int fd;

	if (device < 0)
		return device;
	fd = pool_make_soon(device, name, opts);
	close(device);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int module_pool_destroy(const char *name, bool drain)
{
	struct shmk_pool_destroy arg = {
		.size = sizeof(arg), .flags = drain ? SHMK_DESTROY_F_DRAIN : 0,
	};

	strcpy(arg.name, name);
	return device_call(SHMK_IOC_POOL_DESTROY, &arg);
}

static int module_pool_reset(const char *name, bool force)
{
	struct shmk_pool_reset arg = {
		.size = sizeof(arg), .flags = force ? SHMK_RESET_F_FORCE : 0,
	};

	strcpy(arg.name, name);
	return device_call(SHMK_IOC_POOL_RESET, &arg);
}

/* The kernel has removed all that could be; one that exists is in use or persistent. */
static int module_pool_cleanup(const char *name)
{
	struct shmk_pool_info info;
	int ret = pool_named(name, &info);

	if (ret == -ENOENT && !name)
		return 0;
	return ret ? ret : info.peers_now ? -EBUSY : 0;
}

/* ----------------------------------------------------------- attachments -- */

/* Another may make or remove it between the two. */
static int pool_open_or_make(int device, const char *name, const struct shmk_attach_opts *opts)
{
	bool rdonly = opts->flags & SHMK_ATTACH_RDONLY;
	int fd;

	do {
		fd = *name && !opts->exclusive ? pool_find(device, name, rdonly) : -ENOENT;
		if (fd == -ENOENT && opts->create)
			fd = pool_make_soon(device, name, opts->create);
	} while (fd == -EEXIST && !opts->exclusive);
	return fd;
}

static int pool_fd_get(const char *name, const struct shmk_attach_opts *opts)
{
	int device, fd;

	if (opts->pool_fd) {
		fd = fcntl(opts->pool_fd, F_DUPFD_CLOEXEC, 0);
		return fd < 0 ? -errno : fd;
	}
	device = device_open();
	if (device < 0)
		return device;
	fd = pool_open_or_make(device, name, opts);
	close(device);
	return fd;
}

/* The size of the status region stands in its first page. */
static int status_map(struct shmk *s, struct module *m)
{
	const struct shmk_status *first;
	long page = sysconf(_SC_PAGESIZE);
	int ret = region_map(m->attachment, 0, page, PROT_READ, &first);

	if (ret)
		return ret;
	ret = status_check(first);
	m->status_bytes = first->status_bytes;
	munmap((void *)first, page);
	return ret ? ret : region_map(m->attachment, 0, m->status_bytes, PROT_READ, &s->status);
}

static int regions_map(struct shmk *s, struct module *m)
{
	int fd = m->attachment;
	int prot = s->rdonly ? PROT_READ : PROT_READ | PROT_WRITE;
	const struct shmk_status *st;
	const struct shmk_peer_status *peers;
	int ret = status_map(s, m);

	if (ret)
		return ret;
	st = s->status;
	peers = (const void *)((const char *)st + st->peers_off);
	s->nr_entries = peers[s->self].nr_entries;
	m->ledger_bytes = sizeof(*s->ledger) + s->nr_entries * sizeof(struct shmk_entry);
	m->ledgers_bytes = st->ledger_stride * (st->nr_peers + 1);
	ret = region_map(fd, st->map_ledger + s->self * st->ledger_stride, m->ledger_bytes,
			 PROT_READ | PROT_WRITE, &s->ledger);
	if (!ret)
		ret = region_map(fd, st->map_ledger, m->ledgers_bytes, PROT_READ, &s->ledgers);
	if (!ret)
		ret = region_map(fd, st->map_control, st->control_bytes, prot, &s->control);
	if (!ret)
		ret = region_map_at(s->data_at, fd, st->map_data, st->data_bytes, prot, &s->data);
	return ret;
}

static void regions_unmap(struct shmk *s, struct module *m)
{
	if (s->data)
		munmap(s->data, s->status->data_bytes);
	if (s->control)
		munmap(s->control, s->status->control_bytes);
	if (s->ledgers)
		munmap((void *)s->ledgers, m->ledgers_bytes);
	if (s->ledger)
		munmap(s->ledger, m->ledger_bytes);
	if (s->status)
		munmap((void *)s->status, m->status_bytes);
}

static int attachment_make(struct shmk *s, struct module *m, uint32_t nr_entries)
{
	struct shmk_attach arg = {
		.size = sizeof(arg),
		.flags = s->rdonly ? SHMK_ATTACH_F_RDONLY : 0,
		.nr_entries = nr_entries,
	};

	/* Registering with the mm gives up when a signal is pending, a SIGCONT too. */
	do
		m->attachment = call(m->pool, SHMK_IOC_ATTACH, &arg);
	while (m->attachment == -EINTR);
	if (m->attachment < 0)
		return m->attachment;
	s->self = arg.peer;
	s->gen = arg.gen;
	return 0;
}

static void files_close(struct shmk *s, struct module *m)
{
	if (m->attachment >= 0)
		close(m->attachment);
	if (m->pool >= 0)
		close(m->pool);
	free(m);
	s->priv = NULL;
}

/*
 * Unmapped first: the kernel then has no page table entries to take away. A
 * forked child has none of the mappings and is not the peer: its DETACH would
 * be -ENXIO.
 */
static void module_detach(struct shmk *s, bool forget)
{
	struct module *m = module_of(s);

	if (!forget) {
		regions_unmap(s, m);
		call(m->attachment, SHMK_IOC_DETACH, NULL);
	}
	s->status = NULL;
	s->ledger = NULL;
	s->ledgers = NULL;
	s->control = s->data = NULL;
	files_close(s, m);
}

static int module_attach(struct shmk *s, const char *name, const struct shmk_attach_opts *opts)
{
	struct module *m = malloc(sizeof(*m));
	int ret;

	if (!m)
		return -ENOMEM;
	*m = (struct module) { .pool = -1, .attachment = -1 };
	s->priv = m;
	ret = m->pool = pool_fd_get(name, opts);
	if (ret < 0)
		goto close;
	ret = attachment_make(s, m, opts->nr_entries);
	if (ret)
		goto close;
	ret = regions_map(s, m);
	if (!ret)
		return 0;
	module_detach(s, false);
	return ret;

close:
	files_close(s, m);
	return ret;
}

static int module_pool_info(struct shmk *s, struct shmk_pool_info *info)
{
	*info = (struct shmk_pool_info) { .size = sizeof(*info) };
	return call(module_of(s)->attachment, SHMK_IOC_POOL_INFO, info);
}

static int module_pool_fd(const struct shmk *s)
{
	return module_of(s)->pool;
}

static int module_peer_info(struct shmk *s, struct shmk_peer_info *info)
{
	info->size = sizeof(*info);
	return call(module_of(s)->attachment, SHMK_IOC_PEER_INFO, info);
}

static int module_capsule(struct shmk *s, struct shmk_capsule *capsule)
{
	return call(module_of(s)->attachment, SHMK_IOC_CAPSULE, capsule);
}

static int module_stuck_after(struct shmk *s, __u32 ms)
{
	struct shmk_deadline arg = { .size = sizeof(arg), .ms = ms };

	return call(module_of(s)->attachment, SHMK_IOC_DEADLINE, &arg);
}

/* ---------------------------------------------------------------- queues -- */

/* The kernel says -EACCES; the library has one word for it on both backends. */
static int module_queue_create(struct shmk *s, struct shmk_queue_create *arg)
{
	if (s->rdonly)
		return -EROFS;
	arg->size = sizeof(*arg);
	return call(module_of(s)->attachment, SHMK_IOC_QUEUE_CREATE, arg);
}

static int module_queue_open(struct shmk *s, struct shmk_queue_open *arg)
{
	arg->size = sizeof(*arg);
	return call(module_of(s)->attachment, SHMK_IOC_QUEUE_OPEN, arg);
}

static int module_queue_close(struct shmk *s, __u32 id, __u32 gen)
{
	struct shmk_queue_close arg = { .size = sizeof(arg), .id = id, .gen = gen };

	return call(module_of(s)->attachment, SHMK_IOC_QUEUE_CLOSE, &arg);
}

static int module_queue_remove(struct shmk *s, __u32 id, __u32 gen)
{
	struct shmk_queue_close arg = { .size = sizeof(arg), .id = id, .gen = gen };

	return call(module_of(s)->attachment, SHMK_IOC_QUEUE_REMOVE, &arg);
}

static int module_queue_drain(struct shmk *s, __u32 id, __u32 gen)
{
	struct shmk_queue_close arg = { .size = sizeof(arg), .id = id, .gen = gen };

	return call(module_of(s)->attachment, SHMK_IOC_QUEUE_DRAIN, &arg);
}

static int module_topic_subscribe(struct shmk *s, struct shmk_topic_subscribe *arg)
{
	arg->size = sizeof(*arg);
	return call(module_of(s)->attachment, SHMK_IOC_TOPIC_SUBSCRIBE, arg);
}

static int module_topic_unsubscribe(struct shmk *s, __u32 id, __u32 row)
{
	struct shmk_topic_unsubscribe arg = { .size = sizeof(arg), .id = id, .row = row };

	return call(module_of(s)->attachment, SHMK_IOC_TOPIC_UNSUBSCRIBE, &arg);
}

/* The kernel knows the writer of a topic from who would like to be. */
static int module_side_fd(struct shmk *s, __u32 queue, __u32 side, __u32 row, short *events)
{
	struct shmk_queue_fd arg = { .size = sizeof(arg), .id = queue, .side = side };

	if (row < ROW_CANDIDATE) {
		arg.flags = SHMK_QUEUE_FD_F_ROW;
		arg.row = row;
	}
	*events = side == SHMK_SIDE_RECV ? POLLIN : POLLOUT;
	return call(module_of(s)->attachment, SHMK_IOC_QUEUE_FD, &arg);
}

static void module_side_drain(struct shmk *s, int fd)
{
	(void)s;
	(void)fd;
}

static int module_bell(struct shmk *s, const struct shmk_bell_one *bells, unsigned int nr)
{
	struct shmk_bell arg = { .size = sizeof(arg) };
	int ret = 0;

	for (; nr && !ret; nr -= arg.nr, bells += arg.nr) {
		arg.nr = nr < SHMK_BELLS_MAX ? nr : SHMK_BELLS_MAX;
		arg.bells = (uintptr_t)bells;
		ret = call(module_of(s)->attachment, SHMK_IOC_BELL, &arg);
	}
	return ret;
}

/* The dead are the kernel's business, and so is when what a device had of them is free. */
static int module_reap(struct shmk *s)
{
	__u64 before = READ_ONCE(s->status->quarantined);

	if (!before)
		return 0;
	call(module_of(s)->attachment, SHMK_IOC_RELEASE, NULL);
	return READ_ONCE(s->status->quarantined) < before;
}

/* ---------------------------------------------------------------- events -- */

/* An event file, and what was read from it too early. */
struct stream {
	int			fd;
	bool			has_first;
	struct shmk_event	first;
};

static int event_read(const struct stream *st, struct shmk_event *event)
{
	ssize_t got;

	do
		got = read(st->fd, event, sizeof(*event));
	while (got < 0 && errno == EINTR);
	return got < 0 ? -errno : got == sizeof(*event) ? 0 : -EAGAIN;
}

/*
 * The attachment's own beginning is no news to it. If somebody else's event got in
 * between, that is kept, and our own stays behind it, so the fd is readable.
 */
static void skip_own_event(struct shmk *s, struct stream *st)
{
	if (!event_read(st, &st->first))
		st->has_first = st->first.type != SHMK_EV_ATTACHED ||
				st->first.peer != s->self || st->first.gen != s->gen;
}

static int module_events_open(struct shmk *s, void **stream)
{
	struct stream *st = calloc(1, sizeof(*st));
	int fd;

	if (!st)
		return -ENOMEM;
	/* The attachment file's reader began with the attachment itself. */
	if (stream == &s->events)
		fd = fcntl(module_of(s)->attachment, F_DUPFD_CLOEXEC, 0);
	else
		fd = call(module_of(s)->attachment, SHMK_IOC_EVENTS, NULL);
	if (fd == -1 && stream == &s->events)
		fd = -errno;
	if (fd < 0)
		goto err;
	fcntl(fd, F_SETFL, O_NONBLOCK);	/* cannot fail: the file has nothing to say to it */
	st->fd = fd;
	if (stream == &s->events)
		skip_own_event(s, st);
	*stream = st;
	return 0;

err:
	free(st);
	return fd;
}

static int module_events_fd(struct shmk *s, void *stream)
{
	(void)s;
	return ((struct stream *)stream)->fd;
}

static int module_events_next(struct shmk *s, void *stream, struct shmk_event *event)
{
	struct stream *st = stream;

	(void)s;
	if (!st->has_first)
		return event_read(st, event);
	*event = st->first;
	st->has_first = false;
	return 0;
}

static void module_events_close(struct shmk *s, void *stream)
{
	(void)s;
	close(((struct stream *)stream)->fd);
	free(stream);
}

const struct shmk_backend shmk_module_backend = {
	.scheme		= "shmk",
	.present	= module_present,
	.pool_create	= module_pool_create,
	.pool_destroy	= module_pool_destroy,
	.pool_reset	= module_pool_reset,
	.pool_next	= module_pool_next,
	.pool_cleanup	= module_pool_cleanup,
	.attach		= module_attach,
	.detach		= module_detach,
	.pool_info	= module_pool_info,
	.pool_fd	= module_pool_fd,
	.peer_info	= module_peer_info,
	.capsule	= module_capsule,
	.stuck_after	= module_stuck_after,
	.queue_create	= module_queue_create,
	.queue_open	= module_queue_open,
	.queue_close	= module_queue_close,
	.queue_remove	= module_queue_remove,
	.queue_drain	= module_queue_drain,
	.topic_subscribe = module_topic_subscribe,
	.topic_unsubscribe = module_topic_unsubscribe,
	.side_fd	= module_side_fd,
	.side_drain	= module_side_drain,
	.bell		= module_bell,
	.reap		= module_reap,
	.wait_slice_ns	= INT64_MAX,
	.events_open	= module_events_open,
	.events_fd	= module_events_fd,
	.events_next	= module_events_next,
	.events_close	= module_events_close,
};
