// SPDX-License-Identifier: GPL-2.0-only
/*
 * netlink_test.c - the netlink family tells what there is and what happens: to
 * whom, in which namespace, what when somebody is too slow, and nothing wrong to
 * who asks in nonsense.
 */
#include <sched.h>
#include "shmk_test.h"
#include "genl.h"
#include "kselftest_harness.h"

#define NAME		"netlink"
#define POOL_BYTES	(1UL << 20)
#define OWNER		1001
#define STRANGER	1002

enum { EVENTS, PRIVILEGED };

static const struct test_who stranger = { "stranger", STRANGER, STRANGER, STRANGER, 0, 0 };
static const struct test_who admin = {
	"stranger with CAP_NET_ADMIN", STRANGER, STRANGER, STRANGER, 0, CAP(NET_ADMIN) };

FIXTURE(netlink)
{
	int device, pool;
	uint64_t id;
	struct genl g;
};

FIXTURE_SETUP(netlink)
{
	struct shmk_pool_info info;

	self->device = raw_device();
	ASSERT_LE(0, self->device);
	ASSERT_EQ(0, test_no_pools(self->device));
	self->pool = raw_pool_create(self->device, NAME, POOL_BYTES, 12);
	ASSERT_LE(0, self->pool);
	ASSERT_EQ(0, raw_pool_info(self->pool, &info));
	self->id = info.id;
	ASSERT_EQ(0, genl_open(&self->g));
}

FIXTURE_TEARDOWN(netlink)
{
	genl_close(&self->g);
	close(self->pool);
	EXPECT_EQ(0, test_no_pools(self->device));
	close(self->device);
}

/* ---- asking ---- */

/* @attr: a string of this number, if it is not NULL; POOL_NAME of peers and queues is the same. */
static struct nlmsghdr *ask_with(struct genl *g, int cmd, int flags, int attr, const char *name)
{
	struct nlmsghdr *nlh = genl_begin(g, g->family, (uint8_t)cmd, flags | NLM_F_ACK);

	if (name)
		mnl_attr_put_strz(nlh, (uint16_t)attr, name);
	return nlh;
}

static int get_pool(struct genl *g, const char *name, genl_told told, void *arg)
{
	return genl_ask(g, ask_with(g, SHMK_CMD_POOL_GET, 0, SHMK_A_POOL_NAME, name), told, arg);
}

struct pool_seen {
	struct shmk_pool_info info;
	uint64_t seq;
	unsigned int nr;
};

static void pool_told(const struct genl_answer *an, void *arg)
{
	struct pool_seen *seen = arg;
	struct shmk_pool_info *i = &seen->info;

	memset(i, 0, sizeof(*i));
	seen->nr++;
	seen->seq = genl_num(an, SHMK_A_POOL_SEQ);
	i->size = sizeof(*i);
	i->id = genl_num(an, SHMK_A_POOL_ID);
	snprintf(i->name, sizeof(i->name), "%s", genl_str(an, SHMK_A_POOL_NAME));
	i->bytes = genl_num(an, SHMK_A_POOL_BYTES);
	i->memory_bytes = genl_num(an, SHMK_A_POOL_MEMORY_BYTES);
	i->page_shift = genl_num(an, SHMK_A_POOL_PAGE_SHIFT);
	i->unit_shift = genl_num(an, SHMK_A_POOL_UNIT_SHIFT);
	i->node = (int)genl_num(an, SHMK_A_POOL_NODE);
	i->mode = genl_num(an, SHMK_A_POOL_MODE);
	i->uid = genl_num(an, SHMK_A_POOL_UID);
	i->gid = genl_num(an, SHMK_A_POOL_GID);
	i->flags = genl_num(an, SHMK_A_POOL_FLAGS);
	i->nr_peers = genl_num(an, SHMK_A_POOL_NR_PEERS);
	i->nr_queues = genl_num(an, SHMK_A_POOL_NR_QUEUES);
	i->peers_now = genl_num(an, SHMK_A_POOL_PEERS_NOW);
	i->queues_now = genl_num(an, SHMK_A_POOL_QUEUES_NOW);
	i->blocks_used = genl_num(an, SHMK_A_POOL_BLOCKS_USED);
	i->bytes_used = genl_num(an, SHMK_A_POOL_BYTES_USED);
	i->attaches = genl_num(an, SHMK_A_POOL_ATTACHES);
	i->detaches = genl_num(an, SHMK_A_POOL_DETACHES);
	i->deaths = genl_num(an, SHMK_A_POOL_DEATHS);
	i->reclaimed_blocks = genl_num(an, SHMK_A_POOL_RECLAIMED_BLOCKS);
	i->reclaimed_bytes = genl_num(an, SHMK_A_POOL_RECLAIMED_BYTES);
	i->lost_messages = genl_num(an, SHMK_A_POOL_LOST_MESSAGES);
	i->redelivered = genl_num(an, SHMK_A_POOL_REDELIVERED);
	i->created_ns = genl_num(an, SHMK_A_POOL_CREATED_NS);
}

