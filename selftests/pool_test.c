// SPDX-License-Identifier: GPL-2.0-only
/*
 * pool_test.c - pools by name and the life of an attachment, on both backends.
 */
#include <sched.h>
#include <setjmp.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "lib_test.h"
#include "kselftest_harness.h"

/* ---------------------------------------------------------------- names -- */

TEST(a_uri_names_a_backend_and_a_pool)
{
	const struct shmk_backend *backend;
	const char *name;

	ASSERT_EQ(0, uri_parse("local:a", &backend, &name));
	EXPECT_EQ(&shmk_local_backend, backend);
	EXPECT_STREQ("a", name);
	ASSERT_EQ(0, uri_parse("shmk:A.b_c-9", &backend, &name));
	EXPECT_EQ(&shmk_module_backend, backend);
	EXPECT_STREQ("A.b_c-9", name);
	ASSERT_EQ(0, uri_parse("local:", &backend, &name));
	EXPECT_STREQ("", name);
	ASSERT_EQ(0, uri_parse("plain", &backend, &name));
	EXPECT_EQ(shmk_module_backend.present() ? &shmk_module_backend : &shmk_local_backend,
		  backend);
}

static struct shmk_endpoint *endpoint(const char *uri)
{
	struct shmk_pool_opts pool = { .bytes = MIB };
	struct shmk_attach_opts attach = { .create = &pool };
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_endpoint_opts opts = { .attach = &attach, .queue = &queue };
	struct shmk_endpoint *ep = NULL;

	return shmk_endpoint_open(uri, &opts, &ep) ? NULL : ep;
}

static void endpoint_in_child(struct child_end *end, void *arg)
{
	struct shmk_endpoint *inherited = arg, *own = endpoint(getenv("ENDPOINT"));
	char c;

	tell(end, own && shmk_endpoint_shmk(own) != shmk_endpoint_shmk(inherited) &&
	     shmk_recv_copy(shmk_endpoint_queue(own), &c, 1, SHMK_TRY) == 1 && c == 'm');
	shmk_endpoint_close(inherited);
	shmk_endpoint_close(own);
}

static void *endpoint_thread(void *arg)
{
	for (int i = 0; i < 50; i++)
		shmk_endpoint_close(endpoint(arg));
	return NULL;
}

TEST(an_endpoint_is_a_queue_by_one_string)
{
	struct shmk_endpoint *a, *b, *other;
	pthread_t thread[3];
	char pool[64], uri[3][96], c;
	struct shmk_msg msg;
	struct child child;

	test_uri(pool, "ep");
	for (int i = 0; i < 3; i++)
		sprintf(uri[i], "%s%s/q%d", pool, i == 2 ? "x" : "", i);
	EXPECT_EQ(-EPROTONOSUPPORT, shmk_endpoint_open("tcp://host:1/q", NULL, &a));
	EXPECT_EQ(NULL, a);
	EXPECT_EQ(-EPROTONOSUPPORT, shmk_endpoint_open("ipc:x/q", NULL, &a));
	EXPECT_EQ(-EINVAL, shmk_endpoint_open("q", NULL, &a));
	EXPECT_EQ(-EINVAL, shmk_endpoint_open("local:/q", NULL, &a));
	EXPECT_EQ(-EINVAL, shmk_endpoint_open("local:x/.q", NULL, &a));
	EXPECT_EQ(-EINVAL, shmk_endpoint_open(NULL, NULL, &a));
	EXPECT_EQ(-ENOENT, shmk_endpoint_open(uri[0], NULL, &a));
	a = endpoint(uri[0]);
	b = endpoint(uri[1]);
	other = endpoint(uri[2]);
	ASSERT_NE(NULL, a);
	ASSERT_NE(NULL, b);
	ASSERT_NE(NULL, other);
	EXPECT_EQ(shmk_endpoint_shmk(a), shmk_endpoint_shmk(b));
	EXPECT_NE(shmk_endpoint_shmk(a), shmk_endpoint_shmk(other));
	EXPECT_EQ(0, shmk_send_copy(shmk_endpoint_queue(a), "m", 1, SHMK_TRY));
	ASSERT_EQ(0, shmk_recv(shmk_endpoint_queue(a), &msg, SHMK_TRY));
	EXPECT_EQ(0, shmk_send(shmk_endpoint_queue(b), &msg, SHMK_TRY));
	for (int i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, endpoint_thread, uri[0]));
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	/* A child is another peer. */
	setenv("ENDPOINT", uri[1], 1);
	child_start(&child, endpoint_in_child, a);
	EXPECT_EQ(1, child_hear(&child));
	EXPECT_EQ(0, child_wait(&child));
	EXPECT_EQ(-EAGAIN, shmk_recv_copy(shmk_endpoint_queue(b), &c, 1, SHMK_TRY));
	shmk_endpoint_close(a);
	shmk_endpoint_close(b);
	shmk_endpoint_close(other);
	shmk_endpoint_close(NULL);
	EXPECT_EQ(-ENOENT, shmk_attach(pool, NULL, &(struct shmk *){ NULL }));
}

