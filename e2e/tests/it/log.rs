//! The rules that every event log must satisfy, whatever failures occurred while it was written.

use std::collections::HashMap;

use herm_testkit::client::Client;
use herm_testkit::events::Event;
use serde_json::Value;

/// Checks the complete event log of a deployment, as received by a client that resumed the stream after interruptions.
pub(crate) fn check(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(Event::number).collect();
    let expected: Vec<u64> = (1..=events.len() as u64).collect();
    assert_eq!(numbers, expected, "the log has a gap or a duplicate: {events:#?}");
    check_messages(events);
    check_tool_calls(events);
    check_runs(events);
}

/// Checks that the deltas (streamed pieces) of each agent message add up to the content of the message.
fn check_messages(events: &[Event]) {
    let mut texts: HashMap<String, String> = HashMap::new();
    for event in events {
        let id = || event.data["message_id"].as_str().unwrap().to_owned();
        match event.name.as_str() {
            "token" => {
                texts.entry(id()).or_default().push_str(event.data["delta"].as_str().unwrap());
            }
            "message" if event.data["role"] == "agent" => {
                let text = texts.remove(&id()).unwrap_or_default();
                assert_eq!(
                    event.data["content"], text,
                    "the deltas do not add up to the message: {events:#?}"
                );
            }
            _ => {}
        }
    }
    assert!(texts.is_empty(), "messages without an end: {texts:?}");
}

/// Checks that each tool call has exactly one result.
fn check_tool_calls(events: &[Event]) {
    let ids = |name: &str| {
        let named = events.iter().filter(|event| event.name == name);
        let mut ids: Vec<String> =
            named.map(|event| format!("{} {}", event.data["run_id"], event.data["tool_call_id"])).collect();
        ids.sort();
        ids
    };
    let calls = ids("tool_call");
    assert_eq!(calls, ids("tool_result"), "{events:#?}");
    let mut unique = calls.clone();
    unique.dedup();
    assert_eq!(calls, unique, "a tool call was published twice: {events:#?}");
}

/// Checks that each run ends exactly once, and that no event of the run follows its end.
fn check_runs(events: &[Event]) {
    let mut ended: HashMap<&Value, bool> = HashMap::new();
    for event in events.iter().filter(|event| event.data.get("run_id").is_some()) {
        let has_ended = ended.entry(&event.data["run_id"]).or_default();
        assert!(!*has_ended, "event {} follows the end of its run: {events:#?}", event.id);
        *has_ended = crate::reader::is_end(event, event.data["run_id"].as_str().unwrap());
    }
    assert!(ended.values().all(|has_ended| *has_ended), "a run did not end: {events:#?}");
}

/// Checks that the stored event log equals the events that a client received from streams.
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
