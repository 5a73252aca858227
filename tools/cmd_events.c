// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk events
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <linux/shmk.h>

#include "event.h"
#include "tool.h"

#define LOOK_EVERY_MS	100	/* the local backend finds the dead only when somebody looks */
#define ALL_TYPES	0xffffffffU

struct events {
	struct watch watch;
	uint32_t types;		/* a bit per enum shmk_event_type */
};

/* One object per line, so that a reader may go on while it is written. */
static void print_json(const struct shmk_event *e)
{
	struct json j = { .f = stdout, .compact = true };

	json_open(&j, NULL, '{');
	json_string(&j, "event", event_name(e->type));
	json_string(&j, "reason", reason_name(e->reason));
	json_i64(&j, "code", e->code);
	json_u64(&j, "seq", e->seq);
	json_u64(&j, "time_ns", e->time_ns);
	json_u64(&j, "took_ns", e->took_ns);
	json_u64(&j, "peer", e->peer);
	json_u64(&j, "gen", e->gen);
	if (e->pid)
		json_i64(&j, "pid", e->pid);
	else
		json_null(&j, "pid");
	json_u64(&j, "uid", e->uid);
	json_u64(&j, "queue", e->queue);
	json_u64(&j, "blocks", e->blocks);
	json_u64(&j, "bytes", e->bytes);
	json_u64(&j, "messages", e->messages);
	json_u64(&j, "redelivered", e->redelivered);
	json_comm(&j, e->comm);
	json_close(&j, '}');
}

static void print_peer(const struct shmk_event *e)
{
	printf(" peer %u, pid %d, %s", e->peer, e->pid, comm_text(e->comm));
}

static void print_text(const struct shmk_event *e)
{
	printf("%-13s", event_name(e->type));
	switch (e->type) {
	case SHMK_EV_ATTACHED:
		print_peer(e);
		break;
	case SHMK_EV_DETACHED:
	case SHMK_EV_DIED:
		print_peer(e);
		printf(": %s", reason_text(e->reason, e->code));
		print_given_back(e->bytes, e->blocks);
		printf(" within %s", human_ns(e->took_ns));
		print_lost(e->messages);
		break;
	case SHMK_EV_QUEUE_CREATED:
	case SHMK_EV_QUEUE_REMOVED:
		printf(" queue %u by", e->queue);
		print_peer(e);
		break;
	case SHMK_EV_STUCK:
	case SHMK_EV_UNSTUCK:
		print_peer(e);
		printf(": had not moved for %s", human_ns(e->took_ns));
		break;
	case SHMK_EV_LOST:
		printf(" %d events came too fast to be read", e->code);
		break;
	default:
		break;
	}
	putchar('\n');
}

static int print_new(struct watch *w, void *arg)
{
	const struct events *events = (const struct events *)w;
	struct shmk *s = arg;
	struct shmk_event e;
	int err;

	while (!(err = shmk_event_next(s, &e))) {
		bool mine = e.peer == shmk_self(s) && e.gen == shmk_self_gen(s) &&
			    e.type <= SHMK_EV_DIED;

		if (mine || !(events->types & 1U << (e.type & 31)))
			continue;
		if (w->json)
			print_json(&e);
		else
			print_text(&e);
		if (fflush(stdout))
			return -errno;
		if (watch_is_full(w) || e.type == SHMK_EV_DESTROYED)
			return 1;
	}
	return err == -EAGAIN ? 0 : err;
}

static int watch(struct shmk *s, const struct target *t, struct events *e)
{
	int fd = shmk_event_fd(s);

	if (fd < 0)
		return fail(fd, "cannot watch pool \"%s\"", t->pool);
	return watch_loop(&e->watch, fd, LOOK_EVERY_MS, t->timeout_ms, s);
}

static bool add_type(struct events *e, const char *name)
{
	for (uint32_t type = 1; type <= SHMK_EV_UNSTUCK; type++)
		if (!strcmp(event_name(type), name)) {
			e->types = (e->types == ALL_TYPES ? 0 : e->types) | 1U << type;
			return true;
		}
	return false;
}

int cmd_events(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "json", no_argument, NULL, 'j' },
		{ "count", required_argument, NULL, 'n' },
		{ "type", required_argument, NULL, 'T' },
		{ "timeout", required_argument, NULL, 't' },
		{ "wait", no_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	struct events e = { .watch = { .what = t.pool, .print_new = print_new },
			    .types = ALL_TYPES };
	struct shmk *s;
	int opt, status;

	while ((opt = next_option(argc, argv, "hjn:t:w", longs)) != -1) {
		int taken = watch_option(&e.watch, argv[0], opt, optarg);

		if (taken < 0)
			return EXIT_USAGE;
		if (opt == 'T') {
			if (!add_type(&e, optarg))
				return bad_usage(argv[0], "there are no events '%s'", optarg);
		} else if (!taken && target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (!status)
		status = target_attach(&t, SHMK_ATTACH_RDONLY, &s);
	if (status)
		return status;
	status = watch(s, &t, &e);
	tool_detach(s);
	return status;
}
