//! Checks every response that a test receives against the OpenAPI document.

use std::sync::LazyLock;

use axum::body::{Body, to_bytes};
use http::header::CONTENT_TYPE;
use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(&herm_api::openapi()).unwrap());

/// Checks a response against the OpenAPI document, and returns it unchanged.
///
/// # Panics
/// If the status is not documented for the operation, or the body does not match its schema.
pub(crate) async fn check(method: &Method, path: &str, response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let content_type = parts.headers.get(CONTENT_TYPE).map_or("", |value| value.to_str().unwrap());
    let media_type = content_type.split(';').next().unwrap_or_default().to_owned();
    if media_type == "text/event-stream" {
        // An event stream never ends, so its body cannot be read completely and is not checked.
        return Response::from_parts(parts, body);
    }
    let bytes = to_bytes(body, usize::MAX).await.unwrap();
    let operation = find(method, path);
    let what = format!("{method} {path}: {}", parts.status);
    let is_head = method == Method::HEAD;
    match operation {
        Some(operation) => {
            let responses = operation["responses"].as_object().unwrap();
            let documented = responses.get(parts.status.as_str());
            let documented = documented.unwrap_or_else(|| panic!("{what} is not documented"));
            if !is_head {
                check_body(&what, documented, &media_type, &bytes);
            }
        }
        // A CORS preflight request, which the OpenAPI document does not describe.
        None if method == Method::OPTIONS && parts.status == StatusCode::NO_CONTENT => {
            assert!(bytes.is_empty(), "{what} has a body");
        }
        None => {
            // A method or path that the document does not contain must be rejected. 400 is possible if the path is not
            // valid UTF-8.
            let expected = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::BAD_REQUEST];
            assert!(expected.contains(&parts.status), "{what}, but the document has no such operation");
            if !is_head {
                assert_schema(&what, &json!({"$ref": "#/components/schemas/ErrorBody"}), &bytes);
            }
        }
    }
    Response::from_parts(parts, Body::from(bytes))
}

fn check_body(what: &str, documented: &Value, media_type: &str, bytes: &[u8]) {
    let no_content = Map::new();
    let content = documented["content"].as_object().unwrap_or(&no_content);
    if content.is_empty() {
        assert!(bytes.is_empty(), "{what} has an undocumented body");
        return;
    }
    let of_type = content.get(media_type).or_else(|| content.get("*/*"));
    let of_type = of_type.unwrap_or_else(|| panic!("{what} has the undocumented media type {media_type:?}"));
    if media_type == "application/json" && content.contains_key(media_type) {
        assert_schema(what, &of_type["schema"], bytes);
    }
}

fn assert_schema(what: &str, schema: &Value, bytes: &[u8]) {
    let body: Value =
        serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{what} is not JSON: {error}"));
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "components": DOCUMENT["components"],
        "allOf": [schema],
    });
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<String> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{what} does not match its schema:\n{}\n{body}", errors.join("\n"));
}

/// Finds a request's operation in the OpenAPI document. If several path templates match, returns the one with the
/// fewest parameters.
fn find(method: &Method, path: &str) -> Option<&'static Value> {
    let method = if method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let matches = |template: &str| {
        let (template, path): (Vec<&str>, Vec<&str>) =
            (template.split('/').collect(), path.split('/').collect());
        let mut pairs = template.iter().zip(&path);
        template.len() == path.len() && pairs.all(|(part, actual)| part.starts_with('{') || part == actual)
    };
    let templates = DOCUMENT["paths"].as_object().unwrap().iter().filter(|(template, _)| matches(template));
    let (_, operations) = templates.min_by_key(|(template, _)| template.matches('{').count())?;
    operations.get(&method)
}

#[tokio::test]
async fn an_undocumented_response_is_detected() {
    let response = |status: u16, body: Value| {
        Response::builder()
            .status(status)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()))
    };
    let path = "/v1/deployments/dep_x/files";
    let is_caught = async |method: Method, path: &'static str, status: u16, body: Value| {
        let response = response(status, body).unwrap();
        tokio::spawn(async move { check(&method, path, response).await }).await.is_err()
    };
    assert!(!is_caught(Method::GET, path, 200, json!({"path": "", "entries": []})).await);
    assert!(is_caught(Method::GET, path, 200, json!({"path": ""})).await);
    assert!(is_caught(Method::GET, path, 200, json!({"path": "", "entries": [{"name": 1}]})).await);
    assert!(is_caught(Method::GET, path, 201, json!({"path": "", "entries": []})).await);
    assert!(is_caught(Method::GET, "/nowhere", 200, json!({})).await);
    let error = json!({"error": "made_up", "message": "", "request_id": "req_1"});
    assert!(is_caught(Method::GET, path, 404, error).await);
}
