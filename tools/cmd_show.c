// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk show
 *
 * Attaches read-only, so it can look at any pool it may read and spoil none;
 * it leaves itself out of what it tells.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

/* ---------------------------------------------------------------- json -- */

static void json_peers(struct json *j, struct shmk *s)
{
	struct shmk_peer p;

	json_open(j, "peers", '[');
	for (uint32_t id = 0; !shmk_peer_next(s, id, &p); id = p.id + 1) {
		if (p.id == shmk_self(s))
			continue;
		json_open(j, NULL, '{');
		json_u64(j, "id", p.id);
		json_u64(j, "gen", p.gen);
		if (p.pid)
			json_i64(j, "pid", p.pid);
		else
			json_null(j, "pid");
		json_string(j, "comm", p.comm);
		json_string(j, "state", p.dead ? "dead" : "alive");
		json_bool(j, "rdonly", p.rdonly);
		json_bool(j, "stuck", p.stuck);
		json_u64(j, "uid", p.uid);
		json_u64(j, "entries_max", p.nr_entries);
		json_u64(j, "attached_ns", p.attached_ns);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void json_queues(struct json *j, struct shmk *s)
{
	struct shmk_queue_stats q;

	json_open(j, "queues", '[');
	for (uint32_t id = 0; !shmk_queue_next(s, id, &q); id = q.id + 1) {
		json_open(j, NULL, '{');
		json_u64(j, "id", q.id);
		json_u64(j, "gen", q.gen);
		json_string(j, "name", q.name);
		json_bool(j, "one_sender", q.flags & SHMK_QUEUE_SP);
		json_bool(j, "one_receiver", q.flags & SHMK_QUEUE_SC);
		json_bool(j, "redelivers", q.flags & SHMK_QUEUE_REDELIVER);
		json_u64(j, "capacity", q.capacity);
		json_u64(j, "slot_bytes", q.slot_bytes);
		json_u64(j, "open", q.nr_open);
		json_u64(j, "depth", q.depth);
		json_u64(j, "sent", q.sent);
		json_u64(j, "received", q.received);
		json_u64(j, "redelivered", q.redelivered);
		json_bool(j, "recv_waiting", q.recv_waiting);
		json_bool(j, "send_waiting", q.send_waiting);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void show_json(struct shmk *s, const struct shmk_pool_stat *st,
		      const struct shmk_pool_space *space)
{
	struct json j = { .f = stdout };

	json_open(&j, NULL, '{');
	json_pool(&j, st);
	json_space(&j, space);
	json_peers(&j, s);
	json_queues(&j, s);
	json_close(&j, '}');
}

/* ---------------------------------------------------------------- text -- */

static void show_pool(const struct shmk_pool_stat *st, const struct shmk_pool_space *space)
{
	char node[16] = "any";

	if (st->node >= 0)
		snprintf(node, sizeof(node), "%d", st->node);
	printf("%s:%s  %s, pages %s, unit %s, node %s, mode %04o, uid %u, gid %u%s, age %s\n",
	       st->backend, st->name, human(st->bytes), human(st->page_bytes),
	       human(st->unit_bytes), node, st->mode, st->uid, st->gid,
	       st->flags & SHMK_POOL_DRAINING ? ", draining" :
	       st->flags & SHMK_POOL_PERSIST ? ", persistent" : "", human_ns(st->age_ns));
	printf("  memory  %s with control regions\n", human(st->memory_bytes));
	printf("  used    %s in %" PRIu64 " blocks\n", human(st->bytes_used), st->blocks_used);
	printf("  space   largest free block %s; %" PRIu64 " of %" PRIu64 " spans of %s untouched, %" PRIu64 " empty%s\n",
	       human(space->largest), space->spans_untouched, space->spans, human(space->span_bytes),
	       space->spans_empty, space->spans_untouched == space->spans ? " (pristine)" :
	       space->largest ? "" : " (full)");
	printf("  peers   %u now (most %u); %" PRIu64 " attached, %" PRIu64 " detached, %" PRIu64 " died\n",
	       st->peers_now, st->nr_peers, st->attaches, st->detaches, st->deaths);
	printf("  deaths  gave back %s in %" PRIu64 " blocks; %" PRIu64 " messages lost, %" PRIu64 " redelivered\n",
	       human(st->reclaimed_bytes), st->reclaimed_blocks, st->lost_messages,
	       st->redelivered);
}

static void show_peers(struct shmk *s)
{
	struct shmk_peer p;
	bool any = false;

	for (uint32_t id = 0; !shmk_peer_next(s, id, &p); id = p.id + 1) {
		char pid[16] = "-";

		if (p.id == shmk_self(s))
			continue;
		if (!any)
			printf("%7s %8s %-16s %-10s %6s %8s\n", "PEER", "PID", "COMM", "STATE",
			       "UID", "AGE");
		any = true;
		if (p.pid)
			snprintf(pid, sizeof(pid), "%d", p.pid);
		printf("%7u %8s %-16s %-10s %6u %8s\n", p.id, pid, comm_text(p.comm),
		       p.dead ? "dead" : p.stuck ? "stuck" : p.rdonly ? "read-only" : "alive", p.uid,
		       human_ns(now_ns() - p.attached_ns));
	}
}

static const char *waiting(const struct shmk_queue_stats *q)
{
	if (q->recv_waiting)
		return q->send_waiting ? "both" : "receiver";
	return q->send_waiting ? "sender" : "-";
}

static void show_queues(struct shmk *s)
{
	struct shmk_queue_stats q;
	bool any = false;

	for (uint32_t id = 0; !shmk_queue_next(s, id, &q); id = q.id + 1) {
		if (!any)
			printf("%7s %-20s %11s %5s %10s %10s %s\n", "QUEUE", "NAME", "DEPTH/CAP",
			       "OPEN", "SENT", "RECEIVED", "WAITING");
		any = true;
		printf("%7u %-20s %5u/%-5u %5u %10" PRIu64 " %10" PRIu64 " %s\n", q.id, q.name,
		       q.depth, q.capacity, q.nr_open, q.sent, q.received, waiting(&q));
	}
}

int cmd_show(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	struct shmk_pool_space space;
	struct shmk_pool_stat st;
	struct shmk *s;
	bool json = false;
	int opt, status, err;

	while ((opt = next_option(argc, argv, "hj", longs)) != -1) {
		if (opt == 'j')
			json = true;
		else if (target_option(&t, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
	}
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (!status)
		status = target_attach(&t, SHMK_ATTACH_RDONLY, &s);
	if (status)
		return status;
	err = shmk_pool_stat(s, &st);
	if (!err)
		err = shmk_pool_space(s, &space);
	if (err < 0) {
		status = fail(err, "cannot read the state of pool \"%s\"", t.pool);
		goto out;
	}
	st.peers_now--;		/* not me */
	if (json) {
		show_json(s, &st, &space);
	} else {
		show_pool(&st, &space);
		show_peers(s);
		show_queues(s);
	}
	status = finish_stdout();
out:
	tool_detach(s);
	return status;
}
