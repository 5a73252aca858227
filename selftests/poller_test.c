// SPDX-License-Identifier: GPL-2.0-only
/*
 * poller_test.c - one wait for many queues, events and fds.
 *
 * A wake-up is lost when a call that could go on runs into WATCHDOG_MS instead; as
 * in wait_test.c the slices of the local backend, which would hide that, are
 * switched off, but for the test of death.
 */
#include "kselftest_harness.h"
#include "sleeper.h"

#define NR_QUEUES	4

/* The fixture's queues, and a poller with their receiving sides, tagged by their addresses. */
FIXTURE(poller) {
	struct shmk *s;
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p;
};

static struct shmk_queue *nth(struct shmk *s, int i)
{
	char name[16];

	snprintf(name, sizeof(name), "q%d", i);
	return queue(s, name, 4);
}

static struct shmk_poller *poller(struct shmk *s, struct shmk_queue **q, int n)
{
	struct shmk_poller *p;

	CHECK(!shmk_poller_open(s, &p));
	for (int i = 0; i < n; i++) {
		q[i] = nth(s, i);
		CHECK(!shmk_poller_add(p, q[i], SHMK_RECV, &q[i]));
	}
	return p;
}

FIXTURE_SETUP(poller)
{
	pool_name();
	self->s = join();
	self->p = poller(self->s, self->q, NR_QUEUES);
}

FIXTURE_TEARDOWN(poller)
{
	char report[512] = "";

	if (!self->s)
		return;
	EXPECT_EQ(0, shmk_pool_check(self->s, report, sizeof(report)))
		TH_LOG("%s", report);
	shmk_detach(self->s);		/* closes the poller too */
}

/* Takes one message of each that is told. Returns how many, or -errno. */
static int take_told(const struct shmk_ready *ready, int n)
{
	uint64_t value;
	int taken = 0, ret;

	for (int i = 0; i < n; i++) {
		if (ready[i].kind != SHMK_READY_QUEUE)
			continue;
		ret = get(ready[i].queue, &value, SHMK_TRY);
		if (ret && ret != -EAGAIN)
			return ret;
		taken += !ret;
	}
	return taken;
}

static bool told(const struct shmk_ready *ready, int n, const void *tag)
{
	int nr = 0;

	for (int i = 0; i < n; i++)
		nr += ready[i].tag == tag;
	return nr == 1;
}

/* --------------------------------------------------------- what is told -- */

TEST_F(poller, exactly_those_that_are_ready_are_told_until_they_are_not)
{
	struct shmk_ready r[8];
	uint64_t value;

	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, shmk_deadline_ms(2)));
	ASSERT_EQ(0, put(self->q[1], 1, SHMK_TRY));
	ASSERT_EQ(0, put(self->q[3], 3, SHMK_TRY));
	for (int i = 0; i < 40; i++) {
		ASSERT_EQ(2, shmk_poller_wait(self->p, r, 8, i % 2 ? watchdog() : SHMK_TRY));
		EXPECT_TRUE(told(r, 2, &self->q[1]));
		EXPECT_TRUE(told(r, 2, &self->q[3]));
		EXPECT_EQ(SHMK_READY_QUEUE, r[0].kind);
		EXPECT_EQ(r[0].tag, (void *)(r[0].queue == self->q[1] ? &self->q[1] : &self->q[3]));
		EXPECT_EQ(SHMK_RECV, r[0].side);
		EXPECT_EQ(-1, r[0].fd);
		EXPECT_EQ(POLLIN, r[0].events);
	}
	ASSERT_EQ(0, get(self->q[3], &value, SHMK_TRY));
	ASSERT_EQ(1, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(self->q[1], r[0].queue);
	ASSERT_EQ(0, get(self->q[1], &value, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, shmk_deadline_ms(2)));
	EXPECT_EQ(-EINVAL, shmk_poller_wait(self->p, r, 0, SHMK_TRY));
}

TEST_F(poller, both_sides_of_a_queue_have_their_own_tag)
{
	struct shmk_ready r[8];
	uint64_t value;
	int tag;

	ASSERT_EQ(0, shmk_poller_add(self->p, self->q[0], SHMK_SEND, &tag));
	ASSERT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_EQ(&tag, r[0].tag);
	EXPECT_EQ(SHMK_SEND, r[0].side);
	EXPECT_EQ(POLLOUT, r[0].events);
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, put(self->q[0], i, SHMK_TRY));
	EXPECT_EQ(2, shmk_poller_wait(self->p, r, 8, watchdog()));
	ASSERT_EQ(0, put(self->q[0], 3, SHMK_TRY));
	ASSERT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_EQ(&self->q[0], r[0].tag);
	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, get(self->q[0], &value, SHMK_TRY));
	ASSERT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_EQ(&tag, r[0].tag);
}

