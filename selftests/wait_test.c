// SPDX-License-Identifier: GPL-2.0-only
/*
 * wait_test.c - spinning, sleeping and waking.
 *
 * Every claim about sleeping is tried in three ways: by poll, by io_uring, and
 * with io_uring asked for but forbidden by seccomp. A wake-up is lost when a
 * call that could go on runs into WATCHDOG_MS instead. On the local backend
 * sleepers look again in every slice, which would hide that; but for the tests
 * of death the slices are switched off.
 *
 * SHMK_TEST_BACKEND=local|module, SHMK_TEST_CYCLES=n (sleeps per test that
 * counts them).
 */
#include "kselftest_harness.h"
#include "sleeper.h"

/* ------------------------------------------------------ sleep and wake -- */

FIXTURE(wait) {
	struct shmk *s;
	struct shmk_queue *q;
};

FIXTURE_VARIANT(wait) {
	const char *way;
	bool forbidden;
};

FIXTURE_VARIANT_ADD(wait, poll) { .way = "poll" };
FIXTURE_VARIANT_ADD(wait, uring) { .way = "uring" };
FIXTURE_VARIANT_ADD(wait, forbidden) { .way = "uring", .forbidden = true };

FIXTURE_SETUP(wait)
{
	setenv("SHMK_WAIT", variant->way, 1);
	if (variant->forbidden)
		forbid_uring();
	else if (!strcmp(variant->way, "uring") && !uring_works())
		SKIP(return, "no io_uring here");
	pool_name();
	self->s = join();
	self->q = queue(self->s, "q", 4);
}

FIXTURE_TEARDOWN(wait)
{
	char report[512] = "";

	if (!self->s)
		return;
	EXPECT_EQ(0, shmk_pool_check(self->s, report, sizeof(report)))
		TH_LOG("%s", report);
	shmk_detach(self->s);
}

struct pingpong {
	int cpu[2];
	int32_t spin_us[2];
	unsigned int pause;	/* up to so long before an answer */
	int rounds;
	uint64_t *sleeps;	/* [2], shared */
};

static void pingpong_side(const struct pingpong *pp, int me)
{
	struct shmk *s = join_spinning(pp->spin_us[me], 0);
	struct shmk_queue *in = queue(s, me ? "ping" : "pong", 4);
	struct shmk_queue *out = queue(s, me ? "pong" : "ping", 4);
	struct shmk_queue_stats stats;
	unsigned int seed = 1;
	uint64_t value;

	no_slices(s);
	pin_to(pp->cpu[me]);
	for (int i = 0; i < pp->rounds; i++) {
		if (!me)
			CHECK(!put(out, i, watchdog()));
		CHECK(!get(in, &value, watchdog()));
		CHECK(value == (uint64_t)i);
		if (pp->pause)
			busy(rand_r(&seed) % pp->pause);
		if (me)
			CHECK(!put(out, i, watchdog()));
	}
	CHECK(!shmk_queue_stats(in, &stats));
	pp->sleeps[me] = stats.my_sleeps;
	shmk_detach(s);
}

static void pingpong_child(void *arg)
{
	pingpong_side(arg, 1);
}

static uint64_t pingpong(struct __test_metadata *_metadata, struct pingpong pp)
{
	int64_t t = now_ns();
	pid_t pid;

	pp.sleeps = shared(2 * sizeof(uint64_t));
	ASSERT_NE(NULL, pp.sleeps);
	pid = child(pingpong_child, &pp);
	pingpong_side(&pp, 0);
	ASSERT_EQ(0, child_end(pid));
	t = now_ns() - t;
	TH_LOG("%d rounds, %llu sleeps, %lld ns each round", pp.rounds,
	       (unsigned long long)(pp.sleeps[0] + pp.sleeps[1]), (long long)t / pp.rounds);
	return pp.sleeps[0] + pp.sleeps[1];
}

TEST_F_TIMEOUT(wait, no_wakeup_is_lost_between_two_on_one_cpu, 120)
{
	struct pingpong pp = { .cpu = { 0, 0 }, .spin_us = { -1, -1 }, .rounds = cycles };

	EXPECT_LT((uint64_t)pp.rounds / 2, pingpong(_metadata, pp));
}

TEST_F_TIMEOUT(wait, no_wakeup_is_lost_between_two_on_two_cpus, 120)
{
	struct pingpong pp = { .cpu = { 0, 1 }, .spin_us = { -1, -1 }, .rounds = cycles / 8 };

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU");
	EXPECT_LT((uint64_t)pp.rounds / 2, pingpong(_metadata, pp));
}

/* The other one is awake and answers within a microsecond: it meets every step of S1 to S4. */
TEST_F_TIMEOUT(wait, no_wakeup_is_lost_when_the_answer_comes_while_going_to_sleep, 120)
{
	struct pingpong pp = { .cpu = { 0, 1 }, .spin_us = { -1, 1000000 }, .pause = 40,
			       .rounds = cycles / 8 };

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU");
	pingpong(_metadata, pp);
}

/*
 * Patient takes and answers; quitters arm, drain and leave without ever taking
 * anything. What they drained was meant for the patient one.
 */
struct quitters {
	atomic_int stop;
	uint64_t waits;
};

static void quitter(void *arg)
{
	struct quitters *shm = arg;
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "ping", 4);
	unsigned int seed = getpid();
	uint64_t waits = 0;
	int ret;

	if (seed & 1)
		CHECK(shmk_queue_fd(q, SHMK_RECV) >= 0);
	while (!atomic_load(&shm->stop)) {
		busy(rand_r(&seed) % 200);
		if (seed & 1 && rand_r(&seed) % 2)
			ret = wait_arm(q, SHMK_SIDE_RECV);
		else
			ret = wait_side(q, SHMK_SIDE_RECV,
					now_ns() + rand_r(&seed) % 30000);
		CHECK(ret == 0 || ret == -ETIMEDOUT || ret == -EAGAIN);
		waits++;
	}
	__atomic_fetch_add(&shm->waits, waits, __ATOMIC_RELAXED);
	shmk_detach(s);
}

TEST_F_TIMEOUT(wait, who_wakes_and_takes_nothing_takes_no_wakeup_either, 120)
{
	struct pingpong pp = { .cpu = { -1, -1 }, .spin_us = { -1, -1 }, .rounds = cycles / 10 };
	struct quitters *shm = shared(sizeof(*shm));
	pid_t pid[2];

	ASSERT_NE(NULL, shm);
	for (int i = 0; i < 2; i++)
		pid[i] = child(quitter, shm);
	pingpong(_metadata, pp);
	atomic_store(&shm->stop, 1);
	for (int i = 0; i < 2; i++)
		EXPECT_EQ(0, child_end(pid[i]));
	TH_LOG("%llu waits of quitters", (unsigned long long)shm->waits);
}

