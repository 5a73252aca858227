// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * endpoint.c - "local:pool/queue": from one string to a queue that can be used.
 *
 * All endpoints of a process in one pool share one attachment, so that a message
 * that came by one may go on by another. It is made by the first and ends with the
 * last. A forked child begins anew: what its parent shares is not its own.
 */
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

/* An attachment that endpoints share. */
struct shared {
	struct shared		*next;
	const struct shmk_backend *backend;
	char			pool[SHMK_NAME_LEN];
	pid_t			pid;
	struct shmk		*s;
	unsigned int		nr;
};

struct shmk_endpoint {
	struct shared		*shared;
	struct shmk_queue	*q;
};

static struct lock table_lock;
static struct shared *table;	/* under table_lock, and all nr */

struct address {
	const struct shmk_backend *backend;
	char pool[8 + SHMK_NAME_LEN];		/* with the scheme */
	const char *name;			/* in pool, without */
	const char *queue;
};

/* -EPROTONOSUPPORT: it has a scheme, but none of ours. */
static int address_parse(const char *uri, struct address *a)
{
	const char *slash = uri ? strrchr(uri, '/') : NULL, *colon = uri ? strchr(uri, ':') : NULL;
	size_t len;

	if (!slash)
		return uri && colon ? -EPROTONOSUPPORT : -EINVAL;
	len = (size_t)(slash - uri);
	if (colon && strncmp(uri, "shmk:", 5) && strncmp(uri, "local:", 6))
		return -EPROTONOSUPPORT;
	if (len >= sizeof(a->pool) || !name_valid(slash + 1))
		return -EINVAL;
	memcpy(a->pool, uri, len);
	a->pool[len] = 0;
	a->queue = slash + 1;
	return uri_parse(a->pool, &a->backend, &a->name) || !*a->name ? -EINVAL : 0;
}

/* After a reset the name is another pool's. */
static struct shared *find_locked(const struct address *a)
{
	struct shared *sh;

	for (sh = table; sh; sh = sh->next)
		if (sh->backend == a->backend && sh->pid == getpid() &&
		    !strcmp(sh->pool, a->name) && !pool_is_reset(sh->s))
			return sh;
	return NULL;
}

static struct shared *use(const struct address *a)
{
	bool locked = lock(&table_lock);
	struct shared *sh = find_locked(a);

	if (sh)
		sh->nr++;
	unlock(&table_lock, locked);
	return sh;
}

/* Another thread may have been faster; then @mine is not needed. */
static struct shared *publish(const struct address *a, struct shared *mine)
{
	bool locked = lock(&table_lock);
	struct shared *sh = find_locked(a);

	if (!sh) {
		sh = mine;
		sh->next = table;
		table = sh;
	}
	sh->nr++;
	unlock(&table_lock, locked);
	return sh;
}

static int shared_get(const struct address *a, const struct shmk_attach_opts *opts,
		      struct shared **out)
{
	struct shared *mine;
	int ret;

	*out = use(a);
	if (*out)
		return 0;
	mine = calloc(1, sizeof(*mine));
	if (!mine)
		return -ENOMEM;
	ret = shmk_attach(a->pool, opts, &mine->s);
	if (ret) {
		free(mine);
		return ret;
	}
	mine->backend = a->backend;
	mine->pid = getpid();
	strcpy(mine->pool, a->name);
	*out = publish(a, mine);
	if (*out != mine) {
		shmk_detach(mine->s);
		free(mine);
	}
	return 0;
}

static void shared_put(struct shared *sh)
{
	bool locked = lock(&table_lock);
	bool last = --sh->nr == 0;
	struct shared **at;

	for (at = &table; last && *at; at = &(*at)->next) {
		if (*at == sh) {
			*at = sh->next;
			break;
		}
	}
	unlock(&table_lock, locked);
	if (last) {
		shmk_detach(sh->s);
		free(sh);
	}
}

int shmk_endpoint_open(const char *uri, const struct shmk_endpoint_opts *opts,
		       struct shmk_endpoint **out)
{
	static const struct shmk_endpoint_opts defaults;
	struct shmk_endpoint *ep;
	struct address a;
	int ret;

	*out = NULL;
	if (!opts)
		opts = &defaults;
	/* Whoever else opens one gets the same attachment. */
	if (opts->attach && opts->attach->flags & SHMK_ATTACH_ONE_THREAD)
		return -EINVAL;
	ret = address_parse(uri, &a);
	if (ret)
		return ret;
	ep = calloc(1, sizeof(*ep));
	if (!ep)
		return -ENOMEM;
	ret = shared_get(&a, opts->attach, &ep->shared);
	if (ret)
		goto undo_endpoint;
	ret = shmk_queue_open(ep->shared->s, a.queue, opts->queue, opts->deadline, &ep->q);
	if (ret)
		goto undo_shared;
	*out = ep;
	return 0;

undo_shared:
	shared_put(ep->shared);
undo_endpoint:
	free(ep);
	return ret;
}

void shmk_endpoint_close(struct shmk_endpoint *ep)
{
	if (!ep)
		return;
	if (ep->shared->pid == getpid())
		shmk_queue_close(ep->q);
	shared_put(ep->shared);
	free(ep);
}

struct shmk_queue *shmk_endpoint_queue(const struct shmk_endpoint *ep)
{
	return ep->q;
}

struct shmk *shmk_endpoint_shmk(const struct shmk_endpoint *ep)
{
	return ep->shared->s;
}
