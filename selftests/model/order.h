/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * order.h - lib/order.h's words for the explorer: every access to shared memory
 * is a step at which another may run, or the actor may die.
 *
 * Forced in front of the library's sources (-include), whose own order.h is
 * then skipped by its guard.
 */
#ifndef SHMK_ORDER_H
#define SHMK_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

uint64_t model_load(const void *p, size_t size);
void model_store(void *p, uint64_t value, size_t size);
uint64_t model_cmpxchg(__u64 *p, uint64_t old, uint64_t new);
uint64_t model_rmw(__u64 *p, uint64_t and, uint64_t or);
void model_fence(void);

#define READ_ONCE(x)		((__typeof__((x) + 0))model_load(&(x), sizeof(x)))
#define WRITE_ONCE(x, v)	model_store(&(x), (uint64_t)(v), sizeof(x))
#define smp_load_acquire(p)	READ_ONCE(*(p))
#define smp_store_release(p, v)	WRITE_ONCE(*(p), (v))
#define smp_mb()		model_fence()
#define smp_rmb()		__atomic_signal_fence(__ATOMIC_SEQ_CST)	/* loads are in order */
#define barrier()		__atomic_signal_fence(__ATOMIC_SEQ_CST)
#define cmpxchg(p, o, n)	model_cmpxchg((p), (o), (n))
#define xchg(p, v)		model_rmw((p), 0, (v))

static inline bool cas(__u64 *p, __u64 old, __u64 new)
{
	return model_cmpxchg(p, old, new) == old;
}

static inline void word_or(__u64 *p, __u64 bits)
{
	model_rmw(p, ~0ULL, bits);
}

static inline void word_and(__u64 *p, __u64 bits)
{
	model_rmw(p, bits, 0);
}

static inline void cpu_relax(void)
{
}

/* Not in the explorer's own file. */
void model_copy(void *to, const void *from, size_t n);
void *model_alloc(size_t size);
void *model_zalloc(size_t n, size_t size);
void model_free(void *p);
#define memcpy(to, from, n)	model_copy((to), (from), (n))
#define malloc(size)		model_alloc(size)
#define calloc(n, size)		model_zalloc((n), (size))
#define aligned_alloc(a, size)	model_alloc(size)
#define free(p)			model_free(p)

#endif
