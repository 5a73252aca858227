// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk chaos N
 *
 * N processes; each publishes a growing value on a topic of its own and reads the
 * last value of all others. They are killed, stopped and started again by keys or by a
 * script, and the values flow on. Three things must not happen, and are counted:
 *   torn    a value whose words do not belong together,
 *   back    a value smaller than one that the same reader has seen before; who is
 *           started again goes on from the last value it finds in its topic,
 *   still   a value of a living process that does not move, for whoever looks.
 *
 * What the workers count stands on a board, memory of the parent's that they write a
 * word at a time; the values themselves go through the pool.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "tool.h"

#define MS		1000000LL
#define WORKERS_MAX	36
#define TICK_MS		20
#define DRAW_EVERY	5	/* ticks */
#define VALUE_WORDS	48

struct value {
	uint64_t n;
	uint64_t word[VALUE_WORDS];	/* a function of n */
};

struct row {
	uint64_t published;		/* in this life */
	uint64_t reads;
	uint64_t torn;
	uint64_t back;
	uint64_t seen[WORKERS_MAX];	/* the last value of each other */
};

/* The parent's view of a value and who should see it move. */
struct watch {
	uint64_t n;
	int64_t moved_ns;
	bool still;			/* told */
};

struct chaos {
	struct target t;
	struct shmk *s;
	unsigned int nr;
	int64_t pace_ms, patience_ms;
	const char *script;
	bool keys;
	struct row *board;
	pid_t pid[WORKERS_MAX];		/* 0: killed */
	bool stopped[WORKERS_MAX];
	struct shmk_topic *topic[WORKERS_MAX];
	struct watch watch[WORKERS_MAX][WORKERS_MAX];	/* [reader][writer], own: as the parent sees it */
	struct row own, gone;		/* the parent's reads; what those that were replaced had counted */
	uint64_t kills, starts, stills;
};

static char digit(unsigned int i)
{
	return "0123456789abcdefghijklmnopqrstuvwxyz"[i];
}

static int worker_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'z' ? c - 'a' + 10 : -1;
}

/* ------------------------------------------------------------- values -- */

static uint64_t mix(uint64_t n, unsigned int i)
{
	return (n + i) * 0x9e3779b97f4a7c15ULL;
}

static void value_make(struct value *v, uint64_t n)
{
	v->n = n;
	for (unsigned int i = 0; i < VALUE_WORDS; i++)
		v->word[i] = mix(n, i);
}

static bool value_whole(const struct value *v)
{
	for (unsigned int i = 0; i < VALUE_WORDS; i++)
		if (v->word[i] != mix(v->n, i))
			return false;
	return true;
}

static int topic_open(struct chaos *c, struct shmk *s, unsigned int i, struct shmk_topic **out)
{
	struct shmk_topic_opts opts = {
		.flags = SHMK_TOPIC_CREATE, .nr_readers = 1, .msg_bytes = sizeof(struct value),
	};
	char name[16];
	int err;

	snprintf(name, sizeof(name), "chaos.%c", digit(i));
	err = shmk_topic_open(s, name, &opts, SHMK_TRY, out);
	return err ? fail(err, "cannot open topic \"%s\" in pool \"%s\"", name, c->t.pool) : EXIT_OK;
}

