//! A model's reply while it comes in.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use herm_types::model::{ModelEvent, ModelFault, ModelFaultKind};
use reqwest::Response;
use tokio::time::{Instant, timeout, timeout_at};

use crate::decoder::Decoder;
use crate::fault::{Blame, Problem};
use crate::limits::{DRAIN, DRAIN_BYTES};
use crate::{Limits, ProviderKind};

/// A model's reply while it comes in: text deltas, then exactly one finished reply, then the end; or, at any
/// point, one fault and then the end. Their texts together are the text of the finished reply. Dropping it ends
/// the call. Must be polled within a Tokio runtime.
pub struct ModelStream {
    events: BoxStream<'static, Result<ModelEvent, ModelFault>>,
}

impl ModelStream {
    pub(crate) fn new(response: Response, kind: ProviderKind, limits: Limits, blame: Blame) -> Self {
        let reading = Reading {
            response: Some(response),
            decoder: Decoder::new(kind, limits),
            ready: VecDeque::new(),
            failed: None,
            limits,
            deadline: Instant::now() + limits.reply,
        };
        let events = stream::unfold(reading, move |mut reading| {
            let blame = blame.clone();
            async move {
                let event = reading.next().await?.map_err(|problem| blame.fault(&problem));
                Some((event, reading))
            }
        });
        Self { events: events.boxed() }
    }
}

impl Stream for ModelStream {
    type Item = Result<ModelEvent, ModelFault>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

impl fmt::Debug for ModelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelStream").finish_non_exhaustive()
    }
}

struct Reading {
    /// Gone once there is nothing more to read.
    response: Option<Response>,
    decoder: Decoder,
    ready: VecDeque<ModelEvent>,
    /// Told after what is ready.
    failed: Option<Problem>,
    limits: Limits,
    deadline: Instant,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<ModelEvent, Problem>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if let Some(problem) = self.failed.take() {
                return Some(Err(problem));
            }
            let response = self.response.as_mut()?;
            match next_piece(response, &self.limits, self.deadline).await {
                Ok(Some(bytes)) => self.decode(&bytes),
                Ok(None) => self.end(None),
                Err(problem) => self.end(Some(problem)),
            }
        }
    }

    fn decode(&mut self, bytes: &Bytes) {
        self.failed = self.decoder.push(bytes, &mut self.ready).err();
        if self.failed.is_some() {
            self.response = None;
        } else if self.decoder.is_finished()
            && let Some(response) = self.response.take()
        {
            tokio::spawn(drain(response));
        }
    }

    /// No more bytes come. A reply that is whole stands, whatever became of its connection.
    fn end(&mut self, problem: Option<Problem>) {
        self.response = None;
        match self.decoder.end() {
            Ok(event) => self.ready.push_back(event),
            Err(incomplete) => self.failed = Some(problem.unwrap_or(incomplete)),
        }
    }
}

/// The next bytes of a body; `None` at its end.
async fn next_piece(
    response: &mut Response,
    limits: &Limits,
    deadline: Instant,
) -> Result<Option<Bytes>, Problem> {
    let silence_ends = Instant::now() + limits.silence;
    match timeout_at(silence_ends.min(deadline), response.chunk()).await {
        Ok(piece) => piece.map_err(|error| Problem::network("broke off its reply", error)),
        Err(_) if deadline <= silence_ends => {
            let said = format!("did not end its reply within {} s", limits.reply.as_secs_f64());
            Err(Problem::new(ModelFaultKind::Stalled, said))
        }
        Err(_) => {
            let said =
                format!("sent nothing for {} s in the middle of a reply", limits.silence.as_secs_f64());
            Err(Problem::new(ModelFaultKind::Stalled, said))
        }
    }
}

/// Reads a body to its end, which is near, so that the next call finds an open connection.
async fn drain(mut response: Response) {
    let to_end = async {
        let mut bytes = 0;
        while let Ok(Some(piece)) = response.chunk().await {
            bytes += piece.len();
            if bytes > DRAIN_BYTES {
                return;
            }
        }
    };
    // Late: the connection is closed, and the next call opens another.
    let _ = timeout(DRAIN, to_end).await;
}
