/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * trace.h - tracepoints, one for each transition that the kernel takes part in.
 *
 * What peers do among themselves in shared memory passes by unseen. Listed in
 * Documentation/uapi.rst.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM shmk

#if !defined(SHMK_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define SHMK_TRACE_H

#include <linux/string.h>
#include <linux/tracepoint.h>

#include "peer.h"
#include "pool.h"

#define show_reason(reason)						\
	__print_symbolic(reason, { SHMK_REASON_DETACHED, "detached" },	\
			 { SHMK_REASON_CLOSED, "closed" },		\
			 { SHMK_REASON_EXITED, "exited" },		\
			 { SHMK_REASON_KILLED, "killed" },		\
			 { SHMK_REASON_EXEC, "exec" },			\
			 { SHMK_REASON_UNKNOWN, "unknown" })

#define show_side(side)							\
	__print_symbolic(side, { SHMK_SIDE_RECV, "recv" }, { SHMK_SIDE_SEND, "send" })

/* A process became a peer. */
TRACE_EVENT(shmk_attach,
	TP_PROTO(const struct shmk_peer *peer),
	TP_ARGS(peer),
	TP_STRUCT__entry(
		__array(char, pool, SHMK_NAME_LEN)
		__field(u32, peer)
		__field(u32, gen)
		__field(u32, nr_entries)
		__field(bool, rdonly)
	),
	TP_fast_assign(
		strscpy(__entry->pool, peer->pool->name, SHMK_NAME_LEN);
		__entry->peer = peer->id;
		__entry->gen = peer->gen;
		__entry->nr_entries = peer->nr_entries;
		__entry->rdonly = peer->rdonly;
	),
	TP_printk("pool=%s peer=%u gen=%u nr_entries=%u%s", __entry->pool, __entry->peer,
		  __entry->gen, __entry->nr_entries, __entry->rdonly ? " rdonly" : "")
);

/* Its end is known, and its stores are over; nothing is settled yet. */
TRACE_EVENT(shmk_end,
	TP_PROTO(const struct shmk_peer *peer),
	TP_ARGS(peer),
	TP_STRUCT__entry(
		__array(char, pool, SHMK_NAME_LEN)
		__field(u32, peer)
		__field(u32, gen)
		__field(u32, reason)
		__field(int, code)
	),
	TP_fast_assign(
		strscpy(__entry->pool, peer->pool->name, SHMK_NAME_LEN);
		__entry->peer = peer->id;
		__entry->gen = peer->gen;
		__entry->reason = peer->reason;
		__entry->code = peer->code;
	),
	TP_printk("pool=%s peer=%u gen=%u reason=%s code=%d", __entry->pool, __entry->peer,
		  __entry->gen, show_reason(__entry->reason), __entry->code)
);

/* Everything is given back; took_ns since the kernel knew of the end. */
TRACE_EVENT(shmk_settled,
	TP_PROTO(const struct shmk_peer *peer, u64 took_ns),
	TP_ARGS(peer, took_ns),
	TP_STRUCT__entry(
		__array(char, pool, SHMK_NAME_LEN)
		__field(u32, peer)
		__field(u32, gen)
		__field(u64, entries)
		__field(u64, blocks)
		__field(u64, bytes)
		__field(u64, messages)
		__field(u64, took_ns)
	),
	TP_fast_assign(
		strscpy(__entry->pool, peer->pool->name, SHMK_NAME_LEN);
		__entry->peer = peer->id;
		__entry->gen = peer->gen;
		__entry->entries = peer->settled.entries;
		__entry->blocks = peer->settled.blocks;
		__entry->bytes = peer->settled.bytes;
		__entry->messages = peer->settled.messages;
		__entry->took_ns = took_ns;
	),
	TP_printk("pool=%s peer=%u gen=%u entries=%llu blocks=%llu bytes=%llu messages=%llu took_ns=%llu",
		  __entry->pool, __entry->peer, __entry->gen, __entry->entries,
		  __entry->blocks, __entry->bytes, __entry->messages, __entry->took_ns)
);

DECLARE_EVENT_CLASS(shmk_life,
	TP_PROTO(const struct shmk_peer *peer),
	TP_ARGS(peer),
	TP_STRUCT__entry(
		__array(char, pool, SHMK_NAME_LEN)
		__field(u32, peer)
		__field(u32, gen)
		__field(u32, deadline_ms)
		__field(u64, moved_ns)
	),
	TP_fast_assign(
		strscpy(__entry->pool, peer->pool->name, SHMK_NAME_LEN);
		__entry->peer = peer->id;
		__entry->gen = peer->gen;
		__entry->deadline_ms = peer->deadline_ms;
		__entry->moved_ns = peer->moved_ns;
	),
	TP_printk("pool=%s peer=%u gen=%u deadline_ms=%u moved_ns=%llu", __entry->pool,
		  __entry->peer, __entry->gen, __entry->deadline_ms, __entry->moved_ns)
);

