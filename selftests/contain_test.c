// SPDX-License-Identifier: GPL-2.0-only
/*
 * contain_test.c - two containers and the host meet in one pool.
 *
 * A container here is what runtimes make: user, pid, net, mount, ipc and uts
 * namespaces of its own, ids mapped to others for each, and a root directory with nothing
 * in it but the device node, bind-mounted. No /proc, no shared ipc.
 */
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>

#include "lib_test.h"
#include "textfile.h"
#include "kselftest_harness.h"

#define BASE_A		100000U
#define BASE_B		200000U
#define NOBODY		65534U
#define GROUP		5U	/* inside */

struct world {
	const char	*uri;
	const char	*dir;
	uint32_t	base;		/* the uid and gid of its root outside */
	bool		in_group;
	void		(*role)(struct child_end *end, struct world *w);
};

static void must(bool ok, int code)
{
	if (!ok)
		_exit(code);
}

/* Only one with rights outside can map ids that are not its own. */
static void map_ids(int from, pid_t pid, uint32_t base)
{
	char path[64], text[64], byte;

	must(read(from, &byte, 1) == 1, 80);
	snprintf(text, sizeof(text), "0 %u 1000", base);
	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	must(!write_text(path, text), 81);
	snprintf(path, sizeof(path), "/proc/%d/gid_map", pid);
	must(!write_text(path, text), 82);
	_exit(0);
}

static void make_root(const char *dir)
{
	char path[128];
	int fd;

	must(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 83);
	mkdir(dir, 0755);
	must(!mount("tmpfs", dir, "tmpfs", 0, "mode=755"), 84);
	snprintf(path, sizeof(path), "%s/dev", dir);
	must(!mkdir(path, 0755), 85);
	snprintf(path, sizeof(path), "%s/dev/shmk", dir);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	must(fd >= 0, 86);
	close(fd);
	must(!mount(SHMK_DEVICE, path, NULL, MS_BIND, NULL), 87);
}

/* Exits with 79 where the kernel has no such namespaces. */
static void container(struct child_end *end, void *arg)
{
	struct world *w = arg;
	gid_t group = GROUP;
	int down[2], status;
	pid_t pid;

	must(!pipe2(down, O_CLOEXEC), 88);
	pid = fork();
	if (!pid)
		map_ids(down[0], getppid(), w->base);
	if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID)) {
		kill(pid, SIGKILL);
		_exit(79);
	}
	make_root(w->dir);
	if (unshare(CLONE_NEWUSER)) {
		kill(pid, SIGKILL);
		_exit(79);
	}
	must(write(down[1], "", 1) == 1, 89);
	must(waitpid(pid, &status, 0) == pid && !status, 78);
	must(!setgroups(w->in_group, &group), 77);
	must(!setresgid(0, 0, 0) && !setresuid(0, 0, 0), 76);
	must(!chroot(w->dir) && !chdir("/"), 75);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		must(getpid() == 1 && !geteuid(), 74);
		w->role(end, w);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 73);
}

FIXTURE(contain)
{
	char uri[64];
	struct shmk_pool_opts pool;
	struct shmk_attach_opts opts;
	struct shmk *s;
};

FIXTURE_SETUP(contain)
{
	memset(self, 0, sizeof(*self));
	if (geteuid())
		SKIP(return, "only root can make containers");
	setenv("SHMK_TEST_BACKEND", "module", 1);
	test_uri(self->uri, "contain");
	self->pool.bytes = 1 << 20;
	self->pool.mode = 0666;
	self->opts.create = &self->pool;
}

FIXTURE_TEARDOWN(contain)
{
	if (self->s)
		shmk_detach(self->s);
}