/* One look at the last value of @i; what is wrong with it is counted in @row. */
static void look(struct row *row, struct shmk_topic *topic, unsigned int i)
{
	struct value v;
	int64_t len = shmk_topic_read_last(topic, &v, sizeof(v), NULL);

	if (len == -EAGAIN)		/* nothing was ever published */
		return;
	row->reads++;
	if (len != sizeof(v) || !value_whole(&v))
		row->torn++;
	else if (v.n < row->seen[i])
		row->back++;
	else
		__atomic_store_n(&row->seen[i], v.n, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------- workers -- */

static void work(struct chaos *c, unsigned int me, struct shmk_topic **topic)
{
	struct timespec pace = { .tv_nsec = c->pace_ms * MS };
	struct row *row = &c->board[me];
	struct value v;

	while (!stop_signal) {
		value_make(&v, row->seen[me] + 1);
		if (shmk_topic_publish_copy(topic[me], &v, sizeof(v), SHMK_TRY))
			exit(EXIT_FAILED);
		row->seen[me]++;
		row->published++;
		for (unsigned int i = 0; i < c->nr; i++)
			if (i != me)
				look(row, topic[i], i);
		nanosleep(&pace, NULL);
	}
}

static int worker(struct chaos *c, unsigned int me)
{
	struct shmk_topic *topic[WORKERS_MAX];
	struct shmk *s;
	int err, status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGINT, SIG_IGN);	/* at a terminal it is the parent's to end us */
	tool_detach(c->s);		/* only forgets: the parent is the peer */
	c->t.create = false;
	status = target_attach(&c->t, 0, &s);
	for (unsigned int i = 0; !status && i < c->nr; i++)
		status = topic_open(c, s, i, &topic[i]);
	if (status)
		return status;
	/* The one before may be dead and not settled yet. */
	err = shmk_topic_writer(topic[me], shmk_deadline_ms(10000));
	if (err)
		return fail(err, "cannot write topic \"chaos.%c\"", digit(me));
	look(&c->board[me], topic[me], me);
	work(c, me, topic);
	tool_detach(s);
	return EXIT_OK;
}

/* Counts outlive the life in which they were made; a new life has seen nothing. */
static void row_retire(struct chaos *c, unsigned int i)
{
	struct row *row = &c->board[i];

	c->gone.published += row->published;
	c->gone.reads += row->reads;
	c->gone.torn += row->torn;
	c->gone.back += row->back;
	memset(row, 0, sizeof(*row));
}

/* All that is watched from or at @i counts from now. */
static void watch_anew(struct chaos *c, unsigned int i)
{
	for (unsigned int j = 0; j < c->nr; j++) {
		c->watch[i][j].moved_ns = c->watch[j][i].moved_ns = now_ns();
		c->watch[i][j].still = c->watch[j][i].still = false;
	}
}

static int start(struct chaos *c, unsigned int i)
{
	fflush(stdout);
	row_retire(c, i);
	c->pid[i] = fork();
	if (c->pid[i] < 0) {
		c->pid[i] = 0;
		return fail(-errno, "cannot start process %c", digit(i));
	}
	if (!c->pid[i])
		_exit(worker(c, i));
	c->stopped[i] = false;
	watch_anew(c, i);
	return EXIT_OK;
}

static void stop(struct chaos *c, unsigned int i, bool stopped)
{
	kill(c->pid[i], stopped ? SIGSTOP : SIGCONT);
	c->stopped[i] = stopped;
	watch_anew(c, i);
}

static void kill_one(struct chaos *c, unsigned int i)
{
	kill(c->pid[i], SIGKILL);
	waitpid(c->pid[i], NULL, 0);
	c->pid[i] = 0;
	c->kills++;
}

/* ------------------------------------------------------------- watching -- */

static bool runs(const struct chaos *c, unsigned int i)
{
	return c->pid[i] && !c->stopped[i];
}

static void watch_one(struct chaos *c, unsigned int reader, unsigned int writer, uint64_t n)
{
	struct watch *w = &c->watch[reader][writer];
	int64_t now = now_ns();

	if (n != w->n || !runs(c, reader) || !runs(c, writer)) {
		w->n = n;
		w->moved_ns = now;
		w->still = false;
	} else if (!w->still && now - w->moved_ns > c->patience_ms * MS) {
		w->still = true;
		c->stills++;
		say("process %c lives, but %c sees its value stand still at %" PRIu64,
		    digit(writer), reader == writer ? '-' : digit(reader), n);
	}
}

/* Nobody but us kills them; one that ended by itself has told why. */
static int watch_children(struct chaos *c)
{
	int status;

	for (unsigned int i = 0; i < c->nr; i++) {
		if (!c->pid[i] || waitpid(c->pid[i], &status, WNOHANG) != c->pid[i])
			continue;
		c->pid[i] = 0;
		say("process %c has ended by itself", digit(i));
		return EXIT_FAILED;
	}
	return EXIT_OK;
}

static int watch(struct chaos *c)
{
	for (unsigned int i = 0; i < c->nr; i++) {
		look(&c->own, c->topic[i], i);
		watch_one(c, i, i, c->own.seen[i]);
		for (unsigned int j = 0; j < c->nr; j++)
			if (j != i)
				watch_one(c, i, j,
					  __atomic_load_n(&c->board[i].seen[j], __ATOMIC_RELAXED));
	}
	return watch_children(c);
}

static void draw(struct chaos *c)
{
	fputs("\033[H\033[J0-9 a-z: kill or start again; ESC: end\n\n", stdout);
	for (unsigned int i = 0; i < c->nr; i++) {
		const struct row *row = &c->board[i];

		printf(" %c  %-7s  value %-10" PRIu64 "  reads %-10" PRIu64 "  torn %" PRIu64
		       "  back %" PRIu64 "\n", digit(i), c->pid[i] ? c->stopped[i] ? "stopped" :
		       "alive" : "dead", c->own.seen[i], row->reads, row->torn, row->back);
	}
	fflush(stdout);
}

/* ------------------------------------------------------------- commands -- */

static int command_for(struct chaos *c, const char *verb, unsigned int i)
{
	uint64_t last = c->own.seen[i];
	pid_t pid = c->pid[i];
	int status = EXIT_OK;

	if (!strcmp(verb, "toggle"))
		verb = pid ? "kill" : "start";
	if (!strcmp(verb, "start") ? pid != 0 : pid == 0)
		return EXIT_OK;		/* as it is */
	if (!strcmp(verb, "kill")) {
		kill_one(c, i);
	} else if (!strcmp(verb, "start")) {
		status = start(c, i);
		c->starts++;
	} else {
		stop(c, i, !strcmp(verb, "stop"));
	}
	if (!c->keys && !status)
		printf("%s %c at %" PRIu64 "\n", verb, digit(i), last);
	return status;
}

static int wait_and_watch(struct chaos *c, int64_t ms)
{
	struct timespec tick = { .tv_nsec = TICK_MS * MS };
	int64_t end = now_ns() + ms * MS;
	int status;

	do {
		status = watch(c);
		if (now_ns() < end)
			nanosleep(&tick, NULL);
	} while (!status && !stop_signal && now_ns() < end);
	return status;
}

static int command(struct chaos *c, char *text)
{
	static const char *const verbs[] = { "kill", "start", "toggle", "stop", "cont" };
	char *verb = strtok(text, " \t\n"), *arg = strtok(NULL, " \t\n");
	unsigned int first = 0, last = c->nr - 1;
	int64_t ms;
	int status = EXIT_OK;

	if (!verb)
		return EXIT_OK;
	if (!strcmp(verb, "wait") && arg && parse_ms(arg, &ms))
		return wait_and_watch(c, ms);
	if (!verb[1] && !arg) {		/* a digit, as at the keyboard */
		arg = verb;
		verb = "toggle";
	}
	if (arg && strcmp(arg, "all")) {
		int i = arg[1] ? -1 : worker_of(arg[0]);

		if (i < 0 || (unsigned int)i >= c->nr)
			return bad_usage("chaos", "there is no process '%s'", arg);
		first = last = (unsigned int)i;
	}
	for (unsigned int v = 0; arg && v < sizeof(verbs) / sizeof(verbs[0]); v++) {
		if (strcmp(verb, verbs[v]))
			continue;
		for (unsigned int i = first; i <= last && !status; i++)
			status = command_for(c, verb, i);
		return status;
	}
	return bad_usage("chaos", "'%s' is no command: wait TIME, or kill, start, stop or cont X", verb);
}

static int run_script(struct chaos *c)
{
	char *text = strdup(c->script), *save = NULL, *one;
	int status = text ? EXIT_OK : fail(-ENOMEM, "no memory");

	for (one = text ? strtok_r(text, ";\n", &save) : NULL; one && !status && !stop_signal;
	     one = strtok_r(NULL, ";\n", &save))
		status = command(c, one);
	free(text);
	return status;
}

/* Lines of commands from a pipe; the values are watched between them. */
static int run_lines(struct chaos *c)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	char line[512];
	size_t len = 0;
	int status = EXIT_OK;

	while (!status && !stop_signal) {
		if (poll(&in, 1, TICK_MS) == 1) {
			if (read(STDIN_FILENO, &line[len], 1) != 1)
				break;
			if (line[len] == '\n' || line[len] == ';' || len == sizeof(line) - 2) {
				line[len + 1] = 0;
				line[strcspn(line, ";\n")] = 0;
				status = command(c, line);
				len = 0;
			} else {
				len++;
			}
			continue;
		}
		status = watch(c);
	}
	return status;
}

