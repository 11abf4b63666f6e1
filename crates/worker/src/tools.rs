//! The built-in tools, carried out.

mod files;
mod output;
mod shell;

use std::collections::BTreeMap;

use herm_agent::tools::ToolRequest;
use herm_types::SecretId;
use herm_types::model::ToolOutcome;

use crate::keeper::Wanted;
use crate::worker::Context;

/// Where a call is made.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) sandbox: Wanted,
    /// Names the call, once and for all: run, step and number.
    pub(crate) call: String,
    /// The secrets that the run's agent knows, by the names under which it does.
    pub(crate) secrets: BTreeMap<String, SecretId>,
}

/// How a call is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It has not been made, or may be made again.
    Make,
    /// It may have been made: find out what it gave, and don't make it again.
    Settle,
}

/// Told to a model of a call whose result nobody has.
const UNKNOWN: &str = "The outcome of this call is unknown: the server was interrupted while it was under way, and it \
                       may or may not have taken effect. Check the state before you repeat it.";

fn unknown() -> ToolOutcome {
    ToolOutcome { text: UNKNOWN.to_owned(), is_error: true }
}

/// Makes a call, or settles one. What goes wrong is told to the model.
pub(crate) async fn run_tool(
    context: &Context,
    place: &Place,
    request: ToolRequest,
    attempt: Attempt,
) -> ToolOutcome {
    let outcome = match request {
        ToolRequest::Shell(shell) => shell::run(context, place, shell, attempt).await,
        // A question has its answer, or is refused, before it comes here.
        ToolRequest::AskHuman(_) => unknown(),
        ToolRequest::EditFile(_) if attempt == Attempt::Settle => unknown(),
        ToolRequest::ReadFile(_) | ToolRequest::WriteFile(_) | ToolRequest::EditFile(_) => {
            files::run(context, place, request).await
        }
    };
    output::bound(place, outcome).await
}
