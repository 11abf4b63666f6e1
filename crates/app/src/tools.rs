//! The tools of an agent and their settings.

use herm_types::deployment::{Deployment, DeploymentSettings};
use herm_types::key::Scope;
use herm_types::tool::{BUILTIN, BUILTIN_ORIGIN, Permission, Tool, ToolList, ToolSetting};
use herm_types::{DeploymentId, Error as ApiError};

use crate::deployments::edit;
use crate::{App, Caller, Error};

/// A patch of a tool's settings. A field that is `None` leaves the stored value unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolPatch {
    pub enabled: Option<bool>,
    pub permission: Option<Permission>,
}

/// Returns the tools of a deployment: the built-in tools, then the tools that its MCP server settings list by
/// name. For an MCP server whose settings contain no such list, no tools are returned.
pub async fn list(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<ToolList, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    let deployment = app
        .store
        .read("list_tools", move |tx| Box::pin(async move { caller.deployment(tx, deployment_id).await }))
        .await?;
    Ok(ToolList { data: of_deployment(&deployment) })
}

/// Updates the settings of a tool. The change takes effect with the next run.
pub async fn update(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    name: String,
    patch: ToolPatch,
) -> Result<Tool, Error> {
    let caller = caller.clone();
    app.store
        .transaction("update_tool", move |tx| {
            Box::pin(async move {
                edit::edit(tx, &caller, deployment_id, move |draft| {
                    let find = |deployment: &Deployment| {
                        let found = of_deployment(deployment).into_iter().find(|tool| tool.name == name);
                        found.ok_or_else(|| ApiError::not_found("tool", &name))
                    };
                    let tool = find(&draft.deployment)?;
                    let setting = ToolSetting {
                        enabled: patch.enabled.unwrap_or(tool.enabled),
                        permission: patch.permission.unwrap_or(tool.permission),
                    };
                    let settings = &mut draft.deployment.settings;
                    if setting == default_of(settings, &tool.origin) {
                        settings.tools.remove(&name);
                    } else {
                        settings.tools.insert(name.clone(), setting);
                    }
                    find(&draft.deployment)
                })
                .await
                .map(|(_, tool)| tool)
            })
        })
        .await
}

fn of_deployment(deployment: &Deployment) -> Vec<Tool> {
    let settings = &deployment.settings;
    let builtin = BUILTIN.iter().filter(|name| herm_agent::tools::is_available(settings, name));
    let mut named: Vec<(String, &str)> = builtin.map(|name| ((*name).to_owned(), BUILTIN_ORIGIN)).collect();
    for server in &settings.mcp_servers {
        let tools = server.tools.iter().flatten();
        named.extend(tools.map(|tool| (format!("{}.{tool}", server.name), server.name.as_str())));
    }
    let tools = named.into_iter().map(|(name, origin)| {
        let default = default_of(settings, origin);
        let ToolSetting { enabled, permission } = settings.tools.get(&name).copied().unwrap_or(default);
        Tool { name, origin: origin.to_owned(), enabled, permission }
    });
    tools.collect()
}

/// Returns the default settings of a tool. `origin` is the name of the MCP server that offers the tool, or
/// [`BUILTIN_ORIGIN`] for a built-in tool.
fn default_of(settings: &DeploymentSettings, origin: &str) -> ToolSetting {
    let server = settings.mcp_servers.iter().find(|server| server.name == origin);
    let permission = server.map_or(Permission::AlwaysAllow, |server| server.permission);
    ToolSetting { enabled: true, permission }
}