static int run_keys(struct chaos *c)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	struct termios old, raw;
	int status = EXIT_OK;
	char key = 0;

	tcgetattr(STDIN_FILENO, &old);
	raw = old;
	raw.c_lflag &= ~(unsigned int)(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	for (unsigned int tick = 0; !status && !stop_signal && key != 27 && key != 4; tick++) {
		if (poll(&in, 1, TICK_MS) == 1) {
			int i;

			if (read(STDIN_FILENO, &key, 1) != 1)
				break;
			i = worker_of(key);
			if (i >= 0 && (unsigned int)i < c->nr)
				status = command_for(c, "toggle", (unsigned int)i);
		}
		if (!status)
			status = watch(c);
		if (tick % DRAW_EVERY == 0)
			draw(c);
	}
	tcsetattr(STDIN_FILENO, TCSANOW, &old);
	return status;
}

/* ------------------------------------------------------------- the whole -- */

static void end_all(struct chaos *c)
{
	for (unsigned int i = 0; i < c->nr; i++) {
		if (!c->pid[i])
			continue;
		kill(c->pid[i], SIGTERM);
		kill(c->pid[i], SIGCONT);
		waitpid(c->pid[i], NULL, 0);
	}
	for (unsigned int i = 0; i < c->nr; i++)
		row_retire(c, i);
}

