//! Loads the state of a run from the store, as the input of the harness (`RunState`).

use std::collections::BTreeMap;
use std::ops::RangeBounds;
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
use herm_types::model::{Block, ModelName, ModelReply, ToolOutcome};
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
    /// The steps from which `state` is built.
    history: History,
    pub(super) workspace: WorkspaceId,
    pub(super) workspace_dir: PathBuf,
}

/// The intent of a model call: the journal entry that is written when the call starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ModelIntent {
    /// The index of the model to call: 0 is the deployment's main model, 1 its first fallback model.
    #[serde(default)]
    pub(super) model: usize,
    /// The number of failed attempts with this model so far.
    pub(super) failures: u32,
    /// The id of the deployment's latest event before the model call. The events with the reply's text have higher ids.
    pub(super) after: i64,
}

/// Loads the run that the lease is for, with its context. Returns `None` if the run was deleted or has ended.
pub(super) async fn load(context: &Context, lease: &Lease) -> Result<Option<LoadedRun>, Error> {
    let (run_id, deployment_id) = (lease.subject::<RunId>()?, lease.deployment_id);
    let workspaces = context.workspaces.clone();
    context
        .store
        .read("load_run", move |tx| {
            Box::pin(async move { read(tx, deployment_id, run_id, Extent::Context, &workspaces).await })
        })
        .await
}

/// Reads what has changed since the run was loaded: its last step and the steps after it, new messages, answers of
/// people, and a request to cancel it. Nothing else changes while a worker holds the run's lease. Returns `None` if the
/// run was deleted or has ended.
pub(super) async fn refresh(context: &Context, loaded: LoadedRun) -> Result<Option<LoadedRun>, Error> {
    #[cfg(feature = "failpoints")]
    let workspaces = context.workspaces.clone();
    context
        .store
        .read("refresh_run", move |tx| {
            Box::pin(async move {
                let refreshed = read_changes(tx, loaded).await?;
                #[cfg(feature = "failpoints")]
                if let Some(refreshed) = &refreshed {
                    verify(tx, refreshed, &workspaces).await?;
                }
                Ok(refreshed)
            })
        })
        .await
}

/// Verifies that a refreshed run equals the run as it would be loaded now. On PostgreSQL, the two may differ, because
/// another transaction can commit between them.
#[cfg(feature = "failpoints")]
async fn verify(tx: &mut Tx, refreshed: &LoadedRun, workspaces: &Workspaces) -> Result<(), Error> {
    if !tx.reads_one_snapshot() {
        return Ok(());
    }
    let (deployment_id, run_id) = (refreshed.run.deployment_id, refreshed.run.run_id);
    let loaded = read(tx, deployment_id, run_id, Extent::Context, workspaces).await?;
    let parts = |run: &LoadedRun| {
        (run.state.clone(), run.pending.clone(), run.usage.clone(), run.model_index, run.open_call())
    };
    assert_eq!(
        loaded.as_ref().map(parts),
        Some(parts(refreshed)),
        "a refreshed run differs from a loaded one"
    );
    Ok(())
}

/// The runs whose steps are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The run and the earlier runs of its context.
    Context,
    /// Only the run itself.
    OwnRun,
}

pub(super) async fn read(
    tx: &mut Tx,
    deployment_id: DeploymentId,
    run_id: RunId,
    extent: Extent,
    workspaces: &Workspaces,
) -> Result<Option<LoadedRun>, Error> {
    let version = runs::version(tx, run_id).await?;
    let Some(deployment) = deployments::find_as_of(tx, deployment_id, version).await? else {
        return Ok(None);
    };
    let Some(run) = find_active(tx, deployment_id, run_id).await? else { return Ok(None) };
    let workspace = WorkspaceId::of(&deployment, run.thread_id);
    let from_run = match extent {
        Extent::Context => runs::first_of_context(tx, run.thread_id, EARLIER_RUNS).await?.unwrap_or(run_id),
        Extent::OwnRun => run_id,
    };
    let user_messages = messages::of_users(tx, run.thread_id, from_run).await?;
    let journal = journal::of_thread(tx, run.thread_id, from_run).await?;
    let mut history = History::default();
    let pending = history.add(journal, user_messages, run_id)?;
    let settlements = load_settlements(tx, &deployment, run_id, history.last_step(run_id)).await?;
    let workspace_dir = workspaces.dir_of(workspace);
    let (usage, model_index) = (Usage::default(), 0);
    let mut loaded = LoadedRun {
        deployment,
        run,
        state: RunState::default(),
        pending: Vec::new(),
        usage,
        model_index,
        history,
        workspace,
        workspace_dir,
    };
    loaded.state.tools = Toolset::new(&loaded.deployment.settings);
    loaded.model_index = loaded.history.next_model_index(&loaded.deployment, run_id);
    loaded.rebuild_earlier();
    loaded.update_state(pending, settlements);
    Ok(Some(loaded))
}

