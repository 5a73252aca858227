// SPDX-License-Identifier: GPL-2.0-only
/*
 * Runs a list of test programs and reports on them.
 *
 *   init LIST     on the host: report on standard output
 *   as PID 1      in the guest: sets the machine up, loads shmk.ko, runs
 *                 /shmk/list, unloads, reports on the second serial port and
 *                 powers off
 *
 * One program does both, so that a test meets the same conditions (own
 * session, no stdin, a deadline, nothing left running) in either place.
 *
 * The report is line-based; selftests/vm/report reads it:
 *
 *   runs N              so many programs will be run
 *   run LABEL           a program starts
 *   plain               it reports no tests, its exit status is all
 *   | TEXT              a line of its output
 *   end HOW [DETAIL]    it ended: "exit STATUS", "signal NAME", "timeout
 *                       SECONDS", "stuck SECONDS" (not even SIGKILL ended it)
 *   klog TEXT           the kernel complained while it ran
 *   info TEXT           for the reader of the log
 *   success             the last line. Its absence is a failure: a guest that
 *                       says nothing has not passed anything.
 *
 * A line of LIST is: TIMEOUT PROGRAM [ENV=VALUE ...] [ARGUMENT ...]
 * PLAIN=1 is for programs that are not tests, such as examples. MODULE=hooks, in
 * the guest: while it runs, /shmk/hooks/shmk.ko is loaded instead.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_WORDS	64
#define KILL_GRACE_MS	15000

static bool guest;
static int channel = STDOUT_FILENO;
static int kmsg = -1;
static unsigned int scale = 1;
static bool bugs_wanted;	/* shmk_bugs: the programs make the kernel complain */
static bool failed;		/* says only what the guest's module did, tests are judged outside */

static void __attribute__((format(printf, 2, 3)))
report(const char *verb, const char *fmt, ...)
{
	char line[4352];
	size_t len = strlen(verb), off = 0;
	va_list ap;

	memcpy(line, verb, len);
	va_start(ap, fmt);
	len += vsnprintf(line + len, sizeof(line) - len - 1, fmt, ap);
	va_end(ap);
	if (len > sizeof(line) - 2)
		len = sizeof(line) - 2;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)line[i] < ' ' && line[i] != '\t')
			line[i] = '?';
	line[len++] = '\n';
	while (off < len) {
		ssize_t n = write(channel, line + off, len - off);

		if (n < 0 && errno != EINTR)
			exit(2);
		off += n > 0 ? n : 0;
	}
	/*
	 * A crash is easier to understand when the console shows what ran. The
	 * programs' output stays away from it: serial ports are slow.
	 */
	if (guest && verb[0] != '|' && write(STDOUT_FILENO, line, len) < 0)
		return;
}

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static ssize_t read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n;

	if (fd < 0)
		return -1;
	while (len < size - 1 && (n = read(fd, buf + len, size - 1 - len)) > 0)
		len += n;
	close(fd);
	buf[len] = '\0';
	return len;
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_CREAT, 0644);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) >= 0;

	if (fd >= 0)
		close(fd);
	return ok;
}

/* ---- the kernel's log ---- */

/*
 * The kernel says a good deal under emulation that means nothing here, so not
 * every warning counts: shmk's own do, and whatever looks like a bug.
 */
static bool is_complaint(int level, const char *text)
{
	static const char *const bugs[] = {
		"WARNING:", "BUG:", "BUG ", "Oops", "INFO: task", "blocked for more than",
		"possible recursive", "possible circular", "inconsistent lock state",
		"suspicious RCU", "held lock", "locks still held", "refcount_t:",
		"bad page", "Bad page", "Bad rss", "page dumped", "KASAN", "KCSAN", "UBSAN", "kmemleak:",
		"general protection", "unable to handle", "scheduling while atomic",
		"sleeping function called", "rcu_preempt detected", "rcu_sched detected",
		"soft lockup", "hard LOCKUP", "nobody cared", "Attempt to access beyond",
		"ODEBUG:", "corruption", "list_add", "list_del", "Objects remaining",
		"module is in use", "leaked", "Unknown symbol", "disagrees about",
	};

	/* What every out-of-tree module makes the kernel say. */
	if (strstr(text, "taints kernel") || strstr(text, "tainting kernel"))
		return false;
	/* fail_nth hits the checker's own allocations, too. */
	if (strstr(text, "kmemleak: Cannot allocate"))
		return false;
	for (size_t i = 0; i < sizeof(bugs) / sizeof(*bugs); i++)
		if (strstr(text, bugs[i]))
			return true;
	return level <= 4 && !strncmp(text, "shmk", 4);
}

