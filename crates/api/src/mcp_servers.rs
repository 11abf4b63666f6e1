//! `…/mcp_servers`: adds, lists, changes and removes the MCP servers of a deployment.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use herm_app::mcp_servers::{self, McpServerPatch, NewMcpServer};
use herm_types::error::ErrorBody;
use herm_types::mcp::{McpServerItem, McpServerList};
use herm_types::tool::Permission;
use herm_types::{DeploymentId, Error};
use http::{HeaderName, HeaderValue, StatusCode};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, FieldErrors, FieldValue, JsonBody, Object, Query};
use crate::skills::http_url;
use crate::state::ApiState;
use crate::tools::PERMISSIONS;

const MAX_NAME_CHARS: usize = 64;
/// The maximum number of names in the field `tools`, which lists the tools of an MCP server that the agent may use. A
/// longer list is rejected.
const MAX_TOOLS: usize = 256;
const MAX_TOOL_CHARS: usize = 128;
const MAX_HEADERS: usize = 32;
const MAX_HEADER_VALUE_BYTES: usize = 8192;
/// Header names that clients may not configure for an MCP server, because Herm sets these headers itself.
const RESERVED_HEADERS: [&str; 8] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "mcp-session-id",
    "transfer-encoding",
    "upgrade",
];

/// An MCP server to add to a deployment.
#[derive(utoipa::ToSchema)]
#[schema(as = NewMcpServer)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct NewMcpServerBody {
    /// The name of the MCP server, unique within the deployment. It is the prefix of the tools' names: `<name>.<tool>`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    name: String,
    #[schema(max_length = 2048, format = "uri")]
    url: String,
    /// The names of the server's tools that the agent may use. By default, it may use all.
    #[schema(max_items = 256)]
    tools: Option<Vec<String>>,
    /// Headers that are sent with each request to the MCP server. `${NAME}` in a value is replaced by the value of the
    /// deployment's secret `NAME`. A value without `${NAME}` may itself be a secret, so the API never returns it.
    /// To keep a header's stored value when `update_deployment` replaces the list `mcp_servers`, send `null`.
    headers: Option<BTreeMap<String, Option<String>>>,
    permission: Option<Permission>,
}

/// Changes to an MCP server. Fields that are absent are unchanged.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes the schema, as above")]
pub(crate) struct UpdateMcpServer {
    #[schema(max_length = 2048, format = "uri")]
    url: Option<String>,
    /// The names of the server's tools that the agent may use. `null` allows all.
    #[schema(max_items = 256)]
    tools: Option<Vec<String>>,
    /// The headers to change. `null` as a value removes the header. Headers that are not listed are unchanged.
    headers: Option<BTreeMap<String, Option<String>>>,
    permission: Option<Permission>,
}

