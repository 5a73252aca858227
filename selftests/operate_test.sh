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
# watchers_ N: so many others look at the pool
watchers_() { until_true eval "[ \"\$(shmk show '$pool' --json | grep -c '\"rdonly\": true')\" = $1 ]"; }

# ---- tests ----

an_orderly_close_is_told_from_a_crash() {
	make_pool
	reader_
	shmk wait "$pool" --until-closed --timeout 20s --json > w1 2> w1.err & w1=$!
	shmk wait "$pool" --peer "$id" --timeout 20s 2> w2.err & w2=$!
	watchers_ 2
	kill $r
	ends 0 $w1
	ends 0 $w2
	json_ok w1
	grep -q '"result": "ok"' w1 && grep -q '"detached": [1-9]' w1 && grep -q '"died": 0' w1 || { cat w1; exit 1; }
	reader_
	shmk wait "$pool" --until-closed --timeout 20s > w1 2> w1.err & w1=$!
	shmk wait "$pool" --peer "$id" --timeout 20s 2> w2.err & w2=$!
	watchers_ 2
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
	sentence "the first pid $r (shmk): see 'shmk show $pool" 7 shmk wait "$pool" --until-closed --timeout 50ms
	sentence "still there" 7 shmk wait "$pool" --peer "$id" --timeout 50ms --json
	is_ result timeout
	sentence "no member 900" 3 shmk wait "$pool" --peer 900
	sentence "one thing at a time" 2 shmk wait "$pool" --peer 1 --peers 2
	sentence "no id of a peer" 2 shmk wait "$pool" --peer x
	kill $r
	ends 143 $r
	shmk wait "$pool.2" --until-closed --wait --timeout 20s & w=$!
	echo x | shmk send "$pool.2/q" --create --timeout 20s & s=$!
	# It stays until somebody takes it.
	until_true eval "shmk show '$pool.2' --json | grep -q '\"rdonly\": true'"
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
	shmk wait "$pool" --at-most 0 --timeout 20s || exit 1
	# It is persistent: it goes when it is named.
	expect 0 shmk cleanup "$scheme:"
	expect 0 shmk show "$pool"
	expect 0 shmk cleanup "$pool"
	[ "$(cat out)" = "1 removed" ] || { cat out; exit 1; }
	expect 3 shmk cleanup "$pool"
	sentence "no name of a pool" 2 shmk cleanup "$scheme:a b"
}
# forwarder_: a worker that has 5 messages in hand, cannot pass them on, and is stopped. w: its pid
forwarder_() {
	make_pool
	random 256 f
	shmk forward "$pool/in" out --create --capacity 8 --hold 4 -v 2> w.err & w=$!
	peers 1
	shmk send "$pool/in" f --create --block 16K --raw --timeout 20s || exit 1
	until_true eval '[ "$(depth in)" = 3 ]'
	kill -STOP $w
}
a_hung_application_can_be_looked_into() {
	forwarder_
	expect 0 shmk dump "$pool"
	[ "$(grep -c " received  *[0-9]*  *$w shmk .* in  *[0-9]* [0-9]* taken since" out)" = 5 ] &&
		[ "$(grep -c ' queued .* out  *[0-9]* [0-9]* before it' out)" = 8 ] ||
		{ cat out; exit 1; }
	expect 0 shmk dump "$pool" --json
	json_ok out
	[ "$(grep -c '"state": "received"' out)" = 5 ] && [ "$(grep -c '"state": "queued"' out)" = 11 ] &&
		[ "$(grep -c "\"pid\": $w," out)" = 5 ] || { cat out; exit 1; }
	for f in offset room entry position before taken_since since_ns not_before_ns; do
		grep -q "\"$f\": " out || { echo "no $f"; exit 1; }
	done
	[ "$(counter blocks_used)" = 16 ] || { counter blocks_used; exit 1; }
	expect 0 shmk show "$pool"
	grep -q "largest free block [1-9]" out || { cat out; exit 1; }
	expect 0 shmk fsck "$pool"
	kill -CONT $w
	shmk recv "$pool/out" --raw --count 16 --timeout 20s | cmp - f || exit 1
	kill $w
	ends 0 $w
	counter_is blocks_used 0
}
a_dump_is_of_a_peer_or_a_queue() {
	forwarder_
	id=$(shmk show "$pool" | sed -n "s/^ *\([0-9]*\)  *$w .*/\1/p")
	expect 0 shmk dump "$pool" --peer "$id"
	[ "$(wc -l < out)" = 7 ] || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --queue out
	[ "$(wc -l < out)" = 10 ] || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --all --peer "$id" --queue in
	[ "$(wc -l < out)" = 7 ] || { cat out; exit 1; }
	sentence "no queue \"none\"" 3 shmk dump "$pool" --queue none
	sentence "no id of a peer" 2 shmk dump "$pool" --peer none
	sentence "shmk pool create" 3 shmk dump "$pool.none"
	kill -KILL $w
	wait $w
	shmk wait "$pool" --at-most 0 --timeout 20s || exit 1
	expect 0 shmk dump "$pool"
}
what_the_dead_were_doing_is_told() {
	forwarder_
	id=$(shmk show "$pool" | sed -n "s/^ *\([0-9]*\)  *$w .*/\1/p")
	if [ $backend = local ]; then
		sentence "kept by the module.* see 'shmk show" 1 shmk dump "$pool" --capsule
		return
	fi
	expect 0 shmk dump "$pool" --capsule
	[ "$(cat out)" = "nobody has died" ] || { cat out; exit 1; }
	kill -KILL $w
	wait $w
	shmk wait "$pool" --at-most 0 --timeout 20s || exit 1
	expect 0 shmk dump "$pool" --capsule
	grep -q "^peer $id, pid $w, uid $(id -u), shmk: killed by signal 9 .* ago, was here for .* in use\$" out &&
		[ "$(grep -c '^ *0x[0-9a-f]* received  *in  *[0-9]*$' out)" = 5 ] || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --capsule --json
	json_ok out
	for f in seq peer gen pid uid comm reason code time_ns attached_ns entries_used more; do
		grep -q "^      \"$f\": " out || { echo "no $f"; exit 1; }
	done
	[ "$(grep -c '"state": "received"' out)" = 5 ] && is_ reason killed && is_ code 9 || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --capsule --queue out
	! grep -q received out || { cat out; exit 1; }
	expect 0 shmk dump "$pool" --capsule --peer 900
	[ "$(cat out)" = "nobody has died" ] || { cat out; exit 1; }
	sentence "for the dead" 2 shmk dump "$pool" --capsule --all
}
top_tells_pools_peers_queues_and_rates() {
	forwarder_
	expect 0 shmk top -b -n 1
	grep -q "^$pool  *4 MiB  *[0-9.]* KiB \[#[#.]*\]  *1  *2  *0 " out || { cat out; exit 1; }
	expect 0 shmk top -b -n 2 -d 50ms "$pool"
	# Twice, and what it holds though it is stopped.
	[ "$(grep -c "^ *[0-9]*  *$w shmk  *alive  *[0-9]*  *5  *80 KiB " out)" = 2 ] &&
		[ "$(grep -c '^ *[0-9]* out  *8/8 ' out)" = 2 ] || { cat out; exit 1; }
	shmk recv "$pool/flow" --create --follow > /dev/null 2> r.err &
	yes | shmk send "$pool/flow" --create --block 4K 2> s.err &
	until_true eval '[ "$(shmk top -b -n 2 -d 100ms "$pool" | grep -c " flow .*\] *[0-9]* *[1-9][0-9]* *[1-9]")" = 1 ]'
	sentence "use 'shmk top -b'" 2 shmk top
	sentence "is for --batch" 2 shmk top -n 3
	sentence "shmk pool create" 3 shmk top -b "$pool.none"
	sentence "a delay is" 2 shmk top -b -d 1
}
tmux_() { LC_ALL=C.UTF-8 tmux -L "$$" -f /dev/null "$@"; }
screen_() { tmux_ capture-pane -p > screen; }
screen_has_() { screen_ && grep -q -e "$1" screen; }
# press PATTERN KEY...: until the screen has that
press_() {
	pattern=$1
	shift
	tmux_ send-keys "$@"
	left=100
	until screen_has_ "$pattern"; do
		[ $((left -= 1)) -gt 0 ] || { echo "no '$pattern' after $*:"; cat screen; exit 1; }
		sleep 0.05
	done
}
# The screen below its two first lines is just what want says, but for the pid and the age. It may be
# caught while it is drawn.
screen_is_() {
	screen_
	sed "1,2d; s/^ *$id *$r /$(printf '%7s' "$id") PID /; s/  *[0-9.]* m*s$/ AGE/; s/ *$//" screen > got.screen
	cmp -s want got.screen
}
top_on_a_terminal() {
	command -v tmux > /dev/null || skip "no tmux here"
	# In a place of its own, so that no other pool is in the list.
	mkdir local && export SHMK_LOCAL_DIR="$PWD/local"
	make_pool
	shmk queue create "$pool/q" && printf 'a b c' | shmk send --raw "$pool/q" --block 1K || exit 1
	shmk recv "$pool/p" --create --follow > got 2> r.err & r=$!
	peers 1
	id=$(shmk show "$pool" | sed -n "s/^ *\([0-9]*\)  *$r .*/\1/p")
	tmux_ new-session -d -x 130 -y 12 "PATH='$PATH' TERM=screen shmk top -d 100ms '$pool'; echo status \$?; cat" 2> tmux.err ||
		skip "tmux does not start: $(cat tmux.err)"
	at_exit="tmux_ kill-server"
	press_ "^ *0 q  *1/64 "
	press_ "^$pool  4 MiB \[#[.]*\] 0% used, 1 blocks, largest free 3.9 MiB; by id$"
	{
		printf '%7s %8s %-16s %-10s %6s %8s %10s %8s\n' PEER PID COMM STATE UID BLOCKS HELD AGE
		printf '%7s PID %-16s %-10s %6s %8s %10s AGE\n' "$id" shmk alive "$(id -u)" 0 "0 B"
		printf '%7s %-16s %11s %12s %5s %9s %9s %10s %s\n' QUEUE NAME DEPTH/CAP "" OPEN SENT/s RECVD/s SENT WAITING
		printf '%7s %-16s %5s/%-5s [#.........] %5s %9s %9s %10s -\n' 0 q 1 64 0 0 0 1
		printf '%7s %-16s %5s/%-5s [..........] %5s %9s %9s %10s receiver\n' 1 p 0 4 1 0 0 0
		echo; echo; echo; echo
		echo "Enter in  Bksp back  s sort  o order  x reset  h help  q quit"
	} > want
	left=100
	until screen_is_; do
		[ $((left -= 1)) -gt 0 ] || { diff want got.screen; exit 1; }
		sleep 0.05
	done
	press_ "k  *mark another" h
	press_ "^ *0 q  *1/64 " h
	press_ "by blocks$" s
	press_ "by blocks, reverse" o
	press_ "by id" s s o
	press_ "mark a pool or a queue" x
	press_ 'drop all messages in queue "q"? (y/n)' Down x
	press_ "not reset" n
	press_ 'queue "q"$' Enter
	press_ " queued .* q  *0 0 before it" Space
	press_ "^ *0 q  *1/64 " BSpace
	press_ "ledger of peer $id" Enter
	press_ "^nothing" Space
	press_ "^ *0 q  *1/64 " Escape
	press_ '(y/n)' Down x
	press_ '1 messages dropped from "q"' y
	press_ "^ *0 q  *0/64 "
	# Somebody resets it; top goes on with the new one.
	expect 0 shmk reset "$pool" --force
	press_ "largest free 4 MiB" Space
	press_ "^status 0" q
	tmux_ respawn-pane -k "PATH='$PATH' TERM=screen shmk top -d 100ms"
	press_ "^$pool "
	press_ "reset pool \"$pool\"" x
	press_ "\"$pool\" is empty now" y
	tmux_ send-keys q
}

