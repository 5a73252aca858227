// SPDX-License-Identifier: GPL-2.0-only
/*
 * self.c - shmk itself, by the public API, on the local backend (or any other
 * pool: SHMK_BENCH_POOL=shmk:name).
 *
 *   inline     inside the slot (48 bytes of 64, 112 of 128, 240 of 256); one producer, one receiver
 *   inline-mn  the same, through a queue for any number of both
 *   block      a block of the pool for each; one producer, one receiver
 *   block-mn   the same, through a queue for any number of both
 *   kept       block and
 *   kept-mn    block-mn, of peers that keep a few freed blocks: shmk_keep(); and
 *   given
 *   given-mn   of peers that keep none, not even the one that they would unasked
 *   batch      inline, up to 32 with one call on both sides; to stream only
 *   topic      published and read, in the topic's own memory
 *   uring      inline, sleeping in the library's own io_uring
 *   epoll      inline, sleeping in an epoll of the caller's own on the queue's fd
 */
#include "bench.h"
#include "own.h"

#include <sys/epoll.h>
#include <sys/resource.h>

#include <shmk.h>

#define CROWD	1000
#define BATCH	32

enum way { COPY, BLOCK, MANY, TOPIC };

static struct {
	char			uri[64];
	uint32_t		flags;
	enum way		way;
	bool			epoll, keeps, gives;
	struct shmk		*s;
	struct shmk_queue	*to, *from;
	struct shmk_topic	*topic_to, *topic_from;
	struct shmk_sub		*sub;
	struct shmk_held	held;
	struct shmk_msg		out, in;
	struct shmk_msg		outs[BATCH], ins[BATCH];
	unsigned int		nr_out, nr_in, at_in;
	unsigned long		put, all;
	int			ep;
	pid_t			crowd;
	unsigned char		*text;
} my;

static void check(const char *what, int ret)
{
	if (ret < 0)
		bench_die("%s: %s", what, strerror(-ret));
}

/* ------------------------------------------------------------- the pool -- */

