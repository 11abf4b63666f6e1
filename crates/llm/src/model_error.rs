//! Errors of model calls. Every failure of a model call is converted into a [`ModelError`] here.

mod provider_error;
#[cfg(test)]
mod tests;

use std::time::Duration;

use herm_types::model::{ModelError, ModelErrorKind};
use secrecy::{ExposeSecret, SecretString};

pub(crate) use provider_error::ProviderError;

use crate::limits::ERROR_MESSAGE_CHARS;

/// The error of a failed attempt at a model call, without the provider's name. `message` is the rest of a
/// sentence that starts with that name, for example "sent an invalid event".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    pub(crate) kind: ModelErrorKind,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
}

impl CallError {
    pub(crate) fn new(kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(ModelErrorKind::Malformed, message)
    }

    /// Creates the error for a failed or interrupted connection. The URL is removed from the error, because
    /// the complete message already names the provider.
    pub(crate) fn network(attempt: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut message = format!("{attempt}: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(ModelErrorKind::Network, message)
    }
}

impl From<crate::sse::Error> for CallError {
    fn from(error: crate::sse::Error) -> Self {
        Self::malformed(error.to_string())
    }
}

/// Converts call errors into model errors. The messages name the provider and never contain its API key.
#[derive(Clone, Debug)]
pub(crate) struct ErrorContext {
    pub(crate) provider: String,
    pub(crate) api_key: Option<SecretString>,
}

impl ErrorContext {
    /// Returns the model error for a call error. The message is a single line of at most
    /// [`ERROR_MESSAGE_CHARS`] characters.
    pub(crate) fn to_model_error(&self, error: &CallError) -> ModelError {
        let mut message = format!("provider `{}` {}", self.provider, error.message);
        // Mask the API key in the message. Providers may repeat rejected values, including keys.
        if let Some(key) =
            self.api_key.as_ref().map(ExposeSecret::expose_secret).filter(|key| !key.is_empty())
        {
            message = message.replace(key, "[key]");
        }
        ModelError { kind: error.kind, message: one_line(&message), retry_after: error.retry_after }
    }
}

/// Replaces each sequence of white space with one space and cuts the text to the maximum length of an error
/// message.
fn one_line(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| std::iter::once(' ').chain(word.chars())).skip(1);
    let printable = words.map(|character| if character.is_control() { ' ' } else { character });
    let mut line: String = printable.take(ERROR_MESSAGE_CHARS + 1).collect();
    if let Some((last, _)) = line.char_indices().nth(ERROR_MESSAGE_CHARS - 1)
        && line.chars().count() > ERROR_MESSAGE_CHARS
    {
        line.truncate(last);
        line.push('…');
    }
    line
}
