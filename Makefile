# SPDX-License-Identifier: GPL-2.0
#
# make             module and tools into build/ (KDIR= builds the module against a prepared tree)
# make test        everything that must hold before a change lands
# make help        all targets

PYTHON ?= $(firstword $(shell for p in /usr/bin/python3 python3; do \
	$$p -c 'import pytest' 2>/dev/null && echo $$p; done) python3)
CARGO ?= $(if $(shell command -v cargo),cargo,$(PYTHON) scripts/ground run cargo)
GROUND := $(PYTHON) scripts/ground
PROGRAMS := drbdadm drbdsetup drbdmeta

.PHONY: all
all: ko tools

.PHONY: help
help:
	@sed -n 's/^# help: //p' Makefile

# help: make             module and tools: build/drbd.ko, build/bin/{drbdadm,drbdsetup,drbdmeta}
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
tools:
	@mkdir -p build/bin
	cd tools && $(CARGO) build --release --quiet
	@for program in $(PROGRAMS); do \
		if [ -x build/target/release/$$program ]; then \
			cp -f build/target/release/$$program build/bin/$$program; \
		else \
			ln -sf drbdadm build/bin/$$program; \
		fi; \
	done

# help: make engine-test the engine's tests on the host
.PHONY: engine-test
engine-test:
	cd tests && $(CARGO) test --quiet

# help: make vm-test [TESTS=] tests on booted kernels
TESTS ?=
.PHONY: vm-test
vm-test: ko
	$(PYTHON) -m pytest --rootdir tests/vm -c tests/vm/pytest.ini \
		$(if $(filter test_%,$(TESTS)),$(patsubst test_%,tests/vm/test_%,$(TESTS)),tests/vm $(TESTS))

.PHONY: clean
# help: make clean       remove build/; the cache outside the checkout stays
clean:
	rm -rf build rust-project.json
