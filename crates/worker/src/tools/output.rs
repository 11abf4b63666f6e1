//! Large output: it goes to a file of the workspace, and the model gets its ends and the path.

use herm_sandbox::workspace::{Workspace, WorkspacePath};
use herm_types::model::ToolOutcome;

use super::Place;

/// Characters of a result that go to the model whole.
const MAX_CHARS: usize = 100_000;
/// Characters of each end that a preview shows.
const PREVIEW_CHARS: usize = 4_000;
/// Bytes of a result that are kept in a file.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Bounds what goes to the model.
pub(super) async fn bound(place: &Place, outcome: ToolOutcome) -> ToolOutcome {
    let count = outcome.text.chars().count();
    if count <= MAX_CHARS {
        return outcome;
    }
    let path = format!(".herm/outputs/{}.txt", place.call);
    let (dir, file, text) = (place.sandbox.workspace_dir.clone(), path.clone(), outcome.text.clone());
    let kept = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir).map_err(|error| error.to_string())?;
        let path = WorkspacePath::parse(&file).map_err(|error| error.to_string())?;
        workspace.write_atomic(&path, text.as_bytes(), MAX_FILE_BYTES).map_err(|error| error.to_string())
    });
    let whole = match kept.await {
        Ok(Ok(_)) => format!("all of it is in {path}"),
        Ok(Err(error)) => format!("the rest could not be kept: {error}"),
        Err(error) => format!("the rest could not be kept: {error}"),
    };
    let head: String = outcome.text.chars().take(PREVIEW_CHARS).collect();
    let tail: String = outcome.text.chars().skip(count - PREVIEW_CHARS).collect();
    let text = format!("{head}\n[… {count} characters; {whole} …]\n{tail}");
    ToolOutcome { text, is_error: outcome.is_error }
}
