#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# tool_test.sh [TEST...]: the command shmk as a user meets it. KTAP. Each function
# behind the mark is a test; see tool_lib.sh.

self=$(command -v "$0")
case $self in /*) ;; *) self=$PWD/$self ;; esac
. "${self%/*}/tool_lib.sh"

# ---- tests ----

# ---- looking ----

help_tells_every_command() {
	expect 0 shmk help
	commands=$(sed -n 's/^  \([a-z]*\) .*/\1/p' out)
	[ "$(echo "$commands" | wc -l)" -gt 10 ] || exit 1
	for c in $commands; do
		expect 0 shmk help "$c"
		grep -q "^usage: shmk $c" out || { echo "help $c: $(cat out)"; exit 1; }
		[ "$c" = version ] || [ "$c" = help ] || expect 0 shmk "$c" --help
	done
	expect 0 shmk version
	expect 2 shmk
	sentence help 2 shmk nonsense
}
wrong_usage_is_status_2() {
	sentence "help send" 2 shmk send
	sentence POOL/QUEUE 2 shmk send "$pool"
	sentence "help recv" 2 shmk recv
	sentence "help pool" 2 shmk pool
	sentence "help pool" 2 shmk pool create "$pool"
	sentence "help pool" 2 shmk pool create "$pool" --size 64X
	sentence "multiple of 64 KiB" 2 shmk pool create "$pool" --size 100K
	sentence "multiple of 2 MiB" 2 shmk pool create "$pool" --size 3M --page 2M
	sentence A-Za-z0-9 2 shmk pool create "$scheme:a b" --size 1M
	sentence "power of two" 2 shmk send "$pool/q" --capacity 3
	sentence "help wait" 2 shmk wait "$pool"
	expect 2 shmk show "$pool" --nonsense
	sentence "one argument too many" 2 shmk show "$pool" b
}
missing_things_are_status_3() {
	sentence "shmk pool create $pool --size 64M" 3 shmk show "$pool"
	sentence "shmk pool create $pool --size 64M" 3 shmk send "$pool/q"
	sentence "shmk pool create $pool --size 64M" 3 shmk recv "$pool/q"
	sentence "shmk ls" 3 shmk pool rm "$pool"
	sentence "shmk ls" 3 shmk cleanup "$pool"
	make_pool
	sentence "--create" 3 shmk recv "$pool/q"
	sentence "shmk show $pool" 3 shmk queue rm "$pool/q"
	shmk queue create "$pool/q"
	sentence "No such file" 3 shmk send "$pool/q" nothere
}
taken_names_are_status_4() {
	make_pool
	sentence "shmk pool rm $pool" 4 shmk pool create "$pool" --size 1M
	expect 0 shmk pool create "$pool" --size 4M --exist-ok
	sentence "with 4 MiB" 4 shmk pool create "$pool" --size 1M --exist-ok
	expect 0 shmk queue create "$pool/q"
	sentence "shmk queue rm" 4 shmk queue create "$pool/q"
}
a_queue_is_reset_while_others_have_it_open() {
	make_pool
	sentence "shmk show $pool" 3 shmk queue reset "$pool/q"
	printf 'a b c' | shmk send --raw "$pool/q" --create || exit 1
	shmk recv --raw --count 2 "$pool/other" --create > got & r=$!
	[ "$(shmk queue reset "$pool/q")" = '1 messages dropped from "q"' ]
	[ "$(shmk queue reset "$pool/q")" = '0 messages dropped from "q"' ] || exit 1
	for i in 1 2; do printf x | shmk send --raw "$pool/other" --wait || exit 1; done
	ends 0 $r
	[ "$(cat got)" = xx ]
}
pools_are_made_from_files() {
	mkdir conf
	printf '# a comment\n\nsize = 2M  # and one more\nmode 0640\npeers 7\n' > "conf/$pool.conf"
	echo "nothing of ours" > conf/README
	expect 0 shmk pool load --dir conf
	shmk show "$pool" --json > show || return 1
	grep -q '"bytes": 2097152,' show && grep -q '"mode": "0640"' show || { cat show; return 1; }
	# Again: it is there; with another size it is not the same.
	expect 0 shmk pool load --dir conf
	echo "size 4M" > "conf/$pool.conf"
	expect 4 shmk pool load --dir conf
	# What is wrong in one keeps no other from being made, and is told with its place.
	shmk pool rm "$pool"
	printf 'size 1M\nsise 3\n' > conf/a.conf
	printf 'size\n' > conf/b.conf
	expect 2 shmk pool load --dir conf
	grep -q 'conf/a.conf:2: ' err && grep -q 'conf/b.conf:1: ' err && shmk show "$pool" > show
}

