//! Limits on the time and memory that a model call can use, with the reason for each limit.

use std::time::Duration;

/// The maximum time for establishing a connection. After that, the provider counts as unreachable.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// The maximum number of idle connections that are retained per provider. Further ones are closed, because
/// they would only occupy sockets.
pub(crate) const IDLE_CONNECTIONS: usize = 256;
/// The maximum size of a request in bytes. A larger request is not sent. Anthropic has this limit, and other
/// providers reject such requests too.
pub(crate) const REQUEST_BYTES: usize = 32 << 20;
/// The maximum number of bytes that are read from the body of an error response. The rest is ignored. Error
/// messages of providers are shorter, but error pages of proxies can be longer.
pub(crate) const ERROR_BODY_BYTES: usize = 64 << 10;
/// The maximum length of a model error's message in characters, including the text from the provider. Longer
/// messages are cut off.
pub(crate) const ERROR_MESSAGE_CHARS: usize = 500;
/// The maximum delay that a provider can request before a retry. A longer `Retry-After` is reduced to this
/// value.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum time for reading the rest of a response after its reply is complete. If the response ends in
/// time, the connection can be reused.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// The maximum number of bytes that are read after a complete reply. If more follow, the connection is
/// closed.
pub(crate) const DRAIN_BYTES: usize = 64 << 10;

/// The limits of one model call. The documentation of each field names the model error kind with which a call
/// fails when it exceeds that limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum time from the request to the response headers. If they take longer, the call fails with
    /// `Stalled`. The limit is long, because local servers process the whole prompt before they send headers.
    pub headers: Duration,
    /// The maximum time between two chunks of a stream. After a longer silence, the call fails with
    /// `Stalled`. Providers send pings far more often.
    pub silence: Duration,
    /// The maximum time from the response headers to the end of the reply. If the reply takes longer, the
    /// call fails with `Stalled`. Without this limit, a stream of pings could keep a run active forever.
    pub reply: Duration,
    /// The maximum size of one server-sent event in bytes. If an event is larger, the call fails with
    /// `Malformed`.
    pub event_bytes: usize,
    /// The maximum total size of the text, reasoning and tool calls of a reply in bytes. If a reply is
    /// larger, the call fails with `Malformed`.
    pub reply_bytes: usize,
    /// The maximum number of tool calls in a reply. If there are more, the call fails with `Malformed`.
    pub tool_calls: usize,
    /// The maximum number of blocks in a reply, including tool calls. If there are more, the call fails with
    /// `Malformed`.
    pub blocks: usize,
}

impl Limits {
    /// The limits that a server uses unless it is configured otherwise.
    pub const DEFAULT: Self = Self {
        headers: Duration::from_secs(300),
        silence: Duration::from_secs(120),
        reply: Duration::from_secs(60 * 60),
        event_bytes: 8 << 20,
        reply_bytes: 16 << 20,
        tool_calls: 128,
        blocks: 1024,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