/* An idle endpoint of before does not stand in the way of those after it. */
TEST(an_endpoint_of_a_pool_that_was_reset)
{
	struct shmk_attach_opts one = { .flags = SHMK_ATTACH_ONE_THREAD };
	struct shmk_endpoint_opts opts = { .attach = &one };
	struct shmk_pool_opts pool = { .bytes = MIB, .flags = SHMK_POOL_PERSIST };
	struct shmk_endpoint *before, *after, *more;
	char name[64], uri[96];

	test_uri(name, "ep");
	sprintf(uri, "%s/q", name);
	ASSERT_EQ(0, shmk_pool_create(name, &pool));
	EXPECT_EQ(-EINVAL, shmk_endpoint_open(uri, &opts, &before));	/* it would be shared */
	before = endpoint(uri);
	ASSERT_NE(NULL, before);
	ASSERT_EQ(0, shmk_pool_reset(name, SHMK_RESET_FORCE));
	EXPECT_EQ(-ESHUTDOWN, shmk_send_copy(shmk_endpoint_queue(before), "m", 1, SHMK_TRY));
	after = endpoint(uri);
	ASSERT_NE(NULL, after);
	more = endpoint(uri);
	ASSERT_NE(NULL, more);
	EXPECT_EQ(shmk_endpoint_shmk(after), shmk_endpoint_shmk(more));
	EXPECT_EQ(0, shmk_send_copy(shmk_endpoint_queue(after), "m", 1, SHMK_TRY));
	shmk_endpoint_close(before);
	EXPECT_EQ(0, shmk_send_copy(shmk_endpoint_queue(more), "m", 1, SHMK_TRY));
	shmk_endpoint_close(after);
	shmk_endpoint_close(more);
	EXPECT_EQ(0, shmk_pool_destroy(name));
}

TEST(bad_names_are_refused)
{
	static const char *const bad[] = {
		"", ".a", "-a", "local:.a", "local:-a", "local:a/b", "local:a b", "local:a:b",
		"other:a", ":a", "local:..", "a\n", "local:\xc3\xa4",
		"local:0123456789012345678901234567890123456789012345678901234567890123",
	};
	const struct shmk_backend *backend;
	const char *name;
	struct shmk *s;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		EXPECT_EQ(-EINVAL, uri_parse(bad[i], &backend, &name))
			TH_LOG("'%s'", bad[i]);
		EXPECT_EQ(-EINVAL, shmk_attach(bad[i], NULL, &s));
	}
	EXPECT_EQ(-EINVAL, shmk_attach(NULL, NULL, &s));
	EXPECT_EQ(0, uri_parse("local:012345678901234567890123456789012345678901234567890123456789012",
			       &backend, &name));
}

TEST(the_version_is_told)
{
	EXPECT_STREQ(SHMK_VERSION, shmk_version());
}

/* ---------------------------------------------------------------- pools -- */

FIXTURE(pool)
{
	char			uri[128];
	struct shmk_pool_opts	opts;
	struct shmk_attach_opts	create;
	int			fds;
	int			names;
};

FIXTURE_SETUP(pool)
{
	test_uri(self->uri, "pool");
	self->opts = (struct shmk_pool_opts) { .bytes = MIB };
	self->create = (struct shmk_attach_opts) { .create = &self->opts };
	self->names = dir_entries(test_dir);
	self->fds = open_fds();
}

FIXTURE_TEARDOWN(pool)
{
	EXPECT_EQ(self->fds, open_fds());
	EXPECT_EQ(0, pool_mappings());
	EXPECT_EQ(self->names, dir_entries(test_dir));
}

TEST_F(pool, wrong_options_are_refused)
{
	const struct shmk_pool_opts bad[] = {
		{ .bytes = 0 },
		{ .bytes = 4096 },				/* not a span */
		{ .bytes = MIB + 4096 },
		{ .bytes = MIB, .flags = 0x80 },
		{ .bytes = MIB, .mode = 01600 },
		{ .bytes = MIB, .page_bytes = 8192 },
		{ .bytes = MIB, .unit_bytes = 128 },
		{ .bytes = MIB, .unit_bytes = 384 },
		{ .bytes = MIB, .unit_bytes = 128 << 10 },
		{ .bytes = MIB, .unit_bytes = 64 << 10 },	/* a span is 16 MiB then */
		{ .bytes = MIB, .nr_peers = SHMK_PEERS_MAX + 1 },
		{ .bytes = MIB, .nr_queues = SHMK_QUEUES_MAX + 1 },
	};

	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		EXPECT_EQ(-EINVAL, shmk_pool_create(self->uri, &bad[i]))
			TH_LOG("of options %zu", i);
	EXPECT_EQ(-EINVAL, shmk_pool_create(self->uri, NULL));
	EXPECT_EQ(-ENOENT, shmk_pool_destroy(self->uri));
}

TEST_F(pool, a_persistent_pool_stays_until_it_is_destroyed)
{
	struct shmk_pool_stat stat;
	struct shmk *s;

	self->opts.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(self->uri, &self->opts));
	EXPECT_EQ(-EEXIST, shmk_pool_create(self->uri, &self->opts));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &s));
	EXPECT_EQ(-EBUSY, shmk_pool_destroy(self->uri));
	EXPECT_EQ(-EBUSY, shmk_pool_cleanup(self->uri));
	shmk_detach(s);
	EXPECT_EQ(0, shmk_pool_cleanup(self->uri));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &s));
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(SHMK_POOL_PERSIST, stat.flags);
	EXPECT_EQ(2, stat.attaches);
	EXPECT_EQ(1, stat.detaches);
	shmk_detach(s);
	EXPECT_EQ(0, shmk_pool_destroy(self->uri));
	EXPECT_EQ(-ENOENT, shmk_pool_destroy(self->uri));
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
}

