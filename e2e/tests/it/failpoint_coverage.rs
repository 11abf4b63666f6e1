//! Checks that the test scenarios together reach every failpoint and every named transaction in the source code. The
//! transactions that no scenario reaches are listed here, each with the reason.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::kill_matrix::list_failpoints;
use crate::world::World;
use crate::{snapshots, steering, write_requests};

/// A failpoint's name is `moment:subject`, for example `commit.before:send_message`. For the moments listed here, the
/// subject is filled in at run time (a tool, a kind of work item or a transaction), so the source code does not contain
/// the full names. The test only checks that each of these moments is reached.
const COMPUTED_SUBJECTS: [&str; 5] =
    ["effect.before", "effect.after", "work.taken", "commit.before", "commit.after"];

/// Transactions that no scenario reaches, each with the condition under which it would be executed.
const NOT_REACHED: [(&str, &str); 12] = [
    (
        "delete_snapshot",
        "the deletion of a snapshot: one commit, followed by the removal of a file, which a sweep repeats",
    ),
    ("end_connections", "a command that connects to a host"),
    ("fail_snapshot", "a snapshot that cannot be written to the disk"),
    (
        "finish_run",
        "a pending message that is withdrawn after the final reply is recorded and before the run ends",
    ),
    ("forget_work", "a work item whose run was already ended or deleted"),
    ("give_work_back", "a work item that fails because of the database"),
    ("note_activity", "a file request for a thread that has its own workspace"),
    ("postpone_provisioning", "more images to be pulled than are pulled in parallel"),
    ("record_connection", "a command that connects to a host"),
    ("renew_lease", "a run of more than ten seconds"),
    ("trim_events", "events older than a day"),
    ("set_workspace_aside", "a thread's workspace that was idle for a day"),
];

/// Returns the content of the string literal at the beginning of `text`, after optional white space. Returns `None` if
/// `text` begins with something else.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

fn read_sources(dir: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // Omits the unit tests, which are always at the end of a file.
            texts.push(text.split("#[cfg(test)]\nmod").next().unwrap_or_default().to_owned());
        }
    }
}

/// Parses the source code. Returns the names of all transactions, and the names (`moment:subject`) of all failpoints
/// whose subject is a string literal.
fn parse_source() -> (BTreeSet<String>, BTreeSet<String>) {
    let mut texts = Vec::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for dir in fs::read_dir(crates).unwrap() {
        let dir = dir.unwrap().path();
        if !dir.ends_with("testkit") {
            read_sources(&dir.join("src"), &mut texts);
        }
    }
    let (mut transactions, mut points) = (BTreeSet::new(), BTreeSet::new());
    for text in &texts {
        let named = text.split("transaction(").skip(1).filter_map(quoted);
        transactions.extend(named.map(str::to_owned));
        for call in text.split("failpoint::reach(").skip(1) {
            let Some(moment) = quoted(call) else {
                panic!("the moment of a failpoint must be a string literal: {call:.80}")
            };
            match call.split_once(',').and_then(|(_, subject)| quoted(subject)) {
                Some(subject) => points.insert(format!("{moment}:{subject}")),
                None => {
                    assert!(
                        COMPUTED_SUBJECTS.contains(&moment),
                        "the subject of {moment} is not a string literal; add it to COMPUTED_SUBJECTS"
                    );
                    false
                }
            };
        }
    }
    (transactions, points)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scenarios_reach_every_failpoint_of_the_source() {
    let (transactions, mut expected) = parse_source();
    assert!(
        transactions.contains("send_message") && expected.contains("run:loaded"),
        "the source was not parsed"
    );
    let mut reached = BTreeSet::new();
    reached.extend(
        list_failpoints(World::sqlite().await, |server| Box::pin(server.run_main_scenario()))
            .await
            .into_keys(),
    );
    reached.extend(
        list_failpoints(World::sqlite().await, |server| Box::pin(snapshots::run_scenario(server)))
            .await
            .into_keys(),
    );
    reached.extend(
        list_failpoints(World::sqlite().await, |server| Box::pin(write_requests::run_scenario(server)))
            .await
            .into_keys(),
    );
    reached.extend(
        list_failpoints(World::sqlite().await, |server| Box::pin(steering::run_scenario(server)))
            .await
            .into_keys(),
    );
    let not_reached: BTreeSet<&str> = NOT_REACHED.iter().map(|(name, _)| *name).collect();
    for name in &transactions {
        for moment in ["commit.before", "commit.after"] {
            expected.insert(format!("{moment}:{name}"));
        }
    }
    let is_exception =
        |point: &&String| point.split_once(':').is_some_and(|(_, subject)| not_reached.contains(subject));
    let missed: Vec<&String> = expected.difference(&reached).filter(|point| !is_exception(point)).collect();
    assert!(missed.is_empty(), "no scenario reaches {missed:#?}");
    // `not_reached` lists the transactions that the scenarios are not expected to reach. On a slow machine, a scenario
    // may reach one anyway, which is not an error. The test fails only if a listed transaction no longer exists in the
    // source code.
    let outdated: Vec<&&str> = not_reached.iter().filter(|name| !transactions.contains(**name)).collect();
    assert!(outdated.is_empty(), "the source does not contain the transactions {outdated:?}");
    for moment in COMPUTED_SUBJECTS {
        assert!(reached.iter().any(|point| point.starts_with(moment)), "{moment} is never reached");
    }
}