TEST_F(poller, fds_are_told_with_their_events)
{
	struct shmk_ready r[8];
	int a[2], b[2], file;
	char c;

	ASSERT_EQ(0, pipe(a));
	ASSERT_EQ(0, pipe(b));
	EXPECT_EQ(0, shmk_poller_add_fd(self->p, a[0], POLLIN, &a));
	EXPECT_EQ(-EEXIST, shmk_poller_add_fd(self->p, a[0], POLLIN, &a));
	EXPECT_EQ(-EBADF, shmk_poller_add_fd(self->p, 999, POLLIN, NULL));
	EXPECT_EQ(-EINVAL, shmk_poller_add_fd(self->p, b[0], -1, NULL));
	file = open("/etc/passwd", O_RDONLY);
	ASSERT_LE(0, file);
	EXPECT_EQ(-EPERM, shmk_poller_add_fd(self->p, file, POLLIN, NULL));
	close(file);
	EXPECT_EQ(-ENOENT, shmk_poller_remove_fd(self->p, b[0]));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(0, shmk_poller_add_fd(self->p, b[1], POLLOUT, &b));
	ASSERT_EQ(1, write(a[1], "", 1));
	ASSERT_EQ(0, put(self->q[2], 1, SHMK_TRY));
	ASSERT_EQ(3, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_TRUE(told(r, 3, &self->q[2]));
	for (int i = 0; i < 3; i++) {
		if (r[i].kind == SHMK_READY_QUEUE)
			continue;
		EXPECT_EQ(SHMK_READY_FD, r[i].kind);
		EXPECT_EQ(NULL, r[i].queue);
		EXPECT_EQ(r[i].tag == &a ? a[0] : b[1], r[i].fd);
		EXPECT_EQ(r[i].tag == &a ? POLLIN : POLLOUT, r[i].events);
	}
	EXPECT_EQ(0, shmk_poller_remove_fd(self->p, b[1]));
	ASSERT_EQ(1, read(a[0], &c, 1));
	EXPECT_EQ(1, take_told(r, 3));
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, shmk_deadline_ms(2)));
	close(a[1]);
	ASSERT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_EQ(&a, r[0].tag);
	EXPECT_EQ(POLLHUP, r[0].events);
}

TEST_F(poller, an_fd_that_was_closed_without_asking_makes_room_for_the_next)
{
	struct shmk_ready r[8];
	int a[2], b[2];

	ASSERT_EQ(0, pipe(a));
	ASSERT_EQ(0, shmk_poller_add_fd(self->p, a[0], POLLIN, &a));
	close(a[0]);
	ASSERT_EQ(0, pipe(b));
	ASSERT_EQ(a[0], b[0]);
	ASSERT_EQ(0, shmk_poller_add_fd(self->p, b[0], POLLIN, &b));
	ASSERT_EQ(1, write(b[1], "", 1));
	ASSERT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_EQ(&b, r[0].tag);
	EXPECT_EQ(0, shmk_poller_remove_fd(self->p, b[0]));
	EXPECT_EQ(-ENOENT, shmk_poller_remove_fd(self->p, b[0]));
}

TEST_F(poller, with_room_for_one_all_have_their_turn)
{
	bool seen[NR_QUEUES + 2] = { false };
	struct shmk_ready r;
	int fd[2], nr = 0;

	for (int i = NR_QUEUES; i < NR_QUEUES + 2; i++) {
		ASSERT_EQ(0, pipe(fd));
		ASSERT_EQ(0, shmk_poller_add_fd(self->p, fd[0], POLLIN, &self->q[i]));
		ASSERT_EQ(1, write(fd[1], "", 1));
	}
	for (int i = 0; i < NR_QUEUES; i++)
		ASSERT_EQ(0, put(self->q[i], i, SHMK_TRY));
	for (int i = 0; i < 120; i++) {
		int which;

		ASSERT_EQ(1, shmk_poller_wait(self->p, &r, 1, watchdog()));
		which = (struct shmk_queue **)r.tag - self->q;
		ASSERT_TRUE(which >= 0 && which < NR_QUEUES + 2);
		nr += !seen[which];
		seen[which] = true;
	}
	EXPECT_EQ(NR_QUEUES + 2, nr);
}

TEST_F(poller, mistakes_are_told)
{
	struct shmk_attach_opts rdonly = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk *other = join(), *reader;
	struct shmk_poller *p;

	EXPECT_EQ(-EINVAL, shmk_poller_add(self->p, nth(other, 0), SHMK_RECV, NULL));
	EXPECT_EQ(-EINVAL, shmk_poller_add(self->p, self->q[0], 2, NULL));
	EXPECT_EQ(-EEXIST, shmk_poller_add(self->p, self->q[0], SHMK_RECV, NULL));
	EXPECT_EQ(-ENOENT, shmk_poller_remove(self->p, self->q[0], SHMK_SEND));
	EXPECT_EQ(0, shmk_poller_remove(self->p, self->q[0], SHMK_RECV));
	EXPECT_EQ(-ENOENT, shmk_poller_remove(self->p, self->q[0], SHMK_RECV));
	EXPECT_EQ(0, shmk_poller_add(self->p, self->q[0], SHMK_RECV, NULL));
	EXPECT_EQ(-ENOENT, shmk_poller_remove_events(self->p));
	EXPECT_EQ(0, shmk_poller_add_events(self->p, NULL));
	EXPECT_EQ(-EEXIST, shmk_poller_add_events(self->p, NULL));
	EXPECT_EQ(0, shmk_poller_remove_events(self->p));
	EXPECT_EQ(-EINVAL, shmk_poller_add_fd(self->p, shmk_poller_fd(self->p), POLLIN, NULL));
	shmk_detach(other);
	ASSERT_EQ(0, shmk_attach(pool_uri, &rdonly, &reader));
	ASSERT_EQ(0, shmk_poller_open(reader, &p));
	EXPECT_EQ(-EROFS, shmk_poller_add(p, nth(reader, 0), SHMK_RECV, NULL));
	EXPECT_EQ(0, shmk_poller_add_events(p, NULL));
	shmk_poller_close(p);
	shmk_detach(reader);
	shmk_poller_close(NULL);
}

