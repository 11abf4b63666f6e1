//! Resolution of new skills. The text of every skill is fetched or read, and checked, before anything is
//! written.

use std::path::PathBuf;

use futures_util::future::join_all;
use herm_sandbox::workspace::{self, Workspace, WorkspacePath};
use herm_store::skills::Skill;
use herm_types::skill::{SkillSource, SkillStatus};
use herm_types::{Error as ApiError, ErrorCode, FieldError, IdSource, Timestamp};
use url::Url;

use super::document::{InvalidSkill, MAX_SKILL_BYTES, description_of};
use crate::{App, Error};

/// A skill to be added. Name and path have the right form. It is not known yet if the deployment already has a skill
/// with this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSkill {
    pub name: String,
    pub source: NewSource,
}

/// The source of the text of a skill to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSource {
    /// A file in the workspace. If `content` is set, the file is written.
    File {
        path: WorkspacePath,
        content: Option<String>,
    },
    Inline {
        content: String,
    },
    Url(Url),
}

/// The kind of workspace that contains a skill's file. In a new workspace, the file may still be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkspaceState {
    /// The workspace is created together with its deployment.
    New,
    InUse,
}

/// A skill whose text was fetched or read and is valid.
#[derive(Clone, Debug)]
pub(crate) struct ResolvedSkill {
    skill: NewSkill,
    pub(crate) status: SkillStatus,
    pub(crate) description: Option<String>,
    /// The text of the skill: fetched, read from the file, or contained in the request. `None` if the file is
    /// missing.
    content: Option<String>,
}

/// Fetches or reads the text of all skills concurrently, and checks it.
///
/// # Errors
/// Returns `invalid_skill` with all invalid skills and the reason for each.
pub(crate) async fn resolve_all(
    app: &App,
    workspace_dir: PathBuf,
    workspace_state: WorkspaceState,
    new_skills: Vec<NewSkill>,
) -> Result<Vec<ResolvedSkill>, Error> {
    let results =
        new_skills.into_iter().map(|skill| resolve(app, workspace_dir.clone(), workspace_state, skill));
    let mut resolved = Vec::new();
    let mut errors = Vec::new();
    for (index, result) in join_all(results).await.into_iter().enumerate() {
        match result {
            Ok(skill) => resolved.push(skill),
            Err((name, reason)) => {
                errors.push(FieldError::new(format!("skills[{index}]"), format!("skill {name:?}: {reason}")));
            }
        }
    }
    match errors.first() {
        None => Ok(resolved),
        Some(first) => {
            let message = match errors.len() {
                1 => format!("{}: {}.", first.path, first.message),
                count => format!("{count} skills are invalid. The first error is: {}.", first.message),
            };
            Err(ApiError { code: ErrorCode::InvalidSkill, message, details: errors }.into())
        }
    }
}

async fn resolve(
    app: &App,
    workspace_dir: PathBuf,
    workspace_state: WorkspaceState,
    skill: NewSkill,
) -> Result<ResolvedSkill, (String, String)> {
    let name = skill.name.clone();
    let bytes = match &skill.source {
        NewSource::Inline { content } | NewSource::File { content: Some(content), .. } => {
            Ok(Some(content.clone().into_bytes()))
        }
        NewSource::Url(url) => {
            app.fetcher.get(url, MAX_SKILL_BYTES).await.map(Some).map_err(|error| error.to_string())
        }
        NewSource::File { path, content: None } => match read_file(workspace_dir, path.clone()).await {
            Ok(None) if workspace_state == WorkspaceState::New => Ok(None),
            Ok(None) => Err(format!("file {path} does not exist in the workspace", path = path.as_str())),
            read => read,
        },
    };
    let result = bytes.and_then(|bytes| match bytes {
        None => Ok((SkillStatus::Missing, None, None)),
        Some(bytes) => {
            let description = description_of(&bytes).map_err(|invalid| invalid.to_string())?;
            let content = String::from_utf8(bytes).map_err(|_| InvalidSkill::NotText.to_string())?;
            Ok((SkillStatus::Ready, Some(description), Some(content)))
        }
    });
    let (status, description, content) = result.map_err(|reason| (name, reason))?;
    Ok(ResolvedSkill { skill, status, description, content })
}

/// Reads the file of a skill from a workspace. Returns `None` if the file does not exist.
pub(super) async fn read_file(dir: PathBuf, path: WorkspacePath) -> Result<Option<Vec<u8>>, String> {
    let read = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir)?;
        workspace.read(&path, MAX_SKILL_BYTES as u64)
    });
    match read.await {
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        Ok(Err(workspace::Error::NotFound)) => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("failed to read the skill's file: {error}")),
    }
}

/// Writes the file of each skill that has the source `file` and whose text was in the request.
pub(crate) async fn write_files(dir: PathBuf, resolved: &[ResolvedSkill]) -> Result<(), Error> {
    let files: Vec<(WorkspacePath, String)> = resolved
        .iter()
        .filter_map(|skill| match &skill.skill.source {
            NewSource::File { path, content: Some(content) } => Some((path.clone(), content.clone())),
            _ => None,
        })
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let write = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir)?;
        files.iter().try_for_each(|(path, content)| {
            workspace.write_atomic(path, content.as_bytes(), MAX_SKILL_BYTES as u64)
        })
    });
    let result =
        write.await.map_err(|error| Error::Workspace(workspace::Error::Io(std::io::Error::other(error))))?;
    result.map_err(|error| match error {
        workspace::Error::Io(_) => Error::Workspace(error),
        other => ApiError::new(
            ErrorCode::InvalidSkill,
            format!("Failed to write the file of a `file` skill to the workspace: {other}."),
        )
        .into(),
    })
}

impl ResolvedSkill {
    pub(crate) fn name(&self) -> &str {
        &self.skill.name
    }

    /// Converts the skill to its database row. If `existing` contains a skill with the same name, the row
    /// keeps its id and creation time, and also its update time if nothing else changed.
    pub(crate) fn into_row(self, existing: &[Skill], ids: &IdSource, now: Timestamp) -> Skill {
        let (source, path, url) = match &self.skill.source {
            NewSource::File { path, .. } => (SkillSource::File, Some(path.as_str().to_owned()), None),
            NewSource::Inline { .. } => (SkillSource::Inline, None, None),
            NewSource::Url(url) => (SkillSource::Url, None, Some(url.to_string())),
        };
        // The text of a skill with the source `file` is not stored. It is read from the file, which may
        // change.
        let is_stored = source != SkillSource::File;
        let old = existing.iter().find(|skill| skill.name == self.skill.name);
        let mut row = Skill {
            skill_id: old.map_or_else(|| ids.next(), |old| old.skill_id),
            name: self.skill.name,
            source,
            path,
            url,
            description: self.description.filter(|_| is_stored),
            content: self.content.filter(|_| is_stored),
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: now,
        };
        if let Some(old) = old {
            let unchanged = Skill { updated_at: old.updated_at, ..row.clone() };
            if unchanged == *old {
                row = unchanged;
            }
        }
        row
    }
}
