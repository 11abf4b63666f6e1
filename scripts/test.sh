#!/usr/bin/env bash
# The whole test suite; HERM_TEST_POSTGRES_URL and HERM_TEST_DOCKER_HOST must be set, which scripts/postgres.sh and
# scripts/docker.sh do.
#
#   scripts/postgres.sh scripts/docker.sh scripts/test.sh [ARGUMENT OF cargo nextest run…]
set -euo pipefail
cd "$(dirname "$0")/.."

for name in HERM_TEST_POSTGRES_URL HERM_TEST_DOCKER_HOST; do
    if [ -z "${!name:-}" ]; then
        echo "test: $name is not set; use \`make test\`, or run this through scripts/postgres.sh and scripts/docker.sh" >&2
        exit 1
    fi
done

# Compiles in the places where a test may end the process.
features=()
if grep -qs '^fault-points' crates/cli/Cargo.toml; then
    features=(--features "herm-cli/fault-points herm-e2e/fault-points")
fi

# The end-to-end tests run the binary, which no test of its own package makes Cargo build. With `--tests`, so that
# its dependencies are the very ones the tests use and are built once.
cargo build --workspace --bins --tests "${features[@]}"
cargo nextest run --workspace "${features[@]}" "$@"
# Two thousand requests made from the OpenAPI document, against the binary.
scripts/schemathesis.sh
# nextest does not run the examples in the documentation.
cargo test --quiet --doc --workspace "${features[@]}"
