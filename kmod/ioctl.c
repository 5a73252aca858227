// SPDX-License-Identifier: GPL-2.0-only
/*
 * ioctl.c - from a command number to a call.
 *
 * One table says for each command on which files it may be called, how large
 * its argument is and what it gives back. A command runs in up to three steps:
 *
 *   run      checks, and does all that can fail
 *   commit   makes the result visible; cannot fail
 *   abort    undoes run, when the result could not be handed out
 *
 * between run and commit the caller gets its output and a file descriptor is
 * taken, so a call that fails leaves no trace, and nobody can meet an object
 * whose maker was told that it does not exist. The descriptor is installed
 * last of all.
 */
#include <linux/build_bug.h>
#include <linux/cred.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/nospec.h>
#include <linux/sched.h>
#include <linux/uaccess.h>

#include "capsule.h"
#include "compat.h"
#include "event.h"
#include "ioctl.h"
#include "peer.h"
#include "point.h"
#include "pool.h"
#include "queue.h"
#include "topic.h"
#include "user.h"

enum {
	ON_DEVICE	= 1,
	ON_POOL		= 2,
	ON_ATTACHMENT	= 4,
};

/**
 * struct call - one command under way
 * @file: it was called on
 * @made: the file that it returns, or NULL; to be put by abort
 * @pool: for commit
 * @peer: for commit and abort
 * @room: bytes of the caller's argument, which may be less or more than ours
 * @arg: copied in, and out again where the command says so
 */
struct call {
	struct file *file;
	struct file *made;
	struct shmk_pool *pool;
	struct shmk_peer *peer;
	u32 room;
	union {
		u32 size;
		struct shmk_info info;
		struct shmk_pool_create pool_create;
		struct shmk_pool_open pool_open;
		struct shmk_pool_destroy pool_destroy;
		struct shmk_pool_reset pool_reset;
		struct shmk_pool_info pool_info;
		struct shmk_attach attach;
		struct shmk_queue_create queue_create;
		struct shmk_queue_open queue_open;
		struct shmk_queue_close queue_close;
		struct shmk_queue_fd queue_fd;
		struct shmk_topic_subscribe subscribe;
		struct shmk_topic_unsubscribe unsubscribe;
		struct shmk_bell bell;
		struct shmk_peer_info peer_info;
		struct shmk_capsule capsule;
		struct shmk_deadline deadline;
	} arg;
};

/* Of pool files and attachments. */
static struct shmk_pool *pool_of(const struct call *c)
{
	struct shmk_reader *reader = c->file->private_data;

	return reader->pool;
}

/* The attachment's peer, if it is the caller's and alive: it may leave whatever it has. */
static struct shmk_peer *leaving_peer(const struct call *c)
{
	struct shmk_peer *peer = c->file->private_data;

	if (!shmk_peer_is_mm(peer, current->mm) || !shmk_peer_alive(peer))
		return ERR_PTR(-ENXIO);
	return peer;
}

/* And if it may go on there. */
static struct shmk_peer *own_peer(const struct call *c)
{
	struct shmk_peer *peer = leaving_peer(c);

	if (!IS_ERR(peer) && shmk_pool_is_reset(peer->pool))
		return ERR_PTR(-ESHUTDOWN);
	return peer;
}

/* ------------------------------------------------------------- device -- */

static int run_info(struct call *c)
{
	c->arg.info = (struct shmk_info){
		.size			= sizeof(c->arg.info),
		.abi_version		= SHMK_ABI_VERSION,
		.layout_version		= SHMK_LAYOUT_VERSION,
		.features		= IS_ENABLED(CONFIG_IO_URING) ?
					  SHMK_FEATURE_URING_BELL : 0,
		.max_pool_bytes		= READ_ONCE(shmk_max_pool_bytes),
		.max_total_bytes	= READ_ONCE(shmk_max_total_bytes),
		.max_pools_per_user	= READ_ONCE(shmk_max_pools_per_user),
		.max_peers_per_user	= READ_ONCE(shmk_max_peers_per_user),
		.max_queues_per_user	= READ_ONCE(shmk_max_queues_per_user),
	};
	shmk_pool_totals(&c->arg.info);
	shmk_user_totals(current_euid(), &c->arg.info);
	return 0;
}

