# SPDX-License-Identifier: GPL-2.0
#
# make             module and tools into build/ (KDIR= builds the module against a prepared tree)
# make test        everything that must hold before a change lands
# make help        all targets

# A Python that has pytest, else any.
PYTHON ?= $(firstword $(shell for p in /usr/bin/python3 python3; do \
	$$p -c 'import pytest' 2>/dev/null && echo $$p; done) python3)
GROUND := $(PYTHON) $(CURDIR)/scripts/ground
# Host programs are built with the user's cargo, else with the build root's.
CARGO ?= $(if $(shell command -v cargo),cargo,$(GROUND) run cargo)
# Formatter and linters are the build root's, so that all see the same.
ROOT_CARGO := $(GROUND) run env CARGO_TARGET_DIR=/ground/checkout/build/target-lint cargo

WORKSPACES := tests $(if $(wildcard tools/*/Cargo.toml),tools)
PROGRAMS := drbdadm drbdsetup drbdmeta
CRATE_ROOTS := $(addprefix drivers/block/drbd/,drbd.rs engine/drbd_engine.rs sys/drbd_sys.rs \
	bindings/prelude.rs) $(addprefix tests/vm/guest/,agent.rs ledger.rs netlink.rs relay.rs)

DESTDIR ?=
PREFIX ?= /usr
KVER_INSTALL ?= $(shell uname -r)

.PHONY: all
# help: make             module and tools: build/drbd.ko, build/bin/{drbdadm,drbdsetup,drbdmeta}
all: ko tools

.PHONY: help
help:
	@sed -n 's/^# help: //p' Makefile

# help: make prepare     the environment only (build root, kernel, guests' image)
.PHONY: prepare
prepare:
	@$(GROUND) prepare

# help: make ko          the module only; KDIR=TREE builds with the host's compilers against TREE
.PHONY: ko
ifdef KDIR
ko:
	@mkdir -p build/module-kdir
	+$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(CURDIR)/build/module-kdir modules
	@cp build/module-kdir/drbd.ko build/drbd.ko
else
ko:
	@$(GROUND) module KRUSTFLAGS=-Dwarnings
endif

# help: make ko-um, ko-debug, ko-umdebug   the module for User Mode Linux, for the kernels that
# help:                  watch themselves
.PHONY: ko-um ko-umbench ko-debug ko-umdebug
ko-um ko-umbench ko-debug ko-umdebug: ko-%:
	@$(GROUND) prepare --lane $*
	@$(GROUND) module --lane $* KRUSTFLAGS=-Dwarnings

# help: make ko-faults   build/drbd-faults.ko: the module with fault injection, for tests;
# help:                  ko-faults-um, ko-faults-debug, ko-faults-umdebug: for those kernels
.PHONY: ko-faults ko-faults-um ko-faults-debug ko-faults-umdebug
ko-faults:
	@$(GROUND) module --output build/faults KRUSTFLAGS=-Dwarnings DRBD_FAULTS=y
ko-faults-um ko-faults-debug ko-faults-umdebug: ko-faults-%:
	@$(GROUND) module --lane $* --output build/faults-$* KRUSTFLAGS=-Dwarnings DRBD_FAULTS=y

# help: make ko-check CRATE=engine|sys|drbd   compile one crate (and what it needs), no linking
CRATE ?= drbd
object_engine := engine/drbd_engine.o
object_sys := sys/drbd_sys.o
object_drbd := drbd.o
.PHONY: ko-check
ko-check:
	@$(GROUND) module --output build/check-$(CRATE) drivers/block/drbd/$(object_$(CRATE))

# help: make tools       the admin tools only
.PHONY: tools
ifeq ($(filter tools,$(WORKSPACES)),)
tools:
	@echo "tools: nothing to build"
else
tools:
	@mkdir -p build/bin
	cd tools && $(CARGO) build --release --quiet
	@for program in $(PROGRAMS); do \
		if [ -x build/target/release/$$program ]; then \
			cp -f build/target/release/$$program build/bin/$$program.new && \
			mv -f build/bin/$$program.new build/bin/$$program; \
		else \
			ln -sf drbdadm build/bin/$$program; \
		fi; \
	done
endif

# help: make peer        userspace peers that the tests on booted kernels use: build/bin/drbd-peer
.PHONY: peer
peer:
	@mkdir -p build/bin
	cd tests && $(CARGO) build --quiet -p drbd_peer
	@cp -f build/target/debug/drbd-peer build/bin/drbd-peer.new && \
		mv -f build/bin/drbd-peer.new build/bin/drbd-peer

# help: make test        everything that must hold before a change lands
.PHONY: test
test:
	@$(PYTHON) scripts/test.py

# help: make host-test   tests of the engine and the tools on the host
.PHONY: host-test
host-test: $(WORKSPACES:%=host-test-%)
host-test-%:
	cd $* && $(CARGO) test --quiet --workspace

# help: make sim SEEDS=N [SEED=n]   two engines in virtual time; SEED= tells the story of one run,
# help:                  WITHOUT= leaves out events of it, as a failing seed proposes
SEEDS ?= 500
.PHONY: sim
sim:
	cd tests && $(CARGO) run --quiet --release -p drbd_sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) \
		$(if $(WITHOUT),--without $(WITHOUT))

# help: make fuzz TIME=SECONDS   each fuzzer that long; what they find is in build/fuzz/
TIME ?= 60
.PHONY: fuzz
fuzz:
	@$(PYTHON) scripts/fuzz.py --seconds $(TIME)

# help: make coverage    which lines of the engine the tests on the host and the simulator reach
.PHONY: coverage
coverage:
	@$(PYTHON) scripts/coverage.py

# help: make vm-test [TESTS=]   tests on booted kernels; TESTS= files, or options of pytest
TESTS ?=
NAMED = $(patsubst test_%,tests/vm/test_%,$(TESTS))
PYTEST = $(PYTHON) -m pytest --rootdir tests/vm -c tests/vm/pytest.ini \
	$(if $(filter tests/vm/%,$(NAMED)),,tests/vm) $(NAMED)
.PHONY: vm-test
vm-test: ko peer
	$(PYTEST)

# help: make um-test [TESTS=]      the same on User Mode Linux, at native speed
# help: make debug-test [TESTS=]   the same on a kernel that watches locks, memory and sleeping
# help: make umdebug-test [TESTS=] the same on User Mode Linux that watches itself
.PHONY: um-test debug-test umdebug-test
um-test debug-test umdebug-test: %-test: ko-% peer
	DRBD_LANE=$* $(PYTEST)

# help: make um-suite, debug-suite, umdebug-suite [LABS=4] [TESTS=]   all files on a lane, or those,
# help:                  LABS at a time; what became of them on each lane: build/suite.md
.PHONY: um-suite debug-suite umdebug-suite
um-suite debug-suite umdebug-suite: %-suite: ko-% peer tools
	@$(PYTHON) scripts/suite.py --lane $* --labs $(LABS) $(TESTS)

# help: make fault-matrix [CELLS=] [LABS=4]   the fault matrix on User Mode Linux, LABS columns at a
# help:                  time; CELLS= columns, or parts of cells' names
CELLS ?= $(foreach drivers,ours-ours ours-C C-ours C-C,$(foreach protocol,C B A,\
	$(foreach when,writes resync,$(when)_$(protocol)_$(drivers))))
LABS ?= 4
.PHONY: fault-matrix
fault-matrix: ko-um
	@printf '%s\n' $(CELLS) | DRBD_LANE=um xargs -P $(LABS) -I{} \
		$(PYTHON) -m pytest --rootdir tests/vm -c tests/vm/pytest.ini -q --long -k {} \
		tests/vm/test_faults.py
	@echo "the matrix: build/fault-matrix.md"

# help: make bench [ROWS=] [RUNS=5] [LANE=qemu|um|engine] [WIRE=cards|frames]   side by side with the
# help:                  C driver: table, JSON, plot in build/bench/; um: on User Mode Linux, at native
# help:                  speed; engine: instructions of the engine's hot functions; cards: network
# help:                  cards that segment and sum
ROWS ?=
RUNS ?= 5
LANE ?= qemu
WIRE ?= $(if $(wildcard /dev/net/tun),cards,frames)
.PHONY: bench bench-qemu bench-um bench-engine
bench: bench-$(LANE)
bench-qemu: prepare ko
	@$(PYTHON) scripts/bench --wire $(WIRE) --rows "$(ROWS)" --runs $(RUNS)
bench-um: ko-umbench
	@$(PYTHON) scripts/bench --lane um --rows "$(ROWS)" --runs $(RUNS)
bench-engine:
	@$(PYTHON) scripts/bench/engine.py

# help: make demo        the manual, step by step, on two booted guests; prepares all it needs
.PHONY: demo
demo: prepare ko tools
	@$(PYTHON) scripts/demo

# help: make lint        formatter, clippy as errors, house rules, panics and stack of the module
.PHONY: lint lint-format lint-host lint-kernel lint-rules
lint: lint-format lint-host lint-kernel lint-rules
lint-format:
	@$(GROUND) run rustfmt --check --edition 2021 $(CRATE_ROOTS)
	@for workspace in $(WORKSPACES); do \
		(cd $$workspace && $(ROOT_CARGO) fmt --check) || exit 1; \
	done
lint-host: $(WORKSPACES:%=lint-host-%)
lint-host-%:
	@cd $* && $(ROOT_CARGO) clippy --quiet --workspace --all-targets -- -D warnings
lint-kernel:
	@$(GROUND) module --output build/clippy CLIPPY=1 KRUSTFLAGS=-Dwarnings \
		drivers/block/drbd/drbd.o
lint-rules: ko
	@$(PYTHON) scripts/lint.py --objects build/module

# help: make format      let the formatter change the files
.PHONY: format
format:
	@$(GROUND) run rustfmt --edition 2021 $(CRATE_ROOTS)
	@for workspace in $(WORKSPACES); do (cd $$workspace && $(ROOT_CARGO) fmt) || exit 1; done

# help: make rust-analyzer      rust-project.json for editors
.PHONY: rust-analyzer
rust-analyzer:
	@$(GROUND) rust-analyzer

# help: make install     module (below /lib/modules/KVER_INSTALL/updates), tools, init script and
# help:                  unit; make install-module only the module, beside drbd-utils; DESTDIR=
.PHONY: install install-module install-tools uninstall
install: install-module install-tools
install-module:
	install -D -m 644 build/drbd.ko \
		$(DESTDIR)/lib/modules/$(KVER_INSTALL)/updates/drbd.ko
	$(if $(DESTDIR),,depmod $(KVER_INSTALL))
install-tools:
	@for program in $(PROGRAMS); do \
		install -v -D -m 755 build/bin/$$program $(DESTDIR)$(PREFIX)/sbin/$$program || exit 1; \
	done
	install -D -m 755 tools/init/drbd $(DESTDIR)/etc/init.d/drbd
	install -D -m 644 tools/init/drbd.service $(DESTDIR)$(PREFIX)/lib/systemd/system/drbd.service

# help: make uninstall   removes what install put there
uninstall:
	rm -f $(DESTDIR)/lib/modules/$(KVER_INSTALL)/updates/drbd.ko
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/sbin/,$(PROGRAMS)) $(DESTDIR)/etc/init.d/drbd \
		$(DESTDIR)$(PREFIX)/lib/systemd/system/drbd.service
	$(if $(DESTDIR),,depmod $(KVER_INSTALL))

# help: make clean       removes build/; the cache outside the checkout stays
.PHONY: clean
clean:
	rm -rf build rust-project.json
