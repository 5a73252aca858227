// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk queue create|rm|drain|reset|ls
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

static int create(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "capacity", required_argument, NULL, 'C' },
		{ "slot", required_argument, NULL, 'S' },
		{ "one-sender", no_argument, NULL, '1' },
		{ "one-receiver", no_argument, NULL, '2' },
		{ "redeliver", no_argument, NULL, 'R' },
		{ "tries", required_argument, NULL, 'T' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct shmk_queue_opts o = { .flags = SHMK_QUEUE_CREATE | SHMK_QUEUE_EXCL };
	struct target t = TARGET_INIT;
	struct shmk_queue *q;
	struct shmk *s;
	uint64_t slot, tries;
	int opt, status, err;

	while ((opt = next_option(argc, argv, "hC:", longs)) != -1) {
		if (opt == '1') {
			o.flags |= SHMK_QUEUE_SP;
		} else if (opt == '2') {
			o.flags |= SHMK_QUEUE_SC;
		} else if (opt == 'S') {
			if (!parse_number(optarg, 256, &slot) || (slot != 64 && slot != 128 && slot != 256))
				return bad_usage(argv[0], "a slot has 64, 128 or 256 bytes, not '%s'", optarg);
			o.slot_bytes = slot;
		} else if (opt == 'R') {
			o.flags |= SHMK_QUEUE_REDELIVER;
		} else if (opt == 'T') {
			if (!parse_number(optarg, 32767, &tries) || !tries)
				return bad_usage(argv[0], "tries are 1 to 32767, not '%s'", optarg);
			o.max_tries = tries;
		} else if (target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	if (o.max_tries && !(o.flags & SHMK_QUEUE_REDELIVER))
		return bad_usage(argv[0], "%s is for --redeliver", "--tries");
	if (argc - optind != 1)
		return bad_usage(argv[0], "give one POOL/QUEUE");
	status = target_parse_queue(&t, argv[0], argv[optind]);
	if (!status)
		status = target_attach(&t, 0, &s);
	if (status)
		return status;
	o.capacity = t.capacity;
	err = shmk_queue_open(s, t.queue, &o, SHMK_TRY, &q);
	if (err == -EEXIST) {
		say("queue \"%s\" is there already: use it, or remove it with 'shmk queue rm %s/%s'",
		    t.queue, t.pool, t.queue);
		status = EXIT_BUSY;
	} else if (err < 0) {
		status = fail(err, "cannot make queue \"%s\" in pool \"%s\"", t.queue, t.pool);
	} else {
		shmk_queue_close(q);
	}
	tool_detach(s);
	return status;
}

static int remove_one(struct target *t, const char *text)
{
	struct shmk *s;
	int err, status = target_parse_queue(t, "queue", text);

	if (!status)
		status = target_attach(t, 0, &s);
	if (status)
		return status;
	err = shmk_queue_remove(s, t->queue);
	tool_detach(s);
	if (err == -ENOENT)
		say("no queue \"%s\" in pool \"%s\": see 'shmk show %s'", t->queue, t->pool, t->pool);
	else if (err == -EBUSY)
		say("queue \"%s\" is open: see 'shmk show %s' for who is attached", t->queue, t->pool);
	else if (err < 0)
		return fail(err, "cannot remove queue \"%s\" of pool \"%s\"", t->queue, t->pool);
	return exit_status(err);
}

static int reset_one(struct target *t, const char *text)
{
	int status = target_parse_queue(t, "queue", text);

	return status ? status : reset_target(t, false, false);
}

/* Begins it; with --wait also waits until it is done. */
static int drain_one(struct target *t, const char *text)
{
	int64_t deadline = t->wait ? shmk_deadline_ms(t->timeout_ms) : SHMK_TRY;
	struct shmk *s;
	int err, status = target_parse_queue(t, "queue", text);

	t->wait = false;	/* for the pool */
	if (!status)
		status = target_attach(t, 0, &s);
	if (status)
		return status;
	err = shmk_queue_drain(s, t->queue, deadline);
	tool_detach(s);
	if (err == -EAGAIN)
		return EXIT_OK;
	if (err == -ETIMEDOUT)
		say("queue \"%s\" drains, but is not empty yet, or open: see 'shmk show %s'",
		    t->queue, t->pool);
	else if (err == -ENOENT)
		say("no queue \"%s\" in pool \"%s\": see 'shmk show %s'", t->queue, t->pool, t->pool);
	else if (err < 0)
		return fail(err, "cannot drain queue \"%s\" of pool \"%s\"", t->queue, t->pool);
	return exit_status(err);
}

/* rm, drain and reset */
static int each(int argc, char **argv, int (*one)(struct target *t, const char *text))
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	static const struct option waits[] = {
		TARGET_POOL_OPTION,
		{ "wait", no_argument, NULL, 'w' },
		{ "timeout", required_argument, NULL, 't' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	bool drain = one == drain_one;
	struct target given = TARGET_INIT;
	int opt, status = EXIT_OK;

	while ((opt = next_option(argc, argv, drain ? "hwt:" : "h", drain ? waits : longs)) != -1)
		if (target_option(&given, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
	if (optind == argc)
		return bad_usage(argv[0], "which queue?");
	for (; optind < argc; optind++) {
		struct target t = given;
		int ret = one(&t, argv[optind]);

		status = status ? status : ret;
	}
	return status ? status : finish_stdout();
}

int cmd_queue(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "--help") || !strcmp(what, "-h")) {
		usage("queue", stdout);
		return finish_stdout();
	}
	if (!strcmp(what, "ls")) {	/* that the peers come with it does no harm */
		argv[1] = (char []){ "show" };
		return cmd_show(argc - 1, argv + 1);
	}
	if (argc > 1)
		argv[1] = argv[0];
	if (!strcmp(what, "create"))
		return create(argc - 1, argv + 1);
	if (!strcmp(what, "rm"))
		return each(argc - 1, argv + 1, remove_one);
	if (!strcmp(what, "drain"))
		return each(argc - 1, argv + 1, drain_one);
	if (!strcmp(what, "reset"))
		return each(argc - 1, argv + 1, reset_one);
	return bad_usage("queue", *what ? "'%s' is not create, rm, drain, reset or ls" :
			 "create, rm, drain, reset or ls?%s", what);
}
