//! Load that never stops, on the real binary, while it is killed at random instants, stopped, and robbed of its sandboxes'
//! guests: nothing that was acknowledged is lost, nothing is done twice, nothing is left behind, nothing grows.
//!
//! `HERM_TEST_SECONDS` says how long; without it a fixed number of troubles comes, and memory is told but not judged.
//! `HERM_TEST_SEED` says what is asked for and which troubles come when; how threads take turns it does not.

mod aftermath;
mod customer;
mod flat;
mod follower;
mod place;
mod script;
mod summary;
mod troubles;
mod usage;
mod visitor;

use std::time::Duration;

use futures_util::future::join_all;
use herm_types::Rng as _;
use herm_types::time::SystemRng;

use self::customer::{Customer, Thread};
use self::place::Place;
use self::summary::Summary;
use self::troubles::{Length, Troubles};
use crate::history::History;
use crate::world::{World, on_both_databases};

on_both_databases!(random_kills_lose_and_double_nothing);

/// The seed of `make test`; the soak takes another one each time.
const USUAL_SEED: u64 = 20_261_124;
/// Threads of each deployment that always have a message under way.
const THREADS: u64 = 3;
/// A life that takes longer than a quarter more than its time says where it stands, each time that so much more has gone:
/// it hangs, or the machine is busy. Whoever runs the test ends one that hangs.
const TELL_EVERY: Duration = Duration::from_secs(120);

/// A deployment that stays: its model, and whether it has a sandbox.
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

fn any_seed() -> u64 {
    let mut bytes = [0; 4];
    SystemRng.fill(&mut bytes);
    u32::from_be_bytes(bytes).into()
}

async fn random_kills_lose_and_double_nothing(world: World) {
    let seconds = number("HERM_TEST_SECONDS");
    let length = seconds.map_or(Length::Rounds, Length::Seconds);
    let seed = number("HERM_TEST_SEED").unwrap_or_else(|| seconds.map_or(USUAL_SEED, |_| any_seed()));
    let database = if world.postgres.is_some() { "PostgreSQL" } else { "SQLite" };
    eprintln!("{database}, HERM_TEST_SEED={seed}");
    let place = Place::new(world, seed);
    let usual = Duration::from_secs(seconds.unwrap_or(0)) * 5 / 4;
    let mut life = std::pin::pin!(live(&place, length));
    let mut patience = usual + TELL_EVERY;
    let summary = loop {
        if let Ok(summary) = tokio::time::timeout(patience, &mut life).await {
            break summary;
        }
        // Its server is still there to be asked.
        eprintln!("HERM_TEST_SEED={seed} on {database} takes long: {}", place.tell().await);
        patience = TELL_EVERY;
    };
    eprintln!("{}", summary.line(database, seed));
    if let Err(fault) = summary.check() {
        panic!("HERM_TEST_SEED={seed} on {database}: {fault}");
    }
}

/// Leads a life to its end, and looks at all that it leaves.
async fn live(place: &Place, length: Length) -> Summary {
    let mut troubles = Troubles::start(place).await;
    let settled = DEPLOYMENTS.iter().enumerate();
    let customers =
        join_all(settled.map(|(number, (model, has_sandbox))| {
            Customer::new(place, number.to_string(), model, *has_sandbox)
        }));
    let customers = customers.await;
    let works = async {
        let talks = customers.iter().flat_map(|customer| (0..THREADS).map(|number| customer.talk(number)));
        let (threads, visits, ()) =
            tokio::join!(join_all(talks), visitor::visits(place), troubles.make(length, &customers));
        place.reaches("all is read");
        let seen = join_all(customers.iter().map(Customer::look_back)).await;
        (threads, visits, seen)
    };
    // Readers follow to the end of everything.
    let follow = join_all(customers.iter().map(|customer| customer.follower.follow()));
    let ((threads, visits, mut histories), seen) = tokio::join!(works, follow);
    place.reaches("what is left is looked at");
    let mut threads = threads.into_iter();
    for (of_it, seen) in histories.iter_mut().zip(seen) {
        let of_its: Vec<Thread> = threads.by_ref().take(THREADS as usize).flatten().collect();
        aftermath::tell_apart(place, of_it, of_its, &seen);
    }
    let mut history = History { deployments: histories, ..History::default() };
    history.begun = aftermath::begun(place, &customers);
    history.troubles = troubles.made.clone();
    aftermath::check_files(place, &customers, &history);
    place.reaches("the queue gets empty");
    history.queued = aftermath::queued(place).await;
    place.reaches("all is deleted");
    aftermath::delete(place, &customers, &visits).await;
    let summary = Summary::new(place, history, &troubles, length, visits.len());
    troubles.stop().await;
    summary
}
