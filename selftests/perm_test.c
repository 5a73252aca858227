// SPDX-License-Identifier: GPL-2.0-only
/*
 * perm_test.c - who may do what with a pool, and who is called what where.
 *
 * Wants to be root in the initial user namespace, and a device node that all
 * may open, as in the guest: it is the module's checks that are tried here,
 * not the node's. Children become somebody else and tell by their exit status
 * what they were answered: 0, or the errno.
 */
#include <sched.h>
#include <sys/resource.h>

#include "shmk_test.h"
#include "textfile.h"
#include "kselftest_harness.h"

#define POOL_BYTES	(1UL << 20)
#define OWNER		1000U
#define GROUP		1001U
#define STRANGER	1002U
#define NOBODY		65534U

/* ---- as somebody else ---- */

static const struct test_who owner = { "owner", OWNER, OWNER, OWNER, 0, 0 };
static const struct test_who owner_in_group = { "owner in group", OWNER, OWNER, OWNER, GROUP, 0 };
static const struct test_who stranger = { "stranger", STRANGER, STRANGER, STRANGER, 0, 0 };

struct call {
	const struct test_who *who;
	int (*fn)(struct call *c);
	int device, pool;
	const char *name;
	uint32_t flags;
	struct shmk_pool_create args;
};

static int run_call(int sock, void *arg)
{
	struct call *c = arg;
	int ret;

	(void)sock;
	test_become(c->who);
	ret = c->fn(c);
	return ret < 0 ? -ret : 0;
}

/* 0 or -errno */
static int answer(const struct test_who *who, int (*fn)(struct call *c), struct call *c)
{
	int ret;

	c->who = who;
	c->fn = fn;
	ret = test_child_run(run_call, c);
	return ret > 0 ? -ret : ret;
}

static int call_open(struct call *c)
{
	return raw_pool_open(c->device, c->name, c->flags);
}

static int call_destroy(struct call *c)
{
	return raw_pool_destroy(c->device, c->name);
}

static int call_create(struct call *c)
{
	return raw(c->device, SHMK_IOC_POOL_CREATE, &c->args);
}

static int call_attach(struct call *c)
{
	struct test_att a;
	int err = test_attach(c->pool, c->flags, 0, &a);

	if (!err)
		test_close(&a);
	return err;
}

FIXTURE(perm)
{
	int device;
};

FIXTURE_SETUP(perm)
{
	if (geteuid())
		SKIP(return, "only root can become somebody else");
	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
}

