// SPDX-License-Identifier: GPL-2.0-only
/*
 * side_test.c - queues as the kernel sees them: the table, sleeping, bells.
 *
 * Slots are written by hand; no library.
 */
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "raw.h"
#include "kselftest_harness.h"

#define CAPACITY	4

FIXTURE(side)
{
	int dev, pool, att;
	const struct shmk_status *s;
	char *control;
	uint32_t id, gen;
	struct shmk_ring *ring;
	int recv, send;
};

static const struct shmk_queue_status *queue_status(const struct shmk_status *s, uint32_t id)
{
	return (const struct shmk_queue_status *)((const char *)s + s->queues_off) + id;
}

FIXTURE_SETUP(side)
{
	self->dev = raw_device();
	ASSERT_LE(0, self->dev);
	self->pool = raw_pool_create(self->dev, NULL, MiB, 12);
	ASSERT_LE(0, self->pool);
	self->att = raw_attach(self->pool, 0, 0, NULL);
	ASSERT_LE(0, self->att);
	self->s = raw_status(self->att);
	ASSERT_NE(NULL, self->s);
	self->control = raw_map(self->att, PROT_READ | PROT_WRITE, self->s->map_control,
				self->s->control_bytes);
	ASSERT_NE(MAP_FAILED, self->control);
	ASSERT_EQ(0, raw_queue_create(self->att, "q", CAPACITY, &self->id, &self->gen));
	self->ring = (struct shmk_ring *)(self->control + queue_status(self->s, self->id)->ring);
	self->recv = raw_queue_fd(self->att, self->id, SHMK_SIDE_RECV);
	self->send = raw_queue_fd(self->att, self->id, SHMK_SIDE_SEND);
	ASSERT_LE(0, self->recv);
	ASSERT_LE(0, self->send);
}

FIXTURE_TEARDOWN(side)
{
	close(self->recv);
	close(self->send);
	close(self->att);
	close(self->pool);
	close(self->dev);
}

static struct shmk_slot *slot(struct shmk_ring *ring, uint64_t pos)
{
	return (struct shmk_slot *)((char *)(ring + 1) + pos % CAPACITY * 64);
}

/* Puts and takes as the library does, but for the ledger. */
static void put(struct shmk_ring *ring, uint64_t pos)
{
	__atomic_store_n(&slot(ring, pos)->p,
			 SHMK_P(pos / CAPACITY, SHMK_KIND_INLINE, 0), __ATOMIC_SEQ_CST);
	ring->tail = pos + 1;
}

static void take(struct shmk_ring *ring, uint64_t pos)
{
	slot(ring, pos)->t = SHMK_T(pos / CAPACITY, 1);
	__atomic_store_n(&slot(ring, pos)->p,
			 SHMK_P(pos / CAPACITY + 1, SHMK_KIND_EMPTY, 0), __ATOMIC_SEQ_CST);
	ring->head = pos + 1;
}

static int ready(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	return poll(&p, 1, 0) < 0 ? -errno : p.revents;
}

/* ------------------------------------------------------------- the table -- */

TEST_F(side, a_queue_stands_in_the_status_region)
{
	const struct shmk_queue_status *q = queue_status(self->s, self->id);

	EXPECT_EQ(SHMK_QUEUE_WORD(1, 0, SHMK_QUEUE_READY), q->word);
	EXPECT_EQ(CAPACITY, q->capacity);
	EXPECT_EQ(64, q->slot_bytes);
	EXPECT_EQ(1, q->nr_open);
	EXPECT_STREQ("q", q->name);
	EXPECT_LE(self->s->rings_off, q->ring);
	EXPECT_EQ(1, self->s->queues_now);
}

