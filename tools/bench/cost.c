// SPDX-License-Identifier: GPL-2.0-only
/*
 * cost.c - what is not a message: an allocation, an attachment, a queue, a
 * death, a reader more; and memory. Each beside what the machine itself needs
 * for the like, in turn, in one process or two. Prints medians.
 *
 * SHMK_BENCH_POOL: as for self.c. The pools of the module have pages of 2 MiB.
 */
#include "bench.h"
#include "own.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <linux/shmk.h>
#include <shmk.h>

#define ROUNDS		101

static double ns_of_tick;
static char uri[64];

static void check(const char *what, int ret)
{
	if (ret < 0)
		bench_die("%s: %s", what, strerror(-ret));
}

static double ticks_ns(uint64_t begin)
{
	return (double)(bench_ticks() - begin) * ns_of_tick;
}

static bool on_module(void)
{
	return !strncmp(uri, "shmk:", 5);
}

static void make_pool(struct shmk_pool_opts *opts)
{
	const char *base = getenv("SHMK_BENCH_POOL");
	int ret;

	snprintf(uri, sizeof(uri), "%s", base ? base : "local:bench");
	snprintf(uri + strlen(uri), sizeof(uri) - strlen(uri), "-%d", (int)getpid());
	opts->flags |= SHMK_POOL_PERSIST;
	if (!opts->page_bytes)
		opts->page_bytes = on_module() ? 2 << 20 : 4096;
	ret = shmk_pool_create(uri, opts);
	if (ret == -EOPNOTSUPP) {
		opts->page_bytes = 4096;
		ret = shmk_pool_create(uri, opts);
	}
	if (ret == -ENOMEM || ret == -ENOSPC || ret == -EPERM)
		bench_skip("no room for a pool of %llu MiB: %s", (unsigned long long)opts->bytes >> 20,
			   strerror(-ret));
	check(uri, ret);
}

static void drop_pool(void)
{
	while (shmk_pool_destroy(uri) == -EBUSY)
		usleep(1000);
}

static struct shmk *attach(uint32_t nr_entries)
{
	struct shmk_attach_opts opts = { .nr_entries = nr_entries };
	struct shmk *s;

	check("attach", shmk_attach(uri, &opts, &s));
	return s;
}

/* ---------------------------------------------------------------- alloc -- */

#define ALLOCS	2000

static double locked_adds(void)
{
	static uint64_t word;
	uint64_t begin = bench_ticks();

	for (int i = 0; i < ALLOCS; i++)
		__atomic_add_fetch(&word, 1, __ATOMIC_SEQ_CST);
	return ticks_ns(begin) / ALLOCS;
}

static double own_blocks(struct shmk *s)
{
	uint64_t begin = bench_ticks();
	struct shmk_msg m;

	for (int i = 0; i < ALLOCS; i++) {
		check("alloc", shmk_alloc(s, 64, 0, &m));
		shmk_free(&m);
	}
	return ticks_ns(begin) / ALLOCS;
}

/* The giving back of what another peer had allocated; its sending is not in it. */
static double foreign_blocks(struct shmk_queue *to, struct shmk_queue *from, struct shmk *owner)
{
	static struct shmk_msg m[256];
	uint64_t begin;
	int i;

	for (i = 0; i < 256; i++) {
		check("alloc", shmk_alloc(owner, 64, 0, &m[i]));
		check("send", shmk_send(to, &m[i], SHMK_TRY));
	}
	for (i = 0; i < 256; i++)
		check("recv", shmk_recv(from, &m[i], SHMK_TRY));
	begin = bench_ticks();
	for (i = 0; i < 256; i++)
		shmk_free(&m[i]);
	return ticks_ns(begin) / 256;
}

