// SPDX-License-Identifier: GPL-2.0-only
/*
 * stream.c - what both ends of a stream need.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "stream.h"

void stream_back_name(char name[64], uint32_t peer, uint32_t gen, uint64_t run)
{
	snprintf(name, 64, STREAM_BACK_PREFIX "%u.%u.%08x", peer, gen, (uint32_t)run);
}

static bool info_ok(const struct stream_head *h)
{
	return h->len >= sizeof(struct stream_info) && stream_name_len(h) <= STREAM_NAME_MAX;
}

bool stream_head_take(struct stream_head *h, const void *data, size_t len)
{
	if (len < sizeof(*h))
		return false;
	memcpy(h, data, sizeof(*h));
	if (h->magic != STREAM_MAGIC || h->version != STREAM_VERSION || h->len != len - sizeof(*h))
		return false;
	switch (h->type) {
	case STREAM_BEGIN:
		return info_ok(h);
	case STREAM_END:
		return info_ok(h) && h->offset <= STREAM_OFFSET_MAX;
	case STREAM_DATA:
		return h->len && h->offset <= STREAM_OFFSET_MAX;
	default:
		return false;
	}
}

/* --------------------------------------------------------------- XXH64 -- */

/* The algorithm of Yann Collet's xxHash, as its specification gives it. */

#define P1	0x9e3779b185ebca87ULL
#define P2	0xc2b2ae3d27d4eb4fULL
#define P3	0x165667b19e3779f9ULL
#define P4	0x85ebca77c2b2ae63ULL
#define P5	0x27d4eb2f165667c5ULL

static inline uint64_t rotl(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}

static inline uint64_t get64(const unsigned char *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint32_t get32(const unsigned char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline uint64_t one_round(uint64_t acc, uint64_t in)
{
	return rotl(acc + in * P2, 31) * P1;
}

static inline uint64_t merge(uint64_t h, uint64_t acc)
{
	return (h ^ one_round(0, acc)) * P1 + P4;
}

static uint64_t tail(uint64_t h, const unsigned char *p, size_t len)
{
	for (; len >= 8; p += 8, len -= 8)
		h = rotl(h ^ one_round(0, get64(p)), 27) * P1 + P4;
	if (len >= 4) {
		h = rotl(h ^ get32(p) * P1, 23) * P2 + P3;
		p += 4;
		len -= 4;
	}
	for (; len; p++, len--)
		h = rotl(h ^ *p * P5, 11) * P1;
	h = (h ^ h >> 33) * P2;
	h = (h ^ h >> 29) * P3;
	return h ^ h >> 32;
}

uint64_t stream_sum(const void *data, size_t len)
{
	const unsigned char *p = data;
	uint64_t a = P1 + P2, b = P2, c = 0, d = -P1, h = P5;
	size_t left = len;

	if (len >= 32) {
		for (; left >= 32; p += 32, left -= 32) {
			a = one_round(a, get64(p));
			b = one_round(b, get64(p + 8));
			c = one_round(c, get64(p + 16));
			d = one_round(d, get64(p + 24));
		}
		h = rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18);
		h = merge(merge(merge(merge(h, a), b), c), d);
	}
	return tail(h + len, p, left);
}