a_pool_in_use_is_not_removed() {
	make_pool
	shmk recv "$pool/q" --create > out2 2> r.err & r=$!
	peers 1
	until_true eval '[ "$(depth q)" = 0 ]'
	sentence "shmk show $pool" 4 shmk pool rm "$pool"
	sentence "shmk show" 4 shmk cleanup "$pool"
	sentence "shmk show $pool" 4 shmk queue rm "$pool/q"
	kill $r
	ends 143 $r
	shmk wait "$pool" --at-most 0 --timeout 20s || exit 1
	expect 0 shmk pool rm "$pool"
	expect 3 shmk show "$pool"
}
no_permission_is_status_5() {
	[ "$(id -u)" = 0 ] || skip "not root"
	as_user true 2> /dev/null || skip "no su, or no user called user"
	make_pool
	# su has its own ideas of PATH
	cp "$(command -v shmk)" "$top/shmk"
	for c in "show $pool" "recv $pool/q --create" "pool rm $pool"; do
		as_user "$top/shmk $c" > out 2> err
		[ $? = 5 ] || { echo "$c: $(cat err)"; exit 1; }
		grep -q "ask its owner" err || { echo "$c: $(cat err)"; exit 1; }
	done
	shmk pool rm "$pool" && shmk pool create "$pool" --size 1M --mode 0644 || exit 1
	as_user "$top/shmk show $pool" > out 2> err || { cat err; exit 1; }
	as_user "$top/shmk recv $pool/q --create" 2> err
	[ $? = 5 ] || { cat err; exit 1; }
}
stopped_commands_detach() {
	make_pool
	for sig in HUP TERM; do
		shmk recv "$pool/q" --create > out 2> r.err & r=$!
		peers 1
		kill -$sig $r
		wait $r
		[ $? -gt 128 ] || exit 1
	done
	counter_is deaths 0
}
json_is_valid_and_has_its_fields() {
	make_pool
	shmk queue create "$pool/q" && echo x | shmk send "$pool/q" || exit 1
	cp "$(command -v shmk)" './a"b\c'
	'./a"b\c' recv "$pool/p" --create > /dev/null & r=$!
	peers 1
	expect 0 shmk ls --json
	json_ok out
	expect 0 shmk pool ls --json
	expect 0 shmk show "$pool" --json
	kill $r
	json_ok out
	for f in name backend bytes blocks_used deaths peers queues depth capacity open pid comm state; do
		grep -q "\"$f\": " out || { echo "no $f"; exit 1; }
	done
	grep -F -q '"comm": "a\"b\\c"' out || { grep comm out; exit 1; }
	grep -q "\"pid\": $r," out || { grep pid out; exit 1; }
	have_parser || skip "the fields are there, but neither jq nor python3 to tell whether it is valid"
}
lists_name_the_pool() {
	make_pool 1M
	expect 0 shmk ls
	grep -q "^$pool  *1 MiB" out || { cat out; exit 1; }
	expect 0 shmk ls $scheme:
	grep -q "^$pool " out || exit 1
	expect 0 shmk show --pool "$pool"
	grep -q "^$pool " out || exit 1
}
wait_counts_members() {
	make_pool
	expect 0 shmk wait "$pool" --peers 0
	sentence "shmk show" 7 shmk wait "$pool" --peers 1 --timeout 50ms
	shmk recv "$pool/q" --create > out2 2> r.err & r=$!
	expect 0 shmk wait "$pool" --peers 1 --timeout 20s
	shmk wait "$pool" --at-most 0 --timeout 20s & w=$!
	kill -KILL $r
	ends 0 $w
	expect 7 shmk wait "$scheme:none.$$" --peers 1 --wait --timeout 50ms
}
monitor_tells_all_pools() {
	make_pool
	shmk monitor "$scheme:" --existing --json > json & j=$!
	shmk monitor --pool "$pool" --existing > text & m=$!
	until_true grep -q "created" text
	shmk recv "$pool/q" --create > g 2> r.err & r=$!
	until_true grep -q "queue-created *peer" text
	kill -KILL $r
	until_true grep -q "died .*gave back" text
	grep -q "died *peer [0-9]*, pid $r, shmk: .*gave back" text || { cat text; exit 1; }
	until_true grep -q '"event": "died"' json
	kill $j $m
	ends 0 $j
	ends 0 $m
	json_ok json
	grep -q '"event": "died", "pool": "'"${pool#*:}"'"' json || { cat json; exit 1; }
	expect 7 shmk monitor "$pool" --count 1 --timeout 50ms
	expect 2 shmk monitor
	expect 2 shmk monitor none: --count 1
}
events_tell_a_death() {
	make_pool
	random 512 f
	shmk events "$pool" --count 1 --type died > text & e=$!
	shmk events "$pool" --count 1 --type died --json > json & j=$!
	until_true eval '[ "$(counter peers_now)" = 2 ]'
	# Who only looks cannot settle on the local backend; somebody has to be there.
	shmk recv "$pool/bystander" --create > g 2> b.err &
	shmk forward "$pool/in" out --create --hold 4 --delay 200 -v 2> r.err & r=$!
	peers 2
	shmk send "$pool/in" f --create --block 16K 2> s.err &
	until_true grep -q holding r.err
	kill -KILL $r
	ends 0 $e
	ends 0 $j
	grep -q "^died .*pid $r, shmk: .*gave back .*messages* lost" text || { cat text; exit 1; }
	json_ok json
	grep -q "\"event\": \"died\".*\"pid\": $r," json || { cat json; exit 1; }
	grep -q '"messages": [1-9][0-9]*, "redelivered": 0, ' json || { cat json; exit 1; }
	[ $backend = local ] || grep -q '"reason": "killed", "code": 9' json || { cat json; exit 1; }
	counter_is deaths 1
	expect 7 shmk events "$pool" --type destroyed --count 1 --timeout 50ms
}
fsck_finds_it_sound() {
	make_pool
	expect 0 shmk fsck "$pool"
	grep -q sound out
}
cleanup_tells_how_many() {
	expect 0 shmk cleanup "$scheme:"
	grep -q '^[0-9]* removed$' out
}

