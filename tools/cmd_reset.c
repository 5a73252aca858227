// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk reset
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

int64_t reset_queue(const char *pool, const char *queue)
{
	struct shmk_queue *q;
	struct shmk *s;
	int64_t nr = shmk_attach(pool, NULL, &s);

	if (nr < 0)
		return nr;
	nr = shmk_queue_open(s, queue, NULL, SHMK_TRY, &q);
	if (!nr)
		nr = shmk_queue_reset(q);
	shmk_detach(s);
	return nr;
}

static int not_reset(const char *pool, int err, bool force)
{
	switch (-err) {
	case EBUSY:
		if (!force)
			return say_busy(pool, "reset", "--force resets it all the same");
		say("somebody else is resetting pool \"%s\" right now: run the command again", pool);
		return EXIT_BUSY;
	case EPERM:
	case EACCES:
		say("not allowed to reset \"%s\": only its owner and root may, see 'shmk ls', and memory for both is charged",
		    pool);
		return EXIT_PERM;
	case ENOMEM:
	case ENOSPC:
		say("no memory for a second \"%s\" beside the first: stop its users, then 'shmk pool rm %s'",
		    pool, pool);
		return EXIT_NOSPACE;
	default:
		return pool_failed(pool, err, "reset", "reset");
	}
}

static int queue_failed(const struct target *t, int err)
{
	struct target look = *t;
	struct shmk *s;
	int status;

	if (err == -EBUSY) {
		say("queue \"%s\" is for one receiver at a time, and has one", t->queue);
		return EXIT_BUSY;
	}
	/* What is wrong with the pool is better told by who attaches. */
	status = target_attach(&look, 0, &s);
	if (status)
		return status;
	tool_detach(s);
	if (err != -ENOENT)
		return fail(err, "cannot reset queue \"%s\" of pool \"%s\"", t->queue, t->pool);
	say("no queue \"%s\" in pool \"%s\": see 'shmk show %s'", t->queue, t->pool, t->pool);
	return EXIT_NOENT;
}

/* Of a pool, or of t->queue in it. */
int reset_target(const struct target *t, bool force, bool json)
{
	struct json j = { .f = stdout };
	int64_t ret;

	if (t->queue[0])
		ret = reset_queue(t->pool, t->queue);
	else
		ret = shmk_pool_reset(t->pool, force ? SHMK_RESET_FORCE : 0);
	if (ret < 0)
		return t->queue[0] ? queue_failed(t, (int)ret) : not_reset(t->pool, (int)ret, force);
	if (!json) {
		if (t->queue[0])
			printf("%lld messages dropped from \"%s\"\n", (long long)ret, t->queue);
		return EXIT_OK;
	}
	json_open(&j, NULL, '{');
	json_string(&j, "pool", t->pool);
	if (t->queue[0]) {
		json_string(&j, "queue", t->queue);
		json_u64(&j, "messages", ret);
	} else {
		json_null(&j, "queue");
		json_null(&j, "messages");
	}
	json_close(&j, '}');
	return EXIT_OK;
}

int cmd_reset(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "force", no_argument, NULL, 'f' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	bool force = false, json = false;
	int opt, status;

	while ((opt = next_option(argc, argv, "fhj", longs)) != -1) {
		if (opt == 'f')
			force = true;
		else if (opt == 'j')
			json = true;
		else if (target_option(&t, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
	}
	/* With --pool a queue is given by its name alone. */
	if (optind < argc && (t.pool[0] || strchr(argv[optind], '/'))) {
		status = target_parse_queue(&t, argv[0], argv[optind++]);
		if (status)
			return status;
	}
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (!status)
		status = reset_target(&t, force, json);
	return status ? status : finish_stdout();
}
