//! MCP servers of a deployment: added, listed, changed, removed. The agent's next run has them.

use std::collections::BTreeMap;

use herm_crypto::Cell;
use herm_types::key::Scope;
use herm_types::mcp::{Header, McpServer, McpServerItem, McpServerList};
use herm_types::secret::HostPattern;
use herm_types::tool::Permission;
use herm_types::{DeploymentId, Error as Refusal, ErrorCode, Fault, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::deployments::change;
use crate::idempotency::Reply;
use crate::{App, Caller, Error, Sealer};

/// MCP servers of a deployment.
pub const MAX_MCP_SERVERS: usize = 20;

/// A server that is given; every value is checked already for what it is alone.
#[derive(Clone, Debug)]
pub struct NewMcpServer {
    pub name: String,
    pub url: Url,
    pub tools: Option<Vec<String>>,
    /// `None`: the value that the server of this name has already.
    pub headers: BTreeMap<String, Option<SecretString>>,
    pub permission: Permission,
}

/// What of a server is changed; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct McpServerChanges {
    pub url: Option<Url>,
    /// `Some(None)`: all tools.
    pub tools: Option<Option<Vec<String>>>,
    /// `None` removes a header; what is not named stays.
    pub headers: BTreeMap<String, Option<SecretString>>,
    pub permission: Option<Permission>,
}

/// Where a sealed header belongs: to one server at one address, so that it is never sent elsewhere.
fn row_of(deployment_id: DeploymentId, server: &str, url: &str, header: &str) -> String {
    let origin = Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default();
    format!("{deployment_id}/{server}/{origin}/{header}")
}

/// Seals and compares the values of headers.
#[derive(Clone)]
pub(crate) struct Headers {
    sealer: Sealer,
    deployment_id: DeploymentId,
}

impl Headers {
    pub(crate) fn new(app: &App, deployment_id: DeploymentId) -> Self {
        Self { sealer: app.sealer.clone(), deployment_id }
    }

    fn take(
        &self,
        server: &str,
        url: &str,
        name: &str,
        value: Option<&SecretString>,
        old: Option<&McpServer>,
    ) -> Result<Header, String> {
        let held = old.and_then(|old| Some((old.headers.get(name)?, old.url.as_str())));
        let row = row_of(self.deployment_id, server, url, name);
        let is_same_place =
            held.is_some_and(|(_, old_url)| row_of(self.deployment_id, server, old_url, name) == row);
        let cell = Cell { table: "deployment_versions", row: &row, column: "settings" };
        let text = value.map(ExposeSecret::expose_secret);
        match (text, held) {
            (Some(text), _) if text.contains("${") => Ok(Header::Template(text.to_owned())),
            (Some(text), held) => {
                // The same value stays as it is sealed, so that nothing has changed.
                if let (Some((Header::Sealed(sealed), _)), true) = (held, is_same_place)
                    && self.sealer.open(cell, sealed).is_ok_and(|open| open.as_slice() == text.as_bytes())
                {
                    return Ok(Header::Sealed(sealed.clone()));
                }
                self.sealer.seal(cell, text.as_bytes()).map(Header::Sealed).map_err(|error| error.to_string())
            }
            (None, Some((header, _))) if is_same_place || matches!(header, Header::Template(_)) => {
                Ok(header.clone())
            }
            (None, Some(_)) => Err("give the value again, as the address has changed".to_owned()),
            (None, None) => Err("must be a string: there is no value yet that could stay".to_owned()),
        }
    }

    /// The servers that are given, as they are stored; `old` are those there were.
    ///
    /// # Errors
    /// `validation_error` with every header that has no value.
    pub(crate) fn take_all(
        &self,
        given: Vec<NewMcpServer>,
        old: &[McpServer],
        now: Timestamp,
    ) -> Result<Vec<McpServer>, Refusal> {
        let mut faults = Vec::new();
        let mut servers = Vec::with_capacity(given.len());
        for (index, new) in given.into_iter().enumerate() {
            let old = old.iter().find(|server| server.name == new.name);
            let url = new.url.to_string();
            let mut headers = BTreeMap::new();
            for (name, value) in new.headers {
                match self.take(&new.name, &url, &name, value.as_ref(), old) {
                    Ok(header) => drop(headers.insert(name, header)),
                    Err(message) => {
                        faults.push(Fault::new(format!("mcp_servers[{index}].headers.{name}"), message));
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
            servers.push(settled(server, old));
        }
        if faults.is_empty() { Ok(servers) } else { Err(Refusal::invalid(faults)) }
    }
}

/// A server of which nothing has changed keeps its time.
fn settled(server: McpServer, old: Option<&McpServer>) -> McpServer {
    match old {
        Some(old) if (McpServer { updated_at: old.updated_at, ..server.clone() }) == *old => old.clone(),
        _ => server,
    }
}

/// Adds a server. It need not be reachable.
pub async fn add(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    given: NewMcpServer,
    reply: Reply<McpServerItem>,
) -> Result<McpServerItem, Error> {
    app.refuse_while_draining()?;
    let (caller, headers) = (caller.clone(), Headers::new(app, deployment_id));
    app.transaction("add_mcp_server", reply, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            change::make(tx, &caller, deployment_id, move |draft| {
                let servers = &mut draft.deployment.settings.mcp_servers;
                if servers.iter().any(|server| server.name == given.name) {
                    let message =
                        format!("There is an MCP server {:?} already; change or remove it.", given.name);
                    return Err(Refusal::new(ErrorCode::Conflict, message));
                }
                let added = headers.take_all(vec![given], &[], now)?;
                let items = added.iter().map(McpServerItem::from).collect::<Vec<_>>();
                servers.extend(added);
                items.into_iter().next().ok_or_else(|| Refusal::invalid(Vec::new()))
            })
            .await
            .map(|(_, item)| item)
        })
    })
    .await
}

