// SPDX-License-Identifier: GPL-2.0-only
/*
 * device_fuzz.c - /dev/shmk and all files that it makes, under calls that make sense
 * only in part: commands with arguments that are right but for some bytes, too short,
 * too long, or run into memory that is not there; mappings of odd places and sizes,
 * moved, cut, shared with children; poll, epoll, io_uring; netlink messages with attributes
 * that are missing, odd, there twice, and dumps that nobody reads to their end; forks, execs,
 * namespaces and kills in between. Processes share their files, so that they meet.
 *
 * churn_test makes mostly plausible calls, many of them; here it is the odd one that
 * counts. The kernel has to be silent (see vm/init), each process has to go on, and
 * nothing may be left.
 *
 * SHMK_TEST_SEED repeats a run as far as scheduling allows; SHMK_FUZZ_SECONDS.
 */
#include <liburing.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "raw.h"
#include "genl.h"
#include "kselftest_harness.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define PROCESSES	4
#define FDS		24
#define MAPS		8
#define STUCK_S		30

/* What a process has got done, for its parent. */
enum { CALLS, GOOD, FILES, MAPPED, URING, ASKED, ANSWERED, DUMPED, CHILDREN, NR_COUNTS };
static atomic_ulong *counts;		/* NR_COUNTS, then one of steps per process */

enum { DEVICE = 1, POOL = 2, ATTACHMENT = 4, OTHER = 8, ANY = 15 };

static uint64_t state;
static int fds[FDS];
static int kind[FDS];
static struct { char *at; size_t len; } map[MAPS];
static char *edge;			/* the end of what is mapped there */
static struct io_uring ring;
static bool ring_there;
static sigjmp_buf fault;

static uint64_t rnd64(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static uint32_t rnd(uint32_t n)
{
	return (uint32_t)(rnd64() % n);
}

static uint64_t odd_number(void)
{
	switch (rnd(5)) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX - rnd(3);
	case 2:
		return (1ULL << rnd(64)) - rnd(2);
	case 3:
		return rnd(20);
	default:
		return rnd64();
	}
}

/* Mostly one of these kinds. */
static int a_fd(int kinds)
{
	uint32_t i, from = rnd(FDS);

	if (rnd(12) == 0)
		return fds[from];
	for (i = 0; i < FDS; i++)
		if (kind[(from + i) % FDS] & kinds)
			return fds[(from + i) % FDS];
	return -1;
}

static void keep(int fd, int of_kind)
{
	uint32_t i = 1 + rnd(FDS - 1);	/* the device stays */

	if (fd < 0)
		return;
	atomic_fetch_add(&counts[FILES], 1);
	close(fds[i]);
	fds[i] = fd;
	kind[i] = of_kind;
}

/* ----------------------------------------------------------- commands -- */