/* own: who says nothing keeps the one block that it frees and allocates; given: and who keeps none. */
static void cost_alloc(void)
{
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE, .capacity = 256 };
	static double add[ROUNDS], own[ROUNDS], own_x[ROUNDS], given_x[ROUNDS], foreign[ROUNDS];
	struct shmk_pool_opts opts = { .bytes = 64 << 20 };
	struct shmk_queue *to, *from;
	struct shmk *s, *other, *gives;

	make_pool(&opts);
	s = attach(0);
	other = attach(0);
	gives = attach(0);
	check("queue", shmk_queue_open(other, "q", &q, SHMK_TRY, &to));
	check("queue", shmk_queue_open(s, "q", &q, SHMK_TRY, &from));
	check("keep", shmk_keep(gives, 0));
	own_blocks(s);
	own_blocks(gives);
	for (int i = 0; i < ROUNDS; i++) {
		add[i] = locked_adds();
		own[i] = own_blocks(s);
		own_x[i] = own[i] / add[i];
		given_x[i] = own_blocks(gives) / add[i];
		foreign[i] = foreign_blocks(to, from, other);
	}
	printf("cost alloc 64 locked_add_ns=%.2f own_alloc_free_ns=%.2f own_x_add=%.2f given_x_add=%.2f foreign_free_ns=%.2f\n",
	       bench_median(add, ROUNDS), bench_median(own, ROUNDS), bench_median(own_x, ROUNDS),
	       bench_median(given_x, ROUNDS), bench_median(foreign, ROUNDS));
	shmk_detach(s);
	shmk_detach(other);
	shmk_detach(gives);
	drop_pool();
}

/* --------------------------------------------------------------- attach -- */

#define GIB	(1UL << 30)

