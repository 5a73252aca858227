// SPDX-License-Identifier: GPL-2.0-only
/*
 * point_test.c - death, failure and delay at each named point of the module.
 *
 * Needs the module with hooks (kmod/point.h; MODULE=hooks in tests.list), which
 * says which points there are. A victim makes a tour of all commands, holds
 * messages and ends. At each point, the first to the last time it passes:
 *
 *   killed    SIGKILL there, taken when it leaves the kernel
 *   failed    the call returns an error and leaves no trace: the same call works then
 *   paused    it stops there while others attach, send, remove the victim's queue,
 *             destroy its pool, try to unload the module; then it goes on, or is killed
 *
 * and then what kill_sweep wants must be true, and no pool may be left. A point
 * that the tour does not reach is a failure. SHMK_POINT=NAME: only that one;
 * SHMK_POINT_MOST=n: n of the times it is passed, not 5.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "raw.h"
#define POOL_BYTES	(1UL << 20)	/* 16 spans */
#include "kselftest.h"
#include "survivor.h"
#include "../lib/topic.h"

#define CONTROL		"/sys/module/shmk/parameters/point"
#define HOOKS		"/shmk/hooks/shmk.ko"
#define MAX_POINTS	96

struct point {
	char		name[32];
	unsigned int	passes;		/* of an undisturbed tour */
	int		fails;
};

static struct point points[MAX_POINTS];
static unsigned int nr_points;
static unsigned int most = 5;	/* of the times a point is passed; all, if there are fewer */

/* What the victim tells its parent. */
static struct shared {
	unsigned int	failures;	/* calls that returned -EDOM */
	unsigned int	others;		/* somebody else may have removed what is mine */
} *shared;

static char tour_pool[SHMK_NAME_LEN];

/* ----------------------------------------------------------- the points -- */

static void control(const char *fmt, ...)
{
	int fd = open(CONTROL, O_WRONLY | O_CLOEXEC);
	char text[64];
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (fd < 0 || write(fd, text, len) != len)
		die(text, -errno);
	close(fd);
}

/* Fills in passes; true if somebody is paused. */
static bool points_read(struct point *point, unsigned int *nr)
{
	FILE *f = fopen(CONTROL, "re");
	bool paused = false;
	char line[64];

	*nr = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "paused ", 7))
			paused = true;
		else if (*nr < MAX_POINTS && sscanf(line, "%31s %u %d", point[*nr].name,
						    &point[*nr].passes, &point[*nr].fails) == 3)
			(*nr)++;
	}
	if (f)
		fclose(f);
	return paused;
}

static unsigned int passes_now(const struct point *p)
{
	struct point now[MAX_POINTS];
	unsigned int nr;

	points_read(now, &nr);
	return now[p - points].passes;
}

static bool is(const struct point *p, const char *name)
{
	return !strcmp(p->name, name);
}

/* ------------------------------------------------------------- the tour -- */

/* Once more if it was made to fail. */
#define TRY(call) ({						\
	int ret_ = (call);					\
								\
	if (ret_ == -EDOM) {					\
		shared->failures++;				\
		ret_ = (call);					\
	}							\
	ret_;							\
})

#define MUST(call) ({						\
	int ret__ = TRY(call);					\
								\
	if (ret__ < 0)						\
		die(#call, ret__);				\
	ret__;							\
})

/* Of what others may have taken away or have just in use. */
static void may(const char *what, int ret)
{
	if (ret && !(shared->others && (ret == -ENOENT || ret == -EBUSY)))
		die(what, ret);
}

static int raw_events(int pool)
{
	return raw(pool, SHMK_IOC_EVENTS, NULL);
}

static int map_one(int att, uint64_t offset, int prot)
{
	volatile unsigned char *at = raw_map(att, prot, offset, 4096);

	if (at == MAP_FAILED)
		return -errno;
	(void)*at;
	return munmap((void *)at, 4096);
}

