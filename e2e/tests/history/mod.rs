//! What a life leaves: all that its clients were told, and all that can be read afterwards. The simulation and the soak
//! under kills lead such lives; the same rules hold for both.

pub(crate) mod check;
pub(crate) mod dice;
pub(crate) mod marks;

use std::collections::{BTreeMap, BTreeSet};

use herm_testkit::client::Answer;
use serde_json::Value;

/// A message that was acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) thread_id: String,
    pub(crate) run_id: String,
    /// Its mark.
    pub(crate) name: String,
}

impl Acknowledged {
    /// What a server answered to the sending of a message; `None` if the deployment is gone.
    pub(crate) fn read(sent: &Answer, name: &str) -> Option<Self> {
        if sent.status == 404 {
            return None;
        }
        assert_eq!(sent.status, 202, "{}", sent.text());
        let sent = sent.json();
        let text = |key: &str| {
            sent[key].as_str().unwrap_or_else(|| panic!("there is no {key} in {sent}")).to_owned()
        };
        Some(Self { thread_id: text("thread_id"), run_id: text("run_id"), name: name.to_owned() })
    }
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
    /// Those among a thread's that it was told of as the result of a call that had asked a person.
    pub(crate) answers: BTreeMap<String, Vec<String>>,
    /// Threads that were deleted.
    pub(crate) erased: BTreeSet<String>,
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
