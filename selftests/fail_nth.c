// SPDX-License-Identifier: GPL-2.0-only
/*
 * fail_nth.c - each command with its first, second, ... allocation failing.
 *
 * Needs a kernel with fault injection (/proc/thread-self/fail-nth; the debug
 * kernel). For each command and n = 1, 2, ... until nothing is left to fail:
 * the n-th allocation, or copy from or to user space, of the call fails. Then
 * the call has worked all the same, or it returns -ENOMEM or -EFAULT and has left
 * nothing: no pool, no peer, no queue, no fd; and the same call, undisturbed, works.
 * What is not seen from outside is for kmemleak and page_owner, in the end.
 *
 * The dying have no call that could fail: whatever cannot be allocated while they
 * end, all they held comes back and the event says so.
 */
#include <sys/epoll.h>

#include "shmk_test.h"
#include "genl.h"
#include "kselftest.h"

#define NAME		"fail-nth"
#define MOST		2000	/* a call that never gets through */
#define DEATHS		24	/* an exit has fewer allocations than that, by far */

static int device = -1, pool = -1, att = -1;	/* what the command needs of these is open */
static int made = -1;				/* what the command has made, to be closed */
static uint32_t queue, queue_gen;
static void *mapped;
static uint64_t data_at;			/* mmap offset of the data region */
static char why[256];

/* ---------------------------------------------------------- injection -- */

static int nth_fd = -1;

static bool put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	close(fd);
	return ok;
}

/* By default nothing that may sleep fails. */
static bool injection_init(void)
{
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	put("/sys/kernel/debug/fail_usercopy/verbose", "0");
	return nth_fd >= 0 &&
	       put("/sys/kernel/debug/failslab/ignore-gfp-wait", "N") &&
	       put("/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N") &&
	       put("/sys/kernel/debug/fail_page_alloc/min-order", "0") &&
	       put("/sys/kernel/debug/failslab/verbose", "0") &&
	       put("/sys/kernel/debug/fail_page_alloc/verbose", "0");
}

static void fail_after(unsigned int n)
{
	char text[16];
	int len = sprintf(text, "%u", n);

	/* While armed, this copies from user space, too. */
	while (pwrite(nth_fd, text, len, 0) != len)
		;
}

/* Disarms; has something failed since fail_after()? */
static bool has_failed(void)
{
	char text[16] = "";
	bool failed;

	failed = pread(nth_fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
	fail_after(0);
	return failed;
}

/* ----------------------------------------------------------- commands -- */

static struct shmk_pool_create small_pool(uint32_t page_shift)
{
	struct shmk_pool_create args = raw_pool_args(NAME, page_shift == 12 ? 64 << 10 : 2 << 20,
						     page_shift);

	args.nr_peers = args.nr_queues = 4;
	args.rings_bytes = 16 << 10;
	return args;
}

static int create_4k(void)
{
	struct shmk_pool_create args = small_pool(12);

	return made = raw(device, SHMK_IOC_POOL_CREATE, &args);
}

static int create_2m(void)
{
	struct shmk_pool_create args = small_pool(21);

	return made = raw(device, SHMK_IOC_POOL_CREATE, &args);
}

static int open_device(void)
{
	return made = raw_device();
}

static int open_pool(void)
{
	return made = raw_pool_open(device, NAME, 0);
}

static int info_device(void)
{
	struct shmk_info info = { .size = sizeof(info) };

	return raw(device, SHMK_IOC_INFO, &info);
}

static int info_pool(void)
{
	struct shmk_pool_info info;

	return raw_pool_info(pool, &info);
}

static int info_peer(void)
{
	struct shmk_peer_info info = { .size = sizeof(info) };

	return raw(pool, SHMK_IOC_PEER_INFO, &info);
}

static int next_pool(void)
{
	struct shmk_pool_info info = { .size = sizeof(info) };

	return raw(device, SHMK_IOC_POOL_NEXT, &info);
}

static int events(void)
{
	return made = test_events(pool);
}

static int attach(void)
{
	return made = raw_attach(pool, 0, 16, NULL);
}

static int attach_rdonly(void)
{
	return made = raw_attach(pool, SHMK_ATTACH_F_RDONLY, 16, NULL);
}

/* A larger ledger than the id had in its last life. */
static void attach_small(void)
{
	close(raw_attach(pool, 0, 16, NULL));
}

static int attach_large(void)
{
	return made = raw_attach(pool, 0, 1024, NULL);
}

static int detach(void)
{
	return raw_detach(att);
}

static int queue_create(void)
{
	return raw_queue_create(att, "new", 4, &queue, &queue_gen);
}

static void queue_create_undo(void)
{
	raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, queue, queue_gen);
	raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, queue, queue_gen);
}