TEST_F(netlink, a_pool_is_told_as_the_ioctl_tells_it)
{
	struct shmk_pool_info info;
	struct pool_seen seen = { .nr = 0 };
	struct nlmsghdr *nlh;
	struct test_att a;

	ASSERT_EQ(0, test_attach(self->pool, 0, 16, &a));
	ASSERT_EQ(0, raw_pool_info(self->pool, &info));
	ASSERT_EQ(0, get_pool(&self->g, NAME, pool_told, &seen));
	EXPECT_EQ(1, seen.nr);
	EXPECT_EQ(0, memcmp(&info, &seen.info, sizeof(info)));

	nlh = ask_with(&self->g, SHMK_CMD_POOL_GET, 0, 0, NULL);
	mnl_attr_put_u64(nlh, SHMK_A_POOL_ID, self->id);
	ASSERT_EQ(0, genl_ask(&self->g, nlh, pool_told, &seen));
	EXPECT_EQ(0, memcmp(&info, &seen.info, sizeof(info)));
	EXPECT_EQ(-ENOENT, get_pool(&self->g, "none.such", NULL, NULL));
	EXPECT_STREQ("no such pool", self->g.text);
	nlh = ask_with(&self->g, SHMK_CMD_POOL_GET, 0, 0, NULL);
	mnl_attr_put_u64(nlh, SHMK_A_POOL_ID, self->id + 1000);
	EXPECT_EQ(-ENOENT, genl_ask(&self->g, nlh, NULL, NULL));
	EXPECT_EQ(-EINVAL, get_pool(&self->g, NULL, NULL, NULL));
	EXPECT_STREQ("the id or the name of a pool is missing", self->g.text);
	test_close(&a);
}

struct counted {
	unsigned int nr;
	uint64_t last;
	int attr;
	bool growing;
};

static void count_told(const struct genl_answer *an, void *arg)
{
	struct counted *c = arg;

	c->growing = c->growing && (!c->nr || genl_num(an, c->attr) > c->last);
	c->last = genl_num(an, c->attr);
	c->nr++;
}

static struct counted dump(struct genl *g, int cmd, const char *pool, int attr)
{
	struct counted c = { .attr = attr, .growing = true };
	int ret = genl_ask(g, ask_with(g, cmd, NLM_F_DUMP, SHMK_A_PEER_POOL_NAME, pool),
			   count_told, &c);

	if (ret)
		c.nr = (unsigned int)ret;
	return c;
}

#define MANY	130	/* more than one message of a dump holds */

TEST_F_TIMEOUT(netlink, dumps_tell_all_there_is_once, 60)
{
	int pools[MANY], atts[MANY];
	struct counted c;
	uint32_t id, gen;
	char name[32];
	int i;

	for (i = 0; i < MANY; i++) {
		struct shmk_pool_create args = raw_pool_args(NULL, 64 << 10, 12);

		args.nr_peers = args.nr_queues = 4;
		args.rings_bytes = 16 << 10;
		pools[i] = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
		ASSERT_LE(0, pools[i]);
		atts[i] = raw_attach(self->pool, 0, 16, NULL);
		ASSERT_LE(0, atts[i]);
		snprintf(name, sizeof(name), "q%d", i);
		ASSERT_EQ(0, raw_queue_create(atts[i], name, 2, &id, &gen));
	}
	c = dump(&self->g, SHMK_CMD_POOL_GET, NULL, SHMK_A_POOL_ID);
	EXPECT_EQ(MANY + 1, c.nr);
	EXPECT_TRUE(c.growing);
	c = dump(&self->g, SHMK_CMD_PEER_GET, NULL, SHMK_A_PEER_ID);
	EXPECT_EQ(MANY, c.nr);
	EXPECT_TRUE(c.growing);
	c = dump(&self->g, SHMK_CMD_PEER_GET, NAME, SHMK_A_PEER_ID);
	EXPECT_EQ(MANY, c.nr);
	EXPECT_EQ(self->id, self->id);
	c = dump(&self->g, SHMK_CMD_QUEUE_GET, NULL, SHMK_A_QUEUE_ID);
	EXPECT_EQ(MANY, c.nr);
	EXPECT_TRUE(c.growing);
	c = dump(&self->g, SHMK_CMD_TOPIC_GET, NAME, SHMK_A_QUEUE_ID);
	EXPECT_EQ(0, c.nr);
	c = dump(&self->g, SHMK_CMD_PEER_GET, "none.such", SHMK_A_PEER_ID);
	EXPECT_EQ(-ENOENT, (int)c.nr);
	for (i = 0; i < MANY; i++) {
		close(atts[i]);
		close(pools[i]);
	}
	c = dump(&self->g, SHMK_CMD_PEER_GET, NAME, SHMK_A_PEER_ID);
	EXPECT_EQ(0, c.nr);
}

/* All numbers of an answer. */
struct numbers {
	uint64_t of[64];
};

static void numbers_told(const struct genl_answer *an, void *arg)
{
	struct numbers *n = arg;

	for (int i = 0; i < 64; i++)
		n->of[i] = genl_num(an, i);
}

