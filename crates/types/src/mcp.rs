//! The MCP servers of a deployment, which offer tools to its agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::tool::Permission;

/// The value of a header that is sent with each request to an MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Header {
    /// A text that contains `${NAME}`. In requests, each `${NAME}` is replaced by the value of the
    /// deployment's secret `NAME`.
    Template(String),
    /// The ciphertext of a write-only value. It can be decrypted only for an MCP server with the same name
    /// and origin.
    Sealed(String),
}

/// An MCP server of a deployment, as the database stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct McpServer {
    pub name: String,
    pub url: String,
    /// The names of the server's tools that the agent may use. `None` allows all.
    pub tools: Option<Vec<String>>,
    pub headers: BTreeMap<String, Header>,
    /// The permission of the server's tools that have no tool setting of their own.
    pub permission: Permission,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The state of the connection to an MCP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionState {
    /// No connection has been attempted yet.
    NotConnected,
}

/// The state of the connection to an MCP server, and the last error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Connection {
    pub state: ConnectionState,
    /// The error with which the last connection attempt failed, or `null` if it did not fail.
    pub last_error: Option<String>,
}

/// An MCP server of a deployment, as the API returns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct McpServerItem {
    pub name: String,
    pub url: String,
    /// The names of the server's tools that the agent may use, or `null` if it may use all.
    pub tools: Option<Vec<String>>,
    /// The headers that are sent with each request to the MCP server. A value that contains `${NAME}` is
    /// returned as it was set. Any other value is write-only and returned as `null`.
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub headers: BTreeMap<String, Option<String>>,
    pub permission: Permission,
    pub connection: Connection,
    /// The tools that the MCP server offered when the agent last connected to it.
    pub tools_seen: Vec<ToolSeen>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A tool that an MCP server offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct ToolSeen {
    pub name: String,
    /// The SHA-256 of the tool's schema, in hexadecimal. It changes whenever the schema changes.
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

/// The MCP servers of a deployment, in the order in which the deployment's configuration lists them.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct McpServerList {
    pub data: Vec<McpServerItem>,
}