/* The file has a reference of its own by now, or there is no file. */
static int made_pool_file(struct call *c, struct shmk_pool *pool, bool rdonly)
{
	int err = 0;

	c->made = shmk_pool_file(pool, rdonly);
	if (IS_ERR(c->made))
		err = PTR_ERR(c->made);
	shmk_pool_put(pool);
	return err;
}

static int run_pool_create(struct call *c)
{
	c->pool = shmk_pool_create(&c->arg.pool_create);
	if (IS_ERR(c->pool))
		return PTR_ERR(c->pool);
	return made_pool_file(c, c->pool, false);
}

static void commit_pool_create(struct call *c)
{
	shmk_pool_publish(c->pool);
}

static int run_pool_open(struct call *c)
{
	const struct shmk_pool_open *a = &c->arg.pool_open;
	struct shmk_pool *pool;

	if (a->flags & ~SHMK_OPEN_F_RDONLY)
		return -EINVAL;
	pool = shmk_pool_open(a);
	if (IS_ERR(pool))
		return PTR_ERR(pool);
	return made_pool_file(c, pool, a->flags & SHMK_OPEN_F_RDONLY);
}

static int run_pool_destroy(struct call *c)
{
	const struct shmk_pool_destroy *a = &c->arg.pool_destroy;

	return a->flags & ~SHMK_DESTROY_F_DRAIN ? -EINVAL : shmk_pool_destroy(a);
}

static int run_pool_reset(struct call *c)
{
	const struct shmk_pool_reset *a = &c->arg.pool_reset;

	return a->flags & ~SHMK_RESET_F_FORCE ? -EINVAL : shmk_pool_reset(a);
}

static int run_pool_next(struct call *c)
{
	struct shmk_pool *pool = shmk_pool_next(c->arg.pool_info.id);
	int err;

	if (!pool)
		return -ENOENT;
	err = shmk_pool_info(pool, &c->arg.pool_info);
	shmk_pool_put(pool);
	return err;
}

/* --------------------------------------------------------------- pool -- */

static int run_pool_info(struct call *c)
{
	return shmk_pool_info(pool_of(c), &c->arg.pool_info);
}

static int run_peer_info(struct call *c)
{
	return shmk_peer_info(pool_of(c), &c->arg.peer_info);
}

static int run_capsule(struct call *c)
{
	return shmk_capsule_get(pool_of(c), &c->arg.capsule);
}

static int run_events(struct call *c)
{
	c->made = shmk_event_file(pool_of(c));
	return PTR_ERR_OR_ZERO(c->made);
}

static int run_attach(struct call *c)
{
	struct shmk_pool_file *pf = c->file->private_data;
	struct shmk_attach *a = &c->arg.attach;

	if (a->flags & ~SHMK_ATTACH_F_ALL || a->reserved)
		return -EINVAL;
	if (a->nr_entries > SHMK_ENTRIES_MAX)
		return -EINVAL;
	if (pf->rdonly && !(a->flags & SHMK_ATTACH_F_RDONLY))
		return -EACCES;
	c->peer = shmk_peer_create(pf->reader.pool, a);
	if (IS_ERR(c->peer))
		return PTR_ERR(c->peer);
	c->made = shmk_attachment_file(c->peer);
	if (IS_ERR(c->made)) {
		shmk_peer_close(c->peer);
		return PTR_ERR(c->made);
	}
	return 0;
}

static void commit_attach(struct call *c)
{
	shmk_peer_publish(c->peer);
}

