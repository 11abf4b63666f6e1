//! `…/tools`.

use axum::Json;
use axum::extract::State;
use herm_app::tools::{self, ToolChanges};
use herm_types::error::ErrorBody;
use herm_types::tool::{Permission, Tool, ToolList};
use herm_types::{DeploymentId, Error};
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, Faults, JsonBody, Object, Query};
use crate::router::Shared;

pub(crate) const PERMISSIONS: [(&str, Permission); 3] = [
    ("always_allow", Permission::AlwaysAllow),
    ("always_ask", Permission::AlwaysAsk),
    ("deny", Permission::Deny),
];

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct UpdateTool {
    enabled: Option<bool>,
    permission: Option<Permission>,
}

/// List the agent's tools.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/tools", operation_id = "list_tools", tag = "tools",
    params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = ToolList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_tools(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<ToolList>, Failure> {
    query.finish()?;
    Ok(Json(tools::list(&shared.app, &caller, path.deployment_id).await?))
}

/// Enable or disable a tool, or say whether its calls are made; from the next run on.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}/tools/{name}", operation_id = "update_tool",
    tag = "tools", params(("deployment_id" = DeploymentId, Path), ("name" = String, Path)),
    request_body = UpdateTool,
    responses((status = 200, body = Tool), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody)))]
pub(crate) async fn update_tool(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<Tool>, Failure> {
    query.finish()?;
    let changes = parse(&body)?;
    Ok(Json(tools::update(&shared.app, &caller, path.deployment_id, path.text("name"), changes).await?))
}

fn parse(body: &Value) -> Result<ToolChanges, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let changes = ToolChanges {
        enabled: object.optional_boolean("enabled", &mut faults),
        permission: object.choice("permission", &PERMISSIONS, &mut faults),
    };
    object.finish(&mut faults);
    faults.check()?;
    Ok(changes)
}
