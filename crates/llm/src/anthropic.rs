//! Anthropic Messages: <https://docs.anthropic.com/en/api/messages> and its streaming events.

mod call_ids;
mod messages;
mod reply;
mod request;

pub(crate) use reply::Reader;
pub(crate) use request::body;

/// The version of the wire format; Anthropic keeps old ones working.
pub(crate) const VERSION: &str = "2023-06-01";
