// SPDX-License-Identifier: GPL-2.0-only
/*
 * checker_test.c - do the checkers of the debug kernel, or of kcsan, see a bug of the module?
 *
 * The module with hooks commits one of each kind; the kernel's log, or the
 * checker's own list, must say so. Runs in a guest of its own, which neither
 * panics nor counts that against the module.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"

#define BUG		"/sys/module/shmk/parameters/bug"
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define PAGES		"/sys/kernel/debug/page_owner_stacks/show_stacks"
#define TEXT_MAX	(1U << 24)

static char *text;

static bool put(const char *path, const char *what)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, what, strlen(what)) == (ssize_t)strlen(what);

	close(fd);
	return ok;
}

static bool file_says(const char *path, const char *what)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	while (fd >= 0 && len < TEXT_MAX - 1 && (n = read(fd, text + len, TEXT_MAX - 1 - len)) > 0)
		len += n;
	close(fd);
	text[len] = '\0';
	return strstr(text, what);
}

static bool log_says(int kmsg, const char *what)
{
	char record[8192];
	bool found = false;
	ssize_t n;

	while ((n = read(kmsg, record, sizeof(record) - 1)) > 0 || (n < 0 && errno == EPIPE)) {
		record[n > 0 ? n : 0] = '\0';
		found |= strstr(record, what) != NULL;
	}
	return found;
}

static bool leak_is_listed(void)
{
	put(KMEMLEAK, "scan");
	poll(NULL, 0, 6000);
	put(KMEMLEAK, "scan");
	return file_says(KMEMLEAK, "bug_memory_leak");
}

struct bug {
	const char *bug, *report;
};

/* With "kcsan" for that kernel's checker, else for those of the debug kernel. */
int main(int argc, char **argv)
{
	/* The first one first: lockdep finds one bug and goes home, or with KASAN's first. */
	static const struct bug debug_cases[] = {
		{ "lock_order", "possible circular locking dependency detected" },
		{ "use_after_free", "KASAN: slab-use-after-free in bug_use_after_free" },
		{ "beyond_the_end", "KASAN: slab-out-of-bounds in bug_beyond_the_end" },
		{ "sleep", "sleeping function called from invalid context" },
		{ "memory_leak", NULL },
		{ "page_leak", NULL },
	};
	static const struct bug kcsan_cases[] = {
		{ "data_race", "KCSAN: data-race in bug_data_race_side" },
	};
	bool kcsan = argc > 1 && !strcmp(argv[1], "kcsan");
	const struct bug *cases = kcsan ? kcsan_cases : debug_cases;
	size_t nr = (kcsan ? sizeof(kcsan_cases) : sizeof(debug_cases)) / sizeof(*cases);
	int kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool found;

	text = malloc(TEXT_MAX);
	ksft_print_header();
	ksft_set_plan((unsigned int)nr);
	lseek(kmsg, 0, SEEK_END);
	for (size_t i = 0; i < nr; i++) {
		found = put(BUG, cases[i].bug);
		if (cases[i].report)
			found = found && log_says(kmsg, cases[i].report);
		else if (!strcmp(cases[i].bug, "memory_leak"))
			found = found && leak_is_listed();
		else
			found = found && file_says(PAGES, "bug_page_leak");
		ksft_test_result(found, "%s is found\n", cases[i].bug);
	}
	ksft_finished();
}
