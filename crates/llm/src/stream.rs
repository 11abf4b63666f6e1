//! The stream of a model's reply, read from a provider's response.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use herm_types::model::{ModelError, ModelErrorKind, ModelEvent};
use reqwest::Response;
use tokio::time::{Instant, timeout, timeout_at};

use crate::decoder::Decoder;
use crate::limits::{DRAIN, DRAIN_BYTES};
use crate::model_error::{CallError, ErrorContext};
use crate::{Limits, ProviderKind};

/// A stream of a model's reply: any number of text deltas, then the finished reply, whose text is the
/// concatenation of the deltas. At any point, a model error can end the stream instead. Dropping the stream
/// cancels the model call. The stream must be polled within a Tokio runtime.
pub struct ModelStream {
    events: BoxStream<'static, Result<ModelEvent, ModelError>>,
}

impl ModelStream {
    pub(crate) fn new(
        response: Response,
        kind: ProviderKind,
        limits: Limits,
        error_context: ErrorContext,
    ) -> Self {
        let state = StreamState {
            response: Some(response),
            decoder: Decoder::new(kind, limits),
            ready: VecDeque::new(),
            error: None,
            limits,
            deadline: Instant::now() + limits.reply,
        };
        let events = stream::unfold(state, move |mut state| {
            let error_context = error_context.clone();
            async move {
                let event = state.next().await?.map_err(|error| error_context.to_model_error(&error));
                Some((event, state))
            }
        });
        Self { events: events.boxed() }
    }
}

impl Stream for ModelStream {
    type Item = Result<ModelEvent, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next_unpin(context)
    }
}

impl fmt::Debug for ModelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelStream").finish_non_exhaustive()
    }
}

struct StreamState {
    /// The response. `None` if there is nothing left to read from it.
    response: Option<Response>,
    decoder: Decoder,
    ready: VecDeque<ModelEvent>,
    /// The error that ended the stream. It is returned after the events in `ready`.
    error: Option<CallError>,
    limits: Limits,
    deadline: Instant,
}

impl StreamState {
    async fn next(&mut self) -> Option<Result<ModelEvent, CallError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            if let Some(error) = self.error.take() {
                return Some(Err(error));
            }
            let response = self.response.as_mut()?;
            match next_chunk(response, &self.limits, self.deadline).await {
                Ok(Some(bytes)) => self.decode(&bytes),
                Ok(None) => self.end(None),
                Err(error) => self.end(Some(error)),
            }
        }
    }

    fn decode(&mut self, bytes: &Bytes) {
        self.error = self.decoder.push(bytes, &mut self.ready).err();
        if self.error.is_some() {
            self.response = None;
        } else if self.decoder.is_finished()
            && let Some(response) = self.response.take()
        {
            tokio::spawn(drain(response));
        }
    }

    /// Handles the end of the response body. If the reply is complete, it is returned even if the connection
    /// failed afterwards.
    fn end(&mut self, error: Option<CallError>) {
        self.response = None;
        match self.decoder.end() {
            Ok(event) => self.ready.push_back(event),
            Err(incomplete) => self.error = Some(error.unwrap_or(incomplete)),
        }
    }
}

/// Returns the next chunk of the response body, or `None` at the end of the body.
async fn next_chunk(
    response: &mut Response,
    limits: &Limits,
    deadline: Instant,
) -> Result<Option<Bytes>, CallError> {
    let silence_ends = Instant::now() + limits.silence;
    match timeout_at(silence_ends.min(deadline), response.chunk()).await {
        Ok(piece) => piece.map_err(|error| CallError::network("interrupted its reply", error)),
        Err(_) if deadline <= silence_ends => {
            let message = format!("did not complete its reply within {} s", limits.reply.as_secs_f64());
            Err(CallError::new(ModelErrorKind::Stalled, message))
        }
        Err(_) => {
            let message =
                format!("sent nothing for {} s in the middle of a reply", limits.silence.as_secs_f64());
            Err(CallError::new(ModelErrorKind::Stalled, message))
        }
    }
}

/// Reads the rest of a response body after the reply is complete, so that the connection can be reused. The
/// rest is usually short.
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
    // If the timeout expires, the connection is closed and the next call opens a new one.
    let _ = timeout(DRAIN, to_end).await;
}
