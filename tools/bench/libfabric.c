// SPDX-License-Identifier: GPL-2.0-only
/*
 * libfabric.c - libfabric's shm provider, tagged messages, polled completions.
 */
#include "bench.h"

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_tagged.h>

struct address {
	uint64_t	len;
	unsigned char	bytes[248];
};

static struct address *address[2];
static struct fid_ep *ep;
static struct fid_cq *cq[2];	/* sends, receives */
static fi_addr_t peer;
static unsigned char *out, *in;

static void check(const char *what, int ret)
{
	if (ret < 0)
		bench_die("libfabric %s: %s", what, fi_strerror(-ret));
}

static void start(struct bench *b)
{
	int i;

	if (b->sleeps)
		bench_skip("the shm provider has no wait object");
	for (i = 0; i < 2; i++)
		address[i] = bench_shared(sizeof(struct address));
	out = bench_private(b->bytes);
	in = bench_private(b->bytes);
}

static void join(struct bench *b)
{
	struct fi_cq_attr cq_attr = { .format = FI_CQ_FORMAT_CONTEXT, .wait_obj = FI_WAIT_NONE,
		.size = 1024 };
	struct fi_av_attr av_attr = { .type = FI_AV_UNSPEC };
	struct fi_info *hints = fi_allocinfo(), *info;
	struct fid_fabric *fabric;
	struct fid_domain *domain;
	struct fid_av *av;
	size_t len = sizeof(address[0]->bytes);

	hints->caps = FI_TAGGED;
	hints->ep_attr->type = FI_EP_RDM;
	hints->fabric_attr->prov_name = strdup("shm");
	hints->domain_attr->threading = FI_THREAD_DOMAIN;
	if (fi_getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &info))
		bench_skip("libfabric has no shm provider here");
	check("fabric", fi_fabric(info->fabric_attr, &fabric, NULL));
	check("domain", fi_domain(fabric, info, &domain, NULL));
	check("cq", fi_cq_open(domain, &cq_attr, &cq[0], NULL));
	check("cq", fi_cq_open(domain, &cq_attr, &cq[1], NULL));
	check("av", fi_av_open(domain, &av_attr, &av, NULL));
	check("endpoint", fi_endpoint(domain, info, &ep, NULL));
	check("bind", fi_ep_bind(ep, &av->fid, 0));
	check("bind", fi_ep_bind(ep, &cq[0]->fid, FI_TRANSMIT));
	check("bind", fi_ep_bind(ep, &cq[1]->fid, FI_RECV));
	check("enable", fi_enable(ep));
	check("name", fi_getname(&ep->fid, address[b->side]->bytes, &len));
	__atomic_store_n(&address[b->side]->len, len, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&address[!b->side]->len, __ATOMIC_ACQUIRE))
		usleep(1000);
	if (fi_av_insert(av, address[!b->side]->bytes, 1, &peer, 0, NULL) != 1)
		bench_die("libfabric: no address");
}

/* Both directions need progress while one of them waits. */
static void complete(struct fid_cq *which)
{
	struct fi_cq_entry entry;
	ssize_t n;

	while ((n = fi_cq_read(which, &entry, 1)) == -FI_EAGAIN)
		;
	check("completion", (int)n);
}

static void *loan(struct bench *b)
{
	(void)b;
	return out;
}

static void put(struct bench *b)
{
	ssize_t n;

	while ((n = fi_tsend(ep, out, b->bytes, NULL, peer, 1, NULL)) == -FI_EAGAIN)
		fi_cq_read(cq[1], NULL, 0);
	check("send", (int)n);
	complete(cq[0]);
}

static const void *get(struct bench *b)
{
	ssize_t n;

	while ((n = fi_trecv(ep, in, b->bytes, NULL, peer, 1, 0, NULL)) == -FI_EAGAIN)
		fi_cq_read(cq[1], NULL, 0);
	check("receive", (int)n);
	complete(cq[1]);
	return in;
}

static void done(struct bench *b)
{
	(void)b;
}

static void stop(struct bench *b)
{
	uint64_t until = bench_now() + (b->side ? 300000000 : 100000000);

	while (bench_now() < until)
		fi_cq_read(cq[1], NULL, 0);
	fi_close(&ep->fid);
}

static const struct transport transport = { "libfabric", start, join, loan, put, get, done, stop, false };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &transport, NULL };

	return bench_main(list, argc, argv);
}