static int summary(struct chaos *c)
{
	uint64_t torn = c->gone.torn + c->own.torn, back = c->gone.back + c->own.back;
	char report[512];
	int err = shmk_pool_check(c->s, report, sizeof(report));

	if (err)
		say("the pool is damaged: %s", report);
	printf("%u processes, %" PRIu64 " kills, %" PRIu64 " starts, %" PRIu64 " values, %" PRIu64
	       " reads: torn %" PRIu64 ", back %" PRIu64 ", still %" PRIu64 "\n", c->nr, c->kills,
	       c->starts, c->gone.published, c->gone.reads + c->own.reads, torn, back, c->stills);
	return err || torn || back || c->stills ? EXIT_FAILED : EXIT_OK;
}

static int run(struct chaos *c)
{
	int status = EXIT_OK;

	c->board = mmap(NULL, WORKERS_MAX * sizeof(struct row), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (c->board == MAP_FAILED)
		return fail(-errno, "no memory");
	for (unsigned int i = 0; i < c->nr && !status; i++)
		status = topic_open(c, c->s, i, &c->topic[i]);
	for (unsigned int i = 0; i < c->nr && !status; i++)
		status = start(c, i);
	c->keys = !c->script && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	if (!status)
		status = c->script ? run_script(c) : c->keys ? run_keys(c) : run_lines(c);
	end_all(c);
	return status ? status : summary(c);
}

int cmd_chaos(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_OPTIONS,
		{ "script", required_argument, NULL, 'S' },
		{ "pace", required_argument, NULL, 'p' + 256 },
		{ "patience", required_argument, NULL, 'P' + 256 },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	static struct chaos c = { .t = TARGET_INIT, .pace_ms = 5, .patience_ms = 5000 };
	uint64_t nr;
	int opt, status;

	while ((opt = next_option(argc, argv, "hs:", longs)) != -1) {
		bool ok = true;

		if (opt == 'S')
			c.script = optarg;
		else if (opt == 'p' + 256)
			ok = parse_ms(optarg, &c.pace_ms) && c.pace_ms < 1000;
		else if (opt == 'P' + 256)
			ok = parse_ms(optarg, &c.patience_ms);
		else if (target_option(&c.t, argv[0], opt, optarg) < 0)
			return EXIT_USAGE;
		if (!ok)
			return bad_usage(argv[0], "cannot make sense of '%s'", optarg);
	}
	if (optind == argc || !parse_number(argv[optind], WORKERS_MAX, &nr) || !nr)
		return bad_usage(argv[0], "how many processes, 1 .. %d?", WORKERS_MAX);
	c.nr = (unsigned int)nr;
	optind++;
	if (optind == argc && !c.t.pool[0])
		snprintf(c.t.pool, sizeof(c.t.pool), "chaos.%d", getpid());
	status = target_parse_pool(&c.t, argv[0], argc, argv);
	c.t.create = true;
	if (!status)
		status = target_attach(&c.t, 0, &c.s);
	if (status)
		return status;
	status = run(&c);
	tool_detach(c.s);
	return status ? status : finish_stdout();
}