/* The module's commands, on a pool of its own that outlives it. */
static void tour_raw(void)
{
	struct shmk_pool_create args = raw_pool_args(tour_pool, POOL_BYTES, 12);
	struct shmk_peer_info peer = { .size = sizeof(peer) };
	int dev = raw_device(), pool, att, events, side;
	struct shmk_event event;
	struct shmk_pool_info info;
	struct pollfd p = { .events = POLLIN };
	uint32_t id, gen;

	args.flags = SHMK_POOL_F_PERSIST;
	args.nr_peers = args.nr_queues = 8;
	pool = MUST(raw(dev, SHMK_IOC_POOL_CREATE, &args));
	events = MUST(raw_events(pool));
	att = MUST(raw_attach(pool, 0, 16, NULL));
	MUST(raw_pool_info(pool, &info));
	MUST(raw(att, SHMK_IOC_PEER_INFO, &peer));
	must("event", read(events, &event, sizeof(event)) == sizeof(event) ? 0 : -errno);
	MUST(map_one(att, 0, PROT_READ));
	MUST(raw_queue_create(att, "a", 4, &id, &gen));
	side = MUST(raw_queue_fd(att, id, SHMK_SIDE_RECV));
	p.fd = side;
	must("poll", poll(&p, 1, 1));
	MUST(raw_bell(att, id, SHMK_SIDE_RECV));
	close(side);
	MUST(raw_queue_open(att, "a", &id, &gen));
	MUST(raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	MUST(raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	may("remove", TRY(raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, id, gen)));
	MUST(raw_detach(att));
	close(att);
	att = MUST(raw_attach(pool, 0, 16, NULL));
	close(att);
	may("reset", TRY(raw_pool_reset(dev, tour_pool, 0)));
	may("destroy", TRY(raw_pool_destroy(dev, tour_pool)));
	close(events);
	close(pool);
	close(dev);
}

static struct shmk *victim;

/* One that is made and goes, and then one that stays open, with a reader. */
static void tour_topic(void)
{
	struct shmk_topic_opts opts = {
		.flags = SHMK_TOPIC_CREATE, .nr_readers = 1, .msg_bytes = 16,
	};
	struct pollfd p = { .events = POLLIN };
	struct shmk_topic *t;
	struct shmk_sub *sub;
	char buf[16];

	MUST(shmk_topic_open(victim, "topic", &opts, SHMK_TRY, &t));
	MUST(shmk_topic_writer(t, SHMK_TRY));
	MUST(shmk_topic_subscribe(t, NULL, &sub));
	p.fd = MUST(shmk_sub_fd(sub));
	must("poll", poll(&p, 1, 0));
	MUST(shmk_topic_publish_copy(t, "one", 4, SHMK_TRY));
	must("read", (int)shmk_topic_read(sub, buf, sizeof(buf), NULL, SHMK_TRY));
	shmk_topic_unsubscribe(sub);
	p.fd = MUST(victim->backend->side_fd(victim, t->q.id, SHMK_SIDE_SEND, ROW_NONE, &p.events));
	must("poll", poll(&p, 1, 0));
	close(p.fd);
	shmk_topic_close(t);
	may("remove", TRY(shmk_queue_remove(victim, "topic")));
	MUST(shmk_topic_open(victim, "topic", &opts, SHMK_TRY, &t));
	MUST(shmk_topic_subscribe(t, NULL, &sub));
}

static void tour_drain(void)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_queue *q;
	int ret;

	MUST(shmk_queue_open(victim, "drained", &opts, SHMK_TRY, &q));
	ret = TRY(shmk_queue_drain(victim, "drained", SHMK_TRY));
	if (ret != -EAGAIN)
		die("drain", ret);
	shmk_queue_close(q);
}

static void tour(void)
{
	struct shmk_attach_opts opts = { .spin_us = -1 };
	struct shmk_queue_opts extra = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_queue *q, *sp, *x;
	struct shmk_msg msg[3];
	struct shmk *second;
	int i;

	tour_raw();
	MUST(shmk_attach(uri, &opts, &victim));
	tour_drain();
	tour_topic();
	MUST(shmk_queue_open(victim, "q", NULL, SHMK_TRY, &q));
	MUST(shmk_queue_open(victim, "sp", NULL, SHMK_TRY, &sp));
	MUST(shmk_queue_open(victim, "extra", &extra, SHMK_TRY, &x));
	send_id(victim, x, 200);
	shmk_queue_close(x);
	may("remove", TRY(shmk_queue_remove(victim, "extra")));
	MUST(shmk_queue_open(victim, "extra", &extra, SHMK_TRY, &x));
	MUST(shmk_attach(uri, &opts, &second));
	shmk_detach(second);
	for (i = 0; i < 3; i++)
		MUST(shmk_recv(q, &msg[i], SHMK_TRY));
	MUST(shmk_send(sp, &msg[2], SHMK_TRY));
	send_id(victim, sp, 100);
	send_id(victim, q, 101);
	/* Ends with two messages in its hands, three queues and a topic open. */
}