FIXTURE_TEARDOWN(perm)
{
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

/* A persistent pool that its owner made. */
static void create_as_owner(struct __test_metadata *_metadata, int device, const char *name,
			   uint32_t mode)
{
	struct call c = { .device = device, .args = raw_pool_args(name, POOL_BYTES, 12) };

	c.args.flags = SHMK_POOL_F_PERSIST;
	c.args.mode = mode;
	c.args.gid = GROUP;
	ASSERT_EQ(0, answer(&owner_in_group, call_create, &c));
}

/* ---- opening ---- */

enum role { IS_OWNER, IN_GROUP, IS_OTHER, IS_ALMIGHTY };

static const struct {
	struct test_who who;
	enum role role;
} people[] = {
	{ { "owner", OWNER, OWNER, OWNER, 0, 0 }, IS_OWNER },
	{ { "owner who is in the group too", OWNER, OWNER, GROUP, 0, 0 }, IS_OWNER },
	{ { "owner by effective uid", STRANGER, OWNER, STRANGER, 0, 0 }, IS_OWNER },
	{ { "owner by real uid only", OWNER, STRANGER, STRANGER, 0, 0 }, IS_OTHER },
	{ { "group", STRANGER, STRANGER, GROUP, 0, 0 }, IN_GROUP },
	{ { "supplementary group", STRANGER, STRANGER, STRANGER, GROUP, 0 }, IN_GROUP },
	{ { "stranger", STRANGER, STRANGER, STRANGER, 0, 0 }, IS_OTHER },
	{ { "root without capabilities", 0, 0, 0, 0, 0 }, IS_OTHER },
	{ { "stranger with CAP_DAC_OVERRIDE", STRANGER, STRANGER, STRANGER, 0,
	    CAP(DAC_OVERRIDE) }, IS_ALMIGHTY },
	{ { "stranger with CAP_SYS_ADMIN", STRANGER, STRANGER, STRANGER, 0,
	    CAP(SYS_ADMIN) }, IS_OTHER },
};

static int expected(uint32_t mode, enum role role, bool rdonly)
{
	uint32_t bits = mode >> (role == IS_OWNER ? 6 : role == IN_GROUP ? 3 : 0);
	uint32_t want = rdonly ? 4 : 6;

	return role == IS_ALMIGHTY || (bits & want) == want ? 0 : -EACCES;
}

TEST_F_TIMEOUT(perm, mode_decides_by_owner_group_and_others, 120)
{
	static const uint32_t modes[] = { 0, 0600, 0400, 0200, 0060, 0640, 0606, 0066, 0444, 0666 };
	struct call c = { .device = self->device };
	char name[32];
	unsigned int m, p, rdonly;
	int fd;

	for (m = 0; m < ARRAY_SIZE(modes); m++) {
		snprintf(name, sizeof(name), "perm-%o", modes[m]);
		create_as_owner(_metadata, self->device, name, modes[m]);
		c.name = name;
		for (p = 0; p < ARRAY_SIZE(people); p++)
			for (rdonly = 0; rdonly < 2; rdonly++) {
				c.flags = rdonly ? SHMK_OPEN_F_RDONLY : 0;
				EXPECT_EQ(expected(modes[m], people[p].role, rdonly),
					  answer(&people[p].who, call_open, &c))
					TH_LOG("mode %o, %s, %s", modes[m], people[p].who.name,
					       rdonly ? "read-only" : "read-write");
			}
		/* Root in full is stopped by nothing. */
		fd = raw_pool_open(self->device, name, 0);
		EXPECT_LE(0, fd);
		close(fd);
		EXPECT_EQ(0, raw_pool_destroy(self->device, name));
	}
}

/* As for System V memory: who made it counts as its owner, like the one it was given to. */
TEST_F_TIMEOUT(perm, maker_and_owner_are_both_owners, 120)
{
	static const struct test_who powerless = { "maker", 0, 0, 0, 0, 0 };
	struct call c = { .device = self->device, .name = "given" };
	struct shmk_pool_create args = raw_pool_args("given", POOL_BYTES, 12);
	struct shmk_pool_info info;
	int pool;

	args.uid = OWNER;
	args.gid = GROUP;
	pool = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, pool);
	ASSERT_EQ(0, raw_pool_info(pool, &info));
	EXPECT_EQ(OWNER, info.uid);
	EXPECT_EQ(GROUP, info.gid);
	EXPECT_EQ(0600, info.mode);
	EXPECT_EQ(0, answer(&powerless, call_open, &c));
	EXPECT_EQ(0, answer(&owner, call_open, &c));
	EXPECT_EQ(-EACCES, answer(&stranger, call_open, &c));
	EXPECT_EQ(-EPERM, answer(&stranger, call_destroy, &c));
	EXPECT_EQ(0, answer(&owner, call_destroy, &c));
	EXPECT_EQ(-ENOENT, answer(&owner, call_destroy, &c));
	close(pool);
}

/* ---- making ---- */

TEST_F_TIMEOUT(perm, only_with_CAP_CHOWN_a_pool_can_be_given_away, 120)
{
	static const struct test_who chowner = { "chowner", STRANGER, STRANGER, STRANGER, 0, CAP(CHOWN) };
	static const struct test_who member = { "member", STRANGER, STRANGER, STRANGER, GROUP, 0 };
	struct call c = { .device = self->device };
	struct shmk_pool_info info;

	c.args = raw_pool_args("", POOL_BYTES, 12);
	EXPECT_EQ(0, answer(&stranger, call_create, &c));
	c.args.uid = STRANGER;
	c.args.gid = STRANGER;
	EXPECT_EQ(0, answer(&stranger, call_create, &c));
	c.args.uid = OWNER;
	EXPECT_EQ(-EPERM, answer(&stranger, call_create, &c));
	EXPECT_EQ(0, answer(&chowner, call_create, &c));
	c.args.uid = -1;
	c.args.gid = GROUP;
	EXPECT_EQ(-EPERM, answer(&stranger, call_create, &c));
	EXPECT_EQ(0, answer(&member, call_create, &c));
	EXPECT_EQ(0, answer(&chowner, call_create, &c));

	/* Without being told, it is the maker's, by effective ids. */
	c.args = raw_pool_args("whose", POOL_BYTES, 12);
	c.args.flags = SHMK_POOL_F_PERSIST;
	EXPECT_EQ(0, answer(&stranger, call_create, &c));
	info.size = sizeof(info);
	info.id = 0;
	ASSERT_EQ(0, raw(self->device, SHMK_IOC_POOL_NEXT, &info));
	EXPECT_STREQ("whose", info.name);
	EXPECT_EQ(STRANGER, info.uid);
	EXPECT_EQ(STRANGER, info.gid);
	c.name = "whose";
	EXPECT_EQ(0, answer(&stranger, call_destroy, &c));
}

