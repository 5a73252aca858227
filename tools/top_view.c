// SPDX-License-Identifier: GPL-2.0-only
/*
 * top_view.c - what shmk top shows.
 *
 * All pools: only what their lists tell; top attaches to none of them, since a pool
 * lives as long as somebody is attached. One pool: attached read-only.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <linux/shmk.h>
#include <linux/shmk_layout.h>

#include "top.h"

#define BAR	10

static const char *const sort_names[][4] = {
	[TOP_POOLS]	= { "name", "used", "peers", "deaths" },
	[TOP_POOL]	= { "id", "blocks", "rate", NULL },
	[TOP_LEDGER]	= { "entry", NULL },
};

unsigned int top_sort_keys(const struct top *t)
{
	unsigned int n = 0;

	while (n < 4 && sort_names[t->level][n])
		n++;
	return n;
}

const char *top_sort_name(const struct top *t)
{
	return sort_names[t->level][t->sort % top_sort_keys(t)];
}

static const char *bar(uint64_t part, uint64_t whole)
{
	static char text[BAR + 3];
	unsigned int n = whole ? (unsigned int)((double)part / whole * BAR + 0.5) : 0;

	if (n > BAR)
		n = BAR;
	if (part && !n)
		n = 1;
	text[0] = '[';
	memset(text + 1, '#', n);
	memset(text + 1 + n, '.', BAR - n);
	text[BAR + 1] = ']';
	return text;
}

static struct top_row *add_row(struct top *t)
{
	struct top_row *rows = realloc(t->rows, (t->nr_rows + 1) * sizeof(*rows));

	if (!rows)
		return NULL;
	t->rows = rows;
	rows += t->nr_rows++;
	memset(rows, 0, sizeof(*rows));
	return rows;
}

/* Larger first, but for names and ids; @reverse the other way round. */
static int by_number(uint64_t a, uint64_t b)
{
	return a < b ? 1 : a > b ? -1 : 0;
}

/* ----------------------------------------------------------------- pools -- */

struct pools {
	struct shmk_pool_stat *st;
	unsigned int nr;
};

static const struct top *sorting;	/* qsort() hands nothing on */

