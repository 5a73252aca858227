// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk wait
 *
 * Counts full members only: neither itself nor anybody else who merely looks
 * is what a script waits for. That is why it does not use shmk_wait_peers().
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include <linux/shmk.h>

#include "tool.h"

/* The local backend finds the dead only when somebody looks. */
#define LOOK_EVERY_MS	100
/*
 * Of one who is dead, but not settled, it is not known yet whether it detached. Where
 * nobody is left to settle it (local backend), it did not, or it would be done by now.
 */
#define SETTLED_BY_NS	500000000LL

enum wait_what { WAIT_COUNT, WAIT_PEER, WAIT_CLOSED };

struct life {
	uint32_t gen;
	bool rdonly;
	bool ended;		/* counted */
	int64_t dead_since;	/* 0: not seen dead */
};

struct wait {
	enum wait_what what;
	uint64_t at_least;
	uint64_t at_most;
	uint64_t peer;
	bool first;		/* WAIT_CLOSED: somebody has to have come */
	bool json;

	struct life *lives;	/* by id; WAIT_PEER and WAIT_CLOSED */
	unsigned int members;	/* living ones */
	unsigned int pending;	/* dead, and it is not known how */
	unsigned int detached;
	unsigned int died;
	bool removed;		/* the pool's name is gone, or another's */
	uint32_t gen;		/* WAIT_PEER: of that life */
	uint64_t deaths;	/* of the pool, when the wait began */
	bool lost;		/* events were; the pool's counter tells the deaths */
	char how[128];		/* the last one died */
};

static bool is_end(const struct shmk_event *e)
{
	return e->type == SHMK_EV_DETACHED || e->type == SHMK_EV_DIED;
}

static bool counts(const struct wait *w, uint32_t id)
{
	return w->what == WAIT_CLOSED || id == w->peer;
}

/* Who came and went between two looks is taken for a full member. */
static void ended(struct wait *w, const struct shmk_event *e)
{
	struct life *life = &w->lives[e->peer];
	bool known = life->gen == e->gen;

	if (!counts(w, e->peer) || (known && (life->rdonly || life->ended)))
		return;
	if (w->what == WAIT_PEER && e->gen != w->gen)
		return;
	*life = (struct life) { .gen = e->gen, .ended = true };
	if (e->type == SHMK_EV_DETACHED) {
		w->detached++;
		return;
	}
	w->died++;
	snprintf(w->how, sizeof(w->how), "peer %u (pid %d, %s) %s", e->peer, e->pid,
		 comm_text(e->comm), reason_text(e->reason, e->code));
}

static void read_events(struct shmk *s, struct wait *w)
{
	struct shmk_event e;

	while (!shmk_event_next(s, &e)) {
		if (e.type == SHMK_EV_DESTROYED || e.type == SHMK_EV_RESET)
			w->removed = true;
		else if (e.type == SHMK_EV_LOST)
			w->lost = true;
		else if (w->lives && is_end(&e) && e.peer <= SHMK_PEERS_MAX &&
			 !(e.peer == shmk_self(s) && e.gen == shmk_self_gen(s)))
			ended(w, &e);
	}
}

/* A member that is dead, and was not heard of by an event yet. */
static void look_at_dead(struct wait *w, struct life *life, const struct shmk_peer *p)
{
	int64_t now = now_ns();

	if (!life->dead_since)
		life->dead_since = now;
	if (life->ended || !counts(w, p->id))
		return;
	if (now - life->dead_since < SETTLED_BY_NS) {
		w->pending++;
		return;
	}
	life->ended = true;
	w->died++;
	snprintf(w->how, sizeof(w->how), "peer %u (pid %d, %s) died, and nobody is left to settle it",
		 p->id, p->pid, comm_text(p->comm));
}

