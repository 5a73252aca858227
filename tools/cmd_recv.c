// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk recv
 *
 * write() goes directly out of blocks of the pool. What that needs depends on
 * where it goes:
 *   one output, seekable      the file whose turn it is at its place by pwrite();
 *                             what belongs to later files waits in memory
 *   one output, a pipe        in order; what comes too early waits in memory
 *   --dir                     each file has its own output, nothing waits
 * Waiting in memory, not in the pool: a receiver that sits on blocks while it
 * waits for a message whose sender waits for a block would wait for ever.
 *
 * --shared: this is one of several readers. It sees some of the chunks only,
 * writes them at their place and says so; the sender knows when all is there.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "ranges.h"
#include "stream.h"
#include "tool.h"

#define MS		1000000LL
#define SLICE_NS	(100 * MS)
#define PATIENCE_MS	5000
#define WINDOW_BYTES	(256ULL << 20)
#define ACK_ATTEMPTS	100

/* A chunk that came before its turn. */
struct early {
	struct early *next;
	uint64_t offset;
	uint32_t len;
	char data[];
};

struct file {
	struct file *next;	/* of the same run, by index */
	uint32_t index;
	bool have_end, finished;
	uint64_t total, chunks;	/* once have_end */
	uint64_t sum_wanted;
	uint64_t nr_chunks, sum, bytes;	/* so far */
	uint32_t mode;
	char name[STREAM_NAME_MAX + 1];
	struct ranges got;
	struct early *early;	/* by offset */
	uint64_t cursor;	/* written in order up to here */
	int fd;			/* --dir */
	char part[64];		/* --dir: name until it is finished */
};

struct run {
	struct run *next;	/* in the order they were first seen */
	uint64_t id;
	uint32_t peer, gen;
	bool ack;
	uint64_t max_order;
	struct shmk_queue *back;
	bool back_tried;
	struct file *files;
	uint32_t turn;		/* all files before this one are finished */
	int64_t last;		/* index of the last file, -1: not known yet */
	bool finished;
	bool sender_gone, sender_died;
};

struct receiver {
	struct target t;
	const char *output, *dir;
	bool shared, follow, raw, quiet, verbose;
	uint64_t senders, count, window;
	int64_t patience_ms;

	struct shmk *s;
	struct shmk_queue *q;
	int fd, dir_fd;
	bool seekable;
	uint64_t base;		/* --output: where the current file begins */

	struct run *runs;
	uint64_t finished_runs;
	uint64_t early_bytes;
	uint64_t messages, twice, damaged, stale;
	int64_t moved_ns;
	struct progress progress;
};

static const char *name_of(const struct file *f)
{
	return f->name[0] ? f->name : "standard input";
}

/* ------------------------------------------------------------- output -- */

static int write_at(struct receiver *r, int fd, bool seekable, uint64_t at,
		    const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = seekable ? pwrite(fd, p, len, at) : write(fd, p, len);

		if (n < 0 && errno == EINTR && !stop_signal)
			continue;
		if (n <= 0)
			return fail(n ? -errno : -EIO, "cannot write %s%s",
				    r->dir ? "into " : "", r->dir ? r->dir :
				    r->output ? r->output : "to standard output");
		p += n;
		at += n;
		len -= n;
	}
	return EXIT_OK;
}

/* Is it this file's turn? Always, if it has an output of its own. */
static bool has_turn(const struct receiver *r, const struct run *run, const struct file *f)
{
	const struct run *first = r->runs;

	if (r->dir || r->shared)
		return true;
	while (first && first->finished)
		first = first->next;
	if (first != run)
		return false;
	return f->index == run->turn;
}

static int keep_early(struct receiver *r, struct file *f, const struct stream_head *h,
		      const void *data)
{
	struct early **at = &f->early, *e;

	if (r->early_bytes + h->len > r->window) {
		say("more than %s came before its turn: use --dir DIR, --output FILE or a larger --window",
		    human(r->window));
		return EXIT_NOSPACE;
	}
	e = malloc(sizeof(*e) + h->len);
	if (!e)
		return fail(-ENOMEM, "cannot keep what came before its turn");
	e->offset = h->offset;
	e->len = h->len;
	memcpy(e->data, data, h->len);
	while (*at && (*at)->offset < e->offset)
		at = &(*at)->next;
	e->next = *at;
	*at = e;
	r->early_bytes += h->len;
	return EXIT_OK;
}

