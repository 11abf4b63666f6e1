//! Mutated histories: correct records of what clients sent and received, each changed by one deliberate error. The
//! history checker must reject each of them and name the violated rule.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::history::checker::check;
use crate::history::{AcknowledgedMessage, DeploymentHistory, History};

/// Returns a small correct history: two messages, a command that succeeds, a command whose outcome is unknown, and a
/// reply.
fn correct_history() -> History {
    let (ids, first) = (json!({"run_id": "run_1", "thread_id": "thr_1"}), "0.0.0");
    let data = [
        ("run_status", json!({"status": "queued"})),
        ("message", json!({"message_id": "msg_1", "role": "user", "content": "<<0.0.0>> Do it."})),
        ("run_status", json!({"status": "running"})),
        ("tool_call", json!({"tool_call_id": "a", "arguments": {"command": "0.0.0.0"}})),
        ("tool_call", json!({"tool_call_id": "b", "arguments": {"command": "0.0.0.1"}})),
        ("tool_result", json!({"tool_call_id": "a", "is_error": false, "result": "0.0.0.0"})),
        ("tool_result", json!({"tool_call_id": "b", "is_error": true, "result": "The outcome is unknown."})),
        ("token", json!({"message_id": "msg_2", "delta": "It is "})),
        ("message", json!({"message_id": "msg_3", "role": "user", "content": "<<0.0.1>> Do it."})),
        ("token", json!({"message_id": "msg_2", "delta": "done."})),
        ("message", json!({"message_id": "msg_2", "role": "agent", "content": "It is done."})),
        ("run_status", json!({"status": "completed"})),
    ];
    let events: Vec<Value> = data
        .into_iter()
        .enumerate()
        .map(|(index, (name, mut data))| {
            let fields = data.as_object_mut().unwrap();
            fields.extend(ids.as_object().unwrap().clone());
            json!({"id": format!("evt_{}", index + 1), "event": name, "data": data})
        })
        .collect();
    let sent = |name: &str| AcknowledgedMessage {
        thread_id: "thr_1".to_owned(),
        run_id: "run_1".to_owned(),
        name: name.to_owned(),
    };
    let names = [first, "0.0.1"];
    let deployment = DeploymentHistory {
        acknowledged: names.map(sent).to_vec(),
        earlier_events: events[..3].to_vec(),
        events,
        runs: vec![json!({"run_id": "run_1", "status": "completed"})],
        model_messages: BTreeMap::from([("thr_1".to_owned(), names.map(str::to_owned).to_vec())]),
        ..DeploymentHistory::default()
    };
    let command_starts = BTreeMap::from([("0.0.0.0".to_owned(), 1), ("0.0.0.1".to_owned(), 1)]);
    History { deployments: vec![deployment], command_starts, ..History::default() }
}

/// Asserts that the checker rejects the mutated history and that its error message contains `expected`.
#[track_caller]
fn assert_rejected(expected: &str, mutate: impl FnOnce(&mut History)) {
    let mut history = correct_history();
    mutate(&mut history);
    let violation = check(&history).unwrap_err();
    assert!(violation.contains(expected), "{violation}");
}

/// Removes an event and renumbers the remaining ones, so that their ids have no gap.
fn remove(history: &mut History, index: usize) {
    let events = &mut history.deployments[0].events;
    events.remove(index);
    renumber(events);
}

fn renumber(events: &mut [Value]) {
    for (index, event) in events.iter_mut().enumerate() {
        event["id"] = json!(format!("evt_{}", index + 1));
    }
}

#[test]
fn a_correct_history_passes() {
    assert_eq!(check(&correct_history()), Ok(()));
    let mut unknown = correct_history();
    unknown.command_starts.remove("0.0.0.1");
    assert_eq!(check(&unknown), Ok(()), "a call with an unknown outcome may not have been made");
}

