//! The description of a tool, from which the table of tools is built.

use herm_types::model::ToolSchema;
use herm_types::tool::Permission;

use super::schema::Schema;

/// A built-in tool.
#[derive(Debug)]
pub struct Tool {
    pub name: &'static str,
    /// The feature that a deployment must have for its agent to use the tool.
    pub needs: Feature,
    /// The effect of making the same call twice.
    pub effect: Effect,
    /// The permission of the tool in a deployment that does not set one.
    pub default_permission: Permission,
    pub(super) schema: fn() -> Schema,
    /// Returns the argument that a person's stored approval depends on: the approval also applies to later calls in
    /// which this argument is the same. If it returns `None`, all arguments must be the same.
    pub(super) approved_part: fn(&serde_json::Value) -> Option<&str>,
}

/// A feature of a deployment that a tool needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Sandbox,
    Steering,
}

/// The effect of making the same tool call twice. It determines how the worker recovers a call whose result was lost in
/// a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The tool call changes nothing. After a crash it is made again.
    Read,
    /// Repeating the tool call has no further effect. After a crash it is made again.
    Idempotent,
    /// The tool call must not be repeated. After a crash, the worker asks the guest (the program that runs commands
    /// in the sandbox) for the result. If the guest has none, the model is told that the outcome is unknown.
    Unsafe,
}

impl Tool {
    /// Returns the schema that tells the model how to call the tool.
    pub(super) fn schema(&self) -> ToolSchema {
        (self.schema)().of(self.name)
    }
}

/// The value of [`Tool::approved_part`] for tools whose stored approvals apply only to calls with the same arguments.
pub(super) fn all_arguments(_: &serde_json::Value) -> Option<&str> {
    None
}
