// SPDX-License-Identifier: GPL-2.0-only
/*
 * util.c - sentences, numbers and progress.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/shmk.h>

#include "tool.h"

/* ----------------------------------------------------------- messages -- */

static bool progress_line;	/* the cursor stands behind a progress line */

/* One write for one line, or the lines of two commands mix. */
static void vsay(const char *end, const char *fmt, va_list ap)
{
	char line[1024];
	size_t len = strlen(end) + 2, n;

	vsnprintf(line, sizeof(line) - len, fmt, ap);
	n = strlen(line);
	snprintf(line + n, sizeof(line) - n, "%s\n", end);
	fprintf(stderr, "%sshmk: %s", progress_line ? "\r\033[K" : "", line);
	progress_line = false;
}

void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsay("", fmt, ap);
	va_end(ap);
}

int bad_usage(const char *verb, const char *fmt, ...)
{
	char end[64];
	va_list ap;

	snprintf(end, sizeof(end), ": see 'shmk help %s'", verb);
	va_start(ap, fmt);
	vsay(end, fmt, ap);
	va_end(ap);
	return EXIT_USAGE;
}

int exit_status(int err)
{
	switch (-err) {
	case 0:
		return EXIT_OK;
	case EINVAL:
	case E2BIG:
		return EXIT_USAGE;
	case ENOENT:
	case ENODEV:
		return EXIT_NOENT;
	case EBUSY:
	case EEXIST:
		return EXIT_BUSY;
	case EPERM:
	case EACCES:
	case EROFS:
		return EXIT_PERM;
	case ENOMEM:
	case ENOSPC:
	case ENOBUFS:
	case EMFILE:
	case ENFILE:
	case EDQUOT:
	case EFBIG:
		return EXIT_NOSPACE;
	case ETIMEDOUT:
	case EAGAIN:
		return EXIT_TIMEOUT;
	default:
		return EXIT_FAILED;
	}
}

/* What an errno means for a user of the tool, when the caller has nothing more special to say. */
static const char *meaning(int err)
{
	switch (-err) {
	case EUCLEAN:
		return "the pool's shared memory is damaged: look at it with 'shmk fsck'";
	case EPROTO:
		return "made by another version of shmk, the pool (remove it with 'shmk pool rm') or the module that is loaded";
	case ESHUTDOWN:
		return "it is being drained, or the pool was reset: nothing more is accepted";
	case ENXIO:
		return "the pool was taken away: run the command again";
	case EROFS:
		return "this user may only read the pool: change its mode or owner";
	case ENOBUFS:
		return "this process holds too many messages at once";
	case EINTR:
		return "interrupted";
	default:
		return strerror(-err);
	}
}

int fail(int err, const char *fmt, ...)
{
	char end[128];
	va_list ap;

	/* Whoever pressed ^C knows why it ended; main() dies of the signal. */
	if (err == -EINTR && stop_signal)
		return EXIT_FAILED;
	snprintf(end, sizeof(end), ": %s", meaning(err));
	va_start(ap, fmt);
	vsay(end, fmt, ap);
	va_end(ap);
	return exit_status(err);
}

int finish_stdout(void)
{
	if (fflush(stdout) || ferror(stdout))
		return fail(-errno, "cannot write to standard output");
	return EXIT_OK;
}

/* ------------------------------------------------------------ numbers -- */

bool parse_number(const char *text, uint64_t max, uint64_t *n)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*n = strtoull(text, &end, 0);
	return !errno && !*end && *n <= max;
}

bool parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGTPE";
	const char *unit;
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	*bytes = strtoull(text, &end, 10);
	if (errno)
		return false;
	unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
	if (unit) {
		unsigned int shift = 10 * (unit - units + 1);

		if (*bytes > UINT64_MAX >> shift)
			return false;
		*bytes <<= shift;
		end++;
		if (*end == 'i')
			end++;
	}
	if (*end == 'B')
		end++;
	return !*end;
}

bool parse_mode(const char *text, uint32_t *mode)
{
	char *end;
	unsigned long v = strtoul(text, &end, 8);

	*mode = v;
	return isdigit((unsigned char)*text) && !*end && !(v & ~0777UL);
}

bool parse_ms(const char *text, int64_t *ms)
{
	char *end;
	double v;

	if (!isdigit((unsigned char)*text) && *text != '.')
		return false;
	v = strtod(text, &end);
	if (!strcmp(end, "s"))
		v *= 1000;
	else if (!strcmp(end, "m") || !strcmp(end, "min"))
		v *= 60 * 1000;
	else if (*end && strcmp(end, "ms"))
		return false;
	if (!(v <= 1e12))
		return false;
	*ms = v;
	return true;
}

int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static char *scratch(void)
{
	static char bufs[8][32];
	static unsigned int next;

	return bufs[next++ % 8];
}

const char *human(uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned int u = 0;
	double v = bytes;
	char *buf = scratch();

	while (v >= 1024 && u < 6) {
		v /= 1024;
		u++;
	}
	/* Whole numbers as such: what was asked for as 16M reads 16 MiB. */
	snprintf(buf, 32, v == (uint64_t)v ? "%.0f %s" : "%.1f %s", v, units[u]);
	return buf;
}

const char *human_ns(uint64_t ns)
{
	char *buf = scratch();

	if (ns < 1000)
		snprintf(buf, 32, "%llu ns", (unsigned long long)ns);
	else if (ns < 1000000)
		snprintf(buf, 32, "%.1f us", ns / 1e3);
	else if (ns < 1000000000)
		snprintf(buf, 32, "%.1f ms", ns / 1e6);
	else if (ns < 120 * 1000000000ULL)
		snprintf(buf, 32, "%.1f s", ns / 1e9);
	else if (ns < 7200 * 1000000000ULL)
		snprintf(buf, 32, "%.0f min", ns / 60e9);
	else if (ns < 48 * 3600 * 1000000000ULL)
		snprintf(buf, 32, "%.0f h", ns / 3600e9);
	else
		snprintf(buf, 32, "%.0f d", ns / 86400e9);
	return buf;
}

const char *comm_text(const char comm[16])
{
	static char text[17];

	memcpy(text, comm, 16);
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			*p = '?';
	return text;
}

/* ----------------------------------------------------------- progress -- */

#define PROGRESS_EVERY_NS	200000000LL

void progress_start(struct progress *p, const char *what, uint64_t total, bool quiet)
{
	*p = (struct progress){
		.what = what,
		.total = total,
		.start_ns = now_ns(),
		.on = !quiet && isatty(STDERR_FILENO),
	};
	p->shown_ns = p->start_ns;
}

static void progress_print(struct progress *p, int64_t now)
{
	double seconds = (now - p->start_ns) / 1e9;

	fprintf(stderr, "\r\033[K%s %s", p->what, human(p->done));
	if (p->total)
		fprintf(stderr, " of %s, %d%%", human(p->total),
			(int)(p->done * 100.0 / p->total));
	if (seconds > 0)
		fprintf(stderr, ", %s/s", human(p->done / seconds));
	fflush(stderr);
	p->shown_ns = now;
	progress_line = true;
}

void progress_show(struct progress *p)
{
	int64_t now;

	if (!p->on)
		return;
	now = now_ns();
	if (now - p->shown_ns >= PROGRESS_EVERY_NS)
		progress_print(p, now);
}

void progress_end(struct progress *p)
{
	if (!p->on)
		return;
	progress_print(p, now_ns());
	fputc('\n', stderr);
	progress_line = false;
	p->on = false;
}
