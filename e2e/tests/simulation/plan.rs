//! The plan of a simulation, generated from the seed: the number of threads and messages, and the failures to inject.

use serde_json::{Value, json};

use crate::history::seeded_random::SeededRandom;

/// A failure that the simulation can inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum InjectedFailure {
    /// The server is killed at the failpoint (a named point in its code) for which the failure is planned.
    Crash,
    /// The server is stopped and started, which also closes and reopens the database.
    Restart,
    /// The clock jumps by this number of milliseconds: ahead, or back if the number is negative.
    ClockJump { ms: i64 },
    /// A second worker starts and takes over all leases of the first worker, which keeps running.
    TakeOverLeases,
    /// The worker receives wake-ups although there is no new work.
    DuplicateWakeUps,
    /// The worker receives no wake-ups for some time.
    LostWakeUps,
    /// The disk is full for some time.
    FullDisk,
    /// All connections to PostgreSQL are terminated. On SQLite, which has no network connections, the server is
    /// restarted instead.
    DatabaseRestart,
    /// A sandbox is killed. The results of its commands are lost if the server has not stored them yet.
    KilledSandbox,
    /// The connection between the server and a guest, the program in a sandbox that executes commands, is closed.
    GuestDisconnect,
}

/// A failure that is injected once the servers have reached `failpoint` failpoints (named points in their code) in
/// total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PlannedFailure {
    pub(crate) failpoint: u64,
    pub(crate) failure: InjectedFailure,
}

/// Failures are distributed over this number of failpoints, which is about as many as a simulation reaches.
const FAILPOINTS: u64 = 160;
const MAX_FAILURES: u64 = 9;
/// The maximum forward jump of the clock. It is long enough for leases to expire.
const MAX_AHEAD_MS: u64 = 2 * 60 * 60 * 1000;
/// The maximum backward jump of the clock. It is short, because a backward jump prolongs every wait by the same time.
const MAX_BACK_MS: u64 = 60 * 1000;

/// The workload and the injected failures that are generated from one seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The number of threads of each deployment.
    pub(crate) threads: Vec<u64>,
    /// The number of messages on each thread.
    pub(crate) messages: u64,
    /// The number of deployments that are deleted while their runs are active.
    pub(crate) deleted: usize,
    /// If true, each deployment has an additional thread, which is deleted while its run is active.
    pub(crate) deletes_threads: bool,
    /// The `steering` setting of all deployments: the time after which steering requests expire, and what happens then.
    pub(crate) steering: Value,
    /// The failures to inject, ordered by failpoint.
    pub(crate) failures: Vec<PlannedFailure>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = SeededRandom::new(seed);
        let threads = (0..random.between(1, 2)).map(|_| random.between(1, 3)).collect();
        let messages = random.between(1, 4);
        let deleted = usize::from(random.percent(30));
        let mut failures: Vec<PlannedFailure> = (0..random.between(1, MAX_FAILURES))
            .map(|_| PlannedFailure {
                failpoint: random.between(1, FAILPOINTS),
                failure: random_failure(&mut random),
            })
            .collect();
        failures.sort();
        let deletes_threads = random.percent(30);
        let steering = steering_settings(&mut random);
        Self { threads, messages, deleted, deletes_threads, steering, failures }
    }
}

/// Creates a random `steering` setting: requests expire after one second, after 20 seconds, or never.
fn steering_settings(random: &mut SeededRandom) -> Value {
    let expires_after_s = match random.below(4) {
        0 => Some(1),
        1 => Some(20),
        _ => None,
    };
    let on_expiry = ["deny", "approve", "fail"][usize::try_from(random.below(3)).unwrap_or_default()];
    json!({"expires_after_s": expires_after_s, "on_expiry": on_expiry})
}

/// Returns a random failure. Five of the fourteen equally likely cases are crashes.
fn random_failure(random: &mut SeededRandom) -> InjectedFailure {
    match random.below(14) {
        0..=4 => InjectedFailure::Crash,
        5 => InjectedFailure::Restart,
        6 => {
            let goes_back = random.percent(50);
            let ms = random.between(1, if goes_back { MAX_BACK_MS } else { MAX_AHEAD_MS });
            let ms = i64::try_from(ms).unwrap_or_default();
            InjectedFailure::ClockJump { ms: if goes_back { -ms } else { ms } }
        }
        7 => InjectedFailure::TakeOverLeases,
        8 => InjectedFailure::DuplicateWakeUps,
        9 => InjectedFailure::LostWakeUps,
        10 => InjectedFailure::FullDisk,
        11 => InjectedFailure::DatabaseRestart,
        12 => InjectedFailure::KilledSandbox,
        _ => InjectedFailure::GuestDisconnect,
    }
}