/* What is seen of a pool by its name. */
static int stat_of(const char *uri, struct shmk_pool_stat *stat)
{
	struct shmk *s;
	int ret = shmk_attach(uri, NULL, &s);

	if (ret)
		return ret;
	ret = shmk_pool_stat(s, stat);
	shmk_detach(s);
	return ret;
}

TEST_F(pool, a_reset_leaves_nothing_but_name_and_shape)
{
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE, .capacity = 8 };
	struct shmk_pool_stat before, after;
	struct shmk_queue *q;
	struct shmk *s;

	EXPECT_EQ(-ENOENT, shmk_pool_reset(self->uri, 0));
	EXPECT_EQ(-EINVAL, shmk_pool_reset(self->uri, 2));
	EXPECT_EQ(-EINVAL, shmk_pool_reset("local:", 0));
	self->opts.flags = SHMK_POOL_PERSIST;
	self->opts.mode = 0640;
	self->opts.nr_peers = 7;
	self->opts.unit_bytes = 512;
	ASSERT_EQ(0, shmk_pool_create(self->uri, &self->opts));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &queue, SHMK_TRY, &q));
	ASSERT_EQ(0, shmk_send_copy(q, self->uri, 4, SHMK_TRY));
	EXPECT_EQ(-EBUSY, shmk_pool_reset(self->uri, 0));
	EXPECT_EQ(0, shmk_send_copy(q, self->uri, 4, SHMK_TRY));
	shmk_detach(s);
	ASSERT_EQ(0, stat_of(self->uri, &before));
	EXPECT_EQ(1, before.queues_now);

	ASSERT_EQ(0, shmk_pool_reset(self->uri, 0));
	ASSERT_EQ(0, stat_of(self->uri, &after));
	EXPECT_EQ(0, after.queues_now);
	EXPECT_EQ(0, after.bytes_used);
	EXPECT_EQ(1, after.attaches);
	EXPECT_EQ(0, after.deaths);
	EXPECT_EQ(before.flags, after.flags);
	EXPECT_EQ(before.bytes, after.bytes);
	EXPECT_EQ(before.unit_bytes, after.unit_bytes);
	EXPECT_EQ(before.mode, after.mode);
	EXPECT_EQ(before.uid, after.uid);
	EXPECT_EQ(before.gid, after.gid);
	EXPECT_EQ(before.nr_peers, after.nr_peers);
	EXPECT_EQ(before.nr_queues, after.nr_queues);
	EXPECT_STREQ(before.name, after.name);
	EXPECT_EQ(0, shmk_pool_destroy(self->uri));
}

/* Tells the first four bytes of what it holds, and how its calls end. */
static void member(struct child_end *end, void *arg)
{
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE, .capacity = 8 };
	struct shmk_queue *q;
	struct shmk_msg msg, more;
	struct shmk *s;

	if (shmk_attach(arg, NULL, &s) || shmk_alloc(s, 5000, 0, &msg) ||
	    shmk_queue_open(s, "q", &queue, SHMK_TRY, &q))
		_exit(1);
	memset(msg.data, 'x', 5000);
	tell(end, 0);
	tell(end, shmk_recv(q, &more, SHMK_FOREVER));
	for (int i = 0; i < 5000; i++)
		if (((char *)msg.data)[i] != 'x')
			_exit(2);
	memset(msg.data, 'y', 5000);
	tell(end, shmk_send(q, &msg, SHMK_TRY));
	shmk_free(&msg);
	tell(end, shmk_alloc(s, 1, 0, &msg));
	hear(end->from);
	shmk_detach(s);
	tell(end, shmk_attach(arg, NULL, &s));
	hear(end->from);
	shmk_detach(s);
}

TEST_F(pool, a_forced_reset_wakes_all_and_takes_nothing_from_under_them)
{
	struct shmk_pool_stat stat;
	struct child c[2];
	struct shmk *s;

	self->opts.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(self->uri, &self->opts));
	for (int i = 0; i < 2; i++) {
		child_start(&c[i], member, self->uri);
		ASSERT_EQ(0, child_hear(&c[i]));
	}
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	for (int i = 0; i < 2; i++)
		for (int call = 0; call < 3; call++)
			EXPECT_EQ(-ESHUTDOWN, child_hear(&c[i]));
	/* They are there still, elsewhere. */
	ASSERT_EQ(0, stat_of(self->uri, &stat));
	EXPECT_EQ(1, stat.peers_now);
	EXPECT_EQ(0, stat.queues_now);
	EXPECT_EQ(0, shmk_pool_reset(self->uri, 0));
	for (int i = 0; i < 2; i++) {
		child_tell(&c[i], 0);
		EXPECT_EQ(0, child_hear(&c[i]));
	}
	ASSERT_EQ(0, stat_of(self->uri, &stat));
	EXPECT_EQ(3, stat.peers_now);
	EXPECT_EQ(-EBUSY, shmk_pool_destroy(self->uri));
	for (int i = 0; i < 2; i++) {
		child_tell(&c[i], 0);
		EXPECT_EQ(0, child_wait(&c[i]));
	}
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &s));
	shmk_detach(s);
	EXPECT_EQ(0, shmk_pool_destroy(self->uri));
}

/* Without persistence: as long as somebody is in an old one, there is a new one. */
TEST_F(pool, a_reset_pool_that_is_not_persistent_waits_for_its_peers)
{
	struct shmk *old, *older, *s;
	struct shmk_event event;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &older));
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	ASSERT_EQ(0, event_wait_type(older, &event, SHMK_EV_RESET));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &old));
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	ASSERT_EQ(0, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
	shmk_detach(old);
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &s));
	EXPECT_EQ(-EAGAIN, shmk_event_next(s, &event));
	shmk_detach(older);
	EXPECT_EQ(-EBUSY, shmk_pool_reset(self->uri, 0));
	EXPECT_EQ(-EAGAIN, shmk_event_next(s, &event));
	shmk_detach(s);
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
	EXPECT_EQ(-ENOENT, shmk_pool_reset(self->uri, SHMK_RESET_FORCE));
}

