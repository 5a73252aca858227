// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk bench - how fast this is here, beside what the machine itself can do
 *
 * Runs every transport in turn, case by case, several rounds, each in a process
 * of its own (this program again with --raw, or a program of --peers), so that
 * what disturbs the machine disturbs all; then prints medians over the rounds.
 * What is measured, and how, is in bench/bench.h and bench/cost.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tool.h"
#include "bench/bench.h"
#include "bench/own.h"

#define MAX_CASES	64
#define MAX_TRANSPORTS	48
#define MAX_ROUNDS	101
#define RUN_SECONDS	120

static const char *const default_cases[] = {
	"ping:48", "ping:64", "ping:4096", "ping:65536", "ping:1048576",
	"ping+touch:4096", "ping+touch:1048576", "ping+1000:48", "ping+1000:64", "ping+16g:64",
	"ping+sleep:48",
	"stream:48", "stream:64", "stream+touch:4096", "stream+touch:65536", "stream+touch:1048576",
	"stream+1000:64", "stream+sleep:48", "stream+sleep:64",
	"fan4x1+sleep:48", "fan1x4+sleep:48", "fan4x4+sleep:48",
	"cost:alloc", "cost:attach", "cost:pages", "cost:queue", "cost:settle", "cost:death", "cost:memory",
	"cost:topic",
};

struct entry {				/* of a case, a transport, a key: its value in each round */
	unsigned int c, t;
	char key[40];
	unsigned int nr;
	double value[MAX_ROUNDS];
	unsigned int round[MAX_ROUNDS];
};

static struct {
	const char *cases[MAX_CASES];
	unsigned int nr_cases;
	struct {
		char name[32];
		char program[512];	/* "": this one */
		char why[200];		/* it was left out of something */
	} transports[MAX_TRANSPORTS];
	unsigned int nr_transports;
	struct entry *entries;
	size_t nr_entries;
	unsigned int rounds;
	FILE *raw;
	bool json;
} bench = { .rounds = 5 };

/* ---------------------------------------------------------- transports -- */

static void add_transport(const char *name, const char *program)
{
	if (bench.nr_transports == MAX_TRANSPORTS)
		return;
	snprintf(bench.transports[bench.nr_transports].name, 32, "%s", name);
	snprintf(bench.transports[bench.nr_transports++].program, 512, "%s", program);
}

static void add_own(const struct transport *const *list)
{
	for (; *list; list++)
		add_transport((*list)->name, "");
}

static void add_program(const char *path)
{
	char command[600], name[32];
	FILE *f;

	snprintf(command, sizeof(command), "'%s' --list 2> /dev/null", path);
	f = popen(command, "r");
	while (f && fscanf(f, "%31s", name) == 1)
		add_transport(name, path);
	if (f)
		pclose(f);
}

static int add_peers(const char *dir)
{
	struct dirent **list;
	int i, nr = scandir(dir, &list, NULL, alphasort);
	char path[512];

	if (nr < 0)
		return fail(-errno, "cannot look for peers in \"%s\"", dir);
	for (i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, list[i]->d_name);
		if (list[i]->d_type == DT_REG && !access(path, X_OK) && !strchr(path, '\''))
			add_program(path);
		free(list[i]);
	}
	free(list);
	return EXIT_OK;
}

/* ------------------------------------------------------------- running -- */

static struct entry *find_entry(unsigned int c, unsigned int t, const char *key, bool make)
{
	struct entry *e;

	for (size_t i = 0; i < bench.nr_entries; i++) {
		e = &bench.entries[i];
		if (e->c == c && e->t == t && !strcmp(e->key, key))
			return e;
	}
	if (!make)
		return NULL;
	e = realloc(bench.entries, (bench.nr_entries + 1) * sizeof(*e));
	if (!e)
		return NULL;
	bench.entries = e;
	e += bench.nr_entries++;
	*e = (struct entry) { .c = c, .t = t };
	snprintf(e->key, sizeof(e->key), "%s", key);
	return e;
}

