//! A rendered reply: bytes, and what happens between them.

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
    /// Nothing more is said, and the connection stays open.
    Stall,
    /// The connection is closed in the middle of the body.
    Cut,
}

/// The steps of one reply; bytes between two pauses are sent as one piece.
#[derive(Debug, Default)]
pub(super) struct Script {
    steps: Vec<Step>,
    unsent: Vec<u8>,
}

impl Script {
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// A server-sent event with a name.
    pub(super) fn named_event(&mut self, name: &str, data: &serde_json::Value) {
        self.send(format!("event: {name}\ndata: {data}\n\n").as_bytes());
    }

    /// A server-sent event without one.
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

    /// The body that goes through the steps; it breaks off when the server is dropped.
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

/// Lets the server write out what it has been given: it does so whenever a body has nothing ready.
async fn flush() {
    tokio::task::yield_now().await;
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the script cuts the connection here")
}
