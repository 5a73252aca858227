// SPDX-License-Identifier: GPL-2.0-only
/*
 * interrupt_test.c - shmk_interrupt() ends every call that blocks, and after
 * shmk_resume() the same call blocks and succeeds as if nothing had been.
 *
 * And shmk_pool_reset() ends it once and for all.
 *
 * One row per call. That none is missing is a test too: each function of shmk.h
 * that takes a deadline must have a row.
 */
#include <ctype.h>

#include "kselftest_harness.h"
#include "sleeper.h"

/* The header as it was when this was built. */
__asm__(".section .rodata\n"
	"header:\n"
	".incbin \"lib/include/shmk.h\"\n"
	".byte 0\n"
	".previous\n");
extern const char header[];

/* What a row works with, new for each. The call is made on @s, others act on @other. */
struct place {
	struct shmk		*s, *other, *third;
	struct shmk_queue	*empty, *full;		/* of s */
	struct shmk_queue	*fill, *drain;		/* the same two, of other */
	struct shmk_queue	*going;			/* of other; keeps what s drains */
	struct shmk_poller	*p;
	struct shmk_msg		msg, hog, request;
	struct shmk_mailbox	*mail, *others_mail;	/* of s; of other, full */
	int64_t			asked;
	bool			was_full;
	struct shmk_topic	*mine, *theirs;		/* of s; s writes to the one, other to the other */
	struct shmk_topic	*others;		/* the second, of other */
	struct shmk_sub		*slow;			/* of mine, and other's: s waits for it */
	struct shmk_sub		*reader;		/* of theirs */
	struct shmk_loan	loan;
};

struct row {
	const char *name;
	int64_t (*call)(struct place *at, int64_t deadline);	/* 0 or more: success */
	void (*provide)(struct place *at);			/* what it waits for */
};

static int64_t call_wait_peers(struct place *at, int64_t deadline)
{
	return shmk_wait_peers(at->s, 3, deadline);
}

static void one_more_peer(struct place *at)
{
	at->third = join();
}

static int64_t call_queue_open(struct place *at, int64_t deadline)
{
	struct shmk_queue *q;

	return shmk_queue_open(at->s, "late", NULL, deadline, &q);
}

static void make_the_queue(struct place *at)
{
	queue(at->other, "late", 4);
}

static int64_t message_ready(struct place *at)
{
	return at->msg.data ? 0 : shmk_alloc(at->s, 100, 0, &at->msg);
}

static int64_t call_send(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	return ret ? ret : shmk_send(at->full, &at->msg, deadline);
}

static int64_t call_send_batch(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	return ret ? ret : shmk_send_batch(at->full, &at->msg, 1, deadline);
}

static int64_t call_send_multi(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	return ret ? ret : shmk_send_multi(at->full, &at->msg, 1, deadline);
}

static int64_t call_recv_multi(struct place *at, int64_t deadline)
{
	int64_t ret = shmk_recv_multi(at->empty, &at->msg, 1, deadline);

	if (ret == 1)
		shmk_free(&at->msg);
	return ret;
}

static int64_t call_send_ptr(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	if (!ret)
		ret = shmk_send_ptr(at->full, at->msg.data, 100, deadline);
	if (!ret)
		at->msg.data = NULL;
	return ret;
}

static int64_t call_send_copy(struct place *at, int64_t deadline)
{
	return shmk_send_copy(at->full, "x", 1, deadline);
}

static void make_room(struct place *at)
{
	uint64_t value;

	CHECK(!get(at->drain, &value, SHMK_TRY));
}

static int64_t call_recv(struct place *at, int64_t deadline)
{
	int64_t ret = shmk_recv(at->empty, &at->msg, deadline);

	if (!ret)
		shmk_free(&at->msg);
	return ret;
}

static int64_t call_recv_batch(struct place *at, int64_t deadline)
{
	int64_t ret = shmk_recv_batch(at->empty, &at->msg, 1, deadline);

	if (ret == 1)
		shmk_free(&at->msg);
	return ret;
}

static int64_t call_recv_copy(struct place *at, int64_t deadline)
{
	uint64_t value;

	return shmk_recv_copy(at->empty, &value, sizeof(value), deadline);
}

static int64_t call_poller_wait(struct place *at, int64_t deadline)
{
	struct shmk_ready ready;

	return shmk_poller_wait(at->p, &ready, 1, deadline);
}

