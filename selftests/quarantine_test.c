// SPDX-License-Identifier: GPL-2.0-only
/*
 * quarantine_test.c - what a dead peer had pinned is given to nobody until it is let go.
 *
 * The pins are real, and survive: a pipe of the test's with pages that the victim gave it
 * (vmsplice: plain references), and a ring of the test's in which the victim registered
 * its block as a buffer (pins; not on 6.1, where pool pages cannot be registered).
 *
 * Whether a block is given out is seen by taking all there is.
 */
#include <liburing.h>
#include <sys/uio.h>

#include "lib_test.h"
#include "kselftest_harness.h"

#define BYTES		8192U
#define MOST		512	/* such blocks in a pool */

FIXTURE(quarantine)
{
	char uri[64];
	struct shmk_pool_opts pool;
	struct shmk_attach_opts opts;
	struct shmk *s;
	int pipe[2];
	struct io_uring ring;
	bool ringed;
	struct shmk_msg mine[MOST];
	int nr;
};

FIXTURE_VARIANT(quarantine)
{
	uint32_t page_bytes;
};

FIXTURE_VARIANT_ADD(quarantine, pages_4k) { .page_bytes = 4096 };
FIXTURE_VARIANT_ADD(quarantine, pages_2m) { .page_bytes = 2 << 20 };

typedef FIXTURE_DATA(quarantine) fix_t;

static const struct shmk_status *status_of(const fix_t *f)
{
	return f->s->status;
}

static int fix_attach(fix_t *f)
{
	f->opts.create = &f->pool;
	return shmk_attach(f->uri, &f->opts, &f->s);
}

FIXTURE_SETUP(quarantine)
{
	memset(self, 0, sizeof(*self));
	setenv("SHMK_TEST_BACKEND", "module", 1);
	test_uri(self->uri, "quarantine");
	self->pool.bytes = 2 * MIB;
	self->pool.page_bytes = variant->page_bytes;
	self->pool.nr_peers = 2;
	ASSERT_EQ(0, pipe2(self->pipe, O_CLOEXEC));
	if (variant->page_bytes == 2 << 20 && access("/sys/kernel/mm/transparent_hugepage", F_OK)) {
		EXPECT_EQ(-EOPNOTSUPP, fix_attach(self));
		SKIP(return, "this kernel has no transparent huge pages");
	}
}

FIXTURE_TEARDOWN(quarantine)
{
	if (self->s)
		shmk_detach(self->s);
	if (self->ringed)
		io_uring_queue_exit(&self->ring);
	close(self->pipe[0]);
	close(self->pipe[1]);
}

/* All blocks there are, into @mine. */
static int take_all(fix_t *f)
{
	int ret = 0;

	while (f->nr < MOST && !(ret = shmk_alloc(f->s, BYTES, 0, &f->mine[f->nr])))
		memset(f->mine[f->nr++].data, 0x55, BYTES);
	return ret;
}

static bool have(const fix_t *f, uint32_t block)
{
	int i;

	for (i = 0; i < f->nr; i++)
		if (f->mine[i].block == block)
			return true;
	return false;
}

static void free_all(fix_t *f)
{
	while (f->nr)
		shmk_free(&f->mine[--f->nr]);
}

static uint64_t sysfs_quarantined(const fix_t *f)
{
	char path[128], text[32] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/shmk/pools/%s/quarantined",
		 strchr(f->uri, ':') + 1);
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return UINT64_MAX;
	close(fd);
	return strtoull(text, NULL, 10);
}

/* By itself: nobody asks the kernel for anything meanwhile. */
static bool let_go(const fix_t *f)
{
	int64_t end = watchdog();

	while (READ_ONCE(status_of(f)->quarantined) && now_ns() < end)
		usleep(1000);
	return !READ_ONCE(status_of(f)->quarantined);
}

/* The next end of a peer: 0 or -errno. */
static int next_end(fix_t *f, struct shmk_event *event)
{
	struct pollfd p = { .fd = shmk_event_fd(f->s), .events = POLLIN };
	int ret;

	for (;;) {
		ret = shmk_event_next(f->s, event);
		if (ret == -EAGAIN && poll(&p, 1, WATCHDOG_MS) != 1)
			return -ETIMEDOUT;
		if (ret && ret != -EAGAIN)
			return ret;
		if (!ret && (event->type == SHMK_EV_DIED || event->type == SHMK_EV_DETACHED))
			return 0;
	}
}

/* ---- victims: one block, pinned somehow ---- */

