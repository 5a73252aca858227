// SPDX-License-Identifier: GPL-2.0-only
/*
 * explore.c - the library's own code under all interleavings, with deaths.
 *
 * settle.c and queue.c, ledger.c, block.c, store.c, share.c, multi.c are compiled against order.h of this
 * directory, so that each access to a shared word is a step. The actors of a
 * scenario (senders, receivers, one that allocates) run as coroutines; before
 * every step the explorer decides who goes on and who dies there; a settler
 * takes the place of the dead, and may die and be followed by another. All
 * decisions are tried, depth first: what a step changes is saved before it is done, and
 * put back. A state that was seen is not explored again: the state of an actor
 * is the history of what it has read, hashed with the shared words (64 bits;
 * with S states the chance of a wrong cut is about S^2 / 2^65).
 *
 * With buffers (TSO) each actor's plain stores wait in a queue until the
 * explorer lets one out; its own loads see them, locked operations and fences
 * drain them, and so does death, which is precise. Who goes to sleep for room while another
 * has an emptied slot in its buffer looks once more when all is out: time has no other meaning here.
 *
 * Two reductions, both exact: a ledger is read by no living actor, so steps on
 * it are not switched at, only died at; and dying before a read is
 * the same as dying after the last write.
 *
 * Scenarios with long operations, or with many states, allow only so many switches away from an actor
 * that could go on (Musuvathi and Qadeer's context bound): most races need two.
 *
 * With every store: the words change in no other way than the design says. At the
 * end of each execution: every message was received once, or is still
 * there, or is reported lost; every block is free or in the ring; nobody sleeps
 * beside a message.
 *
 * explore [SCENARIO or SCENARI*]; EXPLORE_STATES=n: at most so many states of each, 0: all;
 * EXPLORE_TRACE=1: prints the stores of an execution that went wrong.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"
#include "../../lib/mail.h"
#include "../../lib/topic.h"
#include "kselftest.h"

#undef memcpy
#undef malloc
#undef calloc
#undef aligned_alloc
#undef free

#if !defined(__x86_64__)
int main(void)
{
	ksft_print_header();
	ksft_set_plan(1);
	ksft_test_result_skip("explore: its coroutines are x86-64\n");
	ksft_finished();
}
#else

#define ACTORS		6
#define PEERS		5		/* ids 1 .. 4 */
#define ENTRIES		8
#define SPANS		3
#define SLOTS		4
#define STACK		(128 << 10)
#define BUFFER		8
#define DEPTH		4096
#define IDS		16
#define READERS		2
#define ELEMENTS	8
#define BOXES		1
#define QUEUES		(1 + BOXES)
#define ELEMENT_NEXT	3	/* the last of 1 slot, 2 readers and 1 */

/* -------------------------------------------------------- shared words -- */

struct ledger {
	struct shmk_ledger	head;
	struct shmk_entry	entry[ENTRIES];
};

static struct world {
	struct shmk_span	spans[SPANS];
	struct shmk_block	blocks[SPANS * SHMK_SPAN_UNITS];
	__u64			taken_map[1], stale_map[1];
	struct shmk_ring	ring;
	unsigned char		slots[64 * SLOTS] __attribute__((aligned(64)));
	struct box {		/* queues but the first */
		struct shmk_ring	ring;
		unsigned char		slots[64 * SLOTS] __attribute__((aligned(64)));
	} box[BOXES];
	struct shmk_peer_status	peers[PEERS];	/* of calls and mail */
	__u64			events;		/* so many peers have ended */
	struct ledger		ledgers[PEERS];
	struct shmk_row		rows[READERS];
	struct {
		struct shmk_element	head;
		uint64_t		payload[8];
	} elements[ELEMENTS];
} world;

/* -------------------------------------------------------------- actors -- */

enum status { RUNS, SLEEPS, DONE, DEAD };

struct buffered {
	void		*p;
	uint64_t	value;
	size_t		size;
};

struct actor {
	enum status	status;
	uint32_t	peer;
	int		settles;	/* the peer it settles, or 0 */
	int		side;		/* SLEEPS */
	bool		relooks;	/* likewise: will look again, see wake_for_room() in lib/wait.c */
	uint32_t	queue;		/* likewise: its id */
	bool		(*over)(struct shmk *s, void *arg);	/* likewise, or at an event */
	void		*over_arg;
	void		(*run)(struct actor *a);
	int		arg;
	void		*sp;
	uint64_t	history;
	bool		wrote;		/* since the last chance to die */
	bool		at_ledger;	/* pending step is on its own ledger: no switch */
	struct buffered	buffer[BUFFER];
	unsigned int	nr_buffered;
	struct shmk	s;
	struct shmk_queue q;
	struct shmk_topic t;
	struct shmk_sub	sub;
	struct shmk_queue box;		/* its mailbox */
	struct shmk_mailbox mb;
	size_t		nr_heap;
	unsigned char	*stack;
};

static struct actor actors[ACTORS], *now;
static int nr_actors;
static void *explorer_sp;

static struct {
	unsigned int	sent[IDS], received[IDS];
	unsigned int	messages;	/* that can be lost */
	bool		dropped[ACTORS];	/* this actor has begun to let its reference go */
	unsigned int	acking[IDS];	/* F_REDELIVER: so many began to acknowledge it */
	uint32_t	hand[IDS];	/* and this peer, alive, has it in hand; 0: nobody */
	uint64_t	lost;
	unsigned int	replies;	/* that were sent, and their servers lived on */
	unsigned int	answered, given_up;
	bool		closed;		/* the mailbox; the letters in it are gone */
	bool		settler_died;
	int		crashes;
	int		switches;	/* away from one that could go on */
	uint64_t	digest;		/* of the above, for the state */
} told;

struct scenario {
	const char	*name;
	int		crashes;	/* most deaths, settlers' included */
	bool		tso;
	uint32_t	capacity;
	uint32_t	flags;
	bool		wraps;		/* positions and generations begin just below their wrap */
	void		(*setup)(void);
	bool		memory;		/* about spans: every span must be free or findable at the end */
	int		switches;	/* most of them; 0: any number; negative: only in a bounded search */
};

#define TRIES(n)	((uint32_t)(n) << 16)	/* in flags: max_tries of the queue */
#define MAIL		0x8000U	/* likewise: peer 1 has a mailbox, the last queue or the only one */
static const struct scenario *sc;
static int most_switches;	/* of sc, now */

/* Saves the callee's registers and goes on elsewhere. */
void model_switch(void **save, void *load);
__asm__(".text\n.globl model_switch\nmodel_switch:\n"
	"push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
	"mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
	"pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");

static void yield_step(void)
{
	struct actor *me = now;

	model_switch(&me->sp, explorer_sp);
}

static void actor_done(struct actor *a);

static void actor_main(void)
{
	now->run(now);
	actor_done(now);
	for (;;)
		yield_step();
}

static void actor_start(struct actor *a)
{
	void **sp = (void **)(a->stack + STACK - 64);

	*--sp = NULL;		/* alignment as after a call */
	*--sp = (void *)actor_main;
	sp -= 6;
	memset(sp, 0, 6 * sizeof(*sp));
	a->sp = sp;
}

/* ---------------------------------------------------------------- state -- */

static uint64_t mix(uint64_t h, uint64_t v)
{
	h ^= v + 0x9e3779b97f4a7c15ULL + (h << 6) + (h >> 2);
	h *= 0xff51afd7ed558ccdULL;
	return h ^ h >> 32;
}

/* Kept up to date with every store: sum over words of hash(address, value). */
static uint64_t memory_hash;

static uint64_t word_hash(const void *p, uint64_t value)
{
	return mix(mix(1, (uint64_t)((const unsigned char *)p - (unsigned char *)&world)), value);
}

static struct undo {
	void		*p;
	uint64_t	old;
	size_t		size;
} *undo;
static size_t nr_undo, max_undo;

