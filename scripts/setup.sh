#!/usr/bin/env bash
# Installs everything that building and testing need and this machine lacks.
#
#   scripts/setup.sh [rust] [sandbox] [docker] [postgres] [nextest] [curl] [clients] [node] [chromium] [schemathesis] [shellcheck]
#                                                                                   without arguments: all parts
#
# As root it installs system packages with apt-get. For other users it prints the command to run and exits with
# status 1. It does not touch programs that are already installed, so running it again costs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# A fixed version, because others may read .config/nextest.toml differently.
NEXTEST_VERSION=0.9.143
# The minimum version for the TypeScript SDK and its tests.
MIN_NODE_MAJOR=18

packages=()

has() { command -v "$1" >/dev/null 2>&1; }

lack() { # lack PACKAGE
    packages+=("$1")
}

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

find_rust() {
    # aws-lc and SQLite are C code.
    has cc || lack build-essential
}

find_sandbox() {
    has bwrap || lack bubblewrap
}

find_docker() {
    # Tests start their own engine, unless HERM_TEST_DOCKER_HOST names a running one.
    [ -n "${HERM_TEST_DOCKER_HOST:-}" ] && return 0
    has docker || lack docker.io
    has dockerd || lack docker.io
    has runsc || lack runsc
    has debootstrap || lack debootstrap
}

find_postgres() {
    scripts/postgres.sh --find >/dev/null 2>&1 || lack postgresql
}

find_curl() {
    # A test runs the commands of the README as they are written.
    has curl || lack curl
}

find_clients() {
    # The egress tests run these programs, curl and programs of Node.js.
    has git || lack git
    python3 -c 'import pip' >/dev/null 2>&1 || lack python3-pip
    find_curl
}

find_node() {
    has node || lack nodejs
    has npm || lack npm
}

find_chromium() {
    # The SDK is also tested in a browser. HERM_BROWSER names another one.
    has "${HERM_BROWSER:-chromium}" || lack chromium
}

find_schemathesis() {
    # On Debian, creating a virtual environment needs a separate package.
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || lack python3-venv
    find_curl
}

find_shellcheck() {
    has shellcheck || lack shellcheck
}

find_nextest() {
    has cc || lack build-essential
}

install_packages() {
    [ "${#packages[@]}" -gt 0 ] || return 0
    if ! has apt-get; then
        fail "install these with the system's package manager: ${packages[*]}"
    fi
    if [ "$(id -u)" -ne 0 ]; then
        printf 'setup: some packages are missing. Run this, then try again:\n\n    sudo apt-get install -y %s\n\n' \
            "${packages[*]}" >&2
        exit 1
    fi
    echo "setup: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    # Container images have no package lists.
    apt-get update -qq || echo "setup: apt-get update failed; continuing with the existing package lists" >&2
    apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
}

install_rust() {
    if ! has cargo; then
        printf 'setup: Rust is missing. Install it as described at https://rustup.rs, then try again:\n\n    %s\n\n' \
            "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal" >&2
        exit 1
    fi
    # With rustup, rust-toolchain.toml determines the version and its components.
    if ! { cargo --version && cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
        has rustup || fail "cargo fmt or cargo clippy is missing; install the toolchain that rust-toolchain.toml names"
        echo "setup: installing the Rust toolchain that rust-toolchain.toml names"
        # Before version 1.28, rustup installs with `show`.
        rustup toolchain install || rustup show
    fi
}

install_nextest() {
    if ! cargo nextest --version >/dev/null 2>&1; then
        echo "setup: building cargo-nextest $NEXTEST_VERSION; this takes several minutes, once"
        cargo install --locked --version "$NEXTEST_VERSION" cargo-nextest
    fi
}

install_node() {
    local major
    major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
    [ "$major" -ge "$MIN_NODE_MAJOR" ] || fail "Node.js $MIN_NODE_MAJOR or newer is required, but node is version $major"
    # npm writes this file at the end of an installation.
    [ sdk/typescript/node_modules/.package-lock.json -nt sdk/typescript/package-lock.json ] && return 0
    echo "setup: installing the dependencies of the TypeScript SDK"
    npm --prefix sdk/typescript ci --no-audit --no-fund --loglevel=error
}

install_schemathesis() {
    scripts/schemathesis.sh --install
}

parts=("$@")
[ "${#parts[@]}" -gt 0 ] || parts=(rust sandbox docker postgres nextest curl clients node chromium schemathesis shellcheck)

# Finds everything that is missing first, so that one command installs all of it.
for part in "${parts[@]}"; do
    case "$part" in
        rust | sandbox | docker | postgres | nextest | curl | clients | node | chromium | schemathesis | shellcheck) "find_$part" ;;
        *) fail "unknown part: $part; the parts are rust, sandbox, docker, postgres, nextest, curl, clients, node, chromium, schemathesis, shellcheck" ;;
    esac
done
install_packages
for part in "${parts[@]}"; do
    case "$part" in
        rust | nextest | node | schemathesis) "install_$part" ;;
    esac
done
