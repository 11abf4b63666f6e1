//! What a provider says in an error's body, and which kind of fault that is.
//!
//! Error bodies differ by provider and by the proxies before it, and the same words come after a status line and
//! inside a stream. So they are read leniently, and judged in one place for all.

use std::time::Duration;

use herm_types::model::ModelFaultKind;
use http::StatusCode;
use serde_json::Value;

use super::Problem;

/// An error in a provider's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    message: String,
    /// The error's type and code, as far as they are words, in lower case.
    names: Vec<String>,
    /// The code, if it is the number of an HTTP status.
    status: Option<u16>,
}

impl Complaint {
    /// Reads an error's body, JSON or not.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(value) => Self::from_value(&value),
            Err(_) => Self { message: String::from_utf8_lossy(body).trim().to_owned(), ..Self::default() },
        }
    }

    /// Reads `{"error": {…}}`, `{"error": "…"}`, or the error itself.
    pub(crate) fn from_value(value: &Value) -> Self {
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let mut complaint = Self { message: message_of(error), ..Self::default() };
        for key in ["type", "code"] {
            match error.get(key) {
                Some(Value::String(name)) => match name.parse() {
                    Ok(status) => complaint.status = Some(status),
                    Err(_) => complaint.names.push(name.to_ascii_lowercase()),
                },
                Some(Value::Number(code)) => {
                    complaint.status = code.as_u64().and_then(|code| u16::try_from(code).ok());
                }
                _ => {}
            }
        }
        complaint
    }

    /// The problem of an answer with this status.
    pub(crate) fn answered(self, status: StatusCode, retry_after: Option<Duration>) -> Problem {
        let kind = self.kind(status.as_u16());
        let mut said = format!("answered {}", status.as_u16());
        if status.is_redirection() {
            said.push_str(", a redirect, which is not followed: its base URL must be the final address");
        }
        if !self.message.is_empty() {
            said.push_str(": ");
            said.push_str(&self.message);
        }
        Problem { kind, said, retry_after }
    }

    /// The problem of an error inside a stream.
    pub(crate) fn mid_stream(self) -> Problem {
        let kind = self.kind(self.status_it_stands_for());
        let mut said = String::from("broke off its reply");
        if let Some(name) = self.names.first() {
            said.push_str(" with ");
            said.push_str(name);
        }
        if !self.message.is_empty() {
            said.push_str(": ");
            said.push_str(&self.message);
        }
        Problem::new(kind, said)
    }

    fn kind(&self, status: u16) -> ModelFaultKind {
        match status {
            403 if self.is_refusal() => ModelFaultKind::ContentRefused,
            401 | 403 => ModelFaultKind::Authentication,
            408 => ModelFaultKind::Network,
            413 => ModelFaultKind::ContextOverflow,
            429 => ModelFaultKind::RateLimited,
            400..=499 if self.is_context_overflow() => ModelFaultKind::ContextOverflow,
            400..=499 if self.is_refusal() => ModelFaultKind::ContentRefused,
            300..=499 => ModelFaultKind::InvalidRequest,
            503 | 529 => ModelFaultKind::Overloaded,
            500..=599 => ModelFaultKind::Provider,
            _ => ModelFaultKind::Malformed,
        }
    }

    fn status_it_stands_for(&self) -> u16 {
        if let Some(status) = self.status.filter(|status| (400..600).contains(status)) {
            return status;
        }
        if self.is_context_overflow() || self.is_refusal() {
            return 400;
        }
        self.names.iter().find_map(|name| status_of(name)).unwrap_or(500)
    }

    fn is_context_overflow(&self) -> bool {
        const NAMES: [&str; 3] =
            ["context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"];
        const WORDS: [&str; 10] = [
            "context length",
            "context_length",
            "context window",
            "context limit",
            "context size",
            "prompt is too long",
            "input is too long",
            "too many input tokens",
            "exceeds the maximum number of tokens",
            "reduce the length of the messages",
        ];
        self.is_named(&NAMES) || self.says(&WORDS)
    }

    fn is_refusal(&self) -> bool {
        const NAMES: [&str; 4] =
            ["content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"];
        const WORDS: [&str; 5] = [
            "content filtering policy",
            "content management policy",
            "content policy",
            "requires moderation",
            "safety system",
        ];
        self.is_named(&NAMES) || self.says(&WORDS)
    }

    fn is_named(&self, names: &[&str]) -> bool {
        self.names.iter().any(|name| names.contains(&name.as_str()))
    }

    fn says(&self, words: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        words.iter().any(|words| message.contains(words))
    }
}

/// The HTTP status that an error's name stands for; streams carry only the name.
fn status_of(name: &str) -> Option<u16> {
    Some(match name {
        "overloaded_error" | "overloaded" | "server_overloaded" | "engine_overloaded" => 529,
        "rate_limit_error" | "rate_limit_exceeded" | "insufficient_quota" => 429,
        "authentication_error" | "invalid_api_key" => 401,
        "permission_error" => 403,
        "request_too_large" => 413,
        "invalid_request_error" | "not_found_error" | "billing_error" => 400,
        _ => return None,
    })
}

/// The message under the keys that providers use for it; without one, the whole error.
fn message_of(error: &Value) -> String {
    if let Value::String(message) = error {
        return message.clone();
    }
    let message = ["message", "detail"].iter().find_map(|key| error.get(key)?.as_str());
    let Some(message) = message else { return error.to_string() };
    // OpenRouter says that a provider failed, and here what that provider said.
    match error.pointer("/metadata/raw").and_then(Value::as_str) {
        Some(raw) if raw != message => format!("{message}: {raw}"),
        _ => message.to_owned(),
    }
}
