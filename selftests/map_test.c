// SPDX-License-Identifier: GPL-2.0-only
/*
 * map_test.c - who can map what, and how long it stays so.
 *
 * Each row of the matrix is tried with pools of 4 KiB and of 2 MiB pages.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/userfaultfd.h>

#include "raw.h"
#include "kselftest_harness.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

#define POOL_BYTES	(8 * MiB)
#define ENTRIES		100

FIXTURE(map)
{
	int dev, pool, att;
	struct shmk_attach peer;
	const struct shmk_status *s;
};

FIXTURE_VARIANT(map)
{
	uint32_t page_shift;
};

FIXTURE_VARIANT_ADD(map, pages_4k) { .page_shift = 12 };
FIXTURE_VARIANT_ADD(map, pages_2m) { .page_shift = 21 };

FIXTURE_SETUP(map)
{
	self->dev = raw_device();
	ASSERT_LE(0, self->dev);
	self->pool = raw_pool_create(self->dev, NULL, POOL_BYTES, variant->page_shift);
	if (variant->page_shift == 21 && !raw_has_pmds()) {
		EXPECT_EQ(-EOPNOTSUPP, self->pool);
		SKIP(return, "this kernel has no transparent huge pages");
	}
	ASSERT_LE(0, self->pool);
	self->att = raw_attach(self->pool, 0, ENTRIES, &self->peer);
	ASSERT_LE(0, self->att);
	self->s = raw_status(self->att);
	ASSERT_NE(NULL, self->s);
}

FIXTURE_TEARDOWN(map)
{
	if (!self->s)
		return;
	munmap((void *)self->s, self->s->status_bytes);
	close(self->att);
	close(self->pool);
	close(self->dev);
}

/* The signal that one access raises, or 0. */
static sigjmp_buf on_signal;

static void handler(int sig)
{
	siglongjmp(on_signal, sig);
}

static __attribute__((noinline)) int access_signal(volatile char *p, bool store)
{
	int sig = sigsetjmp(on_signal, 1);

	signal(SIGBUS, sig ? SIG_DFL : handler);
	signal(SIGSEGV, sig ? SIG_DFL : handler);
	if (sig)
		return sig;
	if (store)
		*p = 1;
	else
		(void)*p;
	signal(SIGBUS, SIG_DFL);
	signal(SIGSEGV, SIG_DFL);
	return 0;
}

#define LOAD(p)		access_signal((volatile char *)(p), false)
#define STORE(p)	access_signal((volatile char *)(p), true)

/* Is this mapping refused, and with what? 0 if not; it is undone. */
static int refused(int att, int prot, int flags, uint64_t offset, size_t len)
{
	void *p = mmap(NULL, len, prot, flags, att, (off_t)offset);

	if (p == MAP_FAILED)
		return errno;
	munmap(p, len);
	return 0;
}

#define RO	PROT_READ
#define RW	(PROT_READ | PROT_WRITE)

/* -------------------------------------------------------------- geometry -- */

