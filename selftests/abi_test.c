// SPDX-License-Identifier: GPL-2.0-only
/*
 * abi_test.c - what user space may rely on whatever the module does inside:
 * sizes, growth, reserved bits, the meaning and the order of errors.
 */
#include <stddef.h>
#include <sys/resource.h>

#include "raw.h"
#include "kselftest_harness.h"

#define NAME	"abi-test"

FIXTURE(abi)
{
	int dev, pool, att;
	char *page;		/* read-write; the next page cannot be touched */
	char *rdonly;		/* read-only copy target */
};

FIXTURE_SETUP(abi)
{
	self->dev = raw_device();
	ASSERT_LE(0, self->dev);
	self->pool = raw_pool_create(self->dev, NAME, MiB, 12);
	ASSERT_LE(0, self->pool);
	self->att = raw_attach(self->pool, 0, 0, NULL);
	ASSERT_LE(0, self->att);
	self->page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->page);
	ASSERT_EQ(0, mprotect(self->page + 4096, 4096, PROT_NONE));
	self->rdonly = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->rdonly);
}

FIXTURE_TEARDOWN(abi)
{
	close(self->att);
	close(self->pool);
	close(self->dev);
}

/* ------------------------------------------------------ sizes, offsets -- */

#define FIELD(type, field, at) \
	_Static_assert(offsetof(struct type, field) == (at), #type "." #field)

FIELD(shmk_pool_create, name, 8);
FIELD(shmk_pool_create, bytes, 72);
FIELD(shmk_pool_create, page_shift, 80);
FIELD(shmk_pool_create, rings_bytes, 112);
FIELD(shmk_pool_create, reserved, 120);
FIELD(shmk_pool_info, id, 8);
FIELD(shmk_pool_info, name, 16);
FIELD(shmk_pool_info, bytes, 80);
FIELD(shmk_pool_info, created_ns, 200);
FIELD(shmk_attach, peer, 12);
FIELD(shmk_queue_create, capacity, 72);
FIELD(shmk_queue_create, id, 80);
FIELD(shmk_queue_open, id, 72);
FIELD(shmk_peer_info, attached_ns, 32);
FIELD(shmk_peer_info, comm, 40);
FIELD(shmk_event, seq, 8);
FIELD(shmk_event, peer, 32);
FIELD(shmk_event, blocks, 56);
FIELD(shmk_event, comm, 80);
FIELD(shmk_status, data_bytes, 16);
FIELD(shmk_status, map_ledger, 40);
FIELD(shmk_status, page_shift, 72);
FIELD(shmk_status, peers_off, 96);
FIELD(shmk_status, epoch, 160);
FIELD(shmk_status, name, 304);
FIELD(shmk_queue_status, ring, 8);
FIELD(shmk_queue_status, name, 56);
FIELD(shmk_ring, head, 64);
FIELD(shmk_ring, waiters_recv, 128);
FIELD(shmk_ring, waiters_send, 192);

TEST(sizes_are_those_of_version_1)
{
	EXPECT_EQ(64, sizeof(struct shmk_info));
	EXPECT_EQ(128, sizeof(struct shmk_pool_create));
	EXPECT_EQ(72, sizeof(struct shmk_pool_open));
	EXPECT_EQ(72, sizeof(struct shmk_pool_destroy));
	EXPECT_EQ(72, sizeof(struct shmk_pool_reset));
	EXPECT_EQ(1104, sizeof(struct shmk_capsule));
	EXPECT_EQ(216, sizeof(struct shmk_pool_info));
	EXPECT_EQ(24, sizeof(struct shmk_attach));
	EXPECT_EQ(120, sizeof(struct shmk_queue_create));
	EXPECT_EQ(80, sizeof(struct shmk_queue_open));
	EXPECT_EQ(16, sizeof(struct shmk_queue_close));
	EXPECT_EQ(24, sizeof(struct shmk_queue_fd));
	EXPECT_EQ(40, sizeof(struct shmk_topic_subscribe));
	EXPECT_EQ(16, sizeof(struct shmk_topic_unsubscribe));
	EXPECT_EQ(16, sizeof(struct shmk_bell));
	EXPECT_EQ(16, sizeof(struct shmk_bell_cmd));
	EXPECT_EQ(56, sizeof(struct shmk_peer_info));
	EXPECT_EQ(16, sizeof(struct shmk_deadline));
	EXPECT_EQ(112, sizeof(struct shmk_event));
	EXPECT_EQ(368, sizeof(struct shmk_status));
	EXPECT_EQ(32, sizeof(struct shmk_peer_status));
	EXPECT_EQ(120, sizeof(struct shmk_queue_status));
	EXPECT_EQ(256, sizeof(struct shmk_control));
	EXPECT_EQ(256, sizeof(struct shmk_ring));
	EXPECT_EQ(64, sizeof(struct shmk_span));
}

TEST_F(abi, the_module_speaks_this_version)
{
	struct shmk_info info = { .size = sizeof(info) };

	ASSERT_EQ(0, raw(self->dev, SHMK_IOC_INFO, &info));
	EXPECT_EQ(sizeof(info), info.size);
	EXPECT_EQ(SHMK_ABI_VERSION, info.abi_version);
	EXPECT_EQ(SHMK_LAYOUT_VERSION, info.layout_version);
	EXPECT_LE(1, info.nr_pools);
	EXPECT_LE(MiB, info.total_bytes);
}

/* ---------------------------------------------------------- every command -- */

enum { DEV = 1, POOL = 2, ATT = 4 };

/* Arguments that pass all checks of form, and meet an object or are refused by one. */
static const struct command {
	const char *name;
	unsigned int cmd;
	int on;
	unsigned int size;	/* of version 1, the least */
	int result;		/* with the argument below; 1: a descriptor */
	bool flags;		/* has flags at offset 4, none of which is 1 << 31 */
} commands[] = {
	{ "INFO",	  SHMK_IOC_INFO,	 DEV,	     48, 0, false },
	{ "POOL_CREATE",  SHMK_IOC_POOL_CREATE,	 DEV,	    128, -EEXIST, true },
	{ "POOL_OPEN",	  SHMK_IOC_POOL_OPEN,	 DEV,	     72, 1, true },
	{ "POOL_DESTROY", SHMK_IOC_POOL_DESTROY, DEV,	     72, -EBUSY, true },
	{ "POOL_RESET",	  SHMK_IOC_POOL_RESET,	 DEV,	     72, -EBUSY, true },
	{ "POOL_NEXT",	  SHMK_IOC_POOL_NEXT,	 DEV,	    216, 0, false },
	{ "POOL_INFO",	  SHMK_IOC_POOL_INFO,	 POOL | ATT, 216, 0, false },
	{ "PEER_INFO",	  SHMK_IOC_PEER_INFO,	 POOL | ATT, 56, 0, false },
	{ "CAPSULE",	  SHMK_IOC_CAPSULE,	 POOL | ATT, 1104, -ENOENT, false },
	{ "EVENTS",	  SHMK_IOC_EVENTS,	 POOL | ATT, 0, 1, false },
	{ "ATTACH",	  SHMK_IOC_ATTACH,	 POOL,	     24, 1, true },
	{ "QUEUE_CREATE", SHMK_IOC_QUEUE_CREATE, ATT,	     88, 0, true },
	{ "QUEUE_OPEN",	  SHMK_IOC_QUEUE_OPEN,	 ATT,	     80, -ENOENT, true },
	{ "QUEUE_CLOSE",  SHMK_IOC_QUEUE_CLOSE,	 ATT,	     16, -ENOENT, true },
	{ "QUEUE_REMOVE", SHMK_IOC_QUEUE_REMOVE, ATT,	     16, -ENOENT, true },
	{ "QUEUE_FD",	  SHMK_IOC_QUEUE_FD,	 ATT,	     16, -ENOENT, true },
	{ "BELL",	  SHMK_IOC_BELL,	 ATT,	     16, 0, false },
	{ "SUBSCRIBE",	  SHMK_IOC_TOPIC_SUBSCRIBE, ATT,     40, -ENOENT, true },
	{ "UNSUBSCRIBE",  SHMK_IOC_TOPIC_UNSUBSCRIBE, ATT,   16, -ENOENT, true },
	{ "RELEASE",	  SHMK_IOC_RELEASE,	 ATT,	     0, 0, false },
	{ "QUEUE_DRAIN",  SHMK_IOC_QUEUE_DRAIN,	 ATT,	     16, -ENOENT, true },
	{ "DEADLINE",	  SHMK_IOC_DEADLINE,	 ATT,	     16, 0, true },
	{ "DETACH",	  SHMK_IOC_DETACH,	 ATT,	     0, 0, false },
};

#define for_each_command(c) \
	for (const struct command *c = commands; c < commands + sizeof(commands) / sizeof(*commands); c++)

static struct shmk_bell_one bell_one;

/* Fills @at, which has room for some more than the struct. */
static void fill(const struct command *c, void *at, uint32_t size)
{
	memset(at, 0, size);
	switch (c->cmd) {
	case SHMK_IOC_POOL_CREATE:
		*(struct shmk_pool_create *)at = raw_pool_args(NAME, MiB, 12);
		break;
	case SHMK_IOC_POOL_OPEN:
	case SHMK_IOC_POOL_DESTROY:
	case SHMK_IOC_POOL_RESET:
		strcpy(((struct shmk_pool_open *)at)->name, NAME);
		break;
	case SHMK_IOC_QUEUE_CREATE:
		strcpy(((struct shmk_queue_create *)at)->name, "q");
		((struct shmk_queue_create *)at)->capacity = 4;
		break;
	case SHMK_IOC_QUEUE_OPEN:
		strcpy(((struct shmk_queue_open *)at)->name, "none");
		break;
	case SHMK_IOC_BELL:
		((struct shmk_bell *)at)->nr = 1;
		((struct shmk_bell *)at)->bells = (uintptr_t)&bell_one;
		break;
	}
	*(uint32_t *)at = size;
}

static int file_for(const FIXTURE_DATA(abi) *self, int on)
{
	return on & DEV ? self->dev : on & POOL ? self->pool : self->att;
}

static int call(const FIXTURE_DATA(abi) *self, const struct command *c, void *arg)
{
	return raw(file_for(self, c->on), c->cmd, arg);
}

/* As expected by the table; what it made is taken away again. */
static bool as_table(const FIXTURE_DATA(abi) *self, const struct command *c, void *arg, int ret)
{
	struct shmk_queue_create *q = arg;

	if (c->cmd == SHMK_IOC_QUEUE_CREATE && !ret) {
		raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, q->id, q->gen);
		raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, q->id, q->gen);
	}
	if (c->result != 1)
		return ret == c->result;
	if (ret > 0)
		close(ret);
	return ret > 0;
}

