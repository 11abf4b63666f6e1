#!/usr/bin/env bash
# Runs a command with a temporary PostgreSQL server.
#
#   scripts/postgres.sh COMMAND [ARGUMENT…]     exports HERM_TEST_POSTGRES_URL, runs COMMAND, stops the server
#   scripts/postgres.sh --find                  prints the directory of PostgreSQL's programs
#
# The server listens on a free port of 127.0.0.1, requires a random password, and has the durability settings of a
# production server. The script removes it with its data when COMMAND ends, whatever the exit status. If
# HERM_TEST_POSTGRES_URL is already set, the script uses that server.
set -euo pipefail
cd "$(dirname "$0")/.."

# Tests open many small pools at the same time.
MAX_CONNECTIONS=400
START_TIMEOUT_S=60
PORT_ATTEMPTS=20

fail() {
    printf 'postgres: %s\n' "$*" >&2
    exit 1
}

# Prints the program directory of the newest server on this machine. On Debian, it is not in PATH.
find_programs() {
    local candidate
    while IFS= read -r candidate; do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/pg_ctl" ]; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done < <(
        find /usr/lib/postgresql /usr/pgsql-* /opt/homebrew/opt/postgresql@*/bin -maxdepth 3 -name initdb 2>/dev/null |
            sed 's|/initdb$||' | sort -rV
        command -v initdb 2>/dev/null | sed 's|/initdb$||'
    )
    return 1
}

programs=$(find_programs) || fail "no PostgreSQL server is installed; run scripts/setup.sh postgres"
if [ "${1:-}" = --find ]; then
    printf '%s\n' "$programs"
    exit 0
fi
[ $# -gt 0 ] || fail "usage: scripts/postgres.sh COMMAND [ARGUMENT…]"
if [ -n "${HERM_TEST_POSTGRES_URL:-}" ]; then
    exec "$@"
fi

# PostgreSQL refuses to run as root, so root runs it as the account that its package created.
as_server=()
if [ "$(id -u)" -eq 0 ]; then
    id postgres >/dev/null 2>&1 || fail "the account \`postgres\`, which would run the server, does not exist"
    as_server=(runuser -u postgres --)
fi
run() { "${as_server[@]+"${as_server[@]}"}" "$@"; }

# The data is in the build directory, or in /var/tmp if the server's account cannot access the build directory, for
# example below /root. It must not be on a memory-backed file system, on which fsync has no effect.
base="${CARGO_TARGET_DIR:-target}/postgres"
mkdir -p "$base"
base=$(cd "$base" && pwd)
if ! run test -x "$base"; then
    rmdir "$base" 2>/dev/null || true
    base=/var/tmp
fi

stop_server() { # stop_server DIRECTORY
    if [ -f "$1/data/postmaster.pid" ]; then
        run "$programs/pg_ctl" -D "$1/data" -m immediate -w stop >/dev/null 2>&1 || true
    fi
    rm -rf "$1"
}

# Stops servers whose script was killed by SIGKILL.
for left in "$base"/herm-test-postgres.*; do
    # All users can write to /var/tmp, so the owner is checked.
    if [ -f "$left/script.pid" ] && [ -O "$left" ] && ! kill -0 "$(cat "$left/script.pid")" 2>/dev/null; then
        stop_server "$left"
    fi
done

dir=$(mktemp -d "$base/herm-test-postgres.XXXXXXXX")
trap 'stop_server "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
echo $$ >"$dir/script.pid"
chmod 755 "$dir"
mkdir "$dir/data"
password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(umask 077 && printf '%s\n' "$password" >"$dir/password")
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$dir/data" "$dir/password"
    touch "$dir/log"
    chown postgres "$dir/log"
fi

# Most servers have a collation that is not by bytes. Text must sort the same on both databases nevertheless.
locale=(--locale=C)
if run "$programs/initdb" --help | grep -q -- --icu-locale; then
    locale=(--locale=C --locale-provider=icu --icu-locale=en-US)
fi
run "$programs/initdb" -D "$dir/data" -U postgres --pwfile="$dir/password" --auth=scram-sha-256 --encoding=UTF8 \
    "${locale[@]}" --no-instructions >"$dir/initdb.log" 2>&1 || {
    cat "$dir/initdb.log" >&2
    fail "initdb failed"
}
rm "$dir/password"

# The default settings are durable. A larger write-ahead log keeps checkpoints from disturbing measurements.
port=
for _ in $(seq "$PORT_ATTEMPTS"); do
    # Below the range of ephemeral ports, so that only another fixed port can collide.
    candidate=$((20000 + RANDOM % 12000))
    if run "$programs/pg_ctl" -D "$dir/data" -l "$dir/log" -t "$START_TIMEOUT_S" -w \
        -o "-p $candidate -c listen_addresses=127.0.0.1 -c unix_socket_directories='' \
            -c max_connections=$MAX_CONNECTIONS -c max_wal_size=2GB" start >/dev/null 2>&1; then
        port=$candidate
        break
    fi
    grep -q 'Address already in use' "$dir/log" || break
done
if [ -z "$port" ]; then
    tail -n 20 "$dir/log" >&2
    fail "the server did not start"
fi

export HERM_TEST_POSTGRES_URL="postgres://postgres:$password@127.0.0.1:$port/postgres"
# Without exec, because the trap above must outlive the command. In the foreground, so that Ctrl-C reaches the command.
status=0
"$@" || status=$?
exit "$status"
