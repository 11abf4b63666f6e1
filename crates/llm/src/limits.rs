//! Limits on the time and memory of a model call, with the reason for each.

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
/// The maximum delay before a retry that a provider can request. A longer `Retry-After` is reduced to this
/// value.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum time for reading the rest of a response after its reply is complete. If the response ends in
/// time, the connection can be reused.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
/// The maximum number of bytes that are read after a complete reply. If more follow, the connection is
/// closed.
pub(crate) const DRAIN_BYTES: usize = 64 << 10;

/// The limits of one model call. A call that exceeds a limit fails with the model error kind that the field's
/// documentation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The maximum time from the request to the response headers. It is long, because local servers process
    /// the whole prompt before they send headers. Model error kind: `Stalled`.
    pub headers: Duration,
    /// The maximum time between two chunks of a stream. Providers send pings far more often. Model error
    /// kind: `Stalled`.
    pub silence: Duration,
    /// The maximum time from the response headers to the end of the reply. Without it, a stream of pings
    /// could keep a run active forever. Model error kind: `Stalled`.
    pub reply: Duration,
    /// The maximum size of one server-sent event in bytes. Model error kind: `Malformed`.
    pub event_bytes: usize,
    /// The maximum total size of text, reasoning and tool arguments in bytes. Model error kind: `Malformed`.
    pub reply_bytes: usize,
    /// The maximum number of tool calls in a reply. Model error kind: `Malformed`.
    pub tool_calls: usize,
    /// The maximum number of blocks in a reply, including tool calls. Model error kind: `Malformed`.
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
