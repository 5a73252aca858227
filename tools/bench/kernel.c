// SPDX-License-Identifier: GPL-2.0-only
/*
 * kernel.c - what the kernel has had for long: pipe, UNIX seqpacket socket,
 * POSIX message queue; and the bare wake-ups, eventfd and futex, which carry no
 * payload and are the limit of all that sleep.
 *
 * Without +sleep the fds are non-blocking and polled.
 */
#include "bench.h"
#include "own.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static int out[2], in[2];		/* by side */
static unsigned char *text;
static bool sleeps;

static void buffers(struct bench *b)
{
	text = bench_private(b->bytes);
	sleeps = b->sleeps;
}

static void nothing(struct bench *b)
{
	(void)b;
}

static void *loan(struct bench *b)
{
	(void)b;
	return text;
}

/* All of it, whatever a stream cuts it into. */
static void write_all(struct bench *b)
{
	size_t done = 0;
	ssize_t n;

	while (done < b->bytes) {
		n = write(out[b->side], text + done, b->bytes - done);
		if (n > 0)
			done += (size_t)n;
		else if (errno != EAGAIN && errno != EINTR)
			bench_die("write: %s", strerror(errno));
	}
}

static const void *read_all(struct bench *b)
{
	size_t done = 0;
	ssize_t n;

	while (done < b->bytes) {
		n = read(in[b->side], text + done, b->bytes - done);
		if (n > 0)
			done += (size_t)n;
		else if (!n || (errno != EAGAIN && errno != EINTR))
			bench_die("read: %s", strerror(errno));
	}
	return text;
}

static void nonblocking(int fd)
{
	if (!sleeps)
		fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void pipe_init(struct bench *b)
{
	int i, fd[2];

	/* What is longer is cut up, and several readers would get pieces of each other's. */
	if (b->senders && b->bytes > PIPE_BUF)
		bench_skip("more than a pipe takes at once");
	for (i = 0; i < 2; i++) {
		if (pipe(fd))
			bench_die("pipe: %s", strerror(errno));
		fcntl(fd[1], F_SETPIPE_SZ, 1 << 20);
		out[i] = fd[1];
		in[!i] = fd[0];
	}
	buffers(b);
	for (i = 0; i < 2; i++) {
		nonblocking(out[i]);
		nonblocking(in[i]);
	}
}

static void socket_init(struct bench *b)
{
	int i, fd[2], room = 4 << 20;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd))
		bench_die("socketpair: %s", strerror(errno));
	buffers(b);
	for (i = 0; i < 2; i++) {
		setsockopt(fd[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
		nonblocking(fd[i]);
		out[i] = in[i] = fd[i];
	}
}

static void mq_init(struct bench *b)
{
	struct rlimit most = { RLIM_INFINITY, RLIM_INFINITY };
	struct mq_attr attr = { .mq_maxmsg = b->bytes > 65536 ? 4 : 10, .mq_msgsize = (long)b->bytes };
	char name[32];
	int i;

	buffers(b);
	setrlimit(RLIMIT_MSGQUEUE, &most);
	for (i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "/bench-%d-%d", (int)getpid(), i);
		out[i] = mq_open(name, O_CREAT | O_EXCL | O_RDWR | (sleeps ? 0 : O_NONBLOCK), 0600,
				 &attr);
		if (out[i] < 0)
			bench_skip("mq_open of %zu bytes: %s", b->bytes, strerror(errno));
		mq_unlink(name);
		in[!i] = out[i];
	}
}

static void mq_put(struct bench *b)
{
	while (mq_send(out[b->side], (char *)text, b->bytes, 0))
		if (errno != EAGAIN && errno != EINTR)
			bench_die("mq_send: %s", strerror(errno));
}

static const void *mq_get(struct bench *b)
{
	while (mq_receive(in[b->side], (char *)text, b->bytes, NULL) < 0)
		if (errno != EAGAIN && errno != EINTR)
			bench_die("mq_receive: %s", strerror(errno));
	return text;
}

static void eventfd_init(struct bench *b)
{
	int i;

	if (b->bytes > 64)
		bench_skip("carries no payload");
	b->bytes = 8;
	buffers(b);
	for (i = 0; i < 2; i++)
		in[!i] = out[i] = eventfd(0, EFD_SEMAPHORE | (sleeps ? 0 : EFD_NONBLOCK));
}

static void eventfd_put(struct bench *b)
{
	uint64_t one = 1;

	while (write(out[b->side], &one, sizeof(one)) < 0)
		;
}

static const void *eventfd_get(struct bench *b)
{
	static uint64_t n;

	while (read(in[b->side], &n, sizeof(n)) < 0)
		;
	return &n;
}

/* A counter each way; the sleeper waits for the value it has seen to change. */
static uint32_t *word[2];
static uint32_t seen;

static void futex_init(struct bench *b)
{
	if (!b->sleeps || b->stream)
		bench_skip("a bare wake-up only sleeps: ping+sleep");
	b->bytes = 8;
	buffers(b);
	word[0] = bench_shared(4096);
	word[1] = bench_shared(4096);
}

static void futex_put(struct bench *b)
{
	__atomic_add_fetch(word[b->side], 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, word[b->side], FUTEX_WAKE, 1, NULL, NULL, 0);
}

static const void *futex_get(struct bench *b)
{
	while (__atomic_load_n(word[!b->side], __ATOMIC_ACQUIRE) == seen)
		syscall(SYS_futex, word[!b->side], FUTEX_WAIT, seen, NULL, NULL, 0);
	seen++;
	return text;
}

#define TRANSPORT(id, text, init, put, get, many)				\
	static const struct transport id = {					\
		text, init, nothing, loan, put, get, nothing, NULL, many }

TRANSPORT(pipe_transport, "pipe", pipe_init, write_all, read_all, true);
TRANSPORT(socket_transport, "seqpacket", socket_init, write_all, read_all, true);
TRANSPORT(mq_transport, "mqueue", mq_init, mq_put, mq_get, true);
TRANSPORT(eventfd_transport, "eventfd", eventfd_init, eventfd_put, eventfd_get, false);
TRANSPORT(futex_transport, "futex", futex_init, futex_put, futex_get, false);

const struct transport *const kernel_transports[] = {
	&pipe_transport, &socket_transport, &mq_transport, &eventfd_transport, &futex_transport, NULL,
};