/* It has not been seen to move for its own deadline. */
DEFINE_EVENT(shmk_life, shmk_stuck,
	TP_PROTO(const struct shmk_peer *peer),
	TP_ARGS(peer)
);

/* It moves again. */
DEFINE_EVENT(shmk_life, shmk_unstuck,
	TP_PROTO(const struct shmk_peer *peer),
	TP_ARGS(peer)
);

DECLARE_EVENT_CLASS(shmk_block,
	TP_PROTO(const struct shmk_pool *pool, u32 block),
	TP_ARGS(pool, block),
	TP_STRUCT__entry(
		__field(u64, pool)
		__field(u32, block)
	),
	TP_fast_assign(
		__entry->pool = pool->id;
		__entry->block = block;
	),
	TP_printk("pool=%llu block=%u", __entry->pool, __entry->block)
);

/* A dead peer's block has pages that are pinned: nobody gets it. */
DEFINE_EVENT(shmk_block, shmk_pinned,
	TP_PROTO(const struct shmk_pool *pool, u32 block),
	TP_ARGS(pool, block)
);

/* They are not any more. */
DEFINE_EVENT(shmk_block, shmk_unpinned,
	TP_PROTO(const struct shmk_pool *pool, u32 block),
	TP_ARGS(pool, block)
);

DECLARE_EVENT_CLASS(shmk_whole,
	TP_PROTO(const struct shmk_pool *pool),
	TP_ARGS(pool),
	TP_STRUCT__entry(
		__array(char, pool, SHMK_NAME_LEN)
		__field(u64, id)
		__field(u64, memory)
	),
	TP_fast_assign(
		strscpy(__entry->pool, pool->name, SHMK_NAME_LEN);
		__entry->id = pool->id;
		__entry->memory = pool->memory_bytes;
	),
	TP_printk("pool=%s id=%llu memory=%llu", __entry->pool, __entry->id, __entry->memory)
);

/* A pool may be found from now on. */
DEFINE_EVENT(shmk_whole, shmk_pool_created,
	TP_PROTO(const struct shmk_pool *pool),
	TP_ARGS(pool)
);

/* Its name is gone, or all of it. */
DEFINE_EVENT(shmk_whole, shmk_pool_destroyed,
	TP_PROTO(const struct shmk_pool *pool),
	TP_ARGS(pool)
);

/* Its name is another one's, of which shmk_pool_created has told. */
DEFINE_EVENT(shmk_whole, shmk_pool_reset,
	TP_PROTO(const struct shmk_pool *pool),
	TP_ARGS(pool)
);

DECLARE_EVENT_CLASS(shmk_part,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, const char *name),
	TP_ARGS(pool, queue, name),
	TP_STRUCT__entry(
		__field(u64, pool)
		__field(u32, queue)
		__array(char, name, SHMK_NAME_LEN)
	),
	TP_fast_assign(
		__entry->pool = pool->id;
		__entry->queue = queue;
		strscpy(__entry->name, name, SHMK_NAME_LEN);
	),
	TP_printk("pool=%llu queue=%u name=%s", __entry->pool, __entry->queue, __entry->name)
);

/* A queue or topic is there, or is not any more. */
DEFINE_EVENT(shmk_part, shmk_queue_created,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, const char *name),
	TP_ARGS(pool, queue, name)
);

DEFINE_EVENT(shmk_part, shmk_queue_removed,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, const char *name),
	TP_ARGS(pool, queue, name)
);

DECLARE_EVENT_CLASS(shmk_side,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, u32 side),
	TP_ARGS(pool, queue, side),
	TP_STRUCT__entry(
		__field(u64, pool)
		__field(u32, queue)
		__field(u32, side)
	),
	TP_fast_assign(
		__entry->pool = pool->id;
		__entry->queue = queue;
		__entry->side = side;
	),
	TP_printk("pool=%llu queue=%u side=%s", __entry->pool, __entry->queue,
		  show_side(__entry->side))
);

/* A peer rings for who sleeps on a side. */
DEFINE_EVENT(shmk_side, shmk_bell,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, u32 side),
	TP_ARGS(pool, queue, side)
);

/* Who sleeps there is woken: by a bell, or on behalf of the dead. */
DEFINE_EVENT(shmk_side, shmk_wake,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, u32 side),
	TP_ARGS(pool, queue, side)
);

/* poll() of a side found it ready, or armed it. */
DEFINE_EVENT(shmk_side, shmk_ready,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, u32 side),
	TP_ARGS(pool, queue, side)
);

DEFINE_EVENT(shmk_side, shmk_armed,
	TP_PROTO(const struct shmk_pool *pool, u32 queue, u32 side),
	TP_ARGS(pool, queue, side)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