TEST_F(poller, a_closed_queue_is_in_no_poller)
{
	struct shmk_ready r[8];

	ASSERT_EQ(0, put(self->q[0], 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_poller_add(self->p, self->q[0], SHMK_SEND, NULL));
	EXPECT_EQ(2, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	shmk_queue_close(self->q[0]);
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, shmk_deadline_ms(2)));
	EXPECT_EQ(0, shmk_queue_remove(self->s, "q0"));
	ASSERT_EQ(0, put(self->q[1], 1, SHMK_TRY));
	EXPECT_EQ(1, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
}

/* -------------------------------------------------------------- sleeping -- */

static void attach_and_die(void *arg)
{
	(void)arg;
	join();
	raise(SIGKILL);
}

TEST_F(poller, a_death_is_told_to_who_sleeps)
{
	struct shmk *s = join_spinning(-1, 0);	/* with slices, by which local notices */
	struct shmk_event event = { .type = 0 };
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p = poller(s, q, NR_QUEUES);
	struct shmk_ready r[8];
	pid_t pid;
	int ret;

	ASSERT_EQ(0, shmk_poller_add_events(p, &event));
	pid = child(attach_and_die, NULL);
	while (event.type != SHMK_EV_DIED) {
		ASSERT_EQ(1, shmk_poller_wait(p, r, 8, watchdog()));
		EXPECT_EQ(SHMK_READY_EVENTS, r[0].kind);
		EXPECT_EQ(&event, r[0].tag);
		do
			ret = shmk_event_next(s, &event);
		while (!ret && event.type != SHMK_EV_DIED);
		EXPECT_TRUE(!ret || ret == -EAGAIN);
	}
	EXPECT_EQ(128 + SIGKILL, child_end(pid));
	while (!shmk_event_next(s, &event))
		;
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(p, r, 8, shmk_deadline_ms(150)));
	shmk_poller_close(p);
	shmk_detach(s);
}

TEST_F(poller, a_deadline_ends_a_wait_not_before_and_soon_after)
{
	struct shmk_ready r[8];

	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, 1));
	for (int us = 1; us < 100000; us *= 3) {
		int64_t late = INT64_MAX, deadline;

		/* Whose CPU is another's for long is later. */
		for (int i = 0; i < 5 && late > 500 * NS_PER_MS; i++) {
			deadline = now_ns() + us * 1000LL;
			ASSERT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, deadline));
			late = now_ns() - deadline;
			EXPECT_LE(0, late);
		}
		EXPECT_GT(500 * NS_PER_MS, late);
	}
}

static void *interrupt_soon(void *arg)
{
	until_asleep(getpid());
	shmk_interrupt(arg);
	return NULL;
}

TEST_F(poller, an_interrupt_ends_a_wait_until_resumed)
{
	struct shmk_ready r[8];
	pthread_t thread;

	for (int i = 0; i < 20; i++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, interrupt_soon, self->s));
		EXPECT_EQ(-EINTR, shmk_poller_wait(self->p, r, 8, watchdog()));
		pthread_join(thread, NULL);
		EXPECT_EQ(-EINTR, shmk_poller_wait(self->p, r, 8, watchdog()));
		EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
		ASSERT_EQ(0, put(self->q[i % NR_QUEUES], 1, SHMK_TRY));
		EXPECT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
		EXPECT_EQ(1, take_told(r, 1));
		shmk_resume(self->s);
		EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 8, shmk_deadline_ms(1)));
	}
}

/* A long spin, which must not hide what has no slots to look at. */
TEST_F(poller, an_fd_is_seen_while_spinning)
{
	struct shmk *s = join_spinning(4000000, 0);
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p = poller(s, q, NR_QUEUES);
	struct itimerspec soon = { .it_value.tv_nsec = 2000000 };
	int fd = timerfd_create(CLOCK_MONOTONIC, 0);
	int64_t begin = now_ns();
	struct shmk_ready r[8];

	ASSERT_EQ(0, timerfd_settime(fd, 0, &soon, NULL));
	ASSERT_EQ(0, shmk_poller_add_fd(p, fd, POLLIN, NULL));
	EXPECT_EQ(1, shmk_poller_wait(p, r, 8, watchdog()));
	EXPECT_GT(3500 * NS_PER_MS, now_ns() - begin);
	EXPECT_LE(2 * NS_PER_MS, now_ns() - begin);
	shmk_detach(s);
}

static void send_to_each(void *arg)
{
	struct shmk *s = join();

	for (int i = 0; i < *(int *)arg; i++)
		CHECK(!put(nth(s, i % NR_QUEUES), i, watchdog()));
	shmk_detach(s);
}

TEST_F(poller, who_has_no_ledger_entry_is_woken_too)
{
	struct shmk *s = join_spinning(-1, 8);
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p = poller(s, q, NR_QUEUES);
	struct shmk_ready r[8];
	uint32_t entry;
	int one = 1;
	pid_t pid;

	while (!entry_get(s, &entry))
		;
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(p, r, 8, a_sleep()));
	pid = child(send_to_each, &one);
	EXPECT_EQ(1, shmk_poller_wait(p, r, 8, watchdog()));
	EXPECT_EQ(0, child_end(pid));
	shmk_poller_fd(p);
	EXPECT_EQ(1, shmk_poller_wait(p, r, 8, SHMK_TRY));
	shmk_detach(s);
}