static int next_event(struct shmk *s, uint32_t type, struct shmk_event *event)
{
	struct pollfd p = { .fd = shmk_event_fd(s), .events = POLLIN };
	int ret;

	for (;;) {
		ret = shmk_event_next(s, event);
		if (ret == -EAGAIN && poll(&p, 1, WATCHDOG_MS) != 1)
			return -ETIMEDOUT;
		if (ret && ret != -EAGAIN)
			return ret;
		if (!ret && event->type == type)
			return 0;
	}
}

/* ---- messages, and whose ---- */

static const char text[] = "from another world, not copied on the way";

static void sends(struct child_end *end, struct world *w)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_queue *q;
	struct shmk_msg m;
	struct shmk *s;

	must(!shmk_attach(w->uri, NULL, &s), 60);
	must(!shmk_queue_open(s, "q", &opts, SHMK_TRY, &q), 61);
	must(!shmk_alloc(s, 4096, 0, &m), 62);
	memcpy(m.data, text, sizeof(text));
	must(!shmk_send(q, &m, watchdog()), 63);
	tell(end, (int)shmk_self(s));
	hear(end->from);
}

static void receives(struct child_end *end, struct world *w)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = 4 };
	struct shmk_event event;
	struct shmk_queue *q;
	struct shmk_msg m;
	struct shmk *s;
	struct shmk_peer_info info;

	must(!shmk_attach(w->uri, NULL, &s), 60);
	must(!shmk_queue_open(s, "q", &opts, SHMK_TRY, &q), 61);
	tell(end, (int)shmk_self(s));
	must(!shmk_recv(q, &m, watchdog()), 62);
	must(m.len == 4096 && !memcmp(m.data, text, sizeof(text)), 63);
	shmk_free(&m);
	/* The host is peer 1; here it is nobody, with no pid. Who am I? 1, and root. */
	info = (struct shmk_peer_info){ .size = sizeof(info), .peer = 1 };
	must(!s->backend->peer_info(s, &info) && info.peer == 1, 64);
	must(info.pid == 0 && info.uid == NOBODY, 65);
	info = (struct shmk_peer_info){ .size = sizeof(info), .peer = s->self };
	must(!s->backend->peer_info(s, &info) && info.peer == s->self, 66);
	must(info.pid == 1 && info.uid == 0, 67);
	tell(end, 1);
	/* So is the other container's end. */
	must(!next_event(s, SHMK_EV_DIED, &event), 68);
	must(event.pid == 0 && event.uid == NOBODY && event.reason == SHMK_REASON_KILLED, 69);
	tell(end, (int)event.peer);
	hear(end->from);
	must(!shmk_pool_check(s, NULL, 0), 70);
	shmk_detach(s);
}

TEST_F(contain, two_containers_talk_and_hear_of_each_others_death)
{
	struct world a = { self->uri, "/tmp/contain.a", BASE_A, false, sends };
	struct world b = { self->uri, "/tmp/contain.b", BASE_B, false, receives };
	struct shmk_peer_info info;
	struct shmk_event event;
	struct child ca, cb;
	int id_a, id_b;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->opts, &self->s));
	child_start(&cb, container, &b);
	id_b = child_hear(&cb);
	if (id_b < 0) {
		ASSERT_EQ(79, WEXITSTATUS(child_wait(&cb)));
		SKIP(return, "no namespaces here");
	}
	child_start(&ca, container, &a);
	id_a = child_hear(&ca);
	ASSERT_LT(0, id_a);
	EXPECT_NE(id_a, id_b);
	EXPECT_EQ(1, child_hear(&cb));
	/* The host sees its own numbers for all. */
	info = (struct shmk_peer_info){ .size = sizeof(info), .peer = (uint32_t)id_a };
	ASSERT_EQ(0, self->s->backend->peer_info(self->s, &info));
	EXPECT_EQ(BASE_A, info.uid);
	EXPECT_LT(1, info.pid);
	ASSERT_EQ(0, kill(info.pid, SIGKILL));
	ASSERT_EQ(0, next_event(self->s, SHMK_EV_DIED, &event));
	EXPECT_EQ((uint32_t)id_a, event.peer);
	EXPECT_EQ(info.pid, event.pid);
	EXPECT_EQ(BASE_A, event.uid);
	EXPECT_EQ(id_a, child_hear(&cb));
	child_wait(&ca);
	child_tell(&cb, 0);
	EXPECT_EQ(0, child_wait(&cb));
}

