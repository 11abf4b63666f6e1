//! Steering requests: the questions and approval requests of runs, and the answers of people.
//!
//! A request is resolved while its thread is locked, so that there is exactly one outcome. A worker suspends
//! a run under the same lock, so that it misses no answer.

use herm_agent::steering::parse_answer;
use herm_agent::tools;
use herm_crypto::sha256;
use herm_store::runs::{self, Transition};
use herm_store::steering::{self as requests, Resolution, StoredRequest};
use herm_store::{Tx, approvals, queue, threads};
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::steering::{
    Approval, Remember, SteeringAnswer, SteeringDecision, SteeringKind, SteeringOutcome, SteeringRequest,
    SteeringStatus,
};
use herm_types::{
    ApprovalId, DeploymentId, Error as ApiError, ErrorCode, FieldError, IdSource, RunId, SteeringId, ThreadId,
};

use crate::idempotency::Reply;
use crate::{App, Caller, Error};

/// The value of `by` in the resolution of a request that expired.
const BY_EXPIRY: &str = "expiry";
/// The value of `by` in the resolution of a request whose run ended before the request was answered.
const BY_CANCEL: &str = "cancel";

/// Filters steering requests by deployment and status. A field that is `None` matches every request.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub deployment_id: Option<DeploymentId>,
    pub status: Option<SteeringStatus>,
}

/// Returns a page of the steering requests of one deployment, or of all deployments that the caller may
/// access, newest first.
pub async fn list(
    app: &App,
    caller: &Caller,
    filter: ListFilter,
    page: PageRequest,
) -> Result<Page<SteeringRequest>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let (caller, limit) = (caller.clone(), page.limit);
    let rows = app
        .store
        .read("list_steering", move |tx| {
            Box::pin(async move {
                if let Some(deployment_id) = filter.deployment_id {
                    caller.deployment(tx, deployment_id).await?;
                }
                let key = caller.key();
                let filter = requests::Filter {
                    deployment_id: filter.deployment_id.or(key.deployment_id),
                    customer_id: key.customer_id.clone(),
                    status: filter.status,
                };
                Ok::<_, Error>(requests::list(tx, caller.account_id(), &filter, &page).await?)
            })
        })
        .await?;
    Ok(Page::from_rows(rows, limit, |request| request.steering_id.to_string()))
}

pub async fn get(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    steering_id: SteeringId,
) -> Result<SteeringRequest, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let caller = caller.clone();
    app.store
        .read("get_steering", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                Ok(find(tx, deployment_id, steering_id).await?.request)
            })
        })
        .await
}

async fn find(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    steering_id: SteeringId,
) -> Result<StoredRequest, Error> {
    let missing = || ApiError::not_found("steering request", &steering_id.to_string());
    let stored = requests::find(tx, deployment_id, steering_id).await?.ok_or_else(missing)?;
    // Fail if the thread has been deleted: clients must not find the requests of deleted threads.
    threads::find(tx, deployment_id, stored.request.thread_id).await?.ok_or_else(missing)?;
    Ok(stored)
}

/// Answers a steering request. Sending the same answer again has no effect.
///
/// # Errors
/// Returns `validation_error` if the answer does not fit the kind of the request, and `conflict` if the
/// request has expired or was already resolved differently.
pub async fn answer(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    steering_id: SteeringId,
    answer: SteeringAnswer,
    reply: Reply<SteeringRequest>,
) -> Result<SteeringRequest, Error> {
    caller.require(Scope::SteeringAnswer)?;
    let (caller, ids) = (caller.clone(), app.ids.clone());
    app.transaction("answer_steering", reply, move |tx| {
        Box::pin(async move {
            caller.deployment(tx, deployment_id).await?;
            let stored = find(tx, deployment_id, steering_id).await?;
            check(&stored.request, &answer)?;
            // `make_due` locks the work item. It must be locked before the thread, because the worker that
            // executes the run locks in this order too. A different order could cause a deadlock.
            queue::make_due(tx, deployment_id, &stored.request.run_id.to_string()).await?;
            threads::find_and_lock(tx, deployment_id, stored.request.thread_id).await?;
            let stored = find(tx, deployment_id, steering_id).await?;
            if let Some(outcome) = stored.request.outcome {
                return match &stored.request.answer {
                    Some(first) if *first == answer => Ok(stored.request),
                    _ => Err(already_resolved(outcome).into()),
                };
            }
            if stored.has_expired(tx.database_now().await?) {
                return Err(already_resolved(SteeringOutcome::Expired).into());
            }
            accept(tx, &stored, answer, &caller, &ids).await?;
            Ok(find(tx, deployment_id, steering_id).await?.request)
        })
    })
    .await
}

