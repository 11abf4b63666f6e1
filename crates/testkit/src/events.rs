//! A reader for server-sent events.

use serde_json::Value;

/// An event received from a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The event id, for example `evt_7`, or an empty string if the server has sent no id yet.
    pub id: String,
    /// The event type, for example `token`.
    pub name: String,
    pub data: Value,
}

impl Event {
    /// Returns the number in the event id, for example 7 for `evt_7`, or 0 if the id has another form.
    pub fn number(&self) -> u64 {
        self.id.strip_prefix("evt_").and_then(|number| number.parse().ok()).unwrap_or(0)
    }
}

/// An open stream of server-sent events.
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    buffer: String,
    /// The first bytes of a UTF-8 character whose remaining bytes have not arrived yet.
    partial: Vec<u8>,
    comments: Vec<String>,
    retry_ms: Option<u64>,
    last_id: String,
}

impl EventStream {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            buffer: String::new(),
            partial: Vec::new(),
            comments: Vec::new(),
            retry_ms: None,
            last_id: String::new(),
        }
    }

    /// Returns the next event, or `None` if the stream has ended or the connection was lost.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.find("\n\n") {
                let frame: String = self.buffer.drain(..end + 2).collect();
                if let Some(event) = self.read_frame(&frame) {
                    return Some(event);
                }
            }
            let chunk = self.response.chunk().await.ok()??;
            self.take(&chunk);
        }
    }

    /// Reads events up to the first one for which `is_last` returns true. Returns the events read, and false if the
    /// stream ended before such an event.
    pub async fn until(&mut self, mut is_last: impl FnMut(&Event) -> bool) -> (Vec<Event>, bool) {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            let done = is_last(&event);
            events.push(event);
            if done {
                return (events, true);
            }
        }
        (events, false)
    }

    /// Returns the comments that the stream has received so far. The server sends them as heartbeats.
    pub fn comments(&self) -> &[String] {
        &self.comments
    }

    /// Returns the reconnection delay that the server sent in a `retry:` field, if any.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Returns the last event id that the server sent, either with an event or separately.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    fn take(&mut self, chunk: &[u8]) {
        self.partial.extend_from_slice(chunk);
        let whole = match std::str::from_utf8(&self.partial) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let rest = self.partial.split_off(whole);
        self.buffer.push_str(&String::from_utf8_lossy(&self.partial));
        self.partial = rest;
    }

    fn read_frame(&mut self, frame: &str) -> Option<Event> {
        let (mut name, mut data) = (String::new(), None::<String>);
        for line in frame.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments.push(value.to_owned()),
                "event" => value.clone_into(&mut name),
                "id" => value.clone_into(&mut self.last_id),
                "retry" => self.retry_ms = value.parse().ok(),
                "data" => {
                    let text = data.get_or_insert_with(String::new);
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(value);
                }
                _ => {}
            }
        }
        let data = serde_json::from_str(&data?).unwrap_or_default();
        Some(Event { id: self.last_id.clone(), name, data })
    }
}
