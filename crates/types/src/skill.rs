//! Skills: instructions that an agent loads when it needs them, in the Agent Skills format.

use serde::{Deserialize, Serialize};

use crate::id::SkillId;
use crate::time::Timestamp;

/// The source of a skill's `SKILL.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillSource {
    /// A file in the workspace. It is read each time the skill is used.
    File,
    /// Text from the request that added or changed the skill.
    Inline,
    /// A URL. It is fetched when the skill is added and each time the skill is updated.
    Url,
}

impl SkillSource {
    pub const ALL: [Self; 3] = [Self::File, Self::Inline, Self::Url];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Inline => "inline",
            Self::Url => "url",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.as_str() == text)
    }
}

/// The state of a skill. The agent can use only skills that are `ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillStatus {
    Ready,
    /// The file of a `file` skill does not exist. The skill becomes `ready` as soon as there is a valid file
    /// at its path.
    Missing,
    /// The file of a `file` skill exists but is not a valid `SKILL.md`.
    Invalid,
}

/// A row in a list of skills.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SkillItem {
    pub skill_id: SkillId,
    pub name: String,
    pub source: SkillSource,
    /// The path of a `file` skill, relative to the workspace root. Absent for other skills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The URL of a `url` skill. Absent for other skills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub status: SkillStatus,
    /// The description from the front matter of the `SKILL.md`, or `null` if the status is `missing` or
    /// `invalid`.
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A skill with the content of its `SKILL.md`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Skill {
    pub skill_id: SkillId,
    pub name: String,
    pub source: SkillSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub status: SkillStatus,
    pub description: Option<String>,
    /// The complete content of the `SKILL.md`, or `null` if the file is missing or cannot be read.
    pub content: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The skills of a deployment, in the order in which the deployment's configuration lists them.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SkillList {
    pub data: Vec<SkillItem>,
}
