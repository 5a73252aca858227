// SPDX-License-Identifier: GPL-2.0-only
/*
 * point.c - who passes a named point is killed, fails or stops. Tests only.
 *
 * /sys/module/shmk/parameters/point is written
 *
 *   watch PID		counts from 0, disarms all; only that process, and kernel threads, count
 *   NAME kill N	whoever comes N-th gets SIGKILL, and goes on to user space
 *   NAME fail N	-EDOM, which nothing else returns
 *   NAME pause N	stops there until somebody writes
 *   go			or for at most PAUSE_S
 *
 * and read: a line "NAME passes can-fail" for each point, then "paused NAME" if
 * somebody is.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/sysfs.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "point.h"

#define PAUSE_S	20

enum action { NOTHING, KILL, FAIL, PAUSE };

static const struct {
	const char *name;
	bool fails;
} points[SHMK_NR_POINTS] = {
	[SHMK_AT_CALL_READ] = { "CALL_READ", true },
	[SHMK_AT_CALL_RAN] = { "CALL_RAN", false },
	[SHMK_AT_CALL_FD] = { "CALL_FD", true },
	[SHMK_AT_CALL_COPIED] = { "CALL_COPIED", true },
	[SHMK_AT_CALL_COMMITTED] = { "CALL_COMMITTED", false },
	[SHMK_AT_ATTACH_USER] = { "ATTACH_USER", true },
	[SHMK_AT_ATTACH_MM] = { "ATTACH_MM", true },
	[SHMK_AT_ATTACH_ID] = { "ATTACH_ID", true },
	[SHMK_AT_LEDGER_GROWN] = { "LEDGER_GROWN", false },
	[SHMK_AT_ATTACH_LEDGER] = { "ATTACH_LEDGER", true },
	[SHMK_AT_PEER_PUBLISHED] = { "PEER_PUBLISHED", false },
	[SHMK_AT_MMAP] = { "MMAP", true },
	[SHMK_AT_FAULT] = { "FAULT", false },
	[SHMK_AT_DETACH_BEGUN] = { "DETACH_BEGUN", false },
	[SHMK_AT_DETACH_LEFT] = { "DETACH_LEFT", false },
	[SHMK_AT_DETACH_UNMAPPED] = { "DETACH_UNMAPPED", false },
	[SHMK_AT_DETACH_MARKED] = { "DETACH_MARKED", false },
	[SHMK_AT_CLOSE_BEGUN] = { "CLOSE_BEGUN", false },
	[SHMK_AT_RELEASE_MARKED] = { "RELEASE_MARKED", false },
	[SHMK_AT_SETTLE_BEGUN] = { "SETTLE_BEGUN", true },
	[SHMK_AT_SETTLE_ENTRY] = { "SETTLE_ENTRY", true },
	[SHMK_AT_WORK_BEGUN] = { "WORK_BEGUN", false },
	[SHMK_AT_END_SETTLED] = { "END_SETTLED", false },
	[SHMK_AT_END_CLEARED] = { "END_CLEARED", false },
	[SHMK_AT_END_QUEUE] = { "END_QUEUE", false },
	[SHMK_AT_END_CLOSED] = { "END_CLOSED", false },
	[SHMK_AT_END_TOLD] = { "END_TOLD", false },
	[SHMK_AT_QUEUE_RESERVED] = { "QUEUE_RESERVED", false },
	[SHMK_AT_QUEUE_ZEROED] = { "QUEUE_ZEROED", false },
	[SHMK_AT_QUEUE_PUBLISHED] = { "QUEUE_PUBLISHED", false },
	[SHMK_AT_REMOVE_BEGUN] = { "REMOVE_BEGUN", false },
	[SHMK_AT_REMOVE_FREED] = { "REMOVE_FREED", false },
	[SHMK_AT_DRAIN_MARKED] = { "DRAIN_MARKED", false },
	[SHMK_AT_COLLECT_LOOKED] = { "COLLECT_LOOKED", false },
	[SHMK_AT_SIDE_HELD] = { "SIDE_HELD", true },
	[SHMK_AT_POLL_QUEUED] = { "POLL_QUEUED", false },
	[SHMK_AT_POLL_SET] = { "POLL_SET", false },
	[SHMK_AT_BELL_CHECKED] = { "BELL_CHECKED", false },
	[SHMK_AT_TOPIC_MADE] = { "TOPIC_MADE", true },
	[SHMK_AT_TOPIC_GOING] = { "TOPIC_GOING", false },
	[SHMK_AT_TOPIC_SUBSCRIBED] = { "TOPIC_SUBSCRIBED", false },
	[SHMK_AT_TOPIC_UNSUBSCRIBED] = { "TOPIC_UNSUBSCRIBED", false },
	[SHMK_AT_TOPIC_LOOK] = { "TOPIC_LOOK", false },
	[SHMK_AT_TOPIC_ROLE] = { "TOPIC_ROLE", false },
	[SHMK_AT_POOL_ENTERED] = { "POOL_ENTERED", true },
	[SHMK_AT_POOL_CHARGED] = { "POOL_CHARGED", true },
	[SHMK_AT_POOL_TABLES] = { "POOL_TABLES", true },
	[SHMK_AT_POOL_REGIONS] = { "POOL_REGIONS", true },
	[SHMK_AT_POOL_SHOWN] = { "POOL_SHOWN", false },
	[SHMK_AT_DESTROY_CLAIMED] = { "DESTROY_CLAIMED", false },
	[SHMK_AT_DESTROY_HIDDEN] = { "DESTROY_HIDDEN", false },
	[SHMK_AT_DESTROY_UNNAMED] = { "DESTROY_UNNAMED", false },
	[SHMK_AT_RESET_HIDDEN] = { "RESET_HIDDEN", false },
	[SHMK_AT_RESET_SHOWN] = { "RESET_SHOWN", true },
	[SHMK_AT_POOL_LAST] = { "POOL_LAST", false },
	[SHMK_AT_POOL_LEFT] = { "POOL_LEFT", false },
	[SHMK_AT_EVENT_FETCHED] = { "EVENT_FETCHED", false },
};

static DEFINE_SPINLOCK(lock);		/* all of this */
static pid_t watched;
static struct {
	unsigned int passes;
	enum action action;
	unsigned int after;
} state[SHMK_NR_POINTS];
static int paused = -1;
static DECLARE_WAIT_QUEUE_HEAD(going);