/* ------------------------------------------------------- many and many -- */

#define CROWD	3

struct crowd {
	int me;
	int each;
	uint64_t *sum;
};

static void crowd_send(void *arg)
{
	struct crowd *c = arg;
	struct shmk *s = join();
	unsigned int seed = (unsigned int)getpid();

	for (int i = 0; i < c->each; i++) {
		busy((unsigned int)rand_r(&seed) % 300);
		CHECK(!put(nth(s, rand_r(&seed) % NR_QUEUES), 1, watchdog()));
	}
	shmk_detach(s);
}

/* Every second one is hasty: it leaves without a message, having drained. */
static void crowd_recv(void *arg)
{
	struct crowd *c = arg;
	struct shmk *s = join();
	struct shmk_queue *q[NR_QUEUES], *stop = queue(s, c->me ? c->me == 1 ? "s1" : "s2" : "s0", 2);
	struct shmk_poller *p = poller(s, q, NR_QUEUES);
	unsigned int seed = (unsigned int)getpid();
	struct shmk_ready r[3];
	uint64_t value, sum = 0;
	bool done = false;
	int n;

	CHECK(!shmk_poller_add(p, stop, SHMK_RECV, NULL));
	while (!done) {
		busy((unsigned int)rand_r(&seed) % 100);
		n = shmk_poller_wait(p, r, 3, c->me & 1 ? now_ns() + rand_r(&seed) % 50000 :
				     watchdog());
		CHECK(n > 0 || (n == -ETIMEDOUT && c->me & 1));
		for (int i = 0; i < n; i++) {
			done = done || !r[i].tag;
			if (r[i].tag && !get(r[i].queue, &value, SHMK_TRY))
				sum += value;
		}
	}
	__atomic_fetch_add(c->sum, sum, __ATOMIC_RELAXED);
	shmk_detach(s);
}

TEST_F_TIMEOUT(poller, no_wakeup_is_lost_in_a_crowd, 120)
{
	struct crowd c = { .each = cycles / 20, .sum = shared(sizeof(uint64_t)) };
	const char *const stop[] = { "s0", "s1", "s2" };
	pid_t senders[CROWD], receivers[CROWD];
	int64_t end;

	ASSERT_NE(NULL, c.sum);
	for (c.me = 0; c.me < CROWD; c.me++) {
		senders[c.me] = child(crowd_send, &c);
		receivers[c.me] = child(crowd_recv, &c);
	}
	for (int i = 0; i < CROWD; i++)
		EXPECT_EQ(0, child_end(senders[i]));
	/* All of it is taken without another message. */
	end = watchdog();
	for (int i = 0; i < NR_QUEUES; i++)
		while (shmk_ring_ready(&self->q[i]->rv, SHMK_SIDE_RECV) && now_ns() < end)
			sched_yield();
	for (int i = 0; i < CROWD; i++)
		ASSERT_EQ(0, put(queue(self->s, stop[i], 2), 1, SHMK_TRY));
	for (int i = 0; i < CROWD; i++)
		EXPECT_EQ(0, child_end(receivers[i]));
	EXPECT_EQ(CROWD * c.each, *c.sum);
}

#define MANY	200

static struct shmk_queue *many[MANY];

static struct shmk_poller *poller_of_many(struct shmk *s, int n)
{
	struct shmk_poller *p;
	char name[16];

	CHECK(!shmk_poller_open(s, &p));
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "many%d", i);
		many[i] = queue(s, name, 4);
		CHECK(!shmk_poller_add(p, many[i], SHMK_RECV, &many[i]));
	}
	return p;
}

#define COUNTED	50

static void counted_poller(void *arg)
{
	struct shmk *s = join();
	struct shmk_poller *p = poller_of_many(s, *(int *)arg);
	struct shmk_ready r[8];

	CHECK(shmk_poller_wait(p, r, 8, a_sleep()) == -ETIMEDOUT);
	traced();
	mark(MARK_ON);
	for (int i = 0; i < COUNTED; i++) {
		CHECK(shmk_poller_wait(p, r, 8, watchdog()) == 1);
		CHECK(r[0].queue == many[0]);
		CHECK(take_told(r, 1) == 1);
	}
	mark(MARK_OFF);
	shmk_detach(s);
}

static void send_value(void *arg)
{
	CHECK(!put(arg, 1, SHMK_TRY));
}

TEST_F(poller, a_wait_costs_the_same_however_many_are_idle)
{
	struct shmk_queue *q = queue(self->s, "many0", 4);
	static const int sizes[] = { 1, 8, MANY };
	struct counts c;

	for (int i = 0; i < 3; i++) {
		pid_t pid = child(counted_poller, (void *)&sizes[i]);
		int early;

		ASSERT_EQ(0, trace(pid, &c, NULL, send_value, q));
		log_counts(_metadata, "poller", &c, COUNTED);
		/* With many the set is asked first; only what was ready is drained. */
		/* One less where a message was there before the receiver slept. */
		EXPECT_GE(COUNTED * (sizes[i] == MANY ? 2 : 1), c.nr[__NR_epoll_pwait2]);
		EXPECT_LE(COUNTED / 2, c.nr[__NR_epoll_pwait2]);
		early = COUNTED * (sizes[i] == MANY ? 2 : 1) - (int)c.nr[__NR_epoll_pwait2];
		if (early > COUNTED - 1)
			early = COUNTED - 1;
		/* In the first wait all was armed already. */
		EXPECT_GE(module_backend() ? 0 : COUNTED - 1, c.nr[__NR_read]);
		EXPECT_LE(module_backend() ? 0 : COUNTED - 1 - early, c.nr[__NR_read]);
		EXPECT_GE(early, c.total - c.nr[__NR_epoll_pwait2] - c.nr[__NR_read]);
	}
}

