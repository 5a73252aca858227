// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk forward
 *
 * A worker between two queues. The block itself moves from one to the other;
 * a kill at any point loses what the worker had in hand, and that is counted
 * as lost and given back to the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "stream.h"
#include "tool.h"

#define MS		1000000LL
#define SLICE_NS	(100 * MS)
#define HOLD_MAX	64

struct forwarder {
	struct target t;
	char to[64];
	struct shmk *s;
	struct shmk_queue *in, *out;
	bool check, verbose;
	int64_t delay_ms;
	uint64_t hold, count;
	struct shmk_msg held[HOLD_MAX];	/* a ring */
	uint64_t taken, passed, damaged;
	int64_t moved_ns;
	bool told;
};

/* A good message, or one that is not of `shmk send` at all. */
static bool sound(const struct shmk_msg *msg)
{
	struct stream_head h;

	return !stream_head_take(&h, msg->data, msg->len) || h.type != STREAM_DATA ||
	       stream_sum((const char *)msg->data + sizeof(h), h.len) == h.sum;
}

static int idle(struct forwarder *f)
{
	if (f->t.timeout_ms < 0 || now_ns() - f->moved_ns <= f->t.timeout_ms * MS)
		return EXIT_OK;
	say("nothing moved for %s: look at 'shmk show %s'", human_ns(f->t.timeout_ms * MS),
	    f->t.pool);
	return EXIT_TIMEOUT;
}

/* Pass on the oldest in hand. A stopped worker tries once more, and then lets go. */
static int pass_one(struct forwarder *f)
{
	struct shmk_msg *msg = &f->held[f->passed % HOLD_MAX];
	int err, status;

	for (;;) {
		err = shmk_send(f->out, msg, stop_signal ? SHMK_TRY : now_ns() + SLICE_NS);
		if (!err)
			break;
		if (err != -ETIMEDOUT && err != -EAGAIN && err != -EINTR)
			return fail(err, "cannot send to %s/%s", f->t.pool, f->to);
		if (stop_signal && err != -EINTR) {
			say("stopped with %" PRIu64 " messages in hand that nobody takes",
			    f->taken - f->passed);
			return EXIT_FAILED;
		}
		status = idle(f);
		if (status)
			return status;
	}
	f->passed++;
	f->moved_ns = now_ns();
	return EXIT_OK;
}

static int work_on(struct forwarder *f, struct shmk_msg *msg)
{
	struct timespec ts = { f->delay_ms / 1000, f->delay_ms % 1000 * MS };

	f->moved_ns = now_ns();
	if (f->check && !sound(msg)) {
		f->damaged++;
		shmk_free(msg);
		return EXIT_OK;
	}
	f->taken++;
	if (f->delay_ms)
		nanosleep(&ts, NULL);
	if (f->verbose && !f->told && f->taken - f->passed > f->hold) {
		say("holding %" PRIu64 " messages", f->taken - f->passed);
		f->told = true;
	}
	return f->taken - f->passed > f->hold ? pass_one(f) : EXIT_OK;
}

static int forward_all(struct forwarder *f)
{
	int err, status = EXIT_OK;

	f->moved_ns = now_ns();
	while (!status && !stop_signal && !(f->count && f->taken == f->count)) {
		err = shmk_recv(f->in, &f->held[f->taken % HOLD_MAX], now_ns() + SLICE_NS);
		if (!err)
			status = work_on(f, &f->held[f->taken % HOLD_MAX]);
		else if (err != -ETIMEDOUT && err != -EAGAIN && err != -EINTR)
			status = fail(err, "cannot receive from %s/%s", f->t.pool, f->t.queue);
		else if (f->passed < f->taken)
			status = pass_one(f);	/* no more for now: hold nothing back */
		else
			status = idle(f);
	}
	shmk_resume(f->s);
	while (!status && f->passed < f->taken)
		status = pass_one(f);
	if (f->verbose)
		say("passed on %" PRIu64 " messages%s", f->passed, status ? ", not all" : "");
	if (f->damaged)
		say("dropped %" PRIu64 " messages with a wrong checksum", f->damaged);
	return status;
}

static int option(struct forwarder *f, const char *verb, int opt, const char *arg)
{
	bool ok = true;

	switch (opt) {
	case 'k':
		f->check = true;
		break;
	case 'v':
		f->verbose = true;
		break;
	case 'D':
		ok = parse_ms(arg, &f->delay_ms);
		break;
	case 'H':
		ok = parse_number(arg, HOLD_MAX - 1, &f->hold);
		break;
	case 'N':
		ok = parse_number(arg, UINT64_MAX, &f->count) && f->count;
		break;
	default:
		return target_option(&f->t, verb, opt, arg) < 0 ? EXIT_USAGE : EXIT_OK;
	}
	return ok ? EXIT_OK : bad_usage(verb, "cannot make sense of '%s'", arg);
}

static int open_both(struct forwarder *f)
{
	int status = target_open(&f->t, f->s, f->t.queue, 256 << 10, &f->in);

	return status ? status : target_open(&f->t, f->s, f->to, 256 << 10, &f->out);
}

int cmd_forward(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_OPTIONS,
		{ "check", no_argument, NULL, 'k' },
		{ "delay", required_argument, NULL, 'D' },
		{ "hold", required_argument, NULL, 'H' },
		{ "count", required_argument, NULL, 'N' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	static struct forwarder f = { .t = TARGET_INIT };
	const char *to;
	int opt, status;

	while ((opt = next_option(argc, argv, "hcws:m:C:t:v", longs)) != -1) {
		status = option(&f, argv[0], opt, optarg);
		if (status)
			return status;
	}
	if (argc - optind != 2)
		return bad_usage(argv[0], "from where to where? give POOL/FROM TO");
	status = target_parse_queue(&f.t, argv[0], argv[optind]);
	if (status)
		return status;
	/* A message stays in its pool; "POOL/TO" is understood if it is the same one. */
	to = argv[optind + 1];
	if (strchr(to, '/')) {
		size_t len = strlen(f.t.pool);

		if (strncmp(to, f.t.pool, len) || to[len] != '/')
			return bad_usage(argv[0], "both queues must be of one pool");
		to += len + 1;
	}
	if (!*to || strlen(to) >= sizeof(f.to))
		return bad_usage(argv[0], "'%s' is no name of a queue", to);
	strcpy(f.to, to);
	status = target_attach(&f.t, 0, &f.s);
	if (status)
		return status;
	status = open_both(&f);
	if (!status)
		status = forward_all(&f);
	tool_detach(f.s);
	return status;
}