/* Senders and receivers of a queue of two, so that both sides sleep often. */
#define CROWD 3

struct crowd {
	bool hasty;		/* every second one has short deadlines */
	int each;
	int me;
	uint64_t *sum;
};

/* A short one may well time out; the long one never may. */
static int64_t crowd_deadline(const struct crowd *c, unsigned int *seed, bool *final)
{
	*final = !c->hasty || c->me % 2 == 0;
	return *final ? watchdog() : now_ns() + rand_r(seed) % 50000;
}

static void crowd_send(void *arg)
{
	struct crowd *c = arg;
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "crowd", 2);
	unsigned int seed = getpid();
	bool final;
	int ret;

	for (int i = 0; i < c->each; i++) {
		busy(rand_r(&seed) % 100);
		do
			ret = put(q, 1, crowd_deadline(c, &seed, &final));
		while (ret == -ETIMEDOUT && !final);
		CHECK(!ret);
	}
	shmk_detach(s);
}

static void crowd_recv(void *arg)
{
	struct crowd *c = arg;
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "crowd", 2);
	unsigned int seed = getpid();
	uint64_t value, sum = 0;
	bool final;
	int ret;

	do {
		busy(rand_r(&seed) % 100);
		do
			ret = get(q, &value, crowd_deadline(c, &seed, &final));
		while (ret == -ETIMEDOUT && !final);
		CHECK(!ret);
		sum += value;
	} while (value);
	__atomic_fetch_add(c->sum, sum, __ATOMIC_RELAXED);
	shmk_detach(s);
}

static void crowd(struct __test_metadata *_metadata, struct shmk *s, bool hasty)
{
	struct crowd c = { .hasty = hasty, .each = cycles / 20, .sum = shared(sizeof(uint64_t)) };
	struct shmk_queue *q = queue(s, "crowd", 2);
	pid_t senders[CROWD], receivers[CROWD];

	ASSERT_NE(NULL, c.sum);
	for (c.me = 0; c.me < CROWD; c.me++) {
		senders[c.me] = child(crowd_send, &c);
		receivers[c.me] = child(crowd_recv, &c);
	}
	for (int i = 0; i < CROWD; i++)
		EXPECT_EQ(0, child_end(senders[i]));
	for (int i = 0; i < CROWD; i++)
		ASSERT_EQ(0, put(q, 0, watchdog()));
	for (int i = 0; i < CROWD; i++)
		EXPECT_EQ(0, child_end(receivers[i]));
	EXPECT_EQ(CROWD * c.each, *c.sum);
}

TEST_F_TIMEOUT(wait, no_wakeup_is_lost_in_a_crowd, 120)
{
	crowd(_metadata, self->s, false);
}

TEST_F_TIMEOUT(wait, no_wakeup_is_lost_in_a_crowd_with_deadlines, 120)
{
	crowd(_metadata, self->s, true);
}

static void receive_one(void *arg)
{
	struct shmk *s = join();
	uint64_t value;

	(void)arg;
	CHECK(!get(queue(s, "q", 4), &value, watchdog()));
	shmk_detach(s);
}

static void send_one(void *arg)
{
	struct shmk *s = join();

	(void)arg;
	CHECK(!put(queue(s, "q", 4), 1, watchdog()));
	shmk_detach(s);
}

TEST_F(wait, all_sleeping_receivers_get_their_message)
{
	pid_t pid[4];
	int done = 0, status;

	for (int i = 0; i < 4; i++)
		pid[i] = child(receive_one, NULL);
	for (int i = 0; i < 4; i++)
		until_asleep(pid[i]);
	/* One message ends one of them. */
	ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	ASSERT_LT(0, wait(&status));
	EXPECT_EQ(0, status);
	for (int i = 0; i < 4; i++)
		done += waitpid(pid[i], &status, WNOHANG) != 0;
	EXPECT_EQ(1, done);
	/* Three at once, of which only the first finds the word set. */
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	for (int i = 0; i < 3; i++) {
		ASSERT_LT(0, wait(&status));
		EXPECT_EQ(0, status);
	}
}

TEST_F(wait, all_senders_sleeping_at_a_full_queue_get_their_room)
{
	uint64_t value;
	pid_t pid[4];

	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	ASSERT_EQ(-EAGAIN, put(self->q, 1, SHMK_TRY));
	for (int i = 0; i < 4; i++)
		pid[i] = child(send_one, NULL);
	for (int i = 0; i < 4; i++)
		until_asleep(pid[i]);
	for (int i = 0; i < 8; i++)
		ASSERT_EQ(0, get(self->q, &value, watchdog()));
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(0, child_end(pid[i]));
	EXPECT_EQ(-EAGAIN, get(self->q, &value, SHMK_TRY));
}

/* That it looks again by itself would hide it. */
TEST_F(wait, a_receiver_rings_for_a_sleeping_sender)
{
	struct shmk_queue_stats st;
	uint64_t value;
	pid_t pid;

	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	pid = child(send_one, NULL);
	until_asleep(pid);
	ASSERT_EQ(0, get(self->q, &value, watchdog()));
	ASSERT_EQ(0, shmk_queue_stats(self->q, &st));
	EXPECT_EQ(1, st.my_bells);
	EXPECT_EQ(0, child_end(pid));
}

/* As after a receiver whose look at the word came before its own store: see wait.c. */
TEST_F(wait, a_sender_that_nobody_rings_looks_again)
{
	struct shmk_ring *ring = self->q->rv.ring;
	struct shmk_slot *slot = shmk_slot_at(&self->q->rv, 0);
	int64_t since;
	pid_t pid;

	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	pid = child(send_one, NULL);
	until_asleep(pid);
	WRITE_ONCE(ring->waiters_send, 0);
	WRITE_ONCE(slot->t, SHMK_T(0, shmk_self(self->s)));
	smp_store_release(&slot->p, SHMK_P(1, SHMK_KIND_EMPTY, 0));
	WRITE_ONCE(ring->head, 1);
	since = now_ns();
	EXPECT_EQ(0, child_end(pid));
	/* And not because its time was over. */
	EXPECT_GT(WATCHDOG_MS / 2 * 1000000LL, now_ns() - since);
}

TEST_F(wait, a_ring_is_watched_from_when_an_fd_of_its_send_side_is_polled)
{
	struct shmk_queue *other = queue(self->s, "other", 4);
	struct shmk_poller *p;
	__u64 since;

	EXPECT_LE(0, shmk_queue_fd(self->q, SHMK_RECV));
	EXPECT_EQ(0, self->q->rv.ring->watched);
	EXPECT_LE(0, shmk_queue_fd(self->q, SHMK_SEND));
	since = self->q->rv.ring->watched;
	EXPECT_NE(0, since);
	EXPECT_LE(since + 2000000, (__u64)now_ns());
	EXPECT_LE(0, shmk_queue_fd(self->q, SHMK_SEND));
	EXPECT_EQ(since, self->q->rv.ring->watched);

	ASSERT_EQ(0, shmk_poller_open(self->s, &p));
	ASSERT_EQ(0, shmk_poller_add(p, other, SHMK_SEND, NULL));
	EXPECT_NE(0, other->rv.ring->watched);
	shmk_poller_close(p);
	shmk_queue_close(other);
}

