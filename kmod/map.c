// SPDX-License-Identifier: GPL-2.0-only
/*
 * map.c - attachment files and their mappings.
 *
 * An attachment file has an inode of its own, on a file system that nobody
 * can mount, for two reasons: huge mappings need a mapping that is large and
 * not a device's, and unmap_mapping_range() then takes away exactly what this
 * peer has mapped.
 *
 * Pages come in by faults only. That, and VM_MIXEDMAP or VM_PFNMAP never being
 * set, is what keeps page table entries from being copied by fork; see
 * attachment_open() for the one case in which the kernel copies anyway.
 *
 * Who may write what is decided once, in attachment_mmap(), and cannot be
 * changed by mprotect(): VM_MAYWRITE is cleared where writing is not allowed.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/huge_mm.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mount.h>
#include <linux/nospec.h>
#include <linux/pseudo_fs.h>
#include <linux/seq_file.h>

#include "compat.h"
#include "ioctl.h"
#include "peer.h"
#include "point.h"
#include "pool.h"

#define SHMK_FS_MAGIC	0x73686d6b	/* "shmk" */

/* ------------------------------------------------------------- ranges -- */

/* The part of an mmap offset below its region. */
static u64 below(u64 offset)
{
	return offset & ((1ULL << SHMK_MAP_SHIFT) - 1);
}

static bool fits(u64 at, u64 len, u64 bytes)
{
	return at <= bytes && len <= bytes - at;
}

/*
 * May [offset, offset + len) be mapped, and written? A mapping lies in one
 * region; a writable one of ledgers within the peer's own.
 */
static bool range_valid(const struct shmk_peer *peer, u64 offset, u64 len, bool *writable)
{
	const struct shmk_status *s = peer->pool->status;
	u64 at = below(offset);
	u64 own = peer->id * SHMK_LEDGER_STRIDE;

	*writable = !peer->rdonly;
	switch (offset - at) {
	case SHMK_MAP_STATUS:
		*writable = false;
		return fits(at, len, s->status_bytes);
	case SHMK_MAP_LEDGER:
		*writable = at >= own && fits(at - own, len, peer->ledger_bytes);
		return fits(at, len, (s->nr_peers + 1ULL) * SHMK_LEDGER_STRIDE);
	case SHMK_MAP_CONTROL:
		return fits(at, len, s->control_bytes);
	case SHMK_MAP_DATA:
		return fits(at, len, s->data_bytes);
	}
	return false;
}

/* ------------------------------------------------------------- faults -- */

/* Another's ledger may be growing: the lock keeps its page array. */
static struct page *ledger_page(struct shmk_pool *pool, u64 at)
{
	u32 end = pool->status->nr_peers + 1;
	u64 id = at / SHMK_LEDGER_STRIDE;
	struct page *page;

	if (id >= end)
		return NULL;
	id = array_index_nospec(id, end);
	spin_lock(&pool->lock);
	page = shmk_region_page(&pool->ledgers[id],
				(at % SHMK_LEDGER_STRIDE) >> PAGE_SHIFT);
	if (page)
		get_page(page);
	spin_unlock(&pool->lock);
	return page;
}

static struct page *region_get_page(const struct shmk_region *region, u64 at)
{
	struct page *page = shmk_region_page(region, at >> PAGE_SHIFT);

	if (page)
		get_page(page);
	return page;
}

static struct page *offset_get_page(struct shmk_pool *pool, u64 offset)
{
	u64 at = below(offset);

	switch (offset - at) {
	case SHMK_MAP_STATUS:
		return region_get_page(&pool->status_region, at);
	case SHMK_MAP_LEDGER:
		return ledger_page(pool, at);
	case SHMK_MAP_CONTROL:
		return region_get_page(&pool->control, at);
	case SHMK_MAP_DATA:
		return region_get_page(&pool->data, at);
	}
	return NULL;
}

/*
 * A mapping of another mm (a child after MADV_DOFORK) and those of an ended
 * peer get nothing. Detaching relies on this being called under mmap_lock,
 * see shmk_peer_detach().
 */
static vm_fault_t attachment_fault(struct vm_fault *vmf)
{
	struct shmk_peer *peer = vmf->vma->vm_file->private_data;

	shmk_pass(SHMK_AT_FAULT);
	if (!shmk_peer_is_mm(peer, vmf->vma->vm_mm) || !shmk_peer_alive(peer))
		return VM_FAULT_SIGBUS;
	vmf->page = offset_get_page(peer->pool, (u64)vmf->pgoff << PAGE_SHIFT);
	return vmf->page ? 0 : VM_FAULT_SIGBUS;
}

/*
 * Called for a new VMA of this file that the kernel makes from another: by a
 * split, which is fine, or by fork, when MADV_DOFORK has undone VM_DONTCOPY.
 * Page table entries of such a VMA are copied only with userfaultfd's
 * write-protection on it (and MADV_KEEPONFORK). Whether the copy comes before
 * this call or after depends on the kernel; taking all entries away, of parent
 * and child, leaves the child none either way, for the parent's mmap_lock is
 * held for writing and nothing faults in before the copy.
 */