static pid_t tour_start(int *go)
{
	int fds[2];
	pid_t pid;
	char c;

	must("pipe", pipe(fds) ? -errno : 0);
	memset(shared, 0, sizeof(*shared));
	pid = fork();
	must("fork", pid < 0 ? -errno : 0);
	if (!pid) {
		close(fds[1]);
		if (read(fds[0], &c, 1) != 1)
			_exit(97);
		tour();
		_exit(0);
	}
	close(fds[0]);
	*go = fds[1];
	return pid;
}

/* ------------------------------------------------------------ the others -- */

static bool one_of(const char *what, int ret, int a, int b, int c)
{
	if (ret >= 0 || ret == a || ret == b || ret == c)
		return true;
	return sweep_fail("others: %s: %s", what, strerror(-ret));
}

static bool others_raw(void)
{
	int dev = raw_device(), pool, att;
	bool ok = true;

	pool = raw_pool_open(dev, tour_pool, 0);
	ok = one_of("open", pool, -ENOENT, 0, 0);
	if (ok && pool >= 0) {
		att = raw_attach(pool, 0, 0, NULL);
		ok = one_of("attach", att, 0, 0, 0) && one_of("detach", raw_detach(att), 0, 0, 0);
		close(att);
		close(pool);
	}
	ok = ok && one_of("destroy", raw_pool_destroy(dev, tour_pool), -ENOENT, -EBUSY, 0);
	if (ok && raw_pool_destroy(dev, strchr(uri, ':') + 1) != -EBUSY)
		ok = sweep_fail("others: a pool with peers can be destroyed");
	close(dev);
	return ok;
}

/* Attach, talk, take away what the victim may not hold just now. */
static bool others_act(void)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_queue *q;
	struct shmk_msg msg;
	struct shmk *s;
	bool ok;

	if (!others_raw())
		return false;
	if (!syscall(SYS_delete_module, "shmk", O_NONBLOCK) || errno != EWOULDBLOCK)
		return sweep_fail("others: unload: %s", strerror(errno));
	if (shmk_attach(uri, NULL, &s))
		return sweep_fail("others: cannot attach");
	ok = one_of("remove", shmk_queue_remove(s, "extra"), -ENOENT, -EBUSY, 0) &&
	     one_of("queue", shmk_queue_open(s, "others", &opts, SHMK_TRY, &q), 0, 0, 0);
	if (ok) {
		send_id(s, q, 7);
		send_id(s, q, 8);
		ok = one_of("recv", shmk_recv(q, &msg, SHMK_TRY), 0, 0, 0);
		shmk_free(&msg);
		shmk_queue_close(q);
		/* With a message in it. */
		ok = ok && one_of("remove", shmk_queue_remove(s, "others"), 0, 0, 0);
	}
	shmk_detach(s);
	return ok;
}

/* --------------------------------------------------------------- rounds -- */

static bool wait_paused(pid_t pid)
{
	int64_t end = shmk_deadline_ms(15000);
	struct point now[MAX_POINTS];
	unsigned int nr;
	siginfo_t info;

	do {
		if (points_read(now, &nr))
			return true;
		info.si_pid = 0;
		if (!waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid)
			return points_read(now, &nr) ||
			       sweep_fail("the victim came to its end, not to the point");
		sched_yield();
	} while (now_ns() < end);
	return sweep_fail("the victim did not come to the point");
}

static bool nothing_left(void)
{
	int64_t end = shmk_deadline_ms(15000);
	struct shmk_info info = { .size = sizeof(info) };
	int dev = raw_device();

	do {
		/* Its maker may not have lived to destroy it. */
		raw_pool_destroy(dev, tour_pool);
		must("info", raw(dev, SHMK_IOC_INFO, &info));
	} while ((info.nr_pools || info.total_bytes || info.user_peers || info.user_queues) &&
		 now_ns() < end);
	close(dev);
	return (!info.nr_pools && !info.user_peers && !info.user_queues) ||
	       sweep_fail("%u pools are left, %u peers, %u queues", info.nr_pools,
			  info.user_peers, info.user_queues);
}