static char violated[256];
static void violation(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static bool tracing;	/* the execution that went wrong is run once more, aloud */

/* A shared word's name. */
static const char *word_name(const void *p)
{
	static char name[64];
	size_t at = (size_t)((const unsigned char *)p - (unsigned char *)&world), i;

	if (at < offsetof(struct world, blocks))
		snprintf(name, sizeof(name), "span %zu +%zu", at / sizeof(world.spans[0]),
			 at % sizeof(world.spans[0]));
	else if (at < offsetof(struct world, taken_map))
		i = at - offsetof(struct world, blocks),
		snprintf(name, sizeof(name), "block %zu +%zu", i / sizeof(world.blocks[0]),
			 i % sizeof(world.blocks[0]));
	else if (at < offsetof(struct world, ring))
		snprintf(name, sizeof(name), at < offsetof(struct world, stale_map) ?
			 "taken_map" : "stale_map");
	else if (at < offsetof(struct world, slots))
		snprintf(name, sizeof(name), "ring +%zu", at - offsetof(struct world, ring));
	else if (at < offsetof(struct world, ledgers))
		i = at - offsetof(struct world, slots),
		snprintf(name, sizeof(name), "slot or box +%zu", i);
	else if (at < offsetof(struct world, rows))
		i = at - offsetof(struct world, ledgers),
		snprintf(name, sizeof(name), "ledger %zu +%zu", i / sizeof(world.ledgers[0]),
			 i % sizeof(world.ledgers[0]));
	else if (at < offsetof(struct world, elements))
		i = at - offsetof(struct world, rows),
		snprintf(name, sizeof(name), "row %zu +%zu", i / sizeof(world.rows[0]),
			 i % sizeof(world.rows[0]));
	else
		i = at - offsetof(struct world, elements),
		snprintf(name, sizeof(name), "element %zu +%zu", i / sizeof(world.elements[0]),
			 i % sizeof(world.elements[0]));
	return name;
}

static uint64_t raw_load(const void *p, size_t size)
{
	uint64_t v = 0;

	memcpy(&v, p, size);
	return v;
}

/* A block that was split: it may lose a child, or end with its last one. */
static bool inner_may(uint64_t from, uint64_t to, uint32_t raise)
{
	if (shmk_inner_both(from))
		return raise == 0 && shmk_block_inner(to) && !shmk_inner_both(to) &&
		       shmk_block_place(from) == shmk_block_place(to) &&
		       SHMK_BLOCK_UP(from) == SHMK_BLOCK_UP(to);
	if (SHMK_BLOCK_STATE(to) == SHMK_BLOCK_FREE)
		return raise == 1;
	return raise == 1 && shmk_block_held(to) &&
	       shmk_block_place(from) == shmk_block_place(to) &&
	       SHMK_BLOCK_UP(from) == SHMK_BLOCK_UP(to);
}

static bool held_may(uint64_t from, uint64_t to, uint32_t raise)
{
	if (SHMK_BLOCK_STATE(to) == SHMK_BLOCK_FREE)
		return raise == 1;
	if (shmk_block_inner(to))
		return raise == 0 && shmk_inner_both(to) &&
		       shmk_block_place(from) == shmk_block_place(to) &&
		       SHMK_BLOCK_UP(from) == SHMK_BLOCK_UP(to);
	if (!shmk_block_held(to))
		return false;
	return (uint32_t)from == (uint32_t)to ? raise == 1 :
	       raise == 0 && shmk_block_place(from) == SHMK_PLACE_ROOT;
}

static bool block_may(uint64_t from, uint64_t to)
{
	uint32_t b = SHMK_BLOCK_STATE(to), raise = SHMK_BLOCK_GEN(to) - SHMK_BLOCK_GEN(from);

	if (SHMK_BLOCK_STATE(from) == SHMK_BLOCK_FREE)
		return (b == SHMK_BLOCK_USED || b == SHMK_BLOCK_GONE) && raise == 0;
	if (SHMK_BLOCK_STATE(from) == SHMK_BLOCK_GONE)
		return b == SHMK_BLOCK_FREE && raise <= 1;
	return shmk_block_held(from) ? held_may(from, to, raise) : inner_may(from, to, raise);
}

static bool is_topic(void)
{
	return sc->flags & SHMK_QUEUE_F_TOPIC;
}

static bool has_mail(void)
{
	return sc->flags & MAIL;
}

/* Queue 0 is a service, and peer 1 its client. */
static bool is_call(void)
{
	return has_mail() && sc->flags & SHMK_QUEUE_F_REDELIVER;
}

#define CALL		(MAIL | SHMK_QUEUE_F_META | SHMK_QUEUE_F_REDELIVER)
#define BOX_FLAGS	(SHMK_QUEUE_F_META | SHMK_QUEUE_F_SC)

static uint32_t queue_flags(uint32_t id)
{
	return id ? BOX_FLAGS : sc->flags & SHMK_QUEUE_F_ALL;
}

static struct shmk_ring *ring_of(uint32_t id)
{
	return id ? &world.box[id - 1].ring : &world.ring;
}

static struct shmk_slot *slot_of(uint32_t id, uint32_t i)
{
	return (struct shmk_slot *)((id ? world.box[id - 1].slots : world.slots) + 64 * i);
}

static bool p_may(uint64_t from, uint64_t to, uint32_t flags)
{
	uint32_t a = SHMK_P_KIND(from), b = SHMK_P_KIND(to);
	uint32_t raise = SHMK_P_LAP(to) - SHMK_P_LAP(from);

	if (is_topic())
		return b == SHMK_KIND_ELEMENT && raise == (a == SHMK_KIND_ELEMENT);

	if (a == SHMK_KIND_EMPTY)
		return b != SHMK_KIND_EMPTY && raise == 0;
	if (a == SHMK_KIND_INLINE && b == SHMK_KIND_BLOCK)
		return flags & SHMK_QUEUE_F_REDELIVER && raise == 0;
	if (b == SHMK_KIND_EMPTY)
		return a != SHMK_KIND_CLAIMED && raise == 1;
	return a == SHMK_KIND_CLAIMED && raise == 0;
}

/* The words of the design change in its few ways only, whatever comes of it in the end. */
static bool plain;	/* the store is no compare-and-swap */

static bool t_may(uint64_t from, uint64_t to, uint32_t flags)
{
	int32_t raise = (int32_t)(SHMK_P_LAP(to) - SHMK_P_LAP(from));

	if (raise > 0 || !(from & SHMK_TAKEN))
		return true;
	/* Given back with one try more, or taken again with as many. */
	return raise == 0 && flags & SHMK_QUEUE_F_REDELIVER &&
	       !SHMK_T_PEER(from) != !SHMK_T_PEER(to) &&
	       SHMK_T_TRIES(to) == SHMK_T_TRIES(from) + !SHMK_T_PEER(to);
}

static bool slot_may(uint32_t id, const void *p, uint64_t from, uint64_t to)
{
	size_t at = (size_t)((const unsigned char *)p - (unsigned char *)slot_of(id, 0));
	uint32_t flags = queue_flags(id);

	if (at >= 64 * SLOTS)
		return true;
	if (at % 64 == offsetof(struct shmk_slot, p))
		return p_may(from, to, flags);
	return at % 64 != offsetof(struct shmk_slot, t) || t_may(from, to, flags);
}

static void check_store(const void *p, uint64_t from, uint64_t to)
{
	uint32_t id;
	size_t at = (size_t)((const unsigned char *)p - (unsigned char *)&world);
	bool may = true;

	if (from == to)
		return;
	if (at >= offsetof(struct world, blocks) && at < offsetof(struct world, taken_map))
		may = at % sizeof(struct shmk_block) ||
		      (block_may(from, to) &&
		       /* only the holder may just write */
		       (!plain || shmk_block_held(from)));
	for (id = 0; id < QUEUES; id++)
		may = may && slot_may(id, p, from, to);
	if (!may)
		violation("%s went from %#llx to %#llx", word_name(p), (unsigned long long)from,
			  (unsigned long long)to);
}

static void raw_store(void *p, uint64_t value, size_t size)
{
	uint64_t old = raw_load(p, size);

	if (nr_undo == max_undo) {
		max_undo = max_undo ? 2 * max_undo : 1024;
		undo = realloc(undo, max_undo * sizeof(*undo));
		if (!undo)
			exit(99);
	}
	undo[nr_undo++] = (struct undo){ p, old, size };
	if (now)
		check_store(p, old, value);
	if (tracing)
		ksft_print_msg("actor %d: %s = %#llx\n", now ? (int)(now - actors) : -1,
			       word_name(p), (unsigned long long)value);
	memory_hash += word_hash(p, value) - word_hash(p, old);
	memcpy(p, &value, size);
}

static void memory_reset(void)
{
	while (nr_undo) {
		nr_undo--;
		memcpy(undo[nr_undo].p, &undo[nr_undo].old, undo[nr_undo].size);
	}
	memory_hash = 0;
}

/*
 * Whatever it has read leads to nothing any more; and nobody reads the ledger of
 * who is done, or settled.
 */
static void actor_done(struct actor *a)
{
	struct ledger *ledger = &world.ledgers[a->settles ? a->settles : (int)a->peer];
	uint32_t i;

	a->status = DONE;
	a->history = 0;
	a->wrote = false;
	if (sc->memory || sc->flags & SHMK_QUEUE_F_TOPIC)
		return;
	now = NULL;
	raw_store(&ledger->head.high, 0, sizeof(ledger->head.high));
	for (i = 0; i < ENTRIES; i++) {
		raw_store(&ledger->entry[i].what, 0, 8);
		raw_store(&ledger->entry[i].where, 0, 8);
	}
	now = a;
}

static int last_actor;

/* ------------------------------------------------------ private memory -- */

/*
 * What an actor has for itself lies in a few places, and is saved before the actor does
 * a step, so that the step can be taken back.
 */
#define HEAP	32768
static unsigned char heaps[ACTORS][HEAP] __attribute__((aligned(64)));
static struct actor *heap_of;	/* whose, while no actor runs */
static struct shmk_msg messages[ACTORS][4];

static struct {
	uint32_t	free[ELEMENTS], shown[SLOTS];
	uint64_t	used, busy, lent, late[READERS];
} topic_private[ACTORS];

static unsigned char *saved;
static size_t nr_saved, max_saved;

struct saved {
	void	*p;
	size_t	size;
};

/* The bytes, then where they were. */
static void save(void *p, size_t size)
{
	struct saved to = { p, size };

	if (nr_saved + size + sizeof(to) > max_saved) {
		max_saved = 2 * max_saved + size + 65536;
		saved = realloc(saved, max_saved);
		if (!saved)
			exit(99);
	}
	memcpy(saved + nr_saved, p, size);
	memcpy(saved + nr_saved + size, &to, sizeof(to));
	nr_saved += size + sizeof(to);
}

static void saved_restore(size_t nr)
{
	struct saved to;

	while (nr_saved > nr) {
		nr_saved -= sizeof(to);
		memcpy(&to, saved + nr_saved, sizeof(to));
		nr_saved -= to.size;
		memcpy(to.p, saved + nr_saved, to.size);
	}
}

static void save_actor(struct actor *a)
{
	int i = (int)(a - actors);

	save(heaps[i], a->nr_heap);
	save(messages[i], sizeof(messages[i]));
	if (is_topic())
		save(&topic_private[i], sizeof(topic_private[i]));
	if (a->sp)
		save(a->sp, (size_t)(a->stack + STACK - (unsigned char *)a->sp));
	save(a, sizeof(*a));
}

/* Before any step: waking changes the status of others. */
static void save_step(struct actor *a)
{
	int i;

	for (i = 0; i < nr_actors; i++)
		if (actors[i].status == SLEEPS)
			save(&actors[i].status, sizeof(actors[i].status));
	save(&told, sizeof(told));
	save_actor(a);
}

void *model_alloc(size_t size)
{
	struct actor *a = now ? now : heap_of;
	unsigned char *p = heaps[a - actors] + a->nr_heap;

	a->nr_heap += (size + 63) & ~63UL;
	if (a->nr_heap > HEAP)
		exit(98);
	return p;
}

void *model_zalloc(size_t n, size_t size)
{
	return memset(model_alloc(n * size), 0, n * size);
}

/* It ends with the actor. */
void model_free(void *p)
{
	(void)p;
}

static bool may_die(const struct actor *a)
{
	return a->wrote && told.crashes < sc->crashes;
}

static uint64_t state_hash(void)
{
	uint64_t h = mix(memory_hash, told.digest);
	unsigned int j;
	int i;

	for (i = 0; i < nr_actors; i++) {
		const struct actor *a = &actors[i];

		h = mix(h, a->history ^ (uint64_t)a->status << 60 ^ (uint64_t)may_die(a) << 59);
		for (j = 0; j < a->nr_buffered; j++)
			h = mix(h, word_hash(a->buffer[j].p, a->buffer[j].value));
	}
	if (most_switches)
		h = mix(h, (uint64_t)told.switches << 8 | (uint64_t)last_actor);
	return mix(h, (uint64_t)nr_actors << 8 | (uint64_t)told.crashes);
}

/* Open addressing; a zero is no state. */
static uint64_t *seen;
static size_t seen_size, nr_seen;

static void seen_grow(void)
{
	uint64_t *old = seen;
	size_t i, n = seen_size, at;

	seen_size = n ? 2 * n : 1 << 20;
	seen = calloc(seen_size, sizeof(*seen));
	if (!seen)
		exit(99);
	for (i = 0; i < n; i++) {
		if (!old[i])
			continue;
		for (at = old[i] & (seen_size - 1); seen[at]; at = (at + 1) & (seen_size - 1))
			;
		seen[at] = old[i];
	}
	free(old);
}

static bool seen_before(uint64_t h)
{
	size_t at;

	h |= 1;
	if (nr_seen * 2 >= seen_size)
		seen_grow();
	for (at = h & (seen_size - 1); seen[at]; at = (at + 1) & (seen_size - 1))
		if (seen[at] == h)
			return true;
	seen[at] = h;
	nr_seen++;
	return false;
}

/* ----------------------------------------------- the library's accesses -- */

static bool is_shared(const void *p)
{
	return (const unsigned char *)p >= (unsigned char *)&world &&
	       (const unsigned char *)p < (unsigned char *)(&world + 1);
}

/* Of a topic's readers it is shared like all else. */
static bool is_ledger(const void *p)
{
	return !is_topic() && (const unsigned char *)p >= (unsigned char *)world.ledgers &&
	       is_shared(p);
}

/*
 * Before an access, which will be in the history: so the history says where an actor
 * stands, whether or not it had to stop on its way there.
 */
static void step_at(const void *p)
{
	now->at_ledger = is_ledger(p);
	/* Ledger steps without a write before them are no chance for anything. */
	if (!now->at_ledger || may_die(now))
		yield_step();
}

static void plain_store(void *p, uint64_t value, size_t size)
{
	plain = true;
	raw_store(p, value, size);
	plain = false;
}

static void drain_one(struct actor *a)
{
	plain_store(a->buffer[0].p, a->buffer[0].value, a->buffer[0].size);
	a->nr_buffered--;
	memmove(a->buffer, a->buffer + 1, a->nr_buffered * sizeof(a->buffer[0]));
}

static void drain(struct actor *a)
{
	while (a->nr_buffered)
		drain_one(a);
}

uint64_t model_load(const void *p, size_t size)
{
	unsigned int i;
	uint64_t v;

	if (!is_shared(p) || !now)
		return raw_load(p, size);
	step_at(p);
	v = raw_load(p, size);
	for (i = 0; i < now->nr_buffered; i++)
		if (now->buffer[i].p == p)
			v = now->buffer[i].value;
	now->history = mix(now->history, v);
	return v;
}

void model_store(void *p, uint64_t value, size_t size)
{
	if (!is_shared(p) || !now) {
		if (is_shared(p))
			raw_store(p, value, size);
		else
			memcpy(p, &value, size);
		return;
	}
	step_at(p);
	now->history = mix(now->history, value);
	now->wrote = true;
	/* A ledger is read by settlers only, who see all of it anyway. */
	if (!sc->tso || is_ledger(p)) {
		plain_store(p, value, size);
		return;
	}
	if (now->nr_buffered == BUFFER)
		drain_one(now);
	now->buffer[now->nr_buffered++] = (struct buffered){ p, value, size };
}

uint64_t model_cmpxchg(__u64 *p, uint64_t old, uint64_t new)
{
	uint64_t v;

	if (now)
		step_at(p);
	if (now)
		drain(now);
	v = *p;
	if (v == old && old != new)
		raw_store(p, new, sizeof(*p));
	if (now) {
		now->wrote |= v == old;
		now->history = mix(now->history, v);
	}
	return v;
}

uint64_t model_rmw(__u64 *p, uint64_t and, uint64_t or)
{
	uint64_t v;

	if (now) {
		step_at(p);
		drain(now);
	}
	v = *p;
	raw_store(p, (v & and) | or, sizeof(*p));
	if (now) {
		now->wrote = true;
		now->history = mix(now->history, v);
	}
	return v;
}

/* A step that is no access. */
static void step_beside(void)
{
	now->at_ledger = false;
	yield_step();
}

void model_fence(void)
{
	if (!now)
		return;
	if (now->nr_buffered) {
		step_beside();
		drain(now);
	}
	now->history = mix(now->history, 1);
}

/* Of slots with tags the words are copied one by one. */
void model_copy(void *to, const void *from, size_t n)
{
	unsigned char *t = to;
	const unsigned char *f = from;

	if (!now || !(sc->flags & SHMK_QUEUE_F_META) || n % 8 ||
	    (!is_shared(to) && !is_shared(from))) {
		memcpy(to, from, n);
		return;
	}
	for (; n; n -= 8, t += 8, f += 8)
		model_store(t, model_load(f, 8), 8);
}

/* ------------------------------------- what the library's files want of others -- */

static void wake(uint32_t queue, uint32_t side)
{
	int i;

	for (i = 0; i < nr_actors; i++)
		if (actors[i].status == SLEEPS && actors[i].side == (int)side &&
		    actors[i].queue == queue)
			actors[i].status = RUNS;
}

static void wake_by_event(void)
{
	int i;

	for (i = 0; i < nr_actors; i++)
		if (actors[i].status == SLEEPS && actors[i].over)
			actors[i].status = RUNS;
}

/* No step: whether the fd is readable is asked in the moment of falling asleep. */
static bool event_since(const uint64_t *events)
{
	bool news = events && world.events != *events;

	now->history = mix(now->history, news);
	return news;
}

static bool others_buffer(const struct actor *a)
{
	int i;

	for (i = 0; i < nr_actors; i++)
		if (&actors[i] != a && actors[i].nr_buffered)
			return true;
	return false;
}

/*
 * Has another emptied a slot of this queue, and it cannot be seen yet? That is all that a
 * later look is for: where receivers fence it is for nothing.
 */
static bool room_comes(const struct shmk_queue *q)
{
	unsigned int n;
	int i;

	if (is_topic() || q->flags & SHMK_QUEUE_F_REDELIVER || q->rv.ring->watched)
		return false;
	for (i = 0; i < nr_actors; i++) {
		for (n = 0; n < actors[i].nr_buffered && &actors[i] != now; n++) {
			const struct buffered *b = &actors[i].buffer[n];
			size_t at = (size_t)((unsigned char *)b->p - q->rv.slots);

			if (at < 64 * SLOTS && at % 64 == offsetof(struct shmk_slot, p) &&
			    SHMK_P_KIND(b->value) == SHMK_KIND_EMPTY)
				return true;
		}
	}
	return false;
}

/*
 * The order of lib/wait.c: word, fence, look, sleep. With @events: unless one has come
 * since there were so many.
 */
static int sleep_side(struct shmk_queue *q, uint32_t side, const uint64_t *events)
{
	uint32_t entry;
	int ret = entry_get(q->shmk, &entry);

	if (ret)
		return ret;
	entry_set(q->shmk, entry, SHMK_OP_WAITING, SHMK_WHERE(q->id, side));
	WRITE_ONCE(*waiters_word(q, side), 1);
	smp_mb();
	now->relooks = side == SHMK_SIDE_SEND && room_comes(q);
	now->history = mix(now->history, now->relooks);
	if (!(q->ready ? q->ready(q, side) : shmk_ring_ready(&q->rv, side)) &&
	    !(now->over && now->over(q->shmk, now->over_arg)) &&
	    READ_ONCE(*waiters_word(q, side)) && !event_since(events)) {
		now->status = SLEEPS;
		now->side = (int)side;
		now->queue = q->id;
		step_beside();
		now->history = mix(now->history, 1);
	}
	entry_put(q->shmk, entry);
	return 0;
}

/* A TRY never sleeps. */
int wait_side(struct shmk_queue *q, uint32_t side, int64_t deadline)
{
	int ret;

	if (deadline == SHMK_TRY)
		return -EAGAIN;
	do {
		ret = sleep_side(q, side, NULL);
		/* Others come back anyway. */
	} while (!ret && has_mail() && !shmk_ring_ready(&q->rv, side));
	return ret;
}

int wait_look(struct shmk_queue *q, uint32_t side, int64_t deadline)
{
	return wait_side(q, side, deadline);
}

int wait_side_event(struct shmk_queue *q, uint32_t side,
		    bool (*over)(struct shmk *s, void *arg), void *arg, int64_t deadline)
{
	uint64_t events;
	int ret;

	if (over(q->shmk, arg))
		return -EPIPE;
	if (deadline == SHMK_TRY)
		return -EAGAIN;
	do {
		events = READ_ONCE(world.events);
		if (over(q->shmk, arg))
			return -EPIPE;
		now->over = over;
		now->over_arg = arg;
		ret = sleep_side(q, side, &events);
		now->over = NULL;
	} while (!ret && !shmk_ring_ready(&q->rv, side));
	return ret;
}

void wait_bell(struct shmk_queue *q, uint32_t side)
{
	if (xchg(waiters_word(q, side), 0)) {
		step_beside();
		now->history = mix(now->history, 1);
		wake(q->id, side);
	}
}

void wait_forget(struct shmk_queue *q)
{
	(void)q;
}

int wait_event(struct shmk *s, bool (*ready)(struct shmk *s, void *arg), void *arg,
	       int64_t deadline)
{
	(void)deadline;
	return ready(s, arg) ? 0 : -EAGAIN;
}

void lock_shared(struct lock *lock)
{
	(void)lock;
}

bool name_valid(const char *name)
{
	return name != NULL;
}

bool shmk_contains(const struct shmk *s, const void *ptr, size_t len)
{
	(void)s, (void)ptr, (void)len;
	return false;
}

static int no_reap(struct shmk *s)
{
	(void)s;
	return 0;
}

int side_export(struct shmk_queue *q, uint32_t side)
{
	(void)q, (void)side;
	return -EINVAL;
}

/* Patience ends at once (TURN_PATIENCE_NS in selftests/Makefile). */
int wait_nap(struct shmk *s, int64_t until, int64_t deadline)
{
	(void)s;
	(void)until;
	(void)deadline;
	return 0;
}

int64_t now_ns(void)
{
	return 0;
}

/* The status words are not modelled: DEAD comes with the death. */
bool shmk_peer_alive(struct shmk *s, uint32_t id, uint32_t gen)
{
	bool alive = id && actors[id - 1].status != DEAD;

	(void)s, (void)gen;
	if (now)
		now->history = mix(now->history, alive);
	return alive;
}

/* Mailboxes by name: the last queue is that of peer 1. */
static int open_queue(struct shmk *s, struct shmk_queue_open *arg)
{
	(void)s;
	if (strcmp(arg->name, "mailbox-1-1"))
		return -ENOENT;
	arg->id = sc->flags & SHMK_QUEUE_F_REDELIVER;
	arg->id = arg->id ? BOXES : 0;
	arg->gen = 1;
	return 0;
}

static void settle_bell(uint32_t id);

static int close_queue(struct shmk *s, uint32_t id, uint32_t gen)
{
	(void)s, (void)gen;
	settle_bell(id);
	return 0;
}

/* Others have it open. */
static int remove_queue(struct shmk *s, uint32_t id, uint32_t gen)
{
	(void)s, (void)id, (void)gen;
	return -EBUSY;
}

static const struct shmk_backend backend = {
	.scheme = "model", .reap = no_reap, .queue_open = open_queue, .queue_close = close_queue,
	.queue_remove = remove_queue,
};

static void view_queue(const struct shmk_view *view, __u32 id, struct shmk_ring_view *rv)
{
	(void)view;
	if (id >= QUEUES)
		return;
	rv->ring = ring_of(id);
	rv->slots = (unsigned char *)slot_of(id, 0);
	rv->capacity_shift = (uint32_t)__builtin_ctz(sc->capacity);
	rv->slot_bytes = 64;
	rv->flags = queue_flags(id);
	rv->max_tries = id ? 0 : sc->flags >> 16;
}

static unsigned char payload[SPANS << 16];	/* not part of the model */

static const struct shmk_view view = {
	.spans = world.spans, .taken_map = world.taken_map, .stale_map = world.stale_map,
	.blocks = world.blocks, .nr_spans = SPANS, .unit_shift = 8, .nr_queues = QUEUES,
	.queue = view_queue,
};

/* ---------------------------------------------------------- violations -- */

static void violation(const char *fmt, ...)
{
	va_list ap;

	if (violated[0])
		return;
	va_start(ap, fmt);
	vsnprintf(violated, sizeof(violated), fmt, ap);
	va_end(ap);
}

/* -------------------------------------------------------------- scripts -- */

static void note_sent(uint32_t id)
{
	told.sent[id]++;
	told.digest = mix(told.digest, 0x100 + id);
}

static void note_received(uint32_t id)
{
	if (id >= IDS) {
		violation("a message with id %u that nobody sent", id);
		return;
	}
	told.received[id]++;
	told.digest += mix(0x200, id);
}

/* Sums, so that the order of unrelated events does not make states differ. */
static void note_lost(uint64_t nr)
{
	told.lost += nr;
	told.digest += mix(0x300, nr) * (nr != 0);
}

static uint32_t first_gen(void)
{
	return sc->wraps ? UINT32_MAX : 7;
}

/* A block that the actor holds, as shmk_alloc() leaves it; its id is its length. */
static void give_block(struct actor *a, uint32_t block, uint32_t id, struct shmk_msg *msg)
{
	uint32_t entry;

	memset(msg, 0, offsetof(struct shmk_msg, small));
	entry_get_locked(&a->s, &entry);
	msg->entry = entry;
	msg->data = msg;
	msg->len = id;
	msg->room = 512;
	msg->shmk = &a->s;
	msg->block = block;
	msg->gen = first_gen();
	msg->kind = SHMK_KIND_BLOCK;
	msg->from = SHMK_WHERE(SHMK_QUEUE_NOWHERE, 0);
	entry_set(&a->s, entry, SHMK_WHAT(SHMK_OP_HELD, block, msg->gen), msg->from);
}

/* Before the first step: nothing of this is explored. */
static void own_block(struct actor *a, uint32_t block, uint32_t id, struct shmk_msg *msg)
{
	struct actor *me = now;

	now = NULL;
	raw_store(&world.blocks[block].word, SHMK_BLOCK_WORD(first_gen(), SHMK_BLOCK_USED), 8);
	give_block(a, block, id, msg);
	told.messages++;
	now = me;
}

static uint32_t message_id(const struct actor *a, int i)
{
	return (uint32_t)(a - actors) * 4 + (uint32_t)i + 1;
}

static uint32_t message_block(const struct actor *a, int i)
{
	return (uint32_t)(a - actors) * 8 + (uint32_t)i * 2;
}

static void send_blocks(struct actor *a)
{
	int i;

	for (i = 0; i < a->arg; i++) {
		struct shmk_msg *msg = &messages[a - actors][i];

		if (shmk_send(&a->q, msg, SHMK_TRY))
			shmk_free(msg);
		else
			note_sent(message_id(a, i));
	}
}

static void send_blocks_waiting(struct actor *a)
{
	int i;

	for (i = 0; i < a->arg; i++)
		if (!shmk_send(&a->q, &messages[a - actors][i], SHMK_FOREVER))
			note_sent(message_id(a, i));
}

static void send_inline(struct actor *a)
{
	static const char zeros[IDS];
	int i;

	for (i = 0; i < a->arg; i++)
		if (!shmk_send_copy(&a->q, zeros, message_id(a, i), SHMK_TRY))
			note_sent(message_id(a, i));
}

/* Nobody else may have it in hand; and a chance to die with it in hand. */
static void note_taken(const struct actor *a, uint32_t id)
{
	if (id >= IDS) {
		violation("a message with id %u that nobody sent", id);
		return;
	}
	if (told.hand[id])
		violation("message %u is in the hands of %u and %u", id, told.hand[id], a->peer);
	told.hand[id] = a->peer;
	told.digest += mix(0x400, id << 8 | a->peer);
	(void)READ_ONCE(world.ring.head);
}

static void note_untaken(uint32_t id)
{
	if (!told.hand[id])
		return;
	told.digest -= mix(0x400, id << 8 | told.hand[id]);
	told.hand[id] = 0;
}

static void consume(const struct actor *a, struct shmk_msg *msg)
{
	uint32_t id = (uint32_t)msg->len;

	if (!(sc->flags & SHMK_QUEUE_F_REDELIVER)) {
		note_received(id);
		shmk_free(msg);
		return;
	}
	note_taken(a, id);
	if (violated[0])
		return;
	told.acking[id]++;
	told.digest += mix(0x500, id);
	shmk_free(msg);
	note_untaken(id);
	note_received(id);
}

static void recv_tries(struct actor *a)
{
	struct shmk_msg msg;
	int i;

	for (i = 0; i < a->arg; i++)
		if (!shmk_recv(&a->q, &msg, SHMK_TRY))
			consume(a, &msg);
}

/* Answers with the block that the message came in: freed, kept, allocated again. */
static void answer_kept(struct actor *a)
{
	struct shmk_msg *msg = &messages[a - actors][0];
	uint32_t block;

	if (shmk_recv(&a->q, msg, SHMK_TRY))
		return;
	note_received((uint32_t)msg->len);
	block = msg->block;
	shmk_keep(&a->s, 1 << 16);
	shmk_free(msg);
	if (shmk_alloc(&a->s, 1 << 16, 0, msg) || msg->block != block)
		violation("block %u was not kept", block);
	msg->len = message_id(a, 0);
	if (shmk_send(&a->q, msg, SHMK_TRY))
		shmk_free(msg);
	else
		note_sent(message_id(a, 0));
	shmk_keep(&a->s, 0);
}

static void recv_waiting(struct actor *a)
{
	struct shmk_msg msg;
	int i;

	for (i = 0; i < a->arg; i++)
		if (!shmk_recv(&a->q, &msg, SHMK_FOREVER))
			consume(a, &msg);
}

/* Receives and passes on to the same queue, once. */
static void pass_on(struct actor *a)
{
	struct shmk_msg msg;

	if (shmk_recv(&a->q, &msg, SHMK_TRY))
		return;
	if (sc->flags & SHMK_QUEUE_F_REDELIVER) {
		note_taken(a, (uint32_t)msg.len);
		note_untaken((uint32_t)msg.len);
	}
	if (!violated[0] && shmk_send(&a->q, &msg, SHMK_TRY))
		consume(a, &msg);
}

/* Two in hand, done with in the other order. */
static void recv_two(struct actor *a)
{
	struct shmk_msg first, second;
	bool one = !shmk_recv(&a->q, &first, SHMK_TRY), two;

	if (!one)
		return;
	two = !shmk_recv(&a->q, &second, SHMK_TRY);
	if (two)
		consume(a, &second);
	consume(a, &first);
}

/* --- shared messages: messages[a][0], and what is got by splitting it --- */

/* So that splitting finds its two blocks at hand. Before the first step. */
static void warm(struct actor *a)
{
	uint32_t entry[2], block[2], gen[2];
	int i;

	heap_of = a;
	for (i = 0; i < 2; i++) {
		entry_get_locked(&a->s, &entry[i]);
		block_alloc_locked(&a->s, 30000, 0, entry[i], &block[i], &gen[i]);
	}
	for (i = 0; i < 2; i++)
		block_free_locked(&a->s, block[i], gen[i], entry[i]);
}

static void drop(struct actor *a, struct shmk_msg *msg)
{
	told.dropped[a - actors] = true;
	shmk_free(msg);
}

static void drop_own(struct actor *a)
{
	drop(a, &messages[a - actors][0]);
}

static void share_send_drop(struct actor *a)
{
	struct shmk_msg *msg = messages[a - actors];

	if (!shmk_msg_share(&msg[0], &msg[1])) {
		if (shmk_send(&a->q, &msg[1], SHMK_TRY))
			shmk_free(&msg[1]);
	}
	drop(a, &msg[0]);
}

static void share_drop(struct actor *a)
{
	struct shmk_msg *msg = messages[a - actors];

	if (!shmk_msg_share(&msg[0], &msg[1]))
		shmk_free(&msg[1]);
	drop(a, &msg[0]);
}

/* Has the only one other drop its reference, then this is a plain block again. */
static void resize_drop(struct actor *a)
{
	struct shmk_msg *msg = messages[a - actors];

	if (!shmk_resize(msg, 1) && !told.dropped[1] && actors[1].status != DEAD)
		violation("alone beside another");
	drop(a, msg);
}

/* Receives and shares, and says that it has it. */
static void recv_share(struct actor *a)
{
	struct shmk_msg msg, other;

	if (shmk_recv(&a->q, &msg, SHMK_TRY))
		return;
	if (!shmk_msg_share(&msg, &other))
		shmk_free(&other);
	note_received((uint32_t)msg.len);
	shmk_free(&msg);
}

static void recv_drop(struct actor *a)
{
	struct shmk_msg msg;
	int i;

	for (i = 0; i < a->arg; i++)
		if (!shmk_recv(&a->q, &msg, SHMK_TRY))
			shmk_free(&msg);
}

/* Two references that somebody made before; on to the queue with them. */
static void send_two(struct actor *a)
{
	int i;

	for (i = 0; i < 2; i++)
		if (shmk_send(&a->q, &messages[a - actors][i], SHMK_TRY))
			shmk_free(&messages[a - actors][i]);
}

/* --- messages of two parts: one has the length that is the id, the other none --- */

static void pack_send(struct actor *a)
{
	struct shmk_msg *msg = messages[a - actors];

	if (shmk_send_multi(&a->q, msg, 2, SHMK_TRY)) {
		shmk_free(&msg[0]);
		shmk_free(&msg[1]);
	} else {
		note_sent(message_id(a, 0));
	}
}

static void recv_unpack(struct actor *a)
{
	struct shmk_msg msg[2];
	int n = shmk_recv_multi(&a->q, msg, 2, SHMK_TRY), i;

	if (n > 0)
		note_received((uint32_t)msg[0].len);
	for (i = 0; i < n; i++)
		shmk_free(&msg[i]);
}

/* Holds a block that an old list in the envelope's place still names. */
static void recv_unpack_holding(struct actor *a)
{
	struct shmk_msg *own = &messages[a - actors][0];

	recv_unpack(a);
	if (!shmk_block_held_as(READ_ONCE(world.blocks[own->block].word), own->gen))
		violation("block %u was freed under its holder", own->block);
	shmk_free(own);
}

static void recv_pack(struct actor *a)
{
	struct shmk_msg msg, whole;

	if (shmk_recv(&a->q, &msg, SHMK_TRY))
		return;
	note_received((uint32_t)msg.len);
	if (shmk_msg_pack(&msg, 1, &whole))
		shmk_free(&msg);
	else
		shmk_free(&whole);
}

static void alloc_free(struct actor *a)
{
	uint32_t entry, block, gen;
	int i;

	for (i = 0; i < a->arg; i++) {
		if (entry_get_locked(&a->s, &entry))
			continue;
		if (block_alloc_locked(&a->s, 30000, 0, entry, &block, &gen))
			entry_put_locked(&a->s, entry);
		else
			block_free_locked(&a->s, block, gen, entry);
	}
}

static void alloc_run(struct actor *a)
{
	uint32_t entry, block, gen;

	if (entry_get_locked(&a->s, &entry))
		return;
	if (block_alloc_locked(&a->s, (size_t)a->arg * 65536, 0, entry, &block, &gen))
		entry_put_locked(&a->s, entry);
	else
		block_free_locked(&a->s, block, gen, entry);
}

static void settle_bell(uint32_t id)
{
	now->at_ledger = false;
	model_fence();
	WRITE_ONCE(ring_of(id)->waiters_recv, 0);
	WRITE_ONCE(ring_of(id)->waiters_send, 0);
	model_fence();
	wake(id, SHMK_SIDE_RECV);
	wake(id, SHMK_SIDE_SEND);
}

/*
 * The end of a peer behind its settling: its queues are closed and rung, its id is free,
 * and the event is told. One step, under locks in the module.
 */
static void settle_end(uint32_t peer)
{
	uint32_t id;

	step_beside();
	drain(now);
	for (id = 0; id < QUEUES; id++) {
		raw_store(&ring_of(id)->waiters_recv, 0, 8);
		raw_store(&ring_of(id)->waiters_send, 0, 8);
		wake(id, SHMK_SIDE_RECV);
		wake(id, SHMK_SIDE_SEND);
	}
	raw_store(&world.peers[peer].word, 0, 8);
	raw_store(&world.events, world.events + 1, 8);
	wake_by_event();
}

static void settle(struct actor *a)
{
	struct ledger *ledger = &world.ledgers[a->settles];
	struct shmk_settled settled = { 0 };
	uint32_t i, high = (uint32_t)READ_ONCE(ledger->head.high);
	uint64_t counted = 0;

	for (i = 0; i < high && i < ENTRIES; i++) {
		int bell = shmk_settle_entry(&view, (uint32_t)a->settles, &ledger->entry[i],
					     &settled);

		note_lost(settled.messages - counted);
		counted = settled.messages;
		if (bell != SHMK_SETTLE_NO_BELL)
			settle_bell((uint32_t)bell);
	}
	for (i = 0; i < high && i < ENTRIES && settled.held_back; i++) {
		int bell = shmk_settle_redo(&view, (uint32_t)a->settles, &ledger->entry[i],
					    &settled);

		note_lost(settled.messages - counted);
		counted = settled.messages;
		if (bell != SHMK_SETTLE_NO_BELL)
			settle_bell((uint32_t)bell);
	}
	for (i = 0; i < high && i < ENTRIES; i++)
		shmk_settle_span(&view, (uint32_t)a->settles, &ledger->entry[i]);
	if (has_mail())
		settle_end((uint32_t)a->settles);
	if (!is_topic())
		return;
	/* What the end of a peer does with the queues that it had open. */
	for (i = 0; i < READERS; i++)
		if (SHMK_ROW_PEER(world.rows[i].word) == (uint32_t)a->settles)
			WRITE_ONCE(world.rows[i].word, 0);
	settle_bell(0);
}

/* --------------------------------------------------------------- topics -- */

static const struct shmk_status topic_status = { .ledger_stride = sizeof(struct ledger) };

/* The payload is two words, stored one after the other. */
static void topic_put(struct actor *a)
{
	struct shmk_loan loan;
	uint64_t *words;
	int ret = shmk_topic_loan(&a->t, &loan);

	if (ret) {
		violation("no element is free (%d)", ret);
		return;
	}
	words = loan.data;
	WRITE_ONCE(words[0], a->t.seq);
	WRITE_ONCE(words[1], a->t.seq);
	ret = shmk_topic_publish(&a->t, &loan, 16, SHMK_FOREVER);
	if (ret)
		violation("publishing: %d", ret);
	else
		note_sent(0);
}

static void topic_write(struct actor *a)
{
	int i;

	if (shmk_topic_writer(&a->t, SHMK_FOREVER))
		return;
	for (i = 0; i < a->arg; i++)
		topic_put(a);
}

/* Gives the role away again, and wants it back. */
static void topic_write_in_turn(struct actor *a)
{
	int i;

	for (i = 0; i < a->arg; i++) {
		if (shmk_topic_writer(&a->t, SHMK_FOREVER))
			return;
		topic_put(a);
		shmk_topic_writer_release(&a->t);
	}
}

static void topic_look(const struct shmk_held *held)
{
	const uint64_t *words = held->data;

	if (READ_ONCE(words[0]) != held->seq || READ_ONCE(words[1]) != held->seq)
		violation("message %llu was written over while it was held",
			  (unsigned long long)held->seq);
}

static void topic_read_held(struct actor *a)
{
	struct shmk_held held;
	uint64_t seq = 0;
	int i;

	for (i = 0; i < a->arg; i++) {
		if (shmk_topic_take(&a->sub, &held, SHMK_TRY))
			continue;
		if (held.seq <= seq)
			violation("message %llu after %llu", (unsigned long long)held.seq,
				  (unsigned long long)seq);
		seq = held.seq;
		topic_look(&held);
		shmk_topic_release(&held);
	}
}

static void topic_read_waiting(struct actor *a)
{
	struct shmk_held held;
	int i;

	for (i = 0; i < a->arg; i++) {
		if (shmk_topic_take(&a->sub, &held, SHMK_FOREVER))
			return;
		if (a->sub.waited_for && held.seq != (uint64_t)i + 1)
			violation("message %llu where %d was to come",
				  (unsigned long long)held.seq, i + 1);
		topic_look(&held);
		shmk_topic_release(&held);
	}
}

/* Copies are whole; of two of the last one the second is no older. */
static void topic_copy(struct actor *a)
{
	struct shmk_held held;
	uint64_t seq = 0, words[8];
	int i;

	for (i = 0; i < a->arg; i++) {
		if (shmk_topic_read_last(&a->t, words, sizeof(words), &held) < 0)
			continue;
		if (words[0] != held.seq || words[1] != held.seq)
			violation("the copy of message %llu is not of one message",
				  (unsigned long long)held.seq);
		if (held.seq < seq)
			violation("message %llu after %llu", (unsigned long long)held.seq,
				  (unsigned long long)seq);
		seq = held.seq;
	}
}

static bool topic_reader_ready(struct shmk_queue *q, uint32_t side)
{
	(void)side;
	return shmk_topic_ready(&q->rv, ((struct shmk_sub *)q)->pos);
}

static bool topic_candidate_ready(struct shmk_queue *q, uint32_t side)
{
	uint64_t role = READ_ONCE(q->rv.ring->role_send);

	(void)side;
	return !shmk_peer_alive(q->shmk, (uint32_t)role & 0xffff, 1);
}

static bool topic_writer_ready(struct shmk_queue *q, uint32_t side)
{
	const struct shmk_topic *t = (const struct shmk_topic *)q;
	uint64_t tail = READ_ONCE(q->rv.ring->tail), pos;
	uint32_t i;

	(void)side;
	for (i = 0; i < t->nr_readers; i++) {
		uint64_t word = READ_ONCE(world.rows[i].word);

		if (SHMK_ROW_POLICY(word) != SHMK_TOPIC_WAIT)
			continue;
		pos = SHMK_WHERE_POS(READ_ONCE(world.ledgers[SHMK_ROW_PEER(word)].entry[0].where));
		if (!shmk_topic_room(&q->rv, t->depth, tail, pos))
			return false;
	}
	return true;
}

/* ------------------------------------------------------- mail and calls -- */

/* The mailbox of the first peer; a letter's tag is its id. */
static void mail_letters(struct actor *a, int64_t deadline)
{
	int i, ret;

	for (i = 0; i < a->arg; i++) {
		struct shmk_msg *msg = &messages[a - actors][i];

		ret = shmk_mail_send(&a->s, 1, 1, message_id(a, i), msg, deadline);
		if (!ret) {
			note_sent(message_id(a, i));
			continue;
		}
		if (ret == -EPIPE ? actors[0].status != DEAD :
		    ret == -ENOENT ? !told.closed : ret != -EAGAIN || deadline != SHMK_TRY)
			violation("a letter: %d", ret);
		shmk_free(msg);
	}
}

static void mail_tries(struct actor *a)
{
	mail_letters(a, SHMK_TRY);
}

static void mail_waiting(struct actor *a)
{
	mail_letters(a, SHMK_FOREVER);
}

static void letter_read(struct shmk_msg *msg)
{
	if (msg->tag != msg->len || msg->sender != (msg->tag - 1) / 4 + 1)
		violation("letter %zu comes from %u with tag %u", msg->len, msg->sender, msg->tag);
	note_received((uint32_t)msg->len);
	shmk_free(msg);
}

/* First what the last sender has sent, then whatever is there. */
static void mail_read(struct actor *a)
{
	struct shmk_msg msg;
	uint32_t from = (uint32_t)nr_actors;

	while (from > 3)
		from--;
	if (!shmk_mail_recv(&a->mb, from, SHMK_ANY_TAG, &msg, SHMK_TRY)) {
		if (msg.sender != from)
			violation("a letter from %u instead of %u", msg.sender, from);
		letter_read(&msg);
	}
	while (!shmk_mail_recv(&a->mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &msg, SHMK_TRY))
		letter_read(&msg);
}

static void mail_read_waiting(struct actor *a)
{
	struct shmk_msg msg;
	int i;

	for (i = 0; i < a->arg; i++)
		if (!shmk_mail_recv(&a->mb, SHMK_ANY_PEER, SHMK_ANY_TAG, &msg, SHMK_FOREVER))
			letter_read(&msg);
	while (a->mb.aside) {
		mail_take(&a->mb, &a->mb.aside, &msg);
		letter_read(&msg);
	}
}

/* Letters that are in it are freed, and nobody counts them. */
static void mail_close(struct actor *a)
{
	uint32_t i;

	for (i = 0; i < IDS; i++)
		told.acking[i]++;
	told.closed = true;
	shmk_mailbox_close(&a->mb);
}

static void ask(struct actor *a)
{
	struct shmk_msg *msg = &messages[a - actors][0];
	int64_t id = shmk_request_send(&a->mb, &a->q, msg, SHMK_TRY);
	int ret;

	if (id < 0) {
		violation("asking: %d", (int)id);
		return;
	}
	ret = shmk_reply_recv(&a->mb, id, msg, SHMK_FOREVER);
	if (!ret) {
		if (msg->id != (uint64_t)id || msg->tag != SHMK_TAG_REPLY || msg->len / 4 != 1 +
		    (msg->len > 8) || msg->sender != (msg->len - 1) / 4 + 1)
			violation("reply %zu from %u to %llu", msg->len, msg->sender,
				  (unsigned long long)msg->id);
		told.answered++;
		shmk_free(msg);
	} else {
		if (ret != -EOWNERDEAD || !told.crashes)
			violation("no reply: %d", ret);
		told.given_up++;
	}
	told.digest = mix(told.digest, told.answered << 8 | told.given_up);
	mail_pull(&a->mb);
	while (a->mb.aside)
		mail_take(&a->mb, &a->mb.aside, NULL);
}

static void serve(struct actor *a)
{
	struct shmk_msg request, *reply = &messages[a - actors][0];
	int ret;

	if (shmk_recv(&a->q, &request, SHMK_TRY)) {
		shmk_free(reply);
		return;
	}
	ret = shmk_reply(&request, reply, SHMK_FOREVER);
	if (!ret) {
		told.replies++;
		told.digest = mix(told.digest, told.replies);
		return;
	}
	if (ret != -EPIPE || actors[0].status != DEAD)
		violation("replying: %d", ret);
	shmk_free(reply);
}

/* ------------------------------------------------------------- the world -- */

static const struct shmk_status no_status;	/* of a pool that nobody resets */

static const __u64 queue_word;	/* nothing drains here */

static void queue_init(struct actor *a, struct shmk_queue *q, uint32_t id)
{
	memset(q, 0, sizeof(*q));
	q->shmk = &a->s;
	q->id = id;
	q->gen = 1;
	q->word = &queue_word;
	q->nr_open = 1;
	q->flags = queue_flags(id);
	q->meta = q->flags & SHMK_QUEUE_F_META ? sizeof(struct shmk_slot_meta) : 0;
	q->inline_max = 48 - q->meta;
	q->have_role[0] = q->have_role[1] = true;
	view_queue(&view, id, &q->rv);
	queue_geometry(q);
}

/* Where mail.c looks for who lives, and for queues by name. */
static const struct shmk_status *status_of_queues(void)
{
	static struct {
		struct shmk_status		head;
		struct shmk_queue_status	queues[QUEUES];
	} status;
	uint32_t id;

	status.head.nr_peers = PEERS - 1;
	status.head.peers_off = (uint64_t)((unsigned char *)world.peers - (unsigned char *)&status);
	status.head.queues_off = sizeof(status.head);
	for (id = 0; id < QUEUES; id++)
		status.queues[id] = (struct shmk_queue_status) {
			.word = SHMK_QUEUE_WORD(1, queue_flags(id), SHMK_QUEUE_READY),
			.slot_bytes = 64,
		};
	strcpy(status.queues[is_call() ? BOXES : 0].name, "mailbox-1-1");
	return &status.head;
}

static void peer_init(struct actor *a)
{
	struct shmk *s = &a->s;

	memset(s, 0, sizeof(*s));
	heap_of = a;
	a->nr_heap = 0;
	s->backend = &backend;
	s->status = &no_status;
	s->self = a->peer;
	s->gen = 1;
	s->view = view;
	s->data_bytes = SPANS << 16;
	s->nr_entries = ENTRIES;
	s->ledger = (struct shmk_ledger *)&world.ledgers[a->peer];
	s->data = payload;
	ledger_init(s);
	heap_init(s);
	if (has_mail())
		s->status = status_of_queues();
	queue_init(a, &a->q, 0);
}

static struct actor *actor_add(void (*run)(struct actor *), int arg)
{
	struct actor *a = &actors[nr_actors++];
	unsigned char *stack = a->stack ? a->stack : aligned_alloc(64, STACK);

	memset(a, 0, sizeof(*a));
	a->stack = stack;
	a->run = run;
	a->arg = arg;
	a->peer = (uint32_t)nr_actors;
	if (has_mail() && run != settle)
		raw_store(&world.peers[a->peer].word, SHMK_PEER_WORD(1, 0, SHMK_PEER_ALIVE), 8);
	return a;
}

static struct actor *peer_add(void (*run)(struct actor *), int arg)
{
	struct actor *a = actor_add(run, arg);

	peer_init(a);
	actor_start(a);
	return a;
}

static struct actor *topic_add(void (*run)(struct actor *), int nr)
{
	struct actor *a = peer_add(run, nr);
	int me = (int)(a - actors);

	a->s.status = &topic_status;
	a->s.ledgers = (unsigned char *)world.ledgers;
	a->t = (struct shmk_topic) {
		.q = a->q, .candidate = a->q, .shmk = &a->s,
		.elements = (unsigned char *)world.elements, .stride = sizeof(world.elements[0]),
		.mask = (1ULL << (32 + a->q.rv.capacity_shift)) - 1, .msg_bytes = 64,
		.nr_readers = READERS, .nr_holds = 1, .depth = sc->capacity,
		.nr_elements = sc->capacity + READERS + 1, .rows = world.rows, .nr_open = 1,
		.free = topic_private[me].free, .used = &topic_private[me].used,
		.busy = &topic_private[me].busy, .late = topic_private[me].late,
		.lent = &topic_private[me].lent, .shown = topic_private[me].shown,
	};
	a->t.q.ready = topic_writer_ready;
	a->t.candidate.ready = topic_candidate_ready;
	return a;
}

/* One message, in the element that is used again first. */
static void topic_published(void)
{
	const uint32_t e = ELEMENT_NEXT;

	now = NULL;
	raw_store(&world.elements[e].head.seq, 1, 8);
	raw_store(&world.elements[e].head.len, 16, 8);
	raw_store(&world.elements[e].payload[0], 1, 8);
	raw_store(&world.elements[e].payload[1], 1, 8);
	raw_store(world.slots, SHMK_P(0, SHMK_KIND_ELEMENT, e), 8);
	raw_store(&world.ring.tail, 1, 8);
	note_sent(0);
}

/* As subscribing leaves it. */
static void reader_add(void (*run)(struct actor *), int nr, uint32_t row, uint32_t policy)
{
	struct actor *a = topic_add(run, nr);
	uint32_t first;

	now = NULL;
	entries_get(&a->s, 2, &first);
	entry_set(&a->s, first, SHMK_WHAT(SHMK_OP_HOLDING, SHMK_ELEMENT_NONE, 0), SHMK_WHERE(0, 0));
	a->sub = (struct shmk_sub) {
		.q = a->q, .topic = &a->t, .entry = first, .waited_for = policy == SHMK_TOPIC_WAIT,
	};
	a->sub.q.ready = topic_reader_ready;
	raw_store(&world.rows[row].entry, first, 4);
	raw_store(&world.rows[row].word, SHMK_ROW_WORD(1, policy, a->peer), 8);
}

/* Of the first: as shmk_mailbox_open() leaves it. */
static struct actor *box_owner_add(void (*run)(struct actor *), int arg)
{
	struct actor *a = peer_add(run, arg);

	queue_init(a, &a->box, is_call() ? BOXES : 0);
	a->mb = (struct shmk_mailbox){ .shmk = &a->s, .q = &a->box, .last = &a->mb.aside };
	a->s.mailbox = &a->mb;
	raw_store(&a->box.rv.ring->role_recv, 1ULL << 32 | 1, 8);
	return a;
}

static void sender_add(void (*run)(struct actor *), int nr)
{
	struct actor *a = peer_add(run, nr);
	int i;

	for (i = 0; i < nr && run != send_inline; i++)
		own_block(a, message_block(a, i), message_id(a, i), &messages[a - actors][i]);
}

static void settler_add(int peer)
{
	struct actor *a;
	int i;

	/* A settler that is done, or died, makes room. */
	for (i = 0; i < nr_actors; i++)
		if (actors[i].settles == peer && actors[i].status == DEAD)
			break;
	a = i < nr_actors ? &actors[i] : NULL;
	if (a) {
		save_actor(a);
		a->status = RUNS;
		a->history = 0;
		a->wrote = false;
		a->nr_buffered = 0;
	} else {
		a = actor_add(settle, 0);
		a->settles = peer;
	}
	actor_start(a);
}

static void positions_begin(void)
{
	uint64_t pos = sc->wraps ? ((uint64_t)UINT32_MAX << __builtin_ctz(sc->capacity)) |
				   (sc->capacity - 1) : 0;
	uint32_t i, lap;

	raw_store(&world.ring.head, pos, 8);
	raw_store(&world.ring.tail, pos, 8);
	for (i = 0; i < sc->capacity; i++) {
		struct shmk_slot *slot = slot_of(0, i);

		lap = sc->wraps ? (i < sc->capacity - 1 ? 0 : UINT32_MAX) : 0;
		raw_store(&slot->p, SHMK_P(lap, SHMK_KIND_EMPTY, 0), 8);
	}
}

static void world_begin(void)
{
	memory_reset();
	nr_saved = 0;
	memset(&told, 0, sizeof(told));
	last_actor = 0;
	nr_actors = 0;
	now = NULL;
	positions_begin();
	sc->setup();
}

/* --------------------------------------------------------------- the end -- */

/* Slots that a receiver comes by, from the head on. */
static uint32_t reachable(void)
{
	struct shmk_ring_view rv = { .slots = NULL };
	uint64_t pos = world.ring.head;
	uint32_t i, slots = 0;

	view_queue(&view, 0, &rv);
	/* The head may lag by laps; who looks skips them. */
	for (i = 0; i < 16 * sc->capacity; i++, pos = shmk_pos_next(&rv, pos)) {
		uint64_t p = shmk_slot_at(&rv, pos)->p;
		int32_t ahead = (int32_t)(SHMK_P_LAP(p) - shmk_lap(&rv, pos));

		if (ahead < 0 || (ahead == 0 && SHMK_P_KIND(p) == SHMK_KIND_EMPTY))
			break;
		if (ahead == 0)
			slots |= 1U << (pos & (sc->capacity - 1));
	}
	return slots;
}

/* References to one payload are several messages of the same name: none. */
static uint32_t block_id(uint32_t block)
{
	return shmk_block_place(world.blocks[block].word) == SHMK_PLACE_ROOT ?
	       (uint32_t)world.blocks[block].len : IDS;
}

static void check_messages(void)
{
	uint64_t missing = 0;
	uint32_t i, here[IDS] = { 0 }, slots = reachable();

	for (i = 0; i < sc->capacity; i++) {
		struct shmk_slot *slot = slot_of(0, i);
		uint32_t kind = SHMK_P_KIND(slot->p), id;

		if (kind == SHMK_KIND_EMPTY || kind == SHMK_KIND_SKIP)
			continue;
		if (!(slots >> i & 1))
			violation("slot %u has a message where nobody looks (P %#llx)", i,
				  (unsigned long long)slot->p);
		if (kind == SHMK_KIND_CLAIMED)
			violation("slot %u is still claimed", i);
		if (SHMK_P_LAP(slot->t) == SHMK_P_LAP(slot->p) &&
		    shmk_taken(slot->t, SHMK_P_LAP(slot->p)))
			violation("slot %u was taken and never emptied", i);
		id = kind == SHMK_KIND_BLOCK ? block_id(SHMK_P_ARG(slot->p)) :
					       SHMK_P_ARG(slot->p);
		if (id < IDS)
			here[id]++;
	}
	for (i = 0; i < IDS; i++) {
		if (told.received[i] + here[i] > 1)
			violation("message %u is there %u times", i, told.received[i] + here[i]);
		if (told.sent[i] && !told.received[i] && !told.acking[i] && !here[i])
			missing++;
	}
	/* A settler that dies may take its count with it; never what it counted. */
	if (missing > told.lost && !told.settler_died)
		violation("%llu messages are missing, %llu reported lost",
			  (unsigned long long)missing, (unsigned long long)told.lost);
	if (told.messages && told.lost > told.messages && !told.settler_died)
		violation("%llu reported lost, of %u", (unsigned long long)told.lost,
			  told.messages);
}

static bool in_ring(uint32_t block)
{
	uint32_t id, i, nr = 0;

	for (id = 0; id < QUEUES; id++) {
		for (i = 0; i < sc->capacity; i++) {
			uint64_t p = slot_of(id, i)->p;

			nr += SHMK_P_KIND(p) == SHMK_KIND_BLOCK && SHMK_P_ARG(p) == block;
		}
	}
	if (nr > 1)
		violation("block %u is in the ring %u times", block, nr);
	return nr;
}

/* Every child that an inner block says it has must be there, once, and no other. */
static void check_inner(uint32_t block, __u64 word)
{
	uint32_t b, nr[3] = { 0 }, up;
	__u64 w, up_word;

	for (b = 0; b < SPANS * SHMK_SPAN_UNITS; b++) {
		w = world.blocks[b].word;
		if ((shmk_block_held(w) || shmk_block_inner(w)) &&
		    shmk_block_parent(&view, b, w, &up, &up_word) && up == block)
			nr[shmk_block_place(w)]++;
	}
	if (nr[1] != shmk_inner_has(word, 1) || nr[2] != shmk_inner_has(word, 2))
		violation("block %u: word %#llx, %u left and %u right children", block,
			  (unsigned long long)word, nr[1], nr[2]);
}

/* Does a message that is in the ring have it as a part? */
static bool in_envelope(uint32_t block)
{
	uint32_t e, i;

	for (e = 0; e < SPANS * SHMK_SPAN_UNITS; e++) {
		for (i = 1; i <= shmk_block_parts(world.blocks[e].word); i++) {
			__u64 part = world.blocks[e + i].len;

			if (SHMK_PART_ARG(part) == block &&
			    SHMK_PART_GEN(part) == SHMK_BLOCK_GEN(world.blocks[block].word))
				return in_ring(e);
		}
	}
	return false;
}

static void check_blocks(void)
{
	uint32_t b, up;
	__u64 up_word;

	for (b = 0; b < SPANS * SHMK_SPAN_UNITS; b++) {
		__u64 word = world.blocks[b].word;

		if (SHMK_BLOCK_STATE(word) == SHMK_BLOCK_GONE)
			violation("block %u stays locked", b);
		if (shmk_block_inner(word))
			check_inner(b, word);
		if (shmk_block_held(word) && shmk_block_place(word) != SHMK_PLACE_ROOT &&
		    !shmk_block_parent(&view, b, word, &up, &up_word))
			violation("block %u: word %#llx, a reference to nothing", b,
				  (unsigned long long)word);
		if (shmk_block_held(word) != in_ring(b) && !in_envelope(b))
			violation("block %u: word %#llx, %s in the ring", b,
				  (unsigned long long)word, in_ring(b) ? "is" : "is not");
	}
}

static bool owner_alive(uint32_t peer)
{
	return peer && actors[peer - 1].status != DEAD && !actors[peer - 1].settles;
}

/* Else nobody would settle it. */
static bool in_ledger(uint32_t peer, uint32_t span, __u64 word)
{
	uint32_t i;

	for (i = 0; i < ENTRIES; i++) {
		__u64 what = world.ledgers[peer].entry[i].what;

		if (SHMK_WHAT_OP(what) == SHMK_OP_SPAN && SHMK_WHAT_BLOCK(what) == span &&
		    SHMK_WHAT_GEN(what) == SHMK_SPAN_GEN(word))
			return true;
	}
	return false;
}

static void check_spans(void)
{
	uint32_t i;

	for (i = 0; i < SPANS; i++) {
		__u64 word = world.spans[i].word;
		uint32_t owner = SHMK_SPAN_OWNER(word);

		switch (SHMK_SPAN_KIND(word)) {
		case SHMK_SPAN_FREE:
			if (world.taken_map[0] >> i & 1)
				violation("span %u is free, but nobody would find it", i);
			break;
		case SHMK_SPAN_CUT:
		case SHMK_SPAN_RUN:
			if (owner && !owner_alive(owner))
				violation("span %u belongs to %u, who is dead", i, owner);
			else if (owner && !in_ledger(owner, i, word))
				violation("span %u is not in the ledger of its owner, %u", i, owner);
			if (SHMK_SPAN_THIEF(word))
				violation("span %u keeps its thief", i);
			/* All blocks are free at the end: it must be found by who is short. */
			if (!(world.stale_map[0] >> i & 1))
				violation("span %u is empty, but nobody would look at it", i);
			break;
		case SHMK_SPAN_TAIL:
			if (SHMK_SPAN_KIND(world.spans[SHMK_SPAN_HEAD(word)].word) != SHMK_SPAN_RUN)
				violation("span %u is the tail of no run", i);
			break;
		default:
			violation("span %u stays half gathered", i);
		}
	}
}

static void check_sleepers(void)
{
	int i;

	for (i = 0; i < nr_actors && is_topic(); i++) {
		struct shmk_queue *q = actors[i].side == SHMK_SIDE_RECV ? &actors[i].sub.q :
				       actors[i].t.writes ? &actors[i].t.q : &actors[i].t.candidate;

		if (actors[i].status == SLEEPS && q->ready(q, (uint32_t)actors[i].side))
			violation("actor %d sleeps beside what it waits for", i);
	}
	for (i = 0; i < nr_actors && !is_topic(); i++) {
		struct shmk_ring_view rv = { .slots = NULL };
		struct actor *a = &actors[i];

		view_queue(&view, a->queue, &rv);
		if (a->status == SLEEPS && (shmk_ring_ready(&rv, (uint32_t)a->side) ||
					    (a->over && a->over(&a->s, a->over_arg))))
			violation("actor %d sleeps beside what it waits for", i);
		if (a->status == SLEEPS && has_mail() && a->side == SHMK_SIDE_SEND &&
		    (actors[0].status == DEAD || told.closed))
			violation("actor %d waits for who is gone", i);
	}
}

/*
 * The last message is whole and has the number of all that were published, but for one
 * that its writer did not live to count; the hint does not lead.
 */
static void check_topic(void)
{
	uint64_t last = 0, n = told.sent[0];
	uint32_t i;

	for (i = 0; i < sc->capacity; i++) {
		uint64_t p = (slot_of(0, i))->p, seq;
		uint32_t e = SHMK_P_ARG(p);

		if (SHMK_P_KIND(p) != SHMK_KIND_ELEMENT)
			continue;
		seq = world.elements[e].head.seq;
		if (world.elements[e].payload[0] != seq || world.elements[e].payload[1] != seq)
			violation("message %llu in slot %u is not whole", (unsigned long long)seq, i);
		if (SHMK_P_LAP(p) * sc->capacity + i + 1 != seq)
			violation("message %llu is in slot %u of lap %u", (unsigned long long)seq, i,
				  SHMK_P_LAP(p));
		if (seq > last)
			last = seq;
	}
	if (last < n || last > n + (uint64_t)told.crashes)
		violation("the last message is %llu, of %llu", (unsigned long long)last,
			  (unsigned long long)n);
	if (world.ring.tail > last || world.ring.tail + 1 < last)
		violation("tail %llu after %llu messages", (unsigned long long)world.ring.tail,
			  (unsigned long long)last);
	for (i = 0; i < READERS; i++)
		if (world.rows[i].word && !shmk_peer_alive(NULL, SHMK_ROW_PEER(world.rows[i].word), 1))
			violation("row %u is of a dead reader", i);
}

/*
 * Who was told that nobody will answer has no answer in the mailbox; and who is not told,
 * and sleeps, has a request that waits for the next server.
 */
static void check_calls(void)
{
	uint32_t i, there = 0;

	for (i = 0; i < sc->capacity; i++)
		there += SHMK_P_KIND(slot_of(BOXES, i)->p) == SHMK_KIND_BLOCK;
	if (told.given_up && (there || told.replies))
		violation("no answer was said to come, and there is one");
	if (told.answered + told.given_up > 1)
		violation("%u answers and %u times none to one request", told.answered,
			  told.given_up);
	for (i = 0; i < sc->capacity && actors[0].status == SLEEPS; i++)
		there += SHMK_P_KIND(slot_of(0, i)->p) == SHMK_KIND_BLOCK &&
			 !SHMK_T_PEER(slot_of(0, i)->t);
	if (actors[0].status == SLEEPS && !there)
		violation("the client sleeps, and nobody will serve it");
}

static void check_end(void)
{
	int i;

	now = NULL;
	for (i = 0; i < nr_actors; i++) {
		save(&actors[i].nr_buffered, sizeof(actors[i].nr_buffered));
		drain(&actors[i]);
	}
	check_sleepers();
	if (is_call())
		check_calls();
	for (i = 0; i < nr_actors; i++)
		if (actors[i].status == SLEEPS)
			return;	/* it holds what it holds; the sleepers were the question */
	if (is_topic()) {
		check_topic();
		return;
	}
	if (!is_call())
		check_messages();
	check_blocks();
	if (sc->memory)
		check_spans();
}

/* ------------------------------------------------------------- searching -- */

enum choice_kind { GO, DIE, LET_OUT, LOOK };
struct choice {
	enum choice_kind	kind;
	int			actor;
};

static struct step {
	uint16_t	choice, of;
	struct actor	*last;		/* who went before */
	/* what was when it was taken */
	size_t		nr_undo, nr_saved;
	uint64_t	memory_hash;
	int		nr_actors, last_actor;
} path[DEPTH + 1];
static int depth, most_depth;

static void remember(struct step *s)
{
	s->nr_undo = nr_undo;
	s->nr_saved = nr_saved;
	s->memory_hash = memory_hash;
	s->nr_actors = nr_actors;
	s->last_actor = last_actor;
}

static void restore(const struct step *s)
{
	while (nr_undo > s->nr_undo) {
		nr_undo--;
		memcpy(undo[nr_undo].p, &undo[nr_undo].old, undo[nr_undo].size);
	}
	saved_restore(s->nr_saved);
	memory_hash = s->memory_hash;
	nr_actors = s->nr_actors;
	last_actor = s->last_actor;
	now = NULL;
}

static int choices(struct choice *c, const struct actor *last)
{
	int i, n = 0;
	bool stay = last && last->status == RUNS && last->at_ledger;

	if (last && last->status == RUNS)
		c[n++] = (struct choice){ GO, (int)(last - actors) };
	for (i = 0; i < nr_actors && !stay; i++)
		if (actors[i].status == RUNS && &actors[i] != last &&
		    (!n || !most_switches || told.switches < most_switches))
			c[n++] = (struct choice){ GO, i };
	for (i = 0; i < nr_actors; i++) {
		struct actor *a = &actors[i];

		if (stay && a != last)
			continue;
		if ((a->status == RUNS || a->status == SLEEPS) && may_die(a))
			c[n++] = (struct choice){ DIE, i };
		if (!stay && a->nr_buffered)
			c[n++] = (struct choice){ LET_OUT, i };
		if (!stay && a->status == SLEEPS && a->relooks && !others_buffer(a))
			c[n++] = (struct choice){ LOOK, i };
	}
	return n;
}

static void die(struct actor *a)
{
	uint32_t i;

	if (tracing)
		ksft_print_msg("actor %d dies\n", (int)(a - actors));
	drain(a);
	a->status = DEAD;
	a->history = 0;
	a->over = NULL;
	if (has_mail() && !a->settles)
		raw_store(&world.peers[a->peer].word, SHMK_PEER_WORD(1, 0, SHMK_PEER_DEAD), 8);
	told.crashes++;
	for (i = 0; i < IDS && !a->settles; i++)
		if (told.hand[i] == a->peer)
			note_untaken(i);
	if (a->settles) {
		told.settler_died = true;
		settler_add(a->settles);
	} else {
		settler_add((int)a->peer);
	}
}

static void act(struct choice c)
{
	struct actor *a = &actors[c.actor];

	save_step(a);
	if (c.kind == LET_OUT) {
		drain_one(a);
	} else if (c.kind == DIE) {
		die(a);
	} else if (c.kind == LOOK) {
		a->relooks = false;
		a->status = RUNS;
	} else {
		/* Going on past a chance to die uses it up. */
		a->wrote = false;
		a->at_ledger = false;
		if (c.actor != last_actor && actors[last_actor].status == RUNS)
			told.switches++;
		last_actor = c.actor;
		if (!a->history)
			a->history = 1;		/* begun */
		now = a;
		model_switch(&explorer_sp, a->sp);
		now = NULL;
	}
}

/* Once more from the beginning, aloud: the execution that went wrong. */
static void show(void)
{
	struct choice c[4 * ACTORS];
	struct actor *last = NULL;
	char first[sizeof(violated)];
	int i;

	if (!getenv("EXPLORE_TRACE"))
		return;
	memcpy(first, violated, sizeof(first));
	violated[0] = '\0';
	tracing = true;
	world_begin();
	for (i = 0; i < depth; i++) {
		choices(c, last);
		last = &actors[c[path[i].choice].actor];
		act(c[path[i].choice]);
	}
	tracing = false;
	memcpy(violated, first, sizeof(first));
}

/* An end, or a state that is known: nothing more to try from here. */
static bool leaf(int n)
{
	if (!n) {
		check_end();
		return true;
	}
	if (depth == DEPTH) {
		violation("an execution of more than %d steps", DEPTH);
		return true;
	}
	return n > 1 && seen_before(state_hash());
}

/* The next choice of the deepest step that has one left; back to before that step. */
static bool backtrack(void)
{
	while (depth > 0) {
		depth--;
		if (++path[depth].choice < path[depth].of) {
			restore(&path[depth]);
			return true;
		}
	}
	return false;
}

static uint64_t explore(uint64_t most)
{
	struct choice c[4 * ACTORS];
	struct actor *last = NULL;
	uint64_t ends = 0;
	int n;

	free(seen);
	seen = NULL;
	seen_size = nr_seen = 0;
	most_depth = depth = 0;
	world_begin();
	for (;;) {
		n = choices(c, last);
		if (depth > most_depth)
			most_depth = depth;
		path[depth] = (struct step){ .of = (uint16_t)n, .last = last };
		remember(&path[depth]);
		if (leaf(n)) {
			ends++;
			if (violated[0] || (most && nr_seen >= most) || !backtrack())
				break;
			n = choices(c, path[depth].last);
		}
		last = &actors[c[path[depth].choice].actor];
		act(c[path[depth].choice]);
		depth++;
		if (violated[0])
			break;
	}
	if (violated[0])
		show();
	return ends;
}

/* ------------------------------------------------------------- scenarios -- */

static void setup_1p1c(void)
{
	sender_add(send_blocks, 2);
	peer_add(recv_tries, 2);
}

static void setup_2p1c(void)
{
	sender_add(send_blocks, 1);
	sender_add(send_blocks, 1);
	peer_add(recv_tries, 2);
}

static void setup_1p2c(void)
{
	sender_add(send_blocks, 2);
	peer_add(recv_tries, 1);
	peer_add(recv_tries, 1);
}

/* One is slow, and the other goes round the ring meanwhile. */
static void setup_slow(void)
{
	sender_add(send_inline, 3);
	peer_add(recv_tries, 1);
	peer_add(recv_tries, 3);
}

static void setup_2p2c(void)
{
	sender_add(send_blocks, 1);
	sender_add(send_blocks, 1);
	peer_add(recv_tries, 1);
	peer_add(recv_tries, 1);
}

static void setup_inline(void)
{
	sender_add(send_inline, 1);
	sender_add(send_inline, 1);
	peer_add(recv_tries, 2);
}

static void setup_pass(void)
{
	sender_add(send_blocks, 1);
	peer_add(pass_on, 1);
	peer_add(recv_tries, 1);
}

static void setup_kept(void)
{
	sender_add(send_blocks, 1);
	peer_add(answer_kept, 1);
	peer_add(recv_tries, 1);
	told.messages++;	/* the answer */
}

static void setup_two_in_hand(void)
{
	sender_add(send_blocks, 2);
	peer_add(recv_two, 0);
	peer_add(recv_tries, 1);
}

static void setup_pass_inline(void)
{
	sender_add(send_inline, 1);
	peer_add(pass_on, 1);
	peer_add(recv_tries, 1);
}

static void setup_sleep(void)
{
	sender_add(send_blocks, 1);
	peer_add(recv_waiting, 1);
}

static void setup_sleep_inline(void)
{
	sender_add(send_inline, 1);
	peer_add(recv_waiting, 1);
}

static void setup_sleep_two(void)
{
	sender_add(send_blocks, 1);
	sender_add(send_blocks, 1);
	peer_add(recv_waiting, 1);
	peer_add(recv_waiting, 1);
}

static void setup_sleep_full(void)
{
	sender_add(send_blocks_waiting, 2);
	peer_add(recv_tries, 2);
}

/* As if an fd of its send side were polled: nobody looks again. */
static void setup_sleep_watched(void)
{
	setup_sleep_full();
	raw_store(&world.ring.watched, 1, sizeof(world.ring.watched));
}

static void setup_heap(void)
{
	peer_add(alloc_free, 2);
	peer_add(alloc_free, 1);
}

/*
 * Gives a peer a span whose blocks others have freed, so that it does not know
 * that it is empty.
 */
static void own_empty_span(struct actor *a)
{
	uint32_t entry[2], block[2], gen[2];
	int i;

	heap_of = a;
	for (i = 0; i < 2; i++) {
		entry_get_locked(&a->s, &entry[i]);
		block_alloc_locked(&a->s, 30000, 0, entry[i], &block[i], &gen[i]);
	}
	for (i = 0; i < 2; i++) {
		shmk_block_put(&view, block[i], gen[i], &(struct shmk_settled){ 0 });
		entry_put_locked(&a->s, entry[i]);
	}
}

/* A run of all spans wants the one that is another's, who is using it again. */
static void setup_seize(void)
{
	struct actor *a = peer_add(alloc_free, 1);

	own_empty_span(a);
	peer_add(alloc_run, 3);
}

/* Two want it at once. */
static void setup_two_thieves(void)
{
	struct actor *a = peer_add(alloc_free, 0);

	own_empty_span(a);
	peer_add(alloc_run, 3);
	peer_add(alloc_run, 3);
}

static void setup_run(void)
{
	peer_add(alloc_run, 2);
	peer_add(alloc_run, 2);
}

/* A block of a tree as it was left by somebody who split it. */
static void tree_block(uint32_t block, uint32_t up, uint32_t state)
{
	raw_store(&world.blocks[block].word, SHMK_BLOCK_UP_WORD(first_gen(), up, state), 8);
	raw_store(&world.blocks[block].len,
		  state == SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH) ? 300 : first_gen(), 8);
}

