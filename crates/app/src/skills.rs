//! Skills of a deployment: given, listed, replaced, removed. The agent's next run has them.

mod document;
mod given;

use std::path::PathBuf;

use herm_store::skills::{self, Skill as Row};
use herm_types::key::Scope;
use herm_types::skill::{Skill, SkillItem, SkillList, SkillSource, SkillStatus};
use herm_types::{DeploymentId, Error as Refusal, Fault, SkillId};
use url::Url;

pub use document::MAX_SKILL_BYTES;
pub(crate) use given::{Gathered, Workplace, gather, write_files};
pub use given::{NewSkill, NewSource};
pub use herm_sandbox::workspace::WorkspacePath;

use crate::deployments::change;
use crate::idempotency::Reply;
use crate::{App, Caller, Error};

/// Skills of a deployment.
pub const MAX_SKILLS: usize = 20;

/// Adds a skill.
pub async fn add(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    given: NewSkill,
    reply: Reply<SkillItem>,
) -> Result<SkillItem, Error> {
    let gathered = look(app, caller, deployment_id, given).await?;
    let (status, description) = (gathered.status, gathered.description.clone());
    let (caller, ids, name) = (caller.clone(), app.ids.clone(), gathered.name().to_owned());
    app.transaction("add_skill", reply, move |tx| {
        Box::pin(async move {
            let now = tx.now();
            change::make(tx, &caller, deployment_id, move |draft| {
                if draft.skills.iter().any(|skill| skill.name == name) {
                    let message =
                        format!("there is a skill {name:?} already; replace it, or choose another name");
                    return Err(Refusal::invalid(vec![Fault::new("name", message)]));
                }
                let row = gathered.into_row(&[], &ids, now);
                draft.skills.push(row.clone());
                Ok(item(row, status, description))
            })
            .await
            .map(|(_, added)| added)
        })
    })
    .await
}

/// What of a skill is replaced; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Replacement {
    pub name: Option<String>,
    pub source: Option<SkillSource>,
    pub path: Option<WorkspacePath>,
    pub content: Option<String>,
    pub url: Option<Url>,
}

impl Replacement {
    /// The skill as it is to be.
    ///
    /// # Errors
    /// What its source needs and neither the replacement nor the skill has.
    fn apply(self, old: &Row) -> Result<NewSkill, Refusal> {
        let missing = |field: &str| Refusal::invalid(vec![Fault::new(field, "is required for this source")]);
        let old_path = old.path.as_deref().and_then(|path| WorkspacePath::parse(path).ok());
        let old_url = old.url.as_deref().and_then(|url| Url::parse(url).ok());
        let source = match self.source.unwrap_or(old.source) {
            SkillSource::File => {
                let path = self.path.or(old_path).ok_or_else(|| missing("path"))?;
                NewSource::File { path, content: self.content }
            }
            SkillSource::Inline => {
                let content = self.content.or_else(|| old.content.clone());
                NewSource::Inline { content: content.ok_or_else(|| missing("content"))? }
            }
            SkillSource::Url => NewSource::Url(self.url.or(old_url).ok_or_else(|| missing("url"))?),
        };
        Ok(NewSkill { name: self.name.unwrap_or_else(|| old.name.clone()), source })
    }
}

/// Replaces a skill; one from a URL is fetched again.
pub async fn replace(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    skill_id: SkillId,
    replacement: Replacement,
) -> Result<SkillItem, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    let old = find(app, caller, deployment_id, skill_id).await?;
    let gathered = look(app, caller, deployment_id, replacement.apply(&old)?).await?;
    let (status, description) = (gathered.status, gathered.description.clone());
    let (caller, ids) = (caller.clone(), app.ids.clone());
    let row = app
        .store
        .transaction("replace_skill", move |tx| {
            Box::pin(async move {
                let now = tx.now();
                change::make(tx, &caller, deployment_id, move |draft| {
                    let place = draft.skills.iter().position(|skill| skill.skill_id == skill_id);
                    let old = place
                        .and_then(|place| draft.skills.get_mut(place))
                        .ok_or_else(|| missing(skill_id))?;
                    // By the id it is the same skill, whatever its name becomes.
                    let renamed = Row { name: gathered.name().to_owned(), ..old.clone() };
                    let row = gathered.into_row(std::slice::from_ref(&renamed), &ids, now);
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

/// Removes a skill. The file of a `file` skill stays.
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
                change::make(tx, &caller, deployment_id, move |draft| {
                    let place = draft.skills.iter().position(|skill| skill.skill_id == skill_id);
                    draft.skills.remove(place.ok_or_else(|| missing(skill_id))?);
                    Ok(())
                })
                .await
                .map(|_| ())
            })
        })
        .await
}

/// All skills of a deployment, in the order in which they were given.
pub async fn list(app: &App, caller: &Caller, deployment_id: DeploymentId) -> Result<SkillList, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let rows = read(app, caller, deployment_id).await?;
    Ok(SkillList { data: describe(app.workspace_dir(deployment_id), rows).await })
}

/// A skill with its text.
pub async fn get(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    skill_id: SkillId,
) -> Result<Skill, Error> {
    caller.require(Scope::DeploymentsRead)?;
    caller.refuse_token("the text of its agent's skills")?;
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

/// Looks at one skill that is given to a deployment at work, and writes its file if that comes along.
async fn look(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    given: NewSkill,
) -> Result<Gathered, Error> {
    caller.require(Scope::DeploymentsWrite)?;
    app.refuse_while_draining()?;
    // Nothing is fetched or written for who may not.
    read(app, caller, deployment_id).await?;
    let dir = app.workspace_dir(deployment_id);
    let gathered = gather(app, dir.clone(), Workplace::Live, vec![given]).await?;
    write_files(dir, &gathered).await?;
    let one = gathered.into_iter().next();
    one.ok_or_else(|| Refusal::invalid(Vec::new()).into())
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

fn missing(skill_id: SkillId) -> Refusal {
    Refusal::not_found("skill", &skill_id.to_string())
}

/// Skills as they are listed: those in files as the files are now.
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
    match given::read_file(dir, path).await {
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
