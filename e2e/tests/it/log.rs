//! What must hold for every log, whatever happened while it was written.

use std::collections::HashMap;

use herm_testkit::client::Client;
use herm_testkit::events::Event;
use serde_json::Value;

/// Checks a deployment's events, all of them, as a client that resumed saw them.
pub(crate) fn check(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(Event::number).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected, "the log has a gap or a duplicate: {events:#?}");
    check_messages(events);
    check_tool_calls(events);
    check_runs(events);
}

/// The deltas of each message are exactly the message.
fn check_messages(events: &[Event]) {
    let mut spoken: HashMap<String, String> = HashMap::new();
    for event in events {
        let id = || event.data["message_id"].as_str().unwrap().to_owned();
        match event.name.as_str() {
            "token" => {
                spoken.entry(id()).or_default().push_str(event.data["delta"].as_str().unwrap());
            }
            "message" if event.data["role"] == "agent" => {
                let said = spoken.remove(&id()).unwrap_or_default();
                assert_eq!(event.data["content"], said, "the deltas are not the message: {events:#?}");
            }
            _ => {}
        }
    }
    assert!(spoken.is_empty(), "messages that never ended: {spoken:?}");
}

/// Each tool call has one result.
fn check_tool_calls(events: &[Event]) {
    let ids = |name: &str| {
        let of_it = events.iter().filter(|event| event.name == name);
        let mut ids: Vec<String> =
            of_it.map(|event| format!("{} {}", event.data["run_id"], event.data["tool_call_id"])).collect();
        ids.sort();
        ids
    };
    let calls = ids("tool_call");
    assert_eq!(calls, ids("tool_result"), "{events:#?}");
    let mut unique = calls.clone();
    unique.dedup();
    assert_eq!(calls, unique, "a tool call was made twice: {events:#?}");
}

/// Each run begins, ends once, and says nothing after its end.
fn check_runs(events: &[Event]) {
    let mut ended: HashMap<&Value, bool> = HashMap::new();
    for event in events.iter().filter(|event| event.data.get("run_id").is_some()) {
        let has_ended = ended.entry(&event.data["run_id"]).or_default();
        // The user's message and the run's first status open it.
        assert!(!*has_ended, "event {} comes after its run's end: {events:#?}", event.id);
        *has_ended = crate::reader::is_end(event, event.data["run_id"].as_str().unwrap());
    }
    assert!(ended.values().all(|has_ended| *has_ended), "a run did not end: {events:#?}");
}

/// Checks that the stored log is what was streamed.
pub(crate) async fn check_stored(client: &Client, deployment_id: &str, streamed: &[Event]) {
    let mut stored = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/deployments/{deployment_id}/events?limit=100{cursor}");
        let page = client.get_as(&path, "application/json").await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text());
        let page = page.json();
        stored.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(stored.len(), streamed.len());
    for (stored, streamed) in stored.iter().zip(streamed) {
        assert_eq!(stored["id"], streamed.id);
        assert_eq!(stored["event"], streamed.name);
        assert_eq!(stored["data"], streamed.data);
    }
}
