// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk pub, shmk sub: lines of text through a topic.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tool.h"

#define MS	1000000LL

struct topic {
	struct target t;
	struct shmk_topic_opts opts;
	struct shmk *s;
	struct shmk_topic *topic;
	bool verbose;
	int64_t every_ms;		/* pub */
	uint64_t count;			/* sub; 0: no end */
	struct shmk_sub_opts sub;
};

static int64_t deadline(const struct topic *p)
{
	return shmk_deadline_ms(p->t.timeout_ms);
}

/* ------------------------------------------------------------- opening -- */

static int open_failed(struct topic *p, int err)
{
	switch (-err) {
	case ENOENT:
	case EAGAIN:
		say("no topic \"%s\" in pool \"%s\": add --create, or --wait for somebody to make it",
		    p->t.queue, p->t.pool);
		return EXIT_NOENT;
	case ETIMEDOUT:
		say("no topic \"%s\" appeared in pool \"%s\" in time: add --create",
		    p->t.queue, p->t.pool);
		return EXIT_TIMEOUT;
	case ENOMEM:
	case E2BIG:
	case ENOSPC:
		say("pool \"%s\" has no room for topic \"%s\": use a smaller --depth, --readers or --max, or a larger pool",
		    p->t.pool, p->t.queue);
		return EXIT_NOSPACE;
	case EINVAL:
		say("cannot open topic \"%s\": it is a queue, or that is no name, or --depth or --readers is too large",
		    p->t.queue);
		return EXIT_USAGE;
	default:
		return fail(err, "cannot open topic \"%s\" in pool \"%s\"", p->t.queue, p->t.pool);
	}
}

static int topic_open(struct topic *p, const char *verb, const char *what)
{
	int err, status = target_parse_queue(&p->t, verb, what);

	if (!status)
		status = target_attach(&p->t, 0, &p->s);
	if (status)
		return status;
	p->opts.flags = p->t.create ? SHMK_TOPIC_CREATE : 0;
	err = shmk_topic_open(p->s, p->t.queue, &p->opts, p->t.wait ? deadline(p) : SHMK_TRY,
			      &p->topic);
	if (!err)
		return EXIT_OK;
	status = open_failed(p, err);
	tool_detach(p->s);
	return status;
}

/* ---------------------------------------------------------- publishing -- */

static int publish(struct topic *p, const char *text, size_t len)
{
	struct timespec pause = { p->every_ms / 1000, p->every_ms % 1000 * MS };
	int err = shmk_topic_publish_copy(p->topic, text, len, deadline(p));

	if (err == -EMSGSIZE)
		return fail(err, "a line of %zu bytes is too long for topic \"%s\"", len, p->t.queue);
	if (err == -ETIMEDOUT) {
		say("a reader of topic \"%s\" that is waited for did not read in time", p->t.queue);
		return EXIT_TIMEOUT;
	}
	if (err)
		return fail(err, "cannot publish on topic \"%s\"", p->t.queue);
	if (p->every_ms)
		nanosleep(&pause, NULL);
	return EXIT_OK;
}

static int publish_lines(struct topic *p)
{
	int status = EXIT_OK;
	char *line = NULL;
	size_t room = 0;
	ssize_t len;

	while (!status && !stop_signal && (len = getline(&line, &room, stdin)) >= 0)
		status = publish(p, line, (size_t)len - (len && line[len - 1] == '\n'));
	free(line);
	return status;
}

static int become_writer(struct topic *p)
{
	int err = shmk_topic_writer(p->topic, p->t.wait ? deadline(p) : SHMK_TRY);

	if (err != -EBUSY && err != -ETIMEDOUT)
		return err ? fail(err, "cannot write topic \"%s\"", p->t.queue) : EXIT_OK;
	say("topic \"%s\" has a writer: --wait until it ends, see 'shmk show %s'", p->t.queue,
	    p->t.pool);
	return err == -EBUSY ? EXIT_BUSY : EXIT_TIMEOUT;
}

