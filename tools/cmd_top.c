// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk top
 *
 * All pools, one pool, one ledger or queue: Enter goes down, Backspace up. What
 * is shown is made by top_view.c; -b prints it and needs no terminal.
 */
#include <curses.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/shmk_layout.h>

#include "top.h"

#define KEYS	"Enter in  Bksp back  s sort  o order  x reset  h help  q quit"

struct screen {
	struct top top;
	int64_t every_ms;
	unsigned int at;	/* the row that is marked */
	unsigned int first;	/* the row at the top */
	char note[160];		/* instead of the keys, until the next key */
	bool asking;		/* the note is a question: reset ... */
	struct top_row asked;	/* ... this? */
	bool help;
	bool stay;		/* a pool was named: Backspace does not leave it */
};

static const char *const help_text[] = {
	"Up, Down, PgUp, PgDn, j, k   mark another line",
	"Enter   go down: a pool; a peer's ledger, decoded; a queue's messages",
	"Bksp, Esc   back up",
	"s       sort by something else",
	"o       turn the order round",
	"x       reset the marked queue or pool: what is in it is dropped (asks first)",
	"Space   look again now",
	"h, ?    this help",
	"q       quit",
	"",
	"While one pool is shown, top is a read-only member of it.",
};

/* ------------------------------------------------------------- drawing -- */

static unsigned int rows_high(const struct screen *sc)
{
	return LINES > (int)sc->top.head + 1 ? LINES - sc->top.head - 1 : 1;
}

static unsigned int nr_rows(const struct screen *sc)
{
	unsigned int n = 0;

	if (sc->top.level != TOP_LEDGER)
		return sc->top.nr_rows;
	for (const char *p = sc->top.text; p && *p; p++)
		n += *p == '\n';
	return n > sc->top.head ? n - sc->top.head : 0;
}

static bool is_item(const struct screen *sc, unsigned int row)
{
	return sc->top.level == TOP_LEDGER || top_row_is_item(&sc->top.rows[row]);
}

/* The mark stays on a line that stands for something, and on the screen. */
static void settle_mark(struct screen *sc, int step)
{
	unsigned int n = nr_rows(sc), high = rows_high(sc);

	if (sc->at >= n)
		sc->at = n ? n - 1 : 0;
	while (n && !is_item(sc, sc->at)) {
		if (step < 0 && !sc->at)
			step = 1;
		if (step >= 0 && sc->at + 1 >= n)
			break;
		sc->at += step < 0 ? -1 : 1;
	}
	if (sc->at < sc->first)
		sc->first = sc->at;
	if (sc->at >= sc->first + high)
		sc->first = sc->at - high + 1;
	if (sc->first == 1 && !is_item(sc, 0))
		sc->first = 0;		/* the heading above the first one */
}

static void draw_line(int y, const char *text, size_t len, int attr)
{
	attrset(attr);
	move(y, 0);
	clrtoeol();
	addnstr(text, len < (size_t)COLS ? (int)len : COLS);
	if (attr & A_REVERSE)
		for (int x = (int)len; x < COLS; x++)
			addch(' ');
	attrset(A_NORMAL);
}

static void draw_text(struct screen *sc)
{
	const char *p = sc->top.text;
	unsigned int line = 0, head = sc->top.head;
	int y = 0;

	for (; p && *p && y < LINES - 1; line++) {
		size_t len = strcspn(p, "\n");
		unsigned int row = line - head;
		bool heading = line < head;

		if (heading || (row >= sc->first && row < sc->first + rows_high(sc))) {
			int attr = heading ? A_BOLD : row == sc->at && is_item(sc, row) ? A_REVERSE :
				   is_item(sc, row) ? A_NORMAL : A_BOLD;

			draw_line(y++, p, len, attr);
		}
		p += len + (p[len] == '\n');
	}
}

static void draw(struct screen *sc)
{
	const char *last = *sc->note ? sc->note : KEYS;

	erase();
	if (sc->help)
		for (unsigned int i = 0; i < sizeof(help_text) / sizeof(help_text[0]); i++)
			draw_line((int)i, help_text[i], strlen(help_text[i]), A_NORMAL);
	else
		draw_text(sc);
	draw_line(LINES - 1, last, strlen(last), *sc->note ? A_BOLD : A_DIM);
	refresh();
}

static void note(struct screen *sc, const char *what, int err)
{
	snprintf(sc->note, sizeof(sc->note), "%s%s%s", what, err ? ": " : "", err ? strerror(-err) : "");
}