struct plan {
	fix_t	*f;
	size_t	bytes;
	bool	ring;		/* else the pipe */
	bool	clean;		/* detaches, and lives on */
	bool	frees;		/* gives the block back itself */
	size_t	from;		/* offset of the page that is pinned */
};

static void victim(struct child_end *end, void *arg)
{
	struct plan *p = arg;
	struct shmk *s;
	struct shmk_msg m;
	struct iovec iov;

	if (shmk_attach(p->f->uri, NULL, &s) || shmk_alloc(s, p->bytes, 0, &m))
		_exit(91);
	memset(m.data, 0xaa, p->bytes);
	iov = (struct iovec){ (char *)m.data + p->from, BYTES < p->bytes ? 4096 : BYTES };
	if (p->ring ? io_uring_register_buffers(&p->f->ring, &iov, 1) :
	    vmsplice(p->f->pipe[1], &iov, 1, SPLICE_F_GIFT) != (ssize_t)iov.iov_len)
		_exit(92);
	tell(end, (int)m.block);
	tell(end, (int)((uint64_t)(uintptr_t)iov.iov_base >> 32));
	tell(end, (int)(uintptr_t)iov.iov_base);
	if (p->frees)
		shmk_free(&m);
	if (p->clean || p->frees)
		shmk_detach(s);
	if (p->clean || p->frees)
		tell(end, 1);
	hear(end->from);
}

/* Its block; @addr of what it pinned. The end of the victim has been told when this returns. */
static uint32_t victim_run(struct __test_metadata *_metadata, struct plan *p, struct child *c,
			   char **addr)
{
	struct shmk_event event;
	uint64_t high, low;
	uint32_t block;

	child_start(c, victim, p);
	block = (uint32_t)child_hear(c);
	high = (uint32_t)child_hear(c);
	low = (uint32_t)child_hear(c);
	*addr = (char *)(uintptr_t)(high << 32 | low);
	if (p->clean || p->frees) {
		EXPECT_EQ(1, child_hear(c));
	} else {
		kill(c->pid, SIGKILL);
	}
	EXPECT_EQ(0, next_end(p->f, &event));
	EXPECT_EQ(p->frees ? 0 : 1, event.blocks);
	return block;
}

static void drain(const fix_t *f, size_t bytes, unsigned char want, struct __test_metadata *_metadata)
{
	unsigned char buf[4096];
	size_t i;
	ssize_t n;

	for (; bytes; bytes -= (size_t)n) {
		n = read(f->pipe[0], buf, bytes < sizeof(buf) ? bytes : sizeof(buf));
		ASSERT_LT(0, n);
		for (i = 0; i < (size_t)n && buf[i] == want; i++)
			;
		ASSERT_EQ((size_t)n, i) TH_LOG("byte %#x", buf[i]);
	}
}

TEST_F(quarantine, what_is_in_a_pipe_is_given_out_when_the_pipe_is_drained)
{
	struct plan plan = { .f = self, .bytes = BYTES };
	struct child c;
	uint32_t block;
	char *addr;

	ASSERT_EQ(0, fix_attach(self));
	block = victim_run(_metadata, &plan, &c, &addr);
	EXPECT_EQ(1, status_of(self)->quarantined);
	EXPECT_EQ(1, sysfs_quarantined(self));
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_FALSE(have(self, block));
	EXPECT_EQ(0, shmk_pool_check(self->s, NULL, 0));
	/* All else has been written over. */
	drain(self, BYTES, 0xaa, _metadata);
	/* Running short is reason enough to look. */
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_TRUE(have(self, block));
	EXPECT_EQ(0, status_of(self)->quarantined);
	free_all(self);
	EXPECT_EQ(0, shmk_pool_check(self->s, NULL, 0));
	child_wait(&c);
}

TEST_F(quarantine, it_is_let_go_without_being_asked)
{
	struct plan plan = { .f = self, .bytes = BYTES };
	struct child c;
	uint32_t block;
	char *addr;

	ASSERT_EQ(0, fix_attach(self));
	block = victim_run(_metadata, &plan, &c, &addr);
	EXPECT_EQ(1, status_of(self)->quarantined);
	drain(self, BYTES, 0xaa, _metadata);
	EXPECT_TRUE(let_go(self));
	EXPECT_EQ(0, sysfs_quarantined(self));
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_TRUE(have(self, block));
	free_all(self);
	child_wait(&c);
}

