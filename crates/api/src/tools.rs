//! `…/tools`: lists the tools of a deployment and changes their settings.

use axum::Json;
use axum::extract::State;
use herm_app::tools::{self, ToolPatch};
use herm_types::error::ErrorBody;
use herm_types::tool::{Permission, Tool, ToolList};
use herm_types::{DeploymentId, Error};
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::input::{DeploymentPath, FieldErrors, JsonBody, Object, Query};
use crate::state::ApiState;

pub(crate) const PERMISSIONS: [(&str, Permission); 3] = [
    ("always_allow", Permission::AlwaysAllow),
    ("always_ask", Permission::AlwaysAsk),
    ("deny", Permission::Deny),
];

/// Changes to the settings of a tool. Fields that are absent are unchanged.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct UpdateTool {
    enabled: Option<bool>,
    permission: Option<Permission>,
}

/// List the tools of a deployment's agent, and their settings.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/tools", operation_id = "list_tools", tag = "tools",
    params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = ToolList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_tools(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<ToolList>, Failure> {
    query.finish()?;
    Ok(Json(tools::list(&state.app, &caller, path.deployment_id).await?))
}

/// Enable or disable a tool, or change its permission.
///
/// The change takes effect with the next run of the agent.
#[utoipa::path(patch, path = "/v1/deployments/{deployment_id}/tools/{name}", operation_id = "update_tool",
    tag = "tools", params(("deployment_id" = DeploymentId, Path), ("name" = String, Path)),
    request_body = UpdateTool,
    responses((status = 200, body = Tool), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody)))]
pub(crate) async fn update_tool(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<Tool>, Failure> {
    query.finish()?;
    let changes = parse(&body)?;
    Ok(Json(tools::update(&state.app, &caller, path.deployment_id, path.parameter("name"), changes).await?))
}

fn parse(body: &Value) -> Result<ToolPatch, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let changes = ToolPatch {
        enabled: object.optional_boolean("enabled", &mut errors),
        permission: object.choice("permission", &PERMISSIONS, &mut errors),
    };
    object.finish(&mut errors);
    errors.check()?;
    Ok(changes)
}