# ---- send and recv ----

a_file_arrives() {
	make_pool 1M
	random 8192 f
	shmk send "$pool/q" f --create 2> s.err & s=$!
	expect 0 shmk recv "$pool/q" --create --output g
	ends 0 $s
	same f g
	expect 0 shmk fsck "$pool"
	counter_is blocks_used 0
}
a_pipe_arrives_without_a_pool_made_before() {
	random 3000 f
	shmk send --create "$pool/q" < f 2> s.err & s=$!
	shmk recv --create "$pool/q" --timeout 20s 2> r.err | cat > g
	ends 0 $s
	same f g
	# It went with its last peer.
	until_true eval '! shmk show "$pool" > out 2> err'
}
a_sender_alone_stays_until_somebody_comes() {
	echo hello | shmk send --create "$pool/q" 2> s.err & s=$!
	until_true eval '[ "$(depth q)" -ge 3 ]'
	kill -0 $s || exit 1
	[ "$(shmk recv "$pool/q")" = hello ] || exit 1
	ends 0 $s
}
a_line_comes_at_once() {
	make_pool
	mkfifo pipe
	shmk send "$pool/q" --create < pipe 2> s.err & s=$!
	shmk recv "$pool/q" --create > g 2> r.err & r=$!
	exec 3> pipe
	echo one >&3
	until_true grep -q one g
	echo two >&3
	until_true grep -q two g
	exec 3>&-
	ends 0 $s
	ends 0 $r
}
empty_files_and_odd_sizes_arrive() {
	make_pool
	: > f0
	random 1 f1
	dd if=/dev/urandom of=f2 bs=4033 count=1 2> /dev/null
	random 64 f3
	mkdir d
	for ack in "" --ack; do
		shmk send "$pool/q" f0 f1 f2 f3 --create --block 4K $ack 2> s.err & s=$!
		expect 0 shmk recv "$pool/q" --create --dir d
		ends 0 $s
		for f in f0 f1 f2 f3; do same $f d/$f; done
		shmk send "$pool/q" f3 f0 f1 f2 --create $ack 2> s.err & s=$!
		expect 0 shmk recv "$pool/q" --create
		ends 0 $s
		cat f3 f0 f1 f2 | cmp - out || exit 1
	done
	[ "$(ls -A d | wc -l)" = 4 ]
}
modes_are_kept_and_names_are_safe() {
	make_pool
	echo x > f && chmod 750 f
	mkdir -p d e/f
	shmk send "$pool/q" --create f e/../f /etc/passwd 2> s.err & s=$!
	expect 0 shmk recv "$pool/q" --create --dir d
	ends 0 $s
	[ "$(ls d | tr '\n' ' ')" = "f passwd " ] && [ "$(stat -c %a d/f)" = 750 ]
}
many_writers_do_not_mix() {
	make_pool
	mkdir d
	for i in 1 2 3 4; do
		random 1024 f$i
		shmk send "$pool/q" f$i --create --block 16K 2> s$i.err &
	done
	expect 0 shmk recv "$pool/q" --create --dir d --senders 4
	for i in 1 2 3 4; do same f$i d/f$i; done
	for i in 1 2 3; do
		yes $i | head -c 300000 > h$i
		shmk send "$pool/q" h$i --create --block 16K 2> s$i.err &
	done
	expect 0 shmk recv "$pool/q" --create --senders 3
	[ "$(uniq -c < out | wc -l)" = 3 ] || { uniq -c < out; exit 1; }
}
too_much_too_early_is_told() {
	make_pool
	random 1024 f
	mkfifo pipe
	# The second sender's file has to wait, for the first one does not end.
	shmk send "$pool/q" --create < pipe 2> s1.err & s=$!
	exec 3> pipe
	echo first >&3
	until_true eval '[ "$(depth q)" -ge 2 ]'
	shmk recv "$pool/q" --create --window 256K > g 2> r.err & r=$!
	shmk send "$pool/q" f --create 2> s2.err & s2=$!
	ends 6 $r
	grep -q -e --window r.err || exit 1
	kill $s $s2
	exec 3>&-
}
several_readers_share_a_file() {
	make_pool
	random 8192 f
	for i in 1 2 3; do
		shmk recv "$pool/q" --create --shared -o g -v --timeout 20s 2> r$i.err &
		eval r$i=$!
	done
	peers 3
	expect 0 shmk send "$pool/q" f --ack --create --block 16K --timeout 20s
	for r in $r1 $r2 $r3; do ends 0 "$r"; done
	same f g
	[ "$(cat r?.err | grep -c 'received [1-9]')" -gt 1 ]
}
a_killed_reader_among_several_costs_nothing() {
	make_pool
	random 4096 f
	mkdir d
	mkfifo pipe
	for i in 1 2 3; do
		shmk recv "$pool/q" --create --shared --dir d --timeout 20s 2> r$i.err &
		eval r$i=$!
	done
	peers 3
	shmk send "$pool/q" --ack --create --block 16K --timeout 20s -v < pipe 2> s.err & s=$!
	exec 3> pipe
	cat f f f f >&3
	kill -KILL $r2
	cat f f f f >&3
	exec 3>&-
	ends 0 $s
	ends 0 $r1
	ends 0 $r3
	cat f f f f f f f f | cmp - d/stdin || exit 1
	expect 0 shmk fsck "$pool"
}
without_ack_several_readers_are_told_so() {
	make_pool
	echo x | shmk send "$pool/q" --create
	sentence "send --ack" 1 shmk recv "$pool/q" --shared -o g
	sentence "or --dir" 2 sh -c "shmk recv '$pool/q' --shared > /dev/null"
}
workers_() {
	for i in 1 2 3; do
		shmk forward "$pool/in" out --create --check --delay 20 --hold 4 -v 2> w$i.err &
		eval w$i=$!
	done
	peers 3
}
a_killed_worker_is_made_up_for() {
	make_pool
	random 4096 f
	workers_
	shmk recv "$pool/out" --create --timeout 30s > g 2> r.err & r=$!
	peers 4
	shmk send "$pool/in" f --create --ack -v --block 16K --timeout 30s 2> s.err & s=$!
	until_true grep -q holding w2.err
	kill -KILL $w2
	ends 0 $s
	ends 0 $r
	same f g
	grep -q ' [1-9][0-9]* sent again' s.err || { cat s.err; exit 1; }
	kill $w1 $w3
	ends 0 $w1
	ends 0 $w3
	[ "$(counter lost_messages)" -gt 0 ]
}
without_ack_the_loss_is_told() {
	make_pool
	random 4096 f
	workers_
	shmk recv "$pool/out" --create --patience 300ms --output g 2> r.err & r=$!
	peers 4
	shmk send "$pool/in" f --create --block 16K 2> s.err & s=$!
	until_true grep -q holding w2.err
	kill -KILL $w2
	ends 0 $s
	ends 1 $r
	grep -q '"f" is incomplete: [1-9][0-9]* of 4194304 bytes are missing, at [0-9]*-[0-9]*.*--ack' r.err ||
		{ cat r.err; exit 1; }
	kill $w1 $w3
}
a_stopped_worker_delays_nobody_for_long() {
	make_pool
	random 4096 f
	workers_
	shmk recv "$pool/out" --create --timeout 30s > g 2> r.err & r=$!
	shmk send "$pool/in" f --create --ack -v --block 16K --timeout 30s 2> s.err & s=$!
	until_true grep -q holding w2.err
	kill -STOP $w2
	ends 0 $s
	ends 0 $r
	same f g
	kill -KILL $w2
	kill $w1 $w3
}
a_killed_sender_is_noticed() {
	make_pool
	mkfifo pipe
	for how in "" --ack --shared; do
		ack=${how:+--ack} out="-o g"
		: > g
		[ "$how" != --shared ] || out="-o g --shared"
		shmk send "$pool/q" --create $ack < pipe 2> s.err & s=$!
		exec 3> pipe
		shmk recv "$pool/q" --create $out 2> r.err & r=$!
		echo one >&3
		until_true grep -q one g
		kill -KILL $s
		ends 1 $r
		grep -q "is incomplete.*its end never came\|sender died .*is incomplete" r.err ||
			{ cat r.err; exit 1; }
		exec 3>&-
	done
}
a_killed_receiver_is_noticed() {
	make_pool
	for ack in "" --ack; do
		: > g
		shmk recv "$pool/q" --create 2> r.err > g & r=$!
		peers 1
		shmk send "$pool/q" --create $ack < /dev/zero 2> s.err & s=$!
		until_true test -s g
		kill -KILL $r
		ends 1 $s
		: > g
		grep -q "receiver of $pool/q is gone" s.err || { cat s.err; exit 1; }
		shmk wait "$pool" --at-most 0 --timeout 20s || exit 1
		shmk queue rm "$pool/q" || exit 1
	done
	# What killed commands left is swept by the next one.
	echo x | shmk send "$pool/q" --create --ack --timeout 20s & s=$!
	expect 0 shmk recv "$pool/q" --create
	ends 0 $s
	counter_is queues_now 1
}
a_broken_pipe_ends_both() {
	make_pool
	yes | shmk send "$pool/q" --create --ack 2> s.err & s=$!
	shmk recv "$pool/q" --create 2> r.err | head -n 1 > g
	ends 1 $s
	[ "$(cat g)" = y ]
}
timeouts_are_status_7() {
	make_pool
	sentence "shmk send" 7 shmk recv "$pool/q" --create --timeout 50ms
	sentence "shmk recv" 7 sh -c "shmk send '$pool/q' --timeout 100ms < /dev/zero"
	expect 7 shmk recv "$pool/none" --wait --timeout 50ms
	expect 7 shmk recv "$scheme:none.$$/q" --wait --timeout 50ms
}
a_full_disk_is_status_6() {
	full=/dev/full
	[ -c $full ] || full=$top/full
	[ -c $full ] || mknod $full c 1 7 2> /dev/null || skip "no /dev/full"
	make_pool
	echo x | shmk send "$pool/q" --create
	sentence "No space left" 6 shmk recv "$pool/q" -o $full
	expect 6 sh -c "shmk ls > $full"
}
unreadable_files_are_told() {
	make_pool
	mkdir d
	sentence 'cannot read "d"' 1 shmk send "$pool/q" d --create
	sentence "cannot open directory" 3 shmk recv "$pool/q" --dir nothere
	sentence "cannot create" 3 shmk recv "$pool/q" -o nothere/f
}
foreign_messages_are_raw() {
	make_pool
	printf 'abc' | shmk send "$pool/q" --create --raw
	sentence "use --raw" 1 shmk recv "$pool/q"
	printf 'abc' | shmk send "$pool/q" --raw
	printf 'def' | shmk send "$pool/q" --raw
	[ "$(shmk recv "$pool/q" --raw --count 2)" = abcdef ] || exit 1
	printf 'ghi' | shmk send "$pool/q" --raw
	[ "$(shmk recv "$pool/q" --raw)" = ghi ]
}
a_crumbled_pool_still_carries() {
	make_pool 1M
	random 1024 f
	# Small messages all over the pool, so that no large block is left.
	shmk queue create "$pool/small" --capacity 256 || exit 1
	head -c 400000 /dev/zero | shmk send "$pool/small" --raw --block 2K || exit 1
	shmk send "$pool/q" f --create --block 512K 2> s.err & s=$!
	expect 0 shmk recv "$pool/q" --create --timeout 20s
	ends 0 $s
	same f out
}
a_topic_tells_all_its_readers_and_keeps_the_last() {
	make_pool
	expect 0 shmk pub "$pool/t" one two three --create --depth 4 --readers 3
	expect 0 shmk sub "$pool/t" --last --count 1
	[ "$(cat out)" = three ] || exit 1
	expect 0 shmk sub "$pool/t" --oldest --count 3 -v
	grep -q '^2 of peer [0-9]* (gone), 0 missed: two$' out || { cat out; exit 1; }
	for i in 1 2; do
		shmk sub "$pool/t" --count 100 --block -v > r$i 2> r$i.err & eval "r$i=$!"
		until_true grep -q reading r$i.err
	done
	seq 1 100 | shmk pub "$pool/t" --timeout 20s || exit 1
	ends 0 "$r1"
	ends 0 "$r2"
	seq 1 100 > want
	for i in 1 2; do
		sed 's/.*missed: //' r$i | cmp - want || exit 1
	done
}
what_a_topic_refuses_is_told() {
	make_pool
	sentence "no topic .* --create" 3 shmk sub "$pool/t"
	sentence "no topic .* --create" 3 shmk pub "$pool/t" x
	expect 0 shmk pub "$pool/t" x --create --readers 1 --max 16
	sentence "too long" 1 shmk pub "$pool/t" 12345678901234567890
	sentence "0 of 1 messages" 7 shmk sub "$pool/t" --count 1 --timeout 50ms
	mkfifo in
	shmk pub "$pool/t" < in 2> w.err & w=$!
	exec 3> in
	echo y >&3
	until_true sh -c "[ \"\$(shmk sub $pool/t --last --count 1)\" = y ]"
	sentence "has a writer" 4 shmk pub "$pool/t" z
	sentence "has a writer" 7 shmk pub "$pool/t" z --wait --timeout 50ms
	shmk pub "$pool/t" z --wait & p=$!
	kill -KILL $w
	wait $w
	exec 3>&-
	ends 0 $p
	[ "$(shmk sub "$pool/t" --last --count 1)" = z ]
}
# The summary's counts; values and reads are what they are.
chaos_() {
	want=$1
	shift
	expect "$want" shmk chaos "$@"
	tail -n 1 out
}
values_flow_on_while_processes_are_killed_and_started_again() {
	chaos_ 0 4 "$pool" --script "wait 300ms; kill 3; wait 100ms; 3; stop 1; kill 0; wait 100ms
		cont 1; start 0; wait 100ms; kill all; wait 50ms; start all; wait 200ms; kill 2"
	grep -q '^4 processes, 7 kills, 6 starts, .*: torn 0, back 0, still 0$' out || exit 1
	[ "$(grep -c '^kill ' out)" = 7 ] || exit 1
	shmk ls | grep -q "tool.$$" && exit 1
	printf 'wait 100ms\n1;wait 50ms\n1\nwait 100ms\n' | shmk chaos 2 "$pool" > out || exit 1
	grep -q '^2 processes, 1 kills, 1 starts, .*: torn 0, back 0, still 0$' out || exit 1
	sentence "no process '7'" 2 shmk chaos 2 "$pool" --script "kill 7"
	sentence "is no command" 2 shmk chaos 2 "$pool" --script "wave 1"
	sentence "how many" 2 shmk chaos 37
}
chaos_sees_what_stands_still() {
	expect 1 shmk chaos 2 "$pool" --pace 900ms --patience 100ms --script "wait 600ms"
	grep -q 'lives, but .* sees its value stand still' err || { cat err; exit 1; }
	grep -q 'torn 0, back 0, still [1-9]' out || { cat out; exit 1; }
}
the_pool_option_does_as_well() {
	make_pool
	echo x | shmk send --pool "$pool" q --create
	[ "$(shmk recv --pool "$pool" q)" = x ]
}
far_more_than_the_pool_passes() {
	make_pool 1M
	head -c 30000000 /dev/zero | shmk send "$pool/q" --create --ack 2> s.err & s=$!
	n=$(shmk recv "$pool/q" --create 2> r.err | wc -c)
	ends 0 $s
	[ "$n" = 30000000 ]
}
examples_run() {
	command -v pair > /dev/null || skip "examples are not in PATH"
	expect 0 pair "$pool"
	[ "$(grep -c 'got "number' out)" = 5 ] || { cat out; exit 1; }
	expect 0 death "$pool"
	grep -q '3 blocks came back .*in use: 0' out || { cat out; exit 1; }
	expect 0 poller "$pool"
	[ "$(grep -c 'message\|tick\|died' out)" = 8 ] || { cat out; exit 1; }
	expect 0 multi "$pool"
	grep -q '2 parts: "320x200" and 100000 bytes' out || { cat out; exit 1; }
	expect 0 share "$pool"
	[ "$(grep -c '4 references\|worker got "one for all"\|alone again' out)" = 5 ] ||
		{ cat out; exit 1; }
	expect 0 topic "$pool"
	[ "$(sed -n '5s/.*: //p' out)" ] && grep -q '^the last one is .* degrees$' out ||
		{ cat out; exit 1; }
	expect 0 redeliver "$pool"
	grep -qx 'job 1, again' out && [ "$(grep -c '^job .$' out)" = 3 ] || { cat out; exit 1; }
	expect 0 mail "$pool"
	printf 'urgent 1\nurgent 2\nnews 1\nnews 2\nand now: Broken pipe\n' | cmp - out || exit 1
	expect 0 call "$pool"
	printf 'the answer to 1\nthe answer to 2\nOwner died\n' | cmp - out || { cat out; exit 1; }
}
a_call_is_answered() {
	make_pool
	shmk serve "$pool/s" --create --count 4 -- tr a-z A-Z & s=$!
	[ "$(shmk call "$pool/s" --wait --timeout 20s 'hello ' world)" = "HELLO WORLD" ] || exit 1
	[ "$(echo 'from stdin' | shmk call "$pool/s")" = "FROM STDIN" ] || exit 1
	[ "$(shmk call "$pool/s" '')" = "" ] || exit 1
	ends 0 $s
	shmk serve "$pool/s" --count 2 -- sh -c 'cat; exit 3' 2> s.err & s=$!
	head -c 300000 /dev/zero | tr '\0' x > big
	shmk call "$pool/s" < big | cmp - big || exit 1
	expect 0 shmk call "$pool/s" --timeout 20s again
	ends 0 $s
	grep -q "'sh' ended with status 3" s.err
}
servers_die_and_callers_are_told() {
	make_pool
	shmk serve "$pool/s" --create -- sh -c 'kill -9 $PPID; sleep 9' 2> /dev/null & s=$!
	sentence "the server of .*; --retry" 1 shmk call "$pool/s" --wait --timeout 20s x
	[ "$backend" = local ] || grep -q "killed by signal 9" err || { cat err; exit 1; }
	wait $s
	# One dies with it, the next answers.
	shmk serve "$pool/s" -- sh -c 'kill -9 $PPID; sleep 9' 2> /dev/null & s=$!
	shmk call "$pool/s" --retry 3 --timeout 20s z > got 2> c.err & c=$!
	wait $s
	shmk serve "$pool/s" --count 1 -- cat & s=$!
	ends 0 $c
	[ "$(cat got)" = z ] || { cat c.err; exit 1; }
	ends 0 $s
	# Where it may be tried twice nobody needs to ask again.
	shmk serve "$pool/twice" --create --tries 2 -- sh -c 'kill -9 $PPID; sleep 9' 2> /dev/null & s=$!
	shmk call "$pool/twice" --wait --timeout 20s z > got & c=$!
	wait $s
	shmk serve "$pool/twice" --count 1 --verbose -- cat 2> s.err & s=$!
	ends 0 $c
	[ "$(cat got)" = z ] || exit 1
	ends 0 $s
	grep -q "once more" s.err
}
what_a_call_refuses_is_told() {
	make_pool
	sentence "shmk serve" 3 shmk call "$pool/s" x
	sentence "POOL/QUEUE" 2 shmk call
	sentence "POOL/QUEUE" 2 shmk serve
	sentence "which command" 2 shmk serve "$pool/s"
	sentence "cannot make sense" 2 shmk call "$pool/s" --retry often
	expect 0 shmk queue create "$pool/q"
	sentence "not for calls" 2 shmk call "$pool/q" x
	sentence "not for calls" 2 shmk serve "$pool/q" -- cat
	sentence "appeared.* in time" 7 shmk call "$pool/s" --wait --timeout 50ms x
	sentence "no answer .* in time" 7 shmk call "$pool/s" --create --timeout 50ms x
	sentence "0 of 1 requests" 7 shmk serve "$pool/other" --create --count 1 --timeout 50ms -- cat
	shmk serve "$pool/s" --count 2 -- nothere 2> s.err & s=$!	# the one nobody waits for, too
	expect 0 shmk call "$pool/s" --timeout 20s x
	ends 0 $s
	grep -q "cannot run 'nothere'" s.err
}
queues_and_pools_are_drained() {
	make_pool
	printf 'a b' | shmk send --raw "$pool/q" --create || exit 1
	expect 0 shmk queue drain "$pool/q"
	sentence "is not empty yet" 7 shmk queue drain "$pool/q" --wait --timeout 50ms
	sentence "drained" 1 sh -c "printf x | shmk send --raw $pool/q"
	[ "$(shmk recv --raw --count 1 "$pool/q")" = "a b" ] || exit 1
	sentence "shmk show" 3 shmk queue drain "$pool/q"
	expect 0 shmk queue create "$pool/q"
	expect 0 shmk queue drain "$pool/q" --wait --timeout 20s
	shmk sub "$pool/t" --create & s=$!
	until_true eval 'shmk dump "$pool" | grep -q subscribed'
	expect 0 shmk pool drain "$pool"
	sentence "being drained" 4 shmk pub "$pool/t" x
	expect 0 shmk show "$pool"
	grep -q draining out || exit 1
	expect 0 shmk dump "$pool"
	grep -q subscribed out || exit 1
	expect 0 shmk top --batch --count 1 "$pool"
	kill $s
	wait $s
	until_true eval '! shmk show "$pool" > /dev/null 2>&1'
	sentence "shmk ls" 3 shmk pool drain "$pool"
	expect 3 shmk show "$pool"
}
queue_with_redelivery() {
	make_pool 1M
	expect 0 shmk queue create "$pool/r" --redeliver --tries 3
	expect 2 shmk queue create "$pool/s" --tries 3
	expect 0 shmk show --json "$pool"
	grep -q '"redelivers": true' out || { cat out; exit 1; }
}
readme_quotes_the_example() {
	readme=${self%/*}/../README.md
	[ -e "$readme" ] || skip "no README here"
	sed -n '/^```c$/,/^```$/p' "$readme" | sed '1d;$d' > quoted
	sed 's/^\t//' "${self%/*}/../Documentation/examples/pair.c" |
		sed -n '/^pid_t child = fork/,/^shmk_detach/p' | cmp - quoted
}

run_tests "$@"
