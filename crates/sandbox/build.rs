//! Build script: compiles the guest, the program that is PID 1 in every sandbox, so that this crate can embed its
//! executable. The guest is linked statically, so that it runs in any container image.

use std::env;
use std::path::PathBuf;
use std::process::Command;

#[expect(clippy::expect_used, reason = "a panic fails the build with its message")]
fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let target = variable("TARGET");
    let guest = manifest_dir.join("../guest");
    for part in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", guest.join(part).display());
    }
    // Use a separate target directory: the cargo process that runs this script holds the lock of the default target
    // directory, and a second cargo process would wait for it forever.
    let target_dir = out_dir.join("guest");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "herm-guest",
            "--bin",
            "herm-guest",
            "--target",
            &target,
        ])
        .arg("--manifest-path")
        .arg(guest.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static\u{1f}-Crelocation-model=static")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    // Remove the environment variables that the outer cargo or clippy process set for its own build. They must not
    // affect the build of the guest.
    for name in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTFLAGS", "CLIPPY_ARGS", "CARGO_MAKEFLAGS"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().expect("failed to start cargo for the guest");
    assert!(status.success(), "failed to build the guest: {status}");
    let program = target_dir.join(&target).join("release/herm-guest");
    println!("cargo::rustc-env=HERM_GUEST_PROGRAM={}", program.display());
}

#[expect(clippy::panic, reason = "a panic fails the build with its message")]
fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|error| panic!("cargo did not set {name}: {error}"))
}
