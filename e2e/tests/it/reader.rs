//! A client that reads the event stream of one deployment and resumes it after every interruption.

use herm_testkit::client::Client;
use herm_testkit::events::{Event, EventStream};

pub(crate) struct Reader {
    path: String,
    stream: Option<EventStream>,
    /// All events received so far, in the order of their arrival.
    pub(crate) seen: Vec<Event>,
    retry_ms: Option<u64>,
}

impl Reader {
    /// Creates a reader whose stream begins with the deployment's first event.
    pub(crate) fn from_the_start(deployment_id: &str) -> Self {
        let path = format!("/v1/deployments/{deployment_id}/events");
        Self { path, stream: None, seen: Vec::new(), retry_ms: None }
    }

    /// Reads until a new event satisfies the predicate. Returns false if the stream ends first. The next call then
    /// resumes the stream. Events that were read by previous calls are not checked again.
    pub(crate) async fn try_until(
        &mut self,
        client: &Client,
        mut predicate: impl FnMut(&Event) -> bool,
    ) -> bool {
        if self.stream.is_none() {
            let after = self.seen.last().map_or("evt_0", |event| event.id.as_str());
            self.stream = client.stream(&self.path, Some(after)).await.ok();
        }
        let Some(stream) = &mut self.stream else { return false };
        while let Some(event) = stream.next().await {
            let is_match = predicate(&event);
            self.seen.push(event);
            if is_match {
                return true;
            }
        }
        self.stream = None;
        false
    }

    /// Reads until a new event satisfies the predicate, and returns that event. Panics if the stream ends first.
    pub(crate) async fn until(&mut self, client: &Client, predicate: impl FnMut(&Event) -> bool) -> &Event {
        assert!(self.try_until(client, predicate).await, "the stream ended early: {:#?}", self.seen);
        self.seen.last().unwrap()
    }

    /// Reads the open stream until the server ends it.
    pub(crate) async fn drain(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            while let Some(event) = stream.next().await {
                self.seen.push(event);
            }
            self.retry_ms = stream.retry_ms();
        }
    }

    /// Returns the reconnection time in milliseconds that the server sent on the stream that [`Self::drain`] last read,
    /// or `None` if the server sent none.
    pub(crate) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Reads until the run has ended. Returns the run's final status.
    pub(crate) async fn until_ended(&mut self, client: &Client, run_id: &str) -> String {
        let event = self.until(client, |event| is_end(event, run_id)).await;
        event.data["status"].as_str().unwrap().to_owned()
    }

    /// Returns all received events of this type.
    pub(crate) fn named(&self, name: &str) -> Vec<&Event> {
        self.seen.iter().filter(|event| event.name == name).collect()
    }
}

/// Returns true if the event reports that the run has ended.
pub(crate) fn is_end(event: &Event, run_id: &str) -> bool {
    event.name == "run_status"
        && event.data["run_id"] == run_id
        && matches!(event.data["status"].as_str(), Some("completed" | "error" | "cancelled"))
}
