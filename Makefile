# All targets honour CARGO_TARGET_DIR and install missing programs: see scripts/setup.sh.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# The profile of cargo nextest. .ci/run uses `ci`.
NEXTEST_PROFILE ?= default
# The parts that `make soak` runs; all parts if empty. See scripts/soak.sh.
SOAK_PARTS ?=

SDK := npm --silent --prefix sdk/typescript

comma := ,
FEATURES := $(shell grep -qs '^failpoints' crates/cli/Cargo.toml && echo --features herm-cli/failpoints$(comma)herm-e2e/failpoints)

.PHONY: help demo test soak bench openapi check check-format check-lint check-docs check-dependencies check-scripts \
	check-sdk sdk test-sdk fmt setup release

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Build Herm and show a working agent, in a temporary data directory
	@scripts/setup.sh rust sandbox
	cargo build --release -p herm-cli
	@data_dir=$$(mktemp -d); trap 'rm -rf "$$data_dir"' EXIT; \
		HERM_DATA_DIR="$$data_dir" "$(TARGET_DIR)/release/herm" demo

test: ## Run all tests, with a temporary PostgreSQL server and Docker engine
	@scripts/setup.sh
	scripts/postgres.sh scripts/docker.sh scripts/test.sh --profile $(NEXTEST_PROFILE)
	HERM_BINARY="$(TARGET_DIR)/debug/herm" $(SDK) test

test-sdk: ## Run only the tests of the TypeScript SDK
	@scripts/setup.sh rust sandbox node chromium
	cargo build -p herm-cli
	HERM_BINARY="$(TARGET_DIR)/debug/herm" $(SDK) test

soak: ## Run the same tests with many more rounds and cases; this takes hours
	@scripts/setup.sh
	scripts/postgres.sh scripts/docker.sh scripts/soak.sh $(SOAK_PARTS)

bench: ## Measure latency, throughput and memory, and compare with other agent servers
	@scripts/setup.sh rust sandbox docker
	cargo build --release -p herm-cli
	scripts/docker.sh cargo run --release -p herm-bench

check: check-format check-lint check-docs check-dependencies check-scripts check-sdk ## Run all checks that are not tests

check-format:
	@scripts/setup.sh rust
	cargo fmt --all --check

check-lint:
	@scripts/setup.sh rust
	cargo clippy --workspace --all-targets -- -D warnings
	$(if $(FEATURES),cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings)

check-docs:
	@scripts/setup.sh rust
	scripts/check-docs.sh
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

check-dependencies:
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check; \
		else echo "cargo-deny is not installed: licences and advisories are not checked"; fi

check-scripts:
	@scripts/setup.sh shellcheck
	shellcheck .ci/run scripts/*.sh

check-sdk:
	@scripts/setup.sh node
	$(SDK) run check

openapi: ## Generate openapi/v1.json from the code
	cargo run --quiet -p herm-api --example openapi > openapi/v1.json.new
	mv openapi/v1.json.new openapi/v1.json

sdk: ## Generate the SDK's types from openapi/v1.json, and build the SDK
	@scripts/setup.sh node
	$(SDK) run types
	$(SDK) run build

fmt: ## Format the code
	cargo fmt --all
	@scripts/setup.sh node
	$(SDK) run format

setup: ## Install everything that building and testing need
	scripts/setup.sh

release: ## Build a release archive and its checksum
	@scripts/setup.sh rust
	scripts/release.sh