static const struct command {
	unsigned long cmd;
	uint32_t size;		/* of its argument */
	bool named;		/* at 8 */
	int on, file;		/* kinds of file: what it is for, what it returns */
} commands[] = {
	{ SHMK_IOC_INFO, sizeof(struct shmk_info), false, DEVICE, 0 },
	{ SHMK_IOC_POOL_CREATE, sizeof(struct shmk_pool_create), true, DEVICE, POOL },
	{ SHMK_IOC_POOL_CREATE, sizeof(struct shmk_pool_create), true, DEVICE, POOL },
	{ SHMK_IOC_POOL_OPEN, sizeof(struct shmk_pool_open), true, DEVICE, POOL },
	{ SHMK_IOC_POOL_OPEN, sizeof(struct shmk_pool_open), true, DEVICE, POOL },
	{ SHMK_IOC_POOL_DESTROY, sizeof(struct shmk_pool_destroy), true, DEVICE, 0 },
	{ SHMK_IOC_POOL_NEXT, sizeof(struct shmk_pool_info), false, DEVICE, 0 },
	{ SHMK_IOC_POOL_RESET, sizeof(struct shmk_pool_reset), true, DEVICE, 0 },
	{ SHMK_IOC_POOL_INFO, sizeof(struct shmk_pool_info), false, POOL | ATTACHMENT, 0 },
	{ SHMK_IOC_PEER_INFO, sizeof(struct shmk_peer_info), false, POOL | ATTACHMENT, 0 },
	{ SHMK_IOC_EVENTS, 0, false, POOL | ATTACHMENT, OTHER },
	{ SHMK_IOC_ATTACH, sizeof(struct shmk_attach), false, POOL, ATTACHMENT },
	{ SHMK_IOC_ATTACH, sizeof(struct shmk_attach), false, POOL, ATTACHMENT },
	{ SHMK_IOC_DETACH, 0, false, ATTACHMENT, 0 },
	{ SHMK_IOC_QUEUE_CREATE, sizeof(struct shmk_queue_create), true, ATTACHMENT, 0 },
	{ SHMK_IOC_QUEUE_CREATE, sizeof(struct shmk_queue_create), true, ATTACHMENT, 0 },
	{ SHMK_IOC_QUEUE_OPEN, sizeof(struct shmk_queue_open), true, ATTACHMENT, 0 },
	{ SHMK_IOC_QUEUE_CLOSE, sizeof(struct shmk_queue_close), false, ATTACHMENT, 0 },
	{ SHMK_IOC_QUEUE_REMOVE, sizeof(struct shmk_queue_close), false, ATTACHMENT, 0 },
	{ SHMK_IOC_QUEUE_FD, sizeof(struct shmk_queue_fd), false, ATTACHMENT, OTHER },
	{ SHMK_IOC_BELL, sizeof(struct shmk_bell), false, ATTACHMENT, 0 },
	{ SHMK_IOC_TOPIC_SUBSCRIBE, sizeof(struct shmk_topic_subscribe), false, ATTACHMENT, 0 },
	{ SHMK_IOC_TOPIC_UNSUBSCRIBE, sizeof(struct shmk_topic_unsubscribe), false, ATTACHMENT, 0 },
	{ SHMK_IOC_RELEASE, 0, false, ATTACHMENT, 0 },
	{ SHMK_IOC_DEADLINE, sizeof(struct shmk_deadline), false, ATTACHMENT, 0 },
};

#define ARG_BYTES 512

/* What is right; it is spoilt after that. */
static void fill(const struct command *c, char *arg)
{
	uint32_t *word = (void *)arg;
	struct shmk_pool_create *pool = (void *)arg;
	struct shmk_queue_create *queue = (void *)arg;
	struct shmk_bell *bell = (void *)arg;

	memset(arg, 0, ARG_BYTES);
	switch (c->cmd) {
	case SHMK_IOC_POOL_CREATE:
		*pool = raw_pool_args(NULL, 2 * MiB, rnd(4) ? 12 : 21);
		pool->nr_peers = 1 + rnd(8);
		pool->nr_queues = 1 + rnd(8);
		break;
	case SHMK_IOC_QUEUE_CREATE:
		queue->capacity = 1U << rnd(8);
		queue->flags = rnd(3) ? 0 : rnd(SHMK_QUEUE_F_ALL + 1);
		queue->nr_readers = rnd(5);
		queue->nr_holds = queue->depth = 1;
		queue->msg_bytes = queue->nr_elements = 8;
		break;
	case SHMK_IOC_BELL:
		bell->nr = rnd(4);
		bell->bells = (uintptr_t)edge - 8 * rnd(4);
		break;
	case SHMK_IOC_ATTACH:
		word[1] = !rnd(5);
		word[2] = rnd(3000);
		break;
	default:
		for (uint32_t i = 2; i < 6; i++)
			word[i] = rnd(4);
	}
	word[0] = c->size;
	if (c->named)
		sprintf(arg + 8, "fuzz-%c", 'a' + (char)rnd(4));
}

static void spoil(char *arg, uint32_t size)
{
	for (uint32_t n = rnd(3); n; n--) {
		uint32_t at = rnd(size / 4 + 1) * 4;
		uint64_t value = odd_number();

		memcpy(arg + at, &value, rnd(2) ? 4 : 8);
	}
	if (rnd(4) == 0)
		*(uint32_t *)(void *)arg = rnd(2) ? rnd(2 * size + 8) : (uint32_t)odd_number();
}

/* So large that it would be all of the machine, which other tests are about. */
static void tame(const struct command *c, char *arg)
{
	struct shmk_pool_create *pool = (void *)arg;

	if (c->cmd != SHMK_IOC_POOL_CREATE)
		return;
	if (pool->bytes > 8 * MiB && pool->bytes < 1ULL << 44)
		pool->bytes %= 8 * MiB;
	if (pool->rings_bytes > 8 * MiB && pool->rings_bytes < 1ULL << 44)
		pool->rings_bytes %= 8 * MiB;
}

