/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * local.h - what the files of the local backend share; see local.c first.
 */
#ifndef SHMK_LOCAL_H
#define SHMK_LOCAL_H

#include "internal.h"

/* ---------------------------------------------------------- local_lock.c -- */

/*
 * The lock file of a pool, once per process. Byte 2p is locked by the process
 * of peer p for as long as p lives; byte 0 by whoever changes the status
 * region. Every second byte: neighbours of one process would become one lock,
 * and taking one back would need memory.
 */
struct lock_file {
	struct lock_file	*next;		/* registry */
	pid_t			pid;		/* whose: a forked child makes its own */
	dev_t			dev;
	ino_t			ino;
	int			fd;
	unsigned int		refs;		/* registry */
	pthread_mutex_t		mutex;		/* byte 0, among the threads of this process */
	__u64			own[SHMK_PEERS_MAX / 64 + 1];	/* peers of this process; atomic */
};

int lock_file_get(int dir, struct lock_file **out);
void lock_file_put(struct lock_file *lf);
int lock_file_lock(struct lock_file *lf);
int lock_file_trylock(struct lock_file *lf);		/* -EAGAIN */
void lock_file_unlock(struct lock_file *lf);
int lock_file_own(struct lock_file *lf, uint32_t peer);	/* -EAGAIN: taken */
void lock_file_disown(struct lock_file *lf, uint32_t peer);
/* Does the process of @peer live? *@pid: its pid here, 0 if not visible. */
bool lock_file_alive(struct lock_file *lf, uint32_t peer, pid_t *pid);
/* Does another process, or another handle of this one, have anything locked? */
bool lock_file_in_use(struct lock_file *lf);

/* ----------------------------------------------------------- local_dir.c -- */

#define EVENTS_MAX	1024U		/* a power of two */
#define JOURNAL_MAX	16U

/* What the status page does not tell of a peer. Written before its word is ALIVE. */
struct local_peer {
	char			comm[16];
	__u32			uid;
	__u32			reason;		/* enum shmk_reason, once it is DEAD */
	__u64			died_ns;	/* when it was noticed */
	struct shmk_settled	settled;	/* so far: a settler may die, too */
};

/* One 32 or 64 bit store into the status region. */
struct local_store {
	__u32			offset;
	__u32			size;
	__u64			value;
};

/* Behind the queue table. All of it under the pool lock, if nothing else is said. */
struct local_extra {
	__u64			gone;		/* the pool was removed: go away */
	__u64			had_peer;
	__u64			scan_after;	/* now_ns(): no look for the dead before; no lock */
	__u64			nr_events;	/* ever; the next one's seq. Read without lock */
	__u64			nr_stores;	/* nonzero: the journal must be carried out */
	struct local_store	store[JOURNAL_MAX];
	struct shmk_event	event[EVENTS_MAX];	/* of seq: its low bits */
	struct local_peer	peer[];		/* nr_peers + 1 */
};

struct bell {
	__u64			key;		/* queue, side, row, generation */
	int			fd;		/* -1: none */
};

#define BELLS_MAX	64U

struct stream;		/* local.c */

/* An open pool; s->priv. */
struct local {
	int			dir;
	int			meta;		/* the file of status and ledgers */
	int			events;		/* the file that is written to wake readers */
	struct lock_file	*lock;
	char			dir_name[SHMK_NAME_LEN + 32];
	struct shmk_status	*status;
	uint64_t		status_bytes;
	struct local_extra	*extra;
	struct shmk_row		*rows;
	__u32			*opens;		/* of peer 0; rows opens_stride apart */
	uint64_t		opens_stride;	/* bytes */
	uint64_t		first_event;	/* of the attachment's own stream */
	struct stream		*idle;		/* of a wait that is over; NULL: none. Atomic */
	unsigned int		nr_stores;	/* of the journal being written; pool lock */
	pthread_mutex_t		bell_mutex;	/* bell */
	struct bell		bell[BELLS_MAX];
};

static inline struct local *local_of(const struct shmk *s)
{
	return s->priv;
}

/* Memory for a part of a file, whatever signals come. */
int file_allocate(int fd, uint64_t at, uint64_t bytes);

/* Where all pools are. */
const char *base_path(void);
/* Opens and maps as s->rdonly says; no lock. -ENOENT also of ruins, cleared now. */
int dir_open(struct shmk *s, const char *name);
/* Makes a pool and opens it; the pool lock is held. @name "": anonymous. -EEXIST */
int dir_create(struct shmk *s, const char *name, const struct shmk_pool_opts *opts);
/*
 * Makes a pool, which takes the name of @old, who gets another one for as long as
 * it is there. Both pool locks are held then. -EOPNOTSUPP: the file system cannot.
 */
int dir_replace(struct shmk *s, const char *name, struct local *old,
		const struct shmk_pool_opts *opts);
/* Takes the name away and all files with it; the pool lock is held. */
int dir_remove(struct shmk *s);
/* @forget: in a forked child, where nothing is mapped. */
void dir_close(struct shmk *s, bool forget);
/* The pool whose directory has the lowest inode number above @after. -ENOENT */
int dir_next(__u64 after, char *name, __u64 *ino);
/* Removes what killed creators left. Returns how much that was. */
int dir_sweep(void);

static inline uint64_t round_up(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static inline uint64_t ledger_bytes(uint32_t nr_entries)
{
	return sizeof(struct shmk_ledger) + (uint64_t)nr_entries * sizeof(struct shmk_entry);
}

#endif
