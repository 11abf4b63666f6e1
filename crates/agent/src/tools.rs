//! The tools of an agent: one file for each built-in tool, the table that lists them, and the [`Toolset`] of a run.

mod ask_human;
mod call;
mod edit_file;
mod read_file;
mod schema;
mod shell;
mod table;
mod tool;
mod toolset;
mod verdict;
mod write_file;

pub use ask_human::{AskHuman, MAX_OPTIONS, MAX_QUESTION_CHARS};
pub use call::{CallMode, Cleared, FileRequest, ToolRequest};
pub use edit_file::EditFile;
pub use read_file::{DEFAULT_READ_LINES, ReadFile};
pub use shell::{DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, Shell};
pub use table::{canonical_call, check_arguments};
pub use tool::{Effect, Feature, Tool};
pub use toolset::Toolset;
pub use verdict::{NeededApproval, RequestContent, Verdict};
pub use write_file::WriteFile;

/// The maximum number of tool calls in one reply of the model. Further calls are not made; their result is an error
/// that explains this.
pub const MAX_CALLS_PER_TURN: i64 = 32;
