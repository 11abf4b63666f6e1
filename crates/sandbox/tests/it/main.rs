//! Tests of sandboxes and workspaces, including attacks from inside a sandbox.

#![cfg(test)]

mod engines;
mod snapshots;
mod workspace;

/// Returns the number of rounds of a randomized test. The environment variable `HERM_TEST_ROUNDS` overrides the
/// default.
fn rounds(default: usize) -> usize {
    std::env::var("HERM_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(default)
}