TEST_F(pool, a_pool_goes_with_its_last_peer)
{
	struct shmk *a, *b;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &a));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &b));
	shmk_detach(a);
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &a));
	shmk_detach(a);
	shmk_detach(b);
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &a));
}

TEST_F(pool, the_module_has_no_name_in_any_file_system)
{
	static const char *const places[] = { "/dev", "/dev/shm", "/tmp", "/run" };
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE };
	int was[4];
	struct shmk_queue *q;
	struct shmk *s;

	if (!on_module())
		SKIP(return, "the local backend has files");
	for (int i = 0; i < 4; i++)
		was[i] = dir_entries(places[i]);
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &queue, SHMK_TRY, &q));
	for (int i = 0; i < 4; i++)
		EXPECT_EQ(was[i], dir_entries(places[i]));
	shmk_detach(s);
}

TEST_F(pool, its_size_is_exact_and_told)
{
	struct shmk_pool_stat stat;
	struct shmk *s;

	self->opts = (struct shmk_pool_opts) {
		.bytes = 3 * MIB + 512 * 1024, .unit_bytes = 512, .mode = 0640,
		.nr_peers = 7, .nr_queues = 9, .rings_bytes = 1 << 16,
	};
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	memset(&stat, 0xaa, sizeof(stat));
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_STREQ(strchr(self->uri, ':') + 1, stat.name);
	EXPECT_STREQ(on_module() ? "shmk" : "local", stat.backend);
	EXPECT_EQ(3 * MIB + 512 * 1024, stat.bytes);
	EXPECT_LE(stat.bytes + (1 << 16), stat.memory_bytes);
	EXPECT_EQ(4096, stat.page_bytes);
	EXPECT_EQ(512, stat.unit_bytes);
	EXPECT_EQ(0, stat.flags);
	EXPECT_EQ(-1, stat.node);
	EXPECT_EQ(0640, stat.mode);
	EXPECT_EQ(geteuid(), stat.uid);
	EXPECT_EQ(getegid(), stat.gid);
	EXPECT_EQ(7, stat.nr_peers);
	EXPECT_EQ(9, stat.nr_queues);
	EXPECT_EQ(1, stat.peers_now);
	EXPECT_EQ(0, stat.queues_now);
	EXPECT_EQ(0, stat.blocks_used);
	EXPECT_EQ(1, stat.attaches);
	EXPECT_LT(0, stat.age_ns);
	EXPECT_GT(60000000000, stat.age_ns);
	shmk_detach(s);
}

TEST_F(pool, what_is_outside_the_data_is_not_contained)
{
	struct shmk *s;
	struct shmk_msg msg = { 0 };

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_alloc(s, 100, 0, &msg));
	EXPECT_TRUE(shmk_contains(s, msg.data, 100));
	EXPECT_TRUE(shmk_contains(s, s->data, MIB));
	EXPECT_TRUE(shmk_contains(s, s->data + MIB, 0));
	EXPECT_FALSE(shmk_contains(s, s->data, MIB + 1));
	EXPECT_FALSE(shmk_contains(s, s->data - 1, 1));
	EXPECT_FALSE(shmk_contains(s, s->data + 1, SIZE_MAX));
	EXPECT_FALSE(shmk_contains(s, &msg, 1));
	EXPECT_FALSE(shmk_contains(s, NULL, 0));
	shmk_free(&msg);
	shmk_detach(s);
}

struct listed {
	const char	*name;
	int		nr;
	int		stop;
};

static int list_one(const struct shmk_pool_stat *stat, void *arg)
{
	struct listed *l = arg;

	if (!strncmp(stat->name, l->name, strlen(l->name)))
		l->nr++;
	return l->stop;
}

TEST_F(pool, the_list_tells_each_pool_once)
{
	struct shmk *s[5];
	struct listed l = { .name = strchr(self->uri, ':') + 1 };
	char uri[160];

	for (int i = 0; i < 5; i++) {
		sprintf(uri, "%s.%d", self->uri, i);
		ASSERT_EQ(0, shmk_attach(uri, &self->create, &s[i]));
	}
	EXPECT_EQ(0, shmk_pool_list(on_module() ? "shmk" : "local", list_one, &l));
	EXPECT_EQ(5, l.nr);
	l.nr = 0;
	EXPECT_EQ(0, shmk_pool_list(NULL, list_one, &l));
	EXPECT_EQ(5, l.nr);
	l.stop = 77;
	EXPECT_EQ(77, shmk_pool_list(NULL, list_one, &l));
	EXPECT_EQ(-EINVAL, shmk_pool_list("other", list_one, &l));
	EXPECT_EQ(-EINVAL, shmk_pool_list(NULL, NULL, NULL));
	for (int i = 0; i < 5; i++)
		shmk_detach(s[i]);
}

/* ---------------------------------------------------------- attachments -- */

TEST_F(pool, exclusive_means_new)
{
	struct shmk *s, *t = (void *)-1;

	self->create.exclusive = true;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	EXPECT_EQ(-EEXIST, shmk_attach(self->uri, &self->create, &t));
	EXPECT_EQ((void *)-1, t);
	shmk_detach(s);
}

