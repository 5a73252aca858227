// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk monitor - what happens in all pools, or in all that ever have one name
 *
 * Nothing has to be monitored for pools to be in order; but on the local backend, where somebody
 * has to look, this looks, and removes pools that the dead have left.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "event.h"
#include "tool.h"

#define LOOK_EVERY_MS	500	/* for a signal that came just before poll() */

struct monitor {
	struct watch watch;
	bool keep;		/* what the dead have left */
	bool local;
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
	json_comm(&j, e->comm);
	json_close(&j, '}');
}

static void print_end(const struct shmk_monitor_event *e)
{
	printf(": %s", reason_text(e->reason, e->code));
	print_given_back(e->bytes, e->blocks);
	print_lost(e->messages);
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

static int print_new(struct watch *w, void *arg)
{
	const struct monitor *monitor = (const struct monitor *)w;
	struct shmk_monitor_event e;
	int err;

	while (!(err = shmk_monitor_next(arg, &e))) {
		if (!monitor->keep)
			tidy(&e, monitor->local);
		if (w->json)
			print_json(&e);
		else
			print_text(&e);
		if (fflush(stdout))
			return -errno;
		if (watch_is_full(w))
			return 1;
	}
	return err == -EAGAIN ? 0 : err;
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
	struct monitor monitor = { .watch = { .what = t.pool, .print_new = print_new } };
	struct shmk_monitor *m;
	unsigned int flags = 0;
	int opt, err, status;

	while ((opt = next_option(argc, argv, "hjn:t:", longs)) != -1) {
		int taken = watch_option(&monitor.watch, argv[0], opt, optarg);

		if (taken < 0)
			return EXIT_USAGE;
		if (opt == 'e')
			flags = SHMK_MONITOR_EXISTING;
		else if (opt == 'k')
			monitor.keep = true;
		else if (!taken && target_option(&t, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
	}
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (status)
		return status;
	catch_signals();
	err = shmk_monitor_open(t.pool, flags, &m);
	if (err)
		return fail(err, "cannot watch \"%s\"", t.pool);
	monitor.local = is_local(t.pool);
	status = watch_loop(&monitor.watch, shmk_monitor_fd(m), LOOK_EVERY_MS, t.timeout_ms, m);
	shmk_monitor_close(m);
	return status;
}