static int64_t call_topic_open(struct place *at, int64_t deadline)
{
	struct shmk_topic *t;

	return shmk_topic_open(at->s, "late", NULL, deadline, &t);
}

static void make_the_topic(struct place *at)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE };
	struct shmk_topic *t;

	CHECK(!shmk_topic_open(at->other, "late", &opts, SHMK_TRY, &t));
}

static int64_t call_queue_drain(struct place *at, int64_t deadline)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE };

	if (!at->going)
		CHECK(!shmk_queue_open(at->other, "going", &opts, SHMK_TRY, &at->going));
	return shmk_queue_drain(at->s, "going", deadline);
}

static void close_the_queue(struct place *at)
{
	shmk_queue_close(at->going);
}

static int64_t call_topic_writer(struct place *at, int64_t deadline)
{
	return shmk_topic_writer(at->theirs, deadline);
}

static void leave_the_role(struct place *at)
{
	shmk_topic_writer_release(at->others);
}

static int64_t call_topic_publish(struct place *at, int64_t deadline)
{
	int64_t ret = at->loan.data ? 0 : shmk_topic_loan(at->mine, &at->loan);

	return ret ? ret : shmk_topic_publish(at->mine, &at->loan, 1, deadline);
}

static int64_t call_topic_publish_copy(struct place *at, int64_t deadline)
{
	return shmk_topic_publish_copy(at->mine, "x", 1, deadline);
}

static void read_slowly(struct place *at)
{
	char c;

	CHECK(shmk_topic_read(at->slow, &c, 1, NULL, SHMK_TRY) == 1);
}

static int64_t call_topic_take(struct place *at, int64_t deadline)
{
	struct shmk_held held;
	int64_t ret = shmk_topic_take(at->reader, &held, deadline);

	return ret ? ret : shmk_topic_release(&held);
}

static int64_t call_topic_read(struct place *at, int64_t deadline)
{
	char c;

	return shmk_topic_read(at->reader, &c, 1, NULL, deadline);
}

static void publish_one(struct place *at)
{
	CHECK(!shmk_topic_publish_copy(at->others, "x", 1, SHMK_TRY));
}

static void send_one(struct place *at)
{
	CHECK(!put(at->fill, 1, SHMK_TRY));
}

static int64_t call_alloc_wait(struct place *at, int64_t deadline)
{
	int64_t ret;

	if (!at->msg.data && !at->hog.data)
		CHECK(!shmk_alloc(at->other, 600 << 10, 0, &at->hog));
	ret = shmk_alloc_wait(at->s, 600 << 10, 0, &at->msg, deadline);
	if (!ret)
		shmk_free(&at->msg);
	return ret;
}

static void free_the_hog(struct place *at)
{
	shmk_free(&at->hog);
}

/* To the other's mailbox, which is full. */
static int64_t call_mail_send(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	return ret ? ret : shmk_mail_send(at->s, shmk_self(at->other), 0, 1, &at->msg, deadline);
}

static int64_t call_mail_send_copy(struct place *at, int64_t deadline)
{
	return shmk_mail_send_copy(at->s, shmk_self(at->other), 0, 1, "x", 1, deadline);
}

/* To who sent a request, and has no room for the reply. */
static int64_t call_reply(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	return ret ? ret : shmk_reply(&at->request, &at->msg, deadline);
}

static void read_a_mail(struct place *at)
{
	struct shmk_msg msg;

	CHECK(!shmk_mail_recv(at->others_mail, SHMK_ANY_PEER, SHMK_ANY_TAG, &msg, SHMK_TRY));
	shmk_free(&msg);
}

static int64_t call_mail_recv(struct place *at, int64_t deadline)
{
	int64_t ret = shmk_mail_recv(at->mail, SHMK_ANY_PEER, 1, &at->msg, deadline);

	if (!ret)
		shmk_free(&at->msg);
	return ret;
}

static int64_t call_mail_recv_from(struct place *at, int64_t deadline)
{
	int64_t ret = shmk_mail_recv_from(at->mail, shmk_self(at->other), shmk_self_gen(at->other),
					  1, &at->msg, deadline);

	if (!ret)
		shmk_free(&at->msg);
	return ret;
}

static void mail_one(struct place *at)
{
	CHECK(!shmk_mail_send_copy(at->other, shmk_self(at->s), 0, 1, "x", 1, SHMK_TRY));
}

