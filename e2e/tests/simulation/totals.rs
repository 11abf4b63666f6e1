//! What many lives come to.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{History, check};

#[derive(Default)]
pub(crate) struct Totals {
    runs: usize,
    messages: usize,
    events: usize,
    commands: u64,
    unknown: usize,
    troubles: BTreeMap<&'static str, u64>,
}

impl Totals {
    pub(crate) fn add(&mut self, history: &History) {
        for of_it in &history.deployments {
            self.runs += of_it.runs.len();
            self.messages += of_it.acknowledged.len();
            self.events += of_it.events.len();
            self.unknown += of_it.events.iter().filter(|event| check::is_untold(event)).count();
        }
        self.commands += history.begun.values().sum::<u64>();
        for (name, count) in &history.troubles {
            *self.troubles.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {} messages, {} events, {} commands, {} outcomes told to be unknown",
            self.runs, self.messages, self.events, self.commands, self.unknown
        )?;
        self.troubles.iter().try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}
