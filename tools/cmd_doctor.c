// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk doctor
 *
 * Is this machine fit for shmk, and for this user? Each check tells one thing, and
 * if it is not as it should be also the command that puts it right. Nothing is changed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/io_uring.h>
#include <linux/shmk.h>

#include "tool.h"

#define MEMLOCK_ENOUGH	(64ULL << 20)
#define SHM_ENOUGH	(64ULL << 20)
#define FILES_ENOUGH	1024
#define POOLS_DIR	"/etc/shmk/pools.d"

enum level { FINE, NOTE, PROBLEM };

struct doctor {
	const char *root;	/* before each path, to try it out */
	struct json *json;	/* NULL: text */
	bool quiet;		/* only what is not fine */
	unsigned int problems;
};

static void found(struct doctor *d, enum level level, const char *check, const char *fix,
		  const char *fmt, ...) __attribute__((format(printf, 5, 6)));

static void found(struct doctor *d, enum level level, const char *check, const char *fix,
		  const char *fmt, ...)
{
	static const char *const names[] = { "ok", "note", "problem" };
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->problems += level == PROBLEM;
	if (d->quiet && level == FINE)
		return;
	if (!d->json) {
		printf("%-8s %-10s %s\n", names[level], check, text);
		if (fix)
			printf("%-8s %-10s   fix: %s\n", "", "", fix);
		return;
	}
	json_open(d->json, NULL, '{');
	json_string(d->json, "check", check);
	json_string(d->json, "level", names[level]);
	json_string(d->json, "text", text);
	if (fix)
		json_string(d->json, "fix", fix);
	else
		json_null(d->json, "fix");
	json_close(d->json, '}');
}

/* -------------------------------------------------------------- reading -- */

static const char *path_of(const struct doctor *d, const char *path)
{
	static char text[4096];

	snprintf(text, sizeof(text), "%s%s", d->root, path);
	return text;
}

static bool there(const struct doctor *d, const char *path)
{
	return !access(path_of(d, path), F_OK);
}

/* The first line, without its end. */
static bool read_line(const struct doctor *d, const char *path, char *line, size_t len)
{
	FILE *f = fopen(path_of(d, path), "re");
	bool ok = f && fgets(line, (int)len, f);

	if (f)
		fclose(f);
	if (ok)
		line[strcspn(line, "\n")] = '\0';
	return ok;
}

static const char *user_name(void)
{
	const struct passwd *p = getpwuid(geteuid());

	return p ? p->pw_name : "USER";
}

/* --------------------------------------------------------------- checks -- */

static void check_kernel(struct doctor *d)
{
	unsigned int major = 0, minor = 0;
	struct utsname u;

	uname(&u);
	sscanf(u.release, "%u.%u", &major, &minor);
	if (major > 6 || (major == 6 && minor >= 1))
		found(d, FINE, "kernel", NULL, "Linux %s", u.release);
	else
		found(d, PROBLEM, "kernel", "use pools called local:NAME, or a newer kernel",
		      "the module needs Linux 6.1, this is %s", u.release);
}

static void check_versions(struct doctor *d)
{
	char line[64];

	if (strcmp(SHMK_VERSION, shmk_version()))
		found(d, PROBLEM, "library", "make && sudo make install",
		      "this command is %s, its library %s", SHMK_VERSION, shmk_version());
	else
		found(d, FINE, "library", NULL, "shmk %s, libshmk %s", SHMK_VERSION,
		      shmk_version());
	if (!read_line(d, "/sys/kernel/shmk/version", line, sizeof(line)))
		return;
	if (strtoul(line, NULL, 10) != SHMK_ABI_VERSION)
		found(d, PROBLEM, "interface", "sudo rmmod shmk && sudo modprobe shmk",
		      "the module speaks version %s, this command %d: one of them is old", line,
		      SHMK_ABI_VERSION);
	else if (read_line(d, "/sys/module/shmk/version", line, sizeof(line)) &&
		 strcmp(line, SHMK_VERSION))
		found(d, NOTE, "interface", "sudo rmmod shmk && sudo modprobe shmk",
		      "the module is %s, this command %s; they understand each other", line,
		      SHMK_VERSION);
	else
		found(d, FINE, "interface", NULL, "version %d", SHMK_ABI_VERSION);
}

static bool module_installed(const struct doctor *d)
{
	char path[256], line[512];
	struct utsname u;
	bool yes = false;
	FILE *f;

	uname(&u);
	snprintf(path, sizeof(path), "/lib/modules/%s/modules.dep", u.release);
	f = fopen(path_of(d, path), "re");
	while (f && !yes && fgets(line, sizeof(line), f))
		yes = strstr(line, "/shmk.ko");
	if (f)
		fclose(f);
	return yes;
}