static void attachment_open(struct vm_area_struct *vma)
{
	struct shmk_peer *peer = vma->vm_file->private_data;

	if (!shmk_peer_is_mm(peer, vma->vm_mm))
		unmap_mapping_range(vma->vm_file->f_mapping, 0, 0, 1);
}

/* The place of a mapping is what its owner told others, if anything. */
static int attachment_mremap(struct vm_area_struct *vma)
{
	return -EINVAL;
}

/*
 * No may_split: cutting through a huge mapping makes the kernel drop its PMD,
 * and what remains is faulted in by single pages.
 */
static const struct vm_operations_struct attachment_vm_ops = {
	.open	= attachment_open,
	.fault	= attachment_fault,
	.mremap	= attachment_mremap,
};

static int attachment_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct shmk_peer *peer = file->private_data;
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;
	bool writable;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (!shmk_peer_is_mm(peer, vma->vm_mm) || !shmk_peer_alive(peer))
		return -ENXIO;
	if (!range_valid(peer, offset, vma->vm_end - vma->vm_start, &writable))
		return -EINVAL;
	if (vma->vm_flags & VM_EXEC || (vma->vm_flags & VM_WRITE && !writable))
		return -EACCES;
	if (shmk_point(SHMK_AT_MMAP))
		return -EDOM;
	vm_flags_clear(vma, VM_MAYEXEC | (writable ? 0 : VM_MAYWRITE));
	vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP | VM_WIPEONFORK);
	vma->vm_ops = &attachment_vm_ops;
	return 0;
}

/* -------------------------------------------------------------- files -- */

static struct vfsmount *shmk_mount;	/* simple_pin_fs() */
static int shmk_mount_count;

static int shmk_fs_init(struct fs_context *fc)
{
	/* Core code then refuses PROT_EXEC, and leaves it out for READ_IMPLIES_EXEC. */
	fc->s_iflags |= SB_I_NOEXEC;
	return init_pseudo(fc, SHMK_FS_MAGIC) ? 0 : -ENOMEM;
}

static struct file_system_type shmk_fs_type = {
	.name			= "shmk",
	.owner			= THIS_MODULE,
	.init_fs_context	= shmk_fs_init,
	.kill_sb		= kill_anon_super,
};

static void attachment_show(struct seq_file *m, struct file *file)
{
	struct shmk_peer *peer = file->private_data;

	shmk_reader_show(m, file);
	seq_printf(m, "peer:\t%u\n", peer->id);
	seq_printf(m, "peer-gen:\t%u\n", peer->gen);
	seq_printf(m, "alive:\t%d\n", shmk_peer_alive(peer));
	seq_printf(m, "rdonly:\t%d\n", peer->rdonly);
	seq_printf(m, "entries:\t%u\n", peer->nr_entries);
}

static int attachment_release(struct inode *inode, struct file *file)
{
	shmk_peer_close(file->private_data);
	simple_release_fs(&shmk_mount, &shmk_mount_count);
	return 0;
}

static const struct file_operations attachment_ops = {
	.owner			= THIS_MODULE,
	.read			= shmk_reader_read,
	.poll			= shmk_reader_poll,
	.mmap			= attachment_mmap,
	.get_unmapped_area	= thp_get_unmapped_area,
	.unlocked_ioctl		= shmk_attachment_ioctl,
	.compat_ioctl		= compat_ptr_ioctl,
	.uring_cmd		= shmk_attachment_uring_cmd,
	.show_fdinfo		= attachment_show,
	.release		= attachment_release,
};

static struct file *inode_file(struct inode *inode, struct shmk_peer *peer)
{
	struct file *file;

	inode->i_size = MAX_LFS_FILESIZE;
	inode->i_flags |= S_NOATIME | S_NOCMTIME;
	file = alloc_file_pseudo(inode, shmk_mount, "attachment", O_RDWR, &attachment_ops);
	if (IS_ERR(file))
		return file;
	file->private_data = peer;
	stream_open(inode, file);
	return file;
}

/**
 * shmk_attachment_file() - the file of a peer
 * @peer: its reference goes to the file, unless this fails
 */
struct file *shmk_attachment_file(struct shmk_peer *peer)
{
	struct inode *inode;
	struct file *file;
	int err;

	err = simple_pin_fs(&shmk_fs_type, &shmk_mount, &shmk_mount_count);
	if (err)
		return ERR_PTR(err);
	inode = alloc_anon_inode(shmk_mount->mnt_sb);
	if (IS_ERR(inode)) {
		file = ERR_CAST(inode);
		goto release_fs;
	}
	file = inode_file(inode, peer);
	if (IS_ERR(file))
		goto put_inode;
	__module_get(THIS_MODULE);	/* the file's, dropped by the last fput() */
	return file;

put_inode:
	iput(inode);
release_fs:
	simple_release_fs(&shmk_mount, &shmk_mount_count);
	return file;
}
