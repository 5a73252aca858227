// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk monitor - what happens in all pools, or in all that ever have one name
 *
 * Nothing has to be monitored for pools to be in order; but on the local backend, where somebody
 * has to look, this looks, and removes pools that the dead have left.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "tool.h"

#define LOOK_EVERY_MS	500	/* for a signal that came just before poll() */

struct watch {
	bool json;
	bool keep;		/* what the dead have left */
	uint64_t count;		/* 0: no end */
	uint64_t seen;
};

static bool is_end(const struct shmk_monitor_event *e)
{
	return e->type == SHMK_EV_DETACHED || e->type == SHMK_EV_DIED;
}

static void print_detail(struct json *j, const struct shmk_monitor_event *e)
{
	json_string(j, "reason", reason_name(e->reason));
	json_i64(j, "code", e->code);
	json_i64(j, "pid", e->pid);
	json_u64(j, "uid", e->uid);
	json_u64(j, "took_ns", e->took_ns);
	json_u64(j, "blocks", e->blocks);
	json_u64(j, "bytes", e->bytes);
	json_u64(j, "messages", e->messages);
	json_u64(j, "redelivered", e->redelivered);
}

static void print_json(const struct shmk_monitor_event *e)
{
	struct json j = { .f = stdout, .compact = true };
	char comm[sizeof(e->comm) + 1] = "";

	memcpy(comm, e->comm, sizeof(e->comm));
	json_open(&j, NULL, '{');
	json_string(&j, "event", event_name(e->type));
	json_string(&j, "pool", e->pool);
	json_u64(&j, "pool_id", e->pool_id);
	json_u64(&j, "seq", e->seq);
	json_u64(&j, "time_ns", e->time_ns);
	json_u64(&j, "peer", e->peer);
	json_u64(&j, "gen", e->gen);
	json_u64(&j, "queue", e->queue);
	if (e->has_detail)
		print_detail(&j, e);
	json_string(&j, "comm", comm);
	json_close(&j, '}');
}

static void print_end(const struct shmk_monitor_event *e)
{
	printf(": %s; gave back %s in %" PRIu64 " block%s", reason_text(e->reason, e->code),
	       human(e->bytes), e->blocks, e->blocks == 1 ? "" : "s");
	if (e->messages)
		printf("; %" PRIu64 " message%s lost", e->messages, e->messages == 1 ? "" : "s");
}

static void print_text(const struct shmk_monitor_event *e)
{
	printf("%-20s %-13s", e->type == SHMK_EV_LOST ? "*" : e->pool[0] ? e->pool : "(no name)",
	       event_name(e->type));
	if (e->peer)
		printf(" peer %u", e->peer);
	if (e->peer && e->has_detail)
		printf(", pid %d, %s", e->pid, comm_text(e->comm));
	if (is_end(e) && e->has_detail)
		print_end(e);
	if ((e->type == SHMK_EV_STUCK || e->type == SHMK_EV_UNSTUCK) && e->has_detail)
		printf(": had not moved for %s", human_ns(e->took_ns));
	if (e->type == SHMK_EV_LOST)
		printf(" events came too fast; what follows is what has become of the pools");
	putchar('\n');
}

/* One that living peers have is not removed, nor one that is to stay. */
static void tidy(const struct shmk_monitor_event *e, bool local)
{
	char uri[sizeof(e->pool) + 8];

	if (!local || !is_end(e) || !e->pool[0])
		return;
	snprintf(uri, sizeof(uri), "local:%s", e->pool);
	shmk_pool_cleanup(uri);
}

/* 1: that was enough. */
static int print_new(struct shmk_monitor *m, struct watch *w, bool local)
{
	struct shmk_monitor_event e;
	int err;

	while (!(err = shmk_monitor_next(m, &e))) {
		if (!w->keep)
			tidy(&e, local);
		if (w->json)
			print_json(&e);
		else
			print_text(&e);
		if (fflush(stdout))
			return -errno;
		if (++w->seen == w->count)
			return 1;
	}
	return err == -EAGAIN ? 0 : err;
}

static int watch(struct shmk_monitor *m, struct watch *w, int64_t timeout_ms, bool local)
{
	int64_t deadline = shmk_deadline_ms(timeout_ms);
	struct pollfd p = { .fd = shmk_monitor_fd(m), .events = POLLIN };
	int err;

	for (;;) {
		err = print_new(m, w, local);
		if (err || stop_signal || now_ns() >= deadline)
			break;
		poll(&p, 1, LOOK_EVERY_MS);
	}
	if (err < 0)
		return fail(err, "cannot watch any longer");
	if (err || !w->count)
		return finish_stdout();
	if (!stop_signal)
		say("only %" PRIu64 " of %" PRIu64 " events came: give a longer --timeout",
		    w->seen, w->count);
	return EXIT_TIMEOUT;
}

/* As the library takes a plain name. */
static bool is_local(const char *uri)
{
	if (strchr(uri, ':'))
		return !strncmp(uri, "local:", 6);
	return access(SHMK_DEVICE, R_OK | W_OK);
}

int cmd_monitor(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "json", no_argument, NULL, 'j' },
		{ "count", required_argument, NULL, 'n' },
		{ "existing", no_argument, NULL, 'e' },
		{ "keep", no_argument, NULL, 'k' },
		{ "timeout", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	struct watch w = { };
	struct shmk_monitor *m;
	unsigned int flags = 0;
	int opt, err, status;

	while ((opt = next_option(argc, argv, "hjn:t:", longs)) != -1) {
		if (opt == 'j') {
			w.json = true;
		} else if (opt == 'e') {
			flags = SHMK_MONITOR_EXISTING;
		} else if (opt == 'k') {
			w.keep = true;
		} else if (opt == 'n') {
			if (!parse_number(optarg, UINT64_MAX, &w.count) || !w.count)
				return bad_usage(argv[0], "'%s' is no number of events", optarg);
		} else if (target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (status)
		return status;
	catch_signals();
	err = shmk_monitor_open(t.pool, flags, &m);
	if (err)
		return fail(err, "cannot watch \"%s\"", t.pool);
	status = watch(m, &w, t.timeout_ms, is_local(t.pool));
	shmk_monitor_close(m);
	return status;
}