static void tree_leaf(struct actor *a, int i, uint32_t block, uint32_t up, uint32_t state)
{
	tree_block(block, up, state);
	give_block(a, block, 300, &messages[a - actors][i]);
}

#define ROOT	400	/* in span 1, away from those that are cut first */

static void setup_share(void)
{
	struct actor *a = peer_add(share_send_drop, 0);

	own_block(a, ROOT, 300, &messages[0][0]);
	warm(a);
	peer_add(recv_drop, 1);
}

static void setup_share_received(void)
{
	struct actor *a;

	sender_add(send_blocks, 1);
	a = peer_add(recv_share, 0);
	warm(a);
}

static void setup_drop_two(void)
{
	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 2, ROOT, SHMK_BLOCK_REF_LEFT);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 4, ROOT, SHMK_BLOCK_REF_RIGHT);
}

static void setup_drop_three(void)
{
	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	tree_block(ROOT + 2, ROOT, SHMK_INNER_STATE(SHMK_PLACE_LEFT, SHMK_CHILDREN_BOTH));
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 4, ROOT + 2, SHMK_BLOCK_REF_LEFT);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 6, ROOT + 2, SHMK_BLOCK_REF_RIGHT);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 8, ROOT, SHMK_BLOCK_REF_RIGHT);
}

