//! Steering: what runs ask people, and what people answer.
//!
//! Whoever resolves a request holds its thread's lock, so that the first wins; whoever lets its run go to sleep holds
//! it too, so that no answer is missed.

use herm_agent::steering as harness;
use herm_crypto::sha256;
use herm_store::steering::{self as requests, Asked, Resolution};
use herm_store::{Tx, approvals, queue, runs, threads};
use herm_types::event::Event;
use herm_types::key::Scope;
use herm_types::paging::{Page, PageRequest};
use herm_types::run::RunStatus;
use herm_types::steering::{
    Approval, Remember, SteeringAnswer, SteeringDecision, SteeringKind, SteeringOutcome, SteeringRequest,
    SteeringStatus,
};
use herm_types::{
    ApprovalId, DeploymentId, Error as Refusal, ErrorCode, Fault, IdSource, RunId, SteeringId, ThreadId,
};

use crate::idempotency::Reply;
use crate::{App, Caller, Error};

/// Who is named where nobody answered in time.
const BY_EXPIRY: &str = "expiry";
/// Who is named where the run ended before anybody answered.
const BY_CANCEL: &str = "cancel";

/// Which requests are listed; what is `None` does not filter.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    pub deployment_id: Option<DeploymentId>,
    pub status: Option<SteeringStatus>,
}

/// A page of what runs ask or asked, of one deployment or of all within the caller's reach, newest first.
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

async fn find(tx: &mut Tx, deployment_id: DeploymentId, steering_id: SteeringId) -> Result<Asked, Error> {
    let missing = || Refusal::not_found("steering request", &steering_id.to_string());
    let asked = requests::find(tx, deployment_id, steering_id).await?.ok_or_else(missing)?;
    // What belongs to a deleted thread is gone with it.
    threads::find(tx, deployment_id, asked.request.thread_id).await?.ok_or_else(missing)?;
    Ok(asked)
}

/// Answers a request. The same answer a second time changes nothing.
///
/// # Errors
/// `validation_error`: no such answer can be given to what was asked. `conflict`: another answer was first, or it is
/// too late.
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
            let asked = find(tx, deployment_id, steering_id).await?;
            check(&asked.request, &answer)?;
            // Locked in the order in which who has the run in hand does it.
            queue::hasten(tx, deployment_id, &asked.request.run_id.to_string()).await?;
            threads::find_and_lock(tx, deployment_id, asked.request.thread_id).await?;
            let asked = find(tx, deployment_id, steering_id).await?;
            if let Some(outcome) = asked.request.outcome {
                return match &asked.request.answer {
                    Some(first) if *first == answer => Ok(asked.request),
                    _ => Err(too_late(outcome).into()),
                };
            }
            if asked.has_expired(tx.database_now().await?) {
                return Err(too_late(SteeringOutcome::Expired).into());
            }
            accept(tx, &asked, answer, &caller, &ids).await?;
            Ok(find(tx, deployment_id, steering_id).await?.request)
        })
    })
    .await
}

fn too_late(outcome: SteeringOutcome) -> Refusal {
    let message = format!("The request is resolved already: {}. The first answer stands.", outcome.as_str());
    Refusal::new(ErrorCode::Conflict, message)
}