TEST_F(abi, every_command_takes_its_own_size)
{
	char buf[2048];

	for_each_command(c) {
		int ret;

		fill(c, buf, c->size);
		ret = call(self, c, buf);
		EXPECT_TRUE(as_table(self, c, buf, ret))
			TH_LOG("%s gave %d", c->name, ret);
	}
}

TEST_F(abi, a_size_too_small_is_EINVAL)
{
	char buf[2048];

	for_each_command(c) {
		if (!c->size)
			continue;
		fill(c, buf, c->size);
		*(uint32_t *)buf = 0;
		EXPECT_EQ(-EINVAL, call(self, c, buf)) TH_LOG("%s", c->name);
		*(uint32_t *)buf = c->size - 1;
		EXPECT_EQ(-EINVAL, call(self, c, buf)) TH_LOG("%s", c->name);
	}
}

/* Some have grown since version 1. */
static unsigned int grown(const struct command *c)
{
	switch (c->cmd) {
	case SHMK_IOC_INFO:
		return 64;
	case SHMK_IOC_QUEUE_CREATE:
		return 120;
	case SHMK_IOC_QUEUE_FD:
		return 24;
	default:
		return c->size;
	}
}

TEST_F(abi, a_larger_size_is_taken_when_the_rest_is_zero)
{
	char buf[2048];

	for_each_command(c) {
		int ret;

		if (!c->size)
			continue;
		fill(c, buf, grown(c));
		ret = call(self, c, buf);
		EXPECT_TRUE(as_table(self, c, buf, ret))
			TH_LOG("%s gave %d", c->name, ret);
		fill(c, buf, grown(c) + 8);
		ret = call(self, c, buf);
		EXPECT_TRUE(as_table(self, c, buf, ret))
			TH_LOG("%s gave %d", c->name, ret);
	}
}

