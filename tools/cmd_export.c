// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk export
 *
 * Counters of all pools in the text format of Prometheus, for the textfile
 * collector of its node exporter. All series of a metric stand together, as the
 * format wants, so the pools are remembered first.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

struct queue {
	unsigned int pool;
	struct shmk_queue_stats st;
};

struct export {
	struct shmk_pool_stat *pools;
	struct queue *queues;
	unsigned int nr_pools, nr_queues;
};

#define POOL(field)	offsetof(struct shmk_pool_stat, field), sizeof(((struct shmk_pool_stat *)0)->field)
#define QUEUE(field)	offsetof(struct shmk_queue_stats, field), \
			sizeof(((struct shmk_queue_stats *)0)->field)

struct metric {
	const char *name;
	const char *type;
	const char *help;
	size_t at, len;
};

static const struct metric pool_metrics[] = {
	{ "shmk_pool_bytes", "gauge", "Payload bytes of the pool.", POOL(bytes) },
	{ "shmk_pool_memory_bytes", "gauge", "Memory of the pool with its control regions.",
	  POOL(memory_bytes) },
	{ "shmk_pool_used_bytes", "gauge", "Bytes of blocks that are held or queued.",
	  POOL(bytes_used) },
	{ "shmk_pool_used_blocks", "gauge", "Blocks that are held or queued.", POOL(blocks_used) },
	{ "shmk_pool_peers", "gauge", "Peers that are attached.", POOL(peers_now) },
	{ "shmk_pool_peers_max", "gauge", "Peers there may be.", POOL(nr_peers) },
	{ "shmk_pool_queues", "gauge", "Queues and topics there are.", POOL(queues_now) },
	{ "shmk_pool_queues_max", "gauge", "Queues and topics there may be.", POOL(nr_queues) },
	{ "shmk_pool_attaches_total", "counter", "Peers that have attached.", POOL(attaches) },
	{ "shmk_pool_detaches_total", "counter", "Peers that have ended in order.", POOL(detaches) },
	{ "shmk_pool_deaths_total", "counter", "Peers that have died.", POOL(deaths) },
	{ "shmk_pool_reclaimed_blocks_total", "counter", "Blocks that came back from the dead.",
	  POOL(reclaimed_blocks) },
	{ "shmk_pool_reclaimed_bytes_total", "counter", "Bytes that came back from the dead.",
	  POOL(reclaimed_bytes) },
	{ "shmk_pool_lost_messages_total", "counter", "Messages that died with their receiver.",
	  POOL(lost_messages) },
	{ "shmk_pool_redelivered_messages_total", "counter",
	  "Messages that went back into their queue when their receiver died.", POOL(redelivered) },
};

static const struct metric queue_metrics[] = {
	{ "shmk_queue_depth", "gauge", "Messages in the queue.", QUEUE(depth) },
	{ "shmk_queue_capacity", "gauge", "Messages there may be in the queue.", QUEUE(capacity) },
	{ "shmk_queue_open", "gauge", "Peers that have the queue open.", QUEUE(nr_open) },
	{ "shmk_queue_sent_messages_total", "counter", "Messages sent.", QUEUE(sent) },
	{ "shmk_queue_received_messages_total", "counter", "Messages received.", QUEUE(received) },
	{ "shmk_queue_redelivered_messages_total", "counter",
	  "Messages that went back when their receiver died.", QUEUE(redelivered) },
};

static uint64_t value(const void *of, const struct metric *m)
{
	uint32_t v32;
	uint64_t v;

	if (m->len == sizeof(v32)) {
		memcpy(&v32, (const char *)of + m->at, sizeof(v32));
		return v32;
	}
	memcpy(&v, (const char *)of + m->at, sizeof(v));
	return v;
}