/*
 * KCSAN's reports have many lines, and most are about the rest of the kernel: "BUG: KCSAN:
 * data-race in A / B", and for each side "read to 0x... of 8 bytes by task ...", and where
 * that was, innermost first. One counts if either side was in the module's code.
 */
static bool is_kcsan(const char *text)
{
	static char title[256];
	static int frames;
	static unsigned int others;

	if (strstr(text, "BUG: KCSAN:")) {
		if (title[0] && ++others == 1)
			report("info ", "%s: not in the module, like others that are not told", title);
		snprintf(title, sizeof(title), "%s", text);
		frames = 0;
		return true;
	}
	if (!title[0])
		return false;
	if (strstr(text, " bytes by ")) {
		frames = 2;
	} else if (frames > 0) {
		frames--;
		if (strstr(text, "[shmk]")) {
			if (!bugs_wanted)
				report("klog ", "%s", title);
			title[0] = '\0';
		}
	}
	return true;
}

static void check_kmsg(void)
{
	char rec[8192], *text;
	ssize_t n;
	int level;

	for (;;) {
		n = read(kmsg, rec, sizeof(rec) - 1);
		if (n < 0 && errno == EPIPE) {
			report("info ", "kernel log overran, some of it was not checked");
			continue;
		}
		if (n <= 0)
			return;
		rec[n] = '\0';
		level = atoi(rec) & 7;
		text = strchr(rec, ';');
		if (!text)
			continue;
		text++;
		text[strcspn(text, "\n")] = '\0';
		if (!is_kcsan(text) && is_complaint(level, text) && !bugs_wanted)
			report("klog ", "%s", text);
	}
}

/* ---- the module ---- */

static char shipped_params[1024];

static bool load_module(const char *path, const char *params)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 && !syscall(SYS_finit_module, fd, params ?: "", 0);

	if (!ok)
		report("info ", "loading %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ok;
}

static bool is_loaded(void)
{
	char buf[65536];

	read_file("/proc/modules", buf, sizeof(buf));
	return !strncmp(buf, "shmk ", 5) || strstr(buf, "\nshmk ");
}

/*
 * Files can be released from task work and kworkers a moment after their last
 * user is gone; ten seconds are not a moment.
 */
static bool unload_module(void)
{
	long long deadline = now_ms() + 10000;

	while (is_loaded() && syscall(SYS_delete_module, "shmk", O_NONBLOCK) &&
	       now_ms() < deadline)
		poll(NULL, 0, 20);
	return !is_loaded();
}

/*
 * udev would give the node to a group. Open to all, so that tests can take any
 * uid and meet the module's own checks, not the node's.
 */
static bool open_node(void)
{
	return !chmod("/dev/shmk", 0666);
}

static bool swap_module(const char *path, const char *params)
{
	return unload_module() && load_module(path, params) && open_node();
}

/* ---- one program ---- */

static void start_program(char **words, int out)
{
	int in = open("/dev/null", O_RDONLY);
	int i = 1, n;

	for (n = 0; words[n]; n++)
		;
	/* Environment first, wherever it stands; what remains is argv. */
	for (i = n = 1; words[i]; i++) {
		if (strchr(words[i], '=') && words[i][0] != '-')
			putenv(words[i]);
		else
			words[n++] = words[i];
	}
	words[n] = NULL;
	/* A pool as large as the machine must not take the machine down. */
	write_file("/proc/self/oom_score_adj", "1000");
	setsid();
	dup2(in, STDIN_FILENO);
	dup2(out, STDOUT_FILENO);
	dup2(out, STDERR_FILENO);
	execvp(words[0], words);
	dprintf(STDERR_FILENO, "# cannot run %s: %s\n", words[0], strerror(errno));
	_exit(127);
}

