// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk dump
 *
 * Who holds which block, or what those who died were doing. Attaches read-only and asks
 * nobody, so it works on an application that hangs.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <linux/shmk.h>

#include "tool.h"

struct dump {
	FILE *to;
	struct json *json;		/* NULL: a table */
	bool all;
	bool capsules;			/* of the dead, not what the living have */
	uint32_t only_peer;		/* 0: all */
	uint32_t only_queue;		/* SHMK_HOLDING_NOWHERE: all */

	uint32_t self;
	unsigned int shown;
	struct shmk_peer *peers;	/* by id */
	char (*queues)[64];		/* by id */
};

static const char *state_name(uint32_t state)
{
	static const char *const names[] = {
		[SHMK_HOLDING_HELD]		= "held",
		[SHMK_HOLDING_RECEIVED]		= "received",
		[SHMK_HOLDING_UNACKED]		= "unacknowledged",
		[SHMK_HOLDING_SENDING]		= "sending",
		[SHMK_HOLDING_TAKING]		= "taking",
		[SHMK_HOLDING_QUEUED]		= "queued",
		[SHMK_HOLDING_KEPT]		= "kept",
		[SHMK_HOLDING_TOPIC]		= "topic",
		[SHMK_HOLDING_READING]		= "reading",
		[SHMK_HOLDING_PART]		= "part",
		[SHMK_HOLDING_SHARED]		= "shared",
		[SHMK_HOLDING_MOVING]		= "moving",
		[SHMK_HOLDING_SPAN]		= "span",
		[SHMK_HOLDING_WAITING]		= "waiting",
		[SHMK_HOLDING_SUBSCRIBED]	= "subscribed",
		[SHMK_HOLDING_SPARE]		= "spare",
	};

	return state < sizeof(names) / sizeof(names[0]) && names[state] ? names[state] : "unknown";
}

static bool is_message(const struct shmk_holding *h)
{
	return h->state < SHMK_HOLDING_SPAN;
}

/* The side that a peer waits for. */
static const char *side_name(const struct shmk_holding *h)
{
	return h->pos == SHMK_SIDE_SEND ? "room" : "message";
}

static const struct shmk_peer *holder(const struct dump *d, const struct shmk_holding *h)
{
	const struct shmk_peer *p = &d->peers[h->peer <= SHMK_PEERS_MAX ? h->peer : 0];

	return h->peer && p->id == h->peer && p->gen == h->gen ? p : NULL;
}

static const char *queue_name(const struct dump *d, const struct shmk_holding *h)
{
	return h->queue < SHMK_QUEUES_MAX ? d->queues[h->queue] : "";
}

/* ---------------------------------------------------------------- text -- */

static void tell_more(FILE *f, const struct shmk_holding *h)
{
	const char *sep = "";

	if (h->state == SHMK_HOLDING_QUEUED) {
		fprintf(f, "%" PRIu64 " before it", h->distance);
		sep = ", ";
	} else if (h->state == SHMK_HOLDING_RECEIVED || h->state == SHMK_HOLDING_UNACKED) {
		fprintf(f, "%" PRIu64 " taken since", h->distance);
		sep = ", ";
	} else if (h->state == SHMK_HOLDING_WAITING) {
		fprintf(f, "for a %s", side_name(h));
		sep = ", ";
	}
	if (h->since_ns) {
		fprintf(f, "%spublished %s ago", sep, human_ns(now_ns() - h->since_ns));
		sep = ", ";
	}
	if (h->tries) {
		fprintf(f, "%s%u died with it", sep, h->tries);
		sep = ", ";
	}
	if (h->shared)
		fprintf(f, "%sa reference", sep);
	fputc('\n', f);
}

