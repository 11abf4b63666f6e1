//! A client that follows one deployment's stream, across every break.

use herm_testkit::client::Client;
use herm_testkit::events::{Event, EventStream};

pub(crate) struct Reader {
    path: String,
    stream: Option<EventStream>,
    /// All that came, in the order in which it came.
    pub(crate) seen: Vec<Event>,
    retry_ms: Option<u64>,
}

impl Reader {
    /// Follows from the first event on.
    pub(crate) fn from_the_start(deployment_id: &str) -> Self {
        let path = format!("/v1/deployments/{deployment_id}/events");
        Self { path, stream: None, seen: Vec::new(), retry_ms: None }
    }

    /// Reads until an event is the one wanted; `false` if the stream ended before. What was read before does not
    /// count.
    pub(crate) async fn try_until(&mut self, client: &Client, mut is_it: impl FnMut(&Event) -> bool) -> bool {
        if self.stream.is_none() {
            let after = self.seen.last().map_or("evt_0", |event| event.id.as_str());
            self.stream = client.stream(&self.path, Some(after)).await.ok();
        }
        let Some(stream) = &mut self.stream else { return false };
        while let Some(event) = stream.next().await {
            let done = is_it(&event);
            self.seen.push(event);
            if done {
                return true;
            }
        }
        self.stream = None;
        false
    }

    pub(crate) async fn until(&mut self, client: &Client, is_it: impl FnMut(&Event) -> bool) -> &Event {
        assert!(self.try_until(client, is_it).await, "the stream ended early: {:#?}", self.seen);
        self.seen.last().unwrap()
    }

    /// Reads what the open stream still brings, to its end.
    pub(crate) async fn drain(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            while let Some(event) = stream.next().await {
                self.seen.push(event);
            }
            self.retry_ms = stream.retry_ms();
        }
    }

    /// When the stream that ended last asked its client to come back.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Reads until a run has ended, and gives its last status.
    pub(crate) async fn until_ended(&mut self, client: &Client, run_id: &str) -> String {
        let event = self.until(client, |event| is_end(event, run_id)).await;
        event.data["status"].as_str().unwrap().to_owned()
    }

    pub(crate) fn of(&self, name: &str) -> Vec<&Event> {
        self.seen.iter().filter(|event| event.name == name).collect()
    }
}

/// Whether this event ends the run.
pub(crate) fn is_end(event: &Event, run_id: &str) -> bool {
    event.name == "run_status"
        && event.data["run_id"] == run_id
        && matches!(event.data["status"].as_str(), Some("completed" | "error" | "cancelled"))
}
