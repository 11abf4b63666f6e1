//! Loads the state of a run from the store, as the input of the harness (`RunState`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use herm_agent::steering::{Settlement, settle};
use herm_agent::tools::Toolset;
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
use crate::context::Context;
use crate::sandboxes::pool::SandboxConfig;

/// The context of a model call contains at least this many of the thread's latest runs, if the thread has that many,
/// and fewer than twice as many. Older runs are dropped this many at a time. The beginning of the context therefore
/// changes rarely, so that providers can cache it.
const EARLIER_RUNS: i64 = 100;

/// A run with all the state that its next step needs.
pub(super) struct LoadedRun {
    pub(super) deployment: Deployment,
    pub(super) run: Run,
    pub(super) state: RunState,
    /// The ids of the messages in `state.pending`: user messages that no step has read yet.
    pub(super) pending: Vec<MessageId>,
    /// The usage of the run's completed steps.
    pub(super) usage: Usage,
    /// The index of the model to call next: 0 is the deployment's main model, 1 its first fallback model.
    pub(super) model_index: usize,
    /// The intent (journal entry) of the last step's model call if the call has no result yet. Otherwise `None`.
    pub(super) open_call: Option<ModelIntent>,
    pub(super) workspace: WorkspaceId,
    pub(super) workspace_dir: PathBuf,
}

impl LoadedRun {
    /// Returns the configuration of the sandbox in which the run's commands are executed.
    pub(super) fn sandbox(&self) -> SandboxConfig {
        SandboxConfig {
            workspace: self.workspace,
            workspace_dir: self.workspace_dir.clone(),
            settings: self.deployment.settings.sandbox.clone(),
        }
    }
}

/// The intent of a model call: the journal entry that is written when the call starts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct ModelIntent {
    /// The index of the model to call: 0 is the deployment's main model, 1 its first fallback model.
    #[serde(default)]
    pub(super) model: usize,
    /// The number of failed attempts with this model so far.
    pub(super) failures: u32,
    /// The id of the deployment's latest event before the model call. The events with the reply's text have higher ids.
    pub(super) after: i64,
}

/// Loads the run that the lease is for. Returns `None` if the run was deleted or has ended.
pub(super) async fn load(context: &Context, lease: &Lease) -> Result<Option<LoadedRun>, Error> {
    let (run_id, deployment_id) = (lease.subject::<RunId>()?, lease.deployment_id);
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
) -> Result<Option<LoadedRun>, Error> {
    let version = runs::version(tx, run_id).await?;
    let Some(deployment) = deployments::find_as_of(tx, deployment_id, version).await? else {
        return Ok(None);
    };
    let Some(run) = runs::find(tx, deployment_id, run_id).await?.filter(|run| !run.status.is_ended()) else {
        return Ok(None);
    };
    let workspace = WorkspaceId::of(&deployment, run.thread_id);
    let from_run = runs::first_of_context(tx, run.thread_id, EARLIER_RUNS).await?.unwrap_or(run_id);
    let user_messages = messages::of_users(tx, run.thread_id, from_run).await?;
    let journal = journal::of_thread(tx, run.thread_id, from_run).await?;
    let mut history = History::default();
    journal.into_iter().try_for_each(|step| history.add_step(step, run_id))?;
    let pending = history.add_messages(user_messages, run_id);
    let model_index = history.next_model_index(&deployment, run_id);
    history.drop_foreign_thinking(fallback::model_at(&deployment, model_index));
    let mut own: Vec<Step> = history.steps.split_off(&(run_id, 0)).into_values().collect();
    if let Some(last) = own.last_mut() {
        last.settlements = load_settlements(tx, &deployment, run_id, last).await?;
    }
    let state = RunState {
        tools: Toolset::new(&deployment.settings),
        earlier: earlier_turns(history.steps),
        steps: own,
        pending: pending.iter().map(message_text).collect(),
    };
    Ok(Some(LoadedRun {
        usage: history.usage,
        model_index,
        state,
        pending: pending.into_iter().map(|message| message.message_id).collect(),
        open_call: history.open_call,
        workspace,
        workspace_dir: workspaces.dir_of(workspace),
        deployment,
        run,
    }))
}