TEST_F(netlink, a_peer_and_a_queue_are_told)
{
	struct numbers n = { { 0 } };
	struct nlmsghdr *nlh;
	struct test_att a;
	uint32_t id, gen;

	ASSERT_EQ(0, test_attach(self->pool, 0, 32, &a));
	ASSERT_EQ(0, raw_queue_create(a.fd, "q", 8, &id, &gen));
	STORE(&test_ring(&a, id)->tail, 5);
	STORE(&test_ring(&a, id)->head, 3);
	STORE(&test_ring(&a, id)->waiters_recv, 1);
	nlh = ask_with(&self->g, SHMK_CMD_QUEUE_GET, 0, SHMK_A_QUEUE_POOL_NAME, NAME);
	mnl_attr_put_strz(nlh, SHMK_A_QUEUE_NAME, "q");
	ASSERT_EQ(0, genl_ask(&self->g, nlh, numbers_told, &n));
	EXPECT_EQ(self->id, n.of[SHMK_A_QUEUE_POOL_ID]);
	EXPECT_EQ(gen, n.of[SHMK_A_QUEUE_GEN]);
	EXPECT_EQ(8, n.of[SHMK_A_QUEUE_CAPACITY]);
	EXPECT_EQ(1, n.of[SHMK_A_QUEUE_NR_OPEN]);
	EXPECT_EQ(5, n.of[SHMK_A_QUEUE_SENT]);
	EXPECT_EQ(3, n.of[SHMK_A_QUEUE_RECEIVED]);
	EXPECT_EQ(2, n.of[SHMK_A_QUEUE_DEPTH]);
	EXPECT_EQ(1, n.of[SHMK_A_QUEUE_WAITERS]);
	EXPECT_EQ(0, n.of[SHMK_A_QUEUE_BELLS]);
	ASSERT_EQ(0, raw_bell(a.fd, id, SHMK_SIDE_RECV));
	/* What a member wrote is not believed. */
	STORE(&test_ring(&a, id)->head, ~0ULL);
	nlh = ask_with(&self->g, SHMK_CMD_QUEUE_GET, 0, SHMK_A_QUEUE_POOL_NAME, NAME);
	mnl_attr_put_u32(nlh, SHMK_A_QUEUE_ID, id);
	ASSERT_EQ(0, genl_ask(&self->g, nlh, numbers_told, &n));
	EXPECT_EQ(1, n.of[SHMK_A_QUEUE_BELLS]);
	EXPECT_GE(8, n.of[SHMK_A_QUEUE_DEPTH]);
	nlh = ask_with(&self->g, SHMK_CMD_TOPIC_GET, 0, SHMK_A_QUEUE_POOL_NAME, NAME);
	mnl_attr_put_u32(nlh, SHMK_A_QUEUE_ID, id);
	EXPECT_EQ(-ENOENT, genl_ask(&self->g, nlh, NULL, NULL));

	nlh = ask_with(&self->g, SHMK_CMD_PEER_GET, 0, SHMK_A_PEER_POOL_NAME, NAME);
	mnl_attr_put_u32(nlh, SHMK_A_PEER_ID, a.peer);
	ASSERT_EQ(0, genl_ask(&self->g, nlh, numbers_told, &n));
	EXPECT_EQ(a.gen, n.of[SHMK_A_PEER_GEN]);
	EXPECT_EQ(getpid(), (int)n.of[SHMK_A_PEER_PID]);
	EXPECT_EQ(0, n.of[SHMK_A_PEER_UID]);
	EXPECT_EQ(32, n.of[SHMK_A_PEER_NR_ENTRIES]);
	nlh = ask_with(&self->g, SHMK_CMD_PEER_GET, 0, SHMK_A_PEER_POOL_NAME, NAME);
	mnl_attr_put_u32(nlh, SHMK_A_PEER_ID, a.peer + 1);
	EXPECT_EQ(-ENOENT, genl_ask(&self->g, nlh, NULL, NULL));
	nlh = ask_with(&self->g, SHMK_CMD_PEER_GET, 0, SHMK_A_PEER_POOL_NAME, NAME);
	EXPECT_EQ(-EINVAL, genl_ask(&self->g, nlh, NULL, NULL));
	test_close(&a);
}

/* ---- administering ---- */

static int create(struct genl *g, const char *name, uint64_t bytes)
{
	struct nlmsghdr *nlh = ask_with(g, SHMK_CMD_POOL_CREATE, 0, SHMK_A_POOL_NAME, name);

	if (bytes)
		mnl_attr_put_u64(nlh, SHMK_A_POOL_BYTES, bytes);
	return genl_ask(g, nlh, NULL, NULL);
}

static int reset(struct genl *g, const char *name, bool force)
{
	struct nlmsghdr *nlh = ask_with(g, SHMK_CMD_POOL_RESET, 0, SHMK_A_POOL_NAME, name);

	if (force)
		mnl_attr_put(nlh, SHMK_A_POOL_FORCE, 0, NULL);
	return genl_ask(g, nlh, NULL, NULL);
}

static int destroy(struct genl *g, const char *name)
{
	return genl_ask(g, ask_with(g, SHMK_CMD_POOL_DESTROY, 0, SHMK_A_POOL_NAME, name),
			NULL, NULL);
}