static void print_text(struct dump *d, const struct shmk_holding *h)
{
	const struct shmk_peer *p = holder(d, h);
	char offset[24] = "-", peer[16] = "-", pid[16] = "-", entry[16] = "-", pos[24] = "-";
	const char *queue = queue_name(d, h);

	if (!d->shown)
		fprintf(d->to, "%12s %10s %10s %-14s %5s %8s %-15s %5s %-15s %10s %s\n", "OFFSET", "BYTES",
		       "ROOM", "STATE", "PEER", "PID", "COMM", "ENTRY", "QUEUE", "POSITION", "");
	if (h->block != SHMK_NO_BLOCK)
		snprintf(offset, sizeof(offset), "%#" PRIx64, h->offset);
	else if (is_message(h))
		strcpy(offset, "inline");
	if (h->peer)
		snprintf(peer, sizeof(peer), "%u", h->peer);
	if (p && p->pid)
		snprintf(pid, sizeof(pid), "%d", p->pid);
	if (h->entry != SHMK_HOLDING_NOWHERE)
		snprintf(entry, sizeof(entry), "%u", h->entry);
	if (*queue && h->state != SHMK_HOLDING_WAITING && h->state != SHMK_HOLDING_TOPIC)
		snprintf(pos, sizeof(pos), "%" PRIu64, h->pos);
	fprintf(d->to, "%12s %10" PRIu64 " %10" PRIu64 " %-14s %5s %8s %-15s %5s %-15s %10s ", offset,
	       h->len, h->room, state_name(h->state), peer, pid, p ? comm_text(p->comm) : "-", entry,
	       *queue ? queue : "-", pos);
	tell_more(d->to, h);
}

/* ---------------------------------------------------------------- json -- */

static void json_u64_if(struct json *j, const char *key, bool known, uint64_t value)
{
	if (known)
		json_u64(j, key, value);
	else
		json_null(j, key);
}

static void print_json(struct dump *d, const struct shmk_holding *h)
{
	const struct shmk_peer *p = holder(d, h);
	const char *queue = queue_name(d, h);
	struct json *j = d->json;
	bool waiting = h->state == SHMK_HOLDING_WAITING;

	json_open(j, NULL, '{');
	json_string(j, "state", state_name(h->state));
	json_u64_if(j, "peer", h->peer, h->peer);
	json_u64_if(j, "gen", h->peer, h->gen);
	json_u64_if(j, "pid", p && p->pid, p ? p->pid : 0);
	if (p)
		json_string(j, "comm", p->comm);
	else
		json_null(j, "comm");
	json_u64_if(j, "entry", h->entry != SHMK_HOLDING_NOWHERE, h->entry);
	json_u64_if(j, "offset", h->block != SHMK_NO_BLOCK, h->offset);
	json_u64(j, "bytes", h->len);
	json_u64(j, "room", h->room);
	json_bool(j, "inline", h->block == SHMK_NO_BLOCK && is_message(h));
	json_bool(j, "reference", h->shared);
	if (*queue)
		json_string(j, "queue", queue);
	else
		json_null(j, "queue");
	json_u64_if(j, "position", *queue && !waiting && h->state != SHMK_HOLDING_TOPIC, h->pos);
	json_u64_if(j, "before", h->state == SHMK_HOLDING_QUEUED, h->distance);
	json_u64_if(j, "taken_since", h->state == SHMK_HOLDING_RECEIVED ||
		    h->state == SHMK_HOLDING_UNACKED, h->distance);
	if (waiting)
		json_string(j, "waits_for", side_name(h));
	json_u64(j, "tries", h->tries);
	json_u64_if(j, "since_ns", h->since_ns, h->since_ns);
	json_u64_if(j, "not_before_ns", p, p ? p->attached_ns : 0);
	json_close(j, '}');
}

/* ---------------------------------------------------------------------- */

static int tell(const struct shmk_holding *h, void *arg)
{
	struct dump *d = arg;

	if (h->peer == d->self && h->peer)
		return 0;
	if (h->state == SHMK_HOLDING_SPAN && !d->all)
		return 0;
	if ((d->only_peer && h->peer != d->only_peer) ||
	    (d->only_queue != SHMK_HOLDING_NOWHERE && h->queue != d->only_queue))
		return 0;
	if (d->json)
		print_json(d, h);
	else
		print_text(d, h);
	d->shown++;
	return stop_signal ? -EINTR : 0;
}

static int learn_names(struct dump *d, struct shmk *s)
{
	struct shmk_queue_stats q;
	struct shmk_peer p;

	d->peers = calloc(SHMK_PEERS_MAX + 1, sizeof(*d->peers));
	d->queues = calloc(SHMK_QUEUES_MAX, sizeof(*d->queues));
	if (!d->peers || !d->queues)
		return -ENOMEM;
	d->self = shmk_self(s);
	for (uint32_t id = 0; !shmk_peer_next(s, id, &p); id = p.id + 1)
		d->peers[p.id] = p;
	for (uint32_t id = 0; !shmk_queue_next(s, id, &q); id = q.id + 1)
		strcpy(d->queues[q.id], q.name);
	return 0;
}

