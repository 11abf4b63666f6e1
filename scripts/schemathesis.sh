#!/usr/bin/env bash
# Tests the server against its OpenAPI document with generated requests, valid and invalid ones. The server must never
# return a 5xx status, and every response must match the document.
#
#   scripts/schemathesis.sh [ARGUMENT OF schemathesis run…]      needs the built binary; `make test` builds it
#   scripts/schemathesis.sh --install                            only installs schemathesis
#
# Schemathesis is installed once, outside of this tree: in $XDG_CACHE_HOME or ~/.cache.
set -euo pipefail
cd "$(dirname "$0")/.."

# A fixed version, because other versions generate other requests.
VERSION=4.32.5
# The seed of the requests. To use another one: HERM_TEST_SEED=7 scripts/schemathesis.sh
SEED=${HERM_TEST_SEED:-20261124}
# Random requests for each operation, in addition to those at the limits of its schema.
MAX_EXAMPLES=40
START_TIMEOUT_S=30

cache="${XDG_CACHE_HOME:-$HOME/.cache}/herm/schemathesis-$VERSION"

fail() {
    printf 'schemathesis: %s\n' "$*" >&2
    exit 1
}

install() {
    [ ! -x "$cache/bin/schemathesis" ] || return 0
    echo "schemathesis: installing version $VERSION into $cache, once"
    rm -rf "$cache"
    python3 -m venv "$cache" || fail "python3 failed to create a virtual environment; run scripts/setup.sh schemathesis"
    "$cache/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$VERSION"
}

install
[ "${1:-}" != --install ] || exit 0

herm="${CARGO_TARGET_DIR:-target}/debug/herm"
[ -x "$herm" ] || fail "$herm is not built: run \`cargo build -p herm-cli\`"
herm=$(realpath "$herm")
document=$PWD/openapi/v1.json

dir=$(mktemp -d)
server=
# shellcheck disable=SC2317 # The trap calls it.
stop() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    [ -z "$server" ] || wait "$server" 2>/dev/null || true
    rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

key=$("$herm" keys generate)
(
    cd "$dir"
    exec env -i PATH="$PATH" HERM_DATA_DIR="$dir/data" HERM_LISTEN=127.0.0.1:0 HERM_BOOTSTRAP_KEY="$key" \
        HERM_DEFAULT_MODEL=demo/tour "$herm" serve >"$dir/ready" 2>"$dir/log"
) &
server=$!
url=
for _ in $(seq $((START_TIMEOUT_S * 10))); do
    url=$(sed -n 's/^listening on //p' "$dir/ready" 2>/dev/null || true)
    [ -z "$url" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$url" ]; then
    cat "$dir/log" >&2
    fail "the server did not start"
fi

# Creates resources for the requests, because generated ids do not exist.
call() { # call METHOD PATH BODY
    curl --silent --show-error --fail-with-body -X "$1" "$url$2" -H "Authorization: Bearer $key" \
        -H 'Content-Type: application/json' -d "$3"
}
id_in() { grep -oE "$1_[0-9a-z]{26}" | head -1; }
made=$(call POST /v1/deployments '{"customer_id": "acme", "name": "Ada", "system_prompt": "Be brief."}')
deployment_id=$(id_in dep <<<"$made")
run_id=$(call POST "/v1/deployments/$deployment_id/messages" '{"content": "Go."}' | id_in run)
skill='---\nname: greet\ndescription: Greets.\n---\nSay hello.'
skill="{\"name\": \"greet\", \"source\": \"inline\", \"content\": \"$skill\"}"
skill_id=$(call POST "/v1/deployments/$deployment_id/skills" "$skill" | id_in skl)
server_of_tools='{"name": "shell", "url": "https://mcp.example.com/"}'
call POST "/v1/deployments/$deployment_id/mcp_servers" "$server_of_tools" >/dev/null
call PUT "/v1/deployments/$deployment_id/files?path=notes/a.txt" '"text"' >/dev/null
cat >"$dir/schemathesis.toml" <<TOML
[parameters]
"path.deployment_id" = "$deployment_id"
"path.thread_id" = "$(id_in thr <<<"$made")"
"path.run_id" = "$run_id"
"path.skill_id" = "$skill_id"
"path.name" = "shell"

[[operations]]
include-operation-id = "read_file"
[operations.parameters]
"query.path" = "notes/a.txt"
TOML

# Operations that would delete these resources are excluded. Events are listed as JSON, because a stream has no end.
status=0
(
    cd "$dir"
    "$cache/bin/schemathesis" --config-file "$dir/schemathesis.toml" run "$document" --url "$url" \
        --header "Authorization: Bearer $key" --header 'Accept: application/json' \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
        --exclude-operation-id delete_deployment --exclude-operation-id delete_skill \
        --exclude-operation-id delete_mcp_server --phases examples,coverage,fuzzing --mode all \
        --seed "$SEED" --max-examples "$MAX_EXAMPLES" --request-timeout 30 --no-color "$@"
) || status=$?
if [ "$status" -ne 0 ]; then
    echo "schemathesis: failed with seed $SEED; the end of the server's log:" >&2
    tail -n 20 "$dir/log" >&2
fi
kill -0 "$server" 2>/dev/null || fail "the server has ended"
exit "$status"
