//! Skills of a deployment, in the order in which the client listed them.

use herm_types::skill::SkillSource;
use herm_types::{DeploymentId, SkillId, Timestamp};

use crate::row::{Row, params};
use crate::{Error, Tx};

/// A stored skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skill {
    pub skill_id: SkillId,
    pub name: String,
    pub source: SkillSource,
    /// The path of the skill's file in the workspace. Set only for a skill of type `file`.
    pub path: Option<String>,
    /// The URL that the skill was loaded from. Set only for a skill of type `url`.
    pub url: Option<String>,
    /// `None` for a skill of type `file`, whose description is read from its file.
    pub description: Option<String>,
    /// The text of the skill's `SKILL.md`. `None` for a skill of type `file`, whose text is read from its file.
    pub content: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

const SELECT: &str = "SELECT skill_id, name, source, path, url, description, content, created_at, updated_at \
                      FROM skills WHERE deployment_id = $1 ORDER BY place";

/// Returns all skills of a deployment, in order. The result is not split into pages, because the API limits the number
/// of skills.
pub async fn of_deployment(tx: &mut Tx, deployment_id: DeploymentId) -> Result<Vec<Skill>, Error> {
    let rows = tx.all(SELECT, params![deployment_id.to_string()]).await?;
    rows.iter().map(skill).collect()
}

/// Replaces all skills of a deployment with `skills`, and stores their order.
pub async fn replace(tx: &mut Tx, deployment_id: DeploymentId, skills: &[Skill]) -> Result<(), Error> {
    tx.execute("DELETE FROM skills WHERE deployment_id = $1", params![deployment_id.to_string()]).await?;
    for (place, skill) in (0i64..).zip(skills) {
        tx.execute(
            "INSERT INTO skills (skill_id, deployment_id, place, name, source, path, url, description, content, \
             created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            params![
                skill.skill_id.to_string(),
                deployment_id.to_string(),
                place,
                skill.name.as_str(),
                skill.source.as_str(),
                skill.path.clone(),
                skill.url.clone(),
                skill.description.clone(),
                skill.content.clone(),
                skill.created_at,
                skill.updated_at,
            ],
        )
        .await?;
    }
    Ok(())
}

fn skill(row: &Row) -> Result<Skill, Error> {
    let source = row.str(2)?;
    Ok(Skill {
        skill_id: row.parse(0)?,
        name: row.text(1)?,
        source: SkillSource::parse(source)
            .ok_or_else(|| Error::Corrupt(format!("unknown skill source {source:?}")))?,
        path: row.opt_str(3)?.map(str::to_owned),
        url: row.opt_str(4)?.map(str::to_owned),
        description: row.opt_str(5)?.map(str::to_owned),
        content: row.opt_str(6)?.map(str::to_owned),
        created_at: row.time(7)?,
        updated_at: row.time(8)?,
    })
}