static void command(void)
{
	const struct command *c = &commands[rnd(sizeof(commands) / sizeof(*commands))];
	char local[ARG_BYTES + 16] __attribute__((aligned(16))), *arg = local;
	unsigned long cmd = c->cmd;
	int ret;

	fill(c, local);
	if (rnd(3) == 0)
		spoil(local, c->size);
	tame(c, local);
	if (rnd(3) == 0) {		/* ends where memory ends, or a little behind */
		arg = edge - c->size + (rnd(2) ? 0 : rnd(64));
		memcpy(arg, local, (size_t)(edge - arg));
	}
	if (rnd(30) == 0) {
		cmd = rnd(2) ? odd_number() : _IOC(rnd(4), SHMK_IOC, rnd(64), rnd(300));
		memset(local, 0, 4);
	}
	ret = raw(a_fd(c->on), cmd, rnd(40) ? arg : (void *)odd_number());
	atomic_fetch_add(&counts[CALLS], 1);
	if (ret >= 0)
		atomic_fetch_add(&counts[GOOD], 1);
	if (c->file && cmd == c->cmd && ret > 2)
		keep(ret, c->file);
}

/* ----------------------------------------------------------- mappings -- */

static size_t odd_length(void)
{
	return rnd(4) ? (1 + rnd(64)) * 4096UL : rnd(2) ? 2 * MiB : (size_t)odd_number() >> 20;
}

static void map_new(void)
{
	static const int prots[] = { PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE, PROT_WRITE,
				     PROT_READ | PROT_EXEC };
	static const int flags[] = { MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_SHARED | MAP_POPULATE,
				     MAP_SHARED | MAP_LOCKED, MAP_SHARED_VALIDATE | MAP_SYNC };
	uint32_t i = rnd(MAPS);
	uint64_t off = (uint64_t)rnd(5) << 44;
	size_t len = odd_length();
	char *p;

	if (off == 1ULL << 44)
		off += rnd(10) * (32ULL << 20);
	if (rnd(3) == 0)
		off += rnd(600) * 4096ULL;
	if (rnd(20) == 0)
		off = odd_number() & ~4095ULL;
	p = mmap(NULL, len, prots[rnd(5)], flags[rnd(6)], a_fd(ATTACHMENT), (off_t)off);
	if (p == MAP_FAILED)
		return;
	atomic_fetch_add(&counts[MAPPED], 1);
	if (map[i].at)
		munmap(map[i].at, map[i].len);
	map[i].at = p;
	map[i].len = len;
}

/* A part of one, on page boundaries. */
static bool map_part(char **at, size_t *len)
{
	uint32_t i = rnd(MAPS), pages = (uint32_t)(map[i].len / 4096), from;

	if (!map[i].at || !pages)
		return false;
	from = rnd(pages);
	*at = map[i].at + from * 4096UL;
	*len = (1 + rnd(pages - from)) * 4096UL;
	return true;
}

static __attribute__((noinline)) void map_touch(char *at, size_t len)
{
	volatile char *p = at + rnd((uint32_t)(len / 8)) * 8;

	if (sigsetjmp(fault, 1))
		return;
	if (rnd(2))
		*(volatile uint64_t *)p = rnd(2) ? odd_number() : SHMK_WHAT(rnd(16), rnd(99), rnd(4));
	else
		(void)*p;
}

static void map_change(void)
{
	static const int advice[] = { MADV_DOFORK, MADV_KEEPONFORK, MADV_DONTNEED, MADV_REMOVE,
				      MADV_HUGEPAGE, MADV_COLLAPSE, MADV_PAGEOUT, MADV_POPULATE_WRITE,
				      MADV_DODUMP, MADV_FREE };
	size_t len;
	char *at, *to;

	if (!map_part(&at, &len))
		return;
	switch (rnd(8)) {
	case 0:
		munmap(at, len);
		break;
	case 1:
		mprotect(at, len, (int)rnd(8));
		break;
	case 2:
		/* Elsewhere, larger or smaller, or twice. */
		to = mremap(at, rnd(4) ? len : 0, odd_length(), MREMAP_MAYMOVE);
		if (to != MAP_FAILED)
			munmap(to, 4096);
		break;
	case 3:
		madvise(at, len, advice[rnd(sizeof(advice) / sizeof(*advice))]);
		break;
	case 4:
		msync(at, len, MS_SYNC);
		mlock(at, len);
		munlock(at, len);
		break;
	default:
		map_touch(at, len);
	}
}