/* Returns whether it is loaded. */
static bool check_module(struct doctor *d)
{
	char line[64] = "?";

	if (there(d, "/sys/module/shmk")) {
		read_line(d, "/sys/module/shmk/version", line, sizeof(line));
		found(d, FINE, "module", NULL, "loaded, version %s", line);
		return true;
	}
	if (module_installed(d))
		found(d, PROBLEM, "module", "sudo modprobe shmk",
		      "not loaded: there are only pools called local:NAME");
	else
		found(d, PROBLEM, "module", "make && sudo make modules_install && sudo depmod && sudo modprobe shmk",
		      "not installed for this kernel: there are only pools called local:NAME");
	return false;
}

static void check_device(struct doctor *d)
{
	char fix[160];
	struct stat st;

	if (stat(path_of(d, SHMK_DEVICE), &st)) {
		found(d, PROBLEM, "device", "sudo udevadm trigger --name-match=shmk; in a container: give it " SHMK_DEVICE,
		      "the module is loaded, but there is no " SHMK_DEVICE);
		return;
	}
	if (access(path_of(d, SHMK_DEVICE), R_OK | W_OK)) {
		const struct group *g = getgrgid(st.st_gid);
		bool by_group = g && st.st_gid && (st.st_mode & 0060) == 0060;

		if (by_group)
			snprintf(fix, sizeof(fix), "sudo usermod -aG %s %s, and log in again", g->gr_name,
				 user_name());
		else
			snprintf(fix, sizeof(fix), "sudo chgrp shmk " SHMK_DEVICE
				 " && sudo chmod 660 " SHMK_DEVICE " (the udev rule does)");
		found(d, PROBLEM, "device", fix, "%s may not use " SHMK_DEVICE " (mode %04o, group %s)",
		      user_name(), st.st_mode & 07777, g ? g->gr_name : "?");
	} else if (!(st.st_mode & 0066)) {
		found(d, NOTE, "device", "sudo chgrp shmk " SHMK_DEVICE " && sudo chmod 660 " SHMK_DEVICE
		      " (the udev rule does)", "only root may use " SHMK_DEVICE " (mode %04o)",
		      st.st_mode & 07777);
	} else {
		found(d, FINE, "device", NULL, SHMK_DEVICE " has mode %04o", st.st_mode & 07777);
	}
}

static bool in_group(gid_t gid)
{
	gid_t list[1024];
	int n = getgroups(1024, list);

	for (int i = 0; i < n; i++)
		if (list[i] == gid)
			return true;
	return getegid() == gid;
}

static void check_group(struct doctor *d)
{
	const struct group *g = getgrnam("shmk");
	char fix[128];

	if (!g) {
		found(d, NOTE, "group", "sudo systemd-sysusers (after make install), or sudo groupadd -r shmk",
		      "there is no group shmk to give " SHMK_DEVICE " to");
	} else if (!geteuid() || in_group(g->gr_gid)) {
		found(d, FINE, "group", NULL, "%s may do what group shmk may", user_name());
	} else {
		snprintf(fix, sizeof(fix), "sudo usermod -aG shmk %s, and log in again", user_name());
		found(d, NOTE, "group", fix, "%s is not in group shmk", user_name());
	}
}

static void check_limits(struct doctor *d)
{
	struct rlimit lock, files;

	getrlimit(RLIMIT_MEMLOCK, &lock);
	getrlimit(RLIMIT_NOFILE, &files);
	if (lock.rlim_cur == RLIM_INFINITY || !geteuid())
		found(d, FINE, "memlock", NULL, "no limit for pools of the module");
	else if (lock.rlim_cur < MEMLOCK_ENOUGH)
		found(d, NOTE, "memlock", "ulimit -l unlimited, or a line '@shmk - memlock unlimited' in /etc/security/limits.d/shmk.conf",
		      "pools of the module that %s makes may have %s in all", user_name(),
		      human(lock.rlim_cur));
	else
		found(d, FINE, "memlock", NULL, "%s for pools of the module", human(lock.rlim_cur));
	if (files.rlim_cur < FILES_ENOUGH)
		found(d, NOTE, "files", "ulimit -n 4096", "a process may have %" PRIu64 " files open",
		      (uint64_t)files.rlim_cur);
	else
		found(d, FINE, "files", NULL, "%" PRIu64 " for each process", (uint64_t)files.rlim_cur);
}