/* --------------------------------------------------------- attachment -- */

static int run_detach(struct call *c)
{
	struct shmk_peer *peer = leaving_peer(c);

	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_peer_detach(peer, c->file->f_mapping);
}

static int run_queue_create(struct call *c)
{
	c->peer = own_peer(c);
	if (IS_ERR(c->peer))
		return PTR_ERR(c->peer);
	return shmk_queue_create(c->peer, &c->arg.queue_create);
}

static void commit_queue_create(struct call *c)
{
	shmk_queue_publish(c->peer, &c->arg.queue_create);
}

static void abort_queue_create(struct call *c)
{
	shmk_queue_abort(c->peer, &c->arg.queue_create);
}

static int run_queue_open(struct call *c)
{
	if (c->arg.queue_open.flags)
		return -EINVAL;
	c->peer = own_peer(c);
	if (IS_ERR(c->peer))
		return PTR_ERR(c->peer);
	return shmk_queue_open(c->peer, &c->arg.queue_open);
}

static void abort_queue_open(struct call *c)
{
	shmk_queue_close(c->peer, c->arg.queue_open.id, c->arg.queue_open.gen);
}

static int run_queue_close(struct call *c)
{
	const struct shmk_queue_close *a = &c->arg.queue_close;
	struct shmk_peer *peer = leaving_peer(c);

	if (a->flags)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_queue_close(peer, a->id, a->gen);
}

static int run_queue_remove(struct call *c)
{
	const struct shmk_queue_close *a = &c->arg.queue_close;
	struct shmk_peer *peer = own_peer(c);

	if (a->flags)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_queue_remove(peer, a->id, a->gen);
}

static int run_queue_drain(struct call *c)
{
	const struct shmk_queue_close *a = &c->arg.queue_close;
	struct shmk_peer *peer = own_peer(c);

	if (a->flags)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_queue_drain(peer, a->id, a->gen);
}

static int run_queue_fd(struct call *c)
{
	const struct shmk_queue_fd *a = &c->arg.queue_fd;
	struct shmk_peer *peer = own_peer(c);

	if (a->flags & ~SHMK_QUEUE_FD_F_ROW || a->side > SHMK_SIDE_SEND || a->reserved)
		return -EINVAL;
	if (!(a->flags & SHMK_QUEUE_FD_F_ROW) && a->row)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	c->made = shmk_side_file(peer, a);
	return PTR_ERR_OR_ZERO(c->made);
}

static int run_subscribe(struct call *c)
{
	if (c->arg.subscribe.flags || c->arg.subscribe.reserved)
		return -EINVAL;
	c->peer = own_peer(c);
	if (IS_ERR(c->peer))
		return PTR_ERR(c->peer);
	return shmk_topic_subscribe(c->peer, &c->arg.subscribe);
}

static void abort_subscribe(struct call *c)
{
	shmk_topic_unsubscribe(c->peer, c->arg.subscribe.id, c->arg.subscribe.row);
}

static int run_unsubscribe(struct call *c)
{
	const struct shmk_topic_unsubscribe *a = &c->arg.unsubscribe;
	struct shmk_peer *peer = leaving_peer(c);

	if (a->flags)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_topic_unsubscribe(peer, a->id, a->row);
}

static int run_deadline(struct call *c)
{
	const struct shmk_deadline *a = &c->arg.deadline;
	struct shmk_peer *peer = own_peer(c);

	if (a->flags || a->reserved || a->ms > SHMK_DEADLINE_MAX)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_deadline_set(peer, a->ms);
}

static int run_release(struct call *c)
{
	struct shmk_peer *peer = own_peer(c);

	if (IS_ERR(peer))
		return PTR_ERR(peer);
	shmk_quarantine_look(peer->pool);
	return 0;
}