TEST_F(abi, a_larger_size_with_something_in_it_is_E2BIG)
{
	char buf[2048];

	for_each_command(c) {
		if (!c->size)
			continue;
		fill(c, buf, grown(c) + 8);
		buf[grown(c) + 7] = 1;
		EXPECT_EQ(-E2BIG, call(self, c, buf)) TH_LOG("%s", c->name);
		*(uint32_t *)buf = 4097;
		EXPECT_EQ(-E2BIG, call(self, c, buf)) TH_LOG("%s", c->name);
	}
}

TEST_F(abi, what_cannot_be_read_is_EFAULT)
{
	for_each_command(c) {
		char *cut = self->page + 4096 - 8;

		if (!c->size)
			continue;
		EXPECT_EQ(-EFAULT, call(self, c, NULL)) TH_LOG("%s", c->name);
		*(uint32_t *)cut = c->size;
		EXPECT_EQ(-EFAULT, call(self, c, cut)) TH_LOG("%s", c->name);
	}
}

TEST_F(abi, nothing_is_touched_behind_the_struct)
{
	for_each_command(c) {
		char *at = self->page + 4096 - c->size;
		int ret;

		if (!c->size)
			continue;
		fill(c, at, c->size);
		ret = call(self, c, at);
		EXPECT_TRUE(as_table(self, c, at, ret))
			TH_LOG("%s gave %d", c->name, ret);
	}
}

