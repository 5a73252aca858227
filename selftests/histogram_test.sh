#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# histogram_test.sh [TEST...]: tools/trace tells how fast who sleeps is woken and the dead are
# settled. KTAP; see tool_lib.sh.

self=$(command -v "$0")
case $self in /*) ;; *) self=$PWD/$self ;; esac
. "${self%/*}/tool_lib.sh"

tools=${self%/*}
[ ! -d "$tools/../tools/trace" ] || tools=$tools/../tools/trace
tracing=/sys/kernel/tracing

# wakeups_: a receiver that sleeps gets three messages, and is killed
wakeups_() {
	shmk recv --raw "$pool/q" --create --follow > got 2> r.err & r=$!
	peers 1
	for i in 1 2 3; do
		until_true eval "shmk show '$pool' --json | grep -q '\"recv_waiting\": true'"
		printf '%s' $i | shmk send --raw "$pool/q" || exit 1
		until_true eval '[ "$(cat got | wc -c)" = '$i ' ]'
	done
	kill -KILL $r
	wait $r
	shmk wait "$pool" --at-most 0 --timeout 20s || exit 1
}
need_tracing_() {
	[ -d $tracing/events ] || mount -t tracefs tracefs $tracing 2> /dev/null
	[ -d $tracing/events/sched ] || skip "this kernel has no tracepoints"
	[ -d $tracing/events/shmk ] || { echo "no tracepoints of shmk"; exit 1; }
}
# sum_ FILE: of the hit counts in a histogram of tracefs
sum_() { sed -n 's/.*hitcount: *\([0-9]*\).*/\1/p' "$1" | { n=0; while read -r i; do n=$((n + i)); done; echo $n; }; }
# traced_ SCRIPT: what it tells of wakeups_ is in traced
traced_() {
	command -v bpftrace > /dev/null || skip "no bpftrace here"
	need_tracing_
	# It starts what follows -c when all is attached, and ends with it.
	printf 'touch attached; until [ -e over ]; do sleep 0.1; done\n' > until_over
	bpftrace -c "$(command -v sh) until_over" "$tools/$1" > traced 2> traced.err & b=$!
	left=600
	until [ -e attached ]; do
		kill -0 $b 2> /dev/null || { cat traced.err; exit 1; }
		[ $((left -= 1)) -gt 0 ] || { echo "bpftrace does not begin"; exit 1; }
		sleep 0.1
	done
	wakeups_
	touch over
	ends 0 $b
	cat traced traced.err
}

# ---- tests ----

the_kernel_counts_wakeups_and_settling() {
	need_tracing_
	[ -e $tracing/synthetic_events ] || skip "this kernel has no CONFIG_SYNTH_EVENTS"
	make_pool
	at_exit="$tools/histograms stop"
	expect 0 "$tools/histograms" start
	expect 1 "$tools/histograms" start
	wakeups_
	expect 0 "$tools/histograms" show
	cat out
	sed '/shmk_settled/,$d' out > wakeup
	sed '1,/shmk_settled/d' out > settled
	grep -q 'queue: .*side: .*us: ~ 2^' wakeup && [ "$(sum_ wakeup)" -ge 1 ] || exit 1
	# The receiver, and those that only looked or sent.
	grep -q 'took_ns: ~ 2^' settled && [ "$(sum_ settled)" -ge 5 ] || exit 1
	expect 0 "$tools/histograms" stop
	! grep -q shmk $tracing/synthetic_events || exit 1
	expect 1 "$tools/histograms" show
}
bpftrace_tells_wakeups() {
	make_pool
	traced_ wakeup.bt
	grep -q '^@wakeup_us\[receivers\]:' traced || exit 1
}
bpftrace_tells_each_end() {
	make_pool
	traced_ settle.bt
	grep -q "^${pool#*:} .* killed  *9 " traced && grep -q '^@settle_us:' traced || exit 1
}
messages_are_timed_by_the_librarys_own_probes() {
	command -v bpftrace > /dev/null || skip "no bpftrace here"
	bpftrace -e 'BEGIN { exit() }' > begin 2>&1 || skip "no bpf here: $(tail -n 1 begin)"
	lib=$(ldd "$(command -v pair)" | sed -n 's/.*=> \(.*libshmk[^ ]*\) .*/\1/p')
	[ "$lib" ] || skip "no shared library here"
	lib=$(readlink -f "$lib")
	grep -q stapsdt "$lib" || skip "the library was built without probes"
	# What follows -c would be the only process that it looks at, too early. Attached is what comes last.
	(cat "$tools/message.bt"; printf '%s\n' 'interval:ms:50 { printf("attached\n"); }') > m.bt
	bpftrace -B line m.bt "$lib" > traced 2> traced.err & b=$!
	until_true grep -q attached traced
	pair "$pool" > got || exit 1
	kill -INT $b
	wait $b		# it complains when it lets go where tracefs is not mounted
	grep -v attached traced > out
	cat out traced.err
	# Of five, as many as were not received before the sender had told.
	[ "$(sed -n '/@bytes/,/^$/s/^\[[^ ]* *[0-9]*[)\]]* *\([0-9]*\) .*/\1/p' out)" = 5 ] || exit 1
	grep -q '^@in_queue_us\[0\]:' out
}

run_tests "$@"
