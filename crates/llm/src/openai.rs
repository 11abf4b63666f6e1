//! The wire format OpenAI Chat Completions: <https://platform.openai.com/docs/api-reference/chat>, with the
//! variations of other servers that use it.

mod reply;
mod request;
mod tool_calls;

pub(crate) use reply::ReplyBuilder;
pub(crate) use request::{MaxTokensField, body};
