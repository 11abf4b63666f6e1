//! Parses the errors that providers report and determines the model error kind of each.
//!
//! The format of an error differs between providers and the proxies in front of them, and the same error can
//! be reported by an HTTP status or inside a stream. The parser therefore accepts many formats, and all
//! errors are classified in one place.

use std::time::Duration;

use herm_types::model::ModelErrorKind;
use http::StatusCode;
use serde_json::Value;

use super::CallError;

/// An error that a provider has reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProviderError {
    message: String,
    /// The values of `type` and `code` in the error, in lower case. Numbers are omitted, including numbers in
    /// strings.
    names: Vec<String>,
    /// The HTTP status, if `type` or `code` in the error is a number.
    status: Option<u16>,
}

impl ProviderError {
    /// Parses the body of an error response, which may be JSON or plain text.
    pub(crate) fn from_body(body: &[u8]) -> Self {
        match serde_json::from_slice(body) {
            Ok(value) => Self::from_value(&value),
            Err(_) => Self { message: String::from_utf8_lossy(body).trim().to_owned(), ..Self::default() },
        }
    }

    /// Parses a JSON error: `{"error": {…}}`, `{"error": "…"}`, or the inner value alone.
    pub(crate) fn from_value(value: &Value) -> Self {
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let mut provider_error = Self { message: message_of(error), ..Self::default() };
        for key in ["type", "code"] {
            match error.get(key) {
                Some(Value::String(name)) => match name.parse() {
                    Ok(status) => provider_error.status = Some(status),
                    Err(_) => provider_error.names.push(name.to_ascii_lowercase()),
                },
                Some(Value::Number(code)) => {
                    provider_error.status = code.as_u64().and_then(|code| u16::try_from(code).ok());
                }
                _ => {}
            }
        }
        provider_error
    }

    /// Returns the call error for an error response with the HTTP status `status`.
    pub(crate) fn into_response_error(self, status: StatusCode, retry_after: Option<Duration>) -> CallError {
        let kind = self.kind(status.as_u16());
        let mut message = format!("answered {}", status.as_u16());
        if status.is_redirection() {
            message.push_str("; redirects are not followed, so base_url must be the final address");
        }
        if !self.message.is_empty() {
            message.push_str(": ");
            message.push_str(&self.message);
        }
        CallError { kind, message, retry_after }
    }

    /// Returns the call error for an error that was reported inside a stream.
    pub(crate) fn into_stream_error(self) -> CallError {
        let kind = self.kind(self.equivalent_status());
        let mut message = String::from("aborted its reply");
        if let Some(name) = self.names.first() {
            message.push_str(" with ");
            message.push_str(name);
        }
        if !self.message.is_empty() {
            message.push_str(": ");
            message.push_str(&self.message);
        }
        CallError::new(kind, message)
    }

    fn kind(&self, status: u16) -> ModelErrorKind {
        match status {
            403 if self.is_refusal() => ModelErrorKind::ContentRefused,
            401 | 403 => ModelErrorKind::Authentication,
            408 => ModelErrorKind::Network,
            413 => ModelErrorKind::ContextOverflow,
            429 => ModelErrorKind::RateLimited,
            400..=499 if self.is_context_overflow() => ModelErrorKind::ContextOverflow,
            400..=499 if self.is_refusal() => ModelErrorKind::ContentRefused,
            300..=499 => ModelErrorKind::InvalidRequest,
            503 | 529 => ModelErrorKind::Overloaded,
            500..=599 => ModelErrorKind::Provider,
            _ => ModelErrorKind::Malformed,
        }
    }

    fn equivalent_status(&self) -> u16 {
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
        const PHRASES: [&str; 10] = [
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
        self.is_named(&NAMES) || self.mentions(&PHRASES)
    }

    fn is_refusal(&self) -> bool {
        const NAMES: [&str; 4] =
            ["content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt"];
        const PHRASES: [&str; 5] = [
            "content filtering policy",
            "content management policy",
            "content policy",
            "requires moderation",
            "safety system",
        ];
        self.is_named(&NAMES) || self.mentions(&PHRASES)
    }

    fn is_named(&self, names: &[&str]) -> bool {
        self.names.iter().any(|name| names.contains(&name.as_str()))
    }

    fn mentions(&self, words: &[&str]) -> bool {
        let message = self.message.to_ascii_lowercase();
        words.iter().any(|words| message.contains(words))
    }
}

/// Returns the HTTP status that corresponds to the name of an error. Errors inside a stream have a name but
/// no status.
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

/// Returns the message of a JSON error, or the whole JSON text if the error contains no message.
fn message_of(error: &Value) -> String {
    if let Value::String(message) = error {
        return message.clone();
    }
    let message = ["message", "detail"].iter().find_map(|key| error.get(key)?.as_str());
    let Some(message) = message else { return error.to_string() };
    // OpenRouter forwards requests to other providers. Their error message is in `metadata.raw`.
    match error.pointer("/metadata/raw").and_then(Value::as_str) {
        Some(raw) if raw != message => format!("{message}: {raw}"),
        _ => message.to_owned(),
    }
}