/* ------------------------------------------------- other calls on files -- */

static void file_call(void)
{
	struct epoll_event ev = { .events = rnd(2) ? EPOLLIN : (uint32_t)odd_number() };
	char buf[600];
	int fd = a_fd(ANY);
	struct pollfd p[2] = { { .fd = fd, .events = (short)rnd(64) },
			       { .fd = a_fd(ANY), .events = POLLIN } };

	switch (rnd(10)) {
	case 0:
		poll(p, 2, (int)rnd(3));
		break;
	case 1:
		keep(epoll_create1(EPOLL_CLOEXEC), OTHER);
		break;
	case 2:
	case 3:
		epoll_ctl(fd, 1 + (int)rnd(3), a_fd(ANY), &ev);
		epoll_wait(fd, &ev, 1, 0);
		break;
	case 4:
		fcntl(fd, F_SETFL, O_NONBLOCK);
		if (read(fd, buf, rnd(sizeof(buf))) < 0 && write(fd, buf, 8) < 0)
			break;
		break;
	case 5:
		if (fd != fds[0] && rnd(8) == 0)
			close(fd);	/* its number stays in the table */
		break;
	case 6:
		keep(dup(fd), OTHER);
		break;
	case 7:
		if (lseek(fd, (off_t)odd_number(), SEEK_SET) < 0 || ftruncate(fd, rnd(9999)) ||
		    fsync(fd))
			break;
		break;
	case 8:
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096))
			break;
		break;
	default:
		snprintf(buf, sizeof(buf), "/proc/self/fdinfo/%d", fd);
		fd = open(buf, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, buf, sizeof(buf)) >= 0)
			close(fd);
	}
}

static void uring_call(void)
{
	static const uint8_t ops[] = { IORING_OP_URING_CMD, IORING_OP_URING_CMD, IORING_OP_POLL_ADD,
				       IORING_OP_POLL_REMOVE, IORING_OP_READ, IORING_OP_CLOSE };
	struct shmk_bell_cmd bell = { .bells = (uintptr_t)edge - 8 * rnd(4), .nr = rnd(4) };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	uint64_t odd = odd_number();

	if (!ring_there && rnd(3) == 0)
		ring_there = !io_uring_queue_init(8, &ring, IORING_SETUP_SQE128 *
						  (rnd(2) ? 1U : 0U));
	sqe = ring_there ? io_uring_get_sqe(&ring) : NULL;
	if (!sqe)
		return;
	atomic_fetch_add(&counts[URING], 1);
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = ops[rnd(sizeof(ops))];
	sqe->fd = sqe->opcode == IORING_OP_CLOSE ? -1 : a_fd(ANY);
	switch (sqe->opcode) {
	case IORING_OP_URING_CMD:
		sqe->cmd_op = (uint32_t)(rnd(4) ? SHMK_IOC_BELL : odd);
		memcpy(sqe->cmd, &bell, sizeof(bell) < 16 ? sizeof(bell) : 16);
		break;
	case IORING_OP_POLL_ADD:
		sqe->poll32_events = rnd(2) ? POLLIN : (uint32_t)odd;
		sqe->len = rnd(2) ? IORING_POLL_ADD_MULTI : 0;
		break;
	case IORING_OP_READ:
		sqe->addr = (uintptr_t)edge - rnd(64);
		sqe->len = rnd(100);
	}
	if (rnd(10) == 0)
		sqe->flags = (uint8_t)rnd(64) & (IOSQE_ASYNC | IOSQE_IO_LINK);
	sqe->user_data = rnd(3);
	if (rnd(2))
		return;
	io_uring_submit(&ring);
	while (!io_uring_peek_cqe(&ring, &cqe))
		io_uring_cqe_seen(&ring, cqe);
	if (rnd(60) == 0) {
		io_uring_queue_exit(&ring);
		ring_there = false;
	}
}