TEST_F(map, the_status_says_what_was_asked_for)
{
	const struct shmk_status *s = self->s;
	uint64_t page = 1ULL << variant->page_shift;

	EXPECT_EQ(SHMK_LAYOUT_MAGIC, s->magic);
	EXPECT_EQ(SHMK_LAYOUT_VERSION, s->version);
	EXPECT_EQ(POOL_BYTES, s->data_bytes);
	EXPECT_EQ(0, s->control_bytes % page);
	EXPECT_EQ(variant->page_shift, s->page_shift);
	EXPECT_EQ(8, s->unit_shift);
	EXPECT_EQ(POOL_BYTES / 65536, s->nr_spans);
	EXPECT_EQ(s->nr_spans * 256, s->nr_blocks);
	EXPECT_EQ(1024, s->nr_peers);
	EXPECT_EQ(1024, s->nr_queues);
	EXPECT_EQ(0, s->map_control % (2 * MiB));
	EXPECT_EQ(0, s->map_data % (2 * MiB));
	EXPECT_LE(raw_ledger_bytes(SHMK_ENTRIES_MAX), s->ledger_stride);
	EXPECT_LE(s->peers_off + (s->nr_peers + 1) * sizeof(struct shmk_peer_status), s->queues_off);
	EXPECT_LE(s->queues_off + s->nr_queues * sizeof(struct shmk_queue_status), s->status_bytes);
	EXPECT_LE(sizeof(struct shmk_control), s->taken_map_off);
	EXPECT_LE(s->taken_map_off + s->nr_spans / 8, s->stale_map_off);
	EXPECT_LE(s->stale_map_off + s->nr_spans / 8, s->spans_off);
	EXPECT_LE(s->spans_off + s->nr_spans * sizeof(struct shmk_span), s->blocks_off);
	EXPECT_LE(s->blocks_off + s->nr_blocks * sizeof(struct shmk_block), s->rings_off);
	EXPECT_LE(s->rings_off + s->rings_bytes, s->control_bytes);
	EXPECT_EQ(0, (s->spans_off | s->blocks_off | s->taken_map_off | s->stale_map_off) % 64);
	EXPECT_EQ(0, s->rings_off % 4096);
	EXPECT_EQ(SHMK_PEER_WORD(1, 0, SHMK_PEER_ALIVE), raw_peer_status(s, self->peer.peer)->word);
	EXPECT_EQ(ENTRIES, raw_peer_status(s, self->peer.peer)->nr_entries);
}

static bool all_zero(const char *p, size_t len)
{
	return !*p && !memcmp(p, p + 1, len - 1);
}

TEST_F(map, a_new_pool_is_zero)
{
	const struct shmk_status *s = self->s;
	char *control = raw_map(self->att, RO, s->map_control, s->control_bytes);
	char *data = raw_map(self->att, RO, s->map_data, s->data_bytes);
	char *ledger = raw_map(self->att, RO, raw_ledger_offset(s, self->peer.peer),
			       raw_ledger_bytes(ENTRIES));

	ASSERT_NE(MAP_FAILED, control);
	ASSERT_NE(MAP_FAILED, data);
	ASSERT_NE(MAP_FAILED, ledger);
	EXPECT_TRUE(all_zero(control, s->control_bytes));
	EXPECT_TRUE(all_zero(data, s->data_bytes));
	EXPECT_TRUE(all_zero(ledger, raw_ledger_bytes(ENTRIES)));
}

TEST_F(map, a_pool_made_where_another_was_is_zero)
{
	const struct shmk_status *s = self->s;
	char *data = raw_map(self->att, RW, s->map_data, s->data_bytes);

	ASSERT_NE(MAP_FAILED, data);
	for (int round = 0; round < 3; round++) {
		int pool = raw_pool_create(self->dev, NULL, POOL_BYTES, variant->page_shift);
		int att = raw_attach(pool, 0, 0, NULL);
		char *p = raw_map(att, RW, s->map_data, POOL_BYTES);

		ASSERT_NE(MAP_FAILED, p);
		EXPECT_TRUE(all_zero(p, POOL_BYTES));
		memset(p, 0xaa, POOL_BYTES);
		munmap(p, POOL_BYTES);
		close(att);
		close(pool);
	}
}

TEST_F(map, a_ledger_of_an_id_used_before_is_zero)
{
	struct shmk_attach a;
	char *ledger;

	for (uint32_t round = 0; round < 3; round++) {
		/* Larger each time: old pages and new ones. */
		uint32_t nr = 300 << round;
		int att = raw_attach(self->pool, 0, nr, &a);

		ASSERT_LE(0, att);
		ASSERT_EQ(2, a.peer);
		EXPECT_EQ(round + 1, a.gen);
		ledger = raw_map(att, RW, raw_ledger_offset(self->s, 2), raw_ledger_bytes(nr));
		ASSERT_NE(MAP_FAILED, ledger);
		EXPECT_TRUE(all_zero(ledger, raw_ledger_bytes(nr)));
		memset(ledger, 0xff, raw_ledger_bytes(nr));
		munmap(ledger, raw_ledger_bytes(nr));
		close(att);
	}
}

