#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# bench_test.sh: 'shmk bench' measures what it says, and its table comes out.
# Says nothing about speed: the machine may be busy, and is shared.
set -u

command -v shmk > /dev/null || PATH=$PATH:$PWD/build/bin
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

# run_one TRANSPORT MODE BYTES MESSAGES KEYS
run_one() {
	local line
	line=$(timeout 60 shmk bench --raw "$1" "$2" "$3" "$4" 2>&1 | grep "^$1 ")
	echo "# $line"
	[[ $line =~ ^$1\ .*$5=[0-9.]*[1-9] ]]
	result $? "$1_${2//+/_}_${3}_bytes"
}

echo "TAP version 13"
echo "1..31"
run_one line ping 64 2000 median
run_one copy stream 4096 2000 rate
for t in shmk-inline shmk-inline-mn shmk-block shmk-block-mn shmk-topic; do
	run_one $t ping 48 2000 x
	run_one $t stream+touch 48 20000 rate
done
run_one shmk-batch stream 48 20000 rate
run_one shmk-uring ping+sleep 48 200 x
run_one shmk-epoll ping+sleep 48 200 x
run_one shmk-block ping+sleep 48 200 median
run_one shmk-block stream+sleep+touch 65536 200 bandwidth
run_one shmk-block-mn fan2x2+sleep 64 2000 rate
run_one shmk-inline ping+1000 64 2000 median
run_one shmk-block-mn ping+threads 64 2000 x
run_one pipe ping 64 200 median
run_one pipe fan2x2+sleep 64 2000 rate

for w in alloc queue memory topic; do
	line=$(timeout 100 shmk bench --raw cost $w 2>&1)
	echo "# $line"
	[[ $line =~ ^cost\ $w\ [0-9]+\ .*=[0-9.]*[1-9] ]]
	result $? "cost_of_$w"
done

shmk bench --raw line ping 4096 2> "$dir/err"
[ $? = 4 ] && grep -q . "$dir/err"
result $? "what_cannot_run_says_so_with_status_4"
shmk bench --raw nothing ping 64 2> /dev/null
[ $? = 2 ]
result $? "an_unknown_transport_is_refused"
shmk bench nonsense:64 2> "$dir/err"
[ $? = 2 ] && grep -q "no case: such as ping:64" "$dir/err"
result $? "an_unknown_case_is_refused"
# Of all transports one line, a median of two rounds each, and every figure in the file.
shmk bench -r 2 -o "$dir/raw" ping+sleep:48 > "$dir/table" &&
	grep -q "^shmk-inline  *[0-9]*\.[0-9]  *[0-9]" "$dir/table" &&
	grep -q "^futex  *[0-9]*\.[0-9]  *[0-9]" "$dir/table" &&
	[ "$(grep -c "^ping+sleep:48 shmk-inline ping" "$dir/raw")" = 2 ]
result $? "the_table_comes_out"
[ -z "$(ls -d /dev/shm/shmk-bench-* 2> /dev/null)" ]
result $? "no_pool_is_left"
exit $failed
