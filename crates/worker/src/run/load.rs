//! What the store knows of a run, as the harness reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use herm_agent::steering::{Settlement, settle};
use herm_agent::{RunState, Step, empty_replies, turns};
use herm_sandbox::{WorkspaceId, Workspaces};
use herm_store::journal;
use herm_store::messages::{self, UserMessage};
use herm_store::queue::Lease;
use herm_store::{Error, Tx, deployments, runs, steering};
use herm_types::deployment::Deployment;
use herm_types::model::{Block, ModelName, ModelReply, ToolOutcome, Turn};
use herm_types::run::{Run, StepKind, Usage};
use herm_types::{DeploymentId, MessageId, RunId};
use serde::{Deserialize, Serialize};

use super::fallback;
use crate::dispatch::subject;
use crate::keeper::Wanted;
use crate::worker::Context;

/// Earlier runs of a thread that a context holds at least; between twice as many and this many, so that its
/// beginning stays the same for long and providers' caches hit.
const EARLIER_RUNS: i64 = 100;

/// A run with all that its next step needs.
pub(super) struct Loaded {
    pub(super) deployment: Deployment,
    pub(super) run: Run,
    pub(super) state: RunState,
    /// The ids of the state's pending messages.
    pub(super) pending: Vec<MessageId>,
    /// What the run's finished steps used.
    pub(super) usage: Usage,
    /// The place among the agent's models of the one that is called next.
    pub(super) model: usize,
    /// The last step's model call, if it was begun and has no result.
    pub(super) open_call: Option<ModelIntent>,
    /// The tool calls of the last step that were begun and have no result.
    pub(super) open_tools: Vec<i64>,
    pub(super) workspace: WorkspaceId,
    pub(super) workspace_dir: PathBuf,
}

impl Loaded {
    /// What became of a call of the last step that a person was asked about.
    pub(super) fn settlement(&self, call_no: i64) -> Option<&Settlement> {
        self.state.steps.last()?.asked.get(&call_no)
    }

    /// The sandbox that the run's commands are for.
    pub(super) fn sandbox(&self) -> Wanted {
        Wanted {
            workspace: self.workspace,
            workspace_dir: self.workspace_dir.clone(),
            settings: self.deployment.settings.sandbox.clone(),
        }
    }
}

/// The intent of a model call.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct ModelIntent {
    /// The place among the agent's models of the one that is called.
    #[serde(default)]
    pub(super) model: usize,
    /// How often that one has failed so far.
    pub(super) failures: u32,
    /// The deployment's last event before it: what it said aloud comes after.
    pub(super) after: i64,
}

/// Reads a run; `None` if it is gone or has ended.
pub(super) async fn load(context: &Context, lease: &Lease) -> Result<Option<Loaded>, Error> {
    let (run_id, deployment_id) = (subject::<RunId>(lease)?, lease.deployment_id);
    let workspaces = context.workspaces.clone();
    context
        .store
        .read("load_run", move |tx| {
            Box::pin(async move { read(tx, deployment_id, run_id, &workspaces).await })
        })
        .await
}

pub(super) async fn read(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    workspaces: &Workspaces,
) -> Result<Option<Loaded>, Error> {
    let version = runs::version(tx, run_id).await?;
    let Some(deployment) = deployments::find_as_of(tx, deployment_id, version).await? else {
        return Ok(None);
    };
    let Some(run) = runs::find(tx, deployment_id, run_id).await?.filter(|run| !run.status.is_ended()) else {
        return Ok(None);
    };
    let workspace = WorkspaceId::of(&deployment, run.thread_id);
    let from_run = runs::first_of_context(tx, run.thread_id, EARLIER_RUNS).await?.unwrap_or(run_id);
    let heard = messages::of_users(tx, run.thread_id, from_run).await?;
    let journal = journal::of_thread(tx, run.thread_id, from_run).await?;
    let mut history = History::default();
    journal.into_iter().try_for_each(|step| history.add_step(step, run_id))?;
    let pending = history.add_messages(heard, run_id);
    let model = history.model_of_next_step(&deployment, run_id);
    history.forget_thoughts_of_others(fallback::model(&deployment, model));
    let mut own: Vec<Step> = history.steps.split_off(&(run_id, 0)).into_values().collect();
    if let Some(last) = own.last_mut() {
        last.asked = asked(tx, &deployment, run_id, last).await?;
    }
    let state = RunState {
        earlier: earlier_turns(history.steps),
        steps: own,
        pending: pending.iter().map(said).collect(),
    };
    Ok(Some(Loaded {
        usage: history.usage,
        model,
        state,
        pending: pending.into_iter().map(|message| message.message_id).collect(),
        open_call: history.open_call,
        open_tools: history.open_tools,
        workspace,
        workspace_dir: workspaces.dir_of(workspace),
        deployment,
        run,
    }))
}

/// What became of the calls of a step that a person was asked about; only where some have no result yet.
async fn asked(
    tx: &mut Tx,
    deployment: &Deployment,
    run_id: RunId,
    step: &Step,
) -> Result<BTreeMap<i64, Settlement>, Error> {
    if step.outcomes.iter().all(Option::is_some) {
        return Ok(BTreeMap::new());
    }
    let on_expiry = deployment.settings.steering.on_expiry;
    let asked = steering::of_step(tx, run_id, step.step_no).await?;
    Ok(asked.into_iter().map(|asked| (asked.position.call_no, settle(&asked.request, on_expiry))).collect())
}