static bool counts(void)
{
	return current->tgid == watched || current->flags & PF_KTHREAD;
}

static enum action pass(enum shmk_point point)
{
	enum action action = NOTHING;

	spin_lock(&lock);
	if (counts() && ++state[point].passes == state[point].after) {
		action = state[point].action;
		if (action == PAUSE)
			paused = point;
	}
	spin_unlock(&lock);
	return action;
}

int shmk_point(enum shmk_point point)
{
	switch (pass(point)) {
	case KILL:
		/* The dying are on their way already, and workers nobody's. */
		if (!(current->flags & (PF_KTHREAD | PF_EXITING)))
			send_sig(SIGKILL, current, 1);
		break;
	case FAIL:
		return -EDOM;
	case PAUSE:
		wait_event_idle_timeout(going, READ_ONCE(paused) != point, PAUSE_S * HZ);
		break;
	default:
		break;
	}
	return 0;
}

void shmk_pass(enum shmk_point point)
{
	shmk_point(point);
}

static void watch(pid_t pid)
{
	spin_lock(&lock);
	watched = pid;
	memset(state, 0, sizeof(state));
	spin_unlock(&lock);
}

static void go(void)
{
	WRITE_ONCE(paused, -1);
	wake_up(&going);
}

static int arm(const char *name, const char *what, unsigned int after)
{
	static const char * const actions[] = { "", "kill", "fail", "pause" };
	int action = match_string(actions, ARRAY_SIZE(actions), what);
	int i;

	for (i = 0; i < SHMK_NR_POINTS && strcmp(points[i].name, name); i++)
		;
	if (action < 0 || i == SHMK_NR_POINTS || (action == FAIL && !points[i].fails))
		return -EINVAL;
	spin_lock(&lock);
	state[i].action = action;
	state[i].after = after;
	spin_unlock(&lock);
	return 0;
}

