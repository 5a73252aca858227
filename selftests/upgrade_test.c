// SPDX-License-Identifier: GPL-2.0-only
/*
 * upgrade_test.c - a library and a module that are not of one age.
 *
 * Between the library and the kernel stands this program's ioctl(). It can tell the
 * library of a module with other versions, and can cut every struct down to what version 1
 * knew: then the module meets an old library, and the library an old module, which knows
 * nothing of what came later.
 */
#include <stdarg.h>
#include <sys/syscall.h>

#include "lib_test.h"
#include "kselftest_harness.h"

static struct {
	uint32_t abi, layout;	/* told instead, unless 0 */
	bool	old;
} module;

static uint32_t size_1(unsigned long cmd)
{
	switch (cmd) {
	case SHMK_IOC_INFO:
		return SHMK_INFO_SIZE_1;
	case SHMK_IOC_QUEUE_CREATE:
		return SHMK_QUEUE_CREATE_SIZE_1;
	case SHMK_IOC_QUEUE_FD:
		return SHMK_QUEUE_FD_SIZE_1;
	default:
		return 0;
	}
}

/* What an old module does with what it does not know. */
static bool unknown(const void *arg, uint32_t from)
{
	const uint8_t *byte = arg;
	uint32_t i, size = *(const uint32_t *)arg;

	for (i = from; i < size; i++)
		if (byte[i])
			return true;
	return false;
}

/* Instead of libc's, in this program. */
int ioctl(int fd, unsigned long cmd, ...)
{
	uint32_t *size, was = 0;
	va_list ap;
	void *arg;
	long ret;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	size = arg;
	if (module.old && size_1(cmd)) {
		if (unknown(arg, size_1(cmd))) {
			errno = E2BIG;
			return -1;
		}
		was = *size;
		*size = size_1(cmd);
	}
	ret = syscall(SYS_ioctl, fd, cmd, arg);
	if (was && cmd != SHMK_IOC_INFO)
		*size = was;
	if (cmd == SHMK_IOC_INFO && !ret) {
		struct shmk_info *info = arg;

		info->abi_version = module.abi ? module.abi : info->abi_version;
		info->layout_version = module.layout ? module.layout : info->layout_version;
	}
	return (int)ret;
}

FIXTURE(upgrade)
{
	char uri[64];
	struct shmk_pool_opts pool;
	struct shmk_attach_opts opts;
};

FIXTURE_SETUP(upgrade)
{
	memset(self, 0, sizeof(*self));
	memset(&module, 0, sizeof(module));
	setenv("SHMK_TEST_BACKEND", "module", 1);
	test_uri(self->uri, "upgrade");
	self->pool.bytes = 1 << 20;
	self->opts.create = &self->pool;
}

FIXTURE_TEARDOWN(upgrade)
{
	struct shmk *s;

	memset(&module, 0, sizeof(module));
	/* What was refused has left nothing. */
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
}

static void refused(struct __test_metadata *_metadata, FIXTURE_DATA(upgrade) *self)
{
	struct shmk *s;

	EXPECT_EQ(-EPROTO, shmk_attach(self->uri, &self->opts, &s));
	EXPECT_EQ(-EPROTO, shmk_pool_create(self->uri, &self->pool));
	EXPECT_EQ(-EPROTO, shmk_pool_destroy(self->uri));
}

TEST_F(upgrade, a_module_of_another_abi_is_refused)
{
	module.abi = SHMK_ABI_VERSION + 1;
	refused(_metadata, self);
}

TEST_F(upgrade, a_module_of_another_layout_is_refused)
{
	module.layout = SHMK_LAYOUT_VERSION + 1;
	refused(_metadata, self);
}

/* Old with new, and new with old: what version 1 could do works. */
TEST_F(upgrade, structs_of_version_1_are_enough_for_a_queue)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct pollfd p = { .events = POLLIN };
	struct shmk_queue *q;
	struct shmk_msg m;
	struct shmk *s;

	module.old = true;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->opts, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &opts, SHMK_TRY, &q));
	p.fd = shmk_queue_fd(q, SHMK_RECV);
	ASSERT_LE(0, p.fd);
	EXPECT_EQ(-EAGAIN, shmk_recv(q, &m, SHMK_TRY));
	ASSERT_EQ(0, shmk_alloc(s, 1000, 0, &m));
	ASSERT_EQ(0, shmk_send(q, &m, SHMK_TRY));
	EXPECT_EQ(1, poll(&p, 1, WATCHDOG_MS));
	ASSERT_EQ(0, shmk_recv(q, &m, SHMK_TRY));
	EXPECT_EQ(1000, m.len);
	shmk_free(&m);
	EXPECT_EQ(0, shmk_pool_check(s, NULL, 0));
	shmk_detach(s);
}

TEST_F(upgrade, what_an_old_module_does_not_know_is_refused_by_name)
{
	struct shmk_topic_opts topic = { .flags = SHMK_TOPIC_CREATE, .msg_bytes = 100 };
	struct shmk_topic *t;
	struct shmk *s;

	module.old = true;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->opts, &s));
	EXPECT_EQ(-E2BIG, shmk_topic_open(s, "t", &topic, SHMK_TRY, &t));
	EXPECT_EQ(0, shmk_pool_check(s, NULL, 0));
	shmk_detach(s);
}

TEST_HARNESS_MAIN