/* ------------------------------------------------------------ netlink -- */

#define ASK_BYTES	4096

static struct genl genl;	/* of this process's namespace; nl NULL: none */
static char ask[ASK_BYTES];

/* What each command may have, by number: the others are for it to refuse. */
static const struct asked {
	uint8_t cmd, nr;
	struct { uint8_t type, how; } attr[10];	/* how: 's', 4, 8, 0 */
} asks[] = {
	{ SHMK_CMD_POOL_GET, 2, { { SHMK_A_POOL_ID, 8 }, { SHMK_A_POOL_NAME, 's' } } },
	{ SHMK_CMD_PEER_GET, 3, { { SHMK_A_PEER_POOL_ID, 8 }, { SHMK_A_PEER_POOL_NAME, 's' },
				  { SHMK_A_PEER_ID, 4 } } },
	{ SHMK_CMD_QUEUE_GET, 4, { { SHMK_A_QUEUE_POOL_ID, 8 }, { SHMK_A_QUEUE_POOL_NAME, 's' },
				   { SHMK_A_QUEUE_ID, 4 }, { SHMK_A_QUEUE_NAME, 's' } } },
	{ SHMK_CMD_TOPIC_GET, 4, { { SHMK_A_QUEUE_POOL_ID, 8 }, { SHMK_A_QUEUE_POOL_NAME, 's' },
				   { SHMK_A_QUEUE_ID, 4 }, { SHMK_A_QUEUE_NAME, 's' } } },
	{ SHMK_CMD_POOL_CREATE, 8, { { SHMK_A_POOL_NAME, 's' }, { SHMK_A_POOL_BYTES, 'b' },
				     { SHMK_A_POOL_NR_PEERS, 4 }, { SHMK_A_POOL_NR_QUEUES, 4 },
				     { SHMK_A_POOL_PAGE_SHIFT, 4 }, { SHMK_A_POOL_MODE, 4 },
				     { SHMK_A_POOL_RINGS_BYTES, 'b' }, { SHMK_A_POOL_UID, 4 } } },
	{ SHMK_CMD_POOL_DESTROY, 1, { { SHMK_A_POOL_NAME, 's' } } },
	{ SHMK_CMD_POOL_DESTROY, 1, { { SHMK_A_POOL_NAME, 's' } } },
	{ SHMK_CMD_POOL_RESET, 2, { { SHMK_A_POOL_NAME, 's' }, { SHMK_A_POOL_FORCE, 0 } } },
	{ SHMK_CMD_EVENT, 0, { } },
};

static char *put_attr(char *at, uint16_t type, const void *value, size_t len)
{
	struct nlattr a = { .nla_len = (uint16_t)(sizeof(a) + len), .nla_type = type };

	if (at + sizeof(a) + len + 4 > ask + ASK_BYTES)
		return at;
	memcpy(at, &a, sizeof(a));
	memcpy(at + sizeof(a), value, len);
	return at + sizeof(a) + MNL_ALIGN(len);
}

/* As it should be; sizes stay small, for the machine's memory is not what this is about. */
static char *put_right(char *at, uint8_t type, uint8_t how)
{
	uint64_t number = type == SHMK_A_POOL_PAGE_SHIFT && how == 4 ? 12 : rnd(5);
	char name[8];

	switch (how) {
	case 's':
		sprintf(name, "fuzz-%c", 'a' + (char)rnd(4));
		return put_attr(at, type, name, strlen(name) + 1);
	case 'b':
		number = (1 + rnd(4)) * MiB;
		return put_attr(at, type, &number, 8);
	default:
		return put_attr(at, type, &number, how);
	}
}

