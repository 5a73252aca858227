// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk send
 *
 * read() goes directly into blocks of the pool. Without --ack a file is on its
 * way when its messages are in the queue. With it the sender remembers what
 * nobody has acknowledged (at most WINDOW chunks) and sends it again when it is
 * likely to be lost; see stream.h.
 *
 * A sender that is blocked looks up every SLICE, so it waits neither for dead
 * receivers nor beyond --timeout.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "stream.h"
#include "tool.h"

#define MS		1000000LL
#define SLICE_NS	(50 * MS)
#define WINDOW		256
#define RECEIVERS	64

/*
 * When a chunk counts as lost. Something sent after it has arrived, and it has
 * not: it was overtaken by so much, or a peer died that could have had it.
 */
#define OVERTAKEN_NS	(1000 * MS)
#define OVERTAKEN_BY_DEATH_NS (100 * MS)
/* All receivers are dead, or nobody has the queue open: so long may a new one take. */
#define DESERTED_NS	(2000 * MS)

struct chunk {
	uint64_t seq;
	uint64_t offset;
	uint64_t sum;
	uint64_t order;
	int64_t sent_ns;
	uint32_t len;
	uint32_t tries;
	void *copy;		/* of what cannot be read again */
};

struct sender {
	struct target t;
	bool ack, raw, quiet, verbose;
	size_t block;		/* header included */
	struct shmk *s;
	struct shmk_queue *q, *back;
	struct stream_head proto;
	char back_name[64];

	/* this file */
	const char *name;
	int fd;
	bool regular, last;
	off_t start;		/* where in it we began */
	uint64_t seq, offset, sum;
	union {
		struct stream_info info;
		char info_room[STREAM_INFO_ROOM];
	};

	/* what is out (--ack) */
	struct chunk out[WINDOW];
	unsigned int nr_out;
	uint64_t acked_order;
	bool end_sent, end_seen, shared, done;
	int64_t end_ns;
	unsigned int end_tries;

	/* who is there */
	struct { uint32_t peer, gen; } receivers[RECEIVERS];
	unsigned int nr_receivers;
	uint64_t received;	/* from the queue, before we began */
	int64_t moved_ns;	/* last progress of any kind */
	int64_t died_ns;	/* last death of a peer */
	int64_t looked_ns;
	int64_t slowest_ns;	/* an answer took so long */

	uint64_t messages, again;
	struct progress progress;
};

static void moved(struct sender *sd)
{
	sd->moved_ns = now_ns();
}

/* --------------------------------------------------------- being stuck -- */

static void look_for_deaths(struct sender *sd)
{
	struct shmk_event e;

	while (!shmk_event_next(sd->s, &e))
		if (e.type == SHMK_EV_DIED)
			sd->died_ns = now_ns();
}

static bool receivers_dead(struct sender *sd)
{
	for (unsigned int i = 0; i < sd->nr_receivers; i++)
		if (shmk_peer_alive(sd->s, sd->receivers[i].peer, sd->receivers[i].gen))
			return false;
	return sd->nr_receivers;
}

/* Was there somebody who received, and is there nobody now? */
static bool queue_deserted(struct sender *sd)
{
	struct shmk_queue_stats st;

	return !shmk_queue_stats(sd->q, &st) && st.received != sd->received && st.nr_open <= 1;
}

/* Called now and then while nothing goes on; nonzero: give up, told why. */
static int stuck(struct sender *sd)
{
	int64_t idle;

	if (stop_signal)
		return EXIT_FAILED;
	progress_show(&sd->progress);
	look_for_deaths(sd);
	idle = now_ns() - sd->moved_ns;
	if ((receivers_dead(sd) || queue_deserted(sd)) && idle > DESERTED_NS) {
		say("the receiver of %s/%s is gone, and %s was sent of \"%s\": start both again",
		    sd->t.pool, sd->t.queue, human(sd->offset), sd->name);
		return EXIT_FAILED;
	}
	if (sd->t.timeout_ms >= 0 && idle > sd->t.timeout_ms * MS) {
		say("nothing moved for %s: start 'shmk recv %s/%s' or look at 'shmk show %s'",
		    human_ns(sd->t.timeout_ms * MS), sd->t.pool, sd->t.queue, sd->t.pool);
		return EXIT_TIMEOUT;
	}
	return EXIT_OK;
}

/* ------------------------------------------------------------- answers -- */