TEST_F(side, opens_nest)
{
	uint32_t id, gen;

	ASSERT_EQ(0, raw_queue_open(self->att, "q", &id, &gen));
	EXPECT_EQ(self->id, id);
	EXPECT_EQ(self->gen, gen);
	EXPECT_EQ(1, queue_status(self->s, id)->nr_open);
	EXPECT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_EQ(1, queue_status(self->s, id)->nr_open);
	EXPECT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_EQ(0, queue_status(self->s, id)->nr_open);
	EXPECT_EQ(-ENOENT, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_EQ(-ENOENT, raw_queue_fd(self->att, id, SHMK_SIDE_RECV));
}

TEST_F(side, whatever_has_a_queue_open_keeps_it)
{
	int other = raw_attach(self->pool, 0, 0, NULL);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, raw_queue_open(other, "q", NULL, NULL));
	EXPECT_EQ(2, queue_status(self->s, self->id)->nr_open);
	EXPECT_EQ(-EBUSY, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	EXPECT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, self->id, self->gen));
	EXPECT_EQ(-EBUSY, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	close(other);
	EXPECT_EQ(0, queue_status(self->s, self->id)->nr_open);
	/* Two files are left. */
	EXPECT_EQ(-EBUSY, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	close(self->recv);
	EXPECT_EQ(-EBUSY, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	close(self->send);
	EXPECT_EQ(-ENOENT, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen + 1));
	EXPECT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	EXPECT_EQ(-ENOENT, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	EXPECT_EQ(-ENOENT, raw_queue_open(self->att, "q", NULL, NULL));
	EXPECT_EQ(0, self->s->queues_now);
	self->recv = self->send = -1;
}

TEST_F(side, a_queue_made_where_another_was_is_empty)
{
	uint32_t id, gen;

	put(self->ring, 0);
	self->ring->waiters_recv = 7;
	close(self->recv);
	close(self->send);
	self->recv = self->send = -1;
	ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, self->id, self->gen));
	ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	ASSERT_EQ(0, raw_queue_create(self->att, "other", CAPACITY, &id, &gen));
	EXPECT_EQ(self->id, id);
	EXPECT_EQ(self->gen + 1, gen);
	EXPECT_EQ(self->ring, (void *)(self->control + queue_status(self->s, id)->ring));
	EXPECT_EQ(0, self->ring->tail | self->ring->waiters_recv | slot(self->ring, 0)->p);
}

/* A removed queue's messages go back to the pool. */
TEST_F(side, removing_a_queue_frees_its_messages)
{
	struct shmk_span *span = (void *)(self->control + self->s->spans_off);
	struct shmk_block *block = (void *)(self->control + self->s->blocks_off);
	struct shmk_pool_info info;

	span[1].word = SHMK_SPAN_WORD(1, 1, 0, 0, SHMK_SPAN_CUT);
	block[256].word = SHMK_BLOCK_WORD(5, SHMK_BLOCK_USED);
	slot(self->ring, 0)->p = SHMK_P(0, SHMK_KIND_BLOCK, 256);
	ASSERT_EQ(0, raw_pool_info(self->pool, &info));
	EXPECT_EQ(1, info.blocks_used);
	close(self->recv);
	close(self->send);
	self->recv = self->send = -1;
	ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, self->id, self->gen));
	ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, self->id, self->gen));
	EXPECT_EQ(SHMK_BLOCK_WORD(6, SHMK_BLOCK_FREE), block[256].word);
	ASSERT_EQ(0, raw_pool_info(self->pool, &info));
	EXPECT_EQ(0, info.blocks_used);
}

