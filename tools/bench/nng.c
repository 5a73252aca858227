// SPDX-License-Identifier: GPL-2.0-only
/*
 * nng.c - nng, pair0 over ipc://. It has no polling receive worth the name:
 * NNG_FLAG_NONBLOCK in a loop is what "without +sleep" does.
 */
#include "bench.h"

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>

static char url[2][64];
static nng_socket to, from;
static nng_msg *msg;

static void check(const char *what, int err)
{
	if (err)
		bench_die("nng %s: %s", what, nng_strerror(err));
}

static void nng_start(struct bench *b)
{
	int i;

	(void)b;
	for (i = 0; i < 2; i++)
		snprintf(url[i], sizeof(url[i]), "ipc:///tmp/bench-nng-%d-%d", (int)getpid(), i);
}

static void nng_join(struct bench *b)
{
	int err;

	check("open", nng_pair0_open(&to));
	check("open", nng_pair0_open(&from));
	nng_socket_set_size(from, NNG_OPT_RECVMAXSZ, 0);
	check("listen", nng_listen(to, url[b->side], NULL, 0));
	while ((err = nng_dial(from, url[!b->side], NULL, 0)) == NNG_ECONNREFUSED)
		usleep(1000);
	check("dial", err);
}

static void *nng_loan(struct bench *b)
{
	check("alloc", nng_msg_alloc(&msg, b->bytes));
	return nng_msg_body(msg);
}

static void nng_put(struct bench *b)
{
	(void)b;
	check("send", nng_sendmsg(to, msg, 0));
}

static const void *nng_get(struct bench *b)
{
	int err;

	while ((err = nng_recvmsg(from, &msg, b->sleeps ? 0 : NNG_FLAG_NONBLOCK)) == NNG_EAGAIN)
		bench_relax();
	check("recv", err);
	return nng_msg_body(msg);
}

static void nng_done(struct bench *b)
{
	(void)b;
	nng_msg_free(msg);
}

static void nng_stop(struct bench *b)
{
	usleep(b->side ? 0 : 20000);	/* the last message may still be on its way */
	unlink(url[b->side] + strlen("ipc://"));
}

static const struct transport transport = {
	"nng", nng_start, nng_join, nng_loan, nng_put, nng_get, nng_done, nng_stop, false };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &transport, NULL };

	return bench_main(list, argc, argv);
}
