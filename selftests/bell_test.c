// SPDX-License-Identifier: GPL-2.0-only
/*
 * bell_test.c - what poll() answers for every kind of slot, whom a bell wakes
 * and whom it does not, and that a bell by io_uring is over when it is submitted.
 *
 * side_test has the life of queues and the plain sleeping and waking. Here too
 * slots are written by hand.
 */
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>

#include "shmk_test.h"
#include "kselftest_harness.h"

#define CAPACITY	4
#define TIMEOUT		120

FIXTURE(bell)
{
	int device, pool;
	struct test_att me;
	uint32_t queue, gen;
	struct shmk_ring *ring;
	int side[2];		/* by enum shmk_side */
};

typedef FIXTURE_DATA(bell) bell_t;

static void set_up(struct __test_metadata *_metadata, bell_t *self)
{
	uint32_t i;

	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->pool = raw_pool_create(self->device, NULL, 1UL << 20, 12);
	ASSERT_LE(0, self->pool);
	ASSERT_EQ(0, test_attach(self->pool, 0, 0, &self->me));
	ASSERT_EQ(0, raw_queue_create(self->me.fd, "q", CAPACITY, &self->queue, &self->gen));
	self->ring = test_ring(&self->me, self->queue);
	for (i = 0; i < 2; i++) {
		self->side[i] = raw_queue_fd(self->me.fd, self->queue, i);
		ASSERT_LE(0, self->side[i]);
	}
}