/* ---------------------------------------------------------------- matrix -- */

TEST_F(map, a_member_writes_control_data_and_its_own_ledger)
{
	const struct shmk_status *s = self->s;
	uint64_t own = raw_ledger_offset(s, self->peer.peer);

	EXPECT_EQ(0, refused(self->att, RW, MAP_SHARED, s->map_control, s->control_bytes));
	EXPECT_EQ(0, refused(self->att, RW, MAP_SHARED, s->map_data, s->data_bytes));
	EXPECT_EQ(0, refused(self->att, RW, MAP_SHARED, own, raw_ledger_bytes(ENTRIES)));
	EXPECT_EQ(EACCES, refused(self->att, RW, MAP_SHARED, 0, s->status_bytes));
	EXPECT_EQ(EACCES, refused(self->att, PROT_WRITE, MAP_SHARED, 0, 4096));
	/* Nobody's, the next one's, and more than is its own. */
	EXPECT_EQ(EACCES, refused(self->att, RW, MAP_SHARED, s->map_ledger, 4096));
	EXPECT_EQ(EACCES, refused(self->att, RW, MAP_SHARED, own + s->ledger_stride, 4096));
	EXPECT_EQ(EACCES, refused(self->att, RW, MAP_SHARED, own, raw_ledger_bytes(ENTRIES) + 4096));
	EXPECT_EQ(EACCES, refused(self->att, RW, MAP_SHARED, own - 4096, 8192));
}

TEST_F(map, a_read_only_member_writes_its_own_ledger_alone)
{
	const struct shmk_status *s = self->s;
	struct shmk_attach a;
	int att = raw_attach(self->pool, SHMK_ATTACH_F_RDONLY, ENTRIES, &a);
	uint64_t own;

	ASSERT_LE(0, att);
	own = raw_ledger_offset(s, a.peer);
	EXPECT_EQ(SHMK_PEER_WORD(1, SHMK_PEER_RDONLY, SHMK_PEER_ALIVE),
		  raw_peer_status(s, a.peer)->word);
	EXPECT_EQ(0, refused(att, RO, MAP_SHARED, s->map_control, s->control_bytes));
	EXPECT_EQ(0, refused(att, RO, MAP_SHARED, s->map_data, s->data_bytes));
	EXPECT_EQ(0, refused(att, RW, MAP_SHARED, own, raw_ledger_bytes(ENTRIES)));
	EXPECT_EQ(EACCES, refused(att, RW, MAP_SHARED, s->map_control, 4096));
	EXPECT_EQ(EACCES, refused(att, RW, MAP_SHARED, s->map_data, 4096));
	EXPECT_EQ(EACCES, refused(att, RW, MAP_SHARED, 0, 4096));
	EXPECT_EQ(EACCES, refused(att, RW, MAP_SHARED, raw_ledger_offset(s, self->peer.peer), 4096));
	EXPECT_EQ(-EACCES, raw_queue_create(att, "q", 4, NULL, NULL));
	EXPECT_EQ(-EACCES, raw_queue_close(att, SHMK_IOC_QUEUE_REMOVE, 0, 0));
	close(att);
}

TEST_F(map, one_mapping_lies_in_one_region)
{
	const struct shmk_status *s = self->s;

	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, 0, s->status_bytes + 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, s->status_bytes, 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, s->map_ledger - 4096, 8192));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, s->map_control, s->control_bytes + 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, s->map_data, s->data_bytes + 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, s->map_data + s->data_bytes, 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, s->map_data - 4096, 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, 4ULL << 44, 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_SHARED, 1ULL << 62, 4096));
	EXPECT_EQ(0, refused(self->att, RO, MAP_SHARED, s->map_data + s->data_bytes - 4096, 4096));
}

