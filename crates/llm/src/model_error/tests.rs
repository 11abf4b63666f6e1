use ModelErrorKind::*;
use herm_types::model::ModelErrorKind;
use http::StatusCode;
use serde_json::json;

use super::*;

fn kind_of(status: u16, body: &str) -> ModelErrorKind {
    let status = StatusCode::from_u16(status).unwrap();
    ProviderError::from_body(body.as_bytes()).into_response_error(status, None).kind
}

#[test]
fn the_status_determines_the_kind() {
    let kinds = [
        (301, InvalidRequest),
        (400, InvalidRequest),
        (401, Authentication),
        (402, InvalidRequest),
        (403, Authentication),
        (404, InvalidRequest),
        (408, Network),
        (413, ContextOverflow),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, Provider),
        (502, Provider),
        (503, Overloaded),
        (529, Overloaded),
    ];
    for (status, kind) in kinds {
        assert_eq!(kind_of(status, "no"), kind, "{status}");
    }
}

#[test]
fn a_context_overflow_is_recognized() {
    let bodies = [
        json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "prompt is too long: 214315 tokens > 200000 maximum"}}),
        json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000"}}),
        json!({"error": {"message": "This model's maximum context length is 128000 tokens.",
            "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}}),
        json!({"error": {"code": 400, "type": "exceed_context_size_error", "message": "too big"}}),
        json!({"object": "error", "message": "Please reduce the length of the messages", "code": 400}),
    ];
    for body in bodies {
        assert_eq!(kind_of(400, &body.to_string()), ContextOverflow, "{body}");
    }
    let too_many_out = r#"{"error": {"message": "max_tokens is too large: 99999"}}"#;
    assert_eq!(kind_of(400, too_many_out), InvalidRequest);
    assert_eq!(kind_of(500, "context length"), Provider);
}

#[test]
fn refused_content_is_recognized() {
    let blocked = r#"{"error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}}"#;
    assert_eq!(kind_of(400, blocked), ContentRefused);
    assert_eq!(kind_of(400, r#"{"error": {"code": "content_filter", "message": "no"}}"#), ContentRefused);
    let moderated = r#"{"error": {"code": 403, "message": "openai/x requires moderation"}}"#;
    assert_eq!(kind_of(403, moderated), ContentRefused);
}

#[test]
fn an_error_in_a_stream_is_classified_like_a_response() {
    let kinds = [
        (json!({"type": "overloaded_error", "message": "Overloaded"}), Overloaded),
        (json!({"type": "api_error", "message": "Internal server error"}), Provider),
        (json!({"type": "rate_limit_error", "message": "slow down"}), RateLimited),
        (json!({"type": "authentication_error", "message": "no"}), Authentication),
        (json!({"type": "invalid_request_error", "message": "prompt is too long"}), ContextOverflow),
        (json!({"type": "invalid_request_error", "message": "no"}), InvalidRequest),
        (json!({"type": "something_new"}), Provider),
        (json!({"code": 502, "message": "upstream"}), Provider),
        (json!({"code": "429", "message": "upstream"}), RateLimited),
        (json!({"code": 503, "message": "upstream"}), Overloaded),
        (json!("overloaded"), Provider),
    ];
    for (error, kind) in kinds {
        assert_eq!(ProviderError::from_value(&error).into_stream_error().kind, kind, "{error}");
    }
}

fn context() -> ErrorContext {
    ErrorContext { provider: "own".to_owned(), api_key: Some(SecretString::from("sk-hush")) }
}

#[test]
fn a_message_contains_the_provider_and_its_message() {
    let body =
        json!({"error": {"message": "Provider returned error", "metadata": {"raw": "too  hot\n today"}}});
    let error = ProviderError::from_value(&body).into_response_error(StatusCode::BAD_GATEWAY, None);
    let model_error = context().to_model_error(&error);
    assert_eq!(model_error.message, "provider `own` answered 502: Provider returned error: too hot today");
}

#[test]
fn a_message_is_bounded_and_never_contains_the_key() {
    let body = format!("Incorrect key: sk-hush, {}", "é".repeat(1000));
    let error = ProviderError::from_body(body.as_bytes()).into_response_error(StatusCode::UNAUTHORIZED, None);
    let message = context().to_model_error(&error).message;
    assert!(message.starts_with("provider `own` answered 401: Incorrect key: [key], é"), "{message}");
    assert!(message.ends_with('…'));
    assert_eq!(message.chars().count(), ERROR_MESSAGE_CHARS);
}
