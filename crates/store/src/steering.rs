//! Steering requests: a run asks a person to approve a tool call or to answer a question. A transaction must lock the
//! request's thread before it resolves the request, so that only the first of several concurrent outcomes takes effect.

use herm_types::paging::PageRequest;
use herm_types::steering::{
    Remember, SteeringAnswer, SteeringKind, SteeringOutcome, SteeringRequest, SteeringStatus,
};
use herm_types::{AccountId, DeploymentId, RunId, SteeringId, ThreadId, Timestamp};

use crate::deployments::max_id;
use crate::journal::Position;
use crate::row::{Row, params};
use crate::{Error, Tx};

/// The SELECT statement for steering requests, followed by the clauses in `$rest`.
macro_rules! select {
    ($($rest:expr),+ $(,)?) => {
        concat!(
            "SELECT s.steering_id, s.deployment_id, s.thread_id, s.run_id, s.kind, s.summary, s.tool, s.tool_call_id, \
             s.arguments, s.options, s.created_at, s.expires_at, s.outcome, s.answered_by, s.answer, s.resolved_at, \
             s.step_no, s.call_no FROM steering_requests s ",
            $($rest),+
        )
    };
}

/// A steering request, with the position of the tool call that created it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRequest {
    pub position: Position,
    pub request: SteeringRequest,
}

/// Inserts a pending steering request. `fingerprint` is a hash of the tool call that the person is asked about. Calls
/// of the same tool with the same arguments have the same fingerprint.
pub async fn insert(
    tx: &mut Tx,
    account_id: AccountId,
    stored: &StoredRequest,
    fingerprint: &str,
) -> Result<(), Error> {
    let StoredRequest { position, request } = stored;
    tx.execute(
        "INSERT INTO steering_requests (steering_id, account_id, deployment_id, thread_id, run_id, step_no, call_no, \
         kind, summary, tool, tool_call_id, arguments, options, fingerprint, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        params![
            request.steering_id.to_string(),
            account_id.to_string(),
            request.deployment_id.to_string(),
            request.thread_id.to_string(),
            request.run_id.to_string(),
            position.step_no,
            position.call_no,
            request.kind.as_str(),
            request.summary.as_str(),
            request.tool.as_str(),
            request.tool_call_id.as_str(),
            request.arguments.as_ref().map(serde_json::to_string).transpose()?,
            serde_json::to_string(&request.options)?,
            fingerprint,
            request.created_at,
            request.expires_at.map(Timestamp::as_micros),
        ],
    )
    .await?;
    Ok(())
}

/// Returns the steering request with this id if it belongs to the deployment.
pub async fn find(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    steering_id: SteeringId,
) -> Result<Option<StoredRequest>, Error> {
    let sql = select!("WHERE s.steering_id = $1 AND s.deployment_id = $2");
    let row = tx.one(sql, params![steering_id.to_string(), deployment_id.to_string()]).await?;
    row.map(|row| stored(&row)).transpose()
}

/// Returns the steering requests that the tool calls of one step created, in the order of the calls.
pub async fn of_step(tx: &mut Tx, run_id: RunId, step_no: i64) -> Result<Vec<StoredRequest>, Error> {
    let sql = select!("WHERE s.run_id = $1 AND s.step_no = $2 ORDER BY s.call_no");
    tx.all(sql, params![run_id.to_string(), step_no]).await?.iter().map(stored).collect()
}

/// Returns the pending steering requests of a thread, oldest first.
pub async fn pending_of_thread(tx: &mut Tx, thread_id: ThreadId) -> Result<Vec<StoredRequest>, Error> {
    let sql = select!("WHERE s.thread_id = $1 AND s.outcome IS NULL ORDER BY s.steering_id");
    tx.all(sql, params![thread_id.to_string()]).await?.iter().map(stored).collect()
}

/// The resolution of a steering request: its outcome and, if a person answered, the answer.
#[derive(Clone, Debug)]
pub struct Resolution {
    pub outcome: SteeringOutcome,
    pub by: String,
    pub answer: Option<SteeringAnswer>,
    /// The fingerprint of the tool call with the arguments that the person edited, or `None` if the arguments are
    /// unchanged.
    pub fingerprint: Option<String>,
}

/// Resolves a pending steering request. Returns false, without any change, if the request is already resolved.
pub async fn resolve(tx: &mut Tx, steering_id: SteeringId, end: &Resolution) -> Result<bool, Error> {
    let now = tx.now();
    let remember = end.answer.as_ref().filter(|_| end.outcome == SteeringOutcome::Approved);
    let changed = tx
        .execute(
            "UPDATE steering_requests SET outcome = $1, answered_by = $2, answer = $3, remember = $4, \
             resolved_at = $5, fingerprint = COALESCE($6, fingerprint) WHERE steering_id = $7 AND outcome IS NULL",
            params![
                end.outcome.as_str(),
                end.by.as_str(),
                end.answer.as_ref().map(serde_json::to_string).transpose()?,
                remember.map(|answer| remember_text(answer.remember).to_owned()),
                now,
                end.fingerprint.clone(),
                steering_id.to_string(),
            ],
        )
        .await?;
    Ok(changed == 1)
}

