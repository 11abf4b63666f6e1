//! Truncates large tool results. The whole text is saved to a file in the workspace. The model receives the beginning
//! and the end of the text, and the path of the file.

use herm_sandbox::workspace::{Workspace, WorkspacePath};
use herm_types::model::ToolOutcome;

use super::call::ToolCallContext;

/// The maximum length of a tool result that the model receives in full, in characters. Longer results are truncated.
const MAX_CHARS: usize = 100_000;
/// A truncated result retains this many characters at its beginning, and the same number at its end.
const PREVIEW_CHARS: usize = 4_000;
/// The maximum size of a result that is saved to a file, in bytes. A larger result is not saved; only its beginning and
/// its end are retained.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Returns the result as the model receives it. A result that is too long is saved to a file and truncated.
pub(super) async fn bound(call_context: &ToolCallContext, outcome: ToolOutcome) -> ToolOutcome {
    let count = outcome.text.chars().count();
    if count <= MAX_CHARS {
        return outcome;
    }
    let path = format!(".herm/outputs/{}.txt", call_context.call_name);
    let (dir, file, text) = (call_context.sandbox.workspace_dir.clone(), path.clone(), outcome.text.clone());
    let saved = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir).map_err(|error| error.to_string())?;
        let path = WorkspacePath::parse(&file).map_err(|error| error.to_string())?;
        workspace.write_atomic(&path, text.as_bytes(), MAX_FILE_BYTES).map_err(|error| error.to_string())
    });
    let note = match saved.await {
        Ok(Ok(_)) => format!("the full output is in {path}"),
        Ok(Err(error)) => format!("failed to save the full output: {error}"),
        Err(error) => format!("failed to save the full output: {error}"),
    };
    let head: String = outcome.text.chars().take(PREVIEW_CHARS).collect();
    let tail: String = outcome.text.chars().skip(count - PREVIEW_CHARS).collect();
    let text = format!("{head}\n[… {count} characters; {note} …]\n{tail}");
    ToolOutcome { text, is_error: outcome.is_error }
}
