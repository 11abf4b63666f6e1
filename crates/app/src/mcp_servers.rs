//! Adds, lists, updates and removes the MCP servers of a deployment. Changes take effect with the next run.

pub(crate) mod secret_references;

use std::collections::BTreeMap;

use herm_crypto::Cell;
use herm_types::key::Scope;
use herm_types::mcp::{Header, McpServer, McpServerItem, McpServerList};
use herm_types::tool::Permission;
use herm_types::{DeploymentId, Error as ApiError, ErrorCode, FieldError, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::deployments::edit;
use crate::idempotency::Reply;
use crate::{App, Caller, Error, Sealer};

pub use secret_references::is_env_var_name;

/// The properties of an MCP server to be added. Each field has been validated individually.
#[derive(Clone, Debug)]
pub struct NewMcpServer {
    pub name: String,
    pub url: Url,
    pub tools: Option<Vec<String>>,
    /// The HTTP headers to send, by name. A value of `None` retains the value that is stored for the MCP
    /// server of the same name.
    pub headers: BTreeMap<String, Option<SecretString>>,
    pub permission: Permission,
}

/// A patch of an MCP server. A field that is `None` leaves the stored value unchanged.
#[derive(Clone, Debug, Default)]
pub struct McpServerPatch {
    pub url: Option<Url>,
    /// The names of the allowed tools. `Some(None)` allows all tools.
    pub tools: Option<Option<Vec<String>>>,
    /// The HTTP headers to change. A value of `None` removes the header. Headers that the map does not
    /// contain are unchanged.
    pub headers: BTreeMap<String, Option<SecretString>>,
    pub permission: Option<Permission>,
}

/// Returns the string to which a header's encrypted value is bound. The string contains the name and the
/// origin of the MCP server, so that the value cannot be decrypted for another MCP server or origin.
fn header_row(deployment_id: DeploymentId, server: &str, url: &str, header: &str) -> String {
    let origin = Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    format!("{deployment_id}/{server}/{origin}/{header}")
}

/// Encrypts the header values of MCP servers, and compares new values with stored values.
#[derive(Clone)]
pub(crate) struct HeaderSealer {
    sealer: Sealer,
    deployment_id: DeploymentId,
}

impl HeaderSealer {
    pub(crate) fn new(app: &App, deployment_id: DeploymentId) -> Self {
        Self { sealer: app.sealer.clone(), deployment_id }
    }

    fn resolve(
        &self,
        server: &str,
        url: &str,
        name: &str,
        value: Option<&SecretString>,
        old: Option<&McpServer>,
    ) -> Result<Header, String> {
        let stored = old.and_then(|old| Some((old.headers.get(name)?, old.url.as_str())));
        let row = header_row(self.deployment_id, server, url, name);
        let is_same_origin =
            stored.is_some_and(|(_, old_url)| header_row(self.deployment_id, server, old_url, name) == row);
        let cell = Cell { table: "deployment_versions", row: &row, column: "settings" };
        let text = value.map(ExposeSecret::expose_secret);
        match (text, stored) {
            (Some(text), _) if text.contains("${") => Ok(Header::Template(text.to_owned())),
            (Some(text), stored) => {
                // An unchanged value retains its ciphertext, so that the MCP server compares equal to the
                // stored one. Encrypting the value again would produce a different ciphertext.
                if let (Some((Header::Sealed(sealed), _)), true) = (stored, is_same_origin)
                    && self.sealer.open(cell, sealed).is_ok_and(|open| open.as_slice() == text.as_bytes())
                {
                    return Ok(Header::Sealed(sealed.clone()));
                }
                self.sealer.seal(cell, text.as_bytes()).map(Header::Sealed).map_err(|error| error.to_string())
            }
            (None, Some((header, _))) if is_same_origin || matches!(header, Header::Template(_)) => {
                Ok(header.clone())
            }
            (None, Some(_)) => Err("must be set again, because the scheme, host or port in the URL of the MCP server has changed".to_owned()),
            (None, None) => Err("must be a string, because no value is stored for this header".to_owned()),
        }
    }

    /// Converts MCP servers to their stored form. `old` contains the MCP servers that are stored now.
    ///
    /// # Errors
    /// Returns `validation_error` with one field error for each header that has neither a new nor a stored
    /// value.
    pub(crate) fn resolve_all(
        &self,
        new_servers: Vec<NewMcpServer>,
        old: &[McpServer],
        now: Timestamp,
    ) -> Result<Vec<McpServer>, ApiError> {
        let mut errors = Vec::new();
        let mut servers = Vec::with_capacity(new_servers.len());
        for (index, new) in new_servers.into_iter().enumerate() {
            let old = old.iter().find(|server| server.name == new.name);
            let url = new.url.to_string();
            let mut headers = BTreeMap::new();
            for (name, value) in new.headers {
                match self.resolve(&new.name, &url, &name, value.as_ref(), old) {
                    Ok(header) => drop(headers.insert(name, header)),
                    Err(message) => {
                        errors.push(FieldError::new(format!("mcp_servers[{index}].headers.{name}"), message));
                    }
                }
            }
            let (created_at, updated_at) = (old.map_or(now, |old| old.created_at), now);
            let server = McpServer {
                name: new.name,
                url,
                tools: new.tools,
                headers,
                permission: new.permission,
                created_at,
                updated_at,
            };
            servers.push(keep_updated_at(server, old));
        }
        if errors.is_empty() { Ok(servers) } else { Err(ApiError::invalid(errors)) }
    }
}

/// Returns `old` if it differs from `server` only in `updated_at`, so that an update without changes leaves
/// the timestamp unchanged.
fn keep_updated_at(server: McpServer, old: Option<&McpServer>) -> McpServer {
    match old {
        Some(old) if (McpServer { updated_at: old.updated_at, ..server.clone() }) == *old => old.clone(),
        _ => server,
    }
}

/// Adds an MCP server. The server need not be reachable.
pub async fn add(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    new_server: NewMcpServer,
    reply: Reply<McpServerItem>,
) -> Result<McpServerItem, Error> {
    app.refuse_while_draining()?;
    let (caller, headers) = (caller.clone(), HeaderSealer::new(app, deployment_id));
    app.transaction("add_mcp_server", reply, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            edit::edit(tx, &caller, deployment_id, move |draft| {
                let servers = &mut draft.deployment.settings.mcp_servers;
                if servers.iter().any(|server| server.name == new_server.name) {
                    let message =
                        format!("MCP server {:?} already exists; update or remove it.", new_server.name);
                    return Err(ApiError::new(ErrorCode::Conflict, message));
                }
                let added = headers.resolve_all(vec![new_server], &[], now)?;
                let items = added.iter().map(McpServerItem::from).collect::<Vec<_>>();
                servers.extend(added);
                items.into_iter().next().ok_or_else(|| ApiError::invalid(Vec::new()))
            })
            .await
            .map(|(_, item)| item)
        })
    })
    .await
}

