//! MCP servers of a deployment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::tool::Permission;

/// A header that goes with each request to a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// A text in which `${NAME}` stands for a secret of the deployment.
    Template(String),
    /// A text that is shown to nobody again: encrypted, for this server's address alone.
    Sealed(String),
}

/// An MCP server as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    pub name: String,
    pub url: String,
    /// The tools that may be used; `None`: all.
    pub tools: Option<Vec<String>>,
    pub headers: BTreeMap<String, Header>,
    /// Of its tools, unless a tool has one of its own.
    pub permission: Permission,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// Whether a server was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// Not tried yet.
    NotConnected,
}

/// How the connection to a server stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Connection {
    pub state: ConnectionState,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// An MCP server as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct McpServerItem {
    pub name: String,
    pub url: String,
    /// The tools that may be used; `null`: all.
    pub tools: Option<Vec<String>>,
    /// A value with `${NAME}` in it is shown as it was given; any other is write-only, and shown as `null`.
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub headers: BTreeMap<String, Option<String>>,
    pub permission: Permission,
    pub connection: Connection,
    /// The tools that the server offered when it was last reached.
    pub tools_seen: Vec<ToolSeen>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A tool that a server offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ToolSeen {
    pub name: String,
    /// SHA-256 of its schema, in hexadecimal: it changes when the tool does.
    pub schema_digest: String,
}

impl From<&McpServer> for McpServerItem {
    fn from(server: &McpServer) -> Self {
        let headers = server.headers.iter().map(|(name, value)| {
            let shown = match value {
                Header::Template(text) => Some(text.clone()),
                Header::Sealed(_) => None,
            };
            (name.clone(), shown)
        });
        Self {
            name: server.name.clone(),
            url: server.url.clone(),
            tools: server.tools.clone(),
            headers: headers.collect(),
            permission: server.permission,
            connection: Connection { state: ConnectionState::NotConnected, last_error: None },
            tools_seen: Vec::new(),
            created_at: server.created_at,
            updated_at: server.updated_at,
        }
    }
}

/// The MCP servers of a deployment, as they were given.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct McpServerList {
    pub data: Vec<McpServerItem>,
}