fn already_resolved(outcome: SteeringOutcome) -> ApiError {
    let message = format!(
        "The steering request is already resolved with the outcome `{}`; the first outcome is final.",
        outcome.as_str()
    );
    ApiError::new(ErrorCode::Conflict, message)
}

/// Checks that an answer fits the kind of the request and its tool.
///
/// # Errors
/// Returns `validation_error` with one field error for each field that does not fit.
fn check(request: &SteeringRequest, answer: &SteeringAnswer) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    let is_approval = answer.decision == SteeringDecision::Approve;
    let has_message = answer.message.as_ref().is_some_and(|message| !message.trim().is_empty());
    match (request.kind, answer.decision) {
        (SteeringKind::Approval, SteeringDecision::Answer) => {
            errors.push(FieldError::new(
                "decision",
                "must be `approve` or `deny`, because this is an approval request",
            ));
        }
        (SteeringKind::Question, SteeringDecision::Approve) => {
            errors
                .push(FieldError::new("decision", "must be `answer` or `deny`, because this is a question"));
        }
        (SteeringKind::Question, SteeringDecision::Answer) if !has_message => {
            errors.push(FieldError::new("message", "is required if `decision` is `answer`"));
        }
        _ => {}
    }
    if answer.remember != Remember::Once && !is_approval {
        errors.push(FieldError::new("remember", "must be `once` unless `decision` is `approve`"));
    }
    if let Some(arguments) = &answer.arguments {
        if !is_approval {
            errors.push(FieldError::new("arguments", "is only allowed if `decision` is `approve`"));
        } else if let Err(message) = tools::check_arguments(&request.tool, arguments) {
            errors.push(FieldError::new("arguments", message));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(errors)) }
}

/// Resolves a pending request with a person's answer and resumes the run. The caller must hold the lock of
/// the thread.
async fn accept(
    tx: &mut Tx,
    stored: &StoredRequest,
    answer: SteeringAnswer,
    caller: &Caller,
    ids: &IdSource,
) -> Result<(), Error> {
    let request = &stored.request;
    let by = caller.key().key_id.to_string();
    let arguments = answer.arguments.clone().or_else(|| request.arguments.clone()).unwrap_or_default();
    let changed =
        answer.arguments.as_ref().map(|arguments| fingerprint(&request.tool, &arguments.to_string()));
    if answer.decision == SteeringDecision::Approve && answer.remember == Remember::Always {
        let original_fingerprint = requests::fingerprint(tx, request.steering_id).await?;
        let approval = Approval {
            approval_id: ids.next(),
            tool: request.tool.clone(),
            arguments,
            steering_id: request.steering_id,
            by: by.clone(),
            created_at: tx.now(),
        };
        let fingerprint = changed.clone().or(original_fingerprint).unwrap_or_default();
        approvals::insert(tx, request.deployment_id, &approval, &fingerprint).await?;
    }
    let outcome = answer.decision.outcome();
    let resolution = Resolution { outcome, by, answer: Some(answer), fingerprint: changed };
    resolve(tx, stored, &resolution).await?;
    // The work item of the run is already due.
    runs::transition(tx, request.run_id, Transition::Start).await?;
    Ok(())
}

/// Stores the outcome of a request and emits an event, unless the request is already resolved. The caller
/// must hold the lock of the thread.
async fn resolve(
    tx: &mut Tx,
    stored: &StoredRequest,
    resolution: &Resolution,
) -> Result<(), herm_store::Error> {
    let SteeringRequest { run_id, thread_id, steering_id, deployment_id, .. } = stored.request;
    if requests::resolve(tx, steering_id, resolution).await? {
        let (outcome, by) = (resolution.outcome, resolution.by.clone());
        tx.emit(deployment_id, Event::SteeringResolved { run_id, thread_id, steering_id, outcome, by });
    }
    Ok(())
}

