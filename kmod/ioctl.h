/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef SHMK_IOCTL_H
#define SHMK_IOCTL_H

struct file;
struct io_uring_cmd;

long shmk_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long shmk_pool_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
long shmk_attachment_ioctl(struct file *file, unsigned int cmd, unsigned long arg);
int shmk_attachment_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags);

#endif
