#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# tool_lib.sh: read by the tests of the tool, which have set $self to their own path.
#
# SHMK_TEST_BACKEND is local (default) or module. Needs shmk in PATH and nothing
# that busybox lacks; what is not there is skipped. Each function of the test
# below "# ---- tests" whose name does not end in _ is a test. It
# runs in a shell of its own with a directory and a pool name of its own
# ($pool, not made yet); false is failure, "skip REASON" is a skip.

backend=${SHMK_TEST_BACKEND:-local}
case $backend in
local) scheme=local ;;
module) scheme=shmk ;;
*) echo "Bail out! no backend $backend"; exit 1 ;;
esac
[ ! -x build/bin/shmk ] || PATH=$PATH:$PWD/build/bin:$PWD/build/examples
command -v shmk > /dev/null || { echo "Bail out! no shmk in PATH"; exit 1; }
if [ "$1" = --one ]; then
	one=$2 dir=$3 pool=$4 top=${3%/*}
else
	one=
	top=$(mktemp -d /tmp/shmk-tool.XXXXXX) || exit 1
	chmod 755 "$top"
	trap 'rm -rf "$top"' EXIT
	trap 'exit 1' INT TERM
fi

# ---- helpers ----

at_exit=	# a command for a test's end, whatever that is

skip() { echo "$*" > "$dir/skip"; exit 0; }
# expect STATUS COMMAND...: its output is in out, its complaints in err
expect() {
	want=$1
	shift
	"$@" > out 2> err < /dev/null
	got=$?
	[ $got = "$want" ] && return
	echo "status $got, not $want: $*"
	cat err
	exit 1
}
# expect, and one sentence that says shmk: and what to do about it
sentence() {
	pattern=$1
	shift
	expect "$@"
	[ "$(wc -l < err)" = 1 ] && grep -q -e "^shmk: .*$pattern" err && return
	echo "not one sentence with '$pattern': $(cat err)"
	exit 1
}
# ends STATUS PID
ends() {
	wait "$2"
	got=$?
	[ $got = "$1" ] && return
	echo "process $2: status $got, not $1"
	cat ./*.err 2> /dev/null
	exit 1
}
until_true() {
	left=400
	until "$@" 2> /dev/null; do
		[ $((left -= 1)) -gt 0 ] || { echo "never true: $*"; exit 1; }
		sleep 0.05
	done
}
same() { cmp "$1" "$2" || exit 1; }
random() { dd if=/dev/urandom of="$2" bs=1024 count="$1" 2> /dev/null; }
make_pool() { shmk pool create "$pool" --size "${1:-4M}" || exit 1; }
depth() { shmk show "$pool" --json | sed -n "/\"name\": \"$1\"/,/}/s/.*\"depth\": \([0-9]*\).*/\1/p"; }
counter() { shmk show "$pool" --json | sed -n "s/^  \"$1\": \([0-9]*\).*/\1/p"; }
counter_is() {
	[ "$(counter "$1")" = "$2" ] && return
	echo "$1: $(counter "$1"), not $2"
	exit 1
}
peers() { shmk wait "$pool" --peers "$1" --timeout 20s --wait || exit 1; }
have_parser() { command -v jq > /dev/null || command -v python3 > /dev/null; }
# valid, as far as there is anything here that can tell
json_ok() {
	have_parser || return 0
	if command -v jq > /dev/null; then
		jq . < "$1" > /dev/null
	else
		python3 -m json.tool < "$1" > /dev/null
	fi || { echo "not JSON: $(cat "$1")"; exit 1; }
}
as_user() { su -s /bin/sh user -c "$1"; }

# ---- running ----

run_tests() {
	if [ "$one" ]; then
		cd "$dir" || exit 1
		echo $$ > pgid
		# Not $(jobs -p): a subshell has no jobs in some shells.
		trap '$at_exit; jobs -p > jobs; kill -KILL $(cat jobs) 2> /dev/null; wait' EXIT
		$one
		exit
	fi
	tests=$(sed '1,/^# ---- tests/d' "$self" |
		sed -n 's/^\([a-z0-9_]*\)() {$/\1/p' | grep -v '_$')
	[ $# = 0 ] || tests=$*
	echo "KTAP version 1"
	echo "1..$(echo "$tests" | wc -w)"
	n=0 failed=0
	for t in $tests; do
		n=$((n + 1))
		dir=$top/$n
		pool=$scheme:tool.$$.$n
		mkdir "$dir"
		timeout -s KILL 120 setsid sh "$self" --one "$t" "$dir" "$pool" > "$dir/log" 2>&1 < /dev/null
		status=$?
		# Whatever a test has started ends with it.
		kill -KILL "-$(cat "$dir/pgid")" 2> /dev/null
		if [ -e "$dir/skip" ]; then
			echo "ok $n $t # SKIP $(cat "$dir/skip")"
		elif [ $status = 0 ]; then
			echo "ok $n $t"
		else
			sed 's/^/# /' "$dir/log"
			echo "not ok $n $t"
			failed=1
		fi
		# Who was just killed may still be on the way out.
		for i in 1 2 3 4 5 6 7 8 9 10; do
			shmk pool rm "$pool" 2> /dev/null
			[ $? = 4 ] || break
			sleep 0.1
		done
		rm -rf "$dir"
	done
	exit $failed
}