static void setup_resize(void)
{
	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	tree_leaf(peer_add(resize_drop, 0), 0, ROOT + 2, ROOT, SHMK_BLOCK_REF_LEFT);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 4, ROOT, SHMK_BLOCK_REF_RIGHT);
}

/* The one who shares may find that he is the last of his parent, or of the tree. */
static void setup_share_beside(void)
{
	struct actor *a = peer_add(share_drop, 0);

	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	tree_block(ROOT + 2, ROOT, SHMK_INNER_STATE(SHMK_PLACE_LEFT, SHMK_CHILDREN_BOTH));
	tree_leaf(a, 0, ROOT + 4, ROOT + 2, SHMK_BLOCK_REF_LEFT);
	warm(a);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 6, ROOT + 2, SHMK_BLOCK_REF_RIGHT);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 8, ROOT, SHMK_BLOCK_REF_RIGHT);
}

static void setup_share_both(void)
{
	struct actor *a = peer_add(share_drop, 0), *b = peer_add(share_drop, 0);

	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	tree_leaf(a, 0, ROOT + 2, ROOT, SHMK_BLOCK_REF_LEFT);
	tree_leaf(b, 0, ROOT + 4, ROOT, SHMK_BLOCK_REF_RIGHT);
	warm(a);
	warm(b);
}