static int run_bell(struct call *c)
{
	const struct shmk_bell *a = &c->arg.bell;
	struct shmk_peer *peer = own_peer(c);

	if (!a->nr || a->nr > SHMK_BELLS_MAX)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_bell_ring(peer->pool, a->bells, a->nr);
}

/* The same from io_uring. It never blocks for long, so it completes at once. */
int shmk_attachment_uring_cmd(struct io_uring_cmd *cmd, unsigned int issue_flags)
{
	const struct shmk_bell_cmd *area = shmk_uring_cmd_area(cmd);
	struct shmk_bell_cmd a = {
		.bells		= READ_ONCE(area->bells),
		.nr		= READ_ONCE(area->nr),
		.reserved	= READ_ONCE(area->reserved),
	};
	struct call c = { .file = cmd->file };
	struct shmk_peer *peer = own_peer(&c);

	if (cmd->cmd_op != SHMK_IOC_BELL)
		return -ENOTTY;
	if (a.reserved || !a.nr || a.nr > SHMK_BELLS_MAX)
		return -EINVAL;
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	return shmk_bell_ring(peer->pool, a.bells, a.nr);
}

/* -------------------------------------------------------------- table -- */

struct command {
	u8 on;
	bool out;		/* the argument goes back to the caller */
	u16 size;		/* of the argument, 0: none */
	u16 least;		/* what it was in version 1, if it has grown */
	int (*run)(struct call *c);
	void (*commit)(struct call *c);
	void (*abort)(struct call *c);
};

#define ARG(member)	.size = sizeof_field(struct call, arg.member)

static const struct command commands[] = {
	[_IOC_NR(SHMK_IOC_INFO)] = {
		ON_DEVICE, true, ARG(info), .least = SHMK_INFO_SIZE_1, .run = run_info },
	[_IOC_NR(SHMK_IOC_POOL_CREATE)] = {
		ON_DEVICE, ARG(pool_create), .run = run_pool_create,
		.commit = commit_pool_create },
	[_IOC_NR(SHMK_IOC_POOL_OPEN)] = {
		ON_DEVICE, ARG(pool_open), .run = run_pool_open },
	[_IOC_NR(SHMK_IOC_POOL_DESTROY)] = {
		ON_DEVICE, ARG(pool_destroy), .run = run_pool_destroy },
	[_IOC_NR(SHMK_IOC_POOL_NEXT)] = {
		ON_DEVICE, true, ARG(pool_info), .run = run_pool_next },
	[_IOC_NR(SHMK_IOC_POOL_RESET)] = {
		ON_DEVICE, ARG(pool_reset), .run = run_pool_reset },
	[_IOC_NR(SHMK_IOC_POOL_INFO)] = {
		ON_POOL | ON_ATTACHMENT, true, ARG(pool_info), .run = run_pool_info },
	[_IOC_NR(SHMK_IOC_PEER_INFO)] = {
		ON_POOL | ON_ATTACHMENT, true, ARG(peer_info), .run = run_peer_info },
	[_IOC_NR(SHMK_IOC_CAPSULE)] = {
		ON_POOL | ON_ATTACHMENT, true, ARG(capsule), .run = run_capsule },
	[_IOC_NR(SHMK_IOC_EVENTS)] = {
		ON_POOL | ON_ATTACHMENT, .run = run_events },
	[_IOC_NR(SHMK_IOC_ATTACH)] = {
		ON_POOL, true, ARG(attach), .run = run_attach,
		.commit = commit_attach },
	[_IOC_NR(SHMK_IOC_DETACH)] = {
		ON_ATTACHMENT, .run = run_detach },
	[_IOC_NR(SHMK_IOC_QUEUE_CREATE)] = {
		ON_ATTACHMENT, true, ARG(queue_create), .least = SHMK_QUEUE_CREATE_SIZE_1,
		.run = run_queue_create,
		.commit = commit_queue_create, .abort = abort_queue_create },
	[_IOC_NR(SHMK_IOC_QUEUE_OPEN)] = {
		ON_ATTACHMENT, true, ARG(queue_open), .run = run_queue_open,
		.abort = abort_queue_open },
	[_IOC_NR(SHMK_IOC_QUEUE_CLOSE)] = {
		ON_ATTACHMENT, ARG(queue_close), .run = run_queue_close },
	[_IOC_NR(SHMK_IOC_QUEUE_REMOVE)] = {
		ON_ATTACHMENT, ARG(queue_close), .run = run_queue_remove },
	[_IOC_NR(SHMK_IOC_QUEUE_FD)] = {
		ON_ATTACHMENT, ARG(queue_fd), .least = SHMK_QUEUE_FD_SIZE_1,
		.run = run_queue_fd },
	[_IOC_NR(SHMK_IOC_BELL)] = {
		ON_ATTACHMENT, ARG(bell), .run = run_bell },
	[_IOC_NR(SHMK_IOC_TOPIC_SUBSCRIBE)] = {
		ON_ATTACHMENT, true, ARG(subscribe), .run = run_subscribe,
		.abort = abort_subscribe },
	[_IOC_NR(SHMK_IOC_TOPIC_UNSUBSCRIBE)] = {
		ON_ATTACHMENT, ARG(unsubscribe), .run = run_unsubscribe },
	[_IOC_NR(SHMK_IOC_RELEASE)] = {
		ON_ATTACHMENT, .run = run_release },
	[_IOC_NR(SHMK_IOC_QUEUE_DRAIN)] = {
		ON_ATTACHMENT, ARG(queue_close), .run = run_queue_drain },
	[_IOC_NR(SHMK_IOC_DEADLINE)] = {
		ON_ATTACHMENT, ARG(deadline), .run = run_deadline },
};