static int find_queue(struct dump *d, const struct target *t, const char *name)
{
	for (uint32_t i = 0; name && i < SHMK_QUEUES_MAX; i++)
		if (!strcmp(d->queues[i], name)) {
			d->only_queue = i;
			return EXIT_OK;
		}
	if (!name)
		return EXIT_OK;
	say("no queue \"%s\" in pool \"%s\": see 'shmk show %s' for those there are", name, t->pool,
	    t->pool);
	return EXIT_NOENT;
}

static void print_head(struct dump *d, const struct shmk_pool_stat *st,
		       const struct shmk_pool_space *space)
{
	if (d->json) {
		json_open(d->json, NULL, '{');
		json_pool(d->json, st);
		json_space(d->json, space);
		json_open(d->json, "holdings", '[');
		return;
	}
	fprintf(d->to, "%s:%s  %s, used %s in %" PRIu64 " blocks, largest free block %s\n",
		st->backend, st->name, human(st->bytes), human(st->bytes_used), st->blocks_used,
		human(space->largest));
}

/* ------------------------------------------------------------- capsules -- */

static bool wanted(const struct dump *d, const struct shmk_holding *h)
{
	return d->only_queue == SHMK_HOLDING_NOWHERE || h->queue == d->only_queue;
}

static void capsule_text(struct dump *d, struct shmk *s, const struct shmk_capsule *c)
{
	struct shmk_holding h;
	bool any = false;

	fprintf(d->to, "peer %u, pid %d, uid %u, %s: %s %s ago", c->peer, c->pid, c->uid,
		comm_text(c->comm), reason_text(c->reason, c->code), human_ns(now_ns() - c->time_ns));
	fprintf(d->to, ", was here for %s; had used %u entries, %s%u in use\n",
		human_ns(c->time_ns - c->attached_ns), c->high,
		c->nr_entries == SHMK_CAPSULE_ENTRIES ? "at least " : "", c->nr_entries);
	for (uint32_t i = 0; !shmk_capsule_holding(s, c, i, &h); i++) {
		char offset[24] = "-", pos[24] = "-";
		const char *queue = queue_name(d, &h);

		if (!wanted(d, &h))
			continue;
		if (!any)
			fprintf(d->to, "%14s %-14s %-15s %10s\n", "OFFSET", "STATE", "QUEUE", "POSITION");
		any = true;
		if (h.offset != UINT64_MAX)
			snprintf(offset, sizeof(offset), "%#" PRIx64, h.offset);
		if (*queue && h.state != SHMK_HOLDING_WAITING)
			snprintf(pos, sizeof(pos), "%" PRIu64, h.pos);
		fprintf(d->to, "%14s %-14s %-15s %10s", offset, state_name(h.state),
			*queue ? queue : "-", pos);
		if (h.state == SHMK_HOLDING_WAITING)
			fprintf(d->to, " for a %s", side_name(&h));
		fputc('\n', d->to);
	}
}

static void capsule_json(struct dump *d, struct shmk *s, const struct shmk_capsule *c)
{
	struct json *j = d->json;
	struct shmk_holding h;

	json_open(j, NULL, '{');
	json_u64(j, "seq", c->seq);
	json_u64(j, "peer", c->peer);
	json_u64(j, "gen", c->gen);
	json_u64_if(j, "pid", c->pid, c->pid);
	json_u64(j, "uid", c->uid);
	json_comm(j, c->comm);
	json_string(j, "reason", reason_name(c->reason));
	json_i64(j, "code", c->code);
	json_u64(j, "time_ns", c->time_ns);
	json_u64(j, "attached_ns", c->attached_ns);
	json_u64(j, "entries_used", c->high);
	json_bool(j, "more", c->nr_entries == SHMK_CAPSULE_ENTRIES);
	json_open(j, "holdings", '[');
	for (uint32_t i = 0; !shmk_capsule_holding(s, c, i, &h); i++) {
		const char *queue = queue_name(d, &h);

		if (!wanted(d, &h))
			continue;
		json_open(j, NULL, '{');
		json_string(j, "state", state_name(h.state));
		json_u64_if(j, "offset", h.offset != UINT64_MAX, h.offset);
		if (*queue)
			json_string(j, "queue", queue);
		else
			json_null(j, "queue");
		json_u64_if(j, "position", *queue && h.state != SHMK_HOLDING_WAITING, h.pos);
		if (h.state == SHMK_HOLDING_WAITING)
			json_string(j, "waits_for", side_name(&h));
		json_close(j, '}');
	}
	json_close(j, ']');
	json_close(j, '}');
}