TEST_F(abi, unknown_flags_are_EINVAL_before_anything_else)
{
	char buf[2048];

	for_each_command(c) {
		if (!c->flags)
			continue;
		/* Of objects that do not exist: form is checked first. */
		memset(buf, 0, sizeof(buf));
		fill(c, buf, c->size);
		((uint32_t *)buf)[1] = 1U << 31;
		EXPECT_EQ(-EINVAL, call(self, c, buf)) TH_LOG("%s", c->name);
	}
}

TEST_F(abi, a_command_of_another_file_is_ENOTTY)
{
	char buf[2048];

	for_each_command(c) {
		for (int on = DEV; on <= ATT; on <<= 1) {
			if (c->on & on)
				continue;
			fill(c, buf, c->size);
			EXPECT_EQ(-ENOTTY, raw(file_for(self, on), c->cmd, buf))
				TH_LOG("%s on %d", c->name, on);
		}
	}
}

TEST_F(abi, an_unknown_command_is_ENOTTY)
{
	char buf[2048] = { 0 };

	for (int on = DEV; on <= ATT; on <<= 1) {
		EXPECT_EQ(-ENOTTY, raw(file_for(self, on), _IO(SHMK_IOC, 0x0f), buf));
		EXPECT_EQ(-ENOTTY, raw(file_for(self, on), _IO(SHMK_IOC, 0x2f), buf));
		EXPECT_EQ(-ENOTTY, raw(file_for(self, on), _IO(SHMK_IOC, 0xff), buf));
		EXPECT_EQ(-ENOTTY, raw(file_for(self, on), _IO(SHMK_IOC ^ 1, 0), buf));
		EXPECT_EQ(-ENOTTY, raw(file_for(self, on), _IOWR(SHMK_IOC, 0, struct shmk_info), buf));
	}
}

TEST_F(abi, queue_and_event_files_have_no_commands)
{
	char buf[2048] = { 0 };
	uint32_t id;
	int side, events;

	ASSERT_EQ(0, raw_queue_create(self->att, "q", 4, &id, NULL));
	side = raw_queue_fd(self->att, id, SHMK_SIDE_RECV);
	ASSERT_LE(0, side);
	events = raw(self->pool, SHMK_IOC_EVENTS, NULL);
	ASSERT_LE(0, events);
	for_each_command(c) {
		fill(c, buf, c->size);
		EXPECT_EQ(-ENOTTY, raw(side, c->cmd, buf)) TH_LOG("%s", c->name);
		EXPECT_EQ(-ENOTTY, raw(events, c->cmd, buf)) TH_LOG("%s", c->name);
	}
	close(side);
	close(events);
}

