// SPDX-License-Identifier: GPL-2.0-only
/*
 * json.c - enough JSON to print what there is.
 *
 * Names in a pool are [A-Za-z0-9._-], but comm is any bytes a process likes:
 * whatever is not ASCII is written as U+00xx, so the output is valid whatever
 * the encoding was.
 */
#include <inttypes.h>
#include <string.h>

#include "tool.h"

static void newline(struct json *j)
{
	if (j->compact) {
		if (j->comma)
			fputc(' ', j->f);
		return;
	}
	if (!j->depth && !j->comma)
		return;
	fprintf(j->f, "\n%*s", 2 * j->depth, "");
}

static void quoted(struct json *j, const char *s)
{
	fputc('"', j->f);
	for (; *s; s++) {
		unsigned char c = *s;

		if (c == '"' || c == '\\')
			fprintf(j->f, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(j->f, "\\u%04x", c);
		else
			fputc(c, j->f);
	}
	fputc('"', j->f);
}

static void key_of(struct json *j, const char *key)
{
	if (j->comma)
		fputc(',', j->f);
	newline(j);
	j->comma = true;
	if (!key)
		return;
	quoted(j, key);
	fputs(": ", j->f);
}

void json_open(struct json *j, const char *key, char bracket)
{
	key_of(j, key);
	fputc(bracket, j->f);
	j->depth++;
	j->comma = false;
}

void json_close(struct json *j, char bracket)
{
	bool any = j->comma;

	j->depth--;
	j->comma = true;
	if (any && !j->compact)
		newline(j);
	fputc(bracket, j->f);
	if (!j->depth) {
		fputc('\n', j->f);
		j->comma = false;
	}
}

void json_string(struct json *j, const char *key, const char *value)
{
	key_of(j, key);
	quoted(j, value);
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
	key_of(j, key);
	fprintf(j->f, "%" PRIu64, value);
}

void json_i64(struct json *j, const char *key, int64_t value)
{
	key_of(j, key);
	fprintf(j->f, "%" PRId64, value);
}

void json_bool(struct json *j, const char *key, bool value)
{
	key_of(j, key);
	fputs(value ? "true" : "false", j->f);
}

void json_null(struct json *j, const char *key)
{
	key_of(j, key);
	fputs("null", j->f);
}

void json_octal(struct json *j, const char *key, uint32_t mode)
{
	char text[16];

	snprintf(text, sizeof(text), "%04o", mode);
	json_string(j, key, text);
}
