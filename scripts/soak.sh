#!/usr/bin/env bash
# Runs long tests that find rare errors. Without a PART it runs all parts.
#
#   scripts/postgres.sh scripts/docker.sh scripts/soak.sh [PART…]
#
#   sandboxes   starts and stops 1,000 sandboxes of each engine; none may leave anything behind
#   simulation  simulates servers from seeds; PostgreSQL gets a tenth as many seeds as SQLite
#   suite       all other tests, with more rounds of random tests and more cases of each property test
#   stream      event streams of the SDK from servers that are killed
#   kills       a release build under constant load that is killed at random every few seconds while its memory is
#               measured: ten minutes on SQLite, then ten on PostgreSQL. It prints its seed, which HERM_TEST_SEED
#               repeats, and one line of JSON for each database. HERM_TEST_SECONDS sets the time for each database
#
# HERM_TEST_ROUNDS, HERM_TEST_SEEDS, HERM_TEST_MUTATIONS and PROPTEST_CASES set the numbers of rounds, seeds, requests
# and cases. docs/reference/reliability.md lists the results.
set -euo pipefail
cd "$(dirname "$0")/.."

START_AND_STOP='test(starting_and_stopping_sandboxes_repeatedly_leaves_nothing_behind)'
KILLS='test(random_kills_lose_and_double_nothing)'
SEEDS='(binary(simulation) and test(seeds))'

rounds() { # rounds DEFAULT COMMAND [ARGUMENT…]
    local default=$1
    shift
    HERM_TEST_ROUNDS=${HERM_TEST_ROUNDS:-$default} "$@"
}

part() {
    case "$1" in
    sandboxes) rounds 1000 cargo nextest run -p herm-sandbox --profile soak -E "$START_AND_STOP" ;;
    simulation) HERM_TEST_SEEDS=${HERM_TEST_SEEDS:-5000} cargo nextest run --workspace --profile soak \
        --features herm-cli/failpoints,herm-e2e/failpoints --success-output immediate -E "$SEEDS" ;;
    suite) HERM_TEST_MUTATIONS=${HERM_TEST_MUTATIONS:-50000} PROPTEST_CASES=${PROPTEST_CASES:-5000} \
        rounds 2000 scripts/test.sh --profile soak -E "not ($START_AND_STOP or $SEEDS or $KILLS)" ;;
    stream)
        cargo build -p herm-cli
        HERM_BINARY="$(cargo_target)/debug/herm" rounds 2000 \
            npm --silent --prefix sdk/typescript test -- server/stream
        ;;
    kills)
        cargo build --release -p herm-cli
        for database in sqlite postgres; do
            HERM_BINARY="$(cargo_target)/release/herm" HERM_TEST_SECONDS=${HERM_TEST_SECONDS:-600} \
                cargo nextest run -p herm-e2e --profile soak --no-capture -E "$KILLS and test($database)"
        done
        ;;
    *)
        echo "soak: unknown part: $1; the parts are: ${PARTS[*]}" >&2
        exit 2
        ;;
    esac
}

cargo_target() {
    realpath -m "${CARGO_TARGET_DIR:-target}"
}

PARTS=(sandboxes simulation suite stream kills)
[ $# -gt 0 ] || set -- "${PARTS[@]}"
for name in "$@"; do
    echo "soak: $name" >&2
    part "$name"
done
