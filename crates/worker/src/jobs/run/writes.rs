//! The transactions that change a run. Each checks the run's lease, so a worker that has lost the lease writes
//! nothing.

use herm_app::steering;
use herm_store::journal::{self, Position};
use herm_store::queue::{self, Lease};
use herm_store::runs::{self, Transition};
use herm_store::{Error, Tx, events, messages, threads};
use herm_types::DeploymentId;
use herm_types::event::Event;
use herm_types::model::{ModelReply, ToolCall, ToolOutcome};
use herm_types::run::{Run, RunError, StepKind, Usage};
use herm_types::thread::Role;

use super::fallback;
use super::load::ModelIntent;
use super::message_stream::MessageStream;
use super::step::{Progress, Step};

/// Records in the journal the intent to call the model for this step, and marks the pending user messages as read by
/// the step. Returns the intent.
pub(super) async fn begin_model_call(step: Step<'_>, model: &str) -> Result<ModelIntent, Error> {
    let (loaded, position) = (step.loaded, step.model_position());
    let (model, pending, open_call) = (model.to_owned(), loaded.pending.clone(), loaded.open_call());
    let model_index = loaded.model_index;
    step.lease
        .transaction("begin_model_call", move |tx, lease| {
            Box::pin(async move {
                messages::pick_up(tx, &pending, position.step_no).await?;
                let intent = match open_call {
                    Some(intent) => intent,
                    None => {
                        let after = events::head(tx, lease.deployment_id).await?.0;
                        ModelIntent { model: model_index, failures: 0, after }
                    }
                };
                let text = serde_json::to_string(&intent)?;
                journal::record_intent(tx, position, StepKind::Model, &model, &text).await?;
                Ok(intent)
            })
        })
        .await
}

