//! Adds, lists, replaces and removes the skills of a deployment. Changes take effect with the next run.

mod document;
mod resolve;

use std::path::PathBuf;

use herm_store::skills::{self, Skill as Row};
use herm_types::key::Scope;
use herm_types::skill::{Skill, SkillItem, SkillList, SkillSource, SkillStatus};
use herm_types::{DeploymentId, Error as ApiError, FieldError, SkillId};
use url::Url;

pub use document::MAX_SKILL_BYTES;
pub use herm_sandbox::workspace::WorkspacePath;
pub use resolve::{NewSkill, NewSource};
pub(crate) use resolve::{ResolvedSkill, WorkspaceState, resolve_all, write_files};

use crate::deployments::edit;
use crate::idempotency::Reply;
use crate::{App, Caller, Error};

/// Adds a skill to a deployment. Fails if the deployment already has a skill with this name.
pub async fn add(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    new_skill: NewSkill,
    reply: Reply<SkillItem>,
) -> Result<SkillItem, Error> {
    let resolved = resolve(app, caller, deployment_id, new_skill).await?;
    let (status, description) = (resolved.status, resolved.description.clone());
    let (caller, ids, name) = (caller.clone(), app.ids.clone(), resolved.name().to_owned());
    app.transaction("add_skill", reply, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            edit::edit(tx, &caller, deployment_id, move |draft| {
                if draft.skills.iter().any(|skill| skill.name == name) {
                    let message = format!("skill {name:?} already exists; replace it or choose another name");
                    return Err(ApiError::invalid(vec![FieldError::new("name", message)]));
                }
                let row = resolved.into_row(&[], &ids, now);
                draft.skills.push(row.clone());
                Ok(item(row, status, description))
            })
            .await
            .map(|(_, added)| added)
        })
    })
    .await
}

/// A patch of a skill. A field that is `None` leaves the stored value unchanged.
#[derive(Clone, Debug, Default)]
pub struct SkillPatch {
    pub name: Option<String>,
    pub source: Option<SkillSource>,
    pub path: Option<WorkspacePath>,
    pub content: Option<String>,
    pub url: Option<Url>,
}

impl SkillPatch {
    /// Returns the skill `old` with this patch applied.
    ///
    /// # Errors
    /// Returns `validation_error` if neither the patch nor the stored skill contains the field that the
    /// skill's source requires: `path`, `content` or `url`.
    fn apply(self, old: &Row) -> Result<NewSkill, ApiError> {
        let missing = |field: &str, source: &str| {
            let message = format!("is required for the source `{source}`");
            ApiError::invalid(vec![FieldError::new(field, message)])
        };
        let old_path = old.path.as_deref().and_then(|path| WorkspacePath::parse(path).ok());
        let old_url = old.url.as_deref().and_then(|url| Url::parse(url).ok());
        let source = match self.source.unwrap_or(old.source) {
            SkillSource::File => {
                let path = self.path.or(old_path).ok_or_else(|| missing("path", "file"))?;
                NewSource::File { path, content: self.content }
            }
            SkillSource::Inline => {
                let content = self.content.or_else(|| old.content.clone());
                NewSource::Inline { content: content.ok_or_else(|| missing("content", "inline"))? }
            }
            SkillSource::Url => NewSource::Url(self.url.or(old_url).ok_or_else(|| missing("url", "url"))?),
        };
        Ok(NewSkill { name: self.name.unwrap_or_else(|| old.name.clone()), source })
    }
}

/// Replaces a skill. If the source is a URL, the text is fetched again.
pub async fn replace(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    skill_id: SkillId,
    patch: SkillPatch,
) -> Result<SkillItem, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let old = find(app, caller, deployment_id, skill_id).await?;
    let resolved = resolve(app, caller, deployment_id, patch.apply(&old)?).await?;
    let (status, description) = (resolved.status, resolved.description.clone());
    let (caller, ids) = (caller.clone(), app.ids.clone());
    let row = app
        .store
        .transaction("replace_skill", move |tx| {
            Box::pin(async move {
                let now = tx.now();
                edit::edit(tx, &caller, deployment_id, move |draft| {
                    let index = draft.skills.iter().position(|skill| skill.skill_id == skill_id);
                    let old = index
                        .and_then(|index| draft.skills.get_mut(index))
                        .ok_or_else(|| missing(skill_id))?;
                    // The skill keeps its id even if the patch renames it. `into_row` finds the old skill by
                    // name, so pass the old skill with its name already changed.
                    let renamed = Row { name: resolved.name().to_owned(), ..old.clone() };
                    let row = resolved.into_row(std::slice::from_ref(&renamed), &ids, now);
                    let row = if renamed.name == old.name { row } else { Row { updated_at: now, ..row } };
                    *old = row.clone();
                    Ok(row)
                })
                .await
                .map(|(_, row)| row)
            })
        })
        .await?;
    Ok(item(row, status, description))
}

