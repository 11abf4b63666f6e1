//! The Anthropic Messages wire format, including its streaming events:
//! <https://docs.anthropic.com/en/api/messages>.

mod call_ids;
mod messages;
mod reply;
mod request;

pub(crate) use reply::ReplyBuilder;
pub(crate) use request::body;

/// The value of the header `anthropic-version`. Anthropic continues to support old versions.
pub(crate) const VERSION: &str = "2023-06-01";