static void meet_receiver(struct sender *sd, const struct stream_ack *a)
{
	unsigned int i;

	for (i = 0; i < sd->nr_receivers; i++)
		if (sd->receivers[i].peer == a->peer && sd->receivers[i].gen == a->gen)
			return;
	/* When the table is full, forget one: it counts only whether any lives. */
	i = sd->nr_receivers < RECEIVERS ? sd->nr_receivers++ : a->peer % RECEIVERS;
	sd->receivers[i].peer = a->peer;
	sd->receivers[i].gen = a->gen;
}

static void forget_chunks(struct sender *sd, uint64_t seq, uint32_t count)
{
	int64_t now = now_ns();
	unsigned int kept = 0;

	for (unsigned int i = 0; i < sd->nr_out; i++) {
		struct chunk *c = &sd->out[i];

		if (c->seq - seq >= count) {
			sd->out[kept++] = *c;
			continue;
		}
		/* Which of several copies it was nobody knows. */
		if (!c->tries && now - c->sent_ns > sd->slowest_ns)
			sd->slowest_ns = now - c->sent_ns;
		free(c->copy);
	}
	sd->nr_out = kept;
}

static void take_answer(struct sender *sd, const struct stream_ack *a)
{
	if (a->magic != STREAM_MAGIC || a->run != sd->proto.run)
		return;
	moved(sd);
	meet_receiver(sd, a);
	if (a->order > sd->acked_order)
		sd->acked_order = a->order;
	if (a->file != sd->proto.file)
		return;
	switch (a->answer) {
	case STREAM_STORED:
		forget_chunks(sd, a->seq, a->count);
		break;
	case STREAM_SEEN_END:
		sd->end_seen = true;
		sd->shared |= a->flags & STREAM_SHARED;
		break;
	case STREAM_DONE:
		sd->done = true;
		forget_chunks(sd, 0, UINT32_MAX);
		break;
	}
}

/* All answers that are there; waits for the first until @deadline. */
static void take_answers(struct sender *sd, int64_t deadline)
{
	struct stream_ack a;
	int64_t n;

	if (!sd->ack)
		return;
	while ((n = shmk_recv_copy(sd->back, &a, sizeof(a), deadline)) >= 0) {
		if (n == sizeof(a))
			take_answer(sd, &a);
		deadline = SHMK_TRY;
	}
}

/* ------------------------------------------------------------- sending -- */

/* Until @msg is in the queue. */
static int pass(struct sender *sd, struct shmk_msg *msg)
{
	int64_t slice = SLICE_NS;
	int err, status;

	for (;;) {
		err = shmk_send(sd->q, msg, now_ns() + slice);
		if (!err)
			break;
		if (err != -ETIMEDOUT && err != -EAGAIN && err != -EINTR) {
			status = fail(err, "cannot send to %s/%s", sd->t.pool, sd->t.queue);
			shmk_free(msg);
			return status;
		}
		/* Whoever answers must never wait for whoever waits for him. */
		take_answers(sd, SHMK_TRY);
		status = stuck(sd);
		if (status) {
			shmk_free(msg);
			return status;
		}
	}
	sd->messages++;
	moved(sd);
	return EXIT_OK;
}

static void nap(struct sender *sd, int64_t ns)
{
	struct timespec ts = { .tv_nsec = ns };

	if (sd->ack)
		take_answers(sd, now_ns() + ns);
	else
		nanosleep(&ts, NULL);
}

/*
 * Room in the pool comes from whoever frees, without a sound, so this looks
 * again and again. If the queue is empty and there still is no block of this
 * size, the pool is too small or too crumbled for it: smaller ones will do.
 */
static int get_block(struct sender *sd, size_t len, struct shmk_msg *msg)
{
	struct shmk_queue_stats st;
	int64_t since = now_ns();
	int64_t looked = since;
	int err, status;

	for (int64_t ns = MS / 20;; ns = ns < 2 * MS ? ns * 2 : ns) {
		err = shmk_alloc(sd->s, len < sd->block ? len : sd->block, 0, msg);
		if (!err)
			return EXIT_OK;
		if (err != -ENOMEM && err != -E2BIG)
			return fail(err, "cannot get a block of pool \"%s\"", sd->t.pool);
		if (sd->block > 4096 &&
		    (err == -E2BIG || (now_ns() - since > SLICE_NS &&
				       !shmk_queue_stats(sd->q, &st) && !st.depth))) {
			sd->block /= 2;
			continue;
		}
		nap(sd, ns);
		if (now_ns() - looked > SLICE_NS) {
			status = stuck(sd);
			if (status)
				return status;
			looked = now_ns();
		}
	}
}