static int point_set(const char *text, const struct kernel_param *kp)
{
	char name[32], what[8];
	unsigned int n;

	if (sscanf(text, "watch %u", &n) == 1)
		watch(n);
	else if (sysfs_streq(text, "go"))
		go();
	else if (sscanf(text, "%31s %7s %u", name, what, &n) == 3)
		return arm(name, what, n);
	else
		return -EINVAL;
	return 0;
}

static int point_get(char *text, const struct kernel_param *kp)
{
	int i, len = 0;

	for (i = 0; i < SHMK_NR_POINTS; i++)
		len += scnprintf(text + len, PAGE_SIZE - len, "%s %u %d\n", points[i].name,
				 READ_ONCE(state[i].passes), points[i].fails);
	i = READ_ONCE(paused);
	if (i >= 0)
		len += scnprintf(text + len, PAGE_SIZE - len, "paused %s\n", points[i].name);
	return len;
}

/*
 * What the checkers of a debug kernel have to find; checker_test looks whether
 * they do. Written to /sys/module/shmk/parameters/bug.
 */
static noinline void bug_use_after_free(void)
{
	char *p = kzalloc(64, GFP_KERNEL);

	kfree(p);
	WRITE_ONCE(*p, 1);
}

static noinline void bug_beyond_the_end(void)
{
	char *p = kvzalloc(3 * PAGE_SIZE - 24, GFP_KERNEL);

	WRITE_ONCE(p[3 * PAGE_SIZE - 24], 1);
	kvfree(p);
}

static noinline void bug_memory_leak(void)
{
	void *p = kzalloc(640, GFP_KERNEL);

	/* The last that knew it. */
	OPTIMIZER_HIDE_VAR(p);
}

static noinline void bug_page_leak(void)
{
	struct page *p = alloc_page(GFP_KERNEL);

	OPTIMIZER_HIDE_VAR(p);
}

static noinline void bug_sleep(void)
{
	spin_lock(&lock);
	might_sleep();
	spin_unlock(&lock);
}

static noinline void bug_lock_order(void)
{
	static DEFINE_MUTEX(a);
	static DEFINE_MUTEX(b);

	mutex_lock(&a);
	mutex_lock(&b);
	mutex_unlock(&b);
	mutex_unlock(&a);
	mutex_lock(&b);
	mutex_lock(&a);
	mutex_unlock(&a);
	mutex_unlock(&b);
}

static unsigned long raced;	/* protected by nothing: that is the bug */

static noinline void bug_data_race_side(struct work_struct *unused)
{
	unsigned long end = jiffies + HZ;

	while (time_before(jiffies, end)) {
		raced++;
		cpu_relax();	/* it is in memory each time */
	}
}

static noinline void bug_data_race(void)
{
	struct work_struct other;

	INIT_WORK_ONSTACK(&other, bug_data_race_side);
	queue_work(system_unbound_wq, &other);
	bug_data_race_side(NULL);
	flush_work(&other);
	destroy_work_on_stack(&other);
}

static const struct {
	const char *name;
	void (*commit)(void);
} bugs[] = {
	{ "data_race", bug_data_race },
	{ "use_after_free", bug_use_after_free },
	{ "beyond_the_end", bug_beyond_the_end },
	{ "memory_leak", bug_memory_leak },
	{ "page_leak", bug_page_leak },
	{ "sleep", bug_sleep },
	{ "lock_order", bug_lock_order },
};

static int bug_set(const char *text, const struct kernel_param *kp)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(bugs); i++) {
		if (sysfs_streq(text, bugs[i].name)) {
			bugs[i].commit();
			return 0;
		}
	}
	return -EINVAL;
}

static const struct kernel_param_ops bug_ops = {
	.set = bug_set,
};
module_param_cb(bug, &bug_ops, NULL, 0200);
MODULE_PARM_DESC(bug, "for tests: do what a checker must find");

static const struct kernel_param_ops point_ops = {
	.set = point_set,
	.get = point_get,
};
module_param_cb(point, &point_ops, NULL, 0600);
MODULE_PARM_DESC(point, "for tests: what happens at a named point");
