#!/usr/bin/env bash
# The whole test suite; HERM_TEST_POSTGRES_URL must be set, which scripts/postgres.sh does.
#
#   scripts/postgres.sh scripts/test.sh [ARGUMENT OF cargo nextest run…]
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${HERM_TEST_POSTGRES_URL:-}" ]; then
    echo "test: HERM_TEST_POSTGRES_URL is not set; use \`make test\`, or run this through scripts/postgres.sh" >&2
    exit 1
fi

# Compiles in the places where a test may end the process.
features=()
if grep -qs '^fault-points' crates/cli/Cargo.toml; then
    features=(--features herm-cli/fault-points)
fi

# The end-to-end tests run the binary, which no test of its own package makes Cargo build. With `--tests`, so that
# its dependencies are the very ones the tests use and are built once.
cargo build --workspace --bins --tests "${features[@]}"
cargo nextest run --workspace "${features[@]}" "$@"
# Two thousand requests made from the OpenAPI document, against the binary.
scripts/schemathesis.sh
# nextest does not run the examples in the documentation.
cargo test --quiet --doc --workspace "${features[@]}"
