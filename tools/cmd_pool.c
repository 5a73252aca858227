// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk pool create|load|rm|drain|ls
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "tool.h"

struct create_opts {
	struct shmk_pool_opts pool;
	bool hold;
	bool exist_ok;
};

/* A number, or a name that this machine knows. */
static bool parse_user(const char *arg, uint64_t *n)
{
	const struct passwd *user;

	if (parse_number(arg, UINT32_MAX - 1, n))
		return true;
	user = getpwnam(arg);
	*n = user ? user->pw_uid : 0;
	return user;
}

static bool parse_group(const char *arg, uint64_t *n)
{
	const struct group *group;

	if (parse_number(arg, UINT32_MAX - 1, n))
		return true;
	group = getgrnam(arg);
	*n = group ? group->gr_gid : 0;
	return group;
}

static int create_option(struct create_opts *o, int opt, const char *arg)
{
	uint64_t n;
	bool ok = true;

	switch (opt) {
	case 's':
		ok = parse_size(arg, &o->pool.bytes) && o->pool.bytes;
		break;
	case 'p':
		ok = parse_size(arg, &n) && (n == 4096 || n == 2 << 20);
		o->pool.page_bytes = n;
		break;
	case 'm':
		ok = parse_mode(arg, &o->pool.mode);
		break;
	case 'u':
		ok = parse_size(arg, &n) && n >= 256 && n <= 65536 && !(n & (n - 1));
		o->pool.unit_bytes = n;
		break;
	case 'N':
		ok = parse_number(arg, 4095, &n);
		o->pool.set_node = true;
		o->pool.node = n;
		break;
	case 'U':
	case 'G':
		ok = opt == 'U' ? parse_user(arg, &n) : parse_group(arg, &n);
		o->pool.set_owner = true;
		*(opt == 'U' ? &o->pool.uid : &o->pool.gid) = n;
		break;
	case 'e':
		ok = parse_number(arg, SHMK_PEERS_MAX, &n) && n;
		o->pool.nr_peers = n;
		break;
	case 'Q':
		ok = parse_number(arg, SHMK_QUEUES_MAX, &n) && n;
		o->pool.nr_queues = n;
		break;
	case 'r':
		ok = parse_size(arg, &o->pool.rings_bytes) && o->pool.rings_bytes;
		break;
	case 'H':
		o->hold = true;
		break;
	case 'E':
		o->exist_ok = true;
		break;
	default:	/* --persist, --exclusive: what it does anyway */
		break;
	}
	return ok ? EXIT_OK : bad_usage("pool", "cannot make sense of '%s'", arg);
}

/* The library says -EINVAL for any of these; a user wants to know which. */
static int check_size(const struct shmk_pool_opts *o)
{
	uint64_t span = (o->unit_bytes ? o->unit_bytes : 256) * (uint64_t)SHMK_SPAN_UNITS;
	uint64_t grain = o->page_bytes > span ? o->page_bytes : span;

	if (!o->bytes)
		return bad_usage("pool", "how large? give --size, such as --size 64M");
	if (o->bytes % grain)
		return bad_usage("pool", "the size must be a multiple of %s", human(grain));
	return EXIT_OK;
}

static int create_failed(const char *uri, const struct shmk_pool_opts *o, int err)
{
	switch (-err) {
	case EEXIST:
		say("pool \"%s\" is there already: use it, or remove it with 'shmk pool rm %s'",
		    uri, uri);
		return EXIT_BUSY;
	case EPERM:
		say("not allowed to make \"%s\" of %s: raise 'ulimit -l' or the module's limits, make it smaller, or ask for no other owner",
		    uri, human(o->bytes));
		return EXIT_PERM;
	case EACCES:
		say("no permission to make \"%s\": see the mode of " SHMK_DEVICE " (or of /dev/shm)", uri);
		return EXIT_PERM;
	case ENOMEM:
	case ENOSPC:
		say("not enough memory for \"%s\" of %s: make it smaller%s", uri, human(o->bytes),
		    o->page_bytes > 4096 ? " or use --page 4K" : "");
		return EXIT_NOSPACE;
	case EOPNOTSUPP:
		say("the local backend has no 2M pages and no NUMA nodes: use shmk:NAME, or leave --page and --node out");
		return EXIT_FAILED;
	case EINVAL:
		say("cannot make \"%s\": a name is up to 63 of A-Za-z0-9._-, not starting with . or -", uri);
		return EXIT_USAGE;
	case ENOENT:
	case ENODEV:
		say("no " SHMK_DEVICE ": load the module with 'modprobe shmk', or use local:NAME");
		return EXIT_NOENT;
	default:
		return fail(err, "cannot make pool \"%s\"", uri);
	}
}

