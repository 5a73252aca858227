/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * after.h - what is true of any pool when its dead are settled. @s is the one who survived;
 * what is not true is in sweep_why (sweep.h).
 */
#ifndef AFTER_H
#define AFTER_H

#include "internal.h"
#include "sweep.h"

static inline bool pool_sound(struct shmk *s, const char *when)
{
	char report[256];

	if (shmk_pool_check(s, report, sizeof(report)))
		return sweep_fail("%s: %s", when, report);
	return true;
}

/* Waits until the others are settled. */
static inline bool pool_alone(struct shmk *s)
{
	int64_t deadline = shmk_deadline_ms(20000);
	struct shmk_pool_stat stat;

	do {
		s->backend->reap(s);
		must("stat", shmk_pool_stat(s, &stat));
		if (stat.peers_now == 1)
			return true;
	} while (now_ns() < deadline);
	return sweep_fail("%u peers are still there", stat.peers_now);
}

#define SPANS_MOST	64

/* All of a pool of so many bytes can be had again, and all of it is free when given back. */
static inline bool pool_memory_back(struct shmk *s, size_t bytes)
{
	static struct shmk_msg msg[SPANS_MOST];
	unsigned int n, i, spans = (unsigned int)(bytes >> 16);
	struct shmk_pool_stat stat;

	must("too many spans for this test", spans > SPANS_MOST ? -E2BIG : 0);
	for (n = 0; n < spans; n++)
		if (shmk_alloc(s, 60 << 10, 0, &msg[n]))
			break;
	for (i = 0; i < n; i++)
		shmk_free(&msg[i]);
	must("stat", shmk_pool_stat(s, &stat));
	if (stat.blocks_used)
		return sweep_fail("%llu blocks (%llu bytes) are still in use",
				  (unsigned long long)stat.blocks_used,
				  (unsigned long long)stat.bytes_used);
	return n == spans || sweep_fail("only %u of %u spans can be allocated", n, spans);
}

#endif
