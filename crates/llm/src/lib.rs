//! Speaks to model providers: one streaming call, two wire formats, one shape of answer.
//!
//! [`Providers::stream`] makes one attempt and gives a [`ModelStream`]. Nothing is retried here: the caller
//! knows what of an earlier attempt has already been shown.

mod anthropic;
mod decoder;
mod draft;
mod fault;
mod limits;
mod openai;
mod providers;
mod retry_after;
mod sse;
mod stream;
mod tool_arguments;

pub use limits::Limits;
pub use providers::{Error, ProviderKind, ProviderOptions, Providers};
pub use stream::ModelStream;