async fn read_changes(tx: &mut Tx, mut loaded: LoadedRun) -> Result<Option<LoadedRun>, Error> {
    let (run_id, deployment_id) = (loaded.run.run_id, loaded.run.deployment_id);
    let Some(run) = find_active(tx, deployment_id, run_id).await? else { return Ok(None) };
    let from_step = loaded.history.last_step(run_id).map_or(0, |step| step.step_no);
    let journal = journal::of_run_from(tx, run_id, from_step).await?;
    let user_messages = messages::of_run_from(tx, run.thread_id, run_id, from_step).await?;
    loaded.run = run;
    loaded.history.forget_from(run_id, from_step);
    let pending = loaded.history.add(journal, user_messages, run_id)?;
    let last = loaded.history.last_step(run_id);
    let settlements = load_settlements(tx, &loaded.deployment, run_id, last).await?;
    let (before, model_index) =
        (loaded.provider(), loaded.history.next_model_index(&loaded.deployment, run_id));
    loaded.model_index = model_index;
    if loaded.provider() != before {
        loaded.rebuild_earlier();
    }
    loaded.update_state(pending, settlements);
    Ok(Some(loaded))
}

/// Returns the run, unless it has ended or its deployment is deleted.
async fn find_active(tx: &mut Tx, deployment_id: DeploymentId, run_id: RunId) -> Result<Option<Run>, Error> {
    if !deployments::exists(tx, deployment_id).await? {
        return Ok(None);
    }
    Ok(runs::find(tx, deployment_id, run_id).await?.filter(|run| !run.status.is_ended()))
}

/// Returns the settlements of a step's steering requests, by call number: the consequence of each request for its tool
/// call. Empty if all calls of the step have a result.
async fn load_settlements(
    tx: &mut Tx,
    deployment: &Deployment,
    run_id: RunId,
    step: Option<&Step>,
) -> Result<BTreeMap<i64, Settlement>, Error> {
    let Some(step) = step.filter(|step| step.outcomes.iter().any(Option::is_none)) else {
        return Ok(BTreeMap::new());
    };
    let on_expiry = deployment.settings.steering.on_expiry;
    let requests = steering::of_step(tx, run_id, step.step_no).await?;
    Ok(requests
        .into_iter()
        .map(|asked| (asked.position.call_no, settle(&asked.request, on_expiry)))
        .collect())
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

    /// Returns the intent (journal entry) of the last step's model call if the call has no result yet.
    pub(super) fn open_call(&self) -> Option<ModelIntent> {
        self.history.open_call
    }

    /// Returns the provider of the model to call next.
    fn provider(&self) -> Option<String> {
        provider(fallback::model_at(&self.deployment, self.model_index))
    }

    /// Builds the turns of the earlier runs as the provider of the model to call next accepts them.
    fn rebuild_earlier(&mut self) {
        let earlier = self.history.steps_for(..(self.run.run_id, 0), self.provider().as_deref());
        self.state.earlier = turns(&earlier);
    }

    /// Builds the rest of the state from the run's own steps.
    fn update_state(&mut self, pending: Vec<UserMessage>, settlements: BTreeMap<i64, Settlement>) {
        let own = (self.run.run_id, 0);
        self.state.steps = self.history.steps_for(own.., self.provider().as_deref());
        if let Some(last) = self.state.steps.last_mut() {
            last.settlements = settlements;
        }
        self.state.pending = pending.iter().map(message_text).collect();
        self.pending = pending.into_iter().map(|message| message.message_id).collect();
        self.usage = self.history.usage(self.run.run_id);
    }
}

