// SPDX-License-Identifier: GPL-2.0-only
/*
 * parser_fuzz.c - everything in user space that reads what somebody else wrote, and the
 * settler, on inputs that are almost right. Built with the compiler's checkers for memory
 * and undefined behaviour; besides, each noun below says what must hold of any input.
 *
 *   parser_fuzz [NOUN...]	the corpus, then mutants of it: as many each time, the same
 *				for the same SHMK_TEST_SEED (0)
 *   parser_fuzz NOUN FILE	this input
 *
 * SHMK_FUZZ_RUNS: mutants of each noun. What a noun dies of is saved beside the program, as
 * crash-NOUN; mended, it goes to corpus/NOUN. With -DLIBFUZZER it is a target of clang's
 * libFuzzer instead, of the noun in SHMK_FUZZ_NOUN (`make fuzz`).
 *
 * monitor.c, cmd_recv.c and cmd_pool.c are part of this file, for their static functions;
 * what they would do to the machine is done here instead (see "the machine").
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <libmnl/libmnl.h>
#include <sanitizer/asan_interface.h>

#include "internal.h"
#include "local.h"
#include "tool.h"

#define INPUT_MAX	2048
#define HANGS_S		30

static char place[64];		/* a directory for files; SHMK_LOCAL_DIR */

#define must(what) do {							\
	if (!(what)) {							\
		fprintf(report, "# %s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
		fflush(report);						\
		abort();						\
	}								\
} while (0)

static FILE *report;		/* stdout is where the tool writes */

/* Takes bytes off the front; zeros when there are none left. */
struct input {
	const unsigned char *at, *end;
};

static uint64_t take(struct input *in, unsigned int nr)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < nr; i++)
		v |= (uint64_t)(in->at < in->end ? *in->at++ : 0) << 8 * i;
	return v;
}

static bool more(const struct input *in)
{
	return in->at < in->end;
}

/* The rest, up to @end or all, as a string of its own. */
static char *take_text(struct input *in, unsigned char end)
{
	const unsigned char *to = memchr(in->at, end, (size_t)(in->end - in->at));
	size_t len = (size_t)((to ? to : in->end) - in->at);
	char *s = malloc(len + 1);

	must(s);
	memcpy(s, in->at, len);
	s[len] = 0;
	in->at = to ? to + 1 : in->end;
	return s;
}

/* -------------------------------------------------------- the machine -- */

/* In a command of the tool: nothing is attached, made, removed, started or killed. */
static bool in_tool;
static jmp_buf tool_end;
static int tool_status;

struct shmk_attach_opts;
int __real_shmk_attach(const char *uri, const struct shmk_attach_opts *opts, struct shmk **s);
int __wrap_shmk_attach(const char *uri, const struct shmk_attach_opts *opts, struct shmk **s);
int __wrap_shmk_attach(const char *uri, const struct shmk_attach_opts *opts, struct shmk **s)
{
	return in_tool ? -ENOENT : __real_shmk_attach(uri, opts, s);
}

static int pool_made(const char *uri, const struct shmk_pool_opts *opts)
{
	const struct shmk_backend *backend;
	const char *name;

	must(opts->bytes);
	return uri_parse(uri, &backend, &name);
}

int __real_shmk_pool_create(const char *uri, const struct shmk_pool_opts *opts);
int __wrap_shmk_pool_create(const char *uri, const struct shmk_pool_opts *opts);
int __wrap_shmk_pool_create(const char *uri, const struct shmk_pool_opts *opts)
{
	return in_tool ? pool_made(uri, opts) : __real_shmk_pool_create(uri, opts);
}

#define NOTHING(ret, name, ...)						\
	ret __real_##name(__VA_ARGS__);					\
	ret __wrap_##name(__VA_ARGS__);					\
	ret __wrap_##name(__VA_ARGS__)

NOTHING(int, shmk_pool_destroy, const char *uri) { return in_tool ? -ENOENT : __real_shmk_pool_destroy(uri); }
NOTHING(int, shmk_pool_drain, const char *uri) { return in_tool ? -ENOENT : __real_shmk_pool_drain(uri); }
NOTHING(int, shmk_pool_reset, const char *uri, unsigned int flags) { return in_tool ? -ENOENT : __real_shmk_pool_reset(uri, flags); }
NOTHING(int, shmk_pool_cleanup, const char *uri) { return in_tool ? 0 : __real_shmk_pool_cleanup(uri); }
NOTHING(int, shmk_monitor_open, const char *uri, unsigned int flags, struct shmk_monitor **out) { return in_tool ? -ENODEV : __real_shmk_monitor_open(uri, flags, out); }
NOTHING(int, kill, pid_t pid, int sig) { return in_tool ? 0 : __real_kill(pid, sig); }
NOTHING(pid_t, fork, void) { errno = EAGAIN; return in_tool ? -1 : __real_fork(); }
NOTHING(int, nanosleep, const struct timespec *t, struct timespec *left) { (void)t, (void)left; return 0; }
NOTHING(int, pause, void) { must(!in_tool); return __real_pause(); }