/* ------------------------------------------------------------ deadlines -- */

TEST_F(wait, a_deadline_ends_a_wait_not_before_and_soon_after)
{
	uint64_t value;

	EXPECT_EQ(-EAGAIN, get(self->q, &value, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, 1));
	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, now_ns() - 1));
	for (int us = 1; us < 100000; us *= 3) {
		int64_t late = INT64_MAX, deadline;

		/* Whose CPU is another's for long is later. */
		for (int i = 0; i < 5 && late > 500 * NS_PER_MS; i++) {
			deadline = now_ns() + us * 1000LL;
			ASSERT_EQ(-ETIMEDOUT, get(self->q, &value, deadline));
			late = now_ns() - deadline;
			EXPECT_LE(0, late);
		}
		EXPECT_GT(500 * NS_PER_MS, late);
	}
}

TEST_F(wait, deadlines_are_made_from_milliseconds)
{
	int64_t before = now_ns(), d = shmk_deadline_ms(1000);

	EXPECT_LE(before + 1000 * NS_PER_MS, d);
	EXPECT_GE(now_ns() + 1000 * NS_PER_MS, d);
	EXPECT_EQ(SHMK_TRY, shmk_deadline_ms(0));
	EXPECT_EQ(SHMK_FOREVER, shmk_deadline_ms(-1));
	EXPECT_EQ(SHMK_FOREVER, shmk_deadline_ms(INT64_MAX));
	EXPECT_EQ(SHMK_FOREVER, shmk_deadline_ms(INT64_MAX / NS_PER_MS));
}

static void ring_in_vain(void *arg)
{
	struct shmk *s = join();
	struct shmk_bell_one bell = { .id = queue(s, "q", 4)->id, .side = SHMK_SIDE_RECV };

	(void)arg;
	for (;;) {
		CHECK(!s->backend->bell(s, &bell, 1));
		usleep(500);
	}
}

TEST_F(wait, waking_in_vain_does_not_put_the_deadline_off)
{
	pid_t pid = child(ring_in_vain, NULL);
	int64_t deadline = now_ns() + 100 * NS_PER_MS;
	uint64_t value;

	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, deadline));
	EXPECT_LE(deadline, now_ns());
	EXPECT_GT(deadline + WATCHDOG_MS * NS_PER_MS, now_ns());
	kill(pid, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, child_end(pid));
}

/* ----------------------------------------------------------- interrupts -- */

static struct shmk *to_interrupt;
static volatile sig_atomic_t signals;

static void on_signal(int sig)
{
	(void)sig;
	signals++;
	if (to_interrupt)
		shmk_interrupt(to_interrupt);
}

/* Also without SA_RESTART a signal as such ends nothing. */
static void handle(int sig)
{
	struct sigaction sa = { .sa_handler = on_signal };

	sigaction(sig, &sa, NULL);
}

TEST_F(wait, a_signal_alone_ends_no_wait)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } }, never = { { 0, 0 }, { 0, 0 } };
	int64_t deadline;
	uint64_t value;

	handle(SIGALRM);
	deadline = now_ns() + 100 * NS_PER_MS;
	setitimer(ITIMER_REAL, &often, NULL);
	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, deadline));
	setitimer(ITIMER_REAL, &never, NULL);
	EXPECT_LE(deadline, now_ns());
	EXPECT_LE(1, signals);
}

/* At every moment: before the call, on the way into the sleep, in it. */
TEST_F(wait, an_interrupt_in_a_signal_handler_ends_a_wait)
{
	uint64_t value;

	handle(SIGALRM);
	to_interrupt = self->s;
	for (int i = 1; i < 1000; i++) {
		struct itimerval once = { { 0, 0 }, { 0, i % 100 + 1 } };

		setitimer(ITIMER_REAL, &once, NULL);
		ASSERT_EQ(-EINTR, get(self->q, &value, watchdog()));
		shmk_resume(self->s);
	}
}

static void *interrupt_soon(void *arg)
{
	struct shmk *s = arg;

	until_asleep(getpid());
	shmk_interrupt(s);
	return NULL;
}

TEST_F(wait, an_interrupt_from_another_thread_ends_all_waits_until_resumed)
{
	pthread_t thread;
	uint64_t value;

	for (int i = 0; i < 3; i++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, interrupt_soon, self->s));
		EXPECT_EQ(-EINTR, get(self->q, &value, watchdog()));
		pthread_join(thread, NULL);
		EXPECT_EQ(-EINTR, get(self->q, &value, watchdog()));
		EXPECT_EQ(-EINTR, shmk_wait_peers(self->s, 2, watchdog()));
		/* What does not block is not affected. */
		EXPECT_EQ(-EAGAIN, get(self->q, &value, SHMK_TRY));
		EXPECT_EQ(0, put(self->q, 7, watchdog()));
		EXPECT_EQ(0, get(self->q, &value, watchdog()));
		EXPECT_EQ(7, value);
		shmk_resume(self->s);
		EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, shmk_deadline_ms(2)));
	}
}

struct resumer {
	struct shmk *s;
	struct shmk_queue *q;
	atomic_int turn, resumed, tid;
	int ret;
};

static void *resume_in_turn(void *arg)
{
	struct resumer *r = arg;

	for (int i = 1; i <= 500; i++) {
		while (atomic_load(&r->turn) < i)
			cpu_relax();
		shmk_resume(r->s);
		atomic_store(&r->resumed, i);
	}
	return NULL;
}

static void *sleep_in_turn(void *arg)
{
	struct resumer *r = arg;
	uint64_t value;

	atomic_store(&r->tid, gettid());
	r->ret = get(r->q, &value, watchdog());
	return NULL;
}

