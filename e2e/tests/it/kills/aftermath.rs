//! What is left when all is over: in the log, in the files, in the queue, and on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use herm_store::{DatabaseClock, Location, Store, queue};
use herm_testkit::events::Event;
use herm_testkit::process::{processes_that_mention, wait_until};
use herm_types::time::SystemClock;
use serde_json::{Value, json};

use super::customer::{Customer, Thread};
use super::place::Place;
use super::script::TOKENS;
use crate::history::{History, OfDeployment, marks};

/// Where control groups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Adds to what is stored of a deployment what its clients were told and its reader has read.
pub(super) fn tell_apart(place: &Place, of_it: &mut OfDeployment, threads: Vec<Thread>, seen: &[Event]) {
    assert_eq!(seen.len(), of_it.events.len(), "what was read live is not as long as what is stored");
    of_it.events_before = seen.iter().map(as_stored).collect();
    for thread in threads {
        let last = thread.acknowledged.last().map(|sent| sent.name.clone()).unwrap_or_default();
        let told = place.script.told_by(&last);
        of_it.heard.insert(thread.thread_id.clone(), told.heard);
        if !told.answers.is_empty() {
            of_it.answers.insert(thread.thread_id, told.answers);
        }
        of_it.acknowledged.extend(thread.acknowledged);
    }
}

fn as_stored(event: &Event) -> Value {
    json!({"id": event.id, "event": event.name, "data": event.data})
}

/// How often each command was begun, by the lines that they wrote.
pub(super) fn begun(place: &Place, customers: &[Customer<'_>]) -> BTreeMap<String, u64> {
    let mut begun = BTreeMap::new();
    for customer in customers {
        let lines = fs::read_to_string(place.world.workspace(&customer.deployment_id).join(TOKENS));
        for token in lines.unwrap_or_default().lines() {
            *begun.entry(place.script.command(token)).or_default() += 1;
        }
    }
    begun
}

/// Each file that is said to be written is there, whole.
pub(super) fn check_files(place: &Place, customers: &[Customer<'_>], history: &History) {
    for (customer, of_it) in customers.iter().zip(&history.deployments) {
        let call_of =
            |event: &Value| format!("{} {}", event["data"]["run_id"], event["data"]["tool_call_id"]);
        let is_done = |event: &&Value| event["event"] == "tool_result" && event["data"]["is_error"] == false;
        let done: BTreeSet<String> = of_it.events.iter().filter(is_done).map(call_of).collect();
        let workspace = place.world.workspace(&customer.deployment_id);
        let calls = of_it.events.iter().filter(|event| event["event"] == "tool_call");
        for call in calls.filter(|call| call["data"]["tool"] == "write_file" && done.contains(&call_of(call)))
        {
            let arguments = &call["data"]["arguments"];
            let written = fs::read_to_string(workspace.join(arguments["path"].as_str().unwrap()));
            assert_eq!(written.ok().as_deref(), arguments["content"].as_str(), "{call}");
        }
    }
}

/// Looks until the queue is empty, or the life hangs.
pub(super) async fn queued(place: &Place) -> i64 {
    let location = match &place.world.postgres {
        Some(url) => Location::Postgres(url.clone().into()),
        None => Location::Sqlite(place.world.data_dir()),
    };
    let options = herm_store::Options {
        location,
        clock: Arc::new(SystemClock),
        database_clock: DatabaseClock::Database,
        migrate: false,
        exclusive: false,
    };
    let store = Store::open(options).await.unwrap();
    loop {
        let queued = store.read("queued", |tx| Box::pin(queue::len(tx))).await.unwrap();
        if queued == 0 {
            return queued;
        }
    }
}

/// Deletes all deployments; of them and of those that were deleted before nothing may be left.
pub(super) async fn delete(place: &Place, customers: &[Customer<'_>], visited: &[String]) {
    join_all(customers.iter().map(|customer| place.delete(&customer.path))).await;
    let world = &place.world;
    let ids = customers.iter().map(|customer| customer.deployment_id.clone()).chain(visited.to_vec());
    for id in ids {
        let (workspace, sandbox) = (world.workspace(&id), world.sandbox_dir(&id));
        wait_until(|| !workspace.exists() && !sandbox.exists()).await;
    }
    queued(place).await;
    let instance = world.instance().unwrap();
    let any_process = world.sandbox_process("");
    wait_until(|| processes_that_mention(&any_process).is_empty()).await;
    let data_dir = world.data_dir().canonicalize().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*data_dir.to_string_lossy()), "{mounts}");
    let mut groups = Vec::new();
    groups_of(Path::new(CGROUPS), &format!("herm-{instance}"), &mut groups);
    assert!(groups.is_empty(), "control groups are left: {groups:?}");
}

/// The control groups of single sandboxes: those that are in one of this name.
fn groups_of(dir: &Path, name: &str, found: &mut Vec<String>) {
    // A group may go while it is looked at.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if dir.file_name().is_some_and(|parent| parent == name) {
            found.push(entry.path().display().to_string());
        }
        groups_of(&entry.path(), name, found);
    }
}

/// Messages that were acknowledged and are not stored, and what happened twice.
pub(super) fn lost_and_doubled(history: &History) -> (usize, usize) {
    let (mut lost, mut doubled) = (0, history.begun.values().filter(|count| **count > 1).count());
    for of_it in &history.deployments {
        let of_users = of_it.events.iter().filter(|event| event["data"]["role"] == "user");
        let mut stored: BTreeMap<String, usize> = BTreeMap::new();
        for name in of_users.flat_map(|event| marks::marks(event["data"]["content"].as_str().unwrap())) {
            *stored.entry(name).or_default() += 1;
        }
        lost += of_it.acknowledged.iter().filter(|sent| !stored.contains_key(&sent.name)).count();
        doubled += stored.values().filter(|count| **count > 1).count();
    }
    (lost, doubled)
}