/* "TRANSPORT MODE BYTES key=value ..." */
static bool take_line(unsigned int c, unsigned int t, unsigned int round, char *line)
{
	char *word, *value, *end;
	struct entry *e;
	int field = 0;

	if (bench.raw)
		fprintf(bench.raw, "%s %s\n", bench.cases[c], line);
	while ((word = strtok_r(line, " \n", &line))) {
		value = strchr(word, '=');
		if (field++ < 3 || !value)
			continue;
		*value++ = 0;
		e = find_entry(c, t, word, true);
		if (!e || e->nr == MAX_ROUNDS)
			return false;
		e->round[e->nr] = round;
		e->value[e->nr++] = strtod(value, &end);
	}
	return field > 3;
}

static void exec_run(unsigned int c, unsigned int t, int out, int err)
{
	const char *program = bench.transports[t].program, *bytes = strchr(bench.cases[c], ':') + 1;
	char mode[64];

	dup2(out, STDOUT_FILENO);
	dup2(err, STDERR_FILENO);
	alarm(RUN_SECONDS);
	snprintf(mode, sizeof(mode), "%.*s", (int)(bytes - 1 - bench.cases[c]), bench.cases[c]);
	if (*program)
		execl(program, program, bench.transports[t].name, mode, bytes, NULL);
	else if (!strcmp(mode, "cost"))
		execl("/proc/self/exe", "shmk", "bench", "--raw", mode, bytes, NULL);
	else
		execl("/proc/self/exe", "shmk", "bench", "--raw", bench.transports[t].name, mode, bytes,
		      NULL);
	_exit(127);
}