static const struct command *find_command(unsigned int cmd, u8 on)
{
	const struct command *command;
	unsigned int nr = _IOC_NR(cmd);

	if (nr >= ARRAY_SIZE(commands) || cmd != _IO(SHMK_IOC, nr))
		return NULL;
	command = &commands[array_index_nospec(nr, ARRAY_SIZE(commands))];
	return command->on & on ? command : NULL;
}

/*
 * Every struct of version 1 is the smallest there is; a later, larger one
 * keeps the size of version 1 beside its own.
 */
static int copy_in(struct call *c, const struct command *command, void __user *user)
{
	u32 size;

	if (!command->size)
		return 0;
	if (get_user(size, (u32 __user *)user))
		return -EFAULT;
	if (size < (command->least ?: command->size))
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	c->room = size;
	return copy_struct_from_user(&c->arg, command->size, user, size);
}

static int copy_out(const struct call *c, const struct command *command, void __user *user)
{
	if (!command->out)
		return 0;
	if (copy_to_user(user, &c->arg, min_t(u32, command->size, c->room)))
		return -EFAULT;
	return shmk_point(SHMK_AT_CALL_COPIED);
}

/* What run has made is handed out, and then made visible; or it is undone. */
static int hand_out(struct call *c, const struct command *command, void __user *user)
{
	int fd = 0;
	int err;

	shmk_pass(SHMK_AT_CALL_RAN);
	if (c->made)
		fd = shmk_point(SHMK_AT_CALL_FD) ?: get_unused_fd_flags(O_CLOEXEC);
	if (fd < 0) {
		err = fd;
		goto abort;
	}
	err = copy_out(c, command, user);
	if (err)
		goto put_fd;
	if (command->commit)
		command->commit(c);
	shmk_pass(SHMK_AT_CALL_COMMITTED);
	if (c->made)
		fd_install(fd, c->made);
	return fd;

put_fd:
	if (c->made)
		put_unused_fd(fd);
abort:
	if (command->abort)
		command->abort(c);
	if (c->made)
		fput(c->made);
	return err;
}

