#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# install_test.sh: what a user does with the sources, in a Debian root that has
# never seen them. KTAP.
#
# The root is made once by mmdebstrap, of the release and from the archives that
# this machine's apt uses, and kept as a tarball in the cache (SHMK_REFRESH=1
# makes it anew); each run unpacks a copy. Needs root: it mounts, in a mount
# namespace of its own, and calls chroot.
set -u

if [ "$(id -u)" != 0 ]; then
	echo "1..0 # SKIP needs root for a chroot"
	exit 0
fi
if ! command -v mmdebstrap > /dev/null; then
	echo "1..0 # SKIP no mmdebstrap here"
	exit 0
fi
# The mounts end with the namespace, however this ends.
if [ "${1:-}" != --unshared ]; then
	exec unshare --mount --propagation private "$0" --unshared
fi

cd "$(dirname "$0")/.." || exit 1
cache=${SHMK_CACHE:-${HOME:-/root}/.cache/shmk}
B=${B:-build}
packages=dkms,gcc,g++,make,kmod,pkg-config,linux-headers-amd64,liburing-dev,libmnl-dev,libncurses-dev,man-db
version=$(sed -n 's/^VERSION := //p' Makefile)
# Not in $B, where make looks for *.d. One run at a time.
root=$cache/install-root
log=$root.log
mkdir -p "$cache"
exec 9> "$cache/.install.lock"
flock 9
clean_up() {
	umount "$root/dev/shm" "$root/dev" "$root/proc" 2> /dev/null
	rm -rf --one-file-system "$root" "$root".*
}
clean_up
mkdir "$root" || exit 1
trap clean_up EXIT
trap 'exit 1' INT TERM

# ---- the root ----

suite=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
tarball=$cache/root-$suite-$(echo $packages | cksum | cut -d ' ' -f 1).tar

# What apt here takes its packages from, as lines of a sources.list.
sources() {
	apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
		sed -n 's/^Packages /deb /p' | grep " $suite" | sort -u
}

