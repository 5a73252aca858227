/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * compat.h - one spelling for what differs between kernels.
 *
 * SHMK_HAVE_* come from Kbuild, which looks into the headers: distribution
 * kernels carry backports, so their version says nothing.
 */
#ifndef SHMK_COMPAT_H
#define SHMK_COMPAT_H

#include <linux/mm.h>
#include <net/genetlink.h>
#ifdef SHMK_HAVE_URING_CMD_H
#include <linux/io_uring/cmd.h>
#else
#include <linux/io_uring.h>
#endif

#ifndef SHMK_HAVE_VM_FLAGS_SET
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* Page table entries that name any part of a folio. */
static inline int shmk_folio_mapcount(struct folio *folio)
{
#ifdef SHMK_HAVE_FOLIO_MAPCOUNT
	return folio_mapcount(folio);
#else
	/* Not exported. A mapping of the whole is counted in each of the pages, too. */
	int i, nr = folio_nr_pages(folio), whole, all = 0;

	for (i = 0; i < nr; i++)
		all += atomic_read(&folio_page(folio, i)->_mapcount) + 1;
	if (!folio_test_large(folio))
		return all;
	whole = folio_entire_mapcount(folio);
	return all - whole * (nr - 1);
#endif
}

/* What get_ownership() of a kobj_type is asked about. */
#ifdef SHMK_HAVE_CONST_KOBJECT
#define SHMK_CONST_KOBJECT	const struct kobject
#else
#define SHMK_CONST_KOBJECT	struct kobject
#endif

/* What a dump was asked with, in its start(). */
static inline struct nlattr **shmk_dump_attrs(struct netlink_callback *cb)
{
#ifdef SHMK_HAVE_GENL_INFO_DUMP
	return genl_info_dump(cb)->attrs;
#else
	return genl_dumpit_info(cb)->attrs;
#endif
}

/* The command area of the sqe: user space may still be writing to it. */
static inline const void *shmk_uring_cmd_area(const struct io_uring_cmd *cmd)
{
#ifdef SHMK_HAVE_URING_CMD_SQE
	return cmd->sqe->cmd;
#else
	return cmd->cmd;
#endif
}

#endif