static void setup_send_both(void)
{
	struct actor *a = peer_add(send_two, 0);

	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	tree_leaf(a, 0, ROOT + 2, ROOT, SHMK_BLOCK_REF_LEFT);
	tree_leaf(a, 1, ROOT + 4, ROOT, SHMK_BLOCK_REF_RIGHT);
	peer_add(recv_drop, 1);
	peer_add(recv_drop, 1);
}

static void setup_parts(void)
{
	struct actor *a = peer_add(pack_send, 0);

	own_block(a, ROOT, message_id(a, 0), &messages[0][0]);
	own_block(a, ROOT + 2, 0, &messages[0][1]);
	warm(a);
	/* the envelope will be one of these */
	raw_store(&world.blocks[1].len, SHMK_PART(SHMK_PART_BLOCK, ROOT + 10, first_gen()), 8);
	raw_store(&world.blocks[129].len, SHMK_PART(SHMK_PART_BLOCK, ROOT + 10, first_gen()), 8);
	a = peer_add(recv_unpack_holding, 0);
	own_block(a, ROOT + 10, IDS, &messages[1][0]);
	told.messages = 1;
}

static void setup_pack_received(void)
{
	struct actor *a;

	sender_add(send_blocks, 1);
	a = peer_add(recv_pack, 0);
	warm(a);
}