/* ---- destroying ---- */

TEST_F_TIMEOUT(perm, only_owner_maker_and_CAP_SYS_ADMIN_destroy, 120)
{
	static const struct {
		struct test_who who;
		int ret;
	} tries[] = {
		{ { "stranger", STRANGER, STRANGER, STRANGER, 0, 0 }, -EPERM },
		{ { "group", STRANGER, STRANGER, GROUP, 0, 0 }, -EPERM },
		{ { "root without capabilities", 0, 0, 0, 0, 0 }, -EPERM },
		{ { "CAP_DAC_OVERRIDE", STRANGER, STRANGER, STRANGER, 0, CAP(DAC_OVERRIDE) }, -EPERM },
		{ { "CAP_SYS_ADMIN", STRANGER, STRANGER, STRANGER, 0, CAP(SYS_ADMIN) }, 0 },
		{ { "owner", OWNER, OWNER, OWNER, 0, 0 }, 0 },
	};
	struct call c = { .device = self->device, .name = "doomed" };
	struct test_att a;
	unsigned int i;
	int pool;

	for (i = 0; i < ARRAY_SIZE(tries); i++) {
		/* Its mode lets everybody in, which says nothing about its end. */
		if (!i || !tries[i - 1].ret)
			create_as_owner(_metadata, self->device, "doomed", 0666);
		if (!tries[i].ret) {
			/* Not even the owner destroys it under a peer. */
			pool = raw_pool_open(self->device, "doomed", 0);
			ASSERT_LE(0, pool);
			ASSERT_EQ(0, test_attach(pool, 0, 0, &a));
			EXPECT_EQ(-EBUSY, answer(&tries[i].who, call_destroy, &c));
			test_close(&a);
			close(pool);
		}
		EXPECT_EQ(tries[i].ret, answer(&tries[i].who, call_destroy, &c))
			TH_LOG("%s", tries[i].who.name);
	}
	EXPECT_EQ(-ENOENT, answer(&stranger, call_destroy, &c));
}

/* ---- files as capabilities ---- */

TEST_F_TIMEOUT(perm, passed_pool_file_lets_in_whoever_has_it, 120)
{
	struct call c = { .device = self->device, .name = "closed" };
	struct shmk_pool_create args = raw_pool_args("closed", POOL_BYTES, 12);
	int fd, rdonly;

	args.mode = 0;
	c.pool = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, c.pool);
	EXPECT_EQ(-EACCES, answer(&stranger, call_open, &c));
	EXPECT_EQ(0, answer(&stranger, call_attach, &c));
	/* As far as it was opened, and no farther, whoever has it. */
	fd = c.pool;
	rdonly = raw_pool_open(self->device, "closed", SHMK_OPEN_F_RDONLY);
	ASSERT_LE(0, rdonly);
	c.pool = rdonly;
	EXPECT_EQ(-EACCES, answer(&stranger, call_attach, &c));
	EXPECT_EQ(-EACCES, call_attach(&c));
	c.flags = SHMK_ATTACH_F_RDONLY;
	EXPECT_EQ(0, answer(&stranger, call_attach, &c));
	EXPECT_EQ(0, call_attach(&c));
	close(rdonly);
	close(fd);
}