TEST_F(quarantine, a_write_that_comes_after_the_death_hits_nobody)
{
	struct plan plan = { .f = self, .bytes = BYTES, .ring = true };
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	unsigned char late[64];
	struct iovec iov;
	struct child c;
	uint32_t block;
	char *addr;
	int i, j, ret;

	ASSERT_EQ(0, fix_attach(self));
	ret = io_uring_queue_init(4, &self->ring, 0);
	if (ret)
		SKIP(return, "no io_uring: %s", strerror(-ret));
	self->ringed = true;
	/* Can such pages be registered at all? */
	ASSERT_EQ(0, shmk_alloc(self->s, BYTES, 0, &self->mine[0]));
	iov = (struct iovec){ self->mine[0].data, BYTES };
	ret = io_uring_register_buffers(&self->ring, &iov, 1);
	shmk_free(&self->mine[0]);
	if (ret == -EOPNOTSUPP)
		SKIP(return, "this kernel registers no buffers in pools");
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, io_uring_unregister_buffers(&self->ring));

	block = victim_run(_metadata, &plan, &c, &addr);
	EXPECT_EQ(1, status_of(self)->quarantined);
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_FALSE(have(self, block));

	memset(late, 0xee, sizeof(late));
	ASSERT_EQ(sizeof(late), write(self->pipe[1], late, sizeof(late)));
	sqe = io_uring_get_sqe(&self->ring);
	io_uring_prep_read_fixed(sqe, self->pipe[0], addr, sizeof(late), 0, 0);
	ASSERT_EQ(1, io_uring_submit_and_wait(&self->ring, 1));
	ASSERT_EQ(0, io_uring_peek_cqe(&self->ring, &cqe));
	ASSERT_EQ(sizeof(late), cqe->res);
	io_uring_cqe_seen(&self->ring, cqe);
	/* It was written where the dead had it, and nowhere else. */
	EXPECT_EQ(0, memcmp(block_data(self->s, block), late, sizeof(late)));
	for (i = 0; i < self->nr; i++) {
		for (j = 0; j < (int)BYTES && ((char *)self->mine[i].data)[j] == 0x55; j++)
			;
		ASSERT_EQ(BYTES, j);
	}
	io_uring_queue_exit(&self->ring);
	self->ringed = false;
	EXPECT_TRUE(let_go(self));
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_TRUE(have(self, block));
	free_all(self);
	child_wait(&c);
}

/* A victim lives as @plan says; is its block kept back, and who is it that is seen in the pipe? */
static void pinned_life(struct __test_metadata *_metadata, FIXTURE_DATA(quarantine) *self,
			struct plan *plan, bool kept)
{
	struct child c;
	uint32_t block;
	char *addr;

	block = victim_run(_metadata, plan, &c, &addr);
	EXPECT_EQ(kept, status_of(self)->quarantined);
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_EQ(!kept, have(self, block));
	drain(self, BYTES, kept ? 0xaa : 0x55, _metadata);
	if (kept)
		EXPECT_TRUE(let_go(self));
	free_all(self);
	if (plan->clean || plan->frees)
		child_tell(&c, 0);
	child_wait(&c);
}

TEST_F(quarantine, detaching_with_pins_is_no_better)
{
	struct plan plan = { .f = self, .bytes = BYTES, .clean = true };

	ASSERT_EQ(0, fix_attach(self));
	pinned_life(_metadata, self, &plan, true);
}

TEST_F(quarantine, what_the_living_free_is_free)
{
	struct plan plan = { .f = self, .bytes = BYTES, .frees = true };

	ASSERT_EQ(0, fix_attach(self));
	pinned_life(_metadata, self, &plan, false);
}

TEST_F(quarantine, a_pool_may_do_without)
{
	struct plan plan = { .f = self, .bytes = BYTES };
	struct shmk_pool_stat stat;

	self->pool.flags = SHMK_POOL_NO_QUARANTINE;
	ASSERT_EQ(0, fix_attach(self));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(SHMK_POOL_NO_QUARANTINE, stat.flags);
	pinned_life(_metadata, self, &plan, false);
}

