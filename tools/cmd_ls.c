// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk ls
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tool.h"

void json_pool(struct json *j, const struct shmk_pool_stat *st)
{
	json_string(j, "name", st->name);
	json_string(j, "backend", st->backend);
	json_u64(j, "bytes", st->bytes);
	json_u64(j, "memory_bytes", st->memory_bytes);
	json_u64(j, "page_bytes", st->page_bytes);
	json_u64(j, "unit_bytes", st->unit_bytes);
	json_bool(j, "persist", st->flags & SHMK_POOL_PERSIST);
	json_bool(j, "draining", st->flags & SHMK_POOL_DRAINING);
	if (st->node < 0)
		json_null(j, "node");
	else
		json_i64(j, "node", st->node);
	json_octal(j, "mode", st->mode);
	json_u64(j, "uid", st->uid);
	json_u64(j, "gid", st->gid);
	json_u64(j, "peers_max", st->nr_peers);
	json_u64(j, "queues_max", st->nr_queues);
	json_u64(j, "peers_now", st->peers_now);
	json_u64(j, "queues_now", st->queues_now);
	json_u64(j, "blocks_used", st->blocks_used);
	json_u64(j, "bytes_used", st->bytes_used);
	json_u64(j, "attaches", st->attaches);
	json_u64(j, "detaches", st->detaches);
	json_u64(j, "deaths", st->deaths);
	json_u64(j, "reclaimed_blocks", st->reclaimed_blocks);
	json_u64(j, "reclaimed_bytes", st->reclaimed_bytes);
	json_u64(j, "lost_messages", st->lost_messages);
	json_u64(j, "redelivered", st->redelivered);
	json_u64(j, "age_ns", st->age_ns);
}

void json_space(struct json *j, const struct shmk_pool_space *space)
{
	json_open(j, "space", '{');
	json_u64(j, "spans", space->spans);
	json_u64(j, "span_bytes", space->span_bytes);
	json_u64(j, "spans_untouched", space->spans_untouched);
	json_u64(j, "spans_empty", space->spans_empty);
	json_u64(j, "largest", space->largest);
	json_close(j, '}');
}

struct ls {
	struct json *json;	/* NULL: a table */
	unsigned int n;
};

static int tell(const struct shmk_pool_stat *st, void *arg)
{
	struct ls *ls = arg;
	char uri[96], mode[8];

	if (ls->json) {
		json_open(ls->json, NULL, '{');
		json_pool(ls->json, st);
		json_close(ls->json, '}');
		return 0;
	}
	if (!ls->n++)
		printf("%-24s %10s %10s %5s %6s %6s %5s %6s %8s\n", "POOL", "SIZE", "USED",
		       "PEERS", "QUEUES", "DEATHS", "MODE", "UID", "AGE");
	snprintf(uri, sizeof(uri), "%s:%s", st->backend, st->name);
	snprintf(mode, sizeof(mode), "%04o", st->mode);
	printf("%-24s %10s %10s %5u %6u %6" PRIu64 " %5s %6u %8s%s\n", uri, human(st->bytes),
	       human(st->bytes_used), st->peers_now, st->queues_now, st->deaths, mode, st->uid,
	       human_ns(st->age_ns), st->flags & SHMK_POOL_DRAINING ? " draining" : "");
	return 0;
}

int print_pools(const char *scheme, bool json)
{
	struct json j = { .f = stdout };
	struct ls ls = { .json = json ? &j : NULL };
	int err;

	if (json)
		json_open(&j, NULL, '[');
	err = shmk_pool_list(scheme, tell, &ls);
	if (json)
		json_close(&j, ']');
	if (err == -ENOENT || err == -ENODEV) {
		say("no %s: load the module with 'modprobe shmk', or use 'shmk ls local:'",
		    "/dev/shmk");
		return EXIT_NOENT;
	}
	if (err < 0)
		return fail(err, "cannot list the pools");
	return finish_stdout();
}

int cmd_ls(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *scheme = NULL;
	bool json = false;
	int opt;

	while ((opt = next_option(argc, argv, "hj", longs)) != -1)
		json = true;
	if (optind < argc) {
		const char *arg = argv[optind++];

		if (!strcmp(arg, "shmk:") || !strcmp(arg, "shmk"))
			scheme = "shmk";
		else if (!strcmp(arg, "local:") || !strcmp(arg, "local"))
			scheme = "local";
		else
			return bad_usage("ls", "'%s' is not shmk: or local: (for one pool: 'shmk show %s')",
					 arg, arg);
	}
	if (optind < argc)
		return bad_usage("ls", "'%s' is one argument too many", argv[optind]);
	return print_pools(scheme, json);
}
