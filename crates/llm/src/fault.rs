//! What went wrong, in the provider's words and ours: every way in which a call fails becomes a [`ModelFault`] here.

mod complaint;
#[cfg(test)]
mod tests;

use std::time::Duration;

use herm_types::model::{ModelFault, ModelFaultKind};
use secrecy::{ExposeSecret, SecretString};

pub(crate) use complaint::Complaint;

use crate::limits::FAULT_MESSAGE_CHARS;

/// A fault that does not say yet whose it is. `said` goes on a sentence that begins with the provider's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: ModelFaultKind,
    pub(crate) said: String,
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(kind: ModelFaultKind, said: impl Into<String>) -> Self {
        Self { kind, said: said.into(), retry_after: None }
    }

    pub(crate) fn malformed(said: impl Into<String>) -> Self {
        Self::new(ModelFaultKind::Malformed, said)
    }

    /// The connection failed or broke; the address is left out, as the provider's name stands for it.
    pub(crate) fn network(attempt: &str, error: reqwest::Error) -> Self {
        let error = error.without_url();
        let mut said = format!("{attempt}: {error}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            said.push_str(": ");
            said.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(ModelFaultKind::Network, said)
    }
}

impl From<crate::sse::Error> for Problem {
    fn from(error: crate::sse::Error) -> Self {
        Self::malformed(error.to_string())
    }
}

/// Turns problems into faults that name the provider and never hold its key.
#[derive(Clone, Debug)]
pub(crate) struct Blame {
    pub(crate) provider: String,
    pub(crate) api_key: Option<SecretString>,
}

impl Blame {
    /// The fault: one line of at most [`FAULT_MESSAGE_CHARS`] characters.
    pub(crate) fn fault(&self, problem: &Problem) -> ModelFault {
        let mut message = format!("provider `{}` {}", self.provider, problem.said);
        // Providers repeat what they refuse, keys included.
        if let Some(key) =
            self.api_key.as_ref().map(ExposeSecret::expose_secret).filter(|key| !key.is_empty())
        {
            message = message.replace(key, "[key]");
        }
        ModelFault { kind: problem.kind, message: one_line(&message), retry_after: problem.retry_after }
    }
}

/// The words of a text with single spaces between them, cut to the longest message.
fn one_line(text: &str) -> String {
    let words = text.split_whitespace().flat_map(|word| std::iter::once(' ').chain(word.chars())).skip(1);
    let printable = words.map(|character| if character.is_control() { ' ' } else { character });
    let mut line: String = printable.take(FAULT_MESSAGE_CHARS + 1).collect();
    if let Some((last, _)) = line.char_indices().nth(FAULT_MESSAGE_CHARS - 1)
        && line.chars().count() > FAULT_MESSAGE_CHARS
    {
        line.truncate(last);
        line.push('…');
    }
    line
}