/* Of many pages: looked at by a worker, the last page as well as the first. */
TEST_F(quarantine, a_large_block_is_free_at_its_death_or_not_at_all)
{
	struct plan plan = { .f = self, .bytes = 512 << 10, .from = (512 << 10) - 4096 };
	struct shmk_msg m;
	struct child c;
	uint32_t block;
	char *addr;

	self->pool.bytes = 1 << 20;
	if (variant->page_bytes > 4096)
		self->pool.bytes = 2 << 20;
	ASSERT_EQ(0, fix_attach(self));
	block = victim_run(_metadata, &plan, &c, &addr);
	EXPECT_EQ(1, status_of(self)->quarantined);
	EXPECT_EQ(-ENOMEM, take_all(self));
	EXPECT_FALSE(have(self, block));
	free_all(self);
	drain(self, 4096, 0xaa, _metadata);
	EXPECT_TRUE(let_go(self));
	ASSERT_EQ(0, shmk_alloc(self->s, plan.bytes, 0, &m));
	shmk_free(&m);
	child_wait(&c);

	plan.frees = false;
	plan.from = 0;
	block = victim_run(_metadata, &plan, &c, &addr);
	EXPECT_EQ(1, status_of(self)->quarantined);
	drain(self, 4096, 0xaa, _metadata);
	EXPECT_TRUE(let_go(self));
	child_wait(&c);
}

static void holder(struct child_end *end, void *arg)
{
	struct plan *p = arg;
	struct shmk *s;
	struct shmk_msg m;

	if (shmk_attach(p->f->uri, NULL, &s) || shmk_alloc(s, p->bytes, 0, &m))
		_exit(91);
	memset(m.data, 0xaa, p->bytes);
	tell(end, (int)m.block);
	hear(end->from);
}

/* Not pinned: what is too large to be looked at in passing is back when the death is told. */
TEST_F(quarantine, nothing_is_kept_without_a_pin)
{
	static const size_t sizes[] = { 256, 8192, 65536, 1 << 20 };
	struct plan plan = { .f = self };
	struct shmk_event event;
	struct child c;
	uint64_t kept;
	int tries;
	size_t i;

	ASSERT_EQ(0, fix_attach(self));
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		plan.bytes = sizes[i];
		/* A worker may have looked while the pages were just being unmapped: not each time. */
		for (tries = 0, kept = 1; tries < 5 && kept; tries++) {
			child_start(&c, holder, &plan);
			child_hear(&c);
			kill(c.pid, SIGKILL);
			ASSERT_EQ(0, next_end(self, &event));
			EXPECT_EQ(1, event.blocks);
			kept = status_of(self)->quarantined;
			child_wait(&c);
			EXPECT_TRUE(let_go(self));
		}
		EXPECT_EQ(0, kept) TH_LOG("%zu bytes", sizes[i]);
	}
}

/* The pins outlive the pool, and the pool's end does not wait for them. */
TEST_F(quarantine, a_pool_goes_while_some_of_it_is_pinned)
{
	struct plan plan = { .f = self, .bytes = BYTES };
	struct child c;
	char *addr;

	ASSERT_EQ(0, fix_attach(self));
	victim_run(_metadata, &plan, &c, &addr);
	EXPECT_EQ(1, status_of(self)->quarantined);
	shmk_detach(self->s);
	self->s = NULL;
	child_wait(&c);
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &self->s));
	drain(self, BYTES, 0xaa, _metadata);
	self->opts.exclusive = true;
	ASSERT_EQ(0, fix_attach(self));
	EXPECT_EQ(0, status_of(self)->quarantined);
}

/* ---- what goes with a queue ---- */

/* Pins something that it gives away, and does not outlive it. */
struct gift {
	fix_t	*f;
	bool	topic;
	bool	stays;		/* the queue, until the test removes it */
};

static void *gift_in_a_queue(const struct gift *g, struct shmk *s, struct shmk_msg *m)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | (g->stays ? 0 : SHMK_QUEUE_TRANSIENT),
	};
	struct shmk_queue *q;
	void *data;

	if (shmk_queue_open(s, "q", &opts, SHMK_TRY, &q) || shmk_alloc(s, BYTES, 0, m))
		_exit(91);
	data = m->data;
	memset(data, 0xaa, BYTES);
	m->len = BYTES;
	return shmk_send(q, m, SHMK_TRY) ? NULL : data;
}

static void *gift_in_a_topic(const struct gift *g, struct shmk *s)
{
	struct shmk_topic_opts opts = {
		.flags = SHMK_TOPIC_CREATE | (g->stays ? 0 : SHMK_TOPIC_TRANSIENT),
		.nr_readers = 2, .msg_bytes = 2 * BYTES,
	};
	struct shmk_topic *t;
	struct shmk_loan loan;

	if (shmk_topic_open(s, "q", &opts, SHMK_TRY, &t) || shmk_topic_writer(t, SHMK_TRY) ||
	    shmk_topic_loan(t, &loan))
		_exit(91);
	memset(loan.data, 0xaa, BYTES);
	return loan.data;
}