a_pool_is_reset_and_everybody_wakes() {
	make_pool
	printf x | shmk send --raw "$pool/q" --create || exit 1
	shmk recv "$pool/p" --create > got 2> r.err & r=$!
	peers 1
	sentence "pid $r (shmk) has it.*--force" 4 shmk reset "$pool"
	shmk wait "$pool" --until-closed --timeout 20s & w=$!
	watchers_ 1
	[ "$(depth q)" = 1 ] || exit 1
	expect 0 shmk reset "$pool" --force --json
	json_ok out
	ends 1 $r
	grep -q "pool was reset" r.err || { cat r.err; exit 1; }
	ends 0 $w
	counter_is queues_now 0
	counter_is blocks_used 0
	shmk show "$pool" | grep -q pristine || exit 1
	# Nobody is in it: no force is needed. And it works on.
	echo x | shmk send "$pool/q" --create || exit 1
	expect 0 shmk reset "$pool"
	echo y | shmk send "$pool/q" --create || exit 1
	expect 0 shmk reset "$pool/q" --json
	json_ok out
	is_ queue q
	grep -q '"messages": [1-9]' out || { cat out; exit 1; }
	expect 0 shmk reset --pool "$pool" q
	grep -q '^0 messages dropped' out || { cat out; exit 1; }
	sentence "no queue" 3 shmk reset "$pool/none"
	sentence "shmk ls" 3 shmk reset "$pool.none"
	sentence "shmk pool create" 3 shmk reset "$pool.none/q"
	sentence "no name of a pool" 2 shmk reset "$scheme:a b"
}
# says_ LEVEL CHECK TEXT: is that among the findings?
says_() {
	grep -q "^$1  *$2  *.*$3" out && return
	echo "no $1 $2 '$3':"
	cat out
	exit 1
}
doctor_tells_what_is_wrong_and_how_to_put_it_right() {
	mkdir -p root/sys/module/shmk/parameters root/sys/kernel/shmk root/proc/sys/kernel \
		root/etc/shmk/pools.d root/dev/shm
	echo 0.0.0 > root/sys/module/shmk/version
	echo 99 > root/sys/kernel/shmk/version
	echo 7 > root/sys/module/shmk/parameters/max_pools_per_user
	echo 2 > root/proc/sys/kernel/io_uring_disabled
	echo "Node 0, zone   Normal  5  4  3  2  1  0  0  0  0  0  0" > root/proc/buddyinfo
	echo "size 1M" > root/etc/shmk/pools.d/operate-test-none.conf
	expect 1 shmk doctor --root "$PWD/root"
	says_ ok module "loaded, version 0.0.0"
	says_ problem interface "version 99"
	says_ problem device "no /dev/shmk"
	says_ ok parameters "max_pools_per_user=7"
	says_ note io_uring "io_uring_disabled=2"
	says_ note hugepages "0 B are free"
	says_ problem configured "operate-test-none"
	# Whatever is not as it should be comes with a command.
	[ "$(grep -c '^problem\|^note' out)" = "$(grep -c '^  *fix: ..*' out)" ] || { cat out; exit 1; }
	expect 1 shmk doctor --quiet --root "$PWD/root"
	grep -q '^ok' out && exit 1
	echo "Node 0, zone   Normal  5  4  3  2  1  0  0  0  0  0  100000" > root/proc/buddyinfo
	expect 1 shmk doctor --json --root "$PWD/root"
	json_ok out
	[ "$(grep -c '"level": "problem"' out)" = "$(field problems)" ] || { cat out; exit 1; }
	grep -A 3 '"check": "hugepages"' out | grep -q '"fix": null' || { cat out; exit 1; }
	sentence "one argument too many" 2 shmk doctor x
	if [ $backend = module ]; then
		shmk doctor > out
		says_ ok module loaded
		says_ ok interface version
		[ "$(id -u)" != 0 ] || says_ "ok\|note" device /dev/shmk
	fi
}
doctor_finds_what_was_left_behind() {
	# In a place of its own: who else tests here leaves something behind, too.
	mkdir local
	export SHMK_LOCAL_DIR=$PWD/local
	chmod 1777 local
	shmk doctor > out
	says_ ok leftovers none
	shmk recv local:left/q --create > got 2> r.err & r=$!
	until_true shmk show local:left
	kill -KILL $r
	wait $r
	expect 1 shmk doctor
	says_ problem leftovers "1 pool that no living process has: local:left"
	eval "$(sed -n '/leftovers/{n;s/.*fix: //p;}' out)"
	shmk doctor > out
	says_ ok leftovers none
}
doctor_finds_who_stands_still() {
	mkdir local
	export SHMK_LOCAL_DIR=$PWD/local
	make_pool
	reader_
	shmk doctor > out
	grep -q "^note  *members .*$pool" out && { cat out; exit 1; }
	kill -STOP $r
	# On a busy machine it runs on for a while.
	until grep -q '^State:.T' /proc/$r/status; do sleep 0.02; done
	shmk doctor > out
	says_ note members "pid $r (shmk), peer $id of $pool, is stopped"
	eval "$(sed -n '/is stopped/{n;s/.*fix: \(.*\), or .*/\1/p;}' out)"
	shmk doctor > out
	grep -q "is stopped" out && { cat out; exit 1; }
	expect 0 shmk pool drain "$pool"
	shmk ls > out
	grep -q "^$pool .* draining$" out || { cat out; exit 1; }
	shmk doctor > out
	says_ note members "pid $r (shmk) still has $pool, which drains"
	eval "$(sed -n '/which drains/{n;s/.*fix: //p;}' out)"
	wait $r
	expect 3 shmk show "$pool"
	[ $backend = local ] || return 0
	make_pool
	reader_
	kill -KILL $r
	wait $r
	shmk doctor > out
	says_ note members "peer $id of $pool (pid $r, shmk) died"
}
nothing_is_asked_of_a_module_that_is_not_there() {
	[ $backend = local ] && [ ! -e /dev/shmk ] || skip "for machines without the module"
	for verb in show dump "pool rm" "pool drain" reset cleanup "wait --peers 1" "top -b"; do
		sentence "modprobe shmk" 3 shmk $verb shmk:x
	done
}
# prometheus_ok_ FILE: the text format, strictly: each metric has HELP, then TYPE, then its
# series in one place, each once; counters and no others end in _total
prometheus_ok_() {
	awk '
	function bad(why) { print FILENAME ":" NR ": " why ": " $0; failed = 1 }
	/^# HELP [a-z_]+ [A-Z].*\.$/ { if ($3 in seen) bad("again"); seen[$3] = 1; name = $3; next }
	/^# TYPE [a-z_]+ (gauge|counter)$/ {
		if ($3 != name) bad("not after its HELP")
		if (($4 == "counter") != (name ~ /_total$/)) bad("named wrongly")
		next
	}
	/^[a-z_]+(\{[a-z]+="[A-Za-z0-9._-]+"(,[a-z]+="[A-Za-z0-9._-]+")*\})? [0-9]+$/ {
		key = $0; sub(/ [0-9]+$/, "", key)
		m = key; sub(/\{.*/, "", m)
		if (m != name) bad("not below its TYPE")
		if (key in keys) bad("twice")
		keys[key] = 1
		next
	}
	{ bad("no such line") }
	END { if (!NR) bad("empty"); exit failed }' "$1" || exit 1
}
export_writes_what_prometheus_reads() {
	make_pool
	printf 'a b c' | shmk send --raw "$pool/q" --create --block 1K || exit 1
	expect 0 shmk export --queues
	prometheus_ok_ out
	for m in 'shmk_pool_bytes{%} 4194304' 'shmk_pool_used_blocks{%} 1' 'shmk_pool_deaths_total{%} 0' \
		 'shmk_queue_depth{%,queue="q"} 1' 'shmk_queue_sent_messages_total{%,queue="q"} 1'; do
		grep -q -x "$(echo "$m" | sed "s/%/backend=\"$scheme\",pool=\"${pool#*:}\"/")" out ||
			{ echo "no $m:"; cat out; exit 1; }
	done
	if command -v promtool > /dev/null; then promtool check metrics < out || exit 1; fi
	# A file is replaced, and a reader that has it open reads the old one to its end.
	expect 0 shmk export -o pools.prom
	exec 3< pools.prom
	shmk queue create "$pool/r" || exit 1
	expect 0 shmk export --output pools.prom
	prometheus_ok_ pools.prom
	grep -q "^shmk_pool_queues.*${pool#*:}\"} 2$" pools.prom || { cat pools.prom; exit 1; }
	cat <&3 > old
	exec 3<&-
	prometheus_ok_ old
	grep -q "^shmk_pool_queues.*${pool#*:}\"} 1$" old || { cat old; exit 1; }
	[ "$(ls | grep -c pools.prom)" = 1 ] || { ls; exit 1; }
	sentence "cannot create a file beside" 3 shmk export -o none/pools.prom
	# The checker can say no.
	echo 'shmk_pool_bytes{pool="x"} -1' >> old
	(prometheus_ok_ old > /dev/null) && exit 1
	true
}
bash_completes_commands_options_pools_and_queues() {
	command -v bash > /dev/null || skip "no bash here"
	script=${self%/*}/../tools/completion/shmk.bash
	[ -e "$script" ] || skip "no sources here"
	make_pool
	shmk queue create "$pool/first" && shmk queue create "$pool/second" || exit 1
	cat > complete.bash <<-'END'
		. "$1"
		# complete LINE: what readline would offer, one a line; words end at : as there
		try() {
			COMP_LINE=$1 COMP_POINT=${#1}
			local text=${1//:/ : }
			read -ra COMP_WORDS <<< "$text"
			case $1 in *" "|*:) COMP_WORDS+=("") ;; esac
			COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			local cur=${COMP_WORDS[COMP_CWORD]}
			_shmk shmk "$cur" "${COMP_WORDS[COMP_CWORD-1]}" 2> /dev/null
			printf '%s\n' "$1 -> ${COMPREPLY[*]}"
		}
		complete -p shmk
		shift
		for line; do try "$line"; done
	END
	bash complete.bash "$script" "shmk du" "shmk pool cr" "shmk dump --j" "shmk dump --c" "shmk queue dr" "shmk help fs" \
		"shmk show $scheme:tool.$$" "shmk show ${pool%?}" "shmk send $pool/fi" "shmk recv $pool/" > out 2> err
	[ -s err ] && { cat err; exit 1; }
	while read -r want; do
		grep -q -x -e "$want" out || { echo "no '$want':"; cat out; exit 1; }
	done <<-END
		complete -F _shmk shmk
		shmk du -> dump
		shmk pool cr -> create
		shmk dump --j -> --json
		shmk dump --c -> --capsule
		shmk queue dr -> drain
		shmk help fs -> fsck
		shmk show ${pool%?} -> .*${pool#*:}.*
		shmk send $pool/fi -> ${pool#*:}/first
		shmk recv $pool/ -> ${pool#*:}/first ${pool#*:}/second
	END
}
# How many instructions but nops each function of lib/$1.c has, compiled with $2. What is put into
# what is the compiler's business, and it takes the text of an asm for its size: so nothing is.
instructions_() {
	gcc -std=gnu11 -O2 -fno-inline -fno-ipa-cp -fno-ipa-sra -fno-partial-inlining -fPIC -D_GNU_SOURCE= -DSHMK_VERSION='"0"' -fvisibility=hidden \
		-I"$src/lib/include" -I"$src/kmod/include/uapi" -I"$src/kmod" -I"$src/lib" \
		$2 -c -o code.o "$src/lib/$1.c" || exit 1
	objdump -d --no-show-raw-insn code.o |
		awk '/>:$/ { f = $2 } /^ / && !/nop/ { n[f]++ } END { for (f in n) print f, n[f] }' | sort
}
probes_are_a_nop_and_a_note() {
	src=${self%/*}/..
	[ -e "$src/lib/probe.h" ] || skip "no sources here"
	echo '#include <sys/sdt.h>' | gcc -E - > /dev/null 2>&1 || skip "no sys/sdt.h here"
	for f in queue block; do
		instructions_ $f -DSHMK_NO_PROBES > without
		readelf -n code.o | grep -q stapsdt && { echo "probes in $f although not wanted"; exit 1; }
		instructions_ $f > with
		readelf -n code.o | sed -n 's/^ *Name: //p' | sort | uniq -c | sed 's/^ *//' > names.$f
		# Beside the nop what keeps the four arguments at hand: on the average of all probes one
		# instruction for each. A function may have several, as many as it was inlined into.
		notes=$(awk '{ n += $1 } END { print n }' names.$f)
		join -a 1 -a 2 -e 0 -o 0,1.2,2.2 without with |
			awk -v most=$((4 * notes)) '$2 == 0 || $3 == 0 { bad = 1 } { more += $3 - $2; print }
				END { exit bad || more > most }' > costs ||
			{ cat costs; echo "the $notes probes of $f cost more than a nop"; exit 1; }
	done
	grep -q '^1 alloc$' names.block && grep -q '^[1-9] recv$' names.queue && grep -q '^[1-9][0-9]* send$' names.queue ||
		{ cat names.*; exit 1; }
	# And in the library that is installed, if it was built here and now.
	lib=$src/build/lib/libshmk.so.0
	if [ -e "$lib" ] && [ "$lib" -nt /usr/include/*/sys/sdt.h ]; then
		readelf -n "$lib" > notes
		[ "$(grep -c 'Provider: libshmk' notes)" -ge 5 ] || { cat notes; exit 1; }
	fi
}
# verify_service_ FILE: systemd has nothing to say about it
verify_service_() {
	mkdir -p unit
	sed 's|@bindir@/shmk|/bin/true|' "$1" > unit/shmk-pools.service
	systemd-analyze verify --man=no "$PWD/unit/shmk-pools.service" > verify 2>&1 && [ ! -s verify ]
}
# What udev would do with a device that is there, if it were ours. In a mount namespace of its own,
# with /dev read-only: "test" means it.
udev_does_() {
	node=$(ls /sys/class/misc | head -n 1)
	mkdir -p udev
	sed "s/KERNEL==\"shmk\"/KERNEL==\"$node\"/; s/GROUP=\"shmk\"/GROUP=\"daemon\"/" "$1" > udev/70-shmk.rules
	unshare --mount --propagation private sh -c '
		mount --bind /dev /dev && mount -o remount,ro,bind /dev &&
		mount -t tmpfs tmpfs "$1" && mkdir "$1/rules.d" && cp udev/70-shmk.rules "$1/rules.d" &&
		udevadm test --action=add "/sys/class/misc/$2"' - /run/udev "$node" > udev.log 2>&1
	! grep -q "70-shmk.rules:[0-9]* Invalid" udev.log &&
		grep -q "70-shmk.rules:[0-9]* GROUP $(getent group daemon | cut -d : -f 3)$" udev.log &&
		grep -q '70-shmk.rules:[0-9]* MODE 0660$' udev.log
}
service_and_group_pass_systemds_checkers() {
	system=${self%/*}/../tools/system
	[ -d "$system" ] || skip "no sources here"
	command -v systemd-analyze > /dev/null && command -v systemd-sysusers > /dev/null ||
		skip "no systemd here"
	verify_service_ "$system/shmk-pools.service.in" || { cat verify; exit 1; }
	sed 's/^Type=/Tipe=/' "$system/shmk-pools.service.in" > wrong
	verify_service_ wrong && { echo "a wrong key passes"; exit 1; }
	mkdir -p root/etc
	systemd-sysusers --root="$PWD/root" "$system/sysusers.conf" > sysusers 2>&1 || { cat sysusers; exit 1; }
	grep -q '^shmk:x:[0-9]*:$' root/etc/group || { cat root/etc/group; exit 1; }
	# One module to a line, and ours is one
	[ "$(grep -v '^#' "$system/modules-load.conf")" = shmk ]
}
udev_gives_the_device_to_the_group() {
	rules=${self%/*}/../tools/system/70-shmk.rules
	[ -e "$rules" ] || skip "no sources here"
	command -v udevadm > /dev/null || skip "no udev here"
	[ "$(id -u)" = 0 ] || skip "not root"
	[ "$(ls /sys/class/misc 2> /dev/null)" ] || skip "no device to try it on"
	mkdir -p /run/udev || skip "no /run/udev"
	unshare --mount --propagation private mount --bind /dev /dev || skip "no mount namespaces"
	udev_does_ "$rules" || { cat udev.log; exit 1; }
	sed 's/MODE=/MODUS=/' "$rules" > wrong
	udev_does_ wrong && { echo "a wrong key passes"; exit 1; }
	true
}
the_module_tells_about_itself() {
	command -v modinfo > /dev/null || skip "no modinfo here"
	set -- "${self%/*}"/../build/*/shmk.ko
	[ -e "$1" ] || skip "no module here"
	for ko; do
		for f in author description license version; do
			[ "$(modinfo -F $f "$ko")" ] || { echo "$ko: no $f"; exit 1; }
		done
		modinfo -F parmtype "$ko" | sed 's/:.*//' | sort > params
		modinfo -F parm "$ko" | sed -n 's/:[^ ].* (.*)$//p' | sort | diff params - ||
			{ echo "$ko: parameters without a description"; exit 1; }
		[ "$(grep -c . params)" -ge 5 ] || { cat params; exit 1; }
	done
}
# all_json_: what each command prints with --json, into files json.*
all_json_() {
	forwarder_
	kill -CONT $w
	shmk pub "$pool/t" a b --create || exit 1
	shmk sub "$pool/t" --block > got 2> sub.err &
	shmk ls --json > json.ls
	shmk show "$pool" --json > json.show
	shmk dump "$pool" --all --json > json.dump
	shmk fsck "$pool" --json > json.fsck
	shmk version --json > json.version
	shmk doctor --json > json.doctor
	shmk cleanup "$scheme:" --json > json.cleanup
	shmk events "$pool" --json --type died --count 1 --timeout 20s > json.events & e=$!
	watchers_ 1
	kill -KILL $w
	wait $e
	shmk wait "$pool" --peers 0 --json > json.wait
	shmk reset "$pool/out" --json > json.reset
}
json_is_as_documented() {
	command -v jq > /dev/null || skip "no jq here"
	man=${self%/*}/../Documentation/man/shmk.1
	[ -e "$man" ] || skip "no manual here"
	all_json_
	sed -n '/^\.SH JSON/,/^\.SH EXIT/p' "$man" | tr -c 'a-z0-9_\n' ' ' | tr ' ' '\n' | sort -u > documented
	for f in json.*; do
		[ "$(jq -s length < "$f")" -ge 1 ] || { echo "$f: $(cat "$f")"; exit 1; }
		jq -r 'paths | .[-1] | strings' < "$f" | sort -u | comm -23 - documented > more
		[ -s more ] && { echo "$f has fields that are not documented: $(cat more)"; exit 1; }
	done
	# Numbers are integers, and no string holds one.
	jq -s -e '[.. | numbers | . == floor] | all' json.* > /dev/null || exit 1
	# What scripts go by
	jq -e '.holdings | map(select(.state == "queued" and .queue == "out")) | length == 8' json.dump > jq.out &&
		jq -e '.sound and .damage == null' json.fsck > jq.out &&
		jq -e '.queues | map(.name) | contains(["in", "out", "t"])' json.show > jq.out &&
		jq -e 'map(.name) | index($p)' --arg p "${pool#*:}" json.ls > jq.out &&
		jq -e '.problems == ([.findings[] | select(.level == "problem" and .fix)] | length)' json.doctor > jq.out &&
		jq -e '.messages >= 8' json.reset > jq.out || { cat jq.out; exit 1; }
}

# ---- end ----

run_tests "$@"
