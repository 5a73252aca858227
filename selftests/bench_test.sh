#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# bench_test.sh: the programs of tools/bench do their work and the table comes
# out. Says nothing about speed: the machine may be busy, and is shared.
set -u

bench=$(dirname "$(command -v limit)")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
nr=0 failed=0

result() {
	nr=$((nr + 1))
	if [ "$1" = 0 ]; then
		echo "ok $nr $2"
	else
		echo "not ok $nr $2"
		failed=1
	fi
}

# run_one PROGRAM TRANSPORT MODE BYTES MESSAGES KEYS
run_one() {
	local line
	line=$(timeout 60 "$bench/$1" "$2" "$3" "$4" "$5" 2>&1 | grep "^$2 ")
	echo "# $line"
	[[ $line =~ ^$2\ .*$6=[1-9] ]]
	result $? "$2_${3//+/_}_${4}_bytes"
}

echo "TAP version 13"
echo "1..13"
run_one limit line ping 64 2000 median
run_one limit copy stream 4096 2000 rate
for t in shmk-inline shmk-block shmk-block-mn; do
	run_one self $t ping 48 2000 median
	run_one self $t stream+touch 48 20000 rate
done
run_one self shmk-block ping+sleep 48 200 median
run_one self shmk-block stream+sleep+touch 65536 200 bandwidth
run_one kernel pipe ping 64 200 median
"$bench/limit" line ping 4096 2> "$dir/err"
[ $? = 4 ] && grep -q . "$dir/err"
result $? "what_cannot_run_says_so_with_status_4"
"$bench/self" nothing ping 64 2> /dev/null
[ $? = 1 ]
result $? "an_unknown_transport_is_refused"
exit $failed
