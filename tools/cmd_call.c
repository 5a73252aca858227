// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk call, shmk serve: requests and replies.
 *
 * A server runs a command for each request; what that prints is the reply, and a
 * request is acknowledged when it was answered. So whoever kills the server loses
 * nothing but its work: the request goes to another one, or, after --tries, the caller
 * is told.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "tool.h"

struct service {
	struct target t;
	struct shmk *s;
	struct shmk_queue *q;
	struct shmk_mailbox *mb;	/* call */
	uint64_t retry;			/* call */
	uint64_t tries;			/* serve: of a new queue */
	uint64_t count;			/* serve; 0: no end */
	char **command;			/* serve */
	bool verbose;
};

/* ------------------------------------------------------------- opening -- */

static int open_failed(const struct service *c, int err)
{
	switch (-err) {
	case ENOENT:
	case EAGAIN:
		say("no queue \"%s\" in pool \"%s\": start 'shmk serve %s/%s --create -- COMMAND', or add --wait",
		    c->t.queue, c->t.pool, c->t.pool, c->t.queue);
		return EXIT_NOENT;
	case ETIMEDOUT:
		say("no queue \"%s\" appeared in pool \"%s\" in time", c->t.queue, c->t.pool);
		return EXIT_TIMEOUT;
	default:
		return fail(err, "cannot open queue \"%s\" in pool \"%s\"", c->t.queue, c->t.pool);
	}
}

static int service_open(struct service *c, const char *verb, const char *what)
{
	struct shmk_queue_opts opts = {
		.flags = SHMK_QUEUE_TAGGED | SHMK_QUEUE_REDELIVER, .max_tries = (uint32_t)c->tries,
	};
	const uint32_t needs = opts.flags;
	struct shmk_queue_stats st;
	int err, status = target_parse_queue(&c->t, verb, what);

	if (!status)
		status = target_attach(&c->t, 0, &c->s);
	if (status)
		return status;
	opts.capacity = (uint32_t)c->t.capacity;
	opts.flags |= c->t.create ? SHMK_QUEUE_CREATE : 0;
	err = shmk_queue_open(c->s, c->t.queue, &opts,
			      c->t.wait ? shmk_deadline_ms(c->t.timeout_ms) : SHMK_TRY, &c->q);
	if (err) {
		status = open_failed(c, err);
	} else if (!shmk_queue_stats(c->q, &st) && (st.flags & needs) != needs) {
		say("queue \"%s\" is not for calls: 'shmk serve --create' makes one that is",
		    c->t.queue);
		status = EXIT_USAGE;
	}
	if (status)
		tool_detach(c->s);
	return status;
}

static int option(struct service *c, const char *verb, int opt, const char *arg)
{
	bool ok = true;

	switch (opt) {
	case 'R':
		ok = parse_number(arg, 1000000, &c->retry);
		break;
	case 'T':
		ok = parse_number(arg, 32767, &c->tries);
		break;
	case 'N':
		ok = parse_number(arg, UINT64_MAX, &c->count) && c->count;
		break;
	case 'v':
		c->verbose = true;
		break;
	default:
		return target_option(&c->t, verb, opt, arg) < 0 ? EXIT_USAGE : EXIT_OK;
	}
	return ok ? EXIT_OK : bad_usage(verb, "cannot make sense of '%s'", arg);
}