static void check_parameters(struct doctor *d)
{
	char text[400] = "", line[64], path[400];
	struct dirent **list;
	size_t n = 0;
	int i, nr = scandir(path_of(d, "/sys/module/shmk/parameters"), &list, NULL, alphasort);

	for (i = 0; i < nr; i++) {
		snprintf(path, sizeof(path), "/sys/module/shmk/parameters/%s", list[i]->d_name);
		if (list[i]->d_name[0] != '.' && n < sizeof(text) &&
		    read_line(d, path, line, sizeof(line)))
			n += snprintf(text + n, sizeof(text) - n, "%s%s=%s", n ? " " : "",
				      list[i]->d_name, line);
		free(list[i]);
	}
	if (nr >= 0)
		free(list);
	if (n)
		found(d, FINE, "parameters", NULL, "%s", text);
}

static void check_uring(struct doctor *d)
{
	struct io_uring_params p = { };
	char line[64] = "0";
	int fd, err;

	read_line(d, "/proc/sys/kernel/io_uring_disabled", line, sizeof(line));
	if (*line == '2' || (*line == '1' && geteuid())) {
		found(d, NOTE, "io_uring", "sudo sysctl kernel.io_uring_disabled=0",
		      "switched off (kernel.io_uring_disabled=%s): waits sleep in poll", line);
		return;
	}
	fd = (int)syscall(SYS_io_uring_setup, 1, &p);
	err = errno;
	if (fd >= 0) {
		close(fd);
		found(d, FINE, "io_uring", NULL, "allowed");
	} else {
		found(d, NOTE, "io_uring", "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile",
		      "not allowed here (%s): waits sleep in poll", strerror(err));
	}
}

/* Pools with --page 2M take whole blocks of 2 MiB that are free right now. */
static void check_huge(struct doctor *d)
{
	FILE *f = fopen(path_of(d, "/proc/buddyinfo"), "re");
	uint64_t bytes = 0;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		char *at = strstr(line, "zone"), *save = NULL, *word;
		unsigned int order = 0;

		if (!at || !strtok_r(at + 4, " \n", &save))
			continue;
		while ((word = strtok_r(NULL, " \n", &save)) && order < 32) {
			if (order >= 9)
				bytes += strtoull(word, NULL, 10) << (12 + order);
			order++;
		}
	}
	if (f)
		fclose(f);
	else
		return;
	if (bytes < 64ULL << 20)
		found(d, NOTE, "hugepages", "echo 1 | sudo tee /proc/sys/vm/compact_memory; better: 'shmk pool load' early at boot",
		      "%s are free in whole pieces for pools with --page 2M", human(bytes));
	else
		found(d, FINE, "hugepages", NULL, "%s are free in whole pieces for pools with --page 2M",
		      human(bytes));
}

static void check_shm(struct doctor *d)
{
	const char *dir = getenv("SHMK_LOCAL_DIR") ? getenv("SHMK_LOCAL_DIR") : path_of(d, "/dev/shm");
	struct statvfs st;

	if (access(dir, W_OK | X_OK) || statvfs(dir, &st))
		found(d, PROBLEM, "shm", "sudo mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
		      "%s may not write to %s: no pools called local:NAME", user_name(), dir);
	else if ((uint64_t)st.f_bavail * st.f_frsize < SHM_ENOUGH)
		found(d, NOTE, "shm", "sudo mount -o remount,size=50% /dev/shm; in a container: --shm-size",
		      "%s are free in %s for pools called local:NAME",
		      human((uint64_t)st.f_bavail * st.f_frsize), dir);
	else
		found(d, FINE, "shm", NULL, "%s are free in %s",
		      human((uint64_t)st.f_bavail * st.f_frsize), dir);
}

struct seen {
	unsigned int left, pools;
	char first[96];
	char names[256][64];
};

static int see(const struct shmk_pool_stat *st, void *arg)
{
	struct seen *s = arg;

	if (s->pools < 256)
		strcpy(s->names[s->pools++], st->name);
	if (strcmp(st->backend, "local") || st->peers_now || st->flags & SHMK_POOL_PERSIST)
		return 0;
	if (!s->left++)
		snprintf(s->first, sizeof(s->first), "local:%s", st->name);
	return 0;
}

static void check_leftovers(struct doctor *d, const struct seen *s)
{
	if (s->left)
		found(d, PROBLEM, "leftovers", "shmk cleanup", "%u pool%s that no living process has: %s%s",
		      s->left, s->left == 1 ? "" : "s", s->first, s->left > 1 ? ", ..." : "");
	else
		found(d, FINE, "leftovers", NULL, "none");
}