TEST_F(netlink, pools_are_made_reset_and_destroyed)
{
	struct pool_seen seen = { .nr = 0 };
	struct genl *g = &self->g;
	struct nlmsghdr *nlh;
	uint64_t id;
	int pool, att;

	EXPECT_EQ(0, create(g, "made", POOL_BYTES));
	ASSERT_EQ(0, get_pool(g, "made", pool_told, &seen));
	EXPECT_EQ(POOL_BYTES, seen.info.bytes);
	EXPECT_EQ(SHMK_POOL_F_PERSIST, seen.info.flags);
	EXPECT_EQ(0600, seen.info.mode);
	id = seen.info.id;
	EXPECT_EQ(-EEXIST, create(g, "made", POOL_BYTES));
	EXPECT_STREQ("there is a pool of this name", g->text);
	EXPECT_EQ(-EINVAL, create(g, "other", 12345));
	EXPECT_EQ(-EINVAL, create(g, ".other", POOL_BYTES));
	EXPECT_STRNE("", g->text);
	EXPECT_EQ(-EINVAL, create(g, NULL, POOL_BYTES));
	EXPECT_EQ(-EINVAL, create(g, "other", 0));
	EXPECT_EQ(-ENOENT, destroy(g, "other"));
	EXPECT_EQ(-ENOENT, reset(g, "other", true));
	nlh = ask_with(g, SHMK_CMD_POOL_CREATE, 0, SHMK_A_POOL_NAME, "own");
	mnl_attr_put_u64(nlh, SHMK_A_POOL_BYTES, POOL_BYTES);
	mnl_attr_put_u32(nlh, SHMK_A_POOL_UID, OWNER);
	mnl_attr_put_u32(nlh, SHMK_A_POOL_MODE, 0644);
	mnl_attr_put_u32(nlh, SHMK_A_POOL_NR_PEERS, 3);
	ASSERT_EQ(0, genl_ask(g, nlh, NULL, NULL));
	ASSERT_EQ(0, get_pool(g, "own", pool_told, &seen));
	EXPECT_EQ(OWNER, seen.info.uid);
	EXPECT_EQ(0644, seen.info.mode);
	EXPECT_EQ(3, seen.info.nr_peers);
	EXPECT_EQ(0, destroy(g, "own"));

	pool = raw_pool_open(self->device, "made", 0);
	att = raw_attach(pool, 0, 16, NULL);
	ASSERT_LE(0, att);
	EXPECT_EQ(-EBUSY, destroy(g, "made"));
	EXPECT_EQ(-EBUSY, reset(g, "made", false));
	EXPECT_STRNE("", g->text);
	EXPECT_EQ(0, reset(g, "made", true));
	EXPECT_EQ(-ESHUTDOWN, raw_attach(pool, 0, 16, NULL));
	ASSERT_EQ(0, get_pool(g, "made", pool_told, &seen));
	EXPECT_NE(id, seen.info.id);
	EXPECT_EQ(0, destroy(g, "made"));
	EXPECT_EQ(-ENOENT, get_pool(g, "made", NULL, NULL));
	close(att);
	close(pool);
}

/* ---- events ---- */

struct heard {
	uint8_t cmd;
	uint64_t seq, pool;
	uint32_t type, peer, gen, reason;
	int code, pid, uid;
	uint64_t blocks;
	bool has_detail;
	char comm[32], name[SHMK_NAME_LEN];
};

/* The next event of a pool (0: any): 0, or -errno; -ETIMEDOUT after @ms. */
static int hear(struct genl *g, uint64_t pool, struct heard *h, int ms)
{
	static char buf[GENL_BUF];
	struct nlmsghdr *nlh = (struct nlmsghdr *)buf;
	struct genl_answer an;
	int len, ret;

	do {
		ret = test_poll(mnl_socket_get_fd(g->nl), POLLIN, ms);
		if (ret < 0)
			return ret;
		len = (int)mnl_socket_recvfrom(g->nl, buf, sizeof(buf));
		if (len < 0)
			return -errno;
		if (!mnl_nlmsg_ok(nlh, len) || nlh->nlmsg_type != g->family)
			return -EPROTO;
		genl_parse(nlh, &an);
	} while (pool && genl_num(&an, SHMK_A_EVENT_POOL_ID) != pool);
	*h = (struct heard) {
		.cmd = an.cmd,
		.seq = genl_num(&an, SHMK_A_EVENT_SEQ),
		.pool = genl_num(&an, SHMK_A_EVENT_POOL_ID),
		.type = genl_num(&an, SHMK_A_EVENT_TYPE),
		.peer = genl_num(&an, SHMK_A_EVENT_PEER),
		.gen = genl_num(&an, SHMK_A_EVENT_GEN),
		.reason = genl_num(&an, SHMK_A_EVENT_REASON),
		.code = (int)genl_num(&an, SHMK_A_EVENT_CODE),
		.pid = (int)genl_num(&an, SHMK_A_EVENT_PID),
		.uid = (int)genl_num(&an, SHMK_A_EVENT_UID),
		.blocks = genl_num(&an, SHMK_A_EVENT_BLOCKS),
	};
	for (int i = SHMK_A_EVENT_POOL_NAME; i <= SHMK_A_EVENT_MAX; i++)
		h->has_detail = h->has_detail || an.a[i];
	snprintf(h->comm, sizeof(h->comm), "%s", genl_str(&an, SHMK_A_EVENT_COMM));
	snprintf(h->name, sizeof(h->name), "%s", genl_str(&an, SHMK_A_EVENT_POOL_NAME));
	return 0;
}