TEST_F(map, neither_private_nor_executable)
{
	const struct shmk_status *s = self->s;
	void *p;

	EXPECT_EQ(EINVAL, refused(self->att, RW, MAP_PRIVATE, s->map_data, 4096));
	EXPECT_EQ(EINVAL, refused(self->att, RO, MAP_PRIVATE, 0, 4096));
	EXPECT_EQ(EPERM, refused(self->att, RO | PROT_EXEC, MAP_SHARED, s->map_data, 4096));
	p = raw_map(self->att, RW, s->map_data, 4096);
	ASSERT_NE(MAP_FAILED, p);
	EXPECT_EQ(-1, mprotect(p, 4096, RO | PROT_EXEC));
	EXPECT_EQ(EACCES, errno);
}

TEST_F(map, read_only_stays_so_through_mprotect)
{
	const struct shmk_status *s = self->s;
	int rdonly = raw_attach(self->pool, SHMK_ATTACH_F_RDONLY, 0, NULL);
	void *p[4];

	ASSERT_LE(0, rdonly);
	p[0] = raw_map(self->att, RO, 0, 4096);
	p[1] = raw_map(self->att, RO, raw_ledger_offset(s, 2), 4096);
	p[2] = raw_map(rdonly, RO, s->map_data, 4096);
	p[3] = raw_map(rdonly, RO, s->map_control, 4096);
	for (int i = 0; i < 4; i++) {
		ASSERT_NE(MAP_FAILED, p[i]);
		LOAD(p[i]);
		EXPECT_EQ(-1, mprotect(p[i], 4096, RW)) TH_LOG("mapping %d", i);
		EXPECT_EQ(EACCES, errno);
		EXPECT_EQ(SIGSEGV, STORE(p[i]));
	}
	/* What may be written may be written later. */
	p[0] = raw_map(self->att, RO, s->map_data, 4096);
	ASSERT_NE(MAP_FAILED, p[0]);
	EXPECT_EQ(0, mprotect(p[0], 4096, RW));
	EXPECT_EQ(0, STORE(p[0]));
	close(rdonly);
}

/* ptrace may write through a read-only mapping of one's own: not through these. */
TEST_F(map, read_only_stays_so_through_proc_mem)
{
	int mem = open("/proc/self/mem", O_RDWR);
	uint64_t word = ~0ULL;

	ASSERT_LE(0, mem);
	EXPECT_EQ(-1, pwrite(mem, &word, sizeof(word), (off_t)(uintptr_t)self->s));
	EXPECT_EQ(SHMK_LAYOUT_MAGIC, self->s->magic);
	close(mem);
}

TEST_F(map, the_file_cannot_be_opened_again)
{
	static const int modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", self->att);
	for (int i = 0; i < 3; i++) {
		EXPECT_EQ(-1, open(path, modes[i]));
		EXPECT_EQ(ENXIO, errno);
	}
}