/* ---- who may ---- */

static void tries(struct child_end *end, struct world *w)
{
	struct shmk_attach_opts rdonly = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk *s;
	int ret = shmk_attach(w->uri, NULL, &s);

	if (!ret)
		shmk_detach(s);
	tell(end, ret);
	ret = shmk_attach(w->uri, &rdonly, &s);
	if (!ret)
		shmk_detach(s);
	tell(end, ret);
	tell(end, shmk_pool_destroy(w->uri));
}

TEST_F(contain, a_group_is_the_one_outside_that_it_is_mapped_to)
{
	struct world w = { self->uri, "/tmp/contain.a", BASE_A, true, tries };
	static const struct {
		uint32_t mode;
		bool in_group;
		int full, rdonly;
	} cases[] = {
		{ 0660, true, 0, 0 }, { 0660, false, -EACCES, -EACCES },
		{ 0640, true, -EACCES, 0 }, { 0600, true, -EACCES, -EACCES },
		{ 0604, false, -EACCES, 0 },
	};
	struct child c;
	size_t i;
	int ret;

	self->pool.set_owner = true;
	self->pool.uid = 0;
	self->pool.gid = BASE_A + GROUP;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		self->pool.mode = cases[i].mode;
		ASSERT_EQ(0, shmk_attach(self->uri, &self->opts, &self->s));
		w.in_group = cases[i].in_group;
		child_start(&c, container, &w);
		ret = child_hear(&c);
		if (ret == -EPIPE) {
			ASSERT_EQ(79, WEXITSTATUS(child_wait(&c)));
			SKIP(return, "no namespaces here");
		}
		EXPECT_EQ(cases[i].full, ret) TH_LOG("mode %o", cases[i].mode);
		EXPECT_EQ(cases[i].rdonly, child_hear(&c)) TH_LOG("mode %o", cases[i].mode);
		/* Root in there, and nobody's owner out here. */
		EXPECT_EQ(-EPERM, child_hear(&c));
		EXPECT_EQ(0, child_wait(&c));
		shmk_detach(self->s);
		self->s = NULL;
	}
}

static void makes(struct child_end *end, struct world *w)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20, .mode = 0600 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk *s;

	must(!shmk_attach(w->uri, &opts, &s), 60);
	tell(end, 0);
	hear(end->from);
	shmk_detach(s);
}

TEST_F(contain, a_pool_made_inside_is_its_users_and_another_container_stays_out)
{
	struct world a = { self->uri, "/tmp/contain.a", BASE_A, false, makes };
	struct world b = { self->uri, "/tmp/contain.b", BASE_B, false, tries };
	struct shmk_pool_stat stat;
	struct child ca, cb;
	int ret;

	child_start(&ca, container, &a);
	ret = child_hear(&ca);
	if (ret == -EPIPE) {
		ASSERT_EQ(79, WEXITSTATUS(child_wait(&ca)));
		SKIP(return, "no namespaces here");
	}
	ASSERT_EQ(0, ret);
	child_start(&cb, container, &b);
	EXPECT_EQ(-EACCES, child_hear(&cb));
	EXPECT_EQ(-EACCES, child_hear(&cb));
	EXPECT_EQ(-EPERM, child_hear(&cb));
	EXPECT_EQ(0, child_wait(&cb));
	/* The host's root may do everything. */
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &self->s));
	ASSERT_EQ(0, shmk_pool_stat(self->s, &stat));
	EXPECT_EQ(BASE_A, stat.uid);
	child_tell(&ca, 0);
	EXPECT_EQ(0, child_wait(&ca));
}

TEST_HARNESS_MAIN
