//! The tools `read_file`, `write_file` and `edit_file`. They access the workspace on the server's disk directly,
//! without starting a sandbox.

use std::path::Path;

use herm_agent::tools::{DEFAULT_READ_LINES, EditFile, FileRequest, ReadFile, WriteFile};
use herm_sandbox::workspace::{Error, Quotas, Workspace, WorkspacePath};
use herm_types::model::ToolOutcome;

use super::call::ToolCallContext;
use crate::context::Context;

/// The maximum size of a file that the file tools read or write, in bytes. Calls for larger files fail.
const MAX_FILE_BYTES: u64 = 10 * 1024 * 1024;

pub(super) async fn run(
    context: &Context,
    call_context: &ToolCallContext,
    request: FileRequest,
) -> ToolOutcome {
    let dir = call_context.sandbox.workspace_dir.clone();
    let quota =
        Quota { quotas: context.quotas.clone(), disk_bytes: call_context.sandbox.settings.disk_bytes() };
    let work = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir).map_err(|error| error.to_string())?;
        match request {
            FileRequest::Read(request) => read(&workspace, &request),
            FileRequest::Write(request) => write(&workspace, &dir, &quota, &request),
            FileRequest::Edit(request) => edit(&workspace, &dir, &quota, &request),
        }
    });
    match work.await {
        Ok(Ok(text)) => ToolOutcome { text, is_error: false },
        Ok(Err(text)) => ToolOutcome { text, is_error: true },
        Err(error) => {
            tracing::error!(workspace = %call_context.sandbox.workspace, call_name = call_context.call_name, %error, "a file tool call panicked");
            ToolOutcome {
                text: "Internal error: the file tool failed. The file may or may not have been changed."
                    .to_owned(),
                is_error: true,
            }
        }
    }
}

/// Parses a path that a model has written: either relative to the workspace, or absolute and within `/workspace`.
fn parse(path: &str) -> Result<WorkspacePath, String> {
    let relative =
        path.strip_prefix("/workspace/").or_else(|| (path == "/workspace").then_some("")).unwrap_or(path);
    WorkspacePath::parse(relative).map_err(|error| format!("{path:?}: {error}"))
}

fn read_text(workspace: &Workspace, path: &str) -> Result<String, String> {
    let bytes =
        workspace.read(&parse(path)?, MAX_FILE_BYTES).map_err(|error| failed("read", path, &error))?;
    String::from_utf8(bytes).map_err(|_| format!("{path:?} is not a text file (it is not UTF-8)."))
}

fn failed(what: &str, path: &str, error: &Error) -> String {
    format!("Failed to {what} {path:?}: {error}.")
}

fn read(workspace: &Workspace, request: &ReadFile) -> Result<String, String> {
    let text = read_text(workspace, &request.path)?;
    let (first, limit) = (request.offset.unwrap_or(1).max(1), request.limit.unwrap_or(DEFAULT_READ_LINES));
    let total = text.lines().count();
    let lines: String = text.split_inclusive('\n').skip(first - 1).take(limit).collect();
    if lines.is_empty() {
        return Ok(format!(
            "[no lines: the file has {total} lines, and the requested range begins at line {first}]"
        ));
    }
    if total > first - 1 + limit {
        let last = first - 1 + limit;
        return Ok(format!("{lines}[lines {first} to {last} of {total}; set `offset` to read more]"));
    }
    Ok(lines)
}

/// The disk quota of one workspace, which every write must respect.
struct Quota {
    quotas: Quotas,
    disk_bytes: u64,
}

impl Quota {
    fn write(&self, workspace: &Workspace, dir: &Path, path: &str, bytes: &[u8]) -> Result<(), String> {
        let parsed = parse(path)?;
        let written = workspace.freed_by_write(&parsed).and_then(|freed| {
            let mut reservation = self.quotas.begin_write(dir, self.disk_bytes, freed);
            reservation.grow_to(bytes.len() as u64)?;
            workspace.write_atomic(&parsed, bytes, MAX_FILE_BYTES)?;
            reservation.commit();
            Ok(())
        });
        written.map_err(|error| failed("write", path, &error))
    }
}

fn write(workspace: &Workspace, dir: &Path, quota: &Quota, request: &WriteFile) -> Result<String, String> {
    let bytes = request.content.as_bytes();
    quota.write(workspace, dir, &request.path, bytes)?;
    Ok(format!("Wrote {} bytes to {}.", bytes.len(), request.path))
}

fn edit(workspace: &Workspace, dir: &Path, quota: &Quota, request: &EditFile) -> Result<String, String> {
    if request.old_text.is_empty() {
        return Err("`old_text` is empty. Set it to the text to replace, or use `write_file`.".to_owned());
    }
    let text = read_text(workspace, &request.path)?;
    let found = text.matches(&request.old_text).count();
    match found {
        0 => {
            return Err(format!(
                "`old_text` does not occur in {:?}. Read the file and copy the text exactly.",
                request.path
            ));
        }
        1 => {}
        _ if request.replace_all => {}
        _ => {
            return Err(format!(
                "`old_text` occurs {found} times. Include more of the surrounding text, or set `replace_all`."
            ));
        }
    }
    let edited = text.replace(&request.old_text, &request.new_text);
    quota.write(workspace, dir, &request.path, edited.as_bytes())?;
    Ok(format!("Replaced {found} occurrence(s) in {}.", request.path))
}
