# SPDX-License-Identifier: GPL-2.0-only
#
#   make                library, tool, tests; shmk.ko for every kernel whose headers are found
#   make KDIR=...       the same with shmk.ko for that kernel only
#   make hosttest       tests that need no module, in seconds       [T=queue_test]
#   make vmtest         tests in QEMU, on 6.1 and 6.12              [T=peer_test KERNEL=7.2]
#   make check          everything, installing what is missing; ends in one summary line
#   make demo           what shmk does, shown
#   make bench          shmk and its peers side by side             [BENCH='-r 5 ping:64']
#   make storm mutants explore fuzz   long modes of the tests: see Documentation/testing.rst
#   make matrix         what passed where, into Documentation/testing.rst
#   make sparse style   checkers
#   make install        [DESTDIR= prefix=/usr/local]; modules_install for the running kernel
#
# V=1 shows commands and test output. B=dir builds elsewhere. USER_CFLAGS is added for
# all that runs in user space: make B=build/asan USER_CFLAGS=-fsanitize=address hosttest

VERSION := 0.1.0

# Kbuild reads "Kbuild" first, so this file is only ever used from outside.
B := build
SHMK_CACHE ?= $(or $(HOME),/root)/.cache/shmk
export B SHMK_CACHE V

prefix := /usr/local
bindir = $(prefix)/bin
libdir = $(prefix)/lib
includedir = $(prefix)/include
mandir = $(prefix)/share/man
INSTALL := install

Q := $(if $(filter 1,$(V)),,@)
say = $(if $(Q),@printf '  %-7s %s\n' $(1) $(2))

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: all lib tools bench examples selftests modules

all: lib tools examples selftests modules

# ---- user space ----

CC := gcc
PKG_CONFIG := pkg-config
CFLAGS ?= -O2 -g
# _GNU_SOURCE is empty so that a file may define it too.
cflags := -std=gnu11 $(CFLAGS) -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-D_GNU_SOURCE= -DSHMK_VERSION='"$(VERSION)"' \
	-Ilib/include -Ikmod/include/uapi $(USER_CFLAGS)
# Asked for when the first object is made: without the packages, `make clean`
# and `make check` (which installs them) still have to work.
uring_cflags = $(eval uring_cflags := $$(shell $(PKG_CONFIG) --cflags liburing))$(uring_cflags)
uring_libs = $(eval uring_libs := $$(shell $(PKG_CONFIG) --libs liburing))$(uring_libs)
ncurses_libs = $(eval ncurses_libs := $$(shell $(PKG_CONFIG) --libs ncursesw))$(ncurses_libs)
mnl_libs = $(eval mnl_libs := $$(shell $(PKG_CONFIG) --libs libmnl))$(mnl_libs)
objs = $(patsubst %.c,$(B)/obj/$(1)/%.o,$(2))

