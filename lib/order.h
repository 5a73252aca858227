/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * order.h - the kernel's words for atomics and ordering, in user space.
 *
 * What a pair of accesses orders, and against whom, stands at each use and in
 * Documentation/ordering.rst. Two kinds of reader exist:
 *   - living peers on other CPUs: they need acquire, release and full fences;
 *   - the settler of a dead peer: death is precise, so it sees every store
 *     that precedes the kill in program order and none that follows. Only the
 *     compiler could reorder for it: barrier().
 */
#ifndef SHMK_ORDER_H
#define SHMK_ORDER_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/types.h>

#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), (v), __ATOMIC_RELAXED)
#define smp_load_acquire(p)	__atomic_load_n((p), __ATOMIC_ACQUIRE)
#define smp_store_release(p, v)	__atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define smp_rmb()		__atomic_thread_fence(__ATOMIC_ACQUIRE)
#define barrier()		__atomic_signal_fence(__ATOMIC_SEQ_CST)

/* Full ordering on success and failure, as the kernel's cmpxchg(). Returns the old value. */
static inline __u64 shmk_cmpxchg(__u64 *p, __u64 old, __u64 new)
{
	__atomic_compare_exchange_n(p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return old;
}
#define cmpxchg(p, o, n)	shmk_cmpxchg((p), (o), (n))
#define xchg(p, v)		__atomic_exchange_n((p), (v), __ATOMIC_SEQ_CST)

static inline bool cas(__u64 *p, __u64 old, __u64 new)
{
	return shmk_cmpxchg(p, old, new) == old;
}

static inline void word_or(__u64 *p, __u64 bits)
{
	__atomic_fetch_or(p, bits, __ATOMIC_SEQ_CST);
}

static inline void word_and(__u64 *p, __u64 bits)
{
	__atomic_fetch_and(p, bits, __ATOMIC_SEQ_CST);
}

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield" ::: "memory");
#else
	barrier();
#endif
}

#endif