/* If the flag won, the sleeper is awake; if the resume won, the next interrupt wakes it. */
TEST_F_TIMEOUT(wait, interrupt_and_resume_at_once_leave_no_sleeper_behind, 120)
{
	struct resumer r = { .s = self->s, .q = self->q };
	pthread_t sleeper, resumer;

	ASSERT_EQ(0, pthread_create(&resumer, NULL, resume_in_turn, &r));
	for (int i = 1; i <= 500; i++) {
		atomic_store(&r.tid, 0);
		ASSERT_EQ(0, pthread_create(&sleeper, NULL, sleep_in_turn, &r));
		while (!atomic_load(&r.tid))
			sched_yield();
		until_asleep(atomic_load(&r.tid));
		atomic_store(&r.turn, i);
		busy(i % 100);
		shmk_interrupt(self->s);
		while (atomic_load(&r.resumed) < i)
			sched_yield();
		if (!atomic_load(&self->s->interrupted))
			shmk_interrupt(self->s);
		pthread_join(sleeper, NULL);
		ASSERT_EQ(-EINTR, r.ret) TH_LOG("in turn %d", i);
		shmk_resume(self->s);
	}
	pthread_join(resumer, NULL);
}

static void *toggle(void *arg)
{
	for (int i = 0; i < 20000; i++) {
		shmk_interrupt(arg);
		shmk_resume(arg);
	}
	return NULL;
}

TEST_F(wait, many_interrupts_and_resumes_leave_a_clean_state)
{
	struct shmk_queue_stats before, after;
	pthread_t thread[2];
	uint64_t value;
	int ret;

	for (int i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, toggle, self->s));
	for (int i = 0; i < 1000; i++) {
		ret = get(self->q, &value, now_ns() + 20000);
		EXPECT_TRUE(ret == -EINTR || ret == -ETIMEDOUT);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	/* The fd agrees with the flag: sleeping takes few sleeps. */
	shmk_resume(self->s);
	shmk_queue_stats(self->q, &before);
	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, shmk_deadline_ms(20)));
	shmk_queue_stats(self->q, &after);
	EXPECT_GE(3, after.my_sleeps - before.my_sleeps);
	shmk_interrupt(self->s);
	EXPECT_EQ(-EINTR, get(self->q, &value, watchdog()));
}

/* -------------------------------------------------------------- threads -- */

struct thread_work {
	struct shmk_queue *in, *out;
	int n, ret;
};

static void *thread_recv(void *arg)
{
	struct thread_work *work = arg;
	uint64_t value;

	for (int i = 0; i < work->n && !work->ret; i++)
		work->ret = get(work->in, &value, watchdog());
	return NULL;
}

static void *thread_send(void *arg)
{
	struct thread_work *work = arg;

	for (int i = 0; i < work->n && !work->ret; i++)
		work->ret = put(work->out, i, watchdog());
	return NULL;
}

TEST_F_TIMEOUT(wait, threads_of_one_handle_sleep_side_by_side, 120)
{
	for (int round = 0; round < 5; round++) {
		struct thread_work work[8];
		pthread_t thread[8];

		for (int i = 0; i < 8; i++) {
			work[i] = (struct thread_work){ .in = self->q, .out = self->q,
							.n = cycles / 40 };
			ASSERT_EQ(0, pthread_create(&thread[i], NULL,
						    i % 2 ? thread_recv : thread_send, &work[i]));
		}
		for (int i = 0; i < 8; i++) {
			pthread_join(thread[i], NULL);
			EXPECT_EQ(0, work[i].ret);
		}
	}
}

static void *send_once_it_sleeps(void *arg)
{
	struct thread_work *work = arg;
	struct shmk_queue_stats stats;

	do {
		work->ret = shmk_queue_stats(work->out, &stats);
	} while (!work->ret && !stats.recv_waiting);
	if (!work->ret)
		work->ret = put(work->out, 1, watchdog());
	return NULL;
}

/* An io_uring lets go of the files that it had by and by. */
static int removed(struct shmk *s, const char *name)
{
	int64_t end = watchdog();
	int ret;

	while ((ret = shmk_queue_remove(s, name)) == -EBUSY && now_ns() < end)
		usleep(1000);
	return ret;
}

/*
 * A wait that ends well with nothing got is counted, to find out who waits for what can never
 * be taken; but not for another queue that came to lie at the same address.
 */
TEST_F(wait, many_queues_one_after_the_other)
{
	struct shmk *o = join();
	uint64_t value;

	for (int i = 0; i < 100; i++) {
		struct shmk_queue *in = queue(self->s, "life", 4);
		struct thread_work work = { .out = queue(o, "life", 4) };
		pthread_t thread;

		ASSERT_EQ(0, pthread_create(&thread, NULL, send_once_it_sleeps, &work));
		ASSERT_EQ(0, get(in, &value, watchdog())) TH_LOG("life %d", i);
		pthread_join(thread, NULL);
		ASSERT_EQ(0, work.ret);
		shmk_queue_close(work.out);
		shmk_queue_close(in);
		ASSERT_EQ(0, removed(self->s, "life"));
	}
	shmk_detach(o);
}

/* A ring whose thread has ended is not kept for ever, and no closed queue is kept open. */
TEST_F(wait, a_closed_queue_is_closed)
{
	struct thread_work work = { .in = self->q, .n = 1 };
	int fds = 0, ret;
	pthread_t thread;
	uint64_t value;

	for (int i = 0; i < 20; i++) {
		work.ret = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, thread_recv, &work));
		ASSERT_EQ(0, put(self->q, 1, watchdog()));
		pthread_join(thread, NULL);
		ASSERT_EQ(0, work.ret);
	}
	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, a_sleep()));
	for (int fd = 0; fd < 200; fd++)
		fds += fcntl(fd, F_GETFD) >= 0;
	EXPECT_GT(40, fds);
	shmk_queue_close(self->q);
	/* Rings of other threads let go a moment later. */
	do
		ret = shmk_queue_remove(self->s, "q");
	while (ret == -EBUSY);
	EXPECT_EQ(0, ret);
}

TEST_F(wait, a_queue_closed_by_its_only_sleeper_can_be_removed_at_once)
{
	uint64_t value;

	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, a_sleep()));
	shmk_queue_close(self->q);
	EXPECT_EQ(0, shmk_queue_remove(self->s, "q"));
}

TEST_F(wait, a_sleeper_without_a_ledger_entry_is_woken_too)
{
	struct shmk *s = join_spinning(-1, 8);
	struct shmk_queue *q = queue(s, "q", 4);
	uint32_t entry;
	pid_t pid;

	while (!entry_get(s, &entry))
		;
	EXPECT_EQ(-ETIMEDOUT, wait_side(q, SHMK_SIDE_RECV, now_ns() + 5 * NS_PER_MS));
	EXPECT_LE(0, shmk_queue_fd(q, SHMK_RECV));
	EXPECT_EQ(-EAGAIN, wait_side(q, SHMK_SIDE_RECV, SHMK_TRY));
	pid = child(send_one, NULL);
	EXPECT_EQ(0, wait_side(q, SHMK_SIDE_RECV, watchdog()));
	EXPECT_EQ(0, child_end(pid));
	shmk_detach(s);
}

