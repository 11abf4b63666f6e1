//! The history of a test with injected failures: the responses that its clients received, and everything that can be
//! read from the server afterwards. The simulation and the load test with random kills record histories, and check them
//! with the same rules.

pub(crate) mod checker;
pub(crate) mod markers;
pub(crate) mod seeded_random;

use std::collections::{BTreeMap, BTreeSet};

use herm_testkit::client::Response;
use serde_json::Value;

/// A message that the server acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct AcknowledgedMessage {
    pub(crate) thread_id: String,
    pub(crate) run_id: String,
    /// The message's name, which the marker in its text contains.
    pub(crate) name: String,
}

impl AcknowledgedMessage {
    /// Parses the response to a request that sent a message. Returns `None` if the deployment was deleted.
    pub(crate) fn from_response(response: &Response, name: &str) -> Option<Self> {
        if response.status == 404 {
            return None;
        }
        assert_eq!(response.status, 202, "{}", response.text());
        let body = response.json();
        let text = |key: &str| {
            body[key].as_str().unwrap_or_else(|| panic!("the response has no {key}: {body}")).to_owned()
        };
        Some(Self { thread_id: text("thread_id"), run_id: text("run_id"), name: name.to_owned() })
    }
}

/// The history of one deployment. Deployments that are deleted while clients still send requests have no history.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeploymentHistory {
    /// The acknowledged messages. Within each thread, they are in the order in which they were sent.
    pub(crate) acknowledged: Vec<AcknowledgedMessage>,
    /// The events that clients read while failures were still being injected.
    pub(crate) earlier_events: Vec<Value>,
    /// All events stored at the end of the test.
    pub(crate) events: Vec<Value>,
    pub(crate) runs: Vec<Value>,
    /// The names of the user messages in the last model request of each thread, by thread id.
    pub(crate) model_messages: BTreeMap<String, Vec<String>>,
    /// The names of the messages that the last model request of each thread contains as tool results, by thread id.
    /// These messages answered steering requests.
    pub(crate) model_answers: BTreeMap<String, Vec<String>>,
    /// The ids of the deleted threads.
    pub(crate) erased_threads: BTreeSet<String>,
}

/// The history of all deployments of a test.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) deployments: Vec<DeploymentHistory>,
    /// The number of times that each command was started, by command. Commands of deleted deployments are included.
    pub(crate) command_starts: BTreeMap<String, u64>,
    /// The number of work items that are left in the queue at the end of the test.
    pub(crate) queued_work_items: i64,
    /// The number of injected failures of each kind.
    pub(crate) injected_failures: BTreeMap<&'static str, u64>,
}