/// Returns the fingerprint of the tool call that a person was asked about in a steering request. If the person edited
/// the arguments, it is the fingerprint of the edited call.
pub async fn fingerprint(tx: &mut Tx, steering_id: SteeringId) -> Result<Option<String>, Error> {
    let sql = "SELECT fingerprint FROM steering_requests WHERE steering_id = $1";
    tx.one(sql, params![steering_id.to_string()]).await?.map(|row| row.text(0)).transpose()
}

/// Returns true if a person approved calls with this fingerprint for the rest of the run (`remember: "run"`).
pub async fn is_approved_for_run(tx: &mut Tx, run_id: RunId, fingerprint: &str) -> Result<bool, Error> {
    let row = tx
        .one(
            "SELECT 1 FROM steering_requests WHERE run_id = $1 AND fingerprint = $2 AND remember = 'run' LIMIT 1",
            params![run_id.to_string(), fingerprint],
        )
        .await?;
    Ok(row.is_some())
}

/// Filters for a list of steering requests. A filter that is `None` matches every request.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub deployment_id: Option<DeploymentId>,
    pub customer_id: Option<String>,
    pub status: Option<SteeringStatus>,
}

/// Returns a page of an account's steering requests, newest first, plus one extra row if there is a next page. Requests
/// of deleted deployments and deleted threads are omitted.
pub async fn list(
    tx: &mut Tx,
    account_id: AccountId,
    filter: &Filter,
    page: &PageRequest,
) -> Result<Vec<SteeringRequest>, Error> {
    macro_rules! page {
        ($filter:expr) => {
            select!(
                "JOIN deployments d ON d.deployment_id = s.deployment_id JOIN threads t ON t.thread_id = s.thread_id \
                 WHERE s.account_id = $1 AND s.steering_id < $2 AND ($3 = '' OR s.deployment_id = $3) \
                 AND ($4 = '' OR d.customer_id = $4) ",
                $filter,
                " ORDER BY s.steering_id DESC LIMIT $5"
            )
        };
    }
    // The condition is part of the SQL text instead of a parameter, so that SQLite and PostgreSQL can use the partial
    // index on pending requests.
    let sql = match filter.status {
        None => page!(""),
        Some(SteeringStatus::Pending) => page!("AND s.outcome IS NULL"),
        Some(SteeringStatus::Resolved) => page!("AND s.outcome IS NOT NULL"),
    };
    let rows = tx
        .all(
            sql,
            params![
                account_id.to_string(),
                page.after.clone().unwrap_or_else(max_id::<SteeringId>),
                filter.deployment_id.map(|id| id.to_string()).unwrap_or_default(),
                filter.customer_id.clone().unwrap_or_default(),
                i64::from(page.limit) + 1,
            ],
        )
        .await?;
    rows.iter().map(|row| stored(row).map(|stored| stored.request)).collect()
}

fn remember_text(remember: Remember) -> &'static str {
    match remember {
        Remember::Once => "once",
        Remember::Run => "run",
        Remember::Always => "always",
    }
}

fn stored(row: &Row) -> Result<StoredRequest, Error> {
    let kind = row.str(4)?;
    let outcome = row.opt_str(12)?;
    let outcome = outcome
        .map(|text| {
            SteeringOutcome::parse(text).ok_or_else(|| Error::Corrupt(format!("unknown outcome {text:?}")))
        })
        .transpose()?;
    let run_id = row.parse(3)?;
    let request = SteeringRequest {
        steering_id: row.parse(0)?,
        deployment_id: row.parse(1)?,
        thread_id: row.parse(2)?,
        run_id,
        kind: SteeringKind::parse(kind)
            .ok_or_else(|| Error::Corrupt(format!("unknown kind of steering request {kind:?}")))?,
        status: if outcome.is_some() { SteeringStatus::Resolved } else { SteeringStatus::Pending },
        summary: row.text(5)?,
        tool: row.text(6)?,
        tool_call_id: row.text(7)?,
        arguments: row.opt_str(8)?.map(serde_json::from_str).transpose()?,
        options: serde_json::from_str(row.str(9)?)?,
        created_at: row.time(10)?,
        expires_at: row.opt_time(11)?,
        outcome,
        by: row.opt_str(13)?.map(str::to_owned),
        answer: row.opt_str(14)?.map(serde_json::from_str).transpose()?,
        resolved_at: row.opt_time(15)?,
    };
    Ok(StoredRequest { position: Position { run_id, step_no: row.int(16)?, call_no: row.int(17)? }, request })
}

impl StoredRequest {
    /// Returns true if the request has expired at the time `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.request.expires_at.is_some_and(|expires_at| expires_at <= now)
    }
}
