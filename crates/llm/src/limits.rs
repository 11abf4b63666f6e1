//! What a provider may take of our time and memory, each with its reason.

use std::time::Duration;

/// A provider that accepts no connection within this is not there.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);
/// Idle connections to one provider kept for reuse; more only hold sockets.
pub(crate) const IDLE_CONNECTIONS: usize = 256;
/// Largest request, in bytes: what Anthropic takes at most; a larger one is refused by every provider.
pub(crate) const REQUEST_BYTES: usize = 32 << 20;
/// How much of an error's body is read, in bytes: messages are shorter, pages of proxies longer.
pub(crate) const ERROR_BODY_BYTES: usize = 64 << 10;
/// Longest fault message, in characters, the provider's own words included.
pub(crate) const FAULT_MESSAGE_CHARS: usize = 500;
/// Longest `Retry-After` believed; a day is already "not now".
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long and how many bytes the end of an answered stream is awaited, so that its connection can be reused.
pub(crate) const DRAIN: Duration = Duration::from_secs(2);
pub(crate) const DRAIN_BYTES: usize = 64 << 10;

/// The limits of one reply; a reply that exceeds one is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait from the request to the answer's headers. Servers on one's own machine read the whole
    /// prompt before they send any. Exceeded: `Stalled`.
    pub headers: Duration,
    /// Longest silence between two pieces of a stream; providers send pings far more often. Exceeded:
    /// `Stalled`.
    pub silence: Duration,
    /// Longest reply from headers to end, so that pings alone cannot hold a run forever. Exceeded: `Stalled`.
    pub reply: Duration,
    /// Largest server-sent event, in bytes. Exceeded: `Malformed`.
    pub event_bytes: usize,
    /// Most text, reasoning and tool arguments of one reply together, in bytes. Exceeded: `Malformed`.
    pub reply_bytes: usize,
    /// Most tool calls of one reply. Exceeded: `Malformed`.
    pub tool_calls: usize,
    /// Most blocks of one reply, tool calls included. Exceeded: `Malformed`.
    pub blocks: usize,
}

impl Limits {
    /// The limits that a server uses.
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