static void put_head(struct sender *sd, struct shmk_msg *msg, uint8_t type, uint16_t flags,
		     uint32_t len)
{
	struct stream_head *h = msg->data;

	*h = sd->proto;
	h->type = type;
	h->flags |= flags;
	h->len = len;
	h->order = ++sd->proto.order;
	shmk_resize(msg, sizeof(*h) + len);
}

/* BEGIN or END */
static int send_info(struct sender *sd, uint8_t type, uint16_t flags)
{
	size_t len = sizeof(sd->info) + sd->info.name_len;
	struct stream_head *h;
	struct shmk_msg msg;
	int status = get_block(sd, sizeof(*h) + len, &msg);

	if (status)
		return status;
	put_head(sd, &msg, type, flags, len);
	h = msg.data;
	if (type == STREAM_END) {
		h->seq = sd->seq;
		h->offset = sd->offset;
		h->sum = sd->sum;
	}
	memcpy(h + 1, &sd->info, len);
	return pass(sd, &msg);
}

static int send_end(struct sender *sd)
{
	int status = send_info(sd, STREAM_END, (sd->last ? STREAM_LAST : 0) |
					       (sd->end_sent ? STREAM_AGAIN : 0));

	sd->end_sent = true;
	sd->end_ns = now_ns();
	return status;
}

/* ------------------------------------------------------- sending again -- */

