/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * point.h - named points at which a test kills, fails or stops who passes.
 *
 * In the module that tests load for it (`make hooks`, SHMK_TEST_HOOKS), nothing at
 * all in any other. None of them is under a spin lock: who passes may sleep.
 *
 * shmk_point() can be failed, shmk_pass() cannot: there is no way back from it.
 */
#ifndef SHMK_POINT_H
#define SHMK_POINT_H

enum shmk_point {
	/* every command */
	SHMK_AT_CALL_READ,
	SHMK_AT_CALL_RAN,
	SHMK_AT_CALL_FD,
	SHMK_AT_CALL_COPIED,
	SHMK_AT_CALL_COMMITTED,
	/* attaching */
	SHMK_AT_ATTACH_USER,
	SHMK_AT_ATTACH_MM,
	SHMK_AT_ATTACH_ID,
	SHMK_AT_LEDGER_GROWN,
	SHMK_AT_ATTACH_LEDGER,
	SHMK_AT_PEER_PUBLISHED,
	SHMK_AT_MMAP,
	SHMK_AT_FAULT,
	/* ending */
	SHMK_AT_DETACH_BEGUN,
	SHMK_AT_DETACH_LEFT,
	SHMK_AT_DETACH_UNMAPPED,
	SHMK_AT_DETACH_MARKED,
	SHMK_AT_CLOSE_BEGUN,
	SHMK_AT_RELEASE_MARKED,
	SHMK_AT_SETTLE_BEGUN,	/* failed: all is left to the worker */
	SHMK_AT_SETTLE_ENTRY,	/* failed: the rest is left to the worker */
	SHMK_AT_WORK_BEGUN,
	SHMK_AT_END_SETTLED,
	SHMK_AT_END_CLEARED,
	SHMK_AT_END_QUEUE,
	SHMK_AT_END_CLOSED,
	SHMK_AT_END_TOLD,
	/* queues */
	SHMK_AT_QUEUE_RESERVED,
	SHMK_AT_QUEUE_ZEROED,
	SHMK_AT_QUEUE_PUBLISHED,
	SHMK_AT_REMOVE_BEGUN,
	SHMK_AT_REMOVE_FREED,
	SHMK_AT_DRAIN_MARKED,
	SHMK_AT_COLLECT_LOOKED,
	SHMK_AT_SIDE_HELD,
	SHMK_AT_POLL_QUEUED,
	SHMK_AT_POLL_SET,
	SHMK_AT_BELL_CHECKED,
	/* topics */
	SHMK_AT_TOPIC_MADE,
	SHMK_AT_TOPIC_GOING,
	SHMK_AT_TOPIC_SUBSCRIBED,
	SHMK_AT_TOPIC_UNSUBSCRIBED,
	SHMK_AT_TOPIC_LOOK,
	SHMK_AT_TOPIC_ROLE,
	/* pools */
	SHMK_AT_POOL_ENTERED,
	SHMK_AT_POOL_CHARGED,
	SHMK_AT_POOL_TABLES,
	SHMK_AT_POOL_REGIONS,
	SHMK_AT_POOL_SHOWN,
	SHMK_AT_DESTROY_CLAIMED,
	SHMK_AT_DESTROY_HIDDEN,
	SHMK_AT_DESTROY_UNNAMED,
	SHMK_AT_RESET_HIDDEN,
	SHMK_AT_RESET_SHOWN,
	SHMK_AT_POOL_LAST,
	SHMK_AT_POOL_LEFT,
	SHMK_AT_EVENT_FETCHED,
	SHMK_NR_POINTS
};

#ifdef SHMK_TEST_HOOKS
int shmk_point(enum shmk_point point);
void shmk_pass(enum shmk_point point);
#else
static inline int shmk_point(enum shmk_point point)
{
	return 0;
}

static inline void shmk_pass(enum shmk_point point)
{
}
#endif

#endif
