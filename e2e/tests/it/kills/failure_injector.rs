//! Injects failures at random moments: kills or stops the server and starts it again, or kills a sandbox's guest, which
//! is the process that executes commands in the sandbox.

use std::collections::BTreeMap;
use std::time::Duration;

use herm_testkit::process::{Server, kill_children, processes_that_mention};
use tokio::time::{Instant, sleep};

use super::customer::Customer;
use super::load_test::LoadTest;
use super::usage::Usage;
use crate::history::seeded_random::SeededRandom;

#[derive(Clone, Copy, Debug)]
enum Failure {
    /// Kills the server with SIGKILL and starts it again.
    KillServer,
    /// Stops the server with SIGTERM, waits until it has drained, and starts it again.
    StopServer,
    /// Kills the process that executes commands in one sandbox (the guest). Command results that the guest still
    /// retains for the server are lost.
    KillGuest,
}

/// The failures of one round. Some kinds occur several times. Each round injects all of them, in a random order.
const FAILURES: [Failure; 7] = [
    Failure::KillServer,
    Failure::KillServer,
    Failure::KillServer,
    Failure::KillServer,
    Failure::StopServer,
    Failure::KillGuest,
    Failure::KillGuest,
];
/// The number of rounds of failures in `make test`.
const ROUNDS: usize = 2;
/// The minimum and maximum number of events that clients read between two failures in `make test`.
const EVENTS_BETWEEN: (u64, u64) = (20, 200);
/// The number of events that clients read after the last failure in `make test`.
const CALM_EVENTS: u64 = 200;
/// The minimum and maximum time between two failures in a soak, in milliseconds.
const PAUSE_MS: (u64, u64) = (1_000, 6_000);
/// A soak test ends with a quiet phase without injected failures. The phase lasts for the total duration of the soak
/// divided by this number.
const CALM_DIVISOR: u64 = 5;
/// The time between two samples of the server's memory and file descriptors in the quiet phase at the end of a soak.
const CALM_SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// The duration of the load: a number of rounds of failures, or a number of seconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// [`ROUNDS`] rounds of failures. Each failure is injected once clients have read a random number of further
    /// events.
    Rounds,
    /// A soak of this number of seconds. No failures are injected in its last fifth.
    Seconds(u64),
}

pub(super) struct FailureInjector<'a> {
    test: &'a LoadTest,
    random: SeededRandom,
    /// The running server. `None` while the server is being killed or stopped.
    server: Option<Server>,
    started_at: Instant,
    ready_at: Instant,
    /// The memory and file descriptors of each server process, measured just before the process was killed or stopped.
    pub(super) end_samples: Vec<Usage>,
    /// The memory and file descriptors of the last server process, measured repeatedly while no failures are injected.
    pub(super) calm_samples: Vec<Usage>,
    /// The number of injected failures of each kind, for example `kills`.
    pub(super) counts: BTreeMap<&'static str, u64>,
}

impl<'a> FailureInjector<'a> {
    pub(super) async fn start(test: &'a LoadTest) -> Self {
        let server = test.world.start().await;
        test.set_server(&server);
        // The label and the seed together determine the failures, so the label must not change: otherwise, previously
        // recorded seeds would no longer reproduce their failures.
        let (random, now) = (SeededRandom::with_label(test.seed, "troubles"), Instant::now());
        let (end_samples, calm_samples, counts) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self {
            test,
            random,
            server: Some(server),
            started_at: now,
            ready_at: now,
            end_samples,
            calm_samples,
            counts,
        }
    }

    pub(super) fn seconds(&self) -> u64 {
        self.started_at.elapsed().as_secs()
    }