/* -------------------------------------------------------------- moving -- */

/* The pool is gone: on to the next of that name if there is one, or back to the list. */
static int move_on(struct screen *sc)
{
	char pool[sizeof(sc->top.pool)], closed[160];
	int err;

	strcpy(pool, sc->top.pool);
	snprintf(closed, sizeof(closed), "pool \"%s\" is closed", pool);
	if (sc->stay) {
		err = top_enter(&sc->top, pool);
		note(sc, err ? closed : "", 0);
		return err ? 0 : top_view(&sc->top);
	}
	err = top_enter(&sc->top, NULL);
	note(sc, closed, 0);
	return err ? err : top_view(&sc->top);
}

static void look(struct screen *sc)
{
	int err = top_view(&sc->top);

	if (err == -EPIPE)
		err = move_on(sc);
	if (err == -EPIPE)
		note(sc, "the pool has no members any more", 0);
	else if (err)
		note(sc, "cannot look", err);
	settle_mark(sc, 1);
}

static void go_to(struct screen *sc, const char *pool)
{
	int err = top_enter(&sc->top, pool);

	sc->at = 0;
	sc->first = 0;
	if (err)
		note(sc, "cannot attach to that pool", err);
}

static void go_down(struct screen *sc)
{
	struct top *t = &sc->top;
	struct top_row row;

	if (sc->at >= t->nr_rows || t->level == TOP_LEDGER)
		return;
	row = t->rows[sc->at];
	if (t->level == TOP_POOLS) {
		go_to(sc, row.pool);
		return;
	}
	t->level = TOP_LEDGER;
	t->sort = 0;
	t->peer = row.peer;
	t->queue = row.peer ? SHMK_HOLDING_NOWHERE : row.queue;
	if (row.peer)
		snprintf(t->what, sizeof(t->what), "ledger of peer %u", row.peer);
	else
		snprintf(t->what, sizeof(t->what), "queue \"%s\"", row.name);
	sc->at = 0;
	sc->first = 0;
}

static void go_up(struct screen *sc)
{
	if (sc->top.level == TOP_LEDGER)
		sc->top.level = TOP_POOL;
	else if (sc->top.level == TOP_POOL && !sc->stay)
		go_to(sc, NULL);
	sc->at = 0;
	sc->first = 0;
}

static void ask(struct screen *sc)
{
	const struct top *t = &sc->top;
	const struct top_row *row = sc->at < t->nr_rows ? &t->rows[sc->at] : NULL;

	if (t->level == TOP_POOLS && row)
		snprintf(sc->note, sizeof(sc->note), "reset pool \"%s\", although %s? (y/n)", row->pool,
			 "peers may be attached");
	else if (t->level == TOP_POOL && row && row->name[0])
		snprintf(sc->note, sizeof(sc->note), "drop all messages in queue \"%s\"? (y/n)",
			 row->name);
	else {
		note(sc, "mark a pool or a queue to reset it", 0);
		return;
	}
	sc->asking = true;
	sc->asked = *row;
}

static void answer(struct screen *sc, int key)
{
	const struct top_row *row = &sc->asked;
	int64_t nr;

	sc->asking = false;
	if (key != 'y' && key != 'Y') {
		note(sc, "not reset", 0);
		return;
	}
	if (row->pool[0])
		nr = shmk_pool_reset(row->pool, SHMK_RESET_FORCE);
	else
		nr = reset_queue(sc->top.pool, row->name);
	if (nr < 0)
		note(sc, "cannot reset it", (int)nr);
	else if (row->pool[0])
		snprintf(sc->note, sizeof(sc->note), "pool \"%s\" is empty now", row->pool);
	else
		snprintf(sc->note, sizeof(sc->note), "%lld messages dropped from \"%s\"",
			 (long long)nr, row->name);
}

static void mark(struct screen *sc, int by)
{
	if (by < 0 && sc->at < (unsigned int)-by)
		sc->at = 0;
	else
		sc->at += by;
	settle_mark(sc, by);
}