static void look(struct shmk *s, struct wait *w)
{
	struct shmk_peer p;

	w->members = 0;
	w->pending = 0;
	for (uint32_t id = 0; !shmk_peer_next(s, id, &p); id = p.id + 1) {
		struct life *life = &w->lives[p.id];

		if (p.id == shmk_self(s) || (w->what == WAIT_PEER && p.gen != w->gen))
			continue;
		if (life->gen != p.gen)
			*life = (struct life) { .gen = p.gen, .rdonly = p.rdonly };
		if (p.rdonly)
			continue;
		if (p.dead)
			look_at_dead(w, life, &p);
		else if (counts(w, p.id))
			w->members++;
	}
}

/* Is what was waited for there? */
static bool reached(struct shmk *s, struct wait *w)
{
	if (w->what == WAIT_COUNT) {
		w->members = other_members(s);
		return w->members >= w->at_least && w->members <= w->at_most;
	}
	look(s, w);
	if (w->what == WAIT_CLOSED && w->removed)
		return true;
	if (w->members || w->pending)
		return false;
	read_events(s, w);	/* of who went before the look */
	return w->removed || !w->first || w->detached || w->died;
}

/* Too many events to be read: better one death too many told than one too few. */
static void deaths_unheard_of(struct shmk *s, struct wait *w)
{
	struct shmk_pool_stat st;

	if (!w->lost || w->died || shmk_pool_stat(s, &st) < 0 || st.deaths == w->deaths)
		return;
	w->died = st.deaths - w->deaths;
	snprintf(w->how, sizeof(w->how), "events came too fast to tell which");
}

static void sleep_for_event(struct shmk *s, struct wait *w, int64_t deadline)
{
	struct pollfd p = { .fd = shmk_event_fd(s), .events = POLLIN };
	int64_t left_ms = (deadline - now_ns()) / 1000000 + 1;

	poll(&p, p.fd >= 0, left_ms < LOOK_EVERY_MS ? (int)left_ms : LOOK_EVERY_MS);
	read_events(s, w);
}

static bool first_member(struct shmk *s, struct shmk_peer *p)
{
	for (uint32_t id = 0; !shmk_peer_next(s, id, p); id = p->id + 1)
		if (p->id != shmk_self(s) && !p->rdonly && !p->dead)
			return true;
	return false;
}

static int timed_out(struct shmk *s, const struct target *t, const struct wait *w)
{
	const char *after = human_ns(t->timeout_ms * 1000000);
	struct shmk_peer p;

	if (w->what == WAIT_PEER)
		say("peer %u of pool \"%s\" is still there after %s: see 'shmk show %s'",
		    (unsigned int)w->peer, t->pool, after, t->pool);
	else if (w->what == WAIT_CLOSED && first_member(s, &p))
		say("pool \"%s\" has %u peer%s after %s, the first pid %d (%s): see 'shmk show %s'",
		    t->pool, w->members, w->members == 1 ? "" : "s", after, p.pid,
		    comm_text(p.comm), t->pool);
	else
		say("pool \"%s\" has %u peer%s after %s: see 'shmk show %s'", t->pool, w->members,
		    w->members == 1 ? "" : "s", after, t->pool);
	return EXIT_TIMEOUT;
}

static int wait_for(struct shmk *s, const struct target *t, struct wait *w)
{
	int64_t deadline = shmk_deadline_ms(t->timeout_ms);

	while (!reached(s, w)) {
		if (stop_signal)
			return EXIT_FAILED;
		if (now_ns() >= deadline)
			return timed_out(s, t, w);
		sleep_for_event(s, w, deadline);
	}
	deaths_unheard_of(s, w);
	if (!w->died)
		return EXIT_OK;
	if (w->what == WAIT_PEER)
		say("%s", w->how);
	else
		say("pool \"%s\" is closed, but %u of its peers died; the last: %s", t->pool,
		    w->died, w->how);
	return EXIT_CRASHED;
}