static void note_why(unsigned int t, const char *kase, FILE *err, int status)
{
	char line[256], last[256] = "";
	size_t room = sizeof(bench.transports[t].why);

	rewind(err);
	while (fgets(line, sizeof(line), err))
		if (!strstr(line, "WARN"))
			memcpy(last, line, sizeof(last));
	last[strcspn(last, "\n")] = 0;
	if (WIFSIGNALED(status))
		snprintf(last, sizeof(last), "ended by signal %d", WTERMSIG(status));
	snprintf(bench.transports[t].why, room, "%s: %.120s (status %d)", kase, last,
		 WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static int run_one(unsigned int c, unsigned int t, unsigned int round)
{
	char line[1024], mine[64];
	FILE *err = tmpfile(), *out;
	int fds[2], status = 0;
	bool good = false;
	pid_t pid;

	if (!err || pipe2(fds, O_CLOEXEC))
		return fail(-errno, "cannot start a run");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		return fail(-errno, "cannot start a run");
	if (!pid)
		exec_run(c, t, fds[1], fileno(err));
	close(fds[1]);
	out = fdopen(fds[0], "r");
	snprintf(mine, sizeof(mine), "%s ", bench.transports[t].name);
	while (out && fgets(line, sizeof(line), out))
		if (!strncmp(line, mine, strlen(mine)))
			good |= take_line(c, t, round, line);
	if (out)
		fclose(out);
	waitpid(pid, &status, 0);
	if (status || !good)
		note_why(t, bench.cases[c], err, status);
	fclose(err);
	/* What cannot run here is left out; what fails has failed. */
	return !status || (WIFEXITED(status) && WEXITSTATUS(status) == BENCH_SKIP) ? EXIT_OK : EXIT_FAILED;
}

static bool is_cost(unsigned int c)
{
	return !strncmp(bench.cases[c], "cost:", 5);
}

/* Transport 0 stands for what is not a transport. */
static int run_all(void)
{
	bool tty = isatty(STDERR_FILENO);
	int status = EXIT_OK, one;

	for (unsigned int r = 0; r < bench.rounds; r++)
		for (unsigned int c = 0; c < bench.nr_cases; c++)
			for (unsigned int t = 0; t < bench.nr_transports && !stop_signal; t++) {
				if (is_cost(c) != !t)
					continue;
				if (tty)
					fprintf(stderr, "\r\033[Kround %u of %u: %s %s", r + 1,
						bench.rounds, bench.cases[c], bench.transports[t].name);
				one = run_one(c, t, r);
				status = one ? one : status;
			}
	if (tty)
		fputs("\r\033[K", stderr);
	return status;
}

/* --------------------------------------------------------------- table -- */

/* -1: there is none. */
static double figure(unsigned int c, unsigned int t, const char *key)
{
	const struct entry *e = find_entry(c, t, key, false);
	double v[MAX_ROUNDS];

	if (!e)
		return -1;
	memcpy(v, e->value, e->nr * sizeof(*v));
	return bench_median(v, e->nr);
}

/* The median of the rounds' own ratios: a machine may be another one in the next round. */
static double ratio(unsigned int c, unsigned int t, int to, const char *key)
{
	const struct entry *e = find_entry(c, t, key, false);
	const struct entry *o = to < 0 ? NULL : find_entry(c, (unsigned int)to, key, false);
	double v[MAX_ROUNDS];
	unsigned int nr = 0;

	for (unsigned int i = 0; e && o && i < e->nr; i++)
		for (unsigned int k = 0; k < o->nr; k++)
			if (o->round[k] == e->round[i])
				v[nr++] = e->value[i] / o->value[k];
	return nr ? bench_median(v, nr) : -1;
}

static int transport_of(const char *name)
{
	for (unsigned int t = 0; t < bench.nr_transports; t++)
		if (!strcmp(bench.transports[t].name, name))
			return (int)t;
	return -1;
}

static const char *cell(double v, const char *format)
{
	static char text[4][24];
	static unsigned int at;
	char *to = text[at++ % 4];

	if (v < 0)
		return "-";
	snprintf(to, sizeof(text[0]), format, v);
	return to;
}

static void print_ping(unsigned int c, unsigned int t, double v, double x, int own)
{
	printf("%-16s %10.1f %8s %8s %10.1f %10.1f\n", bench.transports[t].name, v, cell(x, "%.2f"),
	       cell(ratio(c, t, own, "median"), "%.2f"), figure(c, t, "p99"), figure(c, t, "p999"));
}

static void print_stream(unsigned int c, unsigned int t, double v, double x, int own)
{
	printf("%-16s %12.0f %8s %8s %10.2f\n", bench.transports[t].name, v, cell(x, "%.2f"),
	       cell(ratio(c, t, own, "rate"), "%.2f"), figure(c, t, "bandwidth") / 1e9);
}

static void print_case(unsigned int c)
{
	const char *bytes = strchr(bench.cases[c], ':') + 1;
	bool ping = !strncmp(bench.cases[c], "ping", 4), inl = atoi(bytes) <= 48;
	const char *key = ping ? "median" : "rate";
	int own = transport_of(inl ? "shmk-inline" : "shmk-block");
	int limit = transport_of(atoi(bytes) > 64 ? "copy" : "line");

	if (!strncmp(bench.cases[c], "fan", 3))
		own = transport_of(inl ? "shmk-inline-mn" : "shmk-block-mn");
	if (ping)
		printf("\n%s: one way, ns (x limit: %s)\n%-16s %10s %8s %8s %10s %10s\n", bench.cases[c],
		       strstr(bench.cases[c], "sleep") ? "a bare eventfd" : "a line handed over", "",
		       "median", "x limit", "x shmk", "p99", "p99.9");
	else
		printf("\n%s: messages per second (x limit: %s)\n%-16s %12s %8s %8s %10s\n",
		       bench.cases[c], atoi(bytes) > 64 ? "copy" : "line", "", "rate", "x limit",
		       "x shmk", "GB/s");
	for (unsigned int t = 1; t < bench.nr_transports; t++) {
		double v = figure(c, t, key);
		double x = ping ? figure(c, t, "x") : ratio(c, t, limit, key);

		if (v >= 0 && ping)
			print_ping(c, t, v, x, own);
		else if (v >= 0)
			print_stream(c, t, v, x, own);
	}
}

static void print_cost(unsigned int c)
{
	printf("\n%s\n", bench.cases[c]);
	for (size_t i = 0; i < bench.nr_entries; i++)
		if (bench.entries[i].c == c)
			printf("%-32s %14.10g\n", bench.entries[i].key,
			       figure(c, 0, bench.entries[i].key));
}

static void print_json(void)
{
	struct json j = { .f = stdout };

	json_open(&j, NULL, '[');
	for (size_t i = 0; i < bench.nr_entries; i++) {
		const struct entry *e = &bench.entries[i];
		char v[40];

		snprintf(v, sizeof(v), "%.6g", figure(e->c, e->t, e->key));
		json_open(&j, NULL, '{');
		json_string(&j, "case", bench.cases[e->c]);
		json_string(&j, "transport", bench.transports[e->t].name);
		json_string(&j, "key", e->key);
		json_string(&j, "median", v);
		json_u64(&j, "rounds", e->nr);
		json_close(&j, '}');
	}
	json_close(&j, ']');
}

static void print_table(void)
{
	for (unsigned int c = 0; c < bench.nr_cases; c++)
		if (is_cost(c))
			print_cost(c);
		else
			print_case(c);
	putchar('\n');
	for (unsigned int t = 0; t < bench.nr_transports; t++)
		if (bench.transports[t].why[0])
			printf("left out, the last: %s %s\n", bench.transports[t].name,
			       bench.transports[t].why);
}

/* ------------------------------------------------------------ the verb -- */

/* One run, for those who start us: "--raw TRANSPORT MODE BYTES [MESSAGES]" or "--raw cost WHAT". */
static int run_raw(int argc, char **argv)
{
	const struct transport *const *const lists[] = { limit_transports, self_transports,
							 kernel_transports };

	for (int s = SIGHUP; s <= SIGTERM; s++)
		if (s != SIGKILL)
			signal(s, SIG_DFL);
	if (argc == 3 && !strcmp(argv[1], "cost"))
		return bench_cost(argv[2]) ? EXIT_USAGE : EXIT_OK;
	for (unsigned int i = 0; argc > 1 && i < 3; i++)
		for (const struct transport *const *t = lists[i]; *t; t++)
			if (!strcmp((*t)->name, argv[1]))
				return bench_main(lists[i], argc, argv);
	return bad_usage("bench", "--raw needs a transport, a mode and a number of bytes");
}

static int take_case(const char *text)
{
	struct bench b = { };
	const char *bytes = strchr(text, ':');
	char mode[64];
	uint64_t n;

	snprintf(mode, sizeof(mode), "%.*s", bytes ? (int)(bytes - text) : 0, text);
	if (bytes && !strcmp(mode, "cost") && bytes[1])
		;
	else if (!bytes || !bench_mode(&b, mode) || !parse_number(bytes + 1, 1 << 30, &n) || n < 8 || n % 8)
		return bad_usage("bench", "'%s' is no case: such as ping:64, stream+sleep:4096 or cost:alloc",
				 text);
	if (bench.nr_cases == MAX_CASES)
		return bad_usage("bench", "at most %d cases", MAX_CASES);
	bench.cases[bench.nr_cases++] = text;
	return EXIT_OK;
}

static int open_raw(const char *path)
{
	bench.raw = fopen(path, "w");
	return bench.raw ? EXIT_OK : fail(-errno, "cannot write \"%s\"", path);
}

int cmd_bench(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "rounds", required_argument, NULL, 'r' },
		{ "output", required_argument, NULL, 'o' },
		{ "peers", required_argument, NULL, 'p' },
		{ "pool", required_argument, NULL, 'P' },
		{ "json", no_argument, NULL, 'j' },
		{ "raw", no_argument, NULL, 'R' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int opt, status = EXIT_OK, failed;
	uint64_t n;

	if (argc > 1 && !strcmp(argv[1], "--raw"))
		return run_raw(argc - 1, argv + 1);
	add_transport("cost", "");
	add_own(limit_transports);
	add_own(self_transports);
	add_own(kernel_transports);
	while ((opt = next_option(argc, argv, "hr:o:p:j", longs)) != -1 && !status) {
		if (opt == 'r' && (!parse_number(optarg, MAX_ROUNDS, &n) || !n))
			status = bad_usage(argv[0], "'%s' is no number of rounds, 1 to %d", optarg,
					   MAX_ROUNDS);
		else if (opt == 'r')
			bench.rounds = (unsigned int)n;
		else if (opt == 'j')
			bench.json = true;
		else if (opt == 'P')
			setenv("SHMK_BENCH_POOL", optarg, 1);
		else if (opt == 'p')
			status = add_peers(optarg);
		else if (opt == 'o')
			status = open_raw(optarg);
	}
	for (; optind < argc && !status; optind++)
		status = take_case(argv[optind]);
	if (status)
		return status;
	if (!bench.nr_cases) {
		bench.nr_cases = sizeof(default_cases) / sizeof(default_cases[0]);
		memcpy(bench.cases, default_cases, sizeof(default_cases));
	}
	failed = run_all();
	if (bench.raw && fclose(bench.raw))
		return fail(-errno, "cannot write what was measured");
	if (bench.json)
		print_json();
	else
		print_table();
	status = finish_stdout();
	return status ? status : failed;
}
