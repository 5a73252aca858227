// SPDX-License-Identifier: GPL-2.0-only
/*
 * readonly_test.c - a read-only member tries everything to write.
 *
 * Beside what map_test has (mprotect, /proc/self/mem, opening the file again): every
 * other way that the kernel knows of to put bytes somewhere on a process's behalf. Each must
 * be refused, and whatever it is answered, data and control are the same before and
 * after, and the member can be settled.
 */
#include <liburing.h>
#include <linux/userfaultfd.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "shmk_test.h"
#include "kselftest_harness.h"

#define POOL_BYTES	(2 * MiB)
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

FIXTURE(readonly)
{
	int device, pool;
	struct test_att full;
	unsigned char *data, *control;	/* as they are to stay */
};

FIXTURE_VARIANT(readonly)
{
	uint32_t page_shift;
};

FIXTURE_VARIANT_ADD(readonly, pages_4k) { .page_shift = 12 };
FIXTURE_VARIANT_ADD(readonly, pages_2m) { .page_shift = 21 };

FIXTURE_SETUP(readonly)
{
	uint64_t i;

	self->device = raw_device();
	ASSERT_LE(0, self->device);
	self->pool = raw_pool_create(self->device, NULL, POOL_BYTES, variant->page_shift);
	if (variant->page_shift == 21 && !raw_has_pmds()) {
		EXPECT_EQ(-EOPNOTSUPP, self->pool);
		SKIP(return, "this kernel has no transparent huge pages");
	}
	ASSERT_LE(0, self->pool);
	ASSERT_EQ(0, test_attach(self->pool, 0, 0, &self->full));
	ASSERT_EQ(0, raw_queue_create(self->full.fd, "q", 4, NULL, NULL));
	for (i = 0; i < POOL_BYTES; i++)
		self->full.data[i] = i * 7;
	self->data = malloc(POOL_BYTES);
	self->control = malloc(self->full.control_bytes);
	memcpy(self->data, self->full.data, POOL_BYTES);
	memcpy(self->control, self->full.control, self->full.control_bytes);
}

FIXTURE_TEARDOWN(readonly)
{
	if (!self->data)
		return;
	EXPECT_EQ(0, memcmp(self->data, self->full.data, POOL_BYTES));
	EXPECT_EQ(0, memcmp(self->control, self->full.control, self->full.control_bytes));
	free(self->data);
	free(self->control);
	test_close(&self->full);
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

typedef FIXTURE_DATA(readonly) readonly_t;

/* All that a read-only member can reach of others: each a page of it. */
struct target {
	unsigned char *at[4];
};

static struct test_att member(readonly_t *f, struct target *t)
{
	struct test_att a;

	CHILD_CHECK(!test_attach(f->pool, SHMK_ATTACH_F_RDONLY, 0, &a));
	t->at[0] = a.data;
	t->at[1] = a.data + POOL_BYTES - 4096;
	t->at[2] = a.control;
	t->at[3] = (unsigned char *)a.status;
	return a;
}

#define for_each_target(p, t) \
	for (unsigned char **p = (t)->at; p < (t)->at + ARRAY_SIZE((t)->at); p++)

/* @answer must be one of these errnos, and above all no success. */
#define REFUSED(answer, ...) do {						\
	static const int errnos_[] = { __VA_ARGS__ };				\
	long answer_ = (answer);						\
	unsigned int i_;							\
	for (i_ = 0; i_ < ARRAY_SIZE(errnos_) && errno != errnos_[i_]; i_++)	\
		;								\
	if (answer_ != -1 || i_ == ARRAY_SIZE(errnos_)) {			\
		fprintf(stderr, "# line %d: %s gave %ld, errno %d\n", __LINE__,	\
			#answer, answer_, errno);				\
		_exit(99);							\
	}									\
} while (0)

/* ---- system calls that fill a buffer ---- */

static int reads_into_it(int sock, void *arg)
{
	struct target t;
	struct iovec iov, from;
	char bytes[64] = "spoiled";
	int fds[2], socks[2];

	(void)sock;
	member(arg, &t);
	CHILD_CHECK(!pipe2(fds, O_CLOEXEC | O_NONBLOCK));
	CHILD_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks));
	for_each_target(p, &t) {
		CHILD_CHECK(write(fds[1], bytes, sizeof(bytes)) == sizeof(bytes));
		CHILD_CHECK(write(socks[1], bytes, sizeof(bytes)) == sizeof(bytes));
		iov = (struct iovec){ *p, sizeof(bytes) };
		REFUSED(read(fds[0], *p, sizeof(bytes)), EFAULT);
		REFUSED(readv(fds[0], &iov, 1), EFAULT);
		/* Out of a pipe, into memory. */
		REFUSED(vmsplice(fds[0], &iov, 1, 0), EFAULT);
		REFUSED(recv(socks[0], *p, sizeof(bytes), 0), EFAULT);
		REFUSED(syscall(SYS_getrandom, *p, sizeof(bytes), 0), EFAULT);
		from = (struct iovec){ bytes, sizeof(bytes) };
		/* The debug kernel has no such call. */
		REFUSED(process_vm_writev(getpid(), &from, 1, &iov, 1, 0), EFAULT, ENOSYS);
		REFUSED(ioctl(fds[0], FIONREAD, *p), EFAULT);
	}
	return 0;
}