/* What everybody would do with a segment of that size: map it, all pages at once. */
static double map_4k(int fd)
{
	uint64_t begin = bench_ticks();
	void *p = mmap(NULL, GIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	double ns = ticks_ns(begin);

	if (p == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	munmap(p, GIB);
	return ns;
}

static void cost_attach(void)
{
	static double attached[ROUNDS], detached[ROUNDS], mapped[ROUNDS], x[ROUNDS];
	struct shmk_pool_opts opts = { .bytes = GIB };
	struct shmk_attach_opts prefault = { .flags = SHMK_ATTACH_PREFAULT };
	static double whole[ROUNDS], whole_x[ROUNDS];
	struct shmk *s;
	uint64_t begin;
	int fd = memfd_create("bench", MFD_CLOEXEC), i, nr = 11;

	make_pool(&opts);
	if (fd < 0 || fallocate(fd, 0, 0, (off_t)GIB))
		bench_skip("no room for another GiB: %s", strerror(errno));
	for (i = 0; i < nr; i++) {
		begin = bench_ticks();
		check("attach", shmk_attach(uri, NULL, &s));
		attached[i] = ticks_ns(begin);
		begin = bench_ticks();
		shmk_detach(s);
		detached[i] = ticks_ns(begin);
		mapped[i] = map_4k(fd);
		x[i] = attached[i] / mapped[i];
		begin = bench_ticks();
		check("attach", shmk_attach(uri, &prefault, &s));
		whole[i] = ticks_ns(begin);
		whole_x[i] = whole[i] / mapped[i];
		shmk_detach(s);
	}
	printf("cost attach %lu attach_us=%.1f detach_us=%.1f map_4k_pages_us=%.1f attach_x_map=%.5f prefault_us=%.1f prefault_x_map=%.5f\n", GIB,
	       bench_median(attached, nr) / 1e3, bench_median(detached, nr) / 1e3, bench_median(mapped, nr) / 1e3,
	       bench_median(x, nr), bench_median(whole, nr) / 1e3, bench_median(whole_x, nr));
	close(fd);
	drop_pool();
}

/* ---------------------------------------------------------------- pages -- */

/* The first touch of all of a block of 128 MiB, after attaching: page faults, and time. */
static void touch(uint32_t page_bytes, const char *name)
{
	static double took[ROUNDS], faults[ROUNDS];
	struct shmk_pool_opts opts = { .bytes = 256 << 20, .page_bytes = page_bytes };
	struct rusage before, after;
	struct shmk_msg m;
	struct shmk *s;
	uint64_t begin;
	int i, nr = 5;

	make_pool(&opts);
	for (i = 0; i < nr; i++) {
		s = attach(0);
		check("alloc", shmk_alloc(s, 128 << 20, 0, &m));
		getrusage(RUSAGE_SELF, &before);
		begin = bench_ticks();
		for (size_t at = 0; at < 128 << 20; at += 4096)
			((volatile char *)m.data)[at] = 1;
		took[i] = ticks_ns(begin);
		getrusage(RUSAGE_SELF, &after);
		faults[i] = (double)(after.ru_minflt - before.ru_minflt);
		shmk_detach(s);
	}
	printf(" %s_faults=%.0f %s_us=%.1f", name, bench_median(faults, nr), name, bench_median(took, nr) / 1e3);
	drop_pool();
}

static void cost_pages(void)
{
	printf("cost pages 134217728");
	touch(4096, "touch_4K");
	if (!strncmp(getenv("SHMK_BENCH_POOL") ?: "", "shmk:", 5))
		touch(2 << 20, "touch_2M");
	putchar('\n');
}

/* ---------------------------------------------------------------- queue -- */

static void cost_queue(void)
{
	static double made[ROUNDS], opened[ROUNDS], removed[ROUNDS];
	struct shmk_queue_opts q = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_pool_opts opts = { .bytes = 64 << 20 };
	struct shmk_queue *a, *b;
	struct shmk *s, *other;
	uint64_t begin;

	make_pool(&opts);
	s = attach(0);
	other = attach(0);
	for (int i = 0; i < ROUNDS; i++) {
		begin = bench_ticks();
		check("queue", shmk_queue_open(s, "q", &q, SHMK_TRY, &a));
		made[i] = ticks_ns(begin);
		begin = bench_ticks();
		check("queue", shmk_queue_open(other, "q", NULL, SHMK_TRY, &b));
		opened[i] = ticks_ns(begin);
		shmk_queue_close(a);
		shmk_queue_close(b);
		begin = bench_ticks();
		check("remove", shmk_queue_remove(s, "q"));
		removed[i] = ticks_ns(begin);
	}
	printf("cost queue 64 make_us=%.2f open_us=%.2f remove_us=%.2f\n", bench_median(made, ROUNDS) / 1e3,
	       bench_median(opened, ROUNDS) / 1e3, bench_median(removed, ROUNDS) / 1e3);
	shmk_detach(s);
	shmk_detach(other);
	drop_pool();
}

/* ---------------------------------------------------------------- death -- */

struct victim {
	pthread_mutex_t	mutex;
	int		ready;
};

/* Holds @blocks, the mutex, and @bytes of its own memory, until it is killed. */
static pid_t start_victim(struct victim *v, unsigned int blocks, size_t bytes)
{
	struct shmk_msg m;
	struct shmk *s;
	pid_t pid;

	v->ready = 0;
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (bytes) {
		void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

		if (p == MAP_FAILED || madvise(p, bytes, MADV_NOHUGEPAGE))
			bench_die("mmap: %s", strerror(errno));
	}
	s = attach(blocks + blocks / 8 + 512);
	while (blocks--)
		check("alloc", shmk_alloc(s, 64, 0, &m));
	pthread_mutex_lock(&v->mutex);
	__atomic_store_n(&v->ready, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

static struct victim *new_victim(void)
{
	struct victim *v = (struct victim *)bench_shared(sizeof(*v));
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&v->mutex, &attr);
	return v;
}

static void await_victim(struct victim *v)
{
	while (!__atomic_load_n(&v->ready, __ATOMIC_SEQ_CST))
		usleep(200);
}

/* The next end of a peer: asleep until then on the module; on local, where nobody tells, by looking. */
static struct shmk_event next_end(struct shmk *s)
{
	struct pollfd p = { .fd = shmk_event_fd(s), .events = POLLIN };
	struct shmk_event e;
	int ret;

	check("event fd", p.fd);
	for (;;) {
		ret = shmk_event_next(s, &e);
		if (!ret && e.type == SHMK_EV_DIED)
			return e;
		if (ret == -EAGAIN)
			poll(&p, 1, on_module() ? -1 : 0);
		else if (ret)
			check("event", ret);
	}
}

static void cost_settle(void)
{
	static const unsigned int held[] = { 10, 1000, 100000 };
	static const uint64_t bytes[] = { 64UL << 20, GIB };
	static double took[ROUNDS];
	struct victim *v = new_victim();
	unsigned int h, p, i, nr = 11;

	printf("cost settle 64");
	for (p = 0; p < 2; p++) {
		struct shmk_pool_opts opts = { .bytes = bytes[p] };
		struct shmk *s;

		make_pool(&opts);
		s = attach(0);
		for (h = 0; h < 3; h++) {
			for (i = 0; i < nr; i++) {
				pid_t pid = start_victim(v, held[h], 0);

				await_victim(v);
				kill(pid, SIGKILL);
				took[i] = (double)next_end(s).took_ns;
				waitpid(pid, NULL, 0);
				if (!pthread_mutex_lock(&v->mutex))
					bench_die("the mutex was not lost");
				pthread_mutex_consistent(&v->mutex);
				pthread_mutex_unlock(&v->mutex);
			}
			printf(" %u_of_%lluM_us=%.1f %u_of_%lluM_block_ns=%.1f", held[h],
			       (unsigned long long)bytes[p] >> 20, bench_median(took, nr) / 1e3, held[h],
			       (unsigned long long)bytes[p] >> 20, bench_median(took, nr) / held[h]);
		}
		shmk_detach(s);
		drop_pool();
	}
	putchar('\n');
}

enum { EVENT, MUTEX, PIDFD, NR_TELLERS };

/* From kill() to when this way of learning it, asleep, has told. */
static double death_by(int teller, struct shmk *s, struct victim *v, size_t bytes)
{
	pid_t pid = start_victim(v, 64, bytes);
	struct pollfd p = { .events = POLLIN };
	uint64_t begin;
	double ns;
	int ret;

	await_victim(v);
	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	begin = bench_ticks();
	kill(pid, SIGKILL);
	if (teller == EVENT)
		next_end(s);
	else if (teller == PIDFD)
		poll(&p, 1, -1);
	ret = teller == MUTEX ? pthread_mutex_lock(&v->mutex) : 0;
	ns = ticks_ns(begin);
	if (teller != MUTEX)
		ret = pthread_mutex_lock(&v->mutex);
	if (ret != EOWNERDEAD)
		bench_die("the mutex was not lost");
	pthread_mutex_consistent(&v->mutex);
	pthread_mutex_unlock(&v->mutex);
	if (teller != EVENT)
		next_end(s);
	close(p.fd);
	waitpid(pid, NULL, 0);
	return ns;
}

static void cost_death(void)
{
	static const size_t bytes[] = { 1 << 20, 256 << 20 };
	static const char *const name[] = { "event", "robust_mutex", "pidfd" };
	static double took[NR_TELLERS][ROUNDS];
	struct shmk_pool_opts opts = { .bytes = 64 << 20 };
	struct victim *v = new_victim();
	unsigned int i, t, b, nr = 9;
	struct shmk *s;

	make_pool(&opts);
	s = attach(0);
	printf("cost death 64");
	for (b = 0; b < 2; b++) {
		for (i = 0; i < nr; i++)
			for (t = 0; t < NR_TELLERS; t++)
				took[t][i] = death_by((int)t, s, v, bytes[b]);
		for (t = 0; t < NR_TELLERS; t++)
			printf(" %s_%zuM_us=%.1f", name[t], bytes[b] >> 20, bench_median(took[t], nr) / 1e3);
	}
	putchar('\n');
	shmk_detach(s);
	drop_pool();
}

/* --------------------------------------------------------------- memory -- */

static double memory_of(struct shmk_pool_opts opts)
{
	struct shmk_pool_stat st;
	struct shmk *s;

	make_pool(&opts);
	s = attach(0);
	check("stat", shmk_pool_stat(s, &st));
	shmk_detach(s);
	drop_pool();
	return (double)st.memory_bytes - (double)opts.bytes;
}

/* Beside the payload: what is there for each peer, queue and unit that may be. */
static void cost_memory(void)
{
	struct shmk_pool_opts base = { .bytes = 64 << 20, .nr_peers = 64, .nr_queues = 64,
		.rings_bytes = 1 << 20 }, peers = base, queues = base, units = base;

	peers.nr_peers += 512;
	queues.nr_queues += 512;
	units.bytes *= 2;
	printf("cost memory 64 peer_bytes=%.0f queue_bytes=%.0f unit_bytes=%.2f of_payload=%.4f\n",
	       (memory_of(peers) - memory_of(base)) / 512,
	       (memory_of(queues) - memory_of(base)) / 512,
	       (memory_of(units) - memory_of(base)) / ((double)base.bytes / 256),
	       memory_of(base) / (double)base.bytes);
}

/* ---------------------------------------------------------------- topic -- */

#define READERS		1024
#define PEERS		16
#define PUBLICATIONS	40000

static const unsigned int numbers[] = { 1, 16, 64, 256, READERS };

#define NUMBERS	(sizeof(numbers) / sizeof(numbers[0]))

/* This thread's own time: nobody is waited for, and others may have the processor meanwhile. */
static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* Of one publication, in ns. */
static double publish(struct shmk_topic *t)
{
	double begin = now_us();
	char buf[64] = "";
	int i;

	for (i = 0; i < PUBLICATIONS; i++)
		check("publish", shmk_topic_publish_copy(t, buf, sizeof(buf), SHMK_TRY));
	return (now_us() - begin) * 1e3 / PUBLICATIONS;
}

static double measure(struct shmk_topic *t, struct shmk_topic **readers, unsigned int nr)
{
	static struct shmk_sub *sub[READERS];
	struct shmk_held held;
	unsigned int i;
	double ns;

	check("publish", shmk_topic_publish_copy(t, "", 1, SHMK_TRY));
	for (i = 0; i < nr; i++) {
		check("subscribe", shmk_topic_subscribe(readers[i % PEERS], NULL, &sub[i]));
		check("take", shmk_topic_take_last(sub[i], &held));
	}
	publish(t);
	ns = publish(t);
	for (i = 0; i < nr; i++)
		shmk_topic_unsubscribe(sub[i]);
	return ns;
}

/*
 * Publishing to 1 .. 1024 readers, on a topic made for so many. The subscriptions
 * are those of several attachments of this process, and read nothing: the writer
 * has to look at the ledgers of all, but has nobody to ring for.
 */
static void cost_topic(void)
{
	struct shmk_pool_opts opts = { .bytes = 16 << 20, .nr_peers = 512 };
	struct shmk_topic_opts make = {
		.flags = SHMK_TOPIC_CREATE, .nr_readers = READERS, .msg_bytes = 64,
	};
	static double ns[NUMBERS][ROUNDS], ratio[NUMBERS][ROUNDS];
	struct shmk_topic *t, *readers[PEERS];
	struct shmk *s[PEERS + 1];
	unsigned int i, n, nr = 15;

	make_pool(&opts);
	for (i = 0; i <= PEERS; i++)
		s[i] = attach(0);
	check("topic", shmk_topic_open(s[PEERS], "t", &make, SHMK_TRY, &t));
	check("writer", shmk_topic_writer(t, SHMK_TRY));
	for (i = 0; i < PEERS; i++)
		check("topic", shmk_topic_open(s[i], "t", NULL, SHMK_TRY, &readers[i]));
	for (i = 0; i < nr; i++)
		for (n = 0; n < NUMBERS; n++) {
			ns[n][i] = measure(t, readers, numbers[n]);
			ratio[n][i] = ns[n][i] / ns[0][i];
		}
	printf("cost topic 64");
	for (n = 0; n < NUMBERS; n++)
		printf(" %u_readers_ns=%.1f %u_readers_x=%.3f", numbers[n], bench_median(ns[n], nr),
		       numbers[n], bench_median(ratio[n], nr));
	putchar('\n');
	for (i = 0; i <= PEERS; i++)
		shmk_detach(s[i]);
	drop_pool();
}

/* ------------------------------------------------------------------ all -- */

int bench_cost(const char *what)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} costs[] = {
		{ "alloc", cost_alloc }, { "attach", cost_attach }, { "queue", cost_queue },
		{ "pages", cost_pages },
		{ "settle", cost_settle }, { "death", cost_death }, { "memory", cost_memory },
		{ "topic", cost_topic },
	};

	ns_of_tick = bench_tick_ns();
	for (unsigned int i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
		if (!strcmp(costs[i].name, what)) {
			costs[i].run();
			return 0;
		}
	fprintf(stderr, "no cost of that name:");
	for (unsigned int i = 0; i < sizeof(costs) / sizeof(costs[0]); i++)
		fprintf(stderr, " %s", costs[i].name);
	fputc('\n', stderr);
	return 1;
}