/* They do nothing but be there, in a process that ends with this one. */
static void crowd_in(void)
{
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE, .capacity = 16 };
	struct rlimit fds;
	struct shmk *s;
	struct shmk_queue *queue;
	int i, in[2];
	char name[32], c;

	if (pipe(in))
		bench_die("pipe: %s", strerror(errno));
	my.crowd = fork();
	if (!my.crowd) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		getrlimit(RLIMIT_NOFILE, &fds);
		fds.rlim_cur = fds.rlim_max;
		setrlimit(RLIMIT_NOFILE, &fds);
		for (i = 0; i < CROWD; i++) {
			check("one of the crowd", shmk_attach(my.uri, NULL, &s));
			snprintf(name, sizeof(name), "crowd-%d", i);
			check("its queue", shmk_queue_open(s, name, &q, SHMK_TRY, &queue));
		}
		if (write(in[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(in[1]);
	if (read(in[0], &c, 1) != 1)
		bench_skip("%d more peers could not attach", CROWD);
	close(in[0]);
}

static void common_init(struct bench *b, enum way way, uint32_t flags)
{
	const char *uri = getenv("SHMK_BENCH_POOL");
	struct shmk_pool_opts opts = {
		.bytes = b->big ? 16UL << 30 : 256UL << 20, .nr_peers = CROWD + 72,
		.nr_queues = CROWD + 72, .flags = SHMK_POOL_PERSIST,
	};
	int ret;

	my.way = way;
	my.flags = flags;
	my.all = b->messages + (b->senders ? 0 : b->messages / 4 + 1);
	my.text = bench_private(b->bytes);
	if ((way == COPY || way == MANY) && b->bytes > 240)
		bench_skip("too long for a slot");
	snprintf(my.uri, sizeof(my.uri), "%s", uri ? uri : "local:bench");
	snprintf(my.uri + strlen(my.uri), sizeof(my.uri) - strlen(my.uri), "-%d", (int)getpid());
	ret = shmk_pool_create(my.uri, &opts);
	if (b->big && (ret == -ENOMEM || ret == -ENOSPC || ret == -EPERM))
		bench_skip("no room for 16 GiB");
	check(my.uri, ret);
	if (b->crowd)
		crowd_in();
}

#define INIT(name, way, flags)				\
static void name##_init(struct bench *b)		\
{							\
	common_init(b, way, flags);			\
}
INIT(inl, COPY, SHMK_QUEUE_SP | SHMK_QUEUE_SC)
INIT(inl_mn, COPY, 0)
INIT(block, BLOCK, SHMK_QUEUE_SP | SHMK_QUEUE_SC)
INIT(block_mn, BLOCK, 0)
INIT(topic, TOPIC, 0)

static void kept_init(struct bench *b)
{
	my.keeps = true;
	block_init(b);
}

static void kept_mn_init(struct bench *b)
{
	my.keeps = true;
	block_mn_init(b);
}

static void given_init(struct bench *b)
{
	my.gives = true;
	block_init(b);
}

static void given_mn_init(struct bench *b)
{
	my.gives = true;
	block_mn_init(b);
}

static void batch_init(struct bench *b)
{
	if (!b->stream)
		bench_skip("stream only");
	common_init(b, MANY, SHMK_QUEUE_SP | SHMK_QUEUE_SC);
}

static void uring_init(struct bench *b)
{
	if (!b->sleeps)
		bench_skip("sleeping only");
	setenv("SHMK_WAIT", "uring", 1);
	inl_init(b);
}

static void epoll_init(struct bench *b)
{
	if (!b->sleeps)
		bench_skip("sleeping only");
	my.epoll = true;
	inl_init(b);
}

/* ------------------------------------------------------------ both sides -- */

static void open_epoll(void)
{
	struct epoll_event e = { };
	int fd = shmk_queue_fd(my.from, SHMK_RECV);

	check("queue fd", fd);
	e.events = (uint32_t)shmk_queue_events(my.from, SHMK_RECV);
	my.ep = epoll_create1(EPOLL_CLOEXEC);
	if (my.ep < 0 || epoll_ctl(my.ep, EPOLL_CTL_ADD, fd, &e))
		bench_die("epoll: %s", strerror(errno));
}

/* As many as the peers have; of a stream to one who sleeps a pipe's worth, for the time until it runs. */
static uint32_t queue_slots(const struct bench *b)
{
	if (b->bytes >= 65536)
		return 16;
	return b->stream && b->sleeps && !b->senders ? 1024 : 256;
}

static void open_queues(struct bench *b)
{
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE | my.flags,
		.capacity = queue_slots(b),
		.slot_bytes = my.way == BLOCK || b->bytes <= 48 ? 64 : b->bytes <= 112 ? 128 : 256 };

	check("queue", shmk_queue_open(my.s, b->side ? "back" : "forth", &q, SHMK_TRY, &my.to));
	check("queue", shmk_queue_open(my.s, b->side ? "forth" : "back", &q, SHMK_TRY, &my.from));
	if (my.epoll)
		open_epoll();
}

/* Who publishes waits for the reader, as all others here wait for room. */
static void open_topics(struct bench *b)
{
	struct shmk_topic_opts make = { .flags = SHMK_TOPIC_CREATE, .nr_readers = 16,
		.depth = b->bytes >= 65536 ? 16 : 256, .msg_bytes = (uint32_t)b->bytes };
	struct shmk_sub_opts read = { .wait = true };
	struct shmk_topic_stats st;

	check("topic", shmk_topic_open(my.s, b->side ? "back" : "forth", &make, SHMK_TRY, &my.topic_to));
	check("topic", shmk_topic_open(my.s, b->side ? "forth" : "back", &make, SHMK_TRY,
				       &my.topic_from));
	check("writer", shmk_topic_writer(my.topic_to, SHMK_TRY));
	check("subscribe", shmk_topic_subscribe(my.topic_from, &read, &my.sub));
	do {
		usleep(1000);
		check("topic", shmk_topic_stats(my.topic_to, &st));
	} while (!st.nr_subs);
}

static void self_open(struct bench *b)
{
	/*
	 * Polling spins for ever, sleeping never spins; but the sender of a stream to one who sleeps
	 * waits for room as who says nothing does: it spins a little.
	 */
	bool waits = b->stream && !b->side && !b->senders;
	struct shmk_attach_opts opts = { .spin_us = b->sleeps && !waits ? -1 : 0,
					 .flags = b->one ? SHMK_ATTACH_ONE_THREAD : 0 };

	check("attach", shmk_attach(my.uri, &opts, &my.s));
	if (my.gives)
		check("keep", shmk_keep(my.s, 0));
	if (my.keeps)
		check("keep", shmk_keep(my.s, 4 * (b->bytes < 4096 ? 4096 : b->bytes)));
	if (my.way == TOPIC)
		open_topics(b);
	else
		open_queues(b);
}

static void *self_loan(struct bench *b)
{
	int ret;

	if (my.way != BLOCK)
		return my.text;
	while ((ret = shmk_alloc(my.s, b->bytes, 0, &my.out)) == -ENOMEM)
		bench_relax();
	check("alloc", ret);
	return my.out.data;
}

static void send_batch(struct bench *b, int64_t deadline)
{
	int ret;

	check("inline", shmk_msg_inline(my.s, my.text, b->bytes, &my.outs[my.nr_out++]));
	if (++my.put < my.all && my.nr_out < BATCH)
		return;
	for (unsigned int done = 0; done < my.nr_out; done += (unsigned int)ret) {
		while ((ret = shmk_send_batch(my.to, my.outs + done, my.nr_out - done, deadline)) == -EAGAIN)
			;
		check("send", ret);
	}
	my.nr_out = 0;
}

static void self_send(struct bench *b)
{
	int64_t deadline = b->sleeps ? SHMK_FOREVER : SHMK_TRY;
	int ret;

	if (my.way == MANY && !b->side) {
		send_batch(b, deadline);
		return;
	}
	do {
		if (my.way == TOPIC)
			ret = shmk_topic_publish_copy(my.topic_to, my.text, b->bytes, deadline);
		else if (my.way == BLOCK)
			ret = shmk_send(my.to, &my.out, deadline);
		else
			ret = shmk_send_copy(my.to, my.text, b->bytes, deadline);
	} while (ret == -EAGAIN);
	check("send", ret);
}

static const void *recv_batch(int64_t deadline)
{
	int ret;

	if (my.at_in == my.nr_in) {
		while ((ret = shmk_recv_batch(my.from, my.ins, BATCH, deadline)) == -EAGAIN)
			bench_relax();
		check("recv", ret);
		my.nr_in = (unsigned int)ret;
		my.at_in = 0;
	}
	return my.ins[my.at_in].data;
}

static const void *recv_topic(int64_t deadline)
{
	int ret;

	while ((ret = shmk_topic_take(my.sub, &my.held, deadline)) == -EAGAIN)
		bench_relax();
	check("take", ret);
	return my.held.data;
}

static const void *self_recv(struct bench *b)
{
	int64_t deadline = b->sleeps && !my.epoll ? SHMK_FOREVER : SHMK_TRY;
	struct epoll_event e;
	int ret;

	if (my.way == MANY && b->side)
		return recv_batch(deadline);
	if (my.way == TOPIC)
		return recv_topic(deadline);
	while ((ret = shmk_recv(my.from, &my.in, deadline)) == -EAGAIN)
		if (my.epoll)
			epoll_wait(my.ep, &e, 1, -1);
		else
			bench_relax();
	check("recv", ret);
	return my.in.data;
}

static void self_recv_done(struct bench *b)
{
	if (my.way == MANY && b->side)
		shmk_free(&my.ins[my.at_in++]);
	else if (my.way == TOPIC)
		shmk_topic_release(&my.held);
	else
		shmk_free(&my.in);
}

static void self_close(struct bench *b)
{
	shmk_detach(my.s);
	if (b->side)
		return;
	if (my.crowd) {
		kill(my.crowd, SIGKILL);
		waitpid(my.crowd, NULL, 0);
	}
	while (shmk_pool_destroy(my.uri) == -EBUSY)
		usleep(1000);
}

#define TRANSPORT(id, text, many)						\
	static const struct transport id = {					\
		text, id##_init, self_open, self_loan, self_send, self_recv,	\
		self_recv_done, self_close, many,				\
	}

TRANSPORT(inl, "shmk-inline", false);
TRANSPORT(inl_mn, "shmk-inline-mn", true);
TRANSPORT(block, "shmk-block", false);
TRANSPORT(block_mn, "shmk-block-mn", true);
TRANSPORT(kept, "shmk-kept", false);
TRANSPORT(kept_mn, "shmk-kept-mn", true);
TRANSPORT(given, "shmk-given", false);
TRANSPORT(given_mn, "shmk-given-mn", true);
TRANSPORT(batch, "shmk-batch", false);
TRANSPORT(topic, "shmk-topic", false);
TRANSPORT(uring, "shmk-uring", false);
TRANSPORT(epoll, "shmk-epoll", false);

const struct transport *const self_transports[] = {
	&inl, &inl_mn, &block, &block_mn, &kept, &kept_mn, &given, &given_mn,
	&batch, &topic, &uring, &epoll, NULL,
};
