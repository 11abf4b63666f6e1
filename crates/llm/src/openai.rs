//! The OpenAI Chat Completions wire format (<https://platform.openai.com/docs/api-reference/chat>), including
//! the variations of other servers that use it.

mod reply;
mod request;
mod tool_calls;

pub(crate) use reply::ReplyBuilder;
pub(crate) use request::{MaxTokensField, body};
