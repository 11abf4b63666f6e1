//! Messages: what people and agents said, in the order of their ids.

use herm_types::thread::{Attachment, Message, Role};
use herm_types::{MessageId, RunId, SteeringId, ThreadId};

use crate::deployments::last_id;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// The most messages of one run that wait to be picked up, and that one step takes.
pub const MAX_PENDING: i64 = 100;

/// A message to be added.
#[derive(Clone, Debug)]
pub struct NewMessage {
    pub message_id: MessageId,
    pub thread_id: ThreadId,
    pub run_id: RunId,
    pub role: Role,
    pub content: String,
    pub attachments: Vec<Attachment>,
    /// It was cut off: what there is of it was sent and stands.
    pub truncated: bool,
    /// The request that a user's message answers, and the step that asked: it is no input of its own.
    pub answers: Option<(SteeringId, i64)>,
}

/// Adds a message. A user's is pending until a step picks it up ([`pick_up`]).
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

/// The messages of a thread before `before`, newest first, at most `limit` + 1.
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
                before.map_or_else(last_id::<MessageId>, |id| id.to_string()),
                i64::from(limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(message).collect()
}

/// A user's message as the harness reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserMessage {
    pub message_id: MessageId,
    pub run_id: RunId,
    /// The step that first reads it; `None` while it is pending.
    pub before_step: Option<i64>,
    pub content: String,
    pub attachments: Vec<Attachment>,
}

/// The user messages of a thread's runs from `from_run` on, oldest first, but for those that answered a request.
pub async fn of_users(tx: &mut Tx, thread_id: ThreadId, from_run: RunId) -> Result<Vec<UserMessage>, Error> {
    let rows = tx
        .all(
            "SELECT message_id, run_id, before_step, content, attachments FROM messages \
             WHERE thread_id = $1 AND run_id >= $2 AND role = 'user' AND answers IS NULL ORDER BY message_id",
            params![thread_id.to_string(), from_run.to_string()],
        )
        .await?;
    rows.iter()
        .map(|row| {
            Ok(UserMessage {
                message_id: row.parse(0)?,
                run_id: row.parse(1)?,
                before_step: row.opt_int(2)?,
                content: row.text(3)?,
                attachments: attachments(row, 4)?,
            })
        })
        .collect()
}

/// How many messages of an active run wait to be picked up.
pub async fn count_pending(tx: &mut Tx, run_id: RunId) -> Result<i64, Error> {
    tx.one(
        "SELECT COUNT(*) FROM messages WHERE run_id = $1 AND role = 'user' AND before_step IS NULL",
        params![run_id.to_string()],
    )
    .await?
    .map_or(Ok(0), |row| row.int(0))
}

/// Marks messages as read by this step.
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

/// Makes input of the answers to calls of this run that it never read: it has ended, or ends in this transaction.
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

/// The newest message of all, whosever it is: ids go on after it.
pub async fn newest(tx: &mut Tx) -> Result<Option<MessageId>, Error> {
    let row = tx.one("SELECT message_id FROM messages ORDER BY message_id DESC LIMIT 1", &[]).await?;
    row.map(|row| row.parse(0)).transpose()
}

fn message(row: &Row) -> Result<Message, Error> {
    let role = match row.str(1)? {
        "user" => Role::User,
        "agent" => Role::Agent,
        other => return Err(Error::Corrupt(format!("unknown role {other:?}"))),
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
