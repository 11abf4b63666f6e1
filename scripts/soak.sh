#!/usr/bin/env bash
# The tests that find what happens rarely, for long. Each part can be run alone; without a name all are.
#
#   scripts/postgres.sh scripts/docker.sh scripts/soak.sh [PART…]
#
#   sandboxes   sandboxes of each engine come and go, 1,000 of each; nothing of them may be left
#   simulation  lives of simulated servers, by seeds; on PostgreSQL a tenth as many as on SQLite
#   suite       all other tests, with more rounds of what is random and more cases of each property
#   stream      streams of events through servers that are killed, with the SDK
#   kills       a release build under load that never stops, killed at random every few seconds, its memory watched: ten
#               minutes on SQLite, then ten on PostgreSQL. It prints its seed, which HERM_TEST_SEED gives back to it, and
#               one line of JSON for each database; HERM_TEST_SECONDS says how long each of them takes
#
# HERM_TEST_ROUNDS, HERM_TEST_SEEDS, HERM_TEST_MUTATIONS and PROPTEST_CASES say how many; docs/reference/reliability.md what was found.
set -euo pipefail
cd "$(dirname "$0")/.."

COME_AND_GO='test(sandboxes_come_and_go_without_leaving_anything)'
KILLS='test(random_kills_lose_and_double_nothing)'
SEEDS='(binary(simulation) and test(seeds))'

rounds() { # rounds USUAL COMMAND [ARGUMENT…]
    local usual=$1
    shift
    HERM_TEST_ROUNDS=${HERM_TEST_ROUNDS:-$usual} "$@"
}

part() {
    case "$1" in
    sandboxes) rounds 1000 cargo nextest run -p herm-sandbox --profile soak -E "$COME_AND_GO" ;;
    simulation) HERM_TEST_SEEDS=${HERM_TEST_SEEDS:-5000} cargo nextest run --workspace --profile soak \
        --features herm-cli/fault-points,herm-e2e/fault-points --success-output immediate -E "$SEEDS" ;;
    suite) HERM_TEST_MUTATIONS=${HERM_TEST_MUTATIONS:-50000} PROPTEST_CASES=${PROPTEST_CASES:-5000} \
        rounds 2000 scripts/test.sh --profile soak -E "not ($COME_AND_GO or $SEEDS or $KILLS)" ;;
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
        echo "soak: there is no part $1; there are: ${PARTS[*]}" >&2
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
