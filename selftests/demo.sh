#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# demo.sh: what shmk is for, in one minute. Every line that says "ok" was
# checked; exit status 0 means that all of them were.
#
# SHMK_DEMO_BACKEND=local does it without the module, SHMK_DEMO_MIB=N with a
# file of another size. Needs shmk in PATH and nothing that busybox lacks.

backend=${SHMK_DEMO_BACKEND:-module}
mib=${SHMK_DEMO_MIB:-64}
workers=3
name=demo.$$
pool=shmk:$name
[ "$backend" != local ] || pool=local:$name
dir=$(mktemp -d /tmp/shmk-demo.XXXXXX) || exit 1
failed=0 pids=
# The build's own shmk, if this runs from the source tree.
[ ! -x build/bin/shmk ] || PATH=$PWD/build/bin:$PATH

cleanup() {
	for p in $pids; do kill -KILL "$p" 2>/dev/null; done
	wait 2>/dev/null
	shmk pool rm $pool 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

title() { echo; echo "$*"; }
claim() {
	what=$1
	shift
	if "$@" > /dev/null 2>> "$dir/errors"; then
		echo "  ok    $what"
	else
		echo "  FAIL  $what"
		failed=1
	fi
}
# until_true SECONDS COMMAND...
until_true() {
	left=$(($1 * 20))
	shift
	until "$@" 2>/dev/null; do
		[ $((left -= 1)) -gt 0 ] || return 1
		sleep 0.05
	done
}
# has_come N: so many quarters of the file
has_come() { [ "$(stat -c %s "$dir/arrived")" -ge $((mib * 1048576 / 4 * $1)) ]; }
holding() { grep -q holding "$dir/worker$1.log"; }
field() { sed -n "s/.*\"$2\": \"*\([^\",]*\).*/\1/p" "$1" | head -n 1; }
used() { shmk show $pool --json > "$dir/show" && [ "$(field "$dir/show" blocks_used)" = 0 ]; }

echo "A file of $mib MiB goes through $((workers + 2)) processes and a pool of 16 MiB; one of them is killed."
dd if=/dev/urandom of="$dir/original" bs=1048576 count="$mib" 2>/dev/null || exit 1
shmk pool create $pool --size 16M || exit 1
shmk events $pool --type died --json --count 1 > "$dir/event" & events=$!
pids=$events

title "sender -> [in] -> $workers workers -> [out] -> receiver"
shmk recv $pool/out --create -o "$dir/arrived" -v --timeout 40s 2> "$dir/recv.log" & receiver=$!
pids="$pids $receiver"
for w in $(seq $workers); do
	# Slow on purpose, and with full hands, so that the kill below costs something.
	shmk forward $pool/in out --create --check --delay 25 --hold 4 -v 2> "$dir/worker$w.log" &
	eval worker$w=$!
	pids="$pids $!"
done
shmk wait $pool --peers $((workers + 1)) --timeout 20s || exit 1
shmk send $pool/in "$dir/original" --create --ack -v --timeout 40s 2> "$dir/send.log" & sender=$!
pids="$pids $sender"
until_true 10 holding 2 && until_true 40 has_come 1
shmk show $pool | sed -n '/PEER/,$s/^/  /p'

title "kill -KILL $worker2, a worker, in the middle of it"
until_true 40 has_come 2
kill -KILL $worker2
claim "half of the file had arrived, and not all of it" \
	test "$(stat -c %s "$dir/arrived")" -ge $((mib * 524288)) -a ! -s "$dir/send.log"
wait $worker2 2>/dev/null
until_true 10 test -s "$dir/event"
how=$(field "$dir/event" reason)
[ "$how" != killed ] || how="killed by signal $(field "$dir/event" code)"
echo "  its death, as $([ $backend = local ] && echo the others || echo the kernel) told it:" \
	"$how; $(field "$dir/event" blocks) blocks with" \
	"$(field "$dir/event" bytes) bytes given back within $(($(field "$dir/event" took_ns) / 1000)) us"
claim "the event names the process" test "$(field "$dir/event" pid)" = $worker2
[ $backend = local ] || claim "and says how it died" test "$(field "$dir/event" reason)" = killed
claim "it held messages, and they came back" test "$(field "$dir/event" blocks)" -gt 0 \
	-a "$(field "$dir/event" messages)" -gt 0

title "the others go on"
wait $sender; status=$?
claim "sender: $(sed 's/shmk: //' "$dir/send.log")" test $status = 0
wait $receiver; status=$?
claim "receiver: $(sed 's/shmk: //' "$dir/recv.log")" test $status = 0
claim "what the dead one held was sent again" grep -q ' [1-9][0-9]* sent again' "$dir/send.log"
sum=$(sha256sum < "$dir/original" | cut -c 1-64)
claim "sha256 $(echo "$sum" | cut -c 1-16)... on both sides" \
	test "$(sha256sum < "$dir/arrived" | cut -c 1-64)" = "$sum"
kill -TERM $worker1 $worker3
for p in $worker1 $worker3; do
	wait "$p"
	claim "worker $p went in good order" test $? = 0
done

title "the pool, afterwards"
claim "every invariant holds (shmk fsck)" shmk fsck $pool
claim "the queues are gone" shmk queue rm $pool/in $pool/out
claim "not one block is still in use" used
claim "one death was counted, and no more" test "$(field "$dir/show" deaths)" = 1
if [ $backend != local ]; then
	sys=/sys/kernel/shmk/pools/$name
	claim "the same in $sys" test "$(cat $sys/deaths)$(cat $sys/blocks_used)" = 10
	(cd $sys 2>/dev/null && for f in size peers_now attaches detaches deaths reclaimed_blocks \
		reclaimed_bytes lost_messages blocks_used; do printf ' %s=%s' $f "$(cat $f)"; done; echo) |
		fold -s -w 78 | sed 's/^/   /'
fi
wait $events
claim "the pool is removed" shmk pool rm $pool

if [ $failed = 0 ]; then
	title "All of it is true."
else
	sed 's/^/  | /' "$dir/errors"
	title "NOT all of it is true, see FAIL above."
fi
exit $failed
