//! A client for model providers. The same streaming call supports both wire formats.
//!
//! [`Providers::stream`] makes one attempt at a model call and returns a [`ModelStream`]. It never retries,
//! because only the caller knows how much text of an earlier attempt has already been published.

mod anthropic;
mod decoder;
mod limits;
mod model_error;
mod openai;
mod providers;
mod reply_size;
mod retry_after;
mod sse;
mod stream;
mod tool_arguments;

pub use limits::Limits;
pub use providers::{Error, ProviderKind, ProviderOptions, Providers};
pub use stream::ModelStream;
