/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * patterns.h - what storm's workers do besides sending and receiving.
 *
 *   kept     a REDELIVER queue: nothing is lost, and what comes twice says so
 *   shared   one payload in several queues at once: each reference comes
 *   topic    whoever is the writer publishes the last number plus one: so numbers are
 *	      sequence numbers, unless two write at once or one is lost or torn
 *   mail     to anybody, alive or not; goes with its receiver
 *   calls    a reply is to what was asked; requests of dead servers go to others
 *
 * Included by storm.c, whose payloads, ids and books these are.
 */
#ifndef PATTERNS_H
#define PATTERNS_H

#define NR_BOXES	8		/* messages in a mailbox */
#define LETTER_MAX	3000U

static bool pattern_passing(int64_t ret)
{
	return passing(ret) || ret == -ENOBUFS || ret == -ENOSPC || ret == -EPIPE ||
	       ret == -ENOENT || ret == -EMLINK;
}

/* Only what a death, a stop or a shortage explains. */
#define MUST_PASS(w, ret) do {						\
	int64_t ret_ = (ret);						\
	if (ret_ < 0 && !pattern_passing(ret_))				\
		fatal(w, (int)ret_, __LINE__);				\
} while (0)

static void pattern_done(struct worker *w, uint64_t id, int ret)
{
	MUST_PASS(w, ret);
	send_done(w, id, ret ? -EAGAIN : 0);
}

static void count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_SEQ_CST);
}

static void wrong(struct worker *w, uint32_t line)
{
	w->record->line = line;
	count(&sh->wrong);
}

/* ---------------------------------------------------------------- kept -- */

static void keep_new(struct worker *w)
{
	uint32_t len = some_len();
	struct shmk_msg m;
	uint64_t id;
	int ret = shmk_alloc(w->s, len, 0, &m);

	MUST_PASS(w, ret);
	if (ret)
		return;
	id = new_id(w);
	fill(m.data, id, len);
	mark(id, BEGUN | KEPT);
	ret = shmk_send(w->kept, &m, some_time());
	if (ret)
		shmk_free(&m);
	pattern_done(w, id, ret);
}

/* Killed before it is freed, it comes again. */
static void keep_take(struct worker *w)
{
	struct shmk_msg m;
	int ret = shmk_recv(w->kept, &m, some_time());

	MUST_PASS(w, ret);
	if (ret)
		return;
	got(m.data, m.len, m.redelivered);
	shmk_free(&m);
}

/* -------------------------------------------------------------- shared -- */

static void share_send(struct worker *w, struct shmk_queue *q, struct shmk_msg *m)
{
	int ret = shmk_send(q, m, SHMK_TRY);

	MUST_PASS(w, ret);
	if (!ret)
		count(&sh->refs_sent);
	else
		shmk_free(m);
}

static void share_new(struct worker *w)
{
	struct shmk_msg m, others[2];
	unsigned int n = 1 + rnd() % 2;
	uint64_t id;
	int ret = shmk_alloc(w->s, 64 + rnd() % 2000 * 4, 0, &m);

	MUST_PASS(w, ret);
	if (ret)
		return;
	id = new_id(w);
	fill(m.data, id, (uint32_t)m.len);
	mark(id, SHARED);
	phase(w, SHARES);
	ret = shmk_msg_share_many(&m, others, n);
	MUST_PASS(w, ret);
	share_send(w, w->q[rnd() % NR_QUEUES], &m);
	while (!ret && n)
		share_send(w, w->q[rnd() % NR_QUEUES], &others[--n]);
	phase(w, NOTHING);
}

/* --------------------------------------------------------------- topic -- */

static bool value_whole(const void *data, int64_t len, uint64_t seq)
{
	const struct payload *p = data;

	return len >= (int64_t)sizeof(*p) && p->len == len && sum(p) == p->sum && p->id == seq;
}

static bool publish_one(struct worker *w)
{
	uint64_t buf[128], seq = 0;
	struct shmk_held last;
	struct shmk_loan loan;
	uint32_t len = (sizeof(struct payload) + rnd() % 900) & ~3U;
	int64_t n = shmk_topic_read_last(w->topic, buf, sizeof(buf), &last);
	int ret;

	MUST_PASS(w, n);
	if (n >= 0) {
		seq = last.seq;
		if (!value_whole(buf, n, seq))
			wrong(w, __LINE__);
	} else if (n != -EAGAIN) {
		return false;
	}
	ret = shmk_topic_loan(w->topic, &loan);
	MUST_PASS(w, ret);
	if (ret)
		return false;
	fill(loan.data, seq + 1, len);
	ret = shmk_topic_publish(w->topic, &loan, len, shmk_deadline_ms(5));
	MUST_PASS(w, ret);
	if (ret)
		shmk_topic_unloan(&loan);
	else
		count(&sh->published);
	return !ret;
}

static void publish_some(struct worker *w)
{
	int ret = shmk_topic_writer(w->topic, some_time());
	unsigned int n = rnd() % 4;

	MUST_PASS(w, ret);
	if (ret)
		return;
	while (publish_one(w) && n--)
		;
	shmk_topic_writer_release(w->topic);
}

