# The front door. Each target is what a person could type.
#
#   make                                    build the VMM with its guest
#   make run INPUT=disk.img OUTPUT=copy.img copy a disk inside a VM
#   make help                               all targets and variables

CARGO ?= cargo
# Where cargo builds, which the user may have told it (asked once, when somebody wants to know; root may
# have no cargo). It builds for this machine, whatever other target the environment names. What was found is
# not read as a makefile again: the path may have a dollar sign in it.
TARGET_DIR = $(eval TARGET_DIR := $$(or $$(call target_directory),$$(value CARGO_TARGET_DIR),$$(CURDIR)/target))$(TARGET_DIR)
target_directory = $(shell $(CARGO) metadata --no-deps --offline --format-version 1 2>/dev/null | \
  sed -n 's/.*"target_directory":"\(\([^"\\]\|\\.\)*\)".*/\1/p' | sed 's/\\\(.\)/\1/g')
unexport CARGO_BUILD_TARGET
VMM = $(TARGET_DIR)/release/vmm
# What `make fuzz` works on, and how long on each: so many seconds, or so many inputs if RUNS is set.
TARGETS ?= block racing console serial sessions formats convert loader
SECONDS ?= 60

# Quoted for the shell: paths may hold spaces and anything else.
quote = '$(subst ','\'',$(1))'
option = $(if $(2),$(1) $(call quote,$(2)))

# Where `make install` puts things; DESTDIR comes before all of it, for who makes a package.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/vmm
INSTALL ?= install

# A static build is for this target: x86_64-unknown-linux-musl too, once rustup has added it.
STATIC_TARGET ?= x86_64-unknown-linux-gnu
STATIC_VMM = $(TARGET_DIR)/$(STATIC_TARGET)/release/vmm

# Named up here, since what is phony is read at once.
MIRI_PARTS = miri-block miri-devices miri-copy miri-kit miri-inspect miri-convert miri-shared

.PHONY: all build run demo static install uninstall doc generated picture test test-static test-nested test-oracles \
  fresh-check coverage deny lint bench bench-reference fuzz fuzz-coverage \
  miri $(MIRI_PARTS) miri-toolchain mutants clean help

all: build

build:
	$(CARGO) build --release --locked
	@test -x $(call quote,$(VMM)) || { echo 'there is no' $(call quote,$(VMM)) 'after the build: take build.target out of the configuration of cargo' >&2; exit 2; }

# The paths go through the environment as they were given: nothing in them is for make or for the shell.
run: export VMM_INPUT = $(value INPUT)
run: export VMM_OUTPUT = $(value OUTPUT)
run: build
	@test -n "$$VMM_INPUT" && test -n "$$VMM_OUTPUT" || { echo 'usage: make run INPUT=disk.img OUTPUT=copy.img' >&2; exit 2; }
	@$(call quote,$(VMM)) --input "$$VMM_INPUT" --output "$$VMM_OUTPUT" \
	  $(call option,--input-sector-size,$(INPUT_SECTOR_SIZE)) \
	  $(call option,--output-sector-size,$(OUTPUT_SECTOR_SIZE)) \
	  $(call option,--progress-percent,$(PROGRESS)) $(ARGS)

# Needs no file of yours: it makes one.
demo: build
	@examples/demo.sh $(call quote,$(VMM))

# Runs on any Linux of this processor, whatever C library it has. With a target named, the flags are
# not for build scripts. For glibc it takes its static library (libc6-dev, glibc-static).
static:
	RUSTFLAGS='-C target-feature=+crt-static' $(CARGO) build --release --locked --target $(STATIC_TARGET)
	@echo $(call quote,$(STATIC_VMM))

# Builds nothing, so that root need not run cargo: `make && sudo make install`.
install uninstall: export VMM_DESTDIR = $(value DESTDIR)
install:
	@test -x $(call quote,$(VMM)) || { echo 'there is no' $(call quote,$(VMM)) 'yet: run make first' >&2; exit 2; }
	$(call put,755,$(VMM),$(BINDIR)/vmm)
	$(call put,644,resources/man/vmm.1,$(MANDIR)/man1/vmm.1)
	$(call put,644,resources/completions/vmm.bash,$(DATADIR)/bash-completion/completions/vmm)
	$(call put,644,resources/completions/_vmm,$(DATADIR)/zsh/site-functions/_vmm)
	$(call put,644,resources/completions/vmm.fish,$(DATADIR)/fish/vendor_completions.d/vmm.fish)
	for file in $(DOCS); do $(INSTALL) -D -m 644 "$$file" $(call place,$(DOCDIR))/"$$file" || exit; done

uninstall:
	rm -f $(foreach file,$(INSTALLED) $(addprefix $(DOCDIR)/,$(DOCS)),$(call place,$(file)))
	for folder in $(sort $(patsubst %/,%,$(dir $(DOCS)))); do \
	  (cd $(call place,$(DOCDIR)) && rmdir -p "$$folder") 2>/dev/null; done; \
	  rmdir $(call place,$(DOCDIR)) 2>/dev/null || true