TEST_F(abi, descriptors_are_close_on_exec)
{
	uint32_t id;
	int fd[5];

	ASSERT_EQ(0, raw_queue_create(self->att, "q", 4, &id, NULL));
	fd[0] = raw_pool_open(self->dev, NAME, 0);
	fd[1] = raw_attach(self->pool, 0, 0, NULL);
	fd[2] = raw(self->pool, SHMK_IOC_EVENTS, NULL);
	fd[3] = raw_queue_fd(self->att, id, SHMK_SIDE_SEND);
	fd[4] = raw_pool_create(self->dev, NULL, MiB, 12);
	for (int i = 0; i < 5; i++) {
		ASSERT_LE(0, fd[i]);
		EXPECT_EQ(FD_CLOEXEC, fcntl(fd[i], F_GETFD));
		close(fd[i]);
	}
}

/* -------------------------------------------------- a failure leaves no trace -- */

/* Copies an argument to where it can be read but not written. */
static void *read_only(FIXTURE_DATA(abi) *self, const void *arg, size_t size)
{
	mprotect(self->rdonly, 4096, PROT_READ | PROT_WRITE);
	memcpy(self->rdonly, arg, size);
	mprotect(self->rdonly, 4096, PROT_READ);
	return self->rdonly;
}

TEST_F(abi, an_attach_that_cannot_tell_its_id_leaves_no_peer)
{
	struct shmk_attach a = { .size = sizeof(a) };
	struct shmk_pool_info info;
	int next_fd = dup(0);

	close(next_fd);
	EXPECT_EQ(-EFAULT, raw(self->pool, SHMK_IOC_ATTACH, read_only(self, &a, sizeof(a))));
	ASSERT_EQ(0, raw_pool_info(self->pool, &info));
	EXPECT_EQ(1, info.peers_now);
	EXPECT_EQ(1, info.attaches);
	EXPECT_EQ(0, info.detaches + info.deaths);
	/* The id is free again, and so is the descriptor. */
	EXPECT_EQ(next_fd, raw_attach(self->pool, 0, 0, &a));
	EXPECT_EQ(2, a.peer);
	EXPECT_EQ(1, a.gen);
	close(next_fd);
}

TEST_F(abi, a_queue_that_cannot_tell_its_id_is_not_there)
{
	struct shmk_queue_create a = { .size = sizeof(a), .name = "q", .capacity = 4 };
	uint32_t id, gen;

	EXPECT_EQ(-EFAULT, raw(self->att, SHMK_IOC_QUEUE_CREATE, read_only(self, &a, sizeof(a))));
	EXPECT_EQ(-ENOENT, raw_queue_open(self->att, "q", NULL, NULL));
	ASSERT_EQ(0, raw_queue_create(self->att, "q", 4, &id, &gen));
	EXPECT_EQ(0, id);
	EXPECT_EQ(1, gen);
}

TEST_F(abi, an_open_that_cannot_tell_its_id_is_closed)
{
	struct shmk_queue_open a = { .size = sizeof(a), .name = "q" };
	uint32_t id, gen;

	ASSERT_EQ(0, raw_queue_create(self->att, "q", 4, &id, &gen));
	EXPECT_EQ(-EFAULT, raw(self->att, SHMK_IOC_QUEUE_OPEN, read_only(self, &a, sizeof(a))));
	EXPECT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_EQ(-ENOENT, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, id, gen));
	EXPECT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, id, gen));
}

TEST_F(abi, a_pool_without_room_for_its_descriptor_is_not_there)
{
	struct rlimit old, none = { 0 };
	int ret;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none.rlim_max = old.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	ret = raw_pool_create(self->dev, "abi-nofile", MiB, 12);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_EQ(-EMFILE, ret);
	EXPECT_EQ(-ENOENT, raw_pool_open(self->dev, "abi-nofile", 0));
}

/* ------------------------------------------------------------ pool values -- */

static int create(const FIXTURE_DATA(abi) *self, struct shmk_pool_create a)
{
	int fd = raw(self->dev, SHMK_IOC_POOL_CREATE, &a);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* Tries a value of one field in an anonymous pool that is fine but for it. */
#define CREATE(field, value) ({						\
	struct shmk_pool_create a_ = raw_pool_args(NULL, MiB, 12);	\
	a_.field = (value);						\
	create(self, a_);						\
})

