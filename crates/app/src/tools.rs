//! The tools of an agent and their settings.

use herm_agent::tools::Toolset;
use herm_types::deployment::Deployment;
use herm_types::key::Scope;
use herm_types::tool::{BUILTIN_ORIGIN, Permission, Tool, ToolList, ToolSetting};
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
    Ok(ToolList { data: of_deployment(&deployment).into_iter().map(|(tool, _)| tool).collect() })
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
                        let found = of_deployment(deployment).into_iter().find(|(tool, _)| tool.name == name);
                        found.ok_or_else(|| ApiError::not_found("tool", &name))
                    };
                    let (tool, default) = find(&draft.deployment)?;
                    let setting = ToolSetting {
                        enabled: patch.enabled.unwrap_or(tool.enabled),
                        permission: patch.permission.unwrap_or(tool.permission),
                    };
                    let settings = &mut draft.deployment.settings;
                    if setting == default {
                        settings.tools.remove(&name);
                    } else {
                        settings.tools.insert(name.clone(), setting);
                    }
                    Ok(find(&draft.deployment)?.0)
                })
                .await
                .map(|(_, tool)| tool)
            })
        })
        .await
}

/// Returns each tool of a deployment with its default settings.
fn of_deployment(deployment: &Deployment) -> Vec<(Tool, ToolSetting)> {
    let settings = &deployment.settings;
    let builtin = Toolset::new(settings)
        .available()
        .map(|tool| (tool.name.to_owned(), BUILTIN_ORIGIN, tool.default_permission))
        .collect::<Vec<_>>();
    let of_servers = settings.mcp_servers.iter().flat_map(|server| {
        let tools = server.tools.iter().flatten();
        tools.map(move |tool| (format!("{}.{tool}", server.name), server.name.as_str(), server.permission))
    });
    let tools = builtin.into_iter().chain(of_servers).map(|(name, origin, permission)| {
        let default = ToolSetting { enabled: true, permission };
        let ToolSetting { enabled, permission } = settings.tools.get(&name).copied().unwrap_or(default);
        (Tool { name, origin: origin.to_owned(), enabled, permission }, default)
    });
    tools.collect()
}
