// SPDX-License-Identifier: GPL-2.0-only
/*
 * shmk - look at pools, make them, and pass data through them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/shmk.h>

#include "tool.h"

static int cmd_help(int argc, char **argv);
static int cmd_version(int argc, char **argv);

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *brief;
	const char *usage;	/* synopsis line, then options */
} commands[] = {
	{ "pool", cmd_pool, "make, remove and list pools",
	  "pool create POOL --size SIZE [OPTION...] | pool load [--dir DIR | FILE...] |\n"
	  "       shmk pool rm POOL... | pool ls [--json]\n"
	  "  -s, --size SIZE    payload bytes, a multiple of 64K (of 2M with --page 2M)\n"
	  "  -p, --page 4K|2M   page size (2M: module only)\n"
	  "      --node N       NUMA node (module only)\n"
	  "  -m, --mode MODE    permission bits, default 0600\n"
	  "      --uid USER, --gid GROUP  owner, by name or number\n"
	  "      --unit SIZE    grain of blocks, 256 .. 64K\n"
	  "      --peers N, --queues N  most there may be, default 1024\n"
	  "      --rings SIZE   room for all queues\n"
	  "      --persist      stays until 'pool rm' (the default)\n"
	  "      --hold         stays while this command runs, and its peers\n"
	  "      --exist-ok     a pool that is there already, of this size, is fine\n"
	  "  load: one pool for each NAME.conf in /etc/shmk/pools.d (--dir: elsewhere), with\n"
	  "  the options that take a value as lines: 'size 1G', 'page 2M', 'gid shmk'\n" },
	{ "queue", cmd_queue, "make, remove, empty and list queues",
	  "queue create POOL/QUEUE [OPTION...] | queue rm POOL/QUEUE... |\n"
	  "       shmk queue reset POOL/QUEUE... | queue ls POOL [--json] |\n"
	  "       shmk queue drain POOL/QUEUE... [--wait] [--timeout TIME]\n"
	  "  -C, --capacity N   messages, a power of two, default 64\n"
	  "      --slot 64|128|256  bytes of a slot\n"
	  "      --one-sender, --one-receiver  one at a time, faster\n"
	  "      --redeliver    what a dead receiver had not acknowledged goes to another\n"
	  "      --tries N      with --redeliver: but N times at most\n" },
	{ "ls", cmd_ls, "list the pools of both backends",
	  "ls [--json] [shmk: | local:]\n" },
	{ "show", cmd_show, "a pool with its peers and queues",
	  "show POOL [--json]\n" },
	{ "dump", cmd_dump, "who holds which block, and what waits in which queue",
	  "dump POOL [--json]\n"
	  "      --peer ID      only what this peer has\n"
	  "      --queue NAME   only what is in this queue, goes there or came from there\n"
	  "  -a, --all          also the memory that peers allocate from\n"
	  "      --capsule      what the last who died were doing just then (module only)\n" },
	{ "send", cmd_send, "send files or standard input through a queue",
	  "send POOL/QUEUE [FILE...]\n"
	  "  -c, --create       make the pool and the queue if they are not there\n"
	  "  -s, --size SIZE    of a new pool, default 16M; also --page, --mode\n"
	  "  -C, --capacity N   of a new queue\n"
	  "  -w, --wait         wait for pool and queue to appear\n"
	  "  -b, --block SIZE   of a message; default by the pool's size, at most 256K\n"
	  "  -a, --ack          wait until it has arrived; send again what was lost\n"
	  "  -t, --timeout TIME give up when nothing moves for so long\n"
	  "      --raw          messages without header, for other programs\n"
	  "  -q, --quiet        no progress; -v, --verbose: a line at the end\n" },
	{ "recv", cmd_recv, "receive what 'send' sends",
	  "recv POOL/QUEUE [-o FILE | --dir DIR]\n"
	  "  -o, --output FILE  default: standard output\n"
	  "  -d, --dir DIR      each file under its own name\n"
	  "      --shared       one of several readers of the same files; senders use --ack\n"
	  "  -n, --senders N    end after so many 'send' commands, default 1\n"
	  "      --follow       do not end\n"
	  "      --raw          messages of any program, one after the other\n"
	  "      --count N      with --raw: end after so many messages\n"
	  "      --window SIZE  memory for what arrives too early, default 256M\n"
	  "      --patience TIME  wait so long for what is missing, default 5s\n"
	  "  -c, --create; -s, --size; -C, --capacity; -w, --wait; -t, --timeout;\n"
	  "  -q, --quiet; -v, --verbose: as for 'send'\n" },
	{ "forward", cmd_forward, "pass messages from one queue to another, without a copy",
	  "forward POOL/FROM TO\n"
	  "      --check        look at the checksum of each message, drop damaged ones\n"
	  "      --delay TIME   work so long on each message (to try things out)\n"
	  "      --hold N       keep the last N messages in hand (to try things out)\n"
	  "      --count N      end after so many messages\n"
	  "  -c, --create; -s, --size; -C, --capacity; -w, --wait; -t, --timeout;\n"
	  "  -v, --verbose: as for 'send'. SIGINT and SIGTERM end it in good order\n" },
	{ "pub", cmd_pub, "publish lines on a topic",
	  "pub POOL/TOPIC [TEXT...]\n"
	  "  each TEXT is one message, without any each line of standard input\n"
	  "      --every TIME   rest so long after each\n"
	  "      --depth N      messages that a new topic keeps, default 1\n"
	  "      --readers N    most readers of a new topic, default 16\n"
	  "      --max SIZE     largest message of a new topic, default 1024\n"
	  "  -c, --create; -s, --size: as for 'send'\n"
	  "  -w, --wait         until the topic is there, and its writer has left\n"
	  "  -t, --timeout TIME but so long at most, also for readers with --block\n" },
	{ "sub", cmd_sub, "print what is published on a topic",
	  "sub POOL/TOPIC\n"
	  "  -n, --count N      end after so many messages\n"
	  "      --last         the last one first, --oldest: all that are kept\n"
	  "      --block        the writer waits for this reader\n"
	  "  -t, --timeout TIME end when nothing comes for so long; with --count status 7\n"
	  "  -v, --verbose      number, writer and what was missed before each\n"
	  "  -c, --create; --depth, --readers, --max; -s, --size; -w, --wait: as for 'pub'\n" },
	{ "call", cmd_call, "ask a server, and print its answer",
	  "call POOL/QUEUE [TEXT...]\n"
	  "  each TEXT is one request, without any all of standard input is\n"
	  "      --retry N      when the server dies ask another one, N times at most\n"
	  "  -t, --timeout TIME for an answer\n"
	  "  -c, --create; --tries: as for 'serve'; -s, --size; -C, --capacity; -w, --wait\n" },
	{ "serve", cmd_serve, "answer each request with what a command prints",
	  "serve POOL/QUEUE [OPTION...] -- COMMAND [ARGUMENT...]\n"
	  "  the request is the command's standard input, its standard output the answer\n"
	  "      --tries N      of a new queue: so many servers may die with a request before\n"
	  "                     the caller is told; default 1; 0: any number\n"
	  "  -n, --count N      end after so many requests\n"
	  "  -t, --timeout TIME end when nothing comes for so long; with --count status 7\n"
	  "  -v, --verbose      a line for each request\n"
	  "  -c, --create       make the queue; -s, --size; -C, --capacity; -w, --wait\n" },
	{ "wait", cmd_wait, "wait for peers to attach or to leave, or for the close of a pool",
	  "wait POOL --until-closed | --peer ID | --peers N | --at-most N\n"
	  "      --until-closed the pool is removed, or its last member has left; status 0 if all\n"
	  "                     who left did so in order, 8 if one died\n"
	  "      --peer ID      this member has left; likewise\n"
	  "      --peers N, --at-most N  so many members are there\n"
	  "      --json         tell what came\n"
	  "  -t, --timeout TIME give up after so long\n"
	  "  -w, --wait         wait for the pool to appear, too; before the close, for a member\n" },
	{ "top", cmd_top, "pools, peers, queues and rates, on a terminal",
	  "top [POOL]\n"
	  "  Keys: Enter into a pool, a peer's ledger or a queue; Backspace back; s sort, o order;\n"
	  "  x reset a queue; h help; q quit\n"
	  "  -b, --batch        print it, for a pipe\n"
	  "  -n, --count N      with --batch: so many times, default for ever\n"
	  "  -d, --delay TIME   between two looks, default 2s\n" },
	{ "events", cmd_events, "tell who comes, leaves and dies",
	  "events POOL [--json]\n"
	  "      --count N      end after so many events\n"
	  "      --type TYPE    only these: attached, detached, died, ... (may be repeated)\n"
	  "  -t, --timeout TIME end after so long, with status 7 if --count was not reached\n"
	  "  -w, --wait         wait for the pool to appear\n" },
	{ "monitor", cmd_monitor, "tell what happens in all pools",
	  "monitor shmk: | local: | POOL [--json]\n"
	  "  nothing has to run for pools to be in order; on local it removes what the dead left\n"
	  "      --existing     first the pools that are there\n"
	  "      --keep         remove nothing\n"
	  "      --count N      end after so many events\n"
	  "  -t, --timeout TIME end after so long, with status 7 if --count was not reached\n"
	  "  POOL need not be there; it goes on with the next one of that name\n" },
	{ "chaos", cmd_chaos, "processes that are killed and started again while values flow",
	  "chaos N [POOL]\n"
	  "  N processes; each publishes on a topic of its own and reads all others. Keys 0-9\n"
	  "  a-z kill one or start it again; ESC ends. Status 1 if a value was torn, went\n"
	  "  back or stood still\n"
	  "      --script TEXT  'wait 200ms; kill 3; start 3; stop 2; cont 2; kill all'\n"
	  "                     instead of keys; without a terminal such lines are read\n"
	  "      --pace TIME    between two values of a process, default 5ms\n"
	  "      --patience TIME  a living value may stand still so long, default 5s\n"
	  "  -s, --size SIZE    of the pool, default 16M\n" },
	{ "fsck", cmd_fsck, "check every invariant of a pool",
	  "fsck POOL [--json]\n" },
	{ "cleanup", cmd_cleanup, "remove what no living process holds",
	  "cleanup [POOL... | local: | shmk:] [--json]\n"
	  "  without POOL: all of the local backend that nobody has and nobody wanted to stay\n"
	  "      --persistent   also those that were to stay; a POOL that is named goes anyway\n" },
	{ "reset", cmd_reset, "drop what is in a queue, or all that is in a pool",
	  "reset POOL | POOL/QUEUE [--json]\n"
	  "  -f, --force        a pool that is in use: everybody in it wakes with an error\n" },
	{ "export", cmd_export, "counters of all pools for Prometheus",
	  "export [-o FILE]\n"
	  "  -o, --output FILE  replaced in one step, for the textfile collector\n"
	  "      --queues       those of queues, too: attaches to each pool for a moment\n" },
	{ "bench", cmd_bench, "how fast it is here, beside what the machine can do",
	  "bench [OPTION...] [CASE...]\n"
	  "  a CASE is MODE:BYTES (ping, stream, fan4x4; +touch, +sleep, +threads, +one,\n"
	  "  +1000 peers and queues, +16g of pool) or cost:WHAT; without one, all there are\n"
	  "  -r, --rounds N     each so often, medians are printed; default 5\n"
	  "      --pool URI     of the pools that it makes, default local:bench\n"
	  "      --peers DIR    also the programs there, see tools/bench\n"
	  "  -o, --output FILE  every single figure\n"
	  "      --json         the medians as JSON\n" },
	{ "doctor", cmd_doctor, "is this machine fit for shmk, and what to do about it",
	  "doctor [--json]\n"
	  "  status 1: there is a problem; each is told with the command that puts it right\n"
	  "  -q, --quiet        only what is not as it should be\n"
	  "      --root DIR     look at the files below DIR\n" },
	{ "version", cmd_version, "tell the version",
	  "version [--json]\n" },
	{ "help", cmd_help, "tell more about a command",
	  "help [COMMAND]\n" },
};

