//! The named transactions of a run. Each holds the run's lease: a worker that lost it writes nothing.

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
use super::load::{Loaded, ModelIntent};
use super::voice::Voice;
use crate::worker::Context;

pub(super) fn position(run: &Run, step_no: i64, call_no: i64) -> Position {
    Position { run_id: run.run_id, step_no, call_no }
}

/// Writes that a model call is under way, and which messages it reads.
pub(super) async fn begin_model_call(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    step_no: i64,
    model: &str,
) -> Result<ModelIntent, Error> {
    let (held, model, pending, earlier) =
        (lease.clone(), model.to_owned(), loaded.pending.clone(), loaded.open_call);
    let (place, position) = (loaded.model, position(&loaded.run, step_no, 0));
    context
        .store
        .transaction("begin_model_call", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                messages::pick_up(tx, &pending, step_no).await?;
                let intent = match earlier {
                    Some(intent) => intent,
                    None => {
                        let after = events::head(tx, held.deployment_id).await?.0;
                        ModelIntent { model: place, failures: 0, after }
                    }
                };
                let text = serde_json::to_string(&intent)?;
                journal::record_intent(tx, position, StepKind::Model, &model, &text).await?;
                Ok(intent)
            })
        })
        .await
}

/// Sends what a model says while it says it.
pub(super) async fn say(context: &Context, lease: &Lease, run: &Run, said: Vec<Event>) -> Result<(), Error> {
    let (held, run_id, thread_id) = (lease.clone(), run.run_id, run.thread_id);
    context
        .store
        .transaction("say", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let closed = utter(tx, held.deployment_id, said).await?;
                if closed > 0 {
                    threads::touch(tx, thread_id, Some(run_id), closed).await?;
                }
                Ok(())
            })
        })
        .await
}

/// Records a model's reply with what was left to say of it. With `last_word` it also ends the run, unless a
/// message came in meanwhile.
pub(super) async fn finish_model_call(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    step_no: i64,
    reply: ModelReply,
    voice: &mut Voice,
    last_word: bool,
) -> Result<Progress, Error> {
    voice.finish();
    let said = voice.take_unsent();
    let (held, run) = (lease.clone(), loaded.run.clone());
    let mut usage = loaded.usage.clone();
    usage.add_model_call(fallback::model(&loaded.deployment, loaded.model), reply.usage);
    let result = serde_json::to_string(&reply)?;
    context
        .store
        .transaction("finish_model_call", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                journal::record_result(tx, position(&run, step_no, 0), &result).await?;
                let spoken = utter(tx, run.deployment_id, said).await?;
                if last_word && end_unless_pending(tx, &held, &run, spoken, &usage).await? {
                    return Ok(Progress::LetGo);
                }
                threads::touch(tx, run.thread_id, Some(run.run_id), spoken).await?;
                Ok(Progress::GoesOn)
            })
        })
        .await
}

/// Shows what was said, and adds the messages that it closes to the thread; gives their number.
pub(super) async fn utter(tx: &mut Tx, deployment_id: DeploymentId, said: Vec<Event>) -> Result<i64, Error> {
    let mut closed = 0;
    for event in said {
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
            closed += 1;
        }
        tx.emit(deployment_id, event);
    }
    Ok(closed)
}

/// Ends a run whose reply is recorded already.
pub(super) async fn finish(context: &Context, lease: &Lease, loaded: &Loaded) -> Result<Progress, Error> {
    let (held, run, usage) = (lease.clone(), loaded.run.clone(), loaded.usage.clone());
    context
        .store
        .transaction("finish_run", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let ended = end_unless_pending(tx, &held, &run, 0, &usage).await?;
                Ok(if ended { Progress::LetGo } else { Progress::GoesOn })
            })
        })
        .await
}

/// Completes the run, unless a message has come for it: whoever sends one locks the thread too, so it comes
/// either before this, and the run goes on, or after, and makes a new run.
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

/// Ends a run, whose thread is locked: who asks for it to be cancelled does so before this, and then that is how it
/// ends, or after, and is told that it has ended.
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
    // One that completes has read all answers.
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

/// Ends a run that cannot go on; `said` is what there is left to say.
pub(super) async fn fail(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    error: RunError,
    said: Vec<Event>,
) -> Result<(), Error> {
    let (held, run, usage) = (lease.clone(), loaded.run.clone(), loaded.usage.clone());
    context
        .store
        .transaction("fail_run", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                threads::find_and_lock(tx, run.deployment_id, run.thread_id).await?;
                let spoken = utter(tx, run.deployment_id, said).await?;
                steering::cancel_all(tx, run.thread_id).await?;
                end(tx, &held, &run, RunStatus::Error, Some(error), spoken, &usage).await
            })
        })
        .await
}

/// Lets go of a run whose model call failed, until it is time to make it again, be it of another model. Meanwhile it is
/// a row.
pub(super) async fn wait_to_call_again(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    step_no: i64,
    intent: ModelIntent,
    delay_ms: i64,
) -> Result<(), Error> {
    let (held, model) = (lease.clone(), fallback::model(&loaded.deployment, intent.model).to_owned());
    let position = position(&loaded.run, step_no, 0);
    context
        .store
        .transaction("wait_to_call_again", move |tx| {
            Box::pin(async move {
                queue::hold(tx, &held).await?;
                let text = serde_json::to_string(&intent)?;
                journal::record_intent(tx, position, StepKind::Model, &model, &text).await?;
                // Who asked for it to be cancelled while it was in hand does not wait for the next attempt.
                let is_cancelled = runs::is_cancel_requested(tx, position.run_id).await?;
                queue::postpone(tx, &held, if is_cancelled { 0 } else { delay_ms }).await
            })
        })
        .await
}

/// A tool call that is about to be made.
#[derive(Clone, Debug)]
pub(super) struct ToolIntent {
    pub(super) call_no: i64,
    pub(super) tool: String,
    /// The arguments as the model wrote them.
    pub(super) arguments: String,
    pub(super) event: Event,
}

/// Writes that these tool calls are about to be made, and shows them.
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

/// Records what a tool call gave, and shows it.
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
