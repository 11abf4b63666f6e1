//! Threads and their messages.

use serde::{Deserialize, Serialize};

use crate::id::{DeploymentId, MessageId, RunId, ThreadId};
use crate::run::RunStatus;
use crate::time::Timestamp;

/// The author of a message.
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

/// The status of a thread, derived from the status of its active run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ThreadStatus {
    /// The thread has no active run.
    Idle,
    /// The thread's active run is `queued` or `running`.
    Running,
    /// The thread's active run waits for the answer to a steering request.
    WaitingOnHuman,
}

impl ThreadStatus {
    /// Returns the status of a thread. `run` is the status of its active run, or `None` if it has none.
    pub fn of_active_run(run: Option<RunStatus>) -> Self {
        match run {
            Some(RunStatus::Queued | RunStatus::Running) => Self::Running,
            Some(RunStatus::WaitingOnHuman) => Self::WaitingOnHuman,
            Some(RunStatus::Completed | RunStatus::Error | RunStatus::Cancelled) | None => Self::Idle,
        }
    }
}

/// The kind of media in an attachment.
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

/// An attachment of a message. Exactly one of `url` and `path` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Attachment {
    #[serde(rename = "type")]
    pub kind: AttachmentType,
    /// The `http` or `https` URL of the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2048, format = "uri")]
    pub url: Option<String>,
    /// The path of the file, relative to the workspace root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096)]
    pub path: Option<String>,
}

/// A message in a thread.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct Message {
    pub message_id: MessageId,
    pub role: Role,
    pub content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub attachments: Vec<Attachment>,
    /// For the role `user`, the run that reads the message. For the role `agent`, the run that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// `true` if the text is incomplete because the model call broke off or the run was cancelled. Absent
    /// otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    pub created_at: Timestamp,
}

/// A row in a list of threads.
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

/// A thread with its latest messages, oldest first.
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
    /// An opaque cursor. Pass it as the parameter `messages_cursor` to get older messages. `null` if there
    /// are none.
    pub messages_cursor: Option<String>,
}