/* What a test is called: program:backend,other,words (without directories). */
static void make_label(char **words, char *label, size_t size)
{
	static const char backend[] = "SHMK_TEST_BACKEND=";
	size_t len = snprintf(label, size, "%s", words[0]);

	for (int i = 1; words[i] && len < size; i++) {
		bool b = !strncmp(words[i], backend, sizeof(backend) - 1);
		char *slash = strrchr(words[i], '/');

		if (!strcmp(words[i], "PLAIN=1") || !strcmp(words[i], "MODULE=hooks"))
			continue;
		len += snprintf(label + len, size - len, "%c%s", b ? ':' : ',',
				b ? words[i] + sizeof(backend) - 1 : slash ? slash + 1 : words[i]);
	}
}

struct output {
	int fd;
	size_t len;
	char line[4096];
};

/* Returns false at end of file. */
static bool pump_output(struct output *o)
{
	char buf[4096];
	ssize_t n = read(o->fd, buf, sizeof(buf));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] != '\n' && o->len < sizeof(o->line) - 1) {
			o->line[o->len++] = buf[i];
			continue;
		}
		report("| ", "%.*s", (int)o->len, o->line);
		o->len = 0;
		if (buf[i] != '\n')
			o->line[o->len++] = buf[i];
	}
	if (!n && o->len) {
		report("| ", "%.*s", (int)o->len, o->line);
		o->len = 0;
	}
	return n > 0;
}

/*
 * Whatever a program leaves running becomes our child (as PID 1, or as
 * subreaper). Kill it, or it disturbs the next test.
 */
static unsigned int kill_leftovers(pid_t session)
{
	long long deadline = now_ms() + KILL_GRACE_MS;
	unsigned int nr = 0;
	pid_t pid;

	if (!guest)
		kill(-session, SIGKILL);
	do {
		char path[64], list[4096], *p = list;

		if (guest) {
			kill(-1, SIGKILL);
		} else {
			snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
			if (read_file(path, list, sizeof(list)) > 0)
				while ((pid = strtol(p, &p, 10)) > 0)
					kill(pid, SIGKILL);
		}
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
			nr++;
		if (pid < 0)
			return nr;
		poll(NULL, 0, 10);
	} while (now_ms() < deadline);
	report("info ", "processes remain that SIGKILL does not end");
	return nr;
}

