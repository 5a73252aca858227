// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk fsck
 */
#include <errno.h>

#include "tool.h"

int cmd_fsck(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	char report[1024] = "";
	bool quiet = false;
	struct shmk *s;
	int opt, status, err;

	while ((opt = next_option(argc, argv, "hq", longs)) != -1) {
		if (opt == 'q')
			quiet = true;
		else if (target_option(&t, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
	}
	status = target_parse_pool(&t, argv[0], argc, argv);
	if (!status)
		status = target_attach(&t, SHMK_ATTACH_RDONLY, &s);
	if (status)
		return status;
	err = shmk_pool_check(s, report, sizeof(report));
	tool_detach(s);
	if (err == -EUCLEAN) {
		say("pool \"%s\" is damaged: stop its users and remove it with 'shmk pool rm %s'",
		    t.pool, t.pool);
		printf("%s\n", report);
		return EXIT_FAILED;
	}
	if (err < 0)
		return fail(err, "cannot check pool \"%s\"", t.pool);
	if (!quiet)
		printf("%s: sound\n", t.pool);
	return finish_stdout();
}
