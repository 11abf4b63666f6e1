#!/usr/bin/env bash
# Runs the whole test suite. It needs HERM_TEST_POSTGRES_URL and HERM_TEST_DOCKER_HOST, which scripts/postgres.sh and
# scripts/docker.sh set.
#
#   scripts/postgres.sh scripts/docker.sh scripts/test.sh [ARGUMENT OF cargo nextest run…]
set -euo pipefail
cd "$(dirname "$0")/.."

for name in HERM_TEST_POSTGRES_URL HERM_TEST_DOCKER_HOST; do
    if [ -z "${!name:-}" ]; then
        echo "test: $name is not set; run \`make test\`, or run this script through scripts/postgres.sh and scripts/docker.sh" >&2
        exit 1
    fi
done

# Compiles failpoints in, at which a test can end the process.
features=()
if grep -qs '^failpoints' crates/cli/Cargo.toml; then
    features=(--features "herm-cli/failpoints herm-e2e/failpoints")
fi

# The end-to-end tests run the binary, which Cargo does not build for tests of another package. With `--tests`, its
# dependencies are built once, with the same features as for the tests.
cargo build --workspace --bins --tests "${features[@]}"
cargo nextest run --workspace "${features[@]}" "$@"
# Sends about two thousand generated requests to the binary.
scripts/schemathesis.sh
# nextest does not run documentation tests.
cargo test --quiet --doc --workspace "${features[@]}"
