//! Reads and checks the state that the load leaves behind: event logs, files, the queue, processes, mounts and control
//! groups.

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
use super::load_test::LoadTest;
use super::model_script::TOKENS;
use crate::history::{DeploymentHistory, History, markers};

/// The directory where the control group file system is mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Adds the clients' own records to a deployment's history, which was read from the server. The records are the
/// acknowledged messages, the events read from streams, and the messages that the model received.
pub(super) fn add_client_records(
    test: &LoadTest,
    deployment: &mut DeploymentHistory,
    threads: Vec<Thread>,
    seen: &[Event],
) {
    assert_eq!(
        seen.len(),
        deployment.events.len(),
        "the number of streamed events differs from the number of stored events"
    );
    deployment.earlier_events = seen.iter().map(as_stored).collect();
    for thread in threads {
        let last = thread.acknowledged.last().map(|sent| sent.name.clone()).unwrap_or_default();
        let input = test.model_script.input_at(&last);
        deployment.model_messages.insert(thread.thread_id.clone(), input.messages);
        if !input.answers.is_empty() {
            deployment.model_answers.insert(thread.thread_id, input.answers);
        }
        deployment.acknowledged.extend(thread.acknowledged);
    }
}

fn as_stored(event: &Event) -> Value {
    json!({"id": event.id, "event": event.name, "data": event.data})
}

/// Counts how often each command was executed. Each execution appends a token, which is unique to the command, to a
/// file in the workspace.
pub(super) fn count_started_commands(test: &LoadTest, customers: &[Customer<'_>]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for customer in customers {
        let lines = fs::read_to_string(test.world.workspace(&customer.deployment_id).join(TOKENS));
        for token in lines.unwrap_or_default().lines() {
            *counts.entry(test.model_script.command(token)).or_default() += 1;
        }
    }
    counts
}

/// Checks that every file for which a `write_file` call reported success exists with its complete content.
pub(super) fn check_files(test: &LoadTest, customers: &[Customer<'_>], history: &History) {
    for (customer, deployment) in customers.iter().zip(&history.deployments) {
        let call_id =
            |event: &Value| format!("{} {}", event["data"]["run_id"], event["data"]["tool_call_id"]);
        let is_successful =
            |event: &&Value| event["event"] == "tool_result" && event["data"]["is_error"] == false;
        let successful: BTreeSet<String> =
            deployment.events.iter().filter(is_successful).map(call_id).collect();
        let workspace = test.world.workspace(&customer.deployment_id);
        let calls = deployment.events.iter().filter(|event| event["event"] == "tool_call");
        for call in
            calls.filter(|call| call["data"]["tool"] == "write_file" && successful.contains(&call_id(call)))
        {
            let arguments = &call["data"]["arguments"];
            let written = fs::read_to_string(workspace.join(arguments["path"].as_str().unwrap()));
            assert_eq!(written.ok().as_deref(), arguments["content"].as_str(), "{call}");
        }
    }
}

/// Reads the number of queued work items until it is 0, and returns it. There is no timeout here, because the test
/// runner has one.
pub(super) async fn wait_for_empty_queue(test: &LoadTest) -> i64 {
    let location = match &test.world.postgres {
        Some(url) => Location::Postgres(url.clone().into()),
        None => Location::Sqlite(test.world.data_dir()),
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

/// Deletes the customers' deployments. Checks that neither these deployments nor those in `deleted`, which were deleted
/// earlier, leave files, work items, processes, mounts or control groups.
pub(super) async fn delete_all(test: &LoadTest, customers: &[Customer<'_>], deleted: &[String]) {
    join_all(customers.iter().map(|customer| test.delete(&customer.path))).await;
    let world = &test.world;
    let ids = customers.iter().map(|customer| customer.deployment_id.clone()).chain(deleted.to_vec());
    for id in ids {
        let (workspace, sandbox) = (world.workspace(&id), world.sandbox_dir(&id));
        wait_until(|| !workspace.exists() && !sandbox.exists()).await;
    }
    wait_for_empty_queue(test).await;
    let instance = world.instance().unwrap();
    let any_process = world.sandbox_process("");
    wait_until(|| processes_that_mention(&any_process).is_empty()).await;
    let data_dir = world.data_dir().canonicalize().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*data_dir.to_string_lossy()), "{mounts}");
    let mut groups = Vec::new();
    find_cgroups(Path::new(CGROUPS), &format!("herm-{instance}"), &mut groups);
    assert!(groups.is_empty(), "control groups remain: {groups:?}");
}

/// Adds to `found` the paths of all control groups whose parent directory is called `name`. Each of them belongs to one
/// sandbox.
fn find_cgroups(dir: &Path, name: &str, found: &mut Vec<String>) {
    // The control group may have been removed after its parent directory was read.
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if dir.file_name().is_some_and(|parent| parent == name) {
            found.push(entry.path().display().to_string());
        }
        find_cgroups(&entry.path(), name, found);
    }
}

/// Returns the number of acknowledged messages that are not stored, and the number of messages and commands that occur
/// more than once.
pub(super) fn count_lost_and_doubled(history: &History) -> (usize, usize) {
    let (mut lost, mut doubled) = (0, history.command_starts.values().filter(|count| **count > 1).count());
    for deployment in &history.deployments {
        let user_messages = deployment.events.iter().filter(|event| event["data"]["role"] == "user");
        let mut stored: BTreeMap<String, usize> = BTreeMap::new();
        for name in
            user_messages.flat_map(|event| markers::names_in(event["data"]["content"].as_str().unwrap()))
        {
            *stored.entry(name).or_default() += 1;
        }
        lost += deployment.acknowledged.iter().filter(|sent| !stored.contains_key(&sent.name)).count();
        doubled += stored.values().filter(|count| **count > 1).count();
    }
    (lost, doubled)
}