static int remember(const struct shmk_pool_stat *st, void *arg)
{
	struct pools *p = arg;
	struct shmk_pool_stat *more = realloc(p->st, (p->nr + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	p->st = more;
	more[p->nr++] = *st;
	return 0;
}

static int by_pool(const void *x, const void *y)
{
	const struct shmk_pool_stat *a = x, *b = y;
	int by[] = {
		0,
		by_number(a->bytes_used, b->bytes_used),
		by_number(a->peers_now, b->peers_now),
		by_number(a->deaths, b->deaths),
	};
	int ret = by[sorting->sort % 4];

	if (!ret)
		ret = strcmp(a->name, b->name);
	if (!ret)
		ret = strcmp(a->backend, b->backend);
	return sorting->reverse ? -ret : ret;
}

static int view_pools(struct top *t, FILE *f)
{
	struct pools p = { };
	uint64_t bytes = 0, used = 0;
	unsigned int i, peers = 0;
	struct top_row *row;
	int err = shmk_pool_list(NULL, remember, &p);

	for (i = 0; i < p.nr; i++) {
		bytes += p.st[i].bytes;
		used += p.st[i].bytes_used;
		peers += p.st[i].peers_now;
	}
	sorting = t;
	if (p.nr)
		qsort(p.st, p.nr, sizeof(*p.st), by_pool);
	fprintf(f, "shmk top: %u pool%s, %u peer%s, %s of %s used; by %s%s\n", p.nr, p.nr == 1 ? "" : "s",
		peers, peers == 1 ? "" : "s", human(used), human(bytes), top_sort_name(t),
		t->reverse ? ", reverse" : "");
	fprintf(f, "%-22s %9s %9s %-*s %5s %6s %6s %9s %6s %8s\n", "POOL", "SIZE", "USED", BAR + 2, "",
		"PEERS", "QUEUES", "DEATHS", "RECLAIMED", "LOST", "AGE");
	t->head = 2;
	for (i = 0; i < p.nr && !err; i++) {
		const struct shmk_pool_stat *st = &p.st[i];

		row = add_row(t);
		if (!row) {
			err = -ENOMEM;
			break;
		}
		snprintf(row->pool, sizeof(row->pool), "%s:%s", st->backend, st->name);
		fprintf(f, "%-22s %9s %9s %s %5u %6u %6" PRIu64 " %9" PRIu64 " %6" PRIu64 " %8s\n",
			row->pool, human(st->bytes), human(st->bytes_used),
			bar(st->bytes_used, st->bytes), st->peers_now, st->queues_now, st->deaths,
			st->reclaimed_blocks, st->lost_messages, human_ns(st->age_ns));
	}
	free(p.st);
	return err;
}

/* -------------------------------------------------------------- one pool -- */

struct member {
	struct shmk_peer p;
	uint64_t blocks, bytes;
};

struct line {
	struct shmk_queue_stats q;
	double sent, received;		/* per second */
};

struct content {
	struct member *members;
	struct line *lines;
	uint32_t *by_id;		/* index of the member, or UINT32_MAX */
	unsigned int nr_members, nr_lines, nr_full;
};

static int hold(const struct shmk_holding *h, void *arg)
{
	struct content *c = arg;
	struct member *m;

	if (!h->peer || h->peer > SHMK_PEERS_MAX || c->by_id[h->peer] >= c->nr_members ||
	    h->block == SHMK_NO_BLOCK ||
	    (h->state >= SHMK_HOLDING_SPAN && h->state != SHMK_HOLDING_SPARE))
		return 0;
	m = &c->members[c->by_id[h->peer]];
	if (m->p.gen == h->gen) {
		m->blocks++;
		m->bytes += h->room;
	}
	return 0;
}

static int look_at_peers(struct top *t, struct content *c)
{
	struct shmk_peer p;
	struct member *more;

	c->by_id = malloc((SHMK_PEERS_MAX + 1) * sizeof(*c->by_id));
	if (!c->by_id)
		return -ENOMEM;
	memset(c->by_id, 0xff, (SHMK_PEERS_MAX + 1) * sizeof(*c->by_id));
	for (uint32_t id = 0; !shmk_peer_next(t->s, id, &p); id = p.id + 1) {
		if (p.id == shmk_self(t->s))
			continue;
		more = realloc(c->members, (c->nr_members + 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		c->members = more;
		c->by_id[p.id] = c->nr_members;
		more[c->nr_members++] = (struct member){ .p = p };
		c->nr_full += !p.rdonly;
	}
	return shmk_pool_dump(t->s, hold, c);
}

static int look_at_queues(struct top *t, struct content *c)
{
	double seconds = (now_ns() - t->rated_ns) / 1e9;
	struct shmk_queue_stats q;
	struct line *more;

	for (uint32_t id = 0; !shmk_queue_next(t->s, id, &q); id = q.id + 1) {
		struct rate *r = &t->rates[q.id];

		more = realloc(c->lines, (c->nr_lines + 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		c->lines = more;
		more += c->nr_lines++;
		*more = (struct line){ .q = q };
		if (t->rated_ns && r->gen == q.gen && q.sent >= r->sent && q.received >= r->received &&
		    seconds > 0) {
			more->sent = (q.sent - r->sent) / seconds;
			more->received = (q.received - r->received) / seconds;
		}
		*r = (struct rate){ q.gen, q.sent, q.received };
	}
	t->rated_ns = now_ns();
	return 0;
}

static int by_member(const void *x, const void *y)
{
	const struct member *a = x, *b = y;
	int ret = sorting->sort % 3 == 1 ? by_number(a->blocks, b->blocks) : 0;

	if (!ret)
		ret = -by_number(a->p.id, b->p.id);
	return sorting->reverse ? -ret : ret;
}

static int by_line(const void *x, const void *y)
{
	const struct line *a = x, *b = y;
	int by[] = {
		0,
		by_number(a->q.depth, b->q.depth),
		by_number((uint64_t)(a->sent + a->received), (uint64_t)(b->sent + b->received)),
	};
	int ret = by[sorting->sort % 3];

	if (!ret)
		ret = -by_number(a->q.id, b->q.id);
	return sorting->reverse ? -ret : ret;
}

static int print_members(struct top *t, FILE *f, const struct content *c)
{
	for (unsigned int i = 0; i < c->nr_members; i++) {
		const struct member *m = &c->members[i];
		struct top_row *row = add_row(t);
		char pid[16] = "-";

		if (!row)
			return -ENOMEM;
		row->peer = m->p.id;
		if (m->p.pid)
			snprintf(pid, sizeof(pid), "%d", m->p.pid);
		fprintf(f, "%7u %8s %-16s %-10s %6u %8" PRIu64 " %10s %8s\n", m->p.id, pid,
			comm_text(m->p.comm), m->p.dead ? "dead" : m->p.stuck ? "stuck" : m->p.rdonly ? "read-only" : "alive",
			m->p.uid, m->blocks, human(m->bytes), human_ns(now_ns() - m->p.attached_ns));
	}
	return 0;
}

static int print_queues(struct top *t, FILE *f, const struct content *c)
{
	for (unsigned int i = 0; i < c->nr_lines; i++) {
		const struct line *l = &c->lines[i];
		struct top_row *row = add_row(t);

		if (!row)
			return -ENOMEM;
		row->queue = l->q.id;
		strcpy(row->name, l->q.name);
		fprintf(f, "%7u %-16s %5u/%-5u %s %5u %9.0f %9.0f %10" PRIu64 " %s\n", l->q.id,
			l->q.name, l->q.depth, l->q.capacity, bar(l->q.depth, l->q.capacity),
			l->q.nr_open, l->sent, l->received, l->q.sent,
			l->q.recv_waiting ? l->q.send_waiting ? "both" : "receiver" :
			l->q.send_waiting ? "sender" : "-");
	}
	return 0;
}

static int print_content(struct top *t, FILE *f, struct content *c)
{
	int err;

	sorting = t;
	if (c->nr_members)
		qsort(c->members, c->nr_members, sizeof(*c->members), by_member);
	if (c->nr_lines)
		qsort(c->lines, c->nr_lines, sizeof(*c->lines), by_line);
	fprintf(f, "%7s %8s %-16s %-10s %6s %8s %10s %8s\n", "PEER", "PID", "COMM", "STATE", "UID",
		"BLOCKS", "HELD", "AGE");
	err = add_row(t) ? print_members(t, f, c) : -ENOMEM;
	if (err)
		return err;
	fprintf(f, "%7s %-16s %11s %-*s %5s %9s %9s %10s %s\n", "QUEUE", "NAME", "DEPTH/CAP", BAR + 2,
		"", "OPEN", "SENT/s", "RECVD/s", "SENT", "WAITING");
	return add_row(t) ? print_queues(t, f, c) : -ENOMEM;
}

/* Is this still the pool of that name? */
static bool pool_gone(struct top *t)
{
	struct shmk_event e;
	bool gone = false;

	while (!shmk_event_next(t->s, &e))
		gone |= e.type == SHMK_EV_DESTROYED || e.type == SHMK_EV_RESET;
	return gone;
}

static int view_pool(struct top *t, FILE *f)
{
	struct shmk_pool_space space;
	struct shmk_pool_stat st;
	struct content c = { };
	int err = pool_gone(t) ? -EPIPE : shmk_pool_stat(t->s, &st);

	if (!err)
		err = shmk_pool_space(t->s, &space);
	if (!err)
		err = look_at_peers(t, &c);
	if (!err)
		err = look_at_queues(t, &c);
	/* It is there for us alone: let it go. */
	if (!err && !c.nr_full && !(st.flags & SHMK_POOL_PERSIST))
		err = -EPIPE;
	if (!err) {
		fprintf(f, "%s  %s %s %d%% used, %" PRIu64 " blocks, largest free %s; by %s%s\n", t->pool,
			human(st.bytes), bar(st.bytes_used, st.bytes),
			st.bytes ? (int)(st.bytes_used * 100.0 / st.bytes) : 0, st.blocks_used,
			human(space.largest), top_sort_name(t), t->reverse ? ", reverse" : "");
		fprintf(f, "%" PRIu64 " attached, %" PRIu64 " detached, %" PRIu64 " died: %" PRIu64
			" blocks given back, %" PRIu64 " messages lost, %" PRIu64 " redelivered\n",
			st.attaches, st.detaches, st.deaths, st.reclaimed_blocks, st.lost_messages,
			st.redelivered);
		t->head = 2;
		err = print_content(t, f, &c);
	}
	free(c.members);
	free(c.lines);
	free(c.by_id);
	return err;
}

/* ---------------------------------------------------------------------- */

static int view_ledger(struct top *t, FILE *f)
{
	long before;
	int err;

	fprintf(f, "%s  %s\n", t->pool, t->what);
	t->head = 2;		/* the table's own heading is the second */
	before = ftell(f);
	err = dump_text(t->s, f, t->peer, t->queue);
	if (!err && ftell(f) == before)
		fprintf(f, "nothing\n");
	return err;
}

int top_view(struct top *t)
{
	size_t len;
	FILE *f;
	int err;

	free(t->text);
	free(t->rows);
	t->text = NULL;
	t->rows = NULL;
	t->nr_rows = 0;
	t->head = 0;
	f = open_memstream(&t->text, &len);
	if (!f)
		return -ENOMEM;
	err = t->level == TOP_POOLS ? view_pools(t, f) : t->level == TOP_POOL ? view_pool(t, f) :
	      view_ledger(t, f);
	if (fclose(f) && !err)
		err = -ENOMEM;
	return err;
}

int top_enter(struct top *t, const char *pool)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk *s = NULL;
	int err = pool ? shmk_attach(pool, &opts, &s) : 0;

	if (err)
		return err;
	if (t->s)
		shmk_detach(t->s);
	t->s = s;
	t->level = pool ? TOP_POOL : TOP_POOLS;
	t->sort = 0;
	t->reverse = false;
	t->rated_ns = 0;
	snprintf(t->pool, sizeof(t->pool), "%s", pool ? pool : "");
	if (!t->rates)
		t->rates = calloc(SHMK_QUEUES_MAX, sizeof(*t->rates));
	return t->rates ? 0 : -ENOMEM;
}
