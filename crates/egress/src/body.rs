//! Request and response bodies, which are either streamed unchanged, or decompressed and rewritten.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Body as _, Frame};

use crate::decode::Decoder;
use crate::mask;
use crate::rewrite::{Rewriter, Rules};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Body = UnsyncBoxBody<Bytes, Error>;

pub(crate) fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn text(text: String) -> Body {
    full(Bytes::from(text))
}

pub(crate) fn incoming(body: hyper::body::Incoming) -> Body {
    body.map_err(Error::from).boxed_unsync()
}

/// Returns `inner` with all matches of the rules replaced, in the data and in the trailers. If `decoder` is set, the
/// data is decompressed first.
pub(crate) fn rewritten(inner: Body, decoder: Option<Decoder>, rules: Arc<Rules>) -> Body {
    let rewriter = Rewriter::new(rules.clone());
    RewrittenBody { inner, decoder, rules, rewriter, state: State::Data }.boxed_unsync()
}

struct RewrittenBody {
    inner: Body,
    decoder: Option<Decoder>,
    rules: Arc<Rules>,
    rewriter: Rewriter,
    state: State,
}

enum State {
    Data,
    /// All data has been returned, and these trailers are returned next.
    Trailers(HeaderMap),
    End,
}

impl RewrittenBody {
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        match &mut self.decoder {
            None => Ok(self.rewriter.push(bytes)),
            Some(decoder) => {
                let decoded = decoder.push(bytes)?;
                Ok(self.rewriter.push(&decoded))
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, Error> {
        let mut last = match self.decoder.take() {
            None => Vec::new(),
            Some(decoder) => {
                let decoded = decoder.finish()?;
                self.rewriter.push(&decoded)
            }
        };
        last.extend(self.rewriter.finish());
        Ok(last)
    }
}

impl hyper::body::Body for RewrittenBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            match std::mem::replace(&mut self.state, State::End) {
                State::End => return Poll::Ready(None),
                State::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                State::Data => {}
            }
            self.state = State::Data;
            let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
            let out = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => self.push(&data),
                Some(Ok(Err(frame))) => {
                    let mut trailers = frame.into_trailers().unwrap_or_default();
                    mask::headers(&self.rules, &mut trailers);
                    self.state = State::Trailers(trailers);
                    self.finish()
                }
                Some(Err(error)) => Err(error),
                None => {
                    self.state = State::End;
                    self.finish()
                }
            };
            match out {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                Err(error) => {
                    self.state = State::End;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

/// Returns the size of a body in bytes, or `None` if the size is not known in advance.
pub(crate) fn exact_bytes(body: &Body) -> Option<u64> {
    body.size_hint().exact()
}