/* One part is a reference, and another has the other. */
static void setup_parts_shared(void)
{
	struct actor *a = peer_add(pack_send, 0);

	tree_block(ROOT, 0, SHMK_INNER_STATE(SHMK_PLACE_ROOT, SHMK_CHILDREN_BOTH));
	raw_store(&world.blocks[ROOT].len, message_id(a, 0), 8);
	tree_leaf(a, 0, ROOT + 2, ROOT, SHMK_BLOCK_REF_LEFT);
	messages[0][0].len = message_id(a, 0);
	own_block(a, ROOT + 6, 0, &messages[0][1]);
	told.messages = 1;
	warm(a);
	tree_leaf(peer_add(drop_own, 0), 0, ROOT + 4, ROOT, SHMK_BLOCK_REF_RIGHT);
	peer_add(recv_unpack, 0);
}

/* The reader comes first, so that the search soon stops it in the middle. */
static void setup_topic_hold(void)
{
	topic_published();
	reader_add(topic_read_held, 1, 0, SHMK_TOPIC_SKIP);
	topic_add(topic_write, 4);
}

static void setup_topic_holds(void)
{
	reader_add(topic_read_held, 2, 0, SHMK_TOPIC_SKIP);
	reader_add(topic_read_held, 2, 1, SHMK_TOPIC_SKIP);
	topic_add(topic_write, 4);
}

