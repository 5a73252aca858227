// SPDX-License-Identifier: GPL-2.0-only
/*
 * limit.c - what no transport on this machine can beat.
 *
 *   line    a word that one processor writes and another one polls, payload in
 *           the same cache line: the hand-over of one line
 *   lines   the same, but the polled word says where the payload is: two lines, the second
 *           asked for only when the first is there. What a block costs at least
 *   copy    no transport at all: "stream" is memcpy() from one hot buffer to
 *           another in one process
 */
#include "bench.h"
#include "own.h"

#define LINE	64
#define SLOTS	256
#define PING_TURNS	256	/* round trips with one line */

struct line {
	uint64_t	word;		/* number of the message, from 1 */
	unsigned char	text[LINE - 8];
} __attribute__((aligned(LINE)));

static struct {
	struct line	*ring[2];	/* by sender */
	struct line	*text[2];	/* likewise; of "lines" */
	uint64_t	*done[2];	/* messages read: far behind, once per lap */
	uint64_t	sent, got, seen_done;
} line;

static void line_init(struct bench *b)
{
	int i;

	if (b->bytes > LINE || b->sleeps)
		bench_skip("one line, polled, only");
	for (i = 0; i < 2; i++) {
		line.ring[i] = bench_shared(SLOTS * sizeof(struct line));
		line.done[i] = bench_shared(4096);
	}
}

static void lines_init(struct bench *b)
{
	int i;

	line_init(b);
	for (i = 0; i < 2; i++)
		line.text[i] = bench_shared(SLOTS * sizeof(struct line));
}

static void line_open(struct bench *b)
{
	(void)b;
}

static void *line_loan(struct bench *b)
{
	static unsigned char text[LINE];

	(void)b;
	return text;
}

static void line_write(struct bench *b, struct line *l, struct line *text)
{
	while (b->stream && line.sent - line.seen_done >= SLOTS)
		line.seen_done = __atomic_load_n(line.done[b->side], __ATOMIC_ACQUIRE);
	memset(text->text, (int)line.sent, sizeof(text->text));
	__atomic_store_n(&l->word, ++line.sent, __ATOMIC_RELEASE);
}

static void line_wait(struct line *l)
{
	while (__atomic_load_n(&l->word, __ATOMIC_ACQUIRE) != line.got + 1)
		bench_relax();
	line.got++;
}

/*
 * The hand-over alone: stream uses a ring of lines, ping one line to and fro, and after a while the
 * next one, as some are nearer than others (bench_line()).
 */
static struct line *line_at(struct bench *b, int side, uint64_t n)
{
	return &line.ring[side][(b->stream ? n : n / PING_TURNS) % SLOTS];
}

static void line_send(struct bench *b)
{
	struct line *l = line_at(b, b->side, line.sent);

	line_write(b, l, l);
}

static const void *line_recv(struct bench *b)
{
	struct line *l = line_at(b, !b->side, line.got);

	line_wait(l);
	return l->text;
}

static struct line *lines_text(struct bench *b, int side, uint64_t word)
{
	return &line.text[side][(b->stream ? word : word / PING_TURNS * 2 + word % 2) % SLOTS];
}

static void lines_send(struct bench *b)
{
	struct line *l = line_at(b, b->side, line.sent);

	line_write(b, l, lines_text(b, b->side, line.sent + 1));
}

/* By what the word says: no processor can guess where it is. */
static const void *lines_recv(struct bench *b)
{
	struct line *l = line_at(b, !b->side, line.got);

	line_wait(l);
	return lines_text(b, !b->side, l->word)->text;
}

static void line_recv_done(struct bench *b)
{
	if (b->stream && line.got % (SLOTS / 4) == 0)
		__atomic_store_n(line.done[!b->side], line.got, __ATOMIC_RELEASE);
}

static const struct transport line_transport = {
	"line", line_init, line_open, line_loan, line_send, line_recv, line_recv_done, NULL, false,
};

static const struct transport lines_transport = {
	"lines", lines_init, line_open, line_loan, lines_send, lines_recv, line_recv_done, NULL, false,
};

/* ---------------------------------------------------------------- copy -- */

static unsigned char *copy_from, *copy_to;

static void copy_init(struct bench *b)
{
	if (!b->stream)
		bench_skip("stream only");
}

static void copy_open(struct bench *b)
{
	copy_from = bench_shared(b->bytes);
	copy_to = bench_shared(b->bytes);
	memset(copy_from, 1, b->bytes);
	memset(copy_to, 1, b->bytes);
	if (b->side)
		_exit(0);
}

static void *copy_loan(struct bench *b)
{
	(void)b;
	return copy_from;
}

static void copy_send(struct bench *b)
{
	memcpy(copy_to, copy_from, b->bytes);
	__asm__ volatile("" ::: "memory");
}

static const void *copy_recv(struct bench *b)
{
	(void)b;
	return copy_to;
}

static void copy_recv_done(struct bench *b)
{
	(void)b;
}

static const struct transport copy_transport = {
	"copy", copy_init, copy_open, copy_loan, copy_send, copy_recv, copy_recv_done, NULL, false,
};

const struct transport *const limit_transports[] = { &line_transport, &lines_transport, &copy_transport, NULL };