# With the two files of the source that a guest's author needs, so that all links of the README lead somewhere.
DOCS = README.md LICENSE-APACHE LICENSE-BSD-3-Clause proto/guest.proto guest/abi/src/layout.rs \
  $(wildcard .github/*.md docs/*.md docs/*/*.svg resources/*.md resources/*.svg)
INSTALLED = $(BINDIR)/vmm $(MANDIR)/man1/vmm.1 $(DATADIR)/bash-completion/completions/vmm \
  $(DATADIR)/zsh/site-functions/_vmm $(DATADIR)/fish/vendor_completions.d/vmm.fish
# $(call put,MODE,FILE,PLACE)
put = $(INSTALL) -D -m $(1) $(call quote,$(2)) $(call place,$(3))
# A place in the file system that is installed into, quoted for the shell.
place = "$$VMM_DESTDIR"$(call quote,$(1))

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --workspace
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --manifest-path guest/Cargo.toml

# The man page and the completions, after a change of the options. `make test` compares them.
generated:
	BLESS=1 $(CARGO) test --locked --lib -- cli::generated::

test:
	@tests/run

# What a static binary must do: start where there is nothing else, and copy in its sandbox.
test-static: static
	VMM_BINARY=$(call quote,$(STATIC_VMM)) $(CARGO) test --locked --test static --test nested

# The README's two commands, in a fresh clone and a clean environment.
fresh-check:
	@tests/fresh-check

# RUNNER runs a command on another host that has a KVM of its own: RUNNER -p FOLDER -- COMMAND.
test-nested: build
	VMM=$(call quote,$(VMM)) tests/nested/run $(call quote,$(RUNNER))

# Other readers of disk images, in a Python environment of their own, beside the conversions.
ORACLES = $(TARGET_DIR)/oracles
test-oracles:
	@command -v python3 >/dev/null || { echo 'make test-oracles needs python3 with its module venv' >&2; exit 2; }
	test -x $(call quote,$(ORACLES)/bin/pip) || python3 -m venv $(call quote,$(ORACLES))
	$(call quote,$(ORACLES)/bin/python) -m pip install --quiet --requirement tests/oracles/requirements.txt
	VMM_ORACLES=$(call quote,$(ORACLES)/bin/python) $(CARGO) test --locked --test convert oracles::

# How much of the code the tests run: of whole VMs too, whose processes may not open a file at their
# end, so that their counters are in mapped files from the beginning (%c).
coverage:
	@cargo llvm-cov --version >/dev/null 2>&1 || { echo 'make coverage needs cargo-llvm-cov: cargo install cargo-llvm-cov && rustup component add llvm-tools' >&2; exit 2; }
	LLVM_PROFILE_FILE_NAME='vmm-%p%c.profraw' RUSTFLAGS='-C llvm-args=-runtime-counter-relocation' \
	  $(CARGO) llvm-cov --locked --workspace --summary-only --ignore-run-fail --failure-mode all \
	  --ignore-filename-regex '(^|/)(tests|examples)/'

# Licences, sources and doubles of the dependencies. Without the network, once `cargo fetch` has been
# here and in guest/: ARGS=--offline. The guest need not have every double that is allowed.
deny:
	@cargo deny --version >/dev/null 2>&1 || { echo 'make deny needs cargo-deny: cargo install cargo-deny' >&2; exit 2; }
	$(CARGO) deny $(ARGS) --locked check bans licenses sources
	$(CARGO) deny $(ARGS) --locked --config deny.toml --manifest-path guest/Cargo.toml check -A unmatched-skip bans licenses sources

lint:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --all --check --manifest-path guest/Cargo.toml
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace --lib --bins --manifest-path guest/Cargo.toml -- -D warnings
	$(CARGO) clippy --locked --workspace --lib --tests --manifest-path guest/Cargo.toml -- -D warnings
	$(CARGO) test --quiet --locked --lib -- cli::generated::

# The picture of a terminal in the README. It takes 2 GiB of room for a moment, below TMPDIR.
picture:
	$(CARGO) bench --locked --bench picture -- draw

# Both take BENCH_BYTES, BENCH_RUNS, BENCH_DIR, BENCH_FULL, BENCH_PUBLISH and BENCH_VMM from the
# environment or the command line: docs/performance.md says what they are.
BENCH = $(CARGO) bench --locked --bench copy --
export BENCH_BYTES BENCH_RUNS BENCH_DIR BENCH_FULL BENCH_PUBLISH BENCH_VMM

bench:
	$(BENCH) bench

bench-reference:
	$(BENCH) reference

# Coverage and sanitizers need compiler flags that are unstable: a nightly toolchain has them, and
# RUSTC_BOOTSTRAP gives them to a stable one. docs/fuzzing.md says why the options are these.
fuzz: export ASAN_OPTIONS = detect_odr_violation=0:detect_stack_use_after_return=0:malloc_context_size=1:quarantine_size_mb=8
fuzz:
	@command -v cargo-fuzz >/dev/null || { echo 'make fuzz needs cargo-fuzz and a nightly toolchain: cargo install cargo-fuzz && rustup toolchain install nightly' >&2; exit 2; }
	@if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then toolchain=+nightly; else export RUSTC_BOOTSTRAP=1; fi; \
	for target in $(TARGETS); do \
	  mkdir -p fuzz/corpus/$$target && \
	  cargo $$toolchain fuzz run --no-trace-compares $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    $(if $(RUNS),-runs=$(RUNS),-max_total_time=$(SECONDS)) -max_len=1024 -entropic_scale_per_exec_time=1 \
	    -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=64 -print_final_stats=1 || exit; \
	done

# Which lines the inputs that were collected reach, and in fuzz/coverage/html which they do not.
fuzz-coverage:
	fuzz/measure

# Miri is a component of nightly toolchains, though not of each night's.
# It interprets one test after the other: with `make -j2 -Oline miri` two processors do. Each part can
# also be had alone. What cargo starts has no use for make's own way to count jobs, and warns of it.
MIRI = MAKEFLAGS= $(CARGO) +nightly miri test --locked
MIRI_GUEST = $(MIRI) --lib --manifest-path guest/Cargo.toml --package
miri: $(MIRI_PARTS)
$(MIRI_PARTS): export MIRIFLAGS = -Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks
$(MIRI_PARTS): export PROPTEST_CASES = 4
$(MIRI_PARTS): miri-toolchain
miri-toolchain:
	@$(CARGO) +nightly miri --version >/dev/null 2>&1 || { echo 'make miri needs a nightly toolchain with Miri: rustup toolchain install nightly --component miri' >&2; exit 2; }
miri-shared:
	$(MIRI) --package guest-abi --package guest-protocol
miri-kit:
	$(MIRI_GUEST) guest-kit --features digest -- --skip machine::
miri-copy:
	$(MIRI_GUEST) guest-copy
miri-inspect:
	$(MIRI_GUEST) guest-inspect
miri-convert:
	$(MIRI_GUEST) guest-convert -- pool:: config::
miri-block:
	$(MIRI) --lib --package vmm -- virtio::block::
miri-devices:
	$(MIRI) --lib --package vmm -- --skip files:: --skip virtio::block:: virtio:: devices:: storage::

# In a copy of the tree, since the guest's workspace needs what is beside it. FILES narrows it:
# FILES='src/virtio/chain.rs src/files/*.rs'; files of the guest begin with guest/.
mutants:
	@command -v cargo-mutants >/dev/null || { echo 'make mutants needs cargo-mutants: cargo install cargo-mutants' >&2; exit 2; }
	tests/mutants/run $(FILES)

clean:
	$(CARGO) clean
	$(CARGO) clean --manifest-path guest/Cargo.toml

help:
	@echo 'make                 build target/release/vmm, the guest included'
	@echo 'make run             copy INPUT to OUTPUT; takes INPUT_SECTOR_SIZE, OUTPUT_SECTOR_SIZE,'
	@echo '                     PROGRESS, and ARGS for any other option of vmm'
	@echo 'make demo            make a disk, copy it, compare, and show what there is to see'
	@echo 'make static          a binary that needs no library; STATIC_TARGET for musl'
	@echo 'make install         install it with man page, completions and docs below PREFIX (/usr/local);'
	@echo '                     takes DESTDIR; make uninstall removes them'
	@echo 'make doc             the documentation of the code, below target/doc'
	@echo 'make generated       write man page and completions anew after a change of the options'
	@echo 'make test            build everything and run all tests'
	@echo 'make test-static     build a static binary and test it'
	@echo 'make test-nested     run a few tests on the host that RUNNER boots'
	@echo 'make test-oracles    compare conversions with other readers of images; needs python3'
	@echo 'make fresh-check     do what the README says in a fresh clone; takes long'
	@echo 'make coverage        how much of the code the tests run; needs cargo-llvm-cov'
	@echo 'make deny            licences and sources of the dependencies; needs cargo-deny'
	@echo 'make picture         the picture of a terminal in the README'
	@echo 'make lint            rustfmt and clippy, warnings denied; man page and completions compared'
	@echo 'make bench           measure beside cp, dd and qemu-img; takes BENCH_BYTES, BENCH_RUNS'
	@echo 'make bench-reference the table of an earlier prototype again, with 10,000,000 sectors; an hour'
	@echo 'make fuzz            fuzz TARGETS (block racing console serial sessions formats convert loader) for SECONDS'
	@echo '                     (60) each, or RUNS inputs; needs cargo-fuzz and nightly Rust;'
	@echo '                     make fuzz-coverage says what it reached'
	@echo 'make miri            run what needs no system under Miri; needs nightly Rust with Miri'
	@echo 'make mutants         look for code that no unit test holds, in FILES or in all; needs'
	@echo '                     cargo-mutants, and an hour for all'
	@echo 'make clean           remove what was built'