void __real_exit(int status) __attribute__((noreturn));
void __wrap_exit(int status) __attribute__((noreturn));
void __wrap_exit(int status)
{
	if (!in_tool)
		__real_exit(status);
	tool_status = status;
	longjmp(tool_end, 1);
}

/* Of the tool: what is there may be read, nothing made. */
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
	va_list ap;
	int mode;

	va_start(ap, flags);
	mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, int) : 0;
	va_end(ap);
	if (in_tool && flags & (O_CREAT | O_WRONLY | O_RDWR)) {
		errno = EACCES;
		return -1;
	}
	return __real_open(path, flags, mode);
}

/* ------------------------------------------------------ parts of ours -- */

static struct input *wire;	/* what the kernel says */

static ssize_t from_wire(void *buf, size_t room, uint32_t seq, uint16_t family);

#define mnl_socket_sendto(nl, msg, len)		((void)(nl), (ssize_t)(len))
#define mnl_socket_recvfrom(nl, buf, room)	from_wire(buf, room, m->nlseq, m->family)
#define recvfrom(fd, buf, room, flags, from, len) ((void)(len), from_wire(buf, room, 0, m->family))
#define mnl_socket_close(nl)			((void)(nl))
#define mnl_nlmsg_put_header(buf) \
	(ASAN_UNPOISON_MEMORY_REGION(buf, BUF_BYTES), (mnl_nlmsg_put_header)(buf))
#include "../lib/monitor.c"
#undef recvfrom

#include "../tools/cmd_recv.c"
#include "../tools/cmd_pool.c"
#define main tool_main
int tool_main(int argc, char **argv);
#include "../tools/shmk.c"
#undef main

/* -------------------------------------------------------------- names -- */

static void names(struct input *in)
{
	char *uri = take_text(in, '\n'), to[SHMK_NAME_LEN];
	struct target t = TARGET_INIT;
	const struct shmk_backend *backend;
	struct shmk_endpoint *ep;
	const char *name;

	if (!uri_parse(uri, &backend, &name)) {
		must(name >= uri && name <= uri + strlen(uri));
		must(!*name || (strlen(name) < SHMK_NAME_LEN && name_valid(name)));
		must(!strchr(name, '/') && *name != '.');
	}
	if (!queue_name_copy(to, uri))
		must(!strcmp(to, uri));
	in_tool = true;
	must(shmk_endpoint_open(uri, NULL, &ep) && !ep);
	if (!target_parse_queue(&t, "send", uri))
		must(strlen(t.pool) < sizeof(t.pool) && *t.queue);
	target_option(&t, "send", 'P', uri);
	in_tool = false;
	free(uri);
}

/* ------------------------------------------------------------ numbers -- */

static void numbers(struct input *in)
{
	char *arg = take_text(in, '\n'), again[32];
	uint64_t n, m;
	uint32_t mode;
	int64_t ms;

	if (parse_size(arg, &n)) {
		snprintf(again, sizeof(again), "%llu", (unsigned long long)n);
		must(parse_size(again, &m) && m == n);
		must(*human(n) && *human_ns(n));
	}
	if (parse_number(arg, UINT32_MAX, &n))
		must(n <= UINT32_MAX);
	if (parse_mode(arg, &mode))
		must(mode <= 0777);
	if (parse_ms(arg, &ms))
		must(ms >= 0);
	free(arg);
}

/* --------------------------------------------------------------- conf -- */

static void conf(struct input *in)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), "%s/x.conf", place);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, in->at, (size_t)(in->end - in->at)) == in->end - in->at);
	close(fd);
	in_tool = true;
	must(load_file(path) <= EXIT_CRASHED);
	in_tool = false;
}

/* ------------------------------------------------------------ options -- */

static void options(struct input *in)
{
	char *argv[34] = { NULL }, *mine[34] = { strdup("shmk") };	/* the tool moves its own */
	int argc = 1;

	while (more(in) && argc < 32)
		mine[argc++] = take_text(in, '\n');
	memcpy(argv, mine, sizeof(argv));
	/* Those begin with something else than their options. */
	if (argc < 2 || !strcmp(argv[1], "doctor") || !strcmp(argv[1], "top"))
		goto free;
	optind = 0;
	in_tool = true;
	if (!setjmp(tool_end))
		tool_status = tool_main(argc, argv);
	in_tool = false;
	fflush(stdout);
	must(tool_status >= 0 && tool_status <= EXIT_CRASHED);
free:
	for (char **p = mine; *p; p++)
		free(*p);
}

/* ------------------------------------------------------------- stream -- */

static uint32_t random_peer;

/* What makes a message take effect: what is right follows from those before. */
static void stream_right(struct receiver *r, struct stream_head *h, bool ends)
{
	struct run *run = find_run(r, h->run);
	struct file *f = run ? find_file(run, h->file) : NULL;

	if (h->type == STREAM_DATA)
		h->sum = stream_sum(h + 1, h->len);
	if (h->type != STREAM_END || !f || !ends)
		return;
	h->sum = f->sum;
	h->seq = f->nr_chunks;
	h->offset = f->bytes;
}