/* What user space was compiled with must be what we are compiled with. */
static void check_abi(void)
{
	BUILD_BUG_ON(sizeof(struct shmk_info) != 64);
	BUILD_BUG_ON(offsetof(struct shmk_info, max_peers_per_user) != SHMK_INFO_SIZE_1);
	BUILD_BUG_ON(sizeof(struct shmk_pool_create) != 128);
	BUILD_BUG_ON(sizeof(struct shmk_pool_open) != 72);
	BUILD_BUG_ON(sizeof(struct shmk_pool_destroy) != 72);
	BUILD_BUG_ON(sizeof(struct shmk_pool_reset) != 72);
	BUILD_BUG_ON(sizeof(struct shmk_pool_info) != 216);
	BUILD_BUG_ON(sizeof(struct shmk_attach) != 24);
	BUILD_BUG_ON(sizeof(struct shmk_queue_create) != 120);
	BUILD_BUG_ON(offsetof(struct shmk_queue_create, nr_readers) != SHMK_QUEUE_CREATE_SIZE_1);
	BUILD_BUG_ON(sizeof(struct shmk_queue_open) != 80);
	BUILD_BUG_ON(sizeof(struct shmk_queue_close) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_queue_fd) != 24);
	BUILD_BUG_ON(offsetof(struct shmk_queue_fd, row) != SHMK_QUEUE_FD_SIZE_1);
	BUILD_BUG_ON(sizeof(struct shmk_topic_subscribe) != 40);
	BUILD_BUG_ON(sizeof(struct shmk_topic_unsubscribe) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_bell_one) != 8);
	BUILD_BUG_ON(sizeof(struct shmk_bell) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_bell_cmd) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_peer_info) != 56);
	BUILD_BUG_ON(sizeof(struct shmk_capsule) != 1104);
	BUILD_BUG_ON(sizeof(struct shmk_deadline) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_event) != 112);
	BUILD_BUG_ON(sizeof(struct shmk_peer_status) != 32);
	BUILD_BUG_ON(sizeof(struct shmk_queue_status) != 120);
	BUILD_BUG_ON(sizeof(struct shmk_row) != 32);
	BUILD_BUG_ON(sizeof(struct shmk_element) != 64);
	BUILD_BUG_ON(sizeof(struct shmk_status) != 368);
	BUILD_BUG_ON(sizeof(struct shmk_block) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_span) != 64);
	BUILD_BUG_ON(sizeof(struct shmk_entry) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_ledger) != 64);
	BUILD_BUG_ON(sizeof(struct shmk_slot) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_slot_meta) != 16);
	BUILD_BUG_ON(sizeof(struct shmk_ring) != 256);
	BUILD_BUG_ON(sizeof(struct shmk_control) != 256);
	BUILD_BUG_ON(sizeof(struct shmk_ledger) +
		     SHMK_ENTRIES_MAX * sizeof(struct shmk_entry) > SHMK_LEDGER_STRIDE);
	/* What shmk_reader_read() and pool_of() rely on. */
	BUILD_BUG_ON(offsetof(struct shmk_pool_file, reader) != 0);
	BUILD_BUG_ON(offsetof(struct shmk_peer, reader) != 0);
}

static long dispatch(struct file *file, u8 on, unsigned int cmd, unsigned long arg)
{
	const struct command *command = find_command(cmd, on);
	void __user *user = (void __user *)arg;
	struct call c = { .file = file };
	int err;

	check_abi();
	if (!command)
		return -ENOTTY;
	err = copy_in(&c, command, user) ?: shmk_point(SHMK_AT_CALL_READ);
	if (!err)
		err = command->run(&c);
	return err ?: hand_out(&c, command, user);
}

long shmk_device_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dispatch(file, ON_DEVICE, cmd, arg);
}

long shmk_pool_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dispatch(file, ON_POOL, cmd, arg);
}

long shmk_attachment_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	return dispatch(file, ON_ATTACHMENT, cmd, arg);
}