/// Uses a message as the answer to the oldest pending request of a thread. Returns the id and the step of the
/// request. Returns `None` if there is no pending request or if the caller may not answer it. In both cases
/// the message is ordinary input. The caller must hold the lock of the thread.
pub(crate) async fn answer_by_message(
    tx: &mut Tx,
    thread_id: ThreadId,
    text: &str,
    caller: &Caller,
    ids: &IdSource,
) -> Result<Option<(SteeringId, i64)>, Error> {
    let now = tx.database_now().await?;
    let pending = requests::pending_of_thread(tx, thread_id).await?;
    let Some(oldest) = pending.into_iter().find(|stored| !stored.has_expired(now)) else { return Ok(None) };
    // The scope for sending messages is enough to answer a question. An approval also needs the scope for
    // answering steering requests.
    if oldest.request.kind == SteeringKind::Approval && caller.require(Scope::SteeringAnswer).is_err() {
        return Ok(None);
    }
    let answer = parse_answer(oldest.request.kind, text);
    accept(tx, &oldest, answer, caller, ids).await?;
    Ok(Some((oldest.request.steering_id, oldest.position.step_no)))
}

/// Returns the run in this thread that waits for a person, or `None` if no run waits.
pub(crate) async fn waiting_run(tx: &mut Tx, thread_id: ThreadId) -> Result<Option<RunId>, Error> {
    let pending = requests::pending_of_thread(tx, thread_id).await?;
    Ok(pending.first().map(|stored| stored.request.run_id))
}

/// Resolves the expired requests of a thread and returns the requests that are still pending. The caller must
/// hold the lock of the thread.
pub async fn expire(tx: &mut Tx, thread_id: ThreadId) -> Result<Vec<StoredRequest>, herm_store::Error> {
    let now = tx.database_now().await?;
    let (late, waiting): (Vec<_>, Vec<_>) = requests::pending_of_thread(tx, thread_id)
        .await?
        .into_iter()
        .partition(|stored| stored.has_expired(now));
    resolve_all(tx, &late, SteeringOutcome::Expired, BY_EXPIRY).await?;
    Ok(waiting)
}

/// Cancels the pending requests of a thread, because its run ends. The caller must hold the lock of the
/// thread.
pub async fn cancel_all(tx: &mut Tx, thread_id: ThreadId) -> Result<(), herm_store::Error> {
    let waiting = requests::pending_of_thread(tx, thread_id).await?;
    resolve_all(tx, &waiting, SteeringOutcome::Cancelled, BY_CANCEL).await
}

async fn resolve_all(
    tx: &mut Tx,
    stored: &[StoredRequest],
    outcome: SteeringOutcome,
    by: &str,
) -> Result<(), herm_store::Error> {
    for stored in stored {
        let resolution = Resolution { outcome, by: by.to_owned(), answer: None, fingerprint: None };
        resolve(tx, stored, &resolution).await?;
    }
    Ok(())
}

/// Returns the fingerprint of a tool call. Equivalent calls have the same fingerprint.
pub fn fingerprint(tool: &str, arguments: &str) -> String {
    let hash = sha256([tools::canonical_call(tool, arguments).as_bytes()]);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns true if a person has already approved an equivalent call, either for the rest of this run or
/// permanently.
pub async fn is_approved(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    fingerprint: &str,
) -> Result<bool, herm_store::Error> {
    Ok(approvals::is_granted(tx, deployment_id, fingerprint).await?
        || requests::is_approved_for_run(tx, run_id, fingerprint).await?)
}

/// Returns a page of the deployment's stored approvals, newest first.
pub async fn list_approvals(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    page: PageRequest,
) -> Result<Page<Approval>, Error> {
    caller.require(Scope::DeploymentsRead)?;
    let (caller, limit) = (caller.clone(), page.limit);
    let rows = app
        .store
        .read("list_approvals", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                Ok::<_, Error>(approvals::list(tx, deployment_id, &page).await?)
            })
        })
        .await?;
    Ok(Page::from_rows(rows, limit, |approval| approval.approval_id.to_string()))
}

/// Deletes the stored approval `one`, or all approvals of the deployment if `one` is `None`. Tool calls that
/// a deleted approval allowed need a new approval from now on. Returns the number of deleted approvals.
///
/// # Errors
/// Returns `not_found` if the deployment has no such approval.
pub async fn withdraw_approvals(
    app: &App,
    caller: &Caller,
    deployment_id: DeploymentId,
    one: Option<ApprovalId>,
) -> Result<u64, Error> {
    caller.require(Scope::SteeringAnswer)?;
    let caller = caller.clone();
    app.store
        .transaction("withdraw_approvals", move |tx| {
            Box::pin(async move {
                caller.deployment(tx, deployment_id).await?;
                let Some(approval_id) = one else {
                    return Ok(approvals::delete_all(tx, deployment_id).await?);
                };
                if approvals::delete(tx, deployment_id, approval_id).await? {
                    return Ok(1);
                }
                Err(Error::from(ApiError::not_found("approval", &approval_id.to_string())))
            })
        })
        .await
}