make_tarball() {
	sources > "$root.list"
	if [ ! -s "$root.list" ]; then
		echo "apt has no package lists of $suite; run apt-get update"
		return 1
	fi
	# Not in /tmp, which may be small; without what no test looks at.
	TMPDIR=$root mmdebstrap --quiet --mode=root --variant=minbase --format=tar \
		--include="$packages" --aptopt='APT::Sandbox::User "root"' \
		--aptopt='Acquire::Retries "3"' --aptopt='Acquire::Check-Valid-Until "false"' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' \
		--dpkgopt='path-exclude=/usr/share/man/*' \
		"$suite" "$tarball.new" - < "$root.list" && mv "$tarball.new" "$tarball"
}

if ! { [ -e "$tarball" ] && [ -z "${SHMK_REFRESH:-}" ]; } && ! make_tarball > "$log" 2>&1; then
	echo "KTAP version 1"
	echo "1..1"
	sed 's/^/# /' "$log"
	echo "not ok 1 install.a_clean_root_can_be_made"
	exit 1
fi
tar -xf "$tarball" -C "$root" || exit 1

mount -t proc proc "$root/proc" && mount --bind /dev "$root/dev" &&
	mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/dev/shm" || exit 1
mkdir "$root/src" "$root/user"
tar -c --exclude=./.git --exclude=./build --exclude="./${B#./}" . | tar -x -C "$root/src" || exit 1

# in_root COMMAND: as a shell line, in the root, with nothing of our environment
in_root() {
	env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		LC_ALL=C kernel="$kernel" version="$version" \
		chroot "$root" /bin/sh -ec "$1" < /dev/null
}

# Of the root, not of the machine: what the headers package has brought. The link may be
# absolute, and lead nowhere from outside.
kernel=$(cd "$root/lib/modules" && for d in *; do [ -L "$d/build" ] && echo "$d"; done | head -n 1)

# Every name that an installation may leave, but not what packages regenerate.
names() {
	(cd "$root" && find etc usr lib opt srv var -xdev ! -type d \
		! -path 'var/cache/*' ! -path 'var/lib/dkms/*' ! -path 'var/log/*' \
		! -path 'etc/ld.so.cache' ! -path 'lib/modules/*' | sort)
}

# ---- what the user writes ----

cat > "$root/user/prog.c" << 'END'
#include <linux/shmk.h>
#include <shmk.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
	struct shmk_pool_opts pool = { .bytes = 1 << 20 };
	struct shmk_attach_opts opts = { .create = &pool };
	struct shmk_queue_opts queue = { .flags = SHMK_QUEUE_CREATE };
	struct shmk_msg msg;
	struct shmk_queue *q;
	struct shmk *s;

	if (shmk_attach("local:", &opts, &s) ||
	    shmk_queue_open(s, "q", &queue, SHMK_TRY, &q) ||
	    shmk_alloc(s, 1000, 0, &msg))
		return 1;
	strcpy((char *)msg.data, "through the pool");
	if (shmk_send(q, &msg, SHMK_TRY) || shmk_recv(q, &msg, SHMK_TRY))
		return 2;
	printf("%s, abi %d, libshmk %s\n", (char *)msg.data, SHMK_ABI_VERSION, shmk_version());
	shmk_detach(s);
	return 0;
}
END
cat > "$root/user/prog.cc" << 'END'
#include <linux/shmk.h>
#include <shmk.h>
#include <cstring>
#include <iostream>
#include <string>

int main()
{
	shmk_pool_opts pool{};
	shmk_attach_opts opts{};
	shmk_queue_opts queue{};
	char text[32];
	shmk_queue *q;
	shmk *s;

	pool.bytes = 1 << 20;
	opts.create = &pool;
	queue.flags = SHMK_QUEUE_CREATE;
	if (shmk_attach("local:", &opts, &s) ||
	    shmk_queue_open(s, "q", &queue, SHMK_TRY, &q) ||
	    shmk_send_copy(q, "through the pool", 17, SHMK_TRY) ||
	    shmk_recv_copy(q, text, sizeof(text), SHMK_TRY) != 17)
		return 1;
	std::cout << std::string(text) << ", abi " << SHMK_ABI_VERSION << ", libshmk "
		  << shmk_version() << '\n';
	shmk_detach(s);
	return 0;
}
END
said="through the pool, abi 1, libshmk $version"

# ---- the tests; in this order, each stands on the ones before ----

# Nothing in the cache, so without what only tests need.
make_works() {
	names > "$root.before"
	in_root 'cd /src; make -j"$(nproc)"; test -e build/"$kernel"/shmk.ko'
}

make_install_works() { in_root 'cd /src; make install'; }

the_tool_runs() {
	[ "$(in_root 'shmk version' | grep -c "$version")" = 1 ] &&
		in_root 'shmk pool create local:x --size 1M; shmk ls; shmk pool rm local:x'
}

pkg_config_finds_it() {
	in_root 'pkg-config --exists --print-errors shmk; test "$(pkg-config --modversion shmk)" = "$version"'
}

# Without -I or -L of its own, and as strict as users are.
builds() {
	[ "$(in_root "cd /user; $1"' -Wall -Wextra -Werror -o prog '"$2"' && ./prog')" = "$said" ]
}
a_c_program_links_shared_and_runs() {
	builds gcc 'prog.c $(pkg-config --cflags --libs shmk)' &&
		in_root 'cd /user; ldd prog | grep -q "libshmk.so.0 => /usr/local/lib"'
}
a_c_program_links_static_and_runs() {
	builds 'gcc -static' 'prog.c $(pkg-config --cflags --static --libs shmk)' &&
		! in_root 'cd /user; ldd prog'
}
a_cpp_program_links_shared_and_runs() {
	builds g++ 'prog.cc $(pkg-config --cflags --libs shmk)'
}
a_cpp_program_links_static_and_runs() {
	builds 'g++ -static' 'prog.cc $(pkg-config --cflags --static --libs shmk)'
}
the_examples_build_with_the_installed_library() {
	in_root 'cd /user; for f in /src/Documentation/examples/*.c; do
		gcc -Wall -Wextra -Werror "$f" $(pkg-config --cflags --libs shmk) -o "$(basename "$f" .c)"
	done; ./pair local:pair'
}

every_page_and_every_call_has_its_manual() {
	in_root 'cd /src
	for f in Documentation/man/*.[1-8]; do
		page=$(basename "$f")
		man -w "${page##*.}" "${page%.*}" | grep "^/usr/local/"
	done
	for call in $(sed -n "s/^\t\(shmk_[a-z_]*\);$/\1/p" lib/libshmk.map); do
		man -w 3 "$call" | grep "^/usr/local/"
	done'
}

make_uninstall_leaves_nothing() {
	in_root 'cd /src; make uninstall' || return 1
	names | diff "$root.before" - &&
		[ -z "$(find "$root/usr/local" -name '*shmk*')" ]
}

# Paths that systemd and udev look at, and nothing left to substitute.
system_files_are_in_place() {
	in_root 'cd /usr/local/lib
	grep -q "^SUBSYSTEM==.*GROUP=\"shmk\", MODE=\"0660\"$" udev/rules.d/70-shmk.rules
	grep -qx "g shmk -" sysusers.d/shmk.conf
	grep -qx shmk modules-load.d/shmk.conf
	grep -q "^complete .* shmk$" ../share/bash-completion/completions/shmk
	[ -x ../share/shmk/trace/histograms ] && [ -x ../share/shmk/trace/wakeup.bt ]
	exec=$(sed -n "s/^ExecStart=//p" systemd/system/shmk-pools.service)
	mkdir -p /etc/shmk/pools.d
	echo "size 1M" > "/etc/shmk/pools.d/local:boot.conf"
	$exec
	shmk ls | grep local:boot
	shmk pool rm local:boot
	rm -r /etc/shmk'
}

# As a package is made: nothing outside DESTDIR, and its name in no file.
destdir_takes_it_all() {
	in_root 'cd /src; make install DESTDIR=/stage prefix=/usr' || return 1
	names | diff "$root.before" - || return 1
	! grep -rl /stage "$root/stage" &&
		grep -q '^prefix=/usr$' "$root/stage/usr/lib/pkgconfig/shmk.pc" || return 1
	in_root 'cd /src; make uninstall DESTDIR=/stage prefix=/usr' &&
		[ -z "$(find "$root/stage" ! -type d)" ]
}

modules_install_puts_it_where_modprobe_looks() {
	# depmod by hand: without the kernel itself Kbuild leaves it out.
	in_root 'cd /src; make modules_install KDIR=/lib/modules/"$kernel"/build
		depmod "$kernel"; modinfo -k "$kernel" -n shmk
		rm -r /lib/modules/"$kernel"/extra; depmod "$kernel"'
}

dkms_builds_and_installs_the_module() {
	in_root 'make -s -C /src clean; dkms add /src; dkms build shmk/"$version" -k "$kernel"
		dkms install shmk/"$version" -k "$kernel"; dkms status' &&
		in_root 'modinfo -k "$kernel" -F vermagic shmk | grep -q "^$kernel "
			test "$(modinfo -k "$kernel" -F version shmk)" = "$version"
			modinfo -k "$kernel" -n shmk | grep updates/dkms'
}

dkms_removes_it() {
	in_root 'dkms remove shmk/"$version" --all' &&
		[ -z "$(find "$root/lib/modules" "$root/var/lib/dkms" -name 'shmk*')" ]
}

tests="make_works make_install_works the_tool_runs pkg_config_finds_it
	a_c_program_links_shared_and_runs a_c_program_links_static_and_runs
	a_cpp_program_links_shared_and_runs a_cpp_program_links_static_and_runs
	the_examples_build_with_the_installed_library every_page_and_every_call_has_its_manual
	system_files_are_in_place make_uninstall_leaves_nothing destdir_takes_it_all
	modules_install_puts_it_where_modprobe_looks
	dkms_builds_and_installs_the_module dkms_removes_it"
set -- $tests
echo "KTAP version 1"
echo "1..$#"
nr=0 failed=0
for t; do
	nr=$((nr + 1))
	start=$SECONDS
	if "$t" > "$log" 2>&1; then
		echo "ok $nr install.$t # $((SECONDS - start)) s"
	else
		tail -n 40 "$log" | sed 's/^/# /'
		echo "not ok $nr install.$t"
		failed=1
	fi
done
exit $failed