static void tear_down(struct __test_metadata *_metadata, bell_t *self)
{
	close(self->side[0]);
	close(self->side[1]);
	test_close(&self->me);
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

FIXTURE_SETUP(bell)
{
	set_up(_metadata, self);
}

FIXTURE_TEARDOWN(bell)
{
	tear_down(_metadata, self);
}

static void put(const bell_t *self, uint64_t pos)
{
	STORE(&test_slot(&self->me, self->queue, pos)->p,
	      SHMK_P(pos / CAPACITY, SHMK_KIND_INLINE, 1));
}

static void take(const bell_t *self, uint64_t pos)
{
	struct shmk_slot *slot = test_slot(&self->me, self->queue, pos);

	STORE(&slot->t, SHMK_T(pos / CAPACITY, self->me.peer));
	STORE(&slot->p, SHMK_P(pos / CAPACITY + 1, SHMK_KIND_EMPTY, 0));
}

static int ring_all(const struct test_att *a, const struct shmk_bell_one *bells, uint32_t nr)
{
	struct shmk_bell args = { .size = sizeof(args), .nr = nr, .bells = (uintptr_t)bells };

	return raw(a->fd, SHMK_IOC_BELL, &args);
}

/* ---- what poll() answers ---- */

FIXTURE(poll)
{
	bell_t b;
};

FIXTURE_SETUP(poll)
{
	set_up(_metadata, &self->b);
}

FIXTURE_TEARDOWN(poll)
{
	tear_down(_metadata, &self->b);
}

/*
 * Slots as they stand at positions 4 to 7, which is lap 1. E: empty, M: a
 * message, B: the same in a block, S: to be skipped, C: claimed by a producer,
 * T: a message that a receiver has won and not emptied, X: emptied for lap 2.
 */
FIXTURE_VARIANT(poll)
{
	char slots[CAPACITY + 1];
	uint64_t head, tail;	/* relative to position 4 */
	bool recv, send;
};

#define RING(name) FIXTURE_VARIANT_ADD(poll, name)

RING(empty)			{ "EEEE", 0, 0, false, true };
RING(one_message)		{ "MEEE", 0, 1, true, true };
RING(one_message_tail_lags)	{ "MEEE", 0, 0, true, true };
RING(one_block)			{ "BEEE", 0, 1, true, true };
RING(one_to_skip)		{ "SEEE", 0, 1, true, true };
RING(claimed_is_not_there_yet)	{ "CEEE", 0, 1, false, true };
RING(message_behind_a_claimed)	{ "CMEE", 0, 2, true, true };
RING(all_claimed)		{ "CCCC", 0, 4, false, false };
RING(won_by_another)		{ "TEEE", 0, 1, false, true };
RING(message_behind_a_won)	{ "TMEE", 0, 2, true, true };
RING(all_taken)			{ "XXEE", 2, 2, false, true };
RING(all_taken_head_lags)	{ "XXEE", 0, 2, false, true };
RING(full)			{ "MMMM", 0, 4, true, false };
RING(full_tail_lags)		{ "MMMM", 0, 1, true, false };
RING(full_but_all_won)		{ "TTTT", 0, 4, false, false };
RING(room_again_at_the_head)	{ "XMMM", 1, 4, true, true };
RING(room_again_head_lags)	{ "XMMM", 0, 4, true, true };
/* A producer must not overtake: the next slot in turn is still in use. */
RING(room_but_not_in_turn)	{ "TXMM", 0, 4, true, false };
RING(whole_lap_taken)		{ "XXXX", 4, 4, false, true };
RING(whole_lap_taken_hints_lag)	{ "XXXX", 0, 0, false, true };

static void write_slots(bell_t *b, const char *slots)
{
	uint32_t i, block = 3;

	for (i = 0; i < CAPACITY; i++) {
		struct shmk_slot *slot = test_slot(&b->me, b->queue, i);
		uint64_t p = SHMK_P(1, SHMK_KIND_EMPTY, 0), t = SHMK_T(0, b->me.peer);

		switch (slots[i]) {
		case 'T':
			t = SHMK_T(1, b->me.peer + 1);
			/* fall through */
		case 'M':
			p = SHMK_P(1, SHMK_KIND_INLINE, 1);
			break;
		case 'B':
			p = SHMK_P(1, SHMK_KIND_BLOCK, block);
			break;
		case 'S':
			p = SHMK_P(1, SHMK_KIND_SKIP, 0);
			break;
		case 'C':
			p = SHMK_P(1, SHMK_KIND_CLAIMED, b->me.peer);
			break;
		case 'X':
			p = SHMK_P(2, SHMK_KIND_EMPTY, 0);
			t = SHMK_T(1, b->me.peer);
			break;
		}
		STORE(&slot->t, t);
		STORE(&slot->p, p);
	}
}

static int ask(int fd)
{
	int ret = test_poll(fd, POLLIN | POLLOUT, 0);

	return ret == -ETIMEDOUT ? 0 : ret;
}

TEST_F_TIMEOUT(poll, answers_by_the_slots_and_sets_the_word_of_a_side_that_must_wait, TIMEOUT)
{
	bell_t *b = &self->b;
	int i;

	write_slots(b, variant->slots);
	STORE(&b->ring->head, CAPACITY + variant->head);
	STORE(&b->ring->tail, CAPACITY + variant->tail);
	/* Again and again: asking changes nothing but the word. */
	for (i = 0; i < 3; i++) {
		STORE(&b->ring->waiters_recv, 0);
		STORE(&b->ring->waiters_send, 0);
		EXPECT_EQ(variant->recv ? POLLIN : 0, ask(b->side[SHMK_SIDE_RECV]));
		EXPECT_EQ(!variant->recv, LOAD(&b->ring->waiters_recv));
		EXPECT_EQ(0, LOAD(&b->ring->waiters_send));
		EXPECT_EQ(variant->send ? POLLOUT : 0, ask(b->side[SHMK_SIDE_SEND]));
		EXPECT_EQ(!variant->send, LOAD(&b->ring->waiters_send));
		EXPECT_EQ(!variant->recv, LOAD(&b->ring->waiters_recv));
	}
}

/* Positions are modulo capacity << 32: lap 2^32 - 1 is followed by lap 0. */
TEST_F_TIMEOUT(bell, answers_stay_right_where_laps_wrap, TIMEOUT)
{
	uint64_t pos = 0xffffffffULL * CAPACITY;
	uint32_t i;

	for (i = 0; i < CAPACITY; i++)
		STORE(&test_slot(&self->me, self->queue, i)->p,
		      SHMK_P(0xffffffff, SHMK_KIND_EMPTY, 0));
	STORE(&self->ring->head, pos);
	STORE(&self->ring->tail, pos);
	for (i = 0; i < 2 * CAPACITY; i++) {
		EXPECT_EQ(0, ask(self->side[SHMK_SIDE_RECV]));
		EXPECT_EQ(POLLOUT, ask(self->side[SHMK_SIDE_SEND]));
		put(self, pos);
		EXPECT_EQ(POLLIN, ask(self->side[SHMK_SIDE_RECV]));
		take(self, pos);
		pos = (pos + 1) & (((uint64_t)CAPACITY << 32) - 1);
		STORE(&self->ring->head, pos);
		STORE(&self->ring->tail, pos);
	}
	EXPECT_EQ(CAPACITY, pos);
}

/* ---- level, edge, once ---- */

TEST_F_TIMEOUT(bell, level_triggered_epoll_asks_again_without_a_bell, TIMEOUT)
{
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), i;

	put(self, 0);
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->side[SHMK_SIDE_RECV], &ev));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, epoll_wait(ep, &ev, 1, 0));
		EXPECT_EQ(EPOLLIN, ev.events);
	}
	EXPECT_EQ(0, LOAD(&self->ring->waiters_recv));
	/* Taken: the next look arms, and says nothing. */
	take(self, 0);
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	EXPECT_EQ(1, LOAD(&self->ring->waiters_recv));
	/* There, but nobody rang: that is what bells are for. */
	put(self, 1);
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_RECV));
	EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
	close(ep);
}

