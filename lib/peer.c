// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * peer.c - who else is in the pool.
 *
 * A peer's status word names one life (generation) and its state. It is all
 * that is needed to know whether that life goes on; the rest is told by the
 * backend.
 */
#include "internal.h"

static __u64 peer_word(const struct shmk *s, uint32_t id)
{
	const struct shmk_peer_status *peers =
		(const void *)((const char *)s->status + s->status->peers_off);

	return smp_load_acquire(&peers[id].word);
}

bool shmk_peer_alive(struct shmk *s, uint32_t id, uint32_t gen)
{
	__u64 word;

	if (!id || id > s->status->nr_peers)
		return false;
	word = peer_word(s, id);
	return SHMK_PEER_STATE(word) == SHMK_PEER_ALIVE && SHMK_PEER_GEN(word) == gen;
}

int shmk_peer_next(struct shmk *s, uint32_t id, struct shmk_peer *peer)
{
	ERRNO_KEPT;
	struct shmk_peer_info info = { .size = sizeof(info), .peer = id };
	int ret = s->backend->peer_info(s, &info);

	if (ret)
		return ret;
	*peer = (struct shmk_peer) {
		.id = info.peer,
		.gen = info.gen,
		.dead = info.state == SHMK_PEER_DEAD,
		.rdonly = info.flags & SHMK_PEER_RDONLY,
		.stuck = info.flags & SHMK_PEER_STUCK,
		.pid = info.pid,
		.uid = info.uid,
		.nr_entries = info.nr_entries,
		.attached_ns = info.attached_ns,
	};
	memcpy(peer->comm, info.comm, sizeof(peer->comm));
	return 0;
}

int shmk_stuck_after(struct shmk *s, uint32_t ms)
{
	ERRNO_KEPT;

	return s->backend->stuck_after ? s->backend->stuck_after(s, ms) : -EOPNOTSUPP;
}

/* Relaxed: that it changes is all it says. Of two threads at once one may be missed. */
void shmk_not_stuck(struct shmk *s)
{
	WRITE_ONCE(s->ledger->beats, READ_ONCE(s->ledger->beats) + 1);
}

static bool peers_there(struct shmk *s, void *arg)
{
	uint32_t wanted = *(const uint32_t *)arg;
	uint32_t nr = 0;

	for (uint32_t id = 1; nr < wanted && id <= s->status->nr_peers; id++)
		if (SHMK_PEER_STATE(peer_word(s, id)) == SHMK_PEER_ALIVE)
			nr++;
	return nr >= wanted;
}

int shmk_wait_peers(struct shmk *s, uint32_t n, int64_t deadline)
{
	ERRNO_KEPT;

	if (n > s->status->nr_peers)
		return -EINVAL;
	return wait_event(s, peers_there, &n, deadline);
}