static int write_all(int fd, const char *buf, size_t len)
{
	while (len) {
		ssize_t n = write(fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		buf += n;
		len -= (size_t)n;
	}
	return 0;
}

/* All bytes of a message, of whatever parts. */
static int write_message(int fd, const struct shmk_msg *msg)
{
	unsigned int i, parts = shmk_msg_parts(msg);
	void *data;
	size_t len;
	int err = parts ? 0 : write_all(fd, msg->data, msg->len);

	for (i = 0; !err && i < parts; i++) {
		err = shmk_msg_part(msg, i, &data, &len);
		if (!err)
			err = write_all(fd, data, len);
	}
	return err;
}

/* What can be read from @fd, in memory of the caller's to free. -errno, and *buf is NULL. */
static int64_t read_all(int fd, char **buf)
{
	size_t room = 0, len = 0;
	ssize_t n = 1;

	*buf = NULL;
	while (n) {
		if (len == room) {
			char *more = realloc(*buf, room ? 2 * room : 4096);

			if (!more) {
				n = -1;
				errno = ENOMEM;
				break;
			}
			*buf = more;
			room = room ? 2 * room : 4096;
		}
		n = read(fd, *buf + len, room - len);
		if (n < 0 && errno == EINTR && !stop_signal)
			n = 1;
		else if (n < 0)
			break;
		else
			len += (size_t)n;
	}
	if (!n)
		return (int64_t)len;
	n = -errno;
	free(*buf);
	*buf = NULL;
	return n;
}

static int message_of(struct shmk *s, const char *text, size_t len, struct shmk_msg *msg)
{
	int err = shmk_alloc(s, len ? len : 1, 0, msg);

	if (err)
		return err;
	if (len)
		memcpy(msg->data, text, len);
	msg->len = len;
	return 0;
}

/* ------------------------------------------------------------- calling -- */

/* The end that the pool tells of a peer who took a message along; it comes with the loss. */
static void tell_death(struct service *c, const char *advice)
{
	int64_t end = shmk_deadline_ms(1000);
	struct shmk_event e, dead = { .type = 0 };
	struct pollfd p = { .fd = shmk_event_fd(c->s), .events = POLLIN };

	do {
		while (!shmk_event_next(c->s, &e))
			if ((e.type == SHMK_EV_DIED || e.type == SHMK_EV_DETACHED) && e.messages)
				dead = e;
	} while (!dead.type && now_ns() < end && poll(&p, 1, 100) >= 0);
	if (dead.type)
		say("the server of \"%s\", pid %d (%.16s), %s%s", c->t.queue, dead.pid, dead.comm,
		    reason_text(dead.reason, dead.code), advice);
	else
		say("the server of \"%s\" died, or gave up%s", c->t.queue, advice);
}

static int call_failed(struct service *c, int err)
{
	switch (-err) {
	case EOWNERDEAD:
		tell_death(c, c->retry ? "; there was no better one" : "; --retry N asks another one");
		return EXIT_FAILED;
	case ETIMEDOUT:
		say("no answer from \"%s\" in time", c->t.queue);
		return EXIT_TIMEOUT;
	default:
		return fail(err, "cannot call \"%s\"", c->t.queue);
	}
}

static int call_one(struct service *c, const char *text, size_t len)
{
	int64_t deadline = shmk_deadline_ms(c->t.timeout_ms);
	struct shmk_msg msg;
	uint64_t again;
	int err;

	for (again = c->retry;; again--) {
		err = message_of(c->s, text, len, &msg);
		if (err)
			return fail(err, "no memory in pool \"%s\" for %zu bytes", c->t.pool, len);
		err = shmk_call(c->mb, c->q, &msg, deadline);
		if (err)
			shmk_free(&msg);
		if (err != -EOWNERDEAD || !again)
			break;
		tell_death(c, "; asking another one");
	}
	if (err)
		return call_failed(c, err);
	err = write_message(STDOUT_FILENO, &msg);
	shmk_free(&msg);
	return err ? fail(err, "cannot write to standard output") : EXIT_OK;
}

static int call_stdin(struct service *c)
{
	char *text;
	int64_t len = read_all(STDIN_FILENO, &text);
	int status;

	if (len < 0)
		return fail((int)len, "cannot read standard input");
	status = call_one(c, text, (size_t)len);
	free(text);
	return status;
}

#define SERVICE_OPTIONS \
	TARGET_OPTIONS, \
	{ "tries", required_argument, NULL, 'T' }, \
	{ "verbose", no_argument, NULL, 'v' }, \
	{ "help", no_argument, NULL, 'h' }

int cmd_call(int argc, char **argv)
{
	static const struct option longs[] = {
		SERVICE_OPTIONS,
		{ "retry", required_argument, NULL, 'R' },
		{ }
	};
	struct service c = { .t = TARGET_INIT, .tries = 1 };
	int opt, err, status = EXIT_OK;

	while ((opt = next_option(argc, argv, "hcws:m:C:t:v", longs)) != -1) {
		status = option(&c, argv[0], opt, optarg);
		if (status)
			return status;
	}
	if (optind == argc)
		return bad_usage(argv[0], "whom? give POOL/QUEUE");
	status = service_open(&c, argv[0], argv[optind++]);
	if (status)
		return status;
	err = shmk_mailbox_open(c.s, NULL, &c.mb);
	if (err) {
		status = fail(err, "no mailbox in pool \"%s\"", c.t.pool);
	} else {
		if (optind == argc)
			status = call_stdin(&c);
		for (; optind < argc && !status; optind++)
			status = call_one(&c, argv[optind], strlen(argv[optind]));
		shmk_mailbox_close(c.mb);
	}
	tool_detach(c.s);
	return status;
}

/* ------------------------------------------------------------- serving -- */

/* The request is its standard input. It ends with us; it is no peer of anything. */
static void command_exec(const struct service *c, int in, int out)
{
	sigset_t none;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(127);
	execvp(c->command[0], c->command);
	say("cannot run '%s': %s", c->command[0], strerror(errno));
	_exit(127);
}

static int64_t command_run(const struct service *c, const struct shmk_msg *request, char **reply)
{
	int out[2], in = memfd_create("request", MFD_CLOEXEC), status = 0;
	int64_t len = in < 0 ? -errno : write_message(in, request);
	pid_t pid;

	*reply = NULL;
	if (!len && (lseek(in, 0, SEEK_SET) || pipe2(out, O_CLOEXEC)))
		len = -errno;
	if (len) {
		if (in >= 0)
			close(in);
		return len;
	}
	pid = fork();
	if (!pid)
		command_exec(c, in, out[1]);
	len = pid < 0 ? -errno : 0;
	close(in);
	close(out[1]);
	if (!len)
		len = read_all(out[0], reply);
	close(out[0]);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		say("'%s' %s %d", c->command[0], WIFSIGNALED(status) ? "was killed by signal" :
		    "ended with status", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return len;
}

/* The request is answered, and gone, or given back by the end of this process. */
static int serve_one(struct service *c, struct shmk_msg *request)
{
	uint32_t from = request->sender, again = request->redelivered;
	struct shmk_msg reply;
	char *text;
	int64_t len = command_run(c, request, &text);
	int err = len < 0 ? (int)len : message_of(c->s, text, (size_t)len, &reply);

	free(text);
	if (err)
		return fail(err, "cannot answer a request to \"%s\"", c->t.queue);
	err = shmk_reply(request, &reply, shmk_deadline_ms(c->t.timeout_ms));
	if (err)
		shmk_free(&reply);
	if (c->verbose)
		say("%" PRId64 " bytes for peer %u%s%s", len, from, again ? ", once more" : "",
		    err == -EPIPE ? ", who is gone" : "");
	return err && err != -EPIPE ? fail(err, "cannot answer peer %u", from) : EXIT_OK;
}

static int serve(struct service *c)
{
	struct shmk_msg request;
	uint64_t nr = 0;
	int err = 0, status = EXIT_OK;

	if (c->verbose)
		say("serving \"%s\"", c->t.queue);
	while (!status && (!c->count || nr < c->count)) {
		err = shmk_recv(c->q, &request, shmk_deadline_ms(c->t.timeout_ms));
		if (err)
			break;
		status = serve_one(c, &request);
		nr++;
	}
	if (status || !err || err == -ESHUTDOWN || (err == -EINTR && stop_signal && !c->count))
		return status;
	if (err != -ETIMEDOUT)
		return fail(err, "cannot receive from \"%s\"", c->t.queue);
	if (!c->count)
		return EXIT_OK;		/* so long and no longer was what was asked for */
	say("%" PRIu64 " of %" PRIu64 " requests came", nr, c->count);
	return EXIT_TIMEOUT;
}

int cmd_serve(int argc, char **argv)
{
	static const struct option longs[] = {
		SERVICE_OPTIONS,
		{ "count", required_argument, NULL, 'N' },
		{ }
	};
	struct service c = { .t = TARGET_INIT, .tries = 1 };
	int opt, status;

	while ((opt = next_option(argc, argv, "+hcws:m:C:t:vn:", longs)) != -1) {
		status = option(&c, argv[0], opt == 'n' ? 'N' : opt, optarg);
		if (status)
			return status;
	}
	if (optind == argc)
		return bad_usage(argv[0], "which queue? give POOL/QUEUE -- COMMAND");
	status = optind++;
	/* Options may also stand behind the queue, up to "--". */
	while (optind < argc && strcmp(argv[optind - 1], "--") &&
	       (opt = next_option(argc, argv, "+hcws:m:C:t:vn:", longs)) != -1) {
		int bad = option(&c, argv[0], opt == 'n' ? 'N' : opt, optarg);

		if (bad)
			return bad;
	}
	if (optind == argc)
		return bad_usage(argv[0], "which command? give POOL/QUEUE -- COMMAND");
	c.command = &argv[optind];
	status = service_open(&c, argv[0], argv[status]);
	if (status)
		return status;
	status = serve(&c);
	tool_detach(c.s);
	return status;
}