static int queue_open(void)
{
	return raw_queue_open(att, "q", &queue, &queue_gen);
}

static void queue_close(void)
{
	raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, queue, queue_gen);
}

static void queue_new(void)
{
	raw_queue_create(att, "new", 4, &queue, &queue_gen);
}

static void queue_new_closed(void)
{
	queue_new();
	queue_close();
}

static int queue_do_close(void)
{
	return raw_queue_close(att, SHMK_IOC_QUEUE_CLOSE, queue, queue_gen);
}

static int queue_do_remove(void)
{
	return raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, queue, queue_gen);
}

static int queue_do_drain(void)
{
	return raw_queue_close(att, SHMK_IOC_QUEUE_DRAIN, queue, queue_gen);
}

static void queue_remove(void)
{
	raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, queue, queue_gen);
}

static int side(void)
{
	return made = raw_queue_fd(att, queue, SHMK_SIDE_RECV);
}

static int bell(void)
{
	return raw_bell(att, queue, SHMK_SIDE_RECV);
}

static int map_data(void)
{
	mapped = raw_map(att, PROT_READ | PROT_WRITE, data_at, 64 << 10);
	return mapped == MAP_FAILED ? -errno : 0;
}

static void unmap(void)
{
	munmap(mapped, 64 << 10);
}

static void map_for_fault(void)
{
	map_data();
}

/* A fault for which there is no memory is tried again. */
static int fault(void)
{
	memset(mapped, 1, 64 << 10);
	return 0;
}

static int side_fd = -1, epoll_fd = -1;

static void side_open(void)
{
	side_fd = raw_queue_fd(att, queue, SHMK_SIDE_RECV);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
}

static int side_epoll(void)
{
	struct epoll_event e = { .events = EPOLLIN };

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, side_fd, &e) ? -errno : 0;
}

static int side_poll(void)
{
	struct pollfd p = { .fd = side_fd, .events = POLLIN };

	return poll(&p, 1, 0) < 0 ? -errno : 0;
}

static void side_close(void)
{
	close(epoll_fd);
	close(side_fd);
}

static int capsule_none(void)
{
	struct shmk_capsule c = { .size = sizeof(c) };
	int ret = raw(pool, SHMK_IOC_CAPSULE, &c);

	return ret == -ENOENT ? 0 : ret;
}

static int event_read(void)
{
	struct shmk_event event;

	return read(pool, &event, sizeof(event)) < 0 ? -errno : 0;
}

/* Two events for the pool file's reader, so that it does not wait. */
static void event_cause(void)
{
	close(raw_attach(pool, 0, 16, NULL));
}

static void persist(void)
{
	struct shmk_pool_create args = small_pool(12);

	args.flags = SHMK_POOL_F_PERSIST;
	close(raw(device, SHMK_IOC_POOL_CREATE, &args));
}

static int destroy(void)
{
	return raw_pool_destroy(device, NAME);
}

static int reset(void)
{
	return raw_pool_reset(device, NAME, 0);
}

static void reset_undo(void)
{
	raw_pool_destroy(device, NAME);
}

/*
 * Of netlink, an error that is no answer (there was no memory for the answer, or no way to the
 * caller) leaves open what has become of the command, so this looks, and takes back what
 * it has made.
 */
static struct genl genl;