TEST_F(abi, pool_create_checks_every_value)
{
	EXPECT_EQ(-EINVAL, CREATE(flags, 4));
	EXPECT_EQ(-EINVAL, CREATE(reserved, 1));
	EXPECT_EQ(-EINVAL, CREATE(bytes, 0));
	EXPECT_EQ(-EINVAL, CREATE(bytes, 4096));
	EXPECT_EQ(-EINVAL, CREATE(bytes, MiB + 4096));
	EXPECT_EQ(-EINVAL, CREATE(bytes, MiB + 1));
	EXPECT_EQ(0, CREATE(bytes, 65536));
	EXPECT_EQ(-EINVAL, CREATE(bytes, ~0ULL));
	EXPECT_EQ(-EINVAL, CREATE(bytes, 1ULL << 63));
	EXPECT_EQ(-EINVAL, CREATE(page_shift, 0));
	EXPECT_EQ(-EINVAL, CREATE(page_shift, 13));
	EXPECT_EQ(-EINVAL, CREATE(page_shift, 30));
	EXPECT_EQ(-EINVAL, CREATE(page_shift, 21));	/* 1 MiB is no multiple */
	EXPECT_EQ(-EINVAL, CREATE(unit_shift, 7));
	EXPECT_EQ(-EINVAL, CREATE(unit_shift, 17));
	EXPECT_EQ(-EINVAL, CREATE(unit_shift, 64));
	EXPECT_EQ(-EINVAL, CREATE(unit_shift, 13));	/* a span is 2 MiB then */
	EXPECT_EQ(0, CREATE(unit_shift, 12));
	EXPECT_EQ(-EINVAL, CREATE(node, -2));
	EXPECT_EQ(-EINVAL, CREATE(node, 1023));
	EXPECT_EQ(-EINVAL, CREATE(node, 0x7fffffff));
	EXPECT_EQ(0, CREATE(node, 0));
	EXPECT_EQ(-EINVAL, CREATE(mode, 0777));
	EXPECT_EQ(-EINVAL, CREATE(mode, 01600));
	EXPECT_EQ(-EINVAL, CREATE(nr_peers, SHMK_PEERS_MAX + 1));
	EXPECT_EQ(0, CREATE(nr_peers, SHMK_PEERS_MAX));
	EXPECT_EQ(-EINVAL, CREATE(nr_queues, SHMK_QUEUES_MAX + 1));
	EXPECT_EQ(0, CREATE(nr_queues, SHMK_QUEUES_MAX));
	EXPECT_EQ(-EINVAL, CREATE(rings_bytes, ~0ULL));
	EXPECT_EQ(-EINVAL, CREATE(rings_bytes, 1ULL << 44));
	EXPECT_EQ(0, CREATE(rings_bytes, 1));
	EXPECT_EQ(0, CREATE(flags, SHMK_POOL_F_NO_QUARANTINE));
	/* Persistent, and nobody could ever find it. */
	EXPECT_EQ(-EINVAL, CREATE(flags, SHMK_POOL_F_PERSIST));
}

TEST_F(abi, what_cannot_fit_is_ENOMEM)
{
	EXPECT_EQ(-ENOMEM, CREATE(bytes, 1ULL << 40));
	EXPECT_EQ(-ENOMEM, CREATE(bytes, 1ULL << 44));
	EXPECT_EQ(-EINVAL, CREATE(bytes, 1ULL << 45));
	EXPECT_EQ(-ENOMEM, CREATE(rings_bytes, 1ULL << 43));
}

