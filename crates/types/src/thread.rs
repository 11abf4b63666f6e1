//! Threads and their messages.

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, MessageId, RunId, ThreadId};
use crate::run::RunStatus;
use crate::time::Timestamp;

/// Who said a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    User,
    Agent,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
        }
    }
}

/// Whether a thread is being worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThreadStatus {
    Idle,
    Running,
    WaitingOnHuman,
}

impl ThreadStatus {
    /// A thread's status is that of its active run, if it has one.
    pub fn of_active_run(run: Option<RunStatus>) -> Self {
        match run {
            Some(RunStatus::Queued | RunStatus::Running) => Self::Running,
            Some(RunStatus::WaitingOnHuman) => Self::WaitingOnHuman,
            Some(RunStatus::Completed | RunStatus::Error | RunStatus::Cancelled) | None => Self::Idle,
        }
    }
}

/// What an attachment shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttachmentType {
    Image,
    Video,
    Audio,
}

impl AttachmentType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// Something that comes along with a message: exactly one of `url` and `path` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attachment {
    #[serde(rename = "type")]
    pub kind: AttachmentType,
    /// Where it can be fetched, by `http` or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, format = "uri")]
    pub url: Option<String>,
    /// Where it is, relative to the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096)]
    pub path: Option<String>,
}

/// A message of a thread as the API shows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Message {
    pub message_id: MessageId,
    pub role: Role,
    pub content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub attachments: Vec<Attachment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// It was cut off, by a fault of the model's stream or because its run was cancelled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    pub created_at: Timestamp,
}

/// A thread in a list.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ThreadItem {
    pub thread_id: ThreadId,
    pub title: Option<String>,
    pub status: ThreadStatus,
    pub message_count: i64,
    pub last_activity_at: Timestamp,
}

/// A thread without its messages.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct ThreadInfo {
    pub thread_id: ThreadId,
    pub deployment_id: DeploymentId,
    pub title: Option<String>,
    pub status: ThreadStatus,
    pub message_count: i64,
    pub last_activity_at: Timestamp,
    pub created_at: Timestamp,
}

/// A thread with its last messages, oldest first.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Thread {
    pub thread_id: ThreadId,
    pub deployment_id: DeploymentId,
    pub title: Option<String>,
    pub status: ThreadStatus,
    pub message_count: i64,
    pub last_activity_at: Timestamp,
    pub created_at: Timestamp,
    pub messages: Vec<Message>,
    /// Opaque; for the messages before these. `null` when there are none.
    pub messages_cursor: Option<String>,
}