/* Rings of three sizes come and go; none may overlap another, none may leak. */
TEST_F(side, ring_room_is_used_up_and_given_back)
{
	struct { uint32_t id, gen; uint64_t at, end; } q[400] = { 0 };
	unsigned int seed = 1, made = 0, full = 0;
	char name[16];

	for (int step = 0; step < 3000; step++) {
		unsigned int i = (unsigned int)rand_r(&seed) % 400;
		uint32_t capacity = 1U << (rand_r(&seed) % 3 * 3);

		if (q[i].end) {
			ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, q[i].id, q[i].gen));
			ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, q[i].id, q[i].gen));
			q[i].end = 0;
			continue;
		}
		snprintf(name, sizeof(name), "q%u", i);
		if (raw_queue_create(self->att, name, capacity, &q[i].id, &q[i].gen) == -ENOSPC) {
			full++;
			continue;
		}
		made++;
		q[i].at = queue_status(self->s, q[i].id)->ring;
		q[i].end = q[i].at + sizeof(struct shmk_ring) + capacity * 64;
		ASSERT_LE(self->s->rings_off, q[i].at);
		ASSERT_GE(self->s->rings_off + self->s->rings_bytes, q[i].end);
		for (unsigned int k = 0; k < 400; k++)
			if (k != i && q[k].end)
				ASSERT_TRUE(q[k].end <= q[i].at || q[i].end <= q[k].at);
	}
	EXPECT_LT(500, made);
	EXPECT_LT(10, full);
	for (unsigned int i = 0; i < 400; i++) {
		if (!q[i].end)
			continue;
		ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, q[i].id, q[i].gen));
		ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, q[i].id, q[i].gen));
	}
	/* All of it is one piece again, but for what "q" has. */
	EXPECT_EQ(0, raw_queue_create(self->att, "large", 2048, NULL, NULL));
	EXPECT_EQ(2, self->s->queues_now);
}

/* ----------------------------------------------------------------- polling -- */

TEST_F(side, poll_tells_what_the_slots_say)
{
	uint64_t pos;

	EXPECT_EQ(0, ready(self->recv));
	EXPECT_EQ(POLLOUT, ready(self->send));
	for (pos = 0; pos < CAPACITY; pos++) {
		put(self->ring, pos);
		EXPECT_EQ(POLLIN, ready(self->recv));
		EXPECT_EQ(pos + 1 < CAPACITY ? POLLOUT : 0, ready(self->send));
	}
	for (pos = 0; pos < CAPACITY; pos++) {
		EXPECT_EQ(POLLIN, ready(self->recv));
		take(self->ring, pos);
		EXPECT_EQ(POLLOUT, ready(self->send));
	}
	EXPECT_EQ(0, ready(self->recv));
}

TEST_F(side, who_finds_nothing_sets_the_waiters_word)
{
	EXPECT_EQ(0, self->ring->waiters_recv);
	EXPECT_EQ(0, ready(self->recv));
	EXPECT_EQ(1, self->ring->waiters_recv);
	EXPECT_EQ(POLLOUT, ready(self->send));
	EXPECT_EQ(0, self->ring->waiters_send);
}

/* Any garbage in a ring: poll returns. */
TEST_F(side, poll_survives_any_ring)
{
	unsigned int seed = 42;

	for (int round = 0; round < 2000; round++) {
		uint32_t *w = (uint32_t *)self->ring;

		for (size_t i = 0; i < (sizeof(*self->ring) + CAPACITY * 64) / 4; i++)
			w[i] = (uint32_t)rand_r(&seed) * (rand_r(&seed) % 3);
		EXPECT_LE(0, ready(self->recv));
		EXPECT_LE(0, ready(self->send));
	}
}

static void *ring_later(void *arg)
{
	FIXTURE_DATA(side) *self = arg;

	/* When the sleeper says so. */
	while (!__atomic_load_n(&self->ring->waiters_recv, __ATOMIC_SEQ_CST))
		sched_yield();
	put(self->ring, 0);
	if (__atomic_exchange_n(&self->ring->waiters_recv, 0, __ATOMIC_SEQ_CST))
		raw_bell(self->att, self->id, SHMK_SIDE_RECV);
	return NULL;
}

TEST_F(side, a_bell_wakes_a_sleeper)
{
	struct pollfd p = { .fd = self->recv, .events = POLLIN };
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, ring_later, self));
	EXPECT_EQ(1, poll(&p, 1, 10000));
	EXPECT_EQ(POLLIN, p.revents);
	pthread_join(thread, NULL);
}