static struct shmk_queue *service(struct shmk *s, const char *name)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER,
		.capacity = 16,
	};
	struct shmk_queue *q;

	CHECK(!shmk_queue_open(s, name, &opts, SHMK_TRY, &q));
	return q;
}

static int64_t call_request_send(struct place *at, int64_t deadline)
{
	struct shmk_queue *q = service(at->s, "service");
	int64_t ret;

	do {		/* until it is full */
		ret = message_ready(at);
		if (!ret)
			ret = shmk_request_send(at->mail, q, &at->msg, SHMK_TRY);
	} while (ret > 0 && !at->was_full);
	if (ret == -EAGAIN) {
		at->was_full = true;
		ret = shmk_request_send(at->mail, q, &at->msg, deadline);
	}
	return ret;
}

static void take_a_request(struct place *at)
{
	struct shmk_msg msg;

	CHECK(!shmk_recv(service(at->other, "service"), &msg, SHMK_TRY));
	shmk_free(&msg);
}

static int64_t call_call(struct place *at, int64_t deadline)
{
	int64_t ret = message_ready(at);

	if (!ret)
		ret = shmk_call(at->mail, service(at->s, "service"), &at->msg, deadline);
	if (!ret)
		shmk_free(&at->msg);
	return ret;
}

static int64_t call_reply_recv(struct place *at, int64_t deadline)
{
	int64_t ret;

	if (!at->asked) {
		CHECK(!message_ready(at));
		at->asked = shmk_request_send(at->mail, service(at->s, "service"), &at->msg, SHMK_TRY);
		CHECK(at->asked > 0);
	}
	ret = shmk_reply_recv(at->mail, 0, &at->msg, deadline);
	if (!ret)
		shmk_free(&at->msg);
	return ret;
}

/* The last one: those before were cancelled. */
static void answer(struct place *at)
{
	struct shmk_queue *q = service(at->other, "service");
	struct shmk_msg request = { .data = NULL }, next, reply;

	while (!shmk_recv(q, &next, SHMK_TRY)) {
		shmk_free(&request);
		shmk_msg_move(&request, &next);
	}
	CHECK(!shmk_alloc(at->other, 8, 0, &reply));
	CHECK(!shmk_reply(&request, &reply, SHMK_TRY));
}

static const struct row rows[] = {
	{ "shmk_mail_send", call_mail_send, read_a_mail },
	{ "shmk_mail_send_copy", call_mail_send_copy, read_a_mail },
	{ "shmk_mail_recv", call_mail_recv, mail_one },
	{ "shmk_mail_recv_from", call_mail_recv_from, mail_one },
	{ "shmk_request_send", call_request_send, take_a_request },
	{ "shmk_reply_recv", call_reply_recv, answer },
	{ "shmk_call", call_call, answer },
	{ "shmk_reply", call_reply, read_a_mail },
	{ "shmk_alloc_wait", call_alloc_wait, free_the_hog },
	{ "shmk_wait_peers", call_wait_peers, one_more_peer },
	{ "shmk_queue_open", call_queue_open, make_the_queue },
	{ "shmk_send", call_send, make_room },
	{ "shmk_send_copy", call_send_copy, make_room },
	{ "shmk_send_ptr", call_send_ptr, make_room },
	{ "shmk_send_batch", call_send_batch, make_room },
	{ "shmk_recv", call_recv, send_one },
	{ "shmk_recv_copy", call_recv_copy, send_one },
	{ "shmk_recv_batch", call_recv_batch, send_one },
	{ "shmk_send_multi", call_send_multi, make_room },
	{ "shmk_recv_multi", call_recv_multi, send_one },
	{ "shmk_poller_wait", call_poller_wait, send_one },
	{ "shmk_topic_open", call_topic_open, make_the_topic },
	{ "shmk_queue_drain", call_queue_drain, close_the_queue },
	{ "shmk_topic_writer", call_topic_writer, leave_the_role },
	{ "shmk_topic_publish", call_topic_publish, read_slowly },
	{ "shmk_topic_publish_copy", call_topic_publish_copy, read_slowly },
	{ "shmk_topic_take", call_topic_take, publish_one },
	{ "shmk_topic_read", call_topic_read, publish_one },
};