static void report_stack(const char *pid)
{
	char path[300], buf[8192], *line, *save = NULL;

	snprintf(path, sizeof(path), "/proc/%s/stack", pid);
	if (read_file(path, buf, sizeof(buf)) <= 0)
		return;
	for (line = strtok_r(buf, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		report("info ", "  %s", line);
}

/* Where in the kernel a program that hangs sits, with all its children. */
static void report_stacks(pid_t session)
{
	DIR *dir = opendir("/proc");
	unsigned int nr = 0;
	struct dirent *d;

	while (dir && (d = readdir(dir)) && nr < 16) {
		char path[300], stat[1024], *p, state;
		int sid;

		snprintf(path, sizeof(path), "/proc/%s/stat", d->d_name);
		if (d->d_name[0] < '0' || d->d_name[0] > '9' ||
		    read_file(path, stat, sizeof(stat)) <= 0)
			continue;
		p = strrchr(stat, ')');
		if (!p || sscanf(p + 1, " %c %*d %*d %d", &state, &sid) != 2 || sid != session)
			continue;
		report("info ", "%.*s) in state %c", (int)(p - stat), stat, state);
		report_stack(d->d_name);
		nr++;
	}
	if (dir)
		closedir(dir);
}

static bool has_word(char **words, const char *word)
{
	while (*words && strcmp(*words, word))
		words++;
	return *words;
}

static void run_program(unsigned int timeout, char **words)
{
	bool hooks = guest && has_word(words, "MODULE=hooks");
	struct output out = { 0 };
	char label[256];
	int pipefd[2], pidfd, status = 0;
	bool timed_out = false, dead = false;
	long long deadline, left;
	unsigned int nr;
	pid_t pid;

	make_label(words, label, sizeof(label));
	report("run ", "%s", label);
	/* If this one takes the kernel down, its name must be out by then. */
	if (guest)
		tcdrain(channel);
	if (has_word(words, "PLAIN=1"))
		report("plain", "%s", "");
	if (hooks && !swap_module("/shmk/hooks/shmk.ko", ""))
		report("klog ", "the module with hooks could not be loaded");
	if (pipe2(pipefd, O_CLOEXEC))
		abort();
	pid = fork();
	if (pid < 0)
		abort();
	if (!pid)
		start_program(words, pipefd[1]);
	close(pipefd[1]);
	out.fd = pipefd[0];
	fcntl(out.fd, F_SETFL, O_NONBLOCK);
	pidfd = syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		abort();

	deadline = now_ms() + timeout * 1000LL;
	while (!dead && (left = deadline - now_ms()) > 0) {
		struct pollfd fds[2] = {
			{ .fd = pidfd, .events = POLLIN },
			{ .fd = out.fd, .events = POLLIN },
		};

		if (poll(fds, 2, left) < 0)
			continue;
		if (fds[1].revents && !pump_output(&out)) {
			/* Closed its output: only its end is left to wait for. */
			close(out.fd);
			out.fd = -1;
		}
		/* An orphan that inherits the pipe must not keep us here. */
		if (fds[0].revents)
			dead = waitpid(pid, &status, WNOHANG) == pid;
	}
	if (!dead) {
		timed_out = true;
		report_stacks(pid);
		kill(pid, SIGKILL);
		deadline = now_ms() + KILL_GRACE_MS;
		while (!dead && (left = deadline - now_ms()) > 0) {
			struct pollfd fd = { .fd = pidfd, .events = POLLIN };

			if (poll(&fd, 1, left) > 0)
				dead = waitpid(pid, &status, WNOHANG) == pid;
		}
		if (!dead)
			report_stacks(pid);
	}
	close(pidfd);
	nr = kill_leftovers(pid);
	if (out.fd >= 0) {
		while (poll(&(struct pollfd){ .fd = out.fd, .events = POLLIN }, 1, 0) > 0 &&
		       pump_output(&out))
			;
		if (out.len)
			report("| ", "%.*s", (int)out.len, out.line);
		close(out.fd);
	}
	if (nr && !timed_out)
		report("info ", "%s left %u processes behind", label, nr);
	if (hooks && !swap_module("/shmk/shmk.ko", shipped_params))
		report("klog ", "the shipped module could not be loaded again");
	if (guest)
		check_kmsg();
	if (!dead)
		report("end ", "stuck %u", timeout);
	else if (timed_out)
		report("end ", "timeout %u", timeout);
	else if (WIFSIGNALED(status))
		report("end ", "signal %s", sigabbrev_np(WTERMSIG(status)) ?: "?");
	else
		report("end ", "exit %d", WEXITSTATUS(status));
}

static void run_list(const char *path)
{
	char line[4096], *words[MAX_WORDS + 1], *save;
	FILE *f = fopen(path, "re");
	unsigned int timeout, nr = 0;
	int n;

	if (!f) {
		report("info ", "cannot open %s: %s", path, strerror(errno));
		exit(2);
	}
	while (fgets(line, sizeof(line), f))
		nr++;
	report("runs ", "%u", nr);
	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		timeout = strtoul(strtok_r(line, " \t\n", &save) ?: "0", NULL, 10);
		for (n = 0; n < MAX_WORDS && (words[n] = strtok_r(NULL, " \t\n", &save)); n++)
			;
		words[n] = NULL;
		if (!timeout || !n) {
			report("info ", "bad line in %s", path);
			exit(2);
		}
		run_program(timeout * scale, words);
	}
	fclose(f);
}

/* ---- the guest ---- */

static void mount_all(void)
{
	static const struct { const char *type, *dir; } mounts[] = {
		{ "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" },
		{ "tmpfs", "/dev/shm" }, { "devpts", "/dev/pts" }, { "tmpfs", "/tmp" },
		{ "tmpfs", "/run" }, { "cgroup2", "/sys/fs/cgroup" },
		{ "debugfs", "/sys/kernel/debug" }, { "tracefs", "/sys/kernel/tracing" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		mkdir(mounts[i].dir, 0755);
		if (mount(mounts[i].type, mounts[i].dir, mounts[i].type, 0, NULL) &&
		    errno != EBUSY)
			printf("init: mount %s: %s\n", mounts[i].dir, strerror(errno));
	}
	chmod("/tmp", 01777);
	chmod("/dev/shm", 01777);
	if (symlink("/proc/self/fd", "/dev/fd") || symlink("fd/0", "/dev/stdin") ||
	    symlink("fd/1", "/dev/stdout") || symlink("fd/2", "/dev/stderr"))
		printf("init: /dev/fd: %s\n", strerror(errno));
}

static void loopback_up(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr))
		printf("init: loopback: %s\n", strerror(errno));
	close(fd);
}

