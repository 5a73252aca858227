// SPDX-License-Identifier: GPL-2.0-only
/*
 * target.c - from "POOL/QUEUE" and options to an attachment and an open queue.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "tool.h"

#define DEFAULT_POOL_BYTES	(16ULL << 20)

volatile sig_atomic_t stop_signal;
static struct shmk *attached;

/* ------------------------------------------------------------ signals -- */

static void on_signal(int sig)
{
	stop_signal = sig;
	if (attached)
		shmk_interrupt(attached);
}

void catch_signals(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal }, old;

	sigemptyset(&sa.sa_mask);
	for (unsigned int i = 0; i < sizeof(sigs) / sizeof(sigs[0]); i++) {
		/* nohup and background jobs have some ignored; leave it so. */
		sigaction(sigs[i], NULL, &old);
		if (old.sa_handler != SIG_IGN)
			sigaction(sigs[i], &sa, NULL);
	}
}

/* ------------------------------------------------------------ parsing -- */

int target_option(struct target *t, const char *verb, int opt, const char *arg)
{
	bool ok = true;

	switch (opt) {
	case 'P':
		ok = *arg && strlen(arg) < sizeof(t->pool);
		if (ok)
			strcpy(t->pool, arg);
		break;
	case 'c':
		t->create = true;
		break;
	case 'w':
		t->wait = true;
		break;
	case 's':
		ok = parse_size(arg, &t->size) && t->size;
		break;
	case 'p': {
		uint64_t bytes;

		ok = parse_size(arg, &bytes) && (bytes == 4096 || bytes == 2 << 20);
		if (ok)
			t->page_bytes = bytes;
		break;
	}
	case 'm':
		ok = parse_mode(arg, &t->mode);
		break;
	case 'C':
		ok = parse_number(arg, SHMK_CAPACITY_MAX, &t->capacity) && t->capacity &&
		     !(t->capacity & (t->capacity - 1));
		break;
	case 't':
		ok = parse_ms(arg, &t->timeout_ms);
		break;
	default:
		return 0;
	}
	if (ok)
		return 1;
	if (opt == 'C')
		bad_usage(verb, "a capacity is a power of two up to %u, not '%s'",
			  SHMK_CAPACITY_MAX, arg);
	else if (opt == 'p')
		bad_usage(verb, "a page is 4K or 2M, not '%s'", arg);
	else
		bad_usage(verb, "cannot make sense of '%s'", arg);
	return -1;
}

int target_parse_pool(struct target *t, const char *verb, int argc, char **argv)
{
	if (!t->pool[0]) {
		if (optind == argc)
			return bad_usage(verb, "which pool?");
		if (strlen(argv[optind]) >= sizeof(t->pool))
			return bad_usage(verb, "the name '%s' is too long", argv[optind]);
		strcpy(t->pool, argv[optind++]);
	}
	if (optind < argc)
		return bad_usage(verb, "'%s' is one argument too many", argv[optind]);
	return EXIT_OK;
}

int target_parse_queue(struct target *t, const char *verb, const char *text)
{
	const char *slash = strrchr(text, '/');
	const char *queue = text;

	if (!t->pool[0]) {
		if (!slash || slash == text)
			return bad_usage(verb, "'%s' is not POOL/QUEUE", text);
		if ((size_t)(slash - text) >= sizeof(t->pool))
			return bad_usage(verb, "the name '%s' is too long", text);
		memcpy(t->pool, text, slash - text);
		queue = slash + 1;
	}
	if (!*queue || strlen(queue) >= sizeof(t->queue))
		return bad_usage(verb, "'%s' is no name of a queue", queue);
	strcpy(t->queue, queue);
	return EXIT_OK;
}

/* ---------------------------------------------------------- attaching -- */

/* Would this URI go to the module, and is there none? */
static bool no_module(const char *uri)
{
	return !strncmp(uri, "shmk:", 5) && access(SHMK_DEVICE, F_OK);
}

int say_no_pool(const char *uri)
{
	if (no_module(uri))
		say("no " SHMK_DEVICE ": load the module with 'modprobe shmk', or use local:NAME");
	else
		say("no pool \"%s\": see 'shmk ls' for those there are", uri);
	return EXIT_NOENT;
}

int pool_failed(const char *uri, int err, const char *verb, const char *done)
{
	switch (-err) {
	case ENOENT:
	case ENODEV:
		return say_no_pool(uri);
	case EBUSY:
		return say_busy(uri, done, NULL);
	case EPERM:
	case EACCES:
		say("pool \"%s\" is not yours: ask its owner, see 'shmk ls'", uri);
		return EXIT_PERM;
	case EINVAL:
		say("\"%s\" is no name of a pool: see 'shmk ls' for those there are", uri);
		return EXIT_USAGE;
	default:
		return fail(err, "cannot %s pool \"%s\"", verb, uri);
	}
}