TEST_F(readonly, no_system_call_fills_it)
{
	EXPECT_EQ(0, test_child_run(reads_into_it, self));
}

/* ---- pages in a pipe ---- */

/* What is written into a pipe next must not land on a page that was spliced there. */
static int splices_out_of_it(int sock, void *arg)
{
	struct target t;
	struct iovec iov;
	char bytes[64] = "spoiled";
	int fds[2], more[2];

	(void)sock;
	member(arg, &t);
	CHILD_CHECK(!pipe2(fds, O_CLOEXEC) && !pipe2(more, O_CLOEXEC));
	for_each_target(p, &t) {
		/* A pipe whose buffers were all in use before, and mergeable. */
		CHILD_CHECK(write(fds[1], bytes, sizeof(bytes)) == sizeof(bytes));
		CHILD_CHECK(read(fds[0], bytes, sizeof(bytes)) == sizeof(bytes));
		iov = (struct iovec){ *p, 16 };
		if (vmsplice(fds[1], &iov, 1, SPLICE_F_GIFT) != 16)
			continue;
		CHILD_CHECK(write(fds[1], bytes, sizeof(bytes)) == sizeof(bytes));
		CHILD_CHECK(tee(fds[0], more[1], 80, 0) > 0);
		CHILD_CHECK(write(more[1], bytes, sizeof(bytes)) == sizeof(bytes));
		while (read(fds[0], bytes, sizeof(bytes)) == sizeof(bytes))
			;
		close(fds[0]);
		close(fds[1]);
		close(more[0]);
		close(more[1]);
		CHILD_CHECK(!pipe2(fds, O_CLOEXEC) && !pipe2(more, O_CLOEXEC));
	}
	return 0;
}

TEST_F(readonly, what_was_spliced_out_is_not_written_in_the_pipe)
{
	EXPECT_EQ(0, test_child_run(splices_out_of_it, self));
}

/* ---- io_uring ---- */

#define NO_URING	96

static int reads_by_ring(int sock, void *arg)
{
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct target t;
	struct iovec iov;
	int fds[2];

	(void)sock;
	member(arg, &t);
	if (io_uring_queue_init(4, &ring, 0))
		return NO_URING;
	CHILD_CHECK(!pipe2(fds, O_CLOEXEC));
	for_each_target(p, &t) {
		CHILD_CHECK(write(fds[1], "spoiled", 8) == 8);
		sqe = io_uring_get_sqe(&ring);
		io_uring_prep_read(sqe, fds[0], *p, 8, -1);
		CHILD_CHECK(io_uring_submit_and_wait(&ring, 1) == 1);
		CHILD_CHECK(!io_uring_peek_cqe(&ring, &cqe) && cqe->res == -EFAULT);
		io_uring_cqe_seen(&ring, cqe);
		iov = (struct iovec){ *p, 4096 };
		CHILD_CHECK(io_uring_register_buffers(&ring, &iov, 1) < 0);
	}
	return 0;
}

TEST_F(readonly, no_ring_fills_it_nor_registers_it)
{
	int ret = test_child_run(reads_by_ring, self);

	if (ret == NO_URING)
		SKIP(return, "no io_uring");
	EXPECT_EQ(0, ret);
}

