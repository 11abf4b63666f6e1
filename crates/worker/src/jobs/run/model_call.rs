//! Executes the model call of a step: records in the journal that the call was started, streams the text to clients,
//! and records the reply.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use herm_agent::{is_final_reply, system_prompt};
use herm_store::{Error, events, failpoint};
use herm_types::id::EventId;
use herm_types::model::{ModelError, ModelErrorKind, ModelEvent, ModelName, ModelReply, ModelRequest, Turn};
use tokio::time::Instant;

use super::fallback::{self, NextAction};
use super::load::ModelIntent;
use super::message_stream::MessageStream;
use super::step::{Progress, Step};
use super::writes;

/// The maximum number of output tokens per model call. The provider cuts off a longer reply.
const MAX_OUTPUT_TOKENS: u32 = 16_384;
/// The minimum interval between two batches of streamed text. The first batch is sent at once.
const BATCH_INTERVAL: Duration = Duration::from_millis(40);

/// Calls the model for step `step_no` and records its reply. If the reply is the last one of the run, also completes
/// the run.
pub(super) async fn execute(step: Step<'_>, turns: Vec<Turn>) -> Result<Progress, Error> {
    let Step { context, loaded, .. } = step;
    let deployment = &loaded.deployment;
    let model = fallback::model_at(deployment, loaded.model_index);
    let Some(name) = ModelName::parse(model) else {
        return Err(Error::Corrupt(format!(
            "deployment {} has the invalid model name {model:?}",
            deployment.deployment_id
        )));
    };
    let has_sandbox = deployment.settings.sandbox.enabled;
    let request = ModelRequest {
        model: name.model.clone(),
        system: system_prompt(&deployment.system_prompt, has_sandbox),
        tools: loaded.state.tools.schemas(),
        turns,
        max_output_tokens: MAX_OUTPUT_TOKENS,
    };
    let mut messages = resume_message_stream(step).await?;
    // A model call can be repeated safely, so the request is sent to the model while its intent is still being
    // recorded.
    let begin = writes::begin_model_call(step, model);
    failpoint::reach("effect.before", "model");
    let (intent, reply) = tokio::join!(begin, context.models.call(&name, &request));
    let intent = intent?;
    let outcome = match reply {
        Ok(stream) => consume_stream(step, stream, &mut messages).await?,
        Err(model_error) => Err(model_error),
    };
    failpoint::reach("effect.after", "model");
    match outcome {
        Ok(reply) => {
            let is_final = is_final_reply(&reply);
            writes::finish_model_call(step, reply, &mut messages, is_final).await
        }
        Err(model_error) => {
            handle_failure(step, intent, model_error, messages).await?;
            Ok(Progress::Released)
        }
    }
}

/// Creates the message stream of the step. Text that an earlier attempt sent, before a crash or a broken model
/// stream, is not sent again.
async fn resume_message_stream(step: Step<'_>) -> Result<MessageStream, Error> {
    let Step { context, loaded, .. } = step;
    let (run_id, deployment_id) = (loaded.run.run_id, loaded.run.deployment_id);
    let sent_events = match loaded.open_call() {
        None => Vec::new(),
        Some(ModelIntent { after, .. }) => {
            context
                .store
                .read("load_sent_text", move |tx| {
                    Box::pin(events::text_after(tx, deployment_id, run_id, EventId(after)))
                })
                .await?
        }
    };
    Ok(MessageStream::new(run_id, loaded.run.thread_id, context.ids.clone(), &sent_events))
}

/// Reads the model's stream to completion and emits the text as events: the first piece at once, the rest in batches.
/// Returns the reply, or the model error that broke off the stream.
async fn consume_stream(
    step: Step<'_>,
    mut stream: crate::models::Reply,
    messages: &mut MessageStream,
) -> Result<Result<ModelReply, ModelError>, Error> {
    let mut sending: Option<BoxFuture<'_, Result<(), Error>>> = None;
    let mut next_batch = Instant::now();
    let outcome = loop {
        if sending.is_none() && messages.has_unsent() && Instant::now() >= next_batch {
            sending = Some(Box::pin(writes::send_output(step, messages.take_unsent())));
            next_batch = Instant::now() + BATCH_INTERVAL;
        }
        tokio::select! {
            biased;
            sent = async { Some(sending.as_mut()?.await) }, if sending.is_some() => {
                sending = None;
                if let Some(sent) = sent {
                    sent?;
                }
            }
            event = stream.next() => match event {
                Some(Ok(ModelEvent::TextDelta(text))) => messages.push(&text),
                Some(Ok(ModelEvent::Finished(reply))) => break Ok(reply),
                Some(Err(model_error)) => break Err(model_error),
                None => break Err(stream_ended_early()),
            },
            () = tokio::time::sleep_until(next_batch), if sending.is_none() && messages.has_unsent() => {}
        }
    };
    if let Some(sending) = sending {
        sending.await?;
    }
    Ok(outcome)
}

fn stream_ended_early() -> ModelError {
    ModelError {
        kind: ModelErrorKind::Network,
        message: "The model's response stream ended before the reply was complete.".to_owned(),
        retry_after: None,
    }
}

/// Handles a failed model call: schedules the next attempt, or fails the run.
async fn handle_failure(
    step: Step<'_>,
    intent: ModelIntent,
    model_error: ModelError,
    mut messages: MessageStream,
) -> Result<(), Error> {
    let Step { context, loaded, step_no, .. } = step;
    let deployment = &loaded.deployment;
    let (failures, model_index) = (intent.failures + 1, intent.model);
    tracing::warn!(
        step_no,
        model = fallback::model_at(deployment, model_index),
        failures,
        kind = model_error.kind.code(),
        "a model call attempt failed"
    );
    let next_model = fallback::next_callable(deployment, model_index, |model| context.models.can_call(model));
    let (intent, delay_ms) =
        match (fallback::next_action(&model_error, failures, next_model.is_some()), next_model) {
            (NextAction::Retry { retry_after_ms, backoff_ms }, _) => {
                (ModelIntent { failures, ..intent }, retry_after_ms + context.jittered(backoff_ms))
            }
            (NextAction::NextModel, Some(model)) => (ModelIntent { model, failures: 0, ..intent }, 0),
            (NextAction::NextModel | NextAction::Fail, _) => {
                messages.abandon();
                let error = fallback::run_error(deployment, model_index, model_error);
                return writes::fail(step, error, messages.take_unsent()).await;
            }
        };
    writes::postpone_model_call(step, intent, delay_ms).await
}
