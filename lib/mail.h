/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * mail.h - what mail.c and call.c share.
 */
#ifndef SHMK_MAIL_H
#define SHMK_MAIL_H

#include "internal.h"

/* Received, and not asked for yet. */
struct letter {
	struct letter	*next;
	struct shmk_msg	msg;
};

struct call;		/* call.c: a request that is outstanding */

/* One thread at a time. */
struct shmk_mailbox {
	struct shmk	*shmk;
	struct shmk_queue *q;
	struct letter	*aside;		/* in the order of their coming */
	struct letter	**last;
	struct call	*calls;
};

/* The generation of who has the id now; 0: nobody alive. */
uint32_t mail_gen(struct shmk *s, uint32_t id);
/* As shmk_mail_send(), with the tag that @msg has. */
int mail_post(struct shmk *s, uint32_t to, uint32_t gen, struct shmk_msg *msg, int64_t deadline);
/* All that is in the queue goes aside, in the order of its coming. Never 0: -EAGAIN when it is empty. */
int mail_pull(struct shmk_mailbox *mb);
/* @msg gets the letter at *@at; NULL: it is freed. */
void mail_take(struct shmk_mailbox *mb, struct letter **at, struct shmk_msg *msg);
bool mail_matches(const struct shmk_msg *msg, uint32_t from, uint32_t gen, uint32_t tag);
void call_drop(struct call **at);
void calls_forget(struct shmk_mailbox *mb);

#endif
