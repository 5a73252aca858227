/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * textfile.h - the small files in which the kernel tells and is told.
 */
#ifndef TEXTFILE_H
#define TEXTFILE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

/* What is there, cut to fit and ended. 0 or -errno. */
static inline int read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);
	int err = n < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return err;
}

/* 0 or -errno. */
static inline int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

static inline bool file_says(const char *path, const char *what)
{
	char buf[512];

	return !read_text(path, buf, sizeof(buf)) && strstr(buf, what);
}

#endif
