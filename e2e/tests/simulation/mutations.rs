//! Histories that are broken on purpose: each rule refuses its own.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::history::check::check;
use crate::history::{Acknowledged, History, OfDeployment};

/// A small history in which all is well: a message, a command, an answer; a call of which nobody knows.
fn sound() -> History {
    let (of_run, first) = (json!({"run_id": "run_1", "thread_id": "thr_1"}), "0.0.0");
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
        .map(|(at, (name, mut data))| {
            let all = data.as_object_mut().unwrap();
            all.extend(of_run.as_object().unwrap().clone());
            json!({"id": format!("evt_{}", at + 1), "event": name, "data": data})
        })
        .collect();
    let sent = |name: &str| Acknowledged {
        thread_id: "thr_1".to_owned(),
        run_id: "run_1".to_owned(),
        name: name.to_owned(),
    };
    let names = [first, "0.0.1"];
    let deployment = OfDeployment {
        acknowledged: names.map(sent).to_vec(),
        events_before: events[..3].to_vec(),
        events,
        runs: vec![json!({"run_id": "run_1", "status": "completed"})],
        heard: BTreeMap::from([("thr_1".to_owned(), names.map(str::to_owned).to_vec())]),
        ..OfDeployment::default()
    };
    let begun = BTreeMap::from([("0.0.0.0".to_owned(), 1), ("0.0.0.1".to_owned(), 1)]);
    History { deployments: vec![deployment], begun, ..History::default() }
}

#[track_caller]
fn refuses(reason: &str, spoil: impl FnOnce(&mut History)) {
    let mut history = sound();
    spoil(&mut history);
    let found = check(&history).unwrap_err();
    assert!(found.contains(reason), "{found}");
}

fn remove(history: &mut History, at: usize) {
    let events = &mut history.deployments[0].events;
    events.remove(at);
    renumber(events);
}

fn renumber(events: &mut [Value]) {
    for (at, event) in events.iter_mut().enumerate() {
        event["id"] = json!(format!("evt_{}", at + 1));
    }
}

#[test]
fn a_history_in_which_all_is_well_passes() {
    assert_eq!(check(&sound()), Ok(()));
    let mut untold = sound();
    untold.begun.remove("0.0.0.1");
    assert_eq!(check(&untold), Ok(()), "of what nobody knows it may be that nothing was done");
}

#[test]
fn a_run_that_waits_for_a_person_goes_on() {
    let mut history = sound();
    let mut waits = history.deployments[0].events[2].clone();
    waits["data"]["status"] = json!("waiting_on_human");
    let events = &mut history.deployments[0].events;
    let goes_on = events[2].clone();
    events.splice(3..3, [waits, goes_on]);
    renumber(events);
    assert_eq!(check(&history), Ok(()));
}

#[test]
fn an_effect_that_happened_twice_is_refused() {
    refuses("was done 2 times", |history| *history.begun.get_mut("0.0.0.1").unwrap() = 2);
}

#[test]
fn an_effect_that_is_told_and_did_not_happen_is_refused() {
    refuses("done false", |history| {
        history.begun.remove("0.0.0.0");
    });
}

#[test]
fn an_effect_that_happened_and_is_told_not_to_have_is_refused() {
    refuses("done true", |history| {
        let told = &mut history.deployments[0].events[6]["data"];
        told["result"] = json!("The command was not run.");
    });
}

#[test]
fn a_gap_in_the_log_is_refused() {
    refuses("after event 2 of the log", |history| {
        history.deployments[0].events.remove(2);
    });
}

