//! What a seed decides: how much is asked for, and which troubles come when.

use serde_json::{Value, json};

use crate::history::dice::Dice;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// The process dies where it stands.
    Crash,
    /// It is told to stop, and is started again: the database is closed and opened.
    Restart,
    /// Backwards, too.
    ClockJump {
        ms: i64,
    },
    /// All leases are ended and taken by a second worker, while the first one goes on.
    Usurp,
    DoubledWakeUp,
    LostWakeUps,
    FullDisk,
    /// Every connection to the database is cut; SQLite, which has none, is closed and opened.
    DatabaseRestart,
    /// A sandbox dies with all that it knows.
    DeadSandbox,
    /// A guest's connection is cut.
    CutLine,
}

/// When it goes wrong: at the n-th fault point that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Planned {
    pub(crate) at: u64,
    pub(crate) trouble: Trouble,
}

/// Fault points among which troubles are spread: a life of this size reaches about as many.
const FAULT_POINTS: u64 = 160;
const MAX_TROUBLES: u64 = 9;
/// How far the clock jumps at most, in milliseconds.
const MAX_AHEAD_MS: u64 = 2 * 60 * 60 * 1000;
const MAX_BACK_MS: u64 = 60 * 1000;

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The threads of each deployment.
    pub(crate) threads: Vec<u64>,
    /// Messages for each thread.
    pub(crate) messages: u64,
    /// Deployments that are deleted in the middle.
    pub(crate) deleted: usize,
    /// Each deployment has a thread more, which is deleted in the middle.
    pub(crate) deletes_threads: bool,
    /// How each deployment's settings say that what waits for a person ends.
    pub(crate) steering: Value,
    pub(crate) troubles: Vec<Planned>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let threads = (0..dice.between(1, 2)).map(|_| dice.between(1, 3)).collect();
        let messages = dice.between(1, 4);
        let deleted = usize::from(dice.percent(30));
        let mut troubles: Vec<Planned> = (0..dice.between(1, MAX_TROUBLES))
            .map(|_| Planned { at: dice.between(1, FAULT_POINTS), trouble: trouble(&mut dice) })
            .collect();
        troubles.sort();
        let deletes_threads = dice.percent(30);
        let steering = steering(&mut dice);
        Self { threads, messages, deleted, deletes_threads, steering, troubles }
    }
}

/// Nobody but a person decides, or after some time the settings do: while clients look on, or when the clock jumps.
fn steering(dice: &mut Dice) -> Value {
    let expires_after_s = match dice.below(4) {
        0 => Some(1),
        1 => Some(20),
        _ => None,
    };
    let on_expiry = ["deny", "approve", "fail"][usize::try_from(dice.below(3)).unwrap_or_default()];
    json!({"expires_after_s": expires_after_s, "on_expiry": on_expiry})
}

fn trouble(dice: &mut Dice) -> Trouble {
    match dice.below(14) {
        0..=4 => Trouble::Crash,
        5 => Trouble::Restart,
        6 => {
            // Far enough ahead that leases run out. Back not so far: what waits then waits so much longer.
            let goes_back = dice.percent(50);
            let ms = dice.between(1, if goes_back { MAX_BACK_MS } else { MAX_AHEAD_MS });
            let ms = i64::try_from(ms).unwrap_or_default();
            Trouble::ClockJump { ms: if goes_back { -ms } else { ms } }
        }
        7 => Trouble::Usurp,
        8 => Trouble::DoubledWakeUp,
        9 => Trouble::LostWakeUps,
        10 => Trouble::FullDisk,
        11 => Trouble::DatabaseRestart,
        12 => Trouble::DeadSandbox,
        _ => Trouble::CutLine,
    }
}