/// Removes a skill from the deployment. If the skill's source is `file`, its file stays in the workspace.
pub async fn remove(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    skill_id: SkillId,
) -> Result<(), Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let caller = caller.clone();
    app.store
        .transaction("remove_skill", move |tx| {
            Box::pin(async move {
                edit::edit(tx, &caller, deployment_id, move |draft| {
                    let index = draft.skills.iter().position(|skill| skill.skill_id == skill_id);
                    draft.skills.remove(index.ok_or_else(|| missing(skill_id))?);
                    Ok(())
                })
                .await
                .map(|_| ())
            })
        })
        .await
}

/// Returns all skills of a deployment, in configuration order.
pub async fn list(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<SkillList, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let rows = read(app, caller, deployment_id).await?;
    Ok(SkillList { data: describe(app.workspace_dir(deployment_id), rows).await })
}

/// Returns a skill with its text.
pub async fn get(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    skill_id: SkillId,
) -> Result<Skill, Error> {
    caller.require(Scope::DeploymentsRead)?;
    caller.refuse_browser_token("the text of skills")?;
    let row = find(app, caller, deployment_id, skill_id).await?;
    let (status, description, content) = text_of(app.workspace_dir(deployment_id), &row).await;
    Ok(Skill {
        skill_id: row.skill_id,
        name: row.name,
        source: row.source,
        path: row.path,
        url: row.url,
        status,
        description,
        content,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

/// Fetches or reads the text of a new skill and checks it. If the skill has the source `file` and the request
/// contains its text, writes the file.
async fn resolve(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    new_skill: NewSkill,
) -> Result<ResolvedSkill, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    app.refuse_while_draining()?;
    // Check access before the skill is fetched or its file is written.
    read(app, caller, deployment_id).await?;
    let dir = app.workspace_dir(deployment_id);
    let resolved = resolve_all(app, dir.clone(), WorkspaceState::InUse, vec![new_skill]).await?;
    write_files(dir, &resolved).await?;
    let one = resolved.into_iter().next();
    one.ok_or_else(|| ApiError::invalid(Vec::new()).into())
}

async fn read(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<Vec<Row>, Error> {
    let caller = caller.clone();
    app.store
        .read("list_skills", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                Ok::<_, Error>(skills::of_deployment(tx, deployment_id).await?)
            })
        })
        .await
}

async fn find(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    skill_id: SkillId,
) -> Result<Row, Error> {
    let rows = read(app, caller, deployment_id).await?;
    let found = rows.into_iter().find(|skill| skill.skill_id == skill_id);
    Ok(found.ok_or_else(|| missing(skill_id))?)
}

fn missing(skill_id: SkillId) -> ApiError {
    ApiError::not_found("skill", &skill_id.to_string())
}

/// Converts stored skills to list items. For a skill with the source `file`, the status and the description
/// are read from its file in the workspace.
pub(crate) async fn describe(dir: PathBuf, rows: Vec<Row>) -> Vec<SkillItem> {
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        let (status, description, _) = text_of(dir.clone(), &row).await;
        items.push(item(row, status, description));
    }
    items
}

async fn text_of(dir: PathBuf, row: &Row) -> (SkillStatus, Option<String>, Option<String>) {
    if row.source != SkillSource::File {
        return (SkillStatus::Ready, row.description.clone(), row.content.clone());
    }
    let Some(path) = row.path.as_deref().and_then(|path| WorkspacePath::parse(path).ok()) else {
        return (SkillStatus::Invalid, None, None);
    };
    match resolve::read_file(dir, path).await {
        Ok(None) => (SkillStatus::Missing, None, None),
        Err(_) => (SkillStatus::Invalid, None, None),
        Ok(Some(bytes)) => {
            let content = String::from_utf8_lossy(&bytes).into_owned();
            match document::description_of(&bytes) {
                Ok(description) => (SkillStatus::Ready, Some(description), Some(content)),
                Err(_) => (SkillStatus::Invalid, None, Some(content)),
            }
        }
    }
}

pub(crate) fn item(row: Row, status: SkillStatus, description: Option<String>) -> SkillItem {
    SkillItem {
        skill_id: row.skill_id,
        name: row.name,
        source: row.source,
        path: row.path,
        url: row.url,
        status,
        description,
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}