/// Add an MCP server to a deployment. The MCP server does not have to be reachable yet.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/mcp_servers", operation_id = "add_mcp_server",
    tag = "mcp_servers", params(("deployment_id" = DeploymentId, Path)), request_body = NewMcpServerBody,
    responses((status = 201, body = McpServerItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn add_mcp_server(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<McpServerItem>), Failure> {
    query.finish()?;
    let mut errors = FieldErrors::default();
    let server = parse_new(Object::from_body(&body, &mut errors), &mut errors);
    errors.check()?;
    let server = server.ok_or_else(|| Error::invalid(Vec::new()))?;
    let reply = claim.reply(StatusCode::CREATED);
    let item = mcp_servers::add(&state.app, &caller, path.deployment_id, server, reply).await?;
    Ok((StatusCode::CREATED, Json(item)))
}

/// List a deployment's MCP servers with the state of their connections.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/mcp_servers", operation_id = "list_mcp_servers",
    tag = "mcp_servers", params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = McpServerList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_mcp_servers(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<McpServerList>, Failure> {
    query.finish()?;
    Ok(Json(mcp_servers::list(&state.app, &caller, path.deployment_id).await?))
}

/// Change an MCP server of a deployment. The change takes effect with the next run of the agent.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}/mcp_servers/{name}", operation_id = "update_mcp_server",
    tag = "mcp_servers", params(("deployment_id" = DeploymentId, Path), ("name" = String, Path)),
    request_body = UpdateMcpServer,
    responses((status = 200, body = McpServerItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody)))]
pub(crate) async fn update_mcp_server(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<McpServerItem>, Failure> {
    query.finish()?;
    let changes = parse_changes(&body)?;
    let (name, deployment_id) = (path.parameter("name"), path.deployment_id);
    Ok(Json(mcp_servers::update(&state.app, &caller, deployment_id, name, changes).await?))
}

/// A removed MCP server.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedMcpServer {
    name: String,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Remove an MCP server and the settings of its tools from a deployment.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/mcp_servers/{name}",
    operation_id = "delete_mcp_server", tag = "mcp_servers",
    params(("deployment_id" = DeploymentId, Path), ("name" = String, Path)),
    responses((status = 200, body = DeletedMcpServer), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_mcp_server(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<DeletedMcpServer>, Failure> {
    query.finish()?;
    let name = path.parameter("name");
    mcp_servers::remove(&state.app, &caller, path.deployment_id, name.clone()).await?;
    Ok(Json(DeletedMcpServer { name, status: "deleted" }))
}

/// Parses the JSON object that describes an MCP server to add. Adds a field error for each invalid field. Returns
/// `None` if the name or the URL is missing or invalid.
pub(crate) fn parse_new(mut object: Object<'_>, errors: &mut FieldErrors) -> Option<NewMcpServer> {
    let name = object.required_string("name", 1..=MAX_NAME_CHARS, errors);
    let name = name.filter(|name| {
        let is_valid = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_valid {
            errors.add(object.path_to("name"), "must contain only letters, digits, `_` and `-`");
        }
        is_valid
    });
    if object.is_object() && matches!(object.field_value("url"), FieldValue::Absent | FieldValue::Null) {
        errors.add(object.path_to("url"), "is required");
    }
    let url = http_url(&mut object, "url", errors);
    let tools = tools(&mut object, errors).flatten();
    let headers = headers(&mut object, errors);
    let permission = object.choice("permission", &PERMISSIONS, errors).unwrap_or_default();
    object.finish(errors);
    Some(NewMcpServer { name: name?, url: url?, tools, headers, permission })
}

fn parse_changes(body: &Value) -> Result<McpServerPatch, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let changes = McpServerPatch {
        url: http_url(&mut object, "url", &mut errors),
        tools: tools(&mut object, &mut errors),
        headers: headers(&mut object, &mut errors),
        permission: object.choice("permission", &PERMISSIONS, &mut errors),
    };
    object.finish(&mut errors);
    errors.check()?;
    Ok(changes)
}

fn tools(object: &mut Object<'_>, errors: &mut FieldErrors) -> Option<Option<Vec<String>>> {
    let tools = object.strings("tools", MAX_TOOLS, errors)?;
    for (index, tool) in tools.iter().flatten().enumerate() {
        let is_valid =
            (1..=MAX_TOOL_CHARS).contains(&tool.chars().count()) && !tool.contains(char::is_control);
        if !is_valid {
            let message =
                format!("must be 1 to {MAX_TOOL_CHARS} characters long, without control characters");
            errors.add(format!("{}[{index}]", object.path_to("tools")), message);
        }
    }
    Some(tools)
}

fn headers(object: &mut Object<'_>, errors: &mut FieldErrors) -> BTreeMap<String, Option<SecretString>> {
    let path = object.path_to("headers");
    let input = match object.field_value("headers") {
        FieldValue::Absent | FieldValue::Null => return BTreeMap::new(),
        FieldValue::Value(Value::Object(map)) if map.len() <= MAX_HEADERS => map,
        FieldValue::Value(_) => {
            errors.add(path, format!("must be an object with at most {MAX_HEADERS} headers"));
            return BTreeMap::new();
        }
    };
    let mut headers = BTreeMap::new();
    for (name, value) in input {
        let path = format!("{path}.{name}");
        // Header names are case-insensitive, so they are compared in lower case.
        let lowercase = name.to_ascii_lowercase();
        if HeaderName::from_bytes(lowercase.as_bytes()).is_err()
            || RESERVED_HEADERS.contains(&lowercase.as_str())
        {
            errors.add(path, "the header name is invalid, or reserved because Herm sets this header itself");
            continue;
        }
        let value = match value {
            Value::Null => None,
            Value::String(text)
                if text.len() <= MAX_HEADER_VALUE_BYTES && HeaderValue::from_str(text).is_ok() =>
            {
                Some(SecretString::from(text.clone()))
            }
            _ => {
                let message = format!(
                    "must be a string that is a valid header value of at most {MAX_HEADER_VALUE_BYTES} bytes"
                );
                errors.add(path, message);
                continue;
            }
        };
        if headers.insert(lowercase, value).is_some() {
            errors.add(path, "duplicate header; header names are case-insensitive");
        }
    }
    headers
}