TEST_F_TIMEOUT(bell, oneshot_is_told_once_and_armed_again_by_hand, TIMEOUT)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT }, got;
	int ep = epoll_create1(EPOLL_CLOEXEC);

	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->side[SHMK_SIDE_RECV], &ev));
	put(self, 0);
	ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_RECV));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 0));
	ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_RECV));
	EXPECT_EQ(0, epoll_wait(ep, &got, 1, 0));
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_MOD, self->side[SHMK_SIDE_RECV], &ev));
	EXPECT_EQ(1, epoll_wait(ep, &got, 1, 0));
	close(ep);
}

TEST_F_TIMEOUT(bell, select_sees_the_same, TIMEOUT)
{
	struct timeval none = { 0, 0 };
	fd_set in, out;
	int recv = self->side[SHMK_SIDE_RECV], send = self->side[SHMK_SIDE_SEND];

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(recv, &in);
	FD_SET(send, &out);
	EXPECT_EQ(1, select((recv > send ? recv : send) + 1, &in, &out, NULL, &none));
	EXPECT_FALSE(FD_ISSET(recv, &in));
	EXPECT_TRUE(FD_ISSET(send, &out));
	for (uint64_t pos = 0; pos < CAPACITY; pos++)
		put(self, pos);
	FD_SET(recv, &in);
	FD_SET(send, &out);
	EXPECT_EQ(1, select((recv > send ? recv : send) + 1, &in, &out, NULL, &none));
	EXPECT_TRUE(FD_ISSET(recv, &in));
	EXPECT_FALSE(FD_ISSET(send, &out));
}

/* ---- whom a bell wakes ---- */

struct sleeper {
	int fd;
	short events;
	volatile pid_t tid;
	int ret;
};

static void *sleeps(void *arg)
{
	struct sleeper *s = arg;
	struct pollfd p = { .fd = s->fd, .events = s->events };

	s->tid = syscall(SYS_gettid);
	s->ret = poll(&p, 1, PATIENCE_MS) == 1 ? p.revents : 0;
	return NULL;
}

/* How often a thread has gone to sleep; -1 while it is not asleep. */
static long sleeps_of(pid_t tid)
{
	char path[64], line[256], state = 0;
	long nr = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "State: %c", &state);
		sscanf(line, "voluntary_ctxt_switches: %ld", &nr);
	}
	if (f)
		fclose(f);
	return state == 'S' ? nr : -1;
}

static long settled_sleeps_of(volatile pid_t *tid)
{
	long nr, last = -1;

	while (!*tid)
		sched_yield();
	/* It is seen to sleep before that is counted. */
	while ((nr = sleeps_of(*tid)) < 0 || nr != last) {
		last = nr;
		usleep(nr < 0 ? 0 : 10000);
	}
	return nr;
}

static void do_nothing(int sig)
{
	(void)sig;
}