fn earlier_turns(steps: BTreeMap<(RunId, i64), Step>) -> Vec<Turn> {
    let steps: Vec<Step> = steps.into_values().collect();
    turns(&steps)
}

fn said(message: &UserMessage) -> String {
    herm_agent::user_text(&message.content, &message.attachments)
}

/// A thread's steps by run and number, as they are put together from the journal and the messages.
#[derive(Default)]
struct History {
    steps: BTreeMap<(RunId, i64), Step>,
    /// Which model gave the reply of a step.
    models: BTreeMap<(RunId, i64), String>,
    /// What the current run's finished steps used.
    usage: Usage,
    open_call: Option<ModelIntent>,
    open_tools: Vec<i64>,
}

impl History {
    fn add_step(&mut self, row: journal::Step, current: RunId) -> Result<(), Error> {
        let position = row.position;
        let is_current = position.run_id == current;
        let step = self
            .steps
            .entry((position.run_id, position.step_no))
            .or_insert_with(|| Step { step_no: position.step_no, ..Step::default() });
        match (row.kind, row.result) {
            (StepKind::Model, Some(result)) => {
                let reply: ModelReply = serde_json::from_str(&result)?;
                step.outcomes = reply.tool_calls().map(|_| None).collect();
                if is_current {
                    self.usage.add_model_call(&row.name, reply.usage);
                }
                self.models.insert((position.run_id, position.step_no), row.name);
                step.reply = Some(reply);
            }
            (StepKind::Model, None) if is_current => {
                self.open_call = Some(serde_json::from_str(&row.intent)?);
            }
            (StepKind::Tool, Some(result)) => {
                let outcome: ToolOutcome = serde_json::from_str(&result)?;
                let index = usize::try_from(position.call_no - 1).unwrap_or(usize::MAX);
                if let Some(place) = step.outcomes.get_mut(index) {
                    *place = Some(outcome);
                    self.usage.tool_calls += u64::from(is_current);
                }
            }
            (StepKind::Tool, None) if is_current => self.open_tools.push(position.call_no),
            (StepKind::Model | StepKind::Tool, None) => {}
        }
        Ok(())
    }

    /// The place of the model that is called next, if one is.
    fn model_of_next_step(&self, deployment: &Deployment, current: RunId) -> usize {
        if let Some(intent) = self.open_call {
            return intent.model;
        }
        let last = self.models.range((current, 0)..).next_back().map(|(_, model)| model.as_str());
        let own: Vec<Step> = self.steps.range((current, 0)..).map(|(_, step)| step.clone()).collect();
        fallback::at_start(deployment, last, empty_replies(&own))
    }

    /// Drops what models of other providers thought: a signature means nothing elsewhere, and is refused there.
    fn forget_thoughts_of_others(&mut self, model: &str) {
        let provider = |name: &str| ModelName::parse(name).map(|name| name.provider);
        let own = provider(model);
        for (key, _) in self.models.iter().filter(|(_, name)| provider(name) != own) {
            let reply = self.steps.get_mut(key).and_then(|step| step.reply.as_mut());
            if let Some(reply) = reply {
                let is_thought =
                    |block: &Block| matches!(block, Block::Thinking { .. } | Block::RedactedThinking { .. });
                reply.blocks.retain(|block| !is_thought(block));
            }
        }
    }

    /// Puts each message before the step that first read it; gives those of the current run that none has read.
    fn add_messages(&mut self, messages: Vec<UserMessage>, current: RunId) -> Vec<UserMessage> {
        let mut pending = Vec::new();
        for message in messages {
            match message.before_step {
                None if message.run_id == current => pending.push(message),
                before => {
                    // A run that failed before it read a message: it stands at that run's end.
                    let step_no = before.unwrap_or(i64::MAX);
                    let step = self.steps.entry((message.run_id, step_no));
                    step.or_insert_with(|| Step { step_no, ..Step::default() }).heard.push(said(&message));
                }
            }
        }
        pending
    }
}

#[cfg(test)]
mod tests {
    use herm_types::model::{StopReason, TokenUsage};

    use super::*;

    fn row(step_no: i64, model: &str) -> journal::Step {
        let blocks = vec![
            Block::Thinking { text: "Hm.".to_owned(), signature: Some("signed".to_owned()) },
            Block::RedactedThinking { data: "sealed".to_owned() },
            Block::Text { text: "Yes.".to_owned() },
        ];
        let reply = ModelReply { blocks, stop: StopReason::EndTurn, usage: TokenUsage::default() };
        let run_id = "run_01h455vb4pex5vsknk084sn02q".parse().unwrap();
        journal::Step {
            position: journal::Position { run_id, step_no, call_no: 0 },
            kind: StepKind::Model,
            name: model.to_owned(),
            intent: "{}".to_owned(),
            result: Some(serde_json::to_string(&reply).unwrap()),
        }
    }

    #[test]
    fn a_model_is_not_shown_what_another_providers_thought() {
        let mut history = History::default();
        for (step_no, model) in [(1, "anthropic/one"), (2, "own/two"), (3, "own/three")] {
            let row = row(step_no, model);
            let run_id = row.position.run_id;
            history.add_step(row, run_id).unwrap();
        }
        history.forget_thoughts_of_others("own/three");
        let blocks: Vec<usize> =
            history.steps.values().map(|step| step.reply.as_ref().unwrap().blocks.len()).collect();
        assert_eq!(blocks, [1, 3, 3]);
        assert_eq!(history.usage.models.len(), 3);
    }
}