    /// Injects all failures, lets the last server process run for a while without failures, and then stops the load.
    pub(super) async fn run(&mut self, length: Length, customers: &[Customer<'_>]) {
        match length {
            Length::Rounds => {
                for failure in (0..ROUNDS).flat_map(|_| self.shuffled()).collect::<Vec<_>>() {
                    let events = self.random.between(EVENTS_BETWEEN.0, EVENTS_BETWEEN.1);
                    self.wait_for_events(events).await;
                    self.inject(failure, customers).await;
                }
                self.sample_calm();
                self.wait_for_events(CALM_EVENTS).await;
                self.sample_calm();
            }
            Length::Seconds(seconds) => {
                let calm_seconds = seconds / CALM_DIVISOR;
                self.inject_for(Duration::from_secs(seconds - calm_seconds), customers).await;
                for _ in 0..calm_seconds {
                    sleep(CALM_SAMPLE_INTERVAL).await;
                    self.sample_calm();
                }
            }
        }
        self.test.is_load_over.send_replace(true);
    }

    async fn inject_for(&mut self, time: Duration, customers: &[Customer<'_>]) {
        let end = Instant::now() + time;
        loop {
            for failure in self.shuffled() {
                let pause = Duration::from_millis(self.random.between(PAUSE_MS.0, PAUSE_MS.1));
                // The pause before killing a guest is shorter. The server survives this failure, so the short pause
                // hardly affects how long server processes live.
                let pause = if matches!(failure, Failure::KillGuest) { pause / 6 } else { pause };
                if Instant::now() + pause > end {
                    return;
                }
                sleep(pause).await;
                self.inject(failure, customers).await;
            }
        }
    }

    fn shuffled(&mut self) -> [Failure; FAILURES.len()] {
        let mut failures = FAILURES;
        for at in (1..failures.len()).rev() {
            failures.swap(at, usize::try_from(self.random.below(at as u64 + 1)).unwrap());
        }
        failures
    }

    async fn wait_for_events(&self, count: u64) {
        let mut events_read = self.test.events_read.subscribe();
        let target = *events_read.borrow() + count;
        events_read.wait_for(|events_read| *events_read >= target).await.unwrap();
    }

    /// Measures the memory and file descriptors of the server, which must be running.
    fn sample(&mut self) -> Usage {
        let server = self.server.as_mut().unwrap();
        assert!(
            !server.has_ended().unwrap(),
            "the server ended without an injected failure:\n{}",
            server.log()
        );
        Usage::of(server.pid().unwrap(), self.ready_at.elapsed())
    }

    fn sample_calm(&mut self) {
        let usage = self.sample();
        self.calm_samples.push(usage);
    }

    async fn inject(&mut self, failure: Failure, customers: &[Customer<'_>]) {
        match failure {
            Failure::KillGuest => self.kill_guest(customers),
            Failure::KillServer => {
                let server = self.take_server();
                let log = server.log();
                server.kill().await.unwrap();
                self.restart_server(&log).await;
                self.count("kills");
            }
            Failure::StopServer => {
                let server = self.take_server();
                // A gate pauses a model reply until a client has read its first chunk. A draining server ends its event
                // streams, so no client could open the gates, and the drain would wait for the paused runs.
                self.test.model_script.set_gates_disabled(true);
                server.terminate().unwrap();
                let finished = server.wait().await.unwrap();
                assert!(finished.status.success(), "{finished:?}");
                self.test.model_script.set_gates_disabled(false);
                self.restart_server(&finished.stderr).await;
                self.count("stops");
            }
        }
    }

    /// Removes the server from the test's shared state, before the server is killed or stopped. Requests in progress
    /// may still complete. Clients send further requests only after the next server process has started.
    fn take_server(&mut self) -> Server {
        let usage = self.sample();
        self.end_samples.push(usage);
        self.test.current_client.send_replace(None);
        self.server.take().unwrap()
    }

    /// Checks the log of the server process that has exited, and starts the next one.
    async fn restart_server(&mut self, log: &str) {
        check_log(log);
        let server = self.test.world.start().await;
        self.ready_at = Instant::now();
        self.test.set_server(&server);
        self.server = Some(server);
    }

    fn kill_guest(&mut self, customers: &[Customer<'_>]) {
        let mut with_sandbox: Vec<_> = customers.iter().filter(|customer| customer.has_sandbox).collect();
        let first = usize::try_from(self.random.next() % with_sandbox.len() as u64).unwrap();
        with_sandbox.rotate_left(first);
        for customer in with_sandbox {
            let Some(process) = self.test.world.find_sandbox_process(&customer.deployment_id) else {
                continue;
            };
            let supervisors = processes_that_mention(&process);
            if !supervisors.is_empty() {
                supervisors.into_iter().for_each(kill_children);
                self.count("guests killed");
                return;
            }
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.counts.entry(kind).or_default() += 1;
    }

    /// Stops the last server process and checks its exit status and log.
    pub(super) async fn stop(self) {
        let server = self.server.unwrap();
        server.terminate().unwrap();
        let finished = server.wait().await.unwrap();
        assert!(finished.status.success(), "{finished:?}");
        check_log(&finished.stderr);
    }
}

fn check_log(log: &str) {
    assert!(!log.contains("panicked"), "{log}");
}
