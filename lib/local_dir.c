// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * local_dir.c - a local pool's directory: made whole, opened, removed.
 *
 *   /dev/shm/shmk-NAME/		a pool
 *	lock		see local_lock.c
 *	meta		status region and ledgers; sparse, a ledger gets its
 *			memory when its peer comes
 *	pool		control and data; all memory is there from the start, so
 *			that nobody meets SIGBUS later
 *	events		written to wake those who watch it
 *	qID.GEN.r, .w	FIFOs that wake the sleepers of a side
 *	qID.GEN.c, .tROW	of a topic: who would like to be its writer, and each reader
 *   /dev/shm/.shmk-NAME.RANDOM/	a pool being made, or an anonymous one
 *
 * A pool gets its name by one rename(), as a whole. Removing it begins with the
 * word "gone", which turns away whoever has it open already, and ends with the
 * directory. A remover killed in between leaves ruins: a directory without some
 * of its files, or with "gone" set. Who comes next clears them away; the files
 * are removed through the directory's fd and the directory only if it is empty,
 * so no one can hit a pool that has got the name meanwhile.
 *
 * Who builds a pool holds its lock file locked, so ruins under a dotted name
 * are known by a lock file that nobody has locked. Builders that have only just
 * made their directory may be taken for ruins; they notice and start again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "local.h"

#define PREFIX		"shmk-"
#define PREFIX_LEN	(sizeof(PREFIX) - 1)
#define HUGE_BYTES	(2ULL << 20)
#define ALLOC_STEP	(16ULL << 20)
#define MAKE_TRIES	100

const char *base_path(void)
{
	const char *path = secure_getenv("SHMK_LOCAL_DIR");

	return path ? path : "/dev/shm";
}

static void fd_close(int fd)
{
	if (fd >= 0)
		close(fd);
}