/* Hot ones that were idle for long are armed while the poller never sleeps. */
TEST_F(poller, a_busy_queue_hides_none_of_many)
{
	struct shmk_poller *p = poller_of_many(self->s, MANY);
	struct shmk_ready r[8];
	int n, waits;

	ASSERT_EQ(0, put(many[0], 1, SHMK_TRY));
	for (int i = 1; i < MANY; i += 7) {
		for (int j = 0; j < 20; j++)
			ASSERT_EQ(1, shmk_poller_wait(p, r, 8, SHMK_TRY));
		ASSERT_EQ(0, put(many[i], 1, SHMK_TRY));
		n = waits = 0;
		do
			n = shmk_poller_wait(p, r, 8, SHMK_TRY);
		while (n == 1 && ++waits < 20);
		ASSERT_EQ(2, n);
		EXPECT_TRUE(told(r, 2, &many[i]));
		EXPECT_EQ(0, waits);
		for (int j = 0; j < 2; j++)
			if (r[j].queue != many[0])
				EXPECT_EQ(1, take_told(&r[j], 1));
	}
}

/* ------------------------------------------------- at every instruction -- */

struct stepped {
	bool armed_before;	/* from an earlier wait, else hot */
};

static void polls_marked(void *arg)
{
	struct stepped *how = arg;
	struct shmk *s = join();
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p = poller(s, q, NR_QUEUES);
	struct shmk_ready r[8];
	int n;

	traced();
	for (;;) {
		if (how->armed_before)
			CHECK(shmk_poller_wait(p, r, 8, shmk_deadline_ms(2)) == -ETIMEDOUT);
		mark(MARK_ON);
		n = shmk_poller_wait(p, r, 8, SHMK_FOREVER);
		CHECK(n > 0);
		mark(MARK_OFF);
		while (take_told(r, n) > 0)
			;
		/* What came in between is for here, not for the next round. */
		while ((n = shmk_poller_wait(p, r, 8, SHMK_TRY)) > 0)
			take_told(r, n);
	}
}

static void sweep_poller(struct __test_metadata *_metadata, FIXTURE_DATA(poller) *self,
			 bool armed_before, meanwhile_t meanwhile)
{
	struct stepped how = { .armed_before = armed_before };
	struct shmk *s = join();
	struct shmk_queue *others = nth(s, 1);
	uint64_t value;
	pid_t pid;
	int k;

	while (!get(others, &value, SHMK_TRY))	/* of a victim before */
		;
	ASSERT_LE(0, shmk_queue_fd(others, SHMK_RECV));
	pin_to(0);
	pid = child(polls_marked, &how);
	k = steps_into_sleep(pid, self->q[1], others, meanwhile);
	TH_LOG("%d instructions until it slept (negative: lost after so many)", k);
	EXPECT_LT(100, k);
	shmk_detach(s);
	kill(pid, SIGKILL);
	child_end(pid);
}

static bool sent_and_armed(struct shmk_queue *mine, struct shmk_queue *others)
{
	CHECK(!put(mine, 1, SHMK_TRY));
	CHECK(!wait_arm(others, SHMK_SIDE_RECV));
	return true;
}

static bool sent_taken_and_armed(struct shmk_queue *mine, struct shmk_queue *others)
{
	sent_and_taken(mine, others);
	CHECK(wait_arm(others, SHMK_SIDE_RECV) == -EAGAIN);
	return false;
}

TEST_F_TIMEOUT(poller, a_message_at_any_instruction_of_going_to_sleep_ends_the_wait, 120)
{
	sweep_poller(_metadata, self, false, sent);
	sweep_poller(_metadata, self, true, sent);
}

TEST_F_TIMEOUT(poller, a_message_that_another_takes_does_not_spoil_the_next, 120)
{
	sweep_poller(_metadata, self, false, sent_and_taken);
	sweep_poller(_metadata, self, true, sent_and_taken);
}

TEST_F_TIMEOUT(poller, another_who_drains_and_does_not_take_gives_the_wakeup_back, 120)
{
	sweep_poller(_metadata, self, false, sent_and_armed);
	sweep_poller(_metadata, self, true, sent_and_armed);
}

TEST_F_TIMEOUT(poller, another_who_drains_for_itself_leaves_the_word_set, 120)
{
	sweep_poller(_metadata, self, false, sent_taken_and_armed);
	sweep_poller(_metadata, self, true, sent_taken_and_armed);
}

static void sends_marked(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q = nth(s, 2);

	traced();
	mark(MARK_ON);
	put(q, 1, SHMK_TRY);
	atomic_store((atomic_int *)arg, 1);
	pause();
}