/* What still keeps a pool whose peers have ended is here a file that a child holds. */
TEST_F(pool, exclusive_waits_for_a_pool_that_is_about_to_go)
{
	const int hold_ms[] = { 20, 60000 };
	int ret[2] = { 0, -EEXIST }, fd, i;	/* local: goes with the end of its last peer */
	struct shmk *s;
	pid_t pid;

	self->create.exclusive = true;
	for (i = 0; i < 2 && on_module(); i++) {
		ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
		fd = dup(shmk_pool_fd(s));
		ASSERT_LE(0, fd);
		pid = fork();
		if (!pid) {
			close(shmk_pool_fd(s));
			usleep(hold_ms[i] * 1000);
			_exit(0);
		}
		close(fd);
		shmk_detach(s);
		ret[i] = shmk_attach(self->uri, &self->create, &s);
		if (!ret[i])
			shmk_detach(s);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	EXPECT_EQ(0, ret[0]);
	EXPECT_EQ(-EEXIST, ret[1]);
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* The kernel gives up the registration of an mm for any signal; that is not the caller's business. */
TEST_F(pool, a_signal_does_not_keep_from_attaching)
{
	struct itimerval once = { };
	struct sigaction action = { .sa_handler = on_alarm }, old;
	int i, ret = 0;
	struct shmk *s;

	/* Each attachment is the first of this mm: the next ones of an mm are no trouble. */
	self->opts.flags = SHMK_POOL_PERSIST;
	ASSERT_EQ(0, shmk_pool_create(self->uri, &self->opts));
	ASSERT_EQ(0, sigaction(SIGALRM, &action, &old));
	for (i = 0; i < 200 && !ret; i++) {
		once.it_value.tv_usec = 20 + i * 37 % 1000;
		setitimer(ITIMER_REAL, &once, NULL);
		ret = shmk_attach(self->uri, NULL, &s);
		if (!ret)
			shmk_detach(s);
	}
	once.it_value.tv_usec = 0;
	setitimer(ITIMER_REAL, &once, NULL);
	sigaction(SIGALRM, &old, NULL);
	EXPECT_EQ(0, ret);
	EXPECT_EQ(0, shmk_pool_destroy(self->uri));
}

/* On the module a worker has the most of it; a pool is not busy because of who has left it. */
TEST_F(pool, what_one_held_is_back_when_its_detach_returns)
{
	struct shmk_attach_opts opts = { .create = self->create.create, .nr_entries = 40000 };
	struct shmk_pool_stat stat;
	struct shmk *s, *t;
	struct shmk_msg m;
	int64_t begin;
	int i;

	self->opts.bytes = 16 * MIB;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	for (int round = 0; round < 5; round++) {
		ASSERT_EQ(0, shmk_attach(self->uri, &opts, &t));
		for (i = 0; i < 30000 && !shmk_alloc(t, 16, 0, &m); i++)
			;
		EXPECT_EQ(30000, i);
		if (round == 4)		/* what the quarantine looks at, pinned or not */
			EXPECT_EQ(0, shmk_alloc(t, 400000, 0, &m));
		begin = now_ns();
		shmk_detach(t);
		if (now_ns() - begin >= 1000000000)
			settled(s);	/* it waits for so long and no longer */
		ASSERT_EQ(0, shmk_pool_stat(s, &stat));
		EXPECT_EQ(1, stat.peers_now);
		EXPECT_EQ(0, stat.blocks_used);
	}
	shmk_detach(s);
}

TEST_F(pool, wrong_attach_options_are_refused)
{
	const struct shmk_attach_opts bad[] = {
		{ .flags = 0x100, .create = &self->opts },
		{ .nr_entries = SHMK_ENTRIES_MAX + 1, .create = &self->opts },
		{ .exclusive = true },
		{ .pool_fd = -1 },
		{ .pool_fd = 1 },			/* and a name */
	};
	struct shmk *s;
	char scheme[8];
	size_t i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		EXPECT_EQ(-EINVAL, shmk_attach(self->uri, &bad[i], &s))
			TH_LOG("of options %zu", i);
	sprintf(scheme, "%.*s", (int)(strchr(self->uri, ':') - self->uri) + 1, self->uri);
	EXPECT_EQ(-EINVAL, shmk_attach(scheme, NULL, &s));
}

TEST_F(pool, a_pool_that_does_not_come_is_waited_for_until_the_deadline)
{
	struct shmk_attach_opts opts = { .deadline = SHMK_TRY };
	struct shmk *s;
	int64_t begin;

	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, &opts, &s));
	begin = now_ns();
	opts.deadline = begin + 30000000;
	EXPECT_EQ(-ETIMEDOUT, shmk_attach(self->uri, &opts, &s));
	EXPECT_LE(30000000, now_ns() - begin);
}

static void attach_later(struct child_end *end, void *arg)
{
	struct shmk_pool_opts create = { .bytes = MIB };
	struct shmk_attach_opts opts = { .create = &create };
	struct shmk *s;

	hear(end->from);
	tell(end, shmk_attach(arg, &opts, &s));
	hear(end->from);
	shmk_detach(s);
}

TEST_F(pool, a_pool_that_comes_ends_the_wait)
{
	struct shmk_attach_opts opts = { .deadline = watchdog() };
	struct child c;
	struct shmk *s;

	child_start(&c, attach_later, self->uri);
	child_tell(&c, 0);
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &s));
	EXPECT_EQ(0, child_hear(&c));
	child_tell(&c, 0);
	EXPECT_EQ(0, child_wait(&c));
	shmk_detach(s);
}