#[test]
fn a_gap_is_where_a_thread_was_erased() {
    let mut history = sound();
    let of_it = &mut history.deployments[0];
    of_it.erased.insert("thr_2".to_owned());
    let mut erased = of_it.events[2].clone();
    erased["data"]["thread_id"] = json!("thr_2");
    of_it.events_before.push(erased.clone());
    for event in of_it.events.iter_mut().skip(3) {
        let id: u64 = event["id"].as_str().unwrap()[4..].parse().unwrap();
        event["id"] = json!(format!("evt_{}", id + 1));
    }
    assert_eq!(check(&history), Ok(()));
    let last = history.deployments[0].events[11].clone();
    history.deployments[0].events.push(last);
    assert!(check(&history).unwrap_err().contains("after event 13"));
}

#[test]
fn what_is_left_of_a_thread_that_was_erased_is_refused() {
    refuses("is left", |history| {
        history.deployments[0].erased.insert("thr_1".to_owned());
    });
}

#[test]
fn a_request_that_is_not_resolved_is_refused() {
    refuses("asked were", |history| {
        let of_it = &mut history.deployments[0];
        let data = json!({"run_id": "run_1", "thread_id": "thr_1", "steering_id": "str_1"});
        of_it.events.insert(5, json!({"id": "", "event": "steering_request", "data": data}));
        renumber(&mut of_it.events);
    });
}

#[test]
fn an_answer_is_told_as_the_result_of_a_call_and_only_so() {
    let mut history = sound();
    let of_it = &mut history.deployments[0];
    of_it.heard.get_mut("thr_1").unwrap().pop();
    of_it.answers.insert("thr_1".to_owned(), vec!["0.0.1".to_owned()]);
    assert_eq!(check(&history), Ok(()));
    refuses("as answers", |history| {
        history.deployments[0].answers.insert("thr_1".to_owned(), vec!["0.0.1".to_owned()]);
    });
}

#[test]
fn an_event_that_changes_after_it_was_read_is_refused() {
    refuses("has changed", |history| {
        history.deployments[0].events_before[1]["data"]["content"] = json!("<<0.0.9>>");
    });
}

#[test]
fn a_message_that_was_lost_is_refused() {
    refuses("acknowledged were", |history| remove(history, 8));
}

#[test]
fn a_message_that_is_doubled_is_refused() {
    refuses("acknowledged were", |history| {
        let again = history.deployments[0].events[8].clone();
        history.deployments[0].events.insert(9, again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn pieces_that_are_not_the_message_are_refused() {
    refuses("the pieces", |history| remove(history, 7));
}

#[test]
fn speech_that_never_ends_is_refused() {
    refuses("never ended", |history| remove(history, 10));
}

#[test]
fn a_call_without_a_result_is_refused() {
    refuses("have results", |history| remove(history, 5));
}

#[test]
fn a_result_that_is_doubled_is_refused() {
    refuses("a tool_result is doubled", |history| {
        let again = history.deployments[0].events[5].clone();
        history.deployments[0].events.insert(6, again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn a_run_that_does_not_end_is_refused() {
    refuses("run_1 was", |history| remove(history, 11));
}

#[test]
fn a_run_that_begins_twice_is_refused() {
    refuses("run_1 was", |history| {
        let again = history.deployments[0].events[2].clone();
        history.deployments[0].events.insert(3, again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn what_comes_after_a_runs_end_is_refused() {
    refuses("after its run's end", |history| {
        let again = history.deployments[0].events[11].clone();
        history.deployments[0].events.push(again);
        renumber(&mut history.deployments[0].events);
    });
}

#[test]
fn a_run_whose_row_and_events_differ_is_refused() {
    refuses("runs are", |history| history.deployments[0].runs[0]["status"] = json!("running"));
}

#[test]
fn a_message_that_the_model_is_not_told_of_is_refused() {
    refuses("sent were", |history| {
        history.deployments[0].heard.get_mut("thr_1").unwrap().pop();
    });
}

#[test]
fn messages_that_the_model_is_told_of_in_another_order_are_refused() {
    refuses("sent were", |history| history.deployments[0].heard.get_mut("thr_1").unwrap().reverse());
}

#[test]
fn a_queue_that_is_not_empty_is_refused() {
    refuses("left in the queue", |history| history.queued = 1);
}