static int read_again(struct sender *sd, const struct chunk *c, void *to)
{
	size_t done = 0;
	ssize_t n;

	if (c->copy) {
		memcpy(to, c->copy, c->len);
		return EXIT_OK;
	}
	while (done < c->len) {
		n = pread(sd->fd, (char *)to + done, c->len - done, sd->start + c->offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		done += n;
	}
	if (done == c->len && stream_sum(to, c->len) == c->sum)
		return EXIT_OK;
	say("\"%s\" was changed while it was being sent: send it again", sd->name);
	return EXIT_FAILED;
}

static int send_again(struct sender *sd, struct chunk *c)
{
	struct stream_head *h;
	struct shmk_msg msg;
	int err, status;

	/* No waiting here: with no room, or a full queue, it stays due. */
	err = shmk_alloc(sd->s, sizeof(*h) + c->len, 0, &msg);
	if (err)
		return EXIT_OK;
	put_head(sd, &msg, STREAM_DATA, STREAM_AGAIN, c->len);
	h = msg.data;
	h->seq = c->seq;
	h->offset = c->offset;
	h->sum = c->sum;
	status = read_again(sd, c, h + 1);
	if (status || shmk_send(sd->q, &msg, SHMK_TRY)) {
		shmk_free(&msg);
		return status;
	}
	c->order = sd->proto.order;
	c->sent_ns = now_ns();
	c->tries++;
	sd->messages++;
	sd->again++;
	return EXIT_OK;
}

/* Busy machines and slow receivers make everything late. */
static int64_t patience(const struct sender *sd, unsigned int tries)
{
	int64_t ns = 2 * sd->slowest_ns > OVERTAKEN_NS ? 2 * sd->slowest_ns : OVERTAKEN_NS;

	return ns << (tries < 3 ? tries : 3);
}

static bool chunk_due(const struct sender *sd, const struct chunk *c, int64_t now)
{
	bool overtaken = c->order < sd->acked_order;
	bool death = sd->died_ns > c->sent_ns;
	int64_t age = now - c->sent_ns;

	/* Without anything that overtook it, it may be stuck behind others: take more time. */
	if (death && overtaken)
		return age > OVERTAKEN_BY_DEATH_NS && age > sd->slowest_ns;
	return (overtaken || death) && age > patience(sd, c->tries);
}

/* Also a marker: when its answer comes, whatever was sent before it should be there. */
static bool end_due(const struct sender *sd, int64_t now)
{
	int64_t age = now - sd->end_ns;

	return sd->end_sent && (age > patience(sd, sd->end_tries) ||
				(sd->died_ns > sd->end_ns && age > OVERTAKEN_BY_DEATH_NS));
}

/* Every few ms: deaths, and what is due because of them. */
static int tend(struct sender *sd)
{
	int64_t now = now_ns();
	int status = EXIT_OK;

	if (now - sd->looked_ns < 10 * MS)
		return EXIT_OK;
	sd->looked_ns = now;
	look_for_deaths(sd);
	for (unsigned int i = 0; i < sd->nr_out && !status; i++)
		if (chunk_due(sd, &sd->out[i], now))
			status = send_again(sd, &sd->out[i]);
	if (!status && end_due(sd, now)) {
		sd->end_tries++;
		status = send_end(sd);
	}
	return status;
}

static bool arrived(const struct sender *sd)
{
	return !sd->nr_out && sd->end_seen && (sd->shared || sd->done);
}

/* Until fewer than @most chunks are out or, with @most 0, all has arrived. */
static int wait_for_answers(struct sender *sd, unsigned int most)
{
	int64_t stuck_ns = now_ns();
	int status;

	for (;;) {
		take_answers(sd, SHMK_TRY);
		status = tend(sd);
		if (status || (most ? sd->nr_out < most : arrived(sd)))
			return status;
		take_answers(sd, now_ns() + 10 * MS);
		if (now_ns() - stuck_ns > SLICE_NS) {
			stuck_ns = now_ns();
			status = stuck(sd);
			if (status)
				return status;
		}
	}
}

static int remember(struct sender *sd, const struct stream_head *h)
{
	struct chunk *c = &sd->out[sd->nr_out];

	*c = (struct chunk){
		.seq = h->seq,
		.offset = h->offset,
		.sum = h->sum,
		.order = h->order,
		.len = h->len,
		.sent_ns = now_ns(),
	};
	if (!sd->regular) {
		c->copy = malloc(h->len);
		if (!c->copy)
			return fail(-ENOMEM, "cannot remember what was sent");
		memcpy(c->copy, h + 1, h->len);
	}
	sd->nr_out++;
	return EXIT_OK;
}

/* ------------------------------------------------------------- reading -- */

/*
 * Fill the block; a pipe that has no more right now does not wait for more,
 * or `tail -f | shmk send` would say nothing for hours. 0: end of file.
 */
static ssize_t fill(struct sender *sd, void *to, size_t room)
{
	struct pollfd p = { .fd = sd->fd, .events = POLLIN };
	size_t done = 0;
	ssize_t n;

	while (done < room) {
		if (done && !sd->regular && poll(&p, 1, 0) <= 0)
			break;
		/* Nothing in the pipe: a good time to listen, and not to sleep in read(). */
		if (!done && !sd->regular && poll(&p, 1, 50) == 0) {
			take_answers(sd, SHMK_TRY);
			if (tend(sd) || stop_signal)
				return -EINTR;
			moved(sd);
			progress_show(&sd->progress);
			continue;
		}
		n = read(sd->fd, (char *)to + done, room - done);
		if (n < 0 && errno == EINTR && !stop_signal)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			break;
		done += n;
	}
	return done;
}

/* EXIT_OK with @msg->data NULL: end of file. */
static int read_chunk(struct sender *sd, struct shmk_msg *msg)
{
	size_t head = sd->raw ? 0 : sizeof(struct stream_head);
	struct stream_head *h;
	ssize_t n;
	int status = get_block(sd, sd->block, msg);

	if (status)
		return status;
	n = fill(sd, (char *)msg->data + head, msg->room - head);
	if (n <= 0) {
		shmk_free(msg);
		return n ? fail(n, "cannot read \"%s\"", sd->name) : EXIT_OK;
	}
	if (sd->raw) {
		shmk_resize(msg, n);
	} else {
		put_head(sd, msg, STREAM_DATA, 0, n);
		h = msg->data;
		h->seq = sd->seq;
		h->offset = sd->offset;
		h->sum = stream_sum(h + 1, n);
		sd->sum += stream_mix(h->sum, h->offset, h->len);
	}
	sd->seq++;
	sd->offset += n;
	sd->progress.done += n;
	return EXIT_OK;
}

static int send_chunks(struct sender *sd)
{
	struct shmk_msg msg;
	int status;

	for (;;) {
		if (stop_signal)
			return EXIT_FAILED;
		if (sd->ack) {
			status = wait_for_answers(sd, WINDOW);
			if (status)
				return status;
		}
		status = read_chunk(sd, &msg);
		if (status || !msg.data)
			return status;
		if (sd->ack) {
			status = remember(sd, msg.data);
			if (status) {
				shmk_free(&msg);
				return status;
			}
		}
		status = pass(sd, &msg);
		if (status)
			return status;
		progress_show(&sd->progress);
	}
}

static void start_file(struct sender *sd, const char *path, const struct stat *st)
{
	const char *slash = strrchr(path, '/');
	const char *name = sd->fd ? (slash ? slash + 1 : path) : "";
	size_t len = strlen(name);

	sd->regular = S_ISREG(st->st_mode);
	sd->start = sd->regular ? lseek(sd->fd, 0, SEEK_CUR) : 0;
	sd->seq = 0;
	sd->offset = 0;
	sd->sum = 0;
	sd->nr_out = 0;
	sd->end_sent = sd->end_seen = sd->shared = sd->done = false;
	sd->end_tries = 0;
	sd->info.size = STREAM_SIZE_UNKNOWN;
	if (sd->regular && st->st_size >= sd->start)
		sd->info.size = st->st_size - sd->start;
	sd->info.mode = sd->regular && sd->fd ? st->st_mode & 0777 : 0;
	sd->info.name_len = len < STREAM_NAME_MAX ? len : STREAM_NAME_MAX;
	memcpy(sd->info.name, name, sd->info.name_len);
	moved(sd);
}

static int send_file(struct sender *sd, const char *path)
{
	bool in = !strcmp(path, "-");
	struct stat st;
	int status;

	sd->name = in ? "standard input" : path;
	sd->fd = in ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	if (sd->fd < 0 || fstat(sd->fd, &st) < 0)
		return fail(-errno, "cannot open \"%s\"", path);
	start_file(sd, path, &st);
	status = sd->raw ? EXIT_OK : send_info(sd, STREAM_BEGIN, 0);
	if (!status)
		status = send_chunks(sd);
	if (!status && !sd->raw)
		status = send_end(sd);
	if (!status && sd->ack)
		status = wait_for_answers(sd, 0);
	forget_chunks(sd, 0, UINT32_MAX);
	if (!in)
		close(sd->fd);
	sd->proto.file++;
	return status;
}

/* ------------------------------------------------------------ together -- */

/*
 * A pool that is not persistent goes with its last peer, and what is queued
 * with it. So stay until somebody else keeps the pool, or has taken all.
 */
static int linger(struct sender *sd)
{
	struct shmk_queue_stats q;
	struct shmk_pool_stat st;
	int status;

	if (shmk_pool_stat(sd->s, &st) < 0 || st.flags & SHMK_POOL_PERSIST)
		return EXIT_OK;
	moved(sd);
	while (!other_members(sd->s) && !shmk_queue_stats(sd->q, &q) && q.depth) {
		nap(sd, 20 * MS);
		status = stuck(sd);
		if (status)
			return status;
	}
	return EXIT_OK;
}

/* Queues for answers that killed senders and receivers left behind. */
static void sweep(struct shmk *s)
{
	struct shmk_queue_stats q;

	for (uint32_t id = 0; !shmk_queue_next(s, id, &q); id = q.id + 1)
		if (!q.nr_open && !strncmp(q.name, STREAM_BACK_PREFIX, strlen(STREAM_BACK_PREFIX)))
			shmk_queue_remove(s, q.name);
}

static int open_back(struct sender *sd)
{
	struct shmk_queue_opts opts = { .flags = SHMK_QUEUE_CREATE, .capacity = WINDOW };
	int err;

	sweep(sd->s);
	stream_back_name(sd->back_name, sd->proto.peer, sd->proto.gen, sd->proto.run);
	err = shmk_queue_open(sd->s, sd->back_name, &opts, SHMK_TRY, &sd->back);
	if (err < 0)
		return fail(err, "cannot make a queue for answers in pool \"%s\"", sd->t.pool);
	return EXIT_OK;
}

/* An eighth of a queue that holds a quarter of the pool, within reason. */
static size_t default_block(struct shmk *s)
{
	struct shmk_pool_stat st;
	size_t block = 4096;

	if (shmk_pool_stat(s, &st) < 0)
		return block;
	while (block < 256 << 10 && block * 2 * 32 <= st.bytes)
		block *= 2;
	return block;
}

static int start(struct sender *sd)
{
	struct shmk_queue_stats st;
	int status;

	sd->proto = (struct stream_head){
		.magic = STREAM_MAGIC,
		.version = STREAM_VERSION,
		.flags = sd->ack ? STREAM_ACK : 0,
		.peer = shmk_self(sd->s),
		.gen = shmk_self_gen(sd->s),
	};
	if (getrandom(&sd->proto.run, sizeof(sd->proto.run), 0) < 0)
		return fail(-errno, "no random numbers");
	if (!sd->block)
		sd->block = default_block(sd->s);
	shmk_event_fd(sd->s);	/* events begin now, not when we first look */
	status = target_open(&sd->t, sd->s, sd->t.queue, sd->block, &sd->q);
	if (!status && !shmk_queue_stats(sd->q, &st))
		sd->received = st.received;
	if (!status && sd->ack)
		status = open_back(sd);
	return status;
}

static uint64_t total_size(char **files, int n)
{
	uint64_t total = 0;
	struct stat st;

	for (int i = 0; i < n; i++) {
		int err = strcmp(files[i], "-") ? stat(files[i], &st) : fstat(STDIN_FILENO, &st);

		if (err || !S_ISREG(st.st_mode))
			return 0;
		total += st.st_size;
	}
	return total;
}

static void summary(struct sender *sd, int64_t since)
{
	double seconds = (now_ns() - since) / 1e9;

	if (sd->verbose)
		say("sent %" PRIu64 " bytes in %" PRIu64 " messages, %" PRIu64 " sent again, in %.2f s (%s/s)",
		    sd->progress.done, sd->messages, sd->again, seconds,
		    human(sd->progress.done / (seconds > 0 ? seconds : 1)));
}

static int send_files(struct sender *sd, char **files, int n)
{
	int64_t since = now_ns();
	int status = start(sd);

	if (status)
		return status;
	progress_start(&sd->progress, "sent", total_size(files, n), sd->quiet);
	for (int i = 0; i < n && !status; i++) {
		sd->last = i == n - 1;
		status = send_file(sd, files[i]);
	}
	if (!status && !sd->ack)
		status = linger(sd);
	progress_end(&sd->progress);
	if (status)
		return status;
	summary(sd, since);
	if (sd->ack) {
		/* Whoever of the two ends closes last can remove it. */
		shmk_queue_close(sd->back);
		shmk_queue_remove(sd->s, sd->back_name);
	}
	return EXIT_OK;
}

static int option(struct sender *sd, const char *verb, int opt, const char *arg)
{
	uint64_t n;

	switch (opt) {
	case 'b':
		if (!parse_size(arg, &n) || n < 256 || n > 1 << 30)
			return bad_usage(verb, "a block has 256 bytes to 1G, not '%s'", arg);
		sd->block = n;
		return EXIT_OK;
	case 'a':
		sd->ack = true;
		return EXIT_OK;
	case 'R':
		sd->raw = true;
		return EXIT_OK;
	case 'q':
		sd->quiet = true;
		return EXIT_OK;
	case 'v':
		sd->verbose = true;
		return EXIT_OK;
	default:
		return target_option(&sd->t, verb, opt, arg) < 0 ? EXIT_USAGE : EXIT_OK;
	}
}

int cmd_send(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_OPTIONS,
		{ "block", required_argument, NULL, 'b' },
		{ "ack", no_argument, NULL, 'a' },
		{ "raw", no_argument, NULL, 'R' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	static struct sender sd = { .t = TARGET_INIT };
	char dash[] = "-", *in[] = { dash };
	int opt, status;

	while ((opt = next_option(argc, argv, "hcws:m:C:t:b:aqv", longs)) != -1) {
		status = option(&sd, argv[0], opt, optarg);
		if (status)
			return status;
	}
	if (optind == argc)
		return bad_usage(argv[0], "where to? give POOL/QUEUE");
	if (sd.ack && sd.raw)
		return bad_usage(argv[0], "--raw messages have no header, so --ack cannot be");
	status = target_parse_queue(&sd.t, argv[0], argv[optind++]);
	if (!status)
		status = target_attach(&sd.t, 0, &sd.s);
	if (status)
		return status;
	status = send_files(&sd, optind < argc ? argv + optind : in,
			    optind < argc ? argc - optind : 1);
	/*
	 * Readers that share the work take a clean end for success. So a sender
	 * that gives up ends without; the pool gets everything back all the same.
	 */
	if (!status || !sd.ack)
		tool_detach(sd.s);
	return status;
}
