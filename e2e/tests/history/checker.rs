//! The rules that every test history must satisfy. A history records what clients received and what the server stored.
//! `simulation/mutations.rs` tests each rule with a history that violates it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::history::{AcknowledgedMessage, DeploymentHistory, History};

/// Checks a history against all rules.
///
/// # Errors
/// Returns a description of the first violated rule.
pub(crate) fn check(history: &History) -> Result<(), String> {
    check_effects(history)?;
    for deployment in &history.deployments {
        check_log(deployment)?;
        check_stored_messages(deployment)?;
        check_deltas(deployment)?;
        check_tool_calls(deployment)?;
        check_steering(deployment)?;
        check_runs(deployment)?;
        check_model_input(deployment)?;
    }
    if history.queued_work_items == 0 {
        Ok(())
    } else {
        Err(format!("{} work items are left in the queue", history.queued_work_items))
    }
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event["data"][key].as_str().unwrap_or_default()
}

fn named<'a>(events: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["event"] == name)
}

/// Returns true if the event is a tool result that leaves open whether the tool call was made.
pub(crate) fn is_unknown_outcome(event: &Value) -> bool {
    let is_error = event["event"] == "tool_result" && event["data"]["is_error"] == true;
    let result = text(event, "result");
    is_error && (result.contains("unknown") || result.starts_with("Cancelled"))
}

/// Checks that no command was started twice, and that each tool result agrees with what happened: a success requires
/// that the command was started, an error requires that it was not, and an unknown outcome allows both.
fn check_effects(history: &History) -> Result<(), String> {
    if let Some((command, count)) = history.command_starts.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{command} was started {count} times"));
    }
    for deployment in &history.deployments {
        let commands: HashMap<(&str, &str), &str> = named(&deployment.events, "tool_call")
            .filter_map(|event| {
                let command = event["data"]["arguments"]["command"].as_str()?;
                Some(((text(event, "run_id"), text(event, "tool_call_id")), command))
            })
            .collect();
        for result in named(&deployment.events, "tool_result").filter(|result| !is_unknown_outcome(result)) {
            let Some(command) = commands.get(&(text(result, "run_id"), text(result, "tool_call_id"))) else {
                continue;
            };
            let (is_started, is_reported_done) =
                (history.command_starts.contains_key(*command), result["data"]["is_error"] == false);
            if is_started != is_reported_done {
                return Err(format!("{command}: started {is_started}, but the model received {result}"));
            }
        }
    }
    Ok(())
}

/// Checks that the event log contains no event of a deleted thread, that it has no gaps except where such events were
/// erased, and that all other events are still the same as when clients read them earlier.
fn check_log(deployment: &DeploymentHistory) -> Result<(), String> {
    let is_erased = |event: &&Value| deployment.erased_threads.contains(text(event, "thread_id"));
    if let Some(event) = deployment.events.iter().find(is_erased) {
        return Err(format!("an event of a deleted thread is left: {event}"));
    }
    let mut previous = 0;
    for event in &deployment.events {
        let id = event["id"].as_str().and_then(|id| id.strip_prefix("evt_")?.parse().ok());
        let follows =
            |id: &u64| *id == previous + 1 || (*id > previous && !deployment.erased_threads.is_empty());
        let Some(id) = id.filter(follows) else {
            return Err(format!("event {previous} of the log is followed by {}", event["id"]));
        };
        previous = id;
    }
    let mut earlier = deployment.earlier_events.iter().filter(|event| !is_erased(event)).zip(0..);
    let changed = earlier.find(|(event, index)| deployment.events.get(*index) != Some(event));
    changed.map_or(Ok(()), |(event, _)| Err(format!("an event has changed since it was read: {event}")))
}

/// Checks that each steering request is resolved exactly once.
fn check_steering(deployment: &DeploymentHistory) -> Result<(), String> {
    let ids = |name| {
        let mut ids: Vec<_> =
            named(&deployment.events, name).map(|event| text(event, "steering_id")).collect();
        ids.sort_unstable();
        ids
    };
    let (requested, resolved) = (ids("steering_request"), ids("steering_resolved"));
    if requested == resolved {
        Ok(())
    } else {
        Err(format!("the steering requests {requested:?} have the resolutions {resolved:?}"))
    }
}

/// Checks that the stored user messages of each thread are exactly those that the server acknowledged, in the same
/// order. Each must belong to the run that the server's response named.
fn check_stored_messages(deployment: &DeploymentHistory) -> Result<(), String> {
    let mut stored: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for event in named(&deployment.events, "message").filter(|event| event["data"]["role"] == "user") {
        let name =
            text(event, "content").split_once(">>").map_or("", |(name, _)| name.trim_start_matches("<<"));
        stored.entry(text(event, "thread_id")).or_default().push((name, text(event, "run_id")));
    }
    let mut acknowledged: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for message in &deployment.acknowledged {
        acknowledged.entry(&message.thread_id).or_default().push((&message.name, &message.run_id));
    }
    if stored == acknowledged {
        Ok(())
    } else {
        Err(format!("the acknowledged messages {acknowledged:?} differ from the stored messages {stored:?}"))
    }
}