#define RACERS	8

static void attach_race(struct child_end *end, void *arg)
{
	struct shmk_pool_opts create = { .bytes = MIB };
	struct shmk_attach_opts opts = { .create = &create };
	struct shmk *s;

	hear(end->from);
	if (shmk_attach(arg, &opts, &s))
		_exit(1);
	/* Only if all are in one pool. */
	if (shmk_wait_peers(s, RACERS, watchdog()))
		_exit(2);
	tell(end, shmk_self(s));
	hear(end->from);
	shmk_detach(s);
}

TEST_F(pool, open_or_create_by_many_at_once_makes_one_pool)
{
	struct child c[RACERS];

	for (int round = 0; round < 10; round++) {
		uint32_t seen = 0;

		for (int i = 0; i < RACERS; i++)
			child_start(&c[i], attach_race, self->uri);
		for (int i = 0; i < RACERS; i++)
			child_tell(&c[i], 0);
		for (int i = 0; i < RACERS; i++)
			seen |= 1U << child_hear(&c[i]);
		EXPECT_EQ((1U << RACERS) - 1, seen >> 1);
		for (int i = 0; i < RACERS; i++)
			child_tell(&c[i], 0);
		for (int i = 0; i < RACERS; i++)
			EXPECT_EQ(0, child_wait(&c[i]));
		EXPECT_EQ(self->names, dir_entries(test_dir));
	}
}

static void come_and_go(struct child_end *end, void *arg)
{
	struct shmk_pool_opts create = { .bytes = MIB };
	struct shmk_attach_opts opts = { .create = &create };
	struct shmk *s;

	(void)end;
	for (int i = 0; i < 50; i++) {
		int ret = shmk_attach(arg, &opts, &s);

		if (ret)
			_exit(-ret);
		shmk_detach(s);
	}
}

TEST_F(pool, making_and_leaving_at_once_leaves_nothing)
{
	struct child c[RACERS];

	for (int i = 0; i < RACERS; i++)
		child_start(&c[i], come_and_go, self->uri);
	for (int i = 0; i < RACERS; i++)
		EXPECT_EQ(0, WEXITSTATUS(child_wait(&c[i])));
}

/* The first peer's id and generation as another process sees them, then its word on its life. */
static void judge(struct child_end *end, void *arg)
{
	struct shmk_pool_stat stat;
	struct shmk *s;
	uint32_t id, gen;

	id = hear(end->from);
	gen = hear(end->from);
	if (shmk_attach(arg, NULL, &s))
		_exit(1);
	shmk_pool_stat(s, &stat);	/* looks for the dead first, where there are none to tell */
	tell(end, shmk_peer_alive(s, id, gen));
	shmk_detach(s);
}

TEST_F(pool, its_data_can_be_had_at_an_address_that_all_agree_on)
{
	/* Far from where the kernel puts what does not care. */
	char *at = mmap((void *)0x200000000000, 4096, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	struct shmk_attach_opts opts = self->create;
	struct shmk_msg m;
	struct shmk *a, *b;

	ASSERT_NE(MAP_FAILED, (void *)at);
	opts.flags = SHMK_ATTACH_AT;
	EXPECT_EQ(-EINVAL, shmk_attach(self->uri, &opts, &a));
	opts.data_at = at + 1;
	EXPECT_EQ(-EINVAL, shmk_attach(self->uri, &opts, &a));
	opts.data_at = at;
	EXPECT_EQ(-EADDRINUSE, shmk_attach(self->uri, &opts, &a));
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &a));	/* nothing is left of that */
	munmap(at, 4096);
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &a));
	ASSERT_EQ(0, shmk_alloc(a, 100, 0, &m));
	EXPECT_TRUE(shmk_contains(a, at, 1));
	EXPECT_TRUE((char *)m.data >= at && (char *)m.data < at + MIB);
	EXPECT_EQ(-EADDRINUSE, shmk_attach(self->uri, &opts, &b));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &b));
	EXPECT_FALSE(shmk_contains(b, at, 1));
	shmk_detach(b);
	shmk_detach(a);
}

TEST_F(pool, one_process_may_be_several_peers)
{
	struct shmk *a, *b;

	struct child c;

	child_start(&c, judge, self->uri);
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &a));
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &b));
	EXPECT_NE(shmk_self(a), shmk_self(b));
	EXPECT_TRUE(shmk_peer_alive(a, shmk_self(b), shmk_self_gen(b)));
	EXPECT_TRUE(shmk_peer_alive(b, shmk_self(a), shmk_self_gen(a)));
	shmk_detach(b);
	EXPECT_FALSE(shmk_peer_alive(a, shmk_self(a) + 1, 1));
	EXPECT_TRUE(shmk_peer_alive(a, shmk_self(a), shmk_self_gen(a)));
	/* Nothing that goes with one of them is taken for the end of the process. */
	EXPECT_EQ(-EBUSY, shmk_pool_destroy(self->uri));
	EXPECT_EQ(-EBUSY, shmk_pool_cleanup(self->uri));
	EXPECT_EQ(-ENOENT, shmk_attach("local:none.such", NULL, &b));
	child_tell(&c, shmk_self(a));
	child_tell(&c, shmk_self_gen(a));
	EXPECT_EQ(true, child_hear(&c));
	EXPECT_EQ(0, child_wait(&c));
	shmk_detach(a);
}