fn message_text(message: &UserMessage) -> String {
    herm_agent::user_text(&message.content, &message.attachments)
}

fn provider(model: &str) -> Option<String> {
    ModelName::parse(model).map(|name| name.provider)
}

/// The steps of a thread's runs, assembled from the journal and the user messages. Keys are run id and step number.
#[derive(Default)]
pub(super) struct History {
    steps: BTreeMap<(RunId, i64), Step>,
    /// The name of the model that produced the reply of each step.
    models: BTreeMap<(RunId, i64), String>,
    /// The intent of the model call of the current run that has no result yet.
    open_call: Option<ModelIntent>,
}

impl History {
    /// Adds journal entries and user messages. Returns the messages of the run `current` that no step has read yet.
    fn add(
        &mut self,
        journal: Vec<journal::Step>,
        messages: Vec<UserMessage>,
        current: RunId,
    ) -> Result<Vec<UserMessage>, Error> {
        journal.into_iter().try_for_each(|step| self.add_step(step, current))?;
        Ok(self.add_messages(messages, current))
    }

    /// Removes the steps of the run `current` from `from_step` on, so that they can be added anew.
    fn forget_from(&mut self, current: RunId, from_step: i64) {
        self.steps.split_off(&(current, from_step));
        self.models.split_off(&(current, from_step));
        self.open_call = None;
    }

    fn last_step(&self, current: RunId) -> Option<&Step> {
        self.steps.range((current, 0)..).next_back().map(|(_, step)| step)
    }

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
                }
            }
            (StepKind::Tool, None) => {
                step.begun.insert(position.call_no);
            }
            (StepKind::Model, None) => {}
        }
        Ok(())
    }

    /// Returns the usage of the completed steps of the run `current`.
    fn usage(&self, current: RunId) -> Usage {
        let mut usage = Usage::default();
        for (key, step) in self.steps.range((current, 0)..) {
            if let (Some(reply), Some(model)) = (&step.reply, self.models.get(key)) {
                usage.add_model_call(model, reply.usage);
            }
            usage.tool_calls += step.outcomes.iter().flatten().count() as u64;
        }
        usage
    }

    /// Returns the index of the model that the run `current` calls next.
    fn next_model_index(&self, deployment: &Deployment, current: RunId) -> usize {
        if let Some(intent) = self.open_call {
            return intent.model;
        }
        let last = self.models.range((current, 0)..).next_back().map(|(_, model)| model.as_str());
        let own = self.steps.range((current, 0)..).map(|(_, step)| step);
        fallback::initial_index(deployment, last, empty_replies(own))
    }

    /// Returns the steps in a range as `provider` accepts them: without the thinking blocks of models of other
    /// providers, whose signatures it would reject.
    fn steps_for(&self, range: impl RangeBounds<(RunId, i64)>, provider_name: Option<&str>) -> Vec<Step> {
        let mut steps = Vec::new();
        for (key, step) in self.steps.range(range) {
            let mut step = step.clone();
            let is_foreign =
                self.models.get(key).is_some_and(|model| provider(model).as_deref() != provider_name);
            if let Some(reply) = step.reply.as_mut().filter(|_| is_foreign) {
                let is_thinking =
                    |block: &Block| matches!(block, Block::Thinking { .. } | Block::RedactedThinking { .. });
                reply.blocks.retain(|block| !is_thinking(block));
            }
            steps.push(step);
        }
        steps
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
        let blocks = |provider: &str| -> Vec<usize> {
            let steps = history.steps_for(.., Some(provider));
            steps.iter().map(|step| step.reply.as_ref().unwrap().blocks.len()).collect()
        };
        assert_eq!(blocks("own"), [1, 3, 3]);
        assert_eq!(blocks("anthropic"), [3, 1, 1], "another model needs its own blocks");
        assert_eq!(history.usage(row(1, "own/two").position.run_id).models.len(), 3);
    }
}
