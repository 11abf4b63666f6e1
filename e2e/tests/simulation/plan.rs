//! What a seed decides: how much is asked for, and which troubles come when.

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
        Self { threads, messages, deleted, troubles }
    }
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