/* False: quit. A redraw follows in any case. */
static bool take_key(struct screen *sc, int key)
{
	sc->note[0] = '\0';
	if (sc->asking) {
		answer(sc, key);
		return true;
	}
	if (sc->help) {
		sc->help = false;
		return true;
	}
	switch (key) {
	case 'q':
	case 'Q':
		return false;
	case 'h':
	case '?':
		sc->help = true;
		break;
	case KEY_UP:
	case 'k':
		mark(sc, -1);
		break;
	case KEY_DOWN:
	case 'j':
		mark(sc, 1);
		break;
	case KEY_PPAGE:
		mark(sc, -(int)rows_high(sc));
		break;
	case KEY_NPAGE:
		mark(sc, (int)rows_high(sc));
		break;
	case '\n':
	case '\r':
	case KEY_ENTER:
		go_down(sc);
		break;
	case 27:
	case 127:
	case '\b':
	case KEY_BACKSPACE:
		go_up(sc);
		break;
	case 's':
		sc->top.sort = (sc->top.sort + 1) % top_sort_keys(&sc->top);
		break;
	case 'o':
		sc->top.reverse = !sc->top.reverse;
		break;
	case 'x':
		ask(sc);
		break;
	default:
		break;
	}
	return true;
}

static int on_terminal(struct screen *sc)
{
	SCREEN *term = newterm(NULL, stdout, stdin);
	int key;

	if (!term) {
		say("this terminal (TERM=%s) cannot do that: use 'shmk top -b'",
		    getenv("TERM") ? getenv("TERM") : "");
		return EXIT_FAILED;
	}
	cbreak();
	noecho();
	keypad(stdscr, true);
	set_escdelay(50);
	curs_set(0);
	timeout((int)sc->every_ms);
	do {
		look(sc);
		draw(sc);
		key = getch();
	} while (!stop_signal && (key == ERR || take_key(sc, key)));
	endwin();
	delscreen(term);
	return stop_signal ? EXIT_FAILED : EXIT_OK;
}

/* --------------------------------------------------------------- batch -- */

static int batch(struct screen *sc, uint64_t times)
{
	struct timespec ts = {
		.tv_sec = sc->every_ms / 1000, .tv_nsec = sc->every_ms % 1000 * 1000000,
	};

	for (uint64_t n = 0; (!times || n < times) && !stop_signal; n++) {
		int err;

		if (n)
			nanosleep(&ts, NULL);
		err = top_view(&sc->top);
		if (err == -EPIPE)
			break;		/* the pool is closed */
		if (err)
			return fail(err, "cannot look at %s", sc->stay ? sc->top.pool : "the pools");
		if (n)
			putchar('\n');
		fputs(sc->top.text, stdout);
		if (fflush(stdout))
			break;
	}
	return finish_stdout();
}

static int run(struct target *t, struct screen *sc, bool as_batch, uint64_t times)
{
	int status, err;

	if (t->pool[0]) {
		/* target_attach() only tells better what is wrong. */
		status = target_attach(t, SHMK_ATTACH_RDONLY, &sc->top.s);
		if (status)
			return status;
		tool_detach(sc->top.s);
		sc->top.s = NULL;
		sc->stay = true;
	}
	err = top_enter(&sc->top, t->pool[0] ? t->pool : NULL);
	if (err)
		return fail(err, "cannot look at pool \"%s\"", t->pool);
	status = as_batch ? batch(sc, times) : on_terminal(sc);
	shmk_detach(sc->top.s);
	free(sc->top.text);
	free(sc->top.rows);
	free(sc->top.rates);
	return status;
}

int cmd_top(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "batch", no_argument, NULL, 'b' },
		{ "count", required_argument, NULL, 'n' },
		{ "delay", required_argument, NULL, 'd' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct screen sc = { .every_ms = 2000 };
	struct target t = TARGET_INIT;
	uint64_t times = 0;
	bool as_batch = false;
	int opt, status;

	while ((opt = next_option(argc, argv, "bd:hn:", longs)) != -1) {
		if (opt == 'b') {
			as_batch = true;
		} else if (opt == 'n') {
			if (!parse_number(optarg, UINT64_MAX, &times) || !times)
				return bad_usage(argv[0], "'%s' is no number of times", optarg);
		} else if (opt == 'd') {
			if (!parse_ms(optarg, &sc.every_ms) || sc.every_ms < 10 ||
			    sc.every_ms > 3600 * 1000)
				return bad_usage(argv[0], "a delay is from 10 (ms) to 1h, not '%s'",
						 optarg);
		} else if (target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	if (optind < argc || t.pool[0]) {
		status = target_parse_pool(&t, argv[0], argc, argv);
		if (status)
			return status;
	}
	if (times && !as_batch)
		return bad_usage(argv[0], "--count is for --batch%s", "");
	if (!as_batch && !(isatty(STDIN_FILENO) && isatty(STDOUT_FILENO))) {
		say("this is no terminal: use 'shmk top -b'");
		return EXIT_USAGE;
	}
	return run(&t, &sc, as_batch, times);
}