TEST_F(abi, names_are_of_letters_digits_dot_dash_underscore)
{
	static const char *const bad[] = {
		".x", "-x", "a/b", "a b", "\xc3\xa4", "a\n", "..", "a:b",
	};
	struct shmk_pool_create a = raw_pool_args(NULL, MiB, 12);
	struct shmk_pool_open o = { .size = sizeof(o) };

	for (unsigned int i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		snprintf(a.name, sizeof(a.name), "%s", bad[i]);
		EXPECT_EQ(-EINVAL, create(self, a)) TH_LOG("%s", bad[i]);
		EXPECT_EQ(-EINVAL, raw_pool_open(self->dev, bad[i], 0));
		EXPECT_EQ(-EINVAL, raw_pool_destroy(self->dev, bad[i]));
		EXPECT_EQ(-EINVAL, raw_pool_reset(self->dev, bad[i], SHMK_RESET_F_FORCE));
		EXPECT_EQ(-EINVAL, raw_queue_create(self->att, bad[i], 4, NULL, NULL));
		EXPECT_EQ(-EINVAL, raw_queue_open(self->att, bad[i], NULL, NULL));
	}
	EXPECT_EQ(-EINVAL, raw_pool_open(self->dev, "", 0));
	EXPECT_EQ(-EINVAL, raw_queue_create(self->att, "", 4, NULL, NULL));
	memset(a.name, 'x', sizeof(a.name));
	EXPECT_EQ(-EINVAL, create(self, a));
	memset(o.name, 'x', sizeof(o.name));
	EXPECT_EQ(-EINVAL, raw(self->dev, SHMK_IOC_POOL_OPEN, &o));
	a.name[63] = 0;
	EXPECT_EQ(0, create(self, a));
	/* A NUL at the front and something behind it is neither anonymous nor a name. */
	a = raw_pool_args(NULL, MiB, 12);
	a.name[5] = 'x';
	EXPECT_EQ(-EINVAL, create(self, a));
}

/* ----------------------------------------------------------- other values -- */

TEST_F(abi, attach_checks_every_value)
{
	struct shmk_attach a = { .size = sizeof(a), .reserved = 1 };
	int rdonly;

	EXPECT_EQ(-EINVAL, raw(self->pool, SHMK_IOC_ATTACH, &a));
	EXPECT_EQ(-EINVAL, raw_attach(self->pool, 2, 0, NULL));
	EXPECT_EQ(-EINVAL, raw_attach(self->pool, 0, SHMK_ENTRIES_MAX + 1, NULL));
	rdonly = raw_pool_open(self->dev, NAME, SHMK_OPEN_F_RDONLY);
	ASSERT_LE(0, rdonly);
	EXPECT_EQ(-EACCES, raw_attach(rdonly, 0, 0, NULL));
	EXPECT_EQ(-EINVAL, raw_attach(rdonly, 2, 0, NULL));
	close(rdonly);
}

TEST_F(abi, queue_create_checks_every_value)
{
	struct shmk_queue_create a = { .size = sizeof(a), .name = "q", .capacity = 4 };
	static const uint32_t capacities[] = { 0, 3, 5, 2 * SHMK_CAPACITY_MAX, 0x80000000 };
	static const uint32_t slots[] = { 1, 16, 32, 63, 65, 512, 0x80000000 };

	for (unsigned int i = 0; i < sizeof(capacities) / sizeof(*capacities); i++)
		EXPECT_EQ(-EINVAL, raw_queue_create(self->att, "q", capacities[i], NULL, NULL));
	for (unsigned int i = 0; i < sizeof(slots) / sizeof(*slots); i++) {
		a.slot_bytes = slots[i];
		EXPECT_EQ(-EINVAL, raw(self->att, SHMK_IOC_QUEUE_CREATE, &a));
	}
	EXPECT_EQ(-ENOSPC, raw_queue_create(self->att, "q", SHMK_CAPACITY_MAX, NULL, NULL));
	EXPECT_EQ(0, raw_queue_create(self->att, "q", 1, NULL, NULL));
	EXPECT_EQ(-EEXIST, raw_queue_create(self->att, "q", 1, NULL, NULL));
	EXPECT_EQ(-EINVAL, raw_queue_create(self->att, "q", 3, NULL, NULL));
}

TEST_F(abi, queue_ids_out_of_range_are_ENOENT)
{
	static const uint32_t ids[] = { 1, 1023, 1024, 0xffff, 0x10000, 0xffffffff };

	for (unsigned int i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		EXPECT_EQ(-ENOENT, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, ids[i], 0));
		EXPECT_EQ(-ENOENT, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, ids[i], 0));
		EXPECT_EQ(-ENOENT, raw_queue_fd(self->att, ids[i], SHMK_SIDE_RECV));
	}
	EXPECT_EQ(-EINVAL, raw_queue_fd(self->att, 0, 2));
}