static void polls_and_takes(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p = poller(s, q, NR_QUEUES);
	struct shmk_ready r[8];
	int n;

	(void)arg;
	for (;;) {
		n = shmk_poller_wait(p, r, 8, SHMK_FOREVER);
		CHECK(n > 0);
		take_told(r, n);
	}
}

TEST_F_TIMEOUT(poller, a_sender_killed_at_any_instruction_leaves_no_poller_asleep, 120)
{
	atomic_int *through = shared(sizeof(*through));
	pid_t victim, sleeper;
	int k, status;

	ASSERT_NE(NULL, through);
	pin_to(0);
	sleeper = child(polls_and_takes, NULL);
	for (k = first_step(); !atomic_load(through); k += stride()) {
		int64_t end;

		until_asleep(sleeper);
		victim = child(sends_marked, through);
		trace_begin(victim);
		ASSERT_TRUE(runs_to(victim, MARK_ON));
		for (int i = 0; i < k && !atomic_load(through); i++) {
			ptrace(PTRACE_SINGLESTEP, victim, 0, 0);
			waitpid(victim, &status, 0);
		}
		kill(victim, SIGKILL);
		child_end(victim);
		self->s->backend->reap(self->s);
		end = now_ns() + 5000 * NS_PER_MS;
		while (shmk_ring_ready(&self->q[2]->rv, SHMK_SIDE_RECV) && now_ns() < end)
			sched_yield();
		ASSERT_FALSE(shmk_ring_ready(&self->q[2]->rv, SHMK_SIDE_RECV))
			TH_LOG("left asleep by one killed after %d instructions", k);
	}
	TH_LOG("%d instructions", k);
	EXPECT_LT(100, k);
	kill(sleeper, SIGKILL);
	child_end(sleeper);
}

/* -------------------------------------------------------- subscriptions -- */

static struct shmk_topic *topic(struct shmk *s)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE, .depth = 4, .nr_readers = 4 };
	struct shmk_topic *t = NULL;

	CHECK(!shmk_topic_open(s, "topic", &opts, SHMK_TRY, &t));
	return t;
}

/* Each value when the one before was told to have been read; sometimes two at once. */
static void publish_when_told(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *go = queue(s, "go", 4);
	struct shmk_topic *t = topic(s);
	uint64_t value;

	(void)arg;
	CHECK(!shmk_topic_writer(t, watchdog()));
	for (;;) {
		CHECK(!get(go, &value, SHMK_FOREVER));
		CHECK(!shmk_topic_publish_copy(t, &value, sizeof(value), watchdog()));
		if (value % 7 == 0)
			CHECK(!shmk_topic_publish_copy(t, &value, sizeof(value), watchdog()));
	}
}

TEST_F_TIMEOUT(poller, subscriptions_and_queues_are_waited_for_together, 120)
{
	struct shmk_queue *go = queue(self->s, "go", 4);
	struct shmk_topic *t = topic(self->s);
	unsigned int seed = 1;
	struct shmk_ready r[4];
	struct shmk_sub *sub;
	uint64_t value, next = 0;
	pid_t publisher;
	int n;

	ASSERT_EQ(0, shmk_topic_subscribe(t, &(struct shmk_sub_opts){ .wait = false }, &sub));
	ASSERT_EQ(0, shmk_poller_add_sub(self->p, sub, &sub));
	EXPECT_EQ(-EEXIST, shmk_poller_add_sub(self->p, sub, &sub));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 4, SHMK_TRY));
	publisher = child(publish_when_told, NULL);
	ASSERT_EQ(0, put(self->q[0], 1, SHMK_TRY));
	while (next < (uint64_t)cycles / 10) {
		ASSERT_EQ(0, put(go, next, SHMK_TRY));
		/* Reads that the poller knows nothing of, at any moment. */
		if (next % 3 == 0) {
			busy((unsigned int)rand_r(&seed) % 2000);
			n = shmk_topic_read(sub, &value, sizeof(value), NULL, SHMK_TRY) == 8;
		} else {
			n = 0;
		}
		while (!n) {
			n = shmk_poller_wait(self->p, r, 4, watchdog());
			ASSERT_LT(0, n) TH_LOG("lost at %d", (int)next);
			n = 0;
			for (int i = 0; i < 4 && r[i].kind; i++)
				if (r[i].kind == SHMK_READY_SUB && r[i].sub == sub &&
				    r[i].tag == &sub)
					n |= shmk_topic_read(sub, &value, sizeof(value), NULL,
							     SHMK_TRY) == 8;
			memset(r, 0, sizeof(r));
		}
		next++;
		while (shmk_topic_read(sub, &value, sizeof(value), NULL, SHMK_TRY) == 8)
			;
	}
	kill(publisher, SIGKILL);
	child_end(publisher);
	EXPECT_EQ(0, get(self->q[0], &value, SHMK_TRY));	/* it was told all the time */
	EXPECT_EQ(0, shmk_poller_remove_sub(self->p, sub));
	EXPECT_EQ(-ENOENT, shmk_poller_remove_sub(self->p, sub));
	EXPECT_EQ(0, shmk_poller_add_sub(self->p, sub, &sub));
	shmk_topic_unsubscribe(sub);
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 4, shmk_deadline_ms(2)));
	shmk_topic_close(t);
}

static struct shmk_sub *read_by_bell;
static int (*real_bell)(struct shmk *s, const struct shmk_bell_one *bells, unsigned int nr);

