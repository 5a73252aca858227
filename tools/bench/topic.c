// SPDX-License-Identifier: GPL-2.0-only
/*
 * topic.c - what publishing costs with 1, 16, 256 and 1024 readers.
 *
 *   topic [BACKEND [ROUNDS [SPARE]]]	SPARE elements, default as shmk_topic_open() has it
 *
 * One topic made for 1024 readers; the subscriptions are those of several
 * attachments of this process, and read nothing: the writer has to look at the
 * ledgers of all, but has nobody to ring for. The numbers of readers take turns, round by
 * round, so that what else the machine does hits all alike; the median of each,
 * and of the ratios to one reader.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <shmk.h>

#define READERS		1024
#define PEERS		16
#define PUBLICATIONS	40000
#define MOST_ROUNDS	101

static const unsigned int numbers[] = { 1, 16, 256, READERS };

#define NUMBERS	(sizeof(numbers) / sizeof(numbers[0]))

static void check(int ret, const char *what)
{
	if (ret >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(-ret));
	exit(1);
}

/* This thread's own time: nobody is waited for, and others may have the processor meanwhile. */
static double now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* Of one publication, in ns. */
static double publish(struct shmk_topic *t)
{
	double begin = now_us();
	char buf[64] = "";
	int i;

	for (i = 0; i < PUBLICATIONS; i++)
		check(shmk_topic_publish_copy(t, buf, sizeof(buf), SHMK_TRY), "publish");
	return (now_us() - begin) * 1e3 / PUBLICATIONS;
}

static double measure(struct shmk_topic *t, struct shmk_topic **readers, unsigned int nr)
{
	static struct shmk_sub *sub[READERS];
	struct shmk_held held;
	unsigned int i;
	double ns;

	check(shmk_topic_publish_copy(t, "", 1, SHMK_TRY), "publish");
	for (i = 0; i < nr; i++) {
		check(shmk_topic_subscribe(readers[i % PEERS], NULL, &sub[i]), "subscribe");
		check(shmk_topic_take_last(sub[i], &held), "take");
	}
	publish(t);
	ns = publish(t);
	for (i = 0; i < nr; i++)
		shmk_topic_unsubscribe(sub[i]);
	return ns;
}

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *of, unsigned int nr)
{
	qsort(of, nr, sizeof(*of), order);
	return of[nr / 2];
}

int main(int argc, char **argv)
{
	struct shmk_pool_opts pool = { .bytes = 16 << 20, .nr_peers = 512 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_topic_opts make = {
		.flags = SHMK_TOPIC_CREATE, .nr_readers = READERS, .msg_bytes = 64,
	};
	static double ns[NUMBERS][MOST_ROUNDS], ratio[NUMBERS][MOST_ROUNDS];
	unsigned int rounds = argc > 2 ? (unsigned int)atoi(argv[2]) : 15, i, n;
	struct shmk_topic *t, *readers[PEERS];
	struct shmk *s;
	char uri[64];

	make.spare = argc > 3 ? (unsigned int)atoi(argv[3]) : 0;
	if (rounds < 1 || rounds > MOST_ROUNDS)
		rounds = 15;
	snprintf(uri, sizeof(uri), "%s:bench-topic-%d", argc > 1 ? argv[1] : "local", getpid());
	check(shmk_attach(uri, &opts, &s), "attach");
	check(shmk_topic_open(s, "t", &make, SHMK_TRY, &t), "topic");
	check(shmk_topic_writer(t, SHMK_TRY), "writer");
	for (i = 0; i < PEERS; i++) {
		struct shmk *reader;

		check(shmk_attach(uri, NULL, &reader), "attach");
		check(shmk_topic_open(reader, "t", NULL, SHMK_TRY, &readers[i]), "topic");
	}
	for (i = 0; i < rounds; i++)
		for (n = 0; n < NUMBERS; n++) {
			ns[n][i] = measure(t, readers, numbers[n]);
			ratio[n][i] = ns[n][i] / ns[0][i];
		}
	for (n = 0; n < NUMBERS; n++)
		printf("%4u readers: %6.1f ns, ratio %.2f\n", numbers[n], median(ns[n], rounds),
		       median(ratio[n], rounds));
	return 0;
}
