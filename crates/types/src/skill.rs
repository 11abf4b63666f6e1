//! Skills: what an agent can read up on when it needs it, in the Agent Skills format.

use serde::{Deserialize, Serialize};

use crate::id::SkillId;
use crate::time::Timestamp;

/// Where a skill comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillSource {
    /// A file of the workspace.
    File,
    Inline,
    /// Fetched when it is given, and again with each update.
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

/// Whether the agent has a skill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SkillStatus {
    Ready,
    /// Its file is not there; it joins as soon as it is.
    Missing,
    /// Its file is there and is not a skill.
    Invalid,
}

/// A skill in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct SkillItem {
    pub skill_id: SkillId,
    pub name: String,
    pub source: SkillSource,
    /// Of a `file` skill, in the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Of a `url` skill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub status: SkillStatus,
    /// `null` while there is no skill to describe.
    pub description: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A skill with its text.
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
    /// The whole SKILL.md; `null` while its file is missing.
    pub content: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The skills of a deployment, as they were given.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct SkillList {
    pub data: Vec<SkillItem>,
}
