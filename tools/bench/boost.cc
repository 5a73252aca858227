// SPDX-License-Identifier: GPL-2.0-only
/*
 * boost.cc - Boost.Interprocess message_queue. Polling is try_receive(). It has
 * no receive that sleeps cheaply: receive() waits on a mutex and a condition.
 */
#include "bench.h"

#include <boost/interprocess/ipc/message_queue.hpp>
#include <memory>

namespace ipc = boost::interprocess;

static char name[2][32];
static std::unique_ptr<ipc::message_queue> to, from;
static unsigned char *text;

static void start(struct bench *b)
{
	for (int i = 0; i < 2; i++) {
		snprintf(name[i], sizeof(name[i]), "bench-%d-%d", (int)getpid(), i);
		ipc::message_queue::remove(name[i]);
		ipc::message_queue make(ipc::create_only, name[i], b->bytes > 65536 ? 16 : 256,
					b->bytes);
	}
	text = (unsigned char *)bench_private(b->bytes);
}

static void join(struct bench *b)
{
	to.reset(new ipc::message_queue(ipc::open_only, name[b->side]));
	from.reset(new ipc::message_queue(ipc::open_only, name[!b->side]));
}

static void *loan(struct bench *)
{
	return text;
}

static void put(struct bench *b)
{
	while (!to->try_send(text, b->bytes, 0)) {
		if (!b->sleeps)
			continue;
		to->send(text, b->bytes, 0);
		return;
	}
}

static const void *get(struct bench *b)
{
	ipc::message_queue::size_type got;
	unsigned int priority;

	if (b->sleeps)
		from->receive(text, b->bytes, got, priority);
	else
		while (!from->try_receive(text, b->bytes, got, priority))
			bench_relax();
	return text;
}

static void done(struct bench *)
{
}

static void stop(struct bench *b)
{
	ipc::message_queue::remove(name[b->side]);
	if (b->senders)
		ipc::message_queue::remove(name[1]);
}

static const struct transport transport = {
	"boost", start, join, loan, put, get, done, stop, true };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &transport, nullptr };

	return bench_main(list, argc, argv);
}