/* A sleeper that asked for something else, which no side ever tells, is not even scheduled. */
TEST_F_TIMEOUT(bell, wakes_nobody_who_asked_for_other_events, TIMEOUT)
{
	struct sleeper s = { .fd = self->side[SHMK_SIDE_RECV], .events = POLLRDHUP };
	struct sigaction interrupt = { .sa_handler = do_nothing };
	pthread_t thread;
	long before;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, sleeps, &s));
	/* Asleep in poll(), not on its way there: it has set the word. */
	while (!LOAD(&self->ring->waiters_recv))
		sched_yield();
	before = settled_sleeps_of(&s.tid);
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_RECV));
	EXPECT_EQ(before, settled_sleeps_of(&s.tid));
	sigaction(SIGUSR1, &interrupt, NULL);
	pthread_kill(thread, SIGUSR1);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, s.ret);
}

TEST_F_TIMEOUT(bell, of_one_side_wakes_nobody_of_the_other, TIMEOUT)
{
	struct sleeper s = { .fd = self->side[SHMK_SIDE_RECV], .events = POLLIN };
	struct shmk_bell_one ones[2] = { { self->queue, SHMK_SIDE_SEND }, { 5, SHMK_SIDE_RECV } };
	pthread_t thread;
	long before;
	int i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, sleeps, &s));
	while (!LOAD(&self->ring->waiters_recv))
		sched_yield();
	before = settled_sleeps_of(&s.tid);
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, ring_all(&self->me, ones, 2));
	EXPECT_EQ(before, settled_sleeps_of(&s.tid));
	/* It is there to be woken: spuriously it goes back to sleep, then in earnest. */
	ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_RECV));
	while (settled_sleeps_of(&s.tid) == before)
		sched_yield();
	put(self, 0);
	ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_RECV));
	pthread_join(thread, NULL);
	EXPECT_EQ(POLLIN, s.ret);
}

TEST_F_TIMEOUT(bell, full_and_empty_sleepers_of_one_queue_wake_each_other, TIMEOUT)
{
	struct sleeper s = { .fd = self->side[SHMK_SIDE_SEND], .events = POLLOUT };
	pthread_t thread;
	uint64_t pos;

	for (pos = 0; pos < CAPACITY; pos++)
		put(self, pos);
	ASSERT_EQ(0, pthread_create(&thread, NULL, sleeps, &s));
	while (!LOAD(&self->ring->waiters_send))
		sched_yield();
	EXPECT_EQ(0, LOAD(&self->ring->waiters_recv));
	take(self, 0);
	EXPECT_EQ(1, __atomic_exchange_n(&self->ring->waiters_send, 0, __ATOMIC_SEQ_CST));
	ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_SEND));
	pthread_join(thread, NULL);
	EXPECT_EQ(POLLOUT, s.ret);
}

/* ---- what may be rung ---- */

TEST_F_TIMEOUT(bell, list_with_one_bad_bell_rings_none, TIMEOUT)
{
	struct shmk_bell_one ones[SHMK_BELLS_MAX + 1];
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC);
	struct shmk_bell args = { .size = sizeof(args), .nr = 1 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ones); i++)
		ones[i] = (struct shmk_bell_one){ self->queue, SHMK_SIDE_RECV };
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->side[SHMK_SIDE_RECV], &ev));
	put(self, 0);
	EXPECT_EQ(-EINVAL, ring_all(&self->me, ones, 0));
	EXPECT_EQ(-EINVAL, ring_all(&self->me, ones, SHMK_BELLS_MAX + 1));
	EXPECT_EQ(-EINVAL, ring_all(&self->me, ones, ~0U));
	ones[SHMK_BELLS_MAX - 1].side = 2;
	EXPECT_EQ(-EINVAL, ring_all(&self->me, ones, SHMK_BELLS_MAX));
	ones[SHMK_BELLS_MAX - 1] = (struct shmk_bell_one){ self->me.status->nr_queues, 0 };
	EXPECT_EQ(-EINVAL, ring_all(&self->me, ones, SHMK_BELLS_MAX));
	ones[SHMK_BELLS_MAX - 1].id = ~0U;
	EXPECT_EQ(-EINVAL, ring_all(&self->me, ones, SHMK_BELLS_MAX));
	args.bells = 8;
	EXPECT_EQ(-EFAULT, raw(self->me.fd, SHMK_IOC_BELL, &args));
	args.bells = ~7ULL;
	EXPECT_EQ(-EFAULT, raw(self->me.fd, SHMK_IOC_BELL, &args));
	args.bells = 1ULL << 63;
	EXPECT_EQ(-EFAULT, raw(self->me.fd, SHMK_IOC_BELL, &args));
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	ones[SHMK_BELLS_MAX - 1] = ones[0];
	EXPECT_EQ(0, ring_all(&self->me, ones, SHMK_BELLS_MAX));
	EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
	close(ep);
}