/* The next of a type: what came before the join may come late, from a worker. */
static int hear_of(struct genl *g, uint64_t pool, uint32_t type, struct heard *h)
{
	int ret;

	do
		ret = hear(g, pool, h, PATIENCE_MS);
	while (!ret && h->type != type);
	return ret;
}

/* Holds a block, says who it is, and waits to be killed. */
static int victim(int sock, void *arg)
{
	struct test_att a;

	CHILD_CHECK(!test_attach(*(int *)arg, 0, 16, &a));
	STORE(&test_span(&a, 0)->word, SHMK_SPAN_WORD(0, a.peer, 0, 0, SHMK_SPAN_CUT));
	test_entry(&a, 0, SHMK_WHAT(SHMK_OP_SPAN, 0, 0), SHMK_WHERE(0, 1));
	test_entry(&a, 1, SHMK_WHAT(SHMK_OP_HELD, 0, 1), SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0));
	STORE(test_block(&a, 0), SHMK_BLOCK_WORD(1, SHMK_BLOCK_USED));
	prctl(PR_SET_NAME, "renamed");
	CHILD_CHECK(!test_say(sock, a.peer, a.gen, 0));
	test_park(sock);
}

TEST_F_TIMEOUT(netlink, events_tell_ids_to_all_and_the_rest_to_the_privileged, 60)
{
	struct genl *all = &self->g, priv;
	struct shmk_pool_create args;
	struct shmk_pool_info info;
	struct test_child c;
	struct heard h, d;
	struct test_msg m;
	uint64_t seq;
	int other;

	ASSERT_EQ(0, genl_open(&priv));
	ASSERT_EQ(0, genl_join(all, EVENTS));
	ASSERT_EQ(0, genl_join(&priv, PRIVILEGED));
	ASSERT_EQ(0, test_child_start(&c, victim, &self->pool));
	ASSERT_EQ(0, test_hear(c.sock, &m));
	/* A worker tells: that the pool was made may come only now, to both or to one. */
	do {
		ASSERT_EQ(0, hear(all, self->id, &h, PATIENCE_MS));
	} while (h.type == SHMK_EV_CREATED);
	do {
		ASSERT_EQ(0, hear(&priv, self->id, &d, PATIENCE_MS));
	} while (d.type == SHMK_EV_CREATED);
	EXPECT_EQ(SHMK_CMD_EVENT, h.cmd);
	EXPECT_EQ(SHMK_CMD_EVENT_DETAIL, d.cmd);
	EXPECT_EQ(SHMK_EV_ATTACHED, h.type);
	EXPECT_EQ(m.v[0], h.peer);
	EXPECT_EQ(m.v[1], h.gen);
	EXPECT_FALSE(h.has_detail);
	EXPECT_EQ(h.seq, d.seq);
	EXPECT_EQ(c.pid, d.pid);
	EXPECT_EQ(0, d.uid);
	EXPECT_STREQ("netlink_test", d.comm);
	EXPECT_STREQ(NAME, d.name);

	seq = h.seq;
	test_child_kill(&c);
	ASSERT_EQ(0, hear(all, self->id, &h, PATIENCE_MS));
	ASSERT_EQ(0, hear(&priv, self->id, &d, PATIENCE_MS));
	EXPECT_EQ(SHMK_EV_DIED, h.type);
	EXPECT_EQ(m.v[0], h.peer);
	EXPECT_EQ(seq + 1, h.seq);
	EXPECT_FALSE(h.has_detail);
	EXPECT_EQ(h.seq, d.seq);
	EXPECT_EQ(SHMK_REASON_KILLED, d.reason);
	EXPECT_EQ(SIGKILL, d.code);
	EXPECT_EQ(c.pid, d.pid);
	EXPECT_EQ(1, d.blocks);

	/* A pool that comes, and goes by itself. */
	args = raw_pool_args("other", POOL_BYTES, 12);
	other = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_EQ(0, raw_pool_info(other, &info));
	close(other);
	for (uint32_t type = SHMK_EV_CREATED; type; type = type == SHMK_EV_CREATED ?
	     SHMK_EV_DESTROYED : 0) {
		ASSERT_EQ(0, hear(all, 0, &h, PATIENCE_MS));
		EXPECT_EQ(type, h.type);
		EXPECT_EQ(info.id, h.pool);
		ASSERT_EQ(0, hear(&priv, 0, &d, PATIENCE_MS));
		EXPECT_STREQ("other", d.name);
		EXPECT_EQ(type == SHMK_EV_CREATED ? getpid() : d.pid, d.pid);
	}
	EXPECT_EQ(-ETIMEDOUT, hear(all, self->id, &h, 0));
	genl_close(&priv);
}