static void giver(struct child_end *end, void *arg)
{
	struct gift *g = arg;
	struct shmk_msg m;
	struct iovec iov;
	struct shmk *s;
	void *data;

	if (shmk_attach(g->f->uri, NULL, &s))
		_exit(91);
	data = g->topic ? gift_in_a_topic(g, s) : gift_in_a_queue(g, s, &m);
	iov = (struct iovec){ data, BYTES };
	if (!data || vmsplice(g->f->pipe[1], &iov, 1, SPLICE_F_GIFT) != BYTES)
		_exit(92);
	tell(end, 1);
	hear(end->from);
}

/* The pages that are in the pipe are nobody else's until it is drained. */
static void give(struct __test_metadata *_metadata, FIXTURE_DATA(quarantine) *self,
		 struct gift *gift)
{
	struct shmk_event event;
	struct child c;

	child_start(&c, giver, gift);
	ASSERT_EQ(1, child_hear(&c));
	kill(c.pid, SIGKILL);
	ASSERT_EQ(0, next_end(self, &event));
	if (gift->stays)
		ASSERT_EQ(0, shmk_queue_remove(self->s, "q"));
	EXPECT_EQ(-ENOENT, shmk_queue_remove(self->s, "q"));
	EXPECT_EQ(1, status_of(self)->quarantined);
	EXPECT_EQ(-ENOMEM, take_all(self));
	free_all(self);
	drain(self, BYTES, 0xaa, _metadata);
	EXPECT_TRUE(let_go(self));
	EXPECT_EQ(0, shmk_pool_check(self->s, NULL, 0));
	child_wait(&c);
}

TEST_F(quarantine, what_goes_with_its_queue_is_kept)
{
	struct gift gift = { .f = self };

	ASSERT_EQ(0, fix_attach(self));
	give(_metadata, self, &gift);
	gift.stays = true;
	give(_metadata, self, &gift);
}

TEST_F(quarantine, what_goes_with_its_topic_is_kept)
{
	struct gift gift = { .f = self, .topic = true };

	ASSERT_EQ(0, fix_attach(self));
	give(_metadata, self, &gift);
	gift.stays = true;
	give(_metadata, self, &gift);
}

/* Its block is too large to be looked at in passing, and free when the end is told. */
TEST_F(quarantine, a_topic_that_nobody_has_pinned_is_not_kept)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE, .nr_readers = 2,
					.msg_bytes = 4 * BYTES };
	struct shmk_pool_stat stat;
	struct shmk_topic *t;

	ASSERT_EQ(0, fix_attach(self));
	ASSERT_EQ(0, shmk_topic_open(self->s, "q", &opts, SHMK_TRY, &t));
	shmk_topic_close(t);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_LT(64 * 4096, stat.bytes_used);
	ASSERT_EQ(0, shmk_queue_remove(self->s, "q"));
	EXPECT_EQ(0, status_of(self)->quarantined);
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(0, stat.bytes_used);
}

/* ---- ledgers ---- */

static void ledger_giver(struct child_end *end, void *arg)
{
	fix_t *f = arg;
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct iovec iov;
	struct shmk *s;

	if (shmk_attach(f->uri, &opts, &s))
		_exit(91);
	iov = (struct iovec){ s->ledger, 4096 };
	if (vmsplice(f->pipe[1], &iov, 1, SPLICE_F_GIFT) != 4096)
		_exit(92);
	tell(end, (int)s->self);
	shmk_detach(s);
	tell(end, 0);
	hear(end->from);
}

/*
 * A read-only member may write its own ledger. If it could go on when that is
 * another's, it could have the settler free what others hold.
 */
TEST_F(quarantine, an_id_is_not_given_out_while_its_ledger_is_pinned)
{
	struct shmk *other;
	struct child c;
	int id;

	ASSERT_EQ(0, fix_attach(self));
	child_start(&c, ledger_giver, self);
	id = child_hear(&c);
	EXPECT_EQ(2, id);
	EXPECT_EQ(0, child_hear(&c));
	/* There are two ids, and one is mine. */
	EXPECT_EQ(-ENOSPC, shmk_attach(self->uri, NULL, &other));
	drain(self, 4096, 0, _metadata);
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &other));
	EXPECT_EQ(id, other->self);
	shmk_detach(other);
	child_tell(&c, 0);
	child_wait(&c);
}

TEST_HARNESS_MAIN