#[test]
fn a_run_that_waits_for_a_person_may_continue() {
    let mut history = correct_history();
    let mut waiting = history.deployments[0].events[2].clone();
    waiting["data"]["status"] = json!("waiting_on_human");
    let events = &mut history.deployments[0].events;
    let running = events[2].clone();
    events.splice(3..3, [waiting, running]);
    renumber(events);
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn a_command_that_was_started_twice_is_rejected() {
    assert_rejected("was started 2 times", |history| *history.command_starts.get_mut("0.0.0.1").unwrap() = 2);
}

#[test]
fn a_command_that_was_reported_done_but_not_started_is_rejected() {
    assert_rejected("started false", |history| {
        history.command_starts.remove("0.0.0.0");
    });
}

#[test]
fn a_command_that_was_started_but_reported_not_run_is_rejected() {
    assert_rejected("started true", |history| {
        let result = &mut history.deployments[0].events[6]["data"];
        result["result"] = json!("The command was not run.");
    });
}

#[test]
fn a_gap_in_the_log_is_rejected() {
    assert_rejected("event 2 of the log is followed by", |history| {
        history.deployments[0].events.remove(2);
    });
}

#[test]
fn the_events_of_an_erased_thread_may_leave_a_gap() {
    let mut history = correct_history();
    let deployment = &mut history.deployments[0];
    deployment.erased_threads.insert("thr_2".to_owned());
    let mut erased_event = deployment.events[2].clone();
    erased_event["data"]["thread_id"] = json!("thr_2");
    deployment.earlier_events.push(erased_event.clone());
    for event in deployment.events.iter_mut().skip(3) {
        let id: u64 = event["id"].as_str().unwrap()[4..].parse().unwrap();
        event["id"] = json!(format!("evt_{}", id + 1));
    }
    assert_eq!(check(&history), Ok(()));
    let last = history.deployments[0].events[11].clone();
    history.deployments[0].events.push(last);
    assert!(check(&history).unwrap_err().contains("event 13 of the log is followed by"));
}

#[test]
fn an_event_of_an_erased_thread_is_rejected() {
    assert_rejected("of a deleted thread is left", |history| {
        history.deployments[0].erased_threads.insert("thr_1".to_owned());
    });
}

#[test]
fn an_unresolved_steering_request_is_rejected() {
    assert_rejected("the steering requests", |history| {
        let deployment = &mut history.deployments[0];
        let data = json!({"run_id": "run_1", "thread_id": "thr_1", "steering_id": "str_1"});
        deployment.events.insert(5, json!({"id": "", "event": "steering_request", "data": data}));
        renumber(&mut deployment.events);
    });
}

#[test]
fn an_answer_reaches_the_model_as_a_tool_result_only() {
    let mut history = correct_history();
    let deployment = &mut history.deployments[0];
    deployment.model_messages.get_mut("thr_1").unwrap().pop();
    deployment.model_answers.insert("thr_1".to_owned(), vec!["0.0.1".to_owned()]);
    assert_eq!(check(&history), Ok(()));
    assert_rejected("as answers", |history| {
        history.deployments[0].model_answers.insert("thr_1".to_owned(), vec!["0.0.1".to_owned()]);
    });
}

#[test]
fn an_event_that_changes_after_it_was_read_is_rejected() {
    assert_rejected("has changed", |history| {
        history.deployments[0].earlier_events[1]["data"]["content"] = json!("<<0.0.9>>");
    });
}

#[test]
fn a_lost_message_is_rejected() {
    assert_rejected("the acknowledged messages", |history| remove(history, 8));
}

#[test]
fn a_duplicate_message_is_rejected() {
    assert_rejected("the acknowledged messages", |history| {
        let again = history.deployments[0].events[8].clone();
        history.deployments[0].events.insert(9, again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn deltas_that_differ_from_the_message_are_rejected() {
    assert_rejected("the deltas", |history| remove(history, 7));
}

#[test]
fn a_message_that_is_never_closed_is_rejected() {
    assert_rejected("never closed", |history| remove(history, 10));
}

#[test]
fn a_tool_call_without_a_result_is_rejected() {
    assert_rejected("have the results", |history| remove(history, 5));
}

#[test]
fn a_duplicate_tool_result_is_rejected() {
    assert_rejected("a tool_result occurs twice", |history| {
        let again = history.deployments[0].events[5].clone();
        history.deployments[0].events.insert(6, again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn a_run_that_does_not_end_is_rejected() {
    assert_rejected("run_1 had the statuses", |history| remove(history, 11));
}

#[test]
fn a_run_that_starts_twice_is_rejected() {
    assert_rejected("run_1 had the statuses", |history| {
        let again = history.deployments[0].events[2].clone();
        history.deployments[0].events.insert(3, again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn an_event_after_the_end_of_its_run_is_rejected() {
    assert_rejected("after the end of its run", |history| {
        let again = history.deployments[0].events[11].clone();
        history.deployments[0].events.push(again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn a_stored_run_that_differs_from_its_events_is_rejected() {
    assert_rejected("the stored runs", |history| history.deployments[0].runs[0]["status"] = json!("running"));
}

#[test]
fn a_message_that_the_model_never_receives_is_rejected() {
    assert_rejected("received by the model as messages", |history| {
        history.deployments[0].model_messages.get_mut("thr_1").unwrap().pop();
    });
}

#[test]
fn messages_that_the_model_receives_in_another_order_are_rejected() {
    assert_rejected("received by the model as messages", |history| {
        history.deployments[0].model_messages.get_mut("thr_1").unwrap().reverse();
    });
}

#[test]
fn a_queue_that_is_not_empty_is_rejected() {
    assert_rejected("left in the queue", |history| history.queued_work_items = 1);
}
