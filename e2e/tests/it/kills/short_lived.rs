//! Clients that create deployments and threads, send messages to them and soon delete them, often during an active run.

use herm_testkit::events::Event;

use super::customer::Customer;
use super::load_test::LoadTest;
use crate::history::seeded_random::SeededRandom;

/// The percentage of short-lived deployments that are deleted before all their runs have ended.
const EARLY_DELETION_PERCENT: u64 = 60;
/// The maximum number of events that are read before a deployment with unfinished runs is deleted.
const MAX_EVENTS_BEFORE_DELETION: u64 = 60;

/// Creates, uses and deletes one deployment after another until the load ends. Returns the ids of all of them.
pub(super) async fn create_and_delete_deployments(test: &LoadTest) -> Vec<String> {
    let mut deployment_ids = Vec::new();
    while !test.is_load_over() {
        deployment_ids.push(create_and_delete_deployment(test, deployment_ids.len()).await);
    }
    deployment_ids
}

async fn create_and_delete_deployment(test: &LoadTest, number: usize) -> String {
    let name = format!("visitor{number}");
    let mut random = SeededRandom::with_label(test.seed, &name);
    let customer = Customer::new(test, name, "anthropic/claude-sonnet-4.5", true).await;
    let load = async {
        let messages =
            async { tokio::join!(customer.use_thread("stays"), create_and_delete_thread(test, &customer)) };
        if random.percent(EARLY_DELETION_PERCENT) {
            let count = usize::try_from(random.between(1, MAX_EVENTS_BEFORE_DELETION)).unwrap_or(1);
            tokio::select! {
                _ = messages => {}
                () = customer.tracker.wait_for_events(count) => {}
            }
        } else {
            messages.await;
        }
        test.delete(&customer.path).await;
        customer.tracker.stop();
    };
    let ((), events) = tokio::join!(load, customer.tracker.read_stream());
    check_order(&events);
    customer.deployment_id
}

/// Creates a thread by sending a message, and deletes the thread immediately, during its run.
async fn create_and_delete_thread(test: &LoadTest, customer: &Customer<'_>) {
    if let Some(sent) = customer.send("new", &format!("{}.goes", customer.deployment_id)).await {
        test.delete(&format!("{}/threads/{}", customer.path, sent.thread_id)).await;
    }
}

/// Checks that each event was read once and in order. Gaps in the ids are allowed, because the events of deleted
/// threads are erased.
fn check_order(events: &[Event]) {
    let numbers: Vec<u64> = events.iter().map(Event::number).collect();
    assert!(
        numbers.is_sorted_by(|one, next| one < next),
        "the events of a short-lived deployment are out of order: {events:#?}"
    );
}