#define NR_ROWS	(sizeof(rows) / sizeof(rows[0]))

static void topics_make(struct place *at)
{
	struct shmk_topic_opts opts = { .flags = SHMK_TOPIC_CREATE };
	struct shmk_sub_opts wait = { .wait = true };
	struct shmk_topic *t;

	CHECK(!shmk_topic_open(at->s, "mine", &opts, SHMK_TRY, &at->mine));
	CHECK(!shmk_topic_open(at->other, "mine", NULL, SHMK_TRY, &t));
	CHECK(!shmk_topic_writer(at->mine, SHMK_TRY));
	CHECK(!shmk_topic_subscribe(t, &wait, &at->slow));
	CHECK(!shmk_topic_publish_copy(at->mine, "x", 1, SHMK_TRY));
	CHECK(!shmk_topic_open(at->s, "theirs", &opts, SHMK_TRY, &at->theirs));
	CHECK(!shmk_topic_open(at->other, "theirs", NULL, SHMK_TRY, &at->others));
	CHECK(!shmk_topic_writer(at->others, SHMK_TRY));
	CHECK(!shmk_topic_subscribe(at->theirs, NULL, &at->reader));
}

static void mail_make(struct place *at)
{
	struct shmk_mailbox_opts opts = { .capacity = 2 };
	struct shmk_queue *ask = service(at->other, "ask");
	struct shmk_msg msg;

	CHECK(!shmk_mailbox_open(at->s, &opts, &at->mail));
	CHECK(!shmk_mailbox_open(at->other, &opts, &at->others_mail));
	CHECK(!shmk_alloc(at->other, 8, 0, &msg));
	CHECK(shmk_request_send(at->others_mail, ask, &msg, SHMK_TRY) > 0);
	CHECK(!shmk_recv(service(at->s, "ask"), &at->request, SHMK_TRY));
	for (int i = 0; i < 2; i++)
		CHECK(!shmk_mail_send_copy(at->s, shmk_self(at->other), 0, 1, "x", 1, SHMK_TRY));
}

static int is_ours(const struct shmk_pool_stat *st, void *arg)
{
	(void)arg;
	return !strcmp(st->name, strchr(pool_uri, ':') + 1);
}

/* Who detaches on a busy machine may leave the end to a worker; until then who comes joins. */
static void until_gone(void)
{
	int64_t end = watchdog();

	while (shmk_pool_list(module_backend() ? "shmk" : "local", is_ours, NULL) == 1 && now_ns() < end)
		usleep(1000);
}

static void place_make(struct place *at)
{
	memset(at, 0, sizeof(*at));
	until_gone();
	at->s = join_spinning(0, 0);
	at->other = join();
	at->empty = queue(at->s, "empty", 2);
	at->full = queue(at->s, "full", 2);
	at->fill = queue(at->other, "empty", 2);
	at->drain = queue(at->other, "full", 2);
	for (int i = 0; i < 2; i++)
		CHECK(!put(at->full, 1, SHMK_TRY));
	CHECK(!shmk_poller_open(at->s, &at->p));
	CHECK(!shmk_poller_add(at->p, at->empty, SHMK_RECV, NULL));
	topics_make(at);
	mail_make(at);
}

static void place_drop(struct place *at)
{
	shmk_detach(at->s);
	shmk_detach(at->third);
	shmk_detach(at->other);
}

struct blocked {
	const struct row *row;
	struct place *at;
	atomic_int tid;
	int64_t ret;
};

static void *blocked_thread(void *arg)
{
	struct blocked *b = arg;

	atomic_store(&b->tid, gettid());
	b->ret = b->row->call(b->at, watchdog());
	return NULL;
}

/* The call in a thread that is asleep when @end is called. */
static int64_t call_blocked(const struct row *row, struct place *at, void (*end)(struct place *at))
{
	struct blocked b = { .row = row, .at = at };
	pthread_t thread;

	CHECK(!pthread_create(&thread, NULL, blocked_thread, &b));
	while (!atomic_load(&b.tid))
		sched_yield();
	until_asleep(b.tid);
	end(at);
	CHECK(!pthread_join(thread, NULL));
	return b.ret;
}

static void interrupt(struct place *at)
{
	shmk_interrupt(at->s);
}