static int attach_failed(const struct target *t, int err)
{
	const char *size = human(t->size ? t->size : DEFAULT_POOL_BYTES);

	if (no_module(t->pool))
		return say_no_pool(t->pool);
	switch (-err) {
	case ENOENT:
		say("no pool \"%s\": create it with 'shmk pool create %s --size 64M'",
		    t->pool, t->pool);
		return EXIT_NOENT;
	case ESHUTDOWN:
		say("pool \"%s\" is being drained, one may only look at it: see 'shmk show %s' for who has it",
		    t->pool, t->pool);
		return EXIT_BUSY;
	case ETIMEDOUT:
		say("no pool \"%s\" appeared in time: create it with 'shmk pool create %s --size 64M'",
		    t->pool, t->pool);
		return EXIT_TIMEOUT;
	case EACCES:
	case EPERM:
		if (t->create && err == -EPERM)
			say("pool \"%s\" of %s exceeds a limit: raise 'ulimit -l' or the module's, or make it smaller",
			    t->pool, size);
		else
			say("no permission for pool \"%s\": ask its owner for another mode, see 'shmk ls'",
			    t->pool);
		return EXIT_PERM;
	case ENOMEM:
		say("not enough memory for pool \"%s\" of %s: make it smaller with --size",
		    t->pool, size);
		return EXIT_NOSPACE;
	case ENOSPC:
		say("pool \"%s\" has no room for one more peer: look at who is there with 'shmk show %s'",
		    t->pool, t->pool);
		return EXIT_NOSPACE;
	case EINVAL:
		if (t->create)
			say("cannot make a pool \"%s\" of %s: a name is up to 63 of A-Za-z0-9._-, a size a multiple of 64K",
			    t->pool, size);
		else
			say("\"%s\" is no name of a pool: use up to 63 of A-Za-z0-9._-, with shmk: or local: before it",
			    t->pool);
		return EXIT_USAGE;
	default:
		return fail(err, "cannot attach to pool \"%s\"", t->pool);
	}
}

int target_attach(struct target *t, uint32_t flags, struct shmk **out)
{
	struct shmk_pool_opts pool = {
		.bytes = t->size ? t->size : DEFAULT_POOL_BYTES,
		.page_bytes = t->page_bytes,
		.mode = t->mode,
	};
	struct shmk_attach_opts opts = {
		.flags = flags,
		.create = t->create ? &pool : NULL,
		.deadline = t->wait ? shmk_deadline_ms(t->timeout_ms) : SHMK_TRY,
	};
	int err = shmk_attach(t->pool, &opts, out);

	/* Two that make the same pool at the same moment: one of them finds it. */
	if (err == -EEXIST)
		err = shmk_attach(t->pool, &opts, out);
	if (err < 0)
		return attach_failed(t, err);
	attached = *out;
	if (stop_signal)
		shmk_interrupt(attached);
	return EXIT_OK;
}

void tool_detach(struct shmk *s)
{
	attached = NULL;
	shmk_detach(s);
}

/*
 * A queue that may hold a quarter of the pool: a second queue behind it and
 * what everybody has in hand still find room.
 */
static uint32_t default_capacity(struct shmk *s, uint32_t block)
{
	struct shmk_pool_stat st;
	uint32_t capacity = 4;

	if (!block || shmk_pool_stat(s, &st) < 0)
		return 0;
	while (capacity < 64 && (uint64_t)capacity * 2 * block * 4 <= st.bytes)
		capacity *= 2;
	return capacity;
}

int target_open(struct target *t, struct shmk *s, const char *queue, uint32_t block,
		struct shmk_queue **out)
{
	struct shmk_queue_opts opts = {
		.flags = t->create ? SHMK_QUEUE_CREATE : 0,
		.capacity = t->capacity ? t->capacity : default_capacity(s, block),
	};
	int64_t deadline = t->wait ? shmk_deadline_ms(t->timeout_ms) : SHMK_TRY;
	int err = shmk_queue_open(s, queue, &opts, deadline, out);

	switch (-err) {
	case ENOENT:
	case EAGAIN:
		say("no queue \"%s\" in pool \"%s\": add --create, or --wait for somebody to make it",
		    queue, t->pool);
		return EXIT_NOENT;
	case ETIMEDOUT:
		say("no queue \"%s\" appeared in pool \"%s\" in time: add --create", queue, t->pool);
		return EXIT_TIMEOUT;
	case ENOSPC:
	case ENOMEM:
		say("pool \"%s\" has no room for queue \"%s\": remove one with 'shmk queue rm', or use a smaller --capacity",
		    t->pool, queue);
		return EXIT_NOSPACE;
	case EINVAL:
		say("cannot open queue \"%s\": a name is up to 63 of A-Za-z0-9._-", queue);
		return EXIT_USAGE;
	default:
		if (err < 0)
			return fail(err, "cannot open queue \"%s\" in pool \"%s\"", queue, t->pool);
		return EXIT_OK;
	}
}

int say_busy(const char *uri, const char *what, const char *hint)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_peer peer, first = { };
	unsigned int n = 0;
	char look[160];
	struct shmk *s;

	snprintf(look, sizeof(look), "see 'shmk show %s'", uri);
	hint = hint ? hint : look;
	if (shmk_attach(uri, &opts, &s) < 0)
		goto tell;
	for (uint32_t id = 0; !shmk_peer_next(s, id, &peer); id = peer.id + 1)
		if (peer.id != shmk_self(s) && !peer.dead && !n++)
			first = peer;
	shmk_detach(s);
tell:
	if (!n)		/* gone by now, or not for us to see */
		say("pool \"%s\" is in use and was not %s: %s", uri, what, hint);
	else if (n == 1)
		say("pool \"%s\" was not %s: pid %d (%s) has it, as peer %u; %s", uri, what, first.pid,
		    comm_text(first.comm), first.id, hint);
	else
		say("pool \"%s\" was not %s: pid %d (%s) and %u more have it; %s", uri, what,
		    first.pid, comm_text(first.comm), n - 1, hint);
	return EXIT_BUSY;
}

unsigned int other_members(struct shmk *s)
{
	struct shmk_peer peer;
	unsigned int n = 0;

	for (uint32_t id = 0; !shmk_peer_next(s, id, &peer); id = peer.id + 1)
		n += peer.id != shmk_self(s) && !peer.dead && !peer.rdonly;
	return n;
}