static int takes_an_fd(int sock, void *arg)
{
	struct test_msg m;
	struct test_att a;
	int device = *(int *)arg, pool;

	test_become(&stranger);
	CHILD_CHECK(raw_pool_open(device, "handed", 0) == -EACCES);
	CHILD_CHECK(!test_hear_fd(sock, &m, &pool) && pool >= 0);
	CHILD_CHECK(!test_attach(pool, 0, 0, &a));
	STORE((uint64_t *)a.data, 77);
	/* The name is not opened by it, neither for this one nor again. */
	CHILD_CHECK(raw_pool_open(device, "handed", 0) == -EACCES);
	CHILD_CHECK(raw_pool_destroy(device, "handed") == -EPERM);
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

TEST_F_TIMEOUT(perm, pool_file_goes_by_SCM_RIGHTS_to_another_user, 120)
{
	struct shmk_peer_info info = { .size = sizeof(info) };
	struct test_child c;
	struct test_att a;
	struct test_msg m;
	int pool;

	pool = raw_pool_create(self->device, "handed", POOL_BYTES, 12);
	ASSERT_LE(0, pool);
	ASSERT_EQ(0, test_attach(pool, 0, 0, &a));
	ASSERT_EQ(0, test_child_start(&c, takes_an_fd, &self->device));
	ASSERT_EQ(0, test_say_fd(c.sock, 0, 0, 0, pool));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	EXPECT_EQ(77, LOAD((uint64_t *)a.data));
	info.peer = m.v[0];
	ASSERT_EQ(0, raw(pool, SHMK_IOC_PEER_INFO, &info));
	EXPECT_EQ(m.v[0], info.peer);
	EXPECT_EQ(STRANGER, info.uid);
	EXPECT_EQ(c.pid, info.pid);
	EXPECT_EQ(SIGKILL, test_child_kill(&c));
	test_close(&a);
	close(pool);
}

static bool maps(int fd, uint64_t offset, int prot)
{
	void *p = raw_map(fd, prot, offset, 4096);

	if (p == MAP_FAILED) {
		CHILD_CHECK(errno == EACCES);
		return false;
	}
	munmap(p, 4096);
	return true;
}

static int reads_only(struct call *c)
{
	struct shmk_peer_info info = { .size = sizeof(info) };
	struct test_att a, rw;
	uint32_t id, gen;
	void *p;
	int pool;

	CHILD_CHECK(raw_pool_open(c->device, c->name, 0) == -EACCES);
	pool = raw_pool_open(c->device, c->name, SHMK_OPEN_F_RDONLY);
	CHILD_CHECK(pool >= 0);
	CHILD_CHECK(test_attach(pool, 0, 0, &rw) == -EACCES);
	CHILD_CHECK(!test_attach(pool, SHMK_ATTACH_F_RDONLY, 0, &a));
	CHILD_CHECK(LOAD((uint64_t *)a.data) == 78);
	CHILD_CHECK(!maps(a.fd, a.status->map_data, PROT_READ | PROT_WRITE));
	CHILD_CHECK(!maps(a.fd, a.status->map_control, PROT_WRITE));
	CHILD_CHECK(!maps(a.fd, 0, PROT_WRITE));
	CHILD_CHECK(maps(a.fd, a.status->map_data, PROT_READ));
	p = a.data;
	CHILD_CHECK(mprotect(p, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
	p = a.control;
	CHILD_CHECK(mprotect(p, 4096, PROT_WRITE) == -1 && errno == EACCES);
	CHILD_CHECK(raw_queue_create(a.fd, "mine", 4, &id, &gen) == -EACCES);
	CHILD_CHECK(!raw_queue_open(a.fd, "q", &id, &gen));
	CHILD_CHECK(raw_queue_close(a.fd, SHMK_IOC_QUEUE_REMOVE, id, gen) == -EACCES);
	CHILD_CHECK(!raw_queue_close(a.fd, SHMK_IOC_QUEUE_CLOSE, id, gen));
	info.peer = a.peer;
	CHILD_CHECK(!raw(pool, SHMK_IOC_PEER_INFO, &info));
	CHILD_CHECK(info.peer == a.peer && info.flags & SHMK_PEER_RDONLY);
	CHILD_CHECK(SHMK_PEER_FLAGS(raw_peer_status(a.status, a.peer)->word) & SHMK_PEER_RDONLY);
	return 0;
}

TEST_F_TIMEOUT(perm, who_may_only_read_cannot_write_or_make_or_remove, 120)
{
	struct call c = { .device = self->device, .name = "library" };
	struct shmk_pool_create args = raw_pool_args("library", POOL_BYTES, 12);
	struct test_att a;

	args.mode = 0644;
	c.pool = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, c.pool);
	ASSERT_EQ(0, test_attach(c.pool, 0, 0, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "q", 4, NULL, NULL));
	STORE((uint64_t *)a.data, 78);
	EXPECT_EQ(0, answer(&stranger, reads_only, &c));
	test_close(&a);
	close(c.pool);
}

/* ---- seeing ---- */

static int lists(struct call *c)
{
	struct shmk_pool_info info;
	uint64_t last = 0;
	bool readable = false;
	int err;

	for (;;) {
		memset(&info, 0, sizeof(info));
		info.size = sizeof(info);
		info.id = last;
		err = raw(c->device, SHMK_IOC_POOL_NEXT, &info);
		if (err)
			break;
		CHILD_CHECK(info.id > last);
		last = info.id;
		CHILD_CHECK(strcmp(info.name, "secret"));
		readable |= !strcmp(info.name, "public") && info.uid == 0 && info.mode == 0604;
	}
	CHILD_CHECK(err == -ENOENT);
	CHILD_CHECK(readable);
	return 0;
}

TEST_F_TIMEOUT(perm, list_leaves_out_what_the_caller_may_not_read, 120)
{
	struct call c = { .device = self->device };
	struct shmk_pool_create args;
	int secret, public;

	args = raw_pool_args("secret", POOL_BYTES, 12);
	secret = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, secret);
	args = raw_pool_args("public", POOL_BYTES, 12);
	args.mode = 0604;
	public = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, public);
	EXPECT_EQ(0, answer(&stranger, lists, &c));
	close(secret);
	close(public);
}

