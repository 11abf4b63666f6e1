//! One model call of a run: its intent, its stream, its result.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use herm_agent::{Decision, RunState, Step, decide, system_prompt, tools};
use herm_store::queue::Lease;
use herm_store::{Error, events, fault};
use herm_types::id::EventId;
use herm_types::model::{ModelEvent, ModelFault, ModelFaultKind, ModelName, ModelReply, ModelRequest, Turn};
use herm_types::run::Run;
use tokio::time::Instant;

use super::Progress;
use super::fallback::{self, Next};
use super::load::{Loaded, ModelIntent};
use super::voice::Voice;
use super::writes;
use crate::worker::Context;

/// Tokens that a model may answer with in one call.
const MAX_OUTPUT_TOKENS: u32 = 16_384;
/// Between two batches of text. The first goes at once.
const BATCH_EVERY: Duration = Duration::from_millis(40);

/// Calls the model for step `step_no`, and records what it said. Ends the run where that was its last word.
pub(super) async fn make(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    step_no: i64,
    turns: Vec<Turn>,
) -> Result<Progress, Error> {
    let deployment = &loaded.deployment;
    let model = fallback::model(deployment, loaded.model);
    let Some(name) = ModelName::parse(model) else {
        return Err(Error::Corrupt(format!("{model} is not a model's name")));
    };
    let has_sandbox = deployment.settings.sandbox.enabled;
    let request = ModelRequest {
        model: name.model.clone(),
        system: system_prompt(&deployment.system_prompt, has_sandbox),
        tools: tools::schemas(&deployment.settings),
        turns,
        max_output_tokens: MAX_OUTPUT_TOKENS,
    };
    let mut voice = resume_voice(context, loaded).await?;
    // The call may be made again without harm, so its intent is written while it is under way.
    let begin = writes::begin_model_call(context, lease, loaded, step_no, model);
    fault::reach("effect.before", "model");
    let (intent, reply) = tokio::join!(begin, context.models.call(&name, &request));
    let intent = intent?;
    let outcome = match reply {
        Ok(stream) => listen(context, lease, &loaded.run, stream, &mut voice).await?,
        Err(fault) => Err(fault),
    };
    fault::reach("effect.after", "model");
    match outcome {
        Ok(reply) => {
            let last_word = is_last_word(step_no, &reply);
            writes::finish_model_call(context, lease, loaded, step_no, reply, &mut voice, last_word).await
        }
        Err(fault) => {
            give_up_or_wait(context, lease, loaded, step_no, intent, fault, voice).await?;
            Ok(Progress::LetGo)
        }
    }
}

/// The voice of the step, which may have spoken before the server or the model's stream broke.
async fn resume_voice(context: &Context, loaded: &Loaded) -> Result<Voice, Error> {
    let (run_id, deployment_id) = (loaded.run.run_id, loaded.run.deployment_id);
    let spoken = match loaded.open_call {
        None => Vec::new(),
        Some(ModelIntent { after, .. }) => {
            context
                .store
                .read("load_speech", move |tx| {
                    Box::pin(events::spoken_after(tx, deployment_id, run_id, EventId(after)))
                })
                .await?
        }
    };
    Ok(Voice::new(run_id, loaded.run.thread_id, context.ids.clone(), &spoken))
}

/// Hears the stream to its end, and sends its text on: the first piece at once, then in batches.
async fn listen(
    context: &Context,
    lease: &Lease,
    run: &Run,
    mut stream: crate::models::Reply,
    voice: &mut Voice,
) -> Result<Result<ModelReply, ModelFault>, Error> {
    let mut sending: Option<BoxFuture<'_, Result<(), Error>>> = None;
    let mut next_batch = Instant::now();
    let outcome = loop {
        if sending.is_none() && voice.has_unsent() && Instant::now() >= next_batch {
            sending = Some(Box::pin(writes::say(context, lease, run, voice.take_unsent())));
            next_batch = Instant::now() + BATCH_EVERY;
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
                Some(Ok(ModelEvent::TextDelta(text))) => voice.hear(&text),
                Some(Ok(ModelEvent::Finished(reply))) => break Ok(reply),
                Some(Err(fault)) => break Err(fault),
                None => break Err(broken_off()),
            },
            () = tokio::time::sleep_until(next_batch), if sending.is_none() && voice.has_unsent() => {}
        }
    };
    if let Some(sending) = sending {
        sending.await?;
    }
    Ok(outcome)
}

fn broken_off() -> ModelFault {
    ModelFault {
        kind: ModelFaultKind::Network,
        message: "The model's stream ended before the model had finished.".to_owned(),
        retry_after: None,
    }
}

/// Whether the run ends with this reply, if no message waits.
fn is_last_word(step_no: i64, reply: &ModelReply) -> bool {
    let step = Step { step_no, reply: Some(reply.clone()), ..Step::default() };
    let state = RunState { steps: vec![step], ..RunState::default() };
    decide(&state) == Decision::Finish
}

async fn give_up_or_wait(
    context: &Context,
    lease: &Lease,
    loaded: &Loaded,
    step_no: i64,
    intent: ModelIntent,
    fault: ModelFault,
    mut voice: Voice,
) -> Result<(), Error> {
    let deployment = &loaded.deployment;
    let (failures, place) = (intent.failures + 1, intent.model);
    tracing::warn!(
        deployment_id = %deployment.deployment_id,
        run_id = %loaded.run.run_id,
        model = fallback::model(deployment, place),
        failures,
        kind = fault.kind.code(),
        "a model call failed"
    );
    let other = fallback::next(deployment, place, |model| context.models.can_call(model));
    let (intent, delay_ms) = match (fallback::after(&fault, failures, other.is_some()), other) {
        (Next::Again { asked_ms, backoff_ms }, _) => {
            (ModelIntent { failures, ..intent }, asked_ms + context.jittered(backoff_ms))
        }
        (Next::Other, Some(model)) => (ModelIntent { model, failures: 0, ..intent }, 0),
        (Next::Other | Next::Fail, _) => {
            voice.abandon();
            let error = fallback::error(deployment, place, fault);
            return writes::fail(context, lease, loaded, error, voice.take_unsent()).await;
        }
    };
    writes::wait_to_call_again(context, lease, loaded, step_no, intent, delay_ms).await
}