TEST_F(side, a_bell_wakes_every_sleeper)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE }, got;
	int ep[3];

	for (int i = 0; i < 3; i++) {
		ep[i] = epoll_create1(0);
		ASSERT_EQ(0, epoll_ctl(ep[i], EPOLL_CTL_ADD, self->recv, &ev));
		EXPECT_EQ(0, epoll_wait(ep[i], &got, 1, 0));
	}
	put(self->ring, 0);
	ASSERT_EQ(0, raw_bell(self->att, self->id, SHMK_SIDE_RECV));
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(1, epoll_wait(ep[i], &got, 1, 10000));
		close(ep[i]);
	}
}

TEST_F(side, an_edge_is_told_once)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	int ep = epoll_create1(0);

	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->recv, &ev));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	put(self->ring, 0);
	ASSERT_EQ(0, raw_bell(self->att, self->id, SHMK_SIDE_RECV));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 10000));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	/* The bell of the other side is another bell. */
	ASSERT_EQ(0, raw_bell(self->att, self->id, SHMK_SIDE_SEND));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	ASSERT_EQ(0, raw_bell(self->att, self->id, SHMK_SIDE_RECV));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 10000));
	close(ep);
}

TEST_F(side, one_call_rings_many)
{
	struct shmk_bell_one one[2] = { { .side = SHMK_SIDE_RECV }, { .side = SHMK_SIDE_RECV } };
	struct shmk_bell a = { .size = sizeof(a), .nr = 2, .bells = (uintptr_t)one };
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	struct shmk_ring *ring2;
	int ep = epoll_create1(0), fd;
	uint32_t id;

	ASSERT_EQ(0, raw_queue_create(self->att, "q2", CAPACITY, &id, NULL));
	fd = raw_queue_fd(self->att, id, SHMK_SIDE_RECV);
	ASSERT_LE(0, fd);
	ring2 = (struct shmk_ring *)(self->control + queue_status(self->s, id)->ring);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->recv, &ev));
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	put(self->ring, 0);
	put(ring2, 0);
	one[0].id = self->id;
	one[1].id = id;
	ASSERT_EQ(0, raw(self->att, SHMK_IOC_BELL, &a));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 10000));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 10000));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	close(fd);
	close(ep);
}

/* Sleeping needs no attachment of one's own, only the file. */
TEST_F(side, another_process_can_sleep_on_the_file)
{
	struct pollfd p = { .fd = self->recv, .events = POLLIN };
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(poll(&p, 1, 10000) == 1 ? 0 : 1);
	ring_later(self);
	waitpid(pid, &status, 0);
	EXPECT_EQ(0, status);
}

/* The epoll item outlives the file descriptor, the attachment and the pool's file. */
TEST_F(side, an_epoll_item_may_be_the_last_to_know_the_pool)
{
	struct epoll_event ev = { .events = EPOLLIN }, got;
	int ep = epoll_create1(0), copy = dup(self->recv);

	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->recv, &ev));
	close(self->recv);
	close(self->send);
	munmap(self->control, self->s->control_bytes);
	munmap((void *)self->s, self->s->status_bytes);
	close(self->att);
	close(self->pool);
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	close(copy);
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	close(ep);
	self->recv = self->send = self->att = self->pool = -1;
}

/* A peer that ends wakes those on its queues: it may be what they wait for. */
TEST_F(side, the_end_of_a_peer_rings_what_it_had_open)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT | EPOLLET }, got;
	int other = raw_attach(self->pool, 0, 0, NULL);
	int ep = epoll_create1(0);

	ASSERT_LE(0, other);
	ASSERT_EQ(0, raw_queue_open(other, "q", NULL, NULL));
	for (int i = 0; i < CAPACITY; i++)
		put(self->ring, (uint64_t)i);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->recv, &ev));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 0));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	close(other);
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 10000));
	EXPECT_EQ(0, self->ring->waiters_recv | self->ring->waiters_send);
	close(ep);
}