static int capsules(struct dump *d, struct shmk *s, const struct target *t)
{
	struct shmk_capsule c = { };
	int err;

	for (uint64_t seq = 0; !(err = shmk_capsule_next(s, seq, &c)); seq = c.seq + 1) {
		if (d->only_peer && c.peer != d->only_peer)
			continue;
		if (d->json)
			capsule_json(d, s, &c);
		else
			capsule_text(d, s, &c);
		d->shown++;
	}
	if (err == -ENOENT)
		return EXIT_OK;
	return fail(err, "cannot read who died in pool \"%s\"", t->pool);
}

static int dump_capsules(struct dump *d, struct shmk *s, const struct target *t)
{
	int status;

	if (shmk_capsule_next(s, 0, &(struct shmk_capsule) { }) == -EOPNOTSUPP) {
		say("what the dead were doing is kept by the module, not by \"%s\": see 'shmk show %s' for how many died",
		    t->pool, t->pool);
		return EXIT_FAILED;
	}
	if (d->json) {
		json_open(d->json, NULL, '{');
		json_string(d->json, "pool", t->pool);
		json_open(d->json, "capsules", '[');
	}
	status = capsules(d, s, t);
	if (d->json) {
		json_close(d->json, ']');
		json_close(d->json, '}');
	} else if (!status && !d->shown) {
		fprintf(d->to, "nobody has died\n");
	}
	return status ? status : finish_stdout();
}

/* ---------------------------------------------------------------------- */

static int dump(struct dump *d, struct shmk *s, const struct target *t, const char *queue)
{
	struct shmk_pool_space space;
	struct shmk_pool_stat st;
	int status, err = learn_names(d, s);

	if (!err)
		err = shmk_pool_stat(s, &st);
	if (!err)
		err = shmk_pool_space(s, &space);
	if (err < 0)
		return fail(err, "cannot read the state of pool \"%s\"", t->pool);
	status = find_queue(d, t, queue);
	if (status)
		return status;
	if (d->capsules)
		return dump_capsules(d, s, t);
	st.peers_now--;		/* not me */
	print_head(d, &st, &space);
	err = shmk_pool_dump(s, tell, d);
	if (d->json) {
		json_close(d->json, ']');
		json_close(d->json, '}');
	}
	return err < 0 ? fail(err, "cannot look through pool \"%s\"", t->pool) : finish_stdout();
}

int dump_text(struct shmk *s, FILE *to, uint32_t peer, uint32_t queue)
{
	struct dump d = { .to = to, .only_peer = peer, .only_queue = queue, .all = true };
	int err = learn_names(&d, s);

	if (!err)
		err = shmk_pool_dump(s, tell, &d);
	free(d.peers);
	free(d.queues);
	return err;
}

int cmd_dump(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "json", no_argument, NULL, 'j' },
		{ "all", no_argument, NULL, 'a' },
		{ "capsule", no_argument, NULL, 'k' },
		{ "peer", required_argument, NULL, 'i' },
		{ "queue", required_argument, NULL, 'Q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct dump d = { .to = stdout, .only_queue = SHMK_HOLDING_NOWHERE };
	struct target t = TARGET_INIT;
	struct json json = { .f = stdout };
	const char *queue = NULL;
	struct shmk *s;
	uint64_t n;
	int opt, status;

	while ((opt = next_option(argc, argv, "ahj", longs)) != -1) {
		if (opt == 'j') {
			d.json = &json;
		} else if (opt == 'a') {
			d.all = true;
		} else if (opt == 'k') {
			d.capsules = true;
		} else if (opt == 'Q') {
			queue = optarg;
		} else if (opt == 'i') {
			if (!parse_number(optarg, SHMK_PEERS_MAX, &n) || !n)
				return bad_usage(argv[0], "'%s' is no id of a peer", optarg);
			d.only_peer = n;
		} else if (target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	if (d.all && d.capsules)
		return bad_usage(argv[0], "--all is for what the living have, --capsule for the dead");
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (!status)
		status = target_attach(&t, SHMK_ATTACH_RDONLY, &s);
	if (status)
		return status;
	status = dump(&d, s, &t, queue);
	free(d.peers);
	free(d.queues);
	tool_detach(s);
	return status;
}
