//! Load test with failures. Clients continuously send requests to the real binary. At random moments, the test kills or
//! stops the server, or kills a guest (the process that executes commands in a sandbox). No acknowledged message may be
//! lost, no message or command may be processed twice, no deleted deployment may leave anything behind, and the
//! server's memory and number of open file descriptors may not grow.
//!
//! `HERM_TEST_SECONDS` sets the duration in seconds. Without it, the test injects a fixed number of failures, and
//! reports memory use without checking its growth. `HERM_TEST_SEED` determines the requests and the failures, but not
//! how the operating system schedules threads.

mod customer;
mod failure_injector;
mod final_state;
mod growth;
mod load_test;
mod model_script;
mod run_tracker;
mod short_lived;
mod summary;
mod usage;

use std::time::Duration;

use futures_util::future::join_all;
use herm_types::Rng as _;
use herm_types::time::SystemRng;

use self::customer::{Customer, Thread};
use self::failure_injector::{FailureInjector, Length};
use self::load_test::LoadTest;
use self::summary::Summary;
use crate::history::History;
use crate::world::{World, on_both_databases};

on_both_databases!(random_kills_lose_and_double_nothing);

/// The seed of `make test`. A soak uses a random seed, unless `HERM_TEST_SEED` is set.
const DEFAULT_SEED: u64 = 20_261_124;
/// The number of clients per deployment. Each client uses one conversation thread after another.
const CLIENTS: u64 = 3;
/// A test that takes longer than expected prints its state at this interval. It has no timeout of its own: the test
/// runner stops a test that hangs.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(120);

/// The deployments that exist during the whole test, each as its model and a flag that is true if it has a sandbox.
const DEPLOYMENTS: [(&str, bool); 4] = [
    ("anthropic/claude-sonnet-4.5", true),
    ("openai/gpt-5", true),
    ("anthropic/claude-sonnet-4.5", true),
    ("openai/gpt-5", false),
];

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {value:?}")))
}

fn random_seed() -> u64 {
    let mut bytes = [0; 4];
    SystemRng.fill(&mut bytes);
    u32::from_be_bytes(bytes).into()
}

async fn random_kills_lose_and_double_nothing(world: World) {
    let seconds = number("HERM_TEST_SECONDS");
    let length = seconds.map_or(Length::Rounds, Length::Seconds);
    let seed = number("HERM_TEST_SEED").unwrap_or_else(|| seconds.map_or(DEFAULT_SEED, |_| random_seed()));
    let database = if world.postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    eprintln!("{database}, HERM_TEST_SEED={seed}");
    let test = LoadTest::new(world, seed);
    let expected = Duration::from_secs(seconds.unwrap_or(0)) * 5 / 4;
    let mut load_test = std::pin::pin!(run(&test, length));
    let mut limit = expected + PROGRESS_INTERVAL;
    let summary = loop {
        if let Ok(summary) = tokio::time::timeout(limit, &mut load_test).await {
            break summary;
        }
        // The timeout did not cancel the test, so its server is still running and can be queried.
        eprintln!("HERM_TEST_SEED={seed} on {database} has not finished yet: {}", test.describe().await);
        limit = PROGRESS_INTERVAL;
    };
    eprintln!("{}", summary.line(database, seed));
    if let Err(reason) = summary.check() {
        panic!("HERM_TEST_SEED={seed} on {database}: {reason}");
    }
}

/// Runs the load with injected failures, deletes all deployments, and checks that nothing is left of them.
async fn run(test: &LoadTest, length: Length) -> Summary {
    let mut injector = FailureInjector::start(test).await;
    let deployments = DEPLOYMENTS.iter().enumerate();
    let customers =
        join_all(deployments.map(|(number, (model, has_sandbox))| {
            Customer::new(test, number.to_string(), model, *has_sandbox)
        }));
    let customers = customers.await;
    let load = async {
        let clients =
            customers.iter().flat_map(|customer| (0..CLIENTS).map(|number| customer.send_messages(number)));
        let (threads, short_lived, ()) = tokio::join!(
            join_all(clients),
            short_lived::create_and_delete_deployments(test),
            injector.run(length, &customers)
        );
        test.set_stage("reading the final state");
        let histories = join_all(customers.iter().map(Customer::read_final_state)).await;
        (threads, short_lived, histories)
    };
    // Reads all event streams in parallel with the load. `read_final_state` makes these readers stop.
    let streams = join_all(customers.iter().map(|customer| customer.tracker.read_stream()));
    let ((threads, short_lived, mut histories), streamed) = tokio::join!(load, streams);
    test.set_stage("checking the history and the files");
    let mut threads = threads.into_iter();
    for (deployment, streamed) in histories.iter_mut().zip(streamed) {
        let own_threads: Vec<Thread> = threads.by_ref().take(CLIENTS as usize).flatten().collect();
        final_state::add_client_records(test, deployment, own_threads, &streamed);
    }
    let mut history = History { deployments: histories, ..History::default() };
    history.command_starts = final_state::count_started_commands(test, &customers);
    history.injected_failures = injector.counts.clone();
    final_state::check_files(test, &customers, &history);
    test.set_stage("waiting for an empty queue");
    history.queued_work_items = final_state::wait_for_empty_queue(test).await;
    test.set_stage("deleting all deployments");
    final_state::delete_all(test, &customers, &short_lived).await;
    let summary = Summary::new(test, history, &injector, length, short_lived.len());
    injector.stop().await;
    summary
}