/* ---- namespaces ---- */

/* The stranger, root in a user namespace of its own. False: not allowed here. */
static bool become_root_of_nothing(void)
{
	test_become(&stranger);
	prctl(PR_SET_DUMPABLE, 1);
	if (unshare(CLONE_NEWUSER))
		return false;
	CHILD_CHECK(!write_text("/proc/self/setgroups", "deny"));
	CHILD_CHECK(!write_text("/proc/self/uid_map", "0 1002 1"));
	CHILD_CHECK(!write_text("/proc/self/gid_map", "0 1002 1"));
	CHILD_CHECK(geteuid() == 0 && getegid() == 0);
	return true;
}

struct ns_arg {
	int device, pool;
};

#define NOT_ALLOWED	97

static int root_of_nothing(int sock, void *arg)
{
	struct rlimit none = { 0, 0 };
	struct shmk_pool_create args;
	struct shmk_pool_info info;
	struct ns_arg *n = arg;
	int fd;

	(void)sock;
	if (!become_root_of_nothing())
		return NOT_ALLOWED;
	CHILD_CHECK(raw_pool_open(n->device, "roots", 0) == -EACCES);
	CHILD_CHECK(raw_pool_open(n->device, "roots", SHMK_OPEN_F_RDONLY) == -EACCES);
	CHILD_CHECK(raw_pool_destroy(n->device, "roots") == -EPERM);
	/* Owners that are nobody here. */
	CHILD_CHECK(!raw_pool_info(n->pool, &info));
	CHILD_CHECK(info.uid == NOBODY && info.gid == NOBODY);
	/* Ids mean what they mean here. */
	args = raw_pool_args("inner", POOL_BYTES, 12);
	args.uid = 5;
	CHILD_CHECK(raw(n->device, SHMK_IOC_POOL_CREATE, &args) == -EINVAL);
	args.uid = 0;
	args.gid = 7;
	CHILD_CHECK(raw(n->device, SHMK_IOC_POOL_CREATE, &args) == -EINVAL);
	args.gid = 0;
	fd = raw(n->device, SHMK_IOC_POOL_CREATE, &args);
	CHILD_CHECK(fd >= 0);
	CHILD_CHECK(!raw_pool_info(fd, &info) && info.uid == 0 && info.gid == 0);
	close(fd);
	/* Its CAP_IPC_LOCK is not the kernel's. */
	CHILD_CHECK(!setrlimit(RLIMIT_MEMLOCK, &none));
	CHILD_CHECK(raw(n->device, SHMK_IOC_POOL_CREATE, &args) == -EPERM);
	return 0;
}

TEST_F_TIMEOUT(perm, root_of_a_user_namespace_has_no_rights, 120)
{
	struct ns_arg n = { .device = self->device };
	int ret;

	n.pool = raw_pool_create(self->device, "roots", POOL_BYTES, 12);
	ASSERT_LE(0, n.pool);
	ret = test_child_run(root_of_nothing, &n);
	close(n.pool);
	if (ret == NOT_ALLOWED)
		SKIP(return, "no user namespaces here");
	EXPECT_EQ(0, ret);
}

static int find_peer(int fd, uint32_t peer, struct shmk_peer_info *info)
{
	memset(info, 0xa5, sizeof(*info));
	info->size = sizeof(*info);
	info->peer = peer;
	return raw(fd, SHMK_IOC_PEER_INFO, info) ?: info->peer == peer ? 0 : -ENOENT;
}