/// Changes a server.
pub async fn update(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    name: String,
    changes: McpServerChanges,
) -> Result<McpServerItem, Error> {
    let (caller, headers) = (caller.clone(), Headers::new(app, deployment_id));
    app.store
        .transaction("update_mcp_server", move |tx| {
            Box::pin(async move {
                let now = tx.now();
                change::make(tx, &caller, deployment_id, move |draft| {
                    let servers = &mut draft.deployment.settings.mcp_servers;
                    let server = servers.iter_mut().find(|server| server.name == name);
                    let server = server.ok_or_else(|| missing(&name))?;
                    *server = changes.apply(server, &headers, now)?;
                    Ok(McpServerItem::from(&*server))
                })
                .await
                .map(|(_, item)| item)
            })
        })
        .await
}

impl McpServerChanges {
    fn apply(self, old: &McpServer, headers: &Headers, now: Timestamp) -> Result<McpServer, Refusal> {
        let mut given: BTreeMap<String, Option<SecretString>> =
            old.headers.keys().map(|name| (name.clone(), None)).collect();
        for (name, value) in self.headers {
            match value {
                Some(value) => given.insert(name, Some(value)),
                None => given.remove(&name),
            };
        }
        let url = self.url.map_or_else(|| Url::parse(&old.url), Ok);
        let new = NewMcpServer {
            name: old.name.clone(),
            url: url.map_err(|error| Refusal::invalid(vec![Fault::new("url", error.to_string())]))?,
            tools: self.tools.unwrap_or_else(|| old.tools.clone()),
            headers: given,
            permission: self.permission.unwrap_or(old.permission),
        };
        let changed = headers.take_all(vec![new], std::slice::from_ref(old), now)?;
        changed.into_iter().next().ok_or_else(|| Refusal::invalid(Vec::new()))
    }
}

/// Removes a server, with what was set for its tools.
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
                change::make(tx, &caller, deployment_id, move |draft| {
                    let settings = &mut draft.deployment.settings;
                    let before = settings.mcp_servers.len();
                    settings.mcp_servers.retain(|server| server.name != name);
                    if settings.mcp_servers.len() == before {
                        return Err(missing(&name));
                    }
                    let of_it = format!("{name}.");
                    settings.tools.retain(|tool, _| !tool.starts_with(&of_it));
                    Ok(())
                })
                .await
                .map(|_| ())
            })
        })
        .await
}

/// All servers of a deployment, in the order in which they were given.
pub async fn list(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<McpServerList, Error> {
    caller.require(Scope::DeploymentsRead)?;
    caller.refuse_token("the MCP servers of its agent")?;
    let caller = caller.clone();
    let deployment = app
        .store
        .read("list_mcp_servers", move |tx| {
            Box::pin(async move { caller.deployment(tx, deployment_id).await })
        })
        .await?;
    Ok(McpServerList { data: deployment.settings.mcp_servers.iter().map(McpServerItem::from).collect() })
}

fn missing(name: &str) -> Refusal {
    Refusal::not_found("MCP server", name)
}

/// What is wrong with headers that name secrets: each must be bound in the deployment's secrets, to one that its
/// server's host may be sent. `secrets`: the hosts of each, by the names under which the deployment has them.
pub(crate) fn faults(servers: &[McpServer], secrets: &BTreeMap<String, Vec<HostPattern>>) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        for (header, value) in &server.headers {
            let Header::Template(template) = value else { continue };
            let path = format!("mcp_servers[{index}].headers.{header}");
            for name in names_in(template) {
                let fault = match name {
                    Err(text) => Some(format!("${{{text}}} is not the name of a secret")),
                    Ok(name) => match secrets.get(name) {
                        None => Some(format!("${{{name}}} is not bound in secrets")),
                        Some(hosts) if !may_be_sent(hosts, &server.url) => Some(format!(
                            "the secret {name} does not allow the server's host; add it to its allowed_hosts"
                        )),
                        Some(_) => None,
                    },
                };
                faults.extend(fault.map(|message| Fault::new(path.clone(), message)));
            }
        }
    }
    faults
}

/// The names that stand in `${…}`; what stands there and is no name is an error.
fn names_in(template: &str) -> Vec<Result<&str, &str>> {
    let opened = template.split("${").skip(1);
    opened
        .map(|rest| match rest.split_once('}') {
            Some((name, _)) if is_variable(name) => Ok(name),
            Some((text, _)) => Err(text),
            None => Err(rest),
        })
        .collect()
}

/// Whether a text can name an environment variable.
pub fn is_variable(text: &str) -> bool {
    text.len() <= 128
        && text.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a secret of these hosts may go to this address.
fn may_be_sent(allowed_hosts: &[HostPattern], url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return false };
    allowed_hosts.iter().any(|allowed| allowed.matches(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_braces() {
        assert_eq!(names_in("Bearer ${TOKEN}, ${a b} ${open"), [Ok("TOKEN"), Err("a b"), Err("open")]);
        assert_eq!(names_in("none"), [] as [Result<&str, &str>; 0]);
    }
}