# settle.c settles for the kernel and, on the local backend, for the library.
lib_src := $(wildcard lib/*.c kmod/settle.c)
lib_private := -Ikmod -Ilib
soname := libshmk.so.0

lib: $(B)/lib/libshmk.a $(B)/lib/libshmk.so

$(call objs,static,$(lib_src)): cflags += $(lib_private) $(uring_cflags) -fvisibility=hidden
$(call objs,shared,$(lib_src)): cflags += $(lib_private) $(uring_cflags) -fvisibility=hidden -fPIC

# One rule each: a pattern rule with two targets would make both at once.
define compile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(cflags) -MMD -MP -c -o $@ $<
endef
$(B)/obj/static/%.o: %.c Makefile
	$(compile)
$(B)/obj/shared/%.o: %.c Makefile
	$(compile)

# In an archive, what the library's files share among themselves would clash
# with a program's own names. So they become one object that hides it, and
# tests, which look inside, get the other archive. libmnl is there as a shared library only,
# so a static program goes without it, see socket_open() in lib/monitor.c.
$(B)/lib/libshmk.a: $(call objs,static,$(lib_src))
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)$(LD) -r -o $(@:.a=.o) $^ && objcopy --localize-hidden --wildcard --weaken-symbol='mnl_*' $(@:.a=.o) && \
		rm -f $@ && $(AR) rcs $@ $(@:.a=.o) && rm $(@:.a=.o)

$(B)/lib/libshmk-private.a: $(call objs,static,$(lib_src))
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/lib/$(soname): $(call objs,shared,$(lib_src)) lib/libshmk.map
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(USER_CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(soname) \
		$(if $(findstring -fsanitize,$(CFLAGS) $(USER_CFLAGS)),,-Wl,-z,defs) \
		-Wl,--version-script=lib/libshmk.map -o $@ $(filter %.o,$^) $(uring_libs) $(mnl_libs) -pthread

$(B)/lib/libshmk.so: $(B)/lib/$(soname)
	$(Q)ln -sf $(soname) $@

# The tool is linked statically with the library: it has to work on a machine
# where an installed library does not. The archive refers to libmnl weakly, for
# which some linkers would drop it.
own_bench := $(addprefix tools/bench/,limit.c self.c kernel.c cost.c)
tool_src := $(wildcard tools/*.c) $(own_bench)
# Other transports to compare with: built where their packages are, see selftests/deps.
example_src := $(wildcard Documentation/examples/*.c)
example_prog := $(patsubst Documentation/examples/%.c,$(B)/examples/%,$(example_src))

tools: $(B)/bin/shmk
examples: $(example_prog)

$(call objs,tools,$(tool_src)): cflags += $(uring_cflags) -Itools
$(B)/obj/tools/%.o: %.c Makefile
	$(compile)

$(B)/bin/shmk: $(call objs,tools,$(tool_src)) $(B)/lib/libshmk.a
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(USER_CFLAGS) $(LDFLAGS) -o $@ $^ $(uring_libs) $(ncurses_libs) -pthread \
		-Wl,--push-state,--no-as-needed $(mnl_libs) -Wl,--pop-state

# $(1) name, $(2) a header that says it is there, $(3) flags
define peer_rules
ifneq ($$(wildcard $(2)),)
peer_prog += $$(B)/bench/$(1)
endif
$$(B)/bench/$(1): $$(wildcard tools/bench/$(1).c*) tools/bench/bench.h Makefile
	$$(call say,CC,$$@)
	@mkdir -p $$(@D)
	$$(Q)$$(if $$(filter %.cc,$$<),g++ -O2 -g,$$(CC) -std=gnu11 $$(CFLAGS)) -Wall -Wextra -o $$@ $$< $(3)
endef
peer_prog :=
$(eval $(call peer_rules,zmq,/usr/include/zmq.h,-lzmq))
$(eval $(call peer_rules,nng,/usr/include/nng/nng.h,-lnng))
$(eval $(call peer_rules,boost,/usr/include/boost/interprocess/ipc/message_queue.hpp,-lrt))
$(eval $(call peer_rules,dpdk,$(wildcard /usr/include/dpdk/rte_ring.h /usr/include/*/dpdk/rte_ring.h),$$$$($(PKG_CONFIG) --cflags libdpdk) -lrte_ring -lrte_eal))
$(eval $(call peer_rules,iceoryx,/usr/include/iceoryx/v2.0.3/iceoryx_binding_c/api.h,-I/usr/include/iceoryx/v2.0.3 -liceoryx_binding_c))
$(eval $(call peer_rules,ucx,/usr/include/ucp/api/ucp.h,-lucp -lucs))
$(eval $(call peer_rules,libfabric,/usr/include/rdma/fabric.h,-lfabric))