TEST_F(map, mremap_neither_moves_nor_grows)
{
	void *p = raw_map(self->att, RW, self->s->map_data, 8192);
	void *to = mmap(NULL, 3 * MiB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	ASSERT_NE(MAP_FAILED, p);
	STORE(p);
	EXPECT_EQ(MAP_FAILED, mremap(p, 8192, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(MAP_FAILED, mremap(p, 8192, 3 * MiB, MREMAP_MAYMOVE));
	EXPECT_EQ(MAP_FAILED, mremap(p, 0, 4096, MREMAP_MAYMOVE));
	EXPECT_EQ(0, STORE(p));
	/* Shrinking is unmapping. */
	EXPECT_EQ(p, mremap(p, 8192, 4096, 0));
	EXPECT_EQ(0, STORE(p));
}

TEST_F(map, what_is_mapped_is_the_same_memory_through_two_attachments)
{
	const struct shmk_status *s = self->s;
	int other = raw_attach(self->pool, 0, 0, NULL);
	volatile uint64_t *a, *b;

	ASSERT_LE(0, other);
	a = raw_map(self->att, RW, s->map_data, POOL_BYTES);
	b = raw_map(other, RW, s->map_data, POOL_BYTES);
	ASSERT_NE(MAP_FAILED, a);
	ASSERT_NE(MAP_FAILED, b);
	for (size_t at = 0; at < POOL_BYTES / 8; at += 509)
		a[at] = at * 0x9e3779b97f4a7c15ULL + 1;
	for (size_t at = 0; at < POOL_BYTES / 8; at += 509)
		ASSERT_EQ(at * 0x9e3779b97f4a7c15ULL + 1, b[at]);
	munmap((void *)b, POOL_BYTES);
	close(other);
}

TEST_F(map, another_s_ledger_is_seen_as_it_grows)
{
	const struct shmk_status *s = self->s;
	volatile struct shmk_ledger *seen, *own;
	int att = raw_attach(self->pool, 0, 100, NULL);

	ASSERT_LE(0, att);
	seen = raw_map(self->att, RO, raw_ledger_offset(s, 2), raw_ledger_bytes(10000));
	ASSERT_NE(MAP_FAILED, seen);
	EXPECT_EQ(0, seen->high);
	EXPECT_EQ(SIGBUS, LOAD(&seen->entry[9999]));
	close(att);

	att = raw_attach(self->pool, 0, 10000, NULL);
	own = raw_map(att, RW, raw_ledger_offset(s, 2), raw_ledger_bytes(10000));
	ASSERT_NE(MAP_FAILED, own);
	own->high = 7;
	own->entry[9999].where = 42;
	EXPECT_EQ(7, seen->high);
	EXPECT_EQ(42, seen->entry[9999].where);
	munmap((void *)own, raw_ledger_bytes(10000));
	close(att);
	/* Given back, and still the same page. */
	EXPECT_EQ(0, seen->high);
}

/* -------------------------------------------------------- huge mappings -- */

/* A number in kB from the smaps entry of the mapping at @p. */
static long smaps(const void *p, const char *key)
{
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[512], start[32];
	bool here = false;
	long kb = -1;

	if (!f)
		return -1;
	snprintf(start, sizeof(start), "%lx-", (unsigned long)p);
	while (kb < 0 && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, start, strlen(start)))
			here = true;
		else if (here && !strncmp(line, key, strlen(key)) && line[strlen(key)] == ':')
			kb = atol(line + strlen(key) + 1);
	}
	fclose(f);
	return kb;
}

TEST_F(map, large_pages_are_mapped_by_PMDs)
{
	const struct shmk_status *s = self->s;
	long data_kb = POOL_BYTES / 1024;
	long control_kb = (long)(s->control_bytes / 1024);
	char *data = raw_map(self->att, RW, s->map_data, s->data_bytes);
	char *control = raw_map(self->att, RW, s->map_control, s->control_bytes);

	ASSERT_NE(MAP_FAILED, data);
	ASSERT_NE(MAP_FAILED, control);
	for (size_t at = 0; at < s->data_bytes; at += 2 * MiB)
		STORE(data + at);
	for (size_t at = 0; at < s->control_bytes; at += 2 * MiB)
		LOAD(control + at);
	if (variant->page_shift == 21) {
		EXPECT_EQ(data_kb, smaps(data, "FilePmdMapped"));
		EXPECT_EQ(data_kb, smaps(data, "Rss"));
		EXPECT_EQ(control_kb, smaps(control, "FilePmdMapped"));
	} else {
		EXPECT_EQ(0, smaps(data, "FilePmdMapped"));
		EXPECT_EQ(4 * (long)(POOL_BYTES / (2 * MiB)), smaps(data, "Rss"));
	}
}

TEST_F(map, a_mapping_can_be_unmapped_in_parts)
{
	const struct shmk_status *s = self->s;
	char *p = raw_map(self->att, RW, s->map_data, s->data_bytes);

	ASSERT_NE(MAP_FAILED, p);
	for (size_t at = 0; at < s->data_bytes; at += 4096)
		*(uint64_t *)(p + at) = at;
	/* A hole in the first large page, the end of the second, all of the third. */
	ASSERT_EQ(0, munmap(p + 4096, 8192));
	ASSERT_EQ(0, munmap(p + 4 * MiB - 4096, 2 * MiB + 4096));
	EXPECT_EQ(SIGSEGV, LOAD(p + 4096));
	EXPECT_EQ(SIGSEGV, LOAD(p + 5 * MiB));
	for (size_t at = 0; at < s->data_bytes; at += 4096) {
		if ((at >= 4096 && at < 12288) || (at >= 4 * MiB - 4096 && at < 6 * MiB))
			continue;
		ASSERT_EQ(at, *(uint64_t *)(p + at));
	}
	if (variant->page_shift == 21)
		EXPECT_EQ(2048, smaps(p + 6 * MiB, "FilePmdMapped"));
	/* And half of one read-only. */
	ASSERT_EQ(0, mprotect(p + 7 * MiB, MiB, RO));
	EXPECT_EQ(0, STORE(p + 6 * MiB));
	EXPECT_EQ(SIGSEGV, STORE(p + 7 * MiB));
	EXPECT_EQ(7 * MiB, *(uint64_t *)(p + 7 * MiB));
}

TEST_F(map, the_kernel_reads_and_writes_it_as_any_memory)
{
	char *p = raw_map(self->att, RW, self->s->map_data, POOL_BYTES);
	int fds[2];
	char buf[16];

	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(5, write(fds[1], "hello", 5));
	ASSERT_EQ(5, read(fds[0], p + 3 * MiB, 5));
	ASSERT_EQ(5, write(fds[1], p + 3 * MiB, 5));
	ASSERT_EQ(5, read(fds[0], buf, sizeof(buf)));
	EXPECT_EQ(0, memcmp(buf, "hello", 5));
	/* Whatever is asked of it, the pages stay. */
	EXPECT_EQ(0, mlock(p, POOL_BYTES));
	EXPECT_EQ(0, munlock(p, POOL_BYTES));
	madvise(p, POOL_BYTES, MADV_DONTNEED);
	madvise(p, POOL_BYTES, MADV_PAGEOUT);
	madvise(p, POOL_BYTES, MADV_COLD);
	madvise(p, POOL_BYTES, MADV_COLLAPSE);
	madvise(p, POOL_BYTES, MADV_REMOVE);
	madvise(p, POOL_BYTES, MADV_HUGEPAGE);
	madvise(p, POOL_BYTES, MADV_MERGEABLE);
	madvise(p, POOL_BYTES, MADV_POPULATE_WRITE);
	EXPECT_EQ(0, memcmp(p + 3 * MiB, "hello", 5));
	close(fds[0]);
	close(fds[1]);
}

/* ------------------------------------------------------------------ fork -- */

/* What a load at @p gives a forked child: 0, or its signal. */
static int child_load(const char *p)
{
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(LOAD(p));
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(map, a_child_has_no_mapping)
{
	char *p = raw_map(self->att, RW, self->s->map_data, POOL_BYTES);

	ASSERT_NE(MAP_FAILED, p);
	STORE(p);
	EXPECT_EQ(SIGSEGV, child_load(p));
	EXPECT_EQ(SIGSEGV, child_load((const char *)self->s));
	EXPECT_EQ(0, LOAD(p));
}

TEST_F(map, a_child_made_with_DOFORK_gets_SIGBUS)
{
	char *p = raw_map(self->att, RW, self->s->map_data, POOL_BYTES);

	ASSERT_NE(MAP_FAILED, p);
	memset(p, 1, POOL_BYTES);
	if (madvise(p, POOL_BYTES, MADV_DOFORK)) {
		/* Newer kernels refuse it themselves. */
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(SIGSEGV, child_load(p));
		return;
	}
	EXPECT_EQ(SIGBUS, child_load(p));
	ASSERT_EQ(0, madvise(p, POOL_BYTES, MADV_KEEPONFORK));
	EXPECT_EQ(SIGBUS, child_load(p));
	EXPECT_EQ(SIGBUS, child_load(p + 4 * MiB));
	EXPECT_EQ(1, p[5 * MiB]);
}

TEST_F(map, a_child_cannot_map_and_is_no_peer)
{
	const struct shmk_status *s = self->s;
	uint64_t off = s->map_data;
	int status;
	pid_t pid = fork();

	if (!pid) {
		int bad = 0;

		bad |= refused(self->att, RO, MAP_SHARED, off, 4096) == ENXIO ? 0 : 1;
		bad |= refused(self->att, RO, MAP_SHARED, 0, 4096) == ENXIO ? 0 : 2;
		bad |= raw_detach(self->att) == -ENXIO ? 0 : 4;
		bad |= raw_queue_create(self->att, "q", 4, NULL, NULL) == -ENXIO ? 0 : 8;
		bad |= raw_bell(self->att, 0, 0) == -ENXIO ? 0 : 16;
		/* It may become one of its own. */
		bad |= raw_attach(self->pool, 0, 0, NULL) >= 0 ? 0 : 32;
		_exit(bad);
	}
	waitpid(pid, &status, 0);
	EXPECT_EQ(0, status);
	EXPECT_EQ(SHMK_PEER_ALIVE, SHMK_PEER_STATE(raw_peer_status(s, self->peer.peer)->word));
}

/*
 * userfaultfd in asynchronous write-protect mode makes fork copy page table
 * entries of mappings that it otherwise leaves alone.
 */
TEST_F(map, a_child_gets_no_copied_page_table_entries)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC };
	struct uffdio_register reg;
	char *p = raw_map(self->att, RW, self->s->map_data, POOL_BYTES);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	ASSERT_NE(MAP_FAILED, p);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd with WP_ASYNC here");
	memset(p, 1, POOL_BYTES);
	reg = (struct uffdio_register){
		.range = { .start = (uintptr_t)p, .len = POOL_BYTES },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		SKIP(return, "userfaultfd does not take this mapping");
	ASSERT_EQ(0, madvise(p, POOL_BYTES, MADV_DOFORK));
	ASSERT_EQ(0, madvise(p, POOL_BYTES, MADV_KEEPONFORK));
	EXPECT_EQ(SIGBUS, child_load(p));
	EXPECT_EQ(SIGBUS, child_load(p + 5 * MiB));
	EXPECT_EQ(1, p[0]);
	close(uffd);
}

/* ------------------------------------------------------------------- ends -- */

TEST_F(map, a_detached_peer_s_mappings_are_dead)
{
	const struct shmk_status *s = self->s;
	char *data = raw_map(self->att, RW, s->map_data, POOL_BYTES);
	char *control = raw_map(self->att, RW, s->map_control, 4096);
	char *ledger = raw_map(self->att, RW, raw_ledger_offset(s, self->peer.peer), 4096);

	ASSERT_NE(MAP_FAILED, data);
	memset(data, 1, POOL_BYTES);
	STORE(control);
	STORE(ledger + 128);
	ASSERT_EQ(0, raw_detach(self->att));
	EXPECT_EQ(SIGBUS, LOAD(data));
	EXPECT_EQ(SIGBUS, STORE(data + POOL_BYTES - 1));
	EXPECT_EQ(SIGBUS, LOAD(control));
	EXPECT_EQ(SIGBUS, LOAD(ledger));
	EXPECT_EQ(SIGBUS, LOAD(s));
	EXPECT_EQ(-ENXIO, raw_detach(self->att));
	/* For the teardown. */
	close(self->att);
	self->att = raw_attach(self->pool, 0, 0, NULL);
	self->s = raw_status(self->att);
	ASSERT_NE(NULL, self->s);
}

TEST_F(map, the_mapping_alone_keeps_peer_and_pool)
{
	const struct shmk_status *s = self->s;
	char *data = raw_map(self->att, RW, s->map_data, POOL_BYTES);

	ASSERT_NE(MAP_FAILED, data);
	close(self->att);
	close(self->pool);
	EXPECT_EQ(0, STORE(data + 5 * MiB));
	EXPECT_EQ(SHMK_PEER_ALIVE, SHMK_PEER_STATE(raw_peer_status(s, self->peer.peer)->word));
	self->pool = self->att = -1;
}

TEST_HARNESS_MAIN