TEST_F_TIMEOUT(bell, of_a_queue_that_is_not_there_is_heard_by_nobody, TIMEOUT)
{
	struct test_att reader;

	EXPECT_EQ(0, raw_bell(self->me.fd, self->me.status->nr_queues - 1, SHMK_SIDE_RECV));
	/* To ring is not to write: the woken find what they find. */
	ASSERT_EQ(0, test_attach(self->pool, SHMK_ATTACH_F_RDONLY, 0, &reader));
	EXPECT_EQ(0, raw_bell(reader.fd, self->queue, SHMK_SIDE_RECV));
	EXPECT_EQ(0, raw_detach(reader.fd));
	EXPECT_EQ(-ENXIO, raw_bell(reader.fd, self->queue, SHMK_SIDE_RECV));
	test_close(&reader);
	EXPECT_EQ(-ENOTTY, raw_bell(self->pool, self->queue, SHMK_SIDE_RECV));
}

TEST_F_TIMEOUT(bell, side_file_is_for_polling_only, TIMEOUT)
{
	int fd = self->side[SHMK_SIDE_RECV];
	char c = 0;

	EXPECT_EQ(-1, read(fd, &c, 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, write(fd, &c, 1));
	EXPECT_TRUE(errno == EBADF || errno == EINVAL);
	EXPECT_EQ(MAP_FAILED, raw_map(fd, PROT_READ, 0, 4096));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(-ENOTTY, raw_detach(fd));
	EXPECT_EQ(-EINVAL, raw_queue_fd(self->me.fd, self->queue, 2));
	EXPECT_EQ(-ENOENT, raw_queue_fd(self->me.fd, self->queue + 1, SHMK_SIDE_RECV));
	EXPECT_EQ(-ENOENT, raw_queue_fd(self->me.fd, ~0U, SHMK_SIDE_RECV));
	/* It answers when neither the attachment nor anybody else has the queue open. */
	EXPECT_EQ(0, raw_queue_close(self->me.fd, SHMK_IOC_QUEUE_CLOSE, self->queue, self->gen));
	EXPECT_EQ(-ENOENT, raw_queue_fd(self->me.fd, self->queue, SHMK_SIDE_RECV));
	put(self, 0);
	EXPECT_EQ(POLLIN, test_poll(fd, POLLIN, 0));
	EXPECT_EQ(-EBUSY, raw_queue_close(self->me.fd, SHMK_IOC_QUEUE_REMOVE, self->queue,
					  self->gen));
}

/* ---- io_uring ---- */

static struct io_uring_sqe *get_sqe(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		abort();
	return sqe;
}

static struct io_uring_sqe *prep_bell(struct io_uring *ring, int fd,
				      const struct shmk_bell_one *one)
{
	struct shmk_bell_cmd cmd = { .bells = (uintptr_t)one, .nr = 1 };
	struct io_uring_sqe *sqe = get_sqe(ring);

	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = fd;
	sqe->off = SHMK_IOC_BELL;	/* cmd_op is its low half */
	memcpy((char *)sqe + 48, &cmd, sizeof(cmd));
	return sqe;
}

/* When submitting returns, all completions are there: nothing waits in the driver. */
TEST_F_TIMEOUT(bell, by_io_uring_is_over_when_submitted, TIMEOUT)
{
	struct shmk_bell_one one = { self->queue, SHMK_SIDE_RECV };
	struct epoll_event ev = { .events = EPOLLIN };
	int ep = epoll_create1(EPOLL_CLOEXEC), i, round;
	struct io_uring_cqe *cqe;
	struct io_uring ring;

	if (io_uring_queue_init(32, &ring, 0))
		SKIP(return, "no io_uring here");
	ASSERT_EQ(0, io_uring_register_files(&ring, &self->me.fd, 1));
	ASSERT_EQ(0, epoll_ctl(ep, EPOLL_CTL_ADD, self->side[SHMK_SIDE_RECV], &ev));
	put(self, 0);
	EXPECT_EQ(0, epoll_wait(ep, &ev, 1, 0));
	for (round = 0; round < 20; round++) {
		for (i = 0; i < 32; i++) {
			struct io_uring_sqe *sqe;

			sqe = prep_bell(&ring, i & 1 ? 0 : self->me.fd, &one);
			if (i & 1)
				sqe->flags |= IOSQE_FIXED_FILE;
			sqe->user_data = i;
		}
		ASSERT_EQ(32, io_uring_submit(&ring));
		ASSERT_EQ(32, io_uring_cq_ready(&ring));
		for (i = 0; i < 32; i++) {
			ASSERT_EQ(0, io_uring_peek_cqe(&ring, &cqe));
			EXPECT_EQ(0, cqe->res);
			io_uring_cqe_seen(&ring, cqe);
		}
	}
	EXPECT_EQ(1, epoll_wait(ep, &ev, 1, 0));
	/* What is wrong with it is told just as soon. */
	one.side = 2;
	prep_bell(&ring, self->me.fd, &one);
	prep_bell(&ring, self->pool, &one);
	ASSERT_EQ(2, io_uring_submit(&ring));
	ASSERT_EQ(2, io_uring_cq_ready(&ring));
	ASSERT_EQ(0, io_uring_peek_cqe(&ring, &cqe));
	EXPECT_EQ(-EINVAL, cqe->res);
	io_uring_cqe_seen(&ring, cqe);
	ASSERT_EQ(0, io_uring_peek_cqe(&ring, &cqe));
	EXPECT_EQ(-EOPNOTSUPP, cqe->res);
	io_uring_cqe_seen(&ring, cqe);
	io_uring_queue_exit(&ring);
	close(ep);
}

static void rung_by_another_thread(struct __test_metadata *_metadata, bell_t *self,
				   unsigned int setup, unsigned int sqe_flags)
{
	struct io_uring_params params = { .flags = setup, .sq_thread_idle = 1000 };
	struct shmk_bell_one one = { self->queue, SHMK_SIDE_RECV };
	struct __kernel_timespec patience = { .tv_sec = PATIENCE_MS / 1000 };
	struct sleeper s = { .fd = self->side[SHMK_SIDE_RECV], .events = POLLIN };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	pthread_t thread;

	if (io_uring_queue_init_params(8, &ring, &params))
		SKIP(return, "no such io_uring here");
	ASSERT_EQ(0, pthread_create(&thread, NULL, sleeps, &s));
	while (!LOAD(&self->ring->waiters_recv))
		sched_yield();
	put(self, 0);
	sqe = prep_bell(&ring, self->me.fd, &one);
	sqe->flags |= sqe_flags;
	ASSERT_EQ(1, io_uring_submit(&ring));
	ASSERT_EQ(0, io_uring_wait_cqe_timeout(&ring, &cqe, &patience));
	EXPECT_EQ(0, cqe->res);
	io_uring_cqe_seen(&ring, cqe);
	pthread_join(thread, NULL);
	EXPECT_EQ(POLLIN, s.ret);
	io_uring_queue_exit(&ring);
}

/* Kernel threads of the process have its mm, so they are the peer. */
TEST_F_TIMEOUT(bell, by_an_io_uring_worker_rings, TIMEOUT)
{
	rung_by_another_thread(_metadata, self, 0, IOSQE_ASYNC);
}

TEST_F_TIMEOUT(bell, by_an_sqpoll_thread_rings, TIMEOUT)
{
	rung_by_another_thread(_metadata, self, IORING_SETUP_SQPOLL, 0);
}

/* One poll request; each time the side becomes ready, one completion. */
TEST_F_TIMEOUT(bell, multishot_poll_tells_each_time_and_ends_when_cancelled, TIMEOUT)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	uint64_t pos;
	int i;

	if (io_uring_queue_init(8, &ring, 0))
		SKIP(return, "no io_uring here");
	for (pos = 0; pos < CAPACITY; pos++)
		put(self, pos);
	sqe = get_sqe(&ring);
	io_uring_prep_poll_multishot(sqe, self->side[SHMK_SIDE_SEND], POLLOUT);
	sqe->user_data = 1;
	ASSERT_EQ(1, io_uring_submit(&ring));
	EXPECT_EQ(0, io_uring_cq_ready(&ring));
	EXPECT_EQ(1, LOAD(&self->ring->waiters_send));
	for (i = 0; i < 20; i++, pos++) {
		take(self, pos - CAPACITY);
		ASSERT_EQ(1, __atomic_exchange_n(&self->ring->waiters_send, 0, __ATOMIC_SEQ_CST));
		ASSERT_EQ(0, raw_bell(self->me.fd, self->queue, SHMK_SIDE_SEND));
		ASSERT_EQ(0, io_uring_wait_cqe(&ring, &cqe));
		EXPECT_EQ(1, cqe->user_data);
		EXPECT_EQ(POLLOUT, cqe->res);
		EXPECT_TRUE(cqe->flags & IORING_CQE_F_MORE);
		io_uring_cqe_seen(&ring, cqe);
		/* Full again, and said so, as the library does before it waits. */
		put(self, pos);
		STORE(&self->ring->waiters_send, 1);
	}
	sqe = get_sqe(&ring);
	io_uring_prep_poll_remove(sqe, 1);
	sqe->user_data = 2;
	ASSERT_EQ(1, io_uring_submit(&ring));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, io_uring_wait_cqe(&ring, &cqe));
		EXPECT_EQ(cqe->user_data == 1 ? -ECANCELED : 0, cqe->res);
		EXPECT_FALSE(cqe->flags & IORING_CQE_F_MORE);
		io_uring_cqe_seen(&ring, cqe);
	}
	io_uring_queue_exit(&ring);
}

