//! Thousands of lives of a server in one process: the real API, worker and database, with a clock, a model and a machine
//! of sandboxes that are simulated, and with troubles that a seed chooses.
//!
//! `HERM_TEST_SEED` runs one seed alone; `HERM_TEST_SEEDS` says how many there are. A seed chooses what is done and
//! at which fault point which trouble comes; how threads of the operating system take turns it does not.
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
mod totals;
mod world;

use std::time::Duration;

use world::{Database, World};

/// Seeds that `make test` runs, on SQLite.
const SEEDS: u64 = 200;
/// As many seeds on SQLite come to one on PostgreSQL, which has a database made for each.
const SQLITE_SEEDS_PER_POSTGRES_SEED: u64 = 10;
/// A seed that takes longer says where it stands, and goes on: it hangs, or the machine is busy. Whoever runs the test ends
/// one that hangs.
const TELL_EVERY: Duration = Duration::from_secs(120);

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

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value:?}")))
}

/// The seeds of one test: nextest runs tests side by side, each in a process of its own.
fn simulate(database: Database, remainder: u64) {
    let _alone = world::alone();
    let seeds = number("HERM_TEST_SEEDS").unwrap_or(SEEDS);
    let chosen = number("HERM_TEST_SEED");
    let (first, count, step) = match (database, chosen) {
        (_, Some(seed)) => (seed, 1, 1),
        (Database::Sqlite, None) => (remainder, seeds / 2, 2),
        (Database::Postgres, None) => (0, seeds.div_ceil(SQLITE_SEEDS_PER_POSTGRES_SEED), 1),
    };
    let mut totals = totals::Totals::default();
    for seed in (0..count).map(|number| first + number * step) {
        let history = live(database, seed);
        if let Err(fault) = history::check::check(&history) {
            panic!("seed {seed} on {database:?}: {fault}\n{}\n{history:#?}", repeat(database, seed));
        }
        totals.add(&history);
    }
    eprintln!("{count} seeds on {database:?}: {totals}");
}

fn live(database: Database, seed: u64) -> history::History {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(database, seed).await;
        let mut life = Box::pin(clients::live(&world));
        let mut history = loop {
            match tokio::time::timeout(TELL_EVERY, &mut life).await {
                Ok(history) => break history,
                Err(_) => eprintln!(
                    "seed {seed} on {database:?} takes long: {}\n{}",
                    world.tell(),
                    repeat(database, seed)
                ),
            }
        };
        drop(life);
        history.troubles = world.end();
        history
    })
}

/// The command that runs a seed again.
fn repeat(database: Database, seed: u64) -> String {
    let test = match database {
        Database::Sqlite => "sqlite_even",
        Database::Postgres => "postgres",
    };
    format!(
        "repeat: HERM_TEST_SEED={seed} scripts/postgres.sh cargo nextest run --workspace \
         --features herm-cli/fault-points,herm-e2e/fault-points -E 'test({test}_seeds)' --no-capture"
    )
}