static void tell_json(const struct target *t, const struct wait *w, int status)
{
	static const char *const what[] = { "count", "peer", "closed" };
	struct json j = { .f = stdout };

	json_open(&j, NULL, '{');
	json_string(&j, "pool", t->pool);
	json_string(&j, "waited_for", what[w->what]);
	json_string(&j, "result", status == EXIT_OK ? "ok" : status == EXIT_CRASHED ? "crashed" :
		    status == EXIT_TIMEOUT ? "timeout" : "interrupted");
	json_u64(&j, "members", w->members);
	json_u64(&j, "detached", w->detached);
	json_u64(&j, "died", w->died);
	json_bool(&j, "removed", w->removed);
	json_close(&j, '}');
}

/* Which life of the id is meant: the one that is there now. */
static int find_peer(struct shmk *s, const struct target *t, struct wait *w)
{
	struct shmk_peer p;

	if (!shmk_peer_next(s, w->peer, &p) && p.id == w->peer && !p.rdonly) {
		w->gen = p.gen;
		return EXIT_OK;
	}
	say("pool \"%s\" has no member %u: see 'shmk show %s' for those there are", t->pool,
	    (unsigned int)w->peer, t->pool);
	return EXIT_NOENT;
}

static int attach_and_wait(struct target *t, struct wait *w)
{
	struct shmk_pool_stat st = { };
	struct shmk *s;
	int status = target_attach(t, SHMK_ATTACH_RDONLY, &s);

	if (status)
		return status;
	shmk_pool_stat(s, &st);
	w->deaths = st.deaths;
	w->lives = calloc(SHMK_PEERS_MAX + 1, sizeof(*w->lives));
	if (!w->lives)
		status = fail(-ENOMEM, "cannot watch pool \"%s\"", t->pool);
	else if (w->what == WAIT_PEER)
		status = find_peer(s, t, w);
	if (!status) {
		status = wait_for(s, t, w);
		if (w->json)
			tell_json(t, w, status);
	}
	free(w->lives);
	tool_detach(s);
	return status ? status : finish_stdout();
}

static int wait_option(struct wait *w, int opt, const char *arg)
{
	uint64_t *n = opt == 'n' ? &w->at_least : opt == 'x' ? &w->at_most : &w->peer;

	if (opt == 'z') {
		w->what = WAIT_CLOSED;
		return EXIT_OK;
	}
	if (!parse_number(arg, SHMK_PEERS_MAX, n))
		return bad_usage("wait", "'%s' is no %s", arg,
				 opt == 'i' ? "id of a peer" : "number of peers");
	if (opt == 'i')
		w->what = WAIT_PEER;
	return EXIT_OK;
}

int cmd_wait(int argc, char **argv)
{
	static const struct option longs[] = {
		TARGET_POOL_OPTION,
		{ "peers", required_argument, NULL, 'n' },
		{ "at-most", required_argument, NULL, 'x' },
		{ "peer", required_argument, NULL, 'i' },
		{ "until-closed", no_argument, NULL, 'z' },
		{ "json", no_argument, NULL, 'j' },
		{ "timeout", required_argument, NULL, 't' },
		{ "wait", no_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct wait w = { .at_most = UINT64_MAX };
	struct target t = TARGET_INIT;
	bool counting = false, other = false;
	int opt, status;

	while ((opt = next_option(argc, argv, "hjn:t:w", longs)) != -1) {
		if (opt == 'j') {
			w.json = true;
		} else if (opt == 'n' || opt == 'x' || opt == 'i' || opt == 'z') {
			*(opt == 'n' || opt == 'x' ? &counting : &other) = true;
			status = wait_option(&w, opt, optarg);
			if (status)
				return status;
		} else if (target_option(&t, argv[0], opt, optarg) < 0) {
			return EXIT_USAGE;
		}
	}
	if (counting == other)
		return bad_usage(argv[0], counting ? "for one thing at a time" :
				 "for what? give --until-closed, --peer ID, --peers N or --at-most N%s", "");
	w.first = t.wait;
	status = target_parse_pool(&t, argv[0], argc, argv);
	return status ? status : attach_and_wait(&t, &w);
}