static int same_size(const char *uri, const struct shmk_pool_opts *o)
{
	struct target t = TARGET_INIT;
	struct shmk_pool_stat st;
	struct shmk *s;
	int status;

	if (strlen(uri) >= sizeof(t.pool))
		return bad_usage("pool", "the name '%s' is too long", uri);
	strcpy(t.pool, uri);
	status = target_attach(&t, SHMK_ATTACH_RDONLY, &s);
	if (status)
		return status;
	shmk_pool_stat(s, &st);
	tool_detach(s);
	if (st.bytes == o->bytes)
		return EXIT_OK;
	say("pool \"%s\" is there already, with %s: remove it with 'shmk pool rm %s'", uri,
	    human(st.bytes), uri);
	return EXIT_BUSY;
}

static struct create_opts create_defaults(void)
{
	struct create_opts o = { .pool = { .flags = SHMK_POOL_PERSIST,
					   .uid = getuid(), .gid = getgid() } };

	return o;
}

static int create_one(const char *uri, const struct create_opts *o)
{
	int err = shmk_pool_create(uri, &o->pool);

	if (err == -EEXIST && o->exist_ok)
		return same_size(uri, &o->pool);
	return err < 0 ? create_failed(uri, &o->pool, err) : EXIT_OK;
}

/* A pool for as long as this process, and whoever attaches meanwhile, lives. */
static int create_and_hold(const char *uri, const struct create_opts *o)
{
	struct shmk_attach_opts opts = { .create = &o->pool, .exclusive = !o->exist_ok };
	struct shmk *s;
	int err = shmk_attach(uri, &opts, &s);

	if (err < 0)
		return create_failed(uri, &o->pool, err);
	printf("%s\n", uri);
	fflush(stdout);
	while (!stop_signal)
		pause();
	tool_detach(s);
	return EXIT_OK;
}

static const struct option create_options[] = {
	{ "size", required_argument, NULL, 's' },
	{ "page", required_argument, NULL, 'p' },
	{ "node", required_argument, NULL, 'N' },
	{ "mode", required_argument, NULL, 'm' },
	{ "uid", required_argument, NULL, 'U' },
	{ "gid", required_argument, NULL, 'G' },
	{ "unit", required_argument, NULL, 'u' },
	{ "peers", required_argument, NULL, 'e' },
	{ "queues", required_argument, NULL, 'Q' },
	{ "rings", required_argument, NULL, 'r' },
	{ "persist", no_argument, NULL, 'x' },
	{ "exclusive", no_argument, NULL, 'x' },
	{ "hold", no_argument, NULL, 'H' },
	{ "exist-ok", no_argument, NULL, 'E' },
	{ "pool", required_argument, NULL, 'P' },
	{ "help", no_argument, NULL, 'h' },
	{ }
};

static int create(int argc, char **argv)
{
	struct create_opts o = create_defaults();
	const char *uri = NULL;
	int opt, status;

	while ((opt = next_option(argc, argv, "hs:p:m:", create_options)) != -1) {
		status = EXIT_OK;
		if (opt == 'P')
			uri = optarg;
		else
			status = create_option(&o, opt, optarg);
		if (status)
			return status;
	}
	if (!uri && optind < argc)
		uri = argv[optind++];
	if (!uri || optind < argc)
		return bad_usage("pool", uri ? "one pool at a time" : "which pool?");
	status = check_size(&o.pool);
	if (status)
		return status;
	if (o.hold) {
		o.pool.flags &= ~SHMK_POOL_PERSIST;
		return create_and_hold(uri, &o);
	}
	return create_one(uri, &o);
}

/* ---------------------------------------------------------------- load -- */

#define POOLS_DIR	"/etc/shmk/pools.d"
#define SUFFIX		".conf"

/* "key value" or "key = value"; what options are called. 0, or the option's letter. */
static int split_line(char *line, char **value)
{
	const struct option *o;
	char *key = line + strspn(line, " \t");
	size_t len = strcspn(key, " \t=\n");
	char *v = key + len + strspn(key + len, " \t=");

	v[strcspn(v, "#\n")] = '\0';
	while (*v && isspace((unsigned char)v[strlen(v) - 1]))
		v[strlen(v) - 1] = '\0';
	*value = v;
	for (o = create_options; o->name; o++)
		if (strlen(o->name) == len && !strncmp(o->name, key, len) &&
		    o->has_arg == required_argument && o->val != 'P')
			return o->val;
	return 0;
}

