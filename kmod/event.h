/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * event.h - what happened in a pool, and who reads of it.
 */
#ifndef SHMK_EVENT_H
#define SHMK_EVENT_H

#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/wait.h>
#include <uapi/linux/shmk.h>

struct pid;
struct shmk_pool;

#define SHMK_EVENTS_KEPT	1024

/* An event and the identities that each reader sees in its own namespaces. */
struct shmk_event_kept {
	struct shmk_event event;	/* pid and uid are not filled */
	struct pid *pid;		/* a reference, or NULL */
	kuid_t uid;
};

/**
 * struct shmk_events - the last events of a pool
 * @lock: protects all below but @wait
 * @next: sequence number of the next event
 * @kept: event n stands in n % SHMK_EVENTS_KEPT until it is overwritten
 * @wait: readers, and who detaches and waits for its own end
 */
struct shmk_events {
	spinlock_t lock;	/* next, kept */
	u64 next;
	struct shmk_event_kept *kept;
	wait_queue_head_t wait;
};

/**
 * struct shmk_reader - a file's place among the events
 * @pool: a reference
 * @lock: one read() at a time; protects @next
 * @next: sequence number of what this file reads next
 *
 * The first member of the private data of pool, attachment and event files,
 * so that they share read() and poll().
 */
struct shmk_reader {
	struct shmk_pool *pool;
	struct mutex lock;	/* next */
	u64 next;
};

int shmk_events_init(struct shmk_events *events);
void shmk_events_free(struct shmk_events *events);
void shmk_event_push(struct shmk_pool *pool, struct shmk_event *event,
		     struct pid *pid, kuid_t uid);
void shmk_event_wake(struct shmk_pool *pool);

void shmk_reader_init(struct shmk_reader *reader, struct shmk_pool *pool);
void shmk_reader_exit(struct shmk_reader *reader);
ssize_t shmk_reader_read(struct file *file, char __user *buf, size_t len,
			 loff_t *pos);
__poll_t shmk_reader_poll(struct file *file, poll_table *wait);
void shmk_reader_show(struct seq_file *m, struct file *file);
struct file *shmk_event_file(struct shmk_pool *pool);

#endif
