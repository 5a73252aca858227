// SPDX-License-Identifier: GPL-2.0-only
/*
 * dpdk.c - DPDK's rte_ring in shared memory: pointers to objects in the same
 * mapping, one ring each way for full objects and one for empty ones.
 *
 *   dpdk-sp   one producer, one consumer
 *   dpdk-mp   any number of both
 *
 * No EAL: a ring is only memory, and so no huge pages are needed.
 */
#include "bench.h"

#include <rte_ring.h>

#define DEPTH	256U

static struct rte_ring *full[2], *empty[2];	/* by sender */
static unsigned char *objects[2];
static void *out, *in;

static struct rte_ring *ring(unsigned int flags)
{
	struct rte_ring *r = bench_shared((size_t)rte_ring_get_memsize(2 * DEPTH));

	if (rte_ring_init(r, "bench", 2 * DEPTH, flags))
		bench_die("rte_ring_init");
	return r;
}

static void start(struct bench *b, unsigned int flags)
{
	unsigned int i, n, depth = b->bytes >= 65536 ? 16 : DEPTH;
	size_t stride = (b->bytes + 63) / 64 * 64;

	if (b->sleeps)
		bench_skip("rte_ring does not sleep");
	for (i = 0; i < 2; i++) {
		full[i] = ring(flags);
		empty[i] = ring(flags);
		objects[i] = bench_shared(depth * stride);
		memset(objects[i], 1, depth * stride);
		for (n = 0; n < depth; n++)
			rte_ring_enqueue(empty[i], objects[i] + n * stride);
	}
}

static void start_sp(struct bench *b)
{
	start(b, RING_F_SP_ENQ | RING_F_SC_DEQ);
}

static void start_mp(struct bench *b)
{
	start(b, 0);
}

static void join(struct bench *b)
{
	(void)b;
}

static void *loan(struct bench *b)
{
	while (rte_ring_dequeue(empty[b->side], &out))
		bench_relax();
	return out;
}

static void put(struct bench *b)
{
	while (rte_ring_enqueue(full[b->side], out))
		bench_relax();
}

static const void *get(struct bench *b)
{
	while (rte_ring_dequeue(full[!b->side], &in))
		bench_relax();
	return in;
}

static void done(struct bench *b)
{
	rte_ring_enqueue(empty[!b->side], in);
}

static const struct transport sp = { "dpdk-sp", start_sp, join, loan, put, get, done, NULL, false };
static const struct transport mp = { "dpdk-mp", start_mp, join, loan, put, get, done, NULL, true };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &sp, &mp, NULL };

	return bench_main(list, argc, argv);
}