static int load_line(const char *path, unsigned int nr, char *line, struct create_opts *o)
{
	char *value, *text = line + strspn(line, " \t");
	int opt;

	if (!*text || *text == '\n' || *text == '#')
		return EXIT_OK;
	opt = split_line(line, &value);
	if (!opt) {
		say("%s:%u: no such setting: see 'shmk help pool' for size, page, mode, ...", path, nr);
		return EXIT_USAGE;
	}
	if (!*value || create_option(o, opt, value)) {
		say("%s:%u: this is its value", path, nr);
		return EXIT_USAGE;
	}
	return EXIT_OK;
}

/* The pool is called as the file, without ".conf". One that is there, of that size, is fine. */
static int load_file(const char *path)
{
	struct create_opts o = create_defaults();
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	size_t len = strlen(base), room = 0;
	char uri[256], *line = NULL;
	unsigned int nr = 0;
	int status = EXIT_OK;
	FILE *f;

	if (len > strlen(SUFFIX) && !strcmp(base + len - strlen(SUFFIX), SUFFIX))
		len -= strlen(SUFFIX);
	if (len >= sizeof(uri))
		return bad_usage("pool", "%s: the name is too long", path);
	memcpy(uri, base, len);
	uri[len] = '\0';
	f = fopen(path, "re");
	if (!f)
		return fail(-errno, "cannot read %s", path);
	while (status == EXIT_OK && getline(&line, &room, f) >= 0)
		status = load_line(path, ++nr, line, &o);
	if (status == EXIT_OK && ferror(f))
		status = fail(-EIO, "cannot read %s", path);
	free(line);
	fclose(f);
	if (status == EXIT_OK)
		status = check_size(&o.pool);
	o.exist_ok = true;
	if (status == EXIT_OK)
		status = create_one(uri, &o);
	if (status)
		say("%s: no pool was made of this", path);
	return status;
}

static int is_conf(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return d->d_name[0] != '.' && len > strlen(SUFFIX) &&
	       !strcmp(d->d_name + len - strlen(SUFFIX), SUFFIX);
}

/* All of them, whatever comes of one; in the order of their names. */
static int load_dir(const char *dir)
{
	struct dirent **list;
	char path[4096];
	int i, one, status = EXIT_OK, n = scandir(dir, &list, is_conf, alphasort);

	if (n < 0)
		return fail(-errno, "cannot read %s", dir);
	for (i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
		one = load_file(path);
		status = status ? status : one;
		free(list[i]);
	}
	free(list);
	return status;
}

static int load(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "dir", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *dir = NULL;
	int opt, one, status = EXIT_OK;

	while ((opt = next_option(argc, argv, "hd:", longs)) != -1)
		dir = optarg;
	if (dir && optind < argc)
		return bad_usage("pool", "either --dir or files");
	if (optind == argc)
		return load_dir(dir ? dir : POOLS_DIR);
	for (; optind < argc; optind++) {
		one = load_file(argv[optind]);
		status = status ? status : one;
	}
	return status;
}

static int remove_one(const char *uri, bool drain)
{
	int err = drain ? shmk_pool_drain(uri) : shmk_pool_destroy(uri);

	if (!err)
		return EXIT_OK;
	return pool_failed(uri, err, drain ? "drain" : "remove", "removed");
}

static int rm(int argc, char **argv, bool drain)
{
	static const struct option longs[] = {
		{ "pool", required_argument, NULL, 'P' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int opt, one, status = EXIT_OK, n = 0;

	while ((opt = next_option(argc, argv, "h", longs)) != -1) {
		one = remove_one(optarg, drain);
		status = status ? status : one;
		n++;
	}
	for (; optind < argc; optind++, n++) {
		one = remove_one(argv[optind], drain);
		status = status ? status : one;
	}
	return n ? status : bad_usage("pool", "which pool?");
}

int cmd_pool(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "--help") || !strcmp(what, "-h")) {
		usage("pool", stdout);
		return finish_stdout();
	}
	if (argc > 1)
		argv[1] = argv[0];	/* getopt's complaints and --help go by argv[0] */
	if (!strcmp(what, "create"))
		return create(argc - 1, argv + 1);
	if (!strcmp(what, "load"))
		return load(argc - 1, argv + 1);
	if (!strcmp(what, "rm"))
		return rm(argc - 1, argv + 1, false);
	if (!strcmp(what, "drain"))
		return rm(argc - 1, argv + 1, true);
	if (!strcmp(what, "ls"))
		return cmd_ls(argc - 1, argv + 1);
	return bad_usage("pool", *what ? "'%s' is not create, load, rm, drain or ls" :
			 "create, load, rm, drain or ls?%s", what);
}