/// Updates an MCP server. Fields that the patch does not contain are unchanged.
pub async fn update(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    name: String,
    patch: McpServerPatch,
) -> Result<McpServerItem, Error> {
    let (caller, headers) = (caller.clone(), HeaderSealer::new(app, deployment_id));
    app.store
        .transaction("update_mcp_server", move |tx| {
            Box::pin(async move {
                let now = tx.now();
                edit::edit(tx, &caller, deployment_id, move |draft| {
                    let servers = &mut draft.deployment.settings.mcp_servers;
                    let server = servers.iter_mut().find(|server| server.name == name);
                    let server = server.ok_or_else(|| missing(&name))?;
                    *server = patch.apply(server, &headers, now)?;
                    Ok(McpServerItem::from(&*server))
                })
                .await
                .map(|(_, item)| item)
            })
        })
        .await
}

impl McpServerPatch {
    fn apply(self, old: &McpServer, headers: &HeaderSealer, now: Timestamp) -> Result<McpServer, ApiError> {
        let mut values: BTreeMap<String, Option<SecretString>> =
            old.headers.keys().map(|name| (name.clone(), None)).collect();
        for (name, value) in self.headers {
            match value {
                Some(value) => values.insert(name, Some(value)),
                None => values.remove(&name),
            };
        }
        let url = self.url.map_or_else(|| Url::parse(&old.url), Ok);
        let new = NewMcpServer {
            name: old.name.clone(),
            url: url.map_err(|error| ApiError::invalid(vec![FieldError::new("url", error.to_string())]))?,
            tools: self.tools.unwrap_or_else(|| old.tools.clone()),
            headers: values,
            permission: self.permission.unwrap_or(old.permission),
        };
        let changed = headers.resolve_all(vec![new], std::slice::from_ref(old), now)?;
        changed.into_iter().next().ok_or_else(|| ApiError::invalid(Vec::new()))
    }
}

/// Removes an MCP server and the settings of its tools from the deployment.
pub async fn remove(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    name: String,
) -> Result<(), Error> {
    let caller = caller.clone();
    app.store
        .transaction("remove_mcp_server", move |tx| {
            Box::pin(async move {
                edit::edit(tx, &caller, deployment_id, move |draft| {
                    let settings = &mut draft.deployment.settings;
                    let before = settings.mcp_servers.len();
                    settings.mcp_servers.retain(|server| server.name != name);
                    if settings.mcp_servers.len() == before {
                        return Err(missing(&name));
                    }
                    let prefix = format!("{name}.");
                    settings.tools.retain(|tool, _| !tool.starts_with(&prefix));
                    Ok(())
                })
                .await
                .map(|_| ())
            })
        })
        .await
}

/// Returns all MCP servers of a deployment, in configuration order.
pub async fn list(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<McpServerList, Error> {
    caller.require(Scope::DeploymentsRead)?;
    caller.refuse_browser_token("MCP servers")?;
    let caller = caller.clone();
    let deployment = app
        .store
        .read("list_mcp_servers", move |tx| {
            Box::pin(async move { caller.deployment(tx, deployment_id).await })
        })
        .await?;
    Ok(McpServerList { data: deployment.settings.mcp_servers.iter().map(McpServerItem::from).collect() })
}

fn missing(name: &str) -> ApiError {
    ApiError::not_found("MCP server", name)
}
