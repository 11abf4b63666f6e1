//! Simulation tests, which run complete servers inside the test process. The API, the worker and the database are real.
//! The clock, the model and the machine that runs the sandboxes are simulated, and failures are injected.
//!
//! A seed determines the requests, and which failure is injected at which failpoint. It does not determine how the
//! operating system schedules threads. `HERM_TEST_SEED` selects a single seed, and `HERM_TEST_SEEDS` sets the number of
//! seeds.
#![cfg(test)]

mod clients;
#[path = "../history/mod.rs"]
mod history;
mod machine;
mod model;
mod mutations;
mod person;
mod plan;
mod server;
mod simulation;
mod totals;

use std::time::Duration;

use simulation::{Database, Simulation};

/// The number of seeds that `make test` runs on SQLite.
const SEEDS: u64 = 200;
/// The number of simulations on SQLite for each simulation on PostgreSQL. Those on PostgreSQL take longer, because each
/// creates a database.
const SQLITE_SEEDS_PER_POSTGRES_SEED: u64 = 10;
/// A simulation that takes longer than this prints its state at this interval. It has no timeout of its own: the test
/// runner stops a test that hangs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(120);

#[test]
fn sqlite_even_seeds_lose_and_double_nothing() {
    simulate(Database::Sqlite, 0);
}

#[test]
fn sqlite_odd_seeds_lose_and_double_nothing() {
    simulate(Database::Sqlite, 1);
}

#[test]
fn postgres_seeds_lose_and_double_nothing() {
    simulate(Database::Postgres, 0);
}

fn number_from_env(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value:?}")))
}

/// Runs the seeds of one test. On SQLite, two tests run the even and the odd seeds, so that nextest can run them in
/// parallel.
fn simulate(database: Database, remainder: u64) {
    let _exclusive = simulation::lock_exclusively();
    let seeds = number_from_env("HERM_TEST_SEEDS").unwrap_or(SEEDS);
    let chosen = number_from_env("HERM_TEST_SEED");
    let (first, count, step) = match (database, chosen) {
        (_, Some(seed)) => (seed, 1, 1),
        (Database::Sqlite, None) => (remainder, seeds / 2, 2),
        (Database::Postgres, None) => (0, seeds.div_ceil(SQLITE_SEEDS_PER_POSTGRES_SEED), 1),
    };
    let mut totals = totals::Totals::default();
    for seed in (0..count).map(|number| first + number * step) {
        let history = run_seed(database, seed);
        if let Err(violation) = history::checker::check(&history) {
            panic!(
                "seed {seed} on {database:?}: {violation}\n{}\n{history:#?}",
                repeat_command(database, seed)
            );
        }
        totals.add(&history);
    }
    eprintln!("{count} seeds on {database:?}: {totals}");
}

fn run_seed(database: Database, seed: u64) -> history::History {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut simulation = Simulation::new(database, seed).await;
        let mut clients = Box::pin(clients::run_clients(&simulation));
        let mut history = loop {
            match tokio::time::timeout(PROGRESS_INTERVAL, &mut clients).await {
                Ok(history) => break history,
                Err(_) => eprintln!(
                    "seed {seed} on {database:?} has not finished yet: {}\n{}",
                    simulation.describe_state(),
                    repeat_command(database, seed)
                ),
            }
        };
        drop(clients);
        history.injected_failures = simulation.end();
        history
    })
}

/// Returns the shell command that runs this seed again.
fn repeat_command(database: Database, seed: u64) -> String {
    let test = match database {
        Database::Sqlite => "sqlite_even",
        Database::Postgres => "postgres",
    };
    format!(
        "repeat: HERM_TEST_SEED={seed} scripts/postgres.sh cargo nextest run --workspace \
         --features herm-cli/failpoints,herm-e2e/failpoints -E 'test({test}_seeds)' --no-capture"
    )
}