static void open_channel(const char *tty)
{
	struct termios t;
	int fd = open(tty, O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0) {
		printf("init: %s: %s\n", tty, strerror(errno));
		return;
	}
	if (!tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		cfsetspeed(&t, B115200);
		tcsetattr(fd, TCSANOW, &t);
	}
	channel = fd;
}

/* NAME=VALUE on the kernel's command line ends up in init's environment. */
static const char *option(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

static void check(bool ok, int nr, const char *name, const char *detail)
{
	failed |= !ok;
	report("| ", "%sok %d %s%s%s", ok ? "" : "not ", nr, name,
	       detail ? " # " : "", detail ?: "");
}

static void load_all(void)
{
	char line[256];
	FILE *f;
	bool ok;

	report("run ", "load");
	report("| ", "1..2");
	/* Modules that a test wants besides ours, in the order given. */
	f = fopen("/shmk/modules", "re");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		load_module(line, NULL);
	}
	if (f)
		fclose(f);
	if (read_file("/shmk/params", shipped_params, sizeof(shipped_params)) > 0)
		shipped_params[strcspn(shipped_params, "\n")] = '\0';
	ok = load_module("/shmk/shmk.ko", shipped_params);
	check(ok, 1, "shmk_ko_loads", NULL);
	check(ok && open_node(), 2, "device_node_appears", NULL);
	check_kmsg();
	report("end ", "exit %d", failed);
}

/* All of a debugfs file, or NULL. */
static char *read_all(const char *path)
{
	size_t size = 1 << 24;
	char *text = malloc(size);

	if (text && read_file(path, text, size) < 0) {
		free(text);
		text = NULL;
	}
	return text;
}

/*
 * Debug kernels only: pages that the module allocated and that are still there,
 * by the stacks that page_owner keeps. There is no pool any more, so what remains
 * are slabs, the kernel's page tables and the pages in which KASAN keeps the stacks
 * of whoever frees something: none of them is given back.
 */
static bool pages_leaked(char *stacks)
{
	static const char *const kept[] = {
		"allocate_slab", "pte_alloc", "pmd_alloc", "vmap_", "kasan_populate",
		"stack_depot_save",
	};
	bool leaked = false;

	for (char *next, *s = stacks; s && *s; s = next) {
		bool is_kept = false;

		next = strstr(s, "\n\n");
		if (next) {
			*next = '\0';
			next += 2;
		}
		for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++)
			is_kept |= strstr(s, kept[i]) != NULL;
		if (!strstr(s, "[shmk]") || is_kept)
			continue;
		leaked = true;
		for (char *save = NULL, *l = strtok_r(s, "\n", &save); l;
		     l = strtok_r(NULL, "\n", &save))
			report("info ", "page_owner: %s", l);
	}
	return leaked;
}

