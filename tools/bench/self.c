// SPDX-License-Identifier: GPL-2.0-only
/*
 * self.c - shmk itself, by the public API, on the local backend (or any other
 * pool: SHMK_BENCH_POOL=shmk:name).
 *
 *   inline   inside the slot (48 bytes of 64, 112 of 128); one producer, one receiver
 *   block    a block of the pool for each; one producer, one receiver
 *   block-mn the same, through a queue for any number of both
 */
#include "bench.h"

#include <shmk.h>

static struct {
	char			uri[64];
	uint32_t		flags;
	bool			inl;
	struct shmk		*s;
	struct shmk_queue	*to, *from;
	struct shmk_msg		out, in;
} my;

static void check(const char *what, int ret)
{
	if (ret < 0)
		bench_die("%s: %s", what, strerror(-ret));
}

static void common_init(struct bench *b, bool inl, uint32_t flags)
{
	const char *uri = getenv("SHMK_BENCH_POOL");
	struct shmk_pool_opts opts = { .bytes = 256UL << 20 };

	my.inl = inl;
	my.flags = flags;
	if (inl && b->bytes > 112)
		bench_skip("too long for a slot");
	if (uri)
		snprintf(my.uri, sizeof(my.uri), "%s", uri);
	else
		snprintf(my.uri, sizeof(my.uri), "local:bench-%d", (int)getpid());
	check(my.uri, shmk_pool_create(my.uri, &opts));
}

static void inline_init(struct bench *b)
{
	common_init(b, true, SHMK_QUEUE_SP | SHMK_QUEUE_SC);
}

static void block_init(struct bench *b)
{
	common_init(b, false, SHMK_QUEUE_SP | SHMK_QUEUE_SC);
}

static void block_mn_init(struct bench *b)
{
	common_init(b, false, 0);
}

static void shmk_open(struct bench *b)
{
	/* Polling spins for ever, sleeping never spins. */
	struct shmk_attach_opts opts = { .spin_us = b->sleeps ? -1 : 0 };
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE | my.flags, 
		.capacity = b->bytes >= 65536 ? 16 : 256,
		.slot_bytes = my.inl && b->bytes > 48 ? 128 : 64 };

	check("attach", shmk_attach(my.uri, &opts, &my.s));
	check("queue", shmk_queue_open(my.s, b->side ? "back" : "forth", &q, SHMK_TRY, &my.to));
	check("queue", shmk_queue_open(my.s, b->side ? "forth" : "back", &q, SHMK_TRY, &my.from));
}

static void *shmk_loan(struct bench *b)
{
	static unsigned char text[64];
	int ret;

	if (my.inl)
		return text;
	while ((ret = shmk_alloc(my.s, b->bytes, 0, &my.out)) == -ENOMEM)
		bench_relax();
	check("alloc", ret);
	return my.out.data;
}

static void shmk_send_it(struct bench *b)
{
	int64_t deadline = b->sleeps ? SHMK_FOREVER : SHMK_TRY;
	int ret;

	do {
		if (my.inl)
			ret = shmk_send_copy(my.to, shmk_loan(b), b->bytes, deadline);
		else
			ret = shmk_send(my.to, &my.out, deadline);
	} while (ret == -EAGAIN);
	check("send", ret);
}

static const void *shmk_recv_it(struct bench *b)
{
	int64_t deadline = b->sleeps ? SHMK_FOREVER : SHMK_TRY;
	int ret;

	while ((ret = shmk_recv(my.from, &my.in, deadline)) == -EAGAIN)
		bench_relax();
	check("recv", ret);
	return my.in.data;
}

static void shmk_recv_done(struct bench *b)
{
	(void)b;
	shmk_free(&my.in);
}

static void shmk_close(struct bench *b)
{
	shmk_detach(my.s);
	if (b->side)
		return;
	while (shmk_pool_destroy(my.uri) == -EBUSY)
		usleep(1000);
}

#define TRANSPORT(id, text, init)						\
	static const struct transport id = {					\
		text, init, shmk_open, shmk_loan, shmk_send_it, shmk_recv_it,	\
		shmk_recv_done, shmk_close,					\
	}

TRANSPORT(inl, "shmk-inline", inline_init);
TRANSPORT(block, "shmk-block", block_init);
TRANSPORT(block_mn, "shmk-block-mn", block_mn_init);

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &inl, &block, &block_mn, NULL };

	return bench_main(list, argc, argv);
}
