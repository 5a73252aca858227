// SPDX-License-Identifier: GPL-2.0-only
/*
 * iceoryx.c - iceoryx by its C binding: one publisher and one subscriber each
 * way, chunks loaned and taken in place. Starts a RouDi of its own unless one
 * runs (BENCH_ROUDI: how). Polling is take_chunk() in a loop, sleeping a wait set.
 */
#include "bench.h"

#include <iceoryx_binding_c/chunk.h>
#include <iceoryx_binding_c/log.h>
#include <iceoryx_binding_c/publisher.h>
#include <iceoryx_binding_c/runtime.h>
#include <iceoryx_binding_c/subscriber.h>
#include <iceoryx_binding_c/wait_set.h>

static pid_t roudi;
static iox_pub_storage_t pub_storage;
static iox_sub_storage_t sub_storage;
static iox_ws_storage_t ws_storage;
static iox_pub_t pub;
static iox_sub_t sub;
static iox_ws_t ws;
static void *out;
static const void *in;

static void start(struct bench *b)
{
	FILE *config;

	(void)b;
	/* Large chunks are not in its default pools. */
	config = fopen("/tmp/bench-roudi.toml", "w");
	if (!config)
		bench_die("/tmp/bench-roudi.toml: %s", strerror(errno));
	fputs("[general]\nversion = 1\n[[segment]]\n"
	      "[[segment.mempool]]\nsize = 128\ncount = 10000\n"
	      "[[segment.mempool]]\nsize = 4352\ncount = 2000\n"
	      "[[segment.mempool]]\nsize = 65792\ncount = 1000\n"
	      "[[segment.mempool]]\nsize = 1048832\ncount = 600\n", config);
	fclose(config);
	roudi = fork();
	if (!roudi) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!freopen("/dev/null", "w", stdout) || !freopen("/dev/null", "w", stderr))
			_exit(1);
		execlp("iox-roudi", "iox-roudi", "-c", "/tmp/bench-roudi.toml", NULL);
		_exit(127);
	}
	sleep(2);
	if (waitpid(roudi, NULL, WNOHANG) == roudi)
		bench_skip("iox-roudi did not start");
}

static void join(struct bench *b)
{
	static const char *const event[2] = { "forth", "back" };
	iox_pub_options_t po;
	iox_sub_options_t so;

	iox_set_loglevel(Iceoryx_LogLevel_Off);
	iox_runtime_init(b->side ? "bench-1" : "bench-0");
	iox_pub_options_init(&po);
	po.historyCapacity = 0;
	po.subscriberTooSlowPolicy = ConsumerTooSlowPolicy_WAIT_FOR_CONSUMER;
	iox_sub_options_init(&so);
	so.queueCapacity = 256;
	so.historyRequest = 0;
	so.queueFullPolicy = QueueFullPolicy_BLOCK_PRODUCER;
	pub = iox_pub_init(&pub_storage, "bench", "bench", event[b->side], &po);
	sub = iox_sub_init(&sub_storage, "bench", "bench", event[!b->side], &so);
	while (!iox_pub_has_subscribers(pub) ||
	       iox_sub_get_subscription_state(sub) != SubscribeState_SUBSCRIBED)
		usleep(1000);
	if (b->sleeps) {
		ws = iox_ws_init(&ws_storage);
		iox_ws_attach_subscriber_event(ws, sub, SubscriberEvent_DATA_RECEIVED, 0, NULL);
	}
}

static void *loan(struct bench *b)
{
	while (iox_pub_loan_chunk(pub, &out, (uint32_t)b->bytes) != AllocationResult_SUCCESS)
		bench_relax();
	return out;
}

static void put(struct bench *b)
{
	(void)b;
	iox_pub_publish_chunk(pub, out);
}

static const void *get(struct bench *b)
{
	iox_notification_info_t info[1];
	uint64_t missed;

	while (iox_sub_take_chunk(sub, &in) != ChunkReceiveResult_SUCCESS) {
		if (b->sleeps)
			iox_ws_wait(ws, info, 1, &missed);
		else
			bench_relax();
	}
	return in;
}

static void done(struct bench *b)
{
	(void)b;
	iox_sub_release_chunk(sub, in);
}

static void stop(struct bench *b)
{
	if (b->side)
		usleep(100000);
	else
		usleep(50000);
	iox_pub_deinit(pub);
	iox_sub_deinit(sub);
	if (b->side)
		return;
	usleep(100000);
	/* When asked to end, RouDi ends whoever has ever been registered. */
	kill(roudi, SIGKILL);
	waitpid(roudi, NULL, 0);
}

static const struct transport transport = {
	"iceoryx", start, join, loan, put, get, done, stop, false };

int main(int argc, char **argv)
{
	static const struct transport *const list[] = { &transport, NULL };

	return bench_main(list, argc, argv);
}