# Examples are what a user would write: public header, shared library.
$(example_prog): $(B)/examples/%: Documentation/examples/%.c $(B)/lib/libshmk.so Makefile
	$(call say,CC,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(cflags) -MMD -MP -MF $@.d $(LDFLAGS) -o $@ \
		$< -L$(B)/lib -lshmk -Wl,-rpath,'$$ORIGIN/../lib' -pthread

include selftests/Makefile

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- the module ----

# One tree builds for several kernels: each has a directory of links to the
# sources, because Kbuild puts objects beside them.
# With KERNEL=6.12 (in the cache) for that one only.
one := $(KERNEL:%=$(SHMK_CACHE)/kernels/%)
kdirs := $(or $(KDIR),$(wildcard $(one:%=%/usr/src/linux-headers-*-amd64) $(one:%=%/build)),\
	$(wildcard $(SHMK_CACHE)/kernels/*/usr/src/linux-headers-*-amd64 \
	$(SHMK_CACHE)/kernels/*/build /lib/modules/*/build /usr/src/linux-headers-*-amd64))
release = $(shell sed -n 's/.*UTS_RELEASE "\(.*\)".*/\1/p' $(1)/include/generated/utsrelease.h 2>/dev/null)
module_src := $(shell find kmod -name '*.[ch]')
releases :=

# $(1) release, $(2) its headers, $(3) directory, $(4) more for Kbuild
# Objects of another configuration must not be taken for new ones: the debug
# kernel's headers are in a new place with each.
define module_build
	@mkdir -p $(3)
	@printf '%s\n' "$$(realpath $(2)) $$(cksum < $(2)/include/generated/autoconf.h)" > $(3)/.kernel.new
	@cmp -s $(3)/.kernel.new $(3)/.kernel || rm -rf $(3)/kmod
	@mv $(3)/.kernel.new $(3)/.kernel
	@find $(3) -type l -delete
	@cp -as $(CURDIR)/Kbuild $(CURDIR)/kmod $(3)/
	+$(Q)$(MAKE) $(if $(Q),-s) -C $(2) M=$(abspath $(3)) SHMK_VERSION=$(VERSION) $(4) modules
endef

define module_rules
releases += $(1)
headers-$(1) := $(2)
modules: $(B)/$(1)/shmk.ko
$(B)/$(1)/shmk.ko: Kbuild Makefile $(module_src) $(wildcard $(2)/include/generated/autoconf.h $(dir $(2))release)
	$$(call say,MODULE,$$@)
	$$(call module_build,$(1),$(2),$(B)/$(1))
	@touch $$@
hooks: $(B)/hooks/$(1)/shmk.ko
$(B)/hooks/$(1)/shmk.ko: Kbuild Makefile $(module_src) $(wildcard $(2)/include/generated/autoconf.h $(dir $(2))release)
	$$(call say,MODULE,$$@)
	$$(call module_build,$(1),$(2),$(B)/hooks/$(1),SHMK_TEST_HOOKS=y)
	@touch $$@
endef

# Several directories may hold the headers of one release; the first is used.
$(foreach d,$(kdirs),$(foreach r,$(call release,$(d)),\
	$(if $(filter $(r),$(releases)),,$(eval $(call module_rules,$(r),$(d))))))

# With test hooks (kmod/point.h); only the guest loads it.
.PHONY: hooks
hooks:

modules:
	$(if $(releases),,@echo "no kernel headers found, shmk.ko is not built" >&2)

# Where modules_install and sparse find a kernel: KDIR's, or the running one's.
running := $(shell uname -r)
.PHONY: modules_install sparse style
modules_install: release := $(if $(KDIR),$(firstword $(releases)),$(running))
modules_install: modules
	$(if $(headers-$(release)),,$(error no headers for $(release); give KDIR))
	+$(Q)$(MAKE) -C $(headers-$(release)) M=$(abspath $(B)/$(release)) \
		$(if $(DESTDIR),INSTALL_MOD_PATH=$(DESTDIR)) modules_install

# One kernel is enough: the newest of this Debian release, whose sparse knows it.
sparse: release := $(or $(shell cat $(SHMK_CACHE)/kernels/6.12/release 2>/dev/null),\
	$(lastword $(shell printf '%s\n' $(releases) | sort -V)))
sparse:
	$(if $(release),,$(error no kernel headers found))
	$(call module_build,$(release),$(headers-$(release)),$(B)/sparse,C=2 CF=-Wsparse-error)

checkpatch = perl $(SHMK_CACHE)/linux/scripts/checkpatch.pl --no-tree --no-summary --terse -f \
	--max-line-length=100 --ignore=LINUX_VERSION_CODE,FILE_PATH_CHANGES
style:
	@$(checkpatch) --strict $(shell find kmod -name '*.[ch]'); status=$$?; \
	$(checkpatch) --ignore=PREFER_KERNEL_TYPES $(wildcard lib/*.[ch] lib/include/*.h tools/*.[ch] \
		selftests/*.[ch] selftests/vm/*.c) && exit $$status

# ---- tests ----

.PHONY: hosttest vmtest check demo
hosttest: lib tools examples selftests
	+@selftests/vm/check host $(T)

vmtest: all hooks
	+@KERNEL=$(KERNEL) selftests/vm/check vm $(T)

# Both install what they need first, so they must not depend on what is built
# with it: this make has already looked for headers and found none.
check:
	+@selftests/vm/check all

demo:
	+@selftests/vm/check demo

# shmk and its peers side by side; the machine should have nothing else to do.
bench:
	+@selftests/deps build bench
	+@$(MAKE) --no-print-directory bench-peers
	@$(B)/bin/shmk bench --peers $(B)/bench -o $(B)/bench/results $(BENCH)

.PHONY: bench-peers bench-report
bench-peers: tools $(peer_prog)

# Plots of the last run of make bench.
bench-report:
	+@selftests/deps build report
	@tools/bench/report $(B)/bench/results $(B)/bench/report

# Long modes; what is short of them is part of check.
.PHONY: storm mutants explore fuzz matrix
# What the runs in build/results say, into the documentation; MATRIX='--as 7.2=other'.
matrix:
	selftests/matrix $(MATRIX) --write Documentation/testing.rst $(wildcard $(B)/results/*.tsv)
storm: selftests
	$(B)/selftests/storm --kills 10000
mutants:
	selftests/mutate
explore: selftests
	EXPLORE_STATES=0 $(B)/selftests/explore
fuzz: selftests
	SHMK_FUZZ_SECONDS=$${SHMK_FUZZ_SECONDS:-300} SHMK_TEST_BACKEND=local $(B)/selftests/hostile_fuzz
	+@$(MAKE) --no-print-directory parser-fuzz

# Debian's clang is needed. What is found lies in build/fuzz, and is run again by
# build/selftests/parser_fuzz NOUN FILE.
.PHONY: parser-fuzz
nouns := names numbers conf options stream ranges netlink dir settle fsck
parser-fuzz: fuzzer := $(abspath $(B))/fuzz
parser-fuzz:
	+$(Q)$(MAKE) --no-print-directory B=$(fuzzer) CC=clang FUZZER=1 $(fuzzer)/selftests/parser_fuzz
	$(Q)for noun in $(nouns); do echo "$$noun:"; mkdir -p $(fuzzer)/corpus/$$noun; \
		SHMK_FUZZ_NOUN=$$noun $(fuzzer)/selftests/parser_fuzz -max_len=2048 -timeout=30 \
		-max_total_time=$$(($${SHMK_FUZZ_SECONDS:-300} / $(words $(nouns)))) -print_final_stats=1 \
		-verbosity=0 -detect_leaks=0 -artifact_prefix=$(fuzzer)/$$noun- $(fuzzer)/corpus/$$noun \
		$(CURDIR)/selftests/corpus/$$noun || exit; done

# ---- installing ----

man_src := $(wildcard Documentation/man/*.[1-8])
trace_src := $(wildcard tools/trace/*)

# Without it a program finds the library only after the next boot. Not the
# business of who makes a package, nor possible for who is not root.
ldconfig = $(if $(DESTDIR),,@ldconfig 2>/dev/null || echo "could not run ldconfig for $(libdir)" >&2)

.PHONY: install uninstall clean
install: lib tools
	$(INSTALL) -d $(DESTDIR)$(bindir) $(DESTDIR)$(libdir)/pkgconfig $(DESTDIR)$(includedir)/shmk/linux
	$(INSTALL) -m 755 $(B)/bin/shmk $(DESTDIR)$(bindir)/
	$(INSTALL) -m 644 $(B)/lib/libshmk.a $(DESTDIR)$(libdir)/
	$(INSTALL) -m 755 $(B)/lib/$(soname) $(DESTDIR)$(libdir)/
	ln -sf $(soname) $(DESTDIR)$(libdir)/libshmk.so
	$(INSTALL) -m 644 lib/include/shmk.h $(DESTDIR)$(includedir)/
	$(INSTALL) -m 644 kmod/include/uapi/linux/shmk.h kmod/include/uapi/linux/shmk_layout.h \
		kmod/include/uapi/linux/shmk_netlink.h \
		$(DESTDIR)$(includedir)/shmk/linux/
	sed -e 's|@prefix@|$(prefix)|g' -e 's|@libdir@|$(libdir)|g' \
		-e 's|@includedir@|$(includedir)|g' -e 's|@version@|$(VERSION)|g' \
		lib/shmk.pc.in > $(DESTDIR)$(libdir)/pkgconfig/shmk.pc
	$(foreach m,$(man_src),$(INSTALL) -D -m 644 $(m) \
		$(DESTDIR)$(mandir)/man$(subst .,,$(suffix $(m)))/$(notdir $(m)) &&) true
	$(INSTALL) -D -m 644 tools/completion/shmk.bash \
		$(DESTDIR)$(prefix)/share/bash-completion/completions/shmk
	$(INSTALL) -d $(DESTDIR)$(prefix)/share/shmk/trace
	$(INSTALL) -m 755 $(trace_src) $(DESTDIR)$(prefix)/share/shmk/trace/
	$(INSTALL) -D -m 644 tools/system/70-shmk.rules $(DESTDIR)$(prefix)/lib/udev/rules.d/70-shmk.rules
	$(INSTALL) -D -m 644 tools/system/sysusers.conf $(DESTDIR)$(prefix)/lib/sysusers.d/shmk.conf
	$(INSTALL) -D -m 644 tools/system/modules-load.conf $(DESTDIR)$(prefix)/lib/modules-load.d/shmk.conf
	$(INSTALL) -d $(DESTDIR)$(prefix)/lib/systemd/system
	sed 's|@bindir@|$(bindir)|' tools/system/shmk-pools.service.in \
		> $(DESTDIR)$(prefix)/lib/systemd/system/shmk-pools.service
	$(ldconfig)

uninstall:
	rm -f $(DESTDIR)$(bindir)/shmk $(addprefix $(DESTDIR)$(libdir)/,libshmk.a $(soname) libshmk.so \
		pkgconfig/shmk.pc) $(addprefix $(DESTDIR)$(includedir)/,shmk.h shmk/linux/shmk.h \
		shmk/linux/shmk_layout.h shmk/linux/shmk_netlink.h) \
		$(foreach m,$(man_src),$(DESTDIR)$(mandir)/man$(subst .,,$(suffix $(m)))/$(notdir $(m))) \
		$(addprefix $(DESTDIR)$(prefix)/lib/,udev/rules.d/70-shmk.rules sysusers.d/shmk.conf \
		modules-load.d/shmk.conf systemd/system/shmk-pools.service) \
		$(DESTDIR)$(prefix)/share/bash-completion/completions/shmk \
		$(addprefix $(DESTDIR)$(prefix)/share/shmk/trace/,$(notdir $(trace_src)))
	-rmdir $(DESTDIR)$(includedir)/shmk/linux $(DESTDIR)$(includedir)/shmk \
		$(DESTDIR)$(prefix)/share/shmk/trace $(DESTDIR)$(prefix)/share/shmk
	$(ldconfig)

clean:
	rm -rf $(B)
