//! An agent's tools, as a client sees and sets them.

use serde::{Deserialize, Serialize};

/// The names of the built-in tools, in the order in which a model is told of them.
pub const BUILTIN: [&str; 5] = ["shell", "read_file", "write_file", "edit_file", ASK_HUMAN];

/// The tool by which an agent asks a person: the only one that needs no sandbox.
pub const ASK_HUMAN: &str = "ask_human";

/// The origin of the built-in tools.
pub const BUILTIN_ORIGIN: &str = "builtin";

/// Whether a call of a tool is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    #[default]
    AlwaysAllow,
    /// A person is asked first.
    AlwaysAsk,
    /// Never: the model is told so.
    Deny,
}

/// What a client decided about a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSetting {
    pub enabled: bool,
    pub permission: Permission,
}

/// A tool of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Tool {
    /// A tool of an MCP server is `server.tool`.
    pub name: String,
    /// `builtin`, or the MCP server's name.
    pub origin: String,
    /// One that is not is not shown to the model.
    pub enabled: bool,
    pub permission: Permission,
}

/// The tools of a deployment.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ToolList {
    pub data: Vec<Tool>,
}
