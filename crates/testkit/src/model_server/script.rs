//! A reply rendered in a wire format: bytes to send, and points at which to wait or stop.

use std::io;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;

use super::{Gate, until_stopped};

#[derive(Debug)]
enum Step {
    Send(Bytes),
    Wait(Gate),
    /// Send nothing more, but keep the connection open until the server is dropped.
    Stall,
    /// Close the connection before the end of the response body.
    Cut,
}

/// The steps in which one reply is sent. Bytes with no other step in between are sent together.
#[derive(Debug, Default)]
pub(super) struct Script {
    steps: Vec<Step>,
    unsent: Vec<u8>,
}

impl Script {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Adds a server-sent event with an `event:` field.
    pub(super) fn named_event(&mut self, name: &str, data: &serde_json::Value) {
        self.send(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    }

    /// Adds a server-sent event without an `event:` field.
    pub(super) fn event(&mut self, data: &serde_json::Value) {
        self.send(format!("data: {data}\n\n").as_bytes());
    }

    pub(super) fn wait(&mut self, gate: Gate) {
        self.step(Step::Wait(gate));
    }

    pub(super) fn stall(&mut self) {
        self.step(Step::Stall);
    }

    pub(super) fn cut(&mut self) {
        self.step(Step::Cut);
    }

    fn step(&mut self, step: Step) {
        if !self.unsent.is_empty() {
            self.steps.push(Step::Send(std::mem::take(&mut self.unsent).into()));
        }
        self.steps.push(step);
    }

    /// Converts the steps into a response body. If the server is dropped, the body breaks off with an error.
    pub(super) fn into_body(mut self, stopped: watch::Receiver<bool>) -> Body {
        if self.steps.is_empty() {
            return Body::from(self.unsent);
        }
        self.steps.push(Step::Send(self.unsent.into()));
        let steps = self.steps.into_iter();
        Body::from_stream(stream::unfold((steps, stopped), |(mut steps, stopped)| async move {
            loop {
                let piece = match steps.next()? {
                    Step::Send(bytes) if bytes.is_empty() => continue,
                    Step::Send(bytes) => Ok(bytes),
                    Step::Cut => Err(broken()),
                    Step::Stall => {
                        until_stopped(stopped.clone()).await;
                        Err(broken())
                    }
                    Step::Wait(gate) => {
                        flush().await;
                        tokio::select! {
                            () = gate.pass() => continue,
                            () = until_stopped(stopped.clone()) => Err(broken()),
                        }
                    }
                };
                if piece.is_err() {
                    flush().await;
                }
                return Some((piece, (steps, stopped)));
            }
        }))
    }
}

/// Yields once, so that the HTTP server sends the bytes in its buffer. The server does that only while the body has no
/// data ready.
async fn flush() {
    tokio::task::yield_now().await;
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the script cuts the connection here")
}
