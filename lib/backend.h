/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * backend.h - all that the library asks of the module or of the local backend.
 *
 * Everything here is off the fast path. The data path works on the regions
 * that attach() mapped and does not know who mapped them. All functions return
 * 0 or -errno if nothing else is said, and may run in several threads at once.
 */
#ifndef SHMK_BACKEND_H
#define SHMK_BACKEND_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/shmk.h>

struct shmk;
struct shmk_attach_opts;
struct shmk_pool_opts;

struct shmk_backend {
	const char *scheme;		/* "shmk", "local" */
	/* Is it usable here (plain names choose by it)? */
	bool (*present)(void);

	/* @name "" is an anonymous pool: only create through attach(). */
	int (*pool_create)(const char *name, const struct shmk_pool_opts *opts);
	int (*pool_destroy)(const char *name, bool drain);
	int (*pool_reset)(const char *name, bool force);
	/* Fills the kernel's struct for both backends; see SHMK_IOC_POOL_NEXT for @id. */
	int (*pool_next)(__u64 id, struct shmk_pool_info *info);
	/* Returns the number removed. @name NULL: all. */
	int (*pool_cleanup)(const char *name);

	/*
	 * Maps all regions and fills s->status, ledger, ledgers, control, data,
	 * self, gen, nr_entries and s->priv. One try: waiting for the pool is the
	 * caller's. Unwinds on failure.
	 */
	int (*attach)(struct shmk *s, const char *name, const struct shmk_attach_opts *opts);
	/*
	 * Ends the peer (settles what is left of its ledger), unmaps, closes. With
	 * @forget (a forked child) only unmaps and closes.
	 */
	void (*detach)(struct shmk *s, bool forget);
	int (*pool_info)(struct shmk *s, struct shmk_pool_info *info);
	int (*pool_fd)(const struct shmk *s);	/* NULL: there are none */

	/* As the ioctls of <linux/shmk.h>. */
	int (*peer_info)(struct shmk *s, struct shmk_peer_info *info);
	int (*capsule)(struct shmk *s, struct shmk_capsule *capsule);	/* NULL: there are none */
	int (*stuck_after)(struct shmk *s, __u32 ms);	/* NULL: nobody looks */
	int (*queue_create)(struct shmk *s, struct shmk_queue_create *arg);
	int (*queue_open)(struct shmk *s, struct shmk_queue_open *arg);
	int (*queue_close)(struct shmk *s, __u32 id, __u32 gen);
	int (*queue_remove)(struct shmk *s, __u32 id, __u32 gen);
	int (*queue_drain)(struct shmk *s, __u32 id, __u32 gen);

	int (*topic_subscribe)(struct shmk *s, struct shmk_topic_subscribe *arg);
	int (*topic_unsubscribe)(struct shmk *s, __u32 id, __u32 row);

	/*
	 * A pollable fd for a side, the caller's to close; *events are the poll
	 * events to ask for. @row: of a topic's reader, or one of these:
	 */
#define ROW_NONE	UINT32_MAX
#define ROW_CANDIDATE	(UINT32_MAX - 1)	/* SHMK_SIDE_SEND of a topic: until it has no writer */
	int (*side_fd)(struct shmk *s, __u32 queue, __u32 side, __u32 row, short *events);
	/*
	 * Take back what earlier bells left readable in a side's fd; a no-op for
	 * the module, whose fds compute their answer. Called before the waiters
	 * word is set and the ring is looked at once more.
	 */
	void (*side_drain)(struct shmk *s, int fd);
	int (*bell)(struct shmk *s, const struct shmk_bell_one *bells, unsigned int nr);

	/*
	 * Look for peers that died without notice and settle them. A no-op for the
	 * module. Called before a blocking call sleeps, every wait_slice_ns
	 * while it does, and when an allocation fails.
	 * Returns the number settled.
	 */
	int (*reap)(struct shmk *s);
	/*
	 * Might what changes the pool's tables wait, because somebody is at it, who may
	 * be stopped? NULL: never for long.
	 */
	bool (*busy)(struct shmk *s);
	int64_t wait_slice_ns;		/* INT64_MAX: sleep as long as it takes */

	/* Opens a pool to look at its events only: @s is no peer. Module: NULL, see monitor.c. */
	int (*watch_open)(struct shmk *s, const char *name);
	void (*watch_close)(struct shmk *s);

	/* A stream of events with a cursor of its own that begins now. */
	int (*events_open)(struct shmk *s, void **stream);
	int (*events_fd)(struct shmk *s, void *stream);	/* POLLIN */
	int (*events_next)(struct shmk *s, void *stream, struct shmk_event *event);
	void (*events_close)(struct shmk *s, void *stream);
};

extern const struct shmk_backend shmk_module_backend;
extern const struct shmk_backend shmk_local_backend;

#endif
