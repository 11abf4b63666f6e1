//! What happens to the server of the moment: it is killed, or told to stop, or loses a sandbox's guest, and is started again.

use std::collections::BTreeMap;
use std::time::Duration;

use herm_testkit::process::{Server, kill_children, processes_that_mention};
use tokio::time::{Instant, sleep};

use super::customer::Customer;
use super::place::Place;
use super::usage::Usage;
use crate::history::dice::Dice;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// As `kill -9` does.
    Kill,
    /// As `kill` does.
    Stop,
    /// The process of one of the sandboxes is killed with all that it knows.
    Guest,
}

/// The troubles as they come, in an order of the dice's, again and again.
const DECK: [Trouble; 7] = [
    Trouble::Kill,
    Trouble::Kill,
    Trouble::Kill,
    Trouble::Kill,
    Trouble::Stop,
    Trouble::Guest,
    Trouble::Guest,
];
/// How often `make test` goes through the deck.
const ROUNDS: usize = 2;
/// Events between two troubles there.
const EVENTS_BETWEEN: (u64, u64) = (20, 200);
/// Events of the last stretch there, in which nothing goes wrong.
const LAST_EVENTS: u64 = 200;
/// Before a server is killed or stopped, in a soak, since it was ready or lost a guest.
const BETWEEN_MS: (u64, u64) = (1_000, 6_000);
/// Of the time of a soak, the part at its end in which nothing goes wrong.
const CALM_PART: u64 = 5;
/// Between two looks at a server in which nothing goes wrong.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long troubles come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    /// Each trouble of the deck as often as [`ROUNDS`] says.
    Rounds,
    Seconds(u64),
}

pub(super) struct Troubles<'a> {
    place: &'a Place,
    dice: Dice,
    /// There always is one, but for the moment of its end.
    server: Option<Server>,
    began: Instant,
    ready: Instant,
    /// Each life, looked at just before its end.
    pub(super) lives: Vec<Usage>,
    /// The last life, in which nothing goes wrong, looked at again and again.
    pub(super) calm: Vec<Usage>,
    /// How often each was made.
    pub(super) made: BTreeMap<&'static str, u64>,
}

impl<'a> Troubles<'a> {
    pub(super) async fn start(place: &'a Place) -> Self {
        let server = place.world.start().await;
        place.has(&server);
        let (dice, now) = (Dice::of(place.seed, "troubles"), Instant::now());
        let (lives, calm, made) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { place, dice, server: Some(server), began: now, ready: now, lives, calm, made }
    }

    pub(super) fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Makes trouble for so long, then none for a while; then all is over.
    pub(super) async fn make(&mut self, length: Length, customers: &[Customer<'_>]) {
        match length {
            Length::Rounds => {
                for trouble in (0..ROUNDS).flat_map(|_| self.shuffled()).collect::<Vec<_>>() {
                    let events = self.dice.between(EVENTS_BETWEEN.0, EVENTS_BETWEEN.1);
                    self.until_events(events).await;
                    self.strike(trouble, customers).await;
                }
                self.look_calmly();
                self.until_events(LAST_EVENTS).await;
                self.look_calmly();
            }
            Length::Seconds(seconds) => {
                let calm = seconds / CALM_PART;
                self.make_for(Duration::from_secs(seconds - calm), customers).await;
                for _ in 0..calm {
                    sleep(LOOK_EVERY).await;
                    self.look_calmly();
                }
            }
        }
        self.place.is_over.send_replace(true);
    }

    async fn make_for(&mut self, time: Duration, customers: &[Customer<'_>]) {
        let end = Instant::now() + time;
        loop {
            for trouble in self.shuffled() {
                let pause = Duration::from_millis(self.dice.between(BETWEEN_MS.0, BETWEEN_MS.1));
                // Within a life, so that lives are as long with it as without.
                let pause = if matches!(trouble, Trouble::Guest) { pause / 6 } else { pause };
                if Instant::now() + pause > end {
                    return;
                }
                sleep(pause).await;
                self.strike(trouble, customers).await;
            }
        }
    }

    fn shuffled(&mut self) -> [Trouble; DECK.len()] {
        let mut deck = DECK;
        for at in (1..deck.len()).rev() {
            deck.swap(at, usize::try_from(self.dice.below(at as u64 + 1)).unwrap());
        }
        deck
    }

    async fn until_events(&self, count: u64) {
        let mut events = self.place.events.subscribe();
        let wanted = *events.borrow() + count;
        events.wait_for(|events| *events >= wanted).await.unwrap();
    }

    /// Looks at the server, which must be alive.
    fn look(&mut self) -> Usage {
        let server = self.server.as_mut().unwrap();
        assert!(!server.has_ended().unwrap(), "the server died by itself:\n{}", server.log());
        Usage::of(server.pid().unwrap(), self.ready.elapsed())
    }

    fn look_calmly(&mut self) {
        let usage = self.look();
        self.calm.push(usage);
    }

    async fn strike(&mut self, trouble: Trouble, customers: &[Customer<'_>]) {
        match trouble {
            Trouble::Guest => self.kill_a_guest(customers),
            Trouble::Kill => {
                let server = self.take();
                let log = server.log();
                server.kill().await.unwrap();
                self.start_again(&log).await;
                self.count("kills");
            }
            Trouble::Stop => {
                let server = self.take();
                // Nobody reads any more while it ends its runs.
                self.place.script.run_on(true);
                server.terminate().unwrap();
                let finished = server.wait().await.unwrap();
                assert!(finished.status.success(), "{finished:?}");
                self.place.script.run_on(false);
                self.start_again(&finished.stderr).await;
                self.count("stops");
            }
        }
    }

    /// Takes the server for its end, while its clients are in the middle of whatever they do; from now on they wait for
    /// the next one.
    fn take(&mut self) -> Server {
        let usage = self.look();
        self.lives.push(usage);
        self.place.server.send_replace(None);
        self.server.take().unwrap()
    }

    /// Starts a server after one that has left this log.
    async fn start_again(&mut self, log: &str) {
        check_log(log);
        let server = self.place.world.start().await;
        self.ready = Instant::now();
        self.place.has(&server);
        self.server = Some(server);
    }

    fn kill_a_guest(&mut self, customers: &[Customer<'_>]) {
        let mut with_sandbox: Vec<_> = customers.iter().filter(|customer| customer.has_sandbox).collect();
        let first = usize::try_from(self.dice.next() % with_sandbox.len() as u64).unwrap();
        with_sandbox.rotate_left(first);
        for customer in with_sandbox {
            let Some(process) = self.place.world.find_sandbox_process(&customer.deployment_id) else {
                continue;
            };
            let outside = processes_that_mention(&process);
            if !outside.is_empty() {
                outside.into_iter().for_each(kill_children);
                self.count("guests killed");
                return;
            }
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.made.entry(what).or_default() += 1;
    }

    /// Stops the last server.
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
