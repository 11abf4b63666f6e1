//! Tools of an agent and their settings.

use serde::{Deserialize, Serialize};

/// The value of [`Tool::origin`] for built-in tools.
pub const BUILTIN_ORIGIN: &str = "builtin";

/// The permission of a tool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// The tool is called without asking a person. Only dangerous shell commands still need an approval.
    #[default]
    AlwaysAllow,
    /// Each call to the tool needs the approval of a person.
    AlwaysAsk,
    /// The tool is never called. If the model requests a call, it receives an error as the tool result.
    Deny,
}

/// The settings of a tool. They are stored only if a client has changed them from the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSetting {
    pub enabled: bool,
    pub permission: Permission,
}

/// A tool of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Tool {
    /// The tool's name. A tool of an MCP server is named `<server>.<tool>`.
    pub name: String,
    /// The origin of the tool: `builtin`, or the name of an MCP server.
    pub origin: String,
    /// True if the tool is offered to the model. If false, the model can neither see nor call the tool.
    pub enabled: bool,
    pub permission: Permission,
}

/// The tools of a deployment.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ToolList {
    pub data: Vec<Tool>,
}
