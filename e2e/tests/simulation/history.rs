//! What a life leaves: all that its clients were told, and all that can be read afterwards.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

/// A message that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) thread_id: String,
    pub(crate) run_id: String,
    /// Its mark.
    pub(crate) name: String,
}

/// A deployment that was not deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfDeployment {
    /// In the order in which each thread's were sent.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// The events as they were read in the middle of the troubles.
    pub(crate) events_before: Vec<Value>,
    /// All events.
    pub(crate) events: Vec<Value>,
    pub(crate) runs: Vec<Value>,
    /// The messages that the model was told of, thread by thread, when at last it was asked once more.
    pub(crate) heard: BTreeMap<String, Vec<String>>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) deployments: Vec<OfDeployment>,
    /// How often each command was begun, those of deleted deployments among them.
    pub(crate) begun: BTreeMap<String, u64>,
    /// Items that are left in the queue.
    pub(crate) queued: i64,
    pub(crate) troubles: BTreeMap<&'static str, u64>,
}

/// What many lives come to.
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
            self.unknown += of_it.events.iter().filter(|event| crate::check::is_untold(event)).count();
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
