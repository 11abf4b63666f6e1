//! OpenAI Chat Completions: <https://platform.openai.com/docs/api-reference/chat>, and what the many servers that
//! speak it do differently.

mod reply;
mod request;
mod tool_calls;

pub(crate) use reply::Reader;
pub(crate) use request::{MaxTokensField, body};
