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
		{ "json", no_argument, NULL, 'j' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct target t = TARGET_INIT;
	char report[1024] = "";
	struct json j = { .f = stdout };
	bool quiet = false, json = false;
	struct shmk *s;
	int opt, status, err;

	while ((opt = next_option(argc, argv, "hjq", longs)) != -1) {
		if (opt == 'q')
			quiet = true;
		else if (opt == 'j')
			json = true;
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
	if (json && (!err || err == -EUCLEAN)) {
		json_open(&j, NULL, '{');
		json_string(&j, "pool", t.pool);
		json_bool(&j, "sound", !err);
		if (err)
			json_string(&j, "damage", report);
		else
			json_null(&j, "damage");
		json_close(&j, '}');
	}
	if (err == -EUCLEAN) {
		say("pool \"%s\" is damaged: stop its users and remove it with 'shmk pool rm %s'",
		    t.pool, t.pool);
		if (!json)
			printf("%s\n", report);
		return EXIT_FAILED;
	}
	if (err < 0)
		return fail(err, "cannot check pool \"%s\"", t.pool);
	if (!quiet && !json)
		printf("%s: sound\n", t.pool);
	return finish_stdout();
}
