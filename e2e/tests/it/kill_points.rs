//! No fault point is forgotten: all that are in the source are reached by a life that is led with a kill at each of them,
//! or it is said here why not.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::kill_matrix::points;
use crate::world::World;
use crate::{household, snapshots, steering};

/// Moments whose subject is not in the source as a text: a tool, a kind of work, a transaction.
const OF_ANY: [&str; 5] = ["effect.before", "effect.after", "work.taken", "commit.before", "commit.after"];

/// Transactions that no life here comes to, and what they would need.
const ELSEWHERE: [(&str, &str); 12] = [
    (
        "delete_snapshot",
        "stands alone: nothing happens beside its one commit but the file's removal, which a sweep repeats",
    ),
    ("end_connections", "a command that reaches a host, and a machine with a program that does"),
    ("fail_snapshot", "a disk that cannot hold a snapshot"),
    ("finish_run", "a message that is withdrawn between a reply and the run's end"),
    ("forget_work", "a run that ends in another worker's hands"),
    ("give_work_back", "a database that fails while work is under way"),
    ("note_activity", "files of a thread with a workspace of its own"),
    ("postpone_provisioning", "more images to be fetched than are fetched at once"),
    ("record_connection", "as end_connections"),
    ("renew_lease", "a run of more than ten seconds"),
    ("trim_events", "events that are older than a day"),
    ("set_workspace_aside", "a thread's workspace that was idle for a day"),
];

/// The text between quotes that comes next, if nothing but white space is before it.
fn quoted(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

fn sources(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // What is below is for unit tests.
            found.push(text.split("#[cfg(test)]\nmod").next().unwrap_or_default().to_owned());
        }
    }
}

/// All points of the source: transactions by their names, the others as they are reached.
fn of_source() -> (BTreeSet<String>, BTreeSet<String>) {
    let mut texts = Vec::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    for dir in fs::read_dir(crates).unwrap() {
        let dir = dir.unwrap().path();
        if !dir.ends_with("testkit") {
            sources(&dir.join("src"), &mut texts);
        }
    }
    let (mut transactions, mut points) = (BTreeSet::new(), BTreeSet::new());
    for text in &texts {
        let named = text.split("transaction(").skip(1).filter_map(quoted);
        transactions.extend(named.map(str::to_owned));
        for call in text.split("fault::reach(").skip(1) {
            let Some(moment) = quoted(call) else { panic!("a moment is no text: {call:.80}") };
            match call.split_once(',').and_then(|(_, subject)| quoted(subject)) {
                Some(subject) => points.insert(format!("{moment}:{subject}")),
                None => {
                    assert!(OF_ANY.contains(&moment), "the subject of {moment} is no text: say so here");
                    false
                }
            };
        }
    }
    (transactions, points)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_point_of_the_source_is_reached() {
    let (transactions, mut wanted) = of_source();
    assert!(transactions.contains("send_message") && wanted.contains("run:loaded"), "the source is not read");
    let mut reached = BTreeSet::new();
    reached.extend(points(World::sqlite().await, |life| Box::pin(life.live())).await.into_keys());
    reached.extend(points(World::sqlite().await, |life| Box::pin(snapshots::live(life))).await.into_keys());
    reached.extend(
        points(World::sqlite().await, |life| Box::pin(household::keep_house(life))).await.into_keys(),
    );
    reached.extend(points(World::sqlite().await, |life| Box::pin(steering::live(life))).await.into_keys());
    let elsewhere: BTreeSet<&str> = ELSEWHERE.iter().map(|(name, _)| *name).collect();
    for name in &transactions {
        for moment in ["commit.before", "commit.after"] {
            wanted.insert(format!("{moment}:{name}"));
        }
    }
    let is_elsewhere =
        |point: &&String| point.split_once(':').is_some_and(|(_, subject)| elsewhere.contains(subject));
    let missed: Vec<&String> = wanted.difference(&reached).filter(|point| !is_elsewhere(point)).collect();
    assert!(missed.is_empty(), "no life is killed at {missed:#?}");
    // On a slow machine some of these are reached as well; what is not in the source any more needs no excuse.
    let needless: Vec<&&str> = elsewhere.iter().filter(|name| !transactions.contains(**name)).collect();
    assert!(needless.is_empty(), "there are no transactions {needless:?}");
    for moment in OF_ANY {
        assert!(reached.iter().any(|point| point.starts_with(moment)), "{moment} is never reached");
    }
}
