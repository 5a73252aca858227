// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk cleanup
 *
 * What can be left behind is left by the local backend, and found without being
 * named. A persistent pool is what somebody wanted to stay: it goes when it
 * is named, or with --persistent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

struct cleanup {
	bool quiet;
	bool json;
	bool persistent;

	unsigned int removed;
	struct kept {
		char uri[96];
		bool persist;	/* and nobody has it */
	} *kept;
	unsigned int nr_kept;
};

/* The first call settles what the dead left of the name; the second takes a persistent pool. */
static int clean_one(struct cleanup *c, const char *uri)
{
	int n = shmk_pool_cleanup(uri);

	if (!n)
		n = shmk_pool_destroy(uri);
	else if (n > 0)
		n = 0;
	if (n < 0)
		return pool_failed(uri, n, "clean up", "cleaned up");
	c->removed++;
	return EXIT_OK;
}

static int keep(const struct shmk_pool_stat *st, void *arg)
{
	struct cleanup *c = arg;
	struct kept *more;

	if (!st->name[0])
		return 0;
	more = realloc(c->kept, (c->nr_kept + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	c->kept = more;
	more += c->nr_kept++;
	snprintf(more->uri, sizeof(more->uri), "%s:%s", st->backend, st->name);
	more->persist = !st->peers_now;
	return 0;
}

/* Those that went meanwhile, or are another's, are nobody's complaint here. */
static void clean_persistent(struct cleanup *c)
{
	unsigned int i, left = 0;

	for (i = 0; i < c->nr_kept; i++) {
		if (c->kept[i].persist && !shmk_pool_destroy(c->kept[i].uri))
			c->removed++;
		else
			c->kept[left++] = c->kept[i];
	}
	c->nr_kept = left;
}

static int clean_all(struct cleanup *c, const char *uri)
{
	char scheme[8];
	int n = shmk_pool_cleanup(uri);

	if (n == -ENOENT || n == -ENODEV) {
		say("no /dev/shmk: load the module with 'modprobe shmk', or use 'shmk cleanup local:'");
		return EXIT_NOENT;
	}
	if (n < 0)
		return pool_failed(uri, n, "clean up", "cleaned up");
	c->removed = n;
	snprintf(scheme, sizeof(scheme), "%.*s", (int)strcspn(uri, ":"), uri);
	n = shmk_pool_list(scheme, keep, c);
	if (n < 0)
		return fail(n, "cannot list what is left of \"%s\"", uri);
	if (c->persistent)
		clean_persistent(c);
	return EXIT_OK;
}

static void tell(const struct cleanup *c)
{
	struct json j = { .f = stdout };

	if (!c->json) {
		if (!c->quiet)
			printf("%u removed\n", c->removed);
		return;
	}
	json_open(&j, NULL, '{');
	json_u64(&j, "removed", c->removed);
	json_open(&j, "kept", '[');
	for (unsigned int i = 0; i < c->nr_kept; i++) {
		json_open(&j, NULL, '{');
		json_string(&j, "pool", c->kept[i].uri);
		json_string(&j, "why", c->kept[i].persist ? "persistent" : "in use");
		json_close(&j, '}');
	}
	json_close(&j, ']');
	json_close(&j, '}');
}

static bool is_backend(const char *uri)
{
	return !strcmp(uri, "local:") || !strcmp(uri, "shmk:");
}

static int clean(struct cleanup *c, char **names, int n)
{
	int i, one, status = EXIT_OK;

	for (i = 0; i < n; i++) {
		one = is_backend(names[i]) ? clean_all(c, names[i]) : clean_one(c, names[i]);
		status = status ? status : one;
	}
	return status;
}

int cmd_cleanup(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "persistent", no_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	char *all[] = { "local:" };
	struct cleanup c = { };
	int opt, status = EXIT_OK;
	bool named = false;

	while ((opt = next_option(argc, argv, "hjq", longs)) != -1) {
		if (opt == 'q')
			c.quiet = true;
		else if (opt == 'j')
			c.json = true;
		else if (opt == 'p')
			c.persistent = true;
		else if (opt == 'P') {
			int one = clean(&c, &optarg, 1);

			named = true;
			status = status ? status : one;
		}
	}
	if (optind < argc) {
		int one = clean(&c, argv + optind, argc - optind);

		status = status ? status : one;
	} else if (!named) {
		status = clean(&c, all, 1);
	}
	if (!status || c.removed || c.json)
		tell(&c);
	free(c.kept);
	return status ? status : finish_stdout();
}