/* Every number of files that is too small, until one is enough. */
TEST_F(pool, a_failed_attach_leaves_no_trace)
{
	struct rlimit limit, few;
	struct shmk *s = NULL;
	int lowest, extra, ret;

	lowest = dup(0);
	close(lowest);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	for (extra = 0; extra < 30; extra++) {
		few = (struct rlimit) { .rlim_cur = lowest + extra, .rlim_max = limit.rlim_max };
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
		ret = shmk_attach(self->uri, &self->create, &s);
		ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
		if (!ret)
			break;
		EXPECT_EQ(-EMFILE, ret);
		EXPECT_EQ(self->fds, open_fds());
		EXPECT_EQ(0, pool_mappings());
		/* Without an fd to open it with, the half made one stays for the next. */
		shmk_pool_cleanup("local:");
		EXPECT_EQ(self->names, dir_entries(test_dir));
	}
	EXPECT_LT(2, extra);
	ASSERT_EQ(0, ret);
	shmk_detach(s);
}

/*
 * On a file system of its own: a pool that is too large for /dev/shm would,
 * if the library did not refuse it, take the memory of the whole machine.
 */
TEST_F(pool, too_large_is_refused_and_nothing_kept)
{
	struct shmk *s;

	if (on_module())
		SKIP(return, "limits of the module have tests of their own");
	if (unshare(CLONE_NEWNS) || mount("none", "/", "none", MS_REC | MS_PRIVATE, "") ||
	    mount("none", test_dir, "tmpfs", 0, "size=16m,mode=1777"))
		SKIP(return, "cannot mount: %s", strerror(errno));
	self->opts.bytes = 64 * MIB;
	EXPECT_EQ(-ENOSPC, shmk_pool_create(self->uri, &self->opts));
	EXPECT_EQ(-ENOSPC, shmk_attach(self->uri, &self->create, &s));
	EXPECT_EQ(0, dir_entries(test_dir));
	self->opts.bytes = 8 * MIB;
	self->create.nr_entries = SHMK_ENTRIES_MAX;	/* 16 MiB of ledger */
	EXPECT_EQ(-ENOMEM, shmk_attach(self->uri, &self->create, &s));
	EXPECT_EQ(0, dir_entries(test_dir));
	self->create.nr_entries = 0;
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	memset(s->data, 1, 8 * MIB);			/* all of it is there */
	shmk_detach(s);
	EXPECT_EQ(0, umount(test_dir));
}

TEST_F(pool, errno_is_the_callers)
{
	struct shmk_event event;
	struct shmk_peer peer;
	struct shmk *s;

	errno = 4711;
	EXPECT_EQ(-ENOENT, shmk_attach(self->uri, NULL, &s));
	EXPECT_EQ(-ENOENT, shmk_pool_destroy(self->uri));
	EXPECT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	EXPECT_EQ(-EEXIST, shmk_pool_create(self->uri, &self->opts));
	EXPECT_EQ(-ENOENT, shmk_peer_next(s, 1000, &peer));
	EXPECT_LT(0, shmk_event_fd(s));
	EXPECT_EQ(-EAGAIN, shmk_event_next(s, &event));
	shmk_pool_list(NULL, list_one, &(struct listed) { .name = "none" });
	shmk_detach(s);
	EXPECT_EQ(4711, errno);
}

/* ----------------------------------------------------------------- fork -- */

TEST_F(pool, a_child_may_only_forget_and_the_parent_keeps_everything)
{
	struct shmk_msg msg = { 0 };
	struct shmk_queue *q;
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_pool_stat stat;
	struct shmk *s, *t;
	int status;
	pid_t pid;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_queue_open(s, "q", &qopts, SHMK_TRY, &q));
	ASSERT_LE(0, shmk_queue_fd(q, SHMK_RECV));
	ASSERT_LE(0, shmk_event_fd(s));
	ASSERT_EQ(0, shmk_alloc(s, 1000, 0, &msg));
	strcpy(msg.data, "held");
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* What lies at the parent's addresses now is the child's own. */
		char *own = mmap(s->data, 4096, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

		if (own != (char *)s->data)
			_exit(1);
		*own = 'x';
		shmk_detach(s);
		if (*own != 'x')
			_exit(2);
		if (open_fds() > self->fds + !on_module())	/* the lock file stays */
			_exit(3);
		if (shmk_attach(self->uri, NULL, &s))
			_exit(4);
		if (!shmk_peer_alive(s, 1, 1))
			_exit(5);
		shmk_detach(s);
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	ASSERT_EQ(0, shmk_attach(self->uri, NULL, &t));
	EXPECT_TRUE(shmk_peer_alive(t, shmk_self(s), shmk_self_gen(s)));
	ASSERT_EQ(0, shmk_pool_stat(t, &stat));
	EXPECT_EQ(1, stat.blocks_used);
	EXPECT_EQ(1, stat.queues_now);
	EXPECT_EQ(0, stat.deaths);
	EXPECT_STREQ("held", msg.data);
	shmk_detach(t);
	shmk_detach(s);
}

TEST_F(pool, a_child_that_touches_the_pool_dies)
{
	struct shmk *s;
	int status;
	pid_t pid;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		*(volatile unsigned char *)s->data = 1;
		_exit(0);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	shmk_detach(s);
}

/* --------------------------------------------------------- read-only -- */

static sigjmp_buf fault_jump;

static void on_fault(int sig)
{
	siglongjmp(fault_jump, sig);
}