static void attach_and_stay(void *arg)
{
	struct shmk *s = join();

	CHECK(!shmk_wait_peers(s, 3, watchdog()));
	CHECK(!shmk_wait_peers(s, 3, SHMK_TRY));
	atomic_fetch_add((atomic_int *)arg, 1);
	pause();
}

TEST_F(wait, waiting_for_peers_ends_when_they_are_there)
{
	atomic_int *seen = shared(sizeof(*seen));
	pid_t pid[2];

	ASSERT_NE(NULL, seen);
	EXPECT_EQ(0, shmk_wait_peers(self->s, 1, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, shmk_wait_peers(self->s, 2, SHMK_TRY));
	EXPECT_EQ(-ETIMEDOUT, shmk_wait_peers(self->s, 2, shmk_deadline_ms(3)));
	for (int i = 0; i < 2; i++)
		pid[i] = child(attach_and_stay, seen);
	EXPECT_EQ(0, shmk_wait_peers(self->s, 3, watchdog()));
	while (atomic_load(seen) < 2)
		sched_yield();
	for (int i = 0; i < 2; i++) {
		kill(pid[i], SIGKILL);
		EXPECT_EQ(128 + SIGKILL, child_end(pid[i]));
	}
}

static void open_later(void *arg)
{
	struct shmk *s = join();

	until_asleep(getppid());
	queue(s, arg, 4);
	pause();
}

TEST_F(wait, waiting_for_a_queue_ends_when_it_is_made)
{
	struct shmk_queue *q = NULL;
	pid_t pid;

	EXPECT_EQ(-ETIMEDOUT, shmk_queue_open(self->s, "later", NULL, shmk_deadline_ms(3), &q));
	pid = child(open_later, "later");
	EXPECT_EQ(0, shmk_queue_open(self->s, "later", NULL, watchdog(), &q));
	kill(pid, SIGKILL);
	child_end(pid);
}

static int errno_of_waits(struct shmk_queue *q)
{
	uint64_t value;

	errno = 12345;
	get(q, &value, now_ns() + 100000);
	get(q, &value, SHMK_TRY);
	shmk_queue_fd(q, SHMK_RECV);
	shmk_queue_events(q, SHMK_SEND);
	get(q, &value, SHMK_TRY);
	shmk_interrupt(q->shmk);
	get(q, &value, now_ns() + 100000);
	shmk_resume(q->shmk);
	shmk_resume(q->shmk);
	return errno;
}

TEST_F(wait, errno_stays_the_callers)
{
	EXPECT_EQ(12345, errno_of_waits(self->q));
}

/* ----------------------------------------------------- spinning and ways -- */

TEST_F(wait, spinning_in_vain_is_given_up_and_tried_again)
{
	struct shmk *s = join_spinning(0, 0);
	struct shmk_queue *q = queue(s, "q", 4);
	struct spin *spin = &q->spin[SHMK_SIDE_RECV];
	uint64_t value;
	pid_t pid;

	if (!s->spin_max_ns)
		SKIP(shmk_detach(s); return, "one CPU: never spins");
	EXPECT_TRUE(s->spin_adapts);
	/* 1 + 3 + 7 + ... waits without a spin, each after one with. */
	for (int i = 0; i < 400; i++)
		ASSERT_EQ(-ETIMEDOUT, get(q, &value, now_ns() + 1000));
	EXPECT_EQ(127, spin->penalty);
	EXPECT_LT(0, spin->skip);
	/* It finds out by itself when that has become wrong. */
	for (int i = 0; i < 200 && spin->penalty; i++) {
		spin->skip = 0;
		pid = child(send_one, NULL);
		s->spin_max_ns = 4000000000U;
		ASSERT_EQ(0, get(q, &value, watchdog()));
		EXPECT_EQ(0, child_end(pid));
	}
	EXPECT_EQ(0, spin->penalty);
	shmk_detach(s);
}

TEST_F(wait, spinning_can_be_forbidden_and_asked_for)
{
	struct shmk *never = join_spinning(-1, 0), *always = join_spinning(1000, 0);

	EXPECT_EQ(0, never->spin_max_ns);
	if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {
		EXPECT_EQ(1000000, always->spin_max_ns);
		EXPECT_FALSE(always->spin_adapts);
	}
	shmk_detach(never);
	shmk_detach(always);
}

TEST_F(wait, a_ring_that_is_forbidden_later_is_replaced_by_poll)
{
	uint64_t value;
	pid_t pid;

	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, a_sleep()));
	forbid_uring();
	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, a_sleep()));
	EXPECT_TRUE(self->s->no_uring);
	pid = child(send_one, NULL);
	EXPECT_EQ(0, get(self->q, &value, watchdog()));
	EXPECT_EQ(0, child_end(pid));
}

TEST_F(wait, the_way_to_sleep_can_be_chosen)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_NO_URING };
	uint64_t value;
	struct shmk *s;

	EXPECT_EQ(-ETIMEDOUT, get(self->q, &value, a_sleep()));
	EXPECT_EQ(strcmp(variant->way, "uring") || variant->forbidden, self->s->no_uring);
	EXPECT_EQ(!self->s->no_uring, self->s->waiters != NULL);
	ASSERT_EQ(0, shmk_attach(pool_uri, &opts, &s));
	EXPECT_TRUE(s->no_uring);
	shmk_detach(s);
	setenv("SHMK_NO_URING", "1", 1);
	s = join();
	EXPECT_TRUE(s->no_uring);
	shmk_detach(s);
}

/* ---------------------------------------------------------------- death -- */

/*
 * Where a child stands still until it is killed. The backend's table is the
 * place to do that: the library calls it exactly at these points.
 */
static atomic_int *parked;	/* shared */
static struct shmk_backend parking;
static void (*real_drain)(struct shmk *s, int fd);

static void park(void)
{
	atomic_store(parked, 1);
	for (;;)
		pause();
}

static int park_at_bell(struct shmk *s, const struct shmk_bell_one *bells, unsigned int nr)
{
	(void)s, (void)bells, (void)nr;
	park();
	return 0;
}

static void park_after_drain(struct shmk *s, int fd)
{
	real_drain(s, fd);
	park();
}

static void dies_before_bell(void *arg)
{
	struct shmk *s = join_spinning(-1, 0);

	parking = *s->backend;
	parking.bell = park_at_bell;
	s->backend = &parking;
	if (arg) {
		struct shmk_msg msg;

		CHECK(!shmk_alloc(s, 1000, 0, &msg));
		shmk_send(queue(s, "q", 4), &msg, SHMK_TRY);
	} else {
		put(queue(s, "q", 4), 1, SHMK_TRY);
	}
	_exit(2);
}

static void sleeps_long(void *arg)
{
	struct shmk *s = join_spinning(-1, 0);
	struct shmk_msg msg;

	(void)arg;
	CHECK(!shmk_recv(queue(s, "q", 4), &msg, watchdog()));
	shmk_free(&msg);
	shmk_detach(s);
}

