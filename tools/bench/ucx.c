// SPDX-License-Identifier: GPL-2.0-only
/*
 * ucx.c - UCX, tagged messages over its shared memory transports only.
 * Sleeping is ucp_worker_wait().
 */
#include "bench.h"

#include <ucp/api/ucp.h>

struct address {
	uint64_t	len;		/* nonzero: there */
	unsigned char	bytes[4088];
};

static struct address *address[2];
static ucp_context_h context;
static ucp_worker_h worker;
static ucp_ep_h ep;
static unsigned char *out, *in;

static void check(const char *what, ucs_status_t s)
{
	if (s != UCS_OK)
		bench_die("ucx %s: %s", what, ucs_status_string(s));
}

static void start(struct bench *b)
{
	int i;

	setenv("UCX_TLS", "posix,sysv,self", 1);
	for (i = 0; i < 2; i++)
		address[i] = bench_shared(sizeof(struct address));
	out = bench_private(b->bytes);
	in = bench_private(b->bytes);
}

static void join(struct bench *b)
{
	ucp_params_t params = { .field_mask = UCP_PARAM_FIELD_FEATURES,
		.features = UCP_FEATURE_TAG | (b->sleeps ? UCP_FEATURE_WAKEUP : 0) };
	ucp_worker_params_t wp = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
		.thread_mode = UCS_THREAD_MODE_SINGLE };
	ucp_ep_params_t ep_params = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS };
	ucp_address_t *own;
	size_t len;

	check("init", ucp_init(&params, NULL, &context));
	check("worker", ucp_worker_create(context, &wp, &worker));
	check("address", ucp_worker_get_address(worker, &own, &len));
	if (len > sizeof(address[0]->bytes))
		bench_die("ucx: address of %zu bytes", len);
	memcpy(address[b->side]->bytes, own, len);
	__atomic_store_n(&address[b->side]->len, len, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&address[!b->side]->len, __ATOMIC_ACQUIRE))
		usleep(1000);
	ep_params.address = (const ucp_address_t *)address[!b->side]->bytes;
	check("endpoint", ucp_ep_create(worker, &ep_params, &ep));
}

static void wait_for(void *request, bool sleeps)
{
	if (UCS_PTR_IS_ERR(request))
		check("request", UCS_PTR_STATUS(request));
	if (!request)
		return;
	while (ucp_request_check_status(request) == UCS_INPROGRESS)
		if (!ucp_worker_progress(worker) && sleeps)
			ucp_worker_wait(worker);
	ucp_request_free(request);
}

static void *loan(struct bench *b)
{
	(void)b;
	return out;
}

static void put(struct bench *b)
{
	ucp_request_param_t param = { 0 };

	wait_for(ucp_tag_send_nbx(ep, out, b->bytes, 1, &param), false);
}

static const void *get(struct bench *b)
{
	ucp_request_param_t param = { 0 };

	wait_for(ucp_tag_recv_nbx(worker, in, b->bytes, 1, ~0UL, &param), b->sleeps);
	return in;
}

static void done(struct bench *b)
{
	(void)b;
}

/* What was sent last may need us to make progress. */
static void stop(struct bench *b)
{
	uint64_t until = bench_now() + (b->side ? 300000000 : 100000000);

	while (bench_now() < until)
		ucp_worker_progress(worker);
}

static const struct transport transport = { "ucx", start, join, loan, put, get, done, stop, false };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &transport, NULL };

	return bench_main(list, argc, argv);
}