/* Wherever its maker was killed, a queue is there or not, and can be removed; or drained. */
static bool extra_removed(struct round *r)
{
	return pool_alone(r->s) &&
	       one_of("remove", shmk_queue_remove(r->s, "extra"), -ENOENT, 0, 0) &&
	       one_of("remove topic", shmk_queue_remove(r->s, "topic"), -ENOENT, 0, 0) &&
	       one_of("drain", shmk_queue_drain(r->s, "drained", SHMK_TRY), -ENOENT, 0, 0);
}

static bool ended_well(const char *what, int status)
{
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && strcmp(what, "fail"))
		return true;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return true;
	return sweep_fail("the victim's status is %#x", status);
}

/* The victim's N-th pass is @what happens at; @then: a paused one is killed. */
static bool round_run(const struct point *p, const char *what, unsigned int n, bool then)
{
	struct round r = { 0 };
	bool ok = true, pause;
	int go, status, i;
	pid_t pid;

	round_open(&r);
	for (i = 0; i < 5; i++)
		send_id(r.s, r.q, i);
	roles_drop(&r);
	pid = tour_start(&go);
	control("watch %d", pid);
	if (is(p, "WORK_BEGUN"))
		control("SETTLE_BEGUN fail 1");
	if (*what)
		control("%s %s %u", p->name, what, n);
	pause = !strcmp(what, "pause");
	/*
	 * Who has detached may still be being settled when its pool is to go. And
	 * shmk_queue_close() has no way to say that it was made to fail.
	 */
	shared->others = pause || !strncmp(p->name, "SETTLE_", 7) || is(p, "WORK_BEGUN") ||
			 (is(p, "CALL_READ") && !strcmp(what, "fail"));
	must("go", write(go, "", 1) == 1 ? 0 : -errno);
	close(go);
	if (pause) {
		ok = wait_paused(pid) && others_act();
		if (then)
			kill(pid, SIGKILL);
		control("go");
	}
	must("wait", waitpid(pid, &status, 0) == pid ? 0 : -errno);
	ok = ok && ended_well(what, status);
	ok = ok && extra_removed(&r) && survivor(TAKES, &r, 5);
	shmk_detach(r.s);
	ok = nothing_left() && ok;
	if (ok && *what && passes_now(p) < n)
		ok = sweep_fail("passed %u times only", passes_now(p));
	if (ok && !strcmp(what, "fail") && !shared->failures && !shared->others)
		ok = sweep_fail("the call did not fail");
	control("watch 0");
	return ok;
}

/* At most @max of 1 .. @n, evenly. */
static bool some_of(const struct point *p, const char *what, unsigned int max, bool then,
		    unsigned int *rounds)
{
	unsigned int i, n = p->passes, count = n < max ? n : max;

	for (i = 0; i < count; i++, (*rounds)++) {
		unsigned int at = count == 1 ? 1 : 1 + i * (n - 1) / (count - 1);

		if (!round_run(p, what, at, then)) {
			ksft_test_result_fail("%s: %s%s, time %u of %u: %s\n", p->name, what,
					      then ? " and killed" : "", at, n, sweep_why);
			return false;
		}
	}
	return true;
}

static void point_test(const struct point *p)
{
	bool calls = !strncmp(p->name, "CALL_", 5);
	unsigned int rounds = 0;

	if (!p->passes) {
		ksft_test_result_fail("%s: nobody comes here\n", p->name);
		return;
	}
	if (some_of(p, "kill", calls ? 4 * most : most, false, &rounds) &&
	    (!p->fails || some_of(p, "fail", calls ? 4 * most : most, false, &rounds)) &&
	    some_of(p, "pause", calls ? most : (most + 1) / 2, false, &rounds) &&
	    some_of(p, "pause", calls ? most : (most + 1) / 2, true, &rounds))
		ksft_test_result_pass("%s: killed, failed, paused # %u rounds, passed %u times\n",
				      p->name, rounds, p->passes);
}

