use super::*;

const PLACEHOLDER: &str = "herm_secret_00112233445566778899aabbccddeeff";

fn secrets(value: &str, inject: &[Inject]) -> Vec<SecretValue> {
    vec![SecretValue {
        secret_id: "sec_key".parse().unwrap(),
        placeholder: PLACEHOLDER.to_owned(),
        value: SecretString::from(value),
        inject: inject.to_vec(),
    }]
}

fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn basic(credentials: &str) -> String {
    format!("basic {}", STANDARD.encode(credentials))
}

async fn body_with(content_type: &str, value: &str, text: &str, inject: &[Inject]) -> (Parts, String) {
    let length = text.len().to_string();
    let mut head = head("/", &[("content-type", content_type), ("content-length", &length)]);
    let body = body::text(text.to_owned());
    let body = inject_into_body(&mut head, body, &secrets(value, inject)).await.unwrap();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head, String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn a_header_secret_is_injected_into_headers_and_basic_credentials_only() {
    let credentials = basic(&format!("user:{PLACEHOLDER}"));
    let bearer = format!("Bearer {PLACEHOLDER}!");
    let uri = format!("/{PLACEHOLDER}?key={PLACEHOLDER}");
    let mut head = head(&uri, &[("authorization", &credentials), ("x-key", &bearer), ("host", PLACEHOLDER)]);
    inject_into_head(&mut head, &secrets("real-value-1", &[Inject::Header])).unwrap();
    let expected = format!("Basic {}", STANDARD.encode("user:real-value-1"));
    assert_eq!(head.headers["authorization"], expected.as_str());
    assert_eq!(head.headers["x-key"], "Bearer real-value-1!");
    assert!(head.headers["x-key"].is_sensitive());
    assert_eq!(head.headers["host"], PLACEHOLDER);
    assert_eq!(head.uri.to_string(), uri, "a header secret is not injected into the URI");
}

#[test]
fn a_query_secret_is_percent_encoded_in_the_uri() {
    let mut head = head(&format!("/p/{PLACEHOLDER}?k={PLACEHOLDER}&x"), &[("x-key", PLACEHOLDER)]);
    inject_into_head(&mut head, &secrets("a b/c?d&é#", &[Inject::Query])).unwrap();
    let encoded = "a%20b%2Fc%3Fd%26%C3%A9%23";
    assert_eq!(head.uri.to_string(), format!("/p/{encoded}?k={encoded}&x"));
    assert_eq!(head.headers["x-key"], PLACEHOLDER);
}

#[test]
fn a_value_with_control_characters_in_a_header_is_rejected() {
    for value in ["line\nbreak", "return\r\nX-Evil: 1", "nul\0nul-nul", "delete\x7fdelete"] {
        let mut plain = head("/", &[("x-key", PLACEHOLDER)]);
        let error = inject_into_head(&mut plain, &secrets(value, &[Inject::Header])).unwrap_err();
        assert!(error.contains("sec_key") && error.contains("control characters"), "{error}");
        assert!(!error.contains(value));
        let mut encoded = head("/", &[("authorization", &basic(&format!("u:{PLACEHOLDER}")))]);
        inject_into_head(&mut encoded, &secrets(value, &[Inject::Header])).unwrap();
    }
}

#[test]
fn a_value_too_short_to_be_masked_is_rejected() {
    for inject in [Inject::Header, Inject::Query] {
        let mut with = head(&format!("/?k={PLACEHOLDER}"), &[("x-key", PLACEHOLDER)]);
        let error = inject_into_head(&mut with, &secrets("1234567", &[inject])).unwrap_err();
        assert!(error.contains("shorter than 8 bytes"), "{error}");
    }
    let mut without = head("/", &[("x-key", "none")]);
    inject_into_head(&mut without, &secrets("1234567", &[Inject::Header])).unwrap();
}

#[tokio::test]
async fn a_body_secret_is_encoded_for_the_content_type_and_content_length_is_updated() {
    let value = "a \"b\"&\n=é";
    for (content_type, written) in [
        ("text/plain", value),
        ("application/json; charset=utf-8", "a \\\"b\\\"&\\u000a=é"),
        ("application/problem+json", "a \\\"b\\\"&\\u000a=é"),
        ("application/x-www-form-urlencoded", "a%20%22b%22%26%0A%3D%C3%A9"),
    ] {
        let text = format!("<{PLACEHOLDER}> <{PLACEHOLDER}>");
        let (head, new) = body_with(content_type, value, &text, &[Inject::Body]).await;
        assert_eq!(new, format!("<{written}> <{written}>"), "{content_type}");
        assert_eq!(head.headers["content-length"], new.len().to_string().as_str());
        let (head, same) = body_with(content_type, value, &text, &[Inject::Header]).await;
        assert_eq!(same, text);
        assert_eq!(head.headers["content-length"], text.len().to_string().as_str());
    }
}

#[tokio::test]
async fn a_long_body_is_rewritten_as_a_stream_and_a_compressed_body_is_not_rewritten() {
    let long = format!("{}{PLACEHOLDER}", "x".repeat(300_000));
    let (head_of_long, new) = body_with("text/plain", "real-value-1", &long, &[Inject::Body]).await;
    assert_eq!(new, format!("{}real-value-1", "x".repeat(300_000)));
    assert!(!head_of_long.headers.contains_key("content-length"));

    let mut packed = head("/", &[("content-encoding", "gzip")]);
    let body = body::text(PLACEHOLDER.to_owned());
    let body = inject_into_body(&mut packed, body, &secrets("real-value-1", &[Inject::Body])).await.unwrap();
    assert_eq!(body.collect().await.unwrap().to_bytes(), PLACEHOLDER);
}
