// SPDX-License-Identifier: GPL-2.0-only
/*
 * spec_test.c - Documentation/netlink/specs/shmk.yaml says what shmk_netlink.h says.
 *
 * Both are read as text, as they were when this was built. Of each attribute: name, number and
 * type; of each command: name and number; each that one has the other has, too.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kselftest.h"

__asm__(".section .rodata\n"
	"header:\n"
	".incbin \"kmod/include/uapi/linux/shmk_netlink.h\"\n"
	".byte 0\n"
	"spec:\n"
	".incbin \"Documentation/netlink/specs/shmk.yaml\"\n"
	".byte 0\n"
	".previous\n");
extern const char header[], spec[];

#define MOST	256

struct item {
	char name[64];		/* as in the header */
	char type[16];		/* "" of commands */
	int value;
	bool met;
};

struct items {
	struct item at[MOST];
	int nr;
};

static struct items declared, specified;

static struct item *add(struct items *all)
{
	if (all->nr == MOST)
		ksft_exit_fail_msg("more than %d items\n", MOST);
	return &all->at[all->nr++];
}

/* A line like "	SHMK_A_POOL_ID		= 2,	/" "* u64 ..."; those of commands have no type. */
static void header_line(const char *line)
{
	char name[64], type[16] = "";
	struct item *i;
	int value;

	if (sscanf(line, " SHMK_%63[A-Z_] = %d , /* %15[a-z0-9]", name, &value, type) < 2)
		return;
	if (strncmp(name, "A_", 2) && strncmp(name, "CMD_", 4))
		return;
	i = add(&declared);
	snprintf(i->name, sizeof(i->name), "SHMK_%.50s", name);
	i->value = value;
	if (!strncmp(name, "A_", 2))
		snprintf(i->type, sizeof(i->type), "%s", type[0] ? type : "pad");
}

static void upper(char *to, size_t room, const char *prefix, const char *name)
{
	snprintf(to, room, "%.30s%.30s", prefix, name);
	for (; *to; to++)
		*to = *to == '-' ? '_' : (char)toupper((unsigned char)*to);
}

/* Names of sets and of groups come without a value, and are forgotten. */
static void spec_line(const char *line)
{
	static char prefix[64], name[64];
	static struct item *last;
	char text[64];
	int value;

	if (sscanf(line, " name-prefix: %63[a-z-]", text) == 1) {
		strcpy(prefix, text);
	} else if (sscanf(line, " name: %63[a-z-]", text) == 1) {
		strcpy(name, text);
		last = NULL;
	} else if (sscanf(line, " value: %d", &value) == 1) {
		last = add(&specified);
		upper(last->name, sizeof(last->name), prefix, name);
		last->value = value;
	} else if (last && sscanf(line, " type: %15[a-z0-9]", text) == 1) {
		strcpy(last->type, text);
	}
}

static void each_line(const char *text, void (*told)(const char *line))
{
	char line[256];
	size_t len;

	for (; *text; text += len + (text[len] != 0)) {
		len = strcspn(text, "\n");
		snprintf(line, sizeof(line), "%.*s", (int)len, text);
		told(line);
	}
}

static bool same(const struct item *a, const struct item *b)
{
	return !strcmp(a->name, b->name) && !strcmp(a->type, b->type) && a->value == b->value;
}

static bool all_in(const struct items *some, const struct items *others, const char *where)
{
	bool all = true;

	for (int i = 0; i < some->nr; i++) {
		int j = 0;

		while (j < others->nr && !same(&some->at[i], &others->at[j]))
			j++;
		if (j < others->nr)
			continue;
		ksft_print_msg("not so in the %s: %s = %d %s\n", where, some->at[i].name,
			       some->at[i].value, some->at[i].type);
		all = false;
	}
	return all;
}

int main(void)
{
	ksft_print_header();
	ksft_set_plan(3);
	each_line(header, header_line);
	each_line(spec, spec_line);
	ksft_print_msg("%d items in the header, %d in the specification\n", declared.nr,
		       specified.nr);
	ksft_test_result(declared.nr > 80, "the header has been read\n");
	ksft_test_result(all_in(&declared, &specified, "specification"),
			 "the specification has all of the header\n");
	ksft_test_result(all_in(&specified, &declared, "header"),
			 "the header has all of the specification\n");
	ksft_finished();
}