static void setup_topic_failover(void)
{
	topic_add(topic_write, 2);
	topic_add(topic_write, 2);
	reader_add(topic_read_held, 2, 0, SHMK_TOPIC_SKIP);
}

static void setup_topic_turns(void)
{
	topic_add(topic_write_in_turn, 2);
	topic_add(topic_write_in_turn, 2);
}

static void setup_topic_sleep(void)
{
	topic_add(topic_write, 2);
	reader_add(topic_read_waiting, 2, 0, SHMK_TOPIC_SKIP);
}

static void setup_topic_wait(void)
{
	topic_add(topic_write, 3);
	reader_add(topic_read_waiting, 3, 0, SHMK_TOPIC_WAIT);
}

static void setup_topic_copy(void)
{
	topic_published();
	topic_add(topic_copy, 2);
	topic_add(topic_write, 4);
}

static void setup_mail(void)
{
	box_owner_add(mail_read, 0);
	sender_add(mail_tries, 1);
	sender_add(mail_tries, 1);
}

static void setup_mail_sleep(void)
{
	box_owner_add(mail_read_waiting, 1);
	sender_add(mail_waiting, 1);
}

static void setup_mail_full(void)
{
	box_owner_add(mail_read_waiting, 1);
	sender_add(mail_waiting, 2);
}