/// Emits the events of one batch of streamed text.
pub(super) async fn send_output(step: Step<'_>, output: Vec<Event>) -> Result<(), Error> {
    let (run_id, thread_id) = (step.run().run_id, step.run().thread_id);
    step.lease
        .transaction("say", move |tx, lease| {
            Box::pin(async move {
                let new_messages = emit_output(tx, lease.deployment_id, output).await?;
                if new_messages > 0 {
                    threads::touch(tx, thread_id, Some(run_id), new_messages).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Records a model's reply and emits the text that was not sent yet. If `is_final`, also completes the run, unless a
/// user message has arrived in the meantime.
pub(super) async fn finish_model_call(
    step: Step<'_>,
    reply: ModelReply,
    messages: &mut MessageStream,
    is_final: bool,
) -> Result<Progress, Error> {
    messages.finish();
    let output = messages.take_unsent();
    let (loaded, run, position) = (step.loaded, step.run().clone(), step.model_position());
    let mut usage = loaded.usage.clone();
    usage.add_model_call(fallback::model_at(&loaded.deployment, loaded.model_index), reply.usage);
    let result = serde_json::to_string(&reply)?;
    step.lease
        .transaction("finish_model_call", move |tx, lease| {
            Box::pin(async move {
                journal::record_result(tx, position, &result).await?;
                let new_messages = emit_output(tx, run.deployment_id, output).await?;
                if is_final && end_unless_pending(tx, &lease, &run, new_messages, &usage).await? {
                    return Ok(Progress::Released);
                }
                threads::touch(tx, run.thread_id, Some(run.run_id), new_messages).await?;
                Ok(Progress::Continue)
            })
        })
        .await
}

/// Emits events. For each `message` event, also inserts the message into its thread. Returns the number of inserted
/// messages.
pub(super) async fn emit_output(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    output: Vec<Event>,
) -> Result<i64, Error> {
    let mut new_messages = 0;
    for event in output {
        if let Event::Message {
            run_id, thread_id, message_id, role: Role::Agent, content, truncated, ..
        } = &event
        {
            let message = messages::NewMessage {
                message_id: *message_id,
                thread_id: *thread_id,
                run_id: *run_id,
                role: Role::Agent,
                content: content.clone(),
                attachments: Vec::new(),
                truncated: *truncated,
                answers: None,
            };
            messages::insert(tx, &message).await?;
            new_messages += 1;
        }
        tx.emit(deployment_id, event);
    }
    Ok(new_messages)
}

/// Completes a run whose final reply is already recorded, unless a user message is pending.
pub(super) async fn finish(step: Step<'_>) -> Result<Progress, Error> {
    let (run, usage) = (step.run().clone(), step.loaded.usage.clone());
    step.lease
        .transaction("finish_run", move |tx, lease| {
            Box::pin(async move {
                let has_ended = end_unless_pending(tx, &lease, &run, 0, &usage).await?;
                Ok(if has_ended { Progress::Released } else { Progress::Continue })
            })
        })
        .await
}

/// Completes the run, unless a user message is pending. Returns true if the run was completed. Locks the thread; a
/// request that sends a message takes the same lock. A message sent earlier is therefore seen as pending, and the run
/// continues with it. A message sent after the run was completed starts a new run.
async fn end_unless_pending(
    tx: &mut Tx,
    lease: &Lease,
    run: &Run,
    new_messages: i64,
    usage: &Usage,
) -> Result<bool, Error> {
    threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
    if messages::count_pending(tx, run.run_id).await? > 0 {
        return Ok(false);
    }
    end(tx, lease, run, Transition::Complete(usage.clone()), new_messages).await?;
    Ok(true)
}

/// Ends a run with the status that `transition` sets, or as cancelled if cancellation was requested. The caller must
/// hold the thread's lock, which a request for cancellation takes too. A cancellation requested earlier is therefore
/// seen here. A later request is rejected, because the run has ended.
pub(super) async fn end(
    tx: &mut Tx,
    lease: &Lease,
    run: &Run,
    transition: Transition,
    new_messages: i64,
) -> Result<(), Error> {
    let is_cancelled = runs::is_cancel_requested(tx, run.run_id).await?;
    let transition = match transition {
        Transition::Complete(usage) | Transition::Fail(_, usage) if is_cancelled => {
            Transition::Cancel(Some(usage))
        }
        other => other,
    };
    // A run that completes has read every answer that a person gave. A run that fails or is cancelled may have left
    // answers unread. These become pending messages, which the thread's next run reads.
    if !matches!(transition, Transition::Complete(_)) {
        messages::release_unread_answers(tx, run.run_id).await?;
    }
    threads::touch(tx, run.thread_id, None, new_messages).await?;
    queue::complete(tx, lease).await?;
    if runs::transition(tx, run.run_id, transition).await? {
        return Ok(());
    }
    Err(Error::Corrupt(format!("run {} has ended although a worker holds its lease", run.run_id)))
}

/// Ends a run with the status `error`, after emitting the events that were not sent yet. Cancels the thread's open
/// steering requests.
pub(super) async fn fail(step: Step<'_>, error: RunError, output: Vec<Event>) -> Result<(), Error> {
    let (run, usage) = (step.run().clone(), step.loaded.usage.clone());
    step.lease
        .transaction("fail_run", move |tx, lease| {
            Box::pin(async move {
                threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
                let new_messages = emit_output(tx, run.deployment_id, output).await?;
                steering::cancel_all(tx, run.thread_id).await?;
                end(tx, &lease, &run, Transition::Fail(error, usage), new_messages).await
            })
        })
        .await
}

/// Puts a run back into the queue after a failed model call. The next attempt is due after `delay_ms` and calls the
/// model that `intent` names, which may be a fallback model.
pub(super) async fn postpone_model_call(
    step: Step<'_>,
    intent: ModelIntent,
    delay_ms: i64,
) -> Result<(), Error> {
    let model = fallback::model_at(&step.loaded.deployment, intent.model).to_owned();
    let position = step.model_position();
    step.lease
        .transaction("wait_to_call_again", move |tx, lease| {
            Box::pin(async move {
                let text = serde_json::to_string(&intent)?;
                journal::record_intent(tx, position, StepKind::Model, &model, &text).await?;
                // If cancellation was requested in the meantime, the run is due at once, so that it is cancelled
                // without waiting for the next attempt.
                let is_cancelled = runs::is_cancel_requested(tx, position.run_id).await?;
                queue::postpone(tx, &lease, if is_cancelled { 0 } else { delay_ms }).await
            })
        })
        .await
}

/// Records in the journal that these tool calls are about to be made, each at its position, and emits a `tool_call`
/// event for each call. The arguments of a call are the model's own, unless a person has edited them.
pub(super) async fn begin_tools(
    tx: &mut Tx,
    run: &Run,
    calls: Vec<(Position, ToolCall)>,
) -> Result<(), Error> {
    for (position, call) in calls {
        let intent = serde_json::to_string(&call.arguments)?;
        journal::record_intent(tx, position, StepKind::Tool, &call.tool, &intent).await?;
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.into());
        let ToolCall { tool_call_id, tool, .. } = call;
        let (run_id, thread_id) = (run.run_id, run.thread_id);
        tx.emit(run.deployment_id, Event::ToolCall { run_id, thread_id, tool_call_id, tool, arguments });
    }
    Ok(())
}

/// Records the result of a tool call and emits a `tool_result` event.
pub(super) async fn finish_tool(
    step: Step<'_>,
    position: Position,
    call: ToolCall,
    outcome: ToolOutcome,
    duration_ms: i64,
) -> Result<(), Error> {
    let run = step.run().clone();
    let result = serde_json::to_string(&outcome)?;
    let event = result_event(&run, call, outcome, duration_ms);
    step.lease
        .transaction("finish_tool", move |tx, _| {
            Box::pin(async move {
                journal::record_result(tx, position, &result).await?;
                tx.emit(run.deployment_id, event);
                Ok(())
            })
        })
        .await
}

/// Records the result of a tool call and emits a `tool_result` event.
pub(super) async fn record_outcome(
    tx: &mut Tx,
    run: &Run,
    position: Position,
    call: ToolCall,
    outcome: ToolOutcome,
    duration_ms: i64,
) -> Result<(), Error> {
    journal::record_result(tx, position, &serde_json::to_string(&outcome)?).await?;
    tx.emit(run.deployment_id, result_event(run, call, outcome, duration_ms));
    Ok(())
}

/// Returns the `tool_result` event of a tool call.
fn result_event(run: &Run, call: ToolCall, outcome: ToolOutcome, duration_ms: i64) -> Event {
    Event::ToolResult {
        run_id: run.run_id,
        thread_id: run.thread_id,
        tool_call_id: call.tool_call_id,
        tool: call.tool,
        result: outcome.text,
        is_error: outcome.is_error,
        duration_ms,
    }
}