/* Any type, of any length, perhaps with others inside, perhaps with a length that lies. */
static char *put_odd(char *at)
{
	uint16_t type = (uint16_t)(rnd(40) | (rnd(8) ? 0 : NLA_F_NESTED) | (rnd(20) ? 0 : NLA_F_NET_BYTEORDER));
	uint64_t number = odd_number();
	char text[300], *begin = at;

	/* A size of a pool is not to be had by chance. */
	number = number > 8 * MiB && number < 1ULL << 44 ? number % (8 * MiB) : number;
	memset(text, 'a' + (char)rnd(3), sizeof(text));
	switch (rnd(5)) {
	case 0:
		at = put_attr(at, type, &number, 1 + rnd(8));
		break;
	case 1:
		at = put_attr(at, type, &number, 8);
		break;
	case 2:		/* a string without an end */
		at = put_attr(at, type, text, rnd(sizeof(text)));
		break;
	case 3:
		at = put_attr(at, type | NLA_F_NESTED, "", 0);
		for (uint32_t n = rnd(4); n; n--)
			at = put_attr(at, (uint16_t)rnd(40), &number, rnd(9));
		((struct nlattr *)(void *)begin)->nla_len = (uint16_t)(at - begin);
		break;
	default:
		at = put_attr(at, type, text, 0);
	}
	if (rnd(10) == 0 && at > begin)
		((struct nlattr *)(void *)begin)->nla_len = (uint16_t)odd_number();
	return at;
}

static size_t ask_make(void)
{
	const struct asked *a = &asks[rnd(sizeof(asks) / sizeof(*asks))];
	struct nlmsghdr *nlh = (void *)ask;
	struct genlmsghdr *g;
	char *at;

	memset(ask, 0, sizeof(ask));
	nlh->nlmsg_type = rnd(30) ? genl.family : (uint16_t)rnd(40);
	nlh->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | (rnd(2) ? NLM_F_ACK : 0));
	if (a->cmd <= SHMK_CMD_TOPIC_GET && rnd(3) == 0)
		nlh->nlmsg_flags |= NLM_F_DUMP;
	if (rnd(20) == 0)
		nlh->nlmsg_flags = (uint16_t)rnd64();
	nlh->nlmsg_seq = ++genl.seq;
	g = (void *)(nlh + 1);
	g->cmd = rnd(30) ? a->cmd : (uint8_t)rnd(20);
	g->version = rnd(10) ? 1 : (uint8_t)rnd(4);
	g->reserved = rnd(30) ? 0 : (uint16_t)rnd64();
	at = (char *)(g + 1);
	for (uint32_t i = 0; i < a->nr; i++)
		if (rnd(4))
			at = put_right(at, a->attr[i].type, a->attr[i].how);
	while (rnd(3) == 0)
		at = rnd(2) || !a->nr ? put_odd(at) : put_right(at, a->attr[0].type, a->attr[0].how);
	nlh->nlmsg_len = (uint32_t)(at - ask);
	if (rnd(20) == 0)
		nlh->nlmsg_len = (uint32_t)odd_number();
	return (size_t)(at - ask);
}

/* Some of the answers, or none; what is left the next ones come behind, or the end. */
static void ask_hear(int fd)
{
	static char buf[GENL_BUF];
	size_t room = rnd(3) ? sizeof(buf) : rnd(300);
	const struct nlmsghdr *nlh = (const void *)buf;

	for (uint32_t n = rnd(8); n; n--) {
		ssize_t len = recv(fd, buf, room, MSG_DONTWAIT);

		if (len < 0)
			return;
		if (len >= (ssize_t)sizeof(*nlh) && nlh->nlmsg_type == genl.family)
			atomic_fetch_add(&counts[nlh->nlmsg_flags & NLM_F_MULTI ? DUMPED : ANSWERED], 1);
	}
}