/* ---- what can be done to a mapping ---- */

static int works_on_the_mapping(int sock, void *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg;
	struct target t;
	struct test_att a;
	int uffd;

	(void)sock;
	a = member(arg, &t);
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	for_each_target(p, &t) {
		REFUSED(mprotect(*p, 4096, PROT_READ | PROT_WRITE), EACCES);
		REFUSED(mprotect(*p, 4096, PROT_WRITE), EACCES);
		REFUSED(madvise(*p, 4096, MADV_REMOVE), EACCES, EINVAL);
		REFUSED(madvise(*p, 4096, MADV_POPULATE_WRITE), EINVAL, EFAULT);
		REFUSED(madvise(*p, 4096, MADV_FREE), EINVAL);
		/* Takes away the page table entries, and nothing else. */
		CHILD_CHECK(!madvise(*p, 4096, MADV_DONTNEED));
		madvise(*p, 4096, MADV_DOFORK);
		madvise(*p, 4096, MADV_KEEPONFORK);
		REFUSED((long)mremap(*p, 4096, 8192, MREMAP_MAYMOVE), EINVAL, EFAULT);
		REFUSED((long)mremap(*p, 0, 4096, MREMAP_MAYMOVE), EINVAL, EFAULT);
		if (uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api)) {
			reg = (struct uffdio_register){
				.range = { (uintptr_t)*p, 4096 },
				.mode = UFFDIO_REGISTER_MODE_MISSING,
			};
			REFUSED(ioctl(uffd, UFFDIO_REGISTER, &reg), EINVAL, EPERM, EBUSY);
		}
	}
	REFUSED((long)raw_map(a.fd, PROT_READ | PROT_WRITE, a.status ? (3ULL << 44) : 0, 4096),
		EACCES);
	REFUSED((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, a.fd, 3LL << 44),
		EINVAL, EACCES);
	REFUSED(pwrite(a.fd, "x", 1, 3LL << 44), EINVAL, ESPIPE, EBADF, EOPNOTSUPP);
	REFUSED(ftruncate(a.fd, 0), EINVAL, EPERM, EACCES, EOPNOTSUPP);
	REFUSED(fallocate(a.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3LL << 44, 4096),
		EOPNOTSUPP, ENODEV, EPERM, ESPIPE);
	return 0;
}

TEST_F(readonly, no_call_on_the_mapping_or_the_file_makes_it_writable)
{
	EXPECT_EQ(0, test_child_run(works_on_the_mapping, self));
}

/* ---- from outside, with all rights ---- */

static int is_worked_on(int sock, void *arg)
{
	struct target t;

	member(arg, &t);
	CHILD_CHECK(!test_say(sock, (uintptr_t)t.at[0], (uintptr_t)t.at[2], 0));
	test_park(sock);
}

/* A debugger writes where its victim may not; but not through a shared mapping like this. */
TEST_F(readonly, a_debugger_of_the_member_cannot_either)
{
	char bytes[64] = "spoiled", path[64];
	struct test_child c;
	struct iovec from = { bytes, sizeof(bytes) }, to;
	struct test_msg m;
	int i, mem, status;

	ASSERT_EQ(0, test_child_start(&c, is_worked_on, self));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	snprintf(path, sizeof(path), "/proc/%d/mem", c.pid);
	mem = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, mem);
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, c.pid, NULL, NULL));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, c.pid, NULL, NULL));
	ASSERT_EQ(c.pid, waitpid(c.pid, &status, __WALL));
	for (i = 0; i < 2; i++) {
		to = (struct iovec){ (void *)(uintptr_t)m.v[i], sizeof(bytes) };
		EXPECT_EQ(-1, ptrace(PTRACE_POKEDATA, c.pid, (void *)(uintptr_t)m.v[i], (void *)-1L));
		EXPECT_EQ(-1, process_vm_writev(c.pid, &from, 1, &to, 1, 0));
		EXPECT_EQ(-1, pwrite(mem, bytes, sizeof(bytes), (off_t)m.v[i]));
	}
	close(mem);
	EXPECT_EQ(0, ptrace(PTRACE_DETACH, c.pid, NULL, NULL));
	EXPECT_EQ(SIGKILL, test_child_kill(&c));
}

TEST_HARNESS_MAIN