static int option(struct topic *p, const char *verb, int opt, const char *arg)
{
	uint64_t n = 0;
	bool ok = true;

	switch (opt) {
	case 'D':
		ok = parse_number(arg, 65536, &n) && n;
		p->opts.depth = (uint32_t)n;
		break;
	case 'R':
		ok = parse_number(arg, 4096, &n) && n;
		p->opts.nr_readers = (uint32_t)n;
		break;
	case 'M':
		ok = parse_size(arg, &n) && n && n <= UINT32_MAX;
		p->opts.msg_bytes = (uint32_t)n;
		break;
	case 'E':
		ok = parse_ms(arg, &p->every_ms);
		break;
	case 'N':
		ok = parse_number(arg, UINT64_MAX, &p->count) && p->count;
		break;
	case 'l':
		p->sub.start = SHMK_START_LAST;
		break;
	case 'o':
		p->sub.start = SHMK_START_OLDEST;
		break;
	case 'b':
		p->sub.wait = true;
		break;
	case 'v':
		p->verbose = true;
		break;
	default:
		return target_option(&p->t, verb, opt, arg) < 0 ? EXIT_USAGE : EXIT_OK;
	}
	return ok ? EXIT_OK : bad_usage(verb, "cannot make sense of '%s'", arg);
}

#define TOPIC_OPTIONS \
	TARGET_OPTIONS, \
	{ "depth", required_argument, NULL, 'D' }, \
	{ "readers", required_argument, NULL, 'R' }, \
	{ "max", required_argument, NULL, 'M' }, \
	{ "verbose", no_argument, NULL, 'v' }, \
	{ "help", no_argument, NULL, 'h' }

int cmd_pub(int argc, char **argv)
{
	static const struct option longs[] = {
		TOPIC_OPTIONS,
		{ "every", required_argument, NULL, 'E' },
		{ }
	};
	struct topic p = { .t = TARGET_INIT };
	int opt, status = EXIT_OK;

	while ((opt = next_option(argc, argv, "hcws:m:t:v", longs)) != -1) {
		status = option(&p, argv[0], opt, optarg);
		if (status)
			return status;
	}
	if (optind == argc)
		return bad_usage(argv[0], "which topic? give POOL/TOPIC");
	status = topic_open(&p, argv[0], argv[optind++]);
	if (status)
		return status;
	status = become_writer(&p);
	if (!status && optind == argc)
		status = publish_lines(&p);
	for (; optind < argc && !status; optind++)
		status = publish(&p, argv[optind], strlen(argv[optind]));
	tool_detach(p.s);
	return status;
}

/* ------------------------------------------------------------- reading -- */

static void print(const struct topic *p, const struct shmk_held *held)
{
	if (p->verbose)
		printf("%" PRIu64 " of peer %u%s, %" PRIu64 " missed: ", held->seq, held->writer,
		       held->writer_alive ? "" : " (gone)", held->dropped);
	fwrite(held->data, 1, held->len, stdout);
	putchar('\n');
	fflush(stdout);
}

static int read_all(struct topic *p)
{
	struct shmk_held held;
	struct shmk_sub *sub;
	uint64_t nr = 0;
	int err = shmk_topic_subscribe(p->topic, &p->sub, &sub);

	if (err == -ENOSPC) {
		say("topic \"%s\" has all the readers it was made for: see --readers", p->t.queue);
		return EXIT_NOSPACE;
	}
	if (err)
		return fail(err, "cannot read topic \"%s\"", p->t.queue);
	if (p->verbose)
		say("reading topic \"%s\"", p->t.queue);
	while (!p->count || nr < p->count) {
		err = shmk_topic_take(sub, &held, deadline(p));
		if (err)
			break;
		print(p, &held);
		shmk_topic_release(&held);
		nr++;
	}
	shmk_topic_unsubscribe(sub);
	if (!err || (err == -EINTR && stop_signal && !p->count))
		return EXIT_OK;
	if (err != -ETIMEDOUT)
		return fail(err, "cannot read topic \"%s\"", p->t.queue);
	if (!p->count)
		return EXIT_OK;		/* so long and no longer was what was asked for */
	say("%" PRIu64 " of %" PRIu64 " messages came", nr, p->count);
	return EXIT_TIMEOUT;
}

int cmd_sub(int argc, char **argv)
{
	static const struct option longs[] = {
		TOPIC_OPTIONS,
		{ "count", required_argument, NULL, 'N' },
		{ "last", no_argument, NULL, 'l' },
		{ "oldest", no_argument, NULL, 'o' },
		{ "block", no_argument, NULL, 'b' },
		{ }
	};
	struct topic p = { .t = TARGET_INIT };
	int opt, status;

	while ((opt = next_option(argc, argv, "hcws:m:t:vn:", longs)) != -1) {
		status = option(&p, argv[0], opt == 'n' ? 'N' : opt, optarg);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return bad_usage(argv[0], "which topic? give POOL/TOPIC");
	status = topic_open(&p, argv[0], argv[optind]);
	if (status)
		return status;
	status = read_all(&p);
	tool_detach(p.s);
	return status ? status : finish_stdout();
}
