// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * mail.c - letters to a peer, taken out by their tag; then the peer dies.
 *
 *	cc mail.c $(pkg-config --cflags --libs shmk) -o mail && ./mail
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <shmk.h>

enum { NEWS = 1, URGENT = 2 };

static void check(int ret, const char *what)
{
	if (ret < 0)
		exit(fprintf(stderr, "%s: %s\n", what, strerror(-ret)) > 0);
}

/* Urgent letters first, whenever they came. */
static void reader(struct shmk *s)
{
	struct shmk_mailbox *box;
	struct shmk_msg letter;

	check(shmk_mailbox_open(s, NULL, &box), "open mailbox");
	for (int i = 0; i < 4; i++) {
		check(shmk_mail_recv(box, SHMK_ANY_PEER, i < 2 ? URGENT : NEWS, &letter,
				     shmk_deadline_ms(5000)), "receive");
		puts(letter.data);
		shmk_free(&letter);
	}
	exit(0);	/* and says so to nobody */
}

int main(int argc, char **argv)
{
	const char *text[] = { "news 1", "urgent 1", "news 2", "urgent 2" };
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	pid_t child = fork();	/* before attaching: each process is a peer of its own */
	struct shmk_peer peer = { .id = 0 };
	struct shmk *s;
	int ret = 0;

	check(shmk_attach(argc > 1 ? argv[1] : "mail", &opts, &s), "attach");
	if (!child)
		reader(s);
	check(shmk_wait_peers(s, 2, shmk_deadline_ms(5000)), "wait for the reader");
	while (peer.pid != child)
		check(shmk_peer_next(s, peer.id + 1, &peer), "find the reader");
	for (int i = 0; !ret; i++)	/* after four it is dead, and sooner or later that is known */
		ret = shmk_mail_send_copy(s, peer.id, peer.gen, i & 1 ? URGENT : NEWS, text[i & 3],
					  strlen(text[i & 3]) + 1, shmk_deadline_ms(5000));
	printf("and now: %s\n", strerror(-ret));
	return 0;
}
