//! Creates steering requests, and makes runs wait for people to answer them.

use std::collections::BTreeSet;

use herm_agent::OpenCall;
use herm_agent::steering::Settlement;
use herm_agent::tools::{RequestContent, Verdict};
use herm_app::steering as app;
use herm_store::journal::Position;
use herm_store::queue;
use herm_store::runs::{self, Transition};
use herm_store::steering::{self, StoredRequest};
use herm_store::{Error, Tx, failpoint, threads};
use herm_types::SteeringId;
use herm_types::deployment::Deployment;
use herm_types::event::Event;
use herm_types::model::{ToolCall, ToolOutcome};
use herm_types::run::Run;
use herm_types::steering::{SteeringKind, SteeringRequest, SteeringStatus};

use super::step::{Progress, Step};
use super::writes;

const SECOND_MS: i64 = 1000;

/// A tool call that is not in the journal yet.
struct NewCall {
    call_no: i64,
    call: ToolCall,
    handling: Handling,
}

/// The handling of a tool call that is not in the journal yet.
enum Handling {
    Execute,
    /// The call is not executed, and this is its result.
    Answer(ToolOutcome),
    /// A person is asked by this steering request, unless an approval for an equivalent call is stored.
    Ask(SteeringId, RequestContent),
}

/// Records the calls of a step that are not in the journal yet, in one transaction: a steering request for each call
/// that a person must be asked about, an intent for each call that may be executed, and an intent with a result for each
/// call that is answered without being executed. A call whose intent has no result was therefore allowed. Returns the
/// numbers of the calls that may be executed now.
pub(super) async fn begin(step: Step<'_>, calls: &[OpenCall]) -> Result<BTreeSet<i64>, Error> {
    let ask = |content: &RequestContent| Handling::Ask(step.context.ids.next(), content.clone());
    let handling = |verdict: &Verdict| match verdict {
        Verdict::Execute(_) => Handling::Execute,
        Verdict::Answer(outcome) => Handling::Answer(outcome.clone()),
        Verdict::NeedsApproval(needed) => ask(needed.content()),
        Verdict::Question(content) => ask(content),
    };
    let new: Vec<NewCall> = calls
        .iter()
        .filter(|open| !open.was_begun)
        .map(|open| NewCall {
            call_no: open.call_no,
            call: open.call.clone(),
            handling: handling(&open.verdict),
        })
        .collect();
    if new.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (run, deployment, first) =
        (step.run().clone(), step.loaded.deployment.clone(), step.model_position());
    step.lease
        .transaction("begin_tools", move |tx, _| {
            Box::pin(async move {
                let (mut begun, mut answered, mut allowed) = (Vec::new(), Vec::new(), BTreeSet::new());
                for NewCall { call_no, call, handling } in new {
                    let position = Position { call_no, ..first };
                    match handling {
                        Handling::Ask(steering_id, ask)
                            if !is_approved(tx, &run, &call, ask.kind).await? =>
                        {
                            let request = steering_request(&run, steering_id, call, ask);
                            insert_request(tx, &deployment, StoredRequest { position, request }).await?;
                            continue;
                        }
                        Handling::Answer(outcome) => answered.push((position, call.clone(), outcome)),
                        Handling::Execute | Handling::Ask(..) => drop(allowed.insert(call_no)),
                    }
                    begun.push((position, call));
                }
                writes::begin_tools(tx, &run, begun).await?;
                for (position, call, outcome) in answered {
                    writes::record_outcome(tx, &run, position, call, outcome, 0).await?;
                }
                Ok(allowed)
            })
        })
        .await
}

async fn is_approved(tx: &mut Tx, run: &Run, call: &ToolCall, kind: SteeringKind) -> Result<bool, Error> {
    if kind == SteeringKind::Question {
        return Ok(false);
    }
    let fingerprint = app::fingerprint(&call.tool, &call.arguments);
    app::is_approved(tx, run.deployment_id, run.run_id, &fingerprint).await
}

fn steering_request(
    run: &Run,
    steering_id: SteeringId,
    call: ToolCall,
    ask: RequestContent,
) -> SteeringRequest {
    SteeringRequest {
        steering_id,
        deployment_id: run.deployment_id,
        thread_id: run.thread_id,
        run_id: run.run_id,
        kind: ask.kind,
        status: SteeringStatus::Pending,
        summary: ask.summary,
        tool: call.tool,
        tool_call_id: call.tool_call_id,
        arguments: (ask.kind == SteeringKind::Approval)
            .then(|| serde_json::from_str(&call.arguments).unwrap_or(call.arguments.into())),
        options: ask.options,
        created_at: run.created_at,
        expires_at: None,
        outcome: None,
        by: None,
        answer: None,
        resolved_at: None,
    }
}

async fn insert_request(tx: &mut Tx, deployment: &Deployment, mut asked: StoredRequest) -> Result<(), Error> {
    // The expiry time is computed with the database's clock, because it is compared with that clock when an answer
    // arrives.
    let now = tx.database_now().await?;
    let expires_after_ms = deployment
        .settings
        .steering
        .expires_after_s
        .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(SECOND_MS));
    let request = &mut asked.request;
    request.created_at = now;
    request.expires_at = expires_after_ms.map(|after_ms| now.plus_ms(after_ms));
    let arguments = request.arguments.clone().unwrap_or_default().to_string();
    let fingerprint = app::fingerprint(&request.tool, &arguments);
    tx.emit(
        deployment.deployment_id,
        Event::SteeringRequest {
            run_id: request.run_id,
            thread_id: request.thread_id,
            steering_id: request.steering_id,
            kind: request.kind,
            summary: request.summary.clone(),
            tool: request.tool.clone(),
            tool_call_id: request.tool_call_id.clone(),
            arguments: request.arguments.clone(),
            options: request.options.clone(),
            expires_at: request.expires_at,
        },
    );
    steering::insert(tx, deployment.account_id, &asked, &fingerprint).await
}

/// Expires overdue steering requests, and puts the run back into the queue, where it waits for a person. If a request
/// was answered or has expired since the run was loaded, or if cancellation was requested, the run continues at once
/// instead.
pub(super) async fn wait_for_person(step: Step<'_>) -> Result<Progress, Error> {
    let run = step.run().clone();
    let settlements = step.loaded.state.steps.last().map(|step| step.settlements.values());
    let pending_before = settlements.into_iter().flatten().filter(|end| **end == Settlement::Pending).count();
    failpoint::reach("run", "waits");
    step.lease
        .transaction("wait_for_person", move |tx, lease| {
            Box::pin(async move {
                threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
                let pending = app::expire(tx, run.thread_id).await?;
                if pending.len() < pending_before || runs::is_cancel_requested(tx, run.run_id).await? {
                    return Ok(Progress::Continue);
                }
                runs::transition(tx, run.run_id, Transition::Wait).await?;
                let due_at = pending.iter().filter_map(|asked| asked.request.expires_at).min();
                queue::postpone_until(tx, &lease, due_at).await?;
                Ok(Progress::Released)
            })
        })
        .await
}
