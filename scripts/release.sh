#!/usr/bin/env bash
# Builds a release archive, TARGET_DIR/dist/herm-VERSION-PLATFORM.tar.gz, and a file with its SHA-256.
set -euo pipefail
cd "$(dirname "$0")/.."

target_dir="${CARGO_TARGET_DIR:-target}"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
platform=$(rustc -vV | sed -n 's/^host: //p')
name="herm-$version-$platform"

cargo build --release --locked -p herm-cli

dist="$target_dir/dist"
rm -rf "${dist:?}/$name"
mkdir -p "$dist/$name"
cp "$target_dir/release/herm" herm.example.toml LICENSE-MIT LICENSE-APACHE CHANGELOG.md "$dist/$name/"
if [ -f README.md ]; then cp README.md "$dist/$name/"; fi

# The archive is reproducible: names are sorted, owners and times are fixed.
time=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" -C "$dist" -cf - "$name" | gzip -9n >"$dist/$name.tar.gz"
rm -rf "${dist:?}/$name"
(cd "$dist" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