/// Returns the settlements of a step's steering requests, by call number. A settlement states what a steering request
/// means for its tool call, for example that the call is executed. Empty if all calls of the step have a result.
async fn load_settlements(
    tx: &mut Tx,
    deployment: &Deployment,
    run_id: RunId,
    step: &Step,
) -> Result<BTreeMap<i64, Settlement>, Error> {
    if step.outcomes.iter().all(Option::is_some) {
        return Ok(BTreeMap::new());
    }
    let on_expiry = deployment.settings.steering.on_expiry;
    let requests = steering::of_step(tx, run_id, step.step_no).await?;
    Ok(requests
        .into_iter()
        .map(|asked| (asked.position.call_no, settle(&asked.request, on_expiry)))
        .collect())
}

fn earlier_turns(steps: BTreeMap<(RunId, i64), Step>) -> Vec<Turn> {
    let steps: Vec<Step> = steps.into_values().collect();
    turns(&steps)
}

fn message_text(message: &UserMessage) -> String {
    herm_agent::user_text(&message.content, &message.attachments)
}

/// The steps of a thread's runs, assembled from the journal and the user messages. The maps are keyed by run id and
/// step number.
#[derive(Default)]
struct History {
    steps: BTreeMap<(RunId, i64), Step>,
    /// The name of the model that produced the reply of each step.
    models: BTreeMap<(RunId, i64), String>,
    /// The usage of the completed steps of the run that is being loaded.
    usage: Usage,
    open_call: Option<ModelIntent>,
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
                if let Some(outcome_slot) = step.outcomes.get_mut(index) {
                    *outcome_slot = Some(outcome);
                    self.usage.tool_calls += u64::from(is_current);
                }
            }
            (StepKind::Tool, None) => {
                step.begun.insert(position.call_no);
            }
            (StepKind::Model, None) => {}
        }
        Ok(())
    }

    /// Returns the index of the model that the run `current` calls next.
    fn next_model_index(&self, deployment: &Deployment, current: RunId) -> usize {
        if let Some(intent) = self.open_call {
            return intent.model;
        }
        let last = self.models.range((current, 0)..).next_back().map(|(_, model)| model.as_str());
        let own: Vec<Step> = self.steps.range((current, 0)..).map(|(_, step)| step.clone()).collect();
        fallback::initial_index(deployment, last, empty_replies(&own))
    }

    /// Removes the thinking blocks from the replies of all models that belong to a different provider than `model`
    /// does. The provider of `model` would reject the signatures of these blocks.
    fn drop_foreign_thinking(&mut self, model: &str) {
        let provider = |name: &str| ModelName::parse(name).map(|name| name.provider);
        let own = provider(model);
        for (key, _) in self.models.iter().filter(|(_, name)| provider(name) != own) {
            let reply = self.steps.get_mut(key).and_then(|step| step.reply.as_mut());
            if let Some(reply) = reply {
                let is_thinking =
                    |block: &Block| matches!(block, Block::Thinking { .. } | Block::RedactedThinking { .. });
                reply.blocks.retain(|block| !is_thinking(block));
            }
        }
    }

    /// Adds each user message to the step that first read it. Returns the messages of the run `current` that no step
    /// has read yet.
    fn add_messages(&mut self, messages: Vec<UserMessage>, current: RunId) -> Vec<UserMessage> {
        let mut pending = Vec::new();
        for message in messages {
            match message.before_step {
                None if message.run_id == current => pending.push(message),
                before => {
                    // The message belongs to an earlier run that ended before a step read it, so it is placed after
                    // that run's last step.
                    let step_no = before.unwrap_or(i64::MAX);
                    let step = self.steps.entry((message.run_id, step_no));
                    step.or_insert_with(|| Step { step_no, ..Step::default() })
                        .messages
                        .push(message_text(&message));
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
    fn thinking_of_other_providers_is_dropped() {
        let mut history = History::default();
        for (step_no, model) in [(1, "anthropic/one"), (2, "own/two"), (3, "own/three")] {
            let row = row(step_no, model);
            let run_id = row.position.run_id;
            history.add_step(row, run_id).unwrap();
        }
        history.drop_foreign_thinking("own/three");
        let blocks: Vec<usize> =
            history.steps.values().map(|step| step.reply.as_ref().unwrap().blocks.len()).collect();
        assert_eq!(blocks, [1, 3, 3]);
        assert_eq!(history.usage.models.len(), 3);
    }
}
