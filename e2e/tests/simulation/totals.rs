//! Counts the runs, messages, events, commands and injected failures in all simulations of one test. The test prints
//! these totals at its end.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{History, checker};

#[derive(Default)]
pub(crate) struct Totals {
    runs: usize,
    messages: usize,
    events: usize,
    commands: u64,
    unknown_outcomes: usize,
    injected_failures: BTreeMap<&'static str, u64>,
}

impl Totals {
    pub(crate) fn add(&mut self, history: &History) {
        for deployment in &history.deployments {
            self.runs += deployment.runs.len();
            self.messages += deployment.acknowledged.len();
            self.events += deployment.events.len();
            self.unknown_outcomes +=
                deployment.events.iter().filter(|event| checker::is_unknown_outcome(event)).count();
        }
        self.commands += history.command_starts.values().sum::<u64>();
        for (name, count) in &history.injected_failures {
            *self.injected_failures.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} runs, {} messages, {} events, {} commands, {} unknown outcomes",
            self.runs, self.messages, self.events, self.commands, self.unknown_outcomes
        )?;
        self.injected_failures.iter().try_for_each(|(name, count)| write!(f, ", {count} {name}"))
    }
}