/* The reader is faster than the bell, which then finds that it does not sleep. */
static int read_before_bell(struct shmk *s, const struct shmk_bell_one *bells, unsigned int nr)
{
	uint64_t value;

	if (read_by_bell)
		CHECK(shmk_topic_read(read_by_bell, &value, sizeof(value), NULL, SHMK_TRY) == 8);
	return real_bell(s, bells, nr);
}

TEST_F(poller, a_subscription_that_was_read_while_armed_is_armed_again)
{
	struct shmk *other = join();
	struct shmk_backend hooked = *other->backend;
	struct shmk_topic *t = topic(self->s), *w = topic(other);
	struct shmk_ready r[4];
	struct shmk_sub *sub;
	uint64_t value = 5;

	real_bell = hooked.bell;
	hooked.bell = read_before_bell;
	other->backend = &hooked;
	ASSERT_EQ(0, shmk_topic_writer(w, SHMK_TRY));
	ASSERT_EQ(0, shmk_topic_subscribe(t, &(struct shmk_sub_opts){ .wait = false }, &sub));
	ASSERT_EQ(0, shmk_poller_add_sub(self->p, sub, &sub));
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 4, a_sleep()));
	read_by_bell = sub;
	ASSERT_EQ(0, shmk_topic_publish_copy(w, &value, sizeof(value), SHMK_TRY));
	read_by_bell = NULL;
	EXPECT_EQ(-ETIMEDOUT, shmk_poller_wait(self->p, r, 4, a_sleep()));
	ASSERT_EQ(0, shmk_topic_publish_copy(w, &value, sizeof(value), SHMK_TRY));
	EXPECT_EQ(1, shmk_poller_wait(self->p, r, 4, shmk_deadline_ms(3000)));
	EXPECT_EQ(sub, r[0].sub);
	shmk_detach(other);
}

/* ------------------------------------------------- the caller's own loop -- */

static int poll_once(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, ms) == 1 && p.revents == POLLIN;
}

TEST_F(poller, its_fd_is_readable_when_something_is_ready)
{
	struct shmk_ready r[8];
	int fd;

	ASSERT_EQ(0, put(self->q[0], 1, SHMK_TRY));
	fd = shmk_poller_fd(self->p);
	ASSERT_LE(0, fd);
	EXPECT_EQ(fd, shmk_poller_fd(self->p));
	EXPECT_TRUE(poll_once(fd, 0));		/* from the start */
	EXPECT_EQ(1, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(1, take_told(r, 1));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_FALSE(poll_once(fd, 0));
	ASSERT_EQ(0, put(self->q[3], 1, SHMK_TRY));
	EXPECT_TRUE(poll_once(fd, 0));
	EXPECT_EQ(1, shmk_poller_wait(self->p, r, 8, watchdog()));
	EXPECT_EQ(1, take_told(r, 1));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	/* A side that is added when it is ready, and one that is not. */
	EXPECT_EQ(0, shmk_poller_add(self->p, self->q[0], SHMK_SEND, NULL));
	EXPECT_TRUE(poll_once(fd, 0));
	EXPECT_EQ(0, shmk_poller_remove(self->p, self->q[0], SHMK_SEND));
	EXPECT_EQ(0, shmk_poller_remove(self->p, self->q[0], SHMK_RECV));
	EXPECT_EQ(0, shmk_poller_add(self->p, self->q[0], SHMK_RECV, NULL));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_FALSE(poll_once(fd, 0));
	ASSERT_EQ(0, put(self->q[0], 1, SHMK_TRY));
	EXPECT_TRUE(poll_once(fd, 0));
	EXPECT_EQ(1, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	EXPECT_EQ(1, take_told(r, 1));
	/* While interrupted it is readable, whatever else; what comes meanwhile is not lost. */
	shmk_interrupt(self->s);
	EXPECT_TRUE(poll_once(fd, 0));
	EXPECT_EQ(-EINTR, shmk_poller_wait(self->p, r, 8, SHMK_TRY));
	shmk_resume(self->s);
	EXPECT_FALSE(poll_once(fd, 0));
	ASSERT_EQ(0, put(self->q[0], 1, SHMK_TRY));
	EXPECT_TRUE(poll_once(fd, 0));
}

/* Sends the next value when the former one is told to have come. */
static void send_when_told(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *go = queue(s, "go", 4);
	uint64_t value;

	(void)arg;
	for (;;) {
		CHECK(!get(go, &value, SHMK_FOREVER));
		CHECK(!put(nth(s, (int)(value % NR_QUEUES)), value, watchdog()));
	}
}

/* All there is, until -EAGAIN. Returns how many messages. */
static int take_all(struct shmk_poller *p, struct shmk_queue *go, int *next)
{
	struct shmk_ready r[8];
	uint64_t value;
	int n, nr = 0;

	while ((n = shmk_poller_wait(p, r, 8, SHMK_TRY)) > 0) {
		for (int i = 0; i < n; i++) {
			if (get(r[i].queue, &value, SHMK_TRY))
				continue;
			nr++;
			if (put(go, (uint64_t)++*next, SHMK_TRY))
				return -1;
		}
	}
	return n == -EAGAIN ? nr : n;
}

static void epoll_loop(struct __test_metadata *_metadata, FIXTURE_DATA(poller) *self, uint32_t how)
{
	struct epoll_event ev = { .events = EPOLLIN | how };
	int epfd = epoll_create1(EPOLL_CLOEXEC), fd = shmk_poller_fd(self->p);
	struct shmk_queue *go = queue(self->s, "go", 4);
	pid_t sender = child(send_when_told, NULL);
	int nr = 0, next = 0, n;

	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev));
	ASSERT_EQ(0, put(go, 0, SHMK_TRY));
	while (nr < cycles / 10) {
		ASSERT_EQ(1, epoll_wait(epfd, &ev, 1, WATCHDOG_MS)) TH_LOG("after %d", nr);
		n = take_all(self->p, go, &next);
		ASSERT_LE(0, n);
		nr += n;
	}
	close(epfd);
	kill(sender, SIGKILL);
	child_end(sender);
}

