//! The OpenAPI document. It is generated from the annotations of the handlers, served at `/openapi.json`, and committed
//! to the repository as `openapi/v1.json`.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use herm_types::error::ErrorBody;
use http::header::CONTENT_TYPE;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Required};

use crate::error::Failure;
use crate::input::Query;
use crate::state::ApiState;

/// The description of the whole API. The operations are added by the routes.
#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Herm",
    version = "1",
    description = "A dedicated agent for each of your customers: deployments, threads, runs, files, events."
))]
pub(crate) struct Document;

/// Adds the parts of the document that many operations have in common. Returns the document as JSON, indented by two
/// spaces, with a trailing newline.
pub(crate) fn complete(mut document: utoipa::openapi::OpenApi) -> String {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("herm_sk_…").build();
    let components = document.components.get_or_insert_default();
    components.security_schemes.insert("api_key".to_owned(), SecurityScheme::Http(bearer).into());
    document.security = Some(vec![SecurityRequirement::new("api_key", Vec::<String>::new())]);
    document.paths.paths.values_mut().for_each(add_error_responses);
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Adds the error responses that many operations have in common, so that each handler's annotation need not list them.
fn add_error_responses(path: &mut PathItem) {
    if let Some(operation) = &mut path.post {
        add_idempotency_key(operation);
    }
    let path_operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch];
    for operation in path_operations.into_iter().flatten() {
        let is_public =
            operation.security.as_ref().is_some_and(|security| security.iter().all(is_empty_requirement));
        let takes_json = operation.request_body.as_ref().is_some_and(|body| match body {
            RefOr::T(body) => body.content.contains_key("application/json"),
            RefOr::Ref(_) => true,
        });
        let common =
            if is_public { [].as_slice() } else { ["400", "401", "403", "429", "500", "503"].as_slice() };
        let for_bodies = if takes_json { ["408", "413", "415"].as_slice() } else { [].as_slice() };
        for status in common.iter().chain(for_bodies) {
            operation.responses.responses.entry((*status).to_owned()).or_insert_with(error_response);
        }
    }
}

fn is_empty_requirement(requirement: &SecurityRequirement) -> bool {
    *requirement == SecurityRequirement::default()
}

fn error_response() -> RefOr<Described> {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    ResponseBuilder::new().description("").content("application/json", content).build().into()
}

/// Adds the `Idempotency-Key` header to an operation, and the 409 response for a key that was already used for a
/// different request.
fn add_idempotency_key(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
    let header = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "A unique string that makes the request safe to retry. For 24 hours, repeating the same request with the \
             same key has no further effect. It returns the response to the first request, with the header \
             `Idempotent-Replayed: true`.",
        ))
        .schema(Some(text))
        .build();
    operation.parameters.get_or_insert_default().push(header.into());
    operation.responses.responses.entry("409".to_owned()).or_insert_with(error_response);
}

/// Get this OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", operation_id = "get_openapi", tag = "operations", security(()),
    responses((status = 200, body = Object, content_type = "application/json"), (status = 400, body = ErrorBody)))]
pub(crate) async fn get_openapi(State(state): State<ApiState>, query: Query) -> Result<Response, Failure> {
    query.finish()?;
    Ok(([(CONTENT_TYPE, "application/json")], state.openapi.to_string()).into_response())
}
