/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * stream.h - how `shmk send` and `shmk recv` put files into messages.
 *
 * Words
 *   run     one `shmk send` command; named by a random number.
 *   file    what a run sends, numbered from 0; standard input is a file, too.
 *   chunk   some bytes of a file, in one message; numbered from 0 in its file.
 *
 * A message is a struct stream_head and its payload. Three types:
 *   BEGIN   before the first chunk: a struct stream_info as payload
 *   DATA    a chunk: seq, offset, and its bytes as payload
 *   END     after the last: seq = number of chunks, offset = length of the
 *           file, sum = all chunks' stream_mix() added up; the same payload as
 *           BEGIN, so that a lost BEGIN matters little. STREAM_LAST: the run
 *           has no more files.
 * Each message says all that is needed to place it, so messages may come in
 * any order, twice, and interleaved with those of other runs.
 *
 * With `send --ack` (STREAM_ACK in every message) the sender makes a queue of
 * its own for answers, called by stream_back_name(), and whoever receives puts
 * a struct stream_ack there. What is not acknowledged is sent again when it is
 * likely to be lost; the sender detaches only when all is there, and dies (the
 * event says DIED, not DETACHED) when it gives up. That is how several readers
 * that share the work learn how it ended: each hears of the sender's end.
 * A message with STREAM_ACK whose sender is gone is a leftover and dropped.
 *
 * Numbers are in the machine's byte order: pools do not travel.
 */
#ifndef SHMK_STREAM_H
#define SHMK_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STREAM_MAGIC	0x4d525453U	/* "STRM" */
#define STREAM_VERSION	1

enum stream_type {
	STREAM_BEGIN	= 1,
	STREAM_DATA	= 2,
	STREAM_END	= 3,
};

#define STREAM_LAST	0x1	/* END: of the run's last file */
#define STREAM_ACK	0x2	/* the sender waits for answers */
#define STREAM_AGAIN	0x4	/* sent before, may come twice */

struct stream_head {
	uint32_t magic;
	uint8_t version;
	uint8_t type;
	uint16_t flags;
	uint64_t run;
	uint32_t peer;		/* the sender's id and generation in its pool */
	uint32_t gen;
	uint32_t file;
	uint32_t len;		/* of the payload */
	uint64_t seq;
	uint64_t offset;
	uint64_t sum;		/* DATA: stream_sum() of the payload */
	uint64_t order;		/* counts all messages of the run as they are sent */
};

_Static_assert(sizeof(struct stream_head) == 64, "payload starts on a cache line");

#define STREAM_SIZE_UNKNOWN	UINT64_MAX

struct stream_info {
	uint64_t size;		/* or STREAM_SIZE_UNKNOWN */
	uint32_t mode;		/* permission bits, 0: unknown */
	uint32_t name_len;
	char name[];		/* without directories, without NUL */
};

#define STREAM_NAME_MAX		255
#define STREAM_OFFSET_MAX	(INT64_MAX / 2)	/* a place in a file, with room for what it begins at */
#define STREAM_INFO_ROOM	(sizeof(struct stream_info) + STREAM_NAME_MAX + 1)

enum stream_answer {
	STREAM_STORED	= 1,	/* @count chunks from @seq on need not be sent again */
	STREAM_SEEN_END	= 2,	/* END has come */
	STREAM_DONE	= 3,	/* the whole file is there and checked */
};

#define STREAM_SHARED	0x1	/* I am one of several readers, and cannot tell DONE */

/* Fits into the smallest slot of a queue, inline. */
struct stream_ack {
	uint32_t magic;
	uint8_t answer;
	uint8_t flags;
	uint16_t reserved;
	uint32_t peer;		/* who answers */
	uint32_t gen;
	uint32_t file;
	uint32_t count;
	uint64_t seq;
	uint64_t order;		/* largest order seen so far */
	uint64_t run;
};

_Static_assert(sizeof(struct stream_ack) == 48, "inline in a slot of 64 bytes");

#define STREAM_BACK_PREFIX	"back."

void stream_back_name(char name[64], uint32_t peer, uint32_t gen, uint64_t run);

/*
 * Is the message well formed? Its sender may go on writing there while we look, so what was
 * checked is the copy in @h, and only that counts.
 */
bool stream_head_take(struct stream_head *h, const void *data, size_t len);

/* Of a BEGIN or END; what stream_info says of it need not be believed. */
static inline uint32_t stream_name_len(const struct stream_head *h)
{
	return h->len - (uint32_t)sizeof(struct stream_info);
}

/* XXH64: as fast as memory, and finds what a wrong block or offset does. */
uint64_t stream_sum(const void *data, size_t len);

/* What a chunk adds to its file's sum: any order gives the same, any misplaced chunk another. */
static inline uint64_t stream_mix(uint64_t sum, uint64_t offset, uint32_t len)
{
	uint64_t x = sum ^ (offset * 0x9e3779b97f4a7c15ULL) ^ ((uint64_t)len << 32);

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

#endif