static void netlink_option(int fd)
{
	static const int options[] = { NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK,
				       NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP,
				       NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS };
	int option = options[rnd(7)];
	int value = option == NETLINK_ADD_MEMBERSHIP || option == NETLINK_DROP_MEMBERSHIP ?
		    (int)genl.group[rnd(2)] : (int)rnd(2), room = 4096;

	setsockopt(fd, SOL_NETLINK, option, &value, sizeof(value));
	if (rnd(4) == 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
}

static void netlink_call(void)
{
	int fd;

	if (!genl.nl && genl_open(&genl))
		return;
	fd = mnl_socket_get_fd(genl.nl);
	if (rnd(10) == 0)
		netlink_option(fd);
	for (uint32_t n = 1 + rnd(3); n; n--) {
		if (send(fd, ask, ask_make(), MSG_DONTWAIT) > 0)
			atomic_fetch_add(&counts[ASKED], 1);
		if (rnd(3))
			ask_hear(fd);
	}
	/* In the middle of a dump, perhaps. */
	if (rnd(20) == 0)
		genl_close(&genl);
}

/* ----------------------------------------------------------- coverage -- */

/*
 * On a kernel with KCOV, for which the module alone is compiled: which of its places were
 * reached. The state of chance before a step that has reached a new one is kept, and
 * the step taken again at other times, in other places.
 */
#define COVER_WORDS	(1U << 16)
#define PLACES		(1U << 16)
#define KEPT		1024

#define KCOV_INIT_TRACE	_IOR('c', 1, unsigned long)
#define KCOV_ENABLE	_IO('c', 100)

struct coverage {
	atomic_uint	nr_places, nr_kept;
	atomic_uchar	place[PLACES];	/* by a hash of its address */
	_Atomic uint64_t kept[KEPT];
};

static struct coverage *coverage;
static unsigned long *cover;		/* of this process; NULL: none */

static void cover_begin(void)
{
	int fd = open("/sys/kernel/debug/kcov", O_RDWR | O_CLOEXEC);
	void *p;

	if (fd < 0 || ioctl(fd, KCOV_INIT_TRACE, (unsigned long)COVER_WORDS))
		return;
	p = mmap(NULL, COVER_WORDS * sizeof(*cover), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED && !ioctl(fd, KCOV_ENABLE, 0))
		cover = p;
	/* The file ends the tracing when it is closed, so it stays. */
}

/* What the step that began with @before has reached. */
static void cover_look(uint64_t before)
{
	unsigned long nr = cover[0];
	bool news = false;

	for (unsigned long i = 1; i <= nr && i < COVER_WORDS; i++) {
		uint32_t at = (uint32_t)((cover[i] * 0x9e3779b97f4a7c15ULL) >> 48);

		if (atomic_exchange(&coverage->place[at], 1))
			continue;
		atomic_fetch_add(&coverage->nr_places, 1);
		news = true;
	}
	cover[0] = 0;
	if (news)
		atomic_store(&coverage->kept[atomic_fetch_add(&coverage->nr_kept, 1) % KEPT], before);
}

static void step(void);

static void step_covered(void)
{
	uint32_t nr = atomic_load(&coverage->nr_kept);
	bool again = nr && rnd(4) == 0;
	uint64_t own = rnd64(), before;

	if (again)
		state = atomic_load(&coverage->kept[rnd(nr < KEPT ? nr : KEPT)]);
	before = state;
	cover[0] = 0;
	step();
	cover_look(before);
	if (again)
		state = own;
}

/* ---------------------------------------------------------- processes -- */

static void short_life(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (rnd(3) == 0 && unshare(rnd(2) ? CLONE_NEWUSER : CLONE_NEWNET | CLONE_NEWIPC | CLONE_FILES))
		_exit(1);
	if (rnd(2)) {
		close(fds[0]);
		fds[0] = raw_device();	/* of the new namespace, if it is one */
	}
	cover = NULL;
	ring_there = false;	/* the parent's */
	genl_close(&genl);
	for (uint32_t n = rnd(40); n; n--)
		step();
	switch (rnd(4)) {
	case 0:
		_exit(0);
	case 1:
		raise(SIGKILL);
		break;
	case 2:
		execl("/bin/true", "true", NULL);
		execl("/bin/busybox", "true", NULL);
		break;
	default:
		signal(SIGSEGV, SIG_DFL);
		raise(SIGSEGV);
	}
	_exit(0);
}

static void child_make(void)
{
	pid_t pid = fork();

	if (!pid)
		short_life();
	if (pid < 0)
		return;
	atomic_fetch_add(&counts[CHILDREN], 1);
	if (rnd(2))
		kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void step(void)
{
	uint32_t n = rnd(115);

	if (n < 50)
		command();
	else if (n >= 100)
		netlink_call();
	else if (n < 65)
		map_new();
	else if (n < 80)
		map_change();
	else if (n < 90)
		file_call();
	else if (n < 99 || rnd(4))
		uring_call();
	else
		child_make();
}

static void on_fault(int sig)
{
	siglongjmp(fault, sig);
}

static void process(uint64_t seed, atomic_ulong *steps)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	state = seed;
	for (int i = 0; i < FDS; i++)
		fds[i] = -1;
	fds[0] = raw_device();
	kind[0] = DEVICE;
	edge = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	edge += 2 * 4096;
	munmap(edge, 4096);
	signal(SIGSEGV, on_fault);
	signal(SIGBUS, on_fault);
	cover_begin();
	for (;;) {
		if (cover)
			step_covered();
		else
			step();
		atomic_fetch_add(steps, 1);
	}
}

static unsigned long env(const char *name, unsigned long otherwise)
{
	const char *v = getenv(name);

	return v ? strtoul(v, NULL, 0) : otherwise;
}

static long now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

static pid_t start(uint64_t seed, unsigned int i)
{
	pid_t pid = fork();

	if (!pid)
		process(seed, &counts[NR_COUNTS + i]);
	return pid;
}

static bool ends(pid_t pid)
{
	kill(pid, SIGKILL);
	for (int i = 0; i < STUCK_S * 100; i++) {
		if (waitpid(pid, NULL, WNOHANG) == pid)
			return true;
		usleep(10000);
	}
	return false;
}

/* Names may have been spoilt, too. */
static void destroy_all(int dev)
{
	struct shmk_pool_info pool = { .size = sizeof(pool) };

	while (!raw(dev, SHMK_IOC_POOL_NEXT, &pool))
		raw_pool_destroy(dev, pool.name);
}

FIXTURE(device) { };
FIXTURE_SETUP(device) { }
FIXTURE_TEARDOWN(device) { }

TEST_F_TIMEOUT(device, survives_calls_that_make_sense_only_in_part, 100000)
{
	uint64_t seed = env("SHMK_TEST_SEED", (unsigned long)time(NULL));
	long end = now_s() + (long)env("SHMK_FUZZ_SECONDS", 12), moved[PROCESSES];
	struct shmk_info info = { .size = sizeof(info) };
	unsigned long seen[PROCESSES] = { 0 };
	unsigned int nr = 0;
	pid_t pid[PROCESSES];
	int dev = raw_device();

	ASSERT_LE(0, dev);
	TH_LOG("SHMK_TEST_SEED=%llu", (unsigned long long)seed);
	counts = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, counts);
	coverage = mmap(NULL, sizeof(*coverage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	ASSERT_NE(MAP_FAILED, coverage);
	state = seed;
	for (unsigned int i = 0; i < PROCESSES; i++) {
		pid[i] = start(seed + nr++, i);
		moved[i] = now_s();
	}
	while (now_s() < end) {
		unsigned int i = rnd(PROCESSES);

		usleep(rnd(500000));
		for (unsigned int k = 0; k < PROCESSES; k++) {
			unsigned long n = atomic_load(&counts[NR_COUNTS + k]);

			if (n != seen[k])
				moved[k] = now_s();
			seen[k] = n;
			ASSERT_GE(STUCK_S, now_s() - moved[k])
				TH_LOG("process %d stands still, seed %llu", pid[k],
				       (unsigned long long)seed);
		}
		ASSERT_TRUE(ends(pid[i]));
		pid[i] = start(seed + nr++, i);
	}
	for (unsigned int i = 0; i < PROCESSES; i++)
		ASSERT_TRUE(ends(pid[i]));
	TH_LOG("%u processes; commands %lu, good %lu, files %lu, mappings %lu, io_uring %lu, children %lu",
	       nr, counts[CALLS], counts[GOOD], counts[FILES], counts[MAPPED], counts[URING],
	       counts[CHILDREN]);
	TH_LOG("netlink: requests %lu, answers %lu, dumps' messages %lu", counts[ASKED],
	       counts[ANSWERED], counts[DUMPED]);
	if (coverage->nr_places)
		TH_LOG("coverage: %u places of the module, %u steps kept", coverage->nr_places,
		       coverage->nr_kept);
	for (int i = 0; i < NR_COUNTS; i++) {
		EXPECT_LT(0, counts[i])
			TH_LOG("count %d", i);
	}
	/* The last ends may still be with a worker. */
	for (int i = 0; i < STUCK_S * 100; i++) {
		destroy_all(dev);
		ASSERT_EQ(0, raw(dev, SHMK_IOC_INFO, &info));
		if (!info.nr_pools)
			break;
		usleep(10000);
	}
	EXPECT_EQ(0, info.nr_pools);
	EXPECT_EQ(0, info.total_bytes);
	close(dev);
}

TEST_HARNESS_MAIN