static bool row_works(const struct row *row)
{
	struct place at;
	int64_t ret, again = -EINTR;

	place_make(&at);
	for (int i = 0; i < 5; i++) {
		ret = call_blocked(row, &at, interrupt);
		if (ret == -EINTR)
			again = row->call(&at, watchdog());
		shmk_resume(at.s);
		if (ret != -EINTR || again != -EINTR)
			break;
	}
	if (ret != -EINTR || again != -EINTR) {
		ksft_print_msg("%s: %s, then %s\n", row->name, strerror((int)-ret),
			       strerror((int)-again));
	} else {
		ret = call_blocked(row, &at, row->provide);
		if (ret < 0)
			ksft_print_msg("%s: resumed: %s\n", row->name, strerror((int)-ret));
	}
	place_drop(&at);
	return ret >= 0;
}

static void reset(struct place *at)
{
	(void)at;
	CHECK(shmk_pool_reset(pool_uri, 0) == -EBUSY);
	CHECK(!shmk_pool_reset(pool_uri, SHMK_RESET_FORCE));
}

/* Not even what would not have to wait; of the two who were there both know. */
static bool nothing_begins(struct place *at)
{
	struct shmk_queue *q = at->full;
	struct shmk_msg msg;
	int64_t ret[] = {
		shmk_alloc(at->s, 1, 0, &msg),
		shmk_recv(at->drain, &msg, SHMK_TRY),
		shmk_send_copy(at->fill, "x", 1, SHMK_TRY),
		shmk_send_batch(at->full, &msg, 1, SHMK_TRY),
		shmk_queue_open(at->other, "full", NULL, SHMK_TRY, &q),
		shmk_topic_writer(at->theirs, SHMK_TRY),
		shmk_topic_take_last(at->reader, &(struct shmk_held) { 0 }),
		shmk_topic_publish_copy(at->others, "x", 1, SHMK_TRY),
		shmk_wait_peers(at->other, 1, SHMK_TRY),
	};
	bool all = true;

	for (size_t i = 0; i < sizeof(ret) / sizeof(ret[0]); i++) {
		if (ret[i] == -ESHUTDOWN)
			continue;
		ksft_print_msg("call %zu: %s\n", i, strerror((int)-ret[i]));
		all = false;
	}
	return all;
}

static bool row_ends(const struct row *row)
{
	struct place at;
	int64_t ret;
	bool over;

	place_make(&at);
	ret = call_blocked(row, &at, reset);
	if (ret != -ESHUTDOWN)
		ksft_print_msg("%s: %s\n", row->name, strerror((int)-ret));
	over = nothing_begins(&at);
	place_drop(&at);
	shmk_pool_cleanup(pool_uri);	/* nobody came after */
	return ret == -ESHUTDOWN && over;
}

static bool has_row(const char *name, size_t len)
{
	for (size_t i = 0; i < NR_ROWS; i++)
		if (strlen(rows[i].name) == len && !memcmp(rows[i].name, name, len))
			return true;
	return false;
}

/* From each "int64_t deadline" that is an argument back to the function's name. */
static bool all_have_rows(void)
{
	const char *at = header, *name, *end;
	bool all = true;
	size_t nr = 0;

	while ((at = strstr(at, "int64_t deadline"))) {
		for (name = at; *name != '(' && *name != ';'; name--)
			;
		at++;
		end = name;
		if (*name == ';')	/* a struct's member */
			continue;
		while (isalnum((unsigned char)name[-1]) || name[-1] == '_')
			name--;
		nr++;
		if (has_row(name, (size_t)(end - name)))
			continue;
		ksft_print_msg("no row for %.*s\n", (int)(end - name), name);
		all = false;
	}
	if (nr != NR_ROWS)
		ksft_print_msg("%zu functions, %zu rows\n", nr, NR_ROWS);
	return all && nr == NR_ROWS;
}

int main(void)
{
	ksft_print_header();
	ksft_set_plan(2 * NR_ROWS + 1);
	pool_name();
	ksft_test_result(all_have_rows(), "each call with a deadline is tried\n");
	for (size_t i = 0; i < NR_ROWS; i++)
		ksft_test_result(row_works(&rows[i]), "%s is interrupted and resumed\n",
				 rows[i].name);
	for (size_t i = 0; i < NR_ROWS; i++)
		ksft_test_result(row_ends(&rows[i]), "%s ends when the pool is reset\n",
				 rows[i].name);
	ksft_finished();
}