/* Stopped by a signal or a debugger: it is no death, and who waits for it waits. */
static bool is_stopped(pid_t pid)
{
	char path[64], line[512] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	end = strrchr(line, ')');	/* behind its name, which is whatever it likes */
	return end && end[1] && (end[2] == 'T' || end[2] == 't');
}

static void check_peer(struct doctor *d, const char *uri, const struct shmk_peer *p, bool draining)
{
	char fix[160];

	if (p->dead) {
		snprintf(fix, sizeof(fix), "who attaches next gives it back; or 'shmk pool rm %s'", uri);
		found(d, NOTE, "members", fix, "peer %u of %s (pid %d, %s) died, and nobody is left to give back what it had",
		      p->id, uri, p->pid, comm_text(p->comm));
	} else if (p->pid && is_stopped(p->pid)) {
		snprintf(fix, sizeof(fix), "kill -CONT %d, or kill -KILL %d: what it has comes back", p->pid,
			 p->pid);
		found(d, NOTE, "members", fix, "pid %d (%s), peer %u of %s, is stopped", p->pid,
		      comm_text(p->comm), p->id, uri);
	} else if (draining && p->pid) {
		snprintf(fix, sizeof(fix), "kill %d", p->pid);
		found(d, NOTE, "members", fix, "pid %d (%s) still has %s, which drains", p->pid,
		      comm_text(p->comm), uri);
	}
}

/* Looks into each pool that it may read. */
static int check_members(const struct shmk_pool_stat *st, void *arg)
{
	struct shmk_attach_opts opts = { .flags = SHMK_ATTACH_RDONLY };
	struct shmk_peer p;
	char uri[96];
	struct shmk *s;

	snprintf(uri, sizeof(uri), "%s:%s", st->backend, st->name);
	if (!st->name[0] || shmk_attach(uri, &opts, &s))
		return 0;
	for (uint32_t id = 0; !shmk_peer_next(s, id, &p); id = p.id + 1)
		if (p.id != shmk_self(s))
			check_peer(arg, uri, &p, st->flags & SHMK_POOL_DRAINING);
	shmk_detach(s);
	return 0;
}

/* What is to be made at boot, and is not there. */
static void check_configured(struct doctor *d, const struct seen *s)
{
	DIR *dir = opendir(path_of(d, POOLS_DIR));
	unsigned int missing = 0, i;
	char first[64] = "";
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		char *end = strrchr(e->d_name, '.');

		if (!end || strcmp(end, ".conf") || e->d_name[0] == '.')
			continue;
		*end = '\0';
		for (i = 0; i < s->pools && strcmp(s->names[i], e->d_name); i++)
			;
		if (i == s->pools && !missing++)
			snprintf(first, sizeof(first), "%.63s", e->d_name);
	}
	if (dir)
		closedir(dir);
	if (missing)
		found(d, PROBLEM, "configured", "sudo systemctl enable --now shmk-pools, or sudo shmk pool load",
		      "%u pool%s of " POOLS_DIR " not there: %s%s", missing, missing == 1 ? " is" : "s are",
		      first, missing > 1 ? ", ..." : "");
	else if (dir)
		found(d, FINE, "configured", NULL, "all pools of " POOLS_DIR " are there");
}

static void check_all(struct doctor *d)
{
	static struct seen seen;

	shmk_pool_list(NULL, see, &seen);
	check_kernel(d);
	check_versions(d);
	if (check_module(d))
		check_device(d);
	check_group(d);
	check_limits(d);
	check_parameters(d);
	check_uring(d);
	check_huge(d);
	check_shm(d);
	check_leftovers(d, &seen);
	shmk_pool_list(NULL, check_members, d);
	check_configured(d, &seen);
}

int cmd_doctor(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "quiet", no_argument, NULL, 'q' },
		{ "root", required_argument, NULL, 'R' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	struct json json = { .f = stdout };
	struct doctor d = { .root = "" };
	int opt, status;

	while ((opt = next_option(argc, argv, "hjq", longs)) != -1) {
		if (opt == 'j')
			d.json = &json;
		else if (opt == 'q')
			d.quiet = true;
		else if (opt == 'R')
			d.root = optarg;
	}
	if (optind < argc)
		return bad_usage(argv[0], "'%s' is one argument too many", argv[optind]);
	if (d.json) {
		json_open(d.json, NULL, '{');
		json_open(d.json, "findings", '[');
	}
	check_all(&d);
	if (d.json) {
		json_close(d.json, ']');
		json_u64(d.json, "problems", d.problems);
		json_close(d.json, '}');
	}
	status = finish_stdout();
	return status ? status : d.problems ? EXIT_FAILED : EXIT_OK;
}