TEST_F(poller, its_fd_works_in_an_epoll_of_the_callers)
{
	epoll_loop(_metadata, self, 0);
}

TEST_F(poller, its_fd_works_edge_triggered)
{
	epoll_loop(_metadata, self, EPOLLET);
}

TEST_F(poller, a_ring_of_the_callers_waits_for_all)
{
	struct shmk_queue *go = queue(self->s, "go", 4);
	struct __kernel_timespec ts = { .tv_sec = WATCHDOG_MS / 1000 };
	int nr = 0, next = 0, again = 1, n;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	pid_t sender;

	if (!uring_works())
		SKIP(return, "no io_uring here");
	ASSERT_EQ(0, io_uring_queue_init(8, &ring, 0));
	sender = child(send_when_told, NULL);
	ASSERT_EQ(0, put(go, 0, SHMK_TRY));
	while (nr < cycles / 10) {
		if (again) {
			ASSERT_EQ(0, shmk_poller_prep_wait(self->p, io_uring_get_sqe(&ring)));
			/* What came before it was armed is told by the poll itself. */
		}
		n = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &ts, NULL);
		ASSERT_LE(0, n) TH_LOG("after %d: %s", nr, strerror(-n));
		again = shmk_poller_handle(self->p, cqe);
		ASSERT_LE(0, again);
		io_uring_cqe_seen(&ring, cqe);
		n = take_all(self->p, go, &next);
		ASSERT_LE(0, n);
		nr += n;
	}
	io_uring_queue_exit(&ring);
	kill(sender, SIGKILL);
	child_end(sender);
}

/* ------------------------------------------------------------- threads -- */

struct beside {
	struct shmk *s;
	int stop;	/* __atomic */
	int rounds;
	int ret;
};

/* Has a poller of its own, whose sides are hot and armed in turn. */
static void *poll_on(void *arg)
{
	struct beside *b = arg;
	struct shmk_queue *q[NR_QUEUES];
	struct shmk_poller *p = poller(b->s, q, NR_QUEUES);
	struct shmk_ready r[4];
	int n = 0;

	while (!__atomic_load_n(&b->stop, __ATOMIC_RELAXED) && b->ret >= 0) {
		b->ret = put(q[b->rounds++ % NR_QUEUES], 1, SHMK_TRY);
		if (!b->ret)
			n = shmk_poller_wait(p, r, 4, watchdog());
		b->ret = n < 1 ? -EPROTO : take_told(r, n);
		shmk_poller_wait(p, r, 4, now_ns() + 20000);
	}
	shmk_poller_close(p);
	return NULL;
}

/* Of no concern to who polls others: it was looked for in all pollers, under their threads' hands. */
TEST_F(poller, queues_are_closed_beside_pollers_without_them)
{
	struct beside b = { .s = self->s };
	int64_t end = now_ns() + 2000 * NS_PER_MS, watchdog_end = watchdog();
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, poll_on, &b));
	while (now_ns() < end ||
	       (__atomic_load_n(&b.rounds, __ATOMIC_RELAXED) <= 10 && now_ns() < watchdog_end))
		shmk_queue_close(queue(self->s, "concerns-nobody", 4));
	__atomic_store_n(&b.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	EXPECT_LE(0, b.ret);
	EXPECT_LT(10, b.rounds);
}

TEST_F(poller, a_queue_leaves_all_pollers_that_have_it)
{
	struct shmk_queue *q = nth(self->s, 9);
	struct shmk_poller *other, *gone;
	struct shmk_ready r;

	ASSERT_EQ(0, shmk_poller_open(self->s, &other));
	ASSERT_EQ(0, shmk_poller_open(self->s, &gone));
	ASSERT_EQ(0, shmk_poller_add(gone, q, SHMK_RECV, NULL));
	ASSERT_EQ(0, shmk_poller_add(self->p, q, SHMK_RECV, NULL));
	ASSERT_EQ(0, shmk_poller_add(other, q, SHMK_SEND, NULL));
	ASSERT_EQ(0, shmk_poller_add(other, q, SHMK_RECV, NULL));
	EXPECT_EQ(-EEXIST, shmk_poller_add(other, q, SHMK_RECV, NULL));
	shmk_poller_close(gone);
	EXPECT_EQ(0, shmk_poller_remove(other, q, SHMK_RECV));
	EXPECT_EQ(-ENOENT, shmk_poller_remove(other, q, SHMK_RECV));
	EXPECT_EQ(1, shmk_poller_wait(other, &r, 1, SHMK_TRY));
	shmk_queue_close(q);
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(other, &r, 1, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_poller_wait(self->p, &r, 1, SHMK_TRY));
	shmk_poller_close(other);
}

TEST_HARNESS_MAIN