static int killed_before_bell(bool block)
{
	pid_t sleeper, victim;

	parked = shared(sizeof(*parked));
	sleeper = child(sleeps_long, NULL);
	until_asleep(sleeper);
	victim = child(dies_before_bell, block ? "" : NULL);
	while (!atomic_load(parked))
		sched_yield();
	kill(victim, SIGKILL);
	child_end(victim);
	return child_end(sleeper);
}

TEST_F(wait, a_sender_killed_before_its_bell_leaves_no_receiver_asleep)
{
	EXPECT_EQ(0, killed_before_bell(false));
	EXPECT_EQ(0, killed_before_bell(true));
}

static void dies_after_drain(void *arg)
{
	struct shmk *s = join_spinning(-1, 0);
	struct shmk_queue *q = queue(s, "q", 4);

	(void)arg;
	parking = *s->backend;
	real_drain = parking.side_drain;
	parking.side_drain = park_after_drain;
	s->backend = &parking;
	wait_side(q, SHMK_SIDE_RECV, watchdog());
	_exit(2);
}

/*
 * The byte is there and the sleeper stopped, so that the other one drains
 * before it has looked; a message comes that nobody rings for, since the word
 * is 0 by then.
 */
TEST_F(wait, a_receiver_killed_after_draining_leaves_no_other_asleep)
{
	pid_t sleeper = child(sleeps_long, NULL), victim;
	uint64_t value;

	until_asleep(sleeper);
	kill(sleeper, SIGSTOP);
	waitpid(sleeper, NULL, WUNTRACED);
	ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	ASSERT_EQ(0, get(self->q, &value, SHMK_TRY));
	parked = shared(sizeof(*parked));
	victim = child(dies_after_drain, NULL);
	while (!atomic_load(parked))
		sched_yield();
	ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	kill(victim, SIGKILL);
	child_end(victim);
	kill(sleeper, SIGCONT);
	EXPECT_EQ(0, child_end(sleeper));
}

/* --------------------------------------------------- system calls counted -- */

#define COUNTED 100

static void counted_receiver(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "q", 4);
	uint64_t value;

	(void)arg;
	/* The first sleep makes fds and ring. */
	while (!q->nr_sleeps)
		get(q, &value, now_ns() + 100000);
	traced();
	mark(MARK_ON);
	for (int i = 0; i < COUNTED; i++)
		CHECK(!get(q, &value, watchdog()));
	mark(MARK_OFF);
	shmk_detach(s);
}

static void send_value(void *arg)
{
	CHECK(!put(arg, 1, SHMK_TRY));
}

TEST_F(wait, a_sleep_is_one_system_call)
{
	pid_t pid = child(counted_receiver, NULL);
	struct counts c;

	ASSERT_EQ(0, trace(pid, &c, NULL, send_value, self->q));
	log_counts(_metadata, "receiver", &c, COUNTED);
	EXPECT_EQ(COUNTED, c.nr[__NR_ppoll] + c.nr[__NR_io_uring_enter]);
	/* The local backend reads the pipe empty before. */
	EXPECT_EQ(module_backend() ? 0 : COUNTED, c.nr[__NR_read]);
	EXPECT_EQ(COUNTED + c.nr[__NR_read], c.total);
}

static void counted_sender(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "q", 4);

	/* The first bell opens what it rings with. */
	until_asleep(*(pid_t *)arg);
	CHECK(!put(q, 1, SHMK_TRY));
	traced();
	for (int i = 1; i < COUNTED; i++) {
		mark(MARK_ON);
		CHECK(!put(q, 1, SHMK_TRY));
		mark(MARK_OFF);
	}
	shmk_detach(s);
}

static void receiver_asleep(void *arg)
{
	until_asleep(*(pid_t *)arg);
}

static void receive_counted(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "q", 4);
	uint64_t value;

	(void)arg;
	for (int i = 0; i < COUNTED; i++)
		CHECK(!get(q, &value, watchdog()));
	shmk_detach(s);
}

TEST_F(wait, waking_a_sleeper_is_one_system_call)
{
	pid_t receiver = child(receive_counted, NULL), sender;
	struct counts c;

	sender = child(counted_sender, &receiver);
	ASSERT_EQ(0, trace(sender, &c, receiver_asleep, NULL, &receiver));
	log_counts(_metadata, "sender", &c, COUNTED - 1);
	EXPECT_EQ(COUNTED - 1, c.total);
	EXPECT_EQ(0, child_end(receiver));
}

/* The longest spin there is, so that neither sleeps because the other was kept off its CPU. */
#define AWAKE_SPIN_US	4000000
#define AWAKE		2000

static void awake_rounds(struct shmk_queue *in, struct shmk_queue *out, int me, int rounds)
{
	uint64_t value;

	for (int i = 0; i < rounds; i++) {
		if (!me)
			CHECK(!put(out, i, watchdog()));
		CHECK(!get(in, &value, watchdog()));
		if (me)
			CHECK(!put(out, i, watchdog()));
	}
}

/* The first rounds wait for the other to be there. */
static void awake_side(int me)
{
	struct shmk *s = join_spinning(AWAKE_SPIN_US, 0);
	struct shmk_queue *in = queue(s, me ? "ping" : "pong", 4);
	struct shmk_queue *out = queue(s, me ? "pong" : "ping", 4);

	if (!me)
		traced();
	awake_rounds(in, out, me, 10);
	mark(MARK_ON);
	awake_rounds(in, out, me, AWAKE);
	mark(MARK_OFF);
	shmk_detach(s);
}

static void awake_partner(void *arg)
{
	(void)arg;
	awake_side(1);
}

static void awake_counted(void *arg)
{
	(void)arg;
	awake_side(0);
}

TEST_F(wait, two_that_are_awake_need_no_system_call)
{
	pid_t partner, pid;
	struct counts c;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		SKIP(return, "one CPU: the other is never awake");
	partner = child(awake_partner, NULL);
	pid = child(awake_counted, NULL);
	ASSERT_EQ(0, trace(pid, &c, NULL, NULL, NULL));
	EXPECT_EQ(0, child_end(partner));
	log_counts(_metadata, "both awake", &c, 2 * AWAKE);
	EXPECT_EQ(0, c.total);
}

/* ------------------------------------------------ at every instruction -- */

static void waits_marked(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "q", 4);
	uint64_t value;

	(void)arg;
	/* The first sleep makes fds and ring. */
	while (!q->nr_sleeps)
		get(q, &value, now_ns() + 100000);
	traced();
	for (;;) {
		mark(MARK_ON);
		CHECK(!wait_side(q, SHMK_SIDE_RECV, SHMK_FOREVER));
		mark(MARK_OFF);
		while (!get(q, &value, SHMK_TRY))
			;
	}
}