#define BURST	1500

/* All events that are there, and more, are too much; then it finds its way again. */
TEST_F_TIMEOUT(netlink, who_is_too_slow_is_told_and_finds_its_way_by_a_dump, 240)
{
	struct pool_seen seen = { .nr = 0 };
	int small = 4096, ret, att;
	struct genl slow;
	struct heard h = { .seq = 0 };
	bool told = false;
	uint64_t last;

	ASSERT_EQ(0, genl_open(&slow));
	ASSERT_EQ(0, setsockopt(mnl_socket_get_fd(slow.nl), SOL_SOCKET, SO_RCVBUF, &small,
				sizeof(small)));
	ASSERT_EQ(0, genl_join(&slow, EVENTS));
	for (int i = 0; i < BURST; i++) {
		att = raw_attach(self->pool, 0, 16, NULL);
		ASSERT_LE(0, att);
		close(att);
	}
	ASSERT_EQ(0, get_pool(&self->g, NAME, pool_told, &seen));
	EXPECT_EQ(BURST, seen.info.attaches);
	EXPECT_EQ(BURST, seen.info.detaches);
	/* All that is there; it is in order, and is in what the dump has told. */
	do {
		last = h.seq;
		ret = hear(&slow, self->id, &h, 2000);
		told = told || ret == -ENOBUFS;
		if (!ret && last)
			EXPECT_LT(last, h.seq);
	} while (!ret || ret == -ENOBUFS);
	EXPECT_TRUE(told);
	EXPECT_EQ(-ETIMEDOUT, ret);
	EXPECT_GT(seen.seq, last);
	/* From there on nothing is missing. */
	for (int i = 0; i < 3; i++) {
		att = raw_attach(self->pool, 0, 16, NULL);
		ASSERT_EQ(0, hear(&slow, self->id, &h, PATIENCE_MS));
		EXPECT_EQ(seen.seq + 2 * i, h.seq);
		EXPECT_EQ(SHMK_EV_ATTACHED, h.type);
		close(att);
		ASSERT_EQ(0, hear(&slow, self->id, &h, PATIENCE_MS));
		EXPECT_EQ(seen.seq + 2 * i + 1, h.seq);
	}
	genl_close(&slow);
}

/* ---- who ---- */

struct as_arg {
	const struct test_who *who;
	uint64_t id;
	bool bound;
};

/* With no rights to NAME, which is root's, mode 0600; "open" is 0604. */
static int a_stranger(int sock, void *arg)
{
	struct as_arg *as = arg;
	struct pool_seen seen = { .nr = 0 };
	struct nlmsghdr *nlh;
	struct counted c;
	struct heard h;
	struct genl g;

	test_become(as->who);
	CHILD_CHECK(!genl_open(&g));
	/* What sysfs shows as well. */
	CHILD_CHECK(!get_pool(&g, NAME, pool_told, &seen));
	CHILD_CHECK(seen.info.id == as->id && seen.info.peers_now == 1);
	c = dump(&g, SHMK_CMD_POOL_GET, NULL, SHMK_A_POOL_ID);
	CHILD_CHECK(c.nr == 2);
	/* But not who is in there. */
	c = dump(&g, SHMK_CMD_PEER_GET, NULL, SHMK_A_PEER_ID);
	CHILD_CHECK(c.nr == 1);
	c = dump(&g, SHMK_CMD_QUEUE_GET, NULL, SHMK_A_PEER_ID);
	CHILD_CHECK(c.nr == 1);
	c = dump(&g, SHMK_CMD_PEER_GET, NAME, SHMK_A_PEER_ID);
	CHILD_CHECK((int)c.nr == -EACCES);
	c = dump(&g, SHMK_CMD_PEER_GET, "open", SHMK_A_PEER_ID);
	CHILD_CHECK(c.nr == 1);
	nlh = ask_with(&g, SHMK_CMD_PEER_GET, 0, SHMK_A_PEER_POOL_NAME, NAME);
	mnl_attr_put_u32(nlh, SHMK_A_PEER_ID, 1);
	CHILD_CHECK(genl_ask(&g, nlh, NULL, NULL) == -EACCES);
	CHILD_CHECK(destroy(&g, NAME) == -EPERM);
	CHILD_CHECK(reset(&g, NAME, true) == -EPERM);
	if (as->who == &stranger)
		CHILD_CHECK(create(&g, "mine", POOL_BYTES) == -EPERM);
	CHILD_CHECK(genl_join(&g, PRIVILEGED) == (as->who == &stranger ? -EPERM : 0));
	CHILD_CHECK(!genl_join(&g, EVENTS));
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	CHILD_CHECK(!hear_of(&g, as->id, SHMK_EV_DETACHED, &h));
	return 0;
}

