// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * event.c - the attachment's own stream of events.
 *
 * It begins when the attachment is made; each waiter of wait_event() has one of
 * its own, so neither takes the other's.
 */
#include "internal.h"

int shmk_event_fd(struct shmk *s)
{
	ERRNO_KEPT;

	return s->backend->events_fd(s, s->events);
}

int shmk_event_next(struct shmk *s, struct shmk_event *event)
{
	ERRNO_KEPT;
	int ret;

	do
		ret = s->backend->events_next(s, s->events, event);
	while (!ret && event->type == SHMK_EV_ATTACHED && event->peer == s->self &&
	       event->gen == s->gen);	/* everybody else wants to know that */
	return ret;
}