/* Process 1 and user 0 of its own world. */
static int in_another_world(int sock, void *arg)
{
	struct ns_arg *n = arg;
	struct shmk_peer_info info;
	struct shmk_event event;
	struct test_msg m;
	struct test_att a;
	int events;

	events = test_events(n->pool);
	CHILD_CHECK(events >= 0);
	CHILD_CHECK(!test_attach(n->pool, 0, 0, &a));
	CHILD_CHECK(!find_peer(n->pool, a.peer, &info));
	CHILD_CHECK(info.pid == 1 && info.uid == 0);
	CHILD_CHECK(!test_event_of(events, SHMK_EV_ATTACHED, a.peer, a.gen, &event));
	CHILD_CHECK(event.pid == 1 && event.uid == 0);
	/* The observer is in a world outside. */
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	CHILD_CHECK(!test_hear(sock, &m));
	CHILD_CHECK(!find_peer(n->pool, m.v[0], &info));
	CHILD_CHECK(info.pid == 0 && info.uid == NOBODY);
	CHILD_CHECK(!test_event_of(events, SHMK_EV_ATTACHED, m.v[0], m.v[1], &event));
	CHILD_CHECK(event.pid == 0 && event.uid == NOBODY);
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	CHILD_CHECK(!test_hear(sock, &m));
	/* And so is its end. */
	CHILD_CHECK(!test_end_of(events, m.v[0], m.v[1], &event));
	CHILD_CHECK(event.pid == 0 && event.uid == NOBODY);
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	test_park(sock);
}

static int makes_a_world(int sock, void *arg)
{
	pid_t pid;

	if (!become_root_of_nothing() || unshare(CLONE_NEWPID)) {
		test_say(sock, 0, 0, 0);
		return 0;
	}
	pid = fork();
	CHILD_CHECK(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(in_another_world(sock, arg));
	}
	waitpid(pid, NULL, 0);
	return 0;
}

/* What /proc says of a process: its pids, from the outermost namespace inwards. */
static bool is_pid_1_inside(pid_t pid)
{
	char path[64], line[256];
	int outer, inner = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "NSpid: %d %d", &outer, &inner) >= 1)
			break;
	if (f)
		fclose(f);
	return inner == 1;
}

TEST_F_TIMEOUT(perm, pids_and_uids_are_told_as_the_reader_sees_them, 120)
{
	struct ns_arg n = { .device = self->device };
	struct shmk_peer_info info;
	struct shmk_event event;
	struct test_child c;
	struct test_att a;
	struct test_msg m;
	int events;

	n.pool = raw_pool_create(self->device, NULL, POOL_BYTES, 12);
	ASSERT_LE(0, n.pool);
	events = test_events(n.pool);
	ASSERT_EQ(0, test_child_start(&c, makes_a_world, &n));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	if (!m.v[0]) {
		EXPECT_EQ(0, test_child_end(&c));
		close(events);
		close(n.pool);
		SKIP(return, "no namespaces here");
	}
	ASSERT_EQ(0, find_peer(n.pool, m.v[0], &info));
	EXPECT_LT(1, info.pid);
	EXPECT_NE(c.pid, info.pid);
	EXPECT_TRUE(is_pid_1_inside(info.pid));
	EXPECT_EQ(STRANGER, info.uid);
	ASSERT_EQ(0, test_event_of(events, SHMK_EV_ATTACHED, m.v[0], m.v[1], &event));
	EXPECT_EQ(info.pid, event.pid);
	EXPECT_EQ(STRANGER, event.uid);

	ASSERT_EQ(0, test_attach(n.pool, 0, 0, &a));
	ASSERT_EQ(0, test_say(c.sock, a.peer, a.gen, 0));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	test_close(&a);
	ASSERT_EQ(0, test_say(c.sock, a.peer, a.gen, 0));
	ASSERT_EQ(0, test_hear(c.sock, &m));

	/* Killed in there, told out here by the pid of out here. */
	ASSERT_EQ(0, kill(info.pid, SIGKILL));
	ASSERT_EQ(0, test_end_of(events, info.peer, info.gen, &event));
	EXPECT_EQ(SHMK_EV_DIED, event.type);
	EXPECT_EQ(SHMK_REASON_KILLED, event.reason);
	EXPECT_EQ(info.pid, event.pid);
	EXPECT_EQ(STRANGER, event.uid);
	EXPECT_EQ(0, test_child_end(&c));
	close(events);
	close(n.pool);
}

TEST_HARNESS_MAIN