/* ---------------------------------------------------------------- io_uring -- */

static int uring_bell(struct io_uring *ring, int fd, uint32_t op, const struct shmk_bell_cmd *cmd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int res;

	if (!sqe)
		return -EBUSY;
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->off = op;			/* cmd_op: the low half of off */
	memcpy((char *)sqe + 48, cmd, sizeof(*cmd));
	if (io_uring_submit(ring) != 1 || io_uring_wait_cqe(ring, &cqe))
		return -EIO;
	res = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return res;
}

TEST_F(side, io_uring_rings_the_bell)
{
	struct shmk_bell_one one = { .id = self->id, .side = SHMK_SIDE_RECV };
	struct shmk_bell_cmd cmd = { .bells = (uintptr_t)&one, .nr = 1 };
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET }, got;
	int ep = epoll_create1(0);
	struct io_uring ring;

	if (io_uring_queue_init(8, &ring, 0))
		SKIP(return, "no io_uring here");
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->recv, &ev));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	put(self->ring, 0);
	EXPECT_EQ(0, uring_bell(&ring, self->att, SHMK_IOC_BELL, &cmd));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 10000));

	EXPECT_EQ(-ENOTTY, uring_bell(&ring, self->att, SHMK_IOC_DETACH, &cmd));
	EXPECT_EQ(-EOPNOTSUPP, uring_bell(&ring, self->recv, SHMK_IOC_BELL, &cmd));
	cmd.reserved = 1;
	EXPECT_EQ(-EINVAL, uring_bell(&ring, self->att, SHMK_IOC_BELL, &cmd));
	cmd.reserved = 0;
	cmd.nr = 0;
	EXPECT_EQ(-EINVAL, uring_bell(&ring, self->att, SHMK_IOC_BELL, &cmd));
	cmd.nr = SHMK_BELLS_MAX + 1;
	EXPECT_EQ(-EINVAL, uring_bell(&ring, self->att, SHMK_IOC_BELL, &cmd));
	cmd.nr = 1;
	cmd.bells = 8;
	EXPECT_EQ(-EFAULT, uring_bell(&ring, self->att, SHMK_IOC_BELL, &cmd));
	cmd.bells = (uintptr_t)&one;
	ASSERT_EQ(0, raw_detach(self->att));
	EXPECT_EQ(-ENXIO, uring_bell(&ring, self->att, SHMK_IOC_BELL, &cmd));
	io_uring_queue_exit(&ring);
	close(ep);
}

TEST_F(side, io_uring_waits_for_a_queue_many_times)
{
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	struct __kernel_timespec soon = { .tv_sec = 10 };

	if (io_uring_queue_init(8, &ring, 0))
		SKIP(return, "no io_uring here");
	io_uring_prep_poll_multishot(io_uring_get_sqe(&ring), self->recv, POLLIN);
	ASSERT_EQ(1, io_uring_submit(&ring));
	EXPECT_EQ(-EAGAIN, io_uring_peek_cqe(&ring, &cqe));
	for (uint64_t pos = 0; pos < 100; pos++) {
		EXPECT_EQ(1, self->ring->waiters_recv);
		self->ring->waiters_recv = 0;
		put(self->ring, pos);
		ASSERT_EQ(0, raw_bell(self->att, self->id, SHMK_SIDE_RECV));
		ASSERT_EQ(0, io_uring_wait_cqe_timeout(&ring, &cqe, &soon));
		EXPECT_EQ(POLLIN, cqe->res & POLLIN);
		EXPECT_TRUE(cqe->flags & IORING_CQE_F_MORE);
		io_uring_cqe_seen(&ring, cqe);
		take(self->ring, pos);
		/* As an edge-triggered user must: until nothing is left, then say so. */
		self->ring->waiters_recv = 1;
	}
	io_uring_queue_exit(&ring);
}

TEST_HARNESS_MAIN