/* ---- whoever asks much ---- */

#define BIG_SHIFT	15
#define ASKED		20000

/* A ring that a look goes through three times, to no end. */
static int big_ring(const bell_t *b, struct test_att *a)
{
	struct shmk_pool_create pool = raw_pool_args(NULL, 1UL << 20, 12);
	struct shmk_queue_create queue = { .size = sizeof(queue), .name = "big",
					   .capacity = 1 << BIG_SHIFT,
					   .flags = SHMK_QUEUE_F_REDELIVER };
	uint32_t i;

	pool.rings_bytes = 4 << 20;
	CHILD_CHECK(!test_attach(raw(b->device, SHMK_IOC_POOL_CREATE, &pool), 0, 0, a));
	CHILD_CHECK(!raw(a->fd, SHMK_IOC_QUEUE_CREATE, &queue));
	for (i = 0; i < 1 << BIG_SHIFT; i++)
		STORE(&test_slot(a, queue.id, i)->p, SHMK_P(3, SHMK_KIND_CLAIMED, a->peer));
	return raw_queue_fd(a->fd, queue.id, SHMK_SIDE_RECV);
}

static int asks_much(int sock, void *arg)
{
	static struct pollfd asked[ASKED];
	struct rlimit most = { ASKED, ASKED };
	struct test_att a;
	int i, fd = big_ring(arg, &a);

	CHILD_CHECK(fd >= 0 && !setrlimit(RLIMIT_NOFILE, &most));
	for (i = 0; i < ASKED; i++)
		asked[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
	CHILD_CHECK(poll(asked, 1, 0) == 0);
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	poll(asked, ASKED, 0);
	return 0;
}

TEST_F_TIMEOUT(bell, one_who_asks_much_of_large_rings_can_be_killed, TIMEOUT)
{
	struct test_child c;
	struct test_msg m;
	uint64_t before;

	ASSERT_EQ(0, test_child_start(&c, asks_much, self));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	usleep(100000);
	before = test_now_ns();
	EXPECT_EQ(SIGKILL, test_child_kill(&c));
	EXPECT_GT(15000000000, test_now_ns() - before);	/* was 26 s and more */
}

TEST_HARNESS_MAIN