static bool write_faults(volatile unsigned char *at)
{
	struct sigaction action = { .sa_handler = on_fault }, was;
	bool faulted = true;

	sigaction(SIGSEGV, &action, &was);
	if (!sigsetjmp(fault_jump, 1)) {
		*at = 1;
		faulted = false;
	}
	sigaction(SIGSEGV, &was, NULL);
	return faulted;
}

TEST_F(pool, a_read_only_member_cannot_write)
{
	struct shmk_attach_opts rdonly = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_queue_opts qopts = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_msg msg = { 0 };
	struct shmk_queue *q = (void *)-1;
	struct shmk *s, *r;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	ASSERT_EQ(0, shmk_attach(self->uri, &rdonly, &r));
	EXPECT_EQ(-EROFS, shmk_alloc(r, 100, 0, &msg));
	EXPECT_EQ(-EROFS, shmk_queue_open(r, "q", &qopts, SHMK_TRY, &q));
	EXPECT_EQ(-1, mprotect(r->data, 4096, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(r->control, 4096, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_TRUE(write_faults(r->data));
	EXPECT_TRUE(write_faults(r->control));
	EXPECT_FALSE(write_faults(s->data));
	ASSERT_EQ(0, shmk_alloc(s, 100, 0, &msg));
	strcpy(msg.data, "seen");
	EXPECT_STREQ("seen", (char *)r->data + ((unsigned char *)msg.data - s->data));
	shmk_free(&msg);
	shmk_detach(s);
	shmk_detach(r);
}

/* -------------------------------------------------------------- details -- */

TEST_F(pool, prefault_leaves_no_page_to_fault_in)
{
	struct shmk_attach_opts opts = { .create = &self->opts, .flags = SHMK_ATTACH_PREFAULT };
	struct rusage before, after;
	struct shmk *s;

	self->opts.bytes = 8 * MIB;
	ASSERT_EQ(0, shmk_attach(self->uri, &opts, &s));
	ASSERT_EQ(0, getrusage(RUSAGE_SELF, &before));
	for (size_t at = 0; at < 8 * MIB; at += 4096)
		((volatile unsigned char *)s->data)[at] = 1;
	ASSERT_EQ(0, getrusage(RUSAGE_SELF, &after));
	/* Of 2048 pages; the address sanitizer's own memory takes 256. */
	EXPECT_GT(400, after.ru_minflt - before.ru_minflt);
	shmk_detach(s);
}

TEST_F(pool, a_passed_pool_file_is_enough_to_attach)
{
	struct shmk_attach_opts opts = { 0 };
	char scheme[8];
	struct shmk *s, *t;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	if (!on_module()) {
		EXPECT_EQ(-EOPNOTSUPP, shmk_pool_fd(s));
		opts.pool_fd = 1;
		EXPECT_EQ(-EOPNOTSUPP, shmk_attach("local:", &opts, &t));
	} else {
		sprintf(scheme, "shmk:");
		opts.pool_fd = shmk_pool_fd(s);
		ASSERT_EQ(0, shmk_attach(scheme, &opts, &t));
		EXPECT_TRUE(shmk_peer_alive(s, shmk_self(t), shmk_self_gen(t)));
		shmk_detach(t);
	}
	shmk_detach(s);
}

TEST_F(pool, an_anonymous_pool_is_nobody_elses)
{
	struct listed l = { .name = "" };
	struct shmk *s, *t;
	const char *scheme = on_module() ? "shmk:" : "local:";

	ASSERT_EQ(0, shmk_attach(scheme, &self->create, &s));
	ASSERT_EQ(0, shmk_attach(scheme, &self->create, &t));
	EXPECT_EQ(1, shmk_self(t));
	if (!on_module()) {
		EXPECT_EQ(0, shmk_pool_list("local", list_one, &l));
		EXPECT_EQ(0, l.nr);
		EXPECT_EQ(0, shmk_pool_cleanup("local:"));
	}
	EXPECT_EQ(-EINVAL, shmk_pool_create(scheme, &self->opts));
	EXPECT_EQ(-EINVAL, shmk_pool_destroy(scheme));
	shmk_detach(s);
	shmk_detach(t);
}

TEST_F(pool, only_this_layout_is_understood)
{
	struct shmk *s, *t;
	__u32 *version;

	if (on_module())
		SKIP(return, "nobody can write the module's status region");
	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	version = (__u32 *)&s->status->version;
	++*version;
	EXPECT_EQ(-EPROTO, shmk_attach(self->uri, NULL, &t));
	--*version;
	EXPECT_EQ(0, shmk_attach(self->uri, NULL, &t));
	shmk_detach(t);
	shmk_detach(s);
}

static void *thread_attach(void *arg)
{
	struct shmk *s;

	for (int i = 0; i < 100; i++) {
		if (shmk_attach(arg, NULL, &s))
			return arg;
		shmk_detach(s);
	}
	return NULL;
}

TEST_F(pool, threads_attach_and_detach_side_by_side)
{
	pthread_t thread[4];
	struct shmk_pool_stat stat;
	struct shmk *s;
	void *failed;

	ASSERT_EQ(0, shmk_attach(self->uri, &self->create, &s));
	for (int i = 0; i < 4; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, thread_attach, self->uri));
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], &failed);
		EXPECT_EQ(NULL, failed);
	}
	ASSERT_EQ(0, shmk_pool_stat(s, &stat));
	EXPECT_EQ(1, stat.peers_now);
	EXPECT_EQ(401, stat.attaches);
	EXPECT_EQ(400, stat.detaches);
	EXPECT_EQ(0, stat.deaths);
	shmk_detach(s);
}

TEST_HARNESS_MAIN
