// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk wait
 *
 * Counts full members only: neither itself nor anybody else who merely looks
 * is what a script waits for. That is why it does not use shmk_wait_peers().
 */
#include <errno.h>
#include <poll.h>

#include <linux/shmk.h>

#include "tool.h"

/* The local backend finds the dead only when somebody looks. */
#define LOOK_EVERY_MS	100

struct wait_for {
	uint64_t at_least;
	uint64_t at_most;
};

static void sleep_for_event(struct shmk *s, int64_t deadline)
{
	struct pollfd p = { .fd = shmk_event_fd(s), .events = POLLIN };
	int64_t left_ms = (deadline - now_ns()) / 1000000 + 1;
	struct shmk_event ev;

	poll(&p, p.fd >= 0, left_ms < LOOK_EVERY_MS ? (int)left_ms : LOOK_EVERY_MS);
	while (!shmk_event_next(s, &ev))
		;
}

static int wait_for(struct shmk *s, const struct target *t, const struct wait_for *w)
{
	int64_t deadline = shmk_deadline_ms(t->timeout_ms);
	unsigned int n;

	for (;;) {
		n = other_members(s);
		if (n >= w->at_least && n <= w->at_most)
			return EXIT_OK;
		if (stop_signal)
			return EXIT_FAILED;
		if (now_ns() >= deadline)
			break;
		sleep_for_event(s, deadline);
	}
	say("pool \"%s\" has %u peer%s after %s: see 'shmk show %s'", t->pool, n, n == 1 ? "" : "s",
	    human_ns(t->timeout_ms * 1000000), t->pool);
	return EXIT_TIMEOUT;
}

int cmd_wait(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "peers", required_argument, NULL, 'n' },
		{ "at-most", required_argument, NULL, 'x' },
		{ "timeout", required_argument, NULL, 't' },
		{ "wait", no_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct wait_for w = { .at_most = UINT64_MAX };
	struct target t = TARGET_INIT;
	int opt, status, given = 0;
	struct shmk *s;

	while ((opt = next_option(argc, argv, "hn:t:w", longs)) != -1) {
		if (opt == 'n' || opt == 'x') {
			given++;
			if (!parse_number(optarg, SHMK_PEERS_MAX,
					  opt == 'n' ? &w.at_least : &w.at_most))
				return bad_usage(argv[0], "'%s' is no number of peers", optarg);
		} else if (target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	if (!given)
		return bad_usage(argv[0], "for what? give --peers N or --at-most N");
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (!status)
		status = target_attach(&t, SHMK_ATTACH_RDONLY, &s);
	if (status)
		return status;
	status = wait_for(s, &t, &w);
	tool_detach(s);
	return status;
}