TEST_F(abi, bells_are_checked_before_one_rings)
{
	struct shmk_bell_one one[SHMK_BELLS_MAX] = { 0 };
	struct shmk_bell a = { .size = sizeof(a), .bells = (uintptr_t)one };

	EXPECT_EQ(-EINVAL, raw(self->att, SHMK_IOC_BELL, &a));
	a.nr = SHMK_BELLS_MAX + 1;
	EXPECT_EQ(-EINVAL, raw(self->att, SHMK_IOC_BELL, &a));
	a.nr = SHMK_BELLS_MAX;
	EXPECT_EQ(0, raw(self->att, SHMK_IOC_BELL, &a));
	a.bells = 8;
	EXPECT_EQ(-EFAULT, raw(self->att, SHMK_IOC_BELL, &a));
	EXPECT_EQ(-EINVAL, raw_bell(self->att, 1024, 0));
	EXPECT_EQ(-EINVAL, raw_bell(self->att, 0, 2));
}

TEST_F(abi, a_detached_attachment_answers_ENXIO)
{
	char buf[2048];

	ASSERT_EQ(0, raw_detach(self->att));
	for_each_command(c) {
		int expect = c->on & POOL ? c->result : -ENXIO;
		int ret;

		if (!(c->on & ATT))
			continue;
		fill(c, buf, c->size);
		if (c->cmd == SHMK_IOC_PEER_INFO)
			expect = -ENOENT;	/* it was the only peer */
		ret = raw(self->att, c->cmd, buf);
		EXPECT_TRUE(expect == 1 ? ret > 0 : ret == expect)
			TH_LOG("%s gave %d", c->name, ret);
		/* Form first: also of the dead. */
		if (!c->size)
			continue;
		*(uint32_t *)buf = 0;
		EXPECT_EQ(-EINVAL, raw(self->att, c->cmd, buf)) TH_LOG("%s", c->name);
	}
	EXPECT_EQ(MAP_FAILED, raw_map(self->att, PROT_READ, 0, 4096));
	EXPECT_EQ(ENXIO, errno);
}

TEST_F(abi, events_are_read_whole)
{
	struct shmk_event ev;
	int events = raw(self->pool, SHMK_IOC_EVENTS, NULL);

	ASSERT_LE(0, events);
	ASSERT_EQ(0, fcntl(events, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-1, read(events, &ev, sizeof(ev) - 1));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, read(events, &ev, sizeof(ev)));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, lseek(events, 0, SEEK_SET));
	EXPECT_EQ(ESPIPE, errno);
	ASSERT_EQ(0, raw_queue_create(self->att, "q", 4, NULL, NULL));
	EXPECT_EQ(-1, read(events, self->page + 4096, sizeof(ev)));
	EXPECT_EQ(EFAULT, errno);
	/* What could not be handed out is still there. */
	EXPECT_EQ(sizeof(ev), read(events, &ev, sizeof(ev)));
	EXPECT_EQ(SHMK_EV_QUEUE_CREATED, ev.type);
	close(events);
}

TEST_F(abi, a_slow_reader_is_told_how_many_it_missed)
{
	struct shmk_event ev[2];
	uint32_t id, gen;

	ASSERT_EQ(0, fcntl(self->pool, F_SETFL, O_NONBLOCK));
	while (read(self->pool, ev, sizeof(ev)) > 0)
		;
	for (int i = 0; i < 600; i++) {
		ASSERT_EQ(0, raw_queue_create(self->att, "q", 4, &id, &gen));
		ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_CLOSE, id, gen));
		ASSERT_EQ(0, raw_queue_close(self->att, SHMK_IOC_QUEUE_REMOVE, id, gen));
	}
	ASSERT_EQ(sizeof(ev), read(self->pool, ev, sizeof(ev)));
	EXPECT_EQ(SHMK_EV_LOST, ev[0].type);
	EXPECT_EQ(1200 - 1024, ev[0].code);
	EXPECT_EQ(ev[0].seq + 1, ev[1].seq);
	EXPECT_EQ(SHMK_EV_QUEUE_CREATED, ev[1].type);
}

TEST_HARNESS_MAIN
