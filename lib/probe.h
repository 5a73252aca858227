/* SPDX-License-Identifier: LGPL-2.1-or-later OR MIT */
/*
 * probe.h - places where a tracer may look on: USDT probes of provider libshmk.
 *
 *	perf probe, bpftrace -e 'usdt:/usr/local/lib/libshmk.so.0:libshmk:send { ... }'
 *
 * Where sys/sdt.h (systemtap-sdt-dev) was there when the library was built, each is one nop and
 * a note in the ELF file that says where it is and where its arguments are; else nothing. The
 * arguments are what is in a register or in memory there anyway, but for a move or two.
 * Names and the order of arguments are part of the interface, see libshmk(7).
 */
#ifndef SHMK_PROBE_H
#define SHMK_PROBE_H

#if defined(__has_include) && !defined(SHMK_NO_PROBES)
#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define SHMK_PROBES	1
#endif
#endif

#ifdef SHMK_PROBES
#define PROBE(name, a, b, c, d)	DTRACE_PROBE4(libshmk, name, a, b, c, d)
#else
#define PROBE(name, a, b, c, d) \
	do { (void)(a); (void)(b); (void)(c); (void)(d); } while (0)
#endif

#endif