static void subscribe(struct worker *w)
{
	struct shmk_sub_opts opts = { .start = rnd() % 3, .wait = rnd() % 4 == 0 };
	int ret;

	if (opts.wait)
		opts.wait_ns = 1000000;
	ret = shmk_topic_subscribe(w->topic, &opts, &w->sub);
	MUST_PASS(w, ret);
	if (ret)
		w->sub = NULL;
	w->seq = 0;
}

static void read_topic(struct worker *w)
{
	struct shmk_held held;
	int ret;

	if (w->sub && rnd() % 32 == 0) {
		shmk_topic_unsubscribe(w->sub);
		w->sub = NULL;
	}
	if (!w->sub)
		subscribe(w);
	if (!w->sub)
		return;
	ret = shmk_topic_take(w->sub, &held, some_time());
	MUST_PASS(w, ret);
	if (ret)
		return;
	if (!value_whole(held.data, (int64_t)held.len, held.seq) || held.seq <= w->seq)
		wrong(w, __LINE__);
	w->seq = held.seq;
	shmk_topic_release(&held);
	count(&sh->read);
}

/* ---------------------------------------------------------------- mail -- */

static void send_letter(struct worker *w)
{
	uint32_t len = some_len() % LETTER_MAX & ~3U, to = 1 + rnd() % (nr_procs + 2);
	uint64_t buf[LETTER_MAX / 8 + 1], id = new_id(w);
	int ret;

	if (len < sizeof(struct payload))
		len = sizeof(struct payload);
	fill((struct payload *)buf, id, len);
	mark(id, BEGUN | LETTER);
	ret = shmk_mail_send_copy(w->s, to, 0, rnd() % 4, buf, len, some_time());
	pattern_done(w, id, ret);
}

static void read_letter(struct worker *w)
{
	uint32_t tag = rnd() % 2 ? SHMK_ANY_TAG : rnd() % 4;
	struct shmk_msg m;
	int ret = shmk_mail_recv(w->box, SHMK_ANY_PEER, tag, &m, some_time());

	MUST_PASS(w, ret);
	if (ret)
		return;
	if (tag != SHMK_ANY_TAG && m.tag != tag)
		wrong(w, __LINE__);
	got(m.data, m.len, 0);
	shmk_free(&m);
}

/* --------------------------------------------------------------- calls -- */

static void ask(struct worker *w)
{
	struct shmk_msg m;
	uint64_t id;
	int ret = shmk_alloc(w->s, sizeof(struct payload) + rnd() % 100 * 4, 0, &m);

	MUST_PASS(w, ret);
	if (ret)
		return;
	id = new_id(w);
	fill(m.data, id, (uint32_t)m.len);
	ret = shmk_call(w->box, w->service, &m, shmk_deadline_ms(1 + rnd() % 10));
	if (!ret) {
		if (m.len != sizeof(struct payload) || ((struct payload *)m.data)->id != id)
			wrong(w, __LINE__);
		count(&sh->answered);
	} else if (ret != -EOWNERDEAD) {	/* a server that could not reply gave up */
		MUST_PASS(w, ret);
	}
	if (m.data)
		shmk_free(&m);
}

static void serve(struct worker *w)
{
	struct shmk_msg m, reply;
	struct payload p;
	int ret = shmk_recv(w->service, &m, some_time());

	MUST_PASS(w, ret);
	if (ret)
		return;
	if (m.len < sizeof(p) || sum(m.data) != ((struct payload *)m.data)->sum)
		wrong(w, __LINE__);
	fill(&p, ((struct payload *)m.data)->id, sizeof(p));
	ret = shmk_msg_inline(w->s, &p, sizeof(p), &reply);
	if (!ret)
		ret = shmk_reply(&m, &reply, shmk_deadline_ms(2));
	MUST_PASS(w, ret);
	count(&sh->served);
	if (reply.data)
		shmk_free(&reply);
	if (m.data)
		shmk_free(&m);
}

/* ------------------------------------------------------------- a worker -- */

static void patterns_open(struct worker *w)
{
	struct shmk_mailbox_opts box = { .capacity = NR_BOXES };
	int ret = shmk_queue_open(w->s, "kept", NULL, SHMK_TRY, &w->kept);

	if (!ret)
		ret = shmk_queue_open(w->s, "service", NULL, SHMK_TRY, &w->service);
	if (!ret)
		ret = shmk_topic_open(w->s, "topic", NULL, SHMK_TRY, &w->topic);
	if (!ret)
		ret = shmk_mailbox_open(w->s, &box, &w->box);
	if (ret)
		fatal(w, ret, __LINE__);
}

static void patterns_do(struct worker *w)
{
	static void (*const acts[])(struct worker *w) = {
		keep_new, keep_take, keep_take, share_new, publish_some, read_topic, read_topic,
		send_letter, read_letter, read_letter, ask, serve, serve,
	};

	acts[rnd() % (sizeof(acts) / sizeof(acts[0]))](w);
}

#endif
