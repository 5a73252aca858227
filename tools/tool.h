/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tool.h - what the subcommands of shmk share.
 *
 * Every command is an int cmd_<verb>(int argc, char **argv), argv[0] being the
 * verb, and returns an exit status. What goes wrong is told once, in one
 * sentence, by the function that found out; it returns the exit status.
 */
#ifndef SHMK_TOOL_H
#define SHMK_TOOL_H

#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <shmk.h>

/* Part of the interface, see shmk(1): never renumber. */
enum {
	EXIT_OK		= 0,
	EXIT_FAILED	= 1,	/* the operation failed, or data is missing */
	EXIT_USAGE	= 2,
	EXIT_NOENT	= 3,	/* no such pool or queue */
	EXIT_BUSY	= 4,	/* in use, or the name is taken */
	EXIT_PERM	= 5,
	EXIT_NOSPACE	= 6,	/* memory, disk, ids or a limit */
	EXIT_TIMEOUT	= 7,
	EXIT_CRASHED	= 8,	/* wait: it is over, but somebody died */
};

int cmd_bench(int argc, char **argv);
int cmd_call(int argc, char **argv);
int cmd_chaos(int argc, char **argv);
int cmd_cleanup(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_forward(int argc, char **argv);
int cmd_fsck(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_monitor(int argc, char **argv);
int cmd_pool(int argc, char **argv);
int cmd_pub(int argc, char **argv);
int cmd_queue(int argc, char **argv);
int cmd_recv(int argc, char **argv);
int cmd_reset(int argc, char **argv);
int cmd_send(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_sub(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_wait(int argc, char **argv);

/* ----------------------------------------------------------- messages -- */

/* "shmk: <sentence>" on stderr; clears a progress line first. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same, returning EXIT_USAGE and pointing at the verb's help. */
int bad_usage(const char *verb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same, with what @err (a negative errno) means; returns the exit status for it. */
int fail(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int exit_status(int err);

/* ------------------------------------------------------------ options -- */

bool parse_size(const char *text, uint64_t *bytes);	/* 4096, 64K, 1G, 16MiB */
bool parse_number(const char *text, uint64_t max, uint64_t *n);
bool parse_mode(const char *text, uint32_t *mode);
bool parse_ms(const char *text, int64_t *ms);		/* 1500, 1500ms, 1.5s, 2m */

/*
 * getopt_long() with what every verb has: --help prints the verb's usage and
 * exits, an unknown option is EXIT_USAGE. A verb's table of options ends with
 * { "help", no_argument, NULL, 'h' } and an empty one.
 */
int next_option(int argc, char **argv, const char *shorts, const struct option *longs);
/* Tell the verb's usage (see shmk.c) to @to. */
void usage(const char *verb, FILE *to);

/*
 * struct target - what to attach to, and what to make if it is not there
 *
 * Filled by target_option() (the options that TARGET_OPTIONS lists) and
 * target_parse() ("POOL/QUEUE", or "QUEUE" after --pool).
 */
struct target {
	char pool[128];			/* a URI */
	char queue[64];			/* "": none */
	bool create;
	bool wait;
	uint64_t size;
	uint64_t capacity;
	uint32_t page_bytes;
	uint32_t mode;
	int64_t timeout_ms;		/* -1: none */
};

#define TARGET_INIT	{ .timeout_ms = -1 }
#define TARGET_POOL_OPTION \
	{ "pool", required_argument, NULL, 'P' }
#define TARGET_OPTIONS \
	TARGET_POOL_OPTION, \
	{ "create", no_argument, NULL, 'c' }, \
	{ "wait", no_argument, NULL, 'w' }, \
	{ "size", required_argument, NULL, 's' }, \
	{ "page", required_argument, NULL, 'p' }, \
	{ "mode", required_argument, NULL, 'm' }, \
	{ "capacity", required_argument, NULL, 'C' }, \
	{ "timeout", required_argument, NULL, 't' }

/* 1: taken; 0: not one of mine; -1: bad value, told. */
int target_option(struct target *t, const char *verb, int opt, const char *arg);
/* @what: "POOL" or "POOL/QUEUE"; returns an exit status. */
int target_parse_pool(struct target *t, const char *verb, int argc, char **argv);
int target_parse_queue(struct target *t, const char *verb, const char *text);

/* ---------------------------------------------------------- attaching -- */

/*
 * Each returns an exit status, having told what is wrong. The attachment is
 * remembered: SIGINT, SIGTERM and SIGHUP interrupt its blocking calls and set
 * stop_signal, so that a command that is stopped by hand detaches instead of
 * counting as one more death.
 */
int target_attach(struct target *t, uint32_t flags, struct shmk **out);
int target_open(struct target *t, struct shmk *s, const char *queue, uint32_t block,
		struct shmk_queue **out);
void tool_detach(struct shmk *s);

extern volatile sig_atomic_t stop_signal;
void catch_signals(void);

/*
 * Tells that a pool cannot be had while somebody has it, and who that is. @what: "removed",
 * ... @hint: what to do about it; NULL: look. Returns EXIT_BUSY.
 */
int say_busy(const char *uri, const char *what, const char *hint);

/* Tells that there is none, or not even a module. Returns EXIT_NOENT. */
int say_no_pool(const char *uri);

/* Tells why something cannot be done with a whole pool: "remove", "removed". Returns an exit status. */
int pool_failed(const char *uri, int err, const char *verb, const char *done);

/* Living full members of the pool but this one: who could still send something. */
unsigned int other_members(struct shmk *s);

/* ------------------------------------------------------------- looking -- */

/*
 * What 'shmk dump --all' prints below its first line, of one peer (0: all) or of one queue
 * (SHMK_HOLDING_NOWHERE: all). 0 or -errno.
 */
int dump_text(struct shmk *s, FILE *to, uint32_t peer, uint32_t queue);
/* Drops what is in the queue; how many, or -errno. */
int64_t reset_queue(const char *pool, const char *queue);
/* @t->queue if it is set, else the pool; tells what came of it. Returns an exit status. */
int reset_target(const struct target *t, bool force, bool json);

/* ------------------------------------------------------------- output -- */

int64_t now_ns(void);
/* "12.5 MiB" in one of a few static buffers. */
const char *human(uint64_t bytes);
const char *human_ns(uint64_t ns);
/* comm is any bytes a process likes; a terminal must not obey them. In a static buffer. */
const char *comm_text(const char comm[16]);
const char *event_name(uint32_t type);
const char *reason_name(uint32_t reason);
/* "killed by signal 9 (Killed)", "exited with status 1", ... in a static buffer. */
const char *reason_text(uint32_t reason, int32_t code);
/* Close stdout and see what became of the last write; returns an exit status. */
int finish_stdout(void);

struct json {
	FILE *f;
	int depth;
	bool comma;
	bool compact;			/* all on one line */
};

/* @key is NULL inside of a list and for the outermost value. */
void json_open(struct json *j, const char *key, char bracket);
void json_close(struct json *j, char bracket);
void json_string(struct json *j, const char *key, const char *value);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_i64(struct json *j, const char *key, int64_t value);
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);
void json_comm(struct json *j, const char comm[16]);
void json_octal(struct json *j, const char *key, uint32_t mode);
void json_pool(struct json *j, const struct shmk_pool_stat *st);
void json_space(struct json *j, const struct shmk_pool_space *space);
int print_pools(const char *scheme, bool json);

/* Progress on a terminal; silent elsewhere. */
struct progress {
	const char *what;
	uint64_t done;
	uint64_t total;			/* 0: unknown */
	int64_t start_ns;
	int64_t shown_ns;
	bool on;
};

void progress_start(struct progress *p, const char *what, uint64_t total, bool quiet);
void progress_show(struct progress *p);
void progress_end(struct progress *p);

#endif
