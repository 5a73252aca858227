/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * own.h - what of tools/bench is part of 'shmk bench'; the rest are programs
 * that link other transports.
 */
#ifndef BENCH_OWN_H
#define BENCH_OWN_H

struct transport;

/* Each ends with NULL. */
extern const struct transport *const limit_transports[];
extern const struct transport *const self_transports[];
extern const struct transport *const kernel_transports[];

/* Prints "cost:WHAT KEY=VALUE ..."; a WHAT that is not known prints all there are. */
int bench_cost(const char *what);

#endif