/* Write what waited and may go now. */
static int write_early(struct receiver *r, struct file *f)
{
	struct early *e;
	int status;

	while ((e = f->early) && (r->seekable || e->offset == f->cursor)) {
		status = write_at(r, r->fd, r->seekable, r->base + e->offset, e->data, e->len);
		if (status)
			return status;
		f->cursor = e->offset + e->len;
		f->early = e->next;
		r->early_bytes -= e->len;
		free(e);
	}
	return EXIT_OK;
}

static int open_part(struct receiver *r, struct run *run, struct file *f)
{
	if (f->fd >= 0)
		return EXIT_OK;
	snprintf(f->part, sizeof(f->part), ".shmk-%016" PRIx64 "-%u.part", run->id, f->index);
	f->fd = openat(r->dir_fd, f->part, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (f->fd < 0)
		return fail(-errno, "cannot create a file in \"%s\"", r->dir);
	return EXIT_OK;
}

static int store(struct receiver *r, struct run *run, struct file *f, const struct stream_head *h,
		 const void *data)
{
	int status;

	if (r->dir) {
		status = open_part(r, run, f);
		return status ? status : write_at(r, f->fd, true, h->offset, data, h->len);
	}
	if (!has_turn(r, run, f) || (!r->seekable && h->offset != f->cursor))
		return keep_early(r, f, h, data);
	status = write_at(r, r->fd, r->seekable, r->base + h->offset, data, h->len);
	if (status)
		return status;
	f->cursor = h->offset + h->len;
	return write_early(r, f);
}

/* -------------------------------------------------------- runs and files -- */

static void forget_run(struct receiver *r, struct run *run)
{
	struct file *f;
	struct early *e;

	while ((f = run->files)) {
		run->files = f->next;
		while ((e = f->early)) {
			f->early = e->next;
			free(e);
		}
		if (f->fd >= 0) {
			close(f->fd);
			/* Nobody goes on with a part; other readers may still be at it. */
			if (!r->shared)
				unlinkat(r->dir_fd, f->part, 0);
		}
		ranges_free(&f->got);
		free(f);
	}
	free(run);
}

/*
 * Of a run that is finished, copies may come as long as its sender lives; later
 * ones are known by that. So --follow does not remember all there ever was.
 */
static void forget_runs(struct receiver *r, bool all)
{
	struct run **at = &r->runs, *run;

	while ((run = *at)) {
		if (!all && (!run->finished || shmk_peer_alive(r->s, run->peer, run->gen))) {
			at = &run->next;
			continue;
		}
		*at = run->next;
		forget_run(r, run);
	}
}

static struct run *find_run(struct receiver *r, uint64_t id)
{
	struct run *run = r->runs;

	while (run && run->id != id)
		run = run->next;
	return run;
}

static struct run *new_run(struct receiver *r, const struct stream_head *h)
{
	struct run **at, *run = calloc(1, sizeof(*run));

	if (!run)
		return NULL;
	forget_runs(r, false);
	run->id = h->run;
	run->peer = h->peer;
	run->gen = h->gen;
	run->ack = h->flags & STREAM_ACK;
	run->last = -1;
	for (at = &r->runs; *at; at = &(*at)->next)
		;
	*at = run;
	return run;
}

static struct file *find_file(struct run *run, uint32_t index)
{
	struct file **at = &run->files, *f;

	while (*at && (*at)->index < index)
		at = &(*at)->next;
	if (*at && (*at)->index == index)
		return *at;
	f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->index = index;
	f->fd = -1;
	f->next = *at;
	*at = f;
	return f;
}

/* The name is another process's word: no directories, nothing hidden by accident. */
static void take_info(struct receiver *r, struct file *f, const struct stream_head *h,
		      const struct stream_info *info)
{
	uint64_t size = info->size;

	if (!f->name[0]) {
		memcpy(f->name, info->name, stream_name_len(h));
		f->name[stream_name_len(h)] = '\0';
		for (char *p = f->name; *p; p++)
			if (*p == '/' || (unsigned char)*p < ' ' || *p == 0x7f)
				*p = '_';
		if (!strcmp(f->name, ".") || !strcmp(f->name, ".."))
			f->name[0] = '_';
		/* A total is known only if one file is all there is to receive. */
		if (!f->index && !r->runs->next && size != STREAM_SIZE_UNKNOWN && !r->progress.total)
			r->progress.total = size;
	}
	f->mode = info->mode & 0777;	/* no program of ours for everybody */
}

/* ------------------------------------------------------------- answers -- */

static bool sender_alive(struct receiver *r, const struct run *run)
{
	return shmk_peer_alive(r->s, run->peer, run->gen);
}

static void answer(struct receiver *r, struct run *run, uint32_t file, uint8_t what, uint64_t seq)
{
	struct stream_ack a = {
		.magic = STREAM_MAGIC,
		.answer = what,
		.flags = r->shared ? STREAM_SHARED : 0,
		.peer = shmk_self(r->s),
		.gen = shmk_self_gen(r->s),
		.file = file,
		.count = 1,
		.seq = seq,
		.order = run->max_order,
		.run = run->id,
	};
	char name[64];

	if (!run->ack)
		return;
	if (!run->back && !run->back_tried) {
		stream_back_name(name, run->peer, run->gen, run->id);
		run->back_tried = shmk_queue_open(r->s, name, NULL, SHMK_TRY, &run->back) < 0;
	}
	/* The sender reads its answers whatever else it waits for, as long as it lives. */
	for (int i = 0; run->back && i < ACK_ATTEMPTS; i++) {
		int err = shmk_send_copy(run->back, &a, sizeof(a), now_ns() + SLICE_NS);

		if ((err != -ETIMEDOUT && err != -EAGAIN && err != -ENOMEM) ||
		    !sender_alive(r, run))
			break;
	}
}

static void close_back(struct receiver *r, struct run *run)
{
	char name[64];

	if (!run->back)
		return;
	shmk_queue_close(run->back);
	run->back = NULL;
	stream_back_name(name, run->peer, run->gen, run->id);
	shmk_queue_remove(r->s, name);	/* -EBUSY: the sender will */
}

/* ----------------------------------------------------------- finishing -- */

/* Give the file its name. With several readers each tries, and one succeeds. */
static int commit_part(struct receiver *r, struct file *f)
{
	const char *name = f->name[0] ? f->name : "stdin";
	mode_t mask;

	if (f->have_end && ftruncate(f->fd, f->total) < 0)
		return fail(-errno, "cannot set the size of \"%s/%s\"", r->dir, name);
	if (f->mode) {
		mask = umask(0);
		umask(mask);
		fchmod(f->fd, f->mode & ~mask);
	}
	close(f->fd);
	f->fd = -1;
	if (renameat(r->dir_fd, f->part, r->dir_fd, name) < 0 && errno != ENOENT)
		return fail(-errno, "cannot rename \"%s/%s\" to \"%s\"", r->dir, f->part, name);
	return EXIT_OK;
}

static bool complete(const struct file *f)
{
	return f->have_end && f->nr_chunks == f->chunks && f->bytes == f->total;
}

static int finish_file(struct receiver *r, struct run *run, struct file *f)
{
	int status;

	if (f->sum != f->sum_wanted) {
		say("\"%s\" has the wrong checksum: send it again", name_of(f));
		return EXIT_FAILED;
	}
	if (r->dir) {
		status = open_part(r, run, f);	/* an empty file has no chunks */
		if (!status)
			status = commit_part(r, f);
		if (status)
			return status;
	} else {
		r->base += f->total;
	}
	f->finished = true;
	ranges_free(&f->got);
	answer(r, run, f->index, STREAM_DONE, 0);
	return EXIT_OK;
}

static void see_run_end(struct receiver *r, struct run *run)
{
	for (struct file *f = run->files; f; f = f->next)
		if (f->finished && f->index == run->turn)
			run->turn++;
	if (run->finished || run->last < 0 || run->turn != run->last + 1)
		return;
	run->finished = true;
	r->finished_runs++;
	close_back(r, run);
}

/* Finish what is complete and has its turn; that may give others theirs. */
static int finish_all(struct receiver *r)
{
	bool again = true;
	int status;

	while (again && !r->shared) {
		again = false;
		for (struct run *run = r->runs; run; run = run->next) {
			for (struct file *f = run->files; f; f = f->next) {
				if (f->finished || !has_turn(r, run, f))
					continue;
				status = r->dir ? EXIT_OK : write_early(r, f);
				if (!status && complete(f) && !f->early) {
					status = finish_file(r, run, f);
					see_run_end(r, run);
					again = true;
				}
				if (status)
					return status;
			}
		}
	}
	return EXIT_OK;
}

/* ------------------------------------------------------------ messages -- */

static int take_data(struct receiver *r, struct run *run, struct file *f,
		     const struct stream_head *h, const void *data)
{
	int status;

	if (f->finished || ranges_has(&f->got, h->offset, h->offset + h->len)) {
		r->twice++;
		answer(r, run, h->file, STREAM_STORED, h->seq);
		return EXIT_OK;
	}
	if (stream_sum(data, h->len) != h->sum) {
		r->damaged++;	/* without an answer it comes again; without --ack it is missing */
		return EXIT_OK;
	}
	status = store(r, run, f, h, data);
	if (status)
		return status;
	if (!ranges_add(&f->got, h->offset, h->offset + h->len))
		return fail(-ENOMEM, "cannot remember what has come");
	f->nr_chunks++;
	f->bytes += h->len;
	f->sum += stream_mix(h->sum, h->offset, h->len);
	r->progress.done += h->len;
	answer(r, run, h->file, STREAM_STORED, h->seq);
	return EXIT_OK;
}

static int take_end(struct receiver *r, struct run *run, struct file *f,
		    const struct stream_head *h, const void *data)
{
	/* Nobody truncated a file that several write into. */
	if (r->shared && !r->dir && ftruncate(r->fd, h->offset) < 0)
		return fail(-errno, "cannot set the size of \"%s\"", r->output);
	take_info(r, f, h, data);
	f->have_end = true;
	f->total = h->offset;
	f->chunks = h->seq;
	f->sum_wanted = h->sum;
	if (h->flags & STREAM_LAST)
		run->last = h->file;
	answer(r, run, h->file, f->finished ? STREAM_DONE : STREAM_SEEN_END, 0);
	return finish_all(r);
}

static int take_message(struct receiver *r, const struct shmk_msg *msg)
{
	const void *data = (const char *)msg->data + sizeof(struct stream_head);
	struct stream_head head;
	const struct stream_head *h = &head;
	struct run *run;
	struct file *f;

	if (!stream_head_take(&head, msg->data, msg->len)) {
		say("%s/%s has messages that 'shmk send' did not make: use --raw for those",
		    r->t.pool, r->t.queue);
		return EXIT_FAILED;
	}
	if (r->shared && !(h->flags & STREAM_ACK)) {
		say("with several readers only the sender can know when all has arrived: use 'shmk send --ack'");
		return EXIT_FAILED;
	}
	run = find_run(r, h->run);
	if (!run && h->flags & STREAM_ACK && !shmk_peer_alive(r->s, h->peer, h->gen)) {
		/* Nobody waits for an answer any more: sent twice, and arrived once. */
		r->stale++;
		return EXIT_OK;
	}
	run = run ? run : new_run(r, h);
	if (!run)
		return fail(-ENOMEM, "cannot remember what has come");
	if (r->shared && !r->dir && (run != r->runs || h->file)) {
		say("several readers can put one file only into --output: use --dir DIR");
		return EXIT_FAILED;
	}
	f = find_file(run, h->file);
	if (!f)
		return fail(-ENOMEM, "cannot remember what has come");
	if (h->order > run->max_order)
		run->max_order = h->order;
	switch (h->type) {
	case STREAM_BEGIN:
		take_info(r, f, h, data);
		return EXIT_OK;
	case STREAM_DATA: {
		int status = take_data(r, run, f, h, data);

		return status || !f->have_end ? status : finish_all(r);
	}
	default:
		return take_end(r, run, f, h, data);
	}
}

/* ------------------------------------------------------------- the end -- */

static void tell_missing(const struct run *run, const struct file *f)
{
	uint64_t from, to, at = 0, missing = 0;
	unsigned int gaps = 0;
	char list[160] = "";

	while (ranges_gap(&f->got, at, f->have_end ? f->total : ranges_end(&f->got), &from, &to)) {
		size_t used = strlen(list);

		if (gaps < 4)
			snprintf(list + used, sizeof(list) - used, "%s%" PRIu64 "-%" PRIu64,
				 gaps ? ", " : "", from, to - 1);
		else if (gaps == 4)
			snprintf(list + used, sizeof(list) - used, ", ...");
		missing += to - from;
		gaps++;
		at = to;
	}
	if (f->have_end)
		say("\"%s\" is incomplete: %" PRIu64 " of %" PRIu64 " bytes are missing, at %s%s",
		    name_of(f), missing, f->total, list,
		    run->ack ? "" : ": use 'shmk send --ack' to have lost messages sent again");
	else
		say("\"%s\" is incomplete: its end never came, %" PRIu64 " bytes did%s%s%s",
		    name_of(f), f->bytes, gaps ? ", missing between them: " : "", list,
		    run->sender_died ? "; the sender died" : "");
}

static int incomplete(struct receiver *r)
{
	for (struct run *run = r->runs; run; run = run->next) {
		bool told = false;

		for (struct file *f = run->files; f; f = f->next) {
			if (f->finished)
				continue;
			tell_missing(run, f);
			told = true;
		}
		if (!run->finished && !told)
			say("files that sender %u wanted to send never came", run->peer);
	}
	if (r->damaged)
		say("%" PRIu64 " messages had a wrong checksum", r->damaged);
	return EXIT_FAILED;
}

/* With --shared the sender's end is the end. */
static int shared_end(struct receiver *r, struct run *run)
{
	int status = EXIT_OK;

	if (run->sender_died) {
		say("the sender died before all had arrived: \"%s\" is incomplete, start again",
		    run->files ? name_of(run->files) : "it");
		return EXIT_FAILED;
	}
	for (struct file *f = run->files; f && !status; f = f->next) {
		if (r->dir && f->have_end && !f->total)
			status = open_part(r, run, f);	/* empty: no chunk made it */
		if (!status && f->fd >= 0)
			status = commit_part(r, f);
		f->finished = true;
	}
	run->finished = true;
	r->finished_runs++;
	close_back(r, run);
	return status;
}

static void note_event(struct receiver *r, const struct shmk_event *e)
{
	if (e->type != SHMK_EV_DETACHED && e->type != SHMK_EV_DIED)
		return;
	for (struct run *run = r->runs; run; run = run->next) {
		if (run->peer != e->peer || run->gen != e->gen)
			continue;
		run->sender_gone = true;
		run->sender_died = e->type == SHMK_EV_DIED || e->reason != SHMK_REASON_DETACHED;
	}
}

static int look_at_events(struct receiver *r)
{
	struct shmk_event e;
	int status = EXIT_OK;

	while (!shmk_event_next(r->s, &e))
		note_event(r, &e);
	for (struct run *run = r->runs; run && !status; run = run->next)
		if (r->shared && run->sender_gone && !run->finished)
			status = shared_end(r, run);
	return status;
}

static bool ended(const struct receiver *r)
{
	if (r->follow || r->finished_runs < r->senders)
		return false;
	for (const struct run *run = r->runs; run; run = run->next)
		if (!run->finished)
			return false;
	return true;
}

/* Is there any unfinished run whose sender lives? */
static bool hope(struct receiver *r)
{
	for (struct run *run = r->runs; run; run = run->next)
		if (!run->finished && sender_alive(r, run))
			return true;
	return false;
}

static bool unfinished(const struct receiver *r)
{
	for (const struct run *run = r->runs; run; run = run->next)
		if (!run->finished)
			return true;
	return false;
}

static bool is_empty(struct receiver *r)
{
	struct shmk_queue_stats st;

	return shmk_queue_stats(r->q, &st) < 0 || !st.depth;
}

/* The queue is empty, for now. 0: go on; negative: done; else give up. */
static int idle(struct receiver *r)
{
	int64_t since = (now_ns() - r->moved_ns) / MS;
	int status;

	if (stop_signal)
		return EXIT_FAILED;
	progress_show(&r->progress);
	status = look_at_events(r);
	if (status)
		return status;
	if (ended(r))
		return -1;
	/*
	 * Nobody is there who could have a message in hand: what is missing stays
	 * missing. Others are there: they may be slow, not for ever.
	 */
	if (!r->shared && unfinished(r) && !hope(r) &&
	    (!other_members(r->s) || since > r->patience_ms) && is_empty(r))
		return incomplete(r);	/* looked at the queue last: they can add nothing now */
	if (r->t.timeout_ms >= 0 && since > r->t.timeout_ms) {
		if (r->runs)
			incomplete(r);
		say("nothing came for %s: start 'shmk send %s/%s' or look at 'shmk show %s'",
		    human_ns(r->t.timeout_ms * MS), r->t.pool, r->t.queue, r->t.pool);
		return EXIT_TIMEOUT;
	}
	return EXIT_OK;
}

static int receive_all(struct receiver *r)
{
	struct shmk_msg msg = { .data = NULL };
	int err, status = EXIT_OK;

	r->moved_ns = now_ns();
	while (!status && !ended(r)) {
		err = shmk_recv(r->q, &msg, now_ns() + SLICE_NS);
		if (!err) {
			status = take_message(r, &msg);
			shmk_free(&msg);
			r->messages++;
			r->moved_ns = now_ns();
			progress_show(&r->progress);
		} else if (err == -ETIMEDOUT || err == -EAGAIN || err == -EINTR) {
			status = idle(r);
		} else {
			status = fail(err, "cannot receive from %s/%s", r->t.pool, r->t.queue);
		}
	}
	return status < 0 ? EXIT_OK : status;
}

/* ----------------------------------------------------------------- raw -- */

/*
 * Like reading a FIFO: what comes is written, and when the last of those who
 * could write has gone, that is the end.
 */
static int receive_raw(struct receiver *r)
{
	struct shmk_msg msg = { .data = NULL };
	int err, status = EXIT_OK;

	r->moved_ns = now_ns();
	while (!status && !(r->count && r->messages == r->count)) {
		err = shmk_recv(r->q, &msg, now_ns() + SLICE_NS);
		if (!err) {
			status = write_at(r, r->fd, false, 0, msg.data, msg.len);
			r->progress.done += msg.len;
			shmk_free(&msg);
			r->messages++;
			r->moved_ns = now_ns();
			progress_show(&r->progress);
			continue;
		}
		if (err != -ETIMEDOUT && err != -EAGAIN && err != -EINTR)
			return fail(err, "cannot receive from %s/%s", r->t.pool, r->t.queue);
		if (stop_signal)
			return r->follow ? EXIT_OK : EXIT_FAILED;
		if (r->t.timeout_ms >= 0 && now_ns() - r->moved_ns > r->t.timeout_ms * MS) {
			say("nothing came for %s: look at 'shmk show %s'",
			    human_ns(r->t.timeout_ms * MS), r->t.pool);
			return EXIT_TIMEOUT;
		}
		if (r->messages && !r->follow && !r->count && !other_members(r->s) && is_empty(r))
			break;
	}
	return status;
}

/* ------------------------------------------------------------ together -- */

static int open_output(struct receiver *r)
{
	struct stat st;

	if (r->dir) {
		r->dir_fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return r->dir_fd < 0 ? fail(-errno, "cannot open directory \"%s\"", r->dir) : EXIT_OK;
	}
	r->fd = STDOUT_FILENO;
	if (r->output && strcmp(r->output, "-"))
		/* Others that share the file may be ahead of us. */
		r->fd = open(r->output, O_WRONLY | O_CREAT | O_CLOEXEC |
				       (r->shared ? 0 : O_TRUNC), 0666);
	if (r->fd < 0)
		return fail(-errno, "cannot create \"%s\"", r->output);
	if (fstat(r->fd, &st) == 0 && S_ISREG(st.st_mode) &&
	    !(fcntl(r->fd, F_GETFL) & O_APPEND)) {
		r->seekable = true;
		r->base = lseek(r->fd, 0, SEEK_CUR);
	}
	if (r->shared && !r->seekable) {
		say("several readers can share a file only: give --output FILE or --dir DIR");
		return EXIT_USAGE;
	}
	return EXIT_OK;
}

static int close_output(struct receiver *r)
{
	/* What comes after us in the same file (`(shmk recv x/q; date) > f`) goes behind. */
	if (r->seekable && !r->shared && !r->raw)
		lseek(r->fd, r->base, SEEK_SET);
	/* A full disk on a network file system is told at close only. */
	if (!r->dir && r->fd != STDOUT_FILENO && close(r->fd) < 0)
		return fail(-errno, "cannot write %s", r->output);
	return EXIT_OK;
}

static void summary(struct receiver *r, int64_t since)
{
	double seconds = (now_ns() - since) / 1e9;

	if (r->verbose)
		say("received %" PRIu64 " bytes in %" PRIu64 " messages, %" PRIu64 " came twice, in %.2f s (%s/s)",
		    r->progress.done, r->messages, r->twice, seconds,
		    human(r->progress.done / (seconds > 0 ? seconds : 1)));
}

static int receive(struct receiver *r)
{
	int64_t since = now_ns();
	int status = open_output(r);

	if (!status)
		status = target_open(&r->t, r->s, r->t.queue, 256 << 10, &r->q);
	if (status)
		return status;
	shmk_event_fd(r->s);	/* events begin now, not when we first look */
	progress_start(&r->progress, "received", 0, r->quiet);
	status = r->raw ? receive_raw(r) : receive_all(r);
	progress_end(&r->progress);
	forget_runs(r, true);
	if (!status)
		status = close_output(r);
	if (!status)
		summary(r, since);
	return status;
}

static int number_option(struct receiver *r, const char *verb, int opt, const char *arg)
{
	bool ok;

	switch (opt) {
	case 'n':
		ok = parse_number(arg, UINT32_MAX, &r->senders) && r->senders;
		break;
	case 'N':
		ok = parse_number(arg, UINT64_MAX, &r->count) && r->count;
		break;
	case 'W':
		ok = parse_size(arg, &r->window);
		break;
	default:
		ok = parse_ms(arg, &r->patience_ms);
		break;
	}
	return ok ? EXIT_OK : bad_usage(verb, "cannot make sense of '%s'", arg);
}

static int option(struct receiver *r, const char *verb, int opt, const char *arg)
{
	switch (opt) {
	case 'o':
		r->output = arg;
		return EXIT_OK;
	case 'd':
		r->dir = arg;
		return EXIT_OK;
	case 'S':
		r->shared = true;
		return EXIT_OK;
	case 'F':
		r->follow = true;
		return EXIT_OK;
	case 'R':
		r->raw = true;
		return EXIT_OK;
	case 'q':
		r->quiet = true;
		return EXIT_OK;
	case 'v':
		r->verbose = true;
		return EXIT_OK;
	case 'n':
	case 'N':
	case 'W':
	case 'A':
		return number_option(r, verb, opt, arg);
	default:
		return target_option(&r->t, verb, opt, arg) < 0 ? EXIT_USAGE : EXIT_OK;
	}
}

int cmd_recv(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_OPTIONS,
		{ "output", required_argument, NULL, 'o' },
		{ "dir", required_argument, NULL, 'd' },
		{ "shared", no_argument, NULL, 'S' },
		{ "senders", required_argument, NULL, 'n' },
		{ "follow", no_argument, NULL, 'F' },
		{ "raw", no_argument, NULL, 'R' },
		{ "count", required_argument, NULL, 'N' },
		{ "window", required_argument, NULL, 'W' },
		{ "patience", required_argument, NULL, 'A' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct receiver r = {
		.t = TARGET_INIT,
		.senders = 1,
		.window = WINDOW_BYTES,
		.patience_ms = PATIENCE_MS,
	};
	int opt, status;

	while ((opt = next_option(argc, argv, "hcws:m:C:t:o:d:n:qv", longs)) != -1) {
		status = option(&r, argv[0], opt, optarg);
		if (status)
			return status;
	}
	if (argc - optind != 1)
		return bad_usage(argv[0], "give one POOL/QUEUE");
	if (r.output && r.dir)
		return bad_usage(argv[0], "--output or --dir, not both");
	if (r.raw && (r.dir || r.shared))
		return bad_usage(argv[0], "--raw messages have no names and no place");
	if (r.count && !r.raw)
		return bad_usage(argv[0], "--count is for --raw; see --senders");
	status = target_parse_queue(&r.t, argv[0], argv[optind]);
	if (!status)
		status = target_attach(&r.t, 0, &r.s);
	if (status)
		return status;
	status = receive(&r);
	tool_detach(r.s);
	return status;
}