static void sweep_wait(struct __test_metadata *_metadata, FIXTURE_DATA(wait) *self,
		       meanwhile_t meanwhile)
{
	struct shmk *s = join();
	struct shmk_queue *others = queue(s, "q", 4);
	pid_t pid;
	int k;

	ASSERT_LE(0, shmk_queue_fd(others, SHMK_RECV));
	/* On one CPU a step costs two switches, else two wake-ups. */
	pin_to(0);
	pid = child(waits_marked, NULL);
	k = steps_into_sleep(pid, self->q, others, meanwhile);
	TH_LOG("%d instructions until it slept (negative: lost after so many)", k);
	EXPECT_LT(100, k);
	shmk_detach(s);
	kill(pid, SIGKILL);
	child_end(pid);
}

TEST_F_TIMEOUT(wait, a_message_at_any_instruction_of_going_to_sleep_ends_the_wait, 120)
{
	sweep_wait(_metadata, self, sent);
}

TEST_F_TIMEOUT(wait, a_message_that_another_takes_does_not_spoil_the_next, 120)
{
	sweep_wait(_metadata, self, sent_and_taken);
}

static bool sent_and_armed(struct shmk_queue *mine, struct shmk_queue *others)
{
	CHECK(!put(mine, 1, SHMK_TRY));
	CHECK(!wait_arm(others, SHMK_SIDE_RECV));
	return true;
}

TEST_F_TIMEOUT(wait, another_who_drains_and_does_not_take_gives_the_wakeup_back, 120)
{
	sweep_wait(_metadata, self, sent_and_armed);
}

static bool sent_taken_and_armed(struct shmk_queue *mine, struct shmk_queue *others)
{
	sent_and_taken(mine, others);
	CHECK(wait_arm(others, SHMK_SIDE_RECV) == -EAGAIN);
	return false;
}

TEST_F_TIMEOUT(wait, another_who_drains_for_itself_leaves_the_word_set, 120)
{
	sweep_wait(_metadata, self, sent_taken_and_armed);
}

/* The victim finds a message, so it goes the way of who drained and gives back. */
static void drains_marked(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "q", 4);

	CHECK(shmk_queue_fd(q, SHMK_RECV) >= 0);
	traced();
	mark(MARK_ON);
	wait_arm(q, SHMK_SIDE_RECV);
	atomic_store((atomic_int *)arg, 1);
	pause();
}

static void counts_messages(void *arg)
{
	struct shmk_queue *q = queue(join(), "q", 4);
	uint64_t value;

	for (;;) {
		CHECK(!get(q, &value, SHMK_FOREVER));
		atomic_fetch_add((atomic_int *)arg, 1);
	}
}

/* True once @at has reached @n. */
static bool reaches(atomic_int *at, int n)
{
	int64_t until = now_ns() + 5000 * NS_PER_MS;

	while (atomic_load(at) < n && now_ns() < until)
		sched_yield();
	return atomic_load(at) == n;
}

/*
 * A sleeper is stopped before it can look, so that the message and the bell's
 * byte are there for the victim. It goes on when the victim is dead and settled.
 */
TEST_F_TIMEOUT(wait, who_is_killed_at_any_instruction_of_arming_leaves_no_other_asleep, 120)
{
	atomic_int *count = shared(sizeof(*count)), *through = shared(sizeof(*through));
	int k, status, messages = 0;
	pid_t victim, sleeper;

	ASSERT_NE(NULL, count);
	ASSERT_NE(NULL, through);
	pin_to(0);
	sleeper = child(counts_messages, count);
	for (k = first_step(); !atomic_load(through); k += stride()) {
		until_asleep(sleeper);
		kill(sleeper, SIGSTOP);
		waitpid(sleeper, NULL, WUNTRACED);
		ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
		victim = child(drains_marked, through);
		trace_begin(victim);
		ASSERT_TRUE(runs_to(victim, MARK_ON));
		for (int i = 0; i < k && !atomic_load(through); i++) {
			ptrace(PTRACE_SINGLESTEP, victim, 0, 0);
			waitpid(victim, &status, 0);
		}
		kill(victim, SIGKILL);
		child_end(victim);
		self->s->backend->reap(self->s);
		kill(sleeper, SIGCONT);
		ASSERT_TRUE(reaches(count, ++messages))
			TH_LOG("lost when killed after %d instructions", k);
	}
	TH_LOG("%d instructions", k);
	EXPECT_LT(100, k);
	kill(sleeper, SIGKILL);
	child_end(sleeper);
}

/* ------------------------------------------------ the caller's event loop -- */

/* A sender in another process answers each "go" with one message. */
FIXTURE(loop) {
	struct shmk *s;
	struct shmk_queue *q, *go;
	pid_t sender;
	int recv_fd, send_fd;
};

static void send_at_will(void *arg)
{
	struct shmk *s = join();
	struct shmk_queue *go = queue(s, "go", 4), *q = queue(s, "q", 4);
	uint64_t value;

	(void)arg;
	for (;;) {
		CHECK(!get(go, &value, SHMK_FOREVER));
		CHECK(!put(q, value, watchdog()));
	}
}

FIXTURE_SETUP(loop)
{
	pool_name();
	self->s = join();
	self->q = queue(self->s, "q", 4);
	self->go = queue(self->s, "go", 4);
	self->recv_fd = shmk_queue_fd(self->q, SHMK_RECV);
	ASSERT_LE(0, self->recv_fd);
	self->send_fd = shmk_queue_fd(self->q, SHMK_SEND);
	ASSERT_LE(0, self->send_fd);
	EXPECT_EQ(self->recv_fd, shmk_queue_fd(self->q, SHMK_RECV));
	EXPECT_EQ(-EINVAL, shmk_queue_fd(self->q, 2));
	EXPECT_EQ(-EINVAL, shmk_queue_fd(self->q, -1));
	EXPECT_EQ(0, shmk_queue_events(self->q, 2));
	EXPECT_EQ(POLLIN, shmk_queue_events(self->q, SHMK_RECV));
	EXPECT_EQ(module_backend() ? POLLOUT : POLLIN, shmk_queue_events(self->q, SHMK_SEND));
	self->sender = child(send_at_will, NULL);
}

FIXTURE_TEARDOWN(loop)
{
	kill(self->sender, SIGKILL);
	EXPECT_EQ(128 + SIGKILL, child_end(self->sender));
	shmk_detach(self->s);
}

static int poll_side(struct shmk_queue *q, int side, int ms)
{
	struct pollfd p = { .fd = shmk_queue_fd(q, side), .events = shmk_queue_events(q, side) };
	int n = poll(&p, 1, ms);

	return n < 0 ? -errno : n && p.revents & p.events ? 1 : n ? -EIO : 0;
}