static int genl_run(int cmd, const char *name, int flags)
{
	struct nlmsghdr *nlh = genl_begin(&genl, genl.family, (uint8_t)cmd, flags | NLM_F_ACK);

	if (name)
		mnl_attr_put_strz(nlh, SHMK_A_POOL_NAME, name);
	if (cmd == SHMK_CMD_POOL_CREATE)
		mnl_attr_put_u64(nlh, SHMK_A_POOL_BYTES, 64 << 10);
	if (cmd == SHMK_CMD_PEER_GET && !flags)
		mnl_attr_put_u32(nlh, SHMK_A_PEER_ID, 1);
	if (cmd == SHMK_CMD_QUEUE_GET && !flags)
		mnl_attr_put_strz(nlh, SHMK_A_QUEUE_NAME, "q");
	return genl_ask(&genl, nlh, NULL, NULL);
}

/* A dump that ran out of memory would go on for ever on its socket. */
static int genl_look(int cmd, const char *name, int flags)
{
	int ret = genl_run(cmd, name, flags);

	if (ret >= 0 || genl.answered)
		return ret;
	genl_close(&genl);
	return genl_open(&genl) ? -EIO : -ENOMEM;
}

static int genl_pool(void)
{
	return genl_look(SHMK_CMD_POOL_GET, NAME, 0);
}

static int genl_pools(void)
{
	return genl_look(SHMK_CMD_POOL_GET, NULL, NLM_F_DUMP);
}

static int genl_peer(void)
{
	return genl_look(SHMK_CMD_PEER_GET, NAME, 0);
}

static int genl_peers(void)
{
	return genl_look(SHMK_CMD_PEER_GET, NAME, NLM_F_DUMP);
}

static int genl_queue(void)
{
	return genl_look(SHMK_CMD_QUEUE_GET, NAME, 0);
}

static int genl_queues(void)
{
	return genl_look(SHMK_CMD_QUEUE_GET, NAME, NLM_F_DUMP);
}

static int genl_topics(void)
{
	return genl_look(SHMK_CMD_TOPIC_GET, NAME, NLM_F_DUMP);
}

static int genl_create(void)
{
	int ret = genl_run(SHMK_CMD_POOL_CREATE, NAME, 0);

	if (ret >= 0 || genl.answered)
		return ret;
	raw_pool_destroy(device, NAME);
	return -ENOMEM;
}

static int genl_destroy(void)
{
	int ret = genl_run(SHMK_CMD_POOL_DESTROY, NAME, 0);

	if (ret >= 0 || genl.answered)
		return ret;
	raw_pool_destroy(device, NAME);
	persist();
	return -ENOMEM;
}

static int genl_reset(void)
{
	int ret = genl_run(SHMK_CMD_POOL_RESET, NAME, 0);

	return ret >= 0 || genl.answered ? ret : -ENOMEM;
}

