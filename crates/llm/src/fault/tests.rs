use ModelFaultKind::*;
use herm_types::model::ModelFaultKind;
use http::StatusCode;
use serde_json::json;

use super::*;

fn kind_of(status: u16, body: &str) -> ModelFaultKind {
    let status = StatusCode::from_u16(status).unwrap();
    Complaint::from_body(body.as_bytes()).answered(status, None).kind
}

#[test]
fn a_status_decides_the_kind() {
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
fn a_request_that_is_too_long_is_recognised() {
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
fn refused_content_is_recognised() {
    let blocked = r#"{"error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}}"#;
    assert_eq!(kind_of(400, blocked), ContentRefused);
    assert_eq!(kind_of(400, r#"{"error": {"code": "content_filter", "message": "no"}}"#), ContentRefused);
    let moderated = r#"{"error": {"code": 403, "message": "openai/x requires moderation"}}"#;
    assert_eq!(kind_of(403, moderated), ContentRefused);
}

#[test]
fn an_error_inside_a_stream_is_judged_like_an_answer() {
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
        assert_eq!(Complaint::from_value(&error).mid_stream().kind, kind, "{error}");
    }
}

fn blame() -> Blame {
    Blame { provider: "own".to_owned(), api_key: Some(SecretString::from("sk-hush")) }
}

#[test]
fn a_message_names_the_provider_and_what_it_said() {
    let body =
        json!({"error": {"message": "Provider returned error", "metadata": {"raw": "too  hot\n today"}}});
    let problem = Complaint::from_value(&body).answered(StatusCode::BAD_GATEWAY, None);
    let fault = blame().fault(&problem);
    assert_eq!(fault.message, "provider `own` answered 502: Provider returned error: too hot today");
}

#[test]
fn a_message_never_holds_the_key_and_is_bounded() {
    let body = format!("Incorrect key: sk-hush, {}", "é".repeat(1000));
    let problem = Complaint::from_body(body.as_bytes()).answered(StatusCode::UNAUTHORIZED, None);
    let message = blame().fault(&problem).message;
    assert!(message.starts_with("provider `own` answered 401: Incorrect key: [key], é"), "{message}");
    assert!(message.ends_with('…'));
    assert_eq!(message.chars().count(), FAULT_MESSAGE_CHARS);
}