static void unload_all(void)
{
	char buf[64] = "", *leaks, *stacks;
	long taint;
	int n = 0;

	failed = false;
	report("run ", "unload");
	stacks = read_all("/sys/kernel/debug/page_owner_stacks/show_stacks");
	if (stacks && *stacks && !bugs_wanted)
		check(!pages_leaked(stacks), ++n, "no_page_leaks", NULL);
	free(stacks);
	check(unload_module(), ++n, "shmk_ko_unloads", NULL);
	check(access("/dev/shmk", F_OK), ++n, "device_node_disappears", NULL);

	/* The module is unsigned and out of tree; all other bits are ours to explain. */
	read_file("/proc/sys/kernel/tainted", buf, sizeof(buf));
	taint = atol(buf);
	buf[strcspn(buf, "\n")] = '\0';
	if (!bugs_wanted)
		check(!(taint & ~((1L << 12) | (1L << 13))), ++n, "kernel_not_tainted_by_bugs",
		      buf);

	/* Debug kernels only. The second scan is the one that counts. */
	if (!bugs_wanted && !access("/sys/kernel/debug/kmemleak", F_OK)) {
		bool scanned = write_file("/sys/kernel/debug/kmemleak", "scan");

		poll(NULL, 0, 6000);
		scanned = scanned && write_file("/sys/kernel/debug/kmemleak", "scan");
		leaks = read_all("/sys/kernel/debug/kmemleak");
		check(scanned && leaks && !*leaks, ++n, "no_memory_leaks",
		      scanned ? NULL : "kmemleak has given up");
		for (char *s = NULL, *l = leaks ? strtok_r(leaks, "\n", &s) : NULL; l;
		     l = strtok_r(NULL, "\n", &s))
			report("info ", "kmemleak: %s", l);
		free(leaks);
	}
	report("| ", "1..%d", n);
	check_kmsg();
	report("end ", "exit %d", failed);
}

/* For a human who compares before and after; too noisy to be a test. */
static void report_memory(const char *when)
{
	static const char *const names[] = { "nr_unevictable ", "nr_mlock ",
		"nr_free_pages ", "nr_slab_unreclaimable ", "nr_foll_pin_acquired ",
		"nr_foll_pin_released " };
	char buf[16384], *p;

	if (read_file("/proc/vmstat", buf, sizeof(buf)) <= 0)
		return;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		p = strstr(buf, names[i]);
		if (p)
			report("info ", "vmstat %s: %.*s", when, (int)strcspn(p, "\n"), p);
	}
}

static void run_wait(const char *cmd)
{
	pid_t pid = fork();

	if (!pid) {
		execl("/bin/sh", "sh", "-c", cmd, NULL);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

static void guest_main(void)
{
	struct rlimit files = { 1024, 524288 };

	guest = true;
	mount_all();
	/* The kernel opened no console for us when /dev was still empty. */
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0) {
		int fd = open("/dev/console", O_RDWR);

		dup2(fd, STDIN_FILENO);
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	open_channel("/dev/ttyS1");
	report("info ", "booted after %lld ms", now_ms());
	loopback_up();
	sethostname("shmk", 4);
	setrlimit(RLIMIT_NOFILE, &files);
	setenv("PATH", "/shmk:/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("LD_LIBRARY_PATH", "/shmk", 1);
	write_file("/proc/sys/kernel/hung_task_timeout_secs", "60");
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids");
	run_wait("busybox --install -s /bin");
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(kmsg, 0, SEEK_END);
	if (chdir("/tmp"))
		printf("init: /tmp: %s\n", strerror(errno));
	if (option("shmk_scale"))
		scale = atoi(option("shmk_scale")) ?: 1;
	bugs_wanted = option("shmk_bugs");
	report_memory("before");
	if (option("shmk_shell")) {
		load_all();
		run_wait("exec setsid -c sh -i </dev/ttyS0 >/dev/ttyS0 2>&1");
	} else {
		load_all();
		run_list("/shmk/list");
		unload_all();
	}
	report_memory("after");
	report("success", "%s", "");
	/* Power-off does not wait for what the UART still holds. */
	tcdrain(channel);
	tcdrain(STDOUT_FILENO);
	sync();
	reboot(RB_POWER_OFF);
}

int main(int argc, char **argv)
{
	if (getpid() == 1) {
		guest_main();
		return 1;
	}
	if (argc != 2) {
		fprintf(stderr, "usage: %s LIST\n", argv[0]);
		return 2;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	signal(SIGPIPE, SIG_IGN);
	run_list(argv[1]);
	report("success", "%s", "");
	return 0;
}