static const struct command {
	const char	*name;
	enum { DEVICE, POOL, MEMBER } needs;	/* MEMBER: with queue "q" open */
	int		(*run)(void);
	void		(*prepare)(void);
	void		(*undo)(void);	/* beside closing what was made */
} commands[] = {
	{ "open", DEVICE, open_device, NULL, NULL },
	{ "info", DEVICE, info_device, NULL, NULL },
	{ "pool_create", DEVICE, create_4k, NULL, NULL },
	{ "pool_create_2m", DEVICE, create_2m, NULL, NULL },
	{ "pool_destroy", DEVICE, destroy, persist, NULL },
	{ "pool_reset", DEVICE, reset, persist, reset_undo },
	{ "netlink_pool_get", POOL, genl_pool, NULL, NULL },
	{ "netlink_pool_dump", POOL, genl_pools, NULL, NULL },
	{ "netlink_peer_get", MEMBER, genl_peer, NULL, NULL },
	{ "netlink_peer_dump", MEMBER, genl_peers, NULL, NULL },
	{ "netlink_queue_get", MEMBER, genl_queue, NULL, NULL },
	{ "netlink_queue_dump", MEMBER, genl_queues, NULL, NULL },
	{ "netlink_topic_dump", MEMBER, genl_topics, NULL, NULL },
	{ "netlink_pool_create", DEVICE, genl_create, NULL, reset_undo },
	{ "netlink_pool_destroy", DEVICE, genl_destroy, persist, NULL },
	{ "netlink_pool_reset", DEVICE, genl_reset, persist, reset_undo },
	{ "pool_open", POOL, open_pool, NULL, NULL },
	{ "pool_next", POOL, next_pool, NULL, NULL },
	{ "pool_info", POOL, info_pool, NULL, NULL },
	{ "peer_info", MEMBER, info_peer, NULL, NULL },
	{ "events", POOL, events, NULL, NULL },
	{ "capsule", POOL, capsule_none, NULL, NULL },
	{ "attach", POOL, attach, NULL, NULL },
	{ "attach_rdonly", POOL, attach_rdonly, NULL, NULL },
	{ "attach_large", POOL, attach_large, attach_small, NULL },
	{ "detach", MEMBER, detach, NULL, NULL },
	{ "queue_create", MEMBER, queue_create, NULL, queue_create_undo },
	{ "queue_open", MEMBER, queue_open, NULL, queue_close },
	{ "queue_close", MEMBER, queue_do_close, queue_new, queue_remove },
	{ "queue_remove", MEMBER, queue_do_remove, queue_new_closed, NULL },
	{ "queue_drain", MEMBER, queue_do_drain, queue_new_closed, NULL },
	{ "queue_fd", MEMBER, side, NULL, NULL },
	{ "bell", MEMBER, bell, NULL, NULL },
	{ "mmap", MEMBER, map_data, NULL, unmap },
	{ "fault", MEMBER, fault, map_for_fault, unmap },
	{ "poll", MEMBER, side_poll, side_open, side_close },
	{ "epoll_ctl", MEMBER, side_epoll, side_open, side_close },
	{ "read", MEMBER, event_read, event_cause, NULL },
};

/* ----------------------------------------------------------- the sweep -- */

