// SPDX-License-Identifier: GPL-2.0-only
/*
 * event.c - the event ring and its readers.
 *
 * A pool keeps its last SHMK_EVENTS_KEPT events. Pushing allocates nothing and
 * never waits for a reader; each reader has its own place and is told by one
 * SHMK_EV_LOST how many it missed. Identities are kept as the kernel's own
 * objects and become numbers in the namespaces of who reads.
 */
#include <linux/anon_inodes.h>
#include <linux/cred.h>
#include <linux/module.h>
#include <linux/pid.h>
#include <linux/pid_namespace.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/user_namespace.h>

#include "event.h"
#include "netlink.h"
#include "point.h"
#include "pool.h"

int shmk_events_init(struct shmk_events *events)
{
	spin_lock_init(&events->lock);
	init_waitqueue_head(&events->wait);
	events->kept = kvcalloc(SHMK_EVENTS_KEPT, sizeof(*events->kept),
				GFP_KERNEL_ACCOUNT);
	return events->kept ? 0 : -ENOMEM;
}

/* Nobody is left to push or read: the pool's last reference is gone. */
void shmk_events_free(struct shmk_events *events)
{
	unsigned int i;

	for (i = 0; events->kept && i < SHMK_EVENTS_KEPT; i++)
		put_pid(events->kept[i].pid);
	kvfree(events->kept);
}

/**
 * shmk_event_push() - append an event; the caller wakes the readers
 * @pool: the pool
 * @event: all but seq, time_ns, pid and uid; took_ns of an end: its beginning
 * @pid: of whom it tells, or NULL
 * @uid: of whom it tells
 *
 * Called under pool->lock where the event must be in step with the status.
 */
void shmk_event_push(struct shmk_pool *pool, struct shmk_event *event,
		     struct pid *pid, kuid_t uid)
{
	struct shmk_events *events = &pool->events;
	struct shmk_event_kept *kept;

	event->time_ns = ktime_get_ns();
	if (event->took_ns)
		event->took_ns = event->time_ns - event->took_ns;

	spin_lock(&events->lock);
	kept = &events->kept[events->next % SHMK_EVENTS_KEPT];
	put_pid(kept->pid);
	event->seq = events->next;
	kept->event = *event;
	kept->pid = get_pid(pid);
	kept->uid = uid;
	WRITE_ONCE(events->next, events->next + 1);
	shmk_news_push(pool, event, pid, uid);
	spin_unlock(&events->lock);
}

void shmk_event_wake(struct shmk_pool *pool)
{
	wake_up_poll(&pool->events.wait, EPOLLIN | EPOLLRDNORM);
}

void shmk_reader_init(struct shmk_reader *reader, struct shmk_pool *pool)
{
	mutex_init(&reader->lock);
	reader->pool = pool;
	refcount_inc(&pool->refs);
	spin_lock(&pool->events.lock);
	reader->next = pool->events.next;
	spin_unlock(&pool->events.lock);
}

void shmk_reader_exit(struct shmk_reader *reader)
{
	shmk_pool_put(reader->pool);
}

/* READ_ONCE: only asks whether it is worth while to look; fetch() looks under the lock. */
static bool reader_behind(struct shmk_reader *reader)
{
	return READ_ONCE(reader->next) != READ_ONCE(reader->pool->events.next);
}

/* Tells of what was overwritten before this reader came to it. */
static void fetch_lost(struct shmk_reader *reader, struct shmk_event *event,
		       u64 oldest)
{
	u64 lost = oldest - reader->next;

	*event = (struct shmk_event){
		.type = SHMK_EV_LOST,
		.seq = oldest - 1,
		.time_ns = ktime_get_ns(),
		.code = min_t(u64, lost, S32_MAX),
	};
}

/* The reader's next event, in its own numbers. Returns its place after it. */
static u64 fetch(struct shmk_reader *reader, struct shmk_event *event)
{
	struct shmk_events *events = &reader->pool->events;
	struct shmk_event_kept *kept;
	struct pid *pid;
	kuid_t uid;
	u64 oldest;

	spin_lock(&events->lock);
	oldest = events->next - min_t(u64, events->next, SHMK_EVENTS_KEPT);
	if (reader->next < oldest) {
		spin_unlock(&events->lock);
		fetch_lost(reader, event, oldest);
		return oldest;
	}
	kept = &events->kept[reader->next % SHMK_EVENTS_KEPT];
	*event = kept->event;
	pid = get_pid(kept->pid);
	uid = kept->uid;
	spin_unlock(&events->lock);

	event->pid = pid_nr_ns(pid, task_active_pid_ns(current));
	event->uid = from_kuid_munged(current_user_ns(), uid);
	put_pid(pid);
	return reader->next + 1;
}

/* Moves on only past what has reached user space. */
static ssize_t read_some(struct shmk_reader *reader, char __user *buf, size_t len)
{
	struct shmk_event event;
	size_t done = 0;
	u64 next;

	while (len - done >= sizeof(event) && reader_behind(reader)) {
		next = fetch(reader, &event);
		shmk_pass(SHMK_AT_EVENT_FETCHED);
		if (copy_to_user(buf + done, &event, sizeof(event)))
			return done ? done : -EFAULT;
		WRITE_ONCE(reader->next, next);
		done += sizeof(event);
	}
	return done;
}

ssize_t shmk_reader_read(struct file *file, char __user *buf, size_t len,
			 loff_t *pos)
{
	struct shmk_reader *reader = file->private_data;
	ssize_t got;

	if (len < sizeof(struct shmk_event))
		return -EINVAL;
	for (;;) {
		if (mutex_lock_interruptible(&reader->lock))
			return -ERESTARTSYS;
		got = read_some(reader, buf, len);
		mutex_unlock(&reader->lock);
		if (got)
			return got;
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(reader->pool->events.wait,
					     reader_behind(reader)))
			return -ERESTARTSYS;
	}
}

__poll_t shmk_reader_poll(struct file *file, poll_table *wait)
{
	struct shmk_reader *reader = file->private_data;

	poll_wait(file, &reader->pool->events.wait, wait);
	return reader_behind(reader) ? EPOLLIN | EPOLLRDNORM : 0;
}

/* fdinfo of all files that read events. */
void shmk_reader_show(struct seq_file *m, struct file *file)
{
	struct shmk_reader *reader = file->private_data;

	shmk_pool_show(m, reader->pool);
	seq_printf(m, "event-next:\t%llu\n", READ_ONCE(reader->next));
}

static int event_file_release(struct inode *inode, struct file *file)
{
	struct shmk_reader *reader = file->private_data;

	shmk_reader_exit(reader);
	kfree(reader);
	return 0;
}

static const struct file_operations event_file_ops = {
	.owner		= THIS_MODULE,
	.read		= shmk_reader_read,
	.poll		= shmk_reader_poll,
	.show_fdinfo	= shmk_reader_show,
	.release	= event_file_release,
};

/**
 * shmk_event_file() - a file that only reads events
 * @pool: the pool
 */
struct file *shmk_event_file(struct shmk_pool *pool)
{
	struct shmk_reader *reader;
	struct file *file;

	reader = kzalloc(sizeof(*reader), GFP_KERNEL_ACCOUNT);
	if (!reader)
		return ERR_PTR(-ENOMEM);
	shmk_reader_init(reader, pool);
	file = anon_inode_getfile("[shmk-events]", &event_file_ops, reader, O_RDONLY);
	if (IS_ERR(file)) {
		shmk_reader_exit(reader);
		kfree(reader);
		return file;
	}
	stream_open(file_inode(file), file);
	return file;
}
