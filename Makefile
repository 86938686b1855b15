# Every target has one sentence: `make help`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.tools/bin:$(PATH)
export CARGO_TERM_COLOR ?= auto

# Arguments of `make run`, such as `make run ARGS="--port 9090"`.
ARGS ?=
# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 10
# How many seeds the simulation runs, with which faults (mixed or power), and from which seed on.
SEEDS ?= 50
FAULTS ?= mixed
FROM ?= 1
# Which benchmark `make bench` runs: see `cargo run -p kelda-bench -- --help`.
BENCH ?= all
# Which faults `make chaos` injects and how often, such as "--scale 0.1" or "kill-leader wipe": see tests/long_run.rs.
CHAOS ?=
# Headline of a step.
STEP = @printf '\n== %s\n'
# Makes target/debug/kelda as the tests do: another set of packages would have other features, and build them anew.
BINARY = cargo test --workspace --locked --no-run --quiet

.PHONY: help run test verify fmt lint doc unit deny buf baseline grpcurl examples cluster simulation fuzz bench chaos tools

help: ## Lists the targets.
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

run: ## Builds the release binary and runs a broker on this machine, with its data in ./kelda-data.
	@tools/install system
	@echo "building target/release/kelda (the first build takes some minutes)"
	cargo build --release --locked -p kelda-cli
	@echo "running target/release/kelda dev $(ARGS): a one-node broker on loopback; Ctrl-C stops it"
	@exec target/release/kelda dev $(ARGS)

test: verify grpcurl examples cluster simulation fuzz ## Sets up what it needs and runs every check and every test.

verify: tools ## Runs what every change must pass: format, lints, contract, dependencies, docs, unit and integration tests.
	$(STEP) "format"
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/simulation/Cargo.toml --check
	@$(MAKE) --no-print-directory buf deny lint doc unit

tools:
	@tools/install system

fmt: tools ## Formats the Rust sources.
	cargo fmt --all
	cargo fmt --manifest-path fuzz/Cargo.toml
	cargo fmt --manifest-path tests/simulation/Cargo.toml

lint: tools ## Runs clippy over all code and refuses any warning.
	$(STEP) "lints"
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: tools ## Builds the documentation of the crates and refuses broken links.
	$(STEP) "documentation"
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

unit: tools ## Runs the unit, property and integration tests.
	$(STEP) "tests"
	cargo test --workspace --locked

deny: tools ## Checks licences, banned crates and sources of the dependencies, and advisories where their database can be fetched.
	$(STEP) "dependencies"
	@tools/install deny
	cargo deny --locked check --hide-inclusion-graph bans licenses sources
	@if cargo deny --locked fetch db >/dev/null 2>&1; then \
		cargo deny --locked check --disable-fetch --hide-inclusion-graph advisories; \
	else \
		echo "advisories not checked: their database cannot be fetched from here"; \
	fi

buf: ## Lints the protos, and compares them with the released contract.
	$(STEP) "contract"
	@tools/install buf
	buf lint proto
	buf breaking proto --against proto/baseline/v1.binpb

baseline: ## Makes the present protos the released contract that `make buf` compares with.
	@tools/install buf
	buf build proto --path proto/kelda/v1 --exclude-source-info -o proto/baseline/v1.binpb

grpcurl: tools ## Runs the real grpcurl against a broker: list, describe, create, produce, consume.
	$(STEP) "grpcurl"
	@tools/install grpcurl
	@$(BINARY)
	tests/grpcurl.sh target/debug/kelda

examples: tools ## Runs the walk-through of the README word for word.
	$(STEP) "README walk-through"
	@$(BINARY)
	examples/orders/walkthrough.sh target/debug/kelda

cluster: tools ## Starts clusters of two and three nodes by hand, and kills a leader under load.
	$(STEP) "cluster"
	@$(BINARY)
	tests/test_cluster.sh target/debug/kelda

# In its directory, for the flags in its .cargo.
simulation: tools ## Simulates clusters whose nodes, disks and network fail, SEEDS of them with FAULTS from seed FROM on.
	$(STEP) "simulation"
	cd tests/simulation && cargo test --locked --quiet
	@mkdir -p tests/simulation/target
	cd tests/simulation && cargo run --locked --quiet -- $(SEEDS) --faults $(FAULTS) --from $(FROM) --report target/report.jsonl

fuzz: tools ## Fuzzes every decoder for FUZZ_SECONDS each, where a nightly toolchain is installed.
	$(STEP) "fuzzing"
	tools/fuzz $(FUZZ_SECONDS)

bench: tools ## Measures Kelda beside the raw disk and writes bench/results/ (BENCH=name for one of them).
	cargo build --release --locked -p kelda-cli -p kelda-bench
	target/release/kelda-bench $(BENCH)

chaos: tools ## Injects faults into clusters under load, some twenty minutes of them, and writes bench/results/ (CHAOS="--scale 0.1" for less).
	cargo build --release --locked -p kelda-cli
	KELDA_TEST_BINARY=$(CURDIR)/target/release/kelda cargo test --locked --test long_run -- inject-faults $(CHAOS)