/// # Errors
/// `validation_error`, naming each field that does not fit what was asked.
fn check(request: &SteeringRequest, answer: &SteeringAnswer) -> Result<(), Refusal> {
    let mut faults = Vec::new();
    let is_approval = answer.decision == SteeringDecision::Approve;
    let has_message = answer.message.as_ref().is_some_and(|message| !message.trim().is_empty());
    match (request.kind, answer.decision) {
        (SteeringKind::Approval, SteeringDecision::Answer) => {
            faults.push(Fault::new("decision", "must be approve or deny: an approval was asked for"));
        }
        (SteeringKind::Question, SteeringDecision::Approve) => {
            faults.push(Fault::new("decision", "must be answer or deny: a question was asked"));
        }
        (SteeringKind::Question, SteeringDecision::Answer) if !has_message => {
            faults.push(Fault::new("message", "is required: it is the answer"));
        }
        _ => {}
    }
    if answer.remember != Remember::Once && !is_approval {
        faults.push(Fault::new("remember", "only an approval is remembered"));
    }
    if let Some(arguments) = &answer.arguments {
        if !is_approval {
            faults.push(Fault::new("arguments", "are only for a call that is approved"));
        } else if let Err(message) = harness::check_arguments(&request.tool, arguments) {
            faults.push(Fault::new("arguments", message));
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(Refusal::invalid(faults)) }
}

/// Resolves a request as a person says; its thread is locked, and it waits.
async fn accept(
    tx: &mut Tx,
    asked: &Asked,
    answer: SteeringAnswer,
    caller: &Caller,
    ids: &IdSource,
) -> Result<(), Error> {
    let request = &asked.request;
    let by = caller.key().key_id.to_string();
    let made_with = answer.arguments.clone().or_else(|| request.arguments.clone()).unwrap_or_default();
    let changed =
        answer.arguments.as_ref().map(|arguments| fingerprint(&request.tool, &arguments.to_string()));
    if answer.decision == SteeringDecision::Approve && answer.remember == Remember::Always {
        let asked_for = requests::fingerprint(tx, request.steering_id).await?;
        let approval = Approval {
            approval_id: ids.next(),
            tool: request.tool.clone(),
            arguments: made_with,
            steering_id: request.steering_id,
            by: by.clone(),
            created_at: tx.now(),
        };
        let of_call = changed.clone().or(asked_for).unwrap_or_default();
        approvals::insert(tx, request.deployment_id, &approval, &of_call).await?;
    }
    let outcome = answer.decision.outcome();
    let resolution = Resolution { outcome, by, answer: Some(answer), fingerprint: changed };
    resolve(tx, asked, &resolution).await?;
    resume(tx, request.deployment_id, request.run_id).await
}

/// Writes how a request ended, and says so; its thread is locked.
async fn resolve(tx: &mut Tx, asked: &Asked, resolution: &Resolution) -> Result<(), herm_store::Error> {
    let SteeringRequest { run_id, thread_id, steering_id, deployment_id, .. } = asked.request;
    if requests::resolve(tx, steering_id, resolution).await? {
        let (outcome, by) = (resolution.outcome, resolution.by.clone());
        tx.emit(deployment_id, Event::SteeringResolved { run_id, thread_id, steering_id, outcome, by });
    }
    Ok(())
}

/// A run that waited goes on; its work item was hastened.
async fn resume(tx: &mut Tx, deployment_id: DeploymentId, run_id: RunId) -> Result<(), Error> {
    if let Some(thread_id) = runs::start(tx, run_id).await? {
        let status = RunStatus::Running;
        tx.emit(deployment_id, Event::RunStatus { run_id, thread_id, status, error: None, usage: None });
    }
    Ok(())
}

/// Takes a message as the answer to the oldest request that waits on its thread, which is locked. `None`: there is
/// none, or not for this caller, and the message is ordinary input.
pub(crate) async fn answer_by_message(
    tx: &mut Tx,
    thread_id: ThreadId,
    text: &str,
    caller: &Caller,
    ids: &IdSource,
) -> Result<Option<(SteeringId, i64)>, Error> {
    let now = tx.database_now().await?;
    let pending = requests::pending_of_thread(tx, thread_id).await?;
    let Some(oldest) = pending.into_iter().find(|asked| !asked.has_expired(now)) else { return Ok(None) };
    // Who may only talk answers questions; an approval takes the power to approve.
    if oldest.request.kind == SteeringKind::Approval && caller.require(Scope::SteeringAnswer).is_err() {
        return Ok(None);
    }
    let answer = harness::read_answer(oldest.request.kind, text);
    accept(tx, &oldest, answer, caller, ids).await?;
    Ok(Some((oldest.request.steering_id, oldest.position.step_no)))
}

/// The run of a thread that asks somebody, if one does.
pub(crate) async fn asking_run(tx: &mut Tx, thread_id: ThreadId) -> Result<Option<RunId>, Error> {
    let pending = requests::pending_of_thread(tx, thread_id).await?;
    Ok(pending.first().map(|asked| asked.request.run_id))
}

/// Resolves what waited too long on a thread, which is locked; gives what still waits.
pub async fn expire(tx: &mut Tx, thread_id: ThreadId) -> Result<Vec<Asked>, herm_store::Error> {
    let now = tx.database_now().await?;
    let (late, waiting): (Vec<_>, Vec<_>) = requests::pending_of_thread(tx, thread_id)
        .await?
        .into_iter()
        .partition(|asked| asked.has_expired(now));
    end_all(tx, &late, SteeringOutcome::Expired, BY_EXPIRY).await?;
    Ok(waiting)
}

/// Resolves what still waits on a thread, which is locked, as its run ends.
pub async fn cancel_all(tx: &mut Tx, thread_id: ThreadId) -> Result<(), herm_store::Error> {
    let waiting = requests::pending_of_thread(tx, thread_id).await?;
    end_all(tx, &waiting, SteeringOutcome::Cancelled, BY_CANCEL).await
}

async fn end_all(
    tx: &mut Tx,
    asked: &[Asked],
    outcome: SteeringOutcome,
    by: &str,
) -> Result<(), herm_store::Error> {
    for asked in asked {
        let resolution = Resolution { outcome, by: by.to_owned(), answer: None, fingerprint: None };
        resolve(tx, asked, &resolution).await?;
    }
    Ok(())
}

/// What is the same for calls that do the same.
pub fn fingerprint(tool: &str, arguments: &str) -> String {
    let hash = sha256([harness::call_key(tool, arguments).as_bytes()]);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a call of a run need not be asked about, as a person approved the same before.
pub async fn is_approved(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    fingerprint: &str,
) -> Result<bool, herm_store::Error> {
    Ok(approvals::is_granted(tx, deployment_id, fingerprint).await?
        || requests::is_approved_for_run(tx, run_id, fingerprint).await?)
}

/// A page of the approvals that stand, newest first.
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

/// Withdraws one approval, or all of a deployment; gives how many. From then on such calls are asked about again.
///
/// # Errors
/// `not_found`: the deployment has no such approval.
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
                Err(Error::from(Refusal::not_found("approval", &approval_id.to_string())))
            })
        })
        .await
}
