//! `…/mcp_servers`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use herm_app::mcp_servers::{self, McpServerChanges, NewMcpServer};
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
use crate::idempotency::Once;
use crate::input::{DeploymentPath, Faults, Given, JsonBody, Object, Query};
use crate::router::Shared;
use crate::skills::http_url;
use crate::tools::PERMISSIONS;

const MAX_NAME_CHARS: usize = 64;
/// Tools that an allowlist may name.
const MAX_TOOLS: usize = 256;
const MAX_TOOL_CHARS: usize = 128;
const MAX_HEADERS: usize = 32;
const MAX_HEADER_VALUE_BYTES: usize = 8192;
/// What the connection itself says.
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

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[schema(as = NewMcpServer)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct NewMcpServerBody {
    /// Unique among the deployment's servers; its tools are called `name.tool`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    name: String,
    #[schema(max_length = 2048, format = "uri")]
    url: String,
    /// The tools that may be used; all when it is left out.
    #[schema(max_items = 256)]
    tools: Option<Vec<String>>,
    /// Go with each request. `${NAME}` in a value stands for a secret of the deployment; any other value is never shown
    /// again. In a list of servers `null` stands for the value there is already.
    headers: Option<BTreeMap<String, Option<String>>>,
    permission: Option<Permission>,
}

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone, as above")]
pub(crate) struct UpdateMcpServer {
    #[schema(max_length = 2048, format = "uri")]
    url: Option<String>,
    /// `null`: all tools.
    #[schema(max_items = 256)]
    tools: Option<Vec<String>>,
    /// Merged by name; `null` removes a header.
    headers: Option<BTreeMap<String, Option<String>>>,
    permission: Option<Permission>,
}

/// Add an MCP server. It need not be reachable yet.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/mcp_servers", operation_id = "add_mcp_server",
    tag = "mcp_servers", params(("deployment_id" = DeploymentId, Path)), request_body = NewMcpServerBody,
    responses((status = 201, body = McpServerItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
        (status = 413, body = ErrorBody), (status = 415, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn add_mcp_server(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<McpServerItem>), Failure> {
    query.finish()?;
    let mut faults = Faults::default();
    let given = parse_new(Object::of_body(&body, &mut faults), &mut faults);
    faults.check()?;
    let given = given.ok_or_else(|| Error::invalid(Vec::new()))?;
    let reply = once.reply(StatusCode::CREATED);
    let item = mcp_servers::add(&shared.app, &caller, path.deployment_id, given, reply).await?;
    Ok((StatusCode::CREATED, Json(item)))
}

/// List a deployment's MCP servers, with how their connections stand.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/mcp_servers", operation_id = "list_mcp_servers",
    tag = "mcp_servers", params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = McpServerList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_mcp_servers(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<McpServerList>, Failure> {
    query.finish()?;
    Ok(Json(mcp_servers::list(&shared.app, &caller, path.deployment_id).await?))
}

/// Change an MCP server, from the next run on.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}/mcp_servers/{name}", operation_id = "update_mcp_server",
    tag = "mcp_servers", params(("deployment_id" = DeploymentId, Path), ("name" = String, Path)),
    request_body = UpdateMcpServer,
    responses((status = 200, body = McpServerItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody)))]
pub(crate) async fn update_mcp_server(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<McpServerItem>, Failure> {
    query.finish()?;
    let changes = parse_changes(&body)?;
    let (name, deployment_id) = (path.text("name"), path.deployment_id);
    Ok(Json(mcp_servers::update(&shared.app, &caller, deployment_id, name, changes).await?))
}

/// An MCP server that is gone.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedMcpServer {
    name: String,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Remove an MCP server, with what was set for its tools.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/mcp_servers/{name}",
    operation_id = "delete_mcp_server", tag = "mcp_servers",
    params(("deployment_id" = DeploymentId, Path), ("name" = String, Path)),
    responses((status = 200, body = DeletedMcpServer), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_mcp_server(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<DeletedMcpServer>, Failure> {
    query.finish()?;
    let name = path.text("name");
    mcp_servers::remove(&shared.app, &caller, path.deployment_id, name.clone()).await?;
    Ok(Json(DeletedMcpServer { name, status: "deleted" }))
}

/// Reads a server that is given, also as one of several; `None` where a fault was found.
pub(crate) fn parse_new(mut object: Object<'_>, faults: &mut Faults) -> Option<NewMcpServer> {
    let name = object.required_text("name", 1..=MAX_NAME_CHARS, faults);
    let name = name.filter(|name| {
        let is_sane = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if !is_sane {
            faults.add(object.path_to("name"), "must consist of letters, digits, _ and -");
        }
        is_sane
    });
    if object.is_there() && matches!(object.given("url"), Given::Absent | Given::Null) {
        faults.add(object.path_to("url"), "is required");
    }
    let url = http_url(&mut object, "url", faults);
    let tools = tools(&mut object, faults).flatten();
    let headers = headers(&mut object, faults);
    let permission = object.choice("permission", &PERMISSIONS, faults).unwrap_or_default();
    object.finish(faults);
    Some(NewMcpServer { name: name?, url: url?, tools, headers, permission })
}

fn parse_changes(body: &Value) -> Result<McpServerChanges, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let changes = McpServerChanges {
        url: http_url(&mut object, "url", &mut faults),
        tools: tools(&mut object, &mut faults),
        headers: headers(&mut object, &mut faults),
        permission: object.choice("permission", &PERMISSIONS, &mut faults),
    };
    object.finish(&mut faults);
    faults.check()?;
    Ok(changes)
}

fn tools(object: &mut Object<'_>, faults: &mut Faults) -> Option<Option<Vec<String>>> {
    let tools = object.texts("tools", MAX_TOOLS, faults)?;
    for (index, tool) in tools.iter().flatten().enumerate() {
        let is_sane =
            (1..=MAX_TOOL_CHARS).contains(&tool.chars().count()) && !tool.contains(char::is_control);
        if !is_sane {
            let message = format!("must have 1 to {MAX_TOOL_CHARS} characters, and no control characters");
            faults.add(format!("{}[{index}]", object.path_to("tools")), message);
        }
    }
    Some(tools)
}

fn headers(object: &mut Object<'_>, faults: &mut Faults) -> BTreeMap<String, Option<SecretString>> {
    let path = object.path_to("headers");
    let given = match object.given("headers") {
        Given::Absent | Given::Null => return BTreeMap::new(),
        Given::Value(Value::Object(given)) if given.len() <= MAX_HEADERS => given,
        Given::Value(_) => {
            faults.add(path, format!("must be an object of at most {MAX_HEADERS} headers"));
            return BTreeMap::new();
        }
    };
    let mut headers = BTreeMap::new();
    for (name, value) in given {
        let path = format!("{path}.{name}");
        // In lower case, as it is sent: two spellings are one header.
        let lower = name.to_ascii_lowercase();
        if HeaderName::from_bytes(lower.as_bytes()).is_err() || RESERVED_HEADERS.contains(&lower.as_str()) {
            faults.add(path, "is not a header that can be set");
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
                let message =
                    format!("must be a string of at most {MAX_HEADER_VALUE_BYTES} bytes that fits a header");
                faults.add(path, message);
                continue;
            }
        };
        if headers.insert(lower, value).is_some() {
            faults.add(path, "is given twice");
        }
    }
    headers
}