static void setup_mail_closed(void)
{
	box_owner_add(mail_close, 0);
	sender_add(mail_waiting, 1);
	sender_add(mail_waiting, 1);
}

static void setup_call(int servers)
{
	struct actor *a = box_owner_add(ask, 0);

	own_block(a, message_block(a, 0), message_id(a, 0), &messages[0][0]);
	while (servers--)
		sender_add(serve, 1);
}

static void setup_call_one(void)
{
	setup_call(1);
}

static void setup_call_two(void)
{
	setup_call(2);
}

static const struct scenario scenarios[] = {
	{ "one producer, one consumer", 2, false, 1, SHMK_QUEUE_F_SP | SHMK_QUEUE_F_SC, false,
	  setup_1p1c, false, 0 },
	{ "one producer, one consumer, wrapping", 2, false, 2, SHMK_QUEUE_F_SP | SHMK_QUEUE_F_SC,
	  true, setup_1p1c, false, 0 },
	{ "any producer, any consumer", 2, false, 2, 0, false, setup_1p1c, false, 0 },
	{ "two producers", 2, false, 1, 0, false, setup_2p1c, false, -2 },
	{ "two producers, wrapping", 2, false, 2, 0, true, setup_2p1c, false, -2 },
	{ "two consumers", 2, false, 1, 0, false, setup_1p2c, false, -2 },
	{ "two consumers, two slots", 1, false, 2, 0, false, setup_1p2c, false, -2 },
	{ "a slow consumer, lapped", 0, false, 1, SHMK_QUEUE_F_SP, false, setup_slow, false, 0 },
	{ "a slow consumer, lapped, wrapping", 1, false, 1, SHMK_QUEUE_F_SP, true, setup_slow, false, -2 },
	{ "two producers, two consumers", 1, false, 1, 0, false, setup_2p2c, false, -2 },
	{ "inline, two producers", 2, false, 1, 0, false, setup_inline, false, 0 },
	{ "inline, two producers, two slots, wrapping", 1, false, 2, 0, true, setup_inline, false, 0 },
	{ "passing on", 2, false, 2, 0, false, setup_pass, false, -2 },
	{ "answering with a block that was kept", 2, false, 2, 0, false, setup_kept, false, -2 },
	{ "answering with a block that was kept, buffered stores", 1, true, 1, 0, true, setup_kept,
	  false, -2 },
	{ "sleeping receiver, buffered stores", 1, true, 1, SHMK_QUEUE_F_SP | SHMK_QUEUE_F_SC, false,
	  setup_sleep, false, 0 },
	{ "sleeping receiver, inline, buffered stores", 1, true, 1, 0, false, setup_sleep_inline,
	  false, 0 },
	{ "two sleeping receivers", 1, false, 2, 0, false, setup_sleep_two, false, -2 },
	{ "sleeping sender, buffered stores", 1, true, 1, SHMK_QUEUE_F_SP | SHMK_QUEUE_F_SC, false,
	  setup_sleep_full, false, 0 },
	{ "sleeping sender, watched ring, buffered stores", 1, true, 1,
	  SHMK_QUEUE_F_SP | SHMK_QUEUE_F_SC, false, setup_sleep_watched, false, 0 },
	{ "one of each, buffered stores", 1, true, 1, 0, false, setup_1p1c, false, 0 },
	{ "alloc and free", 1, false, 1, 0, false, setup_heap, true, 3 },
	{ "seizing", 1, false, 1, 0, true, setup_seize, true, 3 },
	{ "two thieves", 1, false, 1, 0, false, setup_two_thieves, true, 3 },
	{ "sharing", 2, false, 1, 0, false, setup_share, false, 0 },
	{ "sharing, buffered stores", 1, true, 1, 0, false, setup_share, false, 0 },
	{ "sharing what was received", 2, false, 1, 0, false, setup_share_received, false, -3 },
	{ "two references dropped", 3, false, 1, 0, true, setup_drop_two, false, 0 },
	{ "three references dropped", 2, false, 1, 0, false, setup_drop_three, false, -2 },
	{ "last reference becomes the block", 3, false, 1, 0, true, setup_resize, false, 0 },
	{ "sharing beside droppers", 1, false, 1, 0, false, setup_share_beside, false, -2 },
	{ "two share the same", 1, false, 1, 0, false, setup_share_both, false, 3 },
	{ "references through a queue", 1, false, 2, 0, true, setup_send_both, false, -2 },
	{ "tags, two producers", 2, false, 1, SHMK_QUEUE_F_META, false, setup_2p1c, false, -2 },
	{ "tags, passing on", 2, false, 2, SHMK_QUEUE_F_META | SHMK_QUEUE_F_REDELIVER, false,
	  setup_pass, false, -2 },
	{ "tags, sleeping receiver, buffered stores", 1, true, 1, SHMK_QUEUE_F_META, false,
	  setup_sleep, false, 0 },
	{ "redelivery", 2, false, 2, SHMK_QUEUE_F_REDELIVER, false, setup_1p1c, false, 0 },
	{ "redelivery, two receivers", 2, false, 1, SHMK_QUEUE_F_REDELIVER, false, setup_1p2c,
	  false, -2 },
	{ "redelivery, two receivers, wrapping", 1, false, 2, SHMK_QUEUE_F_REDELIVER, true,
	  setup_1p2c, false, -2 },
	{ "redelivery, inline", 2, false, 2, SHMK_QUEUE_F_REDELIVER, false, setup_inline, false, -2 },
	{ "redelivery, two in hand", 2, false, 2, SHMK_QUEUE_F_REDELIVER, false, setup_two_in_hand,
	  false, -2 },
	{ "redelivery, passing on", 2, false, 2, SHMK_QUEUE_F_REDELIVER, false, setup_pass, false, -2 },
	{ "redelivery, passing on inline", 1, false, 2, SHMK_QUEUE_F_REDELIVER, false,
	  setup_pass_inline, false, 2 },
	{ "redelivery, twice at most", 2, false, 2, SHMK_QUEUE_F_REDELIVER | TRIES(2), false,
	  setup_1p2c, false, -2 },
	{ "redelivery, sleeping receiver, buffered stores", 1, true, 2, SHMK_QUEUE_F_REDELIVER,
	  false, setup_sleep_two, false, -2 },
	{ "redelivery, sleeping sender, buffered stores", 1, true, 1,
	  SHMK_QUEUE_F_REDELIVER | SHMK_QUEUE_F_SP | SHMK_QUEUE_F_SC, false, setup_sleep_full, false,
	  0 },
	{ "parts", 2, false, 1, 0, false, setup_parts, false, 0 },
	{ "parts, buffered stores", 1, true, 1, 0, true, setup_parts, false, 0 },
	{ "parts that were received", 2, false, 1, 0, false, setup_pack_received, false, 0 },
	{ "parts that are shared", 1, false, 1, 0, false, setup_parts_shared, false, -2 },
	{ "mail", 1, false, 1, MAIL | BOX_FLAGS, false, setup_mail, false, 2 },
	{ "mail, buffered stores", 1, true, 1, MAIL | BOX_FLAGS, false, setup_mail_sleep, false, 0 },
	{ "mail, sleeping sender", 1, false, 1, MAIL | BOX_FLAGS, false, setup_mail_full, false, 0 },
	{ "mail, sleeping sender, buffered stores", 0, true, 1, MAIL | BOX_FLAGS, false,
	  setup_mail_full, false, 0 },
	{ "mail, closing", 1, false, 1, MAIL | BOX_FLAGS, false, setup_mail_closed, false, 3 },
	{ "mail, closing, buffered stores", 0, true, 1, MAIL | BOX_FLAGS, false, setup_mail_closed,
	  false, 3 },
	{ "call, buffered stores", 0, true, 1, CALL, false, setup_call_one, false, 0 },
	{ "call", 1, false, 1, CALL, false, setup_call_one, false, 0 },
	{ "call, one try", 1, false, 1, CALL | TRIES(1), false, setup_call_one, false, 0 },
	{ "call, two deaths", 2, false, 1, CALL | TRIES(2), false, setup_call_one, false, 2 },
	{ "call, two servers", 1, false, 1, CALL, false, setup_call_two, false, 2 },
	{ "two runs in the same place", 1, false, 1, 0, false, setup_run, true, 3 },
	{ "topic, buffered stores", 0, true, 1, SHMK_QUEUE_F_TOPIC, false, setup_topic_hold, false, 2 },
	{ "topic, two readers", 1, false, 2, SHMK_QUEUE_F_TOPIC, false, setup_topic_holds, false, 2 },
	{ "topic, the next writer", 2, false, 2, SHMK_QUEUE_F_TOPIC, false, setup_topic_failover, false,
	  2 },
	{ "topic, writers in turn", 1, true, 2, SHMK_QUEUE_F_TOPIC, false, setup_topic_turns, false, 2 },
	{ "topic, sleeping reader", 1, true, 1, SHMK_QUEUE_F_TOPIC, false, setup_topic_sleep, false, 3 },
	{ "topic, waiting for a reader", 1, true, 1, SHMK_QUEUE_F_TOPIC, false, setup_topic_wait, false,
	  2 },
	{ "topic, copies", 0, true, 1, SHMK_QUEUE_F_TOPIC, false, setup_topic_copy, false, 2 },
};

#define MOST	500000		/* states of a scenario, if EXPLORE_STATES does not say; 0: all */

static void run_scenario(const struct scenario *s, uint64_t most)
{
	struct timespec t0, t1;
	uint64_t ends;

	sc = s;
	most_switches = s->switches < 0 && !most ? 0 : abs(s->switches);
	violated[0] = '\0';
	clock_gettime(CLOCK_MONOTONIC, &t0);
	ends = explore(most);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	if (violated[0])
		ksft_test_result_fail("%s: %s (after %zu states, %d steps deep)\n", s->name, violated,
				      nr_seen, depth);
	else
		ksft_test_result_pass("%s\n", s->name);
	ksft_print_msg("%s: %zu states%s, %llu ends, %d steps, %.1f s\n", s->name, nr_seen,
		       most && nr_seen >= most ? " (bounded)" : "", (unsigned long long)ends,
		       most_depth, (double)(t1.tv_sec - t0.tv_sec) +
		       (double)(t1.tv_nsec - t0.tv_nsec) / 1e9);
}

/* By its name, or by how it begins: "topic*". */
static bool wanted(const char *name, const char *arg)
{
	size_t len = strlen(arg);

	return len && arg[len - 1] == '*' ? !strncmp(name, arg, len - 1) : !strcmp(name, arg);
}

int main(int argc, char **argv)
{
	const char *states = getenv("EXPLORE_STATES");
	uint64_t most = states ? strtoull(states, NULL, 0) : MOST;
	unsigned int i, n = 0;

	for (i = 0; i < ARRAY_SIZE(scenarios); i++)
		n += argc < 2 || wanted(scenarios[i].name, argv[1]);
	ksft_print_header();
	ksft_set_plan(n);
	for (i = 0; i < ARRAY_SIZE(scenarios); i++) {
		if (argc < 2 || wanted(scenarios[i].name, argv[1]))
			run_scenario(&scenarios[i], most);
		/* One is enough for who only asks whether there is any. */
		if (violated[0] && getenv("EXPLORE_STOP"))
			return KSFT_FAIL;
	}
	ksft_finished();
}

#endif