static int remember(const struct shmk_pool_stat *st, void *arg)
{
	struct export *e = arg;
	struct shmk_pool_stat *more = realloc(e->pools, (e->nr_pools + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	e->pools = more;
	if (st->name[0])	/* an anonymous one has nothing to be told by */
		more[e->nr_pools++] = *st;
	return 0;
}

/* Attaches for a moment; a pool that went, or is not for us to read, has no queues to tell. */
static int remember_queues(struct export *e, unsigned int pool)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_queue_stats q;
	struct queue *more;
	char uri[96];
	struct shmk *s;
	int err = 0;

	snprintf(uri, sizeof(uri), "%s:%s", e->pools[pool].backend, e->pools[pool].name);
	if (shmk_attach(uri, &opts, &s))
		return 0;
	for (uint32_t id = 0; !err && !shmk_queue_next(s, id, &q); id = q.id + 1) {
		more = realloc(e->queues, (e->nr_queues + 1) * sizeof(*more));
		if (!more) {
			err = -ENOMEM;
			break;
		}
		e->queues = more;
		more[e->nr_queues++] = (struct queue){ pool, q };
	}
	shmk_detach(s);
	return err;
}

/* Names are [A-Za-z0-9._-]: nothing to escape. */
static void print_metric(FILE *f, const struct export *e, const struct metric *m, bool queues)
{
	unsigned int i, n = queues ? e->nr_queues : e->nr_pools;

	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, m->type);
	for (i = 0; i < n; i++) {
		const struct shmk_pool_stat *p = &e->pools[queues ? e->queues[i].pool : i];

		fprintf(f, "%s{backend=\"%s\",pool=\"%s\"", m->name, p->backend, p->name);
		if (queues)
			fprintf(f, ",queue=\"%s\"", e->queues[i].st.name);
		fprintf(f, "} %" PRIu64 "\n", value(queues ? (void *)&e->queues[i].st : (void *)p, m));
	}
}

static void print_all(FILE *f, const struct export *e, bool queues)
{
	fprintf(f, "# HELP shmk_build_info Version of the command that wrote this.\n"
		"# TYPE shmk_build_info gauge\n"
		"shmk_build_info{version=\"%s\"} 1\n", SHMK_VERSION);
	for (size_t i = 0; i < sizeof(pool_metrics) / sizeof(pool_metrics[0]); i++)
		print_metric(f, e, &pool_metrics[i], false);
	for (size_t i = 0; queues && i < sizeof(queue_metrics) / sizeof(queue_metrics[0]); i++)
		print_metric(f, e, &queue_metrics[i], true);
}

/* A reader sees the old file or the new one, never a part. */
static int write_file(const char *path, const struct export *e, bool queues)
{
	char tmp[4096];
	bool ok;
	FILE *f;
	int fd;

	if (snprintf(tmp, sizeof(tmp), "%s.XXXXXX", path) >= (int)sizeof(tmp))
		return fail(-ENAMETOOLONG, "cannot write \"%s\"", path);
	fd = mkstemp(tmp);
	if (fd < 0)
		return fail(-errno, "cannot create a file beside \"%s\"", path);
	f = fdopen(fd, "w");
	if (!f) {
		close(fd);
		unlink(tmp);
		return fail(-ENOMEM, "cannot write \"%s\"", path);
	}
	errno = 0;
	print_all(f, e, queues);
	ok = !fflush(f) && !ferror(f) && !fchmod(fd, 0644) && !fsync(fd);
	if (fclose(f) || !ok || rename(tmp, path)) {
		int err = errno ? errno : EIO;

		unlink(tmp);
		return fail(-err, "cannot write \"%s\"", path);
	}
	return EXIT_OK;
}

int cmd_export(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "output", required_argument, NULL, 'o' },
		{ "queues", no_argument, NULL, 'Q' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	const char *path = NULL;
	struct export e = { };
	bool queues = false;
	int opt, status, err;

	while ((opt = next_option(argc, argv, "ho:", longs)) != -1) {
		if (opt == 'o')
			path = optarg;
		else if (opt == 'Q')
			queues = true;
	}
	if (optind < argc)
		return bad_usage(argv[0], "'%s' is one argument too many", argv[optind]);
	err = shmk_pool_list(NULL, remember, &e);
	for (unsigned int i = 0; queues && !err && i < e.nr_pools; i++)
		err = remember_queues(&e, i);
	if (err < 0) {
		status = fail(err, "cannot list the pools");
	} else if (path) {
		status = write_file(path, &e, queues);
	} else {
		print_all(stdout, &e, queues);
		status = finish_stdout();
	}
	free(e.pools);
	free(e.queues);
	return status;
}