/* Messages, each in memory of just its length, into a receiver that writes a directory. */
static void stream(struct input *in)
{
	unsigned char how = (unsigned char)take(in, 1);
	struct receiver r = { .t = TARGET_INIT, .window = 4096, .senders = 1, .fd = -1, .dir_fd = -1 };
	static const struct shmk_status empty;		/* a pool without peers */
	struct shmk nobody = { .self = ++random_peer, .status = &empty };
	int status = EXIT_OK;

	r.s = &nobody;
	r.quiet = true;
	if (how & 1) {
		r.dir = place;
		r.dir_fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	} else {
		r.fd = memfd_create("out", MFD_CLOEXEC);
		r.seekable = how & 2;
	}
	for (int i = 0; i < 20 && more(in) && !status; i++) {
		size_t len = (size_t)take(in, 2) % 600;
		struct stream_head *h;
		struct shmk_msg msg;

		len = len < (size_t)(in->end - in->at) ? len : (size_t)(in->end - in->at);
		h = malloc(len ? len : 1);
		must(h);
		memcpy(h, in->at, len);
		in->at += len;
		if (how & 4 && len >= sizeof(*h)) {	/* right but for what matters */
			h->magic = STREAM_MAGIC;
			h->version = STREAM_VERSION;
			h->len = (uint32_t)(len - sizeof(*h));
			h->flags &= (uint16_t)~STREAM_ACK;
			stream_right(&r, h, how & 8);
		} else if (len >= sizeof(*h)) {
			h->flags &= (uint16_t)~STREAM_ACK;	/* there is nobody to ask */
		}
		msg = (struct shmk_msg) { .data = h, .len = len, .room = len };
		status = take_message(&r, &msg);
		free(h);
	}
	must(r.early_bytes <= r.window);
	for (const struct run *run = r.runs; run; run = run->next)
		for (const struct file *f = run->files; f; f = f->next)
			must(!strchr(f->name, '/') && strcmp(f->name, "..") && f->mode <= 0777);
	forget_runs(&r, true);
	close(r.dir ? r.dir_fd : r.fd);
}

/* ------------------------------------------------------------- ranges -- */

#define RANGES_END 300

static void ranges(struct input *in)
{
	struct ranges rs = { .r = NULL };
	bool has[RANGES_END + 1] = { false };
	uint64_t from, to, a, b, end = 0;

	while (more(in)) {
		from = take(in, 1);
		to = from + take(in, 1) % (RANGES_END - from) + 1;
		must(ranges_add(&rs, from, to));
		memset(has + from, true, to - from);
		end = to > end ? to : end;
		must(ranges_end(&rs) == end);
		for (a = from; a < to && has[a]; a++)
			;
		must(ranges_has(&rs, from, to) == (a == to));
	}
	for (uint64_t at = 0; at < end; at++) {
		for (a = at; a < end && has[a]; a++)
			;
		for (b = a; b < end && !has[b]; b++)
			;
		must(ranges_gap(&rs, at, end, &from, &to) == (a < end));
		must(a == end || (from == a && to == b));
	}
	for (uint32_t i = 1; i < rs.nr; i++)
		must(rs.r[i - 1].to < rs.r[i].from);
	ranges_free(&rs);
}

/* ------------------------------------------------------------ netlink -- */

/* One datagram. What lies behind it in the buffer is not to be looked at. */
static ssize_t from_wire(void *buf, size_t room, uint32_t seq, uint16_t family)
{
	struct nlmsghdr *nlh = buf;
	unsigned char how;
	size_t len;

	ASAN_UNPOISON_MEMORY_REGION(buf, room);
	if (!more(wire)) {
		errno = EAGAIN;
		return -1;
	}
	how = (unsigned char)take(wire, 1);
	if (how == 255) {
		errno = ENOBUFS;
		return -1;
	}
	len = (size_t)take(wire, 2) % (room - MNL_ALIGNTO);
	len = len < (size_t)(wire->end - wire->at) ? len : (size_t)(wire->end - wire->at);
	memcpy(buf, wire->at, len);
	wire->at += len;
	if (len >= sizeof(*nlh)) {
		if (how & 1)
			nlh->nlmsg_len = (uint32_t)len;
		if (how & 2)
			nlh->nlmsg_seq = seq;
		if (how & 4)
			nlh->nlmsg_type = family;
	}
	/* Up to the alignment is libmnl's idea of it. */
	memset((char *)buf + len, 0xff, MNL_ALIGN(len) - len);
	ASAN_POISON_MEMORY_REGION((char *)buf + MNL_ALIGN(len), room - MNL_ALIGN(len));
	return (ssize_t)len;
}