/* ------------------------------------------------------------ unloading -- */

static int hooks_load(void)
{
	int fd = open(HOOKS, O_RDONLY | O_CLOEXEC);
	int ret = fd < 0 ? -1 : syscall(SYS_finit_module, fd, "", 0);

	close(fd);
	return ret ? -errno : 0;
}

/* Nobody has a file open any more, but a worker is still settling. */
static void unload_test(void)
{
	struct point now[MAX_POINTS];
	struct round r = { 0 };
	unsigned int nr;
	pid_t pid, rm;
	int go, status;
	bool ok;

	round_open(&r);
	for (int i = 0; i < 5; i++)
		send_id(r.s, r.q, i);
	pid = tour_start(&go);
	control("watch %d", pid);
	/* The last of the tour's settlings: all its files will be closed. */
	for (unsigned int i = 0; i < nr_points; i++)
		if (is(&points[i], "SETTLE_BEGUN"))
			control("SETTLE_BEGUN fail %u", points[i].passes);
	control("WORK_BEGUN pause 1");
	shmk_queue_close(r.sp);
	must("go", write(go, "", 1) == 1 ? 0 : -errno);
	close(go);
	must("wait", waitpid(pid, &status, 0) == pid ? 0 : -errno);
	ok = ended_well("pause", status) && wait_paused(getpid());
	shmk_detach(r.s);
	rm = fork();
	if (!rm)
		_exit(syscall(SYS_delete_module, "shmk", 0) ? errno : 0);
	usleep(300000);
	ok = ok && (!waitpid(rm, &status, WNOHANG) ||
		    sweep_fail("unloaded with a worker inside: status %#x", status));
	ok = ok && (points_read(now, &nr) || sweep_fail("the worker did not wait"));
	control("go");
	if (ok) {
		must("wait", waitpid(rm, &status, 0) == rm ? 0 : -errno);
		ok = !status || sweep_fail("unload: status %#x", status);
	}
	must("load", hooks_load());
	if (ok)
		ksft_test_result_pass("unloading waits for a worker that settles\n");
	else
		ksft_test_result_fail("unloading waits for a worker that settles: %s\n", sweep_why);
}

/* ----------------------------------------------------------------- main -- */

/* An undisturbed tour says how often each point is passed. */
static void count_passes(void)
{
	struct round r = { 0 };
	int go, status;
	pid_t pid;

	round_open(&r);
	for (int i = 0; i < 5; i++)
		send_id(r.s, r.q, i);
	roles_drop(&r);
	pid = tour_start(&go);
	control("watch %d", pid);
	must("go", write(go, "", 1) == 1 ? 0 : -errno);
	close(go);
	must("wait", waitpid(pid, &status, 0) == pid ? 0 : -errno);
	if (status)
		ksft_exit_fail_msg("the tour fails by itself: status %#x\n", status);
	if (!pool_alone(r.s))
		ksft_exit_fail_msg("%s\n", sweep_why);
	points_read(points, &nr_points);
	for (unsigned int i = 0; i < nr_points; i++)
		if (is(&points[i], "WORK_BEGUN"))
			points[i].passes = 1;	/* when SETTLE_BEGUN fails */
	shmk_detach(r.s);
}

int main(void)
{
	const char *only = getenv("SHMK_POINT");
	unsigned int i, nr = 0;

	on_module = true;
	if (getenv("SHMK_POINT_MOST") && atoi(getenv("SHMK_POINT_MOST")) > 0)
		most = atoi(getenv("SHMK_POINT_MOST"));
	snprintf(uri, sizeof(uri), "shmk:point-%d", (int)getpid());
	snprintf(tour_pool, sizeof(tour_pool), "tour-%d", (int)getpid());
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	sweep_init();
	ksft_print_header();
	points_read(points, &nr_points);
	if (!nr_points)
		ksft_exit_fail_msg("no points: this module has no test hooks\n");
	count_passes();
	for (i = 0; i < nr_points; i++)
		nr += !only || is(&points[i], only);
	ksft_set_plan(nr + 1);
	for (i = 0; i < nr_points; i++)
		if (!only || is(&points[i], only))
			point_test(&points[i]);
	unload_test();
	ksft_finished();
}
