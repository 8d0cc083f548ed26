# `make demo` and `make test` do all their set-up by themselves.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
LIBRARIES := -p reunion-source-file -p reunion-source-sql -p reunion-channel-file

.PHONY: help demo test bench docs

help:
	@echo "make demo   build, and run a small retailer's data to the end"
	@echo "make test   formatting, lints, and every test"
	@echo "make bench  speed and memory at 100 k, 1 M and 5 M rows (release build, long)"
	@echo "make docs   write the generated reference pages anew"

demo:
	$(CARGO) build --quiet -p reunion-daemon $(LIBRARIES)
	config/demo/run.sh

test:
	integration-tests/setup.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- --deny warnings
	$(CARGO) build --workspace
	$(CARGO) test --workspace

bench:
	$(CARGO) build --release -p reunion-daemon $(LIBRARIES) -p reunion-integration-tests
	integration-tests/bench.sh

docs:
	UPDATE_DOCS=1 $(CARGO) test --quiet -p reunion-daemon --test config_reference
