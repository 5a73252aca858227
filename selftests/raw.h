/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * raw.h - the commands of /dev/shmk without a library, for tests of the module.
 *
 * Every call returns what ioctl() returned, or -errno.
 */
#ifndef SHMK_SELFTESTS_RAW_H
#define SHMK_SELFTESTS_RAW_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/shmk.h>

#define MiB	(1UL << 20)

static inline int raw(int fd, unsigned long cmd, void *arg)
{
	int ret = ioctl(fd, cmd, arg);

	return ret < 0 ? -errno : ret;
}

static inline int raw_device(void)
{
	int fd = open(SHMK_DEVICE, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static inline struct shmk_pool_create raw_pool_args(const char *name, uint64_t bytes,
						    uint32_t page_shift)
{
	struct shmk_pool_create a = {
		.size = sizeof(a), .bytes = bytes, .page_shift = page_shift,
		.node = -1, .mode = 0600, .uid = -1, .gid = -1,
	};

	if (name)
		snprintf(a.name, sizeof(a.name), "%s", name);
	return a;
}

/* Kernels with PREEMPT_RT, for one, have no large mappings, and no pools of large pages. */
static inline bool raw_has_pmds(void)
{
	return !access("/sys/kernel/mm/transparent_hugepage", F_OK);
}

static inline int raw_pool_create(int dev, const char *name, uint64_t bytes, uint32_t page_shift)
{
	struct shmk_pool_create a = raw_pool_args(name, bytes, page_shift);

	return raw(dev, SHMK_IOC_POOL_CREATE, &a);
}

static inline int raw_pool_open(int dev, const char *name, uint32_t flags)
{
	struct shmk_pool_open a = { .size = sizeof(a), .flags = flags };

	snprintf(a.name, sizeof(a.name), "%s", name);
	return raw(dev, SHMK_IOC_POOL_OPEN, &a);
}

static inline int raw_pool_destroy(int dev, const char *name)
{
	struct shmk_pool_destroy a = { .size = sizeof(a) };

	snprintf(a.name, sizeof(a.name), "%s", name);
	return raw(dev, SHMK_IOC_POOL_DESTROY, &a);
}

static inline int raw_pool_reset(int dev, const char *name, uint32_t flags)
{
	struct shmk_pool_reset a = { .size = sizeof(a), .flags = flags };

	snprintf(a.name, sizeof(a.name), "%s", name);
	return raw(dev, SHMK_IOC_POOL_RESET, &a);
}

static inline int raw_pool_info(int fd, struct shmk_pool_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return raw(fd, SHMK_IOC_POOL_INFO, info);
}

/* @peer: NULL or filled with what came back */
static inline int raw_attach(int pool, uint32_t flags, uint32_t nr_entries, struct shmk_attach *peer)
{
	struct shmk_attach a = { .size = sizeof(a), .flags = flags, .nr_entries = nr_entries };
	int ret = raw(pool, SHMK_IOC_ATTACH, &a);

	if (peer)
		*peer = a;
	return ret;
}

static inline int raw_detach(int att)
{
	return raw(att, SHMK_IOC_DETACH, NULL);
}

/* @id, @gen: NULL or filled */
static inline int raw_queue_create(int att, const char *name, uint32_t capacity,
				   uint32_t *id, uint32_t *gen)
{
	struct shmk_queue_create a = { .size = sizeof(a), .capacity = capacity };
	int ret;

	snprintf(a.name, sizeof(a.name), "%s", name);
	ret = raw(att, SHMK_IOC_QUEUE_CREATE, &a);
	if (id)
		*id = a.id;
	if (gen)
		*gen = a.gen;
	return ret;
}

static inline int raw_queue_open(int att, const char *name, uint32_t *id, uint32_t *gen)
{
	struct shmk_queue_open a = { .size = sizeof(a) };
	int ret;

	snprintf(a.name, sizeof(a.name), "%s", name);
	ret = raw(att, SHMK_IOC_QUEUE_OPEN, &a);
	if (id)
		*id = a.id;
	if (gen)
		*gen = a.gen;
	return ret;
}

static inline int raw_queue_close(int att, unsigned long cmd, uint32_t id, uint32_t gen)
{
	struct shmk_queue_close a = { .size = sizeof(a), .id = id, .gen = gen };

	return raw(att, cmd, &a);
}

static inline int raw_queue_fd(int att, uint32_t id, uint32_t side)
{
	struct shmk_queue_fd a = { .size = sizeof(a), .id = id, .side = side };

	return raw(att, SHMK_IOC_QUEUE_FD, &a);
}

static inline int raw_bell(int att, uint32_t id, uint32_t side)
{
	struct shmk_bell_one one = { .id = id, .side = side };
	struct shmk_bell a = { .size = sizeof(a), .nr = 1, .bells = (uintptr_t)&one };

	return raw(att, SHMK_IOC_BELL, &a);
}

/* Returns MAP_FAILED with errno set, as mmap() does. */
static inline void *raw_map(int att, int prot, uint64_t offset, size_t len)
{
	return mmap(NULL, len, prot, MAP_SHARED, att, (off_t)offset);
}

/* The status region, read-only; NULL when it cannot be mapped. */
static inline const struct shmk_status *raw_status(int att)
{
	const struct shmk_status *s = raw_map(att, PROT_READ, 0, 4096);
	uint64_t bytes;

	if (s == MAP_FAILED)
		return NULL;
	bytes = s->status_bytes;
	munmap((void *)s, 4096);
	s = raw_map(att, PROT_READ, 0, bytes);
	return s == MAP_FAILED ? NULL : s;
}

static inline const struct shmk_peer_status *raw_peer_status(const struct shmk_status *s, uint32_t id)
{
	return (const struct shmk_peer_status *)((const char *)s + s->peers_off) + id;
}

static inline uint64_t raw_ledger_offset(const struct shmk_status *s, uint32_t id)
{
	return s->map_ledger + id * s->ledger_stride;
}

static inline size_t raw_ledger_bytes(uint32_t nr_entries)
{
	return (sizeof(struct shmk_ledger) + nr_entries * sizeof(struct shmk_entry) + 4095) & ~4095UL;
}

/*
 * The next event of a type, waiting up to 10 s for each event; others are
 * skipped. Returns 0 or -errno, -ETIME after the wait.
 */
static inline int raw_event(int fd, uint32_t type, struct shmk_event *ev)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	for (;;) {
		int n = poll(&p, 1, 10000);

		if (n <= 0)
			return n ? -errno : -ETIME;
		if (read(fd, ev, sizeof(*ev)) != (ssize_t)sizeof(*ev))
			return -errno;
		if (ev->type == type)
			return 0;
	}
}

#endif
