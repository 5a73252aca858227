// SPDX-License-Identifier: LGPL-2.1-or-later OR MIT
/*
 * local_lock.c - who lives, and who may change the status region: locks that
 * the kernel takes back.
 *
 * They are POSIX record locks (F_SETLK), because those belong to a process and
 * end with it: at its death after the last of its threads has left its memory
 * (do_exit() drops the mm before the files), and at exec, because the fd is
 * O_CLOEXEC. OFD locks would live on in a forked child and keep the dead alive.
 *
 * Their price: closing any fd of the file drops all locks that the process has
 * on it, and they exclude neither threads nor two attachments of one process.
 * So a process has one fd and one struct lock_file for each lock file, found
 * by inode in a registry; a mutex in it does what the lock cannot, and a bitmap
 * knows the peers of this process, about whom the kernel would say nothing.
 *
 * fork: locks are not inherited, the registry is. An entry counts only for the
 * process that made it, and a child never closes an fd of an entry of its
 * parent's: it may have locked the same file itself by then.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "local.h"

#define FORKING		(-1)

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct lock_file *registry;	/* registry_mutex; a fork sees whole entries */
static _Atomic pid_t registry_pid;

/*
 * In a child the mutex may be locked by a thread that fork did not copy. The
 * first to come makes it new; threads that come meanwhile wait for that.
 */
static void registry_lock(void)
{
	pid_t me = getpid();
	pid_t was = atomic_load(&registry_pid);

	while (was != me) {
		if (was == FORKING)
			sched_yield();
		else if (atomic_compare_exchange_strong(&registry_pid, &was, FORKING)) {
			pthread_mutex_init(&registry_mutex, NULL);
			atomic_store(&registry_pid, me);
		}
		was = atomic_load(&registry_pid);
	}
	pthread_mutex_lock(&registry_mutex);
}

static void registry_unlock(void)
{
	pthread_mutex_unlock(&registry_mutex);
}

static struct lock_file *registry_find(const struct stat *st)
{
	struct lock_file *lf;

	for (lf = registry; lf; lf = lf->next)
		if (lf->pid == getpid() && lf->dev == st->st_dev && lf->ino == st->st_ino)
			break;
	return lf;
}

static int lock_file_new(int dir, struct lock_file **out)
{
	struct lock_file *lf = calloc(1, sizeof(*lf));
	struct stat st;
	int ret;

	if (!lf)
		return -ENOMEM;
	lf->fd = openat(dir, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (lf->fd < 0) {
		ret = -errno;
		goto err;
	}
	if (fstat(lf->fd, &st)) {
		ret = -errno;
		close(lf->fd);
		goto err;
	}
	lf->pid = getpid();
	lf->dev = st.st_dev;
	lf->ino = st.st_ino;
	lf->refs = 1;
	pthread_mutex_init(&lf->mutex, NULL);
	lf->next = registry;
	registry = lf;
	*out = lf;
	return 0;

err:
	free(lf);
	return ret;
}

/*
 * Looks before it opens: to open and close a file that this process has locked
 * would be to unlock it. Nobody replaces the file in between, because a pool's
 * lock file is made before the pool has its name and removed with it.
 */
int lock_file_get(int dir, struct lock_file **out)
{
	struct lock_file *lf;
	struct stat st;
	int ret = 0;

	if (fstatat(dir, "lock", &st, AT_SYMLINK_NOFOLLOW))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EPROTO;
	registry_lock();
	lf = registry_find(&st);
	if (lf) {
		lf->refs++;
		*out = lf;
	} else {
		ret = lock_file_new(dir, out);
	}
	registry_unlock();
	return ret;
}

static void registry_drop(struct lock_file *lf)
{
	struct lock_file **at = &registry;

	while (*at != lf)
		at = &(*at)->next;
	*at = lf->next;
}

void lock_file_put(struct lock_file *lf)
{
	registry_lock();
	if (--lf->refs == 0) {
		registry_drop(lf);
		if (lf->pid == getpid())
			close(lf->fd);
		free(lf);
	}
	registry_unlock();
}

/* ---------------------------------------------------------------- bytes -- */

static int byte_lock(int fd, int cmd, short type, off_t byte, struct flock *fl)
{
	*fl = (struct flock) {
		.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1,
	};
	return fcntl(fd, cmd, fl) ? -errno : 0;
}

/*
 * Waits for ever, but never for the dead. -EDEADLK is a false alarm: the kernel
 * sees processes where threads of two processes wait crosswise for two pools.
 */
int lock_file_lock(struct lock_file *lf)
{
	struct flock fl;
	int ret;

	pthread_mutex_lock(&lf->mutex);
	for (;;) {
		ret = byte_lock(lf->fd, F_SETLKW, F_WRLCK, 0, &fl);
		if (ret == -EDEADLK)
			nanosleep(&(struct timespec) { .tv_nsec = 100000 }, NULL);
		else if (ret != -EINTR)
			break;
	}
	if (ret)
		pthread_mutex_unlock(&lf->mutex);
	return ret;
}

int lock_file_trylock(struct lock_file *lf)
{
	struct flock fl;
	int ret;

	if (pthread_mutex_trylock(&lf->mutex))
		return -EAGAIN;
	ret = byte_lock(lf->fd, F_SETLK, F_WRLCK, 0, &fl);
	if (ret)
		pthread_mutex_unlock(&lf->mutex);
	return ret == -EACCES ? -EAGAIN : ret;
}

void lock_file_unlock(struct lock_file *lf)
{
	struct flock fl;

	byte_lock(lf->fd, F_SETLK, F_UNLCK, 0, &fl);
	pthread_mutex_unlock(&lf->mutex);
}

int lock_file_own(struct lock_file *lf, uint32_t peer)
{
	struct flock fl;
	int ret = byte_lock(lf->fd, F_SETLK, F_WRLCK, 2 * (off_t)peer, &fl);

	if (!ret)
		__atomic_fetch_or(&lf->own[peer / 64], 1ULL << peer % 64, __ATOMIC_RELAXED);
	return ret == -EACCES ? -EAGAIN : ret;
}

void lock_file_disown(struct lock_file *lf, uint32_t peer)
{
	struct flock fl;

	__atomic_fetch_and(&lf->own[peer / 64], ~(1ULL << peer % 64), __ATOMIC_RELAXED);
	byte_lock(lf->fd, F_SETLK, F_UNLCK, 2 * (off_t)peer, &fl);
}

bool lock_file_alive(struct lock_file *lf, uint32_t peer, pid_t *pid)
{
	struct flock fl;

	*pid = lf->pid;
	if (__atomic_load_n(&lf->own[peer / 64], __ATOMIC_RELAXED) >> peer % 64 & 1)
		return true;
	/* Nobody can tell: taken for alive, because settling a living peer is worse. */
	if (byte_lock(lf->fd, F_GETLK, F_WRLCK, 2 * (off_t)peer, &fl))
		return true;
	*pid = fl.l_pid;
	return fl.l_type != F_UNLCK;
}

bool lock_file_in_use(struct lock_file *lf)
{
	struct flock fl = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	bool shared;

	registry_lock();
	shared = lf->refs > 1;
	registry_unlock();
	return shared || fcntl(lf->fd, F_GETLK, &fl) || fl.l_type != F_UNLCK;
}
