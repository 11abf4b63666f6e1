//! What must hold for every history. Each rule has a test of its own in
//! `simulation/mutations.rs`, with a history that breaks it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::history::{Acknowledged, History, OfDeployment};

/// What is wrong with the history, if anything is.
pub(crate) fn check(history: &History) -> Result<(), String> {
    check_effects(history)?;
    for of_it in &history.deployments {
        check_log(of_it)?;
        check_messages(of_it)?;
        check_speech(of_it)?;
        check_calls(of_it)?;
        check_steering(of_it)?;
        check_runs(of_it)?;
        check_heard(of_it)?;
    }
    if history.queued == 0 { Ok(()) } else { Err(format!("{} items are left in the queue", history.queued)) }
}

fn text<'a>(event: &'a Value, key: &str) -> &'a str {
    event["data"][key].as_str().unwrap_or_default()
}

fn of<'a>(events: &'a [Value], name: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event["event"] == name)
}

/// Whether a call's result says that nobody knows what became of it.
pub(crate) fn is_untold(event: &Value) -> bool {
    let is_error = event["event"] == "tool_result" && event["data"]["is_error"] == true;
    let told = text(event, "result");
    is_error && (told.contains("unknown") || told.starts_with("Cancelled"))
}

/// Nothing is done twice; what is said to be done is done, and what is said not to be done is not.
fn check_effects(history: &History) -> Result<(), String> {
    if let Some((command, count)) = history.begun.iter().find(|(_, count)| **count > 1) {
        return Err(format!("{command} was done {count} times"));
    }
    for of_it in &history.deployments {
        let commands: HashMap<(&str, &str), &str> = of(&of_it.events, "tool_call")
            .filter_map(|event| {
                let command = event["data"]["arguments"]["command"].as_str()?;
                Some(((text(event, "run_id"), text(event, "tool_call_id")), command))
            })
            .collect();
        for result in of(&of_it.events, "tool_result").filter(|result| !is_untold(result)) {
            let Some(command) = commands.get(&(text(result, "run_id"), text(result, "tool_call_id"))) else {
                continue;
            };
            let (is_done, is_told_done) =
                (history.begun.contains_key(*command), result["data"]["is_error"] == false);
            if is_done != is_told_done {
                return Err(format!("{command}: done {is_done}, but the model was told {result}"));
            }
        }
    }
    Ok(())
}

/// The log has no gap but where a thread was erased, of which nothing is left; what was once read of it stays.
fn check_log(of_it: &OfDeployment) -> Result<(), String> {
    let is_erased = |event: &&Value| of_it.erased.contains(text(event, "thread_id"));
    if let Some(left) = of_it.events.iter().find(is_erased) {
        return Err(format!("of a thread that was deleted {left} is left"));
    }
    let mut before = 0;
    for event in &of_it.events {
        let id = event["id"].as_str().and_then(|id| id.strip_prefix("evt_")?.parse().ok());
        let follows = |id: &u64| *id == before + 1 || (*id > before && !of_it.erased.is_empty());
        let Some(id) = id.filter(follows) else {
            return Err(format!("after event {before} of the log comes {}", event["id"]));
        };
        before = id;
    }
    let mut read = of_it.events_before.iter().filter(|event| !is_erased(event)).zip(0..);
    let changed = read.find(|(event, at)| of_it.events.get(*at) != Some(event));
    changed.map_or(Ok(()), |(event, _)| Err(format!("an event that was read has changed: {event}")))
}

/// Each request to a person is resolved, once.
fn check_steering(of_it: &OfDeployment) -> Result<(), String> {
    let ids = |name| {
        let mut ids: Vec<_> = of(&of_it.events, name).map(|event| text(event, "steering_id")).collect();
        ids.sort_unstable();
        ids
    };
    let (asked, resolved) = (ids("steering_request"), ids("steering_resolved"));
    if asked == resolved { Ok(()) } else { Err(format!("asked were {asked:?}, resolved are {resolved:?}")) }
}

/// Each message that was acknowledged is there, once, in its order and in the run that was named; and no other.
fn check_messages(of_it: &OfDeployment) -> Result<(), String> {
    let mut stored: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for event in of(&of_it.events, "message").filter(|event| event["data"]["role"] == "user") {
        let name =
            text(event, "content").split_once(">>").map_or("", |(name, _)| name.trim_start_matches("<<"));
        stored.entry(text(event, "thread_id")).or_default().push((name, text(event, "run_id")));
    }
    let mut sent: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for message in &of_it.acknowledged {
        sent.entry(&message.thread_id).or_default().push((&message.name, &message.run_id));
    }
    if stored == sent { Ok(()) } else { Err(format!("acknowledged were {sent:?}, stored are {stored:?}")) }
}