static void as_stranger(struct __test_metadata *_metadata, FIXTURE_DATA(netlink) *self,
			const struct test_who *who)
{
	struct as_arg as = { .who = who, .id = self->id };
	struct shmk_pool_create args = raw_pool_args("open", POOL_BYTES, 12);
	int open, att[2], pool[2];
	struct test_child c;
	struct test_msg m;
	uint32_t id, gen;

	args.mode = 0604;
	open = raw(self->device, SHMK_IOC_POOL_CREATE, &args);
	ASSERT_LE(0, open);
	pool[0] = self->pool;
	pool[1] = open;
	for (int i = 0; i < 2; i++) {
		att[i] = raw_attach(pool[i], 0, 16, NULL);
		ASSERT_LE(0, att[i]);
		ASSERT_EQ(0, raw_queue_create(att[i], "q", 2, &id, &gen));
	}
	ASSERT_EQ(0, test_child_start(&c, a_stranger, &as));
	EXPECT_EQ(0, test_hear(c.sock, &m));
	EXPECT_EQ(0, raw_detach(att[0]));
	EXPECT_EQ(0, test_child_end(&c));
	close(att[0]);
	close(att[1]);
	close(open);
}

TEST_F_TIMEOUT(netlink, who_may_do_nothing_sees_what_sysfs_shows, 60)
{
	as_stranger(_metadata, self, &stranger);
}

TEST_F_TIMEOUT(netlink, cap_net_admin_alone_owns_no_pool, 60)
{
	as_stranger(_metadata, self, &admin);
}

/* A socket that root is given by somebody else does not become root's. */
static int hands_over(int sock, void *arg)
{
	struct genl g;

	(void)arg;
	test_become(&stranger);
	CHILD_CHECK(!genl_open(&g));
	CHILD_CHECK(!test_say_fd(sock, g.family, 0, 0, mnl_socket_get_fd(g.nl)));
	test_park(sock);
}

TEST_F(netlink, a_socket_has_the_rights_of_its_opener)
{
	struct test_child c;
	struct test_msg m;
	struct counted n;
	struct genl g;
	int fd, att;

	att = raw_attach(self->pool, 0, 16, NULL);
	ASSERT_EQ(0, test_child_start(&c, hands_over, NULL));
	ASSERT_EQ(0, test_hear_fd(c.sock, &m, &fd));
	memset(&g, 0, sizeof(g));
	g.family = (uint16_t)m.v[0];
	g.nl = mnl_socket_fdopen(fd);
	ASSERT_NE(NULL, g.nl);
	n = dump(&g, SHMK_CMD_PEER_GET, NULL, SHMK_A_PEER_ID);
	EXPECT_EQ(0, n.nr);
	n = dump(&g, SHMK_CMD_PEER_GET, NAME, SHMK_A_PEER_ID);
	EXPECT_EQ(-EACCES, (int)n.nr);
	EXPECT_EQ(-EPERM, destroy(&g, NAME));
	EXPECT_EQ(-EPERM, create(&g, "mine", POOL_BYTES));
	genl_close(&g);
	test_child_kill(&c);
	close(att);
}

/* ---- namespaces ---- */

struct ns_arg {
	uint64_t id;
	bool user;
};

#define NOT_ALLOWED	97

static int in_another_net(int sock, void *arg)
{
	struct ns_arg *ns = arg;
	struct genl g, priv;
	struct counted c;
	struct heard h;

	if (ns->user)
		test_become(&stranger);
	if (unshare(CLONE_NEWNET | (ns->user ? CLONE_NEWUSER : 0)))
		return NOT_ALLOWED;
	CHILD_CHECK(!genl_open(&g));
	CHILD_CHECK(!genl_open(&priv));
	CHILD_CHECK(!genl_join(&g, EVENTS));
	CHILD_CHECK(!genl_join(&priv, PRIVILEGED));	/* it is root here, after all */
	c = dump(&g, SHMK_CMD_POOL_GET, NULL, SHMK_A_POOL_ID);
	CHILD_CHECK(c.nr == 1);
	if (ns->user)
		CHILD_CHECK(create(&g, "mine", POOL_BYTES) == -EPERM);
	CHILD_CHECK(!test_say(sock, 0, 0, 0));
	CHILD_CHECK(!hear_of(&g, ns->id, SHMK_EV_ATTACHED, &h));
	CHILD_CHECK(h.peer == 1);
	CHILD_CHECK(!hear(&g, ns->id, &h, PATIENCE_MS));
	CHILD_CHECK(h.type == SHMK_EV_DETACHED);
	/* "privileged" is sent first or second, but of the first event before the second. */
	if (ns->user) {
		CHILD_CHECK(hear(&priv, 0, &h, 0) == -ETIMEDOUT);
	} else {
		CHILD_CHECK(!hear(&priv, ns->id, &h, PATIENCE_MS));
		CHILD_CHECK(h.type == SHMK_EV_ATTACHED && h.pid == getppid());
	}
	return 0;
}

static int across(FIXTURE_DATA(netlink) *self, bool user)
{
	struct ns_arg ns = { .id = self->id, .user = user };
	struct test_child c;
	struct test_msg m;

	if (test_child_start(&c, in_another_net, &ns))
		return -1;
	if (!test_hear(c.sock, &m))
		close(raw_attach(self->pool, 0, 16, NULL));
	return test_child_end(&c);
}

TEST_F_TIMEOUT(netlink, another_network_namespace_hears_it_all, 60)
{
	int status = across(self, false);

	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
		SKIP(return, "no network namespaces here");
	EXPECT_EQ(0, status);
}

