#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# operate_test.sh [TEST...]: what the tool has for who runs programs that use shmk.
# KTAP. Each function behind the mark is a test; see tool_lib.sh.

self=$(command -v "$0")
case $self in /*) ;; *) self=$PWD/$self ;; esac
. "${self%/*}/tool_lib.sh"

# field NAME: its value in the JSON in out
field() { sed -n "s/.*\"$1\": \"*\([^\",]*\)\"*,*\$/\1/p" out | head -n 1; }
is_() {
	[ "$(field "$1")" = "$2" ] && return
	echo "$1: $(field "$1"), not $2: $(cat out)"
	exit 1
}
# r: its pid, id: as a peer
reader_() {
	shmk recv "$pool/q" --create --follow > got 2> r.err & r=$!
	peers 1
	id=$(shmk show "$pool" | sed -n "s/^ *\([0-9]*\)  *$r .*/\1/p")
}

# ---- tests ----

an_orderly_close_is_told_from_a_crash() {
	make_pool
	reader_
	shmk wait "$pool" --until-closed --timeout 20s --json > w1 2> w1.err & w1=$!
	shmk wait "$pool" --peer "$id" --timeout 20s 2> w2.err & w2=$!
	until_true eval '[ "$(counter attaches)" -ge 4 ]'
	kill $r
	ends 0 $w1
	ends 0 $w2
	json_ok w1
	grep -q '"result": "ok"' w1 && grep -q '"detached": [1-9]' w1 && grep -q '"died": 0' w1 || { cat w1; exit 1; }
	reader_
	shmk wait "$pool" --until-closed --timeout 20s > w1 2> w1.err & w1=$!
	shmk wait "$pool" --peer "$id" --timeout 20s 2> w2.err & w2=$!
	until_true eval '[ "$(shmk show "$pool" --json | grep -c "\"rdonly\": true")" = 2 ]'
	kill -KILL $r
	ends 8 $w1
	ends 8 $w2
	grep -q "is closed, but 1 of its peers died.* (pid $r, shmk) " w1.err || { cat w1.err; exit 1; }
	[ $backend = local ] || grep -q "(pid $r, shmk) killed by signal 9" w2.err || { cat w2.err; exit 1; }
}
a_wait_for_the_close_has_a_deadline_and_may_come_early() {
	make_pool
	expect 0 shmk wait "$pool" --until-closed
	reader_
	sentence "shmk show $pool" 7 shmk wait "$pool" --until-closed --timeout 50ms
	sentence "still there" 7 shmk wait "$pool" --peer "$id" --timeout 50ms --json
	is_ result timeout
	sentence "no member 900" 3 shmk wait "$pool" --peer 900
	sentence "one thing at a time" 2 shmk wait "$pool" --peer 1 --peers 2
	sentence "no id of a peer" 2 shmk wait "$pool" --peer x
	kill $r
	ends 143 $r
	shmk wait "$pool.2" --until-closed --wait --timeout 20s & w=$!
	echo x | shmk send "$pool.2/q" --create --timeout 20s & s=$!
	expect 0 shmk recv "$pool.2/q" --wait --timeout 20s
	ends 0 $s
	ends 0 $w
}
cleanup_names_who_has_it() {
	make_pool
	reader_
	sentence "pid $r (shmk) has it, as peer $id;" 4 shmk cleanup "$pool"
	shmk recv "$pool/p" --create > got2 2> r2.err & r2=$!
	peers 2
	sentence "pid [0-9]* (shmk) and 1 more have it" 4 shmk cleanup "$pool"
	sentence "and 1 more have it" 4 shmk pool rm "$pool"
	expect 0 shmk cleanup "$scheme:" --json
	json_ok out
	grep -q "\"pool\": \"$pool\"," out && grep -q '"why": "in use"' out || { cat out; exit 1; }
	kill -KILL $r $r2
	wait $r $r2
	# It is persistent: it goes when it is named.
	expect 0 shmk cleanup "$scheme:"
	expect 0 shmk show "$pool"
	expect 0 shmk cleanup "$pool"
	[ "$(cat out)" = "1 removed" ] || { cat out; exit 1; }
	expect 3 shmk cleanup "$pool"
	sentence "no name of a pool" 2 shmk cleanup "$scheme:a b"
}
# forwarder_: a worker that has 4 messages in hand, and is stopped. w: its pid
forwarder_() {
	make_pool
	random 256 f
	shmk forward "$pool/in" out --create --capacity 64 --hold 4 -v 2> w.err & w=$!
	peers 1
	shmk send "$pool/in" f --create --block 16K --raw --timeout 20s || exit 1
	until_true grep -q holding w.err
	until_true eval '[ "$(depth out)" = 12 ]'
	kill -STOP $w
}
a_hung_application_can_be_looked_into() {
	forwarder_
	expect 0 shmk dump "$pool"
	[ "$(grep -c " received  *[0-9]*  *$w shmk .* in  *[0-9]* [0-9]* taken since" out)" = 4 ] &&
		[ "$(grep -c ' queued .* out  *[0-9]* [0-9]* before it' out)" = 12 ] ||
		{ cat out; exit 1; }
	expect 0 shmk dump "$pool" --json
	json_ok out
	[ "$(grep -c '"state": "received"' out)" = 4 ] && [ "$(grep -c '"state": "queued"' out)" = 12 ] &&
		[ "$(grep -c "\"pid\": $w," out)" = 4 ] || { cat out; exit 1; }
	for f in offset room entry position before taken_since since_ns not_before_ns; do
		grep -q "\"$f\": " out || { echo "no $f"; exit 1; }
	done
	[ "$(counter blocks_used)" = 16 ] || { counter blocks_used; exit 1; }
	expect 0 shmk show "$pool"
	grep -q "largest free block [1-9]" out || { cat out; exit 1; }
	expect 0 shmk fsck "$pool"
	kill -CONT $w
	kill $w
	ends 0 $w
	counter_is blocks_used 16
}
a_dump_is_of_a_peer_or_a_queue() {
	forwarder_
	id=$(shmk show "$pool" | sed -n "s/^ *\([0-9]*\)  *$w .*/\1/p")
	expect 0 shmk dump "$pool" --peer "$id"
	[ "$(wc -l < out)" = 6 ] || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --queue out
	[ "$(wc -l < out)" = 14 ] || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --all --peer "$id" --queue in
	[ "$(wc -l < out)" = 6 ] || { cat out; exit 1; }
	sentence "no queue \"none\"" 3 shmk dump "$pool" --queue none
	sentence "no id of a peer" 2 shmk dump "$pool" --peer none
	sentence "shmk pool create" 3 shmk dump "$pool.none"
	kill -KILL $w
	wait $w
	expect 0 shmk dump "$pool"
}

# ---- end ----

run_tests "$@"