static void netlink(struct input *in)
{
	struct shmk_monitor *m = calloc(1, sizeof(*m));
	struct shmk_monitor_event e;
	struct nlmsghdr *nlh;
	int ret;

	must(m);
	wire = in;
	m->backend = &shmk_module_backend;
	m->fd = -1;
	m->last = &m->first;
	m->nl = m->ask = (struct mnl_socket *)m;	/* any address: not used */
	m->family = 30;
	if (take(in, 1) & 1)
		strcpy(m->name, "x");
	nlh = begin(m, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	mnl_attr_put_strz(nlh, CTRL_ATTR_FAMILY_NAME, SHMK_FAMILY_NAME);
	ask(m, nlh, family_told);
	ASAN_UNPOISON_MEMORY_REGION(m->buf, sizeof(m->buf));
	list_module(m);
	for (int i = 0; i < 200; i++) {
		ASAN_UNPOISON_MEMORY_REGION(m->buf, sizeof(m->buf));
		ret = shmk_monitor_next(m, &e);
		if (ret)
			break;
		must(memchr(e.pool, 0, sizeof(e.pool)) && memchr(e.comm, 0, sizeof(e.comm)));
		must(e.type == SHMK_EV_LOST || !m->name[0] || !strcmp(e.pool, m->name));
	}
	must(ret <= 0);
	ASAN_UNPOISON_MEMORY_REGION(m->buf, sizeof(m->buf));
	m->fd = -1;
	shmk_monitor_close(m);
}

/* ---------------------------------------------------------------- dir -- */

static const struct shmk_pool_opts dir_opts = {
	.bytes = 128 << 10, .nr_peers = 3, .nr_queues = 3, .rings_bytes = 8192,
	.flags = SHMK_POOL_PERSIST,
};

/* What is in a directory of a pool that somebody made by hand. */
static void dir_spoil(int dir, struct input *in)
{
	static const char *const files[] = { "meta", "pool", "events", "lock" };
	const char *name = files[take(in, 1) % 4];
	uint64_t value;
	int fd;

	switch (take(in, 1) % 8) {
	case 0:
		unlinkat(dir, name, 0);
		break;
	case 1:
		unlinkat(dir, name, 0);
		mkfifoat(dir, name, 0600);
		break;
	case 2:
		unlinkat(dir, name, 0);
		mkdirat(dir, name, 0700);
		break;
	case 3:
		unlinkat(dir, name, 0);
		if (!symlinkat("/dev/zero", dir, name))
			break;
		break;
	case 4:
		fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
		value = take(in, 3);
		if (fd >= 0 && !ftruncate(fd, (off_t)value))
			close(fd);
		break;
	default:	/* words of the status, its queues and rows excepted */
		fd = openat(dir, "meta", O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
		for (uint64_t n = take(in, 1) % 8 + 1; fd >= 0 && n; n--) {
			off_t at = (off_t)take(in, 2) % (off_t)sizeof(struct shmk_status) & ~3;

			value = take(in, 8);
			if (pwrite(fd, &value, n & 1 ? 8 : 4, at) < 0)
				break;		/* no file any more */
		}
		if (fd >= 0)
			close(fd);
	}
}

static int dir_told(const struct shmk_pool_stat *stat, void *arg)
{
	(void)arg;
	must(memchr(stat->name, 0, sizeof(stat->name)));
	return 0;
}

static void dir(struct input *in)
{
	struct shmk_attach_opts opts = { .nr_entries = 8 };
	struct shmk_pool_stat stat;
	struct shmk *s;
	char path[96], text[200];
	int fd;

	shmk_pool_cleanup("local:");
	snprintf(path, sizeof(path), "%s/shmk-x", place);
	must(!shmk_pool_create("local:x", &dir_opts));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	must(fd >= 0);
	for (int i = 0; i < 4 && more(in); i++)
		dir_spoil(fd, in);
	shmk_pool_list("local", dir_told, NULL);
	for (int i = 0; i < 2; i++) {
		opts.flags = i ? 0 : SHMK_ATTACH_RDONLY;
		if (shmk_attach("local:x", &opts, &s))
			continue;
		shmk_pool_stat(s, &stat);
		shmk_pool_check(s, text, sizeof(text));
		shmk_detach(s);
	}
	shmk_pool_destroy("local:x");
	/* What the library leaves alone, as none of its own. */
	for (const char *const *f = (const char *const []){ "meta", "pool", "events", "lock", NULL }; *f; f++)
		if (unlinkat(fd, *f, 0))
			unlinkat(fd, *f, AT_REMOVEDIR);
	close(fd);
	rmdir(path);
}

/* ------------------------------------------- words of a pool: a model -- */

#define NR_SPANS	2U
#define NR_BLOCKS	(NR_SPANS * SHMK_SPAN_UNITS)
#define NR_PEERS	3U
#define NR_ENTRIES	8U
#define NR_QUEUES	3U
#define SHIFT		2U
#define RING_BYTES	(sizeof(struct shmk_ring) + (64UL << SHIFT))
#define AREA_MOST	8192U
#define LEDGER_BYTES	(sizeof(struct shmk_ledger) + NR_ENTRIES * sizeof(struct shmk_entry))

struct words {
	struct shmk_status	status;		/* what no member can write */
	struct shmk_peer_status	peer[NR_PEERS + 1];
	struct shmk_queue_status queue[NR_QUEUES];
	struct shmk_row		row[4];
};

/* Each in memory of just its size. */
enum { SPANS, TAKEN, STALE, BLOCKS, RINGS, LEDGERS = RINGS + NR_QUEUES, NR_AREAS };

struct model {
	struct shmk	s;
	struct words	*w;
	void		*area[NR_AREAS];
	size_t		bytes[NR_AREAS];
};

static void model_queue(const struct shmk_view *view, __u32 id, struct shmk_ring_view *rv)
{
	struct model *md = view->owner;

	rv->slots = NULL;
	if (id >= NR_QUEUES)
		return;
	rv->ring = md->area[RINGS + id];
	rv->capacity_shift = SHIFT;
	rv->slot_bytes = 64;
	rv->flags = id == 2 ? SHMK_QUEUE_F_TOPIC : id ? SHMK_QUEUE_F_REDELIVER : 0;
	rv->max_tries = id ? 3 : 0;
	rv->slots = (void *)(rv->ring + 1);
}

static void model_make(struct model *md)
{
	struct shmk_status *st;

	memset(md, 0, sizeof(*md));
	md->w = calloc(1, sizeof(*md->w));
	must(md->w);
	st = &md->w->status;
	st->nr_peers = NR_PEERS;
	st->nr_queues = NR_QUEUES;
	st->nr_spans = NR_SPANS;
	st->nr_blocks = NR_BLOCKS;
	st->unit_shift = SHMK_UNIT_SHIFT_MIN;
	st->nr_rows = 4;
	st->peers_off = offsetof(struct words, peer);
	st->queues_off = offsetof(struct words, queue);
	st->rows_off = offsetof(struct words, row);
	st->ledger_stride = LEDGER_BYTES;
	md->bytes[SPANS] = NR_SPANS * sizeof(struct shmk_span);
	md->bytes[TAKEN] = md->bytes[STALE] = 8;
	md->bytes[BLOCKS] = NR_BLOCKS * sizeof(struct shmk_block);
	for (uint32_t q = 0; q < NR_QUEUES; q++)
		md->bytes[RINGS + q] = RING_BYTES;
	md->bytes[LEDGERS] = (NR_PEERS + 1) * LEDGER_BYTES;
	for (uint32_t i = 0; i < NR_AREAS; i++) {
		must(!posix_memalign(&md->area[i], 64, md->bytes[i]));
		memset(md->area[i], 0, md->bytes[i]);
	}
	md->s.status = st;
	md->s.ledgers = md->area[LEDGERS];
	md->s.view = (struct shmk_view) {
		.spans = md->area[SPANS], .taken_map = md->area[TAKEN],
		.stale_map = md->area[STALE], .blocks = md->area[BLOCKS],
		.nr_spans = NR_SPANS, .unit_shift = st->unit_shift, .nr_queues = NR_QUEUES,
		.queue = model_queue, .owner = md,
	};
	for (uint32_t p = 1; p <= NR_PEERS; p++) {
		md->w->peer[p].word = SHMK_PEER_WORD(1, 0, p == 2 ? SHMK_PEER_DEAD : SHMK_PEER_ALIVE);
		md->w->peer[p].nr_entries = NR_ENTRIES;
	}
	for (uint32_t q = 0; q < NR_QUEUES; q++) {
		md->w->queue[q].capacity = 1 << SHIFT;
		md->w->queue[q].nr_elements = 5;
		md->w->queue[q].nr_holds = 1;
		md->w->queue[q].nr_readers = q == 2 ? 2 : 0;
	}
}

static void model_drop(struct model *md)
{
	free(md->w);
	for (uint32_t i = 0; i < NR_AREAS; i++)
		free(md->area[i]);
}

/* All that the members can write, but the ledger of @but; to be freed. */
static unsigned char *model_copy(const struct model *md, uint32_t but)
{
	unsigned char *copy = calloc(NR_AREAS, AREA_MOST), *to = copy;

	must(copy);
	for (uint32_t i = 0; i < NR_AREAS; i++, to += AREA_MOST)
		memcpy(to, md->area[i], md->bytes[i]);
	memset(to - AREA_MOST + but * LEDGER_BYTES, 0, LEDGER_BYTES);
	return copy;
}

static struct shmk_entry *model_entry(struct model *md, uint32_t peer, uint32_t i)
{
	struct shmk_ledger *l = (void *)((char *)md->area[LEDGERS] + peer * LEDGER_BYTES);

	return &l->entry[i];
}

/* Few, so that they meet; and where the pool ends. */
static uint32_t model_block(uint32_t b)
{
	static const uint32_t ends[] = { NR_BLOCKS - 1, NR_BLOCKS, NR_BLOCKS + 1, NR_SPANS - 1, NR_SPANS,
					 SHMK_NO_BLOCK, 256, 0x8000 };

	return b & 0x80 ? ends[b & 7] : b & 7;
}

static uint64_t model_word(struct input *in, uint32_t kind)
{
	uint32_t a = (uint32_t)take(in, 1), b = (uint32_t)take(in, 1), c = (uint32_t)take(in, 1);

	switch (kind) {
	case 0:		/* an entry's what */
		return SHMK_WHAT(a % 24, model_block(b), c % 4);
	case 1:		/* where */
		return SHMK_WHERE(a % 4, 5ULL << SHIFT | b % 8);
	case 2:		/* a block's word */
		return SHMK_BLOCK_UP_WORD(c % 4, model_block(b), a & 15);
	case 3:		/* a slot's P */
		return SHMK_P(5 + c % 2, a % 7, model_block(b));
	case 4:		/* T */
		return SHMK_T_TRIED(5 + c % 2, a % 4, b % 4);
	case 5:		/* a span */
		return SHMK_SPAN_WORD(c % 4, a % 4, b % 4, a >> 4, b >> 5);
	default:
		return take(in, 8);
	}
}

static void model_spoil(struct model *md, struct input *in)
{
	static const uint64_t few[] = { 1, 2, 3, 16, 258 };

	while (more(in)) {
		uint32_t kind = (uint32_t)take(in, 1), at = (uint32_t)take(in, 2);
		uint64_t word = model_word(in, kind & 0x80 ? 6 : kind % 6);
		struct shmk_ring_view rv;

		switch (kind % 8) {
		case 0:
			model_entry(md, 1 + at % 3, at >> 2 & 7)->what = word;
			break;
		case 1:
			model_entry(md, 1 + at % 3, at >> 2 & 7)->where = word;
			break;
		case 2:
			md->s.view.blocks[kind & 0x40 ? at % NR_BLOCKS : at % 8].word = word;
			break;
		case 3:
		case 4:
			model_queue(&md->s.view, at % NR_QUEUES, &rv);
			if (kind % 8 == 3)
				shmk_slot_at(&rv, at >> 4 & 3)->p = word;
			else
				shmk_slot_at(&rv, at >> 4 & 3)->t = word;
			break;
		case 5:
			if (kind & 0x40)
				md->s.view.spans[at % NR_SPANS].nr_spans = few[at >> 4 & 3] + (word & 0xff);
			else
				md->s.view.spans[at % NR_SPANS].word = word;
			break;
		case 6:
			md->s.view.blocks[at % 8].len = word;
			break;
		default:
			((struct shmk_ledger *)((char *)md->area[LEDGERS] + (1 + at % 3) * LEDGER_BYTES))->high =
				word;
		}
	}
}

/* ------------------------------------------------------------- settle -- */

static void settle_all(struct model *md, struct shmk_settled *settled)
{
	uint32_t i;

	for (i = 0; i < NR_ENTRIES; i++)
		shmk_settle_entry(&md->s.view, 2, model_entry(md, 2, i), settled);
	for (i = 0; i < NR_ENTRIES; i++)
		shmk_settle_redo(&md->s.view, 2, model_entry(md, 2, i), settled);
	for (i = 0; i < NR_ENTRIES; i++)
		shmk_settle_span(&md->s.view, 2, model_entry(md, 2, i));
}

/* Whatever the dead one and the others wrote: it ends, is all done, and a second time does nothing. */
static void settle(struct input *in)
{
	struct shmk_settled settled = { 0 }, again = { 0 };
	unsigned char *kept, *now;
	struct model md;

	model_make(&md);
	model_spoil(&md, in);
	kept = model_copy(&md, 2);
	settle_all(&md, &settled);
	for (uint32_t i = 0; i < NR_ENTRIES; i++)
		must(SHMK_WHAT_OP(model_entry(&md, 2, i)->what) == SHMK_OP_NONE);
	must(settled.entries <= NR_ENTRIES * 2 && settled.blocks <= NR_BLOCKS);
	now = model_copy(&md, 2);
	/* Nobody else's ledger. */
	must(!memcmp(kept + LEDGERS * AREA_MOST, now + LEDGERS * AREA_MOST, AREA_MOST));
	settle_all(&md, &again);
	free(kept);
	kept = model_copy(&md, 2);
	must(!memcmp(kept, now, NR_AREAS * AREA_MOST) && !again.entries && !again.blocks);
	free(kept);
	free(now);
	for (uint32_t q = 0; q < NR_QUEUES; q++) {
		struct shmk_ring_view rv;

		model_queue(&md.s.view, q, &rv);
		shmk_settle_queue(&md.s.view, &rv, &again);
	}
	shmk_settle_usage(&md.s.view, 0, NR_SPANS, &again);
	model_drop(&md);
}

/* --------------------------------------------------------------- fsck -- */

static int no_reap(struct shmk *s)
{
	(void)s;
	return 0;
}

static int holding_told(const struct shmk_holding *h, void *arg)
{
	uint64_t *nr = arg;

	(void)h;
	return ++*nr > 100000;
}

/* What looks at a pool says something of any. */
static void fsck(struct input *in)
{
	struct shmk_backend backend = { .reap = no_reap };
	struct shmk_pool_space space;
	char text[200];
	struct model md;
	uint64_t nr = 0;
	int ret;

	model_make(&md);
	md.s.backend = &backend;
	model_spoil(&md, in);
	md.w->peer[2].word = SHMK_PEER_WORD(1, 0, SHMK_PEER_ALIVE);
	ret = shmk_pool_check(&md.s, text, sizeof(text));
	must(ret == 0 || ret == -EUCLEAN);
	must(strlen(text) < sizeof(text) && !*text == !ret);
	must(!shmk_pool_dump(&md.s, holding_told, &nr));
	shmk_pool_space(&md.s, &space);
	model_drop(&md);
}

/* ----------------------------------------------------------- mutation -- */

struct noun {
	const char *name;
	void (*run)(struct input *in);
	unsigned int runs;	/* a second or two */
	const char *words;	/* that mean something, each behind its length */
};

#define W(s) s "\0"
static const struct noun nouns[] = {
	{ "names", names, 120000, W("local:") W("shmk:") W("/") W(":") W("..") W("-") W("tcp:")
	  W("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") },
	{ "numbers", numbers, 100000, W("0x") W("1e9") W("18446744073709551615") W("KiB") W("ms") W("min")
	  W(".") W("E") W("-1") W("nan") W("inf") W("0777") W("9223372036854775808") },
	{ "conf", conf, 20000, W("size = 64M\n") W("page 2M\n") W("unit 256\n") W("peers 4096\n")
	  W("mode 0660\n") W("#") W("uid root\n") W("node 1\n") W("=") W("rings 1M\n") },
	{ "options", options, 40000, W("send\n") W("recv\n") W("pool\ncreate\n") W("--size\n") W("--json\n")
	  W("--timeout\n") W("local:x/q\n") W("--pool\n") W("call\n") W("serve\n") W("events\n")
	  W("monitor\n") W("dump\n") W("chaos\n") W("--help\n") W("--\n") W("wait\n") W("sub\n") },
	{ "stream", stream, 30000, W("STRM\1\1") W("STRM\1\2") W("STRM\1\3") },
	{ "ranges", ranges, 30000, W("") },
	{ "netlink", netlink, 100000, W("privileged") W("events") W("shmk") },
	{ "dir", dir, 1500, W("") },
	{ "settle", settle, 60000, W("") },
	{ "fsck", fsck, 6000, W("") },
};
#define NR_NOUNS (sizeof(nouns) / sizeof(*nouns))

static const struct noun *find_noun(const char *name)
{
	for (size_t i = 0; i < NR_NOUNS; i++)
		if (!strcmp(nouns[i].name, name))
			return &nouns[i];
	return NULL;
}

static void run_input(const struct noun *n, const unsigned char *data, size_t len)
{
	unsigned char *copy = malloc(len ? len : 1);	/* of just its size */
	struct input in = { .at = copy, .end = copy + len };

	must(copy);
	memcpy(copy, data, len);
	n->run(&in);
	free(copy);
}

static void place_make(void)
{
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC), out = dup(STDOUT_FILENO);
	const char *v = getenv("V");

	strcpy(place, "/dev/shm/shmk_fuzz.XXXXXX");
	if (!mkdtemp(place) || setenv("SHMK_LOCAL_DIR", place, 1) || null < 0 || out < 0)
		abort();
	if (chdir(place))
		abort();
	report = fdopen(out, "w");
	if (!v || !*v) {
		dup2(null, STDOUT_FILENO);
		stderr = fdopen(null, "w");	/* the checkers write past it */
	}
	must(report && stderr);
	signal(SIGPIPE, SIG_IGN);
}

static void place_empty(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", place);
	if (system(command))
		fprintf(report, "# %s is left\n", place);
}

/* Parts of the tool end without giving memory back, as a process may. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:allocator_may_return_null=1:handle_abort=1";
}

#ifdef LIBFUZZER

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t len);

static const struct noun *fuzzed;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *name = getenv("SHMK_FUZZ_NOUN");

	(void)argc, (void)argv;
	fuzzed = find_noun(name ? name : "");
	if (!fuzzed) {
		fprintf(stderr, "SHMK_FUZZ_NOUN: no noun '%s'\n", name);
		exit(2);
	}
	place_make();
	dup2(fileno(report), STDOUT_FILENO);
	atexit(place_empty);
	return 0;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t len)
{
	run_input(fuzzed, data, len);
	return 0;
}

#else

#include <dirent.h>

#define SEEDS 64

struct seed {
	size_t len;
	unsigned char data[INPUT_MAX];
};

static struct seed seeds[SEEDS];
static unsigned int nr_seeds;
static uint64_t chance;

/* What is being run, for the parent to save. */
static struct seed *now;

static uint64_t rnd64(void)
{
	uint64_t z = (chance += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static size_t rnd(size_t n)
{
	return n ? rnd64() % n : 0;
}

static bool seed_read(const char *path)
{
	struct seed *s = &seeds[nr_seeds];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, s->data, INPUT_MAX);

	close(fd);
	if (n < 0)
		return false;
	s->len = (size_t)n;
	nr_seeds++;
	return true;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

/* In the order of their names, so that a run can be repeated. */
static void seeds_read(const struct noun *n)
{
	char path[512];
	struct dirent **list;
	int nr;

	nr_seeds = 0;
	snprintf(path, sizeof(path), "%s/%s", CORPUS, n->name);
	nr = scandir(path, &list, NULL, by_name);
	for (int i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "%s/%s/%s", CORPUS, n->name, list[i]->d_name);
		if (list[i]->d_name[0] != '.' && nr_seeds < SEEDS)
			must(seed_read(path));
		free(list[i]);
	}
	free(nr < 0 ? NULL : list);
	must(nr_seeds);
}

static void seed_splice(struct seed *s, size_t at, size_t gone, const void *in, size_t len)
{
	size_t rest;

	at = at < s->len ? at : s->len;
	gone = gone < s->len - at ? gone : s->len - at;
	rest = s->len - at - gone;
	if (at + len + rest > INPUT_MAX)
		return;
	memmove(s->data + at + len, s->data + at + gone, rest);
	if (len)
		memcpy(s->data + at, in, len);
	s->len = at + len + rest;
}

static void put_word(struct seed *s, const struct noun *n)
{
	unsigned int nr = 0, want;
	const char *w;

	for (w = n->words; *w; w += strlen(w) + 1)
		nr++;
	if (!nr)
		return;
	for (w = n->words, want = (unsigned int)rnd(nr); want; want--)
		w += strlen(w) + 1;
	seed_splice(s, rnd(s->len + 1), rnd(2) ? 0 : rnd(8), w, strlen(w));
}

static void mutate_once(struct seed *s, const struct noun *n)
{
	static const uint64_t odd[] = { 0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0x80000000,
					0xffffffff, INT64_MAX, UINT64_MAX, 16, 4096, 1 << 20 };
	unsigned char bytes[32];
	const struct seed *other = &seeds[rnd(nr_seeds)];
	size_t at = rnd(s->len), len = rnd(2) ? 1 + rnd(8) : rnd(32);
	uint64_t v = rnd64();

	switch (rnd(10)) {
	case 0:
		if (s->len)
			s->data[at] ^= (unsigned char)(1U << rnd(8));
		break;
	case 1:
		seed_splice(s, at, 1, &v, 1);
		break;
	case 2:
		v = odd[rnd(sizeof(odd) / sizeof(*odd))];
		len = (size_t)1 << rnd(4);
		seed_splice(s, at, len, &v, len);
		break;
	case 3:
		seed_splice(s, at, len, NULL, 0);
		break;
	case 4:
		memcpy(bytes, &v, 8);
		memcpy(bytes + 8, &v, 8);
		seed_splice(s, at, 0, bytes, len % 16);
		break;
	case 5:		/* a piece of its own, elsewhere */
	case 6:		/* of another one */
		other = rnd(2) ? s : other;
		at = rnd(other->len);
		len = len < other->len - at ? len : other->len - at;
		memcpy(bytes, other->data + at, len);
		seed_splice(s, rnd(s->len + 1), rnd(2) ? len : 0, bytes, len);
		break;
	case 7:
		if (s->len) {
			s->data[at] = (unsigned char)(s->data[at] + (rnd(2) ? 1 : -1));
		}
		break;
	default:
		put_word(s, n);
	}
}

static void noun_run(const struct noun *n, unsigned int runs)
{
	for (unsigned int i = 0; i < nr_seeds; i++) {
		*now = seeds[i];
		alarm(HANGS_S);
		run_input(n, now->data, now->len);
	}
	for (unsigned int i = 0; i < runs; i++) {
		*now = seeds[rnd(nr_seeds)];
		for (size_t m = 1 + rnd(6); m; m--)
			mutate_once(now, n);
		alarm(HANGS_S);
		run_input(n, now->data, now->len);
	}
}

static void save(const struct noun *n, const char *self)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s.crash-%s", self, n->name);
	f = fopen(path, "we");
	if (f) {
		fwrite(now->data, 1, now->len, f);
		fclose(f);
	}
	fprintf(report, "# its input is in %s\n", path);
}

/* In a process of its own: the others go on when it dies. */
static bool noun_passes(const struct noun *n, unsigned int runs, const char *self)
{
	int status = 0;
	pid_t pid;

	fflush(report);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		noun_run(n, runs);
		fflush(report);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return false;
	if (!status)
		return true;
	fprintf(report, "# %s: %s %d\n", n->name, WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	save(n, self);
	return false;
}

int main(int argc, char **argv)
{
	const char *env = getenv("SHMK_FUZZ_RUNS"), *seed = getenv("SHMK_TEST_SEED");
	char self[256] = "parser_fuzz", *file = NULL;
	unsigned int nr = 0, failed = 0;

	if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
		return 1;
	if (argc == 3 && !find_noun(argv[2]))
		file = realpath(argv[2], NULL);
	now = mmap(NULL, sizeof(*now), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	place_make();
	if (file) {
		must(seed_read(file));
		run_input(find_noun(argv[1]), seeds[0].data, seeds[0].len);
		place_empty();
		return 0;
	}
	fprintf(report, "TAP version 13\n1..%zu\n", argc > 1 ? (size_t)argc - 1 : NR_NOUNS);
	for (size_t i = 0; i < (argc > 1 ? (size_t)argc - 1 : NR_NOUNS); i++) {
		const struct noun *n = argc > 1 ? find_noun(argv[i + 1]) : &nouns[i];
		unsigned int runs;
		bool ok;

		must(n);
		runs = env ? (unsigned int)strtoul(env, NULL, 0) : n->runs;
		chance = seed ? strtoull(seed, NULL, 0) : 0;
		seeds_read(n);
		ok = noun_passes(n, runs, self);
		failed += !ok;
		fprintf(report, "%sok %u %s # %u of the corpus, %u mutants\n", ok ? "" : "not ", ++nr, n->name,
			nr_seeds, runs);
		fflush(report);
	}
	place_empty();
	return failed != 0;
}

#endif
