//! What a sandbox must do, and what must not be done from inside one.

#![cfg(test)]

mod engines;
mod snapshots;
mod workspace;

/// How often what is random is tried.
fn rounds(usual: usize) -> usize {
    std::env::var("HERM_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}