TEST_F(loop, a_receiving_fd_is_ready_while_there_is_a_message)
{
	uint64_t value;

	EXPECT_EQ(0, poll_side(self->q, SHMK_RECV, 0));
	ASSERT_EQ(0, put(self->go, 5, SHMK_TRY));
	EXPECT_EQ(1, poll_side(self->q, SHMK_RECV, WATCHDOG_MS));
	EXPECT_EQ(1, poll_side(self->q, SHMK_RECV, 0));
	ASSERT_EQ(0, get(self->q, &value, SHMK_TRY));
	EXPECT_EQ(5, value);
	EXPECT_EQ(-EAGAIN, get(self->q, &value, SHMK_TRY));
	EXPECT_EQ(0, poll_side(self->q, SHMK_RECV, 0));
}

TEST_F(loop, a_sending_fd_is_ready_while_there_is_room)
{
	uint64_t value;

	EXPECT_EQ(1, poll_side(self->q, SHMK_SEND, 0));
	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, put(self->q, i, SHMK_TRY));
	ASSERT_EQ(-EAGAIN, put(self->q, 9, SHMK_TRY));
	EXPECT_EQ(0, poll_side(self->q, SHMK_SEND, 0));
	ASSERT_EQ(0, get(self->q, &value, SHMK_TRY));
	EXPECT_EQ(1, poll_side(self->q, SHMK_SEND, 0));
	ASSERT_EQ(0, put(self->q, 9, SHMK_TRY));
	EXPECT_EQ(-EAGAIN, put(self->q, 9, SHMK_TRY));
	EXPECT_EQ(0, poll_side(self->q, SHMK_SEND, 0));
}

TEST_F(loop, an_fd_made_when_messages_are_there_is_ready_from_the_start)
{
	struct shmk *s = join();
	struct shmk_queue *q = queue(s, "q", 4);

	ASSERT_EQ(0, put(self->q, 1, SHMK_TRY));
	EXPECT_EQ(1, poll_side(q, SHMK_RECV, 0));
	shmk_detach(s);
}

TEST_F(loop, select_works)
{
	struct timeval tv = { .tv_sec = WATCHDOG_MS / 1000 };
	uint64_t value;
	fd_set set;

	for (int i = 0; i < 100; i++) {
		ASSERT_EQ(0, put(self->go, i, SHMK_TRY));
		FD_ZERO(&set);
		FD_SET(self->recv_fd, &set);
		while (get(self->q, &value, SHMK_TRY) == -EAGAIN)
			ASSERT_EQ(1, select(self->recv_fd + 1, &set, NULL, NULL, &tv));
		EXPECT_EQ((uint64_t)i, value);
	}
}

/* Queue and socket in one epoll; the echo comes by socket, then by queue. */
static void epoll_both(struct __test_metadata *_metadata, FIXTURE_DATA(loop) *self, uint32_t how)
{
	struct epoll_event ev = { .events = EPOLLIN | how }, got[4];
	int epfd = epoll_create1(EPOLL_CLOEXEC), sock[2], n, from_socket = 0, from_queue = 0;
	uint64_t value;
	char c;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sock));
	ev.data.fd = self->recv_fd;
	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, self->recv_fd, &ev));
	ev.data.fd = sock[0];
	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, sock[0], &ev));
	ASSERT_EQ(0, put(self->go, 0, SHMK_TRY));
	while (from_queue < cycles / 10) {
		n = epoll_wait(epfd, got, 4, WATCHDOG_MS);
		ASSERT_LT(0, n) TH_LOG("%d and %d", from_queue, from_socket);
		for (int i = 0; i < n; i++) {
			if (got[i].data.fd == sock[0]) {
				while (read(sock[0], &c, 1) == 1) {
					from_socket++;
					ASSERT_EQ(0, put(self->go, from_queue, SHMK_TRY));
				}
				continue;
			}
			while (!get(self->q, &value, SHMK_TRY)) {
				EXPECT_EQ((uint64_t)from_queue, value);
				from_queue++;
				ASSERT_EQ(1, write(sock[1], "", 1));
			}
		}
	}
	EXPECT_LE(from_queue - 1, from_socket);
	close(sock[0]);
	close(sock[1]);
	close(epfd);
}

TEST_F(loop, epoll_works_with_a_socket_beside)
{
	epoll_both(_metadata, self, 0);
}

TEST_F(loop, edge_triggered_epoll_works_with_a_socket_beside)
{
	epoll_both(_metadata, self, EPOLLET);
}

static void ring_wait(struct __test_metadata *_metadata, struct io_uring *ring,
		      struct shmk_queue *q)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	ASSERT_EQ(0, shmk_uring_prep_wait(q, SHMK_RECV, sqe));
	io_uring_sqe_set_data64(sqe, 1);
}

static void ring_read(struct io_uring *ring, int fd, char *c)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	io_uring_prep_recv(sqe, fd, c, 1, 0);
	io_uring_sqe_set_data64(sqe, 2);
}

TEST_F(loop, a_ring_of_the_callers_waits_for_queue_and_socket)
{
	int sock[2], from_queue = 0, from_socket = 0, again = 0;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	uint64_t value, tag;
	char c;

	if (!uring_works())
		SKIP(return, "no io_uring here");
	ASSERT_EQ(0, io_uring_queue_init(8, &ring, 0));
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, sock));
	ring_wait(_metadata, &ring, self->q);
	ring_read(&ring, sock[0], &c);
	ASSERT_EQ(0, put(self->go, 0, SHMK_TRY));
	while (from_queue < cycles / 10) {
		struct __kernel_timespec ts = { .tv_sec = WATCHDOG_MS / 1000 };
		int ret = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &ts, NULL);

		ASSERT_LE(0, ret) TH_LOG("%d and %d: %s", from_queue, from_socket, strerror(-ret));
		if (io_uring_peek_cqe(&ring, &cqe))
			continue;
		tag = cqe->user_data;
		if (tag == 1) {
			again = shmk_uring_handle(self->q, cqe);
			ASSERT_LE(0, again);
		} else {
			ASSERT_EQ(1, cqe->res);
		}
		io_uring_cqe_seen(&ring, cqe);
		if (tag == 2) {
			from_socket++;
			ring_read(&ring, sock[0], &c);
			ASSERT_EQ(0, put(self->go, from_queue, SHMK_TRY));
			continue;
		}
		if (again)
			ring_wait(_metadata, &ring, self->q);
		while (!get(self->q, &value, SHMK_TRY)) {
			EXPECT_EQ((uint64_t)from_queue, value);
			from_queue++;
			ASSERT_EQ(1, write(sock[1], "", 1));
		}
	}
	io_uring_queue_exit(&ring);
}

TEST_HARNESS_MAIN
