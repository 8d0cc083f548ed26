# `make demo` and `make test` do all their set-up by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
LIBRARIES := -p reunion-source-file -p reunion-source-sql -p reunion-channel-file -p reunion-channel-webhook

.PHONY: help demo test test-erp test-readers bench bench-linkage docs

help:
	@echo "make demo      build, and run a small retailer's data to the end"
	@echo "make test      formatting, lints, and every test but those of test-erp and test-readers"
	@echo "make test-erp  what a clerk does in a real ERP, Tryton from PyPI, arrives"
	@echo "make test-readers  DuckDB, Polars and pyarrow, from PyPI, read the state with its key"
	@echo "make bench     speed and memory at 100 k, 1 M and 5 M rows (release build, long)"
	@echo "make bench-linkage  probable duplicates: precision and recall on FEBRL and on invented members, 1 M of them"
	@echo "make docs      write the generated reference pages anew"

demo:
	$(CARGO) build --quiet -p reunion-daemon $(LIBRARIES)
	$(CARGO) build --quiet -p reunion-channel-webhook --example receiver
	config/demo/run.sh

test:
	integration-tests/setup.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- --deny warnings
	$(CARGO) build --workspace
	$(CARGO) test --workspace

test-erp:
	integration-tests/setup.sh erp
	$(CARGO) build --workspace
	integration-tests/in-python.sh erp

test-readers:
	integration-tests/setup.sh erp
	$(CARGO) build --workspace
	integration-tests/in-python.sh readers

bench:
	$(CARGO) build --release -p reunion-daemon $(LIBRARIES) -p reunion-source-dummy -p reunion-integration-tests
	integration-tests/bench.sh
	$${CARGO_TARGET_DIR:-target}/release/bench_workers

bench-linkage:
	integration-tests/bench-linkage.sh

docs:
	UPDATE_DOCS=1 $(CARGO) test --quiet -p reunion-daemon --test config_reference