/// Checks that the deltas (streamed pieces) of each agent message add up to the content of its `message` event, and
/// that this event is never missing.
fn check_deltas(deployment: &DeploymentHistory) -> Result<(), String> {
    let mut open: BTreeMap<&str, String> = BTreeMap::new();
    for event in &deployment.events {
        if event["event"] == "token" {
            open.entry(text(event, "message_id")).or_default().push_str(text(event, "delta"));
        } else if event["event"] == "message" && event["data"]["role"] == "agent" {
            let deltas = open.remove(text(event, "message_id")).unwrap_or_default();
            if event["data"]["content"] != deltas {
                return Err(format!("the deltas {deltas:?} differ from the message {event}"));
            }
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("messages were never closed: {open:?}")) }
}

/// Checks that each tool call is published exactly once and has exactly one result.
fn check_tool_calls(deployment: &DeploymentHistory) -> Result<(), String> {
    let ids = |name| {
        let all: Vec<_> = named(&deployment.events, name)
            .map(|event| (text(event, "run_id"), text(event, "tool_call_id")))
            .collect();
        let unique: BTreeSet<_> = all.iter().copied().collect();
        if all.len() == unique.len() { Ok(unique) } else { Err(format!("a {name} occurs twice: {all:?}")) }
    };
    let (calls, results) = (ids("tool_call")?, ids("tool_result")?);
    if calls == results { Ok(()) } else { Err(format!("the calls {calls:?} have the results {results:?}")) }
}

/// Checks that the statuses of each run form a valid sequence, that the run publishes no events after its final status,
/// and that its stored status equals the last published one.
fn check_runs(deployment: &DeploymentHistory) -> Result<(), String> {
    let mut statuses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in deployment.events.iter().filter(|event| event["data"].get("run_id").is_some()) {
        let run_statuses = statuses.entry(text(event, "run_id")).or_default();
        if run_statuses.last().is_some_and(|last| is_final(last)) {
            return Err(format!("an event was published after the end of its run: {event}"));
        }
        if event["event"] == "run_status" {
            run_statuses.push(text(event, "status"));
        }
    }
    if let Some((run_id, run_statuses)) = statuses.iter().find(|(_, statuses)| !is_valid_sequence(statuses)) {
        return Err(format!("{run_id} had the statuses {run_statuses:?}"));
    }
    let stored: BTreeMap<&str, &str> = deployment
        .runs
        .iter()
        .filter_map(|run| Some((run["run_id"].as_str()?, run["status"].as_str()?)))
        .collect();
    let published =
        statuses.iter().filter_map(|(run_id, statuses)| Some((*run_id, *statuses.last()?))).collect();
    if stored == published {
        Ok(())
    } else {
        Err(format!("the stored runs {stored:?} differ from the published statuses {published:?}"))
    }
}

/// Returns true if a run may have these statuses in this order.
fn is_valid_sequence(statuses: &[&str]) -> bool {
    let ["queued", "running", middle @ .., end] = statuses else { return false };
    let (waits, rest) = middle.as_chunks();
    let is_wait = |pair: &[&str; 2]| *pair == ["waiting_on_human", "running"];
    is_final(end) && waits.iter().all(is_wait) && (rest.is_empty() || rest == ["waiting_on_human"])
}

fn is_final(status: &str) -> bool {
    ["completed", "error", "cancelled"].contains(&status)
}

/// Checks that the model received each acknowledged message exactly once and in order: as a tool result if the message
/// answered a steering request, otherwise as a user message.
fn check_model_input(deployment: &DeploymentHistory) -> Result<(), String> {
    let is_answer = |message: &&AcknowledgedMessage| {
        deployment.model_answers.get(&message.thread_id).is_some_and(|names| names.contains(&message.name))
    };
    let (answers, messages): (Vec<_>, Vec<_>) = deployment.acknowledged.iter().partition(is_answer);
    if names_by_thread(messages) == deployment.model_messages
        && names_by_thread(answers) == deployment.model_answers
    {
        return Ok(());
    }
    let acknowledged = names_by_thread(deployment.acknowledged.iter().collect());
    Err(format!(
        "acknowledged: {acknowledged:?}, received by the model as messages: {:?}, as answers: {:?}",
        deployment.model_messages, deployment.model_answers
    ))
}

fn names_by_thread(messages: Vec<&AcknowledgedMessage>) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in messages {
        names.entry(message.thread_id.clone()).or_default().push(message.name.clone());
    }
    names
}
