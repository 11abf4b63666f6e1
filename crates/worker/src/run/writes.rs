//! The transactions that change a run. Each checks the run's lease, so a worker that has lost the lease writes
//! nothing.

use herm_app::steering;
use herm_store::journal::{self, Position};
use herm_store::queue::{self, Lease};
use herm_store::{Error, Tx, events, messages, runs, threads};
use herm_types::DeploymentId;
use herm_types::event::Event;
use herm_types::model::ModelReply;
use herm_types::run::{Run, RunError, RunStatus, StepKind, Usage};
use herm_types::thread::Role;

use super::Progress;
use super::fallback;
use super::load::{LoadedRun, ModelIntent};
use super::message_stream::MessageStream;
use crate::worker::Context;

pub(super) fn position(run: &Run, step_no: i64, call_no: i64) -> Position {
    Position { run_id: run.run_id, step_no, call_no }
}

/// Records the intent of the model call of step `step_no`, and marks the pending user messages as read by this step.
/// Returns the intent.
pub(super) async fn begin_model_call(
    context: &Context,
    lease: &Lease,
    loaded: &LoadedRun,
    step_no: i64,
    model: &str,
) -> Result<ModelIntent, Error> {
    let (held, model, pending, open_call) =
        (lease.clone(), model.to_owned(), loaded.pending.clone(), loaded.open_call);
    let (model_index, position) = (loaded.model_index, position(&loaded.run, step_no, 0));
    context
        .store
        .transaction("begin_model_call", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                messages::pick_up(tx, &pending, step_no).await?;
                let intent = match open_call {
                    Some(intent) => intent,
                    None => {
                        let after = events::head(tx, held.deployment_id).await?.0;
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
pub(super) async fn send_output(
    context: &Context,
    lease: &Lease,
    run: &Run,
    output: Vec<Event>,
) -> Result<(), Error> {
    let (held, run_id, thread_id) = (lease.clone(), run.run_id, run.thread_id);
    context
        .store
        .transaction("say", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let new_messages = emit_output(tx, held.deployment_id, output).await?;
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
    context: &Context,
    lease: &Lease,
    loaded: &LoadedRun,
    step_no: i64,
    reply: ModelReply,
    messages: &mut MessageStream,
    is_final: bool,
) -> Result<Progress, Error> {
    messages.finish();
    let output = messages.take_unsent();
    let (held, run) = (lease.clone(), loaded.run.clone());
    let mut usage = loaded.usage.clone();
    usage.add_model_call(fallback::model_at(&loaded.deployment, loaded.model_index), reply.usage);
    let result = serde_json::to_string(&reply)?;
    context
        .store
        .transaction("finish_model_call", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                journal::record_result(tx, position(&run, step_no, 0), &result).await?;
                let new_messages = emit_output(tx, run.deployment_id, output).await?;
                if is_final && end_unless_pending(tx, &held, &run, new_messages, &usage).await? {
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
pub(super) async fn finish(context: &Context, lease: &Lease, loaded: &LoadedRun) -> Result<Progress, Error> {
    let (held, run, usage) = (lease.clone(), loaded.run.clone(), loaded.usage.clone());
    context
        .store
        .transaction("finish_run", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let has_ended = end_unless_pending(tx, &held, &run, 0, &usage).await?;
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
    end(tx, lease, run, RunStatus::Completed, None, new_messages, usage).await?;
    Ok(true)
}

/// Ends a run with `status`, or as cancelled if cancellation was requested. The caller must hold the thread's lock,
/// which a request for cancellation takes too. A cancellation requested earlier is therefore seen here. A later request
/// is rejected, because the run has ended.
pub(super) async fn end(
    tx: &mut Tx,
    lease: &Lease,
    run: &Run,
    status: RunStatus,
    error: Option<RunError>,
    new_messages: i64,
    usage: &Usage,
) -> Result<(), Error> {
    let is_cancelled = runs::is_cancel_requested(tx, run.run_id).await?;
    let (status, error) = if is_cancelled { (RunStatus::Cancelled, None) } else { (status, error) };
    runs::end(tx, run.run_id, status, error.as_ref(), usage).await?;
    // A run that completes has read every answer that a person gave. Otherwise some answers may be unread: they become
    // pending messages, which the thread's next run reads.
    if status != RunStatus::Completed {
        messages::release_unread_answers(tx, run.run_id).await?;
    }
    threads::touch(tx, run.thread_id, None, new_messages).await?;
    queue::complete(tx, lease).await?;
    let (run_id, thread_id) = (run.run_id, run.thread_id);
    tx.emit(
        run.deployment_id,
        Event::RunStatus { run_id, thread_id, status, error, usage: Some(usage.clone()) },
    );
    Ok(())
}

/// Ends a run with the status `error`, after emitting the events that were not sent yet. Cancels the thread's open
/// steering requests.
pub(super) async fn fail(
    context: &Context,
    lease: &Lease,
    loaded: &LoadedRun,
    error: RunError,
    output: Vec<Event>,
) -> Result<(), Error> {
    let (held, run, usage) = (lease.clone(), loaded.run.clone(), loaded.usage.clone());
    context
        .store
        .transaction("fail_run", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
                let new_messages = emit_output(tx, run.deployment_id, output).await?;
                steering::cancel_all(tx, run.thread_id).await?;
                end(tx, &held, &run, RunStatus::Error, Some(error), new_messages, &usage).await
            })
        })
        .await
}

/// Puts a run back into the queue after a failed model call. The next attempt is due after `delay_ms` and calls the
/// model that `intent` names, which may be a fallback model.
pub(super) async fn postpone_model_call(
    context: &Context,
    lease: &Lease,
    loaded: &LoadedRun,
    step_no: i64,
    intent: ModelIntent,
    delay_ms: i64,
) -> Result<(), Error> {
    let (held, model) = (lease.clone(), fallback::model_at(&loaded.deployment, intent.model).to_owned());
    let position = position(&loaded.run, step_no, 0);
    context
        .store
        .transaction("wait_to_call_again", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let text = serde_json::to_string(&intent)?;
                journal::record_intent(tx, position, StepKind::Model, &model, &text).await?;
                // If cancellation was requested in the meantime, the run is due at once, so that it is cancelled
                // without waiting for the next attempt.
                let is_cancelled = runs::is_cancel_requested(tx, position.run_id).await?;
                queue::postpone(tx, &held, if is_cancelled { 0 } else { delay_ms }).await
            })
        })
        .await
}

/// The intent of a tool call, which is recorded before the call is executed.
#[derive(Clone, Debug)]
pub(super) struct ToolIntent {
    pub(super) call_no: i64,
    pub(super) tool: String,
    /// The arguments as a JSON string. They are the model's own arguments, unless a person has edited them.
    pub(super) arguments: String,
    pub(super) event: Event,
}

/// Records the intents of tool calls and emits a `tool_call` event for each of them.
pub(super) async fn begin_tools(
    tx: &mut Tx,
    run: &Run,
    step_no: i64,
    intents: Vec<ToolIntent>,
) -> Result<(), Error> {
    for intent in intents {
        let position = position(run, step_no, intent.call_no);
        let text = serde_json::to_string(&intent.arguments)?;
        journal::record_intent(tx, position, StepKind::Tool, &intent.tool, &text).await?;
        tx.emit(run.deployment_id, intent.event);
    }
    Ok(())
}

/// Records the result of a tool call and emits `event`.
pub(super) async fn finish_tool(
    context: &Context,
    lease: &Lease,
    run: &Run,
    (step_no, call_no): (i64, i64),
    result: String,
    event: Event,
) -> Result<(), Error> {
    let (held, run) = (lease.clone(), run.clone());
    context
        .store
        .transaction("finish_tool", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                journal::record_result(tx, position(&run, step_no, call_no), &result).await?;
                tx.emit(run.deployment_id, event);
                Ok(())
            })
        })
        .await
}
