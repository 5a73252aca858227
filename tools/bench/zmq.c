// SPDX-License-Identifier: GPL-2.0-only
/*
 * zmq.c - ZeroMQ, PAIR over ipc://. Polling is zmq_msg_recv(ZMQ_DONTWAIT).
 */
#include "bench.h"

#include <zmq.h>

static char url[2][64];
static void *context, *to, *from;
static zmq_msg_t msg;

static void zmq_start(struct bench *b)
{
	int i;

	(void)b;
	for (i = 0; i < 2; i++)
		snprintf(url[i], sizeof(url[i]), "ipc:///tmp/bench-zmq-%d-%d", (int)getpid(), i);
}

static void *pair(const char *at, bool binds)
{
	void *s = zmq_socket(context, ZMQ_PAIR);

	if (!s || (binds ? zmq_bind(s, at) : zmq_connect(s, at)))
		bench_die("zeromq %s: %s", at, zmq_strerror(errno));
	return s;
}

static void zmq_open(struct bench *b)
{
	context = zmq_ctx_new();
	to = pair(url[b->side], true);
	from = pair(url[!b->side], false);
}

static void *zmq_loan(struct bench *b)
{
	zmq_msg_init_size(&msg, b->bytes);
	return zmq_msg_data(&msg);
}

static void zmq_put(struct bench *b)
{
	(void)b;
	if (zmq_msg_send(&msg, to, 0) < 0)
		bench_die("zmq_msg_send: %s", zmq_strerror(errno));
}

static const void *zmq_get(struct bench *b)
{
	zmq_msg_init(&msg);
	while (zmq_msg_recv(&msg, from, b->sleeps ? 0 : ZMQ_DONTWAIT) < 0)
		if (errno != EAGAIN && errno != EINTR)
			bench_die("zmq_msg_recv: %s", zmq_strerror(errno));
	return zmq_msg_data(&msg);
}

static void zmq_done(struct bench *b)
{
	(void)b;
	zmq_msg_close(&msg);
}

static void zmq_stop(struct bench *b)
{
	zmq_close(to);
	zmq_close(from);
	zmq_ctx_term(context);
	unlink(url[b->side] + strlen("ipc://"));
}

static const struct transport transport = {
	"zeromq", zmq_start, zmq_open, zmq_loan, zmq_put, zmq_get, zmq_done, zmq_stop, false };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &transport, NULL };

	return bench_main(list, argc, argv);
}
