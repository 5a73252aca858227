// SPDX-License-Identifier: GPL-2.0-only
/*
 * event.c - what 'shmk events' and 'shmk monitor' have in common, and the words for an end.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include <linux/shmk.h>

#include "event.h"
#include "tool.h"

const char *event_name(uint32_t type)
{
	switch (type) {
	case SHMK_EV_ATTACHED:		return "attached";
	case SHMK_EV_DETACHED:		return "detached";
	case SHMK_EV_DIED:		return "died";
	case SHMK_EV_QUEUE_CREATED:	return "queue-created";
	case SHMK_EV_QUEUE_REMOVED:	return "queue-removed";
	case SHMK_EV_DESTROYED:		return "destroyed";
	case SHMK_EV_LOST:		return "events-lost";
	case SHMK_EV_RESET:		return "reset";
	case SHMK_EV_CREATED:		return "created";
	case SHMK_EV_STUCK:		return "stuck";
	case SHMK_EV_UNSTUCK:		return "unstuck";
	default:			return "unknown";
	}
}

const char *reason_name(uint32_t reason)
{
	switch (reason) {
	case SHMK_REASON_NONE:		return "none";
	case SHMK_REASON_DETACHED:	return "detached";
	case SHMK_REASON_CLOSED:	return "closed";
	case SHMK_REASON_EXITED:	return "exited";
	case SHMK_REASON_KILLED:	return "killed";
	case SHMK_REASON_EXEC:		return "exec";
	default:			return "unknown";
	}
}

const char *reason_text(uint32_t reason, int32_t code)
{
	static char buf[64];

	switch (reason) {
	case SHMK_REASON_DETACHED:
		return "detached";
	case SHMK_REASON_CLOSED:
		return "closed its files";
	case SHMK_REASON_EXITED:
		snprintf(buf, sizeof(buf), "exited with status %d", code);
		return buf;
	case SHMK_REASON_KILLED:
		snprintf(buf, sizeof(buf), "killed by signal %d (%s)", code, strsignal(code));
		return buf;
	case SHMK_REASON_EXEC:
		return "started another program (exec)";
	default:
		return "ended, nobody can tell how";
	}
}

void json_comm(struct json *j, const char comm[16])
{
	char text[17] = "";

	memcpy(text, comm, 16);
	json_string(j, "comm", text);
}

void print_given_back(uint64_t bytes, uint64_t blocks)
{
	printf("; gave back %s in %" PRIu64 " block%s", human(bytes), blocks, blocks == 1 ? "" : "s");
}

void print_lost(uint64_t messages)
{
	if (messages)
		printf("; %" PRIu64 " message%s lost", messages, messages == 1 ? "" : "s");
}

int watch_option(struct watch *w, const char *verb, int opt, const char *arg)
{
	if (opt == 'j') {
		w->json = true;
		return 1;
	}
	if (opt != 'n')
		return 0;
	if (parse_number(arg, UINT64_MAX, &w->count) && w->count)
		return 1;
	bad_usage(verb, "'%s' is no number of events", arg);
	return -1;
}

bool watch_is_full(struct watch *w)
{
	return ++w->seen == w->count;
}

int watch_loop(struct watch *w, int fd, int look_every_ms, int64_t timeout_ms, void *arg)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t deadline = shmk_deadline_ms(timeout_ms);
	int err;

	for (;;) {
		err = w->print_new(w, arg);
		if (err || stop_signal || now_ns() >= deadline)
			break;
		poll(&p, 1, look_every_ms);
	}
	if (err < 0)
		return fail(err, "cannot watch \"%s\" any longer", w->what);
	if (err || !w->count)
		return finish_stdout();
	if (!stop_signal)
		say("only %" PRIu64 " of %" PRIu64 " events came within %s: give a longer --timeout",
		    w->seen, w->count, human_ns(timeout_ms * 1000000));
	return EXIT_TIMEOUT;
}
