//! Messages of users and agents, ordered by id.

use herm_types::thread::{Attachment, Message, Role};
use herm_types::{MessageId, RunId, SteeringId, ThreadId};

use crate::deployments::max_id;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// The maximum number of pending user messages in a run: messages that no step has read yet. A run that has this many
/// accepts no further message until a step has read them. This also limits how many messages one step reads.
pub const MAX_PENDING: i64 = 100;

/// A message to insert.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub message_id: MessageId,
    pub thread_id: ThreadId,
    pub run_id: RunId,
    pub role: Role,
    pub content: String,
    pub attachments: Vec<Attachment>,
    /// True if the text is incomplete, because the model call broke off or the run was cancelled.
    pub truncated: bool,
    /// Set if this is a user's answer to a steering request: the id of the request, and the number of the step that
    /// created the request. The model receives the answer as a tool result instead of a user message.
    pub answers: Option<(SteeringId, i64)>,
}

/// Inserts a message. A user's message is pending until a step reads it, see [`pick_up`].
pub async fn insert(tx: &mut Tx, message: &NewMessage) -> Result<(), Error> {
    let now = tx.now();
    let attachments = Some(&message.attachments).filter(|attachments| !attachments.is_empty());
    tx.execute(
        "INSERT INTO messages \
         (message_id, thread_id, run_id, before_step, role, content, truncated, created_at, attachments, answers) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        params![
            message.message_id.to_string(),
            message.thread_id.to_string(),
            message.run_id.to_string(),
            message.answers.map(|(_, step_no)| step_no),
            message.role.as_str(),
            message.content.as_str(),
            i64::from(message.truncated),
            now,
            attachments.map(serde_json::to_string).transpose()?,
            message.answers.map(|(steering_id, _)| steering_id.to_string()),
        ],
    )
    .await?;
    Ok(())
}

/// Returns up to `limit` messages of a thread that are older than the message `before`, newest first, plus one extra
/// row if there is a next page.
pub async fn page_before(
    tx: &mut Tx,
    thread_id: ThreadId,
    before: Option<MessageId>,
    limit: u32,
) -> Result<Vec<Message>, Error> {
    let rows = tx
        .all(
            "SELECT message_id, role, content, run_id, truncated, created_at, attachments FROM messages \
             WHERE thread_id = $1 AND message_id < $2 ORDER BY message_id DESC LIMIT $3",
            params![
                thread_id.to_string(),
                before.map_or_else(max_id::<MessageId>, |id| id.to_string()),
                i64::from(limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(message).collect()
}

/// A message of a user, with the fields that the harness needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMessage {
    pub message_id: MessageId,
    pub run_id: RunId,
    /// The number of the step that first read the message, or `None` if no step has read it yet.
    pub before_step: Option<i64>,
    pub content: String,
    pub attachments: Vec<Attachment>,
}

/// Returns the user messages of the thread's runs, beginning with the run `from_run`, oldest first. Answers to steering
/// requests are omitted.
pub async fn of_users(tx: &mut Tx, thread_id: ThreadId, from_run: RunId) -> Result<Vec<UserMessage>, Error> {
    let rows = tx
        .all(
            "SELECT message_id, run_id, before_step, content, attachments FROM messages \
             WHERE thread_id = $1 AND run_id >= $2 AND role = 'user' AND answers IS NULL ORDER BY message_id",
            params![thread_id.to_string(), from_run.to_string()],
        )
        .await?;
    rows.iter().map(user_message).collect()
}

/// Returns the user messages of a run that no step has read yet, and those that the step `from_step` or a later one was
/// the first to read, oldest first. Answers to steering requests are omitted.
pub async fn of_run_from(
    tx: &mut Tx,
    thread_id: ThreadId,
    run_id: RunId,
    from_step: i64,
) -> Result<Vec<UserMessage>, Error> {
    let rows = tx
        .all(
            "SELECT message_id, run_id, before_step, content, attachments FROM messages \
             WHERE thread_id = $1 AND run_id = $2 AND role = 'user' AND answers IS NULL \
             AND (before_step IS NULL OR before_step >= $3) ORDER BY message_id",
            params![thread_id.to_string(), run_id.to_string(), from_step],
        )
        .await?;
    rows.iter().map(user_message).collect()
}

fn user_message(row: &Row) -> Result<UserMessage, Error> {
    Ok(UserMessage {
        message_id: row.parse(0)?,
        run_id: row.parse(1)?,
        before_step: row.opt_int(2)?,
        content: row.text(3)?,
        attachments: attachments(row, 4)?,
    })
}

/// Returns the number of the run's user messages that no step has read yet.
pub async fn count_pending(tx: &mut Tx, run_id: RunId) -> Result<i64, Error> {
    tx.one(
        "SELECT COUNT(*) FROM messages WHERE run_id = $1 AND role = 'user' AND before_step IS NULL",
        params![run_id.to_string()],
    )
    .await?
    .map_or(Ok(0), |row| row.int(0))
}

/// Records that the step `step_no` reads these messages. Has no effect on messages that an earlier step has read.
pub async fn pick_up(tx: &mut Tx, messages: &[MessageId], step_no: i64) -> Result<(), Error> {
    for message_id in messages {
        tx.execute(
            "UPDATE messages SET before_step = $1 WHERE message_id = $2 AND before_step IS NULL",
            params![step_no, message_id.to_string()],
        )
        .await?;
    }
    Ok(())
}

/// Called when a run ends. People may have answered its steering requests too late for the run to read the answers.
/// Such answers become pending user messages, so that the next run reads them.
pub async fn release_unread_answers(tx: &mut Tx, run_id: RunId) -> Result<(), Error> {
    tx.execute(
        "UPDATE messages SET answers = NULL, before_step = NULL WHERE answers IS NOT NULL AND answers IN \
         (SELECT steering_id FROM steering_requests asked WHERE run_id = $1 AND NOT EXISTS \
          (SELECT 1 FROM steps WHERE run_id = asked.run_id AND step_no = asked.step_no AND call_no = asked.call_no \
           AND result IS NOT NULL))",
        params![run_id.to_string()],
    )
    .await?;
    Ok(())
}

/// Returns the highest message id in the database. A server reads it at startup and then creates only higher ids, even
/// if its clock was set back.
pub async fn newest(tx: &mut Tx) -> Result<Option<MessageId>, Error> {
    let row = tx.one("SELECT message_id FROM messages ORDER BY message_id DESC LIMIT 1", &[]).await?;
    row.map(|row| row.parse(0)).transpose()
}

fn message(row: &Row) -> Result<Message, Error> {
    let role = match row.str(1)? {
        "user" => Role::User,
        "agent" => Role::Agent,
        other => return Err(Error::Corrupt(format!("unknown message role {other:?}"))),
    };
    Ok(Message {
        message_id: row.parse(0)?,
        role,
        content: row.text(2)?,
        attachments: attachments(row, 6)?,
        run_id: row.opt_parse(3)?,
        truncated: row.int(4)? != 0,
        created_at: row.time(5)?,
    })
}

fn attachments(row: &Row, column: usize) -> Result<Vec<Attachment>, Error> {
    Ok(row.opt_str(column)?.map(serde_json::from_str).transpose()?.unwrap_or_default())
}
