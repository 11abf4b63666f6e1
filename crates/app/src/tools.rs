//! An agent's tools: which there are, and what a client decided about each.

use herm_types::deployment::{Deployment, DeploymentSettings};
use herm_types::key::Scope;
use herm_types::tool::{BUILTIN, BUILTIN_ORIGIN, Permission, Tool, ToolList, ToolSetting};
use herm_types::{DeploymentId, Error as Refusal};

use crate::deployments::change;
use crate::{App, Caller, Error};

/// What of a tool's setting is changed; what is `None` stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToolChanges {
    pub enabled: Option<bool>,
    pub permission: Option<Permission>,
}

/// All tools of a deployment: the built-in ones, then those of its MCP servers that are known.
pub async fn list(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<ToolList, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    let deployment = app
        .store
        .read("list_tools", move |tx| Box::pin(async move { caller.deployment(tx, deployment_id).await }))
        .await?;
    Ok(ToolList { data: of_deployment(&deployment) })
}

/// Changes a tool's setting, from the next run on.
pub async fn update(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    name: String,
    changes: ToolChanges,
) -> Result<Tool, Error> {
    let caller = caller.clone();
    app.store
        .transaction("update_tool", move |tx| {
            Box::pin(async move {
                change::make(tx, &caller, deployment_id, move |draft| {
                    let find = |deployment: &Deployment| {
                        let found = of_deployment(deployment).into_iter().find(|tool| tool.name == name);
                        found.ok_or_else(|| Refusal::not_found("tool", &name))
                    };
                    let tool = find(&draft.deployment)?;
                    let setting = ToolSetting {
                        enabled: changes.enabled.unwrap_or(tool.enabled),
                        permission: changes.permission.unwrap_or(tool.permission),
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
    let builtin = BUILTIN.iter().filter(|name| herm_agent::tools::has(settings, name));
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

/// A tool's setting while nothing was decided about it.
fn default_of(settings: &DeploymentSettings, origin: &str) -> ToolSetting {
    let server = settings.mcp_servers.iter().find(|server| server.name == origin);
    let permission = server.map_or(Permission::AlwaysAllow, |server| server.permission);
    ToolSetting { enabled: true, permission }
}
