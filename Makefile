# The doors of this repository: `make run`, `make test`, `make acme`, `make test-cluster`, `make test-helm`, `make test-ship`, `make cost`, `make lint`, `make bench`.

# Node.js, where `tests/sdk/install` had to bring its own.
export PATH := $(CURDIR)/tests/sdk/.bin:$(PATH)
SHELL := /bin/bash

.PHONY: run test acme test-cluster test-helm test-ship helm unit sdk cost scale lint bench tools

# Whatever is built for tests is built as part of the whole workspace, whose crates agree on features: a part of it alone would
# compile all that is above them once more.

# The server with its demo app and the demo page on http://127.0.0.1:6001/
run:
	cargo run

# Everything: the Rust tests, then certificates by ACME, then the official clients against the built server, then what the hot
# path costs.
test: tools
	cargo test --workspace --locked
	$(MAKE) --no-print-directory acme
	$(MAKE) --no-print-directory sdk
	$(MAKE) --no-print-directory cost

# The Rust tests alone.
unit:
	cargo test --workspace --locked

# Certificates by ACME, from Pebble, the service that Let's Encrypt tests clients with; Go builds it once.
acme:
	@if [ -f tests/acme/.bin/.installed ] || command -v go >/dev/null; then tests/acme/install && cargo test --workspace --locked --test acme; \
	else echo "!! NOT RUN: certificates by ACME (make acme), since Go is not installed, which their service is built with"; fi

# The official clients alone; SUITES="go java" chooses some.
sdk: tools
	cargo build --workspace --bin fanwire --locked
	node tests/sdk/run.mjs $(SUITES)

# Three nodes under load while brokers and nodes are killed, frozen and cut off: minutes, and many processes.
# FAULTS="redis nats_frozen" chooses some by words of their names, FAULTS="soak --seconds 600" goes on for longer.
test-cluster: tools
	cargo test --workspace --locked --test faults -- $(FAULTS)

# The chart of `helm/fanwire`: rendered by the real helm, held against the schemas of Kubernetes, given to the server.
# CHART="Meaning" chooses some by words of their names.
test-helm:
	@tests/helm/install
	cargo build --workspace --bin fanwire --locked
	tests/helm/.venv/bin/python -B -m unittest discover --verbose -s tests/helm $(addprefix -k ,$(CHART))

# The chart's schema and the table of its README, written anew when a setting or a value has changed.
helm:
	@tests/helm/install
	cargo build --workspace --bin fanwire --locked
	tests/helm/.venv/bin/python helm/generate.py target/debug/fanwire

# What is shipped: the image, the Debian package with its systemd unit, the compose file with its dashboard. As root on Debian
# or Ubuntu; minutes, since a release is compiled, and less when that is there. SHIP="image" chooses some.
test-ship: tools
	tests/ship/install
	cargo test --locked --test ship -- --test-threads 1 --nocapture $(SHIP)

# What the hot path costs, in allocations, system calls and instructions, against its budgets (tests/cost/budget.rs);
# COST="allocations --watch trigger" looks into one of them.
cost: tools
	cargo test --locked --profile cost --test cost -- $(COST)

# How far a cluster goes, for docs/scaling.md: SCALE="relay --driver nats", SCALE="roster --nodes 50" (10 GiB), SCALE="--help";
# and how fast an app is found among 100,000, for docs/performance.md: SCALE="apps".
scale:
	cargo test --release --locked --test scale -- $(or $(SCALE),--help)

lint: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check licenses bans sources; \
	else echo "!! NOT RUN: cargo deny, which is not installed (cargo install cargo-deny)"; fi
	@set -e; for file in tests/sdk/*.mjs tests/sdk/node/*.mjs src/server/demo/demo.js; do node --check "$$file"; done
	@set -e; for file in tests/sdk/install tests/acme/install tests/helm/install tests/ship/install .ci/run loadtest/compare.sh loadtest/peers/*.sh; do bash -n "$$file"; done
	@tests/sdk/python/.venv/bin/python -m compileall -q -f tests/sdk/python/*.py tests/helm/*.py helm/*.py
	@if command -v gofmt >/dev/null; then test -z "$$(gofmt -l tests/sdk/go | tee /dev/stderr)"; \
	else echo "!! NOT RUN: gofmt, which is not installed"; fi
	@cmp tests/sdk/node/node_modules/pusher-js/dist/web/pusher.min.js src/server/demo/pusher.min.js

# The figures of docs/performance.md; FIGURES="lone flood --repeat 11" chooses some.
bench:
	cargo build --release --locked --workspace
	target/release/loadtest figures $(FIGURES)

# What the tests need besides Rust; a fraction of a second when it is there.
tools:
	@tests/sdk/install