#define NR_COMMANDS	(sizeof(commands) / sizeof(commands[0]))

static const struct command *find(const char *name)
{
	for (unsigned int i = 0; i < NR_COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static void overview(FILE *to)
{
	fputs("usage: shmk COMMAND [ARGUMENT...]\n\n", to);
	for (unsigned int i = 0; i < NR_COMMANDS; i++)
		fprintf(to, "  %-9s%s\n", commands[i].name, commands[i].brief);
	fputs("\nA pool is shmk:NAME (the module), local:NAME (no module, no root), or NAME: the\n"
	      "module where it is loaded, else local. Start: shmk pool create x --size 64M\n", to);
}

void usage(const char *verb, FILE *to)
{
	const struct command *c = find(verb);

	if (c)
		fprintf(to, "usage: shmk %s", c->usage);
	else
		overview(to);
}

int next_option(int argc, char **argv, const char *shorts, const struct option *longs)
{
	int opt = getopt_long(argc, argv, shorts, longs, NULL);

	if (opt == 'h') {
		usage(argv[0], stdout);
		exit(finish_stdout());
	}
	if (opt == '?' || opt == ':') {
		/* getopt has told what; argv[0] is the verb, which reads "send: ...". */
		fprintf(stderr, "shmk: see 'shmk help %s'\n", argv[0]);
		exit(EXIT_USAGE);
	}
	return opt;
}

static int cmd_version(int argc, char **argv)
{
	struct json j = { .f = stdout };

	if (argc == 2 && !strcmp(argv[1], "--json")) {
		json_open(&j, NULL, '{');
		json_string(&j, "shmk", SHMK_VERSION);
		json_string(&j, "libshmk", shmk_version());
		json_u64(&j, "interface", SHMK_ABI_VERSION);
		json_close(&j, '}');
		return finish_stdout();
	}
	if (argc > 1)
		return bad_usage(argv[0], "version takes no argument but --json");
	printf("shmk %s, libshmk %s\n", SHMK_VERSION, shmk_version());
	return finish_stdout();
}

static int cmd_help(int argc, char **argv)
{
	if (argc > 1 && !find(argv[1])) {
		say("no command '%s': see 'shmk help'", argv[1]);
		return EXIT_USAGE;
	}
	usage(argc > 1 ? argv[1] : "", stdout);
	return finish_stdout();
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	const struct command *c;
	int status;

	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		name = "help";
	if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		name = "version";
	c = find(name);
	if (!c) {
		if (*name)
			say("no command '%s': see 'shmk help'", name);
		else
			overview(stderr);
		return EXIT_USAGE;
	}
	catch_signals();
	status = c->run(argc - 1, argv + 1);
	if (stop_signal && status != EXIT_OK) {
		/* Cleaned up; now be seen to have died of it, as a shell expects. */
		signal(stop_signal, SIG_DFL);
		raise(stop_signal);
	}
	return status;
}