static int base_open(void)
{
	int fd = open(base_path(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* -------------------------------------------------------------- removing -- */

static bool is_pool_file(const char *name)
{
	unsigned int id, gen, row;
	char side, more;

	return !strcmp(name, "meta") || !strcmp(name, "pool") ||
	       !strcmp(name, "events") || !strcmp(name, ".fifo") ||
	       sscanf(name, "q%u.%u.%c%c", &id, &gen, &side, &more) == 3 ||
	       sscanf(name, "q%u.%u.t%u%c", &id, &gen, &row, &more) == 3;
}

static int clear_file(int dir, const char *name)
{
	return unlinkat(dir, name, 0) && errno != ENOENT ? -errno : 0;
}

/* The lock file last: a directory without one is empty, or is just being made. */
static int clear_files(int dir)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;
	int ret = 0;

	if (!d) {
		ret = -errno;
		fd_close(fd);
		return ret;
	}
	while (!ret && (de = readdir(d)))
		if (is_pool_file(de->d_name))
			ret = clear_file(dir, de->d_name);
	closedir(d);
	return ret ? ret : clear_file(dir, "lock");
}

/* Does the name lead to another directory by now, or to none? */
static bool name_moved_on(int base, int dir, const char *dir_name)
{
	struct stat here, there;

	return fstat(dir, &here) || fstatat(base, dir_name, &there, AT_SYMLINK_NOFOLLOW) ||
	       here.st_dev != there.st_dev || here.st_ino != there.st_ino;
}

/* -EPROTO: there are files in it that are none of a pool's. */
static int dir_clear(int base, int dir, const char *dir_name)
{
	int ret = clear_files(dir);

	if (ret)
		return ret;
	if (!unlinkat(base, dir_name, AT_REMOVEDIR))
		return 0;
	ret = -errno;
	if (name_moved_on(base, dir, dir_name))
		return 0;
	return ret == -ENOTEMPTY || ret == -EEXIST ? -EPROTO : ret;
}

int dir_remove(struct shmk *s)
{
	struct local *l = local_of(s);
	int base = base_open();
	int ret;

	if (base < 0)
		return base;
	WRITE_ONCE(l->extra->gone, 1);
	ret = dir_clear(base, l->dir, l->dir_name);
	close(base);
	return ret;
}

/* --------------------------------------------------------------- mapping -- */

/* Where the local parts of the status region are follows from the public ones. */
static uint64_t extra_off(const struct shmk_status *st)
{
	return round_up(st->rows_off + st->nr_rows * sizeof(struct shmk_row), 64);
}

static uint64_t opens_off(const struct shmk_status *st)
{
	return round_up(extra_off(st) + sizeof(struct local_extra) +
			(st->nr_peers + 1) * sizeof(struct local_peer), sysconf(_SC_PAGESIZE));
}

static uint64_t opens_stride(const struct shmk_status *st)
{
	return round_up(st->nr_queues * sizeof(__u32), sysconf(_SC_PAGESIZE));
}

static int status_plan(struct shmk_status *st, const char *name,
		       const struct shmk_pool_opts *opts);

static uint64_t meta_bytes(const struct shmk_status *st)
{
	return st->map_ledger + st->ledger_stride * (st->nr_peers + 1);
}

static bool geometry_same(const struct shmk_status *a, const struct shmk_status *b)
{
	return a->nr_spans == b->nr_spans && a->nr_blocks == b->nr_blocks &&
	       a->rings_bytes == b->rings_bytes && a->control_bytes == b->control_bytes &&
	       a->spans_off == b->spans_off && a->taken_map_off == b->taken_map_off &&
	       a->stale_map_off == b->stale_map_off && a->blocks_off == b->blocks_off &&
	       a->rings_off == b->rings_off && a->map_control == b->map_control &&
	       a->map_data == b->map_data && a->peers_off == b->peers_off &&
	       a->queues_off == b->queues_off && a->rows_off == b->rows_off &&
	       a->nr_rows == b->nr_rows && a->status_bytes == b->status_bytes &&
	       a->map_ledger == b->map_ledger && a->ledger_stride == b->ledger_stride &&
	       a->page_shift == b->page_shift;
}

/*
 * Anybody can make a directory with a pool's name, and who lists all pools opens it. So
 * nothing that it says of places and sizes is believed: they follow from a few numbers,
 * and must be what we would have made of these.
 */
static int status_read(int meta, struct shmk_status *st)
{
	struct shmk_pool_opts opts;
	struct shmk_status plan;
	struct stat stat;
	int ret;

	if (pread(meta, st, sizeof(*st), 0) != sizeof(*st))
		return -EPROTO;
	ret = status_check(st);
	if (ret)
		return ret;
	if (!st->nr_peers || !st->nr_queues || !st->rings_bytes ||
	    st->unit_shift < SHMK_UNIT_SHIFT_MIN || st->unit_shift > SHMK_UNIT_SHIFT_MAX)
		return -EPROTO;
	opts = (struct shmk_pool_opts) {
		.bytes = st->data_bytes, .unit_bytes = 1U << st->unit_shift,
		.rings_bytes = st->rings_bytes, .nr_peers = st->nr_peers, .nr_queues = st->nr_queues,
	};
	if (status_plan(&plan, "", &opts) || !geometry_same(&plan, st))
		return -EPROTO;
	if (fstat(meta, &stat))
		return -errno;
	return (uint64_t)stat.st_size < meta_bytes(st) ? -EPROTO : 0;
}

/* The ledgers of others are only read here; local.c maps one for the time it settles it. */
static int map_meta(struct shmk *s, struct local *l, const struct shmk_status *st)
{
	void *addr;
	int ret = region_map(l->meta, 0, st->status_bytes, PROT_READ | PROT_WRITE, &addr);

	if (ret)
		return ret;
	l->status = addr;
	l->status_bytes = st->status_bytes;
	l->rows = (void *)((char *)addr + st->rows_off);
	l->extra = (void *)((char *)addr + extra_off(st));
	l->opens = (void *)((char *)addr + opens_off(st));
	l->opens_stride = opens_stride(st);
	s->status = l->status;
	ret = region_map(l->meta, st->map_ledger, meta_bytes(st) - st->map_ledger,
			 PROT_READ, &addr);
	if (!ret) {
		s->ledgers = addr;
		madvise(addr, meta_bytes(st) - st->map_ledger, MADV_DONTDUMP);
	}
	return ret;
}

static int map_pool(struct shmk *s, struct local *l, const struct shmk_status *st)
{
	int prot = s->rdonly ? PROT_READ : PROT_READ | PROT_WRITE;
	int fd = openat(l->dir, "pool", (s->rdonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW |
				       O_NONBLOCK);	/* it may be no file at all */
	struct stat stat;
	int ret;

	if (fd < 0)
		return -errno;
	ret = fstat(fd, &stat) ? -errno : 0;
	if (!ret && (uint64_t)stat.st_size < st->map_data + st->data_bytes)
		ret = -EPROTO;
	if (!ret)
		ret = region_map(fd, st->map_control, st->control_bytes, prot, &s->control);
	if (!ret)
		ret = region_map_at(s->data_at, fd, st->map_data, st->data_bytes, prot, &s->data);
	close(fd);
	return ret;
}

/* Of an open l->dir, the rest. What fails is undone by dir_close(). */
static int dir_map(struct shmk *s, struct local *l)
{
	const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	struct shmk_status st;
	int ret = 0;

	if (!l->lock)
		ret = lock_file_get(l->dir, &l->lock);
	if (ret)
		return ret;
	l->meta = openat(l->dir, "meta", flags);
	if (l->meta < 0)
		return -errno;
	l->events = openat(l->dir, "events", flags);
	if (l->events < 0)
		return -errno;
	ret = status_read(l->meta, &st);
	if (!ret)
		ret = map_meta(s, l, &st);
	if (!ret)
		ret = map_pool(s, l, &st);
	if (!ret)
		view_init(s);
	return ret;
}

static struct local *local_new(struct shmk *s)
{
	struct local *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->dir = l->meta = l->events = -1;
	for (unsigned int i = 0; i < BELLS_MAX; i++)
		l->bell[i].fd = -1;
	pthread_mutex_init(&l->bell_mutex, NULL);
	s->priv = l;
	return l;
}

/* Sizes come from the status, so that goes last. */
static void dir_unmap(struct shmk *s, struct local *l)
{
	const struct shmk_status *st = s->status;

	if (!st)
		return;
	if (s->ledger)
		munmap(s->ledger, ledger_bytes(s->nr_entries));
	if (s->data)
		munmap(s->data, st->data_bytes);
	if (s->control)
		munmap(s->control, st->control_bytes);
	if (s->ledgers)
		munmap((void *)s->ledgers, meta_bytes(st) - st->map_ledger);
	munmap(l->status, l->status_bytes);
}

void dir_close(struct shmk *s, bool forget)
{
	struct local *l = local_of(s);

	if (!forget)
		dir_unmap(s, l);
	for (unsigned int i = 0; i < BELLS_MAX; i++)
		fd_close(l->bell[i].fd);
	fd_close(l->events);
	fd_close(l->meta);
	fd_close(l->dir);
	if (l->lock)
		lock_file_put(l->lock);
	free(l);
	s->priv = NULL;
	s->status = NULL;
	s->ledger = NULL;
	s->ledgers = NULL;
	s->control = s->data = NULL;
}

/* --------------------------------------------------------------- opening -- */

static int dir_openat(int base, const char *dir_name)
{
	int fd = openat(base, dir_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	return errno == ENOTDIR || errno == ELOOP ? -EPROTO : -errno;
}

static int open_at(struct shmk *s, int base, const char *name)
{
	struct local *l = local_new(s);
	int ret;

	if (!l)
		return -ENOMEM;
	snprintf(l->dir_name, sizeof(l->dir_name), PREFIX "%s", name);
	ret = l->dir = dir_openat(base, l->dir_name);
	if (ret < 0)
		goto err;
	ret = dir_map(s, l);
	if (ret == -ENOENT) {		/* ruins */
		ret = dir_clear(base, l->dir, l->dir_name);
		ret = ret ? ret : -ENOENT;
	}
	if (!ret)
		return 0;
err:
	dir_close(s, false);
	return ret;
}

int dir_open(struct shmk *s, const char *name)
{
	int base = base_open();
	int ret;

	if (base < 0)
		return base;
	ret = open_at(s, base, name);
	close(base);
	return ret;
}

/* ---------------------------------------------------------------- making -- */

static bool power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int unit_plan(struct shmk_status *st, const struct shmk_pool_opts *opts)
{
	st->unit_shift = SHMK_UNIT_SHIFT_MIN;
	if (opts->unit_bytes) {
		if (!power_of_two(opts->unit_bytes))
			return -EINVAL;
		st->unit_shift = __builtin_ctz(opts->unit_bytes);
	} else {
		while (opts->bytes >> st->unit_shift > SHMK_BLOCKS_MAX &&
		       st->unit_shift < SHMK_UNIT_SHIFT_MAX)
			st->unit_shift++;
	}
	if (st->unit_shift < SHMK_UNIT_SHIFT_MIN || st->unit_shift > SHMK_UNIT_SHIFT_MAX)
		return -EINVAL;
	if (!opts->bytes || opts->bytes >> st->unit_shift > SHMK_BLOCKS_MAX ||
	    opts->bytes % ((uint64_t)SHMK_SPAN_UNITS << st->unit_shift) ||
	    opts->bytes % sysconf(_SC_PAGESIZE))
		return -EINVAL;
	st->data_bytes = opts->bytes;
	st->nr_blocks = opts->bytes >> st->unit_shift;
	st->nr_spans = st->nr_blocks >> SHMK_SPAN_UNITS_SHIFT;
	return 0;
}

static uint64_t rings_default(uint64_t bytes)
{
	uint64_t rings = bytes / 16;

	return rings < 256 << 10 ? 256 << 10 : rings > 64 << 20 ? 64 << 20 : rings;
}

static void control_plan(struct shmk_status *st, const struct shmk_pool_opts *opts)
{
	uint64_t map_bytes = round_up((st->nr_spans + 7) / 8, 64);
	long page = sysconf(_SC_PAGESIZE);

	st->rings_bytes = opts->rings_bytes ? opts->rings_bytes : rings_default(opts->bytes);
	st->rings_bytes = round_up(st->rings_bytes, page);
	st->spans_off = round_up(sizeof(struct shmk_control), 64);
	st->taken_map_off = st->spans_off + st->nr_spans * sizeof(struct shmk_span);
	st->stale_map_off = st->taken_map_off + map_bytes;
	st->blocks_off = st->stale_map_off + map_bytes;
	st->rings_off = round_up(st->blocks_off + st->nr_blocks * sizeof(struct shmk_block), page);
	st->control_bytes = st->rings_off + st->rings_bytes;
	st->map_control = 0;
	st->map_data = round_up(st->control_bytes, HUGE_BYTES);
}

static void meta_plan(struct shmk_status *st)
{
	st->peers_off = round_up(sizeof(*st), 64);
	st->queues_off = st->peers_off + (st->nr_peers + 1) * sizeof(struct shmk_peer_status);
	st->queues_off = round_up(st->queues_off, 64);
	st->rows_off = st->queues_off + st->nr_queues * sizeof(struct shmk_queue_status);
	st->rows_off = round_up(st->rows_off, 64);
	st->nr_rows = st->nr_peers * SHMK_ROWS_PER_PEER;
	st->status_bytes = opens_off(st) + opens_stride(st) * (st->nr_peers + 1);
	st->map_ledger = st->status_bytes;
	st->ledger_stride = round_up(ledger_bytes(SHMK_ENTRIES_MAX), sysconf(_SC_PAGESIZE));
}

static int status_plan(struct shmk_status *st, const char *name,
		       const struct shmk_pool_opts *opts)
{
	int ret;

	/* Without a quarantine it is anyhow. */
	if (opts->flags & ~(SHMK_POOL_PERSIST | SHMK_POOL_NO_QUARANTINE) || opts->mode & ~0666 ||
	    (opts->flags & SHMK_POOL_PERSIST && !*name) || opts->rings_bytes > 1ULL << 40 ||
	    opts->nr_peers > SHMK_PEERS_MAX || opts->nr_queues > SHMK_QUEUES_MAX)
		return -EINVAL;
	if (opts->page_bytes && opts->page_bytes != 4096 && opts->page_bytes != HUGE_BYTES)
		return -EINVAL;
	*st = (struct shmk_status) {
		.version = SHMK_LAYOUT_VERSION,
		.flags = (opts->flags & SHMK_POOL_PERSIST ? SHMK_POOL_F_PERSIST : 0) |
			 (opts->flags & SHMK_POOL_NO_QUARANTINE ? SHMK_POOL_F_NO_QUARANTINE : 0),
		.page_shift = 12,
		.nr_peers = opts->nr_peers ? opts->nr_peers : 1024,
		.nr_queues = opts->nr_queues ? opts->nr_queues : 1024,
		.created_ns = now_ns(),
	};
	ret = unit_plan(st, opts);
	if (ret)
		return ret;
	if (opts->page_bytes == HUGE_BYTES || opts->set_node)
		return -EOPNOTSUPP;
	strcpy(st->name, name);
	control_plan(st, opts);
	meta_plan(st);
	return 0;
}

/* What can be had without swapping; UINT64_MAX if nobody tells. */
static uint64_t memory_available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kb = UINT64_MAX >> 10;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %llu kB", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb << 10;
}

/*
 * Asked before, because the kernel does not say no: /dev/shm may be larger than
 * the memory that is left, and then its OOM killer takes processes that have
 * nothing to do with it. A sixteenth is left to the others. (The limit of a
 * memory cgroup is not looked at.)
 */
static int room_check(int dir, uint64_t bytes)
{
	struct statfs fs;

	if (fstatfs(dir, &fs))
		return -errno;
	if (fs.f_blocks && bytes / fs.f_bsize >= (uint64_t)fs.f_bavail)
		return -ENOSPC;
	if (fs.f_type == TMPFS_MAGIC && bytes > memory_available() / 16 * 15)
		return -ENOMEM;
	return 0;
}

/* In steps: an interrupted fallocate() starts again, and must come to an end. */
int file_allocate(int fd, uint64_t at, uint64_t bytes)
{
	for (uint64_t end = at + bytes; at < end; at += ALLOC_STEP) {
		uint64_t len = end - at < ALLOC_STEP ? end - at : ALLOC_STEP;

		while (fallocate(fd, 0, at, len))
			if (errno != EINTR)
				return -errno;
	}
	return 0;
}

/*
 * Who may read the pool may join it, and to join means to write to the status
 * region and to lock: reading implies writing for all but the pool file.
 */
static mode_t members_mode(uint32_t mode)
{
	return mode | (mode & 0444) >> 1;
}

static int set_access(int fd, const struct shmk_pool_opts *opts, mode_t mode)
{
	if (opts->set_owner && fchown(fd, opts->uid, opts->gid))
		return -errno;
	return fchmod(fd, mode) ? -errno : 0;
}

static int file_make(int dir, const char *name, const struct shmk_pool_opts *opts, mode_t mode)
{
	int fd = openat(dir, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return -errno;
	ret = set_access(fd, opts, mode);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

static int meta_make(int dir, const struct shmk_status *st, const struct shmk_pool_opts *opts,
		     mode_t mode)
{
	const __u64 magic = SHMK_LAYOUT_MAGIC;
	int fd = file_make(dir, "meta", opts, mode);
	int ret;

	if (fd < 0)
		return fd;
	ret = file_allocate(fd, 0, opens_off(st));
	if (!ret && (ftruncate(fd, meta_bytes(st)) ||
		     pwrite(fd, st, sizeof(*st), 0) != sizeof(*st) ||
		     pwrite(fd, &magic, sizeof(magic), 0) != sizeof(magic)))
		ret = -errno;
	close(fd);
	return ret;
}

static int files_make(int dir, const struct shmk_status *st, const struct shmk_pool_opts *opts)
{
	uint32_t mode = opts->mode ? opts->mode : 0600;
	mode_t members = members_mode(mode);
	int fd, ret;

	ret = room_check(dir, opens_off(st) + st->control_bytes + st->data_bytes);
	if (ret)
		return ret;
	fd = file_make(dir, "pool", opts, mode);
	if (fd < 0)
		return fd;
	ret = file_allocate(fd, st->map_control, st->control_bytes);
	if (!ret)
		ret = file_allocate(fd, st->map_data, st->data_bytes);
	close(fd);
	if (!ret)
		ret = meta_make(dir, st, opts, members);
	if (ret)
		return ret;
	fd = file_make(dir, "events", opts, members);
	if (fd < 0)
		return fd;
	close(fd);
	/* The directory at last: from here on others may come in. */
	return set_access(dir, opts, members | (members & 0444) >> 2);
}

static int lock_make(struct local *l, const struct shmk_pool_opts *opts)
{
	int fd = file_make(l->dir, "lock", opts, members_mode(opts->mode ? opts->mode : 0600));
	int ret;

	if (fd < 0)
		return fd;
	close(fd);
	ret = lock_file_get(l->dir, &l->lock);
	return ret ? ret : lock_file_lock(l->lock);
}

static int dir_make(struct local *l, int base, const char *name)
{
	uint64_t random;

	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -errno;
	snprintf(l->dir_name, sizeof(l->dir_name), "." PREFIX "%s.%016llx", name,
		 (unsigned long long)random);
	if (mkdirat(base, l->dir_name, 0700))
		return errno == EEXIST ? -ENOENT : -errno;
	l->dir = dir_openat(base, l->dir_name);
	return l->dir < 0 ? l->dir : 0;
}

static int dir_publish(struct local *l, int base, const char *name)
{
	char dir_name[sizeof(l->dir_name)];

	if (!*name)
		return 0;
	snprintf(dir_name, sizeof(dir_name), PREFIX "%s", name);
	if (renameat(base, l->dir_name, base, dir_name)) {
		/* EPERM: an empty directory that another user left under this name. */
		return errno == ENOTEMPTY || errno == ENOTDIR ? -EEXIST :
		       errno == EPERM ? -EACCES : -errno;
	}
	memcpy(l->dir_name, dir_name, sizeof(dir_name));
	return 0;
}

/* Both have a name at every moment, each the other's then. */
static int dir_exchange(struct local *l, int base, struct local *old)
{
	char dir_name[sizeof(l->dir_name)];

	if (renameat2(base, l->dir_name, base, old->dir_name, RENAME_EXCHANGE))
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	memcpy(dir_name, l->dir_name, sizeof(dir_name));
	memcpy(l->dir_name, old->dir_name, sizeof(dir_name));
	memcpy(old->dir_name, dir_name, sizeof(dir_name));
	return 0;
}

/*
 * One try; -ENOENT: somebody took the unfinished directory for ruins. @old: whose
 * place it takes.
 */
static int create_at(struct shmk *s, int base, const char *name, struct local *old,
		     const struct shmk_status *st, const struct shmk_pool_opts *opts)
{
	struct local *l = local_new(s);
	int ret;

	if (!l)
		return -ENOMEM;
	ret = dir_make(l, base, name);
	if (ret)
		goto close;
	ret = lock_make(l, opts);
	if (ret)
		goto clear;
	ret = files_make(l->dir, st, opts);
	if (!ret)
		ret = dir_map(s, l);
	if (!ret)
		ret = old ? dir_exchange(l, base, old) : dir_publish(l, base, name);
	if (!ret)
		return 0;
	lock_file_unlock(l->lock);
clear:
	dir_clear(base, l->dir, l->dir_name);
close:
	dir_close(s, false);
	return ret;
}

static int dir_create_for(struct shmk *s, const char *name, struct local *old,
			  const struct shmk_pool_opts *opts)
{
	struct shmk_status st;
	int base, ret;

	ret = status_plan(&st, name, opts);
	if (ret)
		return ret;
	base = base_open();
	if (base < 0)
		return base;
	for (int i = 0; i < MAKE_TRIES; i++) {
		ret = create_at(s, base, name, old, &st, opts);
		if (ret != -ENOENT)
			break;
	}
	close(base);
	return ret;
}

int dir_create(struct shmk *s, const char *name, const struct shmk_pool_opts *opts)
{
	return dir_create_for(s, name, NULL, opts);
}

int dir_replace(struct shmk *s, const char *name, struct local *old,
		const struct shmk_pool_opts *opts)
{
	return dir_create_for(s, name, old, opts);
}

/* --------------------------------------------------------------- walking -- */

static DIR *base_walk(void)
{
	int fd = base_open();
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		fd_close(fd);
	return d;
}

int dir_next(__u64 after, char *name, __u64 *ino)
{
	DIR *d = base_walk();
	struct dirent *de;
	bool found = false;

	if (!d)
		return -ENOENT;
	while ((de = readdir(d))) {
		const char *rest = de->d_name + PREFIX_LEN;

		if (strncmp(de->d_name, PREFIX, PREFIX_LEN) || !name_valid(rest) ||
		    de->d_ino <= after || (found && de->d_ino > *ino))
			continue;
		found = true;
		*ino = de->d_ino;
		strcpy(name, rest);
	}
	closedir(d);
	return found ? 0 : -ENOENT;
}

/* A builder that was only just about to make its lock file starts again. */
static bool sweep_one(int base, const char *dir_name)
{
	int dir = dir_openat(base, dir_name);
	struct lock_file *lf;
	bool swept = false;
	int ret;

	if (dir < 0)
		return false;
	ret = lock_file_get(dir, &lf);
	if (ret == -ENOENT) {
		swept = !unlinkat(base, dir_name, AT_REMOVEDIR);
	} else if (!ret) {
		if (!lock_file_in_use(lf) && !lock_file_trylock(lf)) {
			swept = !lock_file_in_use(lf) && !dir_clear(base, dir, dir_name);
			lock_file_unlock(lf);
		}
		lock_file_put(lf);
	}
	close(dir);
	return swept;
}

int dir_sweep(void)
{
	DIR *d = base_walk();
	struct dirent *de;
	int nr = 0;

	if (!d)
		return 0;
	while ((de = readdir(d)))
		if (!strncmp(de->d_name, "." PREFIX, PREFIX_LEN + 1) &&
		    sweep_one(dirfd(d), de->d_name))
			nr++;
	closedir(d);
	return nr;
}
