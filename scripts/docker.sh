#!/usr/bin/env bash
# Runs a command with a temporary Docker engine that has the gVisor runtime and an image for sandboxes.
#
#   scripts/docker.sh COMMAND [ARGUMENT…]     exports HERM_TEST_DOCKER_HOST, runs COMMAND, stops the engine
#   scripts/docker.sh --image                 creates the image's archive, if it does not exist, and prints its path
#
# The engine stores everything in its own directory and does not change the machine's network. It is removed when
# COMMAND ends, whatever the exit status. If HERM_TEST_DOCKER_HOST is already set, the script uses that engine. It must
# have the runtime runsc and the image herm-sandbox:test. Only root can start an engine.
#
# HERM_TEST_IMAGE_ROOT is the directory of the image's archives. There is one archive for each list of packages.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=herm-sandbox:test
SUITE=bookworm
PACKAGES=python3-minimal,git,curl,ca-certificates,procps
START_TIMEOUT_S=60
# An archive that was not used for this many days belongs to an older list of packages.
KEEP_DAYS=14

fail() {
    printf 'docker: %s\n' "$*" >&2
    exit 1
}

make_image() {
    local root archive directory
    root=${HERM_TEST_IMAGE_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/herm-test-image}
    archive="$root/$(printf '%s' "$SUITE $PACKAGES" | sha256sum | cut -c 1-16).tar"
    mkdir -p "$root"
    if [ ! -f "$archive" ]; then
        [ "$(id -u)" -eq 0 ] || fail "debootstrap creates the test image and needs root"
        echo "docker: creating the test image with debootstrap; this takes a minute, once" >&2
        directory=$(mktemp -d /var/tmp/herm-test-image.XXXXXXXX)
        debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$directory/root" >"$directory/log" 2>&1 || {
            tail -n 20 "$directory/log" >&2
            rm -rf "$directory"
            fail "debootstrap failed"
        }
        rm -rf "$directory/root/var/cache/apt" "$directory/root/var/lib/apt/lists"
        tar -C "$directory/root" -cf "$directory/image.tar" .
        # The rename publishes the archive atomically.
        cp "$directory/image.tar" "$archive.$$"
        mv "$archive.$$" "$archive"
        rm -rf "$directory"
    fi
    touch "$archive"
    find "$root" -name '*.tar' -mtime "+$KEEP_DAYS" -delete
    printf '%s\n' "$archive"
}

if [ "${1:-}" = --image ]; then
    make_image
    exit 0
fi
[ $# -gt 0 ] || fail "usage: scripts/docker.sh COMMAND [ARGUMENT…]"
if [ -n "${HERM_TEST_DOCKER_HOST:-}" ]; then
    exec "$@"
fi
[ "$(id -u)" -eq 0 ] || fail "only root can start a Docker engine; set HERM_TEST_DOCKER_HOST to a running one"
archive=$(make_image)

stop_engine() { # stop_engine DIRECTORY
    local pid names
    if [ -f "$1/docker.pid" ] && pid=$(cat "$1/docker.pid") && kill -0 "$pid" 2>/dev/null; then
        names=$(docker -H "unix://$1/docker.sock" ps -aq 2>/dev/null || true)
        # shellcheck disable=SC2086 # One argument for each container.
        [ -z "$names" ] || docker -H "unix://$1/docker.sock" rm -f $names >/dev/null 2>&1 || true
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    fi
    # A killed engine leaves mounts behind.
    awk -v root="$1/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while IFS= read -r mounted; do
        umount -l "$mounted" 2>/dev/null || true
    done
    rm -rf "$1"
}

# The engine's directory must not be on a memory-backed or an overlay file system.
base=/var/tmp
# Stops engines whose script was killed by SIGKILL.
for left in "$base"/herm-test-docker.*; do
    if [ -f "$left/script.pid" ] && [ -O "$left" ] && ! kill -0 "$(cat "$left/script.pid")" 2>/dev/null; then
        stop_engine "$left"
    fi
done

dir=$(mktemp -d "$base/herm-test-docker.XXXXXXXX")
trap 'stop_engine "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
echo $$ >"$dir/script.pid"
cat >"$dir/daemon.json" <<JSON
{"runtimes": {"runsc": {"path": "$(command -v runsc)", "runtimeArgs":
    ["--platform=ptrace", "--network=none", "--host-uds=open"]}}}
JSON
dockerd --config-file "$dir/daemon.json" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/docker.pid" \
    --host "unix://$dir/docker.sock" --bridge=none --iptables=false --ip-forward=false --ip-masq=false \
    >"$dir/log" 2>&1 &
export HERM_TEST_DOCKER_HOST="unix://$dir/docker.sock"
is_up=
for _ in $(seq $((START_TIMEOUT_S * 10))); do
    if docker -H "$HERM_TEST_DOCKER_HOST" version >/dev/null 2>&1; then
        is_up=yes
        break
    fi
    kill -0 $! 2>/dev/null || break
    sleep 0.1
done
if [ -z "$is_up" ]; then
    tail -n 20 "$dir/log" >&2
    fail "the engine did not start"
fi
docker -H "$HERM_TEST_DOCKER_HOST" import "$archive" "$IMAGE" >/dev/null

"$@"
