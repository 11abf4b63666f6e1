//! Skills as they are given: fetched, read and checked before anything is written.

use std::path::PathBuf;

use futures_util::future::join_all;
use herm_sandbox::workspace::{self, Workspace, WorkspacePath};
use herm_store::skills::Skill;
use herm_types::skill::{SkillSource, SkillStatus};
use herm_types::{Error as Refusal, ErrorCode, Fault, IdSource, Timestamp};
use url::Url;

use super::document::{Invalid, MAX_SKILL_BYTES, description_of};
use crate::{App, Error};

/// A skill that is given; its name and paths are checked already for what they are alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSkill {
    pub name: String,
    pub source: NewSource,
}

/// Where a given skill comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewSource {
    /// With `content` the file is written.
    File {
        path: WorkspacePath,
        content: Option<String>,
    },
    Inline {
        content: String,
    },
    Url(Url),
}

/// Where the file of a skill may still be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workplace {
    /// The workspace is as new as its deployment.
    New,
    Live,
}

/// A skill that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Gathered {
    given: NewSkill,
    pub(crate) status: SkillStatus,
    pub(crate) description: Option<String>,
    /// What was fetched, or came along.
    content: Option<String>,
}

/// Looks at all skills that are given.
///
/// # Errors
/// `invalid_skill`, with every skill that is none and why.
pub(crate) async fn gather(
    app: &App,
    workspace_dir: PathBuf,
    workplace: Workplace,
    given: Vec<NewSkill>,
) -> Result<Vec<Gathered>, Error> {
    let looked = given.into_iter().map(|skill| look(app, workspace_dir.clone(), workplace, skill));
    let mut gathered = Vec::new();
    let mut faults = Vec::new();
    for (index, looked) in join_all(looked).await.into_iter().enumerate() {
        match looked {
            Ok(skill) => gathered.push(skill),
            Err((name, reason)) => {
                faults.push(Fault::new(format!("skills[{index}]"), format!("the skill {name:?}: {reason}")));
            }
        }
    }
    match faults.first() {
        None => Ok(gathered),
        Some(first) => {
            let message = match faults.len() {
                1 => format!("{} cannot be used: {}.", first.path, first.message),
                count => format!("{count} skills cannot be used; the first: {}.", first.message),
            };
            Err(Refusal { code: ErrorCode::InvalidSkill, message, details: faults }.into())
        }
    }
}

async fn look(
    app: &App,
    workspace_dir: PathBuf,
    workplace: Workplace,
    given: NewSkill,
) -> Result<Gathered, (String, String)> {
    let name = given.name.clone();
    let bytes = match &given.source {
        NewSource::Inline { content } | NewSource::File { content: Some(content), .. } => {
            Ok(Some(content.clone().into_bytes()))
        }
        NewSource::Url(url) => {
            app.fetcher.get(url, MAX_SKILL_BYTES).await.map(Some).map_err(|error| error.to_string())
        }
        NewSource::File { path, content: None } => match read_file(workspace_dir, path.clone()).await {
            Ok(None) if workplace == Workplace::New => Ok(None),
            Ok(None) => Err(format!("there is no file {path} in the workspace", path = path.as_str())),
            read => read,
        },
    };
    let looked = bytes.and_then(|bytes| match bytes {
        None => Ok((SkillStatus::Missing, None, None)),
        Some(bytes) => {
            let description = description_of(&bytes).map_err(|invalid| invalid.to_string())?;
            let content = String::from_utf8(bytes).map_err(|_| Invalid::NotText.to_string())?;
            Ok((SkillStatus::Ready, Some(description), Some(content)))
        }
    });
    let (status, description, content) = looked.map_err(|reason| (name, reason))?;
    Ok(Gathered { given, status, description, content })
}

/// A file's bytes; `None` if it is not there.
pub(super) async fn read_file(dir: PathBuf, path: WorkspacePath) -> Result<Option<Vec<u8>>, String> {
    let read = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir)?;
        workspace.read(&path, MAX_SKILL_BYTES as u64)
    });
    match read.await {
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        Ok(Err(workspace::Error::NotFound)) => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(format!("its file could not be read: {error}")),
    }
}

/// Writes the files that came along.
pub(crate) async fn write_files(dir: PathBuf, gathered: &[Gathered]) -> Result<(), Error> {
    let files: Vec<(WorkspacePath, String)> = gathered
        .iter()
        .filter_map(|skill| match &skill.given.source {
            NewSource::File { path, content: Some(content) } => Some((path.clone(), content.clone())),
            _ => None,
        })
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let written = tokio::task::spawn_blocking(move || {
        let workspace = Workspace::create(&dir)?;
        files.iter().try_for_each(|(path, content)| {
            workspace.write_atomic(path, content.as_bytes(), MAX_SKILL_BYTES as u64)
        })
    });
    let written = written
        .await
        .map_err(|error| Error::Workspace(workspace::Error::Io(std::io::Error::other(error))))?;
    written.map_err(|error| match error {
        workspace::Error::Io(_) => Error::Workspace(error),
        other => Refusal::new(ErrorCode::InvalidSkill, format!("A skill's file cannot be written: {other}."))
            .into(),
    })
}

impl Gathered {
    pub(crate) fn name(&self) -> &str {
        &self.given.name
    }

    /// The row it becomes. An entry of the same name keeps its id, and its times if nothing of it changes.
    pub(crate) fn into_row(self, existing: &[Skill], ids: &IdSource, now: Timestamp) -> Skill {
        let (source, path, url) = match &self.given.source {
            NewSource::File { path, .. } => (SkillSource::File, Some(path.as_str().to_owned()), None),
            NewSource::Inline { .. } => (SkillSource::Inline, None, None),
            NewSource::Url(url) => (SkillSource::Url, None, Some(url.to_string())),
        };
        // What a file holds is read from it, where it may change.
        let is_kept = source != SkillSource::File;
        let old = existing.iter().find(|skill| skill.name == self.given.name);
        let mut row = Skill {
            skill_id: old.map_or_else(|| ids.next(), |old| old.skill_id),
            name: self.given.name,
            source,
            path,
            url,
            description: self.description.filter(|_| is_kept),
            content: self.content.filter(|_| is_kept),
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