/// The pieces of each of the agent's messages are the message, and each ends.
fn check_speech(of_it: &OfDeployment) -> Result<(), String> {
    let mut spoken: BTreeMap<&str, String> = BTreeMap::new();
    for event in &of_it.events {
        if event["event"] == "token" {
            spoken.entry(text(event, "message_id")).or_default().push_str(text(event, "delta"));
        } else if event["event"] == "message" && event["data"]["role"] == "agent" {
            let said = spoken.remove(text(event, "message_id")).unwrap_or_default();
            if event["data"]["content"] != said {
                return Err(format!("the pieces {said:?} are not {event}"));
            }
        }
    }
    if spoken.is_empty() { Ok(()) } else { Err(format!("messages never ended: {spoken:?}")) }
}

/// Each call is made once, and has one result.
fn check_calls(of_it: &OfDeployment) -> Result<(), String> {
    let ids = |name| {
        let all: Vec<_> = of(&of_it.events, name)
            .map(|event| (text(event, "run_id"), text(event, "tool_call_id")))
            .collect();
        let unique: BTreeSet<_> = all.iter().copied().collect();
        if all.len() == unique.len() { Ok(unique) } else { Err(format!("a {name} is doubled: {all:?}")) }
    };
    let (calls, results) = (ids("tool_call")?, ids("tool_result")?);
    if calls == results { Ok(()) } else { Err(format!("{calls:?} have results {results:?}")) }
}

/// Each run is queued, begins, waits perhaps, and ends once; nothing comes after its end.
fn check_runs(of_it: &OfDeployment) -> Result<(), String> {
    let mut statuses: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in of_it.events.iter().filter(|event| event["data"].get("run_id").is_some()) {
        let of_run = statuses.entry(text(event, "run_id")).or_default();
        if of_run.last().is_some_and(|last| is_end(last)) {
            return Err(format!("{event} comes after its run's end"));
        }
        if event["event"] == "run_status" {
            of_run.push(text(event, "status"));
        }
    }
    if let Some((run_id, of_run)) = statuses.iter().find(|(_, of_run)| !is_a_life(of_run)) {
        return Err(format!("{run_id} was {of_run:?}"));
    }
    let shown: BTreeMap<&str, &str> = of_it
        .runs
        .iter()
        .filter_map(|run| Some((run["run_id"].as_str()?, run["status"].as_str()?)))
        .collect();
    let ends = statuses.iter().filter_map(|(run_id, of_run)| Some((*run_id, *of_run.last()?))).collect();
    if shown == ends { Ok(()) } else { Err(format!("runs are {shown:?}, their events say {ends:?}")) }
}

/// Whether a run may have these statuses, one after the other.
fn is_a_life(statuses: &[&str]) -> bool {
    let ["queued", "running", middle @ .., end] = statuses else { return false };
    let (waits, rest) = middle.as_chunks();
    let is_wait = |pair: &[&str; 2]| *pair == ["waiting_on_human", "running"];
    is_end(end) && waits.iter().all(is_wait) && (rest.is_empty() || rest == ["waiting_on_human"])
}

fn is_end(status: &str) -> bool {
    ["completed", "error", "cancelled"].contains(&status)
}

/// The model is told of each message that was acknowledged, once and in its order: as a message, or as the answer to a
/// call that had asked a person.
fn check_heard(of_it: &OfDeployment) -> Result<(), String> {
    let is_answer = |message: &&Acknowledged| {
        of_it.answers.get(&message.thread_id).is_some_and(|names| names.contains(&message.name))
    };
    let (answers, messages): (Vec<_>, Vec<_>) = of_it.acknowledged.iter().partition(is_answer);
    if by_thread(messages) == of_it.heard && by_thread(answers) == of_it.answers {
        return Ok(());
    }
    let sent = by_thread(of_it.acknowledged.iter().collect());
    Err(format!("sent were {sent:?}, heard were {:?} and as answers {:?}", of_it.heard, of_it.answers))
}

fn by_thread(messages: Vec<&Acknowledged>) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for message in messages {
        names.entry(message.thread_id.clone()).or_default().push(message.name.clone());
    }
    names
}
