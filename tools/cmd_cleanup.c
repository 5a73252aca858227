// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk cleanup
 */
#include <errno.h>
#include <string.h>

#include "tool.h"

static int cleanup_one(const char *uri, bool quiet)
{
	int n = shmk_pool_cleanup(uri);

	switch (-n) {
	case EBUSY:
		say("pool \"%s\" is in use by a living process: see 'shmk show %s'", uri, uri);
		return EXIT_BUSY;
	case ENOENT:
		say("no pool \"%s\": see 'shmk ls' for those there are", uri);
		return EXIT_NOENT;
	case EPERM:
	case EACCES:
		say("pool \"%s\" is not yours: ask its owner, see 'shmk ls'", uri);
		return EXIT_PERM;
	default:
		break;
	}
	if (n < 0)
		return fail(n, "cannot clean up \"%s\"", uri);
	if (!quiet)
		printf("%d removed\n", n);
	return finish_stdout();
}

int cmd_cleanup(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	bool quiet = false;
	int opt, status;

	while ((opt = next_option(argc, argv, "hq", longs)) != -1) {
		if (opt == 'q')
			quiet = true;
		else if (target_option(&t, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
	}
	/* Without a name: what can be left behind is left by the local backend. */
	if (!t.pool[0] && optind == argc)
		return cleanup_one("local:", quiet);
	status = target_parse_pool(&t, argv[0], argc, argv);
	return status ? status : cleanup_one(t.pool, quiet);
}