static bool wrong(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

struct count {
	uint64_t pools, bytes, peers, queues, fds;
	uint64_t user_peers, user_queues;	/* as counted for our uid */
};

static struct count count(void)
{
	struct shmk_info info = test_info(device);
	struct count c = {
		.pools = info.nr_pools, .bytes = info.total_bytes,
		.user_peers = info.user_peers, .user_queues = info.user_queues,
	};
	struct shmk_pool_info p;

	if (pool >= 0 && !raw_pool_info(pool, &p)) {
		c.peers = p.peers_now;
		c.queues = p.queues_now;
	}
	for (int fd = 0; fd < 64; fd++)
		c.fds += fcntl(fd, F_GETFD) >= 0;
	return c;
}

static bool same(const struct count *before, const char *when)
{
	struct count now = count();

	if (!memcmp(&now, before, sizeof(now)))
		return true;
	return wrong("%s: %+d pools, %+d bytes, %+d peers, %+d queues, %+d fds", when,
		     (int)(now.pools - before->pools), (int)(now.bytes - before->bytes),
		     (int)(now.peers - before->peers), (int)(now.queues - before->queues),
		     (int)(now.fds - before->fds));
}

static void world_open(const struct command *c)
{
	const struct shmk_status *status;

	if (c->needs >= POOL)
		pool = create_4k();
	if (c->needs >= MEMBER) {
		att = raw_attach(pool, 0, 16, NULL);
		raw_queue_create(att, "q", 4, &queue, &queue_gen);
		status = raw_status(att);
		data_at = status->map_data;
		munmap((void *)status, status->status_bytes);
	}
	made = -1;
}

static void world_close(void)
{
	if (att >= 0)
		close(att);
	if (pool >= 0)
		close(pool);
	att = pool = -1;
}

static void undo(const struct command *c)
{
	if (made >= 0)
		close(made);
	made = -1;
	if (c->undo)
		c->undo();
}

/* One failure, or none any more (*more). Those that work once get a new world. */
static bool round_run(const struct command *c, unsigned int n, bool *more)
{
	struct count before, prepared;
	bool ok;
	int ret;

	world_open(c);
	before = count();
	if (c->prepare)
		c->prepare();
	prepared = count();
	fail_after(n);
	ret = c->run();
	*more = has_failed();
	if (*more && ret < 0) {
		ok = ret == -ENOMEM || ret == -EFAULT || wrong("%s", strerror(-ret));
		ok = ok && same(&prepared, "after the failure");
		ret = c->run();
	} else {
		ok = true;
	}
	if (ret < 0)
		ok = ok && wrong("undisturbed: %s", strerror(-ret));
	undo(c);
	/* Of those that end something, it was in there before. */
	if (c->run != detach && c->run != destroy && c->run != genl_destroy)
		ok = ok && same(&before, "in the end");
	world_close();
	return ok && (!test_no_pools(device) || wrong("a pool is left"));
}

static void command_test(const struct command *c)
{
	bool more = true, ok = true;
	unsigned int n;

	for (n = 0; more && ok && n < MOST; n++)
		ok = round_run(c, n + 1, &more);
	if (ok && more)
		ok = wrong("fails again and again");
	if (ok)
		ksft_test_result_pass("%s, each of its allocations failing # %u\n", c->name, n - 1);
	else
		ksft_test_result_fail("%s, allocation %u failing: %s\n", c->name, n, why);
}

/* -------------------------------------------------------------- deaths -- */

/* Holds two blocks, of which the ledger knows, and dies with the n-th failing. */
static int victim(int sock, void *arg)
{
	unsigned int n = *(unsigned int *)arg;
	struct test_att a;

	CHILD_CHECK(!test_attach(pool, 0, 16, &a));
	*test_block(&a, 0) = SHMK_BLOCK_WORD(5, SHMK_BLOCK_USED);
	*test_block(&a, 1) = SHMK_BLOCK_WORD(6, SHMK_BLOCK_USED);
	test_span(&a, 0)->word = SHMK_SPAN_WORD(1, a.peer, 0, 0, SHMK_SPAN_CUT);
	test_entry(&a, 0, SHMK_WHAT(SHMK_OP_SPAN, 0, 1), SHMK_WHERE(0, 1));
	test_entry(&a, 1, SHMK_WHAT(SHMK_OP_HELD, 0, 5), 0);
	test_entry(&a, 2, SHMK_WHAT(SHMK_OP_HELD, 1, 6), 0);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	close(nth_fd);
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	fail_after(n);
	if (n & 1)
		kill(getpid(), SIGKILL);
	return 0;
}

static bool death(unsigned int n)
{
	struct shmk_pool_info info;
	struct shmk_event event;
	struct test_child c;
	struct test_msg m;
	int fd = test_events(pool);
	bool ok;

	if (test_child_start(&c, victim, &n) || test_hear(c.sock, &m))
		return wrong("no victim");
	ok = !test_end_of(fd, m.v[0], m.v[1], &event) || wrong("no event");
	test_child_end(&c);
	close(fd);
	ok = ok && ((event.type == SHMK_EV_DIED && event.blocks == 2) ||
		    wrong("event %u, %llu blocks", event.type, (unsigned long long)event.blocks));
	return ok && !raw_pool_info(pool, &info) &&
	       ((info.peers_now == 0 && info.blocks_used == 0) ||
		wrong("%u peers, %llu blocks remain", info.peers_now,
		      (unsigned long long)info.blocks_used));
}

static void death_test(void)
{
	bool ok = true;
	unsigned int n;

	pool = create_4k();
	made = -1;
	for (n = 1; n <= DEATHS && ok; n++)
		ok = death(n);
	world_close();
	ok = ok && (!test_no_pools(device) || wrong("a pool is left"));
	if (ok)
		ksft_test_result_pass("death, each of its allocations failing # %u\n", DEATHS);
	else
		ksft_test_result_fail("death, allocation %u failing: %s\n", n - 1, why);
}

int main(void)
{
	const char *only = getenv("SHMK_FAIL");

	ksft_print_header();
	if (!injection_init())
		ksft_exit_skip("no fault injection in this kernel\n");
	device = raw_device();
	if (device < 0)
		ksft_exit_fail_msg("no /dev/shmk\n");
	if (genl_open(&genl))
		ksft_exit_fail_msg("no netlink family\n");
	ksft_set_plan(only ? 1 : sizeof(commands) / sizeof(*commands) + 1);
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!only || !strcmp(only, commands[i].name))
			command_test(&commands[i]);
	if (!only || !strcmp(only, "death"))
		death_test();
	ksft_finished();
}