TEST_F_TIMEOUT(netlink, root_of_a_user_namespace_hears_ids_only, 60)
{
	int status = across(self, true);

	if (WIFEXITED(status) && WEXITSTATUS(status) == NOT_ALLOWED)
		SKIP(return, "no user namespaces here");
	EXPECT_EQ(0, status);
}

/* ---- nonsense ---- */

TEST_F(netlink, messages_that_are_none_are_refused)
{
	struct genl *g = &self->g;
	char name[100], *raw_name;
	struct nlmsghdr *nlh;

	/* Attributes that this command does not know, or not so. */
	nlh = ask_with(g, SHMK_CMD_POOL_GET, 0, SHMK_A_POOL_NAME, NAME);
	mnl_attr_put_u64(nlh, SHMK_A_POOL_BYTES, 1);
	EXPECT_EQ(-EINVAL, genl_ask(g, nlh, NULL, NULL));
	nlh = ask_with(g, SHMK_CMD_POOL_GET, 0, SHMK_A_POOL_NAME, NAME);
	mnl_attr_put_u32(nlh, 500, 1);
	EXPECT_EQ(-EINVAL, genl_ask(g, nlh, NULL, NULL));
	nlh = ask_with(g, SHMK_CMD_POOL_GET, 0, 0, NULL);
	mnl_attr_put_u32(nlh, SHMK_A_POOL_ID, 1);
	EXPECT_GT(0, genl_ask(g, nlh, NULL, NULL));
	EXPECT_EQ(-EINVAL, genl_ask(g, ask_with(g, SHMK_CMD_PEER_GET, NLM_F_DUMP, 7, "x"),
				    NULL, NULL));
	/* Names without an end, and without an end in sight. */
	nlh = ask_with(g, SHMK_CMD_POOL_GET, 0, 0, NULL);
	mnl_attr_put(nlh, SHMK_A_POOL_NAME, 3, "abc");
	EXPECT_EQ(-EINVAL, genl_ask(g, nlh, NULL, NULL));
	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	EXPECT_EQ(-EINVAL, get_pool(g, name, NULL, NULL));
	/* An attribute longer than its message. */
	nlh = ask_with(g, SHMK_CMD_POOL_GET, 0, SHMK_A_POOL_NAME, NAME);
	raw_name = mnl_nlmsg_get_payload_offset(nlh, sizeof(struct genlmsghdr));
	((struct nlattr *)raw_name)->nla_len = 400;
	EXPECT_GT(0, genl_ask(g, nlh, NULL, NULL));
	/* Commands that are none, or are not asked. */
	EXPECT_EQ(-EOPNOTSUPP, genl_ask(g, ask_with(g, 200, 0, 0, NULL), NULL, NULL));
	EXPECT_EQ(-EOPNOTSUPP, genl_ask(g, ask_with(g, SHMK_CMD_EVENT, 0, 0, NULL), NULL, NULL));
	EXPECT_EQ(-EOPNOTSUPP, genl_ask(g, ask_with(g, SHMK_CMD_POOL_RESET, NLM_F_DUMP, 0, NULL),
					NULL, NULL));
	EXPECT_EQ(0, get_pool(g, NAME, NULL, NULL));
}

static uint64_t next_random(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

/* Good messages with some bytes changed. Whatever the answers are, the family goes on. */
TEST_F_TIMEOUT(netlink, mutated_messages_do_no_harm, 60)
{
	const char *text = getenv("SHMK_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : 0x9e3779b97f4a7c15ULL ^ getpid();
	uint64_t random = seed | 1;
	struct genl *g = &self->g;
	struct timeval soon = { .tv_usec = 20000 };
	char sink[GENL_BUF];
	int i, n, fd = mnl_socket_get_fd(g->nl);

	TH_LOG("SHMK_TEST_SEED=%#llx", (unsigned long long)seed);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	for (i = 0; i < 2000; i++) {
		static const int cmds[] = { SHMK_CMD_POOL_GET, SHMK_CMD_PEER_GET,
			SHMK_CMD_QUEUE_GET, SHMK_CMD_TOPIC_GET, SHMK_CMD_POOL_CREATE };
		int cmd = cmds[next_random(&random) % 5];
		struct nlmsghdr *nlh = ask_with(g, cmd, next_random(&random) & 1 ? NLM_F_DUMP : 0,
						next_random(&random) % 30, "mutant");

		mnl_attr_put_u64(nlh, next_random(&random) % 40, next_random(&random));
		for (n = next_random(&random) % 6; n > 0; n--)
			g->buf[16 + next_random(&random) % (nlh->nlmsg_len - 16)] =
				(char)next_random(&random);
		mnl_socket_sendto(g->nl, nlh, nlh->nlmsg_len);
		while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			;
	}
	while (recv(fd, sink, sizeof(sink), 0) > 0)
		;
	soon = (struct timeval) { .tv_sec = 0 };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
	EXPECT_EQ(0, get_pool(g, NAME, NULL, NULL));
	destroy(g, "mutant");
}

TEST_HARNESS_MAIN
